// What changes something: one function each. Whoever calls it says what is stale afterwards.

import { part, post, remove } from "./client";
import type { MemberRole } from "./types";

export interface TokenWish {
  role: MemberRole;
  /** `null` lets the candidate choose. */
  name: string | null;
  uses: number;
  ttl_s: number;
}

export const createToken = (wish: TokenWish) => post<{ invitation: string }>("/tokens", wish);

/** Stops a workflow everywhere and forgets it; its revisions are kept. */
export const deleteWorkflow = (name: string) => remove<unknown>(`/workflows/${part(name)}`);
