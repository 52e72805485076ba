//! Damage of every kind in every file: opening and reading go on, what is outside the damage survives, the rest is
//! counted.

#![allow(clippy::unwrap_used, reason = "a helper of a test may panic like the test itself")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{LIMITS, Random, append, assert_balanced, copy_tree, fill, frame, mark, open, read_all, segments};
use spool::{Recovery, Spool, WayBack};

const FRAMES: u64 = 60;
const FRAME_BYTES: usize = 7_000;

/// A spool of several segments. `killed`: as a kill leaves it, nothing closed and no seal on the tail.
fn template(home: &Path, killed: bool) -> PathBuf {
    let (dir, copy) = (home.join("source"), home.join(if killed { "killed" } else { "closed" }));
    let mut spool = open(&dir);
    fill(&mut spool, 1..=FRAMES, FRAME_BYTES);
    spool.trim(3).unwrap();
    spool.append(&[], &mark(FRAMES + 1)).unwrap();
    if killed {
        copy_tree(&dir, &copy);
        drop(spool);
    } else {
        spool.close().unwrap();
        copy_tree(&dir, &copy);
    }
    fs::remove_dir_all(&dir).unwrap();
    assert!(segments(&copy).len() >= 5, "{:?}", segments(&copy));
    copy
}

/// Opens, reads, writes on and reopens; gives the seqs that survived.
fn survive(dir: &Path, told: &str) -> Vec<u64> {
    let (mut spool, _) = Spool::open(dir, LIMITS).unwrap_or_else(|error| panic!("{told}: {error}"));
    read_all(&mut spool);
    let (holes, lost) = (spool.holes(), spool.state().lost_records);
    assert_eq!(
        holes.iter().map(|hole| hole.records).sum::<u64>(),
        lost,
        "{told}: {holes:?}"
    );
    // The consumer tells its watermark again.
    spool.trim(3).unwrap();
    let got = read_all(&mut spool);
    for stored in &got {
        assert!(
            stored.bytes == frame(stored.seq, FRAME_BYTES),
            "{told}: seq {} is not what was appended",
            stored.seq
        );
    }
    let seqs: Vec<u64> = got.iter().map(|stored| stored.seq).collect();
    assert!(
        seqs.is_sorted_by(|a, b| a < b) && seqs.iter().all(|seq| (4..=FRAMES).contains(seq)),
        "{told}: {seqs:?}"
    );

    let state = spool.state();
    assert_balanced(&state);
    assert!(state.next_seq > FRAMES, "{told}: a seq would be used twice, {state:?}");
    assert_eq!(state.produced_records, FRAMES, "{told}: {state:?}");
    assert_eq!(state.held_frames, seqs.len() as u64, "{told}: {state:?}");
    assert_eq!(
        state.delivered_records + state.lost_records,
        FRAMES - seqs.len() as u64,
        "{told}: {state:?}"
    );
    for hole in &holes {
        assert!(
            !seqs.iter().any(|seq| (hole.first_seq..=hole.last_seq).contains(seq)),
            "{told}: {hole:?}"
        );
    }

    // It goes on, and finds nothing new to complain of.
    let root_seq = state.mark.map_or(1000, |mark| mark.root_seq.max(1000)) + 1;
    let next = append(&mut spool, root_seq, &[frame(1, 100)], 1);
    assert_eq!(next.start, state.next_seq);
    spool.close().unwrap();
    let (mut spool, recovery) = Spool::open(dir, LIMITS).unwrap();
    assert_eq!(recovery, Recovery::default(), "{told}: second open");
    let again = read_all(&mut spool);
    assert_eq!(again.len(), got.len() + 1, "{told}");
    assert_eq!(spool.state().lost_records, state.lost_records, "{told}");
    // Once everything is delivered, the books still balance.
    spool.trim(next.start).unwrap();
    let end = spool.state();
    assert_balanced(&end);
    assert_eq!(
        (end.held_frames, end.lost_records),
        (0, state.lost_records),
        "{told}: {end:?}"
    );
    seqs
}

#[derive(Debug, Clone, Copy)]
enum Damage {
    FlipBit,
    ZeroBlock,
    JunkBlock,
    Truncate,
    Empty,
    Extend,
    Replace,
    Remove,
    BecomeDirectory,
}

use Damage::*;

const KINDS: [Damage; 9] = [
    FlipBit,
    ZeroBlock,
    JunkBlock,
    Truncate,
    Empty,
    Extend,
    Replace,
    Remove,
    BecomeDirectory,
];

/// Gives the place of the damage.
fn damage(path: &Path, kind: Damage, random: &mut Random) -> u64 {
    let mut bytes = fs::read(path).unwrap();
    let at = random.below(bytes.len() as u64) as usize;
    let end = (at + 3000).min(bytes.len());
    match kind {
        FlipBit if !bytes.is_empty() => bytes[at] ^= 1 << random.below(8),
        ZeroBlock => bytes[at..end].fill(0),
        JunkBlock => bytes[at..end].copy_from_slice(&frame(random.below(99), end - at)),
        Truncate => bytes.truncate(at),
        Empty => bytes.clear(),
        Extend => bytes.extend(frame(5, 5000)),
        Replace => bytes = frame(6, bytes.len()),
        _ => {}
    }
    fs::remove_file(path).unwrap();
    match kind {
        Remove => {}
        BecomeDirectory => fs::create_dir(path).unwrap(),
        _ => fs::write(path, bytes).unwrap(),
    }
    at as u64
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let all = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = all.filter(|path| path.is_file()).collect();
    files.sort();
    files
}

#[test]
fn damage_of_every_kind_in_every_file() {
    let home = tempfile::tempdir().unwrap();
    let mut random = Random(common::seed(0xDA_3A6E));
    for killed in [false, true] {
        let template = template(home.path(), killed);
        let count = segments(&template).len();
        // The oldest segment, one in the middle, the tail; and the spool's own files.
        let mut targets = files(&template);
        for index in [0, count / 2, count - 1] {
            targets.extend(files(&segments(&template)[index]));
        }
        if killed {
            // What a kill changes: the tail has no seal, and the hint counts.
            targets.retain(|path| path.ends_with("db") || path.ends_with("high"));
        }
        for target in targets {
            let name = target.strip_prefix(&template).unwrap();
            let is_db = name.ends_with("db");
            for kind in KINDS {
                for _ in 0..if is_db { 2 } else { 1 } {
                    let dir = home.path().join("damaged");
                    copy_tree(&template, &dir);
                    let at = damage(&dir.join(name), kind, &mut random);
                    let told = format!("{} {kind:?} at {at}, killed: {killed}", name.display());
                    let seqs = survive(&dir, &told);
                    let lost = FRAMES - 3 - seqs.len() as u64;
                    let local = matches!(kind, FlipBit | ZeroBlock | JunkBlock | Extend);
                    if !is_db {
                        assert_eq!(lost, 0, "{told}");
                    } else if local {
                        assert!(lost <= 2, "{told}: {lost} frames lost for a few thousand bytes");
                    }
                    fs::remove_dir_all(&dir).unwrap();
                }
            }
        }
    }
}

#[test]
fn several_segments_damaged_at_once() {
    let home = tempfile::tempdir().unwrap();
    let template = template(home.path(), true);
    for round in 1..=12 {
        let seed = common::seed(7_654_321) * round;
        let mut random = Random(seed);
        let dir = home.path().join("damaged");
        copy_tree(&template, &dir);
        for segment in segments(&dir) {
            if random.below(3) > 0 {
                let kind = KINDS[random.below(KINDS.len() as u64) as usize];
                let files = files(&segment);
                damage(&files[random.below(files.len() as u64) as usize], kind, &mut random);
            }
        }
        survive(&dir, &format!("seed {seed}"));
        fs::remove_dir_all(&dir).unwrap();
    }
}

#[test]
fn whole_segments_missing_and_things_that_do_not_belong() {
    let home = tempfile::tempdir().unwrap();
    let template = template(home.path(), false);
    let firsts: Vec<u64> = segments(&template)
        .iter()
        .map(|path| path.file_name().unwrap().to_str().unwrap().parse().unwrap())
        .collect();
    let count = firsts.len();
    let ends: Vec<u64> = firsts[1..].iter().copied().chain([FRAMES + 1]).collect();
    type Spoil = fn(&Path);
    let spoils: [(&str, Spoil, bool); 8] = [
        ("removed", |path| fs::remove_dir_all(path).unwrap(), true),
        (
            "emptied",
            |path| {
                fs::remove_dir_all(path).unwrap();
                fs::create_dir(path).unwrap()
            },
            true,
        ),
        (
            "a file instead",
            |path| {
                fs::remove_dir_all(path).unwrap();
                fs::write(path, "x").unwrap()
            },
            true,
        ),
        (
            "another database",
            |path| {
                fs::remove_dir_all(path).unwrap();
                fs::create_dir(path).unwrap();
                fs::write(path.join("db"), frame(1, 300_000)).unwrap();
            },
            true,
        ),
        (
            "a stray snapshot",
            |path| fs::write(path.join("snap.0000000000FFFFFF"), "junk").unwrap(),
            false,
        ),
        (
            "half a snapshot",
            |path| fs::write(path.join("snap.FFFFFFFFFFFFFFFF.generating"), "").unwrap(),
            false,
        ),
        (
            "foreign files",
            |path| {
                fs::write(path.join("readme"), "hello").unwrap();
                fs::create_dir(path.join("sub")).unwrap();
                fs::write(path.parent().unwrap().join("0000000000000000000x"), "").unwrap();
                fs::create_dir(path.parent().unwrap().join("7")).unwrap();
            },
            false,
        ),
        (
            "left-overs",
            |path| {
                let spool = path.parent().unwrap();
                fs::create_dir_all(spool.join("dead.1/blobs")).unwrap();
                fs::create_dir(spool.join(format!("new.{}", path.file_name().unwrap().to_str().unwrap()))).unwrap();
                fs::write(path.join("db.kept"), "half a copy").unwrap();
            },
            false,
        ),
    ];
    for (name, spoil, gone) in spoils {
        for index in [0, count / 2, count - 1] {
            let dir = home.path().join("spoiled");
            copy_tree(&template, &dir);
            spoil(&segments(&dir)[index]);
            let told = format!("{name}, segment {index} of {count}");
            let seqs = survive(&dir, &told);
            let outside = (4..=FRAMES).filter(|seq| !gone || !(firsts[index]..ends[index]).contains(seq));
            assert!(seqs.iter().copied().eq(outside), "{told}: {seqs:?}");
            assert!(!dir.join("dead.1").exists(), "{told}");
            fs::remove_dir_all(&dir).unwrap();
        }
    }
}

#[test]
fn damage_that_turns_up_while_reading_is_counted_too() {
    let home = tempfile::tempdir().unwrap();
    let dir = template(home.path(), false);
    let (mut spool, recovery) = Spool::open(&dir, LIMITS).unwrap();
    assert_eq!(recovery, Recovery::default());
    // Closed segments are only looked at when they are read.
    let damaged = &segments(&dir)[2];
    let first: u64 = damaged.file_name().unwrap().to_str().unwrap().parse().unwrap();
    let last: u64 = segments(&dir)[3]
        .file_name()
        .unwrap()
        .to_str()
        .unwrap()
        .parse::<u64>()
        .unwrap()
        - 1;
    fs::write(damaged.join("db"), frame(1, 100_000)).unwrap();
    let seqs: Vec<u64> = read_all(&mut spool).iter().map(|stored| stored.seq).collect();
    assert!(seqs.iter().copied().eq((4..first).chain(last + 1..=FRAMES)), "{seqs:?}");
    let repairs = spool.take_repairs();
    assert_eq!(
        (repairs.len(), repairs[0].first_seq, repairs[0].saved_frames),
        (1, first, 0)
    );
    assert!(repairs[0].quarantined.as_ref().unwrap().exists());
    assert!(spool.take_repairs().is_empty());
    let state = spool.state();
    assert_eq!((state.lost_records, state.quarantined), (last - first + 1, 1));
    let holes = spool.holes();
    assert_eq!((holes.len(), holes[0].first_seq, holes[0].last_seq), (1, first, last));
    // A watermark before, in and behind the hole.
    for (watermark, lost, delivered) in [
        (first - 1, last - first + 1, first - 1),
        (first, last - first + 1, first - 1),
        (last + 1, last - first + 1, first),
    ] {
        spool.trim(watermark).unwrap();
        let state = spool.state();
        assert_balanced(&state);
        assert_eq!(
            (state.lost_records, state.delivered_records),
            (lost, delivered),
            "watermark {watermark}"
        );
    }
}

/// Frames leave from memory, and only then their segment turns out to be damaged: what the consumer confirms of it was
/// delivered, only the rest is lost.
#[test]
fn what_was_sent_before_the_damage_is_not_lost() {
    let home = tempfile::tempdir().unwrap();
    let mut spool = open(&home.path().join("spool"));
    fill(&mut spool, 1..=40, FRAME_BYTES);
    let all = segments(&home.path().join("spool"));
    let first_of = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().parse::<u64>().unwrap();
    let (first, last) = (first_of(&all[1]), first_of(&all[2]) - 1);
    assert!(last > first + 2);
    fs::write(all[1].join("db"), frame(1, 100_000)).unwrap();
    read_all(&mut spool);
    let lost = last - first + 1;
    assert_eq!(spool.state().lost_records, lost);
    // The consumer has the first two of them, and asks for what follows.
    let missing = spool.missing(first + 2, last, None).unwrap();
    assert_eq!((missing.lost_records, missing.exact), (lost - 2, true));
    spool.trim(first + 1).unwrap();
    let state = spool.state();
    assert_balanced(&state);
    assert_eq!((state.delivered_records, state.lost_records), (first + 1, lost - 2));
    assert_eq!(state.first_seq, last + 1);
    // It has all of them after all.
    spool.trim(last).unwrap();
    let state = spool.state();
    assert_balanced(&state);
    assert_eq!((state.delivered_records, state.lost_records), (last, 0));
}

#[test]
fn quarantined_segments_do_not_pile_up() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("spool");
    let mut spool = open(&dir);
    fill(&mut spool, 1..=120, FRAME_BYTES);
    drop(spool);
    for segment in segments(&dir) {
        fs::write(segment.join("db"), "nothing").unwrap();
    }
    let mut spool = open(&dir);
    assert_eq!(read_all(&mut spool).len(), 0);
    let state = spool.state();
    assert!((1..=4).contains(&state.quarantined), "{state:?}");
    assert_eq!((state.lost_records, state.held_records), (120, 0));
}

/// The number of a segment's first frame.
fn first_of(segment: &Path) -> u64 {
    segment.file_name().unwrap().to_str().unwrap().parse().unwrap()
}

#[test]
fn that_the_end_was_lost_is_told_until_something_newer_is_there() {
    let home = tempfile::tempdir().unwrap();
    for by_mark in [false, true] {
        let dir = template(home.path(), true);
        let tail = segments(&dir).pop().unwrap();
        fs::remove_dir_all(&tail).unwrap();
        // A crash before anything is appended must not make anybody forget.
        for time in 1..=3 {
            let (spool, recovery) = Spool::open(&dir, LIMITS).unwrap();
            assert!(recovery.mark_rewound, "open {time}");
            if time == 2 {
                spool.close().unwrap();
            }
        }
        let (mut spool, _) = Spool::open(&dir, LIMITS).unwrap();
        let root_seq = spool.state().mark.unwrap().root_seq + 2;
        if by_mark {
            spool.append(&[], &mark(root_seq)).unwrap();
        } else {
            append(&mut spool, root_seq, &[frame(1, 100)], 1);
        }
        drop(spool);
        let (_, recovery) = Spool::open(&dir, LIMITS).unwrap();
        assert!(!recovery.mark_rewound);
        fs::remove_dir_all(&dir).unwrap();
    }
}

#[test]
fn a_way_back_whose_mark_is_damaged_is_told_before_it_is_gone() {
    let home = tempfile::tempdir().unwrap();
    let template = template(home.path(), false);
    let all = segments(&template);
    let (lost, next) = (first_of(&all[2]), first_of(&all[3]));
    // (back to, confirmed, what it comes to)
    for (root_seq, confirmed, expected) in [
        // The marks are there: in the segment behind, in the one before, and as a copy at the beginning of the next one.
        (next, 3, WayBack::Whole(next)),
        (lost - 1, 3, WayBack::Whole(lost - 1)),
        (next - 1, 3, WayBack::Whole(next - 1)),
        // In the damaged one: only to the end of the one before it, or not even there.
        (next - 2, 3, WayBack::Further(lost - 1)),
        (lost, 3, WayBack::Further(lost - 1)),
        (lost, next, WayBack::Barred),
        (next - 1, next, WayBack::Barred),
    ] {
        let dir = home.path().join("damaged");
        copy_tree(&template, &dir);
        fs::write(segments(&dir)[2].join("db"), frame(1, 100_000)).unwrap();
        let told = format!("to {root_seq}, confirmed {confirmed}");
        let (mut spool, _) = Spool::open(&dir, LIMITS).unwrap();
        spool.trim(confirmed).unwrap();
        assert_eq!(spool.way_back(root_seq).unwrap(), expected, "{told}");
        let found = match (spool.truncate_after(root_seq), expected) {
            (Ok(_), WayBack::Whole(found) | WayBack::Further(found)) => found,
            (Err(_), WayBack::Barred) => FRAMES + 1,
            (other, _) => panic!("{told}: {other:?}"),
        };
        assert_eq!(spool.state().mark.unwrap().root_seq, found, "{told}");
        assert_balanced(&spool.state());
        drop(spool);
        fs::remove_dir_all(&dir).unwrap();
    }
}
