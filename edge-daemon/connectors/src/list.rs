//! Lists for destinations that have none: as a JSON array. Knows values, no destination.

use bus_schema::data::{Cell, Value};
use serde::de::IgnoredAny;

/// The items as a JSON array: numbers and booleans as such, JSON as it is, the rest as text.
pub(crate) fn list_json(items: &[Value]) -> String {
    let items: Vec<String> = items.iter().map(|item| cell_json(item.as_cell())).collect();
    format!("[{}]", items.join(","))
}

/// One value as JSON. Floats JSON has no number for become text (`"NaN"`), and so do decimals, which most readers would
/// take for floats.
pub(crate) fn cell_json(cell: Cell<'_>) -> String {
    match cell {
        Cell::Null | Cell::Missing | Cell::Unchanged => "null".to_string(),
        Cell::Bool(_) | Cell::I64(_) | Cell::U64(_) => cell.to_string(),
        Cell::F32(v) if v.is_finite() => cell.to_string(),
        Cell::F64(v) if v.is_finite() => cell.to_string(),
        Cell::Json(text) if serde_json::from_str::<IgnoredAny>(text).is_ok() => text.to_string(),
        Cell::List(items) => list_json(items),
        _ => serde_json::Value::String(cell.to_string()).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_valid_json() {
        let items = [
            Value::Null,
            Value::I64(i64::MIN),
            Value::F64(-0.0),
            Value::F64(f64::NAN),
            Value::Decimal(150, 2),
            Value::Text("\"ä\n".into()),
            Value::Bytes(vec![0xab, 1]),
            Value::Json("{\"a\": [1]}".into()),
            Value::Json("{broken".into()),
        ];
        let text = list_json(&items);
        assert_eq!(
            text,
            r#"[null,-9223372036854775808,-0.0,"NaN","1.50","\"ä\n","ab01",{"a": [1]},"{broken"]"#
        );
        assert!(serde_json::from_str::<IgnoredAny>(&text).is_ok());
    }
}
