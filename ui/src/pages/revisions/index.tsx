// A workflow's history: who deployed what and when, how it differs from what runs, and back to it with one click.

import { useMutation, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { useParams } from "wouter";
import { rollBack } from "@/api/actions";
import { keys } from "@/api/keys";
import { useRevisions, useRevisionText } from "@/api/queries";
import type { RevisionView } from "@/api/types";
import { Allowed } from "@/components/allowed";
import { Button, LinkButton } from "@/components/button";
import { Failure } from "@/components/callout";
import { CliButton, shellWord } from "@/components/copy";
import { Data } from "@/components/data";
import { Diff } from "@/components/diff";
import { DrawnDifference } from "@/components/drawn-difference";
import { Input } from "@/components/field";
import { Page, Panel, Section } from "@/components/page";
import { Status } from "@/components/status";
import { Time } from "@/components/time";
import { tell } from "@/components/toast";
import { WorkflowTabs } from "@/components/workflow-header";
import { cx } from "@/lib/cx";
import { count } from "@/lib/format";
import { useSearchState } from "@/lib/search";

export default function Revisions() {
  const { name = "" } = useParams();
  const revisions = useRevisions(name);
  return (
    <Page
      title={name}
      actions={
        <>
          <CliButton command={`mycelial workflow revisions ${shellWord(name)}`} />
          <LinkButton href={`/rollouts?q=${encodeURIComponent(name)}`}>Its rollouts</LinkButton>
        </>
      }
    >
      <WorkflowTabs name={name} />
      <Data query={revisions}>{(all) => <History name={name} all={all} />}</Data>
    </Page>
  );
}

function History({ name, all }: { name: string; all: readonly RevisionView[] }) {
  const [picked, pick] = useSearchState("revision");
  // The newest is compared with the one before it, an older one with the newest.
  const chosen = all.find(({ number }) => `${number}` === picked) ?? all[0];
  if (!chosen) return null;
  return (
    <div className="grid items-start gap-5 lg:grid-cols-[minmax(14rem,20rem)_minmax(0,1fr)]">
      <Section title="Revisions" aside={count(all.length, "revision")}>
        <Panel className="max-h-[70vh] overflow-y-auto">
          <ol>
            {all.map((revision) => (
              <li key={revision.number} className="border-b border-line last:border-b-0">
                <button
                  type="button"
                  aria-pressed={revision === chosen}
                  onClick={() => pick(`${revision.number}`)}
                  className={cx(
                    "w-full px-3 py-2 text-left text-sm hover:bg-hover focus-visible:-outline-offset-2",
                    revision === chosen && "bg-accent-soft",
                  )}
                >
                  <span className="flex justify-between gap-2">
                    <span className="tabular font-medium">Revision {revision.number}</span>
                    {revision.is_current && <Status tone="good">current</Status>}
                  </span>
                  <span className="text-xs text-muted">
                    <Time unixMs={revision.at_unix_ms} /> by {revision.by}
                  </span>
                  {revision.reason && <span className="block text-xs">{revision.reason}</span>}
                </button>
              </li>
            ))}
          </ol>
        </Panel>
      </Section>
      <Comparison name={name} all={all} chosen={chosen} />
    </div>
  );
}

interface ComparisonProps {
  name: string;
  all: readonly RevisionView[];
  chosen: RevisionView;
}

function Comparison({ name, all, chosen }: ComparisonProps) {
  const newest = all[0] ?? chosen;
  const isNewest = chosen.number === newest.number;
  const other = isNewest ? (all[1]?.number ?? null) : newest.number;
  const text = useRevisionText(name, chosen.number);
  const otherText = useRevisionText(name, other);
  // A workflow that was deleted has none.
  const current = all.find(({ is_current }) => is_current)?.number ?? 0;
  const title = isNewest
    ? `What revision ${chosen.number} changed`
    : `What going back to revision ${chosen.number} would change`;
  return (
    <Section
      title={title}
      actions={!chosen.is_current && <RollBack name={name} revision={chosen.number} current={current} />}
    >
      <Data query={text}>
        {({ text: one }) =>
          other === null ? (
            <p className="text-sm text-muted">It is the first.</p>
          ) : (
            <Data query={otherText}>
              {({ text: before }) => (
                <>
                  <DrawnDifference older={before} newer={one} />
                  <Diff older={before} newer={one} />
                </>
              )}
            </Data>
          )
        }
      </Data>
    </Section>
  );
}

function RollBack({ name, revision, current }: { name: string; revision: number; current: number }) {
  const queries = useQueryClient();
  const [, pick] = useSearchState("revision");
  const [reason, setReason] = useState("");
  const why = reason ? ` --reason ${shellWord(reason)}` : "";
  const run = useMutation({
    mutationFn: () => rollBack(name, revision, reason, current),
    onSuccess: async (made) => {
      setReason("");
      tell(`${name} runs the text of revision ${revision} again, as revision ${made.revision}.`);
      pick("");
      await queries.invalidateQueries({ queryKey: keys.workflow(name) });
    },
    // Somebody may have been quicker: show what is there now.
    onError: () => queries.invalidateQueries({ queryKey: keys.workflow(name) }),
  });
  return (
    <Allowed needs="operator" what="Rolling back">
      <Input
        aria-label="Why"
        placeholder="Why (optional)"
        className="w-44"
        maxLength={512}
        value={reason}
        onChange={(event) => setReason(event.target.value)}
      />
      <CliButton command={`mycelial workflow rollback ${shellWord(name)} --to ${revision}${why}`} />
      <Button kind="main" busy={run.isPending} onClick={() => run.mutate()}>
        Roll back to revision {revision}
      </Button>
      {run.isError && <Failure error={run.error} />}
    </Allowed>
  );
}
