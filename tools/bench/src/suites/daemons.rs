//! Two daemons: a table goes from one to the other, over each kind of broker, into each kind of database.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rusqlite::{Connection, OpenFlags};
use testkit::oracle::Produced;
use testkit::scenario::{self, COPY};
use testkit::{Broker, Fleet, Mosquitto, Nats, Postgres, shop, wait_ok, wait_until};

use super::Circumstances;
use crate::suite::{Bound, Contestant, Suite, goal, in_turns, metric};
use crate::usage::Watch;

mod peers;

const ROWS: u64 = 1_000_000;
/// The goals: rows a second, and MB of each daemon.
const RATE_MIN: f64 = 100_000.0;
const MEMORY_MAX: f64 = 15.0;
const SOON: Duration = Duration::from_secs(60);
const LATE: Duration = Duration::from_secs(600);
/// Between two looks at the destination.
const LOOK: Duration = Duration::from_millis(10);

/// Starts a broker of some kind.
type StartBroker = fn() -> Broker;

/// Where the rows go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Into {
    Sqlite,
    Postgres,
}

/// The table that everybody moves.
struct Table {
    path: PathBuf,
    rows: u64,
    /// What the oracle knows of it.
    all: Produced,
    typed: Produced,
}

/// Runs the suite.
pub fn run(circumstances: &Circumstances) -> Result<Suite> {
    let rows = circumstances.scaled(ROWS);
    let path = circumstances.dir.join("shop.db");
    shop::create(&path)?;
    shop::add(&path, rows)?;
    let table = Table {
        all: Produced::all(&path)?,
        typed: Produced::typed(&path)?,
        rows,
        path,
    };
    let megabytes = std::fs::metadata(&table.path)?.len() as f64 / 1e6;
    let metrics = [
        metric("seconds", 2),
        metric("rows/s", 0),
        metric("CPU s", 2),
        metric("gateway, MB", 1),
        metric("hub, MB", 1),
        metric("written, MB", 0),
    ];
    let kinds: [(&str, StartBroker); 4] = [
        ("embedded", || Broker::embedded(false)),
        ("mosquitto", || Broker::Mosquitto(Mosquitto::builder().quiet().start())),
        ("nats-server", || Broker::Nats(Nats::start())),
        ("nats-server's MQTT", || {
            Broker::NatsMqtt(Nats::builder().mqtt().start())
        }),
    ];
    let ours = |name: String, note: &str, broker: StartBroker, into: Into| {
        let table = &table;
        Contestant::new(name, note, move || daemons(table, broker(), into))
    };
    let exactly_once = "exactly once: every batch is on disk (fsync) at the gateway before it is sent, and at the hub in one \
                        transaction with its watermark; signed and encrypted from daemon to daemon";
    let first = "SQLite, embedded broker";
    let mut contestants = vec![
        ours(first.to_string(), exactly_once, kinds[0].1, Into::Sqlite),
        ours(format!("{first}, again"), "", kinds[0].1, Into::Sqlite),
    ];
    for (name, broker) in &kinds[1..] {
        contestants.push(ours(format!("SQLite, {name}"), "", *broker, Into::Sqlite));
    }
    for (name, broker) in [&kinds[0], &kinds[2]] {
        contestants.push(ours(format!("PostgreSQL, {name}"), "", *broker, Into::Postgres));
    }
    for peer in peers::ALL {
        let (table, scratch) = (&table, circumstances);
        contestants.push(Contestant::new(peer.name, peer.note, move || {
            (peer.run)(table, scratch)
        }));
    }
    let names: Vec<String> = contestants
        .iter()
        .take(7)
        .map(|contestant| contestant.name().to_string())
        .collect();
    let goals = names.iter().filter(|name| !name.ends_with("again")).flat_map(|name| {
        [
            goal(name, "rows/s", Bound::AtLeast(RATE_MIN)),
            goal(name, "gateway, MB", Bound::AtMost(MEMORY_MAX)),
            goal(name, "hub, MB", Bound::AtMost(MEMORY_MAX)),
        ]
    });
    Ok(Suite {
        name: "daemons".to_string(),
        title: "Two daemons".to_string(),
        about: format!(
            "{rows} rows ({megabytes:.0} MB of SQLite, seven columns of every type) from a SQLite table at one daemon over a \
             broker into a database at another. The clock runs from before the workflow is given to the plane until the last row \
             is committed. Afterwards every value is compared and the ledger must balance."
        ),
        goals: goals.collect(),
        entries: in_turns(&metrics, circumstances.rounds(), contestants)?,
        metrics: metrics.to_vec(),
    })
}

fn daemons(table: &Table, broker: Broker, into: Into) -> Result<Vec<f64>> {
    let postgres = (into == Into::Postgres).then(Postgres::start);
    let fleet = Fleet::start(broker, None);
    fleet.enrol("gateway");
    fleet.enrol("hub");
    std::fs::copy(&table.path, fleet.dir().join("shop.db")).context("cannot copy the table")?;
    let (gateway, hub) = (fleet.daemon("gateway", None), fleet.daemon("hub", None));
    let watches = [Watch::new(gateway.pid()), Watch::new(hub.pid())];
    let workflow = match &postgres {
        None => scenario::shop_workflow(&fleet),
        Some(postgres) => into_postgres(&fleet, postgres),
    };
    let started = Instant::now();
    fleet.apply("shop", &workflow);
    match &postgres {
        None => until_in_sqlite(&fleet.dir().join("copy.db"), table.rows),
        Some(postgres) => until_in_postgres(postgres, table.rows),
    }
    let seconds = started.elapsed().as_secs_f64();
    let found = match &postgres {
        None => table.all.judge_sqlite(&fleet.dir().join("copy.db"), COPY)?.acquit()?,
        Some(postgres) => table.typed.judge_postgres(postgres, COPY)?.acquit()?,
    };
    assert_eq!(found, table.rows);
    scenario::balanced(&fleet, 1, table.rows);
    let [gateway, hub] = watches.map(|watch| watch.usage());
    Ok(vec![
        seconds,
        table.rows as f64 / seconds,
        gateway.cpu_seconds + hub.cpu_seconds,
        gateway.rss_bytes / 1e6,
        hub.rss_bytes / 1e6,
        (gateway.written_bytes + hub.written_bytes) / 1e6,
    ])
}

/// From the gateway's table to a PostgreSQL at the hub, without the column that PostgreSQL has no type for.
pub(super) fn into_postgres(fleet: &Fleet, postgres: &Postgres) -> String {
    create_in_postgres(postgres);
    format!(
        "name = \"shop\"\n\n[sources.orders]\ntype = \"sqlite\"\ndaemon = \"gateway\"\npath = \"{}\"\ntable = \"{}\"\n\
         cursor = \"id\"\n\n[transforms.typed]\ntype = \"select\"\nfrom = \"orders\"\nexcept = [\"misc\"]\n\n\
         [destinations.warehouse]\ntype = \"postgres\"\ndaemon = \"hub\"\nfrom = \"typed\"\nurl = \"{}\"\n\
         table = \"{COPY}\"\nkey = []\ntls = {{ mode = \"disable\" }}\n",
        fleet.path("shop.db"),
        shop::TABLE,
        postgres.url(),
    )
}

/// The table, without a key, which would hide a double.
fn create_in_postgres(postgres: &Postgres) {
    postgres.query(&format!(
        "CREATE TABLE {COPY} (id bigint, name text, price float8, quantity bigint, note text, photo bytea, arrived bigserial)"
    ));
}

fn until_in_sqlite(copy: &Path, rows: u64) {
    let db = wait_ok("the copy", SOON, || {
        Connection::open_with_flags(copy, OpenFlags::SQLITE_OPEN_READ_ONLY)
    });
    let rows = i64::try_from(rows).unwrap_or(i64::MAX);
    let started = Instant::now();
    // The row's own number: a look costs nothing.
    let sql = format!("SELECT max(rowid) FROM {COPY}");
    while db
        .query_row(&sql, [], |row| row.get::<_, Option<i64>>(0))
        .ok()
        .flatten()
        < Some(rows)
    {
        assert!(started.elapsed() < LATE, "not everything is there after {LATE:?}");
        std::thread::sleep(LOOK);
    }
}

/// One session that waits inside the server: asking again and again would take the processor from those who work.
fn until_in_postgres(postgres: &Postgres, rows: u64) {
    // The sequence runs ahead of the commit, and counting is dear, so it is counted only when the sequence is there.
    let sql = format!(
        "DO $$ BEGIN
           WHILE (SELECT last_value FROM {COPY}_arrived_seq) < {rows} LOOP PERFORM pg_sleep(0.01); END LOOP;
           WHILE (SELECT count(*) FROM {COPY}) < {rows} LOOP PERFORM pg_sleep(0.01); END LOOP;
         END $$"
    );
    wait_until("every row in PostgreSQL", LATE, || {
        (postgres.try_query_in("postgres", &sql).code() == Some(0)).then_some(())
    });
}
