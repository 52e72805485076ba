//! Source `postgres`: its settings, and which of the ways of reading they ask for. Reads nothing itself.

use std::time::Duration;

use bus_schema::{
    limits::ROWS_MAX,
    plan::{ComponentRole, Descriptor},
};
use flow::{Build, BuildContext, Component, ConfigError, Source, describe, parse_config};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    check_name,
    connect::{Server, Tls},
    cursor::{self, CursorSource},
    layout::Subject,
    public,
    replica::{self, ReplicaSource},
    slot::{SLOT_BYTES_MAX, default_name},
};
use crate::secret::SecretRef;

/// Bounds of `poll_interval_ms`.
const POLL_MS: std::ops::RangeInclusive<u64> = 10..=3_600_000;
/// Bounds of `heartbeat_ms`, and what it is unless given.
const HEARTBEATS_MS: std::ops::RangeInclusive<u64> = 100..=3_600_000;
const HEARTBEAT_MS: u64 = 60_000;
/// Longest `delay_ms`: a day.
const DELAY_MS_MAX: u64 = 86_400_000;

/// Reads a table of a PostgreSQL database (version 12 or later): either new rows by a cursor, or every change from the log.
///
/// **`mode = "cursor"`** reads a table, a view or a query in the order of a cursor. New rows are found as long as their cursor values are higher than those of every row whose transaction began to write
/// later: the source looks who is writing and waits for them, so numbers that a column takes by itself (serial, identity,
/// DEFAULT nextval) may be committed in any order. Times that a transaction takes before it first writes to the table need
/// `delay_ms`; numbers that a program takes long before it inserts them (an ORM's pool, a sequence with CACHE) cannot be
/// read by. Give the cursor columns an index, and the role SELECT on the table. On a standby nobody can know who is
/// writing: set `delay_ms`.
///
/// Rows are read as they are at that moment: with a cursor that changes with the row (a time of the last change) a changed
/// row comes again, for a destination with mode upsert; deleted rows do not show.
///
/// **`mode = "replication"`** (version 13 or later, `wal_level = logical`) reads the rows there are and then every insert,
/// update and delete, in the order of the commits and without a gap, from a replication slot. The role needs REPLICATION and
/// SELECT. The table needs a primary key, or `snapshot = false`; without one, only inserts can be replicated. Slot and
/// publication are made when missing (a publication by the table's owner or beforehand). The server keeps its log until every
/// destination has the changes: watch that, set `max_slot_wal_keep_size`, and drop the slot when the workflow is gone
/// (`SELECT pg_drop_replication_slot('…')`). Updates leave large values that were not changed as they are (a file destination
/// has none there; REPLICA IDENTITY FULL sends them). Another key is a delete and an insert. TRUNCATE goes to the dead
/// letters. A snapshot that is interrupted goes on where it was; what is changed meanwhile arrives as upserts by key.
/// Generated columns are left out, as PostgreSQL does not send them.
///
/// | PostgreSQL has | records hold | notes |
/// |---|---|---|
/// | boolean | bool | |
/// | smallint, integer, bigint, oid | i64 | |
/// | real, double precision | f32, f64 | NaN and infinities too |
/// | numeric(p,s) up to 38 digits | decimal(p,s) | |
/// | other numeric | any | each value a decimal with its own scale; with more than 38 digits text; NaN and infinities floats |
/// | text, varchar, char(n) | text | char without the blanks that fill it up |
/// | bytea | bytes | |
/// | date, time | date, time | |
/// | timestamp, timestamptz | timestamp, timestamp_utc | |
/// | uuid | uuid | |
/// | json, jsonb | json | the text |
/// | arrays | list | |
/// | all others | text | as PostgreSQL writes it |
///
/// A column in which a batch has a value that is nothing of its type (infinity as a date, NaN in a numeric(p,s), an array
/// of arrays) is text in that batch, as PostgreSQL writes it. Rows that are not UTF-8 or too large go to the dead letters.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
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
    /// How often to look for new rows, in milliseconds (of no use with `mode = "replication"`, where the server tells).
    #[serde(default = "default_poll")]
    #[schemars(range(min = 10, max = 3600000))]
    poll_interval_ms: u64,
    /// Leaves rows for later until their cursor, a timestamptz, is this many milliseconds ago by the server's clock: more
    /// than any transaction takes from its beginning to its first write (or, on a standby, to its end).
    #[serde(default)]
    #[schemars(range(max = 86400000))]
    delay_ms: u64,
    /// Replication: the slot. Default: `mycelial_WORKFLOW_NODE`, with other characters replaced.
    slot: Option<String>,
    /// Replication: the publication, which has to have the table. Default: the name of the slot.
    publication: Option<String>,
    /// Replication: whether to begin with the rows there are. Default: true.
    snapshot: Option<bool>,
    /// Replication: how often the slot moves on while the table does not change and others do, in milliseconds, so that it
    /// does not hold on to the server's log. Default: 60,000.
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
    Replication,
}

/// One name or several.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "a column name or a list of them")]
pub(crate) enum Columns {
    /// One.
    One(String),
    /// Several, the most significant first.
    Several(Vec<String>),
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
type = "postgres"
host = "db.example.com"
user = "reader"
database = "shop"
password = { env = "PGPASSWORD" }
table = "orders"
cursor = "id"

[destinations.out]
type = "stdout"
from = "orders"
"#;

fn descriptor() -> Descriptor {
    let summary = "A PostgreSQL table: new rows by a cursor, or every change by logical replication";
    Descriptor {
        durable: true,
        ..describe::<Config>(ComponentRole::Source, "postgres", summary, EXAMPLE)
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
    check_name("schema", &config.schema)?;
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
    let name = format!("mycelial {}/{}", context.workflow, context.node);
    if config.mode == Mode::Replication {
        let settings = replica_settings(&config, server, context)?;
        return Ok(Box::new(ReplicaSource::new(settings, context.base_dir.clone(), name)));
    }
    let others = [
        ("slot", config.slot.is_some()),
        ("publication", config.publication.is_some()),
        ("snapshot", config.snapshot.is_some()),
        ("heartbeat_ms", config.heartbeat_ms.is_some()),
    ];
    if let Some((key, _)) = others.iter().find(|(_, given)| *given) {
        return Err(ConfigError::at(*key, "is of use only with mode = \"replication\""));
    }
    let cursor = cursor_of(config.cursor.as_ref(), check_name)?;
    let settings = cursor::Settings {
        server,
        subject: subject_of(&config, cursor.is_some(), &context.node)?,
        cursor,
        rows_max: config.batch_rows_max,
        poll_interval: Duration::from_millis(config.poll_interval_ms),
        delay_ms: config.delay_ms,
    };
    Ok(Box::new(CursorSource::new(settings, context.base_dir.clone(), name)))
}

fn replica_settings(config: &Config, server: Server, context: &BuildContext) -> Result<replica::Settings, ConfigError> {
    let others = [
        ("query", config.query.is_some()),
        ("cursor", config.cursor.is_some()),
        ("delay_ms", config.delay_ms > 0),
    ];
    if let Some((key, _)) = others.iter().find(|(_, given)| *given) {
        return Err(ConfigError::at(*key, "is of no use with mode = \"replication\""));
    }
    let Some(table) = &config.table else {
        return Err(ConfigError::at(
            "table",
            "is missing: name the table whose changes to read",
        ));
    };
    check_name("table", table)?;
    let slot = match &config.slot {
        Some(slot) => slot.clone(),
        None => default_name(&context.workflow, &context.node),
    };
    let allowed = |char: char| matches!(char, 'a'..='z' | '0'..='9' | '_');
    if slot.is_empty() || slot.len() > SLOT_BYTES_MAX || !slot.chars().all(allowed) {
        let message = format!("has to be 1 to {SLOT_BYTES_MAX} of the characters a-z, 0-9 and _");
        return Err(ConfigError::at("slot", message));
    }
    let publication = config.publication.clone().unwrap_or_else(|| slot.clone());
    check_name("publication", &publication)?;
    let heartbeat_ms = config.heartbeat_ms.unwrap_or(HEARTBEAT_MS);
    if !HEARTBEATS_MS.contains(&heartbeat_ms) {
        let (least, most) = (HEARTBEATS_MS.start(), HEARTBEATS_MS.end());
        let message = format!("must be from {least} to {most} milliseconds");
        return Err(ConfigError::at("heartbeat_ms", message));
    }
    Ok(replica::Settings {
        server,
        schema: config.schema.clone(),
        table: table.clone(),
        slot,
        publication,
        snapshot: config.snapshot.unwrap_or(true),
        rows_max: config.batch_rows_max,
        heartbeat: Duration::from_millis(heartbeat_ms),
    })
}

/// The names in a `cursor`, each of which `check` lets pass.
pub(crate) fn cursor_of(
    columns: Option<&Columns>,
    check: fn(&str, &str) -> Result<(), ConfigError>,
) -> Result<Option<Vec<String>>, ConfigError> {
    let names = match columns {
        None => return Ok(None),
        Some(Columns::One(name)) => vec![name.clone()],
        Some(Columns::Several(names)) => names.clone(),
    };
    if names.is_empty() {
        return Err(ConfigError::at(
            "cursor",
            "names no column: leave it out to read by the primary key",
        ));
    }
    for (index, name) in names.iter().enumerate() {
        check("cursor", name)?;
        if names[..index].contains(name) {
            return Err(ConfigError::at("cursor", format!("names '{name}' twice")));
        }
    }
    Ok(Some(names))
}

fn subject_of(config: &Config, has_cursor: bool, node: &str) -> Result<Subject, ConfigError> {
    match (&config.table, &config.query) {
        (Some(table), None) => {
            check_name("table", table)?;
            Ok(Subject::Table {
                schema: config.schema.clone(),
                table: table.clone(),
            })
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
