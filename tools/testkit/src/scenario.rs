//! Whole stories over a [`Fleet`] that both a test and a measurement tell. Each ends by comparing every value and by
//! checking the books.

pub mod latency;
pub mod sensors;

use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags};

use crate::{Broker, Fleet, Ledger, Postgres, Proc, browser, oracle::Produced, shop, wait_ok, wait_until};

const SOON: Duration = Duration::from_secs(60);
const LATE: Duration = Duration::from_secs(300);
const STOP: Duration = Duration::from_secs(20);
/// A few heartbeats of a daemon.
const REPORTS: Duration = Duration::from_secs(15);
/// How long somebody looks at the page.
const LOOK: Duration = Duration::from_secs(20);
/// The copy's table.
pub const COPY: &str = "copied";

/// A workflow from the gateway's `shop.db` to the hub's `copy.db`. The copy has no key, which would hide a double.
#[must_use]
pub fn shop_workflow(fleet: &Fleet) -> String {
    format!(
        "name = \"shop\"\n\n[sources.orders]\ntype = \"sqlite\"\ndaemon = \"gateway\"\npath = \"{}\"\ntable = \"{}\"\n\
         cursor = \"id\"\n\n[destinations.copy]\ntype = \"sqlite\"\ndaemon = \"hub\"\nfrom = \"orders\"\npath = \"{}\"\n\
         table = \"{COPY}\"\nkey = []\n",
        fleet.path("shop.db"),
        shop::TABLE,
        fleet.path("copy.db"),
    )
}

/// Waits until the copy equals the source, and that it is of so many rows.
#[track_caller]
pub fn all_arrive(what: &str, fleet: &Fleet, rows: u64) {
    let (source, copy) = (fleet.dir().join("shop.db"), fleet.dir().join("copy.db"));
    let compared = wait_ok(what, LATE, || {
        // Judging takes longer than counting.
        let found = shop::count(&copy, COPY);
        anyhow::ensure!(found >= rows, "{found} of {rows} rows");
        shop::compare(&source, &copy, COPY)
    });
    assert_eq!(compared, rows);
}

/// Waits until every stream says it has delivered this many rows, and checks the books.
#[track_caller]
pub fn balanced(fleet: &Fleet, streams: usize, rows: u64) {
    let wanted = Ledger {
        produced: rows,
        delivered: rows,
        ..Ledger::default()
    };
    let ledgers = wait_until("the ledger to show all rows", SOON, || {
        let ledgers = fleet.ledgers();
        let all = |(_, ledger): &(String, Ledger)| ledger.delivered >= wanted.delivered;
        (ledgers.len() == streams && ledgers.iter().all(all)).then_some(ledgers)
    });
    for (edge, ledger) in ledgers {
        ledger.assert_all_delivered(&edge);
        assert_eq!(ledger, wanted, "{edge}");
    }
}

/// Waits until every stream's account is at rest and balances: that of its present epoch, where a loss began a new one.
#[track_caller]
pub fn at_rest(fleet: &Fleet) {
    wait_ok("a balanced account with nothing buffered", SOON, || {
        let text = fleet.cli(&["ledger", "-o", "json"])?;
        let streams: serde_json::Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        let is_settled = |stream: &serde_json::Value| stream["balances"] == true && stream["ledger"]["buffered"] == 0;
        let streams = streams.as_array().filter(|streams| !streams.is_empty());
        let all = streams.is_some_and(|streams| streams.iter().all(is_settled));
        all.then_some(()).ok_or(text)
    });
}

/// Peak resident memory of processes, in KiB.
#[derive(Debug, Clone, Copy, Default)]
pub struct Peaks {
    /// The producing daemon, over all its lives.
    pub gateway: u64,
    /// The consuming daemon.
    pub hub: u64,
    /// The plane, after it came back.
    pub plane: u64,
}

fn peak(process: &Proc) -> u64 {
    process.rss_peak_kb().unwrap_or(0)
}

/// Rows that are there before anything fails.
const BEFORE: u64 = 1_000;

/// The plane is away throughout, the broker while `rows` are produced, and the gateway is killed twice meanwhile. Then the
/// broker returns: every row arrives once, in PostgreSQL and in SQLite.
#[track_caller]
pub fn offline(broker: Broker, rows: u64) -> Peaks {
    let postgres = Postgres::start();
    let mut fleet = Fleet::start(broker, None);
    fleet.enrol("gateway");
    fleet.enrol("hub");
    let mut gateway = fleet.daemon("gateway", None);
    let mut hub = fleet.daemon("hub", None);
    let source = fleet.dir().join("shop.db");
    shop::create(&source).expect("a database");
    shop::add(&source, BEFORE).expect("rows");
    // A column without a type holds values of many types; PostgreSQL has no such column.
    let workflow = format!(
        "{}\n[transforms.typed]\ntype = \"select\"\nfrom = \"orders\"\nexcept = [\"misc\"]\n\n\
         [destinations.warehouse]\ntype = \"postgres\"\ndaemon = \"hub\"\nfrom = \"typed\"\nurl = \"{}\"\n\
         table = \"{COPY}\"\nkey = []\ntls = {{ mode = \"disable\" }}\n",
        shop_workflow(&fleet),
        postgres.url(),
    );
    fleet.apply("shop", &workflow);
    all_arrive("the first rows in SQLite", &fleet, BEFORE);
    wait_ok("the first rows in PostgreSQL", SOON, || {
        compare_with_postgres(&source, &postgres)
    });

    fleet.plane_away();
    fleet.broker.away();
    let mut peaks = Peaks::default();
    // Killed while it reads; then while it is idle; started again with nobody there.
    for pause in [Duration::ZERO, Duration::from_secs(5)] {
        shop::add(&source, rows / 2).expect("rows");
        std::thread::sleep(pause);
        peaks.gateway = peaks.gateway.max(peak(&gateway));
        gateway.kill9();
        gateway = fleet.daemon("gateway", None);
    }
    assert_eq!(
        shop::count(&fleet.dir().join("copy.db"), COPY),
        BEFORE,
        "nothing can have arrived"
    );

    fleet.broker.back();
    all_arrive("every row in SQLite, once", &fleet, BEFORE + rows);
    let found = wait_ok("every row in PostgreSQL, once", LATE, || {
        compare_with_postgres(&source, &postgres)
    });
    assert_eq!(found, BEFORE + rows);

    fleet.plane_back();
    balanced(&fleet, 2, BEFORE + rows);
    peaks.gateway = peaks.gateway.max(peak(&gateway));
    peaks.hub = peak(&hub);
    peaks.plane = peak(fleet.plane());
    assert!(gateway.term_and_wait(STOP).success(), "the gateway drains and stops");
    assert!(hub.term_and_wait(STOP).success(), "the hub drains and stops");
    peaks
}

/// What [`bulk`] measured.
#[derive(Debug, Clone, Copy)]
pub struct Bulk {
    /// From before the workflow was applied until the last row was there.
    pub took: Duration,
    /// The source's size, bytes.
    pub bytes: u64,
    /// Peak memory.
    pub peaks: Peaks,
}

/// `rows` rows that were there before go from one daemon to another.
#[track_caller]
pub fn bulk(broker: Broker, rows: u64) -> Bulk {
    let mut fleet = Fleet::start(broker, None);
    fleet.enrol("gateway");
    fleet.enrol("hub");
    let (source, copy) = (fleet.dir().join("shop.db"), fleet.dir().join("copy.db"));
    shop::create(&source).expect("a database");
    shop::add(&source, rows).expect("rows");
    let gateway = fleet.daemon("gateway", None);
    let hub = fleet.daemon("hub", None);
    let started = Instant::now();
    fleet.apply("shop", &shop_workflow(&fleet));
    let db = wait_ok("the copy", SOON, || {
        Connection::open_with_flags(&copy, OpenFlags::SQLITE_OPEN_READ_ONLY)
    });
    wait_until("the last row", LATE, || {
        let last = db.query_row(&format!("SELECT max(id) FROM {COPY}"), [], |row| row.get::<_, i64>(0));
        (last.ok()?.cast_unsigned() == rows).then_some(())
    });
    let took = started.elapsed();
    all_arrive("every row, once", &fleet, rows);
    balanced(&fleet, 1, rows);
    Bulk {
        took,
        bytes: std::fs::metadata(&source).map_or(0, |file| file.len()),
        peaks: Peaks {
            gateway: peak(&gateway),
            hub: peak(&hub),
            plane: peak(fleet.plane()),
        },
    }
}

/// Peak memory of a plane with many daemons, in KiB.
#[derive(Debug, Clone, Copy)]
pub struct Crowded {
    /// While nobody looks at its page.
    pub alone: u64,
    /// After a browser has looked at it for a while, too.
    pub watched: u64,
}

/// A plane and so many daemons that run nothing, each of them a process: all are enrolled and online, a few reports of each
/// before anybody looks.
#[track_caller]
pub fn crowd(broker: Broker, daemons: usize) -> Crowded {
    let mut fleet = Fleet::start(broker, None);
    let names: Vec<String> = (1..=daemons).map(|number| format!("gateway-{number}")).collect();
    let _running: Vec<Proc> = names
        .iter()
        .map(|name| {
            fleet.enrol(name);
            fleet.daemon(name, None)
        })
        .collect();
    let all_online = || {
        let text = fleet.cli(&["daemon", "list", "-o", "json"])?;
        let list: serde_json::Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        let is_online = |daemon: &&serde_json::Value| daemon["presence"] == "online";
        let online = list.as_array().map_or(0, |list| list.iter().filter(is_online).count());
        (online == daemons).then_some(()).ok_or(text)
    };
    wait_ok("every daemon to be online", LATE, all_online);
    std::thread::sleep(REPORTS);
    wait_ok("every daemon to be online still", SOON, all_online);
    let alone = peak(fleet.plane());
    browser::watch(&fleet, daemons, LOOK);
    let watched = peak(fleet.plane());
    Crowded { alone, watched }
}

/// Asks the oracle about the table in PostgreSQL. Returns the number of rows, or the accusation.
fn compare_with_postgres(source: &Path, postgres: &Postgres) -> anyhow::Result<u64> {
    Produced::typed(source)?.judge_postgres(postgres, COPY)?.acquit()
}

const COPY_COLUMNS: &str = "name, price REAL, quantity, note, photo, misc";

/// Makes the copy's table so that it refuses one row in ten.
#[track_caller]
pub fn refuse_every_tenth(copy: &Path) {
    let sql = format!("CREATE TABLE {COPY} (id INTEGER CHECK (id % 10 <> 0), {COPY_COLUMNS})");
    Connection::open(copy)
        .and_then(|db| db.execute_batch(&sql))
        .expect("a table");
}

/// Makes the copy's table anew, with the rows that are in it, so that it takes everything.
#[track_caller]
pub fn refuse_nothing(copy: &Path) {
    let sql = format!(
        "BEGIN IMMEDIATE; CREATE TABLE mended (id INTEGER, {COPY_COLUMNS}); \
         INSERT INTO mended SELECT * FROM {COPY} ORDER BY rowid; DROP TABLE {COPY}; \
         ALTER TABLE mended RENAME TO {COPY}; COMMIT;"
    );
    let db = Connection::open(copy).expect("the copy is there");
    db.busy_timeout(SOON).expect("a time");
    db.execute_batch(&sql).expect("a table");
}

/// The dead letters of a workflow that are not in doubt, as the command line lists them.
#[track_caller]
pub fn letters(fleet: &Fleet, workflow: &str) -> Vec<serde_json::Value> {
    let text = wait_ok("the daemons to list their letters", SOON, || {
        fleet.cli(&["dlq", "list", workflow, "-o", "json"])
    });
    let list: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let letters = list["letters"].as_array().expect("letters").clone();
    letters
        .into_iter()
        .filter(|letter| letter["state"] != "doubtful")
        .collect()
}
