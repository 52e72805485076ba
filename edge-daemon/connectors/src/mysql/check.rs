//! Whether a MySQL source or destination would work: the server, the login, what is to be read or written, and the rights to
//! it. Reads no row, makes nothing: rights are asked for by statements that give no row, and by EXPLAIN, which does not run
//! what it explains and wants the same rights.

use std::path::Path;

use flow::{Trouble, TroubleKind as Kind};
use mysql_async::{Conn, Error, Opts, prelude::Queryable};
use tokio::time::timeout;

use super::{
    Settings,
    connect::{CONNECT_WAIT, Server, place, set_up},
    cursor,
    encode::text_literal,
    error::explain,
    layout::{Layout, Subject, prepare},
    link::Link,
    session::WATERMARK_TABLE,
    table::quote,
};
use crate::{
    names::hint,
    postgres::TlsMode,
    reach::{self, as_trouble, forbidden, missing},
    write_mode::WriteMode,
};

/// What the server says to a wrong user or password.
const LOGIN_ERRORS: [u16; 3] = [1045, 1698, 1251];
/// What it says to rights that are missing: to a database, a table, a column, anything.
const RIGHT_ERRORS: [u16; 4] = [1044, 1142, 1143, 1227];
/// What it says to databases, tables and columns that are not there.
const MISSING_ERRORS: [u16; 3] = [1049, 1146, 1054];

/// Connects, and says of which part of the way it is the fault if that fails.
pub(super) async fn connect(server: &Server, base_dir: &Path) -> Result<Link, Trouble> {
    reach::secrets(server.url.iter().chain(&server.password), base_dir)?;
    let options = server.options(base_dir).map_err(|fault| match server.tls.mode {
        TlsMode::VerifyFull => reach::certificates(&fault.to_string()),
        _ => as_trouble(&fault),
    })?;
    let options = Opts::from(options);
    if options.socket().is_none() {
        reach::tcp(options.ip_or_hostname(), options.tcp_port()).await?;
    }
    let place = place(&options);
    let greeted = async {
        let mut conn = Conn::new(options).await?;
        set_up(&mut conn).await.map(|()| conn)
    };
    match timeout(CONNECT_WAIT, greeted).await {
        Ok(Ok(conn)) => Ok(Link { conn, place }),
        Ok(Err(error)) => Err(of_connecting(server, &place, &error)),
        Err(_) => Err(Trouble::new(
            Kind::Silent,
            format!("{place} takes the connection and says nothing"),
            "is there MySQL or MariaDB, and has it room for one more connection?",
        )),
    }
}

fn of_connecting(server: &Server, place: &str, error: &Error) -> Trouble {
    let cause = format!("{place}: {}", explain(error));
    match error {
        Error::Server(said) if LOGIN_ERRORS.contains(&said.code) => reach::refused(cause),
        Error::Server(said) if RIGHT_ERRORS.contains(&said.code) => {
            forbidden(cause, "GRANT the user rights on this database")
        }
        Error::Server(said) if MISSING_ERRORS.contains(&said.code) => {
            missing(cause, "create the database, or correct its name")
        }
        Error::Server(_) => Trouble::new(Kind::Other, cause, "see what the server's log says to it"),
        _ if server.tls.mode != TlsMode::Disable => {
            reach::unprotected(&format!("{cause} (a server without TLS needs tls.mode = \"disable\")"))
        }
        _ => Trouble::new(Kind::Other, cause, "is there MySQL or MariaDB?"),
    }
}

/// Runs a statement that gives no row and changes nothing.
async fn try_out(link: &mut Link, doing: &str, sql: &str, grant: &str) -> Result<(), Trouble> {
    let Err(error) = link.conn.query_drop(sql).await else {
        return Ok(());
    };
    let cause = format!("cannot {doing}: {}", explain(&error));
    Err(match &error {
        Error::Server(said) if RIGHT_ERRORS.contains(&said.code) => forbidden(cause, grant),
        Error::Server(said) if MISSING_ERRORS.contains(&said.code) => missing(cause, "create it, or correct the name"),
        Error::Server(_) => Trouble::new(Kind::Config, cause, "correct the query or the table"),
        _ => Trouble::new(Kind::Other, cause, "see what the server's log says to it"),
    })
}

/// How a table is kept; `None`: there is none that the user may see.
async fn engine(link: &mut Link, table: &str) -> Result<Option<String>, Trouble> {
    let sql = format!(
        "SELECT COALESCE(ENGINE, TABLE_TYPE) FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = {}",
        text_literal(table)
    );
    let found: Result<Vec<String>, _> = link.rows("look the table up", &sql).await;
    Ok(found.map_err(|fault| as_trouble(&fault))?.into_iter().next())
}

/// That there is such a table.
pub(super) async fn has_table(link: &mut Link, table: &str) -> Result<(), Trouble> {
    match engine(link, table).await? {
        Some(_) => Ok(()),
        None => Err(no_table(link, table).await),
    }
}

async fn no_table(link: &mut Link, table: &str) -> Trouble {
    let sql = "SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() ORDER BY 1 LIMIT 1000";
    let names: Vec<String> = link.rows("look for the table", sql).await.unwrap_or_default();
    let hint = hint(table, names.iter().map(String::as_str));
    missing(
        format!("{} has no table '{table}' that the user may see{hint}", link.place),
        "create it, correct the name, or GRANT the user SELECT on it",
    )
}

/// The destination's.
pub(super) async fn sink(settings: &Settings, base_dir: &Path) -> Result<String, Trouble> {
    let mut link = connect(&settings.server, base_dir).await?;
    let Settings { table, .. } = settings;
    let place = link.place.clone();
    let found = match engine(&mut link, table).await? {
        Some(engine) => {
            transactional(table, &engine)?;
            may_write(&mut link, table, settings.mode).await?;
            format!("{place}: the table '{table}' can be written")
        }
        None if !settings.create_table => return Err(no_table(&mut link, table).await),
        // Nothing tells whether a role may CREATE without creating.
        None => format!("{place}: the table '{table}' will be made, if the user has the right to CREATE"),
    };
    if let Some(engine) = engine(&mut link, WATERMARK_TABLE).await? {
        transactional(WATERMARK_TABLE, &engine)?;
        may_write(&mut link, WATERMARK_TABLE, WriteMode::Upsert).await?;
    }
    Ok(found)
}

fn transactional(table: &str, engine: &str) -> Result<(), Trouble> {
    if engine.eq_ignore_ascii_case("InnoDB") {
        return Ok(());
    }
    Err(Trouble::new(
        Kind::Setup,
        format!("table '{table}' is kept by {engine}, which has no transactions"),
        format!("ALTER TABLE {} ENGINE = InnoDB", quote(table)),
    ))
}

async fn may_write(link: &mut Link, table: &str, mode: WriteMode) -> Result<(), Trouble> {
    let quoted = quote(table);
    let grant = |rights: &str| format!("GRANT {rights} ON {quoted} TO the user");
    let insert = format!("EXPLAIN INSERT INTO {quoted} () VALUES ()");
    match mode {
        WriteMode::Insert => try_out(link, "write", &insert, &grant("INSERT")).await,
        WriteMode::Upsert => {
            let grant = grant("SELECT, INSERT, UPDATE");
            try_out(link, "write", &insert, &grant).await?;
            let read = format!("SELECT * FROM {quoted} LIMIT 0");
            try_out(link, "read", &read, &grant).await
        }
    }
}

/// The source's.
pub(super) async fn cursor(settings: &cursor::Settings, base_dir: &Path) -> Result<String, Trouble> {
    let mut link = connect(&settings.server, base_dir).await?;
    prepare(&mut link).await.map_err(|fault| as_trouble(&fault))?;
    let from = match &settings.subject {
        Subject::Table(table) => {
            if engine(&mut link, table).await?.is_none() {
                return Err(no_table(&mut link, table).await);
            }
            quote(table)
        }
        Subject::Query { sql, .. } => format!("({}\n) AS q", sql.trim().trim_end_matches(';')),
    };
    let looked = format!("SELECT * FROM {from} LIMIT 0");
    try_out(&mut link, "read", &looked, "GRANT the user SELECT on what is read").await?;
    let cursorless = |cause: String| {
        let remedy = "name a cursor whose values only rise and are unique, or give the table a primary key";
        Trouble::new(Kind::Config, cause, remedy)
    };
    let layout = Layout::load(&mut link, &settings.subject, settings.cursor.as_deref()).await;
    let layout = layout.map_err(|fault| cursorless(fault.to_string()))?;
    if let Some(reason) = layout.unwatched().filter(|_| settings.delay.is_zero()) {
        return Err(Trouble::new(
            Kind::Config,
            reason,
            "set delay_ms, or read by another cursor",
        ));
    }
    Ok(format!(
        "{}: {} columns can be read, in the order of {}",
        link.place,
        layout.shape.schema.fields.len(),
        layout.cursor.join(", ")
    ))
}
