import { describe, expect, it } from "vitest";
import { changes, diffLines, hunks } from "./diff";

const show = (older: string, newer: string) =>
  diffLines(older, newer).map(({ kind, text }) => `${{ same: " ", added: "+", removed: "-" }[kind]}${text}`);

describe("line by line", () => {
  it.each([
    ["a\nb", "a\nb", [" a", " b"]],
    ["a\nb\nc", "a\nx\nc", [" a", "-b", "+x", " c"]],
    ["a", "a\nb", [" a", "+b"]],
    ["a\nb", "b", ["-a", " b"]],
    ["", "a", ["-", "+a"]],
  ])("%j and %j", (older, newer, expected) => expect(show(older, newer)).toEqual(expected));

  it("whatever they are, both texts can be read off it", () => {
    let seed = 7;
    const random = (below: number) => {
      seed = (seed * 1_103_515_245 + 12_345) % 2_147_483_648;
      return seed % below;
    };
    for (let round = 0; round < 200; round += 1) {
      const text = () => Array.from({ length: random(12) }, () => "abcd"[random(4)]).join("\n");
      const [older, newer] = [text(), text()];
      const lines = diffLines(older, newer);
      const side = (left: string) => lines.filter(({ kind }) => kind !== left).map((line) => line.text);
      expect(side("added").join("\n")).toBe(older);
      expect(side("removed").join("\n")).toBe(newer);
    }
  });

  it("what did not change is left out", () => {
    const older = Array.from({ length: 30 }, (_, at) => `${at}`).join("\n");
    const shown = hunks(diffLines(older, older.replace("\n15\n", "\nx\n")), 1);
    expect(shown.map((line) => line?.text ?? null)).toEqual([null, "14", "15", "x", "16", null]);
    expect(hunks(diffLines(older, older))).toEqual([null]);
  });
});

it("node by node", () => {
  const older = `name = "shop"\n[sources.orders]\ntype = "sqlite" \npath = "a.db"\ncolumns = [\n  "x",\n]\n[destinations.old]\ntype = "file"`;
  const newer = `# words\nname = "shop"\n\n[sources.orders]\npath = "b.db"\ntype = "sqlite"\ncolumns = [\n  "y",\n]\nlimit = 5\n[transforms.hot]\ntype = "filter"`;
  expect(changes(older, newer)).toEqual([
    { node: "sources.orders", setting: "path", before: '"a.db"', after: '"b.db"' },
    { node: "sources.orders", setting: "columns", before: '[ "x", ]', after: '[ "y", ]' },
    { node: "sources.orders", setting: "limit", before: null, after: "5" },
    { node: "destinations.old", setting: "", before: '"file"', after: null },
    { node: "transforms.hot", setting: "", before: null, after: '"filter"' },
  ]);
  expect(changes(older, `${older}\n# nothing`)).toEqual([]);
});
