// The selector language of daemons, as the plane and the command line have it (plane/src/domain/labels.rs): terms that all
// have to hold, a minus turns one around. A bare word is this page's own shorthand for a part of the name.

import type { DaemonView, Presence } from "@/api/types";

export interface Candidate {
  view: Pick<DaemonView, "name" | "presence" | "version">;
  labels: Readonly<Record<string, string>>;
  /** Names of the workflows in its plan. */
  runs: readonly string[];
}

type Test = (candidate: Candidate) => boolean;
type Parsed = { test: Test; error: null } | { test: null; error: string };

const SELECTOR_BYTES_MAX = 1024;
const PRESENCES: readonly string[] = ["online", "late", "offline", "unknown"] satisfies Presence[];
const LABEL_KEY = /^[a-zA-Z0-9][a-zA-Z0-9._/-]*$/;
const LABEL_VALUE = /^[a-zA-Z0-9._/-]{1,64}$/;
/** No term has one of these, so a word without them is a part of a name. */
const IS_BARE = /^-?[^:=!<>*\s]+$/;

/** What is typed, as the plane and the command line take it. */
export function asSelector(typed: string) {
  const terms = typed.split(/\s+/).filter(Boolean);
  return terms
    .map((term) => {
      if (!IS_BARE.test(term) || term === "-") return term;
      return term.startsWith("-") ? `-name:*${term.slice(1)}*` : `name:*${term}*`;
    })
    .join(" ");
}

/** `*` stands for anything, nothing included. */
export function matchesPattern(text: string, pattern: string) {
  const parts = pattern.split("*");
  const first = parts[0] ?? "";
  if (!text.startsWith(first)) return false;
  if (parts.length === 1) return text === first;
  let rest = text.slice(first.length);
  for (const part of parts.slice(1, -1)) {
    const at = rest.indexOf(part);
    if (at < 0) return false;
    rest = rest.slice(at + part.length);
  }
  return rest.endsWith(parts.at(-1) ?? "");
}

/** `1.20.3-rc1` as 1, 20, 3: what follows the numbers is not compared. */
function numbers(version: string) {
  const found: number[] = [];
  for (const part of version.split(".")) {
    const digits = /^\d+/.exec(part)?.[0];
    if (digits === undefined) break;
    found.push(Number(digits));
  }
  return found;
}

/** Compares as many numbers as the wanted version names, so that 0.4.7 is 0.4 and not above it. */
export function compareVersions(found: readonly number[], wanted: readonly number[]) {
  for (const [at, number] of wanted.entries()) {
    const difference = (found[at] ?? 0) - number;
    if (difference !== 0) return difference;
  }
  return 0;
}

const COMPARISONS: readonly (readonly [sign: string, holds: (order: number) => boolean])[] = [
  ["<=", (order) => order <= 0],
  [">=", (order) => order >= 0],
  ["<", (order) => order < 0],
  [">", (order) => order > 0],
  ["=", (order) => order === 0],
  ["", (order) => order === 0],
];

function versionTest(text: string): Test | null {
  const [sign, holds] = COMPARISONS.find(([each]) => text.startsWith(each)) ?? ["", () => false];
  const wanted = numbers(text.slice(sign.length));
  if (wanted.length === 0) return null;
  return ({ view }) => {
    const found = numbers(view.version);
    return found.length > 0 && holds(compareVersions(found, wanted));
  };
}

/** What names of groups stand for. */
export type Groups = ReadonlyMap<string, string>;

/** A group is not made of groups. */
function groupTest(name: string, groups: Groups): Test | string {
  const selector = groups.get(name);
  if (selector === undefined) return `there is no group “${name}”`;
  return parseSelector(selector).test ?? `this page cannot read the group’s selector “${selector}”`;
}

function fieldTest(field: string, value: string, groups: Groups): Test | string {
  switch (value === "" ? "" : field) {
    case "group":
      return groupTest(value, groups);
    case "label":
      return ({ labels }) => labels[value] !== undefined;
    case "name":
      return ({ view }) => matchesPattern(view.name, value);
    case "runs":
      return ({ runs }) => runs.some((name) => matchesPattern(name, value));
    case "presence":
      if (!PRESENCES.includes(value)) return "write presence:online, late, offline or unknown";
      return ({ view }) => view.presence === value;
    case "version":
      return versionTest(value) ?? "write for example version:<0.4";
    default:
      return "write label:, name:, presence:, version:, runs: or group: and a value";
  }
}

function term(text: string, groups: Groups): Parsed {
  const isWanted = !text.startsWith("-");
  const body = isWanted ? text : text.slice(1);
  const wrong = (how: string): Parsed => ({ test: null, error: `“${text}” is no term of a filter: ${how}` });
  const turned = (test: Test): Parsed => ({ test: (each) => test(each) === isWanted, error: null });
  // A field comes before a label, because versions may contain '='.
  const colon = body.indexOf(":");
  if (colon >= 0) {
    const test = fieldTest(body.slice(0, colon), body.slice(colon + 1), groups);
    return typeof test === "string" ? wrong(test) : turned(test);
  }
  const label = /^([^=!]+)(!?=)(.+)$/.exec(body);
  const [, key = "", sign, value = ""] = label ?? [];
  if (!LABEL_KEY.test(key) || !LABEL_VALUE.test(value)) {
    return wrong("write for example site=berlin, label:site or name:gw-*");
  }
  return turned(({ labels }) => (labels[key] === value) === (sign === "="));
}

const NO_GROUPS: Groups = new Map();

/** A test for what is typed, or what is wrong with it. */
export function parseSelector(typed: string, groups: Groups = NO_GROUPS): Parsed {
  const selector = asSelector(typed);
  if (selector.length > SELECTOR_BYTES_MAX) {
    return { test: null, error: `the filter is longer than ${SELECTOR_BYTES_MAX} bytes` };
  }
  const tests: Test[] = [];
  for (const each of selector.split(" ").filter(Boolean)) {
    const parsed = term(each, groups);
    if (parsed.test === null) return parsed;
    tests.push(parsed.test);
  }
  return { test: (candidate) => tests.every((test) => test(candidate)), error: null };
}
