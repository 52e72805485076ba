// Keeps the draft: at once in this browser, and a moment later at the plane, so that it is there in every browser. What the
// plane does not take stays in this browser, and is tried again. Never overwrites what somebody else has kept meanwhile.

import { useCallback, useEffect, useRef, useState } from "react";
import { forgetDraft as forgetAtPlane, keepDraft as keepAtPlane } from "@/api/actions";
import { ask, Failed, get, list, part } from "@/api/client";
import type { DraftShown, DraftView } from "@/api/types";
import { asLayout, type Draft, forgetDraft, fromLayout, keepDraft, type Remote } from "./draft";

/** How long after a change it is kept in this browser, in milliseconds. */
const HERE_MS = 150;
/** How long after a change the plane is told. */
const PLANE_MS = 1_000;
/** How long after the plane has not taken it, it is tried again. */
const AGAIN_MS = 10_000;

/** A draft at the plane with the text that it was begun from; `null`: there is none. */
export async function fetchRemote(name: string, deployed: { text: string; revision: number }): Promise<Remote | null> {
  // Asked for by the list first: that there is none is no failure.
  if (!(await list<DraftView>("/drafts")).some((draft) => draft.name === name)) return null;
  const { data, etag } = await ask<DraftShown>("GET", `/drafts/${part(name)}`);
  const { from, layout } = fromLayout(data.layout);
  const isOld = from > 0 && from !== deployed.revision;
  const base = isOld ? (await get<{ text: string }>(`/workflows/${part(name)}/revisions/${from}`)).text : deployed.text;
  const tag = Number(etag?.replaceAll('"', "") ?? 0);
  return { text: data.text, layout, from, base, tag, by: data.by, atUnixMs: data.at_unix_ms };
}

export type Kept = { at: "plane" } | { at: "browser"; why: string } | { at: "nowhere" };

interface KeepingProps {
  /** The workflow; `null`: a new one. */
  name: string | null;
  /** What the plane calls the draft; `null`: it is not asked. */
  key: string | null;
  initial: Draft;
  conflict: Remote | null;
  draft: Pick<Draft, "text" | "layout" | "from" | "base">;
  isChanged: boolean;
  /** Whoever only looks does not overwrite what was kept before. */
  isTouched: boolean;
}

interface Told {
  tag: number;
  /** What the plane has. */
  text: string | null;
  layout: Draft["layout"] | null;
}

export function useKeeping(props: KeepingProps) {
  const { name, key, initial, isChanged, isTouched } = props;
  const [kept, setKept] = useState<Kept>({ at: initial.isSent && key !== null ? "plane" : "nowhere" });
  const [conflict, setConflict] = useState(props.conflict);
  const latest = useRef({ ...props, conflict });
  latest.current = { ...props, conflict };
  const told = useRef<Told>({
    tag: initial.tag,
    text: initial.isSent ? initial.text : null,
    layout: initial.isSent ? initial.layout : null,
  });
  const run = useRef({ isWanted: false, isOver: false, task: null as Promise<void> | null });
  const { text, layout } = props.draft;

  const keepHere = useCallback(() => {
    const { name: whose, draft, isChanged: changed } = latest.current;
    const { tag, text: sent } = told.current;
    // What is thrown away stays until the plane has heard of it.
    const isSent = changed ? sent === draft.text : tag === 0;
    if (changed || tag > 0 || Object.keys(draft.layout).length > 0) keepDraft(whose, { ...draft, tag, isSent });
    else forgetDraft(whose);
  }, []);

  /** One step towards the plane having what is here. */
  const tell = useCallback(async () => {
    const { key: at, draft, isChanged: changed } = latest.current;
    if (at === null) return;
    if (changed) {
      if (told.current.text === draft.text && told.current.layout === draft.layout) return;
      const tag = await keepAtPlane(at, draft.text, asLayout(draft), told.current.tag);
      told.current = { tag, text: draft.text, layout: draft.layout };
      setKept({ at: "plane" });
    } else if (told.current.tag > 0) {
      await forgetAtPlane(at, told.current.tag).catch((cause: unknown) => {
        if (!(cause instanceof Failed && cause.status === 404)) throw cause;
      });
      told.current = { tag: 0, text: null, layout: null };
    }
    keepHere();
  }, [keepHere]);

  const sendAll = useCallback(async () => {
    while (run.current.isWanted && !run.current.isOver && latest.current.conflict === null) {
      run.current.isWanted = false;
      try {
        await tell();
      } catch (cause) {
        if (cause instanceof Failed && cause.status === 412) {
          const { key: at, draft } = latest.current;
          const base = { text: draft.base, revision: draft.from };
          const theirs = await fetchRemote(at ?? "", base).catch(() => undefined);
          // Applied or thrown away elsewhere: who goes on writing has a new one.
          if (theirs === null) told.current = { tag: 0, text: null, layout: null };
          if (theirs) {
            setConflict(theirs);
            break;
          }
          if (theirs === null) {
            run.current.isWanted = true;
            continue;
          }
        }
        setKept({ at: "browser", why: cause instanceof Error ? cause.message : String(cause) });
        break;
      }
    }
  }, [tell]);

  /** One call at a time, and the newest state last. */
  const send = useCallback(() => {
    run.current.isWanted = true;
    run.current.task ??= sendAll().finally(() => {
      run.current.task = null;
    });
    return run.current.task;
  }, [sendAll]);

  const isOwed = !initial.isSent;
  // biome-ignore lint/correctness/useExhaustiveDependencies: whatever changes is kept
  useEffect(() => {
    if (!isTouched && !isOwed) return;
    const here = setTimeout(keepHere, HERE_MS);
    const plane = setTimeout(() => void send(), isChanged ? PLANE_MS : 0);
    // Who reloads or leaves at once loses nothing either.
    window.addEventListener("pagehide", keepHere);
    return () => {
      clearTimeout(here);
      clearTimeout(plane);
      window.removeEventListener("pagehide", keepHere);
    };
  }, [name, text, layout, props.draft.base, isChanged, isTouched]);

  // Whoever goes elsewhere does not wait for it.
  const isAny = isTouched || isOwed;
  const owes = useRef(isAny);
  owes.current = isAny;
  useEffect(
    () => () => {
      if (run.current.isOver || !owes.current) return;
      keepHere();
      void send();
    },
    [keepHere, send],
  );

  const isWaiting = kept.at === "browser" && isChanged;
  useEffect(() => {
    if (!isWaiting) return;
    const again = setInterval(() => void send(), AGAIN_MS);
    return () => clearInterval(again);
  }, [isWaiting, send]);

  return {
    kept: key === null ? ({ at: "browser", why: "" } as const) : kept,
    conflict,
    /** Goes on with what is here; the other draft is replaced. */
    keepMine: () => {
      if (!conflict) return;
      told.current = { tag: conflict.tag, text: conflict.text, layout: null };
      latest.current.conflict = null;
      setConflict(null);
      void send();
    },
    /** The other draft is what goes on: whoever calls it shows that. */
    taken: () => {
      if (!conflict) return;
      told.current = { tag: conflict.tag, text: conflict.text, layout: conflict.layout };
      setConflict(null);
      setKept({ at: "plane" });
    },
    /** It was applied: nobody needs the draft any more. */
    done: async () => {
      run.current.isOver = true;
      await run.current.task;
      const { key: at } = latest.current;
      if (at === null || told.current.tag === 0) return;
      const { tag } = told.current;
      told.current = { tag: 0, text: null, layout: null };
      await forgetAtPlane(at, tag).catch(() => {});
    },
  };
}

export type Keeping = ReturnType<typeof useKeeping>;
