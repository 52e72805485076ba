// Tokens for programs that use the plane's API: made once, shown once, and ended at once.

import { useMutation, useQueryClient } from "@tanstack/react-query";
import { type FormEvent, useState } from "react";
import { endApiToken, makeApiToken } from "@/api/actions";
import { keys } from "@/api/keys";
import { useApiTokens } from "@/api/queries";
import type { ApiTokenView, Rank } from "@/api/types";
import { Allowed } from "@/components/allowed";
import { Button } from "@/components/button";
import { Callout, Failure } from "@/components/callout";
import { Code } from "@/components/copy";
import { Data } from "@/components/data";
import { ConfirmButton } from "@/components/dialog";
import { Field, Input, Select } from "@/components/field";
import { Page, Section } from "@/components/page";
import { type Column, Table } from "@/components/table";
import { Tabs } from "@/components/tabs";
import { Time } from "@/components/time";
import { tell } from "@/components/toast";
import { count } from "@/lib/format";
import { SETTINGS_TABS } from "../settings/tabs";
import { RANKS } from "../users/wish";
import { FIRST, LIVES, mistakeInName, type Typed, usage, wishOf } from "./wish";

const COLUMNS: readonly Column<ApiTokenView>[] = [
  {
    name: "Token",
    cell: ({ name, id }) => (
      <>
        {name}
        <code className="block font-mono text-xs text-muted">{id}</code>
      </>
    ),
  },
  { name: "Role", cell: ({ role }) => role },
  { name: "Sees", cell: ({ scope }) => <code className="font-mono text-xs">{scope ?? "all"}</code> },
  {
    name: "Made",
    cell: ({ made_unix_ms, by }) => (
      <>
        <Time unixMs={made_unix_ms} /> <span className="text-muted">by {by}</span>
      </>
    ),
  },
  { name: "Ends", cell: ({ expires_unix_ms }) => <Time unixMs={expires_unix_ms} /> },
  { name: "Action", cell: (token) => <End token={token} /> },
];

export default function ApiTokens() {
  return (
    <Page title="Settings" isWide={false}>
      <Tabs label="Views of the settings" tabs={SETTINGS_TABS} />
      <Allowed needs="admin" isWhole what="Letting programs in">
        <All />
        <Section title="A new one">
          <Make />
        </Section>
      </Allowed>
    </Page>
  );
}

function All() {
  const tokens = useApiTokens();
  return (
    <Data query={tokens}>
      {(all) => (
        <Section title="API tokens" aside={count(all.length, "token")}>
          {all.length === 0 ? (
            <p className="max-w-prose text-sm text-muted">
              A program speaks to the plane with a token instead of a name and a password. There is none yet.
            </p>
          ) : (
            <Table label="API tokens" columns={COLUMNS} rows={all} rowKey={({ id }) => id} />
          )}
        </Section>
      )}
    </Data>
  );
}

function End({ token: { id, name } }: { token: ApiTokenView }) {
  const queries = useQueryClient();
  return (
    <ConfirmButton
      action="Revoke"
      label={`Revoke ${name}`}
      title={`Revoke the token ${name}?`}
      onConfirm={async () => {
        await endApiToken(id);
        tell(`The token ${name} does not work any more.`);
        await queries.invalidateQueries({ queryKey: keys.apiTokens });
      }}
    >
      Whatever uses it is refused from now on.
    </ConfirmButton>
  );
}

function Make() {
  const queries = useQueryClient();
  const [typed, setTyped] = useState<Typed>(FIRST);
  const [isTried, setTried] = useState(false);
  const wrong = mistakeInName(typed.name);
  const make = useMutation({
    mutationFn: () => makeApiToken(wishOf(typed)),
    onSuccess: () => queries.invalidateQueries({ queryKey: keys.apiTokens }),
  });
  if (make.data) {
    const another = () => {
      make.reset();
      setTyped(FIRST);
      setTried(false);
    };
    return (
      <div className="flex max-w-xl flex-col gap-3">
        <Callout tone="info" title={`The token ${typed.name} is made.`}>
          It is shown only now, and kept nowhere: put it where the program finds it, and nobody else.
        </Callout>
        <Code text={make.data.token} what="the token" />
        <p className="text-sm text-muted">With the token in TOKEN:</p>
        <Code text={usage(location.origin)} what="the example" />
        <div>
          <Button onClick={another}>Make another</Button>
        </div>
      </div>
    );
  }
  const submit = (event: FormEvent) => {
    event.preventDefault();
    setTried(true);
    if (wrong === "") make.mutate();
  };
  return (
    <form onSubmit={submit} className="flex max-w-xl flex-col gap-4">
      <div className="grid gap-4 sm:grid-cols-2">
        <Field label="Name" hint="What it is for." error={isTried ? wrong : ""}>
          <Input value={typed.name} onChange={(event) => setTyped({ ...typed, name: event.target.value })} />
        </Field>
        <Field label="Role">
          <Select value={typed.role} onChange={(event) => setTyped({ ...typed, role: event.target.value as Rank })}>
            {RANKS.map(([rank, what]) => (
              <option key={rank} value={rank}>
                {`${rank}: ${what}`}
              </option>
            ))}
          </Select>
        </Field>
        <Field label="Sees only" hint="Labels and names, such as site=berlin; all when it is empty.">
          <Input value={typed.scope} onChange={(event) => setTyped({ ...typed, scope: event.target.value })} />
        </Field>
        <Field label="How long it works">
          <Select value={typed.ttl_s} onChange={(event) => setTyped({ ...typed, ttl_s: Number(event.target.value) })}>
            {LIVES.map(([seconds, text]) => (
              <option key={seconds} value={seconds}>
                {text}
              </option>
            ))}
          </Select>
        </Field>
      </div>
      {make.isError && <Failure error={make.error} />}
      <div>
        <Button kind="main" type="submit" busy={make.isPending}>
          Make the token
        </Button>
      </div>
    </form>
  );
}
