import { expect, it } from "vitest";
import { lineRange, nameIn, template } from "./draft";

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
