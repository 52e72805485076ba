//! Dead letters that are tried again, in a world of faults: each arrives once, wherever it was missing and nowhere else.
#![allow(clippy::unwrap_used, reason = "a test that cannot set up its world has failed")]

mod support;

use std::time::Duration;

use flow::{LetterPoint, Pipe};
use proptest::prelude::*;
use support::{
    Buffer, Dice, Input, Numbers, Table, World, last_life, leaf, paused, pipe, run_until, short_lives, stage,
    surroundings, troubled, wanted,
};
use tokio::time::sleep;

/// How often somebody wishes for something in a life.
const WISHES: u64 = 6;

/// Wishes for letters at any time, now and then for all of them, and at some time mends what rejected them.
async fn wish(world: &World) {
    loop {
        let wait = world.roll(20_000);
        sleep(Duration::from_millis(wait)).await;
        let (all, luck) = (world.roll(3) == 0, world.roll(5));
        let mut state = world.lock();
        state.mended |= luck == 0;
        state.letters.queue(|id| all || id % 5 == luck);
    }
}

/// Short lives full of wishes, then lives with everything mended until no letter is left that counts.
async fn lives(world: &World, dice: &mut Dice, build: impl Fn() -> Pipe) {
    for _ in 0..dice.roll(WISHES) {
        tokio::select! {
            () = short_lives(world, dice, &build) => {}
            () = wish(world) => {}
        }
        let luck = world.roll(3);
        world.lock().mended |= luck == 0;
    }
    world.lock().mended = true;
    world.lock().letters.refused.clear();
    for life in 0.. {
        assert!(life < 20, "letters are left: {:?}", world.lock().letters.kept);
        world.lock().letters.queue(|_| true);
        world.lock().meters.clear();
        last_life(world, build()).await;
        if world.lock().letters.kept.values().all(|kept| kept.doubtful) {
            break;
        }
    }
    assert_eq!(world.lock().letters.refused, [].into());
}

/// What has to be there in the end: every number, and the garbage that could be read after all.
fn everything(inputs: &[Input], keep: impl Fn(i64) -> bool) -> Vec<i64> {
    let garbage = inputs.iter().filter(|input| **input == Input::Garbage && keep(-1));
    let mut all: Vec<i64> = garbage.map(|_| -1).collect();
    all.extend(wanted(inputs, keep));
    all
}

fn sorted(mut records: Vec<i64>) -> Vec<i64> {
    records.sort_unstable();
    records
}

/// A transform that fails until it is mended; mending it takes a new life.
fn fussy(world: &World, node: &str, after: Option<usize>, keeps: i64, fails: i64) -> flow::Stage {
    let fails = if world.lock().mended { i64::MAX } else { fails };
    stage(node, after, keeps, fails)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    /// From every stage into a destination that keeps its watermark: once each, and the account is exact.
    #[test]
    fn a_letter_that_is_tried_again_arrives_once(seed in any::<u64>()) {
        paused(async move {
            let (world, inputs, mut dice) = troubled(seed, 60);
            let build = || {
                let table = Table::new(&world, "table").rejecting(11);
                let stages = vec![fussy(&world, "sieve", None, 1, 7)];
                pipe(Numbers::new(&world), stages, vec![leaf(&world, "table", Some(0), table)])
            };
            lives(&world, &mut dice, build).await;
            assert_eq!(sorted(world.records("table")), everything(&inputs, |_| true), "seed {seed}");
            let account = world.lock().meters["table"].account();
            let all = inputs.len() as u64;
            assert_eq!(
                (account.produced, account.delivered, account.dead, account.buffered),
                (all, all, 0, 0),
                "seed {seed}"
            );
        });
    }

    /// Into spools behind one source: a letter of a transform goes to the leaves behind it, one of a leaf to that leaf.
    #[test]
    fn a_letter_goes_only_where_it_is_missing(seed in any::<u64>()) {
        paused(async move {
            let (world, inputs, mut dice) = troubled(seed, 60);
            let build = || {
                let stages = vec![
                    fussy(&world, "first", None, 1, 7),
                    fussy(&world, "second", Some(0), 2, 6),
                    stage("nothing", Some(0), i64::MAX, i64::MAX),
                ];
                let leaves = vec![
                    leaf(&world, "raw", None, Buffer::new(&world, "raw").rejecting(5)),
                    leaf(&world, "one", Some(0), Buffer::new(&world, "one").rejecting(13)),
                    leaf(&world, "two", Some(1), Buffer::new(&world, "two").rejecting(8)),
                    leaf(&world, "none", Some(2), Buffer::new(&world, "none")),
                ];
                pipe(Numbers::new(&world), stages, leaves)
            };
            lives(&world, &mut dice, build).await;
            for (name, keep) in [
                ("raw", (|_| true) as fn(i64) -> bool),
                ("one", |_| true),
                ("two", |n| n % 2 == 0),
                ("none", |_| false),
            ] {
                assert_eq!(sorted(world.records(name)), everything(&inputs, keep), "seed {seed}, {name}");
                assert_eq!(world.sent(name), world.records(name), "seed {seed}: everything went out");
                let account = world.lock().meters[name].account();
                let all = everything(&inputs, keep).len() as u64;
                assert!(account.balances(), "seed {seed}, {name}: {account:?}");
                assert_eq!((account.delivered, account.buffered), (all, 0), "seed {seed}, {name}: {account:?}");
            }
        });
    }

    /// Into a destination that can only append: nothing is missing.
    #[test]
    fn a_letter_arrives_at_least_once_where_it_cannot_be_known(seed in any::<u64>()) {
        paused(async move {
            let (world, inputs, mut dice) = troubled(seed, 40);
            let build = || {
                let table = Table::new(&world, "file").append_only().rejecting(11);
                pipe(Numbers::new(&world), vec![], vec![leaf(&world, "file", None, table)])
            };
            lives(&world, &mut dice, build).await;
            let mut records = sorted(world.records("file"));
            records.dedup();
            let mut expected = everything(&inputs, |_| true);
            expected.dedup();
            assert_eq!(records, expected, "seed {seed}");
        });
    }
}

/// One that dies again is a new letter, which remembers; one whose place is gone stays, with the reason.
#[tokio::test(start_paused = true)]
async fn a_letter_may_die_again() {
    let world = World::new(
        1,
        vec![Input::Number(11), Input::Number(7), Input::Garbage, Input::Number(1)],
    );
    let build = |node: &str| {
        let table = Table::new(&world, "table").rejecting(11);
        let stages = vec![stage(node, None, 1, 7)];
        pipe(
            Numbers::new(&world),
            stages,
            vec![leaf(&world, "table", Some(0), table)],
        )
    };
    last_life(&world, build("sieve")).await;
    for round in 1..=3 {
        world.lock().letters.queue(|_| true);
        last_life(&world, build("sieve")).await;
        let state = world.lock();
        let found: Vec<_> = state
            .letters
            .kept
            .values()
            .map(|k| (k.letter.point, k.letter.replays))
            .collect();
        assert_eq!(found.len(), 3, "{found:?}");
        for (point, replays) in [
            (LetterPoint::Transform, round),
            (LetterPoint::Destination, round),
            (LetterPoint::Source, 0),
        ] {
            assert!(found.contains(&(point, replays)), "{found:?}");
        }
        let account = state.meters["table"].account();
        assert_eq!((account.produced, account.delivered, account.dead), (4, 1, 3));
    }
    world.lock().letters.queue(|_| true);
    last_life(&world, build("another")).await;
    let refused: Vec<String> = world.lock().letters.refused.values().cloned().collect();
    assert_eq!(refused.len(), 2, "{refused:?}");
    assert!(refused.iter().any(|reason| reason.contains("'sieve'")), "{refused:?}");
    assert!(refused.iter().any(|reason| reason == "still garbage"), "{refused:?}");
    assert_eq!(world.records("table"), [1]);
}

/// Letters do not wait for a source that has nothing to say, nor for one that is away.
#[tokio::test(start_paused = true)]
async fn a_letter_needs_no_source() {
    let world = World::new(1, vec![Input::Number(11)]);
    let build = |ends| {
        let mut source = Numbers::new(&world);
        source.ends = ends;
        let table = Table::new(&world, "table").rejecting(11);
        pipe(source, vec![], vec![leaf(&world, "table", None, table)])
    };
    last_life(&world, build(true)).await;
    world.lock().mended = true;
    world.lock().away = true;
    world.lock().letters.queue(|_| true);
    let (around, _stop) = surroundings(&world);
    let run = run_until(build(false), around, u64::MAX);
    let _ = tokio::time::timeout(Duration::from_secs(60), run).await;
    assert_eq!((world.records("table"), world.lock().letters.kept.len()), (vec![11], 0));
}
