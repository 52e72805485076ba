//! The audits of a plane and of a daemon at work, as the command line shows and verifies them.

#![cfg(target_os = "linux")]

use std::{fs, time::Duration};

use testkit::{Broker, Cmd, Finished, Fleet, wait_ok};

const SOON: Duration = Duration::from_secs(60);
const SECRET: &str = "open-sesame-4711";

fn cli(fleet: &Fleet, arguments: &[&str], stdin: &str) -> Finished {
    Cmd::bin("mycelial")
        .args(["--home", &fleet.path("operator")])
        .args(arguments)
        .stdin(stdin)
        .run(SOON)
}

fn ok(fleet: &Fleet, arguments: &[&str]) -> String {
    let done = cli(fleet, arguments, "");
    assert_eq!(done.code(), Some(0), "{arguments:?}: {}{}", done.stdout, done.stderr);
    done.stdout
}

#[test]
fn plane_and_daemon_say_who_did_what() {
    let fleet = Fleet::start(Broker::embedded(false), None);
    fleet.enrol("gateway");
    let mut gateway = fleet.daemon("gateway", None);
    wait_ok("the daemon to be there", SOON, || {
        let list = ok(&fleet, &["daemon", "list"]);
        list.contains("online").then_some(()).ok_or(list)
    });
    ok(&fleet, &["daemon", "label", "gateway", "site=berlin"]);
    ok(&fleet, &["daemon", "log-level", "debug", "gateway", "--for", "1m"]);
    let set = cli(&fleet, &["secret", "set", "shop", "--daemon", "gateway"], SECRET);
    assert_eq!(set.code(), Some(0), "{}", set.stderr);
    let missing = cli(&fleet, &["workflow", "restart", "nothing", "--daemon", "gateway"], "");
    assert_eq!(missing.code(), Some(1), "{}", missing.stdout);

    let plane = ok(&fleet, &["audit", "list"]);
    for part in [
        "enrol",
        "label daemons",
        "'name:gateway': site=berlin",
        "make an enrolment string",
    ] {
        assert!(plane.contains(part), "{part} in\n{plane}");
    }
    let searched = ok(
        &fleet,
        &["audit", "list", "--search", "BERLIN", "--since", "1h", "-o", "jsonl"],
    );
    assert_eq!(searched.lines().count(), 1, "{searched}");
    let on_daemon = ["audit", "list", "--daemon", "gateway"];
    let daemon = ok(&fleet, &on_daemon);
    for part in [
        "change the log level",
        "set a secret",
        "shop",
        "restart",
        "no workflow 'nothing'",
    ] {
        assert!(daemon.contains(part), "{part} in\n{daemon}");
    }
    assert!(!daemon.contains(SECRET) && !plane.contains(SECRET));
    let report = ok(&fleet, &["audit", "report", "--daemon", "gateway", "-o", "json"]);
    assert!(report.contains("\"failed\": 1"), "{report}");

    for whose in [&["audit", "verify"][..], &["audit", "verify", "--daemon", "gateway"]] {
        let first = ok(&fleet, whose);
        assert!(first.contains("holds") && !first.contains("verified before"), "{first}");
        let second = ok(&fleet, whose);
        assert!(second.contains("continues what was verified before"), "{second}");
    }
    // Kept elsewhere, and altered there.
    let file = fleet.path("audit.jsonl");
    ok(&fleet, &["audit", "export", &file]);
    ok(&fleet, &["audit", "verify", "--file", &file]);
    let altered = fs::read_to_string(&file)
        .expect("the export")
        .replace("site=berlin", "site=bremen");
    fs::write(&file, altered).expect("a file");
    let found = cli(&fleet, &["audit", "verify", "--file", &file], "");
    assert_eq!(found.code(), Some(3), "{}", found.stdout);
    assert!(found.stderr.contains("was altered"), "{}", found.stderr);

    // Somebody who has the daemon's disk makes its audit disappear: whoever has seen it knows.
    gateway.kill9();
    fs::remove_file(fleet.path("gateway/audit")).expect("the audit");
    let _gateway = fleet.daemon("gateway", None);
    let gone = wait_ok("the daemon to answer", SOON, || {
        let said = cli(&fleet, &["audit", "verify", "--daemon", "gateway"], "");
        (said.code() != Some(7)).then(|| said.stderr.clone()).ok_or(said.stderr)
    });
    assert!(gone.contains("entries were removed from its end"), "{gone}");
}
