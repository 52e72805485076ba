//! Exactly once: watermarks, lost connections, restarted servers, twins.

use std::time::Duration;

use flow::{Fault, Sink};
use serde_json::json;
use testkit::Postgres;

use super::{Database, delivery, inserts, sink, stream};

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
    let server = Postgres::start();
    server.query("CREATE TABLE t (id bigint, v text)");
    let mut sink = sink(&server.url(), json!({}));
    let (mut stopped, mut killed) = (false, false);
    let faults = run(
        &mut *sink,
        40,
        |seq| {
            if seq == 10 && !std::mem::replace(&mut stopped, true) {
                server.restart();
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
    assert!(faults >= 2, "{faults}");
    assert_eq!(
        server.query_one("SELECT count(*) || ' ' || count(DISTINCT id) || ' ' || sum(id) FROM t"),
        {
            let sum: i64 = (100..4100).sum();
            format!("4000 4000 {sum}")
        }
    );
    let found = server.query_one("SELECT seq || ' ' || delivered FROM _mycelial_watermark");
    assert_eq!(found, "40 4000");
}

#[tokio::test]
async fn connections_cut_at_any_moment_lose_and_double_nothing() {
    // Backends are terminated again and again while rows go in: in writes, between them, and in commits.
    let db = Database::new("cut", "CREATE TABLE t (id bigint, v text)");
    let mut sink = sink(&db.url, json!({}));
    let done = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let (server, flag) = (std::sync::Arc::clone(&db.server), std::sync::Arc::clone(&done));
    let cutter = std::thread::spawn(move || {
        let sql = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'mycelial test/node' AND datname = 'cut'";
        while !flag.load(std::sync::atomic::Ordering::Relaxed) {
            server.query(sql);
        }
    });
    // Without the thread's end a failing test would hang.
    let watched = tokio::time::timeout(Duration::from_secs(120), run(&mut *sink, 60, |_| {}, |_| {})).await;
    done.store(true, std::sync::atomic::Ordering::Relaxed);
    cutter.join().unwrap();
    let faults = watched.unwrap();
    assert!(faults > 0);
    assert_eq!(db.rows("SELECT count(*), count(DISTINCT id) FROM t"), ["6000|6000"]);
    assert_eq!(db.rows("SELECT seq, delivered FROM _mycelial_watermark"), ["60|6000"]);
}

#[tokio::test]
async fn commits_are_durable_even_where_the_server_would_not_wait() {
    let server = Postgres::builder().config("synchronous_commit", "off").start();
    server.query("CREATE TABLE t (id bigint, v text)");
    let mut sink = sink(&server.url(), json!({}));
    sink.open().await.unwrap();
    for seq in 1..=20 {
        sink.write(&[delivery(seq, inserts(0..10))]).await.unwrap();
        sink.commit().await.unwrap();
    }
    server.kill9();
    server.start();
    assert_eq!(server.query_one("SELECT count(*) FROM t"), "200");
}
