// One component: what it does, every setting, and an example to begin with.

import { useMemo } from "react";
import { useParams } from "wouter";
import { useComponents } from "@/api/queries";
import type { ComponentView } from "@/api/types";
import { LinkButton } from "@/components/button";
import { CliButton, Code } from "@/components/copy";
import { Data } from "@/components/data";
import { Empty, Page, Section } from "@/components/page";
import { Prose } from "@/components/prose";
import { type Column, Table } from "@/components/table";
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
        {component.example !== "" && (
          <Section title="Example">
            <Code text={component.example.trim()} what="the example" />
          </Section>
        )}
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
