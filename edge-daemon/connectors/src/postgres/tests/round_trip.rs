//! What becomes of every type of PostgreSQL on its way through records into PostgreSQL and SQLite.

use std::sync::Arc;

use bus_schema::data::Batch;
use flow::{Build, BuildContext, Sink, Source};
use serde_json::json;
use testkit::Postgres;

use super::{
    Database, delivery,
    reading::{drain, source},
    replication::replica,
};
use crate::testing::next_batch;

/// Declared type, value as SQL, and what SQLite holds of it: storage class and value.
const MATRIX: &[(&str, &str, &str)] = &[
    ("boolean", "true", "integer 1"),
    ("smallint", "-32768", "integer -32768"),
    ("integer", "2147483647", "integer 2147483647"),
    ("bigint", "-9223372036854775808", "integer -9223372036854775808"),
    ("oid", "4294967295", "integer 4294967295"),
    ("real", "'0.1'", "real 0.10000000149011612"),
    ("real", "'-Infinity'", "real -Inf"),
    ("double precision", "'5e-324'", "real 4.9406564584124654e-324"),
    ("double precision", "'-0'", "real 0.0"),
    (
        "numeric(38,9)",
        "'-99999999999999999999999999999.999999999'",
        "text -99999999999999999999999999999.999999999",
    ),
    ("numeric(5,-2)", "'1234567'", "text 1234600"),
    ("numeric(10,2)", "'NaN'", "text NaN"),
    (
        "numeric(50,0)",
        "'99999999999999999999999999999999999999999999999999'",
        "text 99999999999999999999999999999999999999999999999999",
    ),
    (
        "numeric",
        "'0.0000000000000000000000000000000000000000000001'",
        "text 0.0000000000000000000000000000000000000000000001",
    ),
    ("numeric", "'12.3400'", "text 12.3400"),
    ("text", "E'gr\\u00fcn \\U0001F331 ''\"\\\\ \\t'", ""),
    ("text", "''", "text "),
    ("varchar(5)", "'a  '", "text a  "),
    ("char(5)", "'a'", "text a"),
    ("bytea", "'\\x00ff5c'", "blob 00FF5C"),
    ("bytea", "''", "blob "),
    ("date", "'4713-03-15 BC'", "text -4712-03-15"),
    ("date", "'5874897-12-31'", "text 5874897-12-31"),
    ("date", "'infinity'", "text infinity"),
    ("time", "'24:00:00'", "text 24:00:00"),
    ("time", "'23:59:59.000001'", "text 23:59:59.000001"),
    ("timetz", "'12:00:00+05:30'", "text 12:00:00+05:30"),
    (
        "timestamp",
        "'1969-12-31 23:59:59.999999'",
        "text 1969-12-31T23:59:59.999999",
    ),
    (
        "timestamptz",
        "'2024-03-31 02:30:00+05:30'",
        "text 2024-03-30T21:00:00Z",
    ),
    (
        "timestamptz",
        "'294276-12-31 23:59:59.999999+00'",
        "text 294276-12-31T23:59:59.999999Z",
    ),
    (
        "timestamptz",
        "'4713-01-01 00:00:00+00 BC'",
        "text -4712-01-01T00:00:00Z",
    ),
    ("timestamptz", "'-infinity'", "text -infinity"),
    (
        "interval",
        "'1 year 2 days -00:00:01.5'",
        "text 1 year 2 days -00:00:01.5",
    ),
    (
        "uuid",
        "'12345678-9abc-def0-0102-030405060708'",
        "text 12345678-9abc-def0-0102-030405060708",
    ),
    ("json", "'{\"a\":  1.50, \"a\": 2}'", "text {\"a\":  1.50, \"a\": 2}"),
    (
        "jsonb",
        "'{\"b\": [1, null], \"a\": 1.50}'",
        "text {\"a\": 1.50, \"b\": [1, null]}",
    ),
    ("integer[]", "'{1,NULL,-3}'", "text [1,null,-3]"),
    ("integer[]", "'{{1,2},{3,4}}'", "text {{1,2},{3,4}}"),
    ("integer[]", "'[0:1]={1,2}'", "text [0:1]={1,2}"),
    ("text[]", "ARRAY['a,\"b\"', 'NULL', '', NULL, E'\\\\']", ""),
    (
        "timestamptz[]",
        "'{2024-01-01 00:00:00+00}'",
        "text [\"2024-01-01T00:00:00Z\"]",
    ),
    ("bytea[]", "ARRAY['\\x00ff'::bytea]", "text [\"00ff\"]"),
    ("numeric[]", "'{1.50,NaN}'", ""),
    ("inet", "'10.0.0.1/8'", "text 10.0.0.1/8"),
    ("macaddr", "'08:00:2b:01:02:03'", "text 08:00:2b:01:02:03"),
    ("bit varying", "B'0101'", "text 0101"),
    ("point", "'(1,2.5)'", "text (1,2.5)"),
    ("int4range", "'[1,5)'", "text [1,5)"),
    ("tsvector", "'a fat cat'", "text 'a' 'cat' 'fat'"),
    ("xml", "'<a>b</a>'", "text <a>b</a>"),
    ("money", "'12.50'", "text $12.50"),
    ("mood", "'so, so'", "text so, so"),
    ("mood[]", "'{\"so, so\"}'", "text [\"so, so\"]"),
    ("small", "9", "integer 9"),
    ("pair", "ROW(1, 'two')", "text (1,two)"),
];

fn tables() -> (String, String) {
    let mut create = String::from(
        "CREATE TYPE mood AS ENUM ('ok', 'so, so'); CREATE DOMAIN small AS int CHECK (VALUE < 10); \
         CREATE TYPE pair AS (a int, b text); CREATE TABLE t (id int PRIMARY KEY",
    );
    let mut insert = String::from("INSERT INTO t VALUES (1");
    for (at, (declared, value, _)) in MATRIX.iter().enumerate() {
        create.push_str(&format!(", c{at} {declared}"));
        insert.push_str(&format!(", {value}"));
    }
    // A row of nulls, and one that makes columns of ordinary values of those that have some.
    (
        format!("{create})"),
        format!("{insert}); INSERT INTO t (id) VALUES (2)"),
    )
}

fn sqlite(dir: &std::path::Path) -> Box<dyn Sink> {
    let Build::Sink(build) = crate::sqlite::SINK.build else {
        panic!("not a sink")
    };
    let context = BuildContext {
        base_dir: dir.to_path_buf(),
        ..BuildContext::default()
    };
    build(&json!({"path": "out", "table": "t"}).to_string(), &context).unwrap()
}

/// Moves everything a source gives into PostgreSQL and SQLite, and compares what they have.
async fn compare(source: &mut dyn Source, from: &Database, to: &Database) {
    let dir = tempfile::tempdir().unwrap();
    let mut sinks = [to.sink(json!({})).await, sqlite(dir.path())];
    sinks[1].open().await.unwrap();
    for (seq, batch) in (1..).zip(drain(source).await) {
        assert_eq!(batch.undecodable, []);
        for sink in &mut sinks {
            let batch = Batch::decode(&batch.batch.encode()).unwrap();
            assert_eq!(sink.write(&[delivery(seq, batch)]).await.unwrap(), []);
            sink.commit().await.unwrap();
        }
    }
    let sqlite = rusqlite::Connection::open(dir.path().join("out")).unwrap();
    let mut failed = Vec::new();
    for (at, (declared, value, stored)) in MATRIX.iter().enumerate() {
        // The server's own text, so that nothing is lost in how it is shown.
        let sql = format!("SELECT c{at}::text FROM t ORDER BY id");
        let (before, after) = (from.rows(&sql), to.rows(&sql));
        if before != after {
            failed.push(format!("{declared} {value}: {before:?} became {after:?}"));
        }
        let sql = format!(
            "SELECT typeof(c{at}) || ' ' || CASE typeof(c{at}) WHEN 'blob' THEN hex(c{at}) ELSE c{at} END FROM t WHERE id = 1"
        );
        let found: String = sqlite.query_row(&sql, [], |row| row.get(0)).unwrap();
        if !stored.is_empty() && found != *stored {
            failed.push(format!("{declared} {value}: SQLite has {found}"));
        }
        let sql = format!("SELECT count(*) FROM t WHERE c{at} IS NULL");
        let nulls: i64 = sqlite.query_row(&sql, [], |row| row.get(0)).unwrap();
        assert_eq!(nulls, 1, "{declared}");
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[tokio::test]
async fn every_type_arrives_as_it_was() {
    let (create, insert) = tables();
    let from = Database::new("matrix_from", &format!("{create}; {insert}"));
    let to = Database::new("matrix_to", &create);
    let mut source = source(&from.url, json!({}));
    source.open(None).await.unwrap();
    compare(&mut *source, &from, &to).await;
}

#[tokio::test]
async fn every_type_arrives_as_it_was_by_replication() {
    let (create, insert) = tables();
    let server = Arc::new(Postgres::builder().config("wal_level", "logical").start());
    let from = Database::on(&server, "matrix_from", &create);
    let to = Database::on(&server, "matrix_to", &create);
    let mut source = replica(&from.url, json!({}));
    source.open(None).await.unwrap();
    // The snapshot is empty: every row is a change.
    assert_eq!(next_batch(&mut *source).await.batch.rows(), 0);
    from.rows(&insert);
    compare(&mut *source, &from, &to).await;
}
