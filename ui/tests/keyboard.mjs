// The hands of somebody who has no mouse: the Tab key, until what is looked for has the focus.

import { page, until } from "./walk.mjs";

// Types into the field that has the focus, whatever is in it.
export async function type(what) {
  await page.keyboard.press("Control+a");
  await page.keyboard.type(what);
}

// What has the focus, by the first line of its name.
export const here = () =>
  page.evaluate(() => {
    const element = document.activeElement;
    const name = element?.getAttribute("aria-label") ?? element?.labels?.[0]?.innerText ?? element?.innerText ?? "";
    return name.split("\n")[0].trim();
  });

// Goes on with the Tab key until something of that name has the focus.
export async function tabTo(name) {
  for (let times = 0; times < 250; times += 1) {
    await page.keyboard.press("Tab");
    const found = await here();
    if (typeof name === "string" ? found === name : name.test(found)) return;
  }
  throw new Error(`the Tab key never came to ${name}`);
}

// Goes on with the Tab key until the node of the outline has the focus.
export async function tabToNode(id) {
  for (let times = 0; times < 250; times += 1) {
    await page.keyboard.press("Tab");
    if ((await page.evaluate(() => document.activeElement?.dataset.node)) === id) return;
  }
  throw new Error(`the Tab key never came to the node ${id}`);
}

export async function addByKeys(search) {
  await page.keyboard.press("/");
  await page.keyboard.type(search);
  await page.keyboard.press("Enter");
  // Where the cursor is next: the name of what is new.
  await until("its form", async () => (await here()) === "Name");
}

/** Comes to something of that name, and presses it. */
export async function choose(name) {
  await tabTo(name);
  await page.keyboard.press("Enter");
}

// Fills in the form of a PostgreSQL destination that listens here.
export async function fillPostgres(port, table) {
  for (const [name, value] of [
    ["host", "127.0.0.1"],
    ["port", port],
    ["user", "postgres"],
    ["database", "postgres"],
  ]) {
    await tabTo(name);
    await type(value);
  }
  await tabTo("password");
  await page.keyboard.type("not set");
  await tabTo("mode");
  await page.keyboard.type("disable");
  await tabTo("table");
  await type(table);
}
