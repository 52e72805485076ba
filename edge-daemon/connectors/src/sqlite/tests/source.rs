//! The source: configs, order and completeness, positions, changes while it reads, and what can be wrong with a database.

use std::{collections::BTreeMap, fs, time::Instant};

use bus_schema::limits::{PAYLOAD_BYTES_MAX, RECORD_BYTES_MAX};
use flow::{Fault, Position, Read};
use serde_json::json;

use super::{database, drain, next_batch, source, try_source};

#[test]
fn configs_are_checked() {
    let dir = tempfile::tempdir().unwrap();
    for (config, error) in [
        (r#"{"path": "db", "table": "t"}"#, ""),
        (r#"{"path": "db", "query": "SELECT 1 AS a", "cursor": "a"}"#, ""),
        (r#"{"table": "t"}"#, "missing field `path`"),
        (r#"{"path": "", "table": "t"}"#, "path: is empty"),
        (r#"{"path": "db"}"#, "table: is missing: name a table, or give a query"),
        (r#"{"path": "db", "table": ""}"#, "table: is not a table name"),
        (r#"{"path": "db", "table": "a\u0000b"}"#, "table: is not a table name"),
        (
            r#"{"path": "db", "table": "t", "query": "x", "cursor": "c"}"#,
            "query: cannot be given together with table",
        ),
        (r#"{"path": "db", "query": "SELECT 1"}"#, "cursor: is needed with query"),
        (
            r#"{"path": "db", "table": "t", "cursor": ""}"#,
            "cursor: is not a column name",
        ),
        (
            r#"{"path": "db", "table": "t", "batch_rows_max": 0}"#,
            "batch_rows_max: must be from 1 to 65536",
        ),
        (
            r#"{"path": "db", "table": "t", "poll_interval_ms": 1}"#,
            "poll_interval_ms: must be from 10 to 3600000",
        ),
        (
            r#"{"path": "db", "table": "t", "poll_interval_ms": "1s"}"#,
            "poll_interval_ms: invalid type: string",
        ),
        (r#"{"path": "db", "tabel": "t"}"#, "unknown field `tabel`"),
        ("[]", "invalid"),
    ] {
        match (try_source(dir.path(), config), error) {
            (Ok(_), "") => {}
            (Err(found), error) if !error.is_empty() => assert!(found.to_string().contains(error), "{config}: {found}"),
            (result, _) => panic!("{config}: {:?}", result.err()),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn databases_that_cannot_be_read() {
    let good = "CREATE TABLE readings (id INTEGER PRIMARY KEY, at TEXT, value REAL);
                CREATE TABLE w (a TEXT PRIMARY KEY, b INT NOT NULL UNIQUE, c INT UNIQUE, d INT) WITHOUT ROWID;
                CREATE TABLE hidden (rowid, _rowid_, oid);
                CREATE VIEW v AS SELECT * FROM readings;";
    for (config, stop, cause) in [
        (json!({"path": "none", "table": "t"}), false, "there is no file"),
        (
            json!({"path": ".", "table": "t"}),
            true,
            "is a directory, not a database",
        ),
        (
            json!({"path": "text", "table": "t"}),
            true,
            "text is not a SQLite database",
        ),
        (
            json!({"path": "noise", "table": "t"}),
            true,
            "noise is not a SQLite database",
        ),
        (
            json!({"path": "empty", "table": "t"}),
            false,
            "has no table 't' (there is none at all)",
        ),
        (
            json!({"table": "reading"}),
            false,
            "has no table 'reading' (did you mean 'readings'?)",
        ),
        (
            json!({"table": "zzz"}),
            false,
            "(there is 'readings', 'w', 'hidden', 'v')",
        ),
        (
            json!({"table": "readings", "cursor": "ad"}),
            false,
            "has no column 'ad' to use as cursor (did you mean",
        ),
        (json!({"table": "w"}), true, "'w' has no rowid to read by: set cursor"),
        (
            json!({"table": "w", "cursor": "rowid"}),
            false,
            "has no column 'rowid' to use as cursor",
        ),
        (
            json!({"table": "w", "cursor": "c"}),
            true,
            "one column that is UNIQUE and NOT NULL, which 'c' is not",
        ),
        (
            json!({"table": "w", "cursor": "d"}),
            true,
            "which 'd' is not: choose another cursor",
        ),
        (json!({"table": "hidden"}), true, "'hidden' has no rowid to read by"),
        (json!({"table": "v"}), true, "'v' has no rowid to read by"),
        (
            json!({"query": "SELEC 1", "cursor": "a"}),
            false,
            "the query cannot run in",
        ),
        (
            json!({"query": "DELETE FROM readings RETURNING id", "cursor": "id"}),
            false,
            "syntax error",
        ),
        (
            json!({"query": "SELECT id, at FROM readings", "cursor": "value"}),
            false,
            "(there is 'id', 'at')",
        ),
        (json!({"table": "w", "cursor": "a"}), false, ""),
        (json!({"table": "w", "cursor": "B"}), false, ""),
        (json!({"table": "READINGS", "cursor": "ID"}), false, ""),
        (json!({"table": "v", "cursor": "id"}), false, ""),
        (
            json!({"query": "SELECT id, at FROM readings -- all", "cursor": "id"}),
            false,
            "",
        ),
    ] {
        let dir = tempfile::tempdir().unwrap();
        database(dir.path(), "db", good);
        fs::write(dir.path().join("text"), "just a short text").unwrap();
        fs::write(dir.path().join("noise"), [0xa5; 8192]).unwrap();
        fs::write(dir.path().join("empty"), "").unwrap();
        let mut source = source(dir.path(), config.clone());
        match (source.open(None).await, cause) {
            (Ok(()), "") => assert!(matches!(source.read().await, Ok(Read::Idle)), "{config}"),
            (Err(fault), cause) if !cause.is_empty() => {
                assert!(fault.to_string().contains(cause), "{config}: {fault}");
                assert_eq!(matches!(fault, Fault::Stop { .. }), stop, "{config}: {fault}");
            }
            (result, _) => panic!("{config}: {result:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_locked_database_is_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let writer = database(dir.path(), "db", "CREATE TABLE t (a); BEGIN EXCLUSIVE");
    let mut source = source(dir.path(), json!({"table": "t"}));
    let fault = source.open(None).await.unwrap_err();
    assert!(matches!(&fault, Fault::Retry { .. }), "{fault}");
    assert!(fault.to_string().contains("is locked by another process"), "{fault}");
    writer.execute_batch("COMMIT").unwrap();
    source.open(None).await.unwrap();
}

/// The first column of every row, over restarts: the source is opened anew after each batch, from its position.
async fn all_ids(dir: &std::path::Path, config: serde_json::Value, restart: bool) -> Vec<i64> {
    let mut source_ = source(dir, config.clone());
    source_.open(None).await.unwrap();
    let mut ids = Vec::new();
    while let Read::Batch(batch) = source_.read().await.unwrap() {
        for row in 0..batch.batch.rows() {
            let bus_schema::data::Cell::I64(id) = batch.batch.cell(row, 0) else {
                panic!("an id")
            };
            ids.push(id);
        }
        if restart {
            source_ = source(dir, config.clone());
            source_.open(Some(&batch.position)).await.unwrap();
        }
    }
    ids
}

#[tokio::test(start_paused = true)]
async fn equal_cursor_values_are_neither_skipped_nor_repeated() {
    let dir = tempfile::tempdir().unwrap();
    // 300 rows; cursor values come in groups of 1 to 40 rows, which batches of 7 cut anywhere.
    let conn = database(
        dir.path(),
        "db",
        "CREATE TABLE t (id INTEGER PRIMARY KEY, i INT, r REAL, s TEXT COLLATE NOCASE, b BLOB, x, plain INT);
         CREATE INDEX ti ON t(i); CREATE INDEX ts ON t(s); CREATE INDEX tx ON t(x);
         WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 300)
         INSERT INTO t SELECT n, n / 40, n / 7 * -0.5, CASE n % 2 WHEN 0 THEN 'A' ELSE 'a' END || (n / 20), zeroblob(n / 30),
             CASE n / 60 WHEN 0 THEN n WHEN 1 THEN n / 9 + 0.5 WHEN 2 THEN 'text' WHEN 3 THEN x'00' ELSE 7 END, 5 FROM n",
    );
    for cursor in ["i", "r", "s", "b", "x", "plain", "id", "rowid"] {
        let query = format!("SELECT id FROM t ORDER BY {cursor}, id");
        let wanted: Vec<i64> = conn
            .prepare(&query)
            .unwrap()
            .query_map([], |row| row.get(0))
            .unwrap()
            .map(Result::unwrap)
            .collect();
        assert_eq!(wanted.len(), 300);
        for (rows_max, restart) in [(7, false), (7, true), (1, true), (1000, false)] {
            let config = json!({"table": "t", "cursor": cursor, "batch_rows_max": rows_max});
            assert_eq!(
                all_ids(dir.path(), config, restart).await,
                wanted,
                "{cursor} by {rows_max}"
            );
        }
    }
    let config = json!({"query": "SELECT id, i FROM t WHERE id % 3 = 0", "cursor": "id", "batch_rows_max": 9});
    assert_eq!(
        all_ids(dir.path(), config, true).await,
        (1..=100).map(|n| n * 3).collect::<Vec<_>>()
    );
}

#[tokio::test(start_paused = true)]
async fn rows_that_come_later_are_read_once() {
    let dir = tempfile::tempdir().unwrap();
    let sql = "CREATE TABLE t (id INTEGER PRIMARY KEY, at INT); INSERT INTO t VALUES (10, 1), (11, 2)";
    let conn = database(dir.path(), "db", sql);
    let mut source = source(dir.path(), json!({"table": "t", "cursor": "at"}));
    source.open(None).await.unwrap();
    let mut seen = BTreeMap::new();
    for sql in [
        "",
        // The same time as the last row read, and a later one.
        "INSERT INTO t VALUES (12, 2), (13, 3)",
        "INSERT INTO t VALUES (14, 3)",
        // Not for us: another table.
        "CREATE TABLE other (a); INSERT INTO other VALUES (1)",
        // A changed row comes again with its new time.
        "UPDATE t SET at = 4 WHERE id = 10",
    ] {
        conn.execute_batch(sql).unwrap();
        for batch in drain(&mut *source).await {
            for row in 0..batch.batch.rows() {
                let id = batch.batch.cell(row, 0).to_string();
                *seen.entry(id).or_insert(0) += 1;
            }
        }
    }
    let times: Vec<_> = seen.iter().map(|(id, times)| format!("{id} {times}")).collect();
    assert_eq!(times, ["10 2", "11 1", "12 1", "13 1", "14 1"]);
}

#[tokio::test]
async fn new_rows_are_seen_within_the_poll_interval_and_idle_reads_return() {
    let dir = tempfile::tempdir().unwrap();
    let conn = database(dir.path(), "db", "PRAGMA journal_mode = WAL; CREATE TABLE t (a)");
    let mut source = source(dir.path(), json!({"table": "t"}));
    source.open(None).await.unwrap();
    let start = Instant::now();
    assert!(matches!(source.read().await, Ok(Read::Idle)));
    assert!(
        start.elapsed() >= std::time::Duration::from_millis(400),
        "it waits for rows"
    );
    conn.execute_batch("INSERT INTO t VALUES (1)").unwrap();
    assert!(matches!(source.read().await, Ok(Read::Batch(_))));
}

#[tokio::test(start_paused = true)]
async fn columns_may_change_while_it_reads() {
    let dir = tempfile::tempdir().unwrap();
    let conn = database(
        dir.path(),
        "db",
        "CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT); INSERT INTO t VALUES (1, 'x')",
    );
    let mut source = source(dir.path(), json!({"table": "t"}));
    source.open(None).await.unwrap();
    for (sql, columns) in [
        ("", "id i64, a text"),
        (
            "ALTER TABLE t ADD COLUMN b REAL; INSERT INTO t VALUES (2, 'y', 0.5)",
            "id i64, a text, b f64",
        ),
        (
            "ALTER TABLE t RENAME COLUMN a TO name; INSERT INTO t VALUES (3, 'z', 1)",
            "id i64, name text, b f64",
        ),
        (
            "ALTER TABLE t DROP COLUMN b; INSERT INTO t VALUES (4, 'z')",
            "id i64, name text",
        ),
        (
            "CREATE INDEX i ON t(name); INSERT INTO t VALUES (5, 'z')",
            "id i64, name text",
        ),
    ] {
        conn.execute_batch(sql).unwrap();
        let batch = next_batch(&mut *source).await.batch;
        let fields = batch
            .schema()
            .fields
            .iter()
            .map(|field| format!("{} {}", field.name, field.ty));
        assert_eq!(fields.collect::<Vec<_>>().join(", "), columns, "{sql}");
        assert_eq!(batch.rows(), 1);
    }
    conn.execute_batch("ALTER TABLE t RENAME TO tt").unwrap();
    let fault = source.read().await.unwrap_err();
    assert!(
        matches!(fault, Fault::Retry { .. }) && fault.to_string().contains("did you mean 'tt'"),
        "{fault}"
    );
}

#[tokio::test(start_paused = true)]
async fn what_is_no_record_goes_to_the_dead_letters_alone() {
    let dir = tempfile::tempdir().unwrap();
    let conn = database(
        dir.path(),
        "db",
        "CREATE TABLE t (id INTEGER PRIMARY KEY, at INT, s TEXT);
         INSERT INTO t VALUES (1, 10, 'good'), (2, 20, CAST(x'ff41' AS TEXT)), (3, NULL, 'no time'), (4, 40, 'good'),
             (-5, NULL, NULL), (6, 60, CAST(x'c3' AS TEXT)), (7, 70, 'good')",
    );
    conn.execute(
        "INSERT INTO t VALUES (8, 80, zeroblob(?1)), (9, 90, 'last')",
        [RECORD_BYTES_MAX as i64 + 1],
    )
    .unwrap();
    for rows_max in [4096, 1] {
        let mut source_ = source(
            dir.path(),
            json!({"table": "t", "cursor": "at", "batch_rows_max": rows_max}),
        );
        source_.open(None).await.unwrap();
        let batches = drain(&mut *source_).await;
        let ids = batches
            .iter()
            .flat_map(|b| (0..b.batch.rows()).map(|row| b.batch.cell(row, 0).to_string()));
        assert_eq!(ids.collect::<Vec<_>>(), ["1", "4", "7", "9"]);
        let dead = batches
            .iter()
            .flat_map(|b| &b.undecodable)
            .map(|u| format!("{} [{}]", u.reason, u.bytes.escape_ascii()));
        assert_eq!(
            dead.collect::<Vec<_>>(),
            [
                r"t, rowid 2: column 's' holds text that is not UTF-8 [\xffA]",
                r"t, rowid 6: column 's' holds text that is not UTF-8 [\xc3]",
                &format!(
                    "t, rowid 8: holds {} bytes, and a record holds at most {RECORD_BYTES_MAX} []",
                    RECORD_BYTES_MAX + 20
                ),
                "t, rowid -5: NULL in the cursor column 'at' has no place in its order [id=-5, at=NULL, s=NULL]",
                r#"t, rowid 3: NULL in the cursor column 'at' has no place in its order [id=3, at=NULL, s=\"no time\"]"#,
            ]
        );
        // Reported once, also after a restart.
        let position = &batches.last().unwrap().position;
        let mut again = source(dir.path(), json!({"table": "t", "cursor": "at"}));
        again.open(Some(position)).await.unwrap();
        assert!(drain(&mut *again).await.is_empty());
    }
    conn.execute_batch("INSERT INTO t VALUES (20, NULL, 'new')").unwrap();
}

#[tokio::test(start_paused = true)]
async fn batches_fit_one_envelope_unless_one_row_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let conn = database(dir.path(), "db", "CREATE TABLE t (id INTEGER PRIMARY KEY, b BLOB)");
    let sizes = [
        10, 50_000, 10, 20_000, 20_000, 20_000, 90_000, 90_000, 10, 1_000_000, 10,
    ];
    for size in sizes {
        conn.execute("INSERT INTO t (b) VALUES (randomblob(?1))", [size])
            .unwrap();
    }
    let mut source = source(dir.path(), json!({"table": "t"}));
    source.open(None).await.unwrap();
    let batches = drain(&mut *source).await;
    let rows: Vec<usize> = batches.iter().map(|batch| batch.batch.rows()).collect();
    assert_eq!(rows, [3, 3, 1, 1, 1, 1, 1]);
    for batch in batches {
        let bytes = batch.batch.encode().len();
        assert!(bytes <= PAYLOAD_BYTES_MAX || batch.batch.rows() == 1, "{bytes}");
    }
}

#[tokio::test(start_paused = true)]
async fn rowids_given_again_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let conn = database(
        dir.path(),
        "db",
        "CREATE TABLE t (a TEXT); INSERT INTO t VALUES ('1'), ('2'), ('3')",
    );
    let mut source = source(dir.path(), json!({"table": "t"}));
    source.open(None).await.unwrap();
    let mut seen = Vec::new();
    for sql in [
        "",
        "DELETE FROM t WHERE rowid > 1",
        "INSERT INTO t VALUES ('4')",
        "DELETE FROM t",
        "INSERT INTO t VALUES ('5')",
    ] {
        conn.execute_batch(sql).unwrap();
        for batch in drain(&mut *source).await {
            seen.extend((0..batch.batch.rows()).map(|row| batch.batch.cell(row, 0).to_string()));
        }
    }
    assert_eq!(seen.join(""), "12345");
}

#[tokio::test(start_paused = true)]
async fn a_replaced_file_is_opened_again() {
    let dir = tempfile::tempdir().unwrap();
    database(
        dir.path(),
        "db",
        "CREATE TABLE t (id INTEGER PRIMARY KEY); INSERT INTO t VALUES (1)",
    );
    database(
        dir.path(),
        "new",
        "CREATE TABLE t (id INTEGER PRIMARY KEY); INSERT INTO t VALUES (1), (2)",
    );
    let mut source = source(dir.path(), json!({"table": "t"}));
    source.open(None).await.unwrap();
    let position = next_batch(&mut *source).await.position;
    fs::rename(dir.path().join("new"), dir.path().join("db")).unwrap();
    let fault = source.read().await.unwrap_err();
    assert!(fault.to_string().contains("was replaced by another file"), "{fault}");
    source.close().await;
    source.open(Some(&position)).await.unwrap();
    let batch = next_batch(&mut *source).await.batch;
    assert_eq!((batch.rows(), batch.cell(0, 0).to_string()), (1, "2".to_string()));
    fs::remove_file(dir.path().join("db")).unwrap();
    assert!(
        source
            .read()
            .await
            .unwrap_err()
            .to_string()
            .contains("there is no file")
    );
}

#[tokio::test(start_paused = true)]
async fn foreign_positions_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    database(
        dir.path(),
        "db",
        "CREATE TABLE t (id INTEGER PRIMARY KEY, at INT NOT NULL); INSERT INTO t VALUES (1, 1)",
    );
    let mut by_id = source(dir.path(), json!({"table": "t", "cursor": "id"}));
    by_id.open(None).await.unwrap();
    let position = next_batch(&mut *by_id).await.position;
    let mut by_time = source(dir.path(), json!({"table": "t", "cursor": "at"}));
    for (position, cause) in [
        (&position, "set cursor = \"rowid\" again"),
        (&Position::new(*b"{}"), "not one of a sqlite source"),
    ] {
        let fault = by_time.open(Some(position)).await.unwrap_err();
        assert!(
            matches!(&fault, Fault::Stop { cause: found } if found.contains(cause)),
            "{fault}"
        );
    }
    // Another name of the same thing.
    let mut by_rowid = source(dir.path(), json!({"table": "t"}));
    by_rowid.open(Some(&position)).await.unwrap();
    assert!(drain(&mut *by_rowid).await.is_empty());
}
