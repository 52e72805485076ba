// The streams of an edge, and what they come to together; and what each daemon has to do with them. Pure.

import { streamKey } from "@/api/live";
import type { RunState, StreamView, WorkflowPart } from "@/api/types";
import { RUN_TONES, type Tone } from "@/components/status";
import { bytes, count, number } from "@/lib/format";
import { lagTone, longest } from "@/lib/lag";
import type { Node } from "@/workflow/graph";
import { isTable } from "@/workflow/value";

/** A destination that daemons share has a stream for each of its parts. */
const PART = /\.([a-z0-9_-]+)-(\d+)->\1\.\2$/;

/** The edge that a stream belongs to: with `live_first` there are two, `a->b#2`; shared, one a part, `a.b-3->b.3`. */
const edgeOf = (stream: string) => stream.replace(/#\d+$/, "").replace(PART, "->$1");

/** The streams of an edge: together they are its account. */
export const streamsOf = (streams: readonly StreamView[], workflow: string, edge: string) =>
  streams.filter((each) => each.workflow === workflow && edgeOf(each.edge) === edge);

export interface EdgeState {
  tone: Tone;
  trouble: string;
  rate: number;
  /** Bytes a second, as far as they are known; `null`: of no stream they are. */
  bytesRate: number | null;
  /** Of some stream nobody has counted them: they follow from the size of what waits. */
  isEstimate: boolean;
  buffered: number;
  bufferedBytes: number;
  /** Of the one that is furthest behind, in milliseconds; `null`: nothing waits. */
  lagMs: number | null;
}

/** What is worse, first. */
const WORST: readonly Tone[] = ["bad", "warn", "good", "off"];
const worse = (...tones: readonly Tone[]) => WORST.find((tone) => tones.includes(tone)) ?? "off";

const NO_SIZES: ReadonlyMap<string, number> = new Map();

/** Whether somebody should look at what a stream has lost: it dropped records lately, or has had dead ones while its workflow
 *  keeps letters, which may be of another of its streams. How many those are nobody says: the ledger counts for ever. */
export const wantsLook = ({ ledger, dropped_lately = true, has_letters = true }: StreamView) =>
  (dropped_lately && ledger.dropped > 0) || (has_letters && ledger.dead > 0);

export function edgeState(streams: readonly StreamView[], sizes = NO_SIZES): EdgeState {
  const carried = streams.flatMap((each) => {
    const size = sizes.get(streamKey(each));
    return each.bytes_per_s ?? (size === undefined ? [] : each.rate * size);
  });
  const sum = (value: (stream: StreamView) => number) => streams.reduce((total, each) => total + value(each), 0);
  const trouble = streams.find((each) => each.trouble !== "")?.trouble ?? "";
  const isLosing = streams.some(wantsLook);
  const lagMs = longest(streams);
  return {
    tone: streams.length === 0 ? "off" : worse(trouble !== "" ? "bad" : isLosing ? "warn" : "good", lagTone(lagMs)),
    trouble: trouble || (isLosing ? "records dropped or dead" : ""),
    rate: sum(({ rate }) => rate),
    bytesRate: carried.length === 0 ? null : carried.reduce((total, each) => total + each, 0),
    isEstimate: streams.some((each) => each.bytes_per_s === undefined),
    buffered: sum(({ ledger }) => ledger.buffered),
    bufferedBytes: sum(({ buffered_bytes }) => buffered_bytes),
    lagMs,
  };
}

/** What a stream carries a second, in words. `size`: of a record, as far as it is known. */
export function bytesOf({ bytes_per_s }: Pick<StreamView, "bytes_per_s">, rate: number, size: number | undefined) {
  // Whatever the rate is: it is in whole records, and large ones may come seldom.
  if (bytes_per_s !== undefined) return bytes(bytes_per_s);
  if (rate === 0) return bytes(0);
  return size === undefined ? "not known: nothing has waited yet" : `about ${bytes(rate * size)}`;
}

/** `null`: not told yet. */
export const toneOf = (state: RunState | null): Tone => (state === null ? "off" : RUN_TONES[state]);

/** What a stream may buffer when nothing is said, in bytes. */
const QUOTA_BYTES = 1 << 30;
const UNITS: Record<string, number> = {
  "": 1,
  b: 1,
  kb: 1e3,
  mb: 1e6,
  gb: 1e9,
  tb: 1e12,
  kib: 2 ** 10,
  mib: 2 ** 20,
  gib: 2 ** 30,
  tib: 2 ** 40,
};

/** How much the stream into a node may buffer, in bytes, as its text says. */
export function quotaOf({ keys }: Pick<Node, "keys">) {
  const quota = isTable(keys.spool) ? keys.spool.quota : undefined;
  if (typeof quota === "bigint") return Number(quota);
  const [, digits, unit = ""] = /^\s*(\d+(?:\.\d+)?)\s*([a-z]*)$/i.exec(typeof quota === "string" ? quota : "") ?? [];
  const scale = UNITS[unit.toLowerCase()];
  return digits === undefined || scale === undefined ? QUOTA_BYTES : Number(digits) * scale;
}

/** How full the fullest of them is, 0 to 1. */
export const fill = (streams: readonly StreamView[], quotaBytes: number) =>
  Math.min(1, Math.max(0, ...streams.map(({ buffered_bytes }) => buffered_bytes / quotaBytes)));

/** How far the newest revision has come, while it is not everywhere yet; empty: it is. */
export function underWay(parts: readonly WorkflowPart[]) {
  const newest = Math.max(0, ...parts.map(({ wanted }) => wanted));
  const have = parts.filter(({ revision }) => revision >= newest).length;
  return have === parts.length ? "" : `${number(have)} of ${count(parts.length, "daemon")} run revision ${newest}`;
}

export interface Share extends WorkflowPart {
  /** Records a second that it sends and that it gets. */
  sends: number;
  gets: number;
  waiting: number;
  waitingBytes: number;
  /** How far behind what waits there is, in milliseconds; `null`: nothing waits. */
  lagMs: number | null;
  /** Dropped or dead on its streams. */
  lost: number;
}

/** Each daemon's part with what flows through it: what waits is counted where it waits. */
export function shares(parts: readonly WorkflowPart[], streams: readonly StreamView[]): Share[] {
  return parts.map((part) => {
    const lagMs = longest(streams.filter(({ producer }) => producer === part.daemon));
    const share = { ...part, sends: 0, gets: 0, waiting: 0, waitingBytes: 0, lagMs, lost: 0 };
    for (const { producer, consumer, rate, ledger, buffered_bytes } of streams) {
      if (producer === part.daemon) {
        share.sends += rate;
        share.waiting += ledger.buffered;
        share.waitingBytes += buffered_bytes;
        share.lost += ledger.dropped + ledger.dead;
      }
      if (consumer === part.daemon) share.gets += rate;
    }
    return share;
  });
}
