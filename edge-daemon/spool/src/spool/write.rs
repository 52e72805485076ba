//! Appending groups, and beginning a new segment when one is full.

use std::ops::Range;

use super::{Spool, in_segment};
use crate::budget::Full;
use crate::disk;
use crate::error::Error;
use crate::fault::Fault;
use crate::record::{Counters, FrameHead, MarkRecord};
use crate::types::{Frame, Group, Mark};
use crate::{FRAME_BYTES_MAX, FRAMES_PER_SEGMENT_MAX, POSITION_BYTES_MAX};

/// Disk bytes per 10 payload bytes: measured 23 to 27, depending on the size of the frames.
const DISK_BYTES_PER_TEN: u64 = 27;

/// What a frame takes beside its payload, bytes.
const FRAME_OVERHEAD_BYTES: u64 = 96;

/// Kept free below the quota, bytes: what a new segment takes before it holds anything, and what opening one for reading
/// adds. It also lets marks without frames be stored when the spool is full.
const RESERVE_BYTES: u64 = 2 * 1024 * 1024;

/// A segment whose file has grown to this many times its payload limit is full, whatever it holds (many marks).
const FILE_GROWTH_MAX: u64 = 4;

const APPEND: &str = "write to the spool's segment";

impl Spool {
    /// Appends one group: its frames get the seqs that are returned, and they are durable, together with `mark`, when
    /// this returns. Without frames only the mark is stored; that works even when the spool is full.
    ///
    /// After any error nothing of the group is in the spool.
    pub fn append(&mut self, frames: &[Frame<'_>], mark: &Mark) -> Result<Range<u64>, Error> {
        self.append_groups(&[Group { frames, mark }])
    }

    /// Appends several groups, with one fsync for every 96 KiB. All of them are in, or after an error none; a kill in
    /// between may leave some of the first groups, each of them whole.
    pub fn append_groups(&mut self, groups: &[Group<'_>]) -> Result<Range<u64>, Error> {
        let last = self.mark.as_ref().map(|mark| mark.root_seq);
        let needed_bytes = check(groups, last)?;
        self.append_checked(groups, needed_bytes)
    }

    /// Appends frames that belong to what was read as of the newest mark, whose position becomes `position`: its root seq
    /// stays. A roll-back to that root seq keeps them. There must be a mark.
    pub fn add(&mut self, frames: &[Frame<'_>], position: Vec<u8>) -> Result<Range<u64>, Error> {
        let Some(root_seq) = self.mark.as_ref().map(|mark| mark.root_seq) else {
            return Err(Error::MarkOrder { last: 0, got: 0 });
        };
        let mark = &Mark { root_seq, position };
        let groups = [Group { frames, mark }];
        let needed_bytes = check(&groups, None)?;
        self.append_checked(&groups, needed_bytes)
    }

    fn append_checked(&mut self, groups: &[Group<'_>], needed_bytes: u64) -> Result<Range<u64>, Error> {
        match self.append_once(groups, needed_bytes) {
            // A mark has to fit on a full disk.
            Err(error) if needed_bytes == 0 && error.is_disk_full() && self.drop_ballast() => {
                self.append_once(groups, needed_bytes)
            }
            Ok(seqs) if needed_bytes > 0 && !self.ballast => {
                self.ballast = disk::put_ballast(&self.dir);
                Ok(seqs)
            }
            other => other,
        }
    }

    fn append_once(&mut self, groups: &[Group<'_>], needed_bytes: u64) -> Result<Range<u64>, Error> {
        self.make_writable()?;
        if needed_bytes > 0 {
            self.find_room(needed_bytes).map_err(|limit| Error::Full {
                dir: self.dir.clone(),
                needed_bytes,
                limit,
            })?;
        }
        let before = (self.next_seq, self.produced, self.mark.clone());
        let tail_first = self.tail_first();
        if let Err(error) = self.write_groups(groups) {
            (self.next_seq, self.produced, self.mark) = before;
            self.recent.split_off(&self.next_seq);
            self.undo_to(tail_first);
            self.share.settle(self.disk_bytes());
            return Err(error);
        }
        self.share.settle(self.disk_bytes());
        self.ledger_dirty = false;
        if !groups.is_empty() {
            self.lost_root = 0;
        }
        crash_point::at!(SpoolAppendAfterSync);
        self.write_high();
        Ok(before.0..self.next_seq)
    }

    /// Whether the spool's own quota and what it shares with others leave room for an append.
    fn find_room(&mut self, needed_bytes: u64) -> Result<(), Full> {
        let (used_bytes, quota_bytes) = (self.disk_bytes(), self.limits.quota_bytes);
        if used_bytes + needed_bytes + RESERVE_BYTES > quota_bytes {
            return Err(Full::Spool {
                used_bytes,
                quota_bytes,
            });
        }
        let owed_bytes = if self.ballast { 0 } else { disk::BALLAST_BYTES };
        self.share.reserve(&self.dir, used_bytes, needed_bytes, owed_bytes)
    }

    fn write_groups(&mut self, groups: &[Group<'_>]) -> Result<(), Error> {
        crash_point::at!(SpoolAppendBeforeWrite);
        if self.ledger_dirty {
            let (stamp, ledger) = (self.stamp, self.ledger.clone());
            self.on_tail(APPEND, |tail| tail.put_ledger(stamp, &ledger))?;
        }
        for group in groups {
            if !group.frames.is_empty() {
                self.roll_if_full(group.frames.len() as u64)?;
                self.write_frames(group)?;
            } else {
                // Each of them, though the next one supersedes it: a roll-back may end here, and find its account.
                let (slot, stamp) = (self.next_mark_slot(), self.stamp);
                let record = MarkRecord {
                    after_seq: self.next_seq - 1,
                    mark: Some(group.mark.clone()),
                };
                self.on_tail(APPEND, |tail| tail.put_mark(slot, stamp, &record))?;
            }
            self.mark = Some(group.mark.clone());
        }
        crash_point::at!(SpoolAppendBeforeSync);
        self.on_tail(APPEND, |tail| tail.sync())
    }

    fn write_frames(&mut self, group: &Group<'_>) -> Result<(), Error> {
        let (mut seq, mut amounts, stamp) = (self.next_seq, self.produced, self.stamp);
        let mut written = Vec::with_capacity(group.frames.len());
        self.on_tail(APPEND, |tail| {
            for (index, frame) in group.frames.iter().enumerate() {
                let mark = (index + 1 == group.frames.len()).then_some(group.mark);
                let payload = FrameHead::encode(frame.bytes, frame.records, amounts, mark);
                tail.put_frame(seq, stamp, &payload)?;
                seq += 1;
                amounts = amounts.plus(1, frame.records, frame.bytes.len() as u64);
                written.push((seq - 1, amounts));
            }
            Ok::<(), Fault>(())
        })?;
        self.remember(written);
        (self.next_seq, self.produced) = (seq, amounts);
        Ok(())
    }

    /// Begins a new segment if the tail is full, or would hold too many frames.
    fn roll_if_full(&mut self, frames: u64) -> Result<(), Error> {
        let first_seq = self.tail_first();
        let before = self.segments.get(&first_seq).map_or(self.produced, |meta| meta.before);
        let file_bytes = self.tail.as_ref().map_or(0, |tail| tail.db_bytes());
        let full = self.produced.minus(before).bytes >= self.limits.segment_bytes
            || self.next_seq + frames - first_seq > FRAMES_PER_SEGMENT_MAX
            || file_bytes > self.limits.segment_bytes * FILE_GROWTH_MAX;
        // A segment without frames has the name the next one would get.
        if full && self.next_seq > first_seq {
            self.roll()
        } else {
            Ok(())
        }
    }

    /// Begins a new segment at the next seq.
    pub(super) fn roll(&mut self) -> Result<(), Error> {
        self.roll_to(self.next_seq, self.produced)
    }

    /// Begins a new segment at `seq`, before which `amounts` were produced; seqs in between are never used.
    pub(super) fn roll_to(&mut self, seq: u64, amounts: Counters) -> Result<(), Error> {
        let old = self.segments.last_key_value().map(|(first_seq, _)| *first_seq);
        if let Some(first_seq) = old {
            self.make_writable()?;
            let tail = self.open_tail()?;
            tail.sync().map_err(|fault| in_segment(APPEND, tail.dir(), fault))?;
            self.close_meta(first_seq, (self.next_seq, self.produced));
        }
        let old_end = (self.next_seq, self.produced);
        let old_tail = self.tail.take();
        (self.next_seq, self.produced) = (seq, amounts);
        if let Err(error) = self.create_tail() {
            (self.next_seq, self.produced) = old_end;
            self.tail = old_tail;
            return Err(error);
        }
        match (old, old_tail) {
            (Some(first_seq), old_tail) if old_end.0 == first_seq => {
                drop(old_tail);
                self.retire(&[first_seq]);
            }
            (Some(first_seq), Some(old_tail)) => {
                self.seal(old_tail);
                self.remeasure(first_seq);
            }
            _ => {}
        }
        Ok(())
    }

    fn close_meta(&mut self, first_seq: u64, (end_seq, end): (u64, Counters)) {
        if let Some(meta) = self.segments.get_mut(&first_seq) {
            (meta.end_seq, meta.end) = (end_seq, end);
        }
    }

    /// Takes back segments begun by an append that failed. What it left in the older tail is cut off before the next
    /// one.
    fn undo_to(&mut self, tail_first: u64) {
        let begun: Vec<u64> = self
            .segments
            .range(tail_first + 1..)
            .map(|(first_seq, _)| *first_seq)
            .collect();
        if !begun.is_empty() {
            self.retire(&begun);
        }
        self.tail = None;
        self.cut_pending = true;
    }
}

/// Checks what does not depend on the disk; gives the bytes the groups will about take on it.
/// Root seqs have to rise from `last` on.
fn check(groups: &[Group<'_>], mut last: Option<u64>) -> Result<u64, Error> {
    let mut bytes = 0;
    for group in groups {
        let got = group.mark.root_seq;
        if let Some(last) = last.filter(|last| got <= *last) {
            return Err(Error::MarkOrder { last, got });
        }
        last = Some(got);
        fits(
            "a position",
            group.mark.position.len() as u64,
            POSITION_BYTES_MAX as u64,
        )?;
        fits("a group of frames", group.frames.len() as u64, FRAMES_PER_SEGMENT_MAX)?;
        for frame in group.frames {
            fits("a frame", frame.bytes.len() as u64, FRAME_BYTES_MAX as u64)?;
            bytes += frame.bytes.len() as u64 + FRAME_OVERHEAD_BYTES;
        }
        if !group.frames.is_empty() {
            bytes += group.mark.position.len() as u64;
        }
    }
    Ok(bytes * DISK_BYTES_PER_TEN / 10)
}

fn fits(what: &'static str, size: u64, max: u64) -> Result<(), Error> {
    if size > max {
        Err(Error::TooLarge { what, size, max })
    } else {
        Ok(())
    }
}
