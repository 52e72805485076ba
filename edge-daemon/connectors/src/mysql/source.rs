//! Source `mysql`: its settings, and which of the ways of reading they ask for. Reads nothing itself.

use std::time::Duration;

use bus_schema::{
    limits::ROWS_MAX,
    plan::{ComponentRole, Descriptor},
};
use flow::{Build, BuildContext, Component, ConfigError, Source, describe, parse_config};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    changes::{self, ChangesSource},
    check_name,
    connect::Server,
    cursor::{self, CursorSource},
    layout::Subject,
};
use crate::{
    postgres::{Columns, Tls, cursor_of},
    secret::SecretRef,
};

/// Bounds of `poll_interval_ms`.
const POLL_MS: std::ops::RangeInclusive<u64> = 10..=3_600_000;
/// Bounds of `heartbeat_ms`, and what it is unless given.
const HEARTBEATS_MS: std::ops::RangeInclusive<u64> = 100..=3_600_000;
const HEARTBEAT_MS: u64 = 60_000;
/// Numbers of replicas that were made up are in the upper half: people begin with 1.
const MADE_UP_ID: u32 = 1 << 31;
/// Longest `delay_ms`: a day.
const DELAY_MS_MAX: u64 = 86_400_000;

/// Reads a table of a MySQL (8.0 or later) or MariaDB (10.3 or later) database: either new rows by a cursor, or every change
/// from the binary log.
///
/// **`mode = "cursor"`** reads a table, a view or a query in the order of a cursor. New rows are found as long as their cursor values are higher
/// than those of every row whose transaction began to write later: the source looks which transactions of the server have
/// written and waits for them, so numbers of AUTO_INCREMENT may be committed in any order. For that the user needs the right
/// PROCESS (and SELECT on the table). A transaction that has written anywhere on the server and stays open holds new rows up;
/// it is named in the log. With `delay_ms` the right is not needed, and instead rows wait for that long after they were first
/// seen: set it to more than any transaction takes, also on a replica or in a cluster, where nobody can know who is writing
/// elsewhere. Times that a statement takes long before it writes, and numbers that a program takes long before it inserts
/// them, need `delay_ms` too. Rows with a time in the cursor wait until no other row can get the same. Give the cursor columns
/// an index.
///
/// Rows are read as they are at that moment: with a cursor that changes with the row (a time of the last change) a changed
/// row comes again, for a destination with mode upsert; deleted rows do not show.
///
/// **`mode = "changes"`** (MariaDB 10.5 or later) reads the rows there are and then every insert, update and delete, in the
/// order of the commits and without a gap, from the server's binary log. The server needs `log_bin`, `binlog_format = ROW`,
/// `binlog_row_image = FULL` and `binlog_row_metadata = FULL`; the user REPLICATION SLAVE, REPLICATION CLIENT and SELECT; the
/// table a primary key. What is not so, an error names with its remedy. Nothing is written to the server, which must keep its
/// log for longer than the source may be away (`binlog_expire_logs_seconds`); what it has purged is lost for the source, which
/// then stops. Columns are what they were when a change was made. Another key is a delete and an insert. A table that is
/// emptied (TRUNCATE, DROP PARTITION), dropped or renamed goes to the dead letters, and so do statements of sessions with
/// another binlog_format. Values that ALTER TABLE gives to rows are not in the log, and neither are
/// rows that the server deletes or changes by itself because of a foreign key (ON DELETE CASCADE, SET NULL): it is logged as a
/// warning when the table has one. A snapshot that is interrupted goes on
/// where it was; what is changed meanwhile arrives as upserts by key. The place is of this server: after a change to another
/// one, begin with a new snapshot. Of character sets, utf8, ascii, latin1, ucs2, utf16 and utf32 are read. XA transactions are
/// delivered when they are prepared; a rollback after that goes to the dead letters, as destinations keep what they have.
///
/// | MySQL has | records hold | notes |
/// |---|---|---|
/// | tinyint to bigint, year | i64 | boolean too, which is a tinyint |
/// | bigint unsigned, bit | u64 | |
/// | float, double | f32, f64 | |
/// | decimal(p,s) up to 38 digits | decimal(p,s) | |
/// | other decimal | any | each value a decimal, with more than 38 digits text |
/// | char, varchar, text, enum, set | text | of any character set |
/// | binary, varbinary, blob, geometry | bytes | |
/// | date, time | date, time | |
/// | datetime, timestamp | timestamp, timestamp_utc | |
/// | json | json | the text |
/// | uuid | uuid | |
/// | inet4, inet6 | text | |
///
/// A column in which a batch has a value that is nothing of its type (0000-00-00, a time below 0 or above 24 hours) is text in
/// that batch, as MySQL writes it. Rows that are too large go to the dead letters.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
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
    /// How to read.
    #[serde(default)]
    mode: Mode,
    /// The table or view to read. Either this or `query`.
    table: Option<String>,
    /// A SELECT to read instead of a table. Needs a `cursor` that is unique in its result.
    query: Option<String>,
    /// The column whose values only rise, or a list of columns that are compared one after the other. Default: the primary
    /// key. Rows of equal values are told apart by the primary key; in a view or a query the values have to be unique.
    /// Rows where it is NULL are left out.
    cursor: Option<Columns>,
    /// Most rows in a batch; a batch also ends at 56 KB.
    #[serde(default = "default_rows")]
    #[schemars(range(min = 1, max = 65536))]
    batch_rows_max: usize,
    /// How often to look for new rows, in milliseconds (of no use with `mode = "changes"`, where the server tells).
    #[serde(default = "default_poll")]
    #[schemars(range(min = 10, max = 3600000))]
    poll_interval_ms: u64,
    /// Leaves rows for later until they have been seen for this many milliseconds: more than any transaction takes.
    #[serde(default)]
    #[schemars(range(max = 86400000))]
    delay_ms: u64,
    /// Changes: whether to begin with the rows there are. Default: true.
    snapshot: Option<bool>,
    /// Changes: the number by which the server knows this source among its replicas; each needs its own. Default: made of the
    /// names of workflow and node.
    #[schemars(range(min = 1))]
    server_id: Option<u32>,
    /// Changes: how often the place in the log is stored while the table does not change and others do, in milliseconds, so
    /// that it does not stay in a file that the server purges. Default: 60,000.
    #[schemars(range(min = 100, max = 3600000))]
    heartbeat_ms: Option<u64>,
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
    1000
}

/// The component.
pub const SOURCE: Component = Component {
    descriptor,
    build: Build::Source(build),
};

const EXAMPLE: &str = r#"name = "orders"

[sources.orders]
type = "mysql"
host = "db.example.com"
user = "reader"
database = "shop"
password = { env = "MYSQL_PWD" }
table = "orders"
cursor = "id"

[destinations.out]
type = "stdout"
from = "orders"
"#;

fn descriptor() -> Descriptor {
    let summary = "A MySQL or MariaDB table: new rows by a cursor, or every change from the binary log";
    Descriptor {
        durable: true,
        ..describe::<Config>(ComponentRole::Source, "mysql", summary, EXAMPLE)
    }
}

fn build(config: &str, context: &BuildContext) -> Result<Box<dyn Source>, ConfigError> {
    let config: Config = parse_config(config)?;
    let server = Server {
        url: config.url.clone(),
        host: config.host.clone(),
        port: config.port,
        user: config.user.clone(),
        database: config.database.clone(),
        password: config.password.clone(),
        tls: config.tls.clone(),
    };
    server.check()?;
    if !(1..=ROWS_MAX).contains(&config.batch_rows_max) {
        let message = format!("must be from 1 to {ROWS_MAX}");
        return Err(ConfigError::at("batch_rows_max", message));
    }
    if !POLL_MS.contains(&config.poll_interval_ms) {
        let message = format!("must be from {} to {} milliseconds", POLL_MS.start(), POLL_MS.end());
        return Err(ConfigError::at("poll_interval_ms", message));
    }
    if config.delay_ms > DELAY_MS_MAX {
        let message = format!("must be at most {DELAY_MS_MAX} milliseconds");
        return Err(ConfigError::at("delay_ms", message));
    }
    if config.mode == Mode::Changes {
        let settings = changes_settings(&config, server, context)?;
        return Ok(Box::new(ChangesSource::new(settings, context.base_dir.clone())));
    }
    let others = [
        ("snapshot", config.snapshot.is_some()),
        ("server_id", config.server_id.is_some()),
        ("heartbeat_ms", config.heartbeat_ms.is_some()),
    ];
    if let Some((key, _)) = others.iter().find(|(_, given)| *given) {
        return Err(ConfigError::at(*key, "is of use only with mode = \"changes\""));
    }
    let cursor = cursor_of(config.cursor.as_ref(), check_name)?;
    let settings = cursor::Settings {
        server,
        subject: subject_of(&config, cursor.is_some(), &context.node)?,
        cursor,
        rows_max: config.batch_rows_max,
        poll_interval: Duration::from_millis(config.poll_interval_ms),
        delay: Duration::from_millis(config.delay_ms),
    };
    Ok(Box::new(CursorSource::new(settings, context.base_dir.clone())))
}

fn changes_settings(config: &Config, server: Server, context: &BuildContext) -> Result<changes::Settings, ConfigError> {
    let others = [
        ("query", config.query.is_some()),
        ("cursor", config.cursor.is_some()),
        ("delay_ms", config.delay_ms > 0),
    ];
    if let Some((key, _)) = others.iter().find(|(_, given)| *given) {
        return Err(ConfigError::at(*key, "is of no use with mode = \"changes\""));
    }
    let Some(table) = &config.table else {
        return Err(ConfigError::at(
            "table",
            "is missing: name the table whose changes to read",
        ));
    };
    check_name("table", table)?;
    if config.server_id == Some(0) {
        return Err(ConfigError::at("server_id", "0 is nobody: at least 1"));
    }
    let heartbeat_ms = config.heartbeat_ms.unwrap_or(HEARTBEAT_MS);
    if !HEARTBEATS_MS.contains(&heartbeat_ms) {
        let (least, most) = (HEARTBEATS_MS.start(), HEARTBEATS_MS.end());
        let message = format!("must be from {least} to {most} milliseconds");
        return Err(ConfigError::at("heartbeat_ms", message));
    }
    Ok(changes::Settings {
        server,
        table: table.clone(),
        server_id: config.server_id.unwrap_or_else(|| made_up_id(context)),
        snapshot: config.snapshot.unwrap_or(true),
        rows_max: config.batch_rows_max,
        heartbeat: Duration::from_millis(heartbeat_ms),
        locks: false,
    })
}

/// The same after every start, and hardly that of anybody else.
fn made_up_id(context: &BuildContext) -> u32 {
    let hash = bus_schema::id::hash("mysql replica", &[context.workflow.as_bytes(), context.node.as_bytes()]);
    let number = hash
        .iter()
        .take(4)
        .fold(0, |number, byte| number << 8 | u32::from(*byte));
    MADE_UP_ID | number >> 1
}

fn subject_of(config: &Config, has_cursor: bool, node: &str) -> Result<Subject, ConfigError> {
    match (&config.table, &config.query) {
        (Some(table), None) => {
            check_name("table", table)?;
            Ok(Subject::Table(table.clone()))
        }
        (None, Some(_)) if !has_cursor => Err(ConfigError::at(
            "cursor",
            "is needed with query: name a result column whose values only rise",
        )),
        (None, Some(sql)) if sql.contains('\0') => Err(ConfigError::at("query", "contains a NUL character")),
        (None, Some(sql)) => Ok(Subject::Query {
            sql: sql.clone(),
            name: if node.is_empty() { "query" } else { node }.to_string(),
        }),
        (Some(_), Some(_)) => Err(ConfigError::at("query", "cannot be given together with table")),
        (None, None) => Err(ConfigError::at("table", "is missing: name a table, or give a query")),
    }
}
