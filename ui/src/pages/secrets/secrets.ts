// Secrets by name over several daemons, and what became of setting one. Pure.

import type { SecretTold, SecretView } from "@/api/types";
import { shellWord } from "@/components/copy";
import { count } from "@/lib/format";

const NAME = /^[a-z0-9][a-z0-9_-]{0,31}$/;
const BYTES_MAX = 16 * 1_024;

/** Empty: nothing is wrong. */
export const mistakeInName = (name: string) =>
  NAME.test(name) ? "" : "Use 1 to 32 letters a to z, digits, - and _, beginning with a letter or digit.";

export function mistakeInValue(value: string) {
  if (value === "") return "Write what it is.";
  return new TextEncoder().encode(value).length > BYTES_MAX ? `It is longer than ${BYTES_MAX} bytes.` : "";
}

/** The command that sets a secret on those that a selector chooses. */
export function cliToSet(name: string, selector: string) {
  const only = /^name:([\w.-]+)$/.exec(selector)?.[1];
  const whom = only === undefined ? `-l ${shellWord(selector || "SELECTOR")}` : `--daemon ${only}`;
  return `mycelial secret set ${shellWord(name || "NAME")} ${whom}`;
}

/** The command that checks a workflow's connections from these daemons, a line each; `null`: from all that have it. */
export function cliToCheck(workflow: string, daemons: readonly string[] | null) {
  const plain = `mycelial workflow check ${shellWord(workflow)}`;
  return daemons === null ? plain : daemons.map((daemon) => `${plain} --daemon ${shellWord(daemon)}`).join("\n");
}

/** Those that somebody uses and nobody has set come first. */
export const worstFirst = (secrets: readonly SecretView[]) =>
  [...secrets].sort(
    (a, b) => Number(a.set_unix_ms !== null) - Number(b.set_unix_ms !== null) || a.name.localeCompare(b.name),
  );

/** "It is set on 3 daemons; shop has begun anew." */
export function inWords(done: readonly SecretTold[], what: string) {
  const good = done.filter(({ outcome }) => outcome === "done");
  const used = [...new Set(good.flatMap(({ used_by }) => used_by))];
  const again = used.length > 0 ? `; ${used.join(", ")} ${used.length === 1 ? "has" : "have"} begun anew` : "";
  return `It is ${what} on ${count(good.length, "daemon")}${again}.`;
}
