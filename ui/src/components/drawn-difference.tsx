// Two texts of a workflow as one picture: what came, went and changed between them, on the canvas and as a list.

import { lazy, Suspense, useMemo, useState } from "react";
import { useNarrow } from "@/lib/narrow";
import { difference } from "@/workflow/diff";
import { graphOf, readGraph } from "@/workflow/graph";
import { arranged } from "@/workflow/layout";
import { merged } from "@/workflow/merged";
import { DifferenceList } from "./difference";
import { Loading, Panel } from "./page";

const Canvas = lazy(() => import("@/canvas"));

export function DrawnDifference({ older, newer }: { older: string; newer: string }) {
  const [selected, setSelected] = useState<string[]>([]);
  const before = useMemo(() => readGraph(older).graph ?? graphOf({}), [older]);
  const after = useMemo(() => readGraph(newer).graph ?? graphOf({}), [newer]);
  const { graph, marks } = useMemo(() => merged(before, after), [before, after]);
  const isDown = useNarrow();
  const layout = useMemo(() => arranged(graph, isDown), [graph, isDown]);
  return (
    <div className="flex flex-col gap-3">
      <Panel className="h-72 overflow-hidden">
        <Suspense fallback={<Loading what="Loading the canvas" />}>
          <Canvas
            label="What changed"
            graph={graph}
            layout={layout}
            isDown={isDown}
            selected={selected}
            onSelect={setSelected}
            marks={marks}
          />
        </Suspense>
      </Panel>
      <DifferenceList difference={difference(before, after)} />
    </div>
  );
}
