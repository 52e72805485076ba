// @vitest-environment jsdom
import { QueryClient, QueryClientProvider } from "@tanstack/react-query";
import { act, fireEvent, render, screen, within } from "@testing-library/react";
import { expect, it, vi } from "vitest";
import type { WorkflowStatus } from "@/api/types";
import { Delete } from "./delete";

it("what was asked about is deleted, not what was deployed meanwhile", async () => {
  const asked: [string, unknown][] = [];
  vi.stubGlobal("fetch", async (path: string, { method, headers }: { method: string; headers: object }) => {
    asked.push([`${method} ${path}`, Object.entries(headers).find(([name]) => /^if-match$/i.test(name))?.[1]]);
    return new Response("null", { headers: { "content-type": "application/json" } });
  });
  const queries = new QueryClient();
  const at = (revision: number, daemon: string) => {
    const status = { view: { revision }, parts: [{ daemon }], streams: [], nodes: [] } as unknown as WorkflowStatus;
    return (
      <QueryClientProvider client={queries}>
        <Delete name="shop" status={status} />
      </QueryClientProvider>
    );
  };
  const { rerender } = render(at(2, "hub"));
  rerender(at(3, "gateway"));
  fireEvent.click(screen.getByRole("button", { name: "Delete" }));
  rerender(at(4, "other"));
  const dialog = within(screen.getByRole("dialog"));
  dialog.getByText(/^It stops on gateway\. /);
  await act(async () => void fireEvent.click(dialog.getByRole("button", { name: "Delete" })));
  expect(asked).toEqual([["DELETE /api/v1/workflows/shop", '"3"']]);
});
