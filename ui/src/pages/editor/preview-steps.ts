// What a preview shows of each step, and how it becomes a test. Pure.

import type { Step } from "@/api/types";
import type { Graph } from "@/workflow/graph";
import { fromLines } from "@/workflow/rows";
import type { Table, Value } from "@/workflow/value";

/** Most records that a daemon tries at a time. */
export const RECORDS_MAX = 100;

/** How many records of a step go on, and what became of the others. */
export function numbers({ came, out, rejected }: Pick<Step, "came" | "out" | "rejected">) {
  // A step may make more of a record than one: then nothing is said to be dropped.
  const dropped = Math.max(0, came - out.length - rejected.length);
  return { came, out: out.length, rejected: rejected.length, dropped };
}

const rows = (records: readonly Record<string, unknown>[]): Table[] => {
  const parsed = fromLines(records.map((record) => JSON.stringify(record)).join("\n"));
  return parsed.rows ?? [];
};

/** The test that says: of these records exactly this comes of each destination, and these are rejected. */
export function asTest(graph: Graph, given: Readonly<Record<string, string>>, steps: readonly Step[]): Table {
  const samples = Object.entries(given).flatMap(([source, lines]): [string, Value][] => {
    const parsed = fromLines(lines);
    return parsed.rows && parsed.rows.length > 0 ? [[source, parsed.rows]] : [];
  });
  const isDestination = (id: string) => graph.nodes.some((node) => node.id === id && node.role === "destination");
  const expect = new Map<string, Table[]>();
  const reject = new Map<string, string[]>();
  for (const { node, out, rejected } of steps) {
    if (isDestination(node)) expect.set(node, [...(expect.get(node) ?? []), ...rows(out)]);
    else if (rejected.length > 0) {
      reject.set(node, [...(reject.get(node) ?? []), ...rejected.map(({ reason }) => reason)]);
    }
  }
  return {
    given: Object.fromEntries(samples),
    ...(expect.size > 0 ? { expect: Object.fromEntries(expect) } : {}),
    ...(reject.size > 0 ? { reject: Object.fromEntries(reject) } : {}),
  };
}
