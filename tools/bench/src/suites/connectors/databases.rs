//! Databases: SQLite by rusqlite, PostgreSQL by tokio-postgres, MariaDB by mysql_async.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Result, ensure};
use futures_util::TryStreamExt as _;
use mysql_async::prelude::Queryable as _;
use rusqlite::Connection;
use testkit::{Mariadb, Postgres};
use tokio::runtime::Runtime;

use super::{Circumstances, Lines, Race, generator, into_file, out, row, timed, to_its_end, until_lines};

/// Records in a commit, and in a statement.
const COMMIT_ROWS: u64 = 1_000;

/// The servers.
pub(super) struct Servers {
    postgres: Postgres,
    postgres_url: String,
    mariadb: Mariadb,
    mariadb_url: String,
    runtime: Runtime,
}

impl Servers {
    /// Starts them.
    pub(super) fn start() -> Self {
        let (postgres, mariadb) = (Postgres::start(), Mariadb::start());
        Self {
            postgres_url: postgres.create_database("bench"),
            mariadb_url: mariadb.create_database("bench"),
            postgres,
            mariadb,
            runtime: super::runtime(),
        }
    }

    /// The races of both directions, with the tables that are read.
    pub(super) fn races(&self, circumstances: &Circumstances, rows: u64) -> Result<Vec<Race<'_>>> {
        let input = circumstances.fresh("connector-database")?.join("in.db");
        sqlite_write(&input, rows)?;
        self.postgres.query_in("bench", "DROP TABLE IF EXISTS readings");
        self.postgres.query_in("bench", POSTGRES_TABLE);
        self.runtime
            .block_on(postgres_write(&self.postgres_url, "readings", rows))?;
        self.mariadb.query_in("bench", "DROP TABLE IF EXISTS readings");
        self.mariadb.query_in("bench", MYSQL_TABLE);
        self.runtime
            .block_on(mysql_write(&self.mariadb_url, "readings", rows))?;
        let again = input.clone();
        let url = |url: &str| format!("url = \"{url}\"\ntls = {{ mode = \"disable\" }}\n");
        let (postgres, mysql) = (url(&self.postgres_url), url(&self.mariadb_url));
        let (postgres_out, mysql_out) = (postgres.clone(), mysql.clone());
        Ok(vec![
            Race {
                name: "sqlite source",
                note: "rusqlite",
                rows,
                ours: Box::new(move |dir| read(dir, "sqlite", &format!("path = \"{}\"\n", input.display()), rows)),
                bare: Box::new(move |dir| timed(|| sqlite_read(&again, &out(dir)))),
            },
            Race {
                name: "sqlite destination",
                note: "rusqlite, a prepared INSERT",
                rows,
                ours: Box::new(move |dir| {
                    let place = format!("path = \"{}/out.db\"\n", dir.display());
                    let seconds = deliver(dir, "sqlite", &place, "copied", rows)?;
                    let found: u64 =
                        Connection::open(dir.join("out.db"))?
                            .query_row("SELECT count(*) FROM copied", [], |row| row.get::<_, i64>(0))?
                            as u64;
                    ensure!(found == rows, "{found} of {rows} rows");
                    Ok(seconds)
                }),
                bare: Box::new(move |dir| timed(|| sqlite_write(&dir.join("bare.db"), rows))),
            },
            Race {
                name: "postgres source",
                note: "tokio-postgres, one SELECT",
                rows,
                ours: Box::new(move |dir| read(dir, "postgres", &postgres, rows)),
                bare: Box::new(|dir| timed(|| self.runtime.block_on(postgres_read(&self.postgres_url, &out(dir))))),
            },
            Race {
                name: "postgres destination",
                note: "tokio-postgres, arrays of a thousand in a prepared INSERT",
                rows,
                ours: Box::new(move |dir| {
                    self.postgres
                        .query_in("bench", "DROP TABLE IF EXISTS copied, _mycelial_watermark");
                    let seconds = deliver(dir, "postgres", &postgres_out, "copied", rows)?;
                    let found = self.postgres.query_in("bench", "SELECT count(*) FROM copied");
                    ensure!(found == [[rows.to_string()]], "{found:?} of {rows} rows");
                    Ok(seconds)
                }),
                bare: Box::new(move |_| {
                    self.postgres.query_in("bench", "DROP TABLE IF EXISTS bare");
                    self.postgres
                        .query_in("bench", &POSTGRES_TABLE.replace("readings", "bare"));
                    timed(|| self.runtime.block_on(postgres_write(&self.postgres_url, "bare", rows)))
                }),
            },
            Race {
                name: "mysql source",
                note: "mysql_async, one SELECT",
                rows,
                ours: Box::new(move |dir| read(dir, "mysql", &mysql, rows)),
                bare: Box::new(|dir| timed(|| self.runtime.block_on(mysql_read(&self.mariadb_url, &out(dir))))),
            },
            Race {
                name: "mysql destination",
                note: "mysql_async, a thousand rows in an INSERT",
                rows,
                ours: Box::new(move |dir| {
                    self.mariadb
                        .query_in("bench", "DROP TABLE IF EXISTS copied, _mycelial_watermark");
                    let seconds = deliver(dir, "mysql", &mysql_out, "copied", rows)?;
                    let found = self.mariadb.query_in("bench", "SELECT count(*) FROM copied");
                    ensure!(found == [[rows.to_string()]], "{found:?} of {rows} rows");
                    Ok(seconds)
                }),
                bare: Box::new(move |_| {
                    self.mariadb.query_in("bench", "DROP TABLE IF EXISTS bare");
                    self.mariadb.query_in("bench", &MYSQL_TABLE.replace("readings", "bare"));
                    timed(|| self.runtime.block_on(mysql_write(&self.mariadb_url, "bare", rows)))
                }),
            },
        ])
    }
}

fn read(dir: &Path, kind: &str, place: &str, rows: u64) -> Result<f64> {
    let text =
        format!("name = \"job\"\n\n[sources.in]\ntype = \"{kind}\"\n{place}table = \"readings\"\ncursor = \"id\"\n");
    until_lines(dir, &format!("{text}{}", into_file(&out(dir))), &out(dir), rows)
}

fn deliver(dir: &Path, kind: &str, place: &str, table: &str, rows: u64) -> Result<f64> {
    let destination =
        format!("[destinations.out]\ntype = \"{kind}\"\nfrom = \"in\"\n{place}table = \"{table}\"\nkey = []\n");
    to_its_end(dir, &format!("{}{destination}", generator(rows)))
}

pub(super) const SQLITE_TABLE: &str = "PRAGMA journal_mode = WAL;
     CREATE TABLE IF NOT EXISTS readings (id INTEGER PRIMARY KEY, name TEXT, value REAL)";

/// Makes the table when it is not there.
pub(super) fn sqlite_write(path: &Path, rows: u64) -> Result<()> {
    let mut conn = Connection::open(path)?;
    conn.execute_batch(&format!("PRAGMA synchronous = FULL; {SQLITE_TABLE}"))?;
    for first in (1..=rows).step_by(COMMIT_ROWS as usize) {
        let transaction = conn.transaction()?;
        {
            let mut insert = transaction.prepare_cached("INSERT INTO readings VALUES (?1, ?2, ?3)")?;
            for id in first..=rows.min(first + COMMIT_ROWS - 1) {
                let row = row(id);
                insert.execute(rusqlite::params![row.id as i64, row.name, row.value])?;
            }
        }
        transaction.commit()?;
    }
    Ok(())
}

fn sqlite_read(path: &Path, out: &Path) -> Result<()> {
    let conn = Connection::open(path)?;
    let mut statement = conn.prepare("SELECT id, name, value FROM readings ORDER BY id")?;
    let (mut rows, mut out) = (statement.query([])?, Lines::create(out)?);
    while let Some(row) = rows.next()? {
        out.push(row.get(0)?, row.get_ref(1)?.as_str()?, row.get(2)?)?;
    }
    out.finish()
}

pub(super) const POSTGRES_TABLE: &str = "CREATE TABLE readings (id bigint PRIMARY KEY, name text, value float8)";

pub(super) async fn postgres_client(url: &str) -> Result<tokio_postgres::Client> {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

pub(super) async fn postgres_write(url: &str, table: &str, rows: u64) -> Result<()> {
    let mut client = postgres_client(url).await?;
    let sql = format!("INSERT INTO {table} SELECT * FROM unnest($1::bigint[], $2::text[], $3::float8[])");
    let insert = client.prepare(&sql).await?;
    for first in (1..=rows).step_by(COMMIT_ROWS as usize) {
        let part: Vec<_> = (first..=rows.min(first + COMMIT_ROWS - 1)).map(row).collect();
        let ids: Vec<i64> = part.iter().map(|row| row.id as i64).collect();
        let names: Vec<&str> = part.iter().map(|row| row.name.as_str()).collect();
        let values: Vec<f64> = part.iter().map(|row| row.value).collect();
        let transaction = client.transaction().await?;
        transaction.execute(&insert, &[&ids, &names, &values]).await?;
        transaction.commit().await?;
    }
    Ok(())
}

async fn postgres_read(url: &str, out: &Path) -> Result<()> {
    let client = postgres_client(url).await?;
    let none: [&str; 0] = [];
    let rows = client
        .query_raw("SELECT id, name, value FROM readings ORDER BY id", none)
        .await?;
    let (mut rows, mut out) = (std::pin::pin!(rows), Lines::create(out)?);
    while let Some(row) = rows.try_next().await? {
        out.push(row.get(0), row.get(1), row.get(2))?;
    }
    out.finish()
}

pub(super) const MYSQL_TABLE: &str =
    "CREATE TABLE readings (id bigint PRIMARY KEY, name text, value double) ENGINE = InnoDB";

pub(super) async fn mysql_write(url: &str, table: &str, rows: u64) -> Result<()> {
    let mut conn = mysql_async::Conn::from_url(url).await?;
    for first in (1..=rows).step_by(COMMIT_ROWS as usize) {
        let mut sql = format!("INSERT INTO {table} VALUES ");
        for id in first..=rows.min(first + COMMIT_ROWS - 1) {
            let row = row(id);
            let comma = if id > first { ", " } else { "" };
            write!(sql, "{comma}({}, '{}', {:?})", row.id, row.name, row.value)?;
        }
        // A statement is a transaction.
        conn.query_drop(sql).await?;
    }
    Ok(conn.disconnect().await?)
}

async fn mysql_read(url: &str, out: &Path) -> Result<()> {
    let mut conn = mysql_async::Conn::from_url(url).await?;
    let mut out = Lines::create(out)?;
    {
        let mut rows = conn
            .query_iter("SELECT id, name, value FROM readings ORDER BY id")
            .await?;
        while let Some(row) = rows.next().await? {
            let (id, name, value): (i64, String, f64) = mysql_async::from_row(row);
            out.push(id, &name, value)?;
        }
    }
    conn.disconnect().await?;
    out.finish()
}
