// What was found out about a workflow is said as long as it is that workflow.

import type { ReactNode } from "react";
import type { Graph } from "@/workflow/graph";
import { withAt, write } from "@/workflow/value";

/** What a workflow does: neither its tests nor how it is written are part of that. */
export const doingOf = ({ table }: Pick<Graph, "table">) => write(withAt(table, ["tests"], undefined));

interface VerdictProps {
  /** What it was found out about; undefined: nothing was. */
  of: string | undefined;
  now: string;
  /** What to do about it: "test it again". */
  again: string;
  children: ReactNode;
}

export const Verdict = ({ of, now, again, children }: VerdictProps) =>
  of === undefined || of === now ? (
    children
  ) : (
    <p role="status" className="text-sm text-muted">
      The workflow was changed since: {again}.
    </p>
  );
