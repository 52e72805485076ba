// The streams of an edge, and what they come to together. Pure.

import type { RunState, StreamView } from "@/api/types";
import { RUN_TONES, type Tone } from "@/components/status";

/** With `live_first` an edge has a second stream, `a->b#2`: together they are its account. */
export const streamsOf = (streams: readonly StreamView[], workflow: string, edge: string) =>
  streams.filter((each) => each.workflow === workflow && each.edge.replace(/#\d+$/, "") === edge);

export interface EdgeState {
  tone: Tone;
  trouble: string;
  rate: number;
  buffered: number;
  bufferedBytes: number;
}

export function edgeState(streams: readonly StreamView[]): EdgeState {
  const sum = (value: (stream: StreamView) => number) => streams.reduce((total, each) => total + value(each), 0);
  const trouble = streams.find((each) => each.trouble !== "")?.trouble ?? "";
  const lost = sum(({ ledger }) => ledger.dropped + ledger.dead);
  return {
    tone: trouble !== "" ? "bad" : lost > 0 ? "warn" : streams.length === 0 ? "off" : "good",
    trouble: trouble || (lost > 0 ? `${lost} dropped or dead` : ""),
    rate: sum(({ rate }) => rate),
    buffered: sum(({ ledger }) => ledger.buffered),
    bufferedBytes: sum(({ buffered_bytes }) => buffered_bytes),
  };
}

export const worst = (state: RunState | null): Tone => (state === null ? "off" : RUN_TONES[state]);
