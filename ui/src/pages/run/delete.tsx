// Deleting a workflow: what stops and what is lost by it, before it is done.

import { useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { useLocation } from "wouter";
import { deleteWorkflow } from "@/api/actions";
import { keys } from "@/api/keys";
import type { WorkflowStatus } from "@/api/types";
import { shellWord } from "@/components/copy";
import { ConfirmButton } from "@/components/dialog";
import { tell } from "@/components/toast";
import { bytes, count, several } from "@/lib/format";

/** What stops, and what is lost by it. */
function ending({ parts, streams }: WorkflowStatus) {
  const where = [...new Set(parts.map(({ daemon }) => daemon))];
  const waiting = streams.reduce((sum, { ledger }) => sum + ledger.buffered, 0);
  const size = streams.reduce((sum, { buffered_bytes }) => sum + buffered_bytes, 0);
  const stops = where.length === 0 ? "It runs nowhere now." : `It stops on ${several(where)}.`;
  const lost =
    waiting === 0
      ? "Nothing waits to be delivered."
      : `${count(waiting, "record")} (${bytes(size)}) that ${waiting === 1 ? "waits" : "wait"} on their disks ${waiting === 1 ? "is" : "are"} not delivered any more.`;
  return `${stops} ${lost} Its revisions are kept.`;
}

/** What was asked about is what is deleted, whatever is deployed meanwhile. */
export function Delete({ name, status }: { name: string; status: WorkflowStatus }) {
  const [asked, ask] = useState(status);
  const queries = useQueryClient();
  const [, go] = useLocation();
  const run = async () => {
    await deleteWorkflow(name, asked.view.revision);
    await queries.cancelQueries({ queryKey: keys.workflow(name) });
    go("/workflows");
    queries.removeQueries({ queryKey: keys.workflow(name) });
    void queries.invalidateQueries({ queryKey: keys.workflows, exact: true });
    tell(`${name} is deleted.`);
  };
  return (
    <ConfirmButton
      action="Delete"
      onOpen={() => ask(status)}
      title={`Delete ${name}?`}
      onConfirm={run}
      command={`mycelial workflow delete ${shellWord(name)} --expect ${asked.view.revision}`}
    >
      {ending(asked)}
    </ConfirmButton>
  );
}
