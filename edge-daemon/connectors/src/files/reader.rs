//! Reads the files of a directory one after the other, and does with them what is wanted once they are durable elsewhere.
//! Blocking; the source around it brings threads and pauses. What a file becomes is in `whole` and `records`.
//!
//! A file that is not as it was when its reading began is read again as what it is then. A position says how far
//! the file being sent has come and which files are sent but perhaps not dealt with; what is older is dealt with for sure.

use std::{
    collections::{BTreeSet, HashMap, HashSet, VecDeque},
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    time::Instant,
};

use bus_schema::{
    data::{BatchBuilder, Origin},
    limits::BATCH_BYTES_TARGET,
};
use flow::{Fault, Position, SourceBatch};
use serde::{Deserialize, Serialize};

use super::{
    chunk::{self, Step, Version},
    listing::{Choice, Listing, version},
    records::Records,
    sent::Sent,
    whole::{Stamp, Whole},
};
use crate::file::{place, source::Parsing};

/// Largest chunk of a file, in bytes.
const CHUNK_BYTES_MAX: usize = 48 * 1024;
/// With less room than that a batch is closed, in bytes.
const CHUNK_BYTES_MIN: usize = 4 * 1024;
/// Files that are sent and not dealt with yet; the next one waits.
const DONE_MAX: usize = 128;
/// What becomes of a file that is durable elsewhere.
#[derive(Debug, Clone)]
pub(super) enum WhenSent {
    /// It stays; this list remembers it.
    Keep {
        list: PathBuf,
    },
    Delete,
    Move {
        directory: PathBuf,
    },
}

/// What to read.
#[derive(Clone)]
pub(super) struct Settings {
    pub choice: Choice,
    /// How a file becomes records; without it, it is sent as it is.
    pub parsing: Option<Parsing>,
    pub once: bool,
    pub when_sent: WhenSent,
}

/// What [`Reader::read`] gave.
pub(super) enum Got {
    Batch(SourceBatch),
    /// Nothing new.
    Wait,
    /// So many are on their way that the next one waits for them.
    Full,
    End,
}

/// Where reading goes on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Bookmark {
    v: u8,
    /// The file being sent.
    current: Option<Progress>,
    /// Files sent so far.
    number: u64,
    /// The keys of the last of them, in hexadecimal: those that were perhaps not dealt with.
    done: VecDeque<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Progress {
    name: String,
    size: u64,
    /// As text: JSON's numbers are too small.
    modified: String,
    /// Of a file that is sent as it is.
    offset: u64,
    /// The position in a file that is sent as records.
    inner: Option<String>,
}

/// A file being sent.
enum Current {
    Whole(Box<Whole>),
    Records(Box<Records>),
}

/// A file that was sent.
#[derive(Debug)]
struct Done {
    key: u64,
    /// Unknown when it was not there any more after a restart.
    version: Option<Version>,
}

pub(super) struct Reader {
    settings: Settings,
    listing: Listing,
    sent: Option<Sent>,
    current: Option<Current>,
    /// Given up, and nobody knows yet.
    dropped: Option<Version>,
    number: u64,
    /// Sent and not dealt with, in their order; the last one has the number `number`.
    done: VecDeque<Done>,
    /// How many files the list still has in the directory.
    present: usize,
}

impl Reader {
    /// Goes to where `after` says. `is_durable`: all that was sent up to there is durable elsewhere.
    pub(super) fn open(settings: Settings, after: Option<&Position>, is_durable: bool) -> Result<Self, Fault> {
        let bookmark = after.map_or_else(|| Ok(Bookmark::default()), read_bookmark)?;
        let mut reader = Self {
            listing: Listing::default(),
            sent: None,
            current: None,
            dropped: None,
            number: bookmark.number,
            done: VecDeque::new(),
            present: 0,
            settings,
        };
        fs::read_dir(&reader.settings.choice.directory).map_err(|error| reader.failed(&error))?;
        if let WhenSent::Keep { list } = &reader.settings.when_sent {
            reader.sent = Some(Sent::open(list, bookmark.number).map_err(|error| unlisted(list, &error))?);
        }
        reader.find_done(&bookmark)?;
        if is_durable {
            let all = reader.done.len();
            reader.deal_with(all)?;
        }
        if let Some(progress) = &bookmark.current {
            reader.go_on(progress)?;
        }
        Ok(reader)
    }

    /// The files that are sent and may still have to be dealt with.
    fn find_done(&mut self, bookmark: &Bookmark) -> Result<(), Fault> {
        let keys: Vec<u64> = bookmark
            .done
            .iter()
            .filter_map(|key| u64::from_str_radix(key, 16).ok())
            .collect();
        let mut there = HashMap::new();
        if !keys.is_empty() && self.sent.is_none() {
            let choice = self.settings.choice.clone();
            let walked = self.listing.walk(&choice, &mut |version| {
                let key = version.key();
                if keys.contains(&key) {
                    there.insert(key, version);
                }
            });
            walked.map_err(|error| self.failed(&error))?;
        }
        let done = keys.into_iter().map(|key| Done {
            key,
            version: there.remove(&key),
        });
        self.done = done.collect();
        Ok(())
    }

    /// Goes on within a file, if it is what it was.
    fn go_on(&mut self, progress: &Progress) -> Result<(), Fault> {
        let version = Version {
            name: progress.name.clone(),
            size: progress.size,
            modified: progress.modified.parse().unwrap_or_default(),
        };
        self.current = self.begin(version.clone(), progress.inner.clone())?;
        if let Some(Current::Whole(whole)) = &mut self.current {
            let there = whole
                .go_to(progress.offset)
                .map_err(|error| unreadable(&whole.path, &error))?;
            if !there {
                self.current = None;
            }
        }
        if self.current.is_none() {
            self.give_up(version);
        }
        Ok(())
    }

    /// Opens a file; `None` when it is not this version any more.
    fn begin(&self, version: Version, inner: Option<String>) -> Result<Option<Current>, Fault> {
        let path = self.settings.choice.directory.join(&version.name);
        // A link is none of ours, wherever it leads.
        match fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.is_file() => {}
            Ok(_) => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unreadable(&path, &error)),
        }
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unreadable(&path, &error)),
        };
        let metadata = file.metadata().map_err(|error| unreadable(&path, &error))?;
        if self::version(version.name.clone(), &metadata) != version {
            return Ok(None);
        }
        let current = match &self.settings.parsing {
            None => Current::Whole(Box::new(Whole::new(version, path, file, &metadata))),
            Some(parsing) => {
                let reader = parsing.reader(&path, true);
                let records = Records::open(version, path, Stamp::of(&metadata), reader, inner)?;
                Current::Records(Box::new(records))
            }
        };
        Ok(Some(current))
    }

    fn give_up(&mut self, version: Version) {
        tracing::info!(
            name = version.name,
            "the file changed while it was sent: it is sent again as it is then"
        );
        self.dropped = Some(version).filter(|_| self.settings.parsing.is_none());
    }

    /// The next chunks or records.
    pub(super) fn read(&mut self, now: Instant) -> Result<Got, Fault> {
        let mut builder = chunk::builder();
        let mut bytes = Vec::new();
        while BATCH_BYTES_TARGET.saturating_sub(builder.bytes()) >= CHUNK_BYTES_MIN {
            if let Some(version) = self.dropped.take() {
                add(&mut builder, &version, Step::Dropped)?;
            }
            if self.current.is_none() && !self.begin_next(now)? {
                break;
            }
            match self.current.take() {
                Some(Current::Records(records)) => return self.read_records(*records).map(Got::Batch),
                Some(Current::Whole(whole)) => self.read_chunk(*whole, &mut builder, &mut bytes)?,
                None => {}
            }
        }
        if builder.rows() > 0 {
            return Ok(Got::Batch(SourceBatch {
                batch: builder.finish(Origin::default()),
                position: self.position(),
                undecodable: Vec::new(),
            }));
        }
        if self.done.len() >= DONE_MAX {
            return Ok(Got::Full);
        }
        let is_over = self.settings.once && self.listing.is_exhausted();
        Ok(if is_over { Got::End } else { Got::Wait })
    }

    /// The next records of a file; none may be left, which has to be known all the same.
    fn read_records(&mut self, mut records: Records) -> Result<SourceBatch, Fault> {
        let next = records.next()?;
        if next.is_over {
            self.finished(records.version);
        } else {
            self.current = Some(Current::Records(Box::new(records)));
        }
        let (batch, undecodable) = match next.batch {
            Some(batch) => (batch.batch, batch.undecodable),
            None => (chunk::builder().finish(Origin::default()), Vec::new()),
        };
        Ok(SourceBatch {
            batch,
            position: self.position(),
            undecodable,
        })
    }

    fn finished(&mut self, version: Version) {
        self.number += 1;
        self.done.push_back(Done {
            key: version.key(),
            version: Some(version),
        });
    }

    /// Goes to the next file, if there is one.
    fn begin_next(&mut self, now: Instant) -> Result<bool, Fault> {
        while self.done.len() < DONE_MAX {
            let (sent, done) = (&self.sent, &self.done);
            let mut present = 0;
            let is_wanted = |version: &Version| {
                let key = version.key();
                let is_sent = sent.as_ref().is_some_and(|sent| sent.has(key));
                present += usize::from(is_sent);
                !is_sent && !done.iter().any(|done| done.key == key)
            };
            let next = self.listing.next(&self.settings.choice, now, is_wanted);
            self.present = present;
            let Some(version) = next.map_err(|error| self.failed(&error))? else {
                self.forget_gone()?;
                return Ok(false);
            };
            self.current = self.begin(version, None)?;
            if self.current.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Keeps the list of what was sent as short as the directory is.
    fn forget_gone(&mut self) -> Result<(), Fault> {
        if !self.sent.as_ref().is_some_and(|sent| sent.is_overgrown(self.present)) {
            return Ok(());
        }
        let mut present = HashSet::new();
        let choice = self.settings.choice.clone();
        let walked = self.listing.walk(&choice, &mut |version| {
            present.insert(version.key());
        });
        let kept = walked.and_then(|()| match &mut self.sent {
            Some(sent) => sent.keep_only(|key| present.contains(&key)),
            None => Ok(()),
        });
        kept.map_err(|error| self.failed(&error))
    }

    /// Adds the next chunk of the file, and its end after the last one.
    fn read_chunk(&mut self, mut whole: Whole, builder: &mut BatchBuilder, bytes: &mut Vec<u8>) -> Result<(), Fault> {
        let room = BATCH_BYTES_TARGET.saturating_sub(builder.bytes()).min(CHUNK_BYTES_MAX);
        let left = usize::try_from(whole.version.size - whole.offset).unwrap_or(usize::MAX);
        bytes.resize(left.min(room), 0);
        let offset = whole.offset;
        if !whole.take(bytes).map_err(|error| unreadable(&whole.path, &error))? {
            self.give_up(whole.version);
            return Ok(());
        }
        if !bytes.is_empty() {
            add(builder, &whole.version, Step::Data { offset, data: bytes })?;
        }
        if whole.offset < whole.version.size {
            self.current = Some(Current::Whole(Box::new(whole)));
            return Ok(());
        }
        let version = whole.version.clone();
        add(
            builder,
            &version,
            Step::End {
                sha256: &whole.sha256(),
            },
        )?;
        self.finished(version);
        Ok(())
    }

    fn position(&self) -> Position {
        let current = self.current.as_ref().map(|current| {
            let (version, offset, inner) = match current {
                Current::Whole(whole) => (&whole.version, whole.offset, None),
                Current::Records(records) => (&records.version, 0, records.inner.clone()),
            };
            Progress {
                name: version.name.clone(),
                size: version.size,
                modified: version.modified.to_string(),
                offset,
                inner,
            }
        });
        let bookmark = Bookmark {
            v: 1,
            current,
            number: self.number,
            done: self.done.iter().map(|done| format!("{:016x}", done.key)).collect(),
        };
        Position::new(serde_json::to_vec(&bookmark).unwrap_or_default())
    }

    /// Everything up to `position` is durable: deals with the files that are complete by then.
    pub(super) fn commit(&mut self, position: &Position) -> Result<(), Fault> {
        let bookmark = read_bookmark(position)?;
        let open = self.number.saturating_sub(bookmark.number) as usize;
        self.deal_with(self.done.len().saturating_sub(open))
    }

    /// Does what is wanted with the first `count` files that are sent.
    fn deal_with(&mut self, count: usize) -> Result<(), Fault> {
        if count == 0 {
            return Ok(());
        }
        crash_point::at!(FilesBeforeDealt);
        let first = (self.number + 1).saturating_sub(self.done.len() as u64);
        match (&mut self.sent, &self.settings.when_sent) {
            (Some(sent), WhenSent::Keep { list }) => {
                let files = self.done.iter().map(|done| done.key).zip(first..).take(count);
                sent.add(files).map_err(|error| unlisted(list, &error))?;
            }
            _ => {
                let mut touched = BTreeSet::new();
                let versions = self.done.iter().take(count).filter_map(|done| done.version.as_ref());
                versions
                    .into_iter()
                    .try_for_each(|version| self.remove(version, &mut touched))?;
                // Durable before they are forgotten: back after a power cut, they would be sent again. Once for all of them.
                let sync = |(_, directory): &(bool, PathBuf)| match File::open(directory) {
                    // Removed meanwhile, with all that was in it.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                    opened => opened?.sync_all(),
                };
                let synced = touched.iter().try_for_each(sync);
                synced.map_err(|error| self.failed(&error))?;
            }
        }
        crash_point::at!(FilesAfterDealt);
        self.done.drain(..count);
        Ok(())
    }

    /// Deletes or moves a file that is durable elsewhere, unless it is another one by now. `touched` gets the
    /// directories that have to be made durable for that: first those where files are now, then those where they were.
    fn remove(&self, version: &Version, touched: &mut BTreeSet<(bool, PathBuf)>) -> Result<(), Fault> {
        let path = self.settings.choice.directory.join(&version.name);
        let is_same = match fs::symlink_metadata(&path) {
            Ok(metadata) => metadata.is_file() && self::version(version.name.clone(), &metadata) == *version,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // By an attempt that failed later, maybe: then nobody has made it durable.
                touched.extend(path.parent().map(|parent| (true, parent.to_path_buf())));
                return Ok(());
            }
            Err(error) => return Err(self.failed(&error)),
        };
        if !is_same {
            return Ok(());
        }
        let done = match &self.settings.when_sent {
            WhenSent::Keep { .. } => Ok(()),
            WhenSent::Delete => fs::remove_file(&path),
            WhenSent::Move { directory } => move_to(directory, &version.name, &path).map(|to| {
                touched.extend(to.parent().map(|parent| (false, parent.to_path_buf())));
            }),
        };
        touched.extend(path.parent().map(|parent| (true, parent.to_path_buf())));
        done.map_err(|error| Fault::retry(format!("cannot deal with {}, which is sent: {error}", path.display())))
    }

    fn failed(&self, error: &io::Error) -> Fault {
        unreadable(&self.settings.choice.directory, error)
    }
}

/// Moves a file below a directory, beside whatever has its name there. Where it is now.
fn move_to(directory: &Path, name: &str, from: &Path) -> io::Result<PathBuf> {
    let mut to = directory.join(name);
    let parent = to.parent().unwrap_or(directory);
    fs::create_dir_all(parent)?;
    if fs::symlink_metadata(&to).is_ok() {
        to = directory.join(place::numbered(name, place::next_number(&to)?));
    }
    fs::rename(from, &to)?;
    Ok(to)
}

fn unreadable(path: &Path, error: &io::Error) -> Fault {
    Fault::retry(format!("cannot read {}: {error}", path.display()))
}

fn unlisted(list: &Path, error: &io::Error) -> Fault {
    Fault::retry(format!("cannot remember in {} what was sent: {error}", list.display()))
}

fn add(builder: &mut BatchBuilder, version: &Version, step: Step<'_>) -> Result<(), Fault> {
    chunk::push(builder, version, step).map_err(|cause| Fault::stop(format!("{}: {cause}", version.name)))
}

fn read_bookmark(position: &Position) -> Result<Bookmark, Fault> {
    let unknown =
        || Fault::stop("the stored position is not one of a files source: was the workflow's source changed?");
    let bookmark: Bookmark = serde_json::from_slice(position.as_bytes()).map_err(|_| unknown())?;
    if bookmark.v == 1 { Ok(bookmark) } else { Err(unknown()) }
}
