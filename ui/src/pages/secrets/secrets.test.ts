import { expect, it } from "vitest";
import { cliToCheck, cliToSet, inWords, mistakeInName, mistakeInValue, worstFirst } from "./secrets";

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

it.each([
  ["shop", "name:hub", "mycelial secret set shop --daemon hub"],
  ["shop", "site=berlin", "mycelial secret set shop -l site=berlin"],
  ["shop", "name:hub*", "mycelial secret set shop -l 'name:hub*'"],
  ["", "", "mycelial secret set NAME -l SELECTOR"],
])("%s on %s is set by %s", (name, selector, command) => expect(cliToSet(name, selector)).toBe(command));

it.each([
  [null, "mycelial workflow check shop"],
  [["a", "b"], "mycelial workflow check shop --daemon a\nmycelial workflow check shop --daemon b"],
])("connections from %j are checked by %s", (daemons, command) => expect(cliToCheck("shop", daemons)).toBe(command));
