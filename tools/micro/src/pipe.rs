//! The runner alone: a source with batches at hand, no transform, a sink that drops what it gets.

use std::{path::Path, sync::Arc};

use anyhow::{Result, ensure};
use async_trait::async_trait;
use bus_schema::{
    data::{Batch, Origin},
    id::{NodeId, StreamId, WorkflowId},
    message::RunState,
};
use flow::{
    Checkpoints, DeadLetter, DeadLetters, Delivery, Due, Fault, Leaf, LetterKey, Meter, Observer, Outcome, Passage,
    Pipe, Position, Read, Rejected, Shared, Sink, Source, SourceBatch, Stand, Surroundings, Watermark, run,
};
use tokio::sync::watch;

use crate::{Body, Case, SPREAD_PERCENT, data};

/// Batches of an iteration.
const BATCHES: u64 = 64;
/// Rows of each: small, so that what a batch costs shows in what a record costs.
const ROWS: usize = 64;

/// The cases.
pub const CASES: &[Case] = &[Case {
    name: "runner",
    iteration: "a pipe started, 4,096 records in 64 batches, and its end",
    iterations: 20,
    spread_percent: SPREAD_PERCENT,
    main_thread_only: false,
    prepare: running,
}];

struct Ready {
    batch: Batch,
    left: u64,
}

#[async_trait]
impl Source for Ready {
    async fn open(&mut self, _: Option<&Position>) -> Result<(), Fault> {
        self.left = BATCHES;
        Ok(())
    }

    async fn read(&mut self) -> Result<Read, Fault> {
        if self.left == 0 {
            return Ok(Read::End);
        }
        self.left -= 1;
        Ok(Read::Batch(SourceBatch {
            batch: self.batch.clone(),
            position: Position::new(self.left.to_le_bytes()),
            undecodable: Vec::new(),
        }))
    }
}

/// Keeps only how far it has come.
#[derive(Default)]
struct Drop(Watermark);

#[async_trait]
impl Sink for Drop {
    async fn open(&mut self) -> Result<(), Fault> {
        Ok(())
    }

    async fn watermark(&mut self, _: &StreamId) -> Result<Option<Watermark>, Fault> {
        Ok(Some(self.0.clone()))
    }

    fn keeps_watermark(&self) -> bool {
        true
    }

    async fn write(&mut self, deliveries: &[Delivery]) -> Result<Vec<Rejected>, Fault> {
        for delivery in deliveries {
            self.0 = self.0.after(delivery, 0);
        }
        Ok(Vec::new())
    }

    async fn commit(&mut self) -> Result<(), Fault> {
        Ok(())
    }
}

/// Nothing around the pipe: no letters, no checkpoints, nobody who watches.
struct Nothing;

#[async_trait]
impl DeadLetters for Nothing {
    async fn begin(&self, _: &str, _: u64, _: bool) -> Result<(), Fault> {
        Ok(())
    }
    async fn put(&self, _: Vec<DeadLetter>) -> Result<(), Fault> {
        Err(Fault::stop("a record died where none may"))
    }
    async fn take_back(&self, _: Vec<LetterKey>) -> Result<(), Fault> {
        Ok(())
    }
    fn wishes(&self) -> u64 {
        0
    }
    async fn replays(&self, _: &str, _: Stand) -> Result<Due, Fault> {
        Ok(Due::default())
    }
    async fn settled(&self, _: Vec<u64>) -> Result<(), Fault> {
        Ok(())
    }
    async fn refuse(&self, _: u64, _: String) -> Result<(), Fault> {
        Ok(())
    }
}

#[async_trait]
impl Checkpoints for Nothing {
    async fn load(&self, _: &StreamId) -> Result<Option<Watermark>, Fault> {
        Ok(None)
    }
    async fn save(&self, _: &StreamId, _: &Watermark) -> Result<(), Fault> {
        Ok(())
    }
}

impl Observer for Nothing {
    fn state(&self, _: RunState, _: &str) {}
    fn passed(&self, _: &str, _: &Batch, _: Passage) {}
}

fn running(_: &Path) -> Result<Body> {
    let batch = data::table()?.slice(0..ROWS);
    let node = NodeId::of_key(&[3; 32]);
    let stream = StreamId::of_edge(&WorkflowId::of_name("shop"), "orders->out", &node, &node);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    Ok(Box::new(move || {
        let (stopper, stop) = watch::channel(false);
        let meter = Arc::new(Meter::default());
        let pipe = Pipe {
            node: "orders".into(),
            source: Box::new(Ready {
                batch: batch.clone(),
                left: 0,
            }),
            origin: Some(Arc::new(Origin::default)),
            stages: Vec::new(),
            leaves: vec![Leaf {
                after: None,
                node: "out".into(),
                stream,
                sink: Shared::new(Box::new(Drop::default())),
                meter: Arc::clone(&meter),
            }],
            rereads: true,
        };
        let around = Surroundings {
            dead_letters: Arc::new(Nothing),
            checkpoints: Arc::new(Nothing),
            observer: Arc::new(Nothing),
            random: || 7,
            stop,
        };
        let outcome = runtime.block_on(run(pipe, around));
        drop(stopper);
        ensure!(outcome == Outcome::Finished, "the pipe ended with {outcome:?}");
        Ok(meter.account().delivered)
    }))
}
