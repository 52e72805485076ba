import { expect, it } from "vitest";
import { labelsAreDue } from "./live";

const [a, b] = [{ node: "a" }, { node: "b" }];

it.each([
  ["nothing was known", undefined, [a], 0, true],
  ["somebody is new", [a], [a, b], 0, true],
  ["all are known", [a, b], [a, b], 29_999, false],
  ["somebody is gone", [a, b], [a], 0, false],
  ["they are old", [a], [a], 30_000, true],
] as const)("labels when %s", (_, before, daemons, ageMs, isDue) =>
  expect(labelsAreDue(before, daemons, ageMs)).toBe(isDue),
);
