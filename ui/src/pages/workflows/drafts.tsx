// Drafts that the plane keeps: what is being written, by whom, and the way to go on with it.

import { useQueryClient } from "@tanstack/react-query";
import { forgetDraft } from "@/api/actions";
import { keys } from "@/api/keys";
import { useDrafts } from "@/api/queries";
import { useUser } from "@/api/session";
import type { DraftView, WorkflowView } from "@/api/types";
import { useMay } from "@/components/allowed";
import { ConfirmButton } from "@/components/dialog";
import { TextLink } from "@/components/link";
import { Section } from "@/components/page";
import { type Column, Table } from "@/components/table";
import { Time } from "@/components/time";
import { tell } from "@/components/toast";
import { nameOfNew } from "../editor/draft";

export function Drafts({ workflows }: { workflows: readonly WorkflowView[] }) {
  const drafts = useDrafts(useMay("operator")).data ?? [];
  const user = useUser((state) => state.user?.name ?? "");
  if (drafts.length === 0) return null;
  const own = nameOfNew(user);
  const columns: readonly Column<DraftView>[] = [
    {
      name: "Draft",
      cell: ({ name }) => {
        if (name === own) return <TextLink href="/workflows/new">a new workflow</TextLink>;
        if (!workflows.some((workflow) => workflow.name === name)) return name;
        return <TextLink href={`/workflows/${encodeURIComponent(name)}/edit`}>{name}</TextLink>;
      },
    },
    {
      name: "Kept",
      cell: ({ at_unix_ms, by }) => (
        <>
          <Time unixMs={at_unix_ms} /> <span className="text-muted">by {by}</span>
        </>
      ),
    },
    { name: "Action", cell: (draft) => <Forget draft={draft} /> },
  ];
  return (
    <Section title="Drafts" aside="not deployed yet">
      <Table label="Drafts" columns={columns} rows={drafts} rowKey={({ name }) => name} />
    </Section>
  );
}

function Forget({ draft: { name, by, revision } }: { draft: DraftView }) {
  const queries = useQueryClient();
  return (
    <ConfirmButton
      action="Throw away"
      label={`Throw the draft ${name} away`}
      title={`Throw the draft ${name} away?`}
      onConfirm={async () => {
        await forgetDraft(name, revision);
        tell(`The draft ${name} is gone.`);
        await queries.invalidateQueries({ queryKey: keys.drafts });
      }}
    >
      {by} kept it last. What is deployed stays as it is.
    </ConfirmButton>
  );
}
