//! Named outputs: a node that reads `from = "split.hot"` reads from a node of its own, `split.hot`, which reads from `split`
//! and is told in its config which output it is. Makes these nodes of the text, so that nobody else needs to know of outputs;
//! and says what is wrong with the use of outputs once it is known which components have any. Knows no fleet.
//!
//! A component has outputs when its schema says under which key of its config they are named (`"x-outputs": "outputs"`).

use bus_schema::plan::ComponentRole;
use serde_json::Value;

use crate::spec::{Node, Spec};

/// Between a node and its output. Names of nodes have none.
const DOT: char = '.';
/// The key that tells a node which output it is.
const OUTPUT_KEY: &str = "output";
/// The output of what belongs to no other, which nobody has to name, or to read.
pub(crate) const ELSE: &str = "else";

/// Adds a node for every output that somebody reads, behind the one whose output it is.
pub(crate) fn expand(spec: &mut Spec) {
    let mut at = 0;
    while at < spec.nodes.len() {
        let outputs = read_outputs(&spec.nodes, &spec.nodes[at]);
        let mut made = Vec::with_capacity(outputs.len());
        for output in outputs {
            let base = &spec.nodes[at];
            let mut config = base.config.clone();
            config.insert(OUTPUT_KEY.to_string(), Value::String(output.clone()));
            made.push(Node {
                id: format!("{}{DOT}{output}", base.id),
                role: base.role,
                component: base.component.clone(),
                daemon: None,
                from: vec![base.id.clone()],
                spool: None,
                send: None,
                share: None,
                config,
            });
        }
        let next = at + 1 + made.len();
        spec.nodes.splice(at + 1..at + 1, made);
        at = next;
    }
}

/// The outputs of a node that somebody reads, each once.
fn read_outputs(nodes: &[Node], base: &Node) -> Vec<String> {
    let mut outputs: Vec<String> = Vec::new();
    if base.role != ComponentRole::Transform || of(&base.id).is_some() {
        return outputs;
    }
    for from in nodes.iter().flat_map(|node| &node.from) {
        if let Some((node, output)) = of(from)
            && node == base.id
            && !outputs.iter().any(|known| known == output)
        {
            outputs.push(output.to_string());
        }
    }
    outputs
}

/// The node and the output that a name stands for; `None` when it is a node's.
pub(crate) fn of(name: &str) -> Option<(&str, &str)> {
    name.split_once(DOT)
}

/// Under which key a node's config names its outputs, by the schema of its component, and these; `None` for one that has none.
pub(crate) fn named<'a>(schema: &'a Value, node: &'a Node) -> Option<(&'a str, Vec<&'a str>)> {
    let key = schema.get("x-outputs")?.as_str()?;
    let outputs = node.config.get(key).and_then(Value::as_object);
    let names = outputs
        .into_iter()
        .flat_map(|outputs| outputs.keys().map(String::as_str));
    Some((key, names.collect()))
}
