//! Commands that go on for a while: taps and messages.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Read,
    path::Path,
    time::Duration,
};

use bus_link::{
    home::Home,
    session::{Incoming, SessionEvent},
};
use bus_schema::{
    api::{ApiCall, ApiResult, Presence},
    data::{Batch, Cell},
    id::{NodeId, WorkflowId},
    message::{Ping, Pong, TapOpen, TapSample, Text},
    redact::{self, Redact},
    shown::{HIDDEN, Record, Records},
    subject::{self, Lane, Pattern},
};
use futures_util::{StreamExt as _, stream};

use crate::{
    answer::print_item,
    arguments::Output,
    client::{CliError, Client},
    many::{self, Target, Where},
};

/// Names columns, with commas between them, that no tap shows.
const REDACT: &str = "MYCELIAL_REDACT";
/// Lease of a tap; renewed while the command runs, so a tap whose command died ends soon.
const TAP_LEASE: Duration = Duration::from_secs(15);
/// How often it is renewed.
const TAP_RENEW: Duration = Duration::from_secs(5);

/// What to tap.
pub struct Wish {
    /// On which daemons.
    pub place: Where,
    pub workflow: String,
    pub node: String,
    /// Columns whose values are not shown.
    pub redact: Redact,
    pub rate: u32,
    pub seconds: u64,
    pub count: Option<u64>,
}

/// Columns that a tap does not show: those that were typed, those that the environment names for everything that is typed here, and
/// those named like passwords unless `show_all`.
pub fn redacted(columns: Vec<String>, show_all: bool) -> Result<Redact, CliError> {
    hidden(columns, &std::env::var(REDACT).unwrap_or_default(), show_all)
}

fn hidden(mut columns: Vec<String>, always: &str, show_all: bool) -> Result<Redact, CliError> {
    let always = always.split(',').map(str::trim).filter(|column| !column.is_empty());
    columns.extend(always.map(str::to_string));
    if !show_all {
        columns.extend(redact::USUAL.map(str::to_string));
    }
    Redact::new(&columns).map_err(|wrong| CliError::Usage(format!("what is not to be shown: {wrong}")))
}

/// Shows records that pass a node.
pub async fn tap(dir: &Path, timeout: Duration, output: Output, wish: Wish) -> Result<(), CliError> {
    let client = Client::connect(dir, timeout, Vec::new()).await?;
    let done = watch(&client, output, &wish).await;
    client.close().await;
    done
}

async fn watch(client: &Client, output: Output, wish: &Wish) -> Result<(), CliError> {
    let daemons = tappable(client, wish).await?;
    let open = TapOpen {
        workflow: WorkflowId::of_name(&wish.workflow),
        node: wish.node.clone(),
        rate_max: wish.rate,
        lease_ms: TAP_LEASE.as_millis() as u32,
    };
    let mut renew = tokio::time::interval(TAP_RENEW);
    let end = tokio::time::sleep(Duration::from_secs(wish.seconds));
    tokio::pin!(end);
    let mut shown = 0;
    let mut refusals: BTreeMap<NodeId, String> = BTreeMap::new();
    let mut events = client.events.lock().await;
    eprintln!(
        "tapping '{}' of '{}' for {} s; Ctrl-C ends it",
        wish.node, wish.workflow, wish.seconds
    );
    let result = loop {
        tokio::select! {
            () = &mut end => break Ok(()),
            _ = tokio::signal::ctrl_c() => break Err(CliError::Interrupted),
            _ = renew.tick() => {
                // Who said no would write it into its audit each time.
                for node in daemons.iter().filter(|node| !refusals.contains_key(node)) {
                    client.session.send(node, &open).await?;
                }
            }
            event = events.recv() => match event {
                Some(SessionEvent::Message(message)) if message.is::<TapSample>() => {
                    match sample(&message, output, &open, &wish.redact, wish.count.map(|count| count - shown.min(count))) {
                        Ok(None) => {}
                        Ok(Some(rows)) => shown += rows,
                        // Others may run that node.
                        Err(refused) => drop(refusals.insert(message.sender.node, refused)),
                    }
                    if refusals.len() >= daemons.len() {
                        let causes: Vec<&str> = refusals.values().map(String::as_str).collect();
                        break Err(CliError::Failed(causes.join("\n")));
                    }
                    if wish.count.is_some_and(|count| shown >= count) { break Ok(()); }
                }
                Some(SessionEvent::Down { cause }) => eprintln!("connection lost: {cause}; trying again"),
                Some(_) => {}
                None => break Err(CliError::Unreachable("the connection was closed".to_string())),
            }
        }
    };
    // Its lease would end it as well, and until then it would fill the line.
    let close = TapOpen { lease_ms: 0, ..open };
    for node in daemons.iter().filter(|node| !refusals.contains_key(node)) {
        let _ = client.session.send(node, &close).await;
    }
    eprintln!("{shown} records shown");
    result
}

/// The daemons that can be tapped. Says who is not there; nobody waits for records that cannot come.
async fn tappable(client: &Client, wish: &Wish) -> Result<Vec<NodeId>, CliError> {
    let mut targets = many::targets(client, wish.place.clone()).await?;
    if targets.iter().any(|target| target.presence.is_some()) {
        match client.call(&ApiCall::WorkflowShow(wish.workflow.clone())).await? {
            ApiResult::Workflow { text, .. } => {
                is_there(&text, wish)?;
                if !matches!(wish.place, Where::Daemon(_)) {
                    targets = runners(client, text, &wish.node, targets).await?;
                }
            }
            _ => return Err(CliError::Failed("the plane answered something else".to_string())),
        }
    }
    let asked = targets.into_iter().map(|target| async move {
        let is_there = answers(client, &target).await;
        (target, is_there)
    });
    let asked: Vec<(Target, Result<(), CliError>)> = stream::iter(asked).buffered(many::AT_ONCE_MAX).collect().await;
    let (mut away, mut there) = (Vec::new(), Vec::with_capacity(asked.len()));
    for (target, is_there) in asked {
        match is_there {
            Ok(()) => there.push(target.node),
            Err(CliError::Unreachable(_)) => away.push(target.name),
            Err(error) => return Err(error),
        }
    }
    match (there.is_empty(), away.is_empty()) {
        (true, true) => {
            let message = format!("'{}' runs on no daemon", wish.workflow);
            let hint = format!("mycelial workflow status {}", wish.workflow);
            Err(CliError::not_found(message, &hint))
        }
        (true, false) => {
            let text = format!("not online, and nobody else is asked: {}", away.join(", "));
            Err(CliError::Unreachable(format!("{text}\n  hint: mycelial daemon list")))
        }
        (false, true) => Ok(there),
        (false, false) => {
            eprintln!("not online, nothing is shown of them: {}", away.join(", "));
            Ok(there)
        }
    }
}

/// Whether a daemon is there: who is known to be is not asked, nor who is known not to be.
async fn answers(client: &Client, target: &Target) -> Result<(), CliError> {
    client.know(&target.node).await?;
    match target.presence {
        Some(Presence::Online) => Ok(()),
        Some(Presence::Offline) => Err(CliError::Unreachable(String::new())),
        // The plane is away, or has just started.
        Some(Presence::Late | Presence::Unknown) | None => {
            let ping = Ping { nonce: 1 };
            client
                .ask::<Ping, Pong>(&target.name, &target.node, &ping)
                .await
                .map(drop)
        }
    }
}

/// Of a workflow's daemons those that run a node; all, where the plane does not say.
async fn runners(client: &Client, text: String, node: &str, all: Vec<Target>) -> Result<Vec<Target>, CliError> {
    let diff = match client.call(&ApiCall::WorkflowDiff { text }).await {
        Ok(ApiResult::Diff(diff)) => diff,
        Err(error @ CliError::Unreachable(_)) => return Err(error),
        // What runs may be no good any more, and runs on.
        Ok(_) | Err(_) => return Ok(all),
    };
    let others: BTreeSet<&str> = diff
        .daemons
        .iter()
        .filter(|daemon| !daemon.nodes.iter().any(|known| known == node))
        .map(|daemon| daemon.daemon.as_str())
        .collect();
    let is_runner = |target: &Target| !others.contains(target.name.as_str());
    match all.iter().any(is_runner) {
        true => Ok(all.into_iter().filter(is_runner).collect()),
        // An edge is no node of anybody's.
        false => Ok(all),
    }
}

/// Whether a workflow has the node that is wished; an edge, such as `lines->out`, is known where it begins and ends.
fn is_there(text: &str, wish: &Wish) -> Result<(), CliError> {
    let nodes = nodes_in(text);
    if wish.node.contains("->") || nodes.contains(&wish.node) {
        return Ok(());
    }
    let hint = match bus_link::settings::nearest(&wish.node, nodes.iter().map(String::as_str)) {
        Some(near) => format!("did you mean '{near}'?"),
        None => format!("it has: {}", nodes.join(", ")),
    };
    let message = format!("there is no node '{}' in '{}'", wish.node, wish.workflow);
    Err(CliError::not_found(message, &hint))
}

/// The nodes that a workflow's text names.
pub fn nodes_in(text: &str) -> Vec<String> {
    let table = toml::from_str::<toml::Table>(text).unwrap_or_default();
    let sections = ["sources", "transforms", "destinations"].into_iter();
    let nodes = sections.filter_map(|section| table.get(section)?.as_table());
    nodes.flat_map(|nodes| nodes.keys().cloned()).collect()
}

/// Prints a sample of this tap; returns how many records it held, or why the tap was refused. `None`: it is another tap's, of
/// the same operator.
fn sample(
    message: &Incoming,
    output: Output,
    tap: &TapOpen,
    redact: &Redact,
    most: Option<u64>,
) -> Result<Option<u64>, String> {
    let sample: TapSample = message.read().map_err(|error| error.to_string())?;
    if (sample.workflow, &sample.node) != (tap.workflow, &tap.node) {
        return Ok(None);
    }
    if !sample.refused.is_empty() {
        return Err(format!("{}: {}", message.sender.name, sample.refused));
    }
    let records = Records::decode(&sample.batch).map_err(|error| error.to_string())?;
    let records = records.hiding(|column| redact.hides(column));
    let batch = records.batch();
    let rows = (batch.rows() as u64).min(most.unwrap_or(u64::MAX));
    for (row, record) in records.rows().enumerate().take(rows as usize) {
        let fields = batch.schema().fields.iter().enumerate();
        let cells = fields.map(|(column, field)| {
            format!(
                "{}={}",
                field.name,
                tapped(batch.cell(row, column), redact.hides(&field.name))
            )
        });
        let daemon = &message.sender.name;
        let text = format!("{daemon}: {}", cells.collect::<Vec<_>>().join("  "));
        if !print_item(output, &serde_json::to_value(record).unwrap_or_default(), daemon, &text) {
            break;
        }
    }
    if sample.skipped > 0 {
        eprintln!("({} more passed)", sample.skipped);
    }
    Ok(Some(rows))
}

/// A value of a tap: what is not there is no secret.
fn tapped(cell: Cell<'_>, is_hidden: bool) -> String {
    match cell {
        Cell::Null | Cell::Missing | Cell::Unchanged => shown_cell(cell),
        _ if is_hidden => HIDDEN.to_string(),
        cell => shown_cell(cell),
    }
}

/// A value for a person.
pub fn shown_cell(cell: Cell<'_>) -> String {
    match cell {
        Cell::Null => "null".to_string(),
        Cell::Missing => "missing".to_string(),
        Cell::Unchanged => "unchanged".to_string(),
        cell => cell.to_string(),
    }
}

/// A row as a JSON object.
pub fn record(batch: &Batch, row: usize) -> serde_json::Value {
    serde_json::to_value(Record::of(batch, row)).unwrap_or_default()
}

/// Publishes one message to the fleet.
pub async fn publish(dir: &Path, timeout: Duration, topic: &str, message: Option<String>) -> Result<(), CliError> {
    let bytes = match message {
        Some(message) => message.into_bytes(),
        None => {
            let mut bytes = Vec::new();
            std::io::stdin()
                .read_to_end(&mut bytes)
                .map_err(|error| CliError::Usage(format!("stdin: {error}")))?;
            bytes
        }
    };
    let client = Client::connect(dir, timeout, Vec::new()).await?;
    let sent = client.session.publish_app(topic, &Text { bytes }).await;
    client.close().await;
    sent.map_err(|error| match error {
        bus_link::session::SendError::Subject(error) => CliError::Usage(error.to_string()),
        error => CliError::from(error),
    })
}

/// Prints messages on topics.
pub async fn subscribe(
    dir: &Path,
    timeout: Duration,
    output: Output,
    topic: &str,
    count: Option<u64>,
) -> Result<(), CliError> {
    let client = Client::connect(dir, timeout, vec![app_pattern(dir, topic).await?]).await?;
    if let ApiResult::Roster(put) = client.call(&ApiCall::Roster).await? {
        client.take_roster(&put);
    }
    eprintln!("listening on '{topic}'; Ctrl-C ends it");
    let mut events = client.events.lock().await;
    let mut shown = 0;
    let result = loop {
        if count.is_some_and(|count| shown >= count) {
            break Ok(());
        }
        tokio::select! {
            _ = tokio::signal::ctrl_c() => break Err(CliError::Interrupted),
            event = events.recv() => match event {
                Some(SessionEvent::Message(message)) if message.lane == Lane::App => {
                    print_message(&message, output);
                    shown += 1;
                }
                Some(SessionEvent::Refused { subject, cause }) => eprintln!("refused on {subject}: {cause}"),
                Some(SessionEvent::Down { cause }) => eprintln!("connection lost: {cause}; trying again"),
                Some(_) => {}
                None => break Err(CliError::Unreachable("the connection was closed".to_string())),
            }
        }
    };
    drop(events);
    client.close().await;
    result
}

async fn app_pattern(dir: &Path, topic: &str) -> Result<Pattern, CliError> {
    let home: Home = crate::client::open_home(dir).await?;
    let membership = home.membership()?;
    let fleet = membership
        .ok_or_else(|| CliError::Usage("no operator yet; see: mycelial init --help".into()))?
        .fleet;
    subject::app_from_any(&fleet, topic).map_err(|error| CliError::Usage(error.to_string()))
}

fn print_message(message: &Incoming, output: Output) {
    let Ok(Text { bytes }) = message.read() else {
        eprintln!("a message of an unknown kind from {}", message.sender.name);
        return;
    };
    let text = String::from_utf8_lossy(&bytes);
    let topic = message.rest.join(".");
    let from = &message.sender.name;
    let data = serde_json::json!({ "topic": topic, "from": from, "message": text });
    print_item(output, &data, &topic, &format!("{topic}  {from}  {text}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_that_a_tap_does_not_show() {
        let of = |typed: &[&str], always: &str, show_all| {
            let typed = typed.iter().map(ToString::to_string).collect();
            let redact = hidden(typed, always, show_all).unwrap();
            ["password", "iban", "card_no", "name"].map(|column| redact.hides(column))
        };
        for (typed, always, show_all, hides) in [
            (&[][..], "", false, [true, false, false, false]),
            (&["iban"], "card_*, ", false, [true, true, true, false]),
            (&["iban"], "", true, [false, true, false, false]),
            (&[], "card_*", true, [false, false, true, false]),
        ] {
            assert_eq!(of(typed, always, show_all), hides, "{typed:?} {always} {show_all}");
        }
        let wrong = hidden(vec!["a*b".into()], "", false).unwrap_err();
        assert_eq!(wrong.exit_code(), 2);
        assert!(wrong.to_string().contains("'a*b' is no pattern"), "{wrong}");
    }

    #[test]
    fn a_node_that_is_not_there_is_told() {
        let text = "name = 'w'\n[sources.lines]\n[transforms.clean]\n[destinations.out]\n[tests.x]\n";
        for (node, said) in [
            ("lines", None),
            ("clean", None),
            ("out", None),
            ("lines->out", None),
            ("linse", Some("did you mean 'lines'?")),
            ("x", Some("it has: lines, clean, out")),
        ] {
            let wish = Wish {
                place: Where::Workflow("w".into()),
                workflow: "w".into(),
                node: node.into(),
                redact: Redact::new(&[]).unwrap(),
                rate: 1,
                seconds: 1,
                count: None,
            };
            match is_there(text, &wish) {
                Ok(()) => assert_eq!(said, None, "{node}"),
                Err(error) => {
                    assert_eq!(error.exit_code(), 5);
                    assert!(error.to_string().contains(said.unwrap()), "{error}");
                }
            }
        }
    }

    #[test]
    fn what_is_not_there_is_no_secret() {
        for (cell, is_hidden, shown) in [
            (Cell::I64(7), false, "7"),
            (Cell::I64(7), true, HIDDEN),
            (Cell::Null, true, "null"),
            (Cell::Missing, true, "missing"),
        ] {
            assert_eq!(tapped(cell, is_hidden), shown);
        }
    }
}
