//! The MySQL source in mode `changes` against real servers of MariaDB.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use bus_schema::{data::Op, limits::PAYLOAD_BYTES_MAX};
use flow::{Fault, Read, Source, SourceBatch};
use mysql_async::prelude::Queryable as _;
use serde_json::json;
use testkit::Mariadb;

use super::{
    super::{
        changes::{ChangesSource, Settings},
        connect::Server,
    },
    reading::{client, column, fields, integers, try_source},
    sink,
};
use crate::{
    postgres::{Tls, TlsMode},
    secret::SecretRef,
    testing::{Pipe, next_batch, records, shown},
};

/// A server that keeps its log as it has to be.
pub(super) fn server() -> Mariadb {
    builder().start()
}

fn builder() -> testkit::MariadbBuilder {
    Mariadb::builder()
        .config("log_bin", "changes")
        .config("server_id", "7")
        .config("binlog_format", "ROW")
        .config("binlog_row_metadata", "FULL")
}

/// A source of the changes of table `t`.
pub(super) fn changes(url: &str, more: serde_json::Value) -> Box<dyn Source> {
    let mut config = json!({"url": url, "tls": {"mode": "disable"}, "mode": "changes", "table": "t"});
    config
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    try_source(&config.to_string()).unwrap()
}

/// What delivers to table `t` there.
async fn pipe(url: &str) -> Pipe {
    Pipe::new(sink(url, json!({"key": ["id"]}))).await
}

/// Two databases on one server: where `t` is, and where it goes.
fn databases(server: &Mariadb, sql: &str) -> (String, String) {
    let urls = (server.create_database("from"), server.create_database("to"));
    server.query_in("from", sql);
    urls
}

fn contents(server: &Mariadb, database: &str) -> Vec<Vec<String>> {
    server.query_in(database, "SELECT * FROM t ORDER BY id")
}

pub(super) fn letters(batches: &[SourceBatch]) -> Vec<&str> {
    let letters = batches.iter().flat_map(|batch| &batch.undecodable);
    letters.map(|letter| letter.reason.as_str()).collect()
}

/// Takes all files of the log away but the last, once nobody reads them any more.
async fn purge(server: &Mariadb) {
    for _ in 0..100 {
        server.query_in("mysql", "PURGE BINARY LOGS BEFORE NOW() + INTERVAL 1 DAY");
        if server.query_in("mysql", "SHOW BINARY LOGS").len() == 1 {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    panic!("files of the log stay");
}

#[test]
fn configs_are_checked() {
    for (config, error) in [
        (r#""mode": "changes", "table": "t""#, ""),
        (
            r#""mode": "changes", "table": "t", "snapshot": false, "server_id": 5, "heartbeat_ms": 100"#,
            "",
        ),
        (
            r#""mode": "changes", "table": "t", "server_id": 0"#,
            "server_id: 0 is nobody",
        ),
        (
            r#""mode": "changes", "table": "t", "heartbeat_ms": 5"#,
            "heartbeat_ms: must be from 100",
        ),
        (r#""mode": "changes""#, "table: is missing"),
        (
            r#""mode": "changes", "query": "SELECT 1""#,
            "query: is of no use with mode",
        ),
        (
            r#""mode": "changes", "table": "t", "cursor": "a""#,
            "cursor: is of no use with mode",
        ),
        (
            r#""mode": "changes", "table": "t", "delay_ms": 5"#,
            "delay_ms: is of no use with mode",
        ),
        (r#""mode": "binlog", "table": "t""#, "unknown variant `binlog`"),
        (r#""table": "t", "server_id": 5"#, "server_id: is of use only with mode"),
        (
            r#""table": "t", "snapshot": true"#,
            "snapshot: is of use only with mode",
        ),
    ] {
        match (try_source(&format!("{{\"url\": \"mysql://u@h/d\", {config}}}")), error) {
            (Ok(_), "") => {}
            (Err(found), error) if !error.is_empty() => {
                assert!(found.to_string().contains(error), "{config}: {found}");
            }
            (result, _) => panic!("{config}: {:?}", result.err()),
        }
    }
}

#[tokio::test]
async fn what_cannot_be_followed_is_said_with_its_remedy() {
    let plain = Mariadb::start();
    let elsewhere = plain.create_database("d");
    plain.query_in("d", "CREATE TABLE t (id int PRIMARY KEY)");
    let fault = changes(&elsewhere, json!({})).open(None).await.unwrap_err();
    assert!(fault.to_string().contains("log_bin is OFF"), "{fault}");

    let server = builder().config("binlog_ignore_db", "ignored").start();
    let (url, ignored) = (server.create_database("d"), server.create_database("ignored"));
    server.query_in(
        "d",
        "CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE bare (a int); CREATE VIEW v AS SELECT 1 AS a;
         CREATE TABLE ignored.t (id int PRIMARY KEY);
         CREATE USER blind@'127.0.0.1'; GRANT SELECT ON d.* TO blind@'127.0.0.1';
         CREATE USER monitor@'127.0.0.1'; GRANT SELECT ON d.* TO monitor@'127.0.0.1';
         GRANT BINLOG MONITOR ON *.* TO monitor@'127.0.0.1'",
    );
    let of = |user: &str| url.replace("tester:tester@", &format!("{user}@"));
    for (url, config, cause) in [
        (url.clone(), json!({"table": "tt"}), "no table tt (did you mean 't'?)"),
        (url.clone(), json!({"table": "bare"}), "has no primary key"),
        (url.clone(), json!({"table": "v"}), "is a view"),
        (ignored, json!({}), "take it out of binlog_ignore_db"),
        (of("blind"), json!({}), "GRANT REPLICATION CLIENT"),
        (of("monitor"), json!({}), "GRANT REPLICATION SLAVE ON *.* TO it"),
        (url.clone(), json!({}), ""),
    ] {
        match (changes(&url, config.clone()).open(None).await, cause) {
            (Ok(()), "") => {}
            (Err(fault), cause) if !cause.is_empty() => {
                assert!(fault.to_string().contains(cause), "{config}: {fault}");
                assert!(matches!(fault, Fault::Retry { .. }), "{config}: {fault}");
            }
            (done, _) => panic!("{config}: {done:?}"),
        }
    }
    for (name, wrong, right) in [
        ("binlog_format", "MIXED", "ROW"),
        ("binlog_row_image", "MINIMAL", "FULL"),
        ("binlog_row_metadata", "NO_LOG", "FULL"),
    ] {
        server.query_in("d", &format!("SET GLOBAL {name} = '{wrong}'"));
        let fault = changes(&url, json!({})).open(None).await.unwrap_err();
        let remedy = format!("{name} = {wrong}: SET GLOBAL {name} = '{right}'");
        assert!(fault.to_string().contains(&remedy), "{fault}");
        server.query_in("d", &format!("SET GLOBAL {name} = '{right}'"));
    }
}

#[tokio::test]
async fn a_log_that_does_not_have_what_comes_next_stops_the_source() {
    let server = server();
    let url = server.create_database("d");
    server.query_in("d", "CREATE TABLE t (id int PRIMARY KEY)");
    let mut source = changes(&url, json!({}));
    source.open(None).await.unwrap();
    let position = next_batch(&mut *source).await.position;
    source.close().await;
    server.query_in("d", "INSERT INTO t VALUES (1)");
    source.open(Some(&position)).await.unwrap();
    assert_eq!(shown(&records(&mut *source, 1).await), ["insert 1"]);
    source.close().await;
    server.query_in("d", "FLUSH BINARY LOGS");
    purge(&server).await;
    let fault = source.open(Some(&position)).await.unwrap_err();
    assert!(
        matches!(&fault, Fault::Stop { cause } if cause.contains("has been purged") && cause.contains("new snapshot")),
        "{fault}"
    );
    // The files begin anew, with the same names.
    tokio::time::sleep(std::time::Duration::from_millis(1_100)).await;
    server.query_in(
        "d",
        "RESET MASTER; INSERT INTO t VALUES (2), (3), (4), (5), (6); INSERT INTO t VALUES (7)",
    );
    let fault = source.open(Some(&position)).await.unwrap_err();
    assert!(
        matches!(&fault, Fault::Stop { cause } if cause.contains("the log was reset") || cause.contains("ends at")),
        "{fault}"
    );
}

#[tokio::test]
async fn every_change_comes_with_its_key() {
    let server = server();
    let url = server.create_database("d");
    server.query_in(
        "d",
        "CREATE TABLE t (a int, b varchar(9), v int, PRIMARY KEY (a, b));
         CREATE TABLE other (id int PRIMARY KEY); INSERT INTO t VALUES (1, 'x', 1), (2, 'y', NULL)",
    );
    let mut source = changes(&url, json!({}));
    source.open(None).await.unwrap();
    assert_eq!(
        shown(&records(&mut *source, 2).await),
        ["insert 1 x 1", "insert 2 y null"]
    );
    server.query_in(
        "d",
        "INSERT INTO other VALUES (1); UPDATE t SET v = 5 WHERE a = 1; UPDATE t SET b = 'z' WHERE a = 2;
         DELETE FROM t WHERE a = 1; INSERT INTO t VALUES (3, '', 0);
         BEGIN; INSERT INTO t VALUES (9, '', 0); ROLLBACK",
    );
    let batches = records(&mut *source, 5).await;
    assert_eq!(
        shown(&batches),
        [
            "update 1 x 5",
            "delete 2 y null",
            "insert 2 z null",
            "delete 1 x 5",
            "insert 3  0"
        ]
    );
    let keys: Vec<_> = batches[0].batch.schema().fields.iter().map(|field| field.key).collect();
    assert_eq!(
        (fields(&batches[0]).as_str(), &keys[..]),
        ("a i64, b text, v i64", &[true, true, false][..])
    );
    server.query_in(
        "d",
        "TRUNCATE t; RENAME TABLE t TO u; CREATE TABLE t (a int PRIMARY KEY); INSERT INTO t VALUES (8)",
    );
    let batches = records(&mut *source, 3).await;
    let told = letters(&batches);
    assert!(
        told[0].contains("the table was emptied") && told[1].contains("is now d.u"),
        "{told:?}"
    );
    assert_eq!(shown(&batches), ["insert 8"]);
}

#[tokio::test]
async fn sessions_of_other_formats_are_told_of() {
    let server = server();
    let url = server.create_database("d");
    server.query_in(
        "d",
        "CREATE TABLE t (id int PRIMARY KEY, v int, w int DEFAULT 5); INSERT INTO t VALUES (1, 1, 1), (2, 2, 2)",
    );
    let mut source = changes(&url, json!({"snapshot": false}));
    source.open(None).await.unwrap();
    server.query_in(
        "d",
        "SET SESSION binlog_row_image = 'MINIMAL'; UPDATE t SET v = 3 WHERE id = 1; UPDATE t SET id = 4 WHERE id = 2;
         INSERT INTO t (id) VALUES (9);
         SET SESSION binlog_format = 'STATEMENT'; UPDATE t SET v = 6; SET SESSION binlog_format = 'ROW';
         SET SESSION binlog_row_image = 'FULL'; DELETE FROM t WHERE id = 1",
    );
    let batches = records(&mut *source, 5).await;
    assert_eq!(shown(&batches), ["update 1 3 =", "delete 1 6 1"]);
    let told = letters(&batches);
    for (letter, wanted) in told.iter().zip([
        "binlog_row_image than FULL",
        "binlog_row_image than FULL",
        "has only the statement",
    ]) {
        assert!(letter.contains(wanted), "{told:?}");
    }
}

const TYPES: &str = "CREATE TABLE t (
    id bigint unsigned PRIMARY KEY, y year, b1 bool, i1 tinyint, u1 tinyint unsigned, i2 smallint, u2 smallint unsigned,
    i3 mediumint, u3 mediumint unsigned, i4 int, u4 int unsigned, i8 bigint, u8 bigint unsigned, f4 float, f8 double,
    d1 decimal(38,9), d2 decimal(65,30), d3 decimal(5,0) unsigned, bits bit(11), one bit,
    c char(9), cl char(9) CHARACTER SET latin1, vc varchar(300), vl varchar(40) CHARACTER SET latin1,
    v2 varchar(9) CHARACTER SET ucs2, v3 varchar(9) CHARACTER SET utf32, big char(255), va varchar(9) CHARACTER SET ascii,
    bin binary(6), vb varbinary(300), tt tinytext, mt mediumtext CHARACTER SET utf16, tb tinyblob, lb longblob,
    d date, t0 time, t3 time(3), t6 time(6), dt datetime, dt1 datetime(1), dt6 datetime(6), ts timestamp NULL,
    ts5 timestamp(5) NULL, e enum('a', 'ä', '') CHARACTER SET latin1, s set('x', 'y', 'z'), e2 enum('q', 'r'),
    j json, u uuid, n4 inet4, n6 inet6, g geometry, s2 set('ö', 'o')
)";

/// Rows for `TYPES`: nothing, the usual, and the edges.
const ROWS: &[&str] = &[
    "INSERT INTO t (id) VALUES (0)",
    "INSERT INTO t VALUES (1, 2024, true, -128, 255, -32768, 65535, -8388608, 16777215, -2147483648, 4294967295,
        -9223372036854775808, 18446744073709551615, 0.1, 0.1, -12345678901234567890123456789.123456789, -0.000000000000000000000000000001,
        12345, b'10000000001', b'1', 'a ', 'ä€', 'grün 🌱', 'ÿ', 'a€', '🌱', repeat('ä', 255), 'plain',
        x'0100', x'00ff00', '', '🌱', '', x'00ff', '2024-02-29', '12:34:56', '-00:00:01.5', '838:59:59.000000',
        '1969-12-31 23:59:59', '9999-12-31 23:59:59.9', '0001-01-01 00:00:00.000001', '1970-01-01 00:00:01',
        '2038-01-19 03:14:07.99999', 'ä', 'x,z', 'r', '{\"a\":  [1, null]}', '12345678-9abc-4ef0-8102-030405060708',
        '10.0.0.1', '2001:db8::ff00:42:8329', ST_GeomFromText('POINT(1 2)', 4326), 'ö,o')",
    "INSERT INTO t VALUES (18446744073709551615, 1901, false, 127, 0, 0, 0, 0, 0, 0, 0, 9223372036854775807, 0, -3.4e38, 5e-324,
        0, 99999999999999999999999999999999999.999999999999999999999999999999, 0, 0, 0, '', '', repeat('x', 300), '', '', '', '', '',
        '', '', repeat('t', 255), repeat('m', 70000), repeat(x'00', 255), repeat(x'fe', 70000), '1000-01-01', '-838:59:59',
        '00:00:00', '-12:00:00.000001', '2000-01-01 00:00:00', '2000-01-01 00:00:00.5', '2000-01-01 00:00:00', '2000-01-01 00:00:00',
        '2000-01-01 00:00:00.5', '', '', 'q', '[]', 'ffffffff-ffff-ffff-ffff-ffffffffffff', '255.255.255.255', '::10.1.2.3',
        ST_GeomFromText('LINESTRING(0 0, 1 1)'), '')",
    "INSERT INTO t (id, u, n6, n4, f4, f8, d1) VALUES (3, '00000000-0000-0000-0000-000000000000', '::', '0.0.0.0', 16777216, 1e300, 0.000000001)",
    "INSERT INTO t (id, u, n6) VALUES (4, '01890a5d-ac96-774b-bcce-b302099a8057', '::1'), (5, '123e4567-e89b-12d3-a456-426614174000', '::ffff:1.2.3.4'),
        (6, '12345678-9abc-8ef0-8102-030405060708', 'fe80::'), (7, '1ec9414c-232a-6b00-b3c8-9e6bdeced846', '1::2:0:0:3'),
        (8, 'a0eebc99-9c0b-0ef8-1b6d-6bb9bd380a11', '::2:3')",
];

#[tokio::test]
async fn a_value_is_the_same_whichever_way_it_came() {
    let server = server();
    let url = server.create_database("d");
    server.query_in("d", TYPES);
    // A batch for each row: a value that is none of its type makes the column text for all of a batch.
    let mut log = changes(&url, json!({"snapshot": false, "batch_rows_max": 1}));
    log.open(None).await.unwrap();
    for sql in ROWS {
        // No mode: dates that are none.
        server.query_in("d", &format!("SET sql_mode = '', time_zone = '+05:00'; {sql}"));
    }
    server.query_in(
        "d",
        "SET sql_mode = ''; INSERT INTO t (id, d, dt, ts, y) VALUES (9, '0000-00-00', '2023-02-30 00:00:00', 0, 0)",
    );
    let sent = records(&mut *log, 10).await;
    let mut snapshot = changes(&url, json!({"server_id": 9, "batch_rows_max": 1}));
    snapshot.open(None).await.unwrap();
    let read = records(&mut *snapshot, 10).await;
    assert_eq!((letters(&sent), letters(&read)), (vec![], vec![]));
    let rows = |batches: &[SourceBatch]| {
        let mut rows: Vec<Vec<String>> = Vec::new();
        for batch in batches {
            let fields = &batch.batch.schema().fields;
            for row in 0..batch.batch.rows() {
                let cell = |at: usize| format!("{} {:?}", fields[at].name, batch.batch.cell(row, at).to_value());
                rows.push((0..fields.len()).map(cell).collect());
            }
        }
        rows.sort();
        rows
    };
    let (sent_rows, read_rows) = (rows(&sent), rows(&read));
    let pairs = sent_rows
        .iter()
        .zip(&read_rows)
        .flat_map(|(sent, read)| sent.iter().zip(read));
    let different: Vec<_> = pairs.filter(|(sent, read)| sent != read).collect();
    assert!(different.is_empty(), "{different:#?}");
    assert_eq!(sent_rows.len(), 10);
    // And the columns are of the same types, where no value made one text.
    let mut more = changes(&url, json!({"snapshot": false, "server_id": 10}));
    more.open(None).await.unwrap();
    server.query_in("d", "INSERT INTO t (id) VALUES (11)");
    let empty = server.create_database("e");
    server.query_in("e", &format!("{TYPES}; INSERT INTO t (id) VALUES (11)"));
    let mut other = changes(&empty, json!({"server_id": 11}));
    other.open(None).await.unwrap();
    assert_eq!(
        fields(&next_batch(&mut *more).await),
        fields(&next_batch(&mut *other).await)
    );
}

#[tokio::test]
async fn packed_events_are_unpacked() {
    let server = builder()
        .config("log_bin_compress", "ON")
        .config("log_bin_compress_min_len", "10")
        .start();
    let url = server.create_database("d");
    server.query_in("d", "CREATE TABLE t (id int PRIMARY KEY, v text)");
    let mut source = changes(&url, json!({"snapshot": false}));
    source.open(None).await.unwrap();
    server.query_in(
        "d",
        "INSERT INTO t SELECT seq, repeat('x', 900) FROM seq_1_to_100; UPDATE t SET v = repeat('y', 9); DELETE FROM t WHERE id > 1;
         TRUNCATE t",
    );
    let batches = records(&mut *source, 300).await;
    let shown = shown(&batches);
    assert_eq!(
        (shown[100].as_str(), shown[200].as_str(), shown.len()),
        ("update 1 yyyyyyyyy", "delete 2 yyyyyyyyy", 299)
    );
    assert!(letters(&batches)[0].contains("was emptied"));
}

#[tokio::test]
async fn what_the_log_cannot_be_read_for_is_said() {
    let server = server();
    let url = server.create_database("d");
    server.query_in(
        "d",
        "CREATE TABLE t (id int PRIMARY KEY, v varchar(9) CHARACTER SET gbk)",
    );
    let mut source = changes(&url, json!({"snapshot": false}));
    source.open(None).await.unwrap();
    server.query_in(
        "d",
        "INSERT INTO t VALUES (1, 'a'), (2, 'b'); ALTER TABLE t MODIFY v varchar(9) CHARACTER SET utf8mb4",
    );
    server.query_in("d", "INSERT INTO t VALUES (3, 'c')");
    let batches = records(&mut *source, 2).await;
    let told = letters(&batches);
    assert!(
        matches!(told[..], [letter] if letter.contains("in the character set gbk")),
        "{told:?}"
    );
    assert_eq!(shown(&batches), ["insert 3 c"]);
}

/// Inserts, updates and deletes at random, a few in each transaction, some of which are taken back, until told to stop.
async fn writer(url: String, number: u64, stop: Arc<AtomicBool>) {
    let mut client = client(&url).await;
    let mut random = number;
    let mut next = |below: u64| {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % below
    };
    let mut round = 0;
    while !stop.load(Ordering::Relaxed) {
        round += 1;
        client.query_drop("BEGIN").await.unwrap();
        for _ in 0..=next(4) {
            // Each writer has rows of its own, all over the table.
            let id = next(400) * 4 + number;
            let sql = match next(5) {
                0 => format!("DELETE FROM t WHERE id = {id}"),
                1 => format!("UPDATE IGNORE t SET id = {} WHERE id = {id}", next(400) * 4 + number),
                _ => format!("INSERT INTO t VALUES ({id}, {round}) ON DUPLICATE KEY UPDATE v = {round}"),
            };
            client.query_drop(sql).await.unwrap();
        }
        let end = if next(5) == 0 { "ROLLBACK" } else { "COMMIT" };
        client.query_drop(end).await.unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(next(3))).await;
    }
}

const BUSY: &str = "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED; CREATE TABLE t (id int PRIMARY KEY, v int);
     INSERT INTO t SELECT seq, 0 FROM seq_0_to_1599";

/// A server for many writers at once: without locks on gaps, over which they would fall.
fn busy() -> Mariadb {
    builder().config("transaction_isolation", "READ-COMMITTED").start()
}

/// Reads with writers at work, 4 of them, and compares in the end. `rounds` reads, of which `is_killed` tells those after
/// which the daemon dies: before the destination has it, or after.
async fn under_way(mut source: Box<dyn Source>, server: &Mariadb, urls: (String, String), rounds: u32, kills: bool) {
    let (from, to) = urls;
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..4)
        .map(|n| tokio::spawn(writer(from.clone(), n, Arc::clone(&stop))))
        .collect();
    source.open(None).await.unwrap();
    // The destination inserts: a row that came twice would be rejected, and so would a change of a row that is missing.
    let mut pipe = pipe(&to).await;
    for round in 0..rounds {
        if let Read::Batch(batch) = source.read().await.unwrap()
            && !(kills && round % 5 == 2)
        {
            pipe.deliver(&batch).await;
        }
        if kills && (round % 5 == 2 || round % 7 == 3) {
            source.open(pipe.position.as_ref()).await.unwrap();
        }
    }
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.await.unwrap();
    }
    source.open(pipe.position.as_ref()).await.unwrap();
    pipe.deliver_all(&mut *source).await;
    assert_eq!(contents(server, "from"), contents(server, "to"));
    assert_eq!((pipe.rejected, pipe.undecodable), (vec![], vec![]));
}

#[tokio::test]
async fn a_snapshot_under_way_with_writers_loses_and_doubles_nothing() {
    let server = busy();
    let urls = databases(&server, BUSY);
    let source = changes(&urls.0, json!({"batch_rows_max": 100}));
    under_way(source, &server, urls, 60, false).await;
}

#[tokio::test]
async fn neither_does_one_that_begins_with_a_lock() {
    // As with MySQL, which does not know where in its log a snapshot is.
    let server = busy();
    let urls = databases(&server, BUSY);
    let settings = Settings {
        server: Server {
            url: Some(SecretRef::Plain(urls.0.clone())),
            tls: Tls {
                mode: TlsMode::Disable,
                ..Tls::default()
            },
            ..Server::default()
        },
        table: "t".into(),
        server_id: 5,
        snapshot: true,
        rows_max: 100,
        heartbeat: std::time::Duration::from_secs(60),
        locks: true,
    };
    let source = Box::new(ChangesSource::new(settings, "/".into()));
    under_way(source, &server, urls, 60, false).await;
}

#[tokio::test]
async fn a_source_that_is_killed_at_any_moment_loses_and_doubles_nothing() {
    let server = busy();
    let urls = databases(&server, BUSY);
    let source = changes(&urls.0, json!({"batch_rows_max": 100}));
    under_way(source, &server, urls, 120, true).await;
}

#[tokio::test]
async fn a_server_that_restarts_or_is_killed_midway_goes_on() {
    let server = Arc::new(builder().config("sync_binlog", "1").start());
    let (from, to) = databases(&server, "CREATE TABLE t (id int PRIMARY KEY)");
    server.query_in("to", "CREATE TABLE t (id int PRIMARY KEY)");
    let mut source = changes(&from, json!({}));
    source.open(None).await.unwrap();
    let mut pipe = pipe(&to).await;
    let mut faults = 0;
    for round in 0..6 {
        let first = round * 100 + 1;
        server.query_in(
            "from",
            &format!("INSERT INTO t SELECT seq FROM seq_{first}_to_{}", first + 99),
        );
        match round {
            2 => server.restart(),
            4 => {
                server.kill9();
                server.start();
            }
            _ => {}
        }
        if round % 2 == 0 && round > 0 {
            pipe.sink.close().await;
            pipe.sink.open().await.unwrap();
        }
        while contents(&server, "to").len() < (round as usize + 1) * 100 {
            match source.read().await {
                Ok(Read::Batch(batch)) => pipe.deliver(&batch).await,
                Ok(_) => {}
                Err(fault) => {
                    assert!(matches!(fault, Fault::Retry { .. }), "{fault}");
                    source.close().await;
                    source.open(pipe.position.as_ref()).await.unwrap();
                    faults += 1;
                }
            }
        }
    }
    assert!(faults >= 2, "{faults}");
    assert_eq!(contents(&server, "from"), contents(&server, "to"));
    assert_eq!(pipe.rejected, Vec::<String>::new());
}

#[tokio::test]
async fn a_large_transaction_passes_through_in_batches_and_can_be_interrupted() {
    const ROWS: i64 = 20_000;
    let server = server();
    let url = server.create_database("d");
    server.query_in("d", "CREATE TABLE t (id int PRIMARY KEY, v text)");
    let mut source = changes(&url, json!({"snapshot": false}));
    source.open(None).await.unwrap();
    server.query_in(
        "d",
        &format!("INSERT INTO t SELECT seq, repeat(md5(seq), 32) FROM seq_1_to_{ROWS}"),
    );
    let (mut next, mut batches) = (1, 0);
    while next != 0 {
        let batch = next_batch(&mut *source).await;
        assert!(batch.batch.encode().len() <= PAYLOAD_BYTES_MAX);
        batches += 1;
        for id in integers(std::slice::from_ref(&batch), "id") {
            assert_eq!(id, next, "in batch {batches}");
            next = if id == ROWS { 0 } else { id + 1 };
        }
        if batches % 100 == 50 {
            source.open(Some(&batch.position)).await.unwrap();
        }
    }
    // What comes after it follows.
    server.query_in("d", "SET GLOBAL max_allowed_packet = 134217728");
    server.query_in("d", "INSERT INTO t VALUES (0, 'after')");
    assert_eq!(integers(&records(&mut *source, 1).await, "id"), [0]);
}

/// The rest of the log never pauses: a record is not kept back for more of them, and the place goes on meanwhile.
#[tokio::test]
async fn a_busy_log_holds_no_record_back() {
    let server = server();
    let url = server.create_database("d");
    server.query_in("d", "CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE other (v int)");
    let mut source = changes(&url, json!({"heartbeat_ms": 100}));
    source.open(None).await.unwrap();
    next_batch(&mut *source).await;
    let stop = Arc::new(AtomicBool::new(false));
    let others = (0..4).map(|n| {
        let (url, stop) = (url.clone(), Arc::clone(&stop));
        tokio::spawn(async move {
            let mut client = client(&url).await;
            while !stop.load(Ordering::Relaxed) {
                client
                    .query_drop(format!("INSERT INTO other VALUES ({n})"))
                    .await
                    .unwrap();
            }
        })
    });
    let others: Vec<_> = others.collect();
    let patience = std::time::Duration::from_secs(20);
    let mut places = Vec::new();
    let mut client = client(&url).await;
    for id in 1..=3 {
        client.query_drop(format!("INSERT INTO t VALUES ({id})")).await.unwrap();
        let mut rows = 0;
        while rows == 0 {
            let batch = tokio::time::timeout(patience, next_batch(&mut *source)).await.unwrap();
            rows = batch.batch.rows();
            places.push(batch.position);
        }
        // Without a row, too.
        let beat = tokio::time::timeout(patience, next_batch(&mut *source)).await.unwrap();
        assert_eq!(beat.batch.rows(), 0);
        places.push(beat.position);
    }
    stop.store(true, Ordering::Relaxed);
    for other in others {
        other.await.unwrap();
    }
    places.dedup();
    assert!(places.len() >= 6, "{places:?}");
}

#[tokio::test]
async fn a_check_leaves_what_runs_alone() {
    let server = server();
    let url = server.create_database("d");
    server.query_in("d", "CREATE TABLE t (id int PRIMARY KEY)");
    let mut source = changes(&url, json!({}));
    source.open(None).await.unwrap();
    next_batch(&mut *source).await;
    let said = changes(&url, json!({})).check().await.unwrap();
    assert!(said.contains("can be read"), "{said}");
    server.query_in("d", "INSERT INTO t VALUES (1)");
    // The server ends the log of a replica when another one comes by its number: that would be a fault here.
    let batch = source.read().await.unwrap();
    assert!(matches!(batch, Read::Batch(batch) if batch.batch.rows() == 1));
}

#[tokio::test]
async fn an_idle_table_goes_on_with_the_log() {
    let server = server();
    let url = server.create_database("d");
    server.query_in("d", "CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE other (v text)");
    let mut source = changes(&url, json!({"heartbeat_ms": 100}));
    source.open(None).await.unwrap();
    next_batch(&mut *source).await;
    server.query_in("d", "INSERT INTO t VALUES (1)");
    let record = next_batch(&mut *source).await;
    assert_eq!(record.batch.rows(), 1);
    server.query_in(
        "d",
        "INSERT INTO other SELECT repeat('x', 1000) FROM seq_1_to_1000; FLUSH BINARY LOGS",
    );
    let beat = next_batch(&mut *source).await;
    assert_eq!((beat.batch.rows(), beat.undecodable.len()), (0, 0));
    let mut last = beat.position;
    for _ in 0..12 {
        if let Read::Batch(batch) = source.read().await.unwrap() {
            last = batch.position;
        }
    }
    source.close().await;
    // The files before are not needed any more.
    purge(&server).await;
    server.query_in("d", "INSERT INTO t VALUES (2)");
    source.open(Some(&last)).await.unwrap();
    assert_eq!(shown(&records(&mut *source, 1).await), ["insert 2"]);
    assert!(matches!(
        source.open(Some(&record.position)).await,
        Err(Fault::Stop { .. })
    ));
}

#[tokio::test]
async fn columns_come_and_go_while_changes_are_read() {
    let server = server();
    let (from, to) = databases(&server, "CREATE TABLE t (id int PRIMARY KEY, a int)");
    let mut source = changes(&from, json!({}));
    source.open(None).await.unwrap();
    let mut pipe = pipe(&to).await;
    pipe.deliver_all(&mut *source).await;
    server.query_in("from", "INSERT INTO t VALUES (1, 1)");
    // All of it is in the log before any of it is read.
    for sql in [
        "ALTER TABLE t ADD b enum('ok', 'no') DEFAULT 'ok' FIRST; INSERT INTO t (id, a) VALUES (2, 2)",
        "ALTER TABLE t DROP a; INSERT INTO t (id) VALUES (3)",
        "ALTER TABLE t MODIFY b text; ALTER TABLE t RENAME COLUMN b TO c; INSERT INTO t VALUES ('x', 4); UPDATE t SET c = 'y' WHERE id = 1",
    ] {
        server.query_in("from", sql);
    }
    pipe.deliver_all(&mut *source).await;
    assert_eq!((pipe.rejected, pipe.undecodable), (vec![], vec![]));
    assert_eq!(
        server.query_in("to", "SELECT id, a, b, c FROM t ORDER BY id"),
        [
            ["1", "1", "NULL", "y"],
            ["2", "2", "ok", "NULL"],
            ["3", "NULL", "ok", "NULL"],
            ["4", "NULL", "NULL", "x"]
        ]
    );
}

#[tokio::test]
async fn computed_columns_are_what_the_log_has_of_them() {
    let server = server();
    let url = server.create_database("d");
    server.query_in(
        "d",
        "CREATE TABLE t (id int PRIMARY KEY, s int AS (id + 1) STORED, v int AS (id + 2) VIRTUAL, w int)",
    );
    let mut source = changes(&url, json!({"snapshot": false}));
    source.open(None).await.unwrap();
    server.query_in(
        "d",
        "INSERT INTO t (id, w) VALUES (1, 1); UPDATE t SET w = 2; UPDATE t SET id = 2; DELETE FROM t",
    );
    let batches = records(&mut *source, 5).await;
    assert_eq!(
        shown(&batches),
        [
            "insert 1 2 3 1",
            "update 1 2 3 2",
            "delete 1 2 3 2",
            "insert 2 3 4 2",
            "delete 2 3 4 2"
        ]
    );
    let ops: Vec<Op> = (0..batches[0].batch.rows())
        .map(|row| batches[0].batch.op(row))
        .collect();
    assert_eq!(ops[0], Op::Insert);
    assert_eq!(column(&batches, "v").len(), 5);
}
