// The shell: which view the address means, the live picture, log-in, theme. Views draw themselves from data.

import { Failed, call, live } from "./api.js";
import { failure, h, patchChildren, tell } from "./dom.js";
import { add, daemon, fleet } from "./fleet.js";
import { flow, ledger } from "./ledger.js";
import { editor, workflow, workflows } from "./workflows.js";

const main = document.getElementById("main");
const AGAIN_MS = 2000;

// [section, pattern, view]. A view has `draw(data, redraw)`, and may have `load()`, `fresh(picture)` and `again`.
const ROUTES = [
  ["daemons", /^\/daemons$/, fleet],
  ["daemons", /^\/daemons\/([^/]+)$/, daemon],
  ["daemons", /^\/add$/, add],
  ["workflows", /^\/workflows$/, workflows],
  ["workflows", /^\/workflows\/new$/, () => editor()],
  ["workflows", /^\/workflows\/([^/]+)\/edit$/, editor],
  ["workflows", /^\/workflows\/([^/]+)$/, workflow],
  ["ledger", /^\/ledger$/, ledger],
  ["live", /^\/live$/, flow],
];

let view = null;
let data = null;
let lastLoad = 0;
let visit = 0;

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
    redraw();
  } catch (error) {
    if (mine !== visit || live.link === "out") return;
    if (!(error instanceof Failed)) throw error;
    // What is shown stays while the plane is away; the mark in the corner says so.
    if (!quietly || error.status === 404) show(failure(error, () => load(false)));
  }
}

function open() {
  const path = location.hash.replace(/^#/, "") || "/daemons";
  const code = /^\/login\/([a-z2-7]+)$/.exec(path)?.[1];
  if (code) return logIn(code);
  for (const link of document.querySelectorAll("[data-section]")) link.removeAttribute("aria-current");
  visit += 1;
  for (const [section, pattern, make] of ROUTES) {
    const found = pattern.exec(path);
    if (!found) continue;
    document.querySelector(`[data-section="${section}"]`)?.setAttribute("aria-current", "page");
    document.title = `${found[1] ? `${decodeURIComponent(found[1])} · ` : ""}${section} · Mycelial`;
    view = make(...found.slice(1).map(decodeURIComponent));
    data = null;
    // A fresh page, so that nothing of the last view is patched into this one.
    main.replaceChildren();
    if (live.link === "out") return drawOut();
    show(h("p", { class: "quiet" }, "Loading …"));
    main.focus({ preventScroll: true });
    return load(false);
  }
  view = null;
  main.replaceChildren();
  show(failure({ message: "There is no such page.", hint: "" }), h("p", {}, h("a", { href: "#/daemons" }, "To the fleet")));
}

async function logIn(code) {
  view = null;
  main.replaceChildren();
  show(h("p", { class: "quiet" }, "Logging in …"));
  try {
    await call("POST", "/login", { code });
    // The used code does not stay in the history.
    history.replaceState(null, "", "#/daemons");
    live.start();
    open();
  } catch (error) {
    history.replaceState(null, "", "#/daemons");
    live.lost(error.hint);
    drawOut(error.message);
  }
}

function drawOut(message) {
  const paste = (event) => {
    event.preventDefault();
    const text = new FormData(event.target).get("code").trim();
    const code = /([a-z2-7]{16,})$/.exec(text)?.[1];
    if (code) logIn(code);
    else tell("That is not a log-in link.");
  };
  show(
    h("h1", {}, "Log in"),
    message && h("div", { class: "alert", role: "alert" }, message),
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

const LINK = { connecting: ["", "connecting …"], on: ["", "live"], off: ["bad", "plane not reachable"], out: ["", ""] };

live.subscribe(() => {
  const [kind, word] = LINK[live.link];
  const mark = document.getElementById("link");
  if (mark.textContent !== word) mark.textContent = word;
  mark.className = `link ${kind}`;
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
  } else if (view.again && Date.now() - lastLoad >= AGAIN_MS) {
    load(true);
  }
});

document.getElementById("logout").onclick = async () => {
  try {
    await call("POST", "/logout");
  } catch (error) {
    tell(error.message);
    return;
  }
  live.lost("");
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

nameTheme();
window.onhashchange = open;
if (!/^#\/login\//.test(location.hash)) live.start();
open();
