//! Random workflows: every way from a source to a destination exists exactly once after the cut, and no text panics.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::{BTreeMap, BTreeSet};

use bus_schema::plan::{Action, Pipe, Root, Step, StreamSpec};
use common::{alone, fleet, toml_of};
use proptest::prelude::*;
use workflow::{Compiled, Part, Spec, compile, parse, validate};

const DAEMONS: [&str; 2] = ["gateway", "hub"];

/// A node as proptest draws it; indices are taken modulo what there is.
#[derive(Debug, Clone)]
struct Drawn {
    kind: u8,
    daemon: u8,
    from: Vec<u8>,
    spool: bool,
    live: bool,
}

fn drawn() -> impl Strategy<Value = Drawn> {
    (
        any::<u8>(),
        any::<u8>(),
        prop::collection::vec(any::<u8>(), 1..4),
        any::<bool>(),
        any::<bool>(),
    )
        .prop_map(|(kind, daemon, from, spool, live)| Drawn {
            kind,
            daemon,
            from,
            spool,
            live,
        })
}

/// A workflow without problems. Nodes read from nodes before them; what nobody reads goes into the last destination.
fn sketch(sources: &[Drawn], transforms: &[Drawn], destinations: &[Drawn]) -> String {
    let daemon = |drawn: &Drawn| DAEMONS[usize::from(drawn.daemon) % DAEMONS.len()];
    let mut lines = Vec::new();
    // Name and daemon of all that can be read.
    let mut readable: Vec<(String, &str)> = Vec::new();
    let mut read = BTreeSet::new();
    for (index, source) in sources.iter().enumerate() {
        readable.push((format!("s{index}"), daemon(source)));
        lines.push(format!("metrics s{index}@{}", daemon(source)));
    }
    for (index, transform) in transforms.iter().enumerate() {
        let is_merge = transform.kind % 2 == 0;
        let wanted = if is_merge { transform.from.len() } else { 1 };
        let from: BTreeSet<usize> = transform.from[..wanted]
            .iter()
            .map(|from| usize::from(*from) % readable.len())
            .collect();
        let inputs: BTreeSet<&str> = from.iter().map(|from| readable[*from].1).collect();
        // Without an own daemon where that is possible, half of the time.
        let follows = inputs.len() == 1 && transform.kind % 4 < 2;
        let here = if follows {
            readable[*from.first().unwrap()].1
        } else {
            daemon(transform)
        };
        let at = if follows { String::new() } else { format!("@{here}") };
        let crosses = inputs.iter().any(|input| *input != here);
        let names: Vec<&str> = from.iter().map(|from| readable[*from].0.as_str()).collect();
        let spool = if transform.spool && crosses { " spool" } else { "" };
        let live = if transform.live && crosses { " live" } else { "" };
        let component = if is_merge { "merge" } else { "filter" };
        lines.push(format!("{component} t{index}{at} < {}{live}{spool}", names.join(" ")));
        read.extend(names.iter().map(ToString::to_string));
        readable.push((format!("t{index}"), here));
    }
    for (index, destination) in destinations.iter().enumerate() {
        let mut names: BTreeSet<String> = destination
            .from
            .iter()
            .map(|from| readable[usize::from(*from) % readable.len()].0.clone())
            .collect();
        read.extend(names.iter().cloned());
        if index + 1 == destinations.len() {
            names.extend(
                readable
                    .iter()
                    .map(|(name, _)| name.clone())
                    .filter(|name| !read.contains(name)),
            );
        }
        let is_elsewhere = |name: &String| {
            let found = readable.iter().find(|(other, _)| other == name);
            found.is_some_and(|(_, there)| *there != daemon(destination))
        };
        let live = if destination.live && names.iter().any(is_elsewhere) {
            " live"
        } else {
            ""
        };
        let names: Vec<String> = names.into_iter().collect();
        let spool = if destination.spool { " spool" } else { "" };
        lines.push(format!(
            "stdout d{index}@{} < {}{live}{spool}",
            daemon(destination),
            names.join(" ")
        ));
    }
    lines.join("\n")
}

/// Every way from a source to a destination, by node names.
fn ways_of_spec(spec: &Spec) -> Vec<Vec<String>> {
    fn back(spec: &Spec, node: &str) -> Vec<Vec<String>> {
        let from = &spec.node(node).unwrap().from;
        if from.is_empty() {
            return vec![vec![node.to_string()]];
        }
        let mut ways: Vec<Vec<String>> = from.iter().flat_map(|from| back(spec, from)).collect();
        ways.iter_mut().for_each(|way| way.push(node.to_string()));
        ways
    }
    let ends = spec.nodes().iter().filter(|node| node.id.starts_with('d'));
    let mut ways: Vec<Vec<String>> = ends.flat_map(|node| back(spec, &node.id)).collect();
    ways.sort();
    ways
}

/// The same, followed through pipes and streams.
fn ways_of_plan(compiled: &Compiled) -> Vec<Vec<String>> {
    fn follow(compiled: &Compiled, part: &Part, pipe: &Pipe, way: &[String], out: &mut Vec<Vec<String>>) {
        let name = |index: u16| part.workflow.nodes[usize::from(index)].id.clone();
        let mut ways: Vec<Vec<String>> = Vec::new();
        for step in &pipe.steps {
            let mut way = step
                .after
                .map_or_else(|| way.to_vec(), |after| ways[usize::from(after)].clone());
            match &step.action {
                Action::Transform(index) => way.push(name(*index)),
                Action::Sink(index) => {
                    way.push(name(*index));
                    out.push(way.clone());
                }
                // Both tracks lead the same ways.
                Action::Stream(stream) | Action::Tracks([stream, _]) => {
                    let (part, pipe) = end_of(compiled, stream);
                    follow(compiled, part, pipe, &way, out);
                }
            }
            ways.push(way);
        }
    }
    let mut out = Vec::new();
    for part in &compiled.parts {
        for pipe in &part.workflow.pipes {
            if let Root::Source(index) = pipe.root {
                let source = part.workflow.nodes[usize::from(index)].id.clone();
                follow(compiled, part, pipe, &[source], &mut out);
            }
        }
    }
    out.sort();
    out
}

/// The only pipe that begins with a stream.
fn end_of<'a>(compiled: &'a Compiled, stream: &StreamSpec) -> (&'a Part, &'a Pipe) {
    let all = compiled
        .parts
        .iter()
        .flat_map(|part| part.workflow.pipes.iter().map(move |pipe| (part, pipe)));
    let found: Vec<_> = all
        .filter(|(_, pipe)| pipe.root == Root::Stream(stream.clone()))
        .collect();
    assert_eq!(found.len(), 1, "a stream comes out exactly once");
    assert_eq!(found[0].0.node, stream.consumer);
    found[0]
}

/// What each pipe promises, whatever the workflow.
fn pipes_obey(compiled: &Compiled, spec: &Spec) {
    let mut produced = BTreeMap::new();
    let mut placed = Vec::new();
    for part in &compiled.parts {
        placed.extend(part.workflow.nodes.iter().map(|node| node.id.clone()));
        for pipe in &part.workflow.pipes {
            let mut read_from = BTreeSet::new();
            for (index, step) in pipe.steps.iter().enumerate() {
                if let Some(after) = step.after {
                    assert!(usize::from(after) < index, "a step comes after the one it reads from");
                    assert!(matches!(pipe.steps[usize::from(after)].action, Action::Transform(_)));
                    read_from.insert(usize::from(after));
                }
            }
            let leaves: Vec<&Action> = (0..pipe.steps.len())
                .filter(|step| !read_from.contains(step))
                .map(|step| &pipe.steps[step].action)
                .collect();
            let sinks = leaves.iter().filter(|leaf| matches!(leaf, Action::Sink(_))).count();
            assert!(!leaves.is_empty());
            assert!(
                leaves.iter().all(|leaf| !matches!(leaf, Action::Transform(_))),
                "a transform leads nowhere"
            );
            assert!(
                sinks == 0 || leaves.len() == 1,
                "a destination shares its pipe with another leaf"
            );
            // A destination that asks for a buffer has a stream right before it.
            if let Some(Step {
                after,
                action: Action::Sink(index),
            }) = pipe.steps.last()
            {
                let asks = spec
                    .node(&part.workflow.nodes[usize::from(*index)].id)
                    .unwrap()
                    .spool
                    .is_some();
                assert!(!asks || (after.is_none() && matches!(pipe.root, Root::Stream(_))));
            }
            for leaf in &leaves {
                for stream in leaf.streams() {
                    assert_eq!(stream.producer, part.node);
                    let known = produced.insert(stream.stream, stream.clone());
                    assert_eq!(known, None, "two streams with one id");
                    obeys(stream, part, leaves.len(), compiled, spec);
                }
            }
        }
    }
    placed.sort();
    let mut all: Vec<String> = spec.nodes().iter().map(|node| node.id.clone()).collect();
    all.sort();
    assert_eq!(placed, all, "every node is on exactly one daemon");
    assert_eq!(
        compiled.streams().count(),
        produced.len(),
        "a stream comes out that nobody produces"
    );
}

/// A stream is there for a reason, and its edge and spool are those of the nodes it joins.
fn obeys(stream: &StreamSpec, part: &Part, leaves: usize, compiled: &Compiled, spec: &Spec) {
    let mut names = stream.edge.rsplit("->").map(|name| name.trim_end_matches("#2"));
    let (to, from) = (names.next().unwrap(), names.next().unwrap());
    let to = spec.node(to).unwrap();
    assert!(to.from.iter().any(|name| name == from), "{} is no edge", stream.edge);
    assert!(part.workflow.nodes.iter().any(|node| node.id == from));
    assert_eq!(stream.spool, to.spool.unwrap_or_default());
    let (end, pipe) = end_of(compiled, stream);
    assert!(end.workflow.nodes.iter().any(|node| node.id == to.id));
    if stream.producer == stream.consumer {
        assert!(leaves > 1 || to.spool.is_some(), "'{}' could be direct", stream.edge);
        assert!(matches!(pipe.steps.as_slice(), [only] if matches!(only.action, Action::Sink(_))));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn every_way_exists_once(
        sources in prop::collection::vec(drawn(), 1..4),
        transforms in prop::collection::vec(drawn(), 0..7),
        destinations in prop::collection::vec(drawn(), 1..4),
    ) {
        let text = toml_of(&sketch(&sources, &transforms, &destinations));
        let fleet = fleet();
        let spec = validate(&text, &fleet).map_err(|problems| TestCaseError::fail(format!("{text}\n{problems:#?}")))?;
        let compiled = compile(&spec, &fleet, 1).unwrap();
        prop_assert_eq!(ways_of_plan(&compiled), ways_of_spec(&spec), "{}", text);
        pipes_obey(&compiled, &spec);
        // The same text gives the same plan.
        prop_assert_eq!(compile(&parse(&text).unwrap(), &fleet, 1).unwrap(), compiled);
    }

    #[test]
    fn no_text_panics(text in any::<String>()) {
        let _ = parse(&text);
        let _ = validate(&text, &alone());
    }

    /// Text made of what workflows are made of goes deeper than noise.
    #[test]
    fn no_jumble_panics(words in prop::collection::vec(prop::sample::select(JUMBLE), 0..60)) {
        let text = words.concat();
        let problems = validate(&text, &fleet()).err().unwrap_or_default();
        let lines = text.lines().count() as u32;
        for problem in &problems {
            prop_assert!(problem.line <= lines, "{problem:?}\n{text}");
            prop_assert!(!problem.message.is_empty());
        }
        // Whole and in steps agree on whether there is anything wrong.
        let stepwise = match parse(&text) {
            Ok(spec) => compile(&spec, &fleet(), 1).map(|_| ()),
            Err(problems) => Err(problems),
        };
        prop_assert_eq!(stepwise.is_err(), !problems.is_empty());
        if let Err(problems) = stepwise {
            prop_assert!(!problems.is_empty());
        }
    }
}

const JUMBLE: &[&str] = &[
    "\n",
    "\n",
    "\n",
    " ",
    "=",
    "\"",
    "{",
    "}",
    "[",
    "]",
    ".",
    ",",
    "name = \"x\"\n",
    "[sources.a]\n",
    "[sources.b]\n",
    "[sources]\n",
    "[transforms.a]\n",
    "[transforms.b]\n",
    "[transforms.c]\n",
    "[destinations.d]\n",
    "[[destinations.e]]\n",
    "type = \"metrics\"\n",
    "type = \"filter\"\n",
    "type = \"merge\"\n",
    "type = \"stdout\"\n",
    "type = \"sqlite\"\n",
    "daemon = \"gateway\"\n",
    "daemon = \"hub\"\n",
    "daemon = \"late\"\n",
    "daemon = \"nowhere\"\n",
    "from = \"a\"\n",
    "from = \"b\"\n",
    "from = [\"a\", \"b\"]\n",
    "from = [\"c\", \"c\"]\n",
    "from = [\"d\"]\n",
    "from = 5\n",
    "from = []\n",
    "expression = \"x\"\n",
    "expression = 1\n",
    "path.a = 1\n",
    "path = []\n",
    "batch_rows = 99999999999999999999\n",
    "batch_rows = -1\n",
    "spool = {}\n",
    "spool = { quota = \"1GiB\" }\n",
    "spool = { quota = [] }\n",
    "x = inf\n",
    "x = 1979-05-27\n",
    "\u{0}",
    "ü",
    "'''",
    "#",
];
