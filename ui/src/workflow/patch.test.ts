import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { applyTo, copy, type Edit, freeName, isName, paste, patch, patchAll } from "./edit";
import { graphOf, readGraph } from "./graph";
import { scan } from "./scan";
import { isTable, read, same, type Table, type Value } from "./value";

/** Everything that people write, in the order in which they do. */
const SHOP = `# The shop's orders.
name = "shop" # kept short

[sources.db]
type = "sqlite"   # in WAL mode
daemon = "gateway"
path = '/data/shop.db'
# by number
cursor = "id"

# Only what is large.
[transforms.large]
type = "filter"
from = "db"
where = """
amount > 10 # [not.a.header]
"""

[transforms.split]
type = "route"
from = [
  "large", # the only one
]
outputs = { hot = "celsius > 90" }

[transforms.minutes]
type = "aggregate"
from = "split.else"

[transforms.minutes.values]
readings = "count" # how many
"the mean" = { mean = "celsius" }

[destinations.warehouse]
type = "postgres"
daemon = "hub"
from = ["split.hot", "minutes"]
password = { file = "/run/secrets/shop" }
spool.quota = "1GiB"

[[destinations.warehouse.columns]]
name = "a"

[[destinations.warehouse.columns]]
name = "b"

[tests.only_hot]
given.db = [{ celsius = 31.5 }, { celsius = 3.0 }]
expect.warehouse = [{ celsius = 31.5 }]
reject."split.hot" = ["celsius"]
`;
const INLINE = `name = "inline"
sources = { db = { type = "sqlite", path = "a" } }
destinations.out.type = "file"
destinations.out.from = "db"
[tests]
one = { given = { db = [] } }`;
const WINDOWS = SHOP.replaceAll("\n", "\r\n");
const TEXTS = [SHOP, INLINE, WINDOWS];

const tableOf = (text: string): Table => {
  const { table, error } = read(text);
  if (!table) throw new Error(`line ${error.line}: ${error.message}\n${text}`);
  return table;
};

/** A section without anything in it says nothing. */
const tidy = (table: Table): Table =>
  Object.fromEntries(Object.entries(table).filter(([, each]) => !isTable(each) || Object.keys(each).length > 0));
const agrees = (text: string, wanted: Table) => same(tidy(tableOf(text)), tidy(wanted));

const edits: [string, Edit][] = [
  ["a value", { kind: "set", path: ["sources", "db", "path"], value: "b.db" }],
  ["a new key", { kind: "set", path: ["sources", "db", "table"], value: "orders" }],
  ["the name", { kind: "set", path: ["name"], value: "stock" }],
  ["a key in a section of its own", { kind: "set", path: ["transforms", "minutes", "values", "p95"], value: "count" }],
  ["a table of sections", { kind: "set", path: ["transforms", "minutes", "values"], value: { n: "count" } }],
  ["a table becomes a text", { kind: "set", path: ["transforms", "minutes", "values"], value: "none" }],
  ["in braces", { kind: "set", path: ["transforms", "split", "outputs", "cold"], value: "celsius < 0" }],
  ["by dots", { kind: "set", path: ["destinations", "warehouse", "spool", "when_full"], value: "block" }],
  ["array of tables", { kind: "set", path: ["destinations", "warehouse", "columns"], value: [{ name: "c" }] }],
  ["text of lines", { kind: "set", path: ["sources", "db", "query"], value: "select 1\nfrom x\n" }],
  ["numbers", { kind: "set", path: ["sources", "db", "n"], value: [1n, 1, 1.5, -0, Number.POSITIVE_INFINITY] }],
  ["a new test", { kind: "set", path: ["tests", "two", "given", "db"], value: [{ a: 1n }] }],
  ["no key", { kind: "unset", path: ["sources", "db", "cursor"] }],
  ["no section", { kind: "unset", path: ["transforms", "minutes", "values"] }],
  ["nothing in braces", { kind: "unset", path: ["transforms", "split", "outputs", "hot"] }],
  ["no dots", { kind: "unset", path: ["destinations", "warehouse", "spool", "quota"] }],
  ["no array", { kind: "unset", path: ["destinations", "warehouse", "columns"] }],
  ["nothing there", { kind: "unset", path: ["sources", "db", "nothing", "at", "all"] }],
  ["no test", { kind: "unset", path: ["tests", "only_hot"] }],
  ["a node", { kind: "add", role: "source", id: "new", keys: { type: "mqtt", topics: ["a"] } }],
  ["a destination", { kind: "add", role: "destination", id: "new", keys: { type: "stdout", from: "db" } }],
  ["gone", { kind: "delete", ids: ["db"] }],
  ["gone with its section", { kind: "delete", ids: ["minutes", "split"] }],
  ["rename a source", { kind: "rename", id: "db", to: "database" }],
  ["rename what has outputs", { kind: "rename", id: "split", to: "parts" }],
  ["rename a destination", { kind: "rename", id: "warehouse", to: "store" }],
  ["rename what is in a list", { kind: "rename", id: "large", to: "big" }],
  ["connect", { kind: "connect", from: "db", to: "warehouse" }],
  ["connect the first", { kind: "connect", from: "large", to: "minutes" }],
  ["disconnect", { kind: "disconnect", from: "split.hot", to: "warehouse" }],
  ["disconnect the last", { kind: "disconnect", from: "db", to: "large" }],
];

describe("the text says what the table says", () => {
  for (const [which, text] of [
    ["shop", SHOP],
    ["inline", INLINE],
    ["windows", WINDOWS],
  ] as const) {
    it.each(edits)(`${which}: %s`, (_, edit) => {
      const after = patch(text, edit);
      expect(agrees(after, applyTo(edit, tableOf(text))), after).toBe(true);
    });
  }
});

const name = fc.constantFrom("db", "large", "split", "minutes", "warehouse", "out", "new", "x-1");
const key = fc.oneof(fc.constantFrom("path", "values", "outputs", "spool", "a b", 'q"', "é", "columns"), fc.string());
const value: fc.Arbitrary<Value> = fc.letrec<{ value: Value }>((tie) => ({
  value: fc.oneof(
    { depthSize: "small" },
    fc.string({ unit: "binary" }).filter((text) => !/\p{Surrogate}/u.test(text)),
    fc.string().map((text) => `${text}\n'${text}`),
    fc.bigInt(-(2n ** 63n), 2n ** 63n - 1n),
    fc.double({ noNaN: true }),
    fc.boolean(),
    fc.array(tie("value"), { maxLength: 3 }),
    fc.dictionary(key, tie("value"), { maxKeys: 3, noNullPrototype: true }),
  ),
})).value;
/** Names are unique in a workflow. */
const node = fc.constantFrom(
  ["sources", "db"],
  ["sources", "new"],
  ["transforms", "large"],
  ["transforms", "split"],
  ["transforms", "minutes"],
  ["destinations", "warehouse"],
  ["destinations", "out"],
);
const path = fc
  .tuple(
    node,
    key.filter((each) => each !== "from" && each !== "__proto__"),
    fc.array(key, { maxLength: 1 }),
  )
  .map(([a, b, rest]) => [...a, b, ...rest]);
const anyEdit: fc.Arbitrary<Edit> = fc.oneof(
  fc.record({ kind: fc.constant("set" as const), path, value }),
  fc.record({ kind: fc.constant("unset" as const), path }),
  fc.record({ kind: fc.constant("delete" as const), ids: fc.uniqueArray(name, { maxLength: 2 }) }),
  fc.record({ kind: fc.constant("rename" as const), id: name, to: fc.constantFrom("fresh", "other") }),
  fc.record({ kind: fc.constant("connect" as const), from: name, to: name }),
  fc.record({ kind: fc.constant("disconnect" as const), from: name, to: name }),
);

const hasProto = (each: Value): boolean =>
  typeof each === "object" &&
  Object.entries(each).some(([inner, next]) => inner === "__proto__" || hasProto(next as Value));

describe("whatever is done", () => {
  it("the text says what the table says, after any number of edits", () => {
    fc.assert(
      fc.property(fc.constantFrom(...TEXTS), fc.array(anyEdit, { minLength: 1, maxLength: 6 }), (text, all) => {
        let [now, wanted] = [text, tableOf(text)];
        for (const edit of all) {
          if (edit.kind === "set" && hasProto(edit.value)) continue;
          // Names are unique: a node is not renamed to one that is there.
          if (edit.kind === "rename" && graphOf(wanted).nodes.some(({ id }) => id === edit.to)) continue;
          now = patch(now, edit);
          wanted = applyTo(edit, wanted);
          expect(agrees(now, wanted), `${edit.kind}\n${now}`).toBe(true);
        }
      }),
      { numRuns: 300 },
    );
  });

  it("sections that it does not concern stay byte for byte", () => {
    fc.assert(
      fc.property(fc.constantFrom(SHOP, WINDOWS), path, value, (text, where, what) => {
        fc.pre(!hasProto(what));
        const after = patch(text, { kind: "set", path: where, value: what });
        for (const { header, span } of scan(text)) {
          const own = header?.path.slice(0, 2) ?? [];
          if (own[0] === where[0] && own[1] === where[1]) continue;
          expect(after).toContain(text.slice(span.start, span.end).trimEnd());
        }
      }),
    );
  });

  it("a scan leaves nothing out", () => {
    for (const text of TEXTS)
      expect(
        scan(text)
          .map(({ span }) => text.slice(span.start, span.end))
          .join(""),
      ).toBe(text);
  });
});

it("comments stay with what they are about", () => {
  const after = patchAll(SHOP, [
    { kind: "set", path: ["sources", "db", "type"], value: "postgres" },
    { kind: "delete", ids: ["large"] },
    { kind: "rename", id: "db", to: "orders" },
  ]);
  expect(after).toContain('type = "postgres"   # in WAL mode\n');
  expect(after).toContain("# by number\n");
  expect(after).not.toContain("Only what is large");
  expect(after).toContain("[sources.orders]");
});

it("a new node stands with its kind", () => {
  const after = patch(SHOP, { kind: "add", role: "source", id: "more", keys: { type: "stdin" } });
  expect(after).toContain('cursor = "id"\n\n[sources.more]\ntype = "stdin"\n\n# Only what is large.\n');
});

describe("names", () => {
  it.each([
    ["sqlite", ["sqlite"], "sqlite-2"],
    ["sqlite-2", ["sqlite", "sqlite-2"], "sqlite-3"],
    ["Ünïcode!", [], "n-code-"],
    ["", [], "node"],
    ["x".repeat(40), ["x".repeat(32)], `${"x".repeat(30)}-2`],
  ])("%s beside %j", (wish, taken, found) => {
    expect(freeName(taken, wish)).toBe(found);
    expect(isName(found)).toBe(true);
  });
});

it("copies read from copies, under names of their own", () => {
  const { graph } = readGraph(SHOP);
  if (!graph) throw new Error("it can be read");
  const { edits: made } = paste(graph, copy(graph, ["split", "minutes", "warehouse"]));
  const { graph: after } = readGraph(patchAll(SHOP, made));
  const from = (id: string) => after?.nodes.find((node) => node.id === id)?.from;
  expect([from("split-2"), from("minutes-2"), from("warehouse-2")]).toEqual([
    ["large"],
    ["split-2.else"],
    ["split-2.hot", "minutes-2"],
  ]);
});
