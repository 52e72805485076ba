//! Transforms `select` and `rename`: which columns go on, in what order and under what name. They never look at values.

use std::collections::HashSet;

use bus_schema::{
    data::{Batch, Cell, Column, Field, Value},
    plan::{ComponentRole, Descriptor},
};
use flow::{Build, BuildContext, Component, ConfigError, Fault, Transform, Transformed, describe, parse_config};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    cells::{RejectedRows, column, reshaped, without},
    expression::common_type,
    ordered::Ordered,
};

/// Keeps some columns, or drops some. Give one of the two.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct SelectConfig {
    /// The columns to keep, in this order. One that a batch does not have is missing afterwards too.
    columns: Option<Vec<String>>,
    /// The columns to drop; the others stay in their order.
    except: Option<Vec<String>>,
}

/// Gives columns other names. Where a batch has a column of the new name already, the two become one: a record has what it
/// has in either of them, and one that has both goes to the dead letters.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RenameConfig {
    /// Old name = new name. A column that a batch does not have is passed over.
    columns: Ordered<String>,
}

/// The registry lines.
pub(crate) const SELECT: Component = Component {
    descriptor: select_descriptor,
    build: Build::Transform(build_select),
};
pub(crate) const RENAME: Component = Component {
    descriptor: rename_descriptor,
    build: Build::Transform(build_rename),
};

const SELECT_EXAMPLE: &str = r#"name = "slim"

[sources.readings]
type = "file"
path = "readings.jsonl"
format = "json_lines"

[transforms.slim]
type = "select"
from = "readings"
columns = ["time", "line", "temperature"]

[destinations.out]
type = "stdout"
from = "slim"
"#;

fn select_descriptor() -> Descriptor {
    describe::<SelectConfig>(
        ComponentRole::Transform,
        "select",
        "Keeps some columns, or drops some",
        SELECT_EXAMPLE,
    )
}

const RENAME_EXAMPLE: &str = r#"name = "names"

[sources.readings]
type = "file"
path = "readings.jsonl"
format = "json_lines"

[transforms.names]
type = "rename"
from = "readings"
columns = { temp = "temperature" }

[destinations.out]
type = "stdout"
from = "names"
"#;

fn rename_descriptor() -> Descriptor {
    describe::<RenameConfig>(
        ComponentRole::Transform,
        "rename",
        "Gives columns other names",
        RENAME_EXAMPLE,
    )
}

fn build_select(config: &str, _: &BuildContext) -> Result<Box<dyn Transform>, ConfigError> {
    let config: SelectConfig = parse_config(config)?;
    let (key, names) = match (&config.columns, &config.except) {
        (Some(names), None) => ("columns", names),
        (None, Some(names)) => ("except", names),
        (Some(_), Some(_)) => return Err(ConfigError::at("except", "give either columns or except, not both")),
        (None, None) => {
            return Err(ConfigError::at(
                "columns",
                "say which columns to keep (columns) or to drop (except)",
            ));
        }
    };
    if names.is_empty() {
        return Err(ConfigError::at(key, "name at least one column"));
    }
    if let Some(twice) = first_twice(names.iter()) {
        return Err(ConfigError::at(key, format!("'{twice}' stands here twice")));
    }
    Ok(Box::new(Select {
        keep: config.columns,
        drop: config.except.unwrap_or_default(),
    }))
}

fn build_rename(config: &str, _: &BuildContext) -> Result<Box<dyn Transform>, ConfigError> {
    let config: RenameConfig = parse_config(config)?;
    let pairs = config.columns.0;
    if pairs.is_empty() {
        return Err(ConfigError::at("columns", "name at least one column"));
    }
    if let Some((old, _)) = pairs.iter().find(|(_, new)| new.is_empty()) {
        return Err(ConfigError::at(format!("columns.{old}"), "the new name is empty"));
    }
    if let Some(twice) = first_twice(pairs.iter().map(|(_, new)| new)) {
        return Err(ConfigError::at(
            "columns",
            format!("two columns would be called '{twice}'"),
        ));
    }
    Ok(Box::new(Rename { pairs }))
}

fn first_twice<'a>(mut names: impl Iterator<Item = &'a String>) -> Option<&'a String> {
    let mut seen = HashSet::new();
    names.find(|name| !seen.insert(*name))
}

struct Select {
    keep: Option<Vec<String>>,
    drop: Vec<String>,
}

impl Transform for Select {
    fn apply(&mut self, batch: Batch) -> Result<Transformed, Fault> {
        let schema = batch.schema();
        let places: Vec<usize> = match &self.keep {
            Some(names) => names.iter().filter_map(|name| schema.index_of(name)).collect(),
            None => (0..schema.fields.len())
                .filter(|place| !self.drop.contains(&schema.fields[*place].name))
                .collect(),
        };
        if places.is_empty() && batch.rows() > 0 {
            // A record without any field cannot be told from no record.
            let had = schema
                .fields
                .iter()
                .map(|field| field.name.as_str())
                .collect::<Vec<_>>()
                .join(", ");
            let reason = format!("none of its fields is selected; it has {had}");
            let rejected = (0..batch.rows()).map(|row| (row, reason.clone())).collect();
            return Ok(Transformed {
                batch: batch.take(&[]),
                rejected,
            });
        }
        let fields: Vec<Field> = places.iter().map(|place| schema.fields[*place].clone()).collect();
        let columns: Vec<Column> = places.iter().map(|place| batch.columns()[*place].clone()).collect();
        Ok(reshaped(&batch, fields, columns)?.into())
    }
}

struct Rename {
    pairs: Vec<(String, String)>,
}

impl Transform for Rename {
    fn apply(&mut self, batch: Batch) -> Result<Transformed, Fault> {
        let mut fields = batch.schema().fields.clone();
        for field in &mut fields {
            if let Some((_, new)) = self.pairs.iter().find(|(old, _)| *old == field.name) {
                field.name.clone_from(new);
            }
        }
        if first_twice(fields.iter().map(|field| &field.name)).is_some() {
            return united(batch, fields);
        }
        let columns = batch.columns().to_vec();
        Ok(reshaped(&batch, fields, columns)?.into())
    }
}

/// The batch with these fields for its own, some of which have the same name: these become one column.
fn united(batch: Batch, fields: Vec<Field>) -> Result<Transformed, Fault> {
    let mut groups: Vec<(Field, Vec<usize>)> = Vec::with_capacity(fields.len());
    for (place, field) in fields.into_iter().enumerate() {
        match groups.iter_mut().find(|(known, _)| known.name == field.name) {
            Some((known, places)) => {
                known.key |= field.key;
                known.nullable = true;
                places.push(place);
            }
            None => groups.push((field, vec![place])),
        }
    }
    let mut rejected = RejectedRows::new();
    for row in 0..batch.rows() {
        if let Some(reason) = groups.iter().find_map(|group| has_both(&batch, row, group)) {
            rejected.push((row, reason));
        }
    }
    let batch = without(batch, &rejected);
    let (mut fields, mut columns) = (Vec::with_capacity(groups.len()), Vec::with_capacity(groups.len()));
    for (mut field, places) in groups {
        if let [place] = places.as_slice() {
            columns.push(batch.columns()[*place].clone());
        } else {
            let had = |row| places.iter().map(move |place| (row, *place));
            let value = |row| {
                let mut cells = had(row).map(|(row, place)| batch.cell(row, place));
                cells
                    .find(|cell| *cell != Cell::Missing)
                    .map_or(Value::Missing, |cell| cell.to_value())
            };
            let values: Vec<Value> = (0..batch.rows()).map(value).collect();
            let types = places.iter().map(|place| &batch.schema().fields[*place].ty);
            if types.clone().any(|ty| *ty != field.ty) {
                field.ty = common_type(&values);
            }
            columns.push(column(&values, &field)?);
        }
        fields.push(field);
    }
    Ok(Transformed {
        batch: reshaped(&batch, fields, columns)?,
        rejected,
    })
}

/// Why a row cannot have these columns as one, if it cannot.
fn has_both(batch: &Batch, row: usize, (field, places): &(Field, Vec<usize>)) -> Option<String> {
    let mut had = places.iter().filter(|place| batch.cell(row, **place) != Cell::Missing);
    let (one, other) = (had.next()?, had.next()?);
    let name = |place: &usize| &batch.schema().fields[*place].name;
    Some(format!(
        "the record has '{}' and '{}', which would both be called '{}': drop or rename one of them before",
        name(one),
        name(other),
        field.name
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check, check_config, shown, shown_schema, table, transform};

    #[test]
    fn shapes() {
        let input = table(&["a:i64", "b:text", "c:bool"], &["1|x|true", "~|?|="]);
        for (component, config, schema, rows) in [
            (&SELECT, r#"{"columns": ["c", "a"]}"#, "c:bool a:i64", "true|1\n=|~"),
            (&SELECT, r#"{"columns": ["b", "none"]}"#, "b:text", "x\n?"),
            (&SELECT, r#"{"except": ["b", "none"]}"#, "a:i64 c:bool", "1|true\n~|="),
            (
                &RENAME,
                r#"{"columns": {"a": "b", "b": "a"}}"#,
                "b:i64 a:text c:bool",
                "1|x|true\n~|?|=",
            ),
            (
                &RENAME,
                r#"{"columns": {"none": "z", "c": "d"}}"#,
                "a:i64 b:text d:bool",
                "1|x|true\n~|?|=",
            ),
        ] {
            let done = transform(component, config).apply(input.clone()).unwrap();
            assert_eq!(
                (shown_schema(&done.batch).as_str(), shown(&done.batch).as_str()),
                (schema, rows),
                "{config}"
            );
            assert!(done.rejected.is_empty());
        }
        check(
            &SELECT,
            r#"{"columns": ["none"]}"#,
            input.clone(),
            "",
            "0: none of its fields is selected\n1: none",
        );
    }

    #[test]
    fn two_columns_of_one_name_are_one() {
        let config = r#"{"columns": {"temp": "temperature"}}"#;
        let rows = &["1|?|x", "?|2|y", "?|?|z", "3|4|w", "~|?|v"];
        for (columns, schema, kept) in [
            (
                &["temp:i64", "temperature:i64", "t:text"],
                "temperature:i64 t:text",
                "1|x\n2|y\n?|z\n~|v",
            ),
            (
                &["temp:i64", "temperature:text", "t:text"],
                "temperature:any t:text",
                "1|x\n2|y\n?|z\n~|v",
            ),
        ] {
            let input = table(columns, rows);
            let both = "3: the record has 'temp' and 'temperature', which would both be called 'temperature'";
            check(&RENAME, config, input.clone(), kept, both);
            let done = transform(&RENAME, config).apply(input).unwrap();
            assert_eq!(shown_schema(&done.batch), schema);
        }
        // Also among columns that all get other names.
        let input = table(&["a:i64", "b:i64", "c:i64"], &["1|2|?", "?|?|3"]);
        check(&RENAME, r#"{"columns": {"a": "b", "b": "c"}}"#, input, "1|2\n?|3", "");
    }

    #[test]
    fn mistakes_are_named() {
        for (component, config, wanted) in [
            (&SELECT, r#"{}"#, "columns: say which"),
            (&SELECT, r#"{"columns": ["a"], "except": ["b"]}"#, "except: give either"),
            (&SELECT, r#"{"columns": []}"#, "columns: name at least one"),
            (&SELECT, r#"{"except": ["a", "a"]}"#, "except: 'a' stands here twice"),
            (&RENAME, r#"{"columns": {}}"#, "columns: name at least one"),
            (&RENAME, r#"{"columns": {"a": ""}}"#, "columns.a: the new name is empty"),
            (
                &RENAME,
                r#"{"columns": {"a": "x", "b": "x"}}"#,
                "columns: two columns would be called 'x'",
            ),
        ] {
            check_config(component, config, wanted);
        }
    }
}
