// The shell: which view the address means, the live picture, log-in, theme. Views draw themselves from data.

import { Failed, call, live, session } from "./api.js";
import { clock, failure, h, patchChildren, sentence, tell } from "./dom.js";
import { add, daemon, fleet } from "./fleet.js";
import { flow, ledger } from "./ledger.js";
import { editor, workflow, workflows } from "./workflows.js";

const main = document.getElementById("main");
const AGAIN_MS = 2000;

// [section, title, pattern, view]. A view has `draw(data, redraw)`, and may have `load()`, `fresh(picture)` and `again`.
const ROUTES = [
  ["daemons", "Fleet", /^\/daemons$/, fleet],
  ["daemons", "Daemon", /^\/daemons\/([^/]+)$/, daemon],
  ["daemons", "Add a daemon", /^\/add$/, add],
  ["workflows", "Workflows", /^\/workflows$/, workflows],
  ["workflows", "New workflow", /^\/workflows\/new$/, () => editor()],
  ["workflows", "Edit", /^\/workflows\/([^/]+)\/edit$/, editor],
  ["workflows", "Workflow", /^\/workflows\/([^/]+)$/, workflow],
  ["ledger", "Ledger", /^\/ledger$/, ledger],
  ["live", "Live", /^\/live$/, flow],
];

let view = null;
let data = null;
let lastLoad = 0;
let visit = 0;
let used = false;
// What is shown is not there: only somebody who presses "Try again" wants to ask once more.
let missing = false;

const show = (...nodes) => patchChildren(main, h("div", {}, ...nodes));

function redraw() {
  if (view) show(view.draw(data, redraw));
}

async function load(quietly) {
  const mine = visit;
  lastLoad = Date.now();
  try {
    const loaded = view.load ? await view.load() : {};
    if (mine !== visit) return;
    data = loaded;
    missing = false;
    redraw();
  } catch (error) {
    if (mine !== visit || live.link === "out") return;
    if (!(error instanceof Failed)) throw error;
    missing = error.status === 404;
    // What is shown stays while the plane is away; the mark in the corner says so.
    if (!quietly || missing) show(failure(error, () => load(false)));
  }
}

function open() {
  const path = location.hash.replace(/^#/, "") || "/daemons";
  const code = /^\/login\/([a-z2-7]+)$/.exec(path)?.[1];
  if (code) return logIn(code);
  for (const link of document.querySelectorAll("[data-section]")) link.removeAttribute("aria-current");
  visit += 1;
  view = null;
  // A fresh page, so that nothing of the last view is patched into this one.
  main.replaceChildren();
  scrollTo(0, 0);
  // Whoever moved on goes on from the new content; at the start the skip link comes first.
  if (used) main.focus({ preventScroll: true });
  used = true;
  if (live.link === "out") return drawOut();
  for (const [section, title, pattern, make] of ROUTES) {
    const found = pattern.exec(path);
    const names = found?.slice(1).map(plain) ?? [null];
    if (names.includes(null)) continue;
    document.querySelector(`[data-section="${section}"]`)?.setAttribute("aria-current", "page");
    document.title = `${[...names, title].join(" · ")} · Mycelial`;
    view = make(...names);
    data = null;
    missing = false;
    show(h("p", { class: "quiet" }, "Loading …"));
    return load(false);
  }
  document.title = "Mycelial";
  show(failure({ message: "There is no such page.", hint: "" }), h("p", {}, h("a", { href: "#/daemons" }, "To the fleet")));
}

// A part of an address as it was before it was put there; null when it cannot have been.
function plain(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return null;
  }
}

async function logIn(code) {
  view = null;
  main.replaceChildren();
  show(h("p", { class: "quiet" }, "Logging in …"));
  let refused = null;
  try {
    await call("POST", "/session", { code });
  } catch (error) {
    refused = error;
  }
  // The used code does not stay in the history.
  history.replaceState(null, "", "#/daemons");
  if (refused) return stillIn(refused);
  live.start();
  open();
}

// A link that does not work any more is no matter to somebody who is logged in already.
async function stillIn(refused) {
  try {
    const { user: inside, hint } = await session();
    if (!inside) {
      live.lost(hint);
      return drawOut(refused.message);
    }
    live.start();
    open();
    tell(`You are logged in already; ${refused.message}.`);
  } catch (error) {
    show(failure(error, start));
  }
}

function drawOut(message) {
  document.title = "Log in · Mycelial";
  const paste = (event) => {
    event.preventDefault();
    const text = new FormData(event.target).get("code").trim();
    const code = /([a-z2-7]{16,})$/.exec(text)?.[1];
    if (code) logIn(code);
    else tell("That is not a log-in link.");
  };
  show(
    h("h1", {}, "Log in"),
    message && h("div", { class: "alert", role: "alert" }, h("strong", {}, sentence(message))),
    h("p", {}, "There is no password. On the plane's machine, make a one-time link:"),
    h("pre", {}, live.hint.replace(/^.*?with: /, "") || "mycelial-plane login --dir …"),
    h(
      "form",
      { onsubmit: paste },
      h("label", { for: "code" }, "Open that link, or paste it here"),
      h("input", { id: "code", name: "code", autocomplete: "off", size: 48 }),
      " ",
      h("button", { class: "main", type: "submit" }, "Log in"),
    ),
  );
}

const LINK = { connecting: ["", "connecting …"], on: ["good", "live"], off: ["bad", "not connected"], out: ["", ""] };

const away = document.getElementById("away");
const foot = document.getElementById("foot");

function drawLink() {
  const [kind, word] = LINK[live.link];
  const mark = document.getElementById("link");
  if (mark.textContent !== word) mark.textContent = word;
  mark.className = `link ${kind && `state ${kind}`}`;
  away.hidden = live.link !== "off";
  const words = live.link === "off" ? `The plane has not been reachable since ${clock(live.since)}. What is shown is from then. This page tries again by itself, and daemons work on without the plane.` : "";
  if (away.textContent !== words) away.textContent = words;
  const info = live.picture?.info;
  const about = info && live.link !== "out" ? `fleet ${info.fleet} · mycelial-plane ${info.version}` : "";
  if (foot.textContent !== about) foot.textContent = about;
}

live.subscribe(() => {
  drawLink();
  document.body.classList.toggle("out", live.link === "out");
  document.getElementById("logout").hidden = live.link === "out";
  if (live.link === "out") {
    if (view) {
      view = null;
      main.replaceChildren();
      drawOut();
    }
    return;
  }
  if (!view || !live.picture || live.link !== "on") return;
  if (view.fresh) {
    data = view.fresh(live.picture);
    redraw();
  } else if (view.again && !missing && Date.now() - lastLoad >= AGAIN_MS) {
    load(true);
  }
});

document.getElementById("logout").onclick = async () => {
  try {
    await call("DELETE", "/session");
  } catch (error) {
    tell(error.message);
    return;
  }
  const { hint } = await session().catch(() => ({ hint: "" }));
  live.lost(hint);
};

// An address of its own would be taken for a page.
document.getElementById("skip").onclick = (event) => {
  event.preventDefault();
  main.focus();
  main.scrollIntoView();
};

const THEMES = ["auto", "light", "dark"];
const themeButton = document.getElementById("theme");

function nameTheme() {
  const theme = document.documentElement.dataset.theme ?? "auto";
  themeButton.textContent = `Theme: ${theme}`;
  return theme;
}

themeButton.onclick = () => {
  const next = THEMES[(THEMES.indexOf(nameTheme()) + 1) % THEMES.length];
  if (next === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = next;
  try {
    localStorage.setItem("mycelial-theme", next);
  } catch {
    // Then it holds until the page is closed.
  }
  nameTheme();
};

async function start() {
  if (/^#\/login\//.test(location.hash)) return open();
  try {
    const { user: inside, hint } = await session();
    if (inside) live.start();
    else live.lost(hint);
    open();
  } catch (error) {
    show(failure(error, start));
  }
}

nameTheme();
window.onhashchange = open;
start();
