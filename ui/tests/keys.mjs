// The whole story once more, by somebody who has no mouse: from the printed link to a workflow from SQLite to PostgreSQL, that is
// tried, deployed, watched, broken, mended, and taken back. Every step goes by keys alone: a pointer anywhere on the page ends it.

import assert from "node:assert/strict";
import { account, node, outline, valid } from "./drawing.mjs";
import { addByKeys, choose, fillPostgres, tabTo, tabToNode, type } from "./keyboard.mjs";
import { accessible } from "./looks.mjs";
import { dialog, page, rows, text, told, until, walk, watch } from "./walk.mjs";
import { firstLink, wish } from "./world.mjs";

const press = (key) => page.keyboard.press(key);
const heading = (name) => page.getByRole("heading", { level: 1, name, exact: true }).waitFor();
const region = (name) => page.getByRole("region", { name });
const kept = async (where = "true") => Number(await wish("sql", `select count(*) from warm where ${where}`));
const measure = (...celsius) =>
  wish(
    "sqlite",
    "readings.db",
    `insert into readings (celsius) values ${celsius.map((each) => `(${each})`).join(",")}`,
  );
const edges = () => page.locator(".react-flow__edgelabel-renderer").innerText();
const parts = () => rows("Where it runs");

// `g`, and the letter of a section.
async function section(letter, name) {
  await press("g");
  await press(letter);
  await heading(name);
}

async function enrol(name, next, labels = "") {
  await section("d", "Daemons");
  await choose(next);
  await heading("Enrol a daemon");
  await tabTo("Name");
  await type(name);
  await tabTo("Labels");
  await type(labels);
  await press("Enter");
  await choose("Copy the command");
  await told("Copied the command.");
  await wish("type", await page.evaluate(() => navigator.clipboard.readText()), name);
  await wish("start", name);
  await page.locator("main").getByRole("status").getByText("online").waitFor();
}

const STEPS = {
  "first run: the printed link, and nothing there yet": async () => {
    await page.addInitScript(() => {
      addEventListener("pointerdown", () => console.error("a pointer was used"), { capture: true });
    });
    await page.goto(firstLink);
    await text("Enrol the first daemon");
  },

  "two daemons are enrolled": async () => {
    await enrol("gateway", "Enrol the first");
    await enrol("hub", "Enrol a daemon", "site=bonn");
    await section("d", "Daemons");
    await until("both, and the label of one", async () => {
      const found = (await rows("Daemons")).map(({ Daemon, Labels }) => `${Daemon} ${Labels}`.trim());
      return found.join() === "gateway,hub site=bonn";
    });
    await section("c", "Components");
    await until("both to say what they can run", async () => {
      await page.reload();
      await text(/^\d+ sources$|No components yet/);
      return /on 2 daemons/.test(await page.locator("main").innerText());
    });
  },

  "SQLite, a filter and PostgreSQL are drawn": async () => {
    const port = await wish("postgres");
    await wish("sqlite", "readings.db", "create table readings (id integer primary key, celsius real)");
    await measure(12, 21.5, 30);
    await section("w", "Workflows");
    await choose("New workflow");
    await node("host").waitFor();
    await tabToNode("host");
    await press("Control+a");
    await press("Delete");
    await page.getByText("Add a source to begin with.").waitFor();
    await tabTo("Name");
    await type("warm");
    // Out of the field, where a slash is a letter.
    await press("Tab");
    await addByKeys("source sqlite");
    await tabTo("path");
    await type(await wish("path", "readings.db"));
    await tabTo("table");
    await type("readings");
    await tabToNode("sqlite");
    await press("Enter");
    await addByKeys("filter");
    await tabTo("where");
    await type("celsius > 20");
    await tabToNode("filter");
    await press("Enter");
    await addByKeys("destination postgres");
    await tabTo("Daemon");
    await type("hub");
    await choose(/more settings$/);
    await fillPostgres(port, "warm");
    await outline("postgres").getByText("from filter").waitFor();
    await valid();
  },

  "it is tried on records, and writes nothing": async () => {
    await choose("Preview");
    await tabTo("Records");
    await type('{ "id": 1, "celsius": 3.5 }\n{ "id": 2, "celsius": 40.5 }');
    await choose("Preview");
    const step = region("sqlite → filter");
    await step.getByText("2 in").waitFor();
    await step.getByText("1 out").waitFor();
    await until("the record that goes on", async () => (await rows("What comes out of filter"))[0]?.celsius === "40.5");
    assert.equal(await wish("sql", "select to_regclass('warm') is null"), "t");
  },

  "deployed, and rows are seen to flow": async () => {
    await press("Control+s");
    await dialog().waitFor();
    await tabTo("Deploy");
    // That there is no such workflow yet is no news.
    await watch.forgive(/404.*workflows\/warm/, async () => {
      await press("Enter");
      await page.waitForURL("**/workflows/warm");
    });
    await until("what is warm to be there", async () => (await account()).join() === "2,2,0,0,0");
    await until("a rate on the edge", async () => {
      await measure(...Array.from({ length: 20 }, (_, at) => 21 + at / 10));
      return /[1-9]/.test((await edges()).split("/s")[0]);
    });
    await accessible(page, "a workflow as it runs, by keys");
  },

  "the destination breaks: it is seen where, and what waits": async () => {
    await wish("postgres", "away");
    await measure(50, 51);
    await until("the trouble", async () => /retrying|failed/.test(await node("postgres").innerText()));
    await choose("from filter to postgres");
    await region(/^Edge filter->postgres/)
      .getByText("+ buffered")
      .waitFor();
    await until("what waits", async () => (await account())[2] === 2);
    await wish("postgres", "back");
    await until("what waited to arrive", async () => (await account())[2] === 0 && (await kept("celsius >= 50")) === 2);
  },

  "records that it refuses are dead letters, mended and replayed": async () => {
    await wish("sql", "alter table warm add constraint sane check (celsius < 100)");
    await measure(400, 401);
    await until("both to be dead", async () => (await account())[4] === 2);
    await choose("Dead letters");
    await until("both", async () => (await rows("Dead letters")).length === 2);
    const [{ Letter }] = await rows("Dead letters");
    await choose(Letter);
    await dialog().getByLabel("celsius", { exact: true }).waitFor();
    await tabTo("celsius");
    await type("40.25");
    await press("Enter");
    await told("1 letter is tried again.");
    await until("it to arrive", async () => (await kept("celsius = 40.25")) === 1);
    // The other was right, and the table was wrong.
    await wish("sql", "alter table warm drop constraint sane");
    await page.reload();
    await until("one to be left", async () => (await rows("Dead letters")).length === 1);
    await choose("Try all again");
    await told("1 letter is tried again.");
    await until("it to arrive", async () => (await kept("celsius in (400, 401)")) === 1);
  },

  "a change was a mistake, and is rolled back": async () => {
    await choose("Edit");
    await tabToNode("filter");
    await press("Enter");
    await tabTo("where");
    await type("celsius > 1000");
    await valid();
    await press("Control+s");
    await dialog().waitFor();
    await choose("Deploy");
    await page.waitForURL("**/workflows/warm");
    await until("both to run it", async () => (await parts()).every(({ Revision }) => Revision === "2"));
    await choose("Revisions");
    await choose("Revision 1");
    await node("filter").getByText("changed").waitFor();
    await tabTo("Why");
    await type("nothing is that warm");
    await choose("Roll back to revision 1");
    await told("warm runs the text of revision 1 again, as revision 3.");
    // Who and why, for those who look later.
    await page
      .getByRole("button", { name: /^Revision 3/ })
      .getByText("nothing is that warm")
      .waitFor();
    await choose("Run");
    await until("both to run it again", async () =>
      (await parts()).every(({ State, Revision }) => `${State} ${Revision}` === "running 3"),
    );
    await measure(61);
    await until("what is warm to arrive again", async () => (await kept("celsius = 61")) === 1);
  },
};

walk("the whole story by keys", 9, STEPS);
