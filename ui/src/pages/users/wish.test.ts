import { expect, it } from "vitest";
import { mistakeInName, mistakeInPassword, mistakeInRepeat } from "./wish";

it.each([
  ["ada", true],
  ["Ada.L@example.org", true],
  ["", false],
  ["ada lovelace", false],
  ["x".repeat(65), false],
])("name %s", (name, isRight) => expect(mistakeInName(name) === "").toBe(isRight));

it.each([
  ["too short", false],
  ["long enough", true],
  ["ten ümläut", true],
  ["ü".repeat(129), false],
])("password %s", (password, isRight) => expect(mistakeInPassword(password) === "").toBe(isRight));

it("twice the same", () => {
  expect(mistakeInRepeat("a", "a")).toBe("");
  expect(mistakeInRepeat("a", "b")).not.toBe("");
});
