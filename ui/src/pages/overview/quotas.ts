// How much the streams of workflows may buffer, as their texts say; asked for where something is buffered. What reads the
// text is in a chunk of its own, which this page does not need otherwise.

import { useQueries } from "@tanstack/react-query";
import { get, part } from "@/api/client";
import { keys } from "@/api/keys";
import type { StreamView, WorkflowText, WorkflowView } from "@/api/types";
import type { Quotas } from "./attention";

/** Less than this on a disk fills no buffer that anybody would set, in bytes. */
const SMALL_BYTES = 64 << 10;
/** Most workflows whose texts are asked for. */
const WORKFLOWS_MAX = 20;

async function quotasOf(name: string, signal: AbortSignal) {
  const [{ text }, { readGraph }, { quotaOf }] = await Promise.all([
    get<WorkflowText>(`/workflows/${part(name)}`, signal),
    import("@/workflow/graph"),
    import("@/pages/run/streams"),
  ]);
  return new Map(readGraph(text).graph?.nodes.map((node) => [node.id, quotaOf(node)] as const));
}

export function useQuotas(workflows: readonly WorkflowView[], streams: readonly StreamView[]): Quotas {
  const most = new Map<string, number>();
  for (const { workflow, buffered_bytes } of streams) {
    most.set(workflow, Math.max(most.get(workflow) ?? 0, buffered_bytes));
  }
  const asked = workflows
    .filter(({ name }) => (most.get(name) ?? 0) >= SMALL_BYTES)
    .sort((a, b) => (most.get(b.name) ?? 0) - (most.get(a.name) ?? 0))
    .slice(0, WORKFLOWS_MAX);
  return useQueries({
    queries: asked.map(({ name, revision }) => ({
      queryKey: keys.quotas(name, revision),
      queryFn: ({ signal }: { signal: AbortSignal }) => quotasOf(name, signal),
      staleTime: Infinity,
    })),
    combine: (found) =>
      new Map(
        found.flatMap(({ data }, at) => {
          const name = asked[at]?.name;
          return data && name ? [[name, data] as const] : [];
        }),
      ),
  });
}
