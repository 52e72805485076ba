//! SQLite, PostgreSQL, MariaDB.

use std::{ops::Range, path::PathBuf};

use bus_schema::data::Op;
use flow::TroubleKind;
use rusqlite::Connection;
use serde_json::{Value as Json, json};
use testkit::{Mariadb, Postgres, TempDir, free_port, temp_dir};

use crate::{
    file_worlds::names_in,
    world::{SinkWorld, SourceWorld, Wrong},
};

/// Rows with these numbers, as what stands behind VALUES.
fn values(numbers: Range<u64>, pad: usize, drifts: bool) -> String {
    let pad = "x".repeat(pad);
    let extra = if drifts { ", 'more'" } else { "" };
    let rows: Vec<String> = numbers.map(|n| format!("({n}, '{pad}'{extra})")).collect();
    rows.join(", ")
}

fn columns(drifts: bool) -> &'static str {
    if drifts { "n, v, extra" } else { "n, v" }
}

/// Rows with the new column.
const EXTRAS: &str = "SELECT count(*) FROM t WHERE extra = 'more'";

/// Adds keys to a config.
fn with(mut config: Json, more: &Json) -> Json {
    for (key, value) in more.as_object().unwrap() {
        config[key] = value.clone();
    }
    config
}

/// A table of a file.
pub struct SqliteSource {
    dir: TempDir,
    more: Json,
    drifts: bool,
}

impl SqliteSource {
    /// New rows.
    pub fn cursor() -> Self {
        Self::new(json!({"cursor": "n"}))
    }

    /// Every change.
    pub fn changes() -> Self {
        Self::new(json!({"mode": "changes"}))
    }

    fn new(more: Json) -> Self {
        let dir = temp_dir("compliance");
        let world = Self {
            dir,
            more,
            drifts: false,
        };
        let sql = "PRAGMA journal_mode = WAL; CREATE TABLE t (n INTEGER PRIMARY KEY, v TEXT)";
        world.conn().execute_batch(sql).unwrap();
        world
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("in.db")
    }

    fn conn(&self) -> Connection {
        let conn = Connection::open(self.path()).unwrap();
        conn.busy_timeout(std::time::Duration::from_secs(20)).unwrap();
        conn
    }
}

impl SourceWorld for SqliteSource {
    fn config(&self) -> Json {
        with(
            json!({"path": self.path(), "table": "t", "poll_interval_ms": 20}),
            &self.more,
        )
    }

    fn feed(&mut self, numbers: Range<u64>, pad: usize) {
        let (columns, values) = (columns(self.drifts), values(numbers, pad, self.drifts));
        self.conn()
            .execute_batch(&format!("INSERT INTO t ({columns}) VALUES {values}"))
            .unwrap();
    }

    fn feed_bad(&mut self, number: u64) -> bool {
        let sql = format!("INSERT INTO t (n, v) VALUES ({number}, CAST(x'ff' AS TEXT))");
        self.conn().execute_batch(&sql).unwrap();
        true
    }

    fn drift(&mut self) {
        self.conn()
            .execute_batch("ALTER TABLE t ADD COLUMN extra TEXT")
            .unwrap();
        self.drifts = true;
    }

    fn wrong(&self) -> Vec<Wrong> {
        let none = self.dir.path().join("none.db");
        let text = self.dir.path().join("text");
        std::fs::write(&text, "this is no database, and long enough to be looked at").unwrap();
        vec![
            (with(self.config(), &json!({"path": none})), TroubleKind::Missing),
            (
                with(self.config(), &json!({"path": self.dir.path()})),
                TroubleKind::Path,
            ),
            (with(self.config(), &json!({"path": text})), TroubleKind::Path),
            (with(self.config(), &json!({"table": "tt"})), TroubleKind::Missing),
        ]
    }

    fn touched(&mut self) -> String {
        contents(&self.conn())
    }
}

/// What a file of SQLite has: everything that is called something, and how many rows each table.
fn contents(conn: &Connection) -> String {
    let mut schema = conn.prepare("SELECT type, name FROM sqlite_schema ORDER BY 2").unwrap();
    let names = schema
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap()
        .collect::<Result<Vec<(String, String)>, _>>()
        .unwrap();
    let rows = |(kind, name): (String, String)| {
        let sql = format!("SELECT count(*) FROM \"{name}\"");
        let rows = (kind == "table").then(|| conn.query_row(&sql, [], |row| row.get::<_, i64>(0)).unwrap());
        format!("{kind} {name} {rows:?}")
    };
    format!("{:?}", names.into_iter().map(rows).collect::<Vec<_>>())
}

/// A table of a PostgreSQL server.
pub struct PostgresSource {
    server: Postgres,
    url: String,
    more: Json,
    drifts: bool,
}

impl PostgresSource {
    /// New rows.
    pub fn cursor() -> Self {
        Self::new(json!({"cursor": "n", "poll_interval_ms": 20}))
    }

    /// Every change.
    pub fn replication() -> Self {
        Self::new(json!({"mode": "replication"}))
    }

    fn new(more: Json) -> Self {
        let server = Postgres::builder().config("wal_level", "logical").start();
        let url = server.create_database("plant");
        server.query_in("plant", "CREATE TABLE t (n bigint PRIMARY KEY, v text)");
        Self {
            server,
            url,
            more,
            drifts: false,
        }
    }
}

impl SourceWorld for PostgresSource {
    fn config(&self) -> Json {
        with(
            json!({"url": self.url, "tls": {"mode": "disable"}, "table": "t"}),
            &self.more,
        )
    }

    fn feed(&mut self, numbers: Range<u64>, pad: usize) {
        let columns = columns(self.drifts);
        for start in numbers.clone().step_by(500) {
            let values = values(start..numbers.end.min(start + 500), pad, self.drifts);
            self.server
                .query_in("plant", &format!("INSERT INTO t ({columns}) VALUES {values}"));
        }
    }

    fn drift(&mut self) {
        self.server.query_in("plant", "ALTER TABLE t ADD COLUMN extra text");
        self.drifts = true;
    }

    fn down(&mut self) {
        self.server.stop();
    }

    fn up(&mut self) {
        self.server.start();
    }

    fn wrong(&self) -> Vec<Wrong> {
        wrong_postgres(&self.server, &self.config())
    }

    fn touched(&mut self) -> String {
        let slots = "SELECT slot_name, confirmed_flush_lsn FROM pg_replication_slots";
        let more =
            "SELECT (SELECT count(*) FROM pg_publication), (SELECT count(*) FROM pg_class), (SELECT count(*) FROM t)";
        [slots, more]
            .map(|sql| format!("{:?}", self.server.query_in("plant", sql)))
            .concat()
    }
}

fn wrong_postgres(server: &Postgres, good: &Json) -> Vec<Wrong> {
    let at = |place: &str| format!("postgres://postgres@{place}/plant");
    vec![
        (
            with(good.clone(), &json!({"url": at(&format!("127.0.0.1:{}", free_port()))})),
            TroubleKind::Unreachable,
        ),
        (
            with(good.clone(), &json!({"url": at("no-such-host.invalid")})),
            TroubleKind::Name,
        ),
        (
            with(good.clone(), &json!({"url": server.url_of("none")})),
            TroubleKind::Missing,
        ),
        (
            with(
                good.clone(),
                &json!({"table": "tt", "create_table": false}).for_source(good),
            ),
            TroubleKind::Missing,
        ),
        (with(good.clone(), &json!({"schema": "nowhere"})), TroubleKind::Missing),
        (
            with(good.clone(), &json!({"tls": {"mode": "require"}})),
            TroubleKind::Tls,
        ),
        (
            with(good.clone(), &json!({"url": {"env": "COMPLIANCE_NOT_SET"}})),
            TroubleKind::Secret,
        ),
    ]
}

/// A table of a MariaDB server.
pub struct MysqlSource {
    server: Mariadb,
    url: String,
    more: Json,
    drifts: bool,
}

impl MysqlSource {
    /// New rows.
    pub fn cursor() -> Self {
        Self::new(json!({"cursor": "n", "poll_interval_ms": 20}))
    }

    /// Every change.
    pub fn changes() -> Self {
        Self::new(json!({"mode": "changes"}))
    }

    fn new(more: Json) -> Self {
        let server = Mariadb::builder()
            .config("log_bin", "changes")
            .config("server_id", "7")
            .config("binlog_format", "ROW")
            .config("binlog_row_metadata", "FULL")
            .start();
        let url = server.create_database("plant");
        server.query_in("plant", "CREATE TABLE t (n bigint PRIMARY KEY, v text) ENGINE = InnoDB");
        Self {
            server,
            url,
            more,
            drifts: false,
        }
    }
}

impl SourceWorld for MysqlSource {
    fn config(&self) -> Json {
        with(
            json!({"url": self.url, "tls": {"mode": "disable"}, "table": "t"}),
            &self.more,
        )
    }

    fn feed(&mut self, numbers: Range<u64>, pad: usize) {
        let columns = columns(self.drifts);
        for start in numbers.clone().step_by(500) {
            let values = values(start..numbers.end.min(start + 500), pad, self.drifts);
            self.server
                .query_in("plant", &format!("INSERT INTO t ({columns}) VALUES {values}"));
        }
    }

    fn drift(&mut self) {
        self.server.query_in("plant", "ALTER TABLE t ADD COLUMN extra text");
        self.drifts = true;
    }

    fn down(&mut self) {
        self.server.stop();
    }

    fn up(&mut self) {
        self.server.start();
    }

    fn wrong(&self) -> Vec<Wrong> {
        wrong_mysql(&self.server, &self.config())
    }

    fn touched(&mut self) -> String {
        // Whatever is changed is in the log.
        format!("{:?}", self.server.query_in("plant", "SHOW MASTER STATUS"))
    }
}

fn wrong_mysql(server: &Mariadb, good: &Json) -> Vec<Wrong> {
    let at = |place: &str| format!("mysql://root@{place}/plant");
    vec![
        (
            with(good.clone(), &json!({"url": at(&format!("127.0.0.1:{}", free_port()))})),
            TroubleKind::Unreachable,
        ),
        (
            with(good.clone(), &json!({"url": at("no-such-host.invalid")})),
            TroubleKind::Name,
        ),
        (
            with(good.clone(), &json!({"url": server.url_of("none")})),
            TroubleKind::Missing,
        ),
        (
            with(
                good.clone(),
                &json!({"url": server.url_of("plant").replace(":tester@", ":wrong@")}),
            ),
            TroubleKind::Login,
        ),
        (
            with(
                good.clone(),
                &json!({"table": "tt", "create_table": false}).for_source(good),
            ),
            TroubleKind::Missing,
        ),
        (
            with(good.clone(), &json!({"tls": {"mode": "require"}})),
            TroubleKind::Tls,
        ),
        (
            with(good.clone(), &json!({"url": {"env": "COMPLIANCE_NOT_SET"}})),
            TroubleKind::Secret,
        ),
    ]
}

/// A key that only destinations have.
trait ForSource {
    fn for_source(self, good: &Json) -> Self;
}

impl ForSource for Json {
    /// Without what a source's config cannot have.
    fn for_source(mut self, good: &Json) -> Self {
        if good.get("cursor").is_some() || good.get("mode").is_some() {
            self.as_object_mut().unwrap().remove("create_table");
        }
        self
    }
}

/// A file that is made.
pub struct SqliteSink {
    dir: TempDir,
    /// Somebody else who writes, and does not end.
    other: Option<Connection>,
}

impl SqliteSink {
    /// It is not there yet.
    pub fn new() -> Self {
        Self {
            dir: temp_dir("compliance"),
            other: None,
        }
    }
}

impl SinkWorld for SqliteSink {
    fn config(&self) -> Json {
        json!({"path": self.dir.path().join("out.db"), "table": "t"})
    }

    fn arrived(&mut self) -> Vec<u64> {
        let Ok(conn) = Connection::open(self.dir.path().join("out.db")) else {
            return Vec::new();
        };
        let Ok(mut statement) = conn.prepare("SELECT n FROM t") else {
            return Vec::new();
        };
        statement
            .query_map([], |row| row.get::<_, i64>(0))
            .unwrap()
            .map(|n| n.unwrap() as u64)
            .collect()
    }

    fn extras(&mut self) -> u64 {
        let conn = Connection::open(self.dir.path().join("out.db")).unwrap();
        let count = conn.query_row(EXTRAS, [], |row| row.get::<_, i64>(0));
        count.unwrap() as u64
    }

    fn freeze(&mut self) {
        let conn = Connection::open(self.dir.path().join("out.db")).unwrap();
        conn.busy_timeout(std::time::Duration::from_secs(20)).unwrap();
        conn.execute_batch("BEGIN IMMEDIATE").unwrap();
        self.other = Some(conn);
    }

    fn thaw(&mut self) {
        let other = self.other.take().unwrap();
        other.execute_batch("ROLLBACK").unwrap();
    }

    fn bad(&self) -> Op {
        Op::Update
    }

    fn wrong(&self) -> Vec<Wrong> {
        let text = self.dir.path().join("text");
        std::fs::write(&text, "this is no database, and long enough to be looked at").unwrap();
        vec![
            (
                json!({"path": self.dir.path().join("none/out.db"), "table": "t"}),
                TroubleKind::Path,
            ),
            (json!({"path": self.dir.path(), "table": "t"}), TroubleKind::Path),
            (json!({"path": text, "table": "t"}), TroubleKind::Path),
            (
                json!({"path": self.dir.path().join("none.db"), "table": "t", "create_table": false}),
                TroubleKind::Missing,
            ),
        ]
    }

    fn touched(&mut self) -> String {
        let path = self.dir.path().join("out.db");
        let inside = path.exists().then(|| contents(&Connection::open(&path).unwrap()));
        format!("{inside:?} {}", names_in(self.dir.path()))
    }
}

/// A table that is made.
pub struct PostgresSink {
    server: Postgres,
    url: String,
}

impl PostgresSink {
    /// A new server.
    pub fn new() -> Self {
        let server = Postgres::start();
        let url = server.create_database("plant");
        Self { server, url }
    }
}

impl SinkWorld for PostgresSink {
    fn config(&self) -> Json {
        json!({"url": self.url, "tls": {"mode": "disable"}, "table": "t"})
    }

    fn arrived(&mut self) -> Vec<u64> {
        numbers(&self.server.try_query_in("plant", "SELECT n FROM t").stdout)
    }

    fn extras(&mut self) -> u64 {
        numbers(&self.server.try_query_in("plant", EXTRAS).ok())[0]
    }

    fn bad(&self) -> Op {
        Op::Update
    }

    fn down(&mut self) {
        self.server.stop();
    }

    fn up(&mut self) {
        self.server.start();
    }

    fn freeze(&mut self) {
        self.server.pause();
    }

    fn thaw(&mut self) {
        self.server.resume();
    }

    fn wrong(&self) -> Vec<Wrong> {
        wrong_postgres(&self.server, &self.config())
    }

    fn touched(&mut self) -> String {
        let rows = self.server.try_query_in("plant", "SELECT count(*) FROM t").stdout;
        let tables = self.server.query_in("plant", "SELECT count(*) FROM pg_class");
        format!("{tables:?} {rows}")
    }
}

/// The numbers in a text, whatever is between them.
fn numbers(text: &str) -> Vec<u64> {
    let words = text.split(|char: char| !char.is_ascii_digit());
    words.filter_map(|word| word.parse().ok()).collect()
}

/// A table that is made.
pub struct MysqlSink {
    server: Mariadb,
    url: String,
}

impl MysqlSink {
    /// A new server.
    pub fn new() -> Self {
        let server = Mariadb::start();
        let url = server.create_database("plant");
        Self { server, url }
    }
}

impl SinkWorld for MysqlSink {
    fn config(&self) -> Json {
        json!({"url": self.url, "tls": {"mode": "disable"}, "table": "t"})
    }

    fn arrived(&mut self) -> Vec<u64> {
        numbers(&self.server.try_query_in("plant", "SELECT n FROM t").stdout)
    }

    fn extras(&mut self) -> u64 {
        numbers(&self.server.try_query_in("plant", EXTRAS).ok())[0]
    }

    fn bad(&self) -> Op {
        Op::Update
    }

    fn down(&mut self) {
        self.server.stop();
    }

    fn up(&mut self) {
        self.server.start();
    }

    fn freeze(&mut self) {
        self.server.pause();
    }

    fn thaw(&mut self) {
        self.server.resume();
    }

    fn wrong(&self) -> Vec<Wrong> {
        wrong_mysql(&self.server, &self.config())
    }

    fn touched(&mut self) -> String {
        let sql = "SELECT count(*) FROM information_schema.TABLES WHERE TABLE_SCHEMA = 'plant'";
        let rows = self.server.try_query_in("plant", "SELECT count(*) FROM t").stdout;
        format!("{:?} {rows}", self.server.query_in("plant", sql))
    }
}
