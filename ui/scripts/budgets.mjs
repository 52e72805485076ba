// What the page may weigh, compressed. Fails the build when something is too heavy, and says what.

import { readFileSync, statSync } from "node:fs";
import { fileURLToPath } from "node:url";

const KB = 1024;
const INITIAL_MAX = 150 * KB;
const CANVAS_MAX = 120 * KB;
const TOTAL_MAX = 400 * KB;

const dist = fileURLToPath(new URL("../dist/", import.meta.url));
const manifest = JSON.parse(readFileSync(`${dist}.vite/manifest.json`, "utf8"));
const size = (file) => statSync(`${dist}${file}.br`).size;

/** A chunk's files with all that it imports before it runs, except what is loaded already. */
function closure(key, loaded = new Set()) {
  const found = new Set();
  const visit = (at) => {
    const chunk = manifest[at];
    if (found.has(chunk.file) || loaded.has(chunk.file)) return;
    found.add(chunk.file);
    for (const css of chunk.css ?? []) if (!loaded.has(css)) found.add(css);
    for (const next of chunk.imports ?? []) visit(next);
  };
  visit(key);
  return found;
}

const sum = (files) => [...files].reduce((total, file) => total + size(file), 0);
const entry = Object.keys(manifest).find((key) => manifest[key].isEntry);
const shell = closure(entry);
const overview = closure("src/pages/overview/index.tsx", shell);
const canvas = new Set([...closure("src/pages/editor/index.tsx", shell), ...closure("src/canvas/index.tsx", shell)]);
const all = new Set(Object.values(manifest).flatMap((chunk) => [chunk.file, ...(chunk.css ?? [])]));

const wrong = [];
for (const [what, bytes, max] of [
  ["initial route", sum(shell) + sum(overview) + size("index.html"), INITIAL_MAX],
  ["editor with its canvas", sum(canvas), CANVAS_MAX],
  ["everything", sum(all) + size("index.html"), TOTAL_MAX],
]) {
  console.log(`${what}: ${(bytes / KB).toFixed(1)} of ${max / KB} KB (brotli)`);
  if (bytes > max) wrong.push(what);
}
if (wrong.length > 0) {
  console.error(`too heavy: ${wrong.join(", ")}; see dist/.vite/manifest.json for what each chunk holds`);
  process.exit(1);
}
