//! Reading frames back, across segments, around damage.

use super::open::middle;
use super::{RECENT_MAX, Spool, in_segment};
use crate::disk::{self, Seal};
use crate::error::Error;
use crate::fault::Fault;
use crate::record::Counters;
use crate::recover::{Ask, Found, Loaded};
use crate::segment::ReadEnd;
use crate::types::Stored;

const READ: &str = "read the spool's segment";

impl Spool {
    /// Reads frames in order, beginning at `from_seq` or the oldest one held, whichever is higher, until `frames_max` or
    /// `bytes_max` is reached; at least one if there is any. Frames lost to damage are skipped: the seqs jump.
    pub fn read(&mut self, from_seq: u64, frames_max: usize, bytes_max: usize) -> Result<Vec<Stored>, Error> {
        let mut out = Vec::new();
        let mut from = from_seq.max(self.ledger.floor + 1);
        while from < self.next_seq && out.len() < frames_max {
            let Some((first_seq, end_seq)) = self.segment_at_or_after(from) else {
                break;
            };
            from = from.max(first_seq);
            match self.read_segment(first_seq, from..end_seq, frames_max, bytes_max, &mut out)? {
                ReadEnd::Limit => break,
                ReadEnd::Segment => from = end_seq,
            }
        }
        self.remember(out.iter().map(|stored| (stored.seq, stored.after)));
        Ok(out)
    }

    /// The segment that holds `seq`, or the next one that holds anything.
    fn segment_at_or_after(&self, seq: u64) -> Option<(u64, u64)> {
        let at = self
            .segments
            .range(..=seq)
            .next_back()
            .map(|(first_seq, _)| *first_seq)
            .unwrap_or(seq);
        self.segments
            .range(at..)
            .map(|(first_seq, meta)| (*first_seq, self.end_of(*first_seq, meta).0))
            .find(|(_, end_seq)| *end_seq > seq)
    }

    fn read_segment(
        &mut self,
        first_seq: u64,
        seqs: std::ops::Range<u64>,
        frames_max: usize,
        bytes_max: usize,
        out: &mut Vec<Stored>,
    ) -> Result<ReadEnd, Error> {
        let already = out.len();
        for attempt in 0..2 {
            if !self.open_for_reading(first_seq)? {
                return Ok(ReadEnd::Segment);
            }
            let is_tail = first_seq == self.tail_first();
            let Some(segment) = (if is_tail {
                self.tail.as_ref()
            } else {
                self.head.as_ref()
            }) else {
                break;
            };
            match segment.read(seqs.start, seqs.end, frames_max, bytes_max, out) {
                Ok(end) => return Ok(end),
                Err(fault) => {
                    out.truncate(already);
                    let error = in_segment(READ, segment.dir(), clone_for_error(&fault));
                    let damaged = matches!(fault, Fault::Damaged(_));
                    if !damaged || attempt > 0 {
                        self.let_go_of(first_seq);
                        return Err(error);
                    }
                    tracing::warn!(segment = first_seq, %error, "reading failed; looking closer");
                    self.reload(first_seq)?;
                }
            }
        }
        Ok(ReadEnd::Segment)
    }

    /// True if the segment is open now; false if nothing of it could be saved.
    pub(super) fn open_for_reading(&mut self, first_seq: u64) -> Result<bool, Error> {
        if first_seq == self.tail_first() {
            self.open_tail()?;
            return Ok(self.tail_first() == first_seq);
        }
        if self.head.as_ref().is_some_and(|head| head.first_seq == first_seq) {
            return Ok(true);
        }
        self.close_head();
        self.load_head(first_seq, false)
    }

    /// Opens a segment again without believing what it said the first time.
    fn reload(&mut self, first_seq: u64) -> Result<(), Error> {
        if first_seq == self.tail_first() {
            self.reopen_tail(first_seq, true)
        } else {
            self.close_head();
            self.load_head(first_seq, true).map(drop)
        }
    }

    fn load_head(&mut self, first_seq: u64, distrust: bool) -> Result<bool, Error> {
        let Some(meta) = self.segments.get(&first_seq).copied() else {
            return Ok(false);
        };
        let found = self.load(Ask {
            distrust,
            ..middle(first_seq, meta.end_seq, false)
        })?;
        match found {
            Found::Open(Loaded {
                segment,
                settled,
                repair,
            }) => {
                if let Some(settled) = settled {
                    self.set_holes(first_seq, meta.before, &settled.frames, meta.end_seq, meta.end);
                }
                self.note_repair(repair);
                self.head = Some(segment);
                Ok(true)
            }
            Found::Unfinished => {
                self.forget(first_seq);
                Ok(false)
            }
            Found::Gone(repair) => {
                self.forget(first_seq);
                self.note_repair(Some(repair));
                Ok(false)
            }
        }
    }

    /// A segment that is not the tail is gone: all it held is a hole.
    pub(super) fn forget(&mut self, first_seq: u64) {
        if let Some(meta) = self.segments.remove(&first_seq) {
            self.set_holes(first_seq, meta.before, &[], meta.end_seq, meta.end);
        }
        self.measure();
    }

    pub(super) fn close_head(&mut self) {
        if let Some(head) = self.head.take() {
            let (first_seq, dir) = (head.first_seq, head.dir().to_owned());
            drop(head);
            Seal::shrink(&dir);
            self.remeasure(first_seq);
        }
    }

    fn let_go_of(&mut self, first_seq: u64) {
        if first_seq == self.tail_first() {
            self.tail = None;
        } else {
            self.close_head();
        }
    }

    /// A segment's files may have grown since they were last measured.
    pub(super) fn remeasure(&mut self, first_seq: u64) {
        let bytes = disk::bytes_below(&self.segment_dir(first_seq));
        if let Some(meta) = self.segments.get_mut(&first_seq) {
            let before = std::mem::replace(&mut meta.disk_bytes, bytes);
            self.closed_bytes = (self.closed_bytes + bytes).saturating_sub(before);
        }
    }

    pub(super) fn remember(&mut self, frames: impl IntoIterator<Item = (u64, Counters)>) {
        self.recent.extend(frames);
        while self.recent.len() > RECENT_MAX {
            self.recent.pop_first();
        }
    }
}

/// `io::Error` cannot be cloned; its kind and text are what a reader needs.
fn clone_for_error(fault: &Fault) -> Fault {
    match fault {
        Fault::Io(error) => Fault::Io(std::io::Error::new(error.kind(), error.to_string())),
        Fault::Damaged(reason) => Fault::Damaged(reason.clone()),
    }
}
