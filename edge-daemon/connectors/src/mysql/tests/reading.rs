//! The MySQL source against real servers: what the tests of both modes share, and the cursor.

use std::{sync::Arc, time::Duration};

use bus_schema::{
    data::{Batch, Value},
    limits::PAYLOAD_BYTES_MAX,
};
use flow::{Build, BuildContext, ConfigError, Fault, Position, Read, Source, SourceBatch};
use mysql_async::{Conn, Opts, prelude::Queryable};
use serde_json::json;
use testkit::{Mariadb, Tls};

use super::{super::SOURCE, Database, deliver};
use crate::testing::next_batch;

/// A source that has been idle this often has nothing more.
const IDLE_MAX: usize = 5;

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

/// The next batch, if one comes; rows may wait for a second of theirs, and for the transactions of others.
async fn batch_if_any(source: &mut dyn Source) -> Option<SourceBatch> {
    for _ in 0..IDLE_MAX {
        if let Read::Batch(batch) = source.read().await.unwrap() {
            return Some(batch);
        }
    }
    None
}

/// Everything there is: batches until the source has been idle for long enough.
pub(super) async fn drain(source: &mut dyn Source) -> Vec<SourceBatch> {
    let mut batches = Vec::new();
    while let Some(batch) = batch_if_any(source).await {
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

/// A connection that may hold a transaction open.
pub(super) async fn client(url: &str) -> Conn {
    Conn::new(Opts::from_url(url).unwrap()).await.unwrap()
}

/// The names and types of a batch: `id i64, v text`.
pub(super) fn fields(batch: &SourceBatch) -> String {
    let fields = batch.batch.schema().fields.iter();
    let fields: Vec<_> = fields.map(|field| format!("{} {}", field.name, field.ty)).collect();
    fields.join(", ")
}

#[test]
fn configs_are_checked() {
    let base = r#""url": "mysql://u:hunter2@h/d""#;
    for (config, error) in [
        (r#""table": "t""#, ""),
        (r#""table": "t", "cursor": "at""#, ""),
        (r#""query": "SELECT 1 AS a", "cursor": ["a", "b"]"#, ""),
        (r#""cursor": "a""#, "table: is missing: name a table, or give a query"),
        (r#""table": """#, "table: cannot be a name"),
        (
            r#""table": "t", "query": "SELECT 1""#,
            "query: cannot be given together",
        ),
        (r#""query": "SELECT 1""#, "cursor: is needed with query"),
        (r#""query": "SELECT 1\u0000", "cursor": "a""#, "query: contains a NUL"),
        (r#""table": "t", "cursor": """#, "cursor: cannot be a name"),
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
        "CREATE TABLE readings (id int PRIMARY KEY, at timestamp, j json, e enum('b', 'a') NOT NULL UNIQUE, f float);
         CREATE TABLE bare (a int NOT NULL, b int UNIQUE); CREATE VIEW v AS SELECT * FROM readings;
         INSERT INTO readings VALUES (1, now(), '{}', 'a', 1);
         CREATE USER reader@'127.0.0.1'; GRANT SELECT ON unreadable.readings TO reader@'127.0.0.1';
         CREATE USER outsider@'127.0.0.1'; GRANT SELECT ON unreadable.bare TO outsider@'127.0.0.1'",
    );
    let as_user = |user: &str| db.url.replace("tester:tester@", &format!("{user}@"));
    let (reader, outsider) = (as_user("reader"), as_user("outsider"));
    let deaf = format!("mysql://u@127.0.0.1:{}/d", testkit::free_port());
    for (url, config, stop, cause) in [
        (&deaf, json!({}), false, "cannot connect to MySQL at 127.0.0.1:"),
        (
            &db.url,
            json!({"table": "reading"}),
            false,
            "no table reading (did you mean 'readings'?)",
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
            true,
            "'j' of 'readings' cannot be a cursor",
        ),
        (
            &db.url,
            json!({"table": "readings", "cursor": "e"}),
            true,
            "'e' of 'readings' cannot be a cursor",
        ),
        (
            &db.url,
            json!({"table": "readings", "cursor": "f"}),
            true,
            "'f' of 'readings' cannot be a cursor",
        ),
        (&db.url, json!({"query": "SELEC 1", "cursor": "a"}), false, "syntax"),
        (
            &db.url,
            json!({"query": "SELECT 1 AS a; SELECT 2", "cursor": "a"}),
            false,
            "syntax",
        ),
        (&outsider, json!({"table": "readings"}), false, "no table readings"),
        (
            &reader,
            json!({"table": "readings"}),
            false,
            "GRANT PROCESS ON *.* TO it, or set delay_ms",
        ),
        (&reader, json!({"table": "readings", "delay_ms": 1}), false, ""),
        // Names of columns do not tell large letters from small ones.
        (&db.url, json!({"table": "readings", "cursor": "AT"}), false, ""),
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
    let server = Mariadb::builder().tls(&tls).start();
    server.create_database("d");
    server.query_in("d", "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)");
    for (password, cause) in [("tester", ""), ("hunter3", "Access denied")] {
        let config = json!({
            "host": "127.0.0.1", "port": server.port(), "user": "tester", "database": "d",
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
        "CREATE TABLE t (id int PRIMARY KEY, at timestamp(3) NULL, name varchar(40) CHARACTER SET latin1, part int NOT NULL,
             d double, raw varbinary(9), UNIQUE (name));
         INSERT INTO t SELECT seq, timestamp('2024-01-01') + interval seq DIV 7 second, concat('ä''\\\\', seq), seq % 3, seq / 9,
             concat(x'ff00', seq) FROM seq_1_to_1000;
         INSERT INTO t VALUES (0, NULL, NULL, 7, NULL, NULL)",
    );
    let rows = |order: &str| -> Vec<i64> {
        let sql = format!("SELECT id FROM t WHERE at IS NOT NULL ORDER BY {order}");
        db.rows(&sql).iter().map(|id| id.parse().unwrap()).collect()
    };
    for (config, order) in [
        (json!({"cursor": "at"}), "at, id"),
        (json!({"cursor": ["part", "at"]}), "part, at, id"),
        (json!({"cursor": "d"}), "d, id"),
        (json!({"cursor": "raw"}), "raw, id"),
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
        config["batch_rows_max"] = json!(300);
        let wanted = rows(order);
        let mut source = source(&db.url, config.clone());
        source.open(None).await.unwrap();
        let batches = drain(&mut *source).await;
        assert_eq!(integers(&batches, "id"), wanted, "{config}");
        let fits = |batch: &SourceBatch| batch.batch.rows() <= 300 && batch.undecodable.is_empty();
        assert!(batches.iter().all(fits), "{config}");
        // From every position on, what is left.
        let mut read = 0;
        for batch in &batches {
            read += batch.batch.rows();
            source.open(Some(&batch.position)).await.unwrap();
            let found = batch_if_any(&mut *source).await;
            let found = found.and_then(|batch| integers(&[batch], "id").first().copied());
            assert_eq!(found, wanted.get(read).copied(), "{config} after {read}");
        }
    }
}

#[tokio::test]
async fn the_key_of_the_table_is_the_key_of_the_records() {
    let db = Database::new(
        "keyed",
        "CREATE TABLE t (b int, a int, v int NOT NULL INVISIBLE DEFAULT 3, PRIMARY KEY (a, b)); INSERT INTO t VALUES (2, 1)",
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
async fn every_type_comes_as_it_is() {
    let db = Database::new(
        "every_type",
        "CREATE TABLE t (id bigint unsigned PRIMARY KEY, i bigint, b bit(10), y year, f float, g float(7,3), d double,
             n decimal(38,9), m decimal(65,30) unsigned, c char(5), l text CHARACTER SET latin1, u varchar(9) CHARACTER SET utf8mb4, e enum('a','b'),
             s set('x','y'), v varbinary(9), o blob, day date, t time(6), dt datetime(6), ts timestamp(6) NULL, j json,
             k uuid, z inet6);
         SET time_zone = '+05:00';
         INSERT INTO t VALUES (18446744073709551615, -9223372036854775808, b'1000000001', 1999, 0.1, 123.457, -5e-324,
             -12345678901234567890123456789.123456789, 12345678901234567890123456789012345.5, 'ab', 'häß', '🌱', 'b', 'x,y',
             x'00ff', x'27', '0001-01-01', '23:59:59.999999', '9999-12-31 23:59:59.999999', '2024-01-01 05:00:00.000001',
             '{\"a\":  1}', '12345678-9abc-4ef0-8102-030405060708', '::1');
         INSERT INTO t (id) VALUES (1); INSERT INTO t (id, m) VALUES (2, 1.5)",
    );
    let mut source = source(&db.url, json!({}));
    source.open(None).await.unwrap();
    let batch = next_batch(&mut *source).await;
    assert_eq!(
        fields(&batch),
        "id u64, i i64, b u64, y i64, f f32, g f32, d f64, n decimal(38,9), m any, c text, l text, u text, e text, s text, \
         v bytes, o bytes, day date, t time, dt timestamp, ts timestamp_utc, j json, k uuid, z text"
    );
    let row = |row: usize| -> Vec<Value> {
        let batch = &batch.batch;
        (0..batch.columns().len())
            .map(|at| batch.cell(row, at).to_value())
            .collect()
    };
    let text = |text: &str| Value::Text(text.into());
    let day = 86_400_000_000_000i128;
    assert_eq!(
        row(2),
        [
            Value::U64(u64::MAX),
            Value::I64(i64::MIN),
            Value::U64(513),
            Value::I64(1999),
            Value::F32(0.1),
            Value::F32(123.457),
            Value::F64(-f64::from_bits(1)),
            Value::Decimal(-12_345_678_901_234_567_890_123_456_789_123_456_789, 9),
            text("12345678901234567890123456789012345.500000000000000000000000000000"),
            text("ab"),
            text("häß"),
            text("🌱"),
            text("b"),
            text("x,y"),
            Value::Bytes(vec![0, 255]),
            Value::Bytes(b"'".to_vec()),
            Value::Date(-719_162),
            Value::Time(86_399_999_999_000),
            Value::Timestamp(2_932_897 * day - 1000),
            Value::TimestampUtc(19_723 * day + 1000),
            Value::Json("{\"a\":  1}".into()),
            Value::Uuid(*b"\x12\x34\x56\x78\x9a\xbc\x4e\xf0\x81\x02\x03\x04\x05\x06\x07\x08"),
            text("::1"),
        ]
    );
    assert!(row(0)[1..].iter().all(|value| *value == Value::Null), "{:?}", row(0));
    assert_eq!(row(1)[8], Value::Decimal(15 * 10i128.pow(29), 30));
    // What the destination stores of it is the same again.
    let copy = Database::new("every_type_again", "");
    let mut sink = copy.sink(json!({"key": ["id"]})).await;
    let rejected = deliver(&mut *sink, Batch::decode(&batch.batch.encode()).unwrap()).await;
    assert_eq!(rejected, []);
    for exact in [
        "id", "i", "b", "y", "g", "d", "n", "c", "l", "u", "e", "s", "v", "o", "day", "t", "dt", "j",
    ] {
        let sql = format!("SELECT `{exact}` FROM t ORDER BY id");
        assert_eq!(copy.rows(&sql).len(), 3, "{exact}");
        let same = format!(
            "SELECT COUNT(*) FROM every_type.t a JOIN every_type_again.t b ON a.id = b.id AND a.`{exact}` <=> b.`{exact}`"
        );
        assert_eq!(copy.rows(&same), ["3"], "{exact}");
    }
}

#[tokio::test]
async fn what_is_no_date_and_no_time_makes_a_column_text_for_one_batch() {
    let db = Database::new(
        "zero_dates",
        "CREATE TABLE t (id int PRIMARY KEY, day date, at datetime, ts timestamp NULL, t time);
         SET sql_mode = 'ALLOW_INVALID_DATES';
         INSERT INTO t VALUES (1, '2024-02-29', '2024-01-01 01:02:03', '2024-01-01', '10:00:00'),
             (2, '0000-00-00', '0000-00-00', '0000-00-00', '-01:00:00'), (3, '2023-02-29', '2024-00-01', NULL, '100:00:00')",
    );
    let mut source = source(&db.url, json!({}));
    source.open(None).await.unwrap();
    let batches = drain(&mut *source).await;
    assert_eq!(fields(&batches[0]), "id i64, day text, at text, ts text, t text");
    let texts = |name: &str| -> Vec<String> {
        let values = column(&batches, name).into_iter();
        values.map(|value| value.as_cell().to_string()).collect()
    };
    assert_eq!(texts("day"), ["2024-02-29", "0000-00-00", "2023-02-29"]);
    assert_eq!(
        texts("at"),
        ["2024-01-01 01:02:03", "0000-00-00 00:00:00", "2024-00-01 00:00:00"]
    );
    assert_eq!(texts("t"), ["10:00:00", "-01:00:00", "100:00:00"]);
    assert!(batches[0].undecodable.is_empty());
}

#[tokio::test]
async fn transactions_that_commit_late_lose_nothing() {
    let db = Database::on(
        &Arc::new(Mariadb::start()),
        "late",
        "CREATE TABLE t (id bigint AUTO_INCREMENT PRIMARY KEY, who varchar(9))",
    );
    let mut source = source(&db.url, json!({}));
    source.open(None).await.unwrap();
    // Takes the number 1 and holds on to it.
    let mut late = client(&db.url).await;
    late.query_drop("BEGIN; INSERT INTO t (who) VALUES ('late')")
        .await
        .unwrap();
    db.rows("INSERT INTO t (who) VALUES ('quick')");
    for _ in 0..2 {
        assert!(matches!(source.read().await.unwrap(), Read::Idle), "2 must wait for 1");
    }
    // Who begins to write later is not waited for, nor who only reads.
    let mut later = client(&db.url).await;
    later
        .query_drop("BEGIN; INSERT INTO t (who) VALUES ('later')")
        .await
        .unwrap();
    let mut reader = client(&db.url).await;
    reader.query_drop("BEGIN; SELECT * FROM t").await.unwrap();
    late.query_drop("COMMIT").await.unwrap();
    assert_eq!(integers(&[next_batch(&mut *source).await], "id"), [1, 2]);
    later.query_drop("ROLLBACK").await.unwrap();
    db.rows("INSERT INTO t (who) VALUES ('last')");
    assert_eq!(integers(&[next_batch(&mut *source).await], "id"), [4]);
}

#[tokio::test]
async fn without_the_right_to_see_writers_a_delay_does() {
    let db = Database::on(
        &Arc::new(Mariadb::start()),
        "delayed",
        "CREATE TABLE t (id bigint AUTO_INCREMENT PRIMARY KEY);
         CREATE USER slow@'127.0.0.1'; GRANT SELECT ON `delayed`.* TO slow@'127.0.0.1'",
    );
    let mut source = source(
        &db.url.replace("tester:tester@", "slow@"),
        json!({"delay_ms": 1500, "poll_interval_ms": 10}),
    );
    source.open(None).await.unwrap();
    let mut late = client(&db.url).await;
    late.query_drop("BEGIN; INSERT INTO t VALUES ()").await.unwrap();
    db.rows("INSERT INTO t VALUES ()");
    assert!(matches!(source.read().await.unwrap(), Read::Idle));
    late.query_drop("COMMIT").await.unwrap();
    assert_eq!(integers(&[next_batch(&mut *source).await], "id"), [1, 2]);
}

#[tokio::test]
async fn many_writers_at_once_lose_and_double_nothing() {
    let db = Database::on(
        &Arc::new(Mariadb::start()),
        "writers",
        "CREATE TABLE t (id bigint AUTO_INCREMENT PRIMARY KEY, writer int)",
    );
    let writer = |number: i32, url: String| async move {
        let mut client = client(&url).await;
        for round in 0..60 {
            let end = if (round + number) % 7 == 0 {
                "ROLLBACK"
            } else {
                "COMMIT"
            };
            let insert = format!("INSERT INTO t (writer) VALUES ({number})");
            client.query_drop(format!("BEGIN; {insert}")).await.unwrap();
            tokio::time::sleep(Duration::from_millis((round * number % 5) as u64)).await;
            client.query_drop(format!("{insert}; {end}")).await.unwrap();
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
async fn rows_of_the_same_second_are_not_passed_over() {
    let db = Database::new(
        "seconds",
        "CREATE TABLE t (id int PRIMARY KEY, at timestamp NOT NULL DEFAULT current_timestamp ON UPDATE current_timestamp, v int);
         INSERT INTO t (id, v) VALUES (1, 0), (2, 0), (3, 0)",
    );
    let mut source = source(&db.url, json!({"cursor": "at"}));
    source.open(None).await.unwrap();
    let mut found = Vec::new();
    // The higher key first, and both within a second as a rule.
    for round in 1..=4 {
        db.rows(&format!("UPDATE t SET v = {round} WHERE id = 3"));
        tokio::time::sleep(Duration::from_millis(200)).await;
        db.rows(&format!("UPDATE t SET v = {round} WHERE id = 1"));
        if let Read::Batch(batch) = source.read().await.unwrap() {
            found.push(batch);
        }
    }
    found.extend(drain(&mut *source).await);
    let rows: Vec<(i64, i64)> = integers(&found, "id").into_iter().zip(integers(&found, "v")).collect();
    for id in [1, 3] {
        let last = rows.iter().rev().find(|row| row.0 == id);
        assert_eq!(last, Some(&(id, 4)), "{rows:?}");
    }
}

#[tokio::test]
async fn a_server_that_restarts_midway_is_read_to_the_end() {
    let server = Mariadb::start();
    let url = server.create_database("d");
    server.query_in(
        "d",
        "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t SELECT seq FROM seq_1_to_500",
    );
    let mut source = source(&url, json!({"batch_rows_max": 100}));
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
    assert_eq!(fields(&next_batch(&mut *source).await), "id i64, a i64");
    db.rows("ALTER TABLE t ADD b text; INSERT INTO t VALUES (2, 2, 'x')");
    assert_eq!(fields(&next_batch(&mut *source).await), "id i64, a i64, b text");
    db.rows("ALTER TABLE t DROP a, MODIFY b blob; INSERT INTO t VALUES (3, 'x')");
    assert_eq!(fields(&next_batch(&mut *source).await), "id i64, b bytes");
    db.rows("ALTER TABLE t DROP PRIMARY KEY; INSERT INTO t VALUES (4, 'x')");
    let fault = source.read().await.unwrap_err();
    assert!(fault.to_string().contains("no primary key to read by"), "{fault}");
}

#[tokio::test]
async fn wide_rows_make_small_batches_and_huge_ones_dead_letters() {
    let server = Mariadb::builder().config("max_allowed_packet", "128M").start();
    let url = server.create_database("wide");
    server.query_in(
        "wide",
        "CREATE TABLE t (id int PRIMARY KEY, v longtext);
         INSERT INTO t SELECT seq, repeat('x', 1 << seq) FROM seq_1_to_20;
         INSERT INTO t VALUES (21, repeat('y', 65 * 1024 * 1024)), (22, 'small')",
    );
    let mut source = source(&url, json!({}));
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
    let db = Database::new("foreign", "CREATE TABLE t (id int PRIMARY KEY)");
    let mut source = source(&db.url, json!({}));
    let fault = source.open(Some(&Position::new("offset 5"))).await.unwrap_err();
    assert!(matches!(fault, Fault::Stop { .. }), "{fault}");
}
