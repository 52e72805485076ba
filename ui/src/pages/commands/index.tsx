// How a command stands, daemon by daemon, until all have answered or their time is over.

import { Download } from "lucide-react";
import { useMemo } from "react";
import { useParams } from "wouter";
import { Failed } from "@/api/client";
import { useCommand } from "@/api/queries";
import type { Command, Target } from "@/api/types";
import { Button, LinkButton } from "@/components/button";
import { Data } from "@/components/data";
import { TextLink } from "@/components/link";
import { Empty, Page, Panel, Section } from "@/components/page";
import { Progress } from "@/components/progress";
import { Status } from "@/components/status";
import { Time } from "@/components/time";
import { type SortableColumn, VirtualTable } from "@/components/virtual-table";
import { number, sentence } from "@/lib/format";
import { save } from "@/lib/save";
import { useSearchState } from "@/lib/search";
import { answered, answers, asFile, isOver, STANDINGS, tally, worstFirst } from "./orders";

const COLUMNS: readonly SortableColumn<Target>[] = [
  {
    name: "Daemon",
    isPlain: true,
    cell: ({ daemon }) => <TextLink href={`/daemons/${encodeURIComponent(daemon)}`}>{daemon}</TextLink>,
  },
  {
    name: "Standing",
    isPlain: true,
    cell: ({ standing }) => <Status tone={STANDINGS[standing][0]}>{STANDINGS[standing][1]}</Status>,
  },
  { name: "Workflows", cell: ({ workflows }) => workflows.join(", ") },
  { name: "Why", cell: ({ cause }) => sentence(cause), className: "md:w-1/2" },
];

export default function CommandPage() {
  const { id = "" } = useParams();
  const command = useCommand(Number(id));
  const title = `Command ${id}`;
  if (command.error instanceof Failed && command.error.status === 404) {
    return (
      <Page title={title}>
        <Empty title={`There is no command ${id}`} action={<LinkButton href="/daemons">All daemons</LinkButton>}>
          The newest hundred are kept.
        </Empty>
      </Page>
    );
  }
  return (
    <Page title={title} actions={<LinkButton href="/daemons">All daemons</LinkButton>}>
      <Data query={command}>{(found) => <Shown command={found} />}</Data>
    </Page>
  );
}

function Shown({ command }: { command: Command }) {
  const { what, by, at_unix_ms, deadline_unix_ms, daemons } = command;
  const [shown, setShown] = useSearchState("standing");
  const rows = useMemo(
    () => worstFirst(daemons.filter(({ standing }) => shown === "" || standing === shown)),
    [daemons, shown],
  );
  const over = isOver(command);
  return (
    <>
      <Panel className="flex flex-col gap-2 px-4 py-3">
        <p>{sentence(what)}</p>
        <p className="text-sm text-muted">
          By {by}, <Time unixMs={at_unix_ms} />
          {!over && (
            <>
              ; the time for answers ends <Time unixMs={deadline_unix_ms} />
            </>
          )}
        </p>
        <div className="flex">
          <Progress label="Daemons that answered" value={answers(command)} max={daemons.length} />
        </div>
        <div role="status" className="flex flex-wrap items-center gap-2 text-sm">
          {answered(command)}
          {tally(command).map(({ standing, found }) => (
            <Button
              key={standing}
              className="h-7"
              aria-pressed={shown === standing}
              onClick={() => setShown(shown === standing ? "" : standing)}
            >
              <Status tone={STANDINGS[standing][0]}>{`${number(found)} ${STANDINGS[standing][1]}`}</Status>
            </Button>
          ))}
        </div>
      </Panel>
      <VirtualTable label="Daemons" columns={COLUMNS} rows={rows} rowKey={({ node }) => node} />
      <Reports command={command} />
    </>
  );
}

function Reports({ command }: { command: Command }) {
  const told = command.daemons.filter(({ report }) => report.length > 0);
  if (told.length === 0) return null;
  return (
    <Section
      title="What they found"
      actions={
        <Button onClick={() => save(`command-${command.id}.txt`, asFile(command))}>
          <Download aria-hidden="true" />
          Save
        </Button>
      }
    >
      {told.map(({ daemon, node, report }) => (
        <details key={node} open={told.length === 1} className="rounded-(--radius) border border-line bg-surface">
          <summary className="cursor-pointer px-3 py-2 font-medium">{daemon}</summary>
          <div className="flex flex-col gap-3 px-3 pb-3">
            {report.map(({ heading, text }) => (
              <section key={heading} className="flex flex-col gap-1" aria-label={heading}>
                <h3 className="text-sm font-semibold">{heading}</h3>
                {/* biome-ignore lint/a11y/noNoninteractiveTabindex: it scrolls, so the keyboard has to reach it */}
                <pre tabIndex={0} className="overflow-x-auto rounded-(--radius) bg-sunken p-2 font-mono text-xs">
                  {text}
                </pre>
              </section>
            ))}
          </div>
        </details>
      ))}
    </Section>
  );
}
