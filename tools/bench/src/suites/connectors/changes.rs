//! Changes: rows that are inserted while the daemon is away, and read when it is back, out of SQLite's journal, PostgreSQL's
//! slot and MariaDB's binary log.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use futures_util::{StreamExt as _, TryStreamExt as _};
use mysql_async::binlog::events::EventData;
use mysql_async::{BinlogStreamRequest, Value};
use rusqlite::Connection;
use testkit::{Cmd, Mariadb, Postgres, bin, wait_until};
use tokio::runtime::Runtime;

use super::databases::{
    MYSQL_TABLE, POSTGRES_TABLE, SQLITE_TABLE, mysql_write, postgres_client, postgres_write, sqlite_write,
};
use super::{Lines, Race, into_file, memchr_lines, out, tail, timed, until_lines};

/// What the source calls its slot and its publication.
const SLOT: &str = "mycelial_job_in";
const SOON: Duration = Duration::from_secs(30);
/// What the loop calls itself at MariaDB.
const REPLICA: u32 = 4711;
/// More changes than any race has.
const JOURNAL_ROWS: u64 = 100_000_000;
/// What the loop's own journal is written by: the least that is one.
const SQLITE_JOURNAL: &str =
    "CREATE TABLE journal (seq INTEGER PRIMARY KEY, op TEXT, id INTEGER, name TEXT, value REAL);
     CREATE TRIGGER journal_insert AFTER INSERT ON readings BEGIN
         INSERT INTO journal (op, id, name, value) VALUES ('i', NEW.id, NEW.name, NEW.value);
     END";
/// The first row, which the snapshot finds, and the one after it, the first change.
const FIRST: [&str; 2] = [
    "INSERT INTO readings VALUES (0, 'first', 0.0)",
    "INSERT INTO readings VALUES (-1, 'second', 0.0)",
];

/// The servers, which keep a log as they have to for this.
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
        let postgres = Postgres::builder().config("wal_level", "logical").start();
        let mariadb = Mariadb::builder()
            .config("log_bin", "changes")
            .config("server_id", "7")
            .config("binlog_format", "ROW")
            .config("binlog_row_metadata", "FULL")
            .start();
        Self {
            postgres_url: postgres.create_database("bench"),
            mariadb_url: mariadb.create_database("bench"),
            postgres,
            mariadb,
            runtime: super::runtime(),
        }
    }

    /// The races.
    pub(super) fn races(&self, rows: u64) -> Vec<Race<'_>> {
        vec![
            Race {
                name: "sqlite source, changes",
                note: "rusqlite; a journal that a trigger of its own writes, of which nothing is taken off",
                rows,
                ours: Box::new(move |dir| {
                    let path = dir.join("in.db");
                    let conn = Connection::open(&path)?;
                    conn.execute_batch(SQLITE_TABLE)?;
                    let place = format!(
                        "type = \"sqlite\"\npath = \"{}\"\nmode = \"changes\"\njournal_rows_max = {JOURNAL_ROWS}\n",
                        path.display()
                    );
                    read(
                        dir,
                        &place,
                        rows,
                        |sql| Ok(conn.execute_batch(sql)?),
                        || sqlite_write(&path, rows),
                    )
                }),
                bare: Box::new(move |dir| {
                    let path = dir.join("in.db");
                    Connection::open(&path)?.execute_batch(&format!("{SQLITE_TABLE}; {SQLITE_JOURNAL}"))?;
                    sqlite_write(&path, rows)?;
                    counted(&out(dir), rows, || sqlite_read(&path, &out(dir)))
                }),
            },
            Race {
                name: "postgres source, changes",
                note: "tokio-postgres, which knows no replication: `pg_logical_slot_get_binary_changes`, once",
                rows,
                ours: Box::new(move |dir| self.postgres(dir, rows)),
                bare: Box::new(move |dir| self.bare_postgres(&out(dir), rows)),
            },
            Race {
                name: "mysql source, changes",
                note: "mysql_async, its stream of the binary log, with the rows as it decodes them",
                rows,
                ours: Box::new(move |dir| {
                    self.begin_log();
                    let place = format!(
                        "type = \"mysql\"\nurl = \"{}\"\ntls = {{ mode = \"disable\" }}\nmode = \"changes\"\n",
                        self.mariadb_url
                    );
                    let run = |sql: &str| {
                        self.mariadb.query_in("bench", sql);
                        Ok(())
                    };
                    let fill = || self.runtime.block_on(mysql_write(&self.mariadb_url, "readings", rows));
                    read(dir, &place, rows, run, fill)
                }),
                bare: Box::new(move |dir| {
                    self.begin_log();
                    let place = self.mariadb.query_in("bench", "SHOW MASTER STATUS");
                    let place = place.first().context("it keeps no log")?;
                    let (file, at) = (place[0].clone(), place[1].parse()?);
                    self.runtime
                        .block_on(mysql_write(&self.mariadb_url, "readings", rows))?;
                    let out = out(dir);
                    let read = mysql_read(&self.mariadb_url, &file, at, &out, rows);
                    counted(&out, rows, || self.runtime.block_on(read))
                }),
            },
        ]
    }

    fn postgres(&self, dir: &Path, rows: u64) -> Result<f64> {
        self.begin_table();
        let place = format!(
            "type = \"postgres\"\nurl = \"{}\"\ntls = {{ mode = \"disable\" }}\nmode = \"replication\"\n",
            self.postgres_url
        );
        let run = |sql: &str| {
            self.postgres.query_in("bench", sql);
            Ok(())
        };
        let fill = || {
            self.runtime
                .block_on(postgres_write(&self.postgres_url, "readings", rows))
        };
        let seconds = read(dir, &place, rows, run, fill)?;
        self.forget(SLOT);
        Ok(seconds)
    }

    fn bare_postgres(&self, out: &Path, rows: u64) -> Result<f64> {
        self.begin_table();
        self.postgres
            .query_in("bench", "CREATE PUBLICATION bare FOR TABLE readings");
        self.postgres
            .query_in("bench", "SELECT pg_create_logical_replication_slot('bare', 'pgoutput')");
        self.runtime
            .block_on(postgres_write(&self.postgres_url, "readings", rows))?;
        let read = postgres_read(&self.postgres_url, out);
        let seconds = counted(out, rows, || self.runtime.block_on(read))?;
        self.forget("bare");
        Ok(seconds)
    }

    fn begin_table(&self) {
        self.postgres.query_in("bench", "DROP TABLE IF EXISTS readings");
        self.postgres.query_in("bench", POSTGRES_TABLE);
    }

    /// A slot that nobody reads keeps the server's log. It can go when the server has seen its reader leave.
    fn forget(&self, slot: &str) {
        let active = format!("SELECT 1 FROM pg_replication_slots WHERE slot_name = '{slot}' AND active");
        wait_until("the slot to be free", SOON, || {
            self.postgres.query_in("bench", &active).is_empty().then_some(())
        });
        self.postgres
            .query_in("bench", &format!("SELECT pg_drop_replication_slot('{slot}')"));
        self.postgres.query_in("bench", &format!("DROP PUBLICATION {slot}"));
    }

    fn begin_log(&self) {
        self.mariadb.query_in("bench", "DROP TABLE IF EXISTS readings");
        self.mariadb.query_in("bench", "RESET MASTER");
        self.mariadb.query_in("bench", MYSQL_TABLE);
    }
}

/// The daemon takes what is there and the first change, is stopped, and reads what was inserted meanwhile.
fn read(
    dir: &Path,
    place: &str,
    rows: u64,
    run: impl Fn(&str) -> Result<()>,
    fill: impl FnOnce() -> Result<()>,
) -> Result<f64> {
    let source = format!("name = \"job\"\n\n[sources.in]\n{place}table = \"readings\"\n");
    let (text, job, out) = (
        format!("{source}{}", into_file(&out(dir))),
        dir.join("job.toml"),
        out(dir),
    );
    std::fs::write(&job, &text)?;
    let mut daemon = Cmd::new(bin("myceliald"))
        .arg("run")
        .arg(&job)
        .log(dir.join("first.log"))
        .spawn();
    for (sql, id) in FIRST.iter().zip([0, -1]) {
        run(sql)?;
        wait_until("the first rows", SOON, || {
            tail(&out).contains(&format!("\"id\":{id},")).then_some(())
        });
    }
    daemon.term_and_wait(SOON);
    fill()?;
    let seconds = until_lines(dir, &text, &out, rows)?;
    let (found, wanted) = (memchr_lines(&out)?, rows + FIRST.len() as u64);
    ensure!(found == wanted, "{found} of {wanted} lines");
    Ok(seconds)
}

fn counted(out: &Path, rows: u64, work: impl FnOnce() -> Result<()>) -> Result<f64> {
    let seconds = timed(work)?;
    let found = memchr_lines(out)?;
    ensure!(found == rows, "{found} of {rows} lines");
    Ok(seconds)
}

fn sqlite_read(path: &Path, out: &Path) -> Result<()> {
    let conn = Connection::open(path)?;
    let mut statement = conn.prepare("SELECT op, id, name, value FROM journal ORDER BY seq")?;
    let (mut rows, mut out) = (statement.query([])?, Lines::create(out)?);
    while let Some(row) = rows.next()? {
        ensure!(row.get_ref(0)?.as_str()? == "i", "not an insert");
        out.push(row.get(1)?, row.get_ref(2)?.as_str()?, row.get(3)?)?;
    }
    out.finish()
}

async fn postgres_read(url: &str, out: &Path) -> Result<()> {
    let client = postgres_client(url).await?;
    let sql = "SELECT data FROM pg_logical_slot_get_binary_changes('bare', NULL, NULL, 'proto_version', '1', \
               'publication_names', 'bare')";
    let none: [&str; 0] = [];
    let messages = client.query_raw(sql, none).await?;
    let (mut messages, mut out) = (std::pin::pin!(messages), Lines::create(out)?);
    while let Some(message) = messages.try_next().await? {
        let message: &[u8] = message.get(0);
        if message.first() == Some(&b'I') {
            let [id, name, value] = inserted(message).context("an insert that is none")?;
            out.push(id.parse()?, name, value.parse()?)?;
        }
    }
    out.finish()
}

/// The texts of an insert of pgoutput: the relation, `N`, how many columns there are, and for each `t`, its length and itself.
fn inserted(message: &[u8]) -> Option<[&str; 3]> {
    let mut rest = message.get(8..)?;
    let mut texts = [""; 3];
    for text in &mut texts {
        let length = u32::from_be_bytes(*rest.get(1..)?.first_chunk()?) as usize;
        *text = std::str::from_utf8(rest.get(5..5 + length)?).ok()?;
        rest = rest.get(5 + length..)?;
    }
    Some(texts)
}

async fn mysql_read(url: &str, file: &str, at: u64, out: &Path, rows: u64) -> Result<()> {
    let conn = mysql_async::Conn::from_url(url).await?;
    let request = BinlogStreamRequest::new(REPLICA)
        .with_filename(file.as_bytes())
        .with_pos(at);
    let mut log = conn.get_binlog_stream(request).await?;
    let (mut out, mut found) = (Lines::create(out)?, 0);
    while found < rows {
        let event = log.next().await.context("the log ends")??;
        let Some(EventData::RowsEvent(event)) = event.read_data()? else {
            continue;
        };
        let table = log.get_tme(event.table_id()).context("rows of no table")?;
        for row in event.rows(table) {
            let mut row = row?.1.context("not an insert")?;
            let mut take = |at| Some(Value::try_from(row.take(at)?));
            let values = (take(0).transpose()?, take(1).transpose()?, take(2).transpose()?);
            let (Some(Value::Int(id)), Some(Value::Bytes(name)), Some(Value::Double(value))) = values else {
                bail!("a row of other types");
            };
            out.push(id, std::str::from_utf8(&name)?, value)?;
            found += 1;
        }
    }
    log.close().await?;
    out.finish()
}
