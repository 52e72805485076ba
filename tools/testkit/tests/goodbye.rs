//! A daemon that stops in good order says so: nobody waits for its lease to end.

#![cfg(target_os = "linux")]

use std::time::Duration;

use bus_schema::limits::LEASE_MS;
use testkit::{Broker, Fleet, wait_until};

const SOON: Duration = Duration::from_secs(30);
/// A daemon that says nothing is late after this, and offline only much later.
const AT_ONCE: Duration = Duration::from_millis(LEASE_MS);

fn is_offline(fleet: &Fleet) -> Option<bool> {
    let text = fleet.cli(&["daemon", "list", "-o", "json"]).ok()?;
    let daemons: serde_json::Value = serde_json::from_str(&text).ok()?;
    match daemons[0]["presence"].as_str()? {
        "offline" => Some(true),
        "online" | "late" => Some(false),
        _ => None,
    }
}

#[test]
fn is_heard_each_time() {
    let fleet = Fleet::start(Broker::embedded(true), None);
    fleet.enrol("gateway");
    for round in 0..5 {
        let mut daemon = fleet.daemon("gateway", None);
        wait_until("the daemon to be there", SOON, || (!is_offline(&fleet)?).then_some(()));
        assert!(daemon.term_and_wait(SOON).success());
        wait_until(&format!("goodbye {round}"), AT_ONCE, || {
            is_offline(&fleet)?.then_some(())
        });
    }
}
