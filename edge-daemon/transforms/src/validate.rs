//! Transform `validate`: lets only records through that keep every rule. The others are dead letters that name the rule.

use std::cmp::Ordering;

use bus_schema::{
    data::{Batch, Cell, Op, Type},
    plan::{ComponentRole, Descriptor},
};
use flow::{Build, BuildContext, Component, ConfigError, Fault, Transform, Transformed, describe, parse_config};
use regex::Regex;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    bound::Bound,
    cells::without,
    constant::Constant,
    convert::convert,
    expression::{Bound as BoundExpression, Expression},
    ordered::Ordered,
    pattern::compile,
    text::{TYPE_NAMES, shorten, type_named},
};

/// Lets only records through that keep every rule. Another one goes to the dead letters with the name of the first rule it
/// breaks. Deletes pass: they say nothing but a key.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Name of the rule = what must hold: an expression (`warm = "temperature > 10"`), or checks of one column
    /// (`line = { column = "line", required = true, matches = "^[a-z]+$" }`). Checked in the order written.
    rules: Ordered<Rule>,
}

/// What must hold.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(
    untagged,
    expecting = "a rule is \"EXPRESSION\" or { column = \"NAME\", … } with required, type, min, max, one_of, matches, \
                 length_min, length_max"
)]
enum Rule {
    /// An expression that must be true, as for `filter`.
    Expression(String),
    /// Checks of one column.
    Checks(Box<Checks>),
}

/// Checks of one column. Without `required`, a record without a value keeps them.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Checks {
    /// The column.
    column: String,
    /// There must be a value: not null, and not missing. An update that left the value as it was keeps this.
    #[serde(default)]
    required: bool,
    /// The value is of this type or could be given it by `cast`.
    #[serde(rename = "type")]
    ty: Option<String>,
    /// A number that is at least this.
    min: Option<Bound>,
    /// A number that is at most this.
    max: Option<Bound>,
    /// One of these.
    one_of: Option<Vec<Constant>>,
    /// A text in which this regular expression is found; `^…$` spans the whole text.
    matches: Option<String>,
    /// At least so many characters, bytes or items.
    length_min: Option<usize>,
    /// At most so many characters, bytes or items.
    length_max: Option<usize>,
}

/// The registry line.
pub(crate) const VALIDATE: Component = Component {
    descriptor,
    build: Build::Transform(build),
};

const EXAMPLE: &str = r#"name = "sound"

[sources.readings]
type = "file"
path = "readings.jsonl"
format = "json_lines"

[transforms.sound]
type = "validate"
from = "readings"

[transforms.sound.rules]
plausible = { column = "temperature", required = true, min = -40, max = 125 }
"known line" = { column = "line", one_of = ["a", "b"] }
"not hot at night" = "fahrenheit < 100 || line != \"night\""

[destinations.out]
type = "stdout"
from = "sound"
"#;

fn descriptor() -> Descriptor {
    let summary = "Lets only records through that keep every rule";
    describe::<Config>(ComponentRole::Transform, "validate", summary, EXAMPLE)
}

fn build(config: &str, _: &BuildContext) -> Result<Box<dyn Transform>, ConfigError> {
    let config: Config = parse_config(config)?;
    if config.rules.0.is_empty() {
        return Err(ConfigError::at("rules", "name at least one rule"));
    }
    let rules = config.rules.0.into_iter().map(|(name, rule)| {
        let key = format!("rules.{name}");
        let must = match rule {
            Rule::Expression(source) => Must::Hold(Box::new(Expression::compile(&source, &key)?)),
            Rule::Checks(checks) => Must::Pass(Box::new(ColumnCheck::new(*checks, &key)?)),
        };
        Ok((name, must))
    });
    Ok(Box::new(Validate {
        rules: rules.collect::<Result<_, ConfigError>>()?,
    }))
}

struct Validate {
    rules: Vec<(String, Must)>,
}

enum Must {
    Hold(Box<Expression>),
    Pass(Box<ColumnCheck>),
}

struct ColumnCheck {
    checks: Checks,
    ty: Option<Type>,
    matches: Option<Regex>,
}

/// A rule that has found its columns in a batch.
enum InBatch<'a> {
    Hold(BoundExpression<'a>),
    Pass(&'a ColumnCheck, Option<usize>),
}

impl Transform for Validate {
    fn apply(&mut self, batch: Batch) -> Result<Transformed, Fault> {
        let rules: Vec<(&str, InBatch<'_>)> = self
            .rules
            .iter()
            .map(|(name, must)| {
                let rule = match must {
                    Must::Hold(expression) => InBatch::Hold(expression.bind(&batch)),
                    Must::Pass(check) => InBatch::Pass(check, batch.schema().index_of(&check.checks.column)),
                };
                (name.as_str(), rule)
            })
            .collect();
        let broken = |row: usize| {
            if batch.op(row) == Op::Delete {
                return None;
            }
            let mut kept = rules.iter().map(|(name, rule)| (name, rule.keeps(&batch, row)));
            kept.find_map(|(name, kept)| kept.err().map(|why| (row, format!("rule '{name}': {why}"))))
        };
        let rejected: Vec<(usize, String)> = (0..batch.rows()).filter_map(broken).collect();
        drop(rules);
        Ok(Transformed {
            batch: without(batch, &rejected),
            rejected,
        })
    }
}

impl InBatch<'_> {
    /// An error says how the rule is broken.
    fn keeps(&self, batch: &Batch, row: usize) -> Result<(), String> {
        match self {
            InBatch::Hold(expression) => match expression.test(row)? {
                true => Ok(()),
                false => Err("it does not hold".to_string()),
            },
            InBatch::Pass(check, place) => {
                let cell = place.map_or(Cell::Missing, |place| batch.cell(row, place));
                check
                    .test(cell)
                    .map_err(|why| format!("column '{}' {why}", check.checks.column))
            }
        }
    }
}

impl ColumnCheck {
    fn new(checks: Checks, key: &str) -> Result<Self, ConfigError> {
        let ty = match &checks.ty {
            None => None,
            Some(name) => Some(type_named(name).ok_or_else(|| {
                ConfigError::at(
                    format!("{key}.type"),
                    format!("'{name}' is no type; there is {TYPE_NAMES}"),
                )
            })?),
        };
        let matches = match &checks.matches {
            None => None,
            Some(pattern) => Some(compile(pattern, &format!("{key}.matches"))?),
        };
        let asks_nothing = !checks.required
            && ty.is_none()
            && matches.is_none()
            && (&checks.min, &checks.max, &checks.one_of) == (&None, &None, &None)
            && (checks.length_min, checks.length_max) == (None, None);
        if asks_nothing {
            return Err(ConfigError::at(key, "it checks nothing: add required, min, max, …"));
        }
        Ok(Self { checks, ty, matches })
    }

    /// An error says what is wrong ("is …").
    fn test(&self, cell: Cell<'_>) -> Result<(), String> {
        let checks = &self.checks;
        match cell {
            Cell::Null if checks.required => return Err("is null".to_string()),
            Cell::Missing if checks.required => return Err("is missing".to_string()),
            Cell::Null | Cell::Missing | Cell::Unchanged => return Ok(()),
            _ => {}
        }
        let shown = || shorten(&cell.to_string());
        if let Some(ty) = &self.ty {
            convert(cell, ty)?;
        }
        if let Some(min) = &checks.min
            && !matches!(min.order(cell)?, Some(Ordering::Greater | Ordering::Equal))
        {
            return Err(format!("is {}, which is not at least {min}", shown()));
        }
        if let Some(max) = &checks.max
            && !matches!(max.order(cell)?, Some(Ordering::Less | Ordering::Equal))
        {
            return Err(format!("is {}, which is not at most {max}", shown()));
        }
        if let Some(allowed) = &checks.one_of
            && !allowed.iter().any(|allowed| is_same(cell, allowed))
        {
            return Err(format!("is '{}', which is none of those allowed", shown()));
        }
        if let Some(regex) = &self.matches
            && !text_of(cell)?.is_some_and(|text| regex.is_match(text))
        {
            return Err(format!("is '{}', in which the pattern is not found", shown()));
        }
        if checks.length_min.is_some() || checks.length_max.is_some() {
            let length = length(cell)?;
            if checks.length_min.is_some_and(|min| length < min) || checks.length_max.is_some_and(|max| length > max) {
                return Err(format!("is '{}', whose length is {length}", shown()));
            }
        }
        Ok(())
    }
}

fn is_same(cell: Cell<'_>, allowed: &Constant) -> bool {
    let Some(ty) = cell.type_of() else { return false };
    convert(allowed.value().as_cell(), &ty).is_ok_and(|allowed| allowed.as_cell() == cell)
}

fn text_of(cell: Cell<'_>) -> Result<Option<&str>, String> {
    match cell {
        Cell::Text(text) | Cell::Json(text) => Ok(Some(text)),
        cell => Err(format!("is '{}', which is no text", shorten(&cell.to_string()))),
    }
}

fn length(cell: Cell<'_>) -> Result<usize, String> {
    match cell {
        Cell::Text(text) | Cell::Json(text) => Ok(text.chars().count()),
        Cell::Bytes(bytes) => Ok(bytes.len()),
        Cell::List(items) => Ok(items.len()),
        cell => Err(format!("is '{}', which has no length", shorten(&cell.to_string()))),
    }
}

#[cfg(test)]
mod tests {
    use bus_schema::data::{BatchBuilder, Field, Origin, Schema};

    use super::*;
    use crate::testing::{check, check_config, shown, table, transform};

    #[test]
    fn who_breaks_a_rule_is_told_which() {
        let input = table(
            &["n:i64", "t:text", "d:decimal(6,2)"],
            &["1|ab|0.10", "2|b|0.11", "~|~|~", "?|?|?", "=|=|=", "3||9.00"],
        );
        for (rules, kept, rejected) in [
            (
                r#"{"small": "(row.n ?? 0) < 3"}"#,
                "1|ab|0.10\n2|b|0.11\n~|~|~\n?|?|?\n=|=|=",
                "5: rule 'small': it does not hold",
            ),
            (
                r#"{"r": "n < 3"}"#,
                "1|ab|0.10\n2|b|0.11",
                "2: rule 'r': it does not hold\n3: rule 'r': `n < 3`: the record has no field 'n'\n4: rule 'r': `n < 3`: \
                 the update left\n5: rule 'r': it does not hold",
            ),
            (
                r#"{"there": {"column": "n", "required": true}}"#,
                "1|ab|0.10\n2|b|0.11\n=|=|=\n3||9.00",
                "2: rule 'there': column 'n' is null\n3: rule 'there': column 'n' is missing",
            ),
            (
                r#"{"a": {"column": "n", "min": 2}, "b": {"column": "d", "max": 0.11}}"#,
                "2|b|0.11\n~|~|~\n?|?|?\n=|=|=",
                "0: rule 'a': column 'n' is 1, which is not at least 2\n5: rule 'b': column 'd' is 9.00, which is not at \
                 most 0.11",
            ),
            (
                r#"{"a": {"column": "t", "one_of": ["ab", "b"]}}"#,
                "1|ab|0.10\n2|b|0.11\n~|~|~\n?|?|?\n=|=|=",
                "5: rule 'a': column 't' is '', which is none",
            ),
            (
                r#"{"a": {"column": "n", "one_of": [1, "2", 3.0]}, "b": {"column": "t", "matches": "^a?b$"}}"#,
                "1|ab|0.10\n2|b|0.11\n~|~|~\n?|?|?\n=|=|=",
                "5: rule 'b': column 't' is '', in which",
            ),
            (
                r#"{"a": {"column": "t", "length_min": 1, "length_max": 1}}"#,
                "2|b|0.11\n~|~|~\n?|?|?\n=|=|=",
                "0: rule 'a': column 't' is 'ab', whose length is 2\n5: rule 'a': column 't' is '', whose length is 0",
            ),
            (
                r#"{"a": {"column": "d", "type": "i64"}}"#,
                "~|~|~\n?|?|?\n=|=|=\n3||9.00",
                "0: rule 'a': column 'd' is decimal\n1: rule 'a': column 'd' is decimal",
            ),
            (
                r#"{"a": {"column": "t", "max": 1}}"#,
                "~|~|~\n?|?|?\n=|=|=",
                "0: rule 'a': column 't' is text 'ab', which is no number\n1: \n5: ",
            ),
        ] {
            let config = format!("{{\"rules\": {rules}}}");
            check(&VALIDATE, &config, input.clone(), kept, rejected);
        }
    }

    #[test]
    fn deletes_pass() {
        let schema = Schema {
            collection: "t".into(),
            fields: vec![Field::new("k", Type::I64).key(), Field::new("n", Type::I64)],
        };
        let mut builder = BatchBuilder::new(schema.into());
        builder.push(Op::Delete, &[Cell::I64(1), Cell::Missing]).unwrap();
        builder.push(Op::Insert, &[Cell::I64(2), Cell::Missing]).unwrap();
        let rules = r#"{"rules": {"a": {"column": "n", "required": true}, "b": "n > 0"}}"#;
        let done = transform(&VALIDATE, rules)
            .apply(builder.finish(Origin::default()))
            .unwrap();
        assert_eq!(shown(&done.batch), "1|?");
        assert_eq!(done.rejected, [(1, "rule 'a': column 'n' is missing".to_string())]);
    }

    #[test]
    fn mistakes_are_named() {
        for (rules, wanted) in [
            ("{}", "rules: name at least one"),
            (r#"{"a": "1 +"}"#, "rules.a: "),
            (r#"{"a": {"column": "x"}}"#, "rules.a: it checks nothing"),
            (
                r#"{"a": {"column": "x", "type": "int"}}"#,
                "rules.a.type: 'int' is no type",
            ),
            (r#"{"a": {"column": "x", "matches": "("}}"#, "rules.a.matches: "),
            (r#"{"a": {"column": "x", "minimum": 1}}"#, "a rule is \"EXPRESSION\" or"),
        ] {
            check_config(&VALIDATE, &format!("{{\"rules\": {rules}}}"), wanted);
        }
    }
}
