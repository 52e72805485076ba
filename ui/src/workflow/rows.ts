// Records of tests as lines of JSON, which people have and can paste, and as TOML, which the workflow keeps. An empty table
// stands for null there, and JSON's whole numbers are TOML's.

import { parseJson } from "@/lib/json";
import { isTable, type Table, type Value } from "./value";

type Rows = { rows: Table[]; error: null } | { rows: null; error: string };

/** TOML's largest whole number. JSON's may be larger. */
const WHOLE_MAX = 2n ** 63n - 1n;

/** Whole numbers as they are written, past what a float holds. */
function toToml(value: unknown): Value {
  if (value === null) return {};
  // As a text it is the same to a test; as a float it would be another number.
  if (typeof value === "bigint") return value > WHOLE_MAX || value < -WHOLE_MAX - 1n ? String(value) : value;
  if (typeof value === "number") return Number.isSafeInteger(value) ? BigInt(value) : value;
  if (Array.isArray(value)) return value.map(toToml);
  if (typeof value === "object")
    return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, toToml(each)]));
  return value as string | boolean;
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

const row = (value: Value) => (isTable(value) && Object.keys(value).length === 0 ? "{}" : toJson(value));

export const toLines = (value: Value | undefined) => (Array.isArray(value) ? value.map(row).join("\n") : "");
export const textLines = (value: Value | undefined) =>
  Array.isArray(value) ? value.filter((each) => typeof each === "string").join("\n") : "";
