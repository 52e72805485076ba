//! `myceliald run`: workflows on one machine, with real files and databases, through ends, signals and kills.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test that cannot set up its world has failed")]

use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    io::{Read as _, Write as _},
    net::TcpStream,
    path::Path,
    time::Duration,
};

use testkit::{Cmd, Proc, shop, temp_dir, wait_ok, wait_until};

const SOON: Duration = Duration::from_secs(60);

fn daemon() -> Cmd {
    ["MYCELIAL_CONFIG", "MYCELIAL_DATA_DIR"]
        .into_iter()
        .fold(Cmd::new(env!("CARGO_BIN_EXE_myceliald")), Cmd::env_remove)
}

/// `myceliald run FILE` with the file made of `toml`.
fn run(dir: &Path, file: &str, toml: &str) -> Cmd {
    fs::write(dir.join(file), toml).unwrap();
    daemon().arg("run").arg(dir.join(file))
}

fn lines(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().map(ToString::to_string).collect()
}

fn append(path: &Path, text: &str) {
    let mut file = OpenOptions::new().create(true).append(true).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

/// The dead letters that `myceliald dlq list` finds: node and reason of each.
fn letters(state: &Path) -> Vec<(String, String)> {
    let done = daemon().args(["dlq", "list", "--data-dir"]).arg(state).run(SOON);
    assert_eq!(done.code(), Some(0), "{done}");
    let letter = |line: &str| {
        let mut words = line.split_whitespace().skip(2);
        (words.next().unwrap().to_string(), words.collect::<Vec<_>>().join(" "))
    };
    done.stdout.lines().map(letter).collect()
}

/// The accounts that a run prints at its end: edge → produced, delivered, buffered, dropped, dead.
fn accounts(log: &str) -> BTreeMap<String, [u64; 5]> {
    let account = |line: &str| {
        let (edge, numbers) = line.split_once(' ')?;
        let numbers: Option<Vec<u64>> = numbers.split_whitespace().map(|number| number.parse().ok()).collect();
        Some((edge.to_string(), numbers?.try_into().ok()?))
    };
    assert!(!log.contains("does not balance"), "{log}");
    log.lines().filter_map(account).collect()
}

const EVERYTHING: &str = r#"
name = "everything"

[sources.new]
type = "file"
path = "new.jsonl"
format = "json_lines"
mode = "once"
types = { id = "i64" }

[sources.old]
type = "file"
path = "old.csv"
format = "csv"
mode = "once"
types = { id = "i64" }

[transforms.all]
type = "merge"
from = ["new", "old"]

[transforms.typed]
type = "cast"
from = "all"
columns = { fahrenheit = "f64" }

[transforms.celsius]
type = "derive"
from = "typed"
columns = { celsius = "(fahrenheit - 32.0) / 1.8" }

[transforms.warm]
type = "filter"
from = "celsius"
where = "celsius > 20.0"

[transforms.names]
type = "rename"
from = "warm"
columns = { id = "number" }

[transforms.slim]
type = "select"
from = "names"
columns = ["number", "celsius", "line"]

[destinations.lines]
type = "file"
from = "slim"
path = "out.jsonl"
format = "json_lines"

[destinations.table]
type = "sqlite"
from = "slim"
path = "out.db"
table = "warm"
"#;

#[test]
fn every_transform_fan_in_and_fan_out_to_the_end() {
    let dir = temp_dir("run-everything");
    let dir = dir.path();
    fs::write(
        dir.join("new.jsonl"),
        "{\"id\": 1, \"fahrenheit\": 86, \"line\": \"häll\"}\n{\"id\": 2, \"fahrenheit\": 32, \"line\": \"cold\"}\n\
         {\"id\": 3, \"fahrenheit\": \"hot\", \"line\": \"no number\"}\nthis is not JSON\n",
    )
    .unwrap();
    fs::write(
        dir.join("old.csv"),
        "id,fahrenheit,line\n4,104,\"a, b\"\n5,,nothing\n6,-40,cold\n",
    )
    .unwrap();
    let command = run(dir, "everything.toml", EVERYTHING);
    let done = command.run(SOON);
    assert_eq!((done.code(), done.stdout.as_str()), (Some(0), ""), "{done}");

    let mut out = lines(&dir.join("out.jsonl"));
    out.sort();
    assert_eq!(
        out,
        [
            r#"{"number":1,"celsius":30.0,"line":"häll"}"#,
            r#"{"number":4,"celsius":40.0,"line":"a, b"}"#,
        ]
    );
    let db = rusqlite::Connection::open(dir.join("out.db")).unwrap();
    let mut statement = db
        .prepare("SELECT number, celsius, line FROM warm ORDER BY number")
        .unwrap();
    let rows: Vec<(i64, f64, String)> = statement
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    assert_eq!(rows, [(1, 30.0, "häll".to_string()), (4, 40.0, "a, b".to_string())]);

    // What is no number, no record, or null where one computes went to the dead letters, with the reason.
    let mut told = letters(&dir.join("everything.state"));
    told.sort();
    assert_eq!(told.len(), 3, "{told:?}");
    for ((node, reason), (wanted, part)) in told.iter().zip([
        ("celsius", "fahrenheit"),
        ("new", "new.jsonl"),
        ("typed", "column 'fahrenheit'"),
    ]) {
        assert!(node == wanted && reason.contains(part), "{node}: {reason}");
    }
    assert!(done.stderr.contains("records went to the dead letters"), "{done}");
    let books = accounts(&done.stderr);
    assert_eq!(books.len(), 4, "{books:?}");
    for [produced, delivered, buffered, dropped, dead] in books.values() {
        assert_eq!((*produced, *buffered, *dropped), (delivered + dead, 0, 0), "{books:?}");
    }

    // Everything has been read: the same command again does nothing, and says so.
    let again = command.run(SOON);
    assert_eq!(again.code(), Some(0), "{again}");
    assert_eq!(lines(&dir.join("out.jsonl")).len(), 2);
    assert_eq!(letters(&dir.join("everything.state")).len(), 3);
    assert_eq!(shop::count(&dir.join("out.db"), "warm"), 2);
}

/// A table that refuses, then does not: what died is marked, and comes through when the workflow runs again.
#[test]
fn what_died_is_tried_again_by_the_next_run() {
    let dir = temp_dir("run-again");
    let dir = dir.path();
    fs::write(
        dir.join("in.jsonl"),
        "{\"n\": 1}\n{\"n\": 10}\nnonsense\n{\"n\": 20}\n{\"n\": 3}\n",
    )
    .unwrap();
    let db = rusqlite::Connection::open(dir.join("out.db")).unwrap();
    db.execute_batch("CREATE TABLE out (n INTEGER CHECK (n < 10))").unwrap();
    let toml = "name = \"again\"\n[sources.in]\ntype = \"file\"\npath = \"in.jsonl\"\nformat = \"json_lines\"\n\
                mode = \"once\"\n[destinations.out]\ntype = \"sqlite\"\nfrom = \"in\"\npath = \"out.db\"\n\
                table = \"out\"\nkey = []\n";
    let (command, state) = (run(dir, "again.toml", toml), dir.join("again.state"));
    let done = command.run(SOON);
    assert_eq!(accounts(&done.stderr).get("in->out"), Some(&[5, 2, 0, 0, 3]), "{done}");
    let dlq = |arguments: &[&str]| {
        let done = daemon()
            .arg("dlq")
            .args(arguments)
            .arg("--data-dir")
            .arg(&state)
            .run(SOON);
        assert_eq!(done.code(), Some(0), "{done}");
        format!("{}{}", done.stdout, done.stderr)
    };
    assert!(
        dlq(&["show", "again/2"]).contains("n = 10"),
        "{}",
        dlq(&["show", "again/2"])
    );
    assert!(dlq(&["show", "again/1"]).contains("nonsense"));

    db.execute_batch("ALTER TABLE out RENAME TO old; CREATE TABLE out (n INTEGER); INSERT INTO out SELECT n FROM old")
        .unwrap();
    assert!(dlq(&["replay", "--all"]).contains("marked: 3"));
    let done = command.run(SOON);
    assert_eq!(accounts(&done.stderr).get("in->out"), Some(&[5, 4, 0, 0, 1]), "{done}");
    let numbers: Vec<i64> = db
        .prepare("SELECT n FROM out ORDER BY rowid")
        .unwrap()
        .query_map([], |row| row.get(0))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    assert_eq!(numbers, [1, 3, 10, 20]);
    assert!(dlq(&["show", "again/1"]).contains("not tried again"));
    assert!(dlq(&["purge", "again/1"]).contains("purged: 1"));
    assert_eq!(letters(&state), []);
    let missing = daemon()
        .args(["dlq", "list", "--data-dir", "/nowhere/at/all"])
        .run(SOON);
    assert_eq!(missing.code(), Some(2), "{missing}");
}

#[test]
fn records_go_to_stdout_and_all_else_to_stderr() {
    let dir = temp_dir("run-stdout");
    let dir = dir.path();
    fs::write(dir.join("in.txt"), "one\ntwo\n").unwrap();
    let toml = "name = \"look\"\n[sources.in]\ntype = \"file\"\npath = \"in.txt\"\nformat = \"lines\"\nmode = \"once\"\n\
                [destinations.out]\ntype = \"stdout\"\nfrom = \"in\"\n";
    let done = run(dir, "look.toml", toml).run(SOON);
    assert_eq!(done.stdout, "{\"line\":\"one\"}\n{\"line\":\"two\"}\n", "{done}");
    assert_eq!(accounts(&done.stderr).get("in->out"), Some(&[2, 2, 0, 0, 0]), "{done}");
    assert_eq!(done.code(), Some(0));
}

/// A webhook answers when its records are safe, and an object takes longer: only a buffer between lets both be.
#[test]
fn who_waits_for_an_object_is_told_to_put_a_buffer_between() {
    let dir = temp_dir("run-waits");
    let dir = dir.path();
    let port = testkit::free_port();
    let with = |destination: &str| {
        format!(
            "name = \"waits\"\n[sources.hook]\ntype = \"webhook\"\nlisten = \"127.0.0.1:{port}\"\nanybody = true\n\
             [destinations.out]\nfrom = \"hook\"\n{destination}\n"
        )
    };
    let parquet = "type = \"file\"\nformat = \"parquet\"\npath = \"out.parquet\"";
    let s3 = "type = \"s3\"\nformat = \"json_lines\"\nbucket = \"b\"\nregion = \"r\"\naccess_key = { env = \"NONE\" }\n\
              secret_key = { env = \"NONE\" }";
    for destination in [parquet, s3] {
        let done = run(dir, "waits.toml", &with(destination)).run(SOON);
        assert_eq!(done.code(), Some(2), "{done}");
        let wanted =
            "'hook' answers when its records are safe, after 30000 ms at most, and 'out' gathers them for 300 s";
        assert!(
            done.stderr.contains(wanted) && done.stderr.contains("spool = {}"),
            "{done}"
        );
    }
    let running = run(dir, "waits.toml", &with(&format!("{parquet}\nspool = {{}}"))).spawn();
    let call = || {
        let mut socket = TcpStream::connect(("127.0.0.1", port)).ok()?;
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let head = "POST / HTTP/1.1\r\nHost: here\r\nConnection: close\r\nContent-Length: 8\r\n\r\n{\"n\": 1}";
        socket.write_all(head.as_bytes()).ok()?;
        let mut answer = [0; 12];
        socket.read_exact(&mut answer).ok()?;
        Some(String::from_utf8_lossy(&answer).into_owned())
    };
    let answer = wait_until("an answer", SOON, call);
    assert_eq!(answer, "HTTP/1.1 200", "{}", running.log());
}

#[test]
fn tails_until_told_to_stop_and_goes_on_there() {
    let dir = temp_dir("run-tail");
    let dir = dir.path();
    let (log, out) = (dir.join("app.log"), dir.join("out.jsonl"));
    fs::write(&log, "").unwrap();
    let toml = "name = \"tail\"\n[sources.log]\ntype = \"file\"\npath = \"app.log\"\nformat = \"lines\"\n\
                [destinations.out]\ntype = \"file\"\nfrom = \"log\"\npath = \"out.jsonl\"\nformat = \"json_lines\"\n";
    let command = run(dir, "tail.toml", toml);
    let mut written = 0;
    for round in 0..3 {
        let mut running = command.spawn();
        for _ in 0..2 {
            let more: String = (written..written + 100)
                .map(|number| format!("line {number}\n"))
                .collect();
            append(&log, &more);
            written += 100;
            wait_until("the lines", SOON, || (lines(&out).len() >= written).then_some(()));
        }
        assert!(running.is_running(), "a tailing source does not end");
        assert_eq!(
            running.term_and_wait(SOON).code(),
            Some(0),
            "round {round}: {}",
            running.log()
        );
        let [produced, delivered, ..] = accounts(&running.log())["log->out"];
        assert_eq!((produced, delivered), (written as u64, written as u64), "round {round}");
        // While nobody runs.
        append(&log, &format!("line {written}\n"));
        written += 1;
    }
    let mut last = command.spawn();
    wait_until("the last line", SOON, || (lines(&out).len() >= written).then_some(()));
    last.term_and_wait(SOON);
    let wanted: Vec<String> = (0..written)
        .map(|number| format!("{{\"line\":\"line {number}\"}}"))
        .collect();
    assert_eq!(lines(&out), wanted, "each line once, in order");
}

/// A line comes, and then none: its file is complete all the same, and what comes later goes to another one.
#[test]
fn a_file_is_complete_by_its_age_while_nothing_comes() {
    let dir = temp_dir("run-idle");
    let dir = dir.path();
    let log = dir.join("app.log");
    fs::write(&log, "one\n").unwrap();
    let toml = "name = \"idle\"\n[sources.in]\ntype = \"file\"\npath = \"app.log\"\nformat = \"lines\"\n\
                [destinations.out]\ntype = \"file\"\nfrom = \"in\"\npath = \"out.jsonl\"\nformat = \"json_lines\"\n\
                rotate = { max_age_s = 2 }\n";
    let mut daemon = run(dir, "idle.toml", toml).spawn();
    for (complete, line) in [("out-000001.jsonl", "one"), ("out-000002.jsonl", "two")] {
        wait_until("the file to be complete", SOON, || {
            dir.join(complete).exists().then_some(())
        });
        assert_eq!(lines(&dir.join(complete)), [format!("{{\"line\":\"{line}\"}}")]);
        assert!(!dir.join("out.jsonl").exists());
        append(&log, if line == "one" { "two\n" } else { "three\n" });
    }
    wait_until("the last to be written", SOON, || {
        dir.join("out.jsonl").exists().then_some(())
    });
    assert!(daemon.term_and_wait(SOON).success());
    let account = accounts(&daemon.log()).remove("in->out");
    assert_eq!(account, Some([3, 3, 0, 0, 0]), "{}", daemon.log());
}

#[test]
fn killed_again_and_again_it_neither_loses_nor_doubles() {
    const ROWS: u64 = 10_000;
    let dir = temp_dir("run-kill");
    let dir = dir.path();
    let source = dir.join("shop.db");
    shop::create(&source).unwrap();
    let toml = format!(
        "name = \"shop\"\n[sources.orders]\ntype = \"sqlite\"\npath = \"shop.db\"\ntable = \"{}\"\ncursor = \"id\"\n\
         [destinations.copy]\ntype = \"sqlite\"\nfrom = \"orders\"\npath = \"copy.db\"\ntable = \"copied\"\n\
         [destinations.lines]\ntype = \"file\"\nfrom = \"orders\"\npath = \"out.jsonl\"\nformat = \"json_lines\"\n",
        shop::TABLE
    );
    let command = run(dir, "shop.toml", &toml);
    let (copy, out) = (dir.join("copy.db"), dir.join("out.jsonl"));
    let count = || if copy.exists() { shop::count(&copy, "copied") } else { 0 };
    // Only a kill in the middle counts; on a busy machine some come after it.
    let (mut kills, mut written) = (0, 0);
    while kills < 5 {
        let before = written;
        written = shop::add(&source, ROWS).unwrap();
        assert!(
            written <= 20 * ROWS,
            "only {kills} kills hit the middle: take more rows"
        );
        let mut running: Proc = command.spawn();
        wait_until("some progress", SOON, || (count() > before).then_some(()));
        running.kill9();
        kills += u64::from(count() < written);
    }
    let mut running = command.spawn();
    let written = shop::add(&source, 1_000).unwrap();
    wait_ok("every row, once", SOON, || {
        match shop::compare(&source, &copy, "copied") {
            Ok(rows) if rows == written => Ok(()),
            Ok(rows) => Err(format!("{rows} rows")),
            Err(error) => Err(error.to_string()),
        }
    });
    wait_until("every line", SOON, || {
        (lines(&out).len() as u64 >= written).then_some(())
    });
    // What is written is committed and accounted for a moment later; a stop in between leaves that to the next run.
    let settled = |books: &BTreeMap<String, [u64; 5]>| books.values().all(|[_, delivered, ..]| *delivered == written);
    let books = wait_until("books that say all is delivered", SOON, || {
        std::thread::sleep(Duration::from_millis(500));
        assert!(running.term_and_wait(SOON).success());
        let books = accounts(&running.log());
        if !settled(&books) {
            running = command.spawn();
        }
        settled(&books).then_some(books)
    });
    let mut ids: Vec<u64> = lines(&out)
        .iter()
        .map(|line| {
            serde_json::from_str::<serde_json::Value>(line).unwrap()["id"]
                .as_u64()
                .unwrap()
        })
        .collect();
    assert_eq!(ids.len() as u64, written, "the file has a record twice");
    ids.dedup();
    assert!(ids.is_sorted() && ids.len() as u64 == written);
    for [produced, delivered, buffered, dropped, dead] in books.values() {
        assert_eq!(*produced, written, "{books:?}");
        assert_eq!(
            (*delivered, *buffered, *dropped, *dead),
            (written, 0, 0, 0),
            "{books:?}"
        );
    }
    assert_eq!(books.len(), 2, "{books:?}");
    assert!(!dir.join("shop.state/dead").exists(), "nothing is a dead letter");
}

const WINDOWS: &str = r#"
name = "windows"

[sources.readings]
type = "file"
path = "readings.jsonl"
format = "json_lines"
mode = "once"
types = { at = "i64" }

[transforms.times]
type = "timestamp"
from = "readings"
columns = ["at"]
unit = "s"

[transforms.minutes]
type = "aggregate"
from = "times"
time = "at"
window = { every_ms = 1000, length_ms = 60000 }
values = { n = "count" }

[destinations.table]
type = "sqlite"
from = "minutes"
path = "out.db"
table = "windows"
"#;

const WINDOWS_TOO: &str = r#"
[destinations.copy]
type = "sqlite"
from = "minutes"
path = "copy.db"
table = "windows"
"#;

/// One read of readings two minutes apart closes sixty windows for each, which is more than a batch holds: straight into a
/// destination, and through the spools of two.
#[test]
fn more_windows_than_a_batch_holds_are_there_once_through_kills() {
    const READINGS: u32 = 2_000;
    let dir = temp_dir("run-windows");
    let dir = dir.path();
    let readings: String = (1..=READINGS).map(|n| format!("{{\"at\":{}}}\n", 120 * n)).collect();
    fs::write(dir.join("readings.jsonl"), readings).unwrap();
    for (toml, tables) in [
        (WINDOWS.to_string(), &["out.db"][..]),
        (format!("{WINDOWS}{WINDOWS_TOO}"), &["out.db", "copy.db"]),
    ] {
        let command = run(dir, "windows.toml", &toml);
        for kill in 0..4 {
            let mut running: Proc = command.spawn();
            std::thread::sleep(Duration::from_millis(300 + 250 * kill));
            running.kill9();
        }
        let done = command.run(SOON * 4);
        assert_eq!(done.code(), Some(0), "{done}");
        let books = accounts(&done.stderr);
        assert_eq!(books.len(), tables.len(), "{done}");
        for [produced, delivered, buffered, dropped, dead] in books.values() {
            let all = u64::from(READINGS) * 60;
            assert_eq!(
                [*produced, *delivered, *buffered, *dropped, *dead],
                [all, all, 0, 0, 0],
                "{books:?}"
            );
        }
        for table in tables {
            let db = rusqlite::Connection::open(dir.join(table)).unwrap();
            let sql = "SELECT count(*), count(DISTINCT window_start), sum(n) FROM windows";
            let found: (i64, i64, i64) = db
                .query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
                .unwrap();
            let all = i64::from(READINGS) * 60;
            assert_eq!(found, (all, all, all), "{table}");
            drop(db);
            fs::remove_file(dir.join(table)).unwrap();
        }
        assert!(!dir.join("windows.state/dead").exists(), "nothing is a dead letter");
        fs::remove_dir_all(dir.join("windows.state")).unwrap();
    }
}

const STOCK: &str = r#"
name = "stock"

[sources.changes]
type = "sqlite"
mode = "changes"
path = "shop.db"
table = "stock"

[destinations.copy]
type = "sqlite"
from = "changes"
path = "copy.db"
table = "copied"
"#;

/// What another program changes while the daemon runs or does not.
fn changes_of_stock() -> String {
    let transaction = "BEGIN IMMEDIATE;
        UPDATE stock SET amount = amount + 1 WHERE id % 997 = abs(random() % 997);
        DELETE FROM stock WHERE id IN (SELECT abs(random() % 60000) FROM stock LIMIT 9);
        INSERT OR REPLACE INTO stock SELECT abs(random() % 60000), 'new', 0 FROM stock LIMIT 9;
        UPDATE OR IGNORE stock SET id = id + 1 WHERE id % 4999 = abs(random() % 4999);
        COMMIT;\n";
    transaction.repeat(100)
}

#[test]
fn every_change_of_a_table_arrives_once_through_kills() {
    let dir = temp_dir("run-changes");
    let dir = dir.path();
    let program = |file: &str| {
        Cmd::new("sqlite3")
            .args(["-bail", "-cmd", ".timeout 30000"])
            .arg(dir.join(file))
    };
    let query = |file: &str, sql: &str| program(file).arg(sql).run(SOON).ok();
    query(
        "shop.db",
        "PRAGMA journal_mode = WAL; CREATE TABLE stock (id INTEGER PRIMARY KEY, name TEXT, amount INT);
         WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 40000)
         INSERT INTO stock SELECT n, 'item ' || n, n % 7 FROM n",
    );
    let command = run(dir, "stock.toml", STOCK);
    let rows = |file: &str, table: &str| query(file, &format!("SELECT * FROM {table} ORDER BY id"));
    let progress = || match dir.join("copy.db").exists() {
        true => {
            program("copy.db")
                .arg("SELECT seq FROM _mycelial_watermark")
                .run(SOON)
                .stdout
        }
        false => String::new(),
    };
    for _ in 0..6 {
        let before = progress();
        let mut writer = program("shop.db").stdin(changes_of_stock()).spawn();
        let mut running = command.spawn();
        wait_until("some progress", SOON, || (progress() != before).then_some(()));
        running.kill9();
        let exit = writer.wait_exit(SOON);
        assert!(exit.is_some_and(|exit| exit.success()), "{}", writer.log());
    }
    let mut running = command.spawn();
    wait_until("the copy to be the table", SOON, || {
        (rows("copy.db", "copied") == rows("shop.db", "stock")).then_some(())
    });
    // What is written is committed and accounted for a moment later; a stop in between leaves that to the next run.
    let books = wait_until("books that say all is delivered", SOON, || {
        std::thread::sleep(Duration::from_millis(500));
        assert!(running.term_and_wait(SOON).success());
        let books = accounts(&running.log());
        let is_settled = books.values().all(|[produced, delivered, ..]| produced == delivered);
        if !is_settled {
            running = command.spawn();
        }
        is_settled.then_some(books)
    });
    let [produced, delivered, buffered, dropped, dead] = books["changes->copy"];
    assert!(produced > 40_000 && produced == delivered, "{books:?}");
    assert_eq!((buffered, dropped, dead), (0, 0, 0), "{books:?}");
    assert_eq!(rows("copy.db", "copied"), rows("shop.db", "stock"));
    assert!(!dir.join("stock.state/dead").exists(), "nothing is a dead letter");
    // What was delivered has been taken off, but for the row that gives the next its number.
    assert_eq!(query("shop.db", "SELECT count(*) FROM mycelial_stock_changes"), "1\n");
}

#[test]
fn workflows_keep_to_themselves() {
    let dir = temp_dir("run-two");
    let dir = dir.path();
    fs::write(dir.join("in.txt"), "one\ntwo\nthree\n").unwrap();
    let toml = |name: &str, mode: &str| {
        format!(
            "name = \"{name}\"\n[sources.in]\ntype = \"file\"\npath = \"in.txt\"\nformat = \"lines\"\nmode = \"{mode}\"\n\
             [destinations.out]\ntype = \"file\"\nfrom = \"in\"\npath = \"{name}.jsonl\"\nformat = \"json_lines\"\n"
        )
    };
    let read = |name: &str| lines(&dir.join(format!("{name}.jsonl"))).len();
    // Beside each other, each with a state of its own beside its file.
    let mut a = run(dir, "a.toml", &toml("a", "tail")).spawn();
    wait_until("a", SOON, || (read("a") == 3).then_some(()));
    run(dir, "b.toml", &toml("b", "once")).run(SOON).ok();
    assert_eq!((read("a"), read("b")), (3, 3));
    assert!(dir.join("a.state").is_dir() && dir.join("b.state").is_dir());

    // One state for two at a time is refused.
    let taken = run(dir, "c.toml", &toml("c", "once"))
        .arg("--state")
        .arg(dir.join("a.state"))
        .run(SOON);
    assert_eq!(taken.code(), Some(1), "{taken}");
    assert!(taken.stderr.contains("a.state is in use by another process"), "{taken}");
    assert!(a.term_and_wait(SOON).success());

    // One after the other, they share a state and still keep to themselves.
    let shared = dir.join("shared");
    for (name, wanted) in [("c", 3), ("d", 3), ("c", 3)] {
        run(dir, "any.toml", &toml(name, "once"))
            .arg("--state")
            .arg(&shared)
            .run(SOON)
            .ok();
        assert_eq!(read(name), wanted, "{name}");
    }
    assert!(!dir.join("any.state").exists());
}
