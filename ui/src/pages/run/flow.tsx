// A workflow's graph while it runs. Rates come from the live picture, at most once a second: each edge looks up its own and
// draws nothing else. Inside one daemon an edge is no stream and has no account: it says so by saying nothing.

import { useQuery } from "@tanstack/react-query";
import { createContext, lazy, Suspense, useCallback, useContext, useMemo, useState } from "react";
import { streamKey, useLive } from "@/api/live";
import { streamsQuery, useStreams } from "@/api/queries";
import type { RunState, StreamView, WorkflowPart } from "@/api/types";
import { type Fact, Facts } from "@/components/facts";
import { Lag } from "@/components/lag";
import { TextLink } from "@/components/link";
import { Loading, Panel } from "@/components/page";
import { RUN_TONES, Status, type Tone } from "@/components/status";
import { cx } from "@/lib/cx";
import { bytes, number, percent } from "@/lib/format";
import { isBehind, LAG_MEANS, lagText } from "@/lib/lag";
import type { Edge, Graph, Node } from "@/workflow/graph";
import { placesOf } from "@/workflow/graph";
import { placed } from "@/workflow/layout";
import { readDraft } from "../editor/draft";
import { edgeState, fill, quotaOf, streamsOf, worst } from "./streams";
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
const Nodes = createContext<ReadonlyMap<string, Node>>(new Map());
const NO_KEYS = { keys: {} };

/** What an edge says: its rate, what waits in it, and what is wrong. */
function Label({ edge }: { edge: Edge }) {
  const streams = useEdgeStreams(useContext(WorkflowName), edge.id);
  // By its own number, which seldom changes: sizes are told anew each second.
  const bytesRate = useLive((state) => edgeState(streams, state.sizes).bytesRate);
  const to = useContext(Nodes).get(edge.to);
  const { tone, trouble, rate, buffered, bufferedBytes, lagMs } = edgeState(streams);
  const full = fill(streams, quotaOf(to ?? NO_KEYS));
  if (streams.length === 0) return null;
  return (
    <div
      title={trouble}
      className={cx(
        "tabular flex flex-col items-center rounded-(--radius-sm) border px-1.5 text-xs leading-4",
        COLOURS[tone],
      )}
    >
      <span className="font-medium">{number(rate)}/s</span>
      {bytesRate !== null && rate > 0 && <span title="as large as what waits on disk">≈ {bytes(bytesRate)}/s</span>}
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

function useNotes(graph: Graph, parts: readonly WorkflowPart[]) {
  return useMemo(() => {
    const places = placesOf(graph);
    const states = new Map(parts.map(({ daemon, state }) => [daemon, state]));
    return new Map(
      graph.nodes.map((node) => {
        const state: RunState | null = states.get(places.get(node.id) ?? "") ?? null;
        return [node.id, { tone: state ? RUN_TONES[state] : ("off" as const), text: state ?? "unknown" }] as const;
      }),
    );
  }, [graph, parts]);
}

interface FlowProps {
  tap: Tap;
  name: string;
  graph: Graph;
  parts: readonly WorkflowPart[];
}

export function Flow({ name, graph, parts, tap }: FlowProps) {
  const [selected, setSelected] = useState<string[]>([]);
  const [edge, setEdge] = useState<string | null>(null);
  const layout = useMemo(() => placed(graph, readDraft(name)?.layout ?? {}), [graph, name]);
  const notes = useNotes(graph, parts);
  const nodes = useMemo(() => new Map(graph.nodes.map((each) => [each.id, each])), [graph]);
  const node = graph.nodes.find(({ id }) => selected.includes(id));
  return (
    <div className="grid gap-3 lg:grid-cols-[minmax(0,1fr)_19rem]">
      <Panel className="h-96 overflow-hidden">
        <Suspense fallback={<Loading what="Loading the canvas" />}>
          <WorkflowName value={name}>
            <Nodes value={nodes}>
              <Canvas
                label="The workflow as it runs"
                graph={graph}
                layout={layout}
                selected={selected}
                onSelect={setSelected}
                notes={notes}
                EdgeLabel={Label}
                onSelectEdge={setEdge}
              />
            </Nodes>
          </WorkflowName>
        </Suspense>
      </Panel>
      <Panel className="max-h-96 overflow-y-auto p-3 text-sm">
        {node ? (
          <AboutNode name={name} node={node} graph={graph} parts={parts} tap={tap} />
        ) : edge !== null && graph.edges.some(({ id }) => id === edge) ? (
          <AboutEdge
            name={name}
            edge={edge}
            quotaBytes={quotaOf(nodes.get(edge.split("->").at(-1) ?? "") ?? NO_KEYS)}
          />
        ) : (
          <p className="text-muted">
            Choose a node or an edge to see what it does. Numbers stand on the edges between daemons; inside a daemon
            records are handed on at once, and counted where they leave it.
          </p>
        )}
      </Panel>
    </div>
  );
}

function AboutEdge({ name, edge, quotaBytes }: { name: string; edge: string; quotaBytes: number }) {
  const streams = useEdgeStreams(name, edge);
  return (
    <section aria-label={`Edge ${edge}`} className="flex flex-col gap-3">
      <h2 className="font-semibold break-words">{edge.replace("->", " → ")}</h2>
      {streams.length === 0 && <p className="text-muted">Nothing has flowed between two daemons here.</p>}
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
    ["Bytes/s", size === undefined ? "not known: nothing has waited yet" : `about ${bytes(rate * size)}`],
    ["Queue", `${percent((100 * stream.buffered_bytes) / quotaBytes)} of ${bytes(quotaBytes)}`],
    ["Lag", <Lag key="lag" ms={stream.lag_ms} />],
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
  parts: readonly WorkflowPart[];
}

function AboutNode({ name, node, graph, parts, tap }: AboutNodeProps) {
  const { data } = useStreams();
  const place = placesOf(graph).get(node.id) ?? "";
  const part = parts.find(({ daemon }) => daemon === place);
  const around = graph.edges.filter(({ from, to }) => from === node.id || to === node.id);
  const streams = around.flatMap(({ id }) => streamsOf(data ?? [], name, id));
  const state = worst(part?.state ?? null);
  // A place may be a selector: then every daemon of the workflow may have the node.
  const tapped = part ? [place] : parts.map(({ daemon }) => daemon);
  const dead = streams.reduce((sum, { ledger }) => sum + ledger.dead, 0);
  return (
    <section aria-label={`Node ${node.id}`} className="flex flex-col gap-3">
      <div>
        <p className="text-xs text-muted">
          {node.role} {node.component}
        </p>
        <h2 className="font-semibold break-words">{node.id}</h2>
      </div>
      <Facts
        facts={[
          ["Daemon", place || "none"],
          [
            "Its part",
            <Status key="state" tone={state}>
              {part?.state ?? "unknown"}
            </Status>,
          ],
          ["Dead letters", number(dead)],
        ]}
      />
      {part?.cause && <p className="break-words text-bad">{part.cause}</p>}
      {dead > 0 && (
        <TextLink href={`/workflows/${encodeURIComponent(name)}/letters?q=${encodeURIComponent(node.id)}`}>
          See its dead letters
        </TextLink>
      )}
      <OpenTap key={node.id} tap={tap} workflow={name} node={node.id} daemons={tapped} />
    </section>
  );
}
