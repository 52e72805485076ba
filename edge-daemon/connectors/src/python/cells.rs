//! What a value is in the lines that go to the stub and come from it. Null, truth, numbers and texts are JSON's own;
//! everything else is a list of the type's name and the value. Performs no I/O.

use std::io::Write as _;

use bus_schema::data::{Batch, Cell, Type, Value, Zone};
use serde_json::Value as Json;

use crate::file::{
    encode::op_name,
    rows::Token,
    text::{SCALE_MAX, fits_precision, parse, push_json, shifted, shorten},
};

/// Appends a row as the stub reads it: what it does, then its cells.
pub(crate) fn push_row(out: &mut Vec<u8>, batch: &Batch, row: usize) {
    out.extend_from_slice(b"[\"");
    out.extend_from_slice(op_name(batch.op(row)).as_bytes());
    out.push(b'"');
    for column in 0..batch.columns().len() {
        out.push(b',');
        push(out, batch.cell(row, column));
    }
    out.extend_from_slice(b"]\n");
}

fn push(out: &mut Vec<u8>, cell: Cell<'_>) {
    // Writing into a vector cannot fail, and neither can a text become JSON.
    let _ = match cell {
        Cell::Null => out.write_all(b"null"),
        Cell::Missing => out.write_all(b"[\"missing\"]"),
        Cell::Unchanged => out.write_all(b"[\"unchanged\"]"),
        Cell::F32(v) => return push_float(out, f64::from(v)),
        Cell::F64(v) => return push_float(out, v),
        Cell::Decimal(..) => write!(out, "[\"decimal\",\"{cell}\"]"),
        Cell::Bytes(_) => write!(out, "[\"bytes\",\"{cell}\"]"),
        Cell::Uuid(_) => write!(out, "[\"uuid\",\"{cell}\"]"),
        Cell::Date(days) => write!(out, "[\"date\",{days}]"),
        Cell::Time(nanos) => write!(out, "[\"time\",{nanos}]"),
        Cell::Timestamp(nanos) => write!(out, "[\"timestamp\",{nanos}]"),
        Cell::TimestampUtc(nanos) => write!(out, "[\"timestamp_utc\",{nanos}]"),
        Cell::TimestampOffset(nanos, minutes) => write!(out, "[\"timestamp_offset\",{nanos},{minutes}]"),
        Cell::Json(text) => {
            out.extend_from_slice(b"[\"json\",");
            let _ = push_json(out, Cell::Text(text));
            out.write_all(b"]")
        }
        Cell::List(items) => {
            out.extend_from_slice(b"[\"list\",[");
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                match item {
                    // A list has a place for each of its items.
                    Value::Missing | Value::Unchanged => push(out, Cell::Null),
                    item => push(out, item.as_cell()),
                }
            }
            out.write_all(b"]]")
        }
        cell @ (Cell::Bool(_) | Cell::I64(_) | Cell::U64(_) | Cell::Text(_)) => {
            let _ = push_json(out, cell);
            Ok(())
        }
    };
}

/// As Python's JSON has it: with every digit, and with names for what JSON itself has none.
fn push_float(out: &mut Vec<u8>, v: f64) {
    let _ = match v {
        v if v.is_nan() => out.write_all(b"NaN"),
        f64::INFINITY => out.write_all(b"Infinity"),
        f64::NEG_INFINITY => out.write_all(b"-Infinity"),
        v => write!(out, "{v:?}"),
    };
}

/// What the stub says of a value, as what the column holds. Refuses what would not stay what it is; the error continues a
/// sentence about the column.
pub(crate) fn taken<'a>(token: Token<'a>, ty: Option<&Type>) -> Result<Token<'a>, String> {
    let value = match (token, ty) {
        (Token::Nested(text), _) => {
            let parts: Vec<Json> = serde_json::from_str(text).map_err(|error| format!("is no value: {error}"))?;
            typed(&parts).ok_or_else(|| format!("is no value: {}", shorten(text)))?
        }
        (token, None) => return Ok(token),
        (token, Some(Type::Any)) => plain(&token).ok_or("is an integer beyond 64 bits")?,
        (Token::Null, _) => return Ok(Token::Null),
        (token, Some(ty @ Type::List)) => {
            let shown = plain(&token)
                .map(|value| value.as_cell().to_string())
                .unwrap_or_default();
            return Err(format!("is no {ty}: '{}'", shorten(&shown)));
        }
        (token, Some(_)) => return Ok(token),
    };
    match ty {
        None => Ok(Token::Value(value)),
        Some(ty) => fitted(value, ty).map(Token::Value),
    }
}

/// A value that JSON can say itself.
fn plain(token: &Token<'_>) -> Option<Value> {
    Some(match token {
        Token::Null => Value::Null,
        Token::Bool(v) => Value::Bool(*v),
        Token::Integer(digits) => match (digits.parse(), digits.parse()) {
            (Ok(v), _) => Value::I64(v),
            (_, Ok(v)) => Value::U64(v),
            _ => return None,
        },
        Token::Float(text) => Value::F64(text.parse().ok()?),
        Token::Text(text) => Value::Text(text.to_string()),
        Token::Nested(_) => return None,
        Token::Value(value) => value.clone(),
    })
}

/// A value with the name of its type before it.
fn typed(parts: &[Json]) -> Option<Value> {
    let text = || parts.get(1)?.as_str();
    let read = |ty| parse(text()?, &ty).ok();
    Some(match parts.first()?.as_str()? {
        "unchanged" => Value::Unchanged,
        "f64" => read(Type::F64)?,
        "bytes" => read(Type::Bytes)?,
        "uuid" => read(Type::Uuid)?,
        "json" => Value::Json(text()?.to_string()),
        "decimal" => {
            let digits = text()?.split_once('.').map_or(0, |(_, digits)| digits.len());
            let scale = u8::try_from(digits).ok().filter(|scale| *scale <= SCALE_MAX)?;
            read(Type::Decimal { precision: 0, scale })?
        }
        "date" => Value::Date(text()?.parse().ok()?),
        "time" => Value::Time(text()?.parse().ok()?),
        "timestamp" => Value::Timestamp(text()?.parse().ok()?),
        "timestamp_utc" => Value::TimestampUtc(text()?.parse().ok()?),
        "timestamp_offset" => Value::TimestampOffset(text()?.parse().ok()?, parts.get(2)?.as_str()?.parse().ok()?),
        "list" => Value::List(parts.get(1)?.as_array()?.iter().map(item).collect::<Option<_>>()?),
        _ => return None,
    })
}

/// What stands in a list, where every float has its type's name with it.
fn item(json: &Json) -> Option<Value> {
    Some(match json {
        Json::Null => Value::Null,
        Json::Bool(v) => Value::Bool(*v),
        Json::Number(number) => match number.as_i64() {
            Some(v) => Value::I64(v),
            None => Value::U64(number.as_u64()?),
        },
        Json::String(text) => Value::Text(text.clone()),
        Json::Array(parts) => typed(parts)?,
        Json::Object(_) => return None,
    })
}

/// A value as a column of this type holds it, if it can.
fn fitted(value: Value, ty: &Type) -> Result<Value, String> {
    let fitted = match (&value, ty) {
        (_, Type::Any) | (Value::Null | Value::Missing | Value::Unchanged, _) => Some(value.clone()),
        (Value::F64(v), Type::F32) => Some(Value::F32(*v as f32)),
        (Value::TimestampOffset(nanos, _), Type::Timestamp(Zone::Utc)) => Some(Value::TimestampUtc(*nanos)),
        (Value::TimestampUtc(nanos), Type::Timestamp(Zone::Offset)) => Some(Value::TimestampOffset(*nanos, 0)),
        (Value::Decimal(units, from), Type::Decimal { precision, scale }) => {
            shifted(*units, i64::from(*scale) - i64::from(*from))
                .filter(|units| fits_precision(*units, *precision))
                .map(|units| Value::Decimal(units, *scale))
        }
        (value, ty) => (value.as_cell().type_of().as_ref() == Some(ty)).then(|| (*value).clone()),
    };
    fitted.ok_or_else(|| misfit(&value, ty))
}

fn misfit(value: &Value, ty: &Type) -> String {
    let cell = value.as_cell();
    let found = cell.type_of().map_or_else(String::new, |found| found.to_string());
    format!("is {found} '{}' and does not fit {ty}", shorten(&cell.to_string()))
}
