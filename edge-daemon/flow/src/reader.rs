//! The reading half of a pipe: reads from the source, lets transforms work, hands over to the writing half, passes commits
//! back to the source. Between two reads it puts dead letters into the pipe that are to be tried again.

use std::{future::poll_fn, pin::pin, sync::Arc, task::Poll, time::Duration};

use bus_schema::{
    data::{Batch, Origin},
    message::RunState,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch},
    time::Instant,
};

use crate::{
    Fault, READ_WAIT_MAX,
    backoff::Backoff,
    letter::{DeadLetter, LetterPoint, Replay, Stand},
    memory::{Memory, stage_fault},
    outside,
    pipe::{Leaf, Pipe, Stage},
    runner::{Outcome, Surroundings},
    sink::{Tally, Watermark},
    source::{Position, Read, Source, SourceBatch, Undecodable},
    transform::Transformed,
    work::{Entry, INFLIGHT_BYTES_MAX, Part, Piece, Ways, Work, settle_with_next},
};

/// How long a read may overrun before it is named in the log.
const READ_OVERRUN: Duration = Duration::from_secs(60);
/// How long a source has to be open without a fault until it counts as working, though nothing has come of it.
const STEADY: Duration = Duration::from_secs(10);
/// How long dead letters rest after they could not be had.
const AGAIN_PAUSE: Duration = Duration::from_secs(10);
/// How long those rest whose batches are not committed yet.
const LATER_PAUSE: Duration = Duration::from_millis(200);
/// Helpings of dead letters between two reads while the source is idle.
const AGAIN_ROUNDS_MAX: usize = 64;

/// The reading half of a pipe.
pub(crate) struct Reader<'a> {
    node: &'a str,
    source: &'a mut dyn Source,
    origin: Option<&'a (dyn Fn() -> Origin + Send + Sync)>,
    stages: &'a mut [Stage],
    leaves: &'a [Leaf],
    ways: &'a Ways,
    /// All leaves are wanted.
    everywhere: Arc<[bool]>,
    around: &'a Surroundings,
    /// See [`Pipe::rereads`].
    rereads: bool,
    to_commit: watch::Receiver<Option<Position>>,
    room: Arc<Semaphore>,
    seq: u64,
    /// The source's own, after the last batch that went in.
    position: Option<Position>,
    /// What the stages remembered then.
    memory: Memory,
    /// Stages have made records: what goes on may be more than came.
    has_made: bool,
    /// The source has come to its end.
    is_ending: bool,
    /// The stage that the last fault was of; the source's if none.
    failing: Option<usize>,
    again: Again,
}

/// What came of one read, for each leaf.
struct Pieces {
    /// What goes ahead, when it is too much for one batch.
    before: Vec<Vec<Part>>,
    last: Vec<Part>,
}

/// How far the dead letters that are tried again have come.
struct Again {
    /// The highest replay number each leaf had at the start.
    had: Vec<u64>,
    /// The highest one that went in since.
    sent: u64,
    /// Which wishes have been seen to.
    heard: Option<u64>,
    /// The last read gave something.
    is_busy: bool,
    /// Not before this, after the letters could not be had.
    not_before: Option<Instant>,
}

/// How trying again went.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Tried {
    /// There is nothing left to be tried, or not now.
    All,
    /// There may be more.
    Some,
    /// What is left has to wait until its batch is committed.
    Later,
    /// Nobody wants it: the writing half has ended, or it is time to stop.
    Nobody,
}

impl<'a> Reader<'a> {
    /// A reader that goes on after `start`; `marks` are where the leaves stand.
    pub(crate) fn new(
        pipe: &'a mut Pipe,
        ways: &'a Ways,
        around: &'a Surroundings,
        to_commit: watch::Receiver<Option<Position>>,
        (start, marks): (&Watermark, &[Watermark]),
    ) -> Result<(Self, &'a [Leaf]), Fault> {
        let leaves = pipe.leaves.as_slice();
        let position = start.position.of_source();
        let memory = Memory::new(&pipe.stages, ways.stage_paths(), start.position.kept()?);
        let reader = Self {
            node: &pipe.node,
            source: pipe.source.as_mut(),
            origin: pipe.origin.as_deref(),
            stages: &mut pipe.stages,
            leaves,
            ways,
            everywhere: leaves.iter().map(|_| true).collect(),
            around,
            rereads: pipe.rereads,
            to_commit,
            room: Arc::new(Semaphore::new(INFLIGHT_BYTES_MAX)),
            seq: start.seq,
            position: (!position.as_bytes().is_empty()).then_some(position),
            memory,
            has_made: false,
            is_ending: false,
            failing: None,
            again: Again {
                had: marks.iter().map(|mark| mark.counts.replay).collect(),
                sent: 0,
                heard: None,
                is_busy: false,
                not_before: None,
            },
        };
        Ok((reader, leaves))
    }

    /// Reads until the source ends, it fails for good, it is time to stop, or nobody listens.
    pub(crate) async fn run(&mut self, sender: mpsc::Sender<Work>) -> Outcome {
        let mut backoff = Backoff::default();
        let mut is_open = false;
        let mut since = Instant::now();
        if let Err(outcome) = self.recall() {
            return outcome;
        }
        // A closed channel means that the writing half has given up and says why.
        while !self.around.stopping() && !sender.is_closed() {
            let step = self.step(&sender, &mut is_open).await;
            match step {
                // One that opens and then gives nothing before it fails has not worked.
                Ok(None) if self.again.is_busy || since.elapsed() >= STEADY => backoff.reset(),
                Ok(None) => {}
                Ok(Some(outcome)) => return outcome,
                Err(fault) => {
                    self.source.close().await;
                    is_open = false;
                    if let Err(outcome) = self.recall() {
                        return outcome;
                    }
                    let stage = self.failing.take().and_then(|index| self.stages.get(index));
                    self.around
                        .observer
                        .failed(stage.map_or(self.node, |stage| &stage.node));
                    tokio::select! {
                        recovered = self.around.wait_after(self.node, fault, &mut backoff) => {
                            if let Err(outcome) = recovered {
                                return outcome;
                            }
                        }
                        () = sender.closed() => {}
                    }
                    since = Instant::now();
                }
            }
        }
        Outcome::Stopped
    }

    /// What comes now may have come before and never arrived: the stages go on from where the last batch left them.
    fn recall(&mut self) -> Result<(), Outcome> {
        let recalled = self.memory.recall(self.stages);
        recalled.map_err(|fault| Outcome::Failed(fault.to_string()))
    }

    /// Tries dead letters again that are wished for, opens if need be, passes commits on, reads once. `Some` ends the half.
    async fn step(&mut self, sender: &mpsc::Sender<Work>, is_open: &mut bool) -> Result<Option<Outcome>, Fault> {
        if self.try_again(sender).await? == Tried::Nobody {
            return Ok(Some(Outcome::Stopped));
        }
        if !*is_open {
            self.source.open(self.position.as_ref()).await?;
            *is_open = true;
            self.around.observer.state(RunState::Running, "");
        }
        if !self.is_ready().await? {
            self.again.is_busy = false;
            return Ok(None);
        }
        let read = tokio::time::timeout(READ_WAIT_MAX + READ_OVERRUN, self.source.read()).await;
        let read = read.map_err(|_| Fault::retry("no answer from the source for a minute"))??;
        self.again.is_busy = matches!(read, Read::Batch(_));
        match read {
            Read::Idle => Ok(None),
            Read::End => {
                self.try_the_rest(sender).await?;
                self.finish(sender).await?;
                Ok(Some(Outcome::Finished))
            }
            Read::Batch(SourceBatch {
                batch,
                position,
                undecodable,
            }) => {
                let part = Part::new(batch, self.source.settled());
                let Some((room, permit)) = room_for(&self.room, &part, sender).await else {
                    return Ok(Some(Outcome::Stopped));
                };
                let transformed = self.transform(part, position, undecodable, room);
                let Some(work) = unless_nobody_listens(sender, transformed).await else {
                    return Ok(Some(Outcome::Stopped));
                };
                let mut work = work?;
                self.widen(&mut work).await;
                self.entered(&work);
                permit.send(work);
                Ok(None)
            }
        }
    }

    /// Nothing will come any more: what stages hold back for more goes out.
    async fn finish(&mut self, sender: &mpsc::Sender<Work>) -> Result<(), Fault> {
        // Before the first batch nobody holds anything back.
        let (true, Some(position)) = (self.memory.is_used(), self.position.clone()) else {
            return Ok(());
        };
        let nothing = Part::empty();
        let Some((room, permit)) = room_for(&self.room, &nothing, sender).await else {
            return Ok(());
        };
        let (everywhere, mut letters) = (Arc::clone(&self.everywhere), Vec::new());
        self.is_ending = true;
        let grown = self.grow(Entry::Source, nothing, &everywhere, 0, &mut letters);
        let grown = unless_nobody_listens(sender, grown).await;
        self.is_ending = false;
        let Some(parts) = grown else {
            return Ok(());
        };
        let pieces = parts?;
        if letters.is_empty() && pieces.before.is_empty() && pieces.last.iter().all(Part::is_nothing) {
            return Ok(());
        }
        let (before, parts) = self.numbered(pieces);
        let mut work = Work {
            before,
            seq: self.seq,
            position: self.memory.keep(self.stages, position),
            parts,
            letters,
            tried: None,
            read_at: std::time::Instant::now(),
            room,
        };
        self.widen(&mut work).await;
        self.entered(&work);
        permit.send(work);
        Ok(())
    }

    /// Makes room for what the last batch became, where that may be more than it was.
    async fn widen(&mut self, work: &mut Work) {
        let may_have_grown = std::mem::take(&mut self.has_made) || self.memory.is_used() || !work.before.is_empty();
        if !may_have_grown {
            return;
        }
        let bytes = (work.part_bytes_max() + work.position.as_bytes().len()).min(INFLIGHT_BYTES_MAX);
        let more = bytes.saturating_sub(work.room.num_permits()) as u32;
        // All others that have room are on their way to the writing half, which gives theirs back: this cannot wait for ever.
        if more > 0
            && let Ok(room) = Arc::clone(&self.room).acquire_many_owned(more).await
        {
            work.room.merge(room);
        }
    }

    fn entered(&self, work: &Work) {
        for (index, leaf) in self.leaves.iter().enumerate() {
            leaf.meter.entered(work.records(index));
        }
    }

    /// Waits until the source has something, and passes on meanwhile what becomes durable: a system that gives only so much
    /// before it is acknowledged would wait for that, and this for the system. `false`: it has nothing.
    async fn is_ready(&mut self) -> Result<bool, Fault> {
        loop {
            self.pass_commit().await?;
            tokio::select! {
                biased;
                Ok(()) = self.to_commit.changed() => self.to_commit.mark_changed(),
                is_ready = self.source.ready() => return Ok(is_ready),
            }
        }
    }

    async fn pass_commit(&mut self) -> Result<(), Fault> {
        if !self.to_commit.has_changed().unwrap_or(true) {
            return Ok(());
        }
        let Some(position) = self.to_commit.borrow_and_update().as_ref().map(Position::of_source) else {
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
    pub(crate) async fn commit_last(&mut self) {
        let position = self.to_commit.borrow_and_update().as_ref().map(Position::of_source);
        if let Some(position) = position
            && let Err(fault) = self.source.commit(&position).await
        {
            // The records are durable; the source will offer them again and they will be recognised.
            tracing::info!(node = self.node, %fault, "the last acknowledgement did not reach the source");
        }
        self.source.close().await;
    }

    async fn transform(
        &mut self,
        mut read: Part,
        position: Position,
        undecodable: Vec<Undecodable>,
        room: OwnedSemaphorePermit,
    ) -> Result<Work, Fault> {
        let read_at = std::time::Instant::now();
        if let Some(origin) = self.origin {
            read.batch = read.batch.with_origin(origin());
        }
        read.tally.dead += undecodable.len() as u64;
        let letter = |(row, input): (usize, Undecodable)| DeadLetter {
            key: self.ways.key(Entry::Source, self.seq + 1, row),
            point: LetterPoint::Source,
            node: self.node.to_string(),
            reason: input.reason,
            replays: 0,
            record: input.bytes,
        };
        let mut letters = undecodable.into_iter().enumerate().map(letter).collect();
        let everywhere = Arc::clone(&self.everywhere);
        let grown = self.grow(Entry::Source, read, &everywhere, 0, &mut letters);
        let pieces = grown.await?;
        let (before, parts) = self.numbered(pieces);
        self.position = Some(position.clone());
        Ok(Work {
            before,
            seq: self.seq,
            position: self.memory.keep(self.stages, position),
            parts,
            letters,
            tried: None,
            read_at,
            room,
        })
    }

    /// What becomes of records that enter at one place: a batch for each leaf that wants one, nothing for the others. More than
    /// one where a stage cannot make a single batch of it.
    async fn grow(
        &mut self,
        entry: Entry,
        entering: Part,
        wanted: &[bool],
        replays: u32,
        letters: &mut Vec<DeadLetter>,
    ) -> Result<Pieces, Fault> {
        let mut left = Vec::new();
        let number = (self.seq + 1, replays);
        let parts = self.pass((entry, entering), wanted, number, letters, &mut left).await?;
        if left.is_empty() {
            return Ok(Pieces {
                before: Vec::new(),
                last: parts,
            });
        }
        // Boxed: it happens rarely.
        Box::pin(self.grow_the_rest(parts, left, wanted, replays, letters)).await
    }

    /// Lets stages go on with what they left, those behind others first: they get more of these.
    async fn grow_the_rest(
        &mut self,
        first: Vec<Part>,
        mut left: Vec<(usize, Part)>,
        wanted: &[bool],
        replays: u32,
        letters: &mut Vec<DeadLetter>,
    ) -> Result<Pieces, Fault> {
        let (mut before, mut last) = (Vec::new(), first);
        while let Some((stage, part)) = left.pop() {
            before.push(last);
            let number = (self.seq + 1 + before.len() as u64, replays);
            let passed = self.pass((Entry::Stage(stage), part), wanted, number, letters, &mut left);
            last = passed.await?;
        }
        before.push(last);
        settle_with_next(&mut before);
        let last = before.pop().unwrap_or_default();
        Ok(Pieces { before, last })
    }

    /// Gives pieces their numbers, which are taken then. Before the position moves on.
    fn numbered(&mut self, pieces: Pieces) -> (Vec<Piece>, Vec<Part>) {
        let first = self.seq + 1;
        self.seq = first + pieces.before.len() as u64;
        if pieces.before.is_empty() {
            return (Vec::new(), pieces.last);
        }
        let position = self.position.clone().unwrap_or_default();
        let position = self.memory.before_part(&position);
        let piece = |(seq, parts)| Piece {
            seq,
            position: position.clone(),
            parts,
        };
        ((first..).zip(pieces.before).map(piece).collect(), pieces.last)
    }

    /// What becomes of records that enter at one place, up to what stages leave of them.
    async fn pass(
        &mut self,
        (entry, entering): (Entry, Part),
        wanted: &[bool],
        (seq, replays): (u64, u32),
        letters: &mut Vec<DeadLetter>,
        left: &mut Vec<(usize, Part)>,
    ) -> Result<Vec<Part>, Fault> {
        let mut passages = Vec::with_capacity(self.stages.len());
        let mut outputs: Vec<Option<Part>> = Vec::with_capacity(self.stages.len());
        for (index, stage) in self.stages.iter_mut().enumerate() {
            let input = match stage.after {
                _ if entry == Entry::Stage(index) => Some(&entering),
                Some(after) => outputs.get(after).and_then(Option::as_ref),
                None => (entry == Entry::Source).then_some(&entering),
            };
            let Some(input) = input.filter(|_| self.ways.leads_to(index, wanted)) else {
                outputs.push(None);
                continue;
            };
            // Kept only for the rows that may be rejected; columns are cheap to clone next to a transform.
            let (original, tally) = (input.batch.clone(), input.tally);
            let began = std::time::Instant::now();
            let done = match stage.transform.outside() {
                Some(outside) => {
                    let place = (stage.node.as_str(), self.around);
                    // Boxed: most pipes have none, and would carry its room through every batch.
                    Box::pin(outside::wait_for(outside, &original, self.rereads, place)).await
                }
                // What stages before it have left is yet to come.
                None if self.is_ending && !left.iter().any(|(other, _)| self.ways.follows(index, *other)) => {
                    stage.transform.finish(original.clone())
                }
                None => stage.transform.apply(original.clone()),
            };
            if let Some(drift) = stage.transform.drift() {
                self.around.observer.drifted(&stage.node, &drift);
            }
            let done = done.map_err(|fault| {
                self.failing = Some(index);
                stage_fault(&stage.node, fault)
            })?;
            let made = stage.transform.made();
            self.has_made |= made > 0;
            letters.extend(done.rejected.iter().map(|(row, reason)| DeadLetter {
                key: self.ways.key(Entry::Stage(index), seq, *row),
                point: LetterPoint::Transform,
                node: stage.node.clone(),
                reason: reason.clone(),
                replays,
                record: original.take(&[*row]).encode(),
            }));
            passages.push((index, done.rejected.len() as u64, began.elapsed()));
            let rest = stage.transform.left();
            if rest > 0 {
                left.push((index, rest_of(&stage.node, &original, rest)?));
            }
            let taken = original.rows().saturating_sub(rest);
            let tally = transformed(&stage.node, taken + made, (&done, made), tally)?;
            outputs.push(Some(Part::new(done.batch, tally)));
        }
        // Not before all of them have done it: what fails is read, and goes through all of them, again.
        if entry == Entry::Source {
            let passage = entering.passage(entering.tally.dead, Duration::ZERO);
            self.around.observer.passed(self.node, &entering.batch, passage);
        }
        for (index, died, took) in passages {
            if let (Some(stage), Some(Some(part))) = (self.stages.get(index), outputs.get(index)) {
                let passage = part.passage(died, took);
                self.around.observer.passed(&stage.node, &part.batch, passage);
            }
        }
        let part = |(index, leaf): (usize, &Leaf)| {
            let output = match leaf.after {
                _ if entry == Entry::Leaf(index) => Some(&entering),
                Some(after) => outputs.get(after).and_then(Option::as_ref),
                None => (entry == Entry::Source).then_some(&entering),
            };
            let wanted = output.filter(|_| wanted.get(index).copied().unwrap_or_default());
            wanted.cloned().unwrap_or_else(Part::empty)
        };
        Ok(self.leaves.iter().enumerate().map(part).collect())
    }

    /// Puts dead letters into the pipe that are to be tried again. While records come, only a few at a time.
    async fn try_again(&mut self, sender: &mpsc::Sender<Work>) -> Result<Tried, Fault> {
        let wishes = self.around.dead_letters.wishes();
        let is_early = self.again.not_before.is_some_and(|then| Instant::now() < then);
        if self.again.heard == Some(wishes) || is_early {
            return Ok(Tried::All);
        }
        let rounds = if self.again.is_busy { 1 } else { AGAIN_ROUNDS_MAX };
        for _ in 0..rounds {
            let due = match self.around.dead_letters.replays(&self.ways.root, self.stand()).await {
                Ok(due) => due,
                Err(fault) => {
                    tracing::warn!(node = self.node, %fault, "dead letters cannot be tried again yet");
                    self.again.not_before = Some(Instant::now() + AGAIN_PAUSE);
                    return Ok(Tried::All);
                }
            };
            if due.replays.is_empty() && due.has_later {
                self.again.not_before = Some(Instant::now() + LATER_PAUSE);
                return Ok(Tried::Later);
            }
            if due.replays.is_empty() {
                self.again.heard = Some(wishes);
                return Ok(Tried::All);
            }
            for replay in due.replays {
                if self.around.stopping() || !self.try_one(replay, sender).await? {
                    return Ok(Tried::Nobody);
                }
            }
        }
        Ok(Tried::Some)
    }

    /// Tries everything again that is wished for; the source has come to its end.
    async fn try_the_rest(&mut self, sender: &mpsc::Sender<Work>) -> Result<(), Fault> {
        loop {
            match self.try_again(sender).await? {
                Tried::Some => {}
                Tried::Later if !sender.is_closed() && self.around.pause(LATER_PAUSE).await => {}
                Tried::All | Tried::Later | Tried::Nobody => return Ok(()),
            }
        }
    }

    fn stand(&self) -> Stand {
        let committed = self.leaves.iter().map(|leaf| leaf.meter.mark().seq);
        Stand {
            after: self.again.sent,
            floor: self.again.had.iter().copied().max().unwrap_or(0),
            committed: committed.min().unwrap_or(0),
        }
    }

    /// `false`: the writing half has ended.
    async fn try_one(&mut self, replay: Replay, sender: &mpsc::Sender<Work>) -> Result<bool, Fault> {
        let (id, number) = (replay.id, replay.number);
        let entry = match self.ways.find(replay.point, &replay.path, &replay.node) {
            Ok(entry) => entry,
            Err(reason) => return self.refuse(&replay, reason).await,
        };
        // After a crash: some or all of the leaves may have it already, and must not get it twice.
        let lacks = |(reached, had): (bool, &u64)| reached && *had < number;
        let reached = self.ways.leaves_of(entry).into_iter();
        let wanted: Vec<bool> = reached.zip(&self.again.had).map(lacks).collect();
        if !wanted.contains(&true) {
            self.around.dead_letters.settled(vec![id]).await?;
            self.again.sent = number;
            return Ok(true);
        }
        let batch = match self.decode(entry, &replay.record) {
            Ok(batch) => batch,
            Err(reason) => return self.refuse(&replay, reason).await,
        };
        let tally = Tally {
            revived: 1,
            replay: number,
            ..Tally::default()
        };
        let again = Part::new(batch, tally);
        let Some((room, permit)) = room_for(&self.room, &again, sender).await else {
            return Ok(false);
        };
        let mut letters = Vec::new();
        let grown = self.grow(entry, again, &wanted, replay.replays + 1, &mut letters);
        let Some(parts) = unless_nobody_listens(sender, grown).await else {
            return Ok(false);
        };
        let (before, parts) = self.numbered(parts?);
        self.again.sent = number;
        // The source stays where it is.
        let position = self.position.clone().unwrap_or_default();
        let mut work = Work {
            before,
            seq: self.seq,
            position: self.memory.keep(self.stages, position),
            parts,
            letters,
            tried: Some((id, replay.replays)),
            read_at: std::time::Instant::now(),
            room,
        };
        self.widen(&mut work).await;
        self.entered(&work);
        permit.send(work);
        Ok(true)
    }

    async fn refuse(&mut self, replay: &Replay, reason: String) -> Result<bool, Fault> {
        tracing::warn!(
            node = replay.node,
            id = replay.id,
            reason,
            "a dead letter cannot be tried again"
        );
        self.around.dead_letters.refuse(replay.id, reason).await?;
        self.again.sent = replay.number;
        Ok(true)
    }

    /// What a letter's bytes are, where it goes in.
    fn decode(&mut self, entry: Entry, record: &[u8]) -> Result<Batch, String> {
        if entry == Entry::Source {
            let batch = self.source.decode(record)?;
            return Ok(match self.origin {
                Some(origin) => batch.with_origin(origin()),
                None => batch,
            });
        }
        Batch::decode(record).map_err(|error| format!("its record cannot be read by this version: {error}"))
    }
}

/// Waits until such a part may be under way. `None`: the writing half has ended.
async fn room_for<'s>(
    room: &Arc<Semaphore>,
    part: &Part,
    sender: &'s mpsc::Sender<Work>,
) -> Option<(OwnedSemaphorePermit, mpsc::Permit<'s, Work>)> {
    // Nobody closes the semaphore; the writing half gives the room back, also when it ends.
    let room = Arc::clone(room).acquire_many_owned(part.weight()).await.ok()?;
    Some((room, sender.reserve().await.ok()?))
}

/// What comes of work that may have to wait for somebody else. `None`: the writing half has ended meanwhile.
async fn unless_nobody_listens<T>(sender: &mpsc::Sender<Work>, work: impl Future<Output = T>) -> Option<T> {
    let mut work = pin!(work);
    // Nearly always all is done at once, and nobody needs to listen.
    let at_once = poll_fn(|context| Poll::Ready(work.as_mut().poll(context)));
    if let Poll::Ready(done) = at_once.await {
        return Some(done);
    }
    tokio::select! {
        biased;
        done = work => Some(done),
        () = sender.closed() => None,
    }
}

/// The rows that a stage left, to be given to it again. What the batch settles besides goes with the others.
fn rest_of(node: &str, batch: &Batch, rows: usize) -> Result<Part, Fault> {
    match batch.rows().checked_sub(rows) {
        Some(taken @ 1..) => Ok(Part::new(batch.slice(taken..batch.rows()), Tally::default())),
        _ => Err(Fault::stop(format!(
            "{node}: it left all records that it got, and would be given them for ever: please report this"
        ))),
    }
}

/// What a batch settles after a transform: every record that came in or was made goes on, died, or was left out.
fn transformed(node: &str, records: usize, (done, made): (&Transformed, usize), tally: Tally) -> Result<Tally, Fault> {
    let Some(left_out) = records.checked_sub(done.batch.rows() + done.rejected.len()) else {
        return Err(Fault::stop(format!(
            "{node}: it gave more records than it got and made, which no account could follow: please report this"
        )));
    };
    Ok(Tally {
        dead: tally.dead + done.rejected.len() as u64,
        filtered: tally.filtered + left_out as i64 - made as i64,
        ..tally
    })
}
