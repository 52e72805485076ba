// @vitest-environment jsdom
import { QueryClient, QueryClientProvider } from "@tanstack/react-query";
import { act, cleanup, fireEvent, render, screen } from "@testing-library/react";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { Route } from "wouter";
import { keys } from "@/api/keys";
import { useUser } from "@/api/session";
import Editor from ".";
import { keepDraft, readDraft } from "./draft";

const TEXT = 'name = "shop"\n';
const MINE = `${TEXT}# mine\n`;

let isAway: boolean;
/** How long the plane takes. */
let tookMs: number;

beforeEach(() => {
  isAway = true;
  tookMs = 0;
  // jsdom scrolls nothing.
  Element.prototype.scrollTo = () => {};
  useUser.setState({ user: { name: "ada", role: "operator", scope: null } as never });
  history.replaceState(null, "", "/workflows/shop/edit?view=text");
  keepDraft("shop", { text: MINE, from: 3, base: TEXT, layout: {}, tag: 5, isSent: true });
  vi.stubGlobal("fetch", async (path: string) => {
    if (tookMs > 0) await new Promise((resolve) => setTimeout(resolve, tookMs));
    if (path.endsWith("/drafts") && isAway) throw new TypeError("no road");
    const draft = { name: "shop", by: "ada", at_unix_ms: 0, text: MINE, layout: { from: 3, layout: {} } };
    const body = path.endsWith("/drafts")
      ? { items: [draft], next: null }
      : path.endsWith("/drafts/shop")
        ? draft
        : { items: [], next: null, problems: [] };
    return new Response(JSON.stringify(body), { headers: { "content-type": "application/json", etag: '"5"' } });
  });
});
afterEach(() => {
  cleanup();
  localStorage.clear();
  vi.unstubAllGlobals();
});

function open() {
  const queries = new QueryClient({ defaultOptions: { queries: { retry: false, staleTime: Infinity } } });
  queries.setQueryData(keys.daemons, []);
  queries.setQueryData(keys.components, []);
  queries.setQueryData(keys.workflow("shop"), { text: TEXT, view: { revision: 3, by: "ada" } });
  render(
    <QueryClientProvider client={queries}>
      <Route path="/workflows/:name/edit" component={Editor} />
    </QueryClientProvider>,
  );
  return queries;
}

const press = (name: string) => act(async () => void fireEvent.click(screen.getByRole("button", { name })));
const SOON_MS = 20;
const soon = () => act(() => new Promise((resolve) => setTimeout(resolve, SOON_MS)));
const written = async () => (await screen.findByLabelText<HTMLTextAreaElement>("The workflow's text")).value;

it("a plane that does not say whether it has a draft hides none: it is asked again", async () => {
  open();
  await screen.findByText("The plane cannot be reached.");
  expect(screen.queryByLabelText("The workflow's text")).toBeNull();
  expect(readDraft("shop")?.text).toBe(MINE);
  isAway = false;
  await press("Try again");
  expect(await written()).toBe(MINE);
});

it("or one goes on with what this browser has", async () => {
  open();
  await screen.findByText("The plane cannot be reached.");
  await press("Go on with that");
  expect(await written()).toBe(MINE);
});

it.each([
  ["what the plane has", false, async () => {}],
  ["what this browser has", true, () => press("Go on with that")],
])("whoever edits %s goes on when it is asked for once more", async (_, wasAway, begin) => {
  isAway = wasAway;
  const queries = open();
  if (wasAway) await screen.findByText("The plane cannot be reached.");
  await begin();
  const text = await screen.findByLabelText("The workflow's text");
  fireEvent.change(text, { target: { value: `${MINE}# more\n` } });
  tookMs = 3 * SOON_MS;
  for (const goesAway of [true, false]) {
    isAway = goesAway;
    const asked = queries.invalidateQueries({ queryKey: keys.drafts });
    // While it is asked, and when the answer is there.
    await soon();
    expect(screen.queryByLabelText("The workflow's text")).toBe(text);
    await asked;
    await soon();
    expect(screen.queryByLabelText("The workflow's text")).toBe(text);
  }
  expect(await written()).toBe(`${MINE}# more\n`);
});
