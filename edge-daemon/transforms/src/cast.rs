//! Transform `cast`: gives columns other types, exactly or not at all.

use std::sync::Arc;

use bus_schema::{
    data::{Batch, Field, Type, Value},
    plan::{ComponentRole, Descriptor},
};
use flow::{Build, BuildContext, Component, ConfigError, Fault, Transform, Transformed, describe, parse_config};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    cells::{RejectedRows, compute, put, without},
    convert::convert,
    ordered::Ordered,
    text::{TYPE_NAMES, type_named},
};

/// Gives columns other types. A value is converted exactly or not at all: 1.5 is no integer, 300-digit numbers are no
/// float, "maybe" is no bool.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Column = type: bool, i64, u64, f32, f64, decimal(digits,scale), text, bytes, date, time, timestamp,
    /// timestamp_utc, timestamp_offset, uuid, json, list or any. A column that a batch does not have is passed over.
    columns: Ordered<String>,
    /// What happens to a value that cannot be converted.
    #[serde(default)]
    on_error: OnError,
}

/// What happens to a value that cannot be converted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum OnError {
    /// Its row goes to the dead letters.
    #[default]
    Reject,
    /// It becomes null, and the rest of its row passes.
    Null,
}

/// The registry line.
pub(crate) const CAST: Component = Component {
    descriptor,
    build: Build::Transform(build),
};

const EXAMPLE: &str = r#"name = "typed"

[sources.readings]
type = "file"
path = "readings.jsonl"
format = "json_lines"

[transforms.typed]
type = "cast"
from = "readings"
columns = { price = "decimal(12,2)", at = "timestamp_utc" }

[destinations.out]
type = "stdout"
from = "typed"
"#;

fn descriptor() -> Descriptor {
    describe::<Config>(ComponentRole::Transform, "cast", "Gives columns other types", EXAMPLE)
}

fn build(config: &str, _: &BuildContext) -> Result<Box<dyn Transform>, ConfigError> {
    let config: Config = parse_config(config)?;
    if config.columns.0.is_empty() {
        return Err(ConfigError::at("columns", "name at least one column"));
    }
    let mut columns = Vec::new();
    for (name, ty) in config.columns.0 {
        let unknown = || {
            ConfigError::at(
                format!("columns.{name}"),
                format!("'{ty}' is no type; there is {TYPE_NAMES}"),
            )
        };
        let ty = type_named(&ty).ok_or_else(unknown)?;
        columns.push((name, ty));
    }
    Ok(Box::new(Cast {
        columns,
        on_error: config.on_error,
    }))
}

struct Cast {
    columns: Vec<(String, Type)>,
    on_error: OnError,
}

impl Transform for Cast {
    fn apply(&mut self, batch: Batch) -> Result<Transformed, Fault> {
        let schema = Arc::clone(batch.schema());
        let places: Vec<(usize, &Type)> = self
            .columns
            .iter()
            .filter_map(|(name, ty)| Some((schema.index_of(name)?, ty)))
            .filter(|(place, ty)| schema.fields[*place].ty != **ty)
            .collect();
        if places.is_empty() {
            return Ok(batch.into());
        }
        let (converted, rejected) = self.convert(&batch, &places);
        let batch = without(batch, &rejected);
        let new = places.into_iter().zip(converted).map(|((place, ty), values)| {
            let field = &schema.fields[place];
            let nullable = field.nullable || self.on_error == OnError::Null;
            let ty = ty.clone();
            (
                Field {
                    ty,
                    nullable,
                    ..field.clone()
                },
                values,
            )
        });
        let batch = put(&batch, new)?;
        Ok(Transformed { batch, rejected })
    }
}

impl Cast {
    /// The values of each column for the rows in which all could be converted, and the other rows.
    fn convert(&self, batch: &Batch, places: &[(usize, &Type)]) -> (Vec<Vec<Value>>, RejectedRows) {
        compute(batch.rows(), places.len(), |row, index| {
            let (place, ty) = places[index];
            match convert(batch.cell(row, place), ty) {
                Err(_) if self.on_error == OnError::Null => Ok(Value::Null),
                done => done.map_err(|cause| format!("column '{}' {cause}", batch.schema().fields[place].name)),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check, check_config, shown_schema, table, transform};

    #[test]
    fn converts_or_rejects() {
        let input = table(
            &["a:text", "b:f64", "c:i64"],
            &["1|1.0|7", "x|2.0|8", "3|2.5|9", "~|?|="],
        );
        for (config, kept, rejected) in [
            (
                r#"{"columns": {"a": "i64"}}"#,
                "1|1.0|7\n3|2.5|9\n~|?|=",
                "1: column 'a' is not a value of type i64: 'x'",
            ),
            (
                r#"{"columns": {"c": "text", "b": "i64"}}"#,
                "1|1|7\nx|2|8\n~|?|=",
                "2: column 'b' is f64 '2.5', which does not fit i64 exactly",
            ),
            (
                r#"{"columns": {"a": "i64", "b": "u64"}, "on_error": "null"}"#,
                "1|1|7\n~|2|8\n3|~|9\n~|?|=",
                "",
            ),
            (
                r#"{"columns": {"none": "i64", "a": "text"}}"#,
                "1|1.0|7\nx|2.0|8\n3|2.5|9\n~|?|=",
                "",
            ),
        ] {
            check(&CAST, config, input.clone(), kept, rejected);
        }
        let done = transform(&CAST, r#"{"columns": {"b": "decimal(6,1)"}}"#)
            .apply(input)
            .unwrap();
        assert_eq!(shown_schema(&done.batch), "a:text b:decimal(6,1) c:i64");
    }

    #[test]
    fn mistakes_are_named() {
        for (config, wanted) in [
            (r#"{"columns": {}}"#, "columns: name at least one"),
            (
                r#"{"columns": {"a": "integer"}}"#,
                "columns.a: 'integer' is no type; there is bool, i64",
            ),
            (
                r#"{"columns": {"a": "i64"}, "on_error": "drop"}"#,
                "on_error: unknown variant `drop`",
            ),
        ] {
            check_config(&CAST, config, wanted);
        }
    }
}
