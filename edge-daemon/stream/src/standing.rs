//! Where the consumer of a stream stands: takes each frame once and in order, answers, and never mixes two epochs. Pure.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use bus_schema::{
    key::SecretKey,
    limits::CREDIT_FRAMES,
    message::{Frame, Resume, SourceMark, StreamOpen},
};
use serde::{Deserialize, Serialize};

/// Losses noticed closer together than this are one and the same.
const REWIND_APART: Duration = Duration::from_millis(200);
/// Most frames waiting for the pipe. A producer that ignores its credit is held off by forgetting what it sends too early.
const QUEUE_FRAMES_MAX: usize = 2 * CREDIT_FRAMES as usize;

/// What a destination keeps as the position of a stream: up to where it is durable, and how far the producer's source was
/// read with that.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The stream's epoch; 0 before anything came.
    pub epoch: u64,
    /// The last frame.
    pub seq: u64,
    /// The producer's source, after that frame.
    pub mark: Option<SourceMark>,
    /// What that frame is known by ([`crate::frames::print`]); 0 when it is not known.
    pub print: u64,
    /// Records of this epoch that the frames so far account for.
    pub records: u64,
    /// Of these, what gaps told of as missing.
    pub dropped: u64,
}

impl Place {
    /// Bytes for a watermark.
    pub fn encode(&self) -> Vec<u8> {
        bus_schema::encode(self)
    }

    /// Reads a watermark's bytes; `None` when they are something else.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        bus_schema::decode(bytes)
    }
}

/// What to answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reaction {
    /// Nothing.
    Nothing,
    /// Nothing: the frame was taken in.
    Queued,
    /// Where this end stands.
    Ack,
    /// The same, and ask to go back.
    Rewind,
}

/// A frame in its place.
#[derive(Debug)]
pub struct Taken {
    /// The stream's epoch.
    pub epoch: u64,
    /// Its number.
    pub seq: u64,
    /// What it is known by.
    pub print: u64,
    /// Records of this epoch that the frames up to it account for.
    pub records: u64,
    /// Of these, what gaps told of as missing.
    pub dropped: u64,
    /// What it says.
    pub frame: Frame,
}

/// Where a stream's consumer stands.
#[derive(Debug, Default)]
pub struct Standing {
    /// The pipe has said where it goes on.
    ready: bool,
    /// It has said so at least once.
    resumed: bool,
    epoch: u64,
    key: Option<SecretKey>,
    received: u64,
    /// What the frame `received` is known by, and what the frames up to it account for.
    print: u64,
    records: u64,
    dropped: u64,
    /// Up to where the destination is known to have it.
    durable: Place,
    /// Where this life of the consumer began in this epoch.
    began: u64,
    /// Frames given to the pipe so far, and so the base of the credit.
    taken: u64,
    /// The last frame given to the pipe that was whole, or completed a batch: what came after it cannot become durable by
    /// itself.
    complete: u64,
    queue: VecDeque<Taken>,
    /// Records that came again, not told to the pipe yet.
    duplicates: u64,
    /// Epochs that ended, not told to the pipe yet.
    ended: u64,
    rewound_at: Option<Instant>,
    trouble: String,
}

impl Standing {
    /// The pipe goes on after this place.
    pub fn resume(&mut self, place: Place) {
        // The first place comes from the destination and is durable. A later one, after a fault of this source, is where
        // reading stopped, and what lies between is still on its way. Anything else comes from the destination again, which
        // was taken to another state: an older one, or one it had before.
        let stopped_here = place == self.durable
            || place.epoch == self.epoch
                && place.seq <= self.taken
                && (place.epoch, place.seq) > (self.durable.epoch, self.durable.seq);
        // A key learned before the pipe was ready stays good for its own epoch.
        if self.epoch != place.epoch {
            self.key = None;
        }
        self.ready = true;
        self.epoch = place.epoch;
        self.received = place.seq;
        (self.print, self.records, self.dropped) = (place.print, place.records, place.dropped);
        self.taken = place.seq;
        self.complete = place.seq;
        self.queue.clear();
        if !std::mem::replace(&mut self.resumed, true) || !stopped_here {
            self.began = place.seq;
            self.durable = place;
        }
    }

    /// The pipe is closed: nothing is taken until it says where it goes on.
    pub fn pause(&mut self) {
        self.ready = false;
    }

    /// The producer opens the stream.
    pub fn open(&mut self, open: &StreamOpen) -> Reaction {
        if !self.ready {
            return Reaction::Nothing;
        }
        if open.epoch < self.epoch {
            self.trouble = format!(
                "the producer speaks in epoch {}, but epoch {} has been seen: its data directory was copied or restored",
                open.epoch, self.epoch
            );
            // The answer tells which epoch is the newest, so that it can begin one above it.
            return Reaction::Ack;
        }
        if open.epoch > self.epoch {
            // What came of the old epoch is delivered first: only then can it be said where that one ended. The producer
            // asks again.
            if self.is_busy() {
                return Reaction::Nothing;
            }
            self.ended += u64::from(self.epoch > 0);
            self.epoch = open.epoch;
            self.received = 0;
            (self.print, self.records, self.dropped) = (0, 0, 0);
            self.taken = 0;
            self.complete = 0;
            self.began = 0;
        }
        self.key = Some(open.key.clone());
        self.trouble.clear();
        Reaction::Ack
    }

    /// Whether something received will yet become durable. The first parts of a batch whose rest is lost with its epoch
    /// will not.
    fn is_busy(&self) -> bool {
        !self.queue.is_empty() || self.complete > self.watermark()
    }

    /// A frame arrived, known by `print`.
    pub fn frame(&mut self, epoch: u64, seq: u64, print: u64, frame: Frame, now: Instant) -> Reaction {
        if !self.ready || epoch != self.epoch {
            return Reaction::Nothing;
        }
        let expected = self.received + 1;
        let first = match &frame {
            Frame::Gap { first_seq, .. } => *first_seq,
            Frame::Batch(_) | Frame::Part { .. } => seq,
        };
        if seq < expected {
            self.duplicates += records(&frame);
            return Reaction::Nothing;
        }
        // A gap that begins before what is expected was counted from another place: the producer counts it again.
        if first == expected {
            if self.queue.len() >= QUEUE_FRAMES_MAX {
                return Reaction::Nothing;
            }
            self.received = seq;
            self.print = print;
            self.records = self.records.saturating_add(accounted(&frame));
            self.dropped = self.dropped.saturating_add(missing(&frame));
            self.queue.push_back(Taken {
                epoch,
                seq,
                print,
                records: self.records,
                dropped: self.dropped,
                frame,
            });
            return Reaction::Queued;
        }
        self.missed(now)
    }

    /// Something came before which something is missing.
    pub fn missed(&mut self, now: Instant) -> Reaction {
        if self.rewound_at.is_some_and(|at| now.duration_since(at) < REWIND_APART) {
            return Reaction::Nothing;
        }
        self.rewound_at = Some(now);
        Reaction::Rewind
    }

    /// The next frame for the pipe.
    pub fn take(&mut self) -> Option<Taken> {
        let next = self.queue.pop_front()?;
        self.taken = next.seq;
        let is_whole = match &next.frame {
            Frame::Part { index, count, .. } => index + 1 >= *count,
            Frame::Batch(_) | Frame::Gap { .. } => true,
        };
        if is_whole {
            self.complete = next.seq;
        }
        Some(next)
    }

    /// Everything up to this place is durable at the destination.
    pub fn commit(&mut self, place: Place) {
        if (place.epoch, place.seq) > (self.durable.epoch, self.durable.seq) {
            self.durable = place;
        }
    }

    /// Records that came again since the last call.
    pub fn take_duplicates(&mut self) -> u64 {
        std::mem::take(&mut self.duplicates)
    }

    /// Records that came again and have not been told yet.
    pub fn duplicates(&self) -> u64 {
        self.duplicates
    }

    /// Epochs that ended since the last call.
    pub fn take_ended(&mut self) -> u64 {
        std::mem::take(&mut self.ended)
    }

    /// What kind of loss a gap over settled records is that begins at `first_seq`. `true`: the destination has forgotten how
    /// far it was, the records are there. `false`: it has gone back, as one restored from a backup, and they are not.
    pub fn has_forgotten(&self, first_seq: u64) -> bool {
        self.began == 0 && first_seq == 1
    }

    /// Where an older epoch ended, as long as nothing of this one is durable.
    pub fn resume_point(&self) -> Option<Resume> {
        let is_older = self.durable.epoch > 0 && self.durable.epoch != self.epoch;
        is_older.then(|| Resume {
            epoch: self.durable.epoch,
            watermark: self.durable.seq,
            mark: self.durable.mark.clone(),
        })
    }

    /// Whether the pipe has said where it goes on.
    pub fn is_ready(&self) -> bool {
        self.ready
    }

    /// The key of the present epoch.
    pub fn key(&self) -> Option<&SecretKey> {
        self.key.as_ref()
    }

    /// The present epoch.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Highest seq received in order.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// What the frame `received` is known by; 0 when it is not known.
    pub fn print(&self) -> u64 {
        self.print
    }

    /// Records of the present epoch that the frames up to `received` account for.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// Highest seq given to the pipe.
    pub fn taken(&self) -> u64 {
        self.taken
    }

    /// Highest seq of the present epoch that is durable.
    pub fn watermark(&self) -> u64 {
        if self.durable.epoch == self.epoch {
            self.durable.seq
        } else {
            0
        }
    }

    /// What holds it up, in words; empty when nothing does.
    pub fn trouble(&self) -> &str {
        &self.trouble
    }

    /// Something holds it up.
    pub fn set_trouble(&mut self, trouble: impl Into<String>) {
        self.trouble = trouble.into();
    }
}

/// Records a frame accounts for, here or missing.
fn accounted(frame: &Frame) -> u64 {
    match *frame {
        Frame::Gap { settled, .. } => missing(frame).saturating_add(settled),
        _ => records(frame),
    }
}

/// Records a frame tells of as missing.
fn missing(frame: &Frame) -> u64 {
    match *frame {
        Frame::Gap { dropped, lost, .. } => dropped.saturating_add(lost),
        _ => 0,
    }
}

/// Records a frame carries. Of a batch in parts, the last part stands for all.
fn records(frame: &Frame) -> u64 {
    match frame {
        Frame::Batch(packed) => u64::from(packed.records),
        Frame::Part {
            index, count, records, ..
        } if index + 1 == *count => u64::from(*records),
        Frame::Part { .. } | Frame::Gap { .. } => 0,
    }
}

#[cfg(test)]
mod tests {
    use bus_schema::{
        id::StreamId,
        message::{Codec, Packed},
    };

    use super::*;

    fn open(epoch: u64) -> StreamOpen {
        StreamOpen {
            stream: StreamId::from_hash(&[1; 32]),
            epoch,
            key: SecretKey::new([1; 32]),
            first_seq: 1,
            next_seq: 1,
            clocks: Vec::new(),
        }
    }

    fn place(epoch: u64, seq: u64) -> Place {
        let mark = SourceMark {
            root_seq: seq,
            position: vec![seq as u8],
        };
        Place {
            epoch,
            seq,
            mark: (seq > 0).then_some(mark),
            ..Place::default()
        }
    }

    fn batch() -> Frame {
        Frame::Batch(Packed {
            records: 3,
            codec: Codec::Plain,
            bytes: Vec::new(),
            mark: None,
        })
    }

    fn gap(first_seq: u64) -> Frame {
        Frame::Gap {
            first_seq,
            dropped: 1,
            lost: 0,
            settled: 0,
        }
    }

    #[test]
    fn frames_are_taken_once_and_in_order() {
        let start = Instant::now();
        let mut standing = Standing::default();
        assert_eq!(
            standing.open(&open(3)),
            Reaction::Nothing,
            "not before the pipe is ready"
        );
        standing.resume(Place::default());
        assert_eq!(standing.open(&open(3)), Reaction::Ack);
        for (step, (seq, frame, expected)) in [
            (1, batch(), Reaction::Queued),
            (1, batch(), Reaction::Nothing),
            (3, batch(), Reaction::Rewind),
            (2, batch(), Reaction::Queued),
            (7, gap(4), Reaction::Rewind),
            (7, gap(2), Reaction::Rewind),
            (7, gap(3), Reaction::Queued),
            (8, batch(), Reaction::Queued),
            (7, gap(3), Reaction::Nothing),
        ]
        .into_iter()
        .enumerate()
        {
            let now = start + REWIND_APART * step as u32;
            assert_eq!(standing.frame(3, seq, seq * 7, frame, now), expected, "step {step}");
        }
        assert_eq!(
            standing.frame(3, 10, 0, batch(), start + REWIND_APART * 9),
            Reaction::Rewind
        );
        assert_eq!(
            standing.frame(3, 11, 0, batch(), start + REWIND_APART * 9),
            Reaction::Nothing,
            "once"
        );
        assert_eq!((standing.received(), standing.take_duplicates()), (8, 3));
        assert_eq!(
            standing.frame(2, 9, 0, batch(), start),
            Reaction::Nothing,
            "another epoch"
        );
        // What the last one is known by, and what all of them account for: three batches of three and a gap of one.
        assert_eq!((standing.print(), standing.records()), (8 * 7, 10));
        let taken: Vec<[u64; 4]> = std::iter::from_fn(|| standing.take())
            .map(|taken| [taken.seq, taken.print, taken.records, taken.dropped])
            .collect();
        assert_eq!(taken, [[1, 7, 3, 0], [2, 14, 6, 0], [7, 49, 7, 1], [8, 56, 10, 1]]);
        standing.resume(Place {
            print: 14,
            records: 6,
            ..place(3, 2)
        });
        assert_eq!((standing.print(), standing.records()), (14, 6));
    }

    #[test]
    fn epochs_never_mix() {
        let mut standing = Standing::default();
        standing.resume(place(5, 40));
        // One that speaks in an older epoch is told which is the newest; nothing of it is taken.
        assert_eq!(standing.open(&open(4)), Reaction::Ack);
        assert!(!standing.trouble().is_empty());
        assert_eq!((standing.epoch(), standing.key().is_none()), (5, true));
        assert_eq!(standing.frame(4, 41, 0, batch(), Instant::now()), Reaction::Nothing);
        assert_eq!(standing.open(&open(5)), Reaction::Ack);
        assert_eq!((standing.received(), standing.resume_point()), (40, None));
        assert_eq!(standing.frame(5, 41, 0, batch(), Instant::now()), Reaction::Queued);
        // Something of the old epoch is on its way: nobody knows yet where that one will have ended.
        assert_eq!(standing.open(&open(6)), Reaction::Nothing);
        standing.take();
        standing.commit(place(5, 41));
        assert_eq!(standing.open(&open(6)), Reaction::Ack);
        assert_eq!(
            (standing.received(), standing.watermark(), standing.take_ended()),
            (0, 0, 1)
        );
        let point = standing.resume_point().unwrap();
        assert_eq!((point.epoch, point.watermark, &point.mark), (5, 41, &place(5, 41).mark));
        // It is told until something of the new epoch is durable, over a restart of the consumer too.
        let mut again = Standing::default();
        again.resume(place(5, 41));
        assert_eq!(again.open(&open(6)), Reaction::Ack);
        assert_eq!(again.resume_point(), Some(point));
        again.commit(place(6, 1));
        assert_eq!((again.resume_point(), again.watermark()), (None, 1));
    }

    #[test]
    fn half_a_batch_does_not_keep_an_epoch_alive() {
        let part = |index| Frame::Part {
            index,
            count: 3,
            records: 1,
            bytes: Vec::new(),
        };
        for (parts, ends) in [(2, true), (3, false)] {
            let mut standing = Standing::default();
            standing.resume(place(5, 7));
            standing.open(&open(5));
            for index in 0..parts {
                standing.frame(5, 8 + u64::from(index), 0, part(index), Instant::now());
            }
            // What waits for the pipe may be anything.
            assert_eq!(standing.open(&open(6)), Reaction::Nothing, "{parts}");
            while standing.take().is_some() {}
            assert_eq!(standing.open(&open(6)) == Reaction::Ack, ends, "{parts}");
            standing.commit(place(5, 10));
            assert_eq!(standing.open(&open(6)), Reaction::Ack, "{parts}");
        }
    }

    #[test]
    fn a_destination_that_is_in_another_state_takes_the_watermark_with_it() {
        for (back, forgotten) in [
            (place(5, 3), false),
            (place(4, 90), false),
            (Place::default(), true),
            // Back to the one it had failed over from.
            (place(5, 9), false),
            (place(6, 1), false),
        ] {
            let mut standing = Standing::default();
            standing.resume(place(5, 7));
            standing.open(&open(5));
            standing.frame(5, 8, 0, batch(), Instant::now());
            standing.take();
            // The source itself failed, and goes on where reading was.
            standing.resume(place(5, 8));
            assert_eq!((standing.received(), standing.watermark()), (8, 7));
            standing.commit(place(5, 8));
            standing.resume(back.clone());
            // A watermark above what was received is nonsense to the producer: it would never answer again. One below keeps
            // the epoch alive for ever.
            assert_eq!(standing.watermark(), standing.received(), "{back:?}");
            assert_eq!((standing.epoch(), standing.received()), (back.epoch, back.seq));
            assert_eq!(standing.has_forgotten(1), forgotten, "{back:?}");
        }
    }

    #[test]
    fn a_destination_that_forgot_is_told_from_one_that_went_back() {
        for (began, first_seq, forgotten) in [(0, 1, true), (0, 5, false), (40, 41, false)] {
            let mut standing = Standing::default();
            standing.resume(place(5, began));
            assert_eq!(standing.has_forgotten(first_seq), forgotten, "{began}, {first_seq}");
        }
    }
}
