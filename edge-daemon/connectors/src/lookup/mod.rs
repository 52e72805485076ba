//! Transform `lookup`: adds what a table says about a value: a CSV file, or a table of SQLite or PostgreSQL. All of it is kept
//! in memory and read again from time to time; a batch waits for that only if what is in memory is older than it should be.

mod file;
mod table;
#[cfg(test)]
mod tests;

use std::{path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use bus_schema::{
    data::{Batch, Cell, Column, Field, Schema, Type},
    plan::{ComponentRole, Descriptor},
};
use flow::{
    Build, BuildContext, Component, ConfigError, Fault, Outside, Transform, Transformed, Trouble, TroubleKind,
    describe, parse_config,
};
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::{
    task::{JoinHandle, spawn_blocking},
    time::{Instant, timeout},
};

use self::{
    file::{CsvFile, Stamp},
    table::Table,
};
use crate::{
    file::text::shorten,
    ordered::Ordered,
    postgres::{self, Tls},
    reach,
    secret::SecretRef,
    sqlite,
};

/// Bounds of `refresh_ms`, and what it is unless given.
const REFRESH_MS: std::ops::RangeInclusive<u64> = 100..=86_400_000;
const REFRESH_MS_USUAL: u64 = 60_000;
/// How long reading a table may take.
const READ_WAIT: Duration = Duration::from_secs(30);
/// How long a check reads: with all that comes before it, less than a check may take.
const CHECK_READ_WAIT: Duration = Duration::from_secs(5);

/// Adds what a table says about a value: a CSV file (`file`), or a table or query of a SQLite (`sqlite`) or PostgreSQL
/// (`postgres`) database. All that is asked for is kept in memory, up to 4 MiB as the daemon counts it (about 40,000 rows of two
/// short columns).
///
/// A file, of 2 MiB at most, is read when the first records come and again whenever it has changed: put a new one in its place by
/// renaming, so that no half of it is read. A table of a database is read when the first records come, and again in the
/// background every `refresh_ms`. A record may get what was true twice so long ago, and as long as reading the table takes; rather
/// than something older it waits until the table is read again.
///
/// Without a first copy the workflow waits. Later, a table that cannot be reached, a file that cannot be read, one that says two
/// things about one value, or one that is too large is warned of once, and what was read before holds until it is mended.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// The column of the records whose value is looked up. It is compared as the text it shows.
    column: String,
    /// A CSV file, whose first line names its columns; a relative path starts in the daemon's directory.
    file: Option<PathBuf>,
    /// A SQLite database.
    sqlite: Option<SqliteConfig>,
    /// A PostgreSQL database.
    postgres: Option<PostgresConfig>,
    /// The column of the table in which the value stands; without this, the one with the same name.
    key: Option<String>,
    /// New column = column of the table. The values are texts; `cast` gives them types. A column the records have is replaced.
    columns: Ordered<String>,
    /// What separates the fields of a file, an ASCII character; without this a comma.
    delimiter: Option<char>,
    /// How often a table of a database is read again, in milliseconds: 100 to 86,400,000. Default: 60,000.
    #[schemars(range(min = 100, max = 86_400_000))]
    refresh_ms: Option<u64>,
    /// What happens to a record whose value the table does not have. One without a value gets nulls.
    #[serde(default)]
    unknown: Unknown,
}

/// A table or query of a SQLite database.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct SqliteConfig {
    /// The database file. A relative path starts in the daemon's directory.
    path: PathBuf,
    /// The table or view. Either this or `query`.
    table: Option<String>,
    /// A SELECT instead of a table.
    query: Option<String>,
}

/// A table or query of a PostgreSQL database.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct PostgresConfig {
    /// `postgres://USER:PASSWORD@HOST:PORT/DATABASE`, plain or from elsewhere. Instead of host, port, user, database and
    /// password.
    url: Option<SecretRef>,
    /// Name or address of the server, or the directory of its Unix socket.
    host: Option<String>,
    /// Port of the server. Default: 5432.
    port: Option<u16>,
    /// Whom to log in as. The role needs SELECT.
    user: Option<String>,
    /// Which database.
    database: Option<String>,
    /// The password.
    password: Option<SecretRef>,
    /// How the connection is protected. Default: TLS with the server's name verified.
    #[serde(default)]
    tls: Tls,
    /// The schema of the table. Default: public.
    schema: Option<String>,
    /// The table or view. Either this or `query`.
    table: Option<String>,
    /// A SELECT instead of a table.
    query: Option<String>,
}

/// What happens to a record whose value the table does not have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Unknown {
    /// The new columns become null.
    #[default]
    Null,
    /// It goes to the dead letters.
    Reject,
}

/// The registry line.
pub(crate) const TRANSFORM: Component = Component {
    descriptor,
    build: Build::Transform(build),
};

const EXAMPLE: &str = r#"name = "known"

[sources.readings]
type = "file"
path = "readings.jsonl"
format = "json_lines"

[transforms.known]
type = "lookup"
from = "readings"
column = "line"
file = "lines.csv"
columns = { hall = "hall", foreman = "name" }

[destinations.out]
type = "stdout"
from = "known"
"#;

fn descriptor() -> Descriptor {
    let summary = "Adds what a CSV file or a table of a database says about a value";
    describe::<Config>(ComponentRole::Transform, "lookup", summary, EXAMPLE)
}

fn build(config: &str, context: &BuildContext) -> Result<Box<dyn Transform>, ConfigError> {
    let config: Config = parse_config(config)?;
    if config.columns.0.is_empty() {
        return Err(ConfigError::at("columns", "name at least one column to add"));
    }
    let refresh_ms = config.refresh_ms.unwrap_or(REFRESH_MS_USUAL);
    if !REFRESH_MS.contains(&refresh_ms) {
        let message = format!(
            "must be from {} to {} milliseconds",
            REFRESH_MS.start(),
            REFRESH_MS.end()
        );
        return Err(ConfigError::at("refresh_ms", message));
    }
    if config.file.is_none() && config.delimiter.is_some() {
        return Err(ConfigError::at("delimiter", "is of use only with a file"));
    }
    if config.file.is_some() && config.refresh_ms.is_some() {
        return Err(ConfigError::at(
            "refresh_ms",
            "is of no use with a file: it is read again when it changes",
        ));
    }
    let key = config.key.clone().unwrap_or_else(|| config.column.clone());
    let (new, wanted): (Vec<String>, Vec<String>) = config.columns.0.iter().cloned().unzip();
    let place = place(
        config.file,
        config.sqlite,
        config.postgres,
        config.delimiter,
        (key, wanted),
        context,
    )?;
    Ok(Box::new(Lookup {
        place: Arc::new(place),
        column: config.column,
        columns: new,
        unknown: config.unknown,
        refresh: Duration::from_millis(refresh_ms),
        table: None,
        age: Age {
            begun: Instant::now(),
            took: Duration::ZERO,
        },
        seen: None,
        next: Instant::now(),
        reading: None,
        told: String::new(),
    }))
}

fn place(
    file: Option<PathBuf>,
    sqlite: Option<SqliteConfig>,
    postgres: Option<PostgresConfig>,
    delimiter: Option<char>,
    (key, columns): (String, Vec<String>),
    context: &BuildContext,
) -> Result<Place, ConfigError> {
    let mut all = vec![key.clone()];
    all.extend(columns.iter().cloned());
    match (file, sqlite, postgres) {
        (Some(file), None, None) => Ok(Place::File(CsvFile {
            path: context.base_dir.join(file),
            delimiter: delimiter_of(delimiter)?,
            key,
            columns,
        })),
        (None, Some(config), None) => {
            let from = match (config.table, config.query) {
                (Some(table), None) => sqlite::From::Table(table),
                (None, Some(query)) => sqlite::From::Query(query),
                _ => return Err(ConfigError::at("sqlite.table", "give a table or a query")),
            };
            let path = sqlite::database_path(&context.base_dir, &config.path);
            Ok(Place::Sqlite {
                path,
                from,
                columns: all,
            })
        }
        (None, None, Some(config)) => {
            let from = match (config.table, config.query) {
                (Some(table), None) => {
                    postgres::From::Table(config.schema.unwrap_or_else(|| "public".to_string()), table)
                }
                (None, Some(query)) => postgres::From::Query(query),
                _ => return Err(ConfigError::at("postgres.table", "give a table or a query")),
            };
            let server = postgres::Server {
                url: config.url,
                host: config.host,
                port: config.port,
                user: config.user,
                database: config.database,
                password: config.password,
                tls: config.tls,
            };
            server
                .check()
                .map_err(|error| ConfigError::at(format!("postgres.{}", error.key), error.message))?;
            Ok(Place::Postgres {
                server: Box::new(server),
                from,
                columns: all,
                base_dir: context.base_dir.clone(),
                name: format!("mycelial {}/{}", context.workflow, context.node),
            })
        }
        _ => Err(ConfigError::at(
            "file",
            "say where to look: set one of file, sqlite and postgres",
        )),
    }
}

fn delimiter_of(char: Option<char>) -> Result<u8, ConfigError> {
    let byte = u8::try_from(char.unwrap_or(',')).ok().filter(u8::is_ascii);
    byte.filter(|byte| !matches!(byte, b'"' | b'\r' | b'\n'))
        .ok_or_else(|| ConfigError::at("delimiter", "it is an ASCII character that is no quote and no line end"))
}

/// Where the table is, and what is wanted of it: the key, then the columns.
enum Place {
    File(CsvFile),
    Sqlite {
        path: PathBuf,
        from: sqlite::From,
        columns: Vec<String>,
    },
    Postgres {
        server: Box<postgres::Server>,
        from: postgres::From,
        columns: Vec<String>,
        base_dir: PathBuf,
        name: String,
    },
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Place::File(file) => write!(f, "{}", file.path.display()),
            Place::Sqlite { path, .. } => write!(f, "{}", path.display()),
            Place::Postgres { .. } => f.write_str("the table of PostgreSQL"),
        }
    }
}

impl Place {
    /// Reads all of it, within a time.
    async fn read(self: Arc<Self>) -> Result<Table, Unread> {
        let reading = async {
            let Place::Postgres {
                server,
                from,
                columns,
                base_dir,
                name,
            } = &*self
            else {
                let place = Arc::clone(&self);
                return in_background(move || place.read_here()).await;
            };
            Ok(all(postgres::Texts::connect(server, base_dir, name, (from, columns)).await?).await?)
        };
        let silent = || Err(format!("it was not read within {} seconds", READ_WAIT.as_secs()).into());
        timeout(READ_WAIT, reading).await.unwrap_or_else(|_| silent())
    }

    /// Whether the way to it is open, it has the columns, and all of it fits, as far as that shows in a short time.
    async fn check(self: Arc<Self>) -> Result<String, Trouble> {
        let unread = |unread: Unread| {
            let cause = format!("cannot look up in {self}: {}", unread.cause);
            let remedy = "mend what the cause names, or correct the keys of the lookup";
            Trouble::new(TroubleKind::Other, cause, remedy)
        };
        let read = match &*self {
            Place::Postgres {
                server,
                from,
                columns,
                base_dir,
                name,
            } => {
                let client = postgres::reach(server, base_dir, name).await?;
                let found = postgres::Texts::find(client, from, columns).await;
                let texts = found.map_err(|cause| unread(cause.into()))?;
                let reading = async { all(texts).await.map_err(Unread::from) };
                timeout(CHECK_READ_WAIT, reading).await
            }
            Place::File(CsvFile { path, .. }) | Place::Sqlite { path, .. } => {
                if !reach::readable_file(path)? {
                    let cause = format!("there is no file {}", path.display());
                    return Err(reach::missing(cause, "put it there, or correct the path"));
                }
                let place = Arc::clone(&self);
                in_background(move || place.find_here()).await.map_err(unread)?;
                timeout(CHECK_READ_WAIT, Arc::clone(&self).read()).await
            }
        };
        match read {
            Ok(Ok(_)) => Ok(format!("{self} can be read, and has the columns")),
            Ok(Err(cause)) => Err(unread(cause)),
            Err(_) => Ok(format!(
                "{self} has the columns; all of it takes longer to read than {} seconds (a lookup waits for {})",
                CHECK_READ_WAIT.as_secs(),
                READ_WAIT.as_secs()
            )),
        }
    }

    /// Whether what is on this machine has the columns, where that shows before it is read. Blocks.
    fn find_here(&self) -> Result<(), Unread> {
        match self {
            Place::Sqlite { path, from, columns } => Ok(sqlite::find_texts(path, from, columns)?),
            Place::File(_) | Place::Postgres { .. } => Ok(()),
        }
    }

    /// Reads what is on this machine. Blocks.
    fn read_here(&self) -> Result<Table, Unread> {
        let mut table = Table::default();
        match self {
            Place::File(file) => return file.read(),
            Place::Sqlite { path, from, columns } => {
                sqlite::texts(path, from, columns, |row| put_row(&mut table, row))?;
            }
            Place::Postgres { .. } => {}
        }
        Ok(table)
    }
}

/// Why there is no table.
#[derive(Debug)]
struct Unread {
    cause: String,
    /// It was read: what has not changed since cannot be used either.
    is_known: bool,
}

impl From<String> for Unread {
    fn from(cause: String) -> Self {
        Self { cause, is_known: false }
    }
}

async fn in_background<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Unread> + Send + 'static,
) -> Result<T, Unread> {
    let done = spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(format!("reading it broke off: {error}").into()))
}

/// All of them as a table.
async fn all(texts: postgres::Texts) -> Result<Table, String> {
    let mut table = Table::default();
    texts.read(|row| put_row(&mut table, row)).await?;
    Ok(table)
}

/// Takes a row that begins with the key. What has no key is found by nobody.
fn put_row(table: &mut Table, mut row: Vec<Option<String>>) -> Result<(), String> {
    match row.remove(0) {
        Some(key) => table.insert(&key, row),
        None => Ok(()),
    }
}

/// A reading that goes on beside everything else, and ends with its owner.
struct Reading {
    task: JoinHandle<(Result<Table, Unread>, Duration)>,
    begun: Instant,
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Reading {
    fn begin(place: &Arc<Place>) -> Self {
        let (begun, place) = (Instant::now(), Arc::clone(place));
        let task = tokio::spawn(async move {
            let read = place.read().await;
            (read, begun.elapsed())
        });
        Self { task, begun }
    }
}

/// How old what is in memory is.
#[derive(Debug, Clone, Copy)]
struct Age {
    /// When its reading began: what became true later is not in it.
    begun: Instant,
    /// How long that took.
    took: Duration,
}

struct Lookup {
    place: Arc<Place>,
    column: String,
    columns: Vec<String>,
    unknown: Unknown,
    refresh: Duration,
    table: Option<Table>,
    /// Of a table of a database.
    age: Age,
    /// The file that was read last, whether it could be used or not.
    seen: Option<Stamp>,
    /// When a table of a database is read again.
    next: Instant,
    reading: Option<Reading>,
    /// What was warned of last, until it is mended.
    told: String,
}

impl Transform for Lookup {
    fn apply(&mut self, _: Batch) -> Result<Transformed, Fault> {
        Err(Fault::stop("a table is waited for, and nobody waits here"))
    }

    fn outside(&mut self) -> Option<&mut dyn Outside> {
        Some(self)
    }
}

#[async_trait]
impl Outside for Lookup {
    async fn apply(&mut self, batch: Batch) -> Result<Transformed, Fault> {
        if batch.rows() > 0 {
            self.look().await?;
        }
        self.add(&batch)
    }

    async fn check(&mut self) -> Result<String, Trouble> {
        Arc::clone(&self.place).check().await
    }
}

impl Lookup {
    /// Sees that there is a table, and that it is read again when it is time.
    async fn look(&mut self) -> Result<(), Fault> {
        if let Place::File(file) = &*self.place {
            let stamp = file.stamp();
            if self.table.is_some() && self.seen == stamp {
                return Ok(());
            }
            let read = Arc::clone(&self.place).read().await;
            // What could not be opened or read to its end may be mended without a sign of it, as by other rights.
            let is_known = read.as_ref().map_or_else(|unread| unread.is_known, |_| true);
            self.seen = stamp.filter(|_| is_known);
            return self.take(read);
        }
        if self.reading.as_ref().is_some_and(|reading| reading.task.is_finished()) {
            self.end_reading().await?;
        }
        if self.reading.is_none() && (self.table.is_none() || Instant::now() >= self.next) {
            let reading = Reading::begin(&self.place);
            self.next = reading.begun + self.refresh;
            self.reading = Some(reading);
        }
        match self.table.is_none() || self.is_stale() {
            true => self.end_reading().await,
            false => Ok(()),
        }
    }

    /// Whether what is in memory is older than any that is read again in time. What could not be read again is good enough.
    fn is_stale(&self) -> bool {
        self.told.is_empty() && self.age.begun.elapsed() > 2 * (self.refresh + self.age.took)
    }

    /// Waits for the reading that goes on, which takes only so long.
    async fn end_reading(&mut self) -> Result<(), Fault> {
        let Some(reading) = &mut self.reading else {
            return Ok(());
        };
        let ended = (&mut reading.task).await;
        let begun = reading.begun;
        self.reading = None;
        let broke_off = |error| (Err(format!("reading it broke off: {error}").into()), Duration::ZERO);
        let (read, took) = ended.unwrap_or_else(broke_off);
        if read.is_ok() {
            self.age = Age { begun, took };
        }
        self.take(read)
    }

    /// Takes what was read. What cannot be used is warned of, as long as there is something else.
    fn take(&mut self, read: Result<Table, Unread>) -> Result<(), Fault> {
        let place = &self.place;
        match read {
            Ok(table) => {
                if !std::mem::take(&mut self.told).is_empty() {
                    tracing::info!(%place, "a lookup can be read again");
                }
                self.table = Some(table);
                Ok(())
            }
            Err(Unread { cause, .. }) if self.table.is_some() => {
                if self.told != cause {
                    tracing::warn!(%place, cause, "a lookup cannot be read: what was read before holds");
                }
                self.told = cause;
                Ok(())
            }
            Err(Unread { cause, .. }) => Err(Fault::retry(format!("cannot look up in {place}: {cause}"))),
        }
    }

    fn add(&self, batch: &Batch) -> Result<Transformed, Fault> {
        let place = batch.schema().index_of(&self.column);
        let (mut kept, mut rejected) = (Vec::with_capacity(batch.rows()), Vec::new());
        let mut new: Vec<Column> = self.columns.iter().map(|_| Column::new(&Type::Text)).collect();
        for row in 0..batch.rows() {
            let cell = place.map_or(Cell::Missing, |place| batch.cell(row, place));
            let found = match cell {
                // What an update leaves as it was, so does what follows from it.
                Cell::Unchanged => Err(Cell::Unchanged),
                cell if !cell.is_value() => Err(Cell::Null),
                cell => match self.find(&cell) {
                    Some(values) => Ok(values),
                    None if self.unknown == Unknown::Null => Err(Cell::Null),
                    None => {
                        let shown = cell.to_string();
                        let reason = format!(
                            "column '{}' is '{}', which {} does not have",
                            self.column,
                            shorten(&shown),
                            self.place
                        );
                        rejected.push((row, reason));
                        continue;
                    }
                },
            };
            kept.push(row);
            for (index, column) in new.iter_mut().enumerate() {
                let cell = match found {
                    Ok(values) => values[index].as_deref().map_or(Cell::Null, Cell::Text),
                    Err(cell) => cell,
                };
                column
                    .push(cell, &Type::Text)
                    .map_err(|error| Fault::stop(error.to_string()))?;
            }
        }
        let batch = if rejected.is_empty() {
            batch.clone()
        } else {
            batch.take(&kept)
        };
        let batch = with(&batch, self.columns.iter().zip(new))?;
        Ok(Transformed { batch, rejected })
    }

    fn find(&self, cell: &Cell<'_>) -> Option<&[Option<String>]> {
        let table = self.table.as_ref()?;
        match cell {
            Cell::Text(text) => table.get(text),
            cell => table.get(&cell.to_string()),
        }
    }
}

/// The batch with these texts: a column of the same name is replaced in its place and stays part of the key if it was; others
/// come last.
fn with<'n>(batch: &Batch, new: impl Iterator<Item = (&'n String, Column)>) -> Result<Batch, Fault> {
    let mut fields = batch.schema().fields.clone();
    let mut columns = batch.columns().to_vec();
    for (name, column) in new {
        match fields.iter().position(|known| known.name == *name) {
            Some(place) => {
                fields[place] = Field {
                    key: fields[place].key,
                    ..Field::new(name, Type::Text)
                };
                columns[place] = column;
            }
            None => {
                fields.push(Field::new(name, Type::Text));
                columns.push(column);
            }
        }
    }
    let schema = Schema {
        collection: batch.schema().collection.clone(),
        fields,
    };
    batch
        .with_columns(Arc::new(schema), columns)
        .map_err(|error| Fault::stop(error.to_string()))
}
