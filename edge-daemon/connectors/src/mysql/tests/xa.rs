//! XA transactions in the log: their changes come when they are prepared, and a rollback after that is told.

use flow::{Read, Source};
use serde_json::json;
use testkit::Mariadb;

use super::changes::{changes, letters, server};
use crate::testing::{records, shown};

/// Prepares an XA transaction, and leaves the session.
fn prepare(server: &Mariadb, name: &str, sql: &str) {
    server.query_in(
        "d",
        &format!("XA START '{name}'; {sql}; XA END '{name}'; XA PREPARE '{name}'"),
    );
}

/// Reads until nothing comes any more, and makes sure that nothing came.
async fn quiet(source: &mut dyn Source) {
    let mut idle = 0;
    while idle < 3 {
        match source.read().await.unwrap() {
            Read::Batch(batch) => assert!(batch.batch.rows() == 0 && batch.undecodable.is_empty(), "{batch:?}"),
            _ => idle += 1,
        }
    }
}

#[tokio::test]
async fn a_rollback_of_what_was_delivered_is_told() {
    let server = server();
    let url = server.create_database("d");
    server.query_in(
        "d",
        "CREATE TABLE t (id int PRIMARY KEY, v int); CREATE TABLE other (id int PRIMARY KEY)",
    );
    let mut source = changes(&url, json!({"snapshot": false}));
    source.open(None).await.unwrap();
    prepare(&server, "kept", "INSERT INTO t VALUES (1, 1)");
    prepare(&server, "undone", "INSERT INTO t VALUES (2, 2), (3, 3)");
    prepare(&server, "else", "INSERT INTO other VALUES (1)");
    let batches = records(&mut *source, 3).await;
    assert_eq!(shown(&batches), ["insert 1 1", "insert 2 2", "insert 3 3"]);
    // What was prepared is not forgotten between two lives.
    let position = batches.last().unwrap().position.clone();
    source.open(Some(&position)).await.unwrap();
    server.query_in(
        "d",
        "XA COMMIT 'kept'; XA ROLLBACK 'else'; XA ROLLBACK 'undone'; INSERT INTO t VALUES (4, 4);
         XA START 'kept'; INSERT INTO t VALUES (5, 5); XA END 'kept'; XA COMMIT 'kept' ONE PHASE;
         XA START 'early'; INSERT INTO t VALUES (6, 6); XA END 'early'; XA ROLLBACK 'early';
         INSERT INTO t VALUES (7, 7)",
    );
    let batches = records(&mut *source, 4).await;
    assert_eq!(shown(&batches), ["insert 4 4", "insert 5 5", "insert 7 7"]);
    let told = letters(&batches);
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(
        told[0].contains("was rolled back, whose changes were delivered"),
        "{told:?}"
    );
    let letter = batches.iter().flat_map(|batch| &batch.undecodable).next().unwrap();
    let sql = String::from_utf8_lossy(&letter.bytes);
    assert!(sql.starts_with("XA ROLLBACK X'756e646f6e65'"), "{sql}");
    assert_eq!(
        server.query_in("d", "SELECT id FROM t ORDER BY id").concat(),
        ["1", "4", "5", "7"]
    );
    // Once is enough: neither when it goes on nor when it reads the same again.
    let end = batches.last().unwrap().position.clone();
    source.open(Some(&end)).await.unwrap();
    quiet(&mut *source).await;
    source.open(Some(&position)).await.unwrap();
    let again = records(&mut *source, 4).await;
    assert_eq!((shown(&again), letters(&again)), (shown(&batches), told));
}
