//! Objects through kills: `myceliald run` that ends in the middle of uploads, and a network that breaks. What is in the
//! objects afterwards is what was read, once, and the books say so.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test that cannot set up its world has failed")]

use std::{fmt::Write as _, fs, path::Path, time::Duration};

use testkit::{Cmd, Dice, Link, Proc, S3, fresh_seed, temp_dir, wait_until};

const SOON: Duration = Duration::from_secs(120);
const ROWS: u64 = 60_000;
const KILLS: u64 = 6;
/// Makes rows so long that an object has several parts.
const PAD: usize = 300;

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

/// The numbers of all records in all objects, in the order of their size.
fn ids(server: &S3) -> Vec<u64> {
    let mut ids = Vec::new();
    for (name, bytes) in server.objects() {
        let text = String::from_utf8(bytes).unwrap();
        for line in text.lines() {
            let record: serde_json::Value =
                serde_json::from_str(line).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert!(
                name.starts_with(&format!("raw/{}/", record["site"].as_str().unwrap())),
                "{name}: {line}"
            );
            ids.push(record["id"].as_u64().unwrap());
        }
    }
    ids.sort_unstable();
    ids
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
    // Slow enough to be hit in the middle.
    link.cap(Some(20_000_000));
    let rows = (1..=ROWS).fold(String::new(), |mut text, id| {
        let site = if id % 3 == 0 { "north" } else { "south" };
        let _ = writeln!(
            text,
            r#"{{"id": {id}, "site": "{site}", "pad": "{}"}}"#,
            "x".repeat(PAD)
        );
        text
    });
    fs::write(dir.path().join("in.jsonl"), rows).unwrap();
    let toml = format!(
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
endpoint = "http://127.0.0.1:{}"
access_key = "tester"
secret_key = "a secret/with+signs"
prefix = "raw/{{site}}/"
format = "json_lines"
max_bytes = 9000000
max_age_s = 1
"#,
        link.port()
    );
    let seed = fresh_seed();
    let mut dice = Dice::new(seed);
    let mut daemon = start(dir.path(), &toml);
    let mut parts = false;
    for kill in 1..=KILLS {
        // At any moment of gathering and uploading.
        std::thread::sleep(Duration::from_millis(300 + dice.roll(1500)));
        if dice.roll(2) == 0 {
            link.cut();
            std::thread::sleep(Duration::from_millis(dice.roll(500)));
        }
        daemon.kill9();
        link.restore();
        link.cap(Some(20_000_000));
        println!("kill {kill} (seed {seed}): {} left behind", server.uploads());
        parts |= server.requests().contains("partNumber");
        daemon = start(dir.path(), &toml);
    }
    // Down and back, without a kill.
    link.cut();
    std::thread::sleep(Duration::from_secs(1));
    link.restore();
    wait_until(&format!("all records (seed {seed})"), SOON, || {
        (ids(&server).len() as u64 >= ROWS).then_some(())
    });
    // The last ones are there before the daemon knows it.
    std::thread::sleep(Duration::from_secs(2));
    let produced = books(daemon);
    assert_eq!(produced, ROWS, "seed {seed}");
    assert!(
        ids(&server) == (1..=ROWS).collect::<Vec<_>>(),
        "seed {seed}: not what was read"
    );
    assert_eq!(server.uploads().trim(), "[]", "seed {seed}");
    assert!(parts || server.requests().contains("partNumber"), "no object had parts");
}
