// All rollouts, those under way first: what went to whom, on whose word, and what became of it.

import { useMemo } from "react";
import { useRollouts } from "@/api/queries";
import type { RolloutView } from "@/api/types";
import { Button, LinkButton } from "@/components/button";
import { CliButton } from "@/components/copy";
import { Data } from "@/components/data";
import { TextLink } from "@/components/link";
import { ListFilter } from "@/components/list-filter";
import { Empty, Page } from "@/components/page";
import { Status } from "@/components/status";
import { type Column, Table } from "@/components/table";
import { Time } from "@/components/time";
import { number } from "@/lib/format";
import { PHASES, taken, wanted } from "@/lib/rollout";
import { useSearchState } from "@/lib/search";
import { chooseRollouts } from "./choose";

const COLUMNS: readonly Column<RolloutView>[] = [
  { name: "Rollout", cell: ({ id }) => <TextLink href={`/rollouts/${id}`}>{`Rollout ${id}`}</TextLink> },
  {
    name: "Workflow",
    cell: ({ workflow }) => <TextLink href={`/workflows/${encodeURIComponent(workflow)}`}>{workflow}</TextLink>,
  },
  {
    name: "Revision",
    cell: ({ before, revision }) => (
      <span className="whitespace-nowrap">{before === 0 ? `${revision}, the first` : `${before} → ${revision}`}</span>
    ),
  },
  { name: "State", cell: ({ phase }) => <Status tone={PHASES[phase][0]}>{PHASES[phase][1]}</Status> },
  {
    name: "Daemons",
    isNumber: true,
    cell: (rollout) => (
      <span className="whitespace-nowrap">{`${number(taken(rollout))} of ${number(wanted(rollout))}`}</span>
    ),
  },
  {
    name: "Begun",
    cell: ({ at_unix_ms, by }) => (
      <>
        <Time unixMs={at_unix_ms} /> <span className="text-muted">by {by}</span>
      </>
    ),
  },
  { name: "Why", cell: ({ cause }) => cause, className: "md:w-1/3" },
];

export default function Rollouts() {
  const rollouts = useRollouts();
  return (
    <Page title="Rollouts" actions={<CliButton command="mycelial rollout list" />}>
      <Data query={rollouts}>
        {(all) =>
          all.length === 0 ? (
            <Empty title="No rollouts yet" action={<LinkButton href="/workflows">All workflows</LinkButton>}>
              A rollout gives a workflow’s new revision to its daemons wave by wave, and goes back by itself when too
              many fail. Deploy a change “in waves”, and it is shown here.
            </Empty>
          ) : (
            <Chosen all={all} />
          )
        }
      </Data>
    </Page>
  );
}

function Chosen({ all }: { all: readonly RolloutView[] }) {
  const [typed, setTyped] = useSearchState("q");
  const rows = useMemo(() => chooseRollouts(all, typed), [all, typed]);
  return (
    <>
      <ListFilter
        noun="rollout"
        placeholder="Filter by workflow, person, state or cause; -word leaves out"
        typed={typed}
        onType={setTyped}
        found={rows.length}
        all={all.length}
      />
      {rows.length === 0 ? (
        <Empty
          title="No rollout fits the filter"
          action={<Button onClick={() => setTyped("")}>Clear the filter</Button>}
        />
      ) : (
        <Table label="Rollouts" columns={COLUMNS} rows={rows} rowKey={({ id }) => `${id}`} />
      )}
    </>
  );
}
