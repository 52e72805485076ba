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
        let hint = if problem.hint.is_empty() { String::new() } else { format!(" | {}", problem.hint) };
        format!("{} {}: {}{hint}", problem.line, problem.place, problem.message)
    };
    problems.iter().map(one).collect()
}
