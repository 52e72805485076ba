import { describe, expect, it } from "vitest";
import type { NodeView, RunState, WorkflowPart } from "@/api/types";
import { readGraph } from "@/workflow/graph";
import { insideOf, noteOf, partsAt, workOf } from "./nodes";

const part = (daemon: string, state: RunState | null): WorkflowPart => ({
  workflow: "shop",
  daemon,
  revision: 1,
  wanted: 1,
  state,
  cause: "",
});
const PARTS = [part("a", "running"), part("b", "retrying"), part("c", "running"), part("d", null)];

describe("how a node is", () => {
  it.each([
    [["a"], "good", "running"],
    [["a", "c"], "good", "2 running"],
    [["a", "b", "c"], "warn", "1 of 3 retrying"],
    [["d"], "off", "unknown"],
    [["nobody"], "off", "unknown"],
  ])("on %j", (targets, tone, text) => expect(noteOf(partsAt(PARTS, targets))).toEqual({ tone, text }));
});

const node = (id: string, daemon: string, change: Partial<NodeView> = {}): NodeView => ({
  workflow: "shop",
  node: id,
  daemon,
  records: 100,
  bytes: 1_000,
  errors: 1,
  faults: 0,
  batches: 10,
  busy_us: 20_000,
  rate: 5,
  bytes_per_s: 50,
  ...change,
});
const NODES = [
  node("db", "a", { busy_us: 0 }),
  node("db", "b", { busy_us: 0 }),
  node("split", "a"),
  node("hot", "a", { rate: 2 }),
];

it("what it does on all its daemons is one number", () => {
  const work = { records: 200, rate: 10, bytesRate: 100, errors: 2, faults: 0, batchMs: null };
  expect(workOf(NODES, "db")).toEqual(work);
  expect(workOf(NODES, "split")?.batchMs).toBe(2);
  expect(workOf(NODES, "nobody")).toBeNull();
});

describe("what goes over an edge inside of a daemon", () => {
  const { graph } = readGraph(`
[sources.db]
[transforms.split]
from = "db"
[transforms.more]
from = "split.cold"
[destinations.hot]
from = "split.hot"`);
  it.each([
    ["db->split", 10],
    ["split.cold->more", undefined],
    ["split.hot->hot", 2],
  ])("%s", (id, rate) => {
    const edge = graph?.edges.find((each) => each.id === id);
    if (!graph || !edge) throw new Error(`no edge ${id}`);
    expect(insideOf(graph, edge, NODES)?.rate).toBe(rate);
  });
});
