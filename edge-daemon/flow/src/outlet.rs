//! One leaf of a pipe: writes and commits until it works, keeps what the sink rejects, and knows how far it has come.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use bus_schema::message::RunState;

use crate::{
    Fault,
    backoff::Backoff,
    letter::{DeadLetter, LetterKey, LetterPoint},
    level::open_leaf,
    pipe::{Leaf, Opened, Passage},
    runner::{End, Outcome, Surroundings},
    sink::{Delivery, Rejected, Watermark},
    work::{Entry, Ways, in_flight},
};

/// A leaf and how far it has come.
pub(crate) struct Outlet<'a> {
    pub(crate) leaf: &'a Leaf,
    /// Which of the pipe's leaves.
    index: usize,
    ways: &'a Ways,
    /// `None` after a fault, until it is read again: a commit whose answer was lost has been made all the same.
    mark: Option<Watermark>,
    /// The highest seq it is known to have made durable. Reading less later means that it lost what it had confirmed.
    confirmed: u64,
    /// What the sink rejected of what is written and not committed.
    rejected: Vec<Rejected>,
    /// Their dead letters, until they are kept. A spool keeps what it took, and is not asked to write it again.
    letters: Vec<DeadLetter>,
    /// Those that may be kept already, of what is not committed.
    kept: BTreeSet<LetterKey>,
    /// Of those, what a later attempt did not reject.
    stale: Vec<LetterKey>,
    /// Deliveries made of a dead letter, by seq: how often it was tried before.
    pub(crate) tried: BTreeMap<u64, u32>,
    /// The mark is newer than the checkpoint.
    is_unsaved: bool,
    /// Records that are committed and only gathered yet: see [`crate::Sink::gathered`].
    gathered: Option<u64>,
    /// How long it was at work on what is not committed.
    busy: Duration,
    /// Since the last time that it worked.
    backoff: Backoff,
    /// See [`crate::Sink::wants_company`].
    wants_company: bool,
}

/// How far an outlet has come with what it was given.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Progress {
    Done,
    /// It does not work yet, and would work better together with what has come since.
    WantsMore,
}

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Phase {
    Write,
    Commit,
    /// Both under one hold of the sink, so that pipes that share it do not mix their transactions.
    Both,
    /// Nothing more comes: what is gathered becomes durable.
    Complete,
}

impl<'a> Outlet<'a> {
    pub(crate) fn new(leaf: &'a Leaf, index: usize, ways: &'a Ways, mark: Watermark) -> Self {
        Self {
            leaf,
            index,
            ways,
            confirmed: mark.seq,
            mark: Some(mark),
            rejected: Vec::new(),
            letters: Vec::new(),
            kept: BTreeSet::new(),
            stale: Vec::new(),
            tried: BTreeMap::new(),
            is_unsaved: false,
            gathered: None,
            busy: Duration::ZERO,
            backoff: Backoff::default(),
            wants_company: false,
        }
    }

    /// Whether something is committed that is not durable yet.
    pub(crate) fn is_gathering(&self) -> bool {
        self.gathered.is_some()
    }

    /// Does its part until it works, or until it works better with more, where it can get some.
    pub(crate) async fn deliver(
        &mut self,
        deliveries: &[Delivery],
        phase: Phase,
        around: &Surroundings,
        takes_more: bool,
    ) -> Result<Progress, End> {
        let mut phase = phase;
        while let Err(fault) = self.attempt(deliveries, phase, around).await {
            if matches!(fault, Fault::Moved { .. }) {
                tracing::error!(node = self.leaf.node, %fault, "going back to where the destination is");
                return Err(End::Behind);
            }
            around.recover(&self.leaf.node, fault, &mut self.backoff).await?;
            // Closing may have undone the write: both have to be done again.
            if phase == Phase::Commit {
                phase = Phase::Both;
            }
            if phase == Phase::Both && self.wants_company && takes_more {
                return Ok(Progress::WantsMore);
            }
        }
        self.save(around).await?;
        if self.backoff.failures() > 0 {
            around.observer.state(RunState::Running, "");
        }
        self.backoff.reset();
        Ok(Progress::Done)
    }

    /// Keeps the watermark of a sink that cannot. Tried again by itself: writing the records again would double them.
    async fn save(&mut self, around: &Surroundings) -> Result<(), Outcome> {
        while let (true, Some(mark)) = (self.is_unsaved, &self.mark) {
            crash_point::at!(RunnerBeforeCheckpoint);
            match around.checkpoints.save(&self.leaf.stream, mark).await {
                Ok(()) => {
                    crash_point::at!(RunnerAfterCheckpoint);
                    self.is_unsaved = false;
                }
                Err(fault) => around.recover(&self.leaf.node, fault, &mut self.backoff).await?,
            }
        }
        Ok(())
    }

    async fn attempt(&mut self, deliveries: &[Delivery], phase: Phase, around: &Surroundings) -> Result<(), Fault> {
        let mut opened = self.leaf.sink.claim().await;
        // Not the time in which others had the sink.
        let began = Instant::now();
        let result = self.attempt_open(&mut opened, deliveries, phase, began, around).await;
        if result.is_err() {
            self.mark = None;
            self.wants_company = opened.sink.wants_company(&self.leaf.stream);
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
        began: Instant,
        around: &Surroundings,
    ) -> Result<(), Fault> {
        let mark = match self.mark.clone() {
            Some(mark) if opened.is_open => mark,
            _ => self.read_mark(opened, deliveries, around).await?,
        };
        let fresh = deliveries
            .iter()
            .position(|delivery| delivery.seq > mark.seq)
            .unwrap_or(deliveries.len());
        let fresh = &deliveries[fresh..];
        if matches!(phase, Phase::Write | Phase::Both) && !fresh.is_empty() {
            self.rejected = opened.sink.refuses(fresh);
            if !self.rejected.is_empty() {
                self.reject(fresh);
                self.keep(around).await?;
            }
            self.rejected = opened.sink.write(fresh).await?;
            crash_point::at!(RunnerAfterWrite);
            self.reject(fresh);
        }
        self.keep(around).await?;
        self.mark = Some(mark);
        if phase == Phase::Write {
            self.busy += began.elapsed();
        } else {
            // After a repeated write phase nothing may look fresh any more, and yet it is not released.
            let is_open = !is_durable(opened, self.leaf);
            if phase == Phase::Complete {
                opened.sink.complete(&self.leaf.stream).await?;
            } else if !fresh.is_empty() || phase == Phase::Commit || is_open {
                opened.sink.commit().await?;
                crash_point::at!(RunnerAfterCommit);
            }
            let is_durable = is_durable(opened, self.leaf);
            self.is_unsaved = is_durable && !opened.sink.keeps_watermark();
            self.busy += began.elapsed();
            self.settle(deliveries, fresh, is_durable, around);
        }
        Ok(())
    }

    /// Makes the dead letters those of the last write: what an earlier attempt rejected and this one took is none.
    async fn keep(&mut self, around: &Surroundings) -> Result<(), Fault> {
        if !self.stale.is_empty() {
            around.dead_letters.take_back(self.stale.clone()).await?;
            self.stale.clear();
        }
        if !self.letters.is_empty() {
            // Before it is known: an answer can be lost.
            self.kept.extend(self.letters.iter().map(|letter| letter.key.clone()));
            around.dead_letters.put(self.letters.clone()).await?;
            crash_point::at!(RunnerAfterLetters);
            self.letters.clear();
        }
        Ok(())
    }

    /// The letters of what the sink rejected of a write.
    fn reject(&mut self, deliveries: &[Delivery]) {
        let entry = Entry::Leaf(self.index);
        let letter = |rejected: &Rejected| {
            let delivery = deliveries.get(rejected.delivery)?;
            Some(DeadLetter {
                key: self.ways.key(entry, delivery.seq, rejected.row),
                point: LetterPoint::Destination,
                node: self.leaf.node.clone(),
                reason: rejected.reason.clone(),
                replays: self.tried.get(&delivery.seq).map_or(0, |before| before + 1),
                record: delivery.batch.take(&[rejected.row]).encode(),
            })
        };
        let letters: Vec<DeadLetter> = self.rejected.iter().filter_map(letter).collect();
        // Kept by an attempt that came to nothing.
        let first = deliveries.first().map_or(u64::MAX, |delivery| delivery.seq);
        let still: BTreeSet<&LetterKey> = letters.iter().map(|letter| &letter.key).collect();
        let is_stale = |key: &LetterKey| key.seq >= first && !still.contains(key);
        self.stale.extend(self.kept.iter().filter(|key| is_stale(key)).cloned());
        self.kept.retain(|key| !is_stale(key));
        self.letters = letters;
    }

    async fn read_mark(
        &mut self,
        opened: &mut Opened,
        deliveries: &[Delivery],
        around: &Surroundings,
    ) -> Result<Watermark, Fault> {
        let mark = open_leaf(opened, self.leaf, around).await?;
        if let Some(gathered) = opened.sink.gathered(&self.leaf.stream) {
            return Ok(gathered.mark);
        }
        if mark.seq < self.confirmed {
            let (had, has) = (self.confirmed, mark.seq);
            let cause = format!(
                "the destination had confirmed batch {had} and now has {has}: it was restored, or failed over to a copy"
            );
            return Err(Fault::Moved { cause });
        }
        // A commit whose answer was lost has been made all the same. Anything else is a state from before: taking our seqs
        // for those that are there would lose what they stand for.
        let is_ours = |delivery: &Delivery| (delivery.seq, &delivery.position) == (mark.seq, &mark.position);
        if mark.seq > self.confirmed && !deliveries.iter().any(is_ours) {
            let (had, has) = (self.confirmed, mark.seq);
            let cause = format!(
                "the destination had confirmed batch {had} and now has {has}, which was never written from here: it was \
                 restored, or failed back"
            );
            return Err(Fault::Moved { cause });
        }
        Ok(mark)
    }

    /// Brings the watermark up to what is committed, and the meter to what is durable now.
    fn settle(&mut self, deliveries: &[Delivery], fresh: &[Delivery], is_durable: bool, around: &Surroundings) {
        let mut mark = self.mark.clone().unwrap_or_default();
        for (index, delivery) in fresh.iter().enumerate() {
            let lost = self
                .rejected
                .iter()
                .filter(|rejected| rejected.delivery == index)
                .count();
            mark = mark.after(delivery, lost as u64);
            // All of it with the first: what counts is the sum.
            let passage = Passage {
                bytes: delivery.bytes as u64,
                died: lost as u64,
                took: std::mem::take(&mut self.busy),
            };
            around.observer.passed(&self.leaf.node, &delivery.batch, passage);
        }
        self.leaf
            .meter
            .carried(fresh.iter().map(|delivery| delivery.bytes as u64).sum());
        let records = deliveries
            .iter()
            .map(|delivery| in_flight(&delivery.batch, &delivery.tally))
            .sum::<u64>()
            + self.gathered.take().unwrap_or_default();
        if is_durable {
            self.leaf.meter.set(&mark, self.leaf.meter.left(records));
            self.confirmed = mark.seq;
        } else {
            self.gathered = Some(records);
        }
        self.rejected.clear();
        self.kept.clear();
        self.mark = Some(mark);
    }
}

/// Whether all that a leaf's sink has committed is durable, and not only gathered.
fn is_durable(opened: &Opened, leaf: &Leaf) -> bool {
    opened
        .sink
        .gathered(&leaf.stream)
        .is_none_or(|gathered| gathered.is_durable)
}
