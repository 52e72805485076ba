//! Values as text and back: names of types, reading a typed value from text (what [`Cell`]'s `Display` writes, and the
//! usual other spellings), and JSON. Converts exactly or refuses; never rounds except a float's decimal digits.

use std::io::Write as _;

use bus_schema::data::{Cell, Type, Value, Zone};

const NANOS: i128 = 1_000_000_000;
const DAY_NANOS: i128 = 86_400 * NANOS;
/// Largest scale of a decimal: `10^38` is the largest power of ten an `i128` holds.
pub const SCALE_MAX: u8 = 38;

/// The type of this name, as [`Type`]'s `Display` writes it: `i64`, `decimal(10,2)`, `timestamp_utc`, ….
pub fn type_named(name: &str) -> Option<Type> {
    Some(match name.trim() {
        "bool" => Type::Bool,
        "i64" => Type::I64,
        "u64" => Type::U64,
        "f32" => Type::F32,
        "f64" => Type::F64,
        "text" => Type::Text,
        "bytes" => Type::Bytes,
        "date" => Type::Date,
        "time" => Type::Time,
        "timestamp" => Type::Timestamp(Zone::Naive),
        "timestamp_utc" => Type::Timestamp(Zone::Utc),
        "timestamp_offset" => Type::Timestamp(Zone::Offset),
        "uuid" => Type::Uuid,
        "json" => Type::Json,
        "list" => Type::List,
        "any" => Type::Any,
        name => return decimal_named(name),
    })
}

fn decimal_named(name: &str) -> Option<Type> {
    let (precision, scale) = name.strip_prefix("decimal(")?.strip_suffix(')')?.split_once(',')?;
    let precision = if precision.trim() == "*" {
        0
    } else {
        precision.trim().parse().ok().filter(|p| *p > 0)?
    };
    let scale = scale.trim().parse().ok()?;
    let fits = scale <= SCALE_MAX && precision <= SCALE_MAX && (precision == 0 || scale <= precision);
    fits.then_some(Type::Decimal { precision, scale })
}

/// What [`type_named`] takes, for messages.
pub const TYPE_NAMES: &str = "bool, i64, u64, f32, f64, decimal(digits,scale), text, bytes, date, time, timestamp, \
                              timestamp_utc, timestamp_offset, uuid, json, list or any";

/// Reads a value of type `ty` from text. Spaces around anything but text are ignored. Refuses what does not fit; a list
/// and "any" have no text form. The error continues a sentence: "is not …".
pub fn parse(text: &str, ty: &Type) -> Result<Value, String> {
    let trimmed = text.trim();
    let value = match ty {
        Type::Text | Type::Any => Some(Value::Text(text.to_string())),
        Type::Json => return parse_json(text).map(|()| Value::Json(text.to_string())),
        Type::Bool => boolean(trimmed).map(Value::Bool),
        Type::I64 => trimmed.parse().ok().map(Value::I64),
        Type::U64 => trimmed.parse().ok().map(Value::U64),
        Type::F32 => float32(trimmed).map(Value::F32),
        Type::F64 => float(trimmed).map(Value::F64),
        Type::Decimal { precision, scale } => decimal(trimmed, *precision, *scale).map(|v| Value::Decimal(v, *scale)),
        Type::Bytes => hex(trimmed).map(Value::Bytes),
        Type::Date => date(trimmed).map(Value::Date),
        Type::Time => time(trimmed).map(Value::Time),
        Type::Timestamp(zone) => timestamp(trimmed, *zone),
        Type::Uuid => uuid(trimmed).map(Value::Uuid),
        Type::List => None,
    };
    value.ok_or_else(|| format!("is not a value of type {ty}: '{}'", shorten(text)))
}

/// Enough of a text to recognise it in a message.
pub fn shorten(text: &str) -> String {
    const SHOWN_CHARS_MAX: usize = 60;
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_string(),
    }
}

/// Whether the text is one JSON value.
pub fn parse_json(text: &str) -> Result<(), String> {
    serde_json::from_str::<serde::de::IgnoredAny>(text)
        .map(drop)
        .map_err(|error| format!("is not JSON: {error}"))
}

fn boolean(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "t" | "yes" | "1" => Some(true),
        "false" | "f" | "no" | "0" => Some(false),
        _ => None,
    }
}

/// The nearest float of decimal digits. An integer has to be exact, and nothing finite may become infinite.
fn float(text: &str) -> Option<f64> {
    let value: f64 = text.parse().ok()?;
    if !value.is_finite() {
        return spelled_non_finite(text).then_some(value);
    }
    if is_integer(text) {
        return (decimal(text, 0, 0)? == value as i128).then_some(value);
    }
    Some(value)
}

fn float32(text: &str) -> Option<f32> {
    let value: f32 = text.parse().ok()?;
    if !value.is_finite() {
        return spelled_non_finite(text).then_some(value);
    }
    if is_integer(text) {
        return (decimal(text, 0, 0)? == value as i128).then_some(value);
    }
    Some(value)
}

fn spelled_non_finite(text: &str) -> bool {
    text.bytes()
        .any(|byte| byte.is_ascii_alphabetic() && !byte.eq_ignore_ascii_case(&b'e'))
}

fn is_integer(text: &str) -> bool {
    text.bytes()
        .all(|byte| byte.is_ascii_digit() || matches!(byte, b'-' | b'+'))
}

/// Units of `10^-scale` of a number in decimal or scientific notation, or `None` when it does not fit exactly.
/// A precision of 0 is no limit.
pub fn decimal(text: &str, precision: u8, scale: u8) -> Option<i128> {
    let (mantissa, exponent) = match text.find(['e', 'E']) {
        Some(at) => (&text[..at], text[at + 1..].parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (negative, digits) = match mantissa.as_bytes().first()? {
        b'-' => (true, &mantissa[1..]),
        b'+' => (false, &mantissa[1..]),
        _ => (false, mantissa),
    };
    let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.is_empty() && part.is_empty() || !whole.bytes().chain(part.bytes()).all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let part = part.trim_end_matches('0');
    let mut units: i128 = 0;
    for digit in whole.bytes().chain(part.bytes()).map(|byte| i128::from(byte - b'0')) {
        // Counted downwards: the negative side of an i128 is the longer one.
        units = units.checked_mul(10)?.checked_sub(digit)?;
    }
    let shift = i64::from(exponent) - part.len() as i64 + i64::from(scale);
    let units = shifted(units, shift)?;
    let units = if negative { units } else { units.checked_neg()? };
    fits_precision(units, precision).then_some(units)
}

/// `units` times `10^shift`, if exact.
pub fn shifted(units: i128, shift: i64) -> Option<i128> {
    if units == 0 {
        return Some(0);
    }
    let power = 10i128.checked_pow(u32::try_from(shift.unsigned_abs()).ok()?)?;
    if shift >= 0 {
        units.checked_mul(power)
    } else {
        (units % power == 0).then(|| units / power)
    }
}

/// A float as units of `10^-scale`: a whole number is taken as it is, bit for bit; a fraction as its shortest decimal form
/// says.
pub fn float_units(value: f64, shortest: &str, scale: u8) -> Option<i128> {
    // 2^126: whole floats below it are exact as an i128.
    const WHOLE_MAX: f64 = 8.5e37;
    if value == 0.0 && value.is_sign_negative() {
        // Negative zero has no integer or decimal.
        None
    } else if value.fract() == 0.0 {
        (value.abs() < WHOLE_MAX)
            .then_some(value as i128)
            .and_then(|whole| shifted(whole, i64::from(scale)))
    } else {
        decimal(shortest, 0, scale)
    }
}

/// Whether that many digits are enough. 0 is no limit.
pub fn fits_precision(units: i128, precision: u8) -> bool {
    precision == 0
        || 10u128
            .checked_pow(u32::from(precision))
            .is_none_or(|limit| units.unsigned_abs() < limit)
}

fn hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let pairs = text.as_bytes().chunks(2);
    pairs
        .map(|pair| Some(digit(pair[0])? << 4 | digit(*pair.get(1)?)?))
        .collect()
}

fn uuid(text: &str) -> Option<[u8; 16]> {
    let bytes = text.as_bytes();
    let dashes = [8, 13, 18, 23];
    let digits: String = match bytes.len() {
        32 => text.to_string(),
        36 if dashes.iter().all(|at| bytes[*at] == b'-') => text.replace('-', ""),
        _ => return None,
    };
    hex(&digits)?.try_into().ok()
}

/// A number of exactly `width` digits (or more, for years).
fn digits(text: &str, width: std::ops::RangeInclusive<usize>) -> Option<i64> {
    let right = width.contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    right.then(|| text.parse().ok()).flatten()
}

/// `2024-02-29`; years before 0 and after 9999 have a sign or more digits.
pub fn date(text: &str) -> Option<i32> {
    let (before_zero, rest) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let mut parts = rest.splitn(3, '-');
    let year = digits(parts.next()?, 3..=7)?;
    let (month, day) = (digits(parts.next()?, 2..=2)?, digits(parts.next()?, 2..=2)?);
    let year = if before_zero { -year } else { year };
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days_in_month = [31, if leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let longest = *days_in_month.get(usize::try_from(month - 1).ok()?)?;
    if !(1..=longest).contains(&day) {
        return None;
    }
    i32::try_from(days_from_civil(year, month, day)).ok()
}

/// Days since 1970-01-01 in the proleptic Gregorian calendar
/// (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", days_from_civil).
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// `13:45`, `13:45:30` or `13:45:30.123456789`, in nanoseconds.
pub fn time(text: &str) -> Option<u64> {
    let mut parts = text.splitn(3, ':');
    let (hour, minute) = (digits(parts.next()?, 2..=2)?, digits(parts.next()?, 2..=2)?);
    let (second, nanos) = match parts.next() {
        None => (0, 0),
        Some(rest) => {
            let (second, part) = rest.split_once(['.', ',']).unwrap_or((rest, "0"));
            // More than nine digits cannot be kept, unless they are zeros.
            let part = if part.len() > 9 {
                part.trim_end_matches('0')
            } else {
                part
            };
            let scale = 10i64.checked_pow(u32::try_from(9usize.checked_sub(part.len())?).ok()?)?;
            (
                digits(second, 2..=2)?,
                if part.is_empty() {
                    0
                } else {
                    digits(part, 1..=9)? * scale
                },
            )
        }
    };
    let fits = hour < 24 && minute < 60 && second < 60;
    fits.then(|| ((hour * 3600 + minute * 60 + second) * 1_000_000_000 + nanos) as u64)
}

/// A date and a time, with or without a zone. Without one, a UTC column takes it as UTC: whoever declares the column says
/// so. A naive column refuses a zone, which it could not keep.
pub fn timestamp(text: &str, zone: Zone) -> Option<Value> {
    let (local, offset) = split_zone(text);
    let nanos = match local.strip_suffix("ns") {
        // How a moment outside every calendar is written.
        Some(number) => number.parse().ok()?,
        None => {
            let (day, clock) = local.split_once(['T', 't', ' ']).unwrap_or((local, "00:00"));
            i128::from(date(day)?) * DAY_NANOS + i128::from(time(clock.trim())?)
        }
    };
    let utc = |minutes: i16| nanos.checked_sub(i128::from(minutes) * 60 * NANOS);
    match (zone, offset) {
        (_, Offset::Wrong) | (Zone::Naive, Offset::Minutes(_)) => None,
        (Zone::Naive, Offset::None) => Some(Value::Timestamp(nanos)),
        (Zone::Utc, Offset::None) => Some(Value::TimestampUtc(nanos)),
        (Zone::Utc, Offset::Minutes(minutes)) => utc(minutes).map(Value::TimestampUtc),
        (Zone::Offset, Offset::None) => None,
        (Zone::Offset, Offset::Minutes(minutes)) => utc(minutes).map(|nanos| Value::TimestampOffset(nanos, minutes)),
    }
}

enum Offset {
    None,
    Minutes(i16),
    Wrong,
}

fn split_zone(text: &str) -> (&str, Offset) {
    if let Some(local) = text.strip_suffix(['Z', 'z']) {
        return (local.trim_end(), Offset::Minutes(0));
    }
    // The sign of an offset stands after the time; dashes before it belong to the date.
    let Some(at) = text
        .rfind(['+', '-'])
        .filter(|at| text[..*at].contains(':') || text[..*at].ends_with("ns"))
    else {
        return (text, Offset::None);
    };
    let (local, zone) = (text[..at].trim_end(), &text[at + 1..]);
    let (hours, minutes) = match zone.len() {
        2 => (zone, "00"),
        4 if zone.is_ascii() => zone.split_at(2),
        _ => zone.split_once(':').unwrap_or(("", "")),
    };
    match (digits(hours, 2..=2), digits(minutes, 2..=2)) {
        (Some(hours), Some(minutes)) if hours < 24 && minutes < 60 => {
            let sum = (hours * 60 + minutes) as i16;
            (
                local,
                Offset::Minutes(if text.as_bytes()[at] == b'-' { -sum } else { sum }),
            )
        }
        _ => (local, Offset::Wrong),
    }
}

/// Appends a value as JSON. Integers and decimals keep every digit, floats get their shortest exact form; JSON has no
/// infinities and no NaN, they become the texts "Infinity", "-Infinity" and "NaN"; bytes are hexadecimal text, times
/// ISO 8601 text. Null, missing and unchanged are `null`: whoever wants to leave a field out does not call.
/// Fails only on a JSON value that is not JSON.
pub fn push_json(out: &mut Vec<u8>, cell: Cell<'_>) -> Result<(), String> {
    // Writing into a vector cannot fail.
    let _ = match cell {
        Cell::Null | Cell::Missing | Cell::Unchanged => out.write_all(b"null"),
        Cell::Bool(v) => out.write_all(if v { b"true" } else { b"false" }),
        Cell::I64(v) => return number(out, &v),
        Cell::U64(v) => return number(out, &v),
        Cell::F64(v) if v.is_finite() => return number(out, &v),
        Cell::F32(v) if v.is_finite() => return number(out, &v),
        Cell::F32(_) | Cell::F64(_) => out.write_all(non_finite(cell)),
        Cell::Decimal(..) => write!(out, "{cell}"),
        Cell::Text(v) => return serde_json::to_writer(out, v).map_err(|error| error.to_string()),
        Cell::Json(v) => return push_raw_json(out, v),
        Cell::List(items) => return push_list(out, items),
        // Digits, dashes, colons: nothing to escape.
        Cell::Bytes(_) | Cell::Date(_) | Cell::Time(_) | Cell::Uuid(_) => write!(out, "\"{cell}\""),
        Cell::Timestamp(_) | Cell::TimestampUtc(_) | Cell::TimestampOffset(..) => write!(out, "\"{cell}\""),
    };
    Ok(())
}

fn number(out: &mut Vec<u8>, value: &impl serde::Serialize) -> Result<(), String> {
    serde_json::to_writer(out, value).map_err(|error| error.to_string())
}

fn non_finite(cell: Cell<'_>) -> &'static [u8] {
    match cell {
        Cell::F32(v) if v == f32::INFINITY => b"\"Infinity\"",
        Cell::F64(v) if v == f64::INFINITY => b"\"Infinity\"",
        Cell::F32(v) if v == f32::NEG_INFINITY => b"\"-Infinity\"",
        Cell::F64(v) if v == f64::NEG_INFINITY => b"\"-Infinity\"",
        _ => b"\"NaN\"",
    }
}

/// JSON kept as written, on one line: outside of its strings a line end is only space, and inside it cannot stand.
fn push_raw_json(out: &mut Vec<u8>, text: &str) -> Result<(), String> {
    parse_json(text)?;
    out.extend(
        text.bytes()
            .map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { byte }),
    );
    Ok(())
}

fn push_list(out: &mut Vec<u8>, items: &[Value]) -> Result<(), String> {
    out.push(b'[');
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        push_json(out, item.as_cell())?;
    }
    out.push(b']');
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_have_the_names_they_show() {
        for name in
            "bool i64 u64 f32 f64 text bytes date time timestamp timestamp_utc timestamp_offset uuid json list any \
                     decimal(10,2) decimal(*,0) decimal(38,38)"
                .split_whitespace()
        {
            assert_eq!(type_named(name).map(|ty| ty.to_string()).as_deref(), Some(name));
        }
        for wrong in [
            "int",
            "decimal",
            "decimal(2,3)",
            "decimal(0,0)",
            "decimal(39,0)",
            "decimal(a,b)",
            "",
        ] {
            assert_eq!(type_named(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn text_becomes_a_value_or_is_refused() {
        let utc = |text| parse(text, &Type::Timestamp(Zone::Utc)).ok();
        assert_eq!(
            utc("2000-02-29T00:00:00Z"),
            Some(Value::TimestampUtc(951_782_400 * NANOS))
        );
        for (ty, text, wanted) in [
            ("bool", "TRUE", Some(Value::Bool(true))),
            ("bool", " 0 ", Some(Value::Bool(false))),
            ("bool", "maybe", None),
            ("i64", "-9223372036854775808", Some(Value::I64(i64::MIN))),
            ("i64", "9223372036854775808", None),
            ("i64", "5.0", None),
            ("u64", "18446744073709551615", Some(Value::U64(u64::MAX))),
            ("f64", "0.1", Some(Value::F64(0.1))),
            ("f64", "9007199254740993", None),
            ("f64", "9007199254740992", Some(Value::F64(9_007_199_254_740_992.0))),
            ("f64", "1e400", None),
            ("f64", "-inf", Some(Value::F64(f64::NEG_INFINITY))),
            ("f32", "16777217", None),
            ("f32", "1e39", None),
            ("decimal(5,2)", "-1.5", Some(Value::Decimal(-150, 2))),
            ("decimal(5,2)", "1.500", Some(Value::Decimal(150, 2))),
            ("decimal(5,2)", "1.505", None),
            ("decimal(5,2)", "999.99", Some(Value::Decimal(99_999, 2))),
            ("decimal(5,2)", "1000", None),
            ("decimal(5,2)", "1.5e2", Some(Value::Decimal(15_000, 2))),
            ("decimal(5,2)", ".", None),
            (
                "decimal(*,0)",
                "-170141183460469231731687303715884105728",
                Some(Value::Decimal(i128::MIN, 0)),
            ),
            ("decimal(*,0)", "170141183460469231731687303715884105728", None),
            ("decimal(*,0)", "1e99999999", None),
            ("decimal(*,0)", "0e99999999", Some(Value::Decimal(0, 0))),
            ("bytes", "00fF", Some(Value::Bytes(vec![0, 255]))),
            ("bytes", "0", None),
            ("bytes", "é0", None),
            ("date", "2000-02-29", Some(Value::Date(11_016))),
            ("date", "1900-02-29", None),
            ("date", "-0001-12-31", Some(Value::Date(-719_529))),
            ("date", "2024-1-1", None),
            ("time", "23:59:59.999999999", Some(Value::Time(86_399_999_999_999))),
            ("time", "24:00", None),
            ("time", "01:02:03.1234567891", None),
            ("time", "01:02:03.1000000000", Some(Value::Time(3_723_100_000_000))),
            ("timestamp", "1970-01-01 00:00:01", Some(Value::Timestamp(NANOS))),
            ("timestamp", "1970-01-02", Some(Value::Timestamp(DAY_NANOS))),
            ("timestamp", "1970-01-01T00:00:01Z", None),
            ("timestamp_utc", "1970-01-01 00:00:01", Some(Value::TimestampUtc(NANOS))),
            (
                "timestamp_utc",
                "1970-01-01 01:00:01+01",
                Some(Value::TimestampUtc(NANOS)),
            ),
            (
                "timestamp_offset",
                "1970-01-01T05:30:00+05:30",
                Some(Value::TimestampOffset(0, 330)),
            ),
            ("timestamp_offset", "1970-01-01T05:30:00", None),
            ("timestamp_offset", "1970-01-01T05:30:00+5", None),
            (
                "uuid",
                "12345678-9abc-def0-0102-030405060708",
                parse("123456789abcdef00102030405060708", &Type::Uuid).ok(),
            ),
            ("uuid", "12345678", None),
            ("json", "{\"a\": [1]}", Some(Value::Json("{\"a\": [1]}".into()))),
            ("json", "{", None),
            ("text", " x ", Some(Value::Text(" x ".into()))),
        ] {
            assert_eq!(parse(text, &type_named(ty).unwrap()).ok(), wanted, "{text} as {ty}");
        }
    }

    #[test]
    fn json_keeps_what_it_can_hold() {
        for (value, wanted) in [
            (Value::Null, "null"),
            (Value::U64(u64::MAX), "18446744073709551615"),
            (Value::F64(1.0), "1.0"),
            (Value::F64(-0.0), "-0.0"),
            (Value::F64(f64::NAN), "\"NaN\""),
            (Value::F32(f32::NEG_INFINITY), "\"-Infinity\""),
            (Value::F32(0.1), "0.1"),
            (Value::Decimal(i128::MIN, 0), "-170141183460469231731687303715884105728"),
            (Value::Decimal(-5, 2), "-0.05"),
            (Value::Text("a\"\n\u{1}é".into()), "\"a\\\"\\n\\u0001é\""),
            (Value::Bytes(vec![0, 255]), "\"00ff\""),
            (Value::Json("{\n \"a\":\r\n1}".into()), "{  \"a\":  1}"),
            (Value::TimestampUtc(0), "\"1970-01-01T00:00:00Z\""),
            (
                Value::List(vec![Value::I64(1), Value::Null, Value::Text("x".into())]),
                "[1,null,\"x\"]",
            ),
        ] {
            let mut out = Vec::new();
            push_json(&mut out, value.as_cell()).unwrap();
            assert_eq!(String::from_utf8(out).unwrap(), wanted);
        }
        assert!(push_json(&mut Vec::new(), Cell::Json("{")).is_err());
    }

    proptest::proptest! {
        #[test]
        fn what_is_shown_reads_back(days: i32, nanos in 0..86_400_000_000_000u64, units: i128, scale in 0..=38u8,
                                    moment: i128, offset in -1439..1440i16, float: f64, single: f32, id: [u8; 16],
                                    bytes: Vec<u8>, int: i64) {
            let moment = moment / 4;
            for (value, ty) in [
                (Value::Date(days), Type::Date),
                (Value::Time(nanos), Type::Time),
                (Value::Decimal(units, scale), Type::Decimal { precision: 0, scale }),
                (Value::Timestamp(moment), Type::Timestamp(Zone::Naive)),
                (Value::TimestampUtc(moment >> 40), Type::Timestamp(Zone::Utc)),
                (Value::TimestampUtc(moment), Type::Timestamp(Zone::Utc)),
                (Value::TimestampOffset(moment >> 45, offset), Type::Timestamp(Zone::Offset)),
                (Value::I64(int), Type::I64),
                (Value::Uuid(id), Type::Uuid),
                (Value::Bytes(bytes), Type::Bytes),
            ] {
                let text = value.as_cell().to_string();
                proptest::prop_assert_eq!(parse(&text, &ty), Ok(value), "{}", text);
            }
            for (text, bits) in [(Cell::F64(float).to_string(), float.to_bits()), (Cell::F64(-0.0).to_string(), (-0.0f64).to_bits())] {
                match parse(&text, &Type::F64) {
                    Ok(Value::F64(read)) if float.is_nan() => proptest::prop_assert!(read.is_nan() || read == 0.0),
                    Ok(Value::F64(read)) => proptest::prop_assert_eq!(read.to_bits(), bits),
                    other => proptest::prop_assert!(false, "{}: {:?}", text, other),
                }
            }
            if single.is_finite() {
                proptest::prop_assert_eq!(parse(&Cell::F32(single).to_string(), &Type::F32), Ok(Value::F32(single)));
            }
        }
    }
}
