// Backups of the plane: which were made, the commands that make one, and the way back. Keys never pass through a browser, so
// the page shows the commands for the plane's own machine and runs none.

import { useSurroundings } from "@/api/queries";
import { Allowed, useMay } from "@/components/allowed";
import { Callout } from "@/components/callout";
import { Code, shellWord } from "@/components/copy";
import { Data } from "@/components/data";
import { Page, Section } from "@/components/page";
import { type Column, Table } from "@/components/table";
import { Tabs } from "@/components/tabs";
import { Time } from "@/components/time";
import { Whole } from "@/components/whole";
import { count } from "@/lib/format";
import { type Backup, type Backups, useBackups } from "./backups";
import { SETTINGS_TABS } from "./tabs";

const COLUMNS: readonly Column<Backup>[] = [
  { name: "What", cell: ({ kind, isRestore }) => (isRestore ? `${kind}, restored` : kind) },
  { name: "When", cell: ({ unixMs }) => <Time unixMs={unixMs} /> },
];

export default function BackupPage() {
  return (
    <Page title="Settings" isWide={false}>
      <Tabs label="Views of the settings" tabs={SETTINGS_TABS} />
      <Whole what="Backups">
        <Allowed needs="admin" what="Looking after backups">
          <Made />
          <Commands />
        </Allowed>
      </Whole>
    </Page>
  );
}

function Made() {
  const backups = useBackups(useMay("admin"));
  return (
    <Section title="Backups that were made">
      <Data query={backups}>
        {(found) => (
          <>
            <Advice backups={found} />
            {found.all.length > 0 && (
              <Table label="Backups" columns={COLUMNS} rows={found.all} rowKey={({ number }) => String(number)} />
            )}
          </>
        )}
      </Data>
    </Section>
  );
}

function Advice({ backups: { lastKeys, since } }: { backups: Backups }) {
  if (lastKeys === null) {
    return (
      <Callout tone="warn" title="There is no key backup.">
        If the plane’s disk is lost, so is the fleet: every daemon would have to be enrolled again.
      </Callout>
    );
  }
  if (since > 0) {
    return (
      <Callout tone="warn" title={`${count(since, "member")} came or went since the last key backup.`}>
        Make a new one, so that a restored plane knows them.
      </Callout>
    );
  }
  return (
    <p className="text-sm text-muted">
      The last key backup is of <Time unixMs={lastKeys} />, and nobody came or went since.
    </p>
  );
}

function Commands() {
  const surroundings = useSurroundings();
  return (
    <Data query={surroundings}>
      {({ dir }) => {
        const at = `--dir ${shellWord(dir)}`;
        return (
          <>
            <Section title="Make one">
              <p className="max-w-prose text-sm text-muted">
                On the plane’s machine, while it runs. The key backup holds what nobody could make anew; it prints a
                recovery code, once: keep both, apart from each other.
              </p>
              <Code text={`mycelial-plane backup create ${at} --keys keys.myc`} what="the command for the keys" />
              <p className="max-w-prose text-sm text-muted">
                The full one, each night for example, also holds revisions, users, audit and history.
              </p>
              <Code text={`mycelial-plane backup create ${at} full.myc`} what="the command for all" />
              <Code text={`mycelial-plane backup verify ${at} full.myc`} what="the command that verifies" />
            </Section>
            <Section title="The way back">
              <p className="max-w-prose text-sm text-muted">
                When the disk is lost, on the new machine. Daemons work on meanwhile, and tell the plane what the backup
                does not know.
              </p>
              <Code
                text={[
                  `mycelial-plane backup restore ${at} keys.myc`,
                  `mycelial-plane backup restore ${at} full.myc`,
                  `mycelial-plane run ${at}`,
                ].join("\n")}
                what="the commands that restore"
              />
            </Section>
          </>
        );
      }}
    </Data>
  );
}
