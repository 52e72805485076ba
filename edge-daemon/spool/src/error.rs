//! What can go wrong, in words for whoever has to act on it.

use std::io;
use std::path::PathBuf;

use crate::budget::Full;

/// Why a call on a spool failed. Damage to stored data is not among the reasons unless it cannot be worked around.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no room for the append; nothing was written.
    #[error("no room for {needed_bytes} bytes more in the spool {}: {limit}", dir.display())]
    Full {
        /// Directory of the spool.
        dir: PathBuf,
        /// Bytes the append would have taken, estimated.
        needed_bytes: u64,
        /// Which limit it met.
        limit: Full,
    },
    /// The disk or the file system refused. The spool can be used again once it does not.
    #[error("cannot {action} {}: {source}{}", path.display(), disk_hint(source))]
    Disk {
        /// What was being done.
        action: &'static str,
        /// To what.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
    /// A segment is damaged in a way that setting it aside did not cure.
    #[error("the spool's segment {} cannot be used ({reason}); see `spool check`", path.display())]
    Damaged {
        /// The segment.
        path: PathBuf,
        /// What was found.
        reason: String,
    },
    /// Another process has the spool open.
    #[error("the spool {} is in use by another process; stop it first", dir.display())]
    Locked {
        /// Directory of the spool.
        dir: PathBuf,
    },
    /// A limit was set outside its range.
    #[error("{name} is {value}, it must be {min} to {max}")]
    Limits {
        /// Which one.
        name: &'static str,
        /// What was asked.
        value: u64,
        /// Smallest value.
        min: u64,
        /// Largest value.
        max: u64,
    },
    /// What was to be appended is too large.
    #[error("{what} of {size} does not fit in the spool, the limit is {max}; split it")]
    TooLarge {
        /// Frame, position or group.
        what: &'static str,
        /// Its size (bytes, or frames in a group).
        size: u64,
        /// The largest size.
        max: u64,
    },
    /// A mark's root seq did not rise. This is a mistake of the caller.
    #[error("root seq {got} does not follow {last}: marks must rise")]
    MarkOrder {
        /// Root seq of the newest mark stored.
        last: u64,
        /// Root seq that was to follow it.
        got: u64,
    },
    /// The watermark is beyond everything stored: the consumer has frames this spool knows nothing of.
    #[error(
        "the consumer has frames up to {watermark}, this spool only wrote up to {last_seq}: \
         it was restored from an older copy or lost its newest frames; go on from there with `advance_to`"
    )]
    WatermarkAhead {
        /// What the consumer said.
        watermark: u64,
        /// Last seq written.
        last_seq: u64,
    },
    /// The groups to roll back are too old: some were delivered, dropped, or the mark before them is gone.
    #[error("cannot go back to root seq {root_seq}: the oldest that can be restored is {oldest:?}")]
    TruncateTooFar {
        /// What was asked.
        root_seq: u64,
        /// Oldest root seq that can be restored, if any.
        oldest: Option<u64>,
    },
}

fn disk_hint(source: &io::Error) -> &'static str {
    if crate::fault::is_disk_full(source) {
        "; free some space on the disk"
    } else {
        ""
    }
}

impl Error {
    /// True for [`Error::Disk`] when the cause is a lack of room on the disk.
    pub fn is_disk_full(&self) -> bool {
        matches!(self, Self::Disk { source, .. } if crate::fault::is_disk_full(source))
    }
}
