import { expect, it } from "vitest";
import type { Target } from "@/api/types";
import {
  answered,
  answers,
  asFile,
  cliOf,
  FIRST,
  isOver,
  mistakes,
  orderOf,
  type Typed,
  tally,
  worstFirst,
} from "./orders";

const target = (daemon: string, standing: Target["standing"], report: Target["report"] = []): Target => ({
  daemon,
  node: daemon,
  standing,
  cause: "",
  workflows: [],
  report,
});

it.each([
  [{}, { order: { kind: "ping" }, deadline_s: 60 }],
  [{ kind: "restart" }, null],
  [
    { kind: "restart", workflow: "shop" },
    { order: { kind: "restart", workflow: "shop" }, deadline_s: 60 },
  ],
  [
    { kind: "pause", deadline: "2m" },
    { order: { kind: "pause", workflow: "" }, deadline_s: 120 },
  ],
  [
    { kind: "log_level", hold: "1h" },
    { order: { kind: "log_level", level: "debug", for_s: 3_600 }, deadline_s: 60 },
  ],
  [{ kind: "log_level", level: "so much!" }, null],
  [{ kind: "log_level", hold: "long" }, null],
  [{ deadline: "2h" }, null],
] as const)("%j is ordered as %j", (change, expected) => {
  const typed: Typed = { ...FIRST, ...change };
  expect(orderOf(typed)).toEqual(expected);
  expect(Object.values(mistakes(typed)).some((wrong) => wrong !== "")).toBe(expected === null);
});

it.each([
  [{}, null, null],
  [{}, "gw-1", "mycelial daemon ping gw-1"],
  [{ kind: "pause" }, null, "mycelial daemon pause -l site=berlin"],
  [{ kind: "pause", workflow: "shop" }, "gw-1", "mycelial workflow pause shop --daemon gw-1"],
  [{ kind: "restart", workflow: "shop" }, "gw-1", "mycelial workflow restart shop --daemon gw-1"],
  [{ kind: "drain", deadline: "2m" }, "gw-1", "mycelial daemon drain gw-1 --wait-max 2m"],
  [{ kind: "drain", deadline: " 120 s " }, "gw-1", "mycelial daemon drain gw-1 --wait-max 2m"],
  [{ kind: "drain", deadline: "" }, "gw-1", null],
  [{ kind: "log_level" }, null, "mycelial daemon log-level debug -l site=berlin --for 10m"],
  [{ kind: "log_level", hold: "90 m" }, null, "mycelial daemon log-level debug -l site=berlin --for 90m"],
  [{ kind: "log_level", hold: "long" }, null, null],
] as const)("%j on %s is %s", (change, only, expected) => {
  expect(cliOf({ ...FIRST, ...change }, "site=berlin", only)).toBe(expected);
});

it("tells what wants to be looked at first", () => {
  const daemons = [target("b", "done"), target("a10", "failed"), target("a9", "failed"), target("c", "waiting")];
  expect(tally({ daemons })).toEqual([
    { standing: "failed", found: 2 },
    { standing: "waiting", found: 1 },
    { standing: "done", found: 1 },
  ]);
  expect(worstFirst(daemons).map(({ daemon }) => daemon)).toEqual(["a9", "a10", "c", "b"]);
  expect(isOver({ daemons })).toBe(false);
});

it.each([
  [["done", "failed"], 2, "All have answered:"],
  [["done", "timed_out"], 1, "Over: 1 of 2 have answered:"],
  [["unknown", "timed_out"], 0, "Over: 0 of 2 have answered:"],
  [["failed", "timed_out", "waiting"], 1, "1 of 3 have answered:"],
  [["waiting", "waiting"], 0, "0 of 2 have answered:"],
] as const)("of %j %d have answered: %s", (standings, found, said) => {
  const command = { daemons: standings.map((standing) => target("a", standing)) };
  expect([answers(command), answered(command)]).toEqual([found, said]);
});

it("a file has those that reported", () => {
  const daemons = [target("a", "done", [{ heading: "Disk", text: "full\n" }]), target("b", "failed")];
  expect(asFile({ what: "diagnose", daemons })).toBe("diagnose\n\n# a\n\n## Disk\n\nfull\n");
});
