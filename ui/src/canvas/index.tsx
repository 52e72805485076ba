// The canvas: a workflow's graph, to be looked at or to be changed by mouse. Says what somebody wants to do; changes nothing
// itself. In a chunk of its own.

import {
  applyNodeChanges,
  Background,
  type Connection,
  Controls,
  MiniMap,
  type NodeChange,
  ReactFlow,
  ReactFlowProvider,
  useReactFlow,
  useStore,
  useStoreApi,
} from "@xyflow/react";
import "./canvas.css";
import { type ComponentType, type DragEvent, useCallback, useEffect, useMemo, useRef, useState } from "react";
import { canConnect, type Edge, type Graph, placesOf } from "@/workflow/graph";
import type { Layout, Position } from "@/workflow/history";
import { NODE_HEIGHT, NODE_WIDTH } from "@/workflow/layout";
import type { Mark } from "@/workflow/merged";
import { DRAG_TYPE } from "./drag";
import { type CanvasEdge, Flow } from "./edge";
import { type CanvasNode, type NodeData, Part } from "./node";
import { isNarrow, PADDING, viewOf, ZOOM_MIN } from "./view";

export interface Changes {
  onMove: (positions: Layout) => void;
  onConnect: (from: string, to: string) => void;
  /** Nodes and references between them: `[from, to]`. */
  onDelete: (nodes: string[], edges: [string, string][]) => void;
  onDropComponent: (component: string, position: Position) => void;
}

interface CanvasProps {
  /** What it shows, for screen readers. */
  label: string;
  graph: Graph;
  layout: Layout;
  selected: readonly string[];
  onSelect: (ids: string[]) => void;
  /** Missing: it can only be looked at. */
  changes?: Changes;
  notes?: ReadonlyMap<string, NodeData["note"]>;
  marks?: ReadonlyMap<string, Mark>;
  outputs?: ReadonlyMap<string, readonly string[]>;
  EdgeLabel?: ComponentType<{ edge: Edge }>;
  onSelectEdge?: (id: string | null) => void;
  /** Another number: show the whole again. Without it, whenever nodes come or go. */
  fit?: number;
  /** The layout goes down, and edges with it. */
  isDown?: boolean;
}

const NODE_TYPES = { part: Part };
const EDGE_TYPES = { flow: Flow };
const NONE: readonly string[] = [];
// Always the same list: the canvas forgets which keys are down when it is given another.
const MORE_KEYS = ["Shift", "Meta", "Control"];
/** Until its size is known. */
const FIRST_FIT = { padding: PADDING, maxZoom: 1 };

/** As `from` has it: the node, or its output with a dot. */
const referenceOf = ({ from, output }: Pick<Edge, "from" | "output">) => (output ? `${from}.${output}` : from);

function useNodes(props: CanvasProps) {
  const { graph, layout, selected, notes, marks, outputs, changes, isDown = false } = props;
  const [nodes, setNodes] = useState<CanvasNode[]>([]);
  const isReadOnly = changes === undefined;
  useEffect(() => {
    const places = placesOf(graph);
    setNodes((before) => {
      const old = new Map(before.map((node) => [node.id, node]));
      return graph.nodes.map((node): CanvasNode => {
        const was = old.get(node.id);
        const place = places.get(node.id) ?? "";
        const named = outputs?.get(node.id) ?? NONE;
        return {
          ...(was?.measured ? { measured: was.measured } : {}),
          id: node.id,
          type: "part",
          position: layout[node.id] ?? { x: 0, y: 0 },
          width: NODE_WIDTH,
          height: NODE_HEIGHT,
          selected: selected.includes(node.id),
          ariaLabel: `${node.role} ${node.id}, ${node.component}${place ? ` on ${place}` : ""}`,
          data: {
            node,
            place,
            outputs: named,
            note: notes?.get(node.id) ?? null,
            mark: marks?.get(node.id) ?? null,
            isReadOnly,
            isDown,
          },
        };
      });
    });
  }, [graph, layout, selected, notes, marks, outputs, isReadOnly, isDown]);
  return [nodes, setNodes] as const;
}

function useEdges({ graph, marks, EdgeLabel, outputs }: CanvasProps): CanvasEdge[] {
  return useMemo(
    () =>
      graph.edges.map((edge): CanvasEdge => {
        const mark = [marks?.get(edge.from), marks?.get(edge.to)];
        const isNamed = outputs?.get(edge.from)?.includes(edge.output) ?? false;
        return {
          id: edge.id,
          type: "flow",
          source: edge.from,
          target: edge.to,
          ...(isNamed ? { sourceHandle: edge.output } : {}),
          ...(mark.includes("removed") ? { className: "is-removed" } : {}),
          ...(mark.includes("added") ? { className: "is-added" } : {}),
          ariaLabel: `from ${referenceOf(edge)} to ${edge.to}`,
          data: { edge, Label: EdgeLabel ?? null },
        };
      }),
    [graph, marks, EdgeLabel, outputs],
  );
}

/** Delete and Backspace, wherever the focus is, unless they mean something there. */
function useDeleteKey(onDelete: () => void) {
  const latest = useRef(onDelete);
  latest.current = onDelete;
  useEffect(() => {
    const onKey = (event: KeyboardEvent) => {
      if (event.defaultPrevented || !["Delete", "Backspace"].includes(event.key)) return;
      const isTyping = event.target instanceof HTMLElement && event.target.closest("input, textarea, select");
      if (isTyping || document.querySelector("[role=dialog]")) return;
      event.preventDefault();
      latest.current();
    };
    window.addEventListener("keydown", onKey);
    return () => window.removeEventListener("keydown", onKey);
  }, []);
}

function Inner(props: CanvasProps) {
  const { label, graph, selected, onSelect, onSelectEdge, changes } = props;
  const flow = useReactFlow<CanvasNode, CanvasEdge>();
  const [nodes, setNodes] = useNodes(props);
  const shown = useEdges(props);
  const [edge, setEdge] = useState<string | null>(null);
  const edges = useMemo(
    () => shown.map((each) => (each.id === edge ? { ...each, selected: true } : each)),
    [shown, edge],
  );
  const count = graph.nodes.length;
  const store = useStoreApi();
  const show = useCallback(() => {
    const timer = setTimeout(() => {
      const { width, height } = store.getState();
      if (width > 0) void flow.setViewport(viewOf(flow.getNodesBounds(flow.getNodes()), width, height));
    }, 50);
    return () => clearTimeout(timer);
  }, [flow, store]);
  // biome-ignore lint/correctness/useExhaustiveDependencies: what is new has to be seen
  useEffect(show, [props.fit ?? count, props.isDown, show]);
  const width = useStore((state) => state.width);
  // Whoever draws keeps the view they chose, as long as the canvas is of its kind; what is only looked at is shown at every width.
  const shownAt = changes === undefined ? width : `${width > 0} ${isNarrow(width)}`;
  // biome-ignore lint/correctness/useExhaustiveDependencies: that is when it has to be shown anew
  useEffect(show, [shownAt, show]);
  const select = useCallback(
    (id: string | null) => {
      setEdge(id);
      onSelectEdge?.(id);
    },
    [onSelectEdge],
  );
  useDeleteKey(() => {
    const cut = edges.find((each) => each.selected)?.data?.edge;
    changes?.onDelete([...selected], cut && selected.length === 0 ? [[referenceOf(cut), cut.to]] : []);
    select(null);
  });
  const onNodesChange = (list: NodeChange<CanvasNode>[]) => {
    const kept = list.filter(({ type }) => type !== "remove");
    const next = applyNodeChanges(kept, nodes);
    setNodes(next);
    if (list.some(({ type }) => type === "select")) {
      const ids = next.filter((node) => node.selected).map(({ id }) => id);
      if (ids.length !== selected.length || ids.some((id) => !selected.includes(id))) onSelect(ids);
      if (ids.length > 0 && edge) select(null);
    }
    const moved = list.filter((change) => change.type === "position" && !change.dragging);
    if (moved.length > 0 && changes) {
      const ids = new Set(moved.map((change) => ("id" in change ? change.id : "")));
      const places = next.filter(({ id }) => ids.has(id)).map(({ id, position }) => [id, position] as const);
      changes.onMove(Object.fromEntries(places));
    }
  };
  const mayConnect = ({ source, target }: Pick<Connection, "source" | "target">) => canConnect(graph, source, target);
  const onDrop = (event: DragEvent) => {
    const component = event.dataTransfer.getData(DRAG_TYPE);
    if (!component || !changes) return;
    event.preventDefault();
    const point = flow.screenToFlowPosition({ x: event.clientX, y: event.clientY });
    changes.onDropComponent(component, { x: point.x - NODE_WIDTH / 2, y: point.y - NODE_HEIGHT / 2 });
  };
  return (
    <ReactFlow<CanvasNode, CanvasEdge>
      aria-label={label}
      nodes={nodes}
      edges={edges}
      nodeTypes={NODE_TYPES}
      edgeTypes={EDGE_TYPES}
      onNodesChange={onNodesChange}
      onEdgesChange={(list) => {
        for (const change of list) if (change.type === "select") select(change.selected ? change.id : null);
      }}
      onConnect={({ source, target, sourceHandle }) =>
        changes?.onConnect(referenceOf({ from: source, output: sourceHandle ?? "" }), target)
      }
      isValidConnection={mayConnect}
      onDragOver={(event) => {
        if (!changes || !event.dataTransfer.types.includes(DRAG_TYPE)) return;
        event.preventDefault();
        event.dataTransfer.dropEffect = "copy";
      }}
      onDrop={onDrop}
      deleteKeyCode={null}
      multiSelectionKeyCode={MORE_KEYS}
      nodesDraggable={changes !== undefined}
      nodesConnectable={changes !== undefined}
      connectionRadius={32}
      minZoom={ZOOM_MIN}
      fitView
      fitViewOptions={FIRST_FIT}
      onlyRenderVisibleElements={count > 60}
    >
      <Background gap={20} />
      <MiniMap
        pannable
        zoomable
        ariaLabel="Overview of the canvas"
        className="max-md:hidden"
        style={{ width: 140, height: 90 }}
      />
      <Controls
        showInteractive={false}
        className="overflow-hidden rounded-(--radius) border border-line bg-surface [&_button]:flex [&_button]:size-7 [&_button]:items-center [&_button]:justify-center [&_button]:fill-current [&_button:hover]:bg-hover [&_svg]:size-3"
      />
    </ReactFlow>
  );
}

export default function Canvas(props: CanvasProps) {
  return (
    // It measures where edges leave a node once.
    <ReactFlowProvider key={props.isDown ? "down" : "right"}>
      <Inner {...props} />
    </ReactFlowProvider>
  );
}
