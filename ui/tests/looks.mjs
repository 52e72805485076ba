// What can be measured of looks: what axe finds, overflow, and what the keyboard reaches. The functions run inside the page.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"];

/** Everything that axe finds wrong on the page as it is. */
export async function accessible(page, where) {
  // Not a script element: the page's policy forbids those, and shall.
  if (!(await page.evaluate(() => "axe" in globalThis))) await page.evaluate(AXE);
  const found = await page.evaluate(async (tags) => {
    const { violations } = await globalThis.axe.run(document, { runOnly: tags });
    return violations.flatMap(({ id, help, nodes }) =>
      nodes.map(({ html, any }) => `${id}: ${help}: ${html.slice(0, 160)} ${any[0]?.message ?? ""}`),
    );
  }, TAGS);
  assert.deepEqual(found, [], `${where}: what axe finds`);
}

/** How often and in what steps it is waited for that the page is drawn as it shall be, in milliseconds. */
const TRIES = 40;
const TRY_MS = 50;

// What sticks out of the window to the right, unless it is inside something that scrolls by itself.
function sticking() {
  const width = document.documentElement.clientWidth;
  const inside = (element) => {
    for (let at = element.parentElement; at; at = at.parentElement) {
      if (at !== document.body && /auto|scroll|hidden/.test(getComputedStyle(at).overflowX)) return true;
    }
    return false;
  };
  const out = [...document.body.querySelectorAll("*")]
    .filter((element) => element.checkVisibility({ visibilityProperty: true }) && !inside(element))
    .filter((element) => element.getBoundingClientRect().right > width + 0.5)
    .map((element) => `${element.tagName.toLowerCase()}: ${element.textContent.trim().slice(0, 40)}`);
  const whole = document.documentElement.scrollWidth;
  if (whole > width) out.push(`the page is ${whole} wide, the window ${width}`);
  return out;
}

// Fields that are empty and say less than they mean to: what stands in them is wider than they are.
function cut() {
  const pen = document.createElement("canvas").getContext("2d");
  return [...document.querySelectorAll("input[placeholder]")]
    .filter((field) => field.value === "" && field.checkVisibility({ visibilityProperty: true }))
    .filter((field) => {
      const { font, paddingLeft, paddingRight } = getComputedStyle(field);
      pen.font = font;
      const room = field.clientWidth - Number.parseFloat(paddingLeft) - Number.parseFloat(paddingRight);
      return pen.measureText(field.placeholder).width > room + 1;
    })
    .map((field) => field.placeholder);
}

export async function fits(page, where) {
  let short = [];
  // A window that was made narrow is drawn anew in a moment.
  for (let tried = 0; tried < TRIES; tried += 1) {
    short = await page.evaluate(cut);
    if (short.length === 0) break;
    await page.waitForTimeout(TRY_MS);
  }
  assert.deepEqual(short, [], `${where}: cut off in its field`);
  assert.deepEqual(await page.evaluate(sticking), [], `${where}: wider than the window`);
}

/** A node is at least so wide on a telephone, in pixels: what stands on it can be read. */
const NODE_PX_MIN = 130;

// The nodes that a canvas shows; null: there is no canvas. Runs inside the page.
function nodes() {
  const pane = document.querySelector(".react-flow")?.getBoundingClientRect();
  if (!pane) return null;
  return [...document.querySelectorAll(".react-flow__node")]
    .map((node) => node.getBoundingClientRect())
    .filter(({ left, right, top, bottom }) => {
      const [x, y] = [(left + right) / 2, (top + bottom) / 2];
      return x > pane.left && x < pane.right && y > pane.top && y < pane.bottom;
    })
    .map(({ width }) => width);
}

/** A canvas, if there is one, shows nodes that are large enough to be read; it may take a moment to fit. */
export async function readable(page, where) {
  let shown = null;
  for (let tried = 0; tried < TRIES; tried += 1) {
    shown = await page.evaluate(nodes);
    if (shown === null || (shown.length > 0 && shown.every((width) => width >= NODE_PX_MIN))) return;
    await page.waitForTimeout(TRY_MS);
  }
  assert.fail(`${where}: the canvas shows nodes of ${shown.join(", ")} pixels, and ${NODE_PX_MIN} can be read`);
}

// Presses Tab from the top of the page until it has been round, and returns the names of what it stopped at. Every stop
// has to show that it has the focus, and has to be where it can be seen.
export async function tabs(page) {
  const stops = [];
  for (;;) {
    await page.keyboard.press("Tab");
    const stop = await page.evaluate(() => {
      const at = document.activeElement;
      if (!at || at === document.body) return null;
      const style = getComputedStyle(at);
      // An edge of the canvas is a line: having the focus makes it a thicker one.
      const line = at instanceof SVGElement && at.querySelector("path");
      const thick = line ? Number.parseFloat(getComputedStyle(line).strokeWidth) >= 2 : false;
      const box = at.getBoundingClientRect();
      const again = at.dataset.stopped === "yes";
      at.dataset.stopped = "yes";
      return {
        name: (at.getAttribute("aria-label") ?? (at.labels?.[0] ?? at).textContent).trim(),
        ring: thick || (style.outlineStyle !== "none" && Number.parseFloat(style.outlineWidth) >= 2),
        seen: box.width > 0 && box.left >= 0 && box.top >= -1 && box.top <= innerHeight,
        again,
      };
    });
    if (stop === null || stop.again) break;
    assert.ok(stop.ring, `"${stop.name}" shows that it has the focus`);
    assert.ok(stop.seen, `"${stop.name}" can be seen when it has the focus`);
    stops.push(stop.name);
    assert.ok(stops.length < 400, "Tab comes round");
  }
  await page.evaluate(() => {
    for (const element of document.querySelectorAll("[data-stopped]")) delete element.dataset.stopped;
  });
  return stops;
}
