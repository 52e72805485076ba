//! Transform `parse`: takes texts apart into columns.

use bus_schema::{
    data::{Batch, Cell, Value},
    plan::{ComponentRole, Descriptor},
};
use flow::{Build, BuildContext, Component, ConfigError, Fault, Transform, Transformed, describe, parse_config};
use regex::Regex;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    cells::{named_columns, places},
    line::Precision,
    line_protocol, logfmt, object,
    pattern::compile,
    spread::{Found, spread},
    text::shorten,
};

/// Takes texts apart into columns. JSON and line protocol give typed values, the other formats texts: `cast` gives them
/// types. A row goes to the dead letters whose text is not in the format, or gives a column that the record has already.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// The column with the texts. A batch that does not have it passes as it is.
    column: String,
    /// What the texts are.
    format: Format,
    /// `csv`: the names of the fields.
    names: Option<Vec<String>>,
    /// `csv`: what separates the fields, an ASCII character; without this a comma.
    delimiter: Option<char>,
    /// `regex`: the expression, with a named group for each column: `(?<level>[A-Z]+) (?<text>.*)`.
    pattern: Option<String>,
    /// `line_protocol`: what the times count; without this nanoseconds.
    precision: Option<Precision>,
    /// What the new names begin with.
    #[serde(default)]
    prefix: String,
    /// The column with the texts stays too.
    #[serde(default)]
    keep: bool,
}

/// What the texts are.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Format {
    /// A JSON object; each of its fields gives a column. For objects within: `flatten`.
    Json,
    /// One line of fields between commas, quoted where needed.
    Csv,
    /// `name=value other="two words"`.
    Logfmt,
    /// Whatever a regular expression says.
    Regex,
    /// InfluxDB's line protocol: `measurement`, the tags, the fields, `time`.
    LineProtocol,
}

/// The registry line.
pub(crate) const PARSE: Component = Component {
    descriptor,
    build: Build::Transform(build),
};

const EXAMPLE: &str = r#"name = "apart"

[sources.readings]
type = "file"
path = "readings.jsonl"
format = "json_lines"

[transforms.apart]
type = "parse"
from = "readings"
column = "at"
format = "regex"
pattern = '(?<day>\d+-\d+-\d+)T(?<hour>\d+)'
keep = true

[destinations.out]
type = "stdout"
from = "apart"
"#;

fn descriptor() -> Descriptor {
    let summary = "Takes texts apart into columns";
    describe::<Config>(ComponentRole::Transform, "parse", summary, EXAMPLE)
}

fn build(config: &str, _: &BuildContext) -> Result<Box<dyn Transform>, ConfigError> {
    let config: Config = parse_config(config)?;
    for (key, is_there, of) in [
        ("names", config.names.is_some(), Format::Csv),
        ("delimiter", config.delimiter.is_some(), Format::Csv),
        ("pattern", config.pattern.is_some(), Format::Regex),
        ("precision", config.precision.is_some(), Format::LineProtocol),
    ] {
        if is_there && config.format != of {
            return Err(ConfigError::at(key, "is for another format"));
        }
    }
    let how = match config.format {
        Format::Json => How::Json,
        Format::Logfmt => How::Logfmt,
        Format::LineProtocol => How::LineProtocol(config.precision.unwrap_or_default()),
        Format::Csv => {
            let names = config
                .names
                .ok_or_else(|| ConfigError::at("names", "name the fields"))?;
            named_columns("names", &names)?;
            let delimiter = delimiter(config.delimiter)?;
            How::Csv { names, delimiter }
        }
        Format::Regex => {
            let pattern = config
                .pattern
                .ok_or_else(|| ConfigError::at("pattern", "give the expression"))?;
            let regex = compile(&pattern, "pattern")?;
            if regex.capture_names().flatten().next().is_none() {
                let message = "it has no named group: write (?<name>…) around what shall become a column";
                return Err(ConfigError::at("pattern", message));
            }
            How::Regex(regex)
        }
    };
    Ok(Box::new(Parse {
        column: [config.column],
        how,
        prefix: config.prefix,
        keep: config.keep,
        left: 0,
    }))
}

/// The byte that separates fields.
pub(crate) fn delimiter(char: Option<char>) -> Result<u8, ConfigError> {
    let byte = u8::try_from(char.unwrap_or(',')).ok().filter(u8::is_ascii);
    byte.filter(|byte| !matches!(byte, b'"' | b'\r' | b'\n'))
        .ok_or_else(|| ConfigError::at("delimiter", "it is an ASCII character that is no quote and no line end"))
}

struct Parse {
    column: [String; 1],
    how: How,
    prefix: String,
    keep: bool,
    /// Rows of the last batch that it has not taken.
    left: usize,
}

enum How {
    Json,
    Csv { names: Vec<String>, delimiter: u8 },
    Logfmt,
    Regex(Regex),
    LineProtocol(Precision),
}

impl Transform for Parse {
    fn apply(&mut self, batch: Batch) -> Result<Transformed, Fault> {
        let places = places(&batch, &self.column);
        let (done, left) = spread(batch, &places, self.keep, |_, cell| {
            let mut found = match cell {
                Cell::Text(text) | Cell::Json(text) => self.how.read(text)?,
                Cell::Bytes(bytes) => {
                    let text = std::str::from_utf8(bytes).map_err(|error| format!("is not UTF-8: {error}"))?;
                    self.how.read(text)?
                }
                cell => return Err(format!("is '{}', which is no text", shorten(&cell.to_string()))),
            };
            if !self.prefix.is_empty() {
                found.iter_mut().for_each(|(name, _)| name.insert_str(0, &self.prefix));
            }
            Ok(found)
        })?;
        self.left = left;
        Ok(done)
    }

    fn left(&mut self) -> usize {
        self.left
    }
}

impl How {
    fn read(&self, text: &str) -> Result<Found, String> {
        match self {
            How::Json => object::fields(text, "", "", 0),
            How::Logfmt => logfmt::read(text),
            How::LineProtocol(precision) => line_protocol::read(text, *precision),
            How::Csv { names, delimiter } => csv_fields(text, names, *delimiter),
            How::Regex(regex) => {
                let found = regex.captures(text);
                let found =
                    found.ok_or_else(|| format!("is '{}', in which the pattern is not found", shorten(text)))?;
                let group = |name: &str| Some((name.to_string(), Value::Text(found.name(name)?.as_str().to_string())));
                Ok(regex.capture_names().flatten().filter_map(group).collect())
            }
        }
    }
}

fn csv_fields(text: &str, names: &[String], delimiter: u8) -> Result<Found, String> {
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .delimiter(delimiter)
        .from_reader(text.as_bytes());
    let mut records = reader.records();
    let record = records.next().ok_or("is empty")?;
    let record = record.map_err(|error| format!("is no CSV: {error}"))?;
    if records.next().is_some() {
        return Err(format!("is more than one line of CSV: '{}'", shorten(text)));
    }
    if record.len() != names.len() {
        return Err(format!(
            "has {} fields, not {}: '{}'",
            record.len(),
            names.len(),
            shorten(text)
        ));
    }
    let field = |(name, field): (&String, &str)| (name.clone(), Value::Text(field.to_string()));
    Ok(names.iter().zip(&record).map(field).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cells::NEW_CELLS_MAX,
        testing::{check, check_config, shown_schema, table, transform},
    };

    #[test]
    fn texts_are_taken_apart() {
        for (config, texts, kept, rejected, schema) in [
            (
                r#"{"column": "m", "format": "json"}"#,
                &["1|{\"a\": 5, \"b\": {\"c\": 1}}", "2|[]", "3|~"][..],
                "1|5|{\"c\": 1}\n3|?|?",
                "1: column 'm' is no JSON object: '[]'",
                "k:i64 a:i64 b:json",
            ),
            (
                r#"{"column": "m", "format": "csv", "names": ["x", "y"], "delimiter": ";"}"#,
                &["1|a;\"b;\"\"c\"", "2|;", "3|a", "4|", "5|a;b\nc;d"],
                "1|a|b;\"c\n2||",
                "2: column 'm' has 1 fields, not 2\n3: column 'm' is empty\n4: column 'm' is more than one line",
                "k:i64 x:text y:text",
            ),
            (
                r#"{"column": "m", "format": "logfmt", "prefix": "log_", "keep": true}"#,
                &["1|level=warn ok", "2|k=", "3|=1"],
                "1|level=warn ok|warn|true|?\n2|k=|?|?|",
                "2: column 'm' is no logfmt",
                "k:i64 m:text log_level:text log_ok:bool log_k:text",
            ),
            (
                r#"{"column": "m", "format": "regex", "pattern": "(?<level>[A-Z]+)( (?<rest>.+))?$"}"#,
                &["1|x WARN hot", "2|INFO", "3|?", "4|none"],
                "1|WARN|hot\n2|INFO|?\n3|?|?",
                "3: column 'm' is 'none', in which the pattern is not found",
                "k:i64 level:text rest:text",
            ),
            (
                r#"{"column": "m", "format": "line_protocol", "precision": "s"}"#,
                &["1|cpu,host=a load=0.5 1", "2|cpu load=1i", "3|cpu k=1", "4|cpu"],
                "1|cpu|a|0.5|1970-01-01T00:00:01Z\n2|cpu|?|1|?",
                "2: the record has a field 'k' already\n3: column 'm' is no line protocol",
                "k:i64 measurement:text host:text load:any time:timestamp_utc",
            ),
            (
                r#"{"column": "none", "format": "json"}"#,
                &["1|x"],
                "1|x",
                "",
                "k:i64 m:text",
            ),
        ] {
            let input = table(&["k:i64", "m:text"], texts);
            check(&PARSE, config, input.clone(), kept, rejected);
            let done = transform(&PARSE, config).apply(input).unwrap();
            assert_eq!(shown_schema(&done.batch), schema, "{config}");
        }
        let bytes = table(&["m:bytes"], &["613d31", "ff"]);
        let config = r#"{"column": "m", "format": "logfmt"}"#;
        check(&PARSE, config, bytes, "1", "1: column 'm' is not UTF-8");
    }

    #[test]
    fn different_names_do_not_make_a_batch_large() {
        let rows: Vec<String> = (0..4_000).map(|row| format!("k{}=x", row % 1_000)).collect();
        let input = table(&["m:text"], &rows.iter().map(String::as_str).collect::<Vec<_>>());
        let mut parse = transform(&PARSE, r#"{"column": "m", "format": "logfmt"}"#);
        let (mut at, mut cells, mut pieces) = (0, 0, 0);
        while at < input.rows() {
            let done = parse.apply(input.slice(at..input.rows())).unwrap();
            let (rows, columns) = (done.batch.rows(), done.batch.columns().len());
            assert!(
                rows * columns <= NEW_CELLS_MAX && done.rejected.is_empty(),
                "{rows} x {columns}"
            );
            for row in 0..rows {
                let place = done.batch.schema().index_of(&format!("k{}", (at + row) % 1_000));
                assert_eq!(done.batch.cell(row, place.unwrap()), Cell::Text("x"), "{}", at + row);
            }
            (cells, pieces) = (cells + rows * columns, pieces + 1);
            assert!(parse.left() < input.rows() - at, "it takes something");
            at = input.rows() - parse.left();
        }
        assert_eq!(pieces, 8);
        assert!(cells <= 8 * NEW_CELLS_MAX, "{cells}");
    }

    #[test]
    fn mistakes_are_named() {
        for (config, wanted) in [
            (r#"{"format": "csv"}"#, "names: name the fields"),
            (
                r#"{"format": "csv", "names": ["a", "a"]}"#,
                "names: 'a' stands here twice",
            ),
            (
                r#"{"format": "csv", "names": ["a"], "delimiter": "é"}"#,
                "delimiter: it is an ASCII",
            ),
            (
                r#"{"format": "csv", "names": ["a"], "delimiter": "\""}"#,
                "delimiter: it is an ASCII",
            ),
            (r#"{"format": "regex"}"#, "pattern: give the expression"),
            (
                r#"{"format": "regex", "pattern": "a(b)"}"#,
                "pattern: it has no named group",
            ),
            (
                r#"{"format": "regex", "pattern": "(?<a>"}"#,
                "pattern: is no regular expression",
            ),
            (r#"{"format": "json", "names": ["a"]}"#, "names: is for another format"),
            (r#"{"format": "xml"}"#, "format: unknown variant `xml`"),
        ] {
            check_config(&PARSE, &config.replacen('{', "{\"column\": \"m\", ", 1), wanted);
        }
    }
}
