// One person's journey through the whole page, in a real browser, in front of a real fleet: from the printed link over the
// first daemon and the first workflow to a plane that went away. Each step goes on from where the last one ended.

import assert from "node:assert/strict";
import { test } from "node:test";
import { fits, readable, tabs } from "./looks.mjs";
import { PATIENCE_MS, Watch, asked, firstLink, launch, shoot, wish } from "./world.mjs";

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

const go = (path) => page.goto(`${origin}/#${path}`);
const heading = (name) => page.getByRole("heading", { level: 1, name, exact: true }).waitFor();
const button = (name) => page.getByRole("button", { name, exact: true });
const link = (name) => page.getByRole("link", { name, exact: true });
const text = (part) => page.locator("main").getByText(part).first().waitFor();
const told = (part) => page.locator("#told", { hasText: part }).waitFor();
const section = (name) => page.getByRole("navigation").getByRole("link", { name, exact: true }).click();

// The table's rows as a person reads them.
const rows = () => page.evaluate(() => [...document.querySelectorAll("main tbody tr")].map((row) => [...row.cells].map((cell) => cell.innerText)));
const row = async (name) => (await rows()).find(([first]) => first.split("\n")[0] === name);

async function become(browser, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, reducedMotion: "reduce", permissions: ["clipboard-read", "clipboard-write"], ...options });
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

const long = (paths) => shop(["gateway", "hub"], paths)
  .replace('"shop"', `"${LONG}"`)
  .replaceAll("orders]", "orders-of-all-the-shops-we-have]")
  .replace('from = "orders"', 'from = "orders-of-all-the-shops-we-have"')
  .replaceAll("copy]", "copy-of-the-orders-for-everybody]");

async function write(workflow) {
  await page.getByLabel("Text of the workflow").fill(workflow);
}

// What the command line says of the streams of a workflow, as the page's table should show it.
async function account(workflow) {
  const stream = (await asked("ledger")).find((each) => each.workflow === workflow);
  if (!stream) return null;
  const { produced, delivered, buffered, dropped, dead } = stream.ledger;
  return [produced, delivered, buffered, dropped, dead].map((count) => count.toLocaleString("en"));
}

const first = (cell) => cell.split("\n")[0];
const shown = async (workflow) => (await row(workflow))?.slice(2, 7).map(first);

async function enrol(name) {
  await section("Fleet");
  await heading("Fleet");
  await link("Add a daemon").first().click();
  await page.getByLabel("Name").fill(name);
  await button("Make the enrolment string").click();
  await heading("The enrolment string is ready");
  await button("Copy the command").click();
  await told("Copied.");
  const command = await page.evaluate(() => navigator.clipboard.readText());
  assert.equal(command, await page.getByLabel("Command with the enrolment string").inputValue());
  assert.match(command, /^myceliald enrol myc1/);
  await wish("type", command, name);
  await wish("start", name);
}

const online = (name) => until(`${name} to be online`, async () => (await row(name))?.[1] === "online");

const PLACES = [
  ["/daemons", "Fleet"],
  ["/daemons/gateway", "gateway"],
  ["/add", "Add a daemon or an operator"],
  ["/workflows", "Workflows"],
  ["/workflows/shop", "shop"],
  [`/workflows/${LONG}`, LONG],
  ["/workflows/shop/edit", "Edit shop"],
  ["/workflows/new", "New workflow"],
  ["/ledger", "Ledger"],
  ["/live", "Live"],
];

// Every page there is, one after the other, drawn with data.
async function everywhere(look) {
  for (const [path, name] of PLACES) {
    await go(path);
    await heading(name);
    await until("the data", async () => !/Loading …/.test(await page.locator("main").innerText()));
    await look(path.replaceAll("/", "-").replace(LONG, "long").slice(1), path);
  }
}

const STEPS = {
  "a stranger is told how to log in, wherever they come in": async () => {
    for (const path of ["/", "/#/ledger", "/#/workflows/new", "/login", "/logout"]) {
      await page.goto(origin + path);
      await heading("Log in");
      await text(/^mycelial-plane login --dir /);
      assert.equal(await page.getByRole("navigation").count(), 0, "there is nowhere to go yet");
    }
    await page.getByLabel("Open that link, or paste it here").fill("let me in");
    await button("Log in").click();
    await told("That is not a log-in link.");
    await readable(page, "log-in");
    await shoot(page, "log-in");
    await watch.forgive(/40[14]/, async () => {
      for (const [path, message] of [
        ["/fleet", "there is no such page"],
        ["/api/v1/ledger", "you are not logged in"],
      ]) {
        await page.goto(origin + path);
        await text(message);
        await shoot(page, "refused");
        await link("To the fleet").click();
        await heading("Log in");
      }
    });
  },

  "the printed link logs in, and leaves no trace": async () => {
    await page.goto(firstLink);
    await heading("Fleet");
    assert.equal(page.url(), `${origin}/#/daemons`);
    await page.locator("#link", { hasText: "live" }).waitFor();
  },

  "a fleet that is new says what to do": async () => {
    await text("No daemons yet");
    await shoot(page, "empty-fleet");
    for (const [name, says, next] of [
      ["Workflows", "No workflows yet", "New workflow"],
      ["Ledger", "No streams yet", "New workflow"],
      ["Live", "No streams yet", "New workflow"],
    ]) {
      await section(name);
      await heading(name);
      await text(says);
      await link(next).first().waitFor();
    }
    await go("/nowhere");
    await text("There is no such page.");
    await watch.forgive(/404.*(daemons|workflows)\/nobody/, async () => {
      for (const [path, says] of [
        ["/daemons/nobody", "there is no daemon 'nobody'"],
        ["/workflows/nobody", "there is no workflow 'nobody'"],
      ]) {
        await go(path);
        await text(says);
      }
    });
  },

  "a link works once": async (browser) => {
    await watch.forgive(/401.*\/login/, async () => {
      // To who is in already it is no matter.
      await page.goto("about:blank");
      await page.goto(firstLink);
      await heading("Fleet");
      await told("You are logged in already");
      const other = await become(browser);
      const mine = page;
      page = other;
      await page.goto(firstLink);
      await heading("Log in");
      await text("This log-in link has been used already, or is too old.");
      await shoot(page, "used-link");
      await page.getByLabel("Open that link, or paste it here").fill(await wish("login"));
      await button("Log in").click();
      await heading("Fleet");
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
    await section("Fleet");
    await online("gateway");
    await online("hub");
    await link("Add a daemon").first().click();
    await page.getByLabel("What").selectOption("operator");
    await button("Make the enrolment string").click();
    await wish("type", await page.getByLabel("Command with the enrolment string").inputValue(), "--name", "me");
    await button("Make another").click();
    // The plane's own words, where the browser's check does not catch it.
    await page.getByLabel("Name").fill("gateway");
    await watch.forgive(/40[09].*tokens|Failed to load resource/, async () => {
      await button("Make the enrolment string").click();
      await page.locator("main").getByText(/gateway/).first().waitFor();
    });
    assert.deepEqual((await asked("daemon", "list")).map(({ name, presence }) => [name, presence]), [["gateway", "online"], ["hub", "online"]]);
  },

  "a daemon's page tells what it is and what it can run": async () => {
    await section("Fleet");
    await link("gateway").click();
    await heading("gateway");
    await text("No workflow runs here.");
    const component = page.locator("details", { hasText: /^sqlite\s/ }).first();
    await component.locator("summary").click();
    await component.getByText('type = "sqlite"').waitFor();
    const [daemon] = await asked("daemon", "list");
    await text(daemon.node);
    // It stays open while the page goes on living.
    const up = () => page.locator("dt", { hasText: "Up" }).locator("+ dd").innerText();
    const before = await up();
    await until("the page to be renewed", async () => (await up()) !== before);
    assert.ok(await component.getByText('type = "sqlite"').isVisible());
  },

  "a workflow with mistakes is sent back with their lines": async () => {
    await wish("rows", ROWS);
    await section("Workflows");
    await link("New workflow").first().click();
    await heading("New workflow");
    assert.match(await page.getByLabel("Text of the workflow").inputValue(), /daemon = "gateway"[^]*daemon = "hub"/);
    const paths = [await wish("path", "shop.db"), await wish("path", "copy.db")];
    const good = shop(["gateway", "hub"], paths);
    await write(good.replace('daemon = "hub"', 'daemon = "hup"').replace("cursor", "cursed"));
    await text("draft, kept in this browser");
    await page.reload();
    await text("draft, kept in this browser");
    await button("Check").click();
    await button("Line 12").waitFor();
    await button("Line 8").waitFor();
    await text(/cursed/);
    await text(/hup/);
    await shoot(page, "problems");
    await button("Line 12").click();
    const chosen = await page.getByLabel("Text of the workflow").evaluate((area) => area.value.slice(area.selectionStart, area.selectionEnd));
    assert.equal(chosen, 'daemon = "hup"');
    // Applying it is refused with the same words, and changes nothing.
    await watch.forgive(/400.*workflows\/shop|Failed to load resource.*400/, async () => {
      await button("Apply").click();
      await page.getByRole("alert").getByText(/nothing was changed/i).waitFor();
    });
    await button("Line 12").waitFor();
    assert.deepEqual(await asked("workflow", "list"), []);
    await write(good);
    await page.keyboard.press("Control+Enter");
    await text("No problems: it can be applied.");
    await page.keyboard.press("Control+s");
    await told("shop is applied as revision 1.");
    await heading("shop");
    assert.equal(await page.locator("main pre").first().innerText(), good);
  },

  "the workflow runs, and every number is the command line's": async () => {
    await until("the workflow to run", async () => (await rows()).slice(0, 2).every(([, state]) => state === "running"));
    const all = ROWS.toLocaleString("en");
    await until("all rows to be there", async () => (await account("shop"))?.join(" ") === `${all} ${all} 0 0 0`);
    await section("Ledger");
    await heading("Ledger");
    await until("the ledger to say so too", async () => (await shown("shop"))?.join() === (await account("shop")).join());
    await until("the account to balance", async () => (await row("shop")).at(-1) === "balances");
    assert.equal((await row("shop"))[1], "gateway → hub");
    await section("Workflows");
    await heading("Workflows");
    const [listed] = await asked("workflow", "list");
    const [name, state, daemons, revision, applied] = await row("shop");
    assert.deepEqual([name, state, daemons, revision], ["shop", "running", "gateway, hub", "1"]);
    assert.match(applied, /^\d{4}-\d\d-\d\d \d\d:\d\d by web$/);
    const at = new Date(await page.locator("time").getAttribute("datetime"));
    assert.equal(at.getTime(), listed.at_unix_ms);
  },

  "a second workflow, with the longest names": async () => {
    await go("/workflows/new");
    await write(long([await wish("path", "shop.db"), await wish("path", "long.db")]));
    await button("Apply").click();
    await heading(LONG);
    await section("Ledger");
    await until("both streams", async () => (await rows()).length === 2);
    const all = ROWS.toLocaleString("en");
    await until("the long one's rows", async () => (await shown(LONG))?.[1] === all);
    const foot = await page.locator("tfoot td").allInnerTexts();
    assert.deepEqual(foot.slice(0, 3), ["2 streams", (2 * ROWS).toLocaleString("en"), (2 * ROWS).toLocaleString("en")]);
    await page.locator("tfoot").getByText("all balance", { exact: true }).waitFor();
  },

  "records are seen to flow": async () => {
    await section("Live");
    await heading("Live");
    await text("2 online");
    const card = page.getByRole("region", { name: "shop orders->copy" });
    let total = ROWS;
    await until("a rate", async () => {
      await wish("rows", 200);
      total += 200;
      return !/^0 /.test(await card.locator(".big").innerText());
    });
    await until("all of them to be delivered", async () => (await card.innerText()).includes(`0 buffered, ${total.toLocaleString("en")} delivered`));
    await shoot(page, "live");
    assert.deepEqual(await account("shop"), [total, total, 0, 0, 0].map((count) => count.toLocaleString("en")));
    // The page says how to look at records; that really shows some.
    const command = (await page.locator("main pre").innerText()).split("\n").find((line) => line.includes(" shop "));
    const tapping = wish("type", command, "--count", "1", "--seconds", "50");
    let seen = false;
    tapping.finally(() => (seen = true));
    await until("a record through the tap", async () => {
      await wish("rows", 1);
      return seen;
    });
    assert.match(await tapping, /name=/);
  },

  "two people change the same workflow": async () => {
    await go("/workflows/shop/edit");
    await heading("Edit shop");
    const area = page.getByLabel("Text of the workflow");
    const mine = `# mine\n${await area.inputValue()}`;
    await area.fill(mine);
    // Meanwhile somebody else, on the same text.
    const other = await page.context().newPage();
    watch.add(other);
    await other.goto(`${origin}/#/workflows/shop`);
    const { status } = await other.evaluate(async () => {
      const { text: now } = await (await fetch("/api/v1/workflows/shop")).json();
      return fetch("/api/v1/workflows/shop", { method: "PUT", headers: { "content-type": "application/json" }, body: JSON.stringify({ text: `# theirs\n${now}` }) });
    }).then(() => ({ status: 200 }));
    assert.equal(status, 200);
    await other.close();
    await watch.forgive(/412/, async () => {
      await button("Apply").click();
      await button("Apply over it").waitFor();
    });
    await shoot(page, "conflict");
    await button("Apply over it").click();
    await page.getByRole("dialog").waitFor();
    await shoot(page, "question");
    await page.keyboard.press("Escape");
    assert.equal((await asked("workflow", "list")).find(({ name }) => name === "shop").revision, 2);
    await button("Apply over it").click();
    await button("Replace it").click();
    await told("shop is applied as revision 3.");
    await heading("shop");
    await text("# mine");
    // Changes that are not wanted.
    await link("Edit").click();
    await heading("Edit shop");
    assert.ok(await button("Discard changes").isDisabled());
    await area.fill("nonsense");
    await button("Discard changes").click();
    await button("Discard").click();
    await until("the old text", async () => (await area.inputValue()) === mine);
  },

  "a daemon that stops, and one that dies, are seen": async () => {
    await go("/daemons");
    await heading("Fleet");
    await wish("stop", "hub");
    await until("the hub to be offline", async () => (await row("hub"))?.[1] === "offline");
    assert.match((await row("hub"))[2], /^\d+ (s|min) ago$/);
    await shoot(page, "hub-offline");
    await wish("rows", 100);
    await section("Ledger");
    await until("records waiting", async () => {
      const [produced, delivered, buffered] = (await shown("shop")) ?? [];
      return buffered === "100" && produced !== delivered && (await shown("shop")).join() === (await account("shop")).join();
    });
    assert.equal((await row("shop")).at(-1), "balances\nhub is offline");
    await shoot(page, "buffered");
    await wish("start", "hub");
    await until("them to be delivered", async () => {
      const [produced, delivered, buffered] = (await shown("shop")) ?? [];
      return buffered === "0" && produced === delivered;
    });
    await until("the account to balance", async () => (await row("shop")).at(-1) === "balances");
    await section("Fleet");
    await online("hub");
    await wish("kill", "gateway");
    await until("the gateway to be late", async () => (await row("gateway"))?.[1] === "late");
    await wish("start", "gateway");
    await online("gateway");
  },

  "the keyboard is enough": async () => {
    await go("/daemons");
    await page.reload();
    await heading("Fleet");
    await online("gateway");
    const stops = await tabs(page);
    const bar = ["Skip to content", "Mycelial", "Fleet", "Workflows", "Ledger", "Live"];
    assert.deepEqual(stops.slice(0, 6), bar);
    assert.match(stops[6], /^Theme: auto/);
    assert.deepEqual(stops.slice(7), ["Log out", "Add a daemon", "gateway", "hub"]);
    // Skipping the bar.
    await page.reload();
    await online("gateway");
    await page.keyboard.press("Tab");
    const skip = await link("Skip to content").boundingBox();
    assert.ok(skip.x >= 0 && skip.y >= 0, "it comes into view");
    await shoot(page, "skip");
    await page.keyboard.press("Enter");
    await page.keyboard.press("Tab");
    assert.equal(await page.evaluate(() => document.activeElement.textContent), "Add a daemon");
    await heading("Fleet");
    // To the workflow, and to the question before deleting it, and out again, without the mouse.
    for (const name of ["Workflows", "shop", "Delete"]) {
      await until(`"${name}" to be there`, async () => (await page.getByText(name, { exact: true }).count()) > 0);
      for (let presses = 0; (await page.evaluate(() => document.activeElement.textContent)) !== name; presses += 1) {
        assert.ok(presses < 60, `Tab comes to "${name}"`);
        await page.keyboard.press("Tab");
      }
      await page.keyboard.press("Enter");
    }
    await page.getByRole("dialog").waitFor();
    assert.equal(await page.evaluate(() => document.activeElement.textContent), "Cancel", "the harmless answer comes first");
    await page.keyboard.press("Enter");
    assert.equal(await page.getByRole("dialog").count(), 0);
    assert.equal(await page.evaluate(() => document.activeElement.textContent), "Delete", "and it goes on where it was");
    // In every place whatever has the focus shows it.
    await everywhere(async (_, path) => {
      await page.reload();
      await until("the data", async () => !/Loading …/.test(await page.locator("main").innerText()));
      const found = await tabs(page);
      assert.deepEqual(found.slice(0, 6), bar, path);
    });
  },

  "both themes can be read, and the choice is kept": async () => {
    const ground = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
    const grounds = {};
    for (const scheme of ["light", "dark"]) {
      await page.emulateMedia({ colorScheme: scheme });
      grounds[scheme] = await ground();
      await everywhere(async (name, path) => {
        await readable(page, `${scheme} ${path}`);
        await shoot(page, `${scheme}-${name}`);
      });
    }
    assert.notEqual(grounds.light, grounds.dark);
    // The button against the system: the system is dark now.
    await button("Theme: auto").click();
    assert.equal(await ground(), grounds.light);
    await page.emulateMedia({ colorScheme: "light" });
    await button("Theme: light").click();
    assert.equal(await ground(), grounds.dark);
    await page.reload();
    await button("Theme: dark").waitFor();
    assert.equal(await ground(), grounds.dark);
    await everywhere((_, path) => readable(page, `chosen dark ${path}`));
    await button("Theme: dark").click();
    await button("Theme: auto").waitFor();
    assert.equal(await ground(), grounds.light);
  },

  "a telephone shows all of it": async () => {
    await page.setViewportSize({ width: 375, height: 740 });
    await everywhere(async (name, path) => {
      await fits(page, path);
      await readable(page, `narrow ${path}`);
      await shoot(page, `narrow-${name}`);
    });
    await page.setViewportSize({ width: 1280, height: 800 });
  },

  "the plane goes away and comes back": async () => {
    await go("/ledger");
    await heading("Ledger");
    const before = await shown("shop");
    await watch.forgive(/ERR_CONNECTION_REFUSED|ERR_INCOMPLETE_CHUNKED_ENCODING|ERR_EMPTY_RESPONSE|ERR_CONNECTION_RESET|ERR_NETWORK_IO_SUSPENDED/, async () => {
      await wish("stop", "plane");
      await page.getByRole("alert").getByText(/^The plane has not been reachable since \d\d:\d\d\./).waitFor();
      await readable(page, "without a plane");
      await shoot(page, "away");
      assert.deepEqual(await shown("shop"), before, "what was known is still there");
      // A place that has to ask says that it cannot, and offers to try again.
      await section("Workflows");
      await text("The plane cannot be reached.");
      await button("Try again").waitFor();
      await section("Ledger");
      await wish("rows", 100);
      await wish("start", "plane");
      // By itself: nobody presses anything.
      await page.locator("#link", { hasText: "live" }).waitFor();
    });
    assert.ok(await page.locator("#away").isHidden());
    await until("the new rows", async () => {
      const now = await account("shop");
      return now[1] !== before[1] && now[2] === "0" && (await shown("shop"))?.join() === now.join();
    });
    await section("Fleet");
    await online("gateway");
    await online("hub");
  },

  "a workflow is deleted, but not by accident": async () => {
    for (const name of [LONG, "shop"]) {
      await go(`/workflows/${name}`);
      await heading(name);
      await button("Delete").click();
      await page.getByRole("dialog").getByText(`Delete ${name}?`).waitFor();
      await button("Cancel").click();
      await button("Delete").click();
      // The page of what is just being deleted may ask for it once more.
      await watch.forgive(new RegExp(`404.*workflows/${name}`), async () => {
        await page.getByRole("dialog").getByRole("button", { name: "Delete" }).click();
        await told(`${name} is deleted.`);
        await heading("Workflows");
      });
      await until("it to be gone", async () => (await row(name)) === undefined);
    }
    await text("No workflows yet");
    assert.deepEqual(await asked("workflow", "list"), []);
  },

  "logging out ends it": async () => {
    await button("Log out").click();
    await heading("Log in");
    await text(/^mycelial-plane login --dir /);
    assert.doesNotMatch(await page.locator("body").innerText(), /gateway|hub/);
    await go("/daemons");
    await heading("Log in");
    await page.goto(await wish("login"));
    await heading("Fleet");
    await online("hub");
  },
};

test("the page", { timeout: 9 * 60_000 }, async (t) => {
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
