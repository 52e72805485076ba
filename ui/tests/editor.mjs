// The editor and the run view in a real browser, in front of a real fleet: a workflow drawn with the mouse, another one by
// keyboard alone, deployed, watched, broken, mended and rolled back. Each step goes on from where the last one ended.

import assert from "node:assert/strict";
import { test } from "node:test";
import { readable } from "./looks.mjs";
import { PATIENCE_MS, Watch, firstLink, launch, shoot, wish } from "./world.mjs";

const origin = new URL(firstLink).origin;
const watch = new Watch();
let page;

const button = (name) => page.getByRole("button", { name, exact: true });
const field = (name) => page.getByRole("complementary", { name: "Form" }).getByLabel(name, { exact: true });
const node = (id) => page.locator(`.react-flow__node[data-id="${id}"]`);
const outline = (id) => page.locator(`[data-node="${id}"]`);
const valid = () => page.getByText("The plane finds nothing wrong.").waitFor();
const dialog = () => page.getByRole("dialog");
const go = (path) => page.goto(origin + path);

// Speaks to the plane as the page does.
async function api(method, path, data, headers = {}) {
  const answer = await page.request.fetch(`${origin}/api/v1${path}`, { method, data, headers: { origin, ...headers } });
  assert.ok(answer.ok(), `${method} ${path}: ${answer.status()} ${await answer.text()}`);
  return answer.status() === 204 ? null : answer.json();
}

async function enrol(name) {
  const { invitation } = await api("POST", "/tokens", { role: "daemon", name, uses: 1, ttl_s: 600 });
  await wish("type", "myceliald", "enrol", invitation, name);
  await wish("start", name);
}

async function until(what, ask) {
  const end = Date.now() + PATIENCE_MS;
  while (Date.now() < end) {
    const found = await ask();
    if (found) return found;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  throw new Error(`waited in vain for ${what}; the page says:\n${await page.locator("body").innerText()}`);
}

async function centre(locator) {
  const { x, y, width, height } = await locator.boundingBox();
  return [x + width / 2, y + height / 2];
}

async function connect(from, to) {
  await page.mouse.move(...(await centre(node(from).locator(".source"))));
  await page.mouse.down();
  await page.mouse.move(...(await centre(node(to).locator(".target"))), { steps: 8 });
  await page.mouse.up();
  await outline(to).getByText(`from ${from}`).waitFor();
}

async function drag(role, name, x, y) {
  const item = page.getByRole("list", { name: `${role} to add` }).getByRole("button", { name: new RegExp(`^${name} `) });
  await item.scrollIntoViewIfNeeded();
  await item.dragTo(page.locator(".react-flow__pane"), { targetPosition: { x, y } });
}

async function empty() {
  await go("/workflows/new");
  await node("host").waitFor();
  await page.locator(".react-flow__pane").click({ position: { x: 20, y: 20 } });
  await page.keyboard.press("Control+a");
  await page.keyboard.press("Delete");
  await page.getByText("Add a source to begin with.").waitFor();
}

async function deploy(name) {
  await valid();
  await page.keyboard.press("Control+s");
  await dialog().getByRole("button", { name: "Deploy", exact: true }).click();
  await page.waitForURL(`**/workflows/${name}`);
}

const text = (name) => api("GET", `/workflows/${name}`);
// Types into the field that has the focus, whatever is in it.
const type = async (what) => {
  await page.keyboard.press("Control+a");
  await page.keyboard.type(what);
};
// Goes on with the Tab key until a field of that name has the focus.
async function tabTo(name) {
  for (let times = 0; times < 80; times += 1) {
    await page.keyboard.press("Tab");
    const here = await page.evaluate(() => {
      const element = document.activeElement;
      return element?.getAttribute("aria-label") ?? element?.labels?.[0]?.innerText ?? element?.innerText ?? "";
    });
    if (here.split("\n")[0].trim() === name) return;
  }
  throw new Error(`the Tab key never came to ${name}`);
}

async function addByKeys(search) {
  await page.keyboard.press("/");
  await page.keyboard.type(search);
  await page.keyboard.press("Enter");
  // Where the cursor is next: the name of what is new.
  await page.waitForFunction(() => document.activeElement?.labels?.[0]?.innerText === "Name");
}

const STEPS = {
  "logged in, with two daemons": async () => {
    await go(`/#/login/${firstLink.split("/").pop()}`);
    await page.getByText("live", { exact: true }).waitFor();
    await wish("rows", "300");
    await enrol("gateway");
    await enrol("hub");
  },

  "drawn with the mouse": async () => {
    await empty();
    await drag("Sources", "sqlite", 130, 120);
    await field("path").fill(await wish("path", "shop.db"));
    await field("table").fill("orders");
    await drag("Transforms", "filter", 320, 300);
    await field("where").fill("id > 100");
    await drag("Destinations", "sqlite", 130, 480);
    await field("Daemon").selectOption("hub");
    await field("path").fill(await wish("path", "copy.db"));
    await field("table").fill("large");
    await connect("sqlite", "filter");
    await connect("filter", "sqlite-2");
    await button("Arrange").click();
    await page.locator(".react-flow__pane").click({ position: { x: 20, y: 20 } });
    await field("Name").fill("drawn");
    await valid();
    await shoot(page, "drawn");
  },

  "everything can be undone and done again": async () => {
    await outline("filter").click();
    await button("Delete").click();
    await outline("filter").waitFor({ state: "detached" });
    await page.keyboard.press("Control+z");
    await outline("sqlite-2").getByText("from filter").waitFor();
    await page.keyboard.press("Control+Shift+z");
    await outline("filter").waitFor({ state: "detached" });
    await page.keyboard.press("Control+z");
    await valid();
  },

  "a problem jumps to its field": async () => {
    await outline("filter").click();
    await field("where").fill("id >");
    const problem = page.getByRole("region", { name: "Problems" }).getByRole("button").first();
    const begin = Date.now();
    await problem.waitFor();
    console.log(`problems after ${Date.now() - begin} ms`);
    await page.locator(".react-flow__pane").click({ position: { x: 20, y: 20 } });
    await problem.click();
    await until("the field", () => page.evaluate(() => document.activeElement?.getAttribute("aria-label") === "where"));
    await type("id > 100");
    await valid();
  },

  "a reload in the middle loses nothing": async () => {
    const places = () => page.evaluate(() => JSON.parse(localStorage.getItem("mycelial-draft:")).layout);
    const before = await until("the draft", places);
    await page.reload();
    await node("sqlite-2").waitFor();
    await page.getByRole("button", { name: "Text", exact: true }).click();
    const source = await page.getByLabel("The workflow's text").inputValue();
    assert.match(source, /where = "id > 100"/);
    assert.deepEqual(await places(), before);
    await page.getByRole("button", { name: "Canvas", exact: true }).click();
    await node("sqlite-2").waitFor();
  },

  "deployed, and rows flow": async () => {
    await deploy("drawn");
    await until("the rows", async () => /200\s+200/.test(await page.getByRole("table", { name: "Streams" }).innerText()));
    await page.locator(".react-flow__edge").last().focus();
    await page.keyboard.press("Enter");
    await page.getByRole("region", { name: /^Edge filter->sqlite-2/ }).getByText("balances").waitFor();
    const rows = wish("rows", "2000");
    await until("a rate", async () => !/^0\/s$/.test(await page.locator(".react-flow__edgelabel-renderer").innerText()));
    await rows;
    await shoot(page, "running");
  },

  "broken: it is seen where": async () => {
    await page.getByRole("link", { name: "Edit", exact: true }).click();
    await outline("sqlite-2").click();
    await field("path").fill(`${await wish("path", "nowhere")}/at/all.db`);
    await button("Show what changed").click();
    await node("sqlite-2").getByText("changed").waitFor();
    await shoot(page, "compared");
    await button("Go on editing").click();
    await deploy("drawn");
    await until("the trouble", async () => /retrying|failed/.test(await node("sqlite-2").innerText()));
    await shoot(page, "broken");
  },

  "mended: rolled back": async () => {
    await page.getByRole("link", { name: "Revisions", exact: true }).click();
    await page.getByRole("button", { name: /^Revision 1/ }).click();
    await node("sqlite-2").getByText("changed").waitFor();
    await shoot(page, "revisions");
    await button("Roll back to revision 1").click();
    await page.getByRole("button", { name: /^Revision 3/ }).waitFor();
    await page.getByRole("link", { name: "Run", exact: true }).click();
    await until("it to run", async () => /running/.test(await node("sqlite-2").innerText()));
  },

  "the same by keyboard alone": async () => {
    await empty();
    await addByKeys("source sqlite");
    await type("shop");
    await page.keyboard.press("Enter");
    await tabTo("path");
    await type(await wish("path", "shop.db"));
    await tabTo("table");
    await type("orders");
    // Out of the field, so that the slash is one.
    await page.keyboard.press("Shift+Tab");
    await outline("shop").focus();
    await addByKeys("filter");
    await tabTo("where");
    await type("id > 200");
    await outline("filter").focus();
    await addByKeys("destination sqlite");
    await tabTo("Daemon");
    await page.keyboard.type("hub");
    await tabTo("filter");
    await page.keyboard.press("Space");
    await outline("sqlite").getByText("from filter").waitFor({ state: "detached" });
    await page.keyboard.press("Space");
    await outline("sqlite").getByText("from filter").waitFor();
    await tabTo("path");
    await type(await wish("path", "keys.db"));
    await tabTo("table");
    await type("keys");
    await outline("sqlite").focus();
    await page.keyboard.press("Alt+ArrowDown");
    await page.getByRole("button", { name: "Text", exact: true }).focus();
    await page.keyboard.press("Enter");
    await page.getByLabel("The workflow's text").focus();
    const written = await page.getByLabel("The workflow's text").inputValue();
    await type(written.replace('name = "example"', 'name = "keys"'));
    await deploy("keys");
    await until("it to run", async () => /running/.test(await node("sqlite").innerText()));
  },

  "a conflict shows both and lets choose": async () => {
    await page.getByRole("link", { name: "Edit", exact: true }).click();
    await outline("filter").click();
    await field("where").fill("id > 7");
    await valid();
    const { text: theirs, view } = await text("keys");
    await api("PUT", "/workflows/keys", { text: theirs.replace("id > 200", "id > 8") }, { "if-match": `"${view.revision}"` });
    await page.keyboard.press("Control+s");
    await dialog().getByRole("region", { name: "What they changed" }).getByText('"id > 8"').waitFor();
    await dialog().getByRole("region", { name: "What you changed" }).getByText('"id > 7"').waitFor();
    await shoot(page, "conflict");
    await dialog().getByRole("button", { name: "Take theirs" }).click();
    await outline("filter").click();
    assert.equal(await field("where").inputValue(), "id > 8");
  },

  "readable in both themes": async () => {
    for (const colorScheme of ["light", "dark"]) {
      await page.emulateMedia({ colorScheme });
      for (const path of ["/workflows/keys/edit", "/workflows/keys", "/workflows/drawn/revisions", "/workflows/new?view=tests"]) {
        await go(path);
        await page.locator(".react-flow__node, fieldset").first().waitFor();
        await page.waitForTimeout(300);
        await readable(page, `${path} ${colorScheme}`);
      }
    }
  },

  "200 nodes stay smooth": async () => {
    const chain = Array.from({ length: 198 }, (_, at) =>
      `[transforms.t${at}]\ntype = "filter"\nfrom = "${at % 20 === 0 ? "s" : `t${at - 1}`}"\nwhere = "id > ${at}"\n`);
    const large = `name = "large"\n\n[sources.s]\ntype = "sqlite"\ndaemon = "gateway"\npath = "a.db"\ntable = "a"\n\n${chain.join("\n")}\n[destinations.d]\ntype = "stdout"\ndaemon = "gateway"\nfrom = "t197"\n`;
    await go("/workflows/new?view=text");
    await page.getByLabel("The workflow's text").fill(large);
    await page.getByRole("button", { name: "Canvas", exact: true }).click();
    await node("s").waitFor();
    await page.waitForTimeout(1_000);
    const frames = page.evaluate(() => new Promise((resolve) => {
      const times = [];
      let last = performance.now();
      const tick = (now) => {
        times.push(now - last);
        last = now;
        if (times.length < 120) requestAnimationFrame(tick);
        else resolve(times.sort((a, b) => a - b));
      };
      requestAnimationFrame(tick);
    }));
    const [x, y] = await centre(page.locator(".react-flow__pane"));
    for (let at = 0; at < 30; at += 1) await page.mouse.wheel(0, at % 2 ? -80 : 80);
    await page.mouse.move(x, y);
    const times = await frames;
    const part = (share) => times[Math.floor(share * (times.length - 1))].toFixed(1);
    console.log(`frames with 200 nodes: median ${part(0.5)} ms, 95 % ${part(0.95)} ms, longest ${part(1)} ms`);
    assert.ok(Number(part(0.5)) < 100, "half of the frames take longer than a tenth of a second");
    await shoot(page, "200-nodes");
  },
};

test("the editor", { timeout: 15 * 60_000 }, async (journey) => {
  const browser = await launch();
  try {
    const context = await browser.newContext({ viewport: { width: 1440, height: 900 }, reducedMotion: "reduce" });
    page = await context.newPage();
    page.setDefaultTimeout(PATIENCE_MS);
    watch.add(page);
    for (const [name, step] of Object.entries(STEPS)) {
      let failure = null;
      await journey.test(name, async () => {
        await step().catch(async (error) => {
          failure = error;
          await shoot(page, "failed");
          throw error;
        });
      });
      if (failure) break;
    }
    assert.deepEqual(watch.wrong, []);
  } finally {
    await browser.close();
  }
});
