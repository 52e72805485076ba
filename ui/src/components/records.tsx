// Records as they are: a column for each of theirs, a value as text.

import { useMemo } from "react";
import { jsonOf } from "@/lib/json";
import { Table } from "./table";

/** Columns that are shown; the rest is a number. */
const COLUMNS_MAX = 40;

export type Shown = Readonly<Record<string, unknown>>;

/** A value as one reads it in a table. */
const text = (value: unknown) => (typeof value === "object" ? jsonOf(value) : String(value));

/** Nothing, and a value: told apart by looks and by words. */
const Value = ({ value }: { value: unknown }) =>
  value === null || value === undefined ? (
    <span className="text-muted italic">{value === null ? "null" : "none"}</span>
  ) : (
    <span className="font-mono text-xs break-all">{text(value)}</span>
  );

export function Records({ label, records }: { label: string; records: readonly Shown[] }) {
  const names = useMemo(() => [...new Set(records.flatMap((record) => Object.keys(record)))], [records]);
  const columns = names.slice(0, COLUMNS_MAX).map((name) => ({
    name,
    cell: ([, record]: readonly [string, Shown]) => <Value value={record[name]} />,
  }));
  const rows = records.map((record, at) => [String(at), record] as const);
  return (
    <>
      <Table label={label} columns={columns} rows={rows} rowKey={([at]) => at} />
      {names.length > COLUMNS_MAX && (
        <p className="text-sm text-muted">{`${names.length - COLUMNS_MAX} more columns are not shown.`}</p>
      )}
    </>
  );
}
