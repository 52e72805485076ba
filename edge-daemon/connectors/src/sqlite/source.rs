//! Source `sqlite`: reads the rows of a table or query in the order of a cursor column, and goes on reading as rows come.
//! Never writes to the database.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use async_trait::async_trait;
use bus_schema::{
    limits::ROWS_MAX,
    plan::{ComponentRole, Descriptor},
};
use flow::{
    Build, BuildContext, Component, ConfigError, Fault, Position, READ_WAIT_MAX, Read, Source, SourceBatch, describe,
    parse_config,
};
use rusqlite::{Connection, OpenFlags, Statement};
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::{task::spawn_blocking, time::Instant};

use super::{
    bookmark::{Bookmark, PLACE_BYTES_MAX, Place},
    database_path, fault,
    layout::{Layout, Subject},
    page::Page,
};
use crate::watch::{Found, Watch};

/// How long to wait for another process's lock before trying again later.
const BUSY_WAIT: Duration = Duration::from_secs(5);
/// SQLite's page cache, in KiB: rows are read in order and once, so there is nothing to keep.
const CACHE_KIB: i64 = 256;
/// What SQLite writes beside a database, by the ends of the names: the log in WAL mode, the journal in the others.
const WRITTEN: [&str; 2] = ["-wal", "-journal"];
/// Bounds of `poll_interval_ms`.
const POLL_MS: std::ops::RangeInclusive<u64> = 10..=3_600_000;

/// Reads a table (or a query) of a SQLite database, row by row in the order of a cursor column.
///
/// The database is opened read-only, may be in WAL or rollback mode, and may be written by other processes meanwhile.
/// New rows are found as long as their cursor value is higher than every one committed before: rowids that SQLite
/// assigns are, times that a program takes before it starts its transaction may not be. Give the cursor column an index.
/// With the rowid as cursor, declare the key `INTEGER PRIMARY KEY AUTOINCREMENT` if the newest rows get deleted: without
/// AUTOINCREMENT SQLite gives their numbers to other rows.
///
/// Columns declared INTEGER, REAL, TEXT and BLOB have the types i64, f64, text and bytes; other columns are of any type,
/// and so is a column in a batch where one of its values is not of the declared type. Rows with text that is not UTF-8,
/// and rows whose cursor value is NULL, go to the dead letters.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// The database file. A relative path starts in the daemon's directory.
    path: PathBuf,
    /// The table or view to read. Either this or `query`.
    table: Option<String>,
    /// A SELECT to read instead of a table. Needs a `cursor` that is unique in its result; rows where it is NULL are left
    /// out.
    query: Option<String>,
    /// The column whose values only rise. Default: the rowid. Rows of equal values are told apart by their rowids; in a
    /// view, a query or a WITHOUT ROWID table the values have to be unique.
    cursor: Option<String>,
    /// Most rows in a batch; a batch also ends at 56 KB.
    #[serde(default = "default_rows")]
    #[schemars(range(min = 1, max = 65536))]
    batch_rows_max: usize,
    /// How often to look for new rows, in milliseconds, where the system does not tell of changes at once (Linux does, but
    /// for what other machines write to a network file system).
    #[serde(default = "default_poll")]
    #[schemars(range(min = 10, max = 3600000))]
    poll_interval_ms: u64,
}

fn default_rows() -> usize {
    4096
}

fn default_poll() -> u64 {
    250
}

/// The component.
pub const SOURCE: Component = Component {
    descriptor,
    build: Build::Source(build),
};

const EXAMPLE: &str = r#"name = "readings"

[sources.readings]
type = "sqlite"
path = "/var/lib/plant/readings.db"
table = "readings"
cursor = "id"

[destinations.out]
type = "stdout"
from = "readings"
"#;

fn descriptor() -> Descriptor {
    let summary = "Rows of a SQLite table or query, read incrementally by a cursor column";
    Descriptor {
        durable: true,
        ..describe::<Config>(ComponentRole::Source, "sqlite", summary, EXAMPLE)
    }
}

fn build(config: &str, context: &BuildContext) -> Result<Box<dyn Source>, ConfigError> {
    let config: Config = parse_config(config)?;
    if config.path.as_os_str().is_empty() {
        return Err(ConfigError::at("path", "is empty: name the database file"));
    }
    if !(1..=ROWS_MAX).contains(&config.batch_rows_max) {
        return Err(ConfigError::at(
            "batch_rows_max",
            format!("must be from 1 to {ROWS_MAX}"),
        ));
    }
    if !POLL_MS.contains(&config.poll_interval_ms) {
        let message = format!("must be from {} to {} milliseconds", POLL_MS.start(), POLL_MS.end());
        return Err(ConfigError::at("poll_interval_ms", message));
    }
    let nul = |text: &str| text.contains('\0');
    if config
        .cursor
        .as_deref()
        .is_some_and(|cursor| cursor.is_empty() || nul(cursor))
    {
        return Err(ConfigError::at(
            "cursor",
            "is not a column name: leave it out to read by rowid",
        ));
    }
    let subject = match (config.table, config.query) {
        (Some(table), None) if table.is_empty() || nul(&table) => {
            return Err(ConfigError::at("table", "is not a table name"));
        }
        (Some(table), None) => Subject::Table(table),
        (None, Some(_)) if config.cursor.is_none() => {
            return Err(ConfigError::at(
                "cursor",
                "is needed with query: name a result column whose values only rise",
            ));
        }
        (None, Some(sql)) if nul(&sql) => return Err(ConfigError::at("query", "contains a NUL character")),
        (None, Some(sql)) => {
            let name = if context.node.is_empty() {
                "query".to_string()
            } else {
                context.node.clone()
            };
            Subject::Query { sql, name }
        }
        (Some(_), Some(_)) => return Err(ConfigError::at("query", "cannot be given together with table")),
        (None, None) => return Err(ConfigError::at("table", "is missing: name a table, or give a query")),
    };
    Ok(Box::new(SqliteSource {
        path: database_path(&context.base_dir, &config.path),
        subject,
        cursor: config.cursor,
        rows_max: config.batch_rows_max,
        poll_interval: Duration::from_millis(config.poll_interval_ms),
        reader: None,
        watch: None,
    }))
}

struct SqliteSource {
    path: PathBuf,
    subject: Subject,
    cursor: Option<String>,
    rows_max: usize,
    poll_interval: Duration,
    /// Moves into the blocking call and back.
    reader: Option<Box<Reader>>,
    /// When to look. There once it is open.
    watch: Option<Watch>,
}

#[async_trait]
impl Source for SqliteSource {
    async fn open(&mut self, after: Option<&Position>) -> Result<(), Fault> {
        self.close().await;
        let (path, subject, cursor) = (self.path.clone(), self.subject.clone(), self.cursor.clone());
        let (after, rows_max) = (after.cloned(), self.rows_max);
        let poll_interval = self.poll_interval;
        let open = move || {
            let watch = Watch::new(&path, &WRITTEN, poll_interval);
            Ok((watch, Reader::open(path, subject, cursor, after.as_ref(), rows_max)?))
        };
        let (watch, reader) = spawn_blocking(open).await.map_err(stopped)??;
        (self.watch, self.reader) = (Some(watch), Some(reader));
        Ok(())
    }

    async fn read(&mut self) -> Result<Read, Fault> {
        let give_up = Instant::now() + READ_WAIT_MAX;
        let not_open = || Fault::retry("the sqlite source is not open");
        let watch = self.watch.as_mut().ok_or_else(not_open)?;
        while watch.due(give_up).await {
            let (wire, looked_at) = (watch.wire(), Instant::now());
            let mut reader = self.reader.take().ok_or_else(not_open)?;
            let polled = spawn_blocking(move || {
                if let Some(wire) = wire {
                    wire.arm();
                }
                let found = reader.poll();
                (reader, found)
            });
            let (reader, found) = polled.await.map_err(stopped)?;
            let full = reader.full;
            self.reader = Some(reader);
            let found = found?;
            let told = match &found {
                _ if full => Found::More,
                Some(_) => Found::Some,
                None => Found::Nothing,
            };
            watch.looked(looked_at, told);
            if let Some(batch) = found {
                return Ok(Read::Batch(batch));
            }
        }
        Ok(Read::Idle)
    }

    async fn close(&mut self) {
        self.watch = None;
        if let Some(reader) = self.reader.take() {
            let _ = spawn_blocking(move || drop(reader)).await;
        }
    }
}

fn stopped(error: tokio::task::JoinError) -> Fault {
    Fault::retry(format!("reading SQLite was interrupted: {error}"))
}

/// The open database and how far it has been read. All its methods block.
struct Reader {
    conn: Connection,
    path: PathBuf,
    /// Device and inode of the open file: another file may take over its name.
    file: (u64, u64),
    subject: Subject,
    cursor: Option<String>,
    rows_max: usize,
    layout: Layout,
    /// `PRAGMA schema_version` the layout is of.
    schema_version: i64,
    bookmark: Bookmark,
    /// `PRAGMA data_version` at which everything had been read.
    caught_up: Option<i64>,
    /// The last page was full.
    full: bool,
    warned: bool,
}

impl Reader {
    fn open(
        path: PathBuf,
        subject: Subject,
        cursor: Option<String>,
        after: Option<&Position>,
        rows_max: usize,
    ) -> Result<Box<Self>, Fault> {
        let failed = |error| fault("open the database", &path, &error);
        // Before opening: if the file is replaced in between, the first poll sees that.
        let file = identity(&path)?;
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let conn = Connection::open_with_flags(&path, flags).map_err(failed)?;
        conn.busy_timeout(BUSY_WAIT).map_err(failed)?;
        conn.pragma_update(None, "cache_size", -CACHE_KIB).map_err(failed)?;
        let schema_version = pragma(&conn, "schema_version").map_err(failed)?;
        let layout = Layout::load(&conn, &path, &subject, cursor.as_deref())?;
        let bookmark = match after {
            Some(position) => Bookmark::from_position(position, &layout.cursor)?,
            None => Bookmark {
                cursor: layout.cursor.clone(),
                ..Bookmark::default()
            },
        };
        if layout.sorts(&conn).map_err(failed)? {
            let (table, cursor) = (&layout.schema.collection, &layout.cursor);
            tracing::warn!(path = %path.display(), table, cursor, "no index in the cursor's order: SQLite sorts all rows for every batch");
        }
        Ok(Box::new(Self {
            conn,
            file,
            subject,
            cursor,
            rows_max,
            layout,
            schema_version,
            bookmark,
            caught_up: None,
            full: false,
            warned: false,
            path,
        }))
    }

    /// The next rows, or `None` when nothing has changed since everything was read.
    fn poll(&mut self) -> Result<Option<SourceBatch>, Fault> {
        self.full = false;
        if identity(&self.path)? != self.file {
            return Err(Fault::retry(format!(
                "{} was replaced by another file: opening it again",
                self.path.display()
            )));
        }
        let path = self.path.clone();
        let failed = |error: rusqlite::Error| fault("read rows", &path, &error);
        if self.caught_up == Some(pragma(&self.conn, "data_version").map_err(failed)?) {
            return Ok(None);
        }

        // One read transaction sees one state of the database, schema and rows alike. It cannot see a row and miss one
        // with a lower rowid: SQLite has a single writer at a time, so transactions commit in the order in which they
        // were given their rowids, and a snapshot holds all of an order's beginning.
        self.conn.execute_batch("BEGIN").map_err(failed)?;
        let page = self.read_page();
        let _ = self.conn.execute_batch("COMMIT");
        let page = page?;
        page.map(|(batch, undecodable)| {
            Ok(SourceBatch {
                batch,
                position: self.bookmark.position(),
                undecodable,
            })
        })
        .transpose()
    }

    fn read_page(&mut self) -> Result<Option<(bus_schema::data::Batch, Vec<flow::Undecodable>)>, Fault> {
        let path = self.path.clone();
        let failed = |error: rusqlite::Error| fault("read rows", &path, &error);
        let data_version = pragma(&self.conn, "data_version").map_err(failed)?;
        let schema_version = pragma(&self.conn, "schema_version").map_err(failed)?;
        if schema_version != self.schema_version {
            self.layout = Layout::load(&self.conn, &self.path, &self.subject, self.cursor.as_deref())?;
            self.schema_version = schema_version;
        }

        let mut page = Page::new(&self.layout, self.bookmark.clone(), self.rows_max);
        fill(&self.conn, &self.layout, &mut page).map_err(failed)?;
        if page.place_too_long() {
            let (table, cursor) = (&self.layout.schema.collection, &self.layout.cursor);
            return Err(Fault::stop(format!(
                "a value of the cursor column '{cursor}' of '{table}' is longer than {PLACE_BYTES_MAX} bytes: \
                 choose another cursor"
            )));
        }
        self.full = page.full;
        if page.is_empty() {
            self.caught_up = Some(data_version);
            self.step_back().map_err(failed)?;
            return Ok(None);
        }
        if !page.full {
            self.caught_up = Some(data_version);
        }
        let (batch, bookmark, undecodable) = page.batch().map_err(Fault::stop)?;
        self.bookmark = bookmark;
        Ok(Some((batch, undecodable)))
    }

    /// After the newest rows were deleted SQLite gives their rowids to new rows: the bookmark must not stand above them.
    fn step_back(&mut self) -> rusqlite::Result<()> {
        let (Some(sql), Some(Place::Integer(place))) = (&self.layout.highest, &self.bookmark.place) else {
            return Ok(());
        };
        let highest: Option<i64> = self.conn.prepare_cached(sql)?.query_row([], |row| row.get(0))?;
        if highest.is_some_and(|highest| highest >= *place) {
            return Ok(());
        }
        if !self.warned {
            self.warned = true;
            let table = &self.layout.schema.collection;
            tracing::warn!(path = %self.path.display(), table, read = place, highest, "the newest rows were deleted; without AUTOINCREMENT their rowids are given again, and rows that got one before this was seen are missed");
        }
        self.bookmark.place = highest.map(Place::Integer);
        Ok(())
    }
}

/// Reads in the cursor's order: what is left of the last value, then higher values, then what has no value.
fn fill(conn: &Connection, layout: &Layout, page: &mut Page<'_>) -> rusqlite::Result<()> {
    if let Some(place) = page.bookmark.place.clone() {
        if let (Some(sql), Some(rowid)) = (&layout.ties, page.bookmark.rowid) {
            let mut statement = conn.prepare_cached(sql)?;
            statement.raw_bind_parameter(1, &place)?;
            statement.raw_bind_parameter(2, rowid)?;
            run(&mut statement, 3, page)?;
        }
        if !page.full {
            let mut statement = conn.prepare_cached(&layout.after)?;
            statement.raw_bind_parameter(1, &place)?;
            run(&mut statement, 2, page)?;
        }
    } else {
        let mut statement = conn.prepare_cached(&layout.start)?;
        run(&mut statement, 1, page)?;
    }
    if let (false, Some(sql)) = (page.full, &layout.nulls) {
        let mut statement = conn.prepare_cached(sql)?;
        match page.bookmark.nulls {
            Some(rowid) => statement.raw_bind_parameter(1, rowid)?,
            // Below every rowid, the lowest included.
            None => statement.raw_bind_parameter(1, f64::NEG_INFINITY)?,
        }
        run(&mut statement, 2, page)?;
    }
    Ok(())
}

/// Binds how many rows still fit, and takes them.
fn run(statement: &mut Statement<'_>, limit: usize, page: &mut Page<'_>) -> rusqlite::Result<()> {
    statement.raw_bind_parameter(limit, page.rows_left() as i64)?;
    page.fill(statement)
}

fn pragma(conn: &Connection, name: &str) -> rusqlite::Result<i64> {
    conn.prepare_cached(&format!("PRAGMA {name}"))?
        .query_row([], |row| row.get(0))
}

fn identity(path: &Path) -> Result<(u64, u64), Fault> {
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => Err(Fault::stop(format!(
            "{} is a directory, not a database",
            path.display()
        ))),
        Ok(found) => Ok((found.dev(), found.ino())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Err(Fault::retry(format!("there is no file {}", path.display())))
        }
        Err(error) => Err(Fault::retry(format!("cannot read {}: {error}", path.display()))),
    }
}
