//! Nodes that take the records of several inputs together: each way that comes in ends there as at a destination, and one begins
//! there as at a source. Says which components are such, and what is wrong with the use of one. Knows no fleet.
//!
//! A component is one when its schema says under which key of its config the inputs stand, by name (`"x-joins": "inputs"`).

use bus_schema::plan::{ComponentRole, Descriptor};
use serde_json::Value;

use crate::{
    spec::Node,
    words::{clip, quoted},
};

/// The word in the schema.
const WORD: &str = "x-joins";

/// Under which key of its config a component's inputs stand; `None` for all others.
pub(crate) fn key(descriptor: &Descriptor) -> Option<String> {
    // Nearly none is one, and schemas are long.
    if descriptor.role != ComponentRole::Transform || !descriptor.schema.contains(WORD) {
        return None;
    }
    let schema: Value = serde_json::from_str(&descriptor.schema).ok()?;
    Some(schema.get(WORD)?.as_str()?.to_string())
}

/// What is wrong with what stands under that key: message and hint.
pub(crate) fn misfit(node: &Node, key: &str, inputs: usize) -> Option<(String, String)> {
    let named = node.config.get(key).and_then(Value::as_object)?;
    let is_same =
        named.len() == inputs && node.from.len() == inputs && node.from.iter().all(|from| named.contains_key(from));
    (!is_same).then(|| {
        let message = format!(
            "'{}' reads from {}, and '{key}' names {}",
            clip(&node.id),
            quoted(node.from.iter().map(String::as_str)),
            quoted(named.keys().map(String::as_str)),
        );
        let hint = format!("name the same {inputs} nodes in 'from' and under '{key}'");
        (message, hint)
    })
}
