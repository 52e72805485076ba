//! A workflow as it was written: nodes, where they shall run, what they read from, and on which line each key stands.
//! Holds what the text says; never what a fleet makes of it.

use std::{collections::BTreeMap, fmt};

use bus_schema::{
    api::Problem,
    id::WorkflowId,
    plan::{ComponentRole, SendPolicy, SpoolPolicy},
};
use serde_json::{Map, Value};

use crate::{many::is_selector, outputs, words::clip};

/// A workflow whose text has been read without a problem: names are unique, edges lead somewhere, nothing goes in circles.
#[derive(Debug, Clone, PartialEq)]
pub struct Spec {
    pub(crate) name: String,
    pub(crate) nodes: Vec<Node>,
    pub(crate) tests: Vec<Test>,
    pub(crate) lines: Lines,
}

/// An example of what comes of given records. Nothing of it is part of a plan.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Test {
    /// Its name.
    pub name: String,
    /// Records by source, in the order of the text. An empty table stands for null.
    pub given: Vec<(String, Vec<Map<String, Value>>)>,
    /// The records that come out of a transform or into a destination, all of them and in order.
    pub expect: Vec<(String, Vec<Map<String, Value>>)>,
    /// A part of the reason for each record that a transform rejects, in order.
    pub reject: Vec<(String, Vec<String>)>,
    /// Types of columns of the given records, by the names that `cast` takes; without one, a value has that of its form.
    pub types: Vec<(String, String)>,
}

/// One component in a workflow.
#[derive(Clone, PartialEq)]
pub struct Node {
    /// Its name, unique in the workflow.
    pub id: String,
    /// What it does.
    pub role: ComponentRole,
    /// Its component's type name. Empty only while problems are being collected.
    pub component: String,
    /// Where it runs, if the text says so: a daemon's name, or a selector. Empty only while problems are being collected.
    pub daemon: Option<String>,
    /// Whose records it takes, by node name; empty for sources.
    pub from: Vec<String>,
    /// How the streams into it are buffered, if the text says so.
    pub spool: Option<SpoolPolicy>,
    /// How the streams into it are sent, if the text says so.
    pub send: Option<SendPolicy>,
    /// How several daemons share it, if the text says so.
    pub share: Option<Share>,
    /// The component's own keys.
    pub config: Map<String, Value>,
}

/// How several daemons share a destination: records are dealt out in parts, and each part is written by one of them at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    /// Records that are equal in these columns go to the same daemon, in order.
    pub by: Vec<String>,
    /// How many parts there are.
    pub parts: u16,
    /// How long a daemon may be silent before others take its parts, in seconds.
    pub move_after_s: u32,
}

/// Configs may hold passwords: shows their keys only.
impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node")
            .field("id", &self.id)
            .field("role", &self.role)
            .field("component", &self.component)
            .field("daemon", &self.daemon)
            .field("from", &self.from)
            .field("spool", &self.spool)
            .field("send", &self.send)
            .field("share", &self.share)
            .field("config", &self.config.keys().collect::<Vec<_>>())
            .finish()
    }
}

impl Spec {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its nodes: sources, transforms, destinations, each in the order of the text.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Its tests, in the order of the text.
    pub fn tests(&self) -> &[Test] {
        &self.tests
    }

    /// Its id within a fleet.
    pub fn id(&self) -> WorkflowId {
        WorkflowId::of_name(&self.name)
    }

    /// The daemons the text names, each once.
    pub fn daemons(&self) -> impl Iterator<Item = &str> {
        let named = self.nodes.iter().enumerate().filter_map(|(index, node)| {
            let name = node.daemon.as_deref()?;
            let is_first = self.nodes[..index]
                .iter()
                .all(|earlier| earlier.daemon.as_deref() != Some(name));
            is_first.then_some(name)
        });
        named.filter(|name| !name.is_empty() && !is_selector(name))
    }

    /// The selectors the text has in the place of a daemon's name, each once.
    pub fn selectors(&self) -> impl Iterator<Item = &str> {
        self.nodes.iter().enumerate().filter_map(|(index, node)| {
            let selector = node.selector()?;
            let is_first = self.nodes[..index]
                .iter()
                .all(|earlier| earlier.selector() != Some(selector));
            is_first.then_some(selector)
        })
    }

    /// A node by its name.
    pub fn node(&self, id: &str) -> Option<&Node> {
        self.nodes.iter().find(|node| node.id == id)
    }

    /// A problem with a key of a node's config, as a dotted path (`columns.price`, `topics[0]`); empty for the whole node.
    /// For what only the component itself can tell, such as an expression that does not parse.
    pub fn config_problem(&self, node: &Node, key: &str, message: impl Into<String>) -> Problem {
        let mut place = node.place();
        for part in key.split('.').filter(|part| !part.is_empty()) {
            let (name, items) = part.split_once('[').unwrap_or((part, ""));
            place = place.key(name);
            for index in items.split(['[', ']']).filter_map(|item| item.parse().ok()) {
                place = place.item(index);
            }
        }
        self.problem(&place, message, "")
    }

    /// Index of the node of this name.
    pub(crate) fn index_of(&self, id: &str) -> Option<usize> {
        self.nodes.iter().position(|node| node.id == id)
    }

    /// A problem at a place, with the line of the innermost key that the text has there.
    pub(crate) fn problem(&self, place: &Place, message: impl Into<String>, hint: impl Into<String>) -> Problem {
        place.problem(self.lines.line_of(&place.0), message, hint)
    }
}

impl Node {
    /// What chooses the daemons it runs on, if it is not a name.
    pub fn selector(&self) -> Option<&str> {
        self.daemon.as_deref().filter(|daemon| is_selector(daemon))
    }

    /// `sources.db`; of a node that stands for a part of one, that one.
    pub(crate) fn place(&self) -> Place {
        let name = outputs::of(&self.id).map_or(self.id.as_str(), |(name, _)| name);
        Place::root().key(section(self.role)).key(name)
    }
}

/// The section of a role's nodes.
pub(crate) const fn section(role: ComponentRole) -> &'static str {
    match role {
        ComponentRole::Source => "sources",
        ComponentRole::Transform => "transforms",
        ComponentRole::Destination => "destinations",
    }
}

/// One step of a [`Place`].
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Part {
    Key(String),
    Item(usize),
}

/// Where in the text something stands.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Place(pub(crate) Vec<Part>);

impl Place {
    pub(crate) fn root() -> Self {
        Self::default()
    }

    pub(crate) fn key(&self, key: &str) -> Self {
        self.with(Part::Key(key.to_string()))
    }

    pub(crate) fn item(&self, index: usize) -> Self {
        self.with(Part::Item(index))
    }

    fn with(&self, part: Part) -> Self {
        let mut parts = self.0.clone();
        parts.push(part);
        Self(parts)
    }

    pub(crate) fn problem(&self, line: u32, message: impl Into<String>, hint: impl Into<String>) -> Problem {
        Problem {
            place: self.to_string(),
            line,
            message: message.into(),
            hint: hint.into(),
        }
    }
}

/// As one would write the key in TOML: `sources.db.headers."content-type"`, items as `[0]`.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, part) in self.0.iter().enumerate() {
            let dot = if index > 0 { "." } else { "" };
            match part {
                Part::Item(item) => write!(f, "[{item}]")?,
                Part::Key(key) if is_bare(key) => write!(f, "{dot}{}", clip(key))?,
                Part::Key(key) => write!(f, "{dot}\"{}\"", clip(key))?,
            }
        }
        Ok(())
    }
}

/// Whether a TOML key needs no quotes.
fn is_bare(key: &str) -> bool {
    !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

/// The lines of a value and of all that is in it.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Lines {
    pub(crate) line: u32,
    pub(crate) keys: BTreeMap<String, Lines>,
    pub(crate) items: Vec<Lines>,
}

impl Lines {
    /// The line of the innermost part of a path that is known; 0 when not even its first is.
    pub(crate) fn line_of(&self, path: &[Part]) -> u32 {
        let mut here = self;
        for part in path {
            let inner = match part {
                Part::Key(key) => here.keys.get(key),
                Part::Item(index) => here.items.get(*index),
            };
            match inner {
                Some(inner) => here = inner,
                None => break,
            }
        }
        here.line
    }
}
