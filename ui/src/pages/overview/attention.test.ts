import { expect, it } from "vitest";
import type { AlertView, DaemonView, RolloutView, StreamView, WorkflowView } from "@/api/types";
import { USUAL } from "@/lib/rollout";
import { attention, consumerOf, verdict } from "./attention";

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
  lag_ms: null,
  trouble,
});

it.each([
  [true, true, false, "good", /^Everything runs/],
  [true, false, false, "off", /^Asking/],
  [true, false, true, "off", /cannot be asked for/],
  [false, false, false, "off", /^Asking/],
  [false, true, false, "off", /that you see/],
])("sees all %s, known %s, failed %s", (seesAll, isKnown, isFailed, tone, text) => {
  const said = verdict(seesAll, isKnown, isFailed);
  expect(said.tone).toBe(tone);
  expect(said.text).toMatch(text);
});

it("nothing needs attention where all is well", () => {
  const daemons = [daemon("gw", "online")];
  expect(attention({ daemons, workflows: [workflow("shop", "running")], streams: [stream("shop", 0)] })).toEqual([]);
});

it("the worst comes first", () => {
  const items = attention({
    daemons: [daemon("late", "late"), daemon("gone", "offline"), daemon("hurt", "online", 2)],
    workflows: [workflow("a", "retrying"), workflow("b", "failed"), workflow("c", null)],
    streams: [stream("a", 3), stream("b", 0, "the file cannot be opened"), stream("c", 0, "no account yet")],
  });
  expect(items.map(({ title }) => title)).toEqual([
    "gone is offline",
    "Workflow b has failed",
    "Workflow a keeps retrying",
    "3 dead letters in a",
    "The stream c, a → b does not flow",
    "late is late",
    "hurt set 2 things aside as damaged",
  ]);
});

it("what was discarded or dropped long ago needs nobody, however much the ledger counts", () => {
  const told = (kept: Pick<WorkflowView, "letters_kept">, dropped: Pick<StreamView, "dropped_lately">) => {
    const one = stream("shop", 3);
    const streams = [{ ...one, ledger: { ...one.ledger, dropped: 2 }, ...dropped }];
    return attention({ daemons: [], workflows: [{ ...workflow("shop", "running"), ...kept }], streams });
  };
  expect(told({ letters_kept: 0 }, { dropped_lately: false })).toEqual([]);
  expect(told({ letters_kept: 1 }, { dropped_lately: false })).toMatchObject([
    { title: "1 dead letter in shop", href: "/workflows/shop/letters" },
  ]);
  expect(told({ letters_kept: 0 }, { dropped_lately: true })).toMatchObject([
    { title: "2 records given up in shop, a → b" },
  ]);
  // A daemon that does not tell: all that there is.
  expect(told({}, {})).toHaveLength(2);
});

it("many of a kind are one line that leads to all of them", () => {
  const all = Array.from({ length: 40 }, (_, at) => daemon(`gw-${at}`, "offline"));
  const [item, ...others] = attention({ daemons: all, workflows: [], streams: [] });
  expect(others).toEqual([]);
  expect(item).toMatchObject({ title: "40 daemons are offline", href: "/daemons?q=presence:offline" });
  expect(item?.detail).toContain("gw-0, gw-1, gw-2, gw-3, gw-4 and 35 more");
});

it.each([
  ["a->b", "b"],
  ["a->b#2", "b"],
  ["a.b-3->b.3", "b"],
])("%s goes into %s", (edge, node) => expect(consumerOf({ edge })).toBe(node));

it("a buffer that is nearly full is told, with how much it may hold", () => {
  const quotas = new Map([["shop", new Map([["b", 1_000_000]])]]);
  const held = (buffered_bytes: number, workflow = "shop") => ({ ...stream(workflow, 0), buffered_bytes });
  const told = (streams: StreamView[]) => attention({ daemons: [], workflows: [], streams, quotas });
  expect(told([held(799_999), held(5e9, "unknown")])).toEqual([]);
  expect(told([held(850_000)])).toEqual([
    {
      key: "full/shop a->b gw",
      tone: "warn",
      title: "The buffer of shop, a → b is nearly full",
      detail: "85 % of 977 KiB on gw",
      href: "/workflows/shop",
    },
  ]);
});

it("rollouts that wait and alerts that fire are told, those that are silenced are not", () => {
  const rollout = (id: number, phase: RolloutView["phase"]): RolloutView => ({
    id,
    workflow: "shop",
    revision: 2,
    before: 1,
    by: "me",
    at_unix_ms: 0,
    phase,
    wave: 1,
    waves: [],
    cause: "not today",
    failures: [],
    policy: USUAL,
  });
  const alert = (id: string, state: AlertView["state"], silenced_until_unix_ms = 0): AlertView => ({
    id,
    rule: "disk-free",
    subject: "daemon:gw",
    severity: "critical",
    state,
    since_unix_ms: 0,
    summary: "little disk",
    silenced_until_unix_ms,
    silence_reason: "",
  });
  const items = attention({
    daemons: [],
    workflows: [],
    streams: [],
    rollouts: [rollout(1, "done"), rollout(2, "paused"), rollout(3, "soaking")],
    alerts: [alert("a", "firing"), alert("b", "pending"), alert("c", "firing", 9)],
  });
  expect(items.map(({ title, detail }) => [title, detail])).toEqual([
    ["1 alert fires", "little disk"],
    ["Rollout 2 of shop is paused", "not today"],
  ]);
});
