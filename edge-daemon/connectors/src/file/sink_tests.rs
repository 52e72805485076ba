//! The file destination against real files: what it writes, exactly once over crashes, rotation, files of others; and
//! that the source reads back what it wrote.

use std::{fs, path::Path};

use bus_schema::data::{Batch, BatchBuilder, Cell, Field, Op, Origin, Schema, Type, Value};
use flow::Sink;
use proptest::prelude::*;

use super::{
    SINK, SOURCE,
    testing::{Harvest, delivery, refused, sink, source, stream},
};

fn batch(columns: &[&str], rows: &[&[Value]]) -> Batch {
    let fields = columns.iter().map(|name| Field::new(*name, Type::Any)).collect();
    let mut builder = BatchBuilder::new(
        Schema {
            collection: "t".into(),
            fields,
        }
        .into(),
    );
    for row in rows {
        builder
            .push(Op::Insert, &row.iter().map(Value::as_cell).collect::<Vec<_>>())
            .unwrap();
    }
    builder.finish(Origin::default())
}

fn numbers(range: std::ops::Range<i64>) -> Batch {
    let rows: Vec<[Value; 1]> = range.map(|n| [Value::I64(n)]).collect();
    batch(&["n"], &rows.iter().map(|row| &row[..]).collect::<Vec<_>>())
}

fn read(dir: &Path, name: &str) -> String {
    fs::read_to_string(dir.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The data files in a directory: what is committed and not a ledger.
fn files(dir: &Path) -> Vec<String> {
    let names = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| !name.contains(".mycelial")).collect();
    names.sort();
    names
}

async fn put(sink: &mut dyn Sink, seq: u64, batch: Batch) {
    assert_eq!(sink.write(&[delivery("a", seq, batch)]).await.unwrap(), []);
    sink.commit().await.unwrap();
}

async fn seq(sink: &mut dyn Sink, lineage: &str) -> u64 {
    sink.watermark(&stream(lineage))
        .await
        .unwrap()
        .map_or(0, |mark| mark.seq)
}

#[tokio::test]
async fn what_is_not_committed_is_undone() {
    let dir = tempfile::tempdir().unwrap();
    let mut out = sink(&SINK, r#"{"path": "out", "format": "json_lines"}"#, dir.path());
    out.open().await.unwrap();
    assert!(out.watermark(&stream("a")).await.unwrap().is_none());
    // Not even the file is there before the first commit.
    out.write(&[delivery("a", 1, numbers(0..2))]).await.unwrap();
    assert_eq!(files(dir.path()), [""; 0]);
    out.close().await;
    out.open().await.unwrap();
    put(out.as_mut(), 1, numbers(0..2)).await;
    // Torn: written, never committed; and more bytes than were written.
    out.write(&[delivery("a", 2, numbers(2..4)), delivery("b", 1, numbers(7..8))])
        .await
        .unwrap();
    assert_eq!((seq(out.as_mut(), "a").await, seq(out.as_mut(), "b").await), (1, 0));
    out.close().await;
    let torn = read(dir.path(), "out") + "{\"n\":";
    fs::write(dir.path().join("out"), torn).unwrap();
    let mut out = sink(&SINK, r#"{"path": "out", "format": "json_lines"}"#, dir.path());
    out.open().await.unwrap();
    assert_eq!(
        (seq(out.as_mut(), "a").await, read(dir.path(), "out").as_str()),
        (1, "{\"n\":0}\n{\"n\":1}\n")
    );
    let mark = out.watermark(&stream("a")).await.unwrap().unwrap();
    assert_eq!(
        (mark.delivered, mark.counts.dead, mark.position.as_bytes()),
        (2, 0, &1u64.to_be_bytes()[..])
    );
    out.write(&[delivery("a", 2, numbers(2..3)), delivery("b", 5, numbers(7..8))])
        .await
        .unwrap();
    out.commit().await.unwrap();
    assert_eq!((seq(out.as_mut(), "a").await, seq(out.as_mut(), "b").await), (2, 5));
    assert_eq!(read(dir.path(), "out"), "{\"n\":0}\n{\"n\":1}\n{\"n\":2}\n{\"n\":7}\n");
    // Nobody else may write the same file.
    let mut other = sink(&SINK, r#"{"path": "out", "format": "json_lines"}"#, dir.path());
    assert!(
        other
            .open()
            .await
            .unwrap_err()
            .to_string()
            .contains("another destination is writing this file")
    );
}

#[tokio::test]
async fn rows_that_cannot_be_written_are_rejected() {
    let dir = tempfile::tempdir().unwrap();
    let mut out = sink(&SINK, r#"{"path": "out", "format": "json_lines"}"#, dir.path());
    out.open().await.unwrap();
    let bad = batch(
        &["n"],
        &[&[Value::I64(1)], &[Value::Json("{".into())], &[Value::F64(f64::NAN)]],
    );
    let rejected = out
        .write(&[delivery("a", 1, numbers(0..1)), delivery("a", 2, bad)])
        .await
        .unwrap();
    assert_eq!(
        rejected.iter().map(|r| (r.delivery, r.row)).collect::<Vec<_>>(),
        [(1, 1)]
    );
    assert!(
        rejected[0].reason.starts_with("column 'n' is not JSON"),
        "{}",
        rejected[0].reason
    );
    out.commit().await.unwrap();
    assert_eq!(read(dir.path(), "out"), "{\"n\":0}\n{\"n\":1}\n{\"n\":\"NaN\"}\n");
    let mark = out.watermark(&stream("a")).await.unwrap().unwrap();
    assert_eq!((mark.delivered, mark.counts.dead), (3, 1));
}

#[tokio::test]
async fn rotation_by_size() {
    let dir = tempfile::tempdir().unwrap();
    let config = r#"{"path": "out.csv", "format": "csv", "rotate": {"max_bytes": 4096}}"#;
    let mut out = sink(&SINK, config, dir.path());
    out.open().await.unwrap();
    for seq in 0..5 {
        put(
            out.as_mut(),
            seq + 1,
            numbers(seq as i64 * 1000..(seq as i64 + 1) * 1000),
        )
        .await;
        if seq == 2 {
            out.close().await;
            out.open().await.unwrap();
        }
    }
    put(out.as_mut(), 6, numbers(5000..5001)).await;
    assert_eq!(
        files(dir.path()),
        [
            "out-000001.csv",
            "out-000002.csv",
            "out-000003.csv",
            "out-000004.csv",
            "out.csv"
        ]
    );
    let mut found = Vec::new();
    for name in files(dir.path()) {
        let text = read(dir.path(), &name);
        let (header, rest) = text.split_once('\n').unwrap();
        assert_eq!(header, "n");
        found.extend(rest.lines().map(|line| line.parse::<i64>().unwrap()));
    }
    assert_eq!(found, (0..5001).collect::<Vec<_>>());
}

#[tokio::test]
async fn rotation_by_age() {
    let dir = tempfile::tempdir().unwrap();
    let mut out = sink(
        &SINK,
        r#"{"path": "out", "format": "json_lines", "rotate": {"max_age_s": 1}}"#,
        dir.path(),
    );
    out.open().await.unwrap();
    put(out.as_mut(), 1, numbers(0..1)).await;
    assert_eq!(files(dir.path()), ["out"]);
    // The file's age is kept over a restart.
    out.close().await;
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    out.open().await.unwrap();
    put(out.as_mut(), 2, numbers(1..2)).await;
    assert_eq!(
        (files(dir.path()), read(dir.path(), "out-000001")),
        (vec!["out-000001".to_string()], "{\"n\":0}\n{\"n\":1}\n".to_string())
    );
    assert!(!out.is_due(), "there is no file");
    put(out.as_mut(), 3, numbers(2..3)).await;
    assert!(!out.is_due(), "it is young");
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    assert!(out.is_due());
    // Also after a restart, and without a record.
    out.close().await;
    assert!(!out.is_due());
    out.open().await.unwrap();
    assert!(out.is_due());
    out.commit().await.unwrap();
    assert_eq!(files(dir.path()), ["out-000001", "out-000002"]);
    assert_eq!(read(dir.path(), "out-000002"), "{\"n\":2}\n");
    assert!(!out.is_due());
    assert_eq!(seq(out.as_mut(), "a").await, 3);
}

#[tokio::test]
async fn csv_columns_change() {
    let (one, two, three) = (Value::I64(1), Value::I64(2), Value::I64(3));
    let first = || batch(&["a", "b"], &[&[one.clone(), two.clone()]]);
    let wider = || batch(&["b", "c"], &[&[two.clone(), three.clone()]]);
    let empty_c = || batch(&["c", "a"], &[&[Value::Missing, one.clone()]]);
    for (options, wanted, rejected) in [
        (
            r#""csv": {}"#,
            vec![("out-000001", "a,b\n1,2\n"), ("out", "a,b,c\n,2,3\n1,2,\n1,,\n")],
            0,
        ),
        (
            r#""csv": {"header": false}"#,
            vec![("out-000001", "1,2\n"), ("out", ",2,3\n1,2,\n1,,\n")],
            0,
        ),
        (
            r#""csv": {"new_columns": "reject"}"#,
            vec![("out", "a,b\n1,2\n1,2\n1,\n")],
            1,
        ),
        (
            r#""csv": {"columns": ["c", "b", "a"], "delimiter": ";"}"#,
            vec![("out", "c;b;a\n;2;1\n3;2;\n;2;1\n;;1\n")],
            0,
        ),
        (
            r#""op_column": "op""#,
            vec![
                ("out-000001", "a,b,op\n1,2,insert\n"),
                ("out", "a,b,op,c\n,2,insert,3\n1,2,insert,\n1,,insert,\n"),
            ],
            0,
        ),
    ] {
        // In one commit, and with a restart after each.
        for apart in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let mut out = sink(
                &SINK,
                &format!(r#"{{"path": "out", "format": "csv", {options}}}"#),
                dir.path(),
            );
            out.open().await.unwrap();
            let mut refused = 0;
            for (seq, batch) in [first(), wider(), first(), empty_c()].into_iter().enumerate() {
                refused += out.write(&[delivery("a", seq as u64 + 1, batch)]).await.unwrap().len();
                if apart {
                    out.commit().await.unwrap();
                    out.close().await;
                    out.open().await.unwrap();
                }
            }
            out.commit().await.unwrap();
            let mut names: Vec<&str> = wanted.iter().map(|(name, _)| *name).collect();
            names.sort_unstable();
            assert_eq!(
                (files(dir.path()), refused),
                (names.iter().map(ToString::to_string).collect(), rejected),
                "{options}"
            );
            for (name, text) in &wanted {
                assert_eq!(read(dir.path(), name), *text, "{options}, {name}, apart {apart}");
            }
        }
    }
}

#[tokio::test]
async fn files_of_others() {
    for (format, before, after) in [
        ("json_lines", "their line\n", "their line\n{\"n\":1}\n"),
        ("json_lines", "no end", "no end\n{\"n\":1}\n"),
        ("csv", "", "n\n1\n"),
        ("csv", "m,n\n5,6\n", "m,n\n5,6\n,1\n"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("out"), before).unwrap();
        let mut out = sink(
            &SINK,
            &format!(r#"{{"path": "out", "format": "{format}"}}"#),
            dir.path(),
        );
        out.open().await.unwrap();
        // A crash before the first commit leaves their bytes alone.
        out.write(&[delivery("a", 1, numbers(8..9))]).await.unwrap();
        out.close().await;
        out.open().await.unwrap();
        put(out.as_mut(), 1, numbers(1..2)).await;
        assert_eq!(read(dir.path(), "out"), after);
    }
    // Somebody renames our file: the next records go to a new one.
    let dir = tempfile::tempdir().unwrap();
    let mut out = sink(&SINK, r#"{"path": "out", "format": "json_lines"}"#, dir.path());
    out.open().await.unwrap();
    put(out.as_mut(), 1, numbers(1..2)).await;
    fs::rename(dir.path().join("out"), dir.path().join("theirs")).unwrap();
    put(out.as_mut(), 2, numbers(2..3)).await;
    put(out.as_mut(), 3, numbers(3..4)).await;
    assert_eq!(
        (read(dir.path(), "theirs"), read(dir.path(), "out")),
        ("{\"n\":1}\n{\"n\":2}\n".into(), "{\"n\":3}\n".into())
    );
    // Somebody replaces it while we are away: theirs is kept, and ours goes on with what is not committed.
    out.close().await;
    fs::write(dir.path().join("out"), "short\n").unwrap();
    out.open().await.unwrap();
    assert_eq!(seq(out.as_mut(), "a").await, 3);
    put(out.as_mut(), 4, numbers(4..5)).await;
    assert_eq!(read(dir.path(), "out"), "short\n{\"n\":4}\n");
}

#[tokio::test]
async fn mistakes_are_named() {
    for (config, wanted) in [
        (r#"{"format": "csv"}"#, "missing field `path`"),
        (r#"{"path": "x", "format": "lines"}"#, "format: unknown variant `lines`"),
        (r#"{"path": "/", "format": "csv"}"#, "path: name the file"),
        (r#"{"path": "x", "format": "json_lines", "csv": {}}"#, "csv: only for"),
        (
            r#"{"path": "x", "format": "csv", "csv": {"columns": []}}"#,
            "csv.columns: name at least one",
        ),
        (
            r#"{"path": "x", "format": "csv", "csv": {"columns": ["a", "a"]}}"#,
            "csv.columns: 'a' stands here twice",
        ),
        (
            r#"{"path": "x", "format": "csv", "csv": {"delimiter": ""}}"#,
            "csv.delimiter: ",
        ),
        (
            r#"{"path": "x", "format": "csv", "rotate": {"max_bytes": 1}}"#,
            "rotate.max_bytes: at least 4096",
        ),
        (
            r#"{"path": "x", "format": "csv", "rotate": {"max_age_s": 0}}"#,
            "rotate.max_age_s: at least 1",
        ),
        (
            r#"{"path": "x", "format": "csv", "op_column": ""}"#,
            "op_column: the name is empty",
        ),
    ] {
        refused(&SINK, config, wanted);
    }
    let dir = tempfile::tempdir().unwrap();
    let mut out = sink(&SINK, r#"{"path": "none/out", "format": "csv"}"#, dir.path());
    let fault = out.open().await.unwrap_err();
    assert!(
        matches!(fault, flow::Fault::Retry { .. }) && fault.to_string().contains("none/out"),
        "{fault}"
    );
    fs::write(dir.path().join("out.mycelial"), "my notes\n").unwrap();
    let mut out = sink(&SINK, r#"{"path": "out", "format": "csv"}"#, dir.path());
    let fault = out.open().await.unwrap_err();
    assert!(
        matches!(fault, flow::Fault::Stop { .. }) && fault.to_string().contains("out.mycelial"),
        "{fault}"
    );
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::I64),
        ((i64::MAX as u64 + 1)..).prop_map(Value::U64),
        any::<f64>()
            .prop_filter("JSON has no infinities", |v| v.is_finite())
            .prop_map(Value::F64),
        any::<String>().prop_map(Value::Text),
        ".{0,6}[\",;\r\n]{1,3}.{0,3}".prop_map(Value::Text),
        Just(Value::Json("{\"a\": [1, \"x\"]}".into())),
    ]
}

/// Integers of both kinds are one: in a column without negative ones they come back as `u64`.
fn plain(value: Value) -> Value {
    match value {
        Value::I64(v) => Value::Decimal(v.into(), 0),
        Value::U64(v) => Value::Decimal(v.into(), 0),
        value => value,
    }
}

fn table() -> impl Strategy<Value = Vec<[Value; 3]>> {
    prop::collection::vec([value(), value(), value()], 1..12)
}

async fn round_trip(format: &str, options: &str, batches: &[Batch]) -> Harvest {
    let dir = tempfile::tempdir().unwrap();
    let mut out = sink(
        &SINK,
        &format!(r#"{{"path": "out", "format": "{format}"}}"#),
        dir.path(),
    );
    out.open().await.unwrap();
    for (seq, batch) in batches.iter().enumerate() {
        put(out.as_mut(), seq as u64 + 1, batch.clone()).await;
    }
    let config = format!(r#"{{"path": "out", "mode": "once", "format": "{format}", {options}}}"#);
    let mut input = source(&SOURCE, &config, dir.path());
    input.open(None).await.unwrap();
    Harvest::of(input.as_mut()).await
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn json_lines_come_back_as_they_were(rows in table()) {
        let sent = batch(&["a", "b c", "é\""], &rows.iter().map(|row| &row[..]).collect::<Vec<_>>());
        let back = block_on(round_trip("json_lines", "\"origin_columns\": false", std::slice::from_ref(&sent)));
        prop_assert_eq!(back.reasons(), "");
        let cells: Vec<Value> = back.batches.iter().flat_map(|batch| (0..batch.rows()).flat_map(move |row| (0..3).map(move |column| plain(batch.cell(row, column).to_value())))).collect();
        let wanted: Vec<Value> = rows.iter().flatten().cloned().map(plain).collect();
        prop_assert_eq!(format!("{:?}", cells), format!("{:?}", wanted));
    }

    #[test]
    fn csv_comes_back_as_it_was(rows in prop::collection::vec((any::<Option<i64>>(), prop::option::of(".{0,4}[\",;\r\n ]{0,3}.{0,3}"), any::<Option<f64>>(), any::<i128>()), 1..12)) {
        let rows: Vec<[Value; 4]> = rows.into_iter().map(|(int, text, float, nanos)| [
            int.map_or(Value::Null, Value::I64),
            text.map_or(Value::Null, Value::Text),
            float.map_or(Value::Null, Value::F64),
            Value::TimestampUtc(nanos >> 40),
        ]).collect();
        let sent = batch(&["i", "t,\"", "f", "at"], &rows.iter().map(|row| &row[..]).collect::<Vec<_>>());
        let types = r#""types": {"i": "i64", "f": "f64", "at": "timestamp_utc"}"#;
        let back = block_on(round_trip("csv", types, std::slice::from_ref(&sent)));
        prop_assert_eq!(back.reasons(), "");
        let mut row = 0;
        for batch in &back.batches {
            for read in 0..batch.rows() {
                for (column, wanted) in rows[row].iter().enumerate() {
                    match (batch.cell(read, column), wanted) {
                        (Cell::F64(a), Value::F64(b)) => prop_assert!(a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan()),
                        (cell, wanted) => prop_assert_eq!(&cell.to_value(), wanted),
                    }
                }
                row += 1;
            }
        }
        prop_assert_eq!(row, rows.len());
    }

    /// Whatever is interrupted when: each number stands in the files once, in order.
    #[test]
    fn exactly_once_over_crashes(steps in prop::collection::vec(0..4u8, 1..30), csv: bool) {
        let dir = tempfile::tempdir().unwrap();
        let format = if csv { "csv" } else { "json_lines" };
        let config = format!(r#"{{"path": "out.x", "format": "{format}", "rotate": {{"max_bytes": 4096}}}}"#);
        block_on(async {
            let mut out = sink(&SINK, &config, dir.path());
            out.open().await.unwrap();
            let mut next = 1;
            for step in &steps {
                let n = next as i64;
                // A third of the batches bring a column of their own.
                let columns = if n % 3 == 0 { vec!["n".to_string(), format!("c{}", n % 9)] } else { vec!["n".to_string()] };
                let names: Vec<&str> = columns.iter().map(String::as_str).collect();
                let padding = Value::Text("x".repeat(300));
                let rows: Vec<Vec<Value>> = (n * 10..n * 10 + 10).map(|n| std::iter::once(Value::I64(n)).chain(names.iter().skip(1).map(|_| padding.clone())).collect()).collect();
                let batch = batch(&names, &rows.iter().map(|row| &row[..]).collect::<Vec<_>>());
                out.write(&[delivery("a", next, batch)]).await.unwrap();
                if *step > 0 {
                    out.commit().await.unwrap();
                    next += 1;
                }
                if *step < 2 {
                    // Killed: no close, a new process.
                    drop(out);
                    if *step == 0 && dir.path().join("out.x").exists() {
                        let mut torn = fs::read(dir.path().join("out.x")).unwrap();
                        torn.extend(b"torn");
                        fs::write(dir.path().join("out.x"), torn).unwrap();
                    }
                    out = sink(&SINK, &config, dir.path());
                    out.open().await.unwrap();
                    assert_eq!(seq(out.as_mut(), "a").await, next - 1);
                }
            }
            let mut found = Vec::new();
            for name in files(dir.path()) {
                for line in read(dir.path(), &name).lines() {
                    let number: String = line.trim_start_matches("{\"n\":").chars().take_while(char::is_ascii_digit).collect();
                    found.extend(number.parse::<i64>().ok());
                }
            }
            assert_eq!(found, (10..next as i64 * 10).collect::<Vec<_>>(), "{:?}", files(dir.path()));
        });
    }
}
