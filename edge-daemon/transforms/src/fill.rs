//! Transform `fill`: gives a value to fields that have none. Never touches a field that has one.

use bus_schema::{
    data::{Batch, Cell, Field, Op, Type, Value},
    plan::{ComponentRole, Descriptor},
};
use flow::{Build, BuildContext, Component, ConfigError, Fault, Transform, Transformed, describe, parse_config};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    cells::{compute_bounded, put, without},
    constant::Constant,
    convert::convert,
    ordered::Ordered,
};

/// Gives a value to fields that have none: that are null, or missing. What an update leaves out is left as it is at the
/// destination, and deletes say nothing but a key: neither is filled. A column that a batch does not have is added. A row
/// whose column cannot hold the value exactly goes to the dead letters.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Column = what to fill in: a text, a number, true or false (`unit = "C"`), or what another column holds
    /// (`seen_at = { from = "sent_at" }`).
    columns: Ordered<Filler>,
}

/// What to fill in.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(
    untagged,
    expecting = "a column is filled with a text, a number, true, false or { from = \"COLUMN\" }"
)]
enum Filler {
    /// This value.
    Constant(Constant),
    /// What another column of the same record holds.
    Column(Other),
}

/// Another column.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Other {
    /// Its name.
    from: String,
}

/// The registry line.
pub(crate) const FILL: Component = Component {
    descriptor,
    build: Build::Transform(build),
};

const EXAMPLE: &str = r#"name = "filled"

[sources.readings]
type = "file"
path = "readings.jsonl"
format = "json_lines"

[transforms.filled]
type = "fill"
from = "readings"
columns = { unit = "C", measured_at = { from = "at" } }

[destinations.out]
type = "stdout"
from = "filled"
"#;

fn descriptor() -> Descriptor {
    let summary = "Gives a value to fields that have none";
    describe::<Config>(ComponentRole::Transform, "fill", summary, EXAMPLE)
}

fn build(config: &str, _: &BuildContext) -> Result<Box<dyn Transform>, ConfigError> {
    let Config { columns } = parse_config(config)?;
    if columns.0.is_empty() {
        return Err(ConfigError::at("columns", "name at least one column"));
    }
    for (name, filler) in &columns.0 {
        if matches!(filler, Filler::Column(other) if other.from == *name) {
            return Err(ConfigError::at(
                format!("columns.{name}.from"),
                "a column cannot fill itself",
            ));
        }
    }
    Ok(Box::new(Fill { columns: columns.0 }))
}

struct Fill {
    columns: Vec<(String, Filler)>,
}

/// One column of a batch and what fills it.
struct Target {
    field: Field,
    /// `None`: the batch does not have it yet.
    place: Option<usize>,
    with: With,
}

enum With {
    Value(Value),
    /// `None`: the batch does not have the other column.
    Column(Option<usize>),
}

impl Transform for Fill {
    fn apply(&mut self, batch: Batch) -> Result<Transformed, Fault> {
        let targets: Vec<Target> = self
            .columns
            .iter()
            .filter_map(|column| target(&batch, column))
            .collect();
        let (values, rejected) = compute_bounded(&batch, targets.len(), |row, index| {
            let target = &targets[index];
            let cell = target.place.map_or(Cell::Missing, |place| batch.cell(row, place));
            let is_empty = match batch.op(row) {
                Op::Delete => false,
                Op::Update => cell == Cell::Null,
                Op::Insert | Op::Upsert => matches!(cell, Cell::Null | Cell::Missing),
            };
            if !is_empty {
                return Ok(cell.to_value());
            }
            let with = match &target.with {
                With::Value(value) => value.as_cell(),
                With::Column(place) => place.map_or(Cell::Missing, |place| batch.cell(row, place)),
            };
            if !with.is_value() {
                return Ok(cell.to_value());
            }
            convert(with, &target.field.ty).map_err(|why| format!("what fills column '{}' {why}", target.field.name))
        });
        let batch = without(batch, &rejected);
        let fields = targets.into_iter().map(|target| target.field);
        let batch = put(&batch, fields.zip(values))?;
        Ok(Transformed { batch, rejected })
    }
}

/// `None`: there is neither the column nor anything to fill it with.
fn target(batch: &Batch, (name, filler): &(String, Filler)) -> Option<Target> {
    let schema = batch.schema();
    let (with, ty) = match filler {
        Filler::Constant(constant) => {
            let value = constant.value();
            let ty = value.as_cell().type_of().unwrap_or(Type::Any);
            (With::Value(value), Some(ty))
        }
        Filler::Column(other) => {
            let place = schema.index_of(&other.from);
            (With::Column(place), place.map(|place| schema.fields[place].ty.clone()))
        }
    };
    let place = schema.index_of(name);
    let field = match place {
        Some(place) => schema.fields[place].clone(),
        None => Field::new(name, ty?),
    };
    Some(Target { field, place, with })
}

#[cfg(test)]
mod tests {
    use bus_schema::data::{BatchBuilder, Origin, Schema};

    use super::*;
    use crate::testing::{check, check_config, shown, shown_schema, table, transform};

    #[test]
    fn empty_fields_get_a_value() {
        let input = table(&["a:i64", "b:text", "c:i64"], &["1|x|7", "~|~|8", "?|?|~", "=|=|="]);
        for (columns, kept, rejected, schema) in [
            (
                r#"{"a": 0, "b": ""}"#,
                "1|x|7\n0||8\n0||~\n=|=|=",
                "",
                "a:i64 b:text c:i64",
            ),
            (
                r#"{"a": {"from": "c"}, "b": {"from": "c"}}"#,
                "1|x|7\n8|8|8\n?|?|~\n=|=|=",
                "",
                "a:i64 b:text c:i64",
            ),
            (
                r#"{"d": "C", "e": {"from": "a"}, "f": {"from": "none"}, "g": true, "h": 1.5}"#,
                "1|x|7|C|1|true|1.5\n~|~|8|C|?|true|1.5\n?|?|~|C|?|true|1.5\n=|=|=|C|?|true|1.5",
                "",
                "a:i64 b:text c:i64 d:text e:i64 g:bool h:f64",
            ),
            (
                r#"{"a": "none"}"#,
                "1|x|7\n=|=|=",
                "1: what fills column 'a' is not a value of type i64: 'none'\n2: ",
                "a:i64 b:text c:i64",
            ),
        ] {
            let config = format!("{{\"columns\": {columns}}}");
            check(&FILL, &config, input.clone(), kept, rejected);
            let done = transform(&FILL, &config).apply(input.clone()).unwrap();
            assert_eq!(shown_schema(&done.batch), schema);
        }
    }

    #[test]
    fn what_a_change_leaves_out_stays_left_out() {
        let schema = Schema {
            collection: "t".into(),
            fields: vec![Field::new("k", Type::I64).key(), Field::new("n", Type::I64)],
        };
        let mut builder = BatchBuilder::new(schema.into());
        for (op, cell) in [
            (Op::Delete, Cell::Missing),
            (Op::Delete, Cell::Null),
            (Op::Update, Cell::Missing),
            (Op::Update, Cell::Null),
            (Op::Upsert, Cell::Missing),
        ] {
            builder.push(op, &[Cell::I64(1), cell]).unwrap();
        }
        let mut fill = transform(&FILL, r#"{"columns": {"n": 5, "new": 6}}"#);
        let done = fill.apply(builder.finish(Origin::default())).unwrap();
        assert_eq!(shown(&done.batch), "1|?|?\n1|~|?\n1|?|?\n1|5|?\n1|5|6");
    }

    #[test]
    fn mistakes_are_named() {
        for (columns, wanted) in [
            ("{}", "columns: name at least one"),
            (r#"{"a": {"from": "a"}}"#, "columns.a.from: a column cannot fill itself"),
            (r#"{"a": [1]}"#, "a column is filled with"),
        ] {
            check_config(&FILL, &format!("{{\"columns\": {columns}}}"), wanted);
        }
    }
}
