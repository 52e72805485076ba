//! `mycelial metrics` and `mycelial alert`: the fleet over time.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bus_schema::{
    api::{ApiCall, ApiResult, Failure, FailureKind},
    observe::{
        AlertKind, AlertRule, AlertState, AlertView, Fired, ObserveCall, ObserveResult, Series, Severity,
        built_in_rules,
    },
};
use clap::Subcommand;
use serde::Deserialize;
use serde_json::json;

use crate::{
    answer::Answer,
    arguments::{Output, duration_s},
    ask::sure,
    client::{CliError, Client},
    names,
    narrow::Chosen,
    render::{self, table},
};

/// Columns of a sparkline.
const SPARKS: usize = 40;

/// How far back, and which of it.
#[derive(Debug, Clone, clap::Args)]
pub struct Span {
    /// How far back: 90s, 30m, 24h, 7d.
    #[arg(long, default_value = "1h", value_parser = duration_s, value_name = "TIME")]
    pub last: u64,
    /// Only this metric.
    #[arg(long, value_name = "NAME")]
    pub metric: Option<String>,
}

/// `mycelial metrics`
#[derive(Debug, Subcommand)]
pub enum Metrics {
    /// What a daemon used, what went through its streams, and whether it was there.
    Daemon {
        /// Its name.
        #[arg(add = names::daemons())]
        name: String,
        #[command(flatten)]
        span: Span,
    },
    /// What went through a workflow, all its streams together.
    Workflow {
        /// Its name.
        #[arg(add = names::workflows())]
        name: String,
        #[command(flatten)]
        span: Span,
    },
    /// What one node of a workflow did, on all its daemons together.
    Node {
        /// WORKFLOW/NODE, as `mycelial workflow nodes orders -o name` prints it.
        name: String,
        #[command(flatten)]
        span: Span,
    },
    /// What went through one stream.
    Stream {
        /// WORKFLOW/EDGE, as `mycelial ledger -o name` prints it.
        #[arg(add = names::streams())]
        name: String,
        #[command(flatten)]
        span: Span,
    },
}

const RULES: &str = "\
A file of rules:

  [[rule]]
  name = \"berlin-offline\"
  when = \"offline\"        # offline, lag, errors, buffer_fill, dead_letters, disk_free, failing, plan_stuck, cloned,
                          # rollout_stuck, drift
  over = 0                # lag, rollout_stuck, drift: seconds; errors: records a minute; buffer_fill: percent; disk_free: MiB, and under it
  for = \"5m\"
  severity = \"critical\"   # info, warning, critical
  select = \"site=berlin\"  # only these daemons
  workflow = \"\"           # only this workflow
  notify = [\"ops\"]        # channels of plane.toml; all by default

A rule with the name of one that comes with the plane replaces it; enabled = false switches it off.
All rules that are not in the file are forgotten, and those that come with the plane are again as they came: it names them, and asks.";

/// `mycelial alert`
#[derive(Debug, Subcommand)]
pub enum Alert {
    /// What is wrong now, and what may become so.
    List {
        /// Only about daemons that this chooses, and workflows that run on one of them.
        #[arg(short = 'l', long, value_name = "SELECTOR", add = names::selectors(), allow_hyphen_values = true)]
        select: Option<String>,
    },
    /// All rules, those that come with the plane too.
    Rules,
    /// Take the rules of a file, and forget all others; --preview only says when they would have fired.
    #[command(after_help = RULES)]
    Apply {
        /// TOML file; `-` reads stdin.
        file: PathBuf,
        /// Change nothing; say when each rule would have fired in the last 24h, 7d.
        #[arg(long, value_name = "TIME", value_parser = duration_s)]
        preview: Option<u64>,
        /// Do not ask.
        #[arg(long, conflicts_with = "preview")]
        yes: bool,
    },
    /// Tell nobody of an alert for a while.
    Silence {
        /// Its id, as the list shows it.
        #[arg(add = names::alerts())]
        id: String,
        /// For how long: 30m, 2h, 7d.
        #[arg(long = "for", default_value = "2h", value_parser = duration_s, value_name = "TIME")]
        for_s: u64,
        /// Why.
        #[arg(long, required_unless_present = "end")]
        reason: Option<String>,
        /// End a silence.
        #[arg(long, conflicts_with = "reason")]
        end: bool,
    },
    /// Send a message to a channel of plane.toml, to see whether it arrives.
    Test {
        /// The channel.
        channel: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RulesFile {
    #[serde(default)]
    rule: Vec<RuleText>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleText {
    name: String,
    when: AlertKind,
    #[serde(default)]
    over: u64,
    #[serde(default, rename = "for")]
    held: Option<String>,
    #[serde(default = "warning")]
    severity: Severity,
    #[serde(default)]
    select: String,
    #[serde(default)]
    workflow: String,
    #[serde(default)]
    notify: Vec<String>,
    #[serde(default = "yes")]
    enabled: bool,
}

fn warning() -> Severity {
    Severity::Warning
}

fn yes() -> bool {
    true
}

fn invalid(message: String) -> CliError {
    CliError::Refused(Failure {
        kind: FailureKind::Invalid,
        message,
        hint: "mycelial alert apply --help shows a file of rules".to_string(),
        problems: Vec::new(),
    })
}

/// Rules out of a file's text.
fn rules_of(file: &str, text: &str) -> Result<Vec<AlertRule>, CliError> {
    let RulesFile { rule } = bus_link::settings::parse(file, text).map_err(|error| invalid(error.to_string()))?;
    let one = |rule: RuleText| {
        let held = rule.held.as_deref().map_or(Ok(0), duration_s);
        let for_s = held.map_err(|wrong| invalid(format!("{file}: rule '{}': for: {wrong}", rule.name)))?;
        Ok(AlertRule {
            name: rule.name,
            when: rule.when,
            over: rule.over,
            for_s,
            severity: rule.severity,
            select: rule.select,
            workflow: rule.workflow,
            notify: rule.notify,
            enabled: rule.enabled,
        })
    };
    rule.into_iter().map(one).collect()
}

fn read(file: &Path) -> Result<(String, String), CliError> {
    let name = file.display().to_string();
    let text = match name.as_str() {
        "-" => std::io::read_to_string(std::io::stdin()),
        _ => fs::read_to_string(file),
    };
    let text = text.map_err(|error| CliError::Usage(format!("cannot read {name}: {error}")))?;
    Ok((name, text))
}

async fn ask(dir: &Path, timeout: Duration, calls: Vec<ObserveCall>) -> Result<Vec<ObserveResult>, CliError> {
    let client = Client::connect(dir, timeout, Vec::new()).await?;
    let mut results = Vec::new();
    let mut failed = None;
    for call in calls {
        match client.call(&ApiCall::Observe(call)).await {
            Ok(ApiResult::Observe(result)) => results.push(result),
            Ok(_) => failed = Some(CliError::Failed("the plane answered something else".to_string())),
            Err(error) => failed = Some(error),
        }
        if failed.is_some() {
            break;
        }
    }
    client.close().await;
    failed.map_or(Ok(results), Err)
}

fn now_unix_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// `mycelial metrics`
pub async fn metrics(dir: &Path, timeout: Duration, output: Output, what: Metrics) -> Result<(), CliError> {
    let (subject, span) = match what {
        Metrics::Daemon { name, span } => (format!("daemon:{name}"), span),
        Metrics::Workflow { name, span } => (format!("workflow:{name}"), span),
        Metrics::Node { name, span } => (format!("node:{name}"), span),
        Metrics::Stream { name, span } => (format!("stream:{name}"), span),
    };
    let now = now_unix_ms();
    let call = ObserveCall::Series {
        subject,
        metric: span.metric,
        from_unix_ms: now.saturating_sub_unsigned(span.last.saturating_mul(1_000)),
        to_unix_ms: now,
    };
    for result in ask(dir, timeout, vec![call]).await? {
        print(output, &result);
    }
    Ok(())
}

/// `mycelial alert`
pub async fn alert(dir: &Path, timeout: Duration, output: Output, what: Alert) -> Result<(), CliError> {
    let call = match what {
        Alert::List { select } => return list(dir, timeout, output, select).await,
        Alert::Rules => ObserveCall::Rules,
        Alert::Silence { id, for_s, reason, end } => ObserveCall::Silence {
            id,
            for_s: if end { 0 } else { for_s },
            reason: reason.unwrap_or_default(),
        },
        Alert::Test { channel } => ObserveCall::Test { channel },
        Alert::Apply { file, preview, yes } => {
            let (name, text) = read(&file)?;
            let rules = rules_of(&name, &text)?;
            let Some(last_s) = preview else {
                let before = ask(dir, timeout, vec![ObserveCall::Rules]).await?;
                if let [ObserveResult::Rules(before)] = &before[..]
                    && let Some(question) = forgets(before, &rules)
                {
                    sure(&question, yes)?;
                    // The question may have stood for long.
                    if ask(dir, timeout, vec![ObserveCall::Rules]).await?[..] != [ObserveResult::Rules(before.clone())]
                    {
                        return Err(CliError::Refused(Failure {
                            kind: FailureKind::Conflict,
                            message: "the rules were changed meanwhile; nothing was changed here".to_string(),
                            hint: "see: mycelial alert rules".to_string(),
                            problems: Vec::new(),
                        }));
                    }
                }
                let results = ask(dir, timeout, vec![ObserveCall::PutRules(rules)]).await?;
                results.iter().for_each(|result| print(output, result));
                return Ok(());
            };
            let names: Vec<String> = rules.iter().map(|rule| rule.name.clone()).collect();
            let calls = rules
                .into_iter()
                .map(|rule| ObserveCall::Preview { rule, last_s })
                .collect();
            let results = ask(dir, timeout, calls).await?;
            let fired = names.iter().zip(&results).flat_map(|(name, result)| match result {
                ObserveResult::Preview(fired) => fired.iter().map(|fired| (name.as_str(), fired)).collect(),
                _ => Vec::new(),
            });
            previewed(output, &fired.collect::<Vec<_>>());
            return Ok(());
        }
    };
    for result in ask(dir, timeout, vec![call]).await? {
        print(output, &result);
    }
    Ok(())
}

/// What would be lost when `rules` take the place of those before, as a question; `None` when nothing is.
fn forgets(before: &[AlertRule], rules: &[AlertRule]) -> Option<String> {
    let built_in = built_in_rules();
    let own = before.iter().filter(|rule| !built_in.contains(rule));
    let lost = own.filter(|rule| !rules.iter().any(|new| new.name == rule.name));
    let (again, gone): (Vec<_>, Vec<_>) =
        lost.partition(|rule| built_in.iter().any(|original| original.name == rule.name));
    let names = |rules: &[&AlertRule]| {
        rules
            .iter()
            .map(|rule| rule.name.as_str())
            .collect::<Vec<_>>()
            .join(", ")
    };
    let mut what = Vec::new();
    if !gone.is_empty() {
        what.push(format!("forget what is not in the file: {}", names(&gone)));
    }
    if !again.is_empty() {
        what.push(format!("have again as it comes with the plane: {}", names(&again)));
    }
    (!what.is_empty()).then(|| format!("{}?", what.join("; and ")))
}

async fn list(dir: &Path, timeout: Duration, output: Output, select: Option<String>) -> Result<(), CliError> {
    let client = Client::connect(dir, timeout, Vec::new()).await?;
    let asked = async {
        let chosen = Chosen::by(&client, select).await?;
        match client.call(&ApiCall::Observe(ObserveCall::Alerts)).await? {
            ApiResult::Observe(ObserveResult::Alerts(alerts)) => chosen.alerts(&client, alerts).await,
            _ => Err(CliError::Failed("the plane answered something else".to_string())),
        }
    };
    let answered = asked.await;
    client.close().await;
    print(output, &ObserveResult::Alerts(answered?));
    Ok(())
}

fn print(output: Output, result: &ObserveResult) {
    match result {
        ObserveResult::Series(series) => {
            let names = series.iter().map(|series| series.metric.clone());
            Answer::new(&data(series), names, lines(series)).print(output);
        }
        ObserveResult::Alerts(alerts) => {
            let names = alerts.iter().map(|alert| alert.id.clone());
            Answer::new(alerts, names, alerts_table(alerts)).print(output);
            if alerts.is_empty() {
                eprintln!("nothing is wrong");
            }
        }
        ObserveResult::Rules(rules) => {
            let names = rules.iter().map(|rule| rule.name.clone());
            Answer::new(rules, names, rules_table(rules)).print(output);
        }
        ObserveResult::Sent(channel) => {
            let text = format!("on its way to '{channel}'; if it does not arrive, the plane's log says why\n");
            Answer::new(&json!({ "channel": channel }), [channel.clone()], text).print(output);
        }
        ObserveResult::Preview(_) => {}
    }
}

fn previewed(output: Output, fired: &[(&str, &Fired)]) {
    let row = |(rule, fired): &(&str, &Fired)| {
        let until = fired.to_unix_ms.map_or("now".to_string(), render::clock_time);
        vec![
            rule.to_string(),
            fired.subject.clone(),
            render::clock_time(fired.from_unix_ms),
            until,
        ]
    };
    let rows: Vec<_> = fired.iter().map(row).collect();
    let data: Vec<_> = fired
        .iter()
        .map(|(rule, fired)| {
            json!({ "rule": rule, "subject": fired.subject, "from_unix_ms": fired.from_unix_ms, "to_unix_ms": fired.to_unix_ms })
        })
        .collect();
    let names = fired.iter().map(|(_, fired)| fired.subject.clone());
    Answer::new(
        &data,
        names,
        table(&["rule", "subject", "from (utc)", "until (utc)"], &rows),
    )
    .print(output);
}

/// Values in their units, for programs.
fn data(all: &[Series]) -> Vec<serde_json::Value> {
    let milli = |value: u64| value as f64 / 1e3;
    let one = |series: &Series| {
        let points: Vec<_> = series
            .points
            .iter()
            .map(|point| {
                json!({
                    "at_unix_ms": point.at_unix_ms,
                    "min": milli(point.min_milli), "mean": milli(point.mean_milli), "max": milli(point.max_milli),
                })
            })
            .collect();
        json!({
            "subject": series.subject, "metric": series.metric, "unit": series.unit, "step_s": series.step_s,
            "points": points,
        })
    };
    all.iter().map(one).collect()
}

/// A value as people read it.
fn amount(milli: u64, unit: &str) -> String {
    match unit {
        "bytes" => render::bytes(milli / 1_000),
        _ if milli.is_multiple_of(1_000) || milli >= 100_000 => {
            format!("{} {unit}", milli / 1_000).trim_end().to_string()
        }
        _ => format!("{:.1} {unit}", milli as f64 / 1e3).trim_end().to_string(),
    }
}

/// Means as a row of signs, from the lowest to the highest; a blank where nothing is known.
fn sparkline(series: &Series) -> String {
    const SIGNS: [char; 8] = ['_', '.', ':', '-', '=', '+', '*', '#'];
    let (Some(first), Some(last)) = (series.points.first(), series.points.last()) else {
        return String::new();
    };
    let step_ms = i64::try_from(series.step_s * 1_000).unwrap_or(i64::MAX);
    let steps = usize::try_from((last.at_unix_ms - first.at_unix_ms) / step_ms).unwrap_or(0) + 1;
    let columns = steps.min(SPARKS);
    let mut sums = vec![(0u128, 0u128); columns];
    for point in &series.points {
        let step = usize::try_from((point.at_unix_ms - first.at_unix_ms) / step_ms).unwrap_or(0);
        let (sum, count) = &mut sums[(step * columns / steps).min(columns - 1)];
        *sum += u128::from(point.mean_milli);
        *count += 1;
    }
    let means: Vec<Option<u128>> = sums
        .iter()
        .map(|(sum, count)| (*count > 0).then(|| sum / count))
        .collect();
    let known = means.iter().flatten();
    let (least, most) = (
        known.clone().min().copied().unwrap_or(0),
        known.max().copied().unwrap_or(0),
    );
    let sign = |mean: u128| match most - least {
        0 if mean == 0 => SIGNS[0],
        0 => SIGNS[3],
        spread => SIGNS[usize::try_from((mean - least) * 7 / spread).unwrap_or(0)],
    };
    means.iter().map(|mean| mean.map_or(' ', sign)).collect()
}

fn lines(all: &[Series]) -> String {
    let row = |series: &Series| {
        let last = series.points.last()?;
        let least = series.points.iter().map(|point| point.min_milli).min()?;
        let most = series.points.iter().map(|point| point.max_milli).max()?;
        let sum: u128 = series.points.iter().map(|point| u128::from(point.mean_milli)).sum();
        let mean = u64::try_from(sum / series.points.len() as u128).unwrap_or(u64::MAX);
        let [last, least, mean, most] = [last.mean_milli, least, mean, most].map(|value| amount(value, &series.unit));
        Some(vec![
            series.metric.clone(),
            format!("|{}|", sparkline(series)),
            last,
            least,
            mean,
            most,
        ])
    };
    let rows: Vec<_> = all.iter().filter_map(row).collect();
    table(&["metric", "over time", "now", "least", "mean", "most"], &rows)
}

fn severity(severity: Severity) -> &'static str {
    match severity {
        Severity::Info => "info",
        Severity::Warning => "warning",
        Severity::Critical => "critical",
    }
}

fn alerts_table(alerts: &[AlertView]) -> String {
    let row = |alert: &AlertView| {
        let state = match alert.state {
            AlertState::Pending => "pending",
            AlertState::Firing => "firing",
            AlertState::Resolved => "resolved",
        };
        let silenced = match alert.silenced_until_unix_ms {
            0 => String::new(),
            until => format!("until {}: {}", render::clock_time(until), alert.silence_reason),
        };
        vec![
            alert.id.clone(),
            state.to_string(),
            severity(alert.severity).to_string(),
            alert.rule.clone(),
            render::clock_time(alert.since_unix_ms),
            alert.summary.clone(),
            silenced,
        ]
    };
    table(
        &["id", "state", "severity", "rule", "since (utc)", "what", "silenced"],
        &alerts.iter().map(row).collect::<Vec<_>>(),
    )
}

fn rules_table(rules: &[AlertRule]) -> String {
    let row = |rule: &AlertRule| {
        let when = serde_json::to_value(rule.when)
            .ok()
            .and_then(|when| when.as_str().map(str::to_string));
        vec![
            rule.name.clone(),
            when.unwrap_or_default(),
            rule.over.to_string(),
            render::ago(rule.for_s.saturating_mul(1_000)),
            severity(rule.severity).to_string(),
            rule.select.clone(),
            rule.workflow.clone(),
            if rule.notify.is_empty() {
                "all".to_string()
            } else {
                rule.notify.join(", ")
            },
            if rule.enabled { "yes" } else { "no" }.to_string(),
        ]
    };
    table(
        &[
            "name", "when", "over", "for", "severity", "select", "workflow", "notify", "enabled",
        ],
        &rules.iter().map(row).collect::<Vec<_>>(),
    )
}

#[cfg(test)]
mod tests {
    use bus_schema::observe::Point;

    use super::*;

    fn series(values: &[(i64, u64)]) -> Series {
        let point = |(step, value): &(i64, u64)| Point {
            at_unix_ms: step * 10_000,
            min_milli: value * 1_000,
            mean_milli: value * 1_000,
            max_milli: value * 1_000,
        };
        Series {
            subject: "daemon:gw".into(),
            metric: "memory".into(),
            unit: "bytes".into(),
            step_s: 10,
            points: values.iter().map(point).collect(),
        }
    }

    #[test]
    fn sparklines() {
        for (values, line) in [
            (&[][..], ""),
            (&[(5, 0)], "_"),
            (&[(5, 7), (6, 7)], "--"),
            (&[(0, 0), (1, 7), (2, 0)], "_#_"),
            (&[(0, 0), (3, 7)], "_  #"),
        ] {
            assert_eq!(sparkline(&series(values)), line, "{values:?}");
        }
        let long: Vec<(i64, u64)> = (0..1_000).map(|n| (n, n as u64)).collect();
        assert_eq!(sparkline(&series(&long)).len(), SPARKS);
        let text = lines(&[series(&[(0, 2048), (1, 0)])]);
        assert!(
            text.contains("|#_|") && text.contains("1.0 KiB") && text.contains("2.0 KiB"),
            "{text}"
        );
    }

    #[test]
    fn what_is_lost_is_asked_for() {
        let rule = |name: &str, over| AlertRule {
            name: name.into(),
            over,
            ..built_in_rules()[1].clone()
        };
        let changed = rule("stream-lag", 5);
        let all = |own: &[AlertRule]| {
            let mut all = built_in_rules();
            all.retain(|one| !own.iter().any(|mine| mine.name == one.name));
            all.extend(own.iter().cloned());
            all
        };
        let (slow, late) = (rule("slow", 1), rule("late", 2));
        for (own, new, question) in [
            (vec![], vec![], None),
            (vec![], vec![slow.clone()], None),
            (vec![slow.clone()], vec![rule("slow", 9), late.clone()], None),
            (
                vec![slow.clone(), late.clone()],
                vec![],
                Some("forget what is not in the file: slow, late?"),
            ),
            (
                vec![changed.clone()],
                vec![slow.clone()],
                Some("have again as it comes with the plane: stream-lag?"),
            ),
            (
                vec![changed.clone(), slow.clone()],
                vec![late.clone()],
                Some("forget what is not in the file: slow; and have again as it comes with the plane: stream-lag?"),
            ),
            (vec![changed.clone()], vec![rule("stream-lag", 7)], None),
        ] {
            assert_eq!(forgets(&all(&own), &new).as_deref(), question, "{own:?} {new:?}");
        }
    }

    #[test]
    fn files_of_rules() {
        let rules = rules_of("r.toml", "[[rule]]\nname = 'a'\nwhen = 'lag'\nover = 60\nfor = '5m'\n").unwrap();
        assert_eq!((rules[0].for_s, rules[0].over, rules[0].enabled), (300, 60, true));
        for (text, part) in [
            (
                "[[rule]]\nname = 'a'\nwhen = 'lagg'",
                "r.toml:3: rule.when: unknown variant",
            ),
            (
                "[[rule]]\nname = 'a'\nwhen = 'lag'\nfro = '1m'",
                "r.toml:4: unknown field `fro`",
            ),
            ("[[rule]]\nname = 'a'\nwhen = 'lag'\nfor = 'long'", "rule 'a': for:"),
        ] {
            let error = rules_of("r.toml", text).unwrap_err();
            assert_eq!(error.exit_code(), 3);
            assert!(error.to_string().contains(part), "{error}");
        }
    }
}
