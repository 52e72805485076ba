//! Pipes that live several times over the same disks.

use std::time::Duration;

use flow::Outcome;
use tokio::time::{sleep, timeout};

use super::{Dice, Input, World, run_until, surroundings};

const MINUTE: Duration = Duration::from_secs(60);

pub fn paused(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(test);
}

/// A world of this seed in which so many calls fail, what its source has to say, and dice for the rest.
pub fn troubled(seed: u64, faults: u32) -> (World, Vec<Input>, Dice) {
    let mut dice = Dice::new(seed);
    let inputs = inputs(&mut dice);
    let world = World::new(seed, inputs.clone());
    world.lock().faults = faults;
    (world, inputs, dice)
}

/// Runs lives of a pipe over the same disks: each but the last ends at a random point of waiting, or is told to stop.
pub async fn lives(world: &World, dice: &mut Dice, build: impl Fn() -> flow::Pipe) {
    short_lives(world, dice, &build).await;
    last_life(world, build()).await;
}

/// Lives that end at a random point of waiting, or are told to stop.
pub async fn short_lives(world: &World, dice: &mut Dice, build: impl Fn() -> flow::Pipe) {
    for _ in 0..dice.roll(6) {
        let (around, stop) = surroundings(world);
        let polls = if dice.roll(4) == 0 {
            u64::MAX
        } else {
            1 + dice.roll(400)
        };
        let stopping = Duration::from_millis(dice.roll(60_000));
        let stopper = async {
            sleep(stopping).await;
            stop.send_replace(true);
            std::future::pending::<()>().await;
        };
        tokio::select! {
            _ = run_until(build(), around, polls) => {}
            () = stopper => {}
        }
        world.lock().meters.clear();
    }
}

/// A life that ends by itself.
pub async fn last_life(world: &World, pipe: flow::Pipe) {
    let (around, _stop) = surroundings(world);
    let outcome = timeout(MINUTE * 600, flow::run(pipe, around))
        .await
        .expect("it comes to an end");
    assert_eq!(outcome, Outcome::Finished);
}

pub fn inputs(dice: &mut Dice) -> Vec<Input> {
    let count = 1 + dice.roll(120) as i64;
    (1..=count)
        .map(|n| {
            if dice.roll(12) == 0 {
                Input::Garbage
            } else {
                Input::Number(n)
            }
        })
        .collect()
}

pub fn wanted(inputs: &[Input], keep: impl Fn(i64) -> bool) -> Vec<i64> {
    inputs
        .iter()
        .filter_map(|i| if let Input::Number(n) = i { Some(*n) } else { None })
        .filter(|n| keep(*n))
        .collect()
}
