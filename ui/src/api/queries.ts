// What pages ask for, as hooks over the query cache. Lists that the live picture carries are kept fresh by it.

import { queryOptions, useQuery } from "@tanstack/react-query";
import { get, part } from "./client";
import { keys } from "./keys";
import type {
  ComponentView,
  DaemonDetail,
  DaemonView,
  PlaneInfo,
  StreamView,
  WorkflowStatus,
  WorkflowText,
  WorkflowView,
} from "./types";

/** How often details that the live picture does not carry are asked for while they are looked at. */
const DETAIL_MS = 2_000;
const CATALOGUE_STALE_MS = 60_000;

export const useInfo = () =>
  useQuery({ queryKey: keys.info, queryFn: ({ signal }) => get<PlaneInfo>("/info", signal), staleTime: Infinity });

const daemonsQuery = queryOptions({
  queryKey: keys.daemons,
  queryFn: ({ signal }) => get<DaemonView[]>("/daemons", signal),
  staleTime: Infinity,
});

export const useDaemons = () => useQuery(daemonsQuery);

/** Those that are not there, with how they are. */
const away = (daemons: DaemonView[]) =>
  new Map(daemons.filter(({ presence }) => presence !== "online").map(({ name, presence }) => [name, presence]));

export const useAway = () => useQuery({ ...daemonsQuery, select: away });

export const useDaemon = (name: string) =>
  useQuery({
    queryKey: keys.daemon(name),
    queryFn: ({ signal }) => get<DaemonDetail>(`/daemons/${part(name)}`, signal),
    refetchInterval: (query) => (query.state.status === "error" ? false : DETAIL_MS),
  });

export const useWorkflows = () =>
  useQuery({
    queryKey: keys.workflows,
    queryFn: ({ signal }) => get<WorkflowView[]>("/workflows", signal),
    staleTime: Infinity,
  });

export const useWorkflow = (name: string) =>
  useQuery({
    queryKey: keys.workflow(name),
    queryFn: ({ signal }) => get<WorkflowText>(`/workflows/${part(name)}`, signal),
  });

export const useWorkflowStatus = (name: string) =>
  useQuery({
    queryKey: keys.workflowStatus(name),
    queryFn: ({ signal }) => get<WorkflowStatus>(`/workflows/${part(name)}/status`, signal),
    refetchInterval: (query) => (query.state.status === "error" ? false : DETAIL_MS),
  });

export const useStreams = () =>
  useQuery({
    queryKey: keys.streams,
    queryFn: ({ signal }) => get<StreamView[]>("/ledger", signal),
    staleTime: Infinity,
  });

export const componentsQuery = queryOptions({
  queryKey: keys.components,
  queryFn: ({ signal }) => get<ComponentView[]>("/components", signal),
  staleTime: CATALOGUE_STALE_MS,
});

export const useComponents = () => useQuery(componentsQuery);

export const accessListQuery = (broker: string) =>
  queryOptions({
    queryKey: keys.accessList(broker),
    queryFn: ({ signal }) => get<{ text: string }>(`/access-list?broker=${part(broker)}`, signal),
  });
