// JSON with whole numbers of any size: past what JavaScript's numbers hold they are bigint, here and back. Pure.

/** A string, or a number; `colon`: it is a key. */
const TOKEN = /"(?:[^"\\]|\\.)*"(\s*:)?|-?\d[\d.eE+-]*(\s*:)?/g;
const WHOLE = /^-?(?:0|[1-9]\d*)$/;
/** What a string begins with that stands for a number. Those that begin so themselves get one more. */
const MARK = "\\u0000";

function marked(token: string, afterText?: string, afterNumber?: string) {
  if (afterText !== undefined || afterNumber !== undefined) return token;
  if (token.startsWith('"')) return token.startsWith(`"${MARK}`) ? `"${MARK}${token.slice(1)}` : token;
  return WHOLE.test(token) && !Number.isSafeInteger(Number(token)) ? `"${MARK}${token}"` : token;
}

function unmarked(_: string, value: unknown) {
  if (typeof value !== "string" || !value.startsWith("\0")) return value;
  const rest = value.slice(1);
  return rest.startsWith("\0") ? rest : BigInt(rest);
}

/** Like `JSON.parse`, and whole numbers that it would round are bigint. */
export const parseJson = (text: string): unknown => JSON.parse(text.replace(TOKEN, marked), unmarked);

/** Like `JSON.stringify`, of what `parseJson` gives. */
export function jsonOf(value: unknown): string {
  if (typeof value === "bigint") return String(value);
  if (Array.isArray(value)) return `[${value.map(jsonOf).join(",")}]`;
  if (typeof value !== "object" || value === null) return JSON.stringify(value) ?? "null";
  return `{${Object.entries(value)
    .map(([key, each]) => `${JSON.stringify(key)}:${jsonOf(each)}`)
    .join(",")}}`;
}
