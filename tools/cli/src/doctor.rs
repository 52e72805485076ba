//! Checks one thing after the other, and says of each that is wrong what to do. Goes on as far as that makes sense.

mod host;
mod tls;

use std::{net::ToSocketAddrs, path::Path, time::Duration};

use bus_link::BusAddress;
use bus_schema::api::{ApiCall, ApiResult, Presence};
use serde::Serialize;

use crate::{
    answer::Answer,
    arguments::Output,
    client::{CliError, Client, open_operator},
};

/// A clock further off than this makes times of records useless, in milliseconds.
const CLOCK_OFF_MS_MAX: i64 = bus_schema::limits::CLOCK_OFF_MS_MAX as i64;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    Ok,
    Warning,
    Failed,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Check {
    check: &'static str,
    verdict: Verdict,
    found: String,
    /// What to do; empty when all is well.
    remedy: String,
}

#[derive(Default)]
struct Report(Vec<Check>);

impl Report {
    fn good(&mut self, check: &'static str, found: impl Into<String>) {
        self.add(check, Verdict::Ok, found, "");
    }

    fn add(&mut self, check: &'static str, verdict: Verdict, found: impl Into<String>, remedy: impl Into<String>) {
        self.0.push(Check {
            check,
            verdict,
            found: found.into(),
            remedy: remedy.into(),
        });
    }

    /// Notes what failed. `None` ends what depends on it.
    fn tried<T>(&mut self, check: &'static str, tried: Result<T, CliError>, remedy: &str) -> Option<T> {
        tried
            .inspect_err(|error| {
                let said = error.to_string();
                let mut lines = said.lines();
                let found = lines.next().unwrap_or_default().to_string();
                // The error's own hint is better than ours.
                let hint = lines.find_map(|line| line.trim().strip_prefix("hint: "));
                self.add(check, Verdict::Failed, found, hint.unwrap_or(remedy));
            })
            .ok()
    }

    fn text(&self) -> String {
        let line = |check: &Check| {
            let verdict = match check.verdict {
                Verdict::Ok => "ok  ",
                Verdict::Warning => "WARN",
                Verdict::Failed => "FAIL",
            };
            let remedy = match check.remedy.as_str() {
                "" => String::new(),
                remedy => format!("                   do: {remedy}\n"),
            };
            format!("{verdict}  {:<11}  {}\n{remedy}", check.check, check.found)
        };
        self.0.iter().map(line).collect()
    }
}

/// What all checks found.
pub async fn checks(dir: &Path, timeout: Duration) -> serde_json::Value {
    let mut report = Report::default();
    if let Some(error) = look(dir, timeout, &mut report).await {
        report.add("end", Verdict::Failed, error.to_string(), "");
    }
    serde_json::to_value(&report.0).unwrap_or_default()
}

/// Runs all checks. Fails when something needs attention.
pub async fn run(dir: &Path, timeout: Duration, output: Output) -> Result<(), CliError> {
    let mut report = Report::default();
    let last = look(dir, timeout, &mut report).await;
    let troubled = report.0.iter().filter(|check| check.verdict != Verdict::Ok);
    let (names, count): (Vec<String>, usize) = (
        troubled.clone().map(|check| check.check.to_string()).collect(),
        troubled.count(),
    );
    Answer::new(&report.0, names, report.text()).print(output);
    match (last, count) {
        (Some(error), _) => Err(error),
        (None, 0) => Ok(()),
        (None, 1) => Err(CliError::Failed("one thing needs attention".to_string())),
        (None, count) => Err(CliError::Failed(format!("{count} things need attention"))),
    }
}

/// Looks at everything; `Some`: what ended it early.
async fn look(dir: &Path, timeout: Duration, report: &mut Report) -> Option<CliError> {
    let (home, membership) = match open_operator(dir).await {
        Ok(opened) => opened,
        Err(error) => return Some(error),
    };
    let keys = home.identity().map_err(CliError::from);
    report.tried("keys", keys, "enrol again with another --home")?;
    report.good("keys", format!("in {}", dir.display()));
    let me = membership.certificate.open(&membership.root);
    let me = me.map_err(|error| CliError::Failed(format!("the certificate does not verify: {error}")));
    let me = report.tried("certificate", me, "enrol again")?;
    report.good("certificate", format!("operator '{}' of fleet {}", me.name, me.fleet));
    let probe = home.store("doctor", b"a probe").map_err(CliError::from);
    if report
        .tried("disk", probe, "make room, or mend the rights of the directory")
        .is_some()
    {
        let _gone = std::fs::remove_file(dir.join("doctor"));
        report.good("disk", "the keys' directory can be written");
    }
    drop(home);
    host::look(dir, report);
    for bus in &membership.bus {
        if let Some(address) = names(bus, report).filter(BusAddress::tls) {
            tls::look(address, membership.ca.clone(), timeout, report).await;
        }
    }
    let client = match Client::connect(dir, timeout, Vec::new()).await {
        Ok(client) => client,
        Err(error) => {
            let remedy = "see that the broker runs, that this host reaches it, and that its certificate is the fleet's";
            let cause = error.to_string().lines().next().unwrap_or_default().to_string();
            report.add("broker", Verdict::Failed, cause, remedy);
            return Some(error);
        }
    };
    report.good("broker", membership.bus.join(", "));
    let outcome = ask(&client, report).await;
    client.close().await;
    outcome.err()
}

/// Whether the name of a broker has an address; `Some`: it has.
fn names(bus: &str, report: &mut Report) -> Option<BusAddress> {
    let Ok(address) = bus.parse::<BusAddress>() else {
        report.add(
            "dns",
            Verdict::Failed,
            format!("'{bus}' is no address of a broker"),
            "enrol again",
        );
        return None;
    };
    match (address.host(), address.port()).to_socket_addrs() {
        Ok(found) => {
            let found: Vec<String> = found.map(|address| address.ip().to_string()).collect();
            report.good("dns", format!("{} is {}", address.host(), found.join(", ")));
            Some(address)
        }
        Err(error) => {
            report.add(
                "dns",
                Verdict::Warning,
                format!("{} has no address: {error}", address.host()),
                "see /etc/resolv.conf and the name server",
            );
            None
        }
    }
}

async fn ask(client: &Client, report: &mut Report) -> Result<(), CliError> {
    let mine = env!("CARGO_PKG_VERSION");
    let started = std::time::Instant::now();
    let info = client.call(&ApiCall::Info).await.inspect_err(|error| {
        let remedy = "see that mycelial-plane runs, and its log";
        report.add("plane", Verdict::Failed, error.to_string(), remedy);
    })?;
    if let ApiResult::Info(info) = info {
        let ms = started.elapsed().as_secs_f64() * 1e3;
        report.good("plane", format!("{} answered in {ms:.1} ms", info.plane));
        match info.version == mine {
            true => report.good("version", format!("the plane's is this command's: {mine}")),
            false => report.add(
                "version",
                Verdict::Warning,
                format!("this command is version {mine}, the plane {}", info.version),
                "update the older one",
            ),
        }
    }
    if let ApiResult::Daemons(daemons) = client.call(&ApiCall::DaemonList).await? {
        for daemon in &daemons {
            let name = &daemon.name;
            let mut warn = |check, found: String, remedy: String| report.add(check, Verdict::Warning, found, remedy);
            if daemon.presence != Presence::Online {
                let remedy = format!("on its host: systemctl status myceliald; mycelial daemon show {name}");
                warn("daemon", format!("'{name}' is not online"), remedy);
            }
            if daemon.troubled > 0 {
                let found = format!("'{name}' has {} workflows in trouble", daemon.troubled);
                warn("daemon", found, format!("mycelial daemon show {name}"));
            }
            if !daemon.version.is_empty() && daemon.version != mine {
                let found = format!("'{name}' is version {}, this command {mine}", daemon.version);
                warn("version", found, "update the older one".to_string());
            }
            if daemon.presence == Presence::Online
                && let ApiResult::Daemon(detail) = client.call(&ApiCall::DaemonShow(name.clone())).await?
                && detail.clock_offset_ms.abs() > CLOCK_OFF_MS_MAX
            {
                let found = format!("'{name}' is {:+} ms from the plane's clock", detail.clock_offset_ms);
                warn("clock", found, "set up NTP on its host, or on the plane's".to_string());
            }
        }
        let online = daemons.iter().filter(|daemon| daemon.presence == Presence::Online);
        report.good("daemons", format!("{} of {} online", online.count(), daemons.len()));
    }
    if let ApiResult::Ledger(streams) = client.call(&ApiCall::Ledger).await? {
        for stream in streams
            .iter()
            .filter(|stream| !stream.balances || !stream.trouble.is_empty())
        {
            let trouble = match stream.trouble.as_str() {
                "" => "its books do not balance",
                trouble => trouble,
            };
            let found = format!("{} of '{}': {trouble}", stream.edge, stream.workflow);
            report.add(
                "stream",
                Verdict::Warning,
                found,
                format!("mycelial workflow status {}", stream.workflow),
            );
        }
        report.good("streams", format!("{} looked at", streams.len()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_finding_has_a_line_and_a_remedy() {
        let mut report = Report::default();
        report.good("keys", "in /k");
        let failed = Err::<(), _>(CliError::Usage("no keys\n  hint: mycelial init myc1…".to_string()));
        assert!(report.tried("keys", failed, "something else").is_none());
        names("nats://127.0.0.1:4222", &mut report);
        names("not an address", &mut report);
        assert_eq!(
            report.text(),
            "ok    keys         in /k\n\
             FAIL  keys         no keys\n                   do: mycelial init myc1…\n\
             ok    dns          127.0.0.1 is 127.0.0.1\n\
             FAIL  dns          'not an address' is no address of a broker\n                   do: enrol again\n"
        );
    }
}
