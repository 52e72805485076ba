// Secrets of daemons: which there are, who uses them, set and forgotten; a value is written and never read. And whether the
// systems that they open can be reached from where they are needed.

import { useMutation, useQueryClient } from "@tanstack/react-query";
import { Plus } from "lucide-react";
import { type FormEvent, useState } from "react";
import { keys } from "@/api/keys";
import { forgetSecret, setSecret, useSecrets } from "@/api/operator";
import { useDaemons } from "@/api/queries";
import type { SecretTold, SecretView } from "@/api/types";
import { Allowed } from "@/components/allowed";
import { Button, LinkButton } from "@/components/button";
import { Failure } from "@/components/callout";
import { CliButton, shellWord } from "@/components/copy";
import { Data } from "@/components/data";
import { ConfirmButton, Dialog } from "@/components/dialog";
import { Field, Input, Select } from "@/components/field";
import { TextLink } from "@/components/link";
import { Empty, Page, Section } from "@/components/page";
import { Status } from "@/components/status";
import { type Column, Table } from "@/components/table";
import { Time } from "@/components/time";
import { tell } from "@/components/toast";
import { count, sentence } from "@/lib/format";
import { useSearchState } from "@/lib/search";
import { Connections } from "./connections";
import { cliToSet, inWords, mistakeInName, mistakeInValue, worstFirst } from "./secrets";

export default function Secrets() {
  const daemons = useDaemons();
  return (
    <Page title="Secrets and connections">
      <Allowed needs="operator" what="Looking after secrets">
        <Data query={daemons}>
          {(all) =>
            all.length === 0 ? (
              <Empty title="No daemons yet" action={<LinkButton href="/enrol">Enrol a daemon</LinkButton>}>
                A secret lies on the daemon that needs it, and nowhere else.
              </Empty>
            ) : (
              <Of daemons={all.map(({ name }) => name)} />
            )
          }
        </Data>
      </Allowed>
    </Page>
  );
}

function Of({ daemons }: { daemons: readonly string[] }) {
  const [chosen, setDaemon] = useSearchState("daemon");
  const daemon = daemons.includes(chosen) ? chosen : (daemons[0] ?? "");
  const secrets = useSecrets(daemon);
  const [isOpen, setOpen] = useState<string | null>(null);
  const names = worstFirst(secrets.data ?? []);
  const columns: readonly Column<SecretView>[] = [
    { name: "Secret", cell: ({ name }) => <code className="font-mono text-sm">{name}</code> },
    {
      name: "Set",
      cell: ({ set_unix_ms }) =>
        set_unix_ms === null ? <Status tone="bad">never, but used</Status> : <Time unixMs={set_unix_ms} />,
    },
    {
      name: "Used by",
      cell: ({ used_by }) =>
        used_by.length === 0 ? (
          <span className="text-muted">nobody</span>
        ) : (
          <span className="flex flex-wrap gap-x-3">
            {used_by.map((workflow) => (
              <TextLink key={workflow} href={`/workflows/${encodeURIComponent(workflow)}`}>
                {workflow}
              </TextLink>
            ))}
          </span>
        ),
    },
    {
      name: "Actions",
      cell: (secret) => (
        <span className="flex flex-wrap gap-1">
          <Button
            aria-label={`${secret.set_unix_ms === null ? "Set" : "Set anew"} ${secret.name}`}
            onClick={() => setOpen(secret.name)}
          >
            {secret.set_unix_ms === null ? "Set" : "Set anew"}
          </Button>
          {secret.set_unix_ms !== null && <Forget daemon={daemon} secret={secret} />}
        </span>
      ),
    },
  ];
  return (
    <>
      <Section
        title="Secrets"
        aside={secrets.data && count(names.length, "secret")}
        actions={
          <>
            <CliButton command={`mycelial secret list --daemon ${shellWord(daemon)}`} />
            <Select aria-label="Daemon" value={daemon} onChange={(event) => setDaemon(event.target.value)}>
              {daemons.map((name) => (
                <option key={name}>{name}</option>
              ))}
            </Select>
            <Button kind="main" onClick={() => setOpen("")}>
              <Plus aria-hidden="true" />
              Set a secret
            </Button>
          </>
        }
      >
        <p className="max-w-prose text-sm text-muted">
          Workflows name a secret instead of holding it. Its value is sealed for the daemon, lies there only, and nobody
          can read it back.
        </p>
        <Data query={secrets}>
          {() =>
            names.length === 0 ? (
              <p className="text-sm text-muted">{daemon} has none.</p>
            ) : (
              <Table label="Secrets" columns={columns} rows={names} rowKey={({ name }) => name} />
            )
          }
        </Data>
      </Section>
      <Connections />
      {isOpen !== null && <SetDialog first={isOpen} daemon={daemon} onClose={() => setOpen(null)} />}
    </>
  );
}

function Forget({ daemon, secret: { name, used_by } }: { daemon: string; secret: SecretView }) {
  const queries = useQueryClient();
  return (
    <ConfirmButton
      action="Forget"
      label={`Forget ${name}`}
      title={`Forget ${name} on ${daemon}?`}
      command={`mycelial secret remove ${shellWord(name)} --daemon ${shellWord(daemon)}`}
      onConfirm={async () => {
        const done = await forgetSecret(name, `name:${daemon}`);
        const failed = done.find(({ outcome }) => outcome !== "done");
        if (failed) throw new Error(`${failed.daemon}: ${failed.cause}`);
        tell(inWords(done, "forgotten"));
        await queries.invalidateQueries({ queryKey: keys.secretsOfAll });
      }}
    >
      {used_by.length === 0
        ? "No workflow there uses it."
        : `${used_by.join(", ")} there ${used_by.length === 1 ? "needs" : "need"} it, and will not work without.`}
    </ConfirmButton>
  );
}

interface SetProps {
  /** The secret's name; empty: to be written. */
  first: string;
  daemon: string;
  onClose: () => void;
}

function SetDialog({ first, daemon, onClose }: SetProps) {
  const queries = useQueryClient();
  const [name, setName] = useState(first);
  const [value, setValue] = useState("");
  const [selector, setSelector] = useState(`name:${daemon}`);
  const [isTried, setTried] = useState(false);
  const wrong = {
    name: mistakeInName(name),
    value: mistakeInValue(value),
    selector: selector.trim() === "" ? "Say for whom: name:hub, or site=berlin." : "",
  };
  const run = useMutation({
    mutationFn: () => setSecret(name, selector.trim(), value),
    onSuccess: async (done) => {
      setValue("");
      await queries.invalidateQueries({ queryKey: keys.secretsOfAll });
      if (done.some(({ outcome }) => outcome !== "done")) return;
      tell(inWords(done, "set"));
      onClose();
    },
  });
  const submit = (event: FormEvent) => {
    event.preventDefault();
    setTried(true);
    if (Object.values(wrong).every((each) => each === "")) run.mutate();
  };
  return (
    <Dialog title={first === "" ? "Set a secret" : `Set ${first}`} isOpen onClose={onClose}>
      <form onSubmit={submit} className="flex flex-col gap-4">
        {first === "" && (
          <Field label="Name" hint="How workflows call it." error={isTried ? wrong.name : ""}>
            <Input value={name} onChange={(event) => setName(event.target.value)} />
          </Field>
        )}
        <Field label="Value" hint="It cannot be read back." error={isTried ? wrong.value : ""}>
          <Input
            type="password"
            autoComplete="new-password"
            value={value}
            onChange={(event) => setValue(event.target.value)}
          />
        </Field>
        <Field label="On" hint="name:hub, or site=berlin for all of them." error={isTried ? wrong.selector : ""}>
          <Input value={selector} onChange={(event) => setSelector(event.target.value)} />
        </Field>
        <p className="text-sm">Workflows there that use it begin anew.</p>
        {run.isError && <Failure error={run.error} />}
        {run.data && <Outcomes done={run.data} />}
        <div className="flex flex-wrap justify-end gap-2">
          <span className="mr-auto">
            <CliButton command={cliToSet(name, selector.trim())} />
          </span>
          <Button onClick={onClose}>{run.data ? "Close" : "Cancel"}</Button>
          <Button kind="main" type="submit" busy={run.isPending}>
            Set it
          </Button>
        </div>
      </form>
    </Dialog>
  );
}

/** When not all of them took it: who did, and why not. */
function Outcomes({ done }: { done: readonly SecretTold[] }) {
  return (
    <ul role="alert" className="flex max-h-48 flex-col gap-1 overflow-y-auto text-sm">
      {done.map(({ daemon, outcome, cause }) => (
        <li key={daemon} className="flex flex-wrap gap-x-3">
          <span className="font-medium">{daemon}</span>
          <Status tone={outcome === "done" ? "good" : outcome === "failed" ? "bad" : "off"}>
            {outcome === "unknown" ? "nobody knows" : outcome}
          </Status>
          {cause !== "" && <span className="text-muted">{sentence(cause)}</span>}
        </li>
      ))}
    </ul>
  );
}
