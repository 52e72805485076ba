//! A spool in memory that promises what the real one promises, no more: groups are whole or not there, a watermark may be
//! forgotten by a crash, only some marks without frames are kept, damage leaves holes that are counted. Knows no disk.

use std::collections::BTreeMap;

use bus_schema::message::Frame;
use stream::{lineage::Way, tracks::Behind};

use crate::dice::Dice;

/// Frames in a segment: the unit in which room is given back.
const SEGMENT_FRAMES: u64 = 4;
/// Marks without frames that are kept: as in the real one, twice as many as there are batches in a group of the pipe. With
/// fewer, a stream could not go back to where a crash left its sibling.
const MARKS_ALONE_MAX: usize = 6;
/// Seqs left out when it is not known which were used.
const SKIPPED_SEQS: u64 = 16;

/// What the daemon keeps beside the source's position.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Book {
    /// How far the source was read.
    pub position: u64,
    /// Records given up because there was no room for them.
    pub dropped: u64,
    /// Of these, what no gap record tells yet.
    pub owed: u64,
    /// The root's seq up to which frames may have left.
    pub gone: u64,
    /// Of a track: what its turn began after.
    pub behind: Option<Behind>,
    /// Of a track: where its epoch before this one ended.
    pub ended: Option<Behind>,
    /// Of a track: the epoch of the other one when that got its turn.
    pub given: Option<u64>,
    /// What the last mark that the consumer can tell is known by.
    pub told: Option<u64>,
    /// It began at the source's beginning together with siblings.
    pub with_siblings: bool,
}

/// A frame to be appended, and what it stands for.
#[derive(Debug, Clone)]
pub struct Entry {
    /// What is sent.
    pub frame: Frame,
    /// Records it completes.
    pub records: u64,
    /// Records without a seq that it accounts for, as a gap record.
    pub owed: u64,
    /// Their numbers, for the oracle.
    pub ids: Vec<u64>,
    /// What it is known by once it is sealed.
    pub print: u64,
}

/// Frames that are durable together, with their mark.
#[derive(Debug, Clone)]
pub struct Group {
    /// In order.
    pub entries: Vec<Entry>,
    /// The root's seq.
    pub root: u64,
    /// The rest of the mark.
    pub book: Book,
}

#[derive(Debug, Clone)]
struct Mark {
    after_seq: u64,
    root: u64,
    book: Book,
    is_alone: bool,
}

#[derive(Debug, Clone, Copy)]
struct Range {
    first: u64,
    last: u64,
    records: u64,
}

#[derive(Debug, Clone, Default)]
struct Ledger {
    watermark: u64,
    floor: u64,
    settled: u64,
    delivered: u64,
    dropped: u64,
    lost: u64,
    ahead: Vec<Range>,
    holes: Vec<Range>,
}

/// What of a range of seqs will never come, in records.
#[derive(Debug, Clone, Copy, Default)]
pub struct Missing {
    /// Given up by policy.
    pub dropped: u64,
    /// Lost to damage.
    pub lost: u64,
    /// Confirmed before.
    pub settled: u64,
    /// It could not be told how many of those confirmed before belong to the range, and so none of them are counted.
    pub is_inexact: bool,
}

/// The account. In records: `produced = delivered + held + dropped + lost`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Account {
    /// Ever appended.
    pub produced: u64,
    /// Confirmed by the consumer.
    pub delivered: u64,
    /// Waiting.
    pub held: u64,
    /// Given up by policy.
    pub dropped: u64,
    /// Lost to damage.
    pub lost: u64,
}

/// One stream's spool.
#[derive(Debug, Clone)]
pub struct Spool {
    capacity_frames: usize,
    frames: BTreeMap<u64, (u64, Entry)>,
    marks: Vec<Mark>,
    next_seq: u64,
    /// Records up to and including each seq.
    amounts: BTreeMap<u64, u64>,
    ledger: Ledger,
    stored: Ledger,
    /// First seqs; the last one is appended to.
    segments: Vec<u64>,
    is_rewound: bool,
}

/// There is no room.
#[derive(Debug)]
pub struct Full;

impl Spool {
    /// An empty one.
    pub fn new(capacity_frames: usize) -> Self {
        Self {
            capacity_frames,
            frames: BTreeMap::new(),
            marks: Vec::new(),
            next_seq: 1,
            amounts: BTreeMap::from([(0, 0)]),
            ledger: Ledger::default(),
            stored: Ledger::default(),
            segments: vec![1],
            is_rewound: false,
        }
    }

    /// Nothing was ever appended.
    pub fn is_new(&self) -> bool {
        self.marks.is_empty() && self.next_seq == 1
    }

    /// The seq the next frame gets.
    pub fn next_seq(&self) -> u64 {
        self.next_seq
    }

    /// The oldest seq held.
    pub fn first_seq(&self) -> u64 {
        self.frames
            .range(self.ledger.floor + 1..)
            .next()
            .map_or(self.next_seq, |(seq, _)| *seq)
    }

    /// What the consumer confirmed.
    pub fn watermark(&self) -> u64 {
        self.ledger.watermark
    }

    /// The newest mark's root seq and bookmark.
    pub fn mark(&self) -> Option<(u64, &Book)> {
        self.marks.last().map(|mark| (mark.root, &mark.book))
    }

    /// The newest bookmark.
    pub fn book(&self) -> Book {
        self.mark().map(|(_, book)| book.clone()).unwrap_or_default()
    }

    /// Where it stands.
    pub fn account(&self) -> Account {
        let produced = self.produced();
        let ahead: u64 = self.ledger.ahead.iter().map(|range| range.records).sum();
        let holes: u64 = self.ledger.holes.iter().map(|range| range.records).sum();
        Account {
            produced,
            delivered: self.ledger.delivered,
            held: self.held().map(|entry| entry.records).sum(),
            dropped: self.ledger.dropped + ahead,
            lost: self.ledger.lost + holes,
        }
    }

    /// What waits.
    pub fn held(&self) -> impl Iterator<Item = &Entry> {
        self.frames.range(self.ledger.floor + 1..).map(|(_, (_, entry))| entry)
    }

    fn produced(&self) -> u64 {
        self.amounts_at(self.next_seq - 1)
    }

    fn amounts_at(&self, seq: u64) -> u64 {
        self.amounts.range(..=seq).next_back().map_or(0, |(_, amount)| *amount)
    }

    fn tail_first(&self) -> u64 {
        self.segments.last().copied().unwrap_or(self.next_seq)
    }

    /// Frames on disk.
    pub fn frames(&self) -> usize {
        self.frames.len()
    }

    /// From now on there is room for so many.
    pub fn set_capacity(&mut self, frames: usize) {
        self.capacity_frames = frames;
    }

    /// Whether so many frames have room.
    fn has_room(&self, frames: usize) -> bool {
        frames == 0 || self.frames.len() + frames <= self.capacity_frames
    }

    /// Appends groups: all of them, durably, or none.
    pub fn append(&mut self, groups: Vec<Group>) -> Result<(), Full> {
        if !self.has_room(groups.iter().map(|group| group.entries.len()).sum()) {
            return Err(Full);
        }
        self.is_rewound &= groups.is_empty();
        for group in groups {
            debug_assert!(self.mark().is_none_or(|(root, _)| root <= group.root));
            self.append_one(group);
        }
        self.stored = self.ledger.clone();
        Ok(())
    }

    /// What a power cut leaves of an append that was under way: some of the first groups.
    pub fn tear(&mut self, groups: Vec<Group>, dice: &mut Dice) {
        let kept = dice.below(groups.len() as u64 + 1) as usize;
        let groups: Vec<Group> = groups.into_iter().take(kept).collect();
        let _ = self.append(groups);
    }

    fn append_one(&mut self, group: Group) {
        if self.next_seq - self.tail_first() >= SEGMENT_FRAMES {
            self.segments.push(self.next_seq);
        }
        let is_alone = group.entries.is_empty();
        for entry in group.entries {
            let amount = self.produced() + entry.records;
            self.amounts.insert(self.next_seq, amount);
            self.frames.insert(self.next_seq, (group.root, entry));
            self.next_seq += 1;
        }
        self.marks.push(Mark {
            after_seq: self.next_seq - 1,
            root: group.root,
            book: group.book,
            is_alone,
        });
        let alone = self.marks.iter().filter(|mark| mark.is_alone).count();
        if alone > MARKS_ALONE_MAX
            && let Some(oldest) = self.marks.iter().position(|mark| mark.is_alone)
        {
            self.marks.remove(oldest);
        }
    }

    /// What the frame with this seq is known by, if it is here.
    pub fn print_of(&self, seq: u64) -> Option<u64> {
        let kept = self.frames.get(&seq).filter(|_| seq > self.ledger.floor);
        kept.map(|(_, entry)| entry.print)
    }

    /// Frames from `seq` on, at most up to `through`, each with what it is known by.
    pub fn read(&self, seq: u64, through: u64, count: usize) -> Vec<(u64, u64, Frame)> {
        let from = seq.max(self.ledger.floor + 1);
        let frames = self.frames.range(from..).take_while(|(seq, _)| **seq <= through);
        frames
            .take(count)
            .map(|(seq, (_, entry))| (*seq, entry.print, entry.frame.clone()))
            .collect()
    }

    /// The first frame held above `seq`.
    pub fn next_held(&self, seq: u64) -> Option<u64> {
        let from = seq.max(self.ledger.floor) + 1;
        self.frames.range(from..).next().map(|(seq, _)| *seq)
    }

    /// What of a range will never come. `accounted`: what the consumer has accounted for of what is before it.
    pub fn missing(&self, first: u64, last: u64, accounted: Option<u64>) -> Missing {
        let ledger = &self.ledger;
        let mut missing = Missing::default();
        let is_over_floor = (first..=last).contains(&ledger.floor);
        missing.is_inexact = is_over_floor && first > 1 && accounted.is_none();
        if is_over_floor && first > 1 {
            missing.settled = accounted.map_or(0, |records| ledger.settled.saturating_sub(records));
        }
        if is_over_floor && first <= 1 {
            missing.dropped = ledger.dropped;
            missing.lost = ledger.lost;
            missing.settled = ledger.delivered;
        }
        let ended = |range: &&Range| (first..=last).contains(&range.last);
        missing.dropped += ledger
            .ahead
            .iter()
            .filter(ended)
            .map(|range| range.records)
            .sum::<u64>();
        for hole in self.ledger.holes.iter().filter(ended) {
            let before = self.amounts_at(hole.first.max(first) - 1) - self.amounts_at(hole.first - 1);
            missing.lost += hole.records.saturating_sub(before);
        }
        missing
    }

    /// Everything up to here is confirmed. Returns the records let go of.
    pub fn trim(&mut self, watermark: u64) -> Result<Vec<u64>, String> {
        if watermark >= self.next_seq {
            return Err(format!("watermark {watermark} is ahead of {}", self.next_seq - 1));
        }
        self.ledger.watermark = self.ledger.watermark.max(watermark);
        if watermark <= self.ledger.floor {
            return Ok(Vec::new());
        }
        let floor = watermark;
        let gone: Vec<&Entry> = self
            .frames
            .range(self.ledger.floor + 1..=floor)
            .map(|(_, (_, entry))| entry)
            .collect();
        let ids = gone.iter().flat_map(|entry| entry.ids.iter().copied()).collect();
        let mut holes = std::mem::take(&mut self.ledger.holes);
        // If it lies in a hole and was confirmed, what is below it went out before the damage.
        if let Some(hole) = holes.iter_mut().find(|hole| hole.first <= floor && hole.last > floor) {
            let got = self.amounts_at(floor) - self.amounts_at(hole.first - 1);
            hole.records -= got.min(hole.records);
            hole.first = floor + 1;
        }
        let below = |ranges: &mut Vec<Range>| -> u64 {
            let sum = ranges
                .iter()
                .filter(|range| range.last <= floor)
                .map(|range| range.records)
                .sum();
            ranges.retain(|range| range.last > floor);
            sum
        };
        let (dropped, lost) = (below(&mut self.ledger.ahead), below(&mut holes));
        self.ledger.holes = holes;
        let settled = self.amounts_at(floor);
        self.ledger.dropped += dropped;
        self.ledger.lost += lost;
        self.ledger.delivered += settled - self.ledger.settled - dropped - lost;
        self.ledger.settled = settled;
        self.ledger.floor = floor;
        self.remove_settled();
        Ok(ids)
    }

    fn remove_settled(&mut self) {
        let floor = self.ledger.floor;
        let settled = self.segments.windows(2).take_while(|pair| pair[1] <= floor + 1).count();
        if settled > 0 {
            self.stored = self.ledger.clone();
            let first = self.segments[settled];
            self.segments.drain(..settled);
            self.frames = self.frames.split_off(&first);
            self.forget_marks();
        }
    }

    /// A segment keeps a copy of the mark it was begun with; older ones go with theirs.
    fn forget_marks(&mut self) {
        let first = self.segments.first().copied().unwrap_or(1);
        let copies = self.marks.iter().filter(|mark| mark.after_seq < first).count();
        self.marks.drain(..copies.saturating_sub(1));
    }

    /// Gives up the oldest frames that were never sent, in whole segments. Returns their records, and
    /// what gap records among them accounted for; `None` when there was nothing to give up.
    pub fn drop_oldest(&mut self, sent_through: u64) -> Option<(Vec<u64>, u64)> {
        let sent = sent_through.max(self.ledger.floor);
        let is_unsent = |first: &u64| *first > sent;
        if self.next_seq > self.tail_first() && self.segments.iter().filter(|first| is_unsent(first)).count() == 1 {
            self.segments.push(self.next_seq);
        }
        let found = self.segments.windows(2).position(|pair| is_unsent(&pair[0]))?;
        let (first, last) = (self.segments[found], self.segments[found + 1] - 1);
        let dropped: Vec<(u64, (u64, Entry))> = self
            .frames
            .range(first..=last)
            .map(|(seq, kept)| (*seq, kept.clone()))
            .collect();
        if dropped.is_empty() {
            return None;
        }
        let records = dropped.iter().map(|(_, (_, entry))| entry.records).sum();
        self.ledger.ahead.push(Range { first, last, records });
        self.stored = self.ledger.clone();
        dropped.iter().for_each(|(seq, _)| {
            self.frames.remove(seq);
        });
        self.segments.remove(found);
        // The marks of what is gone, but for the newest of all.
        let newest = self.marks.last().cloned();
        self.marks
            .retain(|mark| mark.after_seq < first || mark.after_seq > last);
        if self.marks.last().map(|mark| mark.after_seq) != newest.as_ref().map(|mark| mark.after_seq) {
            self.marks.extend(newest);
        }
        let owed = dropped.iter().map(|(_, (_, entry))| entry.owed).sum();
        Some((
            dropped.into_iter().flat_map(|(_, (_, entry))| entry.ids).collect(),
            owed,
        ))
    }

    /// The last frame that a roll-back leaves, and how many marks; `None` when it is barred.
    fn cut_at(&self, root: u64) -> Option<(u64, usize)> {
        let kept = self.marks.iter().rposition(|mark| mark.root <= root);
        let after_seq = match kept {
            Some(index) => self.marks[index].after_seq,
            None if self.segments.first() == Some(&1) => 0,
            None => return None,
        };
        let given_up = self.ledger.ahead.last().map_or(0, |range| range.last);
        let marks = kept.map_or(0, |index| index + 1);
        (after_seq >= self.ledger.floor.max(given_up)).then_some((after_seq, marks))
    }

    /// Where a roll-back would lead.
    pub fn way_back(&self, root: u64) -> Way {
        let newest = self.mark().map_or(0, |(newest, _)| newest);
        if newest <= root {
            return Way::Whole(newest);
        }
        let Some((after_seq, marks)) = self.cut_at(root) else {
            return Way::Barred;
        };
        let found = marks.checked_sub(1).map_or(0, |index| self.marks[index].root);
        // The first group behind it ends with the next mark that is left.
        let next = self.marks[marks..].iter().find(|mark| mark.after_seq > after_seq);
        let end = next.map_or(self.next_seq - 1, |mark| mark.after_seq);
        let is_torn = self
            .ledger
            .holes
            .iter()
            .any(|hole| hole.first <= end && hole.last > after_seq);
        if is_torn && found < root {
            Way::Further(found)
        } else {
            Way::Whole(found)
        }
    }

    /// Removes every group above a root seq, or more: see [`Self::way_back`].
    pub fn truncate_after(&mut self, root: u64) -> Result<(), String> {
        if self.mark().is_none_or(|(newest, _)| newest <= root) {
            return Ok(());
        }
        let Some((after_seq, marks)) = self.cut_at(root) else {
            return Err(format!("there is no way back to {root}"));
        };
        self.cut(after_seq, marks);
        self.stored = self.ledger.clone();
        Ok(())
    }

    fn cut(&mut self, after_seq: u64, marks: usize) {
        self.marks.truncate(marks);
        self.frames.retain(|seq, _| *seq <= after_seq);
        self.amounts.retain(|seq, _| *seq <= after_seq);
        self.ledger.holes.retain(|hole| hole.first <= after_seq);
        self.next_seq = after_seq + 1;
        let tail = self
            .segments
            .iter()
            .rposition(|first| *first <= after_seq + 1)
            .unwrap_or(0);
        self.segments.truncate(tail + 1);
    }

    /// Power fails: the watermark may be an older one when it comes back.
    pub fn crash(&mut self, dice: &mut Dice) {
        if dice.once_in(2) {
            self.ledger = self.stored.clone();
        } else {
            self.stored = self.ledger.clone();
        }
    }

    /// A segment other than the tail becomes unreadable. Returns the records lost.
    pub fn damage_middle(&mut self, dice: &mut Dice) -> Vec<u64> {
        if self.segments.len() < 2 {
            return Vec::new();
        }
        let index = dice.below(self.segments.len() as u64 - 1) as usize;
        let first = self.segments[index].max(self.ledger.floor + 1);
        let last = self.segments[index + 1] - 1;
        let gone: Vec<u64> = self
            .frames
            .range(first..)
            .map(|(seq, _)| *seq)
            .take_while(|seq| *seq <= last)
            .collect();
        let (Some(from), Some(to)) = (gone.first().copied(), gone.last().copied()) else {
            return Vec::new();
        };
        let entries: Vec<Entry> = gone
            .iter()
            .filter_map(|seq| self.frames.remove(seq))
            .map(|(_, entry)| entry)
            .collect();
        let records = entries.iter().map(|entry| entry.records).sum();
        self.ledger.holes.push(Range {
            first: from,
            last: to,
            records,
        });
        self.ledger.holes.sort_by_key(|hole| hole.first);
        self.marks.retain(|mark| mark.after_seq < from || mark.after_seq >= to);
        self.stored = self.ledger.clone();
        entries.into_iter().flat_map(|entry| entry.ids).collect()
    }

    /// The newest groups become unreadable. Returns the records lost; they may have been sent.
    pub fn damage_tail(&mut self, dice: &mut Dice) -> Vec<u64> {
        let back = 1 + dice.below(2) as usize;
        let Some(index) = self.marks.len().checked_sub(1 + back) else {
            return Vec::new();
        };
        let after_seq = self.marks[index].after_seq;
        if after_seq < self.ledger.floor || self.ledger.ahead.iter().any(|range| range.last > after_seq) {
            return Vec::new();
        }
        let ids = self
            .frames
            .range(after_seq + 1..)
            .flat_map(|(_, (_, entry))| entry.ids.clone())
            .collect();
        let (old_next, produced) = (self.next_seq, self.produced());
        let holes = std::mem::take(&mut self.ledger.holes);
        let (before, after): (Vec<Range>, Vec<Range>) = holes.into_iter().partition(|hole| hole.first <= after_seq);
        self.ledger.holes = before;
        let records = produced - self.amounts_at(after_seq);
        self.cut(after_seq, index + 1);
        let first = after
            .first()
            .map_or(after_seq + 1, |hole| hole.first.min(after_seq + 1));
        let next = old_next + SKIPPED_SEQS;
        self.ledger.holes.push(Range {
            first,
            last: next - 1,
            records,
        });
        self.amounts.insert(next - 1, produced);
        self.next_seq = next;
        self.segments.push(next);
        self.stored = self.ledger.clone();
        self.is_rewound = true;
        ids
    }

    /// Acknowledged groups at the end were found lost, and nothing newer has been appended since.
    pub fn is_rewound(&self) -> bool {
        self.is_rewound
    }

    /// The records of a frame.
    pub fn ids_at(&self, seq: u64) -> Vec<u64> {
        self.frames
            .get(&seq)
            .map(|(_, entry)| entry.ids.clone())
            .unwrap_or_default()
    }

    /// What the frames from `from` on account for.
    pub fn appended_from(&self, from: u64) -> Vec<(u64, u64)> {
        let frames = self.frames.range(from..);
        frames
            .map(|(seq, (_, entry))| (*seq, entry.records + entry.owed))
            .collect()
    }
}
