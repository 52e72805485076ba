//! Wrong clocks: a gateway that boots in 1970, and one whose clock jumps by five years while it runs. Data flows, in order
//! and once; presence and commands do not notice; what was said once is not taken again; and the times of records come
//! out right.

#![cfg(target_os = "linux")]

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rumqttc::{Client, Event, MqttOptions, Packet, QoS};
use rusqlite::{Connection, OpenFlags, params};
use serde_json::Value;
use testkit::{Broker, Fleet, Mosquitto, Tls, WallClock, wait_ok, wait_until};

const SOON: Duration = Duration::from_secs(60);
const FIVE_YEARS_S: i64 = 5 * 365 * 24 * 3600;
/// How far a record's time may be off: what is wrong by less is left as it is, and this machine may be busy.
const TOLERANCE_S: i64 = 10;

fn unix_s() -> i64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("this host is past 1970");
    i64::try_from(now.as_secs()).expect("seconds since 1970")
}

/// What the hub's table has besides the data: the source's own time columns.
fn workflow(fleet: &Fleet, table: &str) -> String {
    format!(
        "name = \"{table}\"\n\n[sources.read]\ntype = \"sqlite\"\ndaemon = \"gateway\"\npath = \"{}\"\n\
         table = \"{table}\"\ncursor = \"id\"\n\n[transforms.when]\ntype = \"origin\"\ndaemon = \"hub\"\nfrom = \"read\"\n\n\
         [destinations.copy]\ntype = \"sqlite\"\ndaemon = \"hub\"\nfrom = \"when\"\npath = \"{}\"\ntable = \"{table}\"\n",
        fleet.path("source.db"),
        fleet.path("copy.db"),
    )
}

fn add(source: &Path, table: &str, rows: i64) {
    let mut db = Connection::open(source).expect("a database");
    db.execute_batch(&format!(
        "PRAGMA journal_mode = WAL; CREATE TABLE IF NOT EXISTS {table} (id INTEGER PRIMARY KEY, note TEXT)"
    ))
    .expect("a table");
    let batch = db.transaction().expect("a transaction");
    for _ in 0..rows {
        let insert = format!("INSERT INTO {table} (note) VALUES (?1)");
        batch.execute(&insert, params!["a note"]).expect("a row");
    }
    batch.commit().expect("a commit");
}

/// The ids from 1 on, each once, read in order by the gateway's own count, at a time since `since`.
fn all_in_order(copy: &Path, table: &str, rows: i64, since: i64) -> Result<(), String> {
    let text = |error: rusqlite::Error| error.to_string();
    let db = Connection::open_with_flags(copy, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(text)?;
    let columns = "id, origin_boot, origin_uptime_ms, CAST(strftime('%s', origin_time) AS INTEGER)";
    let mut rows_of = db
        .prepare(&format!("SELECT {columns} FROM {table} ORDER BY rowid"))
        .map_err(text)?;
    let found: Vec<(i64, i64, i64, i64)> = rows_of
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))
        .map_err(text)?
        .collect::<Result<_, _>>()
        .map_err(text)?;
    if found.len() as i64 != rows {
        return Err(format!("{} of {rows} rows", found.len()));
    }
    let (earliest, latest) = (since - TOLERANCE_S, unix_s() + TOLERANCE_S);
    let mut before = (0, 0);
    for (n, (id, boot, uptime_ms, time)) in (1..).zip(found) {
        assert_eq!(id, n, "the order is not kept, or a row is lost or doubled");
        assert!((boot, uptime_ms) >= before, "row {id}: read before the one before it");
        assert!(
            (earliest..=latest).contains(&time),
            "row {id}: read at {time}, not in {earliest}..{latest}"
        );
        before = (boot, uptime_ms);
    }
    Ok(())
}

fn gateway(fleet: &Fleet) -> Option<Value> {
    let text = fleet.cli(&["daemon", "list", "-o", "json"]).ok()?;
    let daemons: Vec<Value> = serde_json::from_str(&text).ok()?;
    daemons.into_iter().find(|daemon| daemon["name"] == "gateway")
}

/// Who was ever seen otherwise than online, until dropped.
struct Watch {
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<BTreeSet<String>>>,
}

impl Watch {
    fn start(fleet: &Arc<Fleet>) -> Self {
        let (fleet, stop) = (Arc::clone(fleet), Arc::<AtomicBool>::default());
        let stopping = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut seen = BTreeSet::new();
            while !stopping.load(Ordering::Relaxed) {
                if let Some(gateway) = gateway(&fleet) {
                    seen.insert(gateway["presence"].as_str().unwrap_or("nothing").to_string());
                }
                thread::sleep(Duration::from_millis(300));
            }
            seen
        });
        let thread = Some(thread);
        Self { stop, thread }
    }

    fn end(mut self) -> BTreeSet<String> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("ended once");
        thread.join().expect("the watch does not panic")
    }
}

/// Topics and payloads.
type Said = Arc<Mutex<Vec<(String, Vec<u8>)>>>;

/// Who sits at the broker, keeps everything said on the control lane, and says it again.
struct Recorder {
    client: Client,
    said: Said,
}

impl Recorder {
    fn on(broker: &Broker) -> Self {
        let addr = broker.addr();
        let mut options = MqttOptions::new("recorder", addr.ip().to_string(), addr.port());
        options.set_max_packet_size(1 << 20, 1 << 20);
        let (client, mut connection) = Client::new(options, 1024);
        client
            .subscribe("myc/v1/+/ctl/#", QoS::AtLeastOnce)
            .expect("room for a request");
        let said = Said::default();
        let saying = Arc::clone(&said);
        thread::spawn(move || {
            for event in connection.iter() {
                match event {
                    Ok(Event::Incoming(Packet::Publish(publish))) => {
                        let mut said = saying.lock().expect("nobody panics with it");
                        said.push((publish.topic, publish.payload.to_vec()));
                    }
                    Ok(_) => {}
                    Err(_) => return,
                }
            }
        });
        Self { client, said }
    }

    /// Says everything again that was said to a node; how much that was.
    fn say_again_to(&self, node: &str) -> u64 {
        let said = self.said.lock().expect("nobody panics with it").clone();
        let mut count = 0;
        for (topic, payload) in said.into_iter().filter(|(topic, _)| topic.ends_with(node)) {
            self.client
                .publish(topic, QoS::AtLeastOnce, false, payload)
                .expect("the recorder is connected");
            count += 1;
        }
        count
    }
}

#[test]
fn a_gateway_in_1970_enrols_and_delivers_over_tls() {
    let since = unix_s();
    let fleet = Fleet::start(Broker::embedded(true), None);
    let clock = WallClock::right();
    clock.begin_in_1970();
    fleet.enrol_with("gateway", |cmd| clock.on(cmd));
    fleet.enrol("hub");
    let (source, copy) = (fleet.dir().join("source.db"), fleet.dir().join("copy.db"));
    add(&source, "readings", 500);
    let mut gateway = clock.on(fleet.daemon_cmd("gateway", None)).spawn();
    let _hub = fleet.daemon("hub", None);
    fleet.apply("readings", &workflow(&fleet, "readings"));
    wait_ok("the first rows", SOON, || all_in_order(&copy, "readings", 500, since));
    // A start is counted, not dated. What was read before it and is still buffered keeps its boot.
    gateway.kill9();
    add(&source, "readings", 500);
    clock.begin_in_1970();
    let _gateway = clock.on(fleet.daemon_cmd("gateway", None)).spawn();
    wait_ok("the rows after a restart", SOON, || {
        all_in_order(&copy, "readings", 1000, since)
    });
    wait_until("the books to be closed", SOON, || {
        let (_, ledger) = fleet.ledgers().into_iter().next()?;
        (ledger.delivered == 1000).then(|| ledger.assert_all_delivered("readings"))
    });
}

/// The broker's certificate is valid for a year. A gateway that starts in 1970 connects all the same; one whose clock is
/// ahead cannot know that it is not the certificate that is old, says so, and connects once its clock is right.
#[test]
fn a_wrong_clock_and_a_certificate_that_ends() {
    const DAY: Duration = Duration::from_secs(24 * 3600);
    let tls = Tls::valid(30 * DAY, 365 * DAY);
    let broker = Broker::Mosquitto(Mosquitto::builder().tls(&tls).start());
    let mut fleet = Fleet::start(broker, Some(&tls));
    let clock = WallClock::right();
    clock.begin_in_1970();
    fleet.enrol_with("gateway", |cmd| clock.on(cmd));
    let mut process = clock.on(fleet.daemon_cmd("gateway", None)).spawn();
    let online = |fleet: &Fleet, what: &str| {
        wait_until(what, SOON, || (gateway(fleet)?["presence"] == "online").then_some(()));
    };
    online(&fleet, "the gateway of 1970 to be online");

    clock.off_by(FIVE_YEARS_S);
    fleet.broker.away();
    fleet.broker.back();
    process.wait_for_log("has expired by this host's clock", SOON);
    process.wait_for_log("if the clock is ahead, set it right", SOON);
    clock.off_by(0);
    let told = process.log().matches("connected").count();
    wait_until("another connection", SOON, || {
        (process.log().matches("connected").count() > told).then_some(())
    });
    online(&fleet, "the gateway whose clock was set right to be online");
    assert!(process.term_and_wait(SOON).success());
}

#[test]
fn a_clock_that_jumps_by_five_years_changes_nothing() {
    let since = unix_s();
    let fleet = Arc::new(Fleet::start(Broker::Mosquitto(Mosquitto::start()), None));
    let recorder = Recorder::on(&fleet.broker);
    let clock = WallClock::right();
    fleet.enrol_with("gateway", |cmd| clock.on(cmd));
    fleet.enrol("hub");
    let (source, copy) = (fleet.dir().join("source.db"), fleet.dir().join("copy.db"));
    add(&source, "readings", 100);
    let _gateway = clock.on(fleet.daemon_cmd("gateway", None)).spawn();
    let _hub = fleet.daemon("hub", None);
    fleet.apply("readings", &workflow(&fleet, "readings"));
    wait_ok("the first rows", SOON, || all_in_order(&copy, "readings", 100, since));
    wait_until("the gateway to be online", SOON, || {
        (gateway(&fleet)?["presence"] == "online").then_some(())
    });
    let watch = Watch::start(&fleet);
    let mut rows = 100;
    for (jump, off_by) in [FIVE_YEARS_S, -FIVE_YEARS_S, 0, -FIVE_YEARS_S].into_iter().enumerate() {
        clock.off_by(off_by);
        add(&source, "readings", 100);
        rows += 100;
        wait_ok("the rows after a jump", SOON, || {
            all_in_order(&copy, "readings", rows, since)
        });
        // A command: the gateway takes a new plan and runs it.
        let table = format!("more{jump}");
        add(&source, &table, 10);
        fleet.apply(&table, &workflow(&fleet, &table));
        wait_ok("the rows of a new workflow", SOON, || {
            all_in_order(&copy, &table, 10, since)
        });
    }
    // Longer than a lease lasts.
    thread::sleep(Duration::from_secs(20));
    let seen = watch.end();
    assert_eq!(seen, BTreeSet::from(["online".to_string()]), "presence flapped");

    // Everything the gateway was ever told, plans among it, is said again under a clock that says it is still to come.
    let before = gateway(&fleet).expect("the plane answers");
    let (node, refused) = (before["node"].as_str().expect("a node"), refused(&fleet));
    let count = recorder.say_again_to(node);
    assert!(count >= 5, "only {count} messages were recorded");
    wait_until("every repeated message to be refused", SOON, || {
        (self::refused(&fleet) >= refused + count).then_some(())
    });
    let after = gateway(&fleet).expect("the plane answers");
    for key in ["presence", "plan_version"] {
        assert_eq!(after[key], before[key], "{key} changed by repeated messages");
    }
    add(&source, "readings", 100);
    wait_ok("the rows after the repetition", SOON, || {
        all_in_order(&copy, "readings", rows + 100, since)
    });
    let closed = wait_until("the books to be closed", SOON, || {
        let ledgers = fleet.ledgers();
        let delivered: u64 = ledgers.iter().map(|(_, ledger)| ledger.delivered).sum();
        (delivered == 640).then_some(ledgers)
    });
    closed
        .iter()
        .for_each(|(edge, ledger)| ledger.assert_all_delivered(edge));
}

/// Messages the gateway has refused.
fn refused(fleet: &Fleet) -> u64 {
    let text = fleet
        .cli(&["daemon", "show", "gateway", "-o", "json"])
        .unwrap_or_default();
    let detail: Value = serde_json::from_str(&text).unwrap_or_default();
    detail["refused"].as_u64().unwrap_or(0)
}
