//! Nodes with several outputs, and those that must stand on one way only.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::fmt::Write as _;

use bus_schema::plan::{Action, ComponentRole, Root};
use common::{components, descriptor, node, told};
use workflow::{Fleet, compile, validate};

const ROUTE: &str = r#"{"type":"object","additionalProperties":false,"required":["outputs"],"x-outputs":"outputs",
    "properties":{"outputs":{"type":"object"},"output":{"type":"string"}}}"#;
const REMEMBERS: &str = r#"{"type":"object","additionalProperties":false,"x-remembers":true}"#;

fn fleet() -> Fleet {
    let mut all = components();
    all.push(descriptor(ComponentRole::Transform, "route", 1, ROUTE));
    all.push(descriptor(ComponentRole::Transform, "sum", 1, REMEMBERS));
    let mut fleet = Fleet::new();
    fleet.insert("gateway", node(1), Some(all.clone().into()));
    fleet.insert("hub", node(2), Some(all.into()));
    fleet
}

/// A node as `<section>.<name>: <type> <keys>`, with `gateway` for sources and `hub` for destinations.
fn text(nodes: &[&str]) -> String {
    let mut text = "name = \"w\"\n".to_string();
    for node in nodes {
        let (head, keys) = node.split_once(": ").unwrap();
        let (component, keys) = keys.split_once(' ').unwrap_or((keys, ""));
        let daemon = match head.split('.').next() {
            Some("sources") => "daemon = \"gateway\"",
            Some("destinations") => "daemon = \"hub\"",
            _ => "",
        };
        let keys = keys.replace("; ", "\n");
        write!(text, "[{head}]\ntype = \"{component}\"\n{daemon}\n{keys}\n").unwrap();
    }
    text
}

/// The gateway's pipe from the source: its transforms and streams, and what they come after.
fn steps(nodes: &[&str]) -> Vec<String> {
    let fleet = fleet();
    let spec = validate(&text(nodes), &fleet).unwrap_or_else(|problems| panic!("{:#?}", told(&problems)));
    let compiled = compile(&spec, &fleet, 1).unwrap();
    let workflow = &compiled.parts[0].workflow;
    let pipe = workflow
        .pipes
        .iter()
        .find(|pipe| matches!(pipe.root, Root::Source(_)))
        .unwrap();
    let name = |action: &Action| match action {
        Action::Transform(index) => {
            let node = &workflow.nodes[usize::from(*index)];
            format!("{} {}", node.id, node.config)
        }
        Action::Stream(spec) => format!("~ {}", spec.edge),
        other => panic!("{other:?}"),
    };
    let steps = pipe.steps.iter();
    steps
        .map(|step| format!("{:?} {}", step.after, name(&step.action)))
        .collect()
}

#[test]
fn an_output_is_a_node_behind_its_own() {
    let mut found = steps(&[
        "sources.a: metrics",
        "transforms.r: route from = \"a\"; outputs = { hot = \"x\", cold = \"y\" }",
        "transforms.f: filter from = [\"r.hot\"]; expression = \"z\"",
        "destinations.one: stdout from = [\"f\", \"r.else\"]",
        "destinations.two: stdout from = [\"r.cold\", \"r.hot\"]",
    ]);
    // The order in which steps stand is the compiler's business, as long as each comes after the one it reads from.
    let place = |name: &str| {
        found
            .iter()
            .position(|step| step.split(' ').nth(1) == Some(name))
            .unwrap()
    };
    let after = |name: &str| format!("Some({})", place(name));
    let outputs = r#"{"outputs":{"hot":"x","cold":"y"}"#;
    let mut expected = vec![
        format!("None r {outputs}}}"),
        format!("{} r.hot {outputs},\"output\":\"hot\"}}", after("r")),
        format!("{} r.else {outputs},\"output\":\"else\"}}", after("r")),
        format!("{} r.cold {outputs},\"output\":\"cold\"}}", after("r")),
        format!("{} f {{\"expression\":\"z\"}}", after("r.hot")),
        format!("{} ~ f->one", after("f")),
        format!("{} ~ r.else->one", after("r.else")),
        format!("{} ~ r.hot->two", after("r.hot")),
        format!("{} ~ r.cold->two", after("r.cold")),
    ];
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
}

#[test]
fn mistakes_with_outputs_are_named() {
    let route = "transforms.r: route from = \"a\"; outputs = { hot = \"x\" }";
    for (nodes, expected) in [
        (
            vec![route, "destinations.o: stdout from = [\"r.hot\", \"r.else\"]"],
            vec![],
        ),
        (
            vec![route, "destinations.o: stdout from = \"r\""],
            vec![
                "destinations.o.from: 'r' has several outputs | read from 'r.hot' or 'r.else'",
                "transforms.r.outputs.hot: nothing reads from 'r.hot': its records would go nowhere | let a transform or a \
                 destination read from it, or remove it",
            ],
        ),
        (
            vec![route, "destinations.o: stdout from = [\"r.hit\", \"r.hot\"]"],
            vec!["destinations.o.from: 'r' has no output 'hit' | did you mean 'hot'?"],
        ),
        (
            vec![
                "transforms.m: merge from = \"a\"",
                "destinations.o: stdout from = \"m.hot\"",
            ],
            vec!["destinations.o.from: 'm' has no outputs to choose from | read from 'm'"],
        ),
        (
            vec!["destinations.o: stdout from = [\"a\", \"x.hot\"]"],
            vec!["destinations.o.from[1]: there is no node 'x.hot' | nodes to read from: a"],
        ),
        (
            vec!["destinations.o: stdout from = [\"a\", \"a.hot\"]"],
            vec!["destinations.o.from[1]: there is no node 'a.hot' | nodes to read from: a"],
        ),
        // What remembers stands on one way.
        (
            vec![
                "sources.b: metrics",
                "transforms.m: merge from = [\"a\", \"b\"]",
                "transforms.s: sum from = \"m\"",
                "destinations.o: stdout from = \"s\"",
            ],
            vec![
                "transforms.s.from: records come to 's' on 2 ways, and it would work on each by itself | use one for each \
                 source, before they are merged; 'live_first' makes two ways of one",
            ],
        ),
        (
            vec![
                "sources.b: metrics",
                "transforms.s: sum from = \"a\"",
                "transforms.m: merge from = [\"s\", \"b\"]",
                "destinations.o: stdout from = \"m\"",
            ],
            vec![],
        ),
    ] {
        let nodes: Vec<&str> = std::iter::once("sources.a: metrics").chain(nodes).collect();
        let mut found = match validate(&text(&nodes), &fleet()) {
            Ok(_) => Vec::new(),
            Err(problems) => told(&problems),
        };
        // Without the lines, which this text makes up.
        found
            .iter_mut()
            .for_each(|line| *line = line.split_once(' ').unwrap().1.to_string());
        found.sort();
        let mut expected: Vec<String> = expected.into_iter().map(str::to_string).collect();
        expected.sort();
        assert_eq!(found, expected, "{nodes:#?}");
    }
}
