// How sources and destinations were found by a check: what is well, what is wrong, and how to mend it.

import type { Checked } from "@/api/types";
import { count, number, sentence } from "@/lib/format";
import { Callout, Failure } from "./callout";
import { Status } from "./status";
import { type Column, Table } from "./table";

const COLUMNS: readonly Column<Checked>[] = [
  {
    name: "Node",
    cell: ({ node, component }) => (
      <>
        {node}
        <span className="block text-xs text-muted">{component}</span>
      </>
    ),
  },
  { name: "From", cell: ({ daemon }) => daemon },
  {
    name: "Found",
    cell: ({ ok, kind }) => <Status tone={ok ? "good" : "bad"}>{ok ? "well" : (kind ?? "wrong")}</Status>,
  },
  {
    name: "What",
    cell: ({ found, cause, remedy }) => (
      <>
        {sentence(cause ?? found)}
        {remedy && <span className="block text-muted">{sentence(remedy)}</span>}
      </>
    ),
    className: "md:w-1/2",
  },
  { name: "Took", isNumber: true, cell: ({ took_ms }) => `${number(took_ms)} ms` },
];

interface CheckedProps {
  error: unknown;
  /** `null`: not checked yet. */
  checked: readonly Checked[] | null;
  /** Daemons that could not be asked. */
  silent?: number;
}

export function CheckedTable({ error, checked, silent = 0 }: CheckedProps) {
  if (error) return <Failure error={error} />;
  if (!checked) return null;
  return (
    <div role="status" className="flex flex-col gap-2">
      {silent > 0 && <Callout tone="warn" title={`${count(silent, "daemon")} could not be asked`} />}
      {checked.length === 0 ? (
        <p className="text-sm text-muted">None of its sources and destinations is there.</p>
      ) : (
        <Table
          label="Connections"
          columns={COLUMNS}
          rows={checked}
          rowKey={({ daemon, node }) => `${daemon} ${node}`}
        />
      )}
    </div>
  );
}
