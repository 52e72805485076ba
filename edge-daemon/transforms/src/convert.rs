//! From one type to another: exactly, or not at all. What counts as exact is the table below; nothing is ever rounded,
//! cut or guessed.
//!
//! | from \ to | what is kept |
//! |---|---|
//! | integer, float, decimal → each other | the same number; a fraction does not become an integer. A fraction in a float and in a decimal are the same when the float's shortest decimal form is the decimal. |
//! | bool ↔ number | `true` = 1, `false` = 0; no other number is a bool |
//! | anything → text | what is shown: ISO 8601 times, hexadecimal bytes, shortest exact floats. A JSON string gives its content. |
//! | text → anything | what the text says, in those forms and their usual variants; bytes are hexadecimal |
//! | anything → json | numbers, bools, text (as JSON if it is JSON already), lists; times, bytes and uuids as JSON strings |
//! | json → anything | a JSON number, bool or string as above; `null` becomes null; an array of plain values becomes a list |
//! | date → timestamp | midnight |
//! | timestamp → date, time | the date only of a midnight; the time only of the first day of 1970 |
//! | naive ↔ UTC timestamp | the reading is taken as UTC: whoever asks for it says that it is |
//! | timestamp with offset ↔ UTC | the same moment; to naive: refused, ask for UTC first |
//! | bytes ↔ uuid | 16 bytes |
//! | anything → any | itself |

use bus_schema::data::{Cell, Type, Value, Zone};

use crate::{
    object::list,
    text::{fits_precision, float_units, parse, parse_json, push_json, shifted, shorten},
};

const DAY_NANOS: i128 = 86_400_000_000_000;

/// The same value as another type, or why that is not possible ("is not …"). Null, missing and unchanged stay what they
/// are.
pub fn convert(cell: Cell<'_>, to: &Type) -> Result<Value, String> {
    if !cell.is_value() || *to == Type::Any || cell.type_of().as_ref() == Some(to) {
        return Ok(cell.to_value());
    }
    match cell {
        Cell::Text(text) if *to == Type::Json => parse_json(text).map(|()| Value::Json(text.to_string())),
        Cell::Text(text) if *to == Type::List => list(text).ok_or_else(|| refusal(cell, to)),
        Cell::Text(text) => parse(text, to),
        Cell::Json(text) => from_json(text, to),
        _ => match to {
            Type::Text => to_text(cell),
            Type::Json => to_json(cell),
            _ => plain(cell, to).ok_or_else(|| refusal(cell, to)),
        },
    }
}

fn refusal(cell: Cell<'_>, to: &Type) -> String {
    let from = cell.type_of().map_or_else(String::new, |ty| ty.to_string());
    format!(
        "is {from} '{}', which does not fit {to} exactly",
        shorten(&cell.to_string())
    )
}

fn to_text(cell: Cell<'_>) -> Result<Value, String> {
    match cell {
        // A list is shown without quotes, from which it could not be told what its items were.
        Cell::List(_) => to_json(cell).map(|value| Value::Text(value.as_cell().to_string())),
        cell => Ok(Value::Text(cell.to_string())),
    }
}

fn to_json(cell: Cell<'_>) -> Result<Value, String> {
    if matches!(cell, Cell::F32(v) if !v.is_finite()) || matches!(cell, Cell::F64(v) if !v.is_finite()) {
        return Err(format!("is {cell}, which JSON numbers cannot say"));
    }
    let mut out = Vec::new();
    push_json(&mut out, cell)?;
    String::from_utf8(out)
        .map(Value::Json)
        .map_err(|error| error.to_string())
}

fn from_json(text: &str, to: &Type) -> Result<Value, String> {
    let trimmed = text.trim();
    match trimmed.as_bytes().first() {
        Some(b'n') if trimmed == "null" => Ok(Value::Null),
        Some(b'"') => {
            let content: String = serde_json::from_str(trimmed).map_err(|error| format!("is not JSON: {error}"))?;
            convert(Cell::Text(&content), to)
        }
        _ if *to == Type::Text => Ok(Value::Text(text.to_string())),
        Some(b'[') if *to == Type::List => {
            list(trimmed).ok_or_else(|| "is an array of more than plain values".to_string())
        }
        Some(b'{' | b'[') | None => Err(format!(
            "is JSON '{}', which is not a value of type {to}",
            shorten(text)
        )),
        Some(_) => parse(trimmed, to),
    }
}

fn plain(cell: Cell<'_>, to: &Type) -> Option<Value> {
    match (cell, to) {
        (Cell::Date(days), Type::Timestamp(Zone::Naive)) => Some(Value::Timestamp(i128::from(days) * DAY_NANOS)),
        (Cell::Date(days), Type::Timestamp(Zone::Utc)) => Some(Value::TimestampUtc(i128::from(days) * DAY_NANOS)),
        (Cell::Timestamp(nanos) | Cell::TimestampUtc(nanos), Type::Date) => {
            let days = i32::try_from(nanos.div_euclid(DAY_NANOS)).ok()?;
            (nanos.rem_euclid(DAY_NANOS) == 0).then_some(Value::Date(days))
        }
        (Cell::Timestamp(nanos) | Cell::TimestampUtc(nanos), Type::Time) => {
            (0..DAY_NANOS).contains(&nanos).then_some(Value::Time(nanos as u64))
        }
        (Cell::Timestamp(nanos), Type::Timestamp(Zone::Utc)) => Some(Value::TimestampUtc(nanos)),
        (Cell::TimestampUtc(nanos), Type::Timestamp(Zone::Naive)) => Some(Value::Timestamp(nanos)),
        (Cell::TimestampUtc(nanos), Type::Timestamp(Zone::Offset)) => Some(Value::TimestampOffset(nanos, 0)),
        (Cell::TimestampOffset(nanos, _), Type::Timestamp(Zone::Utc)) => Some(Value::TimestampUtc(nanos)),
        (Cell::Bytes(bytes), Type::Uuid) => bytes.try_into().ok().map(Value::Uuid),
        (Cell::Uuid(bytes), Type::Bytes) => Some(Value::Bytes(bytes.to_vec())),
        _ => Number::of(cell)?.into_type(to),
    }
}

/// A number on its way from one type to another.
#[derive(Clone, Copy)]
enum Number {
    Exact(i128, u8),
    Double(f64),
    Single(f32),
}

impl Number {
    fn of(cell: Cell<'_>) -> Option<Self> {
        Some(match cell {
            Cell::Bool(v) => Number::Exact(i128::from(v), 0),
            Cell::I64(v) => Number::Exact(i128::from(v), 0),
            Cell::U64(v) => Number::Exact(i128::from(v), 0),
            Cell::Decimal(units, scale) => Number::Exact(units, scale),
            Cell::F64(v) => Number::Double(v),
            Cell::F32(v) => Number::Single(v),
            _ => return None,
        })
    }

    fn into_type(self, to: &Type) -> Option<Value> {
        match to {
            Type::Bool => match self.units(0)? {
                0 => Some(Value::Bool(false)),
                1 => Some(Value::Bool(true)),
                _ => None,
            },
            Type::I64 => self.units(0)?.try_into().ok().map(Value::I64),
            Type::U64 => self.units(0)?.try_into().ok().map(Value::U64),
            Type::Decimal { precision, scale } => {
                let units = self.units(*scale)?;
                fits_precision(units, *precision).then_some(Value::Decimal(units, *scale))
            }
            Type::F64 => self.double().map(Value::F64),
            Type::F32 => self.single().map(Value::F32),
            _ => None,
        }
    }

    /// Units of `10^-scale`.
    fn units(self, scale: u8) -> Option<i128> {
        match self {
            Number::Exact(units, from) => shifted(units, i64::from(scale) - i64::from(from)),
            Number::Double(v) => float_units(v, &format!("{v:?}"), scale),
            Number::Single(v) => float_units(f64::from(v), &format!("{v:?}"), scale),
        }
    }

    fn double(self) -> Option<f64> {
        match self {
            Number::Double(v) => Some(v),
            Number::Single(v) => Some(f64::from(v)),
            Number::Exact(units, scale) => {
                let near: f64 = Cell::Decimal(units, scale).to_string().parse().ok()?;
                (Number::Double(near).units(scale) == Some(units)).then_some(near)
            }
        }
    }

    fn single(self) -> Option<f32> {
        match self {
            Number::Single(v) => Some(v),
            Number::Double(v) => {
                let near = v as f32;
                (f64::from(near).to_bits() == v.to_bits() || v.is_nan()).then_some(near)
            }
            Number::Exact(units, scale) => {
                let near: f32 = Cell::Decimal(units, scale).to_string().parse().ok()?;
                (Number::Single(near).units(scale) == Some(units)).then_some(near)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::type_named;

    /// `-` marks what must be refused; otherwise what the result shows.
    fn shown(value: &Value, to: &str) -> String {
        match convert(value.as_cell(), &type_named(to).unwrap()) {
            Ok(value) => value.as_cell().to_string(),
            Err(_) => "-".to_string(),
        }
    }

    #[test]
    fn the_matrix() {
        let names = ["bool", "i64", "u64", "f32", "f64", "decimal(6,2)", "text", "json"];
        for (value, row) in [
            (
                Value::Bool(true),
                ["true", "1", "1", "1.0", "1.0", "1.00", "true", "true"],
            ),
            (Value::I64(-1), ["-", "-1", "-", "-1.0", "-1.0", "-1.00", "-1", "-1"]),
            (
                Value::I64(16_777_217),
                [
                    "-",
                    "16777217",
                    "16777217",
                    "-",
                    "16777217.0",
                    "-",
                    "16777217",
                    "16777217",
                ],
            ),
            (
                Value::I64(i64::MAX),
                [
                    "-",
                    "9223372036854775807",
                    "9223372036854775807",
                    "-",
                    "-",
                    "-",
                    "9223372036854775807",
                    "9223372036854775807",
                ],
            ),
            (
                Value::U64(u64::MAX),
                [
                    "-",
                    "-",
                    "18446744073709551615",
                    "-",
                    "-",
                    "-",
                    "18446744073709551615",
                    "18446744073709551615",
                ],
            ),
            (Value::F64(1.5), ["-", "-", "-", "1.5", "1.5", "1.50", "1.5", "1.5"]),
            (Value::F64(0.1), ["-", "-", "-", "-", "0.1", "0.10", "0.1", "0.1"]),
            (
                Value::F32(0.1),
                ["-", "-", "-", "0.1", "0.10000000149011612", "0.10", "0.1", "0.1"],
            ),
            (Value::F64(-0.0), ["-", "-", "-", "-0.0", "-0.0", "-", "-0.0", "-0.0"]),
            (Value::F64(1e300), ["-", "-", "-", "-", "1e300", "-", "1e300", "1e+300"]),
            (Value::F64(f64::NAN), ["-", "-", "-", "NaN", "NaN", "-", "NaN", "-"]),
            (
                Value::Decimal(150, 2),
                ["-", "-", "-", "1.5", "1.5", "1.50", "1.50", "1.50"],
            ),
            (
                Value::Decimal(100, 2),
                ["true", "1", "1", "1.0", "1.0", "1.00", "1.00", "1.00"],
            ),
            (
                Value::Decimal(0, 2),
                ["false", "0", "0", "0.0", "0.0", "0.00", "0.00", "0.00"],
            ),
            (
                Value::Decimal(31_415_926_535_897_932_384, 19),
                [
                    "-",
                    "-",
                    "-",
                    "-",
                    "-",
                    "-",
                    "3.1415926535897932384",
                    "3.1415926535897932384",
                ],
            ),
            (
                Value::Text("1".into()),
                ["true", "1", "1", "1.0", "1.0", "1.00", "1", "1"],
            ),
            (Value::Text("x".into()), ["-", "-", "-", "-", "-", "-", "x", "-"]),
            (
                Value::Json("1.5".into()),
                ["-", "-", "-", "1.5", "1.5", "1.50", "1.5", "1.5"],
            ),
            (
                Value::Json("\"7\"".into()),
                ["-", "7", "7", "7.0", "7.0", "7.00", "7", "\"7\""],
            ),
            (Value::Json("null".into()), ["", "", "", "", "", "", "", "null"]),
            (Value::Json("{}".into()), ["-", "-", "-", "-", "-", "-", "{}", "{}"]),
            (Value::Bytes(vec![255]), ["-", "-", "-", "-", "-", "-", "ff", "\"ff\""]),
            (
                Value::List(vec![Value::Text("a".into())]),
                ["-", "-", "-", "-", "-", "-", "[\"a\"]", "[\"a\"]"],
            ),
        ] {
            for (name, wanted) in names.iter().zip(row) {
                assert_eq!(shown(&value, name), wanted, "{value:?} as {name}");
            }
        }
    }

    #[test]
    fn times_bytes_and_lists() {
        let names = ["date", "time", "timestamp", "timestamp_utc", "timestamp_offset"];
        let (noon, midnight) = (DAY_NANOS / 2, DAY_NANOS * 2);
        for (value, row) in [
            (
                Value::Date(2),
                ["1970-01-03", "-", "1970-01-03T00:00:00", "1970-01-03T00:00:00Z", "-"],
            ),
            (Value::Time(1_000_000_000), ["-", "00:00:01", "-", "-", "-"]),
            (
                Value::Timestamp(noon),
                ["-", "12:00:00", "1970-01-01T12:00:00", "1970-01-01T12:00:00Z", "-"],
            ),
            (
                Value::TimestampUtc(midnight),
                [
                    "1970-01-03",
                    "-",
                    "1970-01-03T00:00:00",
                    "1970-01-03T00:00:00Z",
                    "1970-01-03T00:00:00+00:00",
                ],
            ),
            (
                Value::TimestampOffset(noon, 60),
                ["-", "-", "-", "1970-01-01T12:00:00Z", "1970-01-01T13:00:00+01:00"],
            ),
            (
                Value::Text("1970-01-01".into()),
                ["1970-01-01", "-", "1970-01-01T00:00:00", "1970-01-01T00:00:00Z", "-"],
            ),
            (Value::I64(0), ["-", "-", "-", "-", "-"]),
        ] {
            for (name, wanted) in names.iter().zip(row) {
                assert_eq!(shown(&value, name), wanted, "{value:?} as {name}");
            }
        }
        let uuid = Value::Uuid([7; 16]);
        assert_eq!(convert(uuid.as_cell(), &Type::Bytes), Ok(Value::Bytes(vec![7; 16])));
        assert_eq!(convert(Cell::Bytes(&[7; 16]), &Type::Uuid), Ok(uuid));
        assert!(convert(Cell::Bytes(&[7; 15]), &Type::Uuid).is_err());
        let list = Value::List(vec![Value::I64(1), Value::Null, Value::Text("x".into())]);
        assert_eq!(convert(Cell::Json("[1, null, \"x\"]"), &Type::List), Ok(list.clone()));
        assert_eq!(convert(Cell::Text("[1, null, \"x\"]"), &Type::List), Ok(list));
        assert!(convert(Cell::Json("[[1]]"), &Type::List).is_err());
        for nothing in [Cell::Null, Cell::Missing, Cell::Unchanged] {
            assert_eq!(convert(nothing, &Type::I64), Ok(nothing.to_value()));
        }
    }

    proptest::proptest! {
        /// Whatever converts also converts back to the same value, bit for bit: nothing was lost on the way.
        #[test]
        fn nothing_is_lost(int: i64, unsigned: u64, double: f64, single: f32, units: i128, scale in 0..=20u8, small in -1000..1000i64) {
            let values = [
                Value::I64(int), Value::I64(small), Value::U64(unsigned), Value::F64(double), Value::F64(small as f64 / 8.0),
                Value::F32(single), Value::Decimal(units >> 70, scale), Value::Bool(int > 0), Value::Text(small.to_string()),
            ];
            let numbers = ["i64", "u64", "f32", "f64", "decimal(*,4)", "decimal(*,20)", "text", "json"];
            for value in values {
                let Some(from) = value.as_cell().type_of() else { continue };
                for to in numbers.map(|name| type_named(name).unwrap()) {
                    let Ok(there) = convert(value.as_cell(), &to) else { continue };
                    let back = convert(there.as_cell(), &from);
                    let same = match (&value, &back) {
                        (Value::F64(a), Ok(Value::F64(b))) => a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan(),
                        (Value::F32(a), Ok(Value::F32(b))) => a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan(),
                        // A number that was text may come back in another spelling of itself.
                        (Value::Text(a), Ok(Value::Text(b))) => a.parse::<f64>() == b.parse::<f64>(),
                        (a, Ok(b)) => a == b,
                        (_, Err(_)) => false,
                    };
                    proptest::prop_assert!(same, "{:?} as {} is {:?}, and back {:?}", value, to, there, back);
                }
            }
        }
    }
}
