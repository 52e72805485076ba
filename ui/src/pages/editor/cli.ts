// The commands that do what the buttons beside them do, from the same values. Pure.

import { shellWord } from "@/components/copy";

const fileOf = (workflow: string) => shellWord(`${workflow}.toml`);

export const cliToCheck = (workflow: string, daemon: string) =>
  `mycelial workflow check -f ${fileOf(workflow)} --daemon ${shellWord(daemon)}`;

export const cliToTest = (workflow: string, daemon: string) =>
  `mycelial workflow test ${fileOf(workflow)} --daemon ${shellWord(daemon)}`;

/** The file that a source's records are saved as. */
export const recordsFile = (source: string) => `${source}.jsonl`;

/** `sources`: those that have records. */
export function cliToPreview(workflow: string, sources: readonly string[], daemon: string) {
  const given = sources.map((source) => ` --given ${shellWord(`${source}=${recordsFile(source)}`)}`);
  return `mycelial workflow preview ${fileOf(workflow)}${given.join("")} --daemon ${shellWord(daemon)}`;
}
