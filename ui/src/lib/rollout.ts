// Rollouts in the words of people: where one stands, what became of each wave, and how many daemons an amount is. Pure.

import type { Amount, RolloutPhase, RolloutPolicy, RolloutView } from "@/api/types";
import type { Tone } from "@/components/status";
import { span } from "./format";

const OVER: readonly RolloutPhase[] = ["done", "rolled_back", "aborted"];

/** Whether nothing more comes of it. */
export const isOver = ({ phase }: Pick<RolloutView, "phase">) => OVER.includes(phase);

/** What became of it, or becomes. */
export function course({ before, revision, phase }: Pick<RolloutView, "before" | "revision" | "phase">) {
  const to = before === 0 ? `its first revision, ${revision}` : `revision ${revision} instead of ${before}`;
  if (phase === "rolled_back" || phase === "aborted") return `was to get ${to}.`;
  return phase === "done" ? `got ${to}.` : `gets ${to}.`;
}

/** As the command line says it. What is under way is neither good nor bad yet. */
export const PHASES: Record<RolloutPhase, readonly [tone: Tone, word: string]> = {
  ready: ["off", "about to deploy"],
  taking: ["off", "deploying"],
  soaking: ["off", "soaking"],
  paused: ["warn", "paused"],
  rolling_back: ["warn", "rolling back"],
  done: ["good", "done"],
  rolled_back: ["bad", "rolled back"],
  aborted: ["warn", "aborted"],
};

/** What became of each wave so far: a tone and a word. */
export function waveStates({ phase, wave, waves }: Pick<RolloutView, "phase" | "wave" | "waves">) {
  return waves.map((_, index): readonly [Tone, string] => {
    const at = index + 1;
    if (phase === "done") return ["good", "done"];
    if (phase === "rolled_back" || phase === "rolling_back") {
      // The wave it stood at may have got it already.
      return at <= wave ? PHASES[phase] : ["off", "never begun"];
    }
    if (at > wave) return ["off", phase === "aborted" ? "never begun" : "waits"];
    if (at < wave) return ["good", "does well"];
    return PHASES[phase];
  });
}

/** How many of the daemons run the revision. */
export const taken = ({ waves }: Pick<RolloutView, "waves">) => waves.reduce((sum, wave) => sum + wave.taken, 0);
export const wanted = ({ waves }: Pick<RolloutView, "waves">) => waves.reduce((sum, wave) => sum + wave.daemons, 0);

/** `3` or `10%`. */
export const showAmount = (amount: Amount) => ("count" in amount ? `${amount.count}` : `${amount.percent}%`);

/** `null`: it is none. */
export function parseAmount(text: string): Amount | null {
  const [, digits, percent] = /^(\d{1,6})(%?)$/.exec(text.trim()) ?? [];
  if (digits === undefined) return null;
  const value = Number(digits);
  if (percent === "") return { count: value };
  return value <= 100 ? { percent: value } : null;
}

/** `1, 10%, 50%, 100%`; `null` when something in it is no amount. */
export function parseWaves(text: string): Amount[] | null {
  const amounts = text
    .split(/[\s,]+/)
    .filter(Boolean)
    .map(parseAmount);
  return amounts.every((amount) => amount !== null) && amounts.length > 0 ? amounts : null;
}

const SECONDS: Record<string, number> = { s: 1, m: 60, h: 3_600, d: 86_400 };

/** `30s`, `10m`, `2h`, `1d` in seconds; `null` when it is no length of time. */
export function parseSpan(text: string): number | null {
  const [, digits, unit = ""] = /^(\d{1,6})\s*([smhd])$/.exec(text.trim()) ?? [];
  return digits === undefined ? null : Number(digits) * (SECONDS[unit] ?? 1);
}

/** As `parseSpan` reads it, in the largest unit that is exact. */
export function showSpan(seconds: number) {
  const unit = (["d", "h", "m"] as const).find((each) => seconds > 0 && seconds % (SECONDS[each] ?? 1) === 0) ?? "s";
  return `${seconds / (SECONDS[unit] ?? 1)}${unit}`;
}

const BYTES: Record<string, number> = { b: 1, kib: 1_024, mib: 1_024 ** 2, gib: 1_024 ** 3 };

/** `64MiB` in bytes; `null` when it is no size. */
export function parseSize(text: string): number | null {
  const [, digits, unit = ""] = /^(\d{1,6})\s*([kmg]i)?b$/i.exec(text.trim()) ?? [];
  return digits === undefined ? null : Number(digits) * (BYTES[`${unit.toLowerCase()}b`] ?? 1);
}

/** As `parseSize` reads it, and the command line, in the largest unit that is exact. */
function showSize(value: number) {
  const scale = (unit: string) => BYTES[unit.toLowerCase()] ?? 1;
  const unit = ["GiB", "MiB", "KiB"].find((each) => value > 0 && value % scale(each) === 0) ?? "B";
  return `${value / scale(unit)}${unit}`;
}

/** `20%` as a number up to 100; `null` when it is none. */
function parsePercent(text: string): number | null {
  const amount = parseAmount(text);
  return amount && "percent" in amount ? amount.percent : null;
}

/** A rollout as the plane has it when nothing is said. */
export const USUAL: RolloutPolicy = {
  waves: [{ count: 1 }, { percent: 10 }, { percent: 50 }, { percent: 100 }],
  soak_s: 30,
  take_s: 120,
  failures_max: { count: 0 },
  dead_max: 0,
  lag_bytes_max: 64 * 1024 * 1024,
  throughput_percent_min: 20,
  on_failure: "roll_back",
  lag_s_max: 900,
};

/** What the fields of the form hold. */
export interface Typed {
  waves: string;
  soak: string;
  take: string;
  failures: string;
  lag: string;
  wait: string;
  throughput: string;
  isPausing: boolean;
}

export const FIRST: Typed = {
  waves: "1, 10%, 50%, 100%",
  soak: "30s",
  take: "2m",
  failures: "0",
  lag: "64MiB",
  wait: "15m",
  throughput: "20%",
  isPausing: false,
};

/** What is wrong with each field; empty: nothing. */
export function mistakes({ waves, soak, take, failures, lag, wait, throughput }: Typed) {
  const time = (text: string) => (parseSpan(text) === null ? "Write for example 30s, 10m or 2h." : "");
  return {
    waves: parseWaves(waves) ? "" : "Write how many daemons have it after each wave: 1, 10%, 50%, 100%.",
    soak: time(soak),
    take: time(take),
    failures: parseAmount(failures) ? "" : "Write for example 0, 3 or 5%.",
    lag: parseSize(lag) === null ? "Write for example 64MiB or 1GiB." : "",
    wait: time(wait),
    throughput: parsePercent(throughput) === null ? "Write for example 20%; 0% does not look." : "",
  };
}

/** `null` while something is wrong. */
export function policyOf(typed: Typed): RolloutPolicy | null {
  const waves = parseWaves(typed.waves);
  const [soak_s, take_s, lag_s_max] = [parseSpan(typed.soak), parseSpan(typed.take), parseSpan(typed.wait)];
  const failures_max = parseAmount(typed.failures);
  const [lag_bytes_max, throughput_percent_min] = [parseSize(typed.lag), parsePercent(typed.throughput)];
  if (!waves || soak_s === null || take_s === null || lag_s_max === null || !failures_max) return null;
  if (lag_bytes_max === null || throughput_percent_min === null) return null;
  const on_failure = typed.isPausing ? "pause" : "roll_back";
  const gates = { failures_max, lag_bytes_max, lag_s_max, throughput_percent_min };
  return { ...USUAL, waves, soak_s, take_s, ...gates, on_failure };
}

/** The same on the command line; what is as usual is left out. `null` while something is wrong. */
export function cliOf(file: string, typed: Typed, expected: number) {
  const policy = policyOf(typed);
  if (policy === null) return null;
  const words = (it: RolloutPolicy) => [
    `--waves ${it.waves.map(showAmount).join(",")}`,
    `--soak ${showSpan(it.soak_s)}`,
    `--take ${showSpan(it.take_s)}`,
    `--max-failures ${showAmount(it.failures_max)}`,
    `--max-lag ${showSize(it.lag_bytes_max)}`,
    `--max-wait ${showSpan(it.lag_s_max)}`,
    `--min-throughput ${it.throughput_percent_min}%`,
    ...(it.on_failure === "pause" ? ["--pause-on-failure"] : []),
  ];
  const usual = words(USUAL);
  const own = words(policy).filter((word) => !usual.includes(word));
  return ["mycelial rollout start", file, `--expect ${expected}`, ...own].join(" ");
}

/** How it goes on, in a sentence. */
export function inWords(policy: RolloutPolicy) {
  const waves = policy.waves.map(showAmount).join(", ");
  const then = policy.on_failure === "pause" ? "it waits for somebody" : "all go back to what they had";
  return `${waves} of the daemons, each wave for ${span(policy.soak_s * 1_000)}; when more than ${showAmount(policy.failures_max)} fail, ${then}`;
}
