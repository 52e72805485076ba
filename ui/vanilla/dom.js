// Building the page. Data only ever becomes text nodes and attributes, never markup.

const SVG = "http://www.w3.org/2000/svg";
const SVG_TAGS = new Set(["svg", "path", "title"]);

// h("a", { href: "#/x", onclick: f }, "text", [more]) makes an element. Handlers are properties, so that `patch` can move them.
export function h(tag, props = {}, ...children) {
  const svg = SVG_TAGS.has(tag);
  const node = svg ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on") || name === "value") node[name] = value;
    else node.setAttribute(name, value === true ? "" : value);
  }
  for (const child of children.flat(Infinity)) {
    if (child === undefined || child === null || child === false) continue;
    node.append(child instanceof Node ? child : String(child));
  }
  return node;
}

const HANDLERS = ["onclick", "onsubmit", "oninput", "onchange", "onkeydown", "onscroll"];

// Makes `old` look like `fresh` by changing only what differs: nothing blinks, focus and selection stay where they are.
export function patch(old, fresh) {
  for (const { name } of [...old.attributes]) if (!fresh.hasAttribute(name) && name !== "open") old.removeAttribute(name);
  for (const { name, value } of fresh.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  for (const name of HANDLERS) old[name] = fresh[name];
  patchChildren(old, fresh);
}

export function patchChildren(old, fresh) {
  const wanted = [...fresh.childNodes];
  const keyed = new Map();
  for (const child of old.children) if (child.dataset.key) keyed.set(child.dataset.key, child);
  wanted.forEach((child, index) => {
    const key = child.dataset?.key;
    const here = old.childNodes[index];
    let match = key ? keyed.get(key) : here;
    if (match && key && match !== here) old.insertBefore(match, here ?? null);
    if (match && match.nodeName === child.nodeName && (match.dataset?.key ?? "") === (key ?? "")) {
      if (match.nodeType === Node.TEXT_NODE) {
        if (match.data !== child.data) match.data = child.data;
      } else if (match.dataset?.keep === undefined) {
        patch(match, child);
      }
    } else if (key || !match) {
      old.insertBefore(child, here ?? null);
    } else {
      old.replaceChild(child, match);
    }
  });
  while (old.childNodes.length > wanted.length) old.lastChild.remove();
}

const whole = new Intl.NumberFormat("en");

export const number = (n) => whole.format(n);

export function bytes(n) {
  const units = ["B", "KB", "MB", "GB", "TB"];
  let unit = 0;
  while (n >= 1000 && unit < units.length - 1) {
    n /= 1000;
    unit += 1;
  }
  return `${unit === 0 || n >= 100 ? Math.round(n) : n.toFixed(1)} ${units[unit]}`;
}

export function span(ms) {
  const s = Math.floor(ms / 1000);
  if (s < 120) return `${s} s`;
  if (s < 7200) return `${Math.floor(s / 60)} min`;
  if (s < 172800) return `${Math.floor(s / 3600)} h`;
  return `${Math.floor(s / 86400)} days`;
}

const two = (n) => String(n).padStart(2, "0");
export const clock = (at) => `${two(at.getHours())}:${two(at.getMinutes())}`;

// Local time, in the one order that cannot be misread.
export function moment(unixMs) {
  const at = new Date(unixMs);
  const day = `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}`;
  return h("time", { datetime: at.toISOString(), title: at.toString(), class: "nowrap" }, `${day} ${clock(at)}`);
}

// A short note at the bottom of the page, read out by screen readers.
let toldTimer;
export function tell(text) {
  const place = document.getElementById("told");
  place.textContent = text;
  clearTimeout(toldTimer);
  toldTimer = setTimeout(() => {
    place.textContent = "";
  }, 4000);
}

// Asks before something that cannot be taken back. Resolves to true or false; Escape is no.
export function confirm(title, text, yes) {
  const dialog = document.getElementById("ask");
  document.getElementById("ask-title").textContent = title;
  document.getElementById("ask-text").textContent = text;
  document.getElementById("ask-yes").textContent = yes;
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.onclose = () => resolve(dialog.returnValue === "yes");
  });
}

export function copyButton(text, label) {
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text);
      tell("Copied.");
    } catch {
      const field = document.querySelector("[data-copy]");
      field?.focus();
      field?.select();
      tell("The browser does not allow copying; it is selected: press Ctrl+C.");
    }
  };
  return h("button", { type: "button", class: "main", onclick: copy }, label);
}

export const state = (kind, word) => h("span", { class: `state ${kind}` }, word);

// The plane's words, as the command line prints them after a colon, standing alone.
export const sentence = (text) => text && `${text[0].toUpperCase()}${text.slice(1)}${/[.!?:…]$/.test(text) ? "" : "."}`;

export function failure(error, again) {
  return h(
    "div",
    { class: "alert", role: "alert" },
    h("strong", {}, sentence(error.message)),
    error.hint && h("p", {}, sentence(error.hint)),
    again && h("p", { class: "buttons" }, h("button", { type: "button", onclick: again }, "Try again")),
  );
}

export const empty = (title, text, action) => h("div", { class: "empty" }, h("strong", {}, title), h("p", {}, text), action);

// On a narrow screen every row is a card, and every cell says by its label what the head would have said.
export function table(heads, rows, foot) {
  for (const row of [...rows, foot].filter(Boolean)) {
    let column = 0;
    for (const cell of row.children) {
      cell.dataset.label = heads[column].text ?? heads[column];
      column += cell.colSpan;
    }
  }
  return h(
    "div",
    { class: heads.length < 5 ? "scroll few" : "scroll" },
    h(
      "table",
      {},
      h("thead", {}, h("tr", {}, heads.map((head) => h("th", { scope: "col", class: head.num && "num" }, head.text ?? head)))),
      h("tbody", {}, rows),
      foot && h("tfoot", {}, foot),
    ),
  );
}

export const facts = (pairs) => h("dl", { class: "facts" }, pairs.map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));
