//! The types a record can hold, and single values: owned ([`Value`]) and borrowed from a column ([`Cell`]).

use alloc::{
    borrow::ToOwned,
    format,
    string::{String, ToString},
    vec::Vec,
};
use core::fmt;

use serde::{Deserialize, Deserializer, Serialize};

/// What a timestamp knows of its time zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Zone {
    /// Nothing: a wall clock reading.
    Naive,
    /// It is UTC.
    Utc,
    /// It is UTC, and the writer's offset is kept beside it.
    Offset,
}

/// The type of a column.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Type {
    /// `true` or `false`.
    Bool,
    /// Signed 64-bit integer.
    I64,
    /// Unsigned 64-bit integer.
    U64,
    /// 32-bit float, kept bit for bit.
    F32,
    /// 64-bit float, kept bit for bit.
    F64,
    /// Exact decimal: an `i128` times `10^-scale`.
    Decimal {
        /// Most digits (0 = not limited).
        precision: u8,
        /// Digits after the point.
        scale: u8,
    },
    /// UTF-8 text.
    Text,
    /// Any bytes.
    Bytes,
    /// Days since 1970-01-01.
    Date,
    /// Nanoseconds since midnight.
    Time,
    /// Nanoseconds since 1970-01-01T00:00:00.
    Timestamp(Zone),
    /// 16 bytes.
    Uuid,
    /// JSON text, kept as written.
    Json,
    /// A list of plain values (no list inside a list: such a value travels as [`Type::Json`]).
    List,
    /// Each row says what it is: for sources without fixed column types, such as SQLite.
    Any,
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Type::Bool => "bool",
            Type::I64 => "i64",
            Type::U64 => "u64",
            Type::F32 => "f32",
            Type::F64 => "f64",
            Type::Decimal { precision: 0, scale } => return write!(f, "decimal(*,{scale})"),
            Type::Decimal { precision, scale } => return write!(f, "decimal({precision},{scale})"),
            Type::Text => "text",
            Type::Bytes => "bytes",
            Type::Date => "date",
            Type::Time => "time",
            Type::Timestamp(Zone::Naive) => "timestamp",
            Type::Timestamp(Zone::Utc) => "timestamp_utc",
            Type::Timestamp(Zone::Offset) => "timestamp_offset",
            Type::Uuid => "uuid",
            Type::Json => "json",
            Type::List => "list",
            Type::Any => "any",
        };
        f.write_str(name)
    }
}

/// One owned value. Variants are only ever appended: their index is on the wire.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Value {
    /// The source says: no value.
    Null,
    /// The record has no such field.
    Missing,
    /// An update that left this field as it was.
    Unchanged,
    /// See [`Type::Bool`].
    Bool(bool),
    /// See [`Type::I64`].
    I64(i64),
    /// See [`Type::U64`].
    U64(u64),
    /// See [`Type::F32`].
    F32(f32),
    /// See [`Type::F64`].
    F64(f64),
    /// Units and scale; see [`Type::Decimal`].
    Decimal(i128, u8),
    /// See [`Type::Text`].
    Text(String),
    /// See [`Type::Bytes`].
    Bytes(#[serde(with = "serde_bytes")] Vec<u8>),
    /// See [`Type::Date`].
    Date(i32),
    /// See [`Type::Time`].
    Time(u64),
    /// [`Zone::Naive`] nanoseconds.
    Timestamp(i128),
    /// [`Zone::Utc`] nanoseconds.
    TimestampUtc(i128),
    /// UTC nanoseconds and the offset in minutes.
    TimestampOffset(i128, i16),
    /// See [`Type::Uuid`].
    Uuid([u8; 16]),
    /// See [`Type::Json`].
    Json(String),
    /// See [`Type::List`]. Items are never lists themselves.
    List(#[serde(deserialize_with = "plain_values")] Vec<Value>),
}

/// [`Value`] without lists, in the same order. Decoding items through it keeps hostile bytes from nesting lists
/// until the stack is gone.
#[derive(Deserialize)]
enum Plain {
    Null,
    Missing,
    Unchanged,
    Bool(bool),
    I64(i64),
    U64(u64),
    F32(f32),
    F64(f64),
    Decimal(i128, u8),
    Text(String),
    Bytes(#[serde(with = "serde_bytes")] Vec<u8>),
    Date(i32),
    Time(u64),
    Timestamp(i128),
    TimestampUtc(i128),
    TimestampOffset(i128, i16),
    Uuid([u8; 16]),
    Json(String),
}

fn plain_values<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Value>, D::Error> {
    let items = Vec::<Plain>::deserialize(deserializer)?;
    let plain = |item| match item {
        Plain::Null => Value::Null,
        Plain::Missing => Value::Missing,
        Plain::Unchanged => Value::Unchanged,
        Plain::Bool(v) => Value::Bool(v),
        Plain::I64(v) => Value::I64(v),
        Plain::U64(v) => Value::U64(v),
        Plain::F32(v) => Value::F32(v),
        Plain::F64(v) => Value::F64(v),
        Plain::Decimal(v, scale) => Value::Decimal(v, scale),
        Plain::Text(v) => Value::Text(v),
        Plain::Bytes(v) => Value::Bytes(v),
        Plain::Date(v) => Value::Date(v),
        Plain::Time(v) => Value::Time(v),
        Plain::Timestamp(v) => Value::Timestamp(v),
        Plain::TimestampUtc(v) => Value::TimestampUtc(v),
        Plain::TimestampOffset(v, offset) => Value::TimestampOffset(v, offset),
        Plain::Uuid(v) => Value::Uuid(v),
        Plain::Json(v) => Value::Json(v),
    };
    Ok(items.into_iter().map(plain).collect())
}

/// One value borrowed from a column.
#[derive(Debug, Clone, Copy, PartialEq)]
#[allow(missing_docs, reason = "each variant is the borrowed twin of Value's")]
pub enum Cell<'a> {
    Null,
    Missing,
    Unchanged,
    Bool(bool),
    I64(i64),
    U64(u64),
    F32(f32),
    F64(f64),
    Decimal(i128, u8),
    Text(&'a str),
    Bytes(&'a [u8]),
    Date(i32),
    Time(u64),
    Timestamp(i128),
    TimestampUtc(i128),
    TimestampOffset(i128, i16),
    Uuid([u8; 16]),
    Json(&'a str),
    List(&'a [Value]),
}

impl Value {
    /// Bytes of the content of texts and bytes in it.
    pub(super) fn content_bytes(&self) -> usize {
        match self {
            Value::Text(v) | Value::Json(v) => v.len(),
            Value::Bytes(v) => v.len(),
            Value::List(v) => v.iter().map(Value::content_bytes).sum(),
            _ => 0,
        }
    }

    /// Borrows the value.
    pub fn as_cell(&self) -> Cell<'_> {
        match self {
            Value::Null => Cell::Null,
            Value::Missing => Cell::Missing,
            Value::Unchanged => Cell::Unchanged,
            Value::Bool(v) => Cell::Bool(*v),
            Value::I64(v) => Cell::I64(*v),
            Value::U64(v) => Cell::U64(*v),
            Value::F32(v) => Cell::F32(*v),
            Value::F64(v) => Cell::F64(*v),
            Value::Decimal(units, scale) => Cell::Decimal(*units, *scale),
            Value::Text(v) => Cell::Text(v),
            Value::Bytes(v) => Cell::Bytes(v),
            Value::Date(v) => Cell::Date(*v),
            Value::Time(v) => Cell::Time(*v),
            Value::Timestamp(v) => Cell::Timestamp(*v),
            Value::TimestampUtc(v) => Cell::TimestampUtc(*v),
            Value::TimestampOffset(v, offset) => Cell::TimestampOffset(*v, *offset),
            Value::Uuid(v) => Cell::Uuid(*v),
            Value::Json(v) => Cell::Json(v),
            Value::List(v) => Cell::List(v),
        }
    }
}

impl Cell<'_> {
    /// Copies the value out of its column.
    pub fn to_value(self) -> Value {
        match self {
            Cell::Null => Value::Null,
            Cell::Missing => Value::Missing,
            Cell::Unchanged => Value::Unchanged,
            Cell::Bool(v) => Value::Bool(v),
            Cell::I64(v) => Value::I64(v),
            Cell::U64(v) => Value::U64(v),
            Cell::F32(v) => Value::F32(v),
            Cell::F64(v) => Value::F64(v),
            Cell::Decimal(units, scale) => Value::Decimal(units, scale),
            Cell::Text(v) => Value::Text(v.to_owned()),
            Cell::Bytes(v) => Value::Bytes(v.to_owned()),
            Cell::Date(v) => Value::Date(v),
            Cell::Time(v) => Value::Time(v),
            Cell::Timestamp(v) => Value::Timestamp(v),
            Cell::TimestampUtc(v) => Value::TimestampUtc(v),
            Cell::TimestampOffset(v, offset) => Value::TimestampOffset(v, offset),
            Cell::Uuid(v) => Value::Uuid(v),
            Cell::Json(v) => Value::Json(v.to_owned()),
            Cell::List(v) => Value::List(v.to_owned()),
        }
    }

    /// The value's own type; `None` when there is no value (null, missing, unchanged).
    pub fn type_of(&self) -> Option<Type> {
        Some(match self {
            Cell::Null | Cell::Missing | Cell::Unchanged => return None,
            Cell::Bool(_) => Type::Bool,
            Cell::I64(_) => Type::I64,
            Cell::U64(_) => Type::U64,
            Cell::F32(_) => Type::F32,
            Cell::F64(_) => Type::F64,
            Cell::Decimal(_, scale) => Type::Decimal {
                precision: 0,
                scale: *scale,
            },
            Cell::Text(_) => Type::Text,
            Cell::Bytes(_) => Type::Bytes,
            Cell::Date(_) => Type::Date,
            Cell::Time(_) => Type::Time,
            Cell::Timestamp(_) => Type::Timestamp(Zone::Naive),
            Cell::TimestampUtc(_) => Type::Timestamp(Zone::Utc),
            Cell::TimestampOffset(..) => Type::Timestamp(Zone::Offset),
            Cell::Uuid(_) => Type::Uuid,
            Cell::Json(_) => Type::Json,
            Cell::List(_) => Type::List,
        })
    }

    /// Whether there is a value at all.
    pub fn is_value(&self) -> bool {
        !matches!(self, Cell::Null | Cell::Missing | Cell::Unchanged)
    }

    /// About how many bytes the value takes on the wire.
    pub fn size_hint(&self) -> usize {
        match self {
            Cell::Text(v) | Cell::Json(v) => v.len() + 3,
            Cell::Bytes(v) => v.len() + 3,
            Cell::List(items) => items.iter().map(|item| item.as_cell().size_hint()).sum::<usize>() + 2,
            Cell::Decimal(..) | Cell::Timestamp(_) | Cell::TimestampUtc(_) | Cell::TimestampOffset(..) => 12,
            Cell::Uuid(_) => 16,
            Cell::Null | Cell::Missing | Cell::Unchanged | Cell::Bool(_) => 1,
            _ => 8,
        }
    }
}

/// The value as people read it (and as CSV and text destinations write it): ISO 8601 times, hexadecimal bytes,
/// shortest exact floats. Null, missing and unchanged are empty.
impl fmt::Display for Cell<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cell::Null | Cell::Missing | Cell::Unchanged => Ok(()),
            Cell::Bool(v) => write!(f, "{v}"),
            Cell::I64(v) => write!(f, "{v}"),
            Cell::U64(v) => write!(f, "{v}"),
            Cell::F32(v) => write!(f, "{v:?}"),
            Cell::F64(v) => write!(f, "{v:?}"),
            Cell::Decimal(units, scale) => f.write_str(&decimal_text(*units, *scale)),
            Cell::Text(v) | Cell::Json(v) => f.write_str(v),
            Cell::Bytes(v) => v.iter().try_for_each(|byte| write!(f, "{byte:02x}")),
            Cell::Date(days) => write_date(f, i64::from(*days)),
            Cell::Time(nanos) => write_time(f, *nanos),
            Cell::Timestamp(nanos) => write_timestamp(f, *nanos),
            Cell::TimestampUtc(nanos) => {
                write_timestamp(f, *nanos)?;
                f.write_str("Z")
            }
            Cell::TimestampOffset(nanos, offset) => {
                write_timestamp(f, nanos.saturating_add(i128::from(*offset) * 60 * 1_000_000_000))?;
                let sign = if *offset < 0 { '-' } else { '+' };
                let minutes = offset.unsigned_abs();
                write!(f, "{sign}{:02}:{:02}", minutes / 60, minutes % 60)
            }
            Cell::Uuid(v) => {
                for (index, byte) in v.iter().enumerate() {
                    let dash = if matches!(index, 4 | 6 | 8 | 10) { "-" } else { "" };
                    write!(f, "{dash}{byte:02x}")?;
                }
                Ok(())
            }
            Cell::List(items) => {
                f.write_str("[")?;
                for (index, item) in items.iter().enumerate() {
                    let comma = if index > 0 { "," } else { "" };
                    write!(f, "{comma}{}", item.as_cell())?;
                }
                f.write_str("]")
            }
        }
    }
}

fn decimal_text(units: i128, scale: u8) -> String {
    let digits = units.unsigned_abs().to_string();
    let sign = if units < 0 { "-" } else { "" };
    let scale = usize::from(scale);
    if scale == 0 {
        return format!("{sign}{digits}");
    }
    let padded = format!("{digits:0>width$}", width = scale + 1);
    let (whole, part) = padded.split_at(padded.len() - scale);
    format!("{sign}{whole}.{part}")
}

/// Days since 1970-01-01 to year, month, day in the proleptic Gregorian calendar
/// (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", civil_from_days).
fn civil(days: i64) -> (i64, u32, u32) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = (day_of_year - (153 * shifted_month + 2) / 5 + 1) as u32;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    } as u32;
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

fn write_date(f: &mut fmt::Formatter<'_>, days: i64) -> fmt::Result {
    let (year, month, day) = civil(days);
    // The sign is none of ISO 8601's four digits.
    let sign = if year < 0 { "-" } else { "" };
    write!(f, "{sign}{:04}-{month:02}-{day:02}", year.unsigned_abs())
}

fn write_time(f: &mut fmt::Formatter<'_>, nanos: u64) -> fmt::Result {
    let (seconds, part) = (nanos / 1_000_000_000, nanos % 1_000_000_000);
    write!(f, "{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)?;
    match part {
        0 => Ok(()),
        part if part % 1_000_000 == 0 => write!(f, ".{:03}", part / 1_000_000),
        part if part % 1_000 == 0 => write!(f, ".{:06}", part / 1_000),
        part => write!(f, ".{part:09}"),
    }
}

fn write_timestamp(f: &mut fmt::Formatter<'_>, nanos: i128) -> fmt::Result {
    const DAY: i128 = 86_400 * 1_000_000_000;
    // Beyond this a date has no meaning in any system we write to; show the number instead.
    let Ok(days) = i32::try_from(nanos.div_euclid(DAY)) else {
        return write!(f, "{nanos}ns");
    };
    write_date(f, i64::from(days))?;
    f.write_str("T")?;
    write_time(f, nanos.rem_euclid(DAY) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_read_as_people_expect() {
        let uuid = *b"\x12\x34\x56\x78\x9a\xbc\xde\xf0\x01\x02\x03\x04\x05\x06\x07\x08";
        for (value, text) in [
            (Value::Null, ""),
            (Value::I64(i64::MIN), "-9223372036854775808"),
            (Value::F64(0.1), "0.1"),
            (Value::F64(1e300), "1e300"),
            (Value::F64(-0.0), "-0.0"),
            (Value::Decimal(-5, 2), "-0.05"),
            (Value::Decimal(12345, 3), "12.345"),
            (Value::Decimal(7, 0), "7"),
            (Value::Bytes(b"\x00\xff".to_vec()), "00ff"),
            (Value::Date(0), "1970-01-01"),
            (Value::Date(-1), "1969-12-31"),
            (Value::Date(11_016), "2000-02-29"),
            (Value::Date(-719_528), "0000-01-01"),
            (Value::Date(-735_160), "-0043-03-15"),
            (Value::Date(i32::MIN), "-5877641-06-23"),
            (Value::Time(3_723_000_000_000), "01:02:03"),
            (Value::Time(1_500_000), "00:00:00.001500"),
            (Value::Timestamp(-1), "1969-12-31T23:59:59.999999999"),
            (Value::TimestampUtc(951_782_400_000_000_000), "2000-02-29T00:00:00Z"),
            (Value::TimestampOffset(0, 330), "1970-01-01T05:30:00+05:30"),
            (Value::TimestampOffset(0, -90), "1969-12-31T22:30:00-01:30"),
            (
                Value::TimestampOffset(i128::MAX, 1),
                "170141183460469231731687303715884105727ns+00:01",
            ),
            (Value::Timestamp(i128::MAX), "170141183460469231731687303715884105727ns"),
            (Value::Uuid(uuid), "12345678-9abc-def0-0102-030405060708"),
            (Value::List([Value::I64(1), Value::Null].to_vec()), "[1,]"),
        ] {
            assert_eq!(value.as_cell().to_string(), text);
            assert_eq!(value.as_cell().to_value(), value);
        }
    }
}
