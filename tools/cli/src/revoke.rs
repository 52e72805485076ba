//! `mycelial daemon revoke`: takes daemons out of the fleet for good, having said whom and what that does.

use std::{path::Path, time::Duration};

use bus_schema::{
    api::{ApiCall, ApiResult},
    id::NodeId,
};
use serde::Serialize;

use crate::{
    answer::Answer,
    arguments::{Output, Whom},
    ask::sure,
    client::{CliError, Client},
    many::{self, Doubt, Said, Where},
};

/// Who is no member any more.
#[derive(Debug, Default, Serialize)]
struct Revoked {
    node: Option<NodeId>,
}

/// One by its name or id, or all that a selector chooses.
pub async fn run(dir: &Path, timeout: Duration, output: Output, whom: Whom, yes: bool) -> Result<(), CliError> {
    match whom {
        Whom { name: Some(name), .. } => one(dir, timeout, output, &name, yes).await,
        Whom { name: None, select } => chosen(dir, timeout, output, select.unwrap_or_default(), yes).await,
    }
}

async fn one(dir: &Path, timeout: Duration, output: Output, name: &str, yes: bool) -> Result<(), CliError> {
    let question = format!(
        "this takes '{name}' out of the fleet for good: nobody believes it any more, and what it has not delivered stays on \
         its disk"
    );
    sure(&question, yes)?;
    let client = Client::connect(dir, timeout, Vec::new()).await?;
    let asked = async {
        let ApiResult::Daemon(detail) = client.call(&ApiCall::DaemonShow(name.to_string())).await? else {
            return Err(CliError::Failed("the plane answered something else".to_string()));
        };
        client.call(&ApiCall::DaemonRevoke(detail.view.node)).await?;
        heed(&client).await?;
        Ok(detail)
    };
    let answered = asked.await;
    client.close().await;
    let view = answered?.view;
    let data = serde_json::json!({ "name": view.name, "node": view.node });
    let text = format!("{} ({}) is no member of the fleet any more\n", view.name, view.node);
    Answer::new(&data, [view.name], text).print(output);
    Ok(())
}

async fn chosen(dir: &Path, timeout: Duration, output: Output, selector: String, yes: bool) -> Result<(), CliError> {
    let doubt = Doubt {
        what: "ends membership in the fleet for good, and leaves what is not delivered yet where it is,",
        yes,
        is_final: true,
    };
    let client = Client::connect(dir, timeout, Vec::new()).await?;
    let ask = async |_: &str, node: &NodeId| -> Result<Said<Revoked>, CliError> {
        client.call(&ApiCall::DaemonRevoke(*node)).await?;
        Ok(Said::Done(Revoked { node: Some(*node) }))
    };
    let all = many::each(&client, Where::Selector(selector), None, Some(doubt), ask).await;
    let heeded = match &all {
        Ok(_) => heed(&client).await,
        Err(_) => Ok(()),
    };
    client.close().await;
    let all = all?;
    many::print(output, &all, "was", |gave| {
        gave.node.map_or_else(String::new, |node| node.to_string())
    });
    many::concluded(&all)?;
    heeded
}

/// Takes the roster without them, so that this operator's next message is not sealed with a key that they have.
async fn heed(client: &Client) -> Result<(), CliError> {
    if let ApiResult::Roster(put) = client.call(&ApiCall::Roster).await? {
        client.take_roster(&put);
    }
    Ok(())
}
