// One edge on the canvas. What it says is drawn by whoever uses the canvas: that part looks up its own numbers, so that a
// number that changes draws nothing else.

import { BaseEdge, type Edge as CanvasEdgeOf, EdgeLabelRenderer, type EdgeProps, getBezierPath } from "@xyflow/react";
import { type ComponentType, memo } from "react";
import type { Edge } from "@/workflow/graph";

export interface EdgeData extends Record<string, unknown> {
  edge: Edge;
  Label: ComponentType<{ edge: Edge }> | null;
}
export type CanvasEdge = CanvasEdgeOf<EdgeData, "flow">;

export const Flow = memo(function Flow(props: EdgeProps<CanvasEdge>) {
  const { data, id, markerEnd } = props;
  const [path, x, y] = getBezierPath(props);
  return (
    <>
      <BaseEdge id={id} path={path} {...(markerEnd ? { markerEnd } : {})} interactionWidth={24} />
      {data?.Label && (
        <EdgeLabelRenderer>
          <div
            className="nodrag nopan pointer-events-none absolute z-1"
            style={{ transform: `translate(-50%, -50%) translate(${x}px, ${y}px)` }}
          >
            <data.Label edge={data.edge} />
          </div>
        </EdgeLabelRenderer>
      )}
    </>
  );
});
