//! Sources whose system waits for an acknowledgement, and a destination where what is committed is durable only after a while
//! (an object store): everything arrives once, and nobody sends again what is only on its way.

use std::{thread::sleep, time::Duration};

use serde_json::{Value as Json, json};

use crate::{
    bench::{Bench, Vault},
    world::World,
};

/// How long it gathers.
const GATHER: Duration = Duration::from_secs(3);
/// Until a source has said what it wants.
const OPEN: Duration = Duration::from_secs(1);

/// A source, what its config says besides, and how many records there are.
fn prove(component: &str, way: &str, more: &[(&str, Json)], count: u64) {
    let rows = crate::rows();
    let row = rows.iter().find(|row| row.is(component, way, "Source")).unwrap();
    let World::Source(world) = row.world else {
        panic!("it is found among sources")
    };
    let mut world = world();
    let mut config = world.config();
    for (key, value) in more {
        config[*key] = value.clone();
    }
    let vault = Vault::new(world.column(), world.counted());
    vault.gather(GATHER);
    let mut bench = Bench::new();
    bench.start(row.source(&config, world.base_dir()), world.rereads(), vault.door());
    sleep(OPEN);
    world.feed(1..count + 1, 10);
    let looked = vault.clone();
    bench.until("some records", |bench| bench.read() > 0);
    assert_eq!((bench.delivered(), vault.rows()), (0, 0), "nothing is durable yet");
    bench.until(&format!("{count} records"), |_| looked.numbers().is_all(count));
    // Whatever was sent again would be read now.
    sleep(GATHER);
    assert_eq!((bench.read(), vault.numbers().doubles), (count, 0), "came twice");
    bench.stop();
    assert_eq!((vault.numbers().doubles, bench.letters().len()), (0, 0));
}

/// More than the server gives by itself, and longer than it waits.
#[test]
fn jetstream() {
    prove("nats", "JetStream", &[("ack_wait_ms", json!(900))], 2500);
}

/// More than the broker gives without acknowledgement.
#[test]
fn mqtt() {
    prove("mqtt", "", &[], 50);
}

#[test]
fn webhook() {
    prove("webhook", "", &[], 100);
}
