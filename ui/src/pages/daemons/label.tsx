// Labels for all daemons that the filter shows: which they are is said before anything changes.

import { useMutation, useQueryClient } from "@tanstack/react-query";
import { Tag } from "lucide-react";
import { type FormEvent, useState } from "react";
import { labelDaemons } from "@/api/actions";
import { keys } from "@/api/keys";
import type { DaemonItem } from "@/api/types";
import { useMay } from "@/components/allowed";
import { Button } from "@/components/button";
import { Failure } from "@/components/callout";
import { CliButton, shellWord } from "@/components/copy";
import { Dialog } from "@/components/dialog";
import { Field, Input } from "@/components/field";
import { tell } from "@/components/toast";
import { count } from "@/lib/format";
import { parseChanges } from "./labels";

/** How many names are said; the rest is a number. */
const NAMES_MAX = 12;

interface LabelProps {
  /** What chooses them, as the plane takes it. */
  selector: string;
  chosen: readonly DaemonItem[];
}

export function LabelButton({ selector, chosen }: LabelProps) {
  const [isOpen, setOpen] = useState(false);
  if (!useMay("operator", true) || chosen.length === 0) return null;
  return (
    <>
      <Button kind="quiet" onClick={() => setOpen(true)}>
        <Tag aria-hidden="true" />
        Label {count(chosen.length, "daemon")}
      </Button>
      {isOpen && <LabelDialog selector={selector} chosen={chosen} onClose={() => setOpen(false)} />}
    </>
  );
}

function LabelDialog({ selector, chosen, onClose }: LabelProps & { onClose: () => void }) {
  const queries = useQueryClient();
  const [typed, setTyped] = useState("");
  const { set, unset, error } = parseChanges(typed);
  const run = useMutation({
    mutationFn: () => labelDaemons({ selector, set, unset }),
    onSuccess: async ({ items }) => {
      await queries.invalidateQueries({ queryKey: keys.daemons });
      tell(`Labels of ${count(items.length, "daemon")} are changed.`);
      onClose();
    },
  });
  const submit = (event: FormEvent) => {
    event.preventDefault();
    if (error === "" && typed.trim() !== "") run.mutate();
  };
  const names = chosen.slice(0, NAMES_MAX).map(({ name }) => name);
  const rest = chosen.length - names.length;
  return (
    <Dialog title={`Label ${count(chosen.length, "daemon")}`} isOpen onClose={onClose}>
      <form onSubmit={submit} className="flex flex-col gap-4">
        <p className="text-sm break-words">
          {names.join(", ")}
          {rest > 0 && ` and ${rest} more`}
        </p>
        <Field
          label="Changes"
          hint="site=berlin puts a label on, site- takes it off; several with spaces."
          error={error}
        >
          <Input value={typed} placeholder="site=berlin test-" onChange={(event) => setTyped(event.target.value)} />
        </Field>
        {run.isError && <Failure error={run.error} />}
        <div className="flex flex-wrap justify-end gap-2">
          <CliButton command={`mycelial daemon label ${shellWord(selector || "name:*")} ${typed.trim()}`.trim()} />
          <Button onClick={onClose}>Cancel</Button>
          <Button kind="main" type="submit" busy={run.isPending}>
            Change the labels
          </Button>
        </div>
      </form>
    </Dialog>
  );
}
