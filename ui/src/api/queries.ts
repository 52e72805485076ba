// What pages ask for, as hooks over the query cache. Lists that the live picture carries are kept fresh by it.

import { queryOptions, useInfiniteQuery, useQuery } from "@tanstack/react-query";
import { isOver } from "@/lib/rollout";
import { diffWorkflow } from "./actions";
import { Failed, get, list, pageOf, part } from "./client";
import { keys } from "./keys";
import type {
  AlertView,
  ApiTokenView,
  AuditEntry,
  Carriers,
  Command,
  CommandOf,
  ComponentView,
  DaemonDetail,
  DaemonItem,
  Door,
  DraftView,
  Group,
  ListPage,
  LogLine,
  Operator,
  Pending,
  PlaneInfo,
  RevisionView,
  RolloutView,
  RuleShown,
  SeriesShown,
  StreamView,
  Surroundings,
  TokenItem,
  UserView,
  WorkflowStatus,
  WorkflowText,
  WorkflowView,
} from "./types";

/** How often details that the live picture does not carry are asked for while they are looked at. */
const DETAIL_MS = 2_000;
const CATALOGUE_STALE_MS = 60_000;
/** How often the plane looks at its alerts' rules: sooner there is nothing new. */
const ALERTS_MS = 10_000;
const HISTORY_MS = 10_000;
/** How often rollouts are asked for while none is under way, and anything after an answer that failed. */
const QUIET_MS = 10_000;
/** Entries of the audit on a page. */
const AUDIT_PAGE = 100;

/** When it is asked for again: after an answer that failed a little later, and never when there is no such thing. */
export function again(error: unknown, ms: number | false) {
  if (error === null || ms === false) return ms;
  return error instanceof Failed && error.status === 404 ? false : QUIET_MS;
}

export const useInfo = () =>
  useQuery({ queryKey: keys.info, queryFn: ({ signal }) => get<PlaneInfo>("/info", signal), staleTime: Infinity });

export const daemonsQuery = queryOptions({
  queryKey: keys.daemons,
  queryFn: ({ signal }) => list<DaemonItem>("/daemons", signal),
  // Its labels come with this; the live picture brings the rest anew each second, keeps them, and says when they are due:
  // an interval here would begin anew with every picture, and never end.
  staleTime: Infinity,
});

export const useDaemons = () => useQuery(daemonsQuery);

/** Those that are not there, with how they are. */
const away = (daemons: DaemonItem[]) =>
  new Map(daemons.filter(({ presence }) => presence !== "online").map(({ name, presence }) => [name, presence]));

export const useAway = () => useQuery({ ...daemonsQuery, select: away });

export const useDaemon = (name: string) =>
  useQuery({
    queryKey: keys.daemon(name),
    queryFn: ({ signal }) => get<DaemonDetail>(`/daemons/${part(name)}`, signal),
    refetchInterval: ({ state }) => again(state.error, DETAIL_MS),
  });

export const workflowsQuery = queryOptions({
  queryKey: keys.workflows,
  queryFn: ({ signal }) => list<WorkflowView>("/workflows", signal),
  staleTime: Infinity,
});

export const useWorkflows = () => useQuery(workflowsQuery);

export const useWorkflow = (name: string) =>
  useQuery({
    queryKey: keys.workflow(name),
    queryFn: ({ signal }) => get<WorkflowText>(`/workflows/${part(name)}`, signal),
  });

export const workflowStatusQuery = (name: string) =>
  queryOptions({
    queryKey: keys.workflowStatus(name),
    queryFn: ({ signal }) => get<WorkflowStatus>(`/workflows/${part(name)}/status`, signal),
    refetchInterval: ({ state }) => again(state.error, DETAIL_MS),
  });

/** `isThere`: it is not asked for when the page knows better. */
export const useWorkflowStatus = (name: string, isThere = true) =>
  useQuery({ ...workflowStatusQuery(name), enabled: isThere });

export const useRevisions = (name: string) =>
  useQuery({
    queryKey: keys.revisions(name),
    queryFn: ({ signal }) => list<RevisionView>(`/workflows/${part(name)}/revisions`, signal),
  });

/** A revision's text never changes. `null`: none is asked for. */
export const useRevisionText = (name: string, number: number | null) =>
  useQuery({
    queryKey: keys.revision(name, number ?? 0),
    queryFn: ({ signal }) => get<{ text: string }>(`/workflows/${part(name)}/revisions/${number}`, signal),
    staleTime: Infinity,
    enabled: number !== null,
  });

/** What applying a text would change; not asked for while the text is known to be wrong. */
export const useWorkflowDiff = (text: string, isValid: boolean) =>
  useQuery({
    queryKey: keys.diff(text),
    queryFn: () => diffWorkflow(text),
    enabled: isValid,
    gcTime: 0,
    staleTime: 0,
  });

export const useRollouts = () =>
  useQuery({
    queryKey: keys.rollouts,
    queryFn: ({ signal }) => list<RolloutView>("/rollouts", signal),
    refetchInterval: ({ state }) =>
      again(state.error, state.data?.some((rollout) => !isOver(rollout)) ? DETAIL_MS : QUIET_MS),
  });

export const useRollout = (id: number) =>
  useQuery({
    queryKey: keys.rollout(id),
    queryFn: ({ signal }) => get<RolloutView>(`/rollouts/${id}`, signal),
    refetchInterval: ({ state }) => again(state.error, state.data && isOver(state.data) ? false : DETAIL_MS / 2),
  });

export const useAlerts = () =>
  useQuery({
    queryKey: keys.alerts,
    queryFn: ({ signal }) => list<AlertView>("/alerts", signal),
    refetchInterval: ({ state }) => again(state.error, ALERTS_MS / 2),
  });

export const useRules = () =>
  useQuery({ queryKey: keys.rules, queryFn: ({ signal }) => list<RuleShown>("/alerts/rules", signal) });

/** A metric's last so many seconds, as far as the plane has kept them. */
export const useSeries = (subject: string, metric: string, lastS: number) =>
  useQuery({
    queryKey: keys.series(subject, metric, lastS),
    queryFn: ({ signal }) => {
      const from = Date.now() - lastS * 1_000;
      return get<SeriesShown>(`/metrics/series?subject=${part(subject)}&metric=${metric}&from=${from}`, signal);
    },
    // The finest step of the history is this long.
    refetchInterval: ({ state }) => again(state.error, HISTORY_MS),
  });

export const useUsers = () =>
  useQuery({ queryKey: keys.users, queryFn: ({ signal }) => list<UserView>("/users", signal) });

export const useApiTokens = () =>
  useQuery({ queryKey: keys.apiTokens, queryFn: ({ signal }) => list<ApiTokenView>("/api-tokens", signal) });

/** Where entries of the audit are asked for. `lastS`: only of the last so many seconds; 0: of all time. */
export function auditPath(search: string, by: string, lastS: number, limit: number) {
  const since = lastS === 0 ? 0 : Date.now() - lastS * 1_000;
  return `/audit?search=${part(search)}&by=${part(by)}&since=${since}&limit=${limit}`;
}

/** The newest first, a page at a time. */
export const useAudit = (search: string, by: string, lastS: number, isFollowed: boolean) =>
  useInfiniteQuery({
    queryKey: keys.audit(search, by, lastS),
    queryFn: ({ pageParam, signal }) =>
      get<ListPage<AuditEntry>>(pageOf(auditPath(search, by, lastS, AUDIT_PAGE), pageParam), signal),
    initialPageParam: null as string | null,
    getNextPageParam: ({ next }) => next,
    // Only the newest page: asking for all that somebody went back to would be much work for the plane.
    refetchInterval: ({ state }) => again(state.error, isFollowed && state.data?.pages.length === 1 && QUIET_MS),
    gcTime: 0,
  });

/** The last lines of a daemon's log, asked for again while they are looked at. */
export const logsQuery = (daemon: string, level: string, workflow: string, isOn: boolean) =>
  queryOptions({
    queryKey: keys.logs(daemon, level, workflow),
    queryFn: async ({ signal }) => {
      const path = `/daemons/${part(daemon)}/logs?level=${level}&workflow=${part(workflow)}`;
      return (await get<ListPage<LogLine>>(path, signal)).items;
    },
    enabled: isOn,
    refetchInterval: ({ state }) => again(state.error, DETAIL_MS),
    gcTime: 0,
    retry: false,
  });

export const useCommand = (id: number) =>
  useQuery({
    queryKey: keys.command(id),
    queryFn: ({ signal }) => get<Command>(`/commands/${id}`, signal),
    refetchInterval: ({ state }) => {
      const isOver = state.data?.daemons.every(({ standing }) => standing !== "waiting") ?? false;
      return again(state.error, isOver ? false : DETAIL_MS / 2);
    },
  });

/** What a daemon was told, the newest first. */
export const useCommandsOf = (daemon: string) =>
  useQuery({
    queryKey: keys.commandsOf(daemon),
    queryFn: ({ signal }) => list<CommandOf>(`/commands?daemon=${part(daemon)}`, signal),
    refetchInterval: ({ state }) =>
      again(state.error, state.data?.some(({ standing }) => standing === "waiting") ? DETAIL_MS : QUIET_MS),
  });

/** `isAllowed`: whoever only looks has none. */
export const useDrafts = (isAllowed: boolean) =>
  useQuery({
    queryKey: keys.drafts,
    queryFn: ({ signal }) => list<DraftView>("/drafts", signal),
    enabled: isAllowed,
    staleTime: 0,
  });

export const useTokens = () =>
  useQuery({ queryKey: keys.tokens, queryFn: ({ signal }) => list<TokenItem>("/tokens", signal) });

/** Selectors with a name. */
export const useGroups = () =>
  useQuery({
    queryKey: keys.groups,
    queryFn: ({ signal }) => list<Group>("/groups", signal),
    staleTime: CATALOGUE_STALE_MS,
  });

export const useOperators = () =>
  useQuery({ queryKey: keys.operators, queryFn: ({ signal }) => list<Operator>("/operators", signal) });

/** Daemons that wait for approval; asked for again while somebody looks. */
export const usePending = () =>
  useQuery({
    queryKey: keys.pending,
    queryFn: ({ signal }) => list<Pending>("/pending", signal),
    refetchInterval: ({ state }) => again(state.error, DETAIL_MS),
    gcTime: 0,
  });

export const useDoor = () =>
  useQuery({
    queryKey: keys.door,
    queryFn: ({ signal }) => get<Door>("/pending/door", signal),
    refetchInterval: ({ state }) => again(state.error, QUIET_MS),
    gcTime: 0,
  });

/** The bus the plane is on, and its directory: neither changes while it runs. */
export const useSurroundings = () =>
  useQuery({
    queryKey: keys.surroundings,
    queryFn: ({ signal }) => get<Surroundings>("/surroundings", signal),
    staleTime: Infinity,
  });

export const streamsQuery = queryOptions({
  queryKey: keys.streams,
  queryFn: ({ signal }) => list<StreamView>("/ledger", signal),
  staleTime: Infinity,
});

export const useStreams = () => useQuery(streamsQuery);

export const componentsQuery = queryOptions({
  queryKey: keys.components,
  queryFn: ({ signal }) => list<ComponentView>("/components", signal),
  staleTime: CATALOGUE_STALE_MS,
});

export const useComponents = () => useQuery(componentsQuery);

/** Which daemons carry which components: those that carry the same together. */
export const useCarriers = () =>
  useQuery({
    queryKey: keys.carriers,
    queryFn: ({ signal }) => list<Carriers>("/components/daemons", signal),
    // A daemon tells it a moment after it has joined.
    staleTime: 0,
    refetchInterval: ({ state }) => again(state.error, QUIET_MS),
  });

export const accessListQuery = (broker: string) =>
  queryOptions({
    queryKey: keys.accessList(broker),
    queryFn: ({ signal }) => get<{ text: string }>(`/access-list?broker=${part(broker)}`, signal),
  });
