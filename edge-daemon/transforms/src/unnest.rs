//! Transform `unnest`: one record with a list becomes one record for each of its items.

use bus_schema::{
    data::{Batch, Cell, Field, Op, Type, Value},
    limits::ROWS_MAX,
    plan::{ComponentRole, Descriptor},
};
use flow::{Build, BuildContext, Component, ConfigError, Fault, Transform, Transformed, describe, parse_config};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    cells::{RejectedRows, column, reshaped, sparse_column, untold, without},
    expression::common_type,
    object::items,
    text::shorten,
};

/// Most bytes that one batch may become, about: every item takes the record's other columns with it.
const UNNESTED_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Makes a record of each item of a list: `values = [20, 21]` becomes two records, one with `values = 20` and one with
/// `values = 21`; the other columns are the same in both. A list is a JSON array or a list column. A record goes to the dead
/// letters whose value is no list, or whose items would be too many: 65,536 records or 8 MiB of one batch, or which has a
/// field of the name of `item` or `index` already. So does a delete, which does not say what had been made of the record, and
/// an update that does not say what the list is, since it did not change (REPLICA IDENTITY FULL makes PostgreSQL say it). An
/// update with a shorter list than before leaves the items behind its end where they are at the destination.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// The column with the lists.
    column: String,
    /// The name of the column with the item. Without this it is the list's.
    item: Option<String>,
    /// A column with the place of the item in its list, from 0. It becomes part of the key, where the record has one;
    /// without this the new records have no key, since they would all have the same.
    index: Option<String>,
    /// A record with an empty list, or with none, goes on with null as the item. Else it is left out.
    #[serde(default)]
    keep_empty: bool,
}

/// The registry line.
pub(crate) const UNNEST: Component = Component {
    descriptor,
    build: Build::Transform(build),
};

const EXAMPLE: &str = r#"name = "single-values"

[sources.readings]
type = "file"
path = "readings.jsonl"
format = "json_lines"

[transforms.single]
type = "unnest"
from = "readings"
column = "values"

[destinations.out]
type = "stdout"
from = "single"
"#;

fn descriptor() -> Descriptor {
    let summary = "Makes a record of each item of a list";
    describe::<Config>(ComponentRole::Transform, "unnest", summary, EXAMPLE)
}

fn build(config: &str, _: &BuildContext) -> Result<Box<dyn Transform>, ConfigError> {
    let config: Config = parse_config(config)?;
    if config.index.as_ref() == Some(config.item.as_ref().unwrap_or(&config.column)) {
        return Err(ConfigError::at("index", "it needs a name of its own"));
    }
    Ok(Box::new(Unnest { config, made: 0 }))
}

struct Unnest {
    config: Config,
    made: usize,
}

/// What came of the rows so far: for each new record the row it is of, the item and its place.
#[derive(Default)]
struct Items {
    rows: Vec<usize>,
    items: Vec<Value>,
    places: Vec<Value>,
    bytes: usize,
}

impl Transform for Unnest {
    fn apply(&mut self, batch: Batch) -> Result<Transformed, Fault> {
        self.made = 0;
        let Some(place) = batch.schema().index_of(&self.config.column) else {
            // No record of this batch has a list.
            let refusal = |row| Some((row, self.refusal(batch.op(row), Cell::Missing)?));
            let rejected: RejectedRows = (0..batch.rows()).filter_map(refusal).collect();
            let batch = if self.config.keep_empty {
                without(batch, &rejected)
            } else {
                batch.take(&[])
            };
            return Ok(Transformed { batch, rejected });
        };
        let mut all = Items::default();
        let clashes = self.clashes(&batch, place);
        let mut rejected = RejectedRows::new();
        for row in 0..batch.rows() {
            match self.add(&batch, row, (place, &clashes), &mut all) {
                Ok(more) => self.made += more,
                Err(reason) => rejected.push((row, reason)),
            }
        }
        let batch = self.assemble(&batch, (place, &clashes), all)?;
        Ok(Transformed { batch, rejected })
    }

    fn made(&mut self) -> usize {
        self.made
    }
}

impl Unnest {
    /// Other columns that have the name of a new one. Only records that have nothing there can go on.
    fn clashes(&self, batch: &Batch, place: usize) -> Vec<usize> {
        let new = |name: &String| self.config.item.as_ref() == Some(name) || self.config.index.as_ref() == Some(name);
        let fields = batch.schema().fields.iter().enumerate();
        fields
            .filter(|(at, field)| *at != place && new(&field.name))
            .map(|(at, _)| at)
            .collect()
    }

    /// Why the list of a record is not known, if it is not.
    fn refusal(&self, op: Op, cell: Cell<'_>) -> Option<String> {
        match (op, cell) {
            (Op::Delete, _) => Some("a delete does not say which records had been made of it".to_string()),
            // What an update does not have stays as it is.
            (Op::Update, Cell::Missing) | (_, Cell::Unchanged) => Some(untold(&self.config.column)),
            _ => None,
        }
    }

    /// Adds what comes of a row, and says how many more than one that is.
    fn add(
        &self,
        batch: &Batch,
        row: usize,
        (place, clashes): (usize, &[usize]),
        all: &mut Items,
    ) -> Result<usize, String> {
        let cell = batch.cell(row, place);
        if let Some(refusal) = self.refusal(batch.op(row), cell) {
            return Err(refusal);
        }
        if let Some(clash) = clashes.iter().find(|clash| batch.cell(row, **clash) != Cell::Missing) {
            let name = &batch.schema().fields[*clash].name;
            return Err(format!("the record has a field '{name}' already: choose another name"));
        }
        let column = &self.config.column;
        let mut items = match cell {
            Cell::Null | Cell::Missing | Cell::Unchanged => Vec::new(),
            Cell::List(items) => items.to_vec(),
            Cell::Json(text) | Cell::Text(text) => items(text).map_err(|why| format!("column '{column}' {why}"))?,
            cell => {
                return Err(format!(
                    "column '{column}' is no list: '{}'",
                    shorten(&cell.to_string())
                ));
            }
        };
        if items.is_empty() && self.config.keep_empty {
            items.push(Value::Null);
        }
        let others = (0..batch.columns().len()).filter(|other| *other != place);
        let beside: usize = others.map(|other| batch.cell(row, other).size_hint()).sum();
        let bytes = beside.saturating_mul(items.len()).saturating_add(cell.size_hint());
        let is_too_much = all.rows.len() + items.len() > ROWS_MAX || all.bytes + bytes > UNNESTED_BYTES_MAX;
        if is_too_much {
            return Err(format!(
                "its list of {} items is too much for one batch: {ROWS_MAX} records or {UNNESTED_BYTES_MAX} bytes",
                items.len()
            ));
        }
        all.bytes += bytes;
        all.rows.extend(std::iter::repeat_n(row, items.len()));
        all.places
            .extend((0..items.len()).map(|place| Value::I64(place as i64)));
        let more = items.len().saturating_sub(1);
        all.items.append(&mut items);
        Ok(more)
    }

    fn assemble(&self, batch: &Batch, (place, clashes): (usize, &[usize]), all: Items) -> Result<Batch, Fault> {
        // Without the lists: each would be taken as often as it has items.
        let mut fields = batch.schema().fields.clone();
        let mut columns = batch.columns().to_vec();
        let nothing = Field {
            key: fields[place].key,
            ..Field::new(&self.config.column, Type::Any)
        };
        columns[place] = sparse_column(batch.rows(), (&[], &[]), &nothing)?;
        fields[place] = nothing;
        let taken = reshaped(batch, fields, columns)?.take(&all.rows);
        let mut fields = taken.schema().fields.clone();
        let mut columns = taken.columns().to_vec();
        let has_key = fields.iter().any(|field| field.key);
        if self.config.index.is_none() {
            fields.iter_mut().for_each(|field| field.key = false);
        }
        let name = self.config.item.as_ref().unwrap_or(&self.config.column);
        let item = Field::new(name, common_type(&all.items));
        columns[place] = column(&all.items, &item)?;
        fields[place] = item;
        // From the last, so that places stay what they are. No record that goes on has anything there.
        for clash in clashes.iter().rev() {
            fields.remove(*clash);
            columns.remove(*clash);
        }
        if let Some(name) = &self.config.index {
            let index = Field {
                key: has_key,
                ..Field::new(name, Type::I64)
            };
            columns.push(column(&all.places, &index)?);
            fields.push(index);
        }
        reshaped(&taken, fields, columns)
    }
}

#[cfg(test)]
mod tests {
    use bus_schema::data::{BatchBuilder, Origin, Schema};

    use super::*;
    use crate::testing::{check, check_config, shown, shown_schema, table, transform};

    #[test]
    fn items_become_records() {
        let input = table(
            &["k:i64", "v:json", "t:text"],
            &[
                "1|[10, 2.5, null]|a",
                "2|[]|b",
                "3|~|c",
                r#"4|[{"x": 1}, [1, 2], "z"]|d"#,
                "5|7|e",
                "6|?|f",
            ],
        );
        for (config, kept, made) in [
            (
                r#"{"column": "v"}"#,
                "1|10|a\n1|2.5|a\n1|~|a\n4|{\"x\": 1}|d\n4|[1,2]|d\n4|z|d",
                4,
            ),
            (
                r#"{"column": "v", "keep_empty": true, "index": "at"}"#,
                "1|10|a|0\n1|2.5|a|1\n1|~|a|2\n2|~|b|0\n3|~|c|0\n4|{\"x\": 1}|d|0\n4|[1,2]|d|1\n4|z|d|2\n6|~|f|0",
                4,
            ),
        ] {
            check(&UNNEST, config, input.clone(), kept, "4: column 'v' is no list: '7'");
            let mut unnest = transform(&UNNEST, config);
            unnest.apply(input.clone()).unwrap();
            assert_eq!(unnest.made(), made, "{config}");
        }
    }

    #[test]
    fn texts_may_hold_lists() {
        let input = table(&["t:text"], &["[1,2]", "[1", "a"]);
        let rejected = "1: column 't' is not JSON\n2: column 't' is not JSON";
        check(&UNNEST, r#"{"column": "t"}"#, input, "1\n2", rejected);
    }

    #[test]
    fn columns_are_as_said() {
        let input = table(&["k:i64", "v:json"], &["1|[1,2]"]);
        for (config, schema, rows) in [
            (r#"{"column": "v"}"#, "k:i64 v:i64", "1|1\n1|2"),
            (r#"{"column": "v", "item": "n"}"#, "k:i64 n:i64", "1|1\n1|2"),
            (r#"{"column": "x"}"#, "k:i64 v:json", ""),
            (r#"{"column": "x", "keep_empty": true}"#, "k:i64 v:json", "1|[1,2]"),
        ] {
            let done = transform(&UNNEST, config).apply(input.clone()).unwrap();
            assert_eq!(
                (shown_schema(&done.batch).as_str(), shown(&done.batch).as_str()),
                (schema, rows),
                "{config}"
            );
        }
    }

    #[test]
    fn who_has_the_name_already_is_rejected_and_its_neighbours_pass() {
        let input = table(&["k:i64", "v:json", "n:i64"], &["1|[1,2]|?", "2|[3]|7", "3|[4]|~"]);
        let rejected =
            "1: the record has a field 'n' already: choose another name\n2: the record has a field 'n' already";
        for (config, schema, kept) in [
            (r#"{"column": "v", "item": "n"}"#, "k:i64 n:i64", "1|1\n1|2"),
            (r#"{"column": "v", "index": "n"}"#, "k:i64 v:i64 n:i64", "1|1|0\n1|2|1"),
        ] {
            check(&UNNEST, config, input.clone(), kept, rejected);
            let done = transform(&UNNEST, config).apply(input.clone()).unwrap();
            assert_eq!(shown_schema(&done.batch), schema, "{config}");
        }
    }

    #[test]
    fn a_list_that_is_not_told_is_not_empty() {
        let input = table(&["k:i64", "v:json"], &["1|=", "2|[5]"]);
        for config in [
            r#"{"column": "v"}"#,
            r#"{"column": "v", "keep_empty": true, "index": "at"}"#,
        ] {
            let kept = if config.contains("index") { "2|5|0" } else { "2|5" };
            let rejected =
                "0: the update does not say what 'v' is, since it did not change: have the source send whole rows";
            check(&UNNEST, config, input.clone(), kept, rejected);
            let mut builder = BatchBuilder::new(input.schema().clone());
            builder.push(Op::Update, &[Cell::I64(1), Cell::Missing]).unwrap();
            builder.push(Op::Update, &[Cell::I64(2), Cell::Json("[5]")]).unwrap();
            check(&UNNEST, config, builder.finish(Origin::default()), kept, rejected);
            // Nor where no record of the batch has the column.
            let mut builder = BatchBuilder::new(table(&["k:i64"], &[]).schema().clone());
            builder.push(Op::Update, &[Cell::I64(1)]).unwrap();
            builder.push(Op::Insert, &[Cell::I64(2)]).unwrap();
            let kept = if config.contains("keep_empty") { "2" } else { "" };
            check(&UNNEST, config, builder.finish(Origin::default()), kept, rejected);
        }
    }

    #[test]
    fn a_key_stays_one_only_with_the_place() {
        let schema = Schema {
            collection: "t".into(),
            fields: vec![Field::new("k", Type::I64).key(), Field::new("v", Type::Json)],
        };
        let mut builder = BatchBuilder::new(schema.into());
        for (op, list) in [(Op::Upsert, Cell::Json("[1, 2]")), (Op::Delete, Cell::Missing)] {
            builder.push(op, &[Cell::I64(1), list]).unwrap();
        }
        let input = builder.finish(Origin::default());
        for (config, keys) in [
            (r#"{"column": "v"}"#, &[][..]),
            (r#"{"column": "v", "index": "at"}"#, &["k", "at"]),
        ] {
            let done = transform(&UNNEST, config).apply(input.clone()).unwrap();
            let fields = &done.batch.schema().fields;
            let found: Vec<&str> = fields.iter().filter(|f| f.key).map(|f| f.name.as_str()).collect();
            assert_eq!(found, keys, "{config}");
            assert_eq!((done.batch.op(1), done.rejected.len()), (Op::Upsert, 1));
        }
    }

    #[test]
    fn too_much_is_rejected_and_its_neighbours_pass() {
        let list = |items: usize| format!("[{}]", vec!["1"; items].join(","));
        let wide = "x".repeat(UNNESTED_BYTES_MAX / 100);
        let rows = [
            format!("{}|a", list(ROWS_MAX)),
            format!("{}|b", list(1)),
            format!("{}|{wide}", list(100)),
            format!("{}|c", list(2)),
        ];
        let rows: Vec<&str> = rows.iter().map(String::as_str).collect();
        let config = r#"{"column": "v"}"#;
        let columns = &["v:json", "t:text"];
        let done = transform(&UNNEST, config).apply(table(columns, &rows)).unwrap();
        let rejected = |done: &Transformed| done.rejected.iter().map(|(row, _)| *row).collect::<Vec<_>>();
        assert_eq!((done.batch.rows(), rejected(&done)), (ROWS_MAX, vec![1, 2, 3]));
        let done = transform(&UNNEST, config).apply(table(columns, &rows[1..])).unwrap();
        assert_eq!((done.batch.rows(), rejected(&done)), (3, vec![1]));
    }

    #[test]
    fn mistakes_are_named() {
        for (config, wanted) in [
            ("{}", "missing field `column`"),
            (r#"{"column": "a", "index": "a"}"#, "index: it needs a name"),
            (r#"{"column": "a", "items": "a"}"#, "unknown field `items`"),
        ] {
            check_config(&UNNEST, config, wanted);
        }
    }
}
