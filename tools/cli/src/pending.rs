//! `mycelial enrol`: daemons that wait for approval without an enrolment string of their own.

use std::path::Path;
use std::time::Duration;

use bus_schema::{
    api::{ApiCall, ApiResult},
    pairing::{PairingCall, PairingResult, PendingView},
};
use clap::Subcommand;

use crate::{
    answer::Answer,
    arguments::{Output, duration_s},
    client::{CliError, Client},
    names,
    render::{clock_time, table},
};

/// `mycelial enrol`
#[derive(Debug, Subcommand)]
pub enum Enrol {
    /// Let daemons wait for approval for a while; print the string they need. It is always the same and no secret, so it can be
    /// part of an image: whoever uses it waits until its code is approved.
    Open {
        /// For how long: 30m, 24h, 7d.
        #[arg(long = "for", default_value = "1h", value_parser = duration_s, value_name = "TIME")]
        for_s: u64,
    },
    /// Let none wait any more.
    Close,
    /// Daemons that wait, with the codes they show.
    Pending,
    /// Make the daemon that shows this code a member. Compare it with what the daemon itself shows.
    Approve {
        /// The code, as the daemon shows it.
        #[arg(add = names::codes())]
        code: String,
        /// Another name than the one it asks for.
        #[arg(long)]
        name: Option<String>,
    },
    /// Turn the daemon that shows this code away.
    Reject {
        /// The code, as the list shows it.
        #[arg(add = names::codes())]
        code: String,
    },
}

/// Does what was typed.
pub async fn run(dir: &Path, timeout: Duration, output: Output, what: Enrol) -> Result<(), CliError> {
    let (call, done) = match what {
        Enrol::Open { for_s } => (PairingCall::Open { ttl_s: for_s }, ""),
        Enrol::Close => (PairingCall::Close, ""),
        Enrol::Pending => (PairingCall::List, ""),
        Enrol::Approve { code, name } => (PairingCall::Approve { code, name }, "is a member now"),
        Enrol::Reject { code } => (PairingCall::Reject { code }, "is turned away"),
    };
    let is_close = call == PairingCall::Close;
    let client = Client::connect(dir, timeout, Vec::new()).await?;
    let answered = client.call(&ApiCall::Pairing(call)).await;
    client.close().await;
    match answered? {
        ApiResult::Token(string) => {
            Answer::new(&string, [string.clone()], format!("{string}\n")).print(output);
            eprintln!("on each new host: myceliald enrol <string>, then: mycelial enrol pending");
        }
        ApiResult::Pairing(PairingResult { done: name, .. }) if !name.is_empty() => {
            let data = serde_json::json!({ "name": name });
            Answer::new(&data, [name.clone()], format!("{name} {done}\n")).print(output);
        }
        ApiResult::Pairing(_) if is_close => {
            Answer::new(
                &serde_json::json!({ "open": false }),
                [],
                "no daemon is let in without a string of its own\n",
            )
            .print(output);
        }
        ApiResult::Pairing(PairingResult { waiting, .. }) => {
            let codes = waiting.iter().map(|view| view.code.clone());
            Answer::new(&waiting, codes, shown(&waiting)).print(output);
            if waiting.is_empty() {
                eprintln!("nobody waits; let daemons wait with: mycelial enrol open");
            }
        }
        _ => return Err(CliError::Failed("the plane answered something else".to_string())),
    }
    Ok(())
}

fn shown(waiting: &[PendingView]) -> String {
    let row = |view: &PendingView| {
        vec![
            view.code.clone(),
            view.name.clone(),
            view.host.hostname.clone(),
            format!("{} {}", view.host.os, view.host.arch),
            view.host.version.clone(),
            clock_time(view.since_unix_ms),
        ]
    };
    table(
        &["code", "name", "host", "system", "version", "since (utc)"],
        &waiting.iter().map(row).collect::<Vec<_>>(),
    )
}
