//! The open destination database: one connection, one transaction at a time, rows and watermark together. Everything
//! here blocks.

use std::{path::PathBuf, sync::Arc, time::Duration};

use bus_schema::{
    data::{Batch, Cell, Op, Schema},
    id::StreamId,
};
use flow::{Counts, Delivery, Fault, Position, Watermark};
use rusqlite::{CachedStatement, Connection, ErrorCode, OpenFlags, OptionalExtension};

use super::{
    TableInfo, fault,
    statements::Shape,
    table::{Plan, Target, no_table},
};
use crate::write_mode::{WriteMode, unknown};

/// The table that keeps how far each stream has come.
pub(super) const WATERMARK_TABLE: &str = "_mycelial_watermark";
/// How long to wait for another process's write transaction.
const BUSY_WAIT: Duration = Duration::from_secs(5);
/// SQLite's page cache, in KiB.
const CACHE_KIB: i64 = 1024;
/// Schemas whose plans are kept at the same time.
const PLANS_MAX: usize = 8;

/// What the config says, checked.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub path: PathBuf,
    pub table: String,
    pub mode: WriteMode,
    pub key: Option<Vec<String>>,
    pub create_table: bool,
    pub add_columns: bool,
}

/// The open database.
pub(super) struct Store {
    conn: Connection,
    settings: Settings,
    plans: Vec<Plan>,
}

/// A row that cannot be written, and why.
type Refusal = (usize, String);

impl Store {
    /// Opens the database and makes it ready. Creates the file only when the table may be created too.
    pub(super) fn open(settings: Settings) -> Result<Box<Self>, Fault> {
        let path = settings.path.clone();
        let failed = |error| fault("open the database", &path, &error);
        let create = if settings.create_table {
            OpenFlags::SQLITE_OPEN_CREATE
        } else {
            OpenFlags::empty()
        };
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | create;
        let conn = Connection::open_with_flags(&path, flags).map_err(failed)?;
        conn.busy_timeout(BUSY_WAIT).map_err(failed)?;
        let mode: String = conn
            .pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))
            .map_err(failed)?;
        // Commits have to survive a power cut. In WAL mode FULL is enough; with a rollback journal the directory has to
        // be synced too, or the journal may come back and undo the last transaction.
        let synchronous = if mode == "wal" { "FULL" } else { "EXTRA" };
        conn.pragma_update(None, "synchronous", synchronous).map_err(failed)?;
        conn.pragma_update(None, "cache_size", -CACHE_KIB).map_err(failed)?;
        let sql = format!(
            "CREATE TABLE IF NOT EXISTS {WATERMARK_TABLE} (stream TEXT PRIMARY KEY, seq INTEGER NOT NULL, \
             position BLOB NOT NULL, delivered INTEGER NOT NULL, counts BLOB NOT NULL)"
        );
        conn.execute_batch(&sql).map_err(failed)?;
        let store = Self {
            conn,
            settings,
            plans: Vec::new(),
        };
        if !store.settings.create_table
            && TableInfo::load(&store.conn, &store.settings.table)
                .map_err(failed)?
                .is_none()
        {
            return Err(no_table(&store.conn, &store.settings));
        }
        Ok(Box::new(store))
    }

    fn failed(&self, doing: &str) -> impl Fn(rusqlite::Error) -> Fault + use<> {
        let (doing, path) = (doing.to_string(), self.settings.path.clone());
        move |error| fault(&doing, &path, &error)
    }

    /// How far a stream has come.
    pub(super) fn watermark(&self, stream: &StreamId) -> Result<Option<Watermark>, Fault> {
        let failed = self.failed("read the watermark");
        let sql = format!("SELECT seq, position, delivered, counts FROM {WATERMARK_TABLE} WHERE stream = ?1");
        let mut statement = self.conn.prepare_cached(&sql).map_err(&failed)?;
        let found = statement.query_row([stream.as_str()], |row| {
            Ok(Watermark {
                seq: row.get::<_, i64>(0)? as u64,
                position: Position::new(row.get::<_, Vec<u8>>(1)?),
                delivered: row.get::<_, i64>(2)? as u64,
                counts: Counts::decode(&row.get::<_, Vec<u8>>(3)?),
            })
        });
        found.optional().map_err(failed)
    }

    /// Writes the rows and the watermark into the open transaction, which begins with the first delivery.
    pub(super) fn write(&mut self, delivery: &Delivery) -> Result<Vec<Refusal>, Fault> {
        let failed = self.failed("write rows");
        if self.conn.is_autocommit() {
            // IMMEDIATE: to wait for another writer here, where nothing is lost, and not at the first row.
            self.conn.execute_batch("BEGIN IMMEDIATE").map_err(&failed)?;
        }
        // Read inside the transaction, so that not even a second copy of this daemon can write the same records.
        let before = self.watermark(&delivery.stream)?.unwrap_or_default();
        if delivery.seq <= before.seq {
            return Err(Fault::retry(format!(
                "{} already holds {} up to {}, and {} was to be written: somebody else delivers it too",
                self.settings.path.display(),
                delivery.stream,
                before.seq,
                delivery.seq
            )));
        }
        let mut refused = Vec::new();
        if delivery.batch.rows() > 0 {
            let plan = self.plan(delivery.batch.schema())?;
            refused = write_rows(&self.conn, &self.settings, &self.plans[plan], &delivery.batch)?;
        }

        crash_point::at!(SqliteBeforeWatermark);
        let after = before.after(delivery, refused.len() as u64);
        let sql = format!(
            "INSERT INTO {WATERMARK_TABLE} (stream, seq, position, delivered, counts) VALUES (?1, ?2, ?3, ?4, ?5) \
             ON CONFLICT (stream) DO UPDATE SET seq = excluded.seq, position = excluded.position, \
             delivered = excluded.delivered, counts = excluded.counts"
        );
        let values = rusqlite::params![
            delivery.stream.as_str(),
            after.seq as i64,
            after.position.as_bytes(),
            after.delivered as i64,
            after.counts.encode()
        ];
        self.conn
            .prepare_cached(&sql)
            .and_then(|mut statement| statement.execute(values))
            .map_err(failed)?;
        Ok(refused)
    }

    /// Makes everything written durable.
    pub(super) fn commit(&mut self) -> Result<(), Fault> {
        if self.conn.is_autocommit() {
            return Ok(());
        }
        crash_point::at!(SqliteBeforeCommit);
        self.conn.execute_batch("COMMIT").map_err(self.failed("commit"))?;
        crash_point::at!(SqliteAfterCommit);
        Ok(())
    }

    fn plan(&mut self, schema: &Arc<Schema>) -> Result<usize, Fault> {
        // Decoded batches bring their own copy of the schema: compared by value, newest first.
        let known = self
            .plans
            .iter()
            .rposition(|plan| Arc::ptr_eq(&plan.schema, schema) || plan.schema == *schema);
        if let Some(known) = known {
            return Ok(known);
        }
        let plan = Plan::make(&self.conn, &self.settings, schema)?;
        if self.plans.len() == PLANS_MAX {
            self.plans.remove(0);
        }
        self.plans.push(plan);
        Ok(self.plans.len() - 1)
    }
}

fn write_rows(conn: &Connection, settings: &Settings, plan: &Plan, batch: &Batch) -> Result<Vec<Refusal>, Fault> {
    let failed = |error| fault("write rows", &settings.path, &error);
    let mut refused = Vec::new();
    let gaps = has_gaps(plan, batch);
    let mut current: Option<(Shape, CachedStatement<'_>)> = None;
    for row in 0..batch.rows() {
        let op = settings
            .mode
            .effective(batch.op(row), gaps && unknown_of(plan, batch, row).is_some());
        let same = |shape: &Shape| shape.op == op && (!gaps || shape.present == present(plan, batch, row));
        if (gaps || op != Op::Insert)
            && let Err(reason) = check_row(plan, batch, row, op)
        {
            refused.push((row, reason));
            continue;
        }
        if !current.as_ref().is_some_and(|(shape, _)| same(shape)) {
            let shape = Shape::new(plan, op, present(plan, batch, row));
            // Back into the cache before the next comes out of it.
            drop(current.take());
            let statement = conn.prepare_cached(&shape.sql).map_err(failed)?;
            current = Some((shape, statement));
        }
        let Some((shape, statement)) = &mut current else {
            continue;
        };
        let Err(reason) = write_row(conn, settings, plan, batch, row, shape, statement)? else {
            continue;
        };
        // SQLite looks at what a new row would lack before it looks for the one that is there.
        if shape.op == Op::Upsert {
            let change = Shape::new(plan, Op::Update, shape.present.clone());
            let mut statement = conn.prepare_cached(&change.sql).map_err(failed)?;
            if write_row(conn, settings, plan, batch, row, &change, &mut statement)?.is_ok() {
                continue;
            }
        }
        refused.push((row, reason));
    }
    Ok(refused)
}

/// Writes one row. `Ok(Err(…))`: it cannot be written, and nothing of it was.
fn write_row(
    conn: &Connection,
    settings: &Settings,
    plan: &Plan,
    batch: &Batch,
    row: usize,
    shape: &Shape,
    statement: &mut CachedStatement<'_>,
) -> Result<Result<(), String>, Fault> {
    let written = shape.bind(statement, plan, batch, row).and_then(|bound| match bound {
        Ok(()) => statement.raw_execute().map(Ok),
        Err(reason) => Ok(Err(reason)),
    });
    match written {
        Ok(Ok(0)) if shape.op == Op::Update => {
            Ok(Err(settings.mode.no_row(batch.op(row), unknown_of(plan, batch, row))))
        }
        Ok(written) => Ok(written.map(|_| ())),
        // SQLite undoes the one statement and keeps the transaction; unless a trigger asks for more.
        Err(error) if concerns_row(&error) && !conn.is_autocommit() => Ok(Err(error.to_string())),
        Err(error) if concerns_row(&error) => Err(Fault::stop(format!(
            "a trigger of table '{}' in {} ends the whole transaction ({error}): make it RAISE(ABORT), so that only \
             the row is refused",
            settings.table,
            settings.path.display()
        ))),
        Err(error) => Err(fault("write rows", &settings.path, &error)),
    }
}

/// Whether SQLite refuses this row, and not the work as a whole.
fn concerns_row(error: &rusqlite::Error) -> bool {
    let code = error.sqlite_error_code();
    matches!(
        code,
        Some(ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch | ErrorCode::TooBig)
    )
}

/// Whether some record lacks a value, or has one that has no column: then rows are looked at one by one.
fn has_gaps(plan: &Plan, batch: &Batch) -> bool {
    let lacks = |cell: Cell<'_>| matches!(cell, Cell::Missing | Cell::Unchanged);
    plan.targets.iter().enumerate().any(|(index, target)| {
        matches!(target, Target::Refused(_))
            || (!batch.columns()[index].is_dense() && (0..batch.rows()).any(|row| lacks(batch.cell(row, index))))
    })
}

/// The name of a column of the table whose value a record does not say, only that it did not change.
fn unknown_of<'a>(plan: &'a Plan, batch: &Batch, row: usize) -> Option<&'a str> {
    let is_written = |index: usize| matches!(plan.targets.get(index), Some(Target::Column(_)));
    let field = plan.schema.fields.get(unknown(batch, row, is_written)?)?;
    Some(&field.name)
}

/// The columns a record has a value for (or a NULL), and the table a place.
fn present(plan: &Plan, batch: &Batch, row: usize) -> Vec<usize> {
    let has = |index: &usize| !matches!(batch.cell(row, *index), Cell::Missing | Cell::Unchanged);
    let written = |index: &usize| matches!(plan.targets[*index], Target::Column(_));
    (0..plan.targets.len()).filter(written).filter(has).collect()
}

fn check_row(plan: &Plan, batch: &Batch, row: usize, op: Op) -> Result<(), String> {
    for (index, target) in plan.targets.iter().enumerate() {
        if let Target::Refused(reason) = target
            && !matches!(batch.cell(row, index), Cell::Missing | Cell::Unchanged)
        {
            return Err(reason.clone());
        }
    }
    if op == Op::Insert {
        return Ok(());
    }
    if plan.keys.is_empty() {
        return Err("an update, upsert or delete needs key columns, and the record has none: set key".to_string());
    }
    match plan.keys.iter().find(|key| !batch.cell(row, **key).is_value()) {
        Some(key) => Err(format!(
            "the key column '{}' has no value",
            plan.schema.fields[*key].name
        )),
        None => Ok(()),
    }
}
