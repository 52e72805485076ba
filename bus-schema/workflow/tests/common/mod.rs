//! A small fleet for tests: `gateway` and `hub` have announced what they can run, `late` never has.

#![allow(dead_code, reason = "each test file uses its own part")]

use std::sync::Arc;

use bus_schema::{
    api::Problem,
    id::NodeId,
    plan::{ComponentRole, Descriptor},
};
use workflow::Fleet;

pub fn node(n: u8) -> NodeId {
    NodeId::from_hash(&[n; 32])
}

pub fn descriptor(role: ComponentRole, name: &str, inputs_max: u16, schema: &str) -> Descriptor {
    Descriptor {
        role,
        name: name.to_string(),
        summary: String::new(),
        schema: schema.to_string(),
        example: String::new(),
        inputs_max,
        durable: true,
    }
}

const TABLE: &str = r#"{"type":"object","additionalProperties":false,"required":["path"],"properties":{
    "path":{"type":"string","description":"Where the database file is."},
    "table":{"type":"string"},
    "mode":{"type":"string"},
    "batch_rows":{"type":"integer","format":"uint32","minimum":1,"maximum":1000}}}"#;
const EXPRESSION: &str = r#"{"type":"object","additionalProperties":false,"required":["expression"],"properties":{
    "expression":{"type":"string"}}}"#;
const NOTHING: &str = r#"{"type":"object","additionalProperties":false}"#;

pub fn components() -> Vec<Descriptor> {
    use ComponentRole::{Destination, Source, Transform};
    vec![
        descriptor(Source, "sqlite", 0, TABLE),
        descriptor(Source, "metrics", 0, NOTHING),
        descriptor(Transform, "filter", 1, EXPRESSION),
        descriptor(Transform, "pair", 2, NOTHING),
        descriptor(Transform, "merge", 0, NOTHING),
        descriptor(Destination, "sqlite", 0, TABLE),
        descriptor(Destination, "stdout", 0, NOTHING),
        descriptor(Destination, "single", 1, NOTHING),
    ]
}

pub fn fleet() -> Fleet {
    let mut hub = components();
    hub.push(descriptor(ComponentRole::Source, "opcua", 0, NOTHING));
    hub.push(descriptor(ComponentRole::Source, "broken", 0, "{"));
    let mut fleet = Fleet::new();
    fleet.insert("gateway", node(1), Some(components().into()));
    fleet.insert("hub", node(2), Some(hub.into()));
    fleet.insert("late", node(3), None);
    fleet
}

pub fn alone() -> Fleet {
    Fleet::single("here", node(9), Arc::from(components()))
}

/// `7 sources.db.path: message | hint`, line by line.
pub fn told(problems: &[Problem]) -> Vec<String> {
    let one = |problem: &Problem| {
        let hint = if problem.hint.is_empty() {
            String::new()
        } else {
            format!(" | {}", problem.hint)
        };
        format!("{} {}: {}{hint}", problem.line, problem.place, problem.message)
    };
    problems.iter().map(one).collect()
}

/// A sketched workflow as TOML. One node a line: `<type> <name>[@<daemon>] [< <from>…] [live] [spool]`.
pub fn toml_of(sketch: &str) -> String {
    sketch
        .lines()
        .fold("name = \"sketch\"\n".to_string(), |toml, line| toml + &node_toml(line))
}

fn node_toml(line: &str) -> String {
    let (line, spool) = match line.strip_suffix(" spool") {
        Some(line) => (line, "spool = { quota = \"16MiB\", when_full = \"drop_newest\" }\n"),
        None => (line, ""),
    };
    let (line, send) = match line.strip_suffix(" live") {
        Some(line) => (line, "send = { live_first = true }\n"),
        None => (line, ""),
    };
    let (head, from) = line
        .split_once(" < ")
        .map_or((line, None), |(head, from)| (head, Some(from)));
    let (component, name) = head.split_once(' ').unwrap();
    let (name, daemon) = name
        .split_once('@')
        .map_or((name, None), |(name, daemon)| (name, Some(daemon)));
    let section = match component {
        "metrics" => "sources",
        "filter" | "merge" => "transforms",
        _ => "destinations",
    };
    let mut out = format!("[{section}.{name}]\ntype = \"{component}\"\n{spool}{send}");
    if component == "filter" {
        out += "expression = \"x\"\n";
    }
    out += &daemon.map_or_else(String::new, |daemon| format!("daemon = \"{daemon}\"\n"));
    out + &from.map_or_else(String::new, |from| {
        let names: Vec<String> = from.split(' ').map(|name| format!("\"{name}\"")).collect();
        format!("from = [{}]\n", names.join(", "))
    })
}
