// What can be measured of looks: contrast, overflow, and what the keyboard reaches. The functions run inside the page.

import assert from "node:assert/strict";

// Texts with less contrast than WCAG AA asks of small ones, as "text: ratio".
function faint() {
  const least = 4.5;
  const parse = (text) => {
    const [r, g, b, a = 1] = text.match(/[\d.]+/g).map(Number);
    return { r, g, b, a };
  };
  const over = (top, below) => ({
    r: top.r * top.a + below.r * (1 - top.a),
    g: top.g * top.a + below.g * (1 - top.a),
    b: top.b * top.a + below.b * (1 - top.a),
    a: 1,
  });
  const ground = (element) => {
    const layers = [];
    for (let at = element; at; at = at.parentElement) layers.push(parse(getComputedStyle(at).backgroundColor));
    return layers.reverse().reduce((below, top) => over(top, below), { r: 255, g: 255, b: 255, a: 1 });
  };
  const luminance = ({ r, g, b }) => {
    const [x, y, z] = [r, g, b].map((part) => {
      const c = part / 255;
      return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const ratio = (element, colour) => {
    const below = ground(element);
    const [a, b] = [luminance(over(parse(colour), below)), luminance(below)];
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  };
  const found = [];
  let measured = 0;
  const measure = (element, colour, text) => {
    const contrast = ratio(element, colour);
    measured += 1;
    if (contrast < least) found.push(`${text.trim().slice(0, 40)}: ${contrast.toFixed(2)}`);
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const element = node.parentElement;
    if (node.data.trim() === "" || !element.checkVisibility({ visibilityProperty: true }) || element.closest(":disabled, noscript, option")) continue;
    measure(element, getComputedStyle(element).color, node.data);
  }
  for (const field of document.querySelectorAll("input, textarea, select")) {
    if (field.placeholder) measure(field, getComputedStyle(field, "::placeholder").color, field.placeholder);
    if (field.value) measure(field, getComputedStyle(field).color, field.value);
  }
  for (const cell of document.querySelectorAll("td[data-label]")) {
    const label = getComputedStyle(cell, "::before");
    if (label.content !== "none" && cell.checkVisibility()) measure(cell, label.color, cell.dataset.label);
  }
  return { found, measured };
}

export async function readable(page, where) {
  const { found, measured } = await page.evaluate(faint);
  assert.ok(measured > 5, `${where}: there is text to measure`);
  assert.deepEqual(found, [], `${where}: contrast below 4.5`);
}

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
    .filter((element) => element.checkVisibility({ visibilityProperty: true }) && !element.matches(".skip") && !inside(element))
    .filter((element) => element.getBoundingClientRect().right > width + 0.5)
    .map((element) => `${element.tagName.toLowerCase()}.${element.className}: ${element.textContent.trim().slice(0, 40)}`);
  if (document.documentElement.scrollWidth > width) out.push(`the page is ${document.documentElement.scrollWidth} wide, the window ${width}`);
  return out;
}

export async function fits(page, where) {
  assert.deepEqual(await page.evaluate(sticking), [], `${where}: wider than the window`);
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
      const ringed = (element) => {
        const style = element && getComputedStyle(element);
        return Boolean(style) && style.outlineStyle !== "none" && Number.parseFloat(style.outlineWidth) >= 2;
      };
      const box = at.getBoundingClientRect();
      return {
        name: (at.getAttribute("aria-label") ?? (at.labels?.[0] ?? at).textContent).trim(),
        ring: ringed(at) || ringed(at.closest(".editor")),
        seen: box.width > 0 && box.left >= 0 && box.top >= 0 && box.bottom <= innerHeight + 1,
        again: at.dataset.stopped === "yes" || !(at.dataset.stopped = "yes"),
      };
    });
    if (stop === null || stop.again) break;
    assert.ok(stop.ring, `"${stop.name}" shows that it has the focus`);
    assert.ok(stop.seen, `"${stop.name}" can be seen when it has the focus`);
    stops.push(stop.name);
    assert.ok(stops.length < 200, "Tab comes round");
  }
  await page.evaluate(() => document.querySelectorAll("[data-stopped]").forEach((element) => delete element.dataset.stopped));
  return stops;
}
