// What differs between two texts of a workflow: line by line, and as settings of its nodes. Pure.

export interface DiffLine {
  kind: "same" | "added" | "removed";
  text: string;
  /** Its number in the older text; 0: it is not there. */
  before: number;
  /** Its number in the newer text; 0: it is not there. */
  after: number;
}

/** Larger texts are compared as a whole: the table of all pairs would not fit. */
const PAIRS_MAX = 4_000_000;

/** The longest common subsequence decides what stayed. */
export function diffLines(older: string, newer: string): DiffLine[] {
  const [a, b] = [older.split("\n"), newer.split("\n")];
  const width = b.length + 1;
  const isTooLarge = a.length * b.length > PAIRS_MAX;
  const common = new Uint32Array(isTooLarge ? 0 : (a.length + 1) * width);
  const at = (i: number, j: number) => common[i * width + j] ?? 0;
  if (!isTooLarge) {
    for (let i = a.length - 1; i >= 0; i -= 1) {
      for (let j = b.length - 1; j >= 0; j -= 1) {
        common[i * width + j] = a[i] === b[j] ? at(i + 1, j + 1) + 1 : Math.max(at(i + 1, j), at(i, j + 1));
      }
    }
  }
  const lines: DiffLine[] = [];
  let [i, j] = [0, 0];
  while (i < a.length || j < b.length) {
    const [left, right] = [a[i], b[j]];
    if (left !== undefined && left === right) {
      lines.push({ kind: "same", text: left, before: ++i, after: ++j });
    } else if (left !== undefined && (right === undefined || at(i + 1, j) >= at(i, j + 1))) {
      lines.push({ kind: "removed", text: left, before: ++i, after: 0 });
    } else if (right !== undefined) {
      lines.push({ kind: "added", text: right, before: 0, after: ++j });
    }
  }
  return lines;
}

/** The changed lines with some around them; `null` stands for lines left out. */
export function hunks(lines: readonly DiffLine[], around = 3): (DiffLine | null)[] {
  const isNear = lines.map((_, at) =>
    lines.slice(Math.max(0, at - around), at + around + 1).some(({ kind }) => kind !== "same"),
  );
  const shown: (DiffLine | null)[] = [];
  lines.forEach((line, at) => {
    if (isNear[at]) shown.push(line);
    else if (shown.at(-1) !== null) shown.push(null);
  });
  return shown;
}

export interface Change {
  /** `sources.orders`, or empty for the workflow's own settings. */
  node: string;
  /** Empty: the whole node came or went. */
  setting: string;
  before: string | null;
  after: string | null;
}

/** Settings by node. Reads lines, not TOML: a value over several lines belongs to its setting as it stands. */
function settings(text: string): Map<string, Map<string, string>> {
  const nodes = new Map<string, Map<string, string>>([["", new Map()]]);
  let node = nodes.get("") ?? new Map<string, string>();
  let last = "";
  for (const raw of text.split("\n")) {
    const line = raw.trim();
    if (line === "" || line.startsWith("#")) continue;
    const header = /^\[+([^\]]+)\]+$/.exec(line)?.[1];
    const [, key, value] = /^([\w."' -]+?)\s*=\s*(.*)$/.exec(line) ?? [];
    if (header !== undefined) {
      node = nodes.get(header) ?? new Map<string, string>();
      nodes.set(header, node);
      last = "";
    } else if (key !== undefined && value !== undefined && !/^["']/.test(line)) {
      node.set(key, value);
      last = key;
    } else if (last !== "") {
      node.set(last, `${node.get(last) ?? ""} ${line}`);
    }
  }
  return nodes;
}

/** What changed, node by node; comments, order and blank lines are nothing. */
export function changes(older: string, newer: string): Change[] {
  const [before, after] = [settings(older), settings(newer)];
  const found: Change[] = [];
  for (const node of new Set([...before.keys(), ...after.keys()])) {
    const [left, right] = [before.get(node), after.get(node)];
    if (!left || !right) {
      const type = (right ?? left)?.get("type") ?? "";
      found.push({ node, setting: "", before: left ? type : null, after: right ? type : null });
      continue;
    }
    for (const setting of new Set([...left.keys(), ...right.keys()])) {
      const [was, is] = [left.get(setting) ?? null, right.get(setting) ?? null];
      if (was !== is) found.push({ node, setting, before: was, after: is });
    }
  }
  return found;
}
