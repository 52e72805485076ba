//! Disks that are full, slow or read-only under a gateway, a hub and a plane that go on running: the control lane answers,
//! nothing is lost, and when the disk is well again everything resumes without a restart.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a helper of a test may panic like the test itself")]

use std::{fs, os::unix::fs::symlink, path::Path, time::Duration};

use testkit::{Broker, Fleet, IllDisk, Illness, Proc, faults::Disk, shop, temp_dir, wait_ok, wait_until};

const LATE: Duration = Duration::from_secs(120);
const STOP: Duration = Duration::from_secs(20);
const SOON: Duration = Duration::from_secs(60);
const MIB: u64 = 1024 * 1024;

/// The shop's rows from the gateway to the hub, under these names.
fn workflow(fleet: &Fleet, destinations: &[(&str, &str)]) -> String {
    let mut text = format!(
        "name = \"shop\"\n\n[sources.orders]\ntype = \"sqlite\"\ndaemon = \"gateway\"\npath = \"{}\"\ntable = \"orders\"\n\
         cursor = \"id\"\n",
        fleet.path("shop.db")
    );
    for (name, path) in destinations {
        text.push_str(&format!(
            "\n[destinations.{name}]\ntype = \"sqlite\"\ndaemon = \"hub\"\nfrom = \"orders\"\npath = \"{path}\"\n\
             table = \"copied\"\n"
        ));
    }
    text
}

/// Puts what a member or the plane keeps under `name` on a disk of its own.
fn on_disk(dir: &Path, disk: &Disk, name: &str) {
    let there = disk.dir().join(name);
    fs::create_dir(&there).unwrap();
    symlink(&there, dir.join(name)).unwrap();
}

#[track_caller]
fn all_arrive(fleet: &Fleet, copy: &Path, rows: u64) {
    let source = fleet.dir().join("shop.db");
    let arrived = wait_ok("all rows", LATE, || {
        shop::compare(&source, copy, "copied").map_err(|error| error.to_string())
    });
    assert_eq!(arrived, rows);
}

/// The fleet is still in an operator's hand: the daemon answers, and the plane hears of it.
#[track_caller]
fn answers(fleet: &Fleet, daemon: &str) {
    wait_ok("an answer to a ping", SOON, || fleet.cli(&["daemon", "ping", daemon]));
    wait_ok("the status of the workflow", SOON, || {
        fleet.cli(&["workflow", "status", "shop"])
    });
    wait_until("the daemon to be online", SOON, || {
        let text = fleet.cli(&["daemon", "list", "-o", "json"]).ok()?;
        let all: Vec<serde_json::Value> = serde_json::from_str(&text).ok()?;
        let this = all.iter().find(|each| each["name"] == daemon)?;
        (this["presence"] == "online").then_some(())
    });
}

/// Waits until the workflow's status says something, in any of its words.
#[track_caller]
fn status_says(fleet: &Fleet, words: &[&str]) {
    wait_ok("the cause in the status", LATE, || {
        let text = fleet.cli(&["workflow", "status", "shop"])?;
        let said = words.iter().any(|word| text.contains(word));
        said.then(|| println!("{text}")).ok_or(text)
    });
}

#[track_caller]
fn balanced(fleet: &Fleet, rows: u64) {
    let all = wait_until("the accounts to be at rest", LATE, || {
        let all = fleet.ledgers();
        let rest = !all.is_empty()
            && all
                .iter()
                .all(|(_, ledger)| ledger.delivered == rows && ledger.buffered == 0);
        rest.then_some(all)
    });
    for (edge, ledger) in all {
        ledger.assert_all_delivered(&edge);
        assert_eq!(ledger.produced, rows, "{edge}");
    }
}

fn stop(daemons: &mut [Proc]) {
    for daemon in daemons {
        assert!(daemon.is_running(), "it was never restarted: {}", daemon.log());
        assert!(daemon.term_and_wait(STOP).success());
    }
}

#[test]
fn the_gateways_disk_is_full() {
    let disk = Disk::mount(48 * MIB);
    let fleet = Fleet::start(Broker::embedded(false), None);
    on_disk(fleet.dir(), &disk, "gateway");
    fleet.enrol("gateway");
    fleet.enrol("hub");
    let mut daemons = [fleet.daemon("gateway", None), fleet.daemon("hub", None)];
    let source = fleet.dir().join("shop.db");
    shop::create(&source).unwrap();
    let copy = fleet.dir().join("a.db");
    shop::add(&source, 2_000).unwrap();
    fleet.apply("shop", &workflow(&fleet, &[("a", &fleet.path("a.db"))]));
    all_arrive(&fleet, &copy, 2_000);

    disk.fill();
    let rows = shop::add(&source, 20_000).unwrap();
    status_says(&fleet, &["free", "full"]);
    answers(&fleet, "gateway");
    // A new plan still fits: it is what the reserve is for.
    fleet.apply(
        "shop",
        &workflow(&fleet, &[("a", &fleet.path("a.db")), ("b", &fleet.path("b.db"))]),
    );
    answers(&fleet, "gateway");
    disk.free();
    all_arrive(&fleet, &copy, rows);
    wait_until("the second copy to be complete", LATE, || {
        fleet
            .ledgers()
            .iter()
            .all(|(_, ledger)| ledger.buffered == 0)
            .then_some(())
    });
    stop(&mut daemons);
}

#[test]
fn the_hubs_disk_is_full() {
    let disk = Disk::mount(24 * MIB);
    let fleet = Fleet::start(Broker::embedded(false), None);
    on_disk(fleet.dir(), &disk, "hub");
    fleet.enrol("gateway");
    fleet.enrol("hub");
    let mut daemons = [fleet.daemon("gateway", None), fleet.daemon("hub", None)];
    let source = fleet.dir().join("shop.db");
    shop::create(&source).unwrap();
    // The destination is on the same disk as the hub's own files.
    let copy = disk.dir().join("a.db");
    shop::add(&source, 2_000).unwrap();
    fleet.apply("shop", &workflow(&fleet, &[("a", &copy.display().to_string())]));
    all_arrive(&fleet, &copy, 2_000);

    disk.fill();
    let rows = shop::add(&source, 10_000).unwrap();
    status_says(&fleet, &["full", "No space"]);
    answers(&fleet, "hub");
    answers(&fleet, "gateway");
    disk.free();
    all_arrive(&fleet, &copy, rows);
    balanced(&fleet, rows);
    stop(&mut daemons);
}

#[test]
fn the_planes_disk_is_full() {
    let disk = Disk::mount(24 * MIB);
    let dir = temp_dir("fleet");
    on_disk(dir.path(), &disk, "plane");
    let mut fleet = Fleet::start_in(dir, Broker::embedded(false), None);
    fleet.enrol("gateway");
    fleet.enrol("hub");
    let mut daemons = [fleet.daemon("gateway", None), fleet.daemon("hub", None)];
    let source = fleet.dir().join("shop.db");
    shop::create(&source).unwrap();
    let copy = fleet.dir().join("a.db");
    shop::add(&source, 2_000).unwrap();
    let first = workflow(&fleet, &[("a", &fleet.path("a.db"))]);
    fleet.apply("shop", &first);
    all_arrive(&fleet, &copy, 2_000);

    disk.fill();
    // What has to be stored is refused, and says why.
    let file = fleet.path("more.toml");
    fs::write(
        &file,
        workflow(&fleet, &[("a", &fleet.path("a.db")), ("b", &fleet.path("b.db"))]),
    )
    .unwrap();
    let told = wait_until("a refusal", SOON, || fleet.cli(&["workflow", "apply", &file]).err());
    println!("{told}");
    assert!(told.contains("full") || told.contains("No space"), "{told}");
    // Data does not care, and who is there is still seen.
    let rows = shop::add(&source, 5_000).unwrap();
    all_arrive(&fleet, &copy, rows);
    answers(&fleet, "gateway");
    answers(&fleet, "hub");
    disk.free();
    wait_ok("the plan to be taken", SOON, || {
        fleet.cli(&["workflow", "apply", &file])
    });
    balanced_at_least(&fleet, rows);
    assert!(fleet.plane().is_running());
    stop(&mut daemons);
}

/// The first stream has everything; a second one begins where it was added.
#[track_caller]
fn balanced_at_least(fleet: &Fleet, rows: u64) {
    wait_until("everything to be delivered", LATE, || {
        let all = fleet.ledgers();
        let rest = all.iter().any(|(_, ledger)| ledger.delivered >= rows) && all.iter().all(|(_, l)| l.buffered == 0);
        rest.then_some(())
    });
}

#[test]
fn the_gateways_disk_turns_read_only_and_slow() {
    let fleet = Fleet::start(Broker::embedded(false), None);
    let disk = IllDisk::holding(&[&fleet.dir().join("gateway")]);
    fleet.enrol("gateway");
    fleet.enrol("hub");
    let mut daemons = [
        disk.under(fleet.daemon_cmd("gateway", None)).spawn(),
        fleet.daemon("hub", None),
    ];
    let source = fleet.dir().join("shop.db");
    shop::create(&source).unwrap();
    let copy = fleet.dir().join("a.db");
    shop::add(&source, 2_000).unwrap();
    fleet.apply("shop", &workflow(&fleet, &[("a", &fleet.path("a.db"))]));
    all_arrive(&fleet, &copy, 2_000);

    disk.suffers(Illness::ReadOnly);
    let rows = shop::add(&source, 5_000).unwrap();
    status_says(&fleet, &["Read-only"]);
    answers(&fleet, "gateway");
    disk.is_well();
    all_arrive(&fleet, &copy, rows);

    // An fsync of seconds holds up the stream, and nothing else.
    disk.suffers(Illness::Slow(Duration::from_millis(2_500)));
    let rows = shop::add(&source, 2_000).unwrap();
    for _ in 0..3 {
        answers(&fleet, "gateway");
    }
    all_arrive(&fleet, &copy, rows);
    disk.is_well();
    balanced(&fleet, rows);
    stop(&mut daemons);
}
