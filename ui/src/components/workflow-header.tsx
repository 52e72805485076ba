// What stands above every page of one workflow: its ways of being looked at.

import { Tabs } from "./tabs";

const TABS = [
  ["Run", ""],
  ["Edit", "/edit"],
  ["Dead letters", "/letters"],
  ["Revisions", "/revisions"],
] as const;

export function WorkflowTabs({ name }: { name: string }) {
  const base = `/workflows/${encodeURIComponent(name)}`;
  return <Tabs label={`Views of ${name}`} tabs={TABS.map(([label, rest]) => [label, base + rest])} />;
}
