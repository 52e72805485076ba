// What daemons can be told from here, and how a command stands. What reveals or alters records is none of it. Pure.

import type { Command, Order, Standing, Target } from "@/api/types";
import { shellWord } from "@/components/copy";
import type { Tone } from "@/components/status";
import { number } from "@/lib/format";
import { parseSpan, showSpan } from "@/lib/rollout";

type Kind = Order["kind"];

/** What somebody is about to order, as the form holds it. */
export interface Typed {
  kind: Kind;
  /** Empty: all of them. */
  workflow: string;
  level: string;
  /** For how long a level holds. */
  hold: string;
  /** How long daemons may take to answer. */
  deadline: string;
}

export const FIRST: Typed = { kind: "ping", workflow: "", level: "debug", hold: "10m", deadline: "60s" };

export const KINDS: Record<Kind, { action: string; what: string }> = {
  ping: { action: "Ping", what: "They say that they are there." },
  restart: { action: "Restart a workflow", what: "It is stopped, drained, and begins where it was." },
  pause: { action: "Pause", what: "Sources read nothing more; what was read is still delivered." },
  resume: { action: "Resume", what: "Sources that were paused read again." },
  drain: { action: "Drain", what: "They pause all their workflows, and are done when nothing is buffered any more." },
  spool_check: { action: "Check the buffers", what: "They look closely at their buffers on disk while they run." },
  log_level: { action: "Change the log level", what: "Afterwards what their settings say holds again." },
  diagnose: { action: "Diagnose", what: "They collect what helps to find out what is wrong: no records, no secrets." },
};

const DEADLINE_S_MAX = 3_600;
/** As the plane and daemons take it: `debug`, `info,spool=debug`. */
const LEVEL = /^[a-z0-9_:=,-]{1,200}$/;

/** What is wrong with each field; empty: nothing. */
export function mistakes({ kind, workflow, level, hold, deadline }: Typed) {
  const answer = parseSpan(deadline);
  return {
    workflow: kind === "restart" && workflow === "" ? "Choose the workflow." : "",
    level: kind === "log_level" && !LEVEL.test(level) ? "Write for example debug, or info,spool=debug." : "",
    hold: kind === "log_level" && !parseSpan(hold) ? "Write for example 90s, 30m or 2h." : "",
    deadline:
      answer === null || answer < 1 || answer > DEADLINE_S_MAX ? "Write for example 60s or 10m; 1h at most." : "",
  };
}

/** What is sent; `null` while something is wrong. */
export function orderOf(typed: Typed): { order: Order; deadline_s: number } | null {
  const deadline_s = parseSpan(typed.deadline);
  if (deadline_s === null || Object.values(mistakes(typed)).some((wrong) => wrong !== "")) return null;
  const { kind, workflow, level, hold } = typed;
  switch (kind) {
    case "ping":
    case "diagnose":
    case "spool_check":
      return { order: { kind }, deadline_s };
    case "log_level":
      return { order: { kind, level, for_s: parseSpan(hold) ?? 0 }, deadline_s };
    default:
      return { order: { kind, workflow }, deadline_s };
  }
}

/** The same on the command line; `null`: it asks one daemon at a time there, or something is wrong. `only`: the one daemon that
 *  is chosen. */
export function cliOf(typed: Typed, selector: string, only: string | null) {
  const wanted = orderOf(typed);
  if (wanted === null) return null;
  const { order, deadline_s } = wanted;
  const whom = only === null ? `-l ${shellWord(selector || "name:*")}` : shellWord(only);
  switch (order.kind) {
    case "ping":
    case "diagnose":
      return only === null ? null : `mycelial daemon ${order.kind} ${whom}`;
    case "drain":
      return `mycelial daemon drain ${whom} --wait-max ${showSpan(deadline_s)}`;
    case "spool_check":
      return `mycelial daemon spool-check ${whom}`;
    case "log_level":
      return `mycelial daemon log-level ${shellWord(order.level)} ${whom} --for ${showSpan(order.for_s)}`;
    case "restart":
      if (only === null) return null;
      return `mycelial workflow restart ${shellWord(order.workflow)} --daemon ${whom}`;
    default:
      if (order.workflow === "") return `mycelial daemon ${order.kind} ${whom}`;
      return only === null ? null : `mycelial workflow ${order.kind} ${shellWord(order.workflow)} --daemon ${whom}`;
  }
}

/** Waiting is neither good nor bad. */
export const STANDINGS: Record<Standing, readonly [tone: Tone, word: string]> = {
  waiting: ["off", "waiting"],
  done: ["good", "done"],
  failed: ["bad", "failed"],
  timed_out: ["warn", "no answer in time"],
  unknown: ["off", "nobody knows"],
};
const ORDER: readonly Standing[] = ["failed", "timed_out", "unknown", "waiting", "done"];

/** How many stand how, what wants to be looked at first. */
export function tally({ daemons }: Pick<Command, "daemons">) {
  return ORDER.flatMap((standing) => {
    const found = daemons.filter((each) => each.standing === standing).length;
    return found > 0 ? [{ standing, found }] : [];
  });
}

export const isOver = ({ daemons }: Pick<Command, "daemons">) =>
  daemons.every(({ standing }) => standing !== "waiting");

/** How many have answered, whatever they said. */
export const answers = ({ daemons }: Pick<Command, "daemons">) =>
  daemons.filter(({ standing }) => standing === "done" || standing === "failed").length;

/** The same in words, before how many stand how. */
export function answered(command: Pick<Command, "daemons">) {
  const [found, all] = [answers(command), command.daemons.length];
  if (found === all) return "All have answered:";
  const some = `${number(found)} of ${number(all)} have answered:`;
  return isOver(command) ? `Over: ${some}` : some;
}

const NAMES = new Intl.Collator("en", { numeric: true });

export const worstFirst = (targets: readonly Target[]) =>
  [...targets].sort(
    (a, b) => ORDER.indexOf(a.standing) - ORDER.indexOf(b.standing) || NAMES.compare(a.daemon, b.daemon),
  );

/** What daemons reported, as a file for somebody else. */
export function asFile({ what, daemons }: Pick<Command, "what" | "daemons">) {
  const told = daemons.filter(({ report }) => report.length > 0);
  const parts = told.map(({ daemon, report }) =>
    [`# ${daemon}`, ...report.map(({ heading, text }) => `## ${heading}\n\n${text.trimEnd()}`)].join("\n\n"),
  );
  return `${[what, ...parts].join("\n\n")}\n`;
}
