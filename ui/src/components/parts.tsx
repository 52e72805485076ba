// The workflows of one daemon.

import type { WorkflowPart } from "@/api/types";
import { number } from "@/lib/format";
import { TextLink } from "./link";
import { RunStatus } from "./status";
import { type Column, Table } from "./table";

const COLUMNS: readonly Column<WorkflowPart>[] = [
  {
    name: "Workflow",
    cell: (part) => <TextLink href={`/workflows/${encodeURIComponent(part.workflow)}`}>{part.workflow}</TextLink>,
  },
  { name: "State", cell: (part) => <RunStatus state={part.state} /> },
  { name: "Revision", isNumber: true, cell: (part) => number(part.revision) },
];
const CAUSE: Column<WorkflowPart> = { name: "Why", cell: (part) => part.cause, className: "md:w-1/2" };

export function Parts({ parts }: { parts: readonly WorkflowPart[] }) {
  if (parts.length === 0) return <p className="text-sm text-muted">No workflow runs here.</p>;
  const columns = parts.some((part) => part.cause !== "") ? [...COLUMNS, CAUSE] : COLUMNS;
  return <Table label="Workflows" columns={columns} rows={parts} rowKey={(part) => part.workflow} />;
}
