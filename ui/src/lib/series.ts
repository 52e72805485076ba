// A metric's history as points of a chart. Pure.

import type { SeriesShown } from "@/api/types";

type Point = readonly [unixS: number, value: number | null];

export const SPANS: readonly (readonly [key: string, text: string, seconds: number])[] = [
  ["1h", "Last hour", 3_600],
  ["6h", "Last 6 hours", 6 * 3_600],
  ["24h", "Last 24 hours", 86_400],
  ["7d", "Last 7 days", 7 * 86_400],
  ["31d", "Last 31 days", 31 * 86_400],
];

/** In seconds; an hour for what is none of them. */
export const spanOf = (key: string) => SPANS.find(([each]) => each === key)?.[2] ?? 3_600;

/** The means of the steps; steps of which nothing is known are a gap, and not a line across it. */
export function alongSteps({ step_s, points }: Pick<SeriesShown, "step_s" | "points">, scale = 1): Point[] {
  const line: Point[] = [];
  let before: number | null = null;
  for (const [at = 0, mean = 0] of points) {
    const unixS = at / 1_000;
    if (before !== null && unixS - before > step_s * 1.5) line.push([before + step_s, null]);
    line.push([unixS, mean * scale]);
    before = unixS;
  }
  return line;
}
