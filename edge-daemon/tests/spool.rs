//! `myceliald spool` on the buffers of a stopped daemon, as people and programs use it.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a helper of a test may panic like the test itself")]

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::Connection;
use testkit::{Cmd, Finished};

const SOON: Duration = Duration::from_secs(60);
const ROWS: i64 = 3_000;

/// A directory in which one stream was fed by a standalone run whose destination does not take anything.
struct Stopped {
    home: tempfile::TempDir,
}

impl Stopped {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let mut db = Connection::open(home.path().join("in.db")).unwrap();
        db.execute_batch("CREATE TABLE rows (id INTEGER PRIMARY KEY, text TEXT, half REAL, none TEXT)")
            .unwrap();
        let all = db.transaction().unwrap();
        for id in 1..=ROWS {
            let row = (id, format!("row {id} {}", "x".repeat(200)), id as f64 / 2.0);
            all.execute("INSERT INTO rows VALUES (?1, ?2, ?3, NULL)", row).unwrap();
        }
        all.commit().unwrap();
        // Two destinations make two streams; one is a directory that cannot be written.
        let text = "name = \"copy\"\n[sources.db]\ntype = \"sqlite\"\ndaemon = \"local\"\npath = \"in.db\"\ntable = \"rows\"\n\
                    cursor = \"id\"\n[destinations.store]\ntype = \"sqlite\"\ndaemon = \"local\"\nfrom = \"db\"\n\
                    path = \"out.db\"\ntable = \"rows\"\n[destinations.stuck]\ntype = \"sqlite\"\ndaemon = \"local\"\n\
                    from = \"db\"\npath = \"missing/out.db\"\ntable = \"rows\"\n";
        fs::write(home.path().join("copy.toml"), text).unwrap();
        let stopped = Self { home };
        let mut run = Cmd::bin("myceliald")
            .args(["run", &stopped.path("copy.toml"), "--state", &stopped.path("state")])
            .spawn();
        testkit::wait_until("the rows at the destination that works", SOON, || {
            let db = Connection::open(stopped.home.path().join("out.db")).ok()?;
            let count = db.query_row("SELECT count(*) FROM rows", [], |row| row.get::<_, i64>(0));
            (count.ok()? == ROWS).then_some(())
        });
        let running = stopped.spool(&["list"]);
        assert_eq!(running.code(), Some(1));
        assert!(told(&running).contains("is running"), "{}", told(&running));
        run.term_and_wait(SOON);
        stopped
    }

    fn path(&self, name: &str) -> String {
        self.home.path().join(name).display().to_string()
    }

    fn spool(&self, arguments: &[&str]) -> Finished {
        Cmd::bin("myceliald")
            .args(["--data-dir", &self.path("state"), "spool"])
            .args(arguments)
            .run(SOON)
    }

    fn json(&self, arguments: &[&str]) -> Vec<serde_json::Value> {
        let done = self.spool(&[arguments, &["-o", "json"]].concat());
        serde_json::from_str(&done.stdout).unwrap_or_else(|error| panic!("{error}: {}", told(&done)))
    }

    /// The stream that holds rows: its id and its first segment's directory.
    fn stuck(&self) -> (String, PathBuf) {
        let all = self.json(&["list"]);
        let stuck = all
            .iter()
            .find(|stream| stream["buffered"] == ROWS)
            .expect("a full buffer");
        let id = stuck["stream"].as_str().unwrap().to_string();
        let dir = self.home.path().join("state/streams").join(&id).join("spool");
        (id, dir)
    }
}

fn told(done: &Finished) -> String {
    format!("{}{}", done.stdout, done.stderr)
}

fn first_segment(dir: &Path) -> PathBuf {
    let entries = fs::read_dir(dir).unwrap().flatten().map(|entry| entry.path());
    let mut segments: Vec<PathBuf> = entries
        .filter(|path| path.file_name().is_some_and(|name| name.len() == 20))
        .collect();
    segments.sort();
    segments.swap_remove(0)
}

#[test]
fn buffers_of_a_stopped_daemon() {
    let stopped = Stopped::new();
    let (id, dir) = stopped.stuck();

    let listed = stopped.spool(&["list"]);
    assert_eq!(listed.code(), Some(0), "{}", told(&listed));
    assert!(told(&listed).contains("good"), "{}", told(&listed));
    assert!(told(&listed).contains("db->stuck"), "{}", told(&listed));
    let checked = stopped.spool(&["check", "db->stuck"]);
    assert_eq!(checked.code(), Some(0), "{}", told(&checked));
    assert!(told(&checked).contains("frames        1 to"), "{}", told(&checked));

    // Every record comes out, as it went in.
    let exported = stopped.spool(&["export", &id[..8]]);
    assert_eq!(exported.code(), Some(0), "{}", told(&exported));
    let lines = exported.stdout;
    let mut expected = 1;
    for line in lines.lines() {
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        let record = &value["record"];
        assert_eq!(record["id"], expected);
        assert_eq!(record["half"], expected as f64 / 2.0);
        assert!(
            record["text"]
                .as_str()
                .unwrap()
                .starts_with(&format!("row {expected} "))
        );
        assert!(record["none"].is_null() && value["op"].is_string());
        expected += 1;
    }
    assert_eq!(expected, ROWS + 1);
    let out = stopped.path("exported");
    for (attempt, code) in [(1, 0), (2, 1)] {
        let exported = stopped.spool(&["export", &id, "--to", &out]);
        assert_eq!(exported.code(), Some(code), "attempt {attempt}: {}", told(&exported));
    }
    let file = fs::read_to_string(Path::new(&out).join(format!("{id}.jsonl"))).unwrap();
    assert!(file == lines, "nothing is written over");

    // Damage is told, mended and told again.
    let db = first_segment(&dir).join("db");
    let mut bytes = fs::read(&db).unwrap();
    let (from, to) = (bytes.len() / 10, bytes.len() * 6 / 10);
    bytes[from..to].fill(0);
    fs::write(&db, bytes).unwrap();
    let checked = stopped.spool(&["check"]);
    assert_eq!(checked.code(), Some(4), "{}", told(&checked));
    assert!(told(&checked).contains("lost to damage"), "{}", told(&checked));
    let repaired = stopped.spool(&["repair"]);
    assert_eq!(repaired.code(), Some(0), "{}", told(&repaired));
    assert!(told(&repaired).contains("frames saved"), "{}", told(&repaired));
    let after = stopped.json(&["check", &id]).swap_remove(0);
    let count = |key: &str| after[key].as_i64().unwrap();
    assert!(count("lost") > 0 && count("buffered") > 0, "{after}");
    assert_eq!(count("lost") + count("buffered"), ROWS);
    let exported = stopped.spool(&["export", &id]);
    assert_eq!(exported.stdout.lines().count() as i64, count("buffered"));

    // What was set aside is shown until it is forgotten, and nothing else goes with it.
    let whole = dir.with_extension("lost.1");
    fs::create_dir(&whole).unwrap();
    fs::write(whole.join("db"), vec![0; 5_000]).unwrap();
    let listed = stopped.spool(&["list"]);
    assert_eq!(listed.code(), Some(4), "{}", told(&listed));
    for part in [
        "5 KB  a whole buffer of db->stuck",
        "a part of a buffer of db->stuck",
        "spool forget",
    ] {
        assert!(told(&listed).contains(part), "{part}: {}", told(&listed));
    }
    for (arguments, is_left) in [(&["forget"][..], true), (&["forget", &id, "--yes"], false)] {
        let done = stopped.spool(arguments);
        assert_eq!(done.code(), Some(0), "{}", told(&done));
        assert_eq!(told(&done).contains("add --yes"), is_left, "{}", told(&done));
        assert_eq!(whole.exists(), is_left);
    }
    let nothing = stopped.spool(&["forget", "--yes"]);
    assert!(told(&nothing).contains("nothing was set aside"), "{}", told(&nothing));
    let left = stopped.json(&["check", &id]).swap_remove(0);
    assert_eq!(left["buffered"], after["buffered"]);
    assert_eq!(left["set_aside"], serde_json::json!([]));
}

#[test]
fn mistakes_are_explained() {
    let home = tempfile::tempdir().unwrap();
    let empty = home.path().display().to_string();
    let nothing = Cmd::bin("myceliald")
        .args(["--data-dir", &empty, "spool", "list"])
        .run(SOON);
    assert_eq!(nothing.code(), Some(2));
    assert!(told(&nothing).contains("there are no buffers in"), "{}", told(&nothing));
    fs::create_dir(home.path().join("streams")).unwrap();
    let unknown = Cmd::bin("myceliald")
        .args(["--data-dir", &empty, "spool", "export", "nobody"])
        .run(SOON);
    assert_eq!(unknown.code(), Some(2), "{}", told(&unknown));
    assert!(
        told(&unknown).contains("there is no stream 'nobody'"),
        "{}",
        told(&unknown)
    );
    let help = Cmd::bin("myceliald").args(["spool", "forget", "--help"]).run(SOON);
    assert!(told(&help).starts_with("Examples"), "{}", told(&help));
    let help = Cmd::bin("myceliald").args(["spool", "--help"]).run(SOON);
    assert!(
        told(&help).starts_with("Examples (the daemon must be stopped):"),
        "{}",
        told(&help)
    );
}
