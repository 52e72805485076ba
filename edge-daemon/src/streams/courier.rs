//! What goes out of a stream: sends what has been released, says what will never come, and gives back the disk once the
//! consumer has it.

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use bus_schema::{
    limits::FRAME_BYTES_MAX,
    message::{Frame, StreamAck, StreamOpen},
    piece::{PIECE_AROUND_BYTES, Piece},
};
use flow::Fault;
use spool::Missing;
use stream::{
    flight::{Action, Flight, Heard},
    frames,
    pacer::Turn,
    tracks::BACKLOG_BYTES_MIN,
};

use super::{
    Streams,
    outgoing::{Outgoing, Store, lock, spool_fault},
};

/// Frames taken from memory at a time: they are copied, and cheap to come back for.
const TAKE_FRAMES_MAX: usize = 2;
/// Frames read from the spool at a time.
const READ_FRAMES_MAX: usize = 8;
/// Bytes read from the spool at a time.
const READ_BYTES_MAX: usize = 256 * 1024;
/// Most bytes of a frame in one piece: with what stands around them they must fit a message.
const PIECE_BYTES_MAX: usize = FRAME_BYTES_MAX - PIECE_AROUND_BYTES;
/// Between two tries to say what was given up for want of room.
const DEBT_EVERY: Duration = Duration::from_secs(2);
/// Between two tries to send while the bus takes nothing.
const SEND_AGAIN: Duration = Duration::from_millis(200);
/// How long after a connection the plane may take to tell this boot the time. Without it a stream goes on, with the times it has.
const TIME_WAIT: Duration = Duration::from_secs(3);

/// What a spool holds of some seqs.
#[derive(Default)]
struct Found {
    frames: Vec<(u64, Vec<u8>)>,
    /// What is missing before and between them, or if there are none, up to the next one: first and last seq.
    gaps: Vec<(u64, u64, Missing)>,
}

/// Frames that were read and have not all left.
#[derive(Default)]
struct AtHand {
    frames: VecDeque<(u64, Vec<u8>)>,
}

impl AtHand {
    fn first(&self) -> Option<u64> {
        self.frames.front().map(|(seq, _)| *seq)
    }

    /// Lets go of what lies before `seq`.
    fn pass(&mut self, seq: u64) {
        while self.first().is_some_and(|first| first < seq) {
            self.frames.pop_front();
        }
    }
}

/// Whether a consumer has something of the stream from an older epoch, and says how far the source was read.
fn knows_more(ack: &StreamAck) -> bool {
    ack.resume.as_ref().is_some_and(|resume| resume.mark.is_some())
}

impl Store {
    /// At most `count` frames from `seq` on, up to `through`, and what is missing there. Nothing above `released` is.
    /// `accounted`: what the consumer has accounted for of the frames before `seq`, in records.
    fn frames(
        &mut self,
        seq: u64,
        through: u64,
        released: u64,
        count: usize,
        accounted: Option<u64>,
    ) -> Result<Found, Fault> {
        let count = (through + 1 - seq).min(count as u64) as usize;
        let stored = self
            .spool()?
            .read(seq, count, READ_BYTES_MAX)
            .map_err(|error| Fault::retry(error.to_string()))?;
        let after_hole = stored.first().map(|frame| frame.seq).filter(|first| *first > through);
        let frames: Vec<(u64, Vec<u8>)> = stored
            .into_iter()
            .take_while(|frame| frame.seq <= through)
            .map(|frame| (frame.seq, frame.bytes))
            .collect();
        let mut stretches = Vec::new();
        let mut next = seq;
        for (found, _) in &frames {
            if *found > next {
                stretches.push((next, *found - 1));
            }
            next = *found + 1;
        }
        if frames.is_empty() {
            // One message over all of it: thousands of seqs may be skipped after damage, and credit counts messages.
            stretches.push((seq, after_hole.map_or(released, |after| released.min(after - 1))));
        }
        // What gap records told of records without a seq is no part of the spool's account.
        let accounted = accounted.filter(|_| self.book.dropped == self.book.owed);
        let spool = self.spool()?;
        let mut gaps = Vec::new();
        for (first, last) in stretches {
            let missing = spool.missing(first, last, accounted.filter(|_| first == seq));
            gaps.push((first, last, missing.map_err(|error| Fault::retry(error.to_string()))?));
        }
        Ok(Found { frames, gaps })
    }
}

impl Outgoing {
    /// Sends what is released until the stream is closed.
    pub async fn courier(self: Arc<Self>, streams: Arc<Streams>) {
        // Each life of the stream is a flight of its own.
        while self.fly(&streams).await {}
    }

    /// `false` when the stream is closed, `true` when it has begun anew.
    async fn fly(self: &Arc<Self>, streams: &Streams) -> bool {
        let mut released = self.released.subscribe();
        let mut up = streams.up(&self.spec.consumer);
        let view = self.view();
        let mut flight = Flight::new(view.lineage.epoch, view.state.watermark_seq, Instant::now());
        flight.connected_after(*up.borrow_and_update(), streams.pause(&self.spec), Instant::now());
        flight.released(*released.borrow_and_update());
        // An earlier life may have sent what was here when this one began; of what is appended since, only this one.
        let began_with = view.state.next_seq - 1;
        let mut at_hand = AtHand::default();
        let mut losses = 0;
        let mut began = streams.clocks().began();
        began.mark_unchanged();
        let mut up_at = Instant::now();
        loop {
            // The pipe can begin it anew as well.
            if self.view().life != view.life {
                return true;
            }
            while let Some(ack) = self.next_ack() {
                if ack.epoch == view.lineage.epoch {
                    self.answered(ack.epoch, ack.resume.clone());
                }
                let sent = began_with.max(self.sent.load(Ordering::Relaxed));
                let print = match flight.compares(&ack) {
                    false => None,
                    true => match self.print_of(ack.received).await {
                        Ok(print) => print,
                        Err(cause) => {
                            // Not taken as heard, so that it is asked for again.
                            tracing::warn!(edge = self.spec.edge, cause, "cannot compare what the consumer has yet");
                            continue;
                        }
                    },
                };
                let heard = flight.acked(&ack, sent, print, Instant::now());
                // The consumer knows more of this stream than is left of it here. Where siblings are read from the beginning as
                // well, what it knows counts other batches than they do: there everything comes again.
                let is_bare = view.lineage.is_first && flight.watermark() == 0 && !self.view().book.with_siblings;
                let lost = is_bare && self.replays && knows_more(&ack);
                let is_copy = matches!(heard, Heard::Ahead | Heard::Newer(_));
                let over = match heard {
                    Heard::Ahead => Some((
                        0,
                        "the consumer has frames this buffer never wrote: it is an older copy",
                    )),
                    Heard::Newer(epoch) => {
                        Some((epoch, "the consumer knows a newer epoch: this buffer is an older copy"))
                    }
                    _ if ack.epoch == view.lineage.epoch && lost => {
                        Some((0, "the consumer knows the stream: its buffer and its key were lost"))
                    }
                    _ => None,
                };
                if let Some((known, why)) = over {
                    let this = Arc::clone(self);
                    let start_over = move || match is_copy {
                        true => this.start_both_over(known, why),
                        false => this.start_over(known, false, why),
                    };
                    match tokio::task::spawn_blocking(start_over).await {
                        Ok(Ok(())) => return true,
                        Ok(Err(fault)) => tracing::error!(edge = self.spec.edge, %fault, "cannot begin anew yet"),
                        Err(error) => tracing::error!(edge = self.spec.edge, %error, "cannot begin anew"),
                    }
                    continue;
                }
                match heard {
                    Heard::Durable => {
                        self.moves.store(true, Ordering::Relaxed);
                        self.on_the_way.arrived(flight.watermark(), Instant::now());
                        streams.away(&self.spec);
                        if let Err(fault) = Arc::clone(self).trim(view.life, flight.watermark()).await {
                            tracing::warn!(edge = self.spec.edge, %fault, "cannot give back delivered frames yet");
                        }
                    }
                    Heard::Nothing | Heard::Ahead | Heard::Newer(_) => {}
                }
            }
            let now_lost = flight.losses();
            flight.delayed(streams.heard(&self.spec, now_lost > losses));
            losses = now_lost;
            let action = flight.action(Instant::now());
            if !matches!(action, Action::Send { .. }) {
                streams.give_up(&self.spec);
                self.hold(String::new());
            }
            let wait = match action {
                Action::Open if self.awaits_time(streams) && up_at.elapsed() < TIME_WAIT => {
                    Some(TIME_WAIT.saturating_sub(up_at.elapsed()))
                }
                Action::Open => {
                    self.stands_still();
                    self.send_open(streams).await;
                    flight.opened(Instant::now());
                    continue;
                }
                Action::Send { from, to } => {
                    match self.send(streams, &mut flight, &mut at_hand, from, to, view.life).await {
                        Ok(None) => {
                            // Others on this thread get their turn between frames.
                            tokio::task::yield_now().await;
                            continue;
                        }
                        Ok(Some(wait)) => wait,
                        Err(cause) => {
                            tracing::debug!(edge = self.spec.edge, cause, "cannot send now");
                            streams.give_up(&self.spec);
                            Some(SEND_AGAIN)
                        }
                    }
                }
                Action::Wait(wait) => wait,
            };
            tokio::select! {
                changed = released.changed() => {
                    if changed.is_err() { return false; }
                    flight.released(*released.borrow_and_update());
                }
                changed = up.changed() => {
                    if changed.is_err() { return false; }
                    up_at = Instant::now();
                    self.stands_still();
                    flight.connected_after(*up.borrow_and_update(), streams.pause(&self.spec), up_at);
                }
                // Said in an opening; what comes after it is dated by it.
                Ok(()) = began.changed(), if self.dated_here => {
                    flight.connected(*up.borrow(), Instant::now());
                }
                () = self.acked.notified() => {}
                () = self.turn.notified() => {}
                () = tokio::time::sleep(DEBT_EVERY), if self.view().book.owed > 0 => {
                    let this = Arc::clone(self);
                    let settle = move || this.with_store(|store| this.settle_debt(store));
                    if let Ok(Err(fault)) = tokio::task::spawn_blocking(settle).await {
                        tracing::debug!(edge = self.spec.edge, %fault, "cannot say yet what was given up");
                    }
                }
                () = tokio::time::sleep(wait.unwrap_or(Duration::from_secs(3600))) => {}
            }
        }
    }

    /// Whether the time of what is sent could not be corrected yet, if it had to be.
    fn awaits_time(&self, streams: &Streams) -> bool {
        self.dated_here && !streams.is_local(&self.spec) && streams.clocks().began().borrow().is_none()
    }

    async fn send_open(&self, streams: &Streams) {
        let view = self.view();
        // What came from another daemon was put right when it arrived, and is of that one's boots.
        let clocks = if self.dated_here {
            streams.clocks().list()
        } else {
            Vec::new()
        };
        let open = StreamOpen {
            stream: self.spec.stream,
            epoch: view.lineage.epoch,
            key: view.lineage.key,
            first_seq: view.state.first_seq,
            next_seq: view.state.next_seq,
            clocks,
        };
        if let Err(cause) = streams.send_open(&self.spec.consumer, open).await {
            tracing::debug!(edge = self.spec.edge, cause, "cannot open the stream yet");
        }
    }

    /// Sends the frame `from`, or a piece of it, or that it will never come. `Some` when it is not its turn: how long to
    /// wait, if that is known.
    async fn send(
        self: &Arc<Self>,
        streams: &Streams,
        flight: &mut Flight,
        at_hand: &mut AtHand,
        from: u64,
        to: u64,
        life: u64,
    ) -> Result<Option<Option<Duration>>, String> {
        at_hand.pass(from);
        if at_hand.first() != Some(from) {
            // Before the look into the spool: what is appended meanwhile is no part of a hole. What was confirmed in an earlier
            // life is told in one piece, though the pipe has not released anything yet.
            let released = *self.released.borrow();
            let released = released.max(self.view().state.watermark_seq);
            streams.away(&self.spec);
            let count = if streams.is_slow() { 1 } else { READ_FRAMES_MAX };
            let found = self
                .find(from, to, released, count, flight.accounted_before(from), life)
                .await?;
            if let Some((first, last, missing)) = found.gaps.into_iter().next().filter(|(first, ..)| *first == from) {
                self.send_gap(streams, first, last, missing).await?;
                flight.sent(last, Instant::now());
            }
            at_hand.frames = found.frames.into();
            return Ok(None);
        }
        let Some((_, frame)) = at_hand.frames.front() else {
            return Ok(None);
        };
        let total = frame.len();
        // Only another frame can be shorter than what has left of it: then from its beginning.
        let offset = Some(flight.offset() as usize)
            .filter(|offset| *offset < total)
            .unwrap_or(0);
        let bytes = match streams.ask(self, total - offset) {
            Turn::Go(bytes) => bytes.min(total - offset),
            Turn::Wait => return Ok(Some(None)),
            Turn::Rate(wait) => return Ok(Some(Some(wait))),
            Turn::Closed(wait) => {
                self.stands_still();
                self.hold(streams.closed(&self.spec));
                return Ok(Some(Some(wait)));
            }
        };
        self.hold(String::new());
        if bytes == total {
            let Some((_, frame)) = at_hand.frames.pop_front() else {
                return Ok(None);
            };
            streams.send_frame(&self.spec, &self.subject, from, frame).await?;
            crash_point::at!(OutgoingAfterSend);
            flight.sent(from, Instant::now());
            return Ok(None);
        }
        let end = offset + bytes.min(PIECE_BYTES_MAX);
        let piece = Piece {
            epoch: self.view().lineage.epoch,
            seq: from,
            total: total as u32,
            offset: offset as u32,
            bytes: &frame[offset..end],
        };
        streams.send_piece(&self.spec, &self.subject, &piece).await?;
        crash_point::at!(OutgoingAfterSend);
        if end == total {
            flight.sent(from, Instant::now());
        } else {
            flight.sent_piece(end as u32, Instant::now());
        }
        Ok(None)
    }

    /// Some frames from `from` on, from memory or from the spool.
    async fn find(
        self: &Arc<Self>,
        from: u64,
        to: u64,
        released: u64,
        count: usize,
        accounted: Option<u64>,
        life: u64,
    ) -> Result<Found, String> {
        if let Some(frames) = self.recent(from, to) {
            let gaps = Vec::new();
            return Ok(Found { frames, gaps });
        }
        let this = Arc::clone(self);
        let find = move || {
            this.with_store(|store| {
                if this.view().life != life {
                    return Err(Fault::retry("the stream has begun anew"));
                }
                let found = store.frames(from, to, released, count, accounted)?;
                // While nothing can be dropped: from now on it cannot be.
                let frames = found.frames.iter().map(|(seq, _)| *seq);
                let last = frames.chain(found.gaps.iter().map(|(_, last, _)| *last)).max();
                this.sent.fetch_max(last.unwrap_or(0), Ordering::Relaxed);
                Ok::<_, Fault>(found)
            })
        };
        let found = tokio::task::spawn_blocking(find).await;
        let found = found.map_err(|error| error.to_string())?;
        found.map_err(|error| error.to_string())
    }

    /// Nothing becomes durable now. If much waits, that is an outage.
    fn stands_still(&self) {
        self.moves.store(false, Ordering::Relaxed);
        if self.view().state.held_payload_bytes >= BACKLOG_BYTES_MIN {
            self.had_outage.store(true, Ordering::Relaxed);
        }
    }

    /// Says what it holds itself up with.
    fn hold(&self, why: String) {
        *lock(&self.held) = why;
    }

    /// What the frame with this seq is known by, if it is here.
    async fn print_of(self: &Arc<Self>, seq: u64) -> Result<Option<u64>, String> {
        let this = Arc::clone(self);
        let look = move || {
            this.with_store(|store| {
                let stored = store.spool()?.read(seq, 1, READ_BYTES_MAX);
                let stored = stored.map_err(|error| spool_fault(&this.spec, error))?;
                let frame = stored.into_iter().find(|frame| frame.seq == seq);
                Ok::<_, Fault>(frame.map(|frame| frames::print(&frame.bytes)))
            })
        };
        let looked = tokio::task::spawn_blocking(look).await;
        let looked = looked.map_err(|error| error.to_string())?;
        looked.map_err(|fault| fault.to_string())
    }

    /// Frames that are still in memory, if the first wanted one is.
    fn recent(&self, from: u64, to: u64) -> Option<Vec<(u64, Vec<u8>)>> {
        let recent = lock(&self.recent);
        let start = recent.iter().position(|(seq, _)| *seq == from)?;
        let wanted = recent.iter().skip(start).take_while(|(seq, _)| *seq <= to);
        let wanted: Vec<_> = wanted.take(TAKE_FRAMES_MAX).cloned().collect();
        // Under the lock: see `drop_oldest`.
        if let Some((last, _)) = wanted.last() {
            self.sent.fetch_max(*last, Ordering::Relaxed);
        }
        Some(wanted)
    }

    async fn send_gap(&self, streams: &Streams, first_seq: u64, last_seq: u64, missing: Missing) -> Result<(), String> {
        tracing::warn!(
            edge = self.spec.edge,
            first_seq,
            last_seq,
            ?missing,
            "these frames will never come"
        );
        let gap = Frame::Gap {
            first_seq,
            dropped: missing.dropped_records,
            lost: missing.lost_records,
            settled: missing.settled_records,
        };
        let (stream, lineage) = (&self.spec.stream, self.view().lineage);
        let plaintext = frames::body(&gap);
        let frame = self
            .secure
            .seal_frame(&self.subject, stream, &lineage.key, lineage.epoch, last_seq, &plaintext)
            .map_err(|error| error.to_string())?;
        streams.send_frame(&self.spec, &self.subject, last_seq, frame).await
    }

    /// Gives back what is durable, unless the stream has begun anew since that life.
    async fn trim(self: Arc<Self>, life: u64, watermark: u64) -> Result<(), Fault> {
        let this = Arc::clone(&self);
        let trimmed = tokio::task::spawn_blocking(move || {
            crash_point::at!(OutgoingBeforeTrim);
            lock(&this.recent).retain(|(seq, _)| *seq > watermark);
            this.with_store(|store| {
                if this.view().life != life {
                    return Ok(());
                }
                let spool = store.spool()?;
                let segments = spool.state().segments;
                spool.trim(watermark).map_err(|error| spool_fault(&this.spec, error))?;
                if spool.state().segments < segments {
                    resident::give_back();
                }
                this.settle_debt(store)
            })
        });
        trimmed.await.map_err(|error| Fault::retry(error.to_string()))??;
        // One waiter at most, the sink; it may be about to wait.
        self.trimmed.notify_one();
        Ok(())
    }
}
