//! A destination that takes only something larger than a commit (objects): the source hears of nothing that is only
//! gathered, and nothing is lost or doubled by faults and crashes.
#![allow(clippy::unwrap_used, reason = "a test that cannot set up its world has failed")]

mod support;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use bus_schema::id::StreamId;
use flow::{Delivery, Fault, Gathered, Outcome, Rejected, Sink, Watermark};
use support::{Numbers, World, leaf, paused, pipe, run_until, surroundings, values};

const ROWS: i64 = 300;
/// Rows after which a heap is an object.
const HEAP_ROWS: usize = 40;

/// By the number of their first record: an object that comes again takes the place of what was there.
type Objects = Arc<Mutex<BTreeMap<u64, Vec<i64>>>>;

struct Heaps {
    world: World,
    objects: Objects,
    faults: u32,
    /// Of what is durable, committed, written.
    marks: [Watermark; 3],
    heap: Vec<i64>,
    pending: Vec<i64>,
}

impl Heaps {
    fn new(world: &World, objects: &Objects, faults: u32) -> Self {
        Self {
            world: world.clone(),
            objects: Arc::clone(objects),
            faults,
            marks: Default::default(),
            heap: Vec::new(),
            pending: Vec::new(),
        }
    }

    fn luck(&mut self, what: &str) -> Result<(), Fault> {
        if self.faults > 0 && self.world.roll(4) == 0 {
            self.faults -= 1;
            return Err(Fault::retry(what));
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<(), Fault> {
        self.luck("before an object")?;
        if !self.heap.is_empty() {
            let number = self.marks[0].delivered + 1;
            self.objects
                .lock()
                .unwrap()
                .insert(number, std::mem::take(&mut self.heap));
        }
        self.marks[0] = self.marks[1].clone();
        self.luck("after an object")
    }
}

#[async_trait::async_trait]
impl Sink for Heaps {
    async fn open(&mut self) -> Result<(), Fault> {
        self.luck("open")
    }

    fn begin(&mut self, _: &StreamId, mark: &Watermark) {
        self.heap.clear();
        self.marks = [mark.clone(), mark.clone(), mark.clone()];
    }

    fn gathered(&self, _: &StreamId) -> Option<Gathered> {
        Some(Gathered {
            mark: self.marks[1].clone(),
            is_durable: self.heap.is_empty(),
        })
    }

    async fn write(&mut self, deliveries: &[Delivery]) -> Result<Vec<Rejected>, Fault> {
        for delivery in deliveries {
            assert!(delivery.seq > self.marks[2].seq, "{} comes twice", delivery.seq);
            self.pending.extend(values(&delivery.batch));
            self.marks[2] = self.marks[2].after(delivery, 0);
        }
        self.luck("write")?;
        Ok(Vec::new())
    }

    async fn commit(&mut self) -> Result<(), Fault> {
        self.luck("commit")?;
        self.heap.append(&mut self.pending);
        self.marks[1] = self.marks[2].clone();
        if self.heap.len() >= HEAP_ROWS {
            self.finish()?;
        }
        Ok(())
    }

    async fn complete(&mut self, _: &StreamId) -> Result<(), Fault> {
        self.finish()
    }

    async fn close(&mut self) {
        self.pending.clear();
        self.marks[2] = self.marks[1].clone();
    }
}

fn stored(objects: &Objects) -> Vec<i64> {
    objects.lock().unwrap().values().flatten().copied().collect()
}

#[test]
fn nothing_is_lost_or_doubled_and_the_source_hears_of_nothing_too_early() {
    for seed in 0..200 {
        paused(async {
            let (world, objects) = (World::numbers(seed, ROWS), Objects::default());
            world.lock().repeats = true;
            let (mut finished, mut lives) = (None, 0);
            while finished.is_none() {
                lives += 1;
                let sink = Heaps::new(&world, &objects, if lives < 20 { 6 } else { 0 });
                let pipe = pipe(Numbers::new(&world), vec![], vec![leaf(&world, "heaps", None, sink)]);
                let (around, _stop) = surroundings(&world);
                let polls = if seed > 20 && lives < 20 {
                    world.roll(60)
                } else {
                    u64::MAX
                };
                finished = run_until(pipe, around, polls).await;
                let (heard, there) = (world.lock().acknowledged, stored(&objects).len());
                assert!(
                    heard <= there,
                    "seed {seed}: the source let go of {heard}, {there} are stored"
                );
            }
            assert_eq!(finished, Some(Outcome::Finished), "seed {seed}");
            let stored = stored(&objects);
            assert!(
                stored == (1..=ROWS).collect::<Vec<i64>>(),
                "seed {seed}, {lives} lives: {stored:?}"
            );
            if lives == 1 {
                assert_eq!(world.lock().acknowledged, ROWS as usize, "seed {seed}");
            }
            let account = world.lock().meters["heaps"].account();
            assert_eq!(
                (account.produced, account.buffered),
                (ROWS as u64, 0),
                "seed {seed}: {account:?}"
            );
        });
    }
}

#[test]
fn what_can_be_read_again_is_not_forced_out_by_a_stop() {
    for (rereads, wanted) in [(true, 0), (false, 30)] {
        paused(async {
            let (world, objects) = (World::numbers(1, 30), Objects::default());
            let mut source = Numbers::new(&world);
            source.ends = false;
            let sink = Heaps::new(&world, &objects, 0);
            let mut pipe = pipe(source, vec![], vec![leaf(&world, "heaps", None, sink)]);
            pipe.rereads = rereads;
            let (around, stop) = surroundings(&world);
            let watch = async {
                tokio::time::sleep(Duration::from_secs(5)).await;
                let account = world.lock().meters["heaps"].account();
                assert_eq!((account.buffered, account.delivered), (30, 0), "only gathered");
                stop.send_replace(true);
            };
            tokio::join!(flow::run(pipe, around), watch);
            assert_eq!((stored(&objects).len(), world.lock().acknowledged), (wanted, wanted));
        });
    }
}
