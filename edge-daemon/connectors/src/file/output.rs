//! The file a destination appends to, its rotation, and what a crash may leave behind. Blocking; knows no format.
//!
//! A commit is: data synced, then one ledger record synced. What stands in the file beyond the recorded length was never
//! committed and is cut off at the next start. New files are born beside their place and moved there by a commit, so
//! that what stands in place is always committed up to the recorded length.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use bus_schema::id::StreamId;
use flow::Watermark;

use super::{
    ledger::{Ledger, Mark, Record, beside, same_file, sync_directory},
    siblings::parent,
    tail::hash,
};

/// How many bytes before the committed end identify a file.
const TAIL_BYTES: usize = 512;
/// What files are called that are not committed yet, after the path.
const PART: &str = ".mycelial-part";
/// Digits of the number of a rotated file.
const NUMBER_DIGITS: usize = 6;

/// When a file is complete.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Limits {
    pub bytes: Option<u64>,
    pub age: Option<Duration>,
}

/// One file being written.
struct Part {
    path: PathBuf,
    file: File,
    length: u64,
    tail: Vec<u8>,
    columns: Option<Vec<String>>,
    begun_ms: u64,
}

/// The destination's files.
pub(crate) struct Output {
    path: PathBuf,
    limits: Limits,
    ledger: Ledger,
    /// What is committed.
    record: Record,
    /// Complete, not committed.
    sealed: Vec<Part>,
    current: Option<Part>,
    /// Watermarks to be committed.
    marks: BTreeMap<StreamId, Mark>,
}

impl Output {
    /// Opens the file at `path`, or prepares for a new one. Finishes or undoes what a crash interrupted.
    pub(crate) fn open(path: &Path, limits: Limits) -> io::Result<Self> {
        let (ledger, record) = Ledger::open(path)?;
        for entry in fs::read_dir(parent(path))? {
            let name = entry?.file_name();
            let wanted = record
                .iter()
                .flat_map(|record| &record.moves)
                .any(|(from, _)| name == from.as_str());
            if !wanted && is_part(path, &name.to_string_lossy()) {
                fs::remove_file(parent(path).join(name))?;
            }
        }
        let mut output = Self {
            path: path.to_path_buf(),
            limits,
            ledger,
            record: record.clone().unwrap_or_else(|| empty_record(BTreeMap::new())),
            sealed: Vec::new(),
            current: None,
            marks: BTreeMap::new(),
        };
        if let Some(record) = record {
            output.marks.clone_from(&record.marks);
            output.finish_moves()?;
            output.current = output.reopen(&record)?;
        }
        Ok(output)
    }

    /// The file as the record knows it, cut to what is committed; `None` when there is none, or another one.
    fn reopen(&self, record: &Record) -> io::Result<Option<Part>> {
        if record.length == 0 {
            return Ok(None);
        }
        let file = match open_for_append(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                tracing::warn!(path = %self.path.display(), "the file was moved or deleted: beginning a new one");
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let length = file.metadata()?.len();
        let mut tail = vec![0; usize::from(record.tail_bytes)];
        let is_ours = length >= record.length
            && record.length >= tail.len() as u64
            && file
                .read_exact_at(&mut tail, record.length - u64::from(record.tail_bytes))
                .is_ok()
            && hash(&tail) == record.tail_hash;
        if !is_ours {
            tracing::warn!(path = %self.path.display(), "the file was replaced or changed: adding to what is there now");
            return Ok(None);
        }
        if length > record.length {
            tracing::info!(path = %self.path.display(), bytes = length - record.length, "cut off what was not committed");
            file.set_len(record.length)?;
            file.sync_data()?;
        }
        Ok(Some(Part {
            path: self.path.clone(),
            file,
            length: record.length,
            tail,
            columns: record.columns.clone(),
            begun_ms: record.begun_ms,
        }))
    }

    /// The watermark of a lineage.
    pub(crate) fn mark(&self, stream: &StreamId) -> Option<Watermark> {
        self.record.marks.get(stream).map(Watermark::from)
    }

    /// The watermark a lineage will have after the next commit.
    pub(crate) fn pending_mark(&self, stream: &StreamId) -> Watermark {
        self.marks.get(stream).map(Watermark::from).unwrap_or_default()
    }

    /// Sets the watermark a lineage will have after the next commit.
    pub(crate) fn set_mark(&mut self, stream: StreamId, mark: &Watermark) {
        self.marks.insert(stream, mark.into());
    }

    /// Whether the file that is being written has any content; opens it if it is not.
    pub(crate) fn is_begun(&mut self) -> io::Result<bool> {
        Ok(self.part()?.length > 0)
    }

    /// The columns of the file that is being written, once known.
    pub(crate) fn columns(&self) -> Option<&Vec<String>> {
        self.current.as_ref().and_then(|part| part.columns.as_ref())
    }

    /// The beginning of the file that is being written, at most `limit` bytes.
    pub(crate) fn beginning(&mut self, limit: usize) -> io::Result<Vec<u8>> {
        let part = self.part()?;
        let mut bytes = vec![0; usize::try_from(part.length).map_or(limit, |length| length.min(limit))];
        part.file.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    }

    /// Says which columns the file has.
    pub(crate) fn set_columns(&mut self, columns: Vec<String>) -> io::Result<()> {
        self.part()?.columns = Some(columns);
        Ok(())
    }

    /// Appends to the file. Not durable before [`Output::commit`].
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.part()?.write(bytes)
    }

    /// The file is complete: the next write begins another one.
    pub(crate) fn seal(&mut self) {
        self.sealed.extend(self.current.take());
    }

    /// Makes everything written durable, with the watermarks, and rotates when it is time.
    pub(crate) fn commit(&mut self) -> io::Result<()> {
        crash_point::at!(FileBeforeSync);
        for part in self.sealed.iter().chain(&self.current) {
            part.file.sync_data()?;
        }
        if self.current.as_ref().is_some_and(|part| self.limits.reached(part)) {
            self.seal();
        }
        let mut moves = Vec::new();
        let mut number = None;
        for part in &self.sealed {
            let next = number.map_or_else(|| next_number(&self.path), Ok)?;
            moves.push((file_name(&part.path), numbered(&self.path, next)));
            number = Some(next + 1);
        }
        if let Some(part) = &self.current
            && part.path != self.path
        {
            moves.push((file_name(&part.path), file_name(&self.path)));
        }
        let mut record = empty_record(self.marks.clone());
        if let Some(part) = &self.current {
            record.length = part.length;
            record.tail_hash = hash(&part.tail);
            record.tail_bytes = part.tail.len() as u16;
            record.begun_ms = part.begun_ms;
            record.columns.clone_from(&part.columns);
        }
        record.moves = moves;
        crash_point::at!(FileBeforeLedger);
        self.ledger.append(&record)?;
        crash_point::at!(FileAfterLedger);
        self.record = record;
        self.sealed.clear();
        if let Some(part) = &mut self.current {
            part.path.clone_from(&self.path);
        }
        self.finish_moves()?;
        self.notice_rotation_by_others()
    }

    /// Does the committed renames that are not done yet.
    fn finish_moves(&mut self) -> io::Result<()> {
        if self.record.moves.is_empty() {
            return Ok(());
        }
        let directory = parent(&self.path).to_path_buf();
        for (from, to) in &self.record.moves {
            let (from, to) = (directory.join(from), directory.join(to));
            match (from.try_exists()?, to.try_exists()?) {
                (true, false) => fs::rename(&from, &to)?,
                (true, true) if to == self.path && length_of(&to)? == 0 => fs::rename(&from, &to)?,
                (true, true) if to == self.path => {
                    let cause = format!("{} appeared where a new file belongs: move it away", to.display());
                    return Err(io::Error::new(io::ErrorKind::AlreadyExists, cause));
                }
                // Done before a crash.
                _ => {}
            }
        }
        crash_point::at!(FileRotateAfterRename);
        sync_directory(&self.path)?;
        let record = Record {
            moves: Vec::new(),
            ..self.record.clone()
        };
        self.ledger.append(&record)?;
        crash_point::at!(FileRotateAfterLedger);
        self.record = record;
        Ok(())
    }

    /// Somebody else may have renamed the file: what comes next goes to a new one.
    fn notice_rotation_by_others(&mut self) -> io::Result<()> {
        let Some(part) = &self.current else { return Ok(()) };
        let is_in_place = match File::open(&self.path) {
            Ok(there) => same_file(&there, &part.file)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => return Err(error),
        };
        if !is_in_place {
            tracing::info!(path = %self.path.display(), "the file was moved away: beginning a new one");
            self.current = None;
            let record = empty_record(self.record.marks.clone());
            self.ledger.append(&record)?;
            self.record = record;
        }
        Ok(())
    }

    fn part(&mut self) -> io::Result<&mut Part> {
        let part = match self.current.take() {
            Some(part) => part,
            // A file that is not ours is added to; unless ours is about to leave its place. An empty one has nothing to
            // keep: a new file takes its place at the commit.
            None if self.sealed.is_empty() && length_of(&self.path)? > 0 => self.adopt()?,
            None => Part::create(beside(&self.path, &format!("{PART}{}", self.sealed.len())))?,
        };
        Ok(self.current.insert(part))
    }

    /// Takes a file that somebody else began, as it is, and remembers where ours begins.
    fn adopt(&mut self) -> io::Result<Part> {
        let file = open_for_append(&self.path)?;
        let length = file.metadata()?.len();
        let mut tail = vec![0; TAIL_BYTES.min(usize::try_from(length).unwrap_or(usize::MAX))];
        let start = length - tail.len() as u64;
        file.read_exact_at(&mut tail, start)?;
        let mut part = Part {
            path: self.path.clone(),
            file,
            length,
            tail,
            columns: None,
            begun_ms: now_ms(),
        };
        if part.tail.last().is_some_and(|byte| *byte != b'\n') {
            part.write(b"\n")?;
            part.file.sync_data()?;
        }
        let record = Record {
            length: part.length,
            tail_hash: hash(&part.tail),
            tail_bytes: part.tail.len() as u16,
            begun_ms: part.begun_ms,
            ..empty_record(self.record.marks.clone())
        };
        if part.length > 0 {
            self.ledger.append(&record)?;
            self.record = record;
        }
        Ok(part)
    }
}

impl Part {
    fn create(path: PathBuf) -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .append(true)
            .create_new(true)
            .open(&path)?;
        Ok(Self {
            path,
            file,
            length: 0,
            tail: Vec::new(),
            columns: None,
            begun_ms: now_ms(),
        })
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.length += bytes.len() as u64;
        self.tail
            .extend_from_slice(&bytes[bytes.len().saturating_sub(TAIL_BYTES)..]);
        self.tail.drain(..self.tail.len().saturating_sub(TAIL_BYTES));
        Ok(())
    }
}

impl Limits {
    fn reached(&self, part: &Part) -> bool {
        let age = Duration::from_millis(now_ms().saturating_sub(part.begun_ms));
        part.length > 0
            && (self.bytes.is_some_and(|limit| part.length >= limit) || self.age.is_some_and(|limit| age >= limit))
    }
}

/// Bytes of a file; 0 when there is none.
fn length_of(path: &Path) -> io::Result<u64> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(metadata.len()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error),
    }
}

fn open_for_append(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).append(true).open(path)
}

fn empty_record(marks: BTreeMap<StreamId, Mark>) -> Record {
    Record {
        v: 1,
        length: 0,
        tail_hash: hash(b""),
        tail_bytes: 0,
        begun_ms: 0,
        columns: None,
        moves: Vec::new(),
        marks,
    }
}

/// Only used for the age of files: a wrong clock rotates early or late, nothing else.
fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |time| time.as_millis() as u64)
}

fn file_name(path: &Path) -> String {
    path.file_name()
        .map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}

fn is_part(path: &Path, name: &str) -> bool {
    name.strip_prefix(&file_name(path))
        .is_some_and(|rest| rest.starts_with(PART))
}

/// `out.csv` and 7 make `out-000007.csv`.
fn numbered(path: &Path, number: u64) -> String {
    let name = file_name(path);
    match name.rsplit_once('.').filter(|(stem, _)| !stem.is_empty()) {
        Some((stem, ending)) => format!("{stem}-{number:0NUMBER_DIGITS$}.{ending}"),
        None => format!("{name}-{number:0NUMBER_DIGITS$}"),
    }
}

/// One more than the highest number of a rotated file.
fn next_number(path: &Path) -> io::Result<u64> {
    let name = file_name(path);
    let (stem, ending) = name
        .rsplit_once('.')
        .filter(|(stem, _)| !stem.is_empty())
        .unwrap_or((&name, ""));
    let mut highest = 0;
    for entry in fs::read_dir(parent(path))? {
        let entry = entry?.file_name();
        let Some(middle) = entry
            .to_str()
            .and_then(|other| other.strip_prefix(stem)?.strip_suffix(ending))
        else {
            continue;
        };
        let digits = middle
            .trim_end_matches('.')
            .strip_prefix('-')
            .filter(|digits| digits.len() >= NUMBER_DIGITS);
        highest = highest.max(digits.and_then(|digits| digits.parse().ok()).unwrap_or(0));
    }
    Ok(highest + 1)
}
