//! Daemons change their keys while records flow: nothing is lost, and the old keys are good as long as they are needed, and no longer.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test that cannot set up its world has failed")]

use std::{fs, io::Write as _, time::Duration};

use serde_json::Value;
use testkit::{Broker, Cmd, Fleet, Mosquitto, Proc, wait_until};

const SOON: Duration = Duration::from_secs(90);

/// Two daemons, and lines of a file that go from one to the other.
struct World {
    fleet: Fleet,
    written: u64,
}

impl World {
    fn new(broker: Broker) -> (Self, Proc, Proc) {
        let fleet = Fleet::start(broker, None);
        for name in ["from", "to"] {
            fleet.enrol(name);
        }
        let (from, to) = (fleet.daemon("from", None), fleet.daemon("to", None));
        let mut world = Self { fleet, written: 0 };
        world.write(1);
        let fleet = &world.fleet;
        for name in ["from", "to"] {
            wait_until("the daemon to be there", SOON, || {
                fleet.cli(&["daemon", "ping", name]).ok()
            });
        }
        let text = format!(
            "name = 'lines'\n[sources.in]\ntype = 'file'\ndaemon = 'from'\npath = '{}'\nformat = 'json_lines'\n\
             [destinations.out]\ntype = 'file'\ndaemon = 'to'\npath = '{}'\nformat = 'json_lines'\nfrom = 'in'\n",
            fleet.path("in.jsonl"),
            fleet.path("out.jsonl"),
        );
        fleet.apply("lines", &text);
        world.all_arrive();
        (world, from, to)
    }

    fn write(&mut self, count: u64) {
        let path = self.fleet.path("in.jsonl");
        let mut file = fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
        for _ in 0..count {
            self.written += 1;
            writeln!(file, "{{\"n\":{}}}", self.written).unwrap();
        }
    }

    fn arrived(&self) -> Vec<u64> {
        let text = fs::read_to_string(self.fleet.path("out.jsonl")).unwrap_or_default();
        let number = |line: &str| serde_json::from_str::<Value>(line).ok()?["n"].as_u64();
        text.lines().filter_map(number).collect()
    }

    /// All that was written has arrived, once and in order.
    #[track_caller]
    fn all_arrive(&self) {
        wait_until("all lines to arrive", SOON, || {
            (self.arrived().len() as u64 >= self.written).then_some(())
        });
        assert_eq!(self.arrived(), (1..=self.written).collect::<Vec<_>>());
    }

    #[track_caller]
    fn books_balance(&self) {
        wait_until("the account to come to rest", SOON, || {
            let ledgers = self.fleet.ledgers();
            (!ledgers.is_empty() && ledgers.iter().all(|(_, ledger)| ledger.delivered == self.written)).then_some(())
        });
        for (edge, ledger) in self.fleet.ledgers() {
            ledger.assert_all_delivered(&edge);
        }
    }

    /// Whether a daemon keeps keys from before.
    fn has_former(&self, daemon: &str) -> bool {
        self.fleet.dir().join(daemon).join("keys-former").exists()
    }

    fn keys(&self, daemon: &str) -> Vec<u8> {
        fs::read(self.fleet.dir().join(daemon).join("keys")).unwrap()
    }
}

#[test]
fn keys_change_at_both_ends_while_records_flow() {
    let (mut world, mut from, mut to) = World::new(Broker::embedded(true));
    Cmd::bin("mycelial")
        .args([
            "--home",
            &world.fleet.path("operator"),
            "secret",
            "set",
            "pin",
            "--daemon",
            "from",
        ])
        .stdin("1234")
        .run(SOON)
        .ok();
    let before = ["from", "to"].map(|name| world.keys(name));
    for name in ["from", "to", "from"] {
        let fleet = &world.fleet;
        let done = std::thread::scope(|scope| {
            let rotating = scope.spawn(|| fleet.cli(&["daemon", "rotate", name, "--wait-max", "50s", "-o", "json"]));
            let path = fleet.path("in.jsonl");
            let mut file = fs::OpenOptions::new().append(true).open(path).unwrap();
            while !rotating.is_finished() {
                world.written += 1;
                writeln!(file, "{{\"n\":{}}}", world.written).unwrap();
                std::thread::sleep(Duration::from_millis(20));
            }
            rotating.join().unwrap()
        });
        let done: Value = serde_json::from_str(&done.unwrap()).unwrap();
        assert_eq!(done[0]["outcome"], "done", "{done}");
        assert!(!world.has_former(name), "the old keys of {name} are gone");
        assert!(world.written > 100);
        world.all_arrive();
    }
    for (name, before) in ["from", "to"].iter().zip(before) {
        assert_ne!(world.keys(name), before, "{name} has other keys");
    }
    world.books_balance();
    // What was sealed for itself is read by the new keys.
    let secrets = world.fleet.cli(&["secret", "list", "--daemon", "from"]).unwrap();
    assert!(secrets.contains("pin"), "{secrets}");
    // It is who it was, over another start, too; and the audits know of it.
    assert!(from.term_and_wait(SOON).success() && to.term_and_wait(SOON).success());
    let (_from, _to) = (world.fleet.daemon("from", None), world.fleet.daemon("to", None));
    world.write(10);
    world.all_arrive();
    world.books_balance();
    let said = world
        .fleet
        .cli(&["audit", "list", "--search", "change its keys"])
        .unwrap();
    assert!(said.contains("generation 2"), "{said}");
    world.fleet.cli(&["audit", "verify"]).unwrap();
}

#[test]
fn old_keys_are_good_until_what_they_signed_has_arrived_also_while_the_plane_is_away() {
    let (mut world, mut from, mut to) = World::new(Broker::Mosquitto(Mosquitto::start()));
    assert!(to.term_and_wait(SOON).success());
    world.write(50);
    wait_until("the lines to be buffered", SOON, || {
        let ledgers = world.fleet.ledgers();
        ledgers.iter().any(|(_, ledger)| ledger.buffered == 50).then_some(())
    });
    let waited = world
        .fleet
        .cli(&["daemon", "rotate", "from", "--wait-max", "15s"])
        .unwrap_err();
    assert!(waited.contains("not done in time"), "{waited}");
    from.wait_for_log("takes new keys into use", SOON);
    assert!(world.has_former("from"));
    // What comes now is signed by the new keys.
    world.write(50);
    // It is started again in between; and again, without the plane.
    assert!(from.term_and_wait(SOON).success());
    let mut from = world.fleet.daemon("from", None);
    from.wait_for_log("connected", SOON);
    world.fleet.plane_away();
    // This one slept, knows the old keys alone, and has nobody to ask.
    let to = world.fleet.daemon("to", None);
    world.all_arrive();
    assert!(to.log().contains("it has new keys"), "{}", to.log());
    assert!(
        world.has_former("from"),
        "only the plane can say that they are no good any more"
    );
    world.fleet.plane_back();
    from.wait_for_log("the old keys are gone", SOON);
    assert!(!world.has_former("from"));
    world.write(10);
    world.all_arrive();
    world.books_balance();
}
