// Where in a TOML text each header, key and value stands. Reads only as much of the language as that takes: what a value
// is, the parser says. Expects a text that the parser has accepted.

export interface Span {
  start: number;
  end: number;
}

/** One part of a dotted key, and where it stands. */
export interface KeyPart extends Span {
  key: string;
}

export interface KeyValue {
  kind: "key";
  /** Relative to its header. */
  parts: KeyPart[];
  /** With the header's. */
  path: string[];
  value: Span;
  /** The whole of its lines, comment and line end included. */
  lines: Span;
}

export interface Header {
  kind: "header";
  isArray: boolean;
  parts: KeyPart[];
  path: string[];
  /** The header's own line, line end included. */
  lines: Span;
}

/** A header with what stands below it, up to the next; the first one has no header. */
export interface Block {
  header: Header | null;
  keys: KeyValue[];
  /** From the comments right above the header to those of the next one. */
  span: Span;
}

class Scanner {
  at = 0;
  constructor(readonly text: string) {}

  get isEnd() {
    return this.at >= this.text.length;
  }

  peek = (ahead = 0) => this.text[this.at + ahead] ?? "";
  starts = (what: string) => this.text.startsWith(what, this.at);

  skipBlanks() {
    while (this.peek() === " " || this.peek() === "\t") this.at += 1;
  }

  skipLine() {
    const next = this.text.indexOf("\n", this.at);
    this.at = next < 0 ? this.text.length : next + 1;
  }

  /** Blanks, line ends and comments, as they may stand inside brackets. */
  skipSpace() {
    for (;;) {
      if (/\s/.test(this.peek()) && !this.isEnd) this.at += 1;
      else if (this.peek() === "#") this.skipLine();
      else return;
    }
  }

  string() {
    const quote = this.peek();
    const isLong = this.starts(quote.repeat(3));
    const fence = isLong ? quote.repeat(3) : quote;
    this.at += fence.length;
    while (!this.isEnd && !this.starts(fence)) this.at += quote === '"' && this.peek() === "\\" ? 2 : 1;
    this.at += fence.length;
    // Up to two quotes may stand right before the fence.
    if (isLong) for (let extra = 0; extra < 2 && this.peek() === quote; extra += 1) this.at += 1;
  }

  value(): Span {
    const start = this.at;
    const first = this.peek();
    if (first === '"' || first === "'") this.string();
    else if (first === "[" || first === "{") this.brackets();
    else {
      while (!this.isEnd && !/[,\]}#\n\r]/.test(this.peek())) this.at += 1;
      const end = start + this.text.slice(start, this.at).trimEnd().length;
      return { start, end };
    }
    return { start, end: this.at };
  }

  brackets() {
    let depth = 0;
    do {
      const here = this.peek();
      if (here === '"' || here === "'") this.string();
      else if (here === "#") this.skipLine();
      else {
        if (here === "[" || here === "{") depth += 1;
        if (here === "]" || here === "}") depth -= 1;
        this.at += 1;
      }
    } while (depth > 0 && !this.isEnd);
  }

  key(): KeyPart[] {
    const parts: KeyPart[] = [];
    for (;;) {
      this.skipBlanks();
      const start = this.at;
      const quote = this.peek();
      if (quote === '"' || quote === "'") {
        this.string();
        parts.push({ key: unquoted(this.text.slice(start, this.at)), start, end: this.at });
      } else {
        while (/[A-Za-z0-9_-]/.test(this.peek())) this.at += 1;
        parts.push({ key: this.text.slice(start, this.at), start, end: this.at });
      }
      this.skipBlanks();
      if (this.peek() !== "." || this.isEnd) return parts;
      this.at += 1;
    }
  }
}

const ESCAPES: Record<string, string> = { b: "\b", t: "\t", n: "\n", f: "\f", r: "\r", e: "\x1b" };

/** What a one-line string literal says. */
export function unquoted(literal: string) {
  const inner = literal.slice(1, -1);
  if (literal[0] !== '"') return inner;
  return inner.replace(/\\(u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|x[0-9a-fA-F]{2}|.)/g, (_, code: string) =>
    code.length > 1 ? String.fromCodePoint(Number.parseInt(code.slice(1), 16)) : (ESCAPES[code] ?? code),
  );
}

/** A text cut into its blocks. Together their spans are the whole text. */
export function scan(text: string): Block[] {
  const scanner = new Scanner(text);
  let block: Block = { header: null, keys: [], span: { start: 0, end: text.length } };
  const blocks = [block];
  /** Where the comments begin that stand right above what comes next. */
  let comments: number | null = null;
  while (!scanner.isEnd) {
    const start = scanner.at;
    scanner.skipBlanks();
    const first = scanner.peek();
    if (first === "#") {
      comments ??= start;
      scanner.skipLine();
      continue;
    }
    if (first === "\n" || first === "\r" || scanner.isEnd) {
      comments = null;
      scanner.skipLine();
      continue;
    }
    if (first === "[") {
      const isArray = scanner.peek(1) === "[";
      scanner.at += isArray ? 2 : 1;
      const parts = scanner.key();
      scanner.skipLine();
      const path = parts.map(({ key }) => key);
      const begin = comments ?? start;
      block.span.end = begin;
      const header: Header = { kind: "header", isArray, parts, path, lines: { start, end: scanner.at } };
      block = { header, keys: [], span: { start: begin, end: text.length } };
      blocks.push(block);
    } else {
      const parts = scanner.key();
      scanner.at += 1;
      scanner.skipBlanks();
      const value = scanner.value();
      scanner.skipLine();
      const path = [...(block.header?.path ?? []), ...parts.map(({ key }) => key)];
      block.keys.push({ kind: "key", parts, path, value, lines: { start, end: scanner.at } });
    }
    comments = null;
  }
  return blocks;
}

/** The strings inside a value, as they stand there; those over several lines are left out. */
export function stringsIn(text: string, { start, end }: Span): KeyPart[] {
  const scanner = new Scanner(text);
  scanner.at = start;
  const found: KeyPart[] = [];
  while (scanner.at < end) {
    const here = scanner.peek();
    if (here === "#") scanner.skipLine();
    else if (here === '"' || here === "'") {
      const from = scanner.at;
      const isLong = scanner.starts(here.repeat(3));
      scanner.string();
      if (!isLong) found.push({ key: unquoted(text.slice(from, scanner.at)), start: from, end: scanner.at });
    } else scanner.at += 1;
  }
  return found;
}
