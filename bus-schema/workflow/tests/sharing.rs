//! A destination that several daemons share: which part each gets, what moves when one leaves, and what cannot be shared.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{collections::BTreeMap, sync::Arc};

use bus_schema::{
    id::StreamId,
    plan::{Action, ComponentRole, Root},
};
use common::{components, descriptor, node, told};
use workflow::{Compiled, Fleet, compile, is_misplaced, part_of, unchangeable, validate};

const WRITERS: &str = "group:writers";

/// A gateway, three writers, and what is said of sharing.
fn fleet() -> Fleet {
    let mut carried = components();
    let postgres = r#"{"type":"object","x-shared":true,"properties":{"table":{"type":"string"}}}"#;
    carried.push(descriptor(ComponentRole::Destination, "postgres", 0, postgres));
    carried.push(descriptor(
        ComponentRole::Transform,
        "partition",
        1,
        r#"{"type":"object"}"#,
    ));
    let (mut fleet, carried) = (Fleet::new(), Arc::from(carried));
    for (n, name) in (1..).zip(["gateway", "w1", "w2", "w3"]) {
        fleet.insert(name, node(n), Some(Arc::clone(&carried)));
    }
    fleet.choose(WRITERS, Ok(["w1", "w2", "w3"].map(str::to_string).to_vec()));
    fleet.choose("site=mars", Ok(Vec::new()));
    fleet
}

fn text(destination: &str) -> String {
    format!(
        "name = \"a\"\n[sources.db]\ntype = \"sqlite\"\npath = \"/a.db\"\ndaemon = \"gateway\"\n\
         [destinations.out]\nfrom = \"db\"\n{destination}\n"
    )
}

const SHARED: &str =
    "type = \"postgres\"\ndaemon = \"group:writers\"\nshare = { by = [\"device\"], parts = 6, move_after = \"1m\" }";

fn cut(fleet: &Fleet) -> Compiled {
    let spec = validate(&text(SHARED), fleet).unwrap_or_else(|problems| panic!("{problems:#?}"));
    compile(&spec, fleet, 1).unwrap()
}

/// Which daemon has each part.
fn holders(compiled: &Compiled) -> BTreeMap<u16, String> {
    let mut holders = BTreeMap::new();
    for part in &compiled.parts {
        for found in &part.workflow.nodes {
            if let (ComponentRole::Destination, Some((of, number))) = (found.role, part_of(&found.id)) {
                assert_eq!(of, "out");
                assert!(holders.insert(number, part.daemon.clone()).is_none(), "{number} twice");
            }
        }
    }
    holders
}

/// The stream of each part, by its edge.
fn streams(compiled: &Compiled) -> BTreeMap<String, StreamId> {
    compiled
        .streams()
        .map(|stream| (stream.edge.clone(), stream.stream))
        .collect()
}

#[test]
fn whether_parts_have_to_move_is_told_or_why_it_cannot_be() {
    let mut fleet = fleet();
    let compiled = cut(&fleet);
    let spec = validate(&text(SHARED), &fleet).unwrap();
    assert_eq!(is_misplaced(&spec, &fleet), Ok(true), "nobody has any");
    hold(&mut fleet, &holders(&compiled));
    assert_eq!(is_misplaced(&spec, &fleet), Ok(false));
    fleet.silent("w1", 61);
    assert_eq!(is_misplaced(&spec, &fleet), Ok(true));
    // Without its group nobody can say who takes the place of whoever is away.
    fleet.choose(WRITERS, Err("there is no group 'writers'".into()));
    let problem = is_misplaced(&spec, &fleet).unwrap_err();
    assert!(problem.message.contains("no group 'writers'"), "{problem:?}");
}

fn hold(fleet: &mut Fleet, holders: &BTreeMap<u16, String>) {
    for (part, daemon) in holders {
        fleet.hold("a", &format!("out.{part}"), daemon);
    }
}

#[test]
fn each_has_its_share_and_what_moves_stays_the_same_stream() {
    let mut fleet = fleet();
    let before = cut(&fleet);
    let first = holders(&before);
    let of = |holders: &BTreeMap<u16, String>, name: &str| holders.values().filter(|holder| *holder == name).count();
    assert_eq!(["w1", "w2", "w3"].map(|name| of(&first, name)), [2, 2, 2]);
    hold(&mut fleet, &first);

    // A short silence moves nothing, a long one what that daemon has.
    for (seconds, moved) in [(59, 0), (60, 2)] {
        fleet.silent("w2", seconds);
        let after = cut(&fleet);
        let now = holders(&after);
        let changed = first.iter().filter(|(part, holder)| now[part] != **holder);
        assert_eq!(changed.count(), moved, "after {seconds} s");
        assert_eq!(streams(&after), streams(&before));
        assert_eq!(of(&now, "w2"), 2 - moved);
    }

    // Who has no part, and is away, gets none; and when all are away, nobody is better than another.
    let now = holders(&cut(&fleet));
    hold(&mut fleet, &now);
    fleet.silent("w2", 1);
    assert_eq!(holders(&cut(&fleet)), now);
    for name in ["w1", "w2", "w3"] {
        fleet.silent(name, 1_000);
    }
    let all = holders(&cut(&fleet));
    assert_eq!(["w1", "w2", "w3"].map(|name| of(&all, name)), [2, 2, 2]);
}

#[test]
fn parts_are_streams_of_their_own() {
    let compiled = cut(&fleet());
    let gateway = &compiled.parts[0].workflow;
    assert_eq!((gateway.nodes.len(), gateway.pipes.len()), (1 + 6, 1));
    let pipe = &gateway.pipes[0];
    assert!(matches!(pipe.root, Root::Source(0)));
    let sent = pipe.steps.iter().filter_map(|step| match &step.action {
        Action::Stream(stream) => Some(stream.edge.as_str()),
        _ => None,
    });
    assert_eq!(
        sent.collect::<Vec<_>>(),
        [
            "db.out-1->out.1",
            "db.out-2->out.2",
            "db.out-3->out.3",
            "db.out-4->out.4",
            "db.out-5->out.5",
            "db.out-6->out.6"
        ]
    );
    let partition = &gateway.nodes[1];
    assert_eq!(partition.component, "partition");
    let config: serde_json::Value = serde_json::from_str(&partition.config).unwrap();
    assert_eq!(config, serde_json::json!({"by": ["device"], "part": 1, "of": 6}));
    for stream in compiled.streams() {
        assert!(stream.is_shared(&compiled.id));
    }
    // Every daemon that takes parts has them as ends of streams.
    for part in &compiled.parts[1..] {
        assert_eq!(
            (part.workflow.nodes.len(), part.workflow.pipes.len()),
            (2, 2),
            "{}",
            part.daemon
        );
    }
}

#[test]
fn what_cannot_be_shared() {
    let problems = |destination: &str| told(&validate(&text(destination), &fleet()).unwrap_err());
    let shared = |keys: &str| {
        problems(&format!(
            "type = \"postgres\"\ndaemon = \"group:writers\"\nshare = {keys}"
        ))
    };
    for (found, wanted) in [
        (
            problems("type = \"postgres\"\ndaemon = \"w1\"\nshare = { by = [\"a\"] }"),
            "names one daemon",
        ),
        (
            problems("type = \"postgres\"\ndaemon = \"site=mars\"\nshare = { by = [\"a\"] }"),
            "chooses no daemon",
        ),
        (
            problems("type = \"stdout\"\ndaemon = \"group:writers\"\nshare = { by = [\"a\"] }"),
            "'stdout' cannot be shared",
        ),
        (
            problems("type = \"postgres\"\ndaemon = \"group:writers\"\ntable = 1\nshare = { by = [\"a\"] }"),
            "destinations.out.table",
        ),
        (
            problems(
                "type = \"postgres\"\ndaemon = \"group:writers\"\nsend = { live_first = true }\nshare = { by = [\"a\"] }",
            ),
            "do not go together",
        ),
        (
            problems("type = \"postgres\"\ndaemon = \"group:writers\""),
            "to which of them is not said",
        ),
        (shared("true"), "must be a table"),
        (shared("{}"), "'by' is missing"),
        (shared("{ by = [] }"), "name 1 to 8 columns"),
        (shared("{ by = [\"a\"], parts = 1 }"), "from 2 to 16"),
        (shared("{ by = [\"a\"], parts = 17 }"), "from 2 to 16"),
        (shared("{ by = [\"a\"], move_after = \"1s\" }"), "from 30s to 7d"),
        (shared("{ by = [\"a\"], move_after = \"soon\" }"), "no length of time"),
        (shared("{ by = [\"a\"], size = 3 }"), "unknown key 'size'"),
    ] {
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains(wanted), "{wanted}: {found:?}");
    }
    let source = text("type = \"postgres\"\ndaemon = \"w1\"")
        .replace("daemon = \"gateway\"", "daemon = \"gateway\"\nshare = { by = [\"a\"] }");
    let found = told(&validate(&source, &fleet()).unwrap_err());
    assert!(
        found.len() == 1 && found[0].contains("a source cannot be shared"),
        "{found:?}"
    );
}

#[test]
fn what_is_on_its_way_keeps_its_part() {
    let parse = |text: &str| workflow::parse(text).unwrap();
    let old = parse(&text(SHARED));
    for (change, is_refused) in [
        (("parts = 6", "parts = 8"), true),
        (("\"device\"", "\"line\""), true),
        (("share =", "# share ="), true),
        (("\"1m\"", "\"2m\""), false),
        (("group:writers", "group:others"), false),
        (("destinations.out", "destinations.other"), false),
    ] {
        let new = parse(&text(SHARED).replace(change.0, change.1));
        assert_eq!(!unchangeable(&old, &new).is_empty(), is_refused, "{change:?}");
    }
}
