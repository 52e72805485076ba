import { expect, it } from "vitest";
import { carriersOf, counts, othersOf } from "./carriers";

const ALL = [
  { components: ["source/csv", "source/sqlite"], daemons: ["gw-10", "gw-2"] },
  { components: ["destination/sqlite", "source/sqlite"], daemons: ["hub"] },
];

it("who carries what", () => {
  expect(carriersOf(ALL, "source", "sqlite")).toEqual(["gw-2", "gw-10", "hub"]);
  expect(carriersOf(ALL, "destination", "sqlite")).toEqual(["hub"]);
  expect(carriersOf(ALL, "source", "none")).toEqual([]);
  expect(othersOf(ALL, "source", "csv")).toEqual(["hub"]);
  expect(othersOf(ALL, "source", "sqlite")).toEqual([]);
});

it("how many carry it", () => {
  expect([...counts(ALL)]).toEqual([
    ["source/csv", 2],
    ["source/sqlite", 3],
    ["destination/sqlite", 1],
  ]);
});
