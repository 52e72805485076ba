// Dead letters in the words of people, and what somebody writes in the place of a record's values. Pure.

import type { Which } from "@/api/operator";
import type { Letter, LetterShown, LettersDone } from "@/api/types";
import { shellWord } from "@/components/copy";
import type { Tone } from "@/components/status";
import { count } from "@/lib/format";
import { jsonOf } from "@/lib/json";

export const STATES: Record<Letter["state"], readonly [tone: Tone, word: string]> = {
  kept: ["warn", "waits for somebody"],
  queued: ["off", "is tried again"],
  doubtful: ["off", "in doubt"],
};

type Column = LetterShown["columns"][number];

/** What a field of the form holds: a text, or nothing at all. */
export interface Typed {
  text: string;
  isNull: boolean;
}

export function typedOf(value: unknown): Typed {
  if (value === null || value === undefined) return { text: "", isNull: true };
  return { text: typeof value === "object" ? jsonOf(value) : String(value), isNull: false };
}

/** The values that differ from what was there. Texts are read by the daemon, as the column's type has it. */
export function changes(
  columns: readonly Pick<Column, "name">[],
  record: Readonly<Record<string, unknown>>,
  typed: ReadonlyMap<string, Typed>,
): Record<string, string | null> {
  const changed: Record<string, string | null> = {};
  for (const { name } of columns) {
    const [now, before] = [typed.get(name), typedOf(record[name])];
    if (!now || (now.isNull === before.isNull && (now.isNull || now.text === before.text))) continue;
    changed[name] = now.isNull ? null : now.text;
  }
  return changed;
}

/** What came of trying letters again, or of forgetting them: "3 letters are tried again; 1 is in doubt and was left." */
export function told({ letters, doubtful, notes }: LettersDone, what: string) {
  const left = doubtful > 0 ? `; ${count(doubtful, "letter")} in doubt ${doubtful === 1 ? "was" : "were"} left` : "";
  return [`${count(letters, "letter")} ${letters === 1 ? "is" : "are"} ${what}${left}.`, ...notes].join(" ");
}

/** More are not written into one command. */
const NAMED_MAX = 20;

/** The command that does the same to these letters, a line for each daemon where all of its are meant; none where they are too
 *  many to be named. */
export function cliOf(what: "replay" | "purge", places: readonly Which[]) {
  const named = places.flatMap(({ daemon, workflow, ids }) =>
    ids.map((id) => shellWord(`${daemon}/${workflow}/${id}`)),
  );
  if (named.length > NAMED_MAX) return undefined;
  const all = places.filter(({ ids }) => ids.length === 0);
  const lines = all.map(
    ({ daemon, workflow }) =>
      `mycelial dlq ${what} --all --workflow ${shellWord(workflow)} --daemon ${shellWord(daemon)}`,
  );
  return [...lines, ...(named.length > 0 ? [`mycelial dlq ${what} ${named.join(" ")}`] : [])].join("\n");
}

/** The command that gives a letter these values and tries it again. */
export function cliToMend(letter: string, changed: Readonly<Record<string, string | null>>) {
  const sets = Object.entries(changed).map(([name, value]) => ` --set ${shellWord(`${name}=${value ?? "null"}`)}`);
  return sets.length === 0
    ? `mycelial dlq replay ${shellWord(letter)}`
    : `mycelial dlq edit ${shellWord(letter)}${sets.join("")} --replay`;
}

/** What came of it on several daemons together. */
export const sum = (done: readonly LettersDone[]): LettersDone => ({
  letters: done.reduce((total, { letters }) => total + letters, 0),
  doubtful: done.reduce((total, { doubtful }) => total + doubtful, 0),
  notes: [...new Set(done.flatMap(({ notes }) => notes))],
});

/** A reason without what it says of the one record: databases name the row in brackets, and numbers are of the record but for what
 *  a server answered. */
const kindOf = (reason: string) =>
  reason.replace(/\([^()]*[\d='"][^()]*\)/g, "()").replace(/(?<!HTTP |status |answered )\b\d+/g, "0");

/** Many letters of one cause are one matter: by where they died and why, with one of the reasons, the most first. */
export function causes(letters: readonly Pick<Letter, "node" | "reason">[]) {
  const found = new Map<string, { node: string; reason: string; letters: number }>();
  for (const { node, reason } of letters) {
    const key = `${node} ${kindOf(reason)}`;
    const cause = found.get(key) ?? { node, reason, letters: 0 };
    cause.letters += 1;
    found.set(key, cause);
  }
  return [...found.values()].sort((a, b) => b.letters - a.letters);
}
