// Lines of several daemons as one log: together, chosen, and as a file. Pure.

import type { LogLine, WorkflowView } from "@/api/types";
import type { Tone } from "@/components/status";
import { fitsWords } from "@/lib/words";

export interface Line extends LogLine {
  daemon: string;
}

/** Most lines that the page remembers; the oldest go first. */
export const LINES_MAX = 5_000;
/** Most daemons whose logs are read at the same time. */
export const DAEMONS_MAX = 8;

export const LEVEL_TONES: Record<string, Tone> = { ERROR: "bad", WARN: "warn", INFO: "good" };

export const LEVELS = ["error", "warn", "info", "debug", "trace"] as const;

/** A daemon counts its lines anew with each start: the time tells the same number of two starts apart. */
export const keyOf = ({ daemon, number, unix_ms }: Line) => `${daemon} ${number} ${unix_ms}`;

const newestFirst = (a: Line, b: Line) => b.unix_ms - a.unix_ms || b.number - a.number;

/** What was known, and what is new of it, the newest first. The same list when nothing is new. */
export function together(known: readonly Line[], fresh: readonly Line[]): readonly Line[] {
  const keys = new Set(known.map(keyOf));
  const added = fresh.filter((line) => !keys.has(keyOf(line)));
  if (added.length === 0) return known;
  return [...known, ...added].sort(newestFirst).slice(0, LINES_MAX);
}

export const chooseLines = (lines: readonly Line[], typed: string) =>
  typed.trim() === ""
    ? lines
    : lines.filter(({ text, daemon, workflow, level }) => fitsWords([text, daemon, workflow, level], typed));

/** Whose logs are read: the chosen daemon's, the chosen workflow's, or all. */
export function readFrom(
  daemon: string,
  workflow: string,
  daemons: readonly string[],
  workflows: readonly Pick<WorkflowView, "name" | "daemons">[],
) {
  const all = daemon !== "" ? [daemon] : workflow !== "" ? runs(workflows, workflow) : daemons;
  return { from: all.slice(0, DAEMONS_MAX), more: Math.max(0, all.length - DAEMONS_MAX) };
}

const runs = (workflows: readonly Pick<WorkflowView, "name" | "daemons">[], name: string) =>
  workflows.find((each) => each.name === name)?.daemons ?? [];

/** As a file: a line each, the oldest first. */
export function asFile(lines: readonly Line[]) {
  const shown = lines.toReversed().map(({ unix_ms, level, daemon, workflow, text }) => {
    const about = workflow === "" ? "" : ` [${workflow}]`;
    return `${new Date(unix_ms).toISOString()} ${level.padEnd(5)} ${daemon}${about} ${text}`;
  });
  return `${shown.join("\n")}\n`;
}
