//! The whole mesh, with the real binaries: rows cross from one daemon to another over each kind of broker, while the broker,
//! the plane and the daemons fail. One body for all roads; it ends by comparing every value and by checking the ledger.

#![cfg(target_os = "linux")]

mod spy;

use std::time::Duration;

use memchr::memmem;
use testkit::{
    Broker, Fleet, Link, Mosquitto, Nats, Tls,
    scenario::{self, COPY, all_arrive, balanced, shop_workflow},
    shop, wait_until,
};

use spy::Spy;

const SOON: Duration = Duration::from_secs(60);
const STOP: Duration = Duration::from_secs(20);

/// The 5,000 rows of the last delivery are about 350 KB.
const SLOW_BYTES_PER_S: u64 = 60_000;

/// Names and values of the data: nobody on the way may see any of them.
const SECRETS: &[&str] = &[
    "orders",
    "copied",
    "quantity",
    "rocket",
    "note 17",
    "shop.db",
    "sqlite",
    "postgres",
    "Grüße 6",
];

/// What the spy was given: a lot, and nothing it can read.
fn saw_nothing(spy: &Spy, frames_at_least: usize) {
    let seen = spy.seen();
    assert!(
        seen.len() > frames_at_least,
        "the spy was given {} bytes: it listened to nothing",
        seen.len()
    );
    // The subjects are there for everybody to see: proof that these are the frames.
    assert!(
        memmem::find(&seen, b"data").is_some(),
        "no frame among what the spy saw"
    );
    for secret in SECRETS {
        let at = memmem::find(&seen, secret.as_bytes());
        assert_eq!(at, None, "the spy reads '{secret}'");
    }
}

/// The broker, the plane, the gateway and the hub die in turn; nothing is lost or doubled.
fn mesh(broker: Broker, tls: Option<&Tls>) {
    let mut fleet = Fleet::start(broker, tls);
    fleet.enrol("gateway");
    fleet.enrol("hub");
    // What leaves the gateway goes through here, and is kept.
    let link = Link::to(fleet.broker.addr());
    let capture = link.capture();
    let spy = match (&fleet.broker, tls) {
        (Broker::Mosquitto(broker), None) => Some(Spy::on_mqtt(broker.addr())),
        (Broker::Nats(broker) | Broker::NatsMqtt(broker), None) => Some(Spy::on_nats(broker.addr())),
        // Ours lets no stranger in, and a stranger on TLS would see the same.
        _ => None,
    };
    let gateway_bus = link.url(&fleet.broker.url());
    let mut gateway = fleet.daemon("gateway", Some(&gateway_bus));
    let mut hub = fleet.daemon("hub", None);

    let (source, copy) = (fleet.dir().join("shop.db"), fleet.dir().join("copy.db"));
    shop::create(&source).expect("a database");
    shop::add(&source, 5_000).expect("rows");
    fleet.apply("shop", &shop_workflow(&fleet));
    all_arrive("the first rows", &fleet, 5_000);

    // Broker and plane away; the source goes on; the gateway dies and starts again on its own.
    fleet.broker.away();
    fleet.plane_away();
    shop::add(&source, 10_000).expect("rows");
    std::thread::sleep(Duration::from_secs(2));
    gateway.kill9();
    gateway = fleet.daemon("gateway", Some(&gateway_bus));
    shop::add(&source, 5_000).expect("rows");
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(shop::count(&copy, COPY), 5_000, "nothing can have arrived");
    fleet.broker.back();
    all_arrive("every row, once", &fleet, 20_000);

    // The hub is killed in the middle of a delivery, which a slow line makes long enough.
    link.cap(Some(SLOW_BYTES_PER_S));
    shop::add(&source, 5_000).expect("rows");
    wait_until("the delivery to begin", SOON, || {
        (shop::count(&copy, COPY) > 20_000).then_some(())
    });
    hub.kill9();
    assert!(
        shop::count(&copy, COPY) < 25_000,
        "the kill came too late to prove anything"
    );
    link.cap(None);
    let mut hub = fleet.daemon("hub", None);
    all_arrive("every row after the hub died", &fleet, 25_000);

    fleet.plane_back();
    balanced(&fleet, 1, 25_000);
    capture.assert_no_plaintext(SECRETS);
    if let Some(spy) = spy {
        saw_nothing(&spy, 500_000);
    }
    assert!(gateway.term_and_wait(STOP).success(), "the gateway drains and stops");
    assert!(hub.term_and_wait(STOP).success(), "the hub drains and stops");
    assert!(fleet.plane().term_and_wait(STOP).success());
}

#[test]
fn over_the_embedded_broker() {
    mesh(Broker::embedded(false), None);
}

#[test]
fn over_the_embedded_broker_with_tls() {
    mesh(Broker::embedded(true), None);
}

#[test]
fn over_mosquitto() {
    mesh(Broker::Mosquitto(Mosquitto::start()), None);
}

#[test]
fn over_mosquitto_with_tls() {
    let tls = Tls::new();
    mesh(Broker::Mosquitto(Mosquitto::builder().tls(&tls).start()), Some(&tls));
}

#[test]
fn over_nats() {
    mesh(Broker::Nats(Nats::start()), None);
}

/// JetStream records what the fleet says, until it is full and refuses the rest. The mesh does not notice.
#[test]
fn over_nats_with_a_full_jetstream() {
    let nats = Nats::builder().jetstream().start();
    nats.create_stream("FLEET", "myc.v1.>", "{\"discard\": \"new\", \"max_msgs\": 100}");
    mesh(Broker::Nats(nats), None);
}

#[test]
fn over_nats_with_tls() {
    let tls = Tls::new();
    mesh(Broker::Nats(Nats::builder().tls(&tls).start()), Some(&tls));
}

#[test]
fn over_the_mqtt_listener_of_nats() {
    mesh(Broker::NatsMqtt(Nats::builder().mqtt().start()), None);
}

#[test]
fn a_hundred_thousand_rows_offline_reach_postgres_and_sqlite_once() {
    let broker = Mosquitto::start();
    let spy = Spy::on_mqtt(broker.addr());
    scenario::offline(Broker::Mosquitto(broker), 100_000);
    saw_nothing(&spy, 1_000_000);
}
