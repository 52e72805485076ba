//! A small world to run pipes in: a source, three kinds of sinks, dead letters and checkpoints, all of whose durable state
//! outlives the pipe, and dice that decide where a call fails, waits, or succeeds without saying so.

#![allow(dead_code, unused_imports, reason = "each test file uses its own part of it")]

mod buffer;
mod letters;
mod lives;
mod makers;
mod sieve;

use std::{
    collections::BTreeMap,
    future::poll_fn,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard},
    task::Poll,
    time::Duration,
};

use async_trait::async_trait;
use bus_schema::{
    data::{Batch, BatchBuilder, Cell, Field, Op, Origin, Schema, Type},
    id::StreamId,
    message::RunState,
};
use flow::{
    Checkpoints, Delivery, Fault, Leaf, Meter, Observer, Outcome, Passage, Pipe, Position, Read, Rejected, Shared,
    Sink, Source, SourceBatch, Stage, Surroundings, Undecodable, Watermark,
};
use tokio::sync::watch;

pub use buffer::Buffer;
pub use letters::Letters;
pub use lives::{inputs, last_life, lives, paused, short_lives, troubled, wanted};
pub use makers::{Copies, Few, Sums};
pub use sieve::{DistantSieve, Sieve};
pub use testkit::Dice;

/// What a call does, besides its work.
enum Luck {
    Good,
    /// It fails and has done nothing.
    Before,
    /// It works, but the answer is lost.
    After,
}

/// What is on the disks, and what the test wants to know.
pub struct State {
    dice: Dice,
    /// Faults left; at 0 everything works.
    pub faults: u32,
    /// Calls out of a hundred that fail while there are faults left.
    pub fault_rate: u64,
    pub inputs: Vec<Input>,
    /// Highest position the source was told to be safe.
    pub acknowledged: usize,
    pub reads: usize,
    pub sinks: BTreeMap<String, Disk>,
    pub letters: Letters,
    pub checkpoints: BTreeMap<StreamId, Watermark>,
    pub states: Vec<(RunState, String)>,
    /// By node: how often it failed, and what passed it.
    pub faulty: BTreeMap<String, u32>,
    pub passed: BTreeMap<String, (u64, Passage)>,
    pub meters: BTreeMap<String, Arc<Meter>>,
    /// Nothing is rejected any more, and garbage can be read.
    pub mended: bool,
    /// The source does not open.
    pub away: bool,
    /// Records may be counted more than once.
    pub repeats: bool,
}

/// One thing to read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Input {
    Number(i64),
    Garbage,
}

/// Durable at one sink.
#[derive(Default)]
pub struct Disk {
    pub marks: BTreeMap<StreamId, Watermark>,
    pub records: Vec<i64>,
    /// Of a spool: its groups.
    groups: Vec<Group>,
    /// Of a spool: what has gone out, by frame number.
    sent: BTreeMap<usize, i64>,
    /// Earlier durable states, to go back to.
    pub history: Vec<(BTreeMap<StreamId, Watermark>, Vec<i64>)>,
}

#[derive(Clone)]
struct Group {
    mark: Watermark,
    gone_out: u64,
    records: Vec<i64>,
}

#[derive(Clone)]
pub struct World(pub Arc<Mutex<State>>);

fn lost(what: &str) -> Fault {
    Fault::retry(format!("{what}: the dice said so"))
}

impl World {
    pub fn new(seed: u64, inputs: Vec<Input>) -> Self {
        Self(Arc::new(Mutex::new(State {
            dice: Dice::new(seed),
            faults: 0,
            fault_rate: 15,
            inputs,
            acknowledged: 0,
            reads: 0,
            sinks: BTreeMap::new(),
            letters: Letters::default(),
            mended: false,
            away: false,
            checkpoints: BTreeMap::new(),
            states: Vec::new(),
            faulty: BTreeMap::new(),
            passed: BTreeMap::new(),
            meters: BTreeMap::new(),
            repeats: false,
        })))
    }

    /// Nothing to read; for sources of a test's own.
    pub fn empty() -> Self {
        let world = Self::new(1, Vec::new());
        world.lock().repeats = true;
        world
    }

    /// From 1 to `count`.
    pub fn numbers(seed: u64, count: i64) -> Self {
        Self::new(seed, (1..=count).map(Input::Number).collect())
    }

    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    pub fn roll(&self, sides: u64) -> u64 {
        self.lock().dice.roll(sides)
    }

    fn luck(&self) -> Luck {
        let mut state = self.lock();
        if state.faults == 0 || state.dice.roll(100) >= state.fault_rate {
            return Luck::Good;
        }
        state.faults -= 1;
        if state.dice.roll(2) == 0 {
            Luck::Before
        } else {
            Luck::After
        }
    }

    /// Every call takes some turns, so that there are many points to crash at.
    async fn take_time(&self) {
        match self.roll(4) {
            0 => {}
            1 => tokio::task::yield_now().await,
            2 => tokio::time::sleep(Duration::from_millis(1)).await,
            _ => {
                let wait = self.roll(300);
                tokio::time::sleep(Duration::from_millis(wait)).await;
            }
        }
    }

    /// What a sink rejects, until it is mended.
    fn rejects(&self, multiples_of: i64) -> i64 {
        if self.lock().mended { i64::MAX } else { multiples_of }
    }

    pub fn records(&self, sink: &str) -> Vec<i64> {
        let state = self.lock();
        let Some(disk) = state.sinks.get(sink) else {
            return Vec::new();
        };
        if disk.groups.is_empty() {
            disk.records.clone()
        } else {
            disk.flat()
        }
    }

    /// What has gone out of a spool.
    pub fn sent(&self, sink: &str) -> Vec<i64> {
        self.lock()
            .sinks
            .get(sink)
            .map(|disk| disk.sent.values().copied().collect())
            .unwrap_or_default()
    }

    /// The values of all dead letters of a node, in order.
    pub fn dead(&self, node: &str) -> Vec<i64> {
        let state = self.lock();
        let of_node = state.letters.kept.values().filter(|kept| kept.letter.node == node);
        let mut values: Vec<i64> = of_node
            .flat_map(|kept| values(&Batch::decode(&kept.letter.record).unwrap()))
            .collect();
        values.sort_unstable();
        values
    }
}

impl Disk {
    fn flat(&self) -> Vec<i64> {
        self.groups
            .iter()
            .flat_map(|group| group.records.iter().copied())
            .collect()
    }

    /// A spool loses its newest groups to damage, also what it has sent.
    pub fn damage(&mut self, groups: usize) {
        self.groups.truncate(self.groups.len().saturating_sub(groups));
        // Numbers are never used twice, so what is appended from now on is not compared with what was sent before.
        self.sent.clear();
    }

    pub fn groups(&self) -> usize {
        self.groups.len()
    }

    pub fn spool_seq(&self) -> u64 {
        self.groups.last().map_or(0, |group| group.mark.seq)
    }
}

pub fn batch(numbers: &[i64]) -> Batch {
    let schema = Schema {
        collection: "t".into(),
        fields: vec![Field::new("n", Type::I64)],
    };
    let mut builder = BatchBuilder::new(Arc::new(schema));
    numbers
        .iter()
        .for_each(|n| builder.push(Op::Insert, &[Cell::I64(*n)]).unwrap());
    builder.finish(Origin::default())
}

/// The same with so many bytes beside the first.
pub fn with_content(numbers: &[i64], bytes: usize) -> Batch {
    let schema = Schema {
        collection: "t".into(),
        fields: vec![Field::new("n", Type::I64), Field::new("b", Type::Bytes)],
    };
    let mut builder = BatchBuilder::new(Arc::new(schema));
    for (row, n) in numbers.iter().enumerate() {
        let content = vec![7; if row == 0 { bytes } else { 0 }];
        builder
            .push(Op::Insert, &[Cell::I64(*n), Cell::Bytes(&content)])
            .unwrap();
    }
    builder.finish(Origin::default())
}

/// One row of so many bytes.
pub fn blob(bytes: usize) -> Batch {
    let schema = Schema {
        collection: "t".into(),
        fields: vec![Field::new("b", Type::Bytes)],
    };
    let mut builder = BatchBuilder::new(Arc::new(schema));
    builder.push(Op::Insert, &[Cell::Bytes(&vec![7; bytes])]).unwrap();
    builder.finish(Origin::default())
}

pub fn values(batch: &Batch) -> Vec<i64> {
    let value = |row| match batch.cell(row, 0) {
        Cell::I64(n) => n,
        other => panic!("{other:?}"),
    };
    (0..batch.rows()).map(value).collect()
}

fn place(position: &Position) -> usize {
    if position.bookmark().is_empty() {
        0
    } else {
        u64::from_le_bytes(position.bookmark().try_into().unwrap()) as usize
    }
}

/// Reads the inputs, a few at a time. Its position is an index.
pub struct Numbers {
    pub world: World,
    pub ends: bool,
    at: Option<usize>,
}

impl Numbers {
    pub fn new(world: &World) -> Self {
        Self {
            world: world.clone(),
            ends: true,
            at: None,
        }
    }
}

#[async_trait]
impl Source for Numbers {
    async fn open(&mut self, after: Option<&Position>) -> Result<(), Fault> {
        assert!(self.at.is_none(), "opened twice");
        self.world.take_time().await;
        if self.world.lock().away || !matches!(self.world.luck(), Luck::Good) {
            return Err(lost("source open"));
        }
        let at = after.map_or(0, place);
        assert!(
            at >= self.world.lock().acknowledged,
            "what was acknowledged is read again"
        );
        self.at = Some(at);
        Ok(())
    }

    async fn read(&mut self) -> Result<Read, Fault> {
        self.world.take_time().await;
        let luck = self.world.luck();
        let at = self.at.expect("read without open");
        if matches!(luck, Luck::Before) {
            return Err(lost("read"));
        }
        if self.world.roll(6) == 0 {
            return Ok(Read::Idle);
        }
        let count = 1 + self.world.roll(7) as usize;
        let part: Vec<Input> = self.world.lock().inputs.iter().skip(at).take(count).copied().collect();
        if part.is_empty() {
            return if self.ends { Ok(Read::End) } else { Ok(Read::Idle) };
        }
        let position = at + part.len();
        self.at = Some(position);
        if matches!(luck, Luck::After) {
            // It went on, but nobody has what it read.
            return Err(lost("read"));
        }
        self.world.lock().reads += 1;
        let numbers: Vec<i64> = part
            .iter()
            .filter_map(|input| if let Input::Number(n) = input { Some(*n) } else { None })
            .collect();
        let garbage = part.len() - numbers.len();
        let undecodable = (0..garbage).map(|_| Undecodable {
            bytes: batch(&[-1]).encode(),
            reason: "garbage".into(),
        });
        Ok(Read::Batch(SourceBatch {
            batch: batch(&numbers),
            position: Position::new((position as u64).to_le_bytes()),
            undecodable: undecodable.collect(),
        }))
    }

    fn decode(&mut self, bytes: &[u8]) -> Result<Batch, String> {
        if self.world.lock().mended {
            Batch::decode(bytes).map_err(|error| error.to_string())
        } else {
            Err("still garbage".to_string())
        }
    }

    async fn commit(&mut self, position: &Position) -> Result<(), Fault> {
        let position = place(position);
        {
            let state = self.world.lock();
            for (name, disk) in &state.sinks {
                let lineage = stream(name);
                let own = disk.marks.get(&lineage).or(disk.groups.last().map(|group| &group.mark));
                let durable = own
                    .or(state.checkpoints.get(&lineage))
                    .map_or(0, |mark| place(&mark.position));
                assert!(
                    durable >= position,
                    "position {position} was committed, but {name} only has {durable}"
                );
            }
        }
        self.world.take_time().await;
        let luck = self.world.luck();
        if matches!(luck, Luck::Before) {
            return Err(lost("source commit"));
        }
        let mut state = self.world.lock();
        state.acknowledged = state.acknowledged.max(position);
        if matches!(luck, Luck::After) {
            Err(lost("source commit"))
        } else {
            Ok(())
        }
    }

    async fn close(&mut self) {
        self.world.take_time().await;
        self.at = None;
    }
}

/// A source that does not mind reading again what was committed.
pub struct Replaying(pub Numbers);

#[async_trait]
impl Source for Replaying {
    async fn open(&mut self, after: Option<&Position>) -> Result<(), Fault> {
        self.0.world.lock().acknowledged = 0;
        self.0.open(after).await
    }

    async fn read(&mut self) -> Result<Read, Fault> {
        self.0.read().await
    }

    async fn close(&mut self) {
        self.0.close().await;
    }
}

/// A sink with transactions, or (`keeps` false) one that can only append.
pub struct Table {
    pub world: World,
    pub name: &'static str,
    keeps: bool,
    /// Rejects multiples of this.
    rejects: i64,
    /// Once: goes back by so many commits at the next fault, as a database that fails over to a copy.
    forgets: usize,
    is_open: bool,
    pending: Vec<i64>,
    marks: BTreeMap<StreamId, Watermark>,
}

impl Table {
    pub fn new(world: &World, name: &'static str) -> Self {
        world.lock().sinks.entry(name.to_string()).or_default();
        Self {
            world: world.clone(),
            name,
            keeps: true,
            rejects: i64::MAX,
            forgets: 0,
            is_open: false,
            pending: Vec::new(),
            marks: BTreeMap::new(),
        }
    }

    pub fn append_only(mut self) -> Self {
        self.keeps = false;
        self
    }

    pub fn rejecting(mut self, multiples_of: i64) -> Self {
        self.rejects = multiples_of;
        self
    }

    pub fn forgetting(mut self, commits: usize) -> Self {
        self.forgets = commits;
        self
    }

    fn fail(&mut self, what: &str) -> Fault {
        let mut state = self.world.lock();
        let disk = state.sinks.get_mut(self.name).unwrap();
        for _ in 0..std::mem::take(&mut self.forgets) {
            if let Some((marks, records)) = disk.history.pop() {
                (disk.marks, disk.records) = (marks, records);
            }
        }
        lost(what)
    }
}

fn rejected(rejects: i64, deliveries: &[Delivery]) -> (Vec<Rejected>, Vec<Vec<i64>>) {
    let mut refused = Vec::new();
    let mut taken = Vec::new();
    for (delivery, each) in deliveries.iter().enumerate() {
        let numbers = values(&each.batch);
        for (row, n) in numbers.iter().enumerate() {
            if n % rejects == 0 {
                refused.push(Rejected {
                    delivery,
                    row,
                    reason: "a multiple".into(),
                });
            }
        }
        taken.push(numbers.into_iter().filter(|n| n % rejects != 0).collect());
    }
    (refused, taken)
}

#[async_trait]
impl Sink for Table {
    async fn open(&mut self) -> Result<(), Fault> {
        self.world.take_time().await;
        self.pending.clear();
        self.marks.clear();
        if !matches!(self.world.luck(), Luck::Good) {
            return Err(self.fail("sink open"));
        }
        self.is_open = true;
        Ok(())
    }

    fn keeps_watermark(&self) -> bool {
        self.keeps
    }

    async fn watermark(&mut self, stream: &StreamId) -> Result<Option<Watermark>, Fault> {
        assert!(self.is_open, "asked while closed");
        self.world.take_time().await;
        if !matches!(self.world.luck(), Luck::Good) {
            return Err(self.fail("watermark"));
        }
        Ok(self.world.lock().sinks[self.name].marks.get(stream).cloned())
    }

    async fn write(&mut self, deliveries: &[Delivery]) -> Result<Vec<Rejected>, Fault> {
        assert!(
            self.is_open && !deliveries.is_empty(),
            "written while closed, or nothing"
        );
        self.world.take_time().await;
        if matches!(self.world.luck(), Luck::Before) {
            return Err(self.fail("write"));
        }
        let (refused, taken) = rejected(self.world.rejects(self.rejects), deliveries);
        for (index, delivery) in deliveries.iter().enumerate() {
            self.pending.extend(&taken[index]);
            self.world.take_time().await;
            let lost = refused.iter().filter(|r| r.delivery == index).count() as u64;
            let before = self.marks.get(&delivery.stream).cloned();
            let stored = || self.world.lock().sinks[self.name].marks.get(&delivery.stream).cloned();
            let before = before.or_else(stored).unwrap_or_default();
            assert!(
                delivery.seq > before.seq,
                "{}: {} after {}",
                self.name,
                delivery.seq,
                before.seq
            );
            self.marks.insert(delivery.stream, before.after(delivery, lost));
        }
        if matches!(self.world.luck(), Luck::After) {
            Err(self.fail("write"))
        } else {
            Ok(refused)
        }
    }

    async fn commit(&mut self) -> Result<(), Fault> {
        assert!(self.is_open, "committed while closed");
        self.world.take_time().await;
        let luck = self.world.luck();
        if matches!(luck, Luck::Before) {
            return Err(self.fail("commit"));
        }
        {
            let mut state = self.world.lock();
            let disk = state.sinks.get_mut(self.name).unwrap();
            let before = (disk.marks.clone(), disk.records.clone());
            disk.history.push(before);
            disk.records.append(&mut self.pending);
            let marks = std::mem::take(&mut self.marks);
            if self.keeps {
                disk.marks.extend(marks);
            }
        }
        if matches!(luck, Luck::After) {
            Err(self.fail("commit"))
        } else {
            Ok(())
        }
    }

    async fn close(&mut self) {
        self.is_open = false;
        self.pending.clear();
        self.world.take_time().await;
    }
}

#[async_trait]
impl Checkpoints for World {
    async fn load(&self, stream: &StreamId) -> Result<Option<Watermark>, Fault> {
        self.take_time().await;
        if !matches!(self.luck(), Luck::Good) {
            return Err(lost("checkpoint"));
        }
        Ok(self.lock().checkpoints.get(stream).cloned())
    }

    async fn save(&self, stream: &StreamId, mark: &Watermark) -> Result<(), Fault> {
        self.take_time().await;
        let luck = self.luck();
        if matches!(luck, Luck::Before) {
            return Err(lost("checkpoint"));
        }
        self.lock().checkpoints.insert(*stream, mark.clone());
        if matches!(luck, Luck::After) {
            Err(lost("checkpoint"))
        } else {
            Ok(())
        }
    }
}

impl Observer for World {
    fn state(&self, state: RunState, cause: &str) {
        self.lock().states.push((state, cause.to_string()));
    }

    fn failed(&self, node: &str) {
        *self.lock().faulty.entry(node.to_string()).or_default() += 1;
    }

    fn passed(&self, node: &str, batch: &Batch, passage: Passage) {
        let mut state = self.lock();
        let passed = state.passed.entry(node.to_string()).or_default();
        passed.0 += batch.rows() as u64;
        passed.1.bytes += passage.bytes;
        passed.1.died += passage.died;
        passed.1.took += passage.took;
        let most = state.inputs.len() as u64;
        for (name, meter) in &state.meters {
            let account = meter.account();
            assert!(account.balances(), "{name}: {account:?}");
            assert!(
                state.repeats || account.produced <= most,
                "{name}: {account:?} of {most}"
            );
        }
    }
}

pub fn stream(name: &str) -> StreamId {
    let mut hash = [0; 32];
    name.bytes().enumerate().for_each(|(index, byte)| hash[index] = byte);
    StreamId::from_hash(&hash)
}

pub fn leaf(world: &World, name: &'static str, after: Option<usize>, sink: impl Sink + 'static) -> Leaf {
    let meter = Arc::<Meter>::default();
    world.lock().meters.insert(name.to_string(), Arc::clone(&meter));
    Leaf {
        after,
        node: name.to_string(),
        stream: stream(name),
        sink: Shared::new(Box::new(sink)),
        meter,
    }
}

pub fn stage(node: &str, after: Option<usize>, keeps: i64, fails: i64) -> Stage {
    Stage {
        after,
        node: node.to_string(),
        transform: Box::new(Sieve { keeps, fails }),
    }
}

pub fn pipe(source: impl Source + 'static, stages: Vec<Stage>, leaves: Vec<Leaf>) -> Pipe {
    Pipe {
        node: "source".into(),
        source: Box::new(source),
        origin: None,
        stages,
        leaves,
        rereads: true,
    }
}

pub fn surroundings(world: &World) -> (Surroundings, watch::Sender<bool>) {
    let (stop, stopped) = watch::channel(false);
    let around = Surroundings {
        dead_letters: Arc::new(world.clone()),
        checkpoints: Arc::new(world.clone()),
        observer: Arc::new(world.clone()),
        random: || u64::MAX / 2,
        stop: stopped,
    };
    (around, stop)
}

/// Runs a pipe, and drops it at its `polls`th point of waiting as a power cut would. `None` when that came first.
pub async fn run_until(pipe: Pipe, around: Surroundings, polls: u64) -> Option<Outcome> {
    let mut run = pin!(flow::run(pipe, around));
    let mut left = polls;
    poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        run.as_mut().poll(context).map(Some)
    })
    .await
}
