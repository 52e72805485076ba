// What is wrong with a daemon, in the words of its row.

import type { DaemonView } from "@/api/types";
import { Status } from "./status";

export function Trouble({ daemon }: { daemon: DaemonView }) {
  const isBehind = daemon.plan_version < daemon.plan_wanted;
  if (daemon.troubled === 0 && daemon.damaged === 0 && !isBehind)
    return <span className="is-none text-muted">none</span>;
  return (
    <span className="flex flex-wrap gap-x-3">
      {daemon.troubled > 0 && <Status tone="bad">{`${daemon.troubled} in trouble`}</Status>}
      {daemon.damaged > 0 && <Status tone="warn">{`${daemon.damaged} damaged`}</Status>}
      {isBehind && <Status tone="warn">plan on its way</Status>}
    </span>
  );
}
