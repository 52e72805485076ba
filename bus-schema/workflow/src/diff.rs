//! What differs between two texts of a workflow, by what they mean: nodes that come and go, fields that change. Order, white
//! space and comments do not matter.

use std::collections::BTreeMap;

use bus_schema::api::{Changed, FieldDiff, NodeDiff};
use serde_json::Value;

use crate::{
    outputs,
    spec::{Node, Spec},
};

/// What has to change of `old` to make it `new`, by node. Without an old one everything is new.
pub fn diff(old: Option<&Spec>, new: &Spec) -> Vec<NodeDiff> {
    // An output's node says nothing that its node does not say.
    let real = |spec: &'_ Spec| -> BTreeMap<(u8, String), Node> {
        let nodes = spec.nodes.iter().filter(|node| outputs::of(&node.id).is_none());
        nodes
            .map(|node| ((node.role as u8, node.id.clone()), node.clone()))
            .collect()
    };
    let (before, after) = (old.map(real).unwrap_or_default(), real(new));
    let mut keys: Vec<_> = before.keys().chain(after.keys()).cloned().collect();
    keys.sort();
    keys.dedup();
    let compared = keys.iter().filter_map(|key| {
        let (before, after) = (before.get(key), after.get(key));
        let node = after.or(before)?;
        let change = match (before, after) {
            (None, _) => Changed::Added,
            (_, None) => Changed::Removed,
            _ => Changed::Changed,
        };
        let fields = compare(
            before.map(fields_of).unwrap_or_default(),
            after.map(fields_of).unwrap_or_default(),
        );
        (change != Changed::Changed || !fields.is_empty()).then(|| NodeDiff {
            node: node.id.clone(),
            role: node.role,
            change,
            fields,
        })
    });
    compared.collect()
}

/// All that is said of a node, as JSON by key; tables of its config by dotted keys.
fn fields_of(node: &Node) -> BTreeMap<String, String> {
    let mut fields = BTreeMap::from([("type".to_string(), Value::from(node.component.as_str()).to_string())]);
    fields.extend(
        node.daemon
            .as_deref()
            .map(|daemon| ("daemon".to_string(), Value::from(daemon).to_string())),
    );
    if !node.from.is_empty() {
        fields.insert("from".to_string(), Value::from(node.from.clone()).to_string());
    }
    fields.extend(node.spool.map(|spool| {
        let text = format!("quota {} bytes, when full {:?}", spool.quota_bytes, spool.when_full);
        ("spool".to_string(), text.to_lowercase())
    }));
    fields.extend(node.send.as_ref().map(|send| ("send".to_string(), format!("{send:?}"))));
    fields.extend(node.share.as_ref().map(|share| {
        let (by, parts, seconds) = (share.by.join(", "), share.parts, share.move_after_s);
        (
            "share".to_string(),
            format!("by {by}, {parts} parts, moved after {seconds} s"),
        )
    }));
    for (key, value) in &node.config {
        flatten(key, value, &mut fields);
    }
    fields
}

fn flatten(key: &str, value: &Value, fields: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(table) if !table.is_empty() => {
            for (inner, value) in table {
                flatten(&format!("{key}.{inner}"), value, fields);
            }
        }
        _ => drop(fields.insert(key.to_string(), value.to_string())),
    }
}

fn compare(mut before: BTreeMap<String, String>, after: BTreeMap<String, String>) -> Vec<FieldDiff> {
    let mut fields = Vec::new();
    for (field, after) in after {
        let before = before.remove(&field);
        if before.as_ref() != Some(&after) {
            fields.push(FieldDiff {
                field,
                before,
                after: Some(after),
            });
        }
    }
    fields.extend(before.into_iter().map(|(field, before)| FieldDiff {
        field,
        before: Some(before),
        after: None,
    }));
    fields.sort_by(|a, b| a.field.cmp(&b.field));
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(rest: &str) -> Spec {
        crate::parse(&format!("name = \"a\"\n{rest}")).unwrap_or_else(|problems| panic!("{problems:#?}"))
    }

    #[test]
    fn by_meaning_not_by_letters() {
        let base = "[sources.db]\ntype = \"sqlite\"\ndaemon = \"gw\"\npath = \"/a\"\nhttp = { port = 1, tls = true }\n\
                    [destinations.out]\ntype = \"file\"\ndaemon = \"hub\"\nfrom = \"db\"\n";
        let shown = |new: &str| -> Vec<String> {
            let one = |node: &NodeDiff| {
                let fields = node.fields.iter().map(|field| {
                    let side = |text: &Option<String>| text.clone().unwrap_or("-".into());
                    format!("{} {} {}", field.field, side(&field.before), side(&field.after))
                });
                format!(
                    "{:?} {}: {}",
                    node.change,
                    node.node,
                    fields.collect::<Vec<_>>().join(", ")
                )
            };
            diff(Some(&spec(base)), &spec(new)).iter().map(one).collect()
        };
        let none: [&str; 0] = [];
        assert_eq!(shown(base), none);
        assert_eq!(
            shown(&format!(
                "# a comment\n{}",
                base.replace("port = 1, tls = true", "tls = true, port = 1")
            )),
            none
        );
        assert_eq!(
            shown(&base.replace("/a", "/b").replace("port = 1, ", "")),
            ["Changed db: http.port 1 -, path \"/a\" \"/b\""]
        );
        assert_eq!(
            shown(&base.replace("[destinations.out]", "[destinations.other]")),
            [
                "Added other: daemon - \"hub\", from - [\"db\"], type - \"file\"",
                "Removed out: daemon \"hub\" -, from [\"db\"] -, type \"file\" -"
            ]
        );
        assert_eq!(diff(None, &spec(base)).len(), 2);
    }
}
