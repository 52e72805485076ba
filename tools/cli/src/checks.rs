//! `mycelial workflow check`: daemons try to reach what a workflow's sources and destinations connect to. Asks the daemons
//! themselves: only from there can be told what can be reached.

use std::{path::PathBuf, time::Duration};

use bus_schema::{
    api::{ApiCall, ApiResult, Failure, FailureKind},
    shown::Checked,
    trial::{Checkup, TrialCall, TrialResult},
};

use crate::{
    answer::Answer,
    arguments::Output,
    client::{CliError, Client},
    narrow::Chosen,
    requests::find_daemon,
    trial,
};

/// How long a daemon may take: it waits for servers that say nothing.
const ANSWER_WAIT: Duration = Duration::from_secs(60);

/// What is to be checked, and from where.
pub struct Wish {
    /// A workflow that is deployed,
    pub name: Option<String>,
    /// or a text.
    pub text: Option<(PathBuf, String)>,
    /// From this daemon only.
    pub daemon: Option<String>,
    /// Of its daemons only from those that this chooses.
    pub select: Option<String>,
}

/// Checks, and fails when something is wrong.
pub async fn run(client: &Client, output: Output, wish: Wish) -> Result<(), CliError> {
    let select = wish.select;
    let (file, call, mut daemons) = match (wish.name, wish.text) {
        (Some(workflow), _) => {
            let daemons = match wish.daemon {
                Some(daemon) => vec![daemon],
                None => those_that_run(client, &workflow).await?,
            };
            (None, TrialCall::CheckPlanned { workflow }, daemons)
        }
        (None, Some((file, text))) => {
            let daemons = match wish.daemon {
                Some(daemon) => vec![daemon],
                None => trial::places(&text)?,
            };
            (Some(file), TrialCall::Check { text }, daemons)
        }
        (None, None) => return Err(CliError::Usage("name a workflow, or a file with -f".to_string())),
    };
    if let Some(select) = select {
        let chosen = Chosen::by(client, Some(select.clone())).await?;
        daemons.retain(|daemon| chosen.has(daemon));
        if daemons.is_empty() {
            let message = format!("none of the workflow's daemons is chosen by '{select}'");
            return Err(CliError::not_found(message, "mycelial daemon list"));
        }
    }
    let (mut data, mut lines, mut ill) = (Vec::new(), String::new(), Vec::new());
    for daemon in &daemons {
        let node = find_daemon(client, daemon).await?;
        let checkups = match client.ask_within(daemon, &node, &call, ANSWER_WAIT).await? {
            TrialResult::Checkups(checkups) => checkups,
            TrialResult::Failed(failure) => {
                return Err(match file {
                    Some(file) => CliError::Workflow(file, failure),
                    None => CliError::Refused(failure),
                });
            }
            _ => return Err(CliError::Failed(format!("{daemon} answered something else"))),
        };
        for checkup in checkups {
            lines.push_str(&shown(daemon, &checkup));
            if checkup.trouble.is_some() {
                ill.push(format!("{daemon}/{}", checkup.node));
            }
            data.push(Checked::new(daemon, checkup));
        }
    }
    let count = (ill.len(), data.len());
    Answer::new(&data, ill, lines).print(output);
    match count {
        (0, _) => Ok(()),
        (ill, all) => Err(CliError::Refused(Failure {
            kind: FailureKind::Invalid,
            message: format!("{ill} of {all} nodes would not work"),
            hint: String::new(),
            problems: Vec::new(),
        })),
    }
}

async fn those_that_run(client: &Client, workflow: &str) -> Result<Vec<String>, CliError> {
    match client.call(&ApiCall::WorkflowStatus(workflow.to_string())).await? {
        ApiResult::Status { parts, .. } => Ok(parts.into_iter().map(|part| part.daemon).collect()),
        _ => Err(CliError::Failed("the plane answered something else".to_string())),
    }
}

fn shown(daemon: &str, checkup: &Checkup) -> String {
    let Checkup {
        node,
        component,
        took_ms,
        found,
        ..
    } = checkup;
    match &checkup.trouble {
        None => format!("ok    {daemon}/{node} ({component}, {took_ms} ms): {found}\n"),
        Some(trouble) => format!(
            "FAIL  {daemon}/{node} ({component}, {took_ms} ms): {}: {}\n        hint: {}\n",
            trouble.kind.name(),
            trouble.cause,
            trouble.remedy
        ),
    }
}
