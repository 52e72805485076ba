//! `mycelial workflow`: from files to the plane, and back.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use bus_schema::{
    api::{ApiCall, ApiResult, FailureKind, NoteView, RevisionView},
    control::ControlCall,
    trial::Given,
};

use crate::{
    answer::Answer,
    apply::{self, Order, Over},
    arguments::{Output, Workflow},
    ask, checks,
    client::{CliError, Client},
    compare, control,
    files::{Texts, each_its_own, read},
    logs,
    many::Doubt,
    narrow::Chosen,
    render,
    seen::{self, Seen},
    trial,
};

/// Does what was typed.
pub async fn run(dir: &Path, timeout: Duration, output: Output, what: Workflow) -> Result<(), CliError> {
    // What is wrong on this side is told before anybody is asked.
    let work = match what {
        Workflow::Validate { files } => Work::Validate(files.read()?),
        Workflow::Apply {
            files,
            expect,
            force,
            wait,
            wait_max,
            dry_run,
            reason,
            waves,
        } => {
            let texts = files.read()?.all;
            each_its_own(&texts)?;
            if dry_run {
                return compare::dry(dir, timeout, output, texts).await;
            }
            for (option, is_said) in [("--expect", expect.is_some()), ("--waves", waves.waves.is_some())] {
                if is_said && texts.len() != 1 {
                    return Err(CliError::Usage(format!("{option} goes with one workflow at a time")));
                }
            }
            let wait = wait.then(|| Duration::from_secs(wait_max));
            let order = Order {
                over: Over { expect, force },
                reason,
                wait,
                waves,
            };
            Work::Apply(texts, order)
        }
        Workflow::List { select } => Work::List(select),
        Workflow::Show { name, revision: None } => Work::Ask(ApiCall::WorkflowShow(name)),
        Workflow::Show {
            name,
            revision: Some(revision),
        } => Work::Ask(ApiCall::WorkflowText { name, revision }),
        Workflow::Test { files, daemon } => Work::Test(files.read()?.all, daemon),
        Workflow::Preview {
            file,
            given,
            types,
            daemon,
        } => Work::Preview(read(&file)?, file, trial::given(&given, &types)?, daemon),
        Workflow::Check {
            name,
            file,
            daemon,
            select,
        } => {
            let text = file.map(|file| read(&file).map(|text| (file, text))).transpose()?;
            Work::Check(checks::Wish {
                name,
                text,
                daemon,
                select,
            })
        }
        Workflow::Diff { files } => Work::Diff(files.read()?),
        Workflow::Revisions { name } => Work::Ask(ApiCall::WorkflowHistory(name)),
        Workflow::Rollback { name, to, reason, yes } => Work::Rollback(name, to, reason, yes),
        Workflow::Nodes { name } => Work::Ask(ApiCall::Nodes(Some(name))),
        Workflow::Status { name } => Work::Status(name),
        // Daemons do these, not the plane.
        Workflow::Restart { part, yes } => {
            let (workflow, what) = (part.name.clone(), format!("starts '{}' anew", part.name));
            let (call, doubt) = (ControlCall::Restart { workflow }, Some(Doubt::of(&what, yes)));
            return control::command(dir, timeout, output, part.into(), call, doubt).await;
        }
        Workflow::Pause { part, yes } => {
            let (workflow, what) = (part.name.clone(), format!("pauses '{}'", part.name));
            let (call, doubt) = (ControlCall::Pause { workflow }, Some(Doubt::of(&what, yes)));
            return control::command(dir, timeout, output, part.into(), call, doubt).await;
        }
        Workflow::Resume { part } => {
            let call = ControlCall::Resume {
                workflow: part.name.clone(),
            };
            return control::command(dir, timeout, output, part.into(), call, None).await;
        }
        Workflow::Logs { part, lines } => {
            let workflow = part.name.clone();
            let place = part.into();
            let wish = logs::Wish { place, workflow, lines };
            return logs::run(dir, timeout, output, wish).await;
        }
        Workflow::Delete { name, expect, yes } => Work::Delete(name, expect, yes),
    };
    let client = Client::connect(dir, timeout, Vec::new()).await?;
    let done = match work {
        Work::Validate(texts) => compare::validate(&client, output, texts).await,
        Work::Apply(texts, order) => apply::run(&client, dir, output, texts, order).await,
        Work::Test(texts, daemon) => trial::test(&client, output, texts, daemon).await,
        Work::Preview(text, file, given, daemon) => trial::preview(&client, output, (file, text), given, daemon).await,
        Work::Check(wish) => checks::run(&client, output, wish).await,
        Work::Diff(texts) => compare::diff(&client, dir, output, texts).await,
        Work::Rollback(name, to, reason, yes) => rollback(&client, dir, output, name, to, reason, yes).await,
        Work::List(select) => list(&client, dir, output, select).await,
        Work::Delete(name, expect, yes) => delete(&client, dir, output, name, expect, yes).await,
        Work::Status(name) => status(&client, output, name).await,
        Work::Ask(call) => client
            .call(&call)
            .await
            .and_then(|result| show(dir, output, call, result)),
    };
    client.close().await;
    done
}

enum Work {
    Validate(Texts),
    Apply(Vec<(PathBuf, String)>, Order),
    Test(Vec<(PathBuf, String)>, Option<String>),
    Preview(String, PathBuf, Vec<Given>, Option<String>),
    Check(checks::Wish),
    Diff(Texts),
    Rollback(String, Option<u32>, Option<String>, bool),
    List(Option<String>),
    Delete(String, Option<u32>, bool),
    Status(String),
    Ask(ApiCall),
}

/// Deletes what was expected or, where somebody is asked, what they were asked about.
async fn delete(
    client: &Client,
    dir: &Path,
    output: Output,
    name: String,
    expect: Option<u32>,
    yes: bool,
) -> Result<(), CliError> {
    let mut expect_revision = expect;
    if !yes {
        let ApiResult::Status { view, .. } = client.call(&ApiCall::WorkflowStatus(name.clone())).await? else {
            return Err(something_else());
        };
        let question = format!(
            "stop workflow '{name}', revision {} by {}, on all its daemons? What is still in their buffers stays there undelivered.",
            view.revision, view.by
        );
        ask::sure(&question, yes)?;
        expect_revision = expect.or(Some(view.revision));
    }
    let call = match expect_revision {
        // Planes of earlier versions know this one, too.
        None => ApiCall::WorkflowDelete(name),
        Some(_) => ApiCall::WorkflowRemove { name, expect_revision },
    };
    match client.call(&call).await {
        // An earlier plane does not know the revision that was only asked about: seen once more, it is the same.
        Err(CliError::Refused(failure)) if failure.kind == FailureKind::Invalid && expect.is_none() => {
            let ApiCall::WorkflowRemove { name, expect_revision } = call else {
                return Err(CliError::Refused(failure));
            };
            match client.call(&ApiCall::WorkflowStatus(name.clone())).await? {
                ApiResult::Status { view, .. } if Some(view.revision) == expect_revision => {
                    let call = ApiCall::WorkflowDelete(name);
                    let result = client.call(&call).await?;
                    show(dir, output, call, result)
                }
                _ => Err(CliError::Refused(failure)),
            }
        }
        result => show(dir, output, call, result?),
    }
}

/// How a workflow is doing, and where its columns are not as agreed.
async fn status(client: &Client, output: Output, name: String) -> Result<(), CliError> {
    let ApiResult::Status { view, parts, streams } = client.call(&ApiCall::WorkflowStatus(name.clone())).await? else {
        return Err(something_else());
    };
    let notes = notes(client, Some(name)).await?;
    let drifts: Vec<_> = notes
        .iter()
        .filter_map(|note| Some((note.daemon.as_str(), note.drift.as_ref()?)))
        .collect();
    let drift: Vec<_> = drifts
        .iter()
        .map(|(daemon, drift)| {
            serde_json::json!({ "daemon": daemon, "what": drift.what, "batches": drift.batches, "ago_ms": drift.ago_ms })
        })
        .collect();
    let all = serde_json::json!({ "view": view, "parts": parts, "streams": streams, "drift": drift });
    let mut text = format!("{}\n{}", render::parts(&parts), render::streams(&streams));
    if !drifts.is_empty() {
        text = format!("{text}\n{}", render::drifts(&drifts));
    }
    Answer::new(&all, parts.iter().map(|part| part.daemon.clone()), text).print(output);
    Ok(())
}

/// What daemons note about a workflow, or about all; nothing where the plane is of an earlier version that does not say.
pub async fn notes(client: &Client, workflow: Option<String>) -> Result<Vec<NoteView>, CliError> {
    match client.call(&ApiCall::Notes(workflow)).await {
        Ok(ApiResult::Notes(notes)) => Ok(notes),
        Ok(_) => Err(something_else()),
        Err(CliError::Refused(failure)) if failure.kind == FailureKind::Invalid => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

async fn list(client: &Client, dir: &Path, output: Output, select: Option<String>) -> Result<(), CliError> {
    let is_narrowed = select.is_some();
    let chosen = Chosen::by(client, select).await?;
    match client.call(&ApiCall::WorkflowList).await? {
        ApiResult::Workflows(mut workflows) if is_narrowed => {
            workflows.retain(|workflow| chosen.runs(workflow));
            let names = workflows.iter().map(|workflow| workflow.name.clone());
            Answer::new(&workflows, names, render::workflows(&workflows)).print(output);
            if workflows.is_empty() {
                eprintln!("no workflow runs there");
            }
            Ok(())
        }
        result => show(dir, output, ApiCall::WorkflowList, result),
    }
}

async fn rollback(
    client: &Client,
    dir: &Path,
    output: Output,
    name: String,
    to: Option<u32>,
    reason: Option<String>,
    yes: bool,
) -> Result<(), CliError> {
    let ApiResult::History(all) = client.call(&ApiCall::WorkflowHistory(name.clone())).await? else {
        return Err(something_else());
    };
    let is_current = |revision: &&RevisionView| revision.is_current;
    let replaced = all.iter().find(is_current);
    let current = replaced.map(|revision| revision.number);
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
    let of = |number| all.iter().find(|revision| revision.number == number);
    let question = match (of(to), replaced) {
        (Some(to), Some(replaced)) => format!(
            "this gives '{name}' the text of revision {} again, on all its daemons, in the place of revision {}",
            seen::whose(to),
            seen::whose(replaced)
        ),
        _ => format!("this deploys '{name}' with the text of revision {to}"),
    };
    ask::sure(&question, yes)?;
    let call = ApiCall::WorkflowText {
        name: name.clone(),
        revision: to,
    };
    let ApiResult::Text(text) = client.call(&call).await? else {
        return Err(something_else());
    };
    let call = apply::deploy(text, Some(current.unwrap_or(0)), reason);
    let ApiResult::Revision(revision) = client.call(&call).await? else {
        return Err(something_else());
    };
    Seen::of(dir).note(&name, revision);
    let data = serde_json::json!({ "name": name, "revision": revision, "text_of": to });
    let said = format!("'{name}' is at revision {revision}, with the text of revision {to}\n");
    Answer::new(&data, [name], said).print(output);
    Ok(())
}

fn show(dir: &Path, output: Output, call: ApiCall, result: ApiResult) -> Result<(), CliError> {
    match result {
        ApiResult::Workflows(workflows) => {
            let names = workflows.iter().map(|workflow| workflow.name.clone());
            Answer::new(&workflows, names, render::workflows(&workflows)).print(output);
            if workflows.is_empty() {
                eprintln!("no workflows yet; deploy one with: mycelial workflow apply FILE");
            }
        }
        ApiResult::Workflow { view, text } => {
            Seen::of(dir).note(&view.name, view.revision);
            let both = serde_json::json!({ "view": view, "text": text });
            Answer::new(&both, [view.name.clone()], text.as_str()).print(output);
        }
        ApiResult::Nodes(nodes) => {
            let names = nodes.iter().map(|node| format!("{}/{}", node.workflow, node.node));
            Answer::new(&nodes, names, render::nodes(&nodes)).print(output);
            if nodes.is_empty() {
                eprintln!("nothing yet: daemons tell within five seconds what their nodes do");
            }
        }
        ApiResult::History(revisions) => {
            if let (ApiCall::WorkflowHistory(name), Some(current)) =
                (call, revisions.iter().find(|revision| revision.is_current))
            {
                Seen::of(dir).note(&name, current.number);
            }
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
