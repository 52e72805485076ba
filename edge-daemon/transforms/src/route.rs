//! Transform `route`: sends each record to the output whose condition it fulfils. In a pipe it stands in two parts: one notes
//! in a column which outputs a record belongs to, and one for each output that is read takes its own and drops the column.

use bus_schema::{
    data::{Batch, Cell, Field, Type, Value},
    plan::{ComponentRole, Descriptor},
};
use flow::{Build, BuildContext, Component, ConfigError, Fault, Transform, Transformed, describe, parse_config};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    cells::{put, reshaped, without},
    expression::Expression,
    ordered::Ordered,
};

/// Most outputs, beside `else`.
const OUTPUTS_MAX: usize = 32;
/// The output of records that no condition is true for.
const ELSE: &str = "else";
/// The column in which the first part tells the second; not a name that a source would give.
const NOTE: &str = "(outputs)";

/// Sends each record to the output whose condition it fulfils. Others read from an output by name, `from = "split.hot"`, and
/// from `split.else` what fulfils none; a record that fulfils none while nothing reads from `else` is left out. A record for
/// which a condition cannot be told goes to the dead letters. Every output has to be read.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("x-outputs" = "outputs"))]
struct Config {
    /// Output = its condition, as for `filter`; up to 32, in the order in which they are tried.
    outputs: Ordered<String>,
    /// `first`: a record goes to the first output whose condition is true. `all`: to every one.
    #[serde(default)]
    matches: Matches,
    /// Which output this is: said by whoever reads it, never in a workflow.
    output: Option<String>,
}

/// How many outputs a record goes to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Matches {
    /// The first.
    #[default]
    First,
    /// Every one.
    All,
}

/// The registry line.
pub(crate) const ROUTE: Component = Component {
    descriptor,
    build: Build::Transform(build),
};

const EXAMPLE: &str = r#"name = "routed"

[sources.readings]
type = "file"
path = "readings.jsonl"
format = "json_lines"

[transforms.split]
type = "route"
from = "readings"
outputs = { hot = "temperature > 80", cold = "temperature < 5" }

[destinations.alarms]
type = "stdout"
from = ["split.hot", "split.cold"]

[destinations.rest]
type = "stdout"
from = "split.else"
"#;

fn descriptor() -> Descriptor {
    let summary = "Sends each record to the output whose condition it fulfils";
    describe::<Config>(ComponentRole::Transform, "route", summary, EXAMPLE)
}

fn build(config: &str, _: &BuildContext) -> Result<Box<dyn Transform>, ConfigError> {
    let Config {
        outputs,
        matches,
        output,
    } = parse_config(config)?;
    let outputs = outputs.0;
    if outputs.is_empty() || outputs.len() > OUTPUTS_MAX {
        return Err(ConfigError::at("outputs", format!("name 1 to {OUTPUTS_MAX} outputs")));
    }
    if outputs.iter().any(|(name, _)| name == ELSE) {
        let message = "this one is there without being named: for what fulfils no condition";
        return Err(ConfigError::at(format!("outputs.{ELSE}"), message));
    }
    if let Some(output) = output {
        let place = outputs.iter().position(|(name, _)| *name == output);
        let bit = place.or_else(|| (output == ELSE).then_some(outputs.len()));
        let unknown = || ConfigError::at("outputs", format!("there is no output '{output}'"));
        return Ok(Box::new(Pick {
            bit: bit.ok_or_else(unknown)?,
        }));
    }
    let condition = |(name, source): &(String, String)| Expression::compile(source, &format!("outputs.{name}"));
    let conditions = outputs.iter().map(condition).collect::<Result<_, _>>()?;
    Ok(Box::new(Split { conditions, matches }))
}

/// Notes which outputs a record goes to, a bit for each.
struct Split {
    conditions: Vec<Expression>,
    matches: Matches,
}

impl Transform for Split {
    fn apply(&mut self, batch: Batch) -> Result<Transformed, Fault> {
        if batch.schema().index_of(NOTE).is_some() {
            let cause = format!("the records have a field '{NOTE}', which is this transform's own: rename it before");
            return Err(Fault::stop(cause));
        }
        let bound: Vec<_> = self.conditions.iter().map(|condition| condition.bind(&batch)).collect();
        let mut notes = Vec::with_capacity(batch.rows());
        let mut rejected = Vec::new();
        'rows: for row in 0..batch.rows() {
            let mut note = 0;
            for (bit, condition) in bound.iter().enumerate() {
                match condition.test(row) {
                    Ok(true) => note |= 1 << bit,
                    Ok(false) => {}
                    Err(reason) => {
                        rejected.push((row, reason));
                        continue 'rows;
                    }
                }
                if note != 0 && self.matches == Matches::First {
                    break;
                }
            }
            if note == 0 {
                note = 1 << bound.len();
            }
            notes.push(Value::I64(note));
        }
        drop(bound);
        let batch = put(&without(batch, &rejected), [(Field::new(NOTE, Type::I64), notes)])?;
        Ok(Transformed { batch, rejected })
    }
}

/// Takes the records of one output.
struct Pick {
    bit: usize,
}

impl Transform for Pick {
    fn apply(&mut self, batch: Batch) -> Result<Transformed, Fault> {
        let Some(place) = batch.schema().index_of(NOTE) else {
            // Nothing has come this way yet: at a source's end a batch without columns passes.
            if batch.rows() == 0 {
                return Ok(batch.into());
            }
            return Err(Fault::stop("`output` is said by whoever reads an output: remove it"));
        };
        let is_own = |row: &usize| matches!(batch.cell(*row, place), Cell::I64(note) if note >> self.bit & 1 == 1);
        let own: Vec<usize> = (0..batch.rows()).filter(is_own).collect();
        let taken = if own.len() == batch.rows() {
            batch
        } else {
            batch.take(&own)
        };
        let mut fields = taken.schema().fields.clone();
        let mut columns = taken.columns().to_vec();
        fields.remove(place);
        columns.remove(place);
        Ok(reshaped(&taken, fields, columns)?.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check_config, shown, table, transform};

    /// What comes out of an output.
    fn output(config: &str, output: &str, input: &Batch) -> String {
        let done = transform(&ROUTE, config).apply(input.clone()).unwrap();
        let own = config.replacen('{', &format!("{{\"output\": \"{output}\", "), 1);
        let picked = transform(&ROUTE, &own).apply(done.batch).unwrap().batch;
        assert_eq!(picked.schema().fields.len(), input.schema().fields.len());
        shown(&picked)
    }

    #[test]
    fn records_go_where_they_belong() {
        let outputs = r#"{"outputs": {"hot": "n > 80", "warm": "n > 20", "odd": "n % 2 == 1"}"#;
        let input = table(&["n:i64", "t:text"], &["81|a", "82|b", "21|c", "5|d", "4|e", "22|~"]);
        for (matches, found) in [
            ("first", ["81|a\n82|b", "21|c\n22|~", "5|d", "4|e"]),
            (
                "all",
                ["81|a\n82|b", "81|a\n82|b\n21|c\n22|~", "81|a\n21|c\n5|d", "4|e"],
            ),
        ] {
            let config = format!(r#"{outputs}, "matches": "{matches}"}}"#);
            for (name, expected) in ["hot", "warm", "odd", "else"].into_iter().zip(found) {
                assert_eq!(output(&config, name, &input), expected, "{matches}, {name}");
            }
        }
    }

    #[test]
    fn what_cannot_be_told_is_rejected_once() {
        let config = r#"{"outputs": {"a": "n > 1", "b": "n > 0"}}"#;
        let input = table(&["n:i64"], &["2", "?", "1"]);
        let done = transform(&ROUTE, config).apply(input.clone()).unwrap();
        let rows: Vec<usize> = done.rejected.iter().map(|(row, _)| *row).collect();
        assert_eq!((rows, done.batch.rows()), (vec![1], 2));
        assert_eq!(output(config, "b", &input), "1");
    }

    #[test]
    fn mistakes_are_named() {
        for (config, wanted) in [
            ("{}", "missing field `outputs`"),
            (r#"{"outputs": {}}"#, "outputs: name 1 to 32"),
            (r#"{"outputs": {"else": "true"}}"#, "outputs.else: this one is there"),
            (r#"{"outputs": {"a": "n >"}}"#, "outputs.a: "),
            (r#"{"outputs": {"a": "n > 1"}, "output": "b"}"#, "no output 'b'"),
            (r#"{"outputs": {"a": "true"}, "matches": "some"}"#, "matches: "),
        ] {
            check_config(&ROUTE, config, wanted);
        }
        let misused = r#"{"outputs": {"a": "true"}, "output": "a"}"#;
        let fault = transform(&ROUTE, misused).apply(table(&["n:i64"], &["1"])).unwrap_err();
        assert!(fault.to_string().contains("remove it"), "{fault}");
        let taken = table(&["(outputs):i64"], &["1"]);
        let fault = transform(&ROUTE, r#"{"outputs": {"a": "true"}}"#)
            .apply(taken)
            .unwrap_err();
        assert!(fault.to_string().contains("rename it"), "{fault}");
    }
}
