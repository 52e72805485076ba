// How far a stream is behind, in words and as a colour. The plane hears of it every few seconds, so less than that is not told
// apart. Pure.

import type { Tone } from "@/components/status";
import { span } from "./format";

/** How often daemons report, in milliseconds. */
const REPORT_MS = 5_000;
/** From when on somebody may want to look, and from when on something is wrong, in milliseconds. */
const LONG_MS = 60_000;
const TOO_LONG_MS = 10 * 60_000;

/** What it means, for whoever asks. */
export const LAG_MEANS =
  "The oldest record that waits was taken at least so long ago, as far as the plane has watched.";

/** `null`: nothing waits. */
export function lagTone(ms: number | null): Tone {
  if (ms === null || ms < LONG_MS) return "good";
  return ms < TOO_LONG_MS ? "warn" : "bad";
}

export const lagText = (ms: number | null) => (ms === null ? "none" : ms < REPORT_MS ? "< 5 s" : span(ms));

/** Whether it is worth a word beside other numbers. */
export const isBehind = (ms: number | null): ms is number => ms !== null && ms >= REPORT_MS;

/** The longest of several. */
export const longest = (all: readonly { lag_ms: number | null }[]) =>
  all.reduce<number | null>((most, { lag_ms }) => (lag_ms === null ? most : Math.max(most ?? 0, lag_ms)), null);
