// Columns that came, went or changed: what was seen where and when, and what the contract does about it.

import type { WorkflowStatus } from "@/api/types";
import { Callout } from "@/components/callout";
import { Time } from "@/components/time";
import { count } from "@/lib/format";

interface DriftProps extends Pick<WorkflowStatus, "drift"> {
  /** When it was told, milliseconds since 1970. */
  toldUnixMs: number;
}

export function Drift({ drift, toldUnixMs }: DriftProps) {
  if (drift.length === 0) return null;
  return (
    <Callout tone="warn" title="Columns are not as agreed.">
      <ul className="flex flex-col gap-1">
        {drift.map(({ daemon, what, batches, ago_ms }) => (
          <li key={daemon}>
            {what}. On {daemon}, in {count(batches, "batch", "batches")}, last seen{" "}
            <Time unixMs={toldUnixMs - ago_ms} />.
          </li>
        ))}
      </ul>
    </Callout>
  );
}
