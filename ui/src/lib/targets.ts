// The daemons that a place of a workflow stands for: one, or those that a selector chooses. Pure.

import type { DaemonItem, WorkflowView } from "@/api/types";
import { type Groups, parseSelector } from "./selector";

/** By name; none where the place is no daemon's name and no selector that this page can read. */
export function targetsOf(
  place: string,
  daemons: readonly DaemonItem[],
  workflows: readonly WorkflowView[],
  groups: Groups,
): string[] {
  if (daemons.some(({ name }) => name === place)) return [place];
  // What stands without a sign is a name, and not, as in a filter, a part of one.
  if (!/[:=]/.test(place)) return [];
  const { test } = parseSelector(place, groups);
  if (!test) return [];
  const runs = (daemon: string) => workflows.filter((each) => each.daemons.includes(daemon)).map(({ name }) => name);
  return daemons.filter((view) => test({ view, labels: view.labels, runs: runs(view.name) })).map(({ name }) => name);
}
