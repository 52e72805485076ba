// One person's journey through the whole page, in a real browser, in front of a real fleet: from the printed link over the
// first daemon and the first workflow to a plane that went away. Each step goes on from where the last one ended.

import assert from "node:assert/strict";
import { test } from "node:test";
import { accessible, fits, readable, tabs } from "./looks.mjs";
import { asked, firstLink, launch, PATIENCE_MS, shoot, Watch, wish } from "./world.mjs";

const origin = new URL(firstLink).origin;
const watch = new Watch();
const ROWS = 1_500;
// As long as names may be.
const LONG = "a-workflow-whose-name-is-so-long";

let page;

// Asks again and again until the answer is one, and says what was waited for if it never comes.
async function until(what, ask) {
  const end = Date.now() + PATIENCE_MS;
  let last;
  do {
    last = await ask();
    if (last) return last;
    await new Promise((resolve) => setTimeout(resolve, 50));
  } while (Date.now() < end);
  throw new Error(`waited in vain for ${what}; the page says:\n${await page.locator("body").innerText()}`);
}

const go = (path) => page.goto(origin + path);
const heading = (name) => page.getByRole("heading", { level: 1, name, exact: true }).waitFor();
const button = (name) => page.getByRole("button", { name, exact: true });
const main = () => page.locator("main");
const link = (name) => main().getByRole("link", { name, exact: true });
const text = (part) => main().getByText(part).first().waitFor();
const told = (part) => page.getByRole("status").getByText(part).first().waitFor();
const section = (name) =>
  page.getByRole("navigation", { name: "Sections" }).getByRole("link", { name, exact: true }).click();
const clipboard = () => page.evaluate(() => navigator.clipboard.readText());
const number = (value) => value.toLocaleString("en");

// A table's rows as a person reads them: by the name of the column.
const rows = (label) =>
  page.evaluate((label) => {
    const table = [...document.querySelectorAll("main table")].find((each) => each.caption?.textContent === label);
    const names = [...(table?.tHead?.rows[0]?.cells ?? [])].map((cell) => cell.innerText.trim());
    return [...(table?.tBodies[0]?.rows ?? [])].map((row) =>
      Object.fromEntries([...row.cells].map((cell, at) => [names[at], cell.innerText.trim()])),
    );
  }, label);
const daemon = async (name) => (await rows("Daemons")).find((row) => row.Daemon === name);
const stream = async (workflow) => (await rows("Streams")).find((row) => row.Workflow === workflow);
const online = (name) => until(`${name} to be online`, async () => (await daemon(name))?.Presence === "online");

async function become(browser, options = {}) {
  const context = await browser.newContext({
    viewport: { width: 1280, height: 800 },
    reducedMotion: "reduce",
    permissions: ["clipboard-read", "clipboard-write"],
    ...options,
  });
  const fresh = await context.newPage();
  fresh.setDefaultTimeout(PATIENCE_MS);
  watch.add(fresh);
  return fresh;
}

const shop = (daemons, paths) => `name = "shop"

[sources.orders]
type = "sqlite"
daemon = "${daemons[0]}"
path = "${paths[0]}"
table = "orders"
cursor = "id"

[destinations.copy]
type = "sqlite"
daemon = "${daemons[1]}"
from = "orders"
path = "${paths[1]}"
table = "copied"
`;

const long = (paths) =>
  shop(["gateway", "hub"], paths)
    .replace('"shop"', `"${LONG}"`)
    .replaceAll("orders]", "orders-of-all-the-shops-we-have]")
    .replace('from = "orders"', 'from = "orders-of-all-the-shops-we-have"')
    .replaceAll("copy]", "copy-of-the-orders-for-everybody]");

// On every daemon there is, a copy each.
const everywhereAt = (rate) => `name = "everywhere"

[sources.sensor]
type = "generator"
daemon = "name:*"
rate = ${rate}
fields = { n = { kind = "counter" } }

[destinations.file]
type = "file"
daemon = "name:*"
from = "sensor"
format = "json_lines"
path = "everywhere.jsonl"
`;
const SCOPED = ["sam", "sees nothing but berlin"];
const ADMIN = ["ada", "a long way to berlin"];
const VIEWER = ["vera", "only looks at things"];

// What the command line says of the streams of a workflow, as the page's table should show it.
async function account(workflow) {
  const found = (await asked("ledger")).find((each) => each.workflow === workflow);
  if (!found) return null;
  const { produced, delivered, buffered, dropped, dead } = found.ledger;
  return [produced, delivered, buffered, dropped, dead].map(number);
}

const first = (cell) => cell.split("\n")[0];
async function shown(workflow) {
  const row = await stream(workflow);
  return row && [row.Produced, row.Delivered, row.Buffered, row.Dropped, row.Dead].map(first);
}

async function enrol(name) {
  await section("Daemons");
  await heading("Daemons");
  await main()
    .getByRole("link", { name: /^Enrol (a daemon|the first)$/ })
    .first()
    .click();
  await heading("Enrol a daemon");
  await page.getByLabel("Name").fill(name);
  await button("Make the enrolment string").click();
  await button("Copy the command").first().click();
  await told("Copied the command.");
  const command = await clipboard();
  assert.match(command, /^myceliald enrol myc1/);
  await text("Waiting for it to enrol");
  await shoot(page, "enrol-waiting");
  await wish("type", command, name);
  await text("It is enrolled; start it and it will report.");
  await wish("start", name);
  // By itself: nobody presses anything.
  await main().getByRole("status").getByText("online").waitFor();
  await link("Give it something to do").waitFor();
}

const textarea = () => page.getByLabel("The workflow's text");
const asText = () => page.getByRole("button", { name: "Text", exact: true }).click();
const dialog = () => page.getByRole("dialog");

const PLACES = [
  ["/", "Overview", "overview"],
  ["/daemons", "Daemons", "daemons"],
  ["/daemons/gateway", "gateway", "daemon"],
  ["/enrol", "Enrol a daemon", "enrol"],
  ["/enrol/approval", "Enrol a daemon", "enrol-approval"],
  ["/workflows", "Workflows", "workflows"],
  ["/workflows/shop", "shop", "workflow"],
  [`/workflows/${LONG}`, LONG, "workflow-long"],
  ["/workflows/shop/edit", "shop", "editor"],
  ["/workflows/shop/edit?view=text", "shop", "editor-text"],
  ["/workflows/shop/revisions", "shop", "revisions"],
  ["/workflows/new", "New workflow", "editor-new"],
  ["/rollouts", "Rollouts", "rollouts"],
  ["/rollouts/2", "Rollout 2", "rollout"],
  ["/streams", "Streams", "streams"],
  ["/alerts", "Alerts", "alerts"],
  ["/alerts/rules", "Alerts", "alert-rules"],
  ["/logs", "Logs", "logs"],
  ["/logs/events", "Logs", "events"],
  ["/audit", "Audit", "audit"],
  ["/commands/1", "Command 1", "command"],
  ["/components", "Components", "components"],
  ["/components/source/postgres", "postgres", "component"],
  ["/settings", "Settings", "settings"],
  ["/settings/users", "Settings", "users"],
  ["/settings/tokens", "Settings", "tokens"],
  ["/settings/broker", "Settings", "broker"],
  ["/settings/backup", "Settings", "backup"],
  ["/nowhere", "No such page", "missing"],
];

// A page as it is, in both themes and as wide as a telephone.
async function everyLook(name) {
  const size = page.viewportSize();
  for (const colorScheme of ["dark", "light"]) {
    await page.emulateMedia({ colorScheme });
    await accessible(page, `${name} ${colorScheme}`);
    await shoot(page, `${name}-${colorScheme}`);
  }
  await page.setViewportSize({ width: 375, height: 740 });
  await fits(page, name);
  await accessible(page, `${name} narrow`);
  await shoot(page, `${name}-phone`);
  await page.setViewportSize(size);
}

const settled = () => until("the data", async () => !/Loading …|Checking …/.test(await main().innerText()));

// Every page there is, one after the other, drawn with data. What is wrong with one does not hide what is wrong with the next.
async function everywhere(look) {
  const wrong = [];
  const size = page.viewportSize();
  for (const [path, title, name] of PLACES) {
    try {
      await page.setViewportSize(size);
      await go(path);
      await heading(title);
      await settled();
      await look(name, path);
    } catch (cause) {
      wrong.push(`${path}: ${cause.message}`);
    }
  }
  await page.setViewportSize(size);
  assert.deepEqual(wrong, []);
}

const STEPS = {
  "a stranger is told how to log in, wherever they come in": async () => {
    for (const path of ["/", "/streams", "/workflows/new", "/login", "/logout"]) {
      await go(path);
      await heading("Log in");
      await text(/^mycelial-plane login --dir /);
      assert.equal(await page.getByRole("navigation").count(), 0, "there is nowhere to go yet");
    }
    await page.getByLabel("Open that link, or paste it here").fill("let me in");
    await button("Log in").click();
    await text("This is not a log-in link");
    await everyLook("log-in");
    await watch.forgive(/40[14]/, async () => {
      for (const [path, message] of [
        ["/assets/none.js", "There is no such page."],
        ["/api/v1/ledger", "You are not logged in."],
      ]) {
        await go(path);
        await text(message);
        await accessible(page, "a refusal");
        await link("To the overview").click();
        await heading("Log in");
      }
    });
  },

  "the printed link logs in, and leaves no trace": async () => {
    await page.goto(firstLink);
    await heading("Overview");
    assert.equal(page.url(), `${origin}/`);
    await page.getByText("live", { exact: true }).waitFor();
  },

  "a fleet that is new says what to do": async () => {
    await text("Enrol the first daemon");
    await text("0 of 4 are done");
    await everyLook("overview-empty");
    for (const [name, says, next] of [
      ["Daemons", "No daemons yet", "Enrol the first"],
      ["Workflows", "No workflows yet", "New workflow"],
      ["Rollouts", "No rollouts yet", "All workflows"],
      ["Streams", "No streams yet", "New workflow"],
      ["Alerts", "Nothing is wrong", "See the rules"],
      ["Logs", "No daemons yet", "Enrol a daemon"],
      ["Components", "No components yet", "Enrol a daemon"],
    ]) {
      await section(name);
      await heading(name);
      await text(says);
      await link(next).first().waitFor();
      await accessible(page, `empty ${name}`);
    }
    await go("/nowhere");
    await heading("No such page");
    await watch.forgive(/40[04].*(daemons\/nobody|workflows\/nobody|rollouts\/9|rollouts\/NaN)/, async () => {
      for (const [path, says] of [
        ["/rollouts/9", "There is no rollout 9"],
        ["/rollouts/first", "There is no rollout first"],
        ["/daemons/nobody", "There is no daemon nobody"],
        ["/workflows/nobody", "There is no workflow nobody"],
      ]) {
        await go(path);
        await text(says);
      }
    });
  },

  "a link works once": async (browser) => {
    await watch.forgive(/401.*\/session/, async () => {
      // To who is in already it is no matter.
      await page.goto("about:blank");
      await page.goto(firstLink);
      await heading("Overview");
      await told("You are logged in already");
      const mine = page;
      page = await become(browser);
      await page.goto(firstLink);
      await heading("Log in");
      await text("This log-in link has been used already, or is too old.");
      await page.getByLabel("Open that link, or paste it here").fill(await wish("login"));
      await button("Log in").click();
      await heading("Overview");
      await button("Log out").click();
      await heading("Log in");
      await page.reload();
      await heading("Log in");
      await page.context().close();
      page = mine;
    });
  },

  "daemons and an operator join by what the page gives out": async () => {
    await enrol("gateway");
    await enrol("hub");
    await section("Daemons");
    await online("gateway");
    await online("hub");
    await link("Enrol a daemon").click();
    await page.getByLabel("Who joins").selectOption("operator");
    await button("Make the enrolment string").click();
    await button("Copy the command").click();
    await told("Copied the command.");
    await wish("type", await clipboard(), "--name", "me");
    await button("Make another").click();
    // A string that is not wanted any more is taken back.
    await page.getByLabel("Who joins").selectOption("daemon");
    await page.getByLabel("Name").fill("never");
    await page.getByLabel("Labels").fill("site");
    await text("is no change of a label");
    await page.getByLabel("Labels").fill("site=berlin line=2");
    await button("Copy as CLI").first().click();
    assert.equal(await clipboard(), "mycelial token create --name never --label site=berlin --label line=2");
    await button("Make the enrolment string").click();
    await button("Make another").click();
    const strings = () => rows("Enrolment strings");
    await until("the string", async () => (await strings()).some((row) => row.For === "daemon never"));
    const { Id, Labels } = (await strings()).find((row) => row.For === "daemon never");
    assert.equal(Labels, "line=2 site=berlin");
    await button(`Revoke ${Id}`).click();
    await dialog().getByRole("button", { name: "Revoke", exact: true }).click();
    await until("it to be gone", async () => !(await strings()).some((row) => row.For === "daemon never"));
    // What the page knows is wrong, and what only the plane knows.
    await page.getByLabel("Name").fill("Gateway 1");
    await text("Use 1 to 32 letters");
    await page.getByLabel("Name").fill("gateway");
    await watch.forgive(/409.*tokens/, async () => {
      await button("Make the enrolment string").click();
      await main().getByRole("alert").getByText("The name 'gateway' is taken.").waitFor();
    });
    const daemons = await asked("daemon", "list");
    assert.deepEqual(
      daemons.map(({ name, presence }) => [name, presence]),
      [
        ["gateway", "online"],
        ["hub", "online"],
      ],
    );
  },

  "a daemon's page tells what it is and what it can run": async () => {
    await section("Daemons");
    await link("gateway").click();
    await heading("gateway");
    await text("No workflow runs here.");
    const [known] = await asked("daemon", "list");
    await text(known.node);
    const up = () => page.locator("dt", { hasText: "Up for" }).locator("+ dd").innerText();
    const before = await up();
    await until("the page to be renewed", async () => (await up()) !== before);
    const fact = (name) => page.locator("dt", { hasText: name }).locator("+ dd").innerText();
    assert.equal(await fact("Generation of keys"), "0: the first, from its enrolment");
    assert.equal(await fact("Keys before"), "none is good any more");
    assert.match(await fact("Starts"), /^\d+, the last/);
    assert.equal(await fact("One of it"), "no sign of a second one");
    assert.match(await fact("Enrolled"), /^(now|.* ago)$/);
    // What it logs, as it comes.
    await until("its newest lines", async () => (await rows("Log")).some(({ Line }) => /./.test(Line)));
    await link("sqlite").first().click();
    await heading("sqlite");
    // Who has it, besides this one.
    const carriers = page.getByRole("region", { name: "Daemons that have it" });
    await carriers.getByText("2 of 2 daemons").waitFor();
    assert.match(await carriers.innerText(), /gateway\s+online\s+hub\s+online/);
    await text('type = "sqlite"');
    const settings = await rows("Settings");
    assert.match(settings.find(({ Setting }) => /^path/.test(Setting))?.Setting ?? "", /required/);
    // The example is where a workflow begins.
    await link("Use this").click();
    await heading("New workflow");
    await asText();
    assert.match(await textarea().inputValue(), /^name = "readings"/);
  },

  "a workflow with mistakes is sent back with their lines": async () => {
    await wish("rows", ROWS);
    await section("Workflows");
    await link("New workflow").first().click();
    await heading("New workflow");
    await asText();
    assert.match(await textarea().inputValue(), /daemon = "gateway"[\s\S]*daemon = "hub"/);
    const paths = [await wish("path", "shop.db"), await wish("path", "copy.db")];
    const good = shop(["gateway", "hub"], paths);
    const bad = good.replace('daemon = "hub"', 'daemon = "hup"').replace("cursor", "cursed");
    await textarea().fill(bad);
    await text("draft, kept by the plane");
    // A reload loses nothing.
    await page.reload();
    await text("draft, kept by the plane");
    assert.equal(await textarea().inputValue(), bad);
    // Nor does another browser, whatever it remembers itself.
    await go("/workflows");
    await link("a new workflow").waitFor();
    await page.evaluate(() => localStorage.clear());
    await go("/workflows/new?view=text");
    await until("the draft", async () => (await textarea().inputValue()) === bad);
    const hup = button(/^line 12.*hup/);
    await hup.waitFor();
    await button(/^line 8.*cursed/).waitFor();
    await shoot(page, "editor-problems");
    await hup.click();
    const chosen = await textarea().evaluate((area) => area.value.slice(area.selectionStart, area.selectionEnd));
    assert.equal(chosen, 'daemon = "hup"');
    // Deploying it is refused with the same words, and changes nothing. That there is no such workflow yet is no news.
    await watch.forgive(/40[04].*workflows\/shop/, async () => {
      await button("Deploy …").click();
      await dialog().getByRole("button", { name: "Deploy", exact: true }).click();
      const refusal = dialog().getByRole("alert");
      await refusal.getByText(/nothing was changed/i).waitFor();
      await button("Keep editing").click();
    });
    assert.deepEqual(await asked("workflow", "list"), []);
    await textarea().fill(good);
    await text("The plane finds nothing wrong.");
    await watch.forgive(/404.*workflows\/shop/, async () => {
      await page.keyboard.press("Control+s");
      await dialog().getByRole("button", { name: "Deploy", exact: true }).click();
      await told("shop is deployed as revision 1.");
    });
    await heading("shop");
    await text("cursor =");
  },

  "the workflow runs, and every number is the command line's": async () => {
    await until("the workflow to run", async () => {
      const parts = await rows("Where it runs");
      return parts.length === 2 && parts.every(({ State }) => State === "running");
    });
    const all = number(ROWS);
    await until("all rows to be there", async () => (await account("shop"))?.join(" ") === `${all} ${all} 0 0 0`);
    await section("Streams");
    await heading("Streams");
    await until("the page to say so too", async () => (await shown("shop"))?.join() === (await account("shop")).join());
    await until("the account to balance", async () => (await stream("shop")).Account === "balances");
    assert.match((await stream("shop")).Stream, /orders → copy\s+gateway → hub/);
    await section("Workflows");
    await heading("Workflows");
    const [listed] = await asked("workflow", "list");
    await until("the list", async () => (await rows("Workflows"))[0]?.State === "running");
    const [row] = await rows("Workflows");
    assert.deepEqual([row.Workflow, row.Daemons, row.Revision], ["shop", "gateway, hub", "1"]);
    assert.match(row.Applied, /^(now|.* ago) by owner$/);
    const applied = main().locator("time");
    assert.equal(new Date(await applied.getAttribute("datetime")).getTime(), listed.at_unix_ms);
    assert.match(await applied.getAttribute("title"), /\d\d:\d\d:\d\d [A-Z]+/, "exact, with its zone");
  },

  "a second workflow, with the longest names": async () => {
    await go("/workflows/new?view=text");
    await textarea().fill(long([await wish("path", "shop.db"), await wish("path", "long.db")]));
    await text("The plane finds nothing wrong.");
    await watch.forgive(/404.*workflows\/a-workflow/, async () => {
      await button("Deploy …").click();
      await dialog().getByRole("button", { name: "Deploy", exact: true }).click();
      await heading(LONG);
    });
    await section("Streams");
    await until("both streams", async () => (await rows("Streams")).length === 2);
    await until("the long one's rows", async () => (await shown(LONG))?.[1] === number(ROWS));
    await text("2 streams");
    await text("all balance");
  },

  "records are seen to flow": async () => {
    await section("Streams");
    let total = ROWS;
    await until("a rate", async () => {
      await wish("rows", 200);
      total += 200;
      return Number.parseFloat((await stream("shop"))["Records/s"].replaceAll(",", "")) > 0;
    });
    await until("all of them to be delivered", async () => (await shown("shop"))[1] === number(total));
    assert.deepEqual(await account("shop"), [total, total, 0, 0, 0].map(number));
    // The command that the page gives out says the same.
    await button("Copy as CLI").click();
    const command = await clipboard();
    assert.match(await wish("type", command), new RegExp(`${total}|${number(total)}`));
  },

  "two people change the same workflow": async () => {
    await go("/workflows/shop/edit?view=text");
    const mine = `# mine\n${await textarea().inputValue()}`;
    await textarea().fill(mine);
    // Meanwhile somebody else, on the same text.
    const status = await page.evaluate(async () => {
      const { text: now } = await (await fetch("/api/v1/workflows/shop")).json();
      const body = JSON.stringify({ text: `# theirs\n${now}` });
      const headers = { "content-type": "application/json", "if-match": "*" };
      const answer = await fetch("/api/v1/workflows/shop", { method: "PUT", headers, body });
      await answer.text();
      return answer.status;
    });
    assert.equal(status, 200);
    await button("Deploy …").click();
    await dialog().getByText("owner deployed revision 2 since this draft began.").waitFor();
    await accessible(page, "a conflict");
    await shoot(page, "editor-conflict");
    await page.keyboard.press("Escape");
    assert.equal((await asked("workflow", "list")).find(({ name }) => name === "shop").revision, 2);
    await button("Deploy …").click();
    await button("Deploy mine over revision 2").click();
    await told("shop is deployed as revision 3.");
    await text("# mine");
    // Changes that are not wanted.
    await link("Edit").click();
    await asText();
    await textarea().fill("nonsense");
    await button("Discard the draft").click();
    await until("the old text", async () => (await textarea().inputValue()) === mine);
  },

  "a revision is looked at, and taken back": async () => {
    await go("/workflows/shop/revisions");
    await heading("shop");
    await button(/^Revision 2/).click();
    await text("What going back to revision 2 would change");
    await text("Only comments, order or blank lines differ.");
    assert.match(page.url(), /\?revision=2$/);
    await shoot(page, "revisions-diff");
    await button("Roll back to revision 2").click();
    await told("shop runs the text of revision 2 again, as revision 4.");
    await button(/^Revision 4/)
      .getByText("current")
      .waitFor();
    assert.match((await asked("workflow", "revisions", "shop"))[0]?.is_current ? "current" : "", /current/);
  },

  "daemons are chosen, sorted, and a choice is kept": async () => {
    await section("Daemons");
    const names = async () => (await rows("Daemons")).map(({ Daemon }) => Daemon).join();
    const filter = page.getByLabel("Filter daemons");
    for (const [typed, expected] of [
      ["name:g*", "gateway"],
      ["-gate", "hub"],
      ["runs:shop presence:online", "gateway,hub"],
      ["-runs:shop", ""],
    ]) {
      await filter.fill(typed);
      await until(`"${typed}" to choose ${expected}`, async () => (await names()) === expected);
    }
    // Labels for those that are chosen, and a filter by them.
    await filter.fill("name:g*");
    await button("Label 1 daemon").click();
    await page.getByLabel("Changes").fill("site=berlin line=7");
    await accessible(page, "labels");
    await button("Change the labels").click();
    await told("Labels of 1 daemon are changed.");
    await filter.fill("site=berlin -line=8");
    await until("the labelled one", async () => (await names()) === "gateway");
    assert.match((await daemon("gateway")).Labels, /line=7 site=berlin/);
    await filter.fill("presence:here");
    await text("write presence:online");
    await filter.fill("name:h*");
    await button("Keep this view").click();
    await button("Copy as CLI").click();
    const command = await clipboard();
    assert.equal(command, "mycelial daemon list -l 'name:h*'");
    await filter.fill("");
    await button("Daemon").click();
    await until("the other way round", async () => (await names()) === "hub,gateway");
    // An address says all of it, also to somebody else.
    const { searchParams } = new URL(page.url());
    assert.equal(searchParams.get("sort"), "-name");
    await button("name:h*").click();
    await until("the kept view", async () => (await names()) === "hub");
    await page.reload();
    await until("the same after a reload", async () => (await names()) === "hub");
    await button("Forget the view name:h*").click();
    assert.equal(await button("name:h*").count(), 0);
  },

  "a daemon's labels are changed on its page, and changed back": async () => {
    await go("/daemons/gateway");
    const labels = () => page.getByRole("list", { name: "Labels of gateway" }).getByRole("listitem").allInnerTexts();
    const are = (expected) =>
      until(`the labels ${expected}`, async () => (await labels()).map((each) => each.trim()).join() === expected);
    await are("line=7,site=berlin");
    await button("Change the labels").click();
    const field = page.getByLabel("Changes");
    await field.fill("site");
    await text("is no change of a label");
    await field.fill("site=bonn shift=night");
    await field.press("Enter");
    await told("The labels of gateway are changed.");
    await are("line=7,shift=night,site=bonn");
    await button("Undo").click();
    await told("The labels of gateway are as before.");
    await are("line=7,site=berlin");
    await button("Take off line").click();
    await told("gateway has no label line any more.");
    await accessible(page, "labels of a daemon");
    await are("site=berlin");
    await page.getByRole("status").getByRole("button", { name: "Undo", exact: true }).last().click();
    await are("line=7,site=berlin");
    assert.deepEqual((await asked("daemon", "list")).length, 2);
  },

  "the fleet is seen by what it has in common": async () => {
    await go("/daemons");
    await page.getByLabel("Group by").selectOption("By site");
    await until("the groups", async () => (await rows("Groups")).length === 2);
    assert.deepEqual(
      (await rows("Groups")).map(({ Site, Daemons, Presence }) => [Site, Daemons, Presence]),
      [
        ["berlin", "1", "1 online"],
        ["no site", "1", "1 online"],
      ],
    );
    await accessible(page, "groups");
    await shoot(page, "daemons-groups");
    await button("berlin").click();
    await until(
      "the daemon in it",
      async () => (await rows("Daemons")).map(({ Daemon }) => Daemon).join() === "gateway",
    );
    assert.equal(await page.getByLabel("Filter daemons").inputValue(), "site=berlin");
  },

  "daemons are told to do something, and it is seen how they do": async () => {
    await go("/daemons");
    await button("Command 2 daemons").click();
    await dialog().getByText("gateway, hub").waitFor();
    await dialog().getByLabel("What they shall do").selectOption("Restart a workflow");
    await dialog().getByRole("button", { name: "Restart a workflow", exact: true }).click();
    await dialog().getByText("Choose the workflow.").waitFor();
    await dialog().getByLabel("Workflow").selectOption("shop");
    await accessible(page, "a command");
    await dialog().getByRole("button", { name: "Restart a workflow", exact: true }).click();
    await heading("Command 1");
    await text("All have answered:");
    await until("both to say so", async () => {
      const daemons = await rows("Daemons");
      return (
        daemons.length === 2 && daemons.every(({ Standing, Workflows }) => `${Standing} ${Workflows}` === "done shop")
      );
    });
    // One that is away does not answer, and that is said too.
    await go("/daemons/gateway");
    await button("Command …").click();
    await dialog().getByLabel("What they shall do").selectOption("Diagnose");
    await dialog().getByRole("button", { name: "Copy as CLI" }).click();
    assert.equal(await clipboard(), "mycelial daemon diagnose gateway");
    await dialog().getByRole("button", { name: "Diagnose", exact: true }).click();
    await heading("Command 2");
    await main().getByRole("heading", { level: 2, name: "What they found" }).waitFor();
    await accessible(page, "a diagnosis");
    const [file] = await Promise.all([page.waitForEvent("download"), button("Save").click()]);
    assert.equal(file.suggestedFilename(), "command-2.txt");
    await shoot(page, "diagnosis");
    // On the daemon's own page is what it was told, the newest first.
    await go("/daemons/gateway");
    await until("both commands", async () => (await rows("Commands")).length === 2);
    assert.deepEqual(
      (await rows("Commands")).map(({ Command, Standing, By }) => [Command, Standing, By]),
      [
        ["Diagnose.", "done", "owner"],
        ["Restart shop.", "done", "owner"],
      ],
    );
    await button("Diagnose").click();
    await dialog().getByRole("button", { name: "Diagnose", exact: true }).click();
    await heading("Command 3");
    await watch.forgive(/404.*commands\/99/, async () => {
      await go("/commands/99");
      await text("There is no command 99");
    });
  },

  "records stay on the daemons unless the plane may ask for them": async () => {
    await watch.forgive(/403.*operator\//, async () => {
      for (const path of ["/workflows/shop/letters", "/secrets"]) {
        await go(path);
        await text(/its web operator is switched off/);
        await text(/use the command line: mycelial (dlq|secret) list/i);
        await accessible(page, path);
      }
    });
  },

  "what daemons log is read, searched, held and taken away": async () => {
    await go("/logs");
    const lines = () => rows("Lines");
    await until("lines of both", async () => {
      const daemons = new Set((await lines()).map(({ Daemon }) => Daemon));
      return daemons.has("gateway") && daemons.has("hub");
    });
    await page.getByLabel("Workflow").selectOption("shop");
    await until("only its lines", async () => {
      const found = await lines();
      return found.length > 0 && found.every(({ Workflow }) => Workflow === "shop");
    });
    await page.getByLabel("Filter lines").fill("-hub");
    await until("only the other's", async () => {
      const found = await lines();
      return found.length > 0 && found.every(({ Daemon }) => Daemon === "gateway");
    });
    assert.match(page.url(), /workflow=shop&q=-hub/);
    await page.getByLabel("Daemon").selectOption("gateway");
    await button("Copy as CLI").click();
    assert.equal(await clipboard(), "mycelial logs gateway --workflow shop -f");
    await button("Pause").click();
    await text(/, paused$/);
    const [file] = await Promise.all([page.waitForEvent("download"), button("Export").click()]);
    assert.equal(file.suggestedFilename(), "gateway.log");
    await button("Go on").click();
  },

  "a daemon that stops, and one that dies, are seen": async () => {
    await go("/daemons");
    await wish("stop", "hub");
    await until("the hub to be offline", async () => (await daemon("hub"))?.Presence === "offline");
    assert.match((await daemon("hub"))["Last seen"], /^(now|\d+ (s|min) ago)$/);
    await wish("rows", 100);
    await section("Overview");
    await link(/^hub is offline/).waitFor();
    await shoot(page, "overview-attention");
    await section("Streams");
    await until("records waiting", async () => {
      const counts = await shown("shop");
      return counts?.[2] === "100" && counts.join() === (await account("shop")).join();
    });
    assert.match((await stream("shop")).Account, /hub is offline$/);
    await wish("start", "hub");
    await until("them to be delivered", async () => {
      const [produced, delivered, buffered] = (await shown("shop")) ?? [];
      return buffered === "0" && produced === delivered;
    });
    await section("Daemons");
    await online("hub");
    await wish("kill", "gateway");
    await until("the gateway to be late", async () => (await daemon("gateway"))?.Presence === "late");
    await wish("start", "gateway");
    await online("gateway");
    await section("Overview");
    await text("Everything runs as it should.");
  },

  "a revision goes out in waves, and is taken back for a reason": async () => {
    const deploy = async (rate, soak, shot) => {
      await textarea().fill(everywhereAt(rate));
      await text("The plane finds nothing wrong.");
      await page.keyboard.press("Control+s");
      await dialog().getByText("2 daemons concerned").waitFor();
      await dialog().getByLabel("In waves, the first as a canary").check();
      await dialog().getByRole("textbox", { name: "Waves" }).fill("1 and all");
      await dialog().getByText("Write how many daemons have it after each wave").waitFor();
      assert.ok(await dialog().getByRole("button", { name: "Deploy", exact: true }).isDisabled());
      await dialog().getByRole("textbox", { name: "Waves" }).fill("1, 100%");
      await dialog().getByLabel("Each wave does well for").fill(soak);
      await accessible(page, "a deployment in waves");
      if (shot) await shoot(page, shot);
      await dialog().getByRole("button", { name: "Deploy", exact: true }).click();
    };
    const wave = (number) =>
      main()
        .getByRole("listitem")
        .filter({ hasText: `Wave ${number}` });
    await go("/workflows/new?view=text");
    await watch.forgive(/404.*workflows\/everywhere/, async () => {
      await deploy(1, "1s");
      await heading("Rollout 1");
      await text("gets its first revision, 1");
    });
    await text("All daemons run it.");
    await text("2 of 2 daemons run it.");
    await until("both to say so", async () => {
      const daemons = await rows("Daemons");
      return daemons.length === 2 && daemons.every((row) => row.Runs === "revision 1, the new one");
    });
    // Its nodes run on both.
    await go("/workflows/everywhere");
    const node = page.locator('.react-flow__node[data-id="sensor"]');
    await node.getByText("2 running").waitFor();
    await node.click();
    const where = page.getByRole("list", { name: "Where sensor runs" });
    await until("both", async () => /gateway\s+running\s+hub\s+running/.test(await where.innerText()));
    // A second one, which somebody stops after the canary.
    await go("/workflows/everywhere/edit?view=text");
    await deploy(2, "10m", "deploy-waves");
    await heading("Rollout 2");
    await wave(1).getByText("soaking").waitFor();
    await wave(2).getByText("waits").waitFor();
    assert.match(await wave(1).innerText(), /1 of 1 daemon/);
    await until("the canary alone to have it", async () => {
      const runs = (await rows("Daemons")).map(({ Runs }) => Runs).sort();
      return runs.join() === "revision 1,revision 2, the new one";
    });
    await button("Pause").click();
    await dialog().getByLabel("Reason").fill("the line is being cleaned");
    await dialog().getByRole("button", { name: "Pause", exact: true }).click();
    await told("Rollout 2 is paused.");
    await text("The line is being cleaned.");
    await section("Overview");
    await link(/^Rollout 2 of everywhere is paused/).click();
    await heading("Rollout 2");
    await shoot(page, "rollout-paused");
    await button("Resume").click();
    await dialog().getByRole("button", { name: "Resume", exact: true }).click();
    await told("Rollout 2 goes on.");
    await wave(1).getByText("soaking").waitFor();
    await go("/workflows/everywhere");
    await text("Revision 2 is being rolled out: wave 1 of 2");
    await link("See rollout 2").click();
    await button("Roll back").click();
    await dialog().getByRole("button", { name: "Roll back", exact: true }).click();
    await dialog().getByText("Say why: others will read it.").waitFor();
    await dialog().getByLabel("Reason").fill("too loud");
    await dialog().getByRole("button", { name: "Copy as CLI" }).click();
    assert.equal(await clipboard(), "mycelial rollout rollback 2 --reason 'too loud'");
    await dialog().getByRole("button", { name: "Roll back", exact: true }).click();
    await told("Rollout 2 goes back.");
    await until("all to be as before", async () => (await rows("Daemons")).every(({ Runs }) => Runs === "revision 1"));
    await section("Rollouts");
    await until("its end in the list", async () => (await rows("Rollouts"))[0]?.State === "rolled back");
    const [second, first] = await rows("Rollouts");
    assert.match(second.Why, /too loud/);
    assert.deepEqual([first.Rollout, first.State, first.Daemons], ["Rollout 1", "done", "2 of 2"]);
    const listed = await asked("rollout", "list");
    assert.deepEqual(
      listed.map(({ id, phase }) => [id, phase]),
      [
        [2, "rolled_back"],
        [1, "done"],
      ],
    );
    await go("/workflows/everywhere/revisions");
    await link("Its rollouts").click();
    await until("only those", async () => (await rows("Rollouts")).length === 2);
    // A third one ends where it stands: the canary keeps what it has.
    await go("/workflows/everywhere/edit?view=text");
    await deploy(3, "10m");
    await heading("Rollout 3");
    await wave(1).getByText("soaking").waitFor();
    await button("Abort").click();
    await dialog().getByLabel("Reason").fill("not today");
    await dialog().getByRole("button", { name: "Abort", exact: true }).click();
    await told("Rollout 3 is over.");
    assert.equal(await button("Abort").count(), 0);
    const runs = async () => (await rows("Daemons")).map(({ Runs }) => Runs).sort();
    await until("the canary alone to keep it", async () =>
      /^revision 1,revision \d, the new one$/.test((await runs()).join()),
    );
    assert.deepEqual((await asked("rollout", "list")).map(({ id, phase }) => [id, phase])[0], [3, "aborted"]);
    // The next one brings all to the same again.
    await go("/workflows/everywhere/edit?view=text");
    await textarea().fill(everywhereAt(1));
    await text("The plane finds nothing wrong.");
    await page.keyboard.press("Control+s");
    await dialog().getByRole("button", { name: "Deploy", exact: true }).click();
    await told(/^everywhere is deployed as revision/);
    await until("all to run it", async () => {
      const parts = await rows("Where it runs");
      return (
        parts.length === 2 && parts.every(({ State }) => State === "running") && parts[0].Revision === parts[1].Revision
      );
    });
  },

  "an alert fires, is silenced, and its rule is changed": async () => {
    await section("Alerts");
    await link("Rules").click();
    await until("the plane's own rules", async () => (await rows("Rules")).length >= 8);
    await button("New rule").click();
    await dialog().getByLabel("Name").fill("Much disk");
    await button("Store the rule").click();
    await dialog().getByText("Use 1 to 32 letters").waitFor();
    await dialog().getByLabel("Name").fill("much-disk");
    await dialog().getByLabel("Fires when").selectOption("Little disk is free");
    await dialog().getByLabel("Less than, in MiB").fill("999999999");
    await dialog().getByLabel("For", { exact: true }).fill("0s");
    await dialog().getByLabel("Only daemons").fill("name:gateway");
    await button("When would it have fired?").click();
    await dialog()
      .getByText(/it would have fired \d+ times?:/)
      .waitFor();
    await accessible(page, "a rule");
    await shoot(page, "alert-rule");
    await button("Store the rule").click();
    await told("The rule much-disk is stored.");
    // The plane's own stay the plane's.
    const own = async () => (await rows("Rules")).filter(({ Rule }) => !/comes with the plane/.test(Rule));
    await until("it in the list", async () => (await own()).map(({ Rule }) => Rule).join() === "much-disk");
    await page.getByLabel("disk-free is on").click();
    await until("two of one's own", async () => (await own()).length === 2);
    await page.getByLabel("disk-free is on").click();
    await until("one of one's own again", async () => (await own()).length === 1);
    await button("Remove much-disk").click();
    await told("The rule much-disk is removed.");
    await until("none of one's own", async () => (await own()).length === 0);
    await button("Undo").click();
    await until("it to be back", async () => (await own()).map(({ Rule }) => Rule).join() === "much-disk");
    await link("Alerts").click();
    await until("it to fire", async () => (await rows("Alerts")).some(({ State }) => State === "fires"));
    const [fires] = await rows("Alerts");
    assert.deepEqual([fires.Severity, fires.About], ["warning", "daemon gateway"]);
    await section("Overview");
    await link(/^1 alert fires/).click();
    await button("Silence much-disk about daemon gateway").click();
    await dialog().getByLabel("Reason").fill("a new disk is on its way");
    await accessible(page, "a silence");
    await button("Silence it").click();
    await told("Nobody is told of it for 2h.");
    await text("a new disk is on its way");
    const [listed] = await asked("alert", "list");
    assert.deepEqual([listed.rule, listed.silence_reason], ["much-disk", "a new disk is on its way"]);
    await section("Overview");
    await text("Everything runs as it should.");
  },

  "people have names: an admin, and one who only looks": async (browser) => {
    await section("Overview");
    await link("Make the first admin").first().click();
    const form = async ([name, password], again = password) => {
      await page.getByLabel("Name", { exact: true }).fill(name);
      await page.getByLabel("Password", { exact: true }).fill(password);
      await page.getByLabel("The same again").fill(again);
    };
    await form(ADMIN, "something else");
    await button("Make the first admin").click();
    await text("It is not the same as above.");
    await form(ADMIN);
    await button("Make the first admin").click();
    await told("You are logged in as ada from now on.");
    await page.getByText("ada, admin").waitFor();
    await form(VIEWER);
    await button("Add the user").click();
    await told("vera can log in now.");
    const role = async (name) => (await rows("Users")).find(({ User }) => User.startsWith(name))?.Role;
    await until("her in the list", () => role("vera"));
    // Somebody else, in another browser.
    const mine = page;
    page = await become(browser);
    await go("/");
    await heading("Log in");
    await accessible(page, "log in by name");
    await shoot(page, "log-in-name");
    const enter = async (name, password) => {
      await page.getByLabel("Name").fill(name);
      await page.getByLabel("Password").fill(password);
      await button("Log in").click();
    };
    await watch.forgive(/401.*\/session/, async () => {
      await enter(VIEWER[0], "a wild guess");
      await page.getByRole("alert").getByText("Name or password is wrong.").waitFor();
    });
    await enter(...VIEWER);
    await heading("Overview");
    // No dead buttons, but why there are none.
    for (const [path, says, gone] of [
      ["/enrol", "Enrolling somebody needs the role operator; you are viewer.", "Make the enrolment string"],
      ["/enrol/approval", "Enrolling somebody needs the role operator; you are viewer.", "Let daemons wait"],
      ["/daemons", "Labelling and commanding needs the role operator; you are viewer.", "Label 2 daemons"],
      ["/daemons/gateway", "Commanding needs the role operator; you are viewer.", "Command …"],
      ["/daemons/gateway", "Labelling needs the role operator; you are viewer.", "Change the labels"],
      ["/workflows/shop", "Deleting needs the role operator; you are viewer.", "Delete"],
      ["/workflows/shop/edit", "Deploying needs the role operator; you are viewer.", "Deploy …"],
      ["/alerts/rules", "Changing rules needs the role operator; you are viewer.", "New rule"],
      ["/settings/users", "Deciding who else may needs the role admin; you are viewer.", "Add the user"],
      ["/settings/tokens", "Letting programs in needs the role admin; you are viewer.", "Make the token"],
      ["/audit", "Reading the audit needs the role admin; you are viewer.", "Verify"],
      ["/settings/backup", "Looking after backups needs the role admin; you are viewer.", "Copy the command for all"],
    ]) {
      await go(path);
      await text(says);
      assert.equal(await button(gone).count(), 0, path);
      await accessible(page, `${path} as a viewer`);
    }
    await go("/settings");
    await page.getByLabel("Old password").fill(VIEWER[1]);
    await page.getByLabel("New password").fill("looks at everything");
    await page.getByLabel("The same again").fill("looks at everything");
    await button("Change my password").click();
    await told("Your password is changed.");
    const hers = page;
    page = mine;
    await page.getByLabel("Role of vera").selectOption("operator");
    await told("vera is operator from now on.");
    await button("New password for vera").click();
    await dialog().getByLabel("New password").fill("given by an admin");
    await dialog().getByLabel("The same again").fill("given by an admin");
    await button("Set the password").click();
    await told("vera has a new password.");
    await watch.forgive(/401/, async () => {
      page = hers;
      await go("/workflows");
      await heading("Log in");
      await enter(VIEWER[0], "given by an admin");
      await heading("Workflows");
      // Who operates lets daemons in, and nobody who may more than itself.
      await go("/enrol");
      await text("Enrolling an operator needs the role admin; you are operator.");
      assert.equal(await page.getByLabel("Who joins").count(), 0);
      await button("Make the enrolment string").waitFor();
      await page.goto("about:blank");
      page = mine;
      await button("Remove vera").click();
      await dialog().getByRole("button", { name: "Remove", exact: true }).click();
      await told("vera is removed.");
      page = hers;
      await go("/workflows");
      await heading("Log in");
    });
    await hers.context().close();
    page = mine;
    await until("her to be gone", async () => !(await role("vera")));
  },

  "who sees a part of the fleet is told what that leaves out": async (browser) => {
    await page.getByLabel("Name", { exact: true }).fill(SCOPED[0]);
    await page.getByLabel("Role", { exact: true }).selectOption("operator");
    await page.getByLabel("Password", { exact: true }).fill(SCOPED[1]);
    await page.getByLabel("The same again").fill(SCOPED[1]);
    await page.getByLabel("Sees only").fill("site=berlin");
    await button("Add the user").click();
    await told("sam can log in now.");
    const mine = page;
    page = await become(browser);
    await go("/");
    await page.getByLabel("Name").fill(SCOPED[0]);
    await page.getByLabel("Password").fill(SCOPED[1]);
    await button("Log in").click();
    await heading("Overview");
    await text("Rollouts and alerts of workflows that also run elsewhere are not shown to you.");
    await text("Nothing is known to be wrong with the daemons, workflows and streams that you see.");
    assert.doesNotMatch(await main().innerText(), /as (it|they) should/);
    await accessible(page, "a part of the fleet");
    await shoot(page, "overview-scoped");
    const sections = await page.getByRole("navigation", { name: "Sections" }).innerText();
    assert.match(sections, /Rollouts/);
    assert.match(sections, /Alerts/);
    assert.doesNotMatch(sections, /Audit/);
    for (const [path, says] of [
      ["/alerts/rules", "Rules of alerts are about the whole fleet"],
      ["/logs/events", "Events are about the whole fleet"],
      ["/settings/broker", "The bus and its access list are about the whole fleet"],
      ["/enrol", "Enrolling somebody is for those who see the whole fleet; you see site=berlin."],
    ]) {
      await go(path);
      await text(says);
    }
    await accessible(page, "an approval for a part of the fleet");
    await watch.forgive(/40[04].*rollouts\/2/, async () => {
      await go("/rollouts/2");
      await text("There is no rollout 2");
    });
    await section("Alerts");
    await heading("Alerts");
    await section("Daemons");
    await until("hers alone", async () => (await rows("Daemons")).map(({ Daemon }) => Daemon).join() === "gateway");
    await page.context().close();
    page = mine;
    await button("Remove sam").click();
    await dialog().getByRole("button", { name: "Remove", exact: true }).click();
    await told("sam is removed.");
  },

  "a program gets a token, which is shown once": async () => {
    await go("/settings/tokens");
    await button("Make the token").click();
    await text("Say what it is for");
    await page.getByLabel("Name").fill("nightly-report");
    await page.getByLabel("Sees only").fill("site=berlin");
    await button("Make the token").click();
    await text("It is shown only now");
    await accessible(page, "a token");
    await button("Copy the token").click();
    await told("Copied the token.");
    const token = await clipboard();
    const ask = async () => {
      const answer = await fetch(`${origin}/api/v1/daemons`, { headers: { authorization: `Bearer ${token}` } });
      return [answer.status, (await answer.json()).items?.map(({ name }) => name).join()];
    };
    assert.deepEqual(await ask(), [200, "gateway"]);
    await button("Make another").click();
    assert.doesNotMatch(await main().innerText(), new RegExp(token));
    await button("Revoke nightly-report").click();
    await dialog().getByRole("button", { name: "Revoke", exact: true }).click();
    await told("The token nightly-report does not work any more.");
    assert.equal((await ask())[0], 401);
  },

  "who did what is searched, and nobody has altered it": async () => {
    await go("/audit");
    const entries = () => rows("Audit");
    await until("entries", async () => (await entries()).length > 10);
    await page.getByLabel("Search the audit").fill("nightly-report");
    await until("those about the token", async () => (await entries()).length === 2);
    assert.ok((await entries()).every(({ Who }) => Who.startsWith("ada")));
    await button("Verify").click();
    await text(/^Entries 1 to [\d,]+ hold: nobody has altered one\.$/);
    await accessible(page, "a verified audit");
    await button("Copy as CLI").click();
    assert.match(await wish("type", await clipboard()), /nightly-report/);
    const [file] = await Promise.all([page.waitForEvent("download"), button("Export").click()]);
    assert.equal(file.suggestedFilename(), "audit.jsonl");
    await told("2 entries exported");
  },

  "a daemon without a string is let in by its code": async () => {
    await go("/enrol");
    await link("With approval").click();
    await text("They may not");
    await button("Copy as CLI").first().click();
    assert.equal(await clipboard(), "mycelial enrol open --for 1h");
    await button("Let daemons wait").click();
    await text(/^It ends in (59|60) min\.$/);
    await text("Nobody yet.");
    await button("Copy the command").click();
    const command = await clipboard();
    assert.match(command, /^myceliald start --enrol myc1/);
    await wish("type", command, "pump");
    const waiting = () => rows("Who waits");
    // By itself: nobody presses anything.
    await until("it to wait", async () => (await waiting()).length === 1);
    const code = await wish("code", "pump");
    assert.equal((await waiting())[0].Code, code, "both show the same");
    await accessible(page, "a daemon that waits");
    await shoot(page, "approval-waiting");
    await button(`Reject ${code}`).click();
    await dialog().getByRole("button", { name: "Reject", exact: true }).click();
    await told(/is turned away\.$/);
    await text("Nobody yet.");
    // Started again, it shows another one.
    await wish("type", command, "pump");
    await until("it to wait again", async () => (await waiting()).length === 1);
    const [{ Code: again }] = await waiting();
    assert.notEqual(again, code);
    await button(`Approve ${again}`).click();
    await dialog().getByLabel("The daemon shows").fill(code);
    await dialog().getByText("This is another code: somebody else asks in its place. Turn it away.").waitFor();
    await dialog()
      .getByLabel("The daemon shows")
      .fill((await wish("code", "pump")).toUpperCase());
    await dialog().getByText("They are equal.").waitFor();
    await dialog().getByLabel("Name").fill("pump-3");
    await dialog().getByLabel("Labels").fill("site=berlin line=2");
    await accessible(page, "an approval");
    await shoot(page, "approval-codes");
    await dialog().getByRole("button", { name: "Copy as CLI" }).click();
    assert.equal(
      await clipboard(),
      `mycelial enrol approve ${again} --name pump-3 && mycelial daemon label pump-3 site=berlin line=2`,
    );
    await dialog().getByRole("button", { name: "Approve", exact: true }).click();
    await told("pump-3 is a member now.");
    await main().getByRole("status").getByText("online").waitFor();
    await button("Let none wait").click();
    await text("They may not");
    await section("Daemons");
    await until("its labels", async () => (await daemon("pump-3"))?.Labels === "line=2 site=berlin");
  },

  "what happened to the fleet is in one place": async () => {
    await section("Logs");
    await link("Events").click();
    const about = async () => (await rows("Events")).map(({ About }) => About);
    await until("what a rule has seen, a rollout and a revision", async () => {
      const found = (await about()).join();
      return [/daemon gateway/, /rollout 2 of everywhere/, /workflow shop/].every((each) => each.test(found));
    });
    await page.getByLabel("Kind").selectOption("Rollouts");
    await until(
      "the rollouts",
      async () => (await about()).join() === "rollout 3 of everywhere,rollout 2 of everywhere,rollout 1 of everywhere",
    );
    await page.getByLabel("Filter events").fill("-loud");
    await until("the others", async () => (await about()).join() === "rollout 3 of everywhere,rollout 1 of everywhere");
    assert.match(page.url(), /kind=rollout&q=-loud/);
    const [file] = await Promise.all([page.waitForEvent("download"), button("Export").click()]);
    assert.equal(file.suggestedFilename(), "events.jsonl");
    await button("Pause").click();
    await button("Go on").waitFor();
  },

  "the plane is backed up by what the page gives out": async () => {
    await section("Settings");
    await text("3 of 4 are done");
    await link("Make a key backup").click();
    await text("There is no key backup.");
    await accessible(page, "without a backup");
    await button("Copy the command for the keys").click();
    const recovery = await wish("type", await clipboard());
    assert.match(recovery, /^([a-z0-9]+-)+[a-z0-9]+$/);
    await page.reload();
    await text(/nobody came or went since/);
    const [made] = await rows("Backups");
    assert.equal(made.What, "key backup");
    await link("Broker").click();
    await text("the embedded one, mycelial-broker");
    await page.getByLabel("Broker", { exact: true }).selectOption("nats-server");
    await text(/permissions/);
    const [file] = await Promise.all([page.waitForEvent("download"), button("Export").click()]);
    assert.equal(file.suggestedFilename(), "mycelial.conf");
  },

  "the keyboard goes everywhere": async () => {
    await go("/");
    await heading("Overview");
    await page.keyboard.press("Control+k");
    await page.getByRole("combobox", { name: /^Page, daemon/ }).fill("gate");
    await page.getByRole("option", { name: /^gateway/ }).waitFor();
    await accessible(page, "palette");
    await shoot(page, "palette");
    await page.keyboard.press("Enter");
    await heading("gateway");
    await page.keyboard.press("g");
    await page.keyboard.press("w");
    await heading("Workflows");
    await page.keyboard.press("/");
    await page.keyboard.type("long");
    await until("the filter", async () => (await rows("Workflows")).length === 1);
    assert.match(page.url(), /\?q=long$/);
    await link(LONG).focus();
    await page.keyboard.press("?");
    await page.getByRole("dialog", { name: "Keys" }).waitFor();
    await accessible(page, "keys");
    await page.keyboard.press("Escape");
    assert.equal(await page.getByRole("dialog").count(), 0);
    // Deleting by keyboard alone, and thinking better of it.
    await go("/workflows/shop");
    await heading("shop");
    await button("Delete").focus();
    await page.keyboard.press("Enter");
    await page.getByRole("dialog", { name: "Delete shop?" }).waitFor();
    await page.keyboard.press("Escape");
    assert.equal(await page.getByRole("dialog").count(), 0);
    await until("the focus where it was", () => page.evaluate(() => document.activeElement?.textContent === "Delete"));
  },

  "every page is reached by keyboard, good to read in both themes, and fits a telephone": async () => {
    await everywhere(async (name, path) => {
      // Whatever has the focus shows it, and the way to the content is short.
      const [skip, , search] = await tabs(page);
      assert.deepEqual([skip, search], ["Skip to content", "Go to …Ctrl K"], path);
      // As somebody finds it who comes to it.
      await page.evaluate(() => {
        document.activeElement?.blur();
        scrollTo(0, 0);
        for (const element of document.querySelectorAll("*")) if (element.scrollTop > 0) element.scrollTop = 0;
      });
      for (const colorScheme of ["dark", "light"]) {
        await page.emulateMedia({ colorScheme });
        await accessible(page, `${colorScheme} ${path}`);
        await shoot(page, `${name}-${colorScheme}`);
      }
      await page.setViewportSize({ width: 375, height: 740 });
      await fits(page, path);
      await readable(page, path);
      await accessible(page, `narrow ${path}`);
      await shoot(page, `${name}-phone`);
    });
  },

  "a theme is chosen, and kept": async () => {
    const ground = () => page.evaluate(() => getComputedStyle(document.documentElement).backgroundColor);
    const grounds = {};
    for (const scheme of ["light", "dark"]) {
      await page.emulateMedia({ colorScheme: scheme });
      grounds[scheme] = await ground();
    }
    assert.notEqual(grounds.light, grounds.dark);
    // The button against the system: the system is dark now.
    await button("Theme: system").click();
    assert.equal(await ground(), grounds.light);
    await page.emulateMedia({ colorScheme: "light" });
    await button("Theme: light").click();
    assert.equal(await ground(), grounds.dark);
    await page.reload();
    await button("Theme: dark").waitFor();
    assert.equal(await ground(), grounds.dark);
    await section("Settings");
    await page.getByLabel("As the system has it").check();
    assert.equal(await ground(), grounds.light);
  },

  "a telephone has a menu": async () => {
    await page.setViewportSize({ width: 375, height: 740 });
    await go("/");
    await heading("Overview");
    await button("Open menu").click();
    await accessible(page, "menu");
    await section("Daemons");
    await heading("Daemons");
    await button("Open menu").waitFor();
    await page.setViewportSize({ width: 1280, height: 800 });
  },

  "a plane that says nothing is noticed, though no connection ends": async () => {
    await go("/streams");
    await page.getByText("live", { exact: true }).waitFor();
    await watch.forgive(/ERR_ABORTED/, async () => {
      await wish("freeze", "plane");
      await page.getByText("not connected", { exact: true }).waitFor();
      await page
        .getByRole("alert")
        .getByText(/^Nothing has been heard from the plane since \d\d:\d\d:\d\d\./)
        .waitFor();
      await wish("thaw", "plane");
      await page.getByText("live", { exact: true }).waitFor();
    });
    assert.equal(await page.getByText("Nothing has been heard from the plane").count(), 0);
  },

  "the plane goes away and comes back": async () => {
    await go("/streams");
    await until("the numbers", async () => (await shown("shop"))?.join() === (await account("shop")).join());
    const before = await shown("shop");
    const green = () =>
      page
        .locator("main")
        .getByText("balances")
        .first()
        .evaluate((each) => getComputedStyle(each).color);
    const colour = await green();
    const broken = /ERR_(CONNECTION_(REFUSED|RESET)|INCOMPLETE_CHUNKED_ENCODING|EMPTY_RESPONSE|NETWORK_IO_SUSPENDED)/;
    await watch.forgive(broken, async () => {
      await wish("stop", "plane");
      await page
        .getByRole("alert")
        .getByText(/^Nothing has been heard from the plane since \d\d:\d\d:\d\d\./)
        .waitFor();
      await page.getByText("not connected", { exact: true }).waitFor();
      await accessible(page, "without a plane");
      await shoot(page, "plane-away");
      assert.deepEqual(await shown("shop"), before, "what was known is still there");
      // And no green says that it is so still.
      assert.notEqual(await green(), colour, "what is well while the plane is away");
      // What has to be asked for says that it cannot be, and offers to try again.
      await section("Audit");
      await text("The plane cannot be reached.");
      await button("Try again").waitFor();
      await section("Streams");
      await wish("rows", 100);
      await wish("start", "plane");
      // By itself: nobody presses anything.
      await page.getByText("live", { exact: true }).waitFor();
    });
    assert.equal(await page.getByText("Nothing has been heard from the plane").count(), 0);
    assert.equal(await green(), colour, "what is well again");
    await until("the new rows", async () => {
      const now = await account("shop");
      return now[1] !== before[1] && now[2] === "0" && (await shown("shop"))?.join() === now.join();
    });
    await section("Daemons");
    await online("gateway");
    await online("hub");
  },

  "a workflow is deleted, but not by accident": async () => {
    for (const name of [LONG, "shop", "everywhere"]) {
      await go(`/workflows/${name}`);
      await heading(name);
      await button("Delete").click();
      const question = page.getByRole("dialog", { name: `Delete ${name}?` });
      // What is lost is named.
      await question
        .getByText(/^It stops on gateway.* hub.*Nothing waits to be delivered\. Its revisions are kept\.$/)
        .waitFor();
      await question.getByRole("button", { name: "Cancel" }).click();
      await button("Delete").click();
      // The page of what is just being deleted may ask for it once more.
      await watch.forgive(new RegExp(`404.*workflows/${name}`), async () => {
        await question.getByRole("button", { name: "Delete" }).click();
        await told(`${name} is deleted.`);
        await heading("Workflows");
      });
      await until("it to be gone", async () => !(await rows("Workflows")).some(({ Workflow }) => Workflow === name));
    }
    await text("No workflows yet");
    assert.deepEqual(await asked("workflow", "list"), []);
  },

  "logging out ends it": async () => {
    await button("Log out").click();
    await heading("Log in");
    await page.getByText("Without a password, by a one-time link").click();
    await text(/^mycelial-plane login --dir /);
    assert.doesNotMatch(await page.locator("body").innerText(), /gateway|hub/);
    await go("/daemons");
    await heading("Log in");
    await page.getByLabel("Name").fill(ADMIN[0]);
    await page.getByLabel("Password").fill(ADMIN[1]);
    await button("Log in").click();
    await heading("Daemons");
    await page.goto("about:blank");
    await page.goto(await wish("login"));
    await heading("Overview");
    await section("Daemons");
    await online("hub");
  },
};

test("the page", { timeout: 15 * 60_000 }, async (t) => {
  const browser = await launch();
  t.after(() => browser.close());
  page = await become(browser);
  for (const [name, step] of Object.entries(STEPS)) {
    let done = false;
    await t.test(name, async () => {
      await step(browser);
      assert.deepEqual(watch.wrong, [], "what the browser's console and network say");
      done = true;
    });
    if (!done) {
      await shoot(page, "failed");
      throw new Error(`it ended at: ${name}`);
    }
  }
});
