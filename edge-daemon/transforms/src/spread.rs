//! One column becomes many: the named values found in it get columns of their own. Bounded, and never puts a value over one
//! that is there.

use std::collections::HashMap;

use bus_schema::{
    data::{Batch, Cell, Column, Field, Value},
    limits::COLUMNS_MAX,
};
use flow::{Fault, Transformed};

use crate::{
    cells::{NEW_CELLS_MAX, RejectedRows, reshaped, sparse_column, without},
    expression::common_type,
};

/// Most fields one value may give.
pub(crate) const FIELDS_MAX: usize = 1_000;

/// Names and values found in a value.
pub(crate) type Found = Vec<(String, Value)>;

/// Puts what `read` finds in the values of the columns at `places` into columns of their own; `read` says why there is
/// nothing to be found in a value. The columns themselves go, unless they are kept or part of the key. Also how many rows are
/// left, because their fields are too many for one batch with those before them ([`flow::Transform::left`]).
pub(crate) fn spread(
    batch: Batch,
    places: &[usize],
    keep: bool,
    read: impl Fn(usize, Cell<'_>) -> Result<Found, String>,
) -> Result<(Transformed, usize), Fault> {
    let fields = batch.schema().fields.clone();
    let stays = |place: usize| keep || fields[place].key || !places.contains(&place);
    let kept: Vec<usize> = (0..fields.len()).filter(|place| stays(*place)).collect();
    let columns_max = COLUMNS_MAX.saturating_sub(kept.len());
    let mut names = Names::default();
    let (mut rows, mut left) = (0, 0);
    let mut rejected = RejectedRows::new();
    for row in 0..batch.rows() {
        let is_taken = |name: &str| (0..fields.len()).any(|place| fields[place].name == name && stays(place));
        let most = columns_max.min(NEW_CELLS_MAX / (rows + 1));
        match found(&batch, row, places, &read).and_then(|found| names.place(found, (rows, most), is_taken)) {
            Ok(true) => rows += 1,
            Ok(false) if rows > 0 => {
                left = batch.rows() - row;
                break;
            }
            Ok(false) => {
                let reason =
                    format!("more than {columns_max} fields came of it, and a record has {COLUMNS_MAX} at most");
                rejected.push((row, reason));
            }
            Err(reason) => rejected.push((row, reason)),
        }
    }
    let batch = if left > 0 {
        batch.slice(0..batch.rows() - left)
    } else {
        batch
    };
    if kept.is_empty() && names.in_order.is_empty() && batch.rows() > 0 {
        // A record without any field cannot be told from no record.
        let reason = "no field would be left".to_string();
        rejected.extend((0..batch.rows()).map(|row| (row, reason.clone())));
        rejected.sort_by_key(|(row, _)| *row);
        rejected.dedup_by_key(|(row, _)| *row);
    }
    let batch = without(batch, &rejected);
    let mut columns: Vec<Column> = kept.iter().map(|place| batch.columns()[*place].clone()).collect();
    let mut fields: Vec<Field> = kept.iter().map(|place| fields[*place].clone()).collect();
    for New { name, rows, values } in names.in_order {
        let field = Field::new(name, common_type(&values));
        columns.push(sparse_column(batch.rows(), (&rows, &values), &field)?);
        fields.push(field);
    }
    let batch = reshaped(&batch, fields, columns)?;
    Ok((Transformed { batch, rejected }, left))
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

/// A column that came of a batch: the rows with a value there, and their values.
struct New {
    name: String,
    rows: Vec<usize>,
    values: Vec<Value>,
}

/// The columns that came of a batch so far, in the order in which they were first seen.
#[derive(Default)]
struct Names {
    in_order: Vec<New>,
    places: HashMap<String, usize>,
}

impl Names {
    /// Puts the values of a row into columns, of which there may be so many then. `false`: there would be more. An error says
    /// what is wrong with the row. In both cases nothing has changed.
    fn place(
        &mut self,
        found: Found,
        (row, most): (usize, usize),
        is_taken: impl Fn(&str) -> bool,
    ) -> Result<bool, String> {
        let before = self.in_order.len();
        // Without any field it is one row more, of the columns that there are.
        let mut fits = before <= most;
        let mut wrong = None;
        for (name, value) in found {
            let at = self.places.get(&name).copied();
            let has_value = |at: usize| self.in_order[at].rows.last() == Some(&row);
            if name.is_empty() {
                wrong = Some("a field without a name came of it".to_string());
            } else if is_taken(&name) {
                wrong = Some(format!(
                    "the record has a field '{name}' already: give `prefix` another text"
                ));
            } else if at.is_some_and(has_value) {
                wrong = Some(format!("two fields '{name}' came of it"));
            }
            fits &= at.is_some() || self.in_order.len() < most;
            if wrong.is_some() || !fits {
                break;
            }
            let at = at.unwrap_or_else(|| {
                self.places.insert(name.clone(), self.in_order.len());
                self.in_order.push(New {
                    name,
                    rows: Vec::new(),
                    values: Vec::new(),
                });
                self.in_order.len() - 1
            });
            let new = &mut self.in_order[at];
            new.rows.push(row);
            new.values.push(value);
        }
        if fits && wrong.is_none() {
            return Ok(true);
        }
        for new in self.in_order.drain(before..) {
            self.places.remove(&new.name);
        }
        for new in &mut self.in_order {
            if new.rows.last() == Some(&row) {
                new.rows.pop();
                new.values.pop();
            }
        }
        wrong.map_or(Ok(false), Err)
    }
}
