// Which workflows are shown, with what their streams add up to. Pure.

import type { RunState, StreamView, WorkflowView } from "@/api/types";
import { longest } from "@/lib/lag";
import { fitsWords } from "@/lib/words";
import { wantsLook } from "@/pages/run/streams";

export interface Row {
  view: WorkflowView;
  rate: number;
  buffered: number;
  /** Of the stream that is furthest behind, in milliseconds; `null`: nothing waits. */
  lagMs: number | null;
  /** Dropped or dead, ever. */
  lost: number;
  /** Some of those want to be looked at. */
  isLosing: boolean;
}

export function withStreams(workflows: readonly WorkflowView[], streams: readonly StreamView[]): Row[] {
  const none = { rate: 0, buffered: 0, lagMs: null, lost: 0, isLosing: false };
  const rows = new Map<string, Row>(workflows.map((view) => [view.name, { view, ...none }]));
  for (const stream of streams) {
    const { workflow, rate, ledger, lag_ms } = stream;
    const row = rows.get(workflow);
    if (!row) continue;
    row.rate += rate;
    row.buffered += ledger.buffered;
    row.lagMs = longest([{ lag_ms }, { lag_ms: row.lagMs }]);
    row.lost += ledger.dropped + ledger.dead;
    row.isLosing ||= wantsLook(stream);
  }
  return [...rows.values()];
}

/** `trouble` is what the overview links to. */
export const STATES: readonly (readonly [value: string, text: string])[] = [
  ["", "Any state"],
  ["trouble", "In trouble"],
  ["running", "Running"],
  ["paused", "Paused"],
  ["unknown", "Unknown"],
];

function isIn(state: RunState | null, wanted: string) {
  if (wanted === "") return true;
  if (wanted === "trouble") return state === "failed" || state === "retrying";
  return (state ?? "unknown") === wanted;
}

export function chooseWorkflows(rows: readonly Row[], typed: string, state: string) {
  return rows.filter(({ view }) => isIn(view.state, state) && fitsWords([view.name, ...view.daemons], typed));
}
