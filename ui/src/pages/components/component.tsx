// One component: what it does, every setting, and an example to begin with.

import { useMemo } from "react";
import { useParams } from "wouter";
import { useCarriers, useComponents, useDaemons } from "@/api/queries";
import type { ComponentView } from "@/api/types";
import { LinkButton } from "@/components/button";
import { CliButton, Code } from "@/components/copy";
import { Data } from "@/components/data";
import { TextLink } from "@/components/link";
import { Empty, Page, Section } from "@/components/page";
import { Prose } from "@/components/prose";
import { PresenceStatus } from "@/components/status";
import { type Column, Table } from "@/components/table";
import { count, number } from "@/lib/format";
import { carriersOf, othersOf } from "./carriers";
import { descriptionOf, type Setting, settingsOf } from "./schema";

const COLUMNS: readonly Column<Setting>[] = [
  {
    name: "Setting",
    cell: (setting) => (
      <>
        <code className="font-mono text-xs font-medium">{setting.name}</code>
        {setting.isRequired && <span className="block text-xs text-muted">required</span>}
      </>
    ),
    className: "align-top",
  },
  {
    name: "Type",
    cell: (setting) => <span className="text-muted">{setting.type}</span>,
    className: "align-top md:w-1/5",
  },
  {
    name: "Default",
    cell: (setting) => <code className="font-mono text-xs">{setting.default}</code>,
    className: "align-top",
  },
  { name: "What it does", cell: (setting) => <Prose text={setting.description} />, className: "align-top md:w-1/2" },
];

export default function Component() {
  const { role = "", name = "" } = useParams();
  const components = useComponents();
  return (
    <Data query={components}>
      {(all) => {
        const found = all.find((component) => component.role === role && component.name === name);
        return found ? <Detail component={found} /> : <Missing role={role} name={name} />;
      }}
    </Data>
  );
}

function Missing({ role, name }: { role: string; name: string }) {
  return (
    <Page title={name}>
      <Empty
        title={`No daemon has a ${role} ${name}`}
        action={<LinkButton href="/components">All components</LinkButton>}
      />
    </Page>
  );
}

function Detail({ component }: { component: ComponentView }) {
  const settings = useMemo(() => settingsOf(component.schema), [component.schema]);
  const { role, name } = component;
  return (
    <Page
      title={name}
      aside={<span className="text-sm text-muted">{role}</span>}
      actions={
        <>
          <CliButton command={`mycelial components ${name}`} />
          <LinkButton href={`/workflows/new?use=${role}/${encodeURIComponent(name)}`} kind="main">
            Use this
          </LinkButton>
        </>
      }
    >
      <div className="grid items-start gap-5 xl:grid-cols-[minmax(0,1fr)_minmax(0,30rem)]">
        <Prose text={descriptionOf(component.schema) || component.summary} />
        <div className="flex flex-col gap-5">
          {component.example !== "" && (
            <Section title="Example">
              <Code text={component.example.trim()} what="the example" />
            </Section>
          )}
          <OnDaemons role={role} name={name} />
        </div>
      </div>
      <Section title="Settings">
        {settings.length === 0 ? (
          <p className="text-sm text-muted">It has none.</p>
        ) : (
          <Table label="Settings" columns={COLUMNS} rows={settings} rowKey={(setting) => setting.name} />
        )}
      </Section>
    </Page>
  );
}

/** How many daemons are named; a fleet may be large. */
const NAMED_MAX = 200;
/** And of those that have it not. */
const OTHERS_MAX = 12;

function OnDaemons({ role, name }: { role: string; name: string }) {
  const carriers = useCarriers();
  const daemons = useDaemons().data ?? [];
  const presences = new Map(daemons.map((daemon) => [daemon.name, daemon.presence]));
  return (
    <Data query={carriers}>
      {(all) => {
        const found = carriersOf(all, role, name);
        const others = othersOf(all, role, name);
        const rest = found.length - NAMED_MAX;
        return (
          <Section title="Daemons that have it" aside={`${number(found.length)} of ${count(daemons.length, "daemon")}`}>
            <ul className="flex flex-wrap gap-x-5 gap-y-1 text-sm" aria-label="Daemons that have it">
              {found.slice(0, NAMED_MAX).map((daemon) => (
                <li key={daemon} className="inline-flex items-center gap-1.5">
                  <TextLink href={`/daemons/${encodeURIComponent(daemon)}`}>{daemon}</TextLink>
                  <PresenceStatus presence={presences.get(daemon) ?? "unknown"} />
                </li>
              ))}
            </ul>
            {rest > 0 && <p className="text-sm text-muted">and {number(rest)} more</p>}
            {others.length > 0 && (
              <p className="max-w-prose text-sm text-muted">
                Not on {others.slice(0, OTHERS_MAX).join(", ")}
                {others.length > OTHERS_MAX && ` and ${number(others.length - OTHERS_MAX)} more`}: a daemon of another
                version, or one that was built without it. A workflow that uses it there is not deployed.
              </p>
            )}
            {daemons.length > found.length + others.length && (
              <p className="text-sm text-muted">
                {count(daemons.length - found.length - others.length, "daemon")} did not tell yet what they have.
              </p>
            )}
          </Section>
        );
      }}
    </Data>
  );
}
