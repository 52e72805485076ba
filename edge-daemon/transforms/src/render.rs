//! Transform `render`: writes columns into one text.

use bus_schema::{
    data::{Batch, Cell, Field, Type, Value},
    plan::{ComponentRole, Descriptor},
};
use flow::{Build, BuildContext, Component, ConfigError, Fault, Transform, Transformed, describe, parse_config};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    cells::{compute_bounded, named_columns, put, untold, without},
    convert::convert,
    line::{Line, Precision},
    logfmt,
    parse::delimiter,
    text::push_json,
};

/// Writes columns into one text, in a column of its own. The columns stay: `select` keeps the text alone. A row that the
/// format has no way to write goes to the dead letters. So does an update that does not say what one of the columns is, since
/// it did not change: the text would replace a whole one (REPLICA IDENTITY FULL makes PostgreSQL say it).
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// The column for the text. One of this name is replaced.
    column: String,
    /// How to write it.
    format: Format,
    /// The columns to write, in this order; without this all of them. `line_protocol`: its fields, without this all that are
    /// neither tags nor the time.
    columns: Option<Vec<String>>,
    /// `csv`: what separates the fields, an ASCII character; without this a comma.
    delimiter: Option<char>,
    /// `line_protocol`: the name of the measurement.
    measurement: Option<String>,
    /// `line_protocol`: the columns that are tags.
    tags: Option<Vec<String>>,
    /// `line_protocol`: the column with the time; without this, lines have none.
    time: Option<String>,
    /// `line_protocol`: what the times count; without this nanoseconds. What is finer is cut off.
    precision: Option<Precision>,
}

/// How to write it.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Format {
    /// A JSON object. Missing fields are left out.
    Json,
    /// One line of fields between commas, without its end. Null and missing are empty.
    Csv,
    /// `name=value other="two words"`. What has no value is left out.
    Logfmt,
    /// InfluxDB's line protocol. What has no value is left out.
    LineProtocol,
}

/// The registry line.
pub(crate) const RENDER: Component = Component {
    descriptor,
    build: Build::Transform(build),
};

const EXAMPLE: &str = r#"name = "lines"

[sources.readings]
type = "file"
path = "readings.jsonl"
format = "json_lines"

[transforms.line]
type = "render"
from = "readings"
column = "text"
format = "line_protocol"
measurement = "oven"
tags = ["line"]
columns = ["temperature"]

[destinations.out]
type = "stdout"
from = "line"
"#;

fn descriptor() -> Descriptor {
    let summary = "Writes columns into one text";
    describe::<Config>(ComponentRole::Transform, "render", summary, EXAMPLE)
}

fn build(config: &str, _: &BuildContext) -> Result<Box<dyn Transform>, ConfigError> {
    let config: Config = parse_config(config)?;
    for (key, is_there, of) in [
        ("delimiter", config.delimiter.is_some(), Format::Csv),
        ("measurement", config.measurement.is_some(), Format::LineProtocol),
        ("tags", config.tags.is_some(), Format::LineProtocol),
        ("time", config.time.is_some(), Format::LineProtocol),
        ("precision", config.precision.is_some(), Format::LineProtocol),
    ] {
        if is_there && config.format != of {
            return Err(ConfigError::at(key, "is for another format"));
        }
    }
    if config.column.is_empty() {
        return Err(ConfigError::at("column", "name the column for the text"));
    }
    for (key, names) in [("columns", &config.columns), ("tags", &config.tags)] {
        if let Some(names) = names {
            named_columns(key, names)?;
        }
    }
    let how = match config.format {
        Format::Json => How::Json,
        Format::Csv => How::Csv(delimiter(config.delimiter)?),
        Format::Logfmt => How::Logfmt,
        Format::LineProtocol => {
            let measurement = config.measurement.unwrap_or_default();
            Line::of(&measurement).map_err(|why| ConfigError::at("measurement", why))?;
            How::LineProtocol {
                measurement,
                tags: config.tags.unwrap_or_default(),
                time: config.time,
                precision: config.precision.unwrap_or_default(),
            }
        }
    };
    Ok(Box::new(Render {
        column: config.column,
        columns: config.columns,
        how,
    }))
}

struct Render {
    column: String,
    columns: Option<Vec<String>>,
    how: How,
}

enum How {
    Json,
    Csv(u8),
    Logfmt,
    LineProtocol {
        measurement: String,
        tags: Vec<String>,
        time: Option<String>,
        precision: Precision,
    },
}

/// One row: names and values.
struct Row<'a> {
    batch: &'a Batch,
    row: usize,
}

impl<'a> Row<'a> {
    fn cell(&self, name: &str) -> Cell<'a> {
        let place = self.batch.schema().index_of(name);
        place.map_or(Cell::Missing, |place| self.batch.cell(self.row, place))
    }

    /// Those of the columns that are lists, as JSON: shown without quotes, it could not be told what their items were.
    fn lists(&self, names: &[String]) -> Result<Vec<Option<Value>>, String> {
        let list = |name: &String| match self.cell(name) {
            cell @ Cell::List(_) => convert(cell, &Type::Json)
                .map(Some)
                .map_err(|why| format!("column '{name}' {why}")),
            _ => Ok(None),
        };
        names.iter().map(list).collect()
    }
}

impl Transform for Render {
    fn apply(&mut self, batch: Batch) -> Result<Transformed, Fault> {
        let names = self.names(&batch);
        let has_list = |name: &String| {
            let place = batch.schema().index_of(name);
            place.is_some_and(|place| matches!(batch.schema().fields[place].ty, Type::List | Type::Any))
        };
        let has_lists = names.iter().any(has_list);
        let untold_columns = self.untold_columns(&batch, &names);
        let (mut values, rejected) = compute_bounded(&batch, 1, |row, _| {
            if let Some(place) = untold_columns
                .iter()
                .find(|place| batch.cell(row, **place) == Cell::Unchanged)
            {
                return Err(untold(&batch.schema().fields[*place].name));
            }
            let row = Row { batch: &batch, row };
            let lists = if has_lists { row.lists(&names)? } else { Vec::new() };
            let fields = names.iter().enumerate().map(|(at, name)| {
                let list = lists.get(at).and_then(Option::as_ref);
                (name.as_str(), list.map_or_else(|| row.cell(name), Value::as_cell))
            });
            let text = match &self.how {
                How::Json => json(fields),
                How::Csv(delimiter) => csv_line(fields, *delimiter),
                How::Logfmt => logfmt::write(fields),
                How::LineProtocol { .. } => self.line(&row, fields),
            };
            text.map(Value::Text)
        });
        let batch = without(batch, &rejected);
        let values = values.pop().unwrap_or_default();
        let batch = put(&batch, [(Field::new(&self.column, Type::Text), values)])?;
        Ok(Transformed { batch, rejected })
    }
}

impl Render {
    /// The columns to be written.
    fn names(&self, batch: &Batch) -> Vec<String> {
        if let Some(names) = &self.columns {
            return names.clone();
        }
        let is_field = |name: &String| match &self.how {
            How::LineProtocol { tags, time, .. } => !tags.contains(name) && time.as_ref() != Some(name),
            _ => true,
        };
        let names = batch.schema().fields.iter().map(|field| &field.name);
        names.filter(|name| is_field(name)).cloned().collect()
    }

    /// Where the written columns stand in which a value may not be told.
    fn untold_columns(&self, batch: &Batch, names: &[String]) -> Vec<usize> {
        let fields = batch.schema().fields.iter().zip(batch.columns()).enumerate();
        let is_written = |name: &String| {
            let beside = match &self.how {
                How::LineProtocol { tags, time, .. } => tags.contains(name) || time.as_ref() == Some(name),
                How::Json | How::Csv(_) | How::Logfmt => false,
            };
            beside || names.contains(name)
        };
        fields
            .filter(|(_, (field, column))| !column.is_told() && is_written(&field.name))
            .map(|(place, _)| place)
            .collect()
    }

    fn line<'a>(&self, row: &Row<'a>, fields: impl Iterator<Item = (&'a str, Cell<'a>)>) -> Result<String, String> {
        let How::LineProtocol {
            measurement,
            tags,
            time,
            precision,
        } = &self.how
        else {
            return Ok(String::new());
        };
        let mut line = Line::of(measurement)?;
        for tag in tags {
            line.tag(tag, row.cell(tag))?;
        }
        for (name, cell) in fields {
            line.field(name, cell)?;
        }
        line.finish(time.as_ref().map_or(Cell::Missing, |time| row.cell(time)), *precision)
    }
}

fn json<'a>(fields: impl Iterator<Item = (&'a str, Cell<'a>)>) -> Result<String, String> {
    let mut out = vec![b'{'];
    for (name, cell) in fields.filter(|(_, cell)| *cell != Cell::Missing) {
        if out.len() > 1 {
            out.push(b',');
        }
        push_json(&mut out, Cell::Text(name))?;
        out.push(b':');
        push_json(&mut out, cell).map_err(|why| format!("column '{name}' {why}"))?;
    }
    out.push(b'}');
    String::from_utf8(out).map_err(|error| error.to_string())
}

fn csv_line<'a>(fields: impl Iterator<Item = (&'a str, Cell<'a>)>, delimiter: u8) -> Result<String, String> {
    let mut writer = csv::WriterBuilder::new()
        .delimiter(delimiter)
        .terminator(csv::Terminator::Any(b'\n'))
        .from_writer(Vec::new());
    let texts = fields.map(|(_, cell)| {
        if cell.is_value() {
            cell.to_string()
        } else {
            String::new()
        }
    });
    writer.write_record(texts).map_err(|error| error.to_string())?;
    let mut line = writer.into_inner().map_err(|error| error.to_string())?;
    line.pop();
    String::from_utf8(line).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use bus_schema::data::{BatchBuilder, Op, Origin, Schema};

    use super::*;
    use crate::{
        columns::SELECT,
        parse::PARSE,
        testing::{check, check_config, shown, shown_schema, table, transform},
    };

    #[test]
    fn columns_become_a_text() {
        let input = table(
            &["k:i64", "t:text", "f:f64", "at:timestamp_utc"],
            &["1|a \"b\"|0.5|1970-01-01T00:00:01.5Z", "~|?|?|~", "3||NaN|?"],
        );
        for (config, kept, rejected) in [
            (
                r#"{"format": "json"}"#,
                r#"{"k":1,"t":"a \"b\"","f":0.5,"at":"1970-01-01T00:00:01.500Z"}
{"k":null,"at":null}
{"k":3,"t":"","f":"NaN"}"#,
                "",
            ),
            (
                r#"{"format": "csv", "columns": ["t", "none", "k"], "delimiter": ";"}"#,
                "\"a \"\"b\"\"\";;1\n;;\n;;3",
                "",
            ),
            (
                r#"{"format": "logfmt", "columns": ["k", "t"]}"#,
                "k=1 t=\"a \\\"b\\\"\"\n\nk=3 t=\"\"",
                "",
            ),
            (
                r#"{"format": "line_protocol", "measurement": "m x", "tags": ["t"], "time": "at", "precision": "ms"}"#,
                "m\\ x,t=a\\ \"b\" k=1i,f=0.5 1500",
                "1: no field has a value\n2: 'f' is NaN, which a float",
            ),
            (
                r#"{"format": "line_protocol", "measurement": "m", "columns": ["k", "t"]}"#,
                "m k=1i,t=\"a \\\"b\\\"\"\nm k=3i,t=\"\"",
                "1: no field has a value",
            ),
        ] {
            let config = config.replacen('{', "{\"column\": \"out\", ", 1);
            let done = transform(&RENDER, &config).apply(input.clone()).unwrap();
            assert_eq!(
                shown_schema(&done.batch),
                "k:i64 t:text f:f64 at:timestamp_utc out:text"
            );
            let place = done.batch.columns().len() - 1;
            let texts: Vec<String> = (0..done.batch.rows())
                .map(|row| done.batch.cell(row, place).to_string())
                .collect();
            assert_eq!(texts.join("\n"), kept, "{config}: {:?}", done.rejected);
            let found: Vec<String> = done.rejected.iter().map(|(row, why)| format!("{row}: {why}")).collect();
            assert_eq!(found.len(), rejected.lines().count(), "{config}: {found:?}");
            assert!(
                found
                    .iter()
                    .zip(rejected.lines())
                    .all(|(found, wanted)| found.starts_with(wanted)),
                "{found:?}"
            );
        }
        // What did not change is not told, and not nothing.
        let rows = &["1|2|=|1970-01-01T00:00:01Z", "=|2|x|1970-01-01T00:00:01Z", "3|4|y|="];
        let input = table(&["k:i64", "n:i64", "t:text", "at:timestamp_utc"], rows);
        for (config, kept, rejected) in [
            (
                r#"{"format": "json", "columns": ["n"]}"#,
                [r#"{"n":2}"#, r#"{"n":2}"#, r#"{"n":4}"#].as_slice(),
                "",
            ),
            (
                r#"{"format": "json", "columns": ["n", "t"]}"#,
                &[r#"{"n":2,"t":"x"}"#, r#"{"n":4,"t":"y"}"#],
                "0: the update does not say what 't' is",
            ),
            (
                r#"{"format": "csv"}"#,
                &[],
                "0: the update does not say what 't' is\n1: the update does not say what 'k' is\n2: the",
            ),
            (
                r#"{"format": "logfmt", "columns": ["k", "n"]}"#,
                &["k=1 n=2", "k=3 n=4"],
                "1: the update does not say what 'k' is",
            ),
            (
                r#"{"format": "line_protocol", "measurement": "m", "columns": ["n"], "tags": ["t"], "time": "at", "precision": "s"}"#,
                &["m,t=x n=2i 1"],
                "0: the update does not say what 't' is\n2: the update does not say what 'at' is",
            ),
        ] {
            let config = config.replacen('{', "{\"column\": \"out\", ", 1);
            let done = transform(&RENDER, &config).apply(input.clone()).unwrap();
            let found: Vec<String> = done.rejected.iter().map(|(row, why)| format!("{row}: {why}")).collect();
            let starts = found
                .iter()
                .zip(rejected.lines())
                .all(|(found, wanted)| found.starts_with(wanted));
            assert!(starts && found.len() == rejected.lines().count(), "{config}: {found:?}");
            let out = transform(&SELECT, r#"{"columns": ["out"]}"#).apply(done.batch).unwrap();
            assert_eq!(shown(&out.batch), kept.join("\n"), "{config}");
        }
        let replaced = r#"{"column": "k", "format": "csv", "columns": ["k"]}"#;
        check(&RENDER, replaced, table(&["k:i64"], &["5", "~"]), "5\n\"\"", "");
    }

    #[test]
    fn mistakes_are_named() {
        for (config, wanted) in [
            (r#"{"column": "", "format": "json"}"#, "column: name the column"),
            (
                r#"{"column": "a", "format": "json", "tags": ["b"]}"#,
                "tags: is for another format",
            ),
            (
                r#"{"column": "a", "format": "csv", "columns": []}"#,
                "columns: name at least one",
            ),
            (
                r#"{"column": "a", "format": "csv", "delimiter": "é"}"#,
                "delimiter: it is an ASCII",
            ),
            (
                r#"{"column": "a", "format": "line_protocol"}"#,
                "measurement: line protocol has no way to write ''",
            ),
        ] {
            check_config(&RENDER, config, wanted);
        }
    }

    #[test]
    fn lists_are_json_in_every_format() {
        let schema = Schema {
            collection: "t".into(),
            fields: vec![Field::new("n", Type::I64), Field::new("l", Type::List)],
        };
        let list = [Value::Text("a, \"b\"".into()), Value::Null, Value::I64(1)];
        let mut rows = BatchBuilder::new(schema.into());
        rows.push(Op::Insert, &[Cell::I64(1), Cell::List(&list)]).unwrap();
        let batch = rows.finish(Origin::default());
        for (how, wanted) in [
            (r#""format": "json""#, r#"{"n":1,"l":["a, \"b\"",null,1]}"#),
            (r#""format": "csv""#, r#"1,"[""a, \""b\"""",null,1]""#),
            (r#""format": "logfmt""#, r#"n=1 l="[\"a, \\\"b\\\"\",null,1]""#),
            (
                r#""format": "line_protocol", "measurement": "m""#,
                r#"m n=1i,l="[\"a, \\\"b\\\"\",null,1]""#,
            ),
        ] {
            let config = format!("{{\"column\": \"out\", {how}}}");
            let out = transform(&RENDER, &config).apply(batch.clone()).unwrap();
            assert_eq!(out.batch.cell(0, 2), Cell::Text(wanted), "{how}");
        }
    }

    proptest::proptest! {
        #[test]
        fn what_is_rendered_parses(int: i64, text in "[^|~?=]*[a-z]") {
            let row = format!("{int}|{text}");
            let input = table(&["n:i64", "t:text"], &[&row]);
            for (how, back) in [
                (r#""format": "json""#, ""),
                (r#""format": "csv""#, r#", "names": ["n", "t"]"#),
                (r#""format": "logfmt""#, ""),
            ] {
                let render = format!("{{\"column\": \"out\", {how}}}");
                let rendered = transform(&RENDER, &render).apply(input.clone()).unwrap().batch;
                let only = transform(&crate::columns::SELECT, r#"{"columns": ["out"]}"#).apply(rendered).unwrap().batch;
                let parse = format!("{{\"column\": \"out\", {how}{back}}}");
                let parsed = transform(&PARSE, &parse).apply(only).unwrap();
                proptest::prop_assert_eq!(shown(&parsed.batch), row.clone(), "{}: {:?}", how, parsed.rejected);
            }
        }
    }
}
