//! Who is taken out of the fleet: by everybody, at once, also while the plane is away; and who was copied.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test that cannot set up its world has failed")]

use std::{fs, time::Duration};

use serde_json::Value;
use testkit::{Broker, Cmd, Fleet, Mosquitto, wait_until};

const SOON: Duration = Duration::from_secs(60);

fn daemons(fleet: &Fleet) -> Vec<Value> {
    let text = fleet.cli(&["daemon", "list", "-o", "json"]).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn is_online(fleet: &Fleet, name: &str) -> Option<()> {
    let found = daemons(fleet).into_iter().find(|daemon| daemon["name"] == name)?;
    (found["presence"] == "online").then_some(())
}

fn workflow(fleet: &Fleet, from: &str, to: &str) -> String {
    format!(
        "name = 'lines'\n[sources.in]\ntype = 'file'\ndaemon = '{from}'\npath = '{}'\nformat = 'json_lines'\n\
         [destinations.out]\ntype = 'file'\ndaemon = '{to}'\npath = '{}'\nformat = 'json_lines'\nfrom = 'in'\n",
        fleet.path("in.jsonl"),
        fleet.path("out.jsonl"),
    )
}

#[test]
fn the_broker_puts_a_revoked_daemon_out_and_lets_it_in_no_more() {
    let fleet = Fleet::start(Broker::embedded(true), None);
    for name in ["stays", "goes"] {
        fleet.enrol(name);
    }
    let _stays = fleet.daemon("stays", None);
    let mut goes = fleet.daemon("goes", None);
    for name in ["stays", "goes"] {
        wait_until("the daemon to be there", SOON, || is_online(&fleet, name));
    }
    let refused = fleet.cli(&["daemon", "revoke", "goes"]).unwrap_err();
    assert!(refused.contains("say --yes"), "{refused}");
    assert_eq!(daemons(&fleet).len(), 2, "nothing was changed");
    fleet.cli(&["daemon", "revoke", "goes", "--yes"]).unwrap();
    goes.wait_for_log("not connected", SOON);
    goes.wait_for_log("not allowed to connect", SOON);
    let left: Vec<Value> = daemons(&fleet)
        .into_iter()
        .map(|daemon| daemon["name"].clone())
        .collect();
    assert_eq!(left, ["stays"]);
    assert!(
        fleet.cli(&["daemon", "revoke", "goes", "--yes"]).is_err(),
        "it is gone already"
    );
    // It goes on, with what it has; and another start changes nothing.
    assert!(goes.term_and_wait(SOON).success());
    let mut again = fleet.daemon("goes", None);
    again.wait_for_log("not allowed to connect", SOON);
    wait_until("the other to be there", SOON, || is_online(&fleet, "stays"));
    assert!(
        fleet.dir().join("goes").join("identity").exists()
            || fs::read_dir(fleet.dir().join("goes")).unwrap().count() > 0
    );
}

#[test]
fn many_are_revoked_at_once_after_all_of_them_are_named() {
    let fleet = Fleet::start(Broker::embedded(true), None);
    let gone: Vec<String> = (1..=7).map(|n| format!("gone-{n}")).collect();
    for name in gone.iter().map(String::as_str).chain(["stays"]) {
        fleet.enrol(name);
    }
    let chosen = ["daemon", "revoke", "-l", "name:gone-*"];
    let asked = fleet.cli(&chosen).unwrap_err();
    let named = format!("on 7 daemons (chosen by 'name:gone-*'): {}", gone.join(", "));
    assert!(asked.contains(&named) && asked.contains("say --yes"), "{asked}");
    assert_eq!(daemons(&fleet).len(), 8, "nothing was changed");
    let said = fleet.cli(&[&chosen[..], &["--yes", "-o", "json"]].concat()).unwrap();
    let ended: Vec<Value> = serde_json::from_str(&said).unwrap();
    let names: Vec<_> = ended.iter().map(|one| one["daemon"].as_str().unwrap()).collect();
    assert_eq!(names, gone);
    assert!(
        ended
            .iter()
            .all(|one| one["outcome"] == "done" && one["node"].is_string()),
        "{said}"
    );
    let left: Vec<Value> = daemons(&fleet)
        .into_iter()
        .map(|daemon| daemon["name"].clone())
        .collect();
    assert_eq!(left, ["stays"]);
    assert!(
        fleet.cli(&["daemon", "revoke", "stays", "-l", "name:stays"]).is_err(),
        "one or the other"
    );
}

#[test]
fn members_refuse_a_revoked_daemon_while_plane_is_away_at_a_broker_that_lets_it_in() {
    let mut fleet = Fleet::start(Broker::Mosquitto(Mosquitto::start()), None);
    for name in ["a", "b", "sleeper"] {
        fleet.enrol(name);
    }
    let (_a, mut b) = (fleet.daemon("a", None), fleet.daemon("b", None));
    let mut sleeper = fleet.daemon("sleeper", None);
    for name in ["a", "b", "sleeper"] {
        wait_until("the daemon to be there", SOON, || is_online(&fleet, name));
    }
    assert!(sleeper.term_and_wait(SOON).success());
    fs::write(fleet.path("in.jsonl"), "{\"n\":1}\n").unwrap();
    let text = workflow(&fleet, "a", "b");
    fleet.apply("lines", &text);
    let out_path = fleet.path("out.jsonl");
    let out = || fs::read_to_string(&out_path).unwrap_or_default();
    wait_until("the first record", SOON, || out().contains("\"n\":1").then_some(()));
    fleet.cli(&["daemon", "revoke", "a", "--yes"]).unwrap();
    b.wait_for_log("new roster", SOON);
    fleet.plane_away();
    let mut lines = fs::OpenOptions::new()
        .append(true)
        .open(fleet.path("in.jsonl"))
        .unwrap();
    std::io::Write::write_all(&mut lines, b"{\"n\":2}\n").unwrap();
    // Its frames do come in, from the broker; and are refused.
    b.wait_for_log("is not a member of this fleet", SOON);
    assert!(!out().contains("\"n\":2"), "{}", out());
    fleet.plane_back();
    // Another one goes, so that the group's key has changed twice while one slept.
    fleet.enrol("c");
    fleet.cli(&["daemon", "revoke", "c", "--yes"]).unwrap();
    let _sleeper = fleet.daemon("sleeper", None);
    wait_until("the sleeper to be there", SOON, || is_online(&fleet, "sleeper"));
    assert!(fleet.cli(&["daemon", "ping", "sleeper"]).is_ok());
    assert!(fleet.cli(&["daemon", "show", "a"]).is_err());
}

#[test]
fn a_daemon_without_a_string_of_its_own_waits_for_approval() {
    let fleet = Fleet::start(Broker::embedded(true), None);
    let door = fleet.cli(&["enrol", "open"]).unwrap().trim().to_string();
    let mut waits = Cmd::bin("myceliald")
        .args(["start", "--data-dir", &fleet.path("pump"), "--enrol", &door])
        .spawn();
    waits.wait_for_log("this daemon's code is", SOON);
    let pending = wait_until("the daemon to wait", SOON, || {
        let text = fleet.cli(&["enrol", "pending", "-o", "json"]).ok()?;
        let pending: Vec<Value> = serde_json::from_str(&text).ok()?;
        pending.into_iter().next()
    });
    let code = pending["code"].as_str().unwrap();
    assert!(waits.log().contains(code), "{} and {pending}", waits.log());
    fleet.cli(&["enrol", "approve", code, "--name", "pump"]).unwrap();
    wait_until("the daemon to be there", SOON, || is_online(&fleet, "pump"));
    fleet.cli(&["enrol", "close"]).unwrap();
    let late = Cmd::bin("myceliald")
        .args(["enrol", "--name", "late", "--data-dir", &fleet.path("late"), &door])
        .run(SOON);
    assert!(late.stderr.contains("mycelial enrol open"), "{}", late.stderr);
}

#[test]
fn a_copied_daemon_is_noticed() {
    let fleet = Fleet::start(Broker::Mosquitto(Mosquitto::start()), None);
    fleet.enrol("gateway");
    let mut first = fleet.daemon("gateway", None);
    wait_until("the daemon to be there", SOON, || is_online(&fleet, "gateway"));
    assert!(first.term_and_wait(SOON).success());
    Cmd::new("cp")
        .args(["-r", &fleet.path("gateway"), &fleet.path("copy")])
        .run(SOON)
        .ok();
    let _first = fleet.daemon("gateway", None);
    let _copy = fleet.daemon("copy", None);
    let shown = wait_until("the copy to be noticed", Duration::from_secs(150), || {
        let shown = fleet.cli(&["daemon", "show", "gateway"]).ok()?;
        shown.contains("two daemons use its keys").then_some(shown)
    });
    assert!(shown.contains("revoke"), "{shown}");
    assert!(daemons(&fleet)[0]["troubled"].as_u64().unwrap() > 0);
    wait_until("the alert", SOON, || {
        fleet
            .cli(&["alert", "list"])
            .ok()?
            .contains("daemon-cloned")
            .then_some(())
    });
}
