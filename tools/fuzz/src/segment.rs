//! The files of a buffer, after whatever a disk may have done to them.
//!
//! A real buffer is made once; the bytes say what happens to its files. It must open all the same, add up, give back only
//! what was put in, and take new frames.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use spool::{Frame, Group, Limits, Mark, Spool};

const LIMITS: Limits = Limits {
    quota_bytes: spool::QUOTA_BYTES_MIN,
    segment_bytes: spool::SEGMENT_BYTES_MIN,
};
/// Groups in the buffer that is made.
const GROUPS: u64 = 24;
/// Bytes of each of its frames: a few segments in all.
const FRAME_BYTES: usize = 6_000;
/// Reads until a buffer must be at its end.
const READS_MAX: usize = 1_000;

/// Files by their path below the buffer's directory.
type Files = Vec<(PathBuf, Vec<u8>)>;

fn content(root_seq: u64) -> Vec<u8> {
    (0..FRAME_BYTES)
        .map(|at| (root_seq as usize * 31 + at * 7 + at / 256) as u8)
        .collect()
}

fn append(spool: &mut Spool, root_seq: u64) {
    let mark = Mark {
        root_seq,
        position: root_seq.to_be_bytes().to_vec(),
    };
    let bytes = content(root_seq);
    let frames = [Frame {
        bytes: &bytes,
        records: 3,
    }];
    let group = Group {
        frames: &frames,
        mark: &mark,
    };
    spool.append_groups(&[group]).expect("there is room");
}

/// The buffer, closed in good order or not.
fn originals() -> &'static [Files; 2] {
    static FILES: OnceLock<[Files; 2]> = OnceLock::new();
    FILES.get_or_init(|| {
        // sled panics on some damage, the spool catches that, and the fuzzer would take it for a finding.
        std::panic::set_hook(Box::new(|_| {}));
        let dir = scratch();
        let at = dir.path().join("spool");
        let (mut spool, _) = Spool::open(&at, LIMITS).expect("an empty directory");
        (1..=GROUPS).for_each(|root_seq| append(&mut spool, root_seq));
        spool.trim(4).expect("four were appended");
        let killed = files(&at);
        spool.close().expect("the disk works");
        [files(&at), killed]
    })
}

fn scratch() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let dir = if memory.is_dir() {
        tempfile::tempdir_in(memory)
    } else {
        tempfile::tempdir()
    };
    dir.expect("a directory for scratch")
}

fn files(dir: &Path) -> Files {
    fn walk(root: &Path, dir: &Path, out: &mut Files) {
        let mut entries: Vec<PathBuf> = fs::read_dir(dir)
            .expect("a directory of ours")
            .map(|entry| entry.expect("an entry of ours").path())
            .collect();
        entries.sort();
        for path in entries {
            let below = path.strip_prefix(root).expect("it is below").to_path_buf();
            // Reserved space means nothing.
            if path.is_dir() {
                walk(root, &path, out);
            } else if !below.to_string_lossy().contains("ballast") {
                out.push((below, fs::read(&path).expect("a file of ours")));
            }
        }
    }
    let mut out = Vec::new();
    walk(dir, dir, &mut out);
    out
}

/// Eight bytes for each thing that happens: what, to which file, where, with which byte.
fn damage(files: &mut Files, data: &[u8]) {
    for step in data.chunks_exact(8).take(32) {
        if files.is_empty() {
            return;
        }
        let index = usize::from(step[1]) % files.len();
        let at = u32::from_le_bytes([step[2], step[3], step[4], step[5]]) as usize;
        let value = step[6];
        let bytes = &mut files[index].1;
        let at = at % bytes.len().max(1);
        match step[0] % 6 {
            0 => bytes.truncate(at),
            1 => {
                files.remove(index);
            }
            2 => bytes.extend(std::iter::repeat_n(value, usize::from(step[7]) * 16)),
            3 => bytes
                .iter_mut()
                .skip(at)
                .take(usize::from(step[7]) * 4)
                .for_each(|byte| *byte = value),
            _ => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= value.max(1);
                }
            }
        }
    }
}

/// The first byte chooses the buffer, and whether it is looked at before it is opened; the rest is what happens to it.
pub fn feed(data: &[u8]) {
    let Some((choice, rest)) = data.split_first() else {
        return;
    };
    let mut files = originals()[usize::from(*choice & 1)].clone();
    damage(&mut files, rest);
    let dir = scratch();
    let at = dir.path().join("spool");
    for (below, bytes) in &files {
        let path = at.join(below);
        fs::create_dir_all(path.parent().expect("it has a parent")).expect("scratch");
        fs::write(path, bytes).expect("scratch");
    }
    fs::create_dir_all(&at).expect("scratch");
    if choice & 2 != 0 {
        let _ = spool::check(&at);
    }
    let (mut spool, _) = Spool::open(&at, LIMITS).expect("a buffer opens whatever is in its files");
    balanced(&spool);
    let next_seq = everything(&mut spool);
    balanced(&spool);
    let root_seq = spool.state().mark.map_or(0, |mark| mark.root_seq) + 1;
    append(&mut spool, root_seq);
    assert_eq!(spool.state().next_seq, next_seq + 1);
    spool.trim(next_seq).expect("it was appended");
    balanced(&spool);
    let _ = spool.close();
    let (again, _) = Spool::open(&at, LIMITS).expect("what was mended opens");
    assert_eq!(again.state().next_seq, next_seq + 1, "a seq is never used twice");
    balanced(&again);
}

fn balanced(spool: &Spool) {
    let state = spool.state();
    let sum = state.delivered_records + state.held_records + state.dropped_records + state.lost_records;
    assert_eq!(state.produced_records, sum, "{state:?}");
}

/// Reads all there is: only what was put in, in order. Gives the seq the next frame will get.
fn everything(spool: &mut Spool) -> u64 {
    let (mut from, mut reads) = (1, 0);
    loop {
        let found = spool.read(from, 8, 64 * 1024).expect("the disk works");
        let Some(last) = found.last() else { break };
        let next = last.seq + 1;
        for stored in &found {
            assert!(stored.seq >= from, "in order");
            assert_eq!(stored.bytes, content(stored.seq), "frame {}", stored.seq);
        }
        from = next;
        reads += 1;
        assert!(reads < READS_MAX, "it never ends");
    }
    spool.state().next_seq
}
