//! Looks at a spool that is not running, and reads what is intact of it, without changing anything.

use std::fs;
use std::path::{Path, PathBuf};

use crate::contents::{MarkAt, holes_in, settle};
use crate::disk::{self, HighFile, Listing, Seal, segment_name};
use crate::error::Error;
use crate::raw::RawFile;
use crate::record::{Counters, Ledger};
use crate::segment::DB_FILE;
use crate::types::Hole;

/// What [`check`] found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Every segment, oldest first.
    pub segments: Vec<SegmentReport>,
    /// Frames lost in or between segments.
    pub holes: Vec<Hole>,
    /// Highest seq the consumer is known to have confirmed, 0 for none.
    pub watermark_seq: u64,
    /// Records ever appended, as far as the segments know.
    pub produced_records: u64,
    /// Records delivered.
    pub delivered_records: u64,
    /// Records given up by policy.
    pub dropped_records: u64,
    /// Records lost to damage.
    pub lost_records: u64,
    /// Records that wait.
    pub held_records: u64,
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
    let mut ledger: Option<Ledger> = None;
    let mut oldest = None;
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
        ledger = ledger.into_iter().chain(settled.ledger.clone()).max_by_key(Ledger::age);
        let sum = settled
            .frames
            .iter()
            .fold((0, 0), |sum, frame| (sum.0 + frame.head.records, sum.1 + frame.bytes));
        let before = seal.as_ref().map_or(settled.before, |seal| seal.before);
        let (end_seq, end) = seal
            .as_ref()
            .map_or((settled.end_seq(), settled.end()), |seal| (seal.end_seq, seal.end));
        oldest = oldest.or(Some((first_seq, before)));
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
    let produced = previous.map_or(Counters::default(), |(_, amounts)| amounts);
    let mut ledger = ledger.unwrap_or_default();
    for first_seq in listing.spent {
        if let Some(seal) =
            Seal::read(&dir.join(disk::spent_name(first_seq))).filter(|seal| seal.end_seq > ledger.floor + 1)
        {
            let lost = seal.holes.iter().filter(|hole| hole.last_seq > ledger.floor);
            let lost = lost.fold(Counters::default(), |sum, hole| {
                sum.plus(hole.frames, hole.records, hole.bytes)
            });
            ledger.pass(seal.end_seq - 1, seal.end, lost);
            ledger.watermark = ledger.watermark.max(ledger.floor);
        }
    }
    if let Some((first_seq, before)) = oldest {
        let missing = crate::contents::hole_between(ledger.floor + 1, ledger.settled, first_seq, before);
        report.holes.splice(0..0, missing);
    }
    account(&mut report, &ledger, produced);
    Ok(report)
}

/// Tells what was lost from what was given up or delivered, and adds it up.
fn account(report: &mut Report, ledger: &Ledger, produced: Counters) {
    report.holes.retain_mut(|hole| {
        let dropped = ledger.dropped_within(hole.first_seq, hole.last_seq);
        hole.frames = hole.frames.saturating_sub(dropped.frames);
        hole.records = hole.records.saturating_sub(dropped.records);
        hole.bytes = hole.bytes.saturating_sub(dropped.bytes);
        hole.frames > 0 && hole.last_seq > ledger.floor
    });
    let lost: u64 = report.holes.iter().map(|hole| hole.records).sum();
    let ahead = ledger.ahead().records;
    report.watermark_seq = ledger.watermark;
    report.produced_records = produced.records;
    report.delivered_records = ledger.delivered;
    report.dropped_records = ledger.dropped + ahead;
    report.lost_records = ledger.lost + lost;
    let settled = produced.records.saturating_sub(ledger.settled.records);
    report.held_records = settled.saturating_sub(ahead).saturating_sub(lost);
}

/// Reads every intact frame above the watermark from the spool in `dir` without opening it, in order. Damage is passed
/// over. Fails only if the directory cannot be read, or when `each` does.
pub fn salvage<E: From<Error>>(dir: &Path, mut each: impl FnMut(u64, u64, &[u8]) -> Result<(), E>) -> Result<(), E> {
    let report = check(dir)?;
    for (index, segment) in report.segments.iter().enumerate() {
        let Ok(raw) = RawFile::scan(&dir.join(segment_name(segment.first_seq)).join(DB_FILE)) else {
            continue;
        };
        let next_first = report.segments.get(index + 1).map(|next| next.first_seq);
        let acknowledged_below = match next_first {
            Some(_) => u64::MAX,
            None => report.acknowledged_next_seq.unwrap_or(0),
        };
        let settled = settle(raw.contents(), segment.first_seq, next_first, acknowledged_below);
        let cells = raw.frame_cells();
        for frame in settled.frames.iter().filter(|frame| frame.seq > report.watermark_seq) {
            let payload = cells.get(&(frame.seq, frame.stamp)).and_then(|cell| raw.payload(cell));
            if let Some(bytes) = payload.as_deref().and_then(|payload| frame.head.body(payload)) {
                each(frame.seq, frame.head.records, bytes)?;
            }
        }
    }
    Ok(())
}
