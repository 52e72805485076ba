import { expect, it } from "vitest";
import type { Step } from "@/api/types";
import { readGraph } from "@/workflow/graph";
import { asTest, numbers } from "./preview-steps";

const step = (node: string, came: number, out: Step["out"], rejected: Step["rejected"] = []): Step => ({
  node,
  from: "db",
  came,
  out,
  rejected,
});

it("what came is what goes on, is dropped or rejected", () => {
  expect(numbers(step("large", 5, [{}, {}], [{ row: 4, reason: "no number" }]))).toEqual({
    came: 5,
    out: 2,
    rejected: 1,
    dropped: 2,
  });
  // Something that makes several of one.
  expect(numbers(step("split", 1, [{}, {}, {}])).dropped).toBe(0);
});

it("a preview becomes a test", () => {
  const { graph } = readGraph(`name = "shop"
[sources.db]
type = "sqlite"
daemon = "a"
[transforms.large]
type = "filter"
from = "db"
[destinations.out]
type = "file"
daemon = "a"
from = "large"
`);
  if (!graph) throw new Error("it is TOML");
  const steps = [
    step("large", 2, [{ id: 2 }], [{ row: 0, reason: "no number" }]),
    step("out", 1, [{ id: 2, note: null }]),
  ];
  expect(asTest(graph, { db: '{ "id": 1 }\n{ "id": 2 }', other: "" }, steps)).toEqual({
    given: { db: [{ id: 1n }, { id: 2n }] },
    expect: { out: [{ id: 2n, note: {} }] },
    reject: { large: ["no number"] },
  });
});
