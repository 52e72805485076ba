//! Drives one pipe: reads, transforms, writes, commits; retries, reopens, recovers and shuts down.
//!
//! Two halves run side by side and meet in a bounded channel. The reading half owns the source; the writing half owns the
//! leaves. A position goes back to the source only after every leaf has committed what came before it.
//!
//! Writing is in two steps over all leaves: each `write`s (durable but not yet visible, for a spool), then each `commit`s.
//! A crash in between leaves leaves at different marks; the start rewinds all of them to the lowest.

use std::{sync::Arc, time::Duration};

use bus_schema::{data::Batch, message::RunState};
use tokio::sync::{mpsc, watch};

use crate::{
    Fault, READ_WAIT_MAX,
    backoff::Backoff,
    pipe::{Checkpoints, DeadLetter, DeadLetters, Leaf, Observer, Opened, Pipe, Stage, TapPoint},
    sink::{Delivery, Rejected, Watermark},
    source::{Position, Read, Source, SourceBatch},
};

/// Batches between the two halves.
const CHANNEL_BATCHES_MAX: usize = 4;
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
    async fn recover(&self, node: &str, fault: Fault, backoff: &mut Backoff) -> Result<(), Outcome> {
        match fault {
            Fault::Stop { cause } => Err(Outcome::Failed(format!("{node}: {cause}"))),
            Fault::Retry { cause, after } => {
                let wait = backoff.next((self.random)()).max(after.unwrap_or_default());
                tracing::warn!(node, cause, wait_ms = wait.as_millis() as u64, "will try again");
                self.observer.state(RunState::Retrying, &format!("{node}: {cause}"));
                if self.pause(wait).await { Ok(()) } else { Err(Outcome::Stopped) }
            }
        }
    }
}

/// What one read became: a batch for each leaf.
struct Work {
    seq: u64,
    position: Position,
    /// One per leaf, in order, with the records that died on the way to it.
    parts: Vec<(Batch, u64)>,
    letters: Vec<DeadLetter>,
}

impl Work {
    fn rows(&self) -> usize {
        self.parts.iter().map(|(batch, _)| batch.rows()).sum()
    }

    fn records(&self, leaf: usize) -> u64 {
        self.parts.get(leaf).map_or(0, |(batch, dead)| batch.rows() as u64 + dead)
    }
}

/// Runs a pipe until its source ends, it fails for good, or it is told to stop.
pub async fn run(mut pipe: Pipe, around: Surroundings) -> Outcome {
    around.observer.state(RunState::Starting, "");
    let (start, marks) = match recover_leaves(&pipe.leaves, &around).await {
        Ok(found) => found,
        Err(outcome) => return ended(outcome, &around),
    };
    let (sender, receiver) = mpsc::channel(CHANNEL_BATCHES_MAX);
    let (committed, to_commit) = watch::channel(None::<Position>);
    let meters: Vec<_> = pipe.leaves.iter().map(|leaf| Arc::clone(&leaf.meter)).collect();
    let mut reader = Reader {
        node: &pipe.node,
        source: pipe.source.as_mut(),
        origin: pipe.origin.as_deref(),
        stages: &mut pipe.stages,
        leaves: &pipe.leaves,
        around: &around,
        to_commit,
        seq: start.seq,
        position: (start.seq > 0).then_some(start.position),
    };
    let leaves = pipe.leaves.iter().zip(marks).map(|(leaf, mark)| Outlet { leaf, mark: Some(mark), rejected: Vec::new() });
    let mut writer = Writer { leaves: leaves.collect(), around: &around, committed };
    let (read, written) = tokio::join!(reader.run(sender), writer.run(receiver));
    reader.commit_last().await;
    for meter in meters {
        tracing::debug!(account = ?meter.account(), "pipe ended");
    }
    // A failure of the writing half is the cause of the reading half's end, so it is told first.
    let outcome = match (read, written) {
        (_, failed @ Outcome::Failed(_)) | (failed @ Outcome::Failed(_), _) => failed,
        (Outcome::Finished, Outcome::Finished) => Outcome::Finished,
        _ => Outcome::Stopped,
    };
    ended(outcome, &around)
}

fn ended(outcome: Outcome, around: &Surroundings) -> Outcome {
    match &outcome {
        Outcome::Finished => around.observer.state(RunState::Finished, ""),
        Outcome::Stopped => around.observer.state(RunState::Stopping, ""),
        Outcome::Failed(cause) => around.observer.state(RunState::Failed, cause),
    }
    outcome
}

/// Opens every leaf, reads its watermark, and brings all of them to the lowest one.
async fn recover_leaves(leaves: &[Leaf], around: &Surroundings) -> Result<(Watermark, Vec<Watermark>), Outcome> {
    let mut marks = Vec::with_capacity(leaves.len());
    for leaf in leaves {
        let mut backoff = Backoff::default();
        let mark = loop {
            match open_leaf(&mut *leaf.sink.0.lock().await, leaf, around).await {
                Ok(mark) => break mark,
                Err(fault) => around.recover(&leaf.node, fault, &mut backoff).await?,
            }
        };
        leaf.meter.set(&mark, 0);
        marks.push(mark);
    }
    let Some(lowest) = marks.iter().min_by_key(|mark| mark.seq).cloned() else {
        return Err(Outcome::Failed("a pipe needs at least one destination".to_string()));
    };
    for (leaf, mark) in leaves.iter().zip(&marks) {
        if mark.seq > lowest.seq {
            tracing::info!(node = leaf.node, from = mark.seq, to = lowest.seq, "going back to where its siblings are");
            let mut opened = leaf.sink.0.lock().await;
            if let Err(fault) = opened.sink.rewind(&leaf.stream, lowest.seq).await {
                return Err(Outcome::Failed(format!("{}: {fault}", leaf.node)));
            }
            let rewound = opened.sink.watermark(&leaf.stream).await.ok().flatten().unwrap_or_default();
            leaf.meter.set(&rewound, 0);
        }
    }
    for leaf in leaves {
        leaf.sink.0.lock().await.sink.recovered();
    }
    let marks = marks.into_iter().map(|mark| if mark.seq > lowest.seq { lowest.clone() } else { mark }).collect();
    Ok((lowest, marks))
}

/// Opens a leaf's sink if it is not, and reads the lineage's watermark.
async fn open_leaf(opened: &mut Opened, leaf: &Leaf, around: &Surroundings) -> Result<Watermark, Fault> {
    if !opened.is_open {
        opened.sink.open().await?;
        opened.is_open = true;
    }
    let mark = if opened.sink.keeps_watermark() {
        opened.sink.watermark(&leaf.stream).await
    } else {
        around.checkpoints.load(&leaf.stream).await
    };
    if mark.is_err() {
        opened.is_open = false;
        opened.sink.close().await;
    }
    Ok(mark?.unwrap_or_default())
}

struct Reader<'a> {
    node: &'a str,
    source: &'a mut dyn Source,
    origin: Option<&'a (dyn Fn() -> bus_schema::data::Origin + Send + Sync)>,
    stages: &'a mut [Stage],
    leaves: &'a [Leaf],
    around: &'a Surroundings,
    to_commit: watch::Receiver<Option<Position>>,
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
                    if let Err(outcome) = self.around.recover(self.node, fault, &mut backoff).await {
                        return outcome;
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
                let Ok(permit) = sender.reserve().await else { return Ok(Some(Outcome::Stopped)) };
                let work = self.transform(batch)?;
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
        let position = self.to_commit.borrow_and_update().clone();
        match position {
            Some(position) => self.source.commit(&position).await,
            None => Ok(()),
        }
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

    fn transform(&mut self, read: SourceBatch) -> Result<Work, Fault> {
        let SourceBatch { mut batch, position, undecodable } = read;
        if let Some(origin) = self.origin {
            batch = batch.with_origin(origin());
        }
        self.around.observer.passed(self.node, &batch);
        let lost_at_source = undecodable.len() as u64;
        let mut letters: Vec<DeadLetter> = undecodable
            .into_iter()
            .map(|input| DeadLetter {
                point: TapPoint::Source,
                node: self.node.to_string(),
                reason: input.reason,
                record: input.bytes,
            })
            .collect();
        let mut outputs: Vec<(Batch, u64)> = Vec::with_capacity(self.stages.len());
        for stage in self.stages.iter_mut() {
            let (input, dead) = match stage.after.and_then(|after| outputs.get(after)) {
                Some((input, dead)) => (input.clone(), *dead),
                None => (batch.clone(), lost_at_source),
            };
            // Kept only for the rows that may be rejected; columns are cheap to clone next to a transform.
            let original = input.clone();
            let done = stage.transform.apply(input).map_err(|fault| stage_fault(&stage.node, fault))?;
            for (row, reason) in &done.rejected {
                letters.push(DeadLetter {
                    point: TapPoint::Transform,
                    node: stage.node.clone(),
                    reason: reason.clone(),
                    record: original.take(&[*row]).encode(),
                });
            }
            self.around.observer.passed(&stage.node, &done.batch);
            outputs.push((done.batch, dead + done.rejected.len() as u64));
        }
        let part = |leaf: &Leaf| match leaf.after.and_then(|after| outputs.get(after)) {
            Some(output) => output.clone(),
            None => (batch.clone(), lost_at_source),
        };
        let parts = self.leaves.iter().map(part).collect();
        self.seq += 1;
        self.position = Some(position.clone());
        Ok(Work { seq: self.seq, position, parts, letters })
    }
}

fn stage_fault(node: &str, fault: Fault) -> Fault {
    match fault {
        Fault::Stop { cause } => Fault::stop(format!("{node}: {cause}")),
        Fault::Retry { cause, after } => Fault::Retry { cause: format!("{node}: {cause}"), after },
    }
}

/// A leaf and how far it has come.
struct Outlet<'a> {
    leaf: &'a Leaf,
    /// `None` after a fault, until it is read again: a commit whose answer was lost has been made all the same.
    mark: Option<Watermark>,
    /// What the sink rejected of what is written and not committed.
    rejected: Vec<Rejected>,
}

#[derive(Clone, Copy, PartialEq)]
enum Phase {
    Write,
    Commit,
    /// Both under one hold of the sink, so that pipes that share it do not mix their transactions.
    Both,
}

impl Outlet<'_> {
    /// Does its part until it works.
    async fn deliver(&mut self, deliveries: &[Delivery], phase: Phase, around: &Surroundings) -> Result<(), Outcome> {
        let mut backoff = Backoff::default();
        let mut phase = phase;
        while let Err(fault) = self.attempt(deliveries, phase, around).await {
            around.recover(&self.leaf.node, fault, &mut backoff).await?;
            // Closing may have undone the write: both have to be done again.
            if phase == Phase::Commit {
                phase = Phase::Both;
            }
        }
        if backoff.failures() > 0 {
            around.observer.state(RunState::Running, "");
        }
        Ok(())
    }

    async fn attempt(&mut self, deliveries: &[Delivery], phase: Phase, around: &Surroundings) -> Result<(), Fault> {
        let mut opened = self.leaf.sink.0.lock().await;
        let result = self.attempt_open(&mut opened, deliveries, phase, around).await;
        if result.is_err() {
            self.mark = None;
            opened.is_open = false;
            opened.sink.close().await;
        }
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
            _ => open_leaf(opened, self.leaf, around).await?,
        };
        let fresh = deliveries.iter().position(|delivery| delivery.seq > mark.seq).unwrap_or(deliveries.len());
        let fresh = &deliveries[fresh..];
        if phase != Phase::Commit && !fresh.is_empty() {
            self.rejected = opened.sink.write(fresh).await?;
            if !self.rejected.is_empty() {
                around.dead_letters.put(dead_letters(self.leaf, fresh, &self.rejected)).await?;
            }
        }
        self.mark = Some(mark);
        if phase != Phase::Write {
            // After a repeated write phase nothing may look fresh any more, and yet it is not released.
            if !fresh.is_empty() || phase == Phase::Commit {
                opened.sink.commit().await?;
            }
            let keeps_watermark = opened.sink.keeps_watermark();
            self.settle(keeps_watermark, deliveries, fresh, around).await?;
        }
        Ok(())
    }

    /// Brings the watermark, the meter, and for sinks that cannot keep it the checkpoint, up to what is durable now.
    async fn settle(
        &mut self,
        keeps_watermark: bool,
        deliveries: &[Delivery],
        fresh: &[Delivery],
        around: &Surroundings,
    ) -> Result<(), Fault> {
        let mut mark = self.mark.clone().unwrap_or_default();
        for (index, delivery) in fresh.iter().enumerate() {
            let lost = self.rejected.iter().filter(|rejected| rejected.delivery == index).count();
            mark = mark.after(delivery, lost as u64);
            around.observer.passed(&self.leaf.node, &delivery.batch);
        }
        if !keeps_watermark {
            around.checkpoints.save(&self.leaf.stream, &mark).await?;
        }
        let records = deliveries.iter().map(|delivery| delivery.batch.rows() as u64 + delivery.dead).sum();
        self.leaf.meter.set(&mark, self.leaf.meter.left(records));
        self.rejected.clear();
        self.mark = Some(mark);
        Ok(())
    }
}

struct Writer<'a> {
    leaves: Vec<Outlet<'a>>,
    around: &'a Surroundings,
    committed: watch::Sender<Option<Position>>,
}

impl Writer<'_> {
    async fn run(&mut self, mut receiver: mpsc::Receiver<Work>) -> Outcome {
        while let Some(first) = receiver.recv().await {
            let mut rows = first.rows();
            let mut group = vec![first];
            while group.len() < GROUP_BATCHES_MAX && rows < GROUP_ROWS_MAX {
                let Ok(next) = receiver.try_recv() else { break };
                rows += next.rows();
                group.push(next);
            }
            if let Err(outcome) = self.deliver(group).await {
                return outcome;
            }
        }
        Outcome::Finished
    }

    /// Makes a group durable at every leaf, then lets the source know.
    async fn deliver(&mut self, mut group: Vec<Work>) -> Result<(), Outcome> {
        let letters: Vec<_> = group.iter_mut().flat_map(|work| std::mem::take(&mut work.letters)).collect();
        self.keep(letters).await?;
        let parts: Vec<Vec<Delivery>> =
            self.leaves.iter().enumerate().map(|(index, outlet)| deliveries(outlet.leaf, index, &group)).collect();
        let phases = if self.leaves.len() == 1 { &[Phase::Both][..] } else { &[Phase::Write, Phase::Commit] };
        for phase in phases {
            for (outlet, deliveries) in self.leaves.iter_mut().zip(&parts) {
                outlet.deliver(deliveries, *phase, self.around).await?;
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
        let (batch, dead) = work.parts.get(index).cloned()?;
        Some(Delivery { stream: leaf.stream, seq: work.seq, position: work.position.clone(), batch, dead })
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
