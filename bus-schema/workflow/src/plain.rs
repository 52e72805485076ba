//! Secrets that stand in a workflow as they are: whoever may read the text would read them, and so would a copy of the plane's disk.

use std::collections::BTreeSet;

use bus_schema::api::Problem;
use serde_json::{Map, Value};

use crate::{
    fleet::Fleet,
    spec::{Place, Spec},
    template,
};

/// What a component's schema calls a value that may be a secret.
const SECRET: &str = "#/$defs/SecretRef";
/// Deepest nesting of schemas followed: they come from daemons.
const DEPTH_MAX: u32 = 16;
/// What stands here for a value that each daemon fills in.
const FILLED_IN: char = '\0';

/// All of them, of components as any daemon of the fleet has described them: an older one may not know what is a secret. An address counts when a password is in it. Headers and
/// variables, which are named by whoever writes them, do not: most of them are none.
pub fn plain_secrets(spec: &Spec, fleet: &Fleet) -> Vec<Problem> {
    let mut places = Vec::new();
    for node in spec.nodes() {
        let components = fleet.components().map(|(_, descriptor)| descriptor);
        let of_node = components.filter(|found| (found.role, &found.name) == (node.role, &node.component));
        let schemas: BTreeSet<&str> = of_node.map(|found| found.schema.as_str()).collect();
        for schema in schemas.into_iter().flat_map(serde_json::from_str::<Value>) {
            table(&schema, &schema, &node.config, &node.place(), DEPTH_MAX, &mut places);
        }
    }
    let problem = |place: &Place| {
        spec.problem(
            place,
            "a secret stands here as it is, and would be kept in every revision",
            "name where the daemon finds it: { secret = \"NAME\" } after `mycelial secret set NAME`, { env = \"NAME\" } or \
             { file = \"PATH\" }",
        )
    };
    places.iter().map(problem).collect()
}

fn table(root: &Value, schema: &Value, config: &Map<String, Value>, place: &Place, depth: u32, found: &mut Vec<Place>) {
    let Some(depth) = depth.checked_sub(1) else { return };
    for alternative in alternatives(root, schema, depth) {
        let Some(properties) = alternative.get("properties").and_then(Value::as_object) else {
            continue;
        };
        for (key, property) in properties {
            let here = place.key(key);
            match config.get(key) {
                Some(Value::String(text))
                    if may_be_secret(property) && is_plain(key, text) && !found.contains(&here) =>
                {
                    found.push(here);
                }
                Some(Value::Object(inner)) => table(root, property, inner, &here, depth, found),
                _ => {}
            }
        }
    }
}

/// A schema, and what it refers to or offers instead of itself.
fn alternatives<'a>(root: &'a Value, schema: &'a Value, depth: u32) -> Vec<&'a Value> {
    let mut all = vec![schema];
    let Some(depth) = depth.checked_sub(1) else { return all };
    if let Some(target) = schema.get("$ref").and_then(Value::as_str)
        && let Some(target) = target.strip_prefix('#').and_then(|path| root.pointer(path))
    {
        all.extend(alternatives(root, target, depth));
    }
    for of in ["anyOf", "oneOf", "allOf"] {
        let some = schema.get(of).and_then(Value::as_array).into_iter().flatten();
        all.extend(some.flat_map(|one| alternatives(root, one, depth)));
    }
    all
}

fn may_be_secret(property: &Value) -> bool {
    let is_it = |schema: &Value| schema.get("$ref").and_then(Value::as_str) == Some(SECRET);
    let some = property.get("anyOf").and_then(Value::as_array);
    is_it(property) || some.is_some_and(|some| some.iter().any(is_it))
}

/// Whether a text gives something away. What is filled in on each daemon (`{{ … }}`) is not there yet; what stands beside it is.
fn is_plain(key: &str, text: &str) -> bool {
    let text = template::replaced(text, |_| FILLED_IN.to_string());
    let is_only_filled_in = |text: &str| !text.is_empty() && text.chars().all(|c| c == FILLED_IN);
    if key != "url" {
        return !text.is_empty() && !is_only_filled_in(&text);
    }
    let (_, rest) = text.split_once("://").unwrap_or(("", &text));
    let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    let login = authority.rsplit_once('@').map(|(login, _)| login);
    let has_password = login
        .and_then(|login| login.split_once(':'))
        .is_some_and(|(_, word)| !word.is_empty() && !is_only_filled_in(word));
    let is_open = |parameter: &str| parameter.split(['&', '#', ' ']).next().is_some_and(is_only_filled_in);
    has_password || rest.split("password=").skip(1).any(|after| !is_open(after))
}

#[cfg(test)]
mod tests {
    use bus_schema::{
        id::NodeId,
        plan::{ComponentRole, Descriptor},
    };

    use super::*;

    fn fleet() -> Fleet {
        let schema = r##"{
            "type": "object",
            "properties": {
                "url": {"anyOf": [{"$ref": "#/$defs/SecretRef"}, {"type": "null"}]},
                "password": {"anyOf": [{"$ref": "#/$defs/SecretRef"}, {"type": "null"}]},
                "table": {"type": "string"},
                "headers": {"type": "object", "additionalProperties": {"$ref": "#/$defs/SecretRef"}},
                "sign": {"$ref": "#/$defs/Sign"}
            },
            "$defs": {
                "SecretRef": {"anyOf": [{"type": "string"}, {"type": "object"}]},
                "Sign": {"type": "object", "properties": {"secret": {"$ref": "#/$defs/SecretRef"}}}
            }
        }"##;
        // As they were described before any key was known to be a secret.
        let former = schema.replace("#/$defs/SecretRef", "#/$defs/Former");
        let descriptor = |role, name: &str, schema: &str, inputs_max| Descriptor {
            role,
            name: name.into(),
            summary: String::new(),
            schema: schema.into(),
            example: String::new(),
            inputs_max,
            durable: true,
        };
        let of = |schema: &str| {
            [
                descriptor(ComponentRole::Source, "clock", r#"{"type": "object"}"#, 0),
                descriptor(ComponentRole::Destination, "db", schema, 1),
            ]
        };
        let mut fleet = Fleet::new();
        for (number, (name, schema)) in [("a", former.as_str()), ("gw", schema), ("z", &former)]
            .into_iter()
            .enumerate()
        {
            fleet.insert(name, NodeId::of_key(&[number as u8; 32]), Some(of(schema).into()));
        }
        fleet
    }

    #[test]
    fn secrets_as_they_are_are_found_where_they_stand() {
        let url = |url: &str| format!("url = \"{url}\"");
        for (keys, found) in [
            ("password = \"hunter2\"".to_string(), &["destinations.db.password"][..]),
            ("password = \"\"".to_string(), &[]),
            ("password = \"{{ daemon.name }}\"".to_string(), &[]),
            ("password = \"{{ daemon.name }}{{ daemon.id }}\"".to_string(), &[]),
            (
                "password = \"hunter2{{ daemon.name }}\"".to_string(),
                &["destinations.db.password"],
            ),
            // Braces that nobody fills in.
            (
                "password = \"{{ hunter2 }}\"".to_string(),
                &["destinations.db.password"],
            ),
            ("password = { secret = \"db\" }".to_string(), &[]),
            ("password = { env = \"PGPASSWORD\" }".to_string(), &[]),
            ("table = \"hunter2\"".to_string(), &[]),
            ("headers = { accept = \"text/csv\" }".to_string(), &[]),
            (
                "password = \"a\"\nsign = { secret = \"b\" }".to_string(),
                &["destinations.db.password", "destinations.db.sign.secret"],
            ),
            (url("postgres://anna@db/shop"), &[]),
            (url("postgres://db:5432/shop"), &[]),
            (url("postgres://anna:@db/shop"), &[]),
            (url("postgres://anna:hun:ter2@db/shop"), &["destinations.db.url"]),
            (url("postgres://db/shop?user=a&password=b"), &["destinations.db.url"]),
            (url("host=db password= hunter2"), &["destinations.db.url"]),
            (url("postgres://anna@{{ host.name }}/shop"), &[]),
            (url("postgres://anna:{{ daemon.name }}@{{ host.name }}/shop"), &[]),
            (url("postgres://db/shop?password={{ daemon.name }}&user=a"), &[]),
            (
                url("postgres://anna:hunter2@{{ daemon.name }}/shop"),
                &["destinations.db.url"],
            ),
            (
                url("postgres://anna:{{ daemon.name }}hunter2@db/shop"),
                &["destinations.db.url"],
            ),
            (
                url("postgres://db/shop?password=hunter2{{ daemon.name }}"),
                &["destinations.db.url"],
            ),
            (url("{{ daemon.name }}anna:hunter2@db/shop"), &["destinations.db.url"]),
        ] {
            let text = format!(
                "name = \"a\"\n[sources.clock]\ntype = \"clock\"\ndaemon = \"gw\"\n[destinations.db]\ntype = \"db\"\n\
                 daemon = \"gw\"\nfrom = \"clock\"\n{keys}\n"
            );
            let spec = crate::validate(&text, &fleet()).unwrap();
            let problems = plain_secrets(&spec, &fleet());
            let places: Vec<&str> = problems.iter().map(|problem| problem.place.as_str()).collect();
            assert_eq!(places, found, "{keys}");
            assert!(problems.iter().all(|problem| problem.line >= 9), "{problems:?}");
            assert!(!format!("{problems:?}").contains("hunter2"));
        }
    }
}
