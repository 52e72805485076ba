//! Transforms that make records, and that remember: whatever fails, waits or crashes, each result is there once, and the
//! account says how many were made of how many.
#![allow(clippy::unwrap_used, reason = "a test that cannot set up its world has failed")]

mod support;

use proptest::prelude::*;
use support::{
    Buffer, Copies, Few, Numbers, Replaying, Sums, Table, leaf, lives, paused, pipe, stage, troubled, wanted,
};

/// The sums of every so many of the numbers.
fn sums(numbers: &[i64], every: usize) -> Vec<i64> {
    numbers.chunks(every).map(|chunk| chunk.iter().sum()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

    /// One record becomes none or several.
    #[test]
    fn what_is_made_is_counted(seed in any::<u64>()) {
        paused(async move {
            let (world, inputs, mut dice) = troubled(seed, 60);
            world.lock().repeats = true;
            let build = || {
                let table = Table::new(&world, "table").rejecting(11);
                let stages = vec![Copies::stage("copies", None, 5), stage("sieve", Some(0), 2, 7)];
                pipe(Numbers::new(&world), stages, vec![leaf(&world, "table", Some(1), table)])
            };
            lives(&world, &mut dice, build).await;
            let numbers = wanted(&inputs, |_| true);
            let copies: Vec<i64> = numbers.iter().flat_map(|n| Copies::of(*n, 5)).collect();
            let arrives = |n: &i64| n % 2 == 0 && n % 7 != 0 && n % 11 != 0;
            let expected: Vec<i64> = copies.into_iter().filter(arrives).collect();
            assert_eq!(world.records("table"), expected, "seed {seed}");
            let (account, filtered) = {
                let meter = &world.lock().meters["table"];
                (meter.account(), meter.mark().counts.filtered)
            };
            assert!(account.balances(), "seed {seed}: {account:?}");
            assert_eq!(
                (account.produced.saturating_add_signed(filtered), account.delivered, account.buffered),
                (inputs.len() as u64, expected.len() as u64, 0),
                "seed {seed}: {account:?}, {filtered}"
            );
        });
    }

    /// A sum over many batches, some of which come before a crash and some after it, is there once and exact.
    #[test]
    fn what_is_remembered_survives(seed in any::<u64>()) {
        paused(async move {
            let (world, inputs, mut dice) = troubled(seed, 60);
            let every = 2 + (seed % 7) as u8;
            let build = || {
                let table = Table::new(&world, "table");
                let stages = vec![stage("sieve", None, 1, 7), Sums::stage("sums", Some(0), every, 5)];
                pipe(Numbers::new(&world), stages, vec![leaf(&world, "table", Some(1), table)])
            };
            lives(&world, &mut dice, build).await;
            let summed = wanted(&inputs, |n| n % 7 != 0 && n % 5 != 0);
            assert_eq!(world.records("table"), sums(&summed, usize::from(every)), "seed {seed}");
            assert_eq!(world.dead("sums"), wanted(&inputs, |n| n % 7 != 0 && n % 5 == 0), "seed {seed}");
            let (account, filtered) = {
                let meter = &world.lock().meters["table"];
                (meter.account(), meter.mark().counts.filtered)
            };
            assert_eq!(
                (account.produced.saturating_add_signed(filtered), account.buffered),
                (inputs.len() as u64, 0),
                "seed {seed}: {account:?}, {filtered}"
            );
        });
    }

    /// What comes of one read is too much for a batch, at one stage and once more behind it: its pieces are there all or none,
    /// and in their order, also where a crash leaves the first of what was written.
    #[test]
    fn pieces_of_a_read_are_one(seed in any::<u64>()) {
        paused(async move {
            let (world, inputs, mut dice) = troubled(seed, 60);
            world.lock().repeats = true;
            let (few, fewer) = (1 + (seed % 3) as usize, 1 + (seed % 2) as usize);
            let build = || {
                let stages = vec![
                    Few::stage("copies", None, 5, few),
                    Sums::stage("sums", Some(0), 4, 11),
                    Few::stage("copies-of-sums", Some(1), 3, fewer),
                    Sums::stage("all-sums", None, 3, i64::MAX),
                ];
                let leaves = vec![
                    leaf(&world, "all", None, Buffer::new(&world, "all")),
                    leaf(&world, "copies", Some(0), Buffer::new(&world, "copies")),
                    leaf(&world, "sums", Some(2), Buffer::new(&world, "sums")),
                    leaf(&world, "threes", Some(3), Buffer::new(&world, "threes")),
                ];
                pipe(Numbers::new(&world), stages, leaves)
            };
            lives(&world, &mut dice, build).await;
            let all = wanted(&inputs, |_| true);
            let copies: Vec<i64> = all.iter().flat_map(|n| Copies::of(*n, 5)).collect();
            let summed: Vec<i64> = copies.iter().copied().filter(|n| n % 11 != 0).collect();
            let of_sums: Vec<i64> = sums(&summed, 4).iter().flat_map(|n| Copies::of(*n, 3)).collect();
            for (name, expected) in [
                ("all", all.clone()),
                ("copies", copies.clone()),
                ("sums", of_sums),
                ("threes", sums(&all, 3)),
            ] {
                assert_eq!(world.records(name), expected, "seed {seed}, {name}");
                assert_eq!(world.sent(name), expected, "seed {seed}, {name}: everything went out");
            }
            let mut died = world.dead("sums");
            died.sort_unstable();
            let mut expected: Vec<i64> = copies.into_iter().filter(|n| n % 11 == 0).collect();
            expected.sort_unstable();
            assert_eq!(died, expected, "seed {seed}");
            for (name, meter) in &world.lock().meters {
                let account = meter.account();
                assert!(account.balances() && account.buffered == 0, "seed {seed}, {name}: {account:?}");
            }
        });
    }

    /// The same into a table, of which the account is exact: what pieces without a record settle is not lost.
    #[test]
    fn pieces_of_a_read_are_counted(seed in any::<u64>()) {
        paused(async move {
            let (world, inputs, mut dice) = troubled(seed, 60);
            world.lock().repeats = true;
            let (few, fewer) = (1 + (seed % 3) as usize, 1 + (seed % 2) as usize);
            let build = || {
                let table = Table::new(&world, "table").rejecting(13);
                let stages = vec![
                    Few::stage("copies", None, 5, few),
                    Sums::stage("sums", Some(0), 4, 11),
                    Few::stage("copies-of-sums", Some(1), 3, fewer),
                ];
                pipe(Numbers::new(&world), stages, vec![leaf(&world, "table", Some(2), table)])
            };
            lives(&world, &mut dice, build).await;
            let copies: Vec<i64> = wanted(&inputs, |_| true).iter().flat_map(|n| Copies::of(*n, 5)).collect();
            let summed: Vec<i64> = copies.iter().copied().filter(|n| n % 11 != 0).collect();
            let of_sums = sums(&summed, 4).into_iter().flat_map(|n| Copies::of(n, 3));
            let expected: Vec<i64> = of_sums.filter(|n| n % 13 != 0).collect();
            assert_eq!(world.records("table"), expected, "seed {seed}");
            let (account, filtered) = {
                let meter = &world.lock().meters["table"];
                (meter.account(), meter.mark().counts.filtered)
            };
            assert!(account.balances(), "seed {seed}: {account:?}");
            assert_eq!(
                (account.produced.saturating_add_signed(filtered), account.delivered, account.buffered),
                (inputs.len() as u64, expected.len() as u64, 0),
                "seed {seed}: {account:?}, {filtered}"
            );
        });
    }

    /// Spools behind one source that go back to a common mark: the states go back with them.
    #[test]
    fn what_is_remembered_stays_level(seed in any::<u64>()) {
        paused(async move {
            let (world, inputs, mut dice) = troubled(seed, 60);
            world.lock().repeats = true;
            let build = || {
                let stages = vec![
                    Sums::stage("sums", None, 4, i64::MAX),
                    Copies::stage("copies", None, 3),
                    Sums::stage("sums-of-sums", Some(0), 3, i64::MAX),
                ];
                let leaves = vec![
                    leaf(&world, "all", None, Buffer::new(&world, "all")),
                    leaf(&world, "fours", Some(0), Buffer::new(&world, "fours")),
                    leaf(&world, "copies", Some(1), Buffer::new(&world, "copies")),
                    leaf(&world, "twelves", Some(2), Buffer::new(&world, "twelves")),
                ];
                pipe(Numbers::new(&world), stages, leaves)
            };
            lives(&world, &mut dice, build).await;
            let all = wanted(&inputs, |_| true);
            let copies = all.iter().flat_map(|n| Copies::of(*n, 3)).collect();
            for (name, expected) in [
                ("all", all.clone()),
                ("fours", sums(&all, 4)),
                ("copies", copies),
                ("twelves", sums(&sums(&all, 4), 3)),
            ] {
                assert_eq!(world.records(name), expected, "seed {seed}, {name}");
                assert_eq!(world.sent(name), expected, "seed {seed}, {name}: everything went out");
            }
        });
    }

    /// A database that fails over to a copy without its last transactions goes back to the state of that copy.
    #[test]
    fn what_is_remembered_goes_back_with_the_destination(seed in any::<u64>()) {
        paused(async move {
            let (world, inputs, mut dice) = troubled(seed, 40);
            world.lock().repeats = true;
            let forgets = 1 + dice.roll(4) as usize;
            let build = || {
                let table = Table::new(&world, "table").forgetting(forgets);
                let stages = vec![Sums::stage("sums", None, 5, i64::MAX)];
                pipe(Replaying(Numbers::new(&world)), stages, vec![leaf(&world, "table", Some(0), table)])
            };
            lives(&world, &mut dice, build).await;
            assert_eq!(world.records("table"), sums(&wanted(&inputs, |_| true), 5), "seed {seed}");
        });
    }
}
