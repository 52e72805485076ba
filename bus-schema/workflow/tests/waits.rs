//! Senders that would wait for longer than they can: where that is told, and where not.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::sync::Arc;

use bus_schema::plan::ComponentRole;
use common::{components, descriptor, node, told};
use workflow::{Fleet, compile, parse, validate};

const HOOK: &str = r#"{"type":"object","x-waits":{"answer_ms":"/answer_ms_max","default":30000,"bytes":"/body_bytes_max",
    "default_bytes":4194304},"properties":{"answer_ms_max":{"type":"integer"},"body_bytes_max":{"type":"integer"}}}"#;
const STORE: &str = r#"{"type":"object","x-gathers":{"age_s":"/max_age_s","default":300,"bytes":"/max_bytes",
    "default_bytes":16000000},"properties":{"max_age_s":{"type":"integer"},"max_bytes":{"type":"integer"}}}"#;
const FILE: &str = r#"{"type":"object","x-gathers":{"age_s":"/rotate/max_age_s","default":300,"bytes":"/rotate/max_bytes",
    "default_bytes":64000000,"when":{"format":"parquet"}},
    "properties":{"format":{"type":"string"},"rotate":{"type":"object"}}}"#;

fn fleet() -> Fleet {
    let mut carried = components();
    carried.push(descriptor(ComponentRole::Source, "webhook", 0, HOOK));
    carried.push(descriptor(ComponentRole::Destination, "s3", 0, STORE));
    carried.push(descriptor(ComponentRole::Destination, "file", 0, FILE));
    let (mut fleet, carried) = (Fleet::new(), Arc::from(carried));
    for (n, name) in (1..).zip(["gateway", "hub"]) {
        fleet.insert(name, node(n), Some(Arc::clone(&carried)));
    }
    fleet
}

fn text(hook: &str, destinations: &str) -> String {
    format!(
        "name = \"a\"\n[sources.hook]\ntype = \"webhook\"\ndaemon = \"gateway\"\n{hook}\n\
         [transforms.keep]\ntype = \"filter\"\nfrom = \"hook\"\nexpression = \"n > 1\"\n{destinations}\n"
    )
}

fn lake(more: &str) -> String {
    format!("[destinations.lake]\nfrom = \"keep\"\n{more}")
}

#[test]
fn who_waits_directly_for_an_object_is_told_to_put_a_buffer_between() {
    let fleet = fleet();
    for (hook, destination, wanted) in [
        (
            "",
            "type = \"s3\"\ndaemon = \"gateway\"",
            "after 30000 ms at most, and 'lake' gathers them for 300 s",
        ),
        (
            "answer_ms_max = 200_000",
            "type = \"s3\"\ndaemon = \"gateway\"",
            "after 200000 ms",
        ),
        ("", "type = \"s3\"\ndaemon = \"gateway\"\nmax_age_s = 30", "for 30 s"),
        (
            "",
            "type = \"file\"\ndaemon = \"gateway\"\nformat = \"parquet\"",
            "for 300 s",
        ),
        (
            "",
            "type = \"file\"\ndaemon = \"gateway\"\nformat = \"parquet\"\nrotate = { max_bytes = 5_000_000, max_age_s = 60 }",
            "for 60 s",
        ),
    ] {
        let text = text(hook, &lake(destination));
        let problems = told(&validate(&text, &fleet).unwrap_err());
        let [problem] = problems.as_slice() else {
            panic!("{problems:#?}")
        };
        assert!(
            problem.contains("destinations.lake: 'hook' answers when its records are safe, "),
            "{problem}"
        );
        assert!(
            problem.contains(wanted) && problem.contains("add to 'lake': spool = {}"),
            "{problem}"
        );
        // What it says mends it.
        let mended = format!("{text}spool = {{}}\n");
        validate(&mended, &fleet).unwrap_or_else(|problems| panic!("{problems:#?}"));
        // What runs already goes on.
        compile(&parse(&text).unwrap(), &fleet, 1).unwrap();
    }
}

#[test]
fn who_waits_shortly_or_behind_a_stream_is_not_told() {
    let fleet = fleet();
    let two = "type = \"s3\"\ndaemon = \"gateway\"\n[destinations.out]\ntype = \"stdout\"\nfrom = \"hook\"\ndaemon = \"gateway\"";
    for destination in [
        "type = \"s3\"\ndaemon = \"hub\"",
        "type = \"s3\"\ndaemon = \"gateway\"\nmax_age_s = 29",
        "type = \"s3\"\ndaemon = \"gateway\"\nmax_bytes = 4_000_000",
        "type = \"file\"\ndaemon = \"gateway\"\nformat = \"csv\"",
        "type = \"sqlite\"\npath = \"/b.db\"\ndaemon = \"gateway\"",
        // With two destinations each has a buffer.
        two,
    ] {
        let text = text("", &lake(destination));
        validate(&text, &fleet).unwrap_or_else(|problems| panic!("{destination}: {problems:#?}"));
    }
    let large = text(
        "body_bytes_max = 16_000_000",
        &lake("type = \"s3\"\ndaemon = \"gateway\""),
    );
    validate(&large, &fleet).unwrap_or_else(|problems| panic!("{problems:#?}"));
    // A source that lets nobody wait.
    let text = format!(
        "name = \"a\"\n[sources.keep]\ntype = \"sqlite\"\npath = \"/a.db\"\ndaemon = \"gateway\"\n{}",
        lake("type = \"s3\"\ndaemon = \"gateway\"")
    );
    validate(&text, &fleet).unwrap_or_else(|problems| panic!("{problems:#?}"));
}
