// What changes something: one function each. Whoever calls it says what is stale afterwards.

import { part, post, put, remove } from "./client";
import type { MemberRole, Problem } from "./types";

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

/** Everything that is wrong with a text; changes nothing. */
export const validateWorkflow = (text: string) => post<{ problems: Problem[] }>("/workflows/validate", { text });

/** Stores a text as a new revision and deploys it, unless another one is current than expected (0: there is none yet). */
export const applyWorkflow = (name: string, text: string, expect_revision: number) =>
  put<{ revision: number }>(`/workflows/${part(name)}`, { text, expect_revision });
