// What a user and a password may be, as the plane has it. Pure.

import type { Rank } from "@/api/types";

export const RANKS: readonly (readonly [rank: Rank, what: string])[] = [
  ["viewer", "looks"],
  ["operator", "operates"],
  ["admin", "decides who else may"],
];

const NAME = /^[a-zA-Z0-9._@-]{1,64}$/;
const CHARS_MIN = 10;
const BYTES_MAX = 256;

/** Empty: nothing is wrong. */
export const mistakeInName = (name: string) =>
  NAME.test(name) ? "" : "Use 1 to 64 letters, digits, - _ . and @, for example ada@example.org.";

export function mistakeInPassword(password: string) {
  if ([...password].length < CHARS_MIN) return `Use ${CHARS_MIN} characters or more.`;
  return new TextEncoder().encode(password).length > BYTES_MAX ? `It is longer than ${BYTES_MAX} bytes.` : "";
}

export const mistakeInRepeat = (password: string, again: string) =>
  password === again ? "" : "It is not the same as above.";
