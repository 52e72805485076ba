//! The promises of the API, one by one.

#![allow(clippy::unwrap_used, reason = "a helper of a test may panic like the test itself")]

mod common;

use std::fs;

use common::{LIMITS, append, assert_balanced, bytes_below, fill, frame, mark, open, read_all, segments};
use spool::{Budget, Class, Error, Frame, Full, Group, Limits, Mark, Room, Spool, WayBack};

#[test]
fn frames_come_back_byte_for_byte_in_order_across_reopens() {
    let dir = tempfile::tempdir().unwrap();
    let sizes = [0, 1, 100, 6112, 6113, 6114, 20_000, 64 * 1024, 96 * 1024, 5];
    let mut expected = Vec::new();
    for round in 0..4 {
        let mut spool = open(dir.path());
        let frames: Vec<Vec<u8>> = sizes.iter().map(|len| frame(round * 100 + *len as u64, *len)).collect();
        let seqs = append(&mut spool, round + 1, &frames, 3);
        assert_eq!(seqs, round * 10 + 1..round * 10 + 11);
        expected.extend(frames);
        let got = read_all(&mut spool);
        assert_eq!(
            got.iter().map(|stored| stored.seq).collect::<Vec<_>>(),
            (1..=(round + 1) * 10).collect::<Vec<_>>()
        );
        assert!(got.iter().all(|stored| stored.records == 3));
        assert!(got.iter().map(|stored| &stored.bytes).eq(&expected));
        let state = spool.state();
        assert_eq!(
            (state.produced_records, state.held_records, state.mark),
            ((round + 1) * 30, (round + 1) * 30, Some(mark(round + 1)))
        );
    }
    let (_, recovery) = Spool::open(dir.path(), LIMITS).unwrap();
    assert_eq!(recovery, spool::Recovery::default());
}

#[test]
fn no_value_leaves_the_fsynced_log() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = open(dir.path());
    for root_seq in 1..40 {
        let frames: Vec<_> = (0..4)
            .map(|n| frame(root_seq * 10 + n, 96 * 1024 - n as usize * 31_000))
            .collect();
        append(&mut spool, root_seq, &frames, 1);
        let position = Mark {
            root_seq: root_seq * 1000,
            position: vec![7; spool::POSITION_BYTES_MAX],
        };
        spool.append(&[], &position).unwrap_or_else(|_| panic!("{root_seq}"));
        for segment in segments(dir.path()) {
            assert_eq!(
                fs::read_dir(segment.join("blobs")).unwrap().count(),
                0,
                "sled never fsyncs blobs"
            );
        }
        spool.truncate_after(root_seq).unwrap();
    }
}

#[test]
fn reading_respects_its_limits_but_always_moves_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = open(dir.path());
    fill(&mut spool, 1..=20, 10_000);
    let seqs = |spool: &mut Spool, from, frames, bytes| -> Vec<u64> {
        spool
            .read(from, frames, bytes)
            .unwrap()
            .iter()
            .map(|stored| stored.seq)
            .collect()
    };
    for (from, frames, bytes, expected) in [
        (0, 3, 1_000_000, vec![1, 2, 3]),
        (5, 100, 25_000, vec![5, 6]),
        (5, 100, 20_000, vec![5, 6]),
        (5, 100, 1, vec![5]),
        (5, 0, 1_000, vec![]),
        (19, 100, 1_000_000, vec![19, 20]),
        (21, 100, 1_000_000, vec![]),
        (u64::MAX, 100, 1_000_000, vec![]),
    ] {
        assert_eq!(
            seqs(&mut spool, from, frames, bytes),
            expected,
            "from {from}, {frames} frames, {bytes} bytes"
        );
    }
}

#[test]
fn the_ledger_balances_through_trims_drops_and_reopens() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = open(dir.path());
    for root_seq in 1..=60 {
        append(&mut spool, root_seq, &[frame(root_seq, 7_000)], root_seq);
    }
    let sum = |n: u64| n * (n + 1) / 2;
    let check = |spool: &Spool, delivered: u64, dropped: u64| {
        let state = spool.state();
        assert_balanced(&state);
        assert_eq!(
            (state.produced_records, state.delivered_records, state.dropped_records),
            (sum(60), delivered, dropped)
        );
    };
    spool.trim(5).unwrap();
    spool.trim(3).unwrap();
    check(&spool, sum(5), 0);
    assert_eq!((spool.state().first_seq, spool.state().watermark_seq), (6, 5));

    let dropped = spool.drop_oldest(1, 5).unwrap();
    assert_eq!(dropped.first_seq, 6);
    assert_eq!(dropped.records, sum(dropped.last_seq) - sum(5));
    assert_eq!(dropped.frames, dropped.last_seq - 5);
    check(&spool, sum(5), dropped.records);
    drop(spool);
    let mut spool = open(dir.path());
    check(&spool, sum(5), dropped.records);

    // An earlier life may have sent what is in the first segment and a window more.
    let first = spool.state().first_seq;
    let ends: Vec<u64> = segments(dir.path())[1..]
        .iter()
        .map(|path| path.file_name().unwrap().to_str().unwrap().parse::<u64>().unwrap())
        .filter(|next| *next > first)
        .collect();
    for frames in [1, 3, ends[1] - ends[0], ends[1] - ends[0] + 2] {
        assert_eq!(spool.sent_before(frames), ends[0] + frames - 1, "{frames} on their way");
    }
    assert_eq!(spool.sent_before(u64::MAX), 60);

    // What was dropped is not delivered, even if the watermark passes it.
    spool.trim(40).unwrap();
    let delivered = sum(5) + sum(40) - sum(dropped.last_seq);
    check(&spool, delivered, dropped.records);
    assert_eq!(read_all(&mut spool)[0].seq, 41);
    spool.close().unwrap();
    let mut spool = open(dir.path());
    check(&spool, delivered, dropped.records);

    // Only a tail is left: dropping begins a new one.
    spool.trim(59).unwrap();
    let dropped_last = spool.drop_oldest(u64::MAX, 0).unwrap();
    assert_eq!(
        (dropped_last.first_seq, dropped_last.last_seq, dropped_last.records),
        (60, 60, 60)
    );
    check(&spool, delivered + sum(59) - sum(40), dropped.records + 60);
    let nothing = spool.drop_oldest(u64::MAX, 0).unwrap();
    assert_eq!(nothing, spool::Dropped::default());
    assert_eq!(append(&mut spool, 61, &[frame(1, 10)], 1), 61..62);
}

#[test]
fn rolling_back_to_a_mark() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = open(dir.path());
    fill(&mut spool, 1..=40, 8_000);
    for root_seq in 41..=50 {
        spool.append(&[], &mark(root_seq)).unwrap();
    }
    append(&mut spool, 60, &[frame(1, 10), frame(2, 10)], 1);
    assert!(segments(dir.path()).len() > 3);
    for (root_seq, removed, next_seq, mark_after) in [
        (60, 0, 43, 60),
        (59, 2, 41, 50),
        (45, 0, 41, 45),
        (44, 0, 41, 44),
        (40, 0, 41, 40),
        (12, 28, 13, 12),
    ] {
        assert_eq!(spool.truncate_after(root_seq).unwrap(), removed, "to {root_seq}");
        let check = |spool: &Spool| {
            let state = spool.state();
            assert_eq!(
                (state.next_seq, state.mark.clone()),
                (next_seq, Some(mark(mark_after))),
                "to {root_seq}"
            );
            assert_balanced(&state);
            assert_eq!(state.produced_records, state.held_records);
        };
        check(&spool);
        drop(spool);
        let (reopened, recovery) = Spool::open(dir.path(), LIMITS).unwrap();
        assert_eq!(recovery, spool::Recovery::default(), "to {root_seq}");
        spool = reopened;
        check(&spool);
    }
    // The seqs are used again, for other frames.
    assert_eq!(append(&mut spool, 13, &[frame(777, 9_000)], 1), 13..14);
    drop(spool);
    let mut spool = open(dir.path());
    let all = read_all(&mut spool);
    assert_eq!((all.len(), &all[12].bytes), (13, &frame(777, 9_000)));

    spool.trim(10).unwrap();
    match spool.truncate_after(9) {
        Err(Error::TruncateTooFar { root_seq: 9, .. }) => {}
        other => panic!("what was delivered cannot be rolled back: {other:?}"),
    }
    assert_eq!(spool.truncate_after(10).unwrap(), 3);
    assert_eq!(spool.state().next_seq, 11);
}

#[test]
fn every_mark_of_one_append_can_be_gone_back_to() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = open(dir.path());
    fill(&mut spool, 1..=2, 100);
    // Batches of which nothing is left for this stream, between and behind some that it takes.
    let bytes = frame(1, 10);
    let frames = [Frame {
        bytes: &bytes,
        records: 1,
    }];
    let marks: Vec<_> = (3..=18).map(mark).collect();
    let groups: Vec<_> = marks
        .iter()
        .map(|mark| Group {
            frames: if mark.root_seq == 9 { &frames[..] } else { &[] },
            mark,
        })
        .collect();
    assert_eq!(spool.append_groups(&groups).unwrap(), 3..4);
    drop(spool);
    let mut spool = open(dir.path());
    for (root_seq, next_seq) in [(18, 4), (15, 4), (9, 4), (8, 3), (3, 3), (2, 3)] {
        assert_eq!(spool.way_back(root_seq).unwrap(), WayBack::Whole(root_seq));
        spool.truncate_after(root_seq).unwrap();
        let state = spool.state();
        assert_eq!((state.next_seq, state.mark), (next_seq, Some(mark(root_seq))));
    }
}

#[test]
fn rolling_back_to_before_the_first_mark() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = open(dir.path());
    fill(&mut spool, 5..=30, 8_000);
    assert_eq!(spool.truncate_after(4).unwrap(), 26);
    drop(spool);
    let mut spool = open(dir.path());
    assert_eq!(
        (
            spool.state().next_seq,
            spool.state().mark,
            spool.state().produced_records
        ),
        (1, None, 0)
    );
    assert_eq!(append(&mut spool, 1, &[frame(3, 30)], 1), 1..2);
}

#[test]
fn what_does_not_fit_is_refused_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = open(dir.path());
    fill(&mut spool, 1..=5, 10);
    let before = spool.state();
    let large = vec![0; 96 * 1024 + 1];
    let many = vec![Frame { bytes: &[], records: 1 }; 16 * 1024 + 1];
    let wide = Mark {
        root_seq: 9,
        position: vec![0; spool::POSITION_BYTES_MAX + 1],
    };
    let one = [Frame {
        bytes: &[1],
        records: 1,
    }];
    let oversized = [Frame {
        bytes: &large,
        records: 1,
    }];
    let (fourth, fifth, ninth) = (mark(4), mark(5), mark(9));
    let cases: [(&str, Vec<Group<'_>>); 6] = [
        (
            "frame",
            vec![Group {
                frames: &oversized,
                mark: &ninth,
            }],
        ),
        (
            "group",
            vec![Group {
                frames: &many,
                mark: &ninth,
            }],
        ),
        (
            "position",
            vec![Group {
                frames: &[],
                mark: &wide,
            }],
        ),
        (
            "same root",
            vec![Group {
                frames: &one,
                mark: &fifth,
            }],
        ),
        (
            "lower root",
            vec![Group {
                frames: &[],
                mark: &fourth,
            }],
        ),
        (
            "root in the second group",
            vec![
                Group {
                    frames: &one,
                    mark: &ninth,
                },
                Group {
                    frames: &one,
                    mark: &ninth,
                },
            ],
        ),
    ];
    for (name, groups) in cases {
        let error = spool.append_groups(&groups).expect_err(name);
        assert!(
            matches!(error, Error::TooLarge { .. } | Error::MarkOrder { .. }),
            "{name}: {error}"
        );
        assert_eq!(spool.state(), before, "{name}");
    }
    assert!(matches!(
        spool.trim(6),
        Err(Error::WatermarkAhead {
            watermark: 6,
            last_seq: 5
        })
    ));
    assert_eq!(spool.append_groups(&[]).unwrap(), 6..6);

    for (limits, name) in [
        (
            Limits {
                quota_bytes: 16 * 1024 * 1024 - 1,
                ..LIMITS
            },
            "quota_bytes",
        ),
        (
            Limits {
                segment_bytes: 1000,
                ..LIMITS
            },
            "segment_bytes",
        ),
        (
            Limits {
                segment_bytes: 17 * 1024 * 1024,
                ..LIMITS
            },
            "segment_bytes",
        ),
    ] {
        match Spool::open(&dir.path().join("other"), limits) {
            Err(Error::Limits { name: got, .. }) => assert_eq!(got, name),
            other => panic!("{limits:?}: {other:?}"),
        }
    }
}

#[test]
fn two_processes_do_not_share_a_spool() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    assert!(matches!(Spool::open(dir.path(), LIMITS), Err(Error::Locked { .. })));
    drop(spool);
    open(dir.path());
}

#[test]
fn several_groups_in_one_call() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = open(dir.path());
    let bytes: Vec<Vec<u8>> = (0..50).map(|tag| frame(tag, 9_000)).collect();
    let frames: Vec<Frame<'_>> = bytes.iter().map(|bytes| Frame { bytes, records: 2 }).collect();
    let marks: Vec<Mark> = (1..=30).map(mark).collect();
    // Every third group only moves the mark.
    let mut groups = Vec::new();
    let mut at = 0;
    for (index, mark) in marks.iter().enumerate() {
        let count = if index % 3 == 2 { 0 } else { 2 };
        groups.push(Group {
            frames: &frames[at..at + count],
            mark,
        });
        at += count;
    }
    assert_eq!(spool.append_groups(&groups).unwrap(), 1..41);
    assert_eq!(spool.state().mark, Some(mark(30)));
    drop(spool);
    let mut spool = open(dir.path());
    assert_eq!(spool.state().mark, Some(mark(30)));
    assert!(read_all(&mut spool).iter().map(|stored| &stored.bytes).eq(&bytes[..40]));
    assert_eq!(spool.truncate_after(11).unwrap(), 24);
}

#[test]
fn the_quota_holds_and_marks_still_move_when_it_is_full() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits {
        quota_bytes: 24 * 1024 * 1024,
        segment_bytes: 512 * 1024,
    };
    let (mut spool, _) = Spool::open(dir.path(), limits).unwrap();
    let mut root_seq = 0;
    for (round, len) in [(0, 60_000), (1, 900), (2, 96 * 1024)] {
        loop {
            root_seq += 1;
            let bytes = frame(root_seq, len);
            let frames = vec![
                Frame {
                    bytes: &bytes,
                    records: 1
                };
                30
            ];
            let before = spool.state();
            match spool.append(&frames, &mark(root_seq)) {
                Ok(_) => assert!(bytes_below(dir.path()) <= limits.quota_bytes),
                Err(Error::Full {
                    needed_bytes,
                    limit: Full::Spool { quota_bytes, .. },
                    ..
                }) => {
                    assert!(needed_bytes > 0 && quota_bytes == limits.quota_bytes);
                    assert_eq!(spool.state(), before, "nothing was written");
                    break;
                }
                Err(other) => panic!("{other}"),
            }
        }
        for _ in 0..2000 {
            root_seq += 1;
            spool.append(&[], &mark(root_seq)).unwrap();
        }
        let state = spool.state();
        assert!(bytes_below(dir.path()) <= limits.quota_bytes, "round {round}");
        assert!(
            state.held_payload_bytes * 10 > limits.quota_bytes * 2,
            "the quota is used: {state:?}"
        );
        assert!(
            state.disk_bytes.abs_diff(bytes_below(dir.path())) < 200_000,
            "{state:?}"
        );
        assert_balanced(&state);
        // Both ways of making room work.
        if round == 0 {
            let dropped = spool.drop_oldest(4 * 1024 * 1024, 0).unwrap();
            assert!(dropped.bytes >= 4 * 1024 * 1024 && dropped.frames > 0);
        } else {
            spool.trim(state.next_seq - 1).unwrap();
        }
        assert_balanced(&spool.state());
    }
}

#[test]
fn spools_that_share_a_budget() {
    let home = tempfile::tempdir().unwrap();
    let room = Room {
        quota_bytes: 20 * 1024 * 1024,
        keep_free_bytes: Some(0),
    };
    let budget = Budget::new(room);
    let open = |name: &str, class| {
        Spool::open_within(&home.path().join(name), LIMITS, budget.share(class))
            .unwrap()
            .0
    };
    let on_disk = || bytes_below(home.path());
    let mut next = 0;
    let mut fill_up = |spool: &mut Spool| -> String {
        loop {
            next += 1;
            let bytes = frame(next, 30_000);
            let frames = [Frame {
                bytes: &bytes,
                records: 1,
            }];
            match spool.append(&frames, &mark(next)) {
                Ok(_) => {}
                Err(error @ Error::Full { .. }) => return error.to_string(),
                Err(other) => panic!("{other}"),
            }
        }
    };
    let mut bulk = open("bulk", Class::Bulk);
    let told = fill_up(&mut bulk);
    assert!(told.contains("bulk streams may fill 12582912 of 20971520"), "{told}");
    assert!(on_disk() < 12_700_000, "{}", on_disk());
    let mut normal = open("normal", Class::Normal);
    let told = fill_up(&mut normal);
    assert!(told.contains("normal streams may fill"), "{told}");
    let mut critical = open("critical", Class::Critical);
    let told = fill_up(&mut critical);
    assert!(told.contains("`quota` under [spool]"), "{told}");
    assert!(on_disk() < room.quota_bytes + 200_000, "{}", on_disk());
    assert!(
        budget.used_bytes().abs_diff(on_disk()) < 400_000,
        "{} counted, {} there",
        budget.used_bytes(),
        on_disk()
    );
    // Marks still move, and what one gives back others may have.
    next_mark(&mut bulk, 1_000_000);
    let last = normal.state().next_seq - 1;
    normal.trim(last).unwrap();
    next_mark(&mut normal, 1_000_000);
    let held = critical.state().held_frames;
    fill_up_from(&mut critical, 2_000_000);
    assert!(critical.state().held_frames > held + 50);
    // More is allowed while it runs; and then the disk's free bytes decide.
    budget.set(Room {
        quota_bytes: u64::MAX,
        keep_free_bytes: Some(u64::MAX),
    });
    let error = critical
        .append(
            &[Frame {
                bytes: b"x",
                records: 1,
            }],
            &mark(9_000_000),
        )
        .unwrap_err();
    assert!(error.to_string().contains("free on the file system"), "{error}");
    drop((bulk, normal, critical));
    assert_eq!(budget.used_bytes(), 0);
}

fn next_mark(spool: &mut Spool, root_seq: u64) {
    spool.append(&[], &mark(root_seq)).unwrap();
}

/// Appends until there is no room, with root seqs from `root_seq` on.
fn fill_up_from(spool: &mut Spool, mut root_seq: u64) {
    let bytes = frame(root_seq, 30_000);
    let frames = [Frame {
        bytes: &bytes,
        records: 1,
    }];
    while spool.append(&frames, &mark(root_seq)).is_ok() {
        root_seq += 1;
    }
}

#[test]
fn draining_gives_the_disk_back() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits {
        quota_bytes: 512 * 1024 * 1024,
        segment_bytes: 2 * 1024 * 1024,
    };
    let (mut spool, _) = Spool::open(dir.path(), limits).unwrap();
    let bytes = frame(1, 64 * 1024);
    let frames = vec![
        Frame {
            bytes: &bytes,
            records: 64
        };
        8
    ];
    for root_seq in 1..=100 {
        spool.append(&frames, &mark(root_seq)).unwrap();
    }
    assert!(bytes_below(dir.path()) > 100_000_000);
    let mut from = 1;
    loop {
        let read = spool.read(from, 64, 1024 * 1024).unwrap();
        let Some(last) = read.last() else { break };
        assert!(read.iter().all(|stored| stored.bytes == bytes));
        from = last.seq + 1;
        spool.trim(last.seq).unwrap();
    }
    assert_eq!((from, spool.state().held_payload_bytes), (801, 0));
    assert!(bytes_below(dir.path()) < 8_000_000, "{}", bytes_below(dir.path()));
}

#[test]
fn many_marks_without_frames_do_not_grow_the_spool() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = open(dir.path());
    for root_seq in 1..=5000 {
        spool
            .append(
                &[],
                &Mark {
                    root_seq,
                    position: vec![3; 700],
                },
            )
            .unwrap();
    }
    assert!(bytes_below(dir.path()) < 6_000_000, "{}", bytes_below(dir.path()));
    drop(spool);
    assert_eq!(open(dir.path()).state().mark.unwrap().root_seq, 5000);
}

#[test]
fn going_on_above_what_the_consumer_has() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = open(dir.path());
    fill(&mut spool, 1..=5, 100);
    assert!(matches!(spool.trim(900), Err(Error::WatermarkAhead { .. })));
    spool.advance_to(901).unwrap();
    spool.trim(900).unwrap();
    assert_eq!(append(&mut spool, 6, &[frame(6, 100)], 1), 901..902);
    drop(spool);
    let (mut spool, recovery) = Spool::open(dir.path(), LIMITS).unwrap();
    assert_eq!(recovery, spool::Recovery::default());
    assert_eq!(
        read_all(&mut spool).iter().map(|stored| stored.seq).collect::<Vec<_>>(),
        [901]
    );
    assert_balanced(&spool.state());
    assert!(spool.holes().is_empty());
}

#[test]
fn checking_a_stopped_spool_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = open(dir.path());
    fill(&mut spool, 1..=30, 8_000);
    spool.close().unwrap();
    fs::write(dir.path().join("notes.txt"), "mine").unwrap();
    let before = bytes_below(dir.path());
    let report = spool::check(dir.path()).unwrap();
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(report.segments.iter().map(|segment| segment.frames).sum::<u64>(), 30);
    assert_eq!(
        report.segments.iter().map(|segment| segment.payload_bytes).sum::<u64>(),
        240_000
    );
    assert_eq!(report.segments.last().unwrap().root_seq, Some(30));
    assert!(report.segments.iter().all(|segment| segment.sealed == Some(true)));
    assert_eq!(report.foreign, [dir.path().join("notes.txt")]);
    assert_eq!(bytes_below(dir.path()), before);

    fs::remove_dir_all(&segments(dir.path())[1]).unwrap();
    let report = spool::check(dir.path()).unwrap();
    assert!(!report.is_clean());
    assert_eq!(report.holes.len(), 1);
    assert!(spool::check(&dir.path().join("missing")).is_err());
}
