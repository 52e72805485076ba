//! Alerts: rules over readings, and one small state machine per rule and subject. Pure; whom it is told to, and how, is
//! not its business.
//!
//! ```text
//!            breach                 held long enough                not so for RESOLVE_MS
//! (nothing) ────────▶ pending ───────────────────────▶ firing ───────────────────────────▶ (nothing)
//!     ▲                  │ not so any more               │ told once, when it is not silenced;
//!     └──────────────────┘                               └ and told again when it is over
//! ```
//! How long something held is counted by the plane's own clock and survives its restarts; the wall clock is only shown.

use std::collections::BTreeMap;

use bus_schema::{
    drift::DRIFT_KEPT_MS,
    id::hash,
    member::is_name,
    observe::{
        AlertKind, AlertRule, AlertState, AlertView, Fired, REASON_BYTES_MAX, RULES_MAX, Severity, built_in_rules,
    },
    shown::bytes,
};
use serde::{Deserialize, Serialize};

use super::{
    history::Amount,
    readings::{self, Reading},
};

/// How long it must not be so any more until an alert is over, in milliseconds.
pub const RESOLVE_MS: u64 = 30_000;
/// Most time that one step counts, in milliseconds: a plane that stood still has not seen anything.
pub const STEP_MS_MAX: u64 = 30_000;
/// Most alerts at a time; further ones are not raised before others are over.
pub const ALERTS_MAX: usize = 2_000;
/// Most silences.
pub const SILENCES_MAX: usize = 500;
/// Longest silence, in seconds.
pub const SILENCE_S_MAX: u64 = 90 * 86_400;
/// See [`of_rollouts`].
const ROLLOUT_STANDS: &str = "rollout_stands";
/// Longest time that a rule may ask for, in seconds.
const FOR_S_MAX: u64 = 7 * 86_400;

/// An operator's rules and, where they do not replace them, those that come with the plane; by name.
pub fn all_rules(own: &[AlertRule]) -> Vec<AlertRule> {
    let mut rules: BTreeMap<String, AlertRule> = built_in_rules()
        .into_iter()
        .map(|rule| (rule.name.clone(), rule))
        .collect();
    rules.extend(own.iter().map(|rule| (rule.name.clone(), rule.clone())));
    rules.into_values().collect()
}

/// Whether a rule is as it comes with the plane.
pub fn is_built_in(rule: &AlertRule) -> bool {
    built_in_rules().contains(rule)
}

/// What is wrong with rules, in words. `selects`: whether a selector can be read.
pub fn mistake(
    rules: &[AlertRule],
    channels: &[String],
    selects: impl Fn(&str) -> Result<(), String>,
) -> Option<String> {
    if rules.len() > RULES_MAX {
        return Some(format!(
            "a fleet has at most {RULES_MAX} rules, these are {}",
            rules.len()
        ));
    }
    for (index, rule) in rules.iter().enumerate() {
        let name = &rule.name;
        if !is_name(name) {
            return Some(format!(
                "rule {}: '{name}' cannot be a name: use 1 to 32 of a-z, 0-9, '_' and '-'",
                index + 1
            ));
        }
        if rules[..index].iter().any(|other| other.name == *name) {
            return Some(format!("there are two rules '{name}'"));
        }
        if rule.for_s > FOR_S_MAX {
            return Some(format!(
                "rule '{name}': `for` is longer than {} days",
                FOR_S_MAX / 86_400
            ));
        }
        if rule.when == AlertKind::BufferFill && !(1..100).contains(&rule.over) {
            return Some(format!("rule '{name}': `over` is a percentage, 1 to 99"));
        }
        if rule.when == AlertKind::Drift && !(1..=DRIFT_KEPT_MS / 1_000).contains(&rule.over) {
            return Some(format!(
                "rule '{name}': `over` is for how many seconds drift counts, 1 to {}",
                DRIFT_KEPT_MS / 1_000
            ));
        }
        if let Err(wrong) = selects(&rule.select) {
            return Some(format!("rule '{name}': select: {wrong}"));
        }
        if let Some(unknown) = rule.notify.iter().find(|channel| !channels.contains(channel)) {
            let known = match channels {
                [] => "plane.toml names none".to_string(),
                channels => format!("plane.toml names: {}", channels.join(", ")),
            };
            return Some(format!("rule '{name}': there is no channel '{unknown}'; {known}"));
        }
    }
    None
}

/// What is known of one subject, in thousandths of each metric's unit.
pub type Values = BTreeMap<&'static str, u64>;

/// What readings say, by subject.
pub fn values(readings: &[Reading], step_s: u64) -> BTreeMap<String, Values> {
    let mut all: BTreeMap<String, Values> = BTreeMap::new();
    // No rule looks at single nodes.
    for reading in readings.iter().filter(|one| !one.subject.starts_with("node:")) {
        let value = match &reading.amount {
            Amount::Growth(count) => count.saturating_mul(1_000) / step_s.max(1),
            Amount::Gauge(gauge) => gauge.max().saturating_mul(1_000),
        };
        all.entry(reading.subject.to_string())
            .or_default()
            .insert(reading.metric.0, value);
    }
    all
}

/// The subjects and metrics a kind looks at. Of metrics for which less is worse, the least counts.
pub fn looks_at(kind: AlertKind) -> (&'static str, &'static [&'static str]) {
    match kind {
        AlertKind::Offline => ("daemon:", &[readings::ONLINE.0]),
        AlertKind::Lag => ("stream:", &[readings::LAG.0]),
        AlertKind::Errors => ("workflow:", &[readings::ERRORS.0]),
        AlertKind::BufferFill => ("daemon:", &[readings::BUFFER.0, readings::DISK_FREE.0]),
        AlertKind::DeadLetters => ("workflow:", &[readings::DEAD.0]),
        AlertKind::DiskFree => ("daemon:", &[readings::DISK_FREE.0]),
        AlertKind::Failing => ("workflow:", &[readings::TROUBLED.0]),
        AlertKind::PlanStuck => ("daemon:", &[readings::PLAN_BEHIND.0]),
        AlertKind::Cloned => ("daemon:", &[readings::CLONED.0]),
        AlertKind::RolloutStuck => ("rollout:", &[ROLLOUT_STANDS]),
        AlertKind::Drift => ("workflow:", &[readings::DRIFT.0]),
    }
}

/// Since when rollouts stand where they stand, in seconds, as subjects of rules. There is no history of it.
pub fn of_rollouts(standing: impl IntoIterator<Item = (String, u64)>) -> impl Iterator<Item = (String, Values)> {
    let standing = standing.into_iter();
    standing.map(|(workflow, ms)| (format!("rollout:{workflow}"), [(ROLLOUT_STANDS, ms)].into()))
}

/// Says of workflows that are heard of, and have no drift, that it was never: what is not known is neither so nor over.
pub fn without_drift<'a>(values: &mut BTreeMap<String, Values>, heard: impl IntoIterator<Item = &'a str>) {
    for workflow in heard {
        let known = values.entry(format!("workflow:{workflow}")).or_default();
        known.entry(readings::DRIFT.0).or_insert(u64::MAX);
    }
}

/// Whether of a metric less is worse.
pub fn less_is_worse(metric: &str) -> bool {
    [readings::ONLINE.0, readings::DISK_FREE.0, readings::DRIFT.0].contains(&metric)
}

/// Whether it is so, and how to say it; `None` when that is not known.
fn judge(rule: &AlertRule, subject: &str, values: &Values, scope: &dyn Scope) -> Option<(bool, String)> {
    let (_, metrics) = looks_at(rule.when);
    let value = *values.get(metrics[0])?;
    let (what, whole) = (subject.split_once(':').map_or(subject, |(_, name)| name), value / 1_000);
    Some(match rule.when {
        AlertKind::Offline => (value == 0, format!("daemon '{what}' is offline")),
        AlertKind::Lag => {
            let lag_s = whole / 1_000;
            (
                lag_s > rule.over,
                format!(
                    "the oldest record on its way on '{what}' has waited for {lag_s} s, over {} s",
                    rule.over
                ),
            )
        }
        AlertKind::Errors => {
            let per_minute = value.saturating_mul(60) / 1_000;
            (
                per_minute > rule.over,
                format!(
                    "workflow '{what}' dropped or set aside {per_minute} records a minute, over {}",
                    rule.over
                ),
            )
        }
        AlertKind::BufferFill => {
            let free = values.get(metrics[1])?;
            let percent = u128::from(value) * 100 / (u128::from(value) + u128::from(*free)).max(1);
            (
                percent > u128::from(rule.over),
                format!(
                    "buffers of daemon '{what}' take {percent} % of the disk they can have, over {} %",
                    rule.over
                ),
            )
        }
        AlertKind::DeadLetters => (
            whole > rule.over,
            format!("workflow '{what}' has {whole} dead letters, over {}", rule.over),
        ),
        AlertKind::DiskFree => {
            let under = rule.over.saturating_mul(1 << 20);
            (
                whole < under,
                format!(
                    "daemon '{what}' has {} of disk left, under {}",
                    bytes(whole),
                    bytes(under)
                ),
            )
        }
        AlertKind::Failing => (
            value > 0,
            format!("workflow '{what}' fails or is tried again and again"),
        ),
        AlertKind::PlanStuck => (value > 0, format!("daemon '{what}' does not apply its plan")),
        AlertKind::Cloned => (
            value > 0,
            format!("two daemons use the keys of '{what}': revoke it and enrol both anew"),
        ),
        AlertKind::RolloutStuck => (
            whole > rule.over,
            format!(
                "the rollout of workflow '{what}' has stood at the same place for {whole} s, over {} s",
                rule.over
            ),
        ),
        AlertKind::Drift => (
            whole / 1_000 <= rule.over,
            match scope.drift(what) {
                Some(said) => format!("columns of workflow '{what}' are not as agreed: {said}"),
                None => format!("columns of workflow '{what}' are not as agreed"),
            },
        ),
    })
}

/// Whether a rule is about a subject. `runs_on`: the daemons a workflow is placed on; `chosen`: those a selector chooses.
fn concerns(rule: &AlertRule, subject: &str, scope: &dyn Scope) -> bool {
    let (prefix, _) = looks_at(rule.when);
    let Some(name) = subject.strip_prefix(prefix) else {
        return false;
    };
    let workflow = match prefix {
        "daemon:" => None,
        "stream:" => Some(name.split_once('/').map_or(name, |(workflow, _)| workflow)),
        _ => Some(name),
    };
    let right_workflow = match (workflow, rule.workflow.as_str()) {
        (_, "") => true,
        (Some(workflow), wanted) => workflow == wanted,
        (None, wanted) => scope.daemons_of(wanted).contains(&name),
    };
    let chosen = |daemon: &str| scope.chooses(&rule.select, daemon);
    right_workflow
        && (rule.select.is_empty()
            || match workflow {
                None => chosen(name),
                Some(workflow) => scope.daemons_of(workflow).iter().any(|daemon| chosen(daemon)),
            })
}

/// Who runs what, and whom selectors choose.
pub trait Scope {
    /// The daemons that a workflow is placed on, by name.
    fn daemons_of(&self, workflow: &str) -> Vec<&str>;
    /// Whether a selector chooses a daemon.
    fn chooses(&self, selector: &str, daemon: &str) -> bool;
    /// Whether it is known whom a selector chooses.
    fn knows(&self, selector: &str) -> bool;
    /// What is said of the latest drift of a workflow.
    fn drift(&self, workflow: &str) -> Option<&str>;
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Alert {
    rule: String,
    subject: String,
    severity: Severity,
    firing: bool,
    since_unix_ms: i64,
    held_ms: u64,
    clear_ms: u64,
    told: bool,
    notify: Vec<String>,
    summary: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Silence {
    until_unix_ms: i64,
    reason: String,
}

/// All alerts and silences.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alerts {
    all: BTreeMap<String, Alert>,
    silences: BTreeMap<String, Silence>,
}

/// Something to tell people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// The alert, firing or resolved.
    pub alert: AlertView,
    /// Channels; all when empty.
    pub notify: Vec<String>,
}

/// An alert's id.
pub fn id_of(rule: &str, subject: &str) -> String {
    bus_schema::id::base32(&hash("mycelial alert v1", &[rule.as_bytes(), subject.as_bytes()])[..5])
}

impl Alerts {
    /// One step: what is so now, by subject. `step_ms`: since the last one.
    pub fn step(
        &mut self,
        rules: &[AlertRule],
        values: &BTreeMap<String, Values>,
        scope: &dyn Scope,
        step_ms: u64,
        now_unix_ms: i64,
    ) -> Vec<Notice> {
        let step_ms = step_ms.min(STEP_MS_MAX);
        let mut notices = Vec::new();
        self.silences.retain(|_, silence| silence.until_unix_ms > now_unix_ms);
        let mut looked_at = std::collections::BTreeSet::new();
        for rule in rules.iter().filter(|rule| rule.enabled) {
            if !rule.select.is_empty() && !scope.knows(&rule.select) {
                // Nobody knows what it is about: nothing is new, and nothing is over.
                let kept = self.all.iter().filter(|(_, alert)| alert.rule == rule.name);
                looked_at.extend(kept.map(|(id, _)| id.clone()));
                continue;
            }
            for (subject, values) in values.iter().filter(|(subject, _)| concerns(rule, subject, scope)) {
                let id = id_of(&rule.name, subject);
                looked_at.insert(id.clone());
                if let Some((is_so, summary)) = judge(rule, subject, values, scope) {
                    self.seen(id, rule, subject, is_so, summary, step_ms, now_unix_ms, &mut notices);
                }
            }
        }
        // Their rule or their subject is gone.
        let gone: Vec<String> = self.all.keys().filter(|id| !looked_at.contains(*id)).cloned().collect();
        for id in gone {
            self.over(&id, now_unix_ms, &mut notices);
        }
        self.tell(now_unix_ms, &mut notices);
        notices
    }

    #[allow(clippy::too_many_arguments, reason = "one step of one machine: what, whether, when")]
    fn seen(
        &mut self,
        id: String,
        rule: &AlertRule,
        subject: &str,
        is_so: bool,
        summary: String,
        step_ms: u64,
        now_unix_ms: i64,
        notices: &mut Vec<Notice>,
    ) {
        if !is_so {
            let Some(alert) = self.all.get_mut(&id) else { return };
            alert.clear_ms = alert.clear_ms.saturating_add(step_ms);
            if !alert.firing || alert.clear_ms >= RESOLVE_MS {
                self.over(&id, now_unix_ms, notices);
            }
            return;
        }
        if !self.all.contains_key(&id) && self.all.len() >= ALERTS_MAX {
            return;
        }
        let is_new = !self.all.contains_key(&id);
        let alert = self.all.entry(id).or_insert_with(|| Alert {
            rule: rule.name.clone(),
            subject: subject.to_string(),
            severity: rule.severity,
            firing: false,
            since_unix_ms: now_unix_ms,
            held_ms: 0,
            clear_ms: 0,
            told: false,
            notify: Vec::new(),
            summary: String::new(),
        });
        if !is_new {
            alert.held_ms = alert.held_ms.saturating_add(step_ms);
        }
        (alert.severity, alert.clear_ms) = (rule.severity, 0);
        alert.notify.clone_from(&rule.notify);
        // The next column that drifts is told of in the same alert.
        if !alert.firing || rule.when == AlertKind::Drift {
            alert.summary = summary;
        }
        if !alert.firing && alert.held_ms >= rule.for_s.saturating_mul(1_000) {
            (alert.firing, alert.since_unix_ms) = (true, now_unix_ms);
        }
    }

    fn over(&mut self, id: &str, now_unix_ms: i64, notices: &mut Vec<Notice>) {
        let Some(alert) = self.all.remove(id) else { return };
        if alert.told {
            let mut view = self.view(id, &alert, now_unix_ms);
            (view.state, view.since_unix_ms) = (AlertState::Resolved, now_unix_ms);
            notices.push(Notice {
                alert: view,
                notify: alert.notify,
            });
        }
    }

    fn tell(&mut self, now_unix_ms: i64, notices: &mut Vec<Notice>) {
        let untold: Vec<String> = self
            .all
            .iter()
            .filter(|(id, alert)| alert.firing && !alert.told && !self.silences.contains_key(*id))
            .map(|(id, _)| id.clone())
            .collect();
        for id in untold {
            if let Some(alert) = self.all.get_mut(&id) {
                alert.told = true;
                let (alert, notify) = (alert.clone(), alert.notify.clone());
                notices.push(Notice {
                    alert: self.view(&id, &alert, now_unix_ms),
                    notify,
                });
            }
        }
    }

    /// Tells nobody of an alert for a while; 0 seconds end a silence. The error says what is wrong.
    pub fn silence(&mut self, id: &str, for_s: u64, reason: &str, now_unix_ms: i64) -> Result<(), String> {
        if for_s == 0 {
            return match self.silences.remove(id) {
                Some(_) => Ok(()),
                None => Err(format!("'{id}' is not silenced")),
            };
        }
        if reason.trim().is_empty() || reason.len() > REASON_BYTES_MAX {
            return Err(format!("a silence needs a reason, of at most {REASON_BYTES_MAX} bytes"));
        }
        if for_s > SILENCE_S_MAX {
            return Err(format!("a silence lasts at most {} days", SILENCE_S_MAX / 86_400));
        }
        if self.silences.len() >= SILENCES_MAX && !self.silences.contains_key(id) {
            return Err(format!("there are {SILENCES_MAX} silences already"));
        }
        let until_unix_ms = now_unix_ms.saturating_add_unsigned(for_s.saturating_mul(1_000));
        self.silences.insert(
            id.to_string(),
            Silence {
                until_unix_ms,
                reason: reason.trim().to_string(),
            },
        );
        Ok(())
    }

    /// Whether there is an alert of that id.
    pub fn contains(&self, id: &str) -> bool {
        self.all.contains_key(id) || self.silences.contains_key(id)
    }

    /// What an alert is about; `None` when there is only a silence of that id, or nothing.
    pub fn subject(&self, id: &str) -> Option<&str> {
        self.all.get(id).map(|alert| alert.subject.as_str())
    }

    /// Pending and firing ones: firing first, then the worst, then the oldest.
    pub fn views(&self, now_unix_ms: i64) -> Vec<AlertView> {
        let mut views: Vec<_> = self
            .all
            .iter()
            .map(|(id, alert)| self.view(id, alert, now_unix_ms))
            .collect();
        views.sort_by_key(|view| {
            let is_pending = view.state == AlertState::Pending;
            (is_pending, std::cmp::Reverse(view.severity), view.since_unix_ms)
        });
        views
    }

    fn view(&self, id: &str, alert: &Alert, now_unix_ms: i64) -> AlertView {
        let silence = self
            .silences
            .get(id)
            .filter(|silence| silence.until_unix_ms > now_unix_ms);
        AlertView {
            id: id.to_string(),
            rule: alert.rule.clone(),
            subject: alert.subject.clone(),
            severity: alert.severity,
            state: if alert.firing {
                AlertState::Firing
            } else {
                AlertState::Pending
            },
            since_unix_ms: alert.since_unix_ms,
            summary: alert.summary.clone(),
            silenced_until_unix_ms: silence.map_or(0, |silence| silence.until_unix_ms),
            silence_reason: silence.map_or(String::new(), |silence| silence.reason.clone()),
        }
    }
}

/// When a rule would have fired: `history` is what was so, step by step, oldest first, every `step_s` seconds.
pub fn preview(
    rule: &AlertRule,
    history: &BTreeMap<i64, BTreeMap<String, Values>>,
    scope: &dyn Scope,
    step_s: u64,
) -> Vec<Fired> {
    let mut fired: Vec<Fired> = Vec::new();
    let rule = AlertRule {
        enabled: true,
        ..rule.clone()
    };
    let (mut alerts, step_ms) = (Alerts::default(), step_s.saturating_mul(1_000));
    for (at_unix_ms, values) in history {
        // Coarse steps count whole here: history says that it was so all the time.
        let mut left = step_ms;
        while left > 0 {
            let part = left.min(STEP_MS_MAX);
            left -= part;
            let now = at_unix_ms.saturating_add_unsigned(step_ms - left - part);
            for Notice { alert, .. } in alerts.step(std::slice::from_ref(&rule), values, scope, part, now) {
                match alert.state {
                    AlertState::Firing => fired.push(Fired {
                        subject: alert.subject,
                        from_unix_ms: now,
                        to_unix_ms: None,
                    }),
                    _ => {
                        let open = fired.iter_mut().rev().find(|fired| fired.subject == alert.subject);
                        if let Some(open) = open {
                            open.to_unix_ms = Some(now);
                        }
                    }
                }
            }
        }
    }
    fired
}

#[cfg(test)]
#[path = "alerts_tests.rs"]
mod tests;
