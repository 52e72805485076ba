// Records of tests as lines of JSON, which people have and can paste, and as TOML, which the workflow keeps. An empty table
// stands for null there, and JSON's whole numbers are TOML's.

import { parseJson } from "@/lib/json";
import { isTable, type Table, type Value } from "./value";

type Rows = { rows: Table[]; error: null } | { rows: null; error: string };

/** TOML's largest whole number. JSON's may be larger. */
const WHOLE_MAX = 2n ** 63n - 1n;
/** The largest of a column of the type `u64`. */
const UNSIGNED_MAX = 2n ** 64n - 1n;

const isNull = (value: Value) => isTable(value) && Object.keys(value).length === 0;

/** Whole numbers as they are written, past what a float holds. */
function toToml(value: unknown): Value {
  if (value === null) return {};
  // To what a test expects it is the same as a text; what is given needs its type beside it: `typesOf`. As a float it would be
  // another number.
  if (typeof value === "bigint") return value > WHOLE_MAX || value < -WHOLE_MAX - 1n ? String(value) : value;
  if (typeof value === "number") return Number.isSafeInteger(value) ? BigInt(value) : value;
  if (Array.isArray(value)) return value.map(toToml);
  if (typeof value === "object")
    return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, toToml(each)]));
  return value as string | boolean;
}

/**
 * The types that a test has to name of what it is given, which a daemon sees in the numbers themselves: those past TOML's are
 * texts there. A test names a column's type for all of its sources, so none that is not `u64` throughout.
 */
export function typesOf(given: readonly string[]): Record<string, "u64"> {
  const past = new Set<string>();
  const other = new Set<string>();
  for (const line of given.flatMap((text) => text.split("\n")).filter((text) => text.trim() !== "")) {
    const written = parseJson(line) as Record<string, unknown>;
    for (const [column, value] of Object.entries(fromLines(line).rows?.[0] ?? {})) {
      const number = written[column];
      if (typeof number === "bigint" && number > WHOLE_MAX && number <= UNSIGNED_MAX) past.add(column);
      else if (!isNull(value) && !(typeof value === "bigint" && value >= 0n)) other.add(column);
    }
  }
  return Object.fromEntries([...past].filter((column) => !other.has(column)).map((column) => [column, "u64"]));
}

/** JSON, one record a line. */
export function fromLines(text: string): Rows {
  const rows: Table[] = [];
  for (const [index, line] of text.split("\n").entries()) {
    if (line.trim() === "") continue;
    let value: unknown;
    try {
      value = parseJson(line);
    } catch {
      return { rows: null, error: `Line ${index + 1} is not JSON.` };
    }
    const row = toToml(value);
    if (!isTable(row)) return { rows: null, error: `Line ${index + 1} is no record: write { … }.` };
    rows.push(floats(row, line));
  }
  return { rows, error: null };
}

/** `3.0` is a float in TOML and JSON alike, though JavaScript forgets it. */
function floats(row: Table, line: string): Table {
  const entries = Object.entries(row).map(([key, value]): [string, Value] => {
    if (typeof value !== "bigint") return [key, value];
    const mark = JSON.stringify(key).replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
    return [key, new RegExp(`${mark}\\s*:\\s*${value}\\.0`).test(line) ? Number(value) : value];
  });
  return Object.fromEntries(entries);
}

function toJson(value: Value): string {
  if (typeof value === "bigint") return String(value);
  if (typeof value === "number") return Number.isInteger(value) ? `${value}.0` : JSON.stringify(value);
  if (Array.isArray(value)) return `[${value.map(toJson).join(", ")}]`;
  if (!isTable(value)) return JSON.stringify(value);
  const entries = Object.entries(value).map(([key, each]) => `${JSON.stringify(key)}: ${toJson(each)}`);
  return entries.length === 0 ? "null" : `{ ${entries.join(", ")} }`;
}

const row = (value: Value) => (isNull(value) ? "{}" : toJson(value));

export const toLines = (value: Value | undefined) => (Array.isArray(value) ? value.map(row).join("\n") : "");
export const textLines = (value: Value | undefined) =>
  Array.isArray(value) ? value.filter((each) => typeof each === "string").join("\n") : "";
