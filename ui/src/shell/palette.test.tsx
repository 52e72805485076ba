// @vitest-environment jsdom
import { QueryClient, QueryClientProvider } from "@tanstack/react-query";
import { renderHook } from "@testing-library/react";
import { expect, it, vi } from "vitest";
import { useUser } from "@/api/session";
import { useEntries } from "./palette";

vi.stubGlobal("fetch", () => new Promise(() => {}));

it.each([
  ["viewer", null, []],
  ["operator", null, ["Enrol a daemon", "New workflow"]],
  ["operator", "site=berlin", ["New workflow"]],
  ["admin", null, ["Enrol a daemon", "New workflow"]],
] as const)("a %s who sees %s is offered %j", (role, scope, offered) => {
  useUser.setState({ user: { name: "ada", role, scope } as never });
  const client = new QueryClient();
  const { result } = renderHook(() => useEntries(() => {}), {
    wrapper: ({ children }) => <QueryClientProvider client={client}>{children}</QueryClientProvider>,
  });
  const names = result.current.map(({ name }) => name);
  expect(names.filter((name) => ["Enrol a daemon", "New workflow"].includes(name))).toEqual(offered);
});
