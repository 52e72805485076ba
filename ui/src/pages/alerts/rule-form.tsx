// One rule: what it looks at, and when it would have fired if there had been it before.

import { useMutation } from "@tanstack/react-query";
import { type FormEvent, useState } from "react";
import { previewRule } from "@/api/actions";
import { useWorkflows } from "@/api/queries";
import type { AlertKind, AlertRule, Fired, RuleShown, Severity } from "@/api/types";
import { Button } from "@/components/button";
import { Failure } from "@/components/callout";
import { CliButton } from "@/components/copy";
import { Dialog } from "@/components/dialog";
import { Field, Input, Select } from "@/components/field";
import { tell } from "@/components/toast";
import { count, exact, span } from "@/lib/format";
import { parseSpan, showSpan } from "@/lib/rollout";
import { useChangeRule } from "./change";
import { cliOf, inWords, KINDS, nameOf, SEVERITIES, withRule } from "./words";

const NAME = /^[a-z0-9_-]{1,32}$/;
/** How far back a preview looks, in seconds. */
const PREVIEW_S = 86_400;
/** How many times of a preview are told. */
const FIRED_MAX = 8;

interface RuleFormProps {
  all: readonly RuleShown[];
  /** A new one has no name yet. */
  initial: AlertRule;
  onClose: () => void;
}

export function RuleForm({ all, initial, onClose }: RuleFormProps) {
  const [rule, setRule] = useState(initial);
  const [length, setLength] = useState(showSpan(initial.for_s));
  const [channels, setChannels] = useState(initial.notify.join(", "));
  const [isTried, setTried] = useState(false);
  const workflows = useWorkflows().data ?? [];
  const save = useChangeRule(all);
  const preview = useMutation({ mutationFn: () => previewRule(whole, PREVIEW_S) });
  const set = (change: Partial<AlertRule>) => {
    setRule({ ...rule, ...change });
    preview.reset();
  };
  const for_s = parseSpan(length);
  const whole: AlertRule = { ...rule, for_s: for_s ?? 0, notify: channels.split(/[\s,]+/).filter(Boolean) };
  const { unit } = KINDS[rule.when];
  const isTaken = rule.name !== initial.name && all.some(({ name }) => name === rule.name);
  const nameError = isTaken
    ? "There is a rule of that name."
    : isTried && !NAME.test(rule.name)
      ? "Use 1 to 32 letters a to z, digits, - and _."
      : "";
  const lengthError = for_s === null ? "Write for example 0s, 30s, 10m or 2h." : "";
  const submit = (event: FormEvent) => {
    event.preventDefault();
    setTried(true);
    if (isTaken || !NAME.test(rule.name) || for_s === null) return;
    save.mutate(
      { name: initial.name, rule: whole },
      {
        onSuccess: () => {
          tell(`The rule ${rule.name} is stored.`);
          onClose();
        },
      },
    );
  };
  return (
    <Dialog title={initial.name === "" ? "New rule" : `Change the rule ${initial.name}`} isOpen onClose={onClose}>
      <form onSubmit={submit} className="grid gap-4 sm:grid-cols-2">
        <Field label="Name" error={nameError}>
          <Input value={rule.name} onChange={(event) => set({ name: event.target.value })} />
        </Field>
        <Field label="Severity">
          <Select value={rule.severity} onChange={(event) => set({ severity: event.target.value as Severity })}>
            {(Object.keys(SEVERITIES) as Severity[]).map((severity) => (
              <option key={severity}>{severity}</option>
            ))}
          </Select>
        </Field>
        <Field label="Fires when" className="sm:col-span-2">
          <Select value={rule.when} onChange={(event) => set({ when: event.target.value as AlertKind })}>
            {Object.entries(KINDS).map(([kind, { label }]) => (
              <option key={kind} value={kind}>
                {label}
              </option>
            ))}
          </Select>
        </Field>
        {unit !== null && (
          <Field label={`${rule.when === "disk_free" ? "Less than" : "More than"}, in ${unit}`}>
            <Input
              type="number"
              min={0}
              required
              value={rule.over}
              onChange={(event) => set({ over: Math.max(0, Math.trunc(event.target.valueAsNumber || 0)) })}
            />
          </Field>
        )}
        <Field label="For" hint="How long it has to be so." error={lengthError}>
          <Input
            value={length}
            onChange={(event) => {
              setLength(event.target.value);
              preview.reset();
            }}
          />
        </Field>
        <Field label="Only daemons" hint="A filter as above the daemons; all when empty.">
          <Input
            value={rule.select}
            placeholder="site=berlin -label:test"
            onChange={(event) => set({ select: event.target.value })}
          />
        </Field>
        <Field label="Only workflow">
          <Select value={rule.workflow} onChange={(event) => set({ workflow: event.target.value })}>
            <option value="">All workflows</option>
            {rule.workflow !== "" && !workflows.some(({ name }) => name === rule.workflow) && (
              <option>{rule.workflow}</option>
            )}
            {workflows.map(({ name }) => (
              <option key={name}>{name}</option>
            ))}
          </Select>
        </Field>
        <Field
          label="Tells"
          hint="Channels of plane.toml, with commas between; all when empty."
          className="sm:col-span-2"
        >
          <Input value={channels} onChange={(event) => setChannels(event.target.value)} />
        </Field>
        <p className="text-sm break-words text-muted sm:col-span-2">It fires when {inWords(whole)}.</p>
        {(save.error ?? preview.error) && (
          <div className="sm:col-span-2">
            <Failure error={save.error ?? preview.error} />
          </div>
        )}
        {preview.data && <Past fired={preview.data.items} />}
        <div className="flex flex-wrap justify-end gap-2 sm:col-span-2">
          <Button
            className="mr-auto"
            busy={preview.isPending}
            disabled={for_s === null}
            onClick={() => preview.mutate()}
          >
            When would it have fired?
          </Button>
          <CliButton command={cliOf(withRule(all, initial.name, whole))} />
          <Button onClick={onClose}>Cancel</Button>
          <Button kind="main" type="submit" busy={save.isPending}>
            Store the rule
          </Button>
        </div>
      </form>
    </Dialog>
  );
}

function Past({ fired }: { fired: readonly Fired[] }) {
  return (
    <div role="status" className="flex flex-col gap-1 rounded-(--radius) border border-line p-3 text-sm sm:col-span-2">
      {fired.length === 0 ? (
        <p>It would not have fired in the last 24 hours.</p>
      ) : (
        <>
          <p>{`In the last 24 hours it would have fired ${count(fired.length, "time")}:`}</p>
          <ul className="list-disc pl-5">
            {fired.slice(0, FIRED_MAX).map(({ subject, from_unix_ms, to_unix_ms }) => (
              <li key={`${subject} ${from_unix_ms}`} className="break-words">
                {nameOf(subject)}, {exact(from_unix_ms)},{" "}
                {to_unix_ms === null ? "until now" : `for ${span(to_unix_ms - from_unix_ms)}`}
              </li>
            ))}
          </ul>
          {fired.length > FIRED_MAX && <p className="text-muted">{`and ${fired.length - FIRED_MAX} more`}</p>}
        </>
      )}
    </div>
  );
}
