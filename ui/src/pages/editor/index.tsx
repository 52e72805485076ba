// The editor: one text, drawn as a graph, listed with a form, and written as text; all three kept in step.

import { useQuery } from "@tanstack/react-query";
import { LayoutGrid, Redo2, Undo2 } from "lucide-react";
import { lazy, type ReactNode, Suspense, useEffect, useMemo, useRef, useState } from "react";
import { useLocation, useParams } from "wouter";
import { keys } from "@/api/keys";
import { componentsQuery, useDaemons, useWorkflow } from "@/api/queries";
import { useUser } from "@/api/session";
import type { ComponentView, Problem } from "@/api/types";
import { Allowed, useMay } from "@/components/allowed";
import { Button, IconButton } from "@/components/button";
import { Callout, Failure } from "@/components/callout";
import { Data } from "@/components/data";
import { Textarea } from "@/components/field";
import { Loading, Page } from "@/components/page";
import { tell } from "@/components/toast";
import { WorkflowTabs } from "@/components/workflow-header";
import { cx } from "@/lib/cx";
import { count, relative } from "@/lib/format";
import { useSearchState } from "@/lib/search";
import { isName } from "@/workflow/edit";
import { readGraph } from "@/workflow/graph";
import { placed } from "@/workflow/layout";
import { type Mark, merged } from "@/workflow/merged";
import { Deploy } from "./deploy";
import {
  type Beginning,
  beginning,
  forgetDraft,
  keepDraft,
  lineRange,
  nameOfNew,
  type Remote,
  readDraft,
  template,
} from "./draft";
import { Inspector } from "./inspector";
import { fetchRemote, type Kept } from "./keeping";
import { Outline, Palette } from "./outline";
import { meaningOf, whereIs } from "./pressed";
import { Preview } from "./preview";
import { Problems, problemsOf, renamed, useProblems } from "./problems";
import { useWorkbench, type Workbench } from "./state";
import { Tests } from "./tests";

const Canvas = lazy(() => import("@/canvas"));

export default function Editor() {
  const { name } = useParams();
  return name === undefined ? <New /> : <Existing key={name} name={name} />;
}

interface Surroundings {
  components: readonly ComponentView[];
  daemons: readonly string[];
}

/** What the fleet has to offer; a new page waits for it. */
function useSurroundings(): { error: unknown; found: Surroundings | null } {
  const daemons = useDaemons();
  const components = useQuery(componentsQuery);
  const names = useMemo(() => daemons.data?.map(({ name }) => name) ?? [], [daemons.data]);
  if (!daemons.data || !components.data) return { error: daemons.error ?? components.error, found: null };
  return { error: null, found: { components: components.data, daemons: names } };
}

/** The draft that the plane has; undefined while it is asked. Whoever may not have one there is not asked for it. Where the plane
 *  does not say, somebody decides to go on without. */
function useRemote(key: string | null, deployed: { text: string; revision: number } | null): RemoteAsked {
  const [isLeft, leave] = useState(false);
  const remote = useQuery({
    queryKey: [...keys.drafts, key, "to begin with"],
    queryFn: () => (key && deployed ? fetchRemote(key, deployed) : null),
    enabled: key !== null && deployed !== null,
    staleTime: Infinity,
    gcTime: 0,
  });
  if (key === null) return { remote: null, failure: null };
  // Only the beginning waits for it: whoever edits already goes on, however asking once more ends.
  if (remote.data !== undefined) return { remote: remote.data, failure: null };
  if (isLeft) return { remote: "unknown", failure: null };
  if (!remote.isError) return { remote: undefined, failure: null };
  const failure = (
    <>
      <Failure error={remote.error} onRetry={() => void remote.refetch()} />
      <p className="text-sm">
        The plane may have a draft of it, and does not say. What this browser has is still here.{" "}
        <Button onClick={() => leave(true)}>Go on with that</Button>
      </p>
    </>
  );
  return { remote: undefined, failure };
}

interface RemoteAsked {
  remote: Remote | null | "unknown" | undefined;
  failure: ReactNode;
}

function New() {
  const [use] = useSearchState("use");
  const user = useUser((state) => state.user?.name ?? "");
  const may = useMay("operator");
  const { error, found } = useSurroundings();
  const [role, component] = use.split("/");
  const example = found?.components.find((each) => each.role === role && each.name === component)?.example;
  // A new workflow is a draft from the first change on; what it began with is what discarding it leads back to.
  const begun = found && { text: example || template(found.daemons), revision: 0 };
  // An example that somebody wants to use is not held up by what they left unfinished, nor does it replace that.
  const key = may && !example ? nameOfNew(user) : null;
  const { remote, failure } = useRemote(key, begun);
  if (!found || !begun || remote === undefined) {
    return <Page title="New workflow">{failure ?? (error !== null ? <Failure error={error} /> : <Loading />)}</Page>;
  }
  const kept = readDraft(null);
  const local = kept && (!example || kept.base === begun.text) ? { ...kept, base: kept.base || begun.text } : null;
  return <Bench key={use} name={null} draftKey={key} initial={beginning(local, remote, begun)} {...found} />;
}

function Existing({ name }: { name: string }) {
  const workflow = useWorkflow(name);
  const { error, found } = useSurroundings();
  const may = useMay("operator");
  const key = may ? name : null;
  const deployed = workflow.data ? { text: workflow.data.text, revision: workflow.data.view.revision } : null;
  const { remote, failure } = useRemote(key, deployed);
  if (!deployed || !found || remote === undefined) {
    return (
      <Page title={name}>
        <WorkflowTabs name={name} />
        {failure ?? (error !== null ? <Failure error={error} /> : <Data query={workflow}>{() => <Loading />}</Data>)}
      </Page>
    );
  }
  return <Bench name={name} draftKey={key} initial={beginning(readDraft(name), remote, deployed)} {...found} />;
}

const VIEWS = [
  ["", "Canvas"],
  ["text", "Text"],
  ["tests", "Tests"],
  ["preview", "Preview"],
] as const;

const isTyping = (target: EventTarget | null) => whereIs(target) !== "elsewhere";

/** To the place in the page that shows it, as near as there is one. */
function focusPlace(place: string) {
  const parts = place.replaceAll(/\[\d+\]/g, "").split(".");
  for (; parts.length > 0; parts.pop()) {
    const found = document.querySelector<HTMLElement>(`[data-place="${CSS.escape(parts.join("."))}"]`);
    const field = found?.querySelector<HTMLElement>("input, select, textarea, button");
    if (!field) continue;
    field.focus();
    field.scrollIntoView({ block: "nearest" });
    return parts.length >= 3 || place.split(".").length < 3;
  }
  return false;
}

function useShortcuts(bench: Workbench, onDeploy: () => void) {
  const latest = useRef({ bench, onDeploy });
  latest.current = { bench, onDeploy };
  useEffect(() => {
    const onKey = (event: KeyboardEvent) => {
      const meaning = meaningOf(event, whereIs(event.target));
      if (!meaning || document.querySelector("[role=dialog]")) return;
      const { bench: now, onDeploy: deploy } = latest.current;
      event.preventDefault();
      if (meaning === "deploy") deploy();
      else if (meaning === "all") now.select(now.graph.nodes.map(({ id }) => id));
      else now[meaning]();
    };
    const onCopy = (event: ClipboardEvent) => {
      const { bench: now } = latest.current;
      if (isTyping(event.target) || now.selected.length === 0 || String(getSelection()) !== "") return;
      event.preventDefault();
      event.clipboardData?.setData("text/plain", now.clip(now.selected));
      if (event.type === "cut") now.remove(now.selected);
    };
    const onPaste = (event: ClipboardEvent) => {
      if (isTyping(event.target)) return;
      if (latest.current.bench.paste(event.clipboardData?.getData("text/plain") ?? "")) event.preventDefault();
    };
    window.addEventListener("keydown", onKey);
    document.addEventListener("copy", onCopy);
    document.addEventListener("cut", onCopy);
    document.addEventListener("paste", onPaste);
    return () => {
      window.removeEventListener("keydown", onKey);
      document.removeEventListener("copy", onCopy);
      document.removeEventListener("cut", onCopy);
      document.removeEventListener("paste", onPaste);
    };
  }, []);
}

/** How the draft differs from what it began with, and the graph with what is gone from it. */
function useCompared(bench: Workbench, isOn: boolean) {
  return useMemo(() => {
    const before = isOn ? readGraph(bench.base.text).graph : null;
    return before ? merged(before, bench.graph) : { graph: bench.graph, marks: NO_MARKS };
  }, [bench.graph, bench.base.text, isOn]);
}
const NO_MARKS: ReadonlyMap<string, Mark> = new Map();

interface BenchProps extends Surroundings {
  name: string | null;
  draftKey: string | null;
  initial: Beginning;
}

function Bench({ name, draftKey, initial, components, daemons }: BenchProps) {
  const [, go] = useLocation();
  const bench = useWorkbench(name, draftKey, initial, components, daemons);
  const [view, setView] = useSearchState("view");
  const [isDeploying, setDeploying] = useState(false);
  const { check, isSettled } = useProblems(bench.text);
  const problems = useMemo(
    () => [...renamed(bench.name, bench.graph.name, bench.text), ...(check.data?.problems ?? [])],
    [bench.name, bench.graph.name, bench.text, check.data],
  );
  const source = useRef<HTMLTextAreaElement>(null);
  const title = name ?? "New workflow";
  const may = useMay("operator");
  const deploy = () => {
    if (!may) return;
    if (isName(bench.graph.name)) setDeploying(true);
    else {
      bench.select([]);
      tell("The workflow needs a name first.");
    }
  };
  useShortcuts(bench, deploy);
  useEffect(() => {
    document.title = `${title} · edit · Mycelial`;
  }, [title]);
  const jump = (problem: Problem) => {
    const node = bench.graph.nodes.find((each) => problemsOf([problem], each).length > 0);
    if (node && bench.syntax === null) bench.select([node.id]);
    // The form of another node has to be drawn first.
    setTimeout(() => {
      if ((view !== "text" || problem.line === 0) && node && bench.syntax === null && focusPlace(problem.place)) return;
      if (problem.line === 0) return;
      setView("text");
      setTimeout(() => {
        source.current?.focus();
        source.current?.setSelectionRange(...lineRange(bench.text, problem.line));
      });
    });
  };
  const focusForm = () => setTimeout(() => document.querySelector<HTMLElement>("aside [data-place] input")?.focus());
  const hasSides = view === "" || view === "text";
  return (
    <div className="flex min-h-0 flex-col md:h-dvh">
      <header className="flex flex-wrap items-center gap-x-3 gap-y-1 px-4 pt-3">
        <h1 className="min-w-0 truncate text-lg font-semibold">{title}</h1>
        {bench.isChanged && <KeptDraft kept={bench.keeping.kept} />}
        <div className="ml-auto flex flex-wrap items-center gap-1">
          <IconButton label="Undo (Ctrl Z)" disabled={!bench.canUndo} onClick={bench.undo}>
            <Undo2 aria-hidden="true" />
          </IconButton>
          <IconButton label="Redo (Ctrl Shift Z)" disabled={!bench.canRedo} onClick={bench.redo}>
            <Redo2 aria-hidden="true" />
          </IconButton>
          <IconButton label="Arrange" onClick={bench.arrange}>
            <LayoutGrid aria-hidden="true" />
          </IconButton>
          {bench.isChanged && (
            <Button kind="quiet" onClick={bench.discard}>
              Discard the draft
            </Button>
          )}
          <Allowed needs="operator" what="Deploying">
            <Button kind="main" title="Ctrl S" onClick={deploy}>
              Deploy …
            </Button>
          </Allowed>
        </div>
      </header>
      <div className="flex flex-wrap items-end justify-between gap-x-4 border-b border-line px-4 pt-2 [&>nav]:mt-0 [&>nav]:border-0">
        {name !== null ? <WorkflowTabs name={name} /> : <span />}
        <fieldset aria-label="How to edit" className="flex gap-1 pb-1.5">
          {VIEWS.map(([key, label]) => (
            <button
              key={key}
              type="button"
              aria-pressed={view === key}
              onClick={() => setView(key)}
              className="h-7 rounded-(--radius) px-2.5 text-sm text-muted hover:bg-hover aria-pressed:bg-accent-soft aria-pressed:font-medium aria-pressed:text-accent"
            >
              {label}
              {key === "tests" && bench.graph.tests.length > 0 && ` (${bench.graph.tests.length})`}
            </button>
          ))}
        </fieldset>
      </div>
      <OtherDraft bench={bench} />
      {bench.syntax && (
        <div className="px-4 pt-2">
          <Callout tone="warn" title={`Line ${bench.syntax.line} is not TOML: ${bench.syntax.message}`}>
            The canvas and the forms show the text as it was before; mend it in the text.
          </Callout>
        </div>
      )}
      <div className="flex min-h-0 flex-1 max-md:flex-col">
        {hasSides && (
          <div
            inert={bench.syntax !== null}
            className="flex min-h-0 w-52 shrink-0 flex-col border-r border-line bg-surface max-md:w-full max-md:border-r-0 max-md:border-b [&>section:first-child]:max-h-[50%] max-md:[&>section]:max-h-72"
          >
            <Outline bench={bench} problems={problems} />
            <Palette bench={bench} onAdded={focusForm} />
          </div>
        )}
        <div className="flex min-h-0 min-w-0 flex-1 flex-col">
          {view === "" && <Drawn bench={bench} problems={problems} />}
          {view === "text" && (
            <Textarea
              ref={source}
              aria-label="The workflow's text"
              className="min-h-80 flex-1 resize-none rounded-none border-0 p-4 focus-visible:-outline-offset-2"
              value={bench.text}
              onChange={(event) => bench.write(event.target.value)}
            />
          )}
          {!hasSides && (
            <div inert={bench.syntax !== null} className="min-h-0 flex-1 overflow-y-auto p-4">
              {view === "tests" ? <Tests bench={bench} /> : <Preview bench={bench} />}
            </div>
          )}
          <Problems check={check} problems={problems} isSettled={isSettled} onJump={jump} />
        </div>
        {hasSides && (
          <aside
            aria-label="Form"
            inert={bench.syntax !== null}
            className="w-80 shrink-0 overflow-y-auto border-l border-line bg-surface max-md:w-full max-md:border-t max-md:border-l-0"
          >
            <Inspector
              bench={bench}
              problems={problems}
              onRemoved={() => document.querySelector<HTMLElement>("main [data-search]")?.focus()}
            />
          </aside>
        )}
      </div>
      {isDeploying && (
        <Deploy
          bench={bench}
          isValid={check.isSuccess && isSettled && problems.length === 0}
          onClose={() => setDeploying(false)}
          onDone={({ name: target, revision, rollout }) => {
            void bench.keeping.done();
            if (name === null) forgetDraft(null);
            // Where its nodes stand is kept under its name from now on.
            const { text, layout } = bench;
            keepDraft(target, { text, from: revision, base: text, layout, tag: 0, isSent: true });
            if (rollout === undefined) {
              tell(`${target} is deployed as revision ${revision}.`);
              go(`/workflows/${encodeURIComponent(target)}`);
            } else {
              tell(`Revision ${revision} of ${target} goes out in waves.`);
              go(`/rollouts/${rollout}`);
            }
          }}
        />
      )}
    </div>
  );
}

function KeptDraft({ kept }: { kept: Kept }) {
  const words = { plane: "draft, kept by the plane", browser: "draft, kept in this browser", nowhere: "draft" };
  const why = kept.at === "browser" && kept.why !== "" ? `The plane did not take it: ${kept.why}` : undefined;
  return (
    <span title={why} className={cx("text-sm", why ? "text-warn" : "text-muted")}>
      {words[kept.at]}
    </span>
  );
}

/** Somebody else has kept another draft of it, or the same person in another browser. */
function OtherDraft({ bench }: { bench: Workbench }) {
  const { conflict, keepMine } = bench.keeping;
  if (!conflict) return null;
  return (
    <div className="px-4 pt-2">
      <Callout
        tone="warn"
        isUrgent
        title={`${conflict.by} kept another draft of it, ${relative(conflict.atUnixMs, Date.now())}.`}
        actions={
          <>
            <Button onClick={() => bench.adopt(conflict)}>Go on with that one</Button>
            <Button onClick={keepMine}>Keep this one</Button>
          </>
        }
      >
        Until you choose, this one is kept in this browser only.
      </Callout>
    </div>
  );
}

function Drawn({ bench, problems }: { bench: Workbench; problems: readonly Problem[] }) {
  const [isCompared, setCompared] = useState(false);
  const isComparing = isCompared && bench.name !== null && bench.isChanged;
  const { graph, marks } = useCompared(bench, isComparing);
  const notes = useMemo(() => {
    const found = bench.graph.nodes.map((node) => [node.id, problemsOf(problems, node).length] as const);
    return new Map(
      found.filter(([, n]) => n > 0).map(([id, n]) => [id, { tone: "bad" as const, text: count(n, "problem") }]),
    );
  }, [bench.graph, problems]);
  const changes = {
    onMove: (positions: Workbench["layout"]) => bench.move(positions),
    onConnect: (from: string, to: string) => bench.edit([{ kind: "connect", from, to }]),
    onDelete: bench.remove,
    onDropComponent: (dropped: string, spot: { x: number; y: number }) => {
      const component = bench.components.find(({ role, name }) => `${role}/${name}` === dropped);
      if (component) bench.add(component, spot);
    },
  };
  // What is gone needs a place too.
  const layout = useMemo(() => placed(graph, bench.layout), [graph, bench.layout]);
  return (
    <div
      className={cx("relative min-h-80 flex-1 max-md:h-96 max-md:flex-none", bench.syntax && "opacity-60")}
      inert={bench.syntax !== null}
    >
      <Suspense fallback={<Loading what="Loading the canvas" />}>
        <Canvas
          label="Canvas"
          graph={graph}
          layout={layout}
          selected={bench.selected}
          onSelect={bench.select}
          notes={notes}
          marks={marks}
          outputs={bench.outputs}
          fit={bench.fit}
          {...(isComparing ? {} : { changes })}
        />
      </Suspense>
      {bench.name !== null && bench.isChanged && (
        <Button className="absolute top-2 right-2" aria-pressed={isComparing} onClick={() => setCompared(!isCompared)}>
          {isComparing ? "Go on editing" : "Show what changed"}
        </Button>
      )}
    </div>
  );
}
