import { expect, it } from "vitest";
import { fitsWords } from "./words";

it.each([
  ["", true],
  ["SHOP", true],
  ["shop me", true],
  ["shop you", false],
  ["-you", true],
  ["-shop", false],
])("%s", (typed, expected) => expect(fitsWords(["shop", "by Me"], typed)).toBe(expected));
