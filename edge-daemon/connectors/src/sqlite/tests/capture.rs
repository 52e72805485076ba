//! Changes under everything that happens to them: random changes of tables of every kind and restarts at every moment, and
//! other processes that write while the source is killed.

use std::{env, path::Path};

use flow::{Position, Read, Source};
use proptest::prelude::*;
use rusqlite::Connection;
use serde_json::json;

use super::{
    changes::{Copy, changes, contents},
    database,
    processes::{ORDERS, child},
};

/// Tables `t` with the key (a, b) and a value v.
const TABLES: [&str; 4] = [
    "CREATE TABLE t (a TEXT COLLATE NOCASE, b INT, v, PRIMARY KEY (a, b)) WITHOUT ROWID",
    "CREATE TABLE t (v, b INT, a TEXT, PRIMARY KEY (b DESC, a COLLATE NOCASE))",
    // Only so are rows seen that REPLACE removes because of their v.
    "PRAGMA recursive_triggers = ON; CREATE TABLE t (b REAL NOT NULL, a TEXT NOT NULL, v UNIQUE, PRIMARY KEY (a, b))",
    "CREATE TABLE t (rowid ANY, a ANY NOT NULL, b ANY NOT NULL, v ANY, PRIMARY KEY (a, b)) STRICT",
];

/// What is done to the table, or by the source.
#[derive(Debug, Clone)]
enum Step {
    /// Statements of one transaction; whether it is rolled back.
    Write(Vec<Change>, bool),
    Vacuum,
    AddColumn,
    RenameColumn,
    /// The source reads so many times, and every destination has what came.
    Read(u8),
    /// It reads so many times, and is killed before anybody has it.
    ReadAndDie(u8),
}

#[derive(Debug, Clone)]
enum Change {
    Insert(u8, i8, u8),
    Replace(u8, i8, u8),
    Upsert(u8, i8, u8),
    Update(u8, u8),
    Move(u8, i8, u8, i8),
    Shift(i8),
    Delete(u8, i8),
    DeleteFrom(i8),
}

const NAMES: [&str; 5] = ["a", "A", "b", "", "zz"];

impl Change {
    fn sql(&self) -> String {
        let a = |index: &u8| format!("'{}'", NAMES[usize::from(*index) % NAMES.len()]);
        match self {
            Change::Insert(k, b, v) => format!("INSERT OR IGNORE INTO t (a, b, v) VALUES ({}, {b}, {v})", a(k)),
            Change::Replace(k, b, v) => format!("REPLACE INTO t (a, b, v) VALUES ({}, {b}, {v})", a(k)),
            Change::Upsert(k, b, v) => {
                format!(
                    "INSERT INTO t (a, b, v) VALUES ({}, {b}, {v}) ON CONFLICT DO UPDATE SET v = 'u' || {v}",
                    a(k)
                )
            }
            Change::Update(k, v) => format!("UPDATE OR IGNORE t SET v = 'x' || {v} || b WHERE a = {}", a(k)),
            Change::Move(k, b, to, at) => {
                format!(
                    "UPDATE OR IGNORE t SET a = {}, b = {at} WHERE a = {} AND b = {b}",
                    a(to),
                    a(k)
                )
            }
            Change::Shift(b) => format!("UPDATE OR REPLACE t SET b = b + 1 WHERE b > {b}"),
            Change::Delete(k, b) => format!("DELETE FROM t WHERE a = {} AND b = {b}", a(k)),
            Change::DeleteFrom(b) => format!("DELETE FROM t WHERE b >= {b}"),
        }
    }
}

fn change() -> impl Strategy<Value = Change> {
    let (k, b) = (0_u8..5, -2_i8..4);
    prop_oneof![
        4 => (k.clone(), b.clone(), any::<u8>()).prop_map(|(k, b, v)| Change::Insert(k, b, v)),
        2 => (k.clone(), b.clone(), any::<u8>()).prop_map(|(k, b, v)| Change::Replace(k, b, v)),
        1 => (k.clone(), b.clone(), any::<u8>()).prop_map(|(k, b, v)| Change::Upsert(k, b, v)),
        2 => (k.clone(), any::<u8>()).prop_map(|(k, v)| Change::Update(k, v)),
        2 => (k.clone(), b.clone(), k.clone(), b.clone()).prop_map(|(k, b, to, at)| Change::Move(k, b, to, at)),
        1 => b.clone().prop_map(Change::Shift),
        2 => (k, b.clone()).prop_map(|(k, b)| Change::Delete(k, b)),
        1 => b.prop_map(Change::DeleteFrom),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (prop::collection::vec(change(), 1..6), prop::bool::weighted(0.1)).prop_map(|(all, back)| Step::Write(all, back)),
        1 => Just(Step::Vacuum),
        1 => Just(Step::AddColumn),
        1 => Just(Step::RenameColumn),
        5 => (1_u8..4).prop_map(Step::Read),
        3 => (0_u8..4).prop_map(Step::ReadAndDie),
    ]
}

/// The source, and everything that a destination has of it, durably.
struct Rig {
    source: Box<dyn Source>,
    config: serde_json::Value,
    copy: Copy,
    position: Option<Position>,
}

impl Rig {
    async fn start(dir: &Path, config: serde_json::Value) -> Self {
        let mut rig = Self {
            source: changes(dir, config.clone()),
            config,
            copy: Copy::default(),
            position: None,
        };
        rig.source.open(None).await.unwrap();
        rig
    }

    /// Reads so many batches at most; `true`: there was nothing more.
    async fn read(&mut self, times: u8, commit: bool) -> bool {
        let mut ahead = self.copy.clone();
        for _ in 0..times {
            let Read::Batch(read) = self.source.read().await.unwrap() else {
                return true;
            };
            assert!(read.undecodable.is_empty(), "{:?}", read.undecodable);
            ahead.apply(&read.batch);
            if commit {
                self.copy = ahead.clone();
                self.source.commit(&read.position).await.unwrap();
                self.position = Some(read.position);
            }
        }
        false
    }

    async fn die(&mut self, dir: &Path) {
        self.source = changes(dir, self.config.clone());
        self.source.open(self.position.as_ref()).await.unwrap();
    }
}

async fn play(table: &str, rows_max: usize, before: Vec<Change>, steps: Vec<Step>) {
    let dir = tempfile::tempdir().unwrap();
    let conn = database(dir.path(), "db", &format!("PRAGMA synchronous = OFF; {table}"));
    let run = |change: &Change| drop(conn.execute_batch(&change.sql()));
    before.iter().for_each(run);
    let mut rig = Rig::start(dir.path(), json!({"batch_rows_max": rows_max})).await;
    rig.copy.is_nocase = table.contains("NOCASE");
    let mut renamed = 0;
    for step in steps {
        match step {
            Step::Write(changes, rolled_back) => {
                conn.execute_batch("BEGIN").unwrap();
                changes.iter().for_each(run);
                let end = if rolled_back { "ROLLBACK" } else { "COMMIT" };
                conn.execute_batch(end).unwrap();
            }
            Step::Vacuum => conn.execute_batch("VACUUM").unwrap(),
            Step::AddColumn => {
                renamed += 1;
                conn.execute_batch(&format!(
                    "ALTER TABLE t ADD COLUMN new{renamed} ANY; UPDATE t SET new{renamed} = b"
                ))
                .unwrap();
            }
            Step::RenameColumn => {
                let last: String = conn
                    .query_row("SELECT name FROM pragma_table_info('t') WHERE name NOT IN ('a', 'b', 'v', 'rowid') ORDER BY cid", [], |row| row.get(0))
                    .unwrap_or_default();
                renamed += 1;
                if !last.is_empty() {
                    conn.execute_batch(&format!("ALTER TABLE t RENAME COLUMN {last} TO other{renamed}"))
                        .unwrap();
                }
            }
            Step::Read(times) => drop(rig.read(times, true).await),
            Step::ReadAndDie(times) => {
                rig.read(times, false).await;
                rig.die(dir.path()).await;
            }
        }
    }
    while !rig.read(u8::MAX, true).await {}
    assert_eq!(rig.copy.literals(), contents(&conn));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..Default::default() })]

    #[test]
    fn whatever_happens_the_copy_is_the_table(
        table in 0..TABLES.len(),
        rows_max in prop::sample::select(vec![1_usize, 2, 3, 7, 4096]),
        before in prop::collection::vec(change(), 0..25),
        steps in prop::collection::vec(step(), 1..30),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(play(TABLES[table], rows_max, before, steps));
    }

    /// From the journal alone, records are the statements one by one.
    #[test]
    fn changes_come_as_they_were_made(
        ops in prop::collection::vec((0_u8..3, 0_i64..6, any::<i64>()), 1..60),
        restarts in prop::collection::vec(any::<bool>(), 60),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let dir = tempfile::tempdir().unwrap();
            let sql = "PRAGMA synchronous = OFF; CREATE TABLE t (id INTEGER PRIMARY KEY, v INT)";
            let conn = database(dir.path(), "db", sql);
            let config = json!({"snapshot": false, "batch_rows_max": 3});
            let mut source = changes(dir.path(), config.clone());
            source.open(None).await.unwrap();
            let mut expected = Vec::new();
            for (op, id, v) in ops {
                let (sql, shown) = match op {
                    0 => (format!("INSERT INTO t VALUES ({id}, {v})"), format!("Upsert {id} {v}")),
                    1 => (format!("UPDATE t SET v = {v} WHERE id = {id}"), format!("Update {id} {v}")),
                    _ => (format!("DELETE FROM t WHERE id = {id}"), format!("Delete {id} -")),
                };
                if conn.execute(&sql, []).unwrap_or_default() > 0 {
                    expected.push(shown);
                }
            }
            let (mut found, mut restarts) = (Vec::new(), restarts.into_iter());
            while let Read::Batch(read) = source.read().await.unwrap() {
                let batch = &read.batch;
                found.extend((0..batch.rows()).map(|row| {
                    let v = batch.cell(row, 1);
                    let v = if v.is_value() { v.to_string() } else { "-".to_string() };
                    format!("{:?} {} {v}", batch.op(row), batch.cell(row, 0))
                }));
                source.commit(&read.position).await.unwrap();
                if restarts.next() == Some(true) {
                    source = changes(dir.path(), config.clone());
                    source.open(Some(&read.position)).await.unwrap();
                }
            }
            assert_eq!(found, expected);
        });
    }
}

const WRITERS: u64 = 2;
const TRANSACTIONS: u64 = 1000;

/// A number from another one (Vigna's splitmix64): the writers' dice.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[test]
fn child_changes_rows() {
    let Ok(dir) = env::var(ORDERS) else { return };
    let mut conn = database(dir.as_ref(), "db", "PRAGMA synchronous = OFF");
    let mut dice = u64::from(std::process::id());
    for _ in 0..TRANSACTIONS {
        let transaction = conn
            .transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)
            .unwrap();
        for _ in 0..=next(&mut dice) % 40 {
            let (id, v) = (next(&mut dice) % 3000, next(&mut dice) % 1_000_000);
            let sql = match next(&mut dice) % 8 {
                0..=2 => format!("INSERT OR REPLACE INTO t VALUES ({id}, 'w{v}')"),
                3..=5 => format!("UPDATE t SET v = 'u{v}' WHERE id = {id}"),
                6 => format!("UPDATE OR IGNORE t SET id = {} WHERE id = {id}", v % 3000),
                _ => format!("DELETE FROM t WHERE id BETWEEN {id} AND {id} + 3"),
            };
            transaction.execute(&sql, []).unwrap();
        }
        match next(&mut dice) % 10 {
            0 => transaction.rollback().unwrap(),
            _ => transaction.commit().unwrap(),
        }
    }
}

#[tokio::test]
async fn other_processes_change_rows_from_before_the_snapshot_until_after_it() {
    for mode in ["WAL", "DELETE"] {
        let dir = tempfile::tempdir().unwrap();
        let sql = format!(
            "PRAGMA journal_mode = {mode}; PRAGMA synchronous = OFF; CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT);
             WITH RECURSIVE n(n) AS (SELECT 0 UNION ALL SELECT n + 2 FROM n WHERE n < 2998) INSERT INTO t SELECT n, 'first' FROM n"
        );
        let conn = database(dir.path(), "db", &sql);
        let mut writers: Vec<_> = (0..WRITERS)
            .map(|_| child("sqlite::tests::capture::child_changes_rows", dir.path()))
            .collect();
        let config = json!({"batch_rows_max": 20});
        let (mut copy, mut position, mut dice, mut deaths) = (Copy::default(), None::<Position>, 7_u64, 0);
        'lives: loop {
            let mut source = changes(dir.path(), config.clone());
            // Without WAL it waits for writers, and these hardly ever pause.
            while let Err(fault) = source.open(position.as_ref()).await {
                assert!(fault.to_string().contains("locked"), "{mode}: {fault}");
            }
            let (mut ahead, mut life) = (copy.clone(), next(&mut dice) % 12);
            loop {
                let ended = writers.iter_mut().all(|writer| writer.try_wait().unwrap().is_some());
                match source.read().await {
                    Ok(Read::Batch(read)) => {
                        ahead.apply(&read.batch);
                        // Some batches are on the way when it is killed.
                        if life % 4 != 0 {
                            copy = ahead.clone();
                            source.commit(&read.position).await.unwrap();
                            position = Some(read.position);
                        }
                        if life == 0 {
                            deaths += 1;
                            break;
                        }
                        life -= 1;
                    }
                    Ok(_) if ended => {
                        copy = ahead;
                        break 'lives;
                    }
                    Ok(_) => {}
                    Err(fault) => {
                        assert!(fault.to_string().contains("locked"), "{mode}: {fault}");
                        break;
                    }
                }
            }
        }
        assert!(writers.iter_mut().all(|writer| writer.wait().unwrap().success()));
        assert_eq!(copy.literals(), contents(&conn), "{mode}");
        assert!(deaths > 3, "{mode}: {deaths}");
        assert_eq!(integrity(&conn), "ok");
    }
}

fn integrity(conn: &Connection) -> String {
    conn.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap()
}
