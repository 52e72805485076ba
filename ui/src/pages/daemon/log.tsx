// The last lines of one daemon's log, as they come. All of them, with search and filters, are a page of their own.

import { useQuery } from "@tanstack/react-query";
import { logsQuery } from "@/api/queries";
import type { LogLine } from "@/api/types";
import { LinkButton } from "@/components/button";
import { Failure } from "@/components/callout";
import { Loading, Section } from "@/components/page";
import { Status } from "@/components/status";
import { type Column, Table } from "@/components/table";
import { Moment } from "@/components/time";
import { ZONE } from "@/lib/format";
import { LEVEL_TONES } from "../logs/lines";

const SHOWN_MAX = 8;

const COLUMNS: readonly Column<LogLine>[] = [
  { name: "Time", isPlain: true, cell: ({ unix_ms }) => <Moment unixMs={unix_ms} /> },
  {
    name: "Level",
    isPlain: true,
    cell: ({ level }) => <Status tone={LEVEL_TONES[level] ?? "off"}>{level.toLowerCase()}</Status>,
  },
  { name: "Workflow", isPlain: true, cell: ({ workflow }) => workflow },
  {
    name: "Line",
    isPlain: true,
    cell: ({ text }) => <span className="font-mono text-xs">{text}</span>,
    className: "max-md:w-full md:w-3/5",
  },
];

/** `isHeard`: it has reported; otherwise it cannot be asked. */
export function Log({ name, isHeard }: { name: string; isHeard: boolean }) {
  const lines = useQuery(logsQuery(name, "info", "", isHeard));
  const newest = [...(lines.data ?? [])]
    .sort((a, b) => b.unix_ms - a.unix_ms || b.number - a.number)
    .slice(0, SHOWN_MAX);
  return (
    <Section
      title="Log"
      aside={newest.length > 0 ? `the newest lines, as they come; times in ${ZONE}` : undefined}
      actions={<LinkButton href={`/logs?daemon=${encodeURIComponent(name)}`}>All of it</LinkButton>}
    >
      {newest.length > 0 ? (
        <Table label="Log" columns={COLUMNS} rows={newest} rowKey={({ number, unix_ms }) => `${number} ${unix_ms}`} />
      ) : lines.isError ? (
        <Failure error={lines.error} />
      ) : isHeard && lines.isPending ? (
        <Loading what="Asking for the lines" />
      ) : (
        <p className="text-sm text-muted">{isHeard ? "It has logged nothing yet." : "It has never reported."}</p>
      )}
    </Section>
  );
}
