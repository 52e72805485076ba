import { expect, test } from "vitest";
import { standing } from "./standing";

test("a daemon is as wanted only where that is known", () => {
  const word = (wanted: number, revision: number, state: "running" | null = "running") =>
    standing({ wanted, revision, state })[1];
  expect(word(3, 3)).toBe("as wanted");
  expect(word(3, 2)).toBe("behind");
  expect(word(2, 3)).toBe("ahead");
  expect(word(0, 3)).toBe("not wanted");
  expect(word(3, 3, null)).toBe("not known");
  expect(word(3, 0, null)).toBe("not known");
});
