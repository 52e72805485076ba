// What a daemon used while its page is open, from its reports.

import { useEffect, useState } from "react";
import type { Resources } from "@/api/types";
import type { Point } from "@/components/chart";

const SAMPLES_MAX = 300;

export interface Sample {
  atMs: number;
  resources: Resources;
}

/** With one more; a report that says the same again is the same report. */
export function append(samples: readonly Sample[], sample: Sample): readonly Sample[] {
  const last = samples.at(-1);
  if (last && last.resources.cpu_ms === sample.resources.cpu_ms) return samples;
  return [...samples, sample].slice(-SAMPLES_MAX);
}

export const points = (samples: readonly Sample[], value: (resources: Resources) => number): Point[] =>
  samples.map(({ atMs, resources }) => [atMs / 1_000, value(resources)]);

/** Percent of one processor, between each two samples; a restart is a gap. */
export function processor(samples: readonly Sample[]): Point[] {
  return samples.slice(1).map((sample, at) => {
    const before = samples[at] ?? sample;
    const used = sample.resources.cpu_ms - before.resources.cpu_ms;
    const ms = sample.atMs - before.atMs;
    return [sample.atMs / 1_000, used < 0 || ms <= 0 ? null : (used / ms) * 100];
  });
}

/** `null`: nothing is known yet. */
export function useSamples(resources: Resources | null): readonly Sample[] {
  const [samples, setSamples] = useState<readonly Sample[]>([]);
  useEffect(() => {
    if (resources) setSamples((before) => append(before, { atMs: Date.now(), resources }));
  }, [resources]);
  return samples;
}
