//! Source `sqlite`: its settings, which of the ways of reading they ask for, and when it looks. Reads nothing itself.

use std::{path::PathBuf, time::Duration};

use async_trait::async_trait;
use bus_schema::{
    limits::ROWS_MAX,
    plan::{ComponentRole, Descriptor},
};
use flow::{
    Build, BuildContext, Component, ConfigError, Fault, Position, READ_WAIT_MAX, Read, Source, SourceBatch, Trouble,
    describe, parse_config,
};
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::{task::spawn_blocking, time::Instant};

use super::{
    changes::{self, ChangesReader},
    check,
    cursor::{self, CursorReader},
    database_path,
    journal::Journal,
    layout::Subject,
};
use crate::{
    names::of_node,
    reach::as_trouble,
    watch::{Found, Watch},
};

/// What SQLite writes beside a database, by the ends of the names: the log in WAL mode, the journal in the others.
const WRITTEN: [&str; 2] = ["-wal", "-journal"];
/// At most this often what every destination has is taken off the journal of changes, while there are any.
const FORGET_PAUSE: Duration = Duration::from_secs(1);
/// Bounds of `poll_interval_ms`.
const POLL_MS: std::ops::RangeInclusive<u64> = 10..=3_600_000;
/// Bounds of `journal_rows_max`, and what it is unless given.
const JOURNAL_ROWS: std::ops::RangeInclusive<u64> = 1_000..=1_000_000_000;
const JOURNAL_ROWS_MAX: u64 = 1_000_000;

/// Reads a table of a SQLite database: either new rows in the order of a cursor column, or every change.
///
/// The database may be in WAL or rollback mode, and may be written by other processes meanwhile.
///
/// **`mode = "cursor"`** reads a table or a query, and never writes to the database. New rows are found as long as their
/// cursor value is higher than every one committed before: rowids that SQLite
/// assigns are, times that a program takes before it starts its transaction may not be. Give the cursor column an index.
/// With the rowid as cursor, declare the key `INTEGER PRIMARY KEY AUTOINCREMENT` if the newest rows get deleted: without
/// AUTOINCREMENT SQLite gives their numbers to other rows.
///
/// **`mode = "changes"`** reads the rows there are and then every insert, update and delete, in the order in which they were
/// made and without a gap, whichever process makes them. For that it makes three triggers on the table and a journal beside
/// it, which the triggers write in the transaction that changes a row; what every destination has is taken off it again. The
/// daemon needs write access to the file and its directory, the table a primary key. Inserts arrive as upserts, because
/// INSERT OR REPLACE looks the same; deletes have the key only; another key is a delete and an insert. A row that REPLACE
/// removes because of *another* unique index is only seen if the program sets `PRAGMA recursive_triggers = ON`. Columns may
/// be added and renamed, and the table renamed; a column can be dropped only without the triggers. When nobody fetches the
/// changes the journal takes `journal_rows_max` and no more, the program that writes goes on, and the source stops there with
/// the cause. Triggers and journal stay when the workflow is gone, until somebody drops them: the log and the guide say how.
/// A new column's default reaches rows that change afterwards. Rows with NULL in the key go to the dead letters.
///
/// Columns declared INTEGER, REAL, TEXT and BLOB have the types i64, f64, text and bytes; other columns are of any type,
/// and so is a column in a batch where one of its values is not of the declared type. Rows with text that is not UTF-8,
/// and rows whose cursor value is NULL, go to the dead letters.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// The database file. A relative path starts in the daemon's directory.
    path: PathBuf,
    /// How to read.
    #[serde(default)]
    mode: Mode,
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
    /// Changes: the table that is made for them. Default: `mycelial_WORKFLOW_NODE`, with other characters replaced.
    journal: Option<String>,
    /// Changes: most rows in the journal, before it gives up. Default: 1,000,000.
    #[schemars(range(min = 1000, max = 1000000000))]
    journal_rows_max: Option<u64>,
    /// Changes: whether to begin with the rows there are. Default: true.
    snapshot: Option<bool>,
}

/// How to read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Mode {
    /// New rows, in the order of a cursor.
    #[default]
    Cursor,
    /// The rows there are, and then every change.
    Changes,
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
    let summary = "Rows of a SQLite table or query by a cursor, or every change of a table";
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
    let way = match config.mode {
        Mode::Cursor => Way::Cursor(cursor_settings(&config, context)?),
        Mode::Changes => Way::Changes(changes_settings(&config, context)?),
    };
    Ok(Box::new(SqliteSource {
        path: database_path(&context.base_dir, &config.path),
        way,
        poll_interval: Duration::from_millis(config.poll_interval_ms),
        reader: None,
        watch: None,
        committed: None,
        forgot: Instant::now(),
        cannot_forget: false,
    }))
}

fn cursor_settings(config: &Config, context: &BuildContext) -> Result<cursor::Settings, ConfigError> {
    let others = [
        ("journal", config.journal.is_some()),
        ("journal_rows_max", config.journal_rows_max.is_some()),
        ("snapshot", config.snapshot.is_some()),
    ];
    if let Some((key, _)) = others.iter().find(|(_, given)| *given) {
        return Err(ConfigError::at(*key, "is of use only with mode = \"changes\""));
    }
    if config.cursor.as_deref().is_some_and(is_no_name) {
        return Err(ConfigError::at(
            "cursor",
            "is not a column name: leave it out to read by rowid",
        ));
    }
    let subject = match (&config.table, &config.query) {
        (Some(table), None) if is_no_name(table) => return Err(ConfigError::at("table", "is not a table name")),
        (Some(table), None) => Subject::Table(table.clone()),
        (None, Some(_)) if config.cursor.is_none() => {
            return Err(ConfigError::at(
                "cursor",
                "is needed with query: name a result column whose values only rise",
            ));
        }
        (None, Some(sql)) if sql.contains('\0') => return Err(ConfigError::at("query", "contains a NUL character")),
        (None, Some(sql)) => Subject::Query {
            sql: sql.clone(),
            name: if context.node.is_empty() {
                "query"
            } else {
                &context.node
            }
            .to_string(),
        },
        (Some(_), Some(_)) => return Err(ConfigError::at("query", "cannot be given together with table")),
        (None, None) => return Err(ConfigError::at("table", "is missing: name a table, or give a query")),
    };
    Ok(cursor::Settings {
        subject,
        cursor: config.cursor.clone(),
        rows_max: config.batch_rows_max,
    })
}

fn changes_settings(config: &Config, context: &BuildContext) -> Result<changes::Settings, ConfigError> {
    let others = [("query", config.query.is_some()), ("cursor", config.cursor.is_some())];
    if let Some((key, _)) = others.iter().find(|(_, given)| *given) {
        return Err(ConfigError::at(*key, "is of no use with mode = \"changes\""));
    }
    let Some(table) = &config.table else {
        return Err(ConfigError::at(
            "table",
            "is missing: name the table whose changes to read",
        ));
    };
    if is_no_name(table) {
        return Err(ConfigError::at("table", "is not a table name"));
    }
    let default = || of_node("sqlite journal", &context.workflow, &context.node);
    let name = config.journal.clone().unwrap_or_else(default);
    let is_taken = name.eq_ignore_ascii_case(table) || name.to_ascii_lowercase().starts_with("sqlite_");
    if is_no_name(&name) || is_taken {
        return Err(ConfigError::at("journal", "is not a name for a new table"));
    }
    let rows_max = config.journal_rows_max.unwrap_or(JOURNAL_ROWS_MAX);
    if !JOURNAL_ROWS.contains(&rows_max) {
        let message = format!("must be from {} to {}", JOURNAL_ROWS.start(), JOURNAL_ROWS.end());
        return Err(ConfigError::at("journal_rows_max", message));
    }
    Ok(changes::Settings {
        table: table.clone(),
        journal: Journal { name, rows_max },
        snapshot: config.snapshot.unwrap_or(true),
        rows_max: config.batch_rows_max,
    })
}

fn is_no_name(text: &str) -> bool {
    text.is_empty() || text.contains('\0')
}

/// What reads a database. All its methods block.
pub(super) trait Reader: Send {
    /// The next records; `None` when there are none.
    fn poll(&mut self) -> Result<Option<SourceBatch>, Fault>;

    /// There may be more at once.
    fn has_more(&self) -> bool;

    /// Every destination has what was read up to `position`. `false`: it is to be said again later.
    fn forget(&mut self, position: &Position) -> Result<bool, Fault> {
        let _ = position;
        Ok(true)
    }
}

/// The ways of reading.
#[derive(Debug, Clone)]
enum Way {
    Cursor(cursor::Settings),
    Changes(changes::Settings),
}

impl Way {
    fn open(self, path: PathBuf, after: Option<&Position>) -> Result<Box<dyn Reader>, Fault> {
        Ok(match self {
            Way::Cursor(settings) => Box::new(CursorReader::open(path, settings, after)?),
            Way::Changes(settings) => Box::new(ChangesReader::open(path, settings, after)?),
        })
    }
}

struct SqliteSource {
    path: PathBuf,
    way: Way,
    poll_interval: Duration,
    /// Moves into the blocking call and back.
    reader: Option<Box<dyn Reader>>,
    /// When to look. There once it is open.
    watch: Option<Watch>,
    /// What every destination has, and the reader has not been told.
    committed: Option<Position>,
    /// When it was told last, and whether it could do nothing about it.
    forgot: Instant,
    cannot_forget: bool,
}

impl SqliteSource {
    /// Tells the reader what every destination has.
    async fn forget(&mut self) -> Result<(), Fault> {
        let Some(position) = self.committed.clone() else {
            return Ok(());
        };
        let Some(mut reader) = self.reader.take() else {
            return Ok(());
        };
        self.forgot = Instant::now();
        let forget = move || {
            let done = reader.forget(&position);
            (reader, done)
        };
        let (reader, done) = spawn_blocking(forget).await.map_err(stopped)?;
        self.reader = Some(reader);
        match done {
            Ok(true) => self.committed = None,
            Ok(false) => {}
            // Records go on; it is said again with what is committed next, or when nothing comes.
            Err(fault) if !self.cannot_forget => {
                self.cannot_forget = true;
                tracing::warn!(%fault, "what has been delivered stays in the journal of changes for now");
                return Ok(());
            }
            Err(_) => return Ok(()),
        }
        self.cannot_forget = false;
        Ok(())
    }
}

#[async_trait]
impl Source for SqliteSource {
    async fn open(&mut self, after: Option<&Position>) -> Result<(), Fault> {
        self.close().await;
        let (path, way, after) = (self.path.clone(), self.way.clone(), after.cloned());
        let poll_interval = self.poll_interval;
        let open = move || {
            let watch = Watch::new(&path, &WRITTEN, poll_interval);
            Ok((watch, way.open(path, after.as_ref())?))
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
            let has_more = reader.has_more();
            self.reader = Some(reader);
            let found = found?;
            let told = match &found {
                _ if has_more => Found::More,
                Some(_) => Found::Some,
                None => Found::Nothing,
            };
            watch.looked(looked_at, told);
            if let Some(batch) = found {
                return Ok(Read::Batch(batch));
            }
        }
        // Nothing comes, so nobody waits for this.
        self.forget().await?;
        Ok(Read::Idle)
    }

    async fn commit(&mut self, position: &Position) -> Result<(), Fault> {
        if matches!(self.way, Way::Changes(_)) {
            self.committed = Some(position.clone());
            if self.forgot.elapsed() >= FORGET_PAUSE {
                self.forget().await?;
            }
        }
        Ok(())
    }

    async fn check(&mut self) -> Result<String, Trouble> {
        let (path, way) = (self.path.clone(), self.way.clone());
        let check = move || match way {
            Way::Cursor(settings) => check::cursor(&path, &settings),
            Way::Changes(settings) => check::changes(&path, &settings),
        };
        let checked = spawn_blocking(check).await;
        checked.unwrap_or_else(|error| Err(as_trouble(&stopped(error))))
    }

    async fn close(&mut self) {
        // What was committed last. If that fails it is said again when more is.
        let _ = self.forget().await;
        self.watch = None;
        if let Some(reader) = self.reader.take() {
            let _ = spawn_blocking(move || drop(reader)).await;
        }
    }
}

fn stopped(error: tokio::task::JoinError) -> Fault {
    Fault::retry(format!("reading SQLite was interrupted: {error}"))
}
