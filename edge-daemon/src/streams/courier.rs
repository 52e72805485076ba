//! What goes out of a stream: sends what has been released, says what will never come, and gives back the disk once the
//! consumer has it.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use bus_schema::{
    limits::FRAME_BYTES_MAX,
    message::{Frame, StreamOpen},
    piece::{PIECE_AROUND_BYTES, Piece},
};
use flow::Fault;
use stream::{
    flight::{Action, Flight, Heard},
    frames,
    pacer::Turn,
};

use super::{
    Streams,
    outgoing::{Outgoing, Store, lock, spool_fault},
};

/// Frames read from the spool at a time.
const READ_FRAMES_MAX: usize = 8;
/// Bytes read from the spool at a time.
const READ_BYTES_MAX: usize = 256 * 1024;
/// Most bytes of a frame in one piece: with what stands around them they must fit a message.
const PIECE_BYTES_MAX: usize = FRAME_BYTES_MAX - PIECE_AROUND_BYTES;
/// Between two tries to send while the bus takes nothing.
const SEND_AGAIN: Duration = Duration::from_millis(200);
/// How long after a connection the plane may take to tell this boot the time. Without it a stream goes on, with the times it has.
const TIME_WAIT: Duration = Duration::from_secs(3);

/// What a spool holds of some seqs.
#[derive(Default)]
struct Found {
    frames: Vec<(u64, Vec<u8>)>,
    after_hole: Option<u64>,
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

impl Store {
    /// At most `count` frames from `seq` on, at most up to `through`; and the seq after a hole that begins at `seq`.
    fn frames(&mut self, seq: u64, through: u64, count: usize) -> Result<Found, Fault> {
        let count = (through + 1 - seq).min(count as u64) as usize;
        let stored = self
            .spool()?
            .read(seq, count, READ_BYTES_MAX)
            .map_err(|error| Fault::retry(error.to_string()))?;
        let after_hole = stored.first().map(|frame| frame.seq).filter(|first| *first > through);
        let frames = stored
            .into_iter()
            .take_while(|frame| frame.seq <= through)
            .map(|frame| (frame.seq, frame.bytes))
            .collect();
        Ok(Found { frames, after_hole })
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
        let mut at_hand = AtHand::default();
        let mut losses = 0;
        let mut began = streams.clocks().began();
        began.mark_unchanged();
        let mut up_at = Instant::now();
        loop {
            while let Some(ack) = self.next_ack() {
                if ack.epoch == view.lineage.epoch {
                    self.answered(ack.epoch, ack.resume.clone());
                }
                let written = self.view().state.next_seq - 1;
                match flight.acked(&ack, written, Instant::now()) {
                    Heard::Nothing => {}
                    Heard::Durable => {
                        streams.away(&self.spec);
                        if let Err(fault) = Arc::clone(self).trim(flight.watermark()).await {
                            tracing::warn!(edge = self.spec.edge, %fault, "cannot give back delivered frames yet");
                        }
                    }
                    Heard::Ahead => {
                        let this = Arc::clone(self);
                        match tokio::task::spawn_blocking(move || this.start_over()).await {
                            Ok(Ok(())) => return true,
                            Ok(Err(fault)) => tracing::error!(edge = self.spec.edge, %fault, "cannot begin anew yet"),
                            Err(error) => tracing::error!(edge = self.spec.edge, %error, "cannot begin anew"),
                        }
                    }
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
                    self.send_open(streams).await;
                    flight.opened(Instant::now());
                    continue;
                }
                Action::Send { from, to } => match self.send(streams, &mut flight, &mut at_hand, from, to).await {
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
                },
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
                    flight.connected_after(*up.borrow_and_update(), streams.pause(&self.spec), up_at);
                }
                // Said in an opening; what comes after it is dated by it.
                Ok(()) = began.changed(), if self.dated_here => {
                    flight.connected(*up.borrow(), Instant::now());
                }
                () = self.acked.notified() => {}
                () = self.turn.notified() => {}
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
    ) -> Result<Option<Option<Duration>>, String> {
        // What has been given up meanwhile must not leave as well.
        at_hand.pass(from.max(self.view().state.first_seq));
        if at_hand.first() != Some(from) {
            // Before the look into the spool: what is appended meanwhile is no part of a hole.
            let released = *self.released.borrow();
            streams.away(&self.spec);
            let count = if streams.is_slow() { 1 } else { READ_FRAMES_MAX };
            let found = self.find(from, to, count).await?;
            let first = found.frames.first().map(|(seq, _)| *seq);
            if first != Some(from) {
                // One message over all of it: thousands of seqs may be skipped after damage, and credit counts messages.
                let after = first.or(found.after_hole);
                let last = after.map_or(released, |after| released.min(after - 1));
                self.send_gap(streams, from, last).await?;
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
        let bytes = match streams.ask(&self.spec, total - offset) {
            Turn::Go(bytes) => bytes.min(total - offset),
            Turn::Wait => return Ok(Some(None)),
            Turn::Rate(wait) => return Ok(Some(Some(wait))),
            Turn::Closed(wait) => {
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
    async fn find(self: &Arc<Self>, from: u64, to: u64, count: usize) -> Result<Found, String> {
        if let Some(frames) = self.recent(from, to) {
            return Ok(Found {
                frames,
                after_hole: None,
            });
        }
        let this = Arc::clone(self);
        let found = tokio::task::spawn_blocking(move || this.with_store(|store| store.frames(from, to, count)));
        let found = found.await.map_err(|error| error.to_string())?;
        found.map_err(|error| error.to_string())
    }

    /// Says what it holds itself up with.
    fn hold(&self, why: String) {
        *lock(&self.held) = why;
    }

    /// Frames that are still in memory, if the first wanted one is.
    fn recent(&self, from: u64, to: u64) -> Option<Vec<(u64, Vec<u8>)>> {
        let recent = lock(&self.recent);
        let start = recent.iter().position(|(seq, _)| *seq == from)?;
        let wanted = recent.iter().skip(start).take_while(|(seq, _)| *seq <= to);
        Some(wanted.take(READ_FRAMES_MAX).cloned().collect())
    }

    async fn send_gap(&self, streams: &Streams, first_seq: u64, last_seq: u64) -> Result<(), String> {
        tracing::warn!(
            edge = self.spec.edge,
            first_seq,
            last_seq,
            "these frames will never come"
        );
        let gap = Frame::Gap {
            first_seq,
            dropped: 0,
            lost: 0,
            settled: 0,
        };
        let (stream, lineage) = (&self.spec.stream, self.view().lineage);
        let plaintext = frames::body(&gap);
        let frame = self
            .secure
            .seal_frame(&self.subject, stream, &lineage.key, lineage.epoch, last_seq, &plaintext)
            .map_err(|error| error.to_string())?;
        streams.send_frame(&self.spec, &self.subject, last_seq, frame).await
    }

    async fn trim(self: Arc<Self>, watermark: u64) -> Result<(), Fault> {
        let this = Arc::clone(&self);
        let trimmed = tokio::task::spawn_blocking(move || {
            crash_point::at!(OutgoingBeforeTrim);
            lock(&this.recent).retain(|(seq, _)| *seq > watermark);
            this.with_store(|store| {
                let trimmed = store.spool()?.trim(watermark);
                trimmed.map_err(|error| spool_fault(&this.spec, error))
            })
        });
        trimmed.await.map_err(|error| Fault::retry(error.to_string()))??;
        // One waiter at most, the sink; it may be about to wait.
        self.trimmed.notify_one();
        Ok(())
    }
}
