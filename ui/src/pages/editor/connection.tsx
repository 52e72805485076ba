// Whether a source or destination can be reached from a daemon it is for, before it is deployed. A place may be many daemons:
// then from the one that is chosen.

import { useMutation } from "@tanstack/react-query";
import { useMemo, useState } from "react";
import { checkConnections } from "@/api/operator";
import { useDaemons, useGroups, useWorkflows } from "@/api/queries";
import { Allowed } from "@/components/allowed";
import { Button } from "@/components/button";
import { Failure } from "@/components/callout";
import { CliButton } from "@/components/copy";
import { Field, Select } from "@/components/field";
import { Status } from "@/components/status";
import { sentence } from "@/lib/format";
import { targetsOf } from "@/lib/targets";
import { type Node, placesOf } from "@/workflow/graph";
import { cliToCheck } from "./cli";
import type { Workbench } from "./state";
import { doingOf, Verdict } from "./verdict";

function useTargets(place: string) {
  const daemons = useDaemons().data;
  const workflows = useWorkflows().data;
  const groups = useGroups().data;
  return useMemo(() => {
    const named = new Map(groups?.map(({ name, selector }) => [name, selector]));
    return targetsOf(place, daemons ?? [], workflows ?? [], named);
  }, [place, daemons, workflows, groups]);
}

export default function TestConnection({ bench, node }: { bench: Workbench; node: Node }) {
  const targets = useTargets(placesOf(bench.graph).get(node.id) ?? "");
  const [chosen, choose] = useState("");
  const daemon = targets.includes(chosen) ? chosen : (targets[0] ?? "");
  const run = useMutation({ mutationFn: (_doing: string) => checkConnections(daemon, { text: bench.text }) });
  const doing = doingOf(bench.graph);
  if (node.role === "transform" || daemon === "") return null;
  const found = run.data?.find((each) => each.node === node.id);
  return (
    <div className="flex flex-col gap-1.5 text-sm">
      {targets.length > 1 && (
        <Field label="Test from">
          <Select
            value={daemon}
            onChange={(event) => {
              choose(event.target.value);
              run.reset();
            }}
          >
            {targets.map((name) => (
              <option key={name}>{name}</option>
            ))}
          </Select>
        </Field>
      )}
      <div className="flex flex-wrap items-center gap-1">
        <Allowed needs="operator" what="Testing the connection">
          <Button busy={run.isPending} onClick={() => run.mutate(doing)}>
            Test the connection
          </Button>
          <CliButton command={cliToCheck(bench.graph.name, daemon)} />
        </Allowed>
      </div>
      <Verdict of={run.variables} now={doing} again="test it again">
        {run.isError && <Failure error={run.error} />}
        {run.data && (
          <div role="status">
            {found ? (
              <>
                <Status tone={found.ok ? "good" : "bad"}>
                  {found.ok ? `well, from ${daemon}` : (found.kind ?? "wrong")}
                </Status>
                <p className="break-words">{sentence(found.cause ?? found.found)}</p>
                {found.remedy && <p className="break-words text-muted">{sentence(found.remedy)}</p>}
              </>
            ) : (
              <p className="text-muted">{daemon} did not look at it.</p>
            )}
          </div>
        )}
      </Verdict>
    </div>
  );
}
