//! What was found in a segment, and which of it counts: stale versions, interrupted appends and holes. Pure: performs no
//! I/O and does not care whether sled or a damaged file was the source.

use crate::Hole;
use crate::record::{Counters, FrameHead, Ledger, MarkRecord, Start};

/// Most bytes a power cut can tear: what is written between two fsyncs, twice over to be on the safe side.
const TORN_BYTES_MAX: u64 = 2 * crate::segment::UNSYNCED_BYTES_MAX;

/// A frame found in a segment, without its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameInfo {
    pub seq: u64,
    pub stamp: u32,
    /// Length of the frame itself.
    pub bytes: u64,
    pub head: FrameHead,
}

impl FrameInfo {
    /// Amounts after this frame.
    pub fn after(&self) -> Counters {
        self.head.before.plus(1, self.head.records, self.bytes)
    }
}

/// Everything intact that was found in one segment, in any order, stale versions included.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    pub start: Option<Start>,
    pub ledger: Option<Ledger>,
    pub frames: Vec<FrameInfo>,
    /// With the stamp each was written under.
    pub marks: Vec<(u32, MarkRecord)>,
    pub stamp_max: u32,
    /// Slot for the next mark without frames.
    pub mark_slot: u8,
}

/// Where the newest mark of a segment is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum MarkAt {
    /// In the cell of this frame.
    Frame { seq: u64, root_seq: u64 },
    /// On its own (or the copy in the segment's start).
    Alone(MarkRecord),
}

impl MarkAt {
    /// Last seq the mark covers.
    pub fn after_seq(&self) -> u64 {
        match self {
            Self::Frame { seq, .. } => *seq,
            Self::Alone(record) => record.after_seq,
        }
    }

    /// Root seq; `None` means "before the first mark".
    pub fn root_seq(&self) -> Option<u64> {
        match self {
            Self::Frame { root_seq, .. } => Some(*root_seq),
            Self::Alone(record) => record.mark.as_ref().map(|mark| mark.root_seq),
        }
    }
}

/// What of a segment's contents counts.
#[derive(Debug)]
pub(crate) struct Settled {
    pub first_seq: u64,
    /// In order, each seq once.
    pub frames: Vec<FrameInfo>,
    /// In order of age; the first is the copy made when the segment was begun, if that was readable.
    pub marks: Vec<MarkAt>,
    pub ledger: Option<Ledger>,
    pub start: Option<Start>,
    /// Amounts before the first frame.
    pub before: Counters,
    /// Frames of groups that were never completed.
    pub cut_frames: u64,
    pub stamp_max: u32,
    pub mark_slot: u8,
}

impl Settled {
    /// Seq after the last frame.
    pub fn end_seq(&self) -> u64 {
        self.frames.last().map_or(self.first_seq, |frame| frame.seq + 1)
    }

    /// Amounts after the last frame.
    pub fn end(&self) -> Counters {
        self.frames.last().map_or(self.before, FrameInfo::after)
    }

    /// Amounts up to and including `seq`.
    pub fn amounts_at(&self, seq: u64) -> Counters {
        match self.frames.partition_point(|frame| frame.seq <= seq) {
            0 => self.before,
            index => self.frames[index - 1].after(),
        }
    }
}

/// The frames missing from a segment that should hold `first_seq..end_seq`, going from the amounts `before` to `end`.
pub(crate) fn holes_in(
    first_seq: u64,
    before: Counters,
    frames: &[FrameInfo],
    end_seq: u64,
    end: Counters,
) -> Vec<Hole> {
    let mut holes = Vec::new();
    let (mut next_seq, mut amounts) = (first_seq, before);
    for frame in frames {
        holes.extend(hole_between(next_seq, amounts, frame.seq, frame.head.before));
        (next_seq, amounts) = (frame.seq + 1, frame.after());
    }
    holes.extend(hole_between(next_seq, amounts, end_seq, end));
    holes
}

/// The hole between two neighbours, if frames are missing there (a seq that was skipped on purpose is none).
pub(crate) fn hole_between(next_seq: u64, amounts: Counters, found_seq: u64, found: Counters) -> Option<Hole> {
    let missing = found.minus(amounts);
    (found_seq > next_seq && missing.frames > 0).then(|| Hole {
        first_seq: next_seq,
        last_seq: found_seq - 1,
        frames: missing.frames,
        records: missing.records,
        bytes: missing.bytes,
    })
}

/// Decides what counts.
///
/// `end_max`: nothing at or above this seq belongs to the segment. `acknowledged_below`: frames below it were reported
/// durable, so they stay even if the mark that ended their group is gone; those above it without a later mark are an
/// append that a crash interrupted.
pub(crate) fn settle(contents: Contents, first_seq: u64, end_max: Option<u64>, acknowledged_below: u64) -> Settled {
    let end_max = end_max.unwrap_or(u64::MAX);
    let Contents {
        start,
        ledger,
        mut frames,
        mut marks,
        stamp_max,
        mark_slot,
    } = contents;
    frames.retain(|frame| (first_seq..end_max).contains(&frame.seq));
    marks.retain(|(_, record)| record.after_seq.saturating_add(1) >= first_seq && record.after_seq < end_max);

    let mut events: Vec<((u64, u64), u32, Event)> = frames
        .into_iter()
        .map(|frame| ((frame.seq, 0), frame.stamp, Event::Frame(frame)))
        .chain(marks.into_iter().map(|(stamp, record)| {
            (
                (record.after_seq, record.root_seq().saturating_add(1)),
                stamp,
                Event::Mark(record),
            )
        }))
        .collect();
    events.sort_by_key(|(position, stamp, _)| (*position, *stamp));

    // Stamps never fall along a stream: what is older than something before it was written over or cut off.
    let mut newest = 0;
    events.retain(|(_, stamp, _)| {
        newest = newest.max(*stamp);
        *stamp == newest
    });

    let mut kept: Vec<FrameInfo> = Vec::new();
    let mut history: Vec<MarkAt> = Vec::new();
    if let Some(start) = &start {
        let after_seq = first_seq.saturating_sub(1);
        history.push(MarkAt::Alone(MarkRecord {
            after_seq,
            mark: start.mark.clone(),
        }));
    }
    // Of two versions of a frame the newer one comes last.
    events.dedup_by(|later, earlier| {
        let same = matches!((&later.2, &earlier.2), (Event::Frame(a), Event::Frame(b)) if a.seq == b.seq);
        if same {
            std::mem::swap(later, earlier);
        }
        same
    });
    let found_frames = events
        .iter()
        .filter(|(.., event)| matches!(event, Event::Frame(_)))
        .count();
    let newest_end = events.iter().rev().find_map(|(.., event)| event.amounts_after());
    let (mut expected_seq, mut amounts) = (first_seq, start.as_ref().map(|start| start.before));
    for (.., event) in events {
        if is_torn(&event, expected_seq, amounts, newest_end, acknowledged_below) {
            break;
        }
        match event {
            Event::Frame(frame) => {
                (expected_seq, amounts) = (frame.seq + 1, Some(frame.after()));
                kept.push(frame);
                if let Some(root_seq) = frame.head.root_seq {
                    history.push(MarkAt::Frame {
                        seq: frame.seq,
                        root_seq,
                    });
                }
            }
            Event::Mark(record) => history.push(MarkAt::Alone(record)),
        }
    }
    let committed = history.last().map_or(first_seq.saturating_sub(1), MarkAt::after_seq);
    kept.retain(|frame| frame.seq <= committed || frame.seq < acknowledged_below);
    let cut_frames = (found_frames - kept.len()) as u64;

    let before = start
        .as_ref()
        .map(|start| start.before)
        .or_else(|| kept.first().map(|frame| frame.head.before));
    let ledger = ledger
        .into_iter()
        .chain(start.as_ref().map(|start| start.ledger.clone()))
        .max_by_key(Ledger::age);
    Settled {
        first_seq,
        frames: kept,
        marks: history,
        ledger,
        start,
        before: before.unwrap_or_default(),
        cut_frames,
        stamp_max,
        mark_slot,
    }
}

enum Event {
    Frame(FrameInfo),
    Mark(MarkRecord),
}

impl Event {
    fn amounts_after(&self) -> Option<Counters> {
        if let Self::Frame(frame) = self {
            Some(frame.after())
        } else {
            None
        }
    }
}

/// True if frames are missing before `event` because power failed before the fsync of the append they belong to: then
/// none of that append counts. Otherwise what is missing was acknowledged, and is a hole.
///
/// What was acknowledged is known exactly after a kill. After a power cut it may be more than we know; then the amount
/// tells, since no more than a window is ever written without an fsync.
fn is_torn(
    event: &Event,
    expected_seq: u64,
    amounts: Option<Counters>,
    newest_end: Option<Counters>,
    acknowledged_below: u64,
) -> bool {
    match event {
        Event::Frame(frame) if frame.seq > expected_seq && frame.seq >= acknowledged_below => {
            matches!((amounts, newest_end), (Some(from), Some(to)) if to.minus(from).bytes <= TORN_BYTES_MAX)
        }
        Event::Mark(record) => record.after_seq >= expected_seq && record.after_seq >= acknowledged_below,
        Event::Frame(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Mark;

    fn frame(seq: u64, stamp: u32, root_seq: Option<u64>) -> FrameInfo {
        let before = Counters {
            frames: seq - 1,
            records: (seq - 1) * 10,
            bytes: (seq - 1) * 100,
        };
        FrameInfo {
            seq,
            stamp,
            bytes: 100,
            head: FrameHead {
                records: 10,
                before,
                root_seq,
                position_bytes: 0,
            },
        }
    }

    fn mark(after_seq: u64, root_seq: u64) -> MarkRecord {
        MarkRecord {
            after_seq,
            mark: (root_seq > 0).then(|| Mark {
                root_seq,
                position: vec![1],
            }),
        }
    }

    #[test]
    fn what_counts() {
        struct Case {
            name: &'static str,
            frames: Vec<FrameInfo>,
            marks: Vec<(u32, MarkRecord)>,
            end_max: Option<u64>,
            acknowledged_below: u64,
            seqs: Vec<u64>,
            cut: u64,
            root: Option<u64>,
        }
        let cases = [
            Case {
                name: "complete groups",
                frames: vec![frame(1, 1, None), frame(2, 1, Some(5)), frame(3, 1, Some(6))],
                marks: vec![(1, mark(3, 7))],
                end_max: None,
                acknowledged_below: 0,
                seqs: vec![1, 2, 3],
                cut: 0,
                root: Some(7),
            },
            Case {
                name: "an interrupted group is cut",
                frames: vec![frame(1, 1, Some(5)), frame(2, 1, None), frame(3, 1, None)],
                marks: vec![],
                end_max: None,
                acknowledged_below: 2,
                seqs: vec![1],
                cut: 2,
                root: Some(5),
            },
            Case {
                name: "acknowledged frames stay though the mark behind them is lost",
                frames: vec![frame(1, 1, Some(5)), frame(2, 1, None)],
                marks: vec![],
                end_max: None,
                acknowledged_below: 4,
                seqs: vec![1, 2],
                cut: 0,
                root: Some(5),
            },
            Case {
                name: "left-overs of an abandoned append lose against its successor",
                frames: vec![
                    frame(1, 1, Some(5)),
                    frame(2, 1, None),
                    frame(3, 1, None),
                    frame(4, 1, Some(6)),
                    frame(2, 2, None),
                    frame(3, 2, Some(6)),
                ],
                marks: vec![],
                end_max: None,
                acknowledged_below: 0,
                seqs: vec![1, 2, 3],
                cut: 0,
                root: Some(6),
            },
            Case {
                name: "a cut removes the groups and the marks behind it",
                frames: vec![frame(1, 1, Some(5)), frame(2, 1, Some(6)), frame(3, 1, Some(8))],
                marks: vec![(1, mark(1, 5)), (1, mark(2, 7)), (2, mark(1, 5))],
                end_max: None,
                acknowledged_below: 0,
                seqs: vec![1],
                cut: 0,
                root: Some(5),
            },
            Case {
                name: "a cut between two marks behind the same frame",
                frames: vec![frame(1, 1, Some(5))],
                marks: vec![(1, mark(1, 6)), (1, mark(1, 7)), (2, mark(1, 6))],
                end_max: None,
                acknowledged_below: 0,
                seqs: vec![1],
                cut: 0,
                root: Some(6),
            },
            Case {
                name: "a cut back to nothing",
                frames: vec![frame(1, 1, Some(5))],
                marks: vec![(2, mark(0, 0))],
                end_max: None,
                acknowledged_below: 0,
                seqs: vec![],
                cut: 0,
                root: None,
            },
            Case {
                name: "a torn group does not count, though its mark is there",
                frames: vec![frame(1, 1, Some(5)), frame(2, 1, None), frame(4, 1, Some(6))],
                marks: vec![(1, mark(4, 7))],
                end_max: None,
                acknowledged_below: 2,
                seqs: vec![1],
                cut: 2,
                root: Some(5),
            },
            Case {
                name: "nor does a mark whose frames are missing",
                frames: vec![frame(1, 1, Some(5))],
                marks: vec![(1, mark(3, 7))],
                end_max: None,
                acknowledged_below: 2,
                seqs: vec![1],
                cut: 0,
                root: Some(5),
            },
            Case {
                name: "what is missing from acknowledged groups is a hole",
                frames: vec![frame(1, 1, Some(5)), frame(2, 1, None), frame(4, 1, Some(6))],
                marks: vec![(1, mark(6, 7))],
                end_max: None,
                acknowledged_below: 7,
                seqs: vec![1, 2, 4],
                cut: 0,
                root: Some(7),
            },
            Case {
                name: "more than one window is missing: it was acknowledged before the power cut",
                frames: vec![
                    frame(1, 1, Some(5)),
                    FrameInfo {
                        bytes: 3 * TORN_BYTES_MAX,
                        ..frame(4, 1, Some(6))
                    },
                ],
                marks: vec![],
                end_max: None,
                acknowledged_below: 2,
                seqs: vec![1, 4],
                cut: 0,
                root: Some(6),
            },
            Case {
                name: "the next segment's frames are not ours",
                frames: vec![frame(1, 1, Some(5)), frame(2, 1, Some(6)), frame(3, 1, Some(7))],
                marks: vec![],
                end_max: Some(2),
                acknowledged_below: u64::MAX,
                seqs: vec![1],
                cut: 0,
                root: Some(5),
            },
        ];
        for case in cases {
            let start = Start {
                before: Counters::default(),
                ledger: Ledger::default(),
                mark: None,
            };
            let contents = Contents {
                start: Some(start),
                ledger: None,
                frames: case.frames,
                marks: case.marks,
                stamp_max: 2,
                mark_slot: 0,
            };
            let settled = settle(contents, 1, case.end_max, case.acknowledged_below);
            let seqs: Vec<u64> = settled.frames.iter().map(|frame| frame.seq).collect();
            assert_eq!(seqs, case.seqs, "{}", case.name);
            assert_eq!(settled.cut_frames, case.cut, "{}", case.name);
            assert_eq!(settled.marks.last().unwrap().root_seq(), case.root, "{}", case.name);
        }
    }

    #[test]
    fn holes_are_measured_by_the_counters() {
        let frames = [frame(3, 1, None), frame(4, 1, None), frame(8, 1, Some(1))];
        let end = Counters {
            frames: 9,
            records: 90,
            bytes: 900,
        };
        let holes = holes_in(1, Counters::default(), &frames, 20, end);
        assert_eq!(
            holes,
            [
                Hole {
                    first_seq: 1,
                    last_seq: 2,
                    frames: 2,
                    records: 20,
                    bytes: 200
                },
                Hole {
                    first_seq: 5,
                    last_seq: 7,
                    frames: 3,
                    records: 30,
                    bytes: 300
                },
                Hole {
                    first_seq: 9,
                    last_seq: 19,
                    frames: 1,
                    records: 10,
                    bytes: 100
                }
            ]
        );
    }
}
