import { QueryClient } from "@tanstack/react-query";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { endLive, FIRST_MS, labelsAreDue, SILENT_MS, startLive, totals, useLive } from "./live";

it.each([
  [{}, []],
  [{ a: [1, 2, 3] }, [1, 2, 3]],
  [{ a: [1, 2, 3], b: [10] }, [1, 2, 13]],
])("all of %j is %j", (rates: Record<string, number[]>, sum) =>
  expect(totals(new Map(Object.entries(rates)))).toEqual(sum),
);

const [a, b] = [{ node: "a" }, { node: "b" }];

it.each([
  ["nothing was known", undefined, [a], 0, true],
  ["somebody is new", [a], [a, b], 0, true],
  ["all are known", [a, b], [a, b], 29_999, false],
  ["somebody is gone", [a, b], [a], 0, false],
  ["they are old", [a], [a], 30_000, true],
] as const)("labels when %s", (_, before, daemons, ageMs, isDue) =>
  expect(labelsAreDue(before, daemons, ageMs)).toBe(isDue),
);

const PICTURE = JSON.stringify({ at_unix_ms: 1, info: {}, daemons: [], workflows: [], streams: [] });

class FakeSource {
  static CLOSED = 2;
  static all: FakeSource[] = [];
  readyState = 1;
  onmessage: (event: { data: string }) => void = () => {};
  onerror: () => void = () => {};
  constructor() {
    FakeSource.all.push(this);
  }
  close() {
    this.readyState = FakeSource.CLOSED;
  }
}

class FakeDocument extends EventTarget {
  hidden = false;
  show(isShown: boolean) {
    this.hidden = !isShown;
    this.dispatchEvent(new Event("visibilitychange"));
  }
}

describe("the live picture", () => {
  let page: FakeDocument;
  const newest = () => FakeSource.all.at(-1) as FakeSource;
  const open = () => FakeSource.all.filter(({ readyState }) => readyState !== FakeSource.CLOSED).length;
  const link = () => useLive.getState().link;
  const refused = (status: number, body: object) =>
    Promise.resolve(new Response(JSON.stringify(body), { status, headers: { "content-type": "application/json" } }));

  beforeEach(() => {
    vi.useFakeTimers();
    vi.stubGlobal("EventSource", FakeSource);
    page = new FakeDocument();
    vi.stubGlobal("document", page);
    vi.stubGlobal("navigator", {});
    FakeSource.all = [];
    startLive(new QueryClient());
    newest().onmessage({ data: PICTURE });
  });
  afterEach(() => {
    endLive("");
    vi.useRealTimers();
    vi.unstubAllGlobals();
  });

  it("stays while pictures come", () => {
    for (let times = 0; times < 20; times += 1) {
      vi.advanceTimersByTime(1_000);
      newest().onmessage({ data: PICTURE });
    }
    expect([link(), FakeSource.all.length]).toEqual(["on", 1]);
  });

  it("is old after silence, and opened anew until one comes", () => {
    vi.advanceTimersByTime(SILENT_MS - 1);
    expect(link()).toBe("on");
    vi.advanceTimersByTime(1);
    expect([link(), FakeSource.all.length, open()]).toEqual(["off", 2, 1]);
    expect(useLive.getState().offSince).toBe(Date.now());
    vi.advanceTimersByTime(FIRST_MS);
    expect([link(), FakeSource.all.length, open()]).toEqual(["off", 3, 1]);
    newest().onmessage({ data: PICTURE });
    expect([link(), useLive.getState().offSince]).toEqual(["on", null]);
  });

  it("takes no connection while nobody sees the page, and is not off for that", () => {
    page.show(false);
    vi.advanceTimersByTime(600_000);
    expect([link(), open()]).toEqual(["on", 0]);
    page.show(true);
    expect([link(), open()]).toEqual(["connecting", 1]);
    newest().onmessage({ data: PICTURE });
    expect([link(), open()]).toEqual(["on", 1]);
  });

  it("begins when a page that was opened behind others is shown", () => {
    endLive("");
    page.show(false);
    startLive(new QueryClient());
    vi.advanceTimersByTime(600_000);
    expect([link(), open()]).toEqual(["connecting", 0]);
    page.show(true);
    expect(open()).toBe(1);
  });

  it("stays off in a page that is shown again while the plane is away", () => {
    vi.advanceTimersByTime(SILENT_MS);
    page.show(false);
    page.show(true);
    expect([link(), open()]).toEqual(["off", 1]);
  });

  it("does not begin by being shown when nobody is logged in", () => {
    endLive("");
    page.show(false);
    page.show(true);
    expect([link(), open()]).toEqual(["out", 0]);
  });

  it("says why the plane refuses it, and begins when it does not any more", async () => {
    const busy = { detail: "32 pages are looking already", hint: "close some of them" };
    const fetch = vi.fn(() => refused(503, busy));
    vi.stubGlobal("fetch", fetch);
    newest().close();
    newest().onerror();
    await vi.advanceTimersByTimeAsync(0);
    expect([link(), useLive.getState().offCause]).toEqual(["off", "32 pages are looking already; close some of them"]);
    fetch.mockImplementation(() => Promise.resolve(new Response("", { status: 200 })));
    await vi.advanceTimersByTimeAsync(3_001);
    expect(FakeSource.all.length).toBe(2);
    newest().onmessage({ data: PICTURE });
    expect([link(), useLive.getState().offCause]).toEqual(["on", ""]);
  });

  it("ends when nobody is logged in any more", async () => {
    vi.stubGlobal("fetch", () => refused(401, { detail: "log in first", hint: "log in" }));
    newest().close();
    newest().onerror();
    await vi.advanceTimersByTimeAsync(60_000);
    expect([link(), open()]).toEqual(["out", 0]);
  });
});

class FakeChannel {
  static all: FakeChannel[] = [];
  sent: string[] = [];
  onmessage: (event: { data: string }) => void = () => {};
  constructor() {
    FakeChannel.all.push(this);
  }
  postMessage(data: string) {
    this.sent.push(data);
  }
  close() {}
}

/** One lock, as browsers have it: in turn, unless somebody takes it away. */
class FakeLocks {
  private holder: { lose: () => void } | null = null;
  private waiting: (() => void)[] = [];
  request = (_: string, options: { steal?: boolean; signal?: AbortSignal }, run: () => unknown) =>
    new Promise<void>((resolve, reject) => {
      const begin = () => {
        const holder = { lose: () => reject(new DOMException("taken away", "AbortError")) };
        this.holder = holder;
        void Promise.resolve(run()).then(() => {
          if (this.holder === holder) {
            this.holder = null;
            this.waiting.shift()?.();
          }
          resolve();
        });
      };
      if (options.steal) this.holder?.lose();
      if (options.steal || !this.holder) return begin();
      this.waiting.push(begin);
      options.signal?.addEventListener("abort", () => {
        this.waiting = this.waiting.filter((each) => each !== begin);
        reject(new DOMException("no more", "AbortError"));
      });
    });
}

describe("pages of one browser share a connection", () => {
  let locks: FakeLocks;
  const open = () => FakeSource.all.filter(({ readyState }) => readyState !== FakeSource.CLOSED).length;
  const link = () => useLive.getState().link;
  const hear = () => FakeChannel.all.at(-1)?.onmessage({ data: PICTURE });
  const soon = () => vi.advanceTimersByTimeAsync(0);
  /** Another page has the connection, until the function is called that this resolves to. */
  const elsewhere = () =>
    new Promise<() => void>((begun) => {
      void locks.request("", {}, () => new Promise<void>((over) => begun(over))).catch(() => {});
    });

  beforeEach(() => {
    vi.useFakeTimers();
    locks = new FakeLocks();
    [FakeSource.all, FakeChannel.all] = [[], []];
    vi.stubGlobal("EventSource", FakeSource);
    vi.stubGlobal("BroadcastChannel", FakeChannel);
    vi.stubGlobal("document", new FakeDocument());
    vi.stubGlobal("navigator", { locks });
    vi.stubGlobal("fetch", () => Promise.resolve(new Response("", { status: 200 })));
  });
  afterEach(() => {
    endLive("");
    vi.useRealTimers();
    vi.unstubAllGlobals();
  });

  it("the first has it, and hands on what it gets", async () => {
    startLive(new QueryClient());
    await soon();
    expect(open()).toBe(1);
    FakeSource.all.at(-1)?.onmessage({ data: PICTURE });
    expect([link(), FakeChannel.all.at(-1)?.sent]).toEqual(["on", [PICTURE]]);
  });

  it("another hears what the first gets, and has it when that one is gone", async () => {
    const gone = await elsewhere();
    startLive(new QueryClient());
    for (let times = 0; times < 20; times += 1) {
      hear();
      await vi.advanceTimersByTimeAsync(1_000);
    }
    expect([link(), open(), FakeChannel.all.at(-1)?.sent]).toEqual(["on", 0, []]);
    gone();
    await soon();
    expect([link(), open()]).toEqual(["on", 1]);
  });

  it("one that hands nothing on loses it while the plane answers", async () => {
    await elsewhere();
    startLive(new QueryClient());
    hear();
    await vi.advanceTimersByTimeAsync(SILENT_MS - 1);
    expect([link(), open()]).toEqual(["on", 0]);
    await vi.advanceTimersByTimeAsync(1);
    expect([link(), open()]).toEqual(["off", 1]);
  });

  it("nobody loses it while the plane is away", async () => {
    await elsewhere();
    vi.stubGlobal("fetch", () => Promise.reject(new TypeError("no")));
    startLive(new QueryClient());
    await vi.advanceTimersByTimeAsync(60_000);
    expect([link(), open()]).toEqual(["off", 0]);
    // Heard of again through the other page.
    hear();
    await vi.advanceTimersByTimeAsync(SILENT_MS - 1);
    expect([link(), open()]).toEqual(["on", 0]);
  });

  it("whoever loses it waits for its turn again", async () => {
    startLive(new QueryClient());
    await soon();
    let gone = () => {};
    void locks.request("", { steal: true }, () => new Promise<void>((over) => (gone = over)));
    await soon();
    expect(open()).toBe(0);
    hear();
    expect(link()).toBe("on");
    gone();
    await soon();
    expect(open()).toBe(1);
  });

  it("a page that nobody sees lets go", async () => {
    startLive(new QueryClient());
    await soon();
    (document as unknown as FakeDocument).show(false);
    await elsewhere();
    expect(open()).toBe(0);
  });
});
