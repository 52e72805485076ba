// Streams with their accounts: produced = delivered + buffered + dropped + dead.

import { streamKey, useLive } from "@/api/live";
import { useAway } from "@/api/queries";
import type { StreamView } from "@/api/types";
import { bytes, number } from "@/lib/format";
import { Lag } from "./lag";
import { TextLink } from "./link";
import { Sparkline } from "./sparkline";
import { Status } from "./status";
import { type Column, Table } from "./table";

const count = (name: string, value: (stream: StreamView) => number): Column<StreamView> => ({
  name,
  isNumber: true,
  cell: (stream) => number(value(stream)),
});

const WORKFLOW: Column<StreamView> = {
  name: "Workflow",
  isPlain: true,
  className: "max-md:w-full",
  cell: (stream) => (
    <span className="block md:min-w-36">
      <TextLink href={`/workflows/${encodeURIComponent(stream.workflow)}`}>{stream.workflow}</TextLink>
    </span>
  ),
};

const COLUMNS: readonly Column<StreamView>[] = [
  {
    name: "Stream",
    isPlain: true,
    className: "max-md:w-full",
    cell: (stream) => (
      <>
        <span className="block md:min-w-36">{stream.edge.replace("->", " → ")}</span>
        <span className="block text-xs text-muted">
          {stream.producer} → {stream.consumer}
        </span>
      </>
    ),
  },
  { name: "Records/s", isNumber: true, cell: (stream) => <Rate stream={stream} /> },
  count("Produced", (stream) => stream.ledger.produced),
  {
    name: "Delivered",
    isNumber: true,
    cell: ({ ledger }) => (
      <>
        {number(ledger.delivered)}
        <Among parts={{ filtered: ledger.filtered, unconfirmed: ledger.unconfirmed, duplicates: ledger.duplicates }} />
      </>
    ),
  },
  {
    name: "Buffered",
    isNumber: true,
    cell: (stream) => (
      <span title={bytes(stream.buffered_bytes)}>
        {number(stream.ledger.buffered)}
        {stream.buffered_bytes > 0 && <span className="block text-xs text-muted">{bytes(stream.buffered_bytes)}</span>}
      </span>
    ),
  },
  { name: "Lag", isNumber: true, cell: ({ lag_ms }) => <Lag ms={lag_ms} /> },
  count("Dropped", (stream) => stream.ledger.dropped),
  count("Dead", (stream) => stream.ledger.dead),
  { name: "Account", cell: (stream) => <Account stream={stream} /> },
];

/** What the number alone does not tell. */
function Among({ parts }: { parts: Record<string, number> }) {
  const told = Object.entries(parts).filter(([, value]) => value > 0);
  if (told.length === 0) return null;
  const text = told.map(([name, value]) => `${number(value)} ${name}`).join(", ");
  return <span className="block text-xs text-muted">{text}</span>;
}

function Rate({ stream }: { stream: StreamView }) {
  const rates = useLive((state) => state.rates.get(streamKey(stream)));
  // By itself: records are counted in whole ones a second, and large ones may come seldom.
  const bytesRate = stream.bytes_per_s ?? 0;
  return (
    <span className="flex items-center gap-2">
      <span className="max-md:hidden">
        <Sparkline values={rates ?? []} />
      </span>
      <span className="min-w-10">
        {number(stream.rate)}
        {bytesRate > 0 && <span className="block text-xs whitespace-nowrap text-muted">{bytes(bytesRate)}/s</span>}
      </span>
    </span>
  );
}

function Account({ stream }: { stream: StreamView }) {
  const consumer = useAway().data?.get(stream.consumer);
  const waits = consumer !== undefined && stream.ledger.buffered > 0 ? `${stream.consumer} is ${consumer}` : "";
  const trouble = stream.trouble || waits;
  return (
    <>
      {stream.balances ? <Status tone="good">balances</Status> : <Status tone="off">being settled</Status>}
      {trouble !== "" && <span className="block text-xs text-warn">{trouble}</span>}
    </>
  );
}

/** `isOwn`: all of them are of the workflow whose page this is. */
export function StreamTable({ streams, isOwn = false }: { streams: readonly StreamView[]; isOwn?: boolean }) {
  return <Table label="Streams" columns={isOwn ? COLUMNS : [WORKFLOW, ...COLUMNS]} rows={streams} rowKey={streamKey} />;
}
