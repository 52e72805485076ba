// A text that is being written: kept by the plane and in this browser until it is applied, and what a new one begins with.
// Pure but for the storage.

import { type Layout, layoutIn } from "@/workflow/history";

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
  /** The revision of the draft at the plane that this goes on from; 0: none. */
  tag: number;
  /** The plane has it just so, or has none because there is nothing to keep. */
  isSent: boolean;
}

/** A draft at the plane. */
export interface Remote extends Omit<Draft, "isSent"> {
  by: string;
  atUnixMs: number;
}

export function readDraft(name: string | null): Draft | null {
  try {
    const draft = JSON.parse(localStorage.getItem(key(name)) ?? "null") as Partial<Draft> | null;
    if (typeof draft?.text !== "string" || typeof draft.from !== "number") return null;
    const { text, from, base, tag, isSent } = draft;
    return {
      text,
      from,
      base: typeof base === "string" ? base : "",
      layout: layoutIn(draft.layout),
      tag: typeof tag === "number" ? tag : 0,
      isSent: isSent === true,
    };
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

/** What the plane calls somebody's draft of a workflow that does not exist yet. */
export const nameOfNew = (user: string) =>
  `new-${user
    .toLowerCase()
    .replaceAll(/[^a-z0-9_-]/g, "-")
    .slice(0, 28)}`;

/** What the plane keeps beside the text, for us to read again. */
export const asLayout = ({ from, layout }: Pick<Draft, "from" | "layout">) => ({ from, layout });

export function fromLayout(value: unknown): Pick<Draft, "from" | "layout"> {
  const { from, layout } = (typeof value === "object" && value !== null ? value : {}) as Record<string, unknown>;
  return { from: typeof from === "number" ? from : 0, layout: layoutIn(layout) };
}

export interface Beginning {
  draft: Draft;
  /** Another draft that the plane has, which this one did not go on from. */
  conflict: Remote | null;
}

/** What somebody goes on with, of the draft in this browser, the one at the plane, and what is deployed. */
export function beginning(
  local: Draft | null,
  /** "unknown": the plane did not say. */
  remote: Remote | null | "unknown",
  deployed: { text: string; revision: number },
): Beginning {
  const fresh = (layout: Layout, owed = { tag: 0, isSent: true }): Beginning => ({
    draft: { text: deployed.text, from: deployed.revision, base: deployed.text, layout, ...owed },
    conflict: null,
  });
  // A draft of before this editor knew the revision's text is compared with what is there.
  const base = local && (local.base || (local.from === deployed.revision ? deployed.text : ""));
  const mine = local && base && local.text !== base ? { ...local, base } : null;
  // Whatever the plane has, it does not let it be overwritten unseen: then there is a conflict.
  if (remote === "unknown") return mine ? { draft: mine, conflict: null } : fresh(local?.layout ?? {});
  if (!remote) {
    // What the plane had, and has no more, was applied or thrown away elsewhere.
    if (!mine || mine.isSent) return fresh(local?.layout ?? {});
    return { draft: { ...mine, tag: 0 }, conflict: null };
  }
  const wasDiscarded = local && !mine && !local.isSent && local.tag === remote.tag && local.text === base;
  if (wasDiscarded) return fresh(local.layout, { tag: local.tag, isSent: false });
  const theirs = { ...remote, isSent: true };
  if (!mine || mine.isSent || mine.text === remote.text) return { draft: theirs, conflict: null };
  return { draft: mine, conflict: mine.tag === remote.tag ? null : remote };
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
