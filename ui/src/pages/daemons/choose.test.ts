import { expect, it } from "vitest";
import type { DaemonItem } from "@/api/types";
import { parseSort } from "@/components/virtual-table";
import { chooseDaemons, runsOf } from "./choose";

const daemon = (name: string, presence: DaemonItem["presence"], rss_bytes: number): DaemonItem => ({
  name,
  node: name,
  labels: {},
  presence,
  last_seen_ms: null,
  version: "0.1.0",
  plan_version: 1,
  plan_wanted: 1,
  troubled: 0,
  damaged: 0,
  resources: { rss_bytes, rss_peak_bytes: 0, cpu_ms: 0, spool_bytes: 0, disk_free_bytes: 0 },
});

const ALL = [daemon("gw-10", "online", 3), daemon("gw-9", "offline", 2), daemon("hub", "online", 2)];
const names = (sort: string) => chooseDaemons(ALL, () => true, new Map(), parseSort(sort)).map((each) => each.name);

it.each([
  ["name", ["gw-9", "gw-10", "hub"]],
  ["-name", ["hub", "gw-10", "gw-9"]],
  ["presence", ["gw-9", "gw-10", "hub"]],
  ["memory", ["gw-9", "hub", "gw-10"]],
  ["-memory", ["gw-10", "gw-9", "hub"]],
  ["nonsense", ["gw-9", "gw-10", "hub"]],
])("sorted by %s", (sort, expected) => expect(names(sort)).toEqual(expected));

it("what runs where decides too", () => {
  const shop = { name: "shop", revision: 1, by: "me", at_unix_ms: 0, daemons: ["hub", "gw-9"], state: null };
  const runs = runsOf([shop, { ...shop, name: "host", daemons: ["hub"] }]);
  expect(runs.get("hub")).toEqual(["shop", "host"]);
  const chosen = chooseDaemons(ALL, (each) => each.runs.includes("shop"), runs, parseSort("name"));
  expect(chosen.map((each) => each.name)).toEqual(["gw-9", "hub"]);
});
