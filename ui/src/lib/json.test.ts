import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { jsonOf, parseJson } from "./json";

it.each([
  ["9007199254740993", 9007199254740993n],
  ["-9223372036854775808", -9223372036854775808n],
  ["18446744073709551615", 18446744073709551615n],
  ["9007199254740991", 9007199254740991],
  ["-0", -0],
  ["1e300", 1e300],
  ["9007199254740993.5", 9007199254740994],
  ['"9007199254740993"', "9007199254740993"],
])("%s is what it says", (text, value) => {
  expect(parseJson(text)).toEqual(value);
  expect(parseJson(`[{"a": ${text}, "b":[${text} ,1]}]`)).toEqual([{ a: value, b: [value, 1] }]);
});

it.each([
  '{"9007199254740993": "a \\" 9007199254740993 \\\\"}',
  '"\\u0000"',
  '["\\u00009007199254740993", {"\\u0000": "\\u0000\\u0000"}]',
])("texts and keys stay as they are: %s", (text) => expect(parseJson(text)).toEqual(JSON.parse(text)));

it.each([
  "",
  "{",
  "01",
  "-",
  "[09007199254740993]",
  "{9007199254740993: 1}",
  '"a 9007199254740993',
  "9007199254740993 1",
])("%s is no JSON", (text) => expect(() => parseJson(text)).toThrow(SyntaxError));

describe("there and back", () => {
  it("whatever it is", () =>
    fc.assert(
      fc.property(fc.jsonValue(), (value) => {
        const text = JSON.stringify(value);
        expect(jsonOf(parseJson(text))).toBe(text);
      }),
    ));
  it("numbers of any size", () =>
    fc.assert(
      fc.property(fc.bigInt({ min: -(2n ** 63n), max: 2n ** 64n - 1n }), (value) => {
        expect(jsonOf(parseJson(`{"id":${value}}`))).toBe(`{"id":${value}}`);
      }),
    ));
});
