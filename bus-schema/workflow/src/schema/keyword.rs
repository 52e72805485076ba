//! Reads single keywords of a JSON Schema, compares values, and puts both into words. Follows no reference.

use serde_json::{Map, Number, Value};

use crate::words::{clip, quoted};

pub(super) fn list<'s>(schema: &'s Map<String, Value>, keyword: &str) -> &'s [Value] {
    schema
        .get(keyword)
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default()
}

pub(super) fn object<'s>(schema: &'s Map<String, Value>, keyword: &str) -> Option<&'s Map<String, Value>> {
    schema.get(keyword)?.as_object()
}

/// The values a schema is limited to.
pub(super) fn choices(schema: &Map<String, Value>) -> Option<Vec<&Value>> {
    match (schema.get("const"), schema.get("enum")) {
        (Some(one), _) => Some(vec![one]),
        (None, Some(Value::Array(some))) => Some(some.iter().collect()),
        _ => None,
    }
}

/// Whether a schema accepts any text at all.
pub(super) fn accepts_any_text(schema: &Value) -> bool {
    let Value::Object(schema) = schema else { return false };
    choices(schema).is_none() && types(schema).is_some_and(|types| types.contains(&"string"))
}

/// Constant keys of a table schema: what tells it from its alternatives.
pub(super) fn tags(schema: &Map<String, Value>) -> Vec<(&str, &Value)> {
    let properties = object(schema, "properties").into_iter().flatten();
    properties
        .filter_map(|(key, property)| Some((key.as_str(), property.as_object()?.get("const")?)))
        .collect()
}

pub(super) fn types(schema: &Map<String, Value>) -> Option<Vec<&str>> {
    match schema.get("type")? {
        Value::String(one) => Some(vec![one]),
        Value::Array(some) => Some(some.iter().filter_map(Value::as_str).collect()),
        _ => None,
    }
}

pub(super) fn is_type(name: &str, value: &Value) -> bool {
    match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        "number" => value.is_number(),
        // 5.0 is no integer to the program that reads the config.
        "integer" => value.is_i64() || value.is_u64(),
        _ => true,
    }
}

pub(super) fn type_words(name: &str, schema: &Map<String, Value>) -> String {
    match name {
        "boolean" => "true or false".to_string(),
        "string" => "text".to_string(),
        "integer" => "a whole number".to_string(),
        "number" => "a number".to_string(),
        "array" => "a list".to_string(),
        "object" => match list(schema, "required")
            .iter()
            .filter_map(Value::as_str)
            .collect::<Vec<_>>()
            .as_slice()
        {
            [] => "a table".to_string(),
            keys => format!("a table with {}", quoted(keys.iter().copied())),
        },
        other => clip(other),
    }
}

/// How to mend a value of the wrong type, where that is plain.
pub(super) fn type_hint(types: &[&str], value: &Value) -> String {
    let wants = |name: &str| types.contains(&name);
    match value {
        Value::Number(_) | Value::Bool(_) if wants("string") => "put it in quotes".to_string(),
        Value::String(text) if (wants("integer") || wants("number")) && text.parse::<f64>().is_ok() => {
            "remove the quotes".to_string()
        }
        Value::String(text) if wants("boolean") && matches!(text.as_str(), "true" | "false") => {
            "remove the quotes".to_string()
        }
        Value::Number(number) if wants("integer") && number.as_f64().is_some_and(|n| n.fract() == 0.0) => {
            "remove the decimal point".to_string()
        }
        Value::String(_) if wants("array") => "put it in square brackets".to_string(),
        _ => String::new(),
    }
}

/// What a value is, in words. Does not repeat text: it may be a password.
pub(super) fn kind(value: &Value) -> String {
    match value {
        Value::Null => "nothing".to_string(),
        Value::Bool(flag) => flag.to_string(),
        Value::Number(number) => format!("the number {number}"),
        Value::String(text) if text.is_empty() => "empty text".to_string(),
        Value::String(_) => "text".to_string(),
        Value::Array(_) => "a list".to_string(),
        Value::Object(_) => "a table".to_string(),
    }
}

/// A constant as one writes it.
pub(super) fn literal(value: &Value) -> String {
    match value {
        Value::String(text) => format!("'{}'", clip(text)),
        other => clip(&other.to_string()),
    }
}

/// Equal, where `1` and `1.0` are the same number.
pub(super) fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => !less(a, b) && !less(b, a),
        _ => a == b,
    }
}

pub(super) fn whole(number: &Number) -> Option<i128> {
    number
        .as_i64()
        .map(i128::from)
        .or_else(|| number.as_u64().map(i128::from))
}

pub(super) fn less(a: &Number, b: &Number) -> bool {
    match (whole(a), whole(b)) {
        (Some(a), Some(b)) => a < b,
        _ => a.as_f64().unwrap_or(0.0) < b.as_f64().unwrap_or(0.0),
    }
}

/// Bounds, and whether each is itself outside.
#[derive(Default)]
pub(super) struct Limits {
    pub(super) min: Option<(Number, bool)>,
    pub(super) max: Option<(Number, bool)>,
}

pub(super) fn limits(schema: &Map<String, Value>) -> Limits {
    let get = |keyword: &str| schema.get(keyword).and_then(Value::as_number).cloned();
    let format = schema.get("format").and_then(Value::as_str).unwrap_or_default();
    let (low, high) = match format {
        "int8" => (Some(i8::MIN.into()), Some(i8::MAX.into())),
        "int16" => (Some(i16::MIN.into()), Some(i16::MAX.into())),
        "int32" => (Some(i32::MIN.into()), Some(i32::MAX.into())),
        "int64" | "int" => (None, Some(i64::MAX.into())),
        "uint8" => (Some(0.into()), Some(u8::MAX.into())),
        "uint16" => (Some(0.into()), Some(u16::MAX.into())),
        "uint32" => (Some(0.into()), Some(u32::MAX.into())),
        "uint64" | "uint" => (Some(0.into()), None),
        _ => (None, None),
    };
    // The tighter of an explicit bound and that of the number's own type.
    let min = get("minimum")
        .map(|n| (n, false))
        .or_else(|| get("exclusiveMinimum").map(|n| (n, true)));
    let max = get("maximum")
        .map(|n| (n, false))
        .or_else(|| get("exclusiveMaximum").map(|n| (n, true)));
    Limits {
        min: min.or(low.map(|n| (n, false))),
        max: max.or(high.map(|n| (n, false))),
    }
}
