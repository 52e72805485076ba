import { expect, it } from "vitest";
import {
  asLayout,
  beginning,
  type Draft,
  fromLayout,
  lineRange,
  nameIn,
  nameOfNew,
  type Remote,
  template,
} from "./draft";

it.each([
  [1, "ab"],
  [2, ""],
  [3, "cde"],
  [9, "cde"],
])("line %d", (line, expected) => {
  const text = "ab\n\ncde";
  expect(text.slice(...lineRange(text, line))).toBe(expected);
});

it("the name is the text's own", () => {
  expect(nameIn("# name = 'no'\nname = 'shop'\n")).toBe("shop");
  expect(nameIn("[sources.a]")).toBeNull();
  expect(nameIn(template([]))).toBe("example");
});

it("a new text is for daemons that are there", () => {
  expect(template(["a", "b"])).toMatch(/daemon = "a"[\s\S]*daemon = "b"/);
  expect(template(["a"])).not.toContain("gateway");
});

const deployed = { text: "deployed", revision: 3 };
const local = (change: Partial<Draft> = {}): Draft => ({
  text: "mine",
  from: 3,
  base: "deployed",
  layout: {},
  tag: 0,
  isSent: false,
  ...change,
});
const remote = (change: Partial<Remote> = {}): Remote => ({
  text: "theirs",
  from: 3,
  base: "deployed",
  layout: {},
  tag: 5,
  by: "ada",
  atUnixMs: 0,
  ...change,
});

it.each([
  ["nothing is kept", null, null, "deployed", false],
  ["only this browser has one", local(), null, "mine", false],
  ["it was applied or thrown away elsewhere", local({ tag: 5, isSent: true }), null, "deployed", false],
  ["it was thrown away elsewhere, and somebody wrote on", local({ tag: 5 }), null, "mine", false],
  ["the plane does not say", local({ tag: 5 }), "unknown", "mine", false],
  ["nothing is kept here, and the plane does not say", null, "unknown", "deployed", false],
  ["only the plane has one", null, remote(), "theirs", false],
  [
    "the plane has what this browser sent, or something newer",
    local({ tag: 4, isSent: true }),
    remote(),
    "theirs",
    false,
  ],
  ["somebody wrote on here", local({ tag: 5 }), remote(), "mine", false],
  ["somebody wrote on here and elsewhere", local({ tag: 4 }), remote(), "mine", true],
  ["both have the same", local({ tag: 4, text: "theirs" }), remote(), "theirs", false],
  [
    "it was thrown away here, and the plane has not heard",
    local({ text: "deployed", tag: 5 }),
    remote(),
    "deployed",
    false,
  ],
  ["another one came after it was thrown away here", local({ text: "deployed", tag: 4 }), remote(), "theirs", false],
] as const)("what one goes on with when %s", (_, here, there, text, isConflict) => {
  const begun = beginning(here, there, deployed);
  expect(begun.draft.text).toBe(text);
  expect(begun.conflict !== null).toBe(isConflict);
  // What the plane does not have is owed to it.
  const isOwed = text === "mine" || (text === "deployed" && there !== null && there !== "unknown");
  expect(begun.draft.isSent).toBe(!isOwed);
});

it("what the plane was told before stays what one goes on with while it does not say", () => {
  const kept = local({ tag: 5, isSent: true });
  expect(beginning(kept, "unknown", deployed)).toEqual({ draft: kept, conflict: null });
});

it("a new workflow's draft has a name that the plane takes", () => {
  expect(nameOfNew("Ada.Lovelace@example.org")).toBe("new-ada-lovelace-example-org");
  expect(nameOfNew("x".repeat(64))).toHaveLength(32);
});

it("places and revision come back as they were kept", () => {
  const kept = { from: 7, layout: { a: { x: 1, y: 2 } } };
  expect(fromLayout(JSON.parse(JSON.stringify(asLayout(kept))))).toEqual(kept);
  expect(fromLayout("damaged")).toEqual({ from: 0, layout: {} });
  expect(fromLayout({ layout: { a: { x: "1" }, b: null } })).toEqual({ from: 0, layout: {} });
});
