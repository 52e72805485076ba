//! Transform `flatten`: the fields of JSON objects become columns.

use bus_schema::{
    data::{Batch, Cell},
    plan::{ComponentRole, Descriptor},
};
use flow::{Build, BuildContext, Component, ConfigError, Fault, Transform, Transformed, describe, parse_config};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    cells::{named_columns, places},
    object::fields,
    spread::spread,
    text::shorten,
};

/// Deepest nesting that can be asked for.
const DEPTH_MAX: usize = 16;

/// Makes columns of the fields of JSON objects: `payload` = `{"temp": 20, "at": {"x": 1}}` becomes `payload_temp` and
/// `payload_at_x`. Arrays stay as they are. A row goes to the dead letters whose value is no object, or gives a column that
/// the record has already.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// The columns with the objects. One that a batch does not have is passed over.
    columns: Vec<String>,
    /// What stands between the names.
    #[serde(default = "separator")]
    separator: String,
    /// What the new names begin with. Without this: the name of the column and the separator.
    prefix: Option<String>,
    /// How deep objects within objects are taken apart, from 1 to 16; what lies deeper stays JSON.
    #[serde(default = "depth")]
    depth: usize,
    /// The columns with the objects stay too.
    #[serde(default)]
    keep: bool,
}

fn separator() -> String {
    "_".to_string()
}

fn depth() -> usize {
    DEPTH_MAX
}

/// The registry line.
pub(crate) const FLATTEN: Component = Component {
    descriptor,
    build: Build::Transform(build),
};

const EXAMPLE: &str = r#"name = "flat"

[sources.readings]
type = "file"
path = "readings.jsonl"
format = "json_lines"

[transforms.flat]
type = "flatten"
from = "readings"
columns = ["payload"]

[destinations.out]
type = "stdout"
from = "flat"
"#;

fn descriptor() -> Descriptor {
    let summary = "Makes columns of the fields of JSON objects";
    describe::<Config>(ComponentRole::Transform, "flatten", summary, EXAMPLE)
}

fn build(config: &str, _: &BuildContext) -> Result<Box<dyn Transform>, ConfigError> {
    let config: Config = parse_config(config)?;
    named_columns("columns", &config.columns)?;
    if !(1..=DEPTH_MAX).contains(&config.depth) {
        return Err(ConfigError::at("depth", format!("it is from 1 to {DEPTH_MAX}")));
    }
    Ok(Box::new(Flatten { config, left: 0 }))
}

struct Flatten {
    config: Config,
    /// Rows of the last batch that it has not taken.
    left: usize,
}

impl Transform for Flatten {
    fn apply(&mut self, batch: Batch) -> Result<Transformed, Fault> {
        let Config {
            separator, depth, keep, ..
        } = &self.config;
        let places = places(&batch, &self.config.columns);
        let schema = batch.schema().clone();
        let (done, left) = spread(batch, &places, *keep, |place, cell| {
            let own = || format!("{}{separator}", schema.fields[place].name);
            let prefix = self.config.prefix.clone().unwrap_or_else(own);
            match cell {
                Cell::Json(text) | Cell::Text(text) => fields(text, &prefix, separator, depth - 1),
                cell => Err(format!("is no JSON object: '{}'", shorten(&cell.to_string()))),
            }
        })?;
        self.left = left;
        Ok(done)
    }

    fn left(&mut self) -> usize {
        self.left
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check, check_config, shown_schema, table, transform};

    #[test]
    fn fields_become_columns() {
        let input = table(
            &["k:i64", "p:json", "t:text"],
            &[
                r#"1|{"a": 1, "b": {"c": "x", "d": {"e": true}}}|{"a": 1.5}"#,
                r#"2|{"b": {"c": null}, "z": [1, 2]}|~"#,
                "3|~|{}",
                "4|=|?",
                "5|[1]|{}",
                r#"6|{"a": 2}|nothing"#,
            ],
        );
        for (config, kept, rejected, schema) in [
            (
                r#"{"columns": ["p"], "keep": true, "depth": 1}"#,
                "1|{\"a\": 1, \"b\": {\"c\": \"x\", \"d\": {\"e\": true}}}|{\"a\": 1.5}|1|{\"c\": \"x\", \"d\": {\"e\": \
                 true}}|?\n2|{\"b\": {\"c\": null}, \"z\": [1, 2]}|~|?|{\"c\": null}|[1,2]\n3|~|{}|?|?|?\n4|=|?|?|?|?\n\
                 6|{\"a\": 2}|nothing|2|?|?",
                "4: column 'p' is no JSON object: '[1]'",
                "k:i64 p:json t:text p_a:i64 p_b:json p_z:list",
            ),
            (
                r#"{"columns": ["p", "t", "none"], "separator": "."}"#,
                "1|1|x|true|1.5|?\n2|?|~|?|?|[1,2]\n3|?|?|?|?|?\n4|?|?|?|?|?",
                "4: column 'p' is no JSON object\n5: column 't' is no JSON object: 'nothing'",
                "k:i64 p.a:i64 p.b.c:text p.b.d.e:bool t.a:f64 p.z:list",
            ),
            (
                r#"{"columns": ["p", "t"], "prefix": ""}"#,
                "2|~|[1,2]\n3|?|?\n4|?|?",
                "0: two fields 'a' came of it\n4: \n5: ",
                "k:i64 b_c:any z:list",
            ),
        ] {
            check(&FLATTEN, config, input.clone(), kept, rejected);
            let done = transform(&FLATTEN, config).apply(input.clone()).unwrap();
            assert_eq!(shown_schema(&done.batch), schema);
        }
        let clash = table(&["a:i64", "p:json"], &[r#"1|{"a": 2, "b": 3}"#, r#"2|{"c": 4}"#]);
        check(
            &FLATTEN,
            r#"{"columns": ["p"], "prefix": ""}"#,
            clash,
            "2|4",
            "0: the record has a field 'a' already: give `prefix` another text",
        );
        let bare = table(&["p:json"], &["{}", "1", "~"]);
        check(
            &FLATTEN,
            r#"{"columns": ["p"]}"#,
            bare,
            "",
            "0: no field would be left\n1: column 'p' is no\n2: no field would be left",
        );
    }

    #[test]
    fn columns_are_bounded() {
        let rows: Vec<String> = (0..30)
            .map(|row| {
                let fields: Vec<String> = (0..40).map(|n| format!("\"f{row}x{n}\":1")).collect();
                format!("{row}|{{{}}}", fields.join(","))
            })
            .collect();
        let input = table(
            &["k:i64", "p:json"],
            &rows.iter().map(String::as_str).collect::<Vec<_>>(),
        );
        let mut flatten = transform(&FLATTEN, r#"{"columns": ["p"]}"#);
        let (mut at, mut pieces) = (0, Vec::new());
        while at < input.rows() {
            let done = flatten.apply(input.slice(at..input.rows())).unwrap();
            assert_eq!(
                done.rejected,
                [],
                "the others do not fit, and nothing is wrong with them"
            );
            pieces.push((done.batch.rows(), done.batch.columns().len()));
            at = input.rows() - flatten.left();
        }
        assert_eq!(pieces, [(25, 1_001), (5, 201)]);
    }

    #[test]
    fn records_are_as_wide_as_a_schema() {
        let many = |fields: usize| {
            let fields: Vec<String> = (0..fields).map(|n| format!("\"f{n}\":{n}")).collect();
            format!("{{{}}}", fields.join(","))
        };
        let others: Vec<String> = (0..30).map(|n| format!("o{n}:i64")).collect();
        let columns: Vec<&str> = ["p:json"]
            .into_iter()
            .chain(others.iter().map(String::as_str))
            .collect();
        let row = |object: String| format!("{object}{}", "|1".repeat(30));
        let rows = [row(many(994)), row(many(995)), row(many(2))];
        let input = table(&columns, &rows.each_ref().map(String::as_str));
        let mut flatten = transform(&FLATTEN, r#"{"columns": ["p"]}"#);
        let done = flatten.apply(input.clone()).unwrap();
        assert_eq!(
            (done.batch.rows(), done.batch.columns().len(), flatten.left()),
            (1, 1_024, 2)
        );
        let done = flatten.apply(input.slice(1..3)).unwrap();
        assert_eq!(
            (done.batch.rows(), done.batch.columns().len(), flatten.left()),
            (1, 32, 0)
        );
        assert_eq!(
            done.rejected,
            [(
                0,
                "more than 994 fields came of it, and a record has 1024 at most".to_string()
            )]
        );
    }

    #[test]
    fn mistakes_are_named() {
        for (config, wanted) in [
            (r#"{"columns": []}"#, "columns: name at least one"),
            (r#"{"columns": ["a"], "depth": 0}"#, "depth: it is from 1 to 16"),
            (r#"{"columns": ["a"], "arrays": true}"#, "unknown field `arrays`"),
        ] {
            check_config(&FLATTEN, config, wanted);
        }
    }
}
