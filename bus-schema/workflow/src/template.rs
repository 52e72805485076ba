//! Config values that name what differs from daemon to daemon: `{{ label.site }}`, `{{ host.name }}`. Filled in for one
//! daemon at a time, before its config is checked. Knows no schema.

use std::{borrow::Cow, collections::BTreeMap};

use bus_schema::{id::NodeId, message::HostFacts};
use serde_json::{Map, Value};

use crate::{
    spec::{Part, Place},
    words::{clip, joined, suggest},
};

const OPEN: &str = "{{";
const CLOSE: &str = "}}";
/// What can be named besides labels.
const FACTS: [&str; 6] = [
    "host.name",
    "host.os",
    "host.arch",
    "host.cpus",
    "daemon.name",
    "daemon.id",
];
const LABEL: &str = "label.";

/// What differs from daemon to daemon.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// What it said about its host.
    pub host: HostFacts,
}

/// A value that cannot be filled in.
#[derive(Debug)]
pub(crate) struct Hole {
    pub place: Place,
    pub message: String,
    pub hint: String,
}

/// Whether a config names anything.
pub(crate) fn is_in(config: &Map<String, Value>) -> bool {
    config.values().any(names)
}

fn names(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains(OPEN),
        Value::Array(items) => items.iter().any(names),
        Value::Object(table) => is_in(table),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// The config as it is for one daemon.
pub(crate) fn fill(
    config: &Map<String, Value>,
    place: &Place,
    daemon: (&str, &NodeId, &Facts),
) -> Result<Map<String, Value>, Vec<Hole>> {
    let mut filler = Filler {
        daemon,
        place: place.clone(),
        holes: Vec::new(),
    };
    let filled = filler.table(config);
    if filler.holes.is_empty() {
        Ok(filled)
    } else {
        Err(filler.holes)
    }
}

/// The text with something else in the place of each name that is filled in.
pub(crate) fn replaced(text: &str, mut with: impl FnMut(&str) -> String) -> String {
    let (mut out, mut rest) = (String::with_capacity(text.len()), text);
    while let Some((before, after)) = rest.split_once(OPEN) {
        out.push_str(before);
        match after.split_once(CLOSE).map(|(name, behind)| (name.trim(), behind)) {
            Some((name, behind)) if is_dotted(name) => {
                out.push_str(&with(name));
                rest = behind;
            }
            // Somebody else's braces.
            _ => {
                out.push_str(OPEN);
                rest = after;
            }
        }
    }
    out + rest
}

struct Filler<'a> {
    daemon: (&'a str, &'a NodeId, &'a Facts),
    place: Place,
    holes: Vec<Hole>,
}

impl Filler<'_> {
    fn table(&mut self, table: &Map<String, Value>) -> Map<String, Value> {
        let filled = table.iter().map(|(key, value)| {
            self.place.0.push(Part::Key(key.clone()));
            let value = self.value(value);
            self.place.0.pop();
            (key.clone(), value)
        });
        filled.collect()
    }

    fn value(&mut self, value: &Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.text(text)),
            Value::Array(items) => {
                let items = items.iter().enumerate().map(|(index, item)| {
                    self.place.0.push(Part::Item(index));
                    let item = self.value(item);
                    self.place.0.pop();
                    item
                });
                Value::Array(items.collect())
            }
            Value::Object(table) => Value::Object(self.table(table)),
            other => other.clone(),
        }
    }

    fn text(&mut self, text: &str) -> String {
        replaced(text, |name| match self.known(name) {
            Ok(value) => value.into_owned(),
            Err((message, hint)) => {
                self.holes.push(Hole {
                    place: self.place.clone(),
                    message,
                    hint,
                });
                String::new()
            }
        })
    }

    fn known(&self, name: &str) -> Result<Cow<'_, str>, (String, String)> {
        let (daemon, node, Facts { labels, host }) = self.daemon;
        if let Some(key) = name.strip_prefix(LABEL) {
            let missing = || {
                let message = format!("daemon '{daemon}' has no label '{}'", clip(key));
                (
                    message,
                    format!("give it one: mycelial daemon label {daemon} {key}=VALUE"),
                )
            };
            return labels.get(key).map(|value| value.as_str().into()).ok_or_else(missing);
        }
        Ok(match name {
            "host.name" => host.hostname.as_str().into(),
            "host.os" => host.os.as_str().into(),
            "host.arch" => host.arch.as_str().into(),
            "host.cpus" => host.cpus.to_string().into(),
            "daemon.name" => daemon.into(),
            "daemon.id" => node.as_str().into(),
            _ => {
                let message = format!("nothing is called '{}'", clip(name));
                let hint = match suggest(name, "known are", FACTS) {
                    hint if hint.is_empty() => {
                        format!("known are label.KEY, {}", joined(&FACTS.map(String::from), "and"))
                    }
                    hint => hint,
                };
                return Err((message, hint));
            }
        })
    }
}

/// `word.word`: what stands in other braces is not ours to judge.
fn is_dotted(name: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '/');
    name.split_once('.')
        .is_some_and(|(head, key)| !head.is_empty() && !key.is_empty())
        && name.chars().all(is_plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_filled_in() {
        let facts = Facts {
            labels: [("site".to_string(), "berlin".to_string())].into(),
            host: HostFacts {
                hostname: "rpi-7".into(),
                cpus: 4,
                ..HostFacts::default()
            },
        };
        let node = NodeId::from_hash(&[1; 32]);
        let filled = |text: &str| {
            let config = Map::from_iter([("path".to_string(), Value::String(text.to_string()))]);
            match fill(&config, &Place::root(), ("gw", &node, &facts)) {
                Ok(filled) => filled["path"].as_str().unwrap().to_string(),
                Err(holes) => format!("{}: {}", holes[0].place, holes[0].message),
            }
        };
        for (text, expected) in [
            ("plain", "plain"),
            ("/data/{{ label.site }}/{{host.name}}.db", "/data/berlin/rpi-7.db"),
            ("{{ daemon.name }}-{{ host.cpus }}", "gw-4"),
            ("{{ label.line }}", "path: daemon 'gw' has no label 'line'"),
            ("{{ lable.site }}", "path: nothing is called 'lable.site'"),
            ("if a {{ b }} else {{ c.d() }}", "if a {{ b }} else {{ c.d() }}"),
            ("{{", "{{"),
        ] {
            assert_eq!(filled(text), expected, "{text}");
        }
    }
}
