//! Watching a fleet over time: history of metrics, and alerts. What operators ask and what the plane answers; plain data.

use alloc::{
    string::{String, ToString},
    vec,
    vec::Vec,
};

use serde::{Deserialize, Serialize};

/// Most points of one series in one answer.
pub const POINTS_MAX: usize = 1_500;
/// Most alert rules of a fleet.
pub const RULES_MAX: usize = 200;
/// Longest reason of a silence, in bytes.
pub const REASON_BYTES_MAX: usize = 500;

/// What is asked about the past and about alerts. Variants are only ever appended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ObserveCall {
    /// History of a subject. Answered by [`ObserveResult::Series`].
    Series {
        /// `daemon:NAME`, `workflow:NAME`, `node:WORKFLOW/NODE` or `stream:WORKFLOW/EDGE`.
        subject: String,
        /// One metric by its name; all there are when `None`.
        metric: Option<String>,
        /// From when, milliseconds since 1970.
        from_unix_ms: i64,
        /// Until when.
        to_unix_ms: i64,
    },
    /// Alerts that are pending or firing. Answered by [`ObserveResult::Alerts`].
    Alerts,
    /// All rules, those that come with the plane too. Answered by [`ObserveResult::Rules`].
    Rules,
    /// These are the rules from now on, besides those that come with the plane. Answered by [`ObserveResult::Rules`].
    PutRules(Vec<AlertRule>),
    /// Tells nobody of an alert for a while. Answered by [`ObserveResult::Alerts`].
    Silence {
        /// Its id, as in the list.
        id: String,
        /// For how long; 0 ends a silence.
        for_s: u64,
        /// Why.
        reason: String,
    },
    /// When would a rule have fired? Answered by [`ObserveResult::Preview`].
    Preview {
        /// The rule; it is not stored.
        rule: AlertRule,
        /// How far back, in seconds.
        last_s: u64,
    },
    /// Sends a message to a channel, to see whether it arrives. Answered by [`ObserveResult::Sent`].
    Test {
        /// The channel, as `plane.toml` names it.
        channel: String,
    },
}

/// Answers to [`ObserveCall`]. Variants are only ever appended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ObserveResult {
    /// One per metric.
    Series(Vec<Series>),
    /// Pending and firing ones, the worst first.
    Alerts(Vec<AlertView>),
    /// By name.
    Rules(Vec<AlertRule>),
    /// When it would have fired, oldest first.
    Preview(Vec<Fired>),
    /// Where it went.
    Sent(String),
}

/// One metric of one subject over time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Series {
    /// See [`ObserveCall::Series`].
    pub subject: String,
    /// Its name.
    pub metric: String,
    /// Of the values, which are thousandths of it: `bytes`, `records/s`, `ms`.
    pub unit: String,
    /// Length of a step in seconds: how fine the history still is that far back.
    pub step_s: u64,
    /// Oldest first; steps of which nothing is known are missing.
    pub points: Vec<Point>,
}

/// One step of a series, in thousandths of its unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Point {
    /// Where the step begins, milliseconds since 1970.
    pub at_unix_ms: i64,
    /// Least.
    pub min_milli: u64,
    /// On average.
    pub mean_milli: u64,
    /// Most.
    pub max_milli: u64,
}

/// What a rule looks at. Variants are only ever appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum AlertKind {
    /// A daemon is not heard. `over` has no meaning.
    Offline,
    /// The oldest record of a stream that has not arrived is older than `over` seconds.
    Lag,
    /// A workflow's records that were dropped or became dead letters, a minute: more than `over`.
    Errors,
    /// Buffers take more than `over` percent of a daemon's disk: what they hold and what is free.
    BufferFill,
    /// A workflow has more than `over` dead letters.
    DeadLetters,
    /// Less than `over` MiB are free on a daemon's disk.
    DiskFree,
    /// A workflow's part fails or is tried again and again. `over` has no meaning.
    Failing,
    /// A daemon has not applied its plan. `over` has no meaning.
    PlanStuck,
    /// Two daemons use the keys of one. `over` has no meaning.
    Cloned,
    /// A rollout has stood at the same place for more than `over` seconds, soaking not counted.
    RolloutStuck,
    /// A workflow's columns were not what a contract says within the last `over` seconds.
    Drift,
}

/// How bad. Variants are only ever appended; a later one is worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Good to know.
    Info,
    /// Look at it today.
    Warning,
    /// Look at it now.
    Critical,
}

/// When to raise an alert.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct AlertRule {
    /// Its name; one that comes with the plane is replaced by one of the same name.
    pub name: String,
    /// What it looks at.
    pub when: AlertKind,
    /// The limit, in the unit that [`AlertKind`] says.
    pub over: u64,
    /// For how long it has to be so, in seconds.
    pub for_s: u64,
    /// How bad.
    pub severity: Severity,
    /// Only daemons that this selector chooses; all when empty.
    pub select: String,
    /// Only this workflow; all when empty.
    pub workflow: String,
    /// Channels to tell, as `plane.toml` names them; all when empty.
    pub notify: Vec<String>,
    /// Whether it is looked at.
    pub enabled: bool,
}

/// The rules that come with the plane. One of the same name replaces each; `enabled = false` switches it off.
pub fn built_in_rules() -> Vec<AlertRule> {
    use AlertKind::{BufferFill, Cloned, DeadLetters, DiskFree, Drift, Failing, Lag, Offline, PlanStuck, RolloutStuck};
    let rule = |name: &str, when, over, for_s, severity| AlertRule {
        name: name.to_string(),
        when,
        over,
        for_s,
        severity,
        select: String::new(),
        workflow: String::new(),
        notify: Vec::new(),
        enabled: true,
    };
    vec![
        rule("daemon-offline", Offline, 0, 300, Severity::Warning),
        rule("stream-lag", Lag, 900, 300, Severity::Warning),
        rule("buffer-fill", BufferFill, 80, 60, Severity::Critical),
        rule("disk-free", DiskFree, 200, 60, Severity::Critical),
        rule("dead-letters", DeadLetters, 0, 60, Severity::Info),
        rule("workflow-failing", Failing, 0, 120, Severity::Warning),
        rule("plan-stuck", PlanStuck, 0, 300, Severity::Warning),
        rule("daemon-cloned", Cloned, 0, 0, Severity::Critical),
        rule("rollout-stuck", RolloutStuck, 900, 0, Severity::Warning),
        rule("column-drift", Drift, 3_600, 0, Severity::Warning),
    ]
}

/// Where an alert stands. Variants are only ever appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum AlertState {
    /// It is so, not for long enough.
    Pending,
    /// It is so.
    Firing,
    /// It is not so any more.
    Resolved,
}

/// An alert in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct AlertView {
    /// Its id: the same as long as rule and subject are.
    pub id: String,
    /// The rule's name.
    pub rule: String,
    /// `daemon:NAME`, `workflow:NAME` or `stream:WORKFLOW/EDGE`.
    pub subject: String,
    /// How bad.
    pub severity: Severity,
    /// Where it stands.
    pub state: AlertState,
    /// Since when, milliseconds since 1970.
    pub since_unix_ms: i64,
    /// In words.
    pub summary: String,
    /// Until when nobody is told, milliseconds since 1970; 0 when it is not silenced.
    pub silenced_until_unix_ms: i64,
    /// Why.
    pub silence_reason: String,
}

/// A time in which a rule would have fired.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Fired {
    /// About what.
    pub subject: String,
    /// From when, milliseconds since 1970.
    pub from_unix_ms: i64,
    /// Until when; `None` when it still would.
    pub to_unix_ms: Option<i64>,
}
