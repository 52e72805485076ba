// Where nodes stand on the canvas: as somebody put them, or by rows from left to right. Not part of the text.

import { layout as arrange, Graph as Dagre } from "@dagrejs/dagre";
import type { Graph } from "./graph";
import type { Layout, Position } from "./history";

export const NODE_WIDTH = 196;
export const NODE_HEIGHT = 60;
/** What an edge says about its stream fits between two nodes. */
const GAP_X = 160;
const GAP_Y = 28;
/** The same where edges go down: some lines, one below the other. */
const GAP_DOWN = 112;

/** All of them in order, from what is read to what is written: to the right, or down. */
export function arranged(graph: Pick<Graph, "nodes" | "edges">, isDown = false): Layout {
  const dagre = new Dagre();
  dagre.setGraph(
    isDown ? { rankdir: "TB", ranksep: GAP_DOWN, nodesep: GAP_Y } : { rankdir: "LR", ranksep: GAP_X, nodesep: GAP_Y },
  );
  dagre.setDefaultEdgeLabel(() => ({}));
  for (const { id } of graph.nodes) dagre.setNode(id, { width: NODE_WIDTH, height: NODE_HEIGHT });
  for (const { from, to } of graph.edges) dagre.setEdge(from, to);
  arrange(dagre);
  const layout: Record<string, Position> = {};
  for (const { id } of graph.nodes) {
    const { x = 0, y = 0 } = dagre.node(id) as Partial<Position>;
    layout[id] = { x: Math.round(x - NODE_WIDTH / 2), y: Math.round(y - NODE_HEIGHT / 2) };
  }
  return layout;
}

const overlaps = (a: Position, b: Position) => Math.abs(a.x - b.x) < NODE_WIDTH && Math.abs(a.y - b.y) < NODE_HEIGHT;

/** A place for every node: what has one keeps it, and what is new stands behind its input where there is room. */
export function placed(graph: Pick<Graph, "nodes" | "edges">, known: Layout): Layout {
  const missing = graph.nodes.filter(({ id }) => !known[id]);
  if (missing.length === 0) return known;
  if (missing.length === graph.nodes.length) return arranged(graph);
  const layout: Record<string, Position> = { ...known };
  for (const { id } of missing) {
    const input = graph.edges.find(({ from, to }) => to === id && layout[from]);
    const before = input && layout[input.from];
    const all = Object.values(layout);
    const spot = before
      ? { x: before.x + NODE_WIDTH + GAP_X, y: before.y }
      : { x: Math.min(...all.map(({ x }) => x)), y: Math.max(...all.map(({ y }) => y)) + NODE_HEIGHT + GAP_Y };
    while (Object.values(layout).some((each) => overlaps(each, spot))) spot.y += NODE_HEIGHT + GAP_Y;
    layout[id] = spot;
  }
  return layout;
}

/** Under another name, where it was. */
export function renamedIn(layout: Layout, id: string, to: string): Layout {
  const { [id]: position, ...rest } = layout;
  return position ? { ...rest, [to]: position } : layout;
}
