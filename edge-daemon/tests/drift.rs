//! Columns that change while records flow: every `drift` of the transform `contract` against every change, in a file, in
//! SQLite, in PostgreSQL and in MariaDB. Between a record as agreed and the change the program ends and starts again.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test that cannot set up its world has failed")]

use std::{collections::BTreeMap, fs, fs::OpenOptions, io::Write as _, path::Path, time::Duration};

use serde_json::Value as Json;
use testkit::{Cmd, Finished, Mariadb, Postgres, temp_dir};

const SOON: Duration = Duration::from_secs(60);
const FIRST: &str = r#"{"id":1,"a":1,"b":"x"}"#;
const LAST: &str = r#"{"id":3,"a":3,"b":"z"}"#;

/// Of which kind a change is, and the record that brings it.
const CHANGES: [(&str, &str); 4] = [
    ("added", r#"{"id":2,"a":2,"b":"y","c":7}"#),
    ("gone", r#"{"id":2,"b":"y"}"#),
    ("renamed", r#"{"id":2,"a2":2,"b":"y"}"#),
    ("retyped", r#"{"id":2,"a":"two","b":"y"}"#),
];

/// Where the records go.
enum Place<'a> {
    File,
    Sqlite,
    Postgres(&'a Postgres, String),
    Mariadb(&'a Mariadb, String),
}

impl Place<'_> {
    fn config(&self) -> String {
        match self {
            Place::File => "type = \"file\"\npath = \"out.jsonl\"\nformat = \"json_lines\"".to_string(),
            Place::Sqlite => "type = \"sqlite\"\npath = \"out.db\"\ntable = \"t\"\nkey = []".to_string(),
            Place::Postgres(server, database) => format!(
                "type = \"postgres\"\nurl = \"{}\"\ntls = {{ mode = \"disable\" }}\ntable = \"t\"\nkey = []",
                server.url_of(database)
            ),
            Place::Mariadb(server, database) => format!(
                "type = \"mysql\"\nurl = \"{}\"\ntls = {{ mode = \"disable\" }}\ntable = \"t\"\nkey = []",
                server.url_of(database)
            ),
        }
    }

    /// The records that are there, each as JSON; in order.
    fn records(&self, dir: &Path) -> Vec<BTreeMap<String, Json>> {
        let texts: Vec<String> = match self {
            Place::File => {
                let text = fs::read_to_string(dir.join("out.jsonl")).unwrap();
                text.lines().map(str::to_string).collect()
            }
            Place::Sqlite => {
                let db = rusqlite::Connection::open(dir.join("out.db")).unwrap();
                let mut columns = db.prepare("SELECT name FROM pragma_table_info('t')").unwrap();
                let names: Vec<String> = columns
                    .query_map([], |row| row.get(0))
                    .unwrap()
                    .map(Result::unwrap)
                    .collect();
                let pairs: Vec<String> = names.iter().map(|name| format!("'{name}', \"{name}\"")).collect();
                let sql = format!("SELECT json_object({}) FROM t ORDER BY id", pairs.join(", "));
                let mut rows = db.prepare(&sql).unwrap();
                rows.query_map([], |row| row.get(0))
                    .unwrap()
                    .map(Result::unwrap)
                    .collect()
            }
            Place::Postgres(server, database) => {
                let rows = server.query_in(database, "SELECT to_jsonb(t) FROM t ORDER BY id");
                rows.into_iter().map(|row| row[0].clone()).collect()
            }
            Place::Mariadb(server, database) => {
                let sql = "SELECT column_name FROM information_schema.columns WHERE table_schema = DATABASE() AND table_name = 't'";
                let names = server.query_in(database, sql);
                let pairs: Vec<String> = names.iter().map(|name| format!("'{0}', `{0}`", name[0])).collect();
                let sql = format!("SELECT JSON_OBJECT({}) FROM t ORDER BY id", pairs.join(", "));
                let rows = server.query_in(database, &sql);
                rows.into_iter().map(|row| row[0].clone()).collect()
            }
        };
        texts.iter().map(|text| serde_json::from_str(text).unwrap()).collect()
    }

    /// What a record is here: a table has every column that any record has, a file says what each has.
    fn expected(&self, record: &str, all: &[&str]) -> BTreeMap<String, Json> {
        let mut record: BTreeMap<String, Json> = serde_json::from_str(record).unwrap();
        if !matches!(self, Place::File) {
            for name in all {
                record.entry((*name).to_string()).or_insert(Json::Null);
            }
        }
        record
    }
}

fn daemon() -> Cmd {
    ["MYCELIAL_CONFIG", "MYCELIAL_DATA_DIR"]
        .into_iter()
        .fold(Cmd::new(env!("CARGO_BIN_EXE_myceliald")), Cmd::env_remove)
}

/// Appends one record and runs the workflow to the end of the file.
fn run(dir: &Path, place: &Place<'_>, drift: &str, record: &str) -> Finished {
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(dir.join("in.jsonl"))
        .unwrap();
    writeln!(file, "{record}").unwrap();
    let columns = match drift {
        "evolve" => "",
        _ => "columns = { id = \"i64\", a = \"i64\", b = \"text\" }\n",
    };
    let toml = format!(
        "name = \"drift\"\n[sources.in]\ntype = \"file\"\npath = \"in.jsonl\"\nformat = \"json_lines\"\nmode = \"once\"\n\
         [transforms.agreed]\ntype = \"contract\"\nfrom = \"in\"\ndrift = \"{drift}\"\n{columns}\
         [destinations.out]\nfrom = \"agreed\"\n{}\n",
        place.config()
    );
    fs::write(dir.join("drift.toml"), toml).unwrap();
    daemon().arg("run").arg(dir.join("drift.toml")).run(SOON)
}

/// Nodes of the dead letters.
fn letters(dir: &Path) -> Vec<String> {
    let done = daemon()
        .args(["dlq", "list", "--data-dir"])
        .arg(dir.join("drift.state"))
        .run(SOON);
    assert_eq!(done.code(), Some(0), "{done}");
    let node = |line: &str| line.split_whitespace().nth(2).unwrap().to_string();
    done.stdout.lines().map(node).collect()
}

/// What arrives of the changed record (`None`: nothing), the columns of a table then, and whose dead letters there are.
fn outcome(place: &Place<'_>, drift: &str, change: &str) -> (Option<&'static str>, &'static [&'static str], usize) {
    let agreed = &["a", "b", "id"][..];
    match (drift, change) {
        ("evolve", "added") => (Some(r#"{"id":2,"a":2,"b":"y","c":7}"#), &["a", "b", "c", "id"], 0),
        ("evolve", "renamed") => (Some(r#"{"id":2,"a2":2,"b":"y"}"#), &["a", "a2", "b", "id"], 0),
        // The destination's own column holds numbers.
        ("evolve", "retyped") if matches!(place, Place::Postgres(..) | Place::Mariadb(..)) => (None, agreed, 1),
        ("evolve", "retyped") => (Some(r#"{"id":2,"a":"two","b":"y"}"#), agreed, 0),
        ("discard_value", "added") => (Some(r#"{"id":2,"a":2,"b":"y"}"#), agreed, 0),
        ("evolve" | "discard_value", _) => (Some(r#"{"id":2,"b":"y"}"#), agreed, 0),
        ("discard_row", _) => (None, agreed, 0),
        ("dead_letter", _) => (None, agreed, 1),
        _ => panic!("{drift}"),
    }
}

/// The agreement is made, the program starts again, a record is different, and then one is as before.
fn check(dir: &Path, place: &Place<'_>, drift: &str, (change, record): (&str, &str)) {
    let what = format!("{drift}, {change}");
    let first = run(dir, place, drift, FIRST);
    assert_eq!(first.code(), Some(0), "{what}: {first}");
    let changed = run(dir, place, drift, record);
    if drift == "freeze" {
        assert_ne!(changed.code(), Some(0), "{what}: {changed}");
        assert!(changed.stderr.contains("drift = \"freeze\""), "{what}: {changed}");
        assert_eq!(place.records(dir), [place.expected(FIRST, &[])], "{what}");
        // Nothing was lost by that: somebody decides otherwise.
        let evolved = run(dir, place, "evolve", LAST);
        assert_eq!(evolved.code(), Some(0), "{what}: {evolved}");
        let (arrived, columns, dead) = outcome(place, "evolve", change);
        arrives(dir, place, &what, (arrived, columns, dead));
        return;
    }
    assert_eq!(changed.code(), Some(0), "{what}: {changed}");
    // What was accepted once is not known to the next run, which finds nothing new.
    let is_told = changed.stderr.contains("the columns have changed");
    assert_eq!(is_told, drift != "evolve", "{what}: {changed}");
    let last = run(dir, place, drift, LAST);
    assert_eq!(last.code(), Some(0), "{what}: {last}");
    assert!(!last.stderr.contains("the columns have changed"), "{what}: {last}");
    arrives(dir, place, &what, outcome(place, drift, change));
}

fn arrives(dir: &Path, place: &Place<'_>, what: &str, (arrived, columns, dead): (Option<&str>, &[&str], usize)) {
    let records = [Some(FIRST), arrived, Some(LAST)].into_iter().flatten();
    let expected: Vec<_> = records.map(|record| place.expected(record, columns)).collect();
    assert_eq!(place.records(dir), expected, "{what}");
    assert_eq!(letters(dir).len(), dead, "{what}");
}

const DRIFTS: [&str; 5] = ["evolve", "freeze", "discard_value", "discard_row", "dead_letter"];

#[test]
fn into_a_file() {
    for drift in DRIFTS {
        for change in CHANGES {
            check(temp_dir("drift-file").path(), &Place::File, drift, change);
        }
    }
}

#[test]
fn into_sqlite() {
    for drift in DRIFTS {
        for change in CHANGES {
            check(temp_dir("drift-sqlite").path(), &Place::Sqlite, drift, change);
        }
    }
}

#[test]
fn into_postgres() {
    let server = Postgres::start();
    for drift in DRIFTS {
        for change in CHANGES {
            let database = format!("{drift}_{}", change.0);
            server.create_database(&database);
            let place = Place::Postgres(&server, database);
            check(temp_dir("drift-postgres").path(), &place, drift, change);
        }
    }
}

#[test]
fn into_mariadb() {
    let server = Mariadb::start();
    for drift in DRIFTS {
        for change in CHANGES {
            let database = format!("{drift}_{}", change.0);
            server.create_database(&database);
            let place = Place::Mariadb(&server, database);
            check(temp_dir("drift-mariadb").path(), &place, drift, change);
        }
    }
}
