import { expect, it } from "vitest";
import type { SeriesShown } from "@/api/types";
import { alongSteps, spanOf } from "./series";

const point = (at: number, mean: number) => [at, mean, mean, mean] as SeriesShown["points"][number];

it("what is not known is a gap", () => {
  const points = [point(0, 5), point(10_000, 6), point(40_000, 7)];
  expect(alongSteps({ step_s: 10, points }, 2)).toEqual([
    [0, 10],
    [10, 12],
    [20, null],
    [40, 14],
  ]);
  expect(alongSteps({ step_s: 0, points: [] })).toEqual([]);
});

it("an address that names no time means an hour", () => {
  expect([spanOf("7d"), spanOf("nonsense")]).toEqual([604_800, 3_600]);
});
