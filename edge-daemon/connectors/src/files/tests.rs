//! Whole files from one real directory into another: exact, once, over crashes, changes and damage.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use bus_schema::data::{Batch, Cell};
use flow::{Position, Read, Sink, Source};
use proptest::prelude::*;

use super::{SINK, SOURCE};
use crate::file::testing::{delivery, refused, sink, source, stream};

const ONCE: &str = r#"{"path": "in", "mode": "once", "settle_ms": 0}"#;
const INTO: &str = r#"{"path": "out"}"#;

/// A world with the directories `in` and `out`.
fn world() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("in")).unwrap();
    fs::create_dir(dir.path().join("out")).unwrap();
    dir
}

/// Bytes that look like nothing.
fn noise(bytes: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..bytes).map(|_| next()).collect()
}

fn put(path: PathBuf, bytes: &[u8], seconds: u64) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, bytes).unwrap();
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    fs::File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_modified(time)
        .unwrap();
}

/// Name and content of all files below a directory that do not begin with a dot.
fn files(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let (mut found, mut directories) = (BTreeMap::new(), vec![root.to_path_buf()]);
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else if !path.file_name().unwrap().to_str().unwrap().starts_with('.') {
                let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_string();
                found.insert(name, fs::read(path).unwrap());
            }
        }
    }
    found
}

fn names(root: &Path) -> Vec<String> {
    files(root).into_keys().collect()
}

/// A source and a sink, and how far they are.
struct Run {
    source: Box<dyn Source>,
    sink: Box<dyn Sink>,
    seq: u64,
    rejected: Vec<String>,
}

impl Run {
    /// As a daemon that starts: at the destination's watermark.
    async fn start(dir: &Path, from: &str, into: &str) -> Self {
        let mut sink = sink(&SINK, into, dir);
        sink.open().await.unwrap();
        let mark = sink.watermark(&stream("a")).await.unwrap();
        let mut source = source(&SOURCE, from, dir);
        source.open(mark.as_ref().map(|mark| &mark.position)).await.unwrap();
        Self {
            source,
            sink,
            seq: mark.map_or(0, |mark| mark.seq),
            rejected: Vec::new(),
        }
    }

    /// Reads and writes one batch; its position, if there was one.
    async fn write(&mut self) -> Option<Position> {
        let Read::Batch(read) = self.source.read().await.unwrap() else {
            return None;
        };
        self.seq += 1;
        let mut delivery = delivery("a", self.seq, read.batch);
        delivery.position = read.position.clone();
        let rejected = self.sink.write(&[delivery]).await.unwrap();
        self.rejected
            .extend(rejected.into_iter().map(|rejected| rejected.reason));
        Some(read.position)
    }

    /// A batch and its commits, on both sides.
    async fn pass(&mut self) -> bool {
        let Some(position) = self.write().await else {
            return false;
        };
        self.sink.commit().await.unwrap();
        self.source.commit(&position).await.unwrap();
        true
    }

    async fn pass_all(&mut self) {
        while self.pass().await {}
    }
}

#[tokio::test]
async fn files_arrive_as_they_are() {
    let dir = world();
    let (from, to) = (dir.path().join("in"), dir.path().join("out"));
    for (name, bytes) in [
        ("empty", 0),
        ("one", 1),
        ("chunk", 48 * 1024),
        ("more", 48 * 1024 + 1),
        ("large.bin", 700_000),
        ("sub/größe \"7'.x", 3),
        (".hidden", 5),
    ] {
        // Names that some systems do not have are for another test.
        put(from.join(name.replace('"', "_")), &noise(bytes, 7), 1_000_000);
    }
    let recursive = ONCE.replace('}', r#", "recursive": true}"#);
    let mut run = Run::start(dir.path(), &recursive, INTO).await;
    run.pass_all().await;
    assert_eq!(run.rejected, [""; 0]);
    assert_eq!(files(&to), files(&from));
    assert_eq!(files(&to).len(), 6);
    let time = fs::metadata(to.join("large.bin")).unwrap().modified().unwrap();
    assert_eq!(time, SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000));
    // Sent is sent: also for one that starts again, and for a destination that keeps everything.
    let numbered = INTO.replace('}', r#", "existing": "number"}"#);
    drop(run);
    let mut run = Run::start(dir.path(), &recursive, &numbered).await;
    assert!(!run.pass().await);
    // A changed file is another one.
    put(from.join("one"), b"changed", 1_000_001);
    run.pass_all().await;
    drop(run);
    assert_eq!(files(&to)["one-000001"], b"changed");
    put(from.join("one"), b"again", 1_000_002);
    let mut run = Run::start(dir.path(), &recursive, INTO).await;
    run.pass_all().await;
    assert_eq!(files(&to)["one"], b"again");
    assert_eq!(files(&to).len(), 7);
    // A destination that begins anew gets all of them.
    drop(run);
    fs::remove_dir_all(&to).unwrap();
    fs::create_dir(&to).unwrap();
    let mut run = Run::start(dir.path(), &recursive, INTO).await;
    run.pass_all().await;
    assert_eq!(files(&to), files(&from));
}

#[tokio::test]
async fn what_becomes_of_them() {
    for (options, left) in [
        (r#""when_sent": "keep""#, vec!["in/a", "in/b"]),
        (r#""when_sent": "delete""#, vec![]),
        (
            r#""when_sent": "move", "move_to": "gone/there""#,
            vec!["gone/there/a", "gone/there/a-000001", "gone/there/b"],
        ),
    ] {
        let dir = world();
        let from = ONCE.replace('}', &format!(", {options}}}"));
        put(dir.path().join("in/a"), b"1", 1);
        put(dir.path().join("in/b"), b"2", 2);
        let mut run = Run::start(dir.path(), &from, INTO).await;
        let position = run.write().await.unwrap();
        // Not before it is durable; and nothing twice meanwhile.
        run.source.close().await;
        run.source.open(Some(&position)).await.unwrap();
        assert!(run.write().await.is_none());
        assert_eq!(names(&dir.path().join("in")), ["a", "b"], "{options}");
        run.sink.commit().await.unwrap();
        run.source.commit(&position).await.unwrap();
        if options.contains("move") {
            put(dir.path().join("in/a"), b"3", 3);
            run.pass_all().await;
        }
        let mut found = names(dir.path());
        found.retain(|name| !name.starts_with("out/"));
        assert_eq!(found, left, "{options}");
        // A crash between the commit and what becomes of them.
        put(dir.path().join("in/c"), b"4", 4);
        assert!(run.write().await.is_some());
        run.sink.commit().await.unwrap();
        drop(run);
        let mut run = Run::start(dir.path(), &from, INTO).await;
        assert!(!run.pass().await, "{options}");
        assert_eq!(dir.path().join("in/c").exists(), options.contains("keep"), "{options}");
        assert_eq!(files(&dir.path().join("out"))["c"], b"4");
        // Changed between the sending and the commit: it stays, and is sent again.
        put(dir.path().join("in/d"), b"5", 5);
        let position = run.write().await.unwrap();
        put(dir.path().join("in/d"), b"6", 6);
        run.sink.commit().await.unwrap();
        run.source.commit(&position).await.unwrap();
        run.pass_all().await;
        assert_eq!(files(&dir.path().join("out"))["d"], b"6", "{options}");
    }
}

#[tokio::test]
async fn a_file_that_changes_is_sent_again() {
    for change in [
        "grows",
        "is shorter",
        "is replaced",
        "is another of the same size",
        "is gone",
    ] {
        for restart in [false, true] {
            let dir = world();
            let file = dir.path().join("in/a");
            put(file.clone(), &noise(200_000, 1), 1);
            let mut run = Run::start(dir.path(), ONCE, INTO).await;
            assert!(run.pass().await && run.pass().await);
            let wanted = match change {
                "grows" => Some(noise(300_000, 1)),
                "is shorter" => Some(noise(60_000, 1)),
                "is gone" => None,
                _ => Some(noise(200_000, 2)),
            };
            match &wanted {
                Some(bytes) if change == "is replaced" => {
                    put(dir.path().join("new"), bytes, 2);
                    fs::rename(dir.path().join("new"), &file).unwrap();
                }
                Some(bytes) => put(file.clone(), bytes, 2),
                None => fs::remove_file(&file).unwrap(),
            }
            if restart {
                drop(run);
                run = Run::start(dir.path(), ONCE, INTO).await;
            }
            run.pass_all().await;
            assert_eq!(run.rejected, [""; 0], "{change}");
            let found = files(&dir.path().join("out"));
            assert_eq!(found.get("a"), wanted.as_ref(), "{change}, restart: {restart}");
            // Nothing is left of what was given up.
            let left = fs::read_dir(dir.path().join("out")).unwrap().count();
            assert_eq!(left, 1 + found.len(), "{change}, restart: {restart}");
        }
    }
}

/// What a record says, for a sink to be given something else.
fn altered(batch: &Batch, column: &str, row: usize, cell: Cell<'_>) -> Batch {
    let mut builder = super::chunk::builder();
    let place = batch.schema().index_of(column).unwrap();
    for at in 0..batch.rows() {
        let cells: Vec<Cell<'_>> = (0..batch.columns().len())
            .map(|column| {
                if (at, column) == (row, place) {
                    cell
                } else {
                    batch.cell(at, column)
                }
            })
            .collect();
        builder.push(batch.op(at), &cells).unwrap();
    }
    builder.finish(batch.origin().clone())
}

#[tokio::test]
async fn what_is_not_right_is_refused() {
    let dir = world();
    put(dir.path().join("in/a"), b"content", 1);
    let mut input = source(&SOURCE, ONCE, dir.path());
    input.open(None).await.unwrap();
    let Read::Batch(read) = input.read().await.unwrap() else {
        panic!("nothing to read")
    };
    let good = read.batch;
    let long = "x".repeat(300);
    std::os::unix::fs::symlink(dir.path().join("in"), dir.path().join("out/away")).unwrap();
    for (column, row, cell, wanted) in [
        (
            "data",
            0,
            Cell::Bytes(b"contenu"),
            "it is not what was sent: 7 of 7 bytes",
        ),
        (
            "data",
            0,
            Cell::Bytes(b"conten"),
            "it is not what was sent: 6 of 7 bytes",
        ),
        ("sha256", 1, Cell::Text("00"), "instead of 00"),
        ("offset", 0, Cell::U64(3), "the beginning of 'a' is not here"),
        ("transfer", 0, Cell::Text("other"), "nothing of 'a' is here"),
        ("step", 0, Cell::Text("jump"), "column 'step' does not hold"),
        ("data", 0, Cell::Null, "column 'data' does not hold"),
        ("name", 0, Cell::Text("../a"), "begins with a dot"),
        ("name", 0, Cell::Text("/a"), "is empty"),
        ("name", 0, Cell::Text("a\0"), "cannot stand in it"),
        ("name", 0, Cell::Text("aux.txt"), "is a device"),
        ("name", 0, Cell::Text(&long), "longer than 200 bytes"),
        ("name", 0, Cell::Text("away/a"), "is a symbolic link"),
        ("name", 0, Cell::Null, "needs a value in column 'name'"),
    ] {
        let mut out = sink(&SINK, INTO, dir.path());
        out.open().await.unwrap();
        let seq = out.watermark(&stream("a")).await.unwrap().map_or(0, |mark| mark.seq);
        let bad = altered(&good, column, row, cell);
        let rejected = out.write(&[delivery("a", seq + 1, bad)]).await.unwrap();
        out.commit().await.unwrap();
        assert!(
            rejected.iter().any(|rejected| rejected.reason.contains(wanted)),
            "{column} {cell:?}: {rejected:?}"
        );
        assert!(
            !dir.path().join("out/a").exists() && !dir.path().join("a").exists(),
            "{column} {cell:?}"
        );
    }
    // What is right arrives all the same, and a gap is noticed.
    let mut out = sink(&SINK, INTO, dir.path());
    out.open().await.unwrap();
    let seq = out.watermark(&stream("a")).await.unwrap().map_or(0, |mark| mark.seq);
    let gap = altered(&good, "offset", 0, Cell::U64(8));
    let deliveries = [
        delivery("a", seq + 1, good.take(&[0])),
        delivery("a", seq + 2, gap.take(&[0])),
        delivery("a", seq + 3, good.take(&[1])),
    ];
    let rejected = out.write(&deliveries).await.unwrap();
    assert_eq!(rejected.len(), 1);
    assert!(
        rejected[0]
            .reason
            .contains("begins at byte 8 of 'a', of which 7 are here"),
        "{}",
        rejected[0].reason
    );
    out.commit().await.unwrap();
    assert_eq!(files(&dir.path().join("out"))["a"], b"content");
}

#[tokio::test]
async fn few_files_are_on_their_way_at_a_time() {
    let dir = world();
    put(dir.path().join("in/a"), b"content", 1);
    let mut input = source(&SOURCE, ONCE, dir.path());
    input.open(None).await.unwrap();
    let Read::Batch(read) = input.read().await.unwrap() else {
        panic!("nothing to read")
    };
    let begun = read.batch.take(&[0]);
    let mut out = sink(&SINK, INTO, dir.path());
    out.open().await.unwrap();
    for seq in 1..=80 {
        let name = format!("f{seq}");
        let begun = altered(&begun, "name", 0, Cell::Text(&name));
        assert_eq!(out.write(&[delivery("a", seq, begun)]).await.unwrap(), []);
        out.commit().await.unwrap();
    }
    // The ledger, and what may be unfinished, and what is given up with the next commit.
    let left = fs::read_dir(dir.path().join("out")).unwrap().count();
    assert!((65..=66).contains(&left), "{left}");
}

#[tokio::test]
async fn files_are_read_as_records() {
    let lines = |range: std::ops::Range<u32>| range.map(|n| format!("{{\"n\": {n}}}\n")).collect::<String>();
    for when in ["keep", "delete"] {
        let dir = world();
        put(dir.path().join("in/b.jsonl"), lines(0..9_000).as_bytes(), 1);
        put(dir.path().join("in/a.jsonl"), b"", 2);
        put(
            dir.path().join("in/c.jsonl"),
            b"{\"n\": 9000}\nno JSON\n{\"n\": 9001}",
            3,
        );
        put(dir.path().join("in/other"), b"not meant", 0);
        let config = format!(
            r#"{{"path": "in", "mode": "once", "settle_ms": 0, "format": "json_lines", "pattern": "*.jsonl", "when_sent": "{when}"}}"#
        );
        let (mut found, mut bad) = (Vec::new(), Vec::new());
        let mut input = source(&SOURCE, &config, dir.path());
        input.open(None).await.unwrap();
        // Every batch is read by another daemon: the one before died.
        loop {
            let read = match input.read().await.unwrap() {
                Read::Batch(read) => read,
                Read::End => break,
                Read::Idle => panic!("it waits for what is there"),
            };
            let rows = 0..read.batch.rows();
            found.extend(rows.map(|row| read.batch.cell(row, 0).to_string().parse::<u32>().unwrap()));
            bad.extend(read.undecodable);
            input = source(&SOURCE, &config, dir.path());
            input.open(Some(&read.position)).await.unwrap();
        }
        assert!(found == (0..9_002).collect::<Vec<_>>(), "{when}: {} rows", found.len());
        assert_eq!(bad.len(), 1);
        assert!(bad[0].reason.contains("c.jsonl:2: not JSON"), "{}", bad[0].reason);
        assert_eq!(input.decode(b"{\"n\": 7}").unwrap().rows(), 1);
        let left: &[&str] = if when == "keep" {
            &["a.jsonl", "b.jsonl", "c.jsonl", "other"]
        } else {
            &["other"]
        };
        assert_eq!(names(&dir.path().join("in")), left);
    }
}

#[test]
fn mistakes_are_named() {
    for (config, wanted) in [
        (r#"{}"#, "missing field `path`"),
        (r#"{"path": ""}"#, "path: name the directory"),
        (r#"{"path": "x", "pattern": "a/b"}"#, "pattern: is for the names"),
        (r#"{"path": "x", "when_sent": "move"}"#, "move_to: name the directory"),
        (r#"{"path": "x", "move_to": "y"}"#, "move_to: only for"),
        (
            r#"{"path": "x", "types": {"a": "i64"}}"#,
            "format: csv, types and origin_columns are for records",
        ),
        (r#"{"path": "x", "format": "lines", "csv": {}}"#, "csv: only for"),
        (
            r#"{"path": "x", "recursive": true, "when_sent": "move", "move_to": "x/y"}"#,
            "move_to: what is moved there would be sent again",
        ),
    ] {
        refused(&SOURCE, config, wanted);
    }
    for (config, wanted) in [
        (r#"{"path": ""}"#, "path: name the directory"),
        (r#"{"path": "x", "name": "../{name}"}"#, "name: '../0' is no name"),
        (r#"{"path": "x", "name": "same"}"#, "name: 'same' is the same for all"),
        (r#"{"path": "x", "existing": "keep"}"#, "existing: unknown variant"),
    ] {
        refused(&SINK, config, wanted);
    }
}

#[tokio::test]
async fn a_directory_that_is_not_there_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let mut input = source(&SOURCE, ONCE, dir.path());
    let fault = input.open(None).await.unwrap_err();
    assert!(
        matches!(fault, flow::Fault::Retry { .. }) && fault.to_string().contains("in"),
        "{fault}"
    );
    let mut out = sink(&SINK, INTO, dir.path());
    let fault = out.open().await.unwrap_err();
    assert!(
        matches!(fault, flow::Fault::Retry { .. }) && fault.to_string().contains("out"),
        "{fault}"
    );
    fs::create_dir(dir.path().join("in")).unwrap();
    fs::create_dir(dir.path().join("out")).unwrap();
    input.open(None).await.unwrap();
    out.open().await.unwrap();
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is interrupted when, every file arrives once and whole.
    #[test]
    fn exactly_once_over_crashes(
        sizes in prop::collection::vec(prop_oneof![0..200usize, 40_000..60_000usize, 100_000..200_000usize], 1..8),
        steps in prop::collection::vec(0..5u8, 1..20),
        when in prop_oneof![Just("keep"), Just("delete"), Just("move\", \"move_to\": \"gone")],
    ) {
        let dir = world();
        let mut wanted = BTreeMap::new();
        for (index, size) in sizes.iter().enumerate() {
            let bytes = noise(*size, index as u64 + 3);
            put(dir.path().join(format!("in/f{index}")), &bytes, 10 - index as u64);
            wanted.insert(format!("f{index}"), bytes);
        }
        let from = ONCE.replace('}', &format!(r#", "when_sent": "{when}"}}"#));
        let into = INTO.replace('}', r#", "existing": "number"}"#);
        block_on(async {
            let mut run = Run::start(dir.path(), &from, &into).await;
            for step in &steps {
                match step {
                    // Killed after the write, after the commit, and after all of it.
                    0 => drop(run.write().await),
                    1 if run.write().await.is_some() => run.sink.commit().await.unwrap(),
                    _ => drop(run.pass().await),
                }
                if *step < 3 {
                    assert_eq!(run.rejected, [""; 0]);
                    drop(run);
                    run = Run::start(dir.path(), &from, &into).await;
                }
            }
            run.pass_all().await;
            assert_eq!(run.rejected, [""; 0]);
            // A number in a name would be a double.
            assert_eq!(files(&dir.path().join("out")), wanted);
            let left = fs::read_dir(dir.path().join("out")).unwrap().count();
            assert_eq!(left, wanted.len() + 1, "nothing unfinished stays");
            match when {
                "keep" => assert_eq!(files(&dir.path().join("in")), wanted),
                "delete" => assert_eq!(names(&dir.path().join("in")), [""; 0]),
                _ => assert_eq!(files(&dir.path().join("gone")), wanted),
            }
        });
    }
}
