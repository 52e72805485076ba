import { expect, it } from "vitest";
import { fromLines, toLines } from "./rows";

it.each([
  ['{"a":1}', [{ a: 1n }]],
  ['{"a":1.5,"b":3.0}\n\n{"c":null}', [{ a: 1.5, b: 3 }, { c: {} }]],
  ['{"a":{"b":[true,"x"]}}', [{ a: { b: [true, "x"] } }]],
])("%s", (text, rows) => {
  expect(fromLines(text).rows).toEqual(rows);
  expect(fromLines(toLines(rows)).rows).toEqual(rows);
});

it.each([
  ["{}\n{", "Line 2 is not JSON."],
  ["[1]", "Line 1 is no record: write { … }."],
])("%s is told", (text, error) => expect(fromLines(text)).toEqual({ rows: null, error }));
