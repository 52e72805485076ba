//! What the cells say: frames, marks, the start of a segment, the ledger. Pure encoding and decoding, no I/O.

use crate::Mark;
use crate::cell::Reader;

/// Cumulative amounts since the stream began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counters {
    pub frames: u64,
    pub records: u64,
    /// Payload bytes: what was handed in as frames.
    pub bytes: u64,
}

impl Counters {
    pub fn plus(self, frames: u64, records: u64, bytes: u64) -> Self {
        Self {
            frames: self.frames.saturating_add(frames),
            records: self.records.saturating_add(records),
            bytes: self.bytes.saturating_add(bytes),
        }
    }

    pub fn plus_all(self, other: Self) -> Self {
        self.plus(other.frames, other.records, other.bytes)
    }

    pub fn minus(self, other: Self) -> Self {
        Self {
            frames: self.frames.saturating_sub(other.frames),
            records: self.records.saturating_sub(other.records),
            bytes: self.bytes.saturating_sub(other.bytes),
        }
    }

    /// Field by field the greater one.
    pub fn max(self, other: Self) -> Self {
        Self {
            frames: self.frames.max(other.frames),
            records: self.records.max(other.records),
            bytes: self.bytes.max(other.bytes),
        }
    }

    pub fn write(self, out: &mut Vec<u8>) {
        for value in [self.frames, self.records, self.bytes] {
            out.extend_from_slice(&value.to_be_bytes());
        }
    }

    pub fn read(reader: &mut Reader<'_>) -> Option<Self> {
        Some(Self {
            frames: reader.u64()?,
            records: reader.u64()?,
            bytes: reader.u64()?,
        })
    }
}

fn write_mark(mark: Option<&Mark>, out: &mut Vec<u8>) {
    match mark {
        None => out.push(0),
        Some(mark) => {
            out.push(1);
            out.extend_from_slice(&mark.root_seq.to_be_bytes());
            out.extend_from_slice(&(mark.position.len() as u32).to_be_bytes());
            out.extend_from_slice(&mark.position);
        }
    }
}

fn read_mark(reader: &mut Reader<'_>) -> Option<Option<Mark>> {
    if reader.u8()? == 0 {
        return Some(None);
    }
    let root_seq = reader.u64()?;
    let len = reader.u32()? as usize;
    Some(Some(Mark {
        root_seq,
        position: reader.take(len)?.to_vec(),
    }))
}

/// The front of a frame's cell; it always fits in the first chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameHead {
    pub records: u64,
    /// Amounts before this frame.
    pub before: Counters,
    /// Root seq of the mark this frame carries, if it ends a group.
    pub root_seq: Option<u64>,
    pub position_bytes: u32,
}

impl FrameHead {
    /// Bytes the head of a frame with a mark takes, without the position.
    pub const BYTES_MAX: usize = 8 + 24 + 1 + 8 + 4;

    /// Encodes a frame's cell.
    pub fn encode(bytes: &[u8], records: u64, before: Counters, mark: Option<&Mark>) -> Vec<u8> {
        let position = mark.map_or(0, |mark| mark.position.len());
        let mut out = Vec::with_capacity(Self::BYTES_MAX + position + bytes.len());
        out.extend_from_slice(&records.to_be_bytes());
        before.write(&mut out);
        write_mark(mark, &mut out);
        out.extend_from_slice(bytes);
        out
    }

    /// Reads the head from the first chunk's data.
    pub fn read(data: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(data);
        let (records, before) = (reader.u64()?, Counters::read(&mut reader)?);
        let (root_seq, position_bytes) = match reader.u8()? {
            0 => (None, 0),
            _ => (Some(reader.u64()?), reader.u32()?),
        };
        Some(Self {
            records,
            before,
            root_seq,
            position_bytes,
        })
    }

    /// Where the frame's own bytes begin in its cell.
    pub fn body_at(&self) -> usize {
        8 + 24
            + 1
            + if self.root_seq.is_some() {
                12 + self.position_bytes as usize
            } else {
                0
            }
    }

    /// The frame's own bytes, given the whole cell.
    pub fn body<'a>(&self, payload: &'a [u8]) -> Option<&'a [u8]> {
        payload.get(self.body_at()..)
    }

    /// The mark, given the whole cell.
    pub fn mark(&self, payload: &[u8]) -> Option<Mark> {
        let root_seq = self.root_seq?;
        let end = self.body_at();
        let position = payload.get(end - self.position_bytes as usize..end)?.to_vec();
        Some(Mark { root_seq, position })
    }
}

/// A mark stored by itself: a group without frames, or a cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MarkRecord {
    /// Last seq before it.
    pub after_seq: u64,
    /// `None` only for a cut back to before the first mark.
    pub mark: Option<Mark>,
}

impl MarkRecord {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = self.after_seq.to_be_bytes().to_vec();
        write_mark(self.mark.as_ref(), &mut out);
        out
    }

    pub fn read(payload: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(payload);
        Some(Self {
            after_seq: reader.u64()?,
            mark: read_mark(&mut reader)?,
        })
    }

    /// 0 for the cut back to before the first mark.
    pub fn root_seq(&self) -> u64 {
        self.mark.as_ref().map_or(0, |mark| mark.root_seq)
    }
}

/// Ranges in [`Ledger::dropped_ahead`]; a drop that would need another one is refused. Each is followed by a segment with
/// frames that were on their way when it was made, and few fit into the quota.
pub(crate) const DROPPED_AHEAD_MAX: usize = 32;

/// Frames above the floor that the quota's policy gave up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DroppedRange {
    pub first_seq: u64,
    pub last_seq: u64,
    /// What was given up; what was lost to damage in the range before is not among it.
    pub amounts: Counters,
}

impl DroppedRange {
    /// True if all of `first_seq..=last_seq` lies in the range.
    pub fn covers(&self, first_seq: u64, last_seq: u64) -> bool {
        self.first_seq <= first_seq && last_seq <= self.last_seq
    }
}

/// What became of the frames below the floor, and how far that reaches.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Ledger {
    /// Highest seq the consumer has reported durable.
    pub watermark: u64,
    /// Highest seq settled one way or another: nothing at or below it is held any more. Never below the watermark.
    pub floor: u64,
    /// Amounts up to and including the floor.
    pub settled: Counters,
    /// Records delivered, at or below the floor.
    pub delivered: u64,
    /// Records dropped by the quota's policy, at or below the floor.
    pub dropped: u64,
    /// Records lost to damage, at or below the floor.
    pub lost: u64,
    /// What was dropped above the floor, in order. The consumer has not confirmed to know of it.
    pub dropped_ahead: Vec<DroppedRange>,
}

impl Ledger {
    /// Everything before `first_seq` counts as delivered.
    pub fn all_delivered_before(first_seq: u64, before: Counters) -> Self {
        let floor = first_seq.saturating_sub(1);
        Self {
            watermark: floor,
            floor,
            settled: before,
            delivered: before.records,
            dropped: 0,
            lost: 0,
            dropped_ahead: Vec::new(),
        }
    }

    /// What was dropped above the floor, all together.
    pub fn ahead(&self) -> Counters {
        self.dropped_within(0, u64::MAX)
    }

    /// What was dropped in ranges that lie in `first_seq..=last_seq`.
    pub fn dropped_within(&self, first_seq: u64, last_seq: u64) -> Counters {
        let within = |range: &&DroppedRange| range.first_seq >= first_seq && range.last_seq <= last_seq;
        let ranges = self.dropped_ahead.iter().filter(within);
        ranges.fold(Counters::default(), |sum, range| sum.plus_all(range.amounts))
    }

    /// Moves the dropped ranges that end at or below the floor into the totals.
    pub fn pass_dropped(&mut self) {
        let floor = self.floor;
        self.dropped += self.dropped_within(0, floor).records;
        self.dropped_ahead.retain(|range| range.last_seq > floor);
    }

    /// Moves the floor up to the end of something that was delivered, apart from what was dropped or `lost` in it.
    pub fn pass(&mut self, floor: u64, amounts: Counters, lost: Counters) {
        let dropped = self.dropped_within(0, floor);
        self.delivered += amounts.minus(self.settled).minus(lost).minus(dropped).records;
        self.lost += lost.records;
        (self.floor, self.settled) = (floor, amounts);
        self.pass_dropped();
    }

    /// Of two versions the one with the greater age is the newer: each part only ever goes up.
    pub fn age(&self) -> (u64, u64, u64) {
        (self.floor, self.watermark, self.ahead().frames)
    }

    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.watermark.to_be_bytes());
        out.extend_from_slice(&self.floor.to_be_bytes());
        self.settled.write(out);
        for value in [self.delivered, self.dropped, self.lost] {
            out.extend_from_slice(&value.to_be_bytes());
        }
        out.push(self.dropped_ahead.len() as u8);
        for range in &self.dropped_ahead {
            out.extend_from_slice(&range.first_seq.to_be_bytes());
            out.extend_from_slice(&range.last_seq.to_be_bytes());
            range.amounts.write(out);
        }
    }

    pub fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let mut ledger = Self {
            watermark: reader.u64()?,
            floor: reader.u64()?,
            settled: Counters::read(reader)?,
            delivered: reader.u64()?,
            dropped: reader.u64()?,
            lost: reader.u64()?,
            dropped_ahead: Vec::new(),
        };
        for _ in 0..reader.u8()? {
            ledger.dropped_ahead.push(DroppedRange {
                first_seq: reader.u64()?,
                last_seq: reader.u64()?,
                amounts: Counters::read(reader)?,
            });
        }
        Some(ledger)
    }
}

/// The state a segment begins with: all that is needed once the older segments are gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Start {
    pub before: Counters,
    pub ledger: Ledger,
    pub mark: Option<Mark>,
}

impl Start {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.before.write(&mut out);
        self.ledger.write(&mut out);
        write_mark(self.mark.as_ref(), &mut out);
        out
    }

    pub fn read(payload: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(payload);
        let (before, ledger) = (Counters::read(&mut reader)?, Ledger::read(&mut reader)?);
        Some(Self {
            before,
            ledger,
            mark: read_mark(&mut reader)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_come_back() {
        for (position, bytes) in [(vec![], vec![]), (vec![1, 2, 3], vec![9; 50]), (vec![7; 5000], vec![])] {
            let position_count = position.len().min(DROPPED_AHEAD_MAX);
            let before = Counters {
                frames: 1,
                records: 2,
                bytes: 3,
            };
            for mark in [None, Some(Mark { root_seq: 4, position })] {
                let payload = FrameHead::encode(&bytes, 12, before, mark.as_ref());
                let head = FrameHead::read(&payload).unwrap();
                assert_eq!((head.records, head.before), (12, before));
                assert_eq!(
                    (head.body(&payload).unwrap(), head.mark(&payload)),
                    (&bytes[..], mark.clone())
                );
                let record = MarkRecord {
                    after_seq: 9,
                    mark: mark.clone(),
                };
                assert_eq!(MarkRecord::read(&record.encode()), Some(record));
                let ledger = Ledger {
                    watermark: 1,
                    floor: 2,
                    settled: before,
                    delivered: 3,
                    dropped: 4,
                    lost: 5,
                    dropped_ahead: vec![
                        DroppedRange {
                            first_seq: 6,
                            last_seq: 7,
                            amounts: before,
                        };
                        position_count
                    ],
                };
                let start = Start { before, ledger, mark };
                assert_eq!(Start::read(&start.encode()), Some(start));
            }
        }
        assert_eq!(
            (FrameHead::read(&[1; 20]), Start::read(&[0; 9]), MarkRecord::read(&[])),
            (None, None, None)
        );
    }
}
