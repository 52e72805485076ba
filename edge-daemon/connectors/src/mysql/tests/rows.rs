//! Operations, refused rows, and tables that are not as the records are.

use bus_schema::data::{
    Op::{self, Delete, Insert, Update, Upsert},
    Type, Value,
};
use mysql_async::{Conn, prelude::Queryable};
use serde_json::json;

const NULL: &str = "NULL";

use super::{Database, deliver, delivery, inserts, rows, schema, stream};

type Records<'a> = &'a [(Op, &'a [Value])];

#[tokio::test]
async fn operations_change_the_rows_they_name() {
    use Value::{I64, Missing, Null, Unchanged};
    let text = |text: &str| Value::Text(text.into());
    let db = Database::new("operations", "");
    let fields = schema(&[("*id", Type::I64), ("a", Type::Text), ("b", Type::I64)]);
    let start: Records<'_> = &[
        (Insert, &[I64(1), text("x"), I64(10)]),
        (Insert, &[I64(2), text("y"), I64(20)]),
    ];
    let three = format!("3|{NULL}|{NULL}");
    let one_z = format!("1|z|{NULL}");
    let three_z = format!("3|z|{NULL}");
    let (one_last, two_again) = (format!("1|last|{NULL}"), format!("2|again|{NULL}"));
    let cases: &[(&str, Records<'_>, &[&str], &[&str])] = &[
        (
            "insert",
            &[(Insert, &[I64(3), Null, Missing])],
            &["1|x|10", "2|y|20", &three],
            &[],
        ),
        (
            "insert",
            &[(Insert, &[I64(1), Null, Null])],
            &["1|x|10", "2|y|20"],
            &["Duplicate entry '1' for key 'PRIMARY'"],
        ),
        (
            "insert",
            &[(Update, &[I64(1), text("z"), Unchanged])],
            &["1|z|10", "2|y|20"],
            &[],
        ),
        (
            "insert",
            &[(Update, &[I64(1), Unchanged, Missing])],
            &["1|x|10", "2|y|20"],
            &[],
        ),
        (
            "insert",
            &[(Update, &[I64(9), text("z"), I64(0)])],
            &["1|x|10", "2|y|20"],
            &["no row with this key"],
        ),
        (
            "insert",
            &[(Upsert, &[I64(1), text("z"), Null])],
            &[&one_z, "2|y|20"],
            &[],
        ),
        ("insert", &[(Delete, &[I64(1), Missing, Missing])], &["2|y|20"], &[]),
        ("insert", &[(Delete, &[I64(9), Null, Null])], &["1|x|10", "2|y|20"], &[]),
        (
            "insert",
            &[(Delete, &[Null, Null, Null])],
            &["1|x|10", "2|y|20"],
            &["key column 'id' has no value"],
        ),
        (
            "insert",
            &[(Insert, &[Missing, Missing, Missing])],
            &["1|x|10", "2|y|20"],
            &["has a value for none"],
        ),
        (
            "upsert",
            &[(Insert, &[I64(1), Missing, I64(11)])],
            &["1|x|11", "2|y|20"],
            &[],
        ),
        (
            "upsert",
            &[(Update, &[I64(3), text("z"), Missing])],
            &["1|x|10", "2|y|20", &three_z],
            &[],
        ),
        (
            "upsert",
            &[(Update, &[I64(3), text("z"), Unchanged])],
            &["1|x|10", "2|y|20"],
            &["the value of 'b' is not known"],
        ),
        (
            "upsert",
            &[(Insert, &[I64(1), Missing, Unchanged])],
            &["1|x|10", "2|y|20"],
            &[],
        ),
        (
            "upsert",
            &[
                (Insert, &[I64(1), text("first"), Null]),
                (Delete, &[I64(2), Null, Null]),
                (Insert, &[I64(2), text("once"), Missing]),
                (Insert, &[I64(2), text("again"), Missing]),
                (Insert, &[I64(1), text("last"), Unchanged]),
            ],
            &[&one_last, &two_again],
            &[],
        ),
    ];
    for (index, (mode, records, wanted, reasons)) in cases.iter().enumerate() {
        let table = format!("t{index}");
        let mut sink = db.sink(json!({"mode": mode, "table": table})).await;
        assert_eq!(deliver(&mut *sink, rows(&fields, start)).await, []);
        let rejected = deliver(&mut *sink, rows(&fields, records)).await;
        assert_eq!(rejected.len(), reasons.len().min(1), "{records:?}: {rejected:?}");
        for reason in *reasons {
            assert!(rejected[0].reason.contains(reason), "{rejected:?}");
        }
        assert_eq!(
            db.rows(&format!("SELECT * FROM {table} ORDER BY id")),
            *wanted,
            "{mode} {records:?}"
        );
    }
}

#[tokio::test]
async fn a_record_that_is_not_whole_changes_the_row_that_is_there() {
    use Value::{I64, Missing, Unchanged};
    let text = |text: &str| Value::Text(text.into());
    let db = Database::new("not_whole", "");
    let fields = schema(&[("*id", Type::I64), ("v", Type::Text), ("doc", Type::Text)]);
    let before = ["1|a|one", "2|b|two"];
    // The other two are what a source says that does not know what the destination has.
    for (number, (mode, added, changed)) in [
        ("upsert", Insert, Update),
        ("upsert", Update, Insert),
        ("insert", Upsert, Upsert),
    ]
    .into_iter()
    .enumerate()
    {
        let table = format!("t{number}");
        db.rows(&format!(
            "CREATE TABLE {table} (id bigint PRIMARY KEY, v text, doc text NOT NULL);
             INSERT INTO {table} VALUES (1, 'a', 'one'), (2, 'b', 'two')"
        ));
        let mut sink = db.sink(json!({"mode": mode, "table": table})).await;
        let records: Records<'_> = &[
            (changed, &[I64(1), text("x"), Unchanged]),
            (changed, &[I64(9), text("x"), Unchanged]),
            (added, &[I64(3), text("c"), text("three")]),
            (changed, &[I64(3), text("cc"), Unchanged]),
            (changed, &[I64(3), text("ccc"), Unchanged]),
            (changed, &[I64(2), text("y"), Missing]),
            (changed, &[I64(8), text("y"), Missing]),
            (changed, &[I64(7), Unchanged, Missing]),
        ];
        for is_committed in [false, true] {
            let rejected = sink.write(&[delivery(1, rows(&fields, records))]).await.unwrap();
            for (refused, (row, reason)) in rejected.iter().zip([
                (1, "the value of 'doc' is not known"),
                (6, "doesn't have a default value"),
                (7, "the value of 'v' is not known"),
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
                assert_eq!(db.rows(&format!("SELECT * FROM {table} ORDER BY id")), before);
            }
        }
        let wanted = ["1|x|one", "2|y|two", "3|ccc|three"];
        assert_eq!(db.rows(&format!("SELECT * FROM {table} ORDER BY id")), wanted, "{mode}");
        let watermark = sink.watermark(&stream("s")).await.unwrap().unwrap();
        assert_eq!((watermark.delivered, watermark.counts.dead), (5, 3), "{mode}");
        sink.close().await;
        db.rows("DELETE FROM _mycelial_watermark");
    }
}

#[tokio::test]
async fn changes_of_thousands_of_rows_are_told_from_those_of_none() {
    let db = Database::new(
        "thousands",
        "CREATE TABLE t (id bigint PRIMARY KEY, v text, doc text NOT NULL)",
    );
    db.rows("INSERT INTO t SELECT seq, 'old', 'whole' FROM seq_0_to_2999");
    let mut sink = db.sink(json!({"mode": "upsert"})).await;
    let fields = schema(&[("*id", Type::I64), ("v", Type::Text), ("doc", Type::Text)]);
    let values: Vec<[Value; 3]> = (0..3000)
        .map(|id| match id % 1000 {
            7 => [Value::I64(-id), Value::Text("new".into()), Value::Unchanged],
            _ => [Value::I64(id), Value::Text("new".into()), Value::Unchanged],
        })
        .collect();
    let records: Vec<_> = values.iter().map(|row| (Update, &row[..])).collect();
    let rejected = deliver(&mut *sink, rows(&fields, &records)).await;
    let refused: Vec<_> = rejected.iter().map(|it| it.row).collect();
    assert_eq!(refused, [7, 1007, 2007]);
    assert_eq!(
        db.rows("SELECT count(*), sum(CASE WHEN v = 'new' THEN 1 ELSE 0 END), count(DISTINCT doc) FROM t"),
        ["3000|2997|1"]
    );
}

#[tokio::test]
async fn refused_rows_are_found_among_thousands() {
    let db = Database::new(
        "refused",
        "CREATE TABLE t (id int PRIMARY KEY CHECK (id % 1000 <> 7), v varchar(50) UNIQUE, w tinytext)",
    );
    // Not by the command line's client, which would cut the statement at its semicolons.
    let mut conn = Conn::from_url(&db.url).await.unwrap();
    let trigger = "CREATE TRIGGER no BEFORE INSERT ON t FOR EACH ROW \
                   IF NEW.id = 4000 THEN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'not this one'; END IF";
    conn.query_drop(trigger).await.unwrap();
    let mut sink = db.sink(json!({})).await;
    let fields = schema(&[("id", Type::I64), ("v", Type::Text), ("w", Type::Text)]);
    let mut values: Vec<[Value; 3]> = (1..=5000)
        .map(|id| [Value::I64(id), Value::Text(format!("row {id}")), Value::Null])
        .collect();
    values[99][1] = Value::Text("x".repeat(51));
    values[199][1] = Value::Text("row 3".into());
    values[299][0] = Value::I64(1 << 33);
    // The server itself would cut off these spaces, and only say so.
    values[399][2] = Value::Text(" ".repeat(256));
    values[4999][0] = Value::I64(1);
    let records: Vec<_> = values.iter().map(|row| (Insert, &row[..])).collect();
    let rejected = deliver(&mut *sink, rows(&fields, &records)).await;
    let found: Vec<(usize, bool)> = rejected
        .iter()
        .map(|r| {
            let reason = match r.row {
                99 => "longer than the 50 characters",
                199 => "Duplicate entry 'row 3' for key 'v'",
                299 => "not a whole number within the column's range",
                399 => "Data truncated for column 'w'",
                3999 => "not this one",
                4999 => "Duplicate entry '1' for key 'PRIMARY'",
                _ => "CONSTRAINT",
            };
            (r.row, r.reason.contains(reason))
        })
        .collect();
    let wanted = [6, 99, 199, 299, 399, 1006, 2006, 3006, 3999, 4006, 4999].map(|row| (row, true));
    assert_eq!(found, wanted, "{rejected:?}");
    assert_eq!(db.rows("SELECT count(*), count(DISTINCT v) FROM t"), ["4989|4989"]);
    let watermark = sink.watermark(&stream("s")).await.unwrap().unwrap();
    assert_eq!((watermark.delivered, watermark.counts.dead), (4989, 11));
}

#[tokio::test]
async fn columns_are_added_or_their_records_refused() {
    let db = Database::new("columns", "");
    let old = schema(&[("a", Type::I64)]);
    let long = "x".repeat(65);
    let new = schema(&[
        ("a", Type::I64),
        ("b`x", Type::Text),
        ("A", Type::Uuid),
        (&long, Type::I64),
    ]);
    for (add, wanted, refused) in [
        (true, vec!["1|NULL", "2|x", "4|NULL"], vec![1, 3]),
        (false, vec!["1", "4"], vec![0, 1, 3]),
    ] {
        let table = format!("t_{add}");
        let mut sink = db.sink(json!({"add_columns": add, "table": table})).await;
        deliver(&mut *sink, rows(&old, &[(Insert, &[Value::I64(1)])])).await;
        let records: Records<'_> = &[
            (
                Insert,
                &[Value::I64(2), Value::Text("x".into()), Value::Missing, Value::Missing],
            ),
            (Insert, &[Value::I64(3), Value::Missing, Value::Missing, Value::I64(1)]),
            (Insert, &[Value::I64(4), Value::Missing, Value::Missing, Value::Missing]),
            (
                Insert,
                &[Value::I64(5), Value::Missing, Value::Uuid([1; 16]), Value::Missing],
            ),
        ];
        let rejected = deliver(&mut *sink, rows(&new, records)).await;
        assert_eq!(
            rejected.iter().map(|r| r.row).collect::<Vec<_>>(),
            refused,
            "{rejected:?}"
        );
        assert_eq!(db.rows(&format!("SELECT * FROM {table} ORDER BY 1")), wanted);
    }
}

#[tokio::test]
async fn a_table_that_changed_under_us_is_looked_at_again() {
    let db = Database::new("drift", "");
    let mut sink = db.sink(json!({})).await;
    assert_eq!(deliver(&mut *sink, inserts(0..2)).await, []);
    db.rows("ALTER TABLE t DROP COLUMN v");
    let fault = sink.write(&[delivery(2, inserts(2..4))]).await.unwrap_err();
    assert!(fault.to_string().contains("Unknown column 'v'"), "{fault}");
    // The runner opens again after a fault.
    sink.open().await.unwrap();
    assert_eq!(deliver(&mut *sink, inserts(2..4)).await, []);
    assert_eq!(
        db.rows("SELECT * FROM t ORDER BY id"),
        ["0|NULL", "1|NULL", "2|row 2", "3|row 3"]
    );
}

#[tokio::test]
async fn strange_names_are_only_names() {
    let db = Database::new("strange", "");
    let mut sink = db.sink(json!({"table": "tä`; DROP TABLE `x", "mode": "upsert"})).await;
    let fields = schema(&[
        ("*select", Type::Text),
        ("*?", Type::Text),
        ("c'0\\", Type::Text),
        ("n", Type::I64),
    ]);
    let text = |text: &str| Value::Text(text.into());
    for n in [1, 2] {
        let record: Records<'_> = &[(Insert, &[text("k"), text("l"), text("m"), Value::I64(n)])];
        assert_eq!(deliver(&mut *sink, rows(&fields, record)).await, []);
    }
    assert_eq!(db.rows("SELECT * FROM `tä``; DROP TABLE ``x`"), ["k|l|m|2"]);
}

#[tokio::test]
async fn keys_are_told_apart_to_the_last_space() {
    let db = Database::new("keys", "");
    let mut sink = db.sink(json!({"mode": "upsert"})).await;
    let fields = schema(&[("*k", Type::Text), ("n", Type::I64)]);
    let keys = ["a", "A", "a ", "ä", "a\u{308}", ""];
    let values: Vec<[Value; 2]> = keys
        .iter()
        .enumerate()
        .map(|(n, key)| [Value::Text((*key).into()), Value::I64(n as i64)])
        .collect();
    let records: Vec<_> = values.iter().map(|row| (Insert, &row[..])).collect();
    assert_eq!(deliver(&mut *sink, rows(&fields, &records)).await, []);
    assert_eq!(db.rows("SELECT n FROM t ORDER BY n"), ["0", "1", "2", "3", "4", "5"]);
    let longer = [Value::Text("x".repeat(256)), Value::I64(9)];
    let rejected = deliver(&mut *sink, rows(&fields, &[(Insert, &longer)])).await;
    assert!(
        rejected[0].reason.contains("longer than the 255 characters"),
        "{rejected:?}"
    );
}

#[tokio::test]
async fn upserts_need_to_know_the_row_they_change() {
    let db = Database::new(
        "unique_keys",
        "CREATE TABLE none (id bigint, v text);
         CREATE TABLE other (id bigint PRIMARY KEY, v varchar(50) UNIQUE);
         CREATE TABLE prefix (id bigint, v text, UNIQUE (id), UNIQUE (v(3)));
         CREATE TABLE counted (n bigint AUTO_INCREMENT PRIMARY KEY, id bigint UNIQUE, v text)",
    );
    for (table, reason) in [
        ("none", "needs a unique index on exactly (`id`)"),
        ("other", "the unique index v of table other"),
        ("prefix", "the unique index v of table prefix"),
    ] {
        let mut sink = db.sink(json!({"mode": "upsert", "table": table})).await;
        let fault = sink.write(&[delivery(1, inserts(0..1))]).await.unwrap_err();
        assert!(fault.to_string().contains(reason), "{table}: {fault}");
    }
    let mut sink = db.sink(json!({"mode": "upsert", "table": "counted"})).await;
    for _ in 0..2 {
        assert_eq!(deliver(&mut *sink, inserts(1..3)).await, []);
    }
    assert_eq!(db.rows("SELECT id, v FROM counted ORDER BY id"), ["1|row 1", "2|row 2"]);
}

#[tokio::test]
async fn a_big_batch_and_big_values_arrive_within_what_the_server_takes() {
    let server = std::sync::Arc::new(testkit::Mariadb::builder().config("max_allowed_packet", "1M").start());
    let db = Database::on(&server, "big", "");
    let mut sink = db.sink(json!({})).await;
    assert_eq!(deliver(&mut *sink, inserts(0..65_536)).await, []);
    let fields = schema(&[("*id", Type::I64), ("v", Type::Text)]);
    let sizes = [700_000, 1_000_000, 1_100_000, 600_000];
    let values: Vec<[Value; 2]> = sizes
        .iter()
        .map(|size| [Value::I64(-(*size as i64)), Value::Text("x".repeat(*size))])
        .collect();
    let records: Vec<_> = values.iter().map(|row| (Insert, &row[..])).collect();
    let rejected = deliver(&mut *sink, rows(&fields, &records)).await;
    assert_eq!(rejected.iter().map(|r| r.row).collect::<Vec<_>>(), [2]);
    assert!(rejected[0].reason.contains("max_allowed_packet"), "{rejected:?}");
    assert_eq!(db.rows("SELECT count(*), max(length(v)) FROM t"), ["65539|1000000"]);
    // Many deliveries in one go.
    let many: Vec<_> = (3..43)
        .map(|seq| delivery(seq, inserts(seq as i64 * 100_000..seq as i64 * 100_000 + 100)))
        .collect();
    assert_eq!(sink.write(&many).await.unwrap(), []);
    sink.commit().await.unwrap();
    assert_eq!(db.rows("SELECT count(*) FROM t"), ["69539"]);
}
