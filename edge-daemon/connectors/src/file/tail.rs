//! Follows a file through growth, truncation and rotation, as bytes. Knows nothing of lines' content and never waits.
//!
//! A file is known by its inode and a hash of its first bytes, so that a reused inode is not mistaken for it. When the path
//! names another file, the old one is read to its end first, then its rotated successors in their order, then the path.
//!
//! A file that is gzip is read once and whole; its offsets are those of the bytes in it, and its head is that of the file.

use std::{
    fs::{self, File, Metadata},
    io::{self, Read, Seek, SeekFrom},
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use bus_schema::limits::RECORD_BYTES_MAX;
use serde::{Deserialize, Serialize};

use super::{
    packed::{Packed, is_packed},
    siblings::{self, Identity},
};

/// Bytes read at once, and the size of the buffer unless a record is larger.
const BUFFER_BYTES: usize = 256 * 1024;
/// The buffer for the largest record: with more than that unread, the record is too large.
const BUFFER_BYTES_MAX: usize = RECORD_BYTES_MAX + BUFFER_BYTES;
/// How many bytes from the start of a file identify it.
const HEAD_BYTES_MAX: usize = 1024;
/// Fewer bytes than this, none of them consumed yet, may be the beginning of any log.
const HEAD_BYTES_SURE: usize = 64;
/// How long a rotated file has to stay as it is before its last line counts as complete: its writer may still have it open.
const ROTATED_QUIET: Duration = Duration::from_millis(if cfg!(test) { 20 } else { 1_000 });

/// Where reading goes on: in which file, and how far in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Bookmark {
    /// Version of this form.
    pub v: u8,
    pub inode: u64,
    /// How many bytes of the start are hashed, and their hash.
    pub head_bytes: u16,
    pub head_hash: u64,
    pub offset: u64,
    /// Lines before the offset; unknown when reading began in the middle.
    pub line: Option<u64>,
    /// The offset lies inside a line that was too long.
    pub skipping: bool,
}

/// What a file that is being read is known by, and how far it is read.
struct Current {
    path: PathBuf,
    file: File,
    /// What is in it, if it is gzip.
    packed: Option<Box<Packed>>,
    identity: Identity,
    head: Vec<u8>,
    /// Offset of the end of the buffer.
    read_to: u64,
    line: Option<u64>,
    skipping: bool,
    /// Since when there has been nothing new.
    quiet_since: Option<Instant>,
}

/// What the end of the bytes that are there means.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum AtEnd {
    /// More may come.
    Wait,
    /// Nothing will be added to this file: its last line is complete, line end or not. Go on with [`Tail::advance`].
    Final,
    /// The file begins anew; what was read and not consumed stays to be read from a copy, or is given up.
    Moved,
}

/// Where [`Tail::advance`] got to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Advanced {
    /// At the start of the next file.
    Next,
    /// There is none, and will be none.
    Finished,
}

/// How opening went.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Opened {
    /// As wanted.
    Ready,
    /// The file of the bookmark is gone; reading starts at the beginning of what is there now.
    Lost,
}

/// A followed file.
pub(crate) struct Tail {
    path: PathBuf,
    once: bool,
    current: Option<Current>,
    buffer: Vec<u8>,
    /// Where the bytes not consumed yet begin in the buffer.
    start: usize,
}

impl Tail {
    /// A file to be read to its end (`once`) or followed for ever. Opens nothing yet.
    pub(crate) fn new(path: PathBuf, once: bool) -> Self {
        Self {
            path,
            once,
            current: None,
            buffer: Vec::new(),
            start: 0,
        }
    }

    /// Goes to the bookmark, or without one to the start or the end of the file. A followed file need not exist yet.
    pub(crate) fn open(&mut self, bookmark: Option<&Bookmark>, at_end: bool) -> io::Result<Opened> {
        if let Some(bookmark) = bookmark {
            if let Some(path) = self.find(bookmark)? {
                self.current = Some(resume(path, bookmark)?);
                return Ok(Opened::Ready);
            }
            self.open_path(false)?;
            // A file that was read once and is another one now is simply read.
            let is_lost = bookmark.offset > 0 && !self.once;
            return Ok(if is_lost { Opened::Lost } else { Opened::Ready });
        }
        self.open_path(at_end)?;
        Ok(Opened::Ready)
    }

    fn open_path(&mut self, at_end: bool) -> io::Result<()> {
        match Current::open(self.path.clone()) {
            Ok(mut current) => {
                if at_end {
                    current.skip_to_end()?;
                }
                self.current = Some(current);
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound && !self.once => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The file a bookmark speaks of: the same inode with the same beginning, or failing that the one copy of it
    /// (copy-and-truncate rotation).
    fn find(&self, bookmark: &Bookmark) -> io::Result<Option<PathBuf>> {
        let rotated = siblings::oldest_first(&self.path)?;
        let candidates: Vec<&Path> = std::iter::once(self.path.as_path())
            .chain(rotated.iter().map(|sibling| sibling.path.as_path()))
            .collect();
        for path in &candidates {
            if matches_bookmark(path, bookmark, true)? {
                return Ok(Some(path.to_path_buf()));
            }
        }
        if bookmark.head_bytes == 0 {
            return Ok(None);
        }
        let mut copies = Vec::new();
        for path in &candidates[1..] {
            if matches_bookmark(path, bookmark, false)? {
                copies.push(path.to_path_buf());
            }
        }
        // Two files that begin alike cannot be told apart: reading twice is better than skipping.
        Ok(if copies.len() == 1 { copies.pop() } else { None })
    }

    /// The file being read, for messages.
    pub(crate) fn name(&self) -> String {
        self.current
            .as_ref()
            .map_or(&self.path, |current| &current.path)
            .display()
            .to_string()
    }

    /// Whether there is a file at all.
    pub(crate) fn is_open(&self) -> bool {
        self.current.is_some()
    }

    /// Whether the file has grown beyond what was read of it.
    pub(crate) fn is_behind(&self) -> bool {
        self.current.as_ref().is_some_and(|current| match &current.packed {
            Some(packed) => !packed.is_over(),
            None => current.file.metadata().is_ok_and(|now| now.len() > current.read_to),
        })
    }

    /// What is wrong with the rest of a file that is gzip, said once.
    pub(crate) fn take_broken(&mut self) -> Option<String> {
        self.current.as_mut()?.packed.as_mut()?.take_broken()
    }

    /// Bytes read and not consumed.
    pub(crate) fn unread(&self) -> &[u8] {
        &self.buffer[self.start..]
    }

    /// Offset of the first byte of [`Tail::unread`].
    pub(crate) fn offset(&self) -> u64 {
        self.current.as_ref().map_or(0, |current| current.read_to) - self.unread().len() as u64
    }

    /// Lines before [`Tail::offset`].
    pub(crate) fn line(&self) -> Option<u64> {
        self.current.as_ref().and_then(|current| current.line)
    }

    /// Whether the next bytes belong to a line that was given up as too long.
    pub(crate) fn is_skipping(&self) -> bool {
        self.current.as_ref().is_some_and(|current| current.skipping)
    }

    /// Begins or ends giving up the rest of a line.
    pub(crate) fn set_skipping(&mut self, skipping: bool) {
        if let Some(current) = &mut self.current {
            current.skipping = skipping;
        }
    }

    /// Goes past the first `bytes` unread ones, which hold `lines` line ends.
    pub(crate) fn consume(&mut self, bytes: usize, lines: u64) {
        self.start += bytes;
        if let Some(line) = self.current.as_mut().and_then(|current| current.line.as_mut()) {
            *line += lines;
        }
    }

    /// The bookmark of [`Tail::offset`].
    pub(crate) fn bookmark(&self) -> Bookmark {
        let offset = self.offset();
        let Some(current) = &self.current else {
            return Bookmark {
                v: 1,
                inode: 0,
                head_bytes: 0,
                head_hash: hash(b""),
                offset: 0,
                line: Some(0),
                skipping: false,
            };
        };
        let head = &current.head[..current.head.len().min(usize::try_from(offset).unwrap_or(usize::MAX))];
        Bookmark {
            v: 1,
            inode: current.identity.inode,
            head_bytes: head.len() as u16,
            head_hash: hash(head),
            offset,
            line: current.line,
            skipping: current.skipping,
        }
    }

    /// Reads more, up to a full buffer. `false`: nothing new. A full buffer that is full still is doubled, up to a little
    /// more than the largest record.
    pub(crate) fn fill(&mut self) -> io::Result<bool> {
        if self.current.is_none() {
            self.open_path(false)?;
        }
        let Some(current) = &mut self.current else {
            return Ok(false);
        };
        self.buffer.drain(..self.start);
        self.start = 0;
        let unread = self.buffer.len();
        let mut capacity = BUFFER_BYTES;
        while capacity <= unread && capacity < BUFFER_BYTES_MAX {
            capacity = (2 * capacity).min(BUFFER_BYTES_MAX);
        }
        if capacity == BUFFER_BYTES && self.buffer.capacity() > BUFFER_BYTES {
            // One long record must not keep its memory for ever.
            self.buffer.shrink_to(BUFFER_BYTES);
        }
        if unread >= capacity || !current.is_itself()? {
            return Ok(false);
        }
        let room = capacity - unread;
        self.buffer.reserve_exact(room);
        let result = match &mut current.packed {
            Some(packed) => packed.take(room as u64).read_to_end(&mut self.buffer),
            None => (&current.file).take(room as u64).read_to_end(&mut self.buffer),
        };
        let fresh = &self.buffer[unread..];
        current.read_to += fresh.len() as u64;
        let wanted = HEAD_BYTES_MAX - current.head.len();
        // The head grows with the first bytes read; once something was skipped it stays as it was read at opening.
        if current.packed.is_none() && current.read_to - fresh.len() as u64 == current.head.len() as u64 {
            current.head.extend_from_slice(&fresh[..fresh.len().min(wanted)]);
        }
        if !fresh.is_empty() {
            current.quiet_since = None;
        }
        result.map(|_| !fresh.is_empty())
    }

    /// What it means that [`Tail::fill`] gave nothing new at `now`.
    pub(crate) fn at_end(&mut self, now: Instant) -> io::Result<AtEnd> {
        let Some(current) = &mut self.current else {
            return Ok(AtEnd::Wait);
        };
        if !current.is_itself()? {
            return Ok(AtEnd::Moved);
        }
        let is_at_path = match fs::metadata(&self.path) {
            Ok(metadata) => Identity::of(&metadata) == current.identity,
            // Renamed, and its successor not there yet.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(AtEnd::Wait),
            Err(error) => return Err(error),
        };
        if is_at_path {
            return Ok(if self.once { AtEnd::Final } else { AtEnd::Wait });
        }
        let quiet_since = *current.quiet_since.get_or_insert(now);
        let is_quiet = self.once || now.duration_since(quiet_since) >= ROTATED_QUIET;
        Ok(if is_quiet { AtEnd::Final } else { AtEnd::Wait })
    }

    /// The file has been truncated or overwritten: goes on in the copy of what it was, if there is one, else at its new
    /// start. `true` when nothing can be missing.
    pub(crate) fn restart(&mut self) -> io::Result<bool> {
        let mut bookmark = self.bookmark();
        if let Some(current) = &self.current
            && bookmark.offset == 0
            && current.head.len() >= HEAD_BYTES_SURE
        {
            // Nothing is consumed: what was read identifies the copy.
            bookmark.head_bytes = current.head.len() as u16;
            bookmark.head_hash = hash(&current.head);
        }
        self.buffer.clear();
        self.start = 0;
        if bookmark.head_bytes > 0
            && let Some(path) = self.find(&bookmark)?
        {
            self.current = Some(resume(path, &bookmark)?);
            return Ok(true);
        }
        self.current = None;
        self.open_path(false)?;
        Ok(false)
    }

    /// Leaves a file that is read to its end for the one after it.
    pub(crate) fn advance(&mut self) -> io::Result<Advanced> {
        let Some(done) = self.current.take() else {
            return Ok(Advanced::Finished);
        };
        self.buffer.clear();
        self.start = 0;
        if done.path == self.path && self.once {
            self.current = Some(done);
            return Ok(Advanced::Finished);
        }
        let next = siblings::after(&self.path, &done.identity)?.unwrap_or_else(|| self.path.clone());
        match Current::open(next) {
            Ok(current) => {
                self.current = Some(current);
                Ok(Advanced::Next)
            }
            Err(error) => {
                // Rotated again just now: looked for again from where we are.
                self.current = Some(done);
                if error.kind() == io::ErrorKind::NotFound {
                    Ok(Advanced::Next)
                } else {
                    Err(error)
                }
            }
        }
    }

    /// The first bytes of the file being read, at most `limit`.
    pub(crate) fn beginning(&self, limit: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; limit];
        let length = match &self.current {
            Some(Current { file, packed: None, .. }) => read_at_start(file, &mut bytes)?,
            Some(current) => {
                let (mut packed, mut filled) = (Packed::new(&current.file)?, 0);
                loop {
                    match packed.read(&mut bytes[filled..])? {
                        0 => break filled,
                        more => filled += more,
                    }
                }
            }
            None => 0,
        };
        bytes.truncate(length);
        Ok(bytes)
    }
}

impl Current {
    fn open(path: PathBuf) -> io::Result<Self> {
        let file = File::open(&path)?;
        let metadata = file.metadata()?;
        if metadata.is_dir() {
            return Err(io::Error::new(io::ErrorKind::IsADirectory, "it is a directory"));
        }
        let identity = Identity::of(&metadata);
        let (mut packed, mut head) = (None, Vec::new());
        if is_packed(&path) {
            packed = Some(Box::new(Packed::new(&file)?));
            head.resize(HEAD_BYTES_MAX, 0);
            let length = read_at_start(&file, &mut head)?;
            head.truncate(length);
        }
        Ok(Self {
            path,
            file,
            packed,
            identity,
            head,
            read_to: 0,
            line: Some(0),
            skipping: false,
            quiet_since: None,
        })
    }

    /// To after the last complete line, so that a line being written now is read whole.
    fn skip_to_end(&mut self) -> io::Result<()> {
        let length = self.file.metadata()?.len();
        let looked_at = length.min(BUFFER_BYTES as u64);
        let mut bytes = vec![0; looked_at as usize];
        self.file.read_exact_at(&mut bytes, length - looked_at)?;
        let after_line = memchr::memrchr(b'\n', &bytes).map(|at| length - looked_at + at as u64 + 1);
        // A line longer than all that is not whole any more for us.
        self.skipping = after_line.is_none() && length > looked_at;
        self.go_to(after_line.unwrap_or(if self.skipping { length } else { 0 }))?;
        self.line = (self.read_to == 0).then_some(0);
        Ok(())
    }

    fn go_to(&mut self, offset: u64) -> io::Result<()> {
        if let Some(packed) = &mut self.packed {
            self.read_to = packed.go_to(offset)?;
            return Ok(());
        }
        let mut head = vec![0; HEAD_BYTES_MAX.min(usize::try_from(offset).unwrap_or(usize::MAX))];
        let length = read_at_start(&self.file, &mut head)?;
        head.truncate(length);
        self.head = head;
        self.read_to = self.file.seek(SeekFrom::Start(offset))?;
        Ok(())
    }

    /// Whether what was read is still there: not shorter, and beginning as it did.
    fn is_itself(&self) -> io::Result<bool> {
        if self.packed.is_none() && self.file.metadata()?.len() < self.read_to {
            return Ok(false);
        }
        let mut head = [0; HEAD_BYTES_MAX];
        let head = &mut head[..self.head.len()];
        let length = read_at_start(&self.file, head)?;
        Ok(length == self.head.len() && *head == *self.head)
    }
}

fn resume(path: PathBuf, bookmark: &Bookmark) -> io::Result<Current> {
    let mut current = Current::open(path)?;
    current.go_to(bookmark.offset)?;
    current.line = bookmark.line;
    current.skipping = bookmark.skipping;
    Ok(current)
}

/// Whether the file at `path` is the one of the bookmark (`same_inode`), or a copy of it.
fn matches_bookmark(path: &Path, bookmark: &Bookmark, same_inode: bool) -> io::Result<bool> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    let metadata: Metadata = file.metadata()?;
    let is_short = metadata.len() < bookmark.offset && !is_packed(path);
    if metadata.is_dir() || is_short || same_inode != (metadata.ino() == bookmark.inode) {
        return Ok(false);
    }
    let mut head = vec![0; usize::from(bookmark.head_bytes)];
    let length = read_at_start(&file, &mut head)?;
    Ok(length == head.len() && hash(&head) == bookmark.head_hash)
}

fn read_at_start(file: &File, bytes: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < bytes.len() {
        match file.read_at(&mut bytes[filled..], filled as u64) {
            Ok(0) => break,
            Ok(more) => filled += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// FNV-1a, 64 bits: to recognise a file, not to protect it.
pub(crate) fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
