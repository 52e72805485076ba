//! The producing end of a stream: a sink that seals batches into the stream's spool, and the courier that sends what has
//! been released. Deletes nothing but what the consumer's signed watermark covers.

use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use bus_link::{home::Home, secure::Secure};
use bus_schema::{
    id::{StreamId, WorkflowId},
    key::SecretKey,
    limits::CREDIT_FRAMES,
    message::{Frame, Ledger, Side, StreamAck, StreamOpen, StreamReport},
    plan::{StreamSpec, WhenFull},
    subject::{self, Subject},
};
use flow::{Delivery, Fault, Position, Rejected, Sink, Watermark};
use serde::{Deserialize, Serialize};
use spool::{Budget, Class, Group, Limits, Mark, Spool, State};
use tokio::sync::{Notify, watch};

use super::{
    Streams,
    flight::{Action, Flight},
    frames,
};

/// Payload bytes per segment; also how fast the disk is given back.
const SEGMENT_BYTES: u64 = 2 * 1024 * 1024;
/// Frames kept in memory after they were spooled, so that live data is not read back from disk.
const RECENT_FRAMES_MAX: usize = 16;
/// Frames read from the spool at a time.
const READ_FRAMES_MAX: usize = 8;
/// Bytes read from the spool at a time.
const READ_BYTES_MAX: usize = 256 * 1024;
/// How long a write waits for room in a full spool before it says so.
const FULL_WAIT: Duration = Duration::from_secs(2);
/// Share of the quota given up at a time when the oldest records have to go.
const DROP_SHARE: u64 = 16;

/// What a stream's spool keeps beside the source's position.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Bookmark {
    position: Vec<u8>,
    /// Records that died on this side, before the spool.
    dead: u64,
    /// Records given up because the spool was full.
    dropped: u64,
    /// The root's seq up to which frames may have left when this was written: siblings must not go back behind it.
    gone: u64,
}

/// The stream's key and epoch: one lineage of sequence numbers.
#[derive(Serialize, Deserialize)]
struct Lineage {
    epoch: u64,
    key: SecretKey,
}

/// What is written and read on disk. Locked over disk work: only ever on a blocking thread.
struct Store {
    spool: Spool,
    book: Bookmark,
}

/// Where the store stood after the last change, for those who must not wait for a disk.
#[derive(Clone)]
struct View {
    state: State,
    book: Bookmark,
}

/// What a spool holds of some seqs.
#[derive(Default)]
struct Found {
    frames: Vec<(u64, Vec<u8>)>,
    after_hole: Option<u64>,
}

impl Store {
    fn view(&self) -> View {
        View {
            state: self.spool.state(),
            book: self.book.clone(),
        }
    }

    /// Frames from `seq` on, at most up to `through`; and the seq after a hole that begins at `seq`.
    fn frames(&mut self, seq: u64, through: u64) -> Result<Found, spool::Error> {
        let count = (through + 1 - seq).min(READ_FRAMES_MAX as u64) as usize;
        let stored = self.spool.read(seq, count, READ_BYTES_MAX)?;
        let after_hole = stored.first().map(|frame| frame.seq).filter(|first| *first > through);
        let frames = stored
            .into_iter()
            .take_while(|frame| frame.seq <= through)
            .map(|frame| (frame.seq, frame.bytes))
            .collect();
        Ok(Found { frames, after_hole })
    }
}

/// One outgoing stream.
pub struct Outgoing {
    spec: StreamSpec,
    workflow: WorkflowId,
    subject: Subject,
    secure: Arc<Secure>,
    lineage: Lineage,
    store: Mutex<Store>,
    view: Mutex<View>,
    /// The newest frames, so that live data is not read back from disk.
    recent: Mutex<VecDeque<(u64, Vec<u8>)>>,
    /// The root's seq up to which frames may have left.
    gone: AtomicU64,
    released: watch::Sender<u64>,
    /// Highest seq that may be on its way.
    sent: AtomicU64,
    acks: Mutex<VecDeque<StreamAck>>,
    acked: Notify,
    trimmed: Notify,
    consumer: Mutex<(u64, String)>,
}

/// A panic while one of these locks was held leaves plain values behind.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn spool_fault(stream: &StreamSpec, error: spool::Error) -> Fault {
    Fault::retry(format!("the buffer of {}: {error}", stream.edge))
}

/// Where a stream keeps its files.
pub fn stream_dir(data_dir: &Path, stream: &StreamId) -> PathBuf {
    data_dir.join("streams").join(stream.as_str())
}

impl Outgoing {
    /// Opens the stream's spool and lineage. Blocks.
    pub fn open(
        home: &Home,
        data_dir: &Path,
        budget: &Arc<Budget>,
        secure: Arc<Secure>,
        workflow: WorkflowId,
        spec: StreamSpec,
    ) -> Result<Arc<Self>, Fault> {
        let dir = stream_dir(data_dir, &spec.stream);
        std::fs::create_dir_all(&dir)
            .map_err(|error| Fault::retry(format!("cannot create {}: {error}", dir.display())))?;
        let quota_bytes = spec.spool.quota_bytes.max(spool::QUOTA_BYTES_MIN);
        let limits = Limits {
            quota_bytes,
            segment_bytes: SEGMENT_BYTES,
        };
        let (spool, recovery) = Spool::open_within(&dir.join("spool"), limits, budget.share(Class::Normal))
            .map_err(|error| spool_fault(&spec, error))?;
        for repair in &recovery.repairs {
            tracing::error!(
                edge = spec.edge,
                reason = repair.reason,
                saved_frames = repair.saved_frames,
                "a damaged part of the buffer was set aside"
            );
        }
        if recovery.cut_frames > 0 {
            tracing::info!(
                edge = spec.edge,
                frames = recovery.cut_frames,
                "cut what a crash left unfinished"
            );
        }
        let state = spool.state();
        let is_new = state.mark.is_none() && state.next_seq == 1;
        let name = format!("streams/{}/lineage", spec.stream);
        let lineage = match home
            .load(&name)
            .ok()
            .flatten()
            .and_then(|bytes| bus_schema::decode::<Lineage>(&bytes))
        {
            Some(lineage) if !is_new => lineage,
            found => {
                if found.is_none() && !is_new {
                    return Err(Fault::stop(format!(
                        "the key of the buffered frames of {} is lost ({name}); remove {} to start afresh",
                        spec.edge,
                        dir.display()
                    )));
                }
                if state.quarantined > 0 {
                    tracing::error!(
                        edge = spec.edge,
                        "nothing of the buffer could be read: the source starts over in a new epoch, and what was not \
                         delivered of what it cannot repeat is lost"
                    );
                }
                Self::new_lineage(home, &name, secure.epoch())?
            }
        };
        let mut book: Bookmark = state
            .mark
            .as_ref()
            .and_then(|mark| bus_schema::decode(&mark.position))
            .unwrap_or_default();
        if recovery.mark_rewound {
            // What came after this mark is lost here, and may have been sent.
            book.gone = state.mark.as_ref().map_or(0, |mark| mark.root_seq + 1);
        }
        let store = Store { spool, book };
        Ok(Arc::new(Self {
            subject: subject::data(secure.fleet(), secure.node(), &spec.stream),
            released: watch::Sender::new(state.watermark_seq),
            sent: AtomicU64::new(store.spool.sent_before(CREDIT_FRAMES)),
            view: Mutex::new(store.view()),
            store: Mutex::new(store),
            recent: Mutex::default(),
            gone: AtomicU64::new(0),
            spec,
            workflow,
            secure,
            lineage,
            acks: Mutex::default(),
            acked: Notify::new(),
            trimmed: Notify::new(),
            consumer: Mutex::default(),
        }))
    }

    fn new_lineage(home: &Home, name: &str, epoch: u64) -> Result<Lineage, Fault> {
        let mut key = [0; 32];
        getrandom::fill(&mut key).map_err(|error| Fault::retry(format!("no randomness: {error}")))?;
        let lineage = Lineage {
            epoch,
            key: SecretKey::new(key),
        };
        home.store(name, &bus_schema::encode(&lineage))
            .map_err(|error| Fault::retry(error.to_string()))?;
        Ok(lineage)
    }

    /// As the plan has it.
    pub fn spec(&self) -> &StreamSpec {
        &self.spec
    }

    /// The sink of this stream.
    pub fn sink(self: &Arc<Self>) -> Box<dyn Sink> {
        Box::new(Producer {
            out: Arc::clone(self),
            appended: 0,
        })
    }

    /// The consumer spoke.
    pub fn ack(&self, ack: StreamAck) {
        *lock(&self.consumer) = (ack.dead, ack.trouble.clone());
        let mut acks = lock(&self.acks);
        // Cumulative: only the newest matters, but a question (epoch 0) or a rewind must not be overwritten.
        if let Some(last) = acks.back_mut()
            && last.epoch == ack.epoch
            && !last.rewind
        {
            *last = ack;
        } else if acks.len() < 16 {
            acks.push_back(ack);
        }
        drop(acks);
        self.acked.notify_one();
    }

    /// The stream's account.
    pub fn report(&self) -> StreamReport {
        let View { state, book } = lock(&self.view).clone();
        let (consumer_dead, trouble) = lock(&self.consumer).clone();
        // The consumer counts its dead letters among what its watermark covers.
        let consumer_dead = consumer_dead.min(state.delivered_records);
        let ledger = Ledger {
            produced: state.produced_records + book.dead + book.dropped,
            buffered: state.held_records,
            delivered: state.delivered_records - consumer_dead,
            dropped: state.dropped_records + state.lost_records + book.dropped,
            dead: book.dead + consumer_dead,
            duplicates: 0,
        };
        StreamReport {
            stream: self.spec.stream,
            workflow: self.workflow,
            edge: self.spec.edge.clone(),
            side: Side::Producer,
            epoch: self.lineage.epoch,
            watermark: state.watermark_seq,
            ledger,
            buffered_bytes: state.held_payload_bytes,
            trouble,
        }
    }

    /// Seals and appends deliveries in one durable group commit. Blocks.
    fn append(&self, deliveries: &[Delivery]) -> Result<(u64, Vec<Rejected>), Appending> {
        let mut store = lock(&self.store);
        let store = &mut *store;
        let mut seq = store.spool.state().next_seq;
        let mut book = store.book.clone();
        let mut rejected = Vec::new();
        let mut groups: Vec<SealedGroup> = Vec::with_capacity(deliveries.len());
        for (index, delivery) in deliveries.iter().enumerate() {
            let packing = frames::pack(&delivery.batch);
            let reason = || "the record is larger than a record may be (4 MiB)".to_string();
            let too_large = packing.too_large.iter();
            rejected.extend(too_large.map(|row| Rejected {
                delivery: index,
                row: *row,
                reason: reason(),
            }));
            let mut sealed = Vec::with_capacity(packing.frames.len());
            for packed in packing.frames {
                let (stream, lineage) = (&self.spec.stream, &self.lineage);
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
            book.position = delivery.position.as_bytes().to_vec();
            book.gone = book.gone.max(self.gone.load(Ordering::Relaxed));
            book.dead += delivery.dead + packing.too_large.len() as u64;
            groups.push((
                sealed,
                Mark {
                    root_seq: delivery.seq,
                    position: bus_schema::encode(&book),
                },
            ));
        }
        match append_groups(&mut store.spool, &groups) {
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
                append_groups(&mut store.spool, &groups).map_err(|e| Appending::Fault(spool_fault(&self.spec, e)))?;
            }
            Err(spool::Error::Full { .. }) if self.spec.spool.when_full == WhenFull::DropOldest => {
                let wanted = self.spec.spool.quota_bytes / DROP_SHARE;
                let dropped = store
                    .spool
                    .drop_oldest(wanted, self.sent.load(Ordering::Relaxed))
                    .map_err(|e| Appending::Fault(spool_fault(&self.spec, e)))?;
                lock(&self.recent).clear();
                tracing::warn!(
                    edge = self.spec.edge,
                    ?dropped,
                    "buffer full: the oldest records were given up"
                );
                append_groups(&mut store.spool, &groups).map_err(|e| Appending::Fault(spool_fault(&self.spec, e)))?;
            }
            Err(spool::Error::Full { .. }) => return Err(Appending::Full),
            Err(error) => return Err(Appending::Fault(spool_fault(&self.spec, error))),
        }
        store.book = book;
        let last = store.spool.state().next_seq - 1;
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
        *lock(&self.view) = store.view();
        Ok((last, rejected))
    }

    /// From now on what is appended may leave.
    fn let_go(&self) {
        let newest = lock(&self.view).state.mark.as_ref().map_or(0, |mark| mark.root_seq);
        self.gone.fetch_max(newest, Ordering::Relaxed);
    }

    /// Sends what is released until the stream is closed.
    pub async fn courier(self: Arc<Self>, streams: Arc<Streams>) {
        let watermark = *self.released.borrow();
        let mut released = self.released.subscribe();
        let mut up = streams.up(&self.spec.consumer);
        let mut flight = Flight::new(self.lineage.epoch, watermark, Instant::now());
        flight.connected(*up.borrow_and_update(), Instant::now());
        flight.released(*released.borrow_and_update());
        loop {
            while let Some(ack) = self.next_ack() {
                if flight.acked(&ack, Instant::now())
                    && let Err(fault) = Arc::clone(&self).trim(flight.watermark()).await
                {
                    tracing::warn!(edge = self.spec.edge, %fault, "cannot give back delivered frames yet");
                }
            }
            let wait = match flight.action(Instant::now()) {
                Action::Open => {
                    self.send_open(&streams).await;
                    flight.opened(Instant::now());
                    continue;
                }
                Action::Send { from, to } => match Arc::clone(&self).send(&streams, from, to).await {
                    Ok(through) => {
                        flight.sent(through, Instant::now());
                        // Others on this thread get their turn between frames.
                        tokio::task::yield_now().await;
                        continue;
                    }
                    Err(cause) => {
                        tracing::debug!(edge = self.spec.edge, cause, "cannot send now");
                        Some(Duration::from_millis(200))
                    }
                },
                Action::Wait(wait) => wait,
            };
            tokio::select! {
                changed = released.changed() => {
                    if changed.is_err() { return; }
                    flight.released(*released.borrow_and_update());
                }
                changed = up.changed() => {
                    if changed.is_err() { return; }
                    flight.connected(*up.borrow_and_update(), Instant::now());
                }
                () = self.acked.notified() => {}
                () = tokio::time::sleep(wait.unwrap_or(Duration::from_secs(3600))) => {}
            }
        }
    }

    fn next_ack(&self) -> Option<StreamAck> {
        lock(&self.acks).pop_front()
    }

    async fn send_open(&self, streams: &Streams) {
        let (first_seq, next_seq) = {
            let view = lock(&self.view);
            (view.state.first_seq, view.state.next_seq)
        };
        let open = StreamOpen {
            stream: self.spec.stream,
            epoch: self.lineage.epoch,
            key: self.lineage.key.clone(),
            first_seq,
            next_seq,
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
            None => tokio::task::spawn_blocking(move || lock(&this.store).frames(from, to))
                .await
                .map_err(|error| error.to_string())?,
        };
        let found = found.map_err(|error| error.to_string())?;
        let mut next = from;
        for (seq, frame) in &found.frames {
            if *seq > next {
                self.send_gap(streams, next, *seq - 1).await?;
            }
            self.sent.fetch_max(*seq, Ordering::Relaxed);
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
        let cause = "given up by policy, lost to damage, or already acknowledged by an earlier life of the consumer";
        tracing::warn!(
            edge = self.spec.edge,
            first_seq,
            last_seq,
            "these frames will never come"
        );
        let gap = Frame::Gap {
            first_seq,
            records: 0,
            cause: cause.to_string(),
        };
        let (stream, lineage) = (&self.spec.stream, &self.lineage);
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
            let mut store = lock(&this.store);
            let trimmed = store.spool.trim(watermark);
            *lock(&this.view) = store.view();
            trimmed
        });
        let trimmed = trimmed.await.map_err(|error| Fault::retry(error.to_string()))?;
        trimmed.map_err(|error| spool_fault(&self.spec, error))?;
        // One waiter at most, the sink; it may be about to wait.
        self.trimmed.notify_one();
        Ok(())
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

/// The sink at a pipe's end: `write` appends and fsyncs, `commit` lets the courier have it.
struct Producer {
    out: Arc<Outgoing>,
    appended: u64,
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
        let View { state, book } = lock(&self.out.view).clone();
        Ok(state.mark.map(|mark| Watermark {
            seq: mark.root_seq,
            position: Position::new(book.position),
            delivered: state.produced_records,
            dead: book.dead,
        }))
    }

    async fn gone_out(&mut self, _: &StreamId) -> Result<u64, Fault> {
        let written = lock(&self.out.view).book.gone;
        Ok(written.max(self.out.gone.load(Ordering::Relaxed)))
    }

    async fn write(&mut self, deliveries: &[Delivery]) -> Result<Vec<Rejected>, Fault> {
        let give_up = Instant::now() + FULL_WAIT;
        loop {
            let (out, owned) = (Arc::clone(&self.out), deliveries.to_vec());
            let appended = tokio::task::spawn_blocking(move || out.append(&owned)).await;
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
        self.out.let_go();
        self.out.released.send_if_modified(|released| {
            let rises = self.appended > *released;
            *released = self.appended.max(*released);
            rises
        });
        Ok(())
    }

    async fn rewind(&mut self, _: &StreamId, seq: u64) -> Result<(), Fault> {
        let out = Arc::clone(&self.out);
        let done = tokio::task::spawn_blocking(move || {
            let mut store = lock(&out.store);
            lock(&out.recent).clear();
            store
                .spool
                .truncate_after(seq)
                .map_err(|error| spool_fault(&out.spec, error))?;
            let mark = store.spool.state().mark;
            store.book = mark
                .and_then(|mark| bus_schema::decode(&mark.position))
                .unwrap_or_default();
            *lock(&out.view) = store.view();
            Ok(())
        });
        done.await.map_err(|error| Fault::retry(error.to_string()))?
    }

    fn recovered(&mut self) {
        self.out.let_go();
        let last = lock(&self.out.view).state.next_seq - 1;
        self.appended = last;
        self.out.released.send_replace(last);
    }
}
