// Logging in and out, and what this person may do.

import type { QueryClient } from "@tanstack/react-query";
import { create } from "zustand";
import { ask, BASE, SESSION } from "./client";
import { endLive, holdLive, startLive } from "./live";
import type { Rank, Session, User } from "./types";

interface Known {
  user: User | null;
  /** There are no users yet: nobody can log in by name and password. */
  isSetup: boolean;
  /** What the provider is called at which people can log in too. */
  provider: string | null;
}

export const useUser = create<Known>(() => ({ user: null, isSetup: false, provider: null }));

const RANKS: readonly Rank[] = ["viewer", "operator", "admin"];

/** Whether somebody of this rank may do what needs that one. */
export const reaches = (rank: Rank, needed: Rank) => RANKS.indexOf(rank) >= RANKS.indexOf(needed);

/** Whether this person sees the whole fleet, and not the part that a scope chooses. */
export const useSeesAll = () => useUser(({ user }) => user !== null && user.scope === null);

/** Whether this browser is logged in; begins the live picture if so. Never fails for not being so. */
export async function lookSession(queries: QueryClient) {
  const { data } = await ask<Session>("GET", SESSION);
  useUser.setState({ user: data.user, isSetup: data.setup, provider: data.oidc });
  if (data.user === null) endLive(data.hint);
  else startLive(queries, data.user);
  return data;
}

/** Where the browser goes to log in at the provider. It comes back to the page. */
export const PROVIDER = `${BASE}${SESSION}/oidc`;

export async function logInWithCode(code: string, queries: QueryClient) {
  await ask("POST", SESSION, { body: { code } });
  await lookSession(queries);
}

export async function logIn(name: string, password: string, queries: QueryClient) {
  await ask("POST", SESSION, { body: { name, password } });
  await lookSession(queries);
}

export async function logOut(queries: QueryClient) {
  // First nothing is asked for any more: it would be refused in the middle of it.
  holdLive();
  await queries.cancelQueries();
  try {
    await ask("DELETE", SESSION);
  } catch (cause) {
    const { user } = useUser.getState();
    if (user !== null) startLive(queries, user);
    throw cause;
  }
  await lookSession(queries);
}
