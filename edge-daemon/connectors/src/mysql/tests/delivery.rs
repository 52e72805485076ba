//! Exactly once: watermarks, lost connections, restarted servers, twins.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bus_schema::data::{Op, Type, Value};
use flow::{Fault, Sink};
use mysql_async::{Conn, prelude::Queryable};
use serde_json::json;
use testkit::Mariadb;

use super::{Database, delivery, inserts, rows, schema, sink, stream};

#[tokio::test]
async fn the_watermark_is_read_back_and_counts_every_record() {
    let db = Database::new("watermark", "");
    let mut sink = db.sink(json!({})).await;
    assert!(sink.keeps_watermark());
    assert_eq!(sink.watermark(&stream("s")).await.unwrap(), None);
    let mut deliveries = vec![
        delivery(1, inserts(1..3)),
        delivery(5, inserts(2..4)),
        delivery(6, inserts(0..0)),
    ];
    deliveries[1].tally.dead = 3;
    deliveries[2].stream = stream("other");
    let rejected = sink.write(&deliveries).await.unwrap();
    assert_eq!(
        rejected.iter().map(|r| (r.delivery, r.row)).collect::<Vec<_>>(),
        [(1, 0)]
    );
    // Invisible until the commit.
    assert_eq!(db.rows("SELECT count(*) FROM _mycelial_watermark"), ["0"]);
    sink.commit().await.unwrap();
    sink.commit().await.unwrap();
    // Written but not committed: gone with the close.
    sink.write(&[delivery(6, inserts(7..8))]).await.unwrap();
    sink.close().await;
    sink.open().await.unwrap();
    let watermark = sink.watermark(&stream("s")).await.unwrap().unwrap();
    assert_eq!((watermark.seq, watermark.delivered, watermark.counts.dead), (5, 3, 4));
    assert_eq!(watermark.position.as_bytes(), 5u64.to_be_bytes());
    let watermark = sink.watermark(&stream("other")).await.unwrap().unwrap();
    assert_eq!((watermark.seq, watermark.delivered, watermark.counts.dead), (6, 0, 0));
    assert_eq!(db.rows("SELECT id FROM t ORDER BY id"), ["1", "2", "3"]);
}

#[tokio::test]
async fn a_second_daemon_with_the_same_stream_cannot_write_a_record_twice() {
    let db = Database::new("twins", "CREATE TABLE t (id bigint, v text)");
    for seen in [true, false] {
        let (mut one, mut two) = (db.sink(json!({})).await, db.sink(json!({})).await);
        let seq = one.watermark(&stream("s")).await.unwrap().unwrap_or_default().seq + 1;
        two.watermark(&stream("s")).await.unwrap();
        if seen {
            one.write(&[delivery(seq, inserts(0..10))]).await.unwrap();
            one.commit().await.unwrap();
            let fault = two.write(&[delivery(seq, inserts(0..10))]).await.unwrap_err();
            assert!(fault.to_string().contains("somebody else delivers it too"), "{fault}");
        } else {
            // At the same time: the second waits for the first, and then sees that it came too late.
            one.write(&[delivery(seq, inserts(0..10))]).await.unwrap();
            let late = [delivery(seq, inserts(0..10))];
            let (second, first) = tokio::join!(two.write(&late), async {
                tokio::time::sleep(Duration::from_millis(200)).await;
                one.commit().await
            });
            first.unwrap();
            assert!(
                second
                    .unwrap_err()
                    .to_string()
                    .contains("somebody else delivers it too")
            );
        }
    }
    assert_eq!(db.rows("SELECT count(*) FROM t"), ["20"]);
}

/// What the runner does: open, read the watermark, repeat what is above it; from the start after any fault.
async fn run(
    sink: &mut dyn Sink,
    batches: u64,
    mut before_write: impl FnMut(u64),
    mut before_commit: impl FnMut(u64),
) -> u32 {
    let mut faults = 0;
    let mut failed = |fault: Fault| {
        assert!(matches!(fault, Fault::Retry { .. }), "{fault}");
        faults += 1;
        assert!(faults < 200, "{fault}");
    };
    'open: loop {
        sink.close().await;
        if let Err(fault) = sink.open().await {
            failed(fault);
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        }
        let mut seq = match sink.watermark(&stream("s")).await {
            Ok(watermark) => watermark.unwrap_or_default().seq,
            Err(fault) => {
                failed(fault);
                continue;
            }
        };
        while seq < batches {
            seq += 1;
            before_write(seq);
            let first = seq as i64 * 100;
            // Without a primary key in the table a repeated row would stay.
            if let Err(fault) = sink.write(&[delivery(seq, inserts(first..first + 100))]).await {
                failed(fault);
                continue 'open;
            }
            before_commit(seq);
            if let Err(fault) = sink.commit().await {
                failed(fault);
                continue 'open;
            }
        }
        return faults;
    }
}

#[tokio::test]
async fn a_server_that_is_restarted_or_killed_midway_gets_every_row_once() {
    let server = Arc::new(Mariadb::start());
    let db = Database::on(&server, "killed", "CREATE TABLE t (id bigint, v text)");
    let mut sink = sink(&db.url, json!({}));
    let (mut stopped, mut killed, mut early) = (false, false, false);
    let faults = run(
        &mut *sink,
        40,
        |seq| {
            if seq == 10 && !std::mem::replace(&mut stopped, true) {
                server.restart();
            }
            if seq == 30 && !std::mem::replace(&mut early, true) {
                server.kill9();
                server.start();
            }
        },
        |seq| {
            if seq == 20 && !std::mem::replace(&mut killed, true) {
                server.kill9();
                server.start();
            }
        },
    )
    .await;
    assert!(faults >= 3, "{faults}");
    let sum: i64 = (100..4100).sum();
    assert_eq!(
        db.rows("SELECT count(*), count(DISTINCT id), sum(id) FROM t"),
        [format!("4000|4000|{sum}")]
    );
    assert_eq!(db.rows("SELECT seq, delivered FROM _mycelial_watermark"), ["40|4000"]);
}

#[tokio::test]
async fn a_server_killed_while_rows_and_commits_are_on_their_way_gets_every_row_once() {
    let server = Arc::new(Mariadb::start());
    let db = Database::on(&server, "shot", "CREATE TABLE t (id bigint, v text)");
    let mut sink = sink(&db.url, json!({}));
    let done = Arc::new(AtomicBool::new(false));
    let (shot, flag) = (Arc::clone(&server), Arc::clone(&done));
    let killer = std::thread::spawn(move || {
        let mut kills = 0;
        while !flag.load(Ordering::Relaxed) && kills < 5 {
            // Somewhere within the work, not at a moment of our choice.
            std::thread::sleep(Duration::from_millis(30 + 17 * kills));
            shot.kill9();
            shot.start();
            kills += 1;
        }
        kills
    });
    let batches = 400;
    let watched = tokio::time::timeout(Duration::from_secs(240), run(&mut *sink, batches, |_| {}, |_| {})).await;
    done.store(true, Ordering::Relaxed);
    let kills = killer.join().unwrap();
    let faults = watched.unwrap();
    assert!(kills > 0 && faults > 0, "{kills} kills, {faults} faults");
    let rows = batches * 100;
    assert_eq!(
        db.rows("SELECT count(*), count(DISTINCT id) FROM t"),
        [format!("{rows}|{rows}")]
    );
    assert_eq!(
        db.rows("SELECT seq, delivered FROM _mycelial_watermark"),
        [format!("{batches}|{rows}")]
    );
}

#[tokio::test]
async fn connections_cut_at_any_moment_lose_and_double_nothing() {
    // Connections are ended again and again while rows go in: in writes, between them, and in commits.
    let server = Arc::new(Mariadb::start());
    let db = Database::on(&server, "cut", "CREATE TABLE t (id bigint, v text)");
    let mut sink = sink(&db.url, json!({}));
    let done = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&done);
    let cutter = std::thread::spawn(move || {
        for pause_ms in (20..).step_by(5) {
            if flag.load(Ordering::Relaxed) {
                break;
            }
            server.try_query_in("cut", "KILL CONNECTION USER tester@'127.0.0.1'");
            // More and more time, so that there is an end to it on a slow machine too.
            std::thread::sleep(Duration::from_millis(pause_ms));
        }
    });
    // Without the thread's end a failing test would hang.
    let watched = tokio::time::timeout(Duration::from_secs(120), run(&mut *sink, 60, |_| {}, |_| {})).await;
    done.store(true, Ordering::Relaxed);
    cutter.join().unwrap();
    let faults = watched.unwrap();
    assert!(faults > 0);
    assert_eq!(db.rows("SELECT count(*), count(DISTINCT id) FROM t"), ["6000|6000"]);
    assert_eq!(db.rows("SELECT seq, delivered FROM _mycelial_watermark"), ["60|6000"]);
}

#[tokio::test]
async fn a_table_that_has_to_change_midway_commits_no_rows_without_their_watermark() {
    // CREATE and ALTER commit what is open: here between two batches of one commit, and the connection ends before it.
    let db = Database::new("midway", "");
    let mut sink = db.sink(json!({})).await;
    sink.write(&[delivery(1, inserts(0..10))]).await.unwrap();
    let wider = schema(&[("*id", Type::I64), ("v", Type::Text), ("w", Type::Bool)]);
    let record = [Value::I64(100), Value::Null, Value::Bool(true)];
    let later = [
        delivery(2, inserts(10..20)),
        delivery(3, rows(&wider, &[(Op::Insert, &record)])),
    ];
    sink.write(&later).await.unwrap();
    sink.close().await;
    sink.open().await.unwrap();
    let seq = sink.watermark(&stream("s")).await.unwrap().unwrap_or_default().seq;
    // The first was complete, so it may be in; of the others nothing is.
    assert_eq!(seq, 1);
    assert_eq!(db.rows("SELECT count(*) FROM t"), ["10"]);
    sink.write(&later).await.unwrap();
    sink.commit().await.unwrap();
    assert_eq!(db.rows("SELECT count(*), sum(w) FROM t"), ["21|1"]);
    assert_eq!(db.rows("SELECT seq, delivered FROM _mycelial_watermark"), ["3|21"]);
}

#[tokio::test]
async fn a_row_that_somebody_else_holds_is_tried_again() {
    let server = Mariadb::builder().config("innodb_lock_wait_timeout", "1").start();
    let sql = "CREATE TABLE t (id bigint PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'a')";
    let db = Database::on(&Arc::new(server), "locked", sql);
    let mut sink = db.sink(json!({"mode": "upsert"})).await;
    let mut holder = Conn::from_url(&db.url).await.unwrap();
    holder.query_drop("BEGIN").await.unwrap();
    holder.query_drop("UPDATE t SET v = 'b' WHERE id = 1").await.unwrap();
    let fault = sink.write(&[delivery(1, inserts(1..2))]).await.unwrap_err();
    assert!(matches!(fault, Fault::Retry { .. }), "{fault}");
    assert!(fault.to_string().contains("[1205]"), "{fault}");
    holder.query_drop("COMMIT").await.unwrap();
    sink.open().await.unwrap();
    assert_eq!(sink.watermark(&stream("s")).await.unwrap(), None);
    assert_eq!(sink.write(&[delivery(1, inserts(1..2))]).await.unwrap(), []);
    sink.commit().await.unwrap();
    assert_eq!(db.rows("SELECT * FROM t"), ["1|row 1"]);
}
