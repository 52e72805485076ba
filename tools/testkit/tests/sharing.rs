//! Two daemons share a table. One is killed in the middle of writing, comes back, and the other leaves the group: every row is
//! in the table once, each device's in order, and the books balance.

#![cfg(target_os = "linux")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Result, ensure};
use rusqlite::Connection;
use testkit::{Broker, Fleet, Postgres, Proc, wait_ok};

const SOON: Duration = Duration::from_secs(60);
/// Until a silent daemon counts as away, and what it had is somewhere else, on a busy machine.
const MOVED: Duration = Duration::from_secs(240);
/// Devices, whose rows stay together.
const DEVICES: u64 = 23;
/// Rows of one transaction of the source, and between two of them.
const ROWS: u64 = 40;
const PAUSE: Duration = Duration::from_millis(100);

/// Somebody who writes rows all the time.
struct Plant {
    rows: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    writes: Option<thread::JoinHandle<()>>,
}

impl Plant {
    fn start(fleet: &Fleet) -> Self {
        let path = fleet.dir().join("plant.db");
        let mut db = Connection::open(path).expect("a database");
        db.execute_batch(
            "PRAGMA journal_mode = WAL; CREATE TABLE readings (id INTEGER PRIMARY KEY, device TEXT, n INTEGER)",
        )
        .expect("a table");
        let (rows, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (counted, stopped) = (Arc::clone(&rows), Arc::clone(&stop));
        let writes = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let first = counted.load(Ordering::Relaxed);
                let insert = db.transaction().expect("a transaction");
                for n in first..first + ROWS {
                    let device = format!("device {}", n * n % DEVICES);
                    insert
                        .execute("INSERT INTO readings (device, n) VALUES (?1, ?2)", (device, n as i64))
                        .expect("a row");
                }
                insert.commit().expect("a commit");
                counted.store(first + ROWS, Ordering::Relaxed);
                thread::sleep(PAUSE);
            }
        });
        Self {
            rows,
            stop,
            writes: Some(writes),
        }
    }

    /// Stops, and says how many rows there are.
    fn end(&mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(writes) = self.writes.take() {
            writes.join().expect("the plant");
        }
        self.rows.load(Ordering::Relaxed)
    }
}

struct World {
    fleet: Fleet,
    postgres: Postgres,
}

impl World {
    fn new() -> Self {
        let fleet = Fleet::start(Broker::embedded(false), None);
        for name in ["gateway", "w1", "w2"] {
            fleet.enrol(name);
        }
        let postgres = Postgres::start();
        postgres.create_database("plant");
        postgres.query_in(
            "plant",
            "CREATE TABLE readings (arrived bigserial, id bigint, device text, n bigint)",
        );
        Self { fleet, postgres }
    }

    fn workflow(&self) -> String {
        format!(
            "name = \"shared\"\n\n[sources.plant]\ntype = \"sqlite\"\ndaemon = \"gateway\"\npath = \"{}\"\ntable = \"readings\"\n\
             cursor = \"id\"\n\n[destinations.store]\ntype = \"postgres\"\ndaemon = \"group:writers\"\nfrom = \"plant\"\n\
             url = \"{}\"\ntable = \"readings\"\nkey = []\ntls = {{ mode = \"disable\" }}\nshare = {{ by = [\"device\"], parts = 4, move_after = \"30s\" }}\n",
            self.fleet.path("plant.db"),
            self.postgres.url_of("plant"),
        )
    }

    /// How many parts a daemon has, by its plan.
    fn parts(&self, name: &str) -> Result<usize> {
        let text = self.fleet.cli(&["ledger", "-o", "json"]).map_err(anyhow::Error::msg)?;
        let streams: Vec<serde_json::Value> = serde_json::from_str(&text)?;
        Ok(streams.iter().filter(|stream| stream["consumer"] == name).count())
    }

    #[track_caller]
    fn has(&self, what: &str, wanted: [usize; 2]) {
        wait_ok(what, MOVED, || {
            let found = [self.parts("w1")?, self.parts("w2")?];
            ensure!(found == wanted, "{found:?}");
            anyhow::Ok(())
        });
    }

    fn count(&self) -> u64 {
        let rows = self.postgres.query_in("plant", "SELECT count(*) FROM readings");
        rows[0][0].parse().expect("a number")
    }

    /// Waits until so many rows more have arrived: whoever has a part now works.
    #[track_caller]
    fn moves_on(&self, what: &str) {
        let before = self.count();
        wait_ok(what, MOVED, || {
            let found = self.count();
            ensure!(found >= before + 10 * ROWS, "{found} rows after {before}");
            anyhow::Ok(())
        });
    }
}

#[test]
fn what_a_dead_daemon_had_is_written_by_another_once_and_in_order() {
    let world = World::new();
    let fleet = &world.fleet;
    let _gateway = fleet.daemon("gateway", None);
    let mut first = fleet.daemon("w1", None);
    let _second: Proc = fleet.daemon("w2", None);
    let mut plant = Plant::start(fleet);
    for arguments in [
        &["daemon", "label", "name:w*", "task=writer", "--yes"][..],
        &["group", "set", "writers", "task=writer"],
    ] {
        wait_ok("the group", SOON, || fleet.cli(arguments));
    }
    fleet.apply("shared", &world.workflow());
    world.has("each to have its share", [2, 2]);
    world.moves_on("rows from both");

    // In the middle of whatever it was doing.
    first.kill9();
    world.has("the other to have it all", [0, 4]);
    world.moves_on("rows of all parts from the one that is left");

    let _first = fleet.daemon("w1", None);
    world.has("its share to come back to it", [2, 2]);
    world.moves_on("rows from both again");

    // Not away, but not of the group any more.
    fleet.cli(&["daemon", "label", "w2", "task-"]).expect("a label less");
    world.has("the one that is left in the group to have it all", [4, 0]);

    let rows = plant.end();
    wait_ok("every row", MOVED, || {
        let found = world.count();
        ensure!(found >= rows, "{found} of {rows} rows");
        anyhow::Ok(())
    });
    let one = |sql: &str| world.postgres.query_in("plant", sql)[0][0].clone();
    assert_eq!(world.count(), rows, "a row is there twice");
    assert_eq!(one("SELECT count(DISTINCT id) FROM readings"), rows.to_string());
    let disordered = "SELECT count(*) FROM (SELECT id, lag(id) OVER (PARTITION BY device ORDER BY arrived) AS before \
                      FROM readings) AS pairs WHERE before > id";
    assert_eq!(one(disordered), "0", "a device's rows are not in order");

    wait_ok("the books to balance", SOON, || {
        let ledgers = fleet.ledgers_of("shared");
        let delivered: u64 = ledgers.iter().map(|(_, ledger)| ledger.delivered).sum();
        ensure!(ledgers.len() == 4 && delivered == rows, "{rows} rows, and {ledgers:?}");
        anyhow::Ok(())
    });
    for (edge, ledger) in fleet.ledgers_of("shared") {
        ledger.assert_all_delivered(&edge);
    }
}

#[test]
fn how_a_destination_is_shared_cannot_change_under_its_records() {
    let world = World::new();
    let fleet = &world.fleet;
    let _daemons = ["gateway", "w1", "w2"].map(|name| fleet.daemon(name, None));
    let _plant = Plant::start(fleet);
    wait_ok("the group", SOON, || fleet.cli(&["group", "set", "writers", "name:w*"]));
    fleet.apply("shared", &world.workflow());
    let other = fleet.dir().join("other.toml");
    std::fs::write(&other, world.workflow().replace("parts = 4", "parts = 8")).expect("a file");
    let refused = fleet
        .cli(&["workflow", "apply", &other.display().to_string()])
        .expect_err("refused");
    assert!(
        refused.contains("cannot change") && refused.contains("another name"),
        "{refused}"
    );
}
