import { expect, it } from "vitest";
import type { RolloutView, WorkflowView } from "@/api/types";
import { NEW } from "../alerts/words";
import { asLines, choose, ofRule, together } from "./happenings";

const rule = { ...NEW, name: "daemon-offline", for_s: 0 };
const conditions = ofRule(rule, [
  { subject: "daemon:gw", from_unix_ms: 2_000, to_unix_ms: 5_000 },
  { subject: "daemon:hub", from_unix_ms: 9_000, to_unix_ms: null },
]);
const rollout = { id: 7, workflow: "shop", revision: 2, by: "ada", at_unix_ms: 6_000, phase: "aborted", cause: "no" };
const workflow = { name: "shop", revision: 3, by: "ada", at_unix_ms: 8_000 };
const all = together(conditions, [rollout as RolloutView], [workflow as WorkflowView], 0);

it("the newest comes first", () =>
  expect(all.map(({ name }) => name)).toEqual(["daemon hub", "workflow shop", "rollout 7 of shop", "daemon gw"]));

it("what began before and went on is shown, what was over is not", () => {
  const names = (since: number) => together(conditions, [], [], since).map(({ name }) => name);
  expect(names(4_000)).toEqual(["daemon hub", "daemon gw"]);
  expect(names(5_000)).toEqual(["daemon hub"]);
});

it.each([
  ["", "", 4],
  ["offline", "", 2],
  ["", "shop -rollout", 1],
  ["rollout", "ada", 1],
] as const)("of kind %s with %s", (kind, typed, found) => expect(choose(all, kind, typed)).toHaveLength(found));

it("a file has a line for each, the oldest first", () => {
  const lines = asLines(all)
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line));
  expect(lines.map(({ until }) => until)).toEqual(["1970-01-01T00:00:05.000Z", undefined, undefined, null]);
});
