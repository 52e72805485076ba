//! How workflows are cut, from `compile.txt`: a sketch, and the pipes of each daemon.
//! `UPDATE=1 cargo test -p workflow --test compile` writes the present result into the table; read the difference.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{fmt::Write as _, fs, path::PathBuf};

use bus_schema::{
    id::{StreamId, WorkflowId},
    plan::{Action, ComponentRole, Root, SpoolPolicy, WhenFull},
};
use common::{alone, fleet, node, toml_of};
use workflow::{Compiled, Part, compile, validate};

fn cut(sketch: &str, lonely: bool) -> Compiled {
    let text = toml_of(sketch);
    let fleet = if lonely { alone() } else { fleet() };
    let spec = validate(&text, &fleet).unwrap_or_else(|problems| panic!("{text}\n{problems:#?}"));
    compile(&spec, &fleet, 3).unwrap()
}

/// The pipes as trees: `=` is a destination, `~` a stream.
fn shown(compiled: &Compiled) -> String {
    let mut out = String::new();
    for part in &compiled.parts {
        let name = |index: u16| part.workflow.nodes[usize::from(index)].id.as_str();
        for pipe in &part.workflow.pipes {
            let root = match &pipe.root {
                Root::Source(index) => name(*index),
                Root::Stream(stream) => stream.edge.as_str(),
            };
            writeln!(out, "! {}: {root}", part.daemon).unwrap();
            let mut depths: Vec<usize> = Vec::new();
            for step in &pipe.steps {
                let depth = step.after.map_or(1, |after| depths[usize::from(after)] + 1);
                depths.push(depth);
                let streams = step.action.streams().iter().map(|stream| {
                    let to = compiled.parts.iter().find(|part| part.node == stream.consumer).unwrap();
                    let default = SpoolPolicy::default();
                    let spool = if stream.spool == default { "" } else { " (own spool)" };
                    format!("~ {} to {}{spool}", stream.edge, to.daemon)
                });
                let what = match &step.action {
                    Action::Transform(index) => name(*index).to_string(),
                    Action::Sink(index) => format!("= {}", name(*index)),
                    Action::Stream(_) | Action::Tracks(_) => streams.collect::<Vec<_>>().join(", or "),
                };
                writeln!(out, "! {}{what}", "  ".repeat(depth)).unwrap();
            }
        }
    }
    out
}

#[test]
fn workflows_are_cut_as_the_table_says() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/compile.txt");
    let table = fs::read_to_string(&path).unwrap();
    let (mut wrong, mut updated) = (String::new(), String::new());
    for (number, block) in table.split("\n## ").enumerate() {
        if number == 0 {
            updated += block;
            continue;
        }
        let title = block.lines().next().unwrap();
        let pick = |mark: &str| {
            let lines = block.lines().filter(|line| line.starts_with(mark));
            lines.fold(String::new(), |text, line| text + line.trim_start_matches("+ ") + "\n")
        };
        let (sketch, expected) = (pick("+ "), pick("! "));
        let found = shown(&cut(&sketch, title.starts_with("alone")));
        if found != expected {
            write!(
                wrong,
                "\n## {title}\n{sketch}--- expected\n{expected}--- found\n{found}"
            )
            .unwrap();
        }
        let kept: Vec<&str> = block.lines().filter(|line| !line.starts_with("! ")).collect();
        write!(updated, "\n## {}\n{found}", kept.join("\n").trim_end()).unwrap();
    }
    if std::env::var_os("UPDATE").is_some() {
        fs::write(path, updated).unwrap();
    } else {
        assert!(wrong.is_empty(), "{wrong}");
    }
}

#[test]
fn a_part_says_all_a_daemon_needs() {
    let compiled = cut("metrics m@gateway\nfilter f < m\nstdout out@hub < f spool\n", false);
    let id = WorkflowId::of_name("sketch");
    assert_eq!((compiled.id, compiled.name.as_str()), (id, "sketch"));
    let [gateway, hub] = compiled.parts.as_slice() else {
        panic!("two parts")
    };
    assert_eq!((gateway.daemon.as_str(), gateway.node), ("gateway", node(1)));
    assert_eq!((hub.daemon.as_str(), hub.node), ("hub", node(2)));
    for Part { workflow, .. } in &compiled.parts {
        assert_eq!(
            (workflow.id, workflow.name.as_str(), workflow.revision),
            (id, "sketch", 3)
        );
    }
    let filter = &gateway.workflow.nodes[1];
    assert_eq!(
        (filter.id.as_str(), filter.role, filter.component.as_str()),
        ("f", ComponentRole::Transform, "filter")
    );
    assert_eq!(filter.config, r#"{"expression":"x"}"#);

    let streams: Vec<_> = compiled.streams().collect();
    let [stream] = streams.as_slice() else {
        panic!("one stream")
    };
    assert_eq!(stream.stream, StreamId::of_edge(&id, "f->out", &node(1), &node(2)));
    assert_eq!(
        (stream.edge.as_str(), stream.producer, stream.consumer),
        ("f->out", node(1), node(2))
    );
    assert_eq!(
        stream.spool,
        SpoolPolicy {
            quota_bytes: 16 << 20,
            when_full: WhenFull::DropNewest
        }
    );
}
