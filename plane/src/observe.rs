//! Watching over the fleet: once a step it reads everything, keeps it in the history, and looks at the alerts' rules.
//! The rim around `domain::{readings, history, alerts}`; tells nobody itself, see `notify`.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bus_schema::{
    api::{ApiResult, DaemonView, DriftView, FailureKind, WorkflowView},
    observe::{AlertRule, ObserveCall, ObserveResult, POINTS_MAX, Series},
};
use serde_json::json;
use tokio::sync::Notify;
use tracing::{error, info, warn};

use crate::{
    api::failed,
    audit::Entry,
    disk::{Closed, Disk},
    domain::{
        Now, State,
        alerts::{self, Alerts, Notice, Scope, Values},
        history::RESOLUTIONS,
        readings::{self, Gatherer},
        sight::Sight,
    },
};

/// Longest preview, in seconds.
const PREVIEW_S_MAX: u64 = 31 * 86_400;
/// Most subjects that a preview looks at.
const PREVIEW_SUBJECTS_MAX: usize = 500;
/// Most times a preview tells.
const FIRED_MAX: usize = 1_000;

/// What watches.
#[derive(Debug)]
pub struct Observer {
    gatherer: Gatherer,
    alerts: Alerts,
    own_rules: Vec<AlertRule>,
    rules: Vec<AlertRule>,
    channels: Vec<String>,
    wake: Arc<Notify>,
    /// Since when the step lasts, by the wall clock in steps and by the plane's own count.
    step: Option<(i64, u64)>,
    /// Rules of which it was said that nobody knows whom they are about.
    unread: BTreeSet<String>,
}

/// Where daemons are, and whom the rules' selectors choose.
struct Placed<'a> {
    workflows: BTreeMap<&'a str, &'a [String]>,
    chosen: BTreeMap<&'a str, BTreeSet<String>>,
    /// Rules whose selector cannot be read, and why: of another version, or a group in it is gone.
    unread: Vec<(&'a str, String)>,
    drifts: BTreeMap<String, DriftView>,
}

impl Scope for Placed<'_> {
    fn daemons_of(&self, workflow: &str) -> Vec<&str> {
        let daemons = self.workflows.get(workflow).copied().unwrap_or_default();
        daemons.iter().map(String::as_str).collect()
    }

    fn chooses(&self, selector: &str, daemon: &str) -> bool {
        self.chosen.get(selector).is_some_and(|chosen| chosen.contains(daemon))
    }

    fn knows(&self, selector: &str) -> bool {
        self.chosen.contains_key(selector)
    }

    fn drift(&self, workflow: &str) -> Option<&str> {
        self.drifts.get(workflow).map(|drift| drift.what.as_str())
    }
}

impl<'a> Placed<'a> {
    fn new(state: &State, rules: &'a [AlertRule], workflows: &'a [WorkflowView], now: Now) -> Self {
        let (mut chosen, mut unread) = (BTreeMap::new(), Vec::new());
        for rule in rules.iter().filter(|rule| !rule.select.is_empty()) {
            match state.groups.parse(&rule.select) {
                Ok(selector) => {
                    let views: Vec<DaemonView> = state.chosen(&selector, now);
                    chosen.insert(rule.select.as_str(), views.into_iter().map(|view| view.name).collect());
                }
                Err(cause) => unread.push((rule.name.as_str(), cause)),
            }
        }
        Self {
            workflows: workflows
                .iter()
                .map(|one| (one.name.as_str(), &one.daemons[..]))
                .collect(),
            chosen,
            unread,
            drifts: state.drifts(now),
        }
    }
}

fn observed(result: ObserveResult) -> ApiResult {
    ApiResult::Observe(result)
}

fn invalid(message: impl Into<String>, hint: &str) -> ApiResult {
    failed(FailureKind::Invalid, message, hint)
}

fn store_failed(cause: &dyn std::fmt::Display) -> ApiResult {
    failed(
        FailureKind::Internal,
        cause.to_string(),
        "look at the plane's log and its disk",
    )
}

fn no_history(subject: &str) -> ApiResult {
    let subject: String = subject.chars().take(100).collect();
    let hint = "a subject is daemon:NAME, workflow:NAME, node:WORKFLOW/NODE or stream:WORKFLOW/EDGE; history begins after ten seconds";
    let message = format!("there is no such history of '{subject}'");
    failed(FailureKind::NotFound, message, hint)
}

fn no_alert(id: &str) -> ApiResult {
    let id: String = id.chars().take(64).collect();
    let hint = "see: mycelial alert list";
    failed(FailureKind::NotFound, format!("there is no alert '{id}'"), hint)
}

/// A notice as it is sent.
fn body(fleet: &str, notice: &Notice) -> String {
    let mut body = serde_json::to_value(&notice.alert).unwrap_or_default();
    body["fleet"] = json!(fleet);
    body["version"] = json!(1);
    body.to_string()
}

impl Observer {
    /// As it was left.
    pub fn new(own_rules: Vec<AlertRule>, alerts: Alerts, channels: Vec<String>, wake: Arc<Notify>) -> Self {
        Self {
            gatherer: Gatherer::default(),
            alerts,
            rules: alerts::all_rules(&own_rules),
            own_rules,
            channels,
            wake,
            step: None,
            unread: BTreeSet::new(),
        }
    }

    /// The rules in force: an operator's, and those that come with the plane.
    pub fn rules(&self) -> &[AlertRule] {
        &self.rules
    }

    /// How many alerts fire and were not silenced.
    pub fn firing(&self, now: Now) -> usize {
        let views = self.alerts.views(now.unix_ms);
        let fires = |view: &&bus_schema::observe::AlertView| {
            view.state == bus_schema::observe::AlertState::Firing && view.silenced_until_unix_ms == 0
        };
        views.iter().filter(fires).count()
    }

    /// Time has passed. At the end of a step everything is read once.
    pub async fn tick(&mut self, state: &mut State, disk: &Disk, now: Now) -> Result<(), Closed> {
        let step_ms = RESOLUTIONS[0].step_s * 1_000;
        let step = now.unix_ms.div_euclid(i64::try_from(step_ms).unwrap_or(i64::MAX));
        let Some((last, since_ms)) = self.step else {
            self.step = Some((step, now.mono_ms));
            return Ok(());
        };
        if step == last {
            return Ok(());
        }
        self.step = Some((step, now.mono_ms));
        let (daemons, workflows) = (state.daemon_views(now), state.workflow_views(now));
        let streams = state.stream_views(None, now);
        let facts = |node: &_| {
            let daemon = state.daemon(node);
            let boot = daemon.and_then(|daemon| daemon.last()).map_or(0, |last| last.boot);
            (boot, daemon.is_some_and(|daemon| daemon.is_cloned(now.mono_ms)))
        };
        let mut readings = self.gatherer.gather(&daemons, facts, &workflows, &streams);
        drop((daemons, streams));
        let growth = state.nodes.take_growth(now.mono_ms);
        readings.extend(readings::of_nodes(&growth, |id| state.workflow_name(id)));
        let scope = Placed::new(state, &self.rules, &workflows, now);
        readings.extend(readings::of_drifts(&scope.drifts));
        let mut values = alerts::values(&readings, RESOLUTIONS[0].step_s);
        values.extend(alerts::of_rollouts(state.rollouts.standing(now.mono_ms)));
        let heard = workflows.iter().filter(|workflow| workflow.state.is_some());
        alerts::without_drift(&mut values, heard.map(|workflow| workflow.name.as_str()));
        let before = self.alerts.clone();
        let held_ms = now.mono_ms.saturating_sub(since_ms);
        for (rule, cause) in &scope.unread {
            // Said once, though it is so step by step.
            if !self.unread.contains(*rule) {
                warn!(
                    rule,
                    cause, "an alert rule watches nobody until its selector is mended: mycelial alert apply"
                );
            }
        }
        self.unread = scope.unread.iter().map(|(rule, _)| (*rule).to_string()).collect();
        let notices = self.alerts.step(&self.rules, &values, &scope, held_ms, now.unix_ms);
        for Notice { alert, .. } in &notices {
            info!(alert = alert.id, rule = alert.rule, subject = alert.subject, state = ?alert.state, "{}", alert.summary);
        }
        let deliveries = self.deliveries(&state.fleet.to_string(), &notices);
        let changed = (self.alerts != before).then(|| self.alerts.clone());
        let now_s = u64::try_from(now.unix_ms / 1_000).unwrap_or(0);
        let told = !deliveries.is_empty();
        let written = disk.run(move |files| {
            if let Err(cause) = files.history.write(&readings, now_s) {
                warn!(%cause, "cannot keep a step of the history");
            }
            match changed {
                Some(alerts) => files.store.save_alerts(&alerts, &deliveries, None, now.unix_ms),
                None => Ok(0),
            }
        });
        match written.await? {
            Ok(0) => {}
            Ok(count) => warn!(
                count,
                "too many messages about alerts wait to be delivered; the oldest were given up"
            ),
            Err(cause) => {
                // Found out again in the next step, so that nothing is told that is not durable.
                error!(%cause, "cannot store alerts");
                self.alerts = before;
            }
        }
        if told {
            self.wake.notify_one();
        }
        Ok(())
    }

    fn deliveries(&self, fleet: &str, notices: &[Notice]) -> Vec<(String, String)> {
        let mut all = Vec::new();
        for notice in notices {
            let body = body(fleet, notice);
            for channel in &self.channels {
                if notice.notify.is_empty() || notice.notify.contains(channel) {
                    all.push((channel.clone(), body.clone()));
                }
            }
        }
        all
    }

    /// Alerts that are seen.
    fn shown(&self, state: &State, sight: &Sight, now: Now) -> ApiResult {
        let mut views = self.alerts.views(now.unix_ms);
        views.retain(|view| sight.shows(state, &view.subject));
        observed(ObserveResult::Alerts(views))
    }

    /// Answers an operator, who sees so much of the fleet. `entry` is what the audit says of a change; it stands there with it.
    pub async fn call(
        &mut self,
        call: ObserveCall,
        (state, sight): (&State, &Sight),
        entry: &mut Entry,
        disk: &Disk,
        now: Now,
    ) -> Result<ApiResult, Closed> {
        Ok(match call {
            ObserveCall::Series {
                subject,
                metric,
                from_unix_ms,
                to_unix_ms,
            } => match sight.shows(state, &subject) {
                true => series(disk, subject, metric, (from_unix_ms, to_unix_ms), now).await?,
                false => no_history(&subject),
            },
            ObserveCall::Alerts => self.shown(state, sight, now),
            ObserveCall::Rules => observed(ObserveResult::Rules(self.rules.clone())),
            ObserveCall::PutRules(rules) => self.put_rules(rules, state, entry, disk).await?,
            ObserveCall::Silence { id, for_s, reason } => {
                let is_there = match self.alerts.subject(&id) {
                    Some(about) => sight.shows(state, about),
                    // Its alert is over: nobody knows any more whose it was.
                    None => sight.is_whole() && self.alerts.contains(&id),
                };
                match is_there {
                    true => match self.silence((&id, for_s, &reason), entry, disk, now).await? {
                        Ok(()) => self.shown(state, sight, now),
                        Err(failed) => failed,
                    },
                    false => no_alert(&id),
                }
            }
            ObserveCall::Preview { rule, last_s } => self.preview(rule, last_s, state, disk, now).await?,
            ObserveCall::Test { channel } => self.test(channel, state, entry, disk, now).await?,
        })
    }

    async fn put_rules(
        &mut self,
        rules: Vec<AlertRule>,
        state: &State,
        entry: &mut Entry,
        disk: &Disk,
    ) -> Result<ApiResult, Closed> {
        let selects = |text: &str| state.groups.parse(text).map(drop);
        if let Some(wrong) = alerts::mistake(&rules, &self.channels, selects) {
            return Ok(invalid(wrong, "see: mycelial alert apply --help"));
        }
        // Whoever sends back all that they were shown means no rules of their own by those that come with the plane.
        let rules: Vec<AlertRule> = rules.into_iter().filter(|rule| !alerts::is_built_in(rule)).collect();
        let (kept, event) = (rules.clone(), entry.event());
        Ok(
            match disk.run(move |files| files.store.save_rules(&kept, event)).await? {
                Ok(()) => {
                    entry.written();
                    info!(rules = rules.len(), "took new alert rules");
                    self.rules = alerts::all_rules(&rules);
                    self.own_rules = rules;
                    observed(ObserveResult::Rules(self.rules.clone()))
                }
                Err(cause) => store_failed(&cause),
            },
        )
    }

    async fn silence(
        &mut self,
        (id, for_s, reason): (&str, u64, &str),
        entry: &mut Entry,
        disk: &Disk,
        now: Now,
    ) -> Result<Result<(), ApiResult>, Closed> {
        let before = self.alerts.clone();
        if let Err(wrong) = self.alerts.silence(id, for_s, reason, now.unix_ms) {
            return Ok(Err(invalid(wrong, "")));
        }
        let (kept, event) = (self.alerts.clone(), entry.event());
        let saved = disk.run(move |files| files.store.save_alerts(&kept, &[], event, now.unix_ms));
        Ok(match saved.await? {
            Ok(_) => {
                entry.written();
                Ok(())
            }
            Err(cause) => {
                self.alerts = before;
                Err(store_failed(&cause))
            }
        })
    }

    async fn preview(
        &self,
        rule: AlertRule,
        last_s: u64,
        state: &State,
        disk: &Disk,
        now: Now,
    ) -> Result<ApiResult, Closed> {
        let selects = |text: &str| state.groups.parse(text).map(drop);
        if let Some(wrong) = alerts::mistake(std::slice::from_ref(&rule), &self.channels, selects) {
            return Ok(invalid(wrong, ""));
        }
        let last_s = last_s.clamp(1, PREVIEW_S_MAX);
        let (prefix, metrics) = alerts::looks_at(rule.when);
        let now_s = u64::try_from(now.unix_ms / 1_000).unwrap_or(0);
        let found = disk.run(move |files| {
            let mut all: Vec<Series> = Vec::new();
            let subjects = files.history.subjects()?;
            for subject in subjects
                .iter()
                .filter(|subject| subject.starts_with(prefix))
                .take(PREVIEW_SUBJECTS_MAX)
            {
                for metric in metrics {
                    let span = (now_s.saturating_sub(last_s), now_s);
                    let series = files.history.read(subject, Some(metric), span, now_s, POINTS_MAX)?;
                    all.extend(series.into_iter().flatten());
                }
            }
            Ok::<_, crate::store::StoreError>(all)
        });
        let series = match found.await? {
            Ok(series) => series,
            Err(cause) => return Ok(store_failed(&cause)),
        };
        let step_s = series.first().map_or(RESOLUTIONS[0].step_s, |series| series.step_s);
        let mut history: BTreeMap<i64, BTreeMap<String, Values>> = BTreeMap::new();
        for series in &series {
            let Some(name) = metrics.iter().find(|name| **name == series.metric) else {
                continue;
            };
            for point in &series.points {
                let value = if alerts::less_is_worse(name) {
                    point.min_milli
                } else {
                    point.max_milli
                };
                let values = history.entry(point.at_unix_ms).or_default();
                values.entry(series.subject.clone()).or_default().insert(name, value);
            }
        }
        let (rules, workflows) = ([rule], state.workflow_views(now));
        let scope = Placed::new(state, &rules, &workflows, now);
        let mut fired = alerts::preview(&rules[0], &history, &scope, step_s);
        fired.truncate(FIRED_MAX);
        Ok(observed(ObserveResult::Preview(fired)))
    }

    async fn test(
        &self,
        channel: String,
        state: &State,
        entry: &mut Entry,
        disk: &Disk,
        now: Now,
    ) -> Result<ApiResult, Closed> {
        if !self.channels.contains(&channel) {
            let channel: String = channel.chars().take(64).collect();
            let hint = match &self.channels[..] {
                [] => "name one in plane.toml: [[alerts.webhook]], [[alerts.email]] or [[alerts.bus]]".to_string(),
                known => format!("plane.toml names: {}", known.join(", ")),
            };
            return Ok(failed(
                FailureKind::NotFound,
                format!("there is no channel '{channel}'"),
                hint,
            ));
        }
        let text = json!({
            "version": 1, "fleet": state.fleet, "id": "test", "rule": "test", "subject": "plane", "severity": "info",
            "state": "firing", "since_unix_ms": now.unix_ms, "summary": "a test of this channel; nothing is wrong",
        });
        let (alerts, deliveries) = (self.alerts.clone(), vec![(channel.clone(), text.to_string())]);
        let event = entry.event();
        Ok(
            match disk
                .run(move |files| files.store.save_alerts(&alerts, &deliveries, event, now.unix_ms))
                .await?
            {
                Ok(_) => {
                    entry.written();
                    self.wake.notify_one();
                    observed(ObserveResult::Sent(channel))
                }
                Err(cause) => store_failed(&cause),
            },
        )
    }
}

async fn series(
    disk: &Disk,
    subject: String,
    metric: Option<String>,
    (from_unix_ms, to_unix_ms): (i64, i64),
    now: Now,
) -> Result<ApiResult, Closed> {
    let seconds = |unix_ms: i64| u64::try_from(unix_ms / 1_000).unwrap_or(0);
    let (from_s, to_s, now_s) = (seconds(from_unix_ms), seconds(to_unix_ms), seconds(now.unix_ms));
    if from_s >= to_s {
        return Ok(invalid("the time span ends before it begins", ""));
    }
    let asked = subject.clone();
    let found = disk.run(move |files| {
        // Nothing is known of the future; and a span without end would have no fitting resolution.
        let span = (from_s, to_s.min(now_s + RESOLUTIONS[0].step_s));
        files.history.read(&asked, metric.as_deref(), span, now_s, POINTS_MAX)
    });
    Ok(match found.await? {
        Ok(Some(series)) => observed(ObserveResult::Series(series)),
        Ok(None) => no_history(&subject),
        Err(cause) => store_failed(&cause),
    })
}
