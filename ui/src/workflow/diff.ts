// What is different between two texts of a workflow, in terms of nodes and their settings. Comments, order and how values
// are written make no difference.

import type { ComponentRole } from "@/api/types";
import { type Graph, placesOf } from "./graph";
import { isTable, same, type Table, type Value } from "./value";

export interface FieldChange {
  /** With dots: `csv.header`. */
  field: string;
  /** `undefined`: it was not there. */
  before: Value | undefined;
  after: Value | undefined;
}

export interface NodeChange {
  id: string;
  role: ComponentRole;
  kind: "added" | "removed" | "changed";
  component: string;
  fields: FieldChange[];
}

export interface Difference {
  nodes: NodeChange[];
  /** Names of tests that came, went or changed. */
  tests: string[];
  /** Daemons that have something else to do, in the order of the alphabet. */
  daemons: string[];
}

export function fieldChanges(before: Table, after: Table, prefix = ""): FieldChange[] {
  const keys = [...new Set([...Object.keys(before), ...Object.keys(after)])];
  return keys.flatMap((key) => {
    const [a, b] = [before[key], after[key]];
    if (same(a, b)) return [];
    if (isTable(a) && isTable(b)) return fieldChanges(a, b, `${prefix}${key}.`);
    return [{ field: prefix + key, before: a, after: b }];
  });
}

export function difference(before: Graph, after: Graph): Difference {
  const old = new Map(before.nodes.map((node) => [node.id, node]));
  const nodes: NodeChange[] = [];
  for (const node of after.nodes) {
    const was = old.get(node.id);
    const { id, role, component } = node;
    if (!was || was.role !== role) nodes.push({ id, role, kind: "added", component, fields: [] });
    else {
      const fields = fieldChanges(was.keys, node.keys);
      if (fields.length > 0) nodes.push({ id, role, kind: "changed", component, fields });
    }
  }
  for (const { id, role, component } of before.nodes) {
    const is = after.nodes.find((node) => node.id === id);
    if (!is || is.role !== role) nodes.push({ id, role, kind: "removed", component, fields: [] });
  }
  const tables = [before.table.tests, after.table.tests].map((tests) => (isTable(tests) ? tests : {}));
  const [a = {}, b = {}] = tables;
  const tests = [...new Set([...Object.keys(a), ...Object.keys(b)])].filter((name) => !same(a[name], b[name]));
  return { nodes, tests, daemons: affected(before, after, nodes) };
}

/** Where changed nodes ran, where they run, and who sends to them or reads from them. */
function affected(before: Graph, after: Graph, changes: NodeChange[]) {
  const changed = new Set(changes.map(({ id }) => id));
  const daemons = new Set<string>();
  for (const graph of [before, after]) {
    const places = placesOf(graph);
    const touched = new Set(changed);
    for (const { from, to } of graph.edges) {
      if (changed.has(from)) touched.add(to);
      if (changed.has(to)) touched.add(from);
    }
    for (const id of touched) daemons.add(places.get(id) ?? "");
  }
  daemons.delete("");
  return [...daemons].sort();
}
