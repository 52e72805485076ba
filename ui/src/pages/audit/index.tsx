// Who did what: searched, checked, and taken away as a file. For admins.

import { useMutation } from "@tanstack/react-query";
import { Download, Pause, Play, ShieldCheck } from "lucide-react";
import { type ReactNode, useEffect, useState } from "react";
import { get, pageOf } from "@/api/client";
import { auditPath, useAudit } from "@/api/queries";
import type { AuditEntry, AuditOutcome, ListPage, Verified } from "@/api/types";
import { Allowed } from "@/components/allowed";
import { Button } from "@/components/button";
import { Callout, Failure } from "@/components/callout";
import { CliButton, shellWord } from "@/components/copy";
import { Input, Select } from "@/components/field";
import { Empty, Loading, Page } from "@/components/page";
import { Status, type Tone } from "@/components/status";
import { type Column, Table } from "@/components/table";
import { Time } from "@/components/time";
import { count, number, sentence } from "@/lib/format";
import { save } from "@/lib/save";
import { useSearchState } from "@/lib/search";
import { SPANS } from "@/lib/series";

/** How long after the last key the plane is asked, in milliseconds. */
const PAUSE_MS = 300;
/** Entries of one question of an export; what the plane gives at most. */
const EXPORT_PAGE = 200;
/** Most questions of an export: 20,000 entries. */
const EXPORT_PAGES_MAX = 100;

const OUTCOMES: Record<AuditOutcome, Tone> = { done: "good", refused: "warn", failed: "bad" };

const COLUMNS: readonly Column<AuditEntry>[] = [
  { name: "Number", isNumber: true, isPlain: true, cell: (entry) => number(entry.number) },
  { name: "When", isPlain: true, cell: ({ event }) => <Time unixMs={event.at_unix_ms} /> },
  {
    name: "Who",
    cell: ({ event: { who, from } }) => (
      <>
        {who}
        <span className="block text-xs text-muted md:whitespace-nowrap">from {from}</span>
      </>
    ),
  },
  { name: "Did", cell: ({ event: { action } }) => action, className: "md:min-w-40" },
  { name: "To what", cell: ({ event: { what } }) => what, className: "md:w-2/5" },
  {
    name: "Outcome",
    isPlain: true,
    cell: ({ event: { outcome, cause } }) => (
      <>
        <Status tone={OUTCOMES[outcome]}>{outcome}</Status>
        {cause !== "" && <span className="block text-xs text-muted">{cause}</span>}
      </>
    ),
  },
];

export default function Audit() {
  return (
    <Page title="Audit">
      <Allowed needs="admin" isWhole what="Reading the audit">
        <Entries />
      </Allowed>
    </Page>
  );
}

function useSettled(value: string) {
  const [settled, setSettled] = useState(value);
  useEffect(() => {
    const timer = setTimeout(() => setSettled(value), PAUSE_MS);
    return () => clearTimeout(timer);
  }, [value]);
  return settled;
}

function Entries() {
  const [typed, setTyped] = useSearchState("q");
  const [by, setBy] = useSearchState("by");
  const [last, setLast] = useSearchState("last");
  const lastS = SPANS.find(([key]) => key === last)?.[2] ?? 0;
  const [search, who] = [useSettled(typed), useSettled(by)];
  const [isPaused, setPaused] = useState(false);
  const audit = useAudit(search, who, lastS, !isPaused);
  const entries = audit.data?.pages.flatMap(({ items }) => items) ?? [];
  return (
    <>
      <div className="flex flex-wrap items-center gap-x-3 gap-y-2">
        <div className="min-w-48 flex-1">
          <Input
            type="search"
            data-search
            aria-label="Search the audit"
            placeholder="Search: a workflow, a daemon, an action"
            value={typed}
            onChange={(event) => setTyped(event.target.value)}
          />
        </div>
        <div className="w-44">
          <Input aria-label="By" placeholder="By whom" value={by} onChange={(event) => setBy(event.target.value)} />
        </div>
        <div>
          <Select aria-label="Time shown" value={last} onChange={(event) => setLast(event.target.value)}>
            <option value="">All of it</option>
            {SPANS.map(([key, text]) => (
              <option key={key} value={key}>
                {text}
              </option>
            ))}
          </Select>
        </div>
        <CliButton command={cliOf(search, who, last)} />
      </div>
      <Checking search={search} by={who} lastS={lastS}>
        <Button aria-pressed={isPaused} onClick={() => setPaused(!isPaused)}>
          {isPaused ? <Play aria-hidden="true" /> : <Pause aria-hidden="true" />}
          {isPaused ? "Go on" : "Pause"}
        </Button>
      </Checking>
      {audit.isError && <Failure error={audit.error} onRetry={() => void audit.refetch()} />}
      {audit.isPending && <Loading />}
      {audit.data && entries.length === 0 && <Empty title="Nothing of that kind was done" />}
      {entries.length > 0 && (
        <Table label="Audit" columns={COLUMNS} rows={entries} rowKey={(entry) => String(entry.number)} />
      )}
      {audit.hasNextPage && (
        <Button className="self-center" busy={audit.isFetchingNextPage} onClick={() => void audit.fetchNextPage()}>
          Show older ones
        </Button>
      )}
    </>
  );
}

/** The same on the command line. */
function cliOf(search: string, by: string, last: string) {
  const words = ["mycelial audit list"];
  if (by !== "") words.push(`--by ${shellWord(by)}`);
  if (last !== "") words.push(`--since ${last}`);
  if (search !== "") words.push(`--search ${shellWord(search)}`);
  return words.join(" ");
}

/** All entries that fit, the oldest first: as the command line checks them. */
async function all(search: string, by: string, lastS: number) {
  const found: AuditEntry[] = [];
  let cursor: string | null = null;
  for (let page = 0; page < EXPORT_PAGES_MAX; page += 1) {
    const path: string = pageOf(auditPath(search, by, lastS, EXPORT_PAGE), cursor);
    const { items, next }: ListPage<AuditEntry> = await get(path);
    found.push(...items);
    cursor = next;
    if (cursor === null) break;
  }
  return found.reverse();
}

interface CheckingProps {
  search: string;
  by: string;
  lastS: number;
  children: ReactNode;
}

function Checking({ search, by, lastS, children }: CheckingProps) {
  const verify = useMutation({ mutationFn: () => get<Verified>("/audit/verify") });
  const write = useMutation({
    mutationFn: () => all(search, by, lastS),
    onSuccess: (found) =>
      save("audit.jsonl", found.map((entry) => `${JSON.stringify(entry)}\n`).join(""), "application/jsonl"),
  });
  return (
    <>
      <div className="flex flex-wrap items-center gap-2">
        <Button busy={verify.isPending} onClick={() => verify.mutate()}>
          <ShieldCheck aria-hidden="true" />
          Verify
        </Button>
        <Button busy={write.isPending} onClick={() => write.mutate()}>
          <Download aria-hidden="true" />
          Export
        </Button>
        {children}
        <span role="status" className="text-sm text-muted">
          {write.isSuccess && `${count(write.data.length, "entry", "entries")} exported`}
        </span>
      </div>
      {[verify.error, write.error].map((error) => error && <Failure key={error.message} error={error} />)}
      {verify.data && <Verdict verified={verify.data} />}
    </>
  );
}

function Verdict({ verified: { holds, first, last, hash, fault } }: { verified: Verified }) {
  if (!holds) {
    return (
      <Callout tone="bad" isUrgent title="The audit was altered.">
        {sentence(fault)}
      </Callout>
    );
  }
  return (
    <Callout tone="info" title={`Entries ${number(first)} to ${number(last)} hold: nobody has altered one.`}>
      Keep the last hash elsewhere: as long as the audit has it, nothing up to it was changed.{" "}
      <code className="font-mono text-xs break-all">{hash}</code>
    </Callout>
  );
}
