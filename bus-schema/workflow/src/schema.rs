//! Checks a config against the JSON Schema of its component, and says what is wrong in the words of a TOML user.
//!
//! Covers what is generated from config types: `type`, `properties`, `required`, `additionalProperties`,
//! `unevaluatedProperties`, `enum`, `const`, `oneOf`, `anyOf`, `allOf`, `items`, `prefixItems`, `$ref` into the same
//! schema, the limits of numbers, lengths and counts, and integer `format`s. Everything else (`pattern`, `not`, …) is left
//! to the component itself, which checks its config again when it is built. A full validator would cost the plane 2 to 4 MB.
//!
//! Schemas come from daemons: a hostile one may waste [`STEPS_MAX`] steps, no more, and never overflows the stack.

mod keyword;
#[cfg(test)]
mod tests;

use serde_json::{Map, Number, Value};

use self::keyword::{
    accepts_any_text, choices, is_type, kind, less, limits, list, literal, object, same, tags, type_hint, type_words,
    types,
};
use crate::{
    spec::{Part, Place},
    words::{clip, joined, nearest, suggest},
};

/// Most schema nodes visited for one config.
const STEPS_MAX: u32 = 200_000;
/// Deepest nesting of schemas followed.
const DEPTH_MAX: u32 = 128;

/// One mistake in a config.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Finding {
    /// Where.
    pub place: Place,
    /// What.
    pub message: String,
    /// What to do.
    pub hint: String,
}

/// The schema cannot be worked through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooComplex;

/// All mistakes in `config`. `place` is where the config stands; `beside` are keys allowed beside the schema's own at the
/// top (only to suggest them).
pub(crate) fn check(
    schema: &Value,
    config: &Map<String, Value>,
    place: &Place,
    beside: &[&str],
) -> Result<Vec<Finding>, TooComplex> {
    let mut checker = Checker {
        root: schema,
        place: place.clone(),
        top: place.0.len(),
        beside,
        steps: 0,
        depth: 0,
    };
    let mut out = Vec::new();
    checker.value(schema, &Value::Object(config.clone()), &mut out);
    if checker.steps > STEPS_MAX {
        Err(TooComplex)
    } else {
        Ok(out)
    }
}

struct Checker<'a> {
    root: &'a Value,
    place: Place,
    top: usize,
    beside: &'a [&'a str],
    steps: u32,
    depth: u32,
}

impl<'a> Checker<'a> {
    fn wrong(&self, out: &mut Vec<Finding>, message: impl Into<String>, hint: impl Into<String>) {
        out.push(Finding {
            place: self.place.clone(),
            message: message.into(),
            hint: hint.into(),
        });
    }

    /// What is meant at this place, for a message: its key in quotes.
    fn subject(&self) -> String {
        match self.place.0.as_slice() {
            [.., Part::Key(key), Part::Item(index)] => format!("'{}[{index}]'", clip(key)),
            [.., Part::Key(key)] => format!("'{}'", clip(key)),
            _ => "the config".to_string(),
        }
    }

    fn value(&mut self, schema: &'a Value, value: &Value, out: &mut Vec<Finding>) {
        self.steps += 1;
        if self.steps > STEPS_MAX || self.depth >= DEPTH_MAX {
            // Out of breath, not out of line: give up on the whole, see `TooComplex`.
            self.steps = STEPS_MAX + 1;
            return;
        }
        // TOML has no null: what could not be read has been told already.
        if value.is_null() {
            return;
        }
        self.depth += 1;
        match schema {
            Value::Bool(false) => self.wrong(out, format!("{} is not allowed here", self.subject()), "remove it"),
            Value::Object(keywords) => self.keywords(keywords, value, out),
            _ => {}
        }
        self.depth -= 1;
    }

    fn keywords(&mut self, schema: &'a Map<String, Value>, value: &Value, out: &mut Vec<Finding>) {
        if let Some(target) = self.target(schema) {
            self.value(target, value, out);
        }
        if let Some(choices) = choices(schema) {
            if !choices.iter().any(|choice| same(choice, value)) {
                self.not_a_choice(&choices, value, out);
            }
        } else if let Some(types) = types(schema)
            && !types.iter().any(|wanted| is_type(wanted, value))
        {
            let message = format!(
                "{} must be {}, not {}",
                self.subject(),
                self.wanted(schema),
                kind(value)
            );
            return self.wrong(out, message, type_hint(&types, value));
        }
        match value {
            Value::Number(number) => self.number(schema, number, out),
            Value::String(text) => self.text(schema, text, out),
            Value::Array(items) => self.items(schema, items, out),
            Value::Object(table) => self.table(schema, table, out),
            Value::Null | Value::Bool(_) => {}
        }
        for part in list(schema, "allOf") {
            self.value(part, value, out);
        }
        for keyword in ["anyOf", "oneOf"] {
            let all = list(schema, keyword);
            if !all.is_empty() {
                self.alternatives(all, value, out);
            }
        }
    }

    fn not_a_choice(&self, choices: &[&Value], value: &Value, out: &mut Vec<Finding>) {
        let named: Vec<String> = choices.iter().map(|choice| literal(choice)).collect();
        let names = choices.iter().filter_map(|choice| choice.as_str());
        let (found, hint) = match value {
            Value::String(text) => {
                let near = nearest(text, names);
                (
                    literal(value),
                    near.map(|near| format!("did you mean '{near}'?")).unwrap_or_default(),
                )
            }
            other => (kind(other), String::new()),
        };
        self.wrong(
            out,
            format!("{} must be {}, not {found}", self.subject(), joined(&named, "or")),
            hint,
        );
    }

    fn number(&self, schema: &Map<String, Value>, number: &Number, out: &mut Vec<Finding>) {
        let limits = limits(schema);
        let below = limits
            .min
            .as_ref()
            .is_some_and(|(min, open)| less(number, min) || (*open && !less(min, number)));
        let above = limits
            .max
            .as_ref()
            .is_some_and(|(max, open)| less(max, number) || (*open && !less(number, max)));
        if !below && !above {
            return;
        }
        let bound = |limit: &(Number, bool), open: &str, closed: &str| {
            format!("{} {}", if limit.1 { open } else { closed }, limit.0)
        };
        let wanted = match (&limits.min, &limits.max) {
            (Some(min), Some(max)) if !min.1 && !max.1 => format!("between {} and {}", min.0, max.0),
            (Some(min), _) if below => bound(min, "more than", "at least"),
            (_, Some(max)) => bound(max, "less than", "at most"),
            _ => return,
        };
        self.wrong(out, format!("{} must be {wanted}, not {number}", self.subject()), "");
    }

    fn text(&self, schema: &Map<String, Value>, text: &str, out: &mut Vec<Finding>) {
        let chars = text.chars().count() as u64;
        self.count(schema, ["minLength", "maxLength"], chars, "characters", out);
    }

    fn count(
        &self,
        schema: &Map<String, Value>,
        [min, max]: [&str; 2],
        count: u64,
        what: &str,
        out: &mut Vec<Finding>,
    ) {
        let get = |keyword: &str| schema.get(keyword).and_then(Value::as_u64);
        let subject = self.subject();
        if get(min) == Some(1) && count == 0 {
            self.wrong(out, format!("{subject} must not be empty"), "");
        } else if let Some(min) = get(min).filter(|min| count < *min) {
            self.wrong(
                out,
                format!("{subject} must have at least {min} {what}, not {count}"),
                "",
            );
        } else if let Some(max) = get(max).filter(|max| count > *max) {
            self.wrong(
                out,
                format!("{subject} must have at most {max} {what}, not {count}"),
                "",
            );
        }
    }

    fn items(&mut self, schema: &'a Map<String, Value>, items: &[Value], out: &mut Vec<Finding>) {
        self.count(schema, ["minItems", "maxItems"], items.len() as u64, "items", out);
        let first = list(schema, "prefixItems");
        for (index, item) in items.iter().enumerate() {
            if let Some(schema) = first.get(index).or_else(|| schema.get("items")) {
                self.inside(Part::Item(index), schema, item, out);
            }
        }
    }

    fn table(&mut self, schema: &'a Map<String, Value>, table: &Map<String, Value>, out: &mut Vec<Finding>) {
        let properties = object(schema, "properties");
        for (key, value) in table {
            if let Some(schema) = properties.and_then(|properties| properties.get(key)) {
                self.inside(Part::Key(key.clone()), schema, value, out);
                continue;
            }
            if object(schema, "patternProperties").is_some_and(|patterns| !patterns.is_empty()) {
                continue;
            }
            match schema.get("additionalProperties") {
                Some(Value::Bool(false)) => {
                    let known = properties
                        .into_iter()
                        .flat_map(|properties| properties.keys().map(String::as_str));
                    self.unknown_key(key, known.collect(), out);
                }
                Some(schema) => self.inside(Part::Key(key.clone()), schema, value, out),
                None => {}
            }
        }
        if schema.get("unevaluatedProperties") == Some(&Value::Bool(false)) {
            let mut known = Vec::new();
            self.all_keys(schema, &mut known, 0);
            for key in table.keys().filter(|key| !known.contains(&key.as_str())) {
                self.unknown_key(key, known.clone(), out);
            }
        }
        for key in list(schema, "required").iter().filter_map(Value::as_str) {
            if !table.contains_key(key) {
                let about = properties.and_then(|properties| properties.get(key));
                self.wrong(out, format!("'{}' is missing", clip(key)), self.about(about));
            }
        }
    }

    fn unknown_key(&mut self, key: &str, mut known: Vec<&'a str>, out: &mut Vec<Finding>) {
        if self.place.0.len() == self.top {
            known.extend(self.beside);
        }
        let hint = match suggest(key, "keys here", known) {
            hint if hint.is_empty() => "remove it".to_string(),
            hint => hint,
        };
        self.place.0.push(Part::Key(key.to_string()));
        self.wrong(out, format!("unknown key '{}'", clip(key)), hint);
        self.place.0.pop();
    }

    /// What a key that is missing should hold: the type and the first sentence of its description.
    fn about(&self, schema: Option<&Value>) -> String {
        let Some(Value::Object(schema)) = schema else {
            return "add it".to_string();
        };
        let target = self.target(schema).and_then(Value::as_object);
        let texts = [Some(schema), target].into_iter().flatten();
        let text = texts
            .filter_map(|schema| schema.get("description")?.as_str())
            .next()
            .unwrap_or_default();
        let end = text.find(". ").or_else(|| text.find("\n\n")).unwrap_or(text.len());
        let first: String = text[..end]
            .trim_end_matches('.')
            .replace('\n', " ")
            .chars()
            .take(200)
            .collect();
        let wanted = self.wanted(schema);
        if first.is_empty() {
            format!("add it: {wanted}")
        } else {
            format!("add it: {wanted}. {first}")
        }
    }

    /// Every key that some part of the schema knows.
    fn all_keys(&self, schema: &'a Map<String, Value>, known: &mut Vec<&'a str>, depth: u32) {
        const KNOWN_MAX: usize = 1_000;
        if depth > 8 || known.len() > KNOWN_MAX {
            return;
        }
        known.extend(
            object(schema, "properties")
                .into_iter()
                .flat_map(|p| p.keys().map(String::as_str)),
        );
        let parts = ["allOf", "anyOf", "oneOf"]
            .into_iter()
            .flat_map(|keyword| list(schema, keyword));
        for part in parts.chain(self.target(schema)).filter_map(Value::as_object) {
            self.all_keys(part, known, depth + 1);
        }
    }

    fn inside(&mut self, part: Part, schema: &'a Value, value: &Value, out: &mut Vec<Finding>) {
        self.place.0.push(part);
        self.value(schema, value, out);
        self.place.0.pop();
    }

    /// At least one of several schemas must hold. If none does, finds the one that was meant and tells its mistakes.
    fn alternatives(&mut self, all: &'a [Value], value: &Value, out: &mut Vec<Finding>) {
        let mut tried = Vec::new();
        for alternative in all {
            let mut found = Vec::new();
            self.value(alternative, value, &mut found);
            if found.is_empty() {
                return;
            }
            tried.push((alternative, found));
        }
        // Text among text constants: one list of choices.
        let words: Vec<&Value> = all.iter().filter_map(|a| choices(a.as_object()?)).flatten().collect();
        let is_word = |value: &Value| value.is_string() && words.iter().any(|word| word.is_string());
        if is_word(value) && !all.iter().any(|a| accepts_any_text(self.resolved(a))) {
            return self.not_a_choice(&words, value, out);
        }
        // Those of the right type; among tables, those that the discriminating key points to.
        let fitting = (0..tried.len()).filter(|at| self.fits(tried[*at].0, value));
        if let Some(meant) = fitting.min_by_key(|at| tried[*at].1.len()) {
            return out.append(&mut tried.swap_remove(meant).1);
        }
        if let Some(finding) = self.tag_finding(all, value) {
            return out.push(finding);
        }
        let wanted = self.wanted_any(all);
        self.wrong(
            out,
            format!("{} must be {wanted}, not {}", self.subject(), kind(value)),
            "",
        );
    }

    /// Whether a value is meant for this alternative: the type is right, and so is what tells alternatives apart.
    fn fits(&self, alternative: &'a Value, value: &Value) -> bool {
        let Value::Object(schema) = self.resolved(alternative) else {
            return false;
        };
        if let Some(choices) = choices(schema) {
            return choices.iter().any(|choice| same(choice, value));
        }
        if types(schema).is_some_and(|types| !types.iter().any(|wanted| is_type(wanted, value))) {
            return false;
        }
        match value {
            Value::Object(table) => {
                let tags = tags(schema);
                let required: Vec<&str> = list(schema, "required").iter().filter_map(Value::as_str).collect();
                // A tagged table says which one it is; any other is told by one of its required keys.
                match tags.as_slice() {
                    [] => required.is_empty() || required.iter().any(|key| table.contains_key(*key)),
                    tags => tags
                        .iter()
                        .all(|(key, tag)| table.get(*key).is_some_and(|found| same(found, tag))),
                }
            }
            _ => true,
        }
    }

    /// When the alternatives are tables that differ by a constant key (`kind = "a"`): what is wrong with that key.
    fn tag_finding(&self, all: &'a [Value], value: &Value) -> Option<Finding> {
        let table = value.as_object()?;
        let tables: Vec<&Map<String, Value>> = all
            .iter()
            .filter_map(|a| self.resolved(a).as_object())
            .filter(|schema| types(schema).is_none_or(|types| types.contains(&"object")))
            .collect();
        let key = tables.iter().flat_map(|schema| tags(schema)).map(|(key, _)| key).next();
        let Some(key) = key else {
            // Tables with one required key each: the key itself is the choice.
            let keys: Vec<&str> = tables
                .iter()
                .flat_map(|schema| list(schema, "required"))
                .filter_map(Value::as_str)
                .collect();
            let unknown = table.keys().find(|key| !keys.contains(&key.as_str()));
            let named: Vec<String> = keys.iter().map(|key| format!("'{key}'")).collect();
            let (place, message) = match unknown {
                _ if keys.is_empty() => return None,
                Some(unknown) => (self.place.key(unknown), format!("unknown key '{}'", clip(unknown))),
                None if table.is_empty() => (self.place.clone(), format!("{} is an empty table", self.subject())),
                None => return None,
            };
            let hint = unknown.and_then(|unknown| nearest(unknown, keys.iter().copied()));
            let hint = hint.map_or_else(
                || format!("write one of {}", joined(&named, "or")),
                |near| format!("did you mean '{near}'?"),
            );
            return Some(Finding { place, message, hint });
        };
        let choices: Vec<&Value> = tables
            .iter()
            .flat_map(|schema| tags(schema))
            .filter(|(k, _)| *k == key)
            .map(|(_, tag)| tag)
            .collect();
        let named: Vec<String> = choices.iter().map(|choice| literal(choice)).collect();
        let named = joined(&named, "or");
        Some(match table.get(key) {
            None => Finding {
                place: self.place.clone(),
                message: format!("'{}' is missing", clip(key)),
                hint: format!("it must be {named}"),
            },
            Some(found) => {
                let near = found
                    .as_str()
                    .and_then(|f| nearest(f, choices.iter().filter_map(|c| c.as_str())));
                Finding {
                    place: self.place.key(key),
                    message: format!("'{}' must be {named}, not {}", clip(key), literal(found)),
                    hint: near.map(|near| format!("did you mean '{near}'?")).unwrap_or_default(),
                }
            }
        })
    }

    /// Where `$ref` points to; `None` without one, or when it points outside.
    fn target(&self, schema: &Map<String, Value>) -> Option<&'a Value> {
        let pointer = schema.get("$ref")?.as_str()?.strip_prefix('#')?;
        if pointer.is_empty() {
            Some(self.root)
        } else {
            self.root.pointer(pointer)
        }
    }

    /// Follows `$ref`s that say nothing else of weight.
    fn resolved(&self, schema: &'a Value) -> &'a Value {
        const HOPS_MAX: usize = 8;
        let mut here = schema;
        for _ in 0..HOPS_MAX {
            match here.as_object().and_then(|schema| self.target(schema)) {
                Some(target) => here = target,
                None => break,
            }
        }
        here
    }

    /// What a schema wants, in words.
    fn wanted(&self, schema: &Map<String, Value>) -> String {
        let parts = self.wanted_parts_of(schema, 0);
        if parts.is_empty() {
            "something else".to_string()
        } else {
            joined(&parts, "or")
        }
    }

    fn wanted_any(&self, all: &'a [Value]) -> String {
        let mut parts: Vec<String> = Vec::new();
        for part in all.iter().flat_map(|schema| self.wanted_parts(schema, 0)) {
            if !parts.contains(&part) {
                parts.push(part);
            }
        }
        if parts.is_empty() {
            "something else".to_string()
        } else {
            joined(&parts, "or")
        }
    }

    fn wanted_parts(&self, schema: &Value, depth: u32) -> Vec<String> {
        schema
            .as_object()
            .map(|schema| self.wanted_parts_of(schema, depth))
            .unwrap_or_default()
    }

    fn wanted_parts_of(&self, schema: &Map<String, Value>, depth: u32) -> Vec<String> {
        const DEPTH_MAX: u32 = 4;
        const PARTS_MAX: usize = 12;
        if depth > DEPTH_MAX {
            return Vec::new();
        }
        if let Some(choices) = choices(schema) {
            return choices.into_iter().take(PARTS_MAX).map(literal).collect();
        }
        if let Some(types) = types(schema) {
            return types
                .into_iter()
                .filter(|name| *name != "null")
                .map(|name| type_words(name, schema))
                .collect();
        }
        let inner = ["anyOf", "oneOf", "allOf"]
            .into_iter()
            .flat_map(|keyword| list(schema, keyword));
        let mut parts: Vec<String> = Vec::new();
        for part in inner
            .chain(self.target(schema))
            .flat_map(|part| self.wanted_parts(part, depth + 1))
        {
            if !parts.contains(&part) && parts.len() < PARTS_MAX {
                parts.push(part);
            }
        }
        parts
    }
}
