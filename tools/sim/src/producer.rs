//! The producing daemon: a pipe from the source into its streams, and a courier for each. Does around the real decisions what
//! the daemon does around them, step by step, so that it can die between any two.

use std::collections::VecDeque;

use bus_schema::{
    key::SecretKey,
    message::{Frame, Resume, SourceMark, StreamAck},
};
use flow::{
    Position, Watermark,
    levelling::{Standing, levelling, order},
};
use stream::{
    flight::Flight,
    lineage::{self, Back, next_epoch},
    tracks::{self, Behind, TrackPosition},
};

use crate::{
    batches,
    setting::{Mistake, Policy},
    spool::{Book, Entry, Full, Group, Spool},
    tracks::BACKLOG_FRAMES_MIN,
    world::{Stop, World},
};

/// A stream's key and epoch, as the daemon keeps them beside the spool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lineage {
    /// One lineage of seqs.
    pub epoch: u64,
    /// Frames are sealed with it.
    pub key: SecretKey,
    /// Frames may have been written under it.
    pub begun: bool,
    /// An older lineage was lost: the consumer knows how far the source was read.
    pub asks: bool,
    /// Nothing was found of an older one.
    pub is_first: bool,
    /// The one before it was an older copy.
    pub was_copy: bool,
    /// The spool beside it is of an older one, and is yet to be set aside.
    pub clears: bool,
}

/// One stream's producing end, in memory.
#[derive(Debug)]
pub(crate) struct Out {
    pub(crate) flight: Flight,
    pub(crate) released: u64,
    /// The root's seq up to which frames may have left.
    pub(crate) gone: u64,
    /// The highest seq that may be on its way.
    pub(crate) sent: u64,
    pub(crate) acks: VecDeque<StreamAck>,
    pub(crate) answer: Option<(u64, Option<Resume>)>,
    /// Goes up when the stream begins anew.
    pub(crate) life: u64,
    /// The life that the pipe knows.
    pub(crate) pipe_life: u64,
    /// Its consumer was away while a backlog grew.
    pub(crate) had_outage: bool,
    /// Its consumer makes records durable.
    pub(crate) moves: bool,
    pub(crate) appended: u64,
    /// The pipe's watermark at this leaf.
    pub(crate) mark_seq: u64,
}

/// What was read in one go.
#[derive(Debug, Clone)]
struct Work {
    seq: u64,
    position: u64,
    ids: Vec<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Level,
    Read,
    Write(usize),
    Commit(usize),
}

/// The daemon, while it lives.
#[derive(Debug)]
pub struct Producer {
    pub(crate) outs: Vec<Out>,
    phase: Phase,
    group: Vec<Work>,
    seq: u64,
    position: u64,
}

/// How a write ended that did not kill anybody.
enum Wrote {
    Done,
    Full,
    Moved,
}

fn position(bytes: &[u8]) -> u64 {
    bytes.try_into().map_or(0, u64::from_be_bytes)
}

/// Frames that a track has room for, whatever the other one takes.
const TRACK_FRAMES_MIN: usize = 12;

fn mark_of(root_seq: u64, position: u64, behind: Option<Option<Behind>>) -> SourceMark {
    let position = position.to_be_bytes().to_vec();
    let position = match behind {
        Some(behind) => TrackPosition { position, behind }.encode(),
        None => position,
    };
    SourceMark { root_seq, position }
}

/// A consumer's word about the source: its place, and what a track's turn began after.
pub(crate) fn told_position(mark: &SourceMark) -> (u64, Option<Behind>) {
    let track = TrackPosition::decode(&mark.position);
    (position(&track.position), track.behind)
}

/// Which records a destination takes: the second one has a filter before it.
pub fn takes(leaf: usize, id: u64) -> bool {
    leaf == 0 || !id.is_multiple_of(4)
}

impl Producer {
    /// Nothing is left to do.
    pub fn is_idle(&self, world: &World) -> bool {
        let read = if world.setting.replays {
            self.position
        } else {
            world.unread - 1
        };
        self.phase == Phase::Read && read >= world.produced
    }

    /// Where it is, for people.
    pub fn describe(&self) -> String {
        format!("the pipe is at {:?}, position {}", self.phase, self.position)
    }
}

impl World {
    pub(crate) fn dies<T>(&mut self, done: Result<T, Stop>) -> Result<Option<T>, String> {
        match done {
            Ok(done) => Ok(Some(done)),
            Err(Stop::Crash) => {
                self.kill_producer("in the middle");
                Ok(None)
            }
            Err(Stop::Broken(broken)) => Err(broken),
        }
    }

    pub(crate) fn out(&mut self, stream: usize) -> Option<&mut Out> {
        self.producer.as_mut().map(|producer| &mut producer.outs[stream])
    }

    /// The pipe does one step; a dead daemon starts.
    pub fn producer_turn(&mut self) -> Result<(), String> {
        if self.producer.is_none() {
            let started = self.start_producer();
            return self.dies(started).map(|_| ());
        }
        let step = self.pipe_step();
        self.dies(step).map(|_| ())
    }

    fn start_producer(&mut self) -> Result<(), Stop> {
        self.boot += 1;
        let boot = self.boot;
        self.say(|| format!("the producer's daemon starts for the {boot}. time"));
        for stream in 0..self.streams.len() {
            self.open_stream(stream)?;
        }
        let mut outs: Vec<Out> = (0..self.streams.len()).map(|stream| self.make_out(stream, 0)).collect();
        for (out, lanes) in outs.iter_mut().zip(&self.streams) {
            if lanes.spool.is_rewound() {
                // What came after this mark is lost here, and may have been sent.
                out.gone = lanes.spool.mark().map_or(0, |(root, _)| root + 1);
            }
        }
        self.producer = Some(Producer {
            outs,
            phase: Phase::Level,
            group: Vec::new(),
            seq: 0,
            position: 0,
        });
        Ok(())
    }

    pub(crate) fn make_out(&self, stream: usize, life: u64) -> Out {
        let lanes = &self.streams[stream];
        let epoch = lanes.lineage.as_ref().map_or(0, |lineage| lineage.epoch);
        let mut flight = Flight::new(epoch, lanes.spool.watermark(), self.now);
        flight.connected(self.is_up, self.now);
        Out {
            flight,
            released: lanes.spool.watermark(),
            gone: 0,
            sent: lanes.spool.next_seq() - 1,
            acks: VecDeque::new(),
            answer: None,
            life,
            pipe_life: life,
            had_outage: lanes.spool.held().count() >= BACKLOG_FRAMES_MIN,
            moves: false,
            appended: 0,
            mark_seq: 0,
        }
    }

    pub(crate) fn make_lineage(&mut self, epoch: u64, asks: bool) -> Lineage {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&self.dice.roll().to_be_bytes());
        Lineage {
            epoch,
            key: SecretKey::new(key),
            begun: asks,
            asks,
            is_first: false,
            was_copy: false,
            clears: false,
        }
    }

    /// As the daemon opens a stream's files.
    fn open_stream(&mut self, stream: usize) -> Result<(), Stop> {
        let is_new = self.streams[stream].spool.is_new();
        let lineage = match (self.streams[stream].lineage.clone(), is_new) {
            (Some(lineage), _) if lineage.clears => lineage,
            (Some(lineage), true) if !lineage.begun => lineage,
            (Some(lineage), false) => lineage,
            (None, true) => Lineage {
                is_first: true,
                ..self.make_lineage(next_epoch(self.boot, 0), false)
            },
            (found, _) => {
                let last = found.map_or(0, |lineage| lineage.epoch);
                let asks = self.setting.replays && !self.setting.has(Mistake::NotAsked);
                let lineage = self.make_lineage(next_epoch(self.boot, last), asks);
                let epoch = lineage.epoch;
                self.say(|| format!("stream {stream} lost something: epoch {epoch} begins"));
                Lineage {
                    clears: !is_new,
                    ..lineage
                }
            }
        };
        self.clear(stream, lineage, 0)
    }

    /// Stores a lineage, and sets the spool of an older one aside if that is yet to be done.
    pub(crate) fn clear(&mut self, stream: usize, lineage: Lineage, gone: u64) -> Result<(), Stop> {
        self.streams[stream].lineage = Some(lineage.clone());
        if lineage.clears {
            self.point("between a lineage and its spool")?;
            self.replace_spool(stream, gone);
            self.point("between a new spool and the note that it is there")?;
            self.streams[stream].lineage = Some(Lineage {
                clears: false,
                ..lineage
            });
        }
        Ok(())
    }

    /// What was held is given up; of a source that can read again it comes again. `gone`: the root's seq up to which frames may
    /// have left, as far as that is known besides.
    fn replace_spool(&mut self, stream: usize, gone: u64) {
        let lanes = &mut self.streams[stream];
        let mut spool = Spool::new(self.setting.capacity_frames);
        let lost = lanes.spool.mark().map_or(0, |(root, _)| root + 1);
        let lost = if lanes.spool.is_rewound() { lost } else { 0 };
        if let (Some((root, book)), false) = (lanes.spool.mark(), self.setting.replays) {
            let held = lanes.spool.account().held;
            lanes
                .oracle
                .dropped
                .extend(lanes.spool.held().flat_map(|entry| entry.ids.iter().copied()));
            let book = Book {
                position: book.position,
                dropped: book.owed + held,
                owed: book.owed + held,
                gone: book.gone.max(gone).max(lost),
                ..Book::default()
            };
            let _ = spool.append(vec![Group {
                entries: Vec::new(),
                root,
                book,
            }]);
        }
        lanes.spool = spool;
    }

    fn pipe_step(&mut self) -> Result<(), Stop> {
        let Some(producer) = &self.producer else { return Ok(()) };
        match producer.phase {
            Phase::Level => self.level(),
            Phase::Read => {
                // Noticed while nothing comes, too.
                if (0..self.setting.leaves).any(|leaf| self.has_moved(leaf)) {
                    self.set_phase(Phase::Level);
                } else {
                    self.read();
                }
                Ok(())
            }
            Phase::Write(leaf) => {
                let next = match self.write(leaf)? {
                    Wrote::Done if leaf + 1 < self.setting.leaves => Phase::Write(leaf + 1),
                    Wrote::Done => Phase::Commit(0),
                    Wrote::Full => Phase::Write(leaf),
                    Wrote::Moved => Phase::Level,
                };
                self.set_phase(next);
                Ok(())
            }
            Phase::Commit(leaf) => self.commit(leaf),
        }
    }

    fn set_phase(&mut self, phase: Phase) {
        if let Some(producer) = &mut self.producer {
            producer.phase = phase;
        }
    }

    fn read(&mut self) {
        let (replays, produced, unread) = (self.setting.replays, self.produced, self.unread);
        let works = 1 + self.dice.below(3);
        for _ in 0..works {
            let most = self.dice.between(1, 5);
            let Some(producer) = &mut self.producer else { return };
            let first = if replays {
                producer.position + 1
            } else {
                self.unread.max(unread)
            };
            let last = produced.min(first + most - 1);
            if first > last {
                break;
            }
            producer.seq += 1;
            producer.position = last;
            producer.phase = Phase::Write(0);
            producer.group.push(Work {
                seq: producer.seq,
                position: last,
                ids: (first..=last).collect(),
            });
            self.unread = last + 1;
        }
        if let Some(producer) = &self.producer
            && let (Some(first), Some(last)) = (producer.group.first(), producer.group.last())
        {
            self.say(|| {
                format!(
                    "read: batches {} to {}, records {} to {}",
                    first.seq, last.seq, first.ids[0], last.position
                )
            });
            if self.setting.has(Mistake::SourceCommitFirst) {
                self.accept();
            }
        }
    }

    /// The records in hand are durable everywhere.
    fn accept(&mut self) {
        let Some(producer) = &self.producer else { return };
        let tracks = self.setting.tracks();
        // In the books of the first track, whichever has them.
        for (leaf, stream) in self.streams.iter_mut().step_by(tracks).enumerate() {
            let ids = producer.group.iter().flat_map(|work| work.ids.iter().copied());
            stream.oracle.accepted.extend(ids.filter(|id| takes(leaf, *id)));
        }
    }

    /// Brings the leaves to one mark, as the runner does before it reads.
    fn level(&mut self) -> Result<(), Stop> {
        let mut standings = Vec::new();
        for leaf in 0..self.setting.leaves {
            if !self.settle(leaf)? {
                return Ok(());
            }
            standings.push(self.standing(leaf));
        }
        let mut to = levelling(&standings);
        if self.setting.has(Mistake::NotLevelled)
            && let Some(highest) = standings.iter().max_by_key(|standing| standing.mark.seq)
        {
            to.to = highest.mark.clone();
            to.rewinds = false;
            to.is_damage = false;
        }
        let place = position(to.to.position.as_bytes());
        self.say(|| format!("the pipe goes on at batch {}, position {place}", to.to.seq));
        if to.to.seq == 1 && place == 0 && self.setting.leaves > 1 && self.setting.faults.spool_lost {
            // Of none of them there may be a trace, and everything is read again; what left before may yet arrive.
            self.streams
                .iter_mut()
                .for_each(|lanes| lanes.oracle.may_repeat_above(0));
            self.has_jumped = true;
        }
        if to.is_damage {
            self.has_jumped |= self.setting.leaves > 1;
            self.streams
                .iter_mut()
                .for_each(|stream| stream.oracle.may_repeat_above(place));
        }
        for leaf in order(&standings) {
            self.point("between two leaves that are brought together")?;
            if to.rewinds && self.standing(leaf).mark.seq > to.to.seq && !self.rewind(leaf, to.to.seq)? {
                return Ok(());
            }
            if self.standing(leaf).mark.seq < to.to.seq {
                let only = Work {
                    seq: to.to.seq,
                    position: place,
                    ids: Vec::new(),
                };
                if matches!(self.append(leaf, &[only])?, Wrote::Full) {
                    return Err(Stop::Broken(format!(
                        "a mark without frames has no room in leaf {leaf}"
                    )));
                }
            }
        }
        for lanes in 0..self.streams.len() {
            let last = self.streams[lanes].spool.next_seq() - 1;
            self.let_go(lanes);
            if let Some(out) = self.out(lanes) {
                (out.appended, out.released, out.mark_seq) = (last, last, to.to.seq);
                out.flight.released(last);
            }
        }
        if let Some(producer) = &mut self.producer {
            (producer.seq, producer.position) = (to.to.seq, place);
            producer.group.clear();
            producer.phase = Phase::Read;
        }
        Ok(())
    }

    pub(crate) fn newest(&self, stream: usize) -> u64 {
        self.streams[stream].spool.mark().map_or(0, |(root, _)| root)
    }

    /// The track that was written to last.
    pub(crate) fn current(&self, leaf: usize) -> usize {
        let first = leaf * self.setting.tracks();
        if self.setting.live_first {
            first + tracks::current([self.newest(first), self.newest(first + 1)])
        } else {
            first
        }
    }

    fn standing(&mut self, leaf: usize) -> Standing {
        let mark = self.streams[self.current(leaf)].spool.mark();
        let mark = mark.map(|(root, book)| Watermark {
            seq: root,
            position: Position::new(book.position.to_be_bytes()),
            ..Watermark::default()
        });
        let mark = mark.unwrap_or_default();
        let mut gone_out = 0;
        for stream in self.setting.tracks_of(leaf * self.setting.tracks()) {
            gone_out = gone_out.max(self.streams[stream].spool.book().gone);
            if let Some(out) = self.out(stream) {
                out.pipe_life = out.life;
                gone_out = gone_out.max(out.gone);
            }
        }
        if self.setting.live_first && !self.setting.replays {
            let first = leaf * self.setting.tracks();
            let found = [self.found(first, &None), self.found(first + 1, &None)];
            if tracks::has_lost_a_turn(&found) {
                gone_out = gone_out.max(mark.seq + 1);
            }
        }
        Standing { mark, gone_out }
    }

    /// False when it cannot, and all have to be brought together anew.
    fn rewind(&mut self, leaf: usize, seq: u64) -> Result<bool, Stop> {
        let current = self.current(leaf);
        let mut tracks: Vec<usize> = self.setting.tracks_of(current).collect();
        tracks.sort_by_key(|stream| *stream != current);
        for stream in tracks {
            if self.newest(stream) > seq && !self.go_back(stream, seq)? {
                return Ok(false);
            }
            self.point("between two tracks that go back")?;
        }
        Ok(true)
    }

    fn go_back(&mut self, stream: usize, seq: u64) -> Result<bool, Stop> {
        let gone = self.out(stream).map_or(0, |out| out.gone);
        let lanes = &self.streams[stream];
        let (way, book) = (lanes.spool.way_back(seq), lanes.spool.book());
        let step = lineage::back(way, gone.max(book.gone), book.dropped, self.setting.replays);
        self.say(|| format!("stream {stream} goes back to batch {seq}: {way:?}, {step:?}"));
        if !matches!(step, Back::To) && !lanes.is_damaged && book.dropped == 0 {
            return Err(Stop::Broken(format!(
                "stream {stream} cannot go back to {seq} though nothing was damaged"
            )));
        }
        match step {
            Back::To | Back::Further => {
                let lanes = &mut self.streams[stream];
                lanes.spool.truncate_after(seq)?;
                let epoch = lanes.lineage.as_ref().map_or(0, |lineage| lineage.epoch);
                lanes.oracle.truncated(epoch, lanes.spool.next_seq());
            }
            Back::Anew => {
                self.excuse_second_loss();
                self.start_over(stream, 0)?;
            }
            Back::Stays => self.let_go(stream),
        }
        Ok(step == Back::To)
    }

    fn has_moved(&mut self, leaf: usize) -> bool {
        let mut streams = self.setting.tracks_of(leaf * self.setting.tracks());
        streams.any(|stream| self.out(stream).is_some_and(|out| out.pipe_life != out.life))
    }

    fn write(&mut self, leaf: usize) -> Result<Wrote, Stop> {
        if self.has_moved(leaf) {
            return Ok(Wrote::Moved);
        }
        let Some(producer) = &self.producer else {
            return Ok(Wrote::Moved);
        };
        let streams = self.setting.tracks_of(leaf * self.setting.tracks());
        let mark_seq = producer.outs[streams.start].mark_seq;
        let fresh: Vec<Work> = producer
            .group
            .iter()
            .filter(|work| work.seq > mark_seq)
            .cloned()
            .collect();
        let wrote = self.append(leaf, &fresh)?;
        if let Wrote::Done = wrote {
            let leaks = self.setting.has(Mistake::SentBeforeSiblings);
            for stream in streams {
                let last = self.streams[stream].spool.next_seq() - 1;
                if let Some(out) = self.out(stream) {
                    out.appended = last;
                    if leaks {
                        out.released = last;
                        out.flight.released(last);
                    }
                }
            }
        }
        Ok(wrote)
    }

    /// Makes batches into frames: what was given up before comes before what follows it.
    fn seal(&mut self, stream: usize, works: &[Work], turn: Option<Behind>) -> (Vec<Group>, Book) {
        let (leaf, live_first) = (stream / self.setting.tracks(), self.setting.live_first);
        let gone = self.out(stream).map_or(0, |out| out.gone);
        let tells = !self.setting.has(Mistake::GapUntold);
        let spool = &self.streams[stream].spool;
        let (mut book, mut seq) = (spool.book(), spool.next_seq());
        book.behind = turn.or(book.behind);
        book.given = None;
        if let (None, Some(first)) = (spool.mark(), works.first()) {
            book.with_siblings = first.seq == 1 && first.position == 0;
        }
        let mut groups = Vec::new();
        for work in works {
            let ids: Vec<u64> = work.ids.iter().copied().filter(|id| takes(leaf, *id)).collect();
            let mark = mark_of(work.seq, work.position, live_first.then_some(book.behind));
            if !ids.is_empty() {
                book.told = Some(tracks::print(&mark));
            }
            let mut entries = batches::entries(&ids, mark, &mut self.dice);
            if book.owed > 0 {
                entries.insert(0, owed_gap(seq, &mut book, tells, self.dice.roll()));
            }
            seq += entries.len() as u64;
            book.position = work.position;
            book.gone = book.gone.max(gone);
            groups.push(Group {
                entries,
                root: work.seq,
                book: book.clone(),
            });
        }
        (groups, book)
    }

    fn append(&mut self, leaf: usize, works: &[Work]) -> Result<Wrote, Stop> {
        if works.is_empty() {
            return Ok(Wrote::Done);
        }
        let (stream, turn) = self.turn(leaf);
        let written = stream;
        if let Some(lineage) = &mut self.streams[stream].lineage {
            lineage.begun = true;
        }
        self.point("before an append")?;
        let (mut groups, _) = self.seal(stream, works, turn);
        if self.is_stormy && self.setting.faults.crashes && self.dice.once_in(80) {
            self.say(|| format!("the power fails while stream {stream} is appended to"));
            let before = self.streams[stream].spool.next_seq();
            self.streams[stream].spool.tear(groups, &mut self.dice);
            self.note_appended(stream, before);
            return Err(Stop::Crash);
        }
        let before = self.streams[stream].spool.next_seq();
        self.share_room(stream);
        while let Err(Full) = self.streams[stream].spool.append(groups.clone()) {
            match self.setting.policy {
                Policy::Block => return Ok(Wrote::Full),
                Policy::DropOldest => {
                    // What the other track has is older.
                    let others = self.setting.tracks_of(stream).filter(|other| *other != stream);
                    let order: Vec<usize> = others.chain([stream]).collect();
                    let dropped = order.into_iter().find_map(|stream| {
                        let sent = self.out(stream).map_or(0, |out| out.sent);
                        let dropped = self.streams[stream].spool.drop_oldest(sent)?;
                        Some((stream, dropped))
                    });
                    let Some((stream, (ids, owed))) = dropped else {
                        return Ok(Wrote::Full);
                    };
                    if owed > 0 {
                        // A gap record that was never sent counts nothing in the spool.
                        self.streams[stream].oracle.inexact = Some("a gap record was given up");
                    }
                    self.say(|| format!("stream {stream} is full: records {ids:?} are given up"));
                    self.streams[stream].oracle.dropped.extend(ids);
                    self.share_room(written);
                }
                Policy::DropNewest => self.give_up(stream, &mut groups),
            }
        }
        self.note_appended(stream, before);
        self.point("after an append")?;
        Ok(Wrote::Done)
    }

    /// Of two tracks, one has the room that the other leaves.
    fn share_room(&mut self, stream: usize) {
        let others = self.setting.tracks_of(stream).filter(|other| *other != stream);
        let taken: usize = others.map(|other| self.streams[other].spool.frames()).sum();
        let left = self.setting.capacity_frames.saturating_sub(taken).max(TRACK_FRAMES_MIN);
        self.streams[stream].spool.set_capacity(left);
    }

    /// Takes the frames out of groups that have no room.
    fn give_up(&mut self, stream: usize, groups: &mut [Group]) {
        let lanes = &mut self.streams[stream];
        let old = lanes.spool.book();
        let mut sum = 0;
        for group in groups.iter_mut() {
            let given_up: u64 = group.entries.iter().map(|entry| entry.records).sum();
            sum += given_up;
            lanes
                .oracle
                .dropped
                .extend(group.entries.drain(..).flat_map(|entry| entry.ids));
            group.book.dropped = old.dropped + sum;
            group.book.owed = old.owed + sum;
        }
        self.say(|| format!("stream {stream} is full: the newest {sum} records are given up"));
    }

    /// Tells the oracle what the new frames account for.
    pub(crate) fn note_appended(&mut self, stream: usize, from: u64) {
        let lanes = &mut self.streams[stream];
        let epoch = lanes.lineage.as_ref().map_or(0, |lineage| lineage.epoch);
        let appended: Vec<(u64, u64)> = lanes.spool.appended_from(from);
        for (seq, records) in appended {
            lanes.oracle.appended(epoch, seq, records);
        }
    }

    fn let_go(&mut self, stream: usize) {
        let newest = self.streams[stream].spool.mark().map_or(0, |(root, _)| root);
        if let Some(out) = self.out(stream) {
            out.gone = out.gone.max(newest);
        }
    }

    fn commit(&mut self, leaf: usize) -> Result<(), Stop> {
        self.point("between two commits")?;
        if self.has_moved(leaf) {
            self.set_phase(Phase::Level);
            return Ok(());
        }
        let last_seq = self
            .producer
            .as_ref()
            .and_then(|producer| producer.group.last())
            .map_or(0, |work| work.seq);
        for stream in self.setting.tracks_of(leaf * self.setting.tracks()) {
            self.let_go(stream);
            if let Some(out) = self.out(stream) {
                out.released = out.released.max(out.appended);
                out.flight.released(out.released);
                out.mark_seq = last_seq;
            }
        }
        if leaf + 1 < self.setting.leaves {
            self.set_phase(Phase::Commit(leaf + 1));
            return Ok(());
        }
        self.accept();
        if let Some(producer) = &mut self.producer {
            producer.group.clear();
            producer.phase = Phase::Read;
        }
        Ok(())
    }
}

/// A gap record over what was given up and never had a seq.
pub(crate) fn owed_gap(seq: u64, book: &mut Book, tells: bool, print: u64) -> Entry {
    let owed = std::mem::take(&mut book.owed);
    let frame = Frame::Gap {
        first_seq: seq,
        dropped: if tells { owed } else { 0 },
        lost: 0,
        settled: 0,
    };
    Entry {
        frame,
        records: 0,
        owed,
        ids: Vec::new(),
        print,
    }
}
