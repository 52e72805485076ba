// What happened to the fleet: whatever the rules of alerts look at, from when until when; rollouts; and revisions.

import { keepPreviousData, useQuery } from "@tanstack/react-query";
import { Download, Pause, Play } from "lucide-react";
import { useMemo, useState } from "react";
import { previewRule } from "@/api/actions";
import { keys } from "@/api/keys";
import { again, useRollouts, useRules, useWorkflows } from "@/api/queries";
import type { RuleShown } from "@/api/types";
import { Button, LinkButton } from "@/components/button";
import { Failure } from "@/components/callout";
import { Data } from "@/components/data";
import { Select } from "@/components/field";
import { TextLink } from "@/components/link";
import { ListFilter } from "@/components/list-filter";
import { Empty, Page } from "@/components/page";
import { Status } from "@/components/status";
import { Tabs } from "@/components/tabs";
import { Moment } from "@/components/time";
import { type SortableColumn, VirtualTable } from "@/components/virtual-table";
import { Whole } from "@/components/whole";
import { span, ZONE } from "@/lib/format";
import { save } from "@/lib/save";
import { useSearchState } from "@/lib/search";
import { SPANS, spanOf } from "@/lib/series";
import { asLines, CHOICES, choose, type Happening, ofRule, together } from "./happenings";
import { LOG_TABS } from "./tabs";

/** How often the plane is asked while somebody looks: history has steps of ten seconds, and asking costs it some work. */
const AGAIN_MS = 15_000;

const COLUMNS: readonly SortableColumn<Happening>[] = [
  { name: "Time", isPlain: true, cell: ({ unixMs }) => <Moment unixMs={unixMs} /> },
  {
    name: "What",
    isPlain: true,
    cell: ({ tone, what }) => (
      <Status tone={tone} className="whitespace-normal!">
        {what}
      </Status>
    ),
    className: "max-md:w-full md:w-2/5",
  },
  { name: "About", cell: ({ name, href }) => <TextLink href={href}>{name}</TextLink> },
  {
    name: "Lasted",
    cell: ({ unixMs, untilUnixMs }) =>
      untilUnixMs === undefined ? "" : untilUnixMs === null ? "it still does" : span(untilUnixMs - unixMs),
  },
  { name: "Detail", cell: ({ detail }) => <span className="text-muted">{detail}</span> },
];

export default function Events() {
  return (
    <Page title="Logs">
      <Tabs label="Views of what happened" tabs={LOG_TABS} />
      <Whole what="Events">
        <Known />
      </Whole>
    </Page>
  );
}

function Known() {
  const rules = useRules();
  return <Data query={rules}>{(all) => <List rules={all} />}</Data>;
}

/** When what each rule looks at was so, also if it was too short for an alert. One after the other: the plane has more to do. */
async function conditions(rules: readonly RuleShown[], lastS: number) {
  const found: Happening[] = [];
  for (const { comes_with_plane: _, ...own } of rules.filter(({ enabled }) => enabled)) {
    const rule = { ...own, for_s: 0 };
    found.push(...ofRule(rule, (await previewRule(rule, lastS)).items));
  }
  return found;
}

function List({ rules }: { rules: readonly RuleShown[] }) {
  const [typed, setTyped] = useSearchState("q");
  const [kind, setKind] = useSearchState("kind");
  const [last, setLast] = useSearchState("last", "24h");
  const [isPaused, setPaused] = useState(false);
  const lastS = spanOf(last);
  const found = useQuery({
    queryKey: [...keys.events(lastS), rules],
    queryFn: async () => ({ all: await conditions(rules, lastS), at: Date.now() }),
    refetchInterval: ({ state }) => again(state.error, isPaused ? false : AGAIN_MS),
    placeholderData: keepPreviousData,
    gcTime: 0,
  });
  const [rollouts, workflows] = [useRollouts().data, useWorkflows().data];
  const all = useMemo(
    () =>
      found.data ? together(found.data.all, rollouts ?? [], workflows ?? [], found.data.at - lastS * 1_000) : undefined,
    [found.data, rollouts, workflows, lastS],
  );
  const rows = useMemo(() => choose(all ?? [], kind, typed), [all, kind, typed]);
  const clear = () => {
    setTyped("");
    setKind("");
  };
  return (
    <>
      <ListFilter
        noun="event"
        placeholder="Filter by daemon, workflow, rule or person; -word leaves out"
        typed={typed}
        onType={setTyped}
        found={rows.length}
        all={all?.length ?? 0}
      >
        <div>
          <Select aria-label="Kind" value={kind} onChange={(event) => setKind(event.target.value)}>
            {CHOICES.map(([value, text]) => (
              <option key={value} value={value}>
                {text}
              </option>
            ))}
          </Select>
        </div>
        <div>
          <Select aria-label="Time shown" value={last} onChange={(event) => setLast(event.target.value)}>
            {SPANS.map(([key, text]) => (
              <option key={key} value={key}>
                {text}
              </option>
            ))}
          </Select>
        </div>
      </ListFilter>
      <div className="flex flex-wrap items-center gap-2">
        <p className="max-w-prose text-sm text-muted">
          From the plane’s history, in steps of ten seconds or more; times in {ZONE}. Who did what is in the{" "}
          <TextLink href="/audit">audit</TextLink>.
        </p>
        <span className="ml-auto" />
        <Button disabled={rows.length === 0} onClick={() => save("events.jsonl", asLines(rows), "application/jsonl")}>
          <Download aria-hidden="true" />
          Export
        </Button>
        <Button aria-pressed={isPaused} onClick={() => setPaused(!isPaused)}>
          {isPaused ? <Play aria-hidden="true" /> : <Pause aria-hidden="true" />}
          {isPaused ? "Go on" : "Pause"}
        </Button>
      </div>
      {found.isError && <Failure error={found.error} onRetry={() => void found.refetch()} />}
      {rows.length > 0 ? (
        <VirtualTable label="Events" columns={COLUMNS} rows={rows} rowKey={({ key }) => key} />
      ) : all === undefined ? (
        !found.isError && <Data query={found}>{() => null}</Data>
      ) : all.length > 0 ? (
        <Empty title="No event fits the filter" action={<Button onClick={clear}>Clear the filter</Button>} />
      ) : (
        <Empty title="Nothing happened" action={<LinkButton href="/alerts/rules">See the rules</LinkButton>}>
          In this time nothing was so that a rule of alerts looks at, and nothing was deployed.
        </Empty>
      )}
    </>
  );
}
