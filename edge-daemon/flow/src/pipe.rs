//! A pipe as the runner takes it: one source, a tree of transforms, and the sinks at its leaves. Also what the runner
//! needs from the daemon around it: where checkpoints go, and who watches. Dead letters are in `letter`.

use std::{
    sync::{
        Arc, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bus_schema::{
    data::{Batch, Origin},
    id::StreamId,
    message::{Ledger, RunState},
};
use tokio::sync::{Mutex, MutexGuard};

use crate::{
    Fault,
    sink::Sink,
    sink::Watermark,
    source::Source,
    transform::{Drift, Transform},
};

/// A sink that pipes can share (fan-in): whoever holds the lock writes and commits.
#[derive(Clone)]
pub struct Shared(pub(crate) Arc<Mutex<Opened>>);

pub(crate) struct Opened {
    pub(crate) sink: Box<dyn Sink>,
    pub(crate) is_open: bool,
    /// Somebody is between calls that belong together. Found set by the next one: that pipe was cut off (it panicked,
    /// or did not drain in time), and what it left half done must not be committed with somebody else's records.
    pub(crate) is_busy: bool,
}

impl Shared {
    /// Wraps a sink that is not open yet.
    pub fn new(sink: Box<dyn Sink>) -> Self {
        Self(Arc::new(Mutex::new(Opened {
            sink,
            is_open: false,
            is_busy: false,
        })))
    }

    /// Waits for its turn, and marks the sink as busy until [`Opened::done`].
    pub(crate) async fn claim(&self) -> MutexGuard<'_, Opened> {
        let mut opened = self.0.lock().await;
        if std::mem::replace(&mut opened.is_busy, true) {
            opened.is_open = false;
            opened.sink.close().await;
        }
        opened
    }

    /// See [`Sink::has_moved`]. Who holds the sink at this moment will find out.
    pub(crate) fn has_moved(&self) -> bool {
        self.0.try_lock().is_ok_and(|opened| opened.sink.has_moved())
    }

    /// See [`Sink::is_due`]. While somebody holds the sink it is not.
    pub(crate) fn is_due(&self) -> bool {
        self.0.try_lock().is_ok_and(|opened| opened.sink.is_due())
    }

    /// Closes the sink, once every pipe that used it has ended.
    pub async fn close(&self) {
        let mut opened = self.0.lock().await;
        if std::mem::take(&mut opened.is_open) || std::mem::take(&mut opened.is_busy) {
            opened.sink.close().await;
        }
    }
}

impl Opened {
    /// Nothing is half done any more.
    pub(crate) fn done(&mut self) {
        self.is_busy = false;
    }

    /// Closes after a fault.
    pub(crate) async fn close(&mut self) {
        self.is_open = false;
        self.sink.close().await;
    }
}

/// A transform in its place.
pub struct Stage {
    /// The stage it reads from, by index; `None` reads from the source. Always a lower index than its own.
    pub after: Option<usize>,
    /// Its name in the workflow.
    pub node: String,
    /// What it does.
    pub transform: Box<dyn Transform>,
}

/// A sink in its place.
pub struct Leaf {
    /// The stage it reads from; `None` reads from the source.
    pub after: Option<usize>,
    /// Its name in the workflow.
    pub node: String,
    /// The lineage under which it keeps its watermark.
    pub stream: StreamId,
    /// The sink.
    pub sink: Shared,
    /// Its account.
    pub meter: Arc<Meter>,
}

/// From one source to its sinks.
pub struct Pipe {
    /// The source's name in the workflow.
    pub node: String,
    /// The source.
    pub source: Box<dyn Source>,
    /// Makes the origin of a batch; `None` keeps the origin a batch came with (an incoming stream).
    pub origin: Option<Arc<dyn Fn() -> Origin + Send + Sync>>,
    /// Transforms, each after the one it reads from.
    pub stages: Vec<Stage>,
    /// Sinks; at least one. More than one only if each can [`Sink::rewind`].
    pub leaves: Vec<Leaf>,
    /// The source reads again what was not committed, so that what died uncommitted dies again.
    pub rereads: bool,
}

/// What one leaf has handled. Readable at any time, always balanced.
#[derive(Debug, Default)]
pub struct Meter {
    mark: std::sync::Mutex<Watermark>,
    in_flight: AtomicU64,
    throughput: std::sync::Mutex<Throughput>,
}

/// A meter's reading.
pub type Account = Ledger;

impl Meter {
    /// The account now. What is in flight counts as buffered: the source still has it.
    pub fn account(&self) -> Account {
        self.account_at(&self.mark())
    }

    /// The account that goes with a mark of this meter.
    pub fn account_at(&self, mark: &Watermark) -> Account {
        let buffered = self.in_flight.load(Ordering::Relaxed);
        let Watermark { delivered, counts, .. } = mark;
        Ledger {
            produced: delivered + counts.dead + counts.dropped + buffered,
            buffered,
            delivered: *delivered,
            dropped: counts.dropped,
            dead: counts.dead,
            duplicates: counts.duplicates,
            unconfirmed: counts.unconfirmed,
            // Produced is what was left of them.
            filtered: 0,
        }
    }

    /// The last durable delivery.
    pub fn mark(&self) -> Watermark {
        self.lock().clone()
    }

    /// What went through.
    pub fn throughput(&self) -> Throughput {
        *self.lock_throughput()
    }

    fn lock_throughput(&self) -> std::sync::MutexGuard<'_, Throughput> {
        // The same as of the mark.
        self.throughput.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn carried(&self, bytes: u64) {
        self.lock_throughput().bytes += bytes;
    }

    pub(crate) fn took(&self, time: Duration) {
        let mut throughput = self.lock_throughput();
        throughput.timed += 1;
        throughput.took_ms += time.as_millis() as u64;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Watermark> {
        // A panic while this was held leaves plain values behind.
        self.mark.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set(&self, mark: &Watermark, in_flight: u64) {
        self.lock().clone_from(mark);
        self.in_flight.store(in_flight, Ordering::Relaxed);
    }

    pub(crate) fn entered(&self, records: u64) {
        self.in_flight.fetch_add(records, Ordering::Relaxed);
    }

    pub(crate) fn left(&self, records: u64) -> u64 {
        self.in_flight.fetch_sub(records, Ordering::Relaxed) - records
    }
}

/// Keeps the watermarks of sinks that cannot.
#[async_trait]
pub trait Checkpoints: Send + Sync {
    /// The last one saved.
    async fn load(&self, stream: &StreamId) -> Result<Option<Watermark>, Fault>;
    /// Durable when it returns.
    async fn save(&self, stream: &StreamId, mark: &Watermark) -> Result<(), Fault>;
}

/// Watches a pipe.
pub trait Observer: Send + Sync {
    /// How it is doing; called on every change.
    fn state(&self, state: RunState, cause: &str);
    /// A node met columns that are not what was agreed; called for every such batch.
    fn drifted(&self, node: &str, drift: &Drift) {
        let _ = (node, drift);
    }
    /// A node failed and is tried again, or given up.
    fn failed(&self, node: &str) {
        let _ = node;
    }
    /// Records that left a node (or, for a sink, arrived there). Called for every batch: must return at once.
    fn passed(&self, node: &str, batch: &Batch, passage: Passage);
}

/// How a batch passed a node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Passage {
    /// About how many bytes it takes.
    pub bytes: u64,
    /// Records that did not pass, and became dead letters.
    pub died: u64,
    /// How long the node was at work, waiting included. A source takes the time that its system takes to have something: none.
    pub took: Duration,
}

/// What went through one leaf since its pipe was built. Only ever grows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Throughput {
    /// About how many bytes the records take that are durable.
    pub bytes: u64,
    /// Groups of batches that became durable together.
    pub timed: u64,
    /// How long those took from where the first was read until all were durable everywhere, in milliseconds.
    pub took_ms: u64,
}
