//! Counts what nodes do and what streams carry, for whoever watches the fleet. Costs a few additions a batch, and decides nothing.

use std::{
    collections::{BTreeMap, VecDeque},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    ops::RangeInclusive,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use bus_schema::{
    carried::{CARRIED_PER_MESSAGE, Carried, NodeCarried, StreamCarried, Work},
    id::StreamId,
    member::is_name,
};

/// Frames of one stream that are timed at a time; of those that follow none is, until one of these has arrived.
const TIMED_MAX: usize = 32;
/// What has not changed is told in every so many of the times at which it could be.
const TOLD_ANYWAY: u32 = 6;

/// A panic while one of these locks was held leaves plain numbers behind.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the nodes of one pipe have done.
#[derive(Debug, Default)]
pub struct Tally(Mutex<BTreeMap<String, Work>>);

impl Tally {
    /// A node did more. What has another name than a node can have is none: the edge where a stream begins or ends.
    pub fn note(&self, node: &str, more: Work) {
        let mut nodes = lock(&self.0);
        if let Some(work) = nodes.get_mut(node) {
            *work = sum(*work, more);
        } else if is_name(node) {
            nodes.insert(node.to_string(), more);
        }
    }

    /// Adds it to what other pipes say of the same nodes.
    pub fn add_to(&self, all: &mut BTreeMap<String, Work>) {
        for (node, work) in lock(&self.0).iter() {
            let before = all.entry(node.clone()).or_default();
            *before = sum(*before, *work);
        }
    }
}

fn sum(a: Work, b: Work) -> Work {
    Work {
        records: a.records + b.records,
        bytes: a.bytes + b.bytes,
        errors: a.errors + b.errors,
        faults: a.faults + b.faults,
        batches: a.batches + b.batches,
        busy_us: a.busy_us + b.busy_us,
    }
}

/// What a stream has carried, and some of its frames that are on their way.
#[derive(Debug, Default)]
pub struct OnTheWay(Mutex<Frames>);

#[derive(Debug, Default)]
struct Frames {
    bytes: u64,
    timed: u64,
    took_ms: u64,
    /// The newest seq that went in.
    newest: u64,
    /// Seqs, rising, and when they went in.
    since: VecDeque<(u64, Instant)>,
}

impl OnTheWay {
    /// So many bytes went in, in frames with these seqs.
    pub fn went_in(&self, seqs: RangeInclusive<u64>, bytes: u64, now: Instant) {
        let mut frames = lock(&self.0);
        frames.bytes += bytes;
        let last_seq = *seqs.end();
        // Began anew: nothing more is heard of those before.
        if *seqs.start() != frames.newest + 1 {
            frames.since.clear();
        }
        frames.newest = last_seq;
        if frames.since.len() < TIMED_MAX {
            frames.since.push_back((last_seq, now));
        }
    }

    /// All up to this seq is durable at the destination.
    pub fn arrived(&self, watermark: u64, now: Instant) {
        let mut frames = lock(&self.0);
        while let Some((seq, since)) = frames.since.front().copied()
            && seq <= watermark
        {
            frames.since.pop_front();
            frames.timed += 1;
            frames.took_ms += now.saturating_duration_since(since).as_millis() as u64;
        }
    }

    /// All of it.
    pub fn carried(&self, stream: StreamId) -> StreamCarried {
        let frames = lock(&self.0);
        StreamCarried {
            stream,
            bytes: frames.bytes,
            timed: frames.timed,
            took_ms: frames.took_ms,
        }
    }
}

/// What was told last.
#[derive(Debug, Default)]
pub struct Told(Mutex<(u64, u32)>);

impl Told {
    /// The messages that tell it: none while nothing of it has changed, except now and then, for who has not heard it.
    pub fn messages(&self, boot: u64, nodes: Vec<NodeCarried>, streams: Vec<StreamCarried>) -> Vec<Carried> {
        let mut hasher = DefaultHasher::new();
        bus_schema::encode(&(&nodes, &streams)).hash(&mut hasher);
        let hash = hasher.finish();
        let (last, silent) = &mut *lock(&self.0);
        if std::mem::replace(last, hash) == hash && *silent + 1 < TOLD_ANYWAY {
            *silent += 1;
            return Vec::new();
        }
        *silent = 0;
        let (mut nodes, mut streams) = (nodes.into_iter(), streams.into_iter());
        let mut messages = Vec::new();
        loop {
            let message = Carried {
                boot,
                nodes: nodes.by_ref().take(CARRIED_PER_MESSAGE).collect(),
                streams: streams.by_ref().take(CARRIED_PER_MESSAGE).collect(),
            };
            let is_nothing = message.nodes.is_empty() && message.streams.is_empty();
            // That there is nothing any more is worth one.
            if is_nothing && !messages.is_empty() {
                return messages;
            }
            messages.push(message);
            if is_nothing {
                return messages;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bus_schema::id::WorkflowId;

    use super::*;

    fn records(records: u64) -> Work {
        Work {
            records,
            batches: 1,
            ..Work::default()
        }
    }

    #[test]
    fn nodes_of_several_pipes_are_one_and_edges_are_none() {
        let (first, second) = (Tally::default(), Tally::default());
        for (tally, node, count) in [
            (&first, "db", 10),
            (&first, "db", 5),
            (&first, "db->out", 15),
            (&first, "dead letters", 1),
            (&second, "out", 7),
            (&second, "db", 1),
        ] {
            tally.note(node, records(count));
        }
        let mut all = BTreeMap::new();
        first.add_to(&mut all);
        second.add_to(&mut all);
        let found: Vec<_> = all
            .iter()
            .map(|(node, work)| (node.as_str(), work.records, work.batches))
            .collect();
        assert_eq!(found, [("db", 16, 3), ("out", 7, 1)]);
    }

    #[test]
    fn frames_are_timed_from_where_they_went_in() {
        let (way, stream, start) = (OnTheWay::default(), StreamId::from_hash(&[1; 32]), Instant::now());
        let at = |ms| start + Duration::from_millis(ms);
        way.went_in(1..=3, 300, at(0));
        way.went_in(4..=5, 200, at(10));
        way.arrived(4, at(40));
        let said = way.carried(stream);
        assert_eq!((said.bytes, said.timed, said.took_ms), (500, 1, 40));
        way.arrived(5, at(110));
        way.arrived(5, at(500));
        let said = way.carried(stream);
        assert_eq!((said.timed, said.took_ms), (2, 140));
        // A new epoch counts from the beginning, however far its first frames go; what was on its way in the old one is not waited for.
        way.went_in(6..=9, 1, at(600));
        way.went_in(1..=20, 1, at(700));
        way.arrived(20, at(705));
        assert_eq!((way.carried(stream).timed, way.carried(stream).took_ms), (3, 145));
        for seq in 0..10_000 {
            way.went_in(21 + seq..=21 + seq, 1, at(800));
        }
        assert!(lock(&way.0).since.len() <= TIMED_MAX);
    }

    #[test]
    fn it_is_told_when_it_has_changed_and_now_and_then() {
        let told = Told::default();
        let nodes = |count: usize, records: u64| {
            let one = |n| NodeCarried {
                workflow: WorkflowId::of_name("w"),
                node: format!("n{n}"),
                work: self::records(records),
            };
            (0..count).map(one).collect::<Vec<_>>()
        };
        assert_eq!(told.messages(1, nodes(450, 1), Vec::new()).len(), 3);
        let mut silent = 0;
        while told.messages(1, nodes(450, 1), Vec::new()).is_empty() {
            silent += 1;
        }
        assert_eq!(silent, TOLD_ANYWAY - 1);
        assert_eq!(told.messages(1, nodes(450, 2), Vec::new()).len(), 3);
        let gone = told.messages(1, Vec::new(), Vec::new());
        assert_eq!(
            (gone.len(), gone[0].nodes.len()),
            (1, 0),
            "that there are none any more is told"
        );
        let exact = told.messages(1, nodes(CARRIED_PER_MESSAGE, 1), Vec::new());
        assert_eq!(exact.len(), 1);
    }
}
