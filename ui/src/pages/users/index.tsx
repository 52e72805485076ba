// Users of this page: who they are and how much each may. Whoever has the plane's own machine can always come in by a link.

import { useMutation, useQueryClient } from "@tanstack/react-query";
import { type FormEvent, useState } from "react";
import { changeUser, removeUser } from "@/api/actions";
import { keys } from "@/api/keys";
import { useSurroundings, useUsers } from "@/api/queries";
import { useUser } from "@/api/session";
import type { Rank, UserView } from "@/api/types";
import { Allowed, useMay } from "@/components/allowed";
import { Button } from "@/components/button";
import { Failure } from "@/components/callout";
import { shellWord } from "@/components/copy";
import { Data } from "@/components/data";
import { ConfirmButton, Dialog } from "@/components/dialog";
import { Field, Input, Select } from "@/components/field";
import { Page, Section } from "@/components/page";
import { type Column, Table } from "@/components/table";
import { Tabs } from "@/components/tabs";
import { Time } from "@/components/time";
import { tell } from "@/components/toast";
import { count } from "@/lib/format";
import { SETTINGS_TABS } from "../settings/tabs";
import { AddUser } from "./add";
import { Operators } from "./operators";
import { PasswordForm } from "./password-form";
import { RANKS } from "./wish";

export default function Users() {
  const isSetup = useUser((state) => state.isSetup);
  return (
    <Page title="Settings" isWide={false}>
      <Tabs label="Views of the settings" tabs={SETTINGS_TABS} />
      <Allowed needs="admin" isWhole what="Deciding who else may">
        {isSetup ? <First /> : <All />}
      </Allowed>
    </Page>
  );
}

function First() {
  return (
    <Section title="The first admin">
      <p className="max-w-prose text-sm text-muted">
        Until now this page opens by one-time links only. An admin logs in by name and password, and makes further
        users. One-time links from the plane’s own machine go on working.
      </p>
      <AddUser isFirst />
    </Section>
  );
}

function All() {
  const users = useUsers();
  return (
    <>
      <Data query={users}>
        {(all) => (
          <Section title="Users" aside={count(all.length, "user")}>
            <List all={all} />
          </Section>
        )}
      </Data>
      <Section title="One more">
        <AddUser />
      </Section>
      <Operators />
    </>
  );
}

function List({ all }: { all: readonly UserView[] }) {
  const me = useUser((state) => state.user?.name);
  const columns: readonly Column<UserView>[] = [
    {
      name: "User",
      cell: ({ name }) => (
        <>
          {name}
          {name === me && <span className="text-muted"> (you)</span>}
        </>
      ),
    },
    { name: "Role", cell: (user) => <Role user={user} /> },
    { name: "Sees", cell: (user) => <Scope user={user} /> },
    { name: "Since", cell: ({ made_unix_ms }) => <Time unixMs={made_unix_ms} /> },
    { name: "Actions", cell: (user) => <Actions user={user} /> },
  ];
  return <Table label="Users" columns={columns} rows={all} rowKey={({ name }) => name} />;
}

function Role({ user }: { user: UserView }) {
  const { name, role } = user;
  const queries = useQueryClient();
  const run = useMutation({
    mutationFn: (to: Rank) => changeUser(user, { role: to }),
    onSuccess: (_, to) => tell(`${name} is ${to} from now on.`),
    onSettled: () => queries.invalidateQueries({ queryKey: keys.users }),
  });
  return (
    <div className="max-w-80 md:min-w-60">
      <Select
        aria-label={`Role of ${name}`}
        className="h-7"
        value={run.isPending ? run.variables : role}
        onChange={(event) => run.mutate(event.target.value as Rank)}
      >
        {RANKS.map(([rank, what]) => (
          <option key={rank} value={rank}>
            {`${rank}: ${what}`}
          </option>
        ))}
      </Select>
      {run.isError && <Failure error={run.error} />}
    </div>
  );
}

/** Which daemons somebody sees: all, or those that a selector of labels and names chooses. */
function Scope({ user }: { user: UserView }) {
  const { name, scope } = user;
  const queries = useQueryClient();
  const [typed, setTyped] = useState<string | null>(null);
  const run = useMutation({
    mutationFn: (to: string) => changeUser(user, { scope: to }),
    onSuccess: (_, to) => {
      tell(to === "" ? `${name} sees all daemons.` : `${name} sees ${to} only.`);
      setTyped(null);
    },
    onSettled: () => queries.invalidateQueries({ queryKey: keys.users }),
  });
  const submit = (event: FormEvent) => {
    event.preventDefault();
    run.mutate(typed?.trim() ?? "");
  };
  return (
    <>
      <Button
        kind="quiet"
        className="h-7 font-mono text-xs"
        aria-label={`What ${name} sees: ${scope ?? "all"}`}
        onClick={() => setTyped(scope ?? "")}
      >
        {scope ?? "all"}
      </Button>
      <Dialog title={`What ${name} sees`} isOpen={typed !== null} onClose={() => setTyped(null)}>
        <form onSubmit={submit} className="flex flex-col gap-4">
          <Field label="Sees only" hint="Labels and names, such as site=berlin; all when it is empty.">
            <Input value={typed ?? ""} onChange={(event) => setTyped(event.target.value)} />
          </Field>
          <p className="text-sm">
            Whoever has a scope sees these daemons only, and changes only workflows that run nowhere else: their alerts
            and rollouts, too. Rules of alerts and enrolment strings are about the whole fleet, and not for them.
          </p>
          {run.isError && <Failure error={run.error} />}
          <div className="flex justify-end gap-2">
            <Button onClick={() => setTyped(null)}>Cancel</Button>
            <Button kind="main" type="submit" busy={run.isPending}>
              Set the scope
            </Button>
          </div>
        </form>
      </Dialog>
    </>
  );
}

function Actions({ user }: { user: UserView }) {
  const { name } = user;
  const queries = useQueryClient();
  const [isOpen, setOpen] = useState(false);
  const may = useMay("admin");
  const dir = useSurroundings().data?.dir ?? "DIR";
  if (!may) return null;
  return (
    <span className="flex flex-wrap gap-1">
      <Button aria-label={`New password for ${name}`} onClick={() => setOpen(true)}>
        New password
      </Button>
      <ConfirmButton
        action="Remove"
        label={`Remove ${name}`}
        title={`Remove the user ${name}?`}
        command={`mycelial-plane user remove --dir ${shellWord(dir)} ${shellWord(name)}`}
        onConfirm={async () => {
          await removeUser(name);
          tell(`${name} is removed.`);
          await queries.invalidateQueries({ queryKey: keys.users });
        }}
      >
        {name} is logged out everywhere at once. What {name} deployed stays.
      </ConfirmButton>
      <Dialog title={`A new password for ${name}`} isOpen={isOpen} onClose={() => setOpen(false)}>
        <PasswordForm
          action="Set the password"
          command={`mycelial-plane user password --dir ${shellWord(dir)} ${shellWord(name)}`}
          what={`${name} is logged out everywhere, and has to log in with it.`}
          onSubmit={async ({ fresh }) => {
            await changeUser(user, { password: fresh });
            await queries.invalidateQueries({ queryKey: keys.users });
            tell(`${name} has a new password.`);
            setOpen(false);
          }}
        />
      </Dialog>
    </span>
  );
}
