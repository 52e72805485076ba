//! Commands that daemons do at once: restart, pause, resume, log level, logs, diagnosis. Each daemon is asked by itself and
//! answers for itself; one that is silent holds up nobody and is named.

use std::{
    io::IsTerminal,
    path::{Path, PathBuf},
    time::Duration,
};

use bus_schema::{
    api::{ApiCall, ApiResult},
    control::{ControlCall, ControlResult, LogLine},
    id::NodeId,
};
use futures_util::{StreamExt as _, stream};
use serde::Serialize;
use tokio::time::{Instant, sleep};

use crate::{
    answer::{Answer, print_item},
    arguments::{Output, Part, Whom, duration_s},
    client::{CliError, Client},
    render,
    requests::find_daemon,
};

/// Most daemons that are asked at the same time.
const AT_ONCE_MAX: usize = 32;
/// Until a daemon that is at it is asked again.
const AGAIN: Duration = Duration::from_secs(1);
/// How often a followed log is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// How a command ended on one daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    Done,
    Failed,
    /// It was at it, and not done in time; the cause says what it waited for.
    TimedOut,
    /// No answer came: it may or may not have been done.
    Unknown,
}

#[derive(Debug, Serialize)]
struct Done {
    daemon: String,
    outcome: Outcome,
    workflows: Vec<String>,
    cause: String,
}

/// Which daemons, and how long what takes a while may take.
#[derive(Debug, Clone, clap::Args)]
pub struct Patient {
    #[command(flatten)]
    pub whom: Whom,
    /// How long to wait for the end of it: 90s, 10m, 2h.
    #[arg(long, default_value = "10m", value_parser = duration_s, value_name = "TIME")]
    pub wait_max: u64,
}

/// On which daemons.
pub enum Where {
    /// This one, by name or id.
    Daemon(String),
    /// All that a workflow runs on.
    Workflow(String),
    /// All that a selector chooses.
    Selector(String),
}

impl From<Whom> for Where {
    fn from(whom: Whom) -> Self {
        match (whom.name, whom.select) {
            (Some(name), _) => Where::Daemon(name),
            (None, select) => Where::Selector(select.unwrap_or_default()),
        }
    }
}

impl From<Part> for Where {
    fn from(part: Part) -> Self {
        part.daemon.map_or(Where::Workflow(part.name), Where::Daemon)
    }
}

async fn targets(client: &Client, place: Where) -> Result<Vec<(String, NodeId)>, CliError> {
    let names = match place {
        Where::Daemon(name) => vec![name],
        Where::Selector(selector) => return selected(client, selector).await,
        Where::Workflow(name) => match client.call(&ApiCall::WorkflowShow(name)).await? {
            ApiResult::Workflow { view, .. } => view.daemons,
            _ => return Err(CliError::Failed("the plane answered something else".to_string())),
        },
    };
    let mut found = Vec::new();
    for name in names {
        let node = find_daemon(client, &name).await?;
        found.push((name, node));
    }
    Ok(found)
}

async fn selected(client: &Client, selector: String) -> Result<Vec<(String, NodeId)>, CliError> {
    let other = || CliError::Failed("the plane answered something else".to_string());
    let ApiResult::Daemons(daemons) = client.call(&ApiCall::DaemonSelect(selector.clone())).await? else {
        return Err(other());
    };
    if daemons.is_empty() {
        let message = format!("no daemon is chosen by '{selector}'");
        return Err(CliError::not_found(message, "mycelial daemon list"));
    }
    let ApiResult::Roster(put) = client.call(&ApiCall::Roster).await? else {
        return Err(other());
    };
    client.take_roster(&put);
    Ok(daemons.into_iter().map(|daemon| (daemon.name, daemon.node)).collect())
}

/// Asks one daemon, again and again until `until` where it says that it is at it, or takes a while and says nothing.
async fn told(client: &Client, daemon: String, node: NodeId, call: &ControlCall, until: Option<Instant>) -> Done {
    let is_late = || until.is_none_or(|until| Instant::now() >= until);
    let mut waits_for = String::new();
    let (outcome, workflows, cause) = loop {
        break match client.ask(&daemon, &node, call).await {
            Ok(ControlResult::Done { workflows }) => (Outcome::Done, workflows, String::new()),
            Ok(ControlResult::Report(sections)) => {
                let text: String = sections.into_iter().map(|section| section.text).collect();
                (Outcome::Done, Vec::new(), text.trim_end().to_string())
            }
            Ok(ControlResult::Failed(failure)) => (Outcome::Failed, Vec::new(), failure.message),
            Ok(ControlResult::Working { what }) if is_late() => (Outcome::TimedOut, Vec::new(), what),
            Ok(ControlResult::Working { what }) => {
                waits_for = what;
                sleep(AGAIN).await;
                continue;
            }
            Ok(_) => (Outcome::Failed, Vec::new(), "it answered something else".to_string()),
            Err(error) if is_late() => (
                Outcome::Unknown,
                Vec::new(),
                format!("{error} {waits_for}").trim_end().to_string(),
            ),
            Err(_) => {
                sleep(AGAIN).await;
                continue;
            }
        };
    };
    Done {
        daemon,
        outcome,
        workflows,
        cause,
    }
}

/// How many of many are done, on a terminal.
fn progress(done: usize, all: usize) {
    if all > 1 && std::io::stderr().is_terminal() {
        let end = if done == all { "\r\x1b[K" } else { "" };
        eprint!("\r{done} of {all} daemons{end}");
    }
}

/// Lets daemons do something, and says how it ended on each.
pub async fn command(
    dir: &Path,
    timeout: Duration,
    output: Output,
    place: Where,
    call: ControlCall,
) -> Result<(), CliError> {
    carried_out(dir, timeout, output, place, call, None).await
}

/// The same of what takes a while: each daemon is asked until it is done, or the time is over.
pub async fn patiently(
    dir: &Path,
    timeout: Duration,
    output: Output,
    Patient { whom, wait_max }: Patient,
    call: ControlCall,
) -> Result<(), CliError> {
    let until = Instant::now() + Duration::from_secs(wait_max);
    carried_out(dir, timeout, output, whom.into(), call, Some(until)).await
}

async fn carried_out(
    dir: &Path,
    timeout: Duration,
    output: Output,
    place: Where,
    call: ControlCall,
    until: Option<Instant>,
) -> Result<(), CliError> {
    let client = Client::connect(dir, timeout, Vec::new()).await?;
    let asked = async {
        let targets = targets(&client, place).await?;
        let count = targets.len();
        let asked = targets
            .into_iter()
            .map(|(daemon, node)| told(&client, daemon, node, &call, until));
        let mut asked = stream::iter(asked).buffered(AT_ONCE_MAX);
        let mut all = Vec::new();
        while let Some(done) = asked.next().await {
            all.push(done);
            progress(all.len(), count);
        }
        Ok(all)
    };
    let all: Result<Vec<Done>, CliError> = asked.await;
    client.close().await;
    let all = all?;
    let row = |done: &Done| {
        let outcome = match done.outcome {
            Outcome::Done => "done",
            Outcome::Failed => "failed",
            Outcome::TimedOut => "timed out",
            Outcome::Unknown => "unknown",
        };
        vec![
            done.daemon.clone(),
            outcome.to_string(),
            done.workflows.join(", "),
            done.cause.clone(),
        ]
    };
    let rows: Vec<_> = all.iter().map(row).collect();
    let text = render::table(&["daemon", "outcome", "workflows", "cause"], &rows);
    Answer::new(&all, all.iter().map(|done| done.daemon.clone()), text).print(output);
    let count = |outcome| all.iter().filter(|done| done.outcome == outcome).count();
    match (count(Outcome::Failed), count(Outcome::Unknown)) {
        (0, 0) if count(Outcome::TimedOut) > 0 => Err(CliError::Unreachable(format!(
            "{} of {} daemons were not done in time: say it again to wait on, it does no harm",
            count(Outcome::TimedOut),
            all.len()
        ))),
        (0, 0) => Ok(()),
        (0, unknown) => Err(CliError::Unreachable(format!(
            "{unknown} of {} daemons did not answer: say it again, it does no harm",
            all.len()
        ))),
        (failed, _) => Err(CliError::Failed(format!(
            "it failed on {failed} of {} daemons",
            all.len()
        ))),
    }
}

/// Which lines of a log.
pub struct Lines {
    pub daemon: String,
    pub workflow: String,
    pub most: u16,
    pub follow: bool,
}

/// Prints the last lines of a daemon's log, and those that follow.
pub async fn logs(dir: &Path, timeout: Duration, output: Output, wish: Lines) -> Result<(), CliError> {
    let client = Client::connect(dir, timeout, Vec::new()).await?;
    let read = async {
        let node = find_daemon(&client, &wish.daemon).await?;
        let (mut after, mut lines_max) = (0, wish.most);
        loop {
            let call = ControlCall::Logs {
                after,
                lines_max,
                workflow: wish.workflow.clone(),
            };
            match client.ask(&wish.daemon, &node, &call).await {
                Ok(ControlResult::Lines { lines, newest }) => {
                    // The daemon has started anew, and counts anew: all its lines are new.
                    let from_its_start = newest < after;
                    (after, lines_max) = (if from_its_start { 0 } else { newest }, u16::MAX);
                    if from_its_start {
                        continue;
                    }
                    if !lines.iter().all(|line| shown(output, &wish.daemon, line)) {
                        return Ok(());
                    }
                }
                Ok(ControlResult::Failed(failure)) => return Err(CliError::Refused(failure)),
                Ok(_) => return Err(CliError::Failed(format!("{} answered something else", wish.daemon))),
                Err(error) if wish.follow && lines_max == u16::MAX => eprintln!("{error}; trying again"),
                Err(error) => return Err(error),
            }
            if !wish.follow {
                return Ok(());
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    let done = read.await;
    client.close().await;
    done
}

fn shown(output: Output, daemon: &str, line: &LogLine) -> bool {
    let about = match line.workflow.as_str() {
        "" => String::new(),
        workflow => format!("[{workflow}] "),
    };
    let time = render::clock_time(line.unix_ms);
    let text = format!("{time}  {:<5}  {about}{}", line.level, line.text);
    let data = serde_json::json!({
        "daemon": daemon, "number": line.number, "unix_ms": line.unix_ms, "level": line.level,
        "workflow": line.workflow, "text": line.text,
    });
    print_item(output, &data, &line.workflow, &text)
}

/// Fetches a report on one daemon.
pub async fn diagnose(
    dir: &Path,
    timeout: Duration,
    output: Output,
    daemon: &str,
    file: Option<PathBuf>,
) -> Result<(), CliError> {
    let client = Client::connect(dir, timeout, Vec::new()).await?;
    let asked = async {
        let node = find_daemon(&client, daemon).await?;
        client.ask(daemon, &node, &ControlCall::Diagnose).await
    };
    let answered = asked.await;
    client.close().await;
    let sections = match answered? {
        ControlResult::Report(sections) => sections,
        ControlResult::Failed(failure) => return Err(CliError::Refused(failure)),
        _ => return Err(CliError::Failed(format!("{daemon} answered something else"))),
    };
    let text: String = sections
        .iter()
        .map(|section| format!("# {}\n\n{}\n\n", section.heading, section.text.trim_end()))
        .collect();
    if let Some(path) = file {
        std::fs::write(&path, text)
            .map_err(|error| CliError::Usage(format!("cannot write {}: {error}", path.display())))?;
        eprintln!("written to {}", path.display());
        return Ok(());
    }
    let names = sections.iter().map(|section| section.heading.clone());
    Answer::new(&sections, names, text).print(output);
    Ok(())
}
