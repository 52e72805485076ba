//! Checks one thing after the other and says, for the first that is wrong, what to do.

use std::{path::Path, time::Duration};

use bus_schema::api::{ApiCall, ApiResult, Presence};

use crate::client::{CliError, Client, open_operator};

/// Runs all checks. An error is the first that failed; what came before is printed as good.
pub async fn run(dir: &Path, timeout: Duration) -> Result<(), CliError> {
    let (home, membership) = open_operator(dir).await?;
    home.identity()?;
    good(&format!("keys in {}", dir.display()));
    let me = membership.certificate.open(&membership.root);
    let me = me.map_err(|error| CliError::Failed(format!("the certificate: {error}; enrol again")))?;
    good(&format!("operator '{}' of fleet {}", me.name, me.fleet));
    drop(home);
    let client = Client::connect(dir, timeout, Vec::new()).await?;
    good(&format!("bus at {}", membership.bus.join(", ")));
    let outcome = ask(&client).await;
    client.close().await;
    outcome
}

async fn ask(client: &Client) -> Result<(), CliError> {
    let started = std::time::Instant::now();
    if let ApiResult::Info(info) = client.call(&ApiCall::Info).await? {
        let ms = started.elapsed().as_secs_f64() * 1e3;
        good(&format!(
            "plane {} version {} answered in {ms:.1} ms",
            info.plane, info.version
        ));
        if info.version != env!("CARGO_PKG_VERSION") {
            warn(&format!(
                "this command is version {}, the plane {}",
                env!("CARGO_PKG_VERSION"),
                info.version
            ));
        }
    }
    let mut troubles = 0;
    if let ApiResult::Daemons(daemons) = client.call(&ApiCall::DaemonList).await? {
        let online = daemons
            .iter()
            .filter(|daemon| daemon.presence == Presence::Online)
            .count();
        good(&format!("{online} of {} daemons online", daemons.len()));
        for daemon in daemons
            .iter()
            .filter(|daemon| daemon.presence != Presence::Online || daemon.troubled > 0)
        {
            troubles += 1;
            warn(&format!(
                "daemon '{}': see: mycelial daemon show {}",
                daemon.name, daemon.name
            ));
        }
    }
    if let ApiResult::Ledger(streams) = client.call(&ApiCall::Ledger).await? {
        for stream in streams
            .iter()
            .filter(|stream| !stream.balances || !stream.trouble.is_empty())
        {
            troubles += 1;
            warn(&format!(
                "stream {} of '{}': {}",
                stream.edge, stream.workflow, stream.trouble
            ));
        }
        good(&format!("{} streams looked at", streams.len()));
    }
    if troubles == 0 {
        return Ok(());
    }
    Err(CliError::Failed(format!("{troubles} thing(s) need attention")))
}

fn good(what: &str) {
    println!("ok    {what}");
}

fn warn(what: &str) {
    println!("WARN  {what}");
}
