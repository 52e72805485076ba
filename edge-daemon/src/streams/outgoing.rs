//! The producing end of a stream: its lineage, its spool, its account. What goes in is in `append`, what goes out in
//! `courier`. Deletes nothing but what the consumer's signed watermark covers.

use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use bus_link::{
    home::{Home, HomeError},
    secure::Secure,
};
use bus_schema::{
    id::{StreamId, WorkflowId},
    key::SecretKey,
    limits::CREDIT_FRAMES,
    message::{Ledger, Resume, Side, StreamAck, StreamReport},
    plan::{Class, StreamSpec},
    subject::{self, Subject},
};
use flow::{Counts, Fault};
use serde::{Deserialize, Serialize};
use spool::{Budget, Limits, Mark, Recovery, Spool, State};
use stream::{
    lineage::next_epoch,
    tracks::{BACKLOG_BYTES_MIN, Behind},
};
use tokio::sync::{Notify, watch};

use crate::{aside, carried::OnTheWay};

/// Payload bytes per segment; also how fast the disk is given back. An open segment is in memory as a whole, and while a
/// backlog is sent two are open.
const SEGMENT_BYTES: u64 = 512 * 1024;
/// Acknowledgements waiting for the courier.
const ACKS_MAX: usize = 16;
/// Buffers that could not be used any more and are kept for a person to look at.
const SET_ASIDE_MAX: u32 = 4;
/// The spool's directory in the stream's.
const SPOOL: &str = "spool";
/// Holds the name of the stream's edge, beside it.
pub const EDGE: &str = "edge";

/// What a stream's spool keeps beside the source's position.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Bookmark {
    pub position: Vec<u8>,
    /// What the pipe settled on its way to the spool: those that died, what gaps of an incoming stream said.
    pub counts: Counts,
    /// Records given up because the spool was full.
    pub dropped: u64,
    /// Of these, what no gap record has told the consumer yet.
    pub owed: u64,
    /// Gap records made.
    pub gaps: u64,
    /// The root's seq up to which frames may have left when this was written: siblings must not go back behind it.
    pub gone: u64,
    /// Of a track: what its present turn began after.
    pub behind: Option<Behind>,
    /// Of a track: where the epoch before this one ended at the consumer, as far as it was asked.
    pub ended: Option<Behind>,
    /// Of a track: the epoch of the other one when that last got a turn after it.
    pub given: Option<u64>,
    /// What the last mark that the consumer can tell is known by.
    pub told: Option<u64>,
    /// It began at the source's beginning together with siblings, none of which knew of anything before.
    pub with_siblings: bool,
}

/// The stream's key and epoch: one lineage of sequence numbers.
#[derive(Clone, Serialize, Deserialize)]
pub struct Lineage {
    /// The epoch.
    pub epoch: u64,
    /// The key of its frames.
    pub key: SecretKey,
    /// Frames may have been written under it.
    pub begun: bool,
    /// An older lineage was lost: the consumer knows how far the source was read.
    pub asks: bool,
    /// Nothing was found of an older one, so this passes for the first. The consumer may know better.
    pub is_first: bool,
    /// The lineage before it was an older copy: the same seqs may stand for other records there.
    pub was_copy: bool,
    /// The spool beside it is of an older lineage, and is yet to be set aside. Stored before that is done: a crash in between
    /// must leave no spool that passes for this lineage's, and no lineage without a trace that there was a spool.
    pub clears: bool,
}

/// What is written and read on disk. Locked over disk work: only ever on a blocking thread.
pub(super) struct Store {
    /// `None` only while one buffer is replaced by another and the disk refuses.
    pub(super) spool: Option<Spool>,
    pub book: Bookmark,
    pub lineage: Lineage,
}

/// Where the store stood after the last change, for those who must not wait for a disk.
#[derive(Clone)]
pub(super) struct View {
    pub state: State,
    pub book: Bookmark,
    pub lineage: Lineage,
    /// Goes up when the lineage changes while the daemon runs.
    pub life: u64,
}

impl Store {
    /// The spool, to be worked with.
    pub fn spool(&mut self) -> Result<&mut Spool, Fault> {
        self.spool
            .as_mut()
            .ok_or_else(|| Fault::retry("the buffer could not be made anew yet"))
    }
}

/// One outgoing stream.
pub struct Outgoing {
    pub(super) spec: StreamSpec,
    workflow: WorkflowId,
    pub(super) subject: Subject,
    pub(super) secure: Arc<Secure>,
    pub(super) home: Arc<Home>,
    pub(super) budget: Arc<Budget>,
    /// Whether the source can read again from a position.
    pub(super) replays: bool,
    /// Whether the records are read here, so that this daemon's clock dated them.
    pub(super) dated_here: bool,
    /// The other one of two tracks.
    pub(super) twin: Option<StreamId>,
    /// The same, once both are there.
    pub(super) other: OnceLock<Weak<Outgoing>>,
    /// Its twin sends first.
    pub(super) yields: AtomicBool,
    /// Its consumer was away while a backlog grew, which is not through yet.
    pub(super) had_outage: AtomicBool,
    /// Its consumer makes records durable now.
    pub(super) moves: AtomicBool,
    pub(super) store: Mutex<Store>,
    pub(super) view: Mutex<View>,
    /// The newest frames, so that live data is not read back from disk.
    pub(super) recent: Mutex<VecDeque<(u64, Vec<u8>)>>,
    /// The root's seq up to which frames may have left.
    pub(super) gone: AtomicU64,
    pub(super) released: watch::Sender<u64>,
    /// Highest seq that may be on its way to the consumer.
    pub(super) sent: AtomicU64,
    acks: Mutex<VecDeque<StreamAck>>,
    pub(super) acked: Notify,
    /// It may be its turn to send.
    pub(super) turn: Notify,
    /// What it holds itself up with, in words; empty when nothing does.
    pub(super) held: Mutex<String>,
    pub(super) trimmed: Notify,
    consumer: Mutex<(u64, String)>,
    pub(super) on_the_way: OnTheWay,
    /// What the consumer said to the opening of an epoch, and where the one before it ended.
    pub(super) answer: watch::Sender<Option<(u64, Option<Resume>)>>,
}

/// A panic while one of these locks was held leaves plain values behind.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn spool_fault(stream: &StreamSpec, error: spool::Error) -> Fault {
    Fault::retry(format!("the buffer of {}: {error}", stream.edge))
}

/// Where a stream keeps its files.
pub fn stream_dir(data_dir: &Path, stream: &StreamId) -> PathBuf {
    data_dir.join("streams").join(stream.as_str())
}

/// Where a stream's spool is in these.
pub fn spool_dir(stream_dir: &Path) -> PathBuf {
    stream_dir.join(SPOOL)
}

/// A stream's lineage, if it is there and intact.
pub fn lineage_of(home: &Home, stream: &StreamId) -> Option<Lineage> {
    let bytes = home.load(&lineage_name(stream)).ok()??;
    bus_schema::decode(&bytes)
}

/// What a stream is, besides what the plan says.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    /// Its source can read again from a position.
    pub replays: bool,
    /// Its records are read in this daemon.
    pub dated_here: bool,
    /// The other one of two tracks.
    pub twin: Option<StreamId>,
}

/// How a stream begins, after what was found of it.
#[derive(Debug, PartialEq, Eq)]
enum Beginning {
    /// For the first time.
    First,
    /// Where it was.
    Goes,
    /// Where it was, once what a crash left of an older lineage is set aside.
    Clears,
    /// Anew: its frames, or the key to them, are lost.
    Anew,
}

/// Decides it. `lineage`: what was found, or that it was damaged.
fn beginning(lineage: Result<Option<&Lineage>, ()>, spool_is_new: bool) -> Beginning {
    match (lineage, spool_is_new) {
        (Ok(None), true) => Beginning::First,
        (Ok(Some(lineage)), _) if lineage.clears => Beginning::Clears,
        (Ok(Some(lineage)), true) if !lineage.begun => Beginning::Goes,
        (Ok(Some(_)), false) => Beginning::Goes,
        _ => Beginning::Anew,
    }
}

impl Outgoing {
    /// Opens the stream's spool and lineage. Blocks.
    pub fn open(
        home: &Arc<Home>,
        budget: &Arc<Budget>,
        secure: Arc<Secure>,
        workflow: WorkflowId,
        spec: StreamSpec,
        kind: Kind,
    ) -> Result<Arc<Self>, Fault> {
        let Kind {
            replays,
            dated_here,
            twin,
        } = kind;
        let (mut spool, recovery) = open_spool(home, budget, &spec)?;
        let found = load_lineage(home, &spec)?;
        let state = spool.state();
        let is_new = state.mark.is_none() && state.next_seq == 1;
        let mut lineage = match (
            beginning(
                match &found {
                    Ok(lineage) => Ok(lineage.as_ref()),
                    Err(()) => Err(()),
                },
                is_new,
            ),
            found,
        ) {
            (Beginning::Goes | Beginning::Clears, Ok(Some(lineage))) => lineage,
            (Beginning::First, _) => Lineage {
                is_first: true,
                ..make_lineage(next_epoch(secure.epoch(), 0), false)?
            },
            (_, found) => {
                let last = found.ok().flatten().map_or(0, |lineage| lineage.epoch);
                let lineage = make_lineage(next_epoch(secure.epoch(), last), replays)?;
                tracing::error!(
                    edge = spec.edge,
                    epoch = lineage.epoch,
                    records = state.held_records,
                    "the buffer or the key to it is lost: the stream begins a new epoch"
                );
                Lineage {
                    clears: !is_new,
                    ..lineage
                }
            }
        };
        save_lineage(home, &spec, &lineage)?;
        if lineage.clears {
            drop(spool);
            let left = Left {
                gone: gone_of(&state, recovery.mark_rewound),
                state: &state,
            };
            spool = replace_spool(home, budget, &spec, &left, replays)?;
            lineage.clears = false;
            save_lineage(home, &spec, &lineage)?;
        }
        let sent = spool.sent_before(CREDIT_FRAMES);
        let mut book = read_book(&spool.state());
        book.gone = book.gone.max(gone_of(&state, recovery.mark_rewound));
        let store = Store {
            book,
            lineage,
            spool: Some(spool),
        };
        let view = View {
            state: state_of(&store),
            book: store.book.clone(),
            lineage: store.lineage.clone(),
            life: 0,
        };
        let has_backlog = view.state.held_payload_bytes >= BACKLOG_BYTES_MIN;
        Ok(Arc::new(Self {
            subject: subject::data(secure.fleet(), secure.node(), &spec.stream),
            released: watch::Sender::new(view.state.watermark_seq),
            sent: AtomicU64::new(sent),
            view: Mutex::new(view),
            store: Mutex::new(store),
            recent: Mutex::default(),
            gone: AtomicU64::new(0),
            spec,
            workflow,
            secure,
            home: Arc::clone(home),
            budget: Arc::clone(budget),
            replays,
            dated_here,
            twin,
            other: OnceLock::new(),
            yields: AtomicBool::new(false),
            had_outage: AtomicBool::new(has_backlog),
            moves: AtomicBool::new(false),
            acks: Mutex::default(),
            acked: Notify::new(),
            turn: Notify::new(),
            held: Mutex::default(),
            trimmed: Notify::new(),
            consumer: Mutex::default(),
            on_the_way: OnTheWay::default(),
            answer: watch::Sender::new(None),
        }))
    }

    /// As the plan has it.
    pub fn spec(&self) -> &StreamSpec {
        &self.spec
    }

    /// Runs something on the store, then lets everybody see where it stands. Blocks.
    pub(super) fn with_store<T>(&self, run: impl FnOnce(&mut Store) -> T) -> T {
        let mut store = lock(&self.store);
        let result = run(&mut store);
        if let Some(spool) = &store.spool {
            let mut view = lock(&self.view);
            view.state = spool.state();
            view.book = store.book.clone();
            view.lineage = store.lineage.clone();
        }
        result
    }

    /// Where the store stood after the last change.
    pub(super) fn view(&self) -> View {
        lock(&self.view).clone()
    }

    /// The consumer spoke.
    pub fn ack(&self, ack: StreamAck) {
        *lock(&self.consumer) = (ack.dead, ack.trouble.clone());
        let mut acks = lock(&self.acks);
        // Cumulative: only the newest matters, but a question (epoch 0) or a rewind must not be overwritten.
        if let Some(last) = acks.back_mut()
            && last.epoch == ack.epoch
            && !last.rewind
        {
            *last = ack;
        } else if acks.len() < ACKS_MAX {
            acks.push_back(ack);
        }
        drop(acks);
        self.acked.notify_one();
    }

    pub(super) fn next_ack(&self) -> Option<StreamAck> {
        lock(&self.acks).pop_front()
    }

    /// The stream's account.
    pub fn report(&self) -> StreamReport {
        let View {
            state, book, lineage, ..
        } = self.view();
        let (consumer_dead, mut trouble) = lock(&self.consumer).clone();
        if trouble.is_empty() {
            trouble.clone_from(&lock(&self.held));
        }
        // The consumer counts its dead letters among what its watermark covers.
        let consumer_dead = consumer_dead.min(state.delivered_records);
        let ledger = Ledger {
            produced: state.produced_records + book.counts.dead + book.dropped,
            buffered: state.held_records,
            delivered: state.delivered_records - consumer_dead,
            dropped: state.dropped_records + state.lost_records + book.dropped,
            dead: book.counts.dead + consumer_dead,
            duplicates: 0,
            unconfirmed: 0,
            filtered: 0,
        };
        StreamReport {
            stream: self.spec.stream,
            workflow: self.workflow,
            edge: self.spec.edge.clone(),
            side: Side::Producer,
            epoch: lineage.epoch,
            watermark: state.watermark_seq,
            ledger,
            dead_before: book.counts.dead,
            settled_earlier: 0,
            dropped_earlier: 0,
            buffered_bytes: state.held_payload_bytes,
            gaps: book.gaps,
            trouble,
        }
    }

    /// From now on what is appended may leave.
    pub(super) fn let_go(&self) {
        let newest = lock(&self.view).state.mark.as_ref().map_or(0, |mark| mark.root_seq);
        self.gone.fetch_max(newest, Ordering::Relaxed);
    }

    /// Lets frames up to `through` leave, unless the stream has begun anew since that life.
    pub(super) fn release(&self, life: u64, through: u64) -> bool {
        let view = lock(&self.view);
        if view.life != life {
            return false;
        }
        let newest = view.state.mark.as_ref().map_or(0, |mark| mark.root_seq);
        self.gone.fetch_max(newest, Ordering::Relaxed);
        self.released.send_if_modified(|released| {
            let rises = through > *released;
            *released = through.max(*released);
            rises
        });
        true
    }

    /// Notes that frames are about to be written under this lineage, durably, once.
    pub(super) fn begin(&self, store: &mut Store) -> Result<(), Fault> {
        if !store.lineage.begun {
            let begun = Lineage {
                begun: true,
                ..store.lineage.clone()
            };
            save_lineage(&self.home, &self.spec, &begun)?;
            store.lineage = begun;
        }
        Ok(())
    }

    /// The consumer answered the opening of an epoch.
    pub(super) fn answered(&self, epoch: u64, resume: Option<Resume>) {
        self.answer.send_replace(Some((epoch, resume)));
    }
}

/// What is left of a spool that is set aside.
pub(super) struct Left<'a> {
    pub state: &'a State,
    /// The root's seq up to which its frames may have left.
    pub gone: u64,
}

/// The root's seq up to which frames of a spool that was just opened may have left.
fn gone_of(state: &State, mark_rewound: bool) -> u64 {
    let written = read_book(state).gone;
    // What came after this mark is lost here, and may have been sent.
    let lost = state.mark.as_ref().map_or(0, |mark| mark.root_seq + 1);
    if mark_rewound { written.max(lost) } else { written }
}

/// The bookmark of a spool that takes the place of one whose source cannot read again: what that one held is given up. What
/// it owed is owed still, also when a crash lets all of this happen once more.
fn book_after(left: &Left<'_>) -> Bookmark {
    let old = read_book(left.state);
    let owed = old.owed + left.state.held_records;
    Bookmark {
        position: old.position,
        dropped: owed,
        owed,
        counts: Counts {
            replay: old.counts.replay,
            ..Counts::default()
        },
        gone: left.gone,
        ..Bookmark::default()
    }
}

fn state_of(store: &Store) -> State {
    // A store is made with its spool.
    store
        .spool
        .as_ref()
        .map(Spool::state)
        .expect("a store is made with its spool")
}

/// What the newest mark keeps.
pub(super) fn read_book(state: &State) -> Bookmark {
    let mark = state.mark.as_ref();
    mark.and_then(|mark| bus_schema::decode(&mark.position))
        .unwrap_or_default()
}

/// Sets a spool aside and makes a new one. A source that can read again is asked to later; of any other, what the old one
/// held is given up, and the source goes on.
pub(super) fn replace_spool(
    home: &Home,
    budget: &Arc<Budget>,
    spec: &StreamSpec,
    left: &Left<'_>,
    replays: bool,
) -> Result<Spool, Fault> {
    set_aside(&stream_dir(home.dir(), &spec.stream).join(SPOOL))
        .map_err(|error| Fault::retry(format!("the buffer of {} cannot be set aside: {error}", spec.edge)))?;
    aside::count(home.dir(), budget);
    let (mut spool, _) = open_spool(home, budget, spec)?;
    if let (Some(mark), false) = (&left.state.mark, replays) {
        let mark = Mark {
            root_seq: mark.root_seq,
            position: bus_schema::encode(&book_after(left)),
        };
        spool.append(&[], &mark).map_err(|error| spool_fault(spec, error))?;
    }
    Ok(spool)
}

/// Renames a directory to the next free `<name>.lost.<n>`, keeping the newest few.
fn set_aside(dir: &Path) -> std::io::Result<()> {
    if !dir.exists() {
        return Ok(());
    }
    let name = |n: u32| dir.with_extension(format!("lost.{n}"));
    let last = (1..).take_while(|n| name(*n).exists()).last().unwrap_or(0);
    let mut next = last + 1;
    if last >= SET_ASIDE_MAX {
        std::fs::remove_dir_all(name(1))?;
        for n in 2..=last {
            std::fs::rename(name(n), name(n - 1))?;
        }
        next = last;
    }
    std::fs::rename(dir, name(next))?;
    bus_link::home::sync_dir(dir.parent().unwrap_or(dir))
}

fn open_spool(home: &Home, budget: &Arc<Budget>, spec: &StreamSpec) -> Result<(Spool, Recovery), Fault> {
    let dir = stream_dir(home.dir(), &spec.stream);
    std::fs::create_dir_all(&dir).map_err(|error| Fault::retry(format!("cannot create {}: {error}", dir.display())))?;
    if !dir.join(EDGE).exists() {
        // Only for people who look into the directory: nothing depends on it.
        let _no_matter = std::fs::write(dir.join(EDGE), &spec.edge);
    }
    let limits = Limits {
        quota_bytes: spec.spool.quota_bytes.max(spool::QUOTA_BYTES_MIN),
        segment_bytes: SEGMENT_BYTES,
    };
    let share = budget.share(match spec.send.class {
        Class::Critical => spool::Class::Critical,
        Class::Normal => spool::Class::Normal,
        Class::Bulk => spool::Class::Bulk,
    });
    let opened = Spool::open_within(&dir.join(SPOOL), limits, share);
    let (spool, recovery) = opened.map_err(|error| spool_fault(spec, error))?;
    for repair in &recovery.repairs {
        tracing::error!(
            edge = spec.edge,
            reason = repair.reason,
            saved_frames = repair.saved_frames,
            "a damaged part of the buffer was set aside"
        );
    }
    if recovery.cut_frames > 0 {
        tracing::info!(
            edge = spec.edge,
            frames = recovery.cut_frames,
            "cut what a crash left unfinished"
        );
    }
    Ok((spool, recovery))
}

fn lineage_name(stream: &StreamId) -> String {
    format!("streams/{stream}/lineage")
}

/// The lineage on disk; `Err` inside when it is damaged.
fn load_lineage(home: &Home, spec: &StreamSpec) -> Result<Result<Option<Lineage>, ()>, Fault> {
    match home.load_or_set_aside(&lineage_name(&spec.stream)) {
        Ok(None) => Ok(Ok(None)),
        Ok(Some(bytes)) => Ok(bus_schema::decode(&bytes).map(Some).ok_or(())),
        Err(error @ HomeError::Damaged { .. }) => {
            tracing::error!(%error, "the key of a stream is damaged");
            Ok(Err(()))
        }
        Err(error) => Err(Fault::retry(error.to_string())),
    }
}

pub(super) fn save_lineage(home: &Home, spec: &StreamSpec, lineage: &Lineage) -> Result<(), Fault> {
    crash_point::at!(LineageBeforeStore);
    home.store(&lineage_name(&spec.stream), &bus_schema::encode(lineage))
        .map_err(|error| Fault::retry(error.to_string()))?;
    crash_point::at!(LineageAfterStore);
    Ok(())
}

pub(super) fn make_lineage(epoch: u64, asks: bool) -> Result<Lineage, Fault> {
    let mut key = [0; 32];
    getrandom::fill(&mut key).map_err(|error| Fault::retry(format!("no randomness: {error}")))?;
    Ok(Lineage {
        epoch,
        key: SecretKey::new(key),
        begun: asks,
        asks,
        is_first: false,
        was_copy: false,
        clears: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_that_lost_something_begins_anew() {
        let lineage = |begun| {
            let mut lineage = make_lineage(3, false).unwrap();
            lineage.begun = begun;
            lineage
        };
        let (fresh, begun) = (lineage(false), lineage(true));
        let clears = Lineage {
            clears: true,
            ..begun.clone()
        };
        for (found, spool_is_new, expected) in [
            (Ok(None), true, Beginning::First),
            (Ok(Some(&fresh)), true, Beginning::Goes),
            (Ok(Some(&begun)), false, Beginning::Goes),
            // Its first append was cut short by a crash.
            (Ok(Some(&fresh)), false, Beginning::Goes),
            (Ok(Some(&begun)), true, Beginning::Anew),
            (Ok(None), false, Beginning::Anew),
            (Err(()), true, Beginning::Anew),
            (Err(()), false, Beginning::Anew),
            // A crash before the old spool was set aside, or right after.
            (Ok(Some(&clears)), false, Beginning::Clears),
            (Ok(Some(&clears)), true, Beginning::Clears),
        ] {
            assert_eq!(beginning(found, spool_is_new), expected, "{spool_is_new}");
        }
    }

    #[test]
    fn what_is_owed_outlives_any_number_of_replacements() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(dir.path(), Limits::default()).unwrap().0;
        let old = Bookmark {
            dropped: 9,
            owed: 4,
            counts: Counts {
                replay: 3,
                dead: 2,
                ..Counts::default()
            },
            position: vec![7],
            ..Bookmark::default()
        };
        let mark = Mark {
            root_seq: 5,
            position: bus_schema::encode(&old),
        };
        let frame = spool::Frame {
            bytes: b"held",
            records: 6,
        };
        let group = spool::Group {
            frames: &[frame],
            mark: &mark,
        };
        spool.append_groups(&[group]).unwrap();
        let first = book_after(&Left {
            state: &spool.state(),
            gone: 4,
        });
        assert_eq!((first.dropped, first.owed, first.counts.dead), (10, 10, 0));
        assert_eq!(
            (first.counts.replay, first.gone, first.position.as_slice()),
            (3, 4, &[7][..])
        );
        // A crash before the lineage was stored: it is found without its key once more.
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(dir.path(), Limits::default()).unwrap().0;
        let mark = Mark {
            root_seq: 5,
            position: bus_schema::encode(&first),
        };
        spool.append(&[], &mark).unwrap();
        let again = book_after(&Left {
            state: &spool.state(),
            gone: 4,
        });
        assert_eq!((again.dropped, again.owed, again.counts.replay), (10, 10, 3));
    }

    #[test]
    fn only_the_newest_lost_buffers_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let spool = dir.path().join(SPOOL);
        for n in 0..7 {
            std::fs::create_dir(&spool).unwrap();
            std::fs::write(spool.join("n"), n.to_string()).unwrap();
            set_aside(&spool).unwrap();
        }
        let kept: Vec<String> = (1..=4)
            .map(|n| std::fs::read_to_string(dir.path().join(format!("spool.lost.{n}/n"))).unwrap())
            .collect();
        assert_eq!(kept, ["3", "4", "5", "6"]);
        assert!(!spool.exists() && !dir.path().join("spool.lost.5").exists());
    }
}
