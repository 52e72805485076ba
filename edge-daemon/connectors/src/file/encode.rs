//! Rows as text: JSON lines and CSV. Writes into memory; knows no file.
//!
//! JSON: integers and decimals with every digit, floats in their shortest exact form, NaN and the infinities as the texts
//! "NaN", "Infinity", "-Infinity"; bytes as hexadecimal text, times as ISO 8601 text, JSON as it is (on one line).
//! Null is `null`; a missing or unchanged field is left out.
//!
//! CSV: the same values without quotes of JSON, lists as JSON arrays; null, missing and unchanged are an empty field (which
//! the caller may tell, see [`CsvRows::blurs`]), an empty text is `""`. Lines end with LF.

use std::io::Write as _;

use bus_schema::data::{Batch, Cell, Op};

use super::text::push_json;
use crate::list::list_json;

/// The name of an operation in an operation column.
pub(crate) fn op_name(op: Op) -> &'static str {
    match op {
        Op::Insert => "insert",
        Op::Update => "update",
        Op::Delete => "delete",
        Op::Upsert => "upsert",
    }
}

/// A file of records has no place for a deletion, unless a column says what each record does.
pub(crate) fn refuse_delete(batch: &Batch, row: usize, op_column: Option<&str>) -> Result<(), String> {
    match batch.op(row) {
        Op::Delete if op_column.is_none() => Err(
            "a deletion cannot be told from a record here: set op_column to write what each record does".to_string(),
        ),
        _ => Ok(()),
    }
}

/// Writes the rows of one batch as JSON objects.
pub(crate) struct JsonRows<'a> {
    batch: &'a Batch,
    op_column: Option<&'a str>,
    /// `"name":` of each column.
    names: Vec<Vec<u8>>,
}

impl<'a> JsonRows<'a> {
    /// `op_column` adds a field that says what each record does.
    pub(crate) fn new(batch: &'a Batch, op_column: Option<&'a str>) -> Self {
        let names = batch
            .schema()
            .fields
            .iter()
            .map(|field| field.name.as_str())
            .chain(op_column);
        Self {
            batch,
            op_column,
            names: names.map(quoted_name).collect(),
        }
    }

    /// Appends a row without line end. On failure nothing is appended.
    pub(crate) fn row(&self, row: usize, out: &mut Vec<u8>) -> Result<(), String> {
        refuse_delete(self.batch, row, self.op_column)?;
        let start = out.len();
        out.push(b'{');
        for (column, name) in self.names.iter().enumerate() {
            let cell = match self.batch.schema().fields.get(column) {
                // Its own place is the last one.
                Some(field) if self.op_column == Some(&field.name) => Cell::Missing,
                Some(_) => self.batch.cell(row, column),
                None => Cell::Text(op_name(self.batch.op(row))),
            };
            if matches!(cell, Cell::Missing | Cell::Unchanged) {
                continue;
            }
            if out.len() > start + 1 {
                out.push(b',');
            }
            out.extend_from_slice(name);
            if let Err(cause) = push_json(out, cell) {
                out.truncate(start);
                return Err(format!("column '{}' {cause}", self.batch.schema().fields[column].name));
            }
        }
        out.push(b'}');
        Ok(())
    }
}

fn quoted_name(name: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(name.len() + 3);
    // A text always has a JSON form.
    let _ = push_json(&mut out, Cell::Text(name));
    out.push(b':');
    out
}

/// Writes the rows of one batch under the columns of a CSV file.
pub(crate) struct CsvRows<'a> {
    batch: &'a Batch,
    op_column: Option<&'a str>,
    delimiter: u8,
    /// For each column of the file, where it stands in the batch.
    places: Vec<Place>,
    /// Columns of the batch for which the file has none.
    strangers: Vec<usize>,
}

#[derive(Clone, Copy)]
enum Place {
    Column(usize),
    Operation,
    Nowhere,
}

impl<'a> CsvRows<'a> {
    pub(crate) fn new(batch: &'a Batch, header: &[String], delimiter: u8, op_column: Option<&'a str>) -> Self {
        let schema = batch.schema();
        let place = |name: &String| match schema.index_of(name) {
            _ if op_column == Some(name) => Place::Operation,
            Some(column) => Place::Column(column),
            None => Place::Nowhere,
        };
        let is_stranger = |column: &usize| !header.contains(&schema.fields[*column].name);
        Self {
            batch,
            op_column,
            delimiter,
            places: header.iter().map(place).collect(),
            strangers: (0..schema.fields.len()).filter(is_stranger).collect(),
        }
    }

    /// The columns a file of this batch needs.
    pub(crate) fn header_of(batch: &Batch, op_column: Option<&str>) -> Vec<String> {
        let names = batch.schema().fields.iter().map(|field| field.name.as_str());
        let own = names.filter(|name| Some(*name) != op_column);
        own.chain(op_column).map(str::to_string).collect()
    }

    /// Columns of the batch that the file has not.
    pub(crate) fn strangers(&self) -> impl Iterator<Item = &str> {
        self.strangers
            .iter()
            .map(|column| self.batch.schema().fields[*column].name.as_str())
    }

    /// A column of the file in which a record has no field, or one that did not change: the file shows both as null.
    pub(crate) fn blurs(&self) -> Option<&str> {
        let batch = self.batch;
        let lacks = |column: usize| {
            let has_no_place = |row| matches!(batch.cell(row, column), Cell::Missing | Cell::Unchanged);
            !batch.columns()[column].is_told() && (0..batch.rows()).any(has_no_place)
        };
        let columns = self.places.iter().filter_map(|place| match place {
            Place::Column(column) => Some(*column),
            Place::Operation | Place::Nowhere => None,
        });
        let blurred = columns.into_iter().find(|column| lacks(*column))?;
        Some(&batch.schema().fields[blurred].name)
    }

    /// Appends a row with its line end. On failure nothing is appended. A value in a column that the file has not is a
    /// failure.
    pub(crate) fn row(&self, row: usize, out: &mut Vec<u8>) -> Result<(), String> {
        refuse_delete(self.batch, row, self.op_column)?;
        let is_there = |column: &&usize| !matches!(self.batch.cell(row, **column), Cell::Missing | Cell::Unchanged);
        if let Some(column) = self.strangers.iter().find(is_there) {
            return Err(format!(
                "the file has no column '{}'",
                self.batch.schema().fields[*column].name
            ));
        }
        let start = out.len();
        for (index, place) in self.places.iter().enumerate() {
            if index > 0 {
                out.push(self.delimiter);
            }
            match place {
                Place::Column(column) => push_csv(out, self.batch.cell(row, *column), self.delimiter),
                Place::Operation => out.extend_from_slice(op_name(self.batch.op(row)).as_bytes()),
                Place::Nowhere => {}
            }
        }
        out.push(b'\n');
        debug_assert!(out.len() > start);
        Ok(())
    }
}

/// The line of column names.
pub(crate) fn push_csv_header(out: &mut Vec<u8>, header: &[String], delimiter: u8) {
    for (index, name) in header.iter().enumerate() {
        if index > 0 {
            out.push(delimiter);
        }
        push_csv(out, Cell::Text(name), delimiter);
    }
    out.push(b'\n');
}

fn push_csv(out: &mut Vec<u8>, cell: Cell<'_>, delimiter: u8) {
    let start = out.len();
    match cell {
        Cell::Text(text) | Cell::Json(text) => return push_quoted(out, text, delimiter),
        Cell::List(items) => return push_quoted(out, &list_json(items), delimiter),
        Cell::F64(v) if v.is_infinite() => out.extend_from_slice(infinity(v.is_sign_negative())),
        Cell::F32(v) if v.is_infinite() => out.extend_from_slice(infinity(v.is_sign_negative())),
        // Writing into a vector cannot fail.
        cell => drop(write!(out, "{cell}")),
    }
    // Numbers and times need no quotes, unless the delimiter is one of their characters. Empty bytes are not null.
    let needs_quotes = match cell {
        Cell::Bytes([]) => true,
        _ => out[start..].contains(&delimiter),
    };
    if needs_quotes {
        let text = String::from_utf8_lossy(&out.split_off(start)).into_owned();
        out.push(b'"');
        out.extend(text.replace('"', "\"\"").bytes());
        out.push(b'"');
    }
}

/// As in JSON lines, where it is a text.
fn infinity(is_negative: bool) -> &'static [u8] {
    if is_negative { b"-Infinity" } else { b"Infinity" }
}

fn push_quoted(out: &mut Vec<u8>, text: &str, delimiter: u8) {
    let bytes = text.as_bytes();
    if !bytes.is_empty()
        && !bytes
            .iter()
            .any(|byte| matches!(byte, b'"' | b'\n' | b'\r') || *byte == delimiter)
    {
        out.extend_from_slice(bytes);
        return;
    }
    out.push(b'"');
    let mut rest = bytes;
    while let Some(at) = memchr::memchr(b'"', rest) {
        out.extend_from_slice(&rest[..=at]);
        out.push(b'"');
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use bus_schema::data::{BatchBuilder, Field, Origin, Schema, Type, Value};

    use super::*;

    fn batch(names: &[&str], rows: &[(Op, &[Value])]) -> Batch {
        let fields = names.iter().map(|name| Field::new(*name, Type::Any)).collect();
        let mut builder = BatchBuilder::new(
            Schema {
                collection: "t".into(),
                fields,
            }
            .into(),
        );
        for (op, row) in rows {
            builder
                .push(*op, &row.iter().map(Value::as_cell).collect::<Vec<_>>())
                .unwrap();
        }
        builder.finish(Origin::default())
    }

    fn text(value: &str) -> Value {
        Value::Text(value.into())
    }

    #[test]
    fn json_objects() {
        let rows: &[(Op, &[Value])] = &[
            (Op::Insert, &[Value::I64(1), text("é\n\"")]),
            (Op::Upsert, &[Value::Null, Value::Missing]),
            (Op::Update, &[Value::Unchanged, Value::Bytes(vec![1, 255])]),
            (Op::Delete, &[Value::Json("{".into()), Value::Null]),
            (Op::Delete, &[Value::Json("[1]".into()), Value::Null]),
        ];
        let batch = batch(&["a", "b \"c\""], rows);
        let line = |row, op| {
            let mut out = Vec::new();
            let made = JsonRows::new(&batch, op).row(row, &mut out);
            made.map(|()| String::from_utf8(out.clone()).unwrap())
                .inspect_err(|_| assert!(out.is_empty()))
        };
        assert_eq!(line(0, None).unwrap(), r#"{"a":1,"b \"c\"":"é\n\""}"#);
        assert_eq!(line(1, None).unwrap(), r#"{"a":null}"#);
        assert_eq!(line(2, None).unwrap(), r#"{"b \"c\"":"01ff"}"#);
        assert!(line(3, None).unwrap_err().contains("set op_column"));
        assert!(line(3, Some("op")).unwrap_err().starts_with("column 'a' is not JSON"));
        assert_eq!(
            line(4, Some("op")).unwrap(),
            r#"{"a":[1],"b \"c\"":null,"op":"delete"}"#
        );
    }

    #[test]
    fn csv_fields() {
        for (value, delimiter, wanted) in [
            (Value::Null, b',', ""),
            (Value::Missing, b',', ""),
            (text(""), b',', "\"\""),
            (text("plain é"), b',', "plain é"),
            (text("a,b"), b',', "\"a,b\""),
            (text("a,b"), b';', "a,b"),
            (text("a\"b\"\n"), b',', "\"a\"\"b\"\"\n\""),
            (text(" a "), b',', " a "),
            (Value::F64(1.5), b'.', "\"1.5\""),
            (Value::F64(f64::NAN), b',', "NaN"),
            (Value::Bytes(vec![]), b',', "\"\""),
            (Value::Bytes(vec![171]), b',', "ab"),
            (Value::Json("{\"a\":1}".into()), b',', "\"{\"\"a\"\":1}\""),
            (Value::F64(f64::NEG_INFINITY), b',', "-Infinity"),
            (Value::List(vec![Value::I64(1), text("x")]), b',', "\"[1,\"\"x\"\"]\""),
            (Value::List(vec![]), b',', "[]"),
        ] {
            let mut out = Vec::new();
            push_csv(&mut out, value.as_cell(), delimiter);
            assert_eq!(String::from_utf8(out).unwrap(), wanted, "{value:?}");
        }
    }

    #[test]
    fn csv_rows_follow_the_header() {
        let batch = batch(
            &["b", "new", "a"],
            &[
                (Op::Insert, &[text("x"), Value::Missing, Value::I64(1)]),
                (Op::Update, &[Value::Null, text("y"), Value::I64(2)]),
            ],
        );
        let header = ["a", "gone", "b", "op"].map(str::to_string);
        let rows = CsvRows::new(&batch, &header, b',', Some("op"));
        let mut out = Vec::new();
        rows.row(0, &mut out).unwrap();
        assert_eq!(rows.row(1, &mut out), Err("the file has no column 'new'".to_string()));
        assert_eq!(String::from_utf8(out).unwrap(), "1,,x,insert\n");
        assert_eq!(rows.strangers().collect::<Vec<_>>(), ["new"]);
        // The new column is none of the file's.
        assert_eq!(rows.blurs(), None);
        let wide = CsvRows::new(&batch, &["a", "b", "new"].map(str::to_string), b',', None);
        assert_eq!(wide.blurs(), Some("new"));
        assert_eq!(CsvRows::header_of(&batch, Some("op")), ["b", "new", "a", "op"]);
    }
}
