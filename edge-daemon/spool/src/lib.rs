//! Durable store-and-forward for one stream: frames wait here until the destination has them.
//!
//! A [`Spool`] is a directory of small sled databases (*segments*). Frames are appended in *groups*; a group and the
//! [`Mark`] that goes with it (how far the source was read) become durable together or not at all. Frames are numbered
//! from 1, read back in order and byte for byte, and given up once the consumer's watermark has passed them.
//!
//! It knows only bytes: not what a frame holds, no network, no clock, no threads of its own (sled has some). All calls
//! block; run them on a thread that may. One process at a time may have a spool open.
//!
//! # What it promises
//!
//! - When [`Spool::append`] returns `Ok`, the group survives a kill and a power cut. When it returns an error, nothing
//!   of the group is there.
//! - Damage never stops it: what is intact is kept, what is not becomes a [`Hole`] that is counted and can be reported;
//!   the damaged files are set aside. A seq is never used twice for different frames that may have been sent.
//! - `produced = delivered + held + dropped + lost`, in records, at any time ([`State`]).
//! - Memory does not grow with what is stored: at most two segments are open, one written and one read.
//!
//! # Where to look
//!
//! `budget` decides about room; `cell` and `record` are the format and `contents` decides what of it counts, all pure; `segment` is one sled database;
//! `raw` reads a damaged one; `recover` opens a segment whatever its state; `disk` knows the file names; `spool` is the
//! stream across segments.

mod budget;
mod cell;
mod check;
mod contents;
mod disk;
mod error;
mod fault;
mod raw;
mod record;
mod recover;
mod segment;
mod spool;
mod types;

pub use budget::{BUDGET_BYTES, Budget, Class, Full, Room, Share, Space};
pub use check::{Report, SegmentReport, check, salvage};
pub use error::Error;
pub use spool::Spool;
pub use types::{Dropped, Frame, Group, Hole, Limits, Mark, Missing, Recovery, Repair, State, Stored, WayBack};

/// Largest frame, bytes: one sealed envelope.
pub const FRAME_BYTES_MAX: usize = 96 * 1024;

/// Largest position in a [`Mark`], bytes: a stream's bookmark with another in it, and what transforms remember.
pub const POSITION_BYTES_MAX: usize = 112 * 1024;

/// Frames one segment, and so one group, can hold. Since a segment is named by its first seq, this also bounds the seqs
/// that may have been used in a segment that cannot be read any more.
pub const FRAMES_PER_SEGMENT_MAX: u64 = 16 * 1024;

/// Marks without frames that are kept, the newest. A roll-back can go behind fewer of them than this: whoever appends groups
/// to several spools in turn must not be further ahead in one of them.
pub const MARKS_ALONE_MAX: usize = 64;

/// Smallest quota, bytes: below it a few segments would not fit.
pub const QUOTA_BYTES_MIN: u64 = 16 * 1024 * 1024;

/// Smallest size of a segment, payload bytes.
pub const SEGMENT_BYTES_MIN: u64 = 64 * 1024;

/// Largest size of a segment, payload bytes.
pub const SEGMENT_BYTES_MAX: u64 = 16 * 1024 * 1024;
