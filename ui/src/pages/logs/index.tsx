// What daemons log: of one, of all that run a workflow, or of all; read again and again until somebody pauses it.

import { useQueries } from "@tanstack/react-query";
import { Download, Pause, Play } from "lucide-react";
import { useEffect, useMemo, useState } from "react";
import { logsQuery, useDaemons, useWorkflows } from "@/api/queries";
import type { DaemonItem } from "@/api/types";
import { Button, LinkButton } from "@/components/button";
import { Callout } from "@/components/callout";
import { CliButton, shellWord } from "@/components/copy";
import { Data } from "@/components/data";
import { Input, Select } from "@/components/field";
import { TextLink } from "@/components/link";
import { Empty, Loading, Page } from "@/components/page";
import { Status } from "@/components/status";
import { Tabs } from "@/components/tabs";
import { Moment } from "@/components/time";
import { parseSort, type SortableColumn, VirtualTable } from "@/components/virtual-table";
import { count, number, sentence, ZONE } from "@/lib/format";
import { save } from "@/lib/save";
import { useSearchState } from "@/lib/search";
import { asFile, chooseLines, keyOf, LEVEL_TONES, LEVELS, type Line, readFrom, together } from "./lines";
import { LOG_TABS } from "./tabs";

const NONE: readonly Line[] = [];

const COLUMNS: readonly SortableColumn<Line>[] = [
  { name: "Time", sortKey: "time", isPlain: true, cell: ({ unix_ms }) => <Moment unixMs={unix_ms} /> },
  {
    name: "Level",
    isPlain: true,
    cell: ({ level }) => <Status tone={LEVEL_TONES[level] ?? "off"}>{level.toLowerCase()}</Status>,
  },
  {
    name: "Daemon",
    isPlain: true,
    cell: ({ daemon }) => <TextLink href={`/daemons/${encodeURIComponent(daemon)}`}>{daemon}</TextLink>,
  },
  {
    name: "Workflow",
    isPlain: true,
    cell: ({ workflow }) =>
      workflow !== "" && <TextLink href={`/workflows/${encodeURIComponent(workflow)}`}>{workflow}</TextLink>,
  },
  {
    name: "Line",
    isPlain: true,
    cell: ({ text }) => <span className="font-mono text-xs">{text}</span>,
    className: "max-md:w-full md:w-3/5",
  },
];

export default function Logs() {
  const daemons = useDaemons();
  return (
    <Page title="Logs">
      <Tabs label="Views of what happened" tabs={LOG_TABS} />
      <Data query={daemons}>
        {(all) =>
          all.length === 0 ? (
            <Empty title="No daemons yet" action={<LinkButton href="/enrol">Enrol a daemon</LinkButton>}>
              Daemons keep their last lines, and show them here.
            </Empty>
          ) : (
            <Read daemons={all} />
          )
        }
      </Data>
    </Page>
  );
}

/** The lines of some daemons, as they come. A daemon that does not answer has a reason. */
function useLines(from: readonly string[], level: string, workflow: string, isOn: boolean) {
  const found = useQueries({
    queries: from.map((daemon) => logsQuery(daemon, level, workflow, isOn)),
    combine: (results) => ({
      fresh: results.flatMap(({ data }, at) => (data ?? []).map((line) => ({ ...line, daemon: from[at] ?? "" }))),
      silent: results.flatMap(({ error }, at) => (error ? [[from[at] ?? "", error.message] as const] : [])),
      isPending: results.some((each) => each.isPending),
    }),
  });
  const about = [level, workflow, ...from].join(" ");
  const [known, setKnown] = useState({ about, lines: NONE });
  const before = known.about === about ? known.lines : NONE;
  const lines = useMemo(() => together(before, found.fresh), [before, found.fresh]);
  useEffect(() => {
    if (lines !== before) setKnown({ about, lines });
  }, [about, lines, before]);
  return { ...found, lines };
}

function Read({ daemons }: { daemons: readonly DaemonItem[] }) {
  const workflows = useWorkflows().data ?? [];
  const [daemon, setDaemon] = useSearchState("daemon");
  const [workflow, setWorkflow] = useSearchState("workflow");
  const [level, setLevel] = useSearchState("level", "info");
  const [typed, setTyped] = useSearchState("q");
  const [sort, setSort] = useSearchState("sort", "-time");
  const [isPaused, setPaused] = useState(false);
  const names = useMemo(() => daemons.map(({ name }) => name), [daemons]);
  const { from, more } = readFrom(daemon, workflow, names, workflows);
  const { lines, silent, isPending } = useLines(from, level, workflow, !isPaused);
  const rows = useMemo(() => {
    const chosen = chooseLines(lines, typed);
    return sort === "time" ? chosen.toReversed() : chosen;
  }, [lines, typed, sort]);
  const only = from.length === 1 ? from[0] : undefined;
  return (
    <>
      <div className="flex flex-wrap items-center gap-x-3 gap-y-2">
        <div className="min-w-48 flex-1 max-md:basis-full">
          <Input
            type="search"
            data-search
            aria-label="Filter lines"
            placeholder="Filter by words; -word leaves out"
            value={typed}
            onChange={(event) => setTyped(event.target.value)}
          />
        </div>
        <Choice label="Daemon" all="All daemons" value={daemon} onChange={setDaemon} names={names} />
        <Choice
          label="Workflow"
          all="All workflows"
          value={workflow}
          onChange={setWorkflow}
          names={workflows.map(({ name }) => name)}
        />
        <div>
          <Select aria-label="Level" value={level} onChange={(event) => setLevel(event.target.value)}>
            {LEVELS.map((each) => (
              <option key={each} value={each}>
                {each === "error" ? "error" : `${each} and worse`}
              </option>
            ))}
          </Select>
        </div>
      </div>
      <div className="flex flex-wrap items-center gap-x-3 gap-y-2">
        <span role="status" className="tabular text-sm text-muted">
          {rows.length === lines.length
            ? count(lines.length, "line")
            : `${number(rows.length)} of ${count(lines.length, "line")}`}
          {`, times in ${ZONE}`}
          {isPaused && ", paused"}
        </span>
        <span className="ml-auto" />
        {only !== undefined && (
          <CliButton
            command={`mycelial logs ${shellWord(only)}${workflow === "" ? "" : ` --workflow ${shellWord(workflow)}`} -f`}
          />
        )}
        <Button disabled={rows.length === 0} onClick={() => save(`${only ?? "fleet"}.log`, asFile(rows))}>
          <Download aria-hidden="true" />
          Export
        </Button>
        <Button aria-pressed={isPaused} onClick={() => setPaused(!isPaused)}>
          {isPaused ? <Play aria-hidden="true" /> : <Pause aria-hidden="true" />}
          {isPaused ? "Go on" : "Pause"}
        </Button>
      </div>
      {more > 0 && (
        <Callout tone="info" title={`${count(more, "daemon")} more ${more === 1 ? "is" : "are"} not read.`}>
          Choose one of them, or a workflow.
        </Callout>
      )}
      {silent.length > 0 && (
        <Callout tone="warn" title={`${silent.map(([name]) => name).join(", ")} cannot be read`}>
          {sentence(silent[0]?.[1] ?? "")}
        </Callout>
      )}
      {rows.length > 0 ? (
        <VirtualTable
          label="Lines"
          columns={COLUMNS}
          rows={rows}
          rowKey={keyOf}
          sort={parseSort(sort)}
          onSort={setSort}
        />
      ) : isPending && !isPaused ? (
        <Loading what="Asking for the lines" />
      ) : lines.length > 0 ? (
        <Empty
          title="No line fits the filter"
          action={<Button onClick={() => setTyped("")}>Clear the filter</Button>}
        />
      ) : (
        <Empty title="Nothing was logged">At this level, about this. Daemons keep their last lines only.</Empty>
      )}
    </>
  );
}

interface ChoiceProps {
  label: string;
  all: string;
  value: string;
  onChange: (value: string) => void;
  names: readonly string[];
}

function Choice({ label, all, value, onChange, names }: ChoiceProps) {
  const isGone = value !== "" && !names.includes(value);
  return (
    <div className="max-w-52">
      <Select aria-label={label} value={value} onChange={(event) => onChange(event.target.value)}>
        <option value="">{all}</option>
        {isGone && <option>{value}</option>}
        {names.map((name) => (
          <option key={name}>{name}</option>
        ))}
      </Select>
    </div>
  );
}
