//! Python code in its process: what it is given and gives back, and every way in which it can fail.

use std::{fs, path::Path, time::Duration};

use bus_schema::data::{Batch, Cell, Field, Op, Type, Value, Zone};
use flow::{Fault, Read, Transform, Transformed};

use super::{SINK, SOURCE, TRANSFORM};
use crate::file::testing::{Harvest, batch_of, delivery, refused, shown, sink, source, transform};

fn config(code: &str, more: &str) -> String {
    format!(r#"{{"code": {}{more}}}"#, serde_json::to_string(code).unwrap())
}

fn python(code: &str, more: &str, dir: &Path) -> Box<dyn Transform> {
    transform(&TRANSFORM, &config(code, more), dir)
}

async fn done(transform: &mut dyn Transform, batch: &Batch) -> Result<Transformed, Fault> {
    transform.outside().unwrap().apply(batch.clone()).await
}

fn schema(batch: &Batch) -> String {
    let fields = batch.schema().fields.iter();
    let shown = fields.map(|field| format!("{}{}:{}", field.name, if field.key { "!" } else { "" }, field.ty));
    shown.collect::<Vec<_>>().join(" ")
}

fn reasons(done: &Transformed) -> Vec<String> {
    let reason = |(row, reason): &(usize, String)| format!("{row}: {reason}");
    done.rejected.iter().map(reason).collect()
}

fn numbers(values: &[i64]) -> Batch {
    let rows: Vec<[Value; 1]> = values.iter().map(|v| [Value::I64(*v)]).collect();
    let rows: Vec<(Op, &[Value])> = rows.iter().map(|row| (Op::Insert, row.as_slice())).collect();
    batch_of(vec![Field::new("n", Type::I64)], &rows)
}

/// Values at the ends of every type, and none of them.
fn of_all_types() -> Batch {
    let decimal = |precision, scale| Type::Decimal { precision, scale };
    let nanos = 1_700_000_000_123_456_789;
    let columns: Vec<(&str, Type, Value)> = vec![
        ("b", Type::Bool, Value::Bool(true)),
        ("i", Type::I64, Value::I64(i64::MIN)),
        ("u", Type::U64, Value::U64(u64::MAX)),
        ("f32", Type::F32, Value::F32(0.1)),
        ("f64", Type::F64, Value::F64(0.1 + 0.2)),
        ("tiny", Type::F64, Value::F64(f64::from_bits(1))),
        ("zero", Type::F64, Value::F64(-0.0)),
        ("inf", Type::F64, Value::F64(f64::NEG_INFINITY)),
        (
            "d",
            decimal(38, 9),
            Value::Decimal(-99_999_999_999_999_999_999_999_999_999_999_999_999, 9),
        ),
        ("t", Type::Text, Value::Text("é \"quoted\"\n\u{1f600}\0".into())),
        ("y", Type::Bytes, Value::Bytes(vec![0, 255])),
        ("date", Type::Date, Value::Date(-719_162)),
        ("time", Type::Time, Value::Time(86_399_999_999_999)),
        ("naive", Type::Timestamp(Zone::Naive), Value::Timestamp(-1)),
        ("utc", Type::Timestamp(Zone::Utc), Value::TimestampUtc(nanos)),
        (
            "offset",
            Type::Timestamp(Zone::Offset),
            Value::TimestampOffset(nanos, -330),
        ),
        ("uuid", Type::Uuid, Value::Uuid([7; 16])),
        ("json", Type::Json, Value::Json("{\"a\" : 1.10}".into())),
        (
            "list",
            Type::List,
            Value::List(vec![Value::I64(1), Value::F64(0.1), Value::Date(3), Value::Null]),
        ),
        ("any", Type::Any, Value::F64(5.0)),
    ];
    let fields: Vec<Field> = columns
        .iter()
        .map(|(name, ty, _)| Field::new(*name, ty.clone()))
        .collect();
    let values: Vec<Value> = columns.into_iter().map(|(_, _, value)| value).collect();
    let nulls = vec![Value::Null; values.len()];
    let missing = vec![Value::Missing; values.len()];
    let mut few = vec![Value::Unchanged; values.len()];
    few[1] = Value::I64(5);
    let rows: [(Op, &[Value]); 4] = [
        (Op::Insert, &values),
        (Op::Upsert, &nulls),
        (Op::Update, &few),
        (Op::Delete, &missing),
    ];
    batch_of(fields, &rows)
}

#[tokio::test]
async fn what_is_passed_on_stays_what_it_is() {
    let dir = testkit::temp_dir("python");
    let mut input = of_all_types();
    // A record without any column cannot be one that goes on.
    input = input.take(&[0, 1, 2]);
    for code in [
        "def transform(record): return record",
        "def transform(record): return dict(record)",
        "import copy\ndef transform(record): return copy.copy(dict(reversed(list(record.items()))))",
    ] {
        let output = done(&mut *python(code, "", dir.path()), &input).await.unwrap();
        assert_eq!(reasons(&output), Vec::<String>::new(), "{code}");
        assert_eq!(output.batch, input, "{code}");
    }
    let nan = batch_of(
        vec![Field::new("a", Type::F32), Field::new("b", Type::F64)],
        &[(Op::Insert, &[Value::F32(f32::NAN), Value::F64(f64::NAN)])],
    );
    let mut same = python("def transform(record): return record", "", dir.path());
    let output = done(&mut *same, &nan).await.unwrap();
    assert!(matches!(output.batch.cell(0, 0), Cell::F32(v) if v.is_nan()));
    assert!(matches!(output.batch.cell(0, 1), Cell::F64(v) if v.is_nan()));
}

#[tokio::test]
async fn values_are_what_python_has_for_them() {
    let dir = testkit::temp_dir("python");
    let code = r#"
def transform(record):
    return {name: type(value).__name__ + " " + repr(value) for name, value in record.items()}
"#;
    let types = r#", "types": {"b":"text","i":"text","u":"text","f32":"text","f64":"text","tiny":"text","zero":"text","inf":"text",
        "d":"text","t":"text","y":"text","date":"text","time":"text","naive":"text","utc":"text","offset":"text","uuid":"text",
        "json":"text"}"#;
    let mut seen = python(code, types, dir.path());
    let input = of_all_types().take(&[0]);
    let output = done(&mut *seen, &input).await.unwrap();
    // A list column holds lists, whatever its values are now.
    assert_eq!(
        reasons(&output),
        [
            "0: column 'list' is no list: 'list [1, 0.1, datetime.date(1970, 1, 4), None]' (types gives a column another type)"
        ]
    );
    let code = code.replace("record.items()", "record.items() if name != 'list'");
    let output = done(&mut *python(&code, types, dir.path()), &input).await.unwrap();
    let batch = output.batch;
    let shown = |name: &str| batch.cell(0, batch.schema().index_of(name).unwrap()).to_string();
    assert_eq!(shown("i"), "int -9223372036854775808");
    assert_eq!(shown("u"), "int 18446744073709551615");
    assert_eq!(
        shown("d"),
        "Decimal Decimal('-99999999999999999999999999999.999999999')"
    );
    assert_eq!(shown("y"), "bytes b'\\x00\\xff'");
    assert_eq!(shown("date"), "date datetime.date(1, 1, 1)");
    assert_eq!(
        shown("naive"),
        "FineDateTime FineDateTime(1969, 12, 31, 23, 59, 59, 999999)"
    );
    assert!(shown("utc").ends_with("(2023, 11, 14, 22, 13, 20, 123456, tzinfo=datetime.timezone.utc)"));
    assert_eq!(shown("json"), "dict {'a': 1.1}");
    assert_eq!(shown("any"), "float 5.0");
    assert!(batch.schema().index_of("list").is_none(), "no record has it any more");
}

#[tokio::test]
async fn records_are_changed_left_out_and_refused() {
    let dir = testkit::temp_dir("python");
    let code = r#"
from decimal import Decimal
from datetime import datetime, timezone

count = 0

def transform(record):
    global count
    count += 1
    print("seen", count)
    n = record["n"]
    if n == 2:
        return None
    if n == 3:
        raise ValueError("three\nis bad")
    if n == 4:
        return 2**70
    if n == 5:
        record["n"] = 2**70
    if n == 6:
        record["n"] = n / 4
    if n == 7:
        record["new"] = {1, 2}
    if n == 8:
        record["text"] = "\ud800"
    if n == 9:
        record["price"] = Decimal("1.234")
    if n == 10:
        return {}
    if n == 11:
        return undefined
    record.setdefault("price", Decimal("1.5"))
    record["half"] = n / 2
    record["at"] = datetime(2024, 1, 1, tzinfo=timezone.utc)
    record["tags"] = ["a", 1]
    record["nested"] = {"a": [1]}
    return record
"#;
    let mut changing = python(code, r#", "types": {"price": "decimal(10,2)"}"#, dir.path());
    let input = numbers(&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
    let output = done(&mut *changing, &input).await.unwrap();
    assert_eq!(
        schema(&output.batch),
        "n:i64 price:decimal(10,2) half:f64 at:timestamp_utc tags:list nested:json"
    );
    assert_eq!(
        shown(&output.batch),
        "1|1.50|0.5|2024-01-01T00:00:00Z|[a,1]|{\"a\": [1]}\n12|1.50|6.0|2024-01-01T00:00:00Z|[a,1]|{\"a\": [1]}"
    );
    let fits_not = "(types gives a column another type)";
    let wanted = [
        "2: ValueError: three\nis bad (line 15)".to_string(),
        "3: a record is a dict, and this is a int".to_string(),
        "4: column 'n' is an integer beyond 64 bits: 1180591620717411303424".to_string(),
        format!("5: column 'n' is not a value of type i64: '1.5' {fits_not}"),
        "6: column 'new' is a set, which no column can hold".to_string(),
        "7: 'utf-8' codec can't encode".to_string(),
        format!("8: column 'price' is decimal(*,3) '1.234' and does not fit decimal(10,2) {fits_not}"),
        "9: it has no columns".to_string(),
        "10: NameError: name 'undefined' is not defined (line 31)".to_string(),
    ];
    let found = reasons(&output);
    assert_eq!(found.len(), wanted.len(), "{found:#?}");
    for (found, wanted) in found.iter().zip(&wanted) {
        assert!(found.starts_with(wanted), "{found:?} instead of {wanted:?}");
    }
    // The same process goes on, and new columns are as they were.
    let output = done(&mut *changing, &numbers(&[1])).await.unwrap();
    assert_eq!(output.batch.schema().fields.len(), 6);
}

#[tokio::test]
async fn what_a_record_does_and_its_key_stay() {
    let dir = testkit::temp_dir("python");
    let input = batch_of(
        vec![Field::new("id", Type::I64).key(), Field::new("v", Type::Text)],
        &[
            (Op::Delete, &[Value::I64(1), Value::Missing]),
            (Op::Update, &[Value::I64(2), Value::Unchanged]),
            (Op::Insert, &[Value::I64(3), Value::Null]),
        ],
    );
    let code = "def transform(record):\n    record['op'] = record.op + ' ' + record.collection\n    return record";
    let output = done(&mut *python(code, "", dir.path()), &input).await.unwrap();
    assert_eq!(schema(&output.batch), "id!:i64 v:text op:text");
    assert_eq!(shown(&output.batch), "1|?|delete t\n2|=|update t\n3|~|insert t");
    let ops: Vec<Op> = (0..3).map(|row| output.batch.op(row)).collect();
    assert_eq!(ops, [Op::Delete, Op::Update, Op::Insert]);
}

/// Does harm once, as long as the file `harm` is there, when it comes to 50.
fn harmful(harm: &str) -> String {
    format!(
        r#"
import os, signal, sys, time

def transform(record):
    if record["n"] == 50 and os.path.exists(HARM):
        os.remove(HARM)
        {harm}
    return record
"#
    )
}

#[tokio::test]
async fn whatever_ends_the_process_costs_no_record() {
    let dir = testkit::temp_dir("python");
    let file = dir.path().join("harm");
    let input = numbers(&(0..100).collect::<Vec<_>>());
    for harm in [
        "os.kill(os.getpid(), signal.SIGKILL)",
        "os._exit(3)",
        "sys.exit(3)",
        "os.close(3); os.closerange(3, 20)",
        "time.sleep(1000)",
        "bytearray(100 * 1024 * 1024)",
        "raise KeyboardInterrupt",
    ] {
        let code = harmful(harm).replace("HARM", &format!("{:?}", file.display().to_string()));
        fs::write(&file, "").unwrap();
        let mut code = python(&code, r#", "answer_ms_max": 3000, "memory_mib": 64"#, dir.path());
        let output = done(&mut *code, &input)
            .await
            .unwrap_or_else(|fault| panic!("{harm}: {fault}"));
        assert_eq!(output.batch, input, "{harm}");
        assert!(output.rejected.is_empty() && !file.exists(), "{harm}");
    }
}

#[tokio::test]
async fn what_does_not_heal_is_said() {
    let dir = testkit::temp_dir("python");
    let limits = r#", "answer_ms_max": 1000, "memory_mib": 64"#;
    for (code, wanted) in [
        (
            "import os\ndef transform(r): os.kill(os.getpid(), 9)",
            "it was killed by signal 9",
        ),
        ("import os\ndef transform(r): os._exit(3)", "it ended with code 3"),
        ("def transform(r): raise SystemExit(3)", "SystemExit: 3 (line 1)"),
        ("def transform(r):\n  while True: pass", "no answer for 1 seconds"),
        (
            "kept = []\ndef transform(r):\n  while True: kept.append(bytes(1000000))",
            "it needs more memory than it may have (memory_mib)",
        ),
        (
            "import nothing\ndef transform(r): pass",
            "No module named 'nothing' (line 1)",
        ),
    ] {
        let never = format!("{limits}, \"failures_max\": 0");
        let fault = done(&mut *python(code, &never, dir.path()), &numbers(&[1]))
            .await
            .unwrap_err();
        assert!(fault.to_string().contains(wanted), "{code}: {fault}");
        assert!(matches!(fault, Fault::Retry { .. }), "{code}: {fault}");
        // The record is to blame, unless the code does not even start.
        match done(&mut *python(code, limits, dir.path()), &numbers(&[1])).await {
            Ok(output) => {
                assert!(output.rejected[0].1.contains(wanted), "{code}: {:?}", output.rejected);
                assert!(!code.contains("import nothing"), "{code}");
            }
            Err(fault) => assert!(code.contains("import nothing"), "{code}: {fault}"),
        }
    }
    for (code, wanted) in [
        ("def transform(r): return r +", "SyntaxError: invalid syntax (line 1)"),
        ("def transfrom(r): return r", "it has no function `transform`"),
    ] {
        let fault = done(&mut *python(code, limits, dir.path()), &numbers(&[1]))
            .await
            .unwrap_err();
        assert!(fault.to_string().contains(wanted), "{code}: {fault}");
        assert!(matches!(fault, Fault::Stop { .. }), "{code}: {fault}");
    }
}

#[tokio::test]
async fn what_is_printed_is_no_answer() {
    let dir = testkit::temp_dir("python");
    let code = r#"
import os, subprocess, sys

def transform(record):
    print("{}", flush=True)
    sys.stdout.write("-\n")
    os.write(1, b"!\n" * 1000)
    subprocess.run(["sh", "-c", "cat; echo '{}'"], check=True)
    return record
"#;
    let input = numbers(&[1, 2, 3]);
    let output = done(&mut *python(code, "", dir.path()), &input).await.unwrap();
    assert_eq!(output.batch, input);
}

#[tokio::test]
async fn many_and_large_records_pass() {
    let dir = testkit::temp_dir("python");
    let mut same = python(
        "def transform(record): return record",
        r#", "memory_mib": 512"#,
        dir.path(),
    );
    let input = numbers(&(0..60_000).collect::<Vec<_>>());
    assert_eq!(done(&mut *same, &input).await.unwrap().batch, input);
    let large = Value::Text("é".repeat(4 * 1024 * 1024));
    let input = batch_of(vec![Field::new("t", Type::Text)], &[(Op::Insert, &[large])]);
    assert_eq!(done(&mut *same, &input).await.unwrap().batch, input);
    let grown = "def transform(record): return {'t': 'x' * 70_000_000}";
    let output = done(
        &mut *python(grown, r#", "memory_mib": 2048"#, dir.path()),
        &numbers(&[1]),
    )
    .await
    .unwrap();
    assert!(
        reasons(&output)[0].contains("more than a record may have"),
        "{:?}",
        output.rejected
    );
    let grown = "def transform(record): return {'t': 'x' * 25_000_000}";
    let output = done(
        &mut *python(grown, r#", "memory_mib": 2048"#, dir.path()),
        &numbers(&[1, 2, 3]),
    )
    .await
    .unwrap();
    assert_eq!(output.batch.rows(), 2);
    assert!(
        reasons(&output)[0].contains("too large together"),
        "{:?}",
        output.rejected
    );
}

#[tokio::test]
async fn code_in_a_file_is_read_when_it_starts() {
    let dir = testkit::temp_dir("python");
    let mut code = transform(&TRANSFORM, r#"{"file": "own.py"}"#, dir.path());
    let fault = done(&mut *code, &numbers(&[1])).await.unwrap_err();
    assert!(fault.to_string().contains("own.py: No such file"), "{fault}");
    fs::write(dir.path().join("own.py"), "def transform(record):\n    return None\n").unwrap();
    assert_eq!(done(&mut *code, &numbers(&[1])).await.unwrap().batch.rows(), 0);
}

#[tokio::test]
async fn a_source_goes_on_after_its_cursor() {
    let dir = testkit::temp_dir("python");
    let code = r#"
from mycelial import Record

def read(cursor):
    start = cursor["n"] if cursor else 0
    for n in range(start + 1, start + 4):
        yield Record({"n": n, "t": str(n)}, op="upsert"), {"n": n}
    yield {"n": {1}}, {"n": 99}
    yield {"n": 2**64}
    raise OSError("gone")
"#;
    let mut numbers = source(&SOURCE, &config(code, r#", "types": {"n": "i64"}"#), dir.path());
    let (mut position, mut rows) = (None, String::new());
    let mut reasons = Vec::new();
    for _ in 0..3 {
        numbers.open(position.as_ref()).await.unwrap();
        let fault = loop {
            match numbers.read().await {
                Ok(Read::Batch(read)) => {
                    reasons.extend(read.undecodable.into_iter().map(|input| input.reason));
                    if read.batch.rows() > 0 {
                        rows = format!("{rows}{}\n", shown(&read.batch));
                        assert_eq!(read.batch.op(0), Op::Upsert);
                    }
                    position = Some(read.position);
                }
                Ok(_) => {}
                Err(fault) => break fault,
            }
        };
        assert!(fault.to_string().contains("OSError: gone (line 10)"), "{fault}");
        numbers.close().await;
    }
    assert_eq!(rows, "1|1\n2|2\n3|3\n4|4\n5|5\n6|6\n7|7\n8|8\n9|9\n");
    assert_eq!(reasons.len(), 6, "{reasons:?}");
    assert_eq!(reasons[0], "n: column 'n' is a set, which no column can hold");
    assert!(reasons[1].contains("beyond 64 bits"), "{reasons:?}");
}

#[tokio::test]
async fn a_source_ends_or_begins_again() {
    let dir = testkit::temp_dir("python");
    let code = "runs = 0\ndef read(cursor):\n    global runs\n    runs += 1\n    yield {'run': runs, 'cursor': cursor}, runs * 10";
    let mut once = source(&SOURCE, &config(code, ""), dir.path());
    once.open(None).await.unwrap();
    let mut harvest = Harvest::default();
    while !harvest.ended {
        let more = Harvest::of(&mut *once).await;
        harvest.ended |= more.ended;
        harvest.batches.extend(more.batches);
    }
    assert_eq!(harvest.rows(), "1|~");
    let mut again = source(&SOURCE, &config(code, r#", "every_ms": 1"#), dir.path());
    again.open(None).await.unwrap();
    let mut rows = Vec::new();
    while rows.len() < 3 {
        if let Read::Batch(read) = again.read().await.unwrap() {
            rows.push(shown(&read.batch));
        }
    }
    assert_eq!(rows, ["1|~", "2|10", "3|20"]);
}

#[tokio::test]
async fn a_source_that_is_quiet_is_only_killed_where_that_was_wished() {
    let dir = testkit::temp_dir("python");
    let code = "import time\ndef read(cursor):\n    yield {'n': 1}\n    time.sleep(1000)";
    let mut quiet = source(&SOURCE, &config(code, r#", "quiet_ms_max": 700"#), dir.path());
    quiet.open(None).await.unwrap();
    let mut rows = 0;
    let fault = loop {
        match quiet.read().await {
            Ok(Read::Batch(read)) => rows += read.batch.rows(),
            Ok(_) => {}
            Err(fault) => break fault,
        }
    };
    assert!(fault.to_string().contains("it was quiet too long"), "{fault}");
    assert_eq!(rows, 1, "what came before was not held back");
}

/// Stores records and remembers the keys.
const STORE: &str = r#"
import json, os

def write(records, key):
    done = open("keys").read().split() if os.path.exists("keys") else []
    refused = {place: "too hot" for place, record in enumerate(records) if record["n"] > 100}
    if key not in done:
        with open("out", "a") as out:
            for place, record in enumerate(records):
                if place not in refused:
                    out.write("%s %d\n" % (record.op, record["n"]))
        with open("keys", "a") as keys:
            keys.write(key + "\n")
    if os.path.exists("crash"):
        os.remove("crash")
        os._exit(3)
    return refused
"#;

#[tokio::test]
async fn a_destination_takes_refuses_and_crashes() {
    let dir = testkit::temp_dir("python");
    let mut store = sink(&SINK, &config(STORE, ""), dir.path());
    store.open().await.unwrap();
    let first = [
        delivery("a", 1, numbers(&[1, 200, 3])),
        delivery("a", 2, numbers(&[])),
        delivery("a", 3, numbers(&[300])),
    ];
    let rejected = store.write(&first).await.unwrap();
    let places: Vec<_> = rejected
        .iter()
        .map(|one| (one.delivery, one.row, one.reason.as_str()))
        .collect();
    assert_eq!(places, [(0, 1, "too hot"), (2, 0, "too hot")]);
    store.commit().await.unwrap();
    fs::write(dir.path().join("crash"), "").unwrap();
    let second = [delivery("a", 4, numbers(&[4])), delivery("a", 5, numbers(&[5]))];
    let fault = store.write(&second).await.unwrap_err();
    assert!(fault.to_string().contains("it ended with code 3"), "{fault}");
    store.close().await;
    store.open().await.unwrap();
    assert_eq!(store.write(&second).await.unwrap(), []);
    store.close().await;
    let out = fs::read_to_string(dir.path().join("out")).unwrap();
    assert_eq!(out, "insert 1\ninsert 3\ninsert 4\ninsert 5\n");
    let mut failing = sink(&SINK, &config("def write(records):\n    1 / 0", ""), dir.path());
    failing.open().await.unwrap();
    let fault = failing.write(&first).await.unwrap_err();
    assert!(
        fault
            .to_string()
            .contains("ZeroDivisionError: division by zero (line 2)"),
        "{fault}"
    );
}

#[test]
fn mistakes_are_named() {
    for (config, wanted) in [
        (r#"{}"#.to_string(), "code: give either the code or a file"),
        (
            r#"{"code": "x", "file": "y"}"#.to_string(),
            "code: give either the code or a file",
        ),
        (
            config(&"#".repeat(300_000), ""),
            "code: has 300000 bytes, and code that travels with a workflow at most 262144",
        ),
        (
            config("x", r#", "memory_mib": 8"#),
            "memory_mib: between 32 and 1048576",
        ),
        (config("x", r#", "answer_ms_max": 0"#), "answer_ms_max: is 0"),
        (
            config("x", r#", "types": {"a": "number"}"#),
            "types.a: 'number' cannot be declared",
        ),
    ] {
        refused(&TRANSFORM, &config, wanted);
    }
    refused(&SOURCE, &config("x", r#", "every_ms": 0"#), "every_ms: is 0");
    refused(&SINK, &config("x", r#", "answer_ms_max": 0"#), "answer_ms_max: is 0");
}

/// That a process of this number is there, and not only waiting to be reaped.
fn is_alive(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    let state = stat.rsplit(')').next().unwrap_or_default().trim();
    !state.is_empty() && !state.starts_with('Z')
}

#[tokio::test]
async fn dropped_in_the_middle_it_leaves_nothing_behind() {
    let dir = testkit::temp_dir("python");
    let pid = dir.path().join("pid");
    let code = format!(
        "import os\ndef transform(r):\n    open({:?}, 'w').write(str(os.getpid()))\n    while True: pass",
        pid.display().to_string()
    );
    let mut hanging = python(&code, "", dir.path());
    let input = numbers(&[1]);
    let given_up = tokio::time::timeout(Duration::from_secs(5), done(&mut *hanging, &input)).await;
    assert!(given_up.is_err());
    let pid = fs::read_to_string(pid).unwrap();
    testkit::wait_until("the process to end", Duration::from_secs(20), || {
        (!is_alive(&pid)).then_some(())
    });
}
