// Writing a workflow as text: checked by the plane while one types, kept in this browser until it is applied.

import { useQuery, useQueryClient } from "@tanstack/react-query";
import { useEffect, useRef, useState } from "react";
import { useLocation, useParams } from "wouter";
import { applyWorkflow, validateWorkflow } from "@/api/actions";
import { Failed } from "@/api/client";
import { keys } from "@/api/keys";
import { componentsQuery, useDaemons, useWorkflow } from "@/api/queries";
import type { Problem } from "@/api/types";
import { Allowed } from "@/components/allowed";
import { Button } from "@/components/button";
import { Failure } from "@/components/callout";
import { Data } from "@/components/data";
import { ConfirmButton } from "@/components/dialog";
import { Textarea } from "@/components/field";
import { Page, Panel, Section } from "@/components/page";
import { Status } from "@/components/status";
import { tell } from "@/components/toast";
import { WorkflowTabs } from "@/components/workflow-header";
import { count } from "@/lib/format";
import { useSearchState } from "@/lib/search";
import { type Draft, forgetDraft, keepDraft, lineRange, nameIn, readDraft, template } from "./draft";

/** How long after the last key the text is checked, in milliseconds. */
const PAUSE_MS = 300;

export default function Editor() {
  const { name } = useParams();
  return name === undefined ? <New /> : <Existing key={name} name={name} />;
}

function New() {
  const [use] = useSearchState("use");
  const daemons = useDaemons();
  const components = useQuery({ ...componentsQuery, enabled: use !== "" });
  if (daemons.isPending || (use !== "" && components.isPending)) return <Page title="New workflow">{null}</Page>;
  const [role, component] = use.split("/");
  const example = components.data?.find((each) => each.role === role && each.name === component)?.example;
  const names = daemons.data?.filter(({ presence }) => presence === "online").map((each) => each.name) ?? [];
  return (
    <Page title="New workflow">
      <Text name={null} current={{ text: example || template(names), from: 0 }} isFresh={Boolean(example)} />
    </Page>
  );
}

function Existing({ name }: { name: string }) {
  const workflow = useWorkflow(name);
  return (
    <Page title={name}>
      <WorkflowTabs name={name} />
      <Data query={workflow}>
        {({ text, view }) => <Text name={name} current={{ text, from: view.revision }} isFresh={false} />}
      </Data>
    </Page>
  );
}

function useProblems(text: string) {
  const [settled, setSettled] = useState(text);
  useEffect(() => {
    const timer = setTimeout(() => setSettled(text), PAUSE_MS);
    return () => clearTimeout(timer);
  }, [text]);
  const check = useQuery({
    queryKey: keys.problems(settled),
    queryFn: () => validateWorkflow(settled),
    staleTime: Infinity,
    gcTime: 0,
    placeholderData: (before) => before,
  });
  return { check, isSettled: settled === text && !check.isFetching };
}

interface TextProps {
  name: string | null;
  current: Draft;
  /** Somebody asked for this very text: an older draft does not come before it. */
  isFresh: boolean;
}

function Text({ name, current, isFresh }: TextProps) {
  const queries = useQueryClient();
  const [, go] = useLocation();
  const field = useRef<HTMLTextAreaElement>(null);
  const [draft, setDraft] = useState<Draft>(() => (isFresh ? null : readDraft(name)) ?? current);
  const [error, setError] = useState<unknown>(null);
  const [isBusy, setBusy] = useState(false);
  const { check, isSettled } = useProblems(draft.text);
  const isChanged = draft.text !== current.text;
  const write = (text: string) => {
    const next = { ...draft, text };
    setDraft(next);
    if (text === current.text) forgetDraft(name);
    else keepDraft(name, next);
  };
  const apply = async (from = draft.from) => {
    const target = name ?? nameIn(draft.text);
    setBusy(true);
    setError(null);
    try {
      if (target === null) throw new Failed(400, "the text names no workflow", 'begin it with name = "…"');
      const { revision } = await applyWorkflow(target, draft.text, from);
      forgetDraft(name);
      await queries.invalidateQueries({ queryKey: keys.workflows });
      tell(`${target} is deployed as revision ${revision}.`);
      go(`/workflows/${encodeURIComponent(target)}`);
    } catch (cause) {
      setError(cause);
      if (cause instanceof Failed && cause.status === 412)
        await queries.invalidateQueries({ queryKey: keys.workflows });
    } finally {
      setBusy(false);
    }
  };
  const discard = () => {
    forgetDraft(name);
    setDraft(current);
    setError(null);
  };
  const jump = (problem: Problem) => {
    field.current?.focus();
    if (problem.line > 0) field.current?.setSelectionRange(...lineRange(draft.text, problem.line));
  };
  return (
    <div className="grid items-start gap-5 lg:grid-cols-[minmax(0,1fr)_minmax(16rem,24rem)]">
      <Section
        title="Text"
        aside={isChanged ? "a draft, kept in this browser" : undefined}
        actions={
          <>
            {isChanged && <Button onClick={discard}>Discard the draft</Button>}
            <Allowed needs="operator" what="Deploying">
              <Button kind="main" busy={isBusy} title="Ctrl-S" onClick={() => void apply()}>
                Deploy
              </Button>
            </Allowed>
          </>
        }
      >
        {error !== null && <Failure error={error} />}
        {error instanceof Failed && error.status === 412 && name !== null && (
          <Over name={name} onConfirm={(from) => apply(from)} />
        )}
        <Textarea
          ref={field}
          aria-label="The workflow's text"
          className="min-h-[60vh]"
          value={draft.text}
          onChange={(event) => write(event.target.value)}
          onKeyDown={(event) => {
            if (!(event.ctrlKey || event.metaKey) || event.key.toLowerCase() !== "s") return;
            event.preventDefault();
            void apply();
          }}
        />
      </Section>
      <Section title="Problems">
        {check.isError ? (
          <Failure error={check.error} onRetry={() => void check.refetch()} />
        ) : (
          <Found problems={check.data?.problems} isSettled={isSettled} onJump={jump} />
        )}
      </Section>
    </div>
  );
}

/** Somebody else deployed meanwhile: what they did is looked at, and replaced only on purpose. */
function Over({ name, onConfirm }: { name: string; onConfirm: (from: number) => Promise<void> }) {
  const newest = useWorkflow(name).data?.view;
  if (!newest) return null;
  return (
    <div>
      <ConfirmButton
        action="Deploy over it"
        title={`Replace revision ${newest.revision} of ${name}?`}
        onConfirm={() => onConfirm(newest.revision)}
      >
        {newest.by} deployed it meanwhile. It stays among the revisions, and this draft becomes the newest.
      </ConfirmButton>
    </div>
  );
}

interface FoundProps {
  problems: readonly Problem[] | undefined;
  isSettled: boolean;
  onJump: (problem: Problem) => void;
}

function Found({ problems = [], isSettled, onJump }: FoundProps) {
  return (
    <Panel className="overflow-hidden">
      <p role="status" className="px-3 py-2 text-sm">
        {!isSettled && <span className="text-muted">Checking …</span>}
        {isSettled && problems.length === 0 && <Status tone="good">The plane finds nothing wrong.</Status>}
        {isSettled && problems.length > 0 && <Status tone="bad">{count(problems.length, "problem")}</Status>}
      </p>
      <ul>
        {problems.map((problem) => (
          <li key={`${problem.place} ${problem.line} ${problem.message}`} className="border-t border-line">
            <button
              type="button"
              className="w-full px-3 py-2 text-left text-sm hover:bg-hover focus-visible:-outline-offset-2"
              onClick={() => onJump(problem)}
            >
              <span className="block text-xs text-muted">
                {problem.line > 0 && `line ${problem.line} `}
                <code className="font-mono">{problem.place}</code>
              </span>
              {problem.message}
              {problem.hint && <span className="block text-muted">{problem.hint}</span>}
            </button>
          </li>
        ))}
      </ul>
    </Panel>
  );
}
