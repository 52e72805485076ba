//! The table of what each destination promises is true: every destination is in it, as its descriptor says.

use std::collections::BTreeMap;

use bus_schema::plan::ComponentRole;

const TABLE: &str = include_str!("../../../docs/RELIABILITY.md");
const HEADING: &str = "| destination | promise | how, and what may come again |";

/// The rows below the heading: name, promise, how.
fn rows() -> BTreeMap<String, (String, String)> {
    let lines = TABLE.lines().skip_while(|line| *line != HEADING).skip(2);
    let cells = |line: &str| {
        let cells: Vec<String> = line
            .trim_matches('|')
            .split('|')
            .map(|cell| cell.trim().to_string())
            .collect();
        let [name, promise, how] = cells.try_into().expect("three columns");
        (name.trim_matches('`').to_string(), (promise, how))
    };
    lines.take_while(|line| line.starts_with('|')).map(cells).collect()
}

#[test]
fn every_destination_says_what_it_promises() {
    let mut rows = rows();
    let components = connectors::components();
    let descriptors = components.iter().map(|component| (component.descriptor)());
    for descriptor in descriptors.filter(|descriptor| descriptor.role == ComponentRole::Destination) {
        let (promise, how) = rows.remove(&descriptor.name).unwrap_or_default();
        let expected = if descriptor.durable {
            "exactly once"
        } else {
            "at least once"
        };
        assert_eq!(promise, expected, "docs/RELIABILITY.md on '{}'", descriptor.name);
        assert!(
            how.len() > 20,
            "docs/RELIABILITY.md does not say how '{}' does it",
            descriptor.name
        );
        // What a person reads about it on the command line and on the web page says it too.
        let said = descriptor.schema.to_lowercase().replace("\\n", " ");
        assert!(
            said.contains(expected),
            "the description of '{}' does not say '{expected}'",
            descriptor.name
        );
    }
    assert!(rows.is_empty(), "no such destinations: {:?}", rows.keys());
}

/// Whatever takes a program or its text from a workflow needs a daemon's permission.
#[test]
fn whoever_runs_code_is_named() {
    for component in connectors::components() {
        let descriptor = (component.descriptor)();
        let schema: serde_json::Value = serde_json::from_str(&descriptor.schema).expect("a schema");
        let takes = |key: &str| schema["properties"].get(key).is_some();
        assert_eq!(
            takes("command") || takes("code"),
            connectors::CustomCode::default().admit(&descriptor.name, "{}").is_err(),
            "{}",
            descriptor.name
        );
    }
}

/// What a property is called that is nobody else's business.
const SECRETS: &[&str] = &[
    "access_key",
    "bearer",
    "credentials",
    "nkey",
    "password",
    "secret_key",
    "token",
];

/// Properties of a schema by their names, however deep they are.
fn properties<'a>(schema: &'a serde_json::Value, found: &mut Vec<(&'a str, &'a serde_json::Value)>) {
    match schema {
        serde_json::Value::Object(keys) => {
            if let Some(serde_json::Value::Object(named)) = keys.get("properties") {
                found.extend(named.iter().map(|(name, schema)| (name.as_str(), schema)));
            }
            keys.values().for_each(|schema| properties(schema, found));
        }
        serde_json::Value::Array(items) => items.iter().for_each(|schema| properties(schema, found)),
        _ => {}
    }
}

/// No password has to stand in a workflow: each can come from the daemon's own store, a variable or a file.
#[test]
fn every_password_can_come_from_elsewhere() {
    let mut passwords = 0;
    for component in connectors::components() {
        let descriptor = (component.descriptor)();
        let schema: serde_json::Value = serde_json::from_str(&descriptor.schema).expect("a schema");
        let mut found = Vec::new();
        properties(&schema, &mut found);
        for (name, property) in found.iter().filter(|(name, _)| SECRETS.contains(name)) {
            let names_it = property.to_string().contains("\"#/$defs/SecretRef\"");
            assert!(
                names_it,
                "'{name}' of '{}' can only be written down: {property}",
                descriptor.name
            );
            passwords += 1;
        }
        let Some(reference) = schema["$defs"].get("SecretRef") else {
            continue;
        };
        for form in ["FromStore", "FromEnv", "FromFile"] {
            assert!(
                reference.to_string().contains(form),
                "a secret of '{}' cannot be {form}",
                descriptor.name
            );
        }
    }
    assert!(passwords >= 20, "{passwords} passwords");
}
