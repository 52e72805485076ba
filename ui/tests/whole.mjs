// The whole story in one piece, with the mouse: from a plane that nobody has seen yet to a workflow from SQLite to PostgreSQL, that
// is tried, deployed, watched, broken, mended, and taken back. Each step goes on from the last.

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
  node,
  outline,
  towardsPostgres,
  valid,
} from "./drawing.mjs";
import { button, dialog, go, link, looks, page, rows, text, told, until, walk } from "./walk.mjs";
import { firstLink, shoot, wish } from "./world.mjs";

const section = (name) =>
  page.getByRole("navigation", { name: "Sections" }).getByRole("link", { name, exact: true }).click();
const tab = (name) => page.getByRole("navigation", { name: "Views of warm" }).getByRole("link", { name }).click();
const region = (name) => page.getByRole("region", { name });
const kept = async (where = "true") => Number(await wish("sql", `select count(*) from warm where ${where}`));
const measure = (...celsius) =>
  wish(
    "sqlite",
    "readings.db",
    `insert into readings (celsius) values ${celsius.map((each) => `(${each})`).join(",")}`,
  );
const edges = () => page.locator(".react-flow__edgelabel-renderer").innerText();
const here = async (daemon) => (await rows("Where it runs")).find(({ Daemon }) => Daemon === daemon);

async function enrol(name, next) {
  await section("Daemons");
  await link(next).first().click();
  await page.getByLabel("Name").fill(name);
  await button("Make the enrolment string").click();
  await button("Copy the command").first().click();
  await told("Copied the command.");
  await wish("type", await page.evaluate(() => navigator.clipboard.readText()), name);
  await wish("start", name);
  await page.locator("main").getByRole("status").getByText("online").waitFor();
}

const STEPS = {
  "first run: the printed link, and nothing there yet": async () => {
    await page.goto(firstLink);
    await text("Enrol the first daemon");
  },

  "two daemons are enrolled": async () => {
    await enrol("gateway", "Enrol the first");
    await enrol("hub", "Enrol a daemon");
    await until("both to say what they can run", async () => {
      await go("/components/source/sqlite");
      await text(/Daemons that have it|No daemon has/);
      const found = region("Daemons that have it");
      return (await found.isVisible()) && /gateway[\s\S]*hub/.test(await found.innerText());
    });
  },

  "SQLite, a filter and PostgreSQL are drawn with the mouse": async () => {
    const port = await wish("postgres");
    await wish("sqlite", "readings.db", "create table readings (id integer primary key, celsius real)");
    await measure(12, 21.5, 30);
    await empty();
    await drag("Sources", "sqlite", 130, 120);
    await field("path").fill(await wish("path", "readings.db"));
    await field("table").fill("readings");
    await drag("Transforms", "filter", 320, 300);
    await field("where").fill("celsius > 20");
    await drag("Destinations", "postgres", 130, 480);
    await field("Daemon").fill("hub");
    await towardsPostgres(port, "warm");
    await connect("sqlite", "filter");
    await connect("filter", "postgres");
    await arranged("warm");
  },

  "the destination is reached before anything is deployed, from the chosen of its daemons": async () => {
    await outline("postgres").click();
    await field("Daemon").fill("name:*");
    await page.getByLabel("Test from").selectOption("hub");
    await button("Test the connection").click();
    await page.getByText("well, from hub").waitFor();
    await page.getByLabel("Test from").selectOption("gateway");
    await page.getByText("well, from hub").waitFor({ state: "detached" });
    await button("Test the connection").click();
    await page.getByText("well, from gateway").waitFor();
    await field("Daemon").fill("hub");
    await valid();
  },

  "it is tried on records, and writes nothing": async () => {
    await button("Preview").click();
    await page.getByLabel("Records", { exact: true }).fill('{ "id": 1, "celsius": 3.5 }\n{ "id": 2, "celsius": 40.5 }');
    await page.locator("main").getByRole("button", { name: "Preview", exact: true }).last().click();
    const step = region("sqlite → filter");
    await step.getByText("2 in").waitFor();
    await step.getByText("1 out").waitFor();
    await until("the record that goes on", async () => (await rows("What comes out of filter"))[0]?.celsius === "40.5");
    assert.equal(await wish("sql", "select to_regclass('warm') is null"), "t");
  },

  "deployed, and rows are seen to flow": async () => {
    await deployNew("warm");
    await until("what is warm to be there", async () => (await account()).join() === "2,2,0,0,0");
    assert.equal(await kept(), 2);
    await until("a rate on the edge", async () => {
      await measure(...Array.from({ length: 20 }, (_, at) => 21 + at / 10));
      return /[1-9]/.test((await edges()).split("/s")[0]);
    });
    // In bytes as its daemons count them, and inside of a daemon too.
    await until("bytes on every edge", async () => {
      await measure(...Array.from({ length: 20 }, (_, at) => 21 + at / 10));
      const all = await page.locator(".react-flow__edgelabel-renderer > div").allInnerTexts();
      return all.length === 2 && all.every((each) => /^[1-9]\S*\/s\s+[1-9]\S* (Ki)?B\/s/.test(each));
    });
    await node("filter").click();
    const facts = () => region("Node filter").locator("dl").innerText();
    await until("what it does", async () =>
      /Records\/s\s+[1-9][\s\S]*Bytes\/s\s+[1-9][\s\S]*At work\s+[^\n]+ ms for a batch/.test(await facts()),
    );
    await shoot(page, "workflow-node");
    await section("Workflows");
    await until("it to be listed with all that counts", async () => {
      const [row] = await rows("Workflows");
      return row?.State === "running" && Number(row["Records/s"]) > 0 && row.Lag === "none";
    });
    const [{ "Dropped, dead": lost, Revision, Daemons }] = await rows("Workflows");
    assert.deepEqual([lost, Revision, Daemons], ["0", "1", "gateway, hub"]);
    await link("warm").click();
  },

  "the destination breaks: it is seen where, what waits and since when": async () => {
    await wish("postgres", "away");
    await measure(50, 51);
    await until("the trouble", async () => /retrying|failed/.test(await node("postgres").innerText()));
    await until("what waits, on the edge", async () => /2 wait[\s\S]* s behind/.test(await edges()));
    await until("the same in the table", async () => {
      const row = await here("gateway");
      return /^2\b/.test(row.Waiting) && /^\d+ s$/.test(row.Lag);
    });
    await page.locator(".react-flow__edge").last().focus();
    await page.keyboard.press("Enter");
    const about = region(/^Edge filter->postgres/);
    await about.getByText(/^\d+ s$/).waitFor();
    await looks("workflow-behind");
    await wish("postgres", "back");
    await until("what waited to arrive", async () => (await account())[2] === 0 && (await kept("celsius >= 50")) === 2);
    await until("nothing to be behind", async () => (await here("gateway")).Lag === "none");
  },

  "records that it refuses are dead letters, mended and replayed": async () => {
    await wish("sql", "alter table warm add constraint sane check (celsius < 100)");
    await measure(400, 401);
    await until("both to be dead", async () => (await account())[4] === 2);
    await tab("Dead letters");
    await until("both", async () => (await rows("Dead letters")).length === 2);
    const [{ Letter }] = await rows("Dead letters");
    await button(Letter).click();
    await dialog().getByLabel("celsius", { exact: true }).fill("40.25");
    await button("Change it and try again").click();
    await told("1 letter is tried again.");
    await until("it to arrive", async () => (await kept("celsius = 40.25")) === 1);
    // The other was right, and the table was wrong.
    await wish("sql", "alter table warm drop constraint sane");
    await until("one to be left", async () => (await rows("Dead letters")).length === 1);
    await button("Try all again").click();
    await told("1 letter is tried again.");
    await until("it to arrive", async () => (await kept("celsius in (400, 401)")) === 1);
    await text("No dead letters");
  },

  "a change is on its way to a daemon that does not answer": async () => {
    // It is there and says nothing: what it runs is believed for a while.
    await wish("freeze", "hub");
    await tab("Edit");
    await outline("filter").click();
    await field("where").fill("celsius > 1000");
    await deploy("warm");
    await go("/daemons/hub");
    const part = async () => (await rows("Workflows"))[0] ?? {};
    await until("the difference", async () => (await part()).Compared === "behind");
    const { Runs, Why, "Shall run": wanted } = await part();
    assert.deepEqual([wanted, Runs], ["revision 2", "revision 1"]);
    assert.match(Why, /Revision 2 is on its way/);
    await button("What differs in warm").click();
    await region("warm: from revision 1, which runs, to revision 2").getByText("celsius > 1000").first().waitFor();
    await wish("thaw", "hub");
    await until("it to be as wanted", async () => (await part()).Compared === "as wanted");
    assert.equal((await part()).Runs, "revision 2");
  },

  "it was a mistake, and is rolled back": async () => {
    await measure(60, 1001);
    await until("what it lets through", async () => (await kept("celsius = 1001")) === 1);
    const before = await kept();
    await go("/workflows/warm/revisions");
    await page.getByRole("button", { name: /^Revision 1/ }).click();
    await node("filter").getByText("changed").waitFor();
    await button("Roll back to revision 1").click();
    await told("warm runs the text of revision 1 again, as revision 3.");
    await tab("Run");
    await until("both to run it", async () => {
      const parts = await rows("Where it runs");
      return parts.length === 2 && parts.every(({ State, Revision }) => `${State} ${Revision}` === "running 3");
    });
    await measure(61);
    await until("what is warm to arrive again", async () => (await kept("celsius = 61")) === 1);
    assert.equal(await kept("celsius = 60"), 0, "the revision that was a mistake let it fall");
    assert.equal(await kept(), before + 1);
  },
};

walk("the whole story", 9, STEPS);
