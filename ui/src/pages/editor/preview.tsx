// What each step makes of up to 100 records, pasted or captured: what comes in, what goes on, what is dropped and rejected.
// No source is read, no destination written.

import { useMutation } from "@tanstack/react-query";
import { useEffect, useRef, useState } from "react";
import { endTap, lookTap, openTap, tryText } from "@/api/operator";
import type { RecordShown, Step } from "@/api/types";
import { Allowed } from "@/components/allowed";
import { Button } from "@/components/button";
import { Failure } from "@/components/callout";
import { CliButton } from "@/components/copy";
import { Field, Select, Textarea } from "@/components/field";
import { Empty, Section } from "@/components/page";
import { Records } from "@/components/records";
import { Status } from "@/components/status";
import { tell } from "@/components/toast";
import { count, number } from "@/lib/format";
import { jsonOf } from "@/lib/json";
import { save } from "@/lib/save";
import { freeName } from "@/workflow/edit";
import { fromLines } from "@/workflow/rows";
import { cliToPreview, recordsFile } from "./cli";
import { own } from "./pressed";
import { asTest, droppedRows, inputOf, numbers, RECORDS_MAX } from "./preview-steps";
import type { Workbench } from "./state";
import { TrialDaemon, useTrialDaemon } from "./trial-daemon";
import { doingOf, Verdict } from "./verdict";

/** How long records are waited for, in seconds. */
const CAPTURE_S = 15;
const LOOK_MS = 1_000;
/** Most records that a capture asks for in a second. */
const CAPTURE_RATE = 100;

type Given = Readonly<Record<string, string>>;
interface Tried {
  doing: string;
  given: Given;
}

export function Preview({ bench }: { bench: Workbench }) {
  const { graph } = bench;
  const sources = graph.nodes.filter(({ role }) => role === "source").map(({ id }) => id);
  const [chosen, setChosen] = useState<string>();
  const source = chosen !== undefined && sources.includes(chosen) ? chosen : sources[0];
  const [given, setGiven] = useState<Given>({});
  const [daemon, setDaemon] = useTrialDaemon(bench);
  const samples = sources.flatMap((id) => (given[id]?.trim() ? [{ source: id, lines: given[id] ?? "" }] : []));
  const run = useMutation({ mutationFn: (_: Tried) => tryText(daemon, bench.text, samples) });
  if (source === undefined) {
    return <Empty title="No source yet">A preview begins with records of a source.</Empty>;
  }
  const doing = doingOf(graph);
  const all = samples.map(({ lines }) => fromLines(lines));
  const total = all.reduce((sum, { rows }) => sum + (rows?.length ?? 0), 0);
  const lines = given[source] ?? "";
  const wrong = fromLines(lines).error ?? (total > RECORDS_MAX ? `A preview takes ${RECORDS_MAX} at most.` : undefined);
  const isReady = total > 0 && total <= RECORDS_MAX && all.every(({ error }) => error === null);
  const set = (text: string) => setGiven({ ...given, [source]: text });
  const file = recordsFile(source);
  const tried = samples.map((sample) => sample.source);
  return (
    <div className="flex max-w-5xl flex-col gap-4">
      <p className="text-sm">
        See what every step makes of up to {RECORDS_MAX} records. No source is read, no destination written.
      </p>
      <div className="flex flex-wrap items-end gap-2">
        <Field label="Records of" className="w-56">
          <Select value={source} onChange={(event) => setChosen(event.target.value)}>
            {sources.map((id) => (
              <option key={id}>{id}</option>
            ))}
          </Select>
        </Field>
        <TrialDaemon bench={bench} daemon={daemon} onChange={setDaemon} />
        {bench.name !== null && <Capture bench={bench} source={source} daemon={daemon} onCaught={set} />}
      </div>
      <Field label="Records" hint="As JSON, one a line." error={wrong}>
        <Textarea
          {...own(true)}
          rows={6}
          value={lines}
          placeholder={'{ "id": 1, "amount": 12.5 }'}
          onChange={(event) => set(event.target.value)}
        />
      </Field>
      <div className="flex flex-wrap items-center gap-2">
        <Allowed needs="operator" what="A preview">
          <Button kind="main" disabled={!isReady} busy={run.isPending} onClick={() => run.mutate({ doing, given })}>
            Preview
          </Button>
        </Allowed>
        <Button disabled={!isReady} onClick={() => save(file, `${lines.trim()}\n`, "application/jsonl")}>
          Save {file}
        </Button>
        <CliButton command={cliToPreview(graph.name, tried.length > 0 ? tried : [source], daemon)} />
      </div>
      <Verdict of={run.variables?.doing} now={doing} again="see again what becomes of them">
        {run.isError && <Failure error={run.error} />}
        {run.data && <Steps bench={bench} given={run.variables.given} steps={run.data} />}
      </Verdict>
    </div>
  );
}

interface CaptureProps {
  bench: Workbench;
  source: string;
  daemon: string;
  onCaught: (lines: string) => void;
}

/** Records that pass the source while it runs, until there are enough, somebody says so, or its tap is over. */
async function capture(
  daemon: string,
  workflow: string,
  node: string,
  enough: AbortSignal,
  tellCount: (n: number) => void,
) {
  const tap = await openTap({ daemon, workflow, node, for_s: CAPTURE_S, rate: CAPTURE_RATE });
  const caught: unknown[] = [];
  try {
    let after = 0;
    for (;;) {
      await waitFor(LOOK_MS, enough);
      const look = await lookTap(tap.id, after);
      after = look.newest;
      caught.push(...look.records.map(({ record }) => record));
      tellCount(caught.length);
      const isOver = look.tap.is_over || enough.aborted;
      if (caught.length >= RECORDS_MAX || isOver)
        return { caught: caught.slice(0, RECORDS_MAX), cause: look.tap.cause };
    }
  } finally {
    await endTap(tap.id).catch(() => {});
  }
}

/** Waits so long, or until somebody says that it is enough. */
const waitFor = (ms: number, enough: AbortSignal) =>
  new Promise<void>((resolve) => {
    if (enough.aborted) return resolve();
    const timer = setTimeout(resolve, ms);
    enough.addEventListener("abort", () => {
      clearTimeout(timer);
      resolve();
    });
  });

function Capture({ bench, source, daemon, onCaught }: CaptureProps) {
  const [caughtSoFar, setCaughtSoFar] = useState(0);
  const enough = useRef<AbortController | null>(null);
  // Whoever goes elsewhere wants no more.
  useEffect(() => () => enough.current?.abort(), []);
  const run = useMutation({
    mutationFn: () => {
      setCaughtSoFar(0);
      enough.current = new AbortController();
      return capture(daemon, bench.name ?? "", source, enough.current.signal, setCaughtSoFar);
    },
    onSuccess: ({ caught, cause }) => {
      if (caught.length > 0) onCaught(caught.map(jsonOf).join("\n"));
      tell(
        caught.length > 0
          ? `${count(caught.length, "record")} captured.`
          : cause || `No record passed ${source} within ${CAPTURE_S} s.`,
      );
    },
  });
  return (
    <>
      <Allowed needs="operator" what="Capturing records">
        {run.isPending ? (
          <>
            <span role="status" className="tabular py-1.5 text-sm text-muted">
              {`${number(caughtSoFar)} of ${RECORDS_MAX} captured …`}
            </span>
            <Button onClick={() => enough.current?.abort()}>That is enough</Button>
          </>
        ) : (
          <Button onClick={() => run.mutate()}>Capture some that pass</Button>
        )}
      </Allowed>
      {run.isError && (
        <div className="w-full">
          <Failure error={run.error} />
        </div>
      )}
    </>
  );
}

function Steps({ bench, given, steps }: { bench: Workbench; given: Given; steps: readonly Step[] }) {
  const keep = () => {
    const name = freeName(bench.graph.tests, "preview");
    bench.set(["tests", name], asTest(bench.graph, given, steps));
    tell(`The test ${name} is in the text: it says that exactly this shall come of them.`);
  };
  return (
    <>
      <div className="flex flex-wrap items-center gap-3 border-t border-line pt-4">
        <h2 className="text-base font-semibold">What became of them</h2>
        <Button onClick={keep}>Keep it as a test</Button>
      </div>
      {steps.map((step) => (
        <StepShown key={`${step.from} ${step.node}`} step={step} input={inputOf(step, given, steps)} />
      ))}
    </>
  );
}

function StepShown({ step, input }: { step: Step; input: readonly RecordShown[] }) {
  const { came, out, dropped, rejected } = numbers(step);
  const without = dropped > 0 ? (droppedRows(step, input) ?? []) : [];
  return (
    <Section
      title={step.from === "" ? step.node : `${step.from} → ${step.node}`}
      aside={
        <span className="tabular flex flex-wrap gap-x-3">
          <span>{number(came)} in</span>
          <span>{number(out)} out</span>
          {dropped > 0 && <span>{number(dropped)} dropped</span>}
          {rejected > 0 && <Status tone="bad">{`${number(rejected)} rejected`}</Status>}
        </span>
      }
    >
      {step.out.length > 0 && <Records label={`What comes out of ${step.node}`} records={step.out} />}
      {without.length > 0 && (
        <details>
          <summary className="cursor-pointer text-sm text-muted">{`${count(without.length, "record")} not let through`}</summary>
          <Records label={`What ${step.node} drops`} records={without.map((row) => input[row] ?? {})} />
        </details>
      )}
      {step.rejected.length > 0 && (
        <ul className="list-disc pl-5 text-sm">
          {step.rejected.map(({ row, reason }) => (
            <li key={row} className="break-words">
              <span className="text-muted">{`record ${number(row + 1)}: `}</span>
              {reason}
            </li>
          ))}
        </ul>
      )}
    </Section>
  );
}
