// What needs somebody: the worst first, each with where to go. Pure.

import type { AlertView, DaemonView, RolloutView, StreamView, WorkflowView } from "@/api/types";
import type { Tone } from "@/components/status";
import { bytes, count } from "@/lib/format";

export interface Item {
  key: string;
  tone: Extract<Tone, "bad" | "warn">;
  title: string;
  /** What is known about why. */
  detail: string;
  href: string;
}

const part = encodeURIComponent;

/** More of one kind than this are one line. */
const LINES_MAX = 5;

/** One line each, or one for all when there are many. */
function grouped(items: readonly Item[], all: Omit<Item, "detail">): Item[] {
  if (items.length <= LINES_MAX) return [...items];
  const names = items.slice(0, LINES_MAX).map((item) => item.key.split("/")[1]);
  return [{ ...all, detail: `${names.join(", ")} and ${items.length - LINES_MAX} more` }];
}

function offline(daemons: readonly DaemonView[]) {
  const items = daemons
    .filter((daemon) => daemon.presence === "offline")
    .map<Item>((daemon) => ({
      key: `offline/${daemon.name}`,
      tone: "bad",
      title: `${daemon.name} is offline`,
      detail: "What it produces waits on its disk, and what is meant for it waits with the senders.",
      href: `/daemons/${part(daemon.name)}`,
    }));
  return grouped(items, {
    key: "offline",
    tone: "bad",
    title: `${count(items.length, "daemon")} are offline`,
    href: "/daemons?q=presence:offline",
  });
}

function failing(workflows: readonly WorkflowView[]) {
  const items = workflows
    .filter((workflow) => workflow.state === "failed" || workflow.state === "retrying")
    .map<Item>((workflow) => ({
      key: `workflow/${workflow.name}`,
      tone: workflow.state === "failed" ? "bad" : "warn",
      title: `Workflow ${workflow.name} ${workflow.state === "failed" ? "has failed" : "keeps retrying"}`,
      detail: `On ${workflow.daemons.slice(0, LINES_MAX).join(", ")}`,
      href: `/workflows/${part(workflow.name)}`,
    }));
  return grouped(items, {
    key: "workflows",
    tone: "bad",
    title: `${count(items.length, "workflow")} have failed or keep retrying`,
    href: "/workflows?state=trouble",
  });
}

/** Letters that wait for somebody. Daemons of an earlier version do not tell: then all that died. */
function letters(workflows: readonly WorkflowView[], all: readonly StreamView[]) {
  const items: Item[] = [];
  for (const { name, letters_kept } of workflows) {
    const own = all.filter(({ workflow }) => workflow === name);
    const kept = letters_kept ?? own.reduce((sum, { ledger }) => sum + ledger.dead, 0);
    if (kept === 0) continue;
    items.push({
      key: `letters/${name}`,
      tone: "warn",
      title: `${count(kept, "dead letter")} in ${name}`,
      detail: own.find(({ ledger, trouble }) => ledger.dead > 0 && trouble !== "")?.trouble ?? "",
      href: `/workflows/${part(name)}/letters`,
    });
  }
  return grouped(items, {
    key: "letters",
    tone: "warn",
    title: `${count(items.length, "workflow")} have dead letters`,
    href: "/workflows",
  });
}

function streams(all: readonly StreamView[], failed: ReadonlySet<string>) {
  const items: Item[] = [];
  for (const stream of all) {
    const { dropped } = stream.ledger;
    const key = `stream/${stream.workflow} ${stream.edge} ${stream.producer}`;
    const href = `/workflows/${part(stream.workflow)}`;
    const name = `${stream.workflow}, ${stream.edge.replace("->", " → ")}`;
    if (stream.dropped_lately ?? dropped > 0) {
      const title = `${count(dropped, "record")} given up in ${name}`;
      items.push({ key, tone: "warn", title, detail: "As the workflow's policy for a full buffer wants it.", href });
    } else if (stream.trouble !== "" && !failed.has(stream.workflow)) {
      items.push({ key, tone: "warn", title: `The stream ${name} does not flow`, detail: stream.trouble, href });
    }
  }
  return grouped(items, {
    key: "streams",
    tone: "warn",
    title: `${count(items.length, "stream")} are in trouble`,
    href: "/streams",
  });
}

/** From how full on a buffer wants to be looked at. */
const FULL = 0.8;

/** The node that a stream goes into: `a->b`, `a->b#2` with what is live first, `a.b-3->b.3` of a shared destination. */
export const consumerOf = (stream: Pick<StreamView, "edge">) =>
  stream.edge
    .split("->")
    .at(-1)
    ?.replace(/[#.].*$/, "") ?? "";

/** What the streams into each node may buffer, in bytes: by workflow and node. */
export type Quotas = ReadonlyMap<string, ReadonlyMap<string, number>>;

function full(all: readonly StreamView[], quotas: Quotas) {
  const items: Item[] = [];
  for (const stream of all) {
    const { workflow, edge, producer, buffered_bytes } = stream;
    const quota = quotas.get(workflow)?.get(consumerOf(stream));
    if (quota === undefined || buffered_bytes < FULL * quota) continue;
    const share = Math.min(100, Math.floor((100 * buffered_bytes) / quota));
    items.push({
      key: `full/${workflow} ${edge} ${producer}`,
      tone: "warn",
      title: `The buffer of ${workflow}, ${edge.replace("->", " → ")} is nearly full`,
      detail: `${share} % of ${bytes(quota)} on ${producer}`,
      href: `/workflows/${part(workflow)}`,
    });
  }
  return grouped(items, {
    key: "full",
    tone: "warn",
    title: `${count(items.length, "buffer")} are nearly full`,
    href: "/streams",
  });
}

function rest(daemons: readonly DaemonView[]) {
  const items: Item[] = [];
  for (const { name, damaged, presence } of daemons) {
    const href = `/daemons/${part(name)}`;
    if (damaged > 0) {
      const title = `${name} set ${count(damaged, "thing")} aside as damaged`;
      items.push({ key: `damaged/${name}`, tone: "warn", title, detail: "Nothing waits for it.", href });
    }
    if (presence === "late") {
      items.push({ key: `late/${name}`, tone: "warn", title: `${name} is late`, detail: "Its lease ran out.", href });
    }
  }
  return grouped(items, {
    key: "daemons",
    tone: "warn",
    title: `${count(items.length, "daemon")} want to be looked at`,
    href: "/daemons?sort=-trouble",
  });
}

/** Rollouts that wait for somebody, or go back. */
function stuck(rollouts: readonly RolloutView[]) {
  const items = rollouts
    .filter(({ phase }) => phase === "paused" || phase === "rolling_back")
    .map<Item>(({ id, workflow, phase, cause }) => ({
      key: `rollout/${id}`,
      tone: phase === "paused" ? "warn" : "bad",
      title: `Rollout ${id} of ${workflow} ${phase === "paused" ? "is paused" : "is going back"}`,
      detail: cause,
      href: `/rollouts/${id}`,
    }));
  return grouped(items, {
    key: "rollouts",
    tone: "warn",
    title: `${count(items.length, "rollout")} wait for somebody`,
    href: "/rollouts",
  });
}

/** One line for all that fire and that nobody has silenced: what they are about mostly has a line of its own. */
function alarms(alerts: readonly AlertView[]): Item[] {
  const firing = alerts.filter((alert) => alert.state === "firing" && alert.silenced_until_unix_ms === 0);
  const [first] = firing;
  if (!first) return [];
  const isBad = firing.some(({ severity }) => severity === "critical");
  return [
    {
      key: "alerts",
      tone: isBad ? "bad" : "warn",
      title: firing.length === 1 ? "1 alert fires" : `${count(firing.length, "alert")} fire`,
      detail: firing.length === 1 ? first.summary : `${first.summary}, and more`,
      href: "/alerts",
    },
  ];
}

interface Fleet {
  daemons: readonly DaemonView[];
  workflows: readonly WorkflowView[];
  streams: readonly StreamView[];
  rollouts?: readonly RolloutView[];
  alerts?: readonly AlertView[];
  quotas?: Quotas;
}

/** What is said where nothing needs attention: no more than was looked at. */
export function verdict(seesAll: boolean, isKnown: boolean, isFailed: boolean): { tone: Tone; text: string } {
  if (!isKnown) return { tone: "off", text: isFailed ? "Some of it cannot be asked for." : "Asking …" };
  if (seesAll) return { tone: "good", text: "Everything runs as it should." };
  return { tone: "off", text: "Nothing is known to be wrong with the daemons, workflows and streams that you see." };
}

const NO_QUOTAS: Quotas = new Map();

export function attention(fleet: Fleet): Item[] {
  const { daemons, workflows, streams: all, rollouts = [], alerts = [], quotas = NO_QUOTAS } = fleet;
  const failed = new Set(workflows.filter(({ state }) => state === "failed").map(({ name }) => name));
  const items = [
    ...offline(daemons),
    ...failing(workflows),
    ...stuck(rollouts),
    ...alarms(alerts),
    ...full(all, quotas),
    ...letters(workflows, all),
    ...streams(all, failed),
    ...rest(daemons),
  ];
  return [...items.filter(({ tone }) => tone === "bad"), ...items.filter(({ tone }) => tone === "warn")];
}
