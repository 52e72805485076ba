// Logging in. Shows nothing of the fleet.

import { useQueryClient } from "@tanstack/react-query";
import { type FormEvent, useState } from "react";
import { useLive } from "@/api/live";
import { logIn, logInWithCode, PROVIDER, useUser } from "@/api/session";
import { Button, buttonLooks } from "@/components/button";
import { Failure } from "@/components/callout";
import { Code } from "@/components/copy";
import { Field, Input } from "@/components/field";
import { Page } from "@/components/page";

/** The code in a log-in link, or the code itself. */
export const codeIn = (text: string) => /(?:^|[#/])([a-z2-7]{16,})$/.exec(text.trim())?.[1] ?? null;

export function Login({ refused }: { refused: unknown }) {
  const { isSetup, provider } = useUser();
  const [error, setError] = useState(refused);
  return (
    <main className="mx-auto w-full max-w-xl pt-[10vh]">
      <Page title="Log in" isWide={false}>
        {error !== null && <Failure error={error} />}
        {provider !== null && (
          <a href={PROVIDER} className={buttonLooks("main", "w-fit")}>
            Log in with {provider}
          </a>
        )}
        {!isSetup && <ByName setError={setError} />}
        <ByLink isOnly={isSetup} setError={setError} />
      </Page>
    </main>
  );
}

/** Runs what logs in, and shows what it failed by. */
function useAttempt(setError: (error: unknown) => void) {
  const [isBusy, setBusy] = useState(false);
  const attempt = async (run: () => Promise<void>) => {
    setBusy(true);
    setError(null);
    try {
      await run();
    } catch (cause) {
      setError(cause);
    } finally {
      setBusy(false);
    }
  };
  return { isBusy, attempt };
}

function ByName({ setError }: { setError: (error: unknown) => void }) {
  const queries = useQueryClient();
  const [name, setName] = useState("");
  const [password, setPassword] = useState("");
  const { isBusy, attempt } = useAttempt(setError);
  const submit = (event: FormEvent) => {
    event.preventDefault();
    void attempt(async () => {
      await logIn(name.trim(), password, queries);
    });
  };
  return (
    <form onSubmit={submit} className="flex flex-col gap-3">
      <Field label="Name">
        <Input
          name="username"
          autoComplete="username"
          required
          value={name}
          onChange={(event) => setName(event.target.value)}
        />
      </Field>
      <Field label="Password">
        <Input
          name="password"
          type="password"
          autoComplete="current-password"
          required
          value={password}
          onChange={(event) => setPassword(event.target.value)}
        />
      </Field>
      <div>
        <Button kind="main" type="submit" busy={isBusy}>
          Log in
        </Button>
      </div>
    </form>
  );
}

/** For whoever has the plane's own machine: the way in before there are users, and when a password is lost. */
function ByLink({ isOnly, setError }: { isOnly: boolean; setError: (error: unknown) => void }) {
  const queries = useQueryClient();
  const hint = useLive((state) => state.loginHint);
  const [text, setText] = useState("");
  const [mistake, setMistake] = useState("");
  const { isBusy, attempt } = useAttempt(setError);
  const submit = (event: FormEvent) => {
    event.preventDefault();
    const code = codeIn(text);
    setMistake(code ? "" : "This is not a log-in link: it ends in a code of small letters and digits.");
    if (code) void attempt(() => logInWithCode(code, queries));
  };
  const form = (
    <>
      <p>On the plane’s machine, make a one-time link:</p>
      <Code text={hint.replace(/^.*?with: /, "") || "mycelial-plane login"} what="the command" />
      <form onSubmit={submit} className="flex flex-col gap-3">
        <Field label="Open that link, or paste it here" error={mistake}>
          <Input name="code" value={text} onChange={(event) => setText(event.target.value)} />
        </Field>
        <div>
          <Button kind={isOnly ? "main" : "plain"} type="submit" busy={isBusy}>
            {isOnly ? "Log in" : "Log in by the link"}
          </Button>
        </div>
      </form>
    </>
  );
  if (isOnly) return form;
  return (
    <details>
      <summary className="w-fit cursor-pointer rounded-(--radius-sm) text-sm text-muted hover:text-text">
        Without a password, by a one-time link
      </summary>
      <div className="flex flex-col gap-3 pt-3">{form}</div>
    </details>
  );
}
