// Logging in and out, and what this person may do.

import type { QueryClient } from "@tanstack/react-query";
import { ask } from "./client";
import { endLive, startLive } from "./live";
import type { Session } from "./types";

/** Whether this browser is logged in. Never fails for not being so. */
export async function lookSession() {
  return (await ask<Session>("GET", "/session")).data;
}

export async function logInWithCode(code: string, queries: QueryClient) {
  await ask("POST", "/login", { body: { code } });
  startLive(queries);
}

export async function logOut() {
  await ask("POST", "/logout");
  const { hint } = await lookSession();
  endLive(hint);
}
