//! What goes into a stream: a sink that seals batches and appends them to the spool, and what happens when that is full.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use bus_schema::{
    data::Batch,
    id::StreamId,
    limits::RECORD_BYTES_MAX,
    message::{Frame, SourceMark},
    plan::WhenFull,
};
use flow::{Counts, Delivery, Fault, Position, Rejected, Sink, Watermark};
use spool::{Full, Group, Mark, Spool, WayBack};
use stream::{
    frames,
    lineage::{self, Back, Way},
    tracks::{self, Behind, TrackPosition},
};

use crate::aside;

use super::outgoing::{Bookmark, Outgoing, Store, View, lock, read_book, spool_fault};

/// Bytes of frames kept in memory after they were spooled, so that live data is not read back from disk.
const RECENT_BYTES_MAX: usize = 384 * 1024;
/// How long a write waits for room in a full spool before it says so.
pub(super) const FULL_WAIT: Duration = Duration::from_secs(2);
/// Share of the quota given up at a time when the oldest records have to go.
const DROP_SHARE: u64 = 16;

/// A record takes at most this share of the quota: a spool needs more disk than it holds, and room for what is around it.
/// A larger one would wait for ever.
const QUOTA_PER_RECORD: u64 = 4;

// After a crash between two of a pipe's streams, the one that is ahead goes back to a mark within its last append, or just
// before it; and that append may have been the second attempt.
const _: () = assert!(spool::MARKS_ALONE_MAX > 2 * flow::GROUP_BATCHES_MAX + 2);

/// Why a record does not go into the spool.
fn too_large(quota_share: usize) -> String {
    const MIB: usize = 1024 * 1024;
    if quota_share < RECORD_BYTES_MAX {
        let max = quota_share / MIB;
        format!("the record is larger than a quarter of the stream's buffer ({max} MiB): raise its quota")
    } else {
        format!(
            "the record is larger than a record may be ({} MiB)",
            RECORD_BYTES_MAX / MIB
        )
    }
}

/// Why nothing was appended.
pub(super) enum Appending {
    /// There is no room, and the policy is to wait. Says which limit it is.
    Full(String),
    Fault(Fault),
}

impl From<Fault> for Appending {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// What another buffer does for this one.
pub(super) trait Elder {
    /// Gives up its oldest records, which are older than any here. The quota that this one has then; `None` when there is
    /// nothing to give up.
    fn give_way(&self) -> Result<Option<u64>, Fault>;
}

/// There is no other one.
pub(super) struct NoElder;

impl Elder for NoElder {
    fn give_way(&self) -> Result<Option<u64>, Fault> {
        Ok(None)
    }
}

/// Frames with their records, and the mark that goes with them.
type SealedGroup = (Vec<(Vec<u8>, u64)>, Mark);

/// Groups in the making.
#[derive(Default)]
struct Groups {
    whole: Vec<SealedGroup>,
    /// Frames of the first parts of a read.
    parts: Vec<(Vec<u8>, u64)>,
}

impl Groups {
    /// Adds the frames of a delivery. Those of a part of a read go into one group with its rest: a crash may keep the first of
    /// several groups, and nothing can go on after a part.
    fn push(&mut self, frames: Vec<(Vec<u8>, u64)>, mark: Mark, is_part: bool) {
        self.parts.extend(frames);
        if !is_part {
            self.whole.push((std::mem::take(&mut self.parts), mark));
        }
    }
}

fn append_groups(spool: &mut Spool, groups: &[SealedGroup]) -> Result<(), spool::Error> {
    let frames: Vec<Vec<spool::Frame<'_>>> = groups.iter().map(|(frames, _)| borrowed(frames)).collect();
    let groups: Vec<Group<'_>> = frames
        .iter()
        .zip(groups)
        .map(|(frames, (_, mark))| Group { frames, mark })
        .collect();
    spool.append_groups(&groups).map(|_| ())
}

fn borrowed(frames: &[(Vec<u8>, u64)]) -> Vec<spool::Frame<'_>> {
    frames
        .iter()
        .map(|(bytes, records)| spool::Frame {
            bytes,
            records: *records,
        })
        .collect()
}

/// Whether an append failed for want of room, of whatever kind.
fn is_full(error: &spool::Error) -> bool {
    matches!(error, spool::Error::Full { .. }) || error.is_disk_full()
}

/// Whether what was set aside stands in the way, of this stream or another: it is in nobody's own quota.
fn is_daemons_room(error: &spool::Error) -> bool {
    is_full(error)
        && !matches!(
            error,
            spool::Error::Full {
                limit: Full::Spool { .. },
                ..
            }
        )
}

/// Deliveries made into what is appended.
struct Sealed {
    groups: Vec<SealedGroup>,
    book: Bookmark,
    rejected: Vec<Rejected>,
}

/// Whether it is worth packing a batch to see if a record of it cannot travel.
fn might_be_too_large(batch: &Batch, record_bytes_max: usize) -> bool {
    let cells = (0..batch.rows()).flat_map(|row| (0..batch.columns().len()).map(move |column| (row, column)));
    let bytes: usize = cells.map(|(row, column)| batch.cell(row, column).size_hint()).sum();
    bytes > record_bytes_max.min(RECORD_BYTES_MAX) / 2
}

impl Outgoing {
    /// The most that one record may take of this stream's spool.
    fn record_bytes_max(&self) -> usize {
        (self.spec.spool.quota_bytes / QUOTA_PER_RECORD) as usize
    }

    /// Rows of a delivery that cannot travel.
    fn rejected(&self, delivery: usize, rows: &[usize]) -> Vec<Rejected> {
        let rejected = |row: &usize| Rejected {
            delivery,
            row: *row,
            reason: too_large(self.record_bytes_max()),
        };
        rows.iter().map(rejected).collect()
    }

    /// The records that cannot travel, without writing any.
    pub(super) fn refuses(&self, deliveries: &[Delivery]) -> Vec<Rejected> {
        let mut refused = Vec::new();
        for (index, delivery) in deliveries.iter().enumerate() {
            // Packing twice is only worth it where something may be too large.
            if might_be_too_large(&delivery.batch, self.record_bytes_max()) {
                let mark = SourceMark {
                    root_seq: delivery.seq,
                    position: Vec::new(),
                };
                let packing = frames::pack(&delivery.batch, &mark, self.record_bytes_max());
                refused.extend(self.rejected(index, &packing.too_large));
            }
        }
        refused
    }

    /// The sink of this stream.
    pub fn sink(self: &Arc<Self>) -> Box<dyn Sink> {
        Box::new(Producer {
            out: Arc::clone(self),
            appended: 0,
            life: None,
        })
    }

    /// Seals and appends deliveries in one durable group commit. `turn`: what a track's turn begins after, if one does.
    /// Blocks.
    pub(super) fn append(
        &self,
        store: &mut Store,
        deliveries: &[Delivery],
        turn: Option<Behind>,
        elder: &dyn Elder,
    ) -> Result<(u64, Vec<Rejected>), Appending> {
        self.begin(store)?;
        let Sealed {
            mut groups,
            mut book,
            rejected,
        } = self.seal(store, deliveries, turn)?;
        let old = store.book.clone();
        let spool = store.spool()?;
        let mut appended = append_groups(spool, &groups);
        while appended.as_ref().is_err_and(is_daemons_room) && aside::give_up_oldest(self.home.dir(), &self.budget) {
            appended = append_groups(spool, &groups);
        }
        let policy = self.spec.spool.when_full;
        while policy == WhenFull::DropOldest && appended.as_ref().is_err_and(is_full) {
            match elder.give_way()? {
                Some(quota) => spool.set_quota(quota),
                None if self.drop_oldest(spool, &mut book)? => {}
                None => break,
            }
            crash_point::at!(OutgoingAfterDrop);
            remember(&mut groups, &book);
            appended = append_groups(spool, &groups);
        }
        match appended {
            Ok(()) => {}
            Err(error) if is_full(&error) && policy == WhenFull::DropNewest => {
                give_up_newest(&mut groups, &mut book, &old);
                append_groups(spool, &groups).map_err(|error| spool_fault(&self.spec, error))?;
                if old.owed == 0 {
                    tracing::warn!(edge = self.spec.edge, %error, "no room: the newest records are given up");
                }
            }
            Err(error) if is_full(&error) => return Err(Appending::Full(error.to_string())),
            Err(error) => return Err(spool_fault(&self.spec, error).into()),
        }
        crash_point::at!(OutgoingAfterAppend);
        if old.owed > 0 && book.owed == 0 {
            tracing::info!(edge = self.spec.edge, records = old.owed, "there is room again");
        }
        store.book = book;
        let last = store.spool()?.state().next_seq - 1;
        let frames = groups.into_iter().flat_map(|(frames, _)| frames);
        let frames: Vec<_> = frames.map(|(bytes, _)| bytes).collect();
        if !frames.is_empty() {
            let bytes = frames.iter().map(Vec::len).sum::<usize>() as u64;
            let first = (last + 1).saturating_sub(frames.len() as u64);
            self.on_the_way.went_in(first..=last, bytes, Instant::now());
        }
        self.keep_recent(last, frames);
        Ok((last, rejected))
    }

    fn seal(&self, store: &mut Store, deliveries: &[Delivery], turn: Option<Behind>) -> Result<Sealed, Fault> {
        let mut seq = store.spool()?.state().next_seq;
        let mut book = store.book.clone();
        book.behind = turn.or(book.behind);
        // What is written to now has the last turn.
        book.given = None;
        if let (None, Some(first)) = (store.spool()?.state().mark, deliveries.first()) {
            // Levelling gives several that begin a mark before the first batch.
            let is_bare = first.position.as_bytes().is_empty() && first.batch.rows() == 0;
            book.with_siblings = first.seq == 1 && is_bare;
        }
        let mut rejected = Vec::new();
        let mut groups = Groups::default();
        for (index, delivery) in deliveries.iter().enumerate() {
            let position = delivery.position.as_bytes().to_vec();
            let mark = SourceMark {
                root_seq: delivery.seq,
                position: self.told_position(&delivery.position, book.behind),
            };
            let packing = frames::pack_with(&delivery.batch, &mark, self.record_bytes_max(), self.spec.send.compress);
            rejected.extend(self.rejected(index, &packing.too_large));
            let has_frames = !packing.frames.is_empty();
            let mut sealed = Vec::with_capacity(packing.frames.len() + 1);
            // What was given up before comes before what follows it.
            if book.owed > 0 {
                sealed.push((self.seal_gap(store, seq, &mut book)?, 0));
                seq += 1;
            }
            for packed in packing.frames {
                sealed.push((self.seal_frame(store, seq, &packed.plaintext)?, packed.records));
                seq += 1;
            }
            if has_frames {
                book.told = Some(tracks::print(&mark));
            }
            book.position = position;
            book.gone = book.gone.max(self.gone.load(Ordering::Relaxed));
            book.counts = book.counts.after(delivery.tally, packing.too_large.len() as u64);
            let mark = Mark {
                root_seq: delivery.seq,
                position: bus_schema::encode(&book),
            };
            groups.push(sealed, mark, delivery.position.is_part());
        }
        Ok(Sealed {
            groups: groups.whole,
            book,
            rejected,
        })
    }

    /// A bookmark as the consumer keeps it.
    fn told_position(&self, position: &Position, behind: Option<Behind>) -> Vec<u8> {
        let position = position.told();
        if self.twin.is_some() {
            TrackPosition { position, behind }.encode()
        } else {
            position
        }
    }

    fn seal_frame(&self, store: &Store, seq: u64, plaintext: &[u8]) -> Result<Vec<u8>, Fault> {
        let (stream, lineage) = (&self.spec.stream, &store.lineage);
        let sealed = self
            .secure
            .seal_frame(&self.subject, stream, &lineage.key, lineage.epoch, seq, plaintext);
        sealed.map_err(|error| Fault::retry(error.to_string()))
    }

    /// A gap record over what was given up and never had a seq.
    fn seal_gap(&self, store: &Store, seq: u64, book: &mut Bookmark) -> Result<Vec<u8>, Fault> {
        let gap = Frame::Gap {
            first_seq: seq,
            dropped: std::mem::take(&mut book.owed),
            lost: 0,
            settled: 0,
        };
        book.gaps += 1;
        self.seal_frame(store, seq, &frames::body(&gap))
    }

    /// Makes room by giving up the oldest records that were never sent. False if there is nothing to give up.
    pub(super) fn drop_oldest(&self, spool: &mut Spool, book: &mut Bookmark) -> Result<bool, Fault> {
        // Before the look at what was sent: what is taken from here counts as sent, and nothing can be taken after.
        lock(&self.recent).clear();
        let wanted = self.spec.spool.quota_bytes / DROP_SHARE;
        let dropped = spool
            .drop_oldest(wanted, self.sent.load(Ordering::Relaxed))
            .map_err(|error| spool_fault(&self.spec, error))?;
        if dropped.frames == 0 {
            return Ok(false);
        }
        book.gaps += u64::from(!dropped.joined);
        tracing::warn!(
            edge = self.spec.edge,
            first_seq = dropped.first_seq,
            last_seq = dropped.last_seq,
            records = dropped.records,
            "no room: the oldest records were given up"
        );
        Ok(true)
    }

    /// The same, for one that has newer records and no room. Blocks.
    pub(super) fn give_up_oldest(&self) -> Result<bool, Fault> {
        self.with_store(|store| {
            let mut book = store.book.clone();
            let gave = self.drop_oldest(store.spool()?, &mut book)?;
            if gave {
                self.note(store, book)?;
            }
            Ok(gave)
        })
    }

    /// The other track gets its turn: keeps its epoch, so that it is missed should every trace of it be lost. Blocks.
    pub(super) fn give_turn(&self, epoch: u64) -> Result<(), Fault> {
        self.with_store(|store| {
            if store.book.given == Some(epoch) {
                return Ok(());
            }
            let given = Some(epoch);
            let book = Bookmark {
                given,
                ..store.book.clone()
            };
            self.note(store, book)
        })
    }

    /// So many of its dead letters were tried again, and went into the other track. Blocks.
    pub(super) fn revived_elsewhere(&self, letters: u64) -> Result<(), Fault> {
        self.with_store(|store| {
            let book = Bookmark {
                counts: Counts {
                    dead: store.book.counts.dead.saturating_sub(letters),
                    ..store.book.counts
                },
                ..store.book.clone()
            };
            self.note(store, book)
        })
    }

    /// Keeps a bookmark with the newest mark.
    fn note(&self, store: &mut Store, book: Bookmark) -> Result<(), Fault> {
        if store.spool()?.state().mark.is_some() {
            let noted = store.spool()?.add(&[], bus_schema::encode(&book));
            noted.map_err(|error| spool_fault(&self.spec, error))?;
        }
        store.book = book;
        Ok(())
    }

    /// Goes on from where another stream is that took turns with this one and does no more. Blocks.
    pub fn adopt(&self, other: &Self) -> Result<(), Fault> {
        let (here, there) = (self.view(), other.view());
        let newest = |view: &View| view.state.mark.as_ref().map_or(0, |mark| mark.root_seq);
        if there.state.held_records > 0 {
            tracing::error!(
                edge = other.spec.edge,
                records = there.state.held_records,
                "live data is not delivered first any more: what this track had still to deliver stays behind in its buffer"
            );
        }
        if here.lineage.asks || newest(&here) >= newest(&there) {
            return Ok(());
        }
        self.with_store(|store| {
            self.begin(store)?;
            let book = Bookmark {
                position: there.book.position,
                gone: store.book.gone.max(there.book.gone),
                counts: Counts {
                    replay: store.book.counts.replay.max(there.book.counts.replay),
                    ..store.book.counts
                },
                ..store.book.clone()
            };
            let mark = Mark {
                root_seq: newest(&other.view()),
                position: bus_schema::encode(&book),
            };
            let appended = store.spool()?.append(&[], &mark);
            appended.map_err(|error| spool_fault(&self.spec, error))?;
            store.book = book;
            Ok(())
        })
    }

    /// If there is room again, tells the consumer what was given up for want of it, though nothing new follows. Blocks.
    pub(super) fn settle_debt(&self, store: &mut Store) -> Result<(), Fault> {
        let mut book = store.book.clone();
        if book.owed == 0 {
            return Ok(());
        }
        let state = store.spool()?.state();
        // Behind a batch that a sibling stream may not have yet, it could be rolled back after it was sent.
        let root_seq = state.mark.map_or(0, |mark| mark.root_seq);
        let all_left = *self.released.borrow() + 1 == state.next_seq && self.gone.load(Ordering::Relaxed) >= root_seq;
        if !all_left {
            return Ok(());
        }
        self.begin(store)?;
        let owed = book.owed;
        book.gone = book.gone.max(root_seq);
        let frames = [(self.seal_gap(store, state.next_seq, &mut book)?, 0)];
        match store.spool()?.add(&borrowed(&frames), bus_schema::encode(&book)) {
            Ok(_) => {}
            Err(error) if is_full(&error) => return Ok(()),
            Err(error) => return Err(spool_fault(&self.spec, error)),
        }
        tracing::info!(edge = self.spec.edge, records = owed, "there is room again");
        store.book = book;
        self.keep_recent(state.next_seq, frames.into_iter().map(|(bytes, _)| bytes).collect());
        self.released.send_replace(state.next_seq);
        Ok(())
    }

    /// All that is here may leave, unless the stream has begun anew since that life; gives the last seq of it.
    pub(super) fn let_all_go(&self, life: Option<u64>) -> u64 {
        let view = lock(&self.view);
        if life != Some(view.life) {
            return 0;
        }
        let newest = view.state.mark.as_ref().map_or(0, |mark| mark.root_seq);
        self.gone.fetch_max(newest, Ordering::Relaxed);
        let last = view.state.next_seq - 1;
        self.released.send_replace(last);
        last
    }

    /// Takes back what was read after the root's `seq`, so that the sibling streams meet. Where damage stands in the way, it
    /// is [`Fault::Moved`], and where they meet has to be decided anew. Blocks.
    pub(super) fn go_back(&self, store: &mut Store, seq: u64) -> Result<(), Fault> {
        lock(&self.recent).clear();
        let gone = store.book.gone.max(self.gone.load(Ordering::Relaxed));
        let given_up = store.book.dropped;
        let spool = store.spool()?;
        let way = spool.way_back(seq).map_err(|error| spool_fault(&self.spec, error))?;
        let way = match way {
            WayBack::Whole(to) => Way::Whole(to),
            WayBack::Further(to) => Way::Further(to),
            WayBack::Barred => Way::Barred,
        };
        let step = lineage::back(way, gone, given_up, self.replays);
        if let Back::To | Back::Further = step {
            let truncated = spool.truncate_after(seq);
            truncated.map_err(|error| spool_fault(&self.spec, error))?;
            store.book = read_book(&spool.state());
        }
        let cause = match step {
            Back::To => return Ok(()),
            Back::Further => "damage took the place it should go back to: it went further",
            Back::Anew => {
                self.replace(store, 0, false, "damage took the place it should go back to")?;
                "damage took the place it should go back to: it begins a new epoch"
            }
            Back::Stays => {
                self.let_go();
                "it cannot go back: its siblings pass over what it holds"
            }
        };
        let edge = &self.spec.edge;
        Err(Fault::Moved {
            cause: format!("the buffer of {edge}: {cause}"),
        })
    }

    /// Keeps the newest frames, of which the last has this seq, for the courier.
    fn keep_recent(&self, last_seq: u64, frames: Vec<Vec<u8>>) {
        let first_seq = last_seq + 1 - frames.len() as u64;
        let mut recent = lock(&self.recent);
        recent.extend((first_seq..).zip(frames));
        let mut bytes: usize = recent.iter().map(|(_, frame)| frame.len()).sum();
        while bytes > RECENT_BYTES_MAX {
            bytes -= recent.pop_front().map_or(bytes, |(_, frame)| frame.len());
        }
    }
}

/// Puts the bookmark's account into groups that are about to be appended.
fn remember(groups: &mut [SealedGroup], book: &Bookmark) {
    for (_, mark) in groups {
        if let Some(own) = bus_schema::decode::<Bookmark>(&mark.position) {
            mark.position = bus_schema::encode(&Bookmark { gaps: book.gaps, ..own });
        }
    }
}

/// Takes the frames out of groups for which there is no room: only how far the source was read is kept, and how many
/// records the consumer is to be told of. Each group keeps its own place and account: a roll-back may end at any of them.
fn give_up_newest(groups: &mut [SealedGroup], book: &mut Bookmark, old: &Bookmark) {
    let mut given_up = 0;
    for (frames, mark) in groups {
        given_up += frames.drain(..).map(|(_, records)| records).sum::<u64>();
        let own = bus_schema::decode(&mark.position).unwrap_or_else(|| book.clone());
        *book = Bookmark {
            dropped: old.dropped + given_up,
            // A gap record among the frames was not made either.
            owed: old.owed + given_up,
            gaps: old.gaps,
            // Nobody was told of their marks.
            told: old.told,
            ..own
        };
        mark.position = bus_schema::encode(book);
    }
}

/// The sink at a pipe's end: `write` appends and fsyncs, `commit` lets the courier have it.
struct Producer {
    out: Arc<Outgoing>,
    appended: u64,
    /// Which life of the stream the pipe knows of.
    life: Option<u64>,
}

impl Producer {
    /// The stream has begun anew since the pipe last asked where it stands.
    fn replaced(&self) -> Fault {
        Fault::Moved {
            cause: format!("the buffer of {} was replaced", self.out.spec.edge),
        }
    }
}

#[async_trait]
impl Sink for Producer {
    async fn open(&mut self) -> Result<(), Fault> {
        Ok(())
    }

    fn keeps_watermark(&self) -> bool {
        true
    }

    async fn watermark(&mut self, _: &StreamId) -> Result<Option<Watermark>, Fault> {
        if self.has_moved() {
            // Told once: what was decided by the old one's place must be decided anew.
            self.life = None;
            return Err(self.replaced());
        }
        self.out.recall().await?;
        let View { state, book, life, .. } = self.out.view();
        if *self.life.get_or_insert(life) != life {
            self.life = None;
            return Err(self.replaced());
        }
        Ok(state.mark.map(|mark| Watermark {
            seq: mark.root_seq,
            position: Position::new(book.position),
            // What this stream gave up has come as far as here: that is for its own account to say.
            delivered: state.produced_records + book.dropped + book.counts.unconfirmed,
            counts: book.counts,
        }))
    }

    async fn gone_out(&mut self, _: &StreamId) -> Result<u64, Fault> {
        let written = self.out.view().book.gone;
        Ok(written.max(self.out.gone.load(Ordering::Relaxed)))
    }

    fn has_moved(&self) -> bool {
        self.life.is_some_and(|life| life != self.out.view().life)
    }

    fn refuses(&self, deliveries: &[Delivery]) -> Vec<Rejected> {
        self.out.refuses(deliveries)
    }

    async fn write(&mut self, deliveries: &[Delivery]) -> Result<Vec<Rejected>, Fault> {
        let give_up = Instant::now() + FULL_WAIT;
        loop {
            let (out, owned, life) = (Arc::clone(&self.out), deliveries.to_vec(), self.life);
            // Looked at while the store is held: nobody can replace the buffer in between.
            let append = move || {
                out.with_store(|store| {
                    let is_same = Some(out.view().life) == life;
                    is_same.then(|| out.append(store, &owned, None, &NoElder))
                })
            };
            let appended = tokio::task::spawn_blocking(append).await;
            let appended = appended.map_err(|error| Fault::retry(error.to_string()))?;
            match appended.ok_or_else(|| self.replaced())? {
                Ok((last, rejected)) => {
                    self.appended = last;
                    return Ok(rejected);
                }
                Err(Appending::Fault(fault)) => return Err(fault),
                Err(Appending::Full(cause)) => {
                    let left = give_up.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        let edge = &self.out.spec.edge;
                        return Err(Fault::retry(format!("the buffer of {edge} is full, waiting: {cause}")));
                    }
                    let _ = tokio::time::timeout(left, self.out.trimmed.notified()).await;
                }
            }
        }
    }

    async fn commit(&mut self) -> Result<(), Fault> {
        crash_point::at!(OutgoingBeforeRelease);
        if !self.life.is_some_and(|life| self.out.release(life, self.appended)) {
            return Err(self.replaced());
        }
        crash_point::at!(OutgoingAfterRelease);
        Ok(())
    }

    async fn rewind(&mut self, _: &StreamId, seq: u64) -> Result<(), Fault> {
        let (out, life) = (Arc::clone(&self.out), self.life);
        let done = tokio::task::spawn_blocking(move || {
            out.with_store(|store| {
                let is_same = Some(out.view().life) == life;
                if is_same { out.go_back(store, seq) } else { Ok(()) }
            })
        });
        done.await.map_err(|error| Fault::retry(error.to_string()))?
    }

    fn recovered(&mut self) {
        self.appended = self.out.let_all_go(self.life);
    }
}

#[cfg(test)]
mod tests {
    use flow::Counts;

    use super::*;

    #[test]
    fn parts_of_a_read_are_one_group() {
        let mark = |root_seq| Mark {
            root_seq,
            position: Vec::new(),
        };
        let frame = |n: u8| (vec![n], 1);
        let mut groups = Groups::default();
        for (seq, frames, is_part) in [
            (1, vec![frame(1), frame(2)], false),
            (2, vec![frame(3)], true),
            (3, vec![], true),
            (4, vec![frame(4)], true),
            (5, vec![frame(5)], false),
            (6, vec![], false),
        ] {
            groups.push(frames, mark(seq), is_part);
        }
        let found: Vec<(u64, Vec<u8>)> = groups
            .whole
            .iter()
            .map(|(frames, mark)| (mark.root_seq, frames.iter().map(|(bytes, _)| bytes[0]).collect()))
            .collect();
        assert_eq!(found, [(1, vec![1, 2]), (5, vec![3, 4, 5]), (6, vec![])]);
    }

    #[test]
    fn what_is_given_up_keeps_each_groups_own_place() {
        let group = |n: u64| {
            let book = Bookmark {
                position: vec![n as u8],
                counts: Counts {
                    dead: n,
                    ..Counts::default()
                },
                gaps: 2,
                ..Bookmark::default()
            };
            let mark = Mark {
                root_seq: n,
                position: bus_schema::encode(&book),
            };
            (vec![(vec![0], 10 * n), (vec![1], 1)], mark)
        };
        let mut groups = vec![group(1), group(2), group(3)];
        let old = Bookmark {
            dropped: 100,
            owed: 5,
            gaps: 1,
            ..Bookmark::default()
        };
        let mut book = Bookmark {
            gaps: 2,
            ..Bookmark::default()
        };
        give_up_newest(&mut groups, &mut book, &old);
        let found: Vec<Bookmark> = groups
            .iter()
            .map(|(frames, mark)| {
                assert!(frames.is_empty());
                bus_schema::decode(&mark.position).unwrap()
            })
            .collect();
        let told = |book: &Bookmark| (book.position[0], book.counts.dead, book.dropped, book.owed, book.gaps);
        assert_eq!(told(&found[0]), (1, 1, 111, 16, 1));
        assert_eq!(told(&found[1]), (2, 2, 132, 37, 1));
        assert_eq!(told(&found[2]), (3, 3, 163, 68, 1));
        assert_eq!(told(&book), told(&found[2]));
    }
}
