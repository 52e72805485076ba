// What changes something: one function each. Whoever calls it says what is stale afterwards.

import { part, post, put, remove } from "./client";
import type { Labelled, ListPage, Problem, TokenWish } from "./types";

export const createToken = (wish: TokenWish) => post<{ invitation: string }>("/tokens", wish);

/** Makes an enrolment string useless. */
export const revokeToken = (id: string) => remove<null>(`/tokens/${part(id)}`);

export interface LabelWish {
  selector: string;
  set: Record<string, string>;
  unset: string[];
}

/** Puts labels on the daemons that a selector chooses, and takes labels off. */
export const labelDaemons = (wish: LabelWish) => post<ListPage<Labelled>>("/daemons/labels", wish);

/** Stops a workflow everywhere and forgets it; its revisions are kept. */
export const deleteWorkflow = (name: string) => remove<unknown>(`/workflows/${part(name)}`);

/** Everything that is wrong with a text; changes nothing. */
export const validateWorkflow = (text: string) => post<{ problems: Problem[] }>("/workflows/validate", { text });

/** Stores a text as a new revision and deploys it, unless another one is current than expected (0: there is none yet). */
export function applyWorkflow(name: string, text: string, expected: number) {
  const headers: Record<string, string> = expected === 0 ? { "if-none-match": "*" } : { "if-match": `"${expected}"` };
  return put<{ revision: number }>(`/workflows/${part(name)}`, { text }, headers);
}

/** Deploys an older revision's text as a new revision. */
export const rollBack = (name: string, revision: number) =>
  post<{ revision: number }>(`/workflows/${part(name)}/rollback`, { revision });
