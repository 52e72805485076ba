//! Drives one pipe: reads, transforms, writes, commits; retries, reopens, recovers and shuts down.
//!
//! Two halves run side by side and meet in a bounded channel. The reading half owns the source; the writing half owns the
//! leaves. A position goes back to the source only after every leaf has committed what came before it.
//!
//! Writing is in two steps over all leaves: each `write`s (durable but not yet visible, for a spool), then each `commit`s.
//! A crash in between leaves leaves at different marks; the start (see `level`) brings all of them to the same.

use std::{sync::Arc, time::Duration};

use bus_schema::{data::Batch, limits::BATCH_BYTES_TARGET, message::RunState};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};

use crate::{
    Fault, READ_WAIT_MAX,
    backoff::Backoff,
    level::{level, open_leaf},
    pipe::{Checkpoints, DeadLetter, DeadLetters, Leaf, Observer, Opened, Pipe, Stage, TapPoint},
    sink::{Delivery, Rejected, Tally, Watermark},
    source::{Position, Read, Source, SourceBatch},
};

/// Batches between the two halves.
const CHANNEL_BATCHES_MAX: usize = 4;
/// Bytes between the source and the last commit, of ordinary records; a larger batch goes alone.
const INFLIGHT_BYTES_MAX: usize = 1024 * 1024;
/// Batches of at most so many rows are weighed: a source closes a batch of more rows at about its target.
const WEIGHED_ROWS_MAX: usize = 64;
/// Batches that share one commit.
const GROUP_BATCHES_MAX: usize = 16;
/// Rows after which a group is large enough.
const GROUP_ROWS_MAX: usize = 16_384;
/// How long a read may overrun before it is named in the log.
const READ_OVERRUN: Duration = Duration::from_secs(60);

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
enum End {
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
    fn stopping(&self) -> bool {
        // A daemon that is gone wants nothing any more.
        *self.stop.borrow() || self.stop.has_changed().is_err()
    }

    /// Waits, unless told to stop. `false` when it is time to stop.
    async fn pause(&self, wait: Duration) -> bool {
        let mut stop = self.stop.clone();
        tokio::select! {
            () = tokio::time::sleep(wait) => !self.stopping(),
            _ = stop.wait_for(|stop| *stop) => false,
        }
    }

    /// After a fault: reports it and waits. `Err` ends the pipe.
    pub(crate) async fn recover(&self, node: &str, fault: Fault, backoff: &mut Backoff) -> Result<(), Outcome> {
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

/// What one read became: a batch for each leaf.
struct Work {
    seq: u64,
    position: Position,
    /// One per leaf, in order, with what else it settles there.
    parts: Vec<(Batch, Tally)>,
    letters: Vec<DeadLetter>,
    /// Its share of [`INFLIGHT_BYTES_MAX`].
    _room: OwnedSemaphorePermit,
}

/// About how many bytes a batch takes, at most what may be under way.
fn weight(batch: &Batch) -> u32 {
    let bytes = if batch.rows() > WEIGHED_ROWS_MAX {
        BATCH_BYTES_TARGET
    } else {
        let cells = (0..batch.rows()).flat_map(|row| (0..batch.columns().len()).map(move |column| (row, column)));
        cells.map(|(row, column)| batch.cell(row, column).size_hint()).sum()
    };
    bytes.min(INFLIGHT_BYTES_MAX) as u32
}

/// Records of a delivery that count as under way.
fn in_flight(batch: &Batch, tally: &Tally) -> u64 {
    (batch.rows() as u64 + tally.dead).saturating_sub(tally.revived)
}

impl Work {
    fn rows(&self) -> usize {
        self.parts.iter().map(|(batch, _)| batch.rows()).sum()
    }

    fn records(&self, leaf: usize) -> u64 {
        self.parts.get(leaf).map_or(0, |(batch, tally)| in_flight(batch, tally))
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

async fn run_once(pipe: &mut Pipe, around: &Surroundings) -> End {
    let (start, marks) = match level(&pipe.leaves, around).await {
        Ok(found) => found,
        Err(outcome) => return End::Outcome(outcome),
    };
    let (sender, receiver) = mpsc::channel(CHANNEL_BATCHES_MAX);
    let (committed, to_commit) = watch::channel(None::<Position>);
    let mut reader = Reader {
        node: &pipe.node,
        source: pipe.source.as_mut(),
        origin: pipe.origin.as_deref(),
        stages: &mut pipe.stages,
        leaves: &pipe.leaves,
        around,
        to_commit,
        room: Arc::new(Semaphore::new(INFLIGHT_BYTES_MAX)),
        seq: start.seq,
        position: (!start.position.as_bytes().is_empty()).then_some(start.position),
    };
    let outlets = pipe
        .leaves
        .iter()
        .zip(marks)
        .map(|(leaf, mark)| Outlet::new(leaf, mark));
    let mut writer = Writer {
        leaves: outlets.collect(),
        around,
        committed,
    };
    let (read, written) = tokio::join!(reader.run(sender), writer.run(receiver));
    reader.commit_last().await;
    // A failure of the writing half is the cause of the reading half's end, so it is told first.
    match (read, written) {
        (_, Err(End::Outcome(failed @ Outcome::Failed(_)))) | (failed @ Outcome::Failed(_), _) => End::Outcome(failed),
        (_, Err(End::Behind)) if !around.stopping() => End::Behind,
        (Outcome::Finished, Ok(())) => End::Outcome(Outcome::Finished),
        _ => End::Outcome(Outcome::Stopped),
    }
}

struct Reader<'a> {
    node: &'a str,
    source: &'a mut dyn Source,
    origin: Option<&'a (dyn Fn() -> bus_schema::data::Origin + Send + Sync)>,
    stages: &'a mut [Stage],
    leaves: &'a [Leaf],
    around: &'a Surroundings,
    to_commit: watch::Receiver<Option<Position>>,
    room: Arc<Semaphore>,
    seq: u64,
    position: Option<Position>,
}

impl Reader<'_> {
    async fn run(&mut self, sender: mpsc::Sender<Work>) -> Outcome {
        let mut backoff = Backoff::default();
        let mut is_open = false;
        // A closed channel means that the writing half has given up and says why.
        while !self.around.stopping() && !sender.is_closed() {
            let step = self.step(&sender, &mut is_open).await;
            match step {
                Ok(None) => backoff.reset(),
                Ok(Some(outcome)) => return outcome,
                Err(fault) => {
                    self.source.close().await;
                    is_open = false;
                    tokio::select! {
                        recovered = self.around.recover(self.node, fault, &mut backoff) => {
                            if let Err(outcome) = recovered {
                                return outcome;
                            }
                        }
                        () = sender.closed() => {}
                    }
                }
            }
        }
        Outcome::Stopped
    }

    /// Opens if need be, passes a commit on, reads once. `Some` ends the half.
    async fn step(&mut self, sender: &mpsc::Sender<Work>, is_open: &mut bool) -> Result<Option<Outcome>, Fault> {
        if !*is_open {
            self.source.open(self.position.as_ref()).await?;
            *is_open = true;
            self.around.observer.state(RunState::Running, "");
        }
        self.pass_commit().await?;
        let read = tokio::time::timeout(READ_WAIT_MAX + READ_OVERRUN, self.source.read()).await;
        match read.map_err(|_| Fault::retry("no answer from the source for a minute"))?? {
            Read::Idle => Ok(None),
            Read::End => Ok(Some(Outcome::Finished)),
            Read::Batch(batch) => {
                // Nobody closes the semaphore; the writing half gives the room back, also when it ends.
                let Ok(room) = Arc::clone(&self.room).acquire_many_owned(weight(&batch.batch)).await else {
                    return Ok(Some(Outcome::Stopped));
                };
                let Ok(permit) = sender.reserve().await else {
                    return Ok(Some(Outcome::Stopped));
                };
                let work = self.transform(batch, room)?;
                for (index, leaf) in self.leaves.iter().enumerate() {
                    leaf.meter.entered(work.records(index));
                }
                permit.send(work);
                Ok(None)
            }
        }
    }

    async fn pass_commit(&mut self) -> Result<(), Fault> {
        if !self.to_commit.has_changed().unwrap_or(true) {
            return Ok(());
        }
        let Some(position) = self.to_commit.borrow_and_update().clone() else {
            return Ok(());
        };
        crash_point::at!(RunnerBeforeSourceCommit);
        let passed = self.source.commit(&position).await;
        crash_point::at!(RunnerAfterSourceCommit);
        if passed.is_err() {
            // Not heard: it is said again once the source is open again, even if nothing new comes.
            self.to_commit.mark_changed();
        }
        passed
    }

    /// The last acknowledgement, after the writing half has ended.
    async fn commit_last(&mut self) {
        let position = self.to_commit.borrow_and_update().clone();
        if let Some(position) = position
            && let Err(fault) = self.source.commit(&position).await
        {
            // The records are durable; the source will offer them again and they will be recognised.
            tracing::info!(node = self.node, %fault, "the last acknowledgement did not reach the source");
        }
        self.source.close().await;
    }

    fn transform(&mut self, read: SourceBatch, room: OwnedSemaphorePermit) -> Result<Work, Fault> {
        let SourceBatch {
            mut batch,
            position,
            undecodable,
        } = read;
        let settled = self.source.settled();
        if let Some(origin) = self.origin {
            batch = batch.with_origin(origin());
        }
        self.around.observer.passed(self.node, &batch);
        let at_source = Tally {
            dead: settled.dead + undecodable.len() as u64,
            ..settled
        };
        let mut letters: Vec<DeadLetter> = undecodable
            .into_iter()
            .map(|input| DeadLetter {
                point: TapPoint::Source,
                node: self.node.to_string(),
                reason: input.reason,
                record: input.bytes,
            })
            .collect();
        let mut outputs: Vec<(Batch, Tally)> = Vec::with_capacity(self.stages.len());
        for stage in self.stages.iter_mut() {
            let (input, tally) = match stage.after.and_then(|after| outputs.get(after)) {
                Some((input, tally)) => (input.clone(), *tally),
                None => (batch.clone(), at_source),
            };
            // Kept only for the rows that may be rejected; columns are cheap to clone next to a transform.
            let original = input.clone();
            let done = stage
                .transform
                .apply(input)
                .map_err(|fault| stage_fault(&stage.node, fault))?;
            for (row, reason) in &done.rejected {
                letters.push(DeadLetter {
                    point: TapPoint::Transform,
                    node: stage.node.clone(),
                    reason: reason.clone(),
                    record: original.take(&[*row]).encode(),
                });
            }
            self.around.observer.passed(&stage.node, &done.batch);
            let dead = tally.dead + done.rejected.len() as u64;
            outputs.push((done.batch, Tally { dead, ..tally }));
        }
        let part = |leaf: &Leaf| match leaf.after.and_then(|after| outputs.get(after)) {
            Some(output) => output.clone(),
            None => (batch.clone(), at_source),
        };
        let parts = self.leaves.iter().map(part).collect();
        self.seq += 1;
        self.position = Some(position.clone());
        Ok(Work {
            seq: self.seq,
            position,
            parts,
            letters,
            _room: room,
        })
    }
}

fn stage_fault(node: &str, fault: Fault) -> Fault {
    match fault {
        Fault::Stop { cause } => Fault::stop(format!("{node}: {cause}")),
        Fault::Moved { cause } => Fault::Moved {
            cause: format!("{node}: {cause}"),
        },
        Fault::Retry { cause, after } => Fault::Retry {
            cause: format!("{node}: {cause}"),
            after,
        },
    }
}

/// A leaf and how far it has come.
struct Outlet<'a> {
    leaf: &'a Leaf,
    /// `None` after a fault, until it is read again: a commit whose answer was lost has been made all the same.
    mark: Option<Watermark>,
    /// The highest seq it is known to have made durable. Reading less later means that it lost what it had confirmed.
    confirmed: u64,
    /// What the sink rejected of what is written and not committed.
    rejected: Vec<Rejected>,
    /// Their dead letters, until they are kept. A spool keeps what it took, and is not asked to write it again.
    letters: Vec<DeadLetter>,
    /// The mark is newer than the checkpoint.
    is_unsaved: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Phase {
    Write,
    Commit,
    /// Both under one hold of the sink, so that pipes that share it do not mix their transactions.
    Both,
}

impl<'a> Outlet<'a> {
    fn new(leaf: &'a Leaf, mark: Watermark) -> Self {
        let (rejected, letters) = (Vec::new(), Vec::new());
        Self {
            leaf,
            confirmed: mark.seq,
            mark: Some(mark),
            rejected,
            letters,
            is_unsaved: false,
        }
    }

    /// Does its part until it works.
    async fn deliver(&mut self, deliveries: &[Delivery], phase: Phase, around: &Surroundings) -> Result<(), End> {
        let mut backoff = Backoff::default();
        let mut phase = phase;
        while let Err(fault) = self.attempt(deliveries, phase, around).await {
            if matches!(fault, Fault::Moved { .. }) {
                tracing::error!(node = self.leaf.node, %fault, "going back to where the destination is");
                return Err(End::Behind);
            }
            around.recover(&self.leaf.node, fault, &mut backoff).await?;
            // Closing may have undone the write: both have to be done again.
            if phase == Phase::Commit {
                phase = Phase::Both;
            }
        }
        self.save(&mut backoff, around).await?;
        if backoff.failures() > 0 {
            around.observer.state(RunState::Running, "");
        }
        Ok(())
    }

    /// Keeps the watermark of a sink that cannot. Tried again by itself: writing the records again would double them.
    async fn save(&mut self, backoff: &mut Backoff, around: &Surroundings) -> Result<(), Outcome> {
        while let (true, Some(mark)) = (self.is_unsaved, &self.mark) {
            crash_point::at!(RunnerBeforeCheckpoint);
            match around.checkpoints.save(&self.leaf.stream, mark).await {
                Ok(()) => {
                    crash_point::at!(RunnerAfterCheckpoint);
                    self.is_unsaved = false;
                }
                Err(fault) => around.recover(&self.leaf.node, fault, backoff).await?,
            }
        }
        Ok(())
    }

    async fn attempt(&mut self, deliveries: &[Delivery], phase: Phase, around: &Surroundings) -> Result<(), Fault> {
        let mut opened = self.leaf.sink.claim().await;
        let result = self.attempt_open(&mut opened, deliveries, phase, around).await;
        if result.is_err() {
            self.mark = None;
            opened.close().await;
        }
        opened.done();
        result
    }

    async fn attempt_open(
        &mut self,
        opened: &mut Opened,
        deliveries: &[Delivery],
        phase: Phase,
        around: &Surroundings,
    ) -> Result<(), Fault> {
        let mark = match self.mark.clone() {
            Some(mark) if opened.is_open => mark,
            _ => self.read_mark(opened, around).await?,
        };
        let fresh = deliveries
            .iter()
            .position(|delivery| delivery.seq > mark.seq)
            .unwrap_or(deliveries.len());
        let fresh = &deliveries[fresh..];
        if phase != Phase::Commit && !fresh.is_empty() {
            self.rejected = opened.sink.write(fresh).await?;
            crash_point::at!(RunnerAfterWrite);
            self.letters = dead_letters(self.leaf, fresh, &self.rejected);
        }
        if !self.letters.is_empty() {
            around.dead_letters.put(self.letters.clone()).await?;
            crash_point::at!(RunnerAfterLetters);
            self.letters.clear();
        }
        self.mark = Some(mark);
        if phase != Phase::Write {
            // After a repeated write phase nothing may look fresh any more, and yet it is not released.
            if !fresh.is_empty() || phase == Phase::Commit {
                opened.sink.commit().await?;
                crash_point::at!(RunnerAfterCommit);
            }
            self.is_unsaved = !opened.sink.keeps_watermark();
            self.settle(deliveries, fresh, around);
        }
        Ok(())
    }

    async fn read_mark(&mut self, opened: &mut Opened, around: &Surroundings) -> Result<Watermark, Fault> {
        let mark = open_leaf(opened, self.leaf, around).await?;
        if mark.seq < self.confirmed {
            let (had, has) = (self.confirmed, mark.seq);
            let cause = format!(
                "the destination had confirmed batch {had} and now has {has}: it was restored, or failed over to a copy"
            );
            return Err(Fault::Moved { cause });
        }
        Ok(mark)
    }

    /// Brings the watermark and the meter up to what is durable now.
    fn settle(&mut self, deliveries: &[Delivery], fresh: &[Delivery], around: &Surroundings) {
        let mut mark = self.mark.clone().unwrap_or_default();
        for (index, delivery) in fresh.iter().enumerate() {
            let lost = self
                .rejected
                .iter()
                .filter(|rejected| rejected.delivery == index)
                .count();
            mark = mark.after(delivery, lost as u64);
            around.observer.passed(&self.leaf.node, &delivery.batch);
        }
        let records = deliveries
            .iter()
            .map(|delivery| in_flight(&delivery.batch, &delivery.tally))
            .sum();
        self.leaf.meter.set(&mark, self.leaf.meter.left(records));
        self.rejected.clear();
        self.confirmed = mark.seq;
        self.mark = Some(mark);
    }
}

struct Writer<'a> {
    leaves: Vec<Outlet<'a>>,
    around: &'a Surroundings,
    committed: watch::Sender<Option<Position>>,
}

impl Writer<'_> {
    async fn run(&mut self, mut receiver: mpsc::Receiver<Work>) -> Result<(), End> {
        while let Some(first) = receiver.recv().await {
            let mut rows = first.rows();
            let mut group = vec![first];
            while group.len() < GROUP_BATCHES_MAX && rows < GROUP_ROWS_MAX {
                let Ok(next) = receiver.try_recv() else { break };
                rows += next.rows();
                group.push(next);
            }
            self.deliver(group).await?;
        }
        Ok(())
    }

    /// Makes a group durable at every leaf, then lets the source know.
    async fn deliver(&mut self, mut group: Vec<Work>) -> Result<(), End> {
        let letters: Vec<_> = group
            .iter_mut()
            .flat_map(|work| std::mem::take(&mut work.letters))
            .collect();
        self.keep(letters).await?;
        let parts: Vec<Vec<Delivery>> = self
            .leaves
            .iter()
            .enumerate()
            .map(|(index, outlet)| deliveries(outlet.leaf, index, &group))
            .collect();
        let phases = if self.leaves.len() == 1 {
            &[Phase::Both][..]
        } else {
            &[Phase::Write, Phase::Commit]
        };
        for phase in phases {
            for (outlet, deliveries) in self.leaves.iter_mut().zip(&parts) {
                outlet.deliver(deliveries, *phase, self.around).await?;
                if *phase == Phase::Write {
                    crash_point::at!(RunnerBetweenLeaves);
                }
            }
        }
        if let Some(last) = group.last() {
            self.committed.send_replace(Some(last.position.clone()));
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

fn deliveries(leaf: &Leaf, index: usize, group: &[Work]) -> Vec<Delivery> {
    let delivery = |work: &Work| {
        let (batch, tally) = work.parts.get(index).cloned()?;
        Some(Delivery {
            stream: leaf.stream,
            seq: work.seq,
            position: work.position.clone(),
            batch,
            tally,
        })
    };
    group.iter().filter_map(delivery).collect()
}

fn dead_letters(leaf: &Leaf, deliveries: &[Delivery], rejected: &[Rejected]) -> Vec<DeadLetter> {
    let letter = |rejected: &Rejected| {
        let delivery = deliveries.get(rejected.delivery)?;
        Some(DeadLetter {
            point: TapPoint::Destination,
            node: leaf.node.clone(),
            reason: rejected.reason.clone(),
            record: delivery.batch.take(&[rejected.row]).encode(),
        })
    };
    rejected.iter().filter_map(letter).collect()
}
