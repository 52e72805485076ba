//! Dead letters: one store per workflow, used by its pipes, and by operators through `desk`. A store that is damaged, or on a
//! disk that is full, holds up what depends on it and says why; it is never given up in silence.

mod desk;
mod kept;
mod mend;
pub mod offline;
mod room;
mod row;
mod salvage;
mod store;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use async_trait::async_trait;
use bus_link::reserve;
use flow::{DeadLetter, DeadLetters, Due, Fault, LetterKey, Stand};

pub use desk::Desk;
pub use kept::ToldKept;
use row::Stamp;
use store::{Store, StoreError};

use crate::assemble::unix_ms;

/// The directory of all stores in the data directory.
const DIR: &str = "dead";
/// What a store's file is called after its workflow.
const EXTENSION: &str = "letters";
/// Letters of at most so many bytes may use what is kept in reserve on a full disk.
const RESERVED_BYTES_MAX: usize = 64 * 1024;

/// The dead letters of all workflows of a daemon.
#[derive(Clone)]
pub struct Letters {
    shared: Arc<Shared>,
}

struct Shared {
    dir: PathBuf,
    quota_bytes: u64,
    /// The daemon's epoch.
    boot: u64,
    started: Instant,
    boxes: Mutex<HashMap<String, Arc<LetterBox>>>,
    counts: kept::Counts,
}

impl Letters {
    /// Under `<data_dir>/dead`, `quota_bytes` for each workflow. `boot` is the daemon's epoch.
    pub fn new(data_dir: &Path, quota_bytes: u64, boot: u64, started: Instant) -> Self {
        Self {
            shared: Arc::new(Shared {
                dir: data_dir.join(DIR),
                quota_bytes,
                boot,
                started,
                boxes: Mutex::default(),
                counts: kept::Counts::default(),
            }),
        }
    }

    /// The letters of a workflow, by its name. Makes nothing on disk.
    pub fn of(&self, workflow: &str) -> Arc<LetterBox> {
        let mut boxes = self.boxes();
        let shared = &self.shared;
        let make = || {
            Arc::new(LetterBox {
                path: self.path(workflow),
                quota_bytes: shared.quota_bytes,
                boot: shared.boot,
                started: shared.started,
                store: Mutex::default(),
                wishes: AtomicU64::new(0),
            })
        };
        Arc::clone(boxes.entry(workflow.to_string()).or_insert_with(make))
    }

    fn path(&self, workflow: &str) -> PathBuf {
        self.shared.dir.join(format!("{workflow}.{EXTENSION}"))
    }

    fn boxes(&self) -> MutexGuard<'_, HashMap<String, Arc<LetterBox>>> {
        self.shared.boxes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Workflows that have a store, by name, in order. Blocks.
    pub fn workflows(&self) -> std::io::Result<Vec<String>> {
        let entries = match std::fs::read_dir(&self.shared.dir) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut names = Vec::new();
        for entry in entries {
            let path = entry?.path();
            if path.extension().is_some_and(|end| end == EXTENSION)
                && let Some(name) = path.file_stem().and_then(|name| name.to_str())
            {
                names.push(name.to_string());
            }
        }
        names.sort_unstable();
        Ok(names)
    }
}

/// The dead letters of one workflow.
pub struct LetterBox {
    path: PathBuf,
    quota_bytes: u64,
    boot: u64,
    started: Instant,
    /// Opened when it is first needed.
    store: Mutex<Option<Store>>,
    wishes: AtomicU64,
}

impl LetterBox {
    fn lock(&self) -> MutexGuard<'_, Option<Store>> {
        let locked = self.store.lock();
        locked.unwrap_or_else(|poisoned| {
            // A panic in the middle: the transaction was never committed, and the file is opened again.
            let mut store = poisoned.into_inner();
            *store = None;
            store
        })
    }

    /// Writes something small, for which there are bytes in reserve when the disk is full. Blocks.
    fn with_reserve<T>(&self, mut work: impl FnMut(&mut Store) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let data_dir = self.path.parent().and_then(Path::parent).unwrap_or(&self.path);
        let written = reserve::with(data_dir, || match self.with(&mut work) {
            Err(error) if error.is_full() => Err(std::io::ErrorKind::StorageFull.into()),
            done => Ok(done),
        });
        written?
    }

    /// Works with the store, once more if it turns out to be damaged. Blocks.
    fn with<T>(&self, mut work: impl FnMut(&mut Store) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let mut opened = self.lock();
        let mut store = match opened.take() {
            Some(store) => store,
            None => salvage::open(&self.path, self.quota_bytes)?,
        };
        let done = match work(&mut store) {
            Err(error) if error.is_damage() => {
                drop(store);
                store = salvage::salvage(&self.path, self.quota_bytes, &error)?;
                work(&mut store)
            }
            done => done,
        };
        *opened = Some(store);
        done
    }

    /// The same, if there is a store at all. Blocks.
    fn with_existing<T>(&self, work: impl FnMut(&mut Store) -> Result<T, StoreError>) -> Result<Option<T>, StoreError> {
        // A salvage that was cut short leaves another name for a moment; it is mended with the next letter.
        if self.path.exists() {
            self.with(work).map(Some)
        } else {
            Ok(None)
        }
    }

    /// Letters are to be tried again.
    fn wish(&self) {
        self.wishes.fetch_add(1, Ordering::Relaxed);
    }

    fn stamp(&self) -> Stamp {
        Stamp {
            boot: self.boot,
            uptime_ms: self.started.elapsed().as_millis() as u64,
            unix_ms: unix_ms(),
        }
    }
}

/// A pipe's view of a workflow's letters.
#[derive(Clone)]
pub struct PipeLetters(pub Arc<LetterBox>);

impl PipeLetters {
    async fn run<T: Send + 'static>(
        &self,
        what: &str,
        work: impl FnOnce(&LetterBox) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, Fault> {
        let letters = Arc::clone(&self.0);
        let path = letters.path.display().to_string();
        let done = tokio::task::spawn_blocking(move || work(&letters)).await;
        let done = done.map_err(|error| Fault::retry(format!("cannot {what} in {path}: {error}")))?;
        done.map_err(|error| Fault::retry(format!("cannot {what} in {path}: {error}")))
    }
}

#[async_trait]
impl DeadLetters for PipeLetters {
    async fn begin(&self, root: &str, seq: u64, rereads: bool) -> Result<(), Fault> {
        let root = root.to_string();
        let begun = self.run("look at the dead letters", move |letters| {
            letters.with_existing(|store| store.begin(&root, seq, rereads))
        });
        begun.await.map(|_| ())
    }

    async fn put(&self, letters: Vec<DeadLetter>) -> Result<(), Fault> {
        let put = self.run("keep dead letters", move |own| {
            let stamp = own.stamp();
            let bytes: usize = letters.iter().map(|letter| letter.record.len()).sum();
            if bytes <= RESERVED_BYTES_MAX {
                own.with_reserve(|store| store.put(&letters, stamp))
            } else {
                own.with(|store| store.put(&letters, stamp))
            }
        });
        let (new, is_wished) = put.await?;
        if is_wished {
            self.0.wish();
        }
        if new > 0 {
            tracing::warn!(records = new, path = %self.0.path.display(), "records went to the dead letters");
        }
        Ok(())
    }

    async fn take_back(&self, keys: Vec<LetterKey>) -> Result<(), Fault> {
        let taken = self.run("take dead letters back", move |letters| {
            letters.with_existing(|store| store.take_back(&keys))
        });
        taken.await.map(|_| ())
    }

    fn wishes(&self) -> u64 {
        self.0.wishes.load(Ordering::Relaxed)
    }

    async fn replays(&self, root: &str, stand: Stand) -> Result<Due, Fault> {
        let root = root.to_string();
        let due = self.run("read dead letters", move |letters| {
            letters.with_existing(|store| store.replays(&root, stand))
        });
        due.await.map(Option::unwrap_or_default)
    }

    async fn settled(&self, ids: Vec<u64>) -> Result<(), Fault> {
        let count = ids.len();
        let settled = self.run("remove dead letters", move |letters| {
            letters.with_reserve(|store| store.settled(&ids))
        });
        settled.await?;
        tracing::info!(records = count, "dead letters were tried again");
        Ok(())
    }

    async fn refuse(&self, id: u64, reason: String) -> Result<(), Fault> {
        let refused = self.run("mark a dead letter", move |letters| {
            letters.with_existing(|store| store.refuse(id, &reason))
        });
        refused.await.map(|_| ())
    }
}
