// A workflow as it runs: where, how well, and how much flows on each of its streams.

import { useMemo } from "react";
import { useParams } from "wouter";
import { Failed } from "@/api/client";
import { useRollouts, useWorkflow, useWorkflowStatus } from "@/api/queries";
import type { WorkflowStatus } from "@/api/types";
import { Allowed } from "@/components/allowed";
import { LinkButton } from "@/components/button";
import { Callout } from "@/components/callout";
import { CliButton, Code, shellWord } from "@/components/copy";
import { Data } from "@/components/data";
import { History, type Metric, Range } from "@/components/history";
import { Empty, Page, Section } from "@/components/page";
import { RunStatus } from "@/components/status";
import { StreamTable } from "@/components/stream-table";
import { Time } from "@/components/time";
import { WorkflowTabs } from "@/components/workflow-header";
import { bytes, number, span } from "@/lib/format";
import { isOver, PHASES } from "@/lib/rollout";
import { useSearchState } from "@/lib/search";
import { readGraph } from "@/workflow/graph";
import { Delete } from "./delete";
import { Drift } from "./drift";
import { Flow } from "./flow";
import { Shares } from "./shares";
import { underWay } from "./streams";
import { type Tap, TapBadge, TapRecords, useTap } from "./tap";

export default function Run() {
  const { name = "" } = useParams();
  const status = useWorkflowStatus(name);
  const view = status.data?.view;
  const tap = useTap();
  if (status.error instanceof Failed && status.error.status === 404) {
    return (
      <Page title={name}>
        <Empty
          title={`There is no workflow ${name}`}
          action={<LinkButton href="/workflows">All workflows</LinkButton>}
        />
      </Page>
    );
  }
  return (
    <Page
      title={name}
      aside={
        view && (
          <span className="flex flex-wrap items-center gap-x-3 text-sm">
            <RunStatus state={view.state} />
            <span className="text-muted">
              revision {number(view.revision)} by {view.by}, <Time unixMs={view.at_unix_ms} />
            </span>
            <TapBadge tap={tap} />
          </span>
        )
      }
      actions={
        <>
          <CliButton command={`mycelial workflow status ${shellWord(name)}`} />
          <LinkButton href={`/logs?workflow=${encodeURIComponent(name)}`}>Log</LinkButton>
          <Allowed needs="operator" what="Deleting">
            {status.data && <Delete name={name} status={status.data} />}
          </Allowed>
        </>
      }
    >
      <WorkflowTabs name={name} />
      <UnderWay name={name} />
      {status.data && <Drift drift={status.data.drift} toldUnixMs={status.dataUpdatedAt} />}
      <Data query={status}>{(found) => <Running name={name} status={found} tap={tap} />}</Data>
    </Page>
  );
}

const HISTORY: readonly Metric[] = [
  { title: "Records delivered a second", metric: "records", format: number },
  { title: "Bytes carried a second", metric: "bytes", format: bytes },
  { title: "Under way for", metric: "latency", format: (ms) => `${number(ms)} ms` },
  { title: "Records waiting", metric: "waiting", format: number },
  { title: "Lag", metric: "lag", format: span },
  { title: "Dropped or dead a second", metric: "errors", format: number },
];

function Past({ name }: { name: string }) {
  const [last, setLast] = useSearchState("last");
  return (
    <Section title="History" actions={<Range value={last} onChange={setLast} first="Not shown" />}>
      {last !== "" && <History subject={`workflow:${name}`} last={last} metrics={HISTORY} />}
    </Section>
  );
}

/** A new revision is on its way to its daemons. */
function UnderWay({ name }: { name: string }) {
  const rollout = useRollouts().data?.find((each) => each.workflow === name && !isOver(each));
  if (!rollout) return null;
  const { id, revision, phase, wave, waves } = rollout;
  return (
    <Callout
      tone={phase === "paused" || phase === "rolling_back" ? "warn" : "info"}
      title={`Revision ${revision} is being rolled out: wave ${wave} of ${waves.length}, ${PHASES[phase][1]}.`}
      actions={<LinkButton href={`/rollouts/${id}`}>See rollout {id}</LinkButton>}
    >
      Until it is over, this workflow can be neither deployed nor deleted.
    </Callout>
  );
}

function Running({ name, status, tap }: { name: string; status: WorkflowStatus; tap: Tap }) {
  const text = useWorkflow(name);
  const graph = useMemo(() => readGraph(text.data?.text ?? "").graph, [text.data?.text]);
  return (
    <>
      {graph && <Flow name={name} graph={graph} status={status} tap={tap} />}
      <TapRecords tap={tap} />
      <Section title="Where it runs" aside={underWay(status.parts)}>
        <Shares parts={status.parts} streams={status.streams} />
      </Section>
      <Section title="Streams">
        {status.streams.length > 0 ? (
          <StreamTable streams={status.streams} isOwn />
        ) : (
          <p className="text-sm text-muted">Nothing has flowed yet.</p>
        )}
      </Section>
      <Past name={name} />
      <Section title="Text">
        <Data query={text}>{({ text: source }) => <Code text={source.trim()} what="the text" />}</Data>
      </Section>
    </>
  );
}
