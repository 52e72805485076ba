// What is wrong now, and what may become so; telling nobody of it for a while.

import { useMutation, useQueryClient } from "@tanstack/react-query";
import { Download } from "lucide-react";
import { type FormEvent, useCallback, useState } from "react";
import { silenceAlert } from "@/api/actions";
import { keys } from "@/api/keys";
import { useAlerts } from "@/api/queries";
import type { AlertView } from "@/api/types";
import { Allowed, useMay } from "@/components/allowed";
import { Button, LinkButton } from "@/components/button";
import { Failure } from "@/components/callout";
import { CliButton, shellWord } from "@/components/copy";
import { Data } from "@/components/data";
import { Dialog } from "@/components/dialog";
import { Field, Input, Select } from "@/components/field";
import { FilteredTable } from "@/components/filtered-table";
import { TextLink } from "@/components/link";
import { Empty, Page } from "@/components/page";
import { Status } from "@/components/status";
import type { Column } from "@/components/table";
import { Tabs } from "@/components/tabs";
import { Time } from "@/components/time";
import { tell } from "@/components/toast";
import { sentence } from "@/lib/format";
import { showSpan } from "@/lib/rollout";
import { save } from "@/lib/save";
import { useSearchState } from "@/lib/search";
import { TABS } from "./tabs";
import { chooseAlerts, hrefOf, nameOf, SEVERITIES, STATES, stateOf } from "./words";

const COLUMNS: readonly Column<AlertView>[] = [
  { name: "Severity", isPlain: true, cell: ({ severity }) => <Status tone={SEVERITIES[severity]}>{severity}</Status> },
  {
    name: "Alert",
    cell: ({ summary, rule }) => (
      <>
        {sentence(summary)}
        <span className="block text-xs text-muted">rule {rule}</span>
      </>
    ),
    className: "md:w-1/3",
  },
  { name: "About", cell: ({ subject }) => <TextLink href={hrefOf(subject)}>{nameOf(subject)}</TextLink> },
  {
    name: "State",
    isPlain: true,
    cell: (alert) => (
      <span className="whitespace-nowrap">{STATES.find(([state]) => state === stateOf(alert))?.[1]}</span>
    ),
  },
  { name: "Since", cell: ({ since_unix_ms }) => <Time unixMs={since_unix_ms} /> },
  { name: "Silence", cell: (alert) => <Silence alert={alert} /> },
];

export default function Alerts() {
  return (
    <Page title="Alerts" actions={<CliButton command="mycelial alert list" />}>
      <Tabs label="Views of alerts" tabs={TABS} />
      <Allowed needs="operator" what="Silencing">
        {null}
      </Allowed>
      <All />
    </Page>
  );
}

function All() {
  const alerts = useAlerts();
  const [typed, setTyped] = useSearchState("q");
  const [state, setState] = useSearchState("state");
  const [severity, setSeverity] = useSearchState("severity");
  const choose = useCallback(
    (all: readonly AlertView[], words: string) => chooseAlerts(all, words, { state, severity }),
    [state, severity],
  );
  return (
    <Data query={alerts}>
      {(all) =>
        all.length === 0 ? (
          <Empty title="Nothing is wrong" action={<LinkButton href="/alerts/rules">See the rules</LinkButton>}>
            An alert fires when what a rule looks at has been so for as long as the rule says.
          </Empty>
        ) : (
          <FilteredTable
            onClear={() => {
              setState("");
              setSeverity("");
            }}
            noun="alert"
            label="Alerts"
            placeholder="Filter by daemon, workflow, rule, severity or state; -word leaves out"
            all={all}
            typed={typed}
            onType={setTyped}
            choose={choose}
            columns={COLUMNS}
            rowKey={({ id }) => id}
          >
            <div>
              <Select aria-label="State" value={state} onChange={(event) => setState(event.target.value)}>
                <option value="">All states</option>
                {STATES.map(([value, words]) => (
                  <option key={value} value={value}>
                    {words}
                  </option>
                ))}
              </Select>
            </div>
            <div>
              <Select aria-label="Severity" value={severity} onChange={(event) => setSeverity(event.target.value)}>
                <option value="">All severities</option>
                {Object.keys(SEVERITIES).map((each) => (
                  <option key={each}>{each}</option>
                ))}
              </Select>
            </div>
            <Button
              onClick={() =>
                save(
                  "alerts.jsonl",
                  choose(all, typed)
                    .map((alert) => `${JSON.stringify(alert)}\n`)
                    .join(""),
                  "application/jsonl",
                )
              }
            >
              <Download aria-hidden="true" />
              Export
            </Button>
          </FilteredTable>
        )
      }
    </Data>
  );
}

function useSilence(alert: AlertView, onDone: () => void) {
  const queries = useQueryClient();
  return useMutation({
    mutationFn: ({ for_s, reason }: { for_s: number; reason: string }) => silenceAlert(alert.id, for_s, reason),
    onSuccess: ({ items }, { for_s }) => {
      queries.setQueryData(keys.alerts, items);
      tell(for_s > 0 ? `Nobody is told of it for ${showSpan(for_s)}.` : "The silence is over.");
      onDone();
    },
  });
}

function Silence({ alert }: { alert: AlertView }) {
  const [isOpen, setOpen] = useState(false);
  const may = useMay("operator");
  const end = useSilence(alert, () => {});
  const about = nameOf(alert.subject);
  if (alert.silenced_until_unix_ms > 0) {
    return (
      <span className="flex flex-col items-start gap-1">
        <span>
          ends <Time unixMs={alert.silenced_until_unix_ms} />
          {alert.silence_reason !== "" && <span className="block text-xs text-muted">{alert.silence_reason}</span>}
        </span>
        {may && (
          <Button
            className="h-7"
            aria-label={`End the silence of ${alert.rule} about ${about}`}
            busy={end.isPending}
            onClick={() => end.mutate({ for_s: 0, reason: "" })}
          >
            End
          </Button>
        )}
        {end.isError && <Failure error={end.error} />}
      </span>
    );
  }
  if (!may) return <span className="text-muted">none</span>;
  return (
    <>
      <Button className="h-7" aria-label={`Silence ${alert.rule} about ${about}`} onClick={() => setOpen(true)}>
        Silence
      </Button>
      {isOpen && <SilenceDialog alert={alert} onClose={() => setOpen(false)} />}
    </>
  );
}

const LENGTHS = [
  [1_800, "30 minutes"],
  [7_200, "2 hours"],
  [86_400, "1 day"],
  [604_800, "7 days"],
] as const;

function SilenceDialog({ alert, onClose }: { alert: AlertView; onClose: () => void }) {
  const [for_s, setFor] = useState<number>(7_200);
  const [reason, setReason] = useState("");
  const run = useSilence(alert, onClose);
  const submit = (event: FormEvent) => {
    event.preventDefault();
    run.mutate({ for_s, reason: reason.trim() });
  };
  const words = reason.trim() === "" ? "" : ` --reason ${shellWord(reason.trim())}`;
  return (
    <Dialog title={`Silence ${alert.rule} about ${nameOf(alert.subject)}?`} isOpen onClose={onClose}>
      <form onSubmit={submit} className="flex flex-col gap-4">
        <p className="text-sm">{sentence(alert.summary)} It stays in this list, and nobody is told of it.</p>
        <Field label="For how long">
          <Select value={for_s} onChange={(event) => setFor(Number(event.target.value))}>
            {LENGTHS.map(([seconds, text]) => (
              <option key={seconds} value={seconds}>
                {text}
              </option>
            ))}
          </Select>
        </Field>
        <Field label="Reason" hint="Others will read it.">
          <Input value={reason} maxLength={400} onChange={(event) => setReason(event.target.value)} />
        </Field>
        {run.isError && <Failure error={run.error} />}
        <div className="flex flex-wrap justify-end gap-2">
          <span className="mr-auto">
            <CliButton command={`mycelial alert silence ${alert.id} --for ${showSpan(for_s)}${words}`} />
          </span>
          <Button onClick={onClose}>Cancel</Button>
          <Button kind="main" type="submit" busy={run.isPending}>
            Silence it
          </Button>
        </div>
      </form>
    </Dialog>
  );
}
