//! Records far larger than anything a broker takes: they cross in parts, arrive bit for bit and once, whoever is killed
//! meanwhile; one that is too large goes to the dead letters, and its neighbours pass.

#![cfg(target_os = "linux")]

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, params};
use testkit::{Broker, Fleet, Link, Mosquitto, Nats, Postgres, Proc, wait_ok, wait_until};

const SOON: Duration = Duration::from_secs(60);
const LATE: Duration = Duration::from_secs(240);

/// What the brokers take at most, in bytes.
const LIMIT_BYTES: usize = 128 * 1024;
/// A record that can travel.
const LARGE_BYTES: usize = 50_000_000;
/// One that cannot.
const TOO_LARGE_BYTES: usize = 70_000_000;
/// About eight seconds for the large one.
const SLOW_BYTES_PER_S: u64 = 6_000_000;
/// Resident memory a daemon may take at its peak: the large record a few times, and itself. KiB.
const PEAK_KIB_MAX: u64 = 260 * 1024;

/// Bytes that do not compress and are different for each seed (SplitMix64).
fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut state = seed;
    let mut out = Vec::with_capacity(bytes + 8);
    while out.len() < bytes {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        out.extend_from_slice(&(z ^ (z >> 31)).to_le_bytes());
    }
    out.truncate(bytes);
    out
}

fn create(path: &Path) -> Connection {
    let db = Connection::open(path).expect("a database");
    db.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE scans (id INTEGER PRIMARY KEY, name TEXT, scan BLOB)")
        .expect("a table");
    db
}

fn add(db: &Connection, id: i64, bytes: usize) {
    db.execute(
        "INSERT INTO scans VALUES (?1, ?2, ?3)",
        params![id, format!("scan {id}"), noise(id.unsigned_abs(), bytes)],
    )
    .expect("a row");
}

/// Compares every row but those left out; the number of rows, or what differs.
fn compare(copy: &Path, ids: &[i64], bytes: impl Fn(i64) -> usize) -> Result<(), String> {
    let db = Connection::open_with_flags(copy, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(|error| error.to_string())?;
    let mut rows = db
        .prepare("SELECT id, name, scan FROM scans ORDER BY id")
        .map_err(|error| error.to_string())?;
    let rows = rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)));
    let mut found = Vec::new();
    for row in rows.map_err(|error| error.to_string())? {
        let (id, name, scan): (i64, String, Vec<u8>) = row.map_err(|error| error.to_string())?;
        if name != format!("scan {id}") || scan != noise(id.unsigned_abs(), bytes(id)) {
            return Err(format!("row {id} is not what it was ({} bytes)", scan.len()));
        }
        found.push(id);
    }
    if found == ids {
        Ok(())
    } else {
        Err(format!("rows {found:?}"))
    }
}

fn count(copy: &Path) -> i64 {
    let count = || Connection::open(copy)?.query_row("SELECT count(*) FROM scans", [], |row| row.get(0));
    count().unwrap_or(0)
}

fn peak(name: &str, daemon: &Proc) -> u64 {
    let peak = daemon.rss_peak_kb().expect("it runs");
    println!("{name}: {} MB at its peak", peak / 1024);
    peak
}

/// Rows 1 to 30; the 10th is large, the 20th too large.
fn size_of(id: i64) -> usize {
    match id {
        10 => LARGE_BYTES,
        20 => TOO_LARGE_BYTES,
        _ => 1000,
    }
}

fn crosses(broker: Broker) {
    let fleet = Fleet::start(broker, None);
    fleet.enrol("gateway");
    fleet.enrol("hub");
    let link = Link::to(fleet.broker.addr());
    let gateway_bus = link.url(&fleet.broker.url());
    let (source, copy) = (fleet.dir().join("scans.db"), fleet.dir().join("copy.db"));
    let db = create(&source);
    let mut gateway = fleet.daemon("gateway", Some(&gateway_bus));
    let mut hub = fleet.daemon("hub", None);
    fleet.apply(
        "scans",
        &format!(
            "name = \"scans\"\n\n[sources.scans]\ntype = \"sqlite\"\ndaemon = \"gateway\"\npath = \"{}\"\n\
             table = \"scans\"\ncursor = \"id\"\n\n[destinations.copy]\ntype = \"sqlite\"\ndaemon = \"hub\"\n\
             from = \"scans\"\npath = \"{}\"\ntable = \"scans\"\n",
            source.display(),
            copy.display()
        ),
    );

    link.cap(Some(SLOW_BYTES_PER_S));
    (1..=15).for_each(|id| add(&db, id, size_of(id)));
    wait_until("the first rows", SOON, || (count(&copy) == 9).then_some(()));
    // Each is killed while the large one is on its way.
    std::thread::sleep(Duration::from_secs(2));
    let mut peaks = vec![peak("gateway", &gateway)];
    gateway.kill9();
    assert_eq!(count(&copy), 9, "the kill came too late to prove anything");
    let gateway = fleet.daemon("gateway", Some(&gateway_bus));
    std::thread::sleep(Duration::from_secs(3));
    peaks.push(peak("hub", &hub));
    hub.kill9();
    assert_eq!(count(&copy), 9, "the kill came too late to prove anything");
    let hub = fleet.daemon("hub", None);
    let ids: Vec<i64> = (1..=15).collect();
    wait_ok("the large record and its neighbours", LATE, || {
        compare(&copy, &ids, size_of)
    });
    link.cap(None);

    (16..=30).for_each(|id| add(&db, id, size_of(id)));
    let ids: Vec<i64> = (1..=30).filter(|id| *id != 20).collect();
    wait_ok("everything but what is too large", LATE, || {
        compare(&copy, &ids, size_of)
    });
    let ledger = wait_until("the books to be closed", SOON, || {
        let (_, ledger) = fleet.ledgers().into_iter().next()?;
        (ledger.delivered == 29 && ledger.dead_lettered == 1).then_some(ledger)
    });
    ledger.assert_balances("scans");
    assert_eq!(ledger.dead_lettered, 1);
    peaks.extend([peak("gateway", &gateway), peak("hub", &hub)]);
    assert!(peaks.iter().all(|peak| *peak < PEAK_KIB_MAX), "{peaks:?} KiB");
}

#[test]
fn a_large_record_crosses_mosquitto() {
    let broker = Mosquitto::builder()
        .line(&format!("max_packet_size {LIMIT_BYTES}"))
        .line(&format!("message_size_limit {LIMIT_BYTES}"))
        .start();
    crosses(Broker::Mosquitto(broker));
}

#[test]
fn a_large_record_crosses_nats() {
    let broker = Nats::builder().line(&format!("max_payload: {LIMIT_BYTES}")).start();
    crosses(Broker::Nats(broker));
}

/// A large value is written beside small ones, and a row the database refuses for good does not hold it up.
#[test]
fn a_large_record_reaches_postgres_and_a_refused_one_is_isolated() {
    let postgres = Postgres::start();
    postgres.query("CREATE TABLE scans (id bigint PRIMARY KEY, name text CHECK (name <> 'forbidden'), scan bytea)");
    let fleet = Fleet::start(Broker::Mosquitto(Mosquitto::start()), None);
    fleet.enrol("gateway");
    fleet.enrol("hub");
    let source = fleet.dir().join("scans.db");
    let db = create(&source);
    let piece = noise(7, 50_000);
    for (id, name, scan) in [
        (1, "first", piece.clone()),
        (2, "large", piece.repeat(1_000)),
        (3, "no text in PostgreSQL: \0", piece.clone()),
        (4, "forbidden", piece.repeat(20)),
        (5, "last", piece.clone()),
    ] {
        db.execute("INSERT INTO scans VALUES (?1, ?2, ?3)", params![id, name, scan])
            .expect("a row");
    }
    let _gateway = fleet.daemon("gateway", None);
    let hub = fleet.daemon("hub", None);
    fleet.apply(
        "scans",
        &format!(
            "name = \"scans\"\n\n[sources.scans]\ntype = \"sqlite\"\ndaemon = \"gateway\"\npath = \"{}\"\n\
             table = \"scans\"\ncursor = \"id\"\n\n[destinations.copy]\ntype = \"postgres\"\ndaemon = \"hub\"\n\
             from = \"scans\"\nurl = \"{}\"\ntable = \"scans\"\ntls = {{ mode = \"disable\" }}\n",
            source.display(),
            postgres.url()
        ),
    );
    let hex: String = piece.iter().map(|byte| format!("{byte:02x}")).collect();
    let same = format!(
        "SELECT id, scan = decode(repeat('{hex}', CASE id WHEN 2 THEN 1000 ELSE 1 END), 'hex') FROM scans ORDER BY id"
    );
    wait_until("every row but those refused", LATE, || {
        (postgres.query(&same) == [["1", "t"], ["2", "t"], ["5", "t"]]).then_some(())
    });
    let ledger = wait_until("the books to be closed", SOON, || {
        let (_, ledger) = fleet.ledgers().into_iter().next()?;
        (ledger.delivered == 3 && ledger.dead_lettered == 2).then_some(ledger)
    });
    ledger.assert_balances("scans");
    peak("hub", &hub);
}
