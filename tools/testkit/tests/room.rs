//! No room: a buffer over its quota under each policy. What is given up is reported in order and counted at both ends, to
//! the record, through kills of the gateway and an absent hub.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a helper of a test may panic like the test itself")]

use std::{collections::BTreeSet, path::Path, time::Duration};

use rusqlite::{Connection, OpenFlags};
use testkit::{Broker, Fleet, Ledger, Proc, faults::Disk, wait_ok, wait_until};

const LATE: Duration = Duration::from_secs(120);
const STOP: Duration = Duration::from_secs(20);
/// Bytes of a row: a buffer of 16 MiB takes about 5,000 of them.
const BODY_BYTES: usize = 1_000;

fn add(path: &Path, ids: std::ops::RangeInclusive<u64>) {
    let mut db = Connection::open(path).unwrap();
    db.busy_timeout(Duration::from_secs(10)).unwrap();
    db.pragma_update(None, "journal_mode", "WAL").unwrap();
    db.execute_batch("CREATE TABLE IF NOT EXISTS readings (id INTEGER PRIMARY KEY, body TEXT NOT NULL)")
        .unwrap();
    let all = db.transaction().unwrap();
    for id in ids {
        all.execute("INSERT INTO readings VALUES (?1, ?2)", (id as i64, body(id)))
            .unwrap();
    }
    all.commit().unwrap();
}

/// What a row says follows from its id alone, and does not compress.
fn body(id: u64) -> String {
    let mut state = id.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut text = String::with_capacity(BODY_BYTES + 16);
    while text.len() < BODY_BYTES {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        text.push_str(&format!("{state:016x}"));
    }
    text
}

/// The gateway's files are on this disk, the first rows have arrived, and then the hub went away.
fn on_a_disk(disk: &Disk, spool: &str) -> (Fleet, Proc) {
    let fleet = Fleet::start(Broker::embedded(false), None);
    disk.hold(fleet.dir(), "gateway");
    fleet.enrol("gateway");
    fleet.enrol("hub");
    let gateway = fleet.daemon("gateway", None);
    let mut hub = fleet.daemon("hub", None);
    add(&fleet.dir().join("line.db"), 1..=100);
    fleet.apply("plant", &workflow(&fleet, spool));
    let store = fleet.dir().join("store.db");
    wait_until("the first rows", LATE, || {
        there(&store).ok().filter(|there| there.ids.len() == 100)
    });
    hub.kill9();
    (fleet, gateway)
}

/// Waits until the gateway has read so many rows, whatever became of them.
fn produced(fleet: &Fleet, rows: u64) -> Ledger {
    wait_ok("the rows to be read", LATE, || {
        let ledger = stream(fleet).ok_or("no stream")?;
        (ledger.produced == rows)
            .then_some(ledger)
            .ok_or_else(|| format!("{ledger:?} instead of {rows}"))
    })
}

fn workflow(fleet: &Fleet, spool: &str) -> String {
    format!(
        "name = \"plant\"\n\n[sources.line]\ntype = \"sqlite\"\ndaemon = \"gateway\"\npath = \"{}\"\ntable = \"readings\"\n\
         cursor = \"id\"\n\n[destinations.store]\ntype = \"sqlite\"\ndaemon = \"hub\"\nfrom = \"line\"\npath = \"{}\"\n\
         table = \"readings\"\nspool = {spool}\n",
        fleet.path("line.db"),
        fleet.path("store.db"),
    )
}

/// What a destination says itself: its ids, and what it counted with its watermark.
#[derive(Debug)]
struct There {
    ids: BTreeSet<u64>,
    rows: u64,
    delivered: u64,
    dropped: u64,
    gaps: u64,
}

fn there(path: &Path) -> rusqlite::Result<There> {
    let mut db = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    // All of one moment.
    let db = db.transaction()?;
    let mut rows = db.prepare("SELECT id, body FROM readings")?;
    let mut found = There {
        ids: BTreeSet::new(),
        rows: 0,
        delivered: 0,
        dropped: 0,
        gaps: 0,
    };
    let mut rows = rows.query([])?;
    while let Some(row) = rows.next()? {
        let id = row.get::<_, i64>(0)?.cast_unsigned();
        assert!(row.get::<_, String>(1)? == body(id), "row {id} is not what was sent");
        found.ids.insert(id);
        found.rows += 1;
    }
    let watermark = "SELECT delivered, counts FROM _mycelial_watermark";
    db.query_row(watermark, [], |row| {
        found.delivered = row.get::<_, i64>(0)?.cast_unsigned();
        // dead, dropped, duplicates, unconfirmed, gaps, replay, filtered
        let counts: [u64; 7] = bus_schema::decode(&row.get::<_, Vec<u8>>(1)?).expect("the counts of a watermark");
        assert_eq!((counts[0], counts[3], counts[5], counts[6]), (0, 0, 0, 0), "{counts:?}");
        (found.dropped, found.gaps) = (counts[1], counts[4]);
        Ok(())
    })?;
    Ok(found)
}

fn stream(fleet: &Fleet) -> Option<Ledger> {
    fleet.ledgers().into_iter().next().map(|(_, ledger)| ledger)
}

/// Runs the gateway over its quota and gives what arrived of the rows `1..=last`, and their number.
fn overfill(when_full: &str) -> (There, u64) {
    let fleet = Fleet::start(Broker::embedded(false), None);
    let (line, store) = (fleet.dir().join("line.db"), fleet.dir().join("store.db"));
    fleet.enrol("gateway");
    fleet.enrol("hub");
    let mut gateway = fleet.daemon("gateway", None);
    let mut hub = fleet.daemon("hub", None);
    add(&line, 1..=100);
    let spool = format!("{{ quota = \"16MiB\", when_full = \"{when_full}\" }}");
    fleet.apply("plant", &workflow(&fleet, &spool));
    wait_until("the first rows", LATE, || {
        there(&store).ok().filter(|there| there.ids.len() == 100)
    });

    hub.kill9();
    add(&line, 101..=9_000);
    let is_over = |ledger: &Ledger| match when_full {
        "block" => ledger.buffered > 3_000,
        _ => ledger.dropped > 0 && ledger.produced == 9_000,
    };
    wait_until("the buffer to be full", LATE, || stream(&fleet).filter(is_over));
    gateway.kill9();
    let mut gateway = fleet.daemon("gateway", None);
    add(&line, 9_001..=12_000);
    if when_full != "block" {
        wait_until("the rest to be read", LATE, || {
            stream(&fleet).filter(|ledger| ledger.produced == 12_000)
        });
    }
    gateway.kill9();
    let mut gateway = fleet.daemon("gateway", None);
    let mut hub = fleet.daemon("hub", None);

    let last = 12_000;
    let arrived = wait_ok("everything to be accounted for at the hub", LATE, || {
        let there = there(&store).map_err(|error| error.to_string())?;
        let all = there.delivered + there.dropped == last;
        all.then_some(there).ok_or_else(|| format!("{:?}", stream(&fleet)))
    });
    // The producer's word is the same.
    let ledger = wait_until("the plane to know", LATE, || {
        stream(&fleet).filter(|ledger| ledger.buffered == 0 && ledger.delivered + ledger.dropped == last)
    });
    ledger.assert_balances(when_full);
    assert_eq!(
        (ledger.produced, ledger.delivered, ledger.dropped),
        (last, arrived.delivered, arrived.dropped)
    );
    assert_eq!(
        (arrived.rows, arrived.ids.len() as u64),
        (arrived.delivered, arrived.delivered),
        "nothing twice"
    );
    assert!(gateway.term_and_wait(STOP).success() && hub.term_and_wait(STOP).success());
    (arrived, last)
}

#[test]
fn block_waits_and_loses_nothing() {
    let (arrived, last) = overfill("block");
    assert_eq!((arrived.delivered, arrived.dropped, arrived.gaps), (last, 0, 0));
}

#[test]
fn drop_oldest_keeps_the_newest() {
    let (arrived, last) = overfill("drop_oldest");
    assert!(arrived.dropped > 3_000 && arrived.gaps > 0, "{}", arrived.dropped);
    assert!(arrived.ids.contains(&last), "the newest row");
    let missing: Vec<u64> = (1..=last).filter(|id| !arrived.ids.contains(id)).collect();
    assert!(missing[0] > 100 && missing.len() as u64 == arrived.dropped);
    // Whole segments go, and each stretch of them is one gap; what may have been on its way at a kill stays between them.
    let stretches = 1 + missing.windows(2).filter(|pair| pair[0] + 1 < pair[1]).count() as u64;
    assert!(
        stretches <= arrived.gaps && stretches <= 3,
        "{stretches}, {}",
        arrived.gaps
    );
}

#[test]
fn drop_newest_keeps_the_oldest() {
    let (arrived, last) = overfill("drop_newest");
    assert!(arrived.dropped > 3_000 && arrived.gaps > 0, "{}", arrived.dropped);
    let missing: Vec<u64> = (1..=last).filter(|id| !arrived.ids.contains(id)).collect();
    assert!(missing[0] > 3_000, "{}", missing[0]);
    assert_eq!(missing.len() as u64, arrived.dropped);
    // What was there when the buffer was full stays, and most of what came then went. A few of the newest may be there all
    // the same: a small batch still fits where a large one did not, and after a kill there may be room again.
    let kept_since = (missing[0]..=last).filter(|id| arrived.ids.contains(id)).count();
    assert!(
        kept_since < missing.len() / 2,
        "{kept_since} of {} since it was full",
        last - missing[0]
    );
}

/// Not a byte is left on the disk: what the policy says happens all the same, the daemon answers, and the books are right to
/// the record when there is room again.
fn a_really_full_disk(when_full: &str) -> There {
    let disk = Disk::mount(48 * 1024 * 1024);
    let (fleet, mut gateway) = on_a_disk(&disk, &format!("{{ when_full = \"{when_full}\" }}"));
    let line = fleet.dir().join("line.db");
    add(&line, 101..=4_000);
    produced(&fleet, 4_000);
    disk.fill();
    add(&line, 4_001..=8_000);
    let ledger = produced(&fleet, 8_000);
    ledger.assert_balances("on a full disk");
    assert!(ledger.dropped > 0, "{ledger:?}");
    wait_ok("an answer to a ping", LATE, || {
        fleet.cli(&["daemon", "ping", "gateway"])
    });
    // Killed there, and started with nothing free.
    gateway.kill9();
    let mut gateway = fleet.daemon("gateway", None);
    produced(&fleet, 8_000);

    disk.free();
    let mut hub = fleet.daemon("hub", None);
    let store = fleet.dir().join("store.db");
    let arrived = wait_ok("everything to be accounted for at the hub", LATE, || {
        let there = there(&store).map_err(|error| error.to_string())?;
        let all = there.delivered + there.dropped == 8_000;
        all.then_some(there).ok_or_else(|| format!("{:?}", stream(&fleet)))
    });
    let ledger = wait_until("the plane to know", LATE, || {
        stream(&fleet).filter(|ledger| ledger.buffered == 0 && ledger.delivered + ledger.dropped == 8_000)
    });
    ledger.assert_balances(when_full);
    assert_eq!((ledger.delivered, ledger.dropped), (arrived.delivered, arrived.dropped));
    assert_eq!(
        (arrived.rows, arrived.ids.len() as u64),
        (arrived.delivered, arrived.delivered),
        "nothing twice"
    );
    assert!(gateway.term_and_wait(STOP).success() && hub.term_and_wait(STOP).success());
    arrived
}

#[test]
fn drop_oldest_on_a_full_disk() {
    let arrived = a_really_full_disk("drop_oldest");
    assert!(arrived.gaps > 0 && arrived.ids.contains(&8_000), "the newest row");
}

#[test]
fn drop_newest_on_a_full_disk() {
    let arrived = a_really_full_disk("drop_newest");
    let missing = (1..=8_000).find(|id| !arrived.ids.contains(id));
    assert!(arrived.gaps > 0 && missing > Some(4_000), "{missing:?}");
}

/// A buffer that was set aside takes room on the disk, and gives it up before a stream waits for the want of it.
#[test]
fn what_was_set_aside_makes_room() {
    let disk = Disk::mount(48 * 1024 * 1024);
    let (fleet, mut gateway) = on_a_disk(&disk, "{ when_full = \"block\" }");
    let streams = std::fs::read_dir(fleet.dir().join("gateway/streams")).unwrap();
    let stream_dir = streams.flatten().next().expect("a stream").path();
    let aside = stream_dir.join("spool.lost.1");
    std::fs::create_dir(&aside).unwrap();
    std::fs::write(aside.join("db"), vec![1; 20 * 1024 * 1024]).unwrap();
    disk.fill();
    add(&fleet.dir().join("line.db"), 101..=3_000);
    let ledger = produced(&fleet, 3_000);
    assert_eq!(ledger.dropped, 0);
    assert!(!aside.exists(), "it is gone, and the records are not");

    disk.free();
    let mut hub = fleet.daemon("hub", None);
    let ledger = wait_until("everything to be delivered", LATE, || {
        stream(&fleet).filter(|ledger| ledger.delivered == 3_000)
    });
    ledger.assert_all_delivered("after room was made");
    assert!(gateway.term_and_wait(STOP).success() && hub.term_and_wait(STOP).success());
}
