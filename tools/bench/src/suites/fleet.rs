//! Fleet: what many daemons cost the plane. The daemons are simulated, the bus and the plane are real.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use testkit::{Broker, Crowd, Fleet, Nats};

use super::Circumstances;
use crate::suite::{Bound, Entry, Suite, goal, metric};
use crate::usage;

/// Fleets that are measured.
const SIZES: [usize; 3] = [100, 1_000, 10_000];
/// When quick.
const SIZES_QUICK: [usize; 2] = [20, 100];
/// Enrolment of the largest fleet on a busy machine.
const LATE: Duration = Duration::from_secs(900);
/// Over this time heartbeats are counted: four of each daemon.
const BEATS: Duration = Duration::from_secs(20);
/// Until what came before has settled.
const REST: Duration = Duration::from_secs(10);
/// How long the broker stays away.
const AWAY: Duration = Duration::from_secs(5);
/// The goals.
const MEMORY_MAX_MB: f64 = 10.0;
const CONVERGE_MAX_S: f64 = 60.0;
const CORES_MAX: f64 = 1.0;

/// Runs the suite.
pub fn run(circumstances: &Circumstances) -> Result<Suite> {
    let sizes: &[usize] = if circumstances.quick { &SIZES_QUICK } else { &SIZES };
    let rounds = if circumstances.quick { 1 } else { circumstances.rounds };
    let mut entries = Vec::new();
    for size in sizes {
        let mut runs = Vec::new();
        for _ in 0..rounds {
            eprint!("  {size} daemons … ");
            let values = one(*size).with_context(|| format!("with {size} daemons"))?;
            eprintln!("{values:.2?}");
            runs.push(values.into_iter().map(Some).collect());
        }
        entries.push(Entry {
            name: name(*size),
            note: String::new(),
            runs,
        });
    }
    let [smallest, largest] = [sizes[0], sizes[sizes.len() - 1]].map(name);
    Ok(Suite {
        name: "fleet".to_string(),
        title: "Fleet".to_string(),
        about: "Simulated daemons around one plane, over nats-server: each has keys, a certificate and a plan of its own, seals \
                every message and beats every five seconds, as real ones do; 250 share a connection. “Idle” is the plane's \
                processor time while nothing happens but heartbeats with their stream accounts, in thousandths of a core for \
                each daemon: flat if a daemon costs the same in a fleet of any size. “Deploy” is from the command until every \
                daemon runs a new revision, at once and without waves, “cores” what the plane takes meanwhile. “Return” is from \
                the start of a broker that was away for five seconds until every daemon is connected and was heard again. \
                Memory is the plane's resident set at the end; “per daemon” is what each added to that of a plane without any."
            .to_string(),
        metrics: vec![
            metric("enrol, a second", 0),
            metric("idle, thousandths of a core per daemon", 3),
            metric(DEPLOY, 1),
            metric(CORES, 2),
            metric("return, s", 1),
            metric(MEMORY, 1),
            metric("per daemon, KB", 1),
        ],
        entries,
        goals: vec![
            goal(&smallest, MEMORY, Bound::AtMost(MEMORY_MAX_MB)),
            goal(&largest, DEPLOY, Bound::AtMost(CONVERGE_MAX_S)),
            goal(&largest, CORES, Bound::AtMost(CORES_MAX)),
        ],
    })
}

const DEPLOY: &str = "deploy, s";
const CORES: &str = "cores meanwhile";
const MEMORY: &str = "memory, MB";

fn name(size: usize) -> String {
    format!("{size} daemons")
}

/// A workflow that runs on every daemon by itself.
fn workflow(revision: usize) -> String {
    format!(
        "name = \"readings\"\n\n[sources.sensor]\ntype = \"generator\"\ndaemon = \"label:fleet\"\nrate = {revision}\n\
         tag = \"{{{{ daemon.name }}}}\"\n\n[destinations.file]\ntype = \"file\"\ndaemon = \"label:fleet\"\n\
         from = \"sensor\"\npath = \"/tmp/readings.jsonl\"\n"
    )
}

fn one(size: usize) -> Result<Vec<f64>> {
    let mut fleet = Fleet::start(Broker::Nats(Nats::start()), None);
    let plane = fleet.plane().pid();
    std::thread::sleep(REST / 5);
    let empty = usage::now(plane).rss_bytes;
    let started = Instant::now();
    let mut crowd = Crowd::start(&fleet, size, LATE);
    let enrol = size as f64 / started.elapsed().as_secs_f64();
    let cli = |arguments: &[&str]| {
        let arguments: Vec<&str> = ["--timeout", "120"].iter().chain(arguments).copied().collect();
        fleet.cli(&arguments).map_err(anyhow::Error::msg)
    };
    cli(&["daemon", "label", "", "fleet=yes", "--yes", "-o", "name"]).context("labels")?;
    let file = fleet.path("readings.toml");
    let apply = |revision: usize| -> Result<()> {
        fs::write(&file, workflow(revision))?;
        cli(&["workflow", "apply", &file]).map(drop)
    };
    // Catalogs come a moment after the first status.
    let end = Instant::now() + Duration::from_secs(60);
    while let Err(error) = apply(1) {
        ensure!(Instant::now() < end, "{error}");
        std::thread::sleep(Duration::from_secs(1));
    }
    crowd.wait_all("readings@1 running", LATE);
    std::thread::sleep(REST);

    let cpu = || usage::now(plane).cpu_seconds;
    let (before, beats, since) = (cpu(), crowd.picture().beats, Instant::now());
    std::thread::sleep(BEATS);
    let idle = (cpu() - before) / since.elapsed().as_secs_f64() / size as f64 * 1_000.0;
    let beats = crowd.picture().beats - beats;
    ensure!(
        beats as f64 > 2.5 * size as f64,
        "{beats} beats of {size} daemons in {BEATS:?}"
    );

    let (before, since) = (cpu(), Instant::now());
    apply(2)?;
    crowd.wait_all("readings@2 running", LATE);
    let deploy = since.elapsed().as_secs_f64();
    let cores = (cpu() - before) / deploy;

    fleet.broker.away();
    std::thread::sleep(AWAY);
    let beats = crowd.picture().beats;
    fleet.broker.back();
    let back = crowd.wait("all to be back", LATE, |picture| {
        picture.connected as usize == size && picture.beats >= beats + size as u64
    });
    let memory = usage::now(plane).rss_bytes;
    let per_daemon = (memory - empty) / size as f64;
    Ok(vec![
        enrol,
        idle,
        deploy,
        cores,
        back.as_secs_f64(),
        memory / 1e6,
        per_daemon / 1e3,
    ])
}
