import { expect, it } from "vitest";
import type { WorkflowDiff } from "@/api/types";
import { affected } from "./waves";

const daemon = (name: string, change: WorkflowDiff["daemons"][number]["change"]) => ({
  daemon: name,
  change,
  nodes: [],
});

it("daemons by what happens to them", () => {
  const daemons = [daemon("a", "changed"), daemon("b", "unchanged"), daemon("c", "changed"), daemon("d", "removed")];
  expect(affected({ daemons, more: 0 })).toEqual({
    groups: [
      { change: "changed", word: "changed", count: 2, names: "a, c" },
      { change: "removed", word: "stops", count: 1, names: "d" },
    ],
    same: 1,
    more: 0,
  });
});

it("many are a number", () => {
  const daemons = Array.from({ length: 40 }, (_, at) => daemon(`gw-${at}`, "added"));
  const [group] = affected({ daemons, more: 160 }).groups;
  expect(group?.count).toBe(40);
  expect(group?.names).toMatch(/^gw-0, .*gw-11 and 28 more$/);
});
