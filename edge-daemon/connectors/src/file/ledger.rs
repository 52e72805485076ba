//! What a file destination remembers beside its file, in `<path>.mycelial`: how long the file was at the last commit and
//! how far each lineage had come. Each record has a checksum and is added at the end; the last whole one counts.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use bus_schema::id::StreamId;
use flow::{Counts, Position, Watermark};
use serde::{Deserialize, Serialize};

use super::{siblings::parent, tail::hash};

/// Size at which the file is written anew with only its last record, in bytes.
const LEDGER_BYTES_MAX: u64 = 256 * 1024;
/// The largest file taken for a ledger: a record holds a position for each lineage.
const LEDGER_BYTES_READ_MAX: u64 = 64 * 1024 * 1024;

/// Version of the form of a record.
const VERSION: u8 = 2;

/// One record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Version of this form.
    pub v: u8,
    /// The data files that are being written, by the name they have or will have below the directory.
    pub files: BTreeMap<String, State>,
    /// Files to rename (from, to), in this order, before anything else: committed, perhaps not done yet.
    pub moves: Vec<(String, String)>,
    /// How far each lineage has come.
    pub marks: BTreeMap<StreamId, Mark>,
}

/// How much of a data file is committed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct State {
    /// Where it is, once all moves are done.
    pub at: String,
    /// Bytes of it that are committed.
    pub length: u64,
    /// Hash of the last bytes before that, to know the file again.
    pub tail_hash: u64,
    /// How many bytes are hashed.
    pub tail_bytes: u16,
    /// When it was begun, in milliseconds since 1970.
    pub begun_ms: u64,
    /// The columns of a CSV file, in their order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub columns: Option<Vec<String>>,
    /// Which whole file it becomes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transfer: Option<String>,
}

/// The form before, which knew one file only.
#[derive(Deserialize)]
struct First {
    v: u8,
    length: u64,
    tail_hash: u64,
    tail_bytes: u16,
    begun_ms: u64,
    columns: Option<Vec<String>>,
    moves: Vec<(String, String)>,
    marks: BTreeMap<StreamId, Mark>,
}

impl Record {
    /// No files.
    pub(crate) fn new(marks: BTreeMap<StreamId, Mark>) -> Self {
        Self {
            v: VERSION,
            files: BTreeMap::new(),
            moves: Vec::new(),
            marks,
        }
    }

    /// Reads a record of either form; `name` is what the only file of the first one is called.
    fn read(text: &str, name: &str) -> Option<Self> {
        if let Ok(record) = serde_json::from_str::<Self>(text) {
            return (record.v == VERSION).then_some(record);
        }
        let first: First = serde_json::from_str(text).ok().filter(|first: &First| first.v == 1)?;
        let mut record = Self::new(first.marks);
        record.moves = first.moves;
        if first.length > 0 {
            let state = State {
                at: name.to_string(),
                length: first.length,
                tail_hash: first.tail_hash,
                tail_bytes: first.tail_bytes,
                begun_ms: first.begun_ms,
                columns: first.columns,
                transfer: None,
            };
            record.files.insert(name.to_string(), state);
        }
        Some(record)
    }
}

/// A watermark in the ledger's form.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mark {
    seq: u64,
    /// Hexadecimal.
    position: String,
    delivered: u64,
    counts: Counts,
}

impl From<&Watermark> for Mark {
    fn from(mark: &Watermark) -> Self {
        let position = mark
            .position
            .as_bytes()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        Self {
            seq: mark.seq,
            position,
            delivered: mark.delivered,
            counts: mark.counts,
        }
    }
}

impl From<&Mark> for Watermark {
    fn from(mark: &Mark) -> Self {
        let digit = |byte: u8| char::from(byte).to_digit(16).unwrap_or(0) as u8;
        let pairs = mark.position.as_bytes().chunks_exact(2);
        let position: Vec<u8> = pairs.map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect();
        Self {
            seq: mark.seq,
            position: Position::new(position),
            delivered: mark.delivered,
            counts: mark.counts,
        }
    }
}

/// The open ledger. Locked: no other destination writes the same file.
pub(crate) struct Ledger {
    path: PathBuf,
    file: File,
    length: u64,
}

impl Ledger {
    /// Opens or creates the ledger beside the data file at `data`, and reads its last record. A directory that ends with a
    /// slash has it inside.
    pub(crate) fn open(data: &Path) -> io::Result<(Self, Option<Record>)> {
        let path = beside(data, ".mycelial");
        let mut file = lock(&path)?;
        if file.metadata()?.len() > LEDGER_BYTES_READ_MAX {
            return Err(io::Error::other(format!(
                "{} is too large to be a ledger",
                path.display()
            )));
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let name = data.file_name().unwrap_or_default().to_string_lossy();
        let found = last_record(&bytes, &name);
        if found.is_none() && bytes.contains(&b'\n') {
            // Written by something else, or damaged from its first record on: guessing would repeat or lose records.
            let cause = format!(
                "{} holds no whole record: restore it, or remove it to start anew",
                path.display()
            );
            return Err(io::Error::new(io::ErrorKind::InvalidData, cause));
        }
        let mut ledger = Self { path, file, length: 0 };
        match &found {
            // Also cuts off a record that was being added when the power went.
            Some(record) => ledger.rewrite(record)?,
            None => ledger.file.set_len(0)?,
        }
        Ok((ledger, found))
    }

    /// Durable when it returns.
    pub(crate) fn append(&mut self, record: &Record) -> io::Result<()> {
        let line = line(record)?;
        if self.length > 0 && self.length + line.len() as u64 > LEDGER_BYTES_MAX {
            return self.rewrite(record);
        }
        self.file.write_all(&line)?;
        self.file.sync_data()?;
        if self.length == 0 {
            sync_directory(&self.path)?;
        }
        self.length += line.len() as u64;
        Ok(())
    }

    /// Replaces the file by one with this record only.
    fn rewrite(&mut self, record: &Record) -> io::Result<()> {
        let line = line(record)?;
        let fresh = beside(&self.path, ".new");
        let mut file = File::create(&fresh)?;
        file.try_lock()?;
        file.write_all(&line)?;
        file.sync_data()?;
        fs::rename(&fresh, &self.path)?;
        sync_directory(&self.path)?;
        (self.file, self.length) = (file, line.len() as u64);
        Ok(())
    }
}

/// Opens and locks the file that is at `path` when the lock is held: its holder may have replaced it meanwhile.
fn lock(path: &Path) -> io::Result<File> {
    loop {
        let file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => {
                return Err(io::Error::new(
                    io::ErrorKind::WouldBlock,
                    "another destination is writing this file",
                ));
            }
            Err(fs::TryLockError::Error(error)) => return Err(error),
        }
        match File::open(path) {
            Ok(there) if same_file(&there, &file)? => return Ok(file),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
}

fn same_file(a: &File, b: &File) -> io::Result<bool> {
    use super::siblings::Identity;
    Ok(Identity::of(&a.metadata()?) == Identity::of(&b.metadata()?))
}

/// The path with something added to its name.
pub(super) fn beside(path: &Path, added: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(added);
    name.into()
}

/// Makes names in the file's directory durable.
pub(crate) fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(parent(path))?.sync_all()
}

fn line(record: &Record) -> io::Result<Vec<u8>> {
    let text = serde_json::to_string(record).map_err(io::Error::other)?;
    Ok(format!("{:016x} {text}\n", hash(text.as_bytes())).into_bytes())
}

fn last_record(bytes: &[u8], name: &str) -> Option<Record> {
    bytes.split(|byte| *byte == b'\n').rev().find_map(|line| {
        let line = std::str::from_utf8(line).ok()?;
        let (sum, text) = line.split_once(' ')?;
        if u64::from_str_radix(sum, 16) != Ok(hash(text.as_bytes())) {
            return None;
        }
        Record::read(text, name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::testing::stream;

    fn record(length: u64) -> Record {
        let mark = Watermark {
            seq: length,
            position: Position::new([0, 1, 255]),
            delivered: 5,
            counts: Counts {
                dead: 6,
                ..Counts::default()
            },
        };
        let marks = BTreeMap::from([(stream("a"), Mark::from(&mark))]);
        assert_eq!(Watermark::from(&marks[&stream("a")]), mark);
        let state = State {
            at: "out".into(),
            length,
            tail_hash: 1,
            tail_bytes: 2,
            begun_ms: 3,
            columns: None,
            transfer: None,
        };
        Record {
            files: BTreeMap::from([("out".into(), state)]),
            moves: vec![("a".into(), "b".into())],
            ..Record::new(marks)
        }
    }

    #[test]
    fn the_first_form_is_read() {
        let marks = serde_json::to_string(&record(7).marks).unwrap();
        let text = format!(
            r#"{{"v":1,"length":7,"tail_hash":1,"tail_bytes":2,"begun_ms":3,"columns":null,"moves":[["a","b"]],"marks":{marks}}}"#
        );
        assert_eq!(Record::read(&text, "out"), Some(record(7)));
        assert_eq!(Record::read(&text.replace("\"v\":1", "\"v\":3"), "out"), None);
    }

    #[test]
    fn the_last_whole_record_counts() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("out");
        let path = beside(&data, ".mycelial");
        let (mut ledger, found) = Ledger::open(&data).unwrap();
        assert_eq!(found, None);
        ledger.append(&record(1)).unwrap();
        ledger.append(&record(2)).unwrap();
        // Nobody else may write.
        assert_eq!(Ledger::open(&data).err().unwrap().kind(), io::ErrorKind::WouldBlock);
        drop(ledger);
        let whole = fs::read(&path).unwrap();
        // Cut off anywhere in the last record, the one before it counts.
        let first_line = line(&record(1)).unwrap().len();
        for cut in [first_line, first_line + 1, first_line + 20, whole.len() - 2] {
            fs::write(&path, &whole[..cut]).unwrap();
            let (_ledger, found) = Ledger::open(&data).unwrap();
            assert_eq!(found, Some(record(1)), "cut at {cut}");
        }
        // And damaged in it.
        let mut damaged = whole.clone();
        damaged[first_line + 30] ^= 1;
        fs::write(&path, &damaged).unwrap();
        assert_eq!(Ledger::open(&data).unwrap().1, Some(record(1)));
        // A first record that never got whole is none; a file of something else is not touched.
        fs::write(&path, &whole[..first_line - 2]).unwrap();
        assert_eq!(Ledger::open(&data).unwrap().1, None);
        fs::write(&path, "my notes\n").unwrap();
        assert!(
            Ledger::open(&data)
                .err()
                .unwrap()
                .to_string()
                .contains("holds no whole record")
        );
        assert_eq!(fs::read(&path).unwrap(), b"my notes\n");
    }

    #[test]
    fn stays_small() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("out");
        let (mut ledger, _) = Ledger::open(&data).unwrap();
        for length in 0..3_000 {
            ledger.append(&record(length)).unwrap();
        }
        assert!(fs::metadata(beside(&data, ".mycelial")).unwrap().len() <= LEDGER_BYTES_MAX);
        drop(ledger);
        assert_eq!(Ledger::open(&data).unwrap().1, Some(record(2_999)));
    }
}
