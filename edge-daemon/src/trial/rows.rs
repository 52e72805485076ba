//! Records of a test as they stand in a workflow's text, and batches: one way there, and the comparison on the way back.

use bus_schema::data::{Batch, BatchBuilder, Cell, Field, Op, Origin, Schema, Type, Value};
use serde_json::{Map, Value as Json};
use transforms::text;

/// Floats that differ by less than this part of themselves are the same in a test.
const FLOAT_TOLERANCE: f64 = 1e-9;

type Row = Map<String, Json>;

/// A batch of these rows. A column has the type that is named for it, else that of its values; values of several types make
/// it a column of any type. A key that a row does not have is missing there.
pub(super) fn batch(source: &str, rows: &[Row], types: &[(String, String)]) -> Result<Batch, String> {
    let mut names: Vec<&str> = Vec::new();
    for name in rows.iter().flat_map(Map::keys) {
        if !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    let named = |column: &str| -> Result<Option<Type>, String> {
        let Some((_, name)) = types.iter().find(|(named, _)| named == column) else {
            return Ok(None);
        };
        let unknown = || format!("types.{column}: '{name}' is no type: write {}", text::TYPE_NAMES);
        text::type_named(name).map(Some).ok_or_else(unknown)
    };
    let (mut fields, mut columns) = (Vec::new(), Vec::new());
    for column in &names {
        let wanted = named(column)?;
        let values = rows.iter().enumerate().map(|(index, row)| match row.get(*column) {
            None => Ok(Value::Missing),
            Some(json) => {
                value(json, wanted.as_ref()).map_err(|wrong| format!("given.{source}[{index}].{column} {wrong}"))
            }
        });
        let values = values.collect::<Result<Vec<_>, _>>()?;
        fields.push(Field::new(*column, wanted.unwrap_or_else(|| type_of_all(&values))));
        columns.push(values);
    }
    let schema = Schema {
        collection: source.to_string(),
        fields,
    };
    let mut builder = BatchBuilder::new(schema.into());
    for row in 0..rows.len() {
        let cells: Vec<Cell<'_>> = columns.iter().map(|column| column[row].as_cell()).collect();
        builder
            .push(Op::Insert, &cells)
            .map_err(|error| format!("given.{source}[{row}]: {error}"))?;
    }
    Ok(builder.finish(Origin::default()))
}

/// Rows from JSON objects, one a line; empty lines are left out.
pub(super) fn of_lines(source: &str, lines: &str) -> Result<Vec<Row>, String> {
    let lines = lines.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(index, line)| {
            let wrong = |error| format!("the records for '{source}', line {}: {error}", index + 1);
            serde_json::from_str(line).map_err(wrong)
        })
        .collect()
}

/// A value of this type, or of the one that its form has.
pub fn value(json: &Json, wanted: Option<&Type>) -> Result<Value, String> {
    let plain = match json {
        Json::Object(keys) if keys.is_empty() => return Ok(Value::Null),
        Json::Null => return Ok(Value::Null),
        Json::Bool(value) => Value::Bool(*value),
        Json::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(value), _) => Value::I64(value),
            (None, Some(value)) => Value::U64(value),
            (None, None) => Value::F64(number.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(value) => Value::Text(value.clone()),
        Json::Array(_) | Json::Object(_) => Value::Json(json.to_string()),
    };
    match (wanted, json) {
        (None, _) => Ok(plain),
        (Some(ty), Json::String(value)) => text::parse(value, ty),
        (Some(ty), other) => text::parse(&other.to_string(), ty),
    }
}

fn type_of_all(values: &[Value]) -> Type {
    let mut found: Option<Type> = None;
    for value in values {
        let ty = match value {
            Value::Bool(_) => Type::Bool,
            Value::I64(_) => Type::I64,
            Value::U64(_) => Type::U64,
            Value::F64(_) => Type::F64,
            Value::Text(_) => Type::Text,
            Value::Json(_) => Type::Json,
            _ => continue,
        };
        match &found {
            None => found = Some(ty),
            Some(known) if *known == ty => {}
            Some(_) => return Type::Any,
        }
    }
    found.unwrap_or(Type::Any)
}

/// What is not as it is expected of a node's records; `None` when all is.
pub(super) fn differs(expected: &[Row], found: &[Batch]) -> Option<String> {
    let rows: Vec<(&Batch, usize)> = found
        .iter()
        .flat_map(|batch| (0..batch.rows()).map(move |row| (batch, row)))
        .collect();
    for (index, wanted) in expected.iter().enumerate() {
        let Some((batch, row)) = rows.get(index) else {
            return Some(format!(
                "{} records are expected, {} came; the first that is missing: {}",
                expected.len(),
                rows.len(),
                Json::Object(wanted.clone())
            ));
        };
        if let Some(wrong) = row_differs(wanted, batch, *row) {
            return Some(format!("record {index}: {wrong}"));
        }
    }
    let (batch, row) = rows.get(expected.len())?;
    Some(format!(
        "{} records are expected, {} came; the first too many: {}",
        expected.len(),
        rows.len(),
        shown(batch, *row)
    ))
}

fn row_differs(wanted: &Row, batch: &Batch, row: usize) -> Option<String> {
    let fields = &batch.schema().fields;
    for (column, field) in fields.iter().enumerate() {
        let cell = batch.cell(row, column);
        let is_there = !matches!(cell, Cell::Missing | Cell::Unchanged);
        match (wanted.get(&field.name), is_there) {
            (None, false) => {}
            (None, true) => return Some(format!("'{}' is not expected, but is {cell}", field.name)),
            (Some(json), false) => return Some(format!("'{}' is missing instead of {json}", field.name)),
            (Some(json), true) if is_same(json, &cell) => {}
            (Some(json), true) => {
                let shown = if matches!(cell, Cell::Null) {
                    "null".to_string()
                } else {
                    cell.to_string()
                };
                return Some(format!("'{}' is {shown} instead of {json}", field.name));
            }
        }
    }
    let lacking = wanted
        .keys()
        .find(|name| fields.iter().all(|field| field.name != **name))?;
    Some(format!("'{lacking}' is missing instead of {}", wanted[lacking]))
}

/// Whether a value is what stands in the text: numbers by what they are worth, everything else by how it is written.
fn is_same(json: &Json, cell: &Cell<'_>) -> bool {
    match (json, cell) {
        (Json::Object(keys), Cell::Null) if keys.is_empty() => true,
        (Json::Null, cell) => matches!(cell, Cell::Null),
        (Json::Bool(wanted), Cell::Bool(found)) => wanted == found,
        (Json::Number(wanted), Cell::I64(found)) if wanted.is_i64() => wanted.as_i64() == Some(*found),
        (Json::Number(wanted), Cell::U64(found)) if wanted.is_u64() => wanted.as_u64() == Some(*found),
        (Json::Number(wanted), found) => {
            let numbers = wanted.as_f64().zip(found.to_string().parse::<f64>().ok());
            numbers.is_some_and(|(wanted, found)| {
                wanted == found || (wanted - found).abs() <= FLOAT_TOLERANCE * wanted.abs().max(found.abs())
            })
        }
        (Json::String(wanted), found) => *wanted == found.to_string(),
        (wanted, Cell::Json(found)) => serde_json::from_str::<Json>(found).is_ok_and(|found| found == *wanted),
        (wanted, found) => serde_json::from_str::<Json>(&found.to_string()).is_ok_and(|found| found == *wanted),
    }
}

fn shown(batch: &Batch, row: usize) -> String {
    let fields = batch.schema().fields.iter().enumerate();
    let cells = fields.filter_map(|(column, field)| match batch.cell(row, column) {
        Cell::Missing | Cell::Unchanged => None,
        Cell::Null => Some(format!("{} = null", field.name)),
        cell => Some(format!("{} = {cell}", field.name)),
    });
    format!("{{ {} }}", cells.collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(json: &str) -> Vec<Row> {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn columns_have_the_types_of_their_values() {
        let given = rows(r#"[{"a": 1, "b": "x", "c": 1, "d": {}, "e": [1]}, {"b": "y", "c": "z", "f": 1.5}]"#);
        let made = batch("db", &given, &[]).unwrap();
        let fields: Vec<String> = made
            .schema()
            .fields
            .iter()
            .map(|field| format!("{}:{}", field.name, field.ty))
            .collect();
        assert_eq!(fields, ["a:i64", "b:text", "c:any", "d:any", "e:json", "f:f64"]);
        assert_eq!(differs(&given, &[made]), None);
        let types = [
            ("at".to_string(), "timestamp_utc".to_string()),
            ("n".to_string(), "decimal(10,2)".to_string()),
        ];
        let made = batch("db", &rows(r#"[{"at": "2024-01-31T10:00:00Z", "n": "1.50"}]"#), &types).unwrap();
        assert_eq!(made.schema().fields[0].ty.to_string(), "timestamp_utc");
        for (given, types, said) in [
            (r#"[{"at": "yesterday"}]"#, "timestamp", "given.db[0].at is not"),
            (r#"[{"at": "x"}]"#, "moment", "types.at: 'moment' is no type"),
        ] {
            let types = [("at".to_string(), types.to_string())];
            let error = batch("db", &rows(given), &types).unwrap_err();
            assert!(error.contains(said), "{error}");
        }
    }

    #[test]
    fn what_differs_is_named() {
        let made = batch("db", &rows(r#"[{"n": 1, "f": 0.30000000000000004, "t": "x"}]"#), &[]).unwrap();
        for (expected, said) in [
            (r#"[{"n": 1, "f": 0.3, "t": "x"}]"#, ""),
            (r#"[{"n": 2, "f": 0.3, "t": "x"}]"#, "record 0: 'n' is 1 instead of 2"),
            (r#"[{"f": 0.3, "t": "x"}]"#, "'n' is not expected, but is 1"),
            (
                r#"[{"n": 1, "f": 0.3, "t": "x", "more": 1}]"#,
                "'more' is missing instead of 1",
            ),
            ("[]", "0 records are expected, 1 came; the first too many: { n = 1"),
            (
                r#"[{"n": 1, "f": 0.3, "t": "x"}, {"n": 5}]"#,
                "2 records are expected, 1 came; the first that is missing: {\"n\":5}",
            ),
            (r#"[{"n": {}, "f": 0.3, "t": "x"}]"#, "'n' is 1 instead of {}"),
        ] {
            let found = differs(&rows(expected), std::slice::from_ref(&made)).unwrap_or_default();
            assert!(
                found.contains(said) && found.is_empty() == said.is_empty(),
                "{expected}: {found}"
            );
        }
    }
}
