//! `mycelial workflow test` and `preview`: a daemon tries a text. Asks the daemon itself: the plane never sees a record.

use std::path::PathBuf;

use bus_schema::{
    api::{Failure, FailureKind},
    data::BatchError,
    shown::{Rejected, Step},
    trial::{Given, TrialCall, TrialResult},
};
use serde_json::json;

use crate::{
    answer::Answer,
    arguments::Output,
    client::{CliError, Client},
    live,
    requests::find_daemon,
};

/// Which daemon tries a text: the one that is told, else the first that the text names.
fn place(daemon: Option<&str>, text: &str) -> Result<String, CliError> {
    match daemon {
        Some(daemon) => Ok(daemon.to_string()),
        None => places(text).map(|mut places| places.swap_remove(0)),
    }
}

/// The daemons that a text names, each once; at least one.
pub fn places(text: &str) -> Result<Vec<String>, CliError> {
    let table = toml::from_str::<toml::Table>(text).unwrap_or_default();
    let sections = ["sources", "destinations"]
        .into_iter()
        .filter_map(|name| table.get(name)?.as_table());
    let nodes = sections.flat_map(|section| section.values());
    let named = nodes.filter_map(|node| node.get("daemon")?.as_str());
    let mut places: Vec<String> = Vec::new();
    // A selector is no name: names have neither sign.
    for name in named.filter(|name| !name.contains(['=', ':'])) {
        if !places.iter().any(|place| place == name) {
            places.push(name.to_string());
        }
    }
    match places.is_empty() {
        false => Ok(places),
        true => {
            let hint = "the workflow names no daemon\n  hint: say where to try it with --daemon NAME";
            Err(CliError::Usage(hint.to_string()))
        }
    }
}

async fn ask(client: &Client, daemon: &str, call: &TrialCall) -> Result<TrialResult, CliError> {
    let node = find_daemon(client, daemon).await?;
    match client.ask(daemon, &node, call).await? {
        TrialResult::Failed(failure) => Err(CliError::Refused(failure)),
        result => Ok(result),
    }
}

/// Runs the tests of files, and fails when one of them differs.
pub async fn test(
    client: &Client,
    output: Output,
    texts: Vec<(PathBuf, String)>,
    daemon: Option<String>,
) -> Result<(), CliError> {
    let (mut data, mut names, mut lines, mut failed) = (Vec::new(), Vec::new(), String::new(), 0);
    for (file, text) in texts {
        let daemon = place(daemon.as_deref(), &text)?;
        let asked = ask(client, &daemon, &TrialCall::Test { text }).await;
        let asked = asked.map_err(|error| match error {
            CliError::Refused(failure) => CliError::Workflow(file.clone(), failure),
            error => error,
        })?;
        let TrialResult::Verdicts(verdicts) = asked else {
            return Err(CliError::Failed(format!("{daemon} answered something else")));
        };
        for verdict in verdicts {
            let is_good = verdict.differs.is_empty();
            let file = file.display().to_string();
            lines.push_str(&format!(
                "{}  {file}: {}\n",
                if is_good { "ok  " } else { "FAIL" },
                verdict.test
            ));
            verdict
                .differs
                .iter()
                .for_each(|wrong| lines.push_str(&format!("        {wrong}\n")));
            data.push(json!({ "file": file, "test": verdict.test, "daemon": daemon, "ok": is_good, "differs": verdict.differs }));
            if !is_good {
                names.push(verdict.test);
                failed += 1;
            }
        }
    }
    Answer::new(&data, names, lines).print(output);
    match failed {
        0 => Ok(()),
        failed => Err(CliError::Refused(Failure {
            kind: FailureKind::Invalid,
            message: format!("{failed} of {} tests differ", data.len()),
            hint: String::new(),
            problems: Vec::new(),
        })),
    }
}

/// Reads what `--given` and `--type` say.
pub fn given(given: &[String], types: &[String]) -> Result<Vec<Given>, CliError> {
    let pair = |text: &str, form: &str| -> Result<(String, String), CliError> {
        let split = text
            .split_once('=')
            .filter(|(key, value)| !key.is_empty() && !value.is_empty());
        let (key, value) = split.ok_or_else(|| CliError::Usage(format!("'{text}' must be {form}")))?;
        Ok((key.to_string(), value.to_string()))
    };
    let types: Vec<(String, String)> = types
        .iter()
        .map(|text| pair(text, "COLUMN=TYPE, such as at=timestamp_utc"))
        .collect::<Result<_, _>>()?;
    let one = |text: &String| {
        let (source, file) = pair(text, "SOURCE=FILE, such as readings=rows.jsonl")?;
        let lines =
            std::fs::read_to_string(&file).map_err(|error| CliError::Usage(format!("cannot read {file}: {error}")))?;
        Ok(Given {
            source,
            lines,
            types: types.clone(),
        })
    };
    given.iter().map(one).collect()
}

/// Shows what each step makes of records.
pub async fn preview(
    client: &Client,
    output: Output,
    (file, text): (PathBuf, String),
    given: Vec<Given>,
    daemon: Option<String>,
) -> Result<(), CliError> {
    let daemon = place(daemon.as_deref(), &text)?;
    let asked = ask(client, &daemon, &TrialCall::Preview { text, given }).await;
    let asked = asked.map_err(|error| match error {
        CliError::Refused(failure) => CliError::Workflow(file, failure),
        error => error,
    })?;
    let TrialResult::Steps(steps) = asked else {
        return Err(CliError::Failed(format!("{daemon} answered something else")));
    };
    let unreadable = |error: BatchError| CliError::Failed(error.to_string());
    let steps: Vec<Step> = steps
        .into_iter()
        .map(|step| step.try_into().map_err(unreadable))
        .collect::<Result<_, _>>()?;
    let text: String = steps.iter().map(shown).collect();
    Answer::new(&steps, steps.iter().map(|step| step.node.clone()), text).print(output);
    Ok(())
}

fn shown(step: &Step) -> String {
    let batch = step.out.batch();
    let mut text = format!(
        "{} -> {}: {} came, {} go on, {} would be dead letters\n",
        step.from,
        step.node,
        step.came,
        batch.rows(),
        step.rejected.len()
    );
    for row in 0..batch.rows() {
        let fields = batch.schema().fields.iter().enumerate();
        let cells =
            fields.map(|(column, field)| format!("{}={}", field.name, live::shown_cell(batch.cell(row, column))));
        text.push_str(&format!("    {}\n", cells.collect::<Vec<_>>().join("  ")));
    }
    for Rejected { row, reason } in &step.rejected {
        text.push_str(&format!("    row {row} dies: {reason}\n"));
    }
    text
}
