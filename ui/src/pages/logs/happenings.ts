// What happened to the fleet, put together: what the rules of alerts look at, rollouts, and revisions. Pure.

import type { AlertKind, AlertRule, Fired, RolloutView, WorkflowView } from "@/api/types";
import type { Tone } from "@/components/status";
import { sentence } from "@/lib/format";
import { PHASES } from "@/lib/rollout";
import { fitsWords } from "@/lib/words";
import { hrefOf, inWords, KINDS, nameOf, SEVERITIES } from "../alerts/words";

export interface Happening {
  key: string;
  kind: AlertKind | "rollout" | "revision";
  tone: Tone;
  what: string;
  /** What it is about, and its page. */
  name: string;
  href: string;
  /** More of it in short: the rule, or who did it. */
  detail: string;
  unixMs: number;
  /** Until when it was so; `null`: it still is; `undefined`: it is no state. */
  untilUnixMs?: number | null;
}

export const CHOICES: readonly (readonly [kind: Happening["kind"] | "", text: string])[] = [
  ["", "Everything"],
  ["revision", "Revisions deployed"],
  ["rollout", "Rollouts"],
  ...(Object.keys(KINDS) as AlertKind[]).map((kind) => [kind, KINDS[kind].label] as const),
];

export function ofRule(rule: AlertRule, fired: readonly Fired[]): Happening[] {
  return fired.map(({ subject, from_unix_ms, to_unix_ms }) => ({
    key: `${rule.name} ${subject} ${from_unix_ms}`,
    kind: rule.when,
    tone: SEVERITIES[rule.severity],
    what: sentence(inWords(rule)),
    name: nameOf(subject),
    href: hrefOf(subject),
    detail: `rule ${rule.name}`,
    unixMs: from_unix_ms,
    untilUnixMs: to_unix_ms,
  }));
}

const ofRollout = ({ id, workflow, revision, by, at_unix_ms, phase, cause }: RolloutView): Happening => ({
  key: `rollout ${id}`,
  kind: "rollout",
  tone: PHASES[phase][0],
  what: sentence(`revision ${revision} in waves: ${PHASES[phase][1]}${cause === "" ? "" : `: ${cause}`}`),
  name: `rollout ${id} of ${workflow}`,
  href: `/rollouts/${id}`,
  detail: `by ${by}`,
  unixMs: at_unix_ms,
});

const ofWorkflow = ({ name, revision, by, at_unix_ms }: WorkflowView): Happening => ({
  key: `revision ${name} ${revision}`,
  kind: "revision",
  tone: "off",
  what: `Revision ${revision} was deployed.`,
  name: `workflow ${name}`,
  href: `/workflows/${encodeURIComponent(name)}/revisions`,
  detail: `by ${by}`,
  unixMs: at_unix_ms,
});

/** All of the time since then, the newest first. */
export function together(
  conditions: readonly Happening[],
  rollouts: readonly RolloutView[],
  workflows: readonly WorkflowView[],
  sinceUnixMs: number,
) {
  const all = [...conditions, ...rollouts.map(ofRollout), ...workflows.map(ofWorkflow)];
  return all
    .filter(({ unixMs, untilUnixMs }) => unixMs >= sinceUnixMs || (untilUnixMs ?? sinceUnixMs) > sinceUnixMs)
    .sort((a, b) => b.unixMs - a.unixMs);
}

export const choose = (all: readonly Happening[], kind: string, typed: string) =>
  all.filter((each) => (kind === "" || each.kind === kind) && fitsWords([each.what, each.name, each.detail], typed));

/** As a file: a line each, the oldest first. */
export function asLines(all: readonly Happening[]) {
  const iso = (unixMs: number) => new Date(unixMs).toISOString();
  const line = ({ unixMs, untilUnixMs, name, what, detail }: Happening) =>
    JSON.stringify({
      from: iso(unixMs),
      ...(untilUnixMs === undefined ? {} : { until: untilUnixMs === null ? null : iso(untilUnixMs) }),
      about: name,
      what,
      detail,
    });
  return all
    .toReversed()
    .map((each) => `${line(each)}\n`)
    .join("");
}
