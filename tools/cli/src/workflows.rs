//! `mycelial workflow`: from files to the plane, and back.

use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
    time::Duration,
};

use bus_schema::{
    api::{ApiCall, ApiResult, Failure, FailureKind, WorkflowPart},
    control::ControlCall,
    message::RunState,
    trial::Given,
};
use serde::Serialize;
use tokio::time::{Instant, sleep};

use crate::{
    answer::Answer,
    arguments::{Output, Waves, Workflow},
    ask, checks,
    client::{CliError, Client},
    code_from, control, logs, render, rollouts, trial,
};

/// Between two looks at a workflow that is waited for.
const LOOK: Duration = Duration::from_millis(300);

/// Does what was typed.
pub async fn run(dir: &Path, timeout: Duration, output: Output, what: Workflow) -> Result<(), CliError> {
    // What is wrong on this side is told before anybody is asked.
    let work = match what {
        Workflow::Validate { file } => Work::Validate(read(&file)?, file),
        Workflow::Apply {
            files,
            expect,
            wait,
            wait_max,
            dry_run,
            reason,
            waves,
        } => {
            let texts = texts(&files)?;
            if dry_run {
                return dry(dir, timeout, output, texts).await;
            }
            if expect.is_some() && texts.len() != 1 {
                return Err(CliError::Usage("--expect goes with one workflow only".to_string()));
            }
            let order = Order { expect, reason };
            Work::Apply(texts, order, wait.then(|| Duration::from_secs(wait_max)), waves)
        }
        Workflow::List => Work::Ask(ApiCall::WorkflowList),
        Workflow::Show { name, revision: None } => Work::Ask(ApiCall::WorkflowShow(name)),
        Workflow::Show {
            name,
            revision: Some(revision),
        } => Work::Ask(ApiCall::WorkflowText { name, revision }),
        Workflow::Test { files, daemon } => Work::Test(texts(&files)?, daemon),
        Workflow::Preview {
            file,
            given,
            types,
            daemon,
        } => Work::Preview(read(&file)?, file, trial::given(&given, &types)?, daemon),
        Workflow::Check { name, file, daemon } => {
            let text = file.map(|file| read(&file).map(|text| (file, text))).transpose()?;
            Work::Check(checks::Wish { name, text, daemon })
        }
        Workflow::Diff { file } => Work::Diff(read(&file)?),
        Workflow::Revisions { name } => Work::Ask(ApiCall::WorkflowHistory(name)),
        Workflow::Rollback { name, to, reason } => Work::Rollback(name, to, reason),
        Workflow::Nodes { name } => Work::Ask(ApiCall::Nodes(Some(name))),
        Workflow::Status { name } => Work::Ask(ApiCall::WorkflowStatus(name)),
        // Daemons do these, not the plane.
        Workflow::Restart { part } => {
            let workflow = part.name.clone();
            return control::command(dir, timeout, output, part.into(), ControlCall::Restart { workflow }).await;
        }
        Workflow::Pause { part } => {
            let workflow = part.name.clone();
            return control::command(dir, timeout, output, part.into(), ControlCall::Pause { workflow }).await;
        }
        Workflow::Resume { part } => {
            let workflow = part.name.clone();
            return control::command(dir, timeout, output, part.into(), ControlCall::Resume { workflow }).await;
        }
        Workflow::Logs { part, lines } => {
            let workflow = part.name.clone();
            let place = part.into();
            let wish = logs::Wish { place, workflow, lines };
            return logs::run(dir, timeout, output, wish).await;
        }
        Workflow::Delete { name, yes } => {
            ask::sure(
                &format!(
                    "stop workflow '{name}' on all its daemons? What is still in their buffers stays there undelivered."
                ),
                yes,
            )?;
            Work::Ask(ApiCall::WorkflowDelete(name))
        }
    };
    let client = Client::connect(dir, timeout, Vec::new()).await?;
    let done = match work {
        Work::Validate(text, file) => validate(&client, output, text, file).await,
        Work::Apply(texts, order, wait, waves) if waves.waves.is_some() => {
            in_waves(&client, output, texts, order, wait, &waves).await
        }
        Work::Apply(texts, order, wait, _) => apply(&client, output, texts, &order, wait).await,
        Work::Test(texts, daemon) => trial::test(&client, output, texts, daemon).await,
        Work::Preview(text, file, given, daemon) => trial::preview(&client, output, (file, text), given, daemon).await,
        Work::Check(wish) => checks::run(&client, output, wish).await,
        Work::Diff(text) => diff(&client, output, &text).await,
        Work::Rollback(name, to, reason) => rollback(&client, output, name, to, reason).await,
        Work::Ask(call) => client.call(&call).await.and_then(|result| show(output, result)),
    };
    client.close().await;
    done
}

enum Work {
    Validate(String, PathBuf),
    Apply(Vec<(PathBuf, String)>, Order, Option<Duration>, Waves),
    Test(Vec<(PathBuf, String)>, Option<String>),
    Preview(String, PathBuf, Vec<Given>, Option<String>),
    Check(checks::Wish),
    Diff(String),
    Rollback(String, Option<u32>, Option<String>),
    Ask(ApiCall),
}

/// Over which revision, and why.
struct Order {
    expect: Option<u32>,
    reason: Option<String>,
}

/// What stores a text and deploys it. A plane of an earlier version knows only the one without a reason.
fn deploy(text: String, expect_revision: Option<u32>, reason: Option<String>) -> ApiCall {
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

/// A file's text, or stdin's, with the code that it takes from other files.
pub fn read(file: &Path) -> Result<String, CliError> {
    let dir = file.parent().unwrap_or(Path::new(""));
    code_from::fill_in(read_only(file)?, dir).map_err(|cause| CliError::Usage(format!("{}: {cause}", file.display())))
}

fn read_only(file: &Path) -> Result<String, CliError> {
    if file == Path::new("-") {
        let mut text = String::new();
        return match std::io::stdin().read_to_string(&mut text) {
            Ok(_) => Ok(text),
            Err(error) => Err(CliError::Usage(format!("cannot read stdin: {error}"))),
        };
    }
    bus_link::settings::text(file).map_err(|error| CliError::Usage(error.to_string()))
}

/// The files, and the TOML files in the directories, by name.
fn texts(files: &[PathBuf]) -> Result<Vec<(PathBuf, String)>, CliError> {
    let mut all = Vec::new();
    for file in files {
        if !file.is_dir() {
            all.push(file.clone());
            continue;
        }
        let failed = |error: std::io::Error| CliError::Usage(format!("cannot read {}: {error}", file.display()));
        let mut found = Vec::new();
        for entry in fs::read_dir(file).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path.extension().is_some_and(|extension| extension == "toml") && path.is_file() {
                found.push(path);
            }
        }
        if found.is_empty() {
            return Err(CliError::Usage(format!("there is no .toml file in {}", file.display())));
        }
        found.sort();
        all.extend(found);
    }
    all.into_iter()
        .map(|file| read(&file).map(|text| (file, text)))
        .collect()
}

async fn validate(client: &Client, output: Output, text: String, file: PathBuf) -> Result<(), CliError> {
    let ApiResult::Problems(problems) = client.call(&ApiCall::WorkflowValidate { text }).await? else {
        return Err(something_else());
    };
    let places = problems.iter().map(|problem| problem.place.clone());
    Answer::new(&problems, places, "").print(output);
    if problems.is_empty() {
        eprintln!("the workflow is good");
        return Ok(());
    }
    let message = match problems.len() {
        1 => "the workflow has one problem".to_string(),
        count => format!("the workflow has {count} problems"),
    };
    let failure = Failure {
        kind: FailureKind::Invalid,
        message,
        hint: String::new(),
        problems,
    };
    Err(CliError::Workflow(file, failure))
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
}

async fn apply(
    client: &Client,
    output: Output,
    texts: Vec<(PathBuf, String)>,
    order: &Order,
    wait: Option<Duration>,
) -> Result<(), CliError> {
    let mut all = Vec::new();
    for (file, text) in texts {
        let applied = apply_one(client, &file, text, order)
            .await
            .map_err(|error| match error {
                // The plane does not know where the text came from.
                CliError::Refused(failure) => CliError::Workflow(file, failure),
                error => error,
            });
        match applied {
            Ok(applied) => all.push(applied),
            Err(error) => {
                // What came before it is done.
                if !all.is_empty() {
                    print_applied(output, &all);
                }
                return Err(error);
            }
        }
    }
    let waited = match wait {
        None => Ok(()),
        Some(most) => wait_for(client, &all, most).await,
    };
    print_applied(output, &all);
    waited
}

/// The name that a text gives its workflow; empty when it is no TOML, and the plane says what is wrong with it.
fn name_in(text: &str) -> String {
    let table = toml::from_str::<toml::Table>(text).ok();
    let name = table.and_then(|table| table.get("name")?.as_str().map(str::to_string));
    name.unwrap_or_default()
}

/// The current revision and text; `None` when there is no such workflow.
async fn current(client: &Client, name: &str) -> Result<Option<(u32, String)>, CliError> {
    match client.call(&ApiCall::WorkflowShow(name.to_string())).await {
        Ok(ApiResult::Workflow { view, text }) => Ok(Some((view.revision, text))),
        Ok(_) => Err(something_else()),
        Err(CliError::Refused(failure)) if failure.kind == FailureKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The lines that go and come, with a few around them.
fn differences(old: &str, new: &str) -> String {
    let diff = similar::TextDiff::from_lines(old, new);
    diff.unified_diff().context_radius(3).to_string()
}

/// What applying texts would change, without doing so.
async fn dry(dir: &Path, timeout: Duration, output: Output, texts: Vec<(PathBuf, String)>) -> Result<(), CliError> {
    let client = Client::connect(dir, timeout, Vec::new()).await?;
    let mut all = Vec::new();
    for (file, text) in texts {
        match client.call(&ApiCall::WorkflowDiff { text }).await {
            Ok(ApiResult::Diff(diff)) => all.push(diff),
            Ok(_) => return Err(something_else()),
            Err(CliError::Refused(failure)) => return Err(CliError::Workflow(file, failure)),
            Err(error) => return Err(error),
        }
    }
    client.close().await;
    let text: Vec<String> = all
        .iter()
        .map(|diff| match diff.revision {
            0 => format!("{}: new\n\n{}", diff.name, rollouts::render_diff(diff)),
            revision => format!(
                "{}: against revision {revision}\n\n{}",
                diff.name,
                rollouts::render_diff(diff)
            ),
        })
        .collect();
    Answer::new(&all, all.iter().map(|diff| diff.name.clone()), text.join("\n")).print(output);
    eprintln!("nothing was changed");
    Ok(())
}

/// Applies one text in waves.
async fn in_waves(
    client: &Client,
    output: Output,
    texts: Vec<(PathBuf, String)>,
    Order { expect, reason }: Order,
    wait: Option<Duration>,
    waves: &Waves,
) -> Result<(), CliError> {
    let mut texts = texts.into_iter();
    let (Some((file, text)), None) = (texts.next(), texts.next()) else {
        return Err(CliError::Usage("--waves goes with one workflow at a time".to_string()));
    };
    let before = current(client, &name_in(&text)).await?;
    let expect = expect.or(before.map(|(revision, _)| revision));
    let view = rollouts::start(client, text, expect, reason, waves).await;
    let view = view.map_err(|error| match error {
        CliError::Refused(failure) => CliError::Workflow(file, failure),
        error => error,
    })?;
    eprintln!(
        "rollout {} has begun; watch it with: mycelial rollout watch {}",
        view.id, view.id
    );
    match wait {
        Some(most) => rollouts::follow(client, output, view.id, Some(most)).await,
        None => {
            let names = [view.id.to_string()];
            Answer::new(&view, names, format!("rollout {}\n", view.id)).print(output);
            Ok(())
        }
    }
}

async fn diff(client: &Client, output: Output, text: &str) -> Result<(), CliError> {
    let name = name_in(text);
    let before = current(client, &name).await?;
    let (revision, old) = before.unwrap_or_default();
    let lines = differences(&old, text);
    // A text with problems is still compared line by line.
    let meant = match client.call(&ApiCall::WorkflowDiff { text: text.to_string() }).await {
        Ok(ApiResult::Diff(diff)) => Some(diff),
        Ok(_) => return Err(something_else()),
        Err(CliError::Refused(_)) => None,
        Err(error) => return Err(error),
    };
    let data = serde_json::json!({
        "name": name, "revision": revision, "differs": !lines.is_empty(), "diff": lines,
        "nodes": meant.as_ref().map(|diff| &diff.nodes), "daemons": meant.as_ref().map(|diff| &diff.daemons),
    });
    let shown = match meant.filter(|_| !lines.is_empty()) {
        Some(meant) => format!("{}\n{lines}", rollouts::render_diff(&meant)),
        None => lines.clone(),
    };
    Answer::new(&data, [name.clone()], shown).print(output);
    if lines.is_empty() {
        eprintln!("'{name}' is as it is deployed: revision {revision}");
        return Ok(());
    }
    Err(CliError::Refused(Failure {
        kind: FailureKind::Invalid,
        message: match revision {
            0 => format!("there is no workflow '{name}' yet: all of it would be new"),
            revision => format!("it differs from revision {revision} of '{name}'"),
        },
        hint: String::new(),
        problems: Vec::new(),
    }))
}

async fn rollback(
    client: &Client,
    output: Output,
    name: String,
    to: Option<u32>,
    reason: Option<String>,
) -> Result<(), CliError> {
    let ApiResult::Revisions(all) = client.call(&ApiCall::WorkflowRevisions(name.clone())).await? else {
        return Err(something_else());
    };
    let current = all
        .iter()
        .find(|revision| revision.is_current)
        .map(|revision| revision.number);
    let before = all
        .iter()
        .map(|revision| revision.number)
        .filter(|number| current.is_none_or(|current| *number < current))
        .max();
    let Some(to) = to.or(before) else {
        let message = format!("there is no revision of '{name}' before the current one");
        return Err(CliError::not_found(
            message,
            &format!("mycelial workflow revisions {name}"),
        ));
    };
    let call = ApiCall::WorkflowText {
        name: name.clone(),
        revision: to,
    };
    let ApiResult::Text(text) = client.call(&call).await? else {
        return Err(something_else());
    };
    let call = deploy(text, Some(current.unwrap_or(0)), reason);
    let ApiResult::Revision(revision) = client.call(&call).await? else {
        return Err(something_else());
    };
    let data = serde_json::json!({ "name": name, "revision": revision, "text_of": to });
    let said = format!("'{name}' is at revision {revision}, with the text of revision {to}\n");
    Answer::new(&data, [name], said).print(output);
    Ok(())
}

async fn apply_one(client: &Client, file: &Path, text: String, order: &Order) -> Result<Applied, CliError> {
    let name = name_in(&text);
    let before = current(client, &name).await?;
    let done = |change, revision| Applied {
        name: name.clone(),
        change,
        revision,
        file: file.display().to_string(),
    };
    let current = before.as_ref().map(|(revision, _)| *revision);
    // Between the look and the change somebody else may have come: his revision is not overwritten unseen.
    let expect_revision = order.expect.or(current);
    // The same text is no new revision, but is compiled anew: daemons may have changed.
    let call = deploy(text, expect_revision, order.reason.clone());
    match client.call(&call).await? {
        ApiResult::Revision(revision) => Ok(match current {
            None => done(Change::Created, revision),
            Some(before) if before == revision => done(Change::Unchanged, revision),
            Some(_) => done(Change::Updated, revision),
        }),
        _ => Err(something_else()),
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
            applied.file.clone(),
        ]
    };
    let rows: Vec<_> = all.iter().map(row).collect();
    let text = render::table(&["workflow", "change", "now", "file"], &rows);
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

fn show(output: Output, result: ApiResult) -> Result<(), CliError> {
    match result {
        ApiResult::Workflows(workflows) => {
            let names = workflows.iter().map(|workflow| workflow.name.clone());
            Answer::new(&workflows, names, render::workflows(&workflows)).print(output);
            if workflows.is_empty() {
                eprintln!("no workflows yet; deploy one with: mycelial workflow apply FILE");
            }
        }
        ApiResult::Workflow { view, text } => {
            let both = serde_json::json!({ "view": view, "text": text });
            Answer::new(&both, [view.name.clone()], text.as_str()).print(output);
        }
        ApiResult::Status { view, parts, streams } => {
            let all = serde_json::json!({ "view": view, "parts": parts, "streams": streams });
            let text = format!("{}\n{}", render::parts(&parts), render::streams(&streams));
            Answer::new(&all, parts.iter().map(|part| part.daemon.clone()), text).print(output);
        }
        ApiResult::Nodes(nodes) => {
            let names = nodes.iter().map(|node| format!("{}/{}", node.workflow, node.node));
            Answer::new(&nodes, names, render::nodes(&nodes)).print(output);
            if nodes.is_empty() {
                eprintln!("nothing yet: daemons tell within five seconds what their nodes do");
            }
        }
        ApiResult::History(revisions) => {
            let names = revisions.iter().map(|revision| revision.number.to_string());
            Answer::new(&revisions, names, render::revisions(&revisions)).print(output);
        }
        ApiResult::Text(text) => Answer::new(&text, [], text.as_str()).print(output),
        ApiResult::Revision(0) => eprintln!("it is stopped and forgotten; its revisions are kept"),
        ApiResult::Revision(revision) => {
            Answer::new(&revision, [revision.to_string()], format!("revision {revision}\n")).print(output);
        }
        _ => return Err(something_else()),
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
    fn files_and_directories() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        for name in ["b.toml", "a.toml", "notes.md"] {
            fs::write(path(name), name).unwrap();
        }
        fs::create_dir(path("empty")).unwrap();
        let names = |files: &[PathBuf]| {
            let texts = texts(files)?;
            Ok::<_, CliError>(texts.into_iter().map(|(_, text)| text).collect::<Vec<_>>().join(" "))
        };
        assert_eq!(names(&[dir.path().to_path_buf()]).unwrap(), "a.toml b.toml");
        assert_eq!(names(&[path("notes.md"), path("a.toml")]).unwrap(), "notes.md a.toml");
        assert!(
            names(&[path("empty")])
                .unwrap_err()
                .to_string()
                .contains("no .toml file")
        );
        assert_eq!(names(&[path("none.toml")]).unwrap_err().exit_code(), 2);
    }

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
