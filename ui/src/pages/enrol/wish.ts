// What an enrolment string is to be, and who came with it. Pure.

import type { DaemonView, TokenWish } from "@/api/types";
import { shellWord } from "@/components/copy";
import { parseChanges } from "../daemons/labels";

export const LIVES: readonly (readonly [seconds: number, text: string])[] = [
  [3_600, "1 hour"],
  [86_400, "1 day"],
  [604_800, "7 days"],
];

const NAME = /^[a-z0-9][a-z0-9_-]{0,31}$/;

export function mistakeInName(name: string) {
  if (NAME.test(name)) return "";
  return "Use 1 to 32 letters a to z, digits, - and _, beginning with a letter or digit.";
}

/** Labels as somebody types them, for daemons that have none yet; or what is wrong with that. */
export function labelsIn(typed: string): { labels: Record<string, string>; error: string } {
  const { set, unset, error } = parseChanges(typed);
  return { labels: set, error: error || (unset.length > 0 ? "It has no labels yet to take off." : "") };
}

/** The same on the command line. */
export function cliOf({ role, name, uses, ttl_s, labels }: TokenWish) {
  const words = ["mycelial token create"];
  if (role !== "daemon") words.push(`--role ${role}`);
  if (name !== null) words.push(`--name ${name}`);
  if (uses !== 1) words.push(`--uses ${uses}`);
  if (ttl_s !== 86_400) words.push(`--ttl ${ttl_s % 86_400 === 0 ? `${ttl_s / 86_400}d` : `${ttl_s / 3_600}h`}`);
  words.push(...Object.entries(labels).map(([key, value]) => `--label ${shellWord(`${key}=${value}`)}`));
  return words.join(" ");
}

/** Those that were not there before, or the one that was waited for by name. */
export function arrived(daemons: readonly DaemonView[], before: ReadonlySet<string>, { name }: TokenWish) {
  return daemons.filter((daemon) => !before.has(daemon.node) && (name === null || daemon.name === name));
}
