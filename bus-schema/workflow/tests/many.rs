//! One workflow over many daemons: what each gets, what differs between them, and what is told when it cannot be.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{collections::BTreeSet, sync::Arc};

use bus_schema::{
    message::HostFacts,
    plan::{Action, Root},
};
use common::{components, node, told};
use workflow::{Compiled, Facts, Fleet, compile, validate};

/// `gw-1` to `gw-3`, of which only the first two have a line, and `hub`.
fn fleet() -> Fleet {
    let (mut fleet, carried) = (Fleet::new(), Arc::from(components()));
    for n in 1..=3u8 {
        let name = format!("gw-{n}");
        fleet.insert(&name, node(n), Some(Arc::clone(&carried)));
        let lines = (n < 3).then(|| ("line".to_string(), format!("l{n}")));
        let facts = Facts {
            labels: lines.into_iter().collect(),
            host: HostFacts {
                hostname: format!("host-{n}"),
                ..HostFacts::default()
            },
        };
        fleet.describe(&name, facts);
    }
    fleet.insert("hub", node(9), Some(carried));
    let names = |names: &[&str]| Ok(names.iter().map(ToString::to_string).collect());
    fleet.choose("label:line", names(&["gw-1", "gw-2"]));
    fleet.choose("name:gw-*", names(&["gw-1", "gw-2", "gw-3"]));
    fleet.choose("name:*", names(&["gw-1", "gw-2", "gw-3", "hub"]));
    fleet.choose("site=mars", names(&[]));
    fleet.choose("color:red", Err("'color:red' is no term of a selector".to_string()));
    fleet
}

fn text(source: &str, transform: &str, destination: &str) -> String {
    format!(
        "name = \"a\"\n[sources.db]\ntype = \"sqlite\"\npath = \"/{{{{ host.name }}}}.db\"\n{source}\n\
         [transforms.big]\ntype = \"filter\"\nfrom = \"db\"\nexpression = \"x > 1\"\n{transform}\n\
         [destinations.out]\ntype = \"sqlite\"\nfrom = \"big\"\npath = \"/out.db\"\n{destination}\n"
    )
}

fn cut(text: &str) -> Compiled {
    let fleet = fleet();
    let spec = validate(text, &fleet).unwrap_or_else(|problems| panic!("{problems:#?}"));
    compile(&spec, &fleet, 1).unwrap()
}

fn problems(text: &str) -> Vec<String> {
    told(&validate(text, &fleet()).unwrap_err())
}

#[test]
fn each_has_a_copy_of_its_own() {
    let compiled = cut(&text("daemon = \"name:gw-*\"", "", "daemon = \"name:gw-*\""));
    let names: Vec<_> = compiled.parts.iter().map(|part| part.daemon.as_str()).collect();
    assert_eq!(names, ["gw-1", "gw-2", "gw-3"]);
    for (part, n) in compiled.parts.iter().zip(1..) {
        assert_eq!(part.node, node(n));
        let config = &part.workflow.nodes[0].config;
        assert_eq!(*config, format!("{{\"path\":\"/host-{n}.db\"}}"));
        // All in one pipe, without a stream.
        assert_eq!((part.workflow.nodes.len(), part.workflow.pipes.len()), (3, 1));
    }
    assert_eq!(compiled.streams().count(), 0);
}

#[test]
fn many_send_to_one() {
    for (to, streams) in [("hub", 3), ("gw-2", 2)] {
        let compiled = cut(&text("daemon = \"name:gw-*\"", "", &format!("daemon = \"{to}\"")));
        let at = compiled.parts.iter().find(|part| part.daemon == to).unwrap();
        let workflow = &at.workflow;
        let incoming: BTreeSet<_> = compiled
            .streams()
            .map(|stream| (stream.producer, stream.stream))
            .collect();
        // One from each, with an id of its own; who is there itself needs none.
        assert_eq!((incoming.len(), compiled.streams().count()), (streams, streams), "{to}");
        assert!(
            compiled
                .streams()
                .all(|stream| stream.consumer == at.node && stream.edge == "big->out")
        );
        let out = workflow.nodes.iter().position(|node| node.id == "out").unwrap();
        for pipe in &workflow.pipes {
            let sinks = pipe.steps.iter().filter_map(|step| match step.action {
                Action::Sink(node) => Some(usize::from(node)),
                _ => None,
            });
            assert!(sinks.eq([out]), "{to}: {pipe:?}");
            if let Root::Source(source) = pipe.root {
                assert_eq!(workflow.nodes[usize::from(source)].id, "db");
            }
        }
        assert_eq!(workflow.pipes.len(), 3, "{to}");
    }
}

#[test]
fn what_cannot_be_is_told() {
    let here = "daemon = \"name:gw-*\"";
    for (text, expected) in [
        (
            text(
                "daemon = \"name:gw-*\"\ntable = \"{{ label.line }}\"",
                "",
                "daemon = \"hub\"",
            ),
            "6 sources.db.table: daemon 'gw-3' has no label 'line' | give it one: mycelial daemon label gw-3 line=VALUE",
        ),
        (
            text("daemon = \"site=mars\"", "", "daemon = \"hub\""),
            "5 sources.db.daemon: 'site=mars' chooses no daemon | see: mycelial daemon list -l 'site=mars'",
        ),
        (
            text("daemon = \"color:red\"", "", "daemon = \"hub\""),
            "5 sources.db.daemon: 'color:red' is no term of a selector",
        ),
        (
            text("daemon = \"hub\"", "", here),
            "13 destinations.out.from: records go from one daemon ('big') to those that 'name:gw-*' chooses: to which of them \
             is not said | let both run on the same selector, name one daemon where records shall arrive, or let all of \
             them share it: share = { by = [\"device\"] }",
        ),
        (
            text("daemon = \"label:line\"", "", here),
            "13 destinations.out.from: records go from the daemons that 'label:line' chooses ('big') to those that 'name:gw-*' \
             chooses: to which of them is not said | let both run on the same selector, name one daemon where records \
             shall arrive, or let all of them share it: share = { by = [\"device\"] }",
        ),
    ] {
        assert_eq!(problems(&text), [expected], "{text}");
    }
    // A mistake of all copies is told once; one of each copy, each time.
    assert_eq!(
        problems(&text("daemon = \"name:*\"\nspeed = 1", "", "daemon = \"name:*\"")).len(),
        1
    );
    let wrong = problems(&text(
        "daemon = \"name:*\"\ntable = \"{{ label.line }}\"",
        "",
        "daemon = \"hub\"",
    ));
    assert_eq!(wrong.len(), 2, "{wrong:?}");
}

#[test]
fn groups_stand_side_by_side() {
    // Two groups with sources of their own, and one place where all arrives.
    let text = "name = \"a\"\n[sources.m]\ntype = \"metrics\"\ndaemon = \"name:gw-*\"\n[sources.db]\ntype = \"sqlite\"\n\
                daemon = \"label:line\"\npath = \"/{{ label.line }}\"\n[transforms.all]\ntype = \"merge\"\ndaemon = \"hub\"\n\
                from = [\"m\", \"db\"]\n[destinations.out]\ntype = \"stdout\"\nfrom = \"all\"\ndaemon = \"hub\"\n";
    let compiled = cut(text);
    assert_eq!(compiled.parts.len(), 4);
    let edges: Vec<_> = compiled.streams().map(|stream| stream.edge.as_str()).collect();
    assert_eq!(edges.iter().filter(|edge| **edge == "m->all").count(), 3);
    assert_eq!(edges.iter().filter(|edge| **edge == "db->all").count(), 2);
    assert_eq!(edges.len(), 5);
    // What a daemon gets of both groups is one part.
    let first = &compiled.parts[0].workflow;
    assert_eq!((first.nodes.len(), first.pipes.len()), (2, 2));
}
