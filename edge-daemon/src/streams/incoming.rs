//! The consuming end of a stream: a source whose records come from the bus, in order, once, and whose commits become
//! watermarks. What it holds in memory is bounded by the credit it gives.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use async_trait::async_trait;
use bus_link::secure::Secure;
use bus_schema::{
    data::{Batch, Ops, Origin, Schema},
    id::WorkflowId,
    message::{Frame, Ledger, Side, SourceMark, StreamAck, StreamOpen, StreamReport},
    piece::Piece,
    plan::StreamSpec,
    subject::{self, Subject},
};
use flow::{Fault, Meter, Position, READ_WAIT_MAX, Read, Source, SourceBatch, Tally, Undecodable, Watermark};
use stream::{
    clocks::Boots,
    frames::{self, Arrived},
    pieces::{Fitted, Pieces},
    standing::{Place, Reaction, Standing, Taken},
};
use tokio::sync::Notify;

use super::Streams;

/// One incoming stream.
pub struct Incoming {
    spec: StreamSpec,
    workflow: WorkflowId,
    subject: Subject,
    secure: Arc<Secure>,
    standing: Mutex<Standing>,
    /// Locked while `standing` is, or alone; never the other way round.
    pieces: Mutex<Pieces>,
    /// When the producer's boots began.
    boots: Mutex<Boots>,
    arrived: Notify,
    meter: Arc<Meter>,
}

/// Whether what arrived asks for an acknowledgement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// No.
    None,
    /// Only that it has arrived, which may wait a moment.
    Soon,
    /// At once.
    Now {
        /// Something before it is missing: go back.
        rewind: bool,
    },
}

/// The place that a watermark's position stands for.
fn place_of(position: &Position) -> Option<Place> {
    Place::decode(position.bookmark())
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
            pieces: Mutex::default(),
            boots: Mutex::default(),
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

    fn pieces(&self) -> MutexGuard<'_, Pieces> {
        // The same.
        self.pieces.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The source of this stream.
    pub fn source(self: &Arc<Self>, streams: Arc<Streams>) -> Box<dyn Source> {
        Box::new(Consumer {
            incoming: Arc::clone(self),
            streams,
            assembly: frames::Assembly::default(),
            epoch: 0,
            mark: None,
            tally: Tally::default(),
        })
    }

    /// The producer opens the stream. `true` when an answer is due.
    pub fn opened(&self, open: &StreamOpen) -> bool {
        self.boots().learn(&open.clocks);
        let mut standing = self.lock();
        let before = standing.epoch();
        let reaction = standing.open(open);
        let epoch = standing.epoch();
        if epoch > before && before > 0 {
            let edge = &self.spec.edge;
            tracing::warn!(edge, epoch, before, "the producer lost its buffer and starts anew");
        }
        reaction == Reaction::Ack
    }

    fn boots(&self) -> MutexGuard<'_, Boots> {
        self.boots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A sealed frame, or a piece of one, arrived.
    pub fn arrived(&self, subject: &Subject, bytes: &[u8], now: Instant) -> Answer {
        if !Piece::is_one(bytes) {
            return self.frame(subject, bytes, now).unwrap_or(Answer::None);
        }
        let Some(piece) = Piece::decode(bytes) else {
            tracing::warn!(edge = self.spec.edge, "a piece of a frame was refused");
            return Answer::None;
        };
        let fitted = {
            let standing = self.lock();
            match (standing.is_ready(), standing.key()) {
                (false, _) => return Answer::None,
                (true, None) => return Answer::Now { rewind: false },
                (true, Some(_)) => self.pieces().take(&piece, standing.epoch(), standing.received()),
            }
        };
        match fitted {
            Fitted::Nothing => Answer::None,
            Fitted::Added => Answer::Soon,
            Fitted::Missing => self.missed(now),
            // Spoilt on the way: once more from its beginning.
            Fitted::Whole(frame) => self.frame(subject, &frame, now).unwrap_or_else(|| self.missed(now)),
        }
    }

    /// Something is missing.
    fn missed(&self, now: Instant) -> Answer {
        match self.lock().missed(now) {
            Reaction::Rewind => Answer::Now { rewind: true },
            _ => Answer::None,
        }
    }

    /// A whole sealed frame arrived. `None` when it is not genuine.
    fn frame(&self, subject: &Subject, frame: &[u8], now: Instant) -> Option<Answer> {
        let Some(key) = self.lock().key().cloned() else {
            // Restarted in the middle: the producer must open the stream again.
            let is_ready = self.lock().is_ready();
            return Some(if is_ready {
                Answer::Now { rewind: false }
            } else {
                Answer::None
            });
        };
        let print = frames::print(frame);
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
                self.lock().set_trouble(error.to_string());
                return Some(Answer::None);
            }
        };
        let mut standing = self.lock();
        Some(match standing.frame(epoch, seq, print, frame, now) {
            Reaction::Queued => {
                self.pieces().settle(standing.epoch(), standing.received());
                drop(standing);
                crash_point::at!(IncomingAfterQueue);
                self.arrived.notify_one();
                Answer::Soon
            }
            Reaction::Ack => Answer::Now { rewind: false },
            Reaction::Rewind => Answer::Now { rewind: true },
            Reaction::Nothing => Answer::None,
        })
    }

    /// What to tell the producer now. `None` before the pipe knows where it goes on.
    pub fn ack(&self, rewind: bool, window: u64) -> Option<StreamAck> {
        let standing = self.lock();
        standing.is_ready().then(|| StreamAck {
            stream: self.spec.stream,
            epoch: standing.key().map_or(0, |_| standing.epoch()),
            watermark: standing.watermark(),
            received: standing.received(),
            credit: standing.taken() + window,
            rewind,
            partial_bytes: self.pieces().bytes(standing.epoch(), standing.received()),
            dead: self.settled(&self.meter.mark()).dead,
            resume: standing.resume_point(),
            trouble: standing.trouble().to_string(),
            newest: standing.epoch(),
            print: standing.print(),
            records: standing.records(),
        })
    }

    /// The account of this end in records as they came, which is how the producer counts them: what transforms left out on
    /// the way to the destination is done with, and what they made never came. Of records that were made out of few, more
    /// may have died than came.
    fn settled(&self, mark: &Watermark) -> Ledger {
        let account = self.meter.account_at(mark);
        let filtered = mark.counts.filtered;
        let settled = (account.delivered + account.dead).saturating_add_signed(filtered);
        let dead = account.dead.min(settled);
        Ledger {
            delivered: settled - dead,
            dead,
            filtered: u64::try_from(filtered).unwrap_or(0),
            ..account
        }
    }

    /// The stream's account, as this end sees it.
    pub fn report(&self) -> StreamReport {
        let standing = self.lock();
        // Both from one moment. What has been acknowledged may be a little older.
        let mark = self.meter.mark();
        let durable = place_of(&mark.position).filter(|place| place.epoch == standing.epoch());
        let settled = self.settled(&mark);
        let ledger = Ledger {
            duplicates: settled.duplicates + standing.duplicates(),
            ..settled
        };
        // Of this epoch, as the destination has it.
        let (records, dropped) = durable.as_ref().map_or((0, 0), |place| (place.records, place.dropped));
        StreamReport {
            stream: self.spec.stream,
            workflow: self.workflow,
            edge: self.spec.edge.clone(),
            side: Side::Consumer,
            epoch: standing.epoch(),
            watermark: durable.map_or(standing.watermark(), |place| place.seq),
            ledger,
            dead_before: 0,
            settled_earlier: (ledger.delivered + ledger.dead).saturating_sub(records.saturating_sub(dropped)),
            dropped_earlier: ledger.dropped.saturating_sub(dropped),
            buffered_bytes: 0,
            gaps: mark.counts.gaps,
            trouble: standing.trouble().to_string(),
        }
    }
}

/// The source at a pipe's beginning.
struct Consumer {
    incoming: Arc<Incoming>,
    streams: Arc<Streams>,
    assembly: frames::Assembly,
    /// Whose parts are in it.
    epoch: u64,
    /// The producer's source, as of the last batch that said so.
    mark: Option<SourceMark>,
    /// What the last batch settles besides its records.
    tally: Tally,
}

impl Consumer {
    /// The next frame, waiting for it until the deadline.
    async fn next(&self, deadline: tokio::time::Instant) -> Option<Taken> {
        loop {
            let taken = self.incoming.lock().take();
            if taken.is_some() {
                return taken;
            }
            let arrived = self.incoming.arrived.notified();
            tokio::time::timeout_at(deadline, arrived).await.ok()?;
        }
    }

    /// What a gap means here.
    fn gap(&self, seq: u64, frame: &Frame) -> Tally {
        let Frame::Gap {
            first_seq,
            dropped,
            lost,
            settled,
        } = *frame
        else {
            return Tally::default();
        };
        let edge = &self.incoming.spec.edge;
        tracing::warn!(
            edge,
            first_seq,
            last_seq = seq,
            dropped,
            lost,
            settled,
            "records are missing"
        );
        if settled > 0 && self.incoming.lock().has_forgotten(first_seq) {
            tracing::warn!(
                edge,
                records = settled,
                "the destination does not know how far it was: these count as delivered by the producer's word"
            );
        } else if settled > 0 {
            tracing::error!(
                edge,
                records = settled,
                "the destination was taken back to an older state: it had confirmed these, and may have them no more"
            );
        }
        Tally {
            dropped: dropped + lost,
            settled,
            gaps: 1,
            ..Tally::default()
        }
    }
}

#[async_trait]
impl Source for Consumer {
    async fn open(&mut self, after: Option<&Position>) -> Result<(), Fault> {
        let place = match after {
            Some(after) => place_of(after).ok_or_else(|| {
                Fault::stop(format!(
                    "the watermark of {} is not one of this stream",
                    self.incoming.spec.edge
                ))
            })?,
            None => Place::default(),
        };
        self.assembly = frames::Assembly::default();
        self.mark = place.mark.clone();
        self.incoming.lock().resume(place);
        // A hello: without a key it asks the producer to open the stream.
        self.streams.want_opening(&self.incoming);
        Ok(())
    }

    async fn read(&mut self) -> Result<Read, Fault> {
        let deadline = tokio::time::Instant::now() + READ_WAIT_MAX;
        loop {
            let Some(Taken {
                epoch,
                seq,
                print,
                records,
                dropped,
                frame,
            }) = self.next(deadline).await
            else {
                return Ok(Read::Idle);
            };
            // Before the credit runs dry, say that there is room again.
            if seq.is_multiple_of((self.streams.window() / 4).max(1)) {
                self.streams.want_ack(&self.incoming, false);
            }
            if std::mem::replace(&mut self.epoch, epoch) != epoch {
                // The rest of a batch that an older epoch began will not come.
                self.assembly = frames::Assembly::default();
            }
            let is_gap = matches!(frame, Frame::Gap { .. });
            let mut tally = self.gap(seq, &frame);
            let mut undecodable = Vec::new();
            let batch = match self.assembly.take(frame) {
                Ok(Some(Arrived { batch, mark })) => {
                    self.mark = mark.or(self.mark.take());
                    match self.incoming.boots().corrected(batch.origin()) {
                        Some(origin) => batch.with_origin(origin),
                        None => batch,
                    }
                }
                // Carries the position past the gap.
                Ok(None) if is_gap => empty()?,
                Ok(None) => continue,
                Err(error) => {
                    // The rest of a record whose beginning was lost to a gap, or a batch of a newer program. It will not
                    // get better by trying again, and what follows must not wait for it.
                    let reason = format!("frame {seq} of {}: {error}", self.incoming.spec.edge);
                    tracing::error!(reason, records = error.records, "a frame could not be read");
                    // The letter stands for one record itself.
                    tally.dead += error.records.saturating_sub(1);
                    undecodable.push(Undecodable {
                        bytes: error.bytes,
                        reason,
                    });
                    empty()?
                }
            };
            {
                let mut standing = self.incoming.lock();
                tally.duplicates += standing.take_duplicates();
                tally.gaps += standing.take_ended();
            }
            self.tally = tally;
            let place = Place {
                epoch,
                seq,
                mark: self.mark.clone(),
                print,
                records,
                dropped,
            };
            crash_point::at!(IncomingBeforeHandOver);
            return Ok(Read::Batch(SourceBatch {
                batch,
                position: Position::new(place.encode()),
                undecodable,
            }));
        }
    }

    fn settled(&mut self) -> Tally {
        std::mem::take(&mut self.tally)
    }

    async fn commit(&mut self, position: &Position) -> Result<(), Fault> {
        if let Some(place) = place_of(position) {
            self.incoming.lock().commit(place);
            crash_point::at!(IncomingBeforeAck);
            self.streams.want_ack(&self.incoming, false);
            crash_point::at!(IncomingAfterAck);
        }
        Ok(())
    }

    async fn close(&mut self) {
        self.incoming.lock().pause();
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
