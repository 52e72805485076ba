//! One file of a destination: bytes are added at its end, and what a crash may leave behind its committed length is cut off.
//! Blocking; knows no other file and no format.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use super::{ledger::State, siblings::Identity, tail::hash};

/// How many bytes before the committed end identify a file.
const TAIL_BYTES: usize = 512;

/// When a file is complete.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Limits {
    pub bytes: Option<u64>,
    pub age: Option<Duration>,
}

/// One file being written.
pub(crate) struct Part {
    /// Where it is now, below the destination's directory.
    pub(super) at: String,
    /// The same, from the daemon's point of view.
    pub(super) path: PathBuf,
    /// Shut while many others are open.
    file: Option<File>,
    identity: Identity,
    length: u64,
    tail: Vec<u8>,
    begun_ms: u64,
    /// What the format remembers of it: the columns of CSV, in their order.
    pub(crate) columns: Option<Vec<String>>,
    /// What the format remembers of it: which whole file it becomes.
    pub(crate) transfer: Option<String>,
    /// Written to since the last commit.
    pub(super) is_touched: bool,
    /// The higher, the later it was written to.
    pub(super) used: u64,
}

impl Part {
    /// A new file.
    pub(super) fn create(at: String, path: PathBuf) -> io::Result<Self> {
        let file = options().create_new(true).open(&path)?;
        Self::of(at, path, file, 0)
    }

    fn of(at: String, path: PathBuf, file: File, length: u64) -> io::Result<Self> {
        let mut tail = vec![0; TAIL_BYTES.min(usize::try_from(length).unwrap_or(usize::MAX))];
        let start = length - tail.len() as u64;
        file.read_exact_at(&mut tail, start)?;
        Ok(Self {
            at,
            path,
            identity: Identity::of(&file.metadata()?),
            file: Some(file),
            length,
            tail,
            begun_ms: now_ms(),
            columns: None,
            transfer: None,
            is_touched: false,
            used: 0,
        })
    }

    /// A file that somebody else began, as it is: what is added begins on a line of its own.
    pub(super) fn adopt(at: String, path: PathBuf) -> io::Result<Self> {
        let file = options().open(&path)?;
        let length = file.metadata()?.len();
        let mut part = Self::of(at, path, file, length)?;
        if part.tail.last().is_some_and(|byte| *byte != b'\n') {
            part.write(b"\n")?;
            part.sync()?;
        }
        Ok(part)
    }

    /// The file as the ledger knows it, cut to what is committed; `None` when there is none, or another one.
    pub(super) fn reopen(path: PathBuf, state: &State) -> io::Result<Option<Self>> {
        if state.length == 0 {
            return Ok(None);
        }
        let file = match options().open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                tracing::warn!(path = %path.display(), "the file was moved or deleted: beginning a new one");
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let length = file.metadata()?.len();
        let mut tail = vec![0; usize::from(state.tail_bytes)];
        let is_ours = length >= state.length
            && state.length >= tail.len() as u64
            && file
                .read_exact_at(&mut tail, state.length - u64::from(state.tail_bytes))
                .is_ok()
            && hash(&tail) == state.tail_hash;
        if !is_ours {
            tracing::warn!(path = %path.display(), "the file was replaced or changed: adding to what is there now");
            return Ok(None);
        }
        if length > state.length {
            tracing::info!(path = %path.display(), bytes = length - state.length, "cut off what was not committed");
            file.set_len(state.length)?;
            file.sync_data()?;
        }
        let mut part = Self::of(state.at.clone(), path, file, state.length)?;
        part.begun_ms = state.begun_ms;
        part.columns.clone_from(&state.columns);
        part.transfer.clone_from(&state.transfer);
        Ok(Some(part))
    }

    /// What the ledger has to know of it.
    pub(super) fn state(&self, at: &str) -> State {
        State {
            at: at.to_string(),
            length: self.length,
            tail_hash: hash(&self.tail),
            tail_bytes: self.tail.len() as u16,
            begun_ms: self.begun_ms,
            columns: self.columns.clone(),
            transfer: self.transfer.clone(),
        }
    }

    /// Bytes in it, committed or not.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// Appends. Not durable before [`Part::sync`].
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.is_touched = true;
        self.open()?.write_all(bytes)?;
        self.length += bytes.len() as u64;
        self.tail
            .extend_from_slice(&bytes[bytes.len().saturating_sub(TAIL_BYTES)..]);
        self.tail.drain(..self.tail.len().saturating_sub(TAIL_BYTES));
        Ok(())
    }

    /// Fills `bytes` with what stands at `offset`.
    pub(crate) fn read_at(&mut self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        self.open()?.read_exact_at(bytes, offset)
    }

    /// Says when its content was changed last.
    pub(crate) fn set_modified(&mut self, time: SystemTime) -> io::Result<()> {
        self.open()?.set_modified(time)
    }

    fn open(&mut self) -> io::Result<&mut File> {
        let file = match self.file.take() {
            Some(file) => file,
            None => {
                let file = options().open(&self.path)?;
                if Identity::of(&file.metadata()?) != self.identity {
                    let cause = format!("{} was replaced while it was written", self.path.display());
                    return Err(io::Error::other(cause));
                }
                file
            }
        };
        Ok(self.file.insert(file))
    }

    pub(super) fn is_open(&self) -> bool {
        self.file.is_some()
    }

    /// Everything in it is durable.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        match &self.file {
            Some(file) => file.sync_data(),
            // Shut, and synced before that.
            None => Ok(()),
        }
    }

    /// Lets go of the file descriptor. Synced first: an error of the disk is told only to those who have the file open.
    pub(super) fn shut(&mut self) -> io::Result<()> {
        if let Some(file) = &self.file {
            file.sync_all()?;
        }
        self.file = None;
        Ok(())
    }

    /// Whether somebody has taken it from its place.
    pub(super) fn is_gone(&self) -> io::Result<bool> {
        match fs::metadata(&self.path) {
            Ok(there) => Ok(Identity::of(&there) != self.identity),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
            Err(error) => Err(error),
        }
    }
}

impl Limits {
    pub(super) fn reached(&self, part: &Part) -> bool {
        self.is_old(part) || part.length > 0 && self.bytes.is_some_and(|limit| part.length >= limit)
    }

    pub(super) fn is_old(&self, part: &Part) -> bool {
        let age = Duration::from_millis(now_ms().saturating_sub(part.begun_ms));
        part.length > 0 && self.age.is_some_and(|limit| age >= limit)
    }
}

/// To read and append.
fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).append(true);
    options
}

/// Bytes of a file; 0 when there is none.
pub(super) fn length_of(path: &Path) -> io::Result<u64> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(metadata.len()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error),
    }
}

/// Only used for the age of files: a wrong clock rotates early or late, nothing else.
fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |time| time.as_millis() as u64)
}
