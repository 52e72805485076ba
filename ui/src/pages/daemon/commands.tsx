// What one daemon was told from the web page, and what came of it; and to ask it what is wrong with it.

import { Stethoscope } from "lucide-react";
import { useState } from "react";
import { useCommandsOf } from "@/api/queries";
import type { CommandOf } from "@/api/types";
import { Button } from "@/components/button";
import { Data } from "@/components/data";
import { TextLink } from "@/components/link";
import { Section } from "@/components/page";
import { Status } from "@/components/status";
import { type Column, Table } from "@/components/table";
import { Time } from "@/components/time";
import { count, sentence } from "@/lib/format";
import { CommandButton } from "../commands/command-button";
import { STANDINGS } from "../commands/orders";

const COLUMNS: readonly Column<CommandOf>[] = [
  { name: "Command", cell: ({ id, what }) => <TextLink href={`/commands/${id}`}>{sentence(what)}</TextLink> },
  {
    name: "Standing",
    cell: ({ standing }) => <Status tone={STANDINGS[standing][0]}>{STANDINGS[standing][1]}</Status>,
  },
  { name: "When", cell: ({ at_unix_ms }) => <Time unixMs={at_unix_ms} /> },
  { name: "By", cell: ({ by }) => by },
  { name: "Why", cell: ({ cause }) => sentence(cause), className: "md:w-1/3" },
];

/** So many are shown until somebody wants to see all. */
const SHOWN_MAX = 8;

export function Commands({ name }: { name: string }) {
  const commands = useCommandsOf(name);
  const [isWhole, setWhole] = useState(false);
  return (
    <Section
      title="Commands"
      aside={commands.data && count(commands.data.length, "command")}
      actions={
        <CommandButton
          label="Diagnose"
          Icon={Stethoscope}
          selector={`name:${name}`}
          chosen={[name]}
          first={{ kind: "diagnose" }}
        />
      }
    >
      <Data query={commands}>
        {(all) =>
          all.length === 0 ? (
            <p className="text-sm text-muted">Nobody has told it anything from here, as far as it is remembered.</p>
          ) : (
            <>
              <Table
                label="Commands"
                columns={COLUMNS}
                rows={isWhole ? all : all.slice(0, SHOWN_MAX)}
                rowKey={({ id }) => `${id}`}
              />
              {!isWhole && all.length > SHOWN_MAX && (
                <Button className="self-start" onClick={() => setWhole(true)}>
                  Show all {all.length}
                </Button>
              )}
            </>
          )
        }
      </Data>
    </Section>
  );
}
