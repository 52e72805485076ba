//! Rows on their way: a run of records that do the same becomes statements of many rows, within what the server takes in one.
//! Rows that it refuses are found by halving.

use std::ops::Range;

use bus_schema::data::{Batch, Cell, Op};
use flow::Fault;

use super::{
    Settings,
    encode::write_literal,
    session::{SAVEPOINT, Session},
    table::{Plan, Target, quote},
};
use crate::write_mode::unknown;

/// A row that cannot be written, and why.
pub(super) type Refusal = (usize, String);

/// Rows are put together up to this many bytes. A single larger row travels alone.
const STATEMENT_BYTES_TARGET: usize = 512 * 1024;

/// Consecutive records that do the same with the same columns.
struct Run {
    op: Op,
    /// Columns of the batch, in order.
    columns: Vec<usize>,
    rows: Range<usize>,
}

/// Rows as SQL: `(1,'x')`, or what an update says of one.
#[derive(Default)]
struct Encoded {
    bytes: Vec<u8>,
    /// Where each row ends.
    ends: Vec<usize>,
    /// The rows of the batch they are.
    rows: Vec<usize>,
}

impl Encoded {
    fn start(&self, row: usize) -> usize {
        if row == 0 { 0 } else { self.ends[row - 1] }
    }

    fn bytes(&self, rows: Range<usize>) -> &[u8] {
        &self.bytes[self.start(rows.start)..self.start(rows.end)]
    }
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
        if let (Op::Upsert, Some(reason)) = (run.op, &plan.no_upsert) {
            return Err(Fault::retry(reason.clone()));
        }
        write_run(session, settings, plan, batch, run, &mut refused).await?;
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
        for key in &plan.keys {
            let name = &plan.schema.fields[*key].name;
            if !batch.cell(row, *key).is_value() {
                return Err(format!("the key column '{name}' has no value"));
            }
            if !matches!(plan.targets[*key], Target::Column(_)) {
                return Err(format!(
                    "the key column '{name}' is none of the table's that can be written"
                ));
            }
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
    mut run: Run,
    refused: &mut Vec<Refusal>,
) -> Result<(), Fault> {
    let (head, tail) = frame(settings, plan, &run);
    let room = session.statement_max.saturating_sub(head.len() + tail.len());
    let together = room.min(STATEMENT_BYTES_TARGET);
    while !run.rows.is_empty() {
        let encoded = encode(plan, batch, &mut run, together, refused);
        // Depth first and the lower half first, so that rows are written in their order.
        let mut ranges = Vec::new();
        ranges.push(0..encoded.rows.len());
        while let Some(range) = ranges.pop() {
            if range.is_empty() {
                continue;
            }
            let row = encoded.rows[range.start];
            // A row of an update is a statement of its own.
            let alone = range.len() == 1;
            let reason = if run.op == Op::Update && !alone {
                ranges.extend(range.rev().map(|row| row..row + 1));
                continue;
            } else if encoded.bytes(range.clone()).len() > room {
                // One row: more are put together only within the target.
                let max = session.statement_max;
                format!("the record is longer than the {max} bytes the server takes (max_allowed_packet)")
            } else {
                let mut sql = head.clone().into_bytes();
                let rows = encoded.bytes(range.clone());
                sql.extend_from_slice(rows.strip_suffix(b",").unwrap_or(rows));
                sql.extend_from_slice(tail.as_bytes());
                match session.execute(sql).await? {
                    Ok(0) if run.op == Op::Update => settings.mode.no_row(batch.op(row), unknown_of(plan, batch, row)),
                    Ok(_) => continue,
                    Err(reason) => reason,
                }
            };
            if alone {
                // What a new row would lack is looked at before the one that is there is looked for.
                if run.op == Op::Upsert && changes_row(session, settings, plan, batch, &run, row).await? {
                    continue;
                }
                refused.push((row, reason));
            } else {
                let middle = range.start + range.len() / 2;
                ranges.push(middle..range.end);
                ranges.push(range.start..middle);
            }
        }
    }
    Ok(())
}

/// Whether an update with the values of an upsert finds its row and is taken. Nothing is left of it otherwise.
async fn changes_row(
    session: &mut Session,
    settings: &Settings,
    plan: &Plan,
    batch: &Batch,
    run: &Run,
    row: usize,
) -> Result<bool, Fault> {
    let change = Run {
        op: Op::Update,
        columns: run.columns.clone(),
        rows: row..row + 1,
    };
    let mut sql = frame(settings, plan, &change).0.into_bytes();
    if write_row(plan, batch, &change, row, &mut sql).is_err() || sql.len() > session.statement_max {
        return Ok(false);
    }
    Ok(session.execute(sql).await?.is_ok_and(|changed| changed > 0))
}

/// Takes rows from the front of a run, up to `together` bytes of SQL, but at least one; leaves out those that do not fit the
/// table's columns.
fn encode(plan: &Plan, batch: &Batch, run: &mut Run, together: usize, refused: &mut Vec<Refusal>) -> Encoded {
    let mut encoded = Encoded::default();
    while let Some(row) = run.rows.next() {
        let start = encoded.bytes.len();
        if let Err(reason) = write_row(plan, batch, run, row, &mut encoded.bytes) {
            encoded.bytes.truncate(start);
            refused.push((row, reason));
            continue;
        }
        if start > 0 && encoded.bytes.len() > together {
            encoded.bytes.truncate(start);
            run.rows.start = row;
            break;
        }
        encoded.ends.push(encoded.bytes.len());
        encoded.rows.push(row);
    }
    encoded
}

/// Appends one row as its statement has it. Rows of a list end with a comma.
fn write_row(plan: &Plan, batch: &Batch, run: &Run, row: usize, out: &mut Vec<u8>) -> Result<(), String> {
    let value = |index: usize, out: &mut Vec<u8>| match &plan.targets[index] {
        Target::Column(column) => write_literal(batch.cell(row, index), column, out)
            .map_err(|reason| format!("column '{}': {reason}", column.name)),
        _ => Err("a column is missing in the table".to_string()),
    };
    let pairs = |columns: &[usize], between: &str, out: &mut Vec<u8>| -> Result<(), String> {
        for (at, index) in columns.iter().enumerate() {
            out.extend_from_slice(if at > 0 { between.as_bytes() } else { b"" });
            out.extend_from_slice(column(plan, *index).as_bytes());
            out.push(b'=');
            value(*index, out)?;
        }
        Ok(())
    };
    if run.op == Op::Update {
        let others = run.columns.iter().copied().filter(|index| !plan.keys.contains(index));
        let others: Vec<usize> = others.collect();
        // Without others nothing changes, but whether the row is there still has to be found out.
        pairs(if others.is_empty() { &plan.keys } else { &others }, ",", out)?;
        out.extend_from_slice(b" WHERE ");
        return pairs(&plan.keys, " AND ", out);
    }
    for (at, index) in run.columns.iter().enumerate() {
        out.push(if at > 0 { b',' } else { b'(' });
        value(*index, out)?;
    }
    out.extend_from_slice(b"),");
    Ok(())
}

fn column(plan: &Plan, index: usize) -> String {
    match &plan.targets[index] {
        Target::Column(column) => quote(&column.name),
        _ => "NULL".to_string(),
    }
}

/// What stands before and after the rows.
fn frame(settings: &Settings, plan: &Plan, run: &Run) -> (String, String) {
    let table = quote(&settings.table);
    let names = |columns: &[usize]| {
        let names: Vec<String> = columns.iter().map(|index| column(plan, *index)).collect();
        names.join(",")
    };
    let insert = format!("{SAVEPOINT}INSERT INTO {table} ({}) VALUES ", names(&run.columns));
    match run.op {
        Op::Insert => (insert, String::new()),
        Op::Upsert => {
            let others = run.columns.iter().filter(|index| !plan.keys.contains(index));
            let mut sets: Vec<String> = others
                .map(|index| {
                    let name = column(plan, *index);
                    format!("{name}=VALUES({name})")
                })
                .collect();
            if sets.is_empty() {
                sets.extend(plan.keys.first().map(|index| {
                    let name = column(plan, *index);
                    format!("{name}={table}.{name}")
                }));
            }
            (insert, format!(" ON DUPLICATE KEY UPDATE {}", sets.join(",")))
        }
        Op::Update => (format!("{SAVEPOINT}UPDATE {table} SET "), String::new()),
        Op::Delete => (
            format!("{SAVEPOINT}DELETE FROM {table} WHERE ({}) IN (", names(&plan.keys)),
            ")".to_string(),
        ),
    }
}
