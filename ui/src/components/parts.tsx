// What runs where: the workflows of one daemon, or the daemons of one workflow.

import type { WorkflowPart } from "@/api/types";
import { number } from "@/lib/format";
import { TextLink } from "./link";
import { RunStatus } from "./status";
import { type Column, Table } from "./table";

const NAMES: Record<"workflow" | "daemon", Column<WorkflowPart>> = {
  workflow: {
    name: "Workflow",
    cell: (part) => <TextLink href={`/workflows/${encodeURIComponent(part.workflow)}`}>{part.workflow}</TextLink>,
  },
  daemon: {
    name: "Daemon",
    cell: (part) => <TextLink href={`/daemons/${encodeURIComponent(part.daemon)}`}>{part.daemon}</TextLink>,
  },
};

const REST: readonly Column<WorkflowPart>[] = [
  { name: "State", cell: (part) => <RunStatus state={part.state} /> },
  { name: "Revision", isNumber: true, cell: (part) => number(part.revision) },
];
const CAUSE: Column<WorkflowPart> = { name: "Why", cell: (part) => part.cause, className: "md:w-1/2" };

export function Parts({ parts, of }: { parts: readonly WorkflowPart[]; of: "workflow" | "daemon" }) {
  if (parts.length === 0) return <p className="text-sm text-muted">No workflow runs here.</p>;
  const columns = [NAMES[of], ...REST, ...(parts.some((part) => part.cause !== "") ? [CAUSE] : [])];
  return (
    <Table
      label={of === "workflow" ? "Workflows" : "Where it runs"}
      columns={columns}
      rows={parts}
      rowKey={(part) => part[of]}
    />
  );
}
