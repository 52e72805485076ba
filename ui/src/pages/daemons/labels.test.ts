import { expect, it } from "vitest";
import { parseChanges, undone } from "./labels";

it.each([
  ["", {}, []],
  ["site=berlin  line=7.b test-", { site: "berlin", line: "7.b" }, ["test"]],
  ["a-b-", {}, ["a-b"]],
])("%s", (typed, set, unset) => expect(parseChanges(typed)).toEqual({ set, unset, error: "" }));

it.each(["site", "site=", "=x", "-a=b", "site=a b c", "-"])("%s is a mistake", (typed) => {
  expect(parseChanges(typed).error).toContain("site=berlin");
});

it("a change is undone: what was there comes back, what was not goes", () => {
  const before = { site: "bonn", line: "7", kept: "yes" };
  expect(undone({ set: { site: "berlin", fresh: "1" }, unset: ["line", "never"] }, before)).toEqual({
    set: { site: "bonn", line: "7" },
    unset: ["fresh", "never"],
  });
});
