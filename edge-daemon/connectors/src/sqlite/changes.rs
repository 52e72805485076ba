//! Reads a table as it is and then every change of it, from a journal that triggers write.
//!
//! While the table is read, page by page in the order of its key, every look takes one read transaction: first what the
//! journal has about the rows that were read, in its order, then the next rows as they are in that moment. What the journal
//! has about rows that were not read yet is left out, because they will be read as that left them. So there is no gap and no
//! overlap, however often the reading is interrupted, and what was read of the table is at every moment what it was at the
//! journal's place.

use std::{
    path::PathBuf,
    time::{SystemTime, UNIX_EPOCH},
};

use bus_schema::data::Op;
use flow::{Fault, Position, SourceBatch};
use rusqlite::{Connection, Row, Statement, types::ValueRef};

use super::{
    bookmark::{PLACE_BYTES_MAX, Place},
    database::{Access, Database, Lock},
    journal::{Journal, State},
    layout::sorts,
    mark::{At, Mark},
    page::{Page, Taken, Unfit},
    source::Reader,
    triggers::{Queries, Shape, VALUES_FROM, op, removal_sql},
};

/// How often the journal is made to fit a table that is altered meanwhile, before trying again later.
const FITS_MAX: usize = 3;
/// Rows with NULL in the key that are shown.
const NULLS_SHOWN: usize = 8;
/// What to do when changes are lost.
const ANEW: &str = "give the node another name to begin with a new snapshot";

/// What the config says, checked.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub table: String,
    pub journal: Journal,
    /// Begin with the rows there are.
    pub snapshot: bool,
    pub rows_max: usize,
}

/// The open database, and how far its journal and table have been read.
pub(super) struct ChangesReader {
    database: Database,
    settings: Settings,
    shape: Shape,
    queries: Queries,
    /// `PRAGMA schema_version` the shape is of.
    schema_version: i64,
    mark: Mark,
    /// `PRAGMA data_version` at which everything had been read.
    caught_up: Option<i64>,
    /// The number of the journal up to which nothing is lost when the machine fails.
    lasting: i64,
    /// There may be more at once.
    has_more: bool,
}

/// What a look found.
enum Look {
    Nothing,
    /// Something, while the journal ended at `last`.
    Batch {
        batch: SourceBatch,
        last: i64,
    },
    /// The journal has to be made to fit the table first.
    Outdated,
}

/// Where reading the journal ended.
#[derive(PartialEq, Eq)]
enum Ended {
    /// At its end.
    All,
    /// The page is full.
    Full,
}

impl ChangesReader {
    pub(super) fn open(path: PathBuf, settings: Settings, after: Option<&Position>) -> Result<Self, Fault> {
        let mark = after.map(|position| Mark::from_position(position, &settings.journal.name));
        let mark = mark.transpose()?;
        let database = Database::open(path, Access::Write)?;
        let is_new = mark.is_none();
        let (shape, mark, schema_version) = match mark {
            Some(mark) => {
                let (shape, version) = fit(&database, &settings, mark.seq)?;
                (shape, mark, version)
            }
            None => database.within(Lock::Write, |conn| begin(&database, conn, &settings))?,
        };
        let queries = Queries::new(&settings.journal.name, &shape);
        if let At::Snapshot(place) = &mark.at
            && !place.is_empty()
            && place.len() != shape.keys.len()
        {
            return Err(Fault::stop(format!(
                "the primary key was changed while the snapshot was being read: {ANEW}"
            )));
        }
        if is_new {
            warn(&database, &settings, &shape, &queries).map_err(database.failed("read the schema"))?;
        }
        Ok(Self {
            database,
            settings,
            shape,
            queries,
            schema_version,
            mark,
            caught_up: None,
            lasting: i64::MIN,
            has_more: false,
        })
    }

    /// Looks within one read transaction, which sees one state of table, journal and schema.
    fn look(&mut self) -> Result<Look, Fault> {
        let data_version = self.database.data_version()?;
        let schema_version = self.database.schema_version()?;
        let conn = &self.database.conn;
        let failed = self.database.failed("read changes");
        if schema_version != self.schema_version {
            let Some(shape) = whole(&self.database, conn, &self.settings)? else {
                return Ok(Look::Outdated);
            };
            self.queries = Queries::new(&self.settings.journal.name, &shape);
            (self.shape, self.schema_version) = (shape, schema_version);
        }
        let ends = self.settings.journal.ends(conn).map_err(&failed)?;
        let last = self.check_ends(ends)?;
        let mut page = Page::new(&self.shape.schema, self.settings.rows_max);
        let mut mark = self.mark.clone();
        let mut ended = Ended::All;
        if last > mark.seq {
            ended = self.read_journal(&mut page, &mut mark)?;
        }
        if ended == Ended::All && mark.at != At::Stream {
            ended = self.read_table(&mut page, &mut mark).map_err(&failed)?;
            self.check_place(&mark)?;
        }
        self.has_more = ended == Ended::Full;
        if !self.has_more {
            self.caught_up = Some(data_version);
        }
        self.mark = mark;
        if page.is_empty() {
            return Ok(Look::Nothing);
        }
        let (batch, undecodable) = page.batch().map_err(Fault::stop)?;
        let batch = SourceBatch {
            batch,
            position: self.mark.position(),
            undecodable,
        };
        Ok(Look::Batch { batch, last })
    }

    /// The journal's numbers have no gaps, and the last one stays: then it still has what comes after the mark.
    fn check_ends(&self, ends: Option<(i64, i64)>) -> Result<i64, Fault> {
        let (path, name, seq) = (self.database.path.display(), &self.mark.journal, self.mark.seq);
        match ends {
            None => Err(Fault::stop(format!(
                "somebody has emptied the journal '{name}' in {path}, and with it what was changed since: {ANEW}"
            ))),
            Some((_, last)) if last < seq => Err(Fault::stop(format!(
                "{path} is an older copy than the one that was read before: its journal '{name}' ends at {last}, and was \
                 read up to {seq}; {ANEW}"
            ))),
            Some((first, _)) if first > seq + 1 => Err(Fault::stop(format!(
                "the journal '{name}' in {path} begins at {first}, but was delivered only up to {seq}: what was changed in \
                 between is lost; {ANEW}"
            ))),
            Some((_, last)) => Ok(last),
        }
    }

    /// Takes what the journal has after the mark.
    fn read_journal(&self, page: &mut Page, mark: &mut Mark) -> Result<Ended, Fault> {
        let failed = self.database.failed("read changes");
        let place = match &mark.at {
            At::Stream => None,
            At::Snapshot(place) => Some(place.as_slice()),
        };
        let sql = match place {
            None => &self.queries.stream,
            Some([]) => &self.queries.before,
            Some(_) => &self.queries.during,
        };
        let conn = &self.database.conn;
        let mut statement = conn.prepare_cached(sql).map_err(&failed)?;
        statement.raw_bind_parameter(1, mark.seq).map_err(&failed)?;
        bind(&mut statement, 2, place.unwrap_or_default()).map_err(&failed)?;
        let mut rows = statement.raw_query();
        while let Some(row) = rows.next().map_err(&failed)? {
            let seq: i64 = row.get(0).map_err(&failed)?;
            if seq != mark.seq + 1 {
                return Err(self.gap(mark.seq, seq));
            }
            let op: String = row.get(1).map_err(&failed)?;
            if op == op::FULL {
                // First what came before it.
                return match page.is_empty() {
                    true => Err(self.overflow()),
                    false => Ok(Ended::Full),
                };
            }
            // NULL: the key has no place in the table's order.
            let is_due = row.get::<_, Option<bool>>(3).map_err(&failed)?.unwrap_or(false);
            if is_due && !self.take(page, row, &op).map_err(&failed)? {
                return Ok(Ended::Full);
            }
            mark.seq = seq;
            if page.is_full() {
                return Ok(Ended::Full);
            }
        }
        Ok(Ended::All)
    }

    /// Takes a row of the journal. `false`: there is no room for it.
    fn take(&self, page: &mut Page, row: &Row<'_>, op: &str) -> rusqlite::Result<bool> {
        let width = row.get::<_, u32>(2)? as usize;
        let (op, done) = match op {
            op::UPDATE => (Op::Update, "update"),
            op::DELETE => (Op::Delete, "delete"),
            // INSERT OR REPLACE looks the same.
            _ => (Op::Upsert, "insert"),
        };
        let has = |column| match op {
            Op::Delete => self.shape.is_key(column),
            _ => column < width,
        };
        let mut unfit = None;
        for key in &self.shape.keys {
            if row.get_ref(VALUES_FROM + key.column)? == ValueRef::Null {
                let name = &self.shape.schema.fields[key.column].name;
                unfit = Some(Unfit {
                    bytes: page.row_text(row, VALUES_FROM),
                    reason: format!("NULL in the key column '{name}': nothing tells which row it is"),
                });
            }
        }
        let taken = match unfit {
            Some(unfit) => Taken::Unfit(unfit),
            None => page.take(op, row, VALUES_FROM, has)?,
        };
        match taken {
            Taken::Record => {}
            Taken::Waits => return Ok(false),
            Taken::Unfit(unfit) => page.refuse(unfit, &format!("{done} {}", self.shown_key(row, VALUES_FROM)?)),
        }
        Ok(true)
    }

    /// Takes the next rows of the table as they are now.
    fn read_table(&self, page: &mut Page, mark: &mut Mark) -> rusqlite::Result<Ended> {
        let At::Snapshot(place) = &mut mark.at else {
            return Ok(Ended::All);
        };
        let sql = match place.is_empty() {
            true => &self.queries.first,
            false => &self.queries.next,
        };
        let mut statement = self.database.conn.prepare_cached(sql)?;
        bind(&mut statement, 1, place)?;
        statement.raw_bind_parameter(place.len() + 1, page.rows_left() as i64)?;
        let mut reached: Vec<Option<Place>> = place.drain(..).map(Some).collect();
        reached.resize(self.shape.keys.len(), None);
        let mut ended = Ended::All;
        let mut rows = statement.raw_query();
        while let Some(row) = rows.next()? {
            match page.take(Op::Insert, row, 0, |_| true)? {
                Taken::Waits => {
                    ended = Ended::Full;
                    break;
                }
                Taken::Record => {}
                Taken::Unfit(unfit) => page.refuse(unfit, &self.shown_key(row, 0)?),
            }
            for (slot, key) in reached.iter_mut().zip(&self.shape.keys) {
                Place::set(slot, row.get_ref(key.column)?);
            }
            if page.is_full() {
                ended = Ended::Full;
                break;
            }
        }
        match ended {
            Ended::Full => *place = reached.into_iter().flatten().collect(),
            Ended::All => {
                self.report_nulls(page)?;
                mark.at = At::Stream;
                let table = &self.shape.schema.collection;
                tracing::info!(table, "the snapshot has been read; changes follow");
            }
        }
        Ok(ended)
    }

    /// Rows that have no place in the key's order are said at its end, all at once.
    fn report_nulls(&self, page: &mut Page) -> rusqlite::Result<()> {
        let Some(sql) = &self.queries.nulls else {
            return Ok(());
        };
        let conn = &self.database.conn;
        let mut statement = conn.prepare(sql)?;
        let mut rows = statement.raw_query();
        let (mut count, mut bytes) = (0_u64, Vec::new());
        while let Some(row) = rows.next()? {
            if count < NULLS_SHOWN as u64 {
                bytes.extend_from_slice(&page.row_text(row, 0));
                bytes.push(b'\n');
            }
            count += 1;
        }
        if count > 0 {
            let reason = "NULL in the key: nothing tells these rows apart, so they are not followed".to_string();
            page.refuse(Unfit { bytes, reason }, &format!("{count} rows"));
        }
        Ok(())
    }

    fn check_place(&self, mark: &Mark) -> Result<(), Fault> {
        let At::Snapshot(place) = &mark.at else { return Ok(()) };
        if place.iter().map(Place::len).sum::<usize>() <= PLACE_BYTES_MAX {
            return Ok(());
        }
        let table = &self.shape.schema.collection;
        Err(Fault::stop(format!(
            "a key of '{table}' is longer than {PLACE_BYTES_MAX} bytes, which no position can hold: set snapshot = false"
        )))
    }

    /// A row's key for a person to find; its values begin at `first`.
    fn shown_key(&self, row: &Row<'_>, first: usize) -> rusqlite::Result<String> {
        let mut shown = Vec::new();
        for key in &self.shape.keys {
            let name = &self.shape.schema.fields[key.column].name;
            let value = match row.get_ref(first + key.column)? {
                ValueRef::Null => "NULL".to_string(),
                ValueRef::Integer(v) => v.to_string(),
                ValueRef::Real(v) => format!("{v:?}"),
                ValueRef::Text(v) => format!("{:?}", String::from_utf8_lossy(&v[..v.len().min(NAMED_BYTES_MAX)])),
                ValueRef::Blob(v) => format!("of {} bytes", v.len()),
            };
            shown.push(format!("{name} {value}"));
        }
        Ok(shown.join(", "))
    }

    fn gap(&self, before: i64, after: i64) -> Fault {
        let (path, name) = (self.database.path.display(), &self.mark.journal);
        Fault::stop(format!(
            "somebody has taken rows out of the journal '{name}' in {path}: after {before} comes {after}, and what was \
             changed in between is lost; {ANEW}"
        ))
    }

    fn overflow(&self) -> Fault {
        let (path, name) = (self.database.path.display(), &self.mark.journal);
        let (max, remove) = (self.settings.journal.rows_max, removal_sql(name));
        Fault::stop(format!(
            "the journal '{name}' in {path} was full, because more than {max} changes waited to be delivered: what was \
             changed since is lost. {ANEW}, and a higher journal_rows_max; remove the full one with: {remove}"
        ))
    }
}

/// How much of a text in a key is shown, in bytes.
const NAMED_BYTES_MAX: usize = 64;

/// Makes sure that the journal fits the table. Gives the table's shape, and the schema's version.
fn fit(database: &Database, settings: &Settings, seq: i64) -> Result<(Shape, i64), Fault> {
    let fitting = database.within(Lock::Shared, |conn| {
        let shape = whole(database, conn, settings)?;
        Ok(shape.zip(Some(database.schema_version()?)))
    })?;
    if let Some(fitting) = fitting {
        return Ok(fitting);
    }
    let path = &database.path;
    database.within(Lock::Write, |conn| {
        let shape = Shape::load(conn, path, &settings.table)?;
        // The same again, because it may have changed meanwhile.
        if let State::Outdated(width) = settings.journal.state(conn, path, &shape)? {
            settings.journal.extend(conn, path, &shape, (width, seq))?;
            let table = &shape.schema.collection;
            tracing::info!(path = %path.display(), table, "the journal of changes fits the table again");
        }
        Ok(())
    })?;
    let fitting = database.within(Lock::Shared, |conn| {
        let shape = whole(database, conn, settings)?;
        Ok(shape.zip(Some(database.schema_version()?)))
    })?;
    fitting.ok_or_else(|| Fault::retry(format!("'{}' is being altered", settings.table)))
}

/// The table's shape, if the journal fits it. Faults if changes got past it.
fn whole(database: &Database, conn: &Connection, settings: &Settings) -> Result<Option<Shape>, Fault> {
    let path = &database.path;
    let shape = Shape::load(conn, path, &settings.table)?;
    let broken = |reason: String| {
        let (table, remove) = (&shape.schema.collection, removal_sql(&settings.journal.name));
        Fault::stop(format!(
            "the changes of '{table}' in {} are no longer captured, because {reason}: what was changed since is lost. \
             {ANEW}; remove what is left with: {remove}",
            path.display()
        ))
    };
    match settings.journal.state(conn, path, &shape)? {
        State::Whole => Ok(Some(shape)),
        State::Outdated(_) => Ok(None),
        State::Broken(reason) => Err(broken(reason)),
        State::Missing => Err(broken("journal and triggers are gone".to_string())),
    }
}

/// The first time, or nothing was ever delivered: makes the journal, and begins where it does.
fn begin(database: &Database, conn: &Connection, settings: &Settings) -> Result<(Shape, Mark, i64), Fault> {
    let (path, journal) = (&database.path, &settings.journal);
    let shape = Shape::load(conn, path, &settings.table)?;
    let state = journal.state(conn, path, &shape)?;
    let ends = match &state {
        State::Missing => None,
        State::Whole | State::Outdated(_) if !settings.snapshot => {
            journal.ends(conn).map_err(database.failed("read changes"))?
        }
        State::Whole | State::Outdated(_) | State::Broken(_) => {
            tracing::warn!(path = %path.display(), journal = journal.name, "a journal of which nothing was ever delivered is made anew");
            None
        }
    };
    let seq = match (ends, state) {
        (Some((first, _)), State::Outdated(width)) => {
            journal.extend(conn, path, &shape, (width, first))?;
            first
        }
        (Some((first, _)), _) => first,
        (None, _) => {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            journal.make(conn, path, &shape, now.as_secs().try_into().unwrap_or_default())?
        }
    };
    let at = match settings.snapshot {
        true => At::Snapshot(Vec::new()),
        false => At::Stream,
    };
    let mark = Mark {
        journal: journal.name.clone(),
        seq,
        at,
    };
    Ok((shape, mark, database.schema_version()?))
}

/// Says once what a person should know.
fn warn(database: &Database, settings: &Settings, shape: &Shape, queries: &Queries) -> rusqlite::Result<()> {
    let (path, table) = (database.path.display(), &shape.schema.collection);
    let remove = removal_sql(&settings.journal.name);
    tracing::info!(%path, table, journal = settings.journal.name, remove, "triggers write the table's changes into a journal from now on");
    if settings.snapshot && sorts(&database.conn, &queries.next)? {
        tracing::warn!(%path, table, "no index in the key's order: SQLite sorts all rows for every batch of the snapshot");
    }
    let sql = "SELECT name FROM pragma_index_list(?1) WHERE \"unique\" AND origin <> 'pk'";
    let mut statement = database.conn.prepare(sql)?;
    let indexes = statement.query_map([table], |row| row.get::<_, String>(0))?;
    let indexes = indexes.collect::<rusqlite::Result<Vec<_>>>()?.join(", ");
    if !indexes.is_empty() {
        tracing::warn!(%path, table, indexes, "a row that INSERT OR REPLACE removes because of another unique index than the primary key's is only seen if the program sets PRAGMA recursive_triggers = ON");
    }
    Ok(())
}

fn bind(statement: &mut Statement<'_>, first: usize, place: &[Place]) -> rusqlite::Result<()> {
    for (index, place) in place.iter().enumerate() {
        statement.raw_bind_parameter(first + index, place)?;
    }
    Ok(())
}

impl Reader for ChangesReader {
    fn poll(&mut self) -> Result<Option<SourceBatch>, Fault> {
        self.has_more = false;
        self.database.check_file()?;
        if self.caught_up == Some(self.database.data_version()?) {
            return Ok(None);
        }
        for _ in 0..FITS_MAX {
            self.database.begin(Lock::Shared)?;
            let look = self.look();
            self.database.end();
            match look? {
                Look::Nothing => return Ok(None),
                Look::Batch { batch, last } => {
                    if last > self.lasting {
                        self.database.make_last()?;
                        self.lasting = last;
                    }
                    return Ok(Some(batch));
                }
                Look::Outdated => drop(fit(&self.database, &self.settings, self.mark.seq)?),
            }
        }
        Err(Fault::retry(format!("'{}' is being altered", self.settings.table)))
    }

    fn has_more(&self) -> bool {
        self.has_more
    }

    fn forget(&mut self, position: &Position) -> Result<bool, Fault> {
        let mark = Mark::from_position(position, &self.settings.journal.name)?;
        self.settings.journal.forget(&self.database, mark.seq)
    }
}
