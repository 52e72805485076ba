// Codes of daemons that wait for approval, compared as people type them; and the same on the command line. Pure.

import { shellWord } from "@/components/copy";

/** Without the dash, in small letters, with no spaces. */
const plain = (code: string) => code.toLowerCase().replace(/[^a-z0-9]/g, "");

export type Comparison = "same" | "other" | "unfinished";

/** What the plane sees against what somebody read from the daemon. */
export function compare(seen: string, typed: string): Comparison {
  const [expected, found] = [plain(seen), plain(typed)];
  if (found === expected) return "same";
  return expected.startsWith(found) ? "unfinished" : "other";
}

/** `labels` as they were typed. */
export function approveCli(code: string, asked: string, name: string, labels: string) {
  const other = name === asked ? "" : ` --name ${shellWord(name)}`;
  const label = labels === "" ? "" : ` && mycelial daemon label ${shellWord(name)} ${labels}`;
  return `mycelial enrol approve ${code}${other}${label}`;
}
