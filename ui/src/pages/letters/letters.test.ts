import { expect, it } from "vitest";
import { causes, changes, cliOf, cliToMend, sum, told, typedOf } from "./letters";

const columns = [{ name: "id" }, { name: "note" }, { name: "more" }];
const record = { id: 7, note: null, more: { a: 1 } };
const typed = (change: Record<string, Partial<ReturnType<typeof typedOf>>>) =>
  new Map(
    Object.entries(record).map(([name, value]) => [name, { ...typedOf(value), ...(change[name] ?? {}) }] as const),
  );

it.each([
  [{}, {}],
  [{ id: { text: "8" } }, { id: "8" }],
  [{ id: { isNull: true } }, { id: null }],
  [{ note: { isNull: false } }, { note: "" }],
  [{ note: { text: "not seen" } }, {}],
  [{ more: { text: "{}" } }, { more: "{}" }],
])("%j changes %j", (change, expected) => expect(changes(columns, record, typed(change))).toEqual(expected));

it("a large number stays what it is", () => {
  expect(typedOf(9007199254740993n).text).toBe("9007199254740993");
  expect(typedOf([18446744073709551615n]).text).toBe("[18446744073709551615]");
});

it("says what came of it", () => {
  expect(told({ letters: 1, doubtful: 0, notes: [] }, "tried again")).toBe("1 letter is tried again.");
  expect(told({ letters: 3, doubtful: 1, notes: ["Its workflow is not planned."] }, "forgotten")).toBe(
    "3 letters are forgotten; 1 letter in doubt was left. Its workflow is not planned.",
  );
});

it("several daemons come to one sentence", () => {
  const done = (letters: number, notes: string[]) => ({ letters, doubtful: 1, notes });
  expect(sum([done(1, ["a"]), done(2, ["a", "b"])])).toEqual({ letters: 3, doubtful: 2, notes: ["a", "b"] });
});

it("one cause is one, whatever the record was", () => {
  const died = (row: number) => ({ node: "out", reason: `violates "sane" (Failing row contains (${row}, it's).)` });
  expect(causes([died(5), died(61)])).toEqual([{ ...died(5), letters: 2 }]);
});

const at = (daemon: string, ids: number[]) => ({ daemon, workflow: "shop", ids });

it.each([
  ["all of one daemon", [at("hub", [])], "mycelial dlq purge --all --workflow shop --daemon hub"],
  [
    "all of those that are shown, and no others",
    [at("hub", []), at("gateway", [])],
    "mycelial dlq purge --all --workflow shop --daemon hub\nmycelial dlq purge --all --workflow shop --daemon gateway",
  ],
  ["some", [at("hub", [1, 2]), at("gateway", [7])], "mycelial dlq purge hub/shop/1 hub/shop/2 gateway/shop/7"],
])("the same on the command line: %s", (_, places, command) => expect(cliOf("purge", places)).toBe(command));

it("no command names hundreds of letters", () =>
  expect(
    cliOf("replay", [
      at(
        "hub",
        Array.from({ length: 21 }, (_, id) => id),
      ),
    ]),
  ).toBe(undefined));

it.each([
  [{}, "mycelial dlq replay hub/shop/1"],
  [{ n: "40.5", name: "it's" }, "mycelial dlq edit hub/shop/1 --set n=40.5 --set 'name=it'\\''s' --replay"],
  [{ n: null }, "mycelial dlq edit hub/shop/1 --set n=null --replay"],
])("mended with %j", (changed, command) => expect(cliToMend("hub/shop/1", changed)).toBe(command));

it.each([
  ["HTTP 404", "HTTP 503"],
  ["refused (permission denied)", "refused (row too large)"],
])("%s is not %s", (a, b) => {
  expect(causes([a, b].map((reason) => ({ node: "out", reason })))).toHaveLength(2);
});

it("the commonest cause first", () => {
  const [a, b] = [
    { node: "out", reason: "too long" },
    { node: "out", reason: "no number" },
  ];
  expect(causes([a, b, b])).toEqual([
    { ...b, letters: 2 },
    { ...a, letters: 1 },
  ]);
});
