// A component's settings, read from the JSON Schema of its config as daemons tell it. Pure; what it does not understand it
// leaves out rather than guess.

export interface Setting {
  /** With dots, for settings inside settings. */
  name: string;
  type: string;
  isRequired: boolean;
  /** As it is written; empty: none, or nothing. */
  default: string;
  description: string;
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
}

const DEPTH_MAX = 3;
const WORDS: Record<string, string> = {
  integer: "number",
  number: "number",
  string: "text",
  boolean: "true or false",
  object: "table",
  array: "list",
};

function parse(text: string): Schema {
  try {
    return JSON.parse(text) as Schema;
  } catch {
    return {};
  }
}

function resolve(schema: Schema, root: Schema): Schema {
  const name = schema.$ref?.replace("#/$defs/", "");
  const found = name === undefined ? undefined : root.$defs?.[name];
  // What stands beside the reference is nearer to the setting than what it refers to.
  return found ? { ...found, ...schema } : schema;
}

const isNull = (schema: Schema) => schema.type === "null" || schema.const === null;

function typeOf(given: Schema, root: Schema, depth = 0): string {
  const schema = resolve(given, root);
  if (depth > DEPTH_MAX) return "…";
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.enum)
    return schema.enum
      .filter((value) => value !== null)
      .map((value) => JSON.stringify(value))
      .join(" | ");
  const choices = (schema.oneOf ?? schema.anyOf)?.filter((choice) => !isNull(choice));
  if (choices) return [...new Set(choices.map((choice) => typeOf(choice, root, depth + 1)))].join(" | ");
  const types = (Array.isArray(schema.type) ? schema.type : [schema.type ?? ""]).filter((type) => type !== "null");
  return types
    .map((type) => {
      if (type === "array" && schema.items) return `list of ${typeOf(schema.items, root, depth + 1)}`;
      if (type === "object" && schema.properties) {
        return `{ ${Object.keys(schema.properties).join(", ")} }`;
      }
      if (type === "object" && typeof schema.additionalProperties === "object") {
        return `table of ${typeOf(schema.additionalProperties, root, depth + 1)}`;
      }
      return WORDS[type] ?? type;
    })
    .join(" | ");
}

function isEmpty(value: unknown) {
  if (value === undefined || value === null || value === "") return true;
  return typeof value === "object" && Object.keys(value).length === 0;
}

function walk(schema: Schema, root: Schema, prefix: string, depth: number): Setting[] {
  return Object.entries(schema.properties ?? {}).flatMap(([key, given]) => {
    const property = resolve(given, root);
    const name = `${prefix}${key}`;
    const setting: Setting = {
      name,
      type: typeOf(property, root),
      isRequired: schema.required?.includes(key) ?? false,
      default: isEmpty(property.default) ? "" : JSON.stringify(property.default),
      description: property.description ?? "",
    };
    const inner = property.properties && depth < DEPTH_MAX ? walk(property, root, `${name}.`, depth + 1) : [];
    return [inner.length > 0 ? { ...setting, type: "table", default: "" } : setting, ...inner];
  });
}

/** The settings, required ones first. */
export function settingsOf(text: string): Setting[] {
  const root = parse(text);
  const settings = walk(root, root, "", 1);
  return [...settings.filter(({ isRequired }) => isRequired), ...settings.filter(({ isRequired }) => !isRequired)];
}

/** What the component says about itself at length. */
export const descriptionOf = (text: string) => parse(text).description ?? "";
