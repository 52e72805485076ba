// Takes away what was built before; the folder's own README stays.

import { mkdirSync, readdirSync, rmSync } from "node:fs";
import { fileURLToPath } from "node:url";

const dist = fileURLToPath(new URL("../dist/", import.meta.url));
mkdirSync(dist, { recursive: true });
for (const name of readdirSync(dist)) if (name !== "README.md") rmSync(dist + name, { recursive: true });
