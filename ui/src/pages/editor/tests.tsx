// The workflow's own examples of what it shall do, as forms. They are run where the records would be: on a daemon.

import { useEffect, useState } from "react";
import { Button } from "@/components/button";
import { Code, shellWord } from "@/components/copy";
import { Field, Select, Textarea } from "@/components/field";
import { Empty } from "@/components/page";
import { save } from "@/lib/save";
import { freeName } from "@/workflow/edit";
import { fromLines, textLines, toLines } from "@/workflow/rows";
import { at, isTable, same, type Table, type Value } from "@/workflow/value";
import type { Workbench } from "./state";

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
      <p className="text-sm text-muted">Tests run on a daemon; nothing is read, written or deployed:</p>
      <Code text={`mycelial workflow test ${shellWord(`${graph.name}.toml`)}`} what="the command" />
    </div>
  );
}

/** What each step makes of some records: the command that shows it, with the records to save for it. */
export function Preview({ bench }: { bench: Workbench }) {
  const { graph } = bench;
  const sources = graph.nodes.filter(({ role }) => role === "source");
  const [source = sources[0]?.id ?? "", setSource] = useState<string>();
  const [text, setText] = useState("");
  const parsed = fromLines(text);
  const file = `${source}.jsonl`;
  const daemon = graph.nodes.find(({ daemon }) => daemon !== "")?.daemon;
  if (sources.length === 0) {
    return <Empty title="No source yet">A preview begins with records of a source.</Empty>;
  }
  return (
    <div className="flex max-w-3xl flex-col gap-4">
      <p className="text-sm">
        See what every step makes of up to 100 records: what comes in, what goes out, what is dropped and why. Only a
        daemon can do that, and it answers nobody but an operator, so it is done with the command line. No source is
        read, no destination written.
      </p>
      <Field label="Records of" className="w-56">
        <Select value={source} onChange={(event) => setSource(event.target.value)}>
          {sources.map(({ id }) => (
            <option key={id}>{id}</option>
          ))}
        </Select>
      </Field>
      <Field
        label="Records"
        hint="As JSON, one a line; paste your own."
        error={parsed.error ?? (parsed.rows && parsed.rows.length > 100 ? "A preview takes 100 at most." : undefined)}
      >
        <Textarea
          rows={6}
          value={text}
          placeholder={'{ "id": 1, "amount": 12.5 }'}
          onChange={(event) => setText(event.target.value)}
        />
      </Field>
      <Button
        className="self-start"
        disabled={!parsed.rows || parsed.rows.length === 0 || parsed.rows.length > 100}
        onClick={() => save(file, `${text.trim()}\n`, "application/jsonl")}
      >
        Save {file}
      </Button>
      {bench.name !== null && (
        <>
          <p className="text-sm text-muted">Or capture some that are passing:</p>
          <Code
            text={`mycelial tap ${shellWord(graph.name)} ${shellWord(source)} --count 100 -o jsonl > ${shellWord(file)}`}
            what="the command that captures"
          />
        </>
      )}
      <p className="text-sm text-muted">Then:</p>
      <Code
        text={`mycelial workflow preview ${shellWord(`${graph.name}.toml`)} --given ${shellWord(`${source}=${file}`)}${daemon ? ` --daemon ${shellWord(daemon)}` : ""}`}
        what="the command that previews"
      />
    </div>
  );
}
