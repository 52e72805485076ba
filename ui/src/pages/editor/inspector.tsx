// The form of what is selected: name, place, inputs, and the settings of its component.

import { Copy, Trash2 } from "lucide-react";
import { lazy, Suspense, useEffect, useId, useMemo, useState } from "react";
import type { Problem } from "@/api/types";
import { Button } from "@/components/button";
import { Field, Input, Select } from "@/components/field";
import { TextLink } from "@/components/link";
import { tell } from "@/components/toast";
import { isName, NAME_RULE, pathOf } from "@/workflow/edit";
import { type FormField, formOf } from "@/workflow/fields";
import { canConnect, type Node, nodeOf, RESERVED } from "@/workflow/graph";
import { own } from "./pressed";
import { placeOf, problemsOf } from "./problems";
import type { Workbench } from "./state";
import { SettingField } from "./value-field";

const TestConnection = lazy(() => import("./connection"));

const text = (key: string, help: string, rest: Partial<FormField> = {}): FormField => ({
  key,
  help,
  isRequired: false,
  default: "",
  unit: "",
  shape: { kind: "text", isLong: false },
  ...rest,
});
const choice = (...values: string[]): FormField["shape"] => ({
  kind: "choice",
  options: values.map((value) => ({ value, help: "" })),
});

/** What every node that reads has: how the streams into it are kept and sent. */
const STREAM_FIELDS: FormField[] = [
  text("spool", "How what waits for it is buffered on the sending daemon's disk.", {
    shape: {
      kind: "group",
      fields: [
        text("quota", "Most room, such as 1GiB."),
        text("when_full", "What gives way when it is used up.", {
          shape: choice("block", "drop_oldest", "drop_newest"),
          default: "block",
        }),
      ],
    },
  }),
  text("send", "How it is sent, if another daemon sends it.", {
    shape: {
      kind: "group",
      fields: [
        text("class", "What goes first.", { shape: choice("critical", "normal", "bulk"), default: "normal" }),
        text("rate", "Most bytes a second, such as 50KB/s."),
        text("windows", "Times of day at which it may send, such as 22:00-06:00.", {
          shape: { kind: "list", item: { kind: "text", isLong: false } },
        }),
        text("compress", "With Zstandard.", { shape: { kind: "flag" }, default: "false" }),
        text("live_first", "After an outage, what is new goes before what had to wait.", {
          shape: { kind: "flag" },
          default: "false",
        }),
      ],
    },
  }),
];

function NameField({ bench, node }: { bench: Workbench; node: Node }) {
  const [typed, setTyped] = useState(node.id);
  useEffect(() => setTyped(node.id), [node.id]);
  const isTaken = typed !== node.id && bench.graph.nodes.some(({ id }) => id === typed);
  const error = !isName(typed) ? `A name is ${NAME_RULE}.` : isTaken ? "Another node is called that." : undefined;
  const commit = () => {
    if (error) setTyped(node.id);
    else if (typed !== node.id) bench.rename(node.id, typed);
  };
  return (
    <Field label="Name" error={error}>
      <Input
        {...own(typed !== node.id)}
        value={typed}
        onChange={(event) => setTyped(event.target.value)}
        onBlur={commit}
        onKeyDown={(event) => {
          if (event.key === "Enter") commit();
          if (event.key === "Escape") setTyped(node.id);
        }}
      />
    </Field>
  );
}

/** A daemon by its name, or several by a selector. */
function DaemonField({ bench, node, error }: { bench: Workbench; node: Node; error: string | undefined }) {
  const list = useId();
  const names = [...new Set([...bench.daemons, ...bench.graph.nodes.map(({ daemon }) => daemon)])]
    .filter((name) => name !== "" && name !== node.daemon)
    .sort();
  return (
    <div data-place={`${placeOf(node)}.daemon`}>
      <Field label="Daemon" hint="A name, or a selector such as site=berlin or name:press-*." error={error}>
        <Input
          list={list}
          spellCheck={false}
          value={node.daemon}
          placeholder={node.role === "transform" ? "where its input is" : "none yet"}
          onChange={(event) => bench.set([...pathOf(node), "daemon"], event.target.value || undefined)}
        />
      </Field>
      <datalist id={list}>
        {names.map((name) => (
          <option key={name} value={name} />
        ))}
      </datalist>
    </div>
  );
}

/** What it is made by; what both components know is kept. */
function TypeField({ bench, node }: { bench: Workbench; node: Node }) {
  const types = bench.components.filter(({ role }) => role === node.role).map(({ name }) => name);
  return (
    <div data-place={`${placeOf(node)}.type`}>
      <Field label="Type">
        <Select value={node.component} onChange={(event) => bench.retype(node, event.target.value)}>
          {!types.includes(node.component) && <option value={node.component}>{node.component || "none yet"}</option>}
          {types.map((type) => (
            <option key={type}>{type}</option>
          ))}
        </Select>
      </Field>
    </div>
  );
}

/** Whose records it takes: this is how edges are drawn without a mouse. */
function Inputs({ bench, node, error }: { bench: Workbench; node: Node; error: string | undefined }) {
  const known = bench.graph.nodes
    .filter(({ id }) => canConnect(bench.graph, id, node.id))
    .flatMap(({ id }) => bench.outputs.get(id)?.map((output) => `${id}.${output}`) ?? [id]);
  // What it reads from and should not is shown too: how else to take it away?
  const all = [...new Set([...known, ...node.from])];
  return (
    <fieldset data-place={`${placeOf(node)}.from`} className="flex flex-col gap-1">
      <legend className="pb-1 text-sm font-medium">Reads from</legend>
      {all.length === 0 && <p className="text-sm text-muted">There is nothing to read from yet: add a source.</p>}
      {all.map((reference) => (
        <label key={reference} className="flex items-center gap-2 text-sm">
          <input
            type="checkbox"
            className="size-4 accent-(--accent)"
            checked={node.from.includes(reference)}
            onChange={(event) =>
              bench.edit([{ kind: event.target.checked ? "connect" : "disconnect", from: reference, to: node.id }])
            }
          />
          {reference}
          {!bench.graph.nodes.some(({ id }) => id === nodeOf(reference)) && (
            <span className="text-bad">is not there</span>
          )}
        </label>
      ))}
      {error && <p className="text-xs text-bad">{error}</p>}
    </fieldset>
  );
}

function Settings({ bench, node, problems }: { bench: Workbench; node: Node; problems: readonly Problem[] }) {
  const [isAll, setAll] = useState(false);
  const component = bench.components.find(({ role, name }) => role === node.role && name === node.component);
  const fields = useMemo(() => (component ? formOf(component.schema) : []), [component]);
  const known = new Set(fields.map(({ key }) => key));
  const unknown = Object.keys(node.keys).filter((key) => !known.has(key) && !RESERVED.has(key));
  const others = unknown.map((key) =>
    text(key, component ? "The component does not know this key." : "", { shape: { kind: "toml" } }),
  );
  const streams = node.role === "source" ? [] : STREAM_FIELDS;
  const wrong = (key: string) => problemsOf(problems, node, key);
  const isShown = ({ key, isRequired }: FormField) =>
    isRequired || Object.hasOwn(node.keys, key) || wrong(key).length > 0;
  const every = [...fields, ...others, ...streams];
  const shown = isAll ? every : every.filter(isShown);
  const hidden = every.length - shown.length;
  return (
    <>
      {shown.map((field) => (
        <SettingField
          key={field.key}
          field={field}
          value={node.keys[field.key]}
          place={`${placeOf(node)}.${field.key}`}
          error={wrong(field.key)
            .map(({ message, hint }) => (hint ? `${message}; ${hint}` : message))
            .join(". ")}
          onChange={(value) =>
            bench.set(
              [...pathOf(node), field.key],
              value,
              // Other code has another hash.
              field.key === "code" && Object.hasOwn(node.keys, "sha256") ? [[...pathOf(node), "sha256"]] : [],
            )
          }
        />
      ))}
      {(hidden > 0 || isAll) && (
        <Button kind="quiet" aria-expanded={isAll} onClick={() => setAll(!isAll)}>
          {isAll ? "Only what is set" : `${hidden} more settings`}
        </Button>
      )}
    </>
  );
}

interface InspectorProps {
  bench: Workbench;
  problems: readonly Problem[];
  onRemoved: () => void;
}

export function Inspector({ bench, problems, onRemoved }: InspectorProps) {
  const { graph, selected } = bench;
  const nodes = graph.nodes.filter(({ id }) => selected.includes(id));
  const [node] = nodes;
  const remove = () => {
    bench.remove(selected);
    onRemoved();
  };
  const actions = (
    <div className="flex gap-2 border-t border-line pt-3">
      <Button onClick={() => bench.paste(bench.clip(selected)) && tell("Copied, with the same settings.")}>
        <Copy aria-hidden="true" />
        Duplicate
      </Button>
      <Button onClick={remove}>
        <Trash2 aria-hidden="true" />
        Delete
      </Button>
    </div>
  );
  if (!node) return <Whole bench={bench} />;
  if (nodes.length > 1) {
    return (
      <section aria-label="Settings" className="flex flex-col gap-3 p-3">
        <h2 className="text-base font-semibold">{nodes.length} nodes</h2>
        <p className="text-sm text-muted">{nodes.map(({ id }) => id).join(", ")}</p>
        {actions}
      </section>
    );
  }
  const whole = problems.filter(({ place }) => place === placeOf(node) || place === `${placeOf(node)}.type`);
  const wrong = (key: string) =>
    problemsOf(problems, node, key)
      .map(({ message }) => message)
      .join(". ") || undefined;
  const component = bench.components.find(({ role, name }) => role === node.role && name === node.component);
  return (
    <section aria-label="Settings" className="flex flex-col gap-4 p-3" key={placeOf(node)} data-place={placeOf(node)}>
      <div>
        <p className="text-xs text-muted">
          {node.role}{" "}
          <TextLink href={`/components/${node.role}/${encodeURIComponent(node.component)}`}>
            {node.component || "no type"}
          </TextLink>
        </p>
        <h2 className="text-base font-semibold break-words">{node.id}</h2>
        {component && <p className="text-sm text-muted">{component.summary}</p>}
      </div>
      {whole.map(({ message, hint }) => (
        <p key={message} className="text-sm text-bad">
          {message}
          {hint && `; ${hint}`}
        </p>
      ))}
      <NameField bench={bench} node={node} />
      <TypeField bench={bench} node={node} />
      <DaemonField bench={bench} node={node} error={wrong("daemon")} />
      {node.role !== "source" && <Inputs bench={bench} node={node} error={wrong("from")} />}
      <Settings bench={bench} node={node} problems={problems} />
      <Suspense>
        <TestConnection bench={bench} node={node} />
      </Suspense>
      {actions}
    </section>
  );
}

/** Nothing is selected: the workflow itself. */
function Whole({ bench }: { bench: Workbench }) {
  return (
    <section aria-label="Settings" className="flex flex-col gap-4 p-3" data-place="name">
      <h2 className="text-base font-semibold">Workflow</h2>
      {bench.name === null ? (
        <Field
          label="Name"
          hint="It cannot be changed once it is deployed."
          error={isName(bench.graph.name) ? undefined : `A name is ${NAME_RULE}.`}
        >
          <Input value={bench.graph.name} onChange={(event) => bench.set(["name"], event.target.value)} />
        </Field>
      ) : (
        <p className="text-sm text-muted">
          {bench.graph.name}, revision {bench.base.revision} when this draft began.
        </p>
      )}
      <div className="flex flex-col gap-1 text-sm text-muted">
        <p>Select a node to change it. Drag from the dot at its side to another node to connect them.</p>
        <p>
          By keyboard: <kbd className="font-mono text-xs">/</kbd> searches what can be added, Enter adds it behind what
          is selected, and its form chooses what it reads from.
        </p>
      </div>
    </section>
  );
}
