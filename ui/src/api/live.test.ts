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

const ADA = { name: "ada", role: "operator", scope: null } as const;

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
    startLive(new QueryClient(), ADA);
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
    // What is shown is as old as the last picture.
    expect(useLive.getState().offSince).toBe(Date.now() - SILENT_MS);
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

  it("is as old as its last picture in a page that is shown again while the plane is away", async () => {
    const cameAt = Date.now();
    vi.stubGlobal("fetch", () => Promise.reject(new TypeError("no")));
    page.show(false);
    vi.advanceTimersByTime(3 * 3_600_000);
    page.show(true);
    newest().close();
    newest().onerror();
    await vi.advanceTimersByTimeAsync(0);
    expect([link(), useLive.getState().offSince]).toEqual(["off", cameAt]);
  });

  it("is off since it began when no picture has come", () => {
    endLive("");
    startLive(new QueryClient(), ADA);
    const begunAt = Date.now();
    vi.advanceTimersByTime(FIRST_MS);
    expect([link(), useLive.getState().offSince]).toEqual(["off", begunAt]);
  });

  it.each([
    [SILENT_MS, 3, 0],
    [SILENT_MS + 1, 1, 1],
  ])("after %d ms without a picture, %d rates stand side by side", (hiddenMs, rates, asked) => {
    const queries = new QueryClient();
    const invalidate = vi.spyOn(queries, "invalidateQueries");
    startLive(queries, ADA);
    const stream = { workflow: "shop", edge: "a->b", producer: "a", consumer: "b", rate: 1, ledger: { buffered: 0 } };
    const data = JSON.stringify({ ...JSON.parse(PICTURE), streams: [stream] });
    newest().onmessage({ data });
    newest().onmessage({ data });
    page.show(false);
    vi.advanceTimersByTime(hiddenMs);
    page.show(true);
    newest().onmessage({ data });
    expect([...useLive.getState().rates.values()].map((each) => each.length)).toEqual([rates]);
    // What is not in the picture is as old as the page.
    expect(invalidate).toHaveBeenCalledTimes(asked);
  });

  it("begins when a page that was opened behind others is shown", () => {
    endLive("");
    page.show(false);
    startLive(new QueryClient(), ADA);
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
  isOpen = true;
  onmessage: (event: { data: string }) => void = () => {};
  constructor(readonly name: string) {
    FakeChannel.all.push(this);
  }
  postMessage(data: string) {
    this.sent.push(data);
  }
  close() {
    this.isOpen = false;
  }
}

/** Locks as browsers have them: each in turn, unless somebody takes it away. */
class FakeLocks {
  private holders = new Map<string, { lose: () => void }>();
  private waiting: { name: string; begin: () => void }[] = [];
  request = (name: string, options: { steal?: boolean; signal?: AbortSignal }, run: () => unknown) =>
    new Promise<void>((resolve, reject) => {
      const begin = () => {
        const holder = { lose: () => reject(new DOMException("taken away", "AbortError")) };
        this.holders.set(name, holder);
        void Promise.resolve(run()).then(() => {
          if (this.holders.get(name) === holder) {
            this.holders.delete(name);
            const next = this.waiting.find((each) => each.name === name);
            this.leave(next);
            next?.begin();
          }
          resolve();
        });
      };
      if (options.steal) this.holders.get(name)?.lose();
      if (options.steal || !this.holders.has(name)) return begin();
      const mine = { name, begin };
      this.waiting.push(mine);
      options.signal?.addEventListener("abort", () => {
        this.leave(mine);
        reject(new DOMException("no more", "AbortError"));
      });
    });
  private leave(one: { name: string } | undefined) {
    this.waiting = this.waiting.filter((each) => each !== one);
  }
}

/** What pages of one person agree on. */
const ADAS = 'mycelial-live ["ada","operator",null]';

describe("pages of one browser share a connection", () => {
  let locks: FakeLocks;
  const open = () => FakeSource.all.filter(({ readyState }) => readyState !== FakeSource.CLOSED).length;
  const link = () => useLive.getState().link;
  const hear = () => FakeChannel.all.at(-1)?.onmessage({ data: PICTURE });
  const soon = () => vi.advanceTimersByTimeAsync(0);
  /** Another page has the connection, until the function is called that this resolves to. */
  const elsewhere = () =>
    new Promise<() => void>((begun) => {
      void locks.request(ADAS, {}, () => new Promise<void>((over) => begun(over))).catch(() => {});
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
    startLive(new QueryClient(), ADA);
    await soon();
    expect(open()).toBe(1);
    FakeSource.all.at(-1)?.onmessage({ data: PICTURE });
    expect([link(), FakeChannel.all.at(-1)?.sent]).toEqual(["on", [PICTURE]]);
  });

  it("another hears what the first gets, and has it when that one is gone", async () => {
    const gone = await elsewhere();
    startLive(new QueryClient(), ADA);
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
    startLive(new QueryClient(), ADA);
    hear();
    await vi.advanceTimersByTimeAsync(SILENT_MS - 1);
    expect([link(), open()]).toEqual(["on", 0]);
    await vi.advanceTimersByTimeAsync(1);
    expect([link(), open()]).toEqual(["off", 1]);
  });

  it("nobody loses it while the plane is away", async () => {
    await elsewhere();
    vi.stubGlobal("fetch", () => Promise.reject(new TypeError("no")));
    startLive(new QueryClient(), ADA);
    await vi.advanceTimersByTimeAsync(60_000);
    expect([link(), open()]).toEqual(["off", 0]);
    // Heard of again through the other page.
    hear();
    await vi.advanceTimersByTimeAsync(SILENT_MS - 1);
    expect([link(), open()]).toEqual(["on", 0]);
  });

  it("whoever loses it waits for its turn again", async () => {
    startLive(new QueryClient(), ADA);
    await soon();
    let gone = () => {};
    void locks.request(ADAS, { steal: true }, () => new Promise<void>((over) => (gone = over)));
    await soon();
    expect(open()).toBe(0);
    hear();
    expect(link()).toBe("on");
    gone();
    await soon();
    expect(open()).toBe(1);
  });

  it.each([
    ["another person", { ...ADA, name: "bob" }],
    ["the same person with another role", { ...ADA, role: "viewer" }],
    ["the same person with another scope", { ...ADA, scope: "site=berlin" }],
  ] as const)("%s has a connection of their own", async (_, viewer) => {
    await elsewhere();
    startLive(new QueryClient(), viewer);
    await soon();
    expect(open()).toBe(1);
    expect(FakeChannel.all.at(-1)?.name).not.toBe(ADAS);
    FakeSource.all.at(-1)?.onmessage({ data: PICTURE });
    // Whoever logs in next in this page takes nothing over.
    startLive(new QueryClient(), ADA);
    await soon();
    expect(open()).toBe(0);
    expect(FakeChannel.all.map(({ name, isOpen }) => [name === ADAS, isOpen])).toEqual([
      [false, false],
      [true, true],
    ]);
  });

  it("a page that nobody sees lets go", async () => {
    startLive(new QueryClient(), ADA);
    await soon();
    (document as unknown as FakeDocument).show(false);
    await elsewhere();
    expect(open()).toBe(0);
  });
});
