//! What goes into a stream: a sink that seals batches and appends them to the spool, and what happens when that is full.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use bus_schema::{id::StreamId, limits::RECORD_BYTES_MAX, message::SourceMark, plan::WhenFull};
use flow::{Counts, Delivery, Fault, Position, Rejected, Sink, Watermark};
use spool::{Group, Mark, Spool};
use stream::frames;

use super::outgoing::{Outgoing, Store, View, lock, read_book, spool_fault};

/// Frames kept in memory after they were spooled, so that live data is not read back from disk.
const RECENT_FRAMES_MAX: usize = 16;
/// How long a write waits for room in a full spool before it says so.
const FULL_WAIT: Duration = Duration::from_secs(2);
/// Share of the quota given up at a time when the oldest records have to go.
const DROP_SHARE: u64 = 16;

/// A record takes at most this share of the quota: a spool needs more disk than it holds, and room for what is around it.
/// A larger one would wait for ever.
const QUOTA_PER_RECORD: u64 = 4;

/// Why a record does not go into the spool.
fn too_large(quota_share: usize) -> String {
    const MIB: usize = 1024 * 1024;
    if quota_share < RECORD_BYTES_MAX {
        let max = quota_share / MIB;
        format!("the record is larger than a quarter of the stream's buffer ({max} MiB): raise its quota")
    } else {
        format!(
            "the record is larger than a record may be ({} MiB)",
            RECORD_BYTES_MAX / MIB
        )
    }
}

enum Appending {
    Full,
    Fault(Fault),
}

type SealedGroup = (Vec<(Vec<u8>, u64)>, Mark);

fn append_groups(spool: &mut Spool, groups: &[SealedGroup]) -> Result<(), spool::Error> {
    let frames: Vec<Vec<spool::Frame<'_>>> = groups
        .iter()
        .map(|(frames, _)| {
            frames
                .iter()
                .map(|(bytes, records)| spool::Frame {
                    bytes,
                    records: *records,
                })
                .collect()
        })
        .collect();
    let groups: Vec<Group<'_>> = frames
        .iter()
        .zip(groups)
        .map(|(frames, (_, mark))| Group { frames, mark })
        .collect();
    spool.append_groups(&groups).map(|_| ())
}

impl Outgoing {
    /// The sink of this stream.
    pub fn sink(self: &Arc<Self>) -> Box<dyn Sink> {
        Box::new(Producer {
            out: Arc::clone(self),
            appended: 0,
            life: 0,
        })
    }

    /// Seals and appends deliveries in one durable group commit. Blocks.
    fn append(&self, store: &mut Store, deliveries: &[Delivery]) -> Result<(u64, Vec<Rejected>), Appending> {
        self.begin(store).map_err(Appending::Fault)?;
        let mut seq = store.spool().map_err(Appending::Fault)?.state().next_seq;
        let mut book = store.book.clone();
        let mut rejected = Vec::new();
        let mut groups: Vec<SealedGroup> = Vec::with_capacity(deliveries.len());
        for (index, delivery) in deliveries.iter().enumerate() {
            let mark = SourceMark {
                root_seq: delivery.seq,
                position: delivery.position.as_bytes().to_vec(),
            };
            let record_bytes_max = (self.spec.spool.quota_bytes / QUOTA_PER_RECORD) as usize;
            let packing = frames::pack_with(&delivery.batch, &mark, record_bytes_max, self.spec.send.compress);
            let reason = || too_large(record_bytes_max);
            let too_large = packing.too_large.iter();
            rejected.extend(too_large.map(|row| Rejected {
                delivery: index,
                row: *row,
                reason: reason(),
            }));
            let mut sealed = Vec::with_capacity(packing.frames.len());
            for packed in packing.frames {
                let (stream, lineage) = (&self.spec.stream, &store.lineage);
                let frame = self
                    .secure
                    .seal_frame(
                        &self.subject,
                        stream,
                        &lineage.key,
                        lineage.epoch,
                        seq,
                        &packed.plaintext,
                    )
                    .map_err(|error| Appending::Fault(Fault::retry(error.to_string())))?;
                sealed.push((frame, packed.records));
                seq += 1;
            }
            book.position = mark.position;
            book.replay = book.replay.max(delivery.tally.replay);
            book.gone = book.gone.max(self.gone.load(Ordering::Relaxed));
            book.dead = (book.dead + delivery.tally.dead + packing.too_large.len() as u64)
                .saturating_sub(delivery.tally.revived);
            groups.push((
                sealed,
                Mark {
                    root_seq: delivery.seq,
                    position: bus_schema::encode(&book),
                },
            ));
        }
        let spool = store.spool().map_err(Appending::Fault)?;
        match append_groups(spool, &groups) {
            Ok(()) => {}
            Err(spool::Error::Full { .. }) if self.spec.spool.when_full == WhenFull::DropNewest => {
                let lost: u64 = groups
                    .iter()
                    .flat_map(|(frames, _)| frames)
                    .map(|(_, records)| records)
                    .sum();
                book.dropped += lost;
                groups.iter_mut().for_each(|(frames, mark)| {
                    frames.clear();
                    mark.position = bus_schema::encode(&book);
                });
                tracing::warn!(
                    edge = self.spec.edge,
                    records = lost,
                    "buffer full: the newest records were given up"
                );
                append_groups(spool, &groups).map_err(|e| Appending::Fault(spool_fault(&self.spec, e)))?;
            }
            Err(spool::Error::Full { .. }) if self.spec.spool.when_full == WhenFull::DropOldest => {
                let wanted = self.spec.spool.quota_bytes / DROP_SHARE;
                let dropped = spool
                    .drop_oldest(wanted)
                    .map_err(|e| Appending::Fault(spool_fault(&self.spec, e)))?;
                lock(&self.recent).clear();
                tracing::warn!(
                    edge = self.spec.edge,
                    ?dropped,
                    "buffer full: the oldest records were given up"
                );
                append_groups(spool, &groups).map_err(|e| Appending::Fault(spool_fault(&self.spec, e)))?;
            }
            Err(spool::Error::Full { .. }) => return Err(Appending::Full),
            Err(error) => return Err(Appending::Fault(spool_fault(&self.spec, error))),
        }
        crash_point::at!(OutgoingAfterAppend);
        let last = spool.state().next_seq - 1;
        store.book = book;
        let count: usize = groups.iter().map(|(frames, _)| frames.len()).sum();
        let first = last + 1 - count as u64;
        let frames = groups
            .into_iter()
            .flat_map(|(frames, _)| frames)
            .map(|(bytes, _)| bytes);
        let mut recent = lock(&self.recent);
        recent.extend((first..).zip(frames));
        while recent.len() > RECENT_FRAMES_MAX {
            recent.pop_front();
        }
        drop(recent);
        Ok((last, rejected))
    }
}

/// The sink at a pipe's end: `write` appends and fsyncs, `commit` lets the courier have it.
struct Producer {
    out: Arc<Outgoing>,
    appended: u64,
    /// Which life of the stream the pipe knows of.
    life: u64,
}

impl Producer {
    /// Whether the stream has begun anew since the pipe last asked where it stands.
    fn check_life(&self) -> Result<(), Fault> {
        if self.life == self.out.view().life {
            return Ok(());
        }
        Err(Fault::Moved {
            cause: format!("the buffer of {} was replaced", self.out.spec.edge),
        })
    }
}

#[async_trait]
impl Sink for Producer {
    async fn open(&mut self) -> Result<(), Fault> {
        Ok(())
    }

    fn keeps_watermark(&self) -> bool {
        true
    }

    async fn watermark(&mut self, _: &StreamId) -> Result<Option<Watermark>, Fault> {
        self.out.recall().await?;
        let View { state, book, life, .. } = self.out.view();
        self.life = life;
        Ok(state.mark.map(|mark| Watermark {
            seq: mark.root_seq,
            position: Position::new(book.position),
            delivered: state.produced_records,
            counts: Counts {
                dead: book.dead,
                dropped: book.dropped,
                replay: book.replay,
                ..Counts::default()
            },
        }))
    }

    async fn gone_out(&mut self, _: &StreamId) -> Result<u64, Fault> {
        let written = self.out.view().book.gone;
        Ok(written.max(self.out.gone.load(Ordering::Relaxed)))
    }

    async fn write(&mut self, deliveries: &[Delivery]) -> Result<Vec<Rejected>, Fault> {
        let give_up = Instant::now() + FULL_WAIT;
        loop {
            self.check_life()?;
            let (out, owned) = (Arc::clone(&self.out), deliveries.to_vec());
            let appended = tokio::task::spawn_blocking(move || out.with_store(|store| out.append(store, &owned))).await;
            match appended.map_err(|error| Fault::retry(error.to_string()))? {
                Ok((last, rejected)) => {
                    self.appended = last;
                    return Ok(rejected);
                }
                Err(Appending::Fault(fault)) => return Err(fault),
                Err(Appending::Full) => {
                    let left = give_up.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        let quota = self.out.spec.spool.quota_bytes / (1024 * 1024);
                        return Err(Fault::retry(format!(
                            "the buffer of {} is full ({quota} MiB); waiting for the consumer",
                            self.out.spec.edge
                        )));
                    }
                    let _ = tokio::time::timeout(left, self.out.trimmed.notified()).await;
                }
            }
        }
    }

    async fn commit(&mut self) -> Result<(), Fault> {
        self.check_life()?;
        crash_point::at!(OutgoingBeforeRelease);
        self.out.let_go();
        self.out.released.send_if_modified(|released| {
            let rises = self.appended > *released;
            *released = self.appended.max(*released);
            rises
        });
        crash_point::at!(OutgoingAfterRelease);
        Ok(())
    }

    async fn rewind(&mut self, _: &StreamId, seq: u64) -> Result<(), Fault> {
        let out = Arc::clone(&self.out);
        let done = tokio::task::spawn_blocking(move || {
            out.with_store(|store| {
                lock(&out.recent).clear();
                let spool = store.spool()?;
                spool
                    .truncate_after(seq)
                    .map_err(|error| spool_fault(&out.spec, error))?;
                store.book = read_book(&spool.state());
                Ok(())
            })
        });
        done.await.map_err(|error| Fault::retry(error.to_string()))?
    }

    fn recovered(&mut self) {
        self.out.let_go();
        let last = self.out.view().state.next_seq - 1;
        self.appended = last;
        self.out.released.send_replace(last);
    }
}
