//! An outage: rows keep coming at an even pace while the broker or the destination is away for a minute. What is buffered
//! meanwhile, what it costs, and how it is caught up.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use rusqlite::Connection;
use testkit::oracle::Produced;
use testkit::scenario::{self, COPY};
use testkit::{Broker, Fleet, Postgres, Proc, shop, wait_until};

use super::Circumstances;
use crate::stats::{median, quantile};
use crate::suite::{Bound, Contestant, Rounds, Suite, goal, in_turns, metric, number};
use crate::usage::Watch;

/// Rows written in one transaction, and how often: 5,000 rows a second.
const BATCH: u64 = 100;
const EVERY: Duration = Duration::from_millis(20);
const AWAY: Duration = Duration::from_secs(60);
/// Before the outage, and after all is caught up.
const CALM: Duration = Duration::from_secs(3);
const SOON: Duration = Duration::from_secs(60);
const LATE: Duration = Duration::from_secs(300);
/// The goals: how many times faster than they came rows are caught up, and MB of each daemon.
const CATCH_UP_MIN: f64 = 10.0;
const MEMORY_MAX: f64 = 15.0;

/// Who is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Away {
    Broker { live_first: bool },
    Destination,
}

/// Runs the suite.
pub fn run(circumstances: &Circumstances) -> Result<Suite> {
    let away = if circumstances.quick { AWAY / 20 } else { AWAY };
    let metrics = [
        metric("× arrival", 1),
        metric("rows/s caught up", 0),
        metric("back after, s", 1),
        metric("live p50, s", 2),
        metric("live p99, s", 2),
        metric("spool, bytes/byte", 2),
        metric("written, bytes/byte", 2),
        metric("gateway, MB", 1),
        metric("hub, MB", 1),
    ];
    let outage = |name: &str, note: &str, who: Away| Contestant::new(name, note, move || through(who, away));
    let contestants = vec![
        outage(
            "broker",
            "killed, and started again; the plane cannot be reached either",
            Away::Broker { live_first: false },
        ),
        outage(
            "broker, live first",
            "the same with `send = { live_first = true }`: what is produced now overtakes the backlog",
            Away::Broker { live_first: true },
        ),
        outage(
            "destination",
            "PostgreSQL stopped, and started again; the hub holds what it has credit for, the rest waits at the gateway",
            Away::Destination,
        ),
    ];
    // It takes minutes, and is not about a moment's speed.
    let rounds = Rounds { warm_up: 0, counted: 1 };
    let entries = in_turns(&metrics, rounds, contestants)?;
    let goals = entries.iter().flat_map(|entry| {
        [
            goal(&entry.name, "× arrival", Bound::AtLeast(CATCH_UP_MIN)),
            goal(&entry.name, "gateway, MB", Bound::AtMost(MEMORY_MAX)),
            goal(&entry.name, "hub, MB", Bound::AtMost(MEMORY_MAX)),
        ]
    });
    Ok(Suite {
        name: "outage".to_string(),
        title: "Outage".to_string(),
        about: format!(
            "{} rows a second are written into SQLite at one daemon and go over the embedded broker into a database at \
             another. For {} s something is away. “Caught up” is the rate from the first row that arrives afterwards until the \
             last of the backlog has arrived, live rows included; “back after” the time from the return until that first row; \
             “live” the time from the commit of a row at the source until it is inserted at the destination, of rows written \
             while the backlog was caught up. Spool and written bytes are per byte of values in the backlog. One round.",
            number(BATCH as f64 / EVERY.as_secs_f64(), 0),
            away.as_secs()
        ),
        goals: goals.collect(),
        entries,
        metrics: metrics.to_vec(),
    })
}

fn through(who: Away, away: Duration) -> Result<Vec<f64>> {
    let postgres = (who == Away::Destination).then(Postgres::start);
    let mut fleet = Fleet::start(Broker::embedded(false), None);
    fleet.enrol("gateway");
    fleet.enrol("hub");
    let source = fleet.dir().join("shop.db");
    shop::create(&source)?;
    let (gateway, hub) = (fleet.daemon("gateway", None), fleet.daemon("hub", None));
    let watches = [Watch::new(gateway.pid()), Watch::new(hub.pid())];
    let workflow = match &postgres {
        Some(postgres) => super::daemons::into_postgres(&fleet, postgres),
        None => into_sqlite(&fleet, who)?,
    };
    if let Some(postgres) = &postgres {
        postgres.query(&format!(
            "ALTER TABLE {COPY} ADD COLUMN at timestamptz DEFAULT clock_timestamp()"
        ));
    }
    fleet.apply("shop", &workflow);

    let writer = Writer::start(&source);
    thread::sleep(CALM);
    let (before, written_before) = (writer.last(), written(&gateway));
    match &postgres {
        Some(postgres) => postgres.stop(),
        None => fleet.broker.away(),
    }
    thread::sleep(away);
    let spool_bytes = allocated(&fleet.dir().join("gateway").join("streams"))?;
    let written_bytes = written(&gateway) - written_before;
    match &postgres {
        Some(postgres) => postgres.start(),
        None => fleet.broker.back(),
    }
    let (back, backlog) = (now(), writer.last());
    wait_until("the backlog to arrive", LATE, || {
        has_arrived(&fleet, postgres.as_ref(), backlog).then_some(())
    });
    thread::sleep(CALM);
    let marks = writer.stop()?;
    let last = marks.last().context("something was written")?.id;

    let arrivals = wait_until("the last row", SOON, || {
        let arrivals = arrivals(&fleet, postgres.as_ref());
        arrivals.iter().any(|arrival| arrival.id == last).then_some(arrivals)
    });
    let produced = match &postgres {
        Some(_) => Produced::typed(&source)?,
        None => Produced::all(&source)?,
    };
    let payload = produced.payload_bytes() as f64 / produced.rows() as f64 * (backlog - before) as f64;
    let verdict = match &postgres {
        Some(postgres) => produced.judge_postgres(postgres, COPY)?,
        None => produced.judge_sqlite(&fleet.dir().join("copy.db"), COPY)?,
    };
    // Live first is out of order by design.
    let live_first = who == Away::Broker { live_first: true };
    ensure!(
        verdict.is_clean() || (live_first && only_disordered(&verdict)),
        "{verdict}"
    );
    scenario::at_rest(&fleet);

    let caught = CaughtUp::from(&marks, &arrivals, back, backlog)?;
    let [gateway, hub] = watches.map(|watch| watch.usage());
    Ok(vec![
        caught.rows_per_s / (BATCH as f64 / EVERY.as_secs_f64()),
        caught.rows_per_s,
        caught.back_after,
        median(&caught.live),
        quantile(&caught.live, 0.99),
        spool_bytes / payload,
        written_bytes / payload,
        gateway.rss_bytes / 1e6,
        hub.rss_bytes / 1e6,
    ])
}

/// The table notes when a row was inserted; without a key, which would hide a double.
fn into_sqlite(fleet: &Fleet, who: Away) -> Result<String> {
    let copy = Connection::open(fleet.dir().join("copy.db"))?;
    copy.execute_batch(&format!(
        "PRAGMA journal_mode = WAL;
         CREATE TABLE {COPY} (id INTEGER, name TEXT, price REAL, quantity INTEGER, note TEXT, photo BLOB, misc,
                              at REAL DEFAULT (unixepoch('subsec')))"
    ))?;
    let send = match who {
        Away::Broker { live_first: true } => "send = { live_first = true }\n",
        _ => "",
    };
    Ok(scenario::shop_workflow(fleet) + send)
}

fn only_disordered(verdict: &testkit::oracle::Verdict) -> bool {
    verdict
        .offences()
        .iter()
        .all(|(kind, offence)| *kind == "disordered" || offence.count == 0)
}

/// Seconds since 1970.
fn now() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs_f64()
}

fn written(process: &Proc) -> f64 {
    process.written_bytes().unwrap_or(0) as f64
}

/// What a directory takes of the disk, in bytes.
fn allocated(dir: &Path) -> Result<f64> {
    let mut sum = 0.0;
    for entry in fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))? {
        let entry = entry?;
        sum += match entry.metadata() {
            Ok(found) if found.is_dir() => allocated(&entry.path())?,
            // Of 512 bytes, whatever the file system's own are.
            Ok(found) => found.blocks() as f64 * 512.0,
            // A segment may go while it is looked at.
            Err(_) => 0.0,
        };
    }
    Ok(sum)
}

/// The last row of a transaction, and when its commit had returned or it was inserted.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Mark {
    id: u64,
    at: f64,
}

/// Writes at an even pace until stopped.
struct Writer {
    stop: Arc<AtomicBool>,
    marks: Arc<Mutex<Vec<Mark>>>,
    thread: JoinHandle<Result<()>>,
}

impl Writer {
    fn start(source: &Path) -> Self {
        let (stop, marks) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let thread = thread::spawn({
            let (source, stop, marks) = (source.to_path_buf(), Arc::clone(&stop), Arc::clone(&marks));
            move || {
                let mut due = Instant::now();
                while !stop.load(Ordering::Relaxed) {
                    thread::sleep(due.saturating_duration_since(Instant::now()));
                    due += EVERY;
                    let id = shop::add(&source, BATCH)?;
                    marks
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push(Mark { id, at: now() });
                }
                Ok(())
            }
        });
        Self { stop, marks, thread }
    }

    /// The last row so far.
    fn last(&self) -> u64 {
        let marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        marks.last().map_or(0, |mark| mark.id)
    }

    fn stop(self) -> Result<Vec<Mark>> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("it does not panic")?;
        let marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(marks.clone())
    }
}

/// Whether a row is at the destination, and with it all that were written before.
fn has_arrived(fleet: &Fleet, postgres: Option<&Postgres>, id: u64) -> bool {
    let sql = format!("SELECT count(*) FROM {COPY} WHERE id <= {id}");
    let count = match postgres {
        Some(postgres) => postgres.try_query_in("postgres", &sql).stdout.trim().parse().ok(),
        None => Connection::open(fleet.dir().join("copy.db"))
            .and_then(|copy| copy.query_row(&sql, [], |row| row.get::<_, i64>(0)))
            .map(i64::cast_unsigned)
            .ok(),
    };
    count >= Some(id)
}

/// When the last row of each transaction was inserted at the destination.
fn arrivals(fleet: &Fleet, postgres: Option<&Postgres>) -> Vec<Mark> {
    let wanted = format!("FROM {COPY} WHERE id % {BATCH} = 0 ORDER BY at");
    if let Some(postgres) = postgres {
        let rows = postgres.query(&format!("SELECT id, extract(epoch FROM at) {wanted}"));
        let mark = |row: &Vec<String>| {
            Some(Mark {
                id: row.first()?.parse().ok()?,
                at: row.get(1)?.parse().ok()?,
            })
        };
        return rows.iter().filter_map(mark).collect();
    }
    let read = || {
        let copy = Connection::open(fleet.dir().join("copy.db"))?;
        let mut select = copy.prepare(&format!("SELECT id, at {wanted}"))?;
        let marks = select.query_map([], |row| {
            Ok(Mark {
                id: row.get::<_, i64>(0)?.cast_unsigned(),
                at: row.get(1)?,
            })
        })?;
        marks.collect::<rusqlite::Result<Vec<_>>>()
    };
    read().unwrap_or_default()
}

/// How an outage was caught up.
#[derive(Debug, PartialEq)]
struct CaughtUp {
    /// From the return until something arrives, in seconds.
    back_after: f64,
    rows_per_s: f64,
    /// From commit to insertion of what was written meanwhile, in seconds.
    live: Vec<f64>,
}

impl CaughtUp {
    /// `back` is when what was away had returned, and `backlog` the last row written until then.
    fn from(written: &[Mark], arrived: &[Mark], back: f64, backlog: u64) -> Result<Self> {
        let after = || arrived.iter().filter(|mark| mark.at >= back);
        let first = after().map(|mark| mark.at).fold(f64::INFINITY, f64::min);
        let end = after()
            .filter(|mark| mark.id <= backlog)
            .map(|mark| mark.at)
            .fold(f64::NEG_INFINITY, f64::max);
        ensure!(end > first, "nothing was caught up");
        let rows = after().filter(|mark| mark.at <= end).count() as f64 * BATCH as f64;
        let live = written
            .iter()
            .filter(|mark| mark.at >= first && mark.at <= end)
            .filter_map(|mark| {
                let arrival = arrived.iter().find(|arrival| arrival.id == mark.id)?;
                Some((arrival.at - mark.at).max(0.0))
            });
        Ok(Self {
            back_after: first - back,
            rows_per_s: rows / (end - first),
            live: live.collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backlog_that_is_caught_up_in_order() {
        let marks = |list: &[(u64, f64)]| {
            list.iter()
                .map(|(id, at)| Mark { id: *id, at: *at })
                .collect::<Vec<_>>()
        };
        let written = marks(&[(100, 0.0), (200, 1.0), (300, 2.0), (400, 11.0), (500, 30.0)]);
        let arrived = marks(&[(100, 0.5), (200, 11.0), (300, 12.0), (400, 12.5), (500, 30.1)]);
        // Away from 0.6 to 10.
        let caught = CaughtUp::from(&written, &arrived, 10.0, 300).unwrap();
        let expected = CaughtUp {
            back_after: 1.0,
            rows_per_s: 200.0,
            live: vec![1.5],
        };
        assert_eq!(caught, expected);
        assert!(CaughtUp::from(&written, &arrived[..1], 10.0, 300).is_err());
    }
}
