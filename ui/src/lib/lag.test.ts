import { expect, it } from "vitest";
import { isBehind, lagText, lagTone, longest } from "./lag";

it.each([
  [null, "none", "good", false],
  [0, "< 5 s", "good", false],
  [4_999, "< 5 s", "good", false],
  [5_000, "5 s", "good", true],
  [60_000, "60 s", "warn", true],
  [600_000, "10 min", "bad", true],
] as const)("%s", (ms, text, tone, behind) => {
  expect([lagText(ms), lagTone(ms), isBehind(ms)]).toEqual([text, tone, behind]);
});

it("of several the longest counts, and nothing is not 0", () => {
  expect(longest([])).toBe(null);
  expect(longest([{ lag_ms: null }])).toBe(null);
  expect(longest([{ lag_ms: 0 }, { lag_ms: null }])).toBe(0);
  expect(longest([{ lag_ms: 3 }, { lag_ms: 9 }, { lag_ms: null }])).toBe(9);
});
