// One call to the plane, and what its failures look like. Knows no page.

import { parseJson } from "@/lib/json";
import type { ListPage, Problem, ProblemDetails } from "./types";

/** Below what the plane's calls are. */
export const BASE = "/api/v1";
/** Who is logged in: not being so is an answer there, and no news. */
export const SESSION = "/session";
const UNREACHABLE = 0;
/** Below this answers hold records, whose whole numbers may be larger than JavaScript's. */
const RECORDS = "/operator/";
/** Most pages of one list: the plane gives a thousand items with each. */
const PAGES_MAX = 20;

/** A call that did not work. `message` and `hint` are for people; `status` 0: the plane was not reached. */
export class Failed extends Error {
  readonly status: number;
  readonly hint: string;
  readonly problems: Problem[];

  constructor(status: number, message: string, hint = "", problems: Problem[] = []) {
    super(message);
    this.name = "Failed";
    this.status = status;
    this.hint = hint;
    this.problems = problems;
  }

  get isUnreachable() {
    return this.status === UNREACHABLE;
  }
}

function failed(status: number, body: ProblemDetails | null) {
  return new Failed(status, body?.detail ?? `the plane answered ${status}`, body?.hint, body?.problems);
}

/** Who is told when the plane says that this browser is not logged in (any more). */
let onLoggedOut: (hint: string) => void = () => {};
export function whenLoggedOut(tell: (hint: string) => void) {
  onLoggedOut = tell;
}

export interface Options {
  body?: unknown;
  /** Further headers, such as `If-Match`. */
  headers?: Record<string, string>;
  signal?: AbortSignal;
}

export interface Answer<T> {
  data: T;
  etag: string | null;
}

/** Asks, and tells the answer's version too. */
export async function ask<T>(method: string, path: string, options: Options = {}): Promise<Answer<T>> {
  const { body, headers, signal } = options;
  let response: Response;
  try {
    response = await fetch(`${BASE}${path}`, {
      method,
      headers: {
        ...(body === undefined ? {} : { "content-type": "application/json" }),
        accept: "application/json",
        ...headers,
      },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      ...(signal ? { signal } : {}),
    });
  } catch (cause) {
    if (cause instanceof DOMException && cause.name === "AbortError") throw cause;
    throw new Failed(UNREACHABLE, "the plane cannot be reached", "is mycelial-plane running?");
  }
  const isJson = /\bjson\b/.test(response.headers.get("content-type") ?? "");
  const exact = path.startsWith(RECORDS);
  const answer: unknown = !isJson ? null : exact ? parseJson(await response.text()) : await response.json();
  if (response.ok) return { data: answer as T, etag: response.headers.get("etag") };
  const failure = failed(response.status, answer as ProblemDetails | null);
  if (response.status === 401 && path !== SESSION) onLoggedOut(failure.hint);
  throw failure;
}

const call = async <T>(method: string, path: string, options?: Options) => (await ask<T>(method, path, options)).data;

export const get = <T>(path: string, signal?: AbortSignal) => call<T>("GET", path, signal ? { signal } : {});
export const post = <T>(path: string, body?: unknown, headers?: Record<string, string>) =>
  call<T>("POST", path, { body, ...(headers ? { headers } : {}) });
export const patch = <T>(path: string, body: unknown, headers?: Record<string, string>) =>
  call<T>("PATCH", path, { body, ...(headers ? { headers } : {}) });
export const put = <T>(path: string, body: unknown, headers?: Record<string, string>) =>
  call<T>("PUT", path, { body, ...(headers ? { headers } : {}) });

/** The page of a list that `cursor` asks for; null: the first. */
export const pageOf = (path: string, cursor: string | null) =>
  cursor === null ? path : `${path}${path.includes("?") ? "&" : "?"}cursor=${part(cursor)}`;

/** All of a list. */
export async function list<Item>(path: string, signal?: AbortSignal): Promise<Item[]> {
  const items: Item[] = [];
  let cursor: string | null = null;
  for (let pages = 0; pages < PAGES_MAX; pages += 1) {
    const page: ListPage<Item> = await get(pageOf(path, cursor), signal);
    items.push(...page.items);
    cursor = page.next;
    if (cursor === null) break;
  }
  return items;
}

export const remove = <T>(path: string, headers?: Record<string, string>) =>
  call<T>("DELETE", path, headers ? { headers } : {});

/** A name as part of a path. */
export const part = encodeURIComponent;
