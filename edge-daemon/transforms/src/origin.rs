//! Transform `origin`: adds columns that say where and when each record was read. Takes what the batch says of itself; reads
//! no clock.

use std::sync::Arc;

use bus_schema::{
    data::{Batch, Cell, Column, Field, Type, Zone},
    plan::{ComponentRole, Descriptor},
};
use flow::{Build, BuildContext, Component, ConfigError, Fault, Transform, Transformed, describe, parse_config};
use schemars::JsonSchema;
use serde::Deserialize;

/// Nanoseconds in a millisecond.
const NANOS: i128 = 1_000_000;

/// Adds where and when each record was read, in four columns:
///
/// | column | type | what |
/// |---|---|---|
/// | `origin_source` | text | the source, by its name in the workflow |
/// | `origin_boot` | u64 | which start of the daemon that read it: a later start has a higher number |
/// | `origin_uptime_ms` | u64 | milliseconds since that start; no change of a clock touches it |
/// | `origin_time` | timestamp (UTC) | when that was |
///
/// `origin_boot` and `origin_uptime_ms` are always in order. `origin_time` comes from the clock of the daemon that read the
/// record, and is put right by the plane's where records arrive from another daemon: place this transform there, after the
/// edge that crosses. It stays as that clock had it where the plane was never heard during that start, and for records that
/// do not leave their daemon. A column of the same name is replaced.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// What the names of the four columns begin with.
    #[serde(default = "prefix")]
    prefix: String,
}

fn prefix() -> String {
    "origin_".to_string()
}

/// The registry line.
pub(crate) const ORIGIN: Component = Component {
    descriptor,
    build: Build::Transform(build),
};

const EXAMPLE: &str = r#"name = "when"

[sources.readings]
type = "file"
path = "readings.jsonl"
format = "json_lines"

[transforms.when]
type = "origin"
from = "readings"

[destinations.out]
type = "stdout"
from = "when"
"#;

fn descriptor() -> Descriptor {
    let summary = "Adds columns that say where and when each record was read";
    describe::<Config>(ComponentRole::Transform, "origin", summary, EXAMPLE)
}

fn build(config: &str, _: &BuildContext) -> Result<Box<dyn Transform>, ConfigError> {
    let Config { prefix } = parse_config(config)?;
    Ok(Box::new(AddOrigin { prefix }))
}

struct AddOrigin {
    prefix: String,
}

impl Transform for AddOrigin {
    fn apply(&mut self, batch: Batch) -> Result<Transformed, Fault> {
        let origin = batch.origin().clone();
        let added = [
            ("source", Type::Text, Cell::Text(&origin.source)),
            ("boot", Type::U64, Cell::U64(origin.boot)),
            ("uptime_ms", Type::U64, Cell::U64(origin.uptime_ms)),
            (
                "time",
                Type::Timestamp(Zone::Utc),
                Cell::TimestampUtc(i128::from(origin.unix_ms) * NANOS),
            ),
        ];
        let mut schema = (**batch.schema()).clone();
        let mut columns = batch.columns().to_vec();
        for (name, ty, cell) in added {
            let name = format!("{}{name}", self.prefix);
            let mut column = Column::new(&ty);
            for _ in 0..batch.rows() {
                column.push(cell, &ty).map_err(|error| Fault::stop(error.to_string()))?;
            }
            let field = Field {
                nullable: false,
                ..Field::new(name, ty)
            };
            match schema.index_of(&field.name) {
                Some(at) => (schema.fields[at], columns[at]) = (field, column),
                None => {
                    schema.fields.push(field);
                    columns.push(column);
                }
            }
        }
        let batch = batch
            .with_columns(Arc::new(schema), columns)
            .map_err(|error| Fault::stop(error.to_string()))?;
        Ok(Transformed {
            batch,
            rejected: Vec::new(),
        })
    }
}

#[cfg(test)]
mod tests {
    use bus_schema::data::{BatchBuilder, Op, Origin, Schema, Value};

    use super::*;

    #[test]
    fn origins_become_columns() {
        let fields = vec![Field::new("n", Type::I64), Field::new("at_boot", Type::Text)];
        let schema = Arc::new(Schema {
            collection: "t".into(),
            fields,
        });
        for rows in [0, 1, 3] {
            for (prefix, names) in [
                (
                    "origin_",
                    [
                        "n",
                        "at_boot",
                        "origin_source",
                        "origin_boot",
                        "origin_uptime_ms",
                        "origin_time",
                    ]
                    .as_slice(),
                ),
                ("at_", &["n", "at_boot", "at_source", "at_uptime_ms", "at_time"]),
            ] {
                let mut builder = BatchBuilder::new(Arc::clone(&schema));
                for n in 0..rows {
                    builder.push(Op::Upsert, &[Cell::I64(n), Cell::Text("-")]).unwrap();
                }
                let batch = builder.finish(Origin {
                    source: "readings".into(),
                    boot: 7,
                    uptime_ms: 90_000,
                    unix_ms: 1_500,
                });
                let mut transform = AddOrigin { prefix: prefix.into() };
                let Transformed { batch, rejected } = transform.apply(batch).unwrap();
                assert!(rejected.is_empty());
                let found: Vec<_> = batch.schema().fields.iter().map(|field| field.name.as_str()).collect();
                assert_eq!(found, names);
                for row in 0..rows as usize {
                    let value = |name: &str| batch.cell(row, batch.schema().index_of(name).unwrap()).to_value();
                    assert_eq!(value(&format!("{prefix}source")), Value::Text("readings".into()));
                    assert_eq!(value(&format!("{prefix}boot")), Value::U64(7));
                    assert_eq!(value(&format!("{prefix}uptime_ms")), Value::U64(90_000));
                    assert_eq!(value(&format!("{prefix}time")), Value::TimestampUtc(1_500_000_000));
                    assert_eq!(value("n"), Value::I64(row as i64));
                }
            }
        }
    }
}
