//! Objects through kills: `myceliald run` that ends in the middle of uploads, and a network that breaks. What is in the
//! objects afterwards is what was read, once, and the books say so.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test that cannot set up its world has failed")]

use std::{fmt::Write as _, fs, path::Path, time::Duration};

use testkit::{Cmd, Dice, Link, Proc, S3, fresh_seed, temp_dir, wait_until};

const SOON: Duration = Duration::from_secs(120);
const ROWS: u64 = 100_000;
const KILLS: u64 = 4;
/// Makes rows so long that there are more objects than kills.
const PAD: usize = 300;
/// Bytes a second of the network: an upload takes about a second.
const LINE: u64 = 8_000_000;

fn start(dir: &Path, toml: &str) -> Proc {
    let file = dir.join("workflow.toml");
    fs::write(&file, toml).unwrap();
    ["MYCELIAL_CONFIG", "MYCELIAL_DATA_DIR"]
        .into_iter()
        .fold(Cmd::new(env!("CARGO_BIN_EXE_myceliald")), Cmd::env_remove)
        .arg("run")
        .arg(file)
        .spawn()
}

/// Lines in all objects.
fn count(server: &S3) -> u64 {
    let lines = |bytes: &Vec<u8>| bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
    server.objects().values().map(lines).sum()
}

/// The numbers of all records in all objects, in the order of their names.
fn ids(server: &S3) -> Vec<u64> {
    let id = |line: &str| {
        let record: serde_json::Value = serde_json::from_str(line).unwrap();
        record["id"].as_u64().unwrap()
    };
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let texts: Vec<String> = server.objects().into_values().map(text).collect();
    texts.iter().flat_map(|text| text.lines().map(id)).collect()
}

/// A workflow that puts lines into objects.
fn lake(endpoint: &str, more: &str) -> String {
    format!(
        r#"name = "lake"
[sources.in]
type = "file"
path = "in.jsonl"
format = "json_lines"
[destinations.out]
type = "s3"
from = "in"
bucket = "plant"
region = "eu-central-1"
endpoint = "http://{endpoint}"
access_key = "tester"
secret_key = "a secret/with+signs"
{more}"#
    )
}

/// Ends the daemon and looks at its books. Returns what was produced.
fn books(mut daemon: Proc) -> u64 {
    assert!(daemon.term_and_wait(SOON).success());
    let log = daemon.log();
    assert!(!log.contains("does not balance"), "{log}");
    let table = log.rsplit("dead\n").next().unwrap();
    let numbers: Vec<u64> = table.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let [produced, delivered, buffered, dropped, dead] = numbers[..] else {
        panic!("no books of one stream:\n{log}")
    };
    assert_eq!(produced, delivered + buffered + dropped + dead, "{log}");
    assert_eq!((buffered, dropped, dead), (0, 0, 0), "{log}");
    produced
}

#[test]
fn what_was_read_is_in_the_objects_once() {
    let (dir, server) = (temp_dir("s3-kills"), S3::start());
    let link = Link::to(server.addr());
    link.cap(Some(LINE));
    let rows = (1..=ROWS).fold(String::new(), |mut text, id| {
        let _ = writeln!(text, r#"{{"id": {id}, "pad": "{}"}}"#, "x".repeat(PAD));
        text
    });
    fs::write(dir.path().join("in.jsonl"), rows).unwrap();
    let endpoint = format!("127.0.0.1:{}", link.port());
    let toml = lake(
        &endpoint,
        "prefix = \"raw/\"\nformat = \"json_lines\"\nmax_bytes = 6000000\nmax_age_s = 5\n",
    );
    let seed = fresh_seed();
    let mut dice = Dice::new(seed);
    let mut daemon = start(dir.path(), &toml);
    let parts = || server.requests().matches("partNumber").count();
    let mut left_behind = 0;
    for kill in 1..=KILLS {
        let before = parts();
        wait_until(&format!("upload {kill} (seed {seed})"), SOON, || {
            (parts() > before).then_some(())
        });
        std::thread::sleep(Duration::from_millis(dice.roll(800)));
        if dice.roll(2) == 0 {
            link.cut();
            std::thread::sleep(Duration::from_millis(dice.roll(300)));
        }
        daemon.kill9();
        left_behind += server.uploads().matches("jsonl").count();
        link.restore();
        link.cap(Some(LINE));
        daemon = start(dir.path(), &toml);
    }
    // Down and back, without a kill.
    link.cut();
    std::thread::sleep(Duration::from_secs(1));
    link.restore();
    wait_until(&format!("all records (seed {seed})"), SOON, || {
        (count(&server) >= ROWS).then_some(())
    });
    // The last ones are there before the daemon has stored that.
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(books(daemon), ROWS, "seed {seed}");
    assert!(
        ids(&server) == (1..=ROWS).collect::<Vec<_>>(),
        "seed {seed}: not what was read"
    );
    assert_eq!(server.uploads().trim(), "[]", "seed {seed}");
    assert!(left_behind > 0, "no kill hit an upload (seed {seed})");
}

#[test]
fn columns_that_come_later_double_nothing() {
    let (dir, server) = (temp_dir("s3-drift"), S3::start());
    let row = |id: u32| match id {
        1..=3 => format!("{{\"id\": {id}}}\n"),
        _ => format!("{{\"id\": {id}, \"site\": \"a{id}\"}}\n"),
    };
    fs::write(dir.path().join("in.jsonl"), (1..=6).map(row).collect::<String>()).unwrap();
    let file = dir.path().join("workflow.toml");
    let toml = lake(&server.addr().to_string(), "format = \"csv\"\nmax_age_s = 1\n");
    fs::write(&file, &toml).unwrap();
    let stored = || server.requests().matches("PUT").count();
    // All is stored, and the daemon does not know it.
    let crashed = Cmd::new(env!("CARGO_BIN_EXE_myceliald"))
        .arg("run")
        .arg(&file)
        .env("MYCELIAL_CRASH_AT", "runner.before_checkpoint:1")
        .run(SOON);
    assert_eq!(crashed.code(), None, "it did not come so far: {crashed}");
    let before = stored();
    assert!(before > 0, "nothing was stored");
    let daemon = start(dir.path(), &toml);
    wait_until("the records again", SOON, || (stored() > before).then_some(()));
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(books(daemon), 6);
    let texts: Vec<String> = server
        .objects()
        .into_values()
        .map(|bytes| String::from_utf8(bytes).unwrap())
        .collect();
    assert_eq!(texts, ["id,site\n1,\n2,\n3,\n4,a4\n5,a5\n6,a6\n"]);
}
