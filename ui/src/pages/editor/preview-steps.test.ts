import { expect, it } from "vitest";
import type { Step } from "@/api/types";
import { readGraph } from "@/workflow/graph";
import { asTest, droppedRows, inputOf, numbers } from "./preview-steps";

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

it.each([
  ["which are not let through", [{ n: 1 }, { n: 3 }, { n: 2 }], [{ n: 3 }], [], [0, 2]],
  ["one of two that are alike", [{ n: 1 }, { n: 1 }], [{ n: 1 }], [], [1]],
  [
    "columns in another order, and null for what is not there",
    [{ a: 1, b: 2 }, { a: 3 }],
    [{ b: null, a: 3 }],
    [],
    [0],
  ],
  ["not what was rejected", [{ n: 1 }, { n: 2 }], [], [{ row: 1, reason: "no" }], [0]],
  ["nobody knows of what was made anew", [{ n: 1 }, { n: 2 }], [{ m: 2 }], [], null],
] as const)("dropped: %s", (_, input, out, rejected, expected) =>
  expect(droppedRows(step("large", input.length, [...out], [...rejected]), input)).toEqual(expected),
);

it("a step gets what was given, or what the step before makes", () => {
  const given = { db: '{ "n": 1 }\n\n{ "n": { "deep": 2 } }\n' };
  const first = step("large", 2, [{ n: 1 }]);
  const second = { ...step("out", 1, []), from: "large" };
  expect(inputOf(first, given, [first, second])).toEqual([{ n: 1 }, { n: { deep: 2 } }]);
  expect(inputOf(second, given, [first, second])).toEqual([{ n: 1 }]);
  expect(inputOf(first, { db: "nonsense" }, [first])).toEqual([]);
});

it("numbers past 2^53 are told apart, and stay what they are", () => {
  const [one, two] = [9007199254740993n, 9007199254740992n];
  expect(inputOf(step("large", 1, []), { db: `{"id": ${one}}` }, [])).toEqual([{ id: one }]);
  expect(droppedRows(step("large", 2, [{ id: one }]), [{ id: one }, { id: two }])).toEqual([1]);
  const { graph } = readGraph('[destinations.out]\ntype = "file"\ndaemon = "a"\nfrom = "db"\n');
  if (!graph) throw new Error("it is TOML");
  expect(asTest(graph, { db: `{"id": ${one}}` }, [step("out", 1, [{ id: one }])])).toEqual({
    given: { db: [{ id: one }] },
    expect: { out: [{ id: one }] },
  });
});

it("a number that TOML has none for is given in its type", () => {
  const { graph } = readGraph('[destinations.out]\ntype = "file"\ndaemon = "a"\nfrom = "db"\n');
  if (!graph) throw new Error("it is TOML");
  const id = 18446744073709551615n;
  const test = asTest(graph, { db: `{"id": ${id}}\n{"id": 1}`, broken: "{" }, [step("out", 2, [{ id }, { id: 1 }])]);
  expect(test).toEqual({
    given: { db: [{ id: String(id) }, { id: 1n }] },
    types: { id: "u64" },
    expect: { out: [{ id: String(id) }, { id: 1n }] },
  });
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
