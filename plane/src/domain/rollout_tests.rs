//! The rules of rollouts, as tables and as stories in which daemons do anything.

use std::cell::RefCell;

use bus_schema::rollout::Amount;
use proptest::prelude::*;

use super::*;
use crate::domain::testing::{node, part};

const SOAK_MS: u64 = 10_000;
const TAKE_MS: u64 = 60_000;

fn policy(waves: &[Amount]) -> RolloutPolicy {
    RolloutPolicy {
        waves: waves.to_vec(),
        soak_s: 10,
        take_s: 60,
        ..RolloutPolicy::default()
    }
}

fn order(daemons: u8, policy: RolloutPolicy) -> Order {
    let nodes: Vec<NodeId> = (1..=daemons).map(node).collect();
    let exchange = Exchange {
        before: Some(part("a", 1)),
        after: Some(part("a", 2)),
    };
    Order {
        id: 1,
        workflow: "a".into(),
        revision: 2,
        before: None,
        by: "anna".into(),
        at_unix_ms: 0,
        waves: waves(Vec::new(), nodes.clone(), &policy),
        policy,
        parts: nodes.into_iter().map(|node| (node, exchange.clone())).collect(),
    }
}

#[test]
fn waves_are_cut() {
    let cut = |first: u8, others: u8, sizes: &[Amount]| -> Vec<usize> {
        let first = (100..100 + first).map(node).collect();
        let others = (0..others).map(node).collect();
        waves(first, others, &policy(sizes)).iter().map(Vec::len).collect()
    };
    use Amount::{Count, Percent};
    for (first, others, sizes, expected) in [
        (0, 10, &[Count(1), Percent(50), Percent(100)][..], vec![1, 4, 5]),
        (0, 10, &[Count(1)], vec![1, 9]),
        (0, 10, &[], vec![10]),
        (0, 1, &[Count(1), Percent(10), Percent(50)], vec![1]),
        (2, 10, &[Count(1), Percent(50)], vec![3, 4, 5]),
        (2, 0, &[Count(1)], vec![2]),
        (0, 4, &[Percent(50), Count(1)], vec![2, 2]),
    ] {
        assert_eq!(cut(first, others, sizes), expected, "{first} {others} {sizes:?}");
    }
}

/// How a daemon does with the new revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Nature {
    /// Well, and at once.
    Good,
    /// It takes so many ms to take a plan.
    Slow(u64),
    /// It says nothing, ever.
    Silent,
    /// The revision fails.
    Bad,
    /// It runs, and after so many ms records die.
    Dies(u64),
    /// It runs, and after so many ms records are dropped.
    Drops(u64),
    /// Records are dropped with either revision.
    Leaks,
    /// It is tried again after errors every so many ms, and runs in between.
    Flaps(u64),
    /// It cannot take the plan.
    Refuses,
    /// It does well, and after so many ms since the beginning it is taken out of the fleet.
    Leaves(u64),
}

#[derive(Debug, Clone)]
struct Thing {
    nature: Nature,
    /// What the plane wants of it, since when.
    wanted: u32,
    since_ms: u64,
    placed: usize,
}

/// Daemons as a rollout sees them, and what it does to them.
struct World {
    order: Order,
    head: Head,
    watch: Watch,
    things: RefCell<BTreeMap<NodeId, Thing>>,
    now_ms: u64,
}

impl Look for World {
    fn health(&self, node: &NodeId) -> Option<Health> {
        let things = self.things.borrow();
        let thing = &things[node];
        if matches!(thing.nature, Nature::Leaves(ms) if self.now_ms >= ms) {
            return None;
        }
        let waited = self.now_ms - thing.since_ms;
        let is_there = thing.nature != Nature::Silent;
        let is_new = thing.wanted == 2;
        let has_taken = match thing.nature {
            Nature::Slow(ms) => waited >= ms,
            Nature::Silent => false,
            Nature::Refuses => !is_new,
            _ => true,
        };
        let state = match thing.nature {
            Nature::Bad if is_new => RunState::Failed,
            Nature::Flaps(every) if is_new && waited % every == 1_000 => RunState::Retrying,
            _ => RunState::Running,
        };
        let revision = if has_taken == is_new { 2 } else { 1 };
        Some(Health {
            is_there,
            silent_ms: (!is_there).then_some(waited),
            has_plan: is_there && has_taken,
            plan_error: match thing.nature {
                Nature::Refuses if is_new => "no".into(),
                _ => String::new(),
            },
            part: Some((revision, state)),
            dead: match thing.nature {
                Nature::Dies(ms) if is_new && waited >= ms => 7,
                _ => 0,
            },
            dropped: match thing.nature {
                Nature::Drops(ms) if is_new && waited >= ms => 3,
                Nature::Leaks => self.now_ms + 1,
                _ => 0,
            },
            ..Health::default()
        })
    }
}

impl World {
    fn new(natures: &[Nature], policy: RolloutPolicy) -> Self {
        let order = order(natures.len() as u8, policy);
        let things = order.parts.keys().copied().collect::<Vec<_>>();
        // Waves are in the order of numbers, ids are not.
        let number = |id: &NodeId| (1..=natures.len() as u8).position(|n| node(n) == *id).unwrap();
        let things = things.into_iter().map(|id| {
            let nature = natures[number(&id)];
            let thing = Thing {
                nature,
                wanted: 1,
                since_ms: 0,
                placed: 0,
            };
            (id, thing)
        });
        Self {
            things: RefCell::new(things.collect()),
            order,
            head: Head::default(),
            watch: Watch::default(),
            now_ms: 0,
        }
    }

    /// Takes what was decided, as the rim does.
    fn take(&mut self, (head, deed): (Head, Option<Deed>)) {
        let waves = match deed {
            Some(Deed::Place(wave)) => Some((wave..wave + 1, 2)),
            Some(Deed::Restore(waves)) => Some((0..waves, 1)),
            None => None,
        };
        if let Some((waves, wanted)) = waves {
            let mut things = self.things.borrow_mut();
            for id in self.order.waves[waves].iter().flatten() {
                let thing = things.get_mut(id).unwrap();
                thing.wanted = wanted;
                thing.since_ms = self.now_ms;
                thing.placed += usize::from(wanted == 2);
            }
        }
        if head.phase != self.head.phase {
            self.watch.begins(self.now_ms);
        }
        self.head = head;
    }

    fn tick(&mut self, ms: u64) {
        self.now_ms += ms;
        let mut watch = self.watch.clone();
        let stepped = step(&self.order, &self.head, &mut watch, self.now_ms, self);
        self.watch = watch;
        if let Some(next) = stepped {
            self.take(next);
        }
    }

    fn restart(&mut self) {
        self.watch = Watch::restore(&self.order, &self.head, self.now_ms, self);
    }

    fn run(&mut self) {
        for _ in 0..10_000 {
            if self.head.phase.is_over() || self.head.phase == Phase::Paused {
                return;
            }
            self.tick(1_000);
        }
        panic!("it never ends: {:?}", self.head);
    }

    fn wanted(&self) -> Vec<u32> {
        let things = self.things.borrow();
        (1..=things.len() as u8).map(|n| things[&node(n)].wanted).collect()
    }
}

#[test]
fn how_rollouts_end() {
    use Nature::{Bad, Dies, Drops, Flaps, Good, Leaks, Refuses, Silent, Slow};
    let three = [Amount::Count(1), Amount::Count(2), Amount::Count(4)];
    let lenient = RolloutPolicy {
        failures_max: Amount::Count(1),
        ..policy(&three)
    };
    let pausing = RolloutPolicy {
        on_failure: OnFailure::Pause,
        ..policy(&three)
    };
    let all = |wanted| vec![wanted; 4];
    for (natures, policy, phase, wanted, cause) in [
        (
            [Good, Good, Good, Good],
            policy(&three),
            Phase::Done,
            all(2),
            "all daemons run it",
        ),
        (
            [Good, Slow(50_000), Good, Good],
            policy(&three),
            Phase::Done,
            all(2),
            "all daemons",
        ),
        (
            [Bad, Good, Good, Good],
            policy(&three),
            Phase::RolledBack,
            all(1),
            "wave 1: 1 of 4 daemons failed, the last: revision 2 failed",
        ),
        (
            [Good, Bad, Good, Good],
            policy(&three),
            Phase::RolledBack,
            all(1),
            "wave 2",
        ),
        (
            [Good, Good, Silent, Good],
            policy(&three),
            Phase::RolledBack,
            all(1),
            "silent for 60 s; 1 daemons have not said so",
        ),
        (
            [Good, Slow(90_000), Good, Good],
            policy(&three),
            Phase::RolledBack,
            all(1),
            "has not",
        ),
        (
            [Good, Refuses, Good, Good],
            policy(&three),
            Phase::RolledBack,
            all(1),
            "the last: no",
        ),
        (
            [Good, Dies(5_000), Good, Good],
            policy(&three),
            Phase::RolledBack,
            all(1),
            "7 records went to the dead letters",
        ),
        (
            [Good, Drops(5_000), Good, Good],
            policy(&three),
            Phase::RolledBack,
            all(1),
            "3 records were dropped",
        ),
        (
            [Good, Leaks, Good, Good],
            policy(&three),
            Phase::Done,
            all(2),
            "all daemons run it",
        ),
        // Half of the time, though it runs when the soak ends; once is nothing.
        (
            [Good, Flaps(2_000), Good, Good],
            policy(&three),
            Phase::RolledBack,
            all(1),
            "it was tried again after errors for 50 % of the time",
        ),
        (
            [Good, Flaps(9_000), Good, Good],
            policy(&three),
            Phase::Done,
            all(2),
            "all daemons run it",
        ),
        // Long after its own wave.
        (
            [Dies(15_000), Good, Good, Good],
            policy(&three),
            Phase::RolledBack,
            all(1),
            "wave 2",
        ),
        (
            [Good, Silent, Good, Good],
            lenient.clone(),
            Phase::Done,
            all(2),
            "all daemons run it but 1",
        ),
        ([Good, Silent, Bad, Good], lenient, Phase::RolledBack, all(1), "2 of 4"),
        (
            [Good, Bad, Good, Good],
            pausing,
            Phase::Paused,
            vec![2, 2, 1, 1],
            "wave 2",
        ),
    ] {
        let mut world = World::new(&natures, policy);
        world.run();
        assert_eq!(
            (world.head.phase, world.wanted()),
            (phase, wanted),
            "{natures:?} {:?}",
            world.head
        );
        if !matches!(natures, [_, Slow(90_000), ..]) {
            assert!(world.head.cause.contains(cause), "{natures:?}: {}", world.head.cause);
        }
    }
}

#[test]
fn people_have_the_last_word() {
    use RolloutCommand::{Abort, Pause, Resume, RollBack};
    let natures = [Nature::Good, Nature::Bad, Nature::Good];
    let pausing = RolloutPolicy {
        on_failure: OnFailure::Pause,
        ..policy(&[Amount::Count(1), Amount::Count(2)])
    };
    let paused = || {
        let mut world = World::new(&natures, pausing.clone());
        world.run();
        assert_eq!(world.head.phase, Phase::Paused);
        world
    };
    let tell = |world: &mut World, command| -> Result<(), String> {
        let next = told(&world.order, &world.head, command, "because")?;
        world.take(next);
        Ok(())
    };
    for (command, phase, wanted) in [
        (Resume, Phase::Done, [2, 2, 2]),
        (Abort, Phase::Aborted, [2, 2, 1]),
        (RollBack, Phase::RolledBack, [1, 1, 1]),
    ] {
        let mut world = paused();
        assert!(tell(&mut world, Pause).is_err());
        tell(&mut world, command).unwrap();
        world.run();
        assert_eq!(
            (world.head.phase, world.wanted()),
            (phase, wanted.to_vec()),
            "{command:?}"
        );
        for command in [Pause, Resume, Abort, RollBack] {
            assert!(tell(&mut world, command).is_err(), "{command:?} after the end");
        }
    }
    // Whoever pauses between two waves finds them so.
    let mut world = World::new(&[Nature::Good; 3], pausing);
    while world.head.wave == 0 {
        world.tick(1_000);
    }
    tell(&mut world, Pause).unwrap();
    world.tick(PAUSED_MS_MAX - 1);
    assert_eq!((world.head.phase, world.wanted()), (Phase::Paused, vec![2, 1, 1]));
    world.tick(1);
    assert_eq!(world.head.phase, Phase::Aborted);
}

#[test]
fn a_wave_that_moves_nothing_has_failed() {
    let order = order(2, policy(&[Amount::Count(2)]));
    struct Rates(RefCell<u64>);
    impl Look for Rates {
        fn health(&self, _: &NodeId) -> Option<Health> {
            Some(Health {
                is_there: true,
                has_plan: true,
                part: Some((2, RunState::Running)),
                rate: *self.0.borrow(),
                ..Health::default()
            })
        }
    }
    for (before, after, phase) in [
        (100, 100, Phase::Done),
        (100, 3, Phase::RollingBack),
        (1, 0, Phase::Done),
    ] {
        let (mut head, mut watch, look) = (Head::default(), Watch::default(), Rates(RefCell::new(before)));
        let mut now = 0;
        for _ in 0..3 {
            if let Some((next, _)) = step(&order, &head, &mut watch, now, &look) {
                watch.begins(now);
                head = next;
            }
            look.0.replace(after);
            now += SOAK_MS + 1;
        }
        assert_eq!(head.phase, phase, "{before} {after}: {}", head.cause);
    }
}

#[test]
fn nobody_waits_for_who_has_left_the_fleet() {
    use Nature::{Bad, Good, Leaves, Silent};
    let waves = [Amount::Count(1), Amount::Count(2), Amount::Count(4)];
    for (natures, phase, cause, ends_by_ms) in [
        ([Leaves(0), Good, Good, Good], Phase::Done, "all daemons run it", 60_000),
        (
            [Leaves(5_000), Good, Good, Good],
            Phase::Done,
            "all daemons run it",
            60_000,
        ),
        (
            [Good, Good, Leaves(20_000), Leaves(25_000)],
            Phase::Done,
            "all daemons run it",
            60_000,
        ),
        // It had the revision, and shall have the one before it, when it leaves: the end does not wait for it.
        (
            [Leaves(20_000), Bad, Good, Good],
            Phase::RolledBack,
            "the last: revision 2 failed: ",
            30_000,
        ),
        (
            [Leaves(0), Silent, Good, Good],
            Phase::RolledBack,
            "; 1 daemons have not said so",
            200_000,
        ),
    ] {
        let mut world = World::new(&natures, policy(&waves));
        world.run();
        assert_eq!(world.head.phase, phase, "{natures:?}: {}", world.head.cause);
        assert!(world.head.cause.contains(cause), "{natures:?}: {}", world.head.cause);
        let is_waiting = world.head.cause.contains("have not said so");
        assert_eq!(is_waiting, natures[1] == Silent, "{natures:?}: {}", world.head.cause);
        assert!(world.now_ms <= ends_by_ms, "{natures:?}: after {} ms", world.now_ms);
    }
}

#[test]
fn how_long_records_wait_is_a_gate() {
    // (limit, how long they waited before and wait now, whether that is too long)
    for (limit, before_s, now_s, fails) in [
        (None, 0, 901, true),
        (None, 0, 900, false),
        (None, 4_000, 4_900, false),
        (None, 4_000, 4_901, true),
        (Some(60), 0, 61, true),
        (Some(60), 30, 80, false),
        (Some(0), 0, 100_000, false),
    ] {
        let mut order = order(1, policy(&[Amount::Count(1)]));
        order.policy.lag_s_max = limit.map_or_else(Default::default, u32::into);
        let health = |seconds: u64| Health {
            is_there: true,
            has_plan: true,
            part: Some((2, RunState::Running)),
            lag_ms: seconds * 1_000,
            ..Health::default()
        };
        let watch = Watch {
            before: [(node(1), health(before_s))].into(),
            ..Watch::default()
        };
        let judged = judge(&order, &watch, &node(1), &health(now_s));
        let cause = format!("its oldest record waits {} s longer than before", now_s - before_s);
        assert_eq!(
            judged,
            if fails { Err(cause) } else { Ok(true) },
            "{limit:?} {before_s} {now_s}"
        );
    }
}

#[test]
fn how_long_it_had_waited_before_anybody_looked_is_not_compared() {
    let order = order(1, policy(&[Amount::Count(1)]));
    let head = Head {
        is_placed: true,
        ..Head::default()
    };
    let waits = |lag_is_older| Health {
        is_there: true,
        has_plan: true,
        part: Some((2, RunState::Running)),
        lag_ms: 1_000,
        lag_is_older,
        ..Health::default()
    };
    let later = Health {
        lag_ms: 10_000_000,
        ..waits(false)
    };
    let with = |before: Health| Watch {
        before: [(node(1), before)].into(),
        ..Watch::default()
    };
    struct One(Health);
    impl Look for One {
        fn health(&self, _: &NodeId) -> Option<Health> {
            Some(self.0.clone())
        }
    }
    for (watch, is_compared) in [
        (with(waits(false).before()), true),
        (with(waits(true).before()), false),
        (Watch::restore(&order, &head, 0, &One(waits(false))), false),
    ] {
        let judged = judge(&order, &watch, &node(1), &later);
        assert_eq!(judged.is_err(), is_compared, "{watch:?}");
    }
}

fn nature() -> impl Strategy<Value = Nature> {
    prop_oneof![
        20 => Just(Nature::Good),
        3 => (0..2 * TAKE_MS).prop_map(Nature::Slow),
        1 => Just(Nature::Silent),
        1 => Just(Nature::Bad),
        1 => (0..4 * SOAK_MS).prop_map(Nature::Dies),
        1 => (0..4 * SOAK_MS).prop_map(Nature::Drops),
        1 => Just(Nature::Leaks),
        1 => (2..12u64).prop_map(|s| Nature::Flaps(s * 1_000)),
        1 => Just(Nature::Refuses),
        1 => (0..4 * TAKE_MS).prop_map(Nature::Leaves),
    ]
}

#[derive(Debug, Clone)]
enum Happens {
    Time(u64),
    Restart,
    Told(RolloutCommand),
}

fn happens() -> impl Strategy<Value = Happens> {
    prop_oneof![
        40 => (100..5_000u64).prop_map(Happens::Time),
        2 => Just(Happens::Restart),
        1 => prop::sample::select(vec![
            RolloutCommand::Pause,
            RolloutCommand::Resume,
            RolloutCommand::Resume,
            RolloutCommand::RollBack,
        ]).prop_map(Happens::Told),
    ]
}

proptest! {
    #[test]
    fn whatever_daemons_and_people_do(
        natures in prop::collection::vec(nature(), 1..25),
        failures in 0..3u32,
        story in prop::collection::vec(happens(), 0..120),
    ) {
        let policy = RolloutPolicy {
            failures_max: Amount::Count(failures),
            ..policy(&[Amount::Count(1), Amount::Percent(25), Amount::Percent(50)])
        };
        let mut world = World::new(&natures, policy);
        let mut deployed = 0;
        let check = |world: &World, deployed: &mut usize| {
            let waves: Vec<Vec<usize>> = world.order.waves.iter().map(|wave| {
                wave.iter().map(|id| world.things.borrow()[id].placed).collect()
            }).collect();
            // A wave is deployed as a whole, once, and after the one before it.
            let count = waves.iter().take_while(|wave| wave.iter().all(|placed| *placed == 1)).count();
            assert!(waves[count..].iter().flatten().all(|placed| *placed == 0), "{waves:?}");
            assert!(count <= *deployed + 1, "two waves at once");
            if count > *deployed && count > 1 {
                // Everybody in the wave before does well, or has failed and is within what may fail.
                let counted = world.head.failed.len() - world.head.forgiven;
                assert!(counted <= failures as usize, "a wave began after {counted} failures");
                for id in &world.order.waves[count - 2] {
                    let has_failed = world.head.failed.iter().any(|(failed, _)| failed == id);
                    let Some(health) = world.health(id) else { continue };
                    // What flaps may do so again by now.
                    let runs = matches!(health.part, Some((2, RunState::Running | RunState::Retrying)));
                    assert!(has_failed || health.has_plan && runs, "{id}");
                }
            }
            *deployed = count;
        };
        for happens in story {
            match happens {
                Happens::Time(ms) => world.tick(ms),
                Happens::Restart => world.restart(),
                Happens::Told(command) => {
                    if let Ok(next) = told(&world.order, &world.head, command, "because") {
                        world.take(next);
                    }
                }
            }
            check(&world, &mut deployed);
        }
        // It ends by itself, also when nobody looks after a pause.
        for _ in 0..10_000 {
            if world.head.phase.is_over() {
                break;
            }
            world.tick(if world.head.phase == Phase::Paused { PAUSED_MS_MAX } else { 1_000 });
            check(&world, &mut deployed);
        }
        prop_assert!(world.head.phase.is_over(), "{:?}", world.head);
        prop_assert!(!world.head.cause.is_empty());
        // Nobody is left between.
        match world.head.phase {
            Phase::Done => prop_assert!(world.wanted().iter().all(|wanted| *wanted == 2)),
            Phase::RolledBack => prop_assert!(world.wanted().iter().all(|wanted| *wanted == 1)),
            _ => {}
        }
    }
}
