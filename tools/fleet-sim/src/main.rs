//! `fleet-sim`: enrols daemons, lets them run, and prints how they are whenever that changes: a JSON object a line.

mod crowd;
mod daemon;
mod enrol;
mod orders;

use std::{collections::BTreeMap, path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, ensure};
use bus_link::place::{BusSection, Known};
use bus_schema::member::Invitation;
use clap::Parser;
use crowd::Picture;
use daemon::{Catalog, Daemon};
use orders::Orders;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, interval},
};

/// How often the file with orders is looked at.
const LOOK: Duration = Duration::from_millis(200);
/// Pictures waiting to be put together.
const PICTURES_MAX: usize = 64;

/// Many simulated daemons in one process: true to the protocol, and hollow.
///
/// Sharing a connection needs a broker that lets one client speak for several members: nats-server or mosquitto without an
/// access list. The broker of Mycelial gives each daemon a log-in of its own: there everybody has a connection of their own.
#[derive(Parser)]
#[command(
    name = "fleet-sim",
    version,
    before_help = "Example:\n  fleet-sim --daemons 1000 $(mycelial token create --uses 1000)"
)]
struct Arguments {
    /// Enrolment strings; each enrols at most --per-string daemons
    #[arg(required = true, value_name = "STRING")]
    strings: Vec<String>,
    /// How many daemons
    #[arg(long, default_value_t = 100)]
    daemons: usize,
    /// How many of them one string enrols
    #[arg(long, default_value_t = 1_000)]
    per_string: usize,
    /// They are called this and a number
    #[arg(long, default_value = "sim")]
    name: String,
    /// Daemons on one connection, where the broker allows it
    #[arg(long, default_value_t = 250)]
    share: usize,
    /// A file that says what shall go wrong: read again when it changes
    #[arg(long, value_name = "FILE")]
    orders: Option<PathBuf>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let done = runtime
        .context("cannot start")
        .and_then(|runtime| runtime.block_on(run(&arguments)));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fleet-sim: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: &Arguments) -> Result<()> {
    let Arguments {
        daemons, per_string, ..
    } = *arguments;
    ensure!(
        arguments.strings.len() * per_string >= daemons,
        "{} strings for {per_string} daemons each are not enough for {daemons}",
        arguments.strings.len()
    );
    let started = Instant::now();
    let names: Vec<String> = (0..daemons).map(|n| format!("{}-{n:05}", arguments.name)).collect();
    let mut enrolled = Vec::with_capacity(daemons);
    for (string, names) in arguments.strings.iter().zip(names.chunks(per_string)) {
        let invitation = Invitation::decode(string)?;
        let before = enrolled.len();
        let progress = |count: usize| {
            if count.is_multiple_of(100) || before + count == daemons {
                say(started, "enrolled", &serde_json::json!({ "daemons": before + count }));
            }
        };
        enrolled.extend(enrol::enrol(&invitation, names, progress).await?);
    }
    let first = &enrolled.first().context("nobody was enrolled")?.2;
    let (known, shared) = (Known::from(first), first.login.is_none());
    let share = if shared { arguments.share.max(1) } else { 1 };
    let catalog = Catalog::default();
    let (ordered, orders) = watch::channel(Arc::new(Orders::default()));
    let (told, pictures) = mpsc::channel(PICTURES_MAX);
    let mut crowd = Vec::with_capacity(share);
    let (mut index, total) = (0, enrolled.len());
    for (at, (name, identity, membership)) in enrolled.into_iter().enumerate() {
        let place = if shared {
            known.clone()
        } else {
            Known::from(&membership)
        };
        crowd.push(Daemon::new(&name, identity, membership, catalog.clone())?);
        if crowd.len() < share && at + 1 < total {
            continue;
        }
        let members = std::mem::take(&mut crowd);
        let client = format!("{}-c", members[0].node());
        let config = BusSection::default().resolve(&place, &client)?;
        tokio::spawn(crowd::run(config, members, orders.clone(), told.clone(), index));
        index += 1;
    }
    drop(told);
    watch_over(arguments, started, ordered, pictures).await
}

/// Prints what changes, and reads orders.
async fn watch_over(
    arguments: &Arguments,
    started: Instant,
    ordered: watch::Sender<Arc<Orders>>,
    mut pictures: mpsc::Receiver<(usize, Picture)>,
) -> Result<()> {
    let (mut all, mut shown, mut text) = (BTreeMap::new(), Picture::default(), String::new());
    let mut look = interval(LOOK);
    loop {
        tokio::select! {
            picture = pictures.recv() => match picture {
                Some((index, picture)) => {
                    all.insert(index, picture);
                }
                None => return Ok(()),
            },
            _ = look.tick() => {
                if let Some(file) = &arguments.orders {
                    let now = std::fs::read_to_string(file).unwrap_or_default();
                    if now != text {
                        match Orders::parse(&now) {
                            Ok(orders) => drop(ordered.send_replace(Arc::new(orders))),
                            Err(error) => eprintln!("{}: {error:#}; what was ordered before holds", file.display()),
                        }
                        text = now;
                    }
                }
                let mut picture = Picture::default();
                all.values().for_each(|one| picture.add(one));
                // Each second it is news that they still beat.
                let is_news = Picture { beats: shown.beats, ..picture.clone() } != shown;
                if is_news || picture.beats >= shown.beats + picture.daemons as u64 {
                    let Picture { daemons, connected, beats, runs, idle } = &picture;
                    let line = serde_json::json!({
                        "daemons": daemons, "connected": connected, "beats": beats, "runs": runs, "idle": idle,
                    });
                    say(started, "daemons", &line);
                    shown = picture;
                }
            }
        }
    }
}

fn say(started: Instant, what: &str, data: &serde_json::Value) {
    println!(
        "{}",
        serde_json::json!({ "ms": started.elapsed().as_millis() as u64, "what": what, "data": data })
    );
}
