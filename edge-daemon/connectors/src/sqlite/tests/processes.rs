//! Other processes: writers while the source reads, and a crash between write and commit. The other process is this very
//! test program, asked for one test that does the work when it finds its orders in the environment.

use std::{
    env,
    process::{Child, Command, Stdio},
};

use bus_schema::data::{Cell, Op, Type, Value};
use flow::{Fault, Read};
use serde_json::json;

use super::{database, delivery, literals, rows, schema, sink, source, stream};

pub(super) const ORDERS: &str = "MYCELIAL_TEST_ORDERS";

/// Runs a test in a process of its own.
pub(super) fn child(test: &str, dir: &std::path::Path) -> Child {
    let mut command = Command::new(env::current_exe().unwrap());
    command
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(ORDERS, dir);
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

const WRITERS: i64 = 2;
const ROWS_PER_WRITER: i64 = 25_000;

#[test]
fn child_writes_rows() {
    let Ok(dir) = env::var(ORDERS) else { return };
    let mut conn = database(dir.as_ref(), "db", "");
    let (mut written, mut size) = (0, 1);
    while written < ROWS_PER_WRITER {
        // Transactions of 1 to 97 rows; every fifth is rolled back, so that rowids are taken back under the reader.
        size = size * 31 % 97 + 1;
        let transaction = conn
            .transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)
            .unwrap();
        for row in written..(written + size).min(ROWS_PER_WRITER) {
            transaction
                .execute(
                    "INSERT INTO t (writer, n) VALUES (?1, ?2)",
                    [i64::from(std::process::id()), row],
                )
                .unwrap();
        }
        if size % 5 == 0 {
            transaction.rollback().unwrap();
            continue;
        }
        transaction.commit().unwrap();
        written += size;
    }
}

#[tokio::test]
async fn no_row_of_concurrent_writers_is_lost_or_doubled() {
    for mode in ["WAL", "DELETE"] {
        let dir = tempfile::tempdir().unwrap();
        let sql = format!(
            "PRAGMA journal_mode = {mode}; PRAGMA synchronous = OFF; CREATE TABLE t (id INTEGER PRIMARY KEY, writer INT, n INT)"
        );
        database(dir.path(), "db", &sql);
        let mut writers: Vec<Child> = (0..WRITERS)
            .map(|_| child("sqlite::tests::processes::child_writes_rows", dir.path()))
            .collect();
        let config = json!({"table": "t", "batch_rows_max": 100});
        let mut reader = source(dir.path(), config.clone());
        reader.open(None).await.unwrap();
        let (mut ids, mut opened) = (Vec::new(), 1);
        loop {
            let ended = writers.iter_mut().all(|writer| writer.try_wait().unwrap().is_some());
            match reader.read().await {
                Ok(Read::Batch(batch)) => {
                    for row in 0..batch.batch.rows() {
                        let Cell::I64(id) = batch.batch.cell(row, 0) else {
                            panic!("an id")
                        };
                        ids.push(id);
                    }
                    // Now and then from the position, as after a restart.
                    if ids.len() > opened * 5000 {
                        opened += 1;
                        reader = source(dir.path(), config.clone());
                        // It waits for writers as well.
                        while let Err(fault) = reader.open(Some(&batch.position)).await {
                            assert!(
                                mode == "DELETE" && fault.to_string().contains("locked"),
                                "{mode}: {fault}"
                            );
                        }
                    }
                }
                Ok(_) if ended => break,
                Ok(_) => {}
                // Without WAL a reader waits for writers, and these hardly ever pause.
                Err(Fault::Retry { cause, .. }) if mode == "DELETE" && cause.contains("locked by another process") => {}
                Err(fault) => panic!("{mode}: {fault}"),
            }
        }
        assert!(writers.iter_mut().all(|writer| writer.wait().unwrap().success()));
        let wanted = literals(&database(dir.path(), "db", ""), "SELECT id FROM t ORDER BY id");
        assert_eq!(wanted.len() as i64, WRITERS * ROWS_PER_WRITER);
        assert_eq!(ids.iter().map(i64::to_string).collect::<Vec<_>>(), wanted, "{mode}");
        assert!(opened > 5);
    }
}

const COMMITTED: u64 = 7;

#[test]
fn child_crashes_between_write_and_commit() {
    let Ok(dir) = env::var(ORDERS) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut sink = sink(dir.as_ref(), json!({}));
        sink.open().await.unwrap();
        let schema = schema(&[("*id", Type::I64), ("v", Type::Text)]);
        for seq in 1..=COMMITTED + 1 {
            let values: Vec<[Value; 2]> = (0..50)
                .map(|n| [Value::I64((seq * 100 + n) as i64), Value::Text("x".repeat(500))])
                .collect();
            let records: Vec<_> = values.iter().map(|row| (Op::Insert, &row[..])).collect();
            sink.write(&[delivery(seq, rows(&schema, &records))]).await.unwrap();
            if seq <= COMMITTED {
                sink.commit().await.unwrap();
            }
        }
        std::process::abort();
    });
}

#[tokio::test]
async fn a_crash_between_write_and_commit_leaves_rows_and_watermark_agreeing() {
    let dir = tempfile::tempdir().unwrap();
    let status = child(
        "sqlite::tests::processes::child_crashes_between_write_and_commit",
        dir.path(),
    )
    .wait()
    .unwrap();
    assert!(!status.success(), "it was to abort");
    let mut sink = sink(dir.path(), json!({}));
    sink.open().await.unwrap();
    let watermark = sink.watermark(&stream("s")).await.unwrap().unwrap();
    assert_eq!(
        (watermark.seq, watermark.delivered, watermark.counts.dead),
        (COMMITTED, COMMITTED * 50, 0)
    );
    assert_eq!(watermark.position.as_bytes(), COMMITTED.to_be_bytes());
    let found = literals(&database(dir.path(), "out", ""), "SELECT count(*), max(id) FROM t");
    assert_eq!(found, [format!("{},{}", COMMITTED * 50, COMMITTED * 100 + 49)]);
}
