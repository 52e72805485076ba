//! A process that is killed at any moment, a power cut, and a disk without room: what was acknowledged is there.

#![allow(clippy::unwrap_used, reason = "a helper of a test may panic like the test itself")]

mod common;

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use common::{LIMITS, Random, append, assert_balanced, copy_tree, fill, frame, mark, open, read_all, segments};
use spool::{Error, Frame, Group, Limits, Mark, Recovery, Spool};

const CHILD_DIR: &str = "SPOOL_TEST_CHILD_DIR";

/// The frames of the group with this root seq: both processes know them.
fn group(root_seq: u64) -> Vec<Vec<u8>> {
    let mut random = Random(root_seq.wrapping_mul(0x51_7CC1_B727_2202) | 1);
    (0..random.below(4))
        .map(|n| {
            let len = if random.below(4) == 0 {
                random.below(90_000)
            } else {
                random.below(2_000)
            };
            frame(root_seq * 10 + n, len as usize)
        })
        .collect()
}

/// Runs one `#[ignore]`d test of this program as a process of its own.
fn child(test: &str, dir: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", test, "--ignored", "--nocapture", "--test-threads=1"])
        .env(CHILD_DIR, dir);
    command
}

#[test]
#[ignore = "the process that is killed; run by `nothing_acknowledged_is_lost_by_a_kill`"]
fn appending_child() {
    let Some(dir) = std::env::var_os(CHILD_DIR) else { return };
    let mut spool = open(Path::new(&dir));
    let mut random = Random(u64::from(std::process::id()) * 7919 + 1);
    let mut root_seq = spool.state().mark.map_or(0, |mark| mark.root_seq);
    loop {
        let count = 1 + random.below(3);
        let bytes: Vec<_> = (1..=count).map(|n| group(root_seq + n)).collect();
        let frames: Vec<Vec<Frame<'_>>> = bytes
            .iter()
            .map(|group| group.iter().map(|bytes| Frame { bytes, records: 2 }).collect())
            .collect();
        let marks: Vec<Mark> = (1..=count).map(|n| mark(root_seq + n)).collect();
        let groups: Vec<Group<'_>> = frames
            .iter()
            .zip(&marks)
            .map(|(frames, mark)| Group { frames, mark })
            .collect();
        let next_seq = spool.append_groups(&groups).unwrap().end;
        root_seq += count;
        println!("ack {root_seq} {next_seq}");
        if random.below(20) == 0 {
            let state = spool.state();
            let watermark = state.first_seq - 1 + random.below(state.next_seq - state.first_seq + 1);
            println!("trim {watermark}");
            spool.read(watermark.saturating_sub(5), 10, 100_000).unwrap();
            spool.trim(watermark).unwrap();
        }
    }
}

/// Lets the child work for a while, kills it, and notes the last root seq, next seq and watermark it told. On a busy machine
/// it may have told nothing yet.
fn run_and_kill(mut process: Child, after: Duration, told: &mut (u64, u64, u64)) {
    let output = BufReader::new(process.stdout.take().unwrap());
    let killer = std::thread::spawn(move || {
        std::thread::sleep(after);
        process.kill().unwrap();
        process.wait().unwrap();
    });
    for line in output.lines().map_while(Result::ok) {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["ack", root_seq, next_seq] => (told.0, told.1) = (root_seq.parse().unwrap(), next_seq.parse().unwrap()),
            ["trim", watermark] => told.2 = watermark.parse().unwrap(),
            _ => {}
        }
    }
    killer.join().unwrap();
}

#[test]
fn nothing_acknowledged_is_lost_by_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let mut random = Random(common::seed(0x5EED));
    let (mut cut, mut beyond) = (0, 0);
    let mut told = (0, 0, 0);
    for round in 0..10 {
        let process = child("appending_child", dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let after = Duration::from_millis(150 + random.below(900));
        run_and_kill(process, after, &mut told);
        let (root_seq, next_seq, watermark) = told;

        let (mut spool, recovery) = Spool::open(dir.path(), LIMITS).unwrap();
        let recovery_expected = Recovery {
            cut_frames: recovery.cut_frames,
            ..Recovery::default()
        };
        assert_eq!(recovery, recovery_expected, "round {round}");
        cut += recovery.cut_frames;
        let state = spool.state();
        assert_balanced(&state);
        let stored_root = state.mark.as_ref().map_or(0, |mark| mark.root_seq);
        assert!(
            stored_root >= root_seq && state.next_seq >= next_seq,
            "round {round}: {state:?}"
        );
        assert!(state.watermark_seq <= watermark.max(state.watermark_seq));
        assert_eq!(state.mark, (stored_root > 0).then(|| mark(stored_root)));
        beyond += stored_root - root_seq;

        // Whole groups, in order, nothing else.
        let expected: Vec<Vec<u8>> = (1..=stored_root).flat_map(group).collect();
        assert_eq!(state.next_seq, expected.len() as u64 + 1);
        assert_eq!(state.produced_records, 2 * expected.len() as u64);
        let held = read_all(&mut spool);
        assert!(held.iter().map(|stored| stored.seq).eq(state.first_seq..state.next_seq));
        for stored in &held {
            assert!(
                stored.bytes == expected[stored.seq as usize - 1],
                "round {round}, seq {}",
                stored.seq
            );
        }
        if watermark > 0 {
            spool.trim(watermark).unwrap();
        }
        assert_balanced(&spool.state());
    }
    assert!(told.0 > 0, "nothing was ever acknowledged");
    println!("frames of interrupted appends cut: {cut}; groups durable but not yet acknowledged: {beyond}");
}

/// Puts a random mix of the old and the new blocks of a file in its place, and maybe cuts what was added to it.
fn mix_blocks(path: &Path, old: &[u8], random: &mut Random) {
    const BLOCK: usize = 4096;
    let new = fs::read(path).unwrap();
    let file = fs::File::options().write(true).open(path).unwrap();
    let keep = random.below(101);
    for at in (0..new.len()).step_by(BLOCK) {
        let end = (at + BLOCK).min(new.len());
        if random.below(100) >= keep {
            let mut block = vec![0; end - at];
            let from = old.get(at..end.min(old.len())).unwrap_or(&[]);
            block[..from.len()].copy_from_slice(from);
            file.write_all_at(&block, at as u64).unwrap();
        }
    }
    if new.len() > old.len() && random.below(2) == 0 {
        file.set_len(old.len() as u64 + random.below((new.len() - old.len()) as u64))
            .unwrap();
    }
}

/// What the disk may hold if power fails before the last fsync of an append: any mix of the blocks as they were before
/// it and after.
#[test]
fn nothing_acknowledged_is_lost_by_a_power_cut() {
    // As much as is written between two fsyncs: of more, the earlier fsync has made its part durable.
    const GROUP_BYTES: u64 = 96 * 1024;
    let home = tempfile::tempdir().unwrap();
    let (dir, before, cut) = (
        home.path().join("spool"),
        home.path().join("before"),
        home.path().join("cut"),
    );
    let limits = Limits {
        segment_bytes: 1024 * 1024,
        ..LIMITS
    };
    let mut random = Random(common::seed(0xC07));
    let (mut spool, _) = Spool::open(&dir, limits).unwrap();
    let mut all: Vec<Vec<u8>> = Vec::new();
    let mut root_seq = 0;
    let mut next_group = |random: &mut Random| {
        root_seq += 1;
        let count = 1 + random.below(4);
        let frames: Vec<_> = (0..count)
            .map(|n| frame(root_seq * 10 + n, random.below(GROUP_BYTES / count - 100) as usize))
            .collect();
        (root_seq, frames)
    };
    for round in 0..40 {
        for _ in 0..random.below(6) {
            let (root_seq, frames) = next_group(&mut random);
            append(&mut spool, root_seq, &frames, 1);
            all.extend(frames);
        }
        let floor = (all.len() as u64).saturating_sub(30);
        spool.trim(floor).unwrap();
        copy_tree(&dir, &before);
        let (root_seq, frames) = next_group(&mut random);
        append(&mut spool, root_seq, &frames, 1);
        let acknowledged = all.len() as u64;
        all.extend(frames);

        for attempt in 0..4 {
            copy_tree(&dir, &cut);
            if segments(&before).len() == segments(&dir).len() {
                let tail = segments(&cut).pop().unwrap().join("db");
                let old = fs::read(before.join(tail.strip_prefix(&cut).unwrap())).unwrap();
                mix_blocks(&tail, &old, &mut random);
            }
            // The hint is written after the fsync that did not happen.
            fs::copy(before.join("high"), cut.join("high")).unwrap();

            let told = format!("round {round}, attempt {attempt}");
            let (mut after, recovery) = Spool::open(&cut, limits).unwrap();
            let state = after.state();
            let ends = [acknowledged + 1, all.len() as u64 + 1];
            assert!(
                ends.contains(&state.next_seq),
                "{told}: lost or torn, {ends:?}, {state:?}, {recovery:?}"
            );
            let stored_root = root_seq - u64::from(state.next_seq == ends[0]);
            assert_eq!(state.mark, (stored_root > 0).then(|| mark(stored_root)), "{told}");
            let got = read_all(&mut after);
            assert!(
                got.iter().map(|stored| stored.seq).eq(state.first_seq..state.next_seq),
                "{told}: {recovery:?}"
            );
            assert!(
                got.iter().all(|stored| stored.bytes == all[stored.seq as usize - 1]),
                "{told}"
            );
            assert_balanced(&state);
            drop(after);
            fs::remove_dir_all(&cut).unwrap();
        }
        fs::remove_dir_all(&before).unwrap();
    }
}

/// Runs as a child whose files may not grow beyond a limit: every write past it fails like one on a full disk.
#[test]
#[ignore = "run by `a_disk_without_room_is_an_error_and_no_more`"]
fn cramped_child() {
    let Some(dir) = std::env::var_os(CHILD_DIR) else { return };
    let limits = Limits {
        segment_bytes: 2 * 1024 * 1024,
        ..LIMITS
    };
    let (mut spool, _) = Spool::open(Path::new(&dir), limits).unwrap();
    let mut root_seq = 0;
    let error = loop {
        match spool.append(
            &[Frame {
                bytes: &frame(root_seq + 1, 20_000),
                records: 1,
            }],
            &mark(root_seq + 1),
        ) {
            Ok(_) => root_seq += 1,
            Err(error) => break error,
        }
    };
    assert!(error.is_disk_full(), "{error}");
    assert!(error.to_string().contains("free some space"), "{error}");
    assert!(root_seq > 3, "{root_seq}");
    // All that was acknowledged can be read, nothing else is there, and the same error comes again.
    for _ in 0..3 {
        assert_eq!(
            (spool.state().next_seq, spool.state().mark),
            (root_seq + 1, Some(mark(root_seq)))
        );
        let error = spool
            .append(
                &[Frame {
                    bytes: &frame(9, 90_000),
                    records: 1,
                }],
                &mark(root_seq + 1),
            )
            .unwrap_err();
        assert!(error.is_disk_full(), "{error}");
        assert_eq!(read_all(&mut spool).len() as u64, root_seq);
    }
    // With room again it goes on as if nothing had been.
    let id = std::process::id().to_string();
    assert!(
        Command::new("prlimit")
            .args(["--pid", &id, "--fsize=unlimited"])
            .status()
            .unwrap()
            .success()
    );
    for _ in 0..200 {
        root_seq += 1;
        append(&mut spool, root_seq, &[frame(root_seq, 20_000)], 1);
    }
    drop(spool);
    let (mut spool, recovery) = Spool::open(Path::new(&dir), limits).unwrap();
    assert_eq!(recovery, Recovery::default());
    let all = read_all(&mut spool);
    assert!(
        all.iter()
            .enumerate()
            .all(|(index, stored)| stored.bytes == frame(index as u64 + 1, 20_000))
    );
    assert_eq!(all.len() as u64, root_seq);
    println!("cramped child done");
}

#[test]
fn a_disk_without_room_is_an_error_and_no_more() {
    let dir = tempfile::tempdir().unwrap();
    // The shell's unit for `ulimit -f` is 512 bytes in dash and 1 KiB in bash: 1 or 2 MiB. Both are multiples of what
    // sled adds to a file at a time, so that unlike writing, opening does not need more.
    let exe = std::env::current_exe().unwrap();
    let script = format!(
        "trap '' XFSZ; ulimit -S -f 2048; exec '{}' --exact cramped_child --ignored --nocapture",
        exe.display()
    );
    let output = Command::new("sh")
        .args(["-c", &script])
        .env(CHILD_DIR, dir.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("cramped child done"),
        "{text}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Runs as a child on a file system of a few megabytes.
#[test]
#[ignore = "run by `a_full_file_system_can_be_drained`"]
fn full_disk_child() {
    let Some(dir) = std::env::var_os(CHILD_DIR) else { return };
    let dir = Path::new(&dir).join("spool");
    let limits = Limits {
        segment_bytes: 512 * 1024,
        ..LIMITS
    };
    let (mut spool, _) = Spool::open(&dir, limits).unwrap();
    let (mut frames, mut root_seq) = (0, 0);
    for round in 0..3 {
        let error = loop {
            match spool.append(
                &[Frame {
                    bytes: &frame(frames + 1, 30_000),
                    records: 1,
                }],
                &mark(root_seq + 1),
            ) {
                Ok(_) => (frames, root_seq) = (frames + 1, root_seq + 1),
                Err(error) => break error,
            }
        };
        assert!(error.is_disk_full(), "{error}");
        // A mark fits all the same.
        root_seq += 1;
        spool.append(&[], &mark(root_seq)).unwrap();
        // Even a fresh process on the full disk can read everything…
        if round == 1 {
            drop(spool);
            let (reopened, recovery) = Spool::open(&dir, limits).unwrap();
            assert_eq!(
                recovery,
                Recovery {
                    cut_frames: recovery.cut_frames,
                    ..Recovery::default()
                }
            );
            spool = reopened;
        }
        let state = spool.state();
        assert_eq!((state.next_seq, state.mark.unwrap().root_seq), (frames + 1, root_seq));
        let held = read_all(&mut spool);
        assert_eq!(held.len() as u64, frames + 1 - state.first_seq);
        for stored in &held {
            assert!(stored.bytes == frame(stored.seq, 30_000), "seq {}", stored.seq);
        }
        // …and draining makes room again.
        spool.trim(frames - 1).unwrap();
        assert_balanced(&spool.state());
    }
    fill(&mut spool, root_seq + 1..=root_seq + 5, 30_000);
    println!("full disk child done after {frames} frames");
}

#[test]
fn a_full_file_system_can_be_drained() {
    let dir = tempfile::tempdir().unwrap();
    let exe = std::env::current_exe().unwrap();
    let mount = format!("mount -t tmpfs -o size=14m tmpfs '{}'", dir.path().display());
    let unshared = |script: &str| {
        let mut command = Command::new("unshare");
        command
            .args(["--user", "--map-root-user", "--mount", "sh", "-c", script])
            .env(CHILD_DIR, dir.path());
        command.output()
    };
    let mounted = unshared(&mount).unwrap();
    assert!(
        mounted.status.success(),
        "this test needs a small file system of its own, and unshare and mount do not give it: {}",
        String::from_utf8_lossy(&mounted.stderr)
    );
    let script = format!(
        "{mount} && exec '{}' --exact full_disk_child --ignored --nocapture",
        exe.display()
    );
    let output = unshared(&script).unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("full disk child done"),
        "{text}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn errors_name_the_cause_and_the_place() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a file");
    fs::write(&file, "x").unwrap();
    match Spool::open(&file.join("spool"), LIMITS) {
        Err(error @ Error::Disk { .. }) => assert!(error.to_string().contains("a file/spool"), "{error}"),
        other => panic!("{other:?}"),
    }
}
