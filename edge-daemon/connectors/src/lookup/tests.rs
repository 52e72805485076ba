//! Against CSV files, SQLite and PostgreSQL.

use std::{fs, path::Path};

use bus_schema::data::{Op, Value};
use rusqlite::Connection;
use serde_json::{Value as Json, json};
use testkit::{Postgres, free_port, temp_dir};

use super::*;
use crate::file::testing::{batch_of, refused, shown, transform};

/// The config's transform, which looks up `line`.
fn lookup(dir: &Path, config: &Json) -> Box<dyn Transform> {
    let mut config = config.clone();
    config["column"] = json!("line");
    transform(&TRANSFORM, &config.to_string(), dir)
}

fn lines(values: &[Value]) -> Batch {
    let rows: Vec<[Value; 1]> = values.iter().map(|value| [value.clone()]).collect();
    let rows: Vec<(Op, &[Value])> = rows.iter().map(|row| (Op::Insert, row.as_slice())).collect();
    batch_of(vec![Field::new("line", Type::Any)], &rows)
}

fn text(text: &str) -> Value {
    Value::Text(text.to_string())
}

async fn apply(transform: &mut Box<dyn Transform>, batch: &Batch) -> Result<Transformed, Fault> {
    transform.outside().unwrap().apply(batch.clone()).await
}

/// What is added for line `a`, or the fault.
async fn of_a(transform: &mut Box<dyn Transform>) -> String {
    match apply(transform, &lines(&[text("a")])).await {
        Ok(done) => shown(&done.batch),
        Err(fault @ Fault::Retry { .. }) => fault.to_string(),
        Err(fault) => panic!("{fault}"),
    }
}

/// Looks until it is so.
async fn until(transform: &mut Box<dyn Transform>, wanted: &str) {
    let begun = Instant::now();
    loop {
        let found = of_a(transform).await;
        if found == wanted {
            return;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "{found} instead of {wanted}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn values_are_looked_up_in_a_file() {
    let dir = temp_dir("lookup");
    let csv = "\u{feff}line,hall,n\na,North,1\n7,\"So,uth\",2\na,North,1\n";
    fs::write(dir.path().join("lines.csv"), csv).unwrap();
    let input = lines(&[text("a"), text("b"), Value::Null, Value::Unchanged, Value::I64(7)]);
    let mut both = lookup(
        dir.path(),
        &json!({"file": "lines.csv", "columns": {"hall": "hall", "id": "n"}}),
    );
    let done = apply(&mut both, &input).await.unwrap();
    assert_eq!(shown(&done.batch), "a|North|1\nb|~|~\n~|~|~\n=|=|=\n7|So,uth|2");
    let strict = json!({"file": "lines.csv", "columns": {"line": "hall"}, "unknown": "reject"});
    let done = apply(&mut lookup(dir.path(), &strict), &input).await.unwrap();
    assert_eq!(shown(&done.batch), "North\n~\n=\nSo,uth");
    assert_eq!(done.rejected.len(), 1);
    assert!(
        done.rejected[0].1.starts_with("column 'line' is 'b', which "),
        "{:?}",
        done.rejected
    );
    // At a source's end nothing comes, and nothing is read.
    let none = batch_of(Vec::new(), &[]);
    let mut missing = lookup(dir.path(), &json!({"file": "none.csv", "columns": {"h": "hall"}}));
    assert_eq!(apply(&mut missing, &none).await.unwrap().batch.rows(), 0);
}

/// What a check says of a lookup.
async fn checked(config: &Json, dir: &Path) -> Result<String, (TroubleKind, String)> {
    let mut lookup = lookup(dir, config);
    let checked = lookup.outside().unwrap().check().await;
    checked.map_err(|trouble| (trouble.kind, trouble.cause))
}

#[tokio::test]
async fn a_check_reads_the_table() {
    let dir = temp_dir("lookup");
    fs::write(dir.path().join("lines.csv"), "line,hall\na,North\n").unwrap();
    let conn = Connection::open(dir.path().join("plant.db")).unwrap();
    conn.execute_batch("CREATE TABLE lines (line TEXT, hall TEXT); INSERT INTO lines VALUES ('a', 'North')")
        .unwrap();
    let columns = json!({"h": "hall"});
    let file = json!({"file": "lines.csv", "columns": columns});
    let table = json!({"sqlite": {"path": "plant.db", "table": "lines"}, "columns": columns});
    for (config, name) in [(&file, "lines.csv"), (&table, "plant.db")] {
        let place = dir.path().join(name);
        let wanted = format!("{} can be read, and has the columns", place.display());
        assert_eq!(checked(config, dir.path()).await, Ok(wanted));
        // Nothing else than the column is missing.
        let mut other = config.clone();
        other["columns"] = json!({"h": "room"});
        let (_, cause) = checked(&other, dir.path()).await.unwrap_err();
        assert!(cause.contains("room"), "{cause}");
    }
    fs::remove_file(dir.path().join("lines.csv")).unwrap();
    let (kind, cause) = checked(&file, dir.path()).await.unwrap_err();
    assert_eq!(kind, TroubleKind::Missing);
    assert!(cause.contains("there is no file"), "{cause}");
    // It takes nothing along: the workflow's own lookup reads for itself.
    fs::write(dir.path().join("lines.csv"), "line,hall\na,South\n").unwrap();
    assert_eq!(of_a(&mut lookup(dir.path(), &file)).await, "a|South");
}

#[tokio::test]
async fn a_changed_file_is_read_again_if_it_is_good() {
    let dir = temp_dir("lookup");
    let path = dir.path().join("lines.csv");
    let mut lookup = lookup(dir.path(), &json!({"file": "lines.csv", "columns": {"h": "hall"}}));
    assert!(
        of_a(&mut lookup).await.contains("lines.csv: "),
        "the workflow waits for it"
    );
    for (file, wanted) in [
        ("line,hall\na,North\n", "a|North"),
        ("line,hall\na,South!\n", "a|South!"),
        ("line,room\na,12345678\n", "a|South!"),
        ("line,hall\na,North\na,West\n", "a|South!"),
        ("line,hall\na,b,c,d,e,f,g,h,i,j\n", "a|South!"),
        ("line,hall\nb,East\n", "a|~"),
    ] {
        fs::write(&path, file).unwrap();
        assert_eq!(of_a(&mut lookup).await, wanted, "{file}");
    }
    fs::remove_file(&path).unwrap();
    assert_eq!(of_a(&mut lookup).await, "a|~");
    fs::write(&path, vec![b'x'; 2 * 1024 * 1024 + 1]).unwrap();
    assert_eq!(of_a(&mut lookup).await, "a|~");
}

#[tokio::test]
async fn a_table_of_sqlite_is_read_again_from_time_to_time() {
    let dir = temp_dir("lookup");
    let path = dir.path().join("plant.db");
    let config = json!({
        "sqlite": {"path": "plant.db", "table": "lines"}, "key": "id", "columns": {"h": "hall", "f": "floor"},
        "refresh_ms": 100,
    });
    let mut lookup = lookup(dir.path(), &config);
    assert!(
        of_a(&mut lookup).await.contains("there is no file"),
        "the workflow waits for it"
    );
    let conn = Connection::open(&path).unwrap();
    let sql = "CREATE TABLE lines (id TEXT, hall TEXT, floor INTEGER); INSERT INTO lines VALUES ('a', 'North', 3), ('b', NULL, 1)";
    conn.execute_batch(sql).unwrap();
    assert_eq!(of_a(&mut lookup).await, "a|North|3");
    let done = apply(&mut lookup, &lines(&[text("b"), text("c")])).await.unwrap();
    assert_eq!(shown(&done.batch), "b|~|1\nc|~|~");
    conn.execute_batch("UPDATE lines SET hall = 'South' WHERE id = 'a'")
        .unwrap();
    until(&mut lookup, "a|South|3").await;
    // Two things about one value: what was read before holds, until it is mended.
    conn.execute_batch("INSERT INTO lines VALUES ('a', 'West', 3)").unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(of_a(&mut lookup).await, "a|South|3");
    conn.execute_batch("DELETE FROM lines WHERE hall = 'South'").unwrap();
    until(&mut lookup, "a|West|3").await;
}

#[tokio::test]
async fn seldom_records_get_no_older_values() {
    let dir = temp_dir("lookup");
    let conn = Connection::open(dir.path().join("plant.db")).unwrap();
    conn.execute_batch("CREATE TABLE lines (line TEXT, hall TEXT); INSERT INTO lines VALUES ('a', '0')")
        .unwrap();
    let config = json!({
        "sqlite": {"path": "plant.db", "table": "lines"}, "columns": {"h": "hall"}, "refresh_ms": 100,
    });
    let mut lookup = lookup(dir.path(), &config);
    assert_eq!(of_a(&mut lookup).await, "a|0");
    for hall in 1..4 {
        conn.execute_batch(&format!("UPDATE lines SET hall = '{hall}'"))
            .unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(of_a(&mut lookup).await, format!("a|{hall}"));
    }
    // What cannot be read again is waited for once; then it holds, and is read again later.
    conn.execute_batch("ALTER TABLE lines RENAME TO away; UPDATE away SET hall = '4'")
        .unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(of_a(&mut lookup).await, "a|3");
    conn.execute_batch("ALTER TABLE away RENAME TO lines").unwrap();
    until(&mut lookup, "a|4").await;
}

#[tokio::test]
async fn a_file_that_could_not_be_read_is_tried_again() {
    let dir = temp_dir("lookup");
    let path = dir.path().join("lines.csv");
    let mut lookup = lookup(dir.path(), &json!({"file": "lines.csv", "columns": {"h": "hall"}}));
    fs::write(&path, "line,hall\na,North\n").unwrap();
    assert_eq!(of_a(&mut lookup).await, "a|North");
    // A directory can be opened and not be read. What comes in its place looks the same from outside.
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    for name in ["some", "more"] {
        fs::create_dir(path.join(name)).unwrap();
    }
    let before = fs::metadata(&path).unwrap();
    assert_eq!(of_a(&mut lookup).await, "a|North");
    fs::remove_dir_all(&path).unwrap();
    let text = "line,hall\na,South\n";
    let padding = (before.len() as usize).saturating_sub(text.len());
    fs::write(&path, format!("{text}{}", "\n".repeat(padding))).unwrap();
    let file = fs::File::options().write(true).open(&path).unwrap();
    file.set_modified(before.modified().unwrap()).unwrap();
    assert_eq!(of_a(&mut lookup).await, "a|South");
}

#[tokio::test]
async fn a_check_says_what_it_saw_in_time() {
    let server = Postgres::start();
    let url = server.create_database("plant");
    server.query_in(
        "plant",
        "CREATE TABLE lines (line text, hall text); INSERT INTO lines VALUES ('a', 'x')",
    );
    let check = async |from: Json| {
        let mut config = json!({"postgres": {"url": url, "tls": {"mode": "disable"}}, "columns": {"h": "hall"}});
        config["postgres"]
            .as_object_mut()
            .unwrap()
            .extend(from.as_object().unwrap().clone());
        let mut lookup = lookup(Path::new("/"), &config);
        match lookup.outside().unwrap().check().await {
            Ok(found) => found,
            Err(trouble) => trouble.cause,
        }
    };
    let slow = "SELECT line, hall FROM lines, pg_sleep(60)";
    for (from, wanted) in [
        (json!({"table": "lines"}), "can be read, and has the columns"),
        (json!({"query": slow}), "has the columns; all of it takes longer"),
        (
            json!({"query": "SELECT line FROM lines, pg_sleep(60)"}),
            "hall does not exist",
        ),
        (
            json!({"query": "SELECT 'a' AS line, n::text AS hall FROM generate_series(1, 2) AS n"}),
            "two things about 'a'",
        ),
    ] {
        let said = check(from).await;
        assert!(said.contains(wanted), "{said}");
    }
    let dir = temp_dir("lookup");
    let conn = Connection::open(dir.path().join("plant.db")).unwrap();
    conn.execute_batch("CREATE TABLE lines (line TEXT, hall TEXT)").unwrap();
    for (table, wanted) in [
        ("lines", Ok("can be read, and has the columns")),
        ("none", Err("no such table")),
    ] {
        let config = json!({"sqlite": {"path": "plant.db", "table": table}, "columns": {"h": "hall"}});
        let mut lookup = lookup(dir.path(), &config);
        let said = lookup.outside().unwrap().check().await.map_err(|trouble| trouble.cause);
        let (said, is_well) = said.map_or_else(|cause| (cause, false), |found| (found, true));
        assert_eq!(is_well, wanted.is_ok(), "{said}");
        assert!(said.contains(wanted.unwrap_or_else(|wrong| wrong)), "{said}");
    }
}

#[tokio::test]
async fn a_table_of_postgres_that_goes_away_holds() {
    let server = Postgres::start();
    let url = server.create_database("plant");
    let sql = "CREATE TABLE lines (id int, hall text); INSERT INTO lines VALUES (1, 'North'), (2, 'South')";
    server.query_in("plant", sql);
    let dir = Path::new("/");
    let config = |from: Json| {
        let mut config = json!({
            "postgres": {"url": url, "tls": {"mode": "disable"}}, "key": "id", "columns": {"h": "hall"}, "refresh_ms": 100,
        });
        config["postgres"]
            .as_object_mut()
            .unwrap()
            .extend(from.as_object().unwrap().clone());
        config
    };
    let one = lines(&[Value::I64(1), text("2"), Value::I64(3)]);
    let mut table = lookup(dir, &config(json!({"table": "lines"})));
    assert_eq!(
        shown(&apply(&mut table, &one).await.unwrap().batch),
        "1|North\n2|South\n3|~"
    );
    let query = json!({"query": "SELECT 'a' AS id, upper(hall) AS hall FROM lines WHERE id = 1"});
    let mut lookup_by_query = lookup(dir, &config(query));
    assert_eq!(of_a(&mut lookup_by_query).await, "a|NORTH");
    // Away: what was read before holds, and it is read again once it is back.
    server.stop();
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(of_a(&mut lookup_by_query).await, "a|NORTH");
    }
    server.start();
    server.query_in("plant", "UPDATE lines SET hall = 'East' WHERE id = 1");
    until(&mut lookup_by_query, "a|EAST").await;
    // Never there: the workflow waits for it.
    let mut gone = config(json!({"table": "lines"}));
    gone["postgres"]["url"] = json!(format!("postgres://postgres@127.0.0.1:{}/plant", free_port()));
    let fault = of_a(&mut lookup(dir, &gone)).await;
    assert!(fault.contains("cannot look up in the table of PostgreSQL"), "{fault}");
    let fault = of_a(&mut lookup(dir, &config(json!({"table": "none"})))).await;
    assert!(fault.contains("does not exist"), "{fault}");
}

#[test]
fn mistakes_are_named() {
    for (config, wanted) in [
        (
            r#"{"column": "a", "file": "b", "columns": {}}"#,
            "columns: name at least one",
        ),
        (r#"{"column": "a", "columns": {"b": "c"}}"#, "file: say where to look"),
        (
            r#"{"column": "a", "file": "b", "sqlite": {"path": "p", "table": "t"}, "columns": {"b": "c"}}"#,
            "file: say where",
        ),
        (
            r#"{"column": "a", "file": "b", "columns": {"b": "c"}, "delimiter": "\n"}"#,
            "delimiter: it is an ASCII",
        ),
        (
            r#"{"column": "a", "file": "b", "columns": {"b": "c"}, "refresh_ms": 500}"#,
            "refresh_ms: is of no use",
        ),
        (
            r#"{"column": "a", "sqlite": {"path": "p"}, "columns": {"b": "c"}}"#,
            "sqlite.table: give a table or a query",
        ),
        (
            r#"{"column": "a", "sqlite": {"path": "p", "table": "t"}, "columns": {"b": "c"}, "refresh_ms": 5}"#,
            "refresh_ms: must be from 100",
        ),
        (
            r#"{"column": "a", "postgres": {"table": "t"}, "columns": {"b": "c"}}"#,
            "postgres.host: is missing",
        ),
    ] {
        refused(&TRANSFORM, config, wanted);
    }
}
