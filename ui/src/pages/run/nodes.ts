// What nodes do: on which daemons each runs, how it is there, and how much goes through it. Pure.

import type { NodeView, WorkflowPart } from "@/api/types";
import type { Tone } from "@/components/status";
import { number } from "@/lib/format";
import type { Edge, Graph, Node } from "@/workflow/graph";
import { toneOf } from "./streams";

/** What is worse, first. */
const WORST: readonly Tone[] = ["bad", "warn", "off", "good"];
const rank = ({ state }: WorkflowPart) => WORST.indexOf(toneOf(state));

/** The parts of the daemons that a place stands for, the worst first. */
export function partsAt(parts: readonly WorkflowPart[], targets: readonly string[]): WorkflowPart[] {
  const there = new Set(targets);
  return parts.filter(({ daemon }) => there.has(daemon)).sort((a, b) => rank(a) - rank(b));
}

/** How a node is, in a word or two: of several daemons, the worst of them. */
export function noteOf(parts: readonly WorkflowPart[]): { tone: Tone; text: string } {
  const [worst] = parts;
  if (!worst) return { tone: "off", text: "unknown" };
  const text = worst.state ?? "unknown";
  const tone = toneOf(worst.state);
  if (parts.length === 1) return { tone, text };
  const found = parts.filter(({ state }) => state === worst.state).length;
  return {
    tone,
    text: found === parts.length ? `${number(found)} ${text}` : `${number(found)} of ${number(parts.length)} ${text}`,
  };
}

export interface Work {
  records: number;
  rate: number;
  bytesRate: number;
  errors: number;
  faults: number;
  /** For one batch, on average, in milliseconds; `null`: it has had none, or is not timed. */
  batchMs: number | null;
}

/** What a node does on all of its daemons together; `null`: none has said. */
export function workOf(nodes: readonly NodeView[], id: string): Work | null {
  const found = nodes.filter(({ node }) => node === id);
  if (found.length === 0) return null;
  const sum = (value: (each: NodeView) => number) => found.reduce((total, each) => total + value(each), 0);
  const [busy, batches] = [sum(({ busy_us }) => busy_us), sum((each) => each.batches)];
  return {
    records: sum(({ records }) => records),
    rate: sum(({ rate }) => rate),
    bytesRate: sum(({ bytes_per_s }) => bytes_per_s),
    errors: sum(({ errors }) => errors),
    faults: sum(({ faults }) => faults),
    batchMs: busy === 0 || batches === 0 ? null : busy / batches / 1_000,
  };
}

/**
 * What goes over an edge inside of a daemon, as far as its nodes tell: what leaves the one goes to the other. Of one output of
 * several that is known only where it is all that a destination gets.
 */
export function insideOf(graph: Pick<Graph, "nodes">, edge: Edge, nodes: readonly NodeView[]): Work | null {
  if (edge.output === "") return workOf(nodes, edge.from);
  const isAll = ({ id, role, from }: Node) => id === edge.to && role === "destination" && from.length === 1;
  return graph.nodes.some(isAll) ? workOf(nodes, edge.to) : null;
}
