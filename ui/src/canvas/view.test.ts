import { describe, expect, it } from "vitest";
import { viewOf } from "./view";

const seen = (x: number, y: number, { x: left, y: top, zoom }: ReturnType<typeof viewOf>) => [
  x * zoom + left,
  y * zoom + top,
];

describe("what is seen at first", () => {
  it("is all of it, in the middle, at its own size at most", () => {
    const view = viewOf({ x: 100, y: 50, width: 200, height: 60 }, 1_000, 400);
    expect(view.zoom).toBe(1);
    expect(seen(200, 80, view)).toEqual([500, 200]);
  });

  it("is all of it, however large, where there is a screen for it", () => {
    const view = viewOf({ x: 0, y: 0, width: 4_000, height: 400 }, 1_000, 400);
    expect(seen(0, 200, view)[0]).toBeGreaterThanOrEqual(0);
    expect(seen(4_000, 200, view)[0]).toBeLessThanOrEqual(1_000);
  });

  it("is its beginning, large enough to read, on a telephone", () => {
    const view = viewOf({ x: -40, y: 20, width: 196, height: 900 }, 343, 384);
    expect(view.zoom).toBe(0.7);
    expect(seen(-40, 20, view)).toEqual([(343 - 196 * 0.7) / 2, 16]);
  });
});
