import { expect, it } from "vitest";
import { type Entry, rank } from "./rank";

const entries = [
  ["page", "Daemons"],
  ["action", "Enrol a daemon"],
  ["workflow", "press-vibration"],
  ["daemon", "berlin-press-3"],
  ["source", "postgres"],
].map(([kind, name]): Entry => ({ kind: kind ?? "", name: name ?? "", run: () => {} }));

it.each([
  ["", ["Daemons", "Enrol a daemon", "press-vibration", "berlin-press-3", "postgres"]],
  ["press", ["press-vibration", "berlin-press-3"]],
  ["daemon press", ["berlin-press-3"]],
  ["dae", ["Daemons", "Enrol a daemon", "berlin-press-3"]],
  ["pgs", ["postgres"]],
  ["zzz", []],
])("%s", (typed, expected) => expect(rank(entries, typed).map(({ name }) => name)).toEqual(expected));
