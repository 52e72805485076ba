// When letters are asked for again: the daemons say by the live picture when some come or go, so nobody has to ask them all the time.
// The plane asks few daemons at once, and what somebody presses has to find a turn too.

import { useQuery, useQueryClient } from "@tanstack/react-query";
import { useCallback, useEffect, useRef } from "react";
import { keys } from "@/api/keys";
import { daemonsQuery, streamsQuery, workflowsQuery } from "@/api/queries";
import type { DaemonItem, StreamView, WorkflowView } from "@/api/types";

/** How long after letters were asked for they may be asked for again, in milliseconds: many may come one after the other. */
export const APART_MS = 5_000;

/** What the live picture says of a workflow's letters: how many are kept, how many died ever, and which daemons are not there. */
function useTold(workflow: string, daemons: readonly string[]) {
  const kept = (all: WorkflowView[]) => all.find(({ name }) => name === workflow)?.letters_kept ?? null;
  const dead = (all: StreamView[]) =>
    all.reduce((sum, stream) => sum + (stream.workflow === workflow ? stream.ledger.dead : 0), 0);
  const away = (all: DaemonItem[]) =>
    all.flatMap(({ name, presence }) => (daemons.includes(name) && presence !== "online" ? [name] : [])).join();
  // Each by itself: all else that the picture brings each second changes nothing here.
  return JSON.stringify([
    useQuery({ ...workflowsQuery, select: kept }).data,
    useQuery({ ...streamsQuery, select: dead }).data,
    useQuery({ ...daemonsQuery, select: away }).data,
  ]);
}

/** Asks for the letters that are shown when something about them has changed. Returns what asks at once. */
export function useLettersAgain(workflow: string, daemons: readonly string[]) {
  const queries = useQueryClient();
  const told = useTold(workflow, daemons);
  const last = useRef({ told, at: Date.now(), isDue: false });
  const ask = useCallback(
    () => void queries.invalidateQueries({ queryKey: keys.lettersOf(workflow) }),
    [queries, workflow],
  );
  useEffect(() => {
    const { current } = last;
    // One that was tried again and died again is told twice, and as many are kept as before.
    current.isDue ||= told !== current.told;
    current.told = told;
    if (!current.isDue) return;
    const timer = setTimeout(
      () => {
        current.isDue = false;
        current.at = Date.now();
        ask();
      },
      Math.max(0, current.at + APART_MS - Date.now()),
    );
    return () => clearTimeout(timer);
  }, [told, ask]);
  return ask;
}
