//! Lists of other things than daemons, narrowed to what is about the daemons that a selector chooses: streams, workflows, alerts.

use std::{collections::BTreeSet, path::Path, time::Duration};

use bus_schema::{
    api::{ApiCall, ApiResult, StreamView, WorkflowView},
    observe::AlertView,
};

use crate::{
    answer::Answer,
    arguments::Output,
    client::{CliError, Client},
    render,
};

fn something_else() -> CliError {
    CliError::Failed("the plane answered something else".to_string())
}

/// The daemons that are meant, by name; without a selector, all are.
pub struct Chosen(Option<BTreeSet<String>>);

impl Chosen {
    /// Asks the plane whom a selector chooses.
    pub async fn by(client: &Client, select: Option<String>) -> Result<Self, CliError> {
        let Some(select) = select else { return Ok(Self(None)) };
        match client.call(&ApiCall::DaemonSelect(select)).await? {
            ApiResult::Daemons(daemons) => Ok(Self(Some(daemons.into_iter().map(|daemon| daemon.name).collect()))),
            _ => Err(something_else()),
        }
    }

    /// Whether a daemon is meant.
    pub fn has(&self, daemon: &str) -> bool {
        self.0.as_ref().is_none_or(|names| names.contains(daemon))
    }

    /// Whether a stream begins or ends at one of them.
    pub fn is_of(&self, stream: &StreamView) -> bool {
        self.has(&stream.producer) || self.has(&stream.consumer)
    }

    /// Whether a workflow runs on one of them.
    pub fn runs(&self, workflow: &WorkflowView) -> bool {
        self.0.is_none() || workflow.daemons.iter().any(|daemon| self.has(daemon))
    }

    /// Of alerts those about one of them, or about a workflow that runs on one.
    pub async fn alerts(&self, client: &Client, mut alerts: Vec<AlertView>) -> Result<Vec<AlertView>, CliError> {
        if self.0.is_none() {
            return Ok(alerts);
        }
        let ApiResult::Workflows(workflows) = client.call(&ApiCall::WorkflowList).await? else {
            return Err(something_else());
        };
        let here: BTreeSet<&str> = workflows
            .iter()
            .filter(|workflow| self.runs(workflow))
            .map(|workflow| workflow.name.as_str())
            .collect();
        alerts.retain(|alert| self.is_about(&alert.subject, &here));
        Ok(alerts)
    }

    fn is_about(&self, subject: &str, workflows: &BTreeSet<&str>) -> bool {
        match subject.split_once(':') {
            Some(("daemon", name)) => self.has(name),
            Some(("stream", name)) => workflows.contains(name.split('/').next().unwrap_or_default()),
            Some((_, name)) => workflows.contains(name),
            None => false,
        }
    }
}

/// Which streams' accounts.
pub struct Accounts {
    /// Only this workflow's.
    pub workflow: Option<String>,
    /// Only those that begin or end at a daemon that this chooses.
    pub select: Option<String>,
    /// Only those that do not flow, or whose books do not balance.
    pub troubled: bool,
}

/// `mycelial ledger`
pub async fn ledger(dir: &Path, timeout: Duration, output: Output, wish: Accounts) -> Result<(), CliError> {
    let client = Client::connect(dir, timeout, Vec::new()).await?;
    let asked = async {
        let all = match &wish.workflow {
            None => match client.call(&ApiCall::Ledger).await? {
                ApiResult::Ledger(streams) => streams,
                _ => return Err(something_else()),
            },
            Some(name) => match client.call(&ApiCall::WorkflowStatus(name.clone())).await? {
                ApiResult::Status { streams, .. } => streams,
                _ => return Err(something_else()),
            },
        };
        Ok((all, Chosen::by(&client, wish.select).await?))
    };
    let answered = asked.await;
    client.close().await;
    let (mut streams, chosen) = answered?;
    let count = streams.len();
    streams.retain(|stream| {
        let is_ill = !stream.balances || !stream.trouble.is_empty();
        chosen.is_of(stream) && (is_ill || !wish.troubled)
    });
    let names = streams
        .iter()
        .map(|stream| format!("{}/{}", stream.workflow, stream.edge));
    Answer::new(&streams, names, render::streams(&streams)).print(output);
    match (streams.is_empty(), count) {
        (false, _) => {}
        (true, 0) => eprintln!("no streams: no workflow is deployed"),
        (true, count) if wish.troubled => eprintln!("none is in trouble, of {count} streams"),
        (true, count) => eprintln!("none of {count} streams is meant"),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_about_some_daemons() {
        let chosen = Chosen(Some(BTreeSet::from(["gw".to_string()])));
        let workflows = BTreeSet::from(["orders"]);
        for (subject, is_about) in [
            ("daemon:gw", true),
            ("daemon:hub", false),
            ("workflow:orders", true),
            ("workflow:other", false),
            ("stream:orders/db->hub", true),
            ("stream:other/db->hub", false),
            ("orders", false),
        ] {
            assert_eq!(chosen.is_about(subject, &workflows), is_about, "{subject}");
        }
        assert!(Chosen(None).has("anybody"));
    }
}
