//! Footprint: what the programs take of disk and memory, at rest and at work.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use testkit::{Broker, Fleet, bin, scenario, shop, ten, wait_until};

use super::Circumstances;
use crate::suite::{Bound, Entry, Suite, goal, metric, number};
use crate::usage::{self, Usage, Watch};

/// Where `cargo xtask cross` puts what it builds.
const CROSS: &str = "target/cross";
const TARGETS: [&str; 3] = [
    "x86_64-unknown-linux-musl",
    "aarch64-unknown-linux-musl",
    "armv7-unknown-linux-musleabihf",
];
const PROGRAMS: [&str; 4] = ["myceliald", "mycelial-plane", "mycelial", "mycelial-broker"];
const ROWS: u64 = 1_000_000;
/// Rows each way through ten connectors.
const EACH: u64 = 100_000;
/// Rows that have been moved before the rest.
const FEW: u64 = 10;
/// Until what starting took has settled.
const REST: Duration = Duration::from_secs(10);
const LATE: Duration = Duration::from_secs(600);
/// The goals, in MB.
const DAEMON_DISK_MAX: f64 = 30.0;
const DAEMON_MEMORY_MAX: f64 = 15.0;
const PLANE_DISK_MAX: f64 = 10.0;
const PLANE_MEMORY_MAX: f64 = 10.0;
/// Around the plane.
const DAEMONS: usize = 100;

/// Runs the suite.
pub fn run(circumstances: &Circumstances) -> Result<Suite> {
    let rows = circumstances.scaled(ROWS);
    let (rest, work, cli) = at_rest_and_at_work(rows)?;
    let daemons = if circumstances.quick { 3 } else { DAEMONS };
    let scenario::Crowded { alone, watched } = scenario::crowd(Broker::embedded(false), daemons);
    let of_kib = |kib: u64| Some(kib as f64 * 1024.0 / 1e6);
    let daemon = "keeps its connections and an open spool at rest; at work it copies the table as in “Two daemons”";
    let entry = |name: &str, program: &str, note: &str, values: [Option<Usage>; 2]| -> Result<Entry> {
        let bytes = fs::metadata(bin(program)).context("a program")?.len();
        let [rest, work] = values;
        let megabytes = |usage: Option<Usage>, of: fn(&Usage) -> f64| usage.as_ref().map(|usage| of(usage) / 1e6);
        Ok(Entry {
            name: name.to_string(),
            note: note.to_string(),
            runs: vec![vec![
                Some(bytes as f64 / 1e6),
                megabytes(rest, |usage| usage.rss_bytes),
                megabytes(rest, |usage| usage.own_bytes),
                megabytes(work, |usage| usage.rss_bytes),
                megabytes(work, |usage| usage.own_bytes),
            ]],
        })
    };
    let [gateway, hub, plane, broker] = rest.map(Some);
    let [gateway_at_work, hub_at_work, plane_at_work, broker_at_work] = work.map(Some);
    let mut entries = vec![
        entry("myceliald, sending", "myceliald", daemon, [gateway, gateway_at_work])?,
        entry("myceliald, receiving", "myceliald", "", [hub, hub_at_work])?,
        entry(
            "mycelial-plane",
            "mycelial-plane",
            "with two daemons; the web page is in it",
            [plane, plane_at_work],
        )?,
        entry("mycelial-broker", "mycelial-broker", "", [broker, broker_at_work])?,
        entry("mycelial", "mycelial", "`mycelial workflow status`", [None, Some(cli)])?,
    ];
    entries.push(Entry {
        name: "mycelial-plane, a hundred daemons".to_string(),
        note: format!("{daemons} of them enrolled, connected and telling how they are"),
        runs: vec![vec![None, None, None, of_kib(alone), None]],
    });
    entries.push(Entry {
        name: "mycelial-plane, watched by a browser too".to_string(),
        note: "which goes through overview, daemons, alerts and events for twenty seconds".to_string(),
        runs: vec![vec![None, None, None, of_kib(watched), None]],
    });
    entries.push(Entry {
        name: "myceliald, ten connectors at once".to_string(),
        note: "of nine kinds, in one workflow".to_string(),
        runs: vec![vec![
            None,
            None,
            None,
            of_kib(ten::peak(circumstances.scaled(EACH))?),
            None,
        ]],
    });
    entries.extend(cross_built());
    let disk = "disk, MB";
    let peak = "at work, MB";
    Ok(Suite {
        name: "footprint".to_string(),
        title: "Footprint".to_string(),
        about: format!(
            "The programs as users run them, {} {}. “At rest” is the resident set ten seconds after a few rows were moved, “at \
             work” its peak while {} rows are. “Own” is the part that is not the program itself or another file: what the kernel \
             cannot take back. Programs for other systems are those that `cargo xtask cross` has built: static ones, of which \
             only the size is measured.",
            std::env::consts::ARCH,
            if cfg!(target_env = "musl") { "musl" } else { "glibc" },
            number(rows as f64, 0)
        ),
        metrics: vec![
            metric(disk, 1),
            metric("at rest, MB", 1),
            metric("own, MB", 1),
            metric(peak, 1),
            metric("own at work, MB", 1),
        ],
        entries,
        goals: vec![
            goal("myceliald, sending", disk, Bound::AtMost(DAEMON_DISK_MAX)),
            goal("myceliald, sending", peak, Bound::AtMost(DAEMON_MEMORY_MAX)),
            goal("myceliald, receiving", peak, Bound::AtMost(DAEMON_MEMORY_MAX)),
            goal(
                "myceliald, ten connectors at once",
                peak,
                Bound::AtMost(DAEMON_MEMORY_MAX),
            ),
            goal("mycelial-plane", disk, Bound::AtMost(PLANE_DISK_MAX)),
            goal(
                "mycelial-plane, a hundred daemons",
                peak,
                Bound::AtMost(PLANE_MEMORY_MAX),
            ),
            goal(
                "mycelial-plane, watched by a browser too",
                peak,
                Bound::AtMost(PLANE_MEMORY_MAX),
            ),
        ],
    })
}

/// The sizes of what has been built for other systems.
fn cross_built() -> Vec<Entry> {
    let size = |target: &str, program: &str| {
        let path = Path::new(CROSS).join(target).join("release").join(program);
        let megabytes = fs::metadata(path).ok()?.len() as f64 / 1e6;
        Some(Entry {
            name: format!("{program}, {target}"),
            note: String::new(),
            runs: vec![vec![Some(megabytes), None, None, None, None]],
        })
    };
    TARGETS
        .iter()
        .flat_map(|target| PROGRAMS.iter().filter_map(move |program| size(target, program)))
        .collect()
}

/// What gateway, hub, plane and broker take at rest and at work; and what the command line takes.
fn at_rest_and_at_work(rows: u64) -> Result<([Usage; 4], [Usage; 4], Usage)> {
    let mut fleet = Fleet::start(Broker::embedded(false), None);
    fleet.enrol("gateway");
    fleet.enrol("hub");
    let (source, copy) = (fleet.dir().join("shop.db"), fleet.dir().join("copy.db"));
    shop::create(&source)?;
    shop::add(&source, FEW)?;
    let (gateway, hub) = (fleet.daemon("gateway", None), fleet.daemon("hub", None));
    let pids = [gateway.pid(), hub.pid(), fleet.plane().pid(), fleet.broker.pid()];
    let watches = pids.map(Watch::new);
    fleet.apply("shop", &scenario::shop_workflow(&fleet));
    scenario::all_arrive("the first rows", &fleet, FEW);
    let started = Instant::now();
    let (_, cli) = usage::run(
        Command::new(bin("mycelial"))
            .args(["--home", &fleet.path("operator"), "workflow", "status", "shop"])
            .stdout(Stdio::null()),
    )?;
    std::thread::sleep(REST.saturating_sub(started.elapsed()));
    let rest = pids.map(usage::now);
    shop::add(&source, rows - FEW)?;
    wait_until("the rows", LATE, || {
        (shop::count(&copy, scenario::COPY) == rows).then_some(())
    });
    scenario::all_arrive("every row, once", &fleet, rows);
    scenario::balanced(&fleet, 1, rows);
    Ok((rest, watches.map(|watch| watch.usage()), cli))
}
