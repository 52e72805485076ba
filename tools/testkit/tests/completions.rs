//! The shell completes what is typed with the names of daemons and workflows that there are now.

#![cfg(target_os = "linux")]

use std::time::Duration;

use testkit::{Broker, Cmd, Fleet, wait_ok};

const SOON: Duration = Duration::from_secs(60);

/// What the shell would offer for the last of these words.
fn offered(fleet: &Fleet, words: &[&str]) -> Vec<String> {
    let done = Cmd::bin("mycelial")
        .env("COMPLETE", "bash")
        .env("_CLAP_COMPLETE_INDEX", words.len().to_string())
        .env("_CLAP_IFS", "\n")
        .env("MYCELIAL_HOME", fleet.path("operator"))
        .args(["--", "mycelial"])
        .args(words)
        .run(SOON);
    let lines = done.stdout.lines().map(|line| line.trim().to_string());
    // Where a name may stand, an option may as well.
    lines.filter(|line| !line.starts_with('-')).collect()
}

#[test]
fn names_are_those_that_there_are() {
    let mut fleet = Fleet::start(Broker::embedded(false), None);
    for name in ["gateway", "garden", "hub"] {
        fleet.enrol(name);
    }
    let _gateway = fleet.daemon("gateway", None);
    let text = "name = \"orders\"\n[sources.clock]\ntype = \"generator\"\ndaemon = \"gateway\"\nrate = 1\n\
                fields = { n = { kind = \"counter\" } }\n[destinations.out]\ntype = \"stdout\"\ndaemon = \"gateway\"\n\
                from = \"clock\"\n";
    fleet.apply("orders", text);
    for (words, expected) in [
        (&["daemon", "show", "ga"][..], &["garden", "gateway"][..]),
        (&["daemon", "show", "h"], &["hub"]),
        (&["workflow", "status", ""], &["orders"]),
        (&["workflow", "nodes", "or"], &["orders"]),
        (&["workflow", "logs", "orders", "--daemon", "gat"], &["gateway"]),
        (&["daemon", "show", "nobody"], &[]),
    ] {
        wait_ok(&format!("{words:?}"), SOON, || {
            let mut found = offered(&fleet, words);
            found.sort();
            (found == expected).then_some(()).ok_or(format!("{found:?}"))
        });
    }
    // A verb is completed without asking anybody; and a shell does not hang where nobody answers.
    assert!(offered(&fleet, &["workflow", "rollb"]).contains(&"rollback".to_string()));
    fleet.plane_away();
    assert_eq!(offered(&fleet, &["daemon", "show", "ga"]), Vec::<String>::new());
}
