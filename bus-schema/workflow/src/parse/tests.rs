//! `[tests.<name>]`: examples kept with a workflow, of what comes of given records.

use bus_schema::plan::ComponentRole;
use serde_json::{Map, Value};
use toml::de::{DeTable, DeValue};

use super::{NAME_RULE, Reader, is_name, kind};
use crate::{
    spec::{Place, Spec, Test},
    words::{clip, suggest},
};

const KEYS: [&str; 4] = ["given", "expect", "reject", "types"];
const SHAPE: &str = "write [tests.<name>], with given.<source> and expect.<node> as lists of records below it";
/// Most tests of a workflow.
const TESTS_MAX: usize = 64;
/// Most records in one list.
const ROWS_MAX: usize = 1_000;

impl Reader {
    /// Reads all tests.
    pub(super) fn tests(&mut self, value: &DeValue<'_>) -> Vec<Test> {
        let place = Place::root().key("tests");
        let DeValue::Table(table) = value else {
            self.wrong(&place, format!("'tests' must hold tables, not {}", kind(value)), SHAPE);
            return Vec::new();
        };
        if table.len() > TESTS_MAX {
            let message = format!("the workflow has {} tests; at most {TESTS_MAX} fit", table.len());
            self.wrong(&place, message, "split it into several workflows");
        }
        let mut tests = Vec::new();
        for (key, value) in table.iter().take(TESTS_MAX) {
            let name = key.get_ref().as_ref();
            let at = place.key(name);
            let lines = self.lines_of(key.span().start, value);
            let section = self.lines.keys.entry("tests".to_string()).or_default();
            section.keys.insert(name.to_string(), lines);
            if !is_name(name) {
                self.wrong(&at, format!("'{}' cannot be the name of a test", clip(name)), NAME_RULE);
            }
            match value.get_ref() {
                DeValue::Table(table) => tests.push(self.test(name, &at, table)),
                other => {
                    let message = format!("'{}' must be a table, not {}", clip(name), kind(other));
                    self.wrong(&at, message, SHAPE);
                }
            }
        }
        tests
    }

    fn test(&mut self, name: &str, place: &Place, table: &DeTable<'_>) -> Test {
        let mut test = Test {
            name: name.to_string(),
            ..Test::default()
        };
        for (key, value) in table {
            let key = key.get_ref().as_ref();
            let (at, value) = (place.key(key), value.get_ref());
            if !KEYS.contains(&key) {
                let hint = suggest(key, "a test has", KEYS);
                self.wrong(&at, format!("unknown key '{}'", clip(key)), hint);
                continue;
            }
            let DeValue::Table(inner) = value else {
                self.wrong(&at, format!("'{key}' must be a table, not {}", kind(value)), SHAPE);
                continue;
            };
            for (node, value) in inner {
                let node = node.get_ref().as_ref();
                let (at, value) = (at.key(node), value.get_ref());
                let node = node.to_string();
                match key {
                    "given" => test.given.push((node, self.records(&at, value))),
                    "expect" => test.expect.push((node, self.records(&at, value))),
                    "reject" => test.reject.push((node, self.reasons(&at, value))),
                    _ => test.types.extend(self.text(&at, value).map(|ty| (node, ty))),
                }
            }
        }
        if test.given.is_empty() {
            self.wrong(
                place,
                "the test gives no records",
                "for example: given.db = [{ id = 1 }]",
            );
        } else if test.expect.is_empty() && test.reject.is_empty() {
            self.wrong(
                place,
                "the test expects nothing",
                "for example: expect.out = [{ id = 1 }]",
            );
        }
        test
    }

    fn records(&mut self, place: &Place, value: &DeValue<'_>) -> Vec<Map<String, Value>> {
        let hint = "for example: [{ id = 1, name = \"anna\" }, { id = 2 }]; a list may be empty";
        let DeValue::Array(items) = value else {
            let message = format!("records are a list of tables, not {}", kind(value));
            self.wrong(place, message, hint);
            return Vec::new();
        };
        if items.len() > ROWS_MAX {
            let message = format!(
                "there are {} records; a test has at most {ROWS_MAX} in a list",
                items.len()
            );
            self.wrong(place, message, "a few that show what matters are better");
        }
        let mut records = Vec::new();
        for (index, item) in items.iter().take(ROWS_MAX).enumerate() {
            let at = place.item(index);
            match item.get_ref() {
                DeValue::Table(table) => records.push(self.json_table(&mut at.clone(), table.iter())),
                other => self.wrong(&at, format!("a record is a table, not {}", kind(other)), hint),
            }
        }
        records
    }

    fn reasons(&mut self, place: &Place, value: &DeValue<'_>) -> Vec<String> {
        let DeValue::Array(items) = value else {
            let message = format!("reasons are a list of texts, not {}", kind(value));
            self.wrong(
                place,
                message,
                "a part of the reason for each record that is rejected, in order",
            );
            return Vec::new();
        };
        let items = items.iter().enumerate();
        items
            .filter_map(|(index, item)| self.text(&place.item(index), item.get_ref()))
            .collect()
    }

    /// Tests give records to sources and expect them of nodes that there are.
    pub(super) fn tests_fit(&mut self, spec: &Spec) {
        for test in &spec.tests {
            let place = Place::root().key("tests").key(&test.name);
            let named = |list: &str, nodes: Vec<&String>| {
                nodes
                    .into_iter()
                    .map(|node| (place.key(list).key(node), node.clone()))
                    .collect::<Vec<_>>()
            };
            let given = named("given", test.given.iter().map(|(node, _)| node).collect());
            let mut others = named("expect", test.expect.iter().map(|(node, _)| node).collect());
            others.extend(named("reject", test.reject.iter().map(|(node, _)| node).collect()));
            let roles = |is_wanted: fn(ComponentRole) -> bool| {
                let nodes = spec.nodes.iter().filter(move |node| is_wanted(node.role));
                nodes.map(|node| node.id.as_str())
            };
            for (at, node) in given {
                if !roles(|role| role == ComponentRole::Source).any(|id| id == node) {
                    let hint = suggest(&node, "sources", roles(|role| role == ComponentRole::Source));
                    self.wrong(
                        &at,
                        format!("there is no source '{}' to give records to", clip(&node)),
                        hint,
                    );
                }
            }
            for (at, node) in others {
                // An output of a node is expected under its own name: `split.hot`.
                let base = node.split_once('.').map_or(node.as_str(), |(base, _)| base);
                if !roles(|role| role != ComponentRole::Source).any(|id| id == base) {
                    let hint = suggest(&node, "nodes", roles(|role| role != ComponentRole::Source));
                    let message = format!("there is no transform or destination '{}'", clip(&node));
                    self.wrong(&at, message, hint);
                }
            }
        }
    }
}
