//! What a pipe needs to live, die and live again in a test: books that outlive it, a destination that keeps what arrives, and
//! the end of its life, in good order or not.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use bus_schema::{
    data::{Batch, Op, Origin},
    id::StreamId,
    message::RunState,
};
use flow::{
    Checkpoints, DeadLetter, DeadLetters, Delivery, Due, Fault, Gathered, Leaf, LetterKey, Meter, Observer, Outcome,
    Passage, Pipe, Rejected, Shared, Sink, Source, Stand, Surroundings, Watermark,
};
use tokio::{runtime::Handle, sync::watch, task::JoinHandle};

use crate::numbers::Numbers;

/// How long anything may take.
const SOON: Duration = Duration::from_secs(40);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(10);
/// How long a pipe may take to end when it is told to.
const STOP_MAX: Duration = Duration::from_secs(10);
/// The name of the source.
const ROOT: &str = "in";

/// What a counting source gives. Shared by its lives.
#[derive(Clone, Default)]
pub struct Plan(Arc<Planned>);

struct Planned {
    last: AtomicU64,
    given: AtomicU64,
    drift_from: AtomicU64,
    bad: Mutex<Option<(u64, Op)>>,
}

impl Default for Planned {
    fn default() -> Self {
        Self {
            last: AtomicU64::new(0),
            given: AtomicU64::new(0),
            drift_from: AtomicU64::new(u64::MAX),
            bad: Mutex::default(),
        }
    }
}

impl Plan {
    /// The number it counts to.
    pub fn last(&self) -> u64 {
        self.0.last.load(Ordering::SeqCst)
    }

    /// So many more.
    pub fn more(&self, count: u64) {
        self.0.last.fetch_add(count, Ordering::SeqCst);
    }

    /// It has given all up to this one.
    pub fn given(&self, number: u64) {
        self.0.given.store(number, Ordering::SeqCst);
    }

    /// The last number that was given.
    pub fn given_to(&self) -> u64 {
        self.0.given.load(Ordering::SeqCst)
    }

    /// From which number on there is another column.
    pub fn drift_from(&self) -> u64 {
        self.0.drift_from.load(Ordering::SeqCst)
    }

    /// From the next number on.
    pub fn drift(&self) {
        self.0.drift_from.store(self.last() + 1, Ordering::SeqCst);
    }

    /// The number of the bad record, and what it says.
    pub fn bad(&self) -> Option<(u64, Op)> {
        *self.0.bad.lock().unwrap()
    }

    /// This one shall be bad.
    pub fn set_bad(&self, number: u64, op: Op) {
        *self.0.bad.lock().unwrap() = Some((number, op));
    }
}

/// What a daemon keeps on its disk, and what it tells.
#[derive(Default)]
pub struct Books {
    marks: Mutex<HashMap<StreamId, Watermark>>,
    letters: Mutex<BTreeMap<LetterKey, DeadLetter>>,
    /// Records that the source gave.
    read: AtomicU64,
    /// The last cause of trouble.
    cause: Mutex<String>,
}

#[async_trait]
impl Checkpoints for Books {
    async fn load(&self, stream: &StreamId) -> Result<Option<Watermark>, Fault> {
        Ok(self.marks.lock().unwrap().get(stream).cloned())
    }

    async fn save(&self, stream: &StreamId, mark: &Watermark) -> Result<(), Fault> {
        self.marks.lock().unwrap().insert(*stream, mark.clone());
        Ok(())
    }
}

#[async_trait]
impl DeadLetters for Books {
    async fn begin(&self, root: &str, seq: u64, rereads: bool) -> Result<(), Fault> {
        if rereads {
            // They come again.
            self.letters
                .lock()
                .unwrap()
                .retain(|key, _| key.root != root || key.seq <= seq);
        }
        Ok(())
    }

    async fn put(&self, letters: Vec<DeadLetter>) -> Result<(), Fault> {
        let mut kept = self.letters.lock().unwrap();
        kept.extend(letters.into_iter().map(|letter| (letter.key.clone(), letter)));
        Ok(())
    }

    async fn take_back(&self, keys: Vec<LetterKey>) -> Result<(), Fault> {
        self.letters.lock().unwrap().retain(|key, _| !keys.contains(key));
        Ok(())
    }

    fn wishes(&self) -> u64 {
        0
    }

    async fn replays(&self, _: &str, _: Stand) -> Result<Due, Fault> {
        Ok(Due::default())
    }

    async fn settled(&self, _: Vec<u64>) -> Result<(), Fault> {
        Ok(())
    }

    async fn refuse(&self, _: u64, _: String) -> Result<(), Fault> {
        Ok(())
    }
}

impl Observer for Books {
    fn state(&self, _: RunState, cause: &str) {
        if !cause.is_empty() {
            *self.cause.lock().unwrap() = cause.to_string();
        }
    }

    fn passed(&self, node: &str, batch: &Batch, _: Passage) {
        if node == ROOT {
            self.read.fetch_add(batch.rows() as u64, Ordering::SeqCst);
        }
    }
}

/// A destination that keeps what arrives, each record once, and that can be told to take nothing.
#[derive(Clone)]
pub struct Vault(Arc<Kept>);

struct Kept {
    column: &'static str,
    counted: Option<(&'static str, &'static str)>,
    is_shut: AtomicBool,
    /// How long it gathers, if it does.
    gathers: Mutex<Option<Duration>>,
    rows: AtomicU64,
    extras: AtomicU64,
    inside: Mutex<(HashMap<StreamId, Watermark>, Numbers)>,
}

impl Vault {
    /// Takes the numbers from a column, perhaps only of the records with this text in another column.
    pub fn new(column: &'static str, counted: Option<(&'static str, &'static str)>) -> Self {
        Self(Arc::new(Kept {
            column,
            counted,
            is_shut: AtomicBool::new(false),
            gathers: Mutex::default(),
            rows: AtomicU64::new(0),
            extras: AtomicU64::new(0),
            inside: Mutex::default(),
        }))
    }

    /// Takes nothing from now on, or goes on.
    pub fn shut(&self, is_shut: bool) {
        self.0.is_shut.store(is_shut, Ordering::SeqCst);
    }

    /// What is committed is durable only when the first of it is so old.
    pub fn gather(&self, age: Duration) {
        *self.0.gathers.lock().unwrap() = Some(age);
    }

    /// This number never comes, and is not waited for.
    pub fn count(&self, number: u64) {
        self.0.inside.lock().unwrap().1.add(number);
    }

    /// Records that arrived.
    pub fn rows(&self) -> u64 {
        self.0.rows.load(Ordering::SeqCst)
    }

    /// Those of them with something in `extra`.
    pub fn extras(&self) -> u64 {
        self.0.extras.load(Ordering::SeqCst)
    }

    /// Their numbers.
    pub fn numbers(&self) -> Numbers {
        self.0.inside.lock().unwrap().1.clone()
    }

    /// A way in, for one life.
    pub fn door(&self) -> Box<dyn Sink> {
        Box::new(Door {
            vault: self.clone(),
            pending: Vec::new(),
            since: None,
        })
    }
}

struct Door {
    vault: Vault,
    pending: Vec<Delivery>,
    /// When the first of them was committed.
    since: Option<Instant>,
}

impl Door {
    fn gathers(&self) -> Option<Duration> {
        *self.vault.0.gathers.lock().unwrap()
    }

    fn keep(&mut self) {
        let kept = &self.vault.0;
        let mut inside = kept.inside.lock().unwrap();
        self.since = None;
        for delivery in self.pending.drain(..) {
            let before = inside.0.get(&delivery.stream).cloned().unwrap_or_default();
            assert!(delivery.seq > before.seq, "{} after {}", delivery.seq, before.seq);
            let schema = delivery.batch.schema();
            let (number, extra) = (schema.index_of(kept.column), schema.index_of("extra"));
            let counted = kept.counted.map(|(column, text)| (schema.index_of(column), text));
            for row in 0..delivery.batch.rows() {
                let counts = |(column, text): (Option<usize>, &str)| {
                    column.is_some_and(|column| delivery.batch.cell(row, column).to_string() == text)
                };
                if counted.is_none_or(counts)
                    && let Some(number) =
                        number.and_then(|column| delivery.batch.cell(row, column).to_string().parse().ok())
                {
                    inside.1.add(number);
                }
                if extra.is_some_and(|column| delivery.batch.cell(row, column).is_value()) {
                    kept.extras.fetch_add(1, Ordering::SeqCst);
                }
            }
            kept.rows.fetch_add(delivery.batch.rows() as u64, Ordering::SeqCst);
            let after = before.after(&delivery, 0);
            inside.0.insert(delivery.stream, after);
        }
    }
}

#[async_trait]
impl Sink for Door {
    async fn open(&mut self) -> Result<(), Fault> {
        if self.gathers().is_none() {
            self.pending.clear();
        }
        Ok(())
    }

    fn begin(&mut self, _: &StreamId, _: &Watermark) {
        self.pending.clear();
    }

    fn gathered(&self, stream: &StreamId) -> Option<Gathered> {
        self.gathers()?;
        let before = self.vault.0.inside.lock().unwrap().0.get(stream).cloned();
        let pending = self.pending.iter().filter(|delivery| delivery.stream == *stream);
        Some(Gathered {
            mark: pending.fold(before.unwrap_or_default(), |mark, delivery| mark.after(delivery, 0)),
            is_durable: self.pending.is_empty(),
        })
    }

    async fn complete(&mut self, _: &StreamId) -> Result<(), Fault> {
        self.keep();
        Ok(())
    }

    async fn watermark(&mut self, stream: &StreamId) -> Result<Option<Watermark>, Fault> {
        Ok(self.vault.0.inside.lock().unwrap().0.get(stream).cloned())
    }

    fn keeps_watermark(&self) -> bool {
        true
    }

    async fn write(&mut self, deliveries: &[Delivery]) -> Result<Vec<Rejected>, Fault> {
        self.pending.extend(deliveries.iter().cloned());
        Ok(Vec::new())
    }

    async fn commit(&mut self) -> Result<(), Fault> {
        while self.vault.0.is_shut.load(Ordering::SeqCst) {
            tokio::time::sleep(LOOK).await;
        }
        // Yields, so that a life can end between the two steps.
        tokio::task::yield_now().await;
        if let Some(age) = self.gathers().filter(|_| !self.pending.is_empty())
            && self.since.get_or_insert_with(Instant::now).elapsed() < age
        {
            return Ok(());
        }
        self.keep();
        Ok(())
    }
}

struct Life {
    task: JoinHandle<Outcome>,
    stop: watch::Sender<bool>,
    meter: Arc<Meter>,
}

/// Where pipes live.
pub struct Bench {
    runtime: Handle,
    books: Arc<Books>,
    life: Option<Life>,
}

impl Bench {
    /// With empty books.
    pub fn new() -> Self {
        // As a daemon has it. It goes on for as long as the process does.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let handle = runtime.handle().clone();
        std::thread::spawn(move || runtime.block_on(std::future::pending::<()>()));
        Self {
            runtime: handle,
            books: Arc::default(),
            life: None,
        }
    }

    /// Waits for what is asynchronous.
    pub fn wait_for<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    /// A pipe begins to live.
    pub fn start(&mut self, source: Box<dyn Source>, rereads: bool, sink: Box<dyn Sink>) {
        assert!(self.life.is_none(), "one at a time");
        let (stop, stopping) = watch::channel(false);
        let meter = Arc::<Meter>::default();
        let pipe = Pipe {
            node: ROOT.into(),
            source,
            origin: Some(Arc::new(Origin::default)),
            stages: Vec::new(),
            leaves: vec![Leaf {
                after: None,
                node: "out".into(),
                stream: StreamId::from_hash(&bus_schema::id::hash("test", &[b"compliance"])),
                sink: Shared::new(sink),
                meter: Arc::clone(&meter),
            }],
            rereads,
        };
        let around = Surroundings {
            dead_letters: Arc::clone(&self.books) as Arc<dyn DeadLetters>,
            checkpoints: Arc::clone(&self.books) as Arc<dyn Checkpoints>,
            observer: Arc::clone(&self.books) as Arc<dyn Observer>,
            random: || 0,
            stop: stopping,
        };
        let shared = pipe.leaves[0].sink.clone();
        let task = self.runtime.spawn(async move {
            let outcome = flow::run(pipe, around).await;
            shared.close().await;
            outcome
        });
        self.life = Some(Life { task, stop, meter });
    }

    /// It is dropped where it stands.
    pub fn kill(&mut self) {
        let life = self.life.take().unwrap();
        life.task.abort();
        if let Ok(outcome) = self.runtime.block_on(life.task) {
            panic!("it had ended by itself: {outcome:?}");
        }
    }

    /// It is told to stop, and does.
    pub fn stop(&mut self) {
        let life = self.life.take().unwrap();
        let begun = Instant::now();
        life.stop.send(true).unwrap();
        let ended = self
            .runtime
            .block_on(async { tokio::time::timeout(STOP_MAX, life.task).await });
        let outcome = ended
            .unwrap_or_else(|_| panic!("it does not stop within {STOP_MAX:?}"))
            .unwrap();
        assert!(
            matches!(outcome, Outcome::Stopped | Outcome::Finished),
            "{outcome:?} after {:?}",
            begun.elapsed()
        );
    }

    /// Records that sources gave, in all lives.
    pub fn read(&self) -> u64 {
        self.books.read.load(Ordering::SeqCst)
    }

    /// Records that a leaf has durably, in this life and before.
    pub fn delivered(&self) -> u64 {
        self.life.as_ref().map_or(0, |life| life.meter.account().delivered)
    }

    /// Dead letters.
    pub fn letters(&self) -> Vec<String> {
        let letters = self.books.letters.lock().unwrap();
        letters.values().map(|letter| letter.reason.clone()).collect()
    }

    fn cause(&self) -> String {
        self.books.cause.lock().unwrap().clone()
    }

    /// Waits until something is so.
    #[track_caller]
    pub fn until(&mut self, what: &str, mut is_so: impl FnMut(&Self) -> bool) {
        let begun = Instant::now();
        while !is_so(self) {
            let has_ended = self.life.as_ref().is_some_and(|life| life.task.is_finished());
            assert!(
                begun.elapsed() < SOON && !has_ended,
                "waited {:?} for {what}; the last trouble was: {}; dead letters: {:?}",
                begun.elapsed(),
                self.cause(),
                self.letters().iter().take(3).collect::<Vec<_>>()
            );
            std::thread::sleep(LOOK);
        }
    }
}

/// Memory of this process that is in use, in KiB.
pub fn rss_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
