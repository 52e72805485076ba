//! Transform `filter`: keeps the rows for which an expression is true.

use bus_schema::{
    data::Batch,
    plan::{ComponentRole, Descriptor},
};
use flow::{Build, BuildContext, Component, ConfigError, Fault, Transform, Transformed, describe, parse_config};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::expression::Expression;

/// Keeps the rows for which an expression is true. A row for which it is neither true nor false, or cannot be computed,
/// goes to the dead letters.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// The expression, for example `temperature > 30 && line != "test"`. Columns stand in it by name.
    /// A comparison with null is false except `!=`; `x == ()` tests for null.
    #[serde(rename = "where")]
    condition: String,
}

/// The registry line.
pub(crate) const FILTER: Component = Component {
    descriptor,
    build: Build::Transform(build),
};

const EXAMPLE: &str = r#"name = "hot"

[sources.readings]
type = "file"
path = "readings.jsonl"
format = "json_lines"

[transforms.hot]
type = "filter"
from = "readings"
where = 'temperature > 30 && line != "test"'

[destinations.out]
type = "stdout"
from = "hot"
"#;

fn descriptor() -> Descriptor {
    describe::<Config>(
        ComponentRole::Transform,
        "filter",
        "Keeps the rows for which an expression is true",
        EXAMPLE,
    )
}

fn build(config: &str, _: &BuildContext) -> Result<Box<dyn Transform>, ConfigError> {
    let config: Config = parse_config(config)?;
    Ok(Box::new(Filter {
        condition: Expression::compile(&config.condition, "where")?,
    }))
}

struct Filter {
    condition: Expression,
}

impl Transform for Filter {
    fn apply(&mut self, batch: Batch) -> Result<Transformed, Fault> {
        let condition = self.condition.bind(&batch);
        let mut kept = Vec::with_capacity(batch.rows());
        let mut rejected = Vec::new();
        for row in 0..batch.rows() {
            match condition.test(row) {
                Ok(true) => kept.push(row),
                Ok(false) => {}
                Err(reason) => rejected.push((row, reason)),
            }
        }
        let batch = if kept.len() == batch.rows() {
            batch
        } else {
            batch.take(&kept)
        };
        Ok(Transformed { batch, rejected })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check, check_config, table};

    #[test]
    fn keeps_what_is_true() {
        let input = table(
            &["n:i64", "t:text", "odd name:f64", "j:json"],
            &["1|a|0.5|{\"x\": {\"y\": 7}}", "2|b|~|{}", "~|c|1.5|[1]", "?|d|2.5|~"],
        );
        for (condition, kept, rejected) in [
            ("n > 1", "2|b|~|{}", "3: `n > 1`: the record has no field 'n'"),
            ("row[\"n\"] == ()", "~|c|1.5|[1]\n?|d|2.5|~", ""),
            ("row.n == 1", "1|a|0.5|{\"x\": {\"y\": 7}}", ""),
            ("row[\"odd name\"] >= 1.5", "~|c|1.5|[1]\n?|d|2.5|~", ""),
            ("t in [\"a\", \"b\"]", "1|a|0.5|{\"x\": {\"y\": 7}}\n2|b|~|{}", ""),
            (
                "row.j?.x?.y == 7",
                "1|a|0.5|{\"x\": {\"y\": 7}}",
                "2: `row.j?.x?.y == 7`: ",
            ),
            ("t.len() > 0 && (n ?? 0) == 0", "~|c|1.5|[1]", "3: "),
            (
                "t == \"a\" || nn > 1",
                "",
                "0: `t == \"a\" || nn > 1`: the record has no field 'nn'; did you mean 'n'?\n1: \n2: \n3: ",
            ),
            ("n + 1 > 2", "2|b|~|{}", "2: `n + 1 > 2`: \n3: "),
            ("t", "", "0: `t`: gives string, not true or false\n1: \n2: \n3: "),
        ] {
            check(
                &FILTER,
                &serde_json::json!({ "where": condition }).to_string(),
                input.clone(),
                kept,
                rejected,
            );
        }
    }

    #[test]
    fn mistakes_are_named() {
        for (config, wanted) in [
            (r#"{}"#, "missing field `where`"),
            (r#"{"where": "n = 1"}"#, "where: "),
            (r#"{"where": "n = 1"}"#, "to compare, write =="),
            (r#"{"where": "n > 1 and m < 2"}"#, "write && for and"),
            (r#"{"where": "n > 1 &&"}"#, "character 9"),
            (r#"{"where": "t == 'abc'"}"#, "double quotes"),
            (r#"{"where": "default > 1"}"#, "row[\"name\"]"),
            (
                r#"{"where": "lenn(t) > 1"}"#,
                "where: there is no function 'lenn'; did you mean 'len'? at character 1",
            ),
            (r#"{"where": "t.sleep(1)"}"#, "there is no function 'sleep'"),
            (r#"{"where": "true", "drop": 1}"#, "unknown field `drop`"),
        ] {
            check_config(&FILTER, config, wanted);
        }
    }

    #[test]
    fn there_is_no_way_out() {
        for condition in [
            "eval(\"1\")",
            "print(1)",
            "debug(1)",
            "sleep(1)",
            "exit(1)",
            "let x = 1",
            "x = 1",
            "while true {}",
            "loop {}",
            "{ let x = 1; x }",
            "|x| x",
            "fn f() { 1 }",
            "import \"x\"",
            "Fn(\"abs\")",
            "rand()",
            "take(n)",
            "this.x",
            "if true { let x = 1; x } else { 2 }",
        ] {
            check_config(
                &FILTER,
                &serde_json::json!({ "where": condition }).to_string(),
                "where: ",
            );
        }
        let deep = format!("{}1{} == 1", "(".repeat(200), ")".repeat(200));
        check_config(&FILTER, &serde_json::json!({ "where": deep }).to_string(), "where: ");
        // Doubling a text 40 times would be a terabyte.
        let long = format!("t{} == \"\"", ".replace(\"x\", \"xx\")".repeat(40));
        let input = table(&["t:text"], &["x"]);
        check(
            &FILTER,
            &serde_json::json!({ "where": long }).to_string(),
            input,
            "",
            "0: ",
        );
    }
}
