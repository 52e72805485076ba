import { expect, it } from "vitest";
import type { StreamView, WorkflowView } from "@/api/types";
import { chooseWorkflows, withStreams } from "./choose";

const view = (name: string, state: WorkflowView["state"], daemons: string[]): WorkflowView => ({
  name,
  revision: 1,
  by: "me",
  at_unix_ms: 0,
  daemons,
  state,
});
const ALL = [view("orders", "running", ["gw", "hub"]), view("host", "failed", ["gw"]), view("late", null, ["hub"])];
const stream = (workflow: string, rate: number, dead: number, lag_ms: number | null = null) =>
  ({ workflow, rate, lag_ms, ledger: { buffered: 1, dropped: 1, dead } }) as StreamView;

it("streams are added up by workflow", () => {
  const [orders] = withStreams(ALL, [stream("orders", 5, 0), stream("orders", 7, 2, 7_000), stream("gone", 9, 9)]);
  expect(orders).toMatchObject({ rate: 12, buffered: 2, lagMs: 7_000, lost: 4 });
});

it("what was discarded or dropped long ago is counted, and wants no look", () => {
  const told = (has_letters?: boolean, dropped_lately?: boolean) => {
    const all = [{ ...stream("orders", 5, 2), has_letters, dropped_lately }] as StreamView[];
    const { lost, isLosing } = withStreams(ALL, all)[0] ?? {};
    return [lost, isLosing];
  };
  expect(told(false, false)).toEqual([3, false]);
  expect(told(true, false)).toEqual([3, true]);
  expect(told(false, true)).toEqual([3, true]);
  expect(told()).toEqual([3, true]);
});

it.each([
  ["", "", ["orders", "host", "late"]],
  ["GW", "", ["orders", "host"]],
  ["gw -hub", "", ["host"]],
  ["", "trouble", ["host"]],
  ["", "unknown", ["late"]],
  ["hub", "running", ["orders"]],
])("“%s” in state “%s”", (typed, state, expected) => {
  expect(chooseWorkflows(withStreams(ALL, []), typed, state).map((row) => row.view.name)).toEqual(expected);
});
