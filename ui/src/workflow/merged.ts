// Two graphs of one workflow in one picture: the newer one with what is gone from the older, and how each node differs.

import { difference, type NodeChange } from "./diff";
import type { Graph } from "./graph";

export type Mark = NodeChange["kind"];

export function merged(before: Graph, after: Graph): { graph: Graph; marks: Map<string, Mark> } {
  const marks = new Map<string, Mark>(difference(before, after).nodes.map(({ id, kind }) => [id, kind]));
  const gone = before.nodes.filter(({ id }) => marks.get(id) === "removed");
  const ids = new Set(gone.map(({ id }) => id));
  const known = new Set([...after.nodes.map(({ id }) => id), ...ids]);
  const edges = before.edges.filter(
    ({ from, to }) => (ids.has(from) || ids.has(to)) && known.has(from) && known.has(to),
  );
  return { graph: { ...after, nodes: [...after.nodes, ...gone], edges: [...after.edges, ...edges] }, marks };
}
