//! The stream across its segments: opening, state, and the bookkeeping the other parts share.
//! Appending is in `write`, reading in `read`, giving up frames in `settle`, rolling back in `truncate`.

mod open;
mod read;
mod settle;
mod truncate;
mod write;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use crate::budget::Share;
use crate::contents::{FrameInfo, hole_between, holes_in};
use crate::disk::{self, BALLAST_BYTES, High, HighFile, Seal, segment_name};
use crate::error::Error;
use crate::fault::Fault;
use crate::record::{Counters, Ledger, MarkRecord, Start};
use crate::recover::{Ask, Found, Loaded, load};
use crate::segment::{MARKS_ALONE_MAX, Segment};
use crate::types::{Hole, Limits, Mark, Repair, State};

/// Bytes of a segment's directory beside its database file, about.
const SEGMENT_FILES_BYTES: u64 = 4 * 1024;

/// Frames lately written or read whose amounts are remembered, so that a watermark on them costs no look-up.
const RECENT_MAX: usize = 2048;

/// Store-and-forward for one stream; see the [crate's front page](crate).
#[derive(Debug)]
pub struct Spool {
    dir: PathBuf,
    limits: Limits,
    share: Share,
    /// The ballast is there.
    ballast: bool,
    high: HighFile,
    /// Every segment by first seq. The last one is the tail, which is appended to.
    segments: BTreeMap<u64, Meta>,
    /// Open unless an error made us let go of it.
    tail: Option<Segment>,
    /// The segment being read, if that is not the tail.
    head: Option<Segment>,
    next_seq: u64,
    produced: Counters,
    mark: Option<Mark>,
    /// The newest root seq that was acknowledged and is lost; 0 once something newer has been appended. The hint keeps it: a
    /// crash before that must not make the next open believe that nothing is missing.
    lost_root: u64,
    ledger: Ledger,
    /// The ledger in memory is newer than the one stored.
    ledger_dirty: bool,
    /// Rises at every open and roll-back; see [`crate::cell::CellId::stamp`].
    stamp: u32,
    mark_slot: u8,
    /// The tail may hold more than `next_seq` and `mark` admit: a cut must be stored before anything else.
    cut_pending: bool,
    /// Above the floor, by first seq.
    holes: BTreeMap<u64, Hole>,
    /// Amounts up to and including frames lately written or read.
    recent: BTreeMap<u64, Counters>,
    repairs: Vec<Repair>,
    /// First seqs of delivered segments of which the seal is left, because the stored ledger does not know of them.
    spent: Vec<u64>,
    /// Bytes of all closed segments.
    closed_bytes: u64,
    /// Bytes of everything that is not a segment.
    other_bytes: u64,
    quarantined: u64,
    /// Released last, when everything else is closed.
    _lock: File,
}

/// What is known of a segment while it is closed. For the tail only `before` counts.
#[derive(Debug, Clone, Copy)]
struct Meta {
    before: Counters,
    end_seq: u64,
    end: Counters,
    disk_bytes: u64,
}

impl Spool {
    /// Where the spool stands.
    pub fn state(&self) -> State {
        let lost_ahead = self.holes.values().fold(Counters::default(), plus_hole);
        let dropped_ahead = self.ledger.ahead();
        let held = self.produced.minus(self.ledger.settled);
        let held = held.minus(lost_ahead).minus(dropped_ahead);
        State {
            first_seq: self.first_held(),
            next_seq: self.next_seq,
            watermark_seq: self.ledger.watermark,
            mark: self.mark.clone(),
            produced_records: self.produced.records,
            delivered_records: self.ledger.delivered,
            dropped_records: self.ledger.dropped + dropped_ahead.records,
            lost_records: self.ledger.lost + lost_ahead.records,
            held_records: held.records,
            held_frames: held.frames,
            held_payload_bytes: held.bytes,
            disk_bytes: self.disk_bytes(),
            segments: self.segments.len() as u64,
            quarantined: self.quarantined,
        }
    }

    /// Frames lost to damage above the watermark, in order. Reading skips them, and those given up by
    /// [`Self::drop_oldest`]; the consumer is to be told ([`Self::missing`]).
    pub fn holes(&self) -> Vec<Hole> {
        self.holes.values().copied().collect()
    }

    /// Segments found damaged since the last call, beginning with those found when opening.
    pub fn take_repairs(&mut self) -> Vec<Repair> {
        std::mem::take(&mut self.repairs)
    }

    /// Stores what is only in memory (the watermark) and seals the open segments, so that the next open is quick.
    /// Dropping the spool does the same, but has no way to report an error.
    pub fn close(mut self) -> Result<(), Error> {
        self.shut()
    }

    fn shut(&mut self) -> Result<(), Error> {
        let stored = if self.tail.is_some() && self.ledger_dirty {
            self.store_ledger()
        } else {
            Ok(())
        };
        self.recent.clear();
        if let Some(head) = self.head.take() {
            self.seal(head);
        }
        if let Some(tail) = self.tail.take()
            && stored.is_ok()
            && !self.cut_pending
        {
            self.seal(tail);
        }
        stored
    }

    /// Closes a segment and seals it. A seal that cannot be written is no error: the next open looks more closely.
    fn seal(&self, segment: Segment) {
        let (first_seq, dir) = (segment.first_seq, segment.dir().to_owned());
        drop(segment);
        let Some(meta) = self.segments.get(&first_seq) else {
            return;
        };
        let (end_seq, end) = self.end_of(first_seq, meta);
        let holes = self
            .holes
            .range(first_seq..end_seq.max(first_seq))
            .map(|(_, hole)| *hole)
            .collect();
        crash_point::at!(SpoolSealBefore);
        if let Err(error) = Seal::write(&dir, meta.before, end_seq, end, holes) {
            tracing::debug!(segment = first_seq, %error, "segment not sealed");
        }
        crash_point::at!(SpoolSealAfter);
    }

    fn end_of(&self, first_seq: u64, meta: &Meta) -> (u64, Counters) {
        if first_seq == self.tail_first() {
            (self.next_seq, self.produced)
        } else {
            (meta.end_seq, meta.end)
        }
    }

    fn first_held(&self) -> u64 {
        let mut first = self.ledger.floor + 1;
        if let Some((_, last_seq)) = self.missing_around(first) {
            first = last_seq + 1;
        }
        first.min(self.next_seq)
    }

    fn tail_first(&self) -> u64 {
        self.segments
            .last_key_value()
            .map_or(self.next_seq, |(first_seq, _)| *first_seq)
    }

    fn segment_dir(&self, first_seq: u64) -> PathBuf {
        self.dir.join(segment_name(first_seq))
    }

    fn disk_bytes(&self) -> u64 {
        let tail = match &self.tail {
            Some(tail) => tail.db_bytes() + SEGMENT_FILES_BYTES,
            None => self.segments.last_key_value().map_or(0, |(_, meta)| meta.disk_bytes),
        };
        self.closed_bytes + tail + self.other_bytes
    }

    /// Measures again what no running total covers.
    fn measure(&mut self) {
        let tail_first = self.tail_first();
        self.closed_bytes = self
            .segments
            .iter()
            .filter(|(first, _)| **first != tail_first)
            .map(|(_, meta)| meta.disk_bytes)
            .sum();
        let bad = disk::Listing::read(&self.dir)
            .map(|listing| listing.bad)
            .unwrap_or_default();
        self.quarantined = bad.len() as u64;
        self.other_bytes = BALLAST_BYTES + bad.iter().map(|path| disk::bytes_below(path)).sum::<u64>();
        self.share.settle(self.disk_bytes());
    }

    fn write_high(&self) {
        let root_seq = self.mark.as_ref().map_or(0, |mark| mark.root_seq).max(self.lost_root);
        if let Err(error) = self.high.write(High {
            next_seq: self.next_seq,
            amounts: self.produced,
            root_seq,
        }) {
            tracing::debug!(spool = %self.dir.display(), %error, "high-water hint not written");
        }
    }

    /// Gives up the ballast, for what must work on a full disk. False if there was none.
    fn drop_ballast(&mut self) -> bool {
        self.ballast = false;
        let dropped = disk::drop_ballast(&self.dir);
        if dropped {
            tracing::warn!(spool = %self.dir.display(), "the disk is full: reserved space of the buffer given up");
        }
        dropped
    }

    /// Loads a segment; if the disk is full, the ballast is given up for it.
    fn load(&mut self, ask: Ask) -> Result<Found, Error> {
        let mut result = load(&self.dir, ask);
        if result.as_ref().is_err_and(Fault::is_disk_full) && self.drop_ballast() {
            result = load(&self.dir, Ask { copy: false, ..ask });
        }
        result.map_err(|fault| in_segment("open the spool's segment", &self.segment_dir(ask.first_seq), fault))
    }

    /// Opens the tail if an error made us let go of it. Does not write.
    fn open_tail(&mut self) -> Result<&mut Segment, Error> {
        if self.tail.is_none() {
            match self.segments.last_key_value().map(|(first_seq, _)| *first_seq) {
                Some(first_seq) => self.reopen_tail(first_seq, false)?,
                None => self.create_tail()?,
            }
        }
        match &mut self.tail {
            Some(tail) => Ok(tail),
            None => Err(in_segment(
                "open",
                &self.dir,
                Fault::Damaged("there is no tail".to_owned()),
            )),
        }
    }

    fn reopen_tail(&mut self, first_seq: u64, distrust: bool) -> Result<(), Error> {
        self.tail = None;
        let ask = Ask {
            first_seq,
            end_max: Some(self.next_seq),
            acknowledged_below: u64::MAX,
            list: true,
            distrust,
            copy: true,
            used: true,
        };
        let before = self.segments.get(&first_seq).map_or(self.produced, |meta| meta.before);
        match self.load(ask)? {
            Found::Open(Loaded {
                segment,
                settled,
                repair,
            }) => {
                let frames = settled.as_ref().map_or(&[][..], |settled| &settled.frames);
                self.set_holes(first_seq, before, frames, self.next_seq, self.produced);
                if let Some(settled) = settled {
                    self.stamp = self.stamp.max(settled.stamp_max.saturating_add(1));
                    self.mark_slot = settled.mark_slot;
                }
                self.cut_pending |= repair.is_some();
                self.note_repair(repair);
                Seal::remove(segment.dir()).map_err(disk_error("unseal", segment.dir()))?;
                self.tail = Some(segment);
            }
            Found::Unfinished => self.replace_tail(first_seq, before)?,
            Found::Gone(repair) => {
                self.note_repair(Some(repair));
                self.replace_tail(first_seq, before)?;
            }
        }
        Ok(())
    }

    /// Goes on with an empty tail where the old one could not be saved.
    fn replace_tail(&mut self, first_seq: u64, before: Counters) -> Result<(), Error> {
        self.segments.remove(&first_seq);
        self.set_holes(first_seq, before, &[], self.next_seq, self.produced);
        self.retire(&[first_seq]);
        self.create_tail()
    }

    /// Creates the segment that begins at `next_seq` and makes it the tail.
    fn create_tail(&mut self) -> Result<(), Error> {
        let first_seq = self.next_seq;
        let dir = self.segment_dir(first_seq);
        if fs::symlink_metadata(&dir).is_ok() {
            // Left over from a creation that failed half-way.
            self.retire(&[first_seq]);
        }
        let start = Start {
            before: self.produced,
            ledger: self.ledger.clone(),
            mark: self.mark.clone(),
        };
        let tail = Segment::create(&dir, first_seq, self.stamp, &start).map_err(|fault| {
            let _best_effort = disk::remove(&dir);
            in_segment("create the spool's segment", &dir, fault)
        })?;
        self.segments.insert(
            first_seq,
            Meta {
                before: self.produced,
                end_seq: first_seq,
                end: self.produced,
                disk_bytes: 0,
            },
        );
        self.tail = Some(tail);
        self.mark_slot = 0;
        self.cut_pending = false;
        self.ledger_dirty = false;
        self.measure();
        Ok(())
    }

    /// Opens the tail and stores a cut if one is pending: after this it holds what we say it holds.
    fn make_writable(&mut self) -> Result<(), Error> {
        self.open_tail()?;
        if self.cut_pending {
            self.stamp += 1;
            let record = MarkRecord {
                after_seq: self.next_seq - 1,
                mark: self.mark.clone(),
            };
            let slot = self.next_mark_slot();
            let stamp = self.stamp;
            self.on_tail("write to the spool's segment", |tail| {
                tail.put_mark(slot, stamp, &record)?;
                tail.sync()
            })?;
            self.cut_pending = false;
        }
        Ok(())
    }

    fn next_mark_slot(&mut self) -> u8 {
        let slot = self.mark_slot;
        self.mark_slot = (slot + 1) % MARKS_ALONE_MAX;
        slot
    }

    /// Runs something on the open tail; after an error the tail is let go of, since sled refuses everything from then
    /// on.
    fn on_tail<T>(
        &mut self,
        action: &'static str,
        run: impl FnOnce(&mut Segment) -> Result<T, Fault>,
    ) -> Result<T, Error> {
        let tail = self.open_tail()?;
        match run(tail) {
            Ok(value) => Ok(value),
            Err(fault) => {
                let error = in_segment(action, tail.dir(), fault);
                self.tail = None;
                self.cut_pending = true;
                Err(error)
            }
        }
    }

    fn note_repair(&mut self, repair: Option<Repair>) {
        if let Some(repair) = repair {
            self.repairs.push(repair);
            self.measure();
        }
    }

    /// Replaces the known holes of one segment.
    fn set_holes(&mut self, first_seq: u64, before: Counters, frames: &[FrameInfo], end_seq: u64, end: Counters) {
        self.holes.retain(|first, _| !(first_seq..end_seq).contains(first));
        let floor = self.ledger.floor;
        let (first_seq, before) = if first_seq > floor {
            (first_seq, before)
        } else {
            (floor + 1, self.ledger.settled)
        };
        let above = frames.partition_point(|frame| frame.seq <= floor);
        for hole in holes_in(first_seq, before, &frames[above..], end_seq, end) {
            self.add_hole(hole);
        }
    }

    /// Notes what is missing between two segments.
    fn add_gap(&mut self, next_seq: u64, amounts: Counters, found_seq: u64, found: Counters) {
        let Some(hole) = hole_between(next_seq, amounts, found_seq, found) else {
            return;
        };
        // What was dropped there was given up, not lost.
        let dropped = self.ledger.dropped_within(hole.first_seq, hole.last_seq);
        let lost = plus_hole(Counters::default(), &hole).minus(dropped);
        if lost.frames > 0 {
            self.add_hole(Hole {
                frames: lost.frames,
                records: lost.records,
                bytes: lost.bytes,
                ..hole
            });
        }
    }

    fn add_hole(&mut self, hole: Hole) {
        if hole.last_seq > self.ledger.floor {
            self.holes.insert(hole.first_seq, hole);
        }
    }

    /// Renames segments out of the way and removes them. What cannot be removed now is at the next open.
    fn retire(&mut self, first_seqs: &[u64]) {
        for first_seq in first_seqs {
            if self.head.as_ref().is_some_and(|head| head.first_seq == *first_seq) {
                self.head = None;
            }
            if self.tail.as_ref().is_some_and(|tail| tail.first_seq == *first_seq) {
                self.tail = None;
            }
            let dead = disk::free_name(&self.dir, "dead");
            let removed = fs::rename(self.segment_dir(*first_seq), &dead).and_then(|()| {
                crash_point::at!(SpoolRetireAfterRename);
                disk::remove(&dead)
            });
            crash_point::at!(SpoolRetireAfterRemove);
            if let Err(error) = removed
                && error.kind() != std::io::ErrorKind::NotFound
            {
                tracing::warn!(segment = first_seq, %error, "spool segment not removed");
            }
            self.segments.remove(first_seq);
        }
        self.ballast = disk::put_ballast(&self.dir);
        self.measure();
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        if let Err(error) = self.shut() {
            tracing::warn!(spool = %self.dir.display(), %error, "the spool's watermark could not be stored");
        }
    }
}

fn plus_hole(sum: Counters, hole: &Hole) -> Counters {
    sum.plus(hole.frames, hole.records, hole.bytes)
}

fn disk_error(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Disk { action, path, source }
}

fn in_segment(action: &'static str, path: &Path, fault: Fault) -> Error {
    match fault {
        Fault::Io(source) => Error::Disk {
            action,
            path: path.to_owned(),
            source,
        },
        Fault::Damaged(reason) => Error::Damaged {
            path: path.to_owned(),
            reason,
        },
    }
}
