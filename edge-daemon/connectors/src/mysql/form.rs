//! Values as MySQL writes them in the text protocol, and what they are as values of a record. Pure.
//!
//! Rows of a query and changes of the binary log both come as this text, so that a value is the same whichever way it came.
//! It is read as the session of the sources makes it: utf8mb4, UTC, floats as doubles.

use bus_schema::data::{Cell, Type, Zone};
use mysql_async::{
    Column,
    consts::{ColumnFlags, ColumnType},
};

use crate::postgres::{DECIMAL_DIGITS_MAX, Written, date, decimal, time, timestamp, uuid};

/// The number of the character set `binary`: what is in it is bytes and not text.
const BINARY: u16 = 63;
/// Every month has this many days.
const DAYS_OF_EVERY_MONTH: u8 = 28;
/// Most bits of a `bit`.
const BIT_BYTES_MAX: usize = 8;
/// Digits after the point of the seconds that times have at most.
const TIME_DIGITS_MAX: u8 = 6;

/// How the text of a column is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Form {
    Integer,
    /// `bigint unsigned`.
    Unsigned,
    /// `bit(n)`, which is written as its bytes.
    Bit,
    Float4,
    Float8,
    /// With precision and scale where they fit.
    Decimal(Option<(u8, u8)>),
    Text,
    /// `enum` and `set`: text that is not in the order of its letters.
    Named,
    Bytes,
    Date,
    Time,
    DateTime,
    Timestamp,
    Uuid,
    Json,
}

impl Form {
    /// The form of a column of a result. `declared` is the catalog's name of its type, where one is known: MariaDB's `uuid`
    /// and `json` come as text.
    pub(super) fn of(column: &Column, declared: Option<&str>) -> Self {
        use ColumnType::{
            MYSQL_TYPE_BIT, MYSQL_TYPE_DATE, MYSQL_TYPE_DATETIME, MYSQL_TYPE_DATETIME2, MYSQL_TYPE_DECIMAL,
            MYSQL_TYPE_DOUBLE, MYSQL_TYPE_ENUM, MYSQL_TYPE_FLOAT, MYSQL_TYPE_INT24, MYSQL_TYPE_JSON, MYSQL_TYPE_LONG,
            MYSQL_TYPE_LONGLONG, MYSQL_TYPE_NEWDATE, MYSQL_TYPE_NEWDECIMAL, MYSQL_TYPE_SET, MYSQL_TYPE_SHORT,
            MYSQL_TYPE_TIME, MYSQL_TYPE_TIME2, MYSQL_TYPE_TIMESTAMP, MYSQL_TYPE_TIMESTAMP2, MYSQL_TYPE_TINY,
            MYSQL_TYPE_YEAR,
        };
        let flags = column.flags();
        match (declared, column.column_type()) {
            (Some("uuid"), _) => Form::Uuid,
            (Some("json"), _) | (_, MYSQL_TYPE_JSON) => Form::Json,
            (_, MYSQL_TYPE_LONGLONG) if flags.contains(ColumnFlags::UNSIGNED_FLAG) => Form::Unsigned,
            (
                _,
                MYSQL_TYPE_TINY | MYSQL_TYPE_SHORT | MYSQL_TYPE_INT24 | MYSQL_TYPE_LONG | MYSQL_TYPE_LONGLONG
                | MYSQL_TYPE_YEAR,
            ) => Form::Integer,
            (_, MYSQL_TYPE_BIT) => Form::Bit,
            (_, MYSQL_TYPE_FLOAT) => Form::Float4,
            (_, MYSQL_TYPE_DOUBLE) => Form::Float8,
            (_, MYSQL_TYPE_DECIMAL | MYSQL_TYPE_NEWDECIMAL) => Form::Decimal(limits(column)),
            (_, MYSQL_TYPE_DATE | MYSQL_TYPE_NEWDATE) => Form::Date,
            (_, MYSQL_TYPE_TIME | MYSQL_TYPE_TIME2) => Form::Time,
            (_, MYSQL_TYPE_DATETIME | MYSQL_TYPE_DATETIME2) => Form::DateTime,
            (_, MYSQL_TYPE_TIMESTAMP | MYSQL_TYPE_TIMESTAMP2) => Form::Timestamp,
            (_, MYSQL_TYPE_ENUM | MYSQL_TYPE_SET) => Form::Named,
            _ if flags.intersects(ColumnFlags::ENUM_FLAG | ColumnFlags::SET_FLAG) => Form::Named,
            // What a NULL of no type would be in is of no matter.
            (_, ColumnType::MYSQL_TYPE_NULL) => Form::Text,
            _ if column.character_set() == BINARY => Form::Bytes,
            _ => Form::Text,
        }
    }

    /// Whether a cursor can be of it: its order is that in which it is compared with a literal.
    pub(super) fn is_ordered(&self) -> bool {
        !matches!(self, Form::Named | Form::Json | Form::Float4)
    }

    /// A value as a literal that compares with it, whatever the mode of the session.
    pub(super) fn literal(&self, value: &str) -> Option<String> {
        let is_number = |text: &str| {
            !text.is_empty()
                && text
                    .bytes()
                    .all(|byte| byte.is_ascii_digit() || matches!(byte, b'-' | b'+' | b'.' | b'e'))
        };
        Some(match self {
            Form::Integer | Form::Unsigned | Form::Bit | Form::Decimal(_) => {
                is_number(value).then(|| value.to_string())?
            }
            // With an exponent it is a double and not a decimal.
            Form::Float4 | Form::Float8 if value.contains('e') => is_number(value).then(|| value.to_string())?,
            Form::Float4 | Form::Float8 => is_number(value).then(|| format!("{value}e0"))?,
            Form::Bytes => format!("x'{}'", is_hex(value).then_some(value)?),
            _ => text_literal(value),
        })
    }

    /// A value of a cursor as text that [`Form::literal`] takes; `None` when it is not UTF-8.
    pub(super) fn place(&self, value: &[u8]) -> Option<String> {
        match self {
            Form::Bytes => Some(hex(value)),
            Form::Bit => Some(bits(value)?.to_string()),
            _ => std::str::from_utf8(value).ok().map(ToString::to_string),
        }
    }
}

impl Written for Form {
    fn ty(&self) -> Type {
        match self {
            Form::Integer => Type::I64,
            Form::Unsigned | Form::Bit => Type::U64,
            Form::Float4 => Type::F32,
            Form::Float8 => Type::F64,
            Form::Decimal(Some((precision, scale))) => Type::Decimal {
                precision: *precision,
                scale: *scale,
            },
            // Each with a scale of its own, or text when it is too long for a decimal.
            Form::Decimal(None) => Type::Any,
            Form::Text | Form::Named => Type::Text,
            Form::Bytes => Type::Bytes,
            Form::Date => Type::Date,
            Form::Time => Type::Time,
            Form::DateTime => Type::Timestamp(Zone::Naive),
            Form::Timestamp => Type::Timestamp(Zone::Utc),
            Form::Uuid => Type::Uuid,
            Form::Json => Type::Json,
        }
    }

    /// 0000-00-00 is no date, and -01:00:00 no time of a day.
    fn read<R>(&self, value: &[u8], take: impl FnOnce(Cell<'_>) -> R) -> Option<R> {
        match self {
            Form::Bytes => return Some(take(Cell::Bytes(value))),
            Form::Bit => return Some(take(Cell::U64(bits(value)?))),
            _ => {}
        }
        let text = std::str::from_utf8(value).ok()?;
        let cell = match self {
            Form::Integer => Cell::I64(text.parse().ok()?),
            Form::Unsigned => Cell::U64(text.parse().ok()?),
            Form::Float4 => Cell::F32(text.parse().ok()?),
            Form::Float8 => Cell::F64(text.parse().ok()?),
            Form::Decimal(Some((_, scale))) => Cell::Decimal(decimal(text, Some(*scale))?.0, *scale),
            Form::Decimal(None) => match decimal(text, None) {
                Some((units, scale)) => Cell::Decimal(units, scale),
                None => Cell::Text(text),
            },
            Form::Date => Cell::Date(is_day(text).then(|| date(text))??),
            Form::Time => Cell::Time(time(text)?),
            Form::DateTime => Cell::Timestamp(is_day(text).then(|| timestamp(text))??),
            Form::Timestamp => Cell::TimestampUtc(is_day(text).then(|| timestamp(text))??),
            Form::Uuid => Cell::Uuid(uuid(text)?),
            Form::Json => Cell::Json(text),
            Form::Text | Form::Named | Form::Bytes | Form::Bit => Cell::Text(text),
        };
        Some(take(cell))
    }

    fn shown(cell: Cell<'_>) -> String {
        let text = cell.to_string();
        match cell {
            Cell::Timestamp(_) | Cell::TimestampUtc(_) => text.trim_end_matches('Z').replacen('T', " ", 1),
            _ => text,
        }
    }
}

/// Precision and scale of a decimal, if every value within them fits.
fn limits(column: &Column) -> Option<(u8, u8)> {
    let scale = column.decimals();
    let unsigned = column.flags().contains(ColumnFlags::UNSIGNED_FLAG);
    // The length is that of the text: with a sign, and a point if there is a fraction.
    let around = u32::from(!unsigned) + u32::from(scale > 0);
    let precision = column.column_length().checked_sub(around)?;
    let precision = precision.max(u32::from(scale)).max(1);
    let fits = precision <= DECIMAL_DIGITS_MAX as u32;
    fits.then_some((precision as u8, scale))
}

/// How far apart two times of a column are at least, in microseconds; 0 when it holds no times.
pub(super) fn tick_us(form: &Form, column: &Column) -> u64 {
    match form {
        Form::DateTime | Form::Timestamp | Form::Time => {
            let digits = column.decimals().min(TIME_DIGITS_MAX);
            10u64.pow(u32::from(TIME_DIGITS_MAX - digits))
        }
        _ => 0,
    }
}

/// Servers may hold dates such as 2024-02-30 and 0000-00-00. They are none.
fn is_day(text: &str) -> bool {
    let Some((month, day)) = text.get(5..7).zip(text.get(8..10)) else {
        return false;
    };
    let (Ok(month), Ok(day)) = (month.parse::<u8>(), day.parse::<u8>()) else {
        return false;
    };
    let last = match month {
        4 | 6 | 9 | 11 => 30,
        2 => match text.get(..4).unwrap_or_default().parse::<u16>() {
            Ok(year) if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => DAYS_OF_EVERY_MONTH + 1,
            _ => DAYS_OF_EVERY_MONTH,
        },
        1..=12 => 31,
        _ => 0,
    };
    (1..=last).contains(&day)
}

/// The most significant byte comes first.
fn bits(value: &[u8]) -> Option<u64> {
    let fold = |bits: u64, byte: &u8| bits << 8 | u64::from(*byte);
    (value.len() <= BIT_BYTES_MAX).then(|| value.iter().fold(0, fold))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Text as a literal that means the same whether backslashes are special or not.
pub(super) fn text_literal(text: &str) -> String {
    match text.contains(['\\', '\'']) {
        true => format!("_utf8mb4 x'{}'", hex(text.as_bytes())),
        false => format!("'{text}'"),
    }
}

#[cfg(test)]
mod tests {
    use bus_schema::data::Value;
    use proptest::prelude::*;

    use super::*;

    fn read(form: &Form, text: &[u8]) -> Option<Value> {
        form.read(text, |cell| cell.to_value())
    }

    #[test]
    fn text_becomes_values() {
        let day = 86_400_000_000_000i128;
        let text = |text: &str| Value::Text(text.into());
        for (form, written, value) in [
            (Form::Integer, &b"-9223372036854775808"[..], Some(Value::I64(i64::MIN))),
            (Form::Integer, b"1.0", None),
            (Form::Unsigned, b"18446744073709551615", Some(Value::U64(u64::MAX))),
            (Form::Bit, b"\x01\xff", Some(Value::U64(511))),
            (Form::Bit, b"123456789", None),
            (Form::Float4, b"0.10000000149011612", Some(Value::F32(0.1))),
            (Form::Float8, b"5e-324", Some(Value::F64(f64::from_bits(1)))),
            (Form::Decimal(Some((10, 2))), b"-1.50", Some(Value::Decimal(-150, 2))),
            (Form::Decimal(None), b"0.001", Some(Value::Decimal(1, 3))),
            (
                Form::Decimal(None),
                b"99999999999999999999999999999999999999999",
                Some(text("99999999999999999999999999999999999999999")),
            ),
            (Form::Text, b"\xff", None),
            (Form::Bytes, b"\xff\0", Some(Value::Bytes(vec![255, 0]))),
            (Form::Date, b"2000-02-29", Some(Value::Date(11_016))),
            (Form::Date, b"0000-00-00", None),
            (Form::Date, b"2024-00-01", None),
            (Form::Date, b"1900-02-29", None),
            (Form::Date, b"2024-04-31", None),
            (Form::Time, b"23:59:59.999999", Some(Value::Time(86_399_999_999_000))),
            (Form::Time, b"-00:00:01", None),
            (Form::Time, b"838:59:59", None),
            (
                Form::DateTime,
                b"1969-12-31 23:59:59.999999",
                Some(Value::Timestamp(-1_000)),
            ),
            (Form::DateTime, b"0000-00-00 00:00:00", None),
            (Form::Timestamp, b"1970-01-02 00:00:00", Some(Value::TimestampUtc(day))),
            (Form::Json, b"{\"a\":  1}", Some(Value::Json("{\"a\":  1}".into()))),
        ] {
            assert_eq!(read(&form, written), value, "{form:?} {written:?}");
        }
    }

    #[test]
    fn places_become_literals() {
        for (form, value, literal) in [
            (Form::Integer, &b"-5"[..], "-5"),
            (Form::Bit, b"\x01\x02", "258"),
            (Form::Decimal(None), b"1.50", "1.50"),
            (Form::Float8, b"0.1", "0.1e0"),
            (Form::Float8, b"1e300", "1e300"),
            (Form::Bytes, b"\0'", "x'0027'"),
            (Form::Text, b"plain", "'plain'"),
            (Form::Text, b"a'\\", "_utf8mb4 x'61275c'"),
            (
                Form::Timestamp,
                b"2024-01-01 00:00:00.000000",
                "'2024-01-01 00:00:00.000000'",
            ),
        ] {
            let place = form.place(value).unwrap();
            assert_eq!(form.literal(&place).as_deref(), Some(literal), "{form:?}");
        }
        // A position that was tampered with is no SQL.
        for (form, place) in [(Form::Integer, "1 OR 1"), (Form::Bytes, "'"), (Form::Float8, "")] {
            assert_eq!(form.literal(place), None, "{form:?} {place}");
        }
    }

    proptest! {
        #[test]
        fn dates_and_times_are_what_people_read(days in 0i128..2_900_000, micros in 0i128..86_400_000_000) {
            let nanos = (days - 719_162) * 86_400_000_000_000 + micros * 1000;
            let shown = Form::shown(Cell::Timestamp(nanos));
            prop_assert_eq!(read(&Form::DateTime, shown.as_bytes()), Some(Value::Timestamp(nanos)));
            prop_assert_eq!(Form::shown(Cell::TimestampUtc(nanos)), shown);
        }

        #[test]
        fn no_text_makes_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..40), text in "[0-9:. -]{0,30}|.{0,12}") {
            for form in [Form::Integer, Form::Bit, Form::Decimal(None), Form::Decimal(Some((5, 2))), Form::Date, Form::Time,
                Form::DateTime, Form::Timestamp, Form::Uuid, Form::Json, Form::Float8] {
                read(&form, &bytes);
                read(&form, text.as_bytes());
            }
        }
    }
}
