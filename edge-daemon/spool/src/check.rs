//! Looks at a spool that is not running, without changing anything.

use std::fs;
use std::path::{Path, PathBuf};

use crate::contents::{MarkAt, holes_in, settle};
use crate::disk::{self, HighFile, Listing, Seal, segment_name};
use crate::error::Error;
use crate::raw::RawFile;
use crate::segment::DB_FILE;
use crate::types::Hole;

/// What [`check`] found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Every segment, oldest first.
    pub segments: Vec<SegmentReport>,
    /// Frames missing in or between segments.
    pub holes: Vec<Hole>,
    /// Seq after the last acknowledged append, if the spool's note of it is readable.
    pub acknowledged_next_seq: Option<u64>,
    /// Damaged segments set aside earlier.
    pub quarantined: Vec<PathBuf>,
    /// Files that are not the spool's.
    pub foreign: Vec<PathBuf>,
}

/// One segment as its file has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentReport {
    /// First seq, which is its name.
    pub first_seq: u64,
    /// Seq after its last intact frame.
    pub end_seq: u64,
    /// Intact frames that count.
    pub frames: u64,
    /// Records in them.
    pub records: u64,
    /// Their bytes.
    pub payload_bytes: u64,
    /// Bytes of the segment's files.
    pub disk_bytes: u64,
    /// Root seq of the newest mark in it.
    pub root_seq: Option<u64>,
    /// Frames of an append that was never acknowledged; the next open cuts them off.
    pub unfinished_frames: u64,
    /// `Some(true)`: closed properly and unchanged since. `Some(false)`: changed since, which also a kill while it was
    /// being read does. `None`: not closed properly.
    pub sealed: Option<bool>,
}

impl Report {
    /// True if nothing is missing and nothing was set aside.
    pub fn is_clean(&self) -> bool {
        let short = self
            .segments
            .last()
            .is_some_and(|tail| Some(tail.end_seq) < self.acknowledged_next_seq);
        self.holes.is_empty() && self.quarantined.is_empty() && !short
    }
}

/// Reads the spool in `dir` without opening it; it should not be in use. Fails only if the directory cannot be read.
pub fn check(dir: &Path) -> Result<Report, Error> {
    let listing = Listing::read(dir).map_err(|source| Error::Disk {
        action: "read the spool's directory",
        path: dir.to_owned(),
        source,
    })?;
    let high = HighFile::peek(dir);
    let mut report = Report {
        acknowledged_next_seq: high.map(|high| high.next_seq),
        quarantined: listing.bad,
        foreign: listing.foreign,
        ..Report::default()
    };
    let mut previous = None;
    for (index, &first_seq) in listing.segments.iter().enumerate() {
        let path = dir.join(segment_name(first_seq));
        let next_first = listing.segments.get(index + 1).copied();
        let acknowledged_below = if next_first.is_some() {
            u64::MAX
        } else {
            high.map_or(0, |high| high.next_seq)
        };
        let contents = RawFile::scan(&path.join(DB_FILE))
            .map(|raw| raw.contents())
            .unwrap_or_default();
        let seal = Seal::read(&path);
        let end_max = next_first.or_else(|| seal.as_ref().map(|seal| seal.end_seq));
        let settled = settle(contents, first_seq, end_max, acknowledged_below);
        let sum = settled
            .frames
            .iter()
            .fold((0, 0), |sum, frame| (sum.0 + frame.head.records, sum.1 + frame.bytes));
        let before = seal.as_ref().map_or(settled.before, |seal| seal.before);
        let (end_seq, end) = seal
            .as_ref()
            .map_or((settled.end_seq(), settled.end()), |seal| (seal.end_seq, seal.end));
        if let Some((next_seq, amounts)) = previous {
            report
                .holes
                .extend(crate::contents::hole_between(next_seq, amounts, first_seq, before));
        }
        report
            .holes
            .extend(holes_in(first_seq, before, &settled.frames, end_seq, end));
        previous = Some((end_seq, end));
        report.segments.push(SegmentReport {
            first_seq,
            end_seq,
            frames: settled.frames.len() as u64,
            records: sum.0,
            payload_bytes: sum.1,
            disk_bytes: disk::bytes_below(&path),
            root_seq: settled.marks.last().and_then(MarkAt::root_seq),
            unfinished_frames: settled.cut_frames,
            sealed: seal.map(|seal| fs::metadata(path.join(DB_FILE)).is_ok() && seal.matches(&path)),
        });
    }
    Ok(report)
}
