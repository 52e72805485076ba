//! Numbers of a config that values are compared with: exactly where both are exact. 0.1 in a config is the decimal 0.1
//! for an integer or a decimal, and the nearest float for a float.

use std::cmp::Ordering;

use bus_schema::data::{Cell, Type, Value};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    convert::convert,
    text::{SCALE_MAX, decimal, shifted, shorten},
};

/// A number of a config.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(from = "serde_json::Number")]
#[schemars(with = "serde_json::Number")]
pub(crate) struct Bound {
    /// Units and scale; `None` when it is too large or too fine for a decimal.
    exact: Option<(i128, u8)>,
    float: f64,
    shown: String,
}

impl From<serde_json::Number> for Bound {
    fn from(number: serde_json::Number) -> Self {
        let shown = number.to_string();
        let exact = (0..=SCALE_MAX).find_map(|scale| Some((decimal(&shown, 0, scale)?, scale)));
        Self {
            exact,
            float: number.as_f64().unwrap_or(f64::NAN),
            shown,
        }
    }
}

impl std::fmt::Display for Bound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.shown)
    }
}

impl Bound {
    /// How a value stands to this number: `Ok(None)` for NaN, which stands nowhere; an error continues a sentence ("is …")
    /// about a value that is no number.
    pub(crate) fn order(&self, cell: Cell<'_>) -> Result<Option<Ordering>, String> {
        Ok(match cell {
            Cell::I64(v) => Some(self.order_exact(i128::from(v), 0)),
            Cell::U64(v) => Some(self.order_exact(i128::from(v), 0)),
            Cell::Decimal(units, scale) => Some(self.order_exact(units, scale)),
            Cell::F64(v) => v.partial_cmp(&self.float),
            Cell::F32(v) => v.partial_cmp(&(self.float as f32)),
            cell => {
                let ty = cell.type_of().map_or_else(String::new, |ty| ty.to_string());
                return Err(format!("is {ty} '{}', which is no number", shorten(&cell.to_string())));
            }
        })
    }

    fn order_exact(&self, units: i128, scale: u8) -> Ordering {
        let Some((own, own_scale)) = self.exact else {
            // Far beyond every decimal, or so near to zero that only the sign counts.
            let value = units as f64 / 10f64.powi(i32::from(scale));
            return value.total_cmp(&self.float);
        };
        let common = scale.max(own_scale);
        let at_common = |units: i128, scale: u8| shifted(units, i64::from(common) - i64::from(scale));
        match (at_common(units, scale), at_common(own, own_scale)) {
            (Some(value), Some(own)) => value.cmp(&own),
            // Only one of the two is moved: the one that then fits nowhere is further from zero.
            (None, _) => units.cmp(&0),
            (_, None) => 0.cmp(&own),
        }
    }

    /// Whether it is more than the other.
    pub(crate) fn is_above(&self, other: &Bound) -> bool {
        match self.exact {
            Some((units, scale)) => other.order_exact(units, scale).is_gt(),
            None => self.float > other.float,
        }
    }

    /// The number as a value of this type, or why it is none.
    pub(crate) fn value(&self, ty: &Type) -> Result<Value, String> {
        match (ty, self.exact) {
            (Type::F64, _) => Ok(Value::F64(self.float)),
            (Type::F32, _) => Ok(Value::F32(self.float as f32)),
            (ty, Some((units, scale))) => convert(Cell::Decimal(units, scale), ty),
            (ty, None) => convert(Cell::F64(self.float), ty),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bound(text: &str) -> Bound {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn numbers_of_every_type_are_compared() {
        for (value, number, wanted) in [
            (Value::I64(1), "1", Some(Ordering::Equal)),
            (Value::I64(1), "1.5", Some(Ordering::Less)),
            (Value::I64(i64::MAX), "9223372036854775806", Some(Ordering::Greater)),
            (Value::U64(u64::MAX), "18446744073709551615", Some(Ordering::Equal)),
            (Value::I64(i64::MAX), "1e300", Some(Ordering::Less)),
            (Value::I64(0), "-1e300", Some(Ordering::Greater)),
            (Value::Decimal(10, 2), "0.1", Some(Ordering::Equal)),
            (Value::Decimal(11, 2), "0.1", Some(Ordering::Greater)),
            (Value::Decimal(i128::MAX, 0), "0.5", Some(Ordering::Greater)),
            (Value::Decimal(i128::MIN, 0), "0.5", Some(Ordering::Less)),
            (Value::Decimal(1, 38), "5e30", Some(Ordering::Less)),
            (Value::F64(0.1), "0.1", Some(Ordering::Equal)),
            (Value::F32(0.1), "0.1", Some(Ordering::Equal)),
            (Value::F64(f64::INFINITY), "1e300", Some(Ordering::Greater)),
            (Value::F64(f64::NAN), "0", None),
        ] {
            assert_eq!(
                bound(number).order(value.as_cell()),
                Ok(wanted),
                "{value:?} and {number}"
            );
        }
        assert!(bound("1").order(Cell::Text("1")).is_err());
    }

    proptest::proptest! {
        #[test]
        fn whole_numbers_order_as_they_do(a: i64, b: i64) {
            proptest::prop_assert_eq!(bound(&b.to_string()).order(Cell::I64(a)), Ok(Some(a.cmp(&b))));
            proptest::prop_assert_eq!(bound(&b.to_string()).order(Cell::Decimal(i128::from(a), 0)), Ok(Some(a.cmp(&b))));
            proptest::prop_assert_eq!(bound(&b.to_string()).value(&Type::I64), Ok(Value::I64(b)));
        }
    }
}
