// Who is there decides what is shown: the log-in, or the shell with the page that the address names.

import { useQueryClient } from "@tanstack/react-query";
import { Suspense, useEffect, useState } from "react";
import { Route, Switch } from "wouter";
import { useLive } from "@/api/live";
import { logInWithCode, lookSession } from "@/api/session";
import { Failure } from "@/components/callout";
import { Loading, Page } from "@/components/page";
import { Toasts, tell } from "@/components/toast";
import { sentence } from "@/lib/format";
import Missing from "@/pages/missing";
import { Overlays, useKeyboard } from "./keyboard";
import { codeIn, Login } from "./login";
import { ROUTES } from "./routes";
import { Shell } from "./shell";

function Pages() {
  const { overlay, setOverlay } = useKeyboard();
  return (
    <Shell onSearch={() => setOverlay("palette")}>
      <Suspense fallback={<Loading />}>
        <Switch>
          {ROUTES.map(({ path, Component }) => (
            <Route key={path} path={path} component={Component} />
          ))}
          <Route component={Missing} />
        </Switch>
      </Suspense>
      <Overlays overlay={overlay} onClose={() => setOverlay(null)} />
    </Shell>
  );
}

export function App() {
  const queries = useQueryClient();
  const link = useLive((state) => state.link);
  const [start, setStart] = useState<"pending" | "done" | { error: unknown }>("pending");
  const [refused, setRefused] = useState<unknown>(null);

  // A log-in link that is opened where the page is open already changes nothing but the fragment.
  useEffect(() => {
    const onHash = () => location.hash.startsWith("#/login/") && setStart("pending");
    window.addEventListener("hashchange", onHash);
    return () => window.removeEventListener("hashchange", onHash);
  }, []);

  useEffect(() => {
    if (start !== "pending") return;
    const begin = async () => {
      const code = location.hash.startsWith("#/login/") ? codeIn(location.hash) : null;
      let failure: unknown = null;
      if (code) {
        // The used code does not stay in the history.
        history.replaceState(null, "", "/");
        try {
          await logInWithCode(code, queries);
          return setStart("done");
        } catch (cause) {
          failure = cause;
        }
      }
      const session = await lookSession(queries);
      // A link that does not work any more is no matter to somebody who is logged in already.
      if (failure && session.user !== null) {
        tell(`You are logged in already. ${sentence((failure as Error).message)}`);
      } else setRefused(failure);
      setStart("done");
    };
    begin().catch((error: unknown) => setStart({ error }));
  }, [start, queries]);

  if (start === "pending") return <Loading />;
  if (start !== "done") {
    return (
      <main>
        <Page title="Mycelial">
          <Failure error={start.error} onRetry={() => setStart("pending")} />
        </Page>
      </main>
    );
  }
  return (
    <>
      {link === "out" ? <Login refused={refused} /> : <Pages />}
      <Toasts />
    </>
  );
}
