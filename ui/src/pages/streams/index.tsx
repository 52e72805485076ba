// Every stream's account: of each record that was taken from a source it is known where it is.

import { useStreams } from "@/api/queries";
import type { StreamView } from "@/api/types";
import { Button, LinkButton } from "@/components/button";
import { CliButton } from "@/components/copy";
import { Data } from "@/components/data";
import { Input } from "@/components/field";
import { Empty, Page, Panel } from "@/components/page";
import { Status } from "@/components/status";
import { StreamTable } from "@/components/stream-table";
import { bytes, count, number } from "@/lib/format";
import { useSearchState } from "@/lib/search";

export default function Streams() {
  const streams = useStreams();
  return (
    <Page title="Streams" actions={<CliButton command="mycelial ledger" />}>
      <p className="max-w-prose text-sm text-muted">
        Of every record that was taken from a source it is known where it is: produced = delivered + buffered + dropped
        + dead.
      </p>
      <Data query={streams}>
        {(all) =>
          all.length === 0 ? (
            <Empty
              title="No streams yet"
              action={
                <LinkButton href="/workflows/new" kind="main">
                  New workflow
                </LinkButton>
              }
            >
              A stream is an edge of a workflow on which records travel. Apply a workflow, and its accounts appear here.
            </Empty>
          ) : (
            <All streams={all} />
          )
        }
      </Data>
    </Page>
  );
}

const total = (streams: readonly StreamView[], value: (stream: StreamView) => number) =>
  streams.reduce((sum, stream) => sum + value(stream), 0);

function All({ streams }: { streams: readonly StreamView[] }) {
  const [typed, setTyped] = useSearchState("q");
  const shown = streams.filter(({ workflow, edge, producer, consumer }) =>
    `${workflow} ${edge} ${producer} ${consumer}`.toLowerCase().includes(typed.trim().toLowerCase()),
  );
  return (
    <>
      <Input
        type="search"
        data-search
        aria-label="Filter streams"
        placeholder="Filter by workflow, edge or daemon"
        value={typed}
        onChange={(event) => setTyped(event.target.value)}
      />
      <Panel className="tabular flex flex-wrap gap-x-6 gap-y-1 px-4 py-2 text-sm">
        <span>{count(shown.length, "stream")}</span>
        <span>{number(total(shown, ({ rate }) => rate))} records/s</span>
        <span>{number(total(shown, ({ ledger }) => ledger.delivered))} delivered</span>
        <span>
          {number(total(shown, ({ ledger }) => ledger.buffered))} buffered (
          {bytes(total(shown, (stream) => stream.buffered_bytes))})
        </span>
        <span>{number(total(shown, ({ ledger }) => ledger.dead))} dead</span>
        <span className="ml-auto">
          {shown.every(({ balances }) => balances) ? (
            <Status tone="good">all balance</Status>
          ) : (
            <Status tone="off">some are being settled</Status>
          )}
        </span>
      </Panel>
      {shown.length === 0 ? (
        <Empty
          title="No stream fits the filter"
          action={<Button onClick={() => setTyped("")}>Clear the filter</Button>}
        />
      ) : (
        <StreamTable streams={shown} />
      )}
    </>
  );
}
