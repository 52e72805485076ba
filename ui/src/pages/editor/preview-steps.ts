// What a preview shows of each step, and how it becomes a test. Pure.

import type { RecordShown, Step } from "@/api/types";
import { jsonOf, parseJson } from "@/lib/json";
import { type Graph, nodeOf } from "@/workflow/graph";
import { fromLines, typesOf } from "@/workflow/rows";
import type { Table, Value } from "@/workflow/value";

/** Most records that a daemon tries at a time. */
export const RECORDS_MAX = 100;

/** How many records of a step go on, and what became of the others. */
export function numbers({ came, out, rejected }: Pick<Step, "came" | "out" | "rejected">) {
  // A step may make more of a record than one: then nothing is said to be dropped.
  const dropped = Math.max(0, came - out.length - rejected.length);
  return { came, out: out.length, rejected: rejected.length, dropped };
}

/** What a step got: what its source was given, or what the step before makes of it. */
export function inputOf(step: Pick<Step, "from">, given: Readonly<Record<string, string>>, steps: readonly Step[]) {
  const before = steps.filter(({ node }) => node === step.from);
  if (before.length > 0) return before.flatMap(({ out }) => out);
  const lines = given[nodeOf(step.from)] ?? "";
  if (fromLines(lines).error !== null) return [];
  const written = lines.split("\n").filter((line) => line.trim() !== "");
  return written.map((line) => parseJson(line) as RecordShown);
}

/** The same text for the same columns and values, whatever their order; a column that is not there is null. */
const sameText = (record: RecordShown) =>
  jsonOf(
    Object.entries(record)
      .filter(([, value]) => value !== null)
      .sort(([a], [b]) => (a < b ? -1 : 1)),
  );

/**
 * Which of the records that came did not go on and were not rejected, by their row. Null: nobody can say, as the step makes
 * other records of them, or got more than is known.
 */
export function droppedRows(step: Pick<Step, "came" | "out" | "rejected">, input: readonly RecordShown[]) {
  if (input.length !== step.came) return null;
  const left = new Map<string, number>();
  for (const text of step.out.map(sameText)) left.set(text, (left.get(text) ?? 0) + 1);
  const rejected = new Set(step.rejected.map(({ row }) => row));
  const dropped = input.flatMap((record, row) => {
    const text = sameText(record);
    const times = left.get(text) ?? 0;
    if (rejected.has(row)) return [];
    if (times === 0) return [row];
    left.set(text, times - 1);
    return [];
  });
  return [...left.values()].every((times) => times === 0) ? dropped : null;
}

const rows = (records: readonly Record<string, unknown>[]): Table[] => {
  const parsed = fromLines(records.map(jsonOf).join("\n"));
  return parsed.rows ?? [];
};

/** The test that says: of these records exactly this comes of each destination, and these are rejected. */
export function asTest(graph: Graph, given: Readonly<Record<string, string>>, steps: readonly Step[]): Table {
  const samples = Object.entries(given).flatMap(([source, lines]): [string, Value][] => {
    const parsed = fromLines(lines);
    return parsed.rows && parsed.rows.length > 0 ? [[source, parsed.rows]] : [];
  });
  const types = typesOf(samples.map(([source]) => given[source] ?? ""));
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
    ...(Object.keys(types).length > 0 ? { types } : {}),
    ...(expect.size > 0 ? { expect: Object.fromEntries(expect) } : {}),
    ...(reject.size > 0 ? { reject: Object.fromEntries(reject) } : {}),
  };
}
