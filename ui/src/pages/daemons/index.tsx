// All daemons: choose by selector, sort, keep a choice as a view.

import { Bookmark, Plus, X } from "lucide-react";
import { type ReactNode, useMemo } from "react";
import { useDaemons, useGroups, useWorkflows } from "@/api/queries";
import type { DaemonItem, Group, WorkflowView } from "@/api/types";
import { Allowed } from "@/components/allowed";
import { Button, IconButton, LinkButton } from "@/components/button";
import { CliButton, shellWord } from "@/components/copy";
import { Data } from "@/components/data";
import { Input } from "@/components/field";
import { TextLink } from "@/components/link";
import { Empty, Page } from "@/components/page";
import { Seen } from "@/components/seen";
import { PresenceStatus } from "@/components/status";
import { Trouble } from "@/components/trouble";
import { parseSort, type SortableColumn, VirtualTable } from "@/components/virtual-table";
import { bytes, count, number } from "@/lib/format";
import { useNarrow } from "@/lib/narrow";
import { useSearchState } from "@/lib/search";
import { asSelector, parseSelector } from "@/lib/selector";
import { CommandButton } from "../commands/command-button";
import { chooseDaemons, runsOf } from "./choose";
import { grouped, groupKeys } from "./grouping";
import { GroupBy, Groups } from "./groups";
import { LabelButton } from "./label";
import { useViews } from "./views";

const COLUMNS: readonly SortableColumn<DaemonItem>[] = [
  {
    name: "Daemon",
    sortKey: "name",
    isPlain: true,
    cell: (daemon) => <TextLink href={`/daemons/${encodeURIComponent(daemon.name)}`}>{daemon.name}</TextLink>,
  },
  {
    name: "Presence",
    sortKey: "presence",
    isPlain: true,
    cell: (daemon) => <PresenceStatus presence={daemon.presence} />,
  },
  { name: "Last seen", sortKey: "seen", isPlain: true, cell: (daemon) => <Seen agoMs={daemon.last_seen_ms} /> },
  { name: "Trouble", sortKey: "trouble", cell: (daemon) => <Trouble daemon={daemon} /> },
  { name: "Plan", isNumber: true, isMinor: true, cell: (daemon) => <Plan daemon={daemon} /> },
  {
    name: "Memory",
    sortKey: "memory",
    isNumber: true,
    cell: (daemon) => <Used daemon={daemon} bytes={daemon.resources.rss_bytes} />,
  },
  {
    name: "Buffered",
    sortKey: "buffered",
    isNumber: true,
    cell: (daemon) => <Used daemon={daemon} bytes={daemon.resources.spool_bytes} />,
  },
  {
    name: "Disk free",
    sortKey: "disk",
    isNumber: true,
    isMinor: true,
    cell: (daemon) => <Used daemon={daemon} bytes={daemon.resources.disk_free_bytes} />,
  },
  { name: "Version", sortKey: "version", isMinor: true, cell: (daemon) => daemon.version },
];

const LABELS: SortableColumn<DaemonItem> = {
  name: "Labels",
  // Nothing at all where there are none: on a phone the line is left out then.
  cell: ({ labels }) => {
    const all = Object.entries(labels).map(([key, value]) => `${key}=${value}`);
    return all.length > 0 && <span className="font-mono text-xs">{all.join(" ")}</span>;
  },
};

/** What a daemon said that was never heard is nothing, not 0 bytes. */
function Used({ daemon, bytes: value }: { daemon: DaemonItem; bytes: number }) {
  return daemon.last_seen_ms === null ? <span className="text-muted">–</span> : bytes(value);
}

function Plan({ daemon }: { daemon: DaemonItem }) {
  const [is, wanted] = [number(daemon.plan_version), number(daemon.plan_wanted)];
  return <span className="whitespace-nowrap">{is === wanted ? is : `${is} → ${wanted}`}</span>;
}

export default function Daemons() {
  const daemons = useDaemons();
  const workflows = useWorkflows();
  return (
    <Page
      title="Daemons"
      actions={
        <LinkButton href="/enrol" kind="main">
          <Plus aria-hidden="true" />
          Enrol a daemon
        </LinkButton>
      }
    >
      <Data query={daemons}>
        {(all) =>
          all.length === 0 ? (
            <Empty
              title="No daemons yet"
              action={
                <LinkButton href="/enrol" kind="main">
                  Enrol the first
                </LinkButton>
              }
            >
              A daemon runs close to the data and moves it. Make an enrolment string, and give it to myceliald on the
              machine that has the data.
            </Empty>
          ) : (
            <Chosen all={all} workflows={workflows.data ?? []} />
          )
        }
      </Data>
    </Page>
  );
}

function Chosen({ all, workflows }: { all: readonly DaemonItem[]; workflows: readonly WorkflowView[] }) {
  const [typed, setTyped] = useSearchState("q");
  const [sort, setSort] = useSearchState("sort", "name");
  const [group, setGroup] = useSearchState("group");
  const groups = useGroups().data;
  const parsed = useMemo(
    () => parseSelector(typed, new Map(groups?.map(({ name, selector }) => [name, selector]))),
    [typed, groups],
  );
  const runs = useMemo(() => runsOf(workflows), [workflows]);
  const rows = useMemo(
    () => chooseDaemons(all, parsed.test ?? (() => true), runs, parseSort(sort)),
    [all, parsed, runs, sort],
  );
  const columns = useMemo(
    () => (all.some((daemon) => Object.keys(daemon.labels).length > 0) ? [...COLUMNS, LABELS] : COLUMNS),
    [all],
  );
  return (
    <>
      <Filter typed={typed} setTyped={setTyped} error={parsed.error} found={rows} all={all.length}>
        <GroupBy keys={groupKeys(all)} value={group} onChange={setGroup} />
      </Filter>
      <Views typed={typed} sort={sort} groups={groups ?? []} onChoose={setTyped} onSort={setSort} />
      {group !== "" && rows.length > 0 ? (
        <Groups
          groups={grouped(rows, group)}
          by={group}
          onChoose={(term) => {
            setTyped([typed, term].filter(Boolean).join(" "));
            setGroup("");
          }}
        />
      ) : rows.length === 0 ? (
        <Empty
          title="No daemon fits the filter"
          action={<Button onClick={() => setTyped("")}>Clear the filter</Button>}
        />
      ) : (
        <VirtualTable
          label="Daemons"
          columns={columns}
          rows={rows}
          rowKey={(daemon) => daemon.node}
          sort={parseSort(sort)}
          onSort={setSort}
        />
      )}
    </>
  );
}

interface FilterProps {
  typed: string;
  setTyped: (text: string) => void;
  error: string | null;
  found: readonly DaemonItem[];
  all: number;
  children: ReactNode;
}

/** What can be written there; on a telephone there is no room for all of it. */
const EXAMPLE = "Filter: presence:offline  site=berlin  -label:test  version:<0.4";

function Filter({ typed, setTyped, error, found, all, children }: FilterProps) {
  const isNarrow = useNarrow();
  const command = typed === "" ? "mycelial daemon list" : `mycelial daemon list -l ${shellWord(asSelector(typed))}`;
  return (
    <div className="flex flex-wrap items-center gap-x-3 gap-y-1">
      <div className="min-w-48 flex-1 basis-96">
        <Input
          type="search"
          data-search
          aria-label="Filter daemons"
          aria-invalid={error ? true : undefined}
          aria-describedby="filter-help"
          placeholder={isNarrow ? "Filter: site=berlin  -label:test" : EXAMPLE}
          value={typed}
          onChange={(event) => setTyped(event.target.value)}
        />
      </div>
      <span role="status" className="tabular text-sm text-muted">
        {found.length === all ? count(all, "daemon") : `${number(found.length)} of ${count(all, "daemon")}`}
      </span>
      {children}
      <span className="ml-auto flex flex-wrap items-center gap-x-1">
        <CliButton command={command} />
        {!error && (
          <Allowed needs="operator" what="Labelling and commanding">
            <LabelButton selector={asSelector(typed)} chosen={found} />
            <CommandButton selector={asSelector(typed)} chosen={found.map(({ name }) => name)} />
          </Allowed>
        )}
      </span>
      <p id="filter-help" className={error ? "w-full text-xs text-bad" : "sr-only"}>
        {error ??
          "Terms beside each other all have to hold; a minus before a term turns it around. Fields: name, presence, version, runs, label, and any label by its key."}
      </p>
    </div>
  );
}

interface ViewsProps {
  typed: string;
  sort: string;
  groups: readonly Group[];
  onChoose: (text: string) => void;
  onSort: (sort: string) => void;
}

function Views({ typed, sort, groups, onChoose, onSort }: ViewsProps) {
  const { views, add, drop } = useViews();
  const isKept = views.some((view) => view.filter === typed && view.sort === sort);
  if (views.length === 0 && groups.length === 0 && typed === "") return null;
  return (
    <div className="-mt-2 flex flex-wrap items-center gap-1.5">
      {groups.map(({ name, selector }) => (
        <Button
          key={name}
          kind="quiet"
          title={selector}
          aria-pressed={typed === `group:${name}`}
          className="h-7 border-line! font-mono text-xs aria-pressed:bg-accent-soft aria-pressed:text-accent"
          onClick={() => onChoose(`group:${name}`)}
        >
          group:{name}
        </Button>
      ))}
      {views.map((view) => (
        <span
          key={`${view.filter} ${view.sort}`}
          className="inline-flex items-center rounded-(--radius) border border-line"
        >
          <Button
            kind="quiet"
            aria-pressed={view.filter === typed && view.sort === sort}
            className="h-7 rounded-r-none font-mono text-xs aria-pressed:bg-accent-soft aria-pressed:text-accent"
            onClick={() => {
              onChoose(view.filter);
              onSort(view.sort);
            }}
          >
            {view.filter || "all"}
          </Button>
          <IconButton
            label={`Forget the view ${view.filter}`}
            className="h-7 w-7 rounded-l-none"
            onClick={() => drop(view)}
          >
            <X aria-hidden="true" />
          </IconButton>
        </span>
      ))}
      {!isKept && typed !== "" && (
        <Button kind="quiet" className="h-7" onClick={() => add({ filter: typed, sort })}>
          <Bookmark aria-hidden="true" />
          Keep this view
        </Button>
      )}
    </div>
  );
}
