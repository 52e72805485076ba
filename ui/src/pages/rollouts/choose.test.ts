import { expect, it } from "vitest";
import type { RolloutPhase, RolloutView } from "@/api/types";
import { USUAL } from "@/lib/rollout";
import { chooseRollouts } from "./choose";

const rollout = (id: number, workflow: string, phase: RolloutPhase, cause = ""): RolloutView => ({
  id,
  workflow,
  revision: 2,
  before: 1,
  by: "me",
  at_unix_ms: 0,
  phase,
  wave: 1,
  waves: [],
  cause,
  failures: [],
  policy: USUAL,
});
const ALL = [
  rollout(3, "shop", "done"),
  rollout(2, "press", "paused", "the line is cleaned"),
  rollout(1, "shop", "rolled_back"),
];

it.each([
  ["", [2, 3, 1]],
  ["shop", [3, 1]],
  ["shop -done", [1]],
  ["cleaned", [2]],
])("%s", (typed, expected) => expect(chooseRollouts(ALL, typed).map(({ id }) => id)).toEqual(expected));
