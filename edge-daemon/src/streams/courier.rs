//! What goes out of a stream: sends what has been released, says what will never come, and gives back the disk once the
//! consumer has it.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use bus_schema::message::{Frame, StreamOpen};
use flow::Fault;
use spool::Missing;
use stream::{
    flight::{Action, Flight, Heard},
    frames,
};

use super::{
    Streams,
    outgoing::{Outgoing, Store, lock, spool_fault},
};

/// Frames read from the spool at a time.
const READ_FRAMES_MAX: usize = 8;
/// Bytes read from the spool at a time.
const READ_BYTES_MAX: usize = 256 * 1024;
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

impl Store {
    /// Frames from `seq` on, at most up to `through`, and what is missing there. Nothing above `released` is.
    fn frames(&mut self, seq: u64, through: u64, released: u64) -> Result<Found, Fault> {
        let count = (through + 1 - seq).min(READ_FRAMES_MAX as u64) as usize;
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
        let spool = self.spool()?;
        let mut gaps = Vec::new();
        for (first, last) in stretches {
            let missing = spool.missing(first, last, None);
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
        flight.connected(*up.borrow_and_update(), Instant::now());
        flight.released(*released.borrow_and_update());
        let mut began = streams.clocks().began();
        began.mark_unchanged();
        let mut up_at = Instant::now();
        // An earlier life may have sent what was here when this one began; of what is appended since, only this one.
        let mut sent = view.state.next_seq - 1;
        loop {
            while let Some(ack) = self.next_ack() {
                if ack.epoch == view.lineage.epoch {
                    self.answered(ack.epoch, ack.resume.clone());
                }
                match flight.acked(&ack, sent, Instant::now()) {
                    Heard::Nothing => {}
                    Heard::Durable => {
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
            let wait = match flight.action(Instant::now()) {
                Action::Open if self.awaits_time(streams) && up_at.elapsed() < TIME_WAIT => {
                    Some(TIME_WAIT.saturating_sub(up_at.elapsed()))
                }
                Action::Open => {
                    self.send_open(streams).await;
                    flight.opened(Instant::now());
                    continue;
                }
                Action::Send { from, to } => match Arc::clone(self).send(streams, from, to).await {
                    Ok(through) => {
                        sent = sent.max(through);
                        flight.sent(through, Instant::now());
                        // Others on this thread get their turn between frames.
                        tokio::task::yield_now().await;
                        continue;
                    }
                    Err(cause) => {
                        tracing::debug!(edge = self.spec.edge, cause, "cannot send now");
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
                    flight.connected(*up.borrow_and_update(), up_at);
                }
                // Said in an opening; what comes after it is dated by it.
                Ok(()) = began.changed(), if self.dated_here => {
                    flight.connected(*up.borrow(), Instant::now());
                }
                () = self.acked.notified() => {}
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

    /// Sends some frames from `from` on; returns the last seq sent. A hole is sent as a gap.
    async fn send(self: Arc<Self>, streams: &Streams, from: u64, to: u64) -> Result<u64, String> {
        let this = Arc::clone(&self);
        // Before the look into the spool: what is appended meanwhile is no part of a hole.
        // What was confirmed in an earlier life is told in one piece, though the pipe has not released anything yet.
        let released = (*self.released.borrow()).max(self.view().state.watermark_seq);
        let found = match self.recent(from, to) {
            Some(frames) => Ok(Found {
                frames,
                gaps: Vec::new(),
            }),
            None => {
                let find = move || {
                    this.with_store(|store| {
                        let found = store.frames(from, to, released)?;
                        // While nothing can be dropped: from now on it cannot be.
                        let frames = found.frames.iter().map(|(seq, _)| *seq);
                        let last = frames.chain(found.gaps.iter().map(|(_, last, _)| *last)).max();
                        this.sent.fetch_max(last.unwrap_or(0), Ordering::Relaxed);
                        Ok::<_, Fault>(found)
                    })
                };
                let found = tokio::task::spawn_blocking(find).await;
                found.map_err(|error| error.to_string())?
            }
        };
        let found = found.map_err(|error| error.to_string())?;
        let mut gaps = found.gaps.into_iter().peekable();
        let mut next = from;
        for (seq, frame) in &found.frames {
            if let Some((first, last, missing)) = gaps.next_if(|(first, ..)| first < seq) {
                self.send_gap(streams, first, last, missing).await?;
            }
            streams.send_frame(&self.spec, &self.subject, frame.clone()).await?;
            crash_point::at!(OutgoingAfterSend);
            next = *seq + 1;
        }
        if let Some((first, last, missing)) = gaps.next() {
            self.send_gap(streams, first, last, missing).await?;
            next = last + 1;
        }
        Ok(next - 1)
    }

    /// Frames that are still in memory, if the first wanted one is.
    fn recent(&self, from: u64, to: u64) -> Option<Vec<(u64, Vec<u8>)>> {
        let recent = lock(&self.recent);
        let start = recent.iter().position(|(seq, _)| *seq == from)?;
        let wanted = recent.iter().skip(start).take_while(|(seq, _)| *seq <= to);
        let wanted: Vec<_> = wanted.take(READ_FRAMES_MAX).cloned().collect();
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
        streams.send_frame(&self.spec, &self.subject, frame).await
    }

    async fn trim(self: Arc<Self>, watermark: u64) -> Result<(), Fault> {
        let this = Arc::clone(&self);
        let trimmed = tokio::task::spawn_blocking(move || {
            crash_point::at!(OutgoingBeforeTrim);
            lock(&this.recent).retain(|(seq, _)| *seq > watermark);
            this.with_store(|store| {
                let trimmed = store.spool()?.trim(watermark);
                trimmed.map_err(|error| spool_fault(&this.spec, error))?;
                this.settle_debt(store)
            })
        });
        trimmed.await.map_err(|error| Fault::retry(error.to_string()))??;
        // One waiter at most, the sink; it may be about to wait.
        self.trimmed.notify_one();
        Ok(())
    }
}
