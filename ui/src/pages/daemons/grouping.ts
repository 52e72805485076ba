// Daemons by what they have in common: a label, a version, how they are. Pure.

import type { DaemonItem, Presence } from "@/api/types";

/** What there is to group by beside labels. A label may be called the same: then these win. */
const FIELDS: Record<string, (daemon: DaemonItem) => string> = {
  presence: ({ presence }) => presence,
  version: ({ version }) => version,
};
const NAMES = new Intl.Collator("en", { numeric: true });

/** Everything that daemons can be grouped by. */
export function groupKeys(all: readonly Pick<DaemonItem, "labels">[]) {
  const labels = new Set(all.flatMap((daemon) => Object.keys(daemon.labels)));
  return [...Object.keys(FIELDS), ...[...labels].filter((key) => !(key in FIELDS)).sort(NAMES.compare)];
}

export interface Group {
  /** `null`: they have no such label. */
  value: string | null;
  /** The filter that chooses them, beside what is chosen already. */
  term: string;
  daemons: number;
  presences: Partial<Record<Presence, number>>;
  troubled: number;
  bufferedBytes: number;
}

/** The largest first, and those without a value last. */
export function grouped(daemons: readonly DaemonItem[], key: string): Group[] {
  const groups = new Map<string | null, Group>();
  const field = FIELDS[key];
  for (const daemon of daemons) {
    const value = field ? field(daemon) : (daemon.labels[key] ?? null);
    const term = field ? `${key}:${value}` : value === null ? `-label:${key}` : `${key}=${value}`;
    const group = groups.get(value) ?? { value, term, daemons: 0, presences: {}, troubled: 0, bufferedBytes: 0 };
    group.daemons += 1;
    group.presences[daemon.presence] = (group.presences[daemon.presence] ?? 0) + 1;
    if (daemon.troubled > 0 || daemon.damaged > 0) group.troubled += 1;
    group.bufferedBytes += daemon.resources.spool_bytes;
    groups.set(value, group);
  }
  return [...groups.values()].sort(
    (a, b) =>
      Number(a.value === null) - Number(b.value === null) ||
      b.daemons - a.daemons ||
      NAMES.compare(a.value ?? "", b.value ?? ""),
  );
}
