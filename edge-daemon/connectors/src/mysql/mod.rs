//! MySQL and MariaDB: the source, and the destination, which writes records into a table, and how far each lineage has come into the same
//! transaction.

mod binlog;
mod bytes;
mod changes;
mod charset;
mod check;
mod connect;
mod cursor;
mod described;
mod dump;
mod encode;
mod error;
mod form;
mod json;
mod layout;
mod link;
mod log;
mod mark;
mod rows;
mod session;
mod source;
mod statement;
mod stream;
mod table;
mod table_map;
#[cfg(test)]
mod tests;
mod value;

pub use source::SOURCE;

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
    postgres::Tls,
    secret::SecretRef,
    write_mode::{WriteMode, check_key},
};
use connect::Server;
use session::{Session, WATERMARK_TABLE};
use table::refusal;

/// Writes records into an InnoDB table of a MySQL (8.0.17 or later) or MariaDB (10.3 or later) database, each exactly once.
///
/// A table `_mycelial_watermark` beside it keeps how far each stream has come, changed in the same transaction as the
/// records.
///
/// | records hold | a column created here is | notes |
/// |---|---|---|
/// | bool | tinyint(1) | |
/// | i64, u64 | bigint, bigint unsigned | |
/// | f32, f64 | float, double | NaN and the infinities are rejected, -0.0 becomes 0 (logged): MySQL has none |
/// | decimal(p,s) | decimal(p,s) | longtext with more than 30 digits after the point |
/// | text, bytes | longtext, longblob | as a key: varchar, varbinary; longer keys are rejected |
/// | date, time | date, time(6) | years 1 to 9999; nanoseconds are cut to microseconds (logged) |
/// | timestamp | datetime(6) | the same |
/// | timestamp_utc, timestamp_offset | datetime(6) | the same, in UTC; the offset is not kept (logged) |
/// | uuid | char(36) | |
/// | json, list | json | MariaDB keeps the text as written, MySQL its meaning |
/// | any | by the values of the first batch | floats: double; other numbers: decimal(65,30) |
///
/// In a table that exists already, a record whose values do not fit its columns exactly goes to the dead letters, and so
/// does one that the server refuses or would shorten. UTC timestamps go into datetime columns as UTC. Generated columns are
/// left to the database. Whether two keys are the same is up to the collation of their columns; those created here tell
/// everything apart.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("x-shared" = true))]
struct Config {
    /// `mysql://USER:PASSWORD@HOST:PORT/DATABASE`, plain or from elsewhere. Instead of host, port, user, database and
    /// password.
    url: Option<SecretRef>,
    /// Name or address of the server, or the path of its Unix socket.
    host: Option<String>,
    /// Port of the server. Default: 3306.
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
    /// The table to write.
    table: String,
    /// What to do with records that say insert.
    #[serde(default)]
    mode: WriteMode,
    /// The columns that identify a record. Default: the key columns the records come with. An empty list: none.
    /// A table created here has them as primary key; in an existing one, upserts need a unique index on exactly these, and
    /// no other that a record could run into.
    key: Option<Vec<String>>,
    /// Whether to create the table when missing.
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

const EXAMPLE: &str = r#"name = "warehouse"

[sources.readings]
type = "sqlite"
path = "/var/lib/plant/readings.db"
table = "readings"
cursor = "id"

[destinations.warehouse]
type = "mysql"
from = "readings"
host = "db.example.com"
user = "mycelial"
database = "plant"
password = { env = "MYSQL_PWD" }
table = "readings"
mode = "upsert"
key = ["id"]
"#;

fn descriptor() -> Descriptor {
    let summary = "A table of a MySQL or MariaDB database, created when missing; each record arrives exactly once";
    Descriptor {
        durable: true,
        ..describe::<Config>(ComponentRole::Destination, "mysql", summary, EXAMPLE)
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
    check_name("table", &table)?;
    if table.eq_ignore_ascii_case(WATERMARK_TABLE) {
        return Err(ConfigError::at(
            "table",
            "is the one Mycelial keeps its watermarks in: choose another",
        ));
    }
    check_key(mode, key.as_deref())?;
    for (index, name) in key.iter().flatten().enumerate() {
        check_name(&format!("key[{index}]"), name)?;
    }
    Ok(Box::new(MysqlSink {
        settings: Settings {
            server,
            table,
            mode,
            key,
            create_table,
            add_columns,
        },
        base_dir: context.base_dir.clone(),
        session: None,
    }))
}

fn check_name(key: &str, name: &str) -> Result<(), ConfigError> {
    match refusal(name) {
        Some(reason) => Err(ConfigError::at(key, format!("cannot be a name: {reason}"))),
        None => Ok(()),
    }
}

/// What the config says, checked.
#[derive(Debug, Clone)]
struct Settings {
    server: Server,
    table: String,
    mode: WriteMode,
    key: Option<Vec<String>>,
    create_table: bool,
    add_columns: bool,
}

struct MysqlSink {
    settings: Settings,
    base_dir: PathBuf,
    /// Taken out for each call and put back when it succeeds: an interrupted or failed call ends the transaction.
    session: Option<Box<Session>>,
}

impl MysqlSink {
    fn take(&mut self) -> Result<Box<Session>, Fault> {
        self.session
            .take()
            .ok_or_else(|| Fault::retry("the mysql destination is not connected"))
    }
}

#[async_trait]
impl Sink for MysqlSink {
    async fn open(&mut self) -> Result<(), Fault> {
        self.close().await;
        self.session = Some(Box::new(Session::open(&self.settings, &self.base_dir).await?));
        Ok(())
    }

    async fn watermark(&mut self, stream: &StreamId) -> Result<Option<Watermark>, Fault> {
        let mut session = self.take()?;
        let watermark = session.watermark(stream).await?;
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
        check::sink(&self.settings, &self.base_dir).await
    }

    async fn close(&mut self) {
        // The client says goodbye by itself when it is dropped; the server rolls back.
        self.session = None;
    }
}
