// Changes one value of a TOML text and leaves every other byte as it was: comments, order, blank lines. Pure. Expects a text
// that the parser accepts.

import { type Block, type KeyValue, scan } from "./scan";
import { at, isTable, read, same, type Table, type Value, withAt, write, writeKey } from "./value";

export type Path = readonly string[];

const startsWith = (path: Path, prefix: Path) =>
  path.length >= prefix.length && prefix.every((key, index) => path[index] === key);
const isSame = (a: Path, b: Path) => a.length === b.length && startsWith(a, b);

export const replace = (text: string, start: number, end: number, by: string) =>
  text.slice(0, start) + by + text.slice(end);

const tableOf = (text: string): Table => read(text).table ?? {};
const allKeys = (blocks: Block[]) => blocks.flatMap((block) => block.keys);

/** The key whose value in brackets or braces holds the path. */
const holderOf = (blocks: Block[], path: Path) =>
  allKeys(blocks).find((each) => each.path.length < path.length && startsWith(path, each.path));

/** Whether the path, or what it is in, is an array of `[[tables]]`; such are written anew as a whole. */
const arrayOf = (blocks: Block[], path: Path) =>
  blocks.find(({ header }) => header?.isArray && startsWith(path, header.path))?.header?.path;

function removeBlocks(text: string, isGone: (block: Block) => boolean) {
  return scan(text)
    .filter((block) => !isGone(block))
    .map(({ span }) => text.slice(span.start, span.end))
    .join("");
}

const removeKey = (text: string, key: KeyValue) => replace(text, key.lines.start, key.lines.end, "");

/** The text without what stands at a path. */
export function remove(text: string, path: Path): string {
  const table = tableOf(text);
  if (at(table, path) === undefined) return text;
  const blocks = scan(text);
  const array = arrayOf(blocks, path);
  if (array && array.length < path.length) {
    return set(text, array, at(withAt(table, path, undefined), array) ?? []);
  }
  const holder = holderOf(blocks, path);
  if (holder) {
    const rest = withAt(table, path, undefined);
    return replace(text, holder.value.start, holder.value.end, write(at(rest, holder.path) ?? {}));
  }
  const above = path.slice(0, -1);
  let out = removeBlocks(text, ({ header }) => header !== null && startsWith(header.path, path));
  for (;;) {
    const key = allKeys(scan(out)).find((each) => startsWith(each.path, path));
    if (!key) break;
    out = removeKey(out, key);
  }
  // What held nothing else is still there, only empty: the file says what the table says.
  if (above.length > 1 && at(tableOf(out), above) === undefined) out = insert(out, above, {});
  return out;
}

/** Where a new key of a block goes: after its last key, or right below its header. */
const endOfKeys = (block: Block) => block.keys.at(-1)?.lines.end ?? block.header?.lines.end ?? 0;

function insertLine(text: string, offset: number, line: string) {
  const needsBreak = offset > 0 && text[offset - 1] !== "\n";
  return replace(text, offset, offset, `${needsBreak ? "\n" : ""}${line}\n`);
}

/** A key at a path where there is none, in the innermost table that is there. */
function insert(text: string, path: Path, value: Value): string {
  const blocks = scan(text);
  for (let depth = path.length - 1; depth >= 0; depth -= 1) {
    const table = path.slice(0, depth);
    const rest = path.slice(depth);
    const own = depth === 0 ? blocks[0] : blocks.find(({ header }) => header && isSame(header.path, table));
    // Sections are written with headers of their own; the text's top is for its name.
    if (own && !(depth === 0 && rest.length > 1)) {
      const [key = "", ...inner] = rest;
      return insertLine(text, endOfKeys(own), `${writeKey(key)} = ${write(nested(inner, value))}`);
    }
    // Made by dotted keys: one more of them, beside the last.
    const isDotted = (block: Block) => (key: KeyValue) =>
      depth > (block.header?.path.length ?? 0) && key.path.length > depth && startsWith(key.path, table);
    const dotted = blocks.find((block) => block.keys.some(isDotted(block)));
    const last = dotted?.keys.findLast(isDotted(dotted));
    if (dotted && last) {
      const above = dotted.header?.path.length ?? 0;
      const key = path
        .slice(above, depth + 1)
        .map(writeKey)
        .join(".");
      return insertLine(text, last.lines.end, `${key} = ${write(nested(rest.slice(1), value))}`);
    }
    const below = blocks.find(({ header }) => header && startsWith(header.path, table) && depth > 1);
    if (below) {
      const [key = "", ...inner] = rest;
      const header = `[${table.map(writeKey).join(".")}]\n`;
      const line = `${writeKey(key)} = ${write(nested(inner, value))}\n\n`;
      return replace(text, below.span.start, below.span.start, header + line);
    }
  }
  const section = path.length > 2 ? path.slice(0, 2) : path.slice(0, 1);
  return appendSection(text, section, { [path[section.length] ?? ""]: nested(path.slice(section.length + 1), value) });
}

const nested = (path: Path, value: Value): Value => path.reduceRight<Value>((inner, key) => ({ [key]: inner }), value);

/** In which order sections stand in a workflow. */
const ORDER = ["name", "sources", "transforms", "destinations", "tests"];

/** A new section with its header, behind the others of its kind. */
export function appendSection(text: string, path: Path, table: Table): string {
  if (holderOf(scan(text), path)) return set(text, path, table);
  const lines = Object.entries(table).map(([key, value]) => `${writeKey(key)} = ${write(value)}\n`);
  const section = `[${path.map(writeKey).join(".")}]\n${lines.join("")}`;
  const rank = (kind: string | undefined) => {
    const found = ORDER.indexOf(kind ?? "");
    return found < 0 ? ORDER.length : found;
  };
  const blocks = scan(text);
  const before = blocks.findLast(({ header }) => !header || rank(header.path[0]) <= rank(path[0]));
  const offset = before?.span.end ?? text.length;
  const above = text.slice(0, offset);
  const below = text.slice(offset);
  const gap = above.trim() === "" ? "" : above.endsWith("\n\n") ? "" : above.endsWith("\n") ? "\n" : "\n\n";
  return `${above}${gap}${section}${below === "" ? "" : "\n"}${below}`;
}

/** The text with another value at a path. Nothing is touched where the value is the same already. */
export function set(text: string, path: Path, value: Value): string {
  const table = tableOf(text);
  const before = at(table, path);
  if (same(before, value)) return text;
  const blocks = scan(text);
  const array = arrayOf(blocks, path);
  if (array) {
    const whole = at(withAt(table, path, value), array);
    const out = removeBlocks(text, ({ header }) => header !== null && startsWith(header.path, array));
    return insert(out, array, array.length === path.length ? value : (whole ?? []));
  }
  const exact = allKeys(blocks).find((key) => isSame(key.path, path));
  if (exact) return replace(text, exact.value.start, exact.value.end, write(value));
  const holder = holderOf(blocks, path);
  if (holder) {
    const whole = at(withAt(table, path, value), holder.path);
    return replace(text, holder.value.start, holder.value.end, write(whole ?? {}));
  }
  if (before === undefined) return insert(text, path, value);
  // A table over several lines: key by key, so that what stays keeps its comments.
  if (isTable(before) && isTable(value)) {
    let out = text;
    for (const key of Object.keys(before)) if (!Object.hasOwn(value, key)) out = remove(out, [...path, key]);
    for (const [key, each] of Object.entries(value)) out = set(out, [...path, key], each);
    return out;
  }
  return insert(remove(text, path), path, value);
}
