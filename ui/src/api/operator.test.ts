import { expect, it } from "vitest";
import { Failed } from "./client";
import { lettersAgain, lettersQuery } from "./operator";

it.each([
  ["none", null, [], false],
  ["all wait for somebody", null, ["kept", "doubtful"], false],
  ["one is tried again", null, ["kept", "queued"], 2_000],
  ["the daemon did not answer", new Failed(504, "no answer"), ["kept"], false],
  ["the daemon did not answer while one is tried again", new Failed(504, "no answer"), ["queued"], 10_000],
  ["the plane asks many already", new Failed(429, "in a moment"), [], 10_000],
  ["nobody may see them", new Failed(403, "switched off"), ["queued"], false],
] as const)("letters are asked for again: %s", (_, error, states, ms) =>
  expect(
    lettersAgain(
      error,
      states.map((state) => ({ state })),
    ),
  ).toBe(ms),
);

it("whoever looks at letters sees what becomes of them", () => {
  const { refetchInterval } = lettersQuery("hub", "shop");
  if (typeof refetchInterval !== "function") throw new Error("it is asked for at intervals");
  const state = { error: null, data: { items: [{ state: "queued" }] } };
  expect(refetchInterval({ state } as never)).toBe(2_000);
});
