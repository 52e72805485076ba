// What can be done to a workflow, as changes of its text. `applyTo` says what the same change means to the parsed table, so
// that tests can hold one against the other.

import type { ComponentRole } from "@/api/types";
import { fromOf, type Graph, graphOf, type Node, nodeOf, ROLES, SECTIONS } from "./graph";
import { appendSection, type Path, remove, replace, set } from "./patch";
import { scan, stringsIn } from "./scan";
import { at, isTable, read, type Table, type Value, withAt, write, writeKey } from "./value";

export type Edit =
  | { kind: "set"; path: Path; value: Value }
  | { kind: "unset"; path: Path }
  | { kind: "add"; role: ComponentRole; id: string; keys: Table }
  | { kind: "delete"; ids: readonly string[] }
  | { kind: "rename"; id: string; to: string }
  | { kind: "connect"; from: string; to: string }
  | { kind: "disconnect"; from: string; to: string };

/** As the plane has it. */
const NAME = /^[a-z0-9][a-z0-9_-]{0,31}$/;
export const NAME_RULE = "1 to 32 of a-z, 0-9, _ and -, beginning with a letter or a digit";
export const isName = (name: string) => NAME.test(name);

/** The name, or the next one with a number that is not taken. */
export function freeName(taken: Iterable<string>, wish: string) {
  const names = new Set(taken);
  const base =
    wish
      .toLowerCase()
      .replace(/[^a-z0-9_-]+/g, "-")
      .replace(/^[^a-z0-9]+/, "")
      .slice(0, 32) || "node";
  if (!names.has(base)) return base;
  for (let number = 2; ; number += 1) {
    const suffix = `-${number}`;
    const name = base.replace(/-\d+$/, "").slice(0, 32 - suffix.length) + suffix;
    if (!names.has(name)) return name;
  }
}

export const pathOf = (node: Pick<Node, "id" | "role">): string[] => [SECTIONS[node.role], node.id];

const nodeIn = (graph: Graph, id: string) => graph.nodes.find((node) => node.id === id);

/** As one writes it: a single input is a text. */
const fromValue = (from: readonly string[]): Value => (from.length === 1 ? (from[0] ?? "") : [...from]);

const LISTS = ["given", "expect", "reject"];
const isTestKey = (path: Path) => path.length === 4 && path[0] === "tests" && LISTS.includes(path[2] ?? "");
const isOf = (reference: string, id: string) => nodeOf(reference) === id;
const renamed = (reference: string, id: string, to: string) =>
  isOf(reference, id) ? to + reference.slice(id.length) : reference;

const tableIn = (text: string) => read(text).table ?? {};

function setFrom(text: string, graph: Graph, id: string, from: readonly string[]) {
  const node = nodeIn(graph, id);
  if (!node) return text;
  const path = [...pathOf(node), "from"];
  return from.length === 0 ? remove(text, path) : set(text, path, fromValue(from));
}

function deleteNodes(text: string, ids: readonly string[]) {
  let out = text;
  for (const id of ids) {
    const node = nodeIn(graphOf(tableIn(out)), id);
    if (node) out = remove(out, pathOf(node));
  }
  // Whoever read from what is gone reads from it no more.
  const graph = graphOf(tableIn(out));
  for (const node of graph.nodes) {
    const rest = node.from.filter((from) => !ids.includes(nodeOf(from)));
    if (rest.length < node.from.length) out = setFrom(out, graph, node.id, rest);
  }
  return out;
}

function rename(text: string, id: string, to: string) {
  const node = nodeIn(graphOf(tableIn(text)), id);
  if (!node) return text;
  const own = pathOf(node);
  const changes: { start: number; end: number; by: string }[] = [];
  const rewrite: Path[] = [];
  for (const block of scan(text)) {
    const above = block.header?.path ?? [];
    const parts = block.header ? [{ offset: 0, parts: block.header.parts }] : [];
    for (const key of block.keys) parts.push({ offset: above.length, parts: key.parts });
    for (const { offset, parts: keys } of parts) {
      const path = [...above.slice(0, offset), ...keys.map(({ key }) => key)];
      keys.forEach((part, index) => {
        const depth = offset + index + 1;
        const here = path.slice(0, depth);
        const isNode = depth === 2 && here[0] === own[0] && here[1] === id;
        const isTest = isTestKey(here) && isOf(part.key, id);
        if (isNode || isTest) changes.push({ ...part, by: writeKey(renamed(part.key, id, to)) });
      });
    }
    for (const key of block.keys) {
      const [section, , last] = key.path;
      if (key.path.length === 3 && last === "from" && section !== "tests") {
        for (const found of stringsIn(text, key.value)) {
          if (isOf(found.key, id)) changes.push({ ...found, by: write(renamed(found.key, id, to)) });
        }
      } else if (key.path.length < 3 || (section === "tests" && key.path.length < 4)) rewrite.push(key.path);
    }
  }
  // From behind, so that what is left to change stays where it is.
  changes.sort((a, b) => b.start - a.start);
  let out = changes.reduce((all, { start, end, by }) => replace(all, start, end, by), text);
  // What is written in braces is written anew.
  const wanted = applyTo({ kind: "rename", id, to }, tableIn(text));
  for (const path of rewrite) {
    const moved = path.map((key, index) => (index === 1 && path[0] === own[0] && key === id ? to : key));
    const value = at(wanted, moved);
    if (value !== undefined && isTable(value)) out = set(out, moved, value);
  }
  return out;
}

/** The text after an edit. A text that cannot be read stays as it is. */
export function patch(text: string, edit: Edit): string {
  const { table } = read(text);
  if (!table) return text;
  const graph = graphOf(table);
  switch (edit.kind) {
    case "set":
      return set(text, edit.path, edit.value);
    case "unset":
      return remove(text, edit.path);
    case "add":
      return appendSection(text, [SECTIONS[edit.role], edit.id], edit.keys);
    case "delete":
      return deleteNodes(text, edit.ids);
    case "rename":
      return rename(text, edit.id, edit.to);
    case "connect":
    case "disconnect": {
      const node = nodeIn(graph, edit.to);
      if (!node || node.role === "source") return text;
      return setFrom(text, graph, node.id, inputsAfter(node.from, edit));
    }
  }
}

function inputsAfter(from: readonly string[], edit: { kind: "connect" | "disconnect"; from: string }) {
  const others = from.filter((each) => each !== edit.from);
  if (edit.kind === "disconnect") return others;
  return from.includes(edit.from) ? [...from] : [...others, edit.from];
}

function mapNodes(table: Table, change: (node: Node) => Table): Table {
  let out = table;
  for (const node of graphOf(table).nodes) out = withAt(out, pathOf(node), change(node));
  return out;
}

const withFrom = (keys: Table, from: readonly string[]) =>
  withAt(keys, ["from"], from.length === 0 ? undefined : fromValue(from));

/** What an edit means to the parsed text. */
export function applyTo(edit: Edit, table: Table): Table {
  switch (edit.kind) {
    case "set":
      return withAt(table, edit.path, edit.value);
    case "unset":
      return withAt(table, edit.path, undefined);
    case "add":
      return withAt(table, [SECTIONS[edit.role], edit.id], edit.keys);
    case "connect":
    case "disconnect": {
      const node = nodeIn(graphOf(table), edit.to);
      if (!node || node.role === "source") return table;
      return withAt(table, pathOf(node), withFrom(node.keys, inputsAfter(node.from, edit)));
    }
    case "delete": {
      let out = table;
      for (const id of edit.ids) {
        const node = nodeIn(graphOf(out), id);
        if (node) out = withAt(out, pathOf(node), undefined);
      }
      return mapNodes(out, ({ keys, from }) => {
        const rest = from.filter((each) => !edit.ids.includes(nodeOf(each)));
        return rest.length < from.length ? withFrom(keys, rest) : keys;
      });
    }
    case "rename":
      return nodeIn(graphOf(table), edit.id) ? renameIn(table, edit.id, edit.to) : table;
  }
}

const renameKeys = (table: Table, id: string, to: string): Table =>
  Object.fromEntries(Object.entries(table).map(([key, value]) => [renamed(key, id, to), value]));

function renameIn(table: Table, id: string, to: string): Table {
  let out = mapNodes(table, ({ keys }) => {
    if (typeof keys.from === "string") return { ...keys, from: renamed(keys.from, id, to) };
    if (!Array.isArray(keys.from)) return keys;
    return { ...keys, from: keys.from.map((each) => (typeof each === "string" ? renamed(each, id, to) : each)) };
  });
  for (const role of ROLES) {
    const section = out[SECTIONS[role]];
    if (!isTable(section) || !Object.hasOwn(section, id)) continue;
    const entries = Object.entries(section).map(([key, value]) => [key === id ? to : key, value] as const);
    out = { ...out, [SECTIONS[role]]: Object.fromEntries(entries) };
  }
  if (!isTable(out.tests)) return out;
  const tests = Object.entries(out.tests).map(([name, test]) => {
    if (!isTable(test)) return [name, test] as const;
    const lists = Object.entries(test).map(([list, value]) => {
      return [list, LISTS.includes(list) && isTable(value) ? renameKeys(value, id, to) : value] as const;
    });
    return [name, Object.fromEntries(lists)] as const;
  });
  return { ...out, tests: Object.fromEntries(tests) };
}

/** Nodes taken along, to be put down here or elsewhere. */
export interface Clipping {
  nodes: { id: string; role: ComponentRole; keys: Table }[];
}

export const copy = (graph: Graph, ids: readonly string[]): Clipping => ({
  nodes: graph.nodes.filter(({ id }) => ids.includes(id)).map(({ id, role, keys }) => ({ id, role, keys })),
});

/** The edits that put copies down, under names that are free; copies read from copies where both were taken along. */
export function paste(graph: Graph, { nodes }: Clipping): { edits: Edit[]; names: Map<string, string> } {
  const taken = graph.nodes.map(({ id }) => id);
  const names = new Map<string, string>();
  for (const { id } of nodes) {
    const name = freeName([...taken, ...names.values()], id);
    names.set(id, name);
  }
  const known = new Set(taken);
  const edits = nodes.map(({ id, role, keys }): Edit => {
    const from = fromOf(keys.from)
      .filter((each) => names.has(nodeOf(each)) || known.has(nodeOf(each)))
      .map((each) => renamed(each, nodeOf(each), names.get(nodeOf(each)) ?? nodeOf(each)));
    const own = role === "source" ? keys : withFrom(keys, from);
    return { kind: "add", role, id: names.get(id) ?? id, keys: own };
  });
  return { edits, names };
}

export const patchAll = (text: string, edits: readonly Edit[]) => edits.reduce(patch, text);
