//! What both ends of a join share: the store, whose turn it is, and who has come to an end.

use std::{
    path::PathBuf,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use flow::Fault;
use tokio::{
    sync::{Mutex, Notify, OwnedMutexGuard},
    task::spawn_blocking,
};

use super::{
    SIDES,
    store::{Rules, Store},
};

/// Whoever holds it has the store for itself.
pub(super) type Turn = OwnedMutexGuard<Option<Store>>;

pub(super) struct Hub {
    pub rules: Rules,
    file: OnceLock<Option<PathBuf>>,
    store: Arc<Mutex<Option<Store>>>,
    /// Ways that come in on each side and have not come to their end, and how many there are.
    open: [AtomicU64; SIDES],
    ways: [AtomicU64; SIDES],
    /// Records that are made and not read.
    waiting: AtomicU64,
    /// There is something to read, or an end.
    pub made: Notify,
    /// There is room again.
    pub room: Notify,
}

impl Hub {
    pub(super) fn new(rules: Rules) -> Self {
        Self {
            rules,
            file: OnceLock::new(),
            store: Arc::default(),
            open: Default::default(),
            ways: Default::default(),
            waiting: AtomicU64::new(0),
            made: Notify::new(),
            room: Notify::new(),
        }
    }

    pub(super) fn settle(&self, file: Option<PathBuf>) {
        // A second call would be a mistake of the daemon, and the first file is the one that is used.
        let _ = self.file.set(file);
    }

    /// Waits for its turn, and opens the store if it is not. What somebody left half done is undone.
    pub(super) async fn turn(&self) -> Result<Turn, Fault> {
        let turn = Arc::clone(&self.store).lock_owned().await;
        let (rules, file) = (self.rules.clone(), self.file.get().cloned().flatten());
        let ready = spawn_blocking(move || {
            let mut turn = turn;
            match turn.as_mut() {
                Some(store) => store.undo()?,
                None => *turn = Some(Store::open(rules, file)?),
            }
            Ok(turn)
        });
        let turn = ready.await.map_err(interrupted)??;
        self.told(&turn);
        Ok(turn)
    }

    /// Does something with the store where blocking is allowed.
    pub(super) async fn with<T: Send + 'static>(
        &self,
        mut turn: Turn,
        work: impl FnOnce(&mut Store) -> Result<T, Fault> + Send + 'static,
    ) -> Result<(Turn, T), Fault> {
        let done = spawn_blocking(move || {
            let store = turn
                .as_mut()
                .ok_or_else(|| Fault::retry("the join's store is not open"))?;
            let done = work(store);
            if done.is_err() {
                // Whatever is wrong with it: the next one opens it anew.
                *turn = None;
            }
            done.map(|done| (turn, done))
        });
        let (turn, done) = done.await.map_err(interrupted)??;
        self.told(&turn);
        Ok((turn, done))
    }

    fn told(&self, turn: &Turn) {
        let waiting = turn.as_ref().map_or(0, Store::waiting);
        self.waiting.store(waiting, Ordering::Release);
    }

    pub(super) fn waiting(&self) -> u64 {
        self.waiting.load(Ordering::Acquire)
    }

    /// One more way comes in.
    pub(super) fn enter(&self, side: usize) {
        self.ways[side].fetch_add(1, Ordering::AcqRel);
        self.begin(side);
    }

    pub(super) fn begin(&self, side: usize) {
        self.open[side].fetch_add(1, Ordering::AcqRel);
    }

    pub(super) fn end(&self, side: usize) {
        self.open[side].fetch_sub(1, Ordering::AcqRel);
        self.made.notify_one();
        self.room.notify_waiters();
    }

    /// Which sides have come to their end.
    pub(super) fn ended(&self) -> [bool; SIDES] {
        let is_over =
            |side: usize| self.ways[side].load(Ordering::Acquire) > 0 && self.open[side].load(Ordering::Acquire) == 0;
        [is_over(0), is_over(1)]
    }
}

fn interrupted(error: tokio::task::JoinError) -> Fault {
    Fault::retry(format!("the join's store was interrupted: {error}"))
}
