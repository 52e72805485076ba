//! `mycelial workflow validate` and `diff`: what is wrong with texts, and what applying them would change. Changes nothing.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use bus_schema::api::{ApiCall, ApiResult, Failure, FailureKind};
use serde_json::{Value, json};

use crate::{
    answer::Answer,
    apply::{self, current},
    arguments::Output,
    client::{CliError, Client},
    files::{Texts, name_in},
    rollouts,
    seen::Seen,
};

/// Says everything that is wrong with texts.
pub async fn validate(client: &Client, output: Output, texts: Texts) -> Result<(), CliError> {
    let (of, faulty) = (texts.all.len(), apply::faulty(client, &texts.all).await?);
    let problems = faulty
        .iter()
        .flat_map(|(file, problems)| problems.iter().map(move |problem| (file, problem)));
    let (mut data, mut places) = (Vec::new(), Vec::new());
    for (file, problem) in problems {
        let mut one = serde_json::to_value(problem).unwrap_or_default();
        one["file"] = json!(file);
        data.push(one);
        places.push(problem.place.clone());
    }
    Answer::new(&data, places, "").print(output);
    match (faulty.is_empty(), of) {
        (true, 1) => eprintln!("the workflow is good"),
        (true, of) => eprintln!("all {of} workflows are good"),
        (false, _) => {}
    }
    apply::told(faulty, of, "")
}

/// The lines that go and come, with a few around them.
fn differences(old: &str, new: &str) -> String {
    let diff = similar::TextDiff::from_lines(old, new);
    diff.unified_diff().context_radius(3).to_string()
}

/// What applying texts would change, without doing so.
pub async fn dry(dir: &Path, timeout: Duration, output: Output, texts: Vec<(PathBuf, String)>) -> Result<(), CliError> {
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

/// What applying one text would change.
struct Difference {
    name: String,
    revision: u32,
    lines: String,
    data: Value,
    text: String,
}

async fn difference(client: &Client, text: &str) -> Result<Difference, CliError> {
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
    let data = json!({
        "name": name, "revision": revision, "differs": !lines.is_empty(), "diff": lines,
        "nodes": meant.as_ref().map(|diff| &diff.nodes), "daemons": meant.as_ref().map(|diff| &diff.daemons),
    });
    let shown = match meant.filter(|_| !lines.is_empty()) {
        Some(meant) => format!("{}\n{lines}", rollouts::render_diff(&meant)),
        None => lines.clone(),
    };
    Ok(Difference {
        name,
        revision,
        lines,
        data,
        text: shown,
    })
}

/// Shows what applying texts would change, and fails when something would.
pub async fn diff(client: &Client, dir: &Path, output: Output, texts: Texts) -> Result<(), CliError> {
    let mut all = Vec::with_capacity(texts.all.len());
    for (_, text) in &texts.all {
        all.push(difference(client, text).await?);
    }
    let mut seen = Seen::of(dir);
    all.iter().for_each(|one| seen.note(&one.name, one.revision));
    let names = all.iter().map(|one| one.name.clone());
    match (texts.is_one, all.as_slice()) {
        (true, [one]) => Answer::new(&one.data, names, one.text.as_str()).print(output),
        _ => {
            let data: Vec<&Value> = all.iter().map(|one| &one.data).collect();
            let headed = |one: &Difference| match one.lines.as_str() {
                "" => String::new(),
                _ => format!("# {}\n\n{}\n", one.name, one.text),
            };
            Answer::new(&data, names, all.iter().map(headed).collect::<String>()).print(output);
        }
    }
    let (same, differ): (Vec<&Difference>, Vec<&Difference>) = all.iter().partition(|one| one.lines.is_empty());
    for one in same {
        eprintln!("'{}' is as it is deployed: revision {}", one.name, one.revision);
    }
    let said = differ.iter().map(|one| match one.revision {
        0 => format!("there is no workflow '{}' yet: all of it would be new", one.name),
        revision => format!("it differs from revision {revision} of '{}'", one.name),
    });
    let message = said.collect::<Vec<_>>().join("\n");
    match differ.is_empty() {
        true => Ok(()),
        false => Err(CliError::Refused(Failure {
            kind: FailureKind::Invalid,
            message,
            hint: String::new(),
            problems: Vec::new(),
        })),
    }
}

fn something_else() -> CliError {
    CliError::Failed("the plane answered something else".to_string())
}
