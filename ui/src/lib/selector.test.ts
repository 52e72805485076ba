import { describe, expect, it } from "vitest";
import { asSelector, type Candidate, parseSelector } from "./selector";

const candidate: Candidate = {
  view: { name: "gw-7", presence: "online", version: "0.3.12" },
  labels: { site: "berlin" },
  runs: ["orders"],
};

// The same table as the plane's own test, so that both choose the same daemons.
describe("what is chosen", () => {
  it.each([
    ["", true],
    ["site=berlin", true],
    ["site=bonn", false],
    ["site!=bonn", true],
    ["line!=1", true],
    ["-site=berlin", false],
    ["label:site -label:test", true],
    ["label:test", false],
    ["name:gw-*", true],
    ["name:*7", true],
    ["name:g*-*7", true],
    ["name:gw", false],
    ["name:*8*", false],
    ["presence:online", true],
    ["-presence:offline site=berlin version:<0.4", true],
    ["version:<0.3", false],
    ["version:0.3", true],
    ["version:>0.3", false],
    ["version:>=0.3.12", true],
    ["version:>0.3.2", true],
    ["version:<=0.3.11", false],
    ["runs:orders", true],
    ["runs:stock", false],
    ["gw", true],
    ["-gw", false],
    ["w-7 site=berlin", true],
  ])("%s", (selector, isChosen) => {
    const parsed = parseSelector(selector);
    expect(parsed.error).toBeNull();
    expect(parsed.test?.(candidate)).toBe(isChosen);
  });
});

describe("mistakes are named", () => {
  it.each([
    ["site=", "site=berlin"],
    ["color:red", "write label:"],
    ["presence:here", "online, late"],
    ["version:new", "version:<0.4"],
    ["label:", "write label:"],
    ["-", "site=berlin"],
  ])("%s", (selector, said) => {
    const { error } = parseSelector(`presence:online ${selector}`);
    expect(error).toContain(selector);
    expect(error).toContain(said);
  });

  it("too long", () => expect(parseSelector("a=b ".repeat(400)).error).toContain("1024"));
});

it("shorthand is spelled out for the command line", () => {
  expect(asSelector(" gw  -old site=berlin")).toBe("name:*gw* -name:*old* site=berlin");
});

describe("a group is what its selector chooses", () => {
  const groups = new Map([
    ["north", "site=berlin -label:test"],
    ["odd", "color:red"],
  ]);
  it.each([
    ["group:north", null, true],
    ["-group:north", null, false],
    ["group:south", "no group “south”", false],
    ["group:odd", "cannot read", false],
  ])("%s", (typed, error, isChosen) => {
    const parsed = parseSelector(typed, groups);
    if (error === null) expect(parsed.test?.(candidate)).toBe(isChosen);
    else expect(parsed.error).toContain(error);
  });
});
