import { expect, it } from "vitest";
import { parseChanges } from "./labels";

it.each([
  ["", {}, []],
  ["site=berlin  line=7.b test-", { site: "berlin", line: "7.b" }, ["test"]],
  ["a-b-", {}, ["a-b"]],
])("%s", (typed, set, unset) => expect(parseChanges(typed)).toEqual({ set, unset, error: "" }));

it.each(["site", "site=", "=x", "-a=b", "site=a b c", "-"])("%s is a mistake", (typed) => {
  expect(parseChanges(typed).error).toContain("site=berlin");
});
