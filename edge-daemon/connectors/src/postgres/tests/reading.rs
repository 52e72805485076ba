//! The PostgreSQL source against real servers: what the tests of both modes share, and the cursor.

use std::{sync::Arc, time::Duration};

use bus_schema::{
    data::{Batch, Value},
    limits::PAYLOAD_BYTES_MAX,
};
use flow::{Build, BuildContext, ConfigError, Fault, Position, Read, Source, SourceBatch};
use serde_json::json;
use testkit::{Postgres, Tls};

use super::{super::SOURCE, Database};
use crate::testing::next_batch;

pub(super) fn try_source(config: &str) -> Result<Box<dyn Source>, ConfigError> {
    let Build::Source(build) = SOURCE.build else {
        panic!("not a source")
    };
    build(
        config,
        &BuildContext {
            node: "node".into(),
            workflow: "test".into(),
            ..BuildContext::default()
        },
    )
}

/// A source of table `t`, unless a query is given; polls every 10 ms.
pub(super) fn source(url: &str, more: serde_json::Value) -> Box<dyn Source> {
    let mut config = json!({"url": url, "tls": {"mode": "disable"}, "poll_interval_ms": 10});
    if more.get("query").is_none() {
        config["table"] = json!("t");
    }
    config
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    try_source(&config.to_string()).unwrap()
}

/// Everything there is: batches until the source is idle.
pub(super) async fn drain(source: &mut dyn Source) -> Vec<SourceBatch> {
    let mut batches = Vec::new();
    while let Read::Batch(batch) = source.read().await.unwrap() {
        batches.push(batch);
    }
    batches
}

/// The values of a column, row by row.
pub(super) fn column(batches: &[SourceBatch], name: &str) -> Vec<Value> {
    let of = |batch: &Batch| {
        let at = batch.schema().index_of(name).unwrap();
        (0..batch.rows())
            .map(|row| batch.cell(row, at).to_value())
            .collect::<Vec<_>>()
    };
    batches.iter().flat_map(|batch| of(&batch.batch)).collect()
}

pub(super) fn integers(batches: &[SourceBatch], name: &str) -> Vec<i64> {
    let integer = |value| match value {
        Value::I64(integer) => integer,
        other => panic!("{other:?} is no integer"),
    };
    column(batches, name).into_iter().map(integer).collect()
}

#[test]
fn configs_are_checked() {
    let base = r#""url": "postgres://u:hunter2@h/d""#;
    for (config, error) in [
        (r#""table": "t""#, ""),
        (r#""table": "t", "cursor": "at""#, ""),
        (r#""query": "SELECT 1 AS a", "cursor": ["a", "b"]"#, ""),
        (r#""schema": "s""#, "table: is missing: name a table, or give a query"),
        (r#""table": """#, "table: is empty"),
        (
            r#""table": "t", "query": "SELECT 1""#,
            "query: cannot be given together",
        ),
        (r#""query": "SELECT 1""#, "cursor: is needed with query"),
        (r#""query": "SELECT 1\u0000", "cursor": "a""#, "query: contains a NUL"),
        (r#""table": "t", "cursor": """#, "cursor: is empty"),
        (r#""table": "t", "cursor": []"#, "cursor: names no column"),
        (r#""table": "t", "cursor": ["a", "a"]"#, "cursor: names 'a' twice"),
        (
            r#""table": "t", "cursor": 5"#,
            "cursor: a column name or a list of them",
        ),
        (
            r#""table": "t", "batch_rows_max": 0"#,
            "batch_rows_max: must be from 1 to 65536",
        ),
        (
            r#""table": "t", "poll_interval_ms": 9"#,
            "poll_interval_ms: must be from 10",
        ),
        (r#""table": "t", "delay_ms": 86400001"#, "delay_ms: must be at most"),
        (r#""table": "t", "host": "h""#, "host: belongs into the url"),
        (r#""table": "t", "passwd": "x""#, "unknown field `passwd`"),
    ] {
        match (try_source(&format!("{{{base}, {config}}}")), error) {
            (Ok(_), "") => {}
            (Err(found), error) if !error.is_empty() => {
                assert!(found.to_string().contains(error), "{config}: {found}");
                assert!(!found.to_string().contains("hunter"), "{found}");
            }
            (result, _) => panic!("{config}: {:?}", result.err()),
        }
    }
}

#[tokio::test]
async fn what_cannot_be_read() {
    let db = Database::new(
        "unreadable",
        "CREATE TABLE readings (id int PRIMARY KEY, at timestamptz, j json);
         CREATE TABLE bare (a int NOT NULL, b int UNIQUE); CREATE VIEW v AS SELECT * FROM readings;
         CREATE ROLE outsider LOGIN; INSERT INTO readings VALUES (1, now(), '{}');",
    );
    let outsider = db.url.replace("postgres@", "outsider@");
    let deaf = format!("postgres://u@127.0.0.1:{}/d", testkit::free_port());
    for (url, config, stop, cause) in [
        (&deaf, json!({}), false, "cannot connect to PostgreSQL at 127.0.0.1:"),
        (
            &db.url,
            json!({"table": "reading"}),
            false,
            "no table public.reading (did you mean 'readings'?)",
        ),
        (
            &db.url,
            json!({"table": "readings", "schema": "s"}),
            false,
            "no table s.readings",
        ),
        (
            &db.url,
            json!({"table": "readings", "cursor": "idd"}),
            false,
            "(did you mean 'id'?)",
        ),
        (&db.url, json!({"table": "bare"}), true, "has no primary key to read by"),
        (
            &db.url,
            json!({"table": "bare", "cursor": "b"}),
            true,
            "could not be told apart",
        ),
        (&db.url, json!({"table": "v"}), true, "has no primary key to read by"),
        (
            &db.url,
            json!({"table": "readings", "cursor": "j"}),
            false,
            "could not identify an ordering operator",
        ),
        (
            &db.url,
            json!({"table": "readings", "delay_ms": 1}),
            true,
            "begins with a timestamptz column, which 'id' is not",
        ),
        (
            &db.url,
            json!({"query": "SELEC 1", "cursor": "a"}),
            false,
            "syntax error",
        ),
        (
            &db.url,
            json!({"query": "SELECT 1 AS a; SELECT 2", "cursor": "a"}),
            false,
            "syntax error",
        ),
        (
            &outsider,
            json!({"table": "readings"}),
            false,
            "permission denied for table readings",
        ),
        (
            &db.url,
            json!({"table": "readings", "cursor": "at", "delay_ms": 1}),
            false,
            "",
        ),
    ] {
        let mut source = source(url, config.clone());
        let done = match source.open(None).await {
            Ok(()) => source.read().await.map(|_| ()),
            Err(fault) => Err(fault),
        };
        match (done, cause) {
            (Ok(()), "") => {}
            (Err(fault), cause) if !cause.is_empty() => {
                assert!(fault.to_string().contains(cause), "{config}: {fault}");
                assert_eq!(matches!(fault, Fault::Stop { .. }), stop, "{config}: {fault}");
            }
            (done, _) => panic!("{config}: {done:?}"),
        }
    }
}

#[tokio::test]
async fn passwords_and_tls_are_what_the_config_says() {
    let tls = Tls::new();
    let server = Postgres::builder().password("hunter2").tls(&tls).start();
    server.query("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)");
    for (password, cause) in [("hunter2", ""), ("hunter3", "password authentication failed")] {
        let config = json!({
            "host": "localhost", "port": server.port(), "user": "postgres", "database": "postgres",
            "password": password, "tls": {"ca_file": tls.ca()}, "table": "t",
        });
        let mut source = try_source(&config.to_string()).unwrap();
        match (source.open(None).await, cause) {
            (Ok(()), "") => assert_eq!(integers(&drain(&mut *source).await, "id"), [1]),
            (Err(Fault::Retry { cause: found, .. }), cause) if !cause.is_empty() => {
                assert!(found.contains(cause) && !found.contains("hunter"), "{found}");
            }
            (result, _) => panic!("{result:?}"),
        }
    }
}

#[tokio::test]
async fn rows_come_in_order_and_once_whatever_the_cursor() {
    let db = Database::new(
        "orders",
        "CREATE TABLE t (id int PRIMARY KEY, at timestamptz, name text, part int NOT NULL, UNIQUE (name));
         INSERT INTO t SELECT n, timestamptz '2024-01-01' + (n / 7) * interval '1 s', 'n''\\' || n, n % 3 \
             FROM generate_series(1, 1000) n;
         INSERT INTO t VALUES (0, NULL, NULL, 7)",
    );
    let rows = |order: &str| -> Vec<i64> {
        let sql = format!("SELECT id FROM t WHERE at IS NOT NULL ORDER BY {order}");
        db.rows(&sql).iter().map(|id| id.parse().unwrap()).collect()
    };
    for (config, order) in [
        (json!({"cursor": "at"}), "at, id"),
        (json!({"cursor": ["part", "at"]}), "part, at, id"),
        (
            json!({"cursor": ["part", "id"], "query": "SELECT * FROM t WHERE at IS NOT NULL; "}),
            "part, id",
        ),
        (
            json!({"cursor": "name", "query": "SELECT * FROM t -- all of it"}),
            "name",
        ),
    ] {
        let mut config = config;
        config["batch_rows_max"] = json!(64);
        let wanted = rows(order);
        let mut source = source(&db.url, config.clone());
        source.open(None).await.unwrap();
        let batches = drain(&mut *source).await;
        assert_eq!(integers(&batches, "id"), wanted, "{config}");
        let fits = |batch: &SourceBatch| batch.batch.rows() <= 64 && batch.undecodable.is_empty();
        assert!(batches.iter().all(fits), "{config}");
        // From every position on, what is left.
        let mut read = 0;
        for batch in &batches {
            read += batch.batch.rows();
            source.open(Some(&batch.position)).await.unwrap();
            let found = match source.read().await.unwrap() {
                Read::Batch(batch) => integers(&[batch], "id").first().copied(),
                _ => None,
            };
            assert_eq!(found, wanted.get(read).copied(), "{config} after {read}");
        }
    }
}

#[tokio::test]
async fn the_key_of_the_table_is_the_key_of_the_records() {
    let db = Database::new(
        "keyed",
        "CREATE TABLE t (b int, a int, v int NOT NULL, PRIMARY KEY (a, b)); INSERT INTO t VALUES (2, 1, 3)",
    );
    let mut source = source(&db.url, json!({}));
    source.open(None).await.unwrap();
    let batch = next_batch(&mut *source).await.batch;
    let fields = batch.schema().fields.iter();
    let fields: Vec<_> = fields
        .map(|field| (field.name.as_str(), field.key, field.nullable))
        .collect();
    assert_eq!(fields, [("b", true, false), ("a", true, false), ("v", false, false)]);
    assert_eq!(batch.schema().collection, "t");
}

#[tokio::test]
async fn transactions_that_commit_late_lose_nothing() {
    let db = Database::new("late", "CREATE TABLE t (id bigserial PRIMARY KEY, who text)");
    let mut source = source(&db.url, json!({}));
    source.open(None).await.unwrap();
    // Takes the number 1 and holds on to it.
    let late = client(&db.url).await;
    late.batch_execute("BEGIN; INSERT INTO t (who) VALUES ('late')")
        .await
        .unwrap();
    db.rows("INSERT INTO t (who) VALUES ('quick')");
    for _ in 0..3 {
        assert!(matches!(source.read().await.unwrap(), Read::Idle), "2 must wait for 1");
    }
    // Who begins to write later is not waited for.
    let later = client(&db.url).await;
    later
        .batch_execute("BEGIN; INSERT INTO t (who) VALUES ('later')")
        .await
        .unwrap();
    late.batch_execute("COMMIT").await.unwrap();
    assert_eq!(integers(&[next_batch(&mut *source).await], "id"), [1, 2]);
    later.batch_execute("ROLLBACK").await.unwrap();
    db.rows("INSERT INTO t (who) VALUES ('last')");
    assert_eq!(integers(&[next_batch(&mut *source).await], "id"), [4]);
}

#[tokio::test]
async fn many_writers_at_once_lose_and_double_nothing() {
    let db = Database::new("writers", "CREATE TABLE t (id bigserial PRIMARY KEY, writer int)");
    let writer = |number: i32, url: String| async move {
        let client = client(&url).await;
        for round in 0..60 {
            let end = if (round + number) % 7 == 0 {
                "ROLLBACK"
            } else {
                "COMMIT"
            };
            let insert = format!("INSERT INTO t (writer) VALUES ({number})");
            client.batch_execute(&format!("BEGIN; {insert}")).await.unwrap();
            tokio::time::sleep(Duration::from_millis((round * number % 5) as u64)).await;
            client.batch_execute(&format!("{insert}; {end}")).await.unwrap();
        }
    };
    let writers: Vec<_> = (1..=6)
        .map(|number| tokio::spawn(writer(number, db.url.clone())))
        .collect();
    let mut source = source(&db.url, json!({"batch_rows_max": 50}));
    source.open(None).await.unwrap();
    let mut found = Vec::new();
    while !writers.iter().all(tokio::task::JoinHandle::is_finished) {
        if let Read::Batch(batch) = source.read().await.unwrap() {
            found.extend(integers(std::slice::from_ref(&batch), "id"));
            // What a kill between reading and committing comes to.
            source.open(Some(&batch.position)).await.unwrap();
        }
    }
    for writer in writers {
        writer.await.unwrap();
    }
    found.extend(integers(&drain(&mut *source).await, "id"));
    let wanted: Vec<i64> = db
        .rows("SELECT id FROM t ORDER BY id")
        .iter()
        .map(|id| id.parse().unwrap())
        .collect();
    assert_eq!(found, wanted);
}

#[tokio::test]
async fn young_rows_wait_as_long_as_they_are_told_to() {
    let db = Database::new(
        "young",
        "CREATE TABLE t (at timestamptz PRIMARY KEY, v int);
         INSERT INTO t VALUES (now() - interval '1 hour', 1), (now() - interval '10 s', 2), (now() + interval '1 hour', 3)",
    );
    let mut source = source(&db.url, json!({"cursor": "at", "delay_ms": 60_000}));
    source.open(None).await.unwrap();
    assert_eq!(integers(&drain(&mut *source).await, "v"), [1]);
}

#[tokio::test]
async fn a_server_that_restarts_midway_is_read_to_the_end() {
    let server = Postgres::start();
    server.query("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 500)");
    let mut source = source(&server.url(), json!({"batch_rows_max": 100}));
    source.open(None).await.unwrap();
    let mut batches = vec![next_batch(&mut *source).await];
    let position = batches[0].position.clone();
    server.restart();
    let fault = source.read().await.unwrap_err();
    assert!(matches!(fault, Fault::Retry { .. }), "{fault}");
    source.close().await;
    source.open(Some(&position)).await.unwrap();
    batches.extend(drain(&mut *source).await);
    assert_eq!(integers(&batches, "id"), (1..=500).collect::<Vec<_>>());
}

#[tokio::test]
async fn columns_come_and_go_while_it_reads() {
    let db = Database::new(
        "drift",
        "CREATE TABLE t (id int PRIMARY KEY, a int); INSERT INTO t VALUES (1, 1)",
    );
    let mut source = source(&db.url, json!({}));
    source.open(None).await.unwrap();
    let shown = |batch: SourceBatch| {
        let fields = batch.batch.schema().fields.iter();
        fields
            .map(|field| format!("{} {}", field.name, field.ty))
            .collect::<Vec<_>>()
            .join(", ")
    };
    assert_eq!(shown(next_batch(&mut *source).await), "id i64, a i64");
    db.rows("ALTER TABLE t ADD b text; INSERT INTO t VALUES (2, 2, 'x')");
    assert_eq!(shown(next_batch(&mut *source).await), "id i64, a i64, b text");
    db.rows("ALTER TABLE t DROP a; ALTER TABLE t ALTER b TYPE bytea USING b::bytea; INSERT INTO t VALUES (3, 'x')");
    assert_eq!(shown(next_batch(&mut *source).await), "id i64, b bytes");
    db.rows("ALTER TABLE t DROP CONSTRAINT t_pkey; INSERT INTO t VALUES (4, 'x')");
    let fault = source.read().await.unwrap_err();
    assert!(fault.to_string().contains("no primary key to read by"), "{fault}");
}

#[tokio::test]
async fn wide_rows_make_small_batches_and_huge_ones_dead_letters() {
    let db = Database::new(
        "wide",
        "CREATE TABLE t (id int PRIMARY KEY, v text);
         INSERT INTO t SELECT n, repeat('x', 1 << n) FROM generate_series(1, 20) n;
         INSERT INTO t VALUES (21, repeat('y', 65 * 1024 * 1024)), (22, 'small')",
    );
    let mut source = source(&db.url, json!({}));
    source.open(None).await.unwrap();
    let batches = drain(&mut *source).await;
    let ids: Vec<i64> = (1..=22).filter(|id| *id != 21).collect();
    assert_eq!(integers(&batches, "id"), ids);
    for batch in &batches {
        let bytes = batch.batch.encode().len();
        assert!(bytes <= PAYLOAD_BYTES_MAX || batch.batch.rows() == 1, "{bytes} bytes");
    }
    let reasons: Vec<_> = batches
        .iter()
        .flat_map(|batch| &batch.undecodable)
        .map(|it| it.reason.as_str())
        .collect();
    assert!(
        matches!(reasons[..], [reason] if reason.starts_with("t, (id) = (21): holds 6815")),
        "{reasons:?}"
    );
}

#[tokio::test]
async fn positions_of_others_are_refused() {
    let db = Database::new("foreign", "CREATE TABLE t (id int PRIMARY KEY, at timestamptz)");
    let mut source = source(&db.url, json!({}));
    let fault = source.open(Some(&Position::new("offset 5"))).await.unwrap_err();
    assert!(matches!(fault, Fault::Stop { .. }), "{fault}");
}

/// A connection that may hold a transaction open.
pub(super) async fn client(url: &str) -> Arc<tokio_postgres::Client> {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    Arc::new(client)
}

#[tokio::test]
async fn pages_follow_the_index_without_statistics() {
    const ROWS: u64 = 20_000;
    let db = Database::new(
        "index",
        "CREATE TABLE t (id bigint PRIMARY KEY, name text) WITH (autovacuum_enabled = off);
         INSERT INTO t SELECT i, 'reading ' || i FROM generate_series(1, 20000) i;",
    );
    let mut source = source(&db.url, json!({"batch_rows_max": 500}));
    source.open(None).await.unwrap();
    let batches = drain(&mut *source).await;
    assert_eq!(integers(&batches, "id").len() as u64, ROWS);
    source.close().await;
    // Each row is looked up a time or two, not once more for every page that was read before it.
    let looked_up = testkit::wait_ok("the server to count", Duration::from_secs(30), || {
        let sql = "SELECT idx_tup_read FROM pg_stat_user_indexes WHERE relname = 't'";
        let found: u64 = db.server.query_in(db.name, sql)[0][0].parse().unwrap();
        if found >= ROWS { Ok(found) } else { Err(found) }
    });
    assert!(looked_up < 4 * ROWS, "{looked_up}");
}
