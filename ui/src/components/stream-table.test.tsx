// @vitest-environment jsdom
import { QueryClient, QueryClientProvider } from "@tanstack/react-query";
import { render } from "@testing-library/react";
import { expect, it, vi } from "vitest";
import type { StreamView } from "@/api/types";
import { StreamTable } from "./stream-table";

vi.stubGlobal("fetch", () => new Promise(() => {}));
vi.stubGlobal(
  "ResizeObserver",
  class {
    observe() {}
    disconnect() {}
  },
);

const LEDGER = {
  produced: 9,
  delivered: 9,
  buffered: 0,
  dropped: 0,
  dead: 0,
  filtered: 0,
  unconfirmed: 0,
  duplicates: 0,
};

function shown(rate: number, bytes_per_s: number | undefined) {
  const names = { workflow: "shop", edge: "a->b", producer: "hub", consumer: "gateway" };
  const rest = { buffered_bytes: 0, lag_ms: null, trouble: "", balances: true, bytes_per_s, rate };
  const stream = { ...names, ...rest, ledger: LEDGER } as unknown as StreamView;
  const { container, unmount } = render(
    <QueryClientProvider client={new QueryClient()}>
      <StreamTable streams={[stream]} />
    </QueryClientProvider>,
  );
  const text = container.textContent ?? "";
  unmount();
  return text;
}

it.each([
  [12, 1_700, "1.7 KiB/s"],
  // A large record now and then.
  [0, 1_400_000, "1.3 MiB/s"],
])("%d records a second, and %d bytes", (rate, bytes, said) => expect(shown(rate, bytes)).toContain(said));

it.each([
  [0, 0],
  [12, 0],
  [12, undefined],
])("%d records a second, and %s bytes: nothing is said of them", (rate, bytes) =>
  expect(shown(rate, bytes)).not.toContain("B/s"),
);
