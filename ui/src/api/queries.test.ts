import { expect, it } from "vitest";
import { Failed } from "./client";
import { again } from "./queries";

it.each([
  ["all is well", null, 2_000, 2_000],
  ["nothing changes any more", null, false, false],
  ["nothing changes any more, and it failed", new Failed(500, "the store does not answer"), false, false],
  ["the plane is away", new Failed(0, "the plane cannot be reached"), 2_000, 10_000],
  ["the plane answers wrongly", new Failed(500, "the store does not answer"), 2_000, 10_000],
  ["there is no such thing", new Failed(404, "no daemon is called that"), 2_000, false],
] as const)("asked again when %s", (_, error, ms, expected) => expect(again(error, ms)).toBe(expected));
