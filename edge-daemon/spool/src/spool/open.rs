//! Opening a spool, whatever state it was left in.

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::path::Path;

use super::{Meta, Spool, disk_error, in_segment};
use crate::budget::Share;
use crate::contents::{MarkAt, Settled};
use crate::disk::{self, High, HighFile, LOCK_FILE, Listing, Seal, segment_name};
use crate::error::Error;
use crate::record::{Counters, Ledger};
use crate::recover::{Ask, Found, Loaded};
use crate::segment::Segment;
use crate::types::{Limits, Mark, Recovery};
use crate::{FRAMES_PER_SEGMENT_MAX, QUOTA_BYTES_MIN, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN};

impl Spool {
    /// Opens the spool in `dir`, or creates it. Damage is no error: [`Recovery`], [`Spool::holes`] and
    /// [`Spool::state`] say what it cost. It fails only if the disk refuses, another process has the spool, or a limit
    /// is out of range.
    pub fn open(dir: &Path, limits: Limits) -> Result<(Self, Recovery), Error> {
        Self::open_within(dir, limits, Share::default())
    }

    /// Like [`Self::open`], for one of several spools that share a [`crate::Budget`].
    pub fn open_within(dir: &Path, limits: Limits, share: Share) -> Result<(Self, Recovery), Error> {
        check_limits(&limits)?;
        fs::create_dir_all(dir).map_err(disk_error("create the spool's directory", dir))?;
        if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            disk::sync_dir(parent).map_err(disk_error("make durable the directory", parent))?;
        }
        let lock = lock(dir)?;
        let listing = tidy(dir).map_err(disk_error("tidy the spool's directory", dir))?;
        let ballast = disk::put_ballast(dir);
        let (high, hint) = HighFile::open(dir).map_err(disk_error("open a file of the spool", dir))?;
        let mut spool = Self {
            dir: dir.to_owned(),
            limits,
            share,
            ballast,
            high,
            segments: BTreeMap::new(),
            tail: None,
            head: None,
            next_seq: 1,
            produced: Counters::default(),
            mark: None,
            lost_root: 0,
            ledger: Ledger::default(),
            ledger_dirty: false,
            stamp: 1,
            mark_slot: 0,
            cut_pending: false,
            holes: BTreeMap::new(),
            recent: BTreeMap::new(),
            repairs: Vec::new(),
            spent: listing.spent,
            closed_bytes: 0,
            other_bytes: 0,
            quarantined: 0,
            _lock: lock,
        };
        let mut recovery = Recovery::default();
        spool.recover(listing.segments, hint, &mut recovery)?;
        recovery.repairs = spool.repairs.clone();
        Ok((spool, recovery))
    }

    fn recover(&mut self, mut names: Vec<u64>, hint: Option<High>, recovery: &mut Recovery) -> Result<(), Error> {
        let tail = self.find_tail(&mut names, hint)?;
        // No seq that may have been sent is used again: after damage we go on above all that were possible.
        let mut go_on_at = tail
            .lost_first
            .map_or(0, |first| first.saturating_add(FRAMES_PER_SEGMENT_MAX));
        let (mut ledger, mut start_lost) = (None, false);
        if let Some((loaded, first_seq)) = tail.found {
            let repaired = loaded.repair.is_some();
            self.note_repair(loaded.repair);
            let settled = loaded.settled.unwrap_or_else(|| Box::new(nothing(first_seq)));
            (self.next_seq, self.produced) = (settled.end_seq(), settled.end());
            recovery.cut_frames = settled.cut_frames;
            self.cut_pending = settled.cut_frames > 0;
            (self.stamp, self.mark_slot) = (settled.stamp_max.saturating_add(1), settled.mark_slot);
            self.mark = read_mark(&loaded.segment, settled.marks.last())?;
            ledger = settled.ledger.clone();
            start_lost = settled.start.is_none();
            let short = hint.is_some_and(|high| high.next_seq > self.next_seq);
            if short || (repaired && hint.is_none()) {
                go_on_at = go_on_at.max(first_seq.saturating_add(FRAMES_PER_SEGMENT_MAX));
            }
            Seal::remove(loaded.segment.dir()).map_err(disk_error("unseal", loaded.segment.dir()))?;
            let meta = Meta {
                before: settled.before,
                end_seq: self.next_seq,
                end: self.produced,
                disk_bytes: 0,
            };
            self.segments.insert(first_seq, meta);
            self.tail = Some(loaded.segment);
            names.pop();
            if start_lost {
                self.borrow_from_before(&names, &mut ledger)?;
            }
            // Holes begin above the floor.
            self.ledger = ledger.clone().unwrap_or_default();
            self.set_holes(first_seq, settled.before, &settled.frames, self.next_seq, self.produced);
        }
        let high = hint.unwrap_or_default();
        if go_on_at > 0 || high.next_seq > self.next_seq {
            go_on_at = go_on_at.max(high.next_seq);
        }
        recovery.mark_rewound = high.root_seq > self.mark.as_ref().map_or(0, |mark| mark.root_seq);
        if recovery.mark_rewound {
            self.lost_root = high.root_seq;
        }
        self.load_others(&names)?;
        self.settle_ledger(ledger, tail.lost_first.is_some() || start_lost);
        self.pass_spent();
        if self.ledger.watermark >= self.next_seq {
            go_on_at = go_on_at.max(self.ledger.watermark + 1);
        }
        self.finish_drops();
        self.find_gaps();
        if go_on_at > self.next_seq {
            recovery.seq_skipped = true;
            let amounts = self.produced.max(high.amounts);
            self.add_gap(self.next_seq, self.produced, go_on_at, amounts);
            self.roll_to(go_on_at, amounts)?;
        } else if self.segments.is_empty() {
            self.create_tail()?;
        } else if start_lost {
            self.store_ledger()?;
        } else if !self.spent.is_empty()
            && let Err(error) = self.store_ledger()
        {
            tracing::debug!(spool = %self.dir.display(), %error, "the watermark cannot be stored yet");
        }
        self.drop_settled_segments();
        self.measure();
        self.write_high();
        Ok(())
    }

    /// Loads the newest segment that can be loaded.
    fn find_tail(&mut self, names: &mut Vec<u64>, hint: Option<High>) -> Result<Tail, Error> {
        let mut lost_first = None;
        while let Some(&first_seq) = names.last() {
            let ask = Ask {
                first_seq,
                end_max: lost_first,
                acknowledged_below: match (lost_first, hint) {
                    (Some(_), _) => u64::MAX,
                    (None, hint) => hint.map_or(0, |high| high.next_seq),
                },
                list: true,
                distrust: false,
                copy: true,
                used: hint.is_some_and(|high| high.next_seq > first_seq),
            };
            match self.load(ask)? {
                Found::Open(loaded) => {
                    return Ok(Tail {
                        found: Some((loaded, first_seq)),
                        lost_first,
                    });
                }
                Found::Unfinished => self.retire(&[first_seq]),
                Found::Gone(repair) => {
                    self.note_repair(Some(repair));
                    lost_first = lost_first.or(Some(first_seq));
                }
            }
            names.pop();
        }
        Ok(Tail {
            found: None,
            lost_first,
        })
    }

    /// The tail lost its start: ledger and, if need be, mark come from the segment before it.
    fn borrow_from_before(&mut self, names: &[u64], ledger: &mut Option<Ledger>) -> Result<(), Error> {
        let Some(&first_seq) = names.last() else { return Ok(()) };
        if let Found::Open(loaded) = self.load(middle(first_seq, self.tail_first(), true))? {
            let Some(settled) = loaded.settled else { return Ok(()) };
            *ledger = ledger.take().or(settled.ledger);
            if self.mark.is_none() {
                self.mark = read_mark(&loaded.segment, settled.marks.last())?;
                self.cut_pending = true;
            }
        }
        Ok(())
    }

    /// Learns what the closed segments hold: from their seals, or by looking.
    fn load_others(&mut self, names: &[u64]) -> Result<(), Error> {
        // `names` is empty unless there is a tail.
        let tail_first = self.tail_first();
        for (index, &first_seq) in names.iter().enumerate() {
            let dir = self.segment_dir(first_seq);
            let end_max = names.get(index + 1).copied().unwrap_or(tail_first);
            let sealed = Seal::read(&dir).filter(|seal| (first_seq..=end_max).contains(&seal.end_seq));
            let meta = match sealed {
                Some(seal) => {
                    seal.holes.iter().for_each(|hole| self.add_hole(*hole));
                    Some(Meta {
                        before: seal.before,
                        end_seq: seal.end_seq,
                        end: seal.end,
                        disk_bytes: 0,
                    })
                }
                None => self.look_at(first_seq, end_max)?,
            };
            if let Some(meta) = meta {
                self.segments.insert(
                    first_seq,
                    Meta {
                        disk_bytes: disk::bytes_below(&dir),
                        ..meta
                    },
                );
            }
        }
        Ok(())
    }

    fn look_at(&mut self, first_seq: u64, end_max: u64) -> Result<Option<Meta>, Error> {
        match self.load(middle(first_seq, end_max, true))? {
            Found::Open(Loaded {
                segment,
                settled,
                repair,
            }) => {
                self.note_repair(repair);
                let settled = settled.unwrap_or_else(|| Box::new(nothing(first_seq)));
                let (before, end_seq, end) = (settled.before, settled.end_seq(), settled.end());
                self.set_holes(first_seq, before, &settled.frames, end_seq, end);
                let meta = Meta {
                    before,
                    end_seq,
                    end,
                    disk_bytes: 0,
                };
                self.segments.insert(first_seq, meta);
                self.seal(segment);
                Ok(Some(meta))
            }
            Found::Unfinished => Ok(None),
            Found::Gone(repair) => {
                self.note_repair(Some(repair));
                Ok(None)
            }
        }
    }

    /// Decides what became of the frames before the first segment.
    ///
    /// `stale`: the newest ledger was lost and this is an older one. Segments are only ever removed once they are
    /// settled, so what is missing at the front was, most likely, delivered since.
    fn settle_ledger(&mut self, stored: Option<Ledger>, stale: bool) {
        self.ledger_dirty = stored.is_none() || stale;
        self.ledger = stored.unwrap_or_else(|| match self.segments.first_key_value() {
            Some((first_seq, meta)) => Ledger::all_delivered_before(*first_seq, meta.before),
            // Nothing is left to tell what was delivered: all of it will count as lost.
            None => Ledger::default(),
        });
        if let Some((first_seq, meta)) = self.segments.first_key_value().filter(|_| stale)
            && *first_seq > self.ledger.floor + 1
        {
            let dropped = self.ledger.dropped_within(0, first_seq - 1);
            self.ledger.delivered += meta.before.minus(self.ledger.settled).minus(dropped).records;
            (self.ledger.floor, self.ledger.settled) = (first_seq - 1, meta.before);
            self.ledger.pass_dropped();
            self.ledger.watermark = self.ledger.watermark.max(self.ledger.floor);
        }
        let floor = self.ledger.floor;
        self.holes.retain(|_, hole| hole.last_seq > floor);
    }

    /// Removes what a crash left of segments whose drop was stored already.
    fn finish_drops(&mut self) {
        let tail_first = self.tail_first();
        for range in self.ledger.dropped_ahead.clone() {
            let first_seq = if range.first_seq == self.ledger.floor + 1 {
                0
            } else {
                range.first_seq
            };
            let left: Vec<u64> = self
                .segments
                .range(first_seq..tail_first)
                .filter(|(_, meta)| meta.end_seq > range.first_seq && meta.end_seq <= range.last_seq + 1)
                .map(|(first_seq, _)| *first_seq)
                .collect();
            if !left.is_empty() {
                self.holes
                    .retain(|_, hole| !range.covers(hole.first_seq, hole.last_seq));
                self.retire(&left);
            }
        }
    }

    /// Notes what is missing between segments, and before the first.
    fn find_gaps(&mut self) {
        let (mut next_seq, mut amounts) = (self.ledger.floor + 1, self.ledger.settled);
        let metas: Vec<(u64, Meta)> = self
            .segments
            .iter()
            .map(|(first_seq, meta)| (*first_seq, *meta))
            .collect();
        for (first_seq, meta) in metas {
            self.add_gap(next_seq, amounts, first_seq, meta.before);
            let (end_seq, end) = self.end_of(first_seq, &meta);
            if end_seq >= next_seq {
                (next_seq, amounts) = (end_seq, end);
            }
        }
    }
}

struct Tail {
    found: Option<(Loaded, u64)>,
    /// First seq of the newest segment that was lost.
    lost_first: Option<u64>,
}

/// The question for a segment that is not the tail: all in it was acknowledged.
pub(super) fn middle(first_seq: u64, end_max: u64, list: bool) -> Ask {
    Ask {
        first_seq,
        end_max: Some(end_max),
        acknowledged_below: u64::MAX,
        list,
        distrust: false,
        copy: true,
        used: true,
    }
}

fn nothing(first_seq: u64) -> Settled {
    crate::contents::settle(crate::contents::Contents::default(), first_seq, None, 0)
}

pub(super) fn read_mark(segment: &Segment, at: Option<&MarkAt>) -> Result<Option<Mark>, Error> {
    match at {
        None => Ok(None),
        Some(MarkAt::Alone(record)) => Ok(record.mark.clone()),
        Some(MarkAt::Frame { seq, .. }) => segment
            .frame_mark(*seq)
            .map_err(|fault| in_segment("read the spool's segment", segment.dir(), fault)),
    }
}

fn check_limits(limits: &Limits) -> Result<(), Error> {
    let ranges = [
        ("quota_bytes", limits.quota_bytes, QUOTA_BYTES_MIN, u64::MAX),
        (
            "segment_bytes",
            limits.segment_bytes,
            SEGMENT_BYTES_MIN,
            SEGMENT_BYTES_MAX.min(limits.quota_bytes / 8),
        ),
    ];
    for (name, value, min, max) in ranges {
        if !(min..=max).contains(&value) {
            return Err(Error::Limits { name, value, min, max });
        }
    }
    Ok(())
}

fn lock(dir: &Path) -> Result<File, Error> {
    let path = dir.join(LOCK_FILE);
    let open = || File::options().write(true).create(true).truncate(false).open(&path);
    let opened = open().or_else(|error| {
        // Not our file: a directory cannot be somebody's lock.
        if error.kind() == std::io::ErrorKind::IsADirectory {
            disk::remove(&path).and_then(|()| open())
        } else {
            Err(error)
        }
    });
    let file = opened.map_err(disk_error("open the lock of the spool", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::Locked { dir: dir.to_owned() }),
        Err(TryLockError::Error(source)) => Err(Error::Disk {
            action: "lock",
            path,
            source,
        }),
    }
}

/// Finishes what an earlier process was doing with whole directories, and lists what there is.
fn tidy(dir: &Path) -> std::io::Result<Listing> {
    let listing = Listing::read(dir)?;
    for dead in &listing.dead {
        disk::remove(dead)?;
    }
    for first_seq in &listing.new {
        let new = dir.join(format!("new.{}", segment_name(*first_seq)));
        // A rebuilt segment is complete before the damaged one is moved away.
        if listing.segments.contains(first_seq) {
            disk::remove(&new)?
        } else {
            fs::rename(&new, dir.join(segment_name(*first_seq)))?
        }
    }
    for path in &listing.foreign {
        tracing::debug!(path = %path.display(), "not part of the spool, left alone");
    }
    Listing::read(dir)
}
