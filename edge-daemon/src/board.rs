//! How every workflow on this daemon is doing, pipe by pipe. Written by pipes, read by the heartbeat.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use bus_schema::{
    carried::{NodeCarried, Work},
    data::Batch,
    id::WorkflowId,
    limits::TEXT_BYTES_MAX,
    message::{RunState, WorkflowStatus},
};
use flow::{Observer, Passage};
use tokio::sync::Notify;

use crate::{carried::Tally, taps::Taps};

struct Entry {
    revision: u32,
    pipes: BTreeMap<usize, (RunState, String)>,
    /// The last thing that somebody should know, though nothing stops.
    notice: String,
    /// What the nodes of each pipe have done.
    tallies: BTreeMap<usize, Arc<Tally>>,
}

/// The board.
pub struct Board {
    entries: Mutex<BTreeMap<WorkflowId, Entry>>,
    changed: Notify,
    taps: Arc<Taps>,
}

/// Badness, for the state of a whole from those of its parts.
fn badness(state: RunState) -> u8 {
    match state {
        RunState::Finished => 0,
        RunState::Running => 1,
        RunState::Starting => 2,
        RunState::Stopping => 3,
        RunState::Paused => 4,
        RunState::Retrying => 5,
        RunState::Failed => 6,
    }
}

impl Board {
    /// An empty board.
    pub fn new(taps: Arc<Taps>) -> Arc<Self> {
        Arc::new(Self {
            entries: Mutex::default(),
            changed: Notify::new(),
            taps,
        })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<WorkflowId, Entry>> {
        // Plain values: a panic leaves nothing half done.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A workflow begins (again), with this many pipes.
    pub fn begin(&self, workflow: WorkflowId, revision: u32, pipes: usize) {
        let pipes = (0..pipes.max(1))
            .map(|pipe| (pipe, (RunState::Starting, String::new())))
            .collect();
        let notice = String::new();
        self.lock().insert(
            workflow,
            Entry {
                revision,
                pipes,
                notice,
                tallies: BTreeMap::new(),
            },
        );
        self.changed.notify_one();
    }

    /// The same workflow under another revision number.
    pub fn renumber(&self, workflow: WorkflowId, revision: u32) {
        if let Some(entry) = self.lock().get_mut(&workflow) {
            entry.revision = revision;
        }
    }

    /// A workflow is gone.
    pub fn remove(&self, workflow: &WorkflowId) {
        self.lock().remove(workflow);
        self.changed.notify_one();
    }

    /// How one pipe is doing.
    pub fn set(&self, workflow: WorkflowId, pipe: usize, state: RunState, cause: &str) {
        if let Some(entry) = self.lock().get_mut(&workflow) {
            entry.pipes.insert(pipe, (state, cut(cause)));
        }
        self.changed.notify_one();
    }

    /// Something that somebody should know: told as the cause of a state that has none, until the workflow begins anew.
    pub fn note(&self, workflow: WorkflowId, text: &str) {
        if let Some(entry) = self.lock().get_mut(&workflow)
            && !entry.notice.contains(text)
        {
            let before = if entry.notice.is_empty() { "" } else { "; " };
            entry.notice = cut(&format!("{}{before}{text}", entry.notice));
        }
        self.changed.notify_one();
    }

    /// Resolves after a change.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Every workflow's state: the worst of its pipes.
    pub fn statuses(&self) -> Vec<WorkflowStatus> {
        let worst = |(workflow, entry): (&WorkflowId, &Entry)| {
            let (state, mut cause) = entry.pipes.values().max_by_key(|(state, _)| badness(*state)).cloned()?;
            if cause.is_empty() {
                cause.clone_from(&entry.notice);
            }
            Some(WorkflowStatus {
                workflow: *workflow,
                revision: entry.revision,
                state,
                cause,
            })
        };
        self.lock().iter().filter_map(worst).collect()
    }

    /// How each pipe of a workflow is doing, and why.
    pub fn pipes(&self, workflow: &WorkflowId) -> Vec<(RunState, String)> {
        self.lock()
            .get(workflow)
            .map(|entry| entry.pipes.values().cloned().collect())
            .unwrap_or_default()
    }

    /// What the nodes of every workflow have done since it began.
    pub fn carried(&self) -> Vec<NodeCarried> {
        let mut carried = Vec::new();
        for (workflow, entry) in self.lock().iter() {
            let mut nodes = BTreeMap::new();
            entry.tallies.values().for_each(|tally| tally.add_to(&mut nodes));
            carried.extend(nodes.into_iter().map(|(node, work)| NodeCarried {
                workflow: *workflow,
                node,
                work,
            }));
        }
        carried
    }

    /// The observer of one pipe.
    pub fn observer(self: &Arc<Self>, workflow: WorkflowId, pipe: usize) -> Arc<dyn Observer> {
        let tally = Arc::default();
        if let Some(entry) = self.lock().get_mut(&workflow) {
            entry.tallies.insert(pipe, Arc::clone(&tally));
        }
        Arc::new(Watching {
            board: Arc::clone(self),
            workflow,
            pipe,
            tally,
        })
    }
}

/// As much of a text as a message has room for.
fn cut(text: &str) -> String {
    let end = (0..=TEXT_BYTES_MAX.min(text.len()))
        .rev()
        .find(|at| text.is_char_boundary(*at));
    text[..end.unwrap_or(0)].to_string()
}

struct Watching {
    board: Arc<Board>,
    workflow: WorkflowId,
    pipe: usize,
    tally: Arc<Tally>,
}

impl Observer for Watching {
    fn state(&self, state: RunState, cause: &str) {
        self.board.set(self.workflow, self.pipe, state, cause);
    }

    fn notice(&self, node: &str, text: &str) {
        self.board.note(self.workflow, &format!("{node}: {text}"));
    }

    fn failed(&self, node: &str) {
        let faults = 1;
        self.tally.note(
            node,
            Work {
                faults,
                ..Work::default()
            },
        );
    }

    fn passed(&self, node: &str, batch: &Batch, passage: Passage) {
        let Passage { bytes, died, took } = passage;
        let work = Work {
            records: batch.rows() as u64,
            bytes,
            errors: died,
            faults: 0,
            batches: u64::from(batch.rows() > 0),
            busy_us: took.as_micros() as u64,
        };
        self.tally.note(node, work);
        self.board.taps.passed(self.workflow, node, batch, Instant::now());
    }
}
