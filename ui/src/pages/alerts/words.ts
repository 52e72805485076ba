// Alerts and their rules in words. Pure.

import type { AlertKind, AlertRule, AlertView, RuleShown, Severity } from "@/api/types";
import type { Tone } from "@/components/status";
import { showSpan } from "@/lib/rollout";
import { fitsWords } from "@/lib/words";

interface Kind {
  /** What it looks at. */
  label: string;
  /** What the limit counts; `null`: there is none. */
  unit: string | null;
  /** The sentence of a rule, with its limit. */
  says: (over: number) => string;
}

export const KINDS: Record<AlertKind, Kind> = {
  offline: { label: "A daemon is offline", unit: null, says: () => "a daemon is offline" },
  lag: {
    label: "Records wait for too long",
    unit: "seconds",
    says: (over) => `the oldest record of a stream waits for more than ${over} s`,
  },
  errors: {
    label: "Records are dropped or set aside",
    unit: "records a minute",
    says: (over) => `more than ${over} records a minute are dropped or become dead letters`,
  },
  buffer_fill: {
    label: "Buffers fill the disk",
    unit: "percent",
    says: (over) => `buffers take more than ${over} % of the disk they can have`,
  },
  dead_letters: {
    label: "There are dead letters",
    unit: "dead letters",
    says: (over) => `a workflow has more than ${over} dead letters`,
  },
  disk_free: { label: "Little disk is free", unit: "MiB", says: (over) => `less than ${over} MiB of disk are free` },
  failing: { label: "A workflow fails", unit: null, says: () => "a workflow fails or is tried again and again" },
  plan_stuck: { label: "A plan is not applied", unit: null, says: () => "a daemon does not apply its plan" },
  cloned: { label: "A daemon is cloned", unit: null, says: () => "two daemons use the keys of one" },
  rollout_stuck: {
    label: "A rollout stands still",
    unit: "seconds",
    says: (over) => `a rollout has stood at the same place for more than ${over} s`,
  },
  drift: {
    label: "Columns are not as agreed",
    unit: "seconds since it was seen",
    says: (over) => `columns of a workflow were not what its contract says within the last ${over} s`,
  },
};

export const SEVERITIES: Record<Severity, Tone> = { critical: "bad", warning: "warn", info: "off" };

/** "a daemon is offline for 5m, on site=berlin" */
export function inWords({ when, over, for_s, select, workflow }: AlertRule) {
  const parts = [`${KINDS[when].says(over)}${for_s > 0 ? ` for ${showSpan(for_s)}` : ""}`];
  if (select !== "") parts.push(`on ${select}`);
  if (workflow !== "") parts.push(`of ${workflow}`);
  return parts.join(", ");
}

/** The page of what an alert is about. */
export function hrefOf(subject: string) {
  const at = subject.indexOf(":");
  const [kind, name] = [subject.slice(0, at), subject.slice(at + 1)];
  if (kind === "daemon") return `/daemons/${encodeURIComponent(name)}`;
  return `/workflows/${encodeURIComponent(name.split("/")[0] ?? "")}`;
}

/** `stream:shop/a->b` as "stream shop, a → b". */
export function nameOf(subject: string) {
  const at = subject.indexOf(":");
  return `${subject.slice(0, at)} ${subject
    .slice(at + 1)
    .replace("/", ", ")
    .replace("->", " → ")}`;
}

const ORDER: readonly Severity[] = ["critical", "warning", "info"];

/** How an alert stands, as the filter names it, in words. */
export const STATES = [
  ["firing", "fires"],
  ["silenced", "fires, silenced"],
  ["pending", "may fire soon"],
] as const;

export const stateOf = ({ state, silenced_until_unix_ms }: Pick<AlertView, "state" | "silenced_until_unix_ms">) =>
  state === "pending" ? "pending" : silenced_until_unix_ms > 0 ? "silenced" : "firing";

/** What else chooses; empty: all. */
const EVERY = { state: "", severity: "" };

/** The worst first; what is silenced, and what may yet come, behind what fires. */
export function chooseAlerts(all: readonly AlertView[], typed: string, only = EVERY) {
  const rank = ({ state, silenced_until_unix_ms, severity }: AlertView) =>
    (state === "firing" ? 0 : 20) + (silenced_until_unix_ms > 0 ? 10 : 0) + ORDER.indexOf(severity);
  return all
    .filter((alert) => only.state === "" || stateOf(alert) === only.state)
    .filter(({ severity }) => only.severity === "" || severity === only.severity)
    .filter(({ rule, subject, severity, state, summary }) =>
      fitsWords([rule, nameOf(subject), severity, state, summary], typed),
    )
    .sort((a, b) => rank(a) - rank(b) || b.since_unix_ms - a.since_unix_ms);
}

const plain = ({ comes_with_plane: _, ...rule }: RuleShown): AlertRule => rule;

/** All rules of one's own, with `changed` in the place of the one that was called `name`; `null`: without that one. */
export function withRule(all: readonly RuleShown[], name: string, changed: AlertRule | null): AlertRule[] {
  const others = all.filter((rule) => !rule.comes_with_plane && rule.name !== name && rule.name !== changed?.name);
  return [...others.map(plain), ...(changed ? [changed] : [])];
}

/** A text in TOML: JSON's quotes are its, too. */
const quoted = (text: string) => JSON.stringify(text);

/** The command that stores all these rules: it takes them as a file, and forgets those that are not in it. */
export function cliOf(rules: readonly AlertRule[]) {
  const texts = rules.map(({ name, when, over, for_s, severity, select, workflow, notify, enabled }) =>
    [
      "[[rule]]",
      `name = ${quoted(name)}`,
      `when = ${quoted(when)}`,
      `over = ${over}`,
      // No length is no key.
      ...(for_s > 0 ? [`for = ${quoted(showSpan(for_s))}`] : []),
      `severity = ${quoted(severity)}`,
      `select = ${quoted(select)}`,
      `workflow = ${quoted(workflow)}`,
      `notify = [${notify.map(quoted).join(", ")}]`,
      `enabled = ${enabled}`,
    ].join("\n"),
  );
  return `mycelial alert apply --yes - <<'RULES'\n${texts.join("\n\n")}\nRULES`;
}

export const NEW: AlertRule = {
  name: "",
  when: "offline",
  over: 0,
  for_s: 300,
  severity: "warning",
  select: "",
  workflow: "",
  notify: [],
  enabled: true,
};
