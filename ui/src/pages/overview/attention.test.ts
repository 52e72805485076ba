import { expect, it } from "vitest";
import type { DaemonView, StreamView, WorkflowView } from "@/api/types";
import { attention } from "./attention";

const daemon = (name: string, presence: DaemonView["presence"], damaged = 0): DaemonView => ({
  name,
  node: name,
  presence,
  last_seen_ms: 0,
  version: "0.1.0",
  plan_version: 1,
  plan_wanted: 1,
  troubled: 0,
  damaged,
  resources: { rss_bytes: 0, rss_peak_bytes: 0, cpu_ms: 0, spool_bytes: 0, disk_free_bytes: 0 },
});
const workflow = (name: string, state: WorkflowView["state"]): WorkflowView => ({
  name,
  revision: 1,
  by: "me",
  at_unix_ms: 0,
  daemons: ["gw"],
  state,
});
const stream = (workflow: string, dead: number, trouble = ""): StreamView => ({
  workflow,
  edge: "a->b",
  producer: "gw",
  consumer: "hub",
  epoch: 1,
  ledger: { produced: 9, buffered: 0, delivered: 9, dropped: 0, dead, duplicates: 0, unconfirmed: 0, filtered: 0 },
  balances: true,
  buffered_bytes: 0,
  rate: 1,
  trouble,
});

it("nothing needs attention where all is well", () => {
  expect(attention([daemon("gw", "online")], [workflow("shop", "running")], [stream("shop", 0)])).toEqual([]);
});

it("the worst comes first", () => {
  const items = attention(
    [daemon("late", "late"), daemon("gone", "offline"), daemon("hurt", "online", 2)],
    [workflow("a", "retrying"), workflow("b", "failed"), workflow("c", null)],
    [stream("a", 3), stream("b", 0, "the file cannot be opened"), stream("c", 0, "no account yet")],
  );
  expect(items.map(({ title }) => title)).toEqual([
    "gone is offline",
    "Workflow b has failed",
    "Workflow a keeps retrying",
    "3 dead letters in a, a → b",
    "The stream c, a → b does not flow",
    "late is late",
    "hurt set 2 things aside as damaged",
  ]);
});

it("many of a kind are one line that leads to all of them", () => {
  const all = Array.from({ length: 40 }, (_, at) => daemon(`gw-${at}`, "offline"));
  const [item, ...others] = attention(all, [], []);
  expect(others).toEqual([]);
  expect(item).toMatchObject({ title: "40 daemons are offline", href: "/daemons?q=presence:offline" });
  expect(item?.detail).toContain("gw-0, gw-1, gw-2, gw-3, gw-4 and 35 more");
});
