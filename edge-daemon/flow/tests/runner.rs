//! The runner in a world of faults: whatever fails, waits, crashes or answers nothing, each record arrives as promised.
#![allow(clippy::unwrap_used, reason = "a test that cannot set up its world has failed")]

mod support;

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use bus_schema::{data::Batch, id::StreamId};
use flow::{
    Delivery, Fault, Outcome, Outside, Position, Read, Rejected, Sink, Source, Stage, Transform, Transformed, Trouble,
    Watermark,
};
use proptest::prelude::*;
use support::{
    Buffer, Numbers, Replaying, Table, World, leaf, lives, paused, pipe, run_until, stage, surroundings, troubled,
    values, wanted, with_content,
};

/// What a watcher is told of each node adds up, and the leaf knows how much went through it.
#[test]
fn what_passes_each_node_is_told() {
    paused(async {
        let world = World::numbers(7, 100);
        let table = Table::new(&world, "table").rejecting(11);
        let stages = vec![stage("sieve", None, 2, 7)];
        let pipe = pipe(
            Numbers::new(&world),
            stages,
            vec![leaf(&world, "table", Some(0), table)],
        );
        let (around, _stop) = surroundings(&world);
        assert_eq!(flow::run(pipe, around).await, Outcome::Finished);
        let state = world.lock();
        let told = |node: &str| {
            let (records, passage) = state.passed[node];
            (records, passage.died)
        };
        let evens = (1..=100).filter(|n| n % 2 == 0 && n % 7 != 0).count() as u64;
        let refused = (1..=100).filter(|n| n % 2 == 0 && n % 7 != 0 && n % 11 == 0).count() as u64;
        assert_eq!(told("source"), (100, 0));
        assert_eq!(told("sieve"), (evens, (1..=100).filter(|n| n % 7 == 0).count() as u64));
        assert_eq!(told("table"), (evens, refused));
        assert_eq!(state.passed["source"].1.bytes, 800, "eight bytes a number");
        let through = state.meters["table"].throughput();
        assert_eq!(through.bytes, evens * 8);
        assert!(through.timed > 0, "{through:?}");
        assert!(state.faulty.is_empty());
    });
}

/// Each failure is told with the node that failed.
#[test]
fn failures_are_told_by_node() {
    paused(async {
        let world = World::numbers(7, 40);
        world.lock().away = true;
        let (around, stop) = surroundings(&world);
        let table = Table::new(&world, "table");
        let pipe = pipe(Numbers::new(&world), vec![], vec![leaf(&world, "table", None, table)]);
        let run = tokio::spawn(flow::run(pipe, around));
        tokio::time::sleep(std::time::Duration::from_secs(60)).await;
        assert!(world.lock().faulty["source"] > 1);
        world.lock().away = false;
        assert_eq!(run.await.unwrap(), Outcome::Finished);
        drop(stop);
        assert_eq!(world.lock().passed["table"].0, 40);
    });
}

/// A stage that is away at first.
struct Away(u32);

impl Transform for Away {
    fn apply(&mut self, _: Batch) -> Result<Transformed, Fault> {
        panic!("nobody waited for it")
    }

    fn outside(&mut self) -> Option<&mut dyn Outside> {
        Some(self)
    }
}

#[async_trait]
impl Outside for Away {
    async fn apply(&mut self, batch: Batch) -> Result<Transformed, Fault> {
        if self.0 > 0 {
            self.0 -= 1;
            return Err(Fault::retry("away"));
        }
        let rejected = Vec::new();
        Ok(Transformed { batch, rejected })
    }

    async fn check(&mut self) -> Result<String, Trouble> {
        panic!("nobody checks here")
    }
}

/// Failures of a stage are its own, and what is read again because of them is counted once.
#[test]
fn a_stage_that_is_away_is_told_of_itself() {
    paused(async {
        let world = World::numbers(7, 40);
        let far = Stage {
            node: "far".into(),
            after: Some(0),
            transform: Box::new(Away(5)),
        };
        let stages = vec![stage("all", None, 1, 1_000), far];
        let table = Table::new(&world, "table");
        let pipe = pipe(
            Numbers::new(&world),
            stages,
            vec![leaf(&world, "table", Some(1), table)],
        );
        let (around, _stop) = surroundings(&world);
        assert_eq!(flow::run(pipe, around).await, Outcome::Finished);
        let state = world.lock();
        assert_eq!(state.faulty, [("far".to_string(), 5)].into());
        for node in ["source", "all", "far", "table"] {
            assert_eq!(state.passed[node].0, 40, "{node}");
        }
        assert_eq!(state.meters["table"].account().delivered, 40);
    });
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

    /// A destination with transactions: exactly once, and the account is exact.
    #[test]
    fn exactly_once_where_the_watermark_is_stored_with_the_records(seed in any::<u64>()) {
        paused(async move {
            let (world, inputs, mut dice) = troubled(seed, 60);
            let build = || {
                let table = Table::new(&world, "table").rejecting(11);
                pipe(Numbers::new(&world), vec![stage("sieve", None, 2, 7)], vec![leaf(&world, "table", Some(0), table)])
            };
            lives(&world, &mut dice, build).await;
            prop_assert_eq_panic(&world.records("table"), &wanted(&inputs, |n| n % 2 == 0 && n % 7 != 0 && n % 11 != 0), seed);
            let fails = wanted(&inputs, |n| n % 7 == 0);
            let refused = wanted(&inputs, |n| n % 2 == 0 && n % 7 != 0 && n % 11 == 0);
            assert_eq!((world.dead("sieve"), world.dead("table")), (fails, refused), "seed {seed}");
            let (account, filtered) = {
                let meter = &world.lock().meters["table"];
                (meter.account(), meter.mark().counts.filtered)
            };
            let delivered = world.records("table").len() as u64;
            let left_out = wanted(&inputs, |n| n % 2 != 0 && n % 7 != 0).len() as u64;
            assert_eq!(
                (account.produced.saturating_add_signed(filtered), account.delivered, account.buffered, filtered),
                (inputs.len() as u64, delivered, 0, left_out as i64),
                "seed {seed}"
            );
        });
    }

    /// A destination that can only append: nothing is missing, order holds between the repeats, and without faults and
    /// crashes nothing comes twice.
    #[test]
    fn at_least_once_where_it_cannot(seed in any::<u64>()) {
        paused(async move {
            let (world, inputs, mut dice) = troubled(seed, 40);
            let build = || {
                let table = Table::new(&world, "file").append_only().rejecting(11);
                pipe(Numbers::new(&world), vec![], vec![leaf(&world, "file", None, table)])
            };
            lives(&world, &mut dice, build).await;
            let records = world.records("file");
            let expected = wanted(&inputs, |n| n % 11 != 0);
            let once: BTreeSet<_> = records.iter().copied().collect();
            assert_eq!(once.into_iter().collect::<Vec<_>>(), expected, "seed {seed}");
            // Whatever is repeated is repeated as a run that goes on where it started.
            let mut next = 0;
            for n in &records {
                let at = expected.iter().position(|e| e == n).unwrap();
                assert!(at <= next, "seed {seed}: {n} came before its predecessors");
                next = at + 1;
            }
            assert_eq!(world.dead("file"), wanted(&inputs, |n| n % 11 == 0), "seed {seed}");
        });
    }

    /// Spools behind one source, with transforms that drop much: exactly once each, and no number of a frame that has
    /// gone out is ever used for something else (the buffer checks that).
    #[test]
    fn a_fan_out_stays_level_through_crashes(seed in any::<u64>()) {
        paused(async move {
            let (world, inputs, mut dice) = troubled(seed, 60);
            let build = || {
                let sparse = stage("sparse", None, 13, 29);
                let nothing = stage("nothing", None, i64::MAX, i64::MAX);
                let leaves = vec![
                    leaf(&world, "all", None, Buffer::new(&world, "all")),
                    leaf(&world, "sparse-out", Some(0), Buffer::new(&world, "sparse-out").rejecting(26)),
                    leaf(&world, "none", Some(1), Buffer::new(&world, "none")),
                ];
                pipe(Numbers::new(&world), vec![sparse, nothing], leaves)
            };
            lives(&world, &mut dice, build).await;
            for (name, keep) in [
                ("all", (|_| true) as fn(i64) -> bool),
                ("sparse-out", |n| n % 13 == 0 && n % 29 != 0 && n % 26 != 0),
                ("none", |_| false),
            ] {
                prop_assert_eq_panic(&world.records(name), &wanted(&inputs, keep), seed);
                assert_eq!(world.sent(name), world.records(name), "seed {seed}: everything went out");
            }
            assert_eq!(world.dead("sparse-out"), wanted(&inputs, |n| n % 26 == 0 && n % 29 != 0), "seed {seed}");
        });
    }

    /// A single spool, which is durable before it is committed: what it rejects is in the dead letters all the same.
    #[test]
    fn a_spool_rejects_nothing_without_a_letter(seed in any::<u64>()) {
        paused(async move {
            let (world, inputs, mut dice) = troubled(seed, 60);
            let build = || {
                let buffer = Buffer::new(&world, "spool").rejecting(3);
                pipe(Numbers::new(&world), vec![], vec![leaf(&world, "spool", None, buffer)])
            };
            lives(&world, &mut dice, build).await;
            prop_assert_eq_panic(&world.records("spool"), &wanted(&inputs, |n| n % 3 != 0), seed);
            assert_eq!(world.dead("spool"), wanted(&inputs, |n| n % 3 == 0), "seed {seed}");
            let account = world.lock().meters["spool"].account();
            assert_eq!((account.produced, account.buffered), (inputs.len() as u64, 0), "seed {seed}");
        });
    }

    /// A database that fails over to a copy without its last transactions.
    #[test]
    fn a_destination_that_forgets_what_it_confirmed_gets_it_again(seed in any::<u64>()) {
        paused(async move {
            let (world, inputs, mut dice) = troubled(seed, 40);
            let forgets = 1 + dice.roll(4) as usize;
            let build = || {
                let table = Table::new(&world, "table").forgetting(forgets);
                // A source that gives out again what it was told to be safe: a table, not a queue.
                pipe(Replaying(Numbers::new(&world)), vec![], vec![leaf(&world, "table", None, table)])
            };
            lives(&world, &mut dice, build).await;
            prop_assert_eq_panic(&world.records("table"), &wanted(&inputs, |_| true), seed);
        });
    }

    /// A spool loses its newest groups to damage: nothing is missing anywhere afterwards, and it comes to an end.
    #[test]
    fn a_damaged_spool_costs_repeats_but_no_records(seed in any::<u64>()) {
        paused(async move {
            let (world, inputs, mut dice) = troubled(seed, 0);
            let build = || {
                let names = ["a", "b"];
                let leaves = names.map(|name| leaf(&world, name, None, Buffer::new(&world, name)));
                pipe(Replaying(Numbers::new(&world)), vec![], leaves.into())
            };
            let (around, _stop) = surroundings(&world);
            run_until(build(), around, 1 + dice.roll(200)).await;
            {
                let mut state = world.lock();
                let lost = dice.roll(4) as usize;
                let disk = state.sinks.get_mut("b").unwrap();
                // What lies above the last mark that went out is indistinguishable from a crash, and as harmless.
                let lost = if disk.groups() < lost + 2 { 0 } else { lost };
                disk.damage(lost);
                state.sinks.get_mut("a").unwrap().damage(0);
                state.repeats = true;
            }
            lives(&world, &mut dice, build).await;
            for name in ["a", "b"] {
                let once: BTreeSet<_> = world.records(name).into_iter().collect();
                assert_eq!(once.into_iter().collect::<Vec<_>>(), wanted(&inputs, |_| true), "seed {seed}, {name}");
            }
        });
    }
}

#[track_caller]
fn prop_assert_eq_panic(found: &[i64], expected: &[i64], seed: u64) {
    assert_eq!(found, expected, "seed {seed}");
}

/// Takes nothing that comes alone, and says that others would help.
struct Sociable {
    table: Table,
    least: usize,
    asked: Arc<Mutex<Vec<usize>>>,
}

#[async_trait]
impl Sink for Sociable {
    async fn open(&mut self) -> Result<(), Fault> {
        self.table.open().await
    }

    async fn watermark(&mut self, stream: &StreamId) -> Result<Option<Watermark>, Fault> {
        self.table.watermark(stream).await
    }

    fn keeps_watermark(&self) -> bool {
        self.table.keeps_watermark()
    }

    async fn write(&mut self, deliveries: &[Delivery]) -> Result<Vec<Rejected>, Fault> {
        let rows = deliveries.iter().map(|delivery| delivery.batch.rows()).sum();
        self.asked.lock().unwrap().push(rows);
        if rows < self.least {
            return Err(Fault::retry("too few"));
        }
        self.table.write(deliveries).await
    }

    fn wants_company(&self, _: &StreamId) -> bool {
        true
    }

    async fn commit(&mut self) -> Result<(), Fault> {
        self.table.commit().await
    }
}

/// What failed is written again together with what has come since, and only where the sink wants that; every record is in the
/// account once.
#[test]
fn what_failed_comes_again_with_what_has_come_since() {
    paused(async {
        let world = World::numbers(7, 60);
        let asked = Arc::default();
        let sink = Sociable {
            table: Table::new(&world, "table").rejecting(11),
            least: 9,
            asked: Arc::clone(&asked),
        };
        let stages = vec![stage("sieve", None, 2, 7)];
        let pipe = pipe(Numbers::new(&world), stages, vec![leaf(&world, "table", Some(0), sink)]);
        let (around, _stop) = surroundings(&world);
        let run = tokio::time::timeout(std::time::Duration::from_secs(600), flow::run(pipe, around)).await;
        let wanted: Vec<i64> = (1..=60).filter(|n| n % 2 == 0 && n % 7 != 0 && n % 11 != 0).collect();
        let account = world.lock().meters["table"].account();
        let asked = asked.lock().unwrap().clone();
        let grown = asked.windows(2).any(|pair| pair[0] < 9 && pair[1] > pair[0]);
        assert!(grown, "{asked:?}");
        assert!(account.balances(), "{account:?}");
        let records = world.records("table");
        assert_eq!(records, wanted[..records.len()], "{asked:?}");
        // What is left at the end has nobody to come with.
        assert_eq!(run.is_err(), account.buffered > 0, "{run:?} {account:?}");
        assert!(wanted.len() - records.len() < 9, "{asked:?}");
        assert_eq!(account.delivered, records.len() as u64);
    });
}

/// Its first batch takes all the room there is.
struct LargeFirst {
    numbers: Numbers,
    has_given: bool,
}

#[async_trait]
impl Source for LargeFirst {
    async fn open(&mut self, after: Option<&Position>) -> Result<(), Fault> {
        self.numbers.open(after).await
    }

    async fn read(&mut self) -> Result<Read, Fault> {
        let mut read = self.numbers.read().await?;
        if let Read::Batch(read) = &mut read
            && !std::mem::replace(&mut self.has_given, true)
        {
            read.batch = with_content(&values(&read.batch), 400 * 1024);
        }
        Ok(read)
    }

    async fn commit(&mut self, position: &Position) -> Result<(), Fault> {
        self.numbers.commit(position).await
    }
}

/// However large it is that waits for company: there is room for others to come.
#[test]
fn what_is_large_gets_company_too() {
    paused(async {
        let world = World::numbers(7, 60);
        let asked = Arc::default();
        let sink = Sociable {
            table: Table::new(&world, "table"),
            least: 12,
            asked: Arc::clone(&asked),
        };
        let source = LargeFirst {
            numbers: Numbers::new(&world),
            has_given: false,
        };
        let pipe = pipe(source, Vec::new(), vec![leaf(&world, "table", None, sink)]);
        let (around, _stop) = surroundings(&world);
        let run = tokio::time::timeout(std::time::Duration::from_secs(600), flow::run(pipe, around)).await;
        let (records, asked) = (world.records("table"), asked.lock().unwrap().clone());
        assert!(asked[0] < 12 && records.len() > 12, "{asked:?}");
        assert_eq!(records, (1..=records.len() as i64).collect::<Vec<_>>());
        let account = world.lock().meters["table"].account();
        assert!(account.balances(), "{account:?}");
        assert_eq!(run.is_err(), account.buffered > 0, "{run:?} {account:?}");
        assert!(60 - records.len() < 12, "{asked:?}");
    });
}
