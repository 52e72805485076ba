// Letting daemons in by comparing a code: how long they may wait, what to type on each machine, and who waits.

import { useMutation, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { closeDoor, openDoor } from "@/api/actions";
import { keys } from "@/api/keys";
import { useDaemons, useDoor, usePending } from "@/api/queries";
import type { Door, Pending } from "@/api/types";
import { Allowed } from "@/components/allowed";
import { Button, LinkButton } from "@/components/button";
import { Failure } from "@/components/callout";
import { CliButton, Code } from "@/components/copy";
import { Data } from "@/components/data";
import { Select } from "@/components/field";
import { TextLink } from "@/components/link";
import { Page, Panel, Section } from "@/components/page";
import { PresenceStatus, Status } from "@/components/status";
import { type Column, Table } from "@/components/table";
import { Tabs } from "@/components/tabs";
import { Time, useNow } from "@/components/time";
import { tell } from "@/components/toast";
import { count } from "@/lib/format";
import { ApproveButton, RejectButton } from "./approve";
import { ENROL_TABS } from "./tabs";
import { LIVES } from "./wish";

export default function Approval() {
  return (
    <Page title="Enrol a daemon">
      <Tabs label="Ways in" tabs={ENROL_TABS} />
      <Allowed needs="operator" isWhole what="Enrolling somebody">
        <Steps />
      </Allowed>
    </Page>
  );
}

function Steps() {
  const door = useDoor();
  // Those that were let in here, the last one first.
  const [members, setMembers] = useState<readonly string[]>([]);
  return (
    <Data query={door}>
      {(found) => (
        <>
          <Opening door={found} />
          {found.open_until_unix_ms !== null && (
            <Section title="On each machine">
              <Code text={`myceliald start --enrol ${found.invitation}`} what="the command" />
              <p className="max-w-prose text-sm text-muted">
                The same for all of them, and no secret: it can be part of an image. The daemon writes a code into its
                log and waits.
              </p>
            </Section>
          )}
          <Waiting isOpen={found.open_until_unix_ms !== null} onMember={(name) => setMembers([name, ...members])} />
          {members.length > 0 && <Members names={members} />}
        </>
      )}
    </Data>
  );
}

function Opening({ door }: { door: Door }) {
  const queries = useQueryClient();
  const [ttl, setTtl] = useState(3_600);
  const now = useNow();
  const set = (found: Door) => queries.setQueryData(keys.door, found);
  const open = useMutation({ mutationFn: () => openDoor(ttl), onSuccess: set });
  const close = useMutation({
    mutationFn: closeDoor,
    onSuccess: () => {
      set({ ...door, open_until_unix_ms: null });
      tell("No daemon may wait any more.");
    },
  });
  const until = door.open_until_unix_ms;
  const isOpen = until !== null && until > now;
  return (
    <Section
      title="Whether daemons may wait"
      actions={<CliButton command={isOpen ? "mycelial enrol close" : `mycelial enrol open --for ${ttl / 3_600}h`} />}
    >
      <Panel className="flex flex-wrap items-center gap-x-4 gap-y-2 px-4 py-3">
        {isOpen ? (
          <>
            <Status tone="good">They may</Status>
            <span className="text-sm text-muted">
              It ends <Time unixMs={until} />.
            </span>
            <Button className="ml-auto" busy={close.isPending} onClick={() => close.mutate()}>
              Let none wait
            </Button>
          </>
        ) : (
          <>
            <Status tone="off">They may not</Status>
            <span className="text-sm text-muted">A daemon that asks now is sent away.</span>
            <div className="ml-auto flex flex-wrap items-center gap-2">
              <div>
                <Select aria-label="For how long" value={ttl} onChange={(event) => setTtl(Number(event.target.value))}>
                  {LIVES.map(([seconds, text]) => (
                    <option key={seconds} value={seconds}>
                      {text}
                    </option>
                  ))}
                </Select>
              </div>
              <Button kind="main" busy={open.isPending} onClick={() => open.mutate()}>
                Let daemons wait
              </Button>
            </div>
          </>
        )}
      </Panel>
      {[open.error, close.error].map((error) => error && <Failure key={error.message} error={error} />)}
    </Section>
  );
}

function columns(onMember: (name: string) => void): readonly Column<Pending>[] {
  return [
    { name: "Code", cell: ({ code }) => <code className="font-mono text-lg font-semibold">{code}</code> },
    { name: "Name", cell: ({ name }) => name },
    { name: "Host", cell: ({ host }) => host.hostname },
    { name: "System", cell: ({ host }) => `${host.os} ${host.arch}` },
    { name: "Version", cell: ({ host }) => host.version, isMinor: true },
    { name: "Waits since", cell: ({ since_unix_ms }) => <Time unixMs={since_unix_ms} /> },
    {
      name: "Actions",
      cell: (pending) => (
        <span className="flex flex-wrap gap-2">
          <ApproveButton pending={pending} onMember={onMember} />
          <RejectButton pending={pending} />
        </span>
      ),
    },
  ];
}

function Waiting({ isOpen, onMember }: { isOpen: boolean; onMember: (name: string) => void }) {
  const pending = usePending();
  return (
    <Data query={pending}>
      {(all) => (
        <Section
          title="Who waits"
          aside={all.length > 0 ? count(all.length, "daemon") : undefined}
          actions={<CliButton command="mycelial enrol pending" />}
        >
          <div role="status" className="sr-only">
            {count(all.length, "daemon")} {all.length === 1 ? "waits" : "wait"}
          </div>
          {all.length === 0 ? (
            <p className="py-3 text-sm text-muted">
              {isOpen
                ? "Nobody yet. This page notices by itself when a daemon asks."
                : "Nobody. Let daemons wait, and they are shown here."}
            </p>
          ) : (
            <Table label="Who waits" columns={columns(onMember)} rows={all} rowKey={({ node }) => node} />
          )}
        </Section>
      )}
    </Data>
  );
}

function Members({ names }: { names: readonly string[] }) {
  const daemons = useDaemons().data ?? [];
  const found = names.map((name) => daemons.find((daemon) => daemon.name === name));
  return (
    <Section title="Members since">
      <div role="status" className="flex flex-col gap-2">
        {names.map((name, at) => (
          <p key={name} className="flex flex-wrap items-center gap-x-3">
            <TextLink href={`/daemons/${encodeURIComponent(name)}`}>{name}</TextLink>
            <PresenceStatus presence={found[at]?.presence ?? "unknown"} />
          </p>
        ))}
      </div>
      {found.some((daemon) => daemon?.presence === "online") && (
        <div>
          <LinkButton href="/workflows/new" kind="main">
            Give it something to do
          </LinkButton>
        </div>
      )}
    </Section>
  );
}
