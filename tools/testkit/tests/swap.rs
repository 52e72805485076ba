//! A fleet that loses its broker for good and finds everybody again at the next address it knows, of another kind and with
//! nothing in it: once from MQTT to NATS, once on to the MQTT listener of another server. Nothing is lost or doubled.

#![cfg(target_os = "linux")]

use std::time::Duration;

use testkit::{
    Broker, Fleet, Mosquitto, Nats,
    scenario::{all_arrive, balanced, shop_workflow},
    shop, wait_until,
};

const STOP: Duration = Duration::from_secs(20);
const SOON: Duration = Duration::from_secs(60);
const ROWS: u64 = 3_000;

#[test]
fn a_fleet_moves_to_another_broker_twice() {
    let (second, third) = (Nats::start(), Nats::builder().mqtt().start());
    let others = [second.url(), third.mqtt_url()];
    let mut fleet = Fleet::start_beside(
        Broker::Mosquitto(Mosquitto::builder().persist().start()),
        &[&others[0], &others[1]],
    );
    fleet.enrol("gateway");
    fleet.enrol("hub");
    let mut daemons = [fleet.daemon("gateway", None), fleet.daemon("hub", None)];
    let source = fleet.dir().join("shop.db");
    shop::create(&source).expect("a database");
    let add = || shop::add(&source, ROWS).expect("rows");
    let rows = add();
    fleet.apply("shop", &shop_workflow(&fleet));
    all_arrive("the first rows", &fleet, rows);

    // In the middle of rows on their way: what the first broker still had is gone with it.
    add();
    fleet.broker.away();
    let rows = add();
    all_arrive("every row over the second broker", &fleet, rows);
    second.kill9();
    let rows = add();
    all_arrive("every row over the third", &fleet, rows);

    // The plane and the operator are there as well.
    wait_until("the hub to answer", SOON, || fleet.cli(&["daemon", "ping", "hub"]).ok());
    balanced(&fleet, 1, rows);
    for daemon in &mut daemons {
        assert!(daemon.is_running(), "{}", daemon.log());
        assert!(daemon.term_and_wait(STOP).success());
    }
}
