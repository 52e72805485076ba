// @vitest-environment jsdom
import { QueryClient, QueryClientProvider } from "@tanstack/react-query";
import { cleanup, render } from "@testing-library/react";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { keys } from "@/api/keys";
import { useUser } from "@/api/session";
import Overview from ".";

const DAEMON = { name: "hub", node: "hub", presence: "online", labels: {}, last_seen_ms: 1, resources: {} };
const GREEN = "Everything runs as it should.";

beforeEach(() => {
  useUser.setState({ user: { name: "ada", role: "admin", scope: null } as never, isSetup: false });
  vi.stubGlobal("fetch", () => new Promise(() => {}));
});
afterEach(() => {
  cleanup();
  vi.unstubAllGlobals();
});

function shown(known: Record<string, readonly string[]>) {
  const queries = new QueryClient({ defaultOptions: { queries: { staleTime: Infinity } } });
  queries.setQueryData(keys.daemons, [DAEMON]);
  for (const key of Object.values(known)) queries.setQueryData(key, []);
  render(
    <QueryClientProvider client={queries}>
      <Overview />
    </QueryClientProvider>,
  );
  return document.body.textContent ?? "";
}

const { workflows, streams, rollouts, alerts } = keys;

it("nothing is said to be well, or not to be there, before it is known", () => {
  const text = shown({ rollouts, alerts });
  expect(text).toContain("Asking …");
  expect(text).not.toContain(GREEN);
  expect(text).not.toContain("No workflow yet");
  expect(text).toContain("Workflows–");
  expect(text).toContain("Records per second–Buffered on disk–");
});

it("streams count as well", () => expect(shown({ workflows, rollouts, alerts })).not.toContain(GREEN));

it("what is known is said", () => {
  const text = shown({ workflows, streams, rollouts, alerts });
  expect(text).toContain(GREEN);
  expect(text).toContain("No workflow yet");
});
