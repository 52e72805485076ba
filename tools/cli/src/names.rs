//! Names of daemons and workflows for the shell's completion. Asks the plane, and gives nothing when it does not answer at
//! once: a shell must not hang.

use std::{ffi::OsStr, time::Duration};

use bus_schema::api::{ApiCall, ApiResult};
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate};

use crate::{client::Client, contexts};

/// How long a shell may wait.
const PATIENCE: Duration = Duration::from_secs(2);

/// Completes the names of daemons.
pub fn daemons() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &OsStr| {
        named(typed, &ApiCall::DaemonList, |result| match result {
            ApiResult::Daemons(daemons) => daemons.into_iter().map(|daemon| daemon.name).collect(),
            _ => Vec::new(),
        })
    })
}

/// Completes the names of workflows.
pub fn workflows() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &OsStr| {
        named(typed, &ApiCall::WorkflowList, |result| match result {
            ApiResult::Workflows(workflows) => workflows.into_iter().map(|workflow| workflow.name).collect(),
            _ => Vec::new(),
        })
    })
}

fn named(typed: &OsStr, call: &ApiCall, names: fn(ApiResult) -> Vec<String>) -> Vec<CompletionCandidate> {
    let asked = async {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let context = variable("MYCELIAL_CONTEXT").and_then(|name| name.into_string().ok());
        let dir = contexts::home_dir(variable("MYCELIAL_HOME").map(Into::into), context.as_deref()).ok()?;
        let client = Client::connect(&dir, PATIENCE, Vec::new()).await.ok()?;
        let result = client.call(call).await;
        client.close().await;
        result.ok().map(names)
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let found = runtime.ok().and_then(|runtime| runtime.block_on(asked));
    let typed = typed.to_string_lossy();
    found
        .unwrap_or_default()
        .into_iter()
        .filter(|name| name.starts_with(&*typed))
        .map(CompletionCandidate::new)
        .collect()
}
