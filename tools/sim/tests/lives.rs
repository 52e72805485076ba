//! Ten thousand lives, and that the mistakes which are built in on purpose do not survive them.

use sim::setting::Mistake;

/// Lives that every change has to survive.
const RUNS: u64 = 10_000;
/// Lives within which a mistake must be found.
const FOUND_WITHIN_RUNS: u64 = 8_000;

#[test]
fn nothing_is_lost_and_nothing_doubled_in_ten_thousand_lives() {
    for seed in 1..=RUNS {
        if let Err(broken) = sim::run(seed, None, false) {
            panic!("seed {seed}: {broken}\nto see it: cargo xtask sim --runs 1 --seed {seed} --trace");
        }
    }
}

#[test]
fn mistakes_are_found() {
    let survivors: Vec<&str> = Mistake::ALL
        .iter()
        .filter(|(_, mistake)| (1..=FOUND_WITHIN_RUNS).all(|seed| sim::run(seed, Some(*mistake), false).is_ok()))
        .map(|(name, _)| *name)
        .collect();
    assert!(
        survivors.is_empty(),
        "not found within {FOUND_WITHIN_RUNS} lives: {survivors:?}"
    );
}

#[test]
fn a_seed_is_a_life() {
    let found = (1..=FOUND_WITHIN_RUNS).find_map(|seed| {
        let broken = sim::run(seed, Some(Mistake::AckBeforeCommit), false).err()?;
        Some((seed, broken))
    });
    let (seed, broken) = found.expect("this mistake is found");
    assert_eq!(sim::run(seed, Some(Mistake::AckBeforeCommit), false), Err(broken));
}
