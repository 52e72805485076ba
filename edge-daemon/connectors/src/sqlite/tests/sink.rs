//! The destination: configs, what becomes of each type and operation, refused rows, watermarks, and tables it did not make.

use std::fs;

use bus_schema::data::{
    Op::{self, Delete, Insert, Update, Upsert},
    Type, Value, Zone,
};
use flow::Fault;
use serde_json::json;

use super::{database, deliver, delivery, literals, rows, schema, sink, stream, try_sink};

#[test]
fn configs_are_checked() {
    let dir = tempfile::tempdir().unwrap();
    for (config, error) in [
        (r#"{"path": "out", "table": "t"}"#, ""),
        (
            r#"{"path": "out", "table": "t", "mode": "upsert", "key": ["a", "b"], "create_table": false}"#,
            "",
        ),
        (r#"{"path": "out"}"#, "missing field `table`"),
        (r#"{"path": "", "table": "t"}"#, "path: is empty"),
        (r#"{"path": "out", "table": ""}"#, "table: '' cannot be written"),
        (
            r#"{"path": "out", "table": "sqlite_x"}"#,
            "table: 'sqlite_x' cannot be written",
        ),
        (
            r#"{"path": "out", "table": "_Mycelial_Watermark"}"#,
            "cannot be written",
        ),
        (
            r#"{"path": "out", "table": "t", "mode": "replace"}"#,
            "mode: unknown variant `replace`, expected `insert`",
        ),
        (
            r#"{"path": "out", "table": "t", "mode": "upsert", "key": []}"#,
            "key: is empty, but mode = \"upsert\"",
        ),
        (
            r#"{"path": "out", "table": "t", "key": ["a", ""]}"#,
            "key[1]: is not a column name",
        ),
        (
            r#"{"path": "out", "table": "t", "key": ["a", "a"]}"#,
            "key[1]: 'a' is in the list twice",
        ),
        (
            r#"{"path": "out", "table": "t", "keys": ["a"]}"#,
            "unknown field `keys`",
        ),
    ] {
        match (try_sink(dir.path(), config), error) {
            (Ok(_), "") => {}
            (Err(found), error) if !error.is_empty() => assert!(found.to_string().contains(error), "{config}: {found}"),
            (result, _) => panic!("{config}: {:?}", result.err()),
        }
    }
}

#[tokio::test]
async fn every_type_has_an_exact_form() {
    let uuid = *b"\x12\x34\x56\x78\x9a\xbc\xde\xf0\x01\x02\x03\x04\x05\x06\x07\x08";
    for (ty, value, declared, class, stored) in [
        (Type::Bool, Value::Bool(true), "INTEGER", "integer", "1"),
        (
            Type::I64,
            Value::I64(i64::MIN),
            "INTEGER",
            "integer",
            "-9223372036854775808",
        ),
        (Type::U64, Value::U64(7), "", "integer", "7"),
        (Type::U64, Value::U64(u64::MAX), "", "text", "'18446744073709551615'"),
        (Type::F32, Value::F32(0.1), "REAL", "real", "0.10000000149011612"),
        (Type::F64, Value::F64(0.1), "REAL", "real", "0.1"),
        (Type::F64, Value::F64(-0.0), "REAL", "real", "0.0"),
        (Type::F64, Value::F64(f64::NEG_INFINITY), "REAL", "real", "-inf"),
        (
            Type::Decimal {
                precision: 10,
                scale: 2,
            },
            Value::Decimal(150, 2),
            "TEXT",
            "text",
            "'1.50'",
        ),
        (Type::Text, Value::Text("007".into()), "TEXT", "text", "'007'"),
        (Type::Bytes, Value::Bytes(vec![0, 255]), "BLOB", "blob", "x'00ff'"),
        (Type::Date, Value::Date(11_016), "TEXT", "text", "'2000-02-29'"),
        (Type::Time, Value::Time(1_500_000), "TEXT", "text", "'00:00:00.001500'"),
        (
            Type::Timestamp(Zone::Naive),
            Value::Timestamp(1),
            "TEXT",
            "text",
            "'1970-01-01T00:00:00.000000001'",
        ),
        (
            Type::Timestamp(Zone::Utc),
            Value::TimestampUtc(0),
            "TEXT",
            "text",
            "'1970-01-01T00:00:00Z'",
        ),
        (
            Type::Timestamp(Zone::Offset),
            Value::TimestampOffset(0, 330),
            "TEXT",
            "text",
            "'1970-01-01T05:30:00+05:30'",
        ),
        (
            Type::Uuid,
            Value::Uuid(uuid),
            "TEXT",
            "text",
            "'12345678-9abc-def0-0102-030405060708'",
        ),
        (
            Type::Json,
            Value::Json("{\"a\":  1}".into()),
            "TEXT",
            "text",
            "'{\"a\":  1}'",
        ),
        (
            Type::List,
            Value::List(vec![Value::I64(1), Value::Text("x".into())]),
            "TEXT",
            "text",
            "'[1,\"x\"]'",
        ),
        (Type::Any, Value::F64(-0.0), "", "real", "-0.0"),
        (Type::Any, Value::Text("1".into()), "", "text", "'1'"),
        (Type::Any, Value::Null, "", "null", "NULL"),
        (Type::I64, Value::Null, "INTEGER", "null", "NULL"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let mut sink = sink(dir.path(), json!({}));
        sink.open().await.unwrap();
        let batch = rows(&schema(&[("v", ty.clone())]), &[(Insert, std::slice::from_ref(&value))]);
        assert!(deliver(&mut *sink, batch).await.is_empty());
        let found = literals(&database(dir.path(), "out", ""), "SELECT typeof(v), v FROM t");
        assert_eq!(found, [format!("'{class}',{stored}")], "{ty}");
        let found = literals(
            &database(dir.path(), "out", ""),
            "SELECT type FROM pragma_table_info('t')",
        );
        assert_eq!(found, [format!("'{declared}'")], "{ty}");
    }
}

type Records<'a> = &'a [(Op, &'a [Value])];

#[tokio::test]
async fn operations_change_the_rows_they_name() {
    use Value::{I64, Missing, Null, Unchanged};
    let text = |text: &str| Value::Text(text.into());
    let fields = schema(&[("*id", Type::I64), ("a", Type::Text), ("b", Type::I64)]);
    let start: Records<'_> = &[
        (Insert, &[I64(1), text("x"), I64(10)]),
        (Insert, &[I64(2), text("y"), I64(20)]),
    ];
    let cases: &[(&str, Records<'_>, &[&str], &[&str])] = &[
        (
            "insert",
            &[(Insert, &[I64(3), Null, Missing])],
            &["1,'x',10", "2,'y',20", "3,NULL,NULL"],
            &[],
        ),
        (
            "insert",
            &[(Insert, &[I64(1), Null, Null])],
            &["1,'x',10", "2,'y',20"],
            &["UNIQUE constraint failed: t.id"],
        ),
        (
            "insert",
            &[(Update, &[I64(1), text("z"), Unchanged])],
            &["1,'z',10", "2,'y',20"],
            &[],
        ),
        (
            "insert",
            &[(Update, &[I64(1), Unchanged, Missing])],
            &["1,'x',10", "2,'y',20"],
            &[],
        ),
        (
            "insert",
            &[(Update, &[I64(9), text("z"), I64(0)])],
            &["1,'x',10", "2,'y',20"],
            &["no row with this key"],
        ),
        (
            "insert",
            &[(Upsert, &[I64(1), text("z"), Null])],
            &["1,'z',NULL", "2,'y',20"],
            &[],
        ),
        ("insert", &[(Delete, &[I64(1), Missing, Missing])], &["2,'y',20"], &[]),
        (
            "insert",
            &[(Delete, &[I64(9), Null, Null])],
            &["1,'x',10", "2,'y',20"],
            &[],
        ),
        (
            "insert",
            &[(Delete, &[Null, Null, Null])],
            &["1,'x',10", "2,'y',20"],
            &["key column 'id' has no value"],
        ),
        (
            "upsert",
            &[(Insert, &[I64(1), Missing, I64(11)])],
            &["1,'x',11", "2,'y',20"],
            &[],
        ),
        (
            "upsert",
            &[(Update, &[I64(3), text("z"), Missing])],
            &["1,'x',10", "2,'y',20", "3,'z',NULL"],
            &[],
        ),
        (
            "upsert",
            &[(Update, &[I64(3), text("z"), Unchanged])],
            &["1,'x',10", "2,'y',20"],
            &["the value of 'b' is not known"],
        ),
        (
            "upsert",
            &[(Insert, &[I64(1), Missing, Unchanged])],
            &["1,'x',10", "2,'y',20"],
            &[],
        ),
        (
            "upsert",
            &[
                (Insert, &[I64(1), text("first"), Null]),
                (Delete, &[I64(2), Null, Null]),
                (Insert, &[I64(2), text("again"), Missing]),
                (Insert, &[I64(1), text("last"), Unchanged]),
            ],
            &["1,'last',NULL", "2,'again',NULL"],
            &[],
        ),
    ];
    for (mode, records, wanted, reasons) in cases {
        let dir = tempfile::tempdir().unwrap();
        let mut sink = sink(dir.path(), json!({"mode": mode}));
        sink.open().await.unwrap();
        assert!(deliver(&mut *sink, rows(&fields, start)).await.is_empty());
        let rejected = deliver(&mut *sink, rows(&fields, records)).await;
        assert_eq!(rejected.len(), reasons.len(), "{records:?}: {rejected:?}");
        for (rejected, reason) in rejected.iter().zip(*reasons) {
            assert!(rejected.reason.contains(reason), "{rejected:?}");
        }
        let out = database(dir.path(), "out", "");
        assert_eq!(
            literals(&out, "SELECT * FROM t ORDER BY id"),
            *wanted,
            "{mode} {records:?}"
        );
    }
}

#[tokio::test]
async fn a_record_that_is_not_whole_changes_the_row_that_is_there() {
    use Value::{I64, Missing, Unchanged};
    let text = |text: &str| Value::Text(text.into());
    let fields = schema(&[("*id", Type::I64), ("v", Type::Text), ("doc", Type::Text)]);
    let before = ["1,'a','one'", "2,'b','two'"];
    // The other two are what a source says that does not know what the destination has.
    for (mode, added, changed) in [
        ("upsert", Insert, Update),
        ("upsert", Update, Insert),
        ("insert", Upsert, Upsert),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let out = database(
            dir.path(),
            "out",
            "CREATE TABLE t (id INTEGER PRIMARY KEY, v, doc NOT NULL);
             INSERT INTO t VALUES (1, 'a', 'one'), (2, 'b', 'two')",
        );
        let mut sink = sink(dir.path(), json!({"mode": mode}));
        sink.open().await.unwrap();
        let records: Records<'_> = &[
            (changed, &[I64(1), text("x"), Unchanged]),
            (changed, &[I64(9), text("x"), Unchanged]),
            (added, &[I64(3), text("c"), text("three")]),
            (changed, &[I64(3), text("cc"), Unchanged]),
            (changed, &[I64(2), text("y"), Missing]),
            (changed, &[I64(8), text("y"), Missing]),
            (changed, &[I64(7), Unchanged, Missing]),
        ];
        for is_committed in [false, true] {
            let rejected = sink.write(&[delivery(1, rows(&fields, records))]).await.unwrap();
            for (refused, (row, reason)) in rejected.iter().zip([
                (1, "the value of 'doc' is not known"),
                (5, "NOT NULL constraint failed: t.doc"),
                (6, "the value of 'v' is not known"),
            ]) {
                assert!(
                    refused.row == row && refused.reason.contains(reason),
                    "{mode}: {rejected:?}"
                );
            }
            assert_eq!(rejected.len(), 3, "{mode}: {rejected:?}");
            // Rows and watermark are of one transaction.
            if is_committed {
                sink.commit().await.unwrap();
            } else {
                sink.close().await;
                sink.open().await.unwrap();
                assert_eq!(sink.watermark(&stream("s")).await.unwrap(), None);
                assert_eq!(literals(&out, "SELECT * FROM t ORDER BY id"), before);
            }
        }
        assert_eq!(
            literals(&out, "SELECT * FROM t ORDER BY id"),
            ["1,'x','one'", "2,'y','two'", "3,'cc','three'"],
            "{mode}"
        );
        let watermark = sink.watermark(&stream("s")).await.unwrap().unwrap();
        assert_eq!((watermark.delivered, watermark.counts.dead), (4, 3), "{mode}");
    }
}

#[tokio::test]
async fn a_refused_row_leaves_its_neighbours_alone() {
    for (table, reason) in [
        (
            "CREATE TABLE t (id INTEGER PRIMARY KEY, v NOT NULL)",
            "NOT NULL constraint failed: t.v",
        ),
        (
            "CREATE TABLE t (id INTEGER PRIMARY KEY, v CHECK (v IS NOT NULL))",
            "CHECK constraint failed",
        ),
        (
            "CREATE TABLE t (id INTEGER PRIMARY KEY, v NOT NULL ON CONFLICT ROLLBACK)",
            "NOT NULL constraint failed",
        ),
        (
            "CREATE TABLE t (id INTEGER PRIMARY KEY, v NOT NULL ON CONFLICT IGNORE)",
            "NOT NULL constraint failed",
        ),
        (
            "CREATE TABLE t (id INTEGER PRIMARY KEY, v NOT NULL ON CONFLICT REPLACE DEFAULT 9)",
            "NOT NULL constraint failed",
        ),
        (
            "CREATE TABLE t (id INTEGER PRIMARY KEY, v); CREATE TRIGGER no BEFORE INSERT ON t WHEN NEW.v IS NULL
             BEGIN SELECT RAISE(ABORT, 'not today'); END",
            "not today",
        ),
        (
            "CREATE TABLE parent (id INTEGER PRIMARY KEY); INSERT INTO parent VALUES (1), (3), (5);
             CREATE TABLE t (id INTEGER PRIMARY KEY REFERENCES parent, v)",
            "FOREIGN KEY constraint failed",
        ),
        (
            "CREATE TABLE t (id INTEGER PRIMARY KEY, v); CREATE TABLE log (id UNIQUE); INSERT INTO log VALUES (2), (4);
             CREATE TRIGGER log AFTER INSERT ON t BEGIN INSERT INTO log VALUES (NEW.id); END",
            "UNIQUE constraint failed: log.id",
        ),
    ] {
        let dir = tempfile::tempdir().unwrap();
        database(dir.path(), "out", table);
        let mut sink = sink(dir.path(), json!({}));
        sink.open().await.unwrap();
        let schema = schema(&[("*id", Type::I64), ("v", Type::I64)]);
        let values = [1, 2, 3, 4, 5].map(|id| [Value::I64(id), if id % 2 == 0 { Value::Null } else { Value::I64(id) }]);
        let records: Vec<_> = values.iter().map(|row| (Insert, &row[..])).collect();
        let rejected = deliver(&mut *sink, rows(&schema, &records)).await;
        assert_eq!(
            rejected.iter().map(|r| (r.delivery, r.row)).collect::<Vec<_>>(),
            [(0, 1), (0, 3)],
            "{table}"
        );
        assert!(rejected.iter().all(|r| r.reason.contains(reason)), "{rejected:?}");
        let out = database(dir.path(), "out", "");
        assert_eq!(literals(&out, "SELECT * FROM t ORDER BY id"), ["1,1", "3,3", "5,5"]);
        let watermark = sink.watermark(&stream("s")).await.unwrap().unwrap();
        assert_eq!((watermark.delivered, watermark.counts.dead), (3, 2));
    }
}

#[tokio::test]
async fn a_trigger_that_rolls_back_stops_the_workflow_and_leaves_nothing_half_done() {
    let dir = tempfile::tempdir().unwrap();
    let sql = "CREATE TABLE t (v); CREATE TRIGGER no BEFORE INSERT ON t WHEN NEW.v = 2 BEGIN SELECT RAISE(ROLLBACK, 'no'); END";
    database(dir.path(), "out", sql);
    let mut sink = sink(dir.path(), json!({}));
    sink.open().await.unwrap();
    let values = [1, 2, 3].map(|v| [Value::I64(v)]);
    let records: Vec<_> = values.iter().map(|row| (Insert, &row[..])).collect();
    let fault = sink
        .write(&[delivery(1, rows(&schema(&[("v", Type::I64)]), &records))])
        .await
        .unwrap_err();
    assert!(
        matches!(&fault, Fault::Stop { cause } if cause.contains("RAISE(ABORT)")),
        "{fault}"
    );
    assert!(
        matches!(sink.commit().await, Err(Fault::Retry { .. })),
        "nothing is left to commit"
    );
    sink.open().await.unwrap();
    assert_eq!(sink.watermark(&stream("s")).await.unwrap(), None);
    assert!(literals(&database(dir.path(), "out", ""), "SELECT * FROM t").is_empty());
}

#[tokio::test]
async fn values_come_through_the_affinity_of_an_existing_column_or_are_refused() {
    use Value::{Bytes, F64, I64, Null};
    let text = |text: &str| Value::Text(text.into());
    let refused = "";
    for (declared, value, stored) in [
        ("INTEGER", F64(3.0), "3"),
        ("INTEGER", F64(3.5), "3.5"),
        ("INTEGER", text("12"), "12"),
        ("INTEGER", text("012"), refused),
        ("INTEGER", text(" 12"), refused),
        ("INTEGER", text("1e3"), refused),
        ("INTEGER", text("inf"), "'inf'"),
        ("INTEGER", text("1.50"), refused),
        ("INTEGER", text("twelve"), "'twelve'"),
        ("INTEGER", Bytes(b"12".to_vec()), "x'3132'"),
        ("REAL", I64(5), "5.0"),
        ("REAL", I64(i64::MAX), refused),
        ("REAL", text("1.5"), "1.5"),
        ("REAL", text("1.50"), refused),
        ("REAL", F64(f64::NAN), refused),
        ("NUMERIC", F64(2.0), "2"),
        ("NUMERIC", Value::Decimal(150, 2), refused),
        ("NUMERIC", Value::U64(u64::MAX), refused),
        ("TEXT", I64(5), "'5'"),
        ("TEXT", F64(0.30000000000000004), "'0.30000000000000004'"),
        ("BLOB", text("12"), "'12'"),
        ("", F64(f64::NAN), refused),
        ("INTEGER PRIMARY KEY", Null, refused),
        ("INTEGER PRIMARY KEY", text("x"), refused),
        ("INTEGER PRIMARY KEY", F64(1.5), refused),
        ("INTEGER PRIMARY KEY", I64(7), "7"),
        ("INT GENERATED ALWAYS AS (5)", I64(7), "5"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        database(dir.path(), "out", &format!("CREATE TABLE t (v {declared}, other)"));
        let mut sink = sink(dir.path(), json!({}));
        sink.open().await.unwrap();
        let schema = schema(&[("V", Type::Any), ("other", Type::I64)]);
        let rejected = deliver(&mut *sink, rows(&schema, &[(Insert, &[value.clone(), I64(1)])])).await;
        let found = literals(&database(dir.path(), "out", ""), "SELECT v FROM t");
        let wanted: &[&str] = if stored == refused { &[] } else { &[stored] };
        assert_eq!(found, wanted, "{value:?} into {declared}: {rejected:?}");
        assert_eq!(rejected.len(), 1 - wanted.len());
    }
}

#[tokio::test]
async fn columns_are_added_or_their_records_refused() {
    let old = schema(&[("a", Type::I64)]);
    let new = schema(&[("a", Type::I64), ("b\"x", Type::Text), ("nul\0", Type::I64)]);
    for (add, wanted, reasons) in [
        (true, vec!["1,NULL", "2,'x'", "4,NULL"], vec!["names with NUL"]),
        (
            false,
            vec!["1", "4"],
            vec!["no column 'b\"x', and add_columns is false", "no column 'b\"x'"],
        ),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let mut sink = sink(dir.path(), json!({"add_columns": add}));
        sink.open().await.unwrap();
        deliver(&mut *sink, rows(&old, &[(Insert, &[Value::I64(1)])])).await;
        let records: Records<'_> = &[
            (Insert, &[Value::I64(2), Value::Text("x".into()), Value::Missing]),
            (Insert, &[Value::I64(3), Value::Null, Value::I64(1)]),
            (Insert, &[Value::I64(4), Value::Missing, Value::Missing]),
        ];
        let rejected = deliver(&mut *sink, rows(&new, records)).await;
        assert_eq!(literals(&database(dir.path(), "out", ""), "SELECT * FROM t"), wanted);
        assert_eq!(rejected.len(), reasons.len(), "{rejected:?}");
        for (rejected, reason) in rejected.iter().zip(reasons) {
            assert!(rejected.reason.contains(reason), "{rejected:?}");
        }
    }
}

#[tokio::test]
async fn databases_that_cannot_be_written() {
    let table = "CREATE TABLE readings (id INTEGER PRIMARY KEY, v)";
    let with_key = schema(&[("*id", Type::I64), ("v", Type::I64)]);
    let without = schema(&[("id", Type::I64), ("v", Type::I64)]);
    for (config, schema, stop, cause) in [
        (
            json!({"path": "text"}),
            &with_key,
            true,
            "text is not a SQLite database",
        ),
        (json!({"path": "."}), &with_key, true, "is a directory, not a database"),
        (json!({"path": "no/out"}), &with_key, false, "there is no directory"),
        (
            json!({"path": "none", "create_table": false}),
            &with_key,
            false,
            "there is no file",
        ),
        (
            json!({"table": "reading", "create_table": false}),
            &with_key,
            false,
            "no table 'reading' (did you mean 'readings'?)",
        ),
        (
            json!({"table": "readings", "mode": "upsert"}),
            &without,
            true,
            "come without key columns: set key",
        ),
        (
            json!({"table": "readings", "mode": "upsert", "key": ["ids"]}),
            &without,
            false,
            "no key column 'ids' (did you",
        ),
        (
            json!({"table": "readings", "mode": "upsert", "key": ["v"]}),
            &without,
            false,
            "a unique index on exactly (v)",
        ),
        (
            json!({"table": "readings", "mode": "upsert", "key": ["ID"]}),
            &without,
            false,
            "",
        ),
    ] {
        let dir = tempfile::tempdir().unwrap();
        database(dir.path(), "out", table);
        fs::write(dir.path().join("text"), "just a short text").unwrap();
        let mut sink = sink(dir.path(), config.clone());
        let batch = rows(schema, &[(Insert, &[Value::I64(1), Value::I64(1)])]);
        let done = match sink.open().await {
            Ok(()) => sink.write(&[delivery(1, batch)]).await.map(|_| ()),
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
        assert!(!dir.path().join("none").exists());
    }
}

#[tokio::test]
async fn the_watermark_is_read_back_and_counts_every_record() {
    let dir = tempfile::tempdir().unwrap();
    let schema = schema(&[("*id", Type::I64)]);
    let batch = |ids: &[i64]| {
        let values: Vec<[Value; 1]> = ids.iter().map(|id| [Value::I64(*id)]).collect();
        rows(
            &schema,
            &values.iter().map(|row| (Insert, &row[..])).collect::<Vec<_>>(),
        )
    };
    let mut sink_ = sink(dir.path(), json!({}));
    sink_.open().await.unwrap();
    assert!(sink_.keeps_watermark());
    assert_eq!(sink_.watermark(&stream("s")).await.unwrap(), None);
    let mut deliveries = vec![
        delivery(1, batch(&[1, 2])),
        delivery(5, batch(&[2, 3])),
        delivery(6, batch(&[])),
    ];
    deliveries[2].stream = stream("other");
    let rejected = sink_.write(&deliveries).await.unwrap();
    assert_eq!(
        rejected.iter().map(|r| (r.delivery, r.row)).collect::<Vec<_>>(),
        [(1, 0)]
    );
    // Invisible until the commit.
    assert!(literals(&database(dir.path(), "out", ""), "SELECT * FROM _mycelial_watermark").is_empty());
    sink_.commit().await.unwrap();
    sink_.commit().await.unwrap();
    // Written but not committed: gone with the close.
    sink_.write(&[delivery(6, batch(&[7]))]).await.unwrap();
    sink_.close().await;
    sink_.open().await.unwrap();
    let watermark = sink_.watermark(&stream("s")).await.unwrap().unwrap();
    assert_eq!((watermark.seq, watermark.delivered, watermark.counts.dead), (5, 3, 1));
    assert_eq!(watermark.position.as_bytes(), 5u64.to_be_bytes());
    let watermark = sink_.watermark(&stream("other")).await.unwrap().unwrap();
    assert_eq!((watermark.seq, watermark.delivered, watermark.counts.dead), (6, 0, 0));
    assert_eq!(
        literals(&database(dir.path(), "out", ""), "SELECT id FROM t ORDER BY id"),
        ["1", "2", "3"]
    );

    // A second daemon with the same stream cannot write a record twice.
    let mut twin = sink(dir.path(), json!({}));
    twin.open().await.unwrap();
    deliver(&mut *twin, batch(&[8])).await;
    let fault = sink_.write(&[delivery(6, batch(&[8]))]).await.unwrap_err();
    assert!(
        matches!(&fault, Fault::Retry { cause, .. } if cause.contains("somebody else delivers it too")),
        "{fault}"
    );
}

#[tokio::test]
async fn a_locked_database_is_tried_again_and_durability_is_on() {
    let dir = tempfile::tempdir().unwrap();
    let other = database(dir.path(), "out", "CREATE TABLE t (a); PRAGMA journal_mode = WAL");
    let mut sink = sink(dir.path(), json!({}));
    sink.open().await.unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let batch = rows(&schema(&[("a", Type::I64)]), &[(Insert, &[Value::I64(1)])]);
    let fault = sink.write(&[delivery(1, batch.clone())]).await.unwrap_err();
    assert!(
        matches!(&fault, Fault::Retry { cause, .. } if cause.contains("locked by another process")),
        "{fault}"
    );
    other.execute_batch("ROLLBACK").unwrap();
    sink.open().await.unwrap();
    deliver(&mut *sink, batch).await;
    assert_eq!(literals(&other, "SELECT a FROM t"), ["1"]);
    assert_eq!(literals(&other, "PRAGMA journal_mode"), ["'wal'"]);
}

#[tokio::test]
async fn strange_names_are_only_names() {
    let dir = tempfile::tempdir().unwrap();
    let table = "tä\"; DROP TABLE x; --";
    let mut sink = sink(dir.path(), json!({"table": table, "mode": "upsert"}));
    sink.open().await.unwrap();
    let fields = schema(&[
        ("*select", Type::Text),
        ("*", Type::Text),
        ("?1", Type::Text),
        ("a]b`c'd", Type::I64),
    ]);
    let text = |text: &str| Value::Text(text.into());
    for v in [1, 2] {
        let record: Records<'_> = &[(Insert, &[text("k"), text("l"), text("m"), Value::I64(v)])];
        assert!(deliver(&mut *sink, rows(&fields, record)).await.is_empty());
    }
    let sql = format!("SELECT * FROM \"{}\"", table.replace('"', "\"\""));
    assert_eq!(literals(&database(dir.path(), "out", ""), &sql), ["'k','l','m',2"]);
}
