//! SQLite to SQLite is exact: every value keeps its storage class and its bytes.

use std::path::Path;

use bus_schema::{data::Batch, limits::PAYLOAD_BYTES_MAX};
use flow::SourceBatch;
use proptest::prelude::*;
use rusqlite::{Connection, types::Value};
use serde_json::json;

use super::{database, delivery, drain, sink, source};

const COLUMNS: [&str; 9] = [
    "INTEGER",
    "BIGINT UNSIGNED",
    "REAL",
    "DOUBLE PRECISION",
    "TEXT",
    "VARCHAR(3)",
    "BLOB",
    "",
    "DECIMAL(10,2)",
];

/// Creates table `t` with a column of each declared type and a row for each list of values.
fn fill(dir: &Path, rows: &[Vec<Value>]) -> Connection {
    let columns: Vec<String> = COLUMNS
        .iter()
        .enumerate()
        .map(|(at, ty)| format!("c{at} {ty}"))
        .collect();
    let sql = format!(
        "PRAGMA journal_mode = WAL; CREATE TABLE t (id INTEGER PRIMARY KEY, {})",
        columns.join(", ")
    );
    let conn = database(dir, "db", &sql);
    conn.execute_batch("BEGIN").unwrap();
    for row in rows {
        let marks: Vec<String> = (1..=row.len()).map(|at| format!("?{at}")).collect();
        let sql = format!("INSERT INTO t VALUES (NULL, {})", marks.join(", "));
        conn.execute(&sql, rusqlite::params_from_iter(row)).unwrap();
    }
    conn.execute_batch("COMMIT").unwrap();
    conn
}

/// All rows as (storage class, bytes): floats bit for bit, text and blobs byte by byte.
fn exact(conn: &Connection) -> Vec<Vec<(u8, Vec<u8>)>> {
    let mut statement = conn.prepare("SELECT * FROM t ORDER BY id").unwrap();
    let width = statement.column_count();
    let rows = statement.query_map([], |row| {
        let value = |at: usize| match row.get_ref_unwrap(at) {
            rusqlite::types::ValueRef::Null => (0, vec![]),
            rusqlite::types::ValueRef::Integer(v) => (1, v.to_be_bytes().to_vec()),
            rusqlite::types::ValueRef::Real(v) => (2, v.to_bits().to_be_bytes().to_vec()),
            rusqlite::types::ValueRef::Text(v) => (3, v.to_vec()),
            rusqlite::types::ValueRef::Blob(v) => (4, v.to_vec()),
        };
        Ok((0..width).map(value).collect())
    });
    rows.unwrap().collect::<Result<_, _>>().unwrap()
}

/// Source, wire bytes, sink. Returns what the source gave.
async fn copy(dir: &Path) -> Vec<SourceBatch> {
    let mut source = source(dir, json!({"table": "t"}));
    source.open(None).await.unwrap();
    let batches = drain(&mut *source).await;
    let mut sink = sink(dir, json!({}));
    sink.open().await.unwrap();
    for (seq, batch) in (1..).zip(&batches) {
        let bytes = batch.batch.encode();
        assert!(
            bytes.len() <= PAYLOAD_BYTES_MAX || batch.batch.rows() == 1,
            "{} bytes",
            bytes.len()
        );
        let rejected = sink
            .write(&[delivery(seq, Batch::decode(&bytes).unwrap())])
            .await
            .unwrap();
        assert!(rejected.is_empty(), "{rejected:?}");
        sink.commit().await.unwrap();
    }
    sink.close().await;
    batches
}

#[tokio::test(start_paused = true)]
async fn every_kind_of_value_in_every_kind_of_column() {
    let values = [
        Value::Null,
        Value::Integer(0),
        Value::Integer(-1),
        Value::Integer(i64::MIN),
        Value::Integer(i64::MAX),
        Value::Integer((1 << 53) + 1),
        Value::Real(-0.0),
        Value::Real(3.0),
        Value::Real(0.1),
        Value::Real(f64::INFINITY),
        Value::Real(f64::NEG_INFINITY),
        Value::Real(f64::from_bits(1)),
        Value::Real(f64::MAX),
        // SQLite stores NULL.
        Value::Real(f64::NAN),
        Value::Text(String::new()),
        Value::Text("grün 🌱 \u{10ffff}".into()),
        Value::Text("in\0side".into()),
        Value::Text("007".into()),
        Value::Text(" 1e3 ".into()),
        Value::Text("x".repeat(200_000)),
        Value::Blob(vec![]),
        Value::Blob(vec![0, 255, 0]),
        Value::Blob(b"plain".to_vec()),
    ];
    let dir = tempfile::tempdir().unwrap();
    let before = fill(dir.path(), &values.clone().map(|value| vec![value; COLUMNS.len()]));
    // A single type per batch too, so that no column has to become one of any type.
    let typed = vec![
        Value::Integer(i64::MAX),
        Value::Integer(2),
        Value::Real(0.1),
        Value::Real(-5e-324),
        Value::Text("ä".into()),
        Value::Text("007".into()),
        Value::Blob(vec![1]),
        Value::Null,
        Value::Real(2.5),
    ];
    for _ in 0..5000 {
        let marks = vec!["?"; typed.len()].join(", ");
        before
            .execute(
                &format!("INSERT INTO t VALUES (NULL, {marks})"),
                rusqlite::params_from_iter(&typed),
            )
            .unwrap();
    }

    let batches = copy(dir.path()).await;
    assert_eq!(exact(&database(dir.path(), "out", "")), exact(&before));
    let types = |batch: &SourceBatch| {
        batch
            .batch
            .schema()
            .fields
            .iter()
            .map(|f| f.ty.to_string())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        types(&batches[0]).join(" "),
        "i64 any any any any text text any any any"
    );
    let last = batches.last().unwrap();
    assert_eq!(types(last).join(" "), "i64 i64 i64 f64 f64 text text bytes any any");
    assert!(batches.iter().all(|batch| batch.undecodable.is_empty()));
}

#[tokio::test(start_paused = true)]
async fn a_key_and_not_null_travel_with_the_schema() {
    let dir = tempfile::tempdir().unwrap();
    let sql = "CREATE TABLE t (a TEXT NOT NULL, b INTEGER, c, d INT GENERATED ALWAYS AS (b + 1), PRIMARY KEY (b, a));
               INSERT INTO t (a, b, c) VALUES ('x', 1, NULL), ('y', 1, 2)";
    database(dir.path(), "db", sql);
    let batches = copy(dir.path()).await;
    let fields: Vec<String> = batches[0]
        .batch
        .schema()
        .fields
        .iter()
        .map(|f| format!("{f:?}"))
        .collect();
    assert_eq!(
        fields,
        [
            r#"Field { name: "a", ty: Text, nullable: false, key: true }"#,
            r#"Field { name: "b", ty: I64, nullable: true, key: true }"#,
            r#"Field { name: "c", ty: Any, nullable: true, key: false }"#,
            r#"Field { name: "d", ty: I64, nullable: true, key: false }"#,
        ]
    );
    let out = database(dir.path(), "out", "");
    assert_eq!(
        super::literals(&out, "SELECT * FROM t ORDER BY a"),
        ["'x',1,NULL,2", "'y',1,2,2"]
    );
    let keys = super::literals(
        &out,
        "SELECT name, type, pk FROM pragma_table_info('t') WHERE pk > 0 ORDER BY pk",
    );
    assert_eq!(keys, ["'a','TEXT',1", "'b','INTEGER',2"]);
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<i64>().prop_map(Value::Integer),
        any::<u64>().prop_map(|bits| Value::Real(f64::from_bits(bits))),
        any::<i8>().prop_map(|v| Value::Real(f64::from(v) / 4.0)),
        "\\PC{0,20}".prop_map(Value::Text),
        " ?-?[0-9]{1,20}(\\.[0-9]{1,3})?(e[0-9])? ?".prop_map(Value::Text),
        proptest::collection::vec(any::<u8>(), 0..30).prop_map(Value::Blob),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn any_rows_are_copied_exactly(
        rows in proptest::collection::vec(proptest::collection::vec(value(), COLUMNS.len()), 1..40)
    ) {
        let dir = tempfile::tempdir().unwrap();
        let before = fill(dir.path(), &rows);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(copy(dir.path()));
        prop_assert_eq!(exact(&database(dir.path(), "out", "")), exact(&before));
    }
}
