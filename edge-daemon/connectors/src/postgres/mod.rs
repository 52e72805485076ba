//! PostgreSQL: the source, and the destination, which writes records into a table, and how far each lineage has come into the
//! same transaction.

mod bookmark;
mod check;
mod connect;
mod cursor;
mod encode;
mod error;
mod form;
mod layout;
mod number;
mod page;
mod pgoutput;
mod replica;
mod rows;
mod session;
mod slot;
mod source;
mod stream;
mod table;
#[cfg(test)]
mod tests;
mod texts;
mod walsender;

pub(crate) use bookmark::{Bookmark, PLACE_BYTES_MAX};
pub(crate) use check::reach;
pub(crate) use connect::{Server, Tls, TlsMode};
pub(crate) use form::{DECIMAL_DIGITS_MAX, date, decimal, time, timestamp, uuid};
pub(crate) use layout::{Keys, cursor_columns};
pub(crate) use number::Number;
pub(crate) use page::{Page, Slot, Written, shown};
pub use source::SOURCE;
pub(crate) use source::{Columns, cursor_of};
pub(crate) use texts::{From, Texts};

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

use crate::{
    secret::SecretRef,
    write_mode::{WriteMode, check_key},
};
use session::{Session, WATERMARK_TABLE};
use table::{NAME_BYTES_MAX, quote};

/// Writes records into a table of a PostgreSQL database (version 12 or later), each exactly once.
///
/// A table `_mycelial_watermark` beside it keeps how far each stream has come, changed in the same transaction as the
/// records.
///
/// | records hold | a column created here is | notes |
/// |---|---|---|
/// | bool | boolean | |
/// | i64 | bigint | |
/// | u64 | numeric(20) | |
/// | f32, f64 | real, double precision | |
/// | decimal(p,s) | numeric(p,s) | |
/// | text, bytes | text, bytea | text with NUL is rejected: PostgreSQL has none |
/// | date, time | date, time | nanoseconds are cut to microseconds (logged) |
/// | timestamp | timestamp | the same |
/// | timestamp_utc, timestamp_offset | timestamptz | the same; the offset is not kept (logged) |
/// | uuid | uuid | |
/// | json | json | keeps the text as written |
/// | list | jsonb | an array |
/// | any | by the values of the first batch | floats: double precision; other numbers: numeric |
///
/// In a table that exists already, a record whose values do not fit its columns exactly goes to the dead letters, and so
/// does one that PostgreSQL refuses. Text goes into columns of other types as PostgreSQL reads it, so ISO times fit
/// timestamptz, and names fit an enum. UTC timestamps go into timestamp columns as UTC. Generated columns are left to the
/// database.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("x-shared" = true))]
struct Config {
    /// `postgres://USER:PASSWORD@HOST:PORT/DATABASE`, plain or from elsewhere. Instead of host, port, user, database and
    /// password.
    url: Option<SecretRef>,
    /// Name or address of the server, or the directory of its Unix socket.
    host: Option<String>,
    /// Port of the server. Default: 5432.
    port: Option<u16>,
    /// Whom to log in as.
    user: Option<String>,
    /// Which database.
    database: Option<String>,
    /// The password.
    password: Option<SecretRef>,
    /// How the connection is protected. Default: TLS with the server's name verified.
    #[serde(default)]
    tls: Tls,
    /// The schema of the table.
    #[serde(default = "public")]
    schema: String,
    /// The table to write.
    table: String,
    /// What to do with records that say insert.
    #[serde(default)]
    mode: WriteMode,
    /// The columns that identify a record. Default: the key columns the records come with. An empty list: none.
    /// A table created here has them as primary key; in an existing one, upserts need a unique index on exactly these.
    key: Option<Vec<String>>,
    /// Whether to create the table when missing.
    #[serde(default = "yes")]
    create_table: bool,
    /// Whether to add columns the table lacks. Otherwise records with a value in one go to the dead letters.
    #[serde(default = "yes")]
    add_columns: bool,
}

fn public() -> String {
    "public".to_string()
}

fn yes() -> bool {
    true
}

/// The component.
pub const SINK: Component = Component {
    descriptor,
    build: Build::Sink(build),
};

const EXAMPLE: &str = r#"name = "warehouse"

[sources.readings]
type = "sqlite"
path = "/var/lib/plant/readings.db"
table = "readings"
cursor = "id"

[destinations.warehouse]
type = "postgres"
from = "readings"
host = "db.example.com"
user = "mycelial"
database = "plant"
password = { env = "PGPASSWORD" }
table = "readings"
mode = "upsert"
key = ["id"]
"#;

fn descriptor() -> Descriptor {
    let summary = "A table of a PostgreSQL database, created when missing; each record arrives exactly once";
    Descriptor {
        durable: true,
        ..describe::<Config>(ComponentRole::Destination, "postgres", summary, EXAMPLE)
    }
}

fn build(config: &str, context: &BuildContext) -> Result<Box<dyn Sink>, ConfigError> {
    let Config {
        url,
        host,
        port,
        user,
        database,
        password,
        tls,
        schema,
        table,
        mode,
        key,
        create_table,
        add_columns,
    } = parse_config(config)?;
    let server = Server {
        url,
        host,
        port,
        user,
        database,
        password,
        tls,
    };
    server.check()?;
    check_name("schema", &schema)?;
    check_name("table", &table)?;
    if table == WATERMARK_TABLE {
        return Err(ConfigError::at(
            "table",
            "is the one Mycelial keeps its watermarks in: choose another",
        ));
    }
    check_key(mode, key.as_deref())?;
    for (index, name) in key.iter().flatten().enumerate() {
        check_name(&format!("key[{index}]"), name)?;
    }
    Ok(Box::new(PostgresSink {
        settings: Settings {
            server,
            schema,
            table,
            mode,
            key,
            create_table,
            add_columns,
        },
        base_dir: context.base_dir.clone(),
        name: format!("mycelial {}/{}", context.workflow, context.node),
        session: None,
    }))
}

fn check_name(key: &str, name: &str) -> Result<(), ConfigError> {
    match name {
        "" => Err(ConfigError::at(key, "is empty")),
        _ if name.contains('\0') => Err(ConfigError::at(key, "contains a NUL character")),
        _ if name.len() > NAME_BYTES_MAX => Err(ConfigError::at(
            key,
            format!("is longer than PostgreSQL's {NAME_BYTES_MAX} bytes"),
        )),
        _ => Ok(()),
    }
}

/// What the config says, checked.
#[derive(Debug, Clone)]
struct Settings {
    server: Server,
    schema: String,
    table: String,
    mode: WriteMode,
    key: Option<Vec<String>>,
    create_table: bool,
    add_columns: bool,
}

impl Settings {
    /// The table as SQL.
    fn relation(&self) -> String {
        format!("{}.{}", quote(&self.schema), quote(&self.table))
    }

    /// The table for people.
    fn shown(&self) -> String {
        format!("{}.{}", self.schema, self.table)
    }

    /// The same for another table of the schema.
    fn sibling(&self, table: &str) -> Self {
        Self {
            table: table.to_string(),
            ..self.clone()
        }
    }
}

struct PostgresSink {
    settings: Settings,
    base_dir: PathBuf,
    name: String,
    /// Taken out for each call and put back when it succeeds: an interrupted or failed call ends the transaction.
    session: Option<Box<Session>>,
}

impl PostgresSink {
    fn take(&mut self) -> Result<Box<Session>, Fault> {
        self.session
            .take()
            .ok_or_else(|| Fault::retry("the postgres destination is not connected"))
    }
}

#[async_trait]
impl Sink for PostgresSink {
    async fn open(&mut self) -> Result<(), Fault> {
        self.close().await;
        self.session = Some(Box::new(
            Session::open(&self.settings, &self.base_dir, &self.name).await?,
        ));
        Ok(())
    }

    async fn watermark(&mut self, stream: &StreamId) -> Result<Option<Watermark>, Fault> {
        let mut session = self.take()?;
        let watermark = session.watermark(&self.settings, stream).await?;
        self.session = Some(session);
        Ok(watermark)
    }

    fn keeps_watermark(&self) -> bool {
        true
    }

    async fn write(&mut self, deliveries: &[Delivery]) -> Result<Vec<Rejected>, Fault> {
        let mut session = self.take()?;
        let rejected = session.write(&self.settings, deliveries).await?;
        self.session = Some(session);
        Ok(rejected)
    }

    async fn commit(&mut self) -> Result<(), Fault> {
        let mut session = self.take()?;
        session.commit().await?;
        self.session = Some(session);
        Ok(())
    }

    async fn check(&mut self) -> Result<String, Trouble> {
        check::sink(&self.settings, &self.base_dir, &self.name).await
    }

    async fn close(&mut self) {
        // The connection says goodbye by itself when nobody holds it any more.
        self.session = None;
    }
}
