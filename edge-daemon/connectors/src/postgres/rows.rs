//! Rows on their way: a run of records that do the same becomes one statement with an array per column. Rows that
//! PostgreSQL refuses are found by halving.

use std::{error, ops::Range};

use bus_schema::data::{Batch, Cell, Op, Type};
use bytes::{BufMut, BytesMut};
use flow::Fault;
use tokio_postgres::{
    Statement,
    types::{IsNull, ToSql, to_sql_checked},
};

use super::{
    Settings,
    connect::explain,
    encode::{Wire, write_value},
    error::{concerns_row, fault},
    session::Session,
    table::{Column, Plan, Target, quote},
};
use crate::write_mode::unknown;

/// A row that cannot be written, and why.
pub(super) type Refusal = (usize, String);

/// Consecutive records that do the same with the same columns.
struct Run {
    op: Op,
    /// Columns of the batch, in order.
    columns: Vec<usize>,
    rows: Range<usize>,
}

/// The values of one column, one after the other in their binary form.
struct Values {
    wire: Wire,
    bytes: Vec<u8>,
    /// Where each value ends.
    ends: Vec<usize>,
}

/// A part of the values, as an array parameter.
#[derive(Debug)]
struct Array<'a> {
    element: u32,
    count: i32,
    bytes: &'a [u8],
}

impl ToSql for Array<'_> {
    /// One dimension from 1, of elements that may be null (`array_recv` in PostgreSQL's `arrayfuncs.c`).
    fn to_sql(
        &self,
        _: &tokio_postgres::types::Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn error::Error + Sync + Send>> {
        for header in [1, 1, self.element as i32, self.count, 1] {
            out.put_i32(header);
        }
        out.put_slice(self.bytes);
        Ok(IsNull::No)
    }

    /// The statements' own casts make every parameter the right array.
    fn accepts(_: &tokio_postgres::types::Type) -> bool {
        true
    }

    to_sql_checked!();
}

/// Writes all rows of a batch; returns those that cannot be written.
pub(super) async fn write_batch(
    session: &mut Session,
    settings: &Settings,
    plan: &Plan,
    batch: &Batch,
) -> Result<Vec<Refusal>, Fault> {
    let mut refused = Vec::new();
    for run in runs(settings, plan, batch, &mut refused) {
        write_run(session, settings, plan, batch, &run, &mut refused).await?;
    }
    refused.sort_by_key(|(row, _)| *row);
    Ok(refused)
}

/// Cuts the batch into runs, leaving out rows that cannot be written whatever the database says.
fn runs(settings: &Settings, plan: &Plan, batch: &Batch, refused: &mut Vec<Refusal>) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    let whole = (0..plan.targets.len()).all(|index| {
        matches!(plan.targets[index], Target::Column(_) | Target::Generated) && batch.columns()[index].is_dense()
    });
    for row in 0..batch.rows() {
        let is_partial = !whole && unknown_of(plan, batch, row).is_some();
        let op = settings.mode.effective(batch.op(row), is_partial);
        if let Some(run) = runs.last_mut()
            && whole
            && run.op == op
            && run.rows.end == row
        {
            run.rows.end += 1;
            continue;
        }
        match columns(plan, batch, row, op) {
            Err(reason) => refused.push((row, reason)),
            Ok(columns) => match runs.last_mut() {
                Some(run) if run.op == op && run.rows.end == row && run.columns == columns => run.rows.end += 1,
                _ => runs.push(Run {
                    op,
                    columns,
                    rows: row..row + 1,
                }),
            },
        }
    }
    runs
}

/// The name of a column of the table whose value a record does not say, only that it did not change.
fn unknown_of<'a>(plan: &'a Plan, batch: &Batch, row: usize) -> Option<&'a str> {
    let is_written = |index: usize| matches!(plan.targets.get(index), Some(Target::Column(_)));
    let field = plan.schema.fields.get(unknown(batch, row, is_written)?)?;
    Some(&field.name)
}

/// The columns of the batch a record's statement has; or why there is no statement for it.
fn columns(plan: &Plan, batch: &Batch, row: usize, op: Op) -> Result<Vec<usize>, String> {
    let given = |index: usize| !matches!(batch.cell(row, index), Cell::Missing | Cell::Unchanged);
    if op != Op::Insert {
        if plan.keys.is_empty() {
            return Err("an update, upsert or delete needs key columns, and the record has none: set key".to_string());
        }
        if let Some(key) = plan.keys.iter().find(|key| !batch.cell(row, **key).is_value()) {
            return Err(format!(
                "the key column '{}' has no value",
                plan.schema.fields[*key].name
            ));
        }
    }
    let mut columns = Vec::with_capacity(plan.targets.len());
    for (index, target) in plan.targets.iter().enumerate() {
        match target {
            Target::Refused(reason) if given(index) => return Err(reason.clone()),
            Target::Column(_) if given(index) => columns.push(index),
            _ => {}
        }
    }
    match op {
        Op::Delete => Ok(plan.keys.clone()),
        _ if columns.is_empty() => Err("the record has a value for none of the table's columns".to_string()),
        _ => Ok(columns),
    }
}

async fn write_run(
    session: &mut Session,
    settings: &Settings,
    plan: &Plan,
    batch: &Batch,
    run: &Run,
    refused: &mut Vec<Refusal>,
) -> Result<(), Fault> {
    let (values, rows) = encode(plan, batch, run, refused);
    let sql = statement(run.op, settings, plan, run, &values);
    let prepared = session.prepare(&sql).await?;
    let mut change = None;

    // Depth first and the lower half first, so that rows are written in their order.
    let mut ranges = Vec::new();
    ranges.push(0..rows.len());
    while let Some(range) = ranges.pop() {
        if range.is_empty() {
            continue;
        }
        let arrays: Vec<Array<'_>> = values.iter().map(|values| values.array(range.clone())).collect();
        let reason = match session.execute_behind_savepoint(&prepared, &arrays).await? {
            // An update that finds no row. A table without unique key may have more rows than were asked for.
            Ok(changed) if run.op == Op::Update && changed < range.len() as u64 => {
                session.undo().await?;
                let row = rows.get(range.start).copied().unwrap_or_default();
                settings.mode.no_row(batch.op(row), unknown_of(plan, batch, row))
            }
            Ok(_) => continue,
            Err(error) if concerns_row(&error) => {
                session.undo().await?;
                explain(&error)
            }
            Err(error) => return Err(fault("write rows", &error)),
        };
        if range.len() == 1 {
            // What a new row would lack is looked at before the one that is there is looked for.
            if run.op == Op::Upsert {
                if change.is_none() {
                    change = Some(
                        session
                            .prepare(&statement(Op::Update, settings, plan, run, &values))
                            .await?,
                    );
                }
                if let Some(change) = &change
                    && changes_row(session, change, &arrays).await?
                {
                    continue;
                }
            }
            refused.push((rows[range.start], reason));
        } else {
            let middle = range.start + range.len() / 2;
            ranges.push(middle..range.end);
            ranges.push(range.start..middle);
        }
    }
    Ok(())
}

/// Whether an update finds its row and is taken. Nothing is left of it otherwise.
async fn changes_row(session: &mut Session, change: &Statement, arrays: &[Array<'_>]) -> Result<bool, Fault> {
    match session.execute_behind_savepoint(change, arrays).await? {
        Ok(changed) => Ok(changed > 0),
        Err(error) if concerns_row(&error) => session.undo().await.map(|()| false),
        Err(error) => Err(fault("write rows", &error)),
    }
}

/// The values of a run in binary form, and the rows they are of: those that fit the table's columns.
fn encode(plan: &Plan, batch: &Batch, run: &Run, refused: &mut Vec<Refusal>) -> (Vec<Values>, Vec<usize>) {
    let mut values: Vec<Values> = run
        .columns
        .iter()
        .map(|index| Values::new(plan, batch, *index))
        .collect();
    let mut rows = Vec::with_capacity(run.rows.len());
    for row in run.rows.clone() {
        let mut fit = Ok(());
        for (values, index) in values.iter_mut().zip(&run.columns) {
            let Target::Column(column) = &plan.targets[*index] else {
                continue;
            };
            let cell = batch.cell(row, *index);
            fit = write_value(cell, values.wire, &column.name, &column.notes, &mut values.bytes)
                .map_err(|reason| format!("column '{}': {reason}", column.name));
            if fit.is_err() {
                break;
            }
            values.ends.push(values.bytes.len());
        }
        match fit {
            Ok(()) => rows.push(row),
            Err(reason) => {
                values.iter_mut().for_each(|values| values.cut(rows.len()));
                refused.push((row, reason));
            }
        }
    }
    (values, rows)
}

impl Values {
    fn new(plan: &Plan, batch: &Batch, index: usize) -> Self {
        let native = match &plan.targets[index] {
            Target::Column(Column { wire, .. }) => *wire,
            _ => Wire::Read,
        };
        let is_text = |row| {
            matches!(
                batch.cell(row, index),
                Cell::Text(_) | Cell::Null | Cell::Missing | Cell::Unchanged
            )
        };
        let text = match batch.schema().fields[index].ty {
            Type::Text => true,
            Type::Any => (0..batch.rows()).all(is_text),
            _ => false,
        };
        let wire = if text { native.for_text() } else { native };
        Self {
            wire,
            bytes: Vec::new(),
            ends: Vec::new(),
        }
    }

    fn cut(&mut self, rows: usize) {
        self.ends.truncate(rows);
        self.bytes.truncate(self.ends.last().copied().unwrap_or(0));
    }

    fn array(&self, range: Range<usize>) -> Array<'_> {
        let start = if range.start == 0 {
            0
        } else {
            self.ends[range.start - 1]
        };
        let bytes = &self.bytes[start..self.ends[range.end - 1]];
        Array {
            element: self.wire.element().0,
            count: range.len() as i32,
            bytes,
        }
    }
}

/// The statement that does `op` with the rows of a run. Its parameters are one array per column.
fn statement(op: Op, settings: &Settings, plan: &Plan, run: &Run, values: &[Values]) -> String {
    let table = settings.relation();
    let column = |index: &usize| match &plan.targets[*index] {
        Target::Column(column) => quote(&column.name),
        _ => "NULL".to_string(),
    };
    let list = |items: &mut dyn Iterator<Item = String>| items.collect::<Vec<_>>().join(", ");
    let is_key = |index: &usize| plan.keys.contains(index);
    let names = list(&mut run.columns.iter().map(column));
    let others: Vec<(usize, &usize)> = run
        .columns
        .iter()
        .enumerate()
        .filter(|(_, index)| !is_key(index))
        .collect();
    let keys: Vec<(usize, &usize)> = run
        .columns
        .iter()
        .enumerate()
        .filter(|(_, index)| is_key(index))
        .collect();

    let parameters = list(
        &mut values
            .iter()
            .enumerate()
            .map(|(at, v)| format!("${}::{}[]", at + 1, v.wire.element().1)),
    );
    let inner = list(&mut (0..values.len()).map(|at| format!("c{at}")));
    let value = |at: usize| match (&plan.targets[run.columns[at]], values[at].wire) {
        (Target::Column(column), Wire::Read | Wire::ReadArray) => format!("u.c{at}::{}", column.cast),
        _ => format!("u.c{at}"),
    };
    let outer = list(&mut (0..values.len()).map(|at| format!("{} AS c{at}", value(at))));
    // Where rows of a run have the same key the last one counts, as if they came one after the other.
    let key_values = list(&mut keys.iter().map(|(at, _)| value(*at)));
    let last = format!(
        "(SELECT DISTINCT ON ({key_values}) {outer} \
         FROM unnest({parameters}) WITH ORDINALITY AS u({inner}, n) ORDER BY {key_values}, u.n DESC) AS s"
    );
    let all = list(&mut (0..values.len()).map(|at| format!("s.c{at}")));
    let sets = |source: &dyn Fn(usize, &usize) -> String| {
        others
            .iter()
            .map(|(at, index)| format!("{} = {}", column(index), source(*at, index)))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let matches = keys
        .iter()
        .map(|(at, index)| format!("t.{} = s.c{at}", column(index)))
        .collect::<Vec<_>>()
        .join(" AND ");
    match op {
        // OVERRIDING: a column GENERATED ALWAYS AS IDENTITY takes the value it is given.
        Op::Insert => format!(
            "INSERT INTO {table} ({names}) OVERRIDING SYSTEM VALUE SELECT {} FROM unnest({parameters}) AS u({inner})",
            list(&mut (0..values.len()).map(value))
        ),
        Op::Upsert => {
            let sets = sets(&|_, index| format!("EXCLUDED.{}", column(index)));
            let action = if sets.is_empty() {
                "NOTHING".to_string()
            } else {
                format!("UPDATE SET {sets}")
            };
            let keys = list(&mut plan.keys.iter().map(column));
            format!(
                "INSERT INTO {table} ({names}) OVERRIDING SYSTEM VALUE SELECT {all} FROM {last} ON CONFLICT ({keys}) DO {action}"
            )
        }
        Op::Update => {
            let mut sets = sets(&|at, _| format!("s.c{at}"));
            if sets.is_empty() {
                // Nothing changes, but whether the row is there still has to be found out.
                sets = keys
                    .first()
                    .map(|(_, index)| format!("{0} = t.{0}", column(index)))
                    .unwrap_or_default();
            }
            format!("UPDATE {table} AS t SET {sets} FROM {last} WHERE {matches}")
        }
        Op::Delete => format!("DELETE FROM {table} AS t USING {last} WHERE {matches}"),
    }
}
