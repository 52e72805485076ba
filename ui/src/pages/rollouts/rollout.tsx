// One rollout as it goes: its waves, its daemons with what keeps them, what changes, and who said what to it.

import { useMemo } from "react";
import { useParams } from "wouter";
import { Failed } from "@/api/client";
import { useRevisionText, useRollout, useWorkflowStatus, useWorkflows } from "@/api/queries";
import type { RolloutFailure, RolloutView, WaveView, WorkflowPart } from "@/api/types";
import { Allowed } from "@/components/allowed";
import { LinkButton } from "@/components/button";
import { Callout } from "@/components/callout";
import { CliButton } from "@/components/copy";
import { Data } from "@/components/data";
import { DifferenceList } from "@/components/difference";
import { Facts } from "@/components/facts";
import { TextLink } from "@/components/link";
import { Empty, Page, Panel, Section } from "@/components/page";
import { Progress } from "@/components/progress";
import { RunStatus, Status } from "@/components/status";
import { type Column, Table } from "@/components/table";
import { Time } from "@/components/time";
import { bytes, count, number, sentence, span } from "@/lib/format";
import { course, isOver, PHASES, showAmount, taken, wanted, waveStates } from "@/lib/rollout";
import { difference } from "@/workflow/diff";
import { graphOf, readGraph } from "@/workflow/graph";
import { Commands } from "./commands";

const part = encodeURIComponent;

export default function Rollout() {
  const { id = "" } = useParams();
  const rollout = useRollout(Number(id));
  const view = rollout.data;
  if (rollout.error instanceof Failed && [400, 404].includes(rollout.error.status)) {
    return (
      <Page title={`Rollout ${id}`}>
        <Empty title={`There is no rollout ${id}`} action={<LinkButton href="/rollouts">All rollouts</LinkButton>}>
          The plane shows the last hundred.
        </Empty>
      </Page>
    );
  }
  return (
    <Page
      title={`Rollout ${id}`}
      aside={
        view && (
          <span className="flex flex-wrap items-center gap-x-3 text-sm">
            <Status tone={PHASES[view.phase][0]}>{PHASES[view.phase][1]}</Status>
            <span className="text-muted">
              begun <Time unixMs={view.at_unix_ms} /> by {view.by}
            </span>
          </span>
        )
      }
      actions={
        <>
          <CliButton command={`mycelial rollout ${view && !isOver(view) ? "watch" : "show"} ${id}`} />
          {view && !isOver(view) && (
            <Allowed needs="operator" what="Telling it what to do">
              <Commands rollout={view} />
            </Allowed>
          )}
        </>
      }
    >
      <Data query={rollout}>{(found) => <Detail rollout={found} />}</Data>
    </Page>
  );
}

function Detail({ rollout }: { rollout: RolloutView }) {
  const { workflow, phase, cause } = rollout;
  return (
    <>
      <p className="max-w-prose">
        <TextLink href={`/workflows/${part(workflow)}`}>{workflow}</TextLink> {course(rollout)}{" "}
        <span className="tabular" role="status">
          {`${number(taken(rollout))} of ${count(wanted(rollout), "daemon")}`} run it.
        </span>
      </p>
      {cause !== "" && (
        <Callout
          tone={PHASES[phase][0] === "bad" ? "bad" : phase === "done" ? "info" : "warn"}
          title={sentence(cause)}
        />
      )}
      <Section title="Waves" aside="the first is the canary">
        <Waves rollout={rollout} />
      </Section>
      {rollout.failures.length > 0 && (
        <Section title="Failed" aside={count(rollout.failures.length, "daemon")}>
          <Table label="Failed" columns={FAILURES} rows={rollout.failures} rowKey={({ daemon }) => daemon} />
        </Section>
      )}
      <Daemons rollout={rollout} />
      <Changes rollout={rollout} />
      <Section title="How it goes on">
        <Policy rollout={rollout} />
      </Section>
    </>
  );
}

function Waves({ rollout }: { rollout: RolloutView }) {
  const states = waveStates(rollout);
  return (
    <Panel>
      <ol>
        {rollout.waves.map((wave, at) => {
          const [tone, word] = states[at] ?? ["off", ""];
          const isHere = !isOver(rollout) && at + 1 === rollout.wave;
          return (
            // biome-ignore lint/suspicious/noArrayIndexKey: waves never move
            <li key={at} aria-current={isHere ? "step" : undefined} className="border-b border-line last:border-b-0">
              <div className="flex flex-wrap items-center gap-x-4 gap-y-1 px-4 py-2 text-sm">
                <span className="w-20 font-medium">{`Wave ${at + 1}`}</span>
                <Status tone={tone} className="w-36">
                  {word}
                </Status>
                <Taken wave={wave} name={`Wave ${at + 1}`} />
                {wave.failed > 0 && <Status tone="bad">{`${number(wave.failed)} failed`}</Status>}
              </div>
            </li>
          );
        })}
      </ol>
    </Panel>
  );
}

function Taken({ wave, name }: { wave: WaveView; name: string }) {
  return (
    <span className="flex min-w-48 flex-1 items-center gap-3">
      <Progress label={`${name}: daemons that run it`} value={wave.taken} max={wave.daemons} />
      <span className="tabular w-28 text-right text-muted">{`${number(wave.taken)} of ${count(wave.daemons, "daemon")}`}</span>
    </span>
  );
}

const daemonLink = (daemon: string) => <TextLink href={`/daemons/${part(daemon)}`}>{daemon}</TextLink>;

const FAILURES: readonly Column<RolloutFailure>[] = [
  { name: "Daemon", cell: ({ daemon }) => daemonLink(daemon) },
  { name: "Why", cell: ({ cause }) => cause, className: "md:w-2/3" },
];

/** What each daemon runs of the workflow now, also when the rollout is over. */
function Daemons({ rollout }: { rollout: RolloutView }) {
  const workflows = useWorkflows();
  const isThere = workflows.data?.some(({ name }) => name === rollout.workflow) ?? false;
  const status = useWorkflowStatus(rollout.workflow, isThere);
  const columns = useMemo<readonly Column<WorkflowPart>[]>(
    () => [
      { name: "Daemon", isPlain: true, cell: ({ daemon }) => daemonLink(daemon) },
      {
        name: "Runs",
        cell: ({ revision }) =>
          revision === 0 ? (
            <span className="text-muted">nothing of it</span>
          ) : (
            <Status tone={revision === rollout.revision ? "good" : "off"}>
              {revision === rollout.revision ? `revision ${revision}, the new one` : `revision ${revision}`}
            </Status>
          ),
      },
      { name: "State", isPlain: true, cell: ({ state }) => <RunStatus state={state} /> },
      { name: "Why", cell: ({ cause }) => cause, className: "md:w-1/2" },
    ],
    [rollout.revision],
  );
  if (!isThere || !status.data) return null;
  return (
    <Section title="Daemons" aside="as they report now">
      <Table label="Daemons" columns={columns} rows={status.data.parts} rowKey={({ daemon }) => daemon} />
    </Section>
  );
}

function Changes({ rollout: { workflow, before, revision } }: { rollout: RolloutView }) {
  const old = useRevisionText(workflow, before === 0 ? null : before);
  const fresh = useRevisionText(workflow, revision);
  const found = useMemo(() => {
    const graphIn = (text: string | undefined) => readGraph(text ?? "").graph ?? graphOf({});
    return fresh.data && (before === 0 || old.data)
      ? difference(graphIn(old.data?.text), graphIn(fresh.data.text))
      : null;
  }, [old.data, fresh.data, before]);
  if (!found) return null;
  return (
    <Section title="What it changes">
      <DifferenceList difference={found} />
    </Section>
  );
}

function Policy({ rollout: { policy } }: { rollout: RolloutView }) {
  return (
    <Panel className="px-4 py-3">
      <Facts
        facts={[
          ["Daemons after each wave", policy.waves.map(showAmount).join(", ")],
          ["A wave does well for", span(policy.soak_s * 1_000)],
          ["A daemon may take", span(policy.take_s * 1_000)],
          ["Daemons that may fail", showAmount(policy.failures_max)],
          ["New dead letters of a daemon", number(policy.dead_max)],
          ["Growth of its buffers", bytes(policy.lag_bytes_max)],
          ["Records wait longer by", policy.lag_s_max ? span(policy.lag_s_max * 1_000) : "not looked at"],
          ["A wave moves at least", `${policy.throughput_percent_min} % of before`],
          ["When more fail", policy.on_failure === "pause" ? "it waits for somebody" : "all go back to what they had"],
        ]}
      />
    </Panel>
  );
}
