// Shows what a query found: loading, failed, or there. What was found before stays when asking again fails, and says so.

import type { UseQueryResult } from "@tanstack/react-query";
import { type ReactNode, useRef } from "react";
import { useLive } from "@/api/live";
import { clock, sentence } from "@/lib/format";
import { Failure } from "./callout";
import { Loading } from "./page";

/** What is shown is from earlier: the last answer did not come. The shell says so itself while the plane is away. */
function Stale({ error, at }: { error: Error; at: number }) {
  const isAway = useLive((state) => state.link === "off");
  if (isAway) return null;
  return (
    <p role="status" className="rounded-(--radius) border border-warn/40 bg-warn-soft px-3 py-1.5 text-sm">
      <strong>What is shown is from {clock(at)}.</strong> {sentence(error.message)}
    </p>
  );
}

export function Data<T>({ query, children }: { query: UseQueryResult<T>; children: (data: T) => ReactNode }) {
  const failed = useRef<Error | null>(null);
  if (query.isError) failed.current = query.error;
  if (query.data !== undefined) {
    return (
      <>
        {query.isError && <Stale error={query.error} at={query.dataUpdatedAt} />}
        {children(query.data)}
      </>
    );
  }
  // While it is asked for again after a failure, that stands there still.
  const error = query.errorUpdateCount > 0 ? failed.current : null;
  if (error !== null) return <Failure error={error} onRetry={() => void query.refetch()} />;
  return <Loading />;
}
