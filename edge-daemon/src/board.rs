//! How every workflow on this daemon is doing, pipe by pipe. Written by pipes, read by the heartbeat.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use bus_schema::{
    carried::{NodeCarried, Work},
    data::Batch,
    drift::{DRIFT_BYTES_MAX, DRIFT_KEPT_MS, DRIFTS_MAX, WorkflowDrift},
    id::WorkflowId,
    limits::TEXT_BYTES_MAX,
    message::{RunState, WorkflowStatus},
};
use flow::{Drift, Observer, Passage};
use tokio::sync::Notify;

use crate::{carried::Tally, taps::Taps};

struct Entry {
    revision: u32,
    pipes: BTreeMap<usize, (RunState, String)>,
    /// The last thing that somebody should know, though nothing stops.
    notice: String,
    /// Columns that were not as agreed.
    drift: Option<Drifted>,
    /// What the nodes of each pipe have done.
    tallies: BTreeMap<usize, Arc<Tally>>,
}

/// Drift as it was met last.
#[derive(Debug, Clone)]
struct Drifted {
    what: String,
    batches: u64,
    last: Instant,
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

    /// A workflow begins (again), with this many pipes. Drift is remembered until another revision begins: somebody has seen to it.
    pub fn begin(&self, workflow: WorkflowId, revision: u32, pipes: usize) {
        let pipes = (0..pipes.max(1))
            .map(|pipe| (pipe, (RunState::Starting, String::new())))
            .collect();
        let mut entries = self.lock();
        let before = entries.remove(&workflow).filter(|before| before.revision == revision);
        let entry = Entry {
            revision,
            pipes,
            notice: String::new(),
            drift: before.and_then(|before| before.drift),
            tallies: BTreeMap::new(),
        };
        entries.insert(workflow, entry);
        drop(entries);
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
            entry.pipes.insert(pipe, (state, cut(cause, TEXT_BYTES_MAX)));
        }
        self.changed.notify_one();
    }

    /// Columns of a batch were not as agreed. What is new is told as the cause of a state that has none, until the workflow begins
    /// anew; and at once.
    pub fn drifted(&self, workflow: WorkflowId, node: &str, met: &Drift, now: Instant) {
        let mut entries = self.lock();
        let Some(entry) = entries.get_mut(&workflow) else {
            return;
        };
        entry.drift = Some(Drifted {
            what: cut(&format!("{node}: {}", met.what), DRIFT_BYTES_MAX),
            batches: entry.drift.as_ref().map_or(0, |drift| drift.batches) + 1,
            last: now,
        });
        let mut is_news = false;
        for text in &met.news {
            let text = format!("{node}: {text}");
            if !entry.notice.contains(&text) {
                let before = if entry.notice.is_empty() { "" } else { "; " };
                entry.notice = cut(&format!("{}{before}{text}", entry.notice), TEXT_BYTES_MAX);
                is_news = true;
            }
        }
        drop(entries);
        if is_news {
            self.changed.notify_one();
        }
    }

    /// The drift that is worth telling, the latest first.
    pub fn drifts(&self, now: Instant) -> Vec<WorkflowDrift> {
        let told = |(workflow, entry): (&WorkflowId, &Entry)| {
            let drift = entry.drift.as_ref()?;
            Some(WorkflowDrift {
                workflow: *workflow,
                what: drift.what.clone(),
                batches: drift.batches,
                ago_ms: now.saturating_duration_since(drift.last).as_millis() as u64,
            })
        };
        let mut drifts: Vec<_> = self.lock().iter().filter_map(told).collect();
        drifts.retain(|drift| drift.ago_ms <= DRIFT_KEPT_MS);
        drifts.sort_by_key(|drift| drift.ago_ms);
        drifts.truncate(DRIFTS_MAX);
        drifts
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

/// As much of a text as there is room for.
fn cut(text: &str, bytes_max: usize) -> String {
    let end = (0..=bytes_max.min(text.len()))
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

    fn drifted(&self, node: &str, drift: &Drift) {
        self.board.drifted(self.workflow, node, drift, Instant::now());
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bus_schema::redact::Redact;

    use super::*;

    #[test]
    fn drift_is_told_for_a_day_until_another_revision_begins() {
        let board = Board::new(Arc::new(Taps::new(Redact::default()).0));
        let (workflow, began) = (WorkflowId::of_name("a"), Instant::now());
        let later = |seconds| began + Duration::from_secs(seconds);
        let met = |what: &str, news: &[&str]| Drift {
            what: what.into(),
            news: news.iter().map(|text| text.to_string()).collect(),
        };
        let told = |seconds| {
            let drifts = board.drifts(later(seconds)).into_iter();
            drifts
                .map(|drift| format!("{} x{} {}", drift.what, drift.batches, drift.ago_ms / 1_000))
                .collect::<Vec<_>>()
        };
        board.drifted(workflow, "agreed", &met("no such workflow", &[]), began);
        board.begin(workflow, 1, 1);
        assert_eq!(told(0), Vec::<String>::new());
        board.drifted(workflow, "agreed", &met("b is new", &["b is new"]), began);
        board.drifted(workflow, "agreed", &met("b is new", &[]), later(5));
        assert_eq!(told(8), ["agreed: b is new x2 3"]);
        board.set(workflow, 0, RunState::Running, "");
        assert_eq!(board.statuses()[0].cause, "agreed: b is new");
        // The same again, as after a fault.
        board.begin(workflow, 1, 1);
        assert_eq!(told(8), ["agreed: b is new x2 3"]);
        assert_eq!(told(86_405).len(), 1);
        assert_eq!(told(86_407), Vec::<String>::new(), "a day ago");
        board.drifted(workflow, "agreed", &met(&"ü".repeat(DRIFT_BYTES_MAX), &[]), later(9));
        assert!(board.drifts(later(9))[0].what.len() <= DRIFT_BYTES_MAX);
        board.renumber(workflow, 2);
        assert_eq!(told(9).len(), 1);
        board.begin(workflow, 3, 1);
        assert_eq!(told(9), Vec::<String>::new(), "somebody has seen to it");
    }

    #[test]
    fn of_many_the_latest_are_told() {
        let board = Board::new(Arc::new(Taps::new(Redact::default()).0));
        let began = Instant::now();
        for n in 0..DRIFTS_MAX as u64 + 5 {
            let workflow = WorkflowId::of_name(&format!("w{n}"));
            board.begin(workflow, 1, 1);
            let drift = Drift {
                what: format!("{n}"),
                news: Vec::new(),
            };
            board.drifted(workflow, "a", &drift, began + Duration::from_secs(n));
        }
        let drifts = board.drifts(began + Duration::from_secs(500));
        assert_eq!((drifts.len(), drifts[0].what.as_str()), (DRIFTS_MAX, "a: 104"));
    }
}
