//! Operations, refused rows, and tables that are not as the records are.

use bus_schema::{
    data::{
        Op::{self, Delete, Insert, Update, Upsert},
        Type, Value,
    },
    limits::COLUMNS_MAX,
};
use serde_json::json;
use testkit::NULL;

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
            &["duplicate key value", "Key (id)=(1)"],
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
                (6, "not-null constraint"),
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
    db.rows("INSERT INTO t SELECT n, 'old', 'whole' FROM generate_series(0, 2999) n");
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
        "CREATE TABLE t (id int PRIMARY KEY CHECK (id % 1000 <> 7), v text UNIQUE DEFERRABLE INITIALLY DEFERRED);
         CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN IF NEW.id = 4000 THEN RAISE EXCEPTION 'not this one'; END IF; RETURN NEW; END $$;
         CREATE TRIGGER no BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION no();",
    );
    let mut sink = db.sink(json!({})).await;
    let fields = schema(&[("id", Type::I64), ("v", Type::Text)]);
    let mut values: Vec<[Value; 2]> = (1..=5000)
        .map(|id| [Value::I64(id), Value::Text(format!("row {id}"))])
        .collect();
    values[99][1] = Value::Text("nul \0".into());
    values[199][1] = Value::Text("row 3".into());
    values[299][0] = Value::I64(1 << 33);
    values[4999][0] = Value::I64(1);
    let records: Vec<_> = values.iter().map(|row| (Insert, &row[..])).collect();
    let rejected = deliver(&mut *sink, rows(&fields, &records)).await;
    let found: Vec<(usize, bool)> = rejected
        .iter()
        .map(|r| {
            let reason = match r.row {
                99 => "no text with NUL",
                199 => "duplicate key value violates unique constraint \"t_v_key\"",
                299 => "not a whole number within the column's range",
                3999 => "not this one",
                4999 => "duplicate key value violates unique constraint \"t_pkey\"",
                _ => "violates check constraint",
            };
            (r.row, r.reason.contains(reason))
        })
        .collect();
    let wanted = [6, 99, 199, 299, 1006, 2006, 3006, 3999, 4006, 4999].map(|row| (row, true));
    assert_eq!(found, wanted, "{rejected:?}");
    assert_eq!(db.rows("SELECT count(*), count(DISTINCT v) FROM t"), ["4990|4990"]);
    let watermark = sink.watermark(&stream("s")).await.unwrap().unwrap();
    assert_eq!((watermark.delivered, watermark.counts.dead), (4990, 10));
}

#[tokio::test]
async fn columns_are_added_or_their_records_refused() {
    let db = Database::new("columns", "");
    let old = schema(&[("a", Type::I64)]);
    let long = "x".repeat(64);
    let new = schema(&[
        ("a", Type::I64),
        ("b\"x", Type::Text),
        ("A", Type::Uuid),
        (&long, Type::I64),
    ]);
    for (add, wanted, refused) in [
        (
            true,
            vec![
                format!("1|{NULL}|{NULL}"),
                format!("2|x|{NULL}"),
                format!("4|{NULL}|{NULL}"),
            ],
            vec![1],
        ),
        (false, vec!["1".into(), "4".into()], vec![0, 1]),
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
async fn a_table_may_be_as_wide_as_a_record() {
    let db = Database::new("wide", "");
    let names: Vec<String> = (0..COLUMNS_MAX).map(|n| format!("c{n}")).collect();
    let fields: Vec<(&str, Type)> = names.iter().map(|name| (name.as_str(), Type::I64)).collect();
    let fields = schema(&fields);
    // Every second column is NULL: PostgreSQL keeps a row of numbers within a page of 8 KiB.
    let value = |n: usize| {
        if n == 0 || n % 2 == 1 {
            Value::I64(n as i64)
        } else {
            Value::Null
        }
    };
    let values: Vec<Value> = (0..COLUMNS_MAX).map(value).collect();
    for mode in ["insert", "upsert"] {
        let mut sink = db.sink(json!({"mode": mode, "key": ["c0"], "table": mode})).await;
        assert_eq!(deliver(&mut *sink, rows(&fields, &[(Insert, &values)])).await, []);
        assert_eq!(db.rows(&format!("SELECT c0, c1023 FROM \"{mode}\"")), ["0|1023"]);
    }
}

#[tokio::test]
async fn strange_names_are_only_names() {
    let db = Database::new("strange", "CREATE SCHEMA \"My\"\"; DROP SCHEMA public; --\"");
    let mut sink = db
        .sink(json!({"schema": "My\"; DROP SCHEMA public; --", "table": "tä\"; --", "mode": "upsert"}))
        .await;
    let fields = schema(&[
        ("*select", Type::Text),
        ("*$1", Type::Text),
        ("c0", Type::Text),
        ("n", Type::I64),
    ]);
    let text = |text: &str| Value::Text(text.into());
    for n in [1, 2] {
        let record: Records<'_> = &[(Insert, &[text("k"), text("l"), text("m"), Value::I64(n)])];
        assert_eq!(deliver(&mut *sink, rows(&fields, record)).await, []);
    }
    assert_eq!(
        db.rows("SELECT * FROM \"My\"\"; DROP SCHEMA public; --\".\"tä\"\"; --\""),
        ["k|l|m|2"]
    );
}

#[tokio::test]
async fn a_big_batch_and_big_values_arrive() {
    let db = Database::new("big", "");
    let mut sink = db.sink(json!({})).await;
    assert_eq!(deliver(&mut *sink, inserts(0..65_536)).await, []);
    let fields = schema(&[("*id", Type::I64), ("v", Type::Text)]);
    let big: Records<'_> = &[(Insert, &[Value::I64(-1), Value::Text("x".repeat(4_000_000))])];
    assert_eq!(deliver(&mut *sink, rows(&fields, big)).await, []);
    assert_eq!(db.rows("SELECT count(*), max(length(v)) FROM t"), ["65537|4000000"]);
    // Many deliveries in one go.
    let many: Vec<_> = (3..43)
        .map(|seq| delivery(seq, inserts(seq as i64 * 100_000..seq as i64 * 100_000 + 100)))
        .collect();
    assert_eq!(sink.write(&many).await.unwrap(), []);
    sink.commit().await.unwrap();
    assert_eq!(db.rows("SELECT count(*) FROM t"), ["69537"]);
    assert_eq!(sink.watermark(&stream("s")).await.unwrap().unwrap().delivered, 69_537);
}
