// Which backups were made, as the audit tells: the commands that make them write into it.

import { useQuery } from "@tanstack/react-query";
import { get, part } from "@/api/client";
import { keys } from "@/api/keys";
import type { AuditEntry, ListPage } from "@/api/types";

const ENTRIES_MAX = 100;

export interface Backup {
  number: number;
  unixMs: number;
  /** "key backup" or "full backup". */
  kind: string;
  isRestore: boolean;
}

export interface Backups {
  /** The newest first. */
  all: Backup[];
  /** When the newest key backup was made, milliseconds since 1970. */
  lastKeys: number | null;
  /** Members that came or went after it. */
  since: number;
}

const MEMBERS = ["enrol", "revoke a daemon", "revoke an operator"];

/** What entries of the audit say about backups; and of members, who are part of a key backup. */
export function readBackups(entries: readonly AuditEntry[], members: readonly AuditEntry[]): Backups {
  const all = entries
    .filter(({ event }) => event.outcome === "done" && /^(make|restore) a backup$/.test(event.action))
    .map(({ number, event }) => ({
      number,
      unixMs: event.at_unix_ms,
      kind: event.what,
      isRestore: event.action.startsWith("restore"),
    }));
  const last = all.find(({ kind, isRestore }) => kind === "key backup" && !isRestore);
  const changes = members.filter(({ number, event }) => MEMBERS.includes(event.action) && number > (last?.number ?? 0));
  return { all, lastKeys: last?.unixMs ?? null, since: changes.length };
}

/** `isAllowed`: the audit is for admins. */
export const useBackups = (isAllowed: boolean) =>
  useQuery({
    queryKey: keys.backups,
    queryFn: async ({ signal }) => {
      const of = (search: string) =>
        get<ListPage<AuditEntry>>(`/audit?search=${part(search)}&by=&since=0&limit=${ENTRIES_MAX}`, signal);
      const [backups, enrolled, revoked] = await Promise.all([of("a backup"), of("enrol"), of("revoke a")]);
      return readBackups(backups.items, [...enrolled.items, ...revoked.items]);
    },
    enabled: isAllowed,
  });
