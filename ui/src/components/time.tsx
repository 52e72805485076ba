// Times: relative to now, exact with its zone on hover and for screen readers. All on the page tick together.

import { useSyncExternalStore } from "react";
import { exact, moment, relative } from "@/lib/format";

const TICK_MS = 1_000;
const listeners = new Set<() => void>();
let now = Date.now();
let timer: ReturnType<typeof setInterval> | undefined;

function listen(listener: () => void) {
  listeners.add(listener);
  if (listeners.size === 1) {
    now = Date.now();
    timer = setInterval(() => {
      now = Date.now();
      for (const each of listeners) each();
    }, TICK_MS);
  }
  return () => {
    listeners.delete(listener);
    if (listeners.size === 0) clearInterval(timer);
  };
}

/** Milliseconds since 1970, once a second. */
export const useNow = () => useSyncExternalStore(listen, () => now);

export function Time({ unixMs }: { unixMs: number }) {
  const at = new Date(unixMs);
  return (
    <time dateTime={at.toISOString()} title={exact(unixMs)} className="tabular whitespace-nowrap">
      {relative(unixMs, useNow())}
    </time>
  );
}

/** A moment among many: to the second, and the rest on hover. */
export function Moment({ unixMs }: { unixMs: number }) {
  return (
    <time
      dateTime={new Date(unixMs).toISOString()}
      title={exact(unixMs)}
      className="tabular font-mono text-xs whitespace-nowrap"
    >
      {moment(unixMs, Date.now())}
    </time>
  );
}
