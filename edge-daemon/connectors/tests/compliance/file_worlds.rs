//! Files and directories.

use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    ops::Range,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bus_schema::plan::ComponentRole;
use flow::{Build, BuildContext, Registry, Source, TroubleKind};
use serde_json::{Value as Json, json};
use testkit::{TempDir, temp_dir};

use crate::{
    bench::Plan,
    world::{SinkWorld, SourceWorld, Wrong},
};

/// JSON objects with these numbers, a line each.
pub fn lines(numbers: Range<u64>, pad: usize, drifts: bool) -> String {
    let pad = "x".repeat(pad);
    let extra = if drifts { r#", "extra": "more""# } else { "" };
    numbers
        .map(|n| format!("{{\"n\": {n}, \"v\": \"{pad}\"{extra}}}\n"))
        .collect()
}

/// The numbers in such lines.
pub fn numbers_in(text: &str) -> Vec<u64> {
    let number = |line: &str| {
        let (_, rest) = line.split_once("\"n\":")?;
        let rest = rest.trim_start();
        let end = rest.find(|char: char| !char.is_ascii_digit())?;
        rest[..end].parse().ok()
    };
    text.lines().filter_map(number).collect()
}

/// Adds to a file.
pub fn append(path: &Path, text: &str) {
    let file = OpenOptions::new().create(true).append(true).open(path);
    file.unwrap().write_all(text.as_bytes()).unwrap();
}

/// A file in a directory of its own that grows.
pub struct FileSource {
    dir: TempDir,
    drifts: bool,
}

impl FileSource {
    /// It is not there yet.
    pub fn new() -> Self {
        Self {
            dir: temp_dir("compliance"),
            drifts: false,
        }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("in.jsonl")
    }
}

impl SourceWorld for FileSource {
    fn config(&self) -> Json {
        json!({"path": self.path(), "format": "json_lines"})
    }

    fn feed(&mut self, numbers: Range<u64>, pad: usize) {
        append(&self.path(), &lines(numbers, pad, self.drifts));
    }

    fn feed_bad(&mut self, _: u64) -> bool {
        append(&self.path(), "nonsense\n");
        false
    }

    fn drift(&mut self) {
        self.drifts = true;
    }

    fn wrong(&self) -> Vec<Wrong> {
        vec![
            (
                json!({"path": self.dir.path(), "format": "json_lines"}),
                TroubleKind::Path,
            ),
            (
                json!({"path": self.dir.path().join("none/in"), "format": "json_lines"}),
                TroubleKind::Path,
            ),
            (
                json!({"path": self.dir.path().join("none"), "format": "json_lines", "mode": "once"}),
                TroubleKind::Missing,
            ),
        ]
    }

    fn touched(&mut self) -> String {
        listing(self.dir.path())
    }
}

/// What is in a directory: names, how large they are, and when they were last written to.
pub fn listing(dir: &Path) -> String {
    let entry = |entry: fs::DirEntry| {
        let about = entry.metadata().unwrap();
        (entry.file_name(), about.len(), about.modified().unwrap())
    };
    let mut entries: Vec<_> = fs::read_dir(dir).unwrap().map(|found| entry(found.unwrap())).collect();
    entries.sort();
    format!("{entries:?}")
}

/// The names in a directory, where others than a check write to its files.
pub fn names_in(dir: &Path) -> String {
    let mut names: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    names.sort();
    format!("{names:?}")
}

/// How many of such lines have their text in the column `extra`.
pub fn extras_in(text: &str) -> u64 {
    let has = |line: &&str| line.replace(' ', "").contains("\"extra\":\"more\"");
    text.lines().filter(has).count() as u64
}

/// Files that come into a directory.
pub struct FilesSource {
    dir: TempDir,
    drifts: bool,
    /// What goes into the next file first.
    bad: String,
}

impl FilesSource {
    /// There are none yet.
    pub fn new() -> Self {
        Self {
            dir: temp_dir("compliance"),
            drifts: false,
            bad: String::new(),
        }
    }
}

impl SourceWorld for FilesSource {
    fn config(&self) -> Json {
        json!({"path": self.dir.path(), "format": "json_lines", "pattern": "*.jsonl", "settle_ms": 50})
    }

    fn feed(&mut self, numbers: Range<u64>, pad: usize) {
        let name = self.dir.path().join(format!("{:08}", numbers.start));
        let text = format!("{}{}", std::mem::take(&mut self.bad), lines(numbers, pad, self.drifts));
        fs::write(&name, text).unwrap();
        fs::rename(&name, name.with_extension("jsonl")).unwrap();
    }

    fn feed_bad(&mut self, _: u64) -> bool {
        self.bad = "nonsense\n".to_string();
        false
    }

    fn drift(&mut self) {
        self.drifts = true;
    }

    fn wrong(&self) -> Vec<Wrong> {
        let none = self.dir.path().join("none");
        vec![
            (json!({"path": none}), TroubleKind::Path),
            (json!({"path": "/dev/null"}), TroubleKind::Path),
        ]
    }

    fn touched(&mut self) -> String {
        listing(self.dir.path())
    }
}

/// Whole files that come into a directory: each is called by its number, and gone once it was sent.
pub struct WholeFiles {
    dir: TempDir,
}

impl WholeFiles {
    /// There are none yet.
    pub fn new() -> Self {
        Self {
            dir: temp_dir("compliance"),
        }
    }
}

impl SourceWorld for WholeFiles {
    fn config(&self) -> Json {
        json!({"path": self.dir.path(), "settle_ms": 0, "when_sent": "delete"})
    }

    fn column(&self) -> &'static str {
        "name"
    }

    fn counted(&self) -> Option<(&'static str, &'static str)> {
        // The record with which a file is whole.
        Some(("step", "end"))
    }

    fn feed(&mut self, numbers: Range<u64>, pad: usize) {
        for number in numbers {
            // What begins with a dot is passed over.
            let hidden = self.dir.path().join(format!(".{number:08}"));
            fs::write(&hidden, vec![0xff; pad]).unwrap();
            fs::rename(&hidden, self.dir.path().join(format!("{number:08}"))).unwrap();
        }
    }

    fn wrong(&self) -> Vec<Wrong> {
        vec![
            (json!({"path": self.dir.path().join("none")}), TroubleKind::Path),
            (json!({"path": "/dev/null"}), TroubleKind::Path),
        ]
    }

    fn touched(&mut self) -> String {
        listing(self.dir.path())
    }
}

/// A file that is written.
pub struct FileSink {
    dir: TempDir,
}

impl FileSink {
    /// In a directory of its own.
    pub fn new() -> Self {
        Self {
            dir: temp_dir("compliance"),
        }
    }

    fn text(&self) -> String {
        fs::read_to_string(self.dir.path().join("out.jsonl")).unwrap_or_default()
    }
}

impl SinkWorld for FileSink {
    fn config(&self) -> Json {
        json!({"path": self.dir.path().join("out.jsonl"), "format": "json_lines"})
    }

    fn arrived(&mut self) -> Vec<u64> {
        numbers_in(&self.text())
    }

    fn extras(&mut self) -> u64 {
        extras_in(&self.text())
    }

    fn wrong(&self) -> Vec<Wrong> {
        vec![
            (
                json!({"path": self.dir.path(), "format": "json_lines"}),
                TroubleKind::Path,
            ),
            (
                json!({"path": "/no/such/directory/out", "format": "json_lines"}),
                TroubleKind::Path,
            ),
        ]
    }

    fn touched(&mut self) -> String {
        listing(self.dir.path())
    }
}

/// Numbers in a file.
const FILE_ROWS: u64 = 100;

/// Whole files, from one directory into another.
pub struct FilesSink {
    from: TempDir,
    to: TempDir,
    /// Numbers that are in files already.
    made: Arc<AtomicU64>,
}

impl FilesSink {
    /// Both are empty.
    pub fn new() -> Self {
        Self {
            from: temp_dir("compliance"),
            to: temp_dir("compliance"),
            made: Arc::default(),
        }
    }
}

/// Gives the files, and makes those that the plan wants.
struct Files {
    inner: Box<dyn Source>,
    plan: Plan,
    dir: PathBuf,
    made: Arc<AtomicU64>,
}

#[async_trait::async_trait]
impl Source for Files {
    async fn open(&mut self, after: Option<&flow::Position>) -> Result<(), flow::Fault> {
        self.inner.open(after).await
    }

    async fn read(&mut self) -> Result<flow::Read, flow::Fault> {
        let last = self.plan.last();
        while self.made.load(Ordering::SeqCst) < last {
            let made = self.made.load(Ordering::SeqCst);
            let upto = last.min(made + FILE_ROWS);
            let path = self.dir.join(format!("{made:08}"));
            fs::write(&path, lines(made + 1..upto + 1, 10, false)).unwrap();
            fs::rename(&path, path.with_extension("jsonl")).unwrap();
            self.made.store(upto, Ordering::SeqCst);
        }
        let read = self.inner.read().await;
        self.plan.given(last);
        read
    }

    async fn commit(&mut self, position: &flow::Position) -> Result<(), flow::Fault> {
        self.inner.commit(position).await
    }

    async fn close(&mut self) {
        self.inner.close().await;
    }
}

impl SinkWorld for FilesSink {
    fn config(&self) -> Json {
        json!({"path": self.to.path()})
    }

    fn source(&mut self, plan: &Plan) -> Box<dyn Source> {
        let registry = Registry::new(connectors::components());
        let Some(Build::Source(build)) = registry.find(ComponentRole::Source, "files") else {
            panic!("there is no source 'files'")
        };
        let config = json!({"path": self.from.path(), "pattern": "*.jsonl", "settle_ms": 0}).to_string();
        Box::new(Files {
            inner: build(&config, &BuildContext::default()).unwrap(),
            plan: plan.clone(),
            dir: self.from.path().to_path_buf(),
            made: Arc::clone(&self.made),
        })
    }

    fn is_cheap(&self) -> bool {
        true
    }

    fn arrived(&mut self) -> Vec<u64> {
        let entries = fs::read_dir(self.to.path()).unwrap().map(|entry| entry.unwrap().path());
        let files = entries.filter(|path| path.extension().is_some_and(|ending| ending == "jsonl"));
        files
            .flat_map(|path| numbers_in(&fs::read_to_string(path).unwrap_or_default()))
            .collect()
    }

    fn wrong(&self) -> Vec<Wrong> {
        vec![
            (json!({"path": "/no/such/directory"}), TroubleKind::Path),
            (json!({"path": "/dev/null"}), TroubleKind::Path),
        ]
    }

    fn touched(&mut self) -> String {
        listing(self.to.path())
    }
}
