//! Transforms that have to be waited for: whatever becomes of whoever does them, each record arrives as promised.
#![allow(clippy::unwrap_used, reason = "a test that cannot set up its world has failed")]

mod support;

use async_trait::async_trait;
use bus_schema::{data::Batch, message::RunState};
use flow::{
    Delivery, Fault, Outcome, Outside, Position, Read, Rejected, Sink, Source, SourceBatch, Stage, Transform,
    Transformed, Trouble,
};
use proptest::prelude::*;
use support::{
    DistantSieve, Numbers, Sieve, Table, World, batch, last_life, leaf, lives, paused, pipe, surroundings, troubled,
    wanted,
};

fn distant(world: &World) -> Stage {
    Stage {
        after: None,
        node: "sieve".into(),
        transform: Box::new(DistantSieve {
            world: world.clone(),
            sieve: Sieve { keeps: 2, fails: 7 },
        }),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(100) })]

    /// Through faults of everybody, crashes and stops: exactly once, and the account is exact.
    #[test]
    fn exactly_once_through_its_faults(seed in any::<u64>()) {
        paused(async move {
            let (world, inputs, mut dice) = troubled(seed, 60);
            let build = || {
                let table = Table::new(&world, "table");
                pipe(Numbers::new(&world), vec![distant(&world)], vec![leaf(&world, "table", Some(0), table)])
            };
            lives(&world, &mut dice, build).await;
            let expected = wanted(&inputs, |n| n % 2 == 0 && n % 7 != 0);
            assert_eq!(world.records("table"), expected, "seed {seed}");
            assert_eq!(world.dead("sieve"), wanted(&inputs, |n| n % 7 == 0), "seed {seed}");
            let account = world.lock().meters["table"].account();
            assert_eq!((account.delivered, account.buffered), (expected.len() as u64, 0), "seed {seed}");
        });
    }
}

/// Gives each number once, whoever asks.
struct Once(i64);

#[async_trait]
impl Source for Once {
    async fn open(&mut self, _: Option<&Position>) -> Result<(), Fault> {
        Ok(())
    }

    async fn read(&mut self) -> Result<Read, Fault> {
        self.0 += 1;
        Ok(match self.0 {
            1..=100 => Read::Batch(SourceBatch {
                batch: batch(&[self.0]),
                position: Position::default(),
                undecodable: Vec::new(),
            }),
            _ => Read::End,
        })
    }
}

#[test]
fn a_source_that_cannot_read_again_loses_nothing_by_them() {
    paused(async {
        let world = World::empty();
        world.lock().faults = 40;
        let table = Table::new(&world, "table");
        let leaves = vec![leaf(&world, "table", Some(0), table)];
        let mut pipe = pipe(Once(0), vec![distant(&world)], leaves);
        pipe.rereads = false;
        last_life(&world, pipe).await;
        let expected: Vec<i64> = (1..=100).filter(|n| n % 2 == 0 && n % 7 != 0).collect();
        assert_eq!(world.records("table"), expected);
        let states = world.lock().states.clone();
        let waited = |(state, cause): &(RunState, String)| {
            *state == RunState::Retrying && cause == "sieve: distant sieve: the dice said so"
        };
        assert!(states.iter().any(waited), "{states:?}");
    });
}

/// Does one batch and never another.
struct Hanging {
    has_worked: bool,
}

impl Transform for Hanging {
    fn apply(&mut self, _: Batch) -> Result<Transformed, Fault> {
        panic!("nobody waited for it")
    }

    fn outside(&mut self) -> Option<&mut dyn Outside> {
        Some(self)
    }
}

#[async_trait]
impl Outside for Hanging {
    async fn apply(&mut self, input: Batch) -> Result<Transformed, Fault> {
        if std::mem::replace(&mut self.has_worked, true) {
            std::future::pending::<()>().await;
        }
        Ok(input.into())
    }

    async fn check(&mut self) -> Result<String, Trouble> {
        panic!("nobody checks here")
    }
}

/// Takes nothing, and never will.
struct Refusing;

#[async_trait]
impl Sink for Refusing {
    async fn open(&mut self) -> Result<(), Fault> {
        Ok(())
    }

    async fn write(&mut self, _: &[Delivery]) -> Result<Vec<Rejected>, Fault> {
        Err(Fault::stop("not here"))
    }

    async fn commit(&mut self) -> Result<(), Fault> {
        Ok(())
    }
}

#[test]
fn a_destination_that_gives_up_ends_the_waiting() {
    paused(async {
        let world = World::empty();
        let hanging = Stage {
            after: None,
            node: "hanging".into(),
            transform: Box::new(Hanging { has_worked: false }),
        };
        let leaves = vec![leaf(&world, "table", Some(0), Refusing)];
        let pipe = pipe(Once(0), vec![hanging], leaves);
        let (around, _stop) = surroundings(&world);
        let outcome = flow::run(pipe, around).await;
        assert_eq!(outcome, Outcome::Failed("table: not here".into()));
    });
}
