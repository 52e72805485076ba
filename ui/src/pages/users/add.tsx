// Adding a user. The first one is an admin, and whoever makes it is logged in as it.

import { useQueryClient } from "@tanstack/react-query";
import { type FormEvent, useState } from "react";
import { addUser } from "@/api/actions";
import { keys } from "@/api/keys";
import { useSurroundings } from "@/api/queries";
import { logIn } from "@/api/session";
import type { Rank } from "@/api/types";
import { Button } from "@/components/button";
import { Failure } from "@/components/callout";
import { CliButton, shellWord } from "@/components/copy";
import { Field, Input, Select } from "@/components/field";
import { tell } from "@/components/toast";
import { mistakeInName, mistakeInPassword, mistakeInRepeat, RANKS } from "./wish";

const EMPTY = { name: "", password: "", again: "", role: "viewer" as Rank, scope: "" };

/** On the plane's machine; it makes a password of its own. */
function cliOf({ name, role, scope }: typeof EMPTY, dir: string) {
  const words = ["mycelial-plane user add --dir", shellWord(dir), "--role", role];
  if (scope.trim() !== "") words.push("--scope", shellWord(scope.trim()));
  return [...words, shellWord(name || "NAME")].join(" ");
}

export function AddUser({ isFirst = false }: { isFirst?: boolean }) {
  const queries = useQueryClient();
  const [typed, setTyped] = useState(EMPTY);
  const dir = useSurroundings().data?.dir ?? "DIR";
  const [isTried, setTried] = useState(false);
  const [isBusy, setBusy] = useState(false);
  const [error, setError] = useState<unknown>(null);
  const { name, password, again } = typed;
  const scope = typed.scope.trim();
  const role = isFirst ? "admin" : typed.role;
  const wrong = [mistakeInName(name), mistakeInPassword(password), mistakeInRepeat(password, again)];
  const [nameWrong, passwordWrong, againWrong] = isTried ? wrong : [];
  const set = (key: keyof typeof EMPTY) => (event: { target: { value: string } }) =>
    setTyped({ ...typed, [key]: event.target.value });
  const submit = async (event: FormEvent) => {
    event.preventDefault();
    setTried(true);
    if (wrong.some((each) => each !== "")) return;
    setBusy(true);
    setError(null);
    try {
      await addUser({ name, role, password, scope: isFirst || scope === "" ? null : scope });
      setTyped(EMPTY);
      setTried(false);
      await queries.invalidateQueries({ queryKey: keys.users });
      if (isFirst) await logIn(name, password, queries);
      tell(isFirst ? `You are logged in as ${name} from now on.` : `${name} can log in now.`);
    } catch (cause) {
      setError(cause);
    } finally {
      setBusy(false);
    }
  };
  return (
    <form onSubmit={(event) => void submit(event)} className="flex max-w-xl flex-col gap-4">
      <div className="grid gap-4 sm:grid-cols-2">
        <Field label="Name" error={nameWrong}>
          <Input value={name} autoComplete="username" onChange={set("name")} />
        </Field>
        {!isFirst && (
          <Field label="Role">
            <Select value={role} onChange={set("role")}>
              {RANKS.map(([rank, what]) => (
                <option key={rank} value={rank}>
                  {`${rank}: ${what}`}
                </option>
              ))}
            </Select>
          </Field>
        )}
      </div>
      <div className="grid gap-4 sm:grid-cols-2">
        <Field label="Password" hint="10 characters or more." error={passwordWrong}>
          <Input type="password" autoComplete="new-password" value={password} onChange={set("password")} />
        </Field>
        <Field label="The same again" error={againWrong}>
          <Input type="password" autoComplete="new-password" value={again} onChange={set("again")} />
        </Field>
      </div>
      {!isFirst && (
        <Field label="Sees only" hint="Labels and names, such as site=berlin; all when it is empty.">
          <Input value={typed.scope} onChange={set("scope")} />
        </Field>
      )}
      {error !== null && <Failure error={error} />}
      <div className="flex flex-wrap gap-2">
        <Button kind="main" type="submit" busy={isBusy}>
          {isFirst ? "Make the first admin" : "Add the user"}
        </Button>
        {!isFirst && <CliButton command={cliOf(typed, dir)} />}
      </div>
    </form>
  );
}
