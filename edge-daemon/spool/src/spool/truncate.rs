//! Rolling back the newest groups, for when a crash came between the appends of two streams of one pipe.

use super::open::{middle, read_mark};
use super::{Spool, disk_error, in_segment};
use crate::contents::{FrameInfo, Settled, settle};
use crate::disk::Seal;
use crate::error::Error;
use crate::fault::Fault;
use crate::record::Counters;
use crate::recover::{Found, Loaded};
use crate::segment::Segment;
use crate::types::{Mark, WayBack};

impl Spool {
    /// What [`Self::truncate_after`] would do. Changes nothing but what reading changes.
    pub fn way_back(&mut self, root_seq: u64) -> Result<WayBack, Error> {
        let newest = self.mark.as_ref().map_or(0, |mark| mark.root_seq);
        if newest <= root_seq {
            return Ok(WayBack::Whole(newest));
        }
        let target = match self.find_cut(root_seq) {
            Ok(target) => target,
            Err(Error::TruncateTooFar { .. }) => return Ok(WayBack::Barred),
            Err(error) => return Err(error),
        };
        if target.after_seq < self.barred_below() {
            return Ok(WayBack::Barred);
        }
        let found = target.mark.map_or(0, |mark| mark.root_seq);
        Ok(if target.is_torn && found < root_seq {
            WayBack::Further(found)
        } else {
            WayBack::Whole(found)
        })
    }

    /// Nothing up to this seq can be taken back: it was settled, or given up and maybe told.
    fn barred_below(&self) -> u64 {
        let given_up = self.ledger.dropped_ahead.last().map_or(0, |range| range.last_seq);
        self.ledger.floor.max(given_up)
    }

    /// Removes every group whose mark's root seq is above `root_seq`; durable when it returns. Gives the number of
    /// frames removed; their seqs will be used again, so none of them may have been sent.
    ///
    /// The mark may end up older than asked, since of marks without frames only some are kept, and after damage frames that
    /// belong to what was asked may go too: [`Self::way_back`] tells beforehand.
    pub fn truncate_after(&mut self, root_seq: u64) -> Result<u64, Error> {
        if self.mark.as_ref().is_none_or(|mark| mark.root_seq <= root_seq) {
            return Ok(0);
        }
        self.make_writable()?;
        let target = self.find_cut(root_seq)?;
        if target.after_seq < self.barred_below() {
            let oldest = target.mark.map(|mark| mark.root_seq);
            return Err(Error::TruncateTooFar { root_seq, oldest });
        }
        let removed = self.produced.minus(target.amounts).frames;
        crash_point::at!(SpoolTruncateBefore);
        // The hint goes first: were it left ahead of the truth, the next open would take the cut for damage.
        (self.next_seq, self.produced, self.mark) = (target.after_seq + 1, target.amounts, target.mark);
        self.write_high();
        self.high
            .sync()
            .map_err(disk_error("make durable a file in", &self.dir))?;
        crash_point::at!(SpoolTruncateAfterHint);
        // From the newest back, so that a crash in between leaves a shorter stream, never one with a gap.
        let newer: Vec<u64> = self
            .segments
            .range(target.first_seq + 1..)
            .rev()
            .map(|(first_seq, _)| *first_seq)
            .collect();
        if !newer.is_empty() {
            self.hand_ledger_to(target.first_seq)?;
            self.retire(&newer);
        }
        let next_seq = self.next_seq;
        self.holes.retain(|first_seq, _| *first_seq < next_seq);
        self.recent.retain(|seq, _| *seq < next_seq);
        self.cut_pending = true;
        self.make_writable()?;
        crash_point::at!(SpoolTruncateAfterCut);
        self.measure();
        Ok(removed)
    }

    /// Stores the ledger in the segment that is to be the tail, before the newer ones that have it are removed.
    fn hand_ledger_to(&mut self, first_seq: u64) -> Result<(), Error> {
        let dir = self.segment_dir(first_seq);
        Seal::remove(&dir).map_err(disk_error("unseal the spool's segment", &dir))?;
        if self.open_for_reading(first_seq)?
            && let Some(head) = &mut self.head
        {
            let stored = head.put_ledger(self.stamp, &self.ledger).and_then(|()| head.sync());
            stored.map_err(|fault| in_segment("write to the spool's segment", &dir, fault))?;
        }
        self.head = None;
        self.ledger_dirty = false;
        Ok(())
    }

    /// Finds the newest mark that is not above `root_seq`, going back through the segments.
    fn find_cut(&mut self, root_seq: u64) -> Result<Cut, Error> {
        let mut oldest = None;
        let mut newer = None;
        self.close_head();
        let firsts: Vec<u64> = self.segments.keys().rev().copied().collect();
        for first_seq in firsts {
            let Some(meta) = self.segments.get(&first_seq).copied() else {
                continue;
            };
            let ((end_seq, end), is_tail) = (self.end_of(first_seq, &meta), first_seq == self.tail_first());
            let cut = if is_tail {
                let settled = self.list_tail(end_seq)?;
                match &self.tail {
                    Some(tail) => cut_in(tail, &settled, root_seq, &mut oldest, &mut newer)?,
                    None => None,
                }
            } else {
                match self.load(middle(first_seq, end_seq, true))? {
                    Found::Open(Loaded {
                        segment,
                        settled: Some(settled),
                        repair,
                    }) => {
                        if repair.is_some() {
                            self.set_holes(first_seq, meta.before, &settled.frames, end_seq, end);
                        }
                        self.note_repair(repair);
                        cut_in(&segment, &settled, root_seq, &mut oldest, &mut newer)?
                    }
                    Found::Gone(repair) => {
                        self.forget(first_seq);
                        self.note_repair(Some(repair));
                        None
                    }
                    Found::Open(_) | Found::Unfinished => None,
                }
            };
            if let Some(mut cut) = cut {
                // Of what was cut off nothing may be left to look at.
                cut.is_torn |= newer.is_none() && self.produced.frames > cut.amounts.frames;
                return Ok(cut);
            }
        }
        Err(Error::TruncateTooFar { root_seq, oldest })
    }

    fn list_tail(&mut self, end_seq: u64) -> Result<Settled, Error> {
        let tail = self.open_tail()?;
        let contents = tail
            .contents()
            .map_err(|fault| in_segment("read the spool's segment", tail.dir(), fault))?;
        Ok(settle(contents, tail.first_seq, Some(end_seq), u64::MAX))
    }

    /// Runs something on the segment that begins at `first_seq`; `None` if nothing of it could be saved.
    pub(super) fn with_segment<T>(
        &mut self,
        first_seq: u64,
        run: impl FnOnce(&Segment) -> Result<T, Fault>,
    ) -> Result<Option<T>, Error> {
        if !self.open_for_reading(first_seq)? {
            return Ok(None);
        }
        let is_tail = first_seq == self.tail_first();
        let Some(segment) = (if is_tail {
            self.tail.as_ref()
        } else {
            self.head.as_ref()
        }) else {
            return Ok(None);
        };
        run(segment)
            .map(Some)
            .map_err(|fault| in_segment("read the spool's segment", segment.dir(), fault))
    }
}

/// Where to cut.
struct Cut {
    /// Segment that becomes the tail.
    first_seq: u64,
    after_seq: u64,
    amounts: Counters,
    mark: Option<Mark>,
    /// The first group behind it is not whole: what is missing of it may have held a mark that is nearer to what was asked.
    is_torn: bool,
}

/// The first group of some frames.
#[derive(Debug, Clone, Copy)]
struct FirstGroup {
    /// Frames before it, since the stream began.
    frames_before: u64,
    /// All of it is there, up to the frame with its mark.
    is_whole: bool,
}

/// The group that begins with the first of these frames.
fn first_group(frames: &[FrameInfo]) -> Option<FirstGroup> {
    let first = frames.first()?;
    let mut amounts = first.head.before;
    let mut is_whole = false;
    for frame in frames {
        if frame.head.before != amounts {
            break;
        }
        amounts = frame.after();
        if frame.head.root_seq.is_some() {
            is_whole = true;
            break;
        }
    }
    Some(FirstGroup {
        frames_before: first.head.before.frames,
        is_whole,
    })
}

/// Where to cut in a segment. `newer` is the first group of the segments behind it, and becomes that of this one too.
fn cut_in(
    segment: &Segment,
    settled: &Settled,
    root_seq: u64,
    oldest: &mut Option<u64>,
    newer: &mut Option<FirstGroup>,
) -> Result<Option<Cut>, Error> {
    *oldest = settled.marks.iter().find_map(|mark| mark.root_seq()).or(*oldest);
    let Some(at) = settled
        .marks
        .iter()
        .rev()
        .find(|mark| mark.root_seq().is_none_or(|found| found <= root_seq))
    else {
        *newer = first_group(&settled.frames).or(*newer);
        return Ok(None);
    };
    let (after_seq, amounts) = (at.after_seq(), settled.amounts_at(at.after_seq()));
    let behind = settled.frames.partition_point(|frame| frame.seq <= after_seq);
    *newer = first_group(&settled.frames[behind..]).or(*newer);
    Ok(Some(Cut {
        first_seq: settled.first_seq,
        after_seq,
        amounts,
        is_torn: newer.is_some_and(|group| !group.is_whole || group.frames_before > amounts.frames),
        mark: read_mark(segment, Some(at))?,
    }))
}
