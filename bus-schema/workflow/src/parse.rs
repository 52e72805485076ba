//! TOML text to [`Spec`]: the shape of the text and nothing else. Goes on after a mistake, so that all are told at once;
//! what could not be read is left empty in the spec and not complained about again.

mod send;
mod share;
mod tests;

use bus_schema::{
    api::Problem,
    limits::{SPOOL_QUOTA_BYTES_MIN, WORKFLOW_NODES_MAX},
    member::is_name,
    plan::{ComponentRole, SpoolPolicy, WhenFull},
};
use serde_json::{Map, Number, Value};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use crate::{
    TEXT_BYTES_MAX,
    many::is_selector,
    outputs,
    spec::{Lines, Node, Part, Place, Spec, section},
    words::{clip, joined, nearest, size_bytes, size_text, suggest},
};

/// Keys of a node that are Mycelial's own; all others belong to the component.
pub const RESERVED_KEYS: [&str; 6] = ["type", "daemon", "from", "spool", "send", "share"];

const TOP_KEYS: [&str; 5] = ["name", "sources", "transforms", "destinations", "tests"];
const ROLES: [ComponentRole; 3] = [
    ComponentRole::Source,
    ComponentRole::Transform,
    ComponentRole::Destination,
];
/// What to do about a text that is too long.
const TOO_LONG_HINT: &str =
    "split it into several workflows; long code can be in a file on the daemon, with file = \"…\" and its sha256";
const NAME_RULE: &str = "use 1 to 32 of a-z, 0-9, '_' and '-', beginning with a letter or a digit";

/// What could be read.
pub(crate) struct Reading {
    /// The spec, perhaps with holes.
    pub spec: Spec,
    /// What is wrong.
    pub problems: Vec<Problem>,
    /// Whether the text is TOML at all, so that it makes sense to look further.
    pub is_toml: bool,
}

/// Reads a text as far as it goes.
pub(crate) fn read(text: &str) -> Reading {
    let mut reader = Reader {
        line_starts: line_starts(text),
        problems: Vec::new(),
        lines: Lines::default(),
    };
    let mut spec = Spec {
        name: String::new(),
        nodes: Vec::new(),
        tests: Vec::new(),
        lines: Lines::default(),
    };
    if text.len() > TEXT_BYTES_MAX {
        let message = format!(
            "the text has {} bytes; a workflow has at most {TEXT_BYTES_MAX}",
            text.len()
        );
        reader.problems.push(Place::root().problem(0, message, TOO_LONG_HINT));
        return Reading {
            spec,
            problems: reader.problems,
            is_toml: false,
        };
    }
    let (table, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        let mut problems: Vec<Problem> = errors.iter().map(|error| reader.syntax(text, error)).collect();
        // What follows on the same line is the parser finding its feet again.
        problems.sort_by_key(|problem| problem.line);
        problems.dedup_by_key(|problem| problem.line);
        return Reading {
            spec,
            problems,
            is_toml: false,
        };
    }
    reader.workflow(table.get_ref(), &mut spec);
    outputs::expand(&mut spec);
    spec.lines = reader.lines;
    Reading {
        spec,
        problems: reader.problems,
        is_toml: true,
    }
}

fn line_starts(text: &str) -> Vec<usize> {
    let after_breaks = text
        .bytes()
        .enumerate()
        .filter(|(_, b)| *b == b'\n')
        .map(|(at, _)| at + 1);
    std::iter::once(0).chain(after_breaks).collect()
}

struct Reader {
    line_starts: Vec<usize>,
    problems: Vec<Problem>,
    lines: Lines,
}

impl Reader {
    fn line_at(&self, offset: usize) -> u32 {
        u32::try_from(self.line_starts.partition_point(|start| *start <= offset)).unwrap_or(u32::MAX)
    }

    fn syntax(&self, text: &str, error: &toml::de::Error) -> Problem {
        let at = error.span().map(|span| span.start);
        // At the end of the text the interesting line is the last one with something on it.
        let at = at.map(|at| {
            if at >= text.len() {
                text.trim_end().len().saturating_sub(1)
            } else {
                at
            }
        });
        let line = at.map_or(0, |at| self.line_at(at));
        let found = error.span().and_then(|span| text.get(span)).unwrap_or_default().trim();
        let (message, hint) = match error.message() {
            "duplicate key" => (
                format!("'{}' stands here twice", clip(found)),
                "remove one of them".to_string(),
            ),
            cause if cause.starts_with("invalid boolean") || cause.starts_with("string values must be quoted") => {
                match found {
                    "" => ("a value is missing".to_string(), String::new()),
                    found => (
                        format!("'{}' is not in quotes", clip(found)),
                        format!("write \"{}\"", clip(found)),
                    ),
                }
            }
            cause => (
                format!("the text is not TOML here: {}", cause.replace('\n', ", ")),
                String::new(),
            ),
        };
        Place::root().problem(line, message, hint)
    }

    /// Reports at a place whose lines are known by now.
    fn wrong(&mut self, place: &Place, message: impl Into<String>, hint: impl Into<String>) {
        let line = self.lines.line_of(&place.0);
        self.problems.push(place.problem(line, message, hint));
    }

    fn workflow(&mut self, table: &DeTable<'_>, spec: &mut Spec) {
        let root = Place::root();
        let mut sections = Vec::new();
        let (mut name, mut tests) = (None, None);
        for (key, value) in table {
            let (key, line, value) = (key.get_ref().as_ref(), self.line_at(key.span().start), value.get_ref());
            self.lines.keys.entry(key.to_string()).or_default().line = line;
            if key == "name" {
                name = Some(value);
                continue;
            }
            if key == "tests" {
                tests = Some(value);
                continue;
            }
            let mut meant = Some(key);
            if !TOP_KEYS.contains(&key) {
                let hint = suggest(key, "a workflow has", TOP_KEYS);
                self.wrong(&root.key(key), format!("unknown key '{}'", clip(key)), hint);
                // A misspelt section is read all the same, or its nodes would be missed everywhere else.
                meant = nearest(key, TOP_KEYS);
            }
            let role = ROLES.into_iter().find(|role| Some(section(*role)) == meant);
            sections.extend(role.map(|role| (role, value)));
        }
        // Sources first: of two nodes with one name it is the later that is told.
        sections.sort_by_key(|(role, _)| *role);
        match name {
            None => self.wrong(
                &root,
                "the workflow has no name",
                "begin the text with, for example: name = \"orders\"",
            ),
            Some(value) => {
                spec.name = self
                    .name(&root.key("name"), value, "a workflow's name")
                    .unwrap_or_default()
            }
        }
        for (role, value) in sections {
            self.section(role, value, &mut spec.nodes);
        }
        if let Some(value) = tests {
            spec.tests = self.tests(value);
            self.tests_fit(spec);
        }
        if spec.nodes.len() > WORKFLOW_NODES_MAX {
            let message = format!(
                "the workflow has {} nodes; at most {WORKFLOW_NODES_MAX} fit",
                spec.nodes.len()
            );
            self.wrong(&root, message, "split it into several workflows");
            spec.nodes.truncate(WORKFLOW_NODES_MAX);
        }
    }

    fn section(&mut self, role: ComponentRole, value: &DeValue<'_>, nodes: &mut Vec<Node>) {
        let place = Place::root().key(section(role));
        let shape = format!("write [{place}.<name>], with a name of your choice, and the {role}'s keys below it");
        let DeValue::Table(table) = value else {
            return self.wrong(
                &place,
                format!("'{place}' must hold tables, not {}", kind(value)),
                shape,
            );
        };
        let mut is_first_wrong = true;
        for (key, value) in table {
            let id = key.get_ref().as_ref();
            let place = place.key(id);
            let lines = self.lines_of(key.span().start, value);
            let section = self.lines.keys.entry(section(role).to_string()).or_default();
            section.keys.insert(id.to_string(), lines);
            let DeValue::Table(table) = value.get_ref() else {
                // Once is enough: all the keys of a node, without its name, may stand here.
                if is_first_wrong {
                    let message = format!("'{}' must be a table, not {}", clip(id), kind(value.get_ref()));
                    self.wrong(&place, message, shape.as_str());
                }
                is_first_wrong = false;
                continue;
            };
            if !is_name(id) {
                self.wrong(
                    &place,
                    format!("'{}' cannot be the name of a node", clip(id)),
                    NAME_RULE,
                );
            }
            if let Some(earlier) = nodes.iter().find(|node| node.id == id) {
                let earlier = earlier.place();
                let line = self.lines.line_of(&earlier.0);
                let message = format!("there is already a node '{}': {earlier} on line {line}", clip(id));
                self.wrong(
                    &place,
                    message,
                    "give one of them another name: names are unique in a workflow",
                );
            }
            let node = self.node(role, id, &place, table);
            nodes.push(node);
        }
    }

    /// Lines of a value and everything in it.
    fn lines_of(&self, offset: usize, value: &Spanned<DeValue<'_>>) -> Lines {
        let mut lines = Lines {
            line: self.line_at(offset),
            ..Lines::default()
        };
        match value.get_ref() {
            DeValue::Table(table) => {
                let inner = table
                    .iter()
                    .map(|(key, value)| (key.get_ref().to_string(), self.lines_of(key.span().start, value)));
                lines.keys = inner.collect();
            }
            DeValue::Array(items) => {
                lines.items = items
                    .iter()
                    .map(|item| self.lines_of(item.span().start, item))
                    .collect();
            }
            _ => {}
        }
        lines
    }

    fn node(&mut self, role: ComponentRole, id: &str, place: &Place, table: &DeTable<'_>) -> Node {
        let get = |name: &str| {
            table
                .iter()
                .find(|(key, _)| key.get_ref().as_ref() == name)
                .map(|(_, v)| v.get_ref())
        };
        let component = match get("type") {
            Some(value) => self.text(&place.key("type"), value).unwrap_or_default(),
            None => {
                self.wrong(
                    place,
                    "'type' is missing",
                    format!("say which {role} it is, for example: {}", sample(role)),
                );
                String::new()
            }
        };
        let daemon = get("daemon").map(|value| self.daemon(&place.key("daemon"), value).unwrap_or_default());
        let from = self.from(role, place, get("from"));
        let spool = match get("spool") {
            None => None,
            Some(_) if role == ComponentRole::Source => {
                let hint = "buffers belong to the node that reads: put 'spool' there";
                self.wrong(
                    &place.key("spool"),
                    "nothing flows into a source that could be buffered",
                    hint,
                );
                None
            }
            Some(value) => Some(self.spool(&place.key("spool"), value)),
        };
        let send = match get("send") {
            None => None,
            Some(_) if role == ComponentRole::Source => {
                let hint = "how records travel is said by the node that reads: put 'send' there";
                self.wrong(&place.key("send"), "nothing is sent to a source", hint);
                None
            }
            Some(value) => Some(self.send(&place.key("send"), value)),
        };
        let share = get("share").and_then(|value| self.share(role, &place.key("share"), value));
        let config = table
            .iter()
            .filter(|(key, _)| !RESERVED_KEYS.contains(&key.get_ref().as_ref()));
        let config = self.json_table(&mut place.clone(), config);
        Node {
            id: id.to_string(),
            role,
            component,
            daemon,
            from,
            spool,
            send,
            share,
            config,
        }
    }

    fn from(&mut self, role: ComponentRole, place: &Place, value: Option<&DeValue<'_>>) -> Vec<String> {
        let at = place.key("from");
        let example = "name the nodes it reads from, for example: from = \"db\" or from = [\"a\", \"b\"]";
        match value {
            None if role == ComponentRole::Source => Vec::new(),
            None => {
                self.wrong(place, "'from' is missing", example);
                Vec::new()
            }
            Some(_) if role == ComponentRole::Source => {
                let hint = "remove 'from', or make this a transform";
                self.wrong(&at, "a source reads from outside, not from another node", hint);
                Vec::new()
            }
            Some(DeValue::String(one)) => vec![one.to_string()],
            Some(DeValue::Array(items)) if items.is_empty() => {
                self.wrong(&at, "'from' names no node", example);
                Vec::new()
            }
            Some(DeValue::Array(items)) => {
                let items = items.iter().enumerate();
                items
                    .filter_map(|(index, item)| self.text(&at.item(index), item.get_ref()))
                    .collect()
            }
            Some(other) => {
                self.wrong(
                    &at,
                    format!("'from' must be a name or a list of names, not {}", kind(other)),
                    example,
                );
                Vec::new()
            }
        }
    }

    fn spool(&mut self, place: &Place, value: &DeValue<'_>) -> SpoolPolicy {
        let mut policy = SpoolPolicy::default();
        let DeValue::Table(table) = value else {
            let hint = "for example: spool = { quota = \"1GiB\", when_full = \"block\" }";
            self.wrong(place, format!("'spool' must be a table, not {}", kind(value)), hint);
            return policy;
        };
        for (key, value) in table {
            let key = key.get_ref().as_ref();
            let at = place.key(key);
            match key {
                "quota" => policy.quota_bytes = self.quota(&at, value.get_ref()).unwrap_or(policy.quota_bytes),
                "when_full" => policy.when_full = self.when_full(&at, value.get_ref()).unwrap_or_default(),
                _ => {
                    let hint = suggest(key, "a spool has", ["quota", "when_full"]);
                    self.wrong(&at, format!("unknown key '{}'", clip(key)), hint);
                }
            }
        }
        policy
    }

    fn quota(&mut self, place: &Place, value: &DeValue<'_>) -> Option<u64> {
        let bytes = match value {
            DeValue::String(text) => size_bytes(text),
            DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
                .ok()
                .and_then(|n| u64::try_from(n).ok()),
            _ => None,
        };
        match bytes {
            None => {
                let found = if let DeValue::String(text) = value {
                    format!("'{}'", clip(text))
                } else {
                    kind(value)
                };
                let hint = "write a number of bytes or text such as \"500MB\" or \"1GiB\"";
                self.wrong(place, format!("'quota' must be a size, not {found}"), hint);
            }
            Some(bytes) if bytes < SPOOL_QUOTA_BYTES_MIN => {
                let hint = format!("the smallest quota is {}", size_text(SPOOL_QUOTA_BYTES_MIN));
                self.wrong(
                    place,
                    format!("a quota of {} is too small for a spool", size_text(bytes)),
                    hint,
                );
            }
            Some(_) => {}
        }
        bytes
    }

    fn when_full(&mut self, place: &Place, value: &DeValue<'_>) -> Option<WhenFull> {
        const CHOICES: [(&str, WhenFull); 3] = [
            ("block", WhenFull::Block),
            ("drop_oldest", WhenFull::DropOldest),
            ("drop_newest", WhenFull::DropNewest),
        ];
        let text = self.text(place, value)?;
        let found = CHOICES
            .iter()
            .find(|(name, _)| *name == text)
            .map(|(_, choice)| *choice);
        if found.is_none() {
            let names = CHOICES.map(|(name, _)| name);
            let expected = joined(&names.map(|name| format!("'{name}'")), "or");
            let message = format!("'when_full' must be {expected}, not '{}'", clip(&text));
            let near = nearest(&text, names);
            self.wrong(
                place,
                message,
                near.map(|near| format!("did you mean '{near}'?")).unwrap_or_default(),
            );
        }
        found
    }

    /// Text, or a problem.
    fn text(&mut self, place: &Place, value: &DeValue<'_>) -> Option<String> {
        match value {
            DeValue::String(text) if !text.is_empty() => Some(text.to_string()),
            DeValue::String(_) => {
                self.wrong(place, format!("'{}' is empty", last_key(place)), "");
                None
            }
            other => {
                let hint = "put it in quotes";
                self.wrong(
                    place,
                    format!("'{}' must be text, not {}", last_key(place), kind(other)),
                    hint,
                );
                None
            }
        }
    }

    /// A daemon's name, or what chooses several.
    fn daemon(&mut self, place: &Place, value: &DeValue<'_>) -> Option<String> {
        match value {
            DeValue::String(text) if is_selector(text) => Some(text.trim().to_string()),
            _ => self.name(place, value, "a daemon's name"),
        }
    }

    /// Text that is a name, or a problem.
    fn name(&mut self, place: &Place, value: &DeValue<'_>, what: &str) -> Option<String> {
        let text = self.text(place, value)?;
        if !is_name(&text) {
            self.wrong(place, format!("'{}' cannot be {what}", clip(&text)), NAME_RULE);
            return None;
        }
        Some(text)
    }

    fn json_table<'a, 'i: 'a>(
        &mut self,
        place: &mut Place,
        entries: impl Iterator<Item = (&'a Spanned<std::borrow::Cow<'i, str>>, &'a Spanned<DeValue<'i>>)>,
    ) -> Map<String, Value> {
        let inner = entries.map(|(key, value)| {
            let key = key.get_ref().to_string();
            place.0.push(Part::Key(key.clone()));
            let value = self.json(place, value.get_ref());
            place.0.pop();
            (key, value)
        });
        inner.collect()
    }

    /// A config value as JSON. Dates become text; numbers that JSON cannot hold are problems, and null afterwards.
    fn json(&mut self, place: &mut Place, value: &DeValue<'_>) -> Value {
        match value {
            DeValue::String(text) => Value::String(text.to_string()),
            DeValue::Boolean(flag) => Value::Bool(*flag),
            DeValue::Datetime(time) => Value::String(time.to_string()),
            DeValue::Integer(number) => {
                let (digits, radix) = (number.as_str(), number.radix());
                let signed = i64::from_str_radix(digits, radix).map(Number::from);
                match signed.or_else(|_| u64::from_str_radix(digits, radix).map(Number::from)) {
                    Ok(number) => Value::Number(number),
                    Err(_) => {
                        self.wrong(
                            place,
                            "the number is too large",
                            "whole numbers reach from -2^63 to 2^64 - 1",
                        );
                        Value::Null
                    }
                }
            }
            DeValue::Float(number) => match number.as_str().parse().ok().and_then(Number::from_f64) {
                Some(number) => Value::Number(number),
                None => {
                    self.wrong(
                        place,
                        format!("'{}' is no number a config can hold", clip(number.as_str())),
                        "",
                    );
                    Value::Null
                }
            },
            DeValue::Array(items) => {
                let items = items.iter().enumerate().map(|(index, item)| {
                    place.0.push(Part::Item(index));
                    let item = self.json(place, item.get_ref());
                    place.0.pop();
                    item
                });
                Value::Array(items.collect())
            }
            DeValue::Table(table) => Value::Object(self.json_table(place, table.iter())),
        }
    }
}

fn last_key(place: &Place) -> String {
    match place.0.as_slice() {
        [.., Part::Key(key), Part::Item(index)] => format!("{}[{index}]", clip(key)),
        [.., Part::Key(key)] => clip(key),
        _ => String::new(),
    }
}

/// What a TOML value is, in words.
fn kind(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(_) => "text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number",
        DeValue::Boolean(true) => "true",
        DeValue::Boolean(false) => "false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
    .to_string()
}

const fn sample(role: ComponentRole) -> &'static str {
    match role {
        ComponentRole::Source => "type = \"sqlite\"",
        ComponentRole::Transform => "type = \"filter\"",
        ComponentRole::Destination => "type = \"postgres\"",
    }
}
