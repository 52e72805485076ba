// Whether a daemon runs what it shall run. Pure.

import type { WorkflowPart } from "@/api/types";
import type { Tone } from "@/components/status";

export function standing({ wanted, revision, state }: Pick<WorkflowPart, "wanted" | "revision" | "state">) {
  // What it runs is known only as long as what it said last is believed.
  const told: readonly [tone: Tone, word: string] =
    state === null
      ? ["off", "not known"]
      : wanted === revision
        ? ["good", "as wanted"]
        : wanted === 0
          ? ["warn", "not wanted"]
          : revision < wanted
            ? ["warn", "behind"]
            : ["warn", "ahead"];
  return told;
}
