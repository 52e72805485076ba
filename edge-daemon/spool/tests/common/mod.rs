//! What the tests share: frames that tell what they are, and a spool's files.

#![allow(dead_code, reason = "every test program uses its own part of this")]

use std::fs;
use std::path::{Path, PathBuf};

use spool::{Frame, Group, Limits, Mark, Spool, State, Stored};

/// Small segments, so that a test sees many of them.
pub const LIMITS: Limits = Limits {
    quota_bytes: 512 * 1024 * 1024,
    segment_bytes: 64 * 1024,
};

pub fn open(dir: &Path) -> Spool {
    Spool::open(dir, LIMITS)
        .expect("a spool opens whatever is in its directory")
        .0
}

pub fn mark(root_seq: u64) -> Mark {
    Mark {
        root_seq,
        position: format!("position {root_seq}").into_bytes(),
    }
}

/// A frame of `len` bytes that no other `tag` has.
pub fn frame(tag: u64, len: usize) -> Vec<u8> {
    let mut state = tag.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// Appends one group of frames, each counting `records` records.
pub fn append(spool: &mut Spool, root_seq: u64, frames: &[Vec<u8>], records: u64) -> std::ops::Range<u64> {
    let frames: Vec<Frame<'_>> = frames.iter().map(|bytes| Frame { bytes, records }).collect();
    spool
        .append_groups(&[Group {
            frames: &frames,
            mark: &mark(root_seq),
        }])
        .expect("append")
}

/// Appends `count` groups of one frame, with seq and tag equal to the root seq.
pub fn fill(spool: &mut Spool, roots: std::ops::RangeInclusive<u64>, len: usize) {
    for root_seq in roots {
        append(spool, root_seq, &[frame(root_seq, len)], 1);
    }
}

pub fn read_all(spool: &mut Spool) -> Vec<Stored> {
    let mut all: Vec<Stored> = Vec::new();
    loop {
        let from = all.last().map_or(0, |stored| stored.seq + 1);
        let some = spool.read(from, 7, 50_000).expect("read");
        if some.is_empty() {
            return all;
        }
        all.extend(some);
    }
}

pub fn assert_balanced(state: &State) {
    assert_eq!(
        state.produced_records,
        state.delivered_records + state.held_records + state.dropped_records + state.lost_records,
        "produced = delivered + held + dropped + lost: {state:?}"
    );
}

pub fn bytes_below(path: &Path) -> u64 {
    let metadata = fs::symlink_metadata(path).unwrap();
    if !metadata.is_dir() {
        return metadata.len();
    }
    fs::read_dir(path)
        .unwrap()
        .map(|entry| bytes_below(&entry.unwrap().path()))
        .sum()
}

/// The segments' directories, oldest first.
pub fn segments(dir: &Path) -> Vec<PathBuf> {
    let is_segment = |path: &PathBuf| {
        path.file_name()
            .is_some_and(|name| name.len() == 20 && name.to_string_lossy().parse::<u64>().is_ok())
    };
    let mut found: Vec<PathBuf> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(is_segment)
        .collect();
    found.sort();
    found
}

pub fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), &target).unwrap();
        }
    }
}

/// The seed of a random test; another one can be given in `SPOOL_TEST_SEED`.
pub fn seed(default: u64) -> u64 {
    let seed = std::env::var("SPOOL_TEST_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or(default);
    println!("seed {seed}");
    seed
}

/// A small generator for tests that print their seed.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % limit.max(1)
    }
}
