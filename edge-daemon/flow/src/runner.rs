//! Drives one pipe: reads, transforms, writes, commits; retries, reopens, recovers and shuts down.
//!
//! Two halves run side by side and meet in a bounded channel. The reading half owns the source; the writing half owns the
//! leaves. A position goes back to the source only after every leaf has committed what came before it.
//!
//! Writing is in two steps over all leaves: each `write`s (durable but not yet visible, for a spool), then each `commit`s.
//! A crash in between leaves leaves at different marks; the start (see `level`) brings all of them to the same.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bus_schema::message::RunState;
use tokio::sync::{mpsc, watch};

use crate::{
    Fault,
    backoff::Backoff,
    letter::{DeadLetter, DeadLetters},
    level::level,
    outlet::{Outlet, Phase, Progress},
    pipe::{Checkpoints, Observer, Pipe},
    reader::Reader,
    sink::Delivery,
    source::Position,
    work::{INFLIGHT_BYTES_MAX, Part, Piece, Ways, Work},
};

/// Batches between the two halves.
const CHANNEL_BATCHES_MAX: usize = 4;
/// Batches that share one commit. A spool keeps more marks than this: after a crash between two of them, one goes back by as
/// many at most.
pub const GROUP_BATCHES_MAX: usize = 16;
/// How often an idle pipe looks whether its destinations stand where they stood.
const MOVED_LOOK_EVERY: Duration = Duration::from_millis(500);
/// Rows after which a group is large enough.
const GROUP_ROWS_MAX: usize = 16_384;
/// Bytes after which a group is large enough: while one half is written, the other is read. Without it a group of all that
/// may be under way is followed by one of a single batch, and reading and writing take turns.
const GROUP_BYTES_MAX: usize = INFLIGHT_BYTES_MAX / 2;

/// How a pipe ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The source came to its end and everything is delivered.
    Finished,
    /// It was told to stop. What was not delivered will be read again.
    Stopped,
    /// It cannot go on without a change.
    Failed(String),
}

/// Why a half of a pipe ended.
pub(crate) enum End {
    Outcome(Outcome),
    /// A destination has less than it had confirmed: everything goes on from what it has now.
    Behind,
}

impl From<Outcome> for End {
    fn from(outcome: Outcome) -> Self {
        End::Outcome(outcome)
    }
}

/// What surrounds a run.
#[derive(Clone)]
pub struct Surroundings {
    /// Where dead letters go.
    pub dead_letters: Arc<dyn DeadLetters>,
    /// Where watermarks go that a sink cannot keep.
    pub checkpoints: Arc<dyn Checkpoints>,
    /// Who watches.
    pub observer: Arc<dyn Observer>,
    /// Uniform random numbers, for jitter.
    pub random: fn() -> u64,
    /// Becomes true when the pipe shall stop.
    pub stop: watch::Receiver<bool>,
}

impl Surroundings {
    pub(crate) fn stopping(&self) -> bool {
        // A daemon that is gone wants nothing any more.
        *self.stop.borrow() || self.stop.has_changed().is_err()
    }

    /// Waits, unless told to stop. `false` when it is time to stop.
    pub(crate) async fn pause(&self, wait: Duration) -> bool {
        let mut stop = self.stop.clone();
        tokio::select! {
            () = tokio::time::sleep(wait) => !self.stopping(),
            _ = stop.wait_for(|stop| *stop) => false,
        }
    }

    /// After a fault of a node: reports it and waits. `Err` ends the pipe.
    pub(crate) async fn recover(&self, node: &str, fault: Fault, backoff: &mut Backoff) -> Result<(), Outcome> {
        self.observer.failed(node);
        self.wait_after(node, fault, backoff).await
    }

    /// The same, of a fault that is counted already.
    pub(crate) async fn wait_after(&self, node: &str, fault: Fault, backoff: &mut Backoff) -> Result<(), Outcome> {
        let (cause, after) = match fault {
            Fault::Stop { cause } => return Err(Outcome::Failed(format!("{node}: {cause}"))),
            Fault::Moved { cause } => (cause, None),
            Fault::Retry { cause, after } => (cause, after),
        };
        let wait = backoff.next((self.random)()).max(after.unwrap_or_default());
        tracing::warn!(node, cause, wait_ms = wait.as_millis() as u64, "will try again");
        self.observer.state(RunState::Retrying, &format!("{node}: {cause}"));
        if self.pause(wait).await {
            Ok(())
        } else {
            Err(Outcome::Stopped)
        }
    }
}

/// Runs a pipe until its source ends, it fails for good, or it is told to stop.
pub async fn run(mut pipe: Pipe, around: Surroundings) -> Outcome {
    around.observer.state(RunState::Starting, "");
    let outcome = loop {
        match run_once(&mut pipe, &around).await {
            End::Outcome(outcome) => break outcome,
            End::Behind => {}
        }
    };
    for leaf in &pipe.leaves {
        tracing::debug!(node = leaf.node, account = ?leaf.meter.account(), "pipe ended");
    }
    match &outcome {
        Outcome::Finished => around.observer.state(RunState::Finished, ""),
        Outcome::Stopped => around.observer.state(RunState::Stopping, ""),
        Outcome::Failed(cause) => around.observer.state(RunState::Failed, cause),
    }
    outcome
}

/// What died in an earlier life and was never committed may die again, or not.
async fn begin_letters(ways: &Ways, seq: u64, rereads: bool, around: &Surroundings) -> Result<(), Outcome> {
    let mut backoff = Backoff::default();
    while let Err(fault) = around.dead_letters.begin(&ways.root, seq, rereads).await {
        around.recover("dead letters", fault, &mut backoff).await?;
    }
    Ok(())
}

async fn run_once(pipe: &mut Pipe, around: &Surroundings) -> End {
    let (start, marks) = match level(&pipe.leaves, around).await {
        Ok(found) => found,
        Err(end) => return end,
    };
    let ways = Ways::new(&pipe.node, &pipe.stages, &pipe.leaves);
    if let Err(outcome) = begin_letters(&ways, start.seq, pipe.rereads, around).await {
        return End::Outcome(outcome);
    }
    let rereads = pipe.rereads;
    let (sender, receiver) = mpsc::channel(CHANNEL_BATCHES_MAX);
    let (committed, to_commit) = watch::channel(None::<Position>);
    let (mut reader, leaves) = match Reader::new(pipe, &ways, around, to_commit, (&start, &marks)) {
        Ok(made) => made,
        Err(fault) => return End::Outcome(Outcome::Failed(fault.to_string())),
    };
    let outlets = leaves.iter().zip(marks).enumerate();
    let mut writer = Writer {
        leaves: outlets
            .map(|(index, (leaf, mark))| Outlet::new(leaf, index, &ways, mark))
            .collect(),
        around,
        committed,
        rereads,
        waiting: None,
        since: None,
        tried: Vec::new(),
    };
    let (read, written) = tokio::join!(reader.run(sender), writer.run(receiver));
    reader.commit_last().await;
    // A failure of the writing half is the cause of the reading half's end, so it is told first.
    match (read, written) {
        (_, Err(End::Outcome(failed @ Outcome::Failed(_)))) | (failed @ Outcome::Failed(_), _) => End::Outcome(failed),
        (_, Err(End::Behind)) if !around.stopping() => End::Behind,
        (Outcome::Finished, Ok(())) => {
            for leaf in leaves {
                leaf.sink.0.lock().await.sink.ended();
            }
            End::Outcome(Outcome::Finished)
        }
        _ => End::Outcome(Outcome::Stopped),
    }
}

fn delivery(outlet: &Outlet<'_>, seq: u64, position: &Position, part: Part) -> Delivery {
    let Part { batch, tally, bytes } = part;
    Delivery {
        stream: outlet.leaf.stream,
        seq,
        position: position.clone(),
        batch,
        tally,
        bytes,
    }
}

/// Whether more may share a commit with these.
fn has_room(group: &[Work]) -> bool {
    let rows = group.iter().map(Work::rows).sum::<usize>();
    let bytes = group.iter().map(Work::bytes).sum::<usize>();
    group.len() < GROUP_BATCHES_MAX && rows < GROUP_ROWS_MAX && bytes < GROUP_BYTES_MAX
}

/// Lets go of the room that a group has beyond its share.
fn give_room_back(group: &mut [Work]) {
    let mut beyond = group
        .iter()
        .map(Work::bytes)
        .sum::<usize>()
        .saturating_sub(GROUP_BYTES_MAX);
    for work in group {
        let some = beyond.min(work.bytes());
        drop(work.room.split(some));
        beyond -= some;
    }
}

struct Writer<'a> {
    leaves: Vec<Outlet<'a>>,
    around: &'a Surroundings,
    committed: watch::Sender<Option<Position>>,
    /// See [`Pipe::rereads`].
    rereads: bool,
    /// What the source is told once everything is durable.
    waiting: Option<Position>,
    /// When the first was read of what is not durable everywhere.
    since: Option<Instant>,
    /// Dead letters that were tried again, until that is durable.
    tried: Vec<u64>,
}

impl Writer<'_> {
    async fn run(&mut self, mut receiver: mpsc::Receiver<Work>) -> Result<(), End> {
        while let Some(first) = self.next(&mut receiver).await? {
            let mut group = vec![first];
            while has_room(&group) {
                let Ok(next) = receiver.try_recv() else { break };
                group.push(next);
            }
            self.deliver(group, &mut receiver).await?;
        }
        // What can be read again waits for more to come with it.
        if !self.around.stopping() || !self.rereads {
            self.gather(Phase::Complete).await?;
        }
        Ok(())
    }

    /// The next batch. While none comes, looks whether a leaf still stands where it stood: what is missing there has to be
    /// read again, also from a source that gives nothing new. What is gathered may be due meanwhile.
    async fn next(&mut self, receiver: &mut mpsc::Receiver<Work>) -> Result<Option<Work>, End> {
        loop {
            if let Ok(work) = tokio::time::timeout(MOVED_LOOK_EVERY, receiver.recv()).await {
                return Ok(work);
            }
            for outlet in &self.leaves {
                if outlet.leaf.sink.has_moved() {
                    tracing::error!(node = outlet.leaf.node, "going back to where the destination is");
                    return Err(End::Behind);
                }
            }
            self.gather(Phase::Commit).await?;
        }
    }

    /// Lets leaves go on with what they have gathered, or what is due without it, if there is anything.
    async fn gather(&mut self, phase: Phase) -> Result<(), End> {
        let is_wanted =
            |outlet: &&mut Outlet<'_>| outlet.is_gathering() || phase == Phase::Commit && outlet.leaf.sink.is_due();
        for outlet in self.leaves.iter_mut().filter(is_wanted) {
            outlet.deliver(&[], phase, self.around, false).await?;
        }
        self.release().await
    }

    /// Makes a group durable at every leaf, then lets the source know.
    async fn deliver(&mut self, mut group: Vec<Work>, receiver: &mut mpsc::Receiver<Work>) -> Result<(), End> {
        self.since = self.since.or_else(|| group.first().map(|work| work.read_at));
        self.leaves.iter_mut().for_each(|outlet| outlet.tried.clear());
        let mut parts = self.prepare(&mut group).await?;
        if let [_] = self.leaves.as_slice() {
            self.deliver_to_one(&mut group, &mut parts, receiver).await?;
        } else {
            for phase in [Phase::Write, Phase::Commit] {
                for (outlet, deliveries) in self.leaves.iter_mut().zip(&parts) {
                    outlet.deliver(deliveries, phase, self.around, false).await?;
                    if phase == Phase::Write {
                        crash_point::at!(RunnerBetweenLeaves);
                    }
                }
            }
        }
        self.tried
            .extend(group.iter().filter_map(|work| work.tried.map(|(id, _)| id)));
        // Before the first read there is only a dead letter that was tried again, and nothing to tell the source.
        if let Some(last) = group.last().filter(|last| !last.position.bookmark().is_empty()) {
            self.waiting = Some(last.position.clone());
        }
        self.release().await
    }

    /// The same at the only leaf, which may want more with it.
    async fn deliver_to_one(
        &mut self,
        group: &mut Vec<Work>,
        parts: &mut [Vec<Delivery>],
        receiver: &mut mpsc::Receiver<Work>,
    ) -> Result<(), End> {
        loop {
            for (outlet, deliveries) in self.leaves.iter_mut().zip(&*parts) {
                let progress = outlet.deliver(deliveries, Phase::Both, self.around, true).await?;
                if progress == Progress::Done {
                    return Ok(());
                }
            }
            let rows: usize = parts.iter().flatten().map(|delivery| delivery.batch.rows()).sum();
            if group.len() >= GROUP_BATCHES_MAX || rows >= GROUP_ROWS_MAX {
                continue;
            }
            let most = GROUP_BATCHES_MAX - group.len();
            let mut more: Vec<Work> = std::iter::from_fn(|| receiver.try_recv().ok()).take(most).collect();
            if more.is_empty() {
                // However large it is that waits for company: there is room for some to come.
                give_room_back(group);
            }
            for (part, deliveries) in parts.iter_mut().zip(self.prepare(&mut more).await?) {
                part.extend(deliveries);
            }
            group.append(&mut more);
        }
    }

    /// Keeps the dead letters of works, and makes of the rest what each leaf gets.
    async fn prepare(&mut self, works: &mut [Work]) -> Result<Vec<Vec<Delivery>>, End> {
        let letters = works.iter_mut().flat_map(|work| std::mem::take(&mut work.letters));
        self.keep(letters.collect()).await?;
        let tried = works.iter().filter_map(|work| Some((work, work.tried?.1)));
        let tried = tried.flat_map(|(work, before)| {
            let pieces = work.before.iter().map(|piece| piece.seq);
            pieces.chain([work.seq]).map(move |seq| (seq, before))
        });
        let tried: Vec<_> = tried.collect();
        for outlet in &mut self.leaves {
            outlet.tried.extend(tried.iter().copied());
        }
        Ok(self.deliveries(works))
    }

    /// What each leaf gets of a group.
    fn deliveries(&self, group: &mut [Work]) -> Vec<Vec<Delivery>> {
        let room = |_: &Outlet<'_>| Vec::with_capacity(group.len());
        let mut parts: Vec<Vec<Delivery>> = self.leaves.iter().map(room).collect();
        for work in group {
            for Piece {
                seq,
                position,
                parts: of,
            } in work.before.drain(..)
            {
                for ((outlet, part), piece) in self.leaves.iter().zip(&mut parts).zip(of) {
                    if piece.batch.rows() > 0 {
                        part.push(delivery(outlet, seq, &position, piece));
                    }
                }
            }
            for ((outlet, part), whole) in self.leaves.iter().zip(&mut parts).zip(work.parts.drain(..)) {
                part.push(delivery(outlet, work.seq, &work.position, whole));
            }
        }
        parts
    }

    /// Tells what is durable everywhere, unless a leaf has only gathered it.
    async fn release(&mut self) -> Result<(), End> {
        if self.leaves.iter().any(Outlet::is_gathering) {
            return Ok(());
        }
        if let Some(since) = self.since.take() {
            let took = since.elapsed();
            self.leaves.iter().for_each(|outlet| outlet.leaf.meter.took(took));
        }
        let tried = std::mem::take(&mut self.tried);
        self.settle(tried).await?;
        if let Some(position) = self.waiting.take() {
            self.committed.send_replace(Some(position));
        }
        Ok(())
    }

    /// Dead letters that are in everywhere: they are none any more.
    async fn settle(&self, ids: Vec<u64>) -> Result<(), Outcome> {
        let mut backoff = Backoff::default();
        while !ids.is_empty() {
            crash_point::at!(RunnerBeforeSettle);
            match self.around.dead_letters.settled(ids.clone()).await {
                Ok(()) => {
                    crash_point::at!(RunnerAfterSettle);
                    break;
                }
                Err(fault) => self.around.recover("dead letters", fault, &mut backoff).await?,
            }
        }
        Ok(())
    }

    async fn keep(&self, letters: Vec<DeadLetter>) -> Result<(), Outcome> {
        let mut backoff = Backoff::default();
        while !letters.is_empty() {
            match self.around.dead_letters.put(letters.clone()).await {
                Ok(()) => break,
                Err(fault) => self.around.recover("dead letters", fault, &mut backoff).await?,
            }
        }
        Ok(())
    }
}
