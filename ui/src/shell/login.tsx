// Logging in. Shows nothing of the fleet.

import { useQueryClient } from "@tanstack/react-query";
import { type FormEvent, useState } from "react";
import { useLive } from "@/api/live";
import { logInWithCode } from "@/api/session";
import { Button } from "@/components/button";
import { Failure } from "@/components/callout";
import { Code } from "@/components/copy";
import { Field, Input } from "@/components/field";
import { Page } from "@/components/page";

/** The code in a log-in link, or the code itself. */
export const codeIn = (text: string) => /(?:^|[#/])([a-z2-7]{16,})$/.exec(text.trim())?.[1] ?? null;

export function Login({ refused }: { refused: unknown }) {
  const queries = useQueryClient();
  const hint = useLive((state) => state.loginHint);
  const [text, setText] = useState("");
  const [mistake, setMistake] = useState("");
  const [error, setError] = useState(refused);
  const [isBusy, setBusy] = useState(false);
  const submit = async (event: FormEvent) => {
    event.preventDefault();
    const code = codeIn(text);
    setMistake(code ? "" : "This is not a log-in link: it ends in a code of small letters and digits.");
    if (!code) return;
    setBusy(true);
    try {
      await logInWithCode(code, queries);
    } catch (cause) {
      setError(cause);
    } finally {
      setBusy(false);
    }
  };
  return (
    <main className="mx-auto w-full max-w-xl pt-[10vh]">
      <Page title="Log in" isWide={false}>
        {error !== null && <Failure error={error} />}
        <p>On the plane’s machine, make a one-time link:</p>
        <Code text={hint.replace(/^.*?with: /, "") || "mycelial-plane login"} what="the command" />
        <form onSubmit={submit} className="flex flex-col gap-3">
          <Field label="Open that link, or paste it here" error={mistake}>
            <Input name="code" value={text} onChange={(event) => setText(event.target.value)} />
          </Field>
          <div>
            <Button kind="main" type="submit" busy={isBusy}>
              Log in
            </Button>
          </div>
        </form>
      </Page>
    </main>
  );
}
