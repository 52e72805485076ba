//! Every file of a daemon damaged in turn, in every way: the daemon starts all the same, goes on where it can, and says what
//! it set aside.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a helper of a test may panic like the test itself")]

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use testkit::{Broker, Cmd, Fleet, faults::files_below, scenario::at_rest, shop, temp_dir, wait_ok, wait_until};

const LATE: Duration = Duration::from_secs(120);
const SOON: Duration = Duration::from_secs(60);
const STOP: Duration = Duration::from_secs(20);
const ROWS: u64 = 3_000;

/// What is done to a file, and how it is called.
type Damage = (&'static str, fn(&Path));

const KINDS: [Damage; 5] = [
    ("a bit flipped", |path| {
        let mut bytes = fs::read(path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x10;
        fs::write(path, bytes).unwrap();
    }),
    ("cut in half", |path| {
        let bytes = fs::read(path).unwrap();
        fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
    }),
    ("zeros", |path| {
        let len = fs::read(path).unwrap().len();
        fs::write(path, vec![0; len]).unwrap();
    }),
    ("gone", |path| fs::remove_file(path).unwrap()),
    ("a directory in its place", |path| {
        fs::remove_file(path).unwrap();
        fs::create_dir(path).unwrap();
    }),
];

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten() {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// A gateway with a plan, a stream with a backlog, and a checkpoint of its own; and the fleet it belongs to.
fn gateway_with_a_past() -> (Fleet, PathBuf) {
    let mut fleet = Fleet::start(Broker::embedded(false), None);
    fleet.enrol("gateway");
    fleet.enrol("hub");
    let mut gateway = fleet.daemon("gateway", None);
    let mut hub = fleet.daemon("hub", None);
    let source = fleet.dir().join("shop.db");
    shop::create(&source).unwrap();
    shop::add(&source, 100).unwrap();
    let workflow = format!(
        "name = \"shop\"\n\n[sources.orders]\ntype = \"sqlite\"\ndaemon = \"gateway\"\npath = \"{source}\"\n\
         table = \"orders\"\ncursor = \"id\"\n\n[destinations.copied]\ntype = \"sqlite\"\ndaemon = \"hub\"\n\
         from = \"orders\"\npath = \"{copied}\"\ntable = \"copied\"\n\n[sources.again]\ntype = \"sqlite\"\n\
         daemon = \"gateway\"\npath = \"{source}\"\ntable = \"orders\"\ncursor = \"id\"\n\n[destinations.shown]\n\
         type = \"stdout\"\ndaemon = \"gateway\"\nfrom = \"again\"\n",
        source = source.display(),
        copied = fleet.path("copied.db"),
    );
    fleet.apply("shop", &workflow);
    wait_ok("the first rows", LATE, || {
        shop::compare(&source, &fleet.dir().join("copied.db"), "copied").map_err(|error| error.to_string())
    });
    hub.kill9();
    shop::add(&source, ROWS - 100).unwrap();
    wait_until("a backlog", LATE, || {
        let held = fleet.ledgers().iter().map(|(_, ledger)| ledger.buffered).max();
        // The hub may have been killed before it confirmed the first ones.
        (held >= Some(ROWS - 100)).then_some(())
    });
    assert!(gateway.term_and_wait(STOP).success());
    // Nothing that starts below may reach anybody.
    fleet.broker.away();
    let dir = fleet.dir().join("gateway");
    (fleet, dir)
}

#[test]
fn a_daemon_starts_whatever_is_damaged() {
    let (mut fleet, template) = gateway_with_a_past();
    let files: Vec<PathBuf> = files_below(&template)
        .into_iter()
        .map(|path| path.strip_prefix(&template).unwrap().to_owned())
        .filter(|path| !path.ends_with("lock"))
        .collect();
    for needed in ["keys", "membership", "epoch", "seen", "plan", "reserve"] {
        assert!(files.contains(&PathBuf::from(needed)), "no {needed} among {files:?}");
    }
    assert!(files.iter().any(|path| path.ends_with("lineage")) && files.iter().any(|path| path.starts_with("marks")));
    let home = temp_dir("damage");
    for name in &files {
        for (kind, damage) in KINDS {
            let dir = home.path().join("gateway");
            copy(&template, &dir);
            damage(&dir.join(name));
            let told = format!("{}: {kind}", name.display());
            let mut daemon = Cmd::bin("myceliald")
                .name("damaged")
                .args(["start", "--data-dir", &dir.display().to_string()])
                .spawn();
            println!("{told}");
            daemon.wait_for_log("myceliald runs", SOON);
            assert!(daemon.term_and_wait(STOP).success(), "{told}");
            fs::remove_dir_all(&dir).unwrap();
        }
    }
    // What was only copied is as good as before.
    fleet.broker.back();
    let mut gateway = fleet.daemon("gateway", None);
    let mut hub = fleet.daemon("hub", None);
    let source = fleet.dir().join("shop.db");
    let rows = wait_ok("all rows", LATE, || {
        shop::compare(&source, &fleet.dir().join("copied.db"), "copied").map_err(|error| error.to_string())
    });
    assert_eq!(rows, ROWS);
    at_rest(&fleet);
    assert!(gateway.term_and_wait(STOP).success() && hub.term_and_wait(STOP).success());
}

#[test]
fn damage_that_costs_nothing_is_counted_and_everything_arrives() {
    let (mut fleet, dir) = gateway_with_a_past();
    for name in ["keys", "membership", "epoch", "seen", "plan"] {
        fs::write(dir.join(name), "not what it was").unwrap();
    }
    fleet.broker.back();
    let mut gateway = fleet.daemon("gateway", None);
    let mut hub = fleet.daemon("hub", None);
    let source = fleet.dir().join("shop.db");
    let rows = wait_ok("all rows", LATE, || {
        shop::compare(&source, &fleet.dir().join("copied.db"), "copied").map_err(|error| error.to_string())
    });
    assert_eq!(rows, ROWS);
    let aside = fs::read_dir(&dir).unwrap().flatten();
    let aside = aside.filter(|entry| entry.file_name().to_string_lossy().ends_with(".bad.1"));
    assert_eq!(aside.count(), 5);
    // The plane is told, and whoever looks is told what to do.
    wait_ok("the damage in the daemon's details", SOON, || {
        let text = fleet.cli(&["daemon", "show", "gateway"])?;
        let told = text.contains("5 things were set aside") && text.contains("myceliald spool forget --yes");
        told.then_some(()).ok_or(text)
    });
    at_rest(&fleet);
    assert!(gateway.term_and_wait(STOP).success() && hub.term_and_wait(STOP).success());
}
