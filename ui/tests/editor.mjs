// The editor in a real browser, in front of a real fleet and a real PostgreSQL: a workflow drawn with the mouse, the same by
// keyboard alone, deployed, watched, broken, and rolled back. Each step goes on from where the last one ended.

import assert from "node:assert/strict";
import {
  account,
  arranged,
  connect,
  deploy,
  deployNew,
  drag,
  empty,
  field,
  form,
  node,
  outline,
  pane,
  towardsPostgres,
  valid,
} from "./drawing.mjs";
import { addByKeys, fillPostgres, here, tabTo, tabToNode, type } from "./keyboard.mjs";
import { accessible } from "./looks.mjs";
import { api, begin, button, dialog, go, page, until, walk, watch } from "./walk.mjs";
import { shoot, wish } from "./world.mjs";

/** Problems stand there this long after the last key at the latest, in milliseconds. */
const PROBLEMS_MS_MAX = 500;

const source = () => page.getByLabel("The workflow's text");
const count = async (table) => Number(await wish("sql", `select count(*) from ${table}`));

// The nodes that are selected, as the outline says it.
const chosen = () =>
  page.locator('[data-node][aria-pressed="true"]').evaluateAll((all) => all.map(({ dataset }) => dataset.node));

const STEPS = {
  "logged in, with two daemons": async () => {
    await begin();
    await wish("rows", "300");
  },

  "drawn with the mouse": async () => {
    const port = await wish("postgres");
    await empty();
    await drag("Sources", "sqlite", 130, 120);
    await field("path").fill(await wish("path", "shop.db"));
    await field("table").fill("orders");
    await drag("Transforms", "filter", 320, 300);
    await field("where").fill("id > 100");
    await drag("Destinations", "postgres", 130, 480);
    await field("Daemon").fill("hub");
    await towardsPostgres(port, "large");
    await connect("sqlite", "filter");
    await connect("filter", "postgres");
    await arranged("drawn");
    await shoot(page, "editor-drawn");
  },

  "everything can be undone and done again": async () => {
    await outline("filter").click();
    await button("Delete").click();
    await outline("filter").waitFor({ state: "detached" });
    await page.keyboard.press("Control+z");
    await outline("postgres").getByText("from filter").waitFor();
    await page.keyboard.press("Control+Shift+z");
    await outline("filter").waitFor({ state: "detached" });
    await page.keyboard.press("Control+z");
    await valid();
  },

  "two nodes are copied, moved and duplicated, and all of it is undone step by step": async () => {
    const ids = () => page.locator("[data-node]").evaluateAll((all) => all.map(({ dataset }) => dataset.node));
    const spot = (id) => node(id).evaluate(({ style }) => style.transform);
    const begun = await ids();
    await outline("sqlite").click();
    await outline("filter").click({ modifiers: ["Control"] });
    await form().getByRole("heading", { name: "2 nodes" }).waitFor();
    await page.keyboard.press("Control+c");
    await page.keyboard.press("Control+v");
    await outline("filter-2").getByText("from sqlite-2").waitFor();
    assert.deepEqual((await ids()).sort(), [...begun, "filter-2", "sqlite-2"].sort());
    // The overview shows every node.
    assert.equal(await page.locator(".react-flow__minimap-node").count(), 5);
    const lay = await spot("filter-2");
    await outline("filter-2").press("Alt+ArrowDown");
    await until("it to move", async () => (await spot("filter-2")) !== lay);
    await form().getByRole("button", { name: "Duplicate" }).click();
    await outline("filter-3").getByText("from sqlite-3").waitFor();
    await page.keyboard.press("Control+z");
    await outline("filter-3").waitFor({ state: "detached" });
    assert.notEqual(await spot("filter-2"), lay);
    await page.keyboard.press("Control+z");
    await until("it to move back", async () => (await spot("filter-2")) === lay);
    await page.keyboard.press("Control+z");
    await outline("filter-2").waitFor({ state: "detached" });
    assert.deepEqual(await ids(), begun);
    await valid();
  },

  "a node may run on all that a selector chooses, and be of another type": async () => {
    await outline("sqlite").click();
    const daemon = await field("Daemon").inputValue();
    await field("Daemon").fill("name:gate*");
    await node("sqlite").getByText("name:gate*").waitFor();
    await valid();
    await field("Daemon").fill(daemon);
    await outline("postgres").click();
    await field("Type").selectOption("file");
    await until("another form", async () => (await field("host").count()) === 0);
    await outline("postgres").getByText("from filter").waitFor();
    assert.equal(await field("Daemon").inputValue(), "hub");
    await page.keyboard.press("Control+z");
    await valid();
    assert.equal(await field("Type").inputValue(), "postgres");
    assert.equal(await field("host").inputValue(), "127.0.0.1");
  },

  "a problem is told at once, and jumps to its field": async () => {
    await outline("postgres").click();
    const right = await field("port").inputValue();
    const problem = page.getByRole("region", { name: "Problems" }).getByRole("button").first();
    // From the last key to the picture of it, by the browser's own clock.
    await page.evaluate(() => {
      globalThis.told = new Promise((resolve) => {
        let typed = 0;
        addEventListener("input", () => (typed = performance.now()), { capture: true });
        const look = () => {
          if (typed && document.querySelector('section[aria-label="Problems"] button'))
            resolve(performance.now() - typed);
          else requestAnimationFrame(look);
        };
        look();
      });
    });
    await field("port").fill("123456");
    await problem.waitFor();
    const took = await page.evaluate(() => globalThis.told);
    console.log(`problems ${took.toFixed(0)} ms after the last key, of ${PROBLEMS_MS_MAX}`);
    assert.ok(took <= PROBLEMS_MS_MAX, `problems took ${took} ms`);
    await pane().click({ position: { x: 20, y: 20 } });
    await problem.click();
    await until("the field", async () => (await here()) === "port");
    await type(right);
    await valid();
  },

  "a reload in the middle loses nothing": async () => {
    const places = () => page.evaluate(() => JSON.parse(localStorage.getItem("mycelial-draft:"))?.layout);
    const before = await until("the draft", places);
    await page.reload();
    await node("postgres").waitFor();
    await button("Text").click();
    assert.match(await source().inputValue(), /where = "id > 100"/);
    assert.deepEqual(await places(), before);
    await button("Canvas").click();
    await node("postgres").waitFor();
  },

  "deployed, and rows flow": async () => {
    await deployNew("drawn");
    // What PostgreSQL cannot hold of what SQLite can is a dead letter, and counted.
    const [delivered] = await until("the rows", async () => {
      const [produced, delivered, buffered, dropped, dead] = await account();
      return produced === 200 && buffered + dropped === 0 && delivered + dead === 200 && [delivered];
    });
    assert.equal(await count("large"), delivered);
    await page.locator(".react-flow__edge").last().focus();
    await page.keyboard.press("Enter");
    await page
      .getByRole("region", { name: /^Edge filter->postgres/ })
      .getByText("balances")
      .waitFor();
    await until("a rate on the edge", async () => {
      await wish("rows", "200");
      const text = await page.locator(".react-flow__edgelabel-renderer").innerText();
      return /[1-9]/.test(text.split("/s")[0]);
    });
    await shoot(page, "workflow-running");
  },

  "the destination breaks, and it is seen where": async () => {
    await wish("postgres", "away");
    await wish("rows", "50");
    await until("the trouble", async () => /retrying|failed/.test(await node("postgres").innerText()));
    await page.getByRole("table", { name: "Where it runs" }).getByText("retrying").waitFor();
    await shoot(page, "workflow-broken");
    await wish("postgres", "back");
    await until("it to run", async () => /running/.test(await node("postgres").innerText()));
    await until("what waited to arrive", async () => (await account())[2] === 0);
    assert.ok((await count("large")) > 160, "what came meanwhile is there too");
  },

  "a change that breaks it is rolled back": async () => {
    await page.getByRole("link", { name: "Edit", exact: true }).click();
    await outline("postgres").click();
    await field("table").fill("pg_catalog.nothing");
    await field("database").fill("nowhere");
    await button("Show what changed").click();
    await node("postgres").getByText("changed").waitFor();
    await shoot(page, "editor-compared");
    await button("Go on editing").click();
    await deploy("drawn");
    await until("the trouble", async () => /retrying|failed/.test(await node("postgres").innerText()));
    await page.getByRole("link", { name: "Revisions", exact: true }).click();
    await page.getByRole("button", { name: /^Revision 1/ }).click();
    await node("postgres").getByText("changed").waitFor();
    await button("Roll back to revision 1").click();
    await page.getByRole("button", { name: /^Revision 3/ }).waitFor();
    await page.getByRole("link", { name: "Run", exact: true }).click();
    await until("it to run", async () => /running/.test(await node("postgres").innerText()));
  },

  "the same by keyboard alone": async () => {
    const port = await wish("postgres");
    await go("/workflows/new");
    await node("host").waitFor();
    await tabToNode("host");
    // Both with the one before, then all.
    await page.keyboard.press("Shift+ArrowDown");
    assert.equal((await chosen()).length, 2);
    await page.keyboard.press("Control+Space");
    assert.equal((await chosen()).length, 1);
    await page.keyboard.press("Control+a");
    await page.keyboard.press("Delete");
    await page.getByText("Add a source to begin with.").waitFor();
    await addByKeys("source sqlite");
    await type("shop");
    await page.keyboard.press("Enter");
    await tabTo("path");
    await type(await wish("path", "shop.db"));
    await tabTo("table");
    await type("orders");
    await tabToNode("shop");
    await page.keyboard.press("Enter");
    await addByKeys("filter");
    await tabTo("where");
    await type("id > 200");
    await tabToNode("filter");
    await page.keyboard.press("Enter");
    await addByKeys("destination postgres");
    await tabTo("Daemon");
    await type("hub");
    // The edge, taken away and put back.
    await tabTo("filter");
    await page.keyboard.press("Space");
    await outline("postgres").getByText("from filter").waitFor({ state: "detached" });
    await page.keyboard.press("Space");
    await outline("postgres").getByText("from filter").waitFor();
    await tabTo(/more settings$/);
    await page.keyboard.press("Enter");
    await fillPostgres(port, "keys");
    await tabToNode("postgres");
    await page.keyboard.press("Alt+ArrowDown");
    await tabTo("Text");
    await page.keyboard.press("Enter");
    await tabTo("The workflow's text");
    await type((await source().inputValue()).replace('name = "example"', 'name = "keys"'));
    await valid();
    await page.keyboard.press("Control+s");
    await dialog().waitFor();
    await tabTo("Deploy");
    // That there is no such workflow yet is no news.
    await watch.forgive(/404.*workflows\/keys/, async () => {
      await page.keyboard.press("Enter");
      await page.waitForURL("**/workflows/keys");
    });
    await until("it to run", async () => /running/.test(await node("postgres").innerText()));
    // The table is made with the first of them.
    await until("its rows", async () => (await count("keys").catch(() => 0)) > 0);
  },

  "a conflict shows both and lets choose": async () => {
    await page.getByRole("link", { name: "Edit", exact: true }).click();
    await outline("filter").click();
    await field("where").fill("id > 7");
    await valid();
    const { text: theirs, view } = await api("GET", "/workflows/keys");
    const body = { text: theirs.replace("id > 200", "id > 8") };
    await api("PUT", "/workflows/keys", body, { "if-match": `"${view.revision}"` });
    await page.keyboard.press("Control+s");
    await dialog().getByRole("region", { name: "What they changed" }).getByText('"id > 8"').waitFor();
    await dialog().getByRole("region", { name: "What you changed" }).getByText('"id > 7"').waitFor();
    await accessible(page, "a conflict");
    await dialog().getByRole("button", { name: "Take theirs" }).click();
    await outline("filter").click();
    assert.equal(await field("where").inputValue(), "id > 8");
  },

  "a draft that nobody wants is discarded": async () => {
    await go("/workflows/new?view=text");
    const begun = await source().inputValue();
    await source().fill(`${begun}# more\n`);
    await page.getByText("draft, kept by the plane").waitFor();
    await button("Discard the draft").click();
    assert.equal(await source().inputValue(), begun);
    await page.reload();
    assert.equal(await source().inputValue(), begun);
    assert.equal(await button("Discard the draft").count(), 0);
  },

  "tests and preview are readable in both themes": async () => {
    for (const colorScheme of ["light", "dark"]) {
      await page.emulateMedia({ colorScheme });
      for (const view of ["tests", "preview"]) {
        await go(`/workflows/keys/edit?view=${view}`);
        await page.getByRole("button", { name: "Discard the draft" }).or(button("Deploy …")).first().waitFor();
        await accessible(page, `${view} ${colorScheme}`);
      }
    }
  },
};

walk("the editor", 9, STEPS);
