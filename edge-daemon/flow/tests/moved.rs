//! A destination that stands elsewhere all at once, while the source has nothing new.
#![allow(clippy::unwrap_used, reason = "a test that cannot set up its world has failed")]

mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bus_schema::id::StreamId;
use flow::{Delivery, Fault, Position, Read, Rejected, Sink, Source, Watermark};
use support::{Disk, Numbers, Table, World, leaf, paused, pipe, surroundings};

/// As a stream whose buffer was replaced: says so when it is asked, until it is asked where it stands.
struct Replaced {
    table: Table,
    has_moved: Arc<AtomicBool>,
}

#[async_trait::async_trait]
impl Sink for Replaced {
    async fn open(&mut self) -> Result<(), Fault> {
        self.table.open().await
    }

    fn keeps_watermark(&self) -> bool {
        true
    }

    fn has_moved(&self) -> bool {
        self.has_moved.load(Ordering::Relaxed)
    }

    async fn watermark(&mut self, stream: &StreamId) -> Result<Option<Watermark>, Fault> {
        self.has_moved.store(false, Ordering::Relaxed);
        self.table.watermark(stream).await
    }

    async fn write(&mut self, deliveries: &[Delivery]) -> Result<Vec<Rejected>, Fault> {
        self.table.write(deliveries).await
    }

    async fn commit(&mut self) -> Result<(), Fault> {
        self.table.commit().await
    }

    async fn close(&mut self) {
        self.table.close().await;
    }
}

/// Never ends, and does not mind reading again what was committed.
struct Patient(Numbers);

#[async_trait::async_trait]
impl Source for Patient {
    async fn open(&mut self, after: Option<&Position>) -> Result<(), Fault> {
        self.0.world.lock().acknowledged = 0;
        self.0.open(after).await
    }

    async fn read(&mut self) -> Result<Read, Fault> {
        match self.0.read().await? {
            Read::Idle => {
                tokio::time::sleep(flow::READ_WAIT_MAX).await;
                Ok(Read::Idle)
            }
            other => Ok(other),
        }
    }

    async fn close(&mut self) {
        self.0.close().await;
    }
}

async fn until_there(world: &World, count: usize) {
    while world.records("table").len() < count {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[test]
fn what_a_replaced_buffer_lacks_is_read_again_though_nothing_new_comes() {
    paused(async {
        let world = World::numbers(7, 20);
        let has_moved = Arc::new(AtomicBool::new(false));
        let sink = Replaced {
            table: Table::new(&world, "table"),
            has_moved: Arc::clone(&has_moved),
        };
        let mut source = Numbers::new(&world);
        source.ends = false;
        let pipe = pipe(Patient(source), vec![], vec![leaf(&world, "table", None, sink)]);
        let (around, stop) = surroundings(&world);
        let run = flow::run(pipe, around);
        let watch = async {
            until_there(&world, 20).await;
            *world.lock().sinks.get_mut("table").unwrap() = Disk::default();
            has_moved.store(true, Ordering::Relaxed);
            let again = tokio::time::timeout(Duration::from_secs(600), until_there(&world, 20)).await;
            stop.send_replace(true);
            again.is_ok()
        };
        let (_, is_there) = tokio::join!(run, watch);
        assert!(is_there, "nobody noticed");
        assert_eq!(world.records("table"), (1..=20).collect::<Vec<i64>>());
    });
}
