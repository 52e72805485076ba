// Whether a source or destination can be reached from the daemon it is for, before it is deployed.

import { useMutation } from "@tanstack/react-query";
import { checkConnections } from "@/api/operator";
import { useMay } from "@/components/allowed";
import { Button } from "@/components/button";
import { Failure } from "@/components/callout";
import { Status } from "@/components/status";
import { sentence } from "@/lib/format";
import { type Node, placesOf } from "@/workflow/graph";
import type { Workbench } from "./state";

export function TestConnection({ bench, node }: { bench: Workbench; node: Node }) {
  const daemon = placesOf(bench.graph).get(node.id) ?? "";
  const run = useMutation({ mutationFn: () => checkConnections(daemon, { text: bench.text }) });
  const may = useMay("operator");
  // A selector is many daemons: that is for the page of connections.
  if (!may || node.role === "transform" || !bench.daemons.includes(daemon)) return null;
  const found = run.data?.find((each) => each.node === node.id);
  return (
    <div className="flex flex-col gap-1.5 text-sm">
      <Button className="self-start" busy={run.isPending} onClick={() => run.mutate()}>
        Test the connection
      </Button>
      {run.isError && <Failure error={run.error} />}
      {run.data && (
        <div role="status">
          {found ? (
            <>
              <Status tone={found.ok ? "good" : "bad"}>
                {found.ok ? `well, from ${daemon}` : (found.kind ?? "wrong")}
              </Status>
              <p className="break-words">{sentence(found.cause ?? found.found)}</p>
              {found.remedy && <p className="break-words text-muted">{sentence(found.remedy)}</p>}
            </>
          ) : (
            <p className="text-muted">{daemon} did not look at it.</p>
          )}
        </div>
      )}
    </div>
  );
}
