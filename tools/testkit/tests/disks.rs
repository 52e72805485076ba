//! Disks that are full, slow or read-only under a gateway, a hub and a plane that go on running: the control lane answers,
//! nothing is lost, and when the disk is well again everything resumes without a restart.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a helper of a test may panic like the test itself")]

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

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

/// Both daemons, started so, after the first rows have arrived at this copy. The last thing is where the rows come from.
#[track_caller]
fn begin(fleet: &Fleet, copy: &Path, start: impl Fn(&str) -> Proc) -> ([Proc; 2], PathBuf) {
    fleet.enrol("gateway");
    fleet.enrol("hub");
    let daemons = [start("gateway"), start("hub")];
    let source = fleet.dir().join("shop.db");
    shop::create(&source).unwrap();
    shop::add(&source, 2_000).unwrap();
    fleet.apply("shop", &workflow(fleet, &[("a", &copy.display().to_string())]));
    all_arrive(fleet, copy, 2_000);
    (daemons, source)
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
    disk.hold(fleet.dir(), "gateway");
    let copy = fleet.dir().join("a.db");
    let (mut daemons, source) = begin(&fleet, &copy, |name| fleet.daemon(name, None));

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
    disk.hold(fleet.dir(), "hub");
    // The destination is on the same disk as the hub's own files.
    let copy = disk.dir().join("a.db");
    let (mut daemons, source) = begin(&fleet, &copy, |name| fleet.daemon(name, None));

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

/// What has to be stored is refused with these words; data does not care, and who is there is still seen. When the disk is
/// well, the plan is taken.
#[track_caller]
fn a_plane_that_cannot_write(fleet: &Fleet, source: &Path, copy: &Path, words: &[&str], is_well: impl FnOnce()) {
    let file = fleet.path("more.toml");
    let more = workflow(fleet, &[("a", &fleet.path("a.db")), ("b", &fleet.path("b.db"))]);
    // A store that has room in its log takes a few more before it is full: each try is another text.
    let mut tries = 0;
    let told = wait_until("a refusal", SOON, || {
        tries += 1;
        fs::write(
            &file,
            format!("{more}# try {tries}\n{}", "# and much to say\n".repeat(500)),
        )
        .unwrap();
        fleet.cli(&["workflow", "apply", &file]).err()
    });
    println!("{told}");
    assert!(words.iter().any(|word| told.contains(word)), "{told}");
    let rows = shop::add(source, 5_000).unwrap();
    all_arrive(fleet, copy, rows);
    answers(fleet, "gateway");
    answers(fleet, "hub");
    is_well();
    wait_ok("the plan to be taken", SOON, || {
        fleet.cli(&["workflow", "apply", &file])
    });
    balanced_at_least(fleet, rows);
}

#[test]
fn the_planes_disk_is_full() {
    let disk = Disk::mount(24 * MIB);
    let dir = temp_dir("fleet");
    disk.hold(dir.path(), "plane");
    let mut fleet = Fleet::start_in(dir, Broker::embedded(false), None);
    let copy = fleet.dir().join("a.db");
    let (mut daemons, source) = begin(&fleet, &copy, |name| fleet.daemon(name, None));

    disk.fill();
    a_plane_that_cannot_write(&fleet, &source, &copy, &["full", "No space"], || disk.free());
    assert!(fleet.plane().is_running());
    stop(&mut daemons);
}

#[test]
fn the_planes_disk_turns_read_only() {
    let mut fleet = Fleet::start(Broker::embedded(false), None);
    let disk = IllDisk::holding(&[&fleet.dir().join("plane")]);
    fleet.plane_away();
    let mut plane = disk.under(fleet.plane_cmd()).spawn();
    plane.wait_for_log("the plane is running", SOON);
    let copy = fleet.dir().join("a.db");
    let (mut daemons, source) = begin(&fleet, &copy, |name| fleet.daemon(name, None));

    disk.suffers(Illness::ReadOnly);
    a_plane_that_cannot_write(&fleet, &source, &copy, &["read-only or fails"], || {
        disk.is_well();
    });
    assert!(plane.is_running(), "{}", plane.log());
    stop(&mut daemons);
}

/// A file that grows on a full disk has whole lines, each once, when the disk has room again.
#[test]
fn a_file_destinations_disk_is_full() {
    let disk = Disk::mount(8 * MIB);
    let fleet = Fleet::start(Broker::embedded(false), None);
    fleet.enrol("gateway");
    fleet.enrol("hub");
    let mut daemons = [fleet.daemon("gateway", None), fleet.daemon("hub", None)];
    let source = fleet.dir().join("shop.db");
    shop::create(&source).unwrap();
    let mut rows = shop::add(&source, 2_000).unwrap();
    let file = disk.dir().join("orders.jsonl");
    let without = workflow(&fleet, &[]);
    let text = format!(
        "{without}\n[destinations.a]\ntype = \"file\"\ndaemon = \"hub\"\nfrom = \"orders\"\npath = \"{}\"\n\
         format = \"json_lines\"\n",
        file.display()
    );
    fleet.apply("shop", &text);
    let ids = || -> Result<Vec<u64>, String> {
        let text = fs::read_to_string(&file).map_err(|error| error.to_string())?;
        let id = |line: &str| -> Result<u64, String> {
            let record: serde_json::Value = serde_json::from_str(line).map_err(|error| format!("{error}: {line}"))?;
            record["id"].as_u64().ok_or_else(|| line.to_string())
        };
        text.lines().map(id).collect()
    };
    let all_there = |rows: u64| {
        wait_ok("every line, once and in order", LATE, || {
            let found = ids()?;
            let expected: Vec<u64> = (1..=rows).collect();
            (found == expected)
                .then_some(())
                .ok_or_else(|| format!("{} of {rows}", found.len()))
        });
    };
    all_there(rows);

    for _ in 0..2 {
        // Not at once: the first of them still fit, and a line is torn.
        disk.fill_but(100_000);
        rows = shop::add(&source, 4_000).unwrap();
        status_says(&fleet, &["full", "No space"]);
        answers(&fleet, "hub");
        disk.free();
        all_there(rows);
    }
    balanced(&fleet, rows);
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
    let copy = fleet.dir().join("a.db");
    // Of the hub nothing is on that disk.
    let (mut daemons, source) = begin(&fleet, &copy, |name| disk.under(fleet.daemon_cmd(name, None)).spawn());

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

#[test]
fn a_gateway_that_starts_on_an_ill_disk_waits_for_it() {
    let fleet = Fleet::start(Broker::embedded(false), None);
    let disk = IllDisk::holding(&[&fleet.dir().join("gateway")]);
    let copy = fleet.dir().join("a.db");
    let (mut daemons, source) = begin(&fleet, &copy, |name| disk.under(fleet.daemon_cmd(name, None)).spawn());
    let mut rows = 0;
    for illness in [Illness::ReadOnly, Illness::NoSync, Illness::Full] {
        daemons[0].kill9();
        disk.suffers(illness);
        daemons[0] = disk.under(fleet.daemon_cmd("gateway", None)).spawn();
        daemons[0].wait_for_log("the disk does not allow a start", SOON);
        rows = shop::add(&source, 1_000).unwrap();
        disk.is_well();
        all_arrive(&fleet, &copy, rows);
    }
    // Told to stop while it waits, it does.
    assert!(daemons[0].term_and_wait(STOP).success());
    disk.suffers(Illness::ReadOnly);
    daemons[0] = disk.under(fleet.daemon_cmd("gateway", None)).spawn();
    daemons[0].wait_for_log("the disk does not allow a start", SOON);
    assert!(daemons[0].term_and_wait(STOP).success());
    disk.is_well();
    daemons[0] = disk.under(fleet.daemon_cmd("gateway", None)).spawn();
    balanced(&fleet, rows);
    stop(&mut daemons);
}
