// @vitest-environment jsdom
import { act, cleanup, renderHook } from "@testing-library/react";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import type { TapShown } from "@/api/types";
import { useTap } from "./tap";

const TAP = { id: 1, node: "db", daemon: "hub", left_s: 30, is_over: false, cause: "" } as unknown as TapShown;

beforeEach(() => {
  vi.useFakeTimers();
});
afterEach(() => {
  cleanup();
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

const answers = (status: number) =>
  vi.stubGlobal("fetch", async () => {
    const headers = { "content-type": "application/problem+json" };
    return new Response(JSON.stringify({ detail: "no", hint: "" }), { status, headers });
  });

async function after(ms: number) {
  const { result } = renderHook(useTap);
  act(() => result.current.begin(TAP));
  await act(() => vi.advanceTimersByTimeAsync(ms));
  return result.current;
}

it("a tap that the plane has forgotten is over", async () => {
  answers(404);
  const { tapped, error } = await after(1_000);
  expect(tapped?.tap).toMatchObject({ is_over: true, left_s: 0, cause: "the plane does not know this tap any more" });
  expect(error).toBeNull();
});

it("a tap of which nothing is heard is over when its time is", async () => {
  answers(504);
  const before = await after(30_000);
  expect([before.tapped?.tap.is_over, before.error]).toEqual([false, expect.any(Error)]);
  const later = await after(37_000);
  expect([later.tapped?.tap.is_over, later.error]).toEqual([true, null]);
});
