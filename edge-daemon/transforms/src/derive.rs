//! Transform `derive`: adds columns computed by expressions, or replaces columns by them.

use bus_schema::{
    data::{Batch, Field, Type, Value},
    plan::{ComponentRole, Descriptor},
};
use flow::{Build, BuildContext, Component, ConfigError, Fault, Transform, Transformed, describe, parse_config};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    cells::{RejectedRows, compute_bounded, put, without},
    convert::convert,
    expression::{Expression, common_type},
    ordered::Ordered,
    text::{TYPE_NAMES, type_named},
};

/// Adds columns computed by expressions. A name that exists already is replaced in its place; new ones come last, in the
/// order written. Every expression sees the incoming columns, not each other's results. A row for which one fails goes to
/// the dead letters; so do the rows of one batch that would make it larger by 16 MiB.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// What to compute: `celsius = "(fahrenheit - 32) / 1.8"`, or with a type
    /// `celsius = { expr = "…", type = "f64" }`.
    columns: Ordered<Formula>,
}

/// An expression, alone or with the type its results shall have.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(
    untagged,
    expecting = "a column is computed by \"EXPRESSION\" or { expr = \"EXPRESSION\", type = \"TYPE\" }"
)]
enum Formula {
    /// The type is what the expression gives; "any" when that differs from row to row within a batch.
    Plain(String),
    /// The results are converted exactly; a row whose result cannot be goes to the dead letters.
    Typed(Typed),
}

/// An expression and the type of its results.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Typed {
    /// The expression.
    expr: String,
    /// Name of the type, as for `cast`.
    #[serde(rename = "type")]
    ty: String,
}

/// The registry line.
pub(crate) const DERIVE: Component = Component {
    descriptor,
    build: Build::Transform(build),
};

const EXAMPLE: &str = r#"name = "celsius"

[sources.readings]
type = "file"
path = "readings.jsonl"
format = "json_lines"

[transforms.celsius]
type = "derive"
from = "readings"
columns = { celsius = "(fahrenheit - 32) / 1.8", hot = "fahrenheit > 86" }

[destinations.out]
type = "stdout"
from = "celsius"
"#;

fn descriptor() -> Descriptor {
    describe::<Config>(
        ComponentRole::Transform,
        "derive",
        "Adds columns computed by expressions",
        EXAMPLE,
    )
}

fn build(config: &str, _: &BuildContext) -> Result<Box<dyn Transform>, ConfigError> {
    let config: Config = parse_config(config)?;
    if config.columns.0.is_empty() {
        return Err(ConfigError::at("columns", "name at least one column to compute"));
    }
    let mut columns = Vec::new();
    for (name, formula) in config.columns.0 {
        let key = format!("columns.{name}");
        let (source, ty) = match formula {
            Formula::Plain(source) => (source, None),
            Formula::Typed(typed) => {
                let unknown = || {
                    ConfigError::at(
                        format!("{key}.type"),
                        format!("'{}' is no type; there is {TYPE_NAMES}", typed.ty),
                    )
                };
                (typed.expr, Some(type_named(&typed.ty).ok_or_else(unknown)?))
            }
        };
        columns.push(Computed {
            expression: Expression::compile(&source, &key)?,
            name,
            ty,
        });
    }
    Ok(Box::new(Derive { columns }))
}

struct Computed {
    name: String,
    expression: Expression,
    ty: Option<Type>,
}

struct Derive {
    columns: Vec<Computed>,
}

impl Transform for Derive {
    fn apply(&mut self, batch: Batch) -> Result<Transformed, Fault> {
        let (results, rejected) = self.compute(&batch);
        let batch = without(batch, &rejected);
        let new = self.columns.iter().zip(results).map(|(computed, values)| {
            let ty = computed.ty.clone().unwrap_or_else(|| common_type(&values));
            (Field::new(&computed.name, ty), values)
        });
        let batch = put(&batch, new)?;
        Ok(Transformed { batch, rejected })
    }
}

impl Derive {
    /// The values of each column for the rows for which all of them could be computed, and the other rows.
    fn compute(&self, batch: &Batch) -> (Vec<Vec<Value>>, RejectedRows) {
        let bound: Vec<_> = self
            .columns
            .iter()
            .map(|computed| computed.expression.bind(batch))
            .collect();
        compute_bounded(batch, bound.len(), |row, index| {
            let Computed { name, ty, .. } = &self.columns[index];
            let value = bound[index].value(row)?;
            match ty {
                Some(ty) => convert(value.as_cell(), ty).map_err(|cause| format!("column '{name}' {cause}")),
                None => Ok(value),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check, check_config, shown_schema, table, transform};

    #[test]
    fn adds_and_replaces() {
        let input = table(&["a:i64", "b:text"], &["1|x", "2|y", "~|z"]);
        for (config, kept, rejected) in [
            (r#"{"columns": {"c": "a ?? 0"}}"#, "1|x|1\n2|y|2\n~|z|0", ""),
            (r#"{"columns": {"a": "(a ?? 9) * 10"}}"#, "10|x\n20|y\n90|z", ""),
            (
                r#"{"columns": {"z": "b + \"!\"", "a": "b"}}"#,
                "x|x|x!\ny|y|y!\nz|z|z!",
                "",
            ),
            (
                r#"{"columns": {"c": "a + 1"}}"#,
                "1|x|2\n2|y|3",
                "2: `a + 1`: Function not found: + ((), i64) (line 1, position 3) (a null",
            ),
            (
                r#"{"columns": {"c": "if b == \"x\" { () } else { 1.5 }"}}"#,
                "1|x|~\n2|y|1.5\n~|z|1.5",
                "",
            ),
            (r#"{"columns": {"c": "[b, 1]"}}"#, "1|x|[x,1]\n2|y|[y,1]\n~|z|[z,1]", ""),
            (
                r##"{"columns": {"c": "#{k: b, a: [1, [2]]}"}}"##,
                "1|x|{\"a\":[1,[2]],\"k\":\"x\"}\n2|y|{\"a\":[1,[2]],\"k\":\"y\"}\n~|z|{\"a\":[1,[2]],\"k\":\"z\"}",
                "",
            ),
            (
                r#"{"columns": {"c": {"expr": "a ?? 0", "type": "decimal(5,2)"}}}"#,
                "1|x|1.00\n2|y|2.00\n~|z|0.00",
                "",
            ),
            (
                r#"{"columns": {"ok": "1", "c": {"expr": "b", "type": "i64"}}}"#,
                "",
                "0: column 'c' is not a value of type i64: 'x'\n1: \n2: ",
            ),
            (r#"{"columns": {"c": "1..3"}}"#, "", "0: `1..3`: gives \n1: \n2: "),
            (
                r#"{"columns": {"c": "9223372036854775807 + (a ?? 0)"}}"#,
                "~|z|9223372036854775807",
                "0: \n1: ",
            ),
        ] {
            check(&DERIVE, config, input.clone(), kept, rejected);
        }
    }

    #[test]
    fn growth_is_bounded() {
        // Half a million bytes of each row.
        let hundred = "a".repeat(100);
        let rows = vec![hundred.as_str(); 40];
        let long = "b".repeat(5_000);
        let config = serde_json::json!({"columns": {"x": format!("replace(t, \"a\", \"{long}\")"), "y": "t"}});
        let done = transform(&DERIVE, &config.to_string())
            .apply(table(&["t:text"], &rows))
            .unwrap();
        assert_eq!((done.batch.rows(), done.rejected.len()), (33, 7));
        let (row, reason) = &done.rejected[0];
        assert!(
            *row == 33 && reason.contains("would make the batch larger by more than 16777216 bytes"),
            "{row}: {reason}"
        );
    }

    #[test]
    fn types_follow_the_values() {
        let input = table(
            &["a:i64", "d:decimal(8,2)", "t:timestamp_utc", "u:u64"],
            &["1|1.50|2024-01-01T00:00:00Z|18446744073709551615"],
        );
        for (expr, wanted) in [
            ("a", "i64"),
            ("a / 2.0", "f64"),
            ("d", "decimal(*,2)"),
            ("d * d", "decimal(*,4)"),
            ("u", "decimal(*,0)"),
            ("t", "timestamp_utc"),
            ("t.unix_ms()", "i64"),
            ("()", "any"),
            ("a > 0", "bool"),
        ] {
            let mut derive = transform(&DERIVE, &serde_json::json!({"columns": {"x": expr}}).to_string());
            let done = derive.apply(input.clone()).unwrap();
            assert_eq!(
                shown_schema(&done.batch).split(' ').next_back(),
                Some(format!("x:{wanted}").as_str()),
                "{expr}"
            );
        }
    }

    #[test]
    fn mistakes_are_named() {
        for (config, wanted) in [
            (r#"{"columns": {}}"#, "columns: name at least one"),
            (r#"{"columns": {"x": "1 +"}}"#, "columns.x: "),
            (
                r#"{"columns": {"x": {"expr": "1", "type": "int"}}}"#,
                "columns.x.type: 'int' is no type",
            ),
            (r#"{"columns": {"x": 5}}"#, "columns.x: a column is computed by"),
            (r#"{"columns": {"x": "1", "x": "2"}}"#, "'x' stands here twice"),
        ] {
            check_config(&DERIVE, config, wanted);
        }
    }
}
