import { expect, it } from "vitest";
import { asFile, chooseLines, DAEMONS_MAX, LINES_MAX, type Line, readFrom, together } from "./lines";

const line = (number: number, change: Partial<Line> = {}): Line => ({
  daemon: "gateway",
  number,
  unix_ms: number * 1_000,
  level: "INFO",
  text: `line ${number}`,
  workflow: "",
  ...change,
});

it("what is new comes first, what is known is not told twice", () => {
  const known = together([], [line(1), line(2)]);
  expect(known.map(({ number }) => number)).toEqual([2, 1]);
  expect(together(known, [line(2)])).toBe(known);
  expect(together(known, [line(2), line(3)]).map(({ number }) => number)).toEqual([3, 2, 1]);
  // After a start a daemon counts anew.
  expect(together(known, [line(1, { unix_ms: 9_000 })])).toHaveLength(3);
});

it("no more than so many are remembered", () => {
  const all = Array.from({ length: LINES_MAX + 5 }, (_, at) => line(at));
  const kept = together([], all);
  expect(kept).toHaveLength(LINES_MAX);
  expect(kept.at(-1)?.number).toBe(5);
});

it.each([
  ["", 3],
  ["hub", 1],
  ["-hub", 2],
  ["warn shop", 1],
])("%j chooses %i", (typed, count) => {
  const lines = [line(1), line(2, { daemon: "hub" }), line(3, { level: "WARN", workflow: "shop" })];
  expect(chooseLines(lines, typed)).toHaveLength(count);
});

it("reads a daemon's, a workflow's, or all, and says how many it leaves out", () => {
  const many = Array.from({ length: DAEMONS_MAX + 3 }, (_, at) => `gw-${at}`);
  const workflows = [{ name: "shop", daemons: ["a", "b"] }];
  expect(readFrom("gw-9", "shop", many, workflows)).toEqual({ from: ["gw-9"], more: 0 });
  expect(readFrom("", "shop", many, workflows)).toEqual({ from: ["a", "b"], more: 0 });
  expect(readFrom("", "", many, workflows)).toEqual({ from: many.slice(0, DAEMONS_MAX), more: 3 });
});

it("a file has the oldest first", () => {
  expect(asFile([line(2, { workflow: "shop" }), line(1)])).toBe(
    "1970-01-01T00:00:01.000Z INFO  gateway line 1\n1970-01-01T00:00:02.000Z INFO  gateway [shop] line 2\n",
  );
});
