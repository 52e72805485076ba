// Workflows: what there is, how it runs, and editing a text. Drafts stay in the browser until they are applied.

import { call, get, list, name } from "./api.js";
import { confirm, empty, failure, h, moment, number, sentence, table, tell } from "./dom.js";
import { parts, run } from "./fleet.js";
import { streamTable, taps } from "./ledger.js";

const newButton = () => h("a", { class: "button main", href: "#/workflows/new" }, "New workflow");

export function workflows() {
  const draw = (list) => [
    h("div", { class: "head" }, h("h1", { class: "grow" }, "Workflows"), list.length > 0 && newButton()),
    list.length === 0
      ? empty("No workflows yet", "A workflow takes records from sources, changes them, and delivers them to destinations, on the daemons you name.", newButton())
      : table(
          ["Workflow", "State", "Daemons", { text: "Revision", num: true }, "Applied"],
          list.map((workflow) =>
            h(
              "tr",
              { "data-key": workflow.name },
              h("td", {}, h("a", { href: `#/workflows/${name(workflow.name)}` }, workflow.name)),
              h("td", {}, run(workflow.state)),
              h("td", {}, workflow.daemons.join(", ")),
              h("td", { class: "num" }, number(workflow.revision)),
              h("td", {}, moment(workflow.at_unix_ms), ` by ${workflow.by}`),
            ),
          ),
        ),
  ];
  return { load: () => list("/workflows"), fresh: (picture) => picture.workflows, draw };
}

export function workflow(key) {
  const remove = async () => {
    const sure = await confirm(`Delete ${key}?`, "It stops on all its daemons, and what is still buffered is not delivered any more. Its revisions are kept.", "Delete");
    if (!sure) return;
    try {
      await call("DELETE", `/workflows/${name(key)}`);
      tell(`${key} is deleted.`);
      location.hash = "#/workflows";
    } catch (error) {
      tell(`${sentence(error.message)} ${sentence(error.hint)}`);
    }
  };
  const draw = ({ status: { view, parts: places, streams }, text }) => [
    h("p", {}, h("a", { href: "#/workflows" }, "← Workflows")),
    h(
      "div",
      { class: "head" },
      h("h1", {}, view.name),
      run(view.state),
      h("span", { class: "quiet grow" }, `revision ${number(view.revision)} by ${view.by}, `, moment(view.at_unix_ms)),
      h("a", { class: "button main", href: `#/workflows/${name(view.name)}/edit` }, "Edit"),
      h("button", { type: "button", class: "danger", onclick: remove }, "Delete"),
    ),
    h("h2", {}, "Where it runs"),
    parts(places, "daemon"),
    h("h2", {}, "Streams"),
    streams.length > 0 ? streamTable(streams, { own: true }) : h("p", { class: "quiet" }, "Nothing has flowed yet."),
    h("h2", {}, "Text"),
    h("pre", {}, text),
    taps(streams),
  ];
  const load = async () => {
    const [status, { text }] = await Promise.all([get(`/workflows/${name(key)}/status`), get(`/workflows/${name(key)}`)]);
    return { status, text };
  };
  return { load, again: true, draw };
}

// On the fleet's own daemons, as far as there are some.
const template = (first = "gateway", second = "hub") => `name = "example"

# Where records come from. All keys but type and daemon belong to the component.
[sources.host]
type = "host_metrics"
daemon = "${first}"

# Where they go. A daemon of its own makes the edge a stream over the bus.
[destinations.out]
type = "stdout"
daemon = "${second}"
from = "host"
`;

const draftKey = (key) => `mycelial-draft-${key}`;

const drafts = {
  read(key) {
    try {
      return JSON.parse(localStorage.getItem(draftKey(key)) ?? "null");
    } catch {
      return null;
    }
  },
  write(key, draft) {
    try {
      if (draft === null) localStorage.removeItem(draftKey(key));
      else localStorage.setItem(draftKey(key), JSON.stringify(draft));
    } catch {
      // Storage may be forbidden; then there are no drafts.
    }
  },
};

const precondition = (revision) => (revision === 0 ? { "if-none-match": "*" } : { "if-match": `"${revision}"` });

// The revision the text was read at goes back with it: somebody else's change in between is a conflict, not overwritten.
export function editor(key) {
  const fresh = key === undefined;
  const slot = fresh ? "" : key;
  let stored = null;
  let problems = [];
  let error = null;
  let busy = "";
  let checked = false;
  let area = null;
  let lines = null;

  const load = async () => {
    if (fresh) {
      const [first, second = first] = (await list("/daemons")).map((daemon) => daemon.name);
      stored = { text: template(first, second), revision: 0 };
    } else {
      stored = await get(`/workflows/${name(key)}`).then(({ text, view }) => ({ text, revision: view.revision }));
    }
    return { draft: drafts.read(slot) ?? { ...stored }, isDraft: drafts.read(slot) !== null };
  };

  const number_ = () => {
    const faulty = new Set(problems.map((problem) => problem.line));
    const count = area.value.split("\n").length;
    lines.replaceChildren(...Array.from({ length: count }, (_, index) => h(faulty.has(index + 1) ? "b" : "span", {}, `${index + 1}\n`)));
    lines.scrollTop = area.scrollTop;
  };

  const mode = (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      document.getElementById("check").click();
    }
    if (event.key === "s" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      document.getElementById("apply").click();
    }
  };

  const goto = (line) => {
    const before = area.value.split("\n").slice(0, line - 1).join("\n").length + (line > 1 ? 1 : 0);
    const end = area.value.indexOf("\n", before);
    area.focus();
    area.setSelectionRange(before, end < 0 ? area.value.length : end);
    area.scrollTop = (line - 4) * parseFloat(getComputedStyle(area).lineHeight);
  };

  const work = async (what, redraw, action) => {
    [busy, error, checked] = [what, null, false];
    redraw();
    try {
      await action();
    } catch (failed) {
      error = failed;
      problems = failed.problems ?? [];
    }
    busy = "";
    redraw();
    number_();
  };

  const check = (redraw) =>
    work("check", redraw, async () => {
      ({ problems } = await call("POST", "/workflows/validate", { text: area.value }));
      checked = true;
    });

  // A name of its own is what the text says; the plane refuses when path and text differ.
  const nameOf = (text) => key ?? /^\s*name\s*=\s*["']([^"']*)["']/m.exec(text)?.[1] ?? "";

  const apply = (redraw, data, over) =>
    work("apply", redraw, async () => {
      const text = area.value;
      const target = nameOf(text);
      if (target === "") throw Object.assign(new Error("The text has no name."), { hint: 'Begin it with: name = "…"', problems: [] });
      const { revision } = await call("PUT", `/workflows/${name(target)}`, { text }, precondition(over ?? data.draft.revision));
      drafts.write(slot, null);
      stored = { text, revision };
      tell(`${target} is applied as revision ${revision}.`);
      location.hash = `#/workflows/${name(target)}`;
    });

  const conflict = (redraw, data) => {
    const over = async () => {
      const target = nameOf(area.value);
      const now = await get(`/workflows/${name(target)}`).then(({ view }) => view.revision, () => 0);
      if (await confirm("Replace the newer revision?", `Revision ${now} of ${target} is replaced by your text. It is kept among the revisions.`, "Replace it")) apply(redraw, data, now);
    };
    return h("p", { class: "buttons" }, h("button", { type: "button", class: "danger", onclick: over }, "Apply over it"), h("a", { class: "button", href: `#/workflows/${name(nameOf(area?.value ?? ""))}`, target: "_blank", rel: "noopener" }, "See what is there now"));
  };

  const discard = async (redraw, data) => {
    if (!(await confirm("Discard your changes?", "The text goes back to what it was.", "Discard"))) return;
    drafts.write(slot, null);
    if (!fresh) stored = await get(`/workflows/${name(key)}`).then(({ text, view }) => ({ text, revision: view.revision }));
    data.draft = { ...stored };
    data.isDraft = false;
    area.value = stored.text;
    [problems, error] = [[], null];
    redraw();
    number_();
  };

  const report = () => {
    if (problems.length === 0) return checked && h("p", { role: "status" }, "No problems: it can be applied.");
    return h(
      "ul",
      { class: "problems", "aria-label": "Problems" },
      problems.map((problem) =>
        h(
          "li",
          {},
          problem.line > 0 && [h("button", { type: "button", onclick: () => goto(problem.line) }, `Line ${problem.line}`), ": "],
          problem.message,
          problem.hint && h("div", { class: "quiet" }, sentence(problem.hint)),
        ),
      ),
    );
  };

  const draw = (data, redraw) => {
    const typed = () => {
      data.draft = { text: area.value, revision: data.draft.revision };
      const changed = area.value !== stored.text;
      drafts.write(slot, changed ? data.draft : null);
      if (changed !== data.isDraft) {
        data.isDraft = changed;
        redraw();
      }
      number_();
    };
    // Made once: drawing again must not touch what is being typed.
    if (area === null) {
      lines = h("pre", { class: "lines", "aria-hidden": "true" });
      area = h("textarea", {
        class: "code", spellcheck: "false", autocapitalize: "off", "aria-label": "Text of the workflow", wrap: "off",
        value: data.draft.text, oninput: typed, onkeydown: mode,
        onscroll: () => {
          lines.scrollTop = area.scrollTop;
        },
      });
      queueMicrotask(number_);
    }
    const box = document.querySelector(".editor") ?? h("div", { class: "editor", "data-keep": "" }, lines, area);
    return [
      h("p", {}, h("a", { href: fresh ? "#/workflows" : `#/workflows/${name(key)}` }, fresh ? "← Workflows" : `← ${key}`)),
      h("div", { class: "head" }, h("h1", {}, fresh ? "New workflow" : `Edit ${key}`), h("span", { class: "quiet" }, fresh ? "" : `revision ${number(data.draft.revision)}`), data.isDraft && h("span", { class: "quiet" }, "draft, kept in this browser")),
      h("div", { "data-key": "box" }, box.isConnected ? h("div", { class: "editor", "data-keep": "" }) : box),
      h(
        "p",
        { class: "buttons" },
        h("button", { id: "apply", type: "button", class: "main", disabled: busy !== "", title: "Ctrl+S", onclick: () => apply(redraw, data) }, busy === "apply" ? "Applying …" : "Apply"),
        h("button", { id: "check", type: "button", disabled: busy !== "", title: "Ctrl+Enter", onclick: () => check(redraw) }, busy === "check" ? "Checking …" : "Check"),
        h("button", { type: "button", disabled: !data.isDraft, onclick: () => discard(redraw, data) }, "Discard changes"),
      ),
      error && [failure(error), error.status === 412 && conflict(redraw, data)],
      report(),
    ];
  };

  return { load, draw };
}
