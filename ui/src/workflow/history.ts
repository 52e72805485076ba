// Undo and redo of everything: text and positions are one state. Pure: the time is an argument.

export interface Position {
  x: number;
  y: number;
}
export type Layout = Readonly<Record<string, Position>>;

/** The positions that are some, of whatever was stored. */
export function layoutIn(value: unknown): Layout {
  const entries = Object.entries(typeof value === "object" && value !== null ? value : {});
  return Object.fromEntries(
    entries
      .filter(([, each]) => Number.isFinite(each?.x) && Number.isFinite(each?.y))
      .map(([id, { x, y }]) => [id, { x, y }]),
  );
}

export interface Snapshot {
  text: string;
  layout: Layout;
}

export interface History {
  past: readonly Snapshot[];
  present: Snapshot;
  future: readonly Snapshot[];
  /** What the last change was of, and when: more of the same is one step. */
  last: { key: string; atMs: number } | null;
}

export type Action =
  | { kind: "change"; to: Partial<Snapshot>; key?: string; atMs: number }
  | { kind: "undo" }
  | { kind: "redo" }
  | { kind: "reset"; to: Snapshot };

/** Most steps back. */
export const STEPS_MAX = 200;
/** How long a pause may be within one step, in milliseconds. */
export const PAUSE_MS = 1_000;

export const begin = (present: Snapshot): History => ({ past: [], present, future: [], last: null });

export function reduce(history: History, action: Action): History {
  const { past, present, future, last } = history;
  switch (action.kind) {
    case "reset":
      return begin(action.to);
    case "undo": {
      const before = past.at(-1);
      if (!before) return history;
      return { past: past.slice(0, -1), present: before, future: [present, ...future], last: null };
    }
    case "redo": {
      const [next, ...rest] = future;
      if (!next) return history;
      return { past: [...past, present], present: next, future: rest, last: null };
    }
    case "change": {
      const next = { ...present, ...action.to };
      if (next.text === present.text && next.layout === present.layout) return history;
      const key = action.key ?? "";
      const isSame = key !== "" && last?.key === key && action.atMs - last.atMs < PAUSE_MS && past.length > 0;
      return {
        past: isSame ? past : [...past, present].slice(-STEPS_MAX),
        present: next,
        future: [],
        last: { key, atMs: action.atMs },
      };
    }
  }
}
