//! Values as literals of SQL, and whether a column can hold one without changing it. Pure but for a log line the first time a
//! column cuts something off.
//!
//! Literals are those of a session with `NO_BACKSLASH_ESCAPES` and utf8mb4, as `connect` sets it up.

use std::{
    io::Write as _,
    sync::atomic::{AtomicBool, Ordering},
};

use bus_schema::data::{Cell, Type};
use mysql_async::{FromValueError, Row, prelude::FromValue};

use crate::{
    list::{cell_json, list_json},
    postgres::Number,
};

/// Most digits after the point of a decimal that MySQL and MariaDB both have.
const SCALE_MAX: u8 = 30;
/// Most digits of a decimal.
const DIGITS_MAX: u8 = 65;
/// The first and the last day of the years 1 to 9999, counted from 1970.
const DAY_MIN: i128 = -719_162;
const DAY_MAX: i128 = 2_932_896;
const DAY_NANOS: i128 = 86_400_000_000_000;
/// Digits after the point of the seconds that times keep at most.
const TIME_DIGITS_MAX: u32 = 6;
/// Floats hold every integer up to this.
const F64_EXACT: i128 = 1 << 53;
const F32_EXACT: i128 = 1 << 24;

/// What a column holds.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Kind {
    /// Whole numbers from … to.
    Int(i128, i128),
    Year,
    Bit(u64),
    /// With the digits after the point it rounds to, if it does.
    Float(Option<i32>),
    Double(Option<i32>),
    /// Digits before and after the point.
    Decimal(i32, i32),
    /// Most characters, where the server would cut off spaces beyond them in silence; and whether it cuts off spaces at the
    /// end anyway.
    Text(Option<u64>, bool),
    /// The bytes, when it fills up shorter values with zeros.
    Bytes(Option<u64>),
    Date,
    /// With the digits after the point of the seconds; so are the next.
    Time(u32),
    DateTime(u32),
    Timestamp(u32),
    Json,
    /// `enum` or `set`, as declared.
    Named(String),
    /// As text, which the server reads as the column's type: for types we do not know.
    Read,
}

/// A column of the table.
#[derive(Debug)]
pub(super) struct Column {
    /// Its name.
    pub name: String,
    /// The database computes it.
    pub generated: bool,
    kind: Kind,
    /// Its type as declared, for messages.
    declared: String,
    nullable: bool,
    notes: Notes,
}

/// What the column cuts off, each logged once.
#[derive(Debug, Default)]
struct Notes {
    fraction: AtomicBool,
    offset: AtomicBool,
    spaces: AtomicBool,
    zero: AtomicBool,
}

impl Column {
    /// A row of `information_schema.COLUMNS`: name, type, declared type, nullable, extra, characters, precision, scale,
    /// digits of seconds. `None` when it is not one.
    pub(super) fn of(row: &Row) -> Option<Self> {
        fn get<T: FromValue>(row: &Row, index: usize) -> Option<T> {
            row.get_opt::<T, _>(index)
                .and_then(|value: Result<T, FromValueError>| value.ok())
        }
        let declared: String = get(row, 2)?;
        let extra: String = get(row, 4)?;
        let extra = extra.to_ascii_uppercase();
        let nullable: i64 = get(row, 3)?;
        let generated = ["VIRTUAL GENERATED", "STORED GENERATED", "PERSISTENT"];
        Some(Self {
            name: get(row, 0)?,
            generated: generated.iter().any(|word| extra.contains(word)),
            kind: Kind::of(
                &get::<String>(row, 1)?,
                &declared,
                get::<Option<u64>>(row, 5)?,
                get::<Option<i32>>(row, 6)?.unwrap_or(0),
                get::<Option<i32>>(row, 7)?,
                get::<Option<u32>>(row, 8)?.unwrap_or(0),
            ),
            // It would count on instead.
            nullable: nullable != 0 && !extra.contains("AUTO_INCREMENT"),
            declared,
            notes: Notes::default(),
        })
    }

    fn note(&self, flag: &AtomicBool, what: &str) {
        if !flag.swap(true, Ordering::Relaxed) {
            tracing::warn!(column = self.name, "{what}");
        }
    }
}

impl Kind {
    fn of(ty: &str, declared: &str, chars: Option<u64>, precision: i32, scale: Option<i32>, digits: u32) -> Self {
        let unsigned = declared.contains("unsigned");
        let int = |bits: u32| match unsigned {
            true => Kind::Int(0, (1 << bits) - 1),
            false => Kind::Int(-(1 << (bits - 1)), (1 << (bits - 1)) - 1),
        };
        match ty {
            "tinyint" => int(8),
            "smallint" => int(16),
            "mediumint" => int(24),
            "int" => int(32),
            "bigint" => int(64),
            "year" => Kind::Year,
            "bit" => Kind::Bit(precision as u64),
            "float" => Kind::Float(scale),
            "double" => Kind::Double(scale),
            "decimal" => Kind::Decimal(precision - scale.unwrap_or(0), scale.unwrap_or(0)),
            "char" => Kind::Text(chars, true),
            "varchar" => Kind::Text(chars, false),
            "tinytext" | "text" | "mediumtext" | "longtext" => Kind::Text(None, false),
            "binary" => Kind::Bytes(chars),
            "varbinary" | "tinyblob" | "blob" | "mediumblob" | "longblob" => Kind::Bytes(None),
            "date" => Kind::Date,
            "time" => Kind::Time(digits),
            "datetime" => Kind::DateTime(digits),
            "timestamp" => Kind::Timestamp(digits),
            "json" => Kind::Json,
            "enum" | "set" => Kind::Named(declared.to_string()),
            _ => Kind::Read,
        }
    }
}

/// The type of a new column that holds every value of `ty` as it is; `None` for [`Type::Any`], where values decide.
pub(super) fn column_type(ty: &Type) -> Option<String> {
    Some(match ty {
        Type::Bool => "tinyint(1)".into(),
        Type::I64 => "bigint".into(),
        Type::U64 => "bigint unsigned".into(),
        Type::F32 => "float".into(),
        Type::F64 => "double".into(),
        Type::Decimal { precision, scale } if *scale > SCALE_MAX || *precision > DIGITS_MAX => "longtext".into(),
        Type::Decimal { precision: 0, scale } => format!("decimal({DIGITS_MAX},{scale})"),
        Type::Decimal { precision, scale } => format!("decimal({},{scale})", precision.max(scale)),
        Type::Text => "longtext".into(),
        Type::Bytes => "longblob".into(),
        Type::Date => "date".into(),
        Type::Time => "time(6)".into(),
        Type::Timestamp(_) => "datetime(6)".into(),
        Type::Uuid => "char(36) CHARACTER SET ascii COLLATE ascii_bin".into(),
        Type::Json | Type::List => "json".into(),
        Type::Any => return None,
    })
}

/// The type of a new column for values of any type; `None` while there are none.
///
/// Where a source does not say that numbers are whole, the next may not be: numbers that are not all floats get a
/// `decimal`. Of other types the first value decides.
pub(super) fn column_type_of<'a>(cells: impl Iterator<Item = Cell<'a>>) -> Option<String> {
    let mut first = None;
    let (mut numbers, mut floats) = (true, true);
    let number = |ty: &Type| matches!(ty, Type::I64 | Type::U64 | Type::F32 | Type::F64 | Type::Decimal { .. });
    for ty in cells.filter_map(|cell| cell.type_of()) {
        floats &= matches!(ty, Type::F32 | Type::F64);
        numbers &= number(&ty);
        first.get_or_insert(ty);
    }
    let first = first?;
    match first {
        _ if numbers && floats => Some("double".into()),
        Type::F32 | Type::F64 if !numbers => column_type(&first),
        _ if number(&first) => Some(format!("decimal({DIGITS_MAX},{SCALE_MAX})")),
        _ => column_type(&first),
    }
}

/// Text as a literal.
pub(super) fn text_literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Bytes as a literal.
pub(super) fn bytes_literal(bytes: &[u8]) -> String {
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("x'{hex}'")
}

/// Appends one value as a literal. `Err`: the column cannot hold it, and why; then `out` may end in anything.
pub(super) fn write_literal(cell: Cell<'_>, column: &Column, out: &mut Vec<u8>) -> Result<(), String> {
    if !cell.is_value() {
        if !column.nullable {
            return Err("the column takes no NULL".to_string());
        }
        out.extend_from_slice(b"NULL");
        return Ok(());
    }
    match &column.kind {
        Kind::Int(from, to) => integer(cell, column, *from, *to, out),
        // The server would read 24 as 2024.
        Kind::Year => integer(cell, column, 1901, 2155, out),
        Kind::Bit(bits) => integer(cell, column, 0, (1i128 << bits.min(&64)) - 1, out),
        Kind::Float(scale) => {
            let float = float4(cell).ok_or_else(|| unfit(cell, column))?;
            float_literal(f64::from(float), *scale, cell, column, out)
        }
        Kind::Double(scale) => {
            let float = float8(cell).ok_or_else(|| unfit(cell, column))?;
            float_literal(float, *scale, cell, column, out)
        }
        Kind::Decimal(before, after) => decimal(cell, column, *before, *after, out),
        Kind::Text(max, cut) => text(cell, column, *max, *cut, out),
        Kind::Bytes(fixed) => bytes(cell, column, *fixed, out),
        Kind::Date | Kind::Time(_) | Kind::DateTime(_) | Kind::Timestamp(_) => time(cell, column, out),
        Kind::Json => match cell {
            Cell::Json(v) | Cell::Text(v) => quoted(v, out),
            Cell::List(items) => quoted(&list_json(items), out),
            Cell::Bool(_) | Cell::I64(_) | Cell::U64(_) => quoted(&cell_json(cell), out),
            Cell::F64(v) if v.is_finite() => quoted(&cell_json(cell), out),
            Cell::F32(v) if v.is_finite() => quoted(&cell_json(cell), out),
            _ => Err(unfit(cell, column)),
        },
        Kind::Named(declared) => match cell {
            // The server would take it for the number of a name.
            Cell::Text(v) if v.trim().parse::<u64>().is_ok() && !declared.contains(&text_literal(v)) => {
                Err(format!("'{v}' is none of {declared}"))
            }
            Cell::Text(v) => quoted(v, out),
            _ => Err(unfit(cell, column)),
        },
        Kind::Read => match cell {
            Cell::Bytes(_) | Cell::List(_) => Err(unfit(cell, column)),
            _ => quoted(&cell.to_string(), out),
        },
    }
}

fn unfit(cell: Cell<'_>, column: &Column) -> String {
    let found = cell.type_of().map_or_else(|| "null".to_string(), |ty| ty.to_string());
    match cell {
        Cell::F64(v) if !v.is_finite() => format!("MySQL has no {v}"),
        Cell::F32(v) if !v.is_finite() => format!("MySQL has no {v}"),
        _ => format!("a {found} does not fit a column of type {}", column.declared),
    }
}

fn quoted(text: &str, out: &mut Vec<u8>) -> Result<(), String> {
    quoted_bytes(text.as_bytes(), out);
    Ok(())
}

fn quoted_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    out.push(b'\'');
    for (at, part) in bytes.split(|byte| *byte == b'\'').enumerate() {
        out.extend_from_slice(if at > 0 { b"''" } else { b"" });
        out.extend_from_slice(part);
    }
    out.push(b'\'');
}

/// A number of any kind, or text that is one.
fn number(cell: Cell<'_>, column: &Column) -> Result<Number, String> {
    let number = match cell {
        Cell::Bool(v) if column.declared.starts_with("tinyint") || column.declared.starts_with("bit") => {
            Some(Number::from_units(i128::from(v), 0))
        }
        Cell::I64(v) => Some(Number::from_units(i128::from(v), 0)),
        Cell::U64(v) => Some(Number::from_units(i128::from(v), 0)),
        Cell::F64(v) => Number::from_f64(v),
        Cell::F32(v) => Number::from_f32(v),
        Cell::Decimal(units, scale) => Some(Number::from_units(units, scale)),
        Cell::Text(text) => {
            let number = Number::parse(text);
            return number.ok_or_else(|| format!("the text '{}' is not a number", text.escape_debug()));
        }
        _ => None,
    };
    number.ok_or_else(|| unfit(cell, column))
}

fn is_negative_zero(cell: Cell<'_>) -> bool {
    match cell {
        Cell::F64(v) => v == 0.0 && v.is_sign_negative(),
        Cell::F32(v) => v == 0.0 && v.is_sign_negative(),
        _ => false,
    }
}

fn integer(cell: Cell<'_>, column: &Column, from: i128, to: i128, out: &mut Vec<u8>) -> Result<(), String> {
    let whole = number(cell, column)?.to_i128().filter(|_| !is_negative_zero(cell));
    match whole.filter(|whole| (from..=to).contains(whole)) {
        Some(whole) => {
            // Writing into memory does not fail.
            let _ = write!(out, "{whole}");
            Ok(())
        }
        None => Err(format!("{cell} is not a whole number within the column's range")),
    }
}

fn decimal(cell: Cell<'_>, column: &Column, before: i32, after: i32, out: &mut Vec<u8>) -> Result<(), String> {
    let number = number(cell, column)?.shortest();
    // The server itself would round.
    if number.scale_needed() > after {
        return Err(format!(
            "{cell} has more digits than the {after} after the point that the column keeps"
        ));
    }
    if number.digits_before() > before {
        return Err(format!(
            "{cell} has more digits than the {before} before the point that the column keeps"
        ));
    }
    if is_negative_zero(cell) {
        column.note(
            &column.notes.zero,
            "-0.0 is stored as 0: the server keeps no negative zero",
        );
    }
    out.extend_from_slice(number.plain().as_bytes());
    Ok(())
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
        Cell::Text(text) => text_float(text),
        _ => None,
    }
    .filter(|float| float.is_finite())
}

/// Text as a float; `None` when it is no number, or too small for one.
fn text_float(text: &str) -> Option<f64> {
    let number = Number::parse(text)?;
    let float: f64 = text.trim_ascii().parse().ok()?;
    (float != 0.0 || number.to_i128() == Some(0)).then_some(float)
}

fn float4(cell: Cell<'_>) -> Option<f32> {
    match cell {
        Cell::F32(v) => Some(v),
        Cell::F64(v) => (f64::from(v as f32) == v).then_some(v as f32),
        Cell::I64(v) => (i128::from(v).abs() <= F32_EXACT).then_some(v as f32),
        Cell::U64(v) => (i128::from(v) <= F32_EXACT).then_some(v as f32),
        Cell::Text(text) => {
            let (float, wide) = (text.trim_ascii().parse::<f32>().ok()?, text_float(text)?);
            (float != 0.0 || wide == 0.0).then_some(float)
        }
        _ => None,
    }
    .filter(|float| float.is_finite())
}

fn float_literal(
    float: f64,
    scale: Option<i32>,
    cell: Cell<'_>,
    column: &Column,
    out: &mut Vec<u8>,
) -> Result<(), String> {
    // A column float(7,2) rounds.
    if let Some(scale) = scale
        && Number::from_f64(float).is_none_or(|number| number.scale_needed() > scale)
    {
        return Err(format!(
            "{cell} has more digits than the {scale} after the point that the column keeps"
        ));
    }
    if is_negative_zero(cell) {
        column.note(
            &column.notes.zero,
            "-0.0 is stored as 0: the server keeps no negative zero",
        );
    }
    // Without an exponent it would be a decimal. Writing into memory does not fail.
    let _ = write!(out, "{float:e}");
    Ok(())
}

fn text(cell: Cell<'_>, column: &Column, max: Option<u64>, cut: bool, out: &mut Vec<u8>) -> Result<(), String> {
    let written;
    let text: &str = match cell {
        Cell::Text(v) | Cell::Json(v) => v,
        Cell::Bytes(_) => return Err(unfit(cell, column)),
        Cell::List(items) => {
            written = list_json(items);
            &written
        }
        _ => {
            written = cell.to_string();
            &written
        }
    };
    if let Some(max) = max
        && text.chars().count() as u64 > max
    {
        return Err(format!("the text is longer than the {max} characters of the column"));
    }
    if cut && text.ends_with(' ') {
        column.note(
            &column.notes.spaces,
            "spaces at the end are not kept: the column is a char",
        );
    }
    quoted(text, out)
}

fn bytes(cell: Cell<'_>, column: &Column, fixed: Option<u64>, out: &mut Vec<u8>) -> Result<(), String> {
    let bytes: &[u8] = match &cell {
        Cell::Bytes(v) => v,
        Cell::Uuid(v) => v,
        _ => return Err(unfit(cell, column)),
    };
    if let Some(fixed) = fixed
        && bytes.len() as u64 != fixed
    {
        return Err(format!("{} bytes do not fill the {fixed} of the column", bytes.len()));
    }
    out.extend_from_slice(b"_binary");
    quoted_bytes(bytes, out);
    Ok(())
}

fn time(cell: Cell<'_>, column: &Column, out: &mut Vec<u8>) -> Result<(), String> {
    let digits = |kept: &u32| 10i128.pow(9 - (*kept).min(TIME_DIGITS_MAX));
    let text = match (&column.kind, cell) {
        // The server refuses what it cannot read, and what it cuts off it says.
        (_, Cell::Text(v)) => return quoted(v, out),
        (Kind::Date, Cell::Date(days)) => {
            in_range(i128::from(days))?;
            cell.to_string()
        }
        (Kind::Time(kept), Cell::Time(nanos)) if i128::from(nanos) < DAY_NANOS => {
            let nanos = cut(i128::from(nanos), digits(kept), column);
            Cell::Time(nanos as u64).to_string()
        }
        (Kind::DateTime(kept), Cell::Timestamp(nanos) | Cell::TimestampUtc(nanos)) => {
            moment(nanos, digits(kept), column)?
        }
        (Kind::DateTime(kept) | Kind::Timestamp(kept), Cell::TimestampOffset(nanos, offset)) => {
            if offset != 0 {
                column.note(
                    &column.notes.offset,
                    "UTC offsets are not kept: the column holds the instant, in UTC",
                );
            }
            moment(nanos, digits(kept), column)?
        }
        (Kind::Timestamp(kept), Cell::TimestampUtc(nanos)) => moment(nanos, digits(kept), column)?,
        (Kind::Timestamp(_), Cell::Timestamp(_)) => {
            return Err("a timestamp without a time zone names no instant: cast it first".into());
        }
        _ => return Err(unfit(cell, column)),
    };
    quoted(&text, out)
}

fn in_range(day: i128) -> Result<(), String> {
    match (DAY_MIN..=DAY_MAX).contains(&day) {
        true => Ok(()),
        false => Err("the time is outside of what MySQL knows (years 1 to 9999)".to_string()),
    }
}

/// The server would round; what is cut off here is logged.
fn cut(nanos: i128, unit: i128, column: &Column) -> i128 {
    let rest = nanos.rem_euclid(unit);
    if rest != 0 {
        column.note(
            &column.notes.fraction,
            "parts of seconds are cut off: the column keeps fewer digits, microseconds at most",
        );
    }
    nanos - rest
}

fn moment(nanos: i128, unit: i128, column: &Column) -> Result<String, String> {
    in_range(nanos.div_euclid(DAY_NANOS))?;
    let text = Cell::Timestamp(cut(nanos, unit, column)).to_string();
    Ok(text.replacen('T', " ", 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_are_doubled_and_nothing_else() {
        assert_eq!(text_literal("a'b\\'"), "'a''b\\'''");
        let mut out = Vec::new();
        quoted_bytes(b"\0'\\\xff", &mut out);
        assert_eq!(out, b"'\0''\\\xff'");
        assert_eq!(bytes_literal(&[0, 255]), "x'00ff'");
    }

    #[test]
    fn values_decide_where_types_do_not() {
        for (cells, wanted) in [
            (vec![], None),
            (vec![Cell::Null, Cell::F64(0.5), Cell::F32(1.0)], Some("double")),
            (vec![Cell::F64(0.5), Cell::I64(1)], Some("decimal(65,30)")),
            (vec![Cell::I64(1), Cell::Text("x")], Some("decimal(65,30)")),
            (vec![Cell::Text("x"), Cell::I64(1)], Some("longtext")),
        ] {
            assert_eq!(column_type_of(cells.into_iter()).as_deref(), wanted);
        }
    }
}
