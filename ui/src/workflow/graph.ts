// A workflow as a graph, read from its text. The text is the truth: nothing here is stored.

import type { ComponentRole } from "@/api/types";
import { isTable, read, type Table, type Value } from "./value";

export const SECTIONS = { source: "sources", transform: "transforms", destination: "destinations" } as const;
export const ROLES = Object.keys(SECTIONS) as ComponentRole[];

/** Keys of a node that belong to no component. */
export const RESERVED: ReadonlySet<string> = new Set(["type", "daemon", "from", "spool", "send"]);

export interface Node {
  id: string;
  role: ComponentRole;
  component: string;
  /** Where it runs; empty: where its input is. */
  daemon: string;
  /** Whose records it takes: a node, or one of its outputs with a dot. */
  from: string[];
  /** All its keys, as they stand there. */
  keys: Table;
}

export interface Edge {
  /** As the ledger names it. */
  id: string;
  from: string;
  /** The named output; empty: there is only one. */
  output: string;
  to: string;
}

export interface Graph {
  name: string;
  nodes: Node[];
  edges: Edge[];
  /** Names of its tests. */
  tests: string[];
  table: Table;
}

const text = (value: Value | undefined) => (typeof value === "string" ? value : "");

export function fromOf(value: Value | undefined): string[] {
  if (typeof value === "string") return value === "" ? [] : [value];
  return Array.isArray(value) ? value.filter((each) => typeof each === "string") : [];
}

/** The node of `split.hot`, which is `split`. */
export const nodeOf = (reference: string) => reference.split(".")[0] ?? "";
const outputOf = (reference: string) => reference.split(".").slice(1).join(".");

export function graphOf(table: Table): Graph {
  const nodes = ROLES.flatMap((role) => {
    const section = table[SECTIONS[role]];
    if (!isTable(section)) return [];
    return Object.entries(section).flatMap(([id, keys]): Node[] => {
      if (!isTable(keys)) return [];
      const from = role === "source" ? [] : fromOf(keys.from);
      return [{ id, role, component: text(keys.type), daemon: text(keys.daemon), from, keys }];
    });
  });
  const known = new Set(nodes.map(({ id }) => id));
  const edges = nodes.flatMap((node) =>
    [...new Set(node.from)]
      .filter((from) => known.has(nodeOf(from)))
      .map((from) => ({ id: `${from}->${node.id}`, from: nodeOf(from), output: outputOf(from), to: node.id })),
  );
  const tests = isTable(table.tests) ? Object.keys(table.tests) : [];
  return { name: text(table.name), nodes, edges, tests, table };
}

export type Reading = { graph: Graph; error: null } | { graph: null; error: { message: string; line: number } };

export function readGraph(source: string): Reading {
  const { table, error } = read(source);
  return table ? { graph: graphOf(table), error: null } : { graph: null, error };
}

/** Where each node runs: its own daemon, or its first input's. */
export function placesOf(graph: Graph): Map<string, string> {
  const nodes = new Map(graph.nodes.map((node) => [node.id, node]));
  const places = new Map<string, string>();
  const find = (id: string, seen: Set<string>): string => {
    const node = nodes.get(id);
    if (!node || seen.has(id)) return "";
    const found = node.daemon || find(nodeOf(node.from[0] ?? ""), new Set([...seen, id]));
    places.set(id, found);
    return found;
  };
  for (const { id } of graph.nodes) find(id, new Set());
  return places;
}

/** Whether `to` may read from `from`: sources read nothing, nothing reads destinations, and nothing goes in circles. */
export function canConnect(graph: Graph, from: string, to: string): boolean {
  const source = graph.nodes.find(({ id }) => id === from);
  const target = graph.nodes.find(({ id }) => id === to);
  if (!source || !target || from === to || source.role === "destination" || target.role === "source") return false;
  const behind = [to];
  for (const id of behind) {
    if (id === from) return false;
    for (const edge of graph.edges) if (edge.from === id && !behind.includes(edge.to)) behind.push(edge.to);
  }
  return true;
}
