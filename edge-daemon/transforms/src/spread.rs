//! One column becomes many: the named values found in it get columns of their own. Bounded, and never puts a value over one
//! that is there.

use std::collections::HashMap;

use bus_schema::data::{Batch, Cell, Column, Field, Value};
use flow::{Fault, Transformed};

use crate::{
    cells::{RejectedRows, column, reshaped, without},
    expression::common_type,
};

/// Most fields one value may give.
pub(crate) const FIELDS_MAX: usize = 1_000;
/// Most different columns that may come of one batch.
const COLUMNS_MAX: usize = 1_000;

/// Names and values found in a value.
pub(crate) type Found = Vec<(String, Value)>;

/// Puts what `read` finds in the values of the columns at `places` into columns of their own; `read` says why there is
/// nothing to be found in a value. The columns themselves go, unless they are kept or part of the key.
pub(crate) fn spread(
    batch: Batch,
    places: &[usize],
    keep: bool,
    read: impl Fn(usize, Cell<'_>) -> Result<Found, String>,
) -> Result<Transformed, Fault> {
    let fields = batch.schema().fields.clone();
    let stays = |place: usize| keep || fields[place].key || !places.contains(&place);
    let mut names = Names::default();
    let mut rows = Vec::with_capacity(batch.rows());
    let mut rejected = RejectedRows::new();
    for row in 0..batch.rows() {
        let is_taken = |name: &str| (0..fields.len()).any(|place| fields[place].name == name && stays(place));
        match found(&batch, row, places, &read).and_then(|found| names.place(found, is_taken)) {
            Ok(values) => rows.push(values),
            Err(reason) => rejected.push((row, reason)),
        }
    }
    let kept: Vec<usize> = (0..fields.len()).filter(|place| stays(*place)).collect();
    if kept.is_empty() && names.in_order.is_empty() && batch.rows() > 0 {
        // A record without any field cannot be told from no record.
        let reason = "no field would be left".to_string();
        rejected.extend((0..batch.rows()).map(|row| (row, reason.clone())));
        rejected.sort_by_key(|(row, _)| *row);
        rejected.dedup_by_key(|(row, _)| *row);
    }
    let batch = without(batch, &rejected);
    let mut values: Vec<Vec<Value>> = vec![vec![Value::Missing; batch.rows()]; names.in_order.len()];
    for (row, found) in rows.into_iter().take(batch.rows()).enumerate() {
        for (column, value) in found {
            values[column][row] = value;
        }
    }
    let mut columns: Vec<Column> = kept.iter().map(|place| batch.columns()[*place].clone()).collect();
    let mut fields: Vec<Field> = kept.iter().map(|place| fields[*place].clone()).collect();
    for (name, values) in names.in_order.into_iter().zip(values) {
        let field = Field::new(name, common_type(&values));
        columns.push(column(&values, &field)?);
        fields.push(field);
    }
    let batch = reshaped(&batch, fields, columns)?;
    Ok(Transformed { batch, rejected })
}

fn found(
    batch: &Batch,
    row: usize,
    places: &[usize],
    read: &impl Fn(usize, Cell<'_>) -> Result<Found, String>,
) -> Result<Found, String> {
    let mut all = Found::new();
    for place in places {
        let cell = batch.cell(row, *place);
        if cell.is_value() {
            let found = read(*place, cell);
            all.extend(found.map_err(|why| format!("column '{}' {why}", batch.schema().fields[*place].name))?);
        }
    }
    Ok(all)
}

/// The columns that came of a batch so far, in the order in which they were first seen.
#[derive(Default)]
struct Names {
    in_order: Vec<String>,
    places: HashMap<String, usize>,
}

impl Names {
    /// Gives each name a column, or says why not; then nothing has changed.
    fn place(&mut self, found: Found, is_taken: impl Fn(&str) -> bool) -> Result<Vec<(usize, Value)>, String> {
        let before = self.in_order.len();
        let mut values: Vec<(usize, Value)> = Vec::with_capacity(found.len());
        let mut seen = vec![false; before];
        for (name, value) in found {
            let at = self.places.get(&name).copied();
            let wrong = if name.is_empty() {
                Some("a field without a name came of it".to_string())
            } else if is_taken(&name) {
                Some(format!(
                    "the record has a field '{name}' already: give `prefix` another text"
                ))
            } else if at.is_some_and(|at| seen[at]) {
                Some(format!("two fields '{name}' came of it"))
            } else if at.is_none() && self.in_order.len() >= COLUMNS_MAX {
                Some(format!("more than {COLUMNS_MAX} different fields came of one batch"))
            } else {
                None
            };
            if let Some(wrong) = wrong {
                for name in self.in_order.drain(before..) {
                    self.places.remove(&name);
                }
                return Err(wrong);
            }
            let at = at.unwrap_or_else(|| {
                seen.push(false);
                self.places.insert(name.clone(), self.in_order.len());
                self.in_order.push(name);
                self.in_order.len() - 1
            });
            seen[at] = true;
            values.push((at, value));
        }
        Ok(values)
    }
}
