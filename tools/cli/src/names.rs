//! Names of what there is, for the shell's completion. Asks the plane as the command that is being typed would, and gives nothing
//! when it does not answer at once: a shell must not hang.

use std::{collections::BTreeSet, ffi::OsStr, time::Duration};

use bus_schema::{
    api::{ApiCall, ApiResult, GroupCall},
    observe::{ObserveCall, ObserveResult},
    pairing::PairingCall,
};
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate};

use crate::{client::Client, contexts, live::nodes_in};

/// How long a shell may wait.
const PATIENCE: Duration = Duration::from_secs(2);

/// What a name is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Of {
    Daemons,
    Workflows,
    Groups,
    Operators,
    Tokens,
    Components,
    Rollouts,
    Alerts,
    Streams,
    /// Codes of daemons that wait for approval.
    Codes,
    /// Of the workflow that is typed before.
    Nodes,
    /// The terms of a selector.
    Terms,
}

/// Completes the names of daemons.
pub fn daemons() -> ArgValueCompleter {
    named(Of::Daemons)
}

/// Completes the names of workflows.
pub fn workflows() -> ArgValueCompleter {
    named(Of::Workflows)
}

/// Completes the names of groups.
pub fn groups() -> ArgValueCompleter {
    named(Of::Groups)
}

/// Completes the names of operators.
pub fn operators() -> ArgValueCompleter {
    named(Of::Operators)
}

/// Completes the ids of enrolment strings.
pub fn tokens() -> ArgValueCompleter {
    named(Of::Tokens)
}

/// Completes the type names of components.
pub fn components() -> ArgValueCompleter {
    named(Of::Components)
}

/// Completes the numbers of rollouts.
pub fn rollouts() -> ArgValueCompleter {
    named(Of::Rollouts)
}

/// Completes the ids of alerts.
pub fn alerts() -> ArgValueCompleter {
    named(Of::Alerts)
}

/// Completes the names of streams.
pub fn streams() -> ArgValueCompleter {
    named(Of::Streams)
}

/// Completes the codes of daemons that wait for approval.
pub fn codes() -> ArgValueCompleter {
    named(Of::Codes)
}

/// Completes the nodes of the workflow that is typed before.
pub fn nodes() -> ArgValueCompleter {
    named(Of::Nodes)
}

/// Completes the last term of a selector.
pub fn selectors() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &OsStr| {
        let typed = typed.to_string_lossy();
        let (before, term) = typed.split_at(typed.rfind(' ').map_or(0, |at| at + 1));
        let (minus, term) = term.strip_prefix('-').map_or(("", term), |term| ("-", term));
        let found = asked(Of::Terms).into_iter().filter(|found| found.starts_with(term));
        found
            .map(|found| CompletionCandidate::new(format!("{before}{minus}{found}")))
            .collect()
    })
}

/// Completes the names of contexts; asks nobody.
pub fn contexts() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &OsStr| begin(contexts::all().unwrap_or_default(), typed))
}

fn named(of: Of) -> ArgValueCompleter {
    ArgValueCompleter::new(move |typed: &OsStr| begin(asked(of), typed))
}

/// Those that begin with what was typed.
fn begin(found: Vec<String>, typed: &OsStr) -> Vec<CompletionCandidate> {
    let typed = typed.to_string_lossy();
    found
        .into_iter()
        .filter(|name| name.starts_with(&*typed))
        .map(CompletionCandidate::new)
        .collect()
}

fn asked(of: Of) -> Vec<String> {
    let words: Vec<String> = std::env::args_os()
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let asked = async {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let context = option(&words, "--context")
            .or_else(|| variable("MYCELIAL_CONTEXT").and_then(|name| name.into_string().ok()));
        let home = option(&words, "--home").map(Into::into);
        let home = home.or_else(|| variable("MYCELIAL_HOME").map(Into::into));
        let dir = contexts::home_dir(home, context.as_deref()).ok()?;
        let client = Client::connect(&dir, PATIENCE, Vec::new()).await.ok()?;
        let found = match of {
            Of::Terms => terms(&client).await,
            Of::Nodes => match workflow(&words) {
                Some(workflow) => list(&client, ApiCall::WorkflowShow(workflow)).await,
                None => Vec::new(),
            },
            of => list(&client, call(of)).await,
        };
        client.close().await;
        Some(found)
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime
        .ok()
        .and_then(|runtime| runtime.block_on(asked))
        .unwrap_or_default()
}

/// The value of an option among the words that are typed.
fn option(words: &[String], name: &str) -> Option<String> {
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match word.strip_prefix(name) {
            Some("") => return words.next().cloned(),
            Some(rest) if rest.starts_with('=') => return Some(rest[1..].to_string()),
            _ => {}
        }
    }
    None
}

/// The workflow of a tap that is being typed: the first word after `tap` that is no option and no option's value.
fn workflow(words: &[String]) -> Option<String> {
    let after = words.iter().position(|word| word == "tap")? + 1;
    let mut words = words[after..].iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--show-all" | "--verbose" | "-v" => {}
            option if option.starts_with('-') => {
                if !option.contains('=') {
                    words.next();
                }
            }
            "" => {}
            name => return Some(name.to_string()),
        }
    }
    None
}

fn call(of: Of) -> ApiCall {
    match of {
        Of::Daemons | Of::Terms => ApiCall::DaemonList,
        Of::Workflows | Of::Nodes => ApiCall::WorkflowList,
        Of::Groups => ApiCall::Group(GroupCall::List),
        Of::Operators => ApiCall::OperatorList,
        Of::Tokens => ApiCall::TokenList,
        Of::Components => ApiCall::Components,
        Of::Rollouts => ApiCall::RolloutList,
        Of::Alerts => ApiCall::Observe(ObserveCall::Alerts),
        Of::Streams => ApiCall::Ledger,
        Of::Codes => ApiCall::Pairing(PairingCall::List),
    }
}

async fn list(client: &Client, call: ApiCall) -> Vec<String> {
    match client.call(&call).await {
        Ok(ApiResult::Daemons(all)) => all.into_iter().map(|one| one.name).collect(),
        Ok(ApiResult::Workflows(all)) => all.into_iter().map(|one| one.name).collect(),
        Ok(ApiResult::Workflow { text, .. }) => nodes_in(&text),
        Ok(ApiResult::Groups(all)) => all.into_iter().map(|one| one.name).collect(),
        Ok(ApiResult::Operators(all)) => all.into_iter().map(|one| one.name).collect(),
        Ok(ApiResult::Tokens(all)) => all.into_iter().map(|one| one.id.to_string()).collect(),
        Ok(ApiResult::Components(all)) => {
            let names: BTreeSet<String> = all.into_iter().map(|one| one.name).collect();
            names.into_iter().collect()
        }
        Ok(ApiResult::Rollouts(all)) => all.into_iter().map(|one| one.id.to_string()).collect(),
        Ok(ApiResult::Observe(ObserveResult::Alerts(all))) => all.into_iter().map(|one| one.id).collect(),
        Ok(ApiResult::Ledger(all)) => {
            let names = all.into_iter().map(|one| format!("{}/{}", one.workflow, one.edge));
            let names: BTreeSet<String> = names.collect();
            names.into_iter().collect()
        }
        Ok(ApiResult::Pairing(found)) => found.waiting.into_iter().map(|one| one.code).collect(),
        _ => Vec::new(),
    }
}

/// Terms that choose somebody in this fleet.
async fn terms(client: &Client) -> Vec<String> {
    let mut all: BTreeSet<String> = ["presence:online", "presence:late", "presence:offline", "version:"]
        .map(str::to_string)
        .into();
    for (of, key) in [(Of::Daemons, "name"), (Of::Workflows, "runs"), (Of::Groups, "group")] {
        let found = list(client, call(of)).await;
        all.extend(found.into_iter().map(|name| format!("{key}:{name}")));
    }
    if let Ok(ApiResult::Labels(labelled)) = client.call(&ApiCall::DaemonLabels(String::new())).await {
        for (key, value) in labelled.into_iter().flat_map(|one| one.labels) {
            all.insert(format!("{key}={value}"));
            all.insert(format!("label:{key}"));
        }
    }
    all.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_typed_before() {
        let words = |typed: &str| typed.split(' ').map(str::to_string).collect::<Vec<_>>();
        for (typed, home, tapped) in [
            ("mycelial -- mycelial tap orders", None, Some("orders")),
            (
                "mycelial tap --rate 3 --home=/k --show-all orders db",
                Some("/k"),
                Some("orders"),
            ),
            ("mycelial --home /k daemon show ", Some("/k"), None),
            ("mycelial tap --daemon gw", None, None),
        ] {
            assert_eq!(option(&words(typed), "--home").as_deref(), home, "{typed}");
            assert_eq!(workflow(&words(typed)).as_deref(), tapped, "{typed}");
        }
    }
}
