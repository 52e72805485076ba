//! Destination `sqlite`: writes records into a table, and how far each lineage has come into the same transaction.

use std::path::PathBuf;

use async_trait::async_trait;
use bus_schema::{
    id::StreamId,
    plan::{ComponentRole, Descriptor},
};
use flow::{
    Build, BuildContext, Component, ConfigError, Delivery, Fault, Rejected, Sink, Trouble, Watermark, describe,
    parse_config,
};
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::task::spawn_blocking;

use super::{
    check, database_path,
    store::{Settings, Store, WATERMARK_TABLE},
};
use crate::{
    reach::as_trouble,
    write_mode::{WriteMode, check_key},
};

/// Writes records into a table of a SQLite database, each exactly once.
///
/// The file is created when it does not exist, and put into WAL mode. A table `_mycelial_watermark` in it keeps how far
/// each stream has come, changed in the same transaction as the records.
///
/// | records hold | the column is declared | and stores |
/// |---|---|---|
/// | bool | INTEGER | 0 or 1 |
/// | i64 | INTEGER | the number |
/// | u64 | (no type) | the number; digits as text from 2^63 |
/// | f32, f64 | REAL | the number; -0.0 becomes 0.0 (logged), NaN is rejected |
/// | text, json | TEXT | the text |
/// | bytes | BLOB | the bytes |
/// | decimal, date, time, timestamps, uuid | TEXT | exact text: `1.50`, `2000-02-29`, ISO 8601 |
/// | list | TEXT | a JSON array |
/// | any | (no type) | each value by its own type |
///
/// In a table that exists already a value must come through the column's type affinity unharmed: numbers keep their
/// value, text stays text unless the number SQLite would make of it is written the same way. Generated columns are left
/// to the database. A record that does not fit, or that a constraint refuses, goes to the dead letters alone.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// The database file. A relative path starts in the daemon's directory.
    path: PathBuf,
    /// The table to write.
    table: String,
    /// What to do with records that say insert.
    #[serde(default)]
    mode: WriteMode,
    /// The columns that identify a record. Default: the key columns the records come with. An empty list: none.
    /// A table created here has them as primary key; in an existing one, upserts need a unique index on exactly these.
    key: Option<Vec<String>>,
    /// Whether to create the file and the table when missing.
    #[serde(default = "yes")]
    create_table: bool,
    /// Whether to add columns the table lacks. Otherwise records with a value in one go to the dead letters.
    #[serde(default = "yes")]
    add_columns: bool,
}

fn yes() -> bool {
    true
}

/// The component.
pub const SINK: Component = Component {
    descriptor,
    build: Build::Sink(build),
};

const EXAMPLE: &str = r#"name = "copy"

[sources.readings]
type = "file"
path = "readings.csv"
format = "csv"
types = { id = "i64", temperature = "f64" }

[destinations.copy]
type = "sqlite"
from = "readings"
path = "/var/lib/hub/readings.db"
table = "readings"
mode = "upsert"
key = ["id"]
"#;

fn descriptor() -> Descriptor {
    let summary = "A table of a SQLite database, created when missing; each record arrives exactly once";
    Descriptor {
        durable: true,
        ..describe::<Config>(ComponentRole::Destination, "sqlite", summary, EXAMPLE)
    }
}

fn build(config: &str, context: &BuildContext) -> Result<Box<dyn Sink>, ConfigError> {
    let config: Config = parse_config(config)?;
    if config.path.as_os_str().is_empty() {
        return Err(ConfigError::at("path", "is empty: name the database file"));
    }
    let table = config.table;
    let lower = table.to_ascii_lowercase();
    if table.is_empty() || table.contains('\0') || lower.starts_with("sqlite_") || lower == WATERMARK_TABLE {
        let message = format!(
            "'{}' cannot be written: choose a name that SQLite and Mycelial do not use themselves",
            table.escape_debug()
        );
        return Err(ConfigError::at("table", message));
    }
    check_key(config.mode, config.key.as_deref())?;
    let settings = Settings {
        path: database_path(&context.base_dir, &config.path),
        table,
        mode: config.mode,
        key: config.key,
        create_table: config.create_table,
        add_columns: config.add_columns,
    };
    Ok(Box::new(SqliteSink { settings, store: None }))
}

struct SqliteSink {
    settings: Settings,
    /// Moves into each blocking call and back. Lost with an interrupted call, and then the transaction is rolled back.
    store: Option<Box<Store>>,
}

impl SqliteSink {
    /// Runs `work` where blocking is allowed. After a fault the connection is gone, and its transaction with it.
    async fn blocking<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Store) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Fault> {
        let mut store = self
            .store
            .take()
            .ok_or_else(|| Fault::retry("the sqlite destination is not open"))?;
        let done = spawn_blocking(move || work(&mut store).map(|result| (store, result)));
        let (store, result) = done.await.map_err(stopped)??;
        self.store = Some(store);
        Ok(result)
    }
}

#[async_trait]
impl Sink for SqliteSink {
    async fn open(&mut self) -> Result<(), Fault> {
        self.close().await;
        let settings = self.settings.clone();
        self.store = Some(spawn_blocking(move || Store::open(settings)).await.map_err(stopped)??);
        Ok(())
    }

    async fn watermark(&mut self, stream: &StreamId) -> Result<Option<Watermark>, Fault> {
        let stream = *stream;
        self.blocking(move |store| store.watermark(&stream)).await
    }

    fn keeps_watermark(&self) -> bool {
        true
    }

    async fn write(&mut self, deliveries: &[Delivery]) -> Result<Vec<Rejected>, Fault> {
        let mut rejected = Vec::new();
        for (index, delivery) in deliveries.iter().enumerate() {
            // The blocking call cannot borrow. One copy at a time keeps the memory of it at one batch.
            let delivery = delivery.clone();
            let rows = self.blocking(move |store| store.write(&delivery)).await?;
            rejected.extend(rows.into_iter().map(|(row, reason)| Rejected {
                delivery: index,
                row,
                reason,
            }));
        }
        Ok(rejected)
    }

    async fn commit(&mut self) -> Result<(), Fault> {
        self.blocking(Store::commit).await
    }

    async fn check(&mut self) -> Result<String, Trouble> {
        let settings = self.settings.clone();
        let checked = spawn_blocking(move || check::sink(&settings)).await;
        checked.unwrap_or_else(|error| Err(as_trouble(&stopped(error))))
    }

    async fn close(&mut self) {
        if let Some(store) = self.store.take() {
            let _ = spawn_blocking(move || drop(store)).await;
        }
    }
}

fn stopped(error: tokio::task::JoinError) -> Fault {
    Fault::retry(format!("writing SQLite was interrupted: {error}"))
}
