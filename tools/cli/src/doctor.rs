//! Checks one thing after the other, and says of each that is wrong what to do. Goes on as far as that makes sense.

mod host;
mod tls;

use std::{collections::BTreeMap, net::ToSocketAddrs, path::Path, time::Duration};

use bus_link::BusAddress;
use bus_schema::api::{ApiCall, ApiResult, DaemonView, Presence};
use futures_util::{StreamExt as _, stream};
use serde::Serialize;

use crate::{
    answer::Answer,
    arguments::Output,
    client::{CliError, Client, open_operator},
    many::AT_ONCE_MAX,
    narrow::Chosen,
};

/// A clock further off than this makes times of records useless, in milliseconds.
const CLOCK_OFF_MS_MAX: i64 = bus_schema::limits::CLOCK_OFF_MS_MAX as i64;

/// Most daemons that are named in one finding.
const NAMED_MAX: usize = 5;
/// Most daemons whose clocks are looked at: each is a question of its own.
const CLOCKS_MAX: usize = 256;

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
    if let Some(error) = look(dir, timeout, None, &mut report).await {
        report.add("end", Verdict::Failed, error.to_string(), "");
    }
    serde_json::to_value(&report.0).unwrap_or_default()
}

/// Runs all checks. Fails when something needs attention.
pub async fn run(dir: &Path, timeout: Duration, output: Output, select: Option<String>) -> Result<(), CliError> {
    let mut report = Report::default();
    let last = look(dir, timeout, select, &mut report).await;
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
async fn look(dir: &Path, timeout: Duration, select: Option<String>, report: &mut Report) -> Option<CliError> {
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
            let said = error.to_string();
            let cause = said.lines().next().unwrap_or_default();
            // Who was reached and says no does run.
            let remedy = match &error {
                CliError::Refused(failure) => failure.hint.as_str(),
                _ => "see that the broker runs, that this host reaches it, and that its certificate is the fleet's",
            };
            report.add("broker", Verdict::Failed, cause, remedy);
            return Some(error);
        }
    };
    report.good("broker", membership.bus.join(", "));
    let outcome = ask(&client, select, report).await;
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

async fn ask(client: &Client, select: Option<String>, report: &mut Report) -> Result<(), CliError> {
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
    let chosen = ApiCall::DaemonSelect(select.clone().unwrap_or_default());
    if let ApiResult::Daemons(daemons) = client.call(&chosen).await? {
        look_at(&daemons, mine, report);
        let online = daemons.iter().filter(|daemon| daemon.presence == Presence::Online);
        let online: Vec<&DaemonView> = online.collect();
        clocks(client, &online, report).await?;
        report.good("daemons", format!("{} of {} online", online.len(), daemons.len()));
    }
    let chosen = Chosen::by(client, select).await?;
    if let ApiResult::Ledger(mut streams) = client.call(&ApiCall::Ledger).await? {
        streams.retain(|stream| chosen.is_of(stream));
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

/// What a list says of them. Those of whom the same is to be said share a line: a site that is cut off is one finding.
fn look_at(daemons: &[DaemonView], mine: &str, report: &mut Report) {
    let away = daemons.iter().filter(|daemon| daemon.presence != Presence::Online);
    let away: Vec<&str> = away.map(|daemon| daemon.name.as_str()).collect();
    if let Some(first) = away.first() {
        let is = if away.len() == 1 { "is" } else { "are" };
        let remedy = format!("on its host: systemctl status myceliald; mycelial daemon show {first}");
        report.add(
            "daemon",
            Verdict::Warning,
            format!("{} {is} not online", several(&away)),
            remedy,
        );
    }
    for daemon in daemons.iter().filter(|daemon| daemon.troubled > 0) {
        let found = format!("'{}' has {} workflows in trouble", daemon.name, daemon.troubled);
        let remedy = format!("mycelial daemon show {}", daemon.name);
        report.add("daemon", Verdict::Warning, found, remedy);
    }
    let mut others: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for daemon in daemons {
        if !daemon.version.is_empty() && daemon.version != mine {
            others.entry(&daemon.version).or_default().push(&daemon.name);
        }
    }
    for (version, names) in others {
        let is = if names.len() == 1 { "is" } else { "are" };
        let found = format!("{} {is} version {version}, this command {mine}", several(&names));
        report.add("version", Verdict::Warning, found, "update the older one");
    }
}

/// `'gw-1'`, or `37 daemons ('gw-1', 'gw-2', …)`.
fn several(names: &[&str]) -> String {
    let quoted: Vec<String> = names.iter().take(NAMED_MAX).map(|name| format!("'{name}'")).collect();
    match names.len() {
        1 => quoted.join(""),
        count if count <= NAMED_MAX => format!("{count} daemons ({})", quoted.join(", ")),
        count => format!("{count} daemons ({}, …)", quoted.join(", ")),
    }
}

/// How far the clocks of those that are there are from the plane's.
async fn clocks(client: &Client, online: &[&DaemonView], report: &mut Report) -> Result<(), CliError> {
    let asked = online.iter().take(CLOCKS_MAX).map(|daemon| async move {
        let detail = client.call(&ApiCall::DaemonShow(daemon.name.clone())).await?;
        let ApiResult::Daemon(detail) = detail else {
            return Err(CliError::Failed("the plane answered something else".to_string()));
        };
        Ok((daemon.name.as_str(), detail.clock_offset_ms))
    });
    let offsets: Vec<Result<(&str, i64), CliError>> = stream::iter(asked).buffered(AT_ONCE_MAX).collect().await;
    let offsets = offsets.into_iter().collect::<Result<Vec<_>, _>>()?;
    told_of_clocks(&offsets, online.len(), report);
    Ok(())
}

fn told_of_clocks(offsets: &[(&str, i64)], online: usize, report: &mut Report) {
    let (good, off): (Vec<_>, Vec<_>) = offsets.iter().partition(|(_, ms)| ms.abs() <= CLOCK_OFF_MS_MAX);
    for (name, ms) in off {
        let found = format!("'{name}' is {ms:+} ms from the plane's clock");
        report.add(
            "clock",
            Verdict::Warning,
            found,
            "set up NTP on its host, or on the plane's",
        );
    }
    let most = good.iter().map(|(_, ms)| ms.abs()).max();
    if let Some(most) = most {
        let rest = match online.saturating_sub(offsets.len()) {
            0 => String::new(),
            rest => format!("; {rest} more were not asked"),
        };
        let count = good.len();
        let s = if count == 1 { "" } else { "s" };
        report.good(
            "clock",
            format!("{count} daemon{s} at most {most} ms from the plane's{rest}"),
        );
    }
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

    #[test]
    fn what_is_true_of_many_is_one_finding() {
        let daemon = |name: &str, presence, version: &str, troubled| DaemonView {
            name: name.into(),
            node: bus_schema::id::NodeId::from_hash(&[1; 32]),
            presence,
            last_seen_ms: None,
            version: version.into(),
            plan_version: 1,
            plan_wanted: 1,
            troubled,
            damaged: 0,
            resources: Default::default(),
        };
        let mut all: Vec<DaemonView> = (0..7)
            .map(|n| daemon(&format!("gw-{n}"), Presence::Offline, "1", 0))
            .collect();
        all.push(daemon("hub", Presence::Online, "2", 3));
        let mut report = Report::default();
        look_at(&all, "1", &mut report);
        told_of_clocks(&[("hub", 40), ("gw-1", -9_000)], 5, &mut report);
        let found: Vec<&str> = report.0.iter().map(|check| check.found.as_str()).collect();
        assert_eq!(
            found,
            [
                "7 daemons ('gw-0', 'gw-1', 'gw-2', 'gw-3', 'gw-4', …) are not online",
                "'hub' has 3 workflows in trouble",
                "'hub' is version 2, this command 1",
                "'gw-1' is -9000 ms from the plane's clock",
                "1 daemon at most 40 ms from the plane's; 3 more were not asked",
            ]
        );
    }
}
