//! A component's descriptor as a page for people, in Markdown: what it does, its settings, an example. Made from what its config
//! struct says of itself; docs/components holds these pages.

use std::fmt::Write as _;

use bus_schema::plan::Descriptor;
use serde_json::{Map, Value};

/// Settings within settings within settings: deeper ones are left to the schema.
const DEPTH_MAX: usize = 4;
/// The definition of a secret.
const SECRET: &str = "#/$defs/SecretRef";

/// What one component of a name is: source, transform or destination.
pub fn section(descriptor: &Descriptor) -> String {
    let schema: Value = serde_json::from_str(&descriptor.schema).unwrap_or_default();
    let about = text(&schema, "description");
    let about = if about.is_empty() { &descriptor.summary } else { about };
    let mut page = format!(
        "## {} `{}`\n\n{}\n\n```toml\n{}\n```\n",
        capital(&descriptor.role.to_string()),
        descriptor.name,
        about.trim(),
        descriptor.example.trim_end()
    );
    let mut settings = String::new();
    Defs(&schema).properties(&schema, 0, &mut settings);
    if !settings.is_empty() {
        let _ = write!(page, "\n### Settings\n\n{settings}");
    }
    page
}

fn text<'a>(schema: &'a Value, key: &str) -> &'a str {
    schema[key].as_str().unwrap_or_default()
}

fn capital(word: &str) -> String {
    let mut letters = word.chars();
    letters
        .next()
        .map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// A schema with the definitions that its parts refer to.
struct Defs<'a>(&'a Value);

impl<'a> Defs<'a> {
    /// What a part stands for: without what only says that it may be left out.
    fn resolved(&self, schema: &'a Value) -> &'a Value {
        let mut schema = schema;
        // Definitions that refer to each other in a circle are nobody's.
        for _ in 0..DEPTH_MAX {
            if let Some(name) = schema["$ref"].as_str().and_then(|path| path.strip_prefix("#/$defs/")) {
                schema = &self.0["$defs"][name];
                continue;
            }
            let others: Vec<&Value> = list(schema, "anyOf")
                .iter()
                .filter(|one| one["type"] != "null")
                .collect();
            match others[..] {
                [only] => schema = only,
                _ => break,
            }
        }
        schema
    }

    fn properties(&self, schema: &'a Value, depth: usize, out: &mut String) {
        let none = Map::new();
        let required = list(schema, "required");
        for (name, property) in schema["properties"].as_object().unwrap_or(&none) {
            let what = self.resolved(property);
            let about = match text(property, "description") {
                "" => text(what, "description"),
                about => about,
            };
            let must = if required.iter().any(|one| one == name) {
                ", required"
            } else {
                ""
            };
            let default = match property.get("default") {
                None | Some(Value::Null) => String::new(),
                Some(value) => format!(" Default: `{value}`."),
            };
            let about = format!("{}{default}", about.trim());
            if refers_to_secret(property) {
                item(
                    depth,
                    &format!("`{name}`: text, or a secret from elsewhere{must}. {about}"),
                    out,
                );
                continue;
            }
            item(depth, &format!("`{name}`: {}{must}. {about}", self.kind(what)), out);
            self.within(what, depth + 1, out);
        }
    }

    /// The settings within a setting.
    fn within(&self, what: &'a Value, depth: usize, out: &mut String) {
        if depth >= DEPTH_MAX {
            return;
        }
        if what["properties"].is_object() {
            return self.properties(what, depth, out);
        }
        for variant in list(what, "oneOf").iter().chain(list(what, "anyOf")) {
            let variant = self.resolved(variant);
            let about = text(variant, "description").trim();
            if let Some(value) = variant.get("const") {
                item(depth, &format!("`{value}`: {about}"), out);
            } else if variant["properties"].is_object() {
                item(depth, &format!("{}: {about}", self.kind(variant)), out);
                self.properties(variant, depth + 1, out);
            }
        }
        for inner in [&what["items"], &what["additionalProperties"]] {
            if inner.is_object() {
                self.within(self.resolved(inner), depth, out);
            }
        }
    }

    /// What a value is, in a few words.
    fn kind(&self, schema: &'a Value) -> String {
        let alternatives = [list(schema, "oneOf"), list(schema, "anyOf"), list(schema, "enum")].concat();
        if alternatives
            .iter()
            .any(|one| one.is_string() || one.get("const").is_some())
        {
            return "one of these words".to_string();
        }
        let types: Vec<&str> = match &schema["type"] {
            Value::String(one) => vec![one],
            Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        let bound = |key: &str| schema[key].as_number().map(ToString::to_string);
        match types.into_iter().find(|one| *one != "null") {
            Some("string") => "text".to_string(),
            Some("boolean") => "true or false".to_string(),
            Some("integer" | "number") => match (bound("minimum"), bound("maximum")) {
                (Some(least), Some(most)) => format!("number from {least} to {most}"),
                (Some(least), None) => format!("number, at least {least}"),
                (None, Some(most)) => format!("number, at most {most}"),
                (None, None) => "number".to_string(),
            },
            Some("array") => format!("list of: {}", self.kind(self.resolved(&schema["items"]))),
            Some("object") if schema["additionalProperties"].is_object() => {
                let value = self.kind(self.resolved(&schema["additionalProperties"]));
                format!("table of names, each with: {value}")
            }
            Some("object") => match schema["properties"].as_object() {
                Some(properties) => {
                    let names: Vec<String> = properties.keys().map(|name| format!("`{name}`")).collect();
                    format!("table with {}", names.join(", "))
                }
                None => "table".to_string(),
            },
            _ if alternatives.is_empty() => "any value".to_string(),
            _ => {
                let of = |key: &str| list(schema, key).iter().map(|one| self.kind(self.resolved(one)));
                let mut named: Vec<String> = of("oneOf").chain(of("anyOf")).collect();
                named.dedup();
                named.join(", or ")
            }
        }
    }
}

/// Every connector has some, and what they are is said once.
fn refers_to_secret(schema: &Value) -> bool {
    schema["$ref"] == SECRET || list(schema, "anyOf").iter().any(|one| one["$ref"] == SECRET)
}

fn list<'a>(schema: &'a Value, key: &str) -> &'a [Value] {
    schema[key].as_array().map_or(&[], Vec::as_slice)
}

fn item(depth: usize, text: &str, out: &mut String) {
    let indent = "  ".repeat(depth);
    let lines = text.trim_end().replace('\n', &format!("\n{indent}  "));
    let lines: Vec<&str> = lines.lines().map(str::trim_end).collect();
    let _ = writeln!(out, "{indent}- {}", lines.join("\n"));
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, env, fs, path::Path};

    use super::*;
    use crate::command::registry;

    const HEAD: &str = "# Components\n\nWhat daemons read, change and write with. Made from what the components say of themselves by \
                        `UPDATE=1 cargo test -p edge-daemon reference`; a test fails when it differs. `myceliald components NAME` shows the \
                        same, and so does the web page. Examples are run by tests.\n\nA **secret from elsewhere** is `{ secret = \"NAME\" }` of the daemon's \
                        own store, which `mycelial secret set` fills, `{ env = \"NAME\" }`, an environment variable of the daemon, or \
                        `{ file = \"PATH\" }`, whose last line end does not count.\n\n| | |\n|---|---|\n";

    #[test]
    fn the_pages_are_what_the_components_say() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/components");
        let mut pages: BTreeMap<String, String> = BTreeMap::new();
        let mut index = HEAD.to_string();
        let registry = registry();
        let mut all: Vec<_> = registry.descriptors().collect();
        all.sort_by(|a, b| (&a.name, a.role.to_string()).cmp(&(&b.name, b.role.to_string())));
        for one in &all {
            let page = pages
                .entry(format!("{}.md", one.name))
                .or_insert_with(|| format!("# `{}`\n", one.name));
            let _ = write!(page, "\n{}", section(one));
            let _ = writeln!(
                index,
                "| [{} `{}`]({}.md) | {} |",
                one.role, one.name, one.name, one.summary
            );
        }
        pages.insert("README.md".to_string(), index);
        if env::var_os("UPDATE").is_some() {
            let _ = fs::remove_dir_all(&dir);
            fs::create_dir_all(&dir).unwrap();
            pages
                .iter()
                .for_each(|(file, page)| fs::write(dir.join(file), page).unwrap());
        }
        for (file, page) in &pages {
            let kept = fs::read_to_string(dir.join(file)).unwrap_or_default();
            assert!(
                kept == *page,
                "docs/components/{file} differs: UPDATE=1 cargo test -p edge-daemon reference"
            );
            assert!(
                !page.contains("`: any value"),
                "docs/components/{file}: a setting of no kind"
            );
        }
        assert_eq!(
            fs::read_dir(&dir).unwrap().count(),
            pages.len(),
            "pages of components that are gone"
        );
    }
}
