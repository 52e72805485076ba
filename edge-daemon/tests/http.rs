//! HTTP through kills: `myceliald run` between servers, and senders, that know nothing of it. Nothing is lost; what may come
//! twice is told apart by its key.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test that cannot set up its world has failed")]

use std::{fmt::Write as _, fs, path::Path, time::Duration};

use testkit::{Cmd, Dice, Proc, Script, free_port, fresh_seed, temp_dir, wait_until};

const SOON: Duration = Duration::from_secs(120);
const TAKER: &str = include_str!("../connectors/src/http/tests/taker.py");
const GIVER: &str = include_str!("../connectors/src/http/tests/giver.py");
/// Records of a job; those that are sent one by one are fewer.
const ROWS: u64 = 20_000;
const CALLS: u64 = 3000;
const KILLS: u64 = 6;

/// `myceliald run` on this workflow, from where the last run was.
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

fn count(path: &Path) -> u64 {
    fs::read(path).map_or(0, |bytes| bytes.iter().filter(|byte| **byte == b'\n').count() as u64)
}

/// The ids in lines of JSON, in the order of their size.
fn ids(path: &Path, field: &str) -> Vec<u64> {
    let id = |line: &str| {
        serde_json::from_str::<serde_json::Value>(line).unwrap()[field]
            .as_u64()
            .unwrap()
    };
    let mut ids: Vec<u64> = fs::read_to_string(path).unwrap().lines().map(id).collect();
    ids.sort_unstable();
    ids
}

fn records(field: &str, pad: usize) -> String {
    (1..=ROWS).fold(String::new(), |mut text, id| {
        let _ = writeln!(text, r#"{{"{field}": {id}, "pad": "{}"}}"#, "x".repeat(pad));
        text
    })
}

/// Kills and starts again at moments that the seed says, until so many lines are there.
fn through_kills(dir: &Path, toml: &str, (out, rows): (&Path, u64), mut between: impl FnMut(&mut Dice)) -> Proc {
    let seed = fresh_seed();
    let mut dice = Dice::new(seed);
    let mut daemon = start(dir, toml);
    let mut in_the_middle = 0;
    for kill in 1..=KILLS {
        let wanted = rows * kill / (KILLS + 1);
        wait_until(&format!("{wanted} lines (seed {seed})"), SOON, || {
            (count(out) >= wanted).then_some(())
        });
        std::thread::sleep(Duration::from_millis(dice.roll(40)));
        daemon.kill9();
        in_the_middle += u64::from(count(out) < rows);
        between(&mut dice);
        daemon = start(dir, toml);
    }
    wait_until(&format!("{rows} lines (seed {seed})"), SOON, || {
        (count(out) >= rows).then_some(())
    });
    assert!(in_the_middle > 0, "no kill hit the middle: take more rows");
    daemon
}

/// Ends the daemon and looks at its books: everything that was produced is accounted for. Returns how much that is.
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
fn what_is_sent_again_has_the_key_it_had() {
    let (dir, server) = (temp_dir("http-sink"), Script::start(TAKER, &[]));
    fs::write(dir.path().join("in.jsonl"), records("t", 200)).unwrap();
    let toml = format!(
        r#"name = "upload"
[sources.in]
type = "file"
path = "in.jsonl"
format = "json_lines"
[destinations.out]
type = "http"
from = "in"
url = "http://127.0.0.1:{}/take"
records_max = 20
timeout_ms = 5000
"#,
        server.port()
    );
    let out = server.dir().join("out");
    let daemon = through_kills(dir.path(), &toml, (&out, ROWS), |dice| {
        // The server too; and a request that is stored and not answered.
        if dice.roll(2) == 0 {
            fs::write(server.dir().join("drop"), "").unwrap();
        }
        server.kill9();
        server.start();
    });
    assert_eq!(books(daemon), ROWS);
    assert_eq!(ids(&out, "t"), (1..=ROWS).collect::<Vec<_>>());
}

#[test]
fn what_was_asked_for_is_delivered_once() {
    let (dir, server) = (temp_dir("http-source"), Script::start(GIVER, &[]));
    fs::write(server.dir().join("data"), records("id", 200)).unwrap();
    let toml = format!(
        r#"name = "poll"
[sources.in]
type = "http"
url = "http://127.0.0.1:{}/after?id={{cursor}}&size=70"
cursor = {{ field = "id" }}
start = "0"
records = "/data/orders"
poll_interval_ms = 100
[destinations.out]
type = "file"
from = "in"
path = "out.jsonl"
format = "json_lines"
"#,
        server.port()
    );
    let out = dir.path().join("out.jsonl");
    let daemon = through_kills(dir.path(), &toml, (&out, ROWS), |dice| {
        if dice.roll(2) == 0 {
            server.kill9();
            server.start();
        }
    });
    assert_eq!(books(daemon), ROWS);
    assert_eq!(ids(&out, "id"), (1..=ROWS).collect::<Vec<_>>());
}

/// Sends until it is told that it has arrived, and says how often it had to send again.
const SENDER: &str = r#"
import http.client, json, sys, time
port, first, last = map(int, sys.argv[1:])
connection, again = None, 0
for id in range(first, last + 1):
    while True:
        try:
            connection = connection or http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            connection.request("POST", "/in", json.dumps({"id": id}), {"Idempotency-Key": str(id), "Authorization": "Bearer t"})
            answer = connection.getresponse()
            body = answer.read()
            if answer.status == 200:
                break
            assert answer.status == 503 and answer.getheader("Retry-After"), (answer.status, body)
        except (OSError, http.client.HTTPException):
            connection = None
        again += 1
        time.sleep(0.02)
print(again)
"#;

#[test]
fn what_was_answered_with_yes_is_there() {
    const SENDERS: u64 = 8;
    let (dir, port) = (temp_dir("webhook"), free_port());
    let toml = format!(
        r#"name = "called"
[sources.in]
type = "webhook"
listen = "127.0.0.1:{port}"
path = "/in"
bearer = "t"
[destinations.out]
type = "file"
from = "in"
path = "out.jsonl"
format = "json_lines"
"#
    );
    let part = CALLS / SENDERS;
    let senders: Vec<_> = (0..SENDERS)
        .map(|sender| {
            let (first, last) = (sender * part + 1, (sender + 1) * part);
            let args = [port.to_string(), first.to_string(), last.to_string()];
            std::thread::spawn(move || Cmd::new("python3").args(["-c", SENDER]).args(args).run(2 * SOON).ok())
        })
        .collect();
    let out = dir.path().join("out.jsonl");
    let daemon = through_kills(dir.path(), &toml, (&out, CALLS), |_| {});
    let again: u64 = senders
        .into_iter()
        .map(|sender| sender.join().unwrap().trim().parse::<u64>().unwrap())
        .sum();
    let produced = books(daemon);
    let mut found = ids(&out, "id");
    let all = found.len() as u64;
    assert_eq!(produced, all, "what was counted is what is there");
    found.dedup();
    assert_eq!(found, (1..=CALLS).collect::<Vec<_>>());
    assert!(again > 0, "no sender noticed anything");
    assert!(
        all - CALLS <= again,
        "{} came twice, and only {again} were sent again",
        all - CALLS
    );
}
