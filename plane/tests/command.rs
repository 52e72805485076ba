//! The program itself: what it prints, how it ends, and that it can be stopped and started.
#![allow(clippy::unwrap_used, reason = "a test that cannot set up its world has failed")]

use std::{fs, path::Path, time::Duration};

use bus_schema::member::{Invitation, Role};
use testkit::{Cmd, Mosquitto, temp_dir};

const SOON: Duration = Duration::from_secs(20);

fn plane(args: &[&str]) -> Cmd {
    Cmd::new(env!("CARGO_BIN_EXE_mycelial-plane"))
        .args(args)
        .env_remove("MYCELIAL_LOG")
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn mistakes_have_a_message_and_a_code() {
    let dir = temp_dir("plane-mistakes");
    let new = dir.path().join("new");
    let new = text(&new);
    let made = dir.path().join("made");
    let made = text(&made);
    plane(&["init", "--dir", made]).run(SOON).ok();
    let broken = dir.path().join("broken");
    fs::create_dir(&broken).unwrap();
    fs::write(broken.join("plane.toml"), "[bus]\nadresses = ['mqtt://127.0.0.1']\n").unwrap();
    let damaged = dir.path().join("damaged");
    plane(&["init", "--dir", text(&damaged)]).run(SOON).ok();
    fs::write(damaged.join("plane.db"), "no database".repeat(1_000)).unwrap();
    let foreign = dir.path().join("file");
    fs::write(&foreign, "").unwrap();
    // (arguments, code, a part of stderr)
    for (args, code, part) in [
        (vec![], 2, "Usage"),
        (vec!["fly"], 2, "unrecognized subcommand 'fly'"),
        (vec!["run"], 2, "--dir"),
        (
            vec!["run", "--dir", new, "--http", "localhost"],
            2,
            "invalid socket address",
        ),
        (vec!["run", "--dir", new, "--bus", "nats://a", "--tls"], 2, "choose one"),
        (vec!["run", "--dir", new, "--bus", "a:1"], 2, "has no scheme"),
        (vec!["run", "--dir", made, "--bus", "nats://elsewhere"], 2, "edit [bus]"),
        (
            vec!["run", "--dir", text(&broken)],
            2,
            "plane.toml:2: unknown field `adresses`",
        ),
        (vec!["run", "--dir", text(&broken)], 2, "did you mean `addresses`?"),
        (vec!["run", "--dir", made, "--log", "=,="], 2, "log level"),
        (
            vec!["run", "--dir", text(&damaged), "--http", "127.0.0.1:0"],
            1,
            "plane.db is not a usable database",
        ),
        (vec!["run", "--dir", text(&foreign)], 1, "cannot create"),
        (vec!["init", "--dir", made], 2, "holds a plane already"),
        (vec!["login", "--dir", new], 2, "holds no plane"),
        (vec!["token", "--dir", new, "--role", "daemon"], 2, "holds no plane"),
        (
            vec!["token", "--dir", made, "--role", "king"],
            2,
            "invalid value 'king'",
        ),
        (
            vec!["token", "--dir", made, "--role", "daemon", "--uses", "0"],
            2,
            "1 to 1000 times",
        ),
    ] {
        let finished = plane(&args).run(SOON);
        assert_eq!(finished.code(), Some(code), "{args:?}: {finished}");
        assert!(finished.stderr.contains(part), "{args:?}: {finished}");
        assert_eq!(finished.stdout, "", "{args:?}: nothing but data on stdout");
    }
    assert!(!Path::new(new).join("plane.toml").exists(), "a mistake makes nothing");
    let help = plane(&["--help"]).run(SOON).ok();
    assert!(help.starts_with("Example:\n  mycelial-plane run --dir"), "{help}");
    assert!(help.contains("Exit codes:"), "{help}");
}

#[test]
fn runs_says_how_to_log_in_and_stops() {
    let broker = Mosquitto::start();
    let dir = temp_dir("plane-run");
    let dir = text(dir.path());
    let args = ["run", "--dir", dir, "--bus", &broker.url(), "--http", "127.0.0.1:0"];
    let mut first = plane(&args).spawn();
    first.wait_for_log("the plane is running", SOON);
    first.wait_for_log("connected", SOON);
    let log = first.log();
    let link = log.split_whitespace().find(|word| word.contains("#/login/")).unwrap();
    let string = log.split_whitespace().find(|word| word.starts_with("myc1")).unwrap();
    assert_eq!(
        Invitation::decode(string).map(|invitation| invitation.role),
        Ok(Role::Operator)
    );
    assert!(link.starts_with("http://127.0.0.1:") && !link.contains(":0/"), "{link}");
    assert!(!log.contains("mycelial-broker"), "there is no embedded broker: {log}");

    // Beside the running plane.
    let second = plane(&["run", "--dir", dir]).run(SOON);
    assert_eq!(second.code(), Some(3), "{second}");
    assert!(second.stderr.contains("in use by another process"), "{second}");
    let again = plane(&["login", "--dir", dir]).run(SOON);
    assert_eq!(again.stderr, "", "{again}");
    let page = link.split_once("/#/").unwrap().0;
    assert!(again.ok().starts_with(page));
    let token = plane(&["token", "--dir", dir, "--role", "daemon", "--name", "gw"])
        .run(SOON)
        .ok();
    assert_eq!(
        Invitation::decode(&token).map(|invitation| invitation.bus),
        Ok(vec![broker.url()])
    );
    let other = temp_dir("plane-other");
    let taken = plane(&[
        "run",
        "--dir",
        text(other.path()),
        "--http",
        page.trim_start_matches("http://"),
    ])
    .run(SOON);
    assert_eq!(taken.code(), Some(2), "{taken}");
    assert!(taken.stderr.contains("choose another port"), "{taken}");

    assert_eq!(first.term_and_wait(SOON).code(), Some(0));
    assert!(first.log().contains("stopped"));
    // The same command again.
    let mut next = plane(&args).spawn();
    next.wait_for_log("the plane is running", SOON);
    assert!(
        next.log().contains("log in with a link from: mycelial-plane login"),
        "{}",
        next.log()
    );
    assert!(!next.log().contains("#/login/"));
    assert_eq!(next.term_and_wait(SOON).code(), Some(0));
}

#[test]
fn logs_are_json_when_asked() {
    let dir = temp_dir("plane-json");
    let path = text(dir.path());
    plane(&["init", "--dir", path]).run(SOON).ok();
    let settings = dir.path().join("plane.toml");
    let mut toml = fs::read_to_string(&settings).unwrap();
    toml.push_str("\n[log]\nformat = \"json\"\n");
    fs::write(&settings, toml).unwrap();
    let stdout = dir.path().join("stdout");
    let mut running = plane(&["run", "--dir", path, "--http", "127.0.0.1:0"])
        .stdout_to(&stdout)
        .spawn();
    running.wait_for_log("the plane is running", SOON);
    // The embedded broker is not there: that is said, and no reason to end.
    running.wait_for_log("not connected to the bus", SOON);
    assert_eq!(running.term_and_wait(SOON).code(), Some(0));
    for line in running.log().lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(line["level"].is_string() && line["message"].is_string(), "{line}");
    }
    assert!(
        fs::read_to_string(stdout)
            .unwrap()
            .contains(&format!("mycelial-broker --config {path}/broker.toml"))
    );
}
