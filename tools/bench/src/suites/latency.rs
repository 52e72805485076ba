//! Latency: how long a row takes from its commit at the source to its commit at the destination, at several rates.

use std::time::Duration;

use anyhow::Result;
use testkit::Broker;
use testkit::scenario::latency::{From, Latencies, To, Way, latency};

use super::Circumstances;
use crate::suite::{Bound, Contestant, Rounds, Suite, goal, in_turns, metric, number};

/// Rows a second, and how long they come.
const RATES: [(u64, Duration); 3] = [
    (1, Duration::from_secs(20)),
    (100, Duration::from_secs(10)),
    (10_000, Duration::from_secs(10)),
];
/// The goal, in milliseconds.
const P99_MAX: f64 = 20.0;

/// Runs the suite.
pub fn run(circumstances: &Circumstances) -> Result<Suite> {
    let metrics = [
        metric("p50, ms", 1),
        metric("p99, ms", 1),
        metric("p99.9, ms", 1),
        metric("most, ms", 1),
        metric("rows/s", 0),
        metric("gateway, % of a core", 1),
        metric("hub, % of a core", 1),
        metric("gateway, MB", 1),
        metric("hub, MB", 1),
    ];
    let mut contestants = Vec::new();
    for (from, to, what) in [
        (From::Sqlite, To::Sqlite, "SQLite to SQLite"),
        (From::Sqlite, To::Postgres, "SQLite to PostgreSQL"),
        (From::File, To::Postgres, "file to PostgreSQL"),
    ] {
        for (rate, lasts) in RATES {
            let lasts = if circumstances.quick { lasts / 10 } else { lasts };
            let way = Way { from, to, rate, lasts };
            let name = format!("{what}, {} rows/s", number(rate as f64, 0));
            contestants.push(Contestant::new(name, "", move || {
                Ok(columns(&latency(Broker::embedded(false), way), lasts))
            }));
        }
    }
    // The story warms up by itself.
    let rounds = Rounds {
        warm_up: 0,
        ..circumstances.rounds()
    };
    let entries = in_turns(&metrics, rounds, contestants)?;
    Ok(Suite {
        name: "latency".to_string(),
        title: "Latency".to_string(),
        about: "One way, from the return of a row's commit at the source until it is committed at the destination: for \
                PostgreSQL the time of the commit record (`pg_xact_commit_timestamp`), for SQLite when a reader that looks every \
                half a millisecond sees it. Two daemons, the embedded broker, everything durable on the way, all on one machine \
                and one clock. Up to 500 commits a second; at a higher rate a commit has several rows."
            .to_string(),
        goals: entries.iter().map(|entry| goal(&entry.name, "p99, ms", Bound::AtMost(P99_MAX))).collect(),
        entries,
        metrics: metrics.to_vec(),
    })
}

fn columns(found: &Latencies, lasts: Duration) -> Vec<f64> {
    let ms = |share| found.quantile(share).as_secs_f64() * 1e3;
    let share = |cpu: Duration| 100.0 * cpu.as_secs_f64() / lasts.as_secs_f64();
    let megabytes = |kib: u64| kib as f64 * 1024.0 / 1e6;
    vec![
        ms(0.5),
        ms(0.99),
        ms(0.999),
        ms(1.0),
        found.rate,
        share(found.cpu.0),
        share(found.cpu.1),
        megabytes(found.peaks_kib.0),
        megabytes(found.peaks_kib.1),
    ]
}
