//! Giving up frames: delivered ones below the watermark, and the oldest ones when the quota's policy says so; and the
//! account of what is missing.

use super::{Spool, plus_hole};
use crate::disk::{self, SEAL_FILE, Seal};
use crate::error::Error;
use crate::record::{Counters, DROPPED_AHEAD_MAX, DroppedRange};
use crate::types::{Dropped, Hole, Missing};

impl Spool {
    /// Notes that the consumer has confirmed everything up to and including `watermark_seq`, and removes the segments that
    /// are wholly below it. A lower watermark than before changes nothing.
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
            self.raise_floor(floor, amounts);
        }
        self.drop_settled_segments();
        Ok(())
    }

    /// Gives up the oldest frames that were never sent, in whole segments, until at least `bytes` of disk are free again
    /// or there is nothing more to give up. What was dropped is stored before it is removed.
    ///
    /// `sent_through` is the highest seq that may be on its way to the consumer, in a frame or in a gap record; it never
    /// falls. Segments with such frames stay: whether they arrive is not ours to say, and a record is counted once, either
    /// as delivered or as dropped.
    pub fn drop_oldest(&mut self, bytes: u64, sent_through: u64) -> Result<Dropped, Error> {
        let mut dropped = Dropped::default();
        let (tail_first, sent) = (self.tail_first(), sent_through.max(self.ledger.floor));
        let floor = self.ledger.floor;
        let unsent = |first_seq: u64| range_start(first_seq, floor) > sent;
        if self.next_seq > tail_first
            && unsent(tail_first)
            && !self.segments.range(..tail_first).any(|(f, _)| unsent(*f))
        {
            // What is to make room must work without any.
            match self.roll() {
                Err(error) if error.is_disk_full() && self.drop_ballast() => self.roll()?,
                rolled => rolled?,
            }
        }
        let tail_first = self.tail_first();
        let mut gone: Option<DroppedRange> = None;
        for (&first_seq, meta) in self.segments.range(..tail_first) {
            if !unsent(first_seq) || meta.end_seq <= floor + 1 {
                continue;
            }
            if dropped.bytes >= bytes && gone.is_some() {
                break;
            }
            let before = if first_seq > floor {
                meta.before
            } else {
                self.ledger.settled
            };
            let range = gone.get_or_insert(DroppedRange {
                first_seq: range_start(first_seq, floor),
                last_seq: 0,
                amounts: Counters::default(),
            });
            range.last_seq = meta.end_seq - 1;
            let lost = self.holes.range(range_start(first_seq, floor)..meta.end_seq);
            let lost = lost.fold(Counters::default(), |sum, (_, hole)| plus_hole(sum, hole));
            range.amounts = range.amounts.plus_all(meta.end.minus(before).minus(lost));
            dropped.bytes += meta.disk_bytes;
        }
        let Some(range) = gone else {
            return Ok(dropped);
        };
        let gaps = self.ledger.dropped_ahead.len();
        if !self.note_dropped(range, sent) {
            return Ok(Dropped::default());
        }
        dropped.joined = self.ledger.dropped_ahead.len() <= gaps;
        crash_point::at!(SpoolDropBeforeLedger);
        self.store_ledger()?;
        crash_point::at!(SpoolDropAfterLedger);
        let segments = self.segments.range(..tail_first);
        let segments: Vec<u64> = segments
            .filter(|(_, meta)| (range.first_seq..=range.last_seq).contains(&(meta.end_seq - 1)))
            .map(|(first_seq, _)| *first_seq)
            .collect();
        self.retire(&segments);
        dropped.first_seq = range.first_seq;
        dropped.last_seq = range.last_seq;
        (dropped.frames, dropped.records) = (range.amounts.frames, range.amounts.records);
        Ok(dropped)
    }

    /// The highest seq that an earlier life of this process may have sent, if it never had more than `frames_max` frames on
    /// their way: for [`Self::drop_oldest`] until the consumer has spoken.
    ///
    /// The watermark is stored before a segment is removed, so the true one is at most at the end of the first segment.
    pub fn sent_before(&self, frames_max: u64) -> u64 {
        let first_held = self.first_held();
        let mut left = None;
        for (&first_seq, meta) in &self.segments {
            let (end_seq, _) = self.end_of(first_seq, meta);
            match left {
                _ if end_seq <= first_held => {}
                None => left = Some(frames_max),
                Some(frames) if frames <= end_seq - first_seq => return first_seq + frames - 1,
                Some(frames) => left = Some(frames - (end_seq - first_seq)),
            }
        }
        self.next_seq - 1
    }

    /// Adds a dropped range to the ledger; ranges with nothing held in between become one, unless the consumer may have
    /// been told of the earlier one already. False if there are too many.
    fn note_dropped(&mut self, range: DroppedRange, sent: u64) -> bool {
        let mut ranges = self.ledger.dropped_ahead.clone();
        ranges.push(range);
        ranges.sort_by_key(|range| range.first_seq);
        ranges.dedup_by(|later, earlier| {
            let next_held = self.segments.range(earlier.last_seq + 1..).next();
            let nothing_held = next_held.is_none_or(|(first_seq, _)| *first_seq >= later.first_seq);
            let joins = nothing_held && earlier.last_seq > sent;
            if joins {
                earlier.last_seq = earlier.last_seq.max(later.last_seq);
                earlier.amounts = earlier.amounts.plus_all(later.amounts);
            }
            joins
        });
        let fits = ranges.len() <= DROPPED_AHEAD_MAX;
        if fits {
            self.ledger.dropped_ahead = ranges;
            self.ledger_dirty = true;
        }
        fits
    }

    /// What of `first_seq..=last_seq` will never come, in records, for the consumer to be told.
    ///
    /// What is missing between two frames is counted at the last seq before the second one, and what is settled at the
    /// newest seq settled, so that the counts of neighbouring ranges add up. Ask for whole stretches that reading
    /// skipped: from the seq after the last one the consumer has, to the one before the next one it gets.
    ///
    /// `accounted` is what the consumer has accounted for of the seqs before `first_seq`, in records. It matters only
    /// when it stands below what it has confirmed before (its destination was restored from an older copy), for what is
    /// settled is no longer known frame by frame. Nothing is accounted for before seq 1.
    pub fn missing(&mut self, first_seq: u64, last_seq: u64, accounted: Option<u64>) -> Result<Missing, Error> {
        let ledger = &self.ledger;
        let mut missing = Missing {
            exact: true,
            ..Missing::default()
        };
        if (first_seq..=last_seq).contains(&ledger.floor) {
            match accounted {
                _ if first_seq <= 1 => {
                    missing.dropped_records = ledger.dropped;
                    missing.lost_records = ledger.lost;
                    missing.settled_records = ledger.delivered;
                }
                Some(records) => missing.settled_records = ledger.settled.records.saturating_sub(records),
                None => missing.exact = false,
            }
        }
        let ended = |range_last: u64| (first_seq..=last_seq).contains(&range_last);
        let dropped = ledger.dropped_ahead.iter().filter(|range| ended(range.last_seq));
        missing.dropped_records += dropped.map(|range| range.amounts.records).sum::<u64>();
        let holes: Vec<Hole> = self
            .holes
            .values()
            .filter(|hole| ended(hole.last_seq))
            .copied()
            .collect();
        for hole in holes {
            missing.lost_records += hole.records;
            if hole.first_seq < first_seq {
                // Some of it went out before the damage.
                let got = self.known_inside(&hole, first_seq - 1)?;
                missing.exact &= got.is_some();
                missing.lost_records -= got.unwrap_or_default().records.min(hole.records);
            }
        }
        Ok(missing)
    }

    /// Amounts from the beginning of a hole up to `seq` in it, if they are still remembered.
    fn known_inside(&mut self, hole: &Hole, seq: u64) -> Result<Option<Counters>, Error> {
        let Some(after) = self.recent.get(&seq).copied() else {
            return Ok(None);
        };
        let before = self.amounts_at_frame(hole.first_seq - 1)?;
        Ok(before.map(|before| after.minus(before)))
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

    /// Moves the floor up; what is missing below it is taken into account, the rest was delivered.
    pub(super) fn raise_floor(&mut self, floor: u64, amounts: Counters) {
        let above = self.holes.split_off(&(floor + 1));
        let lost = std::mem::replace(&mut self.holes, above)
            .values()
            .fold(Counters::default(), plus_hole);
        self.ledger.pass(floor, amounts, lost);
        self.ledger_dirty = true;
        self.recent = self.recent.split_off(&(floor + 1));
    }

    /// The whole stretch of missing frames around `seq`, if it is missing.
    pub(super) fn missing_around(&self, seq: u64) -> Option<(u64, u64)> {
        let (mut first_seq, mut last_seq) = self.missing_at(seq)?;
        while let Some((earlier, _)) = self.missing_at(first_seq - 1) {
            first_seq = earlier;
        }
        while let Some((_, later)) = self.missing_at(last_seq + 1) {
            last_seq = later;
        }
        Some((first_seq, last_seq))
    }

    fn missing_at(&self, seq: u64) -> Option<(u64, u64)> {
        let hole = self.hole_at(seq).map(|hole| (hole.first_seq, hole.last_seq));
        let mut dropped = self.ledger.dropped_ahead.iter();
        let dropped = dropped.find(|range| range.covers(seq, seq));
        let dropped = dropped.map(|range| (range.first_seq, range.last_seq));
        // Where they overlap, one contains the other.
        match (hole, dropped) {
            (Some(a), Some(b)) => Some((a.0.min(b.0), a.1.max(b.1))),
            (one, other) => one.or(other),
        }
    }

    /// Amounts of what is missing in whole within `first_seq..=last_seq`.
    fn gone_within(&self, first_seq: u64, last_seq: u64) -> Counters {
        let lost = self.holes.values();
        let lost = lost.filter(|hole| hole.first_seq >= first_seq && hole.last_seq <= last_seq);
        lost.fold(self.ledger.dropped_within(first_seq, last_seq), plus_hole)
    }

    fn hole_at(&self, seq: u64) -> Option<Hole> {
        let (_, hole) = self.holes.range(..=seq).next_back()?;
        (hole.last_seq >= seq).then_some(*hole)
    }

    /// Amounts up to and including `seq`. If that is missing, the floor is raised to the end of what is missing there:
    /// there is nothing in it to wait for.
    fn amounts_at(&mut self, seq: u64) -> Result<(u64, Counters), Error> {
        loop {
            self.take_out_delivered(seq)?;
            let around = self.missing_around(seq);
            let at = around.map_or(seq, |(first_seq, _)| first_seq - 1);
            // `None`: looking it up turned a segment into a hole.
            if let Some(amounts) = self.amounts_at_frame(at)? {
                let Some((first_seq, last_seq)) = around else {
                    return Ok((seq, amounts));
                };
                return Ok((last_seq, amounts.plus_all(self.gone_within(first_seq, last_seq))));
            }
        }
    }

    /// If `seq` is in a hole and yet was confirmed, the frames up to it went out before the damage.
    fn take_out_delivered(&mut self, seq: u64) -> Result<(), Error> {
        let Some(hole) = self.hole_at(seq) else { return Ok(()) };
        let Some(got) = self.known_inside(&hole, seq)? else {
            return Ok(());
        };
        self.holes.remove(&hole.first_seq);
        let left = plus_hole(Counters::default(), &hole).minus(got);
        if left.frames > 0 {
            self.add_hole(Hole {
                first_seq: seq + 1,
                last_seq: hole.last_seq,
                frames: left.frames,
                records: left.records,
                bytes: left.bytes,
            });
        }
        Ok(())
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
            let gone = self.gone_within(self.ledger.floor + 1, seq);
            return Ok(Some(self.ledger.settled.plus_all(gone)));
        };
        let (end_seq, end) = self.end_of(first_seq, &meta);
        if seq + 1 >= end_seq {
            return Ok(Some(end.plus_all(self.gone_within(end_seq, seq))));
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
            tracing::warn!(spool = %self.dir.display(), %error, "the watermark cannot be stored yet");
            return self.spend(&settled);
        }
        crash_point::at!(SpoolTrimAfterLedger);
        self.retire(&settled);
    }

    /// Removes what is in delivered segments but their seals, which tell the next open that they were delivered: on a full
    /// disk this is what makes room to store the watermark. One without a seal stays.
    fn spend(&mut self, first_seqs: &[u64]) {
        for first_seq in first_seqs {
            let dir = self.segment_dir(*first_seq);
            if Seal::read(&dir).is_none() {
                continue;
            }
            if self.head.as_ref().is_some_and(|head| head.first_seq == *first_seq) {
                self.head = None;
            }
            let spent = self.dir.join(disk::spent_name(*first_seq));
            let renamed = std::fs::rename(&dir, &spent).and_then(|()| disk::sync_dir(&self.dir));
            if let Err(error) = renamed.and_then(|()| disk::keep_only(&spent, &[SEAL_FILE])) {
                tracing::warn!(segment = first_seq, %error, "spool segment not removed");
            }
            if !dir.exists() {
                self.spent.push(*first_seq);
                self.segments.remove(first_seq);
            }
        }
        self.ballast = disk::put_ballast(&self.dir);
        self.measure();
    }

    /// What the seals of spent segments tell, where the stored ledger does not know of it.
    pub(super) fn pass_spent(&mut self) {
        for first_seq in self.spent.clone() {
            let Some(seal) = Seal::read(&self.dir.join(disk::spent_name(first_seq))) else {
                continue;
            };
            let (floor, settled) = (self.ledger.floor, self.ledger.settled);
            if seal.end_seq <= floor + 1 {
                continue;
            }
            // One that had no seal stayed, though it was delivered as well.
            let (mut next_seq, mut amounts) = (floor + 1, settled);
            let stayed: Vec<_> = self
                .segments
                .range(..first_seq)
                .map(|(first, meta)| (*first, *meta))
                .collect();
            for (first, meta) in stayed {
                self.add_gap(next_seq, amounts, first, meta.before);
                if meta.end_seq > next_seq {
                    (next_seq, amounts) = (meta.end_seq, meta.end);
                }
            }
            self.add_gap(next_seq, amounts, first_seq, seal.before);
            seal.holes.iter().for_each(|hole| self.add_hole(*hole));
            self.raise_floor(seal.end_seq - 1, seal.end);
            self.ledger.watermark = self.ledger.watermark.max(self.ledger.floor);
        }
    }

    /// Makes the ledger durable, on a full disk with the help of the ballast.
    pub(super) fn store_ledger(&mut self) -> Result<(), Error> {
        match self.put_ledger() {
            Err(error) if error.is_disk_full() && self.drop_ballast() => self.put_ledger(),
            other => other,
        }
    }

    fn put_ledger(&mut self) -> Result<(), Error> {
        self.make_writable()?;
        let (stamp, ledger) = (self.stamp, self.ledger.clone());
        self.on_tail("store the watermark in the spool's segment", |tail| {
            tail.put_ledger(stamp, &ledger)?;
            tail.sync()
        })?;
        self.ledger_dirty = false;
        for first_seq in std::mem::take(&mut self.spent) {
            // What stays is passed over at the next open, and removed then.
            let _stays = disk::remove(&self.dir.join(disk::spent_name(first_seq)));
        }
        Ok(())
    }
}

/// The first frame of a segment that is not settled.
fn range_start(first_seq: u64, floor: u64) -> u64 {
    first_seq.max(floor + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Frame, Limits, Mark};
    use crate::{QUOTA_BYTES_MIN, SEGMENT_BYTES_MIN};

    const LIMITS: Limits = Limits {
        quota_bytes: 16 * QUOTA_BYTES_MIN,
        segment_bytes: SEGMENT_BYTES_MIN,
    };

    /// What a kill leaves: the files as they are now.
    fn copy(from: &std::path::Path, to: &std::path::Path) {
        if from.is_file() {
            std::fs::copy(from, to).unwrap();
            return;
        }
        std::fs::create_dir(to).unwrap();
        for entry in std::fs::read_dir(from).unwrap() {
            let from = entry.unwrap().path();
            copy(&from, &to.join(from.file_name().unwrap()));
        }
    }

    #[test]
    fn what_was_removed_before_the_watermark_was_stored_counts_as_delivered() {
        removed(true);
        // A segment whose seal found no room stays.
        removed(false);
    }

    fn removed(is_sealed: bool) {
        let home = tempfile::tempdir().unwrap();
        let (mut spool, _) = Spool::open(&home.path().join("spool"), LIMITS).unwrap();
        let bytes = vec![7; SEGMENT_BYTES_MIN as usize / 4];
        for root_seq in 1..=20 {
            let mark = Mark {
                root_seq,
                position: Vec::new(),
            };
            spool
                .append(
                    &[Frame {
                        bytes: &bytes,
                        records: 3,
                    }],
                    &mark,
                )
                .unwrap();
        }
        let before: Vec<u64> = spool.segments.keys().copied().collect();
        assert!(before.len() > 3, "{before:?}");
        // As `trim` does, on a disk that takes nothing.
        let (floor, amounts) = spool.amounts_at(before[2]).unwrap();
        spool.raise_floor(floor, amounts);
        spool.ledger.watermark = floor;
        if !is_sealed {
            std::fs::remove_file(spool.segment_dir(before[0]).join(SEAL_FILE)).unwrap();
        }
        spool.spend(&before[..2]);
        assert_eq!(spool.segment_dir(before[0]).exists(), !is_sealed);
        let state = spool.state();
        assert_eq!((state.delivered_records, state.lost_records), (3 * floor, 0));

        let left = home.path().join("left");
        copy(&spool.dir, &left);
        let checked = crate::check(&left).unwrap();
        // The rest of the watermark was in memory, and the consumer says it again.
        let known = before[2] - 1;
        assert_eq!((checked.delivered_records, checked.lost_records), (3 * known, 0));
        assert!(checked.holes.is_empty(), "{:?}", checked.holes);
        let (mut again, recovery) = Spool::open(&left, LIMITS).unwrap();
        assert!(recovery.repairs.is_empty() && again.holes().is_empty(), "{recovery:?}");
        let state = again.state();
        assert_eq!(
            (state.delivered_records, state.lost_records, state.held_records),
            (3 * known, 0, 3 * (20 - known))
        );
        assert_eq!(again.read(1, 100, usize::MAX).unwrap().first().unwrap().seq, known + 1);
        again.trim(floor).unwrap();
        again.close().unwrap();
        assert_eq!(disk::Listing::read(&left).unwrap().spent, Vec::<u64>::new());
        let checked = crate::check(&left).unwrap();
        assert_eq!((checked.delivered_records, checked.lost_records), (3 * floor, 0));
    }
}
