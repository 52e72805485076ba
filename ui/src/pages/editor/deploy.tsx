// The question before a text is deployed: what changes, who notices, and what to do if somebody else was quicker.

import { useQuery, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { applyWorkflow } from "@/api/actions";
import { Failed, get, list, part } from "@/api/client";
import { keys } from "@/api/keys";
import type { WorkflowText, WorkflowView } from "@/api/types";
import { Button } from "@/components/button";
import { Callout, Failure } from "@/components/callout";
import { CliButton, shellWord } from "@/components/copy";
import { Dialog } from "@/components/dialog";
import { DifferenceList } from "@/components/difference";
import { Loading } from "@/components/page";
import { difference } from "@/workflow/diff";
import { graphOf, readGraph } from "@/workflow/graph";
import type { Workbench } from "./state";

const graphIn = (text: string) => readGraph(text).graph ?? graphOf({});

/** What is deployed at this moment; 0: nothing is. */
async function current(name: string): Promise<{ text: string; revision: number; by: string }> {
  const all = await list<WorkflowView>("/workflows");
  if (!all.some((each) => each.name === name)) return { text: "", revision: 0, by: "" };
  const { text, view } = await get<WorkflowText>(`/workflows/${part(name)}`);
  return { text, revision: view.revision, by: view.by };
}

interface DeployProps {
  bench: Workbench;
  onClose: () => void;
  onDone: (name: string, revision: number) => void;
}

export function Deploy({ bench, onClose, onDone }: DeployProps) {
  const queries = useQueryClient();
  const target = bench.name ?? bench.graph.name;
  const now = useQuery({
    queryKey: [...keys.workflow(target), "before a deployment"],
    queryFn: () => current(target),
    gcTime: 0,
    staleTime: 0,
  });
  const [error, setError] = useState<unknown>(null);
  const [isBusy, setBusy] = useState(false);
  const there = now.data;
  const isConflict = there !== undefined && there.revision !== bench.base.revision;
  const apply = async () => {
    if (!there) return;
    setBusy(true);
    setError(null);
    try {
      const { revision } = await applyWorkflow(target, bench.text, there.revision);
      await queries.invalidateQueries({ queryKey: keys.workflows });
      onDone(target, revision);
    } catch (cause) {
      setError(cause);
      // Somebody was quicker between the question and the answer: show what they did.
      if (cause instanceof Failed && [409, 412].includes(cause.status)) await now.refetch();
    } finally {
      setBusy(false);
    }
  };
  const takeTheirs = () => {
    if (there) bench.restart(there);
    onClose();
  };
  const mine = graphIn(bench.text);
  const changes = there && difference(graphIn(there.text), mine);
  const isSame = changes && changes.nodes.length === 0 && changes.tests.length === 0 && there.text === bench.text;
  return (
    <Dialog
      title={there?.revision === 0 ? `Deploy ${target}` : `Deploy a change of ${target}`}
      isOpen
      onClose={onClose}
    >
      {now.isError && <Failure error={now.error} onRetry={() => void now.refetch()} />}
      {now.isPending && <Loading />}
      {isConflict && there && (
        <>
          <Callout
            tone="warn"
            isUrgent
            title={
              there.revision === 0
                ? `${target} was deleted since this draft began.`
                : bench.base.revision === 0
                  ? `There is a workflow ${target} already, at revision ${there.revision}.`
                  : `${there.by} deployed revision ${there.revision} since this draft began.`
            }
          >
            Your draft began from revision {bench.base.revision}. Deploying it replaces what is there.
          </Callout>
          <section aria-label="What they changed" className="flex flex-col gap-2">
            <h3 className="text-sm font-semibold">They changed</h3>
            <DifferenceList difference={difference(graphIn(bench.base.text), graphIn(there.text))} />
          </section>
          <section aria-label="What you changed" className="flex flex-col gap-2">
            <h3 className="text-sm font-semibold">You changed</h3>
            <DifferenceList difference={difference(graphIn(bench.base.text), mine)} />
          </section>
        </>
      )}
      {changes && !isConflict && <DifferenceList difference={changes} />}
      {changes && (
        <p className="text-sm">
          {changes.daemons.length > 0 ? (
            <>
              On <strong className="font-medium">{changes.daemons.join(", ")}</strong>: what changed is stopped,
              drained, and goes on from where it was.
            </>
          ) : (
            <span className="text-muted">No daemon has anything else to do.</span>
          )}
        </p>
      )}
      {error !== null && <Failure error={error} />}
      <div className="flex flex-wrap justify-end gap-2">
        <span className="mr-auto">
          <CliButton
            command={`mycelial workflow apply ${shellWord(`${target}.toml`)} --expect ${there?.revision ?? bench.base.revision}`}
          />
        </span>
        <Button onClick={onClose}>Keep editing</Button>
        {isConflict && there && there.revision > 0 && <Button onClick={takeTheirs}>Take theirs</Button>}
        <Button
          kind={isConflict ? "danger" : "main"}
          busy={isBusy}
          disabled={!there || isSame === true}
          onClick={() => void apply()}
        >
          {isConflict ? `Deploy mine over revision ${there?.revision}` : isSame ? "Nothing to deploy" : "Deploy"}
        </Button>
      </div>
    </Dialog>
  );
}
