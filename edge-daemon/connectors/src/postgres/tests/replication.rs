//! The PostgreSQL source in replication mode against real servers.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use bus_schema::{
    data::{Op, Value},
    limits::PAYLOAD_BYTES_MAX,
};
use flow::{Fault, Read, Source, SourceBatch};
use serde_json::json;
use testkit::{Postgres, Tls};

use super::{
    reading::{client, column, integers, try_source},
    sink,
};
use crate::testing::{Pipe, next_batch, records, shown};

/// A server whose log can be decoded.
fn server() -> Postgres {
    Postgres::builder().config("wal_level", "logical").start()
}

/// A source of the changes of table `t`.
pub(super) fn replica(url: &str, more: serde_json::Value) -> Box<dyn Source> {
    let mut config = json!({"url": url, "tls": {"mode": "disable"}, "mode": "replication", "table": "t"});
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
fn databases(server: &Postgres, sql: &str) -> (String, String) {
    let urls = (server.create_database("from"), server.create_database("to"));
    server.query_in("from", sql);
    urls
}

fn contents(server: &Postgres, database: &str) -> Vec<Vec<String>> {
    server.query_in(database, "SELECT * FROM t ORDER BY id")
}

fn confirmed(server: &Postgres) -> String {
    server.query_one("SELECT confirmed_flush_lsn FROM pg_replication_slots")
}

#[test]
fn configs_are_checked() {
    for (config, error) in [
        (r#""mode": "replication", "table": "t""#, ""),
        (
            r#""mode": "replication", "table": "t", "slot": "a_1", "publication": "P", "snapshot": false"#,
            "",
        ),
        (
            r#""mode": "replication", "table": "t", "slot": "A""#,
            "slot: has to be 1 to 63",
        ),
        (
            r#""mode": "replication", "table": "t", "heartbeat_ms": 5"#,
            "heartbeat_ms: must be from 100",
        ),
        (r#""mode": "replication""#, "table: is missing"),
        (
            r#""mode": "replication", "query": "SELECT 1""#,
            "query: is of no use with mode",
        ),
        (
            r#""mode": "replication", "table": "t", "cursor": "a""#,
            "cursor: is of no use with mode",
        ),
        (
            r#""mode": "replication", "table": "t", "delay_ms": 5"#,
            "delay_ms: is of no use with mode",
        ),
        (r#""mode": "stream", "table": "t""#, "unknown variant `stream`"),
        (r#""table": "t", "slot": "a""#, "slot: is of use only with mode"),
        (
            r#""table": "t", "heartbeat_ms": 1000"#,
            "heartbeat_ms: is of use only with mode",
        ),
    ] {
        match (
            try_source(&format!("{{\"url\": \"postgres://u@h/d\", {config}}}")),
            error,
        ) {
            (Ok(_), "") => {}
            (Err(found), error) if !error.is_empty() => {
                assert!(found.to_string().contains(error), "{config}: {found}");
            }
            (result, _) => panic!("{config}: {:?}", result.err()),
        }
    }
}

#[tokio::test]
async fn what_cannot_be_replicated() {
    let plain = Postgres::start();
    plain.query("CREATE TABLE t (id int PRIMARY KEY)");
    let server = server();
    server.query(
        "CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE bare (a int); CREATE TABLE other (a int PRIMARY KEY);
         CREATE PUBLICATION elsewhere FOR TABLE other; CREATE ROLE reader LOGIN; GRANT SELECT ON t TO reader",
    );
    server.query("SELECT pg_create_logical_replication_slot('foreign_one', 'test_decoding')");
    let reader = server.url().replace("postgres@", "reader@");
    for (url, config, stop, cause) in [
        (plain.url(), json!({}), false, "wal_level"),
        (
            server.url(),
            json!({"table": "tt"}),
            false,
            "no table public.tt (did you mean 't'?)",
        ),
        (
            server.url(),
            json!({"table": "bare"}),
            true,
            "has no primary key to read by",
        ),
        (
            server.url(),
            json!({"slot": "foreign_one"}),
            true,
            "belongs to another database or plugin",
        ),
        (
            server.url(),
            json!({"publication": "elsewhere"}),
            false,
            "ALTER PUBLICATION \"elsewhere\" ADD TABLE",
        ),
        (
            reader.clone(),
            json!({"publication": "mine"}),
            false,
            "let the table's owner run: CREATE PUBLICATION \"mine\"",
        ),
        (server.url(), json!({}), false, ""),
        (
            reader,
            json!({"slot": "another", "publication": "mycelial_test_node"}),
            false,
            "for replication: ",
        ),
    ] {
        let mut source = replica(&url, config.clone());
        match (source.open(None).await, cause) {
            (Ok(()), "") => source.close().await,
            (Err(fault), cause) if !cause.is_empty() => {
                assert!(fault.to_string().contains(cause), "{config}: {fault}");
                assert_eq!(matches!(fault, Fault::Stop { .. }), stop, "{config}: {fault}");
            }
            (done, _) => panic!("{config}: {done:?}"),
        }
    }
    // Slots that fell behind their position, or in front of it, or away.
    let mut source = replica(&server.url(), json!({}));
    source.open(None).await.unwrap();
    let position = next_batch(&mut *source).await.position;
    assert!(matches!(source.read().await.unwrap(), Read::Idle));
    source.close().await;
    source.open(Some(&position)).await.unwrap();
    source.close().await;
    server.query("INSERT INTO t VALUES (1)");
    let slot = "mycelial_test_node";
    for (sql, cause) in [
        (
            format!("SELECT pg_replication_slot_advance('{slot}', pg_current_wal_lsn())"),
            "past what was delivered",
        ),
        (
            format!("SELECT pg_drop_replication_slot('{slot}')"),
            "is gone, and with it",
        ),
    ] {
        server.query(&sql);
        let fault = source.open(Some(&position)).await.unwrap_err();
        assert!(
            matches!(&fault, Fault::Stop { cause: found } if found.contains(cause)),
            "{fault}"
        );
    }
}

#[tokio::test]
async fn passwords_and_tls_are_what_the_config_says() {
    let tls = Tls::new();
    let server = Postgres::builder()
        .config("wal_level", "logical")
        .password("hunter2")
        .tls(&tls)
        .start();
    server.query("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)");
    let config = json!({
        "host": "localhost", "port": server.port(), "user": "postgres", "database": "postgres",
        "password": "hunter2", "tls": {"ca_file": tls.ca()}, "table": "t", "mode": "replication",
    });
    let mut source = try_source(&config.to_string()).unwrap();
    source.open(None).await.unwrap();
    assert_eq!(shown(&records(&mut *source, 1).await), ["insert 1"]);
    assert!(matches!(source.read().await.unwrap(), Read::Idle));
    server.query("INSERT INTO t VALUES (2)");
    assert_eq!(shown(&records(&mut *source, 1).await), ["insert 2"]);
}

#[tokio::test]
async fn every_change_comes_with_its_key() {
    let server = server();
    server.query(
        "CREATE TABLE t (a int, b text, v int, g int GENERATED ALWAYS AS (a + 1) STORED, PRIMARY KEY (a, b));
         CREATE TABLE other (id int PRIMARY KEY); INSERT INTO t VALUES (1, 'x', 1), (2, 'y', NULL)",
    );
    let mut source = replica(&server.url(), json!({}));
    source.open(None).await.unwrap();
    assert_eq!(
        shown(&records(&mut *source, 2).await),
        ["insert 1 x 1", "insert 2 y null"]
    );
    server.query(
        "INSERT INTO other VALUES (1); UPDATE t SET v = 5 WHERE a = 1; UPDATE t SET b = 'z' WHERE a = 2;
         DELETE FROM t WHERE a = 1; INSERT INTO t VALUES (3, '', 0)",
    );
    let batches = records(&mut *source, 5).await;
    assert_eq!(
        shown(&batches),
        [
            "update 1 x 5",
            "delete 2 y -",
            "insert 2 z null",
            "delete 1 x -",
            "insert 3  0"
        ]
    );
    let fields = batches[0].batch.schema().fields.iter();
    let fields: Vec<_> = fields
        .map(|field| format!("{} {} {}", field.name, field.ty, field.key))
        .collect();
    assert_eq!(fields, ["a i64 true", "b text true", "v i64 false"]);
    server.query("TRUNCATE t, other");
    let letters = records(&mut *source, 1).await;
    assert!(letters[0].undecodable[0].reason.contains("the table was truncated"));
}

#[tokio::test]
async fn a_table_without_a_key_gives_what_is_inserted() {
    let server = server();
    server.query("CREATE TABLE t (v int); INSERT INTO t VALUES (1)");
    let mut source = replica(&server.url(), json!({"snapshot": false}));
    source.open(None).await.unwrap();
    server.query("INSERT INTO t VALUES (2), (2)");
    assert_eq!(shown(&records(&mut *source, 2).await), ["insert 2", "insert 2"]);
}

#[tokio::test]
async fn large_values_that_did_not_change_stay_as_they_are() {
    let server = server();
    let large = "(SELECT string_agg(md5(n::text), '') FROM generate_series(1, 1000) n)";
    let (from, to) = databases(
        &server,
        "CREATE TABLE t (id int PRIMARY KEY, v int, large text); ALTER TABLE t ALTER large SET STORAGE EXTERNAL",
    );
    server.query_in(
        "from",
        &format!("INSERT INTO t VALUES (1, 1, {large}), (2, 2, {large})"),
    );
    let mut source = replica(&from, json!({}));
    source.open(None).await.unwrap();
    let mut pipe = pipe(&to).await;
    pipe.deliver_all(&mut *source).await;
    server.query_in("from", "UPDATE t SET v = 10 WHERE id = 1");
    let batches = records(&mut *source, 1).await;
    assert_eq!(shown(&batches), ["update 1 10 ="]);
    pipe.deliver(&batches[0]).await;
    assert_eq!(contents(&server, "from"), contents(&server, "to"));
    // Where rows are added or changed, no row can be made of this one; and none has to be.
    let strict = server.create_database("strict");
    server.query_in(
        "strict",
        &format!(
            "CREATE TABLE t (id int PRIMARY KEY, v int, large text NOT NULL);
             INSERT INTO t VALUES (1, 1, {large}), (2, 2, {large})"
        ),
    );
    let mut strict = Pipe::new(sink(&strict, json!({"mode": "upsert", "key": ["id"]}))).await;
    strict.deliver(&batches[0]).await;
    assert_eq!(strict.rejected, [""; 0]);
    assert_eq!(contents(&server, "from"), contents(&server, "strict"));
    // With another key there would be nothing to leave as it is.
    server.query_in("from", "UPDATE t SET id = 3 WHERE id = 2");
    let batches = records(&mut *source, 1).await;
    assert!(
        batches[0].undecodable[0].reason.contains("set REPLICA IDENTITY FULL"),
        "{batches:?}"
    );
    server.query_in(
        "from",
        "ALTER TABLE t REPLICA IDENTITY FULL; UPDATE t SET id = 2 WHERE id = 3; UPDATE t SET v = 11 WHERE id = 1",
    );
    let batches = records(&mut *source, 3).await;
    let batch_ops = |it: &SourceBatch| (0..it.batch.rows()).map(|row| it.batch.op(row)).collect::<Vec<_>>();
    let ops: Vec<Op> = batches.iter().flat_map(batch_ops).collect();
    assert_eq!(ops, [Op::Delete, Op::Insert, Op::Update]);
    assert!(
        column(&batches, "large")
            .iter()
            .all(|value| matches!(value, Value::Text(text) if text.len() == 32_000))
    );
    let keys: Vec<_> = batches[0].batch.schema().fields.iter().map(|field| field.key).collect();
    assert_eq!(keys, [true, false, false]);
    pipe.deliver_all(&mut *source).await;
}

/// Inserts, updates and deletes at random, a few in each transaction, some of which are taken back, until told to stop.
async fn writer(url: String, number: u64, stop: Arc<AtomicBool>) {
    let client = client(&url).await;
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
        client.batch_execute("BEGIN").await.unwrap();
        for _ in 0..=next(4) {
            // Each writer has rows of its own, all over the table.
            let id = next(400) * 4 + number;
            let sql = match next(5) {
                0 => format!("DELETE FROM t WHERE id = {id}"),
                1 => format!(
                    "UPDATE t SET id = {} WHERE id = {id} AND NOT EXISTS (SELECT FROM t WHERE id = {0})",
                    next(400) * 4 + number
                ),
                _ => format!("INSERT INTO t VALUES ({id}, {round}) ON CONFLICT (id) DO UPDATE SET v = EXCLUDED.v"),
            };
            client.batch_execute(&sql).await.unwrap();
        }
        let end = if next(5) == 0 { "ROLLBACK" } else { "COMMIT" };
        client.batch_execute(end).await.unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(next(3))).await;
    }
}

const BUSY: &str =
    "CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t SELECT n, 0 FROM generate_series(0, 1599) n";

#[tokio::test]
async fn a_snapshot_under_way_with_writers_loses_and_doubles_nothing() {
    let server = server();
    let (from, to) = databases(&server, BUSY);
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..4)
        .map(|n| tokio::spawn(writer(from.clone(), n, Arc::clone(&stop))))
        .collect();
    let mut source = replica(&from, json!({"batch_rows_max": 100}));
    source.open(None).await.unwrap();
    // The destination inserts: a row that came twice would be rejected, and so would a change of a row that is missing.
    let mut pipe = pipe(&to).await;
    for _ in 0..60 {
        if let Read::Batch(batch) = source.read().await.unwrap() {
            pipe.deliver(&batch).await;
            source.commit(&batch.position).await.unwrap();
        }
    }
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.await.unwrap();
    }
    pipe.deliver_all(&mut *source).await;
    assert_eq!(contents(&server, "from"), contents(&server, "to"));
    assert_eq!((pipe.rejected, pipe.undecodable), (vec![], vec![]));
}

#[tokio::test]
async fn a_source_that_is_killed_at_any_moment_loses_and_doubles_nothing() {
    let server = server();
    let (from, to) = databases(&server, BUSY);
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..4)
        .map(|n| tokio::spawn(writer(from.clone(), n, Arc::clone(&stop))))
        .collect();
    let mut source = replica(&from, json!({"batch_rows_max": 100}));
    source.open(None).await.unwrap();
    let mut pipe = pipe(&to).await;
    for round in 0..120 {
        if let Read::Batch(batch) = source.read().await.unwrap() {
            // Killed before the destination has it, before the source knows, and not at all.
            if round % 5 != 2 {
                pipe.deliver(&batch).await;
            }
            if round % 3 != 1 && round % 5 != 2 {
                source.commit(&batch.position).await.unwrap();
            }
        }
        if round % 5 == 2 || round % 7 == 3 {
            source.open(pipe.position.as_ref()).await.unwrap();
        }
    }
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.await.unwrap();
    }
    source.open(pipe.position.as_ref()).await.unwrap();
    pipe.deliver_all(&mut *source).await;
    assert_eq!(contents(&server, "from"), contents(&server, "to"));
    assert_eq!((pipe.rejected, pipe.undecodable), (vec![], vec![]));
}

#[tokio::test]
async fn a_server_that_restarts_or_is_killed_midway_goes_on() {
    let server = Arc::new(server());
    let (from, to) = databases(&server, "CREATE TABLE t (id int PRIMARY KEY)");
    server.query_in("to", "CREATE TABLE t (id int PRIMARY KEY)");
    let mut source = replica(&from, json!({}));
    source.open(None).await.unwrap();
    let mut pipe = pipe(&to).await;
    let mut faults = 0;
    for round in 0..6 {
        server.query_in(
            "from",
            &format!("INSERT INTO t SELECT {round} * 100 + n FROM generate_series(1, 100) n"),
        );
        // Elsewhere: a server that shuts down wants to hear from those it sends to. It does not wait for what the
        // destination has not got yet.
        let shaken = Arc::clone(&server);
        let shake = move || match round {
            2 => shaken.restart(),
            4 => {
                shaken.kill9();
                shaken.start();
            }
            _ => {}
        };
        tokio::task::spawn_blocking(shake).await.unwrap();
        if round % 2 == 0 && round > 0 {
            pipe.sink.close().await;
            pipe.sink.open().await.unwrap();
        }
        while contents(&server, "to").len() < (round + 1) * 100 {
            match source.read().await {
                Ok(Read::Batch(batch)) => {
                    pipe.deliver(&batch).await;
                    source.commit(&batch.position).await.unwrap();
                }
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

/// The most memory this process has had, in KiB.
fn peak_kib() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_transaction_larger_than_memory_passes_through_in_batches_and_can_be_interrupted() {
    const ROWS: i64 = 60_000;
    /// What the process may grow by while 60 MB pass.
    const GROWTH_KIB: usize = 24 * 1024;
    let server = server();
    server.query("CREATE TABLE t (id int PRIMARY KEY, v text)");
    let mut source = replica(&server.url(), json!({"snapshot": false}));
    source.open(None).await.unwrap();
    let before = confirmed(&server);
    server.query(&format!(
        "INSERT INTO t SELECT n, repeat(md5(n::text), 32) FROM generate_series(1, {ROWS}) n"
    ));
    let base = peak_kib();
    let mut next = 1;
    let mut batches = 0;
    while next != 0 {
        let batch = next_batch(&mut *source).await;
        assert!(batch.batch.encode().len() <= PAYLOAD_BYTES_MAX);
        batches += 1;
        for id in integers(std::slice::from_ref(&batch), "id") {
            assert_eq!(id, next, "in batch {batches}");
            next = if id == ROWS { 0 } else { id + 1 };
        }
        source.commit(&batch.position).await.unwrap();
        if batches == 300 {
            // Nothing of a transaction that is not through is given up.
            assert_eq!(confirmed(&server), before);
            source.open(Some(&batch.position)).await.unwrap();
        }
    }
    let grown = peak_kib() - base;
    assert!(grown < GROWTH_KIB, "grown by {grown} KiB");
}

#[tokio::test]
async fn an_idle_table_lets_the_log_go_but_never_past_what_was_delivered() {
    let server = server();
    server.query("CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE other (v text)");
    let mut source = replica(&server.url(), json!({"heartbeat_ms": 100}));
    source.open(None).await.unwrap();
    next_batch(&mut *source).await;
    let before = confirmed(&server);
    server.query("INSERT INTO t VALUES (1)");
    let record = next_batch(&mut *source).await;
    assert_eq!(record.batch.rows(), 1);
    server.query("INSERT INTO other SELECT repeat('x', 1000) FROM generate_series(1, 1000)");
    let beat = next_batch(&mut *source).await;
    assert_eq!((beat.batch.rows(), beat.undecodable.len()), (0, 0));
    // Nothing has been delivered, however often the server was answered.
    for _ in 0..12 {
        source.read().await.unwrap();
    }
    assert_eq!(confirmed(&server), before);
    let passed = |what: &str| {
        server.query_one(&format!(
            "SELECT confirmed_flush_lsn > '{what}' FROM pg_replication_slots"
        ))
    };
    source.commit(&record.position).await.unwrap();
    while passed(&before) != "t" {
        source.read().await.unwrap();
    }
    let delivered = confirmed(&server);
    source.commit(&beat.position).await.unwrap();
    while passed(&delivered) != "t" {
        source.read().await.unwrap();
    }
    // What comes next is not lost by that.
    source.open(Some(&beat.position)).await.unwrap();
    server.query("INSERT INTO t VALUES (2)");
    let batches = records(&mut *source, 1).await;
    assert_eq!(shown(&batches), ["insert 2"]);
}

#[tokio::test]
async fn columns_come_and_go_while_changes_are_read() {
    let server = server();
    let (from, to) = databases(
        &server,
        "CREATE TYPE mood AS ENUM ('ok'); CREATE TABLE t (id int PRIMARY KEY, a int)",
    );
    let mut source = replica(&from, json!({}));
    source.open(None).await.unwrap();
    let mut pipe = pipe(&to).await;
    // Until the snapshot has been read, nobody can change the table.
    pipe.deliver_all(&mut *source).await;
    server.query_in("from", "INSERT INTO t VALUES (1, 1)");
    for sql in [
        "ALTER TABLE t ADD b mood DEFAULT 'ok'; INSERT INTO t VALUES (2, 2)",
        "ALTER TABLE t DROP a; INSERT INTO t VALUES (3)",
        "ALTER TABLE t ALTER b TYPE text; ALTER TABLE t RENAME b TO c; INSERT INTO t VALUES (4, 'x'); UPDATE t SET c = 'y' WHERE id = 1",
    ] {
        server.query_in("from", sql);
    }
    pipe.deliver_all(&mut *source).await;
    assert_eq!((pipe.rejected, pipe.undecodable), (vec![], vec![]));
    let n = testkit::NULL;
    assert_eq!(
        server.query_in("to", "SELECT id, a, b, c FROM t ORDER BY id"),
        [
            ["1", "1", n, "y"],
            ["2", "2", "ok", n],
            ["3", n, "ok", n],
            ["4", n, n, "x"]
        ]
    );
    server.query_in("from", "ALTER TABLE t RENAME TO u; INSERT INTO u VALUES (5, 'z')");
    let fault = loop {
        match source.read().await {
            Ok(read) => assert!(matches!(read, Read::Idle), "{read:?}"),
            Err(fault) => break fault,
        }
    };
    assert!(
        fault.to_string().contains("the table public.t is now public.u"),
        "{fault}"
    );
    let fault = source.open(pipe.position.as_ref()).await.unwrap_err();
    assert!(fault.to_string().contains("there is no table public.t"), "{fault}");
}

#[tokio::test]
async fn a_first_life_that_delivered_nothing_leaves_nothing_behind() {
    let server = server();
    server.query("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)");
    let mut source = replica(&server.url(), json!({}));
    for _ in 0..3 {
        source.open(None).await.unwrap();
        assert_eq!(shown(&records(&mut *source, 1).await), ["insert 1"]);
        assert!(matches!(source.read().await.unwrap(), Read::Idle));
    }
    assert_eq!(server.query_one("SELECT count(*) FROM pg_replication_slots"), "1");
}
