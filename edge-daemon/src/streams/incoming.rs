//! The consuming end of a stream: a source whose records come from the bus, in order, once, and whose commits become
//! watermarks. What it holds in memory is bounded by the credit it gives.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use bus_link::secure::Secure;
use bus_schema::{
    data::{Batch, Ops, Origin, Schema},
    id::WorkflowId,
    key::SecretKey,
    limits::CREDIT_FRAMES,
    message::{Frame, Ledger, Side, StreamAck, StreamOpen, StreamReport},
    plan::StreamSpec,
    subject::{self, Subject},
};
use flow::{Fault, Meter, Position, READ_WAIT_MAX, Read, Source, SourceBatch, Undecodable};
use tokio::sync::Notify;

use super::{Streams, frames};

/// Losses noticed closer together than this are one and the same.
const REWIND_APART: Duration = Duration::from_millis(200);

/// Where a stream's consumer stands. All decisions are methods here; no I/O.
#[derive(Debug, Default)]
struct Standing {
    /// The pipe has said where it goes on.
    ready: bool,
    /// It has said so at least once.
    resumed: bool,
    epoch: u64,
    key: Option<SecretKey>,
    received: u64,
    watermark: u64,
    /// Frames given to the pipe so far, and so the base of the credit.
    taken: u64,
    queue: VecDeque<(u64, u64, Frame)>,
    duplicates: u64,
    rewound_at: Option<Instant>,
    trouble: String,
}

#[derive(Debug, PartialEq, Eq)]
enum Reaction {
    Nothing,
    /// Taken in.
    Queued,
    /// Answer with where this end stands.
    Ack,
    /// Answer, and ask to go back.
    Rewind,
}

impl Standing {
    fn resume(&mut self, epoch: u64, seq: u64) {
        // A key learned before the pipe was ready stays good for its own epoch.
        if self.epoch != epoch {
            self.key = None;
        }
        self.ready = true;
        self.epoch = epoch;
        self.received = seq;
        // The first position comes from the destination and is durable; a later one, after a fault of this source, is
        // where reading stopped, and what lies between is still on its way.
        if !std::mem::replace(&mut self.resumed, true) {
            self.watermark = seq;
        }
        self.taken = seq;
        self.queue.clear();
    }

    fn open(&mut self, open: &StreamOpen) -> Reaction {
        if !self.ready {
            return Reaction::Nothing;
        }
        if open.epoch < self.epoch {
            self.trouble = format!(
                "the producer speaks in epoch {}, but epoch {} has been seen: its data directory was copied or restored",
                open.epoch, self.epoch
            );
            return Reaction::Nothing;
        }
        if open.epoch > self.epoch {
            if self.epoch > 0 {
                tracing::warn!(
                    epoch = open.epoch,
                    before = self.epoch,
                    "the producer lost its buffer and starts anew"
                );
            }
            self.epoch = open.epoch;
            self.received = 0;
            self.watermark = 0;
            self.taken = 0;
        }
        self.key = Some(open.key.clone());
        self.trouble.clear();
        Reaction::Ack
    }

    fn frame(&mut self, epoch: u64, seq: u64, frame: Frame, now: Instant) -> Reaction {
        if !self.ready || epoch != self.epoch {
            return Reaction::Nothing;
        }
        let expected = self.received + 1;
        let follows = match &frame {
            Frame::Gap { first_seq, .. } => *first_seq <= expected && seq >= expected,
            _ => seq == expected,
        };
        if follows {
            // A producer that ignores the credit is held off by forgetting what it sends too early.
            if self.queue.len() as u64 >= 2 * CREDIT_FRAMES {
                return Reaction::Nothing;
            }
            self.received = seq;
            self.queue.push_back((epoch, seq, frame));
            return Reaction::Queued;
        }
        if seq < expected {
            self.duplicates += 1;
            return Reaction::Nothing;
        }
        if self.rewound_at.is_some_and(|at| now.duration_since(at) < REWIND_APART) {
            return Reaction::Nothing;
        }
        self.rewound_at = Some(now);
        Reaction::Rewind
    }
}

/// One incoming stream.
pub struct Incoming {
    spec: StreamSpec,
    workflow: WorkflowId,
    subject: Subject,
    secure: Arc<Secure>,
    standing: Mutex<Standing>,
    arrived: Notify,
    meter: Arc<Meter>,
}

/// A position of an incoming stream: epoch and seq.
fn position(epoch: u64, seq: u64) -> Position {
    Position::new(bus_schema::encode(&(epoch, seq)))
}

fn read_position(position: &Position) -> Option<(u64, u64)> {
    bus_schema::decode(position.as_bytes())
}

impl Incoming {
    /// An incoming stream whose pipe delivers into a leaf with this meter.
    pub fn new(secure: Arc<Secure>, workflow: WorkflowId, spec: StreamSpec, meter: Arc<Meter>) -> Arc<Self> {
        Arc::new(Self {
            subject: subject::ack(secure.fleet(), secure.node(), &spec.stream),
            spec,
            workflow,
            secure,
            standing: Mutex::default(),
            arrived: Notify::new(),
            meter,
        })
    }

    /// As the plan has it.
    pub fn spec(&self) -> &StreamSpec {
        &self.spec
    }

    /// The subject its acknowledgements go out on.
    pub fn ack_subject(&self) -> &Subject {
        &self.subject
    }

    fn lock(&self) -> MutexGuard<'_, Standing> {
        // A panic while this was held leaves plain values behind.
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The source of this stream.
    pub fn source(self: &Arc<Self>, streams: Arc<Streams>) -> Box<dyn Source> {
        Box::new(Consumer {
            incoming: Arc::clone(self),
            streams,
            assembly: frames::Assembly::default(),
        })
    }

    /// The producer opens the stream. `true` when an answer is due.
    pub fn opened(&self, open: &StreamOpen) -> bool {
        self.lock().open(open) == Reaction::Ack
    }

    /// A sealed frame arrived. `Some(rewind)` when an answer is due.
    pub fn frame(&self, subject: &Subject, frame: &[u8], now: Instant) -> Option<bool> {
        let Some(key) = self.lock().key.clone() else {
            // Restarted in the middle: the producer must open the stream again.
            return self.lock().ready.then_some(false);
        };
        let (epoch, seq, plaintext) = match self.secure.open_frame(subject, frame, &self.spec.stream, &key) {
            Ok(opened) => opened,
            Err(error) => {
                tracing::warn!(edge = self.spec.edge, %error, "a frame was refused");
                return None;
            }
        };
        let frame = match frames::read(&plaintext) {
            Ok(frame) => frame,
            Err(error) => {
                // Signed by the producer and yet unreadable: a newer version. Waiting for an update loses nothing.
                self.lock().trouble = error.to_string();
                return None;
            }
        };
        let reaction = self.lock().frame(epoch, seq, frame, now);
        match reaction {
            Reaction::Queued => {
                crash_point::at!(IncomingAfterQueue);
                self.arrived.notify_one();
                None
            }
            Reaction::Ack => Some(false),
            Reaction::Rewind => Some(true),
            Reaction::Nothing => None,
        }
    }

    /// What to tell the producer now. `None` before the pipe knows where it goes on.
    pub fn ack(&self, rewind: bool, window: u64) -> Option<StreamAck> {
        let standing = self.lock();
        standing.ready.then(|| StreamAck {
            stream: self.spec.stream,
            epoch: if standing.key.is_some() { standing.epoch } else { 0 },
            watermark: standing.watermark,
            received: standing.received,
            credit: standing.taken + window,
            rewind,
            dead: self.meter.account().dead,
            trouble: standing.trouble.clone(),
        })
    }

    /// The stream's account, as this end sees it.
    pub fn report(&self) -> StreamReport {
        let standing = self.lock();
        // Both from one moment. What has been acknowledged may be a little older.
        let mark = self.meter.mark();
        let durable = read_position(&mark.position).filter(|(epoch, _)| *epoch == standing.epoch);
        StreamReport {
            stream: self.spec.stream,
            workflow: self.workflow,
            edge: self.spec.edge.clone(),
            side: Side::Consumer,
            epoch: standing.epoch,
            watermark: durable.map_or(standing.watermark, |(_, seq)| seq),
            ledger: Ledger {
                duplicates: standing.duplicates,
                ..self.meter.account_at(&mark)
            },
            buffered_bytes: 0,
            trouble: standing.trouble.clone(),
        }
    }
}

/// The source at a pipe's beginning.
struct Consumer {
    incoming: Arc<Incoming>,
    streams: Arc<Streams>,
    assembly: frames::Assembly,
}

#[async_trait]
impl Source for Consumer {
    async fn open(&mut self, after: Option<&Position>) -> Result<(), Fault> {
        let (epoch, seq) = match after {
            Some(after) => read_position(after).ok_or_else(|| {
                Fault::stop(format!(
                    "the watermark of {} is not one of this stream",
                    self.incoming.spec.edge
                ))
            })?,
            None => (0, 0),
        };
        self.assembly = frames::Assembly::default();
        self.incoming.lock().resume(epoch, seq);
        // A hello: without a key it asks the producer to open the stream.
        self.streams.want_ack(&self.incoming, false);
        Ok(())
    }

    async fn read(&mut self) -> Result<Read, Fault> {
        let deadline = tokio::time::Instant::now() + READ_WAIT_MAX;
        loop {
            let next = {
                let mut standing = self.incoming.lock();
                let next = standing.queue.pop_front();
                if let Some((epoch, seq, _)) = &next
                    && *epoch == standing.epoch
                {
                    standing.taken = *seq;
                }
                next
            };
            let Some((epoch, seq, frame)) = next else {
                if tokio::time::timeout_at(deadline, self.incoming.arrived.notified())
                    .await
                    .is_err()
                {
                    return Ok(Read::Idle);
                }
                continue;
            };
            // Before the credit runs dry, say that there is room again.
            if seq.is_multiple_of((self.streams.window() / 4).max(1)) {
                self.streams.want_ack(&self.incoming, false);
            }
            let is_gap = matches!(frame, Frame::Gap { .. });
            if let Frame::Gap { first_seq, cause, .. } = &frame {
                tracing::warn!(
                    edge = self.incoming.spec.edge,
                    first_seq,
                    last_seq = seq,
                    cause,
                    "records are missing"
                );
            }
            let mut undecodable = Vec::new();
            let batch = match self.assembly.take(frame) {
                Ok(Some(batch)) => batch,
                // Carries the position past the gap.
                Ok(None) if is_gap => empty()?,
                Ok(None) => continue,
                Err(error) => {
                    // The rest of a record whose beginning was lost to a gap, or a batch of a newer program. It will not
                    // get better by trying again, and what follows must not wait for it.
                    let reason = format!("frame {seq} of {}: {error}", self.incoming.spec.edge);
                    tracing::error!(reason, "a frame could not be read");
                    let bytes = Vec::new();
                    undecodable.push(Undecodable { bytes, reason });
                    empty()?
                }
            };
            let position = position(epoch, seq);
            crash_point::at!(IncomingBeforeHandOver);
            return Ok(Read::Batch(SourceBatch {
                batch,
                position,
                undecodable,
            }));
        }
    }

    async fn commit(&mut self, position: &Position) -> Result<(), Fault> {
        let Some((epoch, seq)) = read_position(position) else {
            return Ok(());
        };
        {
            let mut standing = self.incoming.lock();
            if epoch == standing.epoch {
                standing.watermark = standing.watermark.max(seq);
            }
        }
        crash_point::at!(IncomingBeforeAck);
        self.streams.want_ack(&self.incoming, false);
        crash_point::at!(IncomingAfterAck);
        Ok(())
    }

    async fn close(&mut self) {
        self.incoming.lock().ready = false;
    }
}

fn empty() -> Result<Batch, Fault> {
    let schema = Schema {
        collection: String::new(),
        fields: Vec::new(),
    };
    Batch::new(
        Arc::new(schema),
        Vec::new(),
        Ops::All(bus_schema::data::Op::Insert),
        Origin::default(),
    )
    .map_err(|error| Fault::retry(error.to_string()))
}

#[cfg(test)]
mod tests {
    use bus_schema::id::StreamId;

    use super::*;

    fn open(epoch: u64) -> StreamOpen {
        let stream = StreamId::from_hash(&[1; 32]);
        StreamOpen {
            stream,
            epoch,
            key: SecretKey::new([1; 32]),
            first_seq: 1,
            next_seq: 1,
        }
    }

    #[test]
    fn frames_are_taken_once_and_in_order() {
        let now = Instant::now();
        let batch = || Frame::Batch(vec![]);
        let gap = |first_seq| Frame::Gap {
            first_seq,
            records: 0,
            cause: String::new(),
        };
        let mut standing = Standing::default();
        assert_eq!(
            standing.open(&open(1)),
            Reaction::Nothing,
            "not before the pipe is ready"
        );
        standing.resume(0, 0);
        assert_eq!(standing.open(&open(3)), Reaction::Ack);
        for (seq, frame, expected) in [
            (1, batch(), Reaction::Queued),
            (1, batch(), Reaction::Nothing),
            (3, batch(), Reaction::Rewind),
            (4, batch(), Reaction::Nothing),
            (2, batch(), Reaction::Queued),
            (7, gap(4), Reaction::Nothing),
            (7, gap(3), Reaction::Queued),
            (8, batch(), Reaction::Queued),
        ] {
            assert_eq!(standing.frame(3, seq, frame, now), expected, "seq {seq}");
        }
        assert_eq!((standing.received, standing.duplicates), (8, 1));
        assert_eq!(standing.frame(2, 9, batch(), now), Reaction::Nothing, "another epoch");
    }

    #[test]
    fn epochs_never_mix() {
        let mut standing = Standing::default();
        standing.resume(5, 40);
        assert_eq!(standing.open(&open(4)), Reaction::Nothing);
        assert!(!standing.trouble.is_empty());
        assert_eq!(standing.open(&open(5)), Reaction::Ack);
        assert_eq!(standing.received, 40);
        assert_eq!(standing.open(&open(6)), Reaction::Ack);
        assert_eq!((standing.received, standing.watermark), (0, 0));
    }
}
