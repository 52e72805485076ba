// What one daemon shall run and what it does run, workflow by workflow; where that is not the same, why, and what differs.

import { useState } from "react";
import { useRevisionText, useWorkflows } from "@/api/queries";
import type { WorkflowPart, WorkflowView } from "@/api/types";
import { Button } from "@/components/button";
import { Data } from "@/components/data";
import { Diff } from "@/components/diff";
import { DrawnDifference } from "@/components/drawn-difference";
import { TextLink } from "@/components/link";
import { Section } from "@/components/page";
import { RunStatus, Status } from "@/components/status";
import { type Column, Table } from "@/components/table";
import { number, sentence } from "@/lib/format";
import { standing } from "./standing";

const revision = (value: number) => (value === 0 ? "nothing" : `revision ${number(value)}`);

function columns(newest: ReadonlyMap<string, WorkflowView>): readonly Column<WorkflowPart>[] {
  return [
    {
      name: "Workflow",
      isPlain: true,
      cell: ({ workflow }) => <TextLink href={`/workflows/${encodeURIComponent(workflow)}`}>{workflow}</TextLink>,
    },
    { name: "State", isPlain: true, cell: ({ state }) => <RunStatus state={state} /> },
    {
      name: "Shall run",
      cell: (part) => {
        const current = newest.get(part.workflow)?.revision ?? 0;
        return (
          <>
            {revision(part.wanted)}
            {part.wanted > 0 && current > part.wanted && (
              <span className="block text-xs text-muted">{revision(current)} is for others so far</span>
            )}
          </>
        );
      },
    },
    { name: "Runs", cell: (part) => revision(part.revision) },
    {
      name: "Compared",
      cell: (part) => {
        const [tone, word] = standing(part);
        return <Status tone={tone}>{word}</Status>;
      },
    },
  ];
}
const WHY: Column<WorkflowPart> = { name: "Why", cell: ({ cause }) => sentence(cause), className: "md:w-1/3" };

export function Parts({ parts }: { parts: readonly WorkflowPart[] }) {
  const workflows = useWorkflows().data ?? [];
  const [shown, show] = useState("");
  if (parts.length === 0) return <p className="text-sm text-muted">No workflow runs here.</p>;
  const newest = new Map(workflows.map((view) => [view.name, view]));
  const shownColumns = [...columns(newest), ...(parts.some(({ cause }) => cause !== "") ? [WHY] : [])];
  const comparable = parts.filter(({ wanted, revision }) => wanted > 0 && revision > 0 && wanted !== revision);
  const compared = comparable.find(({ workflow }) => workflow === shown);
  return (
    <>
      <Table label="Workflows" columns={shownColumns} rows={parts} rowKey={({ workflow }) => workflow} />
      {comparable.length > 0 && (
        <div className="flex flex-wrap gap-2">
          {comparable.map((part) => (
            <Button
              key={part.workflow}
              aria-expanded={part === compared}
              onClick={() => show(part === compared ? "" : part.workflow)}
            >
              What differs in {part.workflow}
            </Button>
          ))}
        </div>
      )}
      {compared && <Differs part={compared} />}
    </>
  );
}

function Differs({ part: { workflow, wanted, revision: runs } }: { part: WorkflowPart }) {
  const before = useRevisionText(workflow, runs);
  const after = useRevisionText(workflow, wanted);
  return (
    <Section title={`${workflow}: from revision ${runs}, which runs, to revision ${wanted}`}>
      <Data query={before}>
        {({ text: older }) => (
          <Data query={after}>
            {({ text: newer }) => (
              <>
                <DrawnDifference older={older} newer={newer} />
                <Diff older={older} newer={newer} />
              </>
            )}
          </Data>
        )}
      </Data>
    </Section>
  );
}
