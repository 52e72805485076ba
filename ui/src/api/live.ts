// The live picture: one connection, kept up by itself. What arrives goes into the query cache, so a page reads the same data
// whether it was fetched or pushed; the last two minutes of rates are kept for sparklines. A browser has six connections to one
// plane, and the plane has room for so many that look: a page that nobody sees takes none, and of those that are seen beside one
// another one takes it and hands on what it gets to those of the same person, who may see the same. Browsers let pages agree on
// that over HTTPS and on this machine only; elsewhere each has its own.

import type { QueryClient } from "@tanstack/react-query";
import { create } from "zustand";
import { ask, BASE, Failed, whenLoggedOut } from "./client";
import { keys } from "./keys";
import type { DaemonItem, Picture, PlaneInfo, StreamView, User } from "./types";

/** How many rates are kept of each stream. */
const RATES_MAX = 120;
const RETRY_MS = 3_000;
/** The plane sends a picture each second: after so long without one, what is shown is old. */
export const SILENT_MS = 5_000;
/** How long the first picture of a connection may take. */
export const FIRST_MS = 15_000;
/** How often labels are asked for, which the picture does not carry and others may have changed. */
const LABELS_MS = 30_000;

/** Who looks: what they see depends on all of it. */
type Viewer = Pick<User, "name" | "role" | "scope">;

export type Link = "connecting" | "on" | "off" | "out";

interface LiveState {
  /** "out": nobody is logged in. */
  link: Link;
  /** Since when nothing has been heard, while the link is off, milliseconds since 1970. */
  offSince: number | null;
  /** Why, as the plane words it; empty: it does not answer. */
  offCause: string;
  /** How to log in, as the plane words it. */
  loginHint: string;
  /** When the newest picture was made, by the plane's clock. */
  pictureAt: number | null;
  /** Latest rates of each stream, the newest last. */
  rates: ReadonlyMap<string, readonly number[]>;
  /** What a record of each stream takes, in bytes, as far as any was seen to wait. */
  sizes: ReadonlyMap<string, number>;
}

export const useLive = create<LiveState>(() => ({
  link: "connecting",
  offSince: null,
  offCause: "",
  loginHint: "",
  pictureAt: null,
  rates: new Map(),
  sizes: new Map(),
}));

export const streamKey = (stream: StreamView) =>
  `${stream.workflow}/${stream.edge}/${stream.producer}/${stream.consumer}`;

/** The rates with one more of each stream that still is; what is gone is forgotten. */
export function appendRates(rates: ReadonlyMap<string, readonly number[]>, streams: readonly StreamView[]) {
  return new Map(
    streams.map((stream) => {
      const key = streamKey(stream);
      return [key, [...(rates.get(key) ?? []), stream.rate].slice(-RATES_MAX)] as const;
    }),
  );
}

/** What all of them came to, the newest last. One that is not as old as others was nothing before. */
export function totals(rates: ReadonlyMap<string, readonly number[]>) {
  const all = [...rates.values()];
  const length = Math.max(0, ...all.map((each) => each.length));
  return Array.from({ length }, (_, at) => all.reduce((sum, each) => sum + (each[at - length + each.length] ?? 0), 0));
}

/** How much a new size counts beside what was known: records differ. */
const SIZE_WEIGHT = 0.2;

/** The sizes, with what waits now; what is gone is forgotten. Only what waits on disk has a size that is known. */
export function learnSizes(sizes: ReadonlyMap<string, number>, streams: readonly StreamView[]) {
  return new Map(
    streams.flatMap((stream) => {
      const key = streamKey(stream);
      const before = sizes.get(key);
      const { buffered } = stream.ledger;
      if (buffered === 0 || stream.buffered_bytes === 0) return before === undefined ? [] : [[key, before] as const];
      const now = stream.buffered_bytes / buffered;
      return [[key, before === undefined ? now : before + (now - before) * SIZE_WEIGHT] as const];
    }),
  );
}

/** The picture's daemons with the labels that are known of them. */
function withLabels({ daemons }: Picture, before: readonly DaemonItem[] = []): DaemonItem[] {
  const known = new Map(before.map(({ node, labels }) => [node, labels]));
  return daemons.map((daemon) => ({ ...daemon, labels: known.get(daemon.node) ?? {} }));
}

/** Whether labels have to be asked for: they are old, or of somebody nothing is known. */
export function labelsAreDue(
  before: readonly Pick<DaemonItem, "node">[] | undefined,
  daemons: readonly Pick<DaemonItem, "node">[],
  ageMs: number,
) {
  if (ageMs >= LABELS_MS) return true;
  const known = new Set(before?.map(({ node }) => node));
  return daemons.some(({ node }) => !known.has(node));
}

const NO_RATES: LiveState["rates"] = new Map();

/** When labels were asked for last; 0: they are due. */
let labelsAt = 0;

/** Asks for labels when they are due and somebody looks at them. */
function keepLabels(before: readonly DaemonItem[] | undefined, { daemons }: Picture) {
  if (labelsAreDue(before, daemons, Date.now() - labelsAt)) labelsAt = 0;
  const isLookedAt = (client?.getQueryCache().find({ queryKey: keys.daemons })?.getObserversCount() ?? 0) > 0;
  if (labelsAt > 0 || !isLookedAt) return;
  labelsAt = Date.now();
  void client?.refetchQueries({ queryKey: keys.daemons, exact: true });
}

/** What pages of one browser call the connection that they share: a picture shows what its person may see. */
const sharedBy = ({ name, role, scope }: Viewer) => `mycelial-live ${JSON.stringify([name, role, scope])}`;
let shared = "";
let channel: BroadcastChannel | null = null;
/** Ends having the connection, or waiting for it. */
let turn: AbortController | null = null;

let source: EventSource | null = null;
let retry: ReturnType<typeof setTimeout> | undefined;
let watchdog: ReturnType<typeof setTimeout> | undefined;
/** Asks why there is no picture. */
let probe: AbortController | null = null;
let client: QueryClient | null = null;
/** Somebody is logged in. */
let isBegun = false;
/** When the newest picture came, by this browser's clock; `null`: none has. */
let cameAt: number | null = null;
/** When it began to wait for pictures. */
let begunAt = 0;

/** Packets may vanish without any connection ending: then it is opened anew. */
function watch(ms: number) {
  clearTimeout(watchdog);
  watchdog = setTimeout(() => {
    off();
    // Another page has the connection and says nothing: whether the plane does, it is asked.
    if (source === null) void reopen(true);
    else open();
  }, ms);
}

function take(picture: Picture) {
  watch(SILENT_MS);
  const before = client?.getQueryData<DaemonItem[]>(keys.daemons);
  client?.setQueryData<DaemonItem[]>(keys.daemons, withLabels(picture, before));
  keepLabels(before, picture);
  client?.setQueryData(keys.workflows, picture.workflows);
  client?.setQueryData(keys.streams, picture.streams);
  client?.setQueryData<PlaneInfo>(keys.info, picture.info);
  const now = Date.now();
  // While nobody saw the page, or the machine slept, nothing came and nothing was noticed.
  const hasGap = cameAt !== null && now - cameAt > SILENT_MS;
  const wasOff = useLive.getState().link === "off";
  cameAt = now;
  useLive.setState((state) => ({
    link: "on",
    offSince: null,
    offCause: "",
    pictureAt: picture.at_unix_ms,
    // Beside rates of long ago those of now would look like what came next.
    rates: appendRates(hasGap ? NO_RATES : state.rates, picture.streams),
    sizes: learnSizes(state.sizes, picture.streams),
  }));
  // What is not in the picture was not asked for meanwhile.
  if (wasOff || hasGap) void client?.invalidateQueries();
}

function off(offCause = "") {
  useLive.setState({ link: "off", offSince: cameAt ?? begunAt, offCause });
}

/** Asks why there is no picture, which browsers do not tell, until there is no reason left. `isDue`: as below. */
async function reopen(isDue: boolean) {
  close();
  const asking = new AbortController();
  probe = asking;
  try {
    await ask("GET", "/live", { signal: asking.signal });
  } catch (cause) {
    if (asking.signal.aborted) return;
    const said = cause instanceof Failed && !cause.isUnreachable ? [cause.message, cause.hint] : [];
    off(said.filter(Boolean).join("; "));
    retry = setTimeout(() => void reopen(isDue), RETRY_MS);
    return;
  }
  if (!asking.signal.aborted) open(isDue);
}

/** `isDue`: the plane answers, so whoever has the connection without handing anything on loses it. */
function open(isDue = false) {
  close();
  if (document.hidden) return;
  if (useLive.getState().link === "out") useLive.setState({ link: "connecting" });
  watch(FIRST_MS);
  if (!navigator.locks) return connect();
  channel ??= new BroadcastChannel(shared);
  channel.onmessage = ({ data }: MessageEvent<string>) => {
    if (source !== null || document.hidden) return;
    if (turn === null) open();
    take(JSON.parse(data) as Picture);
  };
  void takeTurn(navigator.locks, isDue);
}

/** Connects when no other page has the connection any more, and has it until this one lets go. */
async function takeTurn(locks: LockManager, isDue: boolean) {
  const mine = new AbortController();
  turn = mine;
  const over = new Promise<void>((resolve) => mine.signal.addEventListener("abort", () => resolve()));
  // Nobody waits for what is taken away.
  const how = isDue ? { steal: true } : { signal: mine.signal };
  try {
    await locks.request(shared, how, () => {
      if (mine.signal.aborted) return;
      connect();
      return over;
    });
  } catch {
    // It was taken away by a page that got nothing from this one; if not, this page has let go itself.
    if (!mine.signal.aborted) open();
  }
}

function connect() {
  source = new EventSource(`${BASE}/live`);
  watch(FIRST_MS);
  source.onmessage = ({ data }: MessageEvent<string>) => {
    channel?.postMessage(data);
    take(JSON.parse(data) as Picture);
  };
  source.onerror = () => {
    // After an answer that is no picture the browser gives up for good; otherwise it tries again by itself.
    if (source?.readyState === EventSource.CLOSED) void reopen(false);
    else off();
  };
}

function close() {
  clearTimeout(retry);
  clearTimeout(watchdog);
  probe?.abort();
  turn?.abort();
  turn = null;
  source?.close();
  source = null;
}

/** The page is shown again, or not any more. What is shown then is as old as it is, but nothing is wrong with the plane. */
function onSight() {
  if (!isBegun) return;
  if (document.hidden) return close();
  if (useLive.getState().link === "on") useLive.setState({ link: "connecting" });
  open();
}

function end() {
  document.removeEventListener("visibilitychange", onSight);
  isBegun = false;
  close();
  channel?.close();
  channel = null;
}

/** No picture comes until it begins again. */
export const holdLive = end;

/** Begins: somebody is logged in. */
export function startLive(queries: QueryClient, viewer: Viewer) {
  // What was shared may be somebody else's.
  end();
  shared = sharedBy(viewer);
  begunAt = Date.now();
  document.addEventListener("visibilitychange", onSight);
  isBegun = true;
  client = queries;
  labelsAt = 0;
  useLive.setState({ link: "connecting", offSince: null, offCause: "" });
  open();
}

/** Ends: nobody is logged in any more, and nothing of the fleet stays in this page. */
export function endLive(loginHint: string) {
  end();
  cameAt = null;
  client?.clear();
  const nothing = { offSince: null, offCause: "", pictureAt: null, rates: new Map(), sizes: new Map() };
  useLive.setState({ link: "out", loginHint, ...nothing });
}

whenLoggedOut(endLive);
