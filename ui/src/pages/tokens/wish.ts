// What a token of the API is to be. Pure.

import type { ApiTokenWish, Rank } from "@/api/types";
import { mistakeInName as mistakeInUser } from "../users/wish";

export interface Typed {
  name: string;
  role: Rank;
  scope: string;
  ttl_s: number;
}

export const FIRST: Typed = { name: "", role: "viewer", scope: "", ttl_s: 90 * 86_400 };

export const LIVES: readonly (readonly [seconds: number, text: string])[] = [
  [86_400, "1 day"],
  [30 * 86_400, "30 days"],
  [90 * 86_400, "90 days"],
  [365 * 86_400, "1 year"],
];

export const mistakeInName = (name: string) =>
  mistakeInUser(name) === "" ? "" : "Say what it is for, in 1 to 64 letters, digits, - _ . and @: nightly-report.";

export const wishOf = ({ name, role, scope, ttl_s }: Typed): ApiTokenWish => ({
  name,
  role,
  scope: scope.trim() === "" ? null : scope.trim(),
  ttl_s,
});

/** How a program uses it. */
export const usage = (origin: string) => `curl -H "Authorization: Bearer $TOKEN" ${origin}/api/v1/daemons`;
