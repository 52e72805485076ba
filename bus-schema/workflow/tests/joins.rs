//! Nodes at which the ways of two inputs end and another one begins.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use bus_schema::plan::{Action, ComponentRole, PlanWorkflow, Root};
use common::{components, descriptor, node, told};
use workflow::{Fleet, compile, validate};

const JOIN: &str = r#"{"type":"object","additionalProperties":false,"required":["inputs"],"x-joins":"inputs",
    "properties":{"inputs":{"type":"object"}}}"#;
const REMEMBERS: &str = r#"{"type":"object","additionalProperties":false,"x-remembers":true}"#;

fn fleet() -> Fleet {
    let mut all = components();
    all.push(descriptor(ComponentRole::Transform, "join", 2, JOIN));
    all.push(descriptor(ComponentRole::Transform, "sum", 1, REMEMBERS));
    let mut fleet = Fleet::new();
    fleet.insert("gateway", node(1), Some(all.clone().into()));
    fleet.insert("hub", node(2), Some(all.into()));
    fleet
}

const SOURCES: &str = "name = \"w\"\n[sources.a]\ntype = \"metrics\"\ndaemon = \"gateway\"\n[sources.b]\ntype = \
                       \"metrics\"\ndaemon = \"gateway\"\n";

/// A join of `a` and `b` by name, and a table on the hub.
fn text(keys: &str, more: &str) -> String {
    format!(
        "{SOURCES}[transforms.j]\ntype = \"join\"\n{keys}\n{more}[destinations.o]\ntype = \"stdout\"\ndaemon = \"gateway\"\nfrom = \
         \"LAST\"\n"
    )
    .replace("LAST", if more.contains("transforms.s") { "s" } else { "j" })
}

const KEYS: &str = "from = [\"a\", \"b\"]\ninputs = { a = 1, b = 2 }";

/// Each pipe of a daemon: its root, and what its steps do.
fn pipes(workflow: &PlanWorkflow) -> Vec<String> {
    let name = |index: &u16| workflow.nodes[usize::from(*index)].id.clone();
    let step = |action: &Action| match action {
        Action::Transform(index) => name(index),
        Action::Sink(index) => format!("({})", name(index)),
        Action::Stream(spec) => format!("~{}", spec.edge),
        Action::Tracks([spec, _]) => format!("~~{}", spec.edge),
    };
    let pipe = |pipe: &bus_schema::plan::Pipe| {
        let root = match &pipe.root {
            Root::Source(index) => name(index),
            Root::Stream(spec) => format!("~{}", spec.edge),
        };
        let steps: Vec<String> = pipe.steps.iter().map(|each| step(&each.action)).collect();
        format!("{root}: {}", steps.join(" "))
    };
    let mut pipes: Vec<String> = workflow.pipes.iter().map(pipe).collect();
    pipes.sort();
    pipes
}

#[test]
fn ways_end_and_begin_at_a_join() {
    let also = "[destinations.p]\ntype = \"stdout\"\ndaemon = \"gateway\"\nfrom = \"a\"\n";
    for (text, expected) in [
        (text(KEYS, ""), vec![vec!["a: (j)", "b: (j)", "j: (o)"]]),
        // What remembers may stand behind it: one way begins there.
        (
            text(KEYS, "[transforms.s]\ntype = \"sum\"\nfrom = \"j\"\n"),
            vec![vec!["a: (j)", "b: (j)", "j: s (o)"]],
        ),
        // One of them goes elsewhere too, by a buffer each.
        (
            text(KEYS, also),
            vec![vec!["a: ~a->j ~a->p", "b: (j)", "j: (o)", "~a->j: (j)", "~a->p: (p)"]],
        ),
        // Somewhere else.
        (
            text(&format!("{KEYS}\ndaemon = \"hub\""), ""),
            vec![
                vec!["a: ~a->j", "b: ~b->j", "~j->o: (o)"],
                vec!["j: ~j->o", "~a->j: (j)", "~b->j: (j)"],
            ],
        ),
    ] {
        let fleet = fleet();
        let spec = validate(&text, &fleet).unwrap_or_else(|problems| panic!("{text}{:#?}", told(&problems)));
        let compiled = compile(&spec, &fleet, 1).unwrap();
        let found: Vec<Vec<String>> = compiled.parts.iter().map(|part| pipes(&part.workflow)).collect();
        assert_eq!(found, expected, "{text}");
    }
}

#[test]
fn its_inputs_are_named_once_more() {
    for (keys, wanted) in [
        (
            "from = [\"a\", \"b\"]\ninputs = { a = 1, c = 2 }",
            "'j' reads from 'a' and 'b', and 'inputs' names 'a' and 'c'",
        ),
        (
            "from = \"a\"\ninputs = { a = 1 }",
            "'j' reads from 'a', and 'inputs' names 'a'",
        ),
        ("from = [\"a\", \"b\"]", "'inputs' is missing"),
    ] {
        // Whatever else is wrong with it.
        let problems = told(&validate(&text(keys, ""), &fleet()).unwrap_err());
        assert!(
            problems.iter().any(|told| told.contains(wanted)),
            "{keys}: {problems:#?}"
        );
    }
}
