//! `mycelial operator`: members of the fleet with the operator's role.

use std::{path::Path, time::Duration};

use bus_link::settings::nearest;
use bus_schema::api::{ApiCall, ApiResult, OperatorView};
use clap::Subcommand;

use crate::{
    answer::Answer,
    arguments::Output,
    ask::sure,
    client::{CliError, Client},
    names,
    render::{clock_time, table},
};

/// `mycelial operator`
#[derive(Debug, Subcommand)]
pub enum Operator {
    /// All operators.
    List,
    /// Take an operator out of the fleet for good: no daemon obeys it any more, and it reads nothing more. Enrolment strings
    /// that it made keep working; see `mycelial token list`.
    Revoke {
        /// Its name or id.
        #[arg(add = names::operators())]
        name: String,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
}

/// Does what was typed.
pub async fn run(dir: &Path, timeout: Duration, output: Output, what: Operator) -> Result<(), CliError> {
    if let Operator::Revoke { name, yes } = &what {
        let question = format!("this takes the operator '{name}' out of the fleet for good: nobody obeys it any more");
        sure(&question, *yes)?;
    }
    let client = Client::connect(dir, timeout, Vec::new()).await?;
    let done = match what {
        Operator::List => all(&client).await.map(|all| {
            let names = all.iter().map(|one| one.name.clone());
            Answer::new(&all, names, shown(&all)).print(output);
        }),
        Operator::Revoke { name, .. } => revoke(&client, &name).await.map(|one| {
            let data = serde_json::json!({ "name": one.name, "node": one.node });
            let text = format!("{} ({}) is no operator any more\n", one.name, one.node);
            Answer::new(&data, [one.name], text).print(output);
        }),
    };
    client.close().await;
    done
}

async fn all(client: &Client) -> Result<Vec<OperatorView>, CliError> {
    match client.call(&ApiCall::OperatorList).await? {
        ApiResult::Operators(all) => Ok(all),
        _ => Err(CliError::Failed("the plane answered something else".to_string())),
    }
}

async fn revoke(client: &Client, name: &str) -> Result<OperatorView, CliError> {
    let mut all = all(client).await?;
    let Some(at) = all.iter().position(|one| one.name == name || one.node.as_str() == name) else {
        let near = nearest(name, all.iter().map(|one| one.name.as_str()));
        let hint = near.map_or("mycelial operator list".to_string(), |near| {
            format!("did you mean '{near}'?")
        });
        return Err(CliError::not_found(format!("there is no operator '{name}'"), &hint));
    };
    let one = all.swap_remove(at);
    client.call(&ApiCall::OperatorRevoke(one.node)).await?;
    // So that this operator's next message is not sealed with a key that the other one has.
    if let ApiResult::Roster(put) = client.call(&ApiCall::Roster).await? {
        client.take_roster(&put);
    }
    Ok(one)
}

fn shown(all: &[OperatorView]) -> String {
    let row = |one: &OperatorView| {
        let since = match one.enrolled_unix_ms {
            0 => String::new(),
            since => clock_time(since),
        };
        vec![one.name.clone(), one.node.to_string(), one.fingerprint.clone(), since]
    };
    table(
        &["name", "id", "fingerprint", "since (utc)"],
        &all.iter().map(row).collect::<Vec<_>>(),
    )
}
