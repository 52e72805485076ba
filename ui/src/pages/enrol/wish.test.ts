import { expect, it } from "vitest";
import type { DaemonView } from "@/api/types";
import { arrived, cliOf, labelsIn, mistakeInName } from "./wish";

it.each([
  [{ role: "daemon", name: null, uses: 1, ttl_s: 86_400, labels: {} }, "mycelial token create"],
  [
    { role: "operator", name: "anna", uses: 1, ttl_s: 3_600, labels: {} },
    "mycelial token create --role operator --name anna --ttl 1h",
  ],
  [{ role: "daemon", name: null, uses: 20, ttl_s: 604_800, labels: {} }, "mycelial token create --uses 20 --ttl 7d"],
  [
    { role: "daemon", name: null, uses: 1, ttl_s: 86_400, labels: { site: "berlin", line: "2" } },
    "mycelial token create --label site=berlin --label line=2",
  ],
] as const)("%o on the command line", (wish, command) => expect(cliOf(wish)).toBe(command));

it.each([
  ["gw-1", true],
  ["0_a", true],
  ["Gw", false],
  ["-a", false],
  ["", false],
  ["a".repeat(33), false],
])("name %s", (name, isGood) => expect(mistakeInName(name) === "").toBe(isGood));

it.each([
  ["", {}, /^$/],
  ["site=berlin line=2", { site: "berlin", line: "2" }, /^$/],
  ["site", {}, /is no change of a label/],
  ["site-", {}, /no labels yet/],
])("labels %s", (typed, labels, error) => {
  const found = labelsIn(typed);
  expect(found.error).toMatch(error);
  expect(found.labels).toEqual(labels);
});

it("those who come are told from those who were there", () => {
  const daemons = ["old", "new", "other"].map((name) => ({ name, node: name }) as DaemonView);
  const wish = { role: "daemon", name: null, uses: 1, ttl_s: 1, labels: {} } as const;
  const names = (name: string | null) => arrived(daemons, new Set(["old"]), { ...wish, name }).map((each) => each.name);
  expect(names(null)).toEqual(["new", "other"]);
  expect(names("new")).toEqual(["new"]);
});
