import { describe, expect, it } from "vitest";
import { bytes, count, exact, relative, sentence, several, span, ticks, ZONE } from "./format";

describe("as people read them", () => {
  it.each([
    [0, "0 B"],
    [1_023, "1023 B"],
    [1_024, "1.0 KiB"],
    [102_348, "99.9 KiB"],
    [102_400, "100 KiB"],
    [1_048_063, "1023 KiB"],
    [1_048_064, "1.0 MiB"],
    [64 * 1_048_576, "64.0 MiB"],
    [1_073_741_824, "1.0 GiB"],
    [4e18, "3553 PiB"],
  ])("bytes %d", (value, text) => expect(bytes(value)).toBe(text));

  it.each([
    [-5, "0 s"],
    [119_999, "119 s"],
    [120_000, "2 min"],
    [3_599_999, "59 min"],
    [7_020_000, "1 h 57 min"],
    [7_200_000, "2 h"],
    [7_500_000, "2 h 5 min"],
    [90_000_000, "25 h"],
    [172_800_000, "2 days"],
  ])("span %d", (ms, text) => expect(span(ms)).toBe(text));

  it.each([
    [0, "now"],
    [4_999, "now"],
    [61_000, "61 s ago"],
    [-300_000, "in 5 min"],
  ])("relative %d", (ago, text) => expect(relative(1e12 - ago, 1e12)).toBe(text));

  it("counts", () => {
    expect([count(1, "daemon"), count(0, "daemon"), count(1200, "entry", "entries")]).toEqual([
      "1 daemon",
      "0 daemons",
      "1,200 entries",
    ]);
  });

  it.each([
    [[], ""],
    [["a"], "a"],
    [["a", "b", "c"], "a, b and c"],
    [["a", "b", "c", "d"], "a, b, c and d"],
    [["a", "b", "c", "d", "e", "f"], "a, b, c, d and 2 more"],
  ])("several: %j", (names, text) => expect(several(names, 4)).toBe(text));

  it.each([
    [10_000, /^\d\d:\d\d:\d\d$/],
    [3_600_000, /^\d\d:\d\d$/],
    [86_400_000, /^\d+ [A-Z][a-z]+$/],
  ])("along an axis with steps of %d ms", (step, text) => {
    for (const each of ticks([0, 1, 2, 3].map((at) => at * step))) expect(each).toMatch(text);
  });

  it("an exact time ends with the zone that is shown", () => expect(exact(Date.now()).endsWith(ZONE)).toBe(true));

  it("sentences", () => {
    expect(["", "no such daemon", "Done."].map(sentence)).toEqual(["", "No such daemon.", "Done."]);
  });
});
