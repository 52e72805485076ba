use bus_schema::plan::{Pipe, SendPolicy, SpoolPolicy, Window};
use proptest::prelude::*;

use super::*;
use crate::domain::testing::{node, part};

#[test]
fn what_came_in_earlier_epochs_counts_and_balances() {
    // The old epoch: 30 settled, 4 dropped. The new one so far: 60 delivered, 1 dead, 2 dropped, 7 wait.
    let producer = report(Side::Producer, 2, 5, ledger([70, 7, 60, 2, 1]));
    let consumer = |delivered| StreamReport {
        settled_earlier: 30,
        dropped_earlier: 4,
        ..report(Side::Consumer, 2, 5, ledger([0, 0, delivered, 6, 3]))
    };
    let account = merge(Some(&producer), Some(&consumer(88)));
    assert!(account.balances);
    assert_eq!(account.ledger, ledger([104, 7, 88, 6, 3]));
    // At rest, in a new epoch too, what is missing is seen.
    assert!(!merge(Some(&producer), Some(&consumer(87))).balances);
    // One that confirmed more than the producer has heard of.
    let ahead = StreamReport {
        watermark: 6,
        ..consumer(90)
    };
    let account = merge(Some(&producer), Some(&ahead));
    assert!(account.balances);
    assert_eq!(account.ledger, ledger([104, 5, 90, 6, 3]));
}

fn stream() -> StreamId {
    StreamId::from_hash(&[1; 32])
}

fn report(side: Side, epoch: u64, watermark: u64, ledger: Ledger) -> StreamReport {
    StreamReport {
        stream: stream(),
        workflow: WorkflowId::of_name("w"),
        edge: "a->b".into(),
        side,
        epoch,
        watermark,
        ledger,
        dead_before: 0,
        settled_earlier: 0,
        dropped_earlier: 0,
        buffered_bytes: 0,
        gaps: 0,
        trouble: String::new(),
    }
}

/// produced, buffered, delivered, dropped, dead
fn ledger([produced, buffered, delivered, dropped, dead]: [u64; 5]) -> Ledger {
    Ledger {
        produced,
        buffered,
        delivered,
        dropped,
        dead,
        ..Ledger::default()
    }
}

#[test]
fn two_words_become_one_account() {
    // (what, (epoch, watermark, ledger) of the producer, of the consumer, account, balances)
    #[allow(clippy::type_complexity, reason = "a table")]
    let cases: &[(
        &str,
        Option<(u64, u64, [u64; 5])>,
        Option<(u64, u64, [u64; 5])>,
        [u64; 5],
        bool,
    )] = &[
        ("nobody has spoken", None, None, [0; 5], false),
        (
            "only the producer",
            Some((1, 2, [10, 6, 4, 0, 0])),
            None,
            [10, 6, 4, 0, 0],
            true,
        ),
        (
            "the producer does not add up",
            Some((1, 2, [10, 5, 4, 0, 0])),
            None,
            [10, 5, 4, 0, 0],
            false,
        ),
        (
            "only the consumer",
            None,
            Some((1, 2, [0, 0, 4, 1, 1])),
            [6, 0, 4, 1, 1],
            false,
        ),
        (
            "at rest",
            Some((1, 9, [10, 0, 9, 0, 1])),
            Some((1, 9, [10, 0, 9, 0, 1])),
            [10, 0, 9, 0, 1],
            true,
        ),
        (
            "at rest, the split is the consumer's",
            Some((1, 9, [10, 0, 10, 0, 0])),
            Some((1, 9, [0, 0, 9, 0, 1])),
            [10, 0, 9, 0, 1],
            true,
        ),
        (
            "at rest, one is missing",
            Some((1, 9, [10, 0, 10, 0, 0])),
            Some((1, 9, [0, 0, 9, 0, 0])),
            [10, 0, 9, 0, 0],
            false,
        ),
        (
            "at rest, one is twice",
            Some((1, 9, [10, 0, 10, 0, 0])),
            Some((1, 9, [0, 0, 11, 0, 0])),
            [10, 0, 11, 0, 0],
            false,
        ),
        (
            "consumer ahead",
            Some((1, 2, [10, 6, 4, 0, 0])),
            Some((1, 4, [0, 0, 7, 0, 1])),
            [10, 2, 7, 0, 1],
            true,
        ),
        (
            "consumer ahead of what was produced",
            Some((1, 2, [10, 6, 4, 0, 0])),
            Some((1, 8, [0, 0, 14, 0, 0])),
            [14, 0, 14, 0, 0],
            true,
        ),
        (
            "consumer ahead, with drops",
            Some((1, 2, [12, 6, 4, 2, 0])),
            Some((1, 4, [0, 0, 6, 0, 0])),
            [12, 4, 6, 2, 0],
            true,
        ),
        (
            "consumer ahead with less",
            Some((1, 2, [10, 6, 4, 0, 0])),
            Some((1, 4, [0, 0, 3, 0, 0])),
            [10, 6, 3, 0, 0],
            false,
        ),
        (
            "producer ahead",
            Some((1, 4, [10, 2, 8, 0, 0])),
            Some((1, 2, [0, 0, 4, 0, 0])),
            [10, 2, 8, 0, 0],
            true,
        ),
        (
            "producer ahead with less",
            Some((1, 4, [10, 2, 8, 0, 0])),
            Some((1, 2, [0, 0, 9, 0, 0])),
            [10, 2, 8, 0, 0],
            false,
        ),
        (
            "the producer lost its spool",
            Some((2, 0, [3, 3, 0, 0, 0])),
            Some((1, 9, [0, 0, 90, 0, 0])),
            [3, 3, 0, 0, 0],
            true,
        ),
        (
            "the producer's word is of before",
            Some((1, 9, [90, 0, 90, 0, 0])),
            Some((2, 1, [0, 0, 2, 0, 0])),
            [2, 0, 2, 0, 0],
            false,
        ),
    ];
    for (what, producer, consumer, expected, balances) in cases {
        let of = |side, word: &Option<(u64, u64, [u64; 5])>| {
            word.map(|(epoch, watermark, numbers)| report(side, epoch, watermark, ledger(numbers)))
        };
        let account = merge(
            of(Side::Producer, producer).as_ref(),
            of(Side::Consumer, consumer).as_ref(),
        );
        assert_eq!(
            (account.ledger, account.balances),
            (ledger(*expected), *balances),
            "{what}"
        );
    }
}

/// What died before the stream is in the account once, whoever speaks last; without it the ends disagree. A dead letter
/// that was delivered after all, of which the producer has not heard yet, has moved and is not missing.
#[test]
fn what_never_left_the_producer_only_it_knows() {
    for (p_mark, p, before, c_mark, c, account, agree) in [
        (5, [5, 0, 2, 0, 3], 3, 5, [2, 0, 2, 0, 0], [5, 0, 2, 0, 3], true),
        (5, [6, 0, 2, 0, 4], 3, 5, [3, 0, 2, 0, 1], [6, 0, 2, 0, 4], true),
        (5, [6, 0, 2, 0, 4], 3, 5, [3, 0, 3, 0, 0], [6, 0, 3, 0, 3], true),
        (5, [9, 4, 2, 0, 3], 3, 8, [4, 0, 3, 0, 1], [9, 2, 3, 0, 4], true),
        (5, [5, 0, 2, 0, 3], 2, 5, [2, 0, 2, 0, 0], [5, 0, 2, 0, 2], false),
    ] {
        let (found, said) = merge_both(p_mark, ledger(p), before, c_mark, ledger(c));
        assert_eq!((found, said), (ledger(account), agree), "{p:?} {c:?}");
    }
}

/// What a transform at the consumer's side left out is among the delivered, as of the consumer's word, and the
/// comparison stays exact: one record that is missing is still found.
#[test]
fn what_the_consumers_side_left_out_is_told() {
    let with = |numbers, filtered| Ledger {
        filtered,
        ..ledger(numbers)
    };
    for (what, p_mark, p, c_mark, c, account, balances) in [
        (
            "at rest",
            5,
            [10, 0, 10, 0, 0],
            5,
            with([0, 0, 9, 0, 1], 6),
            with([10, 0, 9, 0, 1], 6),
            true,
        ),
        (
            "everything",
            5,
            [10, 0, 10, 0, 0],
            5,
            with([0, 0, 10, 0, 0], 10),
            with([10, 0, 10, 0, 0], 10),
            true,
        ),
        (
            "consumer ahead",
            2,
            [10, 6, 4, 0, 0],
            4,
            with([0, 0, 8, 0, 0], 5),
            with([10, 2, 8, 0, 0], 5),
            true,
        ),
        (
            "producer ahead",
            4,
            [10, 2, 8, 0, 0],
            2,
            with([0, 0, 4, 0, 0], 3),
            with([10, 2, 8, 0, 0], 3),
            true,
        ),
        (
            "one is missing",
            5,
            [10, 0, 10, 0, 0],
            5,
            with([0, 0, 9, 0, 0], 6),
            with([10, 0, 9, 0, 0], 6),
            false,
        ),
    ] {
        let account_of = merge(
            Some(&report(Side::Producer, 1, p_mark, ledger(p))),
            Some(&report(Side::Consumer, 1, c_mark, c)),
        );
        assert_eq!((account_of.ledger, account_of.balances), (account, balances), "{what}");
    }
}

#[test]
fn nobody_speaks_for_another() {
    let mut streams = Streams::default();
    let word = |n| vec![report(Side::Producer, 1, n, ledger([n, 0, n, 0, 0]))];
    streams.report(node(1), 1, word(5), |_| true, 0);
    streams.report(node(2), 1, word(9), |_| true, 0);
    assert_eq!(streams.by_id[&stream()].account().ledger.delivered, 5);
    // An older word, overtaken on the way; then a restart, which may go back.
    streams.report(node(1), 1, word(4), |_| true, 1);
    assert_eq!(streams.by_id[&stream()].account().ledger.delivered, 5);
    streams.report(node(1), 2, word(3), |_| true, 2);
    assert_eq!(streams.by_id[&stream()].account().ledger.delivered, 3);
    streams.report(node(1), 1, word(8), |_| true, 3);
    assert_eq!(
        streams.by_id[&stream()].account().ledger.delivered,
        3,
        "from before the restart"
    );
}

#[test]
fn nobody_speaks_of_what_it_does_not_run() {
    let mut streams = Streams::default();
    let of = |name: &str, side| StreamReport {
        workflow: WorkflowId::of_name(name),
        ..report(side, 1, 5, ledger([5, 0, 5, 0, 0]))
    };
    let runs = |names: &'static [&'static str]| {
        move |id: &WorkflowId| names.iter().any(|name| WorkflowId::of_name(name) == *id)
    };
    for name in ["w", "other"] {
        streams.report(node(1), 1, vec![of(name, Side::Direct)], runs(&[]), 0);
    }
    assert_eq!(streams.iter().count(), 0, "no entry, no alert, no room taken");
    streams.report(node(1), 1, vec![of("w", Side::Producer)], runs(&["w"]), 0);
    assert_eq!(streams.by_id[&stream()].ends(), (Some(node(1)), None));
    // Another one says that the stream is another workflow's, or that it is the other end of what it does not run.
    streams.report(node(2), 1, vec![of("other", Side::Consumer)], runs(&["other"]), 0);
    streams.report(node(2), 1, vec![of("w", Side::Consumer)], runs(&["other"]), 0);
    assert_eq!(streams.by_id[&stream()].ends(), (Some(node(1)), None));
    // Its part was taken away: until it is empty it goes on to speak of what it spoke of.
    let later = StreamReport {
        watermark: 6,
        ..of("w", Side::Producer)
    };
    streams.report(node(1), 1, vec![later], runs(&[]), 1);
    assert_eq!(streams.reports_of(&node(1))[0].watermark, 6);
}

/// A part with the stream, which may send at these times.
fn planned(windows: Vec<Window>) -> PlanWorkflow {
    let root = Root::Stream(StreamSpec {
        stream: stream(),
        edge: "a->b".into(),
        producer: node(1),
        consumer: node(2),
        spool: SpoolPolicy::default(),
        send: SendPolicy {
            windows,
            ..SendPolicy::default()
        },
    });
    let steps = Vec::new();
    PlanWorkflow {
        pipes: vec![Pipe { root, steps }],
        ..part("w", 1)
    }
}

#[test]
fn a_plan_knows_better_than_what_was_said_before() {
    let mut streams = Streams::default();
    let claimed = StreamReport {
        workflow: WorkflowId::of_name("other"),
        ..report(Side::Producer, 1, 5, ledger([5, 0, 5, 0, 0]))
    };
    streams.report(node(3), 1, vec![claimed], |_| true, 0);
    streams.plan([&planned(Vec::new())].into_iter());
    let found = &streams.by_id[&stream()];
    assert_eq!((found.workflow(), found.edge()), (&WorkflowId::of_name("w"), "a->b"));
    assert_eq!(
        (found.is_accounted(), found.ends()),
        (false, (Some(node(1)), Some(node(2))))
    );
}

#[test]
fn what_is_not_repeated_is_forgotten() {
    let mut streams = Streams::default();
    streams.report(
        node(1),
        1,
        vec![report(Side::Direct, 1, 5, ledger([5, 0, 5, 0, 0]))],
        |_| true,
        0,
    );
    assert_eq!(streams.by_id[&stream()].ends(), (Some(node(1)), Some(node(1))));
    streams.prune(&node(2), 10 * STALE_MS);
    streams.prune(&node(1), STALE_MS);
    assert_eq!(streams.iter().count(), 1);
    streams.prune(&node(1), STALE_MS + 1);
    assert_eq!(streams.iter().count(), 0);
}

#[test]
fn a_daemon_cannot_fill_the_memory() {
    let mut streams = Streams::default();
    for n in 0..(STREAMS_PER_DAEMON_MAX as u32 + 10) {
        let mut hash = [0; 32];
        hash[..4].copy_from_slice(&n.to_le_bytes());
        let stream = StreamId::from_hash(&hash);
        let one = StreamReport {
            stream,
            trouble: "x".repeat(100_000),
            ..report(Side::Producer, 1, 1, ledger([0; 5]))
        };
        if n.is_multiple_of(512) || n > STREAMS_PER_DAEMON_MAX as u32 {
            streams.report(node(1), 1, vec![one], |_| true, 0);
        } else {
            streams.report(
                node(1),
                1,
                vec![StreamReport {
                    trouble: String::new(),
                    ..one
                }],
                |_| true,
                0,
            );
        }
    }
    assert_eq!(streams.iter().count(), STREAMS_PER_DAEMON_MAX);
    assert!(
        streams
            .iter()
            .all(|(_, stream)| stream.trouble().len() <= bus_schema::limits::TEXT_BYTES_MAX)
    );
}

proptest! {
    /// Two honest ends, whose reports are as old as they like, never give an account that does not balance.
    #[test]
    fn honest_ends_always_balance(
        steps in proptest::collection::vec(
            (0u64..50, 0u64..2, 0u64..4, 0u64..3, any::<bool>(), any::<bool>(), any::<bool>()),
            1..80,
        ),
    ) {
        let mut frames: Vec<u64> = Vec::new();
        let (mut durable, mut acked, mut dead, mut dead_at) = (0usize, 0usize, 0u64, vec![0u64]);
        let (mut producer, mut consumer) = (None, None);
        // What died at the producer, and as of which marks each end has spoken.
        let (mut before, mut told) = (0, (0, 0));
        for (records, stillborn, settle, rejected, ack, tell_p, tell_c) in steps {
            if records > 0 {
                frames.push(records);
            }
            before += stillborn;
            for _ in 0..settle {
                if durable < frames.len() {
                    dead += rejected.min(frames[durable]);
                    durable += 1;
                    dead_at.push(dead);
                }
            }
            if ack {
                acked = durable;
            }
            let sum = |upto: usize| frames[..upto].iter().sum::<u64>();
            if tell_p {
                let (produced, done) = (sum(frames.len()), sum(acked));
                let numbers = [
                    produced + before,
                    produced - done,
                    done - dead_at[acked],
                    0,
                    dead_at[acked] + before,
                ];
                told = (acked, before);
                producer = Some(StreamReport {
                    dead_before: before,
                    ..report(Side::Producer, 1, acked as u64, ledger(numbers))
                });
            }
            if tell_c {
                let numbers = [0, 0, sum(durable) - dead, 0, dead];
                consumer = Some(report(Side::Consumer, 1, durable as u64, ledger(numbers)));
            }
            let account = merge(producer.as_ref(), consumer.as_ref());
            prop_assert_eq!(account.balances, producer.is_some(), "{:?} {:?}", producer, consumer);
            if producer.is_some() {
                prop_assert!(account.ledger.balances());
            }
            if let (Some(_), Some(consumer)) = (&producer, &consumer) && consumer.watermark == told.0 as u64 {
                prop_assert_eq!(account.ledger.dead, dead_at[told.0] + told.1, "exact at rest");
            }
            prop_assert!(account.ledger.delivered <= sum(durable) - dead_at[durable], "never more than is durable");
        }
    }
}

#[test]
fn what_waits_for_its_time_is_not_late() {
    let night = Window {
        from_minute: 22 * 60,
        to_minute: 6 * 60,
    };
    for (windows, late) in [(vec![], (60_000, true)), (vec![night], (0, false))] {
        let mut streams = Streams::default();
        streams.plan([&planned(windows)].into_iter());
        for at_ms in [0, 60_000] {
            let said = report(Side::Producer, 1, 0, ledger([10, 10, 0, 0, 0]));
            streams.report(node(1), 1, vec![said], |_| true, at_ms);
        }
        let stream = streams.of_node(&node(1)).next().unwrap();
        assert_eq!((stream.lateness(60_000), stream.lag_ms(60_000)), (late, Some(60_000)));
    }
}
