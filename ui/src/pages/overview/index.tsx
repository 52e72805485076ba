// The fleet at a glance: what needs somebody first, then how much flows.

import { ChevronRight } from "lucide-react";
import type { ReactNode } from "react";
import { Link } from "wouter";
import { totals, useLive } from "@/api/live";
import { useAlerts, useDaemons, useRollouts, useStreams, useWorkflows } from "@/api/queries";
import { useSeesAll, useUser } from "@/api/session";
import type { DaemonView, Presence, StreamView, WorkflowView } from "@/api/types";
import { LinkButton } from "@/components/button";
import { Callout } from "@/components/callout";
import { Data } from "@/components/data";
import { Empty, Page, Panel, Section } from "@/components/page";
import { Sparkline } from "@/components/sparkline";
import { RUN_TONES, Status } from "@/components/status";
import { StreamTable } from "@/components/stream-table";
import { bytes, compact, count, number } from "@/lib/format";
import { FirstSteps } from "../settings/first-steps";
import { attention, type Item, verdict } from "./attention";
import { useQuotas } from "./quotas";

/** How many streams are shown here; the rest is a page of its own. */
const STREAMS_MAX = 8;

export default function Overview() {
  const [daemons, workflows, streams] = [useDaemons(), useWorkflows(), useStreams()];
  const isSetup = useUser((state) => state.isSetup);
  return (
    <Page title="Overview">
      {isSetup && (
        <Callout
          tone="info"
          title="Nobody has a password yet."
          actions={<LinkButton href="/settings/users">Make the first admin</LinkButton>}
        >
          You came in by a one-time link. Make a user, and log in by name from then on.
        </Callout>
      )}
      <Data query={daemons}>
        {(all) =>
          all.length === 0 ? (
            <Empty
              title="Enrol the first daemon"
              action={
                <LinkButton href="/enrol" kind="main">
                  Enrol a daemon
                </LinkButton>
              }
            >
              A daemon runs close to the data and moves it. Once there is one, this page shows how the fleet is doing.
            </Empty>
          ) : (
            <Glance daemons={all} workflows={workflows} streams={streams} />
          )
        }
      </Data>
      {(isSetup || daemons.data?.length === 0 || workflows.data?.length === 0) && <FirstSteps />}
    </Page>
  );
}

const NO_WORKFLOWS: readonly WorkflowView[] = [];
const NO_STREAMS: readonly StreamView[] = [];

interface AskedProps {
  daemons: readonly DaemonView[];
  workflows: ReturnType<typeof useWorkflows>;
  streams: ReturnType<typeof useStreams>;
}

function Glance({ daemons, workflows: ofWorkflows, streams: ofStreams }: AskedProps) {
  const seesAll = useSeesAll();
  const [rollouts, alerts] = [useRollouts(), useAlerts()];
  const [workflows, streams] = [ofWorkflows.data ?? NO_WORKFLOWS, ofStreams.data ?? NO_STREAMS];
  const items = attention({
    daemons,
    workflows,
    streams,
    rollouts: rollouts.data ?? [],
    alerts: alerts.data ?? [],
    quotas: useQuotas(workflows, streams),
  });
  const asked = [ofWorkflows, ofStreams, rollouts, alerts];
  const isKnown = asked.every(({ data }) => data !== undefined);
  const { tone, text } = verdict(
    seesAll,
    isKnown,
    asked.some(({ data, isError }) => data === undefined && isError),
  );
  const fastest = [...streams].sort((a, b) => b.rate - a.rate).slice(0, STREAMS_MAX);
  return (
    <>
      <Section title="Needs attention" aside={items.length > 0 ? number(items.length) : undefined}>
        {items.length === 0 ? (
          <Panel className="px-4 py-3">
            <Status tone={tone} className="whitespace-normal!">
              {text}
            </Status>
          </Panel>
        ) : (
          <Attention items={items} />
        )}
      </Section>
      {!seesAll && (
        <p className="-mt-3 text-sm text-muted">
          You see a part of the fleet. Rollouts and alerts of workflows that also run elsewhere are not shown to you.
        </p>
      )}
      <Figures daemons={daemons} workflows={ofWorkflows.data} streams={ofStreams.data} />
      {ofWorkflows.data?.length === 0 && (
        <Empty
          title="No workflow yet"
          action={
            <LinkButton href="/workflows/new" kind="main">
              New workflow
            </LinkButton>
          }
        >
          A workflow takes records from sources, changes them, and delivers them to destinations.
        </Empty>
      )}
      {streams.length > 0 && (
        <Section
          title="Streams"
          aside={streams.length > STREAMS_MAX ? `the ${STREAMS_MAX} fastest of ${number(streams.length)}` : undefined}
          actions={<LinkButton href="/streams">All streams</LinkButton>}
        >
          <StreamTable streams={fastest} />
        </Section>
      )}
    </>
  );
}

function Attention({ items }: { items: readonly Item[] }) {
  return (
    <Panel className="overflow-hidden">
      <ul>
        {items.map((item) => (
          <li key={item.key} className="border-b border-line last:border-b-0">
            <Link
              href={item.href}
              className="flex items-center gap-3 px-4 py-2 hover:bg-hover focus-visible:-outline-offset-2"
            >
              <div className="flex min-w-0 flex-1 flex-wrap gap-x-3">
                <Status tone={item.tone} className="font-medium whitespace-normal!">
                  {item.title}
                </Status>
                <span className="min-w-0 text-sm break-words text-muted">{item.detail}</span>
              </div>
              <ChevronRight className="size-4 shrink-0 text-muted" aria-hidden="true" />
            </Link>
          </li>
        ))}
      </ul>
    </Panel>
  );
}

interface FigureProps {
  name: string;
  value: string;
  href: string;
  /** How it was lately. */
  course?: ReactNode;
  children?: ReactNode;
}

function Figure({ name, value, href, course, children }: FigureProps) {
  return (
    <div className="min-w-0 px-4 py-3">
      <Link href={href} className="text-sm text-muted hover:text-text hover:underline">
        {name}
      </Link>
      <p className="tabular flex items-center justify-between gap-3 text-xl font-semibold">
        {value}
        {course}
      </p>
      <div className="flex flex-wrap gap-x-3 text-xs">{children}</div>
    </div>
  );
}

/** What all streams delivered a second, in the last minutes. */
function Course() {
  return <Sparkline values={totals(useLive((state) => state.rates))} />;
}

const PRESENCES: readonly (readonly [Presence, "good" | "warn" | "bad" | "off"])[] = [
  ["online", "good"],
  ["late", "warn"],
  ["offline", "bad"],
  ["unknown", "off"],
];

interface FiguresProps {
  daemons: readonly DaemonView[];
  /** Undefined: not known yet. */
  workflows: readonly WorkflowView[] | undefined;
  streams: readonly StreamView[] | undefined;
}

const UNKNOWN = "–";

function Figures({ daemons, workflows: known, streams: flowing }: FiguresProps) {
  const [workflows, streams] = [known ?? NO_WORKFLOWS, flowing ?? NO_STREAMS];
  const states = new Map<string, number>();
  for (const { state } of workflows) states.set(state ?? "unknown", (states.get(state ?? "unknown") ?? 0) + 1);
  const rate = streams.reduce((sum, stream) => sum + stream.rate, 0);
  const carried = streams.reduce((sum, stream) => sum + (stream.bytes_per_s ?? 0), 0);
  const buffered = streams.reduce((sum, stream) => sum + stream.ledger.buffered, 0);
  const bufferedBytes = streams.reduce((sum, stream) => sum + stream.buffered_bytes, 0);
  return (
    <Panel className="grid grid-cols-2 md:grid-cols-4 md:divide-x md:divide-line">
      <Figure name="Daemons" value={number(daemons.length)} href="/daemons">
        {PRESENCES.map(([presence, tone]) => {
          const found = daemons.filter((daemon) => daemon.presence === presence).length;
          return found > 0 && <Status key={presence} tone={tone}>{`${number(found)} ${presence}`}</Status>;
        })}
      </Figure>
      <Figure name="Workflows" value={known ? number(workflows.length) : UNKNOWN} href="/workflows">
        {[...states].map(([state, found]) => (
          <Status
            key={state}
            tone={RUN_TONES[state as keyof typeof RUN_TONES] ?? "off"}
          >{`${number(found)} ${state}`}</Status>
        ))}
      </Figure>
      <Figure name="Records per second" value={flowing ? compact(rate) : UNKNOWN} href="/streams" course={<Course />}>
        {flowing && (
          <span className="text-muted">
            {carried > 0 && `${bytes(carried)}/s `}
            {`over ${count(streams.length, "stream")}`}
          </span>
        )}
      </Figure>
      <Figure name="Buffered on disk" value={flowing ? compact(buffered) : UNKNOWN} href="/streams">
        {flowing && <span className="text-muted">{bytes(bufferedBytes)}</span>}
      </Figure>
    </Panel>
  );
}
