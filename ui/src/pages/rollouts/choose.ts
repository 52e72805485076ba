// Which rollouts are shown, and in which order. Pure.

import type { RolloutView } from "@/api/types";
import { isOver, PHASES } from "@/lib/rollout";
import { fitsWords } from "@/lib/words";

/** Those under way first, then the newest. */
export function chooseRollouts(all: readonly RolloutView[], typed: string) {
  const found = all.filter(({ id, workflow, by, phase, cause }) =>
    fitsWords([`${id}`, workflow, by, PHASES[phase][1], cause], typed),
  );
  return [...found.filter((each) => !isOver(each)), ...found.filter(isOver)];
}
