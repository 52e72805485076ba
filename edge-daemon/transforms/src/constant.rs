//! A plain value written into a config.

use bus_schema::data::Value;
use schemars::JsonSchema;
use serde::Deserialize;

/// A text, a number, true or false.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "a text, a number, true or false")]
pub(crate) enum Constant {
    /// True or false.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A whole number above the largest `i64`.
    Large(u64),
    /// Any other number.
    Float(f64),
    /// A text.
    Text(String),
}

impl Constant {
    /// The value, of its own type.
    pub(crate) fn value(&self) -> Value {
        match self {
            Constant::Bool(v) => Value::Bool(*v),
            Constant::Int(v) => Value::I64(*v),
            Constant::Large(v) => Value::U64(*v),
            Constant::Float(v) => Value::F64(*v),
            Constant::Text(v) => Value::Text(v.clone()),
        }
    }
}
