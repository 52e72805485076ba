//! Opens a segment whatever its state: as it is, with sled's help, or rebuilt from what its file still holds.
//! Loses only what is damaged, and never lets sled near a file it might clear before that file was copied or checked.
//!
//! ```text
//! sealed, checksum right  → open with sled
//! anything else           → copy the file, list what is in it, open with sled, list again
//!     sled has it all     → go on with it
//!     sled has less, refuses or panics → write what is intact into a new segment, set the damaged one aside
//! ```

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::cell::Kind;
use crate::contents::{FrameInfo, MarkAt, Settled, settle};
use crate::disk::{self, KEPT_FILE, Seal, segment_name};
use crate::fault::Fault;
use crate::raw::RawFile;
use crate::record::{Ledger, Start};
use crate::segment::{DB_FILE, MARKS_ALONE_MAX, Segment};
use crate::types::Repair;

/// Damaged segments kept for inspection; the one with the lowest seq goes first.
pub(crate) const BAD_KEPT_MAX: usize = 4;

/// A segment file this small holds nothing that was ever acknowledged: sled's empty database takes a few hundred bytes.
const UNFINISHED_BYTES_MAX: u64 = 16 * 1024;

/// What the caller knows of the segment to load.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ask {
    pub first_seq: u64,
    /// Nothing at or above this seq belongs to the segment.
    pub end_max: Option<u64>,
    /// Frames below this seq were acknowledged (see [`settle`]).
    pub acknowledged_below: u64,
    /// List the contents even if the seal vouches for them.
    pub list: bool,
    /// Do not believe the seal: reading went wrong.
    pub distrust: bool,
    /// Copy the file aside before opening it, if it may be damaged. Only left out when the disk has no room at all.
    pub copy: bool,
    /// Something in the segment is known to have been acknowledged.
    pub used: bool,
}

/// What became of a segment.
#[derive(Debug)]
pub(crate) enum Found {
    /// It is open.
    Open(Loaded),
    /// Its creation was interrupted; nothing was ever in it.
    Unfinished,
    /// Nothing in it could be saved; it was set aside.
    Gone(Repair),
}

/// An opened segment.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub segment: Segment,
    /// What counts of its contents; `None` if they were not listed because the seal vouches for them.
    pub settled: Option<Box<Settled>>,
    /// Set if it had to be rebuilt.
    pub repair: Option<Repair>,
}

/// Opens the segment `ask` is about, in the spool at `spool_dir`. [`Fault::Io`] means the disk refused, and that nothing
/// was changed.
pub(crate) fn load(spool_dir: &Path, ask: Ask) -> Result<Found, Fault> {
    let dir = spool_dir.join(segment_name(ask.first_seq));
    if fs::symlink_metadata(&dir).is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
        let reason = "its directory is gone".to_owned();
        let repair = Repair {
            first_seq: ask.first_seq,
            reason,
            quarantined: None,
            saved_frames: 0,
        };
        return Ok(Found::Gone(repair));
    }
    if !dir.is_dir() {
        return Ok(Found::Gone(set_aside(
            spool_dir,
            &dir,
            ask.first_seq,
            "it is not a directory".to_owned(),
        )?));
    }
    disk::remove(&dir.join(KEPT_FILE))?;
    let trusted = !ask.distrust && Seal::read(&dir).is_some_and(|seal| seal.matches(&dir));
    if trusted {
        match open_and_list(&dir, &ask, ask.list) {
            Ok((segment, settled)) => {
                return Ok(Found::Open(Loaded {
                    segment,
                    settled,
                    repair: None,
                }));
            }
            Err(Fault::Io(error)) => return Err(Fault::Io(error)),
            Err(Fault::Damaged(reason)) => {
                let raw = RawFile::scan(&dir.join(DB_FILE)).ok();
                return rescue(spool_dir, &dir, &ask, raw, reason);
            }
        }
    }

    let kept = if ask.copy { keep_copy(&dir) } else { None };
    let raw = RawFile::scan(kept.as_deref().unwrap_or(&dir.join(DB_FILE))).ok();
    let found = raw.as_ref().filter(|raw| !raw.is_empty());
    let Some(found) = found else {
        let bytes = fs::metadata(dir.join(DB_FILE)).map_or(0, |metadata| metadata.len());
        if !ask.used && bytes <= UNFINISHED_BYTES_MAX {
            return Ok(Found::Unfinished);
        }
        return rescue(spool_dir, &dir, &ask, None, "nothing in it is intact".to_owned());
    };
    let wanted = settle(found.contents(), ask.first_seq, ask.end_max, ask.acknowledged_below);
    let reason = match open_and_list(&dir, &ask, true) {
        Ok((segment, Some(settled))) if has_all(&settled, &wanted) => {
            disk::remove(&dir.join(KEPT_FILE))?;
            return Ok(Found::Open(Loaded {
                segment,
                settled: Some(settled),
                repair: None,
            }));
        }
        Ok(_) => "sled no longer finds everything that is intact in its file".to_owned(),
        Err(Fault::Io(error)) => {
            disk::remove(&dir.join(KEPT_FILE))?;
            return Err(Fault::Io(error));
        }
        Err(Fault::Damaged(reason)) => reason,
    };
    rescue(spool_dir, &dir, &ask, raw, reason)
}

fn open_and_list(dir: &Path, ask: &Ask, list: bool) -> Result<(Segment, Option<Box<Settled>>), Fault> {
    let segment = Segment::open(dir, ask.first_seq)?;
    if !list {
        return Ok((segment, None));
    }
    let settled = settle(segment.contents()?, ask.first_seq, ask.end_max, ask.acknowledged_below);
    Ok((segment, Some(Box::new(settled))))
}

/// Copies the database file aside. Without room for it we go on without: it only matters if there is damage.
fn keep_copy(dir: &Path) -> Option<PathBuf> {
    let kept = dir.join(KEPT_FILE);
    match fs::copy(dir.join(DB_FILE), &kept) {
        Ok(_) => Some(kept),
        Err(error) => {
            tracing::debug!(segment = %dir.display(), %error, "no copy of the segment could be made before opening it");
            let _partial = disk::remove(&kept);
            None
        }
    }
}

/// True if sled gives at least what the file holds.
fn has_all(got: &Settled, wanted: &Settled) -> bool {
    let key = |frame: &FrameInfo| (frame.seq, frame.stamp);
    let mut have = got.frames.iter().map(key);
    let frames = wanted
        .frames
        .iter()
        .map(key)
        .all(|frame| have.any(|other| other == frame));
    let newest = |settled: &Settled| settled.marks.last().and_then(MarkAt::root_seq);
    frames && newest(got) >= newest(wanted) && (got.start.is_some() || wanted.start.is_none())
}

fn rescue(spool_dir: &Path, dir: &Path, ask: &Ask, raw: Option<RawFile>, reason: String) -> Result<Found, Fault> {
    let Some(raw) = raw else {
        return Ok(Found::Gone(set_aside(spool_dir, dir, ask.first_seq, reason)?));
    };
    let wanted = settle(raw.contents(), ask.first_seq, ask.end_max, ask.acknowledged_below);
    if wanted.frames.is_empty() && wanted.start.is_none() {
        return Ok(Found::Gone(set_aside(spool_dir, dir, ask.first_seq, reason)?));
    }
    let new = spool_dir.join(format!("new.{}", segment_name(ask.first_seq)));
    disk::remove(&new)?;
    rebuild(&new, &raw, &wanted).inspect_err(|_| drop(disk::remove(&new)))?;
    let mut repair = set_aside(spool_dir, dir, ask.first_seq, reason)?;
    repair.saved_frames = wanted.frames.len() as u64;
    fs::rename(&new, dir)?;
    disk::sync_dir(spool_dir)?;
    let segment = Segment::open(dir, ask.first_seq)?;
    Ok(Found::Open(Loaded {
        segment,
        settled: Some(Box::new(wanted)),
        repair: Some(repair),
    }))
}

/// Writes what counts into a new segment, all under one stamp: what was stale is not taken along.
fn rebuild(new: &Path, raw: &RawFile, wanted: &Settled) -> Result<(), Fault> {
    let stamp = wanted.stamp_max;
    // If the start is lost, its ledger is too: the caller settles that with the other segments' help.
    let unknown = Start {
        before: wanted.before,
        ledger: Ledger::default(),
        mark: None,
    };
    let start = wanted.start.as_ref().unwrap_or(&unknown);
    let mut segment = Segment::create(new, wanted.first_seq, stamp, start)?;
    let cells = raw.frame_cells();
    for frame in &wanted.frames {
        let payload = cells.get(&(frame.seq, frame.stamp)).and_then(|cell| raw.payload(cell));
        let payload =
            payload.ok_or_else(|| Fault::Io(io::Error::other("the damaged file changes while it is read")))?;
        segment.put_frame(frame.seq, stamp, &payload)?;
    }
    let copied_from_start = usize::from(wanted.start.is_some());
    let alone: Vec<_> = wanted.marks[copied_from_start..]
        .iter()
        .filter_map(|mark| {
            if let MarkAt::Alone(record) = mark {
                Some(record)
            } else {
                None
            }
        })
        .collect();
    let recent = alone.len().saturating_sub(usize::from(MARKS_ALONE_MAX));
    for (slot, record) in (0..).zip(&alone[recent..]) {
        segment.put_mark(slot, stamp, record)?;
    }
    if let Some(ledger) = &wanted.ledger {
        let mut payload = Vec::new();
        ledger.write(&mut payload);
        segment.put_meta(Kind::Ledger, 0, ledger.floor, stamp, &payload)?;
    }
    segment.finish_creation()
}

/// Renames a damaged segment to `bad.<segment>.<n>`, with its original file where a copy was kept.
fn set_aside(spool_dir: &Path, dir: &Path, first_seq: u64, reason: String) -> Result<Repair, Fault> {
    let bad = disk::free_name(spool_dir, &format!("bad.{}", segment_name(first_seq)));
    fs::rename(dir, &bad)?;
    if bad.join(KEPT_FILE).is_file() {
        fs::rename(bad.join(KEPT_FILE), bad.join(DB_FILE))?;
    }
    disk::sync_dir(spool_dir)?;
    tracing::warn!(segment = first_seq, reason, quarantined = %bad.display(), "damaged spool segment set aside");
    prune(spool_dir)?;
    let quarantined = bad.exists().then_some(bad);
    Ok(Repair {
        first_seq,
        reason,
        quarantined,
        saved_frames: 0,
    })
}

fn prune(spool_dir: &Path) -> io::Result<()> {
    let bad = disk::Listing::read(spool_dir)?.bad;
    let surplus = bad.len().saturating_sub(BAD_KEPT_MAX);
    bad[..surplus].iter().try_for_each(|path| disk::remove(path))
}
