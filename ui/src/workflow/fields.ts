// A component's settings as a form's fields, read from the JSON Schema of its config. Pure. What it does not understand
// becomes a field for a plain TOML value: everything can be edited.

import { isTable, type Value } from "./value";

export type Shape =
  | { kind: "text"; isLong: boolean }
  | { kind: "integer" | "number"; min: number | null; max: number | null }
  | { kind: "flag" }
  | { kind: "choice"; options: Choice[] }
  | { kind: "secret" }
  | { kind: "list"; item: Shape }
  | { kind: "map"; item: Shape }
  | { kind: "group"; fields: FormField[] }
  | { kind: "variants"; options: Variant[] }
  | { kind: "toml" };

export interface Choice {
  value: string;
  help: string;
}

/** One of several forms that a value may have. */
export interface Variant {
  label: string;
  help: string;
  shape: Shape;
  /** What it is before anything is written into it. */
  start: Value;
  matches: (value: Value) => boolean;
}

export interface FormField {
  key: string;
  help: string;
  isRequired: boolean;
  /** As it would be written; empty: nothing that could be said. */
  default: string;
  /** Of numbers, by the key's ending. */
  unit: string;
  shape: Shape;
}

interface Schema {
  $ref?: string;
  $defs?: Record<string, Schema>;
  type?: string | string[];
  description?: string;
  properties?: Record<string, Schema>;
  required?: string[];
  items?: Schema;
  additionalProperties?: boolean | Schema;
  enum?: unknown[];
  const?: unknown;
  oneOf?: Schema[];
  anyOf?: Schema[];
  default?: unknown;
  minimum?: number;
  maximum?: number;
  "x-outputs"?: string;
}

const DEPTH_MAX = 6;
/** Keys that hold more than a line. */
const LONG = new Set(["code", "query", "sql", "body", "template"]);
const UNITS: [suffix: string, unit: string][] = [
  ["_ms", "milliseconds"],
  ["_s", "seconds"],
  ["_bytes", "bytes"],
  ["_bytes_max", "bytes"],
  ["_mib", "MiB"],
  ["_rows_max", "rows"],
  ["_ms_max", "milliseconds"],
  ["_percent", "percent"],
];

function parse(text: string): Schema {
  try {
    return JSON.parse(text) as Schema;
  } catch {
    return {};
  }
}

/** A schema that others refer to, and by which name. */
function resolve(schema: Schema, root: Schema): { schema: Schema; name: string } {
  const name = schema.$ref?.replace("#/$defs/", "") ?? "";
  const found = root.$defs?.[name];
  return found ? { schema: { ...found, ...schema }, name } : { schema, name: "" };
}

const isNull = (schema: Schema) => schema.type === "null" || schema.const === null;
const typesOf = ({ type }: Schema) => [type ?? []].flat().filter((each) => each !== "null");

function shapeOf(given: Schema, root: Schema, key: string, depth: number): Shape {
  const { schema, name } = resolve(given, root);
  if (depth > DEPTH_MAX) return { kind: "toml" };
  if (name === "SecretRef") return { kind: "secret" };
  const listed = schema.enum?.filter((value) => typeof value === "string");
  if (listed?.length) return { kind: "choice", options: listed.map((value) => ({ value, help: "" })) };
  const choices = (schema.oneOf ?? schema.anyOf)?.filter((choice) => !isNull(choice));
  if (choices?.length === 1 && choices[0]) return shapeOf(choices[0], root, key, depth + 1);
  if (choices?.length) return alternatives(choices, root, key, depth);
  const types = typesOf(schema);
  if (types.length > 1) {
    return alternatives(
      types.map((type) => ({ ...schema, type })),
      root,
      key,
      depth,
    );
  }
  switch (types[0]) {
    case "string":
      return { kind: "text", isLong: LONG.has(key) };
    case "boolean":
      return { kind: "flag" };
    case "integer":
    case "number":
      return { kind: types[0], min: schema.minimum ?? null, max: schema.maximum ?? null };
    case "array":
      return { kind: "list", item: shapeOf(schema.items ?? {}, root, "", depth + 1) };
    case "object":
      if (schema.properties) return { kind: "group", fields: fieldsIn(schema, root, depth + 1) };
      if (typeof schema.additionalProperties === "object") {
        return { kind: "map", item: shapeOf(schema.additionalProperties, root, "", depth + 1) };
      }
      return { kind: "toml" };
    default:
      return { kind: "toml" };
  }
}

function alternatives(choices: Schema[], root: Schema, key: string, depth: number): Shape {
  const all = choices.map((choice) => resolve(choice, root).schema);
  if (all.every((choice) => typeof choice.const === "string")) {
    const options = all.map((choice) => ({ value: String(choice.const), help: choice.description ?? "" }));
    return { kind: "choice", options };
  }
  return { kind: "variants", options: all.map((choice) => variant(choice, root, key, depth + 1)) };
}

/** The key by which one form of a table is told from the others. */
function tagOf(schema: Schema): { key: string; value: string | null } | null {
  const required = schema.required ?? [];
  for (const key of required) {
    const fixed = schema.properties?.[key]?.const;
    if (typeof fixed === "string") return { key, value: fixed };
  }
  const key = required[0];
  return key === undefined ? null : { key, value: null };
}

function variant(schema: Schema, root: Schema, key: string, depth: number): Variant {
  const help = schema.description ?? "";
  if (typeof schema.const === "string") {
    const fixed = schema.const;
    const shape: Shape = { kind: "choice", options: [{ value: fixed, help }] };
    return { label: fixed, help, shape, start: fixed, matches: (value) => value === fixed };
  }
  const shape = shapeOf(schema, root, key, depth);
  if (shape.kind === "group") {
    const tag = tagOf(schema);
    if (tag) {
      const matches = (value: Value) =>
        isTable(value) && Object.hasOwn(value, tag.key) && (tag.value === null || value[tag.key] === tag.value);
      const inner = shape.fields.find((field) => field.key === tag.key)?.shape;
      const start = { [tag.key]: tag.value ?? startOf(inner ?? { kind: "toml" }) };
      return { label: tag.value ?? tag.key, help, shape, start, matches };
    }
    return { label: "table", help, shape, start: {}, matches: isTable };
  }
  const { label, matches } = WORDS[shape.kind];
  return { label, help, shape, start: startOf(shape), matches };
}

const isInteger = (value: Value) => typeof value === "bigint";
const isText = (value: Value) => typeof value === "string";
const WORDS: Record<Shape["kind"], { label: string; matches: (value: Value) => boolean }> = {
  text: { label: "text", matches: isText },
  integer: { label: "whole number", matches: isInteger },
  number: { label: "number", matches: (value) => isInteger(value) || typeof value === "number" },
  flag: { label: "true or false", matches: (value) => typeof value === "boolean" },
  choice: { label: "choice", matches: isText },
  secret: { label: "secret", matches: (value) => isText(value) || isTable(value) },
  list: { label: "list", matches: Array.isArray },
  map: { label: "table", matches: isTable },
  group: { label: "table", matches: isTable },
  variants: { label: "value", matches: () => true },
  toml: { label: "TOML", matches: () => true },
};

/** What a value of a shape is before anything is written into it. */
export function startOf(shape: Shape): Value {
  switch (shape.kind) {
    case "integer":
      return BigInt(Math.ceil(shape.min ?? 0));
    case "number":
      return shape.min ?? 0;
    case "flag":
      return true;
    case "choice":
      return shape.options[0]?.value ?? "";
    case "list":
      return [];
    case "map":
      return {};
    case "group":
      return Object.fromEntries(
        shape.fields.filter((field) => field.isRequired).map((field) => [field.key, startOf(field.shape)]),
      );
    case "variants":
      return shape.options[0]?.start ?? "";
    default:
      return "";
  }
}

/** Whether a value can be edited as this shape; what cannot is shown as it is written. */
export function fits(shape: Shape, value: Value): boolean {
  if (shape.kind === "variants") return shape.options.some((option) => option.matches(value));
  return WORDS[shape.kind].matches(value);
}

function writeDefault(value: unknown) {
  if (value === undefined || value === null || value === "") return "";
  if (typeof value === "object" && Object.keys(value).length === 0) return "";
  return typeof value === "string" ? value : JSON.stringify(value);
}

function fieldsIn(schema: Schema, root: Schema, depth: number): FormField[] {
  return Object.entries(schema.properties ?? {}).map(([key, given]) => {
    const { schema: property } = resolve(given, root);
    return {
      key,
      help: (property.description ?? "").replaceAll(/\s*\n\s*/g, " "),
      isRequired: schema.required?.includes(key) ?? false,
      default: writeDefault(property.default),
      unit: UNITS.find(([suffix]) => key.endsWith(suffix))?.[1] ?? "",
      shape: shapeOf(given, root, key, depth),
    };
  });
}

/** The fields of a component's form, required ones first. */
export function formOf(schema: string): FormField[] {
  const root = parse(schema);
  const fields = fieldsIn(root, root, 0);
  return [...fields.filter(({ isRequired }) => isRequired), ...fields.filter(({ isRequired }) => !isRequired)];
}

/** Under which key a component's config names its outputs; `null`: it has one. */
export const outputsKey = (schema: string) => parse(schema)["x-outputs"] ?? null;

/** The outputs of a node of such a component, and the one for the rest. */
export function outputsOf(key: string, keys: Record<string, Value>): string[] {
  const named = keys[key];
  return [...(isTable(named) ? Object.keys(named) : []), "else"];
}
