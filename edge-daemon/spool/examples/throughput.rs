//! Prints how fast a spool takes frames in and gives them back, and the memory that takes.
//!
//! ```text
//! cargo run --release -p spool --example throughput [MB] [frame bytes] [directory]
//! ```
//!
//! Every append is one group of about 64 KiB, fsynced. On glibc run it as the daemon runs, with
//! `MALLOC_ARENA_MAX=1 MALLOC_MMAP_THRESHOLD_=65536 MALLOC_TRIM_THRESHOLD_=65536`.

use std::path::{Path, PathBuf};
use std::time::Instant;
use std::{env, fs, process};

use spool::{Error, Frame, Limits, Mark, Spool};

const GROUP_BYTES: usize = 64 * 1024;
const READ_BYTES: usize = 512 * 1024;

fn main() -> Result<(), Error> {
    let mut args = env::args().skip(1);
    let total_mb: usize = args.next().and_then(|arg| arg.parse().ok()).unwrap_or(100);
    let frame_bytes: usize = args.next().and_then(|arg| arg.parse().ok()).unwrap_or(GROUP_BYTES);
    let dir = args
        .next()
        .map_or_else(env::temp_dir, PathBuf::from)
        .join(format!("spool-{}", process::id()));
    let result = measure(&dir, total_mb * 1_000_000, frame_bytes);
    if let Err(error) = fs::remove_dir_all(&dir) {
        eprintln!("{} is left behind: {error}", dir.display());
    }
    result
}

fn measure(dir: &Path, total_bytes: usize, frame_bytes: usize) -> Result<(), Error> {
    let limits = Limits {
        quota_bytes: 16 * 1024 * 1024 * 1024,
        ..Limits::default()
    };
    let (mut spool, _) = Spool::open(dir, limits)?;
    let bytes = noise(frame_bytes);
    let frames = vec![
        Frame {
            bytes: &bytes,
            records: 1
        };
        (GROUP_BYTES / frame_bytes.max(1)).max(1)
    ];
    let groups = (total_bytes / (frames.len() * frame_bytes)).max(1) as u64;
    println!(
        "{} MB in frames of {frame_bytes} bytes, {} in a group",
        total_bytes / 1_000_000,
        frames.len()
    );

    let start = Instant::now();
    for root_seq in 1..=groups {
        spool.append(
            &frames,
            &Mark {
                root_seq,
                position: root_seq.to_be_bytes().to_vec(),
            },
        )?;
    }
    report("append", start, &spool, frame_bytes);
    let disk_bytes = spool.state().disk_bytes;

    let start = Instant::now();
    let mut from = 1;
    loop {
        let read = spool.read(from, 1024, READ_BYTES)?;
        let Some(last) = read.last() else { break };
        from = last.seq + 1;
        spool.trim(last.seq)?;
    }
    report("drain", start, &spool, frame_bytes);
    let left = spool.state().disk_bytes;
    println!(
        "disk: {:.2} times the payload when full, {:.1} MB left after draining",
        disk_bytes as f64 / total_bytes as f64,
        left as f64 / 1e6
    );
    Ok(())
}

fn report(what: &str, start: Instant, spool: &Spool, frame_bytes: usize) {
    let seconds = start.elapsed().as_secs_f64();
    let frames = (spool.state().next_seq - 1) as f64;
    println!(
        "{what:<7} {:>7.1} MB/s {:>9.0} frames/s   peak RSS {:.1} MB",
        frames * frame_bytes as f64 / seconds / 1e6,
        frames / seconds,
        peak_rss_kb() as f64 / 1e3
    );
}

/// Bytes that do not compress, as sealed envelopes do not.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x2545_F491_4F6C_DD1D_u64;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        })
        .collect()
}

fn peak_rss_kb() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok())
        .unwrap_or(0)
}
