// Who a daemon is: its certificate, which of its keys these are, how often it began, and whether another speaks in its name.

import { useQueryClient } from "@tanstack/react-query";
import { useLocation } from "wouter";
import { revokeDaemon } from "@/api/actions";
import { keys } from "@/api/keys";
import type { DaemonDetail } from "@/api/types";
import { Allowed } from "@/components/allowed";
import { CliButton, CopyButton, shellWord } from "@/components/copy";
import { ConfirmButton } from "@/components/dialog";
import { type Fact, Facts } from "@/components/facts";
import { Panel, Section } from "@/components/page";
import { Status } from "@/components/status";
import { Time } from "@/components/time";
import { tell } from "@/components/toast";
import { count, number, span } from "@/lib/format";

function Revoke({ name, runs }: { name: string; runs: readonly string[] }) {
  const queries = useQueryClient();
  const [, go] = useLocation();
  const run = async () => {
    await revokeDaemon(name);
    await queries.cancelQueries({ queryKey: keys.daemon(name) });
    go("/daemons");
    queries.removeQueries({ queryKey: keys.daemon(name) });
    void queries.invalidateQueries({ queryKey: keys.daemons, exact: true });
    tell(`${name} is out of the fleet.`);
  };
  return (
    <ConfirmButton action="Revoke" title={`Take ${name} out of the fleet?`} onConfirm={run}>
      <p>
        Its keys open nothing any more, and nobody listens to it. What waits in its buffers is not delivered: let it
        drain first if it is to be kept.
        {runs.length > 0 && ` It runs ${runs.join(", ")}.`} To come back it has to be enrolled anew.
      </p>
      <p className="mt-2 flex flex-wrap">
        <CliButton command={`mycelial daemon drain ${shellWord(name)}`} />
        <CliButton command={`mycelial daemon revoke ${shellWord(name)}`} />
      </p>
    </ConfirmButton>
  );
}

const Mono = ({ children }: { children: string }) => <code className="font-mono text-xs break-all">{children}</code>;

/** Generations are counted from 0: so often they were changed. */
const changed = (generation: number) =>
  generation === 0 ? "the first, from its enrolment" : `changed ${count(generation, "time")} since its enrolment`;

function lineageOf({ view, boot, uptime_ms, lineage }: DaemonDetail) {
  const { generation, former_fingerprint, enrolled_unix_ms, is_cloned } = lineage;
  const isHeard = view.last_seen_ms !== null;
  const facts: Fact[] = [
    ["Enrolled", enrolled_unix_ms === 0 ? "not known any more" : <Time key="enrolled" unixMs={enrolled_unix_ms} />],
    ["Generation of keys", `${number(generation)}: ${changed(generation)}`],
    [
      "Keys before",
      former_fingerprint === "" ? (
        "none is good any more"
      ) : (
        <span key="former">
          <Mono>{former_fingerprint}</Mono>
          <span className="block text-xs text-muted">
            Good beside the new ones until all who speak with it know those.
          </span>
        </span>
      ),
    ],
    ["Starts", isHeard ? `${number(boot)}, the last ${span(uptime_ms)} before it was heard` : "–"],
    [
      "One of it",
      is_cloned ? (
        <Status key="clone" tone="bad">
          two use its keys
        </Status>
      ) : (
        <Status key="clone" tone={isHeard ? "good" : "off"}>
          {isHeard ? "no sign of a second one" : "not known"}
        </Status>
      ),
    ],
  ];
  return facts;
}

export function Identity({ detail }: { detail: DaemonDetail }) {
  const { view, fingerprint, refused, parts } = detail;
  const runs = parts.map(({ workflow }) => workflow);
  return (
    <Section
      title="Certificate and lineage"
      actions={
        <Allowed needs="admin" isWhole what="Revoking">
          <Revoke name={view.name} runs={runs} />
        </Allowed>
      }
    >
      <Panel className="px-4 py-3">
        <Facts
          facts={[
            [
              "Id",
              <span key="id" className="inline-flex items-center gap-1">
                <Mono>{view.node}</Mono>
                <CopyButton text={view.node} what="the id" />
              </span>,
            ],
            ["Key fingerprint", <Mono key="fingerprint">{fingerprint}</Mono>],
            ...lineageOf(detail),
            ["Refused messages", number(refused)],
          ]}
        />
      </Panel>
    </Section>
  );
}
