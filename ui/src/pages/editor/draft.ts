// A text that is being written: kept in this browser until it is applied, and what a new one begins with. Pure but for the
// storage.

import type { Layout } from "@/workflow/history";

/** Two drafts of one workflow are one: whoever comes back goes on where they were. */
const key = (name: string | null) => `mycelial-draft:${name ?? ""}`;

export interface Draft {
  text: string;
  /** The revision it was begun from. */
  from: number;
  /** That revision's text: what somebody else changed meanwhile is told by it. */
  base: string;
  /** Where nodes stand on the canvas. */
  layout: Layout;
}

/** The positions that are some. */
function layoutIn(value: unknown): Layout {
  const entries = Object.entries(typeof value === "object" && value !== null ? value : {});
  return Object.fromEntries(
    entries
      .filter(([, each]) => Number.isFinite(each?.x) && Number.isFinite(each?.y))
      .map(([id, { x, y }]) => [id, { x, y }]),
  );
}

export function readDraft(name: string | null): Draft | null {
  try {
    const draft = JSON.parse(localStorage.getItem(key(name)) ?? "null") as Partial<Draft> | null;
    if (typeof draft?.text !== "string" || typeof draft.from !== "number") return null;
    const { text, from, base } = draft;
    return { text, from, base: typeof base === "string" ? base : "", layout: layoutIn(draft.layout) };
  } catch {
    return null;
  }
}

/** Whether it is kept: storage may be full or forbidden. */
export function keepDraft(name: string | null, draft: Draft) {
  try {
    localStorage.setItem(key(name), JSON.stringify(draft));
    return true;
  } catch {
    return false;
  }
}

export function forgetDraft(name: string | null) {
  try {
    localStorage.removeItem(key(name));
  } catch {
    // Then there is none.
  }
}

/** A first workflow on the fleet's own daemons, as far as there are some. */
export function template(daemons: readonly string[]) {
  const [first = "gateway", second = first] = daemons;
  return `name = "example"

# Where records come from. All keys but type and daemon belong to the component.
[sources.host]
type = "host_metrics"
daemon = "${first}"

# Where they go. A daemon of its own makes the edge a stream over the bus.
[destinations.out]
type = "file"
daemon = "${second}"
from = "host"
path = "metrics.jsonl"
format = "json_lines"
`;
}

/** The workflow's name in a text; `null` while there is none. */
export const nameIn = (text: string) => /^\s*name\s*=\s*["']([^"']+)["']/m.exec(text)?.[1] ?? null;

/** Where a line (from 1) begins and ends, as offsets into the text. */
export function lineRange(text: string, line: number): [start: number, end: number] {
  let start = 0;
  for (let at = 1; at < line; at += 1) {
    const next = text.indexOf("\n", start);
    if (next < 0) break;
    start = next + 1;
  }
  const end = text.indexOf("\n", start);
  return [start, end < 0 ? text.length : end];
}
