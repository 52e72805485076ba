//! The fields of a JSON object, each as the value it is: no digit of a number is lost.

use std::fmt;

use bus_schema::data::{Type, Value};
use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, Visitor},
};
use serde_json::value::RawValue;

use crate::{
    spread::{FIELDS_MAX, Found},
    text::{SCALE_MAX, decimal, parse, parse_json, shorten},
};

/// The fields of an object in `text`, those of objects in it down to `depth` further levels under names joined by
/// `separator`. What lies deeper stays JSON, and so do arrays of more than plain values.
pub(crate) fn fields(text: &str, prefix: &str, separator: &str, depth: usize) -> Result<Found, String> {
    let mut found = Found::new();
    gather(text, prefix, (separator, depth), &mut found)?;
    Ok(found)
}

fn gather(text: &str, prefix: &str, (separator, depth): (&str, usize), found: &mut Found) -> Result<(), String> {
    if !text.trim_start().starts_with('{') {
        return Err(format!("is no JSON object: '{}'", shorten(text)));
    }
    let object: Object<'_> = serde_json::from_str(text).map_err(|error| format!("is not JSON: {error}"))?;
    for (name, raw) in object.0 {
        let name = format!("{prefix}{name}");
        let raw = raw.get();
        if depth > 0 && raw.starts_with('{') {
            gather(raw, &format!("{name}{separator}"), (separator, depth - 1), found)?;
            continue;
        }
        if found.len() >= FIELDS_MAX {
            return Err(format!("has more than {FIELDS_MAX} fields"));
        }
        found.push((name, value(raw)?));
    }
    Ok(())
}

/// The items of an array in `text`, each as the value it is.
pub(crate) fn items(text: &str) -> Result<Vec<Value>, String> {
    if !text.trim_start().starts_with('[') {
        let shown = shorten(text);
        return parse_json(text).and_then(|()| Err(format!("is no list: '{shown}'")));
    }
    let items: Vec<&RawValue> = serde_json::from_str(text).map_err(|error| format!("is not JSON: {error}"))?;
    items.into_iter().map(|item| value(item.get())).collect()
}

/// An array of plain values.
pub(crate) fn list(text: &str) -> Option<Value> {
    let items: Vec<&RawValue> = serde_json::from_str(text).ok()?;
    let plain = |item: &RawValue| {
        let is_plain = !item.get().starts_with(['[', '{']);
        let value = is_plain.then(|| value(item.get()).ok()).flatten()?;
        // A number that nothing can hold.
        (!matches!(value, Value::Json(_))).then_some(value)
    };
    items.into_iter().map(plain).collect::<Option<_>>().map(Value::List)
}

/// The value that a piece of JSON is.
fn value(raw: &str) -> Result<Value, String> {
    Ok(match raw.as_bytes().first() {
        Some(b'"') => Value::Text(serde_json::from_str(raw).map_err(|error| format!("is not JSON: {error}"))?),
        Some(b't') => Value::Bool(true),
        Some(b'f') => Value::Bool(false),
        Some(b'n') => Value::Null,
        Some(b'[') => list(raw).unwrap_or_else(|| Value::Json(raw.to_string())),
        Some(b'{') | None => Value::Json(raw.to_string()),
        Some(_) => number(raw),
    })
}

/// An integer, else the float whose shortest form has the same digits; what neither can hold is a decimal, else JSON as it
/// was written.
pub(crate) fn number(raw: &str) -> Value {
    match raw.parse() {
        // An integer has no negative zero.
        Ok(0) if raw.starts_with('-') => return Value::F64(-0.0),
        Ok(int) => return Value::I64(int),
        Err(_) => {}
    }
    if let Ok(int) = raw.parse() {
        return Value::U64(int);
    }
    if let Ok(Value::F64(float)) = parse(raw, &Type::F64)
        && has_digits(float, raw)
    {
        return Value::F64(float);
    }
    let exact = (0..=SCALE_MAX).find_map(|scale| Some(Value::Decimal(decimal(raw, 0, scale)?, scale)));
    exact.unwrap_or_else(|| Value::Json(raw.to_string()))
}

/// Whether the float's shortest form is the number that was written.
fn has_digits(float: f64, raw: &str) -> bool {
    // So many digits always come back, but of numbers too small for a whole float.
    let is_short = raw.len() <= f64::DIGITS as usize && !raw.contains(['e', 'E']);
    is_short || significant(&format!("{float:e}")) == significant(raw)
}

/// The digits of a number without the zeros around them, and the power of ten of the first of them.
fn significant(number: &str) -> Option<(String, i64)> {
    let (mantissa, exponent) = match number.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i64>().ok()?),
        None => (number, 0),
    };
    let mantissa = mantissa.trim_start_matches(['-', '+']);
    let (whole, part) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{part}");
    let from_first = digits.trim_start_matches('0');
    let power = whole.len() as i64 - (digits.len() - from_first.len()) as i64;
    let digits = from_first.trim_end_matches('0');
    // Zero is the same with whatever power.
    let power = if digits.is_empty() {
        0
    } else {
        exponent.checked_add(power)?
    };
    Some((digits.to_string(), power))
}

struct Object<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Object<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Fields)
    }
}

struct Fields;

impl<'de> Visitor<'de> for Fields {
    type Value = Object<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object<'de>, A::Error> {
        let mut fields = Vec::new();
        while let Some(field) = map.next_entry::<String, &'de RawValue>()? {
            if fields.len() >= FIELDS_MAX {
                return Err(A::Error::custom(format!("an object of more than {FIELDS_MAX} fields")));
            }
            fields.push(field);
        }
        Ok(Object(fields))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_what_they_are() {
        for (raw, wanted) in [
            ("1", Value::I64(1)),
            ("-9223372036854775808", Value::I64(i64::MIN)),
            ("18446744073709551615", Value::U64(u64::MAX)),
            ("36893488147419103233", Value::Decimal(36_893_488_147_419_103_233, 0)),
            ("1.5", Value::F64(1.5)),
            ("6.02e23", Value::F64(6.02e23)),
            ("-0", Value::F64(-0.0)),
            ("-0.00", Value::F64(-0.0)),
            ("0.1000", Value::F64(0.1)),
            (
                "100000000000000000000000",
                Value::Decimal(100_000_000_000_000_000_000_000, 0),
            ),
            ("0.30000000000000004", Value::F64(0.1 + 0.2)),
            ("5e-324", Value::F64(5e-324)),
            ("12345678901234567.89", Value::Decimal(1_234_567_890_123_456_789, 2)),
            ("0.1000000000000000055", Value::Decimal(1_000_000_000_000_000_055, 19)),
            ("1e-400", Value::Json("1e-400".into())),
            (
                "1.234567890123456789e300",
                Value::Json("1.234567890123456789e300".into()),
            ),
            (
                "[1,12345678901234567.89]",
                Value::List(vec![Value::I64(1), Value::Decimal(1_234_567_890_123_456_789, 2)]),
            ),
            ("[-0]", Value::List(vec![Value::F64(-0.0)])),
            ("1e400", Value::Json("1e400".into())),
            ("\"a\\n\"", Value::Text("a\n".into())),
            ("true", Value::Bool(true)),
            ("null", Value::Null),
            ("[1,2]", Value::List(vec![Value::I64(1), Value::I64(2)])),
            ("[1,[2]]", Value::Json("[1,[2]]".into())),
            ("{\"a\":1}", Value::Json("{\"a\":1}".into())),
        ] {
            let found = value(raw).unwrap();
            assert_eq!(found, wanted, "{raw}");
            // Negative zero is equal to zero.
            assert_eq!(found.as_cell().to_string(), wanted.as_cell().to_string(), "{raw}");
        }
    }

    #[test]
    fn large_objects_are_refused() {
        let many: Vec<String> = (0..=FIELDS_MAX).map(|n| format!("\"f{n}\":{n}")).collect();
        let text = format!("{{{}}}", many.join(","));
        assert!(fields(&text, "", "_", 1).unwrap_err().contains("more than 1000 fields"));
        let text = format!("{{\"a\":{{{0}}},\"b\":{{{0}}}}}", many[..600].join(","));
        assert!(fields(&text, "", "_", 1).unwrap_err().contains("more than 1000 fields"));
        assert_eq!(fields(&text, "", "_", 0).unwrap().len(), 2);
        let deep = format!("{}1{}", "{\"a\":".repeat(100_000), "}".repeat(100_000));
        let found = fields(&deep, "", "_", 15).unwrap();
        assert!(
            matches!(found.as_slice(), [(name, Value::Json(_))] if name.len() == 31),
            "{}",
            found.len()
        );
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[\\[\\]{}:,\"a1.e-]{0,40}") {
            let read = fields(&text, "", "_", 3);
            let is_object = serde_json::from_str::<serde_json::Value>(&text).is_ok_and(|json| json.is_object());
            proptest::prop_assert_eq!(read.is_ok(), is_object, "{}", text);
        }
    }
}
