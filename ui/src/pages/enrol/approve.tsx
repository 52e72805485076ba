// Approving one daemon: its code beside the one that the daemon itself shows, then a name and labels. Turning one away.

import { useMutation, useQueryClient } from "@tanstack/react-query";
import { type FormEvent, useState } from "react";
import { approve, labelDaemons, reject } from "@/api/actions";
import { keys } from "@/api/keys";
import type { Pending } from "@/api/types";
import { Button } from "@/components/button";
import { Failure } from "@/components/callout";
import { CliButton } from "@/components/copy";
import { ConfirmButton, Dialog } from "@/components/dialog";
import { Field, Input } from "@/components/field";
import { tell } from "@/components/toast";
import { sentence } from "@/lib/format";

import { approveCli, compare } from "./code";
import { labelsIn, mistakeInName } from "./wish";

interface ApproveProps {
  pending: Pending;
  onMember: (name: string) => void;
}

export function ApproveButton({ pending, onMember }: ApproveProps) {
  const [isOpen, setOpen] = useState(false);
  return (
    <>
      <Button kind="main" aria-label={`Approve ${pending.code}`} onClick={() => setOpen(true)}>
        Approve …
      </Button>
      {isOpen && <ApproveDialog pending={pending} onMember={onMember} onClose={() => setOpen(false)} />}
    </>
  );
}

/** Makes it a member, and labels it then. It is a member also if the labels fail. */
function useApprove({ pending, onMember }: ApproveProps, onClose: () => void) {
  const queries = useQueryClient();
  return useMutation({
    mutationFn: async ({ name, set }: { name: string; set: Record<string, string> }) => {
      const member = await approve(pending.code, name);
      if (Object.keys(set).length === 0) return { name: member.name, failure: "" };
      const labelled = labelDaemons({ selector: `name:${member.name}`, set, unset: [] });
      const failure = await labelled.then(
        () => "",
        (cause: Error) => ` It has no labels: ${sentence(cause.message)}`,
      );
      return { name: member.name, failure };
    },
    onSuccess: ({ name, failure }) => {
      tell(`${name} is a member now.${failure}`);
      onMember(name);
      onClose();
      void queries.invalidateQueries({ queryKey: keys.daemons });
      void queries.invalidateQueries({ queryKey: keys.pending, exact: true });
    },
  });
}

function ApproveDialog({ pending, onMember, onClose }: ApproveProps & { onClose: () => void }) {
  const [typed, setTyped] = useState("");
  const [name, setName] = useState(pending.name);
  const [labels, setLabels] = useState("");
  const [isTried, setTried] = useState(false);
  const run = useApprove({ pending, onMember }, onClose);
  const { labels: set, error: labelError } = labelsIn(labels);
  const compared = compare(pending.code, typed);
  const codeError =
    compared === "other"
      ? "This is another code: somebody else asks in its place. Turn it away."
      : isTried && compared === "unfinished"
        ? "Type what the daemon shows."
        : "";
  const nameError = mistakeInName(name);
  const submit = (event: FormEvent) => {
    event.preventDefault();
    setTried(true);
    if (compared === "same" && nameError === "" && labelError === "") run.mutate({ name, set });
  };
  return (
    <Dialog title={`Approve ${pending.name}?`} isOpen onClose={onClose}>
      <form onSubmit={submit} className="flex flex-col gap-4">
        <p className="text-sm">
          Look at the machine itself, not at what somebody tells you: its log says “this daemon’s code is …”. Equal
          codes mean that nobody stands between it and the plane.
        </p>
        <div className="grid gap-4 sm:grid-cols-2">
          <div className="flex flex-col gap-1">
            <p className="text-sm font-medium">The plane sees</p>
            <code className="font-mono text-lg leading-8 font-semibold">{pending.code}</code>
            <p className="text-xs break-words text-muted">
              {pending.host.hostname}, {pending.host.os} {pending.host.arch}
            </p>
          </div>
          <Field label="The daemon shows" error={codeError} hint={compared === "same" ? "They are equal." : undefined}>
            <Input
              className="font-mono text-lg!"
              value={typed}
              maxLength={16}
              spellCheck={false}
              placeholder="xxxx-xxxx"
              onChange={(event) => setTyped(event.target.value)}
            />
          </Field>
        </div>
        <Field label="Name" error={nameError}>
          <Input value={name} maxLength={32} onChange={(event) => setName(event.target.value)} />
        </Field>
        <Field label="Labels" hint="With spaces between; none when empty." error={labelError}>
          <Input value={labels} placeholder="site=berlin line=2" onChange={(event) => setLabels(event.target.value)} />
        </Field>
        {run.isError && <Failure error={run.error} />}
        <div className="flex flex-wrap justify-end gap-2">
          <span className="mr-auto">
            <CliButton command={approveCli(pending.code, pending.name, name, labels.trim())} />
          </span>
          <Button onClick={onClose}>Cancel</Button>
          <Button kind="main" type="submit" busy={run.isPending}>
            Approve
          </Button>
        </div>
      </form>
    </Dialog>
  );
}

export function RejectButton({ pending }: { pending: Pending }) {
  const queries = useQueryClient();
  return (
    <ConfirmButton
      action="Reject"
      label={`Reject ${pending.code}`}
      title={`Turn ${pending.name} away?`}
      onConfirm={async () => {
        const { name } = await reject(pending.code);
        tell(`${name} is turned away.`);
        await queries.invalidateQueries({ queryKey: keys.pending, exact: true });
      }}
    >
      <p>
        The daemon that shows {pending.code} is told so and stops asking. Start it again on its machine, and it asks
        anew, with another code.
      </p>
      <p className="mt-2">
        <CliButton command={`mycelial enrol reject ${pending.code}`} />
      </p>
    </ConfirmButton>
  );
}
