// How far something is behind, by text and colour.

import { cx } from "@/lib/cx";
import { LAG_MEANS, lagText, lagTone } from "@/lib/lag";
import type { Tone } from "./status";

const COLOURS: Record<Tone, string> = {
  good: "",
  warn: "font-medium text-warn",
  bad: "font-medium text-bad",
  off: "",
};

/** `null`: nothing waits. */
export const Lag = ({ ms }: { ms: number | null }) => (
  <span title={ms === null ? "Nothing waits." : LAG_MEANS} className={cx("whitespace-nowrap", COLOURS[lagTone(ms)])}>
    {lagText(ms)}
  </span>
);
