// @vitest-environment jsdom
import { QueryClient, QueryClientProvider } from "@tanstack/react-query";
import { act, cleanup, renderHook } from "@testing-library/react";
import type { ReactNode } from "react";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { keys } from "@/api/keys";
import { APART_MS, useLettersAgain } from "./again";

interface Told {
  kept?: number;
  dead?: number;
  rate?: number;
  presence?: string;
  /** Of another workflow, and of a daemon that is not asked. */
  other?: number;
}

let queries: QueryClient;
let asked: ReturnType<typeof vi.spyOn>;

function picture({ kept = 1, dead = 1, rate = 1, presence = "online", other = 0 }: Told) {
  const ledger = (count: number) => ({ ledger: { dead: count }, rate });
  queries.setQueryData(keys.workflows, [
    { name: "shop", letters_kept: kept },
    { name: "store", letters_kept: other },
  ]);
  queries.setQueryData(keys.streams, [
    { workflow: "shop", ...ledger(dead) },
    { workflow: "store", ...ledger(other) },
  ]);
  queries.setQueryData(keys.daemons, [
    { name: "hub", presence },
    { name: "far", presence: other > 0 ? "offline" : "online" },
  ]);
}

/** What the next picture tells, and so long after it. */
const then = (told: Told, ms: number) =>
  act(async () => {
    picture(told);
    await vi.advanceTimersByTimeAsync(ms);
  });

beforeEach(() => {
  vi.useFakeTimers();
  queries = new QueryClient({ defaultOptions: { queries: { staleTime: Infinity } } });
  asked = vi.spyOn(queries, "invalidateQueries");
  picture({});
  const wrapper = ({ children }: { children: ReactNode }) => (
    <QueryClientProvider client={queries}>{children}</QueryClientProvider>
  );
  renderHook(() => useLettersAgain("shop", ["hub"]), { wrapper });
});
afterEach(() => {
  cleanup();
  vi.useRealTimers();
});

it.each<[string, Told, number]>([
  ["nothing changes", {}, 0],
  ["records flow", { rate: 9 }, 0],
  ["others have letters", { other: 3 }, 0],
  ["one more is kept", { kept: 2 }, 1],
  ["one is discarded", { kept: 0 }, 1],
  ["one died again", { dead: 2 }, 1],
  ["its daemon is away", { presence: "offline" }, 1],
])("while %s (%j) they are asked for %d times", async (_, told, times) => {
  await then({}, APART_MS);
  for (let seconds = 0; seconds < 60; seconds += 1) await then(told, 1_000);
  expect(asked).toHaveBeenCalledTimes(times);
  if (times > 0) expect(asked).toHaveBeenCalledWith({ queryKey: keys.lettersOf("shop") });
});

it("they are asked for again when their daemon is back", async () => {
  await then({ presence: "offline" }, 2 * APART_MS);
  await then({}, APART_MS);
  expect(asked).toHaveBeenCalledTimes(2);
});

it("one that went and came back may be another by now", async () => {
  await then({ kept: 0 }, 1_000);
  await then({}, 2 * APART_MS);
  expect(asked).toHaveBeenCalledTimes(1);
});

it("however many come, they are asked for now and then, and for the last", async () => {
  for (let kept = 2; kept <= 29; kept += 1) await then({ kept }, 1_000);
  expect(asked).toHaveBeenCalledTimes(Math.floor(28_000 / APART_MS));
  await then({ kept: 29 }, APART_MS);
  expect(asked).toHaveBeenCalledTimes(6);
  await then({ kept: 29 }, 10 * APART_MS);
  expect(asked).toHaveBeenCalledTimes(6);
});
