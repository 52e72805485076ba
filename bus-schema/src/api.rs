//! What operators ask of the plane, over the bus (and, as JSON, what the web page reads). One call, one result.

use alloc::{collections::BTreeMap, string::String, vec::Vec};

use serde::{Deserialize, Serialize};

use crate::{
    aside::Aside,
    audit::{AuditCall, AuditPage},
    id::{FleetId, NodeId, TokenId},
    member::{Certificate, Role, Signed},
    message::{HostFacts, Ledger, Resources, RosterPut, RunState},
    observe::{ObserveCall, ObserveResult},
    pairing::{PairingCall, PairingResult},
    plan::ComponentRole,
    rollout::{RolloutCommand, RolloutPolicy, RolloutView},
};

/// A request to the plane. Variants are only ever appended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ApiCall {
    /// What fleet and plane is this?
    Info,
    /// Makes an enrolment string.
    TokenCreate {
        /// What its holders become.
        role: Role,
        /// The name its (only) holder gets; `None` lets the candidate choose.
        name: Option<String>,
        /// How often it can be used.
        uses: u32,
        /// How long it can be used.
        ttl_s: u64,
    },
    /// All daemons.
    DaemonList,
    /// One daemon, by name or id.
    DaemonShow(String),
    /// Checks a workflow text; changes nothing.
    WorkflowValidate {
        /// TOML.
        text: String,
    },
    /// Stores a workflow as a new revision and deploys it.
    WorkflowApply {
        /// TOML.
        text: String,
        /// Refuse if the current revision is another one (0: there is none yet).
        expect_revision: Option<u32>,
    },
    /// All workflows.
    WorkflowList,
    /// One workflow with its text.
    WorkflowShow(String),
    /// Stops and forgets a workflow; revisions are kept.
    WorkflowDelete(String),
    /// How a workflow is doing, daemon by daemon, with its streams.
    WorkflowStatus(String),
    /// Every stream's account.
    Ledger,
    /// Component catalog.
    Components,
    /// The broker's access list in another broker's language.
    AccessList(BrokerKind),
    /// The newest roster and group key: an operator's commands talk to daemons themselves too.
    Roster,
    /// The daemons that a selector chooses; see `mycelial daemon list --help`. Answered by [`ApiResult::Daemons`].
    DaemonSelect(String),
    /// The labels of the daemons that a selector chooses. Answered by [`ApiResult::Labels`].
    DaemonLabels(String),
    /// Puts labels on daemons and takes labels off. Answered by [`ApiResult::Labels`] of those that were meant.
    DaemonLabel {
        /// Which daemons.
        selector: String,
        /// Keys with their new values.
        set: Vec<(String, String)>,
        /// Keys.
        unset: Vec<String>,
    },
    /// All revisions of a workflow, the newest first. Answered by [`ApiResult::Revisions`].
    WorkflowRevisions(String),
    /// The text of one revision. Answered by [`ApiResult::Text`].
    WorkflowText {
        /// The workflow.
        name: String,
        /// Its number.
        revision: u32,
    },
    /// Enrolment strings that can still be used. Answered by [`ApiResult::Tokens`].
    TokenList,
    /// Makes an enrolment string useless. Answered by [`ApiResult::Tokens`]: those that are left.
    TokenRevoke(TokenId),
    /// What applying a text would change: nodes, and daemons. Answered by [`ApiResult::Diff`].
    WorkflowDiff {
        /// TOML.
        text: String,
    },
    /// The certificate of one daemon, by name or id, for an operator of a fleet so large that the roster it was told does
    /// not name all. Answered by [`ApiResult::Certificate`].
    Certificate(String),
    /// Stores a workflow as a new revision and deploys it in waves. Answered by [`ApiResult::Rollouts`]: the new one.
    RolloutStart {
        /// TOML.
        text: String,
        /// Refuse if the current revision is another one (0: there is none yet).
        expect_revision: Option<u32>,
        /// How it goes on.
        policy: RolloutPolicy,
    },
    /// All rollouts, the newest first. Answered by [`ApiResult::Rollouts`].
    RolloutList,
    /// One rollout. Answered by [`ApiResult::Rollouts`].
    RolloutShow(u64),
    /// Tells a rollout what to do. Answered by [`ApiResult::Rollouts`].
    RolloutTell {
        /// Which.
        id: u64,
        /// What.
        command: RolloutCommand,
        /// Why, for those who read it later.
        reason: String,
    },
    /// History and alerts. Answered by [`ApiResult::Observe`].
    Observe(ObserveCall),
    /// Takes a daemon out of the fleet for good. Answered by [`ApiResult::Revoked`].
    DaemonRevoke(NodeId),
    /// The plane's audit. Answered by [`ApiResult::Audit`].
    Audit(AuditCall),
    /// Candidates without a token. Answered by [`ApiResult::Pairing`].
    Pairing(PairingCall),
    /// All operators. Answered by [`ApiResult::Operators`].
    OperatorList,
    /// Takes an operator out of the fleet for good. Answered by [`ApiResult::Revoked`].
    OperatorRevoke(NodeId),
    /// Saved selectors. Answered by [`ApiResult::Groups`].
    Group(GroupCall),
    /// What of the broker's access list is about one member. Answered by [`ApiResult::AccessList`].
    AccessListOf {
        /// In which broker's language.
        broker: BrokerKind,
        /// By name or id.
        member: String,
    },
    /// Which daemons carry which components. Answered by [`ApiResult::Carriers`].
    Carriers,
    /// Stores a workflow as a new revision and deploys it, and keeps why. Answered by [`ApiResult::Revision`], or in waves by
    /// [`ApiResult::Rollouts`]: the new one.
    Deploy {
        /// TOML.
        text: String,
        /// Refuse if the current revision is another one (0: there is none yet).
        expect_revision: Option<u32>,
        /// Why, for those who look at the revisions later; may be empty.
        reason: String,
        /// In waves, and how they go on; `None`: to all at once.
        waves: Option<RolloutPolicy>,
    },
    /// All revisions of a workflow with their reasons, the newest first. Answered by [`ApiResult::History`].
    WorkflowHistory(String),
    /// Makes an enrolment string for daemons that have labels from the beginning. Answered by [`ApiResult::Token`].
    TokenMint {
        /// The name its (only) holder gets; `None` lets the candidate choose.
        name: Option<String>,
        /// How often it can be used.
        uses: u32,
        /// How long it can be used.
        ttl_s: u64,
        /// By key.
        labels: BTreeMap<String, String>,
    },
    /// Enrolment strings that can still be used, with what their daemons are labelled. Answered by [`ApiResult::TokenLabels`].
    TokenLabels,
    /// What the nodes of one workflow do, or of all. Answered by [`ApiResult::Nodes`].
    Nodes(Option<String>),
    /// [`ApiCall::Deploy`] in waves that are gated on how long records wait, too. Answered by [`ApiResult::Rollouts`]: the new one.
    RolloutBegin {
        /// TOML.
        text: String,
        /// Refuse if the current revision is another one (0: there is none yet).
        expect_revision: Option<u32>,
        /// Why, for those who look at the revisions later; may be empty.
        reason: String,
        /// How it goes on.
        policy: RolloutPolicy,
        /// What the policy's bytes do not say: see [`RolloutPolicy::lag_s_max`].
        lag_s_max: u32,
    },
    /// What the daemons of one workflow note about it, or of all: dead letters they keep, and drift. Answered by [`ApiResult::Notes`].
    Notes(Option<String>),
    /// [`ApiCall::WorkflowDelete`], of the workflow as somebody has seen it. Answered by [`ApiResult::Revision`].
    WorkflowRemove {
        /// Which.
        name: String,
        /// Refuse if the current revision is another one.
        expect_revision: Option<u32>,
    },
}

/// What is done with groups: selectors with a name, used as `group:NAME` wherever a selector is. Variants are only ever appended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum GroupCall {
    /// All.
    List,
    /// Makes one, or gives it another selector.
    Put {
        /// Its name.
        name: String,
        /// What it stands for; no other group.
        selector: String,
    },
    /// Forgets one.
    Remove(String),
}

/// For whom to write an access list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum BrokerKind {
    /// Eclipse Mosquitto's acl_file.
    Mosquitto,
    /// nats-server's authorization block.
    Nats,
    /// The same as an account of nats-server's accounts block, for a server that others use too.
    NatsAccount,
}

/// The plane's answer. Variants are only ever appended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(clippy::large_enum_variant, reason = "one per call, encoded or taken apart at once")]
pub enum ApiResult {
    /// It did not work.
    Failed(Failure),
    /// For [`ApiCall::Info`].
    Info(PlaneInfo),
    /// For [`ApiCall::TokenCreate`]: the enrolment string.
    Token(String),
    /// For [`ApiCall::DaemonList`].
    Daemons(Vec<DaemonView>),
    /// For [`ApiCall::DaemonShow`].
    Daemon(DaemonDetail),
    /// For [`ApiCall::WorkflowValidate`]: everything that is wrong; empty when nothing is.
    Problems(Vec<Problem>),
    /// For [`ApiCall::WorkflowApply`] and [`ApiCall::WorkflowDelete`]: the revision now current.
    Revision(u32),
    /// For [`ApiCall::WorkflowList`].
    Workflows(Vec<WorkflowView>),
    /// For [`ApiCall::WorkflowShow`].
    Workflow {
        /// The list's line about it.
        view: WorkflowView,
        /// TOML.
        text: String,
    },
    /// For [`ApiCall::WorkflowStatus`].
    Status {
        /// The list's line about it.
        view: WorkflowView,
        /// Per daemon.
        parts: Vec<WorkflowPart>,
        /// Per stream.
        streams: Vec<StreamView>,
    },
    /// For [`ApiCall::Ledger`].
    Ledger(Vec<StreamView>),
    /// For [`ApiCall::Components`].
    Components(Vec<ComponentView>),
    /// For [`ApiCall::AccessList`].
    AccessList(String),
    /// For [`ApiCall::Roster`].
    Roster(RosterPut),
    /// For [`ApiCall::DaemonLabels`] and [`ApiCall::DaemonLabel`], by daemon.
    Labels(Vec<Labelled>),
    /// For [`ApiCall::WorkflowRevisions`].
    Revisions(Vec<RevisionLine>),
    /// For [`ApiCall::WorkflowText`].
    Text(String),
    /// For [`ApiCall::TokenList`] and [`ApiCall::TokenRevoke`].
    Tokens(Vec<TokenView>),
    /// For [`ApiCall::WorkflowDiff`].
    Diff(WorkflowDiff),
    /// For [`ApiCall::Certificate`].
    Certificate(Signed<Certificate>),
    /// For the calls about rollouts.
    Rollouts(Vec<RolloutView>),
    /// For [`ApiCall::Observe`].
    Observe(ObserveResult),
    /// For [`ApiCall::DaemonRevoke`] and [`ApiCall::OperatorRevoke`]: its name.
    Revoked(String),
    /// For [`ApiCall::Audit`].
    Audit(AuditPage),
    /// For [`ApiCall::Pairing`].
    Pairing(PairingResult),
    /// For [`ApiCall::OperatorList`], by name.
    Operators(Vec<OperatorView>),
    /// For [`ApiCall::Group`]: all there are now, by name.
    Groups(Vec<GroupView>),
    /// For [`ApiCall::Carriers`]: each set of components once.
    Carriers(Vec<Carriers>),
    /// For [`ApiCall::WorkflowHistory`].
    History(Vec<RevisionView>),
    /// For [`ApiCall::TokenLabels`].
    TokenLabels(Vec<LabelledToken>),
    /// For [`ApiCall::Nodes`], by workflow, node and daemon.
    Nodes(Vec<NodeView>),
    /// For [`ApiCall::Notes`], by workflow and daemon: one for each part.
    Notes(Vec<NoteView>),
}

/// A group in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct GroupView {
    /// Name.
    pub name: String,
    /// What it stands for.
    pub selector: String,
    /// How many daemons it chooses just now.
    pub daemons: u32,
}

/// An operator in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct OperatorView {
    /// Name.
    pub name: String,
    /// Id.
    pub node: NodeId,
    /// Fingerprint of the signing key.
    pub fingerprint: String,
    /// When it was enrolled, milliseconds since 1970; 0 when that is not known any more.
    pub enrolled_unix_ms: i64,
}

/// What became of something, or would become.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Changed {
    /// It is new.
    Added,
    /// It is gone.
    Removed,
    /// It is another.
    Changed,
    /// It is the same.
    Unchanged,
}

/// What applying a text would change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct WorkflowDiff {
    /// The workflow.
    pub name: String,
    /// The revision it is compared with; 0 when there is none.
    pub revision: u32,
    /// Nodes that would change.
    pub nodes: Vec<NodeDiff>,
    /// What each daemon would get, by name; those of which nothing changes too.
    pub daemons: Vec<DaemonDiff>,
    /// Daemons that found no room in the list.
    pub more: u32,
}

/// A node that would change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct NodeDiff {
    /// Its name.
    pub node: String,
    /// What it does.
    pub role: ComponentRole,
    /// How it changes.
    pub change: Changed,
    /// What changes of it, by field.
    pub fields: Vec<FieldDiff>,
}

/// A field that would change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct FieldDiff {
    /// Its key, dotted within tables.
    pub field: String,
    /// As it is, as JSON; `None` when it is not there.
    pub before: Option<String>,
    /// As it would be.
    pub after: Option<String>,
}

/// What a daemon would get.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct DaemonDiff {
    /// Its name.
    pub daemon: String,
    /// How its part changes.
    pub change: Changed,
    /// The nodes it would run; none when its part is removed.
    pub nodes: Vec<String>,
}

/// A daemon with its labels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Labelled {
    /// Its name.
    pub name: String,
    /// Its id.
    pub node: NodeId,
    /// By key.
    pub labels: BTreeMap<String, String>,
}

/// A revision in a list, as those see it who do not ask for its reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevisionLine {
    /// From 1.
    pub number: u32,
    /// Who applied it.
    pub by: String,
    /// When, milliseconds since 1970.
    pub at_unix_ms: i64,
    /// Whether it is the one that daemons shall run.
    pub is_current: bool,
}

impl From<RevisionView> for RevisionLine {
    fn from(view: RevisionView) -> Self {
        Self {
            number: view.number,
            by: view.by,
            at_unix_ms: view.at_unix_ms,
            is_current: view.is_current,
        }
    }
}

/// A revision in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct RevisionView {
    /// From 1.
    pub number: u32,
    /// Who applied it.
    pub by: String,
    /// When, milliseconds since 1970.
    pub at_unix_ms: i64,
    /// Whether it is the one that daemons shall run.
    pub is_current: bool,
    /// Why it was applied; empty when nobody said.
    pub reason: String,
}

/// An enrolment string in a list, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct TokenView {
    /// Its id.
    pub id: TokenId,
    /// What its holder becomes.
    pub role: Role,
    /// The name its holder gets; `None` lets the candidate choose.
    pub name: Option<String>,
    /// How often it can still be used.
    pub uses_left: u32,
    /// Until when, milliseconds since 1970.
    pub expires_unix_ms: i64,
}

/// An enrolment string in a list, with what its daemons are labelled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabelledToken {
    /// The list's line about it.
    pub token: TokenView,
    /// By key.
    pub labels: BTreeMap<String, String>,
}

/// Why a call failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Failure {
    /// What kind of failure; decides the exit code.
    pub kind: FailureKind,
    /// What failed.
    pub message: String,
    /// What to do about it; may be empty.
    pub hint: String,
    /// Every problem of a workflow, when that is what failed.
    pub problems: Vec<Problem>,
}

/// Kinds of failures. Variants are only ever appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// The request makes no sense as it is.
    Invalid,
    /// No such thing.
    NotFound,
    /// Somebody else changed it first.
    Conflict,
    /// The caller may not.
    Forbidden,
    /// The plane could not.
    Internal,
}

/// One thing that is wrong in a workflow, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Problem {
    /// Where: `sources.db.path`, or empty for the whole.
    pub place: String,
    /// Line in the text, from 1; 0 when unknown.
    pub line: u32,
    /// What is wrong.
    pub message: String,
    /// What to do; may be empty.
    pub hint: String,
}

/// The plane, in short.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PlaneInfo {
    /// The fleet.
    pub fleet: FleetId,
    /// The plane's node id.
    pub plane: NodeId,
    /// Its version.
    pub version: String,
    /// Roster version.
    pub roster_version: u64,
    /// Members by role: daemons.
    pub daemons: u32,
    /// Members by role: operators.
    pub operators: u32,
    /// Workflows.
    pub workflows: u32,
    /// Where its web page listens.
    pub http: String,
}

/// Whether a daemon is there. Variants are only ever appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Presence {
    /// Enrolled, never heard since the plane started.
    Unknown,
    /// Its lease holds.
    Online,
    /// The lease ran out a moment ago.
    Late,
    /// The lease ran out long ago.
    Offline,
}

/// A daemon in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct DaemonView {
    /// Name.
    pub name: String,
    /// Id.
    pub node: NodeId,
    /// Is it there?
    pub presence: Presence,
    /// Milliseconds since it was last heard; `None` when it never was.
    pub last_seen_ms: Option<u64>,
    /// Version of `myceliald`.
    pub version: String,
    /// The plan it runs.
    pub plan_version: u64,
    /// The plan it should run.
    pub plan_wanted: u64,
    /// Workflows on it that are not running well.
    pub troubled: u32,
    /// Files and buffers it set aside as damaged and was not told to forget.
    pub damaged: u32,
    /// What it uses.
    pub resources: Resources,
}

/// A daemon with everything known of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct DaemonDetail {
    /// The list's line about it.
    pub view: DaemonView,
    /// Its host.
    pub host: HostFacts,
    /// Fingerprint of its signing key.
    pub fingerprint: String,
    /// Starts since it was enrolled.
    pub boot: u64,
    /// Since start.
    pub uptime_ms: u64,
    /// Its wall clock minus the plane's, in milliseconds.
    pub clock_offset_ms: i64,
    /// Why its newest plan is not applied; empty when it is.
    pub plan_error: String,
    /// Messages it refused since start.
    pub refused: u64,
    /// Its workflows.
    pub parts: Vec<WorkflowPart>,
    /// Its components: role and name.
    pub components: Vec<ComponentView>,
    /// Since when it is who it is.
    #[serde(default, skip_serializing_if = "Aside::is_untold")]
    pub lineage: Aside<Lineage>,
}

/// Who a daemon was before, and whether it is one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Lineage {
    /// Which generation of its keys is its newest, counted from 0.
    pub generation: u32,
    /// Fingerprint of the keys before, while they are good beside the new ones; empty when none are.
    pub former_fingerprint: String,
    /// When it was enrolled, milliseconds since 1970; 0 when that is not known any more.
    pub enrolled_unix_ms: i64,
    /// Two daemons were heard a short while ago that use its keys.
    pub is_cloned: bool,
}

/// A component in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ComponentView {
    /// What it does.
    pub role: ComponentRole,
    /// Type name.
    pub name: String,
    /// One line.
    pub summary: String,
    /// JSON Schema of its config.
    pub schema: String,
    /// Working example.
    pub example: String,
}

/// Daemons that carry the same components.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Carriers {
    /// As `role/name`, in order.
    pub components: Vec<String>,
    /// By name.
    pub daemons: Vec<String>,
}

/// A workflow in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct WorkflowView {
    /// Name.
    pub name: String,
    /// Current revision.
    pub revision: u32,
    /// Who applied it.
    pub by: String,
    /// When, milliseconds since 1970.
    pub at_unix_ms: i64,
    /// Daemons it runs on, by name.
    pub daemons: Vec<String>,
    /// The worst state of its parts; `None` when no daemon has reported yet.
    pub state: Option<RunState>,
    /// Dead letters that its daemons keep: waiting for somebody, or to be tried again. The ledgers of its streams go on counting
    /// those that were discarded.
    #[serde(default, skip_serializing_if = "Aside::is_untold")]
    pub letters_kept: Aside<u64>,
}

/// A workflow's part on one daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct WorkflowPart {
    /// The workflow.
    pub workflow: String,
    /// The daemon.
    pub daemon: String,
    /// The revision it runs; 0 when it runs none.
    pub revision: u32,
    /// The revision it shall run; 0 when it shall run none.
    #[serde(default, skip_serializing_if = "Aside::is_untold")]
    pub wanted: Aside<u32>,
    /// How it is doing; `None` when not reported yet.
    pub state: Option<RunState>,
    /// Why.
    pub cause: String,
}

/// A stream's account, both ends put together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct StreamView {
    /// The workflow's name.
    pub workflow: String,
    /// `<from>-><to>`.
    pub edge: String,
    /// Producing daemon's name.
    pub producer: String,
    /// Consuming daemon's name.
    pub consumer: String,
    /// The stream's epoch.
    pub epoch: u64,
    /// The account: what is produced and buffered is the producer's word, what is delivered the consumer's.
    pub ledger: Ledger,
    /// Whether the account balances.
    pub balances: bool,
    /// Bytes waiting.
    pub buffered_bytes: u64,
    /// Records a second, over the last reports.
    pub rate: u32,
    /// How long ago the oldest record that waits was taken, when its ends last spoke of it, in milliseconds: at least so long, as
    /// far as the plane has watched. `None` when nothing waits.
    #[serde(default, skip_serializing_if = "Aside::is_untold")]
    pub lag_ms: Aside<Option<u64>>,
    /// Bytes that went this way since the producing daemon opened the stream: sealed frames between daemons, about what its
    /// records take inside of one. Not there as long as that daemon has not said.
    #[serde(default, skip_serializing_if = "Aside::is_untold")]
    pub bytes: Aside<u64>,
    /// Bytes a second, over the last reports.
    #[serde(default, skip_serializing_if = "Aside::is_untold")]
    pub bytes_per_s: Aside<u64>,
    /// How long it took lately, on average, from where records went in until it was known that they are durable at the
    /// destination, in milliseconds. `None` when nothing went.
    #[serde(default, skip_serializing_if = "Aside::is_untold")]
    pub latency_ms: Aside<Option<u64>>,
    /// Whether more of it was dropped within the last day, as far as the plane has watched.
    #[serde(default, skip_serializing_if = "Aside::is_untold")]
    pub dropped_lately: Aside<bool>,
    /// Whether some of its workflow's dead letters are still kept, if it counts any.
    #[serde(default, skip_serializing_if = "Aside::is_untold")]
    pub has_letters: Aside<bool>,
    /// What keeps it from flowing; empty when nothing does.
    pub trouble: String,
}

/// What a daemon notes about its part of a workflow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoteView {
    /// The workflow.
    pub workflow: String,
    /// The daemon.
    pub daemon: String,
    /// Dead letters of it that are kept there; `None` while the daemon may keep some and has not said.
    pub letters_kept: Option<u64>,
    /// Columns that were not what a contract says, within the last day.
    pub drift: Option<DriftView>,
}

/// Columns that were not what was agreed about them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct DriftView {
    /// What was met last and what was done about it: the node, the columns, where they are.
    pub what: String,
    /// In how many batches it was met since the workflow began on the daemon.
    pub batches: u64,
    /// How long ago it was met last, in milliseconds.
    pub ago_ms: u64,
}

/// What a node of a workflow does on one daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct NodeView {
    /// The workflow.
    pub workflow: String,
    /// The node.
    pub node: String,
    /// The daemon.
    pub daemon: String,
    /// Records that left it since the workflow began there; of a destination: that arrived.
    pub records: u64,
    /// About how many bytes they take.
    pub bytes: u64,
    /// Records that it could not take, which became dead letters.
    pub errors: u64,
    /// How often it failed and was tried again.
    pub faults: u64,
    /// Batches, of one record or many.
    pub batches: u64,
    /// How long it was at work on them, waiting for its system included, in microseconds. Of a source: nothing.
    pub busy_us: u64,
    /// Records a second, over the last reports.
    pub rate: u32,
    /// Bytes a second.
    pub bytes_per_s: u64,
}
