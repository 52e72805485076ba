import { expect, it } from "vitest";
import { stretched, toggled } from "./choosing";

it.each([
  ["one more", ["a"], "b", ["a", "b"]],
  ["one less", ["a", "b"], "a", ["b"]],
] as const)("toggles %s", (_, selected, id, expected) => expect(toggled(selected, id)).toEqual(expected));

it.each([
  ["from nothing", [], "a", "b", ["a", "b"]],
  ["further", ["a", "b"], "b", "c", ["a", "b", "c"]],
  ["back", ["a", "b", "c"], "c", "b", ["a", "b"]],
  ["beside what else is selected", ["d"], "a", "b", ["d", "a", "b"]],
] as const)("stretches %s", (_, selected, from, to, expected) =>
  expect(stretched(selected, from, to)).toEqual(expected),
);
