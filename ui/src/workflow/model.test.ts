import { describe, expect, it } from "vitest";
import { difference } from "./diff";
import { fits, formOf, outputsKey, outputsOf, type Shape, startOf } from "./fields";
import { canConnect, type Graph, placesOf, readGraph } from "./graph";
import { begin, type History, PAUSE_MS, reduce, STEPS_MAX } from "./history";
import { arranged, NODE_HEIGHT, NODE_WIDTH, placed } from "./layout";

const graph = (text: string): Graph => {
  const reading = readGraph(text);
  if (!reading.graph) throw new Error(reading.error.message);
  return reading.graph;
};

const TEXT = `name = "shop"
[sources.db]
type = "sqlite"
daemon = "gateway"
[transforms.large]
type = "filter"
from = "db"
where = "amount > 10"
[destinations.out]
type = "sqlite"
daemon = "hub"
from = "large"
csv = { header = true }
`;

describe("graph", () => {
  it("edges are named as the ledger names them", () =>
    expect(graph(TEXT).edges.map(({ id }) => id)).toEqual(["db->large", "large->out"]));

  it("a transform runs where its input is", () =>
    expect([...placesOf(graph(TEXT))]).toEqual([
      ["db", "gateway"],
      ["large", "gateway"],
      ["out", "hub"],
    ]));

  it("circles end", () => {
    const circle = graph('[transforms.a]\nfrom = "b"\n[transforms.b]\nfrom = "a"');
    expect(placesOf(circle).get("a")).toBe("");
    expect(arranged(circle)).toHaveProperty("a");
  });

  it.each([
    ["db", "large", true],
    ["db", "out", true],
    ["large", "db", false],
    ["out", "large", false],
    ["large", "large", false],
    ["db", "nobody", false],
  ])("%s to %s", (from, to, may) => expect(canConnect(graph(TEXT), from, to)).toBe(may));

  it("nothing goes in circles", () => {
    const chain = graph('[transforms.a]\n[transforms.b]\nfrom = "a"\n[transforms.c]\nfrom = "b.x"');
    expect([canConnect(chain, "c", "a"), canConnect(chain, "a", "c")]).toEqual([false, true]);
  });

  it("what is not TOML is told with its line", () =>
    expect(readGraph('name = "a"\nb = \n').error).toMatchObject({ line: 2 }));
});

describe("undo", () => {
  const text = (history: History) => history.present.text;
  const change = (history: History, to: string, atMs: number, key?: string) =>
    reduce(history, { kind: "change", to: { text: to }, atMs, ...(key ? { key } : {}) });

  it("goes back and forth through everything", () => {
    let history = begin({ text: "a", layout: {} });
    history = change(history, "b", 0);
    history = reduce(history, { kind: "change", to: { layout: { db: { x: 1, y: 2 } } }, atMs: 1 });
    history = reduce(reduce(history, { kind: "undo" }), { kind: "undo" });
    expect(history.present).toEqual({ text: "a", layout: {} });
    history = reduce(reduce(history, { kind: "redo" }), { kind: "redo" });
    expect(history.present).toEqual({ text: "b", layout: { db: { x: 1, y: 2 } } });
    expect(reduce(history, { kind: "redo" })).toBe(history);
  });

  it("typing is one step until a pause", () => {
    let history = begin({ text: "", layout: {} });
    history = change(history, "a", 0, "source");
    history = change(history, "ab", 100, "source");
    history = change(history, "abc", 200 + PAUSE_MS, "source");
    expect(text(reduce(history, { kind: "undo" }))).toBe("ab");
    expect(text(reduce(reduce(history, { kind: "undo" }), { kind: "undo" }))).toBe("");
  });

  it("is bounded, and something new ends what was undone", () => {
    let history = begin({ text: "0", layout: {} });
    for (let step = 1; step <= STEPS_MAX + 10; step += 1) history = change(history, String(step), step);
    expect(history.past).toHaveLength(STEPS_MAX);
    history = change(reduce(history, { kind: "undo" }), "new", 0);
    expect(history.future).toEqual([]);
    expect(change(history, "new", 1)).toBe(history);
  });
});

describe("layout", () => {
  it("nothing covers anything, and flows to the right", () => {
    const layout = arranged(graph(TEXT));
    expect((layout.large?.x ?? 0) - (layout.db?.x ?? 0)).toBeGreaterThan(NODE_WIDTH);
    expect((layout.out?.x ?? 0) - (layout.large?.x ?? 0)).toBeGreaterThan(NODE_WIDTH);
  });

  it("or down, with room for what an edge says", () => {
    const layout = arranged(graph(TEXT), true);
    expect(layout.large?.x).toBe(layout.db?.x);
    expect((layout.large?.y ?? 0) - (layout.db?.y ?? 0)).toBeGreaterThan(NODE_HEIGHT + 96);
  });

  it("what has a place keeps it", () => {
    const db = { x: 7, y: 9 };
    const layout = placed(graph(`${TEXT}\n[destinations.two]\nfrom = "large"`), { db });
    expect(layout.db).toEqual(db);
    expect(layout.large?.y).toBe(9);
    expect(Math.abs((layout.two?.y ?? 0) - (layout.out?.y ?? 0))).toBeGreaterThan(NODE_HEIGHT);
  });
});

describe("difference", () => {
  it("names nodes, fields and the daemons that notice", () => {
    const after = TEXT.replace("amount > 10", "amount > 20")
      .replace("header = true", "header = false")
      .concat('[destinations.log]\ntype = "stdout"\ndaemon = "third"\nfrom = "db"\n[tests.one]\n');
    const found = difference(graph(TEXT), graph(after));
    expect(found.nodes.map(({ id, kind, fields }) => [id, kind, fields.map(({ field }) => field)])).toEqual([
      ["large", "changed", ["where"]],
      ["out", "changed", ["csv.header"]],
      ["log", "added", []],
    ]);
    expect(found.daemons).toEqual(["gateway", "hub", "third"]);
    expect(found.tests).toEqual(["one"]);
    expect(difference(graph(after), graph(TEXT)).nodes.at(-1)).toMatchObject({ id: "log", kind: "removed" });
  });

  it("how it is written makes none", () =>
    expect(difference(graph(TEXT), graph(`# new\n${TEXT.replaceAll('"', "'")}`)).nodes).toEqual([]));
});

describe("forms", () => {
  const schema = {
    type: "object",
    required: ["path"],
    "x-outputs": "outputs",
    properties: {
      poll_ms: { type: "integer", minimum: 10, default: 250, description: "How\noften." },
      path: { type: "string" },
      mode: { description: "How.", $ref: "#/$defs/Mode" },
      password: { anyOf: [{ $ref: "#/$defs/SecretRef" }, { type: "null" }] },
      columns: { anyOf: [{ type: "string" }, { type: "array", items: { type: "string" } }, { type: "null" }] },
      values: { type: "object", additionalProperties: { $ref: "#/$defs/Function" } },
      rotate: { type: "object", properties: { max_bytes: { type: ["integer", "null"] } } },
      either: { type: ["string", "integer"] },
      anything: true,
    },
    $defs: {
      Mode: { oneOf: [{ const: "tail", description: "Follow." }, { const: "once" }] },
      SecretRef: { anyOf: [{ type: "string" }] },
      Function: {
        oneOf: [
          { const: "count" },
          { type: "object", required: ["sum"], properties: { sum: { type: "string" } } },
          { type: "object", required: ["kind"], properties: { kind: { const: "last" }, of: { type: "string" } } },
        ],
      },
    },
  };
  const fields = formOf(JSON.stringify(schema));
  const field = (key: string) => fields.find((each) => each.key === key);
  const shape = (key: string) => field(key)?.shape as Shape;

  it("required ones come first, with help, default and unit", () => {
    expect(fields[0]?.key).toBe("path");
    expect(field("poll_ms")).toMatchObject({ help: "How often.", default: "250", unit: "milliseconds" });
  });

  it.each([
    ["path", "text"],
    ["poll_ms", "integer"],
    ["mode", "choice"],
    ["password", "secret"],
    ["columns", "variants"],
    ["values", "map"],
    ["rotate", "group"],
    ["either", "variants"],
    ["anything", "toml"],
  ])("%s is %s", (key, kind) => expect(shape(key).kind).toBe(kind));

  it("tagged forms are told apart by their tag", () => {
    const values = shape("values");
    if (values.kind !== "map" || values.item.kind !== "variants") throw new Error("a map of variants");
    const { options } = values.item;
    expect(options.map(({ label, start }) => [label, start])).toEqual([
      ["count", "count"],
      ["sum", { sum: "" }],
      ["last", { kind: "last" }],
    ]);
    const which = (value: Parameters<(typeof options)[0]["matches"]>[0]) => options.find((each) => each.matches(value));
    expect([which("count")?.label, which({ sum: "a" })?.label, which({ kind: "last" })?.label]).toEqual([
      "count",
      "sum",
      "last",
    ]);
    expect(fits(values.item, 5n)).toBe(false);
  });

  it("starts with what is asked for", () => {
    expect([startOf(shape("poll_ms")), startOf(shape("mode")), startOf(shape("columns"))]).toEqual([10n, "tail", ""]);
  });

  it("outputs are found", () => {
    expect(outputsKey(JSON.stringify(schema))).toBe("outputs");
    expect(outputsOf("outputs", { outputs: { hot: "a" } })).toEqual(["hot", "else"]);
  });

  it("what is no schema is no form", () => expect(formOf("{")).toEqual([]));
});
