//! What goes out of a stream: sends what has been released, says what will never come, and gives back the disk once the
//! consumer has it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bus_schema::message::{Frame, StreamOpen};
use flow::Fault;
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
/// Between two tries to send while the bus takes nothing.
const SEND_AGAIN: Duration = Duration::from_millis(200);

/// What a spool holds of some seqs.
#[derive(Default)]
struct Found {
    frames: Vec<(u64, Vec<u8>)>,
    after_hole: Option<u64>,
}

impl Store {
    /// Frames from `seq` on, at most up to `through`; and the seq after a hole that begins at `seq`.
    fn frames(&mut self, seq: u64, through: u64) -> Result<Found, Fault> {
        let count = (through + 1 - seq).min(READ_FRAMES_MAX as u64) as usize;
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
        flight.connected(*up.borrow_and_update(), Instant::now());
        flight.released(*released.borrow_and_update());
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
                    flight.connected(*up.borrow_and_update(), Instant::now());
                }
                () = self.acked.notified() => {}
                () = tokio::time::sleep(wait.unwrap_or(Duration::from_secs(3600))) => {}
            }
        }
    }

    async fn send_open(&self, streams: &Streams) {
        let view = self.view();
        let open = StreamOpen {
            stream: self.spec.stream,
            epoch: view.lineage.epoch,
            key: view.lineage.key,
            first_seq: view.state.first_seq,
            next_seq: view.state.next_seq,
            clocks: Vec::new(),
        };
        if let Err(cause) = streams.send_open(&self.spec.consumer, open).await {
            tracing::debug!(edge = self.spec.edge, cause, "cannot open the stream yet");
        }
    }

    /// Sends some frames from `from` on; returns the last seq sent. A hole is sent as a gap.
    async fn send(self: Arc<Self>, streams: &Streams, from: u64, to: u64) -> Result<u64, String> {
        let this = Arc::clone(&self);
        // Before the look into the spool: what is appended meanwhile is no part of a hole.
        let released = *self.released.borrow();
        let found = match self.recent(from, to) {
            Some(frames) => Ok(Found {
                frames,
                after_hole: None,
            }),
            None => tokio::task::spawn_blocking(move || this.with_store(|store| store.frames(from, to)))
                .await
                .map_err(|error| error.to_string())?,
        };
        let found = found.map_err(|error| error.to_string())?;
        let mut next = from;
        for (seq, frame) in &found.frames {
            if *seq > next {
                self.send_gap(streams, next, *seq - 1).await?;
            }
            streams.send_frame(&self.spec, &self.subject, frame.clone()).await?;
            next = *seq + 1;
        }
        if found.frames.is_empty() {
            // One message over all of it: thousands of seqs may be skipped after damage, and credit counts messages.
            let last = found.after_hole.map_or(released, |after| released.min(after - 1));
            self.send_gap(streams, from, last).await?;
            next = last + 1;
        }
        Ok(next - 1)
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
        streams.send_frame(&self.spec, &self.subject, frame).await
    }

    async fn trim(self: Arc<Self>, watermark: u64) -> Result<(), Fault> {
        let this = Arc::clone(&self);
        let trimmed = tokio::task::spawn_blocking(move || {
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
