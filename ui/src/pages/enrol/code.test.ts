import { expect, it } from "vitest";
import { approveCli, compare } from "./code";

it.each([
  ["k7qm-x2ad", "same"],
  [" K7QM x2ad ", "same"],
  ["k7qmx2ad", "same"],
  ["", "unfinished"],
  ["k7qm-", "unfinished"],
  ["k7qm-x2ae", "other"],
  ["k7qm-x2ad-9", "other"],
] as const)("%s is %s", (typed, expected) => expect(compare("k7qm-x2ad", typed)).toBe(expected));

it.each([
  ["gw", "", "mycelial enrol approve k7qm-x2ad"],
  ["pump-3", "", "mycelial enrol approve k7qm-x2ad --name pump-3"],
  ["gw", "site=berlin line=2", "mycelial enrol approve k7qm-x2ad && mycelial daemon label gw site=berlin line=2"],
])("approved as %s with %s", (name, labels, expected) =>
  expect(approveCli("k7qm-x2ad", "gw", name, labels)).toBe(expected),
);
