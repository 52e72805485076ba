// Whether the systems of a workflow can be reached from its daemons: name, network, protection, login, rights. No data is
// touched.

import { useMutation } from "@tanstack/react-query";
import { checkConnections } from "@/api/operator";
import { useWorkflows } from "@/api/queries";
import type { WorkflowView } from "@/api/types";
import { Button } from "@/components/button";
import { CheckedTable } from "@/components/checked";
import { CliButton } from "@/components/copy";
import { Select } from "@/components/field";
import { Section } from "@/components/page";
import { useSearchState } from "@/lib/search";
import { cliToCheck } from "./secrets";

/** Daemons that are asked. */
const DAEMONS_MAX = 8;

export function Connections() {
  const workflows = useWorkflows().data ?? [];
  const [chosen, setChosen] = useSearchState("workflow");
  const workflow = workflows.find(({ name }) => name === chosen) ?? workflows[0];
  const [asked, setFrom] = useSearchState("from");
  if (!workflow) return null;
  const from = workflow.daemons.includes(asked) ? asked : "";
  const daemons = from === "" ? workflow.daemons : [from];
  const isAll = from === "" && daemons.length <= DAEMONS_MAX;
  return (
    <Section
      title="Connections"
      actions={
        <>
          <CliButton command={cliToCheck(workflow.name, isAll ? null : daemons.slice(0, DAEMONS_MAX))} />
          <Select aria-label="Workflow" value={workflow.name} onChange={(event) => setChosen(event.target.value)}>
            {workflows.map(({ name }) => (
              <option key={name}>{name}</option>
            ))}
          </Select>
          <Select
            aria-label="Test from"
            className="min-w-28"
            value={from}
            onChange={(event) => setFrom(event.target.value)}
          >
            <option value="">from all</option>
            {workflow.daemons.map((name) => (
              <option key={name} value={name}>
                from {name}
              </option>
            ))}
          </Select>
        </>
      }
    >
      <Check key={`${workflow.name} ${from}`} workflow={workflow} daemons={daemons} />
    </Section>
  );
}

async function checkAll(name: string, daemons: readonly string[]) {
  const all = await Promise.allSettled(
    daemons.slice(0, DAEMONS_MAX).map((daemon) => checkConnections(daemon, { workflow: name })),
  );
  const failed = all.find((each) => each.status === "rejected");
  const checked = all.flatMap((each) => (each.status === "fulfilled" ? each.value : []));
  // What some of them found is worth more than that others could not be asked.
  if (failed && checked.length === 0) throw failed.reason;
  return { checked, silent: all.filter((each) => each.status === "rejected").length };
}

function Check({ workflow, daemons }: { workflow: WorkflowView; daemons: readonly string[] }) {
  const run = useMutation({ mutationFn: () => checkAll(workflow.name, daemons) });
  const rest = daemons.length - DAEMONS_MAX;
  return (
    <>
      <div className="flex flex-wrap items-center gap-3">
        <Button busy={run.isPending} onClick={() => run.mutate()}>
          Test the connections of {workflow.name}
        </Button>
        <span className="text-sm text-muted">
          from {daemons.slice(0, DAEMONS_MAX).join(", ")}
          {rest > 0 && `, and not from ${rest} more`}
        </span>
      </div>
      <CheckedTable error={run.error} checked={run.data?.checked ?? null} silent={run.data?.silent ?? 0} />
    </>
  );
}
