//! `mycelial rollout`: revisions that go to their daemons in waves; and what applying a text would change.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use bus_schema::{
    api::{ApiCall, ApiResult, Changed, WorkflowDiff},
    rollout::{Amount, OnFailure, RolloutCommand, RolloutPhase, RolloutPolicy, RolloutView},
};
use tokio::time::{Instant, sleep};

use crate::{
    answer::{Answer, print_item},
    apply,
    arguments::{Output, Rollout, Waves},
    ask,
    client::{CliError, Client},
    files, render,
    seen::Seen,
};

/// Between two looks at a rollout.
const LOOK: Duration = Duration::from_millis(500);

/// Does what was typed.
pub async fn run(dir: &Path, timeout: Duration, output: Output, what: Rollout) -> Result<(), CliError> {
    let tell = |id, command, reason: Option<String>| ApiCall::RolloutTell {
        id,
        command,
        reason: reason.unwrap_or_else(|| "an operator said so".to_string()),
    };
    let (call, watch) = match what {
        Rollout::Start {
            file,
            expect,
            force,
            reason,
            waves,
            watch,
        } => {
            let (text, policy) = (files::read(&file)?, policy(&waves)?);
            let order = apply::Over { expect, force };
            let client = Client::connect(dir, timeout, Vec::new()).await?;
            let done = match begun(&client, dir, file, text, order, reason, policy).await {
                Ok(views) if watch => follow(&client, output, views[0].id, None).await,
                Ok(views) => {
                    print(output, &views);
                    Ok(())
                }
                Err(error) => Err(error),
            };
            client.close().await;
            return done;
        }
        Rollout::List => (ApiCall::RolloutList, None),
        Rollout::Show { id } => (ApiCall::RolloutShow(id), None),
        Rollout::Watch { id } => (ApiCall::RolloutShow(id), Some(id)),
        Rollout::Pause { id, reason } => (tell(id, RolloutCommand::Pause, reason), None),
        Rollout::Resume { id, reason } => (tell(id, RolloutCommand::Resume, reason), None),
        Rollout::Abort { id, reason, yes } => {
            let question = format!(
                "this ends rollout {id} for good: daemons that have the new revision keep it, the others the old"
            );
            ask::sure(&question, yes)?;
            (tell(id, RolloutCommand::Abort, reason), None)
        }
        Rollout::Rollback { id, reason, yes } => {
            let question = format!("this gives all daemons that rollout {id} has reached what they had before");
            ask::sure(&question, yes)?;
            (tell(id, RolloutCommand::RollBack, reason), None)
        }
    };
    let client = Client::connect(dir, timeout, Vec::new()).await?;
    let done = match watch {
        Some(id) => follow(&client, output, id, None).await,
        None => match views(&client, &call).await {
            Ok(seen) => {
                match call {
                    // The answer shows how it stood before.
                    ApiCall::RolloutTell { id, .. } => {
                        let after = views(&client, &ApiCall::RolloutShow(id)).await;
                        after.map(|views| print(output, &views))
                    }
                    _ => {
                        if seen.is_empty() {
                            eprintln!("no rollouts yet; begin one with: mycelial rollout start FILE");
                        }
                        print(output, &seen);
                        Ok(())
                    }
                }
            }
            Err(error) => Err(error),
        },
    };
    client.close().await;
    done
}

/// Begins one for `rollout start`, over what this operator has seen.
async fn begun(
    client: &Client,
    dir: &Path,
    file: PathBuf,
    text: String,
    over: apply::Over,
    reason: Option<String>,
    policy: RolloutPolicy,
) -> Result<Vec<RolloutView>, CliError> {
    let mut seen = Seen::of(dir);
    let item = apply::look(client, file, text).await?;
    item.guard(client, &seen, &over)?;
    let call = begin(item.text.clone(), item.expected(&over), reason, policy);
    match views(client, &call).await {
        Ok(views) => {
            views.iter().for_each(|view| seen.note(&view.workflow, view.revision));
            Ok(views)
        }
        Err(error) => Err(apply::overtaken(client, error, &item.name, item.file).await),
    }
}

async fn views(client: &Client, call: &ApiCall) -> Result<Vec<RolloutView>, CliError> {
    match client.call(call).await? {
        ApiResult::Rollouts(views) => Ok(views),
        _ => Err(CliError::Failed("the plane answered something else".to_string())),
    }
}

/// What begins one. A plane of an earlier version knows only those without a reason, or without a limit of waiting.
fn begin(text: String, expect_revision: Option<u32>, reason: Option<String>, policy: RolloutPolicy) -> ApiCall {
    if let Some(lag_s_max) = policy.lag_s_max.get().copied() {
        return ApiCall::RolloutBegin {
            text,
            expect_revision,
            reason: reason.unwrap_or_default(),
            policy,
            lag_s_max,
        };
    }
    match reason {
        None => ApiCall::RolloutStart {
            text,
            expect_revision,
            policy,
        },
        Some(reason) => ApiCall::Deploy {
            text,
            expect_revision,
            reason,
            waves: Some(policy),
        },
    }
}

/// Begins one for `workflow apply --waves`.
pub async fn start(
    client: &Client,
    text: String,
    expect_revision: Option<u32>,
    reason: Option<String>,
    waves: &Waves,
) -> Result<RolloutView, CliError> {
    let call = begin(text, expect_revision, reason, policy(waves)?);
    let views = views(client, &call).await?;
    let none = || CliError::Failed("the plane answered something else".to_string());
    views.into_iter().next().ok_or_else(none)
}

/// Prints what happens until it is over; fails when it does not end well.
pub async fn follow(client: &Client, output: Output, id: u64, most: Option<Duration>) -> Result<(), CliError> {
    let end = most.map(|most| Instant::now() + most);
    let mut told = String::new();
    loop {
        let found = views(client, &ApiCall::RolloutShow(id)).await?;
        let Some(view) = found.first() else {
            return Err(CliError::Failed("the plane answered something else".to_string()));
        };
        let line = line(view);
        if line != told {
            let data = serde_json::to_value(view).unwrap_or_default();
            if !print_item(output, &data, &id.to_string(), &line) {
                return Ok(());
            }
            told = line;
        }
        match view.phase {
            RolloutPhase::Done => return Ok(()),
            RolloutPhase::RolledBack | RolloutPhase::Aborted | RolloutPhase::Paused => {
                return Err(CliError::Failed(format!(
                    "rollout {id} is {}: {}",
                    word(view.phase),
                    view.cause
                )));
            }
            _ if end.is_some_and(|end| Instant::now() >= end) => {
                return Err(CliError::Unreachable(format!(
                    "rollout {id} is still {}",
                    word(view.phase)
                )));
            }
            _ => sleep(LOOK).await,
        }
    }
}

fn line(view: &RolloutView) -> String {
    let taken: u32 = view.waves.iter().map(|wave| wave.taken).sum();
    let all: u32 = view.waves.iter().map(|wave| wave.daemons).sum();
    let failed: u32 = view.waves.iter().map(|wave| wave.failed).sum();
    let mut line = format!(
        "{}@{}  wave {} of {}  {}  {taken} of {all} daemons, {failed} failed",
        view.workflow,
        view.revision,
        view.wave,
        view.waves.len(),
        word(view.phase)
    );
    if !view.cause.is_empty() {
        line.push_str(&format!("  ({})", view.cause));
    }
    line
}

fn word(phase: RolloutPhase) -> &'static str {
    match phase {
        RolloutPhase::Ready => "about to deploy",
        RolloutPhase::Taking => "deploying",
        RolloutPhase::Soaking => "soaking",
        RolloutPhase::Paused => "paused",
        RolloutPhase::RollingBack => "rolling back",
        RolloutPhase::Done => "done",
        RolloutPhase::RolledBack => "rolled back",
        RolloutPhase::Aborted => "aborted",
    }
}

fn print(output: Output, views: &[RolloutView]) {
    let row = |view: &RolloutView| {
        let taken: u32 = view.waves.iter().map(|wave| wave.taken).sum();
        let all: u32 = view.waves.iter().map(|wave| wave.daemons).sum();
        vec![
            view.id.to_string(),
            format!("{}@{}", view.workflow, view.revision),
            word(view.phase).to_string(),
            format!("{} of {}", view.wave, view.waves.len()),
            format!("{taken} of {all}"),
            view.by.clone(),
            view.cause.clone(),
        ]
    };
    let rows: Vec<_> = views.iter().map(row).collect();
    let mut text = render::table(
        &["rollout", "workflow", "phase", "wave", "daemons", "by", "cause"],
        &rows,
    );
    if let [view] = views {
        let rows: Vec<_> = view
            .failures
            .iter()
            .map(|failure| vec![failure.daemon.clone(), failure.cause.clone()])
            .collect();
        if !rows.is_empty() {
            text.push('\n');
            text.push_str(&render::table(&["failed", "cause"], &rows));
        }
    }
    let names = views.iter().map(|view| view.id.to_string());
    Answer::new(&views, names, text).print(output);
}

/// What was typed about waves, over what holds when nothing is.
fn policy(waves: &Waves) -> Result<RolloutPolicy, CliError> {
    let mut policy = RolloutPolicy::default();
    if let Some(text) = &waves.waves {
        policy.waves = text
            .split(',')
            .map(|part| amount(part.trim()))
            .collect::<Result<_, _>>()?;
    }
    let seconds = |s: u64| u32::try_from(s).unwrap_or(u32::MAX);
    policy.soak_s = waves.soak.map_or(policy.soak_s, seconds);
    policy.take_s = waves.take.map_or(policy.take_s, seconds);
    if let Some(text) = &waves.max_failures {
        policy.failures_max = amount(text)?;
    }
    policy.lag_bytes_max = waves.max_lag.unwrap_or(policy.lag_bytes_max);
    policy.lag_s_max = waves.max_wait.map_or(policy.lag_s_max, |s| seconds(s).into());
    policy.throughput_percent_min = waves.min_throughput.unwrap_or(policy.throughput_percent_min);
    policy.dead_max = waves.max_dead.unwrap_or(policy.dead_max);
    if waves.pause_on_failure {
        policy.on_failure = OnFailure::Pause;
    }
    Ok(policy)
}

fn amount(text: &str) -> Result<Amount, CliError> {
    let wrong = || CliError::Usage(format!("'{text}' is no number of daemons: write 5 or 10%"));
    match text.strip_suffix('%') {
        Some(percent) => {
            let percent: u8 = percent.parse().map_err(|_| wrong())?;
            (percent <= 100).then_some(Amount::Percent(percent)).ok_or_else(wrong)
        }
        None => text.parse().map(Amount::Count).map_err(|_| wrong()),
    }
}

/// What applying a text would change, for people.
pub fn render_diff(diff: &WorkflowDiff) -> String {
    let word = |change: Changed| match change {
        Changed::Added => "added",
        Changed::Removed => "removed",
        Changed::Changed => "changed",
        Changed::Unchanged => "unchanged",
    };
    let mut rows = Vec::new();
    for node in &diff.nodes {
        let name = format!("{} {}", node.role, node.node);
        if node.change != Changed::Changed {
            rows.push(vec![
                name,
                word(node.change).to_string(),
                String::new(),
                String::new(),
                String::new(),
            ]);
            continue;
        }
        for field in &node.fields {
            let side = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_string());
            let change = word(node.change).to_string();
            rows.push(vec![
                name.clone(),
                change,
                field.field.clone(),
                side(&field.before),
                side(&field.after),
            ]);
        }
    }
    let mut text = render::table(&["node", "change", "field", "before", "after"], &rows);
    let rows: Vec<_> = diff
        .daemons
        .iter()
        .map(|daemon| {
            vec![
                daemon.daemon.clone(),
                word(daemon.change).to_string(),
                daemon.nodes.join(", "),
            ]
        })
        .collect();
    text.push('\n');
    text.push_str(&render::table(&["daemon", "change", "would run"], &rows));
    if diff.more > 0 {
        text.push_str(&format!("and {} more daemons\n", diff.more));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_typed_about_waves() {
        let typed = |waves: &str| Waves {
            waves: Some(waves.to_string()),
            soak: Some(5),
            ..Waves::default()
        };
        let read = policy(&typed("1, 10%,100%")).unwrap();
        assert_eq!(
            read.waves,
            [Amount::Count(1), Amount::Percent(10), Amount::Percent(100)]
        );
        let default = RolloutPolicy::default();
        assert_eq!((read.soak_s, read.take_s), (5, default.take_s));
        let gates = |policy: &RolloutPolicy| (policy.lag_bytes_max, policy.throughput_percent_min);
        assert_eq!(gates(&read), gates(&default));
        let told = Waves {
            max_lag: Some(1 << 30),
            min_throughput: Some(0),
            ..Waves::default()
        };
        assert_eq!(gates(&policy(&told).unwrap()), (1 << 30, 0));
        // What is not said leaves the plane its own limit, and an earlier plane understands.
        let begun = |policy| begin(String::new(), None, None, policy);
        assert!(matches!(begun(read), ApiCall::RolloutStart { .. }));
        for (typed, told, looks) in [(300, 300, Some(300)), (0, 0, None)] {
            let waits = Waves {
                max_wait: Some(typed),
                ..Waves::default()
            };
            let read = policy(&waits).unwrap();
            assert_eq!(read.lag_s_max(), looks);
            assert!(matches!(begun(read), ApiCall::RolloutBegin { lag_s_max, .. } if lag_s_max == told));
        }
        for wrong in ["", "x", "101%", "1;2", "-1"] {
            assert_eq!(policy(&typed(wrong)).unwrap_err().exit_code(), 2, "{wrong}");
        }
    }
}
