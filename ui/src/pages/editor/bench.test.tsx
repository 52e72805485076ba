// @vitest-environment jsdom
import { QueryClient, QueryClientProvider } from "@tanstack/react-query";
import { act, cleanup, fireEvent, render, renderHook, screen, waitFor } from "@testing-library/react";
import type { ReactElement } from "react";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { keys } from "@/api/keys";
import { useUser } from "@/api/session";
import type { Rank } from "@/api/types";
import { readGraph } from "@/workflow/graph";
import TestConnection from "./connection";
import { Deploy } from "./deploy";
import { Preview } from "./preview";
import { renamed } from "./problems";
import { useWorkbench, type Workbench } from "./state";
import { Tests } from "./tests";

const TEXT = `name = "shop"

[sources.db]
type = "sqlite"
daemon = "hub"
path = "shop.db"

[tests.one]
given = { db = [] }
`;

let answers: Record<string, unknown>;
let asked: string[];

const become = (role: Rank) => useUser.setState({ user: { name: "ada", role, scope: null } as never });

beforeEach(() => {
  become("operator");
  asked = [];
  vi.stubGlobal(
    "ResizeObserver",
    class {
      observe() {}
      unobserve() {}
      disconnect() {}
    },
  );
  vi.stubGlobal("fetch", async (path: string, { method }: { method: string }) => {
    asked.push(`${method} ${path}`);
    const body = Object.entries(answers).find(([end]) => path.endsWith(end))?.[1];
    const headers = { "content-type": "application/json" };
    return new Response(JSON.stringify(body ?? { items: [], next: null }), { headers });
  });
});
afterEach(() => {
  cleanup();
  vi.unstubAllGlobals();
});

function benchOf(text: string) {
  const { graph } = readGraph(text);
  if (!graph) throw new Error("it is TOML");
  const base = { text: TEXT, revision: 3 };
  return { name: "shop", text, graph, base, daemons: ["hub"], selected: [], set: () => {} } as unknown as Workbench;
}

function shown(element: ReactElement) {
  const queries = new QueryClient({ defaultOptions: { queries: { retry: false, staleTime: Infinity } } });
  queries.setQueryData(keys.daemons, [{ name: "hub", labels: {} }]);
  queries.setQueryData(keys.workflows, [{ name: "shop", daemons: ["hub"] }]);
  queries.setQueryData(keys.groups, []);
  const inside = (each: ReactElement) => <QueryClientProvider client={queries}>{each}</QueryClientProvider>;
  const { rerender } = render(inside(element));
  return (each: ReactElement) => rerender(inside(each));
}

const press = async (name: string) =>
  act(async () => {
    fireEvent.click(screen.getByRole("button", { name }));
  });

const node = () => benchOf(TEXT).graph.nodes[0] as never;
const OTHER = TEXT.replace("shop.db", "other.db");

it("a change of the workflow takes back that all tests were as expected", async () => {
  answers = { "/operator/test": { items: [{ test: "one", ok: true, differs: [] }], next: null } };
  const show = shown(<Tests bench={benchOf(TEXT)} />);
  await press("Run all tests");
  await screen.findByText("All is as expected.");
  show(<Tests bench={benchOf(OTHER)} />);
  expect(screen.queryByText("All is as expected.")).toBeNull();
  screen.getByText("The workflow was changed since: run them again.");
  // Undone, it is what was tested.
  show(<Tests bench={benchOf(TEXT)} />);
  screen.getByText("All is as expected.");
});

it("a change of the workflow takes back that a connection is well", async () => {
  const found = { node: "db", component: "sqlite", daemon: "hub", ok: true, kind: null, found: "3 tables" };
  answers = { "/operator/check": { items: [{ ...found, cause: null, remedy: null, took_ms: 1 }], next: null } };
  const show = shown(<TestConnection bench={benchOf(TEXT)} node={node()} />);
  await press("Test the connection");
  await screen.findByText("well, from hub");
  show(<TestConnection bench={benchOf(OTHER)} node={node()} />);
  expect(screen.queryByText("well, from hub")).toBeNull();
});

it("a change of the workflow takes back a preview, but keeping it as a test does not", async () => {
  answers = {
    "/operator/trial": { items: [{ node: "db", from: "", came: 1, out: [{ n: 1 }], rejected: [] }], next: null },
  };
  const show = shown(<Preview bench={benchOf(TEXT)} />);
  fireEvent.change(screen.getByLabelText("Records"), { target: { value: '{ "n": 1 }' } });
  await press("Preview");
  await screen.findByText("What became of them");
  show(<Preview bench={benchOf(`${TEXT}\n[tests.preview]\ngiven = { db = [{ n = 1 }] }\n`)} />);
  screen.getByText("What became of them");
  show(<Preview bench={benchOf(OTHER)} />);
  expect(screen.queryByText("What became of them")).toBeNull();
});

it("whoever only looks is told why they test no connection", () => {
  become("viewer");
  shown(<TestConnection bench={benchOf(TEXT)} node={node()} />);
  screen.getByText("Testing the connection needs the role operator; you are viewer.");
});

it("a text that is of another workflow is a problem, at its line", () => {
  expect(renamed("shop", "store", '# a name\nname = "store"\n')).toMatchObject([
    { place: "name", line: 2, message: "the text is of the workflow 'store', not of 'shop'" },
  ]);
  expect(renamed("shop", "shop", 'name = "shop"\n')).toEqual([]);
  expect(renamed(null, "store", 'name = "store"\n')).toEqual([]);
});

it.each([false, true])("a text that is of another workflow is not deployed, in waves: %s", async (isInWaves) => {
  answers = {
    "/workflows": { items: [{ name: "shop" }], next: null },
    "/workflows/shop": { text: TEXT, view: { revision: 3, by: "ada" } },
  };
  const nothing = () => {};
  shown(<Deploy bench={benchOf(TEXT.replace("shop", "store"))} isValid={false} onClose={nothing} onDone={nothing} />);
  await waitFor(() => expect(screen.queryByText(/Loading/)).toBeNull());
  if (isInWaves) fireEvent.click(screen.getByLabelText("In waves, the first as a canary"));
  screen.getByText("The text is of the workflow 'store', not of 'shop'.");
  const deploy = screen.getByRole("button", { name: "Deploy" });
  expect(deploy.hasAttribute("disabled")).toBe(true);
  await press("Deploy");
  expect(asked.filter((each) => !each.startsWith("GET"))).toEqual([]);
});

it("throwing the draft away is a step of its own, however shortly after a key", () => {
  const draft = { text: TEXT, from: 3, base: TEXT, layout: {}, tag: 0, isSent: true };
  const { result } = renderHook(() => useWorkbench("shop", null, { draft, conflict: null }, [], []));
  act(() => result.current.write(`${TEXT}# a`));
  act(() => result.current.write(`${TEXT}# ab`));
  act(() => result.current.discard());
  expect(result.current.text).toBe(TEXT);
  act(() => result.current.undo());
  expect(result.current.text).toBe(`${TEXT}# ab`);
});
