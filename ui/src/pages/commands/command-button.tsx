// Telling daemons to do something: what, whom it concerns, and then on to the page that shows its progress.

import { useMutation } from "@tanstack/react-query";
import { type LucideIcon, SquareTerminal } from "lucide-react";
import { type FormEvent, useState } from "react";
import { useLocation } from "wouter";
import { commandDaemons } from "@/api/actions";
import { useWorkflows } from "@/api/queries";
import { useMay } from "@/components/allowed";
import { Button } from "@/components/button";
import { Failure } from "@/components/callout";
import { CliButton } from "@/components/copy";
import { Dialog } from "@/components/dialog";
import { Field, Input, Select } from "@/components/field";
import { count } from "@/lib/format";
import { useSearchState } from "@/lib/search";
import { cliOf, FIRST, KINDS, mistakes, orderOf, type Typed } from "./orders";

/** How many names are said; the rest is a number. */
const NAMES_MAX = 12;

interface CommandProps {
  /** What chooses them, as the plane takes it. */
  selector: string;
  /** Whom that is, by name. */
  chosen: readonly string[];
  /** What the form begins with. */
  first?: Partial<Typed>;
  /** What the button says; otherwise whom it is about. */
  label?: string;
  Icon?: LucideIcon;
}

export function CommandButton({ label, Icon = SquareTerminal, ...rest }: CommandProps) {
  // A link may ask for it, where it is about one daemon.
  const [asked, setAsked] = useSearchState("command");
  const [isPressed, setOpen] = useState(false);
  const isOpen = isPressed || (asked !== "" && rest.chosen.length === 1 && !rest.first);
  const close = () => {
    setOpen(false);
    setAsked("");
  };
  if (!useMay("operator") || rest.chosen.length === 0) return null;
  return (
    <>
      <Button kind="quiet" onClick={() => setOpen(true)}>
        <Icon aria-hidden="true" />
        {label ?? `Command ${count(rest.chosen.length, "daemon")}`}
      </Button>
      {isOpen && <CommandDialog {...rest} onClose={close} />}
    </>
  );
}

function CommandDialog({ selector, chosen, first, onClose }: CommandProps & { onClose: () => void }) {
  const [, go] = useLocation();
  const [typed, setTyped] = useState<Typed>({ ...FIRST, ...first });
  const [isTried, setTried] = useState(false);
  const wanted = orderOf(typed);
  const run = useMutation({
    mutationFn: ({ order, deadline_s }: NonNullable<typeof wanted>) => commandDaemons(selector, order, deadline_s),
    onSuccess: ({ id }) => go(`/commands/${id}`),
  });
  const submit = (event: FormEvent) => {
    event.preventDefault();
    setTried(true);
    if (wanted) run.mutate(wanted);
  };
  const [only = null] = chosen;
  const command = wanted && cliOf(typed, selector, chosen.length === 1 ? only : null);
  const names = chosen.slice(0, NAMES_MAX);
  const rest = chosen.length - names.length;
  const title = chosen.length === 1 ? `Command ${only}` : `Command ${count(chosen.length, "daemon")}`;
  return (
    <Dialog title={title} isOpen onClose={onClose}>
      <form onSubmit={submit} className="flex flex-col gap-4">
        {chosen.length > 1 && (
          <p className="text-sm break-words">
            {names.join(", ")}
            {rest > 0 && ` and ${rest} more`}
          </p>
        )}
        <Form typed={typed} setTyped={setTyped} isTried={isTried} />
        {run.isError && <Failure error={run.error} />}
        <div className="flex flex-wrap justify-end gap-2">
          <span className="mr-auto">{command && <CliButton command={command} />}</span>
          <Button onClick={onClose}>Cancel</Button>
          <Button kind="main" type="submit" busy={run.isPending}>
            {KINDS[typed.kind].action}
          </Button>
        </div>
      </form>
    </Dialog>
  );
}

interface FormProps {
  typed: Typed;
  setTyped: (typed: Typed) => void;
  isTried: boolean;
}

function Form({ typed, setTyped, isTried }: FormProps) {
  const workflows = useWorkflows().data ?? [];
  const wrong = mistakes(typed);
  const hasWorkflow = ["restart", "pause", "resume"].includes(typed.kind);
  const text = (key: "level" | "hold" | "deadline", label: string, hint?: string) => (
    <Field label={label} hint={hint} error={wrong[key]}>
      <Input value={typed[key]} onChange={(event) => setTyped({ ...typed, [key]: event.target.value })} />
    </Field>
  );
  return (
    <>
      <Field label="What they shall do" hint={KINDS[typed.kind].what}>
        <Select
          value={typed.kind}
          onChange={(event) => setTyped({ ...typed, kind: event.target.value as Typed["kind"] })}
        >
          {Object.entries(KINDS).map(([kind, { action }]) => (
            <option key={kind} value={kind}>
              {action}
            </option>
          ))}
        </Select>
      </Field>
      {hasWorkflow && (
        <Field label="Workflow" error={isTried ? wrong.workflow : ""}>
          <Select value={typed.workflow} onChange={(event) => setTyped({ ...typed, workflow: event.target.value })}>
            <option value="">{typed.kind === "restart" ? "Choose …" : "All of them"}</option>
            {workflows.map(({ name }) => (
              <option key={name}>{name}</option>
            ))}
          </Select>
        </Field>
      )}
      {typed.kind === "log_level" && (
        <div className="grid gap-4 sm:grid-cols-2">
          {text("level", "Level", "debug, or info,spool=debug.")}
          {text("hold", "For how long")}
        </div>
      )}
      {text("deadline", "Daemons may take", "Whoever has not answered by then is said not to have.")}
    </>
  );
}
