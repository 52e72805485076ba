// Daemons: who is there, how they are, and adding one.

import { call, get, list, name } from "./api.js";
import { bytes, copyButton, empty, facts, failure, h, number, span, state, table } from "./dom.js";

const PRESENCE = {
  online: ["good", "online"],
  late: ["warn", "late"],
  offline: ["bad", "offline"],
  unknown: ["off", "unknown"],
};

const RUN = {
  starting: ["warn", "starting"],
  running: ["good", "running"],
  retrying: ["warn", "retrying"],
  failed: ["bad", "failed"],
  finished: ["good", "finished"],
  stopping: ["warn", "stopping"],
  paused: ["warn", "paused"],
};

export const presence = (word) => state(...(PRESENCE[word] ?? ["off", word]));
export const run = (word) => (word === null ? state("off", "unknown") : state(...(RUN[word] ?? ["off", word])));

const seen = (daemon) => (daemon.last_seen_ms === null ? "never" : `${span(daemon.last_seen_ms)} ago`);

const plan = (daemon) =>
  daemon.plan_version === daemon.plan_wanted
    ? number(daemon.plan_version)
    : h("span", { class: "nowrap" }, `${number(daemon.plan_version)} → ${number(daemon.plan_wanted)}`);

function trouble(daemon) {
  const told = [
    daemon.troubled > 0 && state("bad", `${number(daemon.troubled)} in trouble`),
    daemon.damaged > 0 && state("warn", `${number(daemon.damaged)} damaged`),
  ].filter(Boolean);
  return told.length > 0 ? told.flatMap((each, index) => (index > 0 ? [h("br"), each] : [each])) : h("span", { class: "quiet" }, "none");
}

const damage = (count) =>
  h(
    "div",
    { class: "alert mild" },
    h("strong", {}, count === 1 ? "It set one thing aside as damaged" : `It set ${number(count)} things aside as damaged`),
    h("p", {}, "Nothing waits for it, and what records it cost is in the ledger. On its machine, with the daemon stopped, ", h("code", {}, "myceliald spool list"), " shows what it is, and ", h("code", {}, "myceliald spool forget --yes"), " removes it."),
  );

const addButton = () => h("a", { class: "button main", href: "#/add" }, "Add a daemon");

export function fleet() {
  const draw = (daemons) => {
    const rows = daemons.map((daemon) =>
      h(
        "tr",
        { "data-key": daemon.node },
        h("td", {}, h("a", { href: `#/daemons/${name(daemon.name)}` }, daemon.name)),
        h("td", {}, presence(daemon.presence)),
        h("td", { class: "nowrap" }, seen(daemon)),
        h("td", {}, trouble(daemon)),
        h("td", { class: "num" }, plan(daemon)),
        h("td", { class: "num" }, bytes(daemon.resources.rss_bytes)),
        h("td", { class: "num" }, bytes(daemon.resources.spool_bytes)),
        h("td", {}, daemon.version),
      ),
    );
    const heads = ["Daemon", "Presence", "Last seen", "Trouble", { text: "Plan", num: true }];
    heads.push({ text: "Memory", num: true }, { text: "Buffered", num: true }, "Version");
    return [
      h("div", { class: "head" }, h("h1", { class: "grow" }, "Fleet"), rows.length > 0 && addButton()),
      rows.length > 0
        ? table(heads, rows)
        : empty("No daemons yet", "A daemon runs close to the data and moves it. Make an enrolment string, and give it to myceliald on the machine that has the data.", addButton()),
    ];
  };
  return { load: () => list("/daemons"), fresh: (picture) => picture.daemons, draw };
}

// What runs where: workflows of one daemon (`of` is "workflow"), or daemons of one workflow ("daemon").
export function parts(list, of) {
  if (list.length === 0) return h("p", { class: "quiet" }, "No workflow runs here.");
  const caused = list.some((part) => part.cause !== "");
  return table(
    [of[0].toUpperCase() + of.slice(1), "State", { text: "Revision", num: true }, ...(caused ? ["Why"] : [])],
    list.map((part) =>
      h(
        "tr",
        { "data-key": part[of] },
        h("td", {}, h("a", { href: `#/${of}s/${name(part[of])}` }, part[of])),
        h("td", {}, run(part.state)),
        h("td", { class: "num" }, number(part.revision)),
        caused && h("td", {}, part.cause),
      ),
    ),
  );
}

const component = (each) =>
  h(
    "details",
    { "data-key": `${each.role}/${each.name}` },
    h("summary", {}, h("strong", {}, each.name), ` ${each.role}: ${each.summary}`),
    each.example && h("pre", {}, each.example),
  );

export function daemon(key) {
  const draw = (detail) => {
    const { view, host } = detail;
    const clock = Math.abs(detail.clock_offset_ms);
    return [
      h("p", {}, h("a", { href: "#/daemons" }, "← Fleet")),
      h("div", { class: "head" }, h("h1", {}, view.name), presence(view.presence), h("span", { class: "quiet" }, `last seen ${seen(view)}`)),
      detail.plan_error && h("div", { class: "alert", role: "alert" }, h("strong", {}, "Its newest plan is not applied"), h("p", {}, detail.plan_error)),
      clock > 60000 &&
        h("div", { class: "alert mild" }, h("strong", {}, `Its clock is ${span(clock)} ${detail.clock_offset_ms < 0 ? "behind" : "ahead"}`), h("p", {}, "Nothing breaks; only its time stamps are off.")),
      view.damaged > 0 && damage(view.damaged),
      h("h2", {}, "Workflows"),
      parts(detail.parts, "workflow"),
      h("h2", {}, "Machine"),
      h(
        "div",
        { class: "card" },
        facts([
          ["Host", `${host.hostname || "?"} (${host.os || "?"}, ${host.arch || "?"}, ${host.cpus} CPUs, ${bytes(host.memory_bytes)})`],
          ["Version", view.version],
          ["Up", `${span(detail.uptime_ms)} (start ${number(detail.boot)})`],
          ["Memory", `${bytes(view.resources.rss_bytes)} now, ${bytes(view.resources.rss_peak_bytes)} at most`],
          ["Buffered", bytes(view.resources.spool_bytes)],
          ["Disk free", bytes(view.resources.disk_free_bytes)],
          ["Plan", plan(view)],
          ["Refused messages", number(detail.refused)],
          ["Id", h("code", {}, view.node)],
          ["Key fingerprint", h("code", {}, detail.fingerprint)],
        ]),
      ),
      h("h2", {}, "What it can run"),
      detail.components.length > 0
        ? h("div", { class: "card" }, detail.components.map(component))
        : h("p", { class: "quiet" }, "It has not told yet."),
    ];
  };
  return { load: () => get(`/daemons/${name(key)}`), again: true, draw };
}

const LIVES = [
  ["3600", "1 hour"],
  ["86400", "1 day"],
  ["604800", "7 days"],
];

export function add() {
  let made = null;
  let error = null;
  let busy = false;

  const make = async (event, redraw) => {
    event.preventDefault();
    const form = new FormData(event.target);
    const wanted = form.get("name").trim();
    busy = true;
    redraw();
    try {
      const role = form.get("role");
      const wish = { role, name: wanted === "" ? null : wanted, uses: Number(form.get("uses")), ttl_s: Number(form.get("ttl")) };
      const { invitation } = await call("POST", "/tokens", wish);
      made = { invitation, role };
      error = null;
    } catch (failed) {
      error = failed;
    }
    busy = false;
    redraw();
  };

  const result = (redraw) => {
    const daemon = made.role === "daemon";
    const command = `${daemon ? "myceliald enrol" : "mycelial init"} ${made.invitation}`;
    const another = () => {
      made = null;
      redraw();
    };
    return [
      h("h1", {}, "The enrolment string is ready"),
      h("p", {}, daemon ? "Run this on the machine of the new daemon, then start it with: myceliald start" : "Run this where the new operator works."),
      h("textarea", { class: "code token", readonly: true, "data-copy": "", "aria-label": "Command with the enrolment string", "data-keep": "", value: command }),
      h("p", { class: "hint" }, "Whoever has it can join: hand it over safely. It is shown only now."),
      h(
        "p",
        { class: "buttons" },
        copyButton(command, "Copy the command"),
        h("button", { type: "button", onclick: another }, "Make another"),
        h("a", { class: "button", href: "#/daemons" }, "Back to the fleet"),
      ),
    ];
  };

  const form = (redraw) => [
    h("p", {}, h("a", { href: "#/daemons" }, "← Fleet")),
    h("h1", {}, "Add a daemon or an operator"),
    error && failure(error),
    h(
      "form",
      { class: "card", onsubmit: (event) => make(event, redraw) },
      h("label", { for: "role" }, "What"),
      h("select", { id: "role", name: "role" }, h("option", { value: "daemon" }, "Daemon: runs workflows"), h("option", { value: "operator" }, "Operator: a person with the command line")),
      h("label", { for: "name" }, "Name"),
      h("input", { id: "name", name: "name", maxlength: 32, pattern: "[a-z0-9][a-z0-9_\\-]*", autocomplete: "off", placeholder: "chosen when it enrols" }),
      h("p", { class: "hint" }, "Letters a to z, digits, - and _. Leave it empty to let the machine use its own name."),
      h("label", { for: "uses" }, "How many times it works"),
      h("input", { id: "uses", name: "uses", type: "number", min: 1, max: 1000, value: "1", required: true }),
      h("label", { for: "ttl" }, "How long it works"),
      h("select", { id: "ttl", name: "ttl", value: "86400" }, LIVES.map(([value, text]) => h("option", { value, selected: value === "86400" }, text))),
      h("p", { class: "buttons" }, h("button", { class: "main", type: "submit", disabled: busy }, busy ? "Making it …" : "Make the enrolment string")),
    ),
  ];

  return { draw: (_, redraw) => (made ? result(redraw) : form(redraw)) };
}
