//! The fields of a JSON object, each as the value it is: no digit of a number is lost.

use std::fmt;

use bus_schema::data::{Cell, Type, Value};
use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, Visitor},
};
use serde_json::value::RawValue;

use crate::{
    convert::convert,
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

/// The value that a piece of JSON is.
fn value(raw: &str) -> Result<Value, String> {
    Ok(match raw.as_bytes().first() {
        Some(b'"') => Value::Text(serde_json::from_str(raw).map_err(|error| format!("is not JSON: {error}"))?),
        Some(b't') => Value::Bool(true),
        Some(b'f') => Value::Bool(false),
        Some(b'n') => Value::Null,
        Some(b'[') => convert(Cell::Json(raw), &Type::List).unwrap_or_else(|_| Value::Json(raw.to_string())),
        Some(b'{') | None => Value::Json(raw.to_string()),
        Some(_) => number(raw),
    })
}

/// An integer, else a float; what neither can hold is a decimal, else JSON as it was written.
pub(crate) fn number(raw: &str) -> Value {
    if let Ok(int) = raw.parse() {
        return Value::I64(int);
    }
    if let Ok(int) = raw.parse() {
        return Value::U64(int);
    }
    if let Ok(float) = parse(raw, &Type::F64) {
        return float;
    }
    let exact = (0..=SCALE_MAX).find_map(|scale| Some(Value::Decimal(decimal(raw, 0, scale)?, scale)));
    exact.unwrap_or_else(|| Value::Json(raw.to_string()))
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
            ("1e400", Value::Json("1e400".into())),
            ("\"a\\n\"", Value::Text("a\n".into())),
            ("true", Value::Bool(true)),
            ("null", Value::Null),
            ("[1,2]", Value::List(vec![Value::I64(1), Value::I64(2)])),
            ("[1,[2]]", Value::Json("[1,[2]]".into())),
            ("{\"a\":1}", Value::Json("{\"a\":1}".into())),
        ] {
            assert_eq!(value(raw), Ok(wanted), "{raw}");
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
