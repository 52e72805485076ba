import { expect, it } from "vitest";
import { inWords, mistakeInName, mistakeInValue, worstFirst } from "./secrets";

it.each([
  ["shop", true],
  ["shop_2-x", true],
  ["-shop", false],
  ["Shop", false],
  ["", false],
])("%j is a name: %s", (name, isOne) => expect(mistakeInName(name) === "").toBe(isOne));

it.each([
  ["x", true],
  ["", false],
  ["ä".repeat(8_192), true],
  ["ä".repeat(8_193), false],
])("what may be a value", (value, isOne) => expect(mistakeInValue(value) === "").toBe(isOne));

it("what is used and was never set comes first", () => {
  const secret = (name: string, set_unix_ms: number | null) => ({ name, set_unix_ms, used_by: [] });
  const names = worstFirst([secret("b", 1), secret("a", 1), secret("c", null)]).map(({ name }) => name);
  expect(names).toEqual(["c", "a", "b"]);
});

it("tells where, and who begins anew", () => {
  const done = (daemon: string, used_by: string[]) => ({ daemon, outcome: "done" as const, cause: "", used_by });
  const failed = { daemon: "c", outcome: "failed" as const, cause: "it is offline", used_by: [] };
  expect(inWords([done("a", ["shop"]), done("b", ["shop"]), failed], "set")).toBe(
    "It is set on 2 daemons; shop has begun anew.",
  );
  expect(inWords([done("a", [])], "forgotten")).toBe("It is forgotten on 1 daemon.");
});
