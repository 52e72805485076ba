//! Transform `clamp`: keeps numbers within limits. Never changes a number that is within them.

use std::cmp::Ordering;

use bus_schema::{
    data::{Batch, Cell, Type, Value},
    plan::{ComponentRole, Descriptor},
};
use flow::{Build, BuildContext, Component, ConfigError, Fault, Transform, Transformed, describe, parse_config};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    bound::Bound,
    cells::{compute, put, without},
    ordered::Ordered,
};

/// Keeps numbers within limits: one below the least becomes the least, one above the most the most. Null and NaN stay. A row
/// whose value is no number, or whose column cannot hold the limit, goes to the dead letters.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Column = its limits. A column that a batch does not have is passed over.
    columns: Ordered<Limits>,
}

/// The limits of one column; one of them may be left out.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Limits {
    /// The least.
    min: Option<Bound>,
    /// The most.
    max: Option<Bound>,
}

/// The registry line.
pub(crate) const CLAMP: Component = Component {
    descriptor,
    build: Build::Transform(build),
};

const EXAMPLE: &str = r#"name = "limited"

[sources.readings]
type = "file"
path = "readings.jsonl"
format = "json_lines"

[transforms.limited]
type = "clamp"
from = "readings"
columns = { temperature = { min = -40, max = 125 } }

[destinations.out]
type = "stdout"
from = "limited"
"#;

fn descriptor() -> Descriptor {
    let summary = "Keeps numbers within limits";
    describe::<Config>(ComponentRole::Transform, "clamp", summary, EXAMPLE)
}

fn build(config: &str, _: &BuildContext) -> Result<Box<dyn Transform>, ConfigError> {
    let Config { columns } = parse_config(config)?;
    if columns.0.is_empty() {
        return Err(ConfigError::at("columns", "name at least one column"));
    }
    for (name, limits) in &columns.0 {
        let key = format!("columns.{name}");
        let (min, max) = (&limits.min, &limits.max);
        match (min, max) {
            (None, None) => return Err(ConfigError::at(key, "give min, max or both")),
            (Some(min), Some(max)) if min.is_above(max) => {
                return Err(ConfigError::at(key, format!("min {min} is more than max {max}")));
            }
            _ => {}
        }
    }
    Ok(Box::new(Clamp { columns: columns.0 }))
}

struct Clamp {
    columns: Vec<(String, Limits)>,
}

impl Transform for Clamp {
    fn apply(&mut self, batch: Batch) -> Result<Transformed, Fault> {
        let schema = batch.schema().clone();
        let places: Vec<(usize, &Limits)> = self
            .columns
            .iter()
            .filter_map(|(name, limits)| Some((schema.index_of(name)?, limits)))
            .collect();
        let (values, rejected) = compute(batch.rows(), places.len(), |row, index| {
            let (place, limits) = places[index];
            let field = &schema.fields[place];
            clamped(batch.cell(row, place), &field.ty, limits).map_err(|why| format!("column '{}' {why}", field.name))
        });
        let batch = without(batch, &rejected);
        let new = places
            .iter()
            .map(|(place, _)| schema.fields[*place].clone())
            .zip(values);
        let batch = put(&batch, new)?;
        Ok(Transformed { batch, rejected })
    }
}

fn clamped(cell: Cell<'_>, ty: &Type, limits: &Limits) -> Result<Value, String> {
    if !cell.is_value() {
        return Ok(cell.to_value());
    }
    // In a column of any type a value keeps its own.
    let own = cell.type_of().filter(|_| *ty == Type::Any);
    let ty = own.as_ref().unwrap_or(ty);
    for (limit, beyond) in [(&limits.min, Ordering::Less), (&limits.max, Ordering::Greater)] {
        if let Some(limit) = limit
            && limit.order(cell)? == Some(beyond)
        {
            return limit
                .value(ty)
                .map_err(|_| format!("cannot become {limit}, which does not fit {ty} exactly"));
        }
    }
    Ok(cell.to_value())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check, check_config, shown_schema, table, transform};

    #[test]
    fn what_is_beyond_becomes_the_limit() {
        let input = table(
            &["i:i64", "f:f64", "d:decimal(6,2)", "s:f32", "t:text"],
            &["5|0.5|1.00|0.1|x", "-7|-inf|-9.99|9|y", "~|NaN|?|=|z"],
        );
        for (columns, kept, rejected) in [
            (
                r#"{"i": {"min": 0}, "f": {"min": -1, "max": 0.25}}"#,
                "5|0.25|1.00|0.1|x\n0|-1.0|-9.99|9.0|y\n~|NaN|?|=|z",
                "",
            ),
            (
                r#"{"d": {"min": -0.5, "max": 0.75}, "s": {"max": 0.1}, "none": {"max": 1}}"#,
                "5|0.5|0.75|0.1|x\n-7|-inf|-0.50|0.1|y\n~|NaN|?|=|z",
                "",
            ),
            (
                r#"{"i": {"max": 4.5}}"#,
                "-7|-inf|-9.99|9.0|y\n~|NaN|?|=|z",
                "0: column 'i' cannot become 4.5, which does not fit i64 exactly",
            ),
            (
                r#"{"t": {"max": 4}}"#,
                "",
                "0: column 't' is text 'x', which is no number\n1: \n2: ",
            ),
        ] {
            let config = format!("{{\"columns\": {columns}}}");
            check(&CLAMP, &config, input.clone(), kept, rejected);
            let done = transform(&CLAMP, &config).apply(input.clone()).unwrap();
            assert_eq!(shown_schema(&done.batch), shown_schema(&input));
        }
    }

    #[test]
    fn mistakes_are_named() {
        for (columns, wanted) in [
            ("{}", "columns: name at least one"),
            (r#"{"a": {}}"#, "columns.a: give min, max or both"),
            (
                r#"{"a": {"min": 2, "max": 1.5}}"#,
                "columns.a: min 2 is more than max 1.5",
            ),
            (r#"{"a": {"min": "x"}}"#, "columns.a.min: "),
        ] {
            check_config(&CLAMP, &format!("{{\"columns\": {columns}}}"), wanted);
        }
    }

    proptest::proptest! {
        #[test]
        fn integers_end_within_their_limits(values: Vec<i64>, a: i64, b: i64) {
            let (min, max) = (a.min(b), a.max(b));
            let rows: Vec<String> = values.iter().map(i64::to_string).collect();
            let input = table(&["n:i64"], &rows.iter().map(String::as_str).collect::<Vec<_>>());
            let config = serde_json::json!({"columns": {"n": {"min": min, "max": max}}}).to_string();
            let done = transform(&CLAMP, &config).apply(input).unwrap();
            proptest::prop_assert_eq!(done.rejected.len(), 0);
            for (row, value) in values.iter().enumerate() {
                proptest::prop_assert_eq!(done.batch.cell(row, 0), Cell::I64(*value.clamp(&min, &max)));
            }
        }
    }
}
