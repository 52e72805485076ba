//! One segment: a small sled database that is only ever added to. Opens, writes, syncs, reads and lists it.
//! Knows nothing of other segments, quotas or what to do about damage.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::cell::{self, Assembler, Chunk, Kind, Reader};
use crate::cell::{CHUNK_DATA_BYTES_MAX, CellId};
use crate::contents::{Contents, FrameInfo};
use crate::disk;
use crate::fault::{Fault, guarded};
use crate::record::{FrameHead, Ledger, MarkRecord, Start};
use crate::{Mark, Stored};

/// sled's own log segment and write buffer, bytes.
pub(crate) const SLED_SEGMENT_BYTES: usize = 512 * 1024;

/// Page cache of one open segment, bytes.
const CACHE_BYTES: u64 = 1024 * 1024;

/// Frame bytes written before an fsync is due, even inside one append. sled writes each byte up to five times and
/// reuses a stretch of its log one [`SLED_SEGMENT_BYTES`] after it was superseded, trusting `sync_file_range`. With a
/// real fsync within that distance, a power cut never finds the old copy overwritten and the new one not yet stored.
pub(crate) const UNSYNCED_BYTES_MAX: u64 = 96 * 1024;

/// Epochs until what was put aside is freed, its own included.
const EPOCHS_UNTIL_FREE: usize = 3;

/// How long to wait for sled's background writes to let go of the file lock of a segment closed just before.
const LOCK_WAIT: Duration = Duration::from_secs(5);
const LOCK_RETRY: Duration = Duration::from_millis(2);

/// Marks without frames kept in a segment; the oldest is written over.
pub(crate) const MARKS_ALONE_MAX: u8 = crate::MARKS_ALONE_MAX as u8;

/// The database file inside a segment's directory.
pub(crate) const DB_FILE: &str = "db";

/// Name of the tree for everything but frames, which keeps the frames' leaves from being rewritten with it.
const META_TREE: &[u8] = b"meta";

/// An open segment.
#[derive(Debug)]
pub(crate) struct Segment {
    pub first_seq: u64,
    dir: PathBuf,
    /// Frames, and the handle that flushes. `None` only while closing.
    db: Option<sled::Db>,
    meta: Option<sled::Tree>,
    file: File,
    unsynced_bytes: u64,
}

impl Segment {
    /// Creates the segment in `dir` (which must not exist) and makes it durable with its start record.
    pub fn create(dir: &Path, first_seq: u64, stamp: u32, start: &Start) -> Result<Self, Fault> {
        fs::create_dir(dir)?;
        let mut segment = Self::open_once(dir, first_seq)?;
        segment.put_meta(Kind::Start, 0, first_seq, stamp, &start.encode())?;
        crash_point::at!(SpoolCreateBeforeSync);
        segment.finish_creation()?;
        crash_point::at!(SpoolCreateAfterSync);
        Ok(segment)
    }

    /// Makes the files themselves durable, not just what is in them.
    pub fn finish_creation(&mut self) -> Result<(), Fault> {
        self.sync()?;
        File::open(self.dir.join("conf"))?.sync_all()?;
        disk::sync_dir(&self.dir)?;
        disk::sync_dir(self.dir.parent().unwrap_or(Path::new(".")))?;
        Ok(())
    }

    /// Opens the segment in `dir`. If sled refuses, everything beside its log (snapshots, settings: all of it can be
    /// made again) is removed and it is tried once more.
    pub fn open(dir: &Path, first_seq: u64) -> Result<Self, Fault> {
        match Self::open_once(dir, first_seq) {
            Err(Fault::Damaged(reason)) => {
                tracing::warn!(segment = %dir.display(), reason, "segment does not open; trying with its log alone");
                disk::keep_only(dir, &[DB_FILE, disk::SEAL_FILE, disk::KEPT_FILE])?;
                Self::open_once(dir, first_seq)
            }
            other => other,
        }
    }

    fn open_once(dir: &Path, first_seq: u64) -> Result<Self, Fault> {
        let db = guarded(|| open_sled(dir))?;
        let meta = guarded(|| Ok(db.open_tree(META_TREE)?))?;
        let file = OpenOptions::new().write(true).open(dir.join(DB_FILE))?;
        Ok(Self {
            first_seq,
            dir: dir.to_owned(),
            db: Some(db),
            meta: Some(meta),
            file,
            unsynced_bytes: 0,
        })
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Stores a frame's cell. Durable after [`Self::sync`]; syncs by itself once too much is waiting.
    pub fn put_frame(&mut self, seq: u64, stamp: u32, payload: &[u8]) -> Result<(), Fault> {
        self.sync_before(payload.len() as u64)?;
        self.put(
            self.frames()?,
            &seq.to_be_bytes(),
            CellId::of(Kind::Frame, seq, stamp, payload),
            payload,
        )
    }

    /// Makes room for so many more bytes that are not durable yet.
    fn sync_before(&mut self, bytes: u64) -> Result<(), Fault> {
        if self.unsynced_bytes > 0 && self.unsynced_bytes + bytes > UNSYNCED_BYTES_MAX {
            self.sync()?;
        }
        self.unsynced_bytes += bytes;
        Ok(())
    }

    /// Stores a mark that has no frame to go with, in one of [`MARKS_ALONE_MAX`] slots. Durable as a frame is.
    pub fn put_mark(&mut self, slot: u8, stamp: u32, record: &MarkRecord) -> Result<(), Fault> {
        let (id, payload) = (record.root_seq(), record.encode());
        self.sync_before(payload.len() as u64)?;
        self.put(
            self.meta()?,
            &[Kind::Mark as u8, slot],
            CellId::of(Kind::Mark, id, stamp, &payload),
            &payload,
        )
    }

    /// Stores the ledger.
    pub fn put_ledger(&mut self, stamp: u32, ledger: &Ledger) -> Result<(), Fault> {
        let mut payload = Vec::new();
        ledger.write(&mut payload);
        self.put_meta(Kind::Ledger, 0, ledger.floor, stamp, &payload)
    }

    /// Stores any cell that is not a frame.
    pub fn put_meta(&mut self, kind: Kind, slot: u8, id: u64, stamp: u32, payload: &[u8]) -> Result<(), Fault> {
        self.unsynced_bytes += payload.len() as u64;
        self.put(
            self.meta()?,
            &[kind as u8, slot],
            CellId::of(kind, id, stamp, payload),
            payload,
        )
    }

    fn put(&self, tree: &sled::Tree, prefix: &[u8], cell: CellId, payload: &[u8]) -> Result<(), Fault> {
        guarded(|| {
            for (index, value) in cell::chunks(cell, payload) {
                let mut key = prefix.to_vec();
                key.extend_from_slice(&index.to_be_bytes());
                tree.insert(key, value)?;
            }
            Ok(())
        })
    }

    /// Makes everything stored so far durable: sled's flush hands it to the kernel, the fsync to the disk.
    pub fn sync(&mut self) -> Result<(), Fault> {
        let db = self.frames()?;
        guarded(|| Ok(db.flush().map(drop)?))?;
        crash_point::at!(SpoolSyncBeforeFsync);
        self.file.sync_data()?;
        self.unsynced_bytes = 0;
        give_back();
        Ok(())
    }

    /// Bytes of the database file.
    pub fn db_bytes(&self) -> u64 {
        self.file.metadata().map_or(0, |metadata| metadata.len())
    }

    /// Reads frames with `from <= seq < end` in order, until `frames_max` or `bytes_max` is reached; always at least
    /// one, if `out` was empty. Frames that are not intact are skipped.
    pub fn read(
        &self,
        from: u64,
        end: u64,
        frames_max: usize,
        bytes_max: usize,
        out: &mut Vec<Stored>,
    ) -> Result<ReadEnd, Fault> {
        let tree = self.frames()?;
        guarded(|| {
            let mut bytes: usize = out.iter().map(|stored| stored.bytes.len()).sum();
            let mut assembler = Assembler::default();
            for entry in tree.range(from.to_be_bytes().as_slice()..end.to_be_bytes().as_slice()) {
                let (key, value) = entry?;
                let Some((seq, chunk)) = frame_chunk(&key, &value) else {
                    continue;
                };
                if chunk.index == 0 {
                    let len = frame_len(&chunk);
                    if out.len() >= frames_max || (!out.is_empty() && bytes + len > bytes_max) {
                        return Ok(ReadEnd::Limit);
                    }
                }
                let Some(payload) = assembler.push(&chunk) else {
                    continue;
                };
                let head = FrameHead::read(&payload);
                if let Some((head, body)) = head.and_then(|head| Some((head, head.body(&payload)?))) {
                    bytes += body.len();
                    let after = head.before.plus(1, head.records, body.len() as u64);
                    out.push(Stored {
                        seq,
                        records: head.records,
                        bytes: body.to_vec(),
                        after,
                    });
                }
            }
            Ok(ReadEnd::Segment)
        })
    }

    /// The last intact frame at or below `seq`.
    pub fn frame_at_or_below(&self, seq: u64) -> Result<Option<FrameInfo>, Fault> {
        let tree = self.frames()?;
        guarded(|| {
            for entry in tree.range(..(seq.saturating_add(1)).to_be_bytes().as_slice()).rev() {
                let (key, value) = entry?;
                if let Some((seq, chunk)) = frame_chunk(&key, &value)
                    && let Some(frame) = frame_info(seq, &chunk)
                {
                    return Ok(Some(frame));
                }
            }
            Ok(None)
        })
    }

    /// The mark a frame carries.
    pub fn frame_mark(&self, seq: u64) -> Result<Option<Mark>, Fault> {
        let tree = self.frames()?;
        guarded(|| {
            let mut assembler = Assembler::default();
            for entry in tree.scan_prefix(seq.to_be_bytes()) {
                let (key, value) = entry?;
                if let Some(payload) = frame_chunk(&key, &value).and_then(|(_, chunk)| assembler.push(&chunk)) {
                    return Ok(FrameHead::read(&payload).and_then(|head| head.mark(&payload)));
                }
            }
            Ok(None)
        })
    }

    /// Lists everything in the segment, checking every chunk.
    pub fn contents(&self) -> Result<Contents, Fault> {
        let (frames, meta) = (self.frames()?, self.meta()?);
        guarded(|| {
            let mut contents = Contents::default();
            let mut assembler = Assembler::default();
            let mut pending = None;
            let mut newest_mark = None;
            for entry in frames.iter() {
                let (key, value) = entry?;
                let Some((seq, chunk)) = frame_chunk(&key, &value) else {
                    continue;
                };
                contents.stamp_max = contents.stamp_max.max(chunk.cell.stamp);
                if chunk.index == 0 {
                    pending = frame_info(seq, &chunk);
                }
                if assembler.push(&chunk).is_some() {
                    contents.frames.extend(pending.take());
                }
            }
            for entry in meta.iter() {
                let (key, value) = entry?;
                let Some(chunk) = cell::parse(&value) else { continue };
                contents.stamp_max = contents.stamp_max.max(chunk.cell.stamp);
                let Some(payload) = assembler.push(&chunk) else {
                    continue;
                };
                match chunk.cell.kind {
                    Kind::Start => contents.start = Start::read(&payload),
                    Kind::Ledger => contents.ledger = Ledger::read(&mut Reader::new(&payload)),
                    Kind::Mark => {
                        let record = MarkRecord::read(&payload);
                        contents.marks.extend(record.map(|record| (chunk.cell.stamp, record)));
                        let age = Some((chunk.cell.stamp, chunk.cell.id));
                        if age > newest_mark {
                            newest_mark = age;
                            contents.mark_slot = key.get(1).map_or(0, |slot| (slot + 1) % MARKS_ALONE_MAX);
                        }
                    }
                    Kind::Frame => {}
                }
            }
            Ok(contents)
        })
    }

    fn frames(&self) -> Result<&sled::Tree, Fault> {
        self.db.as_deref().ok_or_else(closed)
    }

    fn meta(&self) -> Result<&sled::Tree, Fault> {
        self.meta.as_ref().ok_or_else(closed)
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        let (meta, db) = (self.meta.take(), self.db.take());
        // sled flushes when it is dropped, and panics if that fails.
        let closed = guarded(|| {
            drop(meta);
            drop(db);
            Ok(())
        });
        give_back();
        if let Err(Fault::Damaged(reason)) = closed {
            tracing::warn!(segment = %self.dir.display(), reason, "segment did not close cleanly");
        }
    }
}

/// Frees what sled has put aside until nobody can be reading it any more: replaced pages and write buffers of
/// [`SLED_SEGMENT_BYTES`] each, also of segments that are closed. Left to itself it does so by count, not by bytes.
fn give_back() {
    let freed = guarded(|| {
        // What is put aside in one epoch is freed two later, and a flush goes on by one at most.
        for _ in 0..EPOCHS_UNTIL_FREE {
            sled::pin().flush();
        }
        Ok(())
    });
    // It may be another segment's, and everything of this one is on the disk.
    if let Err(Fault::Damaged(reason)) = freed {
        tracing::warn!(reason, "memory of a segment could not be freed");
    }
}

/// Why reading from a segment stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReadEnd {
    /// The caller's limit was reached.
    Limit,
    /// There is no more in this segment.
    Segment,
}

fn closed() -> Fault {
    Fault::Io(io::Error::other("the segment is closed"))
}

fn frame_chunk<'a>(key: &[u8], value: &'a [u8]) -> Option<(u64, Chunk<'a>)> {
    let mut reader = Reader::new(key);
    let (seq, index) = (reader.u64()?, reader.u16()?);
    let chunk = cell::parse(value)?;
    let belongs = chunk.cell.kind == Kind::Frame && chunk.cell.id == seq && chunk.index == index;
    belongs.then_some((seq, chunk))
}

fn frame_info(seq: u64, first: &Chunk<'_>) -> Option<FrameInfo> {
    if first.index != 0 {
        return None;
    }
    let head = FrameHead::read(first.data)?;
    let bytes = u64::from(first.cell.total).saturating_sub(head.body_at() as u64);
    Some(FrameInfo {
        seq,
        stamp: first.cell.stamp,
        bytes,
        head,
    })
}

fn frame_len(first: &Chunk<'_>) -> usize {
    FrameHead::read(first.data).map_or(0, |head| (first.cell.total as usize).saturating_sub(head.body_at()))
}

fn open_sled(dir: &Path) -> Result<sled::Db, Fault> {
    let give_up = Instant::now() + LOCK_WAIT;
    loop {
        let opened = sled::Config::new()
            .path(dir)
            .cache_capacity(CACHE_BYTES)
            .segment_size(SLED_SEGMENT_BYTES)
            .use_compression(false)
            .flush_every_ms(None)
            .mode(sled::Mode::LowSpace)
            .open();
        match opened {
            Ok(db) => return Ok(db),
            Err(sled::Error::Io(error)) if is_locked(&error) && Instant::now() < give_up => {
                std::thread::sleep(LOCK_RETRY);
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// sled gives no better sign than the text of the error.
fn is_locked(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::Other && error.to_string().contains("could not acquire lock")
}

const _: () = {
    // Every leaf stays in the log (see `cell`); 52 bytes are sled's headers, 24 an entry's key and lengths.
    assert!(20 * (cell::VALUE_BYTES_MAX + 24) + 52 < SLED_SEGMENT_BYTES / 4);
    // A frame's head is always readable from its first chunk.
    assert!(FrameHead::BYTES_MAX < CHUNK_DATA_BYTES_MAX);
};
