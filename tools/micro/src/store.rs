//! The spool: a real one, on disk, with its fsyncs.

use std::path::Path;

use anyhow::{Result, ensure};
use spool::{Frame, Limits, Mark, Spool};

use crate::{Body, Case, data::Noise};

/// Bytes of a frame. Eight iterations fill a segment, so each of the two runs covers whole segments.
const FRAME_BYTES: usize = 32 * 1024;
/// Frames of an iteration.
const FRAMES: usize = 8;

/// The cases.
pub const CASES: &[Case] = &[Case {
    name: "spool",
    iteration: "8 frames of 32 KB appended one by one, read and trimmed",
    iterations: 16,
    // sled's threads compete for locks even with the main one.
    spread_percent: 1.5,
    main_thread_only: true,
    prepare: spooling,
}];

fn spooling(dir: &Path) -> Result<Body> {
    let (mut spool, _) = Spool::open(&dir.join("spool"), Limits::default())?;
    let frame = Noise::new(17).bytes(FRAME_BYTES);
    let mut root_seq = 0;
    Ok(Box::new(move || {
        let first_seq = spool.state().next_seq;
        for _ in 0..FRAMES {
            root_seq += 1;
            let mark = Mark {
                root_seq,
                position: root_seq.to_le_bytes().to_vec(),
            };
            let frame = Frame {
                bytes: &frame,
                records: 1,
            };
            spool.append(&[frame], &mark)?;
        }
        let stored = spool.read(first_seq, FRAMES, FRAMES * FRAME_BYTES)?;
        ensure!(
            stored.iter().all(|stored| stored.bytes == frame),
            "frames came back changed"
        );
        spool.trim(first_seq + FRAMES as u64 - 1)?;
        Ok(stored.len() as u64)
    }))
}
