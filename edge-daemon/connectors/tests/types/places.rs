//! The destinations of the matrix: how each is written to (the real sink into the real server), and how what it holds is read
//! by something that is not ours: psql, the `mariadb` client, SQLite itself, serde_json, the `csv` crate, pyarrow.

use std::{collections::BTreeMap, fs, path::PathBuf, process::Command};

use bus_schema::{
    data::{Type, Value, Zone},
    plan::ComponentRole,
};
use flow::{Build, BuildContext, Registry, Sink};
use rusqlite::{Connection, OptionalExtension, types::ValueRef};
use serde_json::{Value as Json, json, value::RawValue};
use tempfile::TempDir;
use testkit::{Mariadb, NULL, Postgres};

use crate::influx::InInfluxdb;

/// What a destination holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// As what, in the destination's own words.
    pub kind: String,
    /// The value as text; `None` for null.
    pub text: Option<String>,
    /// The characters that stand there, where they are not the text: a string of JSON with its escapes.
    raw: Option<String>,
}

impl Found {
    /// Without what stands there.
    pub fn new(kind: impl Into<String>, text: Option<String>) -> Self {
        let kind = kind.into();
        Self { kind, text, raw: None }
    }
}

/// What came of a row.
#[derive(Debug, Clone, PartialEq)]
pub enum Row {
    /// There is none.
    None,
    /// There is one, without that field.
    Without,
    /// There is one with it.
    With(Found),
}

/// A destination.
pub trait Place {
    /// Its name on the page.
    fn name(&self) -> &'static str;
    /// The name of its component.
    fn component(&self) -> &'static str;
    /// Whether it has tables with columns and updates them.
    fn is_database(&self) -> bool;
    /// A sink into a table of this name (a file's name is made of it), or why there is none.
    fn sink(&self, table: &str, more: Json) -> Result<Box<dyn Sink>, String>;
    /// What stands in a column of the row whose `id` is 1. A file has its last row there.
    fn read(&self, table: &str, column: &str) -> Row;
    /// What is found, in the one notation of the cases. Only notation changes here, never a value.
    fn plain(&self, ty: &Type, found: &Found) -> Option<String> {
        found.text.as_deref().map(|text| plain(ty, text))
    }
}

/// All of them, started.
pub fn places() -> Vec<Box<dyn Place>> {
    let dir = || tempfile::tempdir().unwrap();
    let postgres = Postgres::start();
    let url = postgres.create_database("types");
    let mariadb = Mariadb::start();
    let mysql_url = mariadb.create_database("types");
    vec![
        Box::new(InSqlite(dir())),
        Box::new(InPostgres(postgres, url)),
        Box::new(InMariadb(mariadb, mysql_url)),
        Box::new(InInfluxdb::start()),
        Box::new(InJsonLines(dir())),
        Box::new(InCsv(dir())),
        Box::new(InParquet(dir())),
    ]
}

/// The sink of a config.
pub fn build(name: &str, mut config: Json, more: Json, base_dir: PathBuf) -> Result<Box<dyn Sink>, String> {
    let registry = Registry::new(connectors::components());
    let Some(Build::Sink(build)) = registry.find(ComponentRole::Destination, name) else {
        panic!("there is no destination '{name}'")
    };
    config
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    let context = BuildContext {
        workflow: "types".into(),
        node: "out".into(),
        base_dir,
        ..BuildContext::default()
    };
    build(&config.to_string(), &context).map_err(|error| error.to_string())
}

struct InSqlite(TempDir);

impl Place for InSqlite {
    fn name(&self) -> &'static str {
        "sqlite"
    }

    fn component(&self) -> &'static str {
        "sqlite"
    }

    fn is_database(&self) -> bool {
        true
    }

    fn sink(&self, table: &str, more: Json) -> Result<Box<dyn Sink>, String> {
        let config = json!({"path": "types.db", "table": table});
        build("sqlite", config, more, self.0.path().to_path_buf())
    }

    fn read(&self, table: &str, column: &str) -> Row {
        let quote = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
        let conn = Connection::open(self.0.path().join("types.db")).unwrap();
        let sql = format!("SELECT {} FROM {} WHERE id = 1", quote(column), quote(table));
        let found = |row: &rusqlite::Row<'_>| {
            Ok(match row.get_ref_unwrap(0) {
                ValueRef::Null => Found::new("NULL", None),
                ValueRef::Integer(v) => Found::new("INTEGER", Some(v.to_string())),
                ValueRef::Real(v) => Found::new("REAL", Some(format!("{v:?}"))),
                ValueRef::Text(v) => Found::new("TEXT", Some(String::from_utf8(v.to_vec()).unwrap())),
                ValueRef::Blob(v) => Found::new("BLOB", Some(hex(v))),
            })
        };
        let row = conn.query_row(&sql, [], found).optional().unwrap();
        row.map_or(Row::None, Row::With)
    }
}

struct InPostgres(Postgres, String);

impl Place for InPostgres {
    fn name(&self) -> &'static str {
        "postgres"
    }

    fn component(&self) -> &'static str {
        "postgres"
    }

    fn is_database(&self) -> bool {
        true
    }

    fn sink(&self, table: &str, more: Json) -> Result<Box<dyn Sink>, String> {
        let config = json!({"url": self.1, "tls": {"mode": "disable"}, "table": table});
        build("postgres", config, more, PathBuf::new())
    }

    fn read(&self, table: &str, column: &str) -> Row {
        let quote = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
        let literal = |text: &str| format!("'{}'", text.replace('\'', "''"));
        let (name, table) = (quote(column), quote(table));
        let sql = format!(
            "SELECT format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = {}::regclass AND attname = {}",
            literal(&table),
            literal(column)
        );
        let kind = match &self.0.query_in("types", &sql)[..] {
            [] => return Row::Without,
            [row] => row[0].clone(),
            rows => panic!("{rows:?}"),
        };
        // As hexadecimal digits: psql leaves some characters out of what it prints.
        let sql = format!(
            "SET TimeZone = 'UTC'; SELECT encode(convert_to({name}::text, 'UTF8'), 'hex') FROM {table} WHERE id = 1"
        );
        match &self.0.query_in("types", &sql)[..] {
            [] => Row::None,
            [row] if row[0] == NULL => Row::With(Found::new(kind, None)),
            [row] => Row::With(Found::new(kind, Some(unhex(&row[0])))),
            rows => panic!("{rows:?}"),
        }
    }

    fn plain(&self, ty: &Type, found: &Found) -> Option<String> {
        let text = found.text.as_deref()?;
        let text = match ty {
            Type::Bytes => text.strip_prefix("\\x").unwrap_or(text).to_string(),
            Type::Date | Type::Timestamp(_) => astronomical(text),
            _ => text.to_string(),
        };
        Some(plain(ty, &text))
    }
}

struct InMariadb(Mariadb, String);

impl Place for InMariadb {
    fn name(&self) -> &'static str {
        "mysql (MariaDB)"
    }

    fn component(&self) -> &'static str {
        "mysql"
    }

    fn is_database(&self) -> bool {
        true
    }

    fn sink(&self, table: &str, more: Json) -> Result<Box<dyn Sink>, String> {
        let config = json!({"url": self.1, "tls": {"mode": "disable"}, "table": table});
        build("mysql", config, more, PathBuf::new())
    }

    fn read(&self, table: &str, column: &str) -> Row {
        let quote = |name: &str| format!("`{}`", name.replace('`', "``"));
        let literal = |text: &str| format!("_utf8mb4 0x{}", hex(text.as_bytes()));
        let sql = format!(
            "SELECT COLUMN_TYPE FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = 'types' AND TABLE_NAME = {} \
             AND COLUMN_NAME = {}",
            literal(table),
            literal(column)
        );
        let kind = match &self.0.query_in("types", &sql)[..] {
            [] => return Row::Without,
            [row] => row[0].clone(),
            rows => panic!("{rows:?}"),
        };
        // The client prints six digits of a float; added to a double it is one.
        let value = match kind.as_str() {
            "float" | "double" => format!("{} + 0e0", quote(column)),
            _ => quote(column),
        };
        let sql = format!("SELECT HEX(CONCAT({value})) FROM {} WHERE id = 1", quote(table));
        match &self.0.query_in("types", &sql)[..] {
            [] => Row::None,
            [row] if row[0] == "NULL" => Row::With(Found::new(kind, None)),
            [row] if kind == "longblob" => Row::With(Found::new(kind, Some(row[0].to_lowercase()))),
            [row] => Row::With(Found::new(kind, Some(unhex(&row[0].to_lowercase())))),
            rows => panic!("{rows:?}"),
        }
    }

    fn plain(&self, ty: &Type, found: &Found) -> Option<String> {
        let text = plain(ty, found.text.as_deref()?);
        // A datetime does not say that it is UTC; the reference does.
        Some(match ty {
            Type::Timestamp(Zone::Utc | Zone::Offset) => text + "Z",
            _ => text,
        })
    }
}

struct InJsonLines(TempDir);

impl Place for InJsonLines {
    fn name(&self) -> &'static str {
        "file, JSON lines"
    }

    fn component(&self) -> &'static str {
        "file"
    }

    fn is_database(&self) -> bool {
        false
    }

    fn sink(&self, table: &str, more: Json) -> Result<Box<dyn Sink>, String> {
        let config = json!({"path": format!("{table}.jsonl"), "format": "json_lines"});
        build("file", config, more, self.0.path().to_path_buf())
    }

    fn read(&self, table: &str, column: &str) -> Row {
        let text = fs::read_to_string(self.0.path().join(format!("{table}.jsonl"))).unwrap_or_default();
        // Not `lines`: a record ends at LF and nowhere else.
        let Some(line) = text.split_terminator('\n').next_back() else {
            return Row::None;
        };
        let fields: BTreeMap<String, &RawValue> = serde_json::from_str(line).unwrap();
        let Some(field) = fields.get(column) else {
            return Row::Without;
        };
        let raw = field.get();
        Row::With(match raw.as_bytes()[0] {
            b'n' => Found::new("null", None),
            b'"' => Found {
                raw: Some(raw.to_string()),
                ..Found::new("string", Some(serde_json::from_str(raw).unwrap()))
            },
            b't' | b'f' => Found::new("boolean", Some(raw.to_string())),
            b'[' => Found::new("array", Some(raw.to_string())),
            b'{' => Found::new("object", Some(raw.to_string())),
            _ => Found::new("number", Some(raw.to_string())),
        })
    }

    fn plain(&self, ty: &Type, found: &Found) -> Option<String> {
        let text = match ty {
            Type::Json => found.raw.as_ref().or(found.text.as_ref()),
            _ => found.text.as_ref(),
        };
        text.map(|text| plain(ty, text))
    }
}

struct InCsv(TempDir);

impl Place for InCsv {
    fn name(&self) -> &'static str {
        "file, CSV"
    }

    fn component(&self) -> &'static str {
        "file"
    }

    fn is_database(&self) -> bool {
        false
    }

    fn sink(&self, table: &str, more: Json) -> Result<Box<dyn Sink>, String> {
        let config = json!({"path": format!("{table}.csv"), "format": "csv"});
        build("file", config, more, self.0.path().to_path_buf())
    }

    fn read(&self, table: &str, column: &str) -> Row {
        let bytes = fs::read(self.0.path().join(format!("{table}.csv"))).unwrap_or_default();
        let mut reader = csv::ReaderBuilder::new().from_reader(&bytes[..]);
        let header = reader.headers().unwrap().clone();
        let Some(last) = reader.records().last() else {
            return Row::None;
        };
        let Some(place) = header.iter().position(|name| name == column) else {
            return Row::Without;
        };
        let text = last.unwrap()[place].to_string();
        // The reader does not tell `""` from nothing; no other field of these files is quoted and empty.
        let is_null = text.is_empty() && !bytes.ends_with(b"\"\"\n") && !bytes.ends_with(b"\"\",insert\n");
        Row::With(Found::new("field", (!is_null).then_some(text)))
    }
}

struct InParquet(TempDir);

/// Prints the type and the value of the last row, and where they are the same, as text: times and days as numbers, which
/// Python's own do not reach.
const PRINT: &str = r#"
import sys, json, glob
import pyarrow as pa, pyarrow.parquet as pq
column = json.loads(sys.argv[2])
names = sorted(glob.glob(glob.escape(sys.argv[1]) + '-*.parquet'))
t = pa.concat_tables([pq.ParquetFile(n).read() for n in names[-1:]]) if names else None
if t is None or t.num_rows == 0: print('null')
elif column not in t.column_names: print('{}')
else:
    c = t[column]
    ty = getattr(c.type, 'storage_type', c.type)
    name = str(c.type)
    if pa.types.is_temporal(ty): c = c.cast(pa.int32() if pa.types.is_date(ty) else pa.int64())
    v = c.to_pylist()[-1]
    if v is None: s = None
    elif pa.types.is_boolean(ty): s = str(v).lower()
    elif pa.types.is_decimal(ty): s = format(v, 'f')
    elif isinstance(v, bytes): s = v.hex()
    else: s = str(v)
    print(json.dumps({'kind': name, 'text': s}))
"#;

impl Place for InParquet {
    fn name(&self) -> &'static str {
        "file, Parquet"
    }

    fn component(&self) -> &'static str {
        "file"
    }

    fn is_database(&self) -> bool {
        false
    }

    fn sink(&self, table: &str, more: Json) -> Result<Box<dyn Sink>, String> {
        let config = json!({"path": format!("{table}.parquet"), "format": "parquet"});
        build("file", config, more, self.0.path().to_path_buf())
    }

    fn read(&self, table: &str, column: &str) -> Row {
        let output = Command::new(testkit::python())
            .args(["-c", PRINT])
            .arg(self.0.path().join(table))
            // As JSON: no argument has a NUL in it.
            .arg(json!(column).to_string())
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let printed: Json = serde_json::from_slice(&output.stdout).unwrap();
        match printed.get("kind") {
            None if printed.is_null() => Row::None,
            None => Row::Without,
            Some(kind) => {
                let text = printed["text"].as_str().map(str::to_string);
                Row::With(Found::new(kind.as_str().unwrap(), text))
            }
        }
    }

    fn plain(&self, ty: &Type, found: &Found) -> Option<String> {
        let text = found.text.as_deref()?;
        if found.kind.contains("json") && !matches!(ty, Type::Json | Type::List) {
            // Of a column of any type: each value as JSON.
            let text = serde_json::from_str::<String>(text).unwrap_or_else(|_| text.to_string());
            return Some(plain(ty, &text));
        }
        let number = || text.parse::<i128>().unwrap();
        let value = match ty {
            Type::Date => Value::Date(number() as i32),
            Type::Time => Value::Time(number() as u64),
            Type::Timestamp(Zone::Naive) => Value::Timestamp(number()),
            Type::Timestamp(_) => Value::TimestampUtc(number()),
            _ => return Some(plain(ty, text)),
        };
        Some(plain(ty, &value.as_cell().to_string()))
    }
}

/// Text in the notation of the cases.
pub fn plain(ty: &Type, text: &str) -> String {
    match ty {
        Type::Bool => text.replace('1', "true").replace('0', "false"),
        Type::F32 => text
            .parse::<f32>()
            .map_or_else(|_| text.to_string(), |float| format!("{float:?}")),
        Type::F64 => text
            .parse::<f64>()
            .map_or_else(|_| text.to_string(), |float| format!("{float:?}")),
        Type::I64 | Type::U64 | Type::Decimal { .. } => without_zeros(text).to_string(),
        Type::Date | Type::Time => fraction(text),
        Type::Timestamp(_) => {
            let text = text.replacen(' ', "T", 1);
            fraction(&match text.strip_suffix("+00") {
                Some(utc) => format!("{utc}Z"),
                None => text,
            })
        }
        Type::List => {
            let items: Vec<&RawValue> = serde_json::from_str(text).unwrap();
            let item = |item: &&RawValue| serde_json::from_str(item.get()).unwrap_or_else(|_| item.get().to_string());
            items.iter().map(item).collect::<Vec<String>>().join("|")
        }
        Type::Text | Type::Bytes | Type::Uuid | Type::Json | Type::Any => text.to_string(),
    }
}

fn without_zeros(number: &str) -> &str {
    match number.contains('.') {
        true => number.trim_end_matches('0').trim_end_matches('.'),
        false => number,
    }
}

/// A time without zeros at the end of its seconds.
fn fraction(text: &str) -> String {
    let Some((before, after)) = text.split_once('.') else {
        return text.to_string();
    };
    let digits = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
    let (digits, zone) = after.split_at(digits);
    match digits.trim_end_matches('0') {
        "" => format!("{before}{zone}"),
        digits => format!("{before}.{digits}{zone}"),
    }
}

/// PostgreSQL counts years before Christ, ISO 8601 from year 0 backwards.
fn astronomical(text: &str) -> String {
    let Some(text) = text.strip_suffix(" BC") else {
        return text.to_string();
    };
    let (year, rest) = text.split_once('-').unwrap();
    let year = 1 - year.parse::<i64>().unwrap();
    let sign = if year < 0 { "-" } else { "" };
    format!("{sign}{:04}-{rest}", year.abs())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> String {
    let bytes = (0..text.len()).step_by(2);
    let bytes = bytes.map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap());
    String::from_utf8(bytes.collect()).unwrap()
}
