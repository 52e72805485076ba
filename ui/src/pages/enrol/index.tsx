// Letting a new member in: an enrolment string, the command to type, and the wait until it is there.

import { useMutation, useQueryClient } from "@tanstack/react-query";
import { type FormEvent, useRef, useState } from "react";
import { createToken } from "@/api/actions";
import { keys } from "@/api/keys";
import { useDaemons } from "@/api/queries";
import type { MemberRole, TokenWish } from "@/api/types";
import { Allowed } from "@/components/allowed";
import { Button, LinkButton } from "@/components/button";
import { Callout, Failure } from "@/components/callout";
import { CliButton, Code } from "@/components/copy";
import { Field, Input, Select } from "@/components/field";
import { TextLink } from "@/components/link";
import { Page, Section } from "@/components/page";
import { PresenceStatus } from "@/components/status";
import { Tabs } from "@/components/tabs";
import { ENROL_TABS } from "./tabs";
import { Tokens } from "./tokens";
import { arrived, cliOf, LIVES, labelsIn, mistakeInName } from "./wish";

const FIRST: TokenWish = { role: "daemon", name: null, uses: 1, ttl_s: 86_400, labels: {} };
const USES_MAX = 1_000;

export default function Enrol() {
  const [wish, setWish] = useState(FIRST);
  const queries = useQueryClient();
  const make = useMutation({
    mutationFn: () => createToken(wish),
    onSuccess: () => queries.invalidateQueries({ queryKey: keys.tokens }),
  });
  return (
    <Page title={wish.role === "daemon" ? "Enrol a daemon" : "Enrol an operator"} isWide={false}>
      <Tabs label="Ways in" tabs={ENROL_TABS} />
      {make.data ? (
        <Made wish={wish} invitation={make.data.invitation} onAnother={() => make.reset()} />
      ) : (
        <Allowed needs="operator" isWhole what="Enrolling somebody">
          <Form wish={wish} setWish={setWish} isBusy={make.isPending} error={make.error} onMake={() => make.mutate()} />
          <Tokens />
        </Allowed>
      )}
    </Page>
  );
}

interface FormProps {
  wish: TokenWish;
  setWish: (wish: TokenWish) => void;
  isBusy: boolean;
  error: unknown;
  onMake: () => void;
}

function Form({ wish, setWish, isBusy, error, onMake }: FormProps) {
  const [typed, setTyped] = useState("");
  const mistake = wish.name === null ? "" : mistakeInName(wish.name);
  const isDaemon = wish.role === "daemon";
  const labelError = isDaemon ? labelsIn(typed).error : "";
  const submit = (event: FormEvent) => {
    event.preventDefault();
    if (mistake === "" && labelError === "") onMake();
  };
  return (
    <form onSubmit={submit} className="flex max-w-xl flex-col gap-4">
      {/* Whoever has an operator's keys may everything: nobody lets somebody in who may more than itself. */}
      <Allowed needs="admin" isWhole what="Enrolling an operator">
        <Field label="Who joins">
          <Select
            value={wish.role}
            onChange={(event) => {
              setTyped("");
              setWish({ ...wish, role: event.target.value as MemberRole, labels: {} });
            }}
          >
            <option value="daemon">Daemon: runs workflows</option>
            <option value="operator">Operator: a person with the command line, who may do everything</option>
          </Select>
        </Field>
      </Allowed>
      <Field
        label="Name"
        hint="Letters a to z, digits, - and _. Leave it empty to let the machine use its own name."
        error={mistake}
      >
        <Input
          value={wish.name ?? ""}
          placeholder="chosen when it enrols"
          onChange={(event) =>
            setWish({ ...wish, name: event.target.value === "" ? null : event.target.value, uses: 1 })
          }
        />
      </Field>
      <div className="grid gap-4 sm:grid-cols-2">
        <Field label="How many times it works" hint={wish.name === null ? undefined : "A name is given once."}>
          <Input
            type="number"
            min={1}
            max={USES_MAX}
            required
            disabled={wish.name !== null}
            value={wish.uses}
            onChange={(event) => setWish({ ...wish, uses: event.target.valueAsNumber || 1 })}
          />
        </Field>
        <Field label="How long it works">
          <Select value={wish.ttl_s} onChange={(event) => setWish({ ...wish, ttl_s: Number(event.target.value) })}>
            {LIVES.map(([seconds, text]) => (
              <option key={seconds} value={seconds}>
                {text}
              </option>
            ))}
          </Select>
        </Field>
      </div>
      {isDaemon && (
        <Field
          label="Labels"
          hint="What each daemon that comes by it is labelled, with spaces between; none when empty."
          error={labelError}
        >
          <Input
            value={typed}
            placeholder="site=berlin line=2"
            onChange={(event) => {
              setTyped(event.target.value);
              setWish({ ...wish, labels: labelsIn(event.target.value).labels });
            }}
          />
        </Field>
      )}
      {error !== null && <Failure error={error} />}
      <div className="flex flex-wrap gap-2">
        <Button kind="main" type="submit" busy={isBusy}>
          Make the enrolment string
        </Button>
        <CliButton command={cliOf(wish)} />
      </div>
    </form>
  );
}

function Made({ wish, invitation, onAnother }: { wish: TokenWish; invitation: string; onAnother: () => void }) {
  const isDaemon = wish.role === "daemon";
  const command = `${isDaemon ? "myceliald enrol" : "mycelial init"} ${invitation}`;
  return (
    <>
      <Section title={isDaemon ? "1. On the machine that has the data" : "Where the new operator works"}>
        <Code text={command} what="the command" />
        <p className="text-sm text-muted">Whoever has it can join: hand it over safely. It is shown only now.</p>
      </Section>
      {isDaemon && (
        <>
          <Section title="2. Start it">
            <Code text="myceliald start" what="the command" />
          </Section>
          <Section title="3. It reports">
            <Waiting wish={wish} />
          </Section>
        </>
      )}
      <div className="flex flex-wrap gap-2">
        <Button onClick={onAnother}>Make another</Button>
        <LinkButton href="/daemons">All daemons</LinkButton>
      </div>
    </>
  );
}

function Waiting({ wish }: { wish: TokenWish }) {
  const daemons = useDaemons();
  const before = useRef<ReadonlySet<string> | null>(null);
  if (daemons.data && before.current === null) before.current = new Set(daemons.data.map(({ node }) => node));
  const found = arrived(daemons.data ?? [], before.current ?? new Set(), wish);
  return (
    <div role="status" className="flex flex-col gap-2">
      {found.map((daemon) => (
        <p key={daemon.node} className="flex flex-wrap items-center gap-x-3">
          <TextLink href={`/daemons/${encodeURIComponent(daemon.name)}`}>{daemon.name}</TextLink>
          <PresenceStatus presence={daemon.presence} />
          {daemon.presence === "unknown" && (
            <span className="text-sm text-muted">It is enrolled; start it and it will report.</span>
          )}
        </p>
      ))}
      {found.length < wish.uses && (
        <Callout tone="info" title={found.length === 0 ? "Waiting for it to enrol …" : "Waiting for more …"}>
          This page notices by itself; you may leave it open or go elsewhere.
        </Callout>
      )}
      {found.some(({ presence }) => presence === "online") && (
        <div>
          <LinkButton href="/workflows/new" kind="main">
            Give it something to do
          </LinkButton>
        </div>
      )}
    </div>
  );
}
