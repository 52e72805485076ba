// Records, where somebody is allowed to see them: tried before a workflow is deployed, watched while they pass, mended when they
// died; secrets and connections. In front of a plane that holds an operator's keys. Each step goes on from the last.

import assert from "node:assert/strict";
import { accessible } from "./looks.mjs";
import {
  api,
  begin,
  button,
  dialog,
  go,
  link,
  looks,
  origin,
  page,
  rows,
  text,
  told,
  until,
  walk,
  watch,
} from "./walk.mjs";
import { PATIENCE_MS, shoot, wish } from "./world.mjs";

/** So long after its last picture a page says that it is not connected, in milliseconds. */
const SILENT_MS = 5_000;

const field = (name) => page.getByLabel(name, { exact: true });
const count = async (where) => Number(await wish("sql", `select count(*) from kept where ${where}`));
const section = (name) => page.getByRole("region", { name });

// Counts up on the gateway; PostgreSQL at the hub refuses the fifth.
const counting = (port) => `name = "counting"

[sources.counter]
type = "generator"
daemon = "gateway"
rate = 5
fields = { n = { kind = "counter" } }

[transforms.large]
type = "filter"
from = "counter"
where = "n > 2"

[destinations.kept]
type = "postgres"
daemon = "hub"
from = "large"
host = "127.0.0.1"
port = ${port}
user = "postgres"
database = "postgres"
password = { secret = "shop" }
tls = { mode = "disable" }
table = "kept"
`;

const STEPS = {
  "logged in, with two daemons and a table that refuses": async () => {
    await begin();
    await wish("postgres");
    await wish("sql", "create table kept (n bigint check (n not in (5, 6)))");
  },

  "eight windows are open, and the last of them loads": async () => {
    const live = (tab) => tab.getByText("live", { exact: true }).waitFor();
    const shown = (tab, isShown) =>
      tab.evaluate((hidden) => {
        Object.defineProperty(document, "hidden", { configurable: true, value: hidden });
        document.dispatchEvent(new Event("visibilitychange"));
      }, !isShown);
    const others = [];
    while (others.length < 7) {
      const tab = await page.context().newPage();
      tab.setDefaultTimeout(PATIENCE_MS);
      watch.add(tab);
      await tab.goto(`${origin}/daemons`);
      await live(tab);
      await tab.getByRole("cell", { name: "gateway" }).first().waitFor();
      others.push(tab);
    }
    // Whoever had the connection for all lets go of it: another one takes it.
    await shown(page, false);
    await others[1].waitForTimeout(SILENT_MS + 1_000);
    for (const tab of others) await live(tab);
    for (const tab of others) await tab.close();
    await shown(page, true);
    await live(page);
  },

  "without sharing, seven tabs behind another leave it room": async () => {
    const context = await page
      .context()
      .browser()
      .newContext({ storageState: await page.context().storageState() });
    await context.addInitScript(() => Object.defineProperty(navigator, "locks", { value: undefined }));
    for (let tabs = 0; tabs < 8; tabs += 1) {
      const tab = await context.newPage();
      tab.setDefaultTimeout(PATIENCE_MS);
      watch.add(tab);
      await tab.goto(`${origin}/daemons`);
      await tab.getByText("live", { exact: true }).waitFor();
      // A browser without windows shows every tab.
      await tab.evaluate(() => {
        Object.defineProperty(document, "hidden", { configurable: true, value: true });
        document.dispatchEvent(new Event("visibilitychange"));
      });
    }
    await context.close();
  },

  "records are tried before anything runs": async () => {
    await go("/workflows/new?view=text");
    await field("The workflow's text").fill(counting(await wish("postgres")));
    await page.getByText("The plane finds nothing wrong.").waitFor();
    await button("Preview").click();
    await field("Records").fill('{ "n": 1 }\nnonsense');
    await text("Line 2 is not JSON.");
    // What is written here is not the workflow's: undoing it leaves that alone.
    await field("Records").press("Control+z");
    assert.ok(await button("Undo (Ctrl Z)").isEnabled(), "the workflow's text is still there");
    await field("Records").fill('{ "n": 1 }\n{ "n": 3 }');
    await page.locator("main").getByRole("button", { name: "Preview", exact: true }).last().click();
    const step = section("counter → large");
    await step.getByText("2 in").waitFor();
    await step.getByText("1 out").waitFor();
    await step.getByText("1 dropped").waitFor();
    await step.getByText("1 record not let through").click();
    await until("the record that does not", async () => (await rows("What large drops"))[0]?.n === "1");
    await until("the record that goes on", async () => (await rows("What comes out of large"))[0]?.n === "3");
    await looks("editor-preview");
    assert.equal(await count("true"), 0, "no destination is written");
  },

  "what was seen is kept as a test, and run": async () => {
    await button("Keep it as a test").click();
    await told("The test preview is in the text");
    await button("Tests (1)").click();
    await button("Run all tests").click();
    await text("All is as expected.");
    await page.getByLabel("kept", { exact: true }).fill('{ "n": 4 }');
    await button("Run all tests").click();
    await text("1 test of 1 differs");
    await looks("editor-tests");
    await page.keyboard.press("Escape");
    await button("Undo (Ctrl Z)").click();
    await button("Run all tests").click();
    await text("All is as expected.");
  },

  "a workflow that needs a secret waits for it": async () => {
    await watch.forgive(/404.*workflows\/counting/, async () => {
      await button("Deploy …").click();
      await dialog().getByRole("button", { name: "Deploy", exact: true }).click();
      await page.waitForURL("**/workflows/counting");
    });
    await until("the hub to want it", async () =>
      (await rows("Where it runs")).some(({ Daemon, State }) => Daemon === "hub" && State !== "running"),
    );
    await go("/secrets?daemon=hub");
    await until("the secret", async () => (await rows("Secrets")).some(({ Set: when }) => when === "never, but used"));
    await button("Set shop").click();
    await dialog().getByRole("button", { name: "Set it", exact: true }).click();
    await dialog().getByText("Write what it is.").waitFor();
    await dialog().getByLabel("Value").fill("not for everybody");
    await accessible(page, "a secret");
    await dialog().getByRole("button", { name: "Set it", exact: true }).click();
    await told("It is set on 1 daemon; counting has begun anew.");
    assert.doesNotMatch(await page.locator("body").innerText(), /not for everybody/);
    await until("it to be set", async () =>
      (await rows("Secrets")).some(({ Set: when }) => /^(now|.* ago)$/.test(when)),
    );
    await button("Test the connections of counting").click();
    await until("both ends", async () => (await rows("Connections")).length >= 1);
    assert.ok((await rows("Connections")).every(({ Found }) => Found === "well"));
    // From one of its daemons alone, and only what is there.
    await page.getByLabel("Test from").selectOption("hub");
    await button("Test the connections of counting").click();
    await until("the hub's end", async () => (await rows("Connections")).map(({ From }) => From).join() === "hub");
    assert.match(page.url(), /from=hub/);
    await wish("postgres", "away");
    await button("Test the connections of counting").click();
    await until("what is wrong", async () => (await rows("Connections"))[0]?.Found === "unreachable");
    assert.match((await rows("Connections"))[0].What, /\n/, "what is wrong, and how to mend it");
    await wish("postgres", "back");
    await page.getByLabel("Test from").selectOption("");
    await button("Test the connections of counting").click();
    await until("both ends again", async () => (await rows("Connections")).length === 2);
    await looks("secrets");
  },

  "a connection is tested from the form": async () => {
    await go("/workflows/counting/edit");
    await page.locator('[data-node="kept"]').click();
    await button("Test the connection").click();
    await page.getByText("well, from hub").waitFor();
  },

  "records that pass are watched for a while, and everybody sees that they are": async () => {
    await go("/workflows/counting");
    await page.locator('.react-flow__node[data-id="large"]').click();
    await page.getByLabel("Watch records for").selectOption("30 seconds");
    await button("Watch").click();
    const badge = page.getByText(/^Records of large on gateway are shown for \d+ s more$/);
    await badge.waitFor();
    await until("records", async () => (await rows("Records of large")).length > 2);
    assert.match((await rows("Records of large"))[0].n, /^\d+$/);
    await looks("tap");
    assert.equal((await api("GET", "/operator/taps")).items.length, 1);
    const areOver = () =>
      until("it to be over", async () => (await api("GET", "/operator/taps")).items.every(({ is_over }) => is_over));
    // By itself: nobody presses anything.
    await badge.waitFor({ state: "detached" });
    await areOver();
    // And sooner, when somebody has seen enough.
    await button("Watch").click();
    await badge.waitFor();
    await button("End").click();
    await badge.waitFor({ state: "detached" });
    await areOver();
    await button("Close").click();
  },

  "records that are captured are tried again": async () => {
    await go("/workflows/counting/edit?view=preview");
    await button("Capture some that pass").click();
    // It goes on after the first of them, until somebody has enough.
    await page.getByText(/^[2-9]\d* of 100 captured/).waitFor();
    await button("That is enough").click();
    await until("them", async () => (await field("Records").inputValue()).split("\n").length >= 2);
    await button("Capture some that pass").waitFor();
  },

  "a dead letter is mended, and arrives": async () => {
    await go("/workflows/counting");
    await link("Dead letters").click();
    await until("both", async () => (await rows("Dead letters")).length === 2);
    await looks("letters");
    const [{ Letter }] = await rows("Dead letters");
    await button(Letter).click();
    await dialog().getByLabel("n", { exact: true }).fill("1005");
    await accessible(page, "a dead letter");
    await shoot(page, "letter");
    await button("Change it and try again").click();
    await told("1 letter is tried again.");
    await until("it to arrive", async () => (await count("n = 1005")) === 1);
    await until("one to be left", async () => (await rows("Dead letters")).length === 1);
    // Tried again as it is, it dies again.
    await button("Try all again").click();
    await told("1 letter is tried again.");
    await until("it to be back", async () =>
      (await rows("Dead letters")).some(({ Why }) => /tried again 1 times/.test(Why)),
    );
    await button("Discard all").click();
    await dialog().getByRole("button", { name: "Discard", exact: true }).click();
    await told("1 letter is discarded.");
    await text("No dead letters");
  },

  "all of it is in the audit, and nothing of what was seen": async () => {
    await go("/audit");
    await until("it", async () => {
      const done = (await rows("Audit")).map(({ Did }) => Did).join();
      return ["set a secret", "tap records", "change a dead letter"].every((each) => done.includes(each));
    });
    assert.doesNotMatch(await page.locator("main").innerText(), /not for everybody/);
  },
};

walk("records", 8, STEPS);
