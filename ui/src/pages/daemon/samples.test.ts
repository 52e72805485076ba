import { expect, it } from "vitest";
import type { Resources } from "@/api/types";
import { append, processor, type Sample } from "./samples";

const resources = (cpu_ms: number): Resources => ({
  rss_bytes: 1,
  rss_peak_bytes: 1,
  cpu_ms,
  spool_bytes: 0,
  disk_free_bytes: 0,
});
const sample = (atMs: number, cpu: number): Sample => ({ atMs, resources: resources(cpu) });

it("the same report is taken once, and old ones make room", () => {
  const one = append([], sample(0, 10));
  expect(append(one, sample(1_000, 10))).toBe(one);
  let all: readonly Sample[] = [];
  for (let at = 0; at < 1_000; at += 1) all = append(all, sample(at, at));
  expect([all.length, all[0]?.atMs]).toEqual([300, 700]);
});

it("processor time is a share, and a restart is a gap", () => {
  expect(processor([sample(0, 100), sample(2_000, 200), sample(4_000, 20), sample(5_000, 520)])).toEqual([
    [2, 5],
    [4, null],
    [5, 50],
  ]);
});
