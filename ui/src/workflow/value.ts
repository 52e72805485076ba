// Values of TOML, and how they are written. Whole numbers are bigint, all others number, as the parser tells them apart.

import { parse as parseToml, stringify, TomlDate, TomlError } from "smol-toml";

export type Value = string | bigint | number | boolean | TomlDate | Value[] | Table;
export interface Table {
  [key: string]: Value;
}

/** Longest array or table that is written on one line, in characters. */
const LINE_MAX = 100;

export const isTable = (value: unknown): value is Table =>
  typeof value === "object" && value !== null && !Array.isArray(value) && !(value instanceof TomlDate);

export type Parsed = { table: Table; error: null } | { table: null; error: { message: string; line: number } };

export function read(text: string): Parsed {
  try {
    return { table: parseToml(text, { integersAsBigInt: true }) as Table, error: null };
  } catch (cause) {
    if (!(cause instanceof TomlError)) throw cause;
    const message = cause.message.split("\n")[0]?.replace(/^Invalid TOML document: /, "") ?? "";
    return { table: null, error: { message, line: cause.line } };
  }
}

/** One value by itself, as it would stand after `=`; `undefined`: it is none. */
export function readValue(text: string): Value | undefined {
  if (/[\r\n]/.test(text.trim())) return undefined;
  return read(`v = ${text.trim()}`).table?.v;
}

export const isBare = (key: string) => /^[A-Za-z0-9_-]+$/.test(key);
export const writeKey = (key: string) => (isBare(key) ? key : writeString(key));

// biome-ignore lint/suspicious/noControlCharactersInRegex: TOML forbids them as they are
const CONTROL = /[\u0000-\u0008\u000b-\u001f\u007f]/;

function writeString(text: string) {
  return JSON.stringify(text).replaceAll("\u007f", "\\u007f");
}

function writeText(text: string) {
  if (!text.includes("\n") || CONTROL.test(text)) return writeString(text);
  if (!text.includes("'''") && !text.endsWith("'")) return `'''\n${text}'''`;
  return writeString(text);
}

function writeNumber(value: number) {
  if (Number.isNaN(value)) return "nan";
  if (!Number.isFinite(value)) return value > 0 ? "inf" : "-inf";
  const text = String(value);
  if (Object.is(value, -0)) return "-0.0";
  return /[.e]/.test(text) ? text : `${text}.0`;
}

/** A value as it stands after `=`. */
export function write(value: Value, indent = ""): string {
  if (typeof value === "string") return indent === "" ? writeText(value) : writeString(value);
  if (typeof value === "bigint" || typeof value === "boolean") return String(value);
  if (typeof value === "number") return writeNumber(value);
  if (value instanceof TomlDate) return stringify({ v: value }).trim().slice("v = ".length);
  if (Array.isArray(value)) {
    const items = value.map((item) => write(item, `${indent}  `));
    const line = `[${items.join(", ")}]`;
    if (line.length <= LINE_MAX || items.length < 2) return line;
    return `[\n${items.map((item) => `${indent}  ${item},\n`).join("")}${indent}]`;
  }
  const entries = Object.entries(value).map(([key, each]) => `${writeKey(key)} = ${write(each, `${indent}  `)}`);
  // A table in braces stays on its line: older readers of TOML know it no other way.
  return entries.length === 0 ? "{}" : `{ ${entries.join(", ")} }`;
}

export function same(a: Value | undefined, b: Value | undefined): boolean {
  if (a === b) return true;
  if (a === undefined || b === undefined) return false;
  if (typeof a === "number" && typeof b === "number") return Object.is(a, b);
  if (a instanceof TomlDate || b instanceof TomlDate) {
    return a instanceof TomlDate && b instanceof TomlDate && a.toISOString() === b.toISOString();
  }
  if (Array.isArray(a) || Array.isArray(b)) {
    return Array.isArray(a) && Array.isArray(b) && a.length === b.length && a.every((item, at) => same(item, b[at]));
  }
  if (!isTable(a) || !isTable(b)) return false;
  const keys = Object.keys(a);
  return keys.length === Object.keys(b).length && keys.every((key) => Object.hasOwn(b, key) && same(a[key], b[key]));
}

/** What stands at a path. */
export function at(table: Table, path: readonly string[]): Value | undefined {
  let here: Value | undefined = table;
  for (const key of path) {
    if (!isTable(here) || !Object.hasOwn(here, key)) return undefined;
    here = here[key];
  }
  return here;
}

/** The table with something else at a path; `undefined` takes it out. Tables on the way are made. */
export function withAt(table: Table, [key, ...rest]: readonly string[], value: Value | undefined): Table {
  if (key === undefined) return table;
  const copy = { ...table };
  if (rest.length > 0) {
    const inner = Object.hasOwn(copy, key) ? copy[key] : undefined;
    if (value === undefined && !isTable(inner)) return copy;
    copy[key] = withAt(isTable(inner) ? inner : {}, rest, value);
  } else if (value === undefined) delete copy[key];
  else copy[key] = value;
  return copy;
}
