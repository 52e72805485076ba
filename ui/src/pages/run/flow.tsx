// A workflow's graph while it runs. Rates come from the live picture, at most once a second: each edge looks up its own and
// draws nothing else. Inside one daemon an edge is no stream and has no account: its nodes say how much goes over it.

import { useQuery } from "@tanstack/react-query";
import { createContext, lazy, Suspense, useCallback, useContext, useMemo, useState } from "react";
import { streamKey, useLive } from "@/api/live";
import { daemonsQuery, streamsQuery, useGroups, useStreams, workflowStatusQuery } from "@/api/queries";
import type { DaemonItem, NodeView, StreamView, WorkflowPart, WorkflowStatus } from "@/api/types";
import { type Fact, Facts } from "@/components/facts";
import { Lag } from "@/components/lag";
import { TextLink } from "@/components/link";
import { Loading, Panel } from "@/components/page";
import { RunStatus, Status, type Tone } from "@/components/status";
import { cx } from "@/lib/cx";
import { bytes, count, number, percent } from "@/lib/format";
import { isBehind, LAG_MEANS, lagText } from "@/lib/lag";
import { useNarrow } from "@/lib/narrow";
import { targetsOf } from "@/lib/targets";
import type { Edge, Graph, Node } from "@/workflow/graph";
import { placesOf } from "@/workflow/graph";
import { arranged, placed } from "@/workflow/layout";
import { readDraft } from "../editor/draft";
import { insideOf, noteOf, partsAt, type Work, workOf } from "./nodes";
import { bytesOf, edgeState, fill, quotaOf, streamsOf } from "./streams";
import { OpenTap, type Tap } from "./tap";

const Canvas = lazy(() => import("@/canvas"));

const NONE: readonly StreamView[] = [];
const COLOURS: Record<Tone, string> = {
  good: "border-line bg-surface text-text",
  warn: "border-warn bg-warn-soft text-warn",
  bad: "border-bad bg-bad-soft text-bad",
  off: "border-line bg-surface text-muted",
};

const WorkflowName = createContext("");
const Drawing = createContext<Pick<Graph, "nodes">>({ nodes: [] });
const NO_KEYS = { keys: {} };

const nodeIn = ({ nodes }: Pick<Graph, "nodes">, id: string) => nodes.find((each) => each.id === id);

const LABEL = "tabular flex flex-col items-center rounded-(--radius-sm) border px-1.5 text-xs leading-4";

/** What an edge says: its rate, what waits in it, and what is wrong. */
function Label({ edge }: { edge: Edge }) {
  const streams = useEdgeStreams(useContext(WorkflowName), edge.id);
  // By its own number, which seldom changes: sizes are told anew each second.
  const bytesRate = useLive((state) => edgeState(streams, state.sizes).bytesRate);
  const inside = useInside(useContext(WorkflowName), edge);
  const to = nodeIn(useContext(Drawing), edge.to);
  const { tone, trouble, rate, isEstimate, buffered, bufferedBytes, lagMs } = edgeState(streams);
  const full = fill(streams, quotaOf(to ?? NO_KEYS));
  if (streams.length === 0) {
    if (inside === null) return null;
    return (
      <div className={cx(LABEL, COLOURS.good)}>
        <span className="font-medium">{number(inside.rate)}/s</span>
        {inside.bytesRate > 0 && <span>{bytes(inside.bytesRate)}/s</span>}
      </div>
    );
  }
  return (
    <div title={trouble} className={cx(LABEL, COLOURS[tone])}>
      <span className="font-medium">{number(rate)}/s</span>
      {bytesRate !== null && bytesRate > 0 && (
        <span title={isEstimate ? "as large as what waits on disk" : undefined}>
          {isEstimate && "≈ "}
          {bytes(bytesRate)}/s
        </span>
      )}
      {buffered > 0 && (
        <span>
          {number(buffered)} wait, {bytes(bufferedBytes)}
          {full >= 0.01 && `, ${percent(full * 100)} full`}
        </span>
      )}
      {isBehind(lagMs) && <span title={LAG_MEANS}>{lagText(lagMs)} behind</span>}
      {trouble !== "" && <span className="max-w-36 truncate">{trouble}</span>}
    </div>
  );
}

/** The streams of one edge; whoever asks is drawn anew only when these change. */
function useEdgeStreams(workflow: string, edge: string) {
  const select = useCallback((all: StreamView[]) => streamsOf(all, workflow, edge), [workflow, edge]);
  return useQuery({ ...streamsQuery, select }).data ?? NONE;
}

/** What goes over an edge where it is no stream. */
function useInside(workflow: string, edge: Edge) {
  const drawing = useContext(Drawing);
  const select = useCallback(({ nodes }: WorkflowStatus) => insideOf(drawing, edge, nodes), [drawing, edge]);
  // The page asks for it; if each edge did too, the plane would be asked for it by all of them.
  return useQuery({ ...workflowStatusQuery(workflow), enabled: false, select }).data ?? null;
}

/** The names of the daemons that selectors among the places of a graph stand for; the same as long as they do. */
function useChosen(graph: Graph): Readonly<Record<string, readonly string[]>> {
  const places = useMemo(
    () => [...new Set(graph.nodes.map(({ daemon }) => daemon))].filter((place) => /[:=]/.test(place)),
    [graph],
  );
  const groups = useGroups().data;
  const select = useCallback(
    (daemons: DaemonItem[]) => {
      const named = new Map(groups?.map(({ name, selector }) => [name, selector]));
      return Object.fromEntries(places.map((place) => [place, targetsOf(place, daemons, [], named)]));
    },
    [places, groups],
  );
  return useQuery({ ...daemonsQuery, select }).data ?? NOBODY;
}
const NOBODY = {};

/** On which daemons each node runs, and how it is there. */
function usePlaced(graph: Graph, parts: readonly WorkflowPart[]): ReadonlyMap<string, readonly WorkflowPart[]> {
  const chosen = useChosen(graph);
  return useMemo(
    () => new Map([...placesOf(graph)].map(([id, place]) => [id, partsAt(parts, chosen[place] ?? [place])])),
    [graph, parts, chosen],
  );
}

interface FlowProps {
  tap: Tap;
  name: string;
  graph: Graph;
  status: WorkflowStatus;
}

export function Flow({ name, graph, status: { parts, nodes }, tap }: FlowProps) {
  const [selected, setSelected] = useState<string[]>([]);
  const [edge, setEdge] = useState<string | null>(null);
  // As somebody has put it; on a telephone there is room below, and none beside.
  const isDown = useNarrow();
  const layout = useMemo(
    () => (isDown ? arranged(graph, true) : placed(graph, readDraft(name)?.layout ?? {})),
    [graph, name, isDown],
  );
  const there = usePlaced(graph, parts);
  const notes = useMemo(() => new Map([...there].map(([id, own]) => [id, noteOf(own)] as const)), [there]);
  const node = graph.nodes.find(({ id }) => selected.includes(id));
  const chosen = graph.edges.find(({ id }) => id === edge);
  return (
    <div className="grid gap-3 lg:grid-cols-[minmax(0,1fr)_19rem]">
      <Panel className="h-96 overflow-hidden">
        <Suspense fallback={<Loading what="Loading the canvas" />}>
          <WorkflowName value={name}>
            <Drawing value={graph}>
              <Canvas
                label="The workflow as it runs"
                graph={graph}
                layout={layout}
                isDown={isDown}
                selected={selected}
                onSelect={setSelected}
                notes={notes}
                EdgeLabel={Label}
                onSelectEdge={setEdge}
              />
            </Drawing>
          </WorkflowName>
        </Suspense>
      </Panel>
      <Panel className="max-h-96 overflow-y-auto p-3 text-sm">
        {node ? (
          <AboutNode name={name} node={node} graph={graph} parts={there.get(node.id) ?? []} all={nodes} tap={tap} />
        ) : chosen ? (
          <AboutEdge
            name={name}
            edge={chosen}
            inside={insideOf(graph, chosen, nodes)}
            quotaBytes={quotaOf(nodeIn(graph, chosen.to) ?? NO_KEYS)}
          />
        ) : (
          <p className="text-muted">
            Choose a node or an edge to see what it does. Between daemons an edge has an account; inside a daemon
            records are handed on at once.
          </p>
        )}
      </Panel>
    </div>
  );
}

interface AboutEdgeProps {
  name: string;
  edge: Edge;
  inside: Work | null;
  quotaBytes: number;
}

function AboutEdge({ name, edge: { id }, inside, quotaBytes }: AboutEdgeProps) {
  const streams = useEdgeStreams(name, id);
  return (
    <section aria-label={`Edge ${id}`} className="flex flex-col gap-3">
      <h2 className="font-semibold break-words">{id.replace("->", " → ")}</h2>
      {streams.length === 0 && (
        <>
          {inside && (
            <Facts
              facts={[
                ["Records/s", number(inside.rate)],
                ["Bytes/s", bytes(inside.bytesRate)],
              ]}
            />
          )}
          <p className="text-muted">It is inside of a daemon, which hands records on at once: nothing waits here.</p>
        </>
      )}
      {streams.map((stream) => (
        <Account key={streamKey(stream)} stream={stream} quotaBytes={quotaBytes} />
      ))}
    </section>
  );
}

/** produced = delivered + buffered + dropped + dead, as a sum that one can check. */
function Account({ stream, quotaBytes }: { stream: StreamView; quotaBytes: number }) {
  const rates = useLive((state) => state.rates.get(streamKey(stream)));
  const size = useLive((state) => state.sizes.get(streamKey(stream)));
  const rate = rates?.at(-1) ?? stream.rate;
  const { ledger } = stream;
  const facts: Fact[] = [
    ["Records/s", number(rate)],
    ["Bytes/s", bytesOf(stream, rate, size)],
    ["Queue", `${percent((100 * stream.buffered_bytes) / quotaBytes)} of ${bytes(quotaBytes)}`],
    ["Lag", <Lag key="lag" ms={stream.lag_ms} />],
    ...(stream.latency_ms == null ? [] : [["Under way for", `${number(stream.latency_ms)} ms`] as const]),
    ["Produced", number(ledger.produced)],
    ["= delivered", number(ledger.delivered)],
    ["+ buffered", `${number(ledger.buffered)}${stream.buffered_bytes > 0 ? `, ${bytes(stream.buffered_bytes)}` : ""}`],
    ["+ dropped", number(ledger.dropped)],
    ["+ dead", number(ledger.dead)],
  ];
  return (
    <div className="flex flex-col gap-1.5">
      <p className="text-muted">
        {stream.producer} → {stream.consumer}
      </p>
      <Facts facts={facts} />
      {stream.trouble !== "" ? (
        <>
          <Status tone="warn">in trouble</Status>
          <p className="break-words">{stream.trouble}</p>
        </>
      ) : (
        <Status tone={stream.balances ? "good" : "off"}>{stream.balances ? "balances" : "being settled"}</Status>
      )}
    </div>
  );
}

interface AboutNodeProps {
  tap: Tap;
  name: string;
  node: Node;
  graph: Graph;
  /** On the daemons that have it, the worst first. */
  parts: readonly WorkflowPart[];
  all: readonly NodeView[];
}

/** So many daemons are named here; all of them are in the table below. */
const DAEMONS_MAX = 5;

function AboutNode({ name, node, graph, parts, all, tap }: AboutNodeProps) {
  const streams = useStreams().data ?? NONE;
  const work = workOf(all, node.id);
  const into = graph.edges.filter(({ to }) => to === node.id).flatMap(({ id }) => streamsOf(streams, name, id));
  const dead = into.reduce((sum, { ledger }) => sum + ledger.dead, 0);
  const causes = [...new Set(parts.map(({ cause }) => cause).filter(Boolean))];
  const facts: Fact[] = work
    ? [
        ["Records/s", number(work.rate)],
        ["Bytes/s", bytes(work.bytesRate)],
        ["Records", number(work.records)],
        ...(work.batchMs === null
          ? []
          : [["At work", `${work.batchMs < 0.1 ? "less than 0.1" : number(work.batchMs)} ms for a batch`] as const]),
        ["Tried again", number(work.faults)],
        ["Dead letters", number(work.errors)],
      ]
    : [["Dead on the way to it", number(dead)]];
  return (
    <section aria-label={`Node ${node.id}`} className="flex flex-col gap-3">
      <div>
        <p className="text-xs text-muted">
          {node.role} {node.component}
        </p>
        <h2 className="font-semibold break-words">{node.id}</h2>
      </div>
      <ul aria-label={`Where ${node.id} runs`} className="flex flex-col gap-0.5">
        {parts.slice(0, DAEMONS_MAX).map(({ daemon, state }) => (
          <li key={daemon} className="flex flex-wrap justify-between gap-x-3">
            <TextLink href={`/daemons/${encodeURIComponent(daemon)}`}>{daemon}</TextLink>
            <RunStatus state={state} />
          </li>
        ))}
        {parts.length > DAEMONS_MAX && (
          <li className="text-muted">and {count(parts.length - DAEMONS_MAX, "daemon")} more</li>
        )}
        {parts.length === 0 && <li className="text-muted">on no daemon that has reported</li>}
      </ul>
      <Facts facts={facts} />
      {causes.slice(0, DAEMONS_MAX).map((cause) => (
        <p key={cause} className="break-words text-bad">
          {cause}
        </p>
      ))}
      {(work ? work.errors : dead) > 0 && (
        <TextLink href={`/workflows/${encodeURIComponent(name)}/letters`}>See the dead letters</TextLink>
      )}
      <OpenTap key={node.id} tap={tap} workflow={name} node={node.id} daemons={parts.map(({ daemon }) => daemon)} />
    </section>
  );
}
