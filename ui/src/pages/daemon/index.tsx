// One daemon: what it should do and what it does, what it uses, what it can run, and who it is.

import { useMemo } from "react";
import { useParams } from "wouter";
import { Failed } from "@/api/client";
import { useDaemon, useStreams } from "@/api/queries";
import type { DaemonDetail } from "@/api/types";
import { Allowed } from "@/components/allowed";
import { LinkButton } from "@/components/button";
import { Callout } from "@/components/callout";
import { Chart } from "@/components/chart";
import { CliButton, shellWord } from "@/components/copy";
import { Data } from "@/components/data";
import { Facts } from "@/components/facts";
import { History, type Metric, Range } from "@/components/history";
import { TextLink } from "@/components/link";
import { Empty, Page, Panel, Section } from "@/components/page";
import { Seen } from "@/components/seen";
import { PresenceStatus } from "@/components/status";
import { StreamTable } from "@/components/stream-table";
import { bytes, count, number, percent, sentence, span } from "@/lib/format";
import { useSearchState } from "@/lib/search";
import { CommandButton } from "../commands/command-button";
import { Commands } from "./commands";
import { Identity } from "./identity";
import { Labels } from "./labels";
import { Log } from "./log";
import { Parts } from "./parts";
import { points, processor, useSamples } from "./samples";

/** What is kept of a daemon, and how it is written. A processor that works all the time spends 1,000 ms a second. */
const HISTORY: readonly Metric[] = [
  { title: "Memory", metric: "memory", format: bytes },
  { title: "Processor", metric: "cpu", format: percent, scale: 0.1 },
  { title: "Spool", metric: "buffer", format: bytes },
];

/** A clock that is off by more is worth a remark, in milliseconds. */
const CLOCK_OFFSET_MS = 60_000;

export default function Daemon() {
  const { name = "" } = useParams();
  const daemon = useDaemon(name);
  const view = daemon.data?.view;
  if (daemon.error instanceof Failed && daemon.error.status === 404) {
    return (
      <Page title={name}>
        <Empty title={`There is no daemon ${name}`} action={<LinkButton href="/daemons">All daemons</LinkButton>} />
      </Page>
    );
  }
  return (
    <Page
      title={name}
      aside={
        view && (
          <span className="flex flex-wrap items-center gap-x-3 text-sm">
            <PresenceStatus presence={view.presence} />
            <span className="text-muted">
              last seen <Seen agoMs={view.last_seen_ms} />
            </span>
          </span>
        )
      }
      actions={
        <>
          <CliButton command={`mycelial daemon show ${shellWord(name)}`} />
          <Allowed needs="operator" what="Commanding">
            <CommandButton label="Command …" selector={`name:${name}`} chosen={[name]} />
          </Allowed>
        </>
      }
    >
      <Data query={daemon}>{(detail) => <Detail detail={detail} />}</Data>
    </Page>
  );
}

function Detail({ detail }: { detail: DaemonDetail }) {
  const streams = useStreams();
  const { view } = detail;
  const own = streams.data?.filter(({ producer, consumer }) => producer === view.name || consumer === view.name) ?? [];
  return (
    <>
      <Remarks detail={detail} />
      <Labels name={view.name} labels={detail.labels} />
      <Section
        title="Workflows"
        aside={
          view.plan_version === view.plan_wanted
            ? `plan ${number(view.plan_version)} is applied`
            : `runs plan ${number(view.plan_version)}, shall run ${number(view.plan_wanted)}`
        }
      >
        <Parts parts={detail.parts} />
      </Section>
      {own.length > 0 && (
        <Section title="Streams" aside={`${bytes(view.resources.spool_bytes)} in its spool`}>
          <StreamTable streams={own} />
        </Section>
      )}
      <Resources detail={detail} />
      <div className="grid gap-5 lg:grid-cols-2">
        <Host detail={detail} />
        <Identity detail={detail} />
      </div>
      <Log name={view.name} isHeard={view.last_seen_ms !== null} />
      <Commands name={view.name} />
      <Components detail={detail} />
    </>
  );
}

function Remarks({ detail }: { detail: DaemonDetail }) {
  const { view, plan_error, clock_offset_ms, lineage } = detail;
  const offset = Math.abs(clock_offset_ms);
  return (
    <>
      {plan_error !== "" && (
        <Callout
          tone="bad"
          isUrgent
          title={lineage.is_cloned ? "Two daemons speak in its name" : "Its newest plan is not applied"}
        >
          {sentence(plan_error)}
        </Callout>
      )}
      {view.damaged > 0 && (
        <Callout tone="warn" title={`It set ${count(view.damaged, "thing")} aside as damaged`}>
          Nothing waits for it, and what records it cost is in the ledger. On its machine, with the daemon stopped,{" "}
          <code className="font-mono">myceliald spool list</code> shows what it is, and{" "}
          <code className="font-mono">myceliald spool forget --yes</code> removes it.
        </Callout>
      )}
      {offset > CLOCK_OFFSET_MS && (
        <Callout tone="warn" title={`Its clock is ${span(offset)} ${clock_offset_ms < 0 ? "behind" : "ahead"}`}>
          Nothing breaks; only its time stamps are off.
        </Callout>
      )}
    </>
  );
}

function Resources({ detail }: { detail: DaemonDetail }) {
  const samples = useSamples(detail.view.last_seen_ms === null ? null : detail.view.resources);
  const [last, setLast] = useSearchState("last");
  const [memory, cpu, spool] = useMemo(
    () => [
      points(samples, (resources) => resources.rss_bytes),
      processor(samples),
      points(samples, (resources) => resources.spool_bytes),
    ],
    [samples],
  );
  return (
    <Section title="Resources" actions={<Range value={last} onChange={setLast} first="Since this page was opened" />}>
      {last === "" ? (
        <Panel className="flex flex-wrap gap-x-8 gap-y-4 px-4 py-3">
          <Chart title="Memory" points={memory} format={bytes} />
          <Chart title="Processor" points={cpu} format={percent} />
          <Chart title="Spool" points={spool} format={bytes} leastTop={1_000} />
        </Panel>
      ) : (
        <History subject={`daemon:${detail.view.name}`} last={last} metrics={HISTORY} />
      )}
    </Section>
  );
}

function Host({ detail: { host, view, ...detail } }: { detail: DaemonDetail }) {
  // What was never told is nothing, not 0 bytes.
  const told = (text: string) => (view.last_seen_ms === null ? "–" : text);
  return (
    <Section title="Host">
      <Panel className="px-4 py-3">
        <Facts
          facts={[
            ["Host name", host.hostname || "–"],
            ["System", host.os || "–"],
            ["Processor", host.cpus === 0 ? "–" : `${count(host.cpus, "core")}, ${host.arch}`],
            ["Memory", host.memory_bytes === 0 ? "–" : bytes(host.memory_bytes)],
            ["Disk free", told(bytes(view.resources.disk_free_bytes))],
            [
              "Daemon's memory",
              told(`${bytes(view.resources.rss_bytes)}, at most ${bytes(view.resources.rss_peak_bytes)}`),
            ],
            ["Version", view.version],
            ["Up for", told(`${span(detail.uptime_ms)}, start ${number(detail.boot)}`)],
          ]}
        />
      </Panel>
    </Section>
  );
}

function Components({ detail: { components, view } }: { detail: DaemonDetail }) {
  if (components.length === 0) {
    return (
      <Section title="Components">
        <p className="text-sm text-muted">{view.name} has not told yet what it can run.</p>
      </Section>
    );
  }
  return (
    <Section title="Components" aside={count(components.length, "component")}>
      <Panel className="px-4 py-3">
        <Facts
          facts={(["source", "transform", "destination"] as const).map((role) => [
            `${role[0]?.toUpperCase()}${role.slice(1)}s`,
            <span key={role} className="flex flex-wrap gap-x-3 gap-y-1">
              {components
                .filter((component) => component.role === role)
                .map(({ name }) => (
                  <TextLink key={name} href={`/components/${role}/${encodeURIComponent(name)}`}>
                    {name}
                  </TextLink>
                ))}
            </span>,
          ])}
        />
      </Panel>
    </Section>
  );
}
