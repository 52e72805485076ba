//! Programs and code of somebody's own.

use std::{fs, ops::Range, path::PathBuf};

use bus_schema::data::Op;
use flow::TroubleKind;
use serde_json::{Value as Json, json};
use testkit::{TempDir, temp_dir};

use crate::{
    file_worlds::{append, extras_in, lines, listing, numbers_in},
    world::{Promise, SinkWorld, SourceWorld, Wrong},
};

/// Writes the lines of `data` that come after the number in MYCELIAL_CURSOR, and leaves a mark that it ran. While there is a
/// file `down` it fails.
const GIVER: &str = r#"
import json, os, sys
open("ran", "a").write(".")
if os.path.exists("down"):
    sys.exit("not now")
after, last = int(os.environ.get("MYCELIAL_CURSOR", "0")), 0
for line in open("data") if os.path.exists("data") else []:
    try:
        last = json.loads(line)["n"]
        wanted = last > after
    except ValueError:
        wanted = last >= after
    if wanted:
        print(line, end="")
"#;

/// Keeps records, each batch once by its key, and refuses those that say that they are no insert. Leaves a mark that it ran;
/// while there is a file `frozen` it takes nothing.
const TAKER: &str = r#"
import json, os, sys, time
open("ran", "a").write(".")
while heading := sys.stdin.readline():
    if os.path.exists("down"):
        sys.exit("not now")
    heading = json.loads(heading)
    records = [json.loads(sys.stdin.readline()) for _ in range(heading["records"])]
    while os.path.exists("frozen"):
        time.sleep(0.01)
    answer = {"batch": heading["batch"]}
    keys = open("keys").read().splitlines() if os.path.exists("keys") else []
    bad = [i for i, record in enumerate(records) if record["op"] != "insert"]
    if bad:
        answer["rejected"] = [{"record": i, "reason": "it is no insert"} for i in bad]
    if heading["batch"] not in keys[-64:]:
        with open("out", "a") as out:
            out.writelines(json.dumps(record) + "\n" for i, record in enumerate(records) if i not in bad)
        with open("keys", "a") as file:
            file.write(heading["batch"] + "\n")
    print(json.dumps(answer), flush=True)
"#;

fn down(dir: &TempDir, is_down: bool) {
    is_there(dir, "down", is_down);
}

/// A file by which a program knows what it shall do.
fn is_there(dir: &TempDir, name: &str, is_there: bool) {
    let file = dir.path().join(name);
    match is_there {
        true => fs::write(file, "").unwrap(),
        false => fs::remove_file(file).unwrap(),
    }
}

/// A program that writes what is new, again and again.
pub struct ExecSource {
    dir: TempDir,
}

impl ExecSource {
    /// It has nothing to write yet.
    pub fn new() -> Self {
        let dir = temp_dir("compliance");
        fs::write(dir.path().join("giver.py"), GIVER).unwrap();
        Self { dir }
    }
}

impl SourceWorld for ExecSource {
    fn config(&self) -> Json {
        json!({"command": ["python3", "giver.py"], "format": "json_lines", "types": {"n": "i64"}, "cursor": "n", "every_ms": 50})
    }

    fn base_dir(&self) -> PathBuf {
        self.dir.path().to_path_buf()
    }

    fn feed(&mut self, numbers: Range<u64>, pad: usize) {
        append(&self.dir.path().join("data"), &lines(numbers, pad, false));
    }

    fn feed_bad(&mut self, _: u64) -> bool {
        append(&self.dir.path().join("data"), "nonsense\n");
        false
    }

    fn down(&mut self) {
        down(&self.dir, true);
    }

    fn up(&mut self) {
        down(&self.dir, false);
    }

    fn wrong(&self) -> Vec<Wrong> {
        vec![
            (json!({"command": ["no-such-program"]}), TroubleKind::Program),
            (json!({"command": ["./giver.py"]}), TroubleKind::Program),
            (
                json!({"command": ["true"], "dir": "/no/such/directory"}),
                TroubleKind::Path,
            ),
        ]
    }

    fn touched(&mut self) -> String {
        listing(self.dir.path())
    }
}

/// A program that takes records.
pub struct ExecSink {
    dir: TempDir,
}

impl ExecSink {
    /// It has none yet.
    pub fn new() -> Self {
        let dir = temp_dir("compliance");
        fs::write(dir.path().join("taker.py"), TAKER).unwrap();
        Self { dir }
    }
}

impl SinkWorld for ExecSink {
    fn config(&self) -> Json {
        json!({"command": ["python3", "taker.py"], "op_column": "op"})
    }

    fn base_dir(&self) -> PathBuf {
        self.dir.path().to_path_buf()
    }

    fn promise(&self) -> Promise {
        Promise::AtLeast
    }

    fn arrived(&mut self) -> Vec<u64> {
        numbers_in(&fs::read_to_string(self.dir.path().join("out")).unwrap_or_default())
    }

    fn extras(&mut self) -> u64 {
        extras_in(&fs::read_to_string(self.dir.path().join("out")).unwrap_or_default())
    }

    fn freeze(&mut self) {
        is_there(&self.dir, "frozen", true);
    }

    fn thaw(&mut self) {
        is_there(&self.dir, "frozen", false);
    }

    fn down(&mut self) {
        down(&self.dir, true);
    }

    fn up(&mut self) {
        down(&self.dir, false);
    }

    fn wrong(&self) -> Vec<Wrong> {
        vec![
            (json!({"command": ["no-such-program"]}), TroubleKind::Program),
            (
                json!({"command": ["true"], "dir": "/no/such/directory"}),
                TroubleKind::Path,
            ),
        ]
    }

    fn touched(&mut self) -> String {
        listing(self.dir.path())
    }
}

/// Yields the lines of `data` that come after a number. A value that no column can hold stands for a bad one.
const READ: &str = r#"
import json, os
open(os.path.join(DIR, "ran"), "a").write(".")

def read(cursor):
    if os.path.exists(os.path.join(DIR, "down")):
        raise RuntimeError("not now")
    after, last = cursor or 0, 0
    data = os.path.join(DIR, "data")
    for line in open(data) if os.path.exists(data) else []:
        try:
            record = json.loads(line)
            last = record["n"]
            if last > after:
                yield record, last
        except ValueError:
            if last >= after:
                yield {"n": 10 ** 100, "v": object()}, last
"#;

/// A function that yields what is new, again and again.
pub struct PythonSource {
    dir: TempDir,
}

impl PythonSource {
    /// It has nothing yet.
    pub fn new() -> Self {
        Self {
            dir: temp_dir("compliance"),
        }
    }
}

fn code(dir: &TempDir, text: &str) -> String {
    format!("DIR = {:?}\n{text}", dir.path().display().to_string())
}

impl SourceWorld for PythonSource {
    fn config(&self) -> Json {
        json!({"code": code(&self.dir, READ), "types": {"n": "i64"}, "every_ms": 50})
    }

    fn rereads(&self) -> bool {
        // Not for every code, but for this.
        true
    }

    fn feed(&mut self, numbers: Range<u64>, pad: usize) {
        append(&self.dir.path().join("data"), &lines(numbers, pad, false));
    }

    fn feed_bad(&mut self, _: u64) -> bool {
        append(&self.dir.path().join("data"), "nonsense\n");
        false
    }

    fn down(&mut self) {
        down(&self.dir, true);
    }

    fn up(&mut self) {
        down(&self.dir, false);
    }

    fn wrong(&self) -> Vec<Wrong> {
        vec![
            (json!({"code": "def read(cursor:\n    pass"}), TroubleKind::Program),
            (json!({"file": self.dir.path().join("none.py")}), TroubleKind::Missing),
        ]
    }

    fn touched(&mut self) -> String {
        listing(self.dir.path())
    }
}

/// Keeps records, and refuses those that are no inserts.
const WRITE: &str = r#"
import json, os, time
open(os.path.join(DIR, "ran"), "a").write(".")

def write(records, key):
    if os.path.exists(os.path.join(DIR, "down")):
        raise RuntimeError("not now")
    while os.path.exists(os.path.join(DIR, "frozen")):
        time.sleep(0.01)
    path = os.path.join(DIR, "keys")
    keys = open(path).read().splitlines() if os.path.exists(path) else []
    bad = {i: "it is no insert" for i, record in enumerate(records) if record.op != "insert"}
    if key not in keys[-64:]:
        with open(os.path.join(DIR, "out"), "a") as out:
            out.writelines(json.dumps({"n": r["n"], "extra": r.get("extra")}) + "\n" for i, r in enumerate(records) if i not in bad)
        with open(path, "a") as file:
            file.write(key + "\n")
    return bad
"#;

/// A function that takes records.
pub struct PythonSink {
    dir: TempDir,
}

impl PythonSink {
    /// It has none yet.
    pub fn new() -> Self {
        Self {
            dir: temp_dir("compliance"),
        }
    }
}

impl SinkWorld for PythonSink {
    fn config(&self) -> Json {
        json!({"code": code(&self.dir, WRITE)})
    }

    fn promise(&self) -> Promise {
        Promise::AtLeast
    }

    fn arrived(&mut self) -> Vec<u64> {
        numbers_in(&fs::read_to_string(self.dir.path().join("out")).unwrap_or_default())
    }

    fn extras(&mut self) -> u64 {
        extras_in(&fs::read_to_string(self.dir.path().join("out")).unwrap_or_default())
    }

    fn freeze(&mut self) {
        is_there(&self.dir, "frozen", true);
    }

    fn thaw(&mut self) {
        is_there(&self.dir, "frozen", false);
    }

    fn bad(&self) -> Op {
        Op::Delete
    }

    fn down(&mut self) {
        down(&self.dir, true);
    }

    fn up(&mut self) {
        down(&self.dir, false);
    }

    fn wrong(&self) -> Vec<Wrong> {
        vec![
            (json!({"code": "def write(records:\n    pass"}), TroubleKind::Program),
            (json!({"file": self.dir.path().join("none.py")}), TroubleKind::Missing),
        ]
    }

    fn touched(&mut self) -> String {
        listing(self.dir.path())
    }
}
