//! The values that go in and out of a spool.

use std::path::PathBuf;

use crate::record::Counters;

/// How large a spool may grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes on disk, all files of the spool counted. At least [`crate::QUOTA_BYTES_MIN`].
    pub quota_bytes: u64,
    /// Payload bytes after which a new segment is begun, [`crate::SEGMENT_BYTES_MIN`] to [`crate::SEGMENT_BYTES_MAX`].
    /// It is the unit in which disk space is given back; a segment takes about 2.7 times this on disk.
    pub segment_bytes: u64,
}

impl Default for Limits {
    /// 1 GiB in segments of 2 MiB.
    fn default() -> Self {
        Self {
            quota_bytes: 1024 * 1024 * 1024,
            segment_bytes: 2 * 1024 * 1024,
        }
    }
}

/// How far the root of the pipe was read as of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// Counts the batches the pipe's root has read; rises with every group.
    pub root_seq: u64,
    /// The source's bookmark, opaque, up to [`crate::POSITION_BYTES_MAX`] bytes.
    pub position: Vec<u8>,
}

/// One frame to append.
#[derive(Debug, Clone, Copy)]
pub struct Frame<'a> {
    /// The sealed envelope, up to [`crate::FRAME_BYTES_MAX`] bytes.
    pub bytes: &'a [u8],
    /// Records it carries, for the ledger.
    pub records: u64,
}

/// Frames that become durable together with their mark. Without frames only the mark moves on.
#[derive(Debug, Clone, Copy)]
pub struct Group<'a> {
    /// In order.
    pub frames: &'a [Frame<'a>],
    /// Stored with the last frame.
    pub mark: &'a Mark,
}

/// One frame read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Its number.
    pub seq: u64,
    /// Records it carries.
    pub records: u64,
    /// Exactly what was appended.
    pub bytes: Vec<u8>,
    /// Amounts up to and including it.
    pub(crate) after: Counters,
}

/// Frames that are missing because of damage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hole {
    /// First seq that is missing.
    pub first_seq: u64,
    /// Last seq that is missing. The range may include seqs that were never used.
    pub last_seq: u64,
    /// Frames lost.
    pub frames: u64,
    /// Records lost with them.
    pub records: u64,
    /// Payload bytes lost with them.
    pub bytes: u64,
}

/// What of a range of seqs will never come, in records; see [`crate::Spool::missing`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Missing {
    /// Given up by [`crate::Spool::drop_oldest`].
    pub dropped_records: u64,
    /// Lost to damage.
    pub lost_records: u64,
    /// No longer here because the consumer had confirmed them once.
    pub settled_records: u64,
    /// False if it could not be told how many of them belong to the range, and so none of these are counted.
    pub exact: bool,
}

/// What [`crate::Spool::drop_oldest`] gave up. All zero if there was nothing to give up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Dropped {
    /// First seq dropped.
    pub first_seq: u64,
    /// Last seq dropped.
    pub last_seq: u64,
    /// Frames dropped, those already lost to damage not counted.
    pub frames: u64,
    /// Records dropped.
    pub records: u64,
    /// Bytes of disk given back.
    pub bytes: u64,
    /// It goes on where an earlier drop ended: for the consumer both are one gap.
    pub joined: bool,
}

/// What a roll-back would come to; see [`crate::Spool::way_back`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WayBack {
    /// To where it was asked, or to an older mark with no frames in between: to this root seq (0: before the first mark).
    Whole(u64),
    /// Only further, to this root seq: the mark that was asked for is lost to damage, and with it
    /// which frames belong to it.
    Further(u64),
    /// Not at all: frames that were delivered or given up are in the way, or every mark that is old enough is gone.
    Barred,
}

/// A damaged segment and what was done about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repair {
    /// The segment, by its first seq.
    pub first_seq: u64,
    /// What was wrong.
    pub reason: String,
    /// Where the damaged files were put, if there was anything to put.
    pub quarantined: Option<PathBuf>,
    /// Frames that could be saved into a fresh segment.
    pub saved_frames: u64,
}

/// What opening found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Damaged segments, as far as opening had to look at them; others turn up as they are read
    /// ([`crate::Spool::take_repairs`]).
    pub repairs: Vec<Repair>,
    /// Frames of an append that a crash interrupted before it was acknowledged; they were cut off.
    pub cut_frames: u64,
    /// Acknowledged groups at the end were lost, so the mark is older than the last one acknowledged: a source that can
    /// replay will send what follows again. Told at every open until something newer has been appended.
    pub mark_rewound: bool,
    /// Seqs were skipped so that none that may have been sent is used again.
    pub seq_skipped: bool,
}

/// Where a spool stands. In records: `produced = delivered + held + dropped + lost`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// Oldest seq still held; equal to `next_seq` if there is none.
    pub first_seq: u64,
    /// Seq the next frame will get.
    pub next_seq: u64,
    /// Highest seq the consumer has reported durable, 0 for none.
    pub watermark_seq: u64,
    /// The newest mark.
    pub mark: Option<Mark>,
    /// Records ever appended.
    pub produced_records: u64,
    /// Records at or below the watermark that were delivered.
    pub delivered_records: u64,
    /// Records given up by [`crate::Spool::drop_oldest`].
    pub dropped_records: u64,
    /// Records lost to damage.
    pub lost_records: u64,
    /// Records that are here and wait.
    pub held_records: u64,
    /// Frames that are here and wait.
    pub held_frames: u64,
    /// Bytes of these frames.
    pub held_payload_bytes: u64,
    /// Bytes of all files of the spool.
    pub disk_bytes: u64,
    /// Segments on disk.
    pub segments: u64,
    /// Damaged segments set aside, in this spool's directory.
    pub quarantined: u64,
}
