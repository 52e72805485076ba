// All workflows: how they are, how much flows, and where.

import { Plus } from "lucide-react";
import { useCallback, useMemo } from "react";
import { useStreams, useWorkflows } from "@/api/queries";
import type { StreamView, WorkflowView } from "@/api/types";
import { LinkButton } from "@/components/button";
import { CliButton } from "@/components/copy";
import { Data } from "@/components/data";
import { Select } from "@/components/field";
import { FilteredTable } from "@/components/filtered-table";
import { Lag } from "@/components/lag";
import { TextLink } from "@/components/link";
import { Empty, Page } from "@/components/page";
import { RunStatus } from "@/components/status";
import type { Column } from "@/components/table";
import { Time } from "@/components/time";
import { number } from "@/lib/format";
import { useSearchState } from "@/lib/search";
import { chooseWorkflows, type Row, STATES, withStreams } from "./choose";
import { Drafts } from "./drafts";

const DAEMONS_SHOWN_MAX = 3;

const COLUMNS: readonly Column<Row>[] = [
  {
    name: "Workflow",
    isPlain: true,
    cell: ({ view }) => <TextLink href={`/workflows/${encodeURIComponent(view.name)}`}>{view.name}</TextLink>,
  },
  { name: "State", isPlain: true, cell: ({ view }) => <RunStatus state={view.state} /> },
  { name: "Records/s", isNumber: true, cell: (row) => number(row.rate) },
  { name: "Buffered", isNumber: true, cell: (row) => number(row.buffered) },
  { name: "Lag", isNumber: true, cell: ({ lagMs }) => <Lag ms={lagMs} /> },
  { name: "Dropped, dead", isNumber: true, cell: (row) => <Lost row={row} /> },
  { name: "Daemons", cell: ({ view }) => <Daemons names={view.daemons} /> },
  { name: "Revision", isNumber: true, cell: ({ view }) => number(view.revision) },
  {
    name: "Applied",
    cell: ({ view }) => (
      <>
        <Time unixMs={view.at_unix_ms} /> <span className="text-muted">by {view.by}</span>
      </>
    ),
  },
];

const Lost = ({ row }: { row: Row }) => (
  <span className={row.isLosing ? "font-medium text-warn" : undefined}>{number(row.lost)}</span>
);

function Daemons({ names }: { names: readonly string[] }) {
  const rest = names.length - DAEMONS_SHOWN_MAX;
  return (
    <span title={names.join(", ")}>
      {names.slice(0, DAEMONS_SHOWN_MAX).join(", ")}
      {rest > 0 && ` and ${rest} more`}
    </span>
  );
}

const newButton = (
  <LinkButton href="/workflows/new" kind="main">
    <Plus aria-hidden="true" />
    New workflow
  </LinkButton>
);

export default function Workflows() {
  const workflows = useWorkflows();
  const streams = useStreams();
  return (
    <Page
      title="Workflows"
      actions={
        <>
          <CliButton command="mycelial workflow list" />
          {newButton}
        </>
      }
    >
      <Data query={workflows}>
        {(all) =>
          all.length === 0 ? (
            <Empty title="No workflows yet" action={newButton}>
              A workflow takes records from sources, changes them, and delivers them to destinations, on the daemons you
              name.
            </Empty>
          ) : (
            <Chosen all={all} streams={streams.data ?? []} />
          )
        }
      </Data>
      <Drafts workflows={workflows.data ?? []} />
    </Page>
  );
}

function Chosen({ all, streams }: { all: readonly WorkflowView[]; streams: readonly StreamView[] }) {
  const [typed, setTyped] = useSearchState("q");
  const [state, setState] = useSearchState("state");
  const rows = useMemo(() => withStreams(all, streams), [all, streams]);
  const choose = useCallback((all: readonly Row[], typed: string) => chooseWorkflows(all, typed, state), [state]);
  return (
    <FilteredTable
      noun="workflow"
      label="Workflows"
      placeholder="Filter by name or daemon; -word leaves out"
      all={rows}
      typed={typed}
      onType={setTyped}
      choose={choose}
      columns={COLUMNS}
      rowKey={({ view }) => view.name}
      onClear={() => setState("")}
    >
      <div>
        <Select aria-label="State" value={state} onChange={(event) => setState(event.target.value)}>
          {STATES.map(([value, text]) => (
            <option key={value} value={value}>
              {text}
            </option>
          ))}
        </Select>
      </div>
    </FilteredTable>
  );
}
