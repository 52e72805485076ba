// What the journey stands on: the browser, the real fleet behind it, and a list of everything that went wrong on the page.

import { accessSync, constants } from "node:fs";
import net from "node:net";
import { delimiter, join } from "node:path";
import { chromium } from "playwright-core";

// How long anything may take until the journey gives up on it. Nothing is expected to take this long.
export const PATIENCE_MS = 90_000;

// The first link, as the plane printed it at its first start.
export const firstLink = needed("MYCELIAL_PAGE_LINK");
// Where whoever started the fleet listens for wishes.
const control = process.env.MYCELIAL_PAGE_CONTROL;
// Where to leave pictures of the page; none are taken unless it is set.
const pictures = process.env.MYCELIAL_PAGE_PICTURES;

function needed(name) {
  const value = process.env[name];
  if (!value) throw new Error(`${name} is not set: run this by \`cargo test -p testkit --test page\``);
  return value;
}

function browserPath() {
  const names = ["chromium", "chromium-browser", "google-chrome"];
  for (const dir of (process.env.PATH ?? "").split(delimiter)) {
    for (const path of names.map((name) => join(dir, name))) {
      try {
        accessSync(path, constants.X_OK);
        return path;
      } catch {
        // Not here.
      }
    }
  }
  throw new Error(
    `none of ${names.join(", ")} is installed: run \`cargo xtask setup\` (or \`apt-get install chromium\`)`,
  );
}

export function launch() {
  // The browser's own sandbox does not work for root.
  return chromium.launch({ executablePath: browserPath(), args: process.getuid() === 0 ? ["--no-sandbox"] : [] });
}

// Asks for something to be done to the fleet: `start hub`, `rows 500`, `cli ledger -o json`. Resolves to what came of it.
export function wish(...words) {
  if (!control) throw new Error("nobody hears wishes: MYCELIAL_PAGE_CONTROL is not set");
  const [host, port] = control.split(":");
  return new Promise((resolve, reject) => {
    let answer = "";
    const socket = net.connect(Number(port), host, () => socket.write(`${words.join(" ")}\n`));
    socket.setEncoding("utf8");
    socket.on("data", (text) => {
      answer += text;
    });
    socket.on("error", reject);
    socket.on("end", () => {
      const [verdict, ...rest] = answer.split("\n");
      if (verdict === "ok") resolve(rest.join("\n"));
      else reject(new Error(`${words.join(" ")}: ${answer}`));
    });
  });
}

export const asked = async (...words) => JSON.parse(await wish("cli", ...words, "-o", "json"));

// Everything a person with the developer tools open would see in red.
export class Watch {
  #wrong = [];
  #forgiven = null;

  add(page) {
    const note = (text) => {
      if (!this.#forgiven?.test(text)) this.#wrong.push(text);
    };
    page.on("console", (message) => {
      if (["error", "warning"].includes(message.type())) note(`console: ${message.text()} (${message.location().url})`);
    });
    page.on("pageerror", (error) => note(`exception: ${error.stack}`));
    page.on("response", (response) => {
      if (response.status() >= 400)
        note(`answer ${response.status()}: ${response.request().method()} ${response.url()}`);
    });
    page.on("requestfailed", (request) => {
      const why = request.failure()?.errorText;
      // Closing the live picture is how it ends, and leaving a page ends what it was still reading.
      const isReading = request.method() === "GET" || /\/(validate|diff|preview|drafts\/[^/]+)$/.test(request.url());
      if (why === "net::ERR_ABORTED" && isReading) return;
      note(`failed: ${request.method()} ${request.url()}: ${why}`);
    });
  }

  // Runs `action`, in which what fits `pattern` is what should happen.
  async forgive(pattern, action) {
    this.#forgiven = pattern;
    try {
      return await action();
    } finally {
      this.#forgiven = null;
    }
  }

  get wrong() {
    return this.#wrong;
  }
}

/** A picture of what is in the window; small, because they are kept in docs/ui. */
export async function shoot(page, name) {
  if (!pictures) return;
  await page.screenshot({ path: join(pictures, `${name}.jpg`), type: "jpeg", quality: 60 });
}
