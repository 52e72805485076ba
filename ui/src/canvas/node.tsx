// One node on the canvas: what it is, where it runs, what is wrong with it.

import { Handle, type Node, type NodeProps, Position } from "@xyflow/react";
import { memo } from "react";
import type { ComponentRole } from "@/api/types";
import { Status, type Tone } from "@/components/status";
import { cx } from "@/lib/cx";
import type { Node as WorkflowNode } from "@/workflow/graph";
import { NODE_HEIGHT, NODE_WIDTH } from "@/workflow/layout";
import type { Mark } from "@/workflow/merged";
import { ROLE_ICONS } from "./roles";

export interface NodeData extends Record<string, unknown> {
  node: WorkflowNode;
  /** Where it runs in the end. */
  place: string;
  outputs: readonly string[];
  note: { tone: Tone; text: string } | null;
  mark: Mark | null;
  isReadOnly: boolean;
  /** Edges come in above and go out below. */
  isDown: boolean;
}
export type CanvasNode = Node<NodeData, "part">;

const STRIPES: Record<ComponentRole, string> = {
  source: "border-l-(color:--series-2)",
  transform: "border-l-(color:--series-3)",
  destination: "border-l-(color:--series-1)",
};
const MARKS: Record<Mark, string> = {
  added: "border-good bg-good-soft",
  changed: "border-warn bg-warn-soft",
  removed: "border-bad bg-bad-soft opacity-80",
};

const outwards = (isDown: boolean) => (isDown ? Position.Bottom : Position.Right);

const Outputs = ({ outputs, isReadOnly, isDown }: Pick<NodeData, "outputs" | "isReadOnly" | "isDown">) => (
  <>
    {outputs.length === 0 && <Handle type="source" position={outwards(isDown)} isConnectable={!isReadOnly} />}
    {outputs.map((output, at) => (
      <Handle
        key={output}
        id={output}
        type="source"
        position={outwards(isDown)}
        isConnectable={!isReadOnly}
        style={
          isDown
            ? { left: ((at + 1) * NODE_WIDTH) / (outputs.length + 1) }
            : { top: ((at + 1) * NODE_HEIGHT) / (outputs.length + 1) }
        }
      >
        <span
          className={cx(
            "pointer-events-none absolute bg-bg px-0.5 text-[10px] leading-3 text-muted",
            isDown ? "top-4 left-1/2 -translate-x-1/2" : "top-1/2 left-4 -translate-y-1/2",
          )}
        >
          {output}
        </span>
      </Handle>
    ))}
  </>
);

export const Part = memo(function Part({ data, selected }: NodeProps<CanvasNode>) {
  const { node, place, outputs, note, mark, isReadOnly, isDown } = data;
  const Icon = ROLE_ICONS[node.role];
  return (
    <div
      className={cx(
        "flex h-[60px] w-[196px] items-center gap-2 rounded-(--radius) border border-l-4 border-line-strong/60 bg-surface px-2.5 shadow-sm",
        STRIPES[node.role],
        mark && MARKS[mark],
        selected && "outline-2 outline-accent",
      )}
    >
      {node.role !== "source" && (
        <Handle type="target" position={isDown ? Position.Top : Position.Left} isConnectable={!isReadOnly} />
      )}
      <Icon className="size-4 shrink-0 text-muted" aria-hidden="true" />
      <div className="min-w-0 flex-1 leading-4">
        <p className="truncate text-sm font-medium">{node.id}</p>
        <p className="truncate text-xs text-muted">
          {node.component || "no type"}
          {place !== "" && ` · ${place}`}
        </p>
        {note && (
          <p className="truncate text-xs">
            <Status tone={note.tone}>{note.text}</Status>
          </p>
        )}
        {!note && mark && <p className="text-xs font-medium">{mark}</p>}
      </div>
      {node.role !== "destination" && <Outputs outputs={outputs} isReadOnly={isReadOnly} isDown={isDown} />}
    </div>
  );
});
