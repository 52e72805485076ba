// What journeys beside the long one share: a browser in front of a fleet of their own, steps that go on from one another, and
// the ways to ask and to wait.

import assert from "node:assert/strict";
import { test } from "node:test";
import { accessible, fits, readable } from "./looks.mjs";
import { firstLink, launch, PATIENCE_MS, shoot, Watch, wish } from "./world.mjs";

export const origin = new URL(firstLink).origin;
export const watch = new Watch();
export let page;

export const button = (name) => page.getByRole("button", { name, exact: true });
export const link = (name) => page.locator("main").getByRole("link", { name, exact: true });
export const dialog = () => page.getByRole("dialog");
export const told = (part) => page.getByRole("status").getByText(part).first().waitFor();
export const text = (part) => page.locator("main").getByText(part).first().waitFor();
export const go = (path) => page.goto(origin + path);

// A table's rows as a person reads them: by the name of the column.
export const rows = (label) =>
  page.evaluate((label) => {
    const table = [...document.querySelectorAll("main table")].find((each) => each.caption?.textContent === label);
    const names = [...(table?.tHead?.rows[0]?.cells ?? [])].map((cell) => cell.innerText.trim());
    return [...(table?.tBodies[0]?.rows ?? [])].map((row) =>
      Object.fromEntries([...row.cells].map((cell, at) => [names[at], cell.innerText.trim()])),
    );
  }, label);

// Asks again and again until the answer is one, and says what was waited for if it never comes.
export async function until(what, ask) {
  const end = Date.now() + PATIENCE_MS;
  while (Date.now() < end) {
    const found = await ask();
    if (found) return found;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new Error(`waited in vain for ${what}; the page says:\n${await page.locator("body").innerText()}`);
}

// Speaks to the plane as the page does.
export async function api(method, path, data, headers = {}) {
  const answer = await page.request.fetch(`${origin}/api/v1${path}`, { method, data, headers: { origin, ...headers } });
  assert.ok(answer.ok(), `${method} ${path}: ${answer.status()} ${await answer.text()}`);
  return answer.status() === 204 ? null : answer.json();
}

async function enrol(name) {
  const { invitation } = await api("POST", "/tokens", { role: "daemon", name, uses: 1, ttl_s: 600 });
  await wish("type", "myceliald", "enrol", invitation, name);
  await wish("start", name);
}

/** What axe finds of the page as it is, in both themes and as wide as a telephone, with a picture of each. */
export async function looks(name) {
  const size = page.viewportSize();
  const look = async (how) => {
    await accessible(page, `${name}, ${how}`);
    await shoot(page, `${name}-${how}`);
  };
  for (const colorScheme of ["dark", "light"]) {
    await page.emulateMedia({ colorScheme });
    await look(colorScheme);
  }
  await page.setViewportSize({ width: 375, height: 740 });
  await fits(page, name);
  await readable(page, name);
  await look("phone");
  await page.setViewportSize(size);
}

/** In by the first link, with two daemons that are there and have said what they can run. */
export async function begin() {
  await page.goto(firstLink);
  await page.getByText("live", { exact: true }).waitFor();
  await enrol("gateway");
  await enrol("hub");
  await until("both to say what they can run", async () => (await api("GET", "/components")).items.length > 0);
  await until("both to be there", async () =>
    (await api("GET", "/daemons")).items.every(({ presence }) => presence === "online"),
  );
}

/** Walks step by step. What the browser complains of ends it. */
export function walk(title, minutes, steps) {
  test(title, { timeout: minutes * 60_000 }, async (t) => {
    const browser = await launch();
    t.after(() => browser.close());
    const context = await browser.newContext({
      viewport: { width: 1440, height: 900 },
      reducedMotion: "reduce",
      permissions: ["clipboard-read", "clipboard-write"],
    });
    page = await context.newPage();
    page.setDefaultTimeout(PATIENCE_MS);
    watch.add(page);
    for (const [name, step] of Object.entries(steps)) {
      let done = false;
      await t.test(name, async () => {
        await step();
        assert.deepEqual(watch.wrong, [], "what the browser's console and network say");
        done = true;
      });
      if (!done) {
        await shoot(page, "failed");
        throw new Error(`it ended at: ${name}`);
      }
    }
  });
}
