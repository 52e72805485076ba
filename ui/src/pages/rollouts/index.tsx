// All rollouts, those under way first: what went to whom, on whose word, and what became of it.

import { useRollouts } from "@/api/queries";
import type { RolloutView } from "@/api/types";
import { LinkButton } from "@/components/button";
import { CliButton } from "@/components/copy";
import { Data } from "@/components/data";
import { FilteredTable } from "@/components/filtered-table";
import { TextLink } from "@/components/link";
import { Empty, Page } from "@/components/page";
import { Status } from "@/components/status";
import type { Column } from "@/components/table";
import { Time } from "@/components/time";
import { number } from "@/lib/format";
import { PHASES, taken, wanted } from "@/lib/rollout";
import { useSearchState } from "@/lib/search";
import { chooseRollouts } from "./choose";

const COLUMNS: readonly Column<RolloutView>[] = [
  { name: "Rollout", isPlain: true, cell: ({ id }) => <TextLink href={`/rollouts/${id}`}>{`Rollout ${id}`}</TextLink> },
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
  { name: "State", isPlain: true, cell: ({ phase }) => <Status tone={PHASES[phase][0]}>{PHASES[phase][1]}</Status> },
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
  return (
    <Page title="Rollouts" actions={<CliButton command="mycelial rollout list" />}>
      <All />
    </Page>
  );
}

function All() {
  const rollouts = useRollouts();
  const [typed, setTyped] = useSearchState("q");
  return (
    <Data query={rollouts}>
      {(all) =>
        all.length === 0 ? (
          <Empty title="No rollouts yet" action={<LinkButton href="/workflows">All workflows</LinkButton>}>
            A rollout gives a workflow’s new revision to its daemons wave by wave, and goes back by itself when too many
            fail. Deploy a change “in waves”, and it is shown here.
          </Empty>
        ) : (
          <FilteredTable
            noun="rollout"
            label="Rollouts"
            placeholder="Filter by workflow, person, state or cause; -word leaves out"
            all={all}
            typed={typed}
            onType={setTyped}
            choose={chooseRollouts}
            columns={COLUMNS}
            rowKey={({ id }) => `${id}`}
          />
        )
      }
    </Data>
  );
}
