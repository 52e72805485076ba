import { expect, it } from "vitest";
import { FIRST, mistakeInName, wishOf } from "./wish";

it.each([
  ["nightly-report", true],
  ["", false],
  ["with space", false],
  ["a".repeat(65), false],
])("%j is a name: %s", (name, isOne) => expect(mistakeInName(name) === "").toBe(isOne));

it("no scope is none at all", () => {
  expect(wishOf({ ...FIRST, name: "a", scope: " " })).toMatchObject({ name: "a", scope: null });
  expect(wishOf({ ...FIRST, name: "a", scope: " site=berlin " })).toMatchObject({ scope: "site=berlin" });
});
