// What can be said to a rollout that is under way. Each is asked for a reason, which stays with the rollout.

import { useMutation, useQueryClient } from "@tanstack/react-query";
import { type FormEvent, useState } from "react";
import { type RolloutCommand, tellRollout } from "@/api/actions";
import { keys } from "@/api/keys";
import type { RolloutView } from "@/api/types";
import { Button } from "@/components/button";
import { Failure } from "@/components/callout";
import { CliButton, shellWord } from "@/components/copy";
import { Dialog } from "@/components/dialog";
import { Field, Input } from "@/components/field";
import { tell } from "@/components/toast";

interface Command {
  action: string;
  /** What happens, and what does not. */
  what: string;
  done: string;
  needsReason: boolean;
}

const COMMANDS: Record<RolloutCommand, Command> = {
  pause: {
    action: "Pause",
    what: "No new wave begins. Daemons that have the new revision go on with it.",
    done: "is paused",
    needsReason: false,
  },
  resume: {
    action: "Resume",
    what: "It goes on from the wave it stands at, whatever has failed so far.",
    done: "goes on",
    needsReason: false,
  },
  abort: {
    action: "Abort",
    what: "It ends here: daemons that have the new revision keep it, the others never get it from this rollout.",
    done: "is over",
    needsReason: true,
  },
  rollback: {
    action: "Roll back",
    what: "All daemons that have the new revision get back what they had before.",
    done: "goes back",
    needsReason: true,
  },
};

export function Commands({ rollout }: { rollout: RolloutView }) {
  const [asked, setAsked] = useState<RolloutCommand | null>(null);
  const { phase } = rollout;
  const isGoingBack = phase === "rolling_back";
  const offered: readonly RolloutCommand[] = isGoingBack
    ? ["abort"]
    : [phase === "paused" ? "resume" : "pause", "abort", "rollback"];
  return (
    <>
      {offered.map((command) => (
        <Button key={command} kind={command === "rollback" ? "danger" : "plain"} onClick={() => setAsked(command)}>
          {COMMANDS[command].action}
        </Button>
      ))}
      {asked && <Ask key={asked} rollout={rollout} command={asked} onClose={() => setAsked(null)} />}
    </>
  );
}

interface AskProps {
  rollout: RolloutView;
  command: RolloutCommand;
  onClose: () => void;
}

function Ask({ rollout: { id, workflow }, command, onClose }: AskProps) {
  const queries = useQueryClient();
  const { action, what, done, needsReason } = COMMANDS[command];
  const [reason, setReason] = useState("");
  const [isTried, setTried] = useState(false);
  const run = useMutation({
    mutationFn: () => tellRollout(id, command, reason.trim()),
    onSuccess: (view) => {
      queries.setQueryData(keys.rollout(id), view);
      void queries.invalidateQueries({ queryKey: keys.rollouts });
      tell(`Rollout ${id} ${done}.`);
      onClose();
    },
  });
  const error = isTried && needsReason && reason.trim() === "" ? "Say why: others will read it." : "";
  const submit = (event: FormEvent) => {
    event.preventDefault();
    setTried(true);
    if (!needsReason || reason.trim() !== "") run.mutate();
  };
  const words = reason.trim() === "" ? "" : ` --reason ${shellWord(reason.trim())}`;
  return (
    <Dialog title={`${action} rollout ${id} of ${workflow}?`} isOpen onClose={onClose}>
      <form onSubmit={submit} className="flex flex-col gap-4">
        <p className="text-sm">{what}</p>
        <Field label="Reason" hint={needsReason ? undefined : "May be left empty."} error={error}>
          <Input value={reason} maxLength={400} onChange={(event) => setReason(event.target.value)} />
        </Field>
        {run.isError && <Failure error={run.error} />}
        <div className="flex flex-wrap justify-end gap-2">
          <span className="mr-auto">
            <CliButton command={`mycelial rollout ${command} ${id}${words}`} />
          </span>
          <Button onClick={onClose}>Cancel</Button>
          <Button kind={command === "rollback" ? "danger" : "main"} type="submit" busy={run.isPending}>
            {action}
          </Button>
        </div>
      </form>
    </Dialog>
  );
}
