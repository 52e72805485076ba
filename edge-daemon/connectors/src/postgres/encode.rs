//! Values in PostgreSQL's binary forms, and whether a column can hold one without changing it. Pure but for a log line
//! the first time a column cuts something off.

use std::sync::atomic::{AtomicBool, Ordering};

use bus_schema::data::{Cell, Type, Zone};

use super::{
    form::array_literal,
    number::{Number, write_not_finite},
};
use crate::list::{cell_json, list_json};

/// 2000-01-01, where PostgreSQL counts from, in days and microseconds since 1970.
const EPOCH_DAYS: i32 = 10_957;
const EPOCH_MICROS: i128 = 946_684_800_000_000;
/// The first and the last microsecond PostgreSQL knows (4714 BC to 294276 AD), counted from 2000.
/// Numbers beyond them mean "infinity".
const MICROS_MIN: i128 = -211_813_488_000_000_000;
const MICROS_MAX: i128 = 9_223_371_331_200_000_000;
const DAY_MICROS: u64 = 86_400_000_000;
/// Floats hold every integer up to this.
const F64_EXACT: i128 = 1 << 53;
const F32_EXACT: i128 = 1 << 24;

/// How values travel to a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wire {
    Bool,
    Int2,
    Int4,
    Int8,
    Float4,
    Float8,
    /// With the digits after the point the column keeps, when it is limited.
    Numeric(Option<i32>),
    Text,
    Bytea,
    Date,
    Time,
    Timestamp,
    TimestampTz,
    Uuid,
    Json,
    Jsonb,
    /// As text, which PostgreSQL reads as the column's type: for types we do not know, and text for types we do.
    Read,
    /// The same for an array of any type.
    ReadArray,
}

impl Wire {
    /// The form of a type, by its OID (`src/include/catalog/pg_type.dat`) and modifier.
    pub(super) fn of(oid: u32, modifier: i32) -> Self {
        match oid {
            16 => Wire::Bool,
            17 => Wire::Bytea,
            20 => Wire::Int8,
            21 => Wire::Int2,
            23 => Wire::Int4,
            25 | 1042 | 1043 => Wire::Text,
            114 => Wire::Json,
            700 => Wire::Float4,
            701 => Wire::Float8,
            1082 => Wire::Date,
            1083 => Wire::Time,
            1114 => Wire::Timestamp,
            1184 => Wire::TimestampTz,
            // Precision in the upper half, scale as a signed 11-bit number in the lower; both moved by 4.
            1700 => Wire::Numeric((modifier >= 4).then(|| (((modifier - 4) & 0x7ff) ^ 1024) - 1024)),
            2950 => Wire::Uuid,
            3802 => Wire::Jsonb,
            _ => Wire::Read,
        }
    }

    /// The OID and the name of the type the values travel as.
    pub(super) fn element(self) -> (u32, &'static str) {
        match self {
            Wire::Bool => (16, "bool"),
            Wire::Int2 => (21, "int2"),
            Wire::Int4 => (23, "int4"),
            Wire::Int8 => (20, "int8"),
            Wire::Float4 => (700, "float4"),
            Wire::Float8 => (701, "float8"),
            Wire::Numeric(_) => (1700, "numeric"),
            Wire::Text | Wire::Read | Wire::ReadArray => (25, "text"),
            Wire::Bytea => (17, "bytea"),
            Wire::Date => (1082, "date"),
            Wire::Time => (1083, "time"),
            Wire::Timestamp => (1114, "timestamp"),
            Wire::TimestampTz => (1184, "timestamptz"),
            Wire::Uuid => (2950, "uuid"),
            Wire::Json => (114, "json"),
            Wire::Jsonb => (3802, "jsonb"),
        }
    }

    /// The form for a column of text: PostgreSQL reads text as the column's type, except where it would read it loosely.
    pub(super) fn for_text(self) -> Self {
        match self {
            // It rounds numbers, and finds escapes in bytes.
            Wire::Text | Wire::Numeric(_) | Wire::Bytea | Wire::ReadArray => self,
            _ => Wire::Read,
        }
    }
}

/// The type of a new column that holds every value of `ty` as it is; `None` for [`Type::Any`], where values decide.
pub(super) fn column_type(ty: &Type) -> Option<String> {
    Some(match ty {
        Type::Bool => "boolean".into(),
        Type::I64 => "bigint".into(),
        Type::U64 => "numeric(20)".into(),
        Type::F32 => "real".into(),
        Type::F64 => "double precision".into(),
        Type::Decimal { precision: 0, .. } => "numeric".into(),
        Type::Decimal { precision, scale } => format!("numeric({precision},{scale})"),
        Type::Text => "text".into(),
        Type::Bytes => "bytea".into(),
        Type::Date => "date".into(),
        Type::Time => "time".into(),
        Type::Timestamp(Zone::Naive) => "timestamp".into(),
        Type::Timestamp(Zone::Utc | Zone::Offset) => "timestamptz".into(),
        Type::Uuid => "uuid".into(),
        // json keeps the text as it is written; jsonb would not.
        Type::Json => "json".into(),
        Type::List => "jsonb".into(),
        Type::Any => return None,
    })
}

/// The type of a new column for values of any type; `None` while there are none.
///
/// Where a source does not say that numbers are whole, the next may not be: numbers that are not all floats get a
/// `numeric`, which holds all of them. Of other types the first value decides.
pub(super) fn column_type_of<'a>(cells: impl Iterator<Item = Cell<'a>>) -> Option<String> {
    let mut first = None;
    let (mut numbers, mut floats) = (true, true);
    for ty in cells.filter_map(|cell| cell.type_of()) {
        floats &= matches!(ty, Type::F32 | Type::F64);
        numbers &= matches!(ty, Type::I64 | Type::U64 | Type::F32 | Type::F64 | Type::Decimal { .. });
        first.get_or_insert(ty);
    }
    let first = first?;
    match (numbers, floats) {
        (true, true) => Some("double precision".into()),
        (true, false) => Some("numeric".into()),
        (false, _) if matches!(first, Type::Decimal { .. } | Type::I64 | Type::U64) => Some("numeric".into()),
        (false, _) => column_type(&first),
    }
}

/// What a column cuts off, each logged once.
#[derive(Debug, Default)]
pub(super) struct Notes {
    nanoseconds: AtomicBool,
    offset: AtomicBool,
    zero: AtomicBool,
}

impl Notes {
    fn note(flag: &AtomicBool, column: &str, what: &str) {
        if !flag.swap(true, Ordering::Relaxed) {
            tracing::warn!(column, "{what}");
        }
    }
}

/// Appends one value: its length and its bytes, or the length -1 for none. `Err`: the column cannot hold it, and why;
/// then `out` is as before.
pub(super) fn write_value(
    cell: Cell<'_>,
    wire: Wire,
    column: &str,
    notes: &Notes,
    out: &mut Vec<u8>,
) -> Result<(), String> {
    let start = out.len();
    if !cell.is_value() {
        out.extend_from_slice(&(-1i32).to_be_bytes());
        return Ok(());
    }
    out.extend_from_slice(&[0; 4]);
    let written = write_body(cell, wire, column, notes, out);
    match written {
        Ok(()) => {
            let length = (out.len() - start - 4) as u32;
            out[start..start + 4].copy_from_slice(&length.to_be_bytes());
            Ok(())
        }
        Err(reason) => {
            out.truncate(start);
            Err(reason)
        }
    }
}

fn write_body(cell: Cell<'_>, wire: Wire, column: &str, notes: &Notes, out: &mut Vec<u8>) -> Result<(), String> {
    let unfit = || {
        let found = cell.type_of().map_or_else(|| "null".to_string(), |ty| ty.to_string());
        format!("a {found} does not fit a column of type {}", wire.element().1)
    };
    match wire {
        Wire::Bool => match cell {
            Cell::Bool(v) => out.push(u8::from(v)),
            Cell::I64(v @ (0 | 1)) => out.push(v as u8),
            _ => return Err(unfit()),
        },
        Wire::Int2 => out.extend_from_slice(&integer::<i16>(cell).ok_or_else(unfit)??.to_be_bytes()),
        Wire::Int4 => out.extend_from_slice(&integer::<i32>(cell).ok_or_else(unfit)??.to_be_bytes()),
        Wire::Int8 => out.extend_from_slice(&integer::<i64>(cell).ok_or_else(unfit)??.to_be_bytes()),
        Wire::Float4 => out.extend_from_slice(&float4(cell).ok_or_else(unfit)?.to_be_bytes()),
        Wire::Float8 => out.extend_from_slice(&float8(cell).ok_or_else(unfit)?.to_be_bytes()),
        Wire::Numeric(scale) => numeric(cell, scale, column, notes, out).ok_or_else(unfit)??,
        Wire::Text | Wire::Read => text(cell, out).ok_or_else(unfit)??,
        Wire::ReadArray => match cell {
            Cell::List(items) => {
                let literal = array_literal(items);
                no_nul(literal.as_bytes())?;
                out.extend_from_slice(literal.as_bytes());
            }
            _ => text(cell, out).ok_or_else(unfit)??,
        },
        Wire::Bytea => match cell {
            Cell::Bytes(v) => out.extend_from_slice(v),
            _ => return Err(unfit()),
        },
        Wire::Date => match cell {
            Cell::Date(days) => {
                let days = days.checked_sub(EPOCH_DAYS).filter(|days| *days != i32::MIN);
                let days = days.ok_or("the date is outside of what PostgreSQL knows")?;
                out.extend_from_slice(&days.to_be_bytes());
            }
            _ => return Err(unfit()),
        },
        Wire::Time => match cell {
            Cell::Time(nanos) if nanos / 1000 <= DAY_MICROS => {
                cut_nanoseconds(nanos % 1000 != 0, column, notes);
                out.extend_from_slice(&(nanos / 1000).to_be_bytes());
            }
            _ => return Err(unfit()),
        },
        Wire::Timestamp => match cell {
            Cell::Timestamp(nanos) | Cell::TimestampUtc(nanos) => timestamp(nanos, column, notes, out)?,
            _ => return Err(unfit()),
        },
        Wire::TimestampTz => match cell {
            Cell::TimestampUtc(nanos) => timestamp(nanos, column, notes, out)?,
            Cell::TimestampOffset(nanos, offset) => {
                if offset != 0 {
                    Notes::note(
                        &notes.offset,
                        column,
                        "UTC offsets are not kept: timestamptz holds the instant alone",
                    );
                }
                timestamp(nanos, column, notes, out)?;
            }
            Cell::Timestamp(_) => return Err("a timestamp without a time zone names no instant: cast it first".into()),
            _ => return Err(unfit()),
        },
        Wire::Uuid => match cell {
            Cell::Uuid(v) => out.extend_from_slice(&v),
            _ => return Err(unfit()),
        },
        Wire::Json | Wire::Jsonb => {
            if wire == Wire::Jsonb {
                // The version of the binary form.
                out.push(1);
            }
            json(cell, out).ok_or_else(unfit)??;
        }
    }
    Ok(())
}

/// A whole number; `None` when the value is none, `Some(Err)` when it is out of range.
fn integer<T: TryFrom<i64>>(cell: Cell<'_>) -> Option<Result<T, String>> {
    let whole = match cell {
        Cell::I64(v) => Some(v),
        Cell::U64(v) => i64::try_from(v).ok(),
        Cell::F64(v) => Number::from_f64(v)
            .filter(|_| v != 0.0 || v.is_sign_positive())?
            .to_i64(),
        Cell::F32(v) => Number::from_f32(v)
            .filter(|_| v != 0.0 || v.is_sign_positive())?
            .to_i64(),
        Cell::Decimal(units, scale) => Number::from_units(units, scale).to_i64(),
        _ => return None,
    };
    let fits = whole.and_then(|whole| T::try_from(whole).ok());
    Some(fits.ok_or_else(|| format!("{cell} is not a whole number within the column's range")))
}

fn float8(cell: Cell<'_>) -> Option<f64> {
    match cell {
        Cell::F64(v) => Some(v),
        Cell::F32(v) => Some(f64::from(v)),
        Cell::I64(v) => (i128::from(v).abs() <= F64_EXACT).then_some(v as f64),
        Cell::U64(v) => (i128::from(v) <= F64_EXACT).then_some(v as f64),
        // A decimal that the float's shortest form gives back.
        Cell::Decimal(units, scale) => {
            let float: f64 = cell.to_string().parse().ok()?;
            (Number::from_f64(float)? == Number::from_units(units, scale).shortest()).then_some(float)
        }
        _ => None,
    }
}

fn float4(cell: Cell<'_>) -> Option<f32> {
    match cell {
        Cell::F32(v) => Some(v),
        Cell::F64(v) => (v.is_nan() || f64::from(v as f32) == v).then_some(v as f32),
        Cell::I64(v) => (i128::from(v).abs() <= F32_EXACT).then_some(v as f32),
        Cell::U64(v) => (i128::from(v) <= F32_EXACT).then_some(v as f32),
        _ => None,
    }
}

fn numeric(
    cell: Cell<'_>,
    scale: Option<i32>,
    column: &str,
    notes: &Notes,
    out: &mut Vec<u8>,
) -> Option<Result<(), String>> {
    let number = match cell {
        Cell::I64(v) => Number::from_units(i128::from(v), 0),
        Cell::U64(v) => Number::from_units(i128::from(v), 0),
        Cell::Decimal(units, scale) => Number::from_units(units, scale),
        Cell::Text(text) => match Number::parse(text) {
            Some(number) => number,
            // As PostgreSQL itself writes them.
            None if matches!(text, "NaN" | "Infinity" | "-Infinity") => {
                write_not_finite(text.parse().ok()?, out);
                return Some(Ok(()));
            }
            None => return Some(Err(format!("the text '{}' is not a number", text.escape_debug()))),
        },
        Cell::F64(v) if v.is_finite() => {
            if v == 0.0 && v.is_sign_negative() {
                Notes::note(&notes.zero, column, "-0.0 is stored as 0: numeric has no negative zero");
            }
            Number::from_f64(v)?
        }
        Cell::F32(v) if v.is_finite() => Number::from_f32(v)?,
        Cell::F64(v) => {
            write_not_finite(v, out);
            return Some(Ok(()));
        }
        Cell::F32(v) => {
            write_not_finite(f64::from(v), out);
            return Some(Ok(()));
        }
        _ => return None,
    };
    // PostgreSQL itself would round.
    if let Some(scale) = scale.filter(|scale| number.scale_needed() > *scale) {
        return Some(Err(format!(
            "{cell} has more digits than the {scale} after the point that the column keeps"
        )));
    }
    Some(number.write(out))
}

fn text(cell: Cell<'_>, out: &mut Vec<u8>) -> Option<Result<(), String>> {
    let start = out.len();
    match cell {
        Cell::Text(v) | Cell::Json(v) => out.extend_from_slice(v.as_bytes()),
        Cell::List(items) => out.extend_from_slice(list_json(items).as_bytes()),
        Cell::Bytes(_) => return None,
        _ => out.extend_from_slice(cell.to_string().as_bytes()),
    }
    Some(no_nul(&out[start..]))
}

fn json(cell: Cell<'_>, out: &mut Vec<u8>) -> Option<Result<(), String>> {
    match cell {
        // Text is a JSON document, as everywhere text goes into another type.
        Cell::Json(v) | Cell::Text(v) => {
            out.extend_from_slice(v.as_bytes());
            return Some(no_nul(v.as_bytes()));
        }
        Cell::List(items) => out.extend_from_slice(list_json(items).as_bytes()),
        Cell::Bool(_) | Cell::I64(_) | Cell::U64(_) => out.extend_from_slice(cell_json(cell).as_bytes()),
        Cell::F64(v) if v.is_finite() => out.extend_from_slice(cell_json(cell).as_bytes()),
        Cell::F32(v) if v.is_finite() => out.extend_from_slice(cell_json(cell).as_bytes()),
        _ => return None,
    }
    Some(Ok(()))
}

fn no_nul(bytes: &[u8]) -> Result<(), String> {
    match bytes.contains(&0) {
        true => Err("PostgreSQL has no text with NUL in it".to_string()),
        false => Ok(()),
    }
}

fn timestamp(nanos: i128, column: &str, notes: &Notes, out: &mut Vec<u8>) -> Result<(), String> {
    cut_nanoseconds(nanos.rem_euclid(1000) != 0, column, notes);
    let micros = nanos.div_euclid(1000) - EPOCH_MICROS;
    if !(MICROS_MIN..MICROS_MAX).contains(&micros) {
        return Err("the time is outside of what PostgreSQL knows (4714 BC to 294276 AD)".to_string());
    }
    out.extend_from_slice(&(micros as i64).to_be_bytes());
    Ok(())
}

fn cut_nanoseconds(cut: bool, column: &str, notes: &Notes) {
    if cut {
        Notes::note(
            &notes.nanoseconds,
            column,
            "nanoseconds are cut off: PostgreSQL keeps microseconds",
        );
    }
}
