//! How a pipe starts, stops, fails and is cut off.
#![allow(clippy::unwrap_used, reason = "a test that cannot set up its world has failed")]

mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bus_schema::{data::Batch, id::StreamId, message::RunState};
use flow::{
    Delivery, Fault, Outcome, Position, Read, Rejected, Shared, Sink, Source, SourceBatch, Stage, Transform,
    Transformed, Watermark,
};
use support::{Buffer, Input, Numbers, Table, World, batch, blob, leaf, pipe, stage, surroundings, values};
use tokio::time::{Instant, sleep, timeout};

const HOUR: Duration = Duration::from_secs(3600);

/// Does what a list says, step by step; the last step is repeated.
struct Script {
    steps: Vec<Step>,
    at: usize,
    reads: Arc<AtomicUsize>,
    rows: Vec<i64>,
    /// One row with so many bytes, instead.
    blob_bytes: usize,
}

#[derive(Clone, Copy, PartialEq)]
enum Step {
    Rows,
    Idle,
    End,
    Retry,
    RetryInAnHour,
    Stop,
    Hang,
}

fn script(steps: &[Step]) -> Script {
    Script {
        steps: steps.to_vec(),
        at: 0,
        reads: Arc::default(),
        rows: vec![1, 2, 3],
        blob_bytes: 0,
    }
}

impl Script {
    async fn step(&mut self) -> Result<Read, Fault> {
        sleep(Duration::from_millis(10)).await;
        let step = self.steps[self.at.min(self.steps.len() - 1)];
        self.at += 1;
        match step {
            Step::Rows => {
                let reads = self.reads.fetch_add(1, Ordering::Relaxed) as u64 + 1;
                let position = Position::new(reads.to_le_bytes());
                let batch = if self.blob_bytes > 0 {
                    blob(self.blob_bytes)
                } else {
                    batch(&self.rows)
                };
                Ok(Read::Batch(SourceBatch {
                    batch,
                    position,
                    undecodable: vec![],
                }))
            }
            Step::Idle => Ok(Read::Idle),
            Step::End => Ok(Read::End),
            Step::Retry => Err(Fault::retry("the source is not there")),
            Step::RetryInAnHour => Err(Fault::Retry {
                cause: "come back later".into(),
                after: Some(HOUR),
            }),
            Step::Stop => Err(Fault::stop("no such column 'x'; name one of a, b")),
            Step::Hang => std::future::pending().await,
        }
    }
}

#[async_trait]
impl Source for Script {
    async fn open(&mut self, _: Option<&Position>) -> Result<(), Fault> {
        Ok(())
    }

    async fn read(&mut self) -> Result<Read, Fault> {
        self.step().await
    }
}

/// A sink in which one call always has the same fate.
struct Stubborn {
    fate: Step,
    at: &'static str,
}

impl Stubborn {
    async fn at(&self, call: &str) -> Result<(), Fault> {
        sleep(Duration::from_millis(10)).await;
        match self.fate {
            _ if call != self.at => Ok(()),
            Step::Retry => Err(Fault::retry("the database is away")),
            Step::RetryInAnHour => Err(Fault::Retry {
                cause: "come back later".into(),
                after: Some(HOUR),
            }),
            Step::Stop => Err(Fault::stop("there is no table 't'; create it")),
            Step::Hang => std::future::pending().await,
            _ => Ok(()),
        }
    }
}

#[async_trait]
impl Sink for Stubborn {
    async fn open(&mut self) -> Result<(), Fault> {
        self.at("open").await
    }

    fn keeps_watermark(&self) -> bool {
        true
    }

    async fn watermark(&mut self, _: &StreamId) -> Result<Option<Watermark>, Fault> {
        self.at("watermark").await.map(|()| None)
    }

    async fn write(&mut self, _: &[Delivery]) -> Result<Vec<Rejected>, Fault> {
        self.at("write").await.map(|()| Vec::new())
    }

    async fn commit(&mut self) -> Result<(), Fault> {
        self.at("commit").await
    }
}

#[tokio::test(start_paused = true)]
async fn a_pipe_stops_at_once_whatever_it_waits_for() {
    use Step::*;
    for (name, steps, fate, at) in [
        ("an idle source", &[Idle][..], Idle, ""),
        ("a source that is retried", &[RetryInAnHour], Idle, ""),
        ("a sink that does not open", &[Rows], Retry, "open"),
        ("a watermark that cannot be read", &[Rows], RetryInAnHour, "watermark"),
        (
            "a sink that does not write, and a full channel",
            &[Rows],
            Retry,
            "write",
        ),
        ("a sink that wants an hour", &[Rows], RetryInAnHour, "commit"),
        (
            "everything delivered, the source at its end but the sink away",
            &[Rows, End],
            RetryInAnHour,
            "write",
        ),
    ] {
        for is_dropped in [false, true] {
            let world = World::empty();
            let leaves = vec![leaf(&world, "sink", None, Stubborn { fate, at })];
            let (around, stop) = surroundings(&world);
            let run = tokio::spawn(flow::run(pipe(script(steps), vec![], leaves), around));
            sleep(HOUR / 6).await;
            assert!(!run.is_finished(), "{name}");
            let asked = Instant::now();
            stop.send_replace(!is_dropped);
            if is_dropped {
                drop(stop);
            }
            let outcome = timeout(Duration::from_secs(2), run).await.expect(name).unwrap();
            assert_eq!(outcome, Outcome::Stopped, "{name}");
            assert!(
                asked.elapsed() <= Duration::from_millis(600),
                "{name}: {:?}",
                asked.elapsed()
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_told_with_its_place_and_cause() {
    use Step::*;
    for (name, steps, fate, at, expected) in [
        (
            "the source",
            &[Rows, Stop][..],
            Idle,
            "",
            "source: no such column 'x'; name one of a, b",
        ),
        (
            "opening",
            &[Rows],
            Stop,
            "open",
            "sink: there is no table 't'; create it",
        ),
        (
            "the watermark",
            &[Rows],
            Stop,
            "watermark",
            "sink: there is no table 't'; create it",
        ),
        (
            "writing",
            &[Rows],
            Stop,
            "write",
            "sink: there is no table 't'; create it",
        ),
        (
            "committing",
            &[Rows],
            Stop,
            "commit",
            "sink: there is no table 't'; create it",
        ),
        (
            "writing, with the source at its end",
            &[Rows, End],
            Stop,
            "write",
            "sink: there is no table 't'; create it",
        ),
        (
            "writing, with the source away for an hour",
            &[Rows, RetryInAnHour],
            Stop,
            "commit",
            "create it",
        ),
    ] {
        let world = World::empty();
        let leaves = vec![leaf(&world, "sink", None, Stubborn { fate, at })];
        let (around, _stop) = surroundings(&world);
        let run = timeout(
            Duration::from_secs(5),
            flow::run(pipe(script(steps), vec![], leaves), around),
        );
        let Outcome::Failed(cause) = run.await.expect(name) else {
            panic!("{name}")
        };
        assert!(cause.contains(expected), "{name}: {cause}");
        let last = world.lock().states.last().cloned();
        assert_eq!(last, Some((RunState::Failed, cause)), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_source_is_the_end_when_all_is_delivered() {
    for count in [0, 1, 500] {
        let world = World::numbers(3, count);
        let (around, _stop) = surroundings(&world);
        let pipe = pipe(
            Numbers::new(&world),
            vec![],
            vec![leaf(&world, "t", None, Table::new(&world, "t"))],
        );
        assert_eq!(flow::run(pipe, around).await, Outcome::Finished);
        assert_eq!(world.records("t"), (1..=count).collect::<Vec<_>>());
        let state = world.lock();
        assert_eq!(state.acknowledged, count as usize, "the source knows");
        let states: Vec<_> = state.states.iter().map(|(state, _)| *state).collect();
        assert_eq!(states, [RunState::Starting, RunState::Running, RunState::Finished]);
    }
}

#[tokio::test(start_paused = true)]
async fn retries_are_seen_and_so_is_their_end() {
    let world = World::numbers(3, 200);
    world.lock().faults = 30;
    let (around, _stop) = surroundings(&world);
    let pipe = pipe(
        Numbers::new(&world),
        vec![],
        vec![leaf(&world, "t", None, Table::new(&world, "t"))],
    );
    assert_eq!(flow::run(pipe, around).await, Outcome::Finished);
    let state = world.lock();
    let retries: Vec<_> = state
        .states
        .iter()
        .filter(|(state, _)| *state == RunState::Retrying)
        .collect();
    assert!(
        !retries.is_empty() && retries.iter().all(|(_, cause)| cause.contains(": ")),
        "{retries:?}"
    );
    assert_eq!(state.states.last().unwrap().0, RunState::Finished);
}

/// What is between the source and the last commit is bounded in batches and in bytes.
#[tokio::test(start_paused = true)]
async fn a_sink_that_hangs_holds_the_source() {
    for (blob_bytes, batches_max) in [(0, 7), (600_000, 2), (4_000_000, 2)] {
        let world = World::empty();
        let source = Script {
            blob_bytes,
            ..script(&[Step::Rows])
        };
        let reads = Arc::clone(&source.reads);
        let leaves = vec![leaf(
            &world,
            "sink",
            None,
            Stubborn {
                fate: Step::Hang,
                at: "write",
            },
        )];
        let (around, _stop) = surroundings(&world);
        let run = tokio::spawn(flow::run(pipe(source, vec![], leaves), around));
        sleep(HOUR / 6).await;
        let read = reads.load(Ordering::Relaxed);
        assert!(
            (2..=batches_max).contains(&read),
            "{read} batches of {blob_bytes} bytes under way"
        );
        run.abort();
    }
}

/// A sink that notes what is written and only makes it durable at commit, for whoever commits.
#[derive(Clone)]
struct Careless {
    world: World,
    hangs: Arc<AtomicUsize>,
    pending: Vec<i64>,
}

#[async_trait]
impl Sink for Careless {
    async fn open(&mut self) -> Result<(), Fault> {
        self.pending.clear();
        Ok(())
    }

    fn keeps_watermark(&self) -> bool {
        true
    }

    async fn watermark(&mut self, stream: &StreamId) -> Result<Option<Watermark>, Fault> {
        Ok(self
            .world
            .lock()
            .sinks
            .entry("shared".into())
            .or_default()
            .marks
            .get(stream)
            .cloned())
    }

    async fn write(&mut self, deliveries: &[Delivery]) -> Result<Vec<Rejected>, Fault> {
        for delivery in deliveries {
            self.pending.extend(values(&delivery.batch));
            if self.hangs.load(Ordering::Relaxed) > 0 {
                self.hangs.fetch_sub(1, Ordering::Relaxed);
                std::future::pending::<()>().await;
            }
        }
        Ok(Vec::new())
    }

    async fn commit(&mut self) -> Result<(), Fault> {
        self.world
            .lock()
            .sinks
            .entry("shared".into())
            .or_default()
            .records
            .append(&mut self.pending);
        Ok(())
    }
}

/// A pipe that was cut off in the middle of a write leaves nothing for its neighbour to commit.
#[tokio::test(start_paused = true)]
async fn a_pipe_that_is_cut_off_spoils_nothing_for_its_neighbour() {
    let world = World::empty();
    let hangs = Arc::new(AtomicUsize::new(1));
    let shared = Shared::new(Box::new(Careless {
        world: world.clone(),
        hangs,
        pending: Vec::new(),
    }));
    let build = |rows: Vec<i64>| {
        let source = Script {
            rows,
            ..script(&[Step::Rows, Step::End])
        };
        let mut leaf = leaf(
            &world,
            "shared",
            None,
            Stubborn {
                fate: Step::Idle,
                at: "",
            },
        );
        leaf.sink = shared.clone();
        pipe(source, vec![], vec![leaf])
    };
    let (around, _stop) = surroundings(&world);
    let cut_off = tokio::spawn(flow::run(build(vec![66]), around.clone()));
    sleep(Duration::from_secs(1)).await;
    cut_off.abort();
    let _ = cut_off.await;
    assert_eq!(flow::run(build(vec![1, 2]), around).await, Outcome::Finished);
    assert_eq!(world.records("shared"), [1, 2]);
}

/// A destination that is added to a pipe starts where the others are; they get nothing twice.
#[tokio::test(start_paused = true)]
async fn a_new_destination_joins_its_siblings() {
    for (before, batches) in [
        (&["a"][..], 40),
        (&["a", "b"], 40),
        (&["a"], 3),
        (&["a", "b"], 3),
        (&["a"], 0),
    ] {
        let world = World::numbers(5, batches);
        let build = |names: &[&'static str]| {
            let leaves = names
                .iter()
                .map(|name| leaf(&world, name, None, Buffer::new(&world, name)));
            pipe(Numbers::new(&world), vec![], leaves.collect())
        };
        let (around, _stop) = surroundings(&world);
        assert_eq!(flow::run(build(before), around.clone()).await, Outcome::Finished);
        world
            .lock()
            .inputs
            .extend((batches + 1..=batches + 20).map(Input::Number));
        let after = [before, &["c"]].concat();
        assert_eq!(flow::run(build(&after), around).await, Outcome::Finished);
        for name in before {
            assert_eq!(world.records(name), (1..=batches + 20).collect::<Vec<_>>(), "{name}");
        }
        assert_eq!(world.records("c"), (batches + 1..=batches + 20).collect::<Vec<_>>());
    }
}

/// Dead letters that cannot be kept hold everything up; none is forgotten meanwhile.
#[tokio::test(start_paused = true)]
async fn a_filter_that_drops_everything_still_moves_on() {
    let world = World::numbers(9, 300);
    let (around, _stop) = surroundings(&world);
    let leaves = vec![leaf(&world, "t", Some(0), Table::new(&world, "t"))];
    let pipe = pipe(Numbers::new(&world), vec![stage("drop", None, i64::MAX, 50)], leaves);
    assert_eq!(flow::run(pipe, around).await, Outcome::Finished);
    assert_eq!(world.records("t"), Vec::<i64>::new());
    assert_eq!(world.lock().acknowledged, 300);
    assert_eq!(world.dead("drop"), [50, 100, 150, 200, 250, 300]);
}

/// A database that has failed over to an empty copy, and at the first fault goes back to where it had been.
struct FailedBack {
    world: World,
    before: Option<(StreamId, Watermark)>,
    pending: Vec<i64>,
    mark: Option<(StreamId, Watermark)>,
}

impl FailedBack {
    fn make_durable(&mut self, mark: Option<(StreamId, Watermark)>, records: Vec<i64>) {
        let mut state = self.world.lock();
        let disk = state.sinks.entry("t".to_string()).or_default();
        disk.marks.extend(mark);
        disk.records.extend(records);
    }
}

#[async_trait]
impl Sink for FailedBack {
    async fn open(&mut self) -> Result<(), Fault> {
        (self.pending, self.mark) = (Vec::new(), None);
        Ok(())
    }

    fn keeps_watermark(&self) -> bool {
        true
    }

    async fn watermark(&mut self, stream: &StreamId) -> Result<Option<Watermark>, Fault> {
        let state = self.world.lock();
        Ok(state.sinks.get("t").and_then(|disk| disk.marks.get(stream).cloned()))
    }

    async fn write(&mut self, deliveries: &[Delivery]) -> Result<Vec<Rejected>, Fault> {
        if let Some(before) = self.before.take() {
            self.make_durable(Some(before), vec![1, 2, 3]);
            return Err(Fault::retry("the copy went away"));
        }
        for delivery in deliveries {
            self.pending.extend(values(&delivery.batch));
            let mark = match &self.mark {
                Some((_, mark)) => mark.clone(),
                None => self.watermark(&delivery.stream).await?.unwrap_or_default(),
            };
            self.mark = Some((delivery.stream, mark.after(delivery, 0)));
        }
        Ok(Vec::new())
    }

    async fn commit(&mut self) -> Result<(), Fault> {
        let (mark, pending) = (self.mark.clone(), std::mem::take(&mut self.pending));
        self.make_durable(mark, pending);
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_destination_that_fails_back_loses_nothing() {
    let world = World::numbers(5, 40);
    let before = Watermark {
        seq: 9,
        position: Position::new(3_u64.to_le_bytes()),
        delivered: 3,
        ..Watermark::default()
    };
    let sink = FailedBack {
        world: world.clone(),
        before: Some((support::stream("t"), before)),
        pending: Vec::new(),
        mark: None,
    };
    let (around, _stop) = surroundings(&world);
    let pipe = pipe(Numbers::new(&world), vec![], vec![leaf(&world, "t", None, sink)]);
    assert_eq!(flow::run(pipe, around).await, Outcome::Finished);
    assert_eq!(world.records("t"), (1..=40).collect::<Vec<_>>());
}

/// Gives a second batch only once the first was acknowledged.
struct Window {
    given: u64,
    acknowledged: u64,
}

#[async_trait]
impl Source for Window {
    async fn open(&mut self, _: Option<&Position>) -> Result<(), Fault> {
        Ok(())
    }

    async fn ready(&mut self) -> bool {
        // For ever, unless it is acknowledged meanwhile and asked again.
        if self.acknowledged < self.given {
            std::future::pending::<()>().await;
        }
        true
    }

    async fn read(&mut self) -> Result<Read, Fault> {
        if self.given == 3 {
            return Ok(Read::End);
        }
        self.given += 1;
        Ok(Read::Batch(SourceBatch {
            batch: batch(&[self.given as i64]),
            position: Position::new(self.given.to_le_bytes()),
            undecodable: vec![],
        }))
    }

    async fn commit(&mut self, position: &Position) -> Result<(), Fault> {
        self.acknowledged = u64::from_le_bytes(position.as_bytes().try_into().unwrap());
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_source_that_waits_for_its_acknowledgement_gets_it() {
    let world = World::empty();
    let (around, _stop) = surroundings(&world);
    let source = Window {
        given: 0,
        acknowledged: 0,
    };
    let pipe = pipe(
        source,
        vec![],
        vec![leaf(&world, "table", None, Table::new(&world, "table"))],
    );
    let outcome = timeout(HOUR, flow::run(pipe, around)).await;
    assert_eq!(outcome, Ok(Outcome::Finished));
    assert_eq!(world.records("table"), [1, 2, 3]);
}

/// Lets every number through once.
#[derive(Default)]
struct Once(std::collections::HashSet<i64>);

impl Transform for Once {
    fn apply(&mut self, batch: Batch) -> Result<Transformed, Fault> {
        let numbers = values(&batch);
        let new: Vec<usize> = (0..numbers.len()).filter(|row| self.0.insert(numbers[*row])).collect();
        Ok(batch.take(&new).into())
    }

    fn forget(&mut self) {
        self.0.clear();
    }
}

/// What a transform has learnt from records holds no longer when they may be read again.
#[tokio::test(start_paused = true)]
async fn a_transform_forgets_when_reading_starts_again() {
    use Step::*;
    for (steps, wanted) in [
        (&[Rows, Rows, End][..], &[1, 2, 3][..]),
        (&[Rows, Retry, Rows, Rows, End], &[1, 2, 3, 1, 2, 3]),
    ] {
        let world = World::empty();
        let leaves = vec![leaf(&world, "table", Some(0), Table::new(&world, "table"))];
        let once = Stage {
            after: None,
            node: "once".into(),
            transform: Box::<Once>::default(),
        };
        let pipe = pipe(script(steps), vec![once], leaves);
        let (around, _stop) = surroundings(&world);
        assert_eq!(flow::run(pipe, around).await, Outcome::Finished);
        assert_eq!(world.records("table"), wanted, "{}", steps.len());
    }
}
