//! Transform `lookup`: adds what a CSV file says about a value. The one transform that reads a file: when it starts, and
//! when the file has changed. Never waits for it.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::Read as _,
    path::{Path, PathBuf},
    time::SystemTime,
};

use bus_schema::{
    data::{Batch, Cell, Field, Type, Value},
    plan::{ComponentRole, Descriptor},
};
use flow::{Build, BuildContext, Component, ConfigError, Fault, Transform, Transformed, describe, parse_config};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    cells::{compute, put, without},
    ordered::Ordered,
    parse::delimiter,
    text::shorten,
};

/// Largest file, in bytes: all of what is looked up is kept in memory.
const FILE_BYTES_MAX: u64 = 2 * 1024 * 1024;

/// Adds what a CSV file says about a value. The file, of 2 MiB at most, is read when the first records come and again
/// whenever it has changed: put a new one in its place by renaming, so that no half of it is read. A changed file that cannot
/// be read, or says two things about one value, is warned of, and what was read before holds. Without any the workflow waits.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// The column of the records whose value is looked up. It is compared as the text it shows.
    column: String,
    /// The CSV file, whose first line names its columns; a relative path starts in the daemon's directory.
    file: PathBuf,
    /// The column of the file in which the value stands; without this, the one with the same name.
    key: Option<String>,
    /// New column = column of the file. The values are texts; `cast` gives them types. A column the records have is replaced.
    columns: Ordered<String>,
    /// What separates the fields of the file, an ASCII character; without this a comma.
    delimiter: Option<char>,
    /// What happens to a record whose value the file does not have. One without a value gets nulls.
    #[serde(default)]
    unknown: Unknown,
}

/// What happens to a record whose value the file does not have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Unknown {
    /// The new columns become null.
    #[default]
    Null,
    /// It goes to the dead letters.
    Reject,
}

/// The registry line.
pub(crate) const LOOKUP: Component = Component {
    descriptor,
    build: Build::Transform(build),
};

const EXAMPLE: &str = r#"name = "known"

[sources.readings]
type = "file"
path = "readings.jsonl"
format = "json_lines"

[transforms.known]
type = "lookup"
from = "readings"
column = "line"
file = "lines.csv"
columns = { hall = "hall", foreman = "name" }

[destinations.out]
type = "stdout"
from = "known"
"#;

fn descriptor() -> Descriptor {
    let summary = "Adds what a CSV file says about a value";
    describe::<Config>(ComponentRole::Transform, "lookup", summary, EXAMPLE)
}

fn build(config: &str, context: &BuildContext) -> Result<Box<dyn Transform>, ConfigError> {
    let config: Config = parse_config(config)?;
    if config.columns.0.is_empty() {
        return Err(ConfigError::at("columns", "name at least one column to add"));
    }
    Ok(Box::new(Lookup {
        path: context.base_dir.join(&config.file),
        key: config.key.unwrap_or_else(|| config.column.clone()),
        column: config.column,
        columns: config.columns.0,
        delimiter: delimiter(config.delimiter)?,
        unknown: config.unknown,
        table: None,
        seen: None,
    }))
}

struct Lookup {
    path: PathBuf,
    column: String,
    key: String,
    columns: Vec<(String, String)>,
    delimiter: u8,
    unknown: Unknown,
    table: Option<Table>,
    /// The file that was tried last, read or not.
    seen: Option<Stamp>,
}

/// What the new columns are, by the value that is looked up.
type Table = HashMap<String, Vec<String>>;

/// What tells one state of the file from another.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Stamp {
    bytes: u64,
    changed: Option<SystemTime>,
}

impl Transform for Lookup {
    fn apply(&mut self, batch: Batch) -> Result<Transformed, Fault> {
        self.refresh()?;
        let Some(table) = &self.table else {
            return Err(Fault::retry(format!("{} was not read", self.path.display())));
        };
        let place = batch.schema().index_of(&self.column);
        let (values, rejected) = compute(batch.rows(), self.columns.len(), |row, index| {
            let cell = place.map_or(Cell::Missing, |place| batch.cell(row, place));
            let found = match cell {
                Cell::Text(text) => table.get(text),
                // What an update leaves as it was, so does what follows from it.
                Cell::Unchanged => return Ok(Value::Unchanged),
                cell if !cell.is_value() => return Ok(Value::Null),
                cell => table.get(&cell.to_string()),
            };
            match found {
                Some(found) => Ok(Value::Text(found[index].clone())),
                None if self.unknown == Unknown::Null => Ok(Value::Null),
                None => Err(format!(
                    "column '{}' is '{}', which {} does not have",
                    self.column,
                    shorten(&cell.to_string()),
                    self.path.display()
                )),
            }
        });
        let batch = without(batch, &rejected);
        let fields = self.columns.iter().map(|(name, _)| Field::new(name, Type::Text));
        let batch = put(&batch, fields.zip(values))?;
        Ok(Transformed { batch, rejected })
    }
}

impl Lookup {
    /// Reads the file if it has changed. Without an error there is a table.
    fn refresh(&mut self) -> Result<(), Fault> {
        let stamp = stamp(&self.path);
        if self.table.is_none() || self.seen != stamp {
            self.seen = stamp;
            match (self.read(), &self.table) {
                (Ok(table), _) => self.table = Some(table),
                (Err(cause), Some(_)) => {
                    tracing::warn!(path = %self.path.display(), cause, "the changed file of a lookup is not used");
                }
                (Err(cause), None) => {
                    return Err(Fault::retry(format!("cannot use {}: {cause}", self.path.display())));
                }
            }
        }
        Ok(())
    }

    fn read(&self) -> Result<Table, String> {
        let mut text = Vec::new();
        let file = File::open(&self.path).map_err(|error| error.to_string())?;
        let read = file.take(FILE_BYTES_MAX + 1).read_to_end(&mut text);
        read.map_err(|error| error.to_string())?;
        if text.len() as u64 > FILE_BYTES_MAX {
            return Err(format!("it has more than {FILE_BYTES_MAX} bytes"));
        }
        let text = text.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(&text);
        let mut reader = csv::ReaderBuilder::new().delimiter(self.delimiter).from_reader(text);
        let headers = reader.headers().map_err(|error| error.to_string())?.clone();
        let place = |name: &String| {
            let place = headers.iter().position(|header| header == name);
            place.ok_or_else(|| format!("it has no column '{name}'"))
        };
        let key = place(&self.key)?;
        let places: Vec<usize> = self
            .columns
            .iter()
            .map(|(_, name)| place(name))
            .collect::<Result<_, _>>()?;
        let mut table = Table::new();
        for record in reader.records() {
            let record = record.map_err(|error| error.to_string())?;
            let field = |place: usize| record.get(place).unwrap_or_default().to_string();
            let values: Vec<String> = places.iter().map(|place| field(*place)).collect();
            let before = table.insert(field(key), values.clone());
            if before.is_some_and(|before| before != values) {
                return Err(format!("it says two things about '{}'", shorten(&field(key))));
            }
        }
        Ok(table)
    }
}

/// `None`: there is no such file.
fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = fs::metadata(path).ok()?;
    Some(Stamp {
        bytes: metadata.len(),
        changed: metadata.modified().ok(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check_config, shown, table};

    fn lookup(dir: &Path, config: &str) -> Box<dyn Transform> {
        let context = BuildContext {
            base_dir: dir.to_path_buf(),
            ..BuildContext::default()
        };
        let config = config.replacen('{', "{\"column\": \"line\", \"file\": \"lines.csv\", ", 1);
        build(&config, &context).unwrap_or_else(|error| panic!("{config}: {error}"))
    }

    #[test]
    fn values_are_looked_up() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(
            dir.path().join("lines.csv"),
            "\u{feff}line,hall,n\na,North,1\n7,\"So,uth\",2\na,North,1\n",
        )
        .unwrap();
        let input = table(&["line:any", "hall:text"], &["a|x", "b|y", "~|z", "=|v"]);
        for (config, kept, rejected) in [
            (
                r#"{"columns": {"hall": "hall", "id": "n"}}"#,
                "a|North|1\nb|~|~\n~|~|~\n=|=|=",
                "",
            ),
            (
                r#"{"columns": {"line_hall": "hall"}, "unknown": "reject"}"#,
                "a|x|North\n~|z|~\n=|v|=",
                "1: column 'line' is 'b', which ",
            ),
        ] {
            let done = lookup(dir.path(), config).apply(input.clone()).unwrap();
            assert_eq!(shown(&done.batch), kept, "{config}");
            let found: Vec<String> = done.rejected.iter().map(|(row, why)| format!("{row}: {why}")).collect();
            assert!(
                found.join("\n").starts_with(rejected) && found.len() == rejected.lines().count(),
                "{found:?}"
            );
        }
        let numbers = table(&["line:i64"], &["7"]);
        let done = lookup(dir.path(), r#"{"columns": {"hall": "hall"}}"#)
            .apply(numbers)
            .unwrap();
        assert_eq!(shown(&done.batch), "7|So,uth");
        let others = lookup(dir.path(), r#"{"columns": {"h": "hall"}}"#)
            .apply(table(&["x:i64"], &["1"]))
            .unwrap();
        assert_eq!(shown(&others.batch), "1|~");
    }

    #[test]
    fn a_changed_file_is_read_again_if_it_is_good() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lines.csv");
        let mut lookup = lookup(dir.path(), r#"{"columns": {"h": "hall"}}"#);
        let mut hall = || match lookup.apply(table(&["line:text"], &["a"])) {
            Ok(done) => shown(&done.batch),
            Err(fault @ Fault::Retry { .. }) => fault.to_string(),
            Err(fault) => panic!("{fault}"),
        };
        assert!(hall().contains("lines.csv: "), "the workflow waits for it");
        for (file, wanted) in [
            ("line,hall\na,North\n", "a|North"),
            ("line,hall\na,South!\n", "a|South!"),
            ("line,room\na,12345678\n", "a|South!"),
            ("line,hall\na,North\na,West\n", "a|South!"),
            ("line,hall\na,b,c,d,e,f,g,h,i,j\n", "a|South!"),
            ("line,hall\nb,East\n", "a|~"),
        ] {
            fs::write(&path, file).unwrap();
            assert_eq!(hall(), wanted, "{file}");
        }
        fs::remove_file(&path).unwrap();
        assert_eq!(hall(), "a|~");
        fs::write(&path, vec![b'x'; FILE_BYTES_MAX as usize + 1]).unwrap();
        assert_eq!(hall(), "a|~");
    }

    #[test]
    fn mistakes_are_named() {
        for (config, wanted) in [
            (
                r#"{"column": "a", "file": "b", "columns": {}}"#,
                "columns: name at least one",
            ),
            (r#"{"column": "a", "columns": {"b": "c"}}"#, "missing field `file`"),
            (
                r#"{"column": "a", "file": "b", "columns": {"b": "c"}, "delimiter": "\n"}"#,
                "delimiter: it is an ASCII",
            ),
        ] {
            check_config(&LOOKUP, config, wanted);
        }
    }
}
