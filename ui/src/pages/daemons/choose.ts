// Which daemons are shown, and in which order. Pure.

import type { DaemonItem, Presence, WorkflowView } from "@/api/types";
import type { Sort } from "@/components/virtual-table";
import type { Candidate } from "@/lib/selector";

/** What wants to be looked at first. */
const WORST_FIRST: Record<Presence, number> = { offline: 0, late: 1, unknown: 2, online: 3 };

const NAMES = new Intl.Collator("en", { numeric: true });
const byNumber =
  (value: (daemon: DaemonItem) => number) =>
  (a: DaemonItem, b: DaemonItem): number =>
    value(a) - value(b);

const ORDERS: Record<string, (a: DaemonItem, b: DaemonItem) => number> = {
  name: () => 0,
  presence: byNumber((daemon) => WORST_FIRST[daemon.presence]),
  seen: byNumber((daemon) => daemon.last_seen_ms ?? Number.MAX_SAFE_INTEGER),
  trouble: byNumber((daemon) => daemon.troubled * 1_000 + daemon.damaged),
  memory: byNumber((daemon) => daemon.resources.rss_bytes),
  buffered: byNumber((daemon) => daemon.resources.spool_bytes),
  disk: byNumber((daemon) => daemon.resources.disk_free_bytes),
  version: (a, b) => NAMES.compare(a.version, b.version),
};

/** Workflows by daemon, as the list of workflows tells them. */
export function runsOf(workflows: readonly WorkflowView[]) {
  const runs = new Map<string, string[]>();
  for (const workflow of workflows) {
    for (const daemon of workflow.daemons) {
      const of = runs.get(daemon);
      if (of) of.push(workflow.name);
      else runs.set(daemon, [workflow.name]);
    }
  }
  return runs;
}

const NO_RUNS: readonly string[] = [];

/** Equal ones are by name, so that nothing jumps. */
export function chooseDaemons(
  all: readonly DaemonItem[],
  test: (candidate: Candidate) => boolean,
  runs: ReadonlyMap<string, readonly string[]>,
  sort: Sort,
) {
  const order = ORDERS[sort.key] ?? ORDERS.name;
  const sign = sort.isDescending ? -1 : 1;
  return all
    .filter((view) => test({ view, labels: view.labels, runs: runs.get(view.name) ?? NO_RUNS }))
    .sort((a, b) => {
      const first = (order?.(a, b) ?? 0) * sign;
      if (first !== 0) return first;
      return NAMES.compare(a.name, b.name) * (sort.key === "name" ? sign : 1);
    });
}
