// Talking to the plane: calls, and the live picture with a short memory of rates. Draws nothing.

// A call that did not work: `message` and `hint` are for people, `status` 0 means that the plane was not reached.
export class Failed extends Error {
  constructor(status, body) {
    super(body.detail);
    Object.assign(this, { status, hint: body.hint ?? "", problems: body.problems ?? [] });
  }
}

const BASE = "/api/v1";

export async function call(method, path, body, headers = {}) {
  let response;
  try {
    response = await fetch(BASE + path, {
      method,
      headers: body === undefined ? headers : { ...headers, "content-type": "application/json" },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch {
    throw new Failed(0, { detail: "The plane cannot be reached.", hint: "Is mycelial-plane running?" });
  }
  if (response.status === 204) return null;
  const type = response.headers.get("content-type") ?? "";
  const answer = /^application\/(problem\+)?json/.test(type)
    ? await response.json()
    : { detail: `The plane answered ${response.status}.` };
  if (response.ok) return answer;
  if (response.status === 401 && path !== "/session") live.lost(answer.hint);
  throw new Failed(response.status, answer);
}

export const get = (path) => call("GET", path);
// A whole list.
export const list = (path) => get(path).then(({ items }) => items);
export const name = encodeURIComponent;

const SAMPLES_MAX = 120;

// Whether this browser is logged in, and if not, how to be. Asked quietly: not being logged in is no error.
export const session = () => call("GET", "/session");

// The newest picture of the fleet, at most one a second, and what the rates were in the last two minutes.
class Live {
  picture = null;
  // "connecting", "on", "off", or "out" when there is no session.
  link = "connecting";
  // Since when it is "off": a Date.
  since = null;
  hint = "";
  rates = new Map();
  #listeners = new Set();
  #source = null;
  #retry = null;

  subscribe(listener) {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  start() {
    this.stop();
    // A further attempt is none that anybody has to be told of.
    if (this.link !== "off") this.link = "connecting";
    const source = new EventSource(`${BASE}/live`);
    this.#source = source;
    source.onmessage = (event) => this.#take(JSON.parse(event.data));
    source.onerror = () => {
      if (this.link !== "off") this.since = new Date();
      this.link = "off";
      this.#tell();
      // Browsers give up for good on some errors; ask why, then try again.
      if (source.readyState === EventSource.CLOSED) {
        this.#retry = setTimeout(() => {
          get("/info").then(
            () => this.start(),
            () => this.link !== "out" && this.start(),
          );
        }, 3000);
      }
    };
    this.#tell();
  }

  stop() {
    clearTimeout(this.#retry);
    this.#source?.close();
    this.#source = null;
  }

  // The session has ended.
  lost(hint) {
    this.stop();
    this.link = "out";
    this.hint = hint ?? "";
    this.picture = null;
    this.#tell();
  }

  #take(picture) {
    this.picture = picture;
    this.link = "on";
    const seen = new Set();
    for (const stream of picture.streams) {
      const key = streamKey(stream);
      seen.add(key);
      const samples = this.rates.get(key) ?? [];
      samples.push(stream.rate);
      if (samples.length > SAMPLES_MAX) samples.shift();
      this.rates.set(key, samples);
    }
    for (const key of this.rates.keys()) if (!seen.has(key)) this.rates.delete(key);
    this.#tell();
  }

  #tell() {
    for (const listener of this.#listeners) listener();
  }
}

export const streamKey = (stream) => `${stream.workflow}/${stream.edge}/${stream.producer}/${stream.consumer}`;
export const live = new Live();
