// What the plane says, by the names that its own description has for it (plane/openapi.json, turned into schema.d.ts by
// `npm run generate`). Types only.

import type { components } from "./schema";

/** The plane always sends a field, as null where there is nothing. */
type Told<T> = T extends (infer Item)[]
  ? Told<Item>[]
  : T extends object
    ? { [Key in keyof T]-?: Told<Exclude<T[Key], undefined>> }
    : T;

type Schemas = components["schemas"];

export type Presence = Schemas["Presence"];
export type RunState = Schemas["RunState"];
export type ComponentRole = Schemas["ComponentRole"];
export type MemberRole = Exclude<Schemas["Role"], "plane">;
export type Resources = Told<Schemas["Resources"]>;
export type DaemonView = Told<Schemas["DaemonView"]>;
export type DaemonItem = Told<Schemas["DaemonItem"]>;
export type DaemonDetail = Told<Schemas["DaemonShown"]>;
export type Labelled = Told<Schemas["Labelled"]>;
export type WorkflowPart = Told<Schemas["WorkflowPart"]>;
export type Carriers = Told<Schemas["Carriers"]>;
export type ComponentView = Told<Schemas["ComponentView"]>;
type WorkflowTold = Told<Schemas["WorkflowView"]>;
/** `letters_kept` is left out while a daemon that may keep some has not said. */
export type WorkflowView = Omit<WorkflowTold, "letters_kept"> & Partial<Pick<WorkflowTold, "letters_kept">>;
export type WorkflowText = Told<Schemas["WorkflowShown"]>;
export type RevisionView = Told<Schemas["RevisionView"]>;
export type PlaneInfo = Told<Schemas["PlaneInfo"]>;
export type TokenItem = Told<Schemas["TokenItem"]>;
export type Group = Told<Schemas["GroupView"]>;
export type Operator = Told<Schemas["OperatorView"]>;
export type Pending = Told<Schemas["PendingView"]>;
export type Door = Told<Schemas["Door"]>;
export type Surroundings = Told<Schemas["Surroundings"]>;
export type TokenWish = Told<Omit<Schemas["TokenWish"], "role">> & { role: MemberRole };
export type Problem = Told<Schemas["Problem"]>;
export type ProblemDetails = Told<Schemas["ProblemDetails"]>;
export type RolloutPhase = Schemas["RolloutPhase"];
export type Amount = Told<Schemas["Amount"]>;
export type RolloutPolicy = Told<Schemas["RolloutPolicy"]>;
export type RolloutView = Told<Schemas["RolloutView"]>;
export type RolloutFailure = RolloutView["failures"][number];
export type WaveView = RolloutView["waves"][number];
export type WorkflowDiff = Told<Schemas["WorkflowDiff"]>;
export type AlertKind = Schemas["AlertKind"];
export type Severity = Schemas["Severity"];
export type AlertView = Told<Schemas["AlertView"]>;
export type AlertRule = Told<Schemas["AlertRule"]>;
export type RuleShown = Told<Schemas["RuleShown"]>;
export type Fired = Told<Schemas["Fired"]>;
export type SeriesShown = Told<Schemas["SeriesShown"]>;
export type Rank = Schemas["Rank"];
export type UserView = Told<Schemas["UserView"]>;
export type UserWish = Told<Schemas["UserWish"]>;
export type Session = Told<Schemas["SessionShown"]>;
export type User = Told<Schemas["UserShown"]>;

export type ApiTokenView = Told<Schemas["TokenView"]>;
export type ApiTokenWish = Told<Schemas["TokenWish2"]>;
export type ApiTokenMade = Told<Schemas["Made"]>;
export type AuditEntry = Told<Schemas["AuditEntry"]>;
export type AuditOutcome = Schemas["AuditOutcome"];
export type Verified = Told<Schemas["Verified"]>;
export type LogLine = Told<Schemas["LogLine"]>;
export type Order = Schemas["Order"];
export type Command = Told<Schemas["Command"]>;
export type CommandOf = Told<Schemas["CommandOf"]>;
export type Target = Told<Schemas["Target"]>;
export type Standing = Schemas["Standing"];
export type DraftView = Told<Schemas["DraftView"]>;
/** `layout` is whatever the page put there. */
export type DraftShown = Told<Omit<Schemas["DraftShown"], "layout">> & { layout: unknown };

export type TestShown = Told<Schemas["TestShown"]>;
export type Checked = Told<Schemas["Checked2"]>;
export type TapShown = Told<Schemas["TapShown"]>;
export type Letter = Told<Schemas["Letter"]>;
export type Letters = Told<Schemas["Letters"]>;
export type LettersDone = Told<Schemas["Done"]>;
export type SecretView = Told<Schemas["SecretView"]>;
export type SecretTold = Told<Schemas["Told"]>;

/** What a stream carries, and how long that takes: left out as long as its producer has not said; and what is told of losses. */
type Carried = "bytes" | "bytes_per_s" | "latency_ms" | "dropped_lately" | "has_letters";
type StreamTold = Told<Schemas["StreamView"]>;
export type StreamView = Omit<StreamTold, Carried> & Partial<Pick<StreamTold, Carried>>;
export type NodeView = Told<Schemas["NodeView"]>;
export type WorkflowStatus = Omit<Told<Schemas["WorkflowStatus"]>, "streams"> & { streams: StreamView[] };

/** A record of whatever columns. */
export type RecordShown = Record<string, unknown>;
export type Step = Told<Omit<Schemas["Step"], "out">> & { out: RecordShown[] };
export type LetterShown = Told<Omit<Schemas["LetterShown"], "record">> & { record: RecordShown[] | null };
export type TapLook = Told<Omit<Schemas["Look"], "records">> & { records: { number: number; record: RecordShown }[] };

/** One page of a list that can grow. */
export interface ListPage<Item> {
  items: Item[];
  /** Asks for the page after this; null when this is the last. */
  next: string | null;
}

/** The live picture: everything that moves, at most once a second. */
export interface Picture {
  at_unix_ms: number;
  info: PlaneInfo;
  daemons: DaemonView[];
  workflows: WorkflowView[];
  streams: StreamView[];
}
