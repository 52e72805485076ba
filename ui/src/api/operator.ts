// What only an operator's keys open: records, dead letters, trials, secrets. The plane's web operator asks the daemons, when
// it is switched on; otherwise the plane says so, with the command that does the same.

import { queryOptions, useQuery } from "@tanstack/react-query";
import { Failed, get, list, part, patch, post, put, remove } from "./client";
import { keys } from "./keys";
import { again } from "./queries";
import type {
  Checked,
  Letter,
  LetterShown,
  Letters,
  LettersDone,
  ListPage,
  SecretTold,
  SecretView,
  Step,
  TapLook,
  TapShown,
  TestShown,
} from "./types";

/** Records of a trial, as JSON, one a line. */
export interface Samples {
  source: string;
  lines: string;
}

const items = async <Item>(answer: Promise<ListPage<Item>>) => (await answer).items;

/** What each step of a text makes of records, on a daemon; writes to no destination. */
export const tryText = (daemon: string, text: string, samples: readonly Samples[]) =>
  items(post<ListPage<Step>>("/operator/trial", { daemon, text, samples }));

export const runTests = (daemon: string, text: string) =>
  items(post<ListPage<TestShown>>("/operator/test", { daemon, text }));

/** Whether the sources and destinations of a text, or of a workflow as it runs, can be reached from a daemon. */
export const checkConnections = (daemon: string, what: { text: string } | { workflow: string }) =>
  items(post<ListPage<Checked>>("/operator/check", { daemon, ...what }));

export const openTap = (wish: { daemon: string; workflow: string; node: string; for_s: number; rate: number }) =>
  post<TapShown>("/operator/taps", wish);

/** What a tap has shown since `after`; keeps it open. */
export const lookTap = (id: number, after: number) => get<TapLook>(`/operator/taps/${id}?after=${after}`);

export const endTap = (id: number) => remove<null>(`/operator/taps/${id}`);

/** How often letters are asked for while one of them is tried again. */
const QUEUED_MS = 2_000;

/** When letters are asked for again by themselves: where one is tried again, and where the plane was too busy. All else the live
 *  picture tells; and where nobody may see them, that stays so until somebody changes it. */
export function lettersAgain(error: unknown, letters: readonly Pick<Letter, "state">[] = []) {
  const status = error instanceof Failed ? error.status : null;
  if (status === 403) return false;
  const isDue = status === 429 || letters.some(({ state }) => state === "queued");
  return again(error, isDue && QUEUED_MS);
}

/** A daemon's letters of a workflow, a page of them. */
export const lettersQuery = (daemon: string, workflow: string) =>
  queryOptions({
    queryKey: keys.letters(workflow, daemon),
    queryFn: ({ signal }) =>
      get<Letters>(`/operator/letters?daemon=${part(daemon)}&workflow=${part(workflow)}`, signal),
    refetchInterval: ({ state }) => lettersAgain(state.error, state.data?.items),
    retry: false,
  });

const placeOf = ({ daemon, workflow, id }: Pick<Letter, "daemon" | "workflow" | "id">) =>
  `/operator/letters/${part(daemon)}/${part(workflow)}/${id}`;

export const useLetter = (letter: Letter) =>
  useQuery({
    queryKey: keys.letter(letter.letter),
    queryFn: ({ signal }) => get<LetterShown>(placeOf(letter), signal),
    gcTime: 0,
  });

/** Gives a letter's record other values; `replay`: and tries it again. */
export const mendLetter = (letter: Letter, values: Record<string, unknown>, replay: boolean) =>
  patch<LettersDone>(placeOf(letter), { values, replay });

export interface Which {
  daemon: string;
  workflow: string;
  /** Empty: all but those in doubt. */
  ids: number[];
}

export const replayLetters = (which: Which) => post<LettersDone>("/operator/letters/replay", which);
/** Forgets them for good. */
export const discardLetters = (which: Which) => post<LettersDone>("/operator/letters/discard", which);

export const useSecrets = (daemon: string) =>
  useQuery({
    queryKey: keys.secrets(daemon),
    queryFn: ({ signal }) => list<SecretView>(`/operator/secrets?daemon=${part(daemon)}`, signal),
    enabled: daemon !== "",
    retry: false,
  });

/** Sets a secret on the daemons that a selector chooses; it cannot be read back. */
export const setSecret = (name: string, selector: string, value: string) =>
  items(put<ListPage<SecretTold>>(`/operator/secrets/${part(name)}`, { selector, value }));

export const forgetSecret = (name: string, selector: string) =>
  items(remove<ListPage<SecretTold>>(`/operator/secrets/${part(name)}?selector=${part(selector)}`));
