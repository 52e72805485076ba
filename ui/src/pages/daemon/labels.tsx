// The labels of one daemon: seen by everybody, and put on and taken off here by those who may. Every change can be undone.

import { useMutation, useQueryClient } from "@tanstack/react-query";
import { X } from "lucide-react";
import { type FormEvent, useState } from "react";
import { labelDaemons } from "@/api/actions";
import { keys } from "@/api/keys";
import { Allowed, useMay } from "@/components/allowed";
import { Button, IconButton } from "@/components/button";
import { Failure } from "@/components/callout";
import { CliButton, shellWord } from "@/components/copy";
import { Field, Input } from "@/components/field";
import { TextLink } from "@/components/link";
import { Section } from "@/components/page";
import { tell } from "@/components/toast";
import { parseChanges, undone } from "../daemons/labels";

interface LabelsProps {
  name: string;
  labels: Readonly<Record<string, string>>;
}

/** What one change puts on and takes off. */
interface Change {
  set: Record<string, string>;
  unset: string[];
}

export function Labels({ name, labels }: LabelsProps) {
  const queries = useQueryClient();
  const may = useMay("operator", true);
  const [typed, setTyped] = useState("");
  const [isOpen, setOpen] = useState(false);
  const change = useMutation({
    mutationFn: (wish: Change) => labelDaemons({ selector: `name:${name}`, ...wish }),
    onSuccess: async () => {
      await queries.invalidateQueries({ queryKey: keys.daemons });
    },
  });
  const run = (wish: Change, done: string) => {
    const back = undone(wish, labels);
    change.mutate(wish, {
      onSuccess: () => {
        setTyped("");
        tell(done, {
          label: "Undo",
          run: () => change.mutate(back, { onSuccess: () => tell(`The labels of ${name} are as before.`) }),
        });
      },
    });
  };
  const { set, unset, error } = parseChanges(typed);
  const submit = (event: FormEvent) => {
    event.preventDefault();
    if (error === "" && typed.trim() !== "") run({ set, unset }, `The labels of ${name} are changed.`);
  };
  const all = Object.entries(labels);
  return (
    <Section
      title="Labels"
      actions={
        <Allowed needs="operator" isWhole what="Labelling">
          <CliButton command={`mycelial daemon label ${shellWord(name)} ${typed.trim()}`.trim()} />
          <Button aria-expanded={isOpen} onClick={() => setOpen(!isOpen)}>
            {isOpen ? "Done" : "Change the labels"}
          </Button>
        </Allowed>
      }
    >
      {all.length === 0 ? (
        <p className="text-sm text-muted">It has none. Workflows, groups and scopes choose daemons by them.</p>
      ) : (
        <ul className="flex flex-wrap gap-1.5" aria-label={`Labels of ${name}`}>
          {all.map(([key, value]) => (
            <li
              key={key}
              className="inline-flex items-center gap-1 rounded-(--radius) border border-line bg-surface px-2 py-0.5 font-mono text-xs"
            >
              <TextLink href={`/daemons?q=${encodeURIComponent(`${key}=${value}`)}`}>{`${key}=${value}`}</TextLink>
              {may && isOpen && (
                <IconButton
                  label={`Take off ${key}`}
                  className="-mr-1 h-6 w-6"
                  disabled={change.isPending}
                  onClick={() => run({ set: {}, unset: [key] }, `${name} has no label ${key} any more.`)}
                >
                  <X aria-hidden="true" />
                </IconButton>
              )}
            </li>
          ))}
        </ul>
      )}
      {may && isOpen && (
        <form onSubmit={submit} className="flex max-w-xl flex-wrap items-start gap-2">
          <Field
            className="min-w-48 flex-1"
            label="Changes"
            hint="site=berlin puts a label on, site- takes it off; several with spaces."
            error={error}
          >
            <Input value={typed} placeholder="site=berlin test-" onChange={(event) => setTyped(event.target.value)} />
          </Field>
          <Button type="submit" className="mt-6" busy={change.isPending}>
            Change
          </Button>
        </form>
      )}
      {change.isError && <Failure error={change.error} />}
    </Section>
  );
}
