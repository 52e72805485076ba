// A new password, typed twice; with the old one where it is one's own.

import { type FormEvent, useState } from "react";
import { Button } from "@/components/button";
import { Failure } from "@/components/callout";
import { CliButton } from "@/components/copy";
import { Field, Input } from "@/components/field";
import { mistakeInPassword, mistakeInRepeat } from "./wish";

interface PasswordFormProps {
  action: string;
  /** What happens. */
  what: string;
  needsOld?: boolean;
  /** The command that does the same. */
  command?: string;
  onSubmit: (typed: { old: string; fresh: string }) => Promise<void>;
}

export function PasswordForm({ action, what, needsOld = false, command, onSubmit }: PasswordFormProps) {
  const [old, setOld] = useState("");
  const [fresh, setFresh] = useState("");
  const [again, setAgain] = useState("");
  const [isTried, setTried] = useState(false);
  const [isBusy, setBusy] = useState(false);
  const [error, setError] = useState<unknown>(null);
  const wrong = [
    needsOld && old === "" ? "Write the one you have." : "",
    mistakeInPassword(fresh),
    mistakeInRepeat(fresh, again),
  ];
  const [oldWrong, freshWrong, againWrong] = isTried ? wrong : [];
  const submit = async (event: FormEvent) => {
    event.preventDefault();
    setTried(true);
    if (wrong.some((each) => each !== "")) return;
    setBusy(true);
    setError(null);
    try {
      await onSubmit({ old, fresh });
      for (const clear of [setOld, setFresh, setAgain]) clear("");
      setTried(false);
    } catch (cause) {
      setError(cause);
    } finally {
      setBusy(false);
    }
  };
  return (
    <form onSubmit={(event) => void submit(event)} className="flex max-w-sm flex-col gap-3">
      <p className="text-sm text-muted">{what}</p>
      {needsOld && (
        <Field label="Old password" error={oldWrong}>
          <Input
            type="password"
            autoComplete="current-password"
            value={old}
            onChange={(event) => setOld(event.target.value)}
          />
        </Field>
      )}
      <Field label="New password" hint="10 characters or more; a sentence is easy to keep in mind." error={freshWrong}>
        <Input
          type="password"
          autoComplete="new-password"
          value={fresh}
          onChange={(event) => setFresh(event.target.value)}
        />
      </Field>
      <Field label="The same again" error={againWrong}>
        <Input
          type="password"
          autoComplete="new-password"
          value={again}
          onChange={(event) => setAgain(event.target.value)}
        />
      </Field>
      {error !== null && <Failure error={error} />}
      <div className="flex flex-wrap items-center gap-2">
        <Button kind="main" type="submit" busy={isBusy}>
          {action}
        </Button>
        {command && <CliButton command={command} />}
      </div>
    </form>
  );
}
