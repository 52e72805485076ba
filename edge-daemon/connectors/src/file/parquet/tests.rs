//! Files that we write, read by pyarrow; files that pyarrow writes, read by us; and crashes in between.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use bus_schema::data::{Batch, Field, Op, Type, Value, Zone};
use flow::{Position, Sink};
use proptest::prelude::*;

use crate::{
    file::{
        SINK, SOURCE,
        testing::{Harvest, batch_of, delivery, refused, shown, sink, source, stream},
    },
    files,
};

/// Runs Python with pyarrow, in a directory.
fn python(dir: &Path, code: &str) -> String {
    let output = Command::new(testkit::python())
        .args([
            "-c",
            &format!("import pyarrow as pa, pyarrow.parquet as pq, sys, decimal, datetime, uuid\n{code}"),
        ])
        .current_dir(dir)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn rows(first: i64, count: i64) -> Batch {
    let values: Vec<[Value; 2]> = (first..first + count)
        .map(|id| {
            [
                Value::I64(id),
                Value::Text(format!("row {id} {}", "x".repeat((id % 90) as usize))),
            ]
        })
        .collect();
    let rows: Vec<(Op, &[Value])> = values.iter().map(|row| (Op::Insert, &row[..])).collect();
    batch_of(vec![Field::new("id", Type::I64), Field::new("v", Type::Text)], &rows)
}

async fn put(sink: &mut dyn Sink, seq: u64, batch: Batch) -> Vec<String> {
    let rejected = sink.write(&[delivery("a", seq, batch)]).await.unwrap();
    sink.commit().await.unwrap();
    rejected.into_iter().map(|rejected| rejected.reason).collect()
}

/// Names of all Parquet files below a directory, in order.
fn names(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut directories = vec![dir.to_path_buf()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path: PathBuf = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else if !path.file_name().unwrap().to_str().unwrap().contains(".mycelial") {
                found.push(path.strip_prefix(dir).unwrap().to_str().unwrap().to_string());
            }
        }
    }
    found.sort();
    found
}

#[tokio::test]
async fn what_is_written_pyarrow_reads() {
    let dir = tempfile::tempdir().unwrap();
    let fields = vec![
        Field::new("b", Type::Bool),
        Field::new("i", Type::I64),
        Field::new("u", Type::U64),
        Field::new("f", Type::F64),
        Field::new(
            "d",
            Type::Decimal {
                precision: 38,
                scale: 9,
            },
        ),
        Field::new("t", Type::Text),
        Field::new("x", Type::Bytes),
        Field::new("day", Type::Date),
        Field::new("time", Type::Time),
        Field::new("at", Type::Timestamp(Zone::Naive)),
        Field::new("utc", Type::Timestamp(Zone::Utc)),
        Field::new("id", Type::Uuid),
        Field::new("j", Type::Json),
        Field::new("l", Type::List),
        Field::new("a", Type::Any),
    ];
    let full = [
        Value::Bool(true),
        Value::I64(i64::MIN),
        Value::U64(u64::MAX),
        Value::F64(0.1),
        Value::Decimal(-12_345_678_901_234_567_890_123_456_789_123_456_789, 9),
        Value::Text("grün 🌱".into()),
        Value::Bytes(vec![0, 255]),
        Value::Date(-1),
        Value::Time(86_399_999_999_999),
        Value::Timestamp(-1),
        Value::TimestampUtc(1_700_000_000_123_456_789),
        Value::Uuid(*b"\x12\x34\x56\x78\x9a\xbc\x4e\xf0\x81\x02\x03\x04\x05\x06\x07\x08"),
        Value::Json("{\"a\":  1.50}".into()),
        Value::List(vec![Value::I64(1), Value::Text("x".into())]),
        Value::F64(1.5),
    ];
    let empty: Vec<Value> = (0..full.len())
        .map(|at| if at % 2 == 0 { Value::Null } else { Value::Missing })
        .collect();
    let batch = batch_of(fields, &[(Op::Insert, &full), (Op::Delete, &empty)]);
    for packing in ["none", "snappy", "zstd"] {
        let config = format!(
            r#"{{"path": "{packing}.parquet", "format": "parquet", "op_column": "op", "compression": "{packing}"}}"#
        );
        let mut out = sink(&SINK, &config, dir.path());
        out.open().await.unwrap();
        assert_eq!(put(&mut *out, 1, batch.clone()).await, [""; 0]);
        // Nothing is there before it is whole.
        assert!(!names(dir.path()).contains(&format!("{packing}-000001.parquet")));
        out.complete(&stream("a")).await.unwrap();
        let read = format!(
            "f = pq.ParquetFile('{packing}-000001.parquet'); t = f.read()\n\
             print(f.metadata.row_group(0).column(1).compression, t.num_rows)\n\
             for n in t.column_names: print(n, t.schema.field(n).type, t[n].cast(pa.int64()).to_pylist() if n in ('time', 'at', 'utc') else t[n].to_pylist())"
        );
        let packing = if packing == "none" {
            "UNCOMPRESSED".to_string()
        } else {
            packing.to_uppercase()
        };
        let printed = python(dir.path(), &read);
        let lines: Vec<&str> = printed.lines().collect();
        assert_eq!(lines[0], format!("{packing} 2"));
        for (line, wanted) in lines[1..].iter().zip([
            "b bool [True, None]",
            "i int64 [-9223372036854775808, None]",
            "u uint64 [18446744073709551615, None]",
            "f double [0.1, None]",
            "d decimal128(38, 9) [Decimal('-12345678901234567890123456789.123456789'), None]",
            "t string ['grün 🌱', None]",
            "x binary [b'\\x00\\xff', None]",
            "day date32[day] [datetime.date(1969, 12, 31), None]",
            "time time64[ns] [86399999999999, None]",
            "at timestamp[ns] [-1, None]",
            "utc timestamp[ns, tz=UTC] [1700000000123456789, None]",
        ]) {
            assert_eq!(*line, wanted);
        }
        assert!(
            lines[12].contains("UUID('12345678-9abc-4ef0-8102-030405060708')") || lines[12].contains("\\x124Vx"),
            "{}",
            lines[12]
        );
        assert!(lines[13].ends_with("['{\"a\":  1.50}', None]"), "{}", lines[13]);
        assert!(lines[14].ends_with("['[1,\"x\"]', None]"), "{}", lines[14]);
        assert!(lines[15].ends_with("['1.5', None]"), "{}", lines[15]);
        assert!(lines[16].ends_with("['insert', 'delete']"), "{}", lines[16]);
    }
}

#[tokio::test]
async fn what_it_cannot_hold_goes_to_the_dead_letters() {
    let dir = tempfile::tempdir().unwrap();
    let mut out = sink(&SINK, r#"{"path": "o.parquet", "format": "parquet"}"#, dir.path());
    out.open().await.unwrap();
    let at = batch_of(
        vec![Field::new("at", Type::Timestamp(Zone::Utc))],
        &[
            (Op::Insert, &[Value::TimestampUtc(i128::from(i64::MAX) + 1)]),
            (Op::Insert, &[Value::TimestampUtc(i128::from(i64::MAX))]),
            (Op::Delete, &[Value::TimestampUtc(0)]),
        ],
    );
    let reasons = put(&mut *out, 1, at).await;
    assert!(
        reasons[0].contains("column 'at' is a time outside of the years") && reasons[1].contains("set op_column"),
        "{reasons:?}"
    );
    let decimal = Type::Decimal { precision: 0, scale: 0 };
    let batch = batch_of(
        vec![Field::new("n", decimal)],
        &[(Op::Insert, &[Value::Decimal(i128::MAX, 0)])],
    );
    let reasons = put(&mut *out, 2, batch).await;
    assert!(reasons[0].contains("more than 38 digits"), "{reasons:?}");
    out.complete(&stream("a")).await.unwrap();
    assert_eq!(
        python(dir.path(), "print(pq.read_table('o-000001.parquet').num_rows)"),
        "1\n"
    );
    let mark = out.watermark(&stream("a")).await.unwrap().unwrap();
    assert_eq!((mark.seq, mark.delivered, mark.counts.dead), (2, 1, 3));
}

#[tokio::test]
async fn files_are_complete_by_size_by_name_and_by_columns() {
    let dir = tempfile::tempdir().unwrap();
    let config =
        r#"{"path": ".", "partition": "k={k}/data.parquet", "format": "parquet", "rotate": {"max_bytes": 12000}}"#;
    let mut out = sink(&SINK, config, dir.path());
    out.open().await.unwrap();
    let batch = |ty: Type, value: Value, first: i64| {
        let rows: Vec<[Value; 3]> = (first..first + 200)
            .map(|id| [Value::I64(id % 2), Value::I64(id), value.clone()])
            .collect();
        let rows: Vec<(Op, &[Value])> = rows.iter().map(|row| (Op::Insert, &row[..])).collect();
        batch_of(
            vec![
                Field::new("k", Type::I64),
                Field::new("id", Type::I64),
                Field::new("v", ty),
            ],
            &rows,
        )
    };
    put(&mut *out, 1, batch(Type::Text, Value::Text("x".repeat(40)), 0)).await;
    assert_eq!(names(dir.path()), [""; 0]);
    put(&mut *out, 2, batch(Type::Text, Value::Text("x".repeat(40)), 200)).await;
    assert_eq!(
        names(dir.path()),
        ["k=0/data-000001.parquet", "k=1/data-000001.parquet"]
    );
    put(&mut *out, 3, batch(Type::I64, Value::I64(5), 400)).await;
    put(&mut *out, 4, batch(Type::Text, Value::Text("y".into()), 600)).await;
    out.complete(&stream("a")).await.unwrap();
    let printed = python(
        dir.path(),
        "import glob\n\
         for n in sorted(glob.glob('k=*/*')): t = pq.ParquetFile(n).read(); print(n, t.num_rows, t.schema.field('v').type, min(t['id'].to_pylist()))",
    );
    assert_eq!(
        printed,
        "k=0/data-000001.parquet 200 string 0\nk=0/data-000002.parquet 100 int64 400\nk=0/data-000003.parquet 100 string 600\n\
         k=1/data-000001.parquet 200 string 1\nk=1/data-000002.parquet 100 int64 401\nk=1/data-000003.parquet 100 string 601\n"
    );
}

const MADE: &str = "
n = 5000
D = decimal.Decimal
t = pa.table({
  'i8': pa.array([(i % 256) - 128 for i in range(n)], pa.int8()),
  'u32': pa.array([2**32 - 1 - i for i in range(n)], pa.uint32()),
  'i64': pa.array([i if i % 3 else None for i in range(n)], pa.int64()),
  'u64': pa.array([2**64 - 1 - i for i in range(n)], pa.uint64()),
  'f16': pa.array([float(i % 100) / 2 for i in range(n)], pa.float32()).cast(pa.float16()),
  'f': pa.array([i / 10 for i in range(n)], pa.float64()),
  'b': pa.array([i % 2 == 0 for i in range(n)]),
  'd9': pa.array([D(i) / 100 for i in range(n)], pa.decimal128(7, 2)),
  'd38': pa.array([-D(10) ** 28 + i for i in range(n)], pa.decimal128(38, 9)),
  't': pa.array(['grün ' + str(i % 7) for i in range(n)]).dictionary_encode(),
  'x': pa.array([bytes([i % 256]) for i in range(n)], pa.binary()),
  'fixed': pa.array([bytes([i % 256] * 3) for i in range(n)], pa.binary(3)),
  'day': pa.array([i - 2500 for i in range(n)], pa.date32()),
  'time': pa.array([i * 1000 for i in range(n)], pa.time32('ms')),
  'ms': pa.array([i * 1000 - 2500000 for i in range(n)], pa.timestamp('ms')),
  'us': pa.array([i for i in range(n)], pa.timestamp('us', 'UTC')),
  'ns': pa.array([i - 2500 for i in range(n)], pa.timestamp('ns')),
})
";

#[tokio::test]
async fn what_pyarrow_writes_is_read() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("in")).unwrap();
    for (name, how) in [
        ("a", "row_group_size=700, compression='snappy'"),
        ("b", "compression='gzip', use_dictionary=False, data_page_version='2.0'"),
        ("c", "row_group_size=5000, compression='zstd', data_page_size=1000"),
        (
            "d",
            "compression='lz4', column_encoding={'i64': 'DELTA_BINARY_PACKED', 'f': 'BYTE_STREAM_SPLIT'}, use_dictionary=False",
        ),
        ("e", "compression='none', store_schema=False"),
    ] {
        python(dir.path(), &format!("{MADE}\npq.write_table(t, 'in/{name}', {how})"));
        let config = format!(r#"{{"path": "in/{name}", "format": "parquet", "mode": "once"}}"#);
        let mut input = source(&SOURCE, &config, dir.path());
        input.open(None).await.unwrap();
        let harvest = Harvest::of(&mut *input).await;
        assert!(
            harvest.ended && harvest.undecodable.is_empty(),
            "{name}: {}",
            harvest.reasons()
        );
        assert_eq!(
            harvest.schema(),
            "i8:i64 u32:u64 i64:i64 u64:u64 f16:f32 f:f64 b:bool d9:decimal(7,2) d38:decimal(38,9) t:text x:bytes fixed:bytes \
             day:date time:time ms:timestamp us:timestamp_utc ns:timestamp",
            "{name}"
        );
        let found = harvest.rows();
        let lines: Vec<&str> = found.lines().collect();
        assert_eq!(lines.len(), 5_000, "{name}");
        assert_eq!(
            lines[0],
            "-128|4294967295|~|18446744073709551615|0.0|0.0|true|0.00|-10000000000000000000000000000.000000000|grün 0|00|000000|\
             1963-02-27|00:00:00|1969-12-31T23:18:20|1970-01-01T00:00:00Z|1969-12-31T23:59:59.999997500",
            "{name}"
        );
        assert_eq!(
            lines[4_999],
            "7|4294962296|4999|18446744073709546616|49.5|499.9|false|49.99|-9999999999999999999999995001.000000000|grün 1|87|878787|\
             1976-11-04|01:23:19|1970-01-01T00:41:39|1970-01-01T00:00:00.004999Z|1970-01-01T00:00:00.000002499",
            "{name}"
        );
    }
    // All of them, read by another daemon after each batch.
    let config = r#"{"path": "in", "mode": "once", "settle_ms": 0, "format": "parquet"}"#;
    let mut count = 0;
    let mut input = source(&files::SOURCE, config, dir.path());
    input.open(None).await.unwrap();
    while let flow::Read::Batch(read) = input.read().await.unwrap() {
        let first = shown(&read.batch.take(&[0]));
        assert!(
            first.starts_with(&format!("{}|", (count % 5_000 % 256) as i64 - 128)),
            "{count}: {first}"
        );
        count += read.batch.rows();
        input = source(&files::SOURCE, config, dir.path());
        input.open(Some(&read.position)).await.unwrap();
    }
    assert_eq!(count, 25_000);
}

#[tokio::test]
async fn what_cannot_be_read_is_told_and_the_next_file_is_read() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("in")).unwrap();
    python(
        dir.path(),
        "t = pa.table({'a': list(range(1000))})\n\
         for n in ('1good', '2cut', '5good'): pq.write_table(t, 'in/' + n)\n\
         pq.write_table(pa.table({'l': [[1, 2], []]}), 'in/3nested')\n\
         b = open('in/2cut', 'rb').read(); open('in/2cut', 'wb').write(b[:-20])\n\
         open('in/4text', 'w').write('no Parquet at all')\n\
         import os\n\
         for i, n in enumerate(sorted(os.listdir('in'))): os.utime('in/' + n, (i + 1, i + 1))",
    );
    let config = r#"{"path": "in", "mode": "once", "settle_ms": 0, "format": "parquet"}"#;
    let mut input = source(&files::SOURCE, config, dir.path());
    input.open(None).await.unwrap();
    let harvest = Harvest::of(&mut *input).await;
    assert_eq!(harvest.rows().lines().count(), 2_000);
    let reasons = harvest.reasons();
    let reasons: Vec<&str> = reasons.lines().collect();
    assert_eq!(reasons.len(), 3, "{reasons:?}");
    assert!(reasons[0].starts_with("2cut: the file cannot be read: "), "{reasons:?}");
    assert!(
        reasons[1].contains("is part of a list, a map or a structure"),
        "{reasons:?}"
    );
    assert!(reasons[2].starts_with("4text: "), "{reasons:?}");
}

#[test]
fn damaged_bytes_never_end_the_program() {
    let dir = tempfile::tempdir().unwrap();
    python(
        dir.path(),
        "pq.write_table(pa.table({'a': list(range(300)), 't': [str(i) for i in range(300)]}), 'whole')",
    );
    let whole = fs::read(dir.path().join("whole")).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    for at in (0..whole.len()).step_by(7) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x55;
        fs::write(dir.path().join("in"), bytes).unwrap();
        let mut input = source(
            &SOURCE,
            r#"{"path": "in", "format": "parquet", "mode": "once"}"#,
            dir.path(),
        );
        runtime.block_on(async {
            input.open(None).await.unwrap();
            assert!(Harvest::of(&mut *input).await.ended, "{at}");
        });
    }
}

#[test]
fn mistakes_are_named() {
    for (config, wanted) in [
        (
            r#"{"path": "a", "format": "parquet"}"#,
            "mode: a file of this format is read whole",
        ),
        (
            r#"{"path": "a", "format": "parquet", "mode": "once", "types": {"a": "i64"}}"#,
            "types: Parquet says itself",
        ),
        (
            r#"{"path": "a", "format": "parquet", "mode": "once", "origin_columns": true}"#,
            "origin_columns: only for",
        ),
        (
            r#"{"path": "a", "format": "parquet", "mode": "once", "csv": {}}"#,
            "csv: only for",
        ),
    ] {
        refused(&SOURCE, config, wanted);
    }
    refused(
        &SINK,
        r#"{"path": "a", "format": "csv", "compression": "zstd"}"#,
        "compression: only for",
    );
    refused(
        &SINK,
        r#"{"path": "a", "format": "parquet", "csv": {}}"#,
        "csv: only for",
    );
}

/// As a daemon that starts: a sink, and where the source goes on.
async fn start(dir: &Path) -> (Box<dyn Sink>, i64) {
    let config = r#"{"path": "out.parquet", "format": "parquet", "rotate": {"max_bytes": 9000}}"#;
    let mut out = sink(&SINK, config, dir);
    out.open().await.unwrap();
    let mark = out.watermark(&stream("a")).await.unwrap().unwrap_or_default();
    out.begin(&stream("a"), &mark);
    (out, mark.seq as i64)
}

/// Of two files that are gathered for, one has no room: what the other has got already is not there twice later.
#[tokio::test]
async fn a_commit_that_fails_half_way_is_made_again() {
    let outside = tempfile::tempdir().unwrap();
    let (dir, away) = (outside.path().join("here"), outside.path().join("away"));
    fs::create_dir(&dir).unwrap();
    let (mut out, _) = start(&dir).await;
    assert_eq!(put(&mut *out, 1, rows(0, 4)).await, Vec::<String>::new());
    // Another kind of column needs another file.
    let other = || {
        batch_of(
            vec![Field::new("id", Type::Text)],
            &[(Op::Insert, &[Value::Text("8".to_string())])],
        )
    };
    let both = || [delivery("a", 2, rows(4, 4)), delivery("a", 3, other())];
    assert_eq!(out.write(&both()).await.unwrap(), []);
    fs::rename(&dir, &away).unwrap();
    out.commit().await.unwrap_err();
    fs::rename(&away, &dir).unwrap();
    out.close().await;
    out.open().await.unwrap();
    assert_eq!(out.gathered(&stream("a")).unwrap().mark.seq, 1);
    assert_eq!(out.write(&both()).await.unwrap(), []);
    out.commit().await.unwrap();
    out.complete(&stream("a")).await.unwrap();
    assert_eq!(ids(&dir).await, (0..9).collect::<Vec<_>>());
}

/// The first column of every row of every file, in order.
async fn ids(dir: &Path) -> Vec<i64> {
    let mut found = Vec::new();
    for name in names(dir) {
        let config = format!(r#"{{"path": "{name}", "format": "parquet", "mode": "once"}}"#);
        let mut input = source(&SOURCE, &config, dir);
        input.open(None::<&Position>).await.unwrap();
        let harvest = Harvest::of(&mut *input).await;
        assert!(harvest.undecodable.is_empty(), "{}", harvest.reasons());
        let id = |row: &str| row.split('|').next().unwrap().parse::<i64>().unwrap();
        found.extend(harvest.rows().lines().map(id));
    }
    found
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is interrupted when, every record is in one file, once.
    #[test]
    fn exactly_once_over_crashes(steps in prop::collection::vec(0..7u8, 1..40)) {
        let dir = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (mut out, mut seq) = start(dir.path()).await;
            for step in steps {
                let batch = delivery("a", seq as u64 + 1, rows(seq * 40, 40));
                assert_eq!(out.write(&[batch]).await.unwrap(), []);
                if step == 0 {
                    // Killed before the commit.
                    drop(out);
                    (out, seq) = start(dir.path()).await;
                    continue;
                }
                if step == 1 {
                    // A fault: what was written and not committed is undone.
                    out.close().await;
                    out.open().await.unwrap();
                    let gathered = out.gathered(&stream("a")).unwrap();
                    assert_eq!(gathered.mark.seq as i64, seq);
                    continue;
                }
                out.commit().await.unwrap();
                seq += 1;
                if step == 2 {
                    out.complete(&stream("a")).await.unwrap();
                }
                if step == 3 {
                    drop(out);
                    (out, seq) = start(dir.path()).await;
                }
            }
            out.complete(&stream("a")).await.unwrap();
            assert!(out.gathered(&stream("a")).unwrap().is_durable);
            assert_eq!(ids(dir.path()).await, (0..seq * 40).collect::<Vec<_>>());
            let left = fs::read_dir(dir.path()).unwrap().filter(|entry| {
                entry.as_ref().unwrap().file_name().to_str().unwrap().contains("mycelial-part")
            });
            assert_eq!(left.count(), 0, "nothing unfinished stays");
        });
    }
}
