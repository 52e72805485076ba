// Enrolment strings that can still be used, and taking them back.

import { useQueryClient } from "@tanstack/react-query";
import { revokeToken } from "@/api/actions";
import { keys } from "@/api/keys";
import { useTokens } from "@/api/queries";
import type { TokenItem } from "@/api/types";
import { CliButton, shellWord } from "@/components/copy";
import { Data } from "@/components/data";
import { ConfirmButton } from "@/components/dialog";
import { Section } from "@/components/page";
import { type Column, Table } from "@/components/table";
import { Time } from "@/components/time";
import { tell } from "@/components/toast";
import { count, number } from "@/lib/format";

const COLUMNS: readonly Column<TokenItem>[] = [
  { name: "Id", cell: ({ id }) => <code className="font-mono text-xs">{id}</code> },
  { name: "For", cell: ({ role, name }) => (name === null ? `any ${role}` : `${role} ${name}`) },
  {
    name: "Labels",
    cell: ({ labels }) => {
      const all = Object.entries(labels).map(([key, value]) => `${key}=${value}`);
      return all.length > 0 && <span className="font-mono text-xs">{all.join(" ")}</span>;
    },
  },
  { name: "Uses left", isNumber: true, cell: ({ uses_left }) => number(uses_left) },
  { name: "Ends", cell: ({ expires_unix_ms }) => <Time unixMs={expires_unix_ms} /> },
  { name: "Action", cell: ({ id }) => <Revoke id={id} /> },
];

export function Tokens() {
  const tokens = useTokens();
  return (
    <Data query={tokens}>
      {(all) =>
        all.length === 0 ? null : (
          <Section
            title="Strings that still work"
            aside={count(all.length, "string")}
            actions={<CliButton command="mycelial token list" />}
          >
            <Table label="Enrolment strings" columns={COLUMNS} rows={all} rowKey={({ id }) => id} />
          </Section>
        )
      }
    </Data>
  );
}

function Revoke({ id }: { id: string }) {
  const queries = useQueryClient();
  return (
    <ConfirmButton
      action="Revoke"
      label={`Revoke ${id}`}
      title={`Revoke the string ${id}?`}
      command={`mycelial token revoke ${shellWord(id)}`}
      onConfirm={async () => {
        await revokeToken(id);
        tell(`The enrolment string ${id} does not work any more.`);
        await queries.invalidateQueries({ queryKey: keys.tokens });
      }}
    >
      Nobody can enrol with it any more. Whoever did is a member still.
    </ConfirmButton>
  );
}
