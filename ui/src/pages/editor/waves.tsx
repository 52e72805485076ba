// How a text is deployed: at once, or wave by wave with the first as a canary; and to whom it would go.

import { useWorkflowDiff } from "@/api/queries";
import type { WorkflowDiff } from "@/api/types";
import { Callout } from "@/components/callout";
import { Field, Input, Select } from "@/components/field";
import { count, sentence } from "@/lib/format";
import { mistakes, type Typed } from "@/lib/rollout";

/** How many daemons are named; the rest is a number. */
const NAMES_MAX = 12;

interface WavesProps {
  isInWaves: boolean;
  setInWaves: (isInWaves: boolean) => void;
  typed: Typed;
  setTyped: (typed: Typed) => void;
}

export function Waves({ isInWaves, setInWaves, typed, setTyped }: WavesProps) {
  const wrong = mistakes(typed);
  const text = (key: Exclude<keyof Typed, "isPausing">, label: string, hint: string) => (
    <Field label={label} hint={hint} error={wrong[key]}>
      <Input value={typed[key]} onChange={(event) => setTyped({ ...typed, [key]: event.target.value })} />
    </Field>
  );
  return (
    <fieldset className="flex flex-col gap-3">
      <legend className="sr-only">How it is deployed</legend>
      <div className="flex flex-wrap gap-x-6 gap-y-1">
        {[false, true].map((value) => (
          <label key={String(value)} className="inline-flex min-h-6 items-center gap-2 text-sm">
            <input
              type="radio"
              name="how"
              className="size-4 accent-accent"
              checked={isInWaves === value}
              onChange={() => setInWaves(value)}
            />
            {value ? "In waves, the first as a canary" : "To all daemons at once"}
          </label>
        ))}
      </div>
      {isInWaves && (
        <div className="grid gap-3 rounded-(--radius) border border-line p-3 sm:grid-cols-2">
          {text("waves", "Waves", "How many daemons have it after each.")}
          {text("failures", "Daemons that may fail", "A number, or a part like 5%.")}
          {text("soak", "Each wave does well for", "Before the next begins.")}
          {text("take", "A daemon may take", "Then it has failed.")}
          {text("lag", "Buffers of a daemon may grow by", "By more, it has failed.")}
          {text("wait", "Records may wait longer by", "Than before; 0s does not look.")}
          {text("throughput", "A wave moves at least", "Of what it moved before; 0% does not look.")}
          <Field label="When more fail" className="sm:col-span-2">
            <Select
              value={typed.isPausing ? "pause" : "roll_back"}
              onChange={(event) => setTyped({ ...typed, isPausing: event.target.value === "pause" })}
            >
              <option value="roll_back">All go back to what they had</option>
              <option value="pause">Wait for somebody to look</option>
            </Select>
          </Field>
        </div>
      )}
    </fieldset>
  );
}

/** "gateway and hub change, press gets it anew": by what happens to each. */
export function affected({ daemons, more }: Pick<WorkflowDiff, "daemons" | "more">) {
  const words = { changed: "changed", added: "new here", removed: "stops", unchanged: "" } as const;
  const groups = (["changed", "added", "removed"] as const).flatMap((change) => {
    const names = daemons.filter((each) => each.change === change).map(({ daemon }) => daemon);
    if (names.length === 0) return [];
    const rest = names.length - NAMES_MAX;
    const shown = names.slice(0, NAMES_MAX).join(", ");
    return [
      { change, word: words[change], count: names.length, names: rest > 0 ? `${shown} and ${rest} more` : shown },
    ];
  });
  const same = daemons.filter(({ change }) => change === "unchanged").length;
  return { groups, same, more };
}

/** Which daemons would get something else, as the plane compiles it. */
export function Affected({ text, isValid }: { text: string; isValid: boolean }) {
  const diff = useWorkflowDiff(text, isValid);
  if (!isValid) return null;
  if (diff.isError) return <Callout tone="warn" title={sentence(diff.error.message)} />;
  if (!diff.data) return <p className="text-sm text-muted">Asking the plane which daemons it concerns …</p>;
  const { groups, same, more } = affected(diff.data);
  return (
    <section aria-label="Daemons" className="flex flex-col gap-1 text-sm">
      <h3 className="font-semibold">
        {groups.length === 0
          ? "No daemon has anything else to do"
          : `${count(
              groups.reduce((sum, group) => sum + group.count, 0),
              "daemon",
            )} concerned`}
      </h3>
      {groups.map(({ change, word, names }) => (
        <p key={change} className="break-words">
          <span className="text-muted">{word}: </span>
          {names}
        </p>
      ))}
      {same > 0 && <p className="text-muted">{`${count(same, "daemon")} of this workflow stay as they are.`}</p>}
      {more > 0 && <p className="text-muted">{`${count(more, "daemon")} are not listed here.`}</p>}
      {groups.some(({ change }) => change === "changed") && (
        <p className="text-muted">What changed is stopped, drained, and goes on from where it was.</p>
      )}
    </section>
  );
}
