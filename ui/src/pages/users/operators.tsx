// Operators with keys of their own, who work with the command line: they are members of the fleet, and no users of the page.

import { useQueryClient } from "@tanstack/react-query";
import { revokeOperator } from "@/api/actions";
import { keys } from "@/api/keys";
import { useOperators } from "@/api/queries";
import type { Operator } from "@/api/types";
import { LinkButton } from "@/components/button";
import { CliButton, shellWord } from "@/components/copy";
import { Data } from "@/components/data";
import { ConfirmButton } from "@/components/dialog";
import { Section } from "@/components/page";
import { type Column, Table } from "@/components/table";
import { Time } from "@/components/time";
import { tell } from "@/components/toast";
import { count } from "@/lib/format";

const COLUMNS: readonly Column<Operator>[] = [
  { name: "Operator", cell: ({ name }) => name },
  {
    name: "Key fingerprint",
    cell: ({ fingerprint }) => <code className="font-mono text-xs break-all">{fingerprint}</code>,
  },
  {
    name: "Enrolled",
    cell: ({ enrolled_unix_ms }) => (enrolled_unix_ms === 0 ? "not known" : <Time unixMs={enrolled_unix_ms} />),
  },
  { name: "Action", cell: ({ name }) => <Revoke name={name} /> },
];

export function Operators() {
  const operators = useOperators();
  return (
    <Data query={operators}>
      {(all) => (
        <Section
          title="Operators with the command line"
          aside={all.length > 0 ? count(all.length, "operator") : undefined}
          actions={<CliButton command="mycelial operator list" />}
        >
          {all.length > 0 ? (
            <Table label="Operators" columns={COLUMNS} rows={all} rowKey={({ node }) => node} />
          ) : (
            <p className="flex flex-wrap items-center gap-3 text-sm text-muted">
              Nobody has keys for the command line yet.
              <LinkButton href="/enrol">Enrol an operator</LinkButton>
            </p>
          )}
        </Section>
      )}
    </Data>
  );
}

function Revoke({ name }: { name: string }) {
  const queries = useQueryClient();
  return (
    <ConfirmButton
      action="Revoke"
      label={`Revoke ${name}`}
      title={`Take the operator ${name} out of the fleet?`}
      onConfirm={async () => {
        await revokeOperator(name);
        tell(`${name} is out of the fleet.`);
        await queries.invalidateQueries({ queryKey: keys.operators });
      }}
    >
      <p>No daemon obeys {name} from then on, also while the plane is away. Users of the page are others.</p>
      <p className="mt-2">
        <CliButton command={`mycelial operator revoke ${shellWord(name)}`} />
      </p>
    </ConfirmButton>
  );
}
