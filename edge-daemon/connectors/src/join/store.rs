//! What a join holds, in a database of its own: the records that wait, those that were joined and not taken yet, and how far
//! each way in has come. One connection, one transaction at a time. Everything here blocks.
//!
//! What is joined does not depend on when records come: a record that is not late (at least the youngest of its own input less
//! the lateness) has all its partners here that came before it, since nothing is let go of that it could still belong to.

use std::{path::PathBuf, sync::Arc, time::Duration};

use bus_schema::{
    data::{Batch, BatchBuilder, Cell, Op, Origin, Schema, Value},
    id::StreamId,
    limits::BATCH_BYTES_TARGET,
};
use flow::{Counts, Delivery, Fault, Position, Watermark};
use rusqlite::{Connection, OptionalExtension, params};
use sha2::{Digest, Sha256};

use super::{SIDES, shape::Shape};
use crate::{moment::moment, pace::Pace, sqlite::fault};

/// Most partners of one record.
const PARTNERS_MAX: i64 = 1_000;
/// Joined records that wait to be taken, before no more deliveries come in.
const WAITING_ROWS_MAX: u64 = 100_000;
/// Most that one delivery makes.
pub(super) const MADE_ROWS_MAX: i64 = 1_000_000;
/// What the log keeps of a delivery that made much, and pages that are given back to the disk at a time when nothing waits.
const LOG_BYTES_MAX: i64 = 16 << 20;
const FREE_PAGES: i64 = 1_024;
/// Most records of a batch that is taken.
const READ_ROWS_MAX: i64 = 2_048;
/// SQLite's page cache, in KiB.
const CACHE_KIB: i64 = 1_024;
const BUSY_WAIT: Duration = Duration::from_secs(5);
/// Schemas that are kept in memory.
const SCHEMAS_MAX: usize = 16;

const TABLES: &str = "
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS marks (stream TEXT PRIMARY KEY, seq INTEGER NOT NULL, position BLOB NOT NULL,
    delivered INTEGER NOT NULL, counts BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS sides (side INTEGER PRIMARY KEY, youngest INTEGER NOT NULL, schema INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS schemas (id INTEGER PRIMARY KEY, bytes BLOB NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS held (id INTEGER PRIMARY KEY, side INTEGER NOT NULL, key BLOB, time INTEGER NOT NULL,
    matched INTEGER NOT NULL, schema INTEGER NOT NULL, row BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS held_by_key ON held (side, key, time) WHERE key IS NOT NULL;
CREATE INDEX IF NOT EXISTS held_by_time ON held (side, time);
CREATE TABLE IF NOT EXISTS joined (id INTEGER PRIMARY KEY AUTOINCREMENT, schema0 INTEGER, row0 BLOB, schema1 INTEGER,
    row1 BLOB);
";

/// Where the pace of each side is in `meta`.
const PACES: [&str; SIDES] = ["pace 0", "pace 1"];

/// One input, as the config has it.
#[derive(Debug, Clone)]
pub(super) struct Side {
    pub name: String,
    pub key: Vec<String>,
    pub time: String,
    pub is_kept: bool,
}

/// What the config says, checked. Spans in nanoseconds.
#[derive(Debug, Clone)]
pub(super) struct Rules {
    pub node: String,
    pub sides: [Side; SIDES],
    pub within: i64,
    pub lateness: i64,
    /// How far ahead of the others of its input a record may be, and time still go by it alone.
    pub ahead_max: Option<i64>,
    pub rows_max: u64,
}

/// Whether more of a side can be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Room {
    Free,
    /// As many as may wait do, and the other side is not behind.
    Full,
    /// As many as may wait do, and the other side is behind.
    Ahead,
    /// What is made has to be taken first.
    Behind,
}

/// The open database.
pub(super) struct Store {
    conn: Connection,
    path: PathBuf,
    rules: Rules,
    /// How many records of each side wait.
    held: [u64; SIDES],
    /// How far the time of each side has come.
    pace: [Pace; SIDES],
    /// The schema that each side had last.
    last_schema: [Option<i64>; SIDES],
    schemas: Vec<(i64, Arc<Schema>)>,
    /// Numbers of the last record that was made, and of the last that was read.
    made_to: i64,
    read_to: i64,
    /// The first of them when the delivery began that is being taken.
    made_before: i64,
}

impl Store {
    /// Opens the file, or something in memory.
    pub(super) fn open(rules: Rules, file: Option<PathBuf>) -> Result<Self, Fault> {
        let path = file.clone().unwrap_or_else(|| PathBuf::from(":memory:"));
        let failed = |error| fault("open the join's file", &path, &error);
        if let Some(dir) = file.as_deref().and_then(std::path::Path::parent) {
            std::fs::create_dir_all(dir)
                .map_err(|error| Fault::retry(format!("cannot make {}: {error}", dir.display())))?;
        }
        let conn = Connection::open(&path).map_err(failed)?;
        conn.busy_timeout(BUSY_WAIT).map_err(failed)?;
        // Says nothing to files of before: they keep their size.
        conn.pragma_update(None, "auto_vacuum", "INCREMENTAL").map_err(failed)?;
        conn.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))
            .map_err(failed)?;
        conn.query_row(&format!("PRAGMA journal_size_limit = {LOG_BYTES_MAX}"), [], |_| Ok(()))
            .map_err(failed)?;
        // A watermark that was confirmed has to survive a power cut.
        conn.pragma_update(None, "synchronous", "FULL").map_err(failed)?;
        conn.pragma_update(None, "cache_size", -CACHE_KIB).map_err(failed)?;
        conn.execute_batch(TABLES).map_err(failed)?;
        conn.execute_batch(
            "DELETE FROM schemas WHERE id NOT IN (SELECT schema FROM held UNION SELECT schema FROM sides
             UNION SELECT schema0 FROM joined WHERE schema0 IS NOT NULL
             UNION SELECT schema1 FROM joined WHERE schema1 IS NOT NULL)",
        )
        .map_err(failed)?;
        let mut store = Self {
            conn,
            path: path.clone(),
            rules,
            held: [0; SIDES],
            pace: [Pace::default(); SIDES],
            last_schema: [None; SIDES],
            schemas: Vec::new(),
            made_to: 0,
            read_to: 0,
            made_before: 0,
        };
        store.know_rules()?;
        store.recount()?;
        store.read_to = store
            .conn
            .query_row("SELECT coalesce(min(id) - 1, ?1) FROM joined", [store.made_to], |row| {
                row.get(0)
            })
            .map_err(failed)?;
        Ok(store)
    }

    fn failed(&self, doing: &str) -> impl Fn(rusqlite::Error) -> Fault + use<> {
        let (doing, path) = (doing.to_string(), self.path.clone());
        move |error| fault(&doing, &path, &error)
    }

    /// What waits was filed by these keys and times.
    fn know_rules(&self) -> Result<(), Fault> {
        let failed = self.failed("read the join's settings");
        let sides = self.rules.sides.iter().map(|side| (&side.name, &side.key, &side.time));
        let print: [u8; 32] = Sha256::digest(bus_schema::encode(&sides.collect::<Vec<_>>())).into();
        let known: Option<Vec<u8>> = self
            .conn
            .query_row("SELECT value FROM meta WHERE name = 'inputs'", [], |row| row.get(0))
            .optional()
            .map_err(&failed)?;
        if known.as_deref() == Some(&print[..]) {
            return Ok(());
        }
        let held: i64 = self
            .conn
            .query_row("SELECT count(*) FROM held", [], |row| row.get(0))
            .map_err(&failed)?;
        if held > 0 {
            return Err(Fault::stop(format!(
                "{held} records wait for partners by other settings: set 'inputs' as it was, or give the node another name to \
                 give those records up and begin anew"
            )));
        }
        let sql = "INSERT INTO meta VALUES ('inputs', ?1) ON CONFLICT (name) DO UPDATE SET value = excluded.value";
        self.conn.execute(sql, [&print[..]]).map_err(failed)?;
        // Times by other columns say nothing of these.
        self.conn
            .execute_batch("DELETE FROM sides; DELETE FROM meta WHERE name LIKE 'pace %'")
            .map_err(self.failed("begin anew"))
    }

    /// What is counted in memory, from what is stored.
    fn recount(&mut self) -> Result<(), Fault> {
        let failed = self.failed("read the join's file");
        self.pace = [Pace::default(); SIDES];
        self.last_schema = [None; SIDES];
        self.schemas.clear();
        for (side, name) in PACES.iter().enumerate() {
            let held: i64 = self
                .conn
                .query_row("SELECT count(*) FROM held WHERE side = ?1", [side as i64], |row| {
                    row.get(0)
                })
                .map_err(&failed)?;
            self.held[side] = held as u64;
            let sql = "SELECT youngest, schema FROM sides WHERE side = ?1";
            let known = self
                .conn
                .query_row(sql, [side as i64], |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()
                .map_err(&failed)?;
            if let Some((youngest, schema)) = known {
                // Files of before have no pace, and the youngest alone.
                let pace: Option<Vec<u8>> = self
                    .conn
                    .query_row("SELECT value FROM meta WHERE name = ?1", [name], |row| row.get(0))
                    .optional()
                    .map_err(&failed)?;
                let pace = pace.and_then(|bytes| bus_schema::decode(&bytes));
                self.pace[side] = pace.unwrap_or(Pace::at(youngest));
                self.last_schema[side] = Some(schema);
            }
        }
        let sql = "SELECT seq FROM sqlite_sequence WHERE name = 'joined'";
        let made_to = self.conn.query_row(sql, [], |row| row.get(0)).optional();
        self.made_to = made_to.map_err(failed)?.unwrap_or(0);
        Ok(())
    }

    /// Takes back what somebody began and did not commit.
    pub(super) fn undo(&mut self) -> Result<(), Fault> {
        if self.conn.is_autocommit() {
            return Ok(());
        }
        self.conn.execute_batch("ROLLBACK").map_err(self.failed("undo"))?;
        self.recount()
    }

    /// How many joined records were not read yet.
    pub(super) fn waiting(&self) -> u64 {
        (self.made_to - self.read_to).max(0) as u64
    }

    /// Whether more of a side can be taken, when these sides have come to their end.
    pub(super) fn room(&self, side: usize, ended: [bool; SIDES]) -> Room {
        let other = 1 - side;
        if self.waiting() >= WAITING_ROWS_MAX {
            Room::Behind
        } else if self.held[side] < self.rules.rows_max || ended[other] {
            Room::Free
        } else if self.pace[side].youngest() > self.pace[other].youngest() {
            Room::Ahead
        } else {
            Room::Full
        }
    }

    /// How far a way in has come.
    pub(super) fn watermark(&self, stream: &StreamId) -> Result<Option<Watermark>, Fault> {
        let failed = self.failed("read the watermark");
        let sql = "SELECT seq, position, delivered, counts FROM marks WHERE stream = ?1";
        let mut statement = self.conn.prepare_cached(sql).map_err(&failed)?;
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

    /// Takes a delivery of one side, and its watermark, into the open transaction. Returns the rows it cannot take.
    pub(super) fn take(
        &mut self,
        side: usize,
        ended: [bool; SIDES],
        delivery: &Delivery,
        is_full: bool,
    ) -> Result<Vec<(usize, String)>, Fault> {
        if self.conn.is_autocommit() {
            self.conn
                .execute_batch("BEGIN IMMEDIATE")
                .map_err(self.failed("begin"))?;
        }
        let before = self.watermark(&delivery.stream)?.unwrap_or_default();
        if delivery.seq <= before.seq {
            let (has, seq) = (before.seq, delivery.seq);
            return Err(Fault::retry(format!(
                "the join holds batches up to {has}, and {seq} was to be taken: somebody else delivers it too"
            )));
        }
        let mut rejected = Vec::new();
        self.made_before = self.made_to;
        if delivery.batch.rows() > 0 {
            let schema = self.schema_id(delivery.batch.schema())?;
            let places = self.places(side, delivery.batch.schema());
            for row in 0..delivery.batch.rows() {
                match self.take_row(side, &delivery.batch, row, (schema, &places), is_full)? {
                    Ok(()) => {}
                    Err(reason) => rejected.push((row, reason)),
                }
            }
            self.last_schema[side] = Some(schema);
            let sql =
                "INSERT INTO sides VALUES (?1, ?2, ?3) ON CONFLICT (side) DO UPDATE SET youngest = excluded.youngest,
                       schema = excluded.schema";
            self.write(sql, params![side as i64, self.pace[side].youngest(), schema])?;
            let sql = "INSERT INTO meta VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = excluded.value";
            self.write(sql, params![PACES[side], bus_schema::encode(&self.pace[side])])?;
            self.let_go(ended)?;
        }
        let after = before.after(delivery, rejected.len() as u64);
        let sql = "INSERT INTO marks VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT (stream) DO UPDATE SET seq = excluded.seq,
                   position = excluded.position, delivered = excluded.delivered, counts = excluded.counts";
        let values = params![
            delivery.stream.as_str(),
            after.seq as i64,
            after.position.as_bytes(),
            after.delivered as i64,
            after.counts.encode()
        ];
        self.write(sql, values)?;
        Ok(rejected)
    }

    /// Makes everything that was taken durable.
    pub(super) fn commit(&mut self) -> Result<(), Fault> {
        if !self.conn.is_autocommit() {
            crash_point::at!(JoinBeforeCommit);
            self.conn.execute_batch("COMMIT").map_err(self.failed("commit"))?;
            crash_point::at!(JoinAfterCommit);
        }
        Ok(())
    }

    fn write(&self, sql: &str, values: impl rusqlite::Params) -> Result<usize, Fault> {
        let written = self
            .conn
            .prepare_cached(sql)
            .and_then(|mut statement| statement.execute(values));
        written.map_err(self.failed("write"))
    }

    /// Where key and time stand in a schema.
    fn places(&self, side: usize, schema: &Schema) -> (Vec<Option<usize>>, Option<usize>) {
        let side = &self.rules.sides[side];
        let key = side.key.iter().map(|name| schema.index_of(name)).collect();
        (key, schema.index_of(&side.time))
    }

    /// Joins one row with who waits for it, and lets it wait. The inner error is the reason to reject it.
    fn take_row(
        &mut self,
        side: usize,
        batch: &Batch,
        row: usize,
        (schema, (key, time)): (i64, &(Vec<Option<usize>>, Option<usize>)),
        is_full: bool,
    ) -> Result<Result<(), String>, Fault> {
        let rules = &self.rules.sides[side];
        if !matches!(batch.op(row), Op::Insert | Op::Upsert) {
            return Ok(Err(
                "a join takes readings: this is the change of a record, or its end".to_string()
            ));
        }
        let cell = |place: &Option<usize>| place.map_or(Cell::Missing, |place| batch.cell(row, place));
        let at = match moment(cell(time), &rules.time) {
            Ok((at, _)) => at,
            Err(reason) => return Ok(Err(reason)),
        };
        if at < self.pace[side].youngest().saturating_sub(self.rules.lateness) {
            return Ok(Err(format!(
                "it is late: '{}' has had a record that is younger by more than 'lateness_ms'",
                rules.name
            )));
        }
        if is_full && self.held[side] >= self.rules.rows_max {
            return Ok(Err(format!(
                "{} records of '{}' wait for partners, and this is one too many: see 'rows_max'",
                self.rules.rows_max, rules.name
            )));
        }
        if self.made_to - self.made_before >= MADE_ROWS_MAX {
            return Ok(Err(format!(
                "it came with others that make more than {MADE_ROWS_MAX} records together: give a smaller 'within_ms', or a key \
                 that fewer share"
            )));
        }
        let key: Option<Vec<Value>> = key.iter().map(|place| part(cell(place))).collect();
        let key = key.map(|key| bus_schema::encode(&key));
        let is_kept = rules.is_kept;
        let values: Vec<Value> = (0..batch.columns().len())
            .map(|column| batch.cell(row, column).to_value())
            .collect();
        let found = match &key {
            Some(key) => self.meet(side, key, at, (schema, &bus_schema::encode(&values)))?,
            None => 0,
        };
        if found > PARTNERS_MAX {
            return Ok(Err(format!(
                "more than {PARTNERS_MAX} records belong to it: give a smaller 'within_ms'"
            )));
        }
        self.pace[side] = self.pace[side].after(at, self.rules.ahead_max);
        if key.is_some() || is_kept {
            let sql = "INSERT INTO held (side, key, time, matched, schema, row) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
            let row = bus_schema::encode(&values);
            self.write(sql, params![side as i64, key, at, found > 0, schema, row])?;
            self.held[side] += 1;
        }
        Ok(Ok(()))
    }

    /// Makes a record with each one of the other side that this one belongs to, and says how many; none if there are too many.
    fn meet(&mut self, side: usize, key: &[u8], at: i64, (schema, row): (i64, &[u8])) -> Result<i64, Fault> {
        const PARTNERS: &str = "side = ?1 AND key = ?2 AND time BETWEEN ?3 AND ?4";
        let other = 1 - side;
        let (from, to) = (
            at.saturating_sub(self.rules.within),
            at.saturating_add(self.rules.within),
        );
        let place = params![other as i64, key, from, to];
        let count = format!(
            "SELECT count(*) FROM (SELECT 1 FROM held WHERE {PARTNERS} LIMIT {})",
            PARTNERS_MAX + 1
        );
        let found: i64 = self
            .conn
            .prepare_cached(&count)
            .and_then(|mut statement| statement.query_row(place, |row| row.get(0)))
            .map_err(self.failed("look for partners"))?;
        if found == 0 || found > PARTNERS_MAX {
            return Ok(found);
        }
        let sql = format!(
            "INSERT INTO joined (schema{side}, row{side}, schema{other}, row{other})
             SELECT ?5, ?6, schema, row FROM held WHERE {PARTNERS} ORDER BY time, id"
        );
        self.write(&sql, params![other as i64, key, from, to, schema, row])?;
        self.made_to += found;
        if self.rules.sides[other].is_kept {
            self.write(
                &format!("UPDATE held SET matched = 1 WHERE {PARTNERS} AND matched = 0"),
                place,
            )?;
        }
        Ok(found)
    }

    /// Lets go of what nobody can come for any more.
    fn let_go(&mut self, ended: [bool; SIDES]) -> Result<(), Fault> {
        for side in 0..SIDES {
            let other = 1 - side;
            // Who is not late over there is at least so old.
            let bound = if ended[other] {
                i64::MAX
            } else {
                self.pace[other]
                    .youngest()
                    .saturating_sub(self.rules.lateness)
                    .saturating_sub(self.rules.within)
            };
            if self.held[side] == 0 || bound == i64::MIN {
                continue;
            }
            if self.rules.sides[side].is_kept {
                let sql = format!(
                    "INSERT INTO joined (schema{side}, row{side}, schema{other})
                     SELECT schema, row, ?3 FROM held WHERE side = ?1 AND time < ?2 AND matched = 0 ORDER BY time, id"
                );
                self.made_to += self.write(&sql, params![side as i64, bound, self.last_schema[other]])? as i64;
            }
            let gone = self.write(
                "DELETE FROM held WHERE side = ?1 AND time < ?2",
                params![side as i64, bound],
            )?;
            self.held[side] = self.held[side].saturating_sub(gone as u64);
        }
        Ok(())
    }

    /// Nothing comes any more: lets go of everything.
    pub(super) fn let_go_of_all(&mut self) -> Result<(), Fault> {
        if self.held == [0; SIDES] {
            return Ok(());
        }
        self.conn
            .execute_batch("BEGIN IMMEDIATE")
            .map_err(self.failed("begin"))?;
        self.let_go([true; SIDES])?;
        self.commit()
    }

    /// Reading goes on after this number. A file that was lost begins its numbers behind it: they are never used twice.
    pub(super) fn resume(&mut self, last: i64) -> Result<(), Fault> {
        if last > self.made_to {
            tracing::warn!(node = self.rules.node, "what the join held is lost: it begins anew");
            self.write("DELETE FROM sqlite_sequence WHERE name = 'joined'", [])?;
            self.write("INSERT INTO sqlite_sequence (name, seq) VALUES ('joined', ?1)", [last])?;
            self.made_to = last;
        }
        self.read_to = last;
        Ok(())
    }

    /// Joined records after a number, and the number of the last of them.
    pub(super) fn read(&mut self, after: i64) -> Result<Option<(Batch, i64)>, Fault> {
        type Found = (i64, Option<i64>, Option<Vec<u8>>, Option<i64>, Option<Vec<u8>>);
        // Of which schemas the rows of one batch are.
        type Pair = (Option<i64>, Option<i64>);
        let failed = self.failed("read what is joined");
        let sql = "SELECT id, schema0, row0, schema1, row1 FROM joined WHERE id > ?1 ORDER BY id LIMIT ?2";
        let mut statement = self.conn.prepare_cached(sql).map_err(&failed)?;
        let mut rows = statement.query([after, READ_ROWS_MAX]).map_err(&failed)?;
        let mut open: Option<(Pair, Shape, BatchBuilder)> = None;
        let mut last = after;
        while let Some(row) = rows.next().map_err(&failed)? {
            let found = (|| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?)))();
            let (id, schema0, row0, schema1, row1): Found = found.map_err(&failed)?;
            let (pair, values) = ((schema0, schema1), [row0.as_deref(), row1.as_deref()]);
            let (_, shape, builder) = match &mut open {
                Some(open) if open.0 == pair => open,
                Some(_) => break,
                none => {
                    let schemas = [
                        schema_of(&self.conn, &self.schemas, schema0)?,
                        schema_of(&self.conn, &self.schemas, schema1)?,
                    ];
                    let shape = Shape::new(&self.rules, schemas);
                    let builder = BatchBuilder::new(Arc::clone(&shape.schema));
                    none.insert((pair, shape, builder))
                }
            };
            let decoded = values.map(|values| values.and_then(bus_schema::decode::<Vec<Value>>));
            let cells = shape.cells(&decoded);
            builder
                .push(Op::Insert, &cells)
                .map_err(|error| Fault::stop(format!("a joined record makes no batch: {error}")))?;
            last = id;
            if builder.bytes() >= BATCH_BYTES_TARGET {
                break;
            }
        }
        drop(rows);
        drop(statement);
        self.read_to = self.read_to.max(last);
        Ok(open.map(|(.., builder)| (builder.finish(Origin::default()), last)))
    }

    /// Everything up to a number is durable elsewhere.
    pub(super) fn forget(&mut self, last: i64) -> Result<(), Fault> {
        self.write("DELETE FROM joined WHERE id <= ?1", [last])?;
        // In the middle of a delivery nothing is given back.
        if self.waiting() == 0 && self.conn.is_autocommit() {
            // It gives a page back with each row that is asked for.
            let sql = format!("PRAGMA incremental_vacuum({FREE_PAGES})");
            let given = self.conn.prepare_cached(&sql).and_then(|mut statement| {
                let mut pages = statement.query([])?;
                while pages.next()?.is_some() {}
                Ok(())
            });
            given.map_err(self.failed("give room back"))?;
        }
        Ok(())
    }

    fn schema_id(&mut self, schema: &Arc<Schema>) -> Result<i64, Fault> {
        let known = self
            .schemas
            .iter()
            .find(|(_, known)| Arc::ptr_eq(known, schema) || known == schema);
        if let Some((id, _)) = known {
            return Ok(*id);
        }
        let bytes = bus_schema::encode(&**schema);
        self.write(
            "INSERT INTO schemas (bytes) VALUES (?1) ON CONFLICT (bytes) DO NOTHING",
            [&bytes],
        )?;
        let id = self
            .conn
            .query_row("SELECT id FROM schemas WHERE bytes = ?1", [&bytes], |row| row.get(0))
            .map_err(self.failed("read a schema"))?;
        if self.schemas.len() == SCHEMAS_MAX {
            self.schemas.remove(0);
        }
        self.schemas.push((id, Arc::clone(schema)));
        Ok(id)
    }
}

/// A stored schema.
fn schema_of(conn: &Connection, known: &[(i64, Arc<Schema>)], id: Option<i64>) -> Result<Option<Arc<Schema>>, Fault> {
    let Some(id) = id else { return Ok(None) };
    if let Some((_, schema)) = known.iter().find(|(known, _)| *known == id) {
        return Ok(Some(Arc::clone(schema)));
    }
    let bytes: rusqlite::Result<Vec<u8>> =
        conn.query_row("SELECT bytes FROM schemas WHERE id = ?1", [id], |row| row.get(0));
    let schema = bytes.ok().and_then(|bytes| bus_schema::decode::<Schema>(&bytes));
    schema.map(|schema| Some(Arc::new(schema))).ok_or_else(|| {
        Fault::stop(
            "the join's file does not know the columns of a record it holds: give the node another name to begin anew",
        )
    })
}

/// A value of a key, in the form in which it is compared; `None`: there is none, which is like nothing.
fn part(cell: Cell<'_>) -> Option<Value> {
    match cell {
        Cell::I64(number) => Some(u64::try_from(number).map_or(Value::I64(number), Value::U64)),
        cell if cell.is_value() => Some(cell.to_value()),
        _ => None,
    }
}
