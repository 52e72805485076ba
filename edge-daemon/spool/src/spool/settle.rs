//! Giving up frames: delivered ones below the watermark, and the oldest ones when the quota's policy says so.

use super::{Spool, plus_hole};
use crate::error::Error;
use crate::record::Counters;
use crate::types::Dropped;

impl Spool {
    /// Notes that the consumer holds everything up to and including `watermark_seq`, and removes the segments that are
    /// wholly below it. A lower watermark than before changes nothing.
    ///
    /// The watermark itself is stored with the next append or before a segment is removed: after a crash it may be an
    /// older one, and the consumer's next report makes that good.
    pub fn trim(&mut self, watermark_seq: u64) -> Result<(), Error> {
        if watermark_seq >= self.next_seq {
            return Err(Error::WatermarkAhead {
                watermark: watermark_seq,
                last_seq: self.next_seq - 1,
            });
        }
        if watermark_seq > self.ledger.watermark {
            self.ledger.watermark = watermark_seq;
            self.ledger_dirty = true;
        }
        if watermark_seq > self.ledger.floor {
            let (floor, amounts) = self.amounts_at(watermark_seq)?;
            self.ledger.delivered += self.raise_floor(floor, amounts).records;
        }
        self.drop_settled_segments();
        Ok(())
    }

    /// Gives up the oldest frames, in whole segments, until at least `bytes` of disk are free again or nothing but an
    /// empty tail is left. What was dropped is stored before it is removed.
    pub fn drop_oldest(&mut self, bytes: u64) -> Result<Dropped, Error> {
        let mut dropped = Dropped {
            first_seq: self.first_held(),
            ..Dropped::default()
        };
        dropped.last_seq = dropped.first_seq.saturating_sub(1);
        if dropped.first_seq == self.next_seq {
            return Ok(dropped);
        }
        if self.segments.len() == 1 {
            self.roll()?;
        }
        let tail_first = self.tail_first();
        let mut last = None;
        for (_, meta) in self.segments.range(..tail_first) {
            if dropped.bytes >= bytes && last.is_some() {
                break;
            }
            dropped.bytes += meta.disk_bytes;
            last = Some((meta.end_seq, meta.end));
        }
        if let Some((end_seq, end)) = last.filter(|(end_seq, _)| *end_seq > self.ledger.floor + 1) {
            let gone = self.raise_floor(end_seq - 1, end);
            self.ledger.dropped += gone.records;
            (dropped.frames, dropped.records) = (gone.frames, gone.records);
            dropped.last_seq = end_seq - 1;
        }
        self.store_ledger()?;
        self.drop_settled_segments();
        Ok(dropped)
    }

    /// Goes on at `next_seq`, leaving out the seqs before it: for when the consumer has seen frames this spool knows
    /// nothing of. Lower values change nothing.
    pub fn advance_to(&mut self, next_seq: u64) -> Result<(), Error> {
        if next_seq > self.next_seq {
            self.roll_to(next_seq, self.produced)?;
            self.write_high();
        }
        Ok(())
    }

    /// Moves the floor up and takes the holes below it into account; gives what was there apart from them.
    fn raise_floor(&mut self, floor: u64, amounts: Counters) -> Counters {
        let above = self.holes.split_off(&(floor + 1));
        let lost = std::mem::replace(&mut self.holes, above)
            .values()
            .fold(Counters::default(), plus_hole);
        let gone = amounts.minus(self.ledger.settled).minus(lost);
        self.ledger.lost += lost.records;
        self.ledger.floor = floor;
        self.ledger.settled = amounts;
        self.ledger_dirty = true;
        self.recent = self.recent.split_off(&(floor + 1));
        gone
    }

    /// Amounts up to and including `seq`. If that is in a hole, the floor is raised to its end: there is nothing in it to
    /// wait for.
    fn amounts_at(&mut self, seq: u64) -> Result<(u64, Counters), Error> {
        loop {
            let hole = self
                .holes
                .range(..=seq)
                .next_back()
                .map(|(_, hole)| *hole)
                .filter(|hole| hole.last_seq >= seq);
            let at = hole.map_or(seq, |hole| hole.first_seq - 1);
            // `None`: looking it up turned a segment into a hole.
            if let Some(amounts) = self.amounts_at_frame(at)? {
                let lost = hole.map_or(Counters::default(), |hole| plus_hole(Counters::default(), &hole));
                let floor = hole.map_or(seq, |hole| hole.last_seq);
                return Ok((floor, amounts.plus(lost.frames, lost.records, lost.bytes)));
            }
        }
    }

    fn amounts_at_frame(&mut self, seq: u64) -> Result<Option<Counters>, Error> {
        if seq <= self.ledger.floor {
            return Ok(Some(self.ledger.settled));
        }
        if seq + 1 >= self.next_seq {
            return Ok(Some(self.produced));
        }
        if let Some(amounts) = self.recent.get(&seq) {
            return Ok(Some(*amounts));
        }
        let Some((first_seq, meta)) = self
            .segments
            .range(..=seq)
            .next_back()
            .map(|(first, meta)| (*first, *meta))
        else {
            return Ok(Some(self.ledger.settled));
        };
        let (end_seq, end) = self.end_of(first_seq, &meta);
        if seq + 1 >= end_seq {
            return Ok(Some(end));
        }
        let found = self.with_segment(first_seq, |segment| segment.frame_at_or_below(seq))?;
        Ok(found.map(|frame| {
            frame
                .filter(|f| f.seq >= first_seq)
                .map_or(meta.before, |frame| frame.after())
        }))
    }

    /// Removes segments that hold nothing above the floor.
    pub(super) fn drop_settled_segments(&mut self) {
        let tail_first = self.tail_first();
        let settled: Vec<u64> = self
            .segments
            .range(..tail_first)
            .take_while(|(_, meta)| meta.end_seq <= self.ledger.floor + 1)
            .map(|(first_seq, _)| *first_seq)
            .collect();
        if settled.is_empty() {
            return;
        }
        crash_point::at!(SpoolTrimBeforeLedger);
        if self.ledger_dirty
            && let Err(error) = self.store_ledger()
        {
            // On a full disk removing segments is what makes room to store it.
            tracing::warn!(spool = %self.dir.display(), %error, "watermark not stored before removing segments");
        }
        crash_point::at!(SpoolTrimAfterLedger);
        self.retire(&settled);
    }

    /// Makes the ledger durable.
    pub(super) fn store_ledger(&mut self) -> Result<(), Error> {
        self.make_writable()?;
        let (stamp, ledger) = (self.stamp, self.ledger);
        self.on_tail("store the watermark in the spool's segment", |tail| {
            tail.put_ledger(stamp, &ledger)?;
            tail.sync()
        })?;
        self.ledger_dirty = false;
        Ok(())
    }
}
