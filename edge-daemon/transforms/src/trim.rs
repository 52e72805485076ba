//! Transform `trim`: takes the space off the ends of texts.

use bus_schema::{
    data::{Batch, Cell, Type, Value},
    plan::{ComponentRole, Descriptor},
};
use flow::{Build, BuildContext, Component, ConfigError, Fault, Transform, Transformed, describe, parse_config};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::cells::{compute, named_columns, places, put};

/// Takes the space off the ends of texts. Whatever is no text passes as it is.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// The columns; without this, every column of texts. One that a batch does not have is passed over.
    columns: Option<Vec<String>>,
    /// A text of which nothing is left becomes null.
    #[serde(default)]
    empty_to_null: bool,
}

/// The registry line.
pub(crate) const TRIM: Component = Component {
    descriptor,
    build: Build::Transform(build),
};

const EXAMPLE: &str = r#"name = "tidy"

[sources.readings]
type = "file"
path = "readings.jsonl"
format = "json_lines"

[transforms.tidy]
type = "trim"
from = "readings"
columns = ["line"]
empty_to_null = true

[destinations.out]
type = "stdout"
from = "tidy"
"#;

fn descriptor() -> Descriptor {
    let summary = "Takes the space off the ends of texts";
    describe::<Config>(ComponentRole::Transform, "trim", summary, EXAMPLE)
}

fn build(config: &str, _: &BuildContext) -> Result<Box<dyn Transform>, ConfigError> {
    let Config { columns, empty_to_null } = parse_config(config)?;
    if let Some(names) = &columns {
        named_columns("columns", names)?;
    }
    Ok(Box::new(Trim { columns, empty_to_null }))
}

struct Trim {
    columns: Option<Vec<String>>,
    empty_to_null: bool,
}

impl Transform for Trim {
    fn apply(&mut self, batch: Batch) -> Result<Transformed, Fault> {
        let fields = batch.schema().fields.clone();
        let mut places = match &self.columns {
            Some(names) => places(&batch, names),
            None => (0..fields.len()).collect(),
        };
        places.retain(|place| matches!(fields[*place].ty, Type::Text | Type::Any));
        let (values, _) = compute(batch.rows(), places.len(), |row, index| {
            Ok(match batch.cell(row, places[index]) {
                Cell::Text(text) if self.empty_to_null && text.trim().is_empty() => Value::Null,
                Cell::Text(text) => Value::Text(text.trim().to_string()),
                cell => cell.to_value(),
            })
        });
        let new = places.iter().map(|place| {
            let mut field = fields[*place].clone();
            field.nullable |= self.empty_to_null;
            field
        });
        Ok(put(&batch, new.zip(values))?.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check, check_config, table};

    #[test]
    fn ends_lose_their_space() {
        let input = table(
            &["a:text", "b:text", "n:i64", "x:any"],
            &[" a b\t| \u{a0}|1| y ", "~|=|?|", "c|d |2|z"],
        );
        for (config, kept) in [
            ("{}", "a b||1|y\n~|=|?|\nc|d|2|z"),
            (r#"{"empty_to_null": true}"#, "a b|~|1|y\n~|=|?|~\nc|d|2|z"),
            (r#"{"columns": ["b", "n", "none"]}"#, " a b\t||1| y \n~|=|?|\nc|d|2|z"),
        ] {
            check(&TRIM, config, input.clone(), kept, "");
        }
    }

    #[test]
    fn mistakes_are_named() {
        for (config, wanted) in [
            (r#"{"columns": []}"#, "columns: name at least one"),
            (r#"{"columns": ["a", "a"]}"#, "columns: 'a' stands here twice"),
            (r#"{"column": "a"}"#, "unknown field `column`"),
        ] {
            check_config(&TRIM, config, wanted);
        }
    }
}
