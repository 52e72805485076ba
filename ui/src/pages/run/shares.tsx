// A workflow daemon by daemon: how each part is, what flows through it, and what it can be told.

import type { StreamView, WorkflowPart } from "@/api/types";
import { Lag } from "@/components/lag";
import { TextLink } from "@/components/link";
import { RunStatus } from "@/components/status";
import type { Column } from "@/components/table";
import { Table } from "@/components/table";
import { VirtualTable } from "@/components/virtual-table";
import { bytes, number } from "@/lib/format";
import { CommandButton } from "../commands/command-button";
import { type Share, shares } from "./streams";

/** So many rows are drawn whether they are in sight or not. */
const DRAWN_MAX = 60;

const COLUMNS: readonly Column<Share>[] = [
  {
    name: "Daemon",
    isPlain: true,
    cell: ({ daemon }) => <TextLink href={`/daemons/${encodeURIComponent(daemon)}`}>{daemon}</TextLink>,
  },
  { name: "State", isPlain: true, cell: ({ state }) => <RunStatus state={state} /> },
  {
    name: "Revision",
    isNumber: true,
    cell: ({ revision, wanted }) => (
      <span className="whitespace-nowrap">
        {wanted > revision ? `${number(revision)} → ${number(wanted)}` : number(revision)}
      </span>
    ),
  },
  { name: "Sends/s", isNumber: true, cell: ({ sends }) => number(sends) },
  { name: "Gets/s", isNumber: true, cell: ({ gets }) => number(gets) },
  {
    name: "Waiting",
    isNumber: true,
    cell: ({ waiting, waitingBytes }) => (
      <>
        {number(waiting)}
        {waitingBytes > 0 && <span className="block text-xs text-muted">{bytes(waitingBytes)}</span>}
      </>
    ),
  },
  { name: "Lag", isNumber: true, cell: ({ lagMs }) => <Lag ms={lagMs} /> },
  { name: "Dropped, dead", isNumber: true, cell: ({ lost }) => number(lost) },
];
const CAUSE: Column<Share> = { name: "Why", cell: ({ cause }) => cause, className: "md:w-1/3" };
const ACTION: Column<Share> = {
  name: "Action",
  cell: ({ daemon, workflow }) => (
    <CommandButton
      label={`Command ${daemon}`}
      selector={`name:${daemon}`}
      chosen={[daemon]}
      first={{ kind: "restart", workflow }}
    />
  ),
};

export function Shares({ parts, streams }: { parts: readonly WorkflowPart[]; streams: readonly StreamView[] }) {
  if (parts.length === 0) return <p className="text-sm text-muted">It runs nowhere.</p>;
  const rows = shares(parts, streams);
  const columns = [...COLUMNS, ...(parts.some(({ cause }) => cause !== "") ? [CAUSE] : []), ACTION];
  const Rows = rows.length > DRAWN_MAX ? VirtualTable<Share> : Table<Share>;
  return <Rows label="Where it runs" columns={columns} rows={rows} rowKey={({ daemon }) => daemon} />;
}
