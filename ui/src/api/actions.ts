// What changes something: one function each. Whoever calls it says what is stale afterwards.

import { part, patch, post, put, remove } from "./client";
import type {
  AlertRule,
  AlertView,
  ApiTokenMade,
  ApiTokenWish,
  Door,
  Fired,
  Labelled,
  ListPage,
  Order,
  Problem,
  Rank,
  RolloutPolicy,
  RolloutView,
  RuleShown,
  TokenWish,
  UserView,
  UserWish,
  WorkflowDiff,
} from "./types";

export const createToken = (wish: TokenWish) => post<{ invitation: string }>("/tokens", wish);

/** Makes an enrolment string useless. */
export const revokeToken = (id: string) => remove<null>(`/tokens/${part(id)}`);

/** Takes a daemon out of the fleet for good. */
export const revokeDaemon = (name: string) => remove<null>(`/daemons/${part(name)}`);

/** Takes an operator out of the fleet for good. */
export const revokeOperator = (name: string) => remove<null>(`/operators/${part(name)}`);

/** Lets daemons without an enrolment string wait for approval for so long. */
export const openDoor = (ttl_s: number) => post<Door>("/pending/open", { ttl_s });

export const closeDoor = () => post<null>("/pending/close");

/** Makes the daemon that shows this code a member. */
export const approve = (code: string, name: string) =>
  post<{ name: string }>(`/pending/${part(code)}/approve`, { name });

export const reject = (code: string) => post<{ name: string }>(`/pending/${part(code)}/reject`);

export interface LabelWish {
  selector: string;
  set: Record<string, string>;
  unset: string[];
}

/** Puts labels on the daemons that a selector chooses, and takes labels off. */
export const labelDaemons = (wish: LabelWish) => post<ListPage<Labelled>>("/daemons/labels", wish);

/** Lets the daemons that a selector chooses do something; its progress is asked for by the id. */
export const commandDaemons = (selector: string, command: Order, deadline_s: number) =>
  post<{ id: number }>("/daemons/commands", { selector, command, deadline_s });

export const makeApiToken = (wish: ApiTokenWish) => post<ApiTokenMade>("/api-tokens", wish);

/** Ends a token at once. */
export const endApiToken = (id: string) => remove<null>(`/api-tokens/${part(id)}`);

/** Keeps a draft at the plane, unless another one is there than expected (0: there is none). Resolves to its revision. */
export async function keepDraft(name: string, text: string, layout: unknown, expected: number) {
  const kept = await put<{ revision: number }>(`/drafts/${part(name)}`, { text, layout }, onlyIf(expected));
  return kept.revision;
}

/** Forgets the draft of that revision. */
export const forgetDraft = (name: string, expected: number) => remove<null>(`/drafts/${part(name)}`, onlyIf(expected));

/** Stops a workflow everywhere and forgets it, unless another revision is current than expected; its revisions are kept. */
export const deleteWorkflow = (name: string, expected: number) =>
  remove<unknown>(`/workflows/${part(name)}`, onlyIf(expected));

/** Everything that is wrong with a text; changes nothing. */
export const validateWorkflow = (text: string) => post<{ problems: Problem[] }>("/workflows/validate", { text });

/** Which revision has to be the current one for a change to happen; 0: there is none yet. */
const onlyIf = (expected: number): Record<string, string> =>
  expected === 0 ? { "if-none-match": "*" } : { "if-match": `"${expected}"` };

/** Stores a text as a new revision and deploys it, unless another one is current than expected (0: there is none yet). */
export const applyWorkflow = (name: string, text: string, reason: string, expected: number) =>
  put<{ revision: number }>(`/workflows/${part(name)}`, { text, reason }, onlyIf(expected));

/** What applying a text would change; changes nothing. */
export const diffWorkflow = (text: string) => post<WorkflowDiff>("/workflows/diff", { text });

/** The same as applying it, wave by wave. */
export const startRollout = (text: string, reason: string, policy: RolloutPolicy, expected: number) =>
  post<RolloutView>("/rollouts", { text, reason, policy }, onlyIf(expected));

export type RolloutCommand = "pause" | "resume" | "abort" | "rollback";

/** `reason` is for those who read it later. */
export const tellRollout = (id: number, command: RolloutCommand, reason: string) =>
  post<RolloutView>(`/rollouts/${id}/${command}`, { reason });

/** Tells nobody of an alert for so many seconds; 0 ends that. */
export const silenceAlert = (id: string, for_s: number, reason: string) =>
  post<ListPage<AlertView>>(`/alerts/${part(id)}/silence`, { for_s, reason });

/** All rules there shall be, if those are still there that have this tag. Those that come with the plane stay, unless one of
 *  the same name replaces them. */
export const putRules = (rules: readonly AlertRule[], etag: string) =>
  put<ListPage<RuleShown>>("/alerts/rules", { rules }, { "if-match": etag });

/** When a rule would have fired in the last so many seconds; it is not stored. */
export const previewRule = (rule: AlertRule, last_s: number) =>
  post<ListPage<Fired>>("/alerts/preview", { rule, last_s });

export const addUser = (wish: UserWish) => post<null>("/users", wish);

/** What is left out stays; an empty scope takes it off. A new password ends the user's sessions. Only if it still is as shown. */
export const changeUser = (
  { name, etag }: Pick<UserView, "name" | "etag">,
  change: { role?: Rank; password?: string; scope?: string },
) => patch<null>(`/users/${part(name)}`, change, { "if-match": `"${etag}"` });

/** Ends the user's sessions too. */
export const removeUser = (name: string) => remove<null>(`/users/${part(name)}`);

/** One's own; ends one's other sessions. */
export const changePassword = (old: string, fresh: string) => put<null>("/session/password", { old, new: fresh });

/** Deploys an older revision's text as a new revision, unless another one is current than expected (0: it was deleted). */
export const rollBack = (name: string, revision: number, reason: string, expected: number) =>
  post<{ revision: number }>(`/workflows/${part(name)}/rollback`, { revision, reason }, onlyIf(expected));
