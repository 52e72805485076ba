// The question before a text is deployed: what changes, who notices, and what to do if somebody else was quicker.

import { useQuery, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { applyWorkflow, startRollout } from "@/api/actions";
import { Failed, get, list, part } from "@/api/client";
import { keys } from "@/api/keys";
import type { WorkflowText, WorkflowView } from "@/api/types";
import { Button } from "@/components/button";
import { Callout, Failure } from "@/components/callout";
import { CliButton, shellWord } from "@/components/copy";
import { Dialog } from "@/components/dialog";
import { DifferenceList } from "@/components/difference";
import { Field, Input } from "@/components/field";
import { Loading } from "@/components/page";
import { sentence } from "@/lib/format";
import { cliOf, FIRST, policyOf } from "@/lib/rollout";
import { difference } from "@/workflow/diff";
import { graphOf, readGraph } from "@/workflow/graph";
import { renamed } from "./problems";
import type { Workbench } from "./state";
import { Affected, Waves } from "./waves";

const graphIn = (text: string) => readGraph(text).graph ?? graphOf({});

/** What is deployed at this moment; 0: nothing is. */
async function current(name: string): Promise<{ text: string; revision: number; by: string }> {
  const all = await list<WorkflowView>("/workflows");
  if (!all.some((each) => each.name === name)) return { text: "", revision: 0, by: "" };
  const { text, view } = await get<WorkflowText>(`/workflows/${part(name)}`);
  return { text, revision: view.revision, by: view.by };
}

/** What came of it: `rollout` is missing when all daemons got it at once. */
export interface Deployed {
  name: string;
  revision: number;
  rollout?: number;
}

interface DeployProps {
  bench: Workbench;
  /** The plane found nothing wrong with the text. */
  isValid: boolean;
  onClose: () => void;
  onDone: (deployed: Deployed) => void;
}

export function Deploy({ bench, isValid, onClose, onDone }: DeployProps) {
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
  const [isInWaves, setInWaves] = useState(false);
  const [typed, setTyped] = useState(FIRST);
  const [reason, setReason] = useState("");
  const policy = policyOf(typed);
  const there = now.data;
  const isConflict = there !== undefined && there.revision !== bench.base.revision;
  const elsewhere = renamed(bench.name, bench.graph.name, bench.text)[0];
  const send = async (expected: number) => {
    if (!isInWaves || !policy) return applyWorkflow(target, bench.text, reason, expected);
    const { id, revision } = await startRollout(bench.text, reason, policy, expected);
    void queries.invalidateQueries({ queryKey: keys.rollouts });
    return { revision, rollout: id };
  };
  const apply = async () => {
    if (!there || elsewhere) return;
    setBusy(true);
    setError(null);
    try {
      const deployed = await send(there.revision);
      await queries.invalidateQueries({ queryKey: keys.workflows });
      onDone({ name: target, ...deployed });
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
  // A new workflow begins from an example that was never deployed.
  const base = bench.base.revision === 0 ? "" : bench.base.text;
  const file = shellWord(`${target}.toml`);
  const expected = there?.revision ?? bench.base.revision;
  const plain = isInWaves ? cliOf(file, typed, expected) : `mycelial workflow apply ${file} --expect ${expected}`;
  const command = plain && (reason ? `${plain} --reason ${shellWord(reason)}` : plain);
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
            <DifferenceList difference={difference(graphIn(base), graphIn(there.text))} />
          </section>
          <section aria-label="What you changed" className="flex flex-col gap-2">
            <h3 className="text-sm font-semibold">You changed</h3>
            <DifferenceList difference={difference(graphIn(base), mine)} />
          </section>
        </>
      )}
      {changes && !isConflict && <DifferenceList difference={changes} />}
      <Affected text={bench.text} isValid={isValid} />
      <Waves isInWaves={isInWaves} setInWaves={setInWaves} typed={typed} setTyped={setTyped} />
      <Field label="Why" hint="Optional; stands in the history and in the audit.">
        <Input value={reason} maxLength={512} onChange={(event) => setReason(event.target.value)} />
      </Field>
      {elsewhere && (
        <Callout tone="bad" title={sentence(elsewhere.message)}>
          {sentence(elsewhere.hint)}
        </Callout>
      )}
      {error !== null && <Failure error={error} />}
      <div className="flex flex-wrap justify-end gap-2">
        <span className="mr-auto">{command && <CliButton command={command} />}</span>
        <Button onClick={onClose}>Keep editing</Button>
        {isConflict && there && there.revision > 0 && <Button onClick={takeTheirs}>Take theirs</Button>}
        <Button
          kind={isConflict ? "danger" : "main"}
          busy={isBusy}
          disabled={!there || elsewhere !== undefined || isSame === true || (isInWaves && policy === null)}
          onClick={() => void apply()}
        >
          {isConflict ? `Deploy mine over revision ${there?.revision}` : isSame ? "Nothing to deploy" : "Deploy"}
        </Button>
      </div>
    </Dialog>
  );
}
