// One dead letter: its record as a form. What is changed is sent; then it is tried again.

import { useMutation, useQueryClient } from "@tanstack/react-query";
import { type FormEvent, useState } from "react";
import { keys } from "@/api/keys";
import { mendLetter, replayLetters, useLetter } from "@/api/operator";
import type { Letter, LetterShown } from "@/api/types";
import { useMay } from "@/components/allowed";
import { Button } from "@/components/button";
import { Callout, Failure } from "@/components/callout";
import { CliButton } from "@/components/copy";
import { Dialog } from "@/components/dialog";
import { Facts } from "@/components/facts";
import { Field, Input } from "@/components/field";
import { Loading } from "@/components/page";
import { Time } from "@/components/time";
import { tell } from "@/components/toast";
import { sentence } from "@/lib/format";
import { changes, cliToMend, type Typed, told, typedOf } from "./letters";

export function LetterDialog({ letter, onClose }: { letter: Letter; onClose: () => void }) {
  const shown = useLetter(letter);
  return (
    <Dialog title={`Dead letter ${letter.letter}`} isOpen onClose={onClose}>
      <Facts
        facts={[
          ["Why", sentence(letter.reason)],
          ["At", `${letter.node}, on the way ${letter.path}`],
          ["Died", <Time key="died" unixMs={letter.unix_ms} />],
        ]}
      />
      {shown.isPending && <Loading what="Asking for the record" />}
      {shown.isError && <Failure error={shown.error} />}
      {shown.data && <Content shown={shown.data} onClose={onClose} />}
    </Dialog>
  );
}

function Content({ shown, onClose }: { shown: LetterShown; onClose: () => void }) {
  const queries = useQueryClient();
  const may = useMay("operator");
  const { letter, columns, raw, is_cut } = shown;
  const record = shown.record?.[0] ?? null;
  const [typed, setTyped] = useState<ReadonlyMap<string, Typed>>(
    new Map(columns.map(({ name }) => [name, typedOf(record?.[name])])),
  );
  const changed = record ? changes(columns, record, typed) : {};
  const isChanged = Object.keys(changed).length > 0;
  const run = useMutation({
    mutationFn: () =>
      isChanged
        ? mendLetter(letter, changed, true)
        : replayLetters({ daemon: letter.daemon, workflow: letter.workflow, ids: [letter.id] }),
    onSuccess: async (done) => {
      tell(told(done, "tried again"));
      await queries.invalidateQueries({ queryKey: keys.lettersOf(letter.workflow) });
      onClose();
    },
  });
  const submit = (event: FormEvent) => {
    event.preventDefault();
    run.mutate();
  };
  const canMend = may && record !== null && letter.state === "kept";
  return (
    <form onSubmit={submit} className="flex flex-col gap-3">
      {record &&
        columns.map((column) => (
          <Value
            key={column.name}
            column={column}
            typed={typed.get(column.name) ?? typedOf(null)}
            isFixed={!canMend}
            onChange={(next) => setTyped(new Map(typed).set(column.name, next))}
          />
        ))}
      {raw !== null && (
        <>
          <p className="text-sm text-muted">The source could not read it; this is what it got:</p>
          {/* biome-ignore lint/a11y/noNoninteractiveTabindex: it scrolls, so the keyboard has to reach it */}
          <pre tabIndex={0} className="max-h-60 overflow-auto rounded-(--radius) bg-sunken p-2 font-mono text-xs">
            {raw}
          </pre>
        </>
      )}
      {is_cut && (
        <Callout tone="info" title="It is too long to be shown whole.">
          The command line writes it to a file.
        </Callout>
      )}
      {run.isError && <Failure error={run.error} />}
      <div className="flex flex-wrap justify-end gap-2">
        <span className="mr-auto">
          <CliButton command={cliToMend(letter.letter, changed)} />
        </span>
        <Button onClick={onClose}>Cancel</Button>
        {may && (
          <Button kind="main" type="submit" busy={run.isPending} disabled={letter.state === "queued"}>
            {isChanged ? "Change it and try again" : "Try again"}
          </Button>
        )}
      </div>
    </form>
  );
}

interface ValueProps {
  column: LetterShown["columns"][number];
  typed: Typed;
  isFixed: boolean;
  onChange: (typed: Typed) => void;
}

function Value({ column: { name, type, key, is_hidden }, typed, isFixed, onChange }: ValueProps) {
  const hint = [type, key ? "key" : "", is_hidden ? "its value is not shown; what is written here replaces it" : ""];
  return (
    <div className="flex items-end gap-3">
      <Field label={name} hint={hint.filter(Boolean).join(", ")} className="flex-1">
        <Input
          className="font-mono"
          value={typed.text}
          placeholder={typed.isNull ? "null" : ""}
          readOnly={isFixed}
          onChange={(event) => onChange({ text: event.target.value, isNull: false })}
        />
      </Field>
      {!isFixed && (
        <label className="mt-6 flex h-8 items-center gap-1.5 self-start text-sm">
          <input
            type="checkbox"
            className="size-4 accent-accent"
            aria-label={`${name} is null`}
            checked={typed.isNull}
            onChange={(event) => onChange({ text: "", isNull: event.target.checked })}
          />
          null
        </label>
      )}
    </div>
  );
}
