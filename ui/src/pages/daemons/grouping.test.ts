import { expect, it } from "vitest";
import type { DaemonItem } from "@/api/types";
import { grouped, groupKeys } from "./grouping";

const daemon = (name: string, labels: Record<string, string>, change: Partial<DaemonItem> = {}) =>
  ({
    name,
    labels,
    presence: "online",
    version: "0.4.1",
    troubled: 0,
    damaged: 0,
    resources: { spool_bytes: 10 },
    ...change,
  }) as DaemonItem;

const all = [
  daemon("a", { site: "oslo" }),
  daemon("b", { site: "berlin" }, { presence: "offline" }),
  daemon("c", { site: "berlin", line: "7" }, { troubled: 1 }),
  daemon("d", {}),
];

it("by a label, the largest first, those without it last", () => {
  expect(groupKeys(all)).toEqual(["presence", "version", "line", "site"]);
  expect(grouped(all, "site")).toEqual([
    {
      value: "berlin",
      term: "site=berlin",
      daemons: 2,
      presences: { offline: 1, online: 1 },
      troubled: 1,
      bufferedBytes: 20,
    },
    { value: "oslo", term: "site=oslo", daemons: 1, presences: { online: 1 }, troubled: 0, bufferedBytes: 10 },
    { value: null, term: "-label:site", daemons: 1, presences: { online: 1 }, troubled: 0, bufferedBytes: 10 },
  ]);
});

it("by how they are", () => {
  expect(grouped(all, "presence").map(({ term, daemons }) => [term, daemons])).toEqual([
    ["presence:online", 3],
    ["presence:offline", 1],
  ]);
});
