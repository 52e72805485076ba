//! Transform `mask`: covers values, so that they can be told apart from others only by what is left to be seen. Never lets
//! a value through that is too short to be covered in part.

use bus_schema::{
    data::{Batch, Cell, Field, Type, Value},
    plan::{ComponentRole, Descriptor},
};
use flow::{Build, BuildContext, Component, ConfigError, Fault, Transform, Transformed, describe, parse_config};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::cells::{compute, named_columns, places, put};

/// Covers values with a character: `****5678`. The columns become texts as long as what they show of any value. A column of
/// the key is refused, because different records would become one: use `hash`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// The columns. One that a batch does not have is passed over.
    columns: Vec<String>,
    /// So many characters at the start stay. A value of no more characters than stay is covered as a whole.
    #[serde(default)]
    keep_first: usize,
    /// So many characters at the end stay.
    #[serde(default)]
    keep_last: usize,
    /// The character that covers.
    #[serde(default = "star")]
    with: char,
}

fn star() -> char {
    '*'
}

/// The registry line.
pub(crate) const MASK: Component = Component {
    descriptor,
    build: Build::Transform(build),
};

const EXAMPLE: &str = r#"name = "covered"

[sources.readings]
type = "file"
path = "readings.jsonl"
format = "json_lines"

[transforms.covered]
type = "mask"
from = "readings"
columns = ["price"]
keep_last = 2

[destinations.out]
type = "stdout"
from = "covered"
"#;

fn descriptor() -> Descriptor {
    describe::<Config>(ComponentRole::Transform, "mask", "Covers values", EXAMPLE)
}

fn build(config: &str, _: &BuildContext) -> Result<Box<dyn Transform>, ConfigError> {
    let config: Config = parse_config(config)?;
    named_columns("columns", &config.columns)?;
    Ok(Box::new(Mask { config }))
}

struct Mask {
    config: Config,
}

impl Transform for Mask {
    fn apply(&mut self, batch: Batch) -> Result<Transformed, Fault> {
        let places = places(&batch, &self.config.columns);
        let fields: Vec<&Field> = places.iter().map(|place| &batch.schema().fields[*place]).collect();
        if let Some(field) = fields.iter().find(|field| field.key) {
            return Err(Fault::stop(format!(
                "'{}' is part of the key of '{}': covered, different records would become one; use `hash` for it",
                field.name,
                batch.schema().collection
            )));
        }
        let (values, _) = compute(batch.rows(), places.len(), |row, index| {
            Ok(match batch.cell(row, places[index]) {
                cell if !cell.is_value() => cell.to_value(),
                Cell::Text(text) => Value::Text(self.covered(text)),
                cell => Value::Text(self.covered(&cell.to_string())),
            })
        });
        let new = fields.into_iter().map(|field| Field {
            ty: Type::Text,
            ..field.clone()
        });
        Ok(put(&batch, new.zip(values))?.into())
    }
}

impl Mask {
    fn covered(&self, text: &str) -> String {
        let Config {
            keep_first,
            keep_last,
            with,
            ..
        } = &self.config;
        let length = text.chars().count();
        let kept = keep_first.saturating_add(*keep_last);
        let is_seen = |at: usize| kept < length && (at < *keep_first || at >= length - keep_last);
        let chars = text.chars().enumerate();
        chars.map(|(at, char)| if is_seen(at) { char } else { *with }).collect()
    }
}

#[cfg(test)]
mod tests {
    use bus_schema::data::{BatchBuilder, Op, Origin, Schema};

    use super::*;
    use crate::testing::{check, check_config, shown_schema, table, transform};

    #[test]
    fn values_are_covered() {
        let input = table(
            &["a:text", "n:i64", "b:bytes"],
            &["DE12345678|1234|00ff", "é€|-1|", "~|=|?"],
        );
        for (config, kept) in [
            (
                r#"{"columns": ["a", "n", "none"]}"#,
                "**********|****|00ff\n**|**|\n~|=|?",
            ),
            (
                r#"{"columns": ["a", "n", "b"], "keep_first": 1, "keep_last": 2, "with": "x"}"#,
                "Dxxxxxxx78|1x34|0xff\nxx|xx|\n~|=|?",
            ),
            (
                r#"{"columns": ["n"], "keep_last": 18446744073709551615, "keep_first": 1}"#,
                "DE12345678|****|00ff\né€|**|\n~|=|?",
            ),
        ] {
            check(&MASK, config, input.clone(), kept, "");
        }
        let done = transform(&MASK, r#"{"columns": ["n"]}"#).apply(input).unwrap();
        assert_eq!(shown_schema(&done.batch), "a:text n:text b:bytes");
    }

    #[test]
    fn keys_are_refused() {
        let schema = Schema {
            collection: "t".into(),
            fields: vec![Field::new("k", Type::I64).key()],
        };
        let mut builder = BatchBuilder::new(schema.into());
        builder.push(Op::Upsert, &[Cell::I64(1)]).unwrap();
        let fault = transform(&MASK, r#"{"columns": ["k"]}"#)
            .apply(builder.finish(Origin::default()))
            .unwrap_err();
        assert!(fault.to_string().contains("'k' is part of the key of 't'"), "{fault}");
    }

    #[test]
    fn mistakes_are_named() {
        for (config, wanted) in [
            ("{}", "missing field `columns`"),
            (r#"{"columns": []}"#, "columns: name at least one"),
            (r#"{"columns": ["a"], "with": "ab"}"#, "with: "),
            (r#"{"columns": ["a"], "keep_last": -1}"#, "keep_last: "),
        ] {
            check_config(&MASK, config, wanted);
        }
    }

    proptest::proptest! {
        #[test]
        fn no_more_is_seen_than_asked_for(text in "[a-z]{0,12}", keep_first in 0..8usize, keep_last in 0..8usize) {
            let mask = Mask { config: Config { columns: Vec::new(), keep_first, keep_last, with: '*' } };
            let covered = mask.covered(&text);
            proptest::prop_assert_eq!(covered.chars().count(), text.len());
            let seen = covered.chars().filter(|char| *char != '*').count();
            proptest::prop_assert_eq!(seen, if text.len() > keep_first + keep_last { keep_first + keep_last } else { 0 });
        }
    }
}
