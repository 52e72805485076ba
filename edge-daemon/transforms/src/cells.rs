//! What transforms that work on single columns share: new values row by row, rejected rows left out, columns put into a
//! batch. Knows nothing of what the values mean.

use std::sync::Arc;

use bus_schema::data::{Batch, Column, Field, Schema, Type, Value};
use flow::{ConfigError, Fault};

use crate::expression::rescaled;

/// How many bytes larger a batch may become.
const GROWTH_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Values of the new columns of one batch at most, where their number is not that of its rows: what is more goes on in another
/// batch ([`flow::Transform::left`]).
pub(crate) const NEW_CELLS_MAX: usize = 256 * 1024;

/// Rows that cannot go on, in order, each with the reason.
pub(crate) type RejectedRows = Vec<(usize, String)>;

/// `width` new values for every row: the values of each column for the rows for which all of them were had, and the other
/// rows. `value` is asked for a row and a column of the new ones.
pub(crate) fn compute(
    rows: usize,
    width: usize,
    mut value: impl FnMut(usize, usize) -> Result<Value, String>,
) -> (Vec<Vec<Value>>, RejectedRows) {
    let mut results: Vec<Vec<Value>> = (0..width).map(|_| Vec::with_capacity(rows)).collect();
    let mut rejected = Vec::new();
    for row in 0..rows {
        for index in 0..width {
            match value(row, index) {
                Ok(value) => results[index].push(value),
                Err(reason) => {
                    // Takes back what the columns before this one got.
                    results[..index]
                        .iter_mut()
                        .for_each(|values| values.truncate(values.len() - 1));
                    rejected.push((row, reason));
                    break;
                }
            }
        }
    }
    (results, rejected)
}

/// The same, of values that may be much larger than what they are made of: rows are rejected that would make the batch larger
/// by more than 16 MiB.
pub(crate) fn compute_bounded(
    batch: &Batch,
    width: usize,
    mut value: impl FnMut(usize, usize) -> Result<Value, String>,
) -> (Vec<Vec<Value>>, RejectedRows) {
    let mut room = batch.about_bytes() + GROWTH_BYTES_MAX;
    let mut room_before = room;
    compute(batch.rows(), width, |row, index| {
        if index == 0 {
            room_before = room;
        }
        let bounded = value(row, index).and_then(|value| {
            let bytes = match &value {
                Value::Text(text) | Value::Json(text) => text.len(),
                Value::Bytes(bytes) => bytes.len(),
                Value::List(_) => value.as_cell().size_hint(),
                // As small as any other.
                _ => return Ok(value),
            };
            let too_large = || format!("would make the batch larger by more than {GROWTH_BYTES_MAX} bytes");
            room = room.checked_sub(bytes).ok_or_else(too_large)?;
            Ok(value)
        });
        if bounded.is_err() {
            // The row goes with all that it had by now.
            room = room_before;
        }
        bounded
    })
}

/// Why a row whose value did not change cannot be made into something that takes all of it.
pub(crate) fn untold(column: &str) -> String {
    format!(
        "the update does not say what '{column}' is, since it did not change: have the source send whole rows \
         (PostgreSQL: ALTER TABLE … REPLICA IDENTITY FULL)"
    )
}

/// The batch without its rejected rows, which are in order.
pub(crate) fn without(batch: Batch, rejected: &[(usize, String)]) -> Batch {
    if rejected.is_empty() {
        return batch;
    }
    let is_rejected = |row: &usize| rejected.binary_search_by_key(row, |(row, _)| *row).is_ok();
    batch.take(&(0..batch.rows()).filter(|row| !is_rejected(row)).collect::<Vec<_>>())
}

/// Puts columns into a batch: one of the same name is replaced in its place and stays part of the key if it was; others
/// come last. There is a value for each row.
pub(crate) fn put(batch: &Batch, new: impl IntoIterator<Item = (Field, Vec<Value>)>) -> Result<Batch, Fault> {
    let mut fields = batch.schema().fields.clone();
    let mut columns = batch.columns().to_vec();
    for (field, values) in new {
        let column = column(&values, &field)?;
        match fields.iter().position(|known| known.name == field.name) {
            Some(place) => {
                fields[place] = Field {
                    key: fields[place].key,
                    ..field
                };
                columns[place] = column;
            }
            None => {
                fields.push(field);
                columns.push(column);
            }
        }
    }
    reshaped(batch, fields, columns)
}

/// The same rows with these columns.
pub(crate) fn reshaped(batch: &Batch, fields: Vec<Field>, columns: Vec<Column>) -> Result<Batch, Fault> {
    let schema = Schema {
        collection: batch.schema().collection.clone(),
        fields,
    };
    batch
        .with_columns(Arc::new(schema), columns)
        .map_err(|error| Fault::stop(error.to_string()))
}

/// A column of these values.
pub(crate) fn column(values: &[Value], field: &Field) -> Result<Column, Fault> {
    wrong_column(filled(values, &field.ty), field)
}

/// A column of so many rows, most of which may have no value: of those with one the values, in order.
pub(crate) fn sparse_column(rows: usize, (at, values): (&[usize], &[Value]), field: &Field) -> Result<Column, Fault> {
    const NONE: &Value = &Value::Missing;
    let mut known = at.iter().zip(values).peekable();
    let all = (0..rows).map(|row| known.next_if(|(at, _)| **at == row).map_or(NONE, |(_, value)| value));
    wrong_column(filled(all, &field.ty), field)
}

fn wrong_column(column: Result<Column, String>, field: &Field) -> Result<Column, Fault> {
    column.map_err(|cause| Fault::stop(format!("column '{}': {cause}", field.name)))
}

fn filled<'a>(values: impl IntoIterator<Item = &'a Value>, ty: &Type) -> Result<Column, String> {
    let mut column = Column::new(ty);
    for value in values {
        let pushed = match ty {
            Type::Decimal { scale, .. } => {
                let value = rescaled(value, *scale).ok_or("a decimal does not fit its column")?;
                column.push(value.as_cell(), ty)
            }
            _ => column.push(value.as_cell(), ty),
        };
        pushed.map_err(|error| error.to_string())?;
    }
    Ok(column)
}

/// Checks a list of column names that must name something, each once.
pub(crate) fn named_columns(key: &str, names: &[String]) -> Result<(), ConfigError> {
    if names.is_empty() {
        return Err(ConfigError::at(key, "name at least one column"));
    }
    match names.iter().enumerate().find(|(at, name)| names[..*at].contains(name)) {
        Some((_, twice)) => Err(ConfigError::at(key, format!("'{twice}' stands here twice"))),
        None => Ok(()),
    }
}

/// Where the named columns stand that a batch has.
pub(crate) fn places(batch: &Batch, names: &[String]) -> Vec<usize> {
    names.iter().filter_map(|name| batch.schema().index_of(name)).collect()
}
