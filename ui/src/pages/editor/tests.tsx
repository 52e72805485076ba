// The workflow's own examples of what it shall do, as forms. They are run where the records would be: on a daemon.

import { useMutation } from "@tanstack/react-query";
import { useEffect, useState } from "react";
import { runTests } from "@/api/operator";
import { Allowed } from "@/components/allowed";
import { Button } from "@/components/button";
import { Failure } from "@/components/callout";
import { CliButton } from "@/components/copy";
import { Field, Select, Textarea } from "@/components/field";
import { Empty } from "@/components/page";
import { Status } from "@/components/status";
import { count } from "@/lib/format";
import { freeName } from "@/workflow/edit";
import { fromLines, textLines, toLines } from "@/workflow/rows";
import { at, isTable, same, type Table, type Value } from "@/workflow/value";
import { cliToTest } from "./cli";
import { own } from "./pressed";
import type { Workbench } from "./state";
import { TrialDaemon, useTrialDaemon } from "./trial-daemon";
import { Verdict } from "./verdict";

type Which = "given" | "expect" | "reject";
const WORDS: Record<Which, { title: string; hint: string; add: string }> = {
  given: { title: "Given", hint: "Records that the source reads, as JSON, one a line.", add: "Give records of" },
  expect: {
    title: "Expected",
    hint: "All records that come out of it, in order, as JSON, one a line.",
    add: "Expect records of",
  },
  reject: {
    title: "Rejected",
    hint: "A part of the reason for each record that it rejects, one a line.",
    add: "Expect rejections of",
  },
};

interface LinesProps {
  label: string;
  which: Which;
  value: Value | undefined;
  onChange: (value: Value) => void;
}

function Lines({ label, which, value, onChange }: LinesProps) {
  const show = (each: Value | undefined) => (which === "reject" ? textLines(each) : toLines(each));
  const parse = (text: string) =>
    which === "reject" ? { rows: text.split("\n").filter(Boolean), error: null } : fromLines(text);
  const [typed, setTyped] = useState(() => show(value));
  const parsed = parse(typed);
  // Changed elsewhere, in the text or by undo.
  // biome-ignore lint/correctness/useExhaustiveDependencies: only what comes from outside
  useEffect(() => {
    if (parsed.rows && !same(parsed.rows, value)) setTyped(show(value));
  }, [value]);
  return (
    <Field label={label} error={parsed.error ?? undefined}>
      <Textarea
        {...own(parsed.error !== null)}
        rows={Math.min(8, Math.max(2, typed.split("\n").length))}
        value={typed}
        onChange={(event) => {
          setTyped(event.target.value);
          const next = parse(event.target.value);
          if (next.rows) onChange(next.rows);
        }}
      />
    </Field>
  );
}

function Part({ bench, name, which }: { bench: Workbench; name: string; which: Which }) {
  const path = ["tests", name, which];
  const found = at(bench.graph.table, path);
  const table: Table = isTable(found) ? found : {};
  const { title, hint, add } = WORDS[which];
  const may = bench.graph.nodes.filter(({ id, role }) => {
    if (Object.hasOwn(table, id)) return false;
    return which === "given" ? role === "source" : which === "expect" ? role !== "source" : role === "transform";
  });
  return (
    <fieldset className="flex min-w-0 flex-col gap-2">
      <legend className="text-sm font-semibold">{title}</legend>
      <p className="text-xs text-muted">{hint}</p>
      {Object.entries(table).map(([node, rows]) => (
        <div key={node} className="flex items-end gap-2">
          <div className="min-w-0 flex-1">
            <Lines label={node} which={which} value={rows} onChange={(next) => bench.set([...path, node], next)} />
          </div>
          <Button
            kind="quiet"
            aria-label={`Remove ${title} ${node}`}
            onClick={() => bench.set([...path, node], undefined)}
          >
            Remove
          </Button>
        </div>
      ))}
      {may.length > 0 && (
        <Select aria-label={`${add} …`} value="" onChange={(event) => bench.set([...path, event.target.value], [])}>
          <option value="">{add} …</option>
          {may.map(({ id }) => (
            <option key={id}>{id}</option>
          ))}
        </Select>
      )}
    </fieldset>
  );
}

/** All of them, where the records would be: on a daemon. */
function RunTests({ bench }: { bench: Workbench }) {
  const [daemon, setDaemon] = useTrialDaemon(bench);
  const run = useMutation({ mutationFn: (text: string) => runTests(daemon, text) });
  const failed = run.data?.filter(({ ok }) => !ok).length ?? 0;
  return (
    <section aria-label="Run the tests" className="flex flex-col gap-3 border-t border-line pt-4">
      <p className="text-sm text-muted">Tests run on a daemon; nothing is read, written or deployed.</p>
      <div className="flex flex-wrap items-end gap-2">
        <TrialDaemon bench={bench} daemon={daemon} onChange={setDaemon} />
        <Allowed needs="operator" what="Running tests">
          <Button kind="main" busy={run.isPending} onClick={() => run.mutate(bench.text)}>
            Run all tests
          </Button>
        </Allowed>
        <CliButton command={cliToTest(bench.graph.name, daemon)} />
      </div>
      <Verdict of={run.variables} now={bench.text} again="run them again">
        {run.isError && <Failure error={run.error} />}
        {run.data && (
          <div role="status" className="flex flex-col gap-2 text-sm">
            <Status tone={failed > 0 ? "bad" : "good"}>
              {failed > 0
                ? `${count(failed, "test")} of ${run.data.length} ${failed === 1 ? "differs" : "differ"}`
                : "All is as expected."}
            </Status>
            {run.data
              .filter(({ ok }) => !ok)
              .map(({ test, differs }) => (
                <div key={test}>
                  <p className="font-medium">{test}</p>
                  <ul className="list-disc pl-5">
                    {differs.map((each) => (
                      <li key={each} className="break-words">
                        {each}
                      </li>
                    ))}
                  </ul>
                </div>
              ))}
          </div>
        )}
      </Verdict>
    </section>
  );
}

export function Tests({ bench }: { bench: Workbench }) {
  const { graph } = bench;
  const [chosen, setChosen] = useState<string | null>(null);
  const name = chosen !== null && graph.tests.includes(chosen) ? chosen : graph.tests[0];
  const add = () => {
    const fresh = freeName(graph.tests, "example");
    const source = graph.nodes.find(({ role }) => role === "source")?.id;
    bench.set(["tests", fresh], { given: source ? { [source]: [] } : {} });
    setChosen(fresh);
  };
  if (name === undefined) {
    return (
      <Empty
        title="No tests yet"
        action={
          <Button kind="main" onClick={add}>
            Add a test
          </Button>
        }
      >
        An example of what the workflow shall do: records that are given, and what comes of them. It is kept in the
        text.
      </Empty>
    );
  }
  return (
    <div className="flex max-w-3xl flex-col gap-4">
      <div className="flex flex-wrap items-end gap-2">
        <Field label="Test" className="w-56">
          <Select value={name} onChange={(event) => setChosen(event.target.value)}>
            {graph.tests.map((each) => (
              <option key={each}>{each}</option>
            ))}
          </Select>
        </Field>
        <Button onClick={add}>Add a test</Button>
        <Button onClick={() => bench.set(["tests", name], undefined)}>Delete {name}</Button>
      </div>
      {(["given", "expect", "reject"] as const).map((which) => (
        <Part key={`${name} ${which}`} bench={bench} name={name} which={which} />
      ))}
      <RunTests bench={bench} />
    </div>
  );
}
