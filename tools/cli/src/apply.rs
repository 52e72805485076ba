//! `mycelial workflow apply`: all files are looked at before the first is stored, so that a mistake in one changes nothing at
//! all; nobody's revision is overwritten unseen; and what is as it should be is left alone.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use bus_schema::{
    api::{ApiCall, ApiResult, Changed, Failure, FailureKind, Problem, RevisionView, WorkflowPart},
    message::RunState,
};
use serde::Serialize;
use tokio::time::{Instant, sleep};

use crate::{
    answer::Answer,
    arguments::{Output, Waves},
    client::{CliError, Client},
    files::name_in,
    render, rollouts,
    seen::{self, Seen},
};

/// Between two looks at a workflow that is waited for.
const LOOK: Duration = Duration::from_millis(300);

/// Over which revision.
#[derive(Debug, Clone, Copy)]
pub struct Over {
    /// Only over this one.
    pub expect: Option<u32>,
    /// Also over what somebody else made since this operator looked.
    pub force: bool,
}

/// Over which revision, why, and how.
pub struct Order {
    /// Over which.
    pub over: Over,
    /// For those who look at the revisions later.
    pub reason: Option<String>,
    /// How long to wait until all run it.
    pub wait: Option<Duration>,
    /// How it goes to its daemons.
    pub waves: Waves,
}

/// What stores a text and deploys it. A plane of an earlier version knows only the one without a reason.
pub fn deploy(text: String, expect_revision: Option<u32>, reason: Option<String>) -> ApiCall {
    match reason {
        None => ApiCall::WorkflowApply { text, expect_revision },
        Some(reason) => ApiCall::Deploy {
            text,
            expect_revision,
            reason,
            waves: None,
        },
    }
}

/// A text with problems, and the file it is from.
pub type Faulty = (PathBuf, Vec<Problem>);

/// Which of some texts have problems.
pub async fn faulty(client: &Client, texts: &[(PathBuf, String)]) -> Result<Vec<Faulty>, CliError> {
    let mut all = Vec::new();
    for (file, text) in texts {
        let call = ApiCall::WorkflowValidate { text: text.clone() };
        match client.call(&call).await? {
            ApiResult::Problems(problems) if problems.is_empty() => {}
            ApiResult::Problems(problems) => all.push((file.clone(), problems)),
            _ => return Err(something_else()),
        }
    }
    Ok(all)
}

/// Says every problem of every text; `end` says what follows from it.
pub fn told(faulty: Vec<Faulty>, of: usize, end: &str) -> Result<(), CliError> {
    let invalid = |message, problems| Failure {
        kind: FailureKind::Invalid,
        message,
        hint: String::new(),
        problems,
    };
    let message = match (faulty.as_slice(), of) {
        ([], _) => return Ok(()),
        ([(_, problems)], 1) => match problems.len() {
            1 => format!("the workflow has one problem{end}"),
            count => format!("the workflow has {count} problems{end}"),
        },
        (faulty, of) => {
            let lines = faulty.iter().flat_map(|(file, problems)| {
                let file = file.display().to_string();
                let line = move |problem| format!("\n  {}", render::problem(&file, problem));
                problems.iter().map(line)
            });
            let lines: String = lines.collect();
            let message = format!("{} of {of} workflows have problems{end}:{lines}", faulty.len());
            return Err(CliError::Refused(invalid(message, Vec::new())));
        }
    };
    match faulty.into_iter().next() {
        Some((file, problems)) => Err(CliError::Workflow(file, invalid(message, problems))),
        None => Ok(()),
    }
}

/// A text on its way.
pub struct Item {
    /// Where it is from.
    pub file: PathBuf,
    /// TOML.
    pub text: String,
    /// The workflow.
    pub name: String,
    /// The current revision and its text.
    before: Option<(u32, String)>,
    /// The revision that it takes the place of, when it is another text.
    replaces: Option<RevisionView>,
}

impl Item {
    /// Refuses to overwrite, unseen, what somebody else has made, unless it is said that this is meant.
    pub fn guard(&self, client: &Client, seen: &Seen, over: &Over) -> Result<(), CliError> {
        match &self.replaces {
            Some(current) if !over.force && over.expect.is_none() => {
                seen.guard(&self.name, current, &client.session.secure().me().name)
            }
            _ => Ok(()),
        }
    }

    /// Between the look and the change somebody else may have come: that revision is not overwritten unseen.
    pub fn expected(&self, over: &Over) -> Option<u32> {
        over.expect.or(Some(self.current().unwrap_or(0)))
    }

    fn current(&self) -> Option<u32> {
        self.before.as_ref().map(|(revision, _)| *revision)
    }
}

/// What became of one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Change {
    Created,
    Updated,
    Unchanged,
}

#[derive(Debug, Serialize)]
struct Applied {
    name: String,
    change: Change,
    revision: u32,
    file: String,
    /// The revision before, when it is another now.
    replaced: Option<Replaced>,
}

/// Whose revision is not the current one any more.
#[derive(Debug, Serialize)]
struct Replaced {
    revision: u32,
    by: String,
    at_unix_ms: i64,
    reason: String,
    #[serde(skip)]
    said: String,
}

impl From<&RevisionView> for Replaced {
    fn from(view: &RevisionView) -> Self {
        Self {
            revision: view.number,
            by: view.by.clone(),
            at_unix_ms: view.at_unix_ms,
            reason: view.reason.clone(),
            said: seen::whose(view),
        }
    }
}

/// Looks at all texts, and stores and deploys them when nothing speaks against any.
pub async fn run(
    client: &Client,
    dir: &Path,
    output: Output,
    texts: Vec<(PathBuf, String)>,
    order: Order,
) -> Result<(), CliError> {
    // Of one, the plane says the same when it is applied.
    if texts.len() > 1 {
        told(faulty(client, &texts).await?, texts.len(), "; nothing was changed")?;
    }
    let mut seen = Seen::of(dir);
    let (mut items, mut overtaken) = (Vec::new(), Vec::new());
    for (file, text) in texts {
        let item = look(client, file, text).await?;
        match item.guard(client, &seen, &order.over) {
            Ok(()) => items.push(item),
            Err(error) => overtaken.push(error),
        }
    }
    if !overtaken.is_empty() {
        return Err(all_of(overtaken));
    }
    if order.waves.waves.is_some() {
        let mut items = items.into_iter();
        return match (items.next(), items.next()) {
            (Some(item), None) => in_waves(client, &mut seen, output, item, order).await,
            _ => Err(CliError::Usage("--waves goes with one workflow at a time".to_string())),
        };
    }
    at_once(client, &mut seen, output, items, &order).await
}

/// Several refusals as one.
fn all_of(mut errors: Vec<CliError>) -> CliError {
    let first = errors.remove(0);
    match first {
        CliError::Refused(mut failure) => {
            for error in &errors {
                let text = error.to_string();
                failure
                    .message
                    .push_str(&format!("\n{}", text.lines().next().unwrap_or_default()));
            }
            CliError::Refused(failure)
        }
        other => other,
    }
}

/// What there is of a text's workflow.
pub async fn look(client: &Client, file: PathBuf, text: String) -> Result<Item, CliError> {
    let name = name_in(&text);
    let before = current(client, &name).await?;
    let replaces = match &before {
        Some((_, old)) if *old != text => seen::current(client, &name).await?,
        _ => None,
    };
    Ok(Item {
        file,
        text,
        name,
        before,
        replaces,
    })
}

/// The current revision and text; `None` when there is no such workflow.
pub async fn current(client: &Client, name: &str) -> Result<Option<(u32, String)>, CliError> {
    match client.call(&ApiCall::WorkflowShow(name.to_string())).await {
        Ok(ApiResult::Workflow { view, text }) => Ok(Some((view.revision, text))),
        Ok(_) => Err(something_else()),
        Err(CliError::Refused(failure)) if failure.kind == FailureKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// To all daemons at once. What fails ends it, and what came before that is done and told.
async fn at_once(
    client: &Client,
    seen: &mut Seen,
    output: Output,
    items: Vec<Item>,
    order: &Order,
) -> Result<(), CliError> {
    let count = items.len();
    let (mut all, mut failed) = (Vec::new(), None);
    let mut items = items.into_iter();
    for item in items.by_ref() {
        match apply_one(client, item, order).await {
            Ok(applied) => {
                seen.note(&applied.name, applied.revision);
                all.push(applied);
            }
            Err(error) => {
                failed = Some(error);
                break;
            }
        }
    }
    let left: Vec<String> = items.map(|item| item.file.display().to_string()).collect();
    if failed.is_some() && count > 1 {
        eprintln!("{} of {count} files were applied before one failed", all.len());
        if !left.is_empty() {
            eprintln!("not tried: {}", left.join(", "));
        }
    }
    let waited = match order.wait {
        Some(most) if !all.is_empty() => wait_for(client, &all, most).await,
        _ => Ok(()),
    };
    if !all.is_empty() {
        print_applied(output, &all);
    }
    failed.map_or(waited, Err)
}

async fn apply_one(client: &Client, item: Item, order: &Order) -> Result<Applied, CliError> {
    let (current, expect_revision) = (item.current(), item.expected(&order.over));
    // The same text is no new revision, but is compiled anew: daemons may have changed.
    let call = deploy(item.text, expect_revision, order.reason.clone());
    let revision = match client.call(&call).await {
        Ok(ApiResult::Revision(revision)) => revision,
        Ok(_) => return Err(something_else()),
        Err(error) => return Err(overtaken(client, error, &item.name, item.file).await),
    };
    let change = match current {
        None => Change::Created,
        Some(before) if before == revision => Change::Unchanged,
        Some(_) => Change::Updated,
    };
    let replaced = item.replaces.as_ref().filter(|_| change == Change::Updated);
    Ok(Applied {
        change,
        revision,
        file: item.file.display().to_string(),
        replaced: replaced.map(Replaced::from),
        name: item.name,
    })
}

/// The plane's no, with the file, which it does not know, and with whose revision it is that is in the way.
pub async fn overtaken(client: &Client, error: CliError, name: &str, file: PathBuf) -> CliError {
    match error {
        CliError::Refused(mut failure) => {
            if failure.kind == FailureKind::Conflict
                && let Ok(Some(current)) = seen::current(client, name).await
            {
                failure.message.push_str(&format!(" ({})", seen::when(&current)));
            }
            CliError::Workflow(file, failure)
        }
        error => error,
    }
}

/// Whether each daemon has this very text already.
async fn is_everywhere(client: &Client, text: &str) -> Result<bool, CliError> {
    match client.call(&ApiCall::WorkflowDiff { text: text.to_string() }).await? {
        ApiResult::Diff(diff) => {
            let mut daemons = diff.daemons.iter();
            Ok(diff.more == 0 && daemons.all(|daemon| daemon.change == Changed::Unchanged))
        }
        _ => Err(something_else()),
    }
}

/// One text in waves. What is everywhere already is left alone, as it is without waves.
async fn in_waves(client: &Client, seen: &mut Seen, output: Output, item: Item, order: Order) -> Result<(), CliError> {
    let is_same = item.before.as_ref().is_some_and(|(_, old)| *old == item.text);
    if is_same && order.over.expect.is_none() && is_everywhere(client, &item.text).await? {
        return at_once(client, seen, output, vec![item], &order).await;
    }
    let expect = item.expected(&order.over);
    let view = match rollouts::start(client, item.text.clone(), expect, order.reason, &order.waves).await {
        Ok(view) => view,
        Err(error) => return Err(overtaken(client, error, &item.name, item.file).await),
    };
    seen.note(&item.name, view.revision);
    eprintln!(
        "rollout {} has begun; watch it with: mycelial rollout watch {}",
        view.id, view.id
    );
    if let Some(replaced) = &item.replaces {
        eprintln!("it takes the place of revision {}", seen::whose(replaced));
    }
    match order.wait {
        Some(most) => rollouts::follow(client, output, view.id, Some(most)).await,
        None => {
            let names = [view.id.to_string()];
            Answer::new(&view, names, format!("rollout {}\n", view.id)).print(output);
            Ok(())
        }
    }
}

fn print_applied(output: Output, all: &[Applied]) {
    let row = |applied: &Applied| {
        let change = match applied.change {
            Change::Created => "created",
            Change::Updated => "updated",
            Change::Unchanged => "unchanged",
        };
        vec![
            applied.name.clone(),
            change.to_string(),
            format!("revision {}", applied.revision),
            applied
                .replaced
                .as_ref()
                .map_or(String::new(), |replaced| replaced.said.clone()),
            applied.file.clone(),
        ]
    };
    let rows: Vec<_> = all.iter().map(row).collect();
    let text = render::table(&["workflow", "change", "now", "before", "file"], &rows);
    Answer::new(&all, all.iter().map(|applied| applied.name.clone()), text).print(output);
}

/// What can be said of a workflow that is being rolled out.
#[derive(Debug, PartialEq, Eq)]
enum Progress {
    /// Every daemon runs this revision.
    Done,
    /// Not yet, and why.
    Waits(String),
    /// It will not without a change.
    Failed(String),
}

fn progress(revision: u32, parts: &[WorkflowPart]) -> Progress {
    let mut waits = Vec::new();
    for part in parts {
        let is_new = part.revision == revision;
        match part.state {
            Some(RunState::Running | RunState::Finished) if is_new => {}
            Some(RunState::Failed) if is_new => return Progress::Failed(format!("{}: {}", part.daemon, part.cause)),
            state if part.cause.is_empty() => waits.push(format!("{} is {}", part.daemon, render::state(state))),
            _ => waits.push(format!("{}: {}", part.daemon, part.cause)),
        }
    }
    match waits.is_empty() {
        true => Progress::Done,
        false => Progress::Waits(waits.join("; ")),
    }
}

async fn wait_for(client: &Client, all: &[Applied], most: Duration) -> Result<(), CliError> {
    let end = Instant::now() + most;
    for applied in all {
        let name = &applied.name;
        let mut told = String::new();
        loop {
            let ApiResult::Status { parts, .. } = client.call(&ApiCall::WorkflowStatus(name.clone())).await? else {
                return Err(something_else());
            };
            let waits = match progress(applied.revision, &parts) {
                Progress::Done => break,
                Progress::Failed(cause) => {
                    return Err(CliError::Failed(format!("workflow '{name}' failed on {cause}")));
                }
                Progress::Waits(waits) => waits,
            };
            if Instant::now() >= end {
                return Err(CliError::Unreachable(format!(
                    "workflow '{name}' does not run everywhere after {} s: {waits}",
                    most.as_secs()
                )));
            }
            if waits != told {
                eprintln!("waiting for '{name}': {waits}");
                told = waits;
            }
            sleep(LOOK).await;
        }
    }
    Ok(())
}

fn something_else() -> CliError {
    CliError::Failed("the plane answered something else".to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_waited_for() {
        let part = |revision, state, cause: &str| WorkflowPart {
            workflow: "w".into(),
            daemon: "gw".into(),
            revision,
            wanted: Default::default(),
            state,
            cause: cause.into(),
        };
        let running = part(2, Some(RunState::Running), "");
        for (other, wanted) in [
            (part(2, Some(RunState::Finished), ""), Progress::Done),
            (
                part(1, Some(RunState::Running), ""),
                Progress::Waits("gw is running".into()),
            ),
            (part(0, None, ""), Progress::Waits("gw is unknown".into())),
            (
                part(2, Some(RunState::Retrying), "no host"),
                Progress::Waits("gw: no host".into()),
            ),
            (
                part(2, Some(RunState::Failed), "no table"),
                Progress::Failed("gw: no table".into()),
            ),
            (
                part(1, Some(RunState::Failed), "old"),
                Progress::Waits("gw: old".into()),
            ),
        ] {
            assert_eq!(progress(2, &[running.clone(), other.clone()]), wanted, "{other:?}");
        }
    }
}
