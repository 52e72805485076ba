// Looks at the page of a full fleet as somebody does who leaves it open, while somebody else measures what that costs the plane.

import assert from "node:assert/strict";
import { firstLink, launch, PATIENCE_MS, Watch } from "./world.mjs";

const daemons = Number(process.env.MYCELIAL_PAGE_DAEMONS);
const seconds = Number(process.env.MYCELIAL_PAGE_SECONDS);
/** Pages that somebody goes through; at each an equal part of the time. */
const PLACES = ["/", "/daemons", "/alerts", "/logs/events"];

const origin = new URL(firstLink).origin;
const watch = new Watch();
const browser = await launch();
try {
  const page = await browser.newPage({ viewport: { width: 1440, height: 900 } });
  page.setDefaultTimeout(PATIENCE_MS);
  watch.add(page);
  await page.goto(firstLink);
  await page.getByText("live", { exact: true }).waitFor();
  await page.goto(`${origin}/daemons`);
  const all = `${daemons.toLocaleString("en")} daemon${daemons === 1 ? "" : "s"}`;
  await page.getByText(all, { exact: true }).waitFor();
  for (const place of PLACES) {
    await page.goto(origin + place);
    await page.getByText("live", { exact: true }).waitFor();
    await page.waitForTimeout((seconds * 1_000) / PLACES.length);
  }
  assert.deepEqual(watch.wrong, [], "what the browser's console and network say");
  console.log(`a browser saw ${all} for ${seconds} s`);
} finally {
  await browser.close();
}
