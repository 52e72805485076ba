// What a new plane still needs, until it has it.

import { useDaemons, useWorkflows } from "@/api/queries";
import { useUser } from "@/api/session";
import { useMay } from "@/components/allowed";
import { TextLink } from "@/components/link";
import { Panel, Section } from "@/components/page";
import { Status } from "@/components/status";
import { useBackups } from "./backups";

type Step = readonly [isDone: boolean, what: string, href: string];

export function FirstSteps() {
  const isAdmin = useMay("admin", true);
  const isSetup = useUser((state) => state.isSetup);
  const daemons = useDaemons().data;
  const workflows = useWorkflows().data;
  const backups = useBackups(isAdmin).data;
  if (!isAdmin || !daemons || !workflows || !backups) return null;
  const steps: readonly Step[] = [
    [!isSetup, "Make the first admin", "/settings/users"],
    [daemons.length > 0, "Enrol a daemon", "/enrol"],
    [workflows.length > 0, "Deploy a workflow", "/workflows/new"],
    [backups.lastKeys !== null, "Make a key backup", "/settings/backup"],
  ];
  const open = steps.filter(([isDone]) => !isDone).length;
  if (open === 0) return null;
  return (
    <Section title="First steps" aside={`${steps.length - open} of ${steps.length} are done`}>
      <Panel className="px-4 py-3">
        <ol className="flex flex-col gap-1.5 text-sm">
          {steps.map(([isDone, what, href]) => (
            <li key={what} className="flex items-center gap-3">
              <span className="w-16">
                <Status tone={isDone ? "good" : "off"}>{isDone ? "done" : "open"}</Status>
              </span>
              {isDone ? what : <TextLink href={href}>{what}</TextLink>}
            </li>
          ))}
        </ol>
      </Panel>
    </Section>
  );
}
