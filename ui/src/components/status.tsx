// How something is, by text, colour and shape: a disc is well, a triangle wants to be looked at, a square is broken, a
// ring is not known.

import type { Presence, RunState } from "@/api/types";
import { cx } from "@/lib/cx";

export type Tone = "good" | "warn" | "bad" | "off";

const COLOURS: Record<Tone, string> = { good: "text-good", warn: "text-warn", bad: "text-bad", off: "text-muted" };

function Shape({ tone }: { tone: Tone }) {
  return (
    <svg viewBox="0 0 10 10" className="size-2.5 shrink-0 fill-current" aria-hidden="true">
      {tone === "good" && <circle cx="5" cy="5" r="4" />}
      {tone === "warn" && <path d="M5 .8 9.6 9.2H.4z" />}
      {tone === "bad" && <rect x="1" y="1" width="8" height="8" rx="1" />}
      {tone === "off" && <circle cx="5" cy="5" r="3.4" fill="none" stroke="currentColor" strokeWidth="1.4" />}
    </svg>
  );
}

export function Status({ tone, children, className }: { tone: Tone; children: string; className?: string }) {
  return (
    <span className={cx("inline-flex items-center gap-1.5 align-top whitespace-nowrap", COLOURS[tone], className)}>
      <Shape tone={tone} />
      {children}
    </span>
  );
}

export const PRESENCE_TONES: Record<Presence, Tone> = { online: "good", late: "warn", offline: "bad", unknown: "off" };

export const RUN_TONES: Record<RunState, Tone> = {
  starting: "warn",
  running: "good",
  retrying: "warn",
  failed: "bad",
  finished: "good",
  stopping: "warn",
  paused: "off",
};

export const PresenceStatus = ({ presence }: { presence: Presence }) => (
  <Status tone={PRESENCE_TONES[presence]}>{presence}</Status>
);

/** `null`: no daemon has reported yet. */
export const RunStatus = ({ state }: { state: RunState | null }) => (
  <Status tone={state === null ? "off" : RUN_TONES[state]}>{state ?? "unknown"}</Status>
);
