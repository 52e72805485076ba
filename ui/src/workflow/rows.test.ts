import { expect, it } from "vitest";
import { fromLines, toLines, typesOf } from "./rows";
import { write } from "./value";

it.each([
  ['{"a":1}', [{ a: 1n }]],
  ['{"a":1.5,"b":3.0}\n\n{"c":null}', [{ a: 1.5, b: 3 }, { c: {} }]],
  ['{"a":{"b":[true,"x"]}}', [{ a: { b: [true, "x"] } }]],
])("%s", (text, rows) => {
  expect(fromLines(text).rows).toEqual(rows);
  expect(fromLines(toLines(rows)).rows).toEqual(rows);
});

it.each(["9007199254740993", "-9223372036854775808", "9223372036854775807"])("%s is written as it is", (number) => {
  const { rows } = fromLines(`{"id": ${number}, "deep": [{"id": ${number}}]}`);
  expect(rows).toEqual([{ id: BigInt(number), deep: [{ id: BigInt(number) }] }]);
  expect(write(rows ?? [])).toBe(`[{ id = ${number}, deep = [{ id = ${number} }] }]`);
  expect(toLines(rows ?? [])).toBe(`{ "id": ${number}, "deep": [{ "id": ${number} }] }`);
});

it("what TOML has no number for is a text", () =>
  expect(fromLines('{"id": 18446744073709551615}').rows).toEqual([{ id: "18446744073709551615" }]));

it.each([
  [['{"id": 18446744073709551615, "n": 1}'], { id: "u64" }],
  [['{"id": 9223372036854775808}\n\n{"id": null}\n{"n": 1}\n{"id": 0}\n{"id": {}}'], { id: "u64" }],
  [['{"id": 9223372036854775807}'], {}],
  // As a text it is one, and past `u64` a daemon has a float.
  [['{"id": "18446744073709551615"}'], {}],
  [['{"id": 18446744073709551616}'], {}],
  // Another value has another type, be it of another source.
  [['{"id": 18446744073709551615}\n{"id": -1}'], {}],
  [['{"id": 18446744073709551615}\n{"id": 3.0}'], {}],
  [['{"id": 18446744073709551615}', '{"id": "x"}'], {}],
  [['{"id": 18446744073709551615}', '{"id": 7, "other": "x"}'], { id: "u64" }],
])("of %j the types are named: %j", (given, types) => expect(typesOf(given)).toEqual(types));

it.each([
  ["{}\n{", "Line 2 is not JSON."],
  ["[1]", "Line 1 is no record: write { … }."],
])("%s is told", (text, error) => expect(fromLines(text)).toEqual({ rows: null, error }));
