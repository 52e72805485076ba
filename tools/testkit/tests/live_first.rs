//! Live data first: after an outage over a slow line, what is produced now arrives before the backlog is through. Both ends are
//! killed in the middle, and in the end every row is there once, in a table and in a file, and the books balance.

#![cfg(target_os = "linux")]

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Result, ensure};
use rusqlite::{Connection, OpenFlags};
use testkit::{
    Broker, Fleet, Ledger, Link, Mosquitto, Nats, Proc,
    oracle::{Offence, Produced, Verdict},
    scenario::{COPY, shop_workflow},
    shop::{self, Sizes},
    wait_ok, wait_until,
};

const SOON: Duration = Duration::from_secs(60);
const LATE: Duration = Duration::from_secs(600);
const STOP: Duration = Duration::from_secs(20);

/// Rows before the outage.
const BEFORE: u64 = 100;
/// Rows that are produced during it, and the largest photo in them; a row has about an eighth of it.
const BACKLOG: u64 = 200;
const PHOTO_BYTES_MAX: u64 = 200_000;
/// Rows that are produced after it, at a time.
const LIVE: u64 = 20;
/// Slow enough that the backlog of two destinations takes minutes.
const SLOW_BYTES_PER_S: u64 = 60_000;

/// From the gateway's table to a table and a file of the hub, live data first.
fn workflow(fleet: &Fleet) -> String {
    let send = "send = { live_first = true }";
    format!(
        "{}{send}\n\n[transforms.typed]\ntype = \"select\"\nfrom = \"orders\"\nexcept = [\"misc\"]\n\n\
         [destinations.log]\ntype = \"file\"\ndaemon = \"hub\"\nfrom = \"typed\"\npath = \"{}\"\nformat = \"csv\"\n\
         {send}\n",
        shop_workflow(fleet),
        fleet.path("log.csv"),
    )
}

struct Mesh {
    fleet: Fleet,
    link: Link,
    bus: String,
    gateway: Proc,
    hub: Proc,
}

impl Mesh {
    fn start(broker: Broker) -> Self {
        let fleet = Fleet::start(broker, None);
        fleet.enrol("gateway");
        fleet.enrol("hub");
        let link = Link::to(fleet.broker.addr());
        let bus = link.url(&fleet.broker.url());
        let (gateway, hub) = (fleet.daemon("gateway", Some(&bus)), fleet.daemon("hub", None));
        shop::create(&fleet.dir().join("shop.db")).expect("a database");
        Self {
            fleet,
            link,
            bus,
            gateway,
            hub,
        }
    }

    fn source(&self) -> PathBuf {
        self.fleet.dir().join("shop.db")
    }

    /// Judges table and file; neither need be in order. The rows of each.
    fn judge(&self) -> Result<u64> {
        let acquit = |verdict: Verdict| {
            let disordered = Offence::default();
            Verdict { disordered, ..verdict }.acquit()
        };
        let copy = Produced::all(&self.source())?.judge_sqlite(&self.fleet.dir().join("copy.db"), COPY)?;
        let log = Produced::typed(&self.source())?.judge_csv(&[self.fleet.dir().join("log.csv")])?;
        let (copy, log) = (acquit(copy)?, acquit(log)?);
        ensure!(copy == log, "{copy} rows in the table and {log} in the file");
        Ok(copy)
    }

    #[track_caller]
    fn all_arrive(&self, what: &str, rows: u64) {
        let found = wait_ok(what, LATE, || {
            let found = shop::count(&self.fleet.dir().join("copy.db"), COPY);
            ensure!(found >= rows, "{found} of {rows} rows");
            self.judge()
        });
        assert_eq!(found, rows);
    }

    /// Waits until this row has come by the live track, while the backlog is still under way.
    #[track_caller]
    fn overtakes(&self, what: &str, id: u64, rows: u64) {
        let copy = self.fleet.dir().join("copy.db");
        wait_until(what, LATE, || has(&copy, id).then_some(()));
        let found = shop::count(&copy, COPY);
        assert!(
            found < rows,
            "the backlog was through before the live rows: {found} rows"
        );
        eprintln!("{what}: row {id} is there, {found} of {rows} rows are");
    }

    fn restart_gateway(&mut self) {
        self.gateway.kill9();
        self.gateway = self.fleet.daemon("gateway", Some(&self.bus));
    }

    fn restart_hub(&mut self) {
        self.hub.kill9();
        self.hub = self.fleet.daemon("hub", None);
    }
}

fn has(copy: &Path, id: u64) -> bool {
    let Ok(db) = Connection::open_with_flags(copy, OpenFlags::SQLITE_OPEN_READ_ONLY) else {
        return false;
    };
    let found = db.query_row(&format!("SELECT count(*) FROM {COPY} WHERE id = {id}"), [], |row| {
        row.get::<_, i64>(0)
    });
    found.is_ok_and(|found| found > 0)
}

/// The accounts of an edge's two streams together.
fn both_tracks(ledgers: &[(String, Ledger)], edge: &str) -> Ledger {
    let tracks = ledgers.iter().filter(|(name, _)| name.starts_with(edge));
    tracks.fold(Ledger::default(), |sum, (_, ledger)| Ledger {
        produced: sum.produced + ledger.produced,
        delivered: sum.delivered + ledger.delivered,
        buffered: sum.buffered + ledger.buffered,
        dropped: sum.dropped + ledger.dropped,
        dead_lettered: sum.dead_lettered + ledger.dead_lettered,
    })
}

/// Waits until the books say that everything is delivered.
#[track_caller]
fn balanced(fleet: &Fleet, rows: u64) {
    let wanted = Ledger {
        produced: rows,
        delivered: rows,
        ..Ledger::default()
    };
    let edges = ["orders->copy", "typed->log"];
    let ledgers = wait_ok("the ledger to show all rows", SOON, || {
        let ledgers = fleet.ledgers();
        let all = edges.iter().all(|edge| both_tracks(&ledgers, edge) == wanted);
        if all { Ok(ledgers) } else { Err(format!("{ledgers:?}")) }
    });
    for (edge, ledger) in &ledgers {
        ledger.assert_all_delivered(edge);
    }
    assert_eq!(ledgers.len(), 2 * edges.len(), "each edge has two streams");
}

fn live_rows_overtake_the_backlog(broker: Broker) {
    let mut mesh = Mesh::start(broker);
    shop::add(&mesh.source(), BEFORE).expect("rows");
    mesh.fleet.apply("shop", &workflow(&mesh.fleet));
    mesh.all_arrive("the first rows", BEFORE);

    mesh.link.cut();
    let last = shop::add_sized(&mesh.source(), BACKLOG, Sizes::UpTo(PHOTO_BYTES_MAX)).expect("rows");
    mesh.gateway.wait_for_log("data connection down", SOON);
    // It reads once a second at the latest.
    std::thread::sleep(Duration::from_secs(3));
    mesh.link.cap(Some(SLOW_BYTES_PER_S));
    mesh.link.restore();
    mesh.gateway.wait_for_log("data connection up", SOON);

    // Some of the backlog comes, and then what is new, before the rest of it.
    let copy = mesh.fleet.dir().join("copy.db");
    wait_until("the backlog to move", LATE, || {
        (shop::count(&copy, COPY) > BEFORE + BACKLOG / 20).then_some(())
    });
    let mut last = shop::add(&mesh.source(), LIVE).expect("rows").max(last);
    mesh.overtakes("live rows", last, last);

    // Both ends die in the middle. What is new goes first all the same.
    mesh.restart_gateway();
    last = shop::add(&mesh.source(), LIVE).expect("rows");
    mesh.overtakes("live rows after the gateway was killed", last, last);
    mesh.restart_hub();
    last = shop::add(&mesh.source(), LIVE).expect("rows");
    mesh.overtakes("live rows after the hub was killed", last, last);

    // A second outage while the first one's backlog is under way.
    mesh.link.cut();
    last = shop::add(&mesh.source(), LIVE).expect("rows");
    mesh.restart_gateway();
    mesh.link.restore();
    mesh.overtakes("live rows of a second outage", last, last);

    mesh.link.cap(None);
    mesh.restart_hub();
    mesh.all_arrive("every row, once", last);
    last = shop::add(&mesh.source(), LIVE).expect("rows");
    mesh.all_arrive("rows after all that", last);
    balanced(&mesh.fleet, last);
    assert!(
        mesh.gateway.term_and_wait(STOP).success(),
        "the gateway drains and stops"
    );
    assert!(mesh.hub.term_and_wait(STOP).success(), "the hub drains and stops");
}

#[test]
fn live_rows_overtake_the_backlog_over_mqtt() {
    live_rows_overtake_the_backlog(Broker::Mosquitto(Mosquitto::start()));
}

#[test]
fn live_rows_overtake_the_backlog_over_nats() {
    live_rows_overtake_the_backlog(Broker::Nats(Nats::start()));
}

/// The buffer of a track, by the end of its edge's name.
fn buffer(fleet: &Fleet, edge: &str) -> PathBuf {
    let streams = std::fs::read_dir(fleet.dir().join("gateway/streams")).expect("streams");
    let mut streams = streams.flatten().map(|entry| entry.path());
    let is_it = |dir: &PathBuf| std::fs::read_to_string(dir.join("edge")).is_ok_and(|name| name == edge);
    streams.find(is_it).expect("a stream of this edge").join("spool")
}

#[test]
fn a_buffer_that_is_lost_while_a_backlog_waits_loses_nothing() {
    // What the live track loses is read again from where the hub is. With the backlog, what had gone before it is read again
    // too, and comes a second time.
    for (lost, doubles) in [("orders->copy#2", false), ("orders->copy", true)] {
        let mut mesh = Mesh::start(Broker::embedded(false));
        shop::add(&mesh.source(), BEFORE).expect("rows");
        let text = format!("{}send = {{ live_first = true }}\n", shop_workflow(&mesh.fleet));
        mesh.fleet.apply("shop", &text);
        let copy = mesh.fleet.dir().join("copy.db");
        wait_until("the first rows", SOON, || {
            (shop::count(&copy, COPY) == BEFORE).then_some(())
        });
        mesh.link.cut();
        shop::add_sized(&mesh.source(), BACKLOG, Sizes::UpTo(PHOTO_BYTES_MAX)).expect("rows");
        mesh.gateway.wait_for_log("data connection down", SOON);
        std::thread::sleep(Duration::from_secs(3));
        mesh.link.cap(Some(SLOW_BYTES_PER_S));
        mesh.link.restore();
        wait_until("the backlog to move", LATE, || {
            (shop::count(&copy, COPY) > BEFORE + BACKLOG / 20).then_some(())
        });
        let last = shop::add(&mesh.source(), LIVE).expect("rows");
        mesh.overtakes("live rows", last, last);
        mesh.gateway.kill9();
        std::fs::remove_dir_all(buffer(&mesh.fleet, lost)).expect("a buffer");
        mesh.link.cap(None);
        mesh.gateway = mesh.fleet.daemon("gateway", Some(&mesh.bus));
        mesh.gateway.wait_for_log("begins a new epoch", SOON);
        mesh.gateway.wait_for_log("goes on from where the consumer is", SOON);
        let last = shop::add(&mesh.source(), LIVE).expect("rows");
        let verdict = wait_ok("every row", LATE, || {
            let verdict = Produced::all(&mesh.source())?.judge_sqlite(&copy, COPY)?;
            ensure!(verdict.lost.count == 0, "{verdict}");
            Ok(verdict)
        });
        eprintln!("without the buffer of {lost}: {verdict}");
        assert_eq!((verdict.altered.count, verdict.invented.count), (0, 0), "{verdict}");
        // The rows that had overtaken the backlog, and nothing else.
        let again = if doubles { LIVE } else { 0 };
        assert_eq!(verdict.doubled.count, again, "{verdict}");
        assert!(verdict.found >= last, "{verdict}");
    }
}
