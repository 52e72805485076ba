//! Whether a PostgreSQL source or destination would work: the server, the login, what is to be read or written, and the
//! rights to it, as the catalog tells them. Reads no row, makes nothing.

use std::path::Path;

use flow::{Trouble, TroubleKind as Kind};
use tokio_postgres::{Client, config::Host, error::SqlState};

use super::{
    Settings,
    connect::{Server, TlsMode, dial, explain},
    cursor,
    layout::{Layout, READ_SETTINGS, Subject, VALUE_SETTINGS},
    replica,
    session::WATERMARK_TABLE,
    slot,
    table::{quote, table_oid},
};
use crate::{
    names::hint,
    reach::{self, as_trouble, forbidden, missing},
    write_mode::WriteMode,
};

/// Connects, and says of which part of the way it is the fault if that fails.
async fn connect(server: &Server, base_dir: &Path, name: &str) -> Result<(Client, String), Trouble> {
    reach::secrets(server.url.iter().chain(&server.password), base_dir)?;
    let parts = server.parts(base_dir, name).map_err(|fault| match server.tls.mode {
        TlsMode::VerifyFull => reach::certificates(&fault.to_string()),
        _ => as_trouble(&fault),
    })?;
    let (config, place) = (&parts.0, parts.2.clone());
    let ports = config.get_ports();
    let mut reached = Ok(());
    for (index, host) in config.get_hosts().iter().enumerate() {
        let port = ports.get(index).or(ports.first()).copied().unwrap_or(5432);
        reached = match host {
            Host::Tcp(host) => reach::tcp(host, port).await.map(drop),
            Host::Unix(dir) => reach::readable_directory(dir),
        };
        if reached.is_ok() {
            break;
        }
    }
    reached?;
    match dial(parts).await {
        Ok(client) => Ok((client, place)),
        Err(error) => Err(of_connecting(server, &place, &error)),
    }
}

/// A connection, if the server can be reached and lets this user in.
pub(crate) async fn reach(server: &Server, base_dir: &Path, name: &str) -> Result<Client, Trouble> {
    connect(server, base_dir, name).await.map(|(client, _)| client)
}

/// What a connection that does not come about says.
fn of_connecting(server: &Server, place: &str, error: &tokio_postgres::Error) -> Trouble {
    let cause = format!("{place}: {}", explain(error));
    match error.code() {
        Some(&SqlState::INVALID_PASSWORD | &SqlState::INVALID_AUTHORIZATION_SPECIFICATION) => reach::refused(cause),
        Some(&SqlState::INVALID_CATALOG_NAME) => missing(cause, "create the database, or correct its name"),
        Some(&SqlState::TOO_MANY_CONNECTIONS) => Trouble::new(
            Kind::Setup,
            cause,
            "let the server take more connections (max_connections)",
        ),
        Some(&SqlState::INSUFFICIENT_PRIVILEGE) => forbidden(cause, "GRANT CONNECT ON DATABASE … TO the user"),
        Some(_) => Trouble::new(Kind::Other, cause, "see what the server's log says to it"),
        None if server.tls.mode != TlsMode::Disable => {
            reach::unprotected(&format!("{cause} (a server without TLS needs tls.mode = \"disable\")"))
        }
        None => Trouble::new(
            Kind::Login,
            cause,
            "is there PostgreSQL, and does pg_hba.conf let this user in from here?",
        ),
    }
}

/// What a statement that fails says.
fn of_statement(doing: &str, error: &tokio_postgres::Error) -> Trouble {
    let cause = format!("cannot {doing}: {}", explain(error));
    match error.code() {
        Some(&SqlState::INSUFFICIENT_PRIVILEGE) => forbidden(cause, "GRANT the user what is missing"),
        Some(&SqlState::UNDEFINED_TABLE | &SqlState::UNDEFINED_COLUMN | &SqlState::INVALID_SCHEMA_NAME) => {
            missing(cause, "create it, or correct the name")
        }
        Some(code) if code.code().starts_with("42") => Trouble::new(Kind::Config, cause, "correct the query"),
        _ => Trouble::new(Kind::Other, cause, "see what the server's log says to it"),
    }
}

/// A yes or no of the catalog.
async fn holds(
    client: &Client,
    sql: &str,
    values: &[&(dyn tokio_postgres::types::ToSql + Sync)],
) -> Result<bool, Trouble> {
    let row = client.query_one(sql, values).await;
    let row = row.map_err(|error| of_statement("look at the catalog", &error))?;
    Ok(row.get::<_, Option<bool>>(0).unwrap_or(false))
}

async fn schema_there(client: &Client, place: &str, schema: &str) -> Result<(), Trouble> {
    let schemas = client
        .query(
            "SELECT nspname::text FROM pg_namespace WHERE nspname NOT LIKE 'pg\\_%' ORDER BY 1",
            &[],
        )
        .await
        .map_err(|error| of_statement("look at the schemas", &error))?;
    let names: Vec<&str> = schemas.iter().map(|row| row.get(0)).collect();
    if !names.contains(&schema) && !schema.starts_with("pg_") {
        let hint = hint(schema, names);
        return Err(missing(
            format!("{place} has no schema '{schema}'{hint}"),
            format!("CREATE SCHEMA {}, or correct the name", quote(schema)),
        ));
    }
    let sql = "SELECT has_schema_privilege($1::text, 'USAGE')";
    if !holds(client, sql, &[&schema]).await? {
        return Err(forbidden(
            format!("the user may not use the schema '{schema}'"),
            format!("GRANT USAGE ON SCHEMA {} TO the user", quote(schema)),
        ));
    }
    Ok(())
}

async fn table_there(client: &Client, schema: &str, table: &str) -> Result<(), Trouble> {
    let sql = "SELECT c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
               WHERE n.nspname = $1 AND c.relkind IN ('r', 'p', 'v', 'm', 'f') ORDER BY 1 LIMIT 1000";
    let rows = client.query(sql, &[&schema]).await;
    let rows = rows.map_err(|error| of_statement("look for the table", &error))?;
    let names: Vec<&str> = rows.iter().map(|row| row.get(0)).collect();
    if names.contains(&table) {
        return Ok(());
    }
    Err(missing(
        format!("there is no table {schema}.{table}{}", hint(table, names)),
        "create it, or correct the name",
    ))
}

/// The destination's.
pub(super) async fn sink(settings: &Settings, base_dir: &Path, name: &str) -> Result<String, Trouble> {
    let (client, place) = connect(&settings.server, base_dir, name).await?;
    schema_there(&client, &place, &settings.schema).await?;
    let found = match table_oid(&client, settings).await.map_err(|fault| as_trouble(&fault))? {
        Some(_) => {
            let rights = match settings.mode {
                WriteMode::Upsert => "INSERT, UPDATE, SELECT",
                WriteMode::Insert => "INSERT",
            };
            may_write(&client, settings, rights).await?;
            format!("{place}: the table {} can be written", settings.shown())
        }
        None if !settings.create_table => {
            table_there(&client, &settings.schema, &settings.table).await?;
            format!("{place}: the table {} is there", settings.shown())
        }
        None => {
            may_create(&client, settings).await?;
            format!("{place}: the table {} will be made", settings.shown())
        }
    };
    let watermarks = settings.sibling(WATERMARK_TABLE);
    match table_oid(&client, &watermarks)
        .await
        .map_err(|fault| as_trouble(&fault))?
    {
        Some(_) => may_write(&client, &watermarks, "INSERT, UPDATE, SELECT").await?,
        None => may_create(&client, &watermarks).await?,
    }
    Ok(found)
}

async fn may_write(client: &Client, settings: &Settings, rights: &str) -> Result<(), Trouble> {
    let relation = settings.relation();
    for right in rights.split(", ") {
        let sql = "SELECT has_table_privilege($1::text, $2::text)";
        if !holds(client, sql, &[&relation, &right]).await? {
            return Err(forbidden(
                format!("the user has no {right} on {}", settings.shown()),
                format!("GRANT {rights} ON {relation} TO the user"),
            ));
        }
    }
    Ok(())
}

async fn may_create(client: &Client, settings: &Settings) -> Result<(), Trouble> {
    let sql = "SELECT has_schema_privilege($1::text, 'CREATE')";
    if holds(client, sql, &[&settings.schema]).await? {
        return Ok(());
    }
    Err(forbidden(
        format!("the user may not create the table {}", settings.shown()),
        format!(
            "GRANT CREATE ON SCHEMA {} TO the user, or create the table yourself",
            quote(&settings.schema)
        ),
    ))
}

/// That of the source that reads by a cursor.
pub(super) async fn cursor(settings: &cursor::Settings, base_dir: &Path, name: &str) -> Result<String, Trouble> {
    let (client, place) = connect(&settings.server, base_dir, name).await?;
    let from = match &settings.subject {
        Subject::Table { schema, table } => {
            schema_there(&client, &place, schema).await?;
            table_there(&client, schema, table).await?;
            format!("{}.{}", quote(schema), quote(table))
        }
        Subject::Query { sql, .. } => format!("({}\n) AS q", sql.trim().trim_end_matches(';')),
    };
    let layout = look(&client, &from, &settings.subject, settings.cursor.as_deref()).await?;
    Ok(format!(
        "{place}: {} columns can be read, in the order of {}",
        layout.schema.fields.len(),
        layout.cursor.join(", ")
    ))
}

/// The columns, and that they may be read: a statement that gives no row asks for the same rights.
async fn look(client: &Client, from: &str, subject: &Subject, cursor: Option<&[String]>) -> Result<Layout, Trouble> {
    let set = format!("{VALUE_SETTINGS}; {READ_SETTINGS}");
    let set = client.batch_execute(&set).await;
    set.map_err(|error| of_statement("prepare for reading", &error))?;
    let looked = client.batch_execute(&format!("SELECT * FROM {from} LIMIT 0")).await;
    looked.map_err(|error| of_statement("read", &error))?;
    let layout = Layout::load(client, subject, cursor, true).await;
    layout.map_err(|fault| {
        Trouble::new(
            Kind::Config,
            fault.to_string(),
            "name a cursor whose values only rise and are unique, or give the table a primary key",
        )
    })
}

/// That of the source that reads the log. Makes neither slot nor publication.
pub(super) async fn replica(settings: &replica::Settings, base_dir: &Path, name: &str) -> Result<String, Trouble> {
    let (client, place) = connect(&settings.server, base_dir, name).await?;
    let replica::Settings {
        schema, table, slot, ..
    } = settings;
    schema_there(&client, &place, schema).await?;
    table_there(&client, schema, table).await?;
    let level = "SELECT current_setting('wal_level') = 'logical'";
    if !holds(&client, level, &[]).await? {
        return Err(Trouble::new(
            Kind::Setup,
            format!("{place} does not log what logical replication needs"),
            "set wal_level = logical in postgresql.conf, and restart the server",
        ));
    }
    let role = "SELECT rolreplication OR rolsuper FROM pg_roles WHERE rolname = current_user";
    if !holds(&client, role, &[]).await? {
        return Err(forbidden(
            "the user may not replicate",
            "ALTER ROLE the user REPLICATION",
        ));
    }
    if settings.snapshot {
        let from = format!("{}.{}", quote(schema), quote(table));
        let subject = Subject::Table {
            schema: schema.clone(),
            table: table.clone(),
        };
        look(&client, &from, &subject, None).await?;
    }
    let found = slot::find(&client, slot).await.map_err(|fault| {
        Trouble::new(
            Kind::Setup,
            fault.to_string(),
            "drop the slot, or name another with slot",
        )
    })?;
    publishes(&client, settings).await?;
    if found.is_none() {
        let room = "SELECT (SELECT count(*) FROM pg_replication_slots) < current_setting('max_replication_slots')::int";
        if !holds(&client, room, &[]).await? {
            return Err(Trouble::new(
                Kind::Setup,
                format!("{place} has no slot left"),
                "drop slots that nobody uses, or raise max_replication_slots",
            ));
        }
        return Ok(format!(
            "{place}: changes of {schema}.{table} can be read; the slot '{slot}' will be made"
        ));
    }
    Ok(format!(
        "{place}: changes of {schema}.{table} can be read from the slot '{slot}'"
    ))
}

async fn publishes(client: &Client, settings: &replica::Settings) -> Result<(), Trouble> {
    let replica::Settings {
        schema,
        table,
        publication,
        ..
    } = settings;
    let there = "SELECT EXISTS (SELECT FROM pg_publication WHERE pubname = $1)";
    if holds(client, there, &[publication]).await? {
        let has = "SELECT EXISTS (SELECT FROM pg_publication_tables WHERE pubname = $1 AND schemaname = $2 AND tablename = $3)";
        if holds(client, has, &[publication, schema, table]).await? {
            return Ok(());
        }
        let (publication, schema, table) = (quote(publication), quote(schema), quote(table));
        return Err(missing(
            format!("the publication {publication} does not have the table"),
            format!("ALTER PUBLICATION {publication} ADD TABLE {schema}.{table}"),
        ));
    }
    let may = "SELECT has_database_privilege(current_database(), 'CREATE') AND \
               (SELECT pg_has_role(relowner, 'USAGE') FROM pg_class WHERE oid = ($1::text || '.' || $2::text)::regclass)";
    let (schema, table) = (quote(schema), quote(table));
    if holds(client, may, &[&schema, &table]).await? {
        return Ok(());
    }
    let publication = quote(publication);
    Err(forbidden(
        format!("there is no publication {publication}, and the user may not make it"),
        format!(
            "let the table's owner run: CREATE PUBLICATION {publication} FOR TABLE {schema}.{table} WITH \
             (publish_via_partition_root = true)"
        ),
    ))
}
