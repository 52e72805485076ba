//! Values in the text PostgreSQL's own output functions give, and what they are as values of a record. Pure.
//!
//! Rows of a query and changes of a slot both come as this text, so that a value is the same whichever way it came. It is
//! read as the session settings of the sources make it: ISO dates, UTC, floats exact, bytes in hexadecimal.

use bus_schema::data::{Cell, Type, Value, Zone};
use tokio_postgres::types::{Kind, Type as PgType};

use super::page::Written;

const NANOS_PER_SECOND: u64 = 1_000_000_000;
const DAY_NANOS: i128 = 86_400 * 1_000_000_000;
/// Digits every `i128` holds.
pub(crate) const DECIMAL_DIGITS_MAX: i32 = 38;

/// How the text of a column is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Form {
    Bool,
    Integer,
    Float4,
    Float8,
    /// With precision and scale where the column has them and they fit.
    Numeric(Option<(u8, u8)>),
    Text,
    /// `char(n)`: the blanks that fill it up are no part of the value.
    Padded,
    Bytea,
    Date,
    Time,
    Timestamp,
    TimestampTz,
    Uuid,
    Json,
    /// Of elements that are no arrays.
    Array(Box<Form>),
}

impl Form {
    /// The form of a type and its modifier.
    pub(super) fn of(ty: &PgType, modifier: i32) -> Self {
        match ty.kind() {
            // A domain's values are those of the type it is over; a limit it has is not in the column's modifier.
            Kind::Domain(base) => return Self::of(base, -1),
            Kind::Array(element) => return Form::Array(Box::new(Self::of(element, modifier))),
            _ => {}
        }
        match ty.oid() {
            16 => Form::Bool,
            20 | 21 | 23 | 26 => Form::Integer,
            700 => Form::Float4,
            701 => Form::Float8,
            1700 => Form::Numeric(limits(modifier)),
            1042 => Form::Padded,
            17 => Form::Bytea,
            1082 => Form::Date,
            1083 => Form::Time,
            1114 => Form::Timestamp,
            1184 => Form::TimestampTz,
            2950 => Form::Uuid,
            114 | 3802 => Form::Json,
            _ => Form::Text,
        }
    }
}

impl Written for Form {
    fn ty(&self) -> Type {
        match self {
            Form::Bool => Type::Bool,
            Form::Integer => Type::I64,
            Form::Float4 => Type::F32,
            Form::Float8 => Type::F64,
            Form::Numeric(Some((precision, scale))) => Type::Decimal {
                precision: *precision,
                scale: *scale,
            },
            // Every value has a scale of its own.
            Form::Numeric(None) => Type::Any,
            Form::Text | Form::Padded => Type::Text,
            Form::Bytea => Type::Bytes,
            Form::Date => Type::Date,
            Form::Time => Type::Time,
            Form::Timestamp => Type::Timestamp(Zone::Naive),
            Form::TimestampTz => Type::Timestamp(Zone::Utc),
            Form::Uuid => Type::Uuid,
            Form::Json => Type::Json,
            Form::Array(_) => Type::List,
        }
    }

    /// Infinity is no date, and an array of arrays no list.
    fn read<R>(&self, value: &[u8], take: impl FnOnce(Cell<'_>) -> R) -> Option<R> {
        let text = std::str::from_utf8(value).ok()?;
        let cell = match self {
            Form::Bool => Cell::Bool(match text {
                "t" => true,
                "f" => false,
                _ => return None,
            }),
            Form::Integer => Cell::I64(text.parse().ok()?),
            Form::Float4 => Cell::F32(text.parse().ok()?),
            Form::Float8 => Cell::F64(text.parse().ok()?),
            Form::Numeric(Some((_, scale))) => Cell::Decimal(decimal(text, Some(*scale))?.0, *scale),
            Form::Numeric(None) => match decimal(text, None) {
                Some((units, scale)) => Cell::Decimal(units, scale),
                None => match text {
                    "NaN" | "Infinity" | "-Infinity" => Cell::F64(text.parse().ok()?),
                    _ => Cell::Text(text),
                },
            },
            Form::Text => Cell::Text(text),
            Form::Padded => Cell::Text(text.trim_end_matches(' ')),
            Form::Bytea => return bytes(text).map(|bytes| take(Cell::Bytes(&bytes))),
            Form::Date => Cell::Date(date(text)?),
            Form::Time => Cell::Time(time(text)?),
            Form::Timestamp => Cell::Timestamp(timestamp(text)?),
            Form::TimestampTz => Cell::TimestampUtc(timestamp_utc(text)?),
            Form::Uuid => Cell::Uuid(uuid(text)?),
            Form::Json => Cell::Json(text),
            Form::Array(element) => return array(text, element).map(|items| take(Cell::List(&items))),
        };
        Some(take(cell))
    }
    fn shown(cell: Cell<'_>) -> String {
        match cell {
            Cell::List(items) => array_literal(items),
            Cell::Bytes(_) => format!("\\x{cell}"),
            cell => cell.to_string(),
        }
    }
}

/// Precision and scale of a `numeric` modifier, if every value within them fits a decimal.
fn limits(modifier: i32) -> Option<(u8, u8)> {
    let packed = modifier.checked_sub(4).filter(|packed| *packed >= 0)?;
    // Precision in the upper half, scale as a signed 11-bit number in the lower.
    let (precision, scale) = (packed >> 16, ((packed & 0x7ff) ^ 1024) - 1024);
    // A negative scale rounds before the point: whole numbers, with that many digits more.
    let precision = precision.max(scale) - scale.min(0);
    let fits = (1..=DECIMAL_DIGITS_MAX).contains(&precision);
    fits.then_some((precision as u8, scale.max(0) as u8))
}

/// Units and scale; the scale is the text's own, or the one wanted if that loses nothing.
pub(crate) fn decimal(text: &str, wanted: Option<u8>) -> Option<(i128, u8)> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let scale = match wanted {
        Some(scale) => usize::from(scale),
        None => part.len(),
    };
    let zeros = scale.checked_sub(part.len())?;
    if whole.len() + scale > DECIMAL_DIGITS_MAX as usize + 2 {
        return None;
    }
    let units: i128 = format!("{whole}{part}{}", "0".repeat(zeros)).parse().ok()?;
    Some((units, u8::try_from(scale).ok()?))
}

fn bytes(text: &str) -> Option<Vec<u8>> {
    let digits = text.strip_prefix("\\x")?.as_bytes();
    let digit = |digit: u8| (digit as char).to_digit(16);
    let mut bytes = Vec::with_capacity(digits.len() / 2);
    for pair in digits.chunks(2) {
        bytes.push((digit(pair[0])? << 4 | digit(*pair.get(1)?)?) as u8);
    }
    Some(bytes)
}

pub(crate) fn uuid(text: &str) -> Option<[u8; 16]> {
    let digits: String = text.split('-').collect();
    let value = (digits.len() == 32).then(|| u128::from_str_radix(&digits, 16).ok())??;
    Some(value.to_be_bytes())
}

/// Days since 1970 (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", days_from_civil).
pub(crate) fn date(text: &str) -> Option<i32> {
    let (text, before_christ) = match text.strip_suffix(" BC") {
        Some(text) => (text, true),
        None => (text, false),
    };
    let mut parts = text.split('-');
    let year: i64 = parts.next()?.parse().ok()?;
    let (month, day): (i64, i64) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    if parts.next().is_some() || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    // There is no year 0: 1 BC is the year before 1.
    let year = if before_christ { 1 - year } else { year } - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    i32::try_from(era * 146_097 + day_of_era - 719_468).ok()
}

pub(crate) fn time(text: &str) -> Option<u64> {
    let (clock, part) = text.split_once('.').unwrap_or((text, ""));
    let mut parts = clock.split(':');
    let mut next = || parts.next()?.parse::<u64>().ok();
    let (hours, minutes, seconds) = (next()?, next()?, next()?);
    if parts.next().is_some() || hours > 24 || minutes > 59 || seconds > 60 || part.len() > 9 {
        return None;
    }
    let nanos: u64 = format!("{part:0<9}").parse().ok()?;
    Some((hours * 3600 + minutes * 60 + seconds) * NANOS_PER_SECOND + nanos)
}

pub(crate) fn timestamp(text: &str) -> Option<i128> {
    let (moment, era) = match text.strip_suffix(" BC") {
        Some(moment) => (moment, " BC"),
        None => (text, ""),
    };
    let (day, clock) = moment.split_once(' ')?;
    let days = date(&format!("{day}{era}"))?;
    Some(i128::from(days) * DAY_NANOS + i128::from(time(clock)?))
}

fn timestamp_utc(text: &str) -> Option<i128> {
    match text.strip_suffix("+00") {
        Some(text) => timestamp(text),
        None => timestamp(&format!("{} BC", text.strip_suffix("+00 BC")?)),
    }
}

/// The items of `{1,"two",NULL}`. Arrays of arrays and arrays that do not begin at 1 are not lists.
fn array(text: &str, element: &Form) -> Option<Vec<Value>> {
    let mut rest = text.strip_prefix('{')?;
    let mut items = Vec::new();
    if rest == "}" {
        return Some(items);
    }
    loop {
        let (item, after) = item(rest)?;
        items.push(match item {
            None => Value::Null,
            Some(text) => element.read(text.as_bytes(), |cell| cell.to_value())?,
        });
        match after.split_at_checked(1)? {
            (",", more) => rest = more,
            ("}", "") => return Some(items),
            _ => return None,
        }
    }
}

/// The first item (`None`: null), and what follows it.
fn item(text: &str) -> Option<(Option<String>, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', '}'])?;
        let item = &text[..end];
        // A brace opens an array within the array.
        return match item {
            _ if item.contains('{') => None,
            "NULL" => Some((None, &text[end..])),
            _ => Some((Some(item.to_string()), &text[end..])),
        };
    };
    let mut item = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, char)) = chars.next() {
        match char {
            '"' => return Some((Some(item), &quoted[at + 1..])),
            '\\' => item.push(chars.next()?.1),
            _ => item.push(char),
        }
    }
    None
}

/// A list as PostgreSQL reads an array.
pub(super) fn array_literal(items: &[Value]) -> String {
    let mut text = String::from("{");
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            text.push(',');
        }
        match item.as_cell() {
            Cell::Null | Cell::Missing | Cell::Unchanged => text.push_str("NULL"),
            cell => {
                text.push('"');
                let prefix = if matches!(cell, Cell::Bytes(_)) { "\\x" } else { "" };
                for char in format!("{prefix}{cell}").chars() {
                    if matches!(char, '"' | '\\') {
                        text.push('\\');
                    }
                    text.push(char);
                }
                text.push('"');
            }
        }
    }
    text.push('}');
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(form: &Form, text: &str) -> Option<Value> {
        form.read(text.as_bytes(), |cell| cell.to_value())
    }

    #[test]
    fn text_becomes_values() {
        let day = DAY_NANOS;
        let uuid = "12345678-9abc-def0-0102-030405060708";
        let strings = Form::Array(Box::new(Form::Text));
        let text = |text: &str| Value::Text(text.into());
        for (form, written, value) in [
            (Form::Bool, "t", Some(Value::Bool(true))),
            (Form::Bool, "true", None),
            (Form::Integer, "-9223372036854775808", Some(Value::I64(i64::MIN))),
            (Form::Float8, "-Infinity", Some(Value::F64(f64::NEG_INFINITY))),
            (Form::Float8, "5e-324", Some(Value::F64(f64::from_bits(1)))),
            (Form::Float4, "0.1", Some(Value::F32(0.1))),
            (Form::Numeric(Some((10, 2))), "-1.50", Some(Value::Decimal(-150, 2))),
            (Form::Numeric(Some((10, 2))), "NaN", None),
            (Form::Numeric(Some((3, 0))), "12000", Some(Value::Decimal(12_000, 0))),
            (Form::Numeric(None), "0.001", Some(Value::Decimal(1, 3))),
            (Form::Numeric(None), "Infinity", Some(Value::F64(f64::INFINITY))),
            (
                Form::Numeric(None),
                "-99999999999999999999999999999999999999",
                Some(Value::Decimal(1 - 10i128.pow(38), 0)),
            ),
            (
                Form::Numeric(None),
                "999999999999999999999999999999999999999",
                Some(text("999999999999999999999999999999999999999")),
            ),
            (Form::Padded, "ab  ", Some(text("ab"))),
            (Form::Bytea, "\\x00ff", Some(Value::Bytes(vec![0, 255]))),
            (Form::Bytea, "\\x0", None),
            (Form::Date, "1970-01-01", Some(Value::Date(0))),
            (Form::Date, "2000-02-29", Some(Value::Date(11_016))),
            (Form::Date, "0001-01-01 BC", Some(Value::Date(-719_528))),
            (Form::Date, "4714-11-24 BC", Some(Value::Date(-2_440_588))),
            (Form::Date, "infinity", None),
            (Form::Time, "23:59:59.999999", Some(Value::Time(86_399_999_999_000))),
            (Form::Time, "24:00:00", Some(Value::Time(86_400_000_000_000))),
            (
                Form::Timestamp,
                "1969-12-31 23:59:59.999999",
                Some(Value::Timestamp(-1_000)),
            ),
            (
                Form::TimestampTz,
                "1970-01-02 00:00:00+00",
                Some(Value::TimestampUtc(day)),
            ),
            (
                Form::TimestampTz,
                "0001-01-01 00:00:00+00 BC",
                Some(Value::TimestampUtc(-719_528 * day)),
            ),
            (Form::TimestampTz, "-infinity", None),
            (Form::TimestampTz, "1970-01-02 00:00:00+01", None),
            (
                Form::Uuid,
                uuid,
                Some(Value::Uuid(
                    *b"\x12\x34\x56\x78\x9a\xbc\xde\xf0\x01\x02\x03\x04\x05\x06\x07\x08",
                )),
            ),
            (Form::Json, "{\"a\":  1}", Some(Value::Json("{\"a\":  1}".into()))),
            (strings.clone(), "{}", Some(Value::List(vec![]))),
            (
                strings.clone(),
                r#"{a,"b,}","NULL",NULL,"q\"\\"}"#,
                Some(Value::List(vec![
                    text("a"),
                    text("b,}"),
                    text("NULL"),
                    Value::Null,
                    text("q\"\\"),
                ])),
            ),
            (strings.clone(), "{{a},{b}}", None),
            (strings.clone(), "[0:1]={a,b}", None),
            (strings, "{a", None),
        ] {
            assert_eq!(read(&form, written), value, "{form:?} {written}");
        }
    }

    #[test]
    fn modifiers_of_numeric() {
        let modifier = |precision: i32, scale: i32| ((precision << 16) | (scale & 0x7ff)) + 4;
        for (modifier, wanted) in [
            (-1, None),
            (modifier(10, 2), Some((10, 2))),
            (modifier(38, 38), Some((38, 38))),
            (modifier(39, 0), None),
            (modifier(3, -2), Some((5, 0))),
            (modifier(2, 5), Some((5, 5))),
        ] {
            assert_eq!(limits(modifier), wanted, "{modifier}");
        }
    }

    proptest! {
        #[test]
        fn dates_and_times_are_what_people_read(days in -2_440_588i32..2_000_000, micros in 0u64..86_400_000_000) {
            let nanos = i128::from(days) * DAY_NANOS + i128::from(micros) * 1000;
            let shown = Cell::Timestamp(nanos).to_string().replace('T', " ");
            // The years before 1 are written in another way.
            if days >= -719_162 {
                prop_assert_eq!(timestamp(&shown), Some(nanos));
                prop_assert_eq!(date(&Cell::Date(days).to_string()), Some(days));
            }
        }

        #[test]
        fn lists_come_back_from_their_literals(items in proptest::collection::vec(proptest::option::of(".*"), 0..5)) {
            let items: Vec<Value> = items.into_iter().map(|item| item.map_or(Value::Null, Value::Text)).collect();
            prop_assert_eq!(array(&array_literal(&items), &Form::Text), Some(items));
        }

        #[test]
        fn no_text_makes_it_panic(text in ".*", braces in r#"[{},"\\a\[\]:=0-9.+ -]{0,20}"#) {
            for ty in [PgType::BOOL, PgType::NUMERIC, PgType::BYTEA, PgType::DATE, PgType::TIME, PgType::TIMESTAMP,
                PgType::TIMESTAMPTZ, PgType::UUID, PgType::TEXT_ARRAY, PgType::INT4_ARRAY] {
                for text in [&text, &braces] {
                    Form::of(&ty, -1).read(text.as_bytes(), |_| ());
                    Form::of(&ty, 655_366).read(text.as_bytes(), |_| ());
                }
            }
        }
    }
}
