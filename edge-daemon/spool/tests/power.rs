//! The spool on a simulated disk that loses what was not synced. A process works while every change to its files is written
//! down; then power fails at thousands of moments, and each time the disk keeps all that was synced and some of the rest:
//! any blocks of unsynced writes, any first part of each directory's unsynced entries, across renames and generations of
//! segments. What was acknowledged is there, whole, in order, and in balance.

#![allow(clippy::unwrap_used, reason = "a helper of a test may panic like the test itself")]
#![cfg(target_os = "linux")]

mod common;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{LIMITS, Random, assert_balanced, frame, mark, read_all};
use spool::{Frame, Group, Mark, Spool};

const CHILD_DIR: &str = "SPOOL_TEST_CHILD_DIR";
/// Calls the child makes.
const CALLS: u64 = 260;
const BLOCK: usize = 4096;

/// The frames of the group with this root seq: both processes know them.
fn group(root_seq: u64) -> Vec<Vec<u8>> {
    let mut random = Random(root_seq.wrapping_mul(0x51_7CC1_B727_2202) | 1);
    (0..random.below(4))
        .map(|n| {
            let large = random.below(4) == 0;
            let len = if large {
                random.below(60_000)
            } else {
                random.below(2_000)
            };
            frame(root_seq * 10 + n, len as usize)
        })
        .collect()
}

/// Works on a spool and tells in `told` what was acknowledged: `root watermark dropped`.
#[test]
#[ignore = "the process whose calls are recorded; run by `what_was_synced_survives`"]
fn recorded_child() {
    let Some(dir) = std::env::var_os(CHILD_DIR).map(PathBuf::from) else {
        return;
    };
    let mut told = fs::File::create(dir.join("told")).unwrap();
    let open = || Spool::open(&dir.join("spool"), LIMITS).unwrap().0;
    let mut spool = open();
    let mut random = Random(common::seed(0xB10C));
    let (mut root_seq, mut watermark, mut dropped) = (0, 0, 0);
    for _ in 0..CALLS {
        match random.below(20) {
            0 => {
                spool.close().unwrap();
                spool = open();
                // The consumer says again what it has.
                spool.trim(watermark).unwrap();
            }
            1..=3 => {
                let state = spool.state();
                let to = watermark + random.below(state.next_seq - watermark);
                spool.read(to.saturating_sub(5), 10, 100_000).unwrap();
                spool.trim(to).unwrap();
                watermark = watermark.max(to);
            }
            4 => dropped += spool.drop_oldest(200_000, watermark).unwrap().records,
            _ => {
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
                spool.append_groups(&groups).unwrap();
                root_seq += count;
            }
        }
        writeln!(told, "{root_seq} {watermark} {dropped}").unwrap();
    }
}

/// One change to a file system, by inode.
#[derive(Debug)]
enum Change {
    /// Bytes at an offset of a file.
    Write {
        file: usize,
        at: usize,
        bytes: Vec<u8>,
    },
    Truncate {
        file: usize,
        len: usize,
    },
    /// A name in a directory appears or changes its inode.
    Link {
        dir: usize,
        name: String,
        node: usize,
    },
    Unlink {
        dir: usize,
        name: String,
    },
    /// A name becomes another, in the same directory.
    Rename {
        dir: usize,
        from: String,
        to: String,
    },
    /// All before it, of this inode, is safe.
    Sync {
        node: usize,
    },
    /// The process told something.
    Told([u64; 3]),
}

/// What was recorded, with inodes in place of paths: they stay the same through renames.
#[derive(Default)]
struct Recording {
    changes: Vec<Change>,
    /// Each directory's names while the recording is read; 0 is the root.
    tree: HashMap<usize, HashMap<String, usize>>,
    nodes: usize,
    text: String,
}

const ROOT: usize = 0;

impl Recording {
    fn read(log: &[u8]) -> Self {
        let mut recording = Self {
            nodes: 1,
            ..Self::default()
        };
        recording.tree.insert(ROOT, HashMap::new());
        let mut rest = log;
        let mut take = |len: usize| {
            let (taken, left) = rest.split_at(len);
            rest = left;
            taken
        };
        let mut left = log.len();
        while left > 0 {
            let kind = take(1)[0];
            let path_len = u16::from_le_bytes(take(2).try_into().unwrap()) as usize;
            let path = String::from_utf8(take(path_len).to_vec()).unwrap();
            let number = u64::from_le_bytes(take(8).try_into().unwrap()) as usize;
            let len = u32::from_le_bytes(take(4).try_into().unwrap()) as usize;
            let data = take(len);
            left -= 1 + 2 + path_len + 8 + 4 + len;
            recording.entry(kind, path.trim_start_matches('/'), number, data);
        }
        recording
    }

    fn entry(&mut self, kind: u8, path: &str, number: usize, data: &[u8]) {
        if path == "told" {
            self.text.push_str(&String::from_utf8_lossy(data));
            while let Some((line, rest)) = self.text.split_once('\n') {
                let numbers: Vec<u64> = line.split(' ').map(|n| n.parse().unwrap()).collect();
                self.changes.push(Change::Told(numbers.try_into().unwrap()));
                self.text = rest.to_string();
            }
            return;
        }
        let (dir, name) = self.parent(path);
        match kind {
            b'C' | b'M' => {
                let node = self.nodes;
                self.nodes += 1;
                if kind == b'M' {
                    self.tree.insert(node, HashMap::new());
                }
                self.tree.get_mut(&dir).unwrap().insert(name.clone(), node);
                self.changes.push(Change::Link { dir, name, node });
            }
            b'U' | b'X' => {
                self.tree.get_mut(&dir).unwrap().remove(&name);
                self.changes.push(Change::Unlink { dir, name });
            }
            b'R' => {
                let target = String::from_utf8(data.to_vec()).unwrap();
                let (to_dir, to) = self.parent(target.trim_start_matches('/'));
                assert_eq!(dir, to_dir, "a rename from one directory into another");
                let names = self.tree.get_mut(&dir).unwrap();
                let node = names.remove(&name).unwrap();
                names.insert(to.clone(), node);
                self.changes.push(Change::Rename { dir, from: name, to });
            }
            b'S' | b'D' => {
                let node = self.node(path);
                self.changes.push(Change::Sync { node });
            }
            b'W' => {
                let (file, bytes) = (self.node(path), data.to_vec());
                self.changes.push(Change::Write {
                    file,
                    at: number,
                    bytes,
                });
            }
            b'T' => {
                let file = self.node(path);
                self.changes.push(Change::Truncate { file, len: number });
            }
            other => panic!("an entry of kind {other}"),
        }
    }

    fn parent(&self, path: &str) -> (usize, String) {
        let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
        (self.node(dir), name.to_string())
    }

    fn node(&self, path: &str) -> usize {
        let names = path.split('/').filter(|name| !name.is_empty());
        names.fold(ROOT, |dir, name| {
            *self.tree[&dir]
                .get(name)
                .unwrap_or_else(|| panic!("{path} was never created"))
        })
    }

    /// What the disk holds if power fails after `until` changes.
    fn after_power_cut(&self, until: usize, random: &mut Random) -> Disk {
        // From the back: what has a sync behind it is safe.
        let mut synced = HashSet::new();
        let mut safe = vec![false; until];
        for (index, change) in self.changes[..until].iter().enumerate().rev() {
            match change {
                Change::Sync { node } => drop(synced.insert(*node)),
                other => safe[index] = other.inode().is_some_and(|node| synced.contains(&node)),
            }
        }
        let keep = random.below(101);
        let mut broken: HashSet<usize> = HashSet::new();
        let mut disk = Disk::default();
        for (index, change) in self.changes[..until].iter().enumerate() {
            let Some(node) = change.inode() else { continue };
            let is_entry = matches!(
                change,
                Change::Link { .. } | Change::Unlink { .. } | Change::Rename { .. }
            );
            if is_entry && !safe[index] && (broken.contains(&node) || random.below(100) >= keep) {
                // Entries of a directory reach the disk in order.
                broken.insert(node);
                continue;
            }
            disk.apply(change, safe[index], keep, random);
        }
        disk
    }
}

impl Change {
    /// Whose sync makes it safe.
    fn inode(&self) -> Option<usize> {
        match self {
            Self::Write { file, .. } | Self::Truncate { file, .. } => Some(*file),
            Self::Link { dir, .. } | Self::Unlink { dir, .. } | Self::Rename { dir, .. } => Some(*dir),
            Self::Sync { .. } | Self::Told(_) => None,
        }
    }
}

/// The contents of a disk.
#[derive(Default)]
struct Disk {
    files: HashMap<usize, Vec<u8>>,
    dirs: HashMap<usize, BTreeMap<String, usize>>,
}

impl Disk {
    fn apply(&mut self, change: &Change, safe: bool, keep: u64, random: &mut Random) {
        match change {
            Change::Write { file, at, bytes } => {
                let content = self.files.entry(*file).or_default();
                let mut done = 0;
                while done < bytes.len() {
                    let from = at + done;
                    let len = (BLOCK - from % BLOCK).min(bytes.len() - done);
                    if safe || random.below(100) < keep {
                        if content.len() < from + len {
                            content.resize(from + len, 0);
                        }
                        content[from..from + len].copy_from_slice(&bytes[done..done + len]);
                    }
                    done += len;
                }
            }
            Change::Truncate { file, len } => {
                if safe || random.below(100) < keep {
                    self.files.entry(*file).or_default().resize(*len, 0);
                }
            }
            Change::Link { dir, name, node } => drop(self.names(*dir).insert(name.clone(), *node)),
            Change::Unlink { dir, name } => drop(self.names(*dir).remove(name)),
            Change::Rename { dir, from, to } => {
                if let Some(node) = self.names(*dir).remove(from) {
                    self.names(*dir).insert(to.clone(), node);
                }
            }
            Change::Sync { .. } | Change::Told(_) => {}
        }
    }

    fn names(&mut self, dir: usize) -> &mut BTreeMap<String, usize> {
        self.dirs.entry(dir).or_default()
    }

    fn write(&self, recording: &Recording, node: usize, to: &Path) {
        fs::create_dir_all(to).unwrap();
        for (name, child) in self.dirs.get(&node).into_iter().flatten() {
            let path = to.join(name);
            if recording.tree.contains_key(child) {
                self.write(recording, *child, &path);
            } else {
                fs::write(path, self.files.get(child).map_or(&[][..], Vec::as_slice)).unwrap();
            }
        }
    }
}

fn record(home: &Path) -> Recording {
    let library = home.join("recorder.so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recorder.c");
    let compiled = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-o"])
        .arg(&library)
        .arg(source)
        .args(["-ldl", "-lpthread"])
        .output()
        .expect("a C compiler, `cc`, for the recorder");
    assert!(
        compiled.status.success(),
        "{}",
        String::from_utf8_lossy(&compiled.stderr)
    );
    let (dir, log) = (home.join("recorded"), home.join("log"));
    fs::create_dir(&dir).unwrap();
    let child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "recorded_child",
            "--ignored",
            "--nocapture",
            "--test-threads=1",
        ])
        .env(CHILD_DIR, &dir)
        .env("RECORD_DIR", &dir)
        .env("RECORD_LOG", &log)
        .env("LD_PRELOAD", &library)
        .output()
        .unwrap();
    assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stderr));
    Recording::read(&fs::read(log).unwrap())
}

#[test]
fn what_was_synced_survives() {
    let home = tempfile::tempdir().unwrap();
    let recording = record(home.path());
    let all: Vec<Vec<u8>> = (1..=CALLS * 3).flat_map(group).collect();
    let ends: Vec<u64> = (1..=CALLS * 3)
        .scan(1, |next, root_seq| {
            *next += group(root_seq).len() as u64;
            Some(*next)
        })
        .collect();
    let rounds = std::env::var("SPOOL_TEST_POWER_CUTS").ok().and_then(|n| n.parse().ok());
    let mut random = Random(common::seed(0x0FF));
    let changes = recording.changes.len();
    println!("{changes} changes recorded");
    for round in 0..rounds.unwrap_or(150) {
        let until = random.below(changes as u64 + 1) as usize;
        let told = format!("round {round}, power fails after {until} of {changes} changes");
        let known = recording.changes[..until].iter().rev();
        let known = known.filter_map(|change| {
            if let Change::Told(told) = change {
                Some(*told)
            } else {
                None
            }
        });
        let [root_seq, watermark, dropped] = known.clone().next().unwrap_or_default();
        let disk = recording.after_power_cut(until, &mut random);
        let dir = home.path().join("after");
        disk.write(&recording, ROOT, &dir);

        let (mut spool, recovery) = Spool::open(&dir.join("spool"), LIMITS).unwrap_or_else(|e| panic!("{told}: {e}"));
        let got = read_all(&mut spool);
        let state = spool.state();
        assert_balanced(&state);
        let stored_root = state.mark.as_ref().map_or(0, |mark| mark.root_seq);
        assert!(
            stored_root >= root_seq,
            "{told}: {root_seq} was acknowledged, {state:?}, {recovery:?}"
        );
        assert_eq!(state.mark, (stored_root > 0).then(|| mark(stored_root)), "{told}");
        let end = if stored_root == 0 {
            1
        } else {
            ends[stored_root as usize - 1]
        };
        assert_eq!(
            (state.next_seq, state.lost_records),
            (end, 0),
            "{told}: {state:?}, {recovery:?}"
        );
        assert!(
            state.dropped_records >= dropped,
            "{told}: {dropped} were dropped, {state:?}"
        );
        assert!(state.watermark_seq < end, "{told}");
        // Of what is there, everything is as it was, and what is missing in between was given up and is known.
        let mut next = state.first_seq;
        for stored in &got {
            if stored.seq > next {
                let missing = spool.missing(next, stored.seq - 1, None).unwrap();
                assert_eq!(missing.dropped_records, 2 * (stored.seq - next), "{told}: {missing:?}");
            }
            assert!(
                stored.bytes == all[stored.seq as usize - 1],
                "{told}: seq {}",
                stored.seq
            );
            next = stored.seq + 1;
        }
        assert_eq!(next, end, "{told}");
        if watermark > 0 {
            spool.trim(watermark).unwrap();
            assert_balanced(&spool.state());
        }
        drop(spool);
        fs::remove_dir_all(&dir).unwrap();
    }
}
