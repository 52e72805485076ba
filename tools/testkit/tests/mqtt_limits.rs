//! A destination broker that takes less than a record: what it cannot take goes to the dead letters, everything else is
//! published, and the stream goes on, whether the broker says so or only closes the connection.

#![cfg(target_os = "linux")]

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use rumqttc::{Client, Event, MqttOptions, Packet, QoS};
use rusqlite::{Connection, params};
use testkit::{Broker, Fleet, Ledger, Mosquitto, scenario::letters, wait_ok};

const SOON: Duration = Duration::from_secs(60);
const LATE: Duration = Duration::from_secs(180);
const STOP: Duration = Duration::from_secs(20);
/// What the broker takes, bytes.
const LIMIT_BYTES: usize = 64 * 1024;
const ROWS: u64 = 600;
/// Rows that are larger than the broker takes.
const LARGE: [u64; 4] = [1, 200, 201, 600];

fn add(path: &Path, ids: std::ops::RangeInclusive<u64>) {
    let mut db = Connection::open(path).expect("a database");
    db.busy_timeout(SOON).expect("a time");
    db.execute_batch("CREATE TABLE IF NOT EXISTS scans (id INTEGER PRIMARY KEY, body TEXT NOT NULL)")
        .expect("a table");
    let all = db.transaction().expect("a transaction");
    for id in ids {
        let bytes = if LARGE.contains(&id) { 2 * LIMIT_BYTES } else { 100 };
        all.execute(
            "INSERT INTO scans VALUES (?1, ?2)",
            params![id.cast_signed(), "x".repeat(bytes)],
        )
        .expect("a row");
    }
    all.commit().expect("rows");
}

/// Somebody who listens, and counts each id.
fn listen(broker: &Mosquitto) -> Arc<Mutex<BTreeMap<u64, u32>>> {
    let heard = Arc::new(Mutex::new(BTreeMap::new()));
    let mut options = MqttOptions::new("listener", "127.0.0.1", broker.port());
    options.set_max_packet_size(4 * LIMIT_BYTES, 4 * LIMIT_BYTES);
    let (client, mut events) = Client::new(options, 64);
    client.subscribe("scans", QoS::AtLeastOnce).expect("a subscription");
    let (ready, subscribed) = std::sync::mpsc::sync_channel(1);
    let counts = Arc::clone(&heard);
    thread::spawn(move || {
        let _client = client;
        for event in events.iter() {
            match event {
                Ok(Event::Incoming(Packet::SubAck(_))) => drop(ready.send(())),
                Ok(Event::Incoming(Packet::Publish(message))) => {
                    let record: serde_json::Value = serde_json::from_slice(&message.payload).expect("JSON");
                    let id = record["id"].as_u64().expect("an id");
                    *counts.lock().expect("counts").entry(id).or_default() += 1;
                }
                Ok(_) => {}
                // The broker is stopped at the end of the test.
                Err(_) => return,
            }
        }
    });
    subscribed.recv_timeout(SOON).expect("a listener");
    heard
}

fn workflow(fleet: &Fleet, broker: &Mosquitto, more: &str) -> String {
    format!(
        "name = \"scans\"\n\n[sources.line]\ntype = \"sqlite\"\ndaemon = \"gateway\"\npath = \"{}\"\ntable = \"scans\"\n\
         cursor = \"id\"\n\n[destinations.plant]\ntype = \"mqtt\"\ndaemon = \"hub\"\nfrom = \"line\"\nurl = \"{}\"\n\
         topic = \"scans\"\n{more}",
        fleet.path("line.db"),
        broker.url(),
    )
}

/// Everything but the large rows arrives, these are letters whose reason has these words, and the books say so.
fn isolated(limit: &str, more: &str, words: &str) {
    let broker = Mosquitto::builder().line(limit).start();
    let heard = listen(&broker);
    let fleet = Fleet::start(Broker::embedded(false), None);
    fleet.enrol("gateway");
    fleet.enrol("hub");
    let mut daemons = [fleet.daemon("gateway", None), fleet.daemon("hub", None)];
    add(&fleet.dir().join("line.db"), 1..=ROWS);
    fleet.apply("scans", &workflow(&fleet, &broker, more));
    let wanted = Ledger {
        produced: ROWS,
        delivered: ROWS - LARGE.len() as u64,
        dead_lettered: LARGE.len() as u64,
        ..Ledger::default()
    };
    wait_ok("everything but the large rows", LATE, || {
        let ledgers = fleet.ledgers();
        let all = !ledgers.is_empty() && ledgers.iter().all(|(_, ledger)| *ledger == wanted);
        all.then_some(()).ok_or_else(|| {
            let status = fleet.cli(&["workflow", "status", "scans"]).unwrap_or_default();
            format!("{ledgers:?} instead of {wanted:?}\n{status}")
        })
    });
    wanted.assert_balances(limit);
    let expected: Vec<u64> = (1..=ROWS).filter(|id| !LARGE.contains(id)).collect();
    wait_ok("every message at the listener", SOON, || {
        let heard = heard.lock().expect("counts");
        let ids: Vec<u64> = heard.keys().copied().collect();
        let sum: u32 = heard.values().sum();
        println!("{} messages of {} rows", sum, ids.len());
        (ids == expected)
            .then_some(())
            .ok_or_else(|| format!("{} of {} rows", ids.len(), expected.len()))
    });
    let letters = letters(&fleet, "scans");
    assert_eq!(letters.len(), LARGE.len(), "{letters:?}");
    for letter in &letters {
        let reason = letter["reason"].as_str().unwrap_or_default();
        assert!(reason.contains(words), "{reason}");
    }
    for daemon in &mut daemons {
        assert!(daemon.term_and_wait(STOP).success());
    }
}

#[test]
fn a_broker_that_only_closes_the_connection_does_not_stop_the_stream() {
    isolated(&format!("max_packet_size {LIMIT_BYTES}"), "", "the broker");
}

/// This broker acknowledges what it drops, so it can only be helped by being told.
#[test]
fn a_limit_that_is_known_is_kept() {
    let known = format!("packet_bytes_max = {LIMIT_BYTES}\n");
    isolated(&format!("message_size_limit {LIMIT_BYTES}"), &known, "packet_bytes_max");
}
