import { expect, it } from "vitest";
import type { AuditEntry } from "@/api/types";
import { readBackups } from "./backups";

const entry = (number: number, action: string, what: string, outcome = "done") =>
  ({
    number,
    event: { at_unix_ms: number * 1_000, who: "", from: "", action, what, outcome, cause: "" },
  }) as AuditEntry;

const BACKUPS = [
  entry(9, "make a backup", "full backup"),
  entry(8, "make a backup", "key backup", "failed"),
  entry(6, "restore a backup", "key backup"),
  entry(4, "make a backup", "key backup"),
  entry(2, "deploy a workflow", "a backup"),
];

it("what was made and restored is told from what only mentions it", () => {
  const { all, lastKeys } = readBackups(BACKUPS, []);
  expect(all.map(({ number, isRestore }) => [number, isRestore])).toEqual([
    [9, false],
    [6, true],
    [4, false],
  ]);
  expect(lastKeys).toBe(4_000);
});

it.each([
  [[entry(3, "enrol", "as daemon")], 0],
  [[entry(5, "enrol", "as daemon"), entry(7, "revoke a daemon", "x"), entry(8, "make an enrolment string", "x")], 2],
])("members that came or went since", (members, since) => expect(readBackups(BACKUPS, members).since).toBe(since));

it("without any", () => expect(readBackups([], [])).toEqual({ all: [], lastKeys: null, since: 0 }));
