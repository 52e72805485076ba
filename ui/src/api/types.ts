// What the plane says, in its own words: bus-schema/src/api.rs as JSON. Types only.

export type Presence = "unknown" | "online" | "late" | "offline";
export type RunState = "starting" | "running" | "retrying" | "failed" | "finished" | "stopping" | "paused";
export type ComponentRole = "source" | "transform" | "destination";
export type MemberRole = "daemon" | "operator";

export interface Resources {
  rss_bytes: number;
  rss_peak_bytes: number;
  cpu_ms: number;
  spool_bytes: number;
  disk_free_bytes: number;
}

export interface DaemonView {
  name: string;
  node: string;
  presence: Presence;
  last_seen_ms: number | null;
  version: string;
  plan_version: number;
  plan_wanted: number;
  troubled: number;
  damaged: number;
  resources: Resources;
  /** Missing where the plane does not tell labels with the list. */
  labels?: Record<string, string>;
}

export interface HostFacts {
  hostname: string;
  os: string;
  arch: string;
  cpus: number;
  memory_bytes: number;
  version: string;
}

export interface WorkflowPart {
  workflow: string;
  daemon: string;
  revision: number;
  state: RunState | null;
  cause: string;
}

export interface ComponentView {
  role: ComponentRole;
  name: string;
  summary: string;
  /** JSON Schema of its config, as text. */
  schema: string;
  example: string;
}

export interface DaemonDetail {
  view: DaemonView;
  host: HostFacts;
  fingerprint: string;
  boot: number;
  uptime_ms: number;
  clock_offset_ms: number;
  plan_error: string;
  refused: number;
  parts: WorkflowPart[];
  components: ComponentView[];
}

export interface WorkflowView {
  name: string;
  revision: number;
  by: string;
  at_unix_ms: number;
  daemons: string[];
  state: RunState | null;
}

export interface Ledger {
  produced: number;
  buffered: number;
  delivered: number;
  dropped: number;
  dead: number;
  duplicates: number;
  unconfirmed: number;
  filtered: number;
}

export interface StreamView {
  workflow: string;
  edge: string;
  producer: string;
  consumer: string;
  epoch: number;
  ledger: Ledger;
  balances: boolean;
  buffered_bytes: number;
  rate: number;
  trouble: string;
}

export interface PlaneInfo {
  fleet: string;
  plane: string;
  version: string;
  roster_version: number;
  daemons: number;
  operators: number;
  workflows: number;
  http: string;
}

/** The live picture: everything that moves, at most once a second. */
export interface Picture {
  at_unix_ms: number;
  info: PlaneInfo;
  daemons: DaemonView[];
  workflows: WorkflowView[];
  streams: StreamView[];
}

export interface Problem {
  place: string;
  line: number;
  message: string;
  hint: string;
}

export interface WorkflowStatus {
  view: WorkflowView;
  parts: WorkflowPart[];
  streams: StreamView[];
}

export interface WorkflowText {
  view: WorkflowView;
  text: string;
}

export interface Session {
  open: boolean;
  hint: string;
}
