//! The changes of a table: each of them, in order, whatever makes it, and what can be wrong with table and journal.

use std::collections::BTreeMap;

use bus_schema::{
    data::{Batch, Op, Value},
    limits::RECORD_BYTES_MAX,
};
use flow::{Fault, Position, Read, Source, SourceBatch};
use rusqlite::Connection;
use serde_json::json;

use super::{database, drain, literals, next_batch, source, try_source};

/// What the journal of the source in these tests is called.
pub(super) const JOURNAL: &str = "mycelial__node";

/// A source of the changes of table `t`.
pub(super) fn changes(dir: &std::path::Path, more: serde_json::Value) -> Box<dyn Source> {
    let mut config = json!({"mode": "changes", "table": "t"});
    config
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    source(dir, config)
}

/// The operations and values of batches: `insert 1 a`.
fn shown(batches: &[SourceBatch]) -> Vec<String> {
    let row = |batch: &Batch, row: usize| {
        let values = (0..batch.columns().len()).map(|column| match batch.cell(row, column).to_value() {
            Value::Null => "null".to_string(),
            Value::Missing => "-".to_string(),
            value => value.as_cell().to_string(),
        });
        let values = values.collect::<Vec<_>>().join(" ");
        format!("{} {values}", format!("{:?}", batch.op(row)).to_lowercase())
    };
    let rows = batches
        .iter()
        .flat_map(|batch| (0..batch.batch.rows()).map(|at| row(&batch.batch, at)));
    rows.collect()
}

fn letters(batches: &[SourceBatch]) -> Vec<String> {
    let letters = batches.iter().flat_map(|batch| &batch.undecodable);
    letters.map(|letter| letter.reason.clone()).collect()
}

/// A table as a destination would have it that takes every record exactly as it is meant.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Copy {
    /// Its key compares without case.
    pub(super) is_nocase: bool,
    rows: BTreeMap<String, Vec<Value>>,
}

impl Copy {
    /// Panics where an operation does not fit what there is.
    pub(super) fn apply(&mut self, batch: &Batch) {
        let fields = &batch.schema().fields;
        for row in 0..batch.rows() {
            let values: Vec<Value> = (0..fields.len()).map(|at| batch.cell(row, at).to_value()).collect();
            let key = fields.iter().zip(&values).filter(|(field, _)| field.key);
            let key: Vec<_> = key.map(|(_, value)| format!("{value:?}")).collect();
            let key = match self.is_nocase {
                true => key.join(" ").to_lowercase(),
                false => key.join(" "),
            };
            let known = self.rows.contains_key(&key);
            match batch.op(row) {
                Op::Insert => assert!(!known, "{key} is there already"),
                Op::Update => assert!(known, "{key} is not there to be updated"),
                Op::Delete => {
                    assert!(self.rows.remove(&key).is_some(), "{key} is not there to be deleted");
                    continue;
                }
                Op::Upsert => {}
            }
            let kept = self.rows.remove(&key).unwrap_or_default();
            let mut kept = kept.into_iter().chain(std::iter::repeat(Value::Null));
            let merged = values.into_iter().map(|value| {
                let before = kept.next().unwrap();
                if value == Value::Missing { before } else { value }
            });
            self.rows.insert(key, merged.collect());
        }
    }

    /// The rows as SQL literals in the order of the keys.
    pub(super) fn literals(&self) -> Vec<String> {
        let literal = |value: &Value| match value {
            Value::Null => "NULL".to_string(),
            Value::I64(v) => v.to_string(),
            Value::F64(v) => format!("{v:?}"),
            Value::Text(v) => format!("'{v}'"),
            Value::Bytes(v) => format!("x'{}'", v.iter().map(|b| format!("{b:02x}")).collect::<String>()),
            value => format!("{value:?}"),
        };
        let row = |row: &Vec<Value>| row.iter().map(literal).collect::<Vec<_>>().join(",");
        let mut rows: Vec<String> = self.rows.values().map(row).collect();
        rows.sort();
        rows
    }
}

/// The rows of `t` in the same form.
pub(super) fn contents(conn: &Connection) -> Vec<String> {
    let mut rows = literals(conn, "SELECT * FROM t");
    rows.sort();
    rows
}

fn journal_rows(conn: &Connection) -> i64 {
    conn.query_row(&format!("SELECT count(*) FROM {JOURNAL}"), [], |row| row.get(0))
        .unwrap()
}

#[test]
fn configs_are_checked() {
    let dir = tempfile::tempdir().unwrap();
    for (config, error) in [
        (r#""mode": "changes", "table": "t""#, ""),
        (
            r#""mode": "changes", "table": "t", "journal": "J", "journal_rows_max": 1000, "snapshot": false"#,
            "",
        ),
        (
            r#""mode": "changes""#,
            "table: is missing: name the table whose changes",
        ),
        (r#""mode": "changes", "table": "" "#, "table: is not a table name"),
        (
            r#""mode": "changes", "query": "SELECT 1""#,
            "query: is of no use with mode",
        ),
        (
            r#""mode": "changes", "table": "t", "cursor": "id""#,
            "cursor: is of no use with mode",
        ),
        (
            r#""mode": "changes", "table": "t", "journal": "T""#,
            "journal: is not a name for a new table",
        ),
        (
            r#""mode": "changes", "table": "t", "journal": "sqlite_j""#,
            "journal: is not a name",
        ),
        (
            r#""mode": "changes", "table": "t", "journal_rows_max": 5"#,
            "journal_rows_max: must be from 1000",
        ),
        (r#""mode": "stream", "table": "t""#, "unknown variant `stream`"),
        (r#""table": "t", "journal": "j""#, "journal: is of use only with mode"),
        (
            r#""table": "t", "snapshot": true"#,
            "snapshot: is of use only with mode",
        ),
        (
            r#""table": "t", "journal_rows_max": 1000"#,
            "journal_rows_max: is of use only with mode",
        ),
    ] {
        match (
            try_source(dir.path(), &format!("{{\"path\": \"db\", {config}}}")),
            error,
        ) {
            (Ok(_), "") => {}
            (Err(found), error) if !error.is_empty() => assert!(found.to_string().contains(error), "{config}: {found}"),
            (result, _) => panic!("{config}: {:?}", result.err()),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_captured() {
    for (sql, config, stop, cause) in [
        (
            "",
            json!({"table": "tt"}),
            false,
            "has no table 'tt' (did you mean 't'?)",
        ),
        (
            "CREATE VIEW v AS SELECT 1",
            json!({"table": "v"}),
            true,
            "'v' is a view",
        ),
        (
            "CREATE TABLE bare (a)",
            json!({"table": "bare"}),
            true,
            "'bare' has no primary key",
        ),
        (
            "CREATE TABLE mine (a)",
            json!({"journal": "mine"}),
            true,
            "has a table 'mine' that is no journal: choose another name",
        ),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let conn = database(dir.path(), "db", "CREATE TABLE t (id INTEGER PRIMARY KEY)");
        conn.execute_batch(sql).unwrap();
        let before = literals(&conn, "SELECT sql FROM sqlite_schema");
        let fault = changes(dir.path(), config).open(None).await.unwrap_err();
        assert!(fault.to_string().contains(cause), "{fault}");
        assert_eq!(matches!(fault, Fault::Stop { .. }), stop, "{fault}");
        assert_eq!(
            literals(&conn, "SELECT sql FROM sqlite_schema"),
            before,
            "nothing was made"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn every_change_comes_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let conn = database(
        dir.path(),
        "db",
        "PRAGMA foreign_keys = ON; CREATE TABLE p (id INTEGER PRIMARY KEY); INSERT INTO p VALUES (1), (2);
         CREATE TABLE t (a TEXT, b INT REFERENCES p ON DELETE CASCADE, v INT, g AS (b + 1), PRIMARY KEY (a, b));
         INSERT INTO t VALUES ('x', 1, 1), ('y', 2, NULL)",
    );
    let mut source = changes(dir.path(), json!({}));
    source.open(None).await.unwrap();
    let batches = drain(&mut *source).await;
    assert_eq!(shown(&batches), ["insert x 1 1 2", "insert y 2 null 3"]);
    let fields = batches[0].batch.schema().fields.iter();
    let fields: Vec<_> = fields
        .map(|field| format!("{} {} {}", field.name, field.ty, field.key))
        .collect();
    assert_eq!(fields, ["a text true", "b i64 true", "v i64 false", "g any false"]);
    for (sql, expected) in [
        ("INSERT INTO t VALUES ('z', 2, 5)", &["upsert z 2 5 3"][..]),
        (
            "UPDATE t SET v = 7",
            &["update x 1 7 2", "update y 2 7 3", "update z 2 7 3"],
        ),
        (
            "UPDATE t SET a = 'w' WHERE a = 'x'",
            &["delete x 1 - -", "upsert w 1 7 2"],
        ),
        ("INSERT OR REPLACE INTO t VALUES ('w', 1, 8)", &["upsert w 1 8 2"]),
        (
            "INSERT INTO t VALUES ('w', 1, 8) ON CONFLICT DO UPDATE SET v = v + 1",
            &["update w 1 9 2"],
        ),
        ("INSERT OR IGNORE INTO t VALUES ('w', 1, 0)", &[]),
        ("BEGIN; DELETE FROM t; INSERT INTO p VALUES (9); ROLLBACK", &[]),
        (
            "BEGIN; SAVEPOINT s; DELETE FROM t WHERE a = 'w'; ROLLBACK TO s; UPDATE t SET v = 0 WHERE a = 'w'; COMMIT",
            &["update w 1 0 2"],
        ),
        ("DELETE FROM p WHERE id = 1", &["delete w 1 - -"]),
        (
            "INSERT OR FAIL INTO t VALUES ('f', 2, 1), ('y', 2, 1)",
            &["upsert f 2 1 3"],
        ),
        ("VACUUM", &[]),
        ("DELETE FROM t", &["delete f 2 - -", "delete y 2 - -", "delete z 2 - -"]),
    ] {
        let _conflicts = conn.execute_batch(sql);
        let batches = drain(&mut *source).await;
        let mut found = shown(&batches);
        if sql == "DELETE FROM t" {
            found.sort();
        }
        assert_eq!(found, expected, "{sql}");
        if let Some(last) = batches.last() {
            source.commit(&last.position).await.unwrap();
        }
        // Idle: then what was committed is taken off, but for the last row.
        assert!(matches!(source.read().await.unwrap(), Read::Idle));
        assert_eq!(journal_rows(&conn), 1, "{sql}");
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_forgotten_before_it_is_committed() {
    let dir = tempfile::tempdir().unwrap();
    let conn = database(dir.path(), "db", "CREATE TABLE t (id INTEGER PRIMARY KEY)");
    let mut source = changes(dir.path(), json!({"batch_rows_max": 2}));
    source.open(None).await.unwrap();
    assert!(drain(&mut *source).await.is_empty());
    conn.execute_batch("INSERT INTO t VALUES (1), (2), (3), (4), (5)")
        .unwrap();
    let batches = drain(&mut *source).await;
    assert_eq!((batches.len(), journal_rows(&conn)), (3, 6));
    // Somebody writes: it is done later.
    conn.execute_batch("BEGIN IMMEDIATE").unwrap();
    source.commit(&batches[0].position).await.unwrap();
    assert!(matches!(source.read().await.unwrap(), Read::Idle));
    conn.execute_batch("COMMIT").unwrap();
    assert_eq!(journal_rows(&conn), 6);
    assert!(matches!(source.read().await.unwrap(), Read::Idle));
    assert_eq!(journal_rows(&conn), 3);
    // At the end as well, without waiting.
    source.commit(&batches[1].position).await.unwrap();
    source.close().await;
    assert_eq!(journal_rows(&conn), 1);
    source.open(Some(&batches[1].position)).await.unwrap();
    assert_eq!(shown(&drain(&mut *source).await), ["upsert 5"]);
    source.close().await;
    // What was committed is gone: an older position has nothing to go on from.
    let fault = match source.open(Some(&batches[0].position)).await {
        Ok(()) => source.read().await.unwrap_err(),
        Err(fault) => fault,
    };
    assert!(
        matches!(&fault, Fault::Stop { cause } if cause.contains("is lost")),
        "{fault}"
    );
}

#[tokio::test(start_paused = true)]
async fn rows_that_change_while_the_table_is_read_are_neither_lost_nor_doubled() {
    let dir = tempfile::tempdir().unwrap();
    let conn = database(
        dir.path(),
        "db",
        "CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT);
         INSERT INTO t VALUES (10, 'a'), (20, 'b'), (30, 'c'), (40, 'd'), (50, 'e')",
    );
    for restart in [false, true] {
        let mut source_ = changes(dir.path(), json!({"batch_rows_max": 2}));
        source_.open(None).await.unwrap();
        let mut batches = vec![next_batch(&mut *source_).await];
        conn.execute_batch(
            "UPDATE t SET v = 'A' WHERE id = 10; UPDATE t SET v = 'C' WHERE id = 30; DELETE FROM t WHERE id = 20;
             DELETE FROM t WHERE id = 40; INSERT INTO t VALUES (15, 'new'), (45, 'new'); UPDATE t SET id = 5 WHERE id = 50;
             UPDATE t SET id = 60 WHERE id = 5",
        )
        .unwrap();
        if restart {
            source_ = changes(dir.path(), json!({"batch_rows_max": 2}));
            source_.open(Some(&batches[0].position)).await.unwrap();
        }
        batches.extend(drain(&mut *source_).await);
        assert_eq!(
            shown(&batches),
            [
                "insert 10 a",
                "insert 20 b",
                "update 10 A",
                "delete 20 -",
                "upsert 15 new",
                "upsert 5 e",
                "delete 5 -",
                "insert 30 C",
                "insert 45 new",
                "insert 60 e"
            ]
        );
        conn.execute_batch("DELETE FROM t; INSERT INTO t VALUES (10, 'a'), (20, 'b'), (30, 'c'), (40, 'd'), (50, 'e')")
            .unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_snapshot_changes_begin_with_the_journal() {
    let dir = tempfile::tempdir().unwrap();
    let sql = "CREATE TABLE t (id INTEGER PRIMARY KEY, v); INSERT INTO t VALUES (1, 1)";
    let conn = database(dir.path(), "db", sql);
    let config = json!({"snapshot": false});
    changes(dir.path(), config.clone()).open(None).await.unwrap();
    // Killed before anything was delivered: what came since is still there.
    conn.execute_batch("UPDATE t SET v = 2").unwrap();
    let mut source = changes(dir.path(), config);
    source.open(None).await.unwrap();
    assert_eq!(shown(&drain(&mut *source).await), ["update 1 2"]);
    // With a snapshot it begins anew, and nothing comes twice.
    let mut source = changes(dir.path(), json!({}));
    source.open(None).await.unwrap();
    assert_eq!(shown(&drain(&mut *source).await), ["insert 1 2"]);
}

#[tokio::test(start_paused = true)]
async fn triggers_of_the_users_own_may_run_before_ours_or_after() {
    let users = "CREATE TRIGGER u AFTER UPDATE ON t WHEN NEW.at IS OLD.at BEGIN UPDATE t SET at = at + 1 WHERE id = NEW.id; END;
                 CREATE TRIGGER i AFTER INSERT ON t BEGIN UPDATE t SET at = 100 WHERE id = NEW.id; END;
                 CREATE TRIGGER d AFTER DELETE ON t WHEN OLD.id = 3 BEGIN INSERT INTO t VALUES (3, 'back', 0); END;";
    for first in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let conn = database(
            dir.path(),
            "db",
            "CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT, at INT)",
        );
        if first {
            conn.execute_batch(users).unwrap();
        }
        let mut source = changes(dir.path(), json!({}));
        source.open(None).await.unwrap();
        if !first {
            conn.execute_batch(users).unwrap();
        }
        conn.execute_batch(
            "INSERT INTO t VALUES (1, 'a', 0), (2, 'b', 0), (3, 'c', 0); UPDATE t SET v = 'x' WHERE id < 3; \
             DELETE FROM t WHERE id > 1",
        )
        .unwrap();
        let mut copy = BTreeMap::new();
        for record in shown(&drain(&mut *source).await) {
            let (op, row) = record.split_once(' ').unwrap();
            let id = row.split(' ').next().unwrap().to_string();
            match op {
                "delete" => copy.remove(&id),
                _ => copy.insert(id, row.to_string()),
            };
        }
        let rows: Vec<String> = copy.into_values().collect();
        assert_eq!(rows, ["1 x 101", "3 back 100"], "first: {first}");
    }
}

#[tokio::test(start_paused = true)]
async fn values_come_as_they_are_stored() {
    let columns = "i INTEGER, r REAL, s TEXT, b BLOB, x, n NUMERIC, d DECIMAL(9,2), \"or\"\"der\" TEXT COLLATE NOCASE";
    let values = "(1, 5, 5.0, '5', x'00ff', '5', '5', 5, 'Ä'), (2, 9223372036854775807, -0.0, '', x'', 1.5, '1.50', 'text', NULL),
                  (3, 'text', 9e999, x'41', 'text', x'01', NULL, 1e300, ''), (4, 1.5, 'text', 7, 3, 'text', 7.0, x'00', '😀')";
    for (strict, columns) in [
        ("", columns),
        (" STRICT", "i INT, r REAL, s TEXT, b BLOB, x ANY, n ANY, d ANY, o TEXT"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let sql = format!("CREATE TABLE t (id INTEGER PRIMARY KEY, {columns}){strict}");
        let conn = database(dir.path(), "db", &sql);
        let mut source = changes(dir.path(), json!({}));
        source.open(None).await.unwrap();
        assert!(drain(&mut *source).await.is_empty());
        let sql = match strict {
            "" => format!("INSERT INTO t VALUES {values}"),
            _ => "INSERT INTO t VALUES (1, 5, 5, '5', x'00', '5', 5.0, 5, ''), (2, -1, -0.0, '', x'', NULL, x'01', 'x', NULL)"
                .to_string(),
        };
        conn.execute_batch(&sql).unwrap();
        let mut copy = Copy::default();
        drain(&mut *source)
            .await
            .iter()
            .for_each(|batch| copy.apply(&batch.batch));
        assert_eq!(copy.literals(), contents(&conn), "{strict}");
        let kinds =
            "typeof(\"2\"), typeof(\"3\"), typeof(\"4\"), typeof(\"5\"), typeof(\"6\"), typeof(\"7\"), typeof(\"8\")";
        let of_journal = literals(
            &conn,
            &format!("SELECT {kinds} FROM {JOURNAL} WHERE \"1\" IS NOT NULL ORDER BY _seq"),
        );
        let of_table = literals(
            &conn,
            "SELECT typeof(i), typeof(r), typeof(s), typeof(b), typeof(x), typeof(n), typeof(d) FROM t ORDER BY id",
        );
        assert_eq!(of_journal, of_table);
    }
}

#[tokio::test(start_paused = true)]
async fn columns_and_tables_may_be_added_and_renamed() {
    let dir = tempfile::tempdir().unwrap();
    let conn = database(
        dir.path(),
        "db",
        "CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT, b INT); INSERT INTO t VALUES (1, 'x', 1), (2, 'y', 2)",
    );
    let mut source = changes(dir.path(), json!({}));
    source.open(None).await.unwrap();
    assert_eq!(shown(&drain(&mut *source).await).len(), 2);
    for (sql, columns, expected) in [
        // The second change was written by triggers that did not know the column; that before the last of a row, never.
        (
            "UPDATE t SET b = 3 WHERE id = 1; ALTER TABLE t ADD COLUMN c TEXT DEFAULT 'd'; UPDATE t SET b = 4 WHERE id = 2;
             UPDATE t SET c = 'set', b = 5 WHERE id = 2; INSERT INTO t VALUES (3, 'z', 6, 'own'); DELETE FROM t WHERE id = 1",
            "id a b c",
            &["update 1 x 3 -", "update 2 y 4 -", "update 2 y 5 set", "upsert 3 z 6 own", "delete 1 - - -"][..],
        ),
        ("UPDATE t SET c = NULL WHERE id = 2", "id a b c", &["update 2 y 5 null"]),
        (
            "UPDATE t SET a = 'before' WHERE id = 2; ALTER TABLE t RENAME COLUMN a TO \"q \"\"1\"; UPDATE t SET b = 6 WHERE id = 2",
            "id q \"1 b c",
            &["update 2 before 5 null", "update 2 before 6 null"],
        ),
        // Two names change places, the key has another, and there is one more column.
        (
            "ALTER TABLE t RENAME COLUMN b TO x; ALTER TABLE t RENAME COLUMN c TO b; ALTER TABLE t RENAME COLUMN x TO c;
             ALTER TABLE t RENAME COLUMN id TO key; ALTER TABLE t ADD COLUMN e REAL; UPDATE t SET e = 1, key = 7 WHERE key = 3",
            "key q \"1 c b e",
            &["delete 3 - - - -", "upsert 7 z 6 own 1.0"],
        ),
        ("CREATE TABLE other (a); CREATE INDEX i ON t (c); DELETE FROM t WHERE key = 7", "key q \"1 c b e", &["delete 7 - - - -"]),
    ] {
        conn.execute_batch(sql).unwrap();
        let batches = drain(&mut *source).await;
        assert_eq!(shown(&batches), expected, "{sql}");
        let fields = &batches[0].batch.schema().fields;
        let names: Vec<_> = fields.iter().map(|field| field.name.as_str()).collect();
        assert_eq!(names.join(" "), columns, "{sql}");
        source.commit(&batches.last().unwrap().position).await.unwrap();
    }
    let error = conn.execute_batch("ALTER TABLE t DROP COLUMN e").unwrap_err();
    assert!(error.to_string().contains(JOURNAL), "it names the trigger: {error}");

    // The table is renamed: once the config says so too, it goes on, and what came meanwhile is there.
    conn.execute_batch("INSERT INTO t VALUES (8, 'i', 1, 'j', 2)").unwrap();
    let position = next_batch(&mut *source).await.position;
    conn.execute_batch("ALTER TABLE t RENAME TO tt; DELETE FROM tt WHERE key = 8")
        .unwrap();
    let fault = source.read().await.unwrap_err();
    assert!(
        matches!(&fault, Fault::Retry { cause, .. } if cause.contains("did you mean 'tt'")),
        "{fault}"
    );
    let mut source = changes(dir.path(), json!({"table": "tt"}));
    source.open(Some(&position)).await.unwrap();
    assert_eq!(shown(&drain(&mut *source).await), ["delete 8 - - - -"]);
}

#[tokio::test(start_paused = true)]
async fn a_full_journal_gives_up_and_the_program_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let sql = "PRAGMA synchronous = OFF; CREATE TABLE t (id INTEGER PRIMARY KEY)";
    let conn = database(dir.path(), "db", sql);
    let config = json!({"journal_rows_max": 1000});
    let mut source_ = changes(dir.path(), config.clone());
    source_.open(None).await.unwrap();
    let insert = |from: i64, to: i64| {
        for id in from..to {
            conn.execute("INSERT INTO t VALUES (?1)", [id]).unwrap();
        }
    };
    insert(0, 10);
    let position = drain(&mut *source_).await.pop().unwrap().position;
    source_.close().await;
    insert(10, 3000);
    assert_eq!(
        journal_rows(&conn),
        1002,
        "the one it begins with, a thousand, and that it is full"
    );
    source_.open(Some(&position)).await.unwrap();
    let batch = next_batch(&mut *source_).await;
    assert_eq!(batch.batch.rows(), 990);
    let fault = source_.read().await.unwrap_err();
    let cause = fault.to_string();
    assert!(matches!(fault, Fault::Stop { .. }), "{cause}");
    source_.commit(&batch.position).await.unwrap();
    source_.close().await;
    insert(3000, 3100);
    assert_eq!(journal_rows(&conn), 1, "nothing more goes in");
    // What it says to do about it can be done.
    let (_, remedy) = cause.split_once("remove the full one with: ").unwrap();
    conn.execute_batch(remedy).unwrap();
    assert_eq!(literals(&conn, "SELECT name FROM sqlite_schema"), ["'t'"]);
    let mut anew = changes(dir.path(), json!({"journal": "j", "journal_rows_max": 2000}));
    anew.open(None).await.unwrap();
    let rows: usize = drain(&mut *anew).await.iter().map(|batch| batch.batch.rows()).sum();
    assert_eq!(rows, 3100);
    // Another bound holds from the next start on.
    let position = next_position(&mut *anew, &conn).await;
    let mut anew = changes(dir.path(), json!({"journal": "j", "journal_rows_max": 5000}));
    anew.open(Some(&position)).await.unwrap();
    let sql = "SELECT count(*) FROM sqlite_schema WHERE type = 'trigger' AND sql LIKE '%>= 5000 %'";
    assert_eq!(literals(&conn, sql), ["3"]);
}

async fn next_position(source: &mut dyn Source, conn: &Connection) -> Position {
    conn.execute_batch("INSERT INTO t VALUES (9999)").unwrap();
    next_batch(source).await.position
}

#[tokio::test(start_paused = true)]
async fn changes_that_got_past_the_journal_stop_it() {
    let drop_insert = format!("DROP TRIGGER {JOURNAL}_insert");
    for (sql, cause) in [
        (drop_insert.clone(), "the trigger 'mycelial__node_insert' is gone"),
        (
            "CREATE TABLE new (id INTEGER PRIMARY KEY); DROP TABLE t; ALTER TABLE new RENAME TO t".to_string(),
            "is gone: what was changed since is lost",
        ),
        (
            format!("{drop_insert}; CREATE TRIGGER {JOURNAL}_insert AFTER INSERT ON t BEGIN SELECT 1; END"),
            "are not those for it",
        ),
        (
            format!(
                "{drop_insert}; DROP TRIGGER {JOURNAL}_update; DROP TRIGGER {JOURNAL}_delete; DROP TABLE {JOURNAL}"
            ),
            "journal and triggers are gone",
        ),
        (format!("DELETE FROM {JOURNAL}"), "has emptied the journal"),
        (
            format!("INSERT INTO t VALUES (5), (6); DELETE FROM {JOURNAL} WHERE \"1\" = 5"),
            "has taken rows out of the journal",
        ),
    ] {
        for restart in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let sql_before = "CREATE TABLE t (id INTEGER PRIMARY KEY); INSERT INTO t VALUES (1)";
            let conn = database(dir.path(), "db", sql_before);
            let mut source = changes(dir.path(), json!({}));
            source.open(None).await.unwrap();
            let position = next_position(&mut *source, &conn).await;
            conn.execute_batch(&sql).unwrap();
            if restart {
                source.close().await;
            }
            let fault = match restart.then_some(()) {
                Some(()) => match source.open(Some(&position)).await {
                    Ok(()) => source.read().await.unwrap_err(),
                    Err(fault) => fault,
                },
                None => source.read().await.unwrap_err(),
            };
            assert!(
                matches!(&fault, Fault::Stop { cause: found } if found.contains(cause) && found.contains("another name")),
                "{sql}, {restart}: {fault}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn foreign_positions_and_older_copies_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let conn = database(dir.path(), "db", "CREATE TABLE t (id INTEGER PRIMARY KEY)");
    let mut source_ = changes(dir.path(), json!({}));
    source_.open(None).await.unwrap();
    let older = next_position(&mut *source_, &conn).await;
    let copy = dir.path().join("older");
    std::fs::copy(dir.path().join("db"), &copy).unwrap();
    conn.execute_batch("DELETE FROM t").unwrap();
    let position = next_batch(&mut *source_).await.position;
    std::fs::rename(copy, dir.path().join("db")).unwrap();
    let fault = source_.read().await.unwrap_err();
    assert!(fault.to_string().contains("was replaced by another file"), "{fault}");
    source_.open(Some(&older)).await.unwrap();
    let mut by_cursor = source(dir.path(), json!({"table": "t"}));
    let mut other = changes(dir.path(), json!({"journal": "other"}));
    for (source, position, cause) in [
        (
            &mut source_,
            &position,
            "is an older copy than the one that was read before",
        ),
        (&mut by_cursor, &position, "not one of a sqlite source"),
        (&mut other, &position, "set journal = \"mycelial__node\" again"),
    ] {
        let fault = match source.open(Some(position)).await {
            Ok(()) => source.read().await.unwrap_err(),
            Err(fault) => fault,
        };
        assert!(
            matches!(&fault, Fault::Stop { cause: found } if found.contains(cause)),
            "{fault}"
        );
    }
    // A journal that is made anew has other numbers.
    let mut anew = changes(dir.path(), json!({}));
    anew.open(None).await.unwrap();
    let fault = match anew.open(Some(&older)).await {
        Ok(()) => anew.read().await.unwrap_err(),
        Err(fault) => fault,
    };
    assert!(matches!(fault, Fault::Stop { .. }), "{fault}");
}

#[tokio::test(start_paused = true)]
async fn what_is_no_record_goes_to_the_dead_letters_alone() {
    let dir = tempfile::tempdir().unwrap();
    let conn = database(
        dir.path(),
        "db",
        "CREATE TABLE t (k TEXT PRIMARY KEY, s); INSERT INTO t VALUES ('a', 1), (NULL, 2), ('b', CAST(x'ff' AS TEXT)), (NULL, 3)",
    );
    for rows_max in [4096, 1] {
        let mut source = changes(dir.path(), json!({"batch_rows_max": rows_max}));
        source.open(None).await.unwrap();
        let batches = drain(&mut *source).await;
        assert_eq!(shown(&batches), ["insert a 1"]);
        assert_eq!(
            letters(&batches),
            [
                "t, k \"b\": column 's' holds text that is not UTF-8",
                "t, 2 rows: NULL in the key: nothing tells these rows apart, so they are not followed"
            ]
        );
        let shown_rows = &batches.last().unwrap().undecodable.last().unwrap().bytes;
        assert_eq!(shown_rows.escape_ascii().to_string(), r"k=NULL, s=2\nk=NULL, s=3\n");
        conn.execute(
            "INSERT INTO t VALUES (NULL, 4), ('c', zeroblob(?1)), ('d', 5)",
            [RECORD_BYTES_MAX as i64 + 1],
        )
        .unwrap();
        conn.execute_batch("UPDATE t SET k = 'e' WHERE s = 4; DELETE FROM t WHERE k = 'c'; DELETE FROM t WHERE k = 'd'; DELETE FROM t WHERE k = 'e'")
            .unwrap();
        let batches = drain(&mut *source).await;
        assert_eq!(
            shown(&batches),
            ["upsert d 5", "upsert e 4", "delete c -", "delete d -", "delete e -"]
        );
        assert_eq!(
            letters(&batches),
            [
                "t, insert k NULL: NULL in the key column 'k': nothing tells which row it is".to_string(),
                format!(
                    "t, insert k \"c\": holds {} bytes, and a record holds at most {RECORD_BYTES_MAX}",
                    RECORD_BYTES_MAX + 8
                ),
                "t, delete k NULL: NULL in the key column 'k': nothing tells which row it is".to_string(),
            ]
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_large_transaction_passes_in_batches_and_can_be_interrupted_within() {
    let dir = tempfile::tempdir().unwrap();
    let conn = database(dir.path(), "db", "CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT)");
    let mut source = changes(dir.path(), json!({}));
    source.open(None).await.unwrap();
    assert!(drain(&mut *source).await.is_empty());
    conn.execute_batch(
        "BEGIN; WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 50000)
         INSERT INTO t SELECT n, 'row ' || n FROM n; UPDATE t SET v = upper(v); DELETE FROM t WHERE id % 2; COMMIT",
    )
    .unwrap();
    let (mut copy, mut records) = (Copy::default(), 0);
    loop {
        let Read::Batch(batch) = source.read().await.unwrap() else {
            break;
        };
        copy.apply(&batch.batch);
        records += batch.batch.rows();
        if records % 7 == 0 {
            source = changes(dir.path(), json!({}));
            source.open(Some(&batch.position)).await.unwrap();
        }
        source.commit(&batch.position).await.unwrap();
    }
    assert_eq!(records, 50_000 + 50_000 + 25_000);
    assert_eq!(copy.literals(), contents(&conn));
    while journal_rows(&conn) > 1 {
        assert!(matches!(source.read().await.unwrap(), Read::Idle));
    }
}

#[tokio::test(start_paused = true)]
async fn a_locked_database_is_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let conn = database(
        dir.path(),
        "db",
        "CREATE TABLE t (id INTEGER PRIMARY KEY); BEGIN EXCLUSIVE",
    );
    let mut source = changes(dir.path(), json!({}));
    let fault = source.open(None).await.unwrap_err();
    assert!(
        matches!(&fault, Fault::Retry { cause, .. } if cause.contains("is locked by another process")),
        "{fault}"
    );
    conn.execute_batch("COMMIT").unwrap();
    source.open(None).await.unwrap();
    let position = next_position(&mut *source, &conn).await;
    conn.execute_batch("BEGIN EXCLUSIVE; INSERT INTO t VALUES (1)").unwrap();
    let fault = source.read().await.unwrap_err();
    assert!(matches!(&fault, Fault::Retry { .. }), "{fault}");
    conn.execute_batch("COMMIT").unwrap();
    source.open(Some(&position)).await.unwrap();
    assert_eq!(shown(&drain(&mut *source).await), ["upsert 1"]);
}
