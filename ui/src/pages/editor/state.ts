// The editor's state: text and positions with their history, what is selected, and the draft that is kept of it. Every
// change of the workflow goes through here, whether it was made with the mouse, in a form or in the text.

import { useCallback, useMemo, useReducer, useRef, useState } from "react";
import type { ComponentRole, ComponentView } from "@/api/types";
import { copy, type Edit, freeName, paste, patchAll, pathOf } from "@/workflow/edit";
import { formOf, outputsKey, outputsOf } from "@/workflow/fields";
import { type Graph, graphOf, type Node, placesOf, readGraph, SECTIONS } from "@/workflow/graph";
import { begin, type Layout, type Position, reduce } from "@/workflow/history";
import { arranged, placed, renamedIn } from "@/workflow/layout";
import { retype } from "@/workflow/retype";
import { at, isTable, read, type Table, type Value } from "@/workflow/value";
import type { Beginning, Remote } from "./draft";
import { useKeeping } from "./keeping";

const EMPTY: Graph = graphOf({});
/** What is on the clipboard says by this what it is. */
const CLIPPING = "mycelial/nodes";

/** The settings that a component's own example gives it, without what belongs to that example's place. */
export function exampleKeys(component: Pick<ComponentView, "role" | "name" | "example">): Table {
  const section = at(read(component.example).table ?? {}, [SECTIONS[component.role]]);
  const nodes = isTable(section) ? Object.values(section) : [];
  const found = nodes.find((keys) => isTable(keys) && keys.type === component.name);
  const { from: _, daemon: __, ...keys } = isTable(found) ? found : { type: component.name };
  return keys;
}

/** Whom something new reads from: what is selected, or else the last node that nobody reads. */
function openEnd(graph: Graph, selected: readonly string[]) {
  const may = (id: string) => graph.nodes.some((node) => node.id === id && node.role !== "destination");
  const [only] = selected;
  if (only !== undefined && selected.length === 1 && may(only)) return only;
  return graph.nodes.findLast(({ id }) => may(id) && graph.edges.every(({ from }) => from !== id))?.id;
}

export function useWorkbench(
  name: string | null,
  /** What the plane calls the draft; `null`: it stays in this browser. */
  key: string | null,
  { draft: initial, conflict }: Beginning,
  components: readonly ComponentView[],
  daemons: readonly string[],
) {
  const [history, dispatch] = useReducer(reduce, initial, ({ text, layout }) => begin({ text, layout }));
  const [base, setBase] = useState({ text: initial.base, revision: initial.from });
  const [selected, setSelected] = useState<string[]>([]);
  /** Goes up when the canvas shall show the whole again. */
  const [fit, setFit] = useState(0);
  const showAll = () => setFit((before) => before + 1);
  const { text, layout: known } = history.present;

  const reading = useMemo(() => readGraph(text), [text]);
  const last = useRef(EMPTY);
  if (reading.graph) last.current = reading.graph;
  // A text that cannot be read for the moment is shown as it was before.
  const graph = reading.graph ?? last.current;
  const layout = useMemo(() => placed(graph, known), [graph, known]);
  const outputs = useMemo(() => {
    const keys = new Map(components.map(({ role, name: type, schema }) => [`${role}/${type}`, outputsKey(schema)]));
    return new Map(
      graph.nodes.flatMap((node) => {
        const key = keys.get(`${node.role}/${node.component}`);
        return key ? [[node.id, outputsOf(key, node.keys)] as const] : [];
      }),
    );
  }, [graph, components]);

  const isChanged = text !== base.text;
  // Whoever only looks does not overwrite what was kept before.
  const isTouched = useRef(false);
  if (history.past.length > 0 || history.future.length > 0) isTouched.current = true;
  const keeping = useKeeping({
    name,
    key,
    initial,
    conflict,
    draft: { text, layout: known, from: base.revision, base: base.text },
    isChanged,
    isTouched: isTouched.current,
  });

  const change = useCallback(
    (to: { text?: string; layout?: Layout }, key?: string) =>
      dispatch({ kind: "change", to, atMs: Date.now(), ...(key ? { key } : {}) }),
    [],
  );
  const edit = (edits: readonly Edit[], key?: string) => change({ text: patchAll(text, edits) }, key);

  return {
    name,
    text,
    graph,
    layout,
    outputs,
    components,
    daemons,
    base,
    selected,
    fit,
    isChanged,
    keeping,
    syntax: reading.error,
    canUndo: history.past.length > 0,
    canRedo: history.future.length > 0,
    select: setSelected,
    edit,
    undo: () => dispatch({ kind: "undo" }),
    redo: () => dispatch({ kind: "redo" }),
    write: (to: string) => change({ text: to.replaceAll("\r\n", "\n") }, "source"),
    /** Back to what is deployed: a step of its own, however shortly after a key. */
    discard: () => change({ text: base.text }),
    /** `without`: paths of what is not true of the new value any more. */
    set: (path: readonly string[], value: Value | undefined, without: readonly (readonly string[])[] = []) =>
      edit(
        [
          value === undefined ? { kind: "unset", path } : { kind: "set", path, value },
          ...without.map((path): Edit => ({ kind: "unset", path })),
        ],
        `set ${path.join(".")}`,
      ),
    /** `at`: where it was put down; without, it is joined to what is there. */
    add: (component: { role: ComponentRole; name: string; example: string }, spot?: Position) => {
      const id = freeName(
        graph.nodes.map((node) => node.id),
        component.name,
      );
      const from = spot || component.role === "source" ? undefined : openEnd(graph, selected);
      const reference = from && (outputs.get(from)?.[0] ? `${from}.${outputs.get(from)?.[0]}` : from);
      const near = from ? placesOf(graph).get(from) : graph.nodes[0]?.daemon;
      const { type = component.name, ...rest } = exampleKeys(component);
      const keys: Table = {
        type,
        ...(component.role === "transform" ? {} : { daemon: near || daemons[0] || "gateway" }),
        ...(reference ? { from: reference } : {}),
        ...rest,
      };
      const next = patchAll(text, [{ kind: "add", role: component.role, id, keys }]);
      change({ text: next, ...(spot ? { layout: { ...layout, [id]: spot } } : { layout }) });
      setSelected([id]);
      if (!spot) showAll();
      return id;
    },
    remove: (ids: readonly string[], edges: readonly [string, string][] = []) => {
      if (ids.length === 0 && edges.length === 0) return;
      const cuts = edges.map(([from, to]): Edit => ({ kind: "disconnect", from, to }));
      edit([...cuts, ...(ids.length > 0 ? [{ kind: "delete", ids } as const] : [])]);
      setSelected((before) => before.filter((id) => !ids.includes(id)));
    },
    rename: (id: string, to: string) => {
      change({ text: patchAll(text, [{ kind: "rename", id, to }]), layout: renamedIn(layout, id, to) });
      setSelected([to]);
    },
    retype: (node: Node, type: string) => {
      const component = components.find(({ role, name }) => role === node.role && name === type);
      if (!component) return;
      const known = new Set(formOf(component.schema).map((field) => field.key));
      edit(retype(pathOf(node), node.keys, type, known, exampleKeys(component)));
    },
    move: (positions: Layout, key?: string) => change({ layout: { ...layout, ...positions } }, key),
    arrange: () => {
      change({ layout: arranged(graph) });
      showAll();
    },
    clip: (ids: readonly string[]) => {
      const clipping = { kind: CLIPPING, ...copy(graph, ids) };
      return JSON.stringify(clipping, (_, value: unknown) =>
        typeof value === "bigint" ? { bigint: String(value) } : value,
      );
    },
    paste: (clipping: string) => {
      const found = unclip(clipping);
      if (!found) return false;
      const { edits, names } = paste(graph, found);
      const offset = { ...layout };
      for (const [was, is] of names) {
        const spot = layout[was];
        if (spot) offset[is] = { x: spot.x + 32, y: spot.y + 84 };
      }
      change({ text: patchAll(text, edits), layout: offset });
      setSelected([...names.values()]);
      showAll();
      return true;
    },
    /** Begins anew, from what is deployed. */
    restart: (to: { text: string; revision: number }) => {
      setBase(to);
      dispatch({ kind: "reset", to: { text: to.text, layout: {} } });
      setSelected([]);
    },
    /** Goes on with the draft that somebody else kept. */
    adopt: (theirs: Remote) => {
      setBase({ text: theirs.base, revision: theirs.from });
      change({ text: theirs.text, layout: theirs.layout });
      keeping.taken();
    },
  };
}

function unclip(text: string) {
  try {
    const value = JSON.parse(text, (_, each: unknown) => {
      const number = typeof each === "object" && each !== null && "bigint" in each ? each.bigint : undefined;
      return typeof number === "string" ? BigInt(number) : each;
    }) as { kind?: string; nodes?: { id: string; role: ComponentRole; keys: Table }[] };
    return value.kind === CLIPPING && Array.isArray(value.nodes) ? { nodes: value.nodes } : null;
  } catch {
    return null;
  }
}

export type Workbench = ReturnType<typeof useWorkbench>;
