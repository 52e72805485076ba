import { afterEach, expect, it, vi } from "vitest";
import { get } from "./client";

afterEach(() => vi.unstubAllGlobals());

it("records are told with their numbers as they are", async () => {
  const text = '{"items":[{"id":9007199254740993,"n":1}]}';
  vi.stubGlobal("fetch", async () => new Response(text, { headers: { "content-type": "application/json" } }));
  expect(await get("/operator/taps/1?after=0")).toEqual({ items: [{ id: 9007199254740993n, n: 1 }] });
});
