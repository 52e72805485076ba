//! Who may send how much now: one for all streams that leave a daemon over one connection. Pure: events and the time come in.
//!
//! Bytes on the way (sent, and not yet known to have reached the consumer) are bounded by a [`Window`] that follows the
//! delay: one for the daemon's own line, and one for each consumer, whose line may be the slower one. So a queue in front of
//! a slow line, which everybody on it stands in, holds about a second of data, and what is said on the control connection
//! gets through. Within that, streams go by class and in turn; a stream's own rate and hours hold up only itself.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    time::{Duration, Instant},
};

use bus_schema::{
    id::{NodeId, StreamId},
    plan::{Class, SendPolicy},
};

use crate::{
    hours::{self, TimeOfDay},
    window::{Acked, Delay, WINDOW_BYTES_MIN, Window},
};

/// Least bytes in a piece, unless no more are left: below it, what stands around a piece costs too much.
pub const PIECE_BYTES_MIN: usize = 2 * 1024;
/// A piece is at most this part of the window, so that acknowledgements come steadily.
const PIECE_SHARE: usize = 4;
/// A way that was heard of within this time counts when the daemon's own line is judged.
const WAY_HEARD_MAX: Duration = Duration::from_secs(5);
/// Longest wait before the clock is looked at again: it, or its zone, may be changed meanwhile.
const CLOCK_AGAIN: Duration = Duration::from_secs(30);
/// A rate allows bursts of so much of itself.
const BURST: Duration = Duration::from_secs(1);

/// Whether a stream may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// So many bytes, now.
    Go(usize),
    /// Others first, or too much is on the way: [`Pacer::next`] names it when it is its turn.
    Wait,
    /// It has used up its rate: ask again after this long.
    Rate(Duration),
    /// It is outside its hours: ask again after this long.
    Closed(Duration),
}

/// Where in a stream something stands: a seq, and bytes of the frame of that seq.
type Place = (u64, u32);
/// All of a frame.
pub const WHOLE: u32 = u32::MAX;

#[derive(Debug)]
struct Sent {
    /// Acknowledged once the consumer is here.
    end: Place,
    bytes: usize,
    at: Instant,
    /// On the way then, with these; of this consumer and of all.
    of: [usize; 2],
    /// It was sent before: an acknowledgement may be of that time.
    again: bool,
}

#[derive(Debug)]
struct Bucket {
    bytes_per_s: u64,
    bytes: f64,
    at: Instant,
}

impl Bucket {
    fn most(&self) -> f64 {
        (self.bytes_per_s as f64 * BURST.as_secs_f64()).max(PIECE_BYTES_MIN as f64)
    }

    fn fill(&mut self, now: Instant) {
        let since = now.saturating_duration_since(self.at).as_secs_f64();
        self.bytes = (self.bytes + since * self.bytes_per_s as f64).min(self.most());
        self.at = now;
    }

    /// How long until there is so much.
    fn wait(&self, bytes: usize) -> Option<Duration> {
        let missing = bytes as f64 - self.bytes;
        (missing > 0.0).then(|| Duration::from_secs_f64(missing / self.bytes_per_s as f64))
    }
}

#[derive(Debug)]
struct Lane {
    way: NodeId,
    policy: SendPolicy,
    /// The other one of two that take turns.
    twin: Option<StreamId>,
    /// Its twin goes first.
    yields: bool,
    sent: VecDeque<Sent>,
    on_the_way: usize,
    /// The furthest that was ever sent on this connection.
    furthest: Place,
    /// Since when (a number that goes up) it waits, and for how many bytes.
    waits: Option<(u64, usize)>,
    /// It is busy with something else, and keeps its place.
    is_away: bool,
}

impl Lane {
    /// What it must be given at least.
    fn least(&self) -> usize {
        self.waits.map_or(0, |(_, bytes)| bytes.min(PIECE_BYTES_MIN))
    }

    /// Whose rate it keeps: of two that take turns, they have one.
    fn bucket(&self, stream: &StreamId) -> StreamId {
        self.twin.map_or(*stream, |twin| twin.min(*stream))
    }
}

#[derive(Debug, Default)]
struct Way {
    delay: Delay,
    window: Window,
    on_the_way: usize,
    heard_at: Option<Instant>,
}

/// All lanes of one connection.
#[derive(Debug, Default)]
pub struct Pacer {
    lanes: HashMap<StreamId, Lane>,
    buckets: HashMap<StreamId, Bucket>,
    ways: HashMap<NodeId, Way>,
    window: Window,
    on_the_way: usize,
    tickets: u64,
}

impl Pacer {
    /// A stream begins.
    pub fn join(&mut self, stream: StreamId, consumer: NodeId, policy: &SendPolicy, now: Instant) {
        self.join_twin(stream, None, consumer, policy, now);
    }

    /// One of two streams that take turns begins: they share a rate, and one goes before the other ([`Self::yields`]).
    pub fn join_twin(
        &mut self,
        stream: StreamId,
        twin: Option<StreamId>,
        consumer: NodeId,
        policy: &SendPolicy,
        now: Instant,
    ) {
        self.leave(&stream, now);
        let lane = Lane {
            way: consumer,
            policy: policy.clone(),
            twin,
            yields: false,
            sent: VecDeque::new(),
            on_the_way: 0,
            furthest: (0, 0),
            waits: None,
            is_away: false,
        };
        if policy.bytes_per_s_max > 0 {
            let bucket = self.buckets.entry(lane.bucket(&stream)).or_insert(Bucket {
                bytes_per_s: policy.bytes_per_s_max,
                bytes: PIECE_BYTES_MIN as f64,
                at: now,
            });
            bucket.bytes_per_s = policy.bytes_per_s_max;
        }
        self.ways.entry(consumer).or_default();
        self.lanes.insert(stream, lane);
    }

    /// A stream ends.
    pub fn leave(&mut self, stream: &StreamId, now: Instant) {
        self.forget(stream, now);
        let Some(lane) = self.lanes.remove(stream) else { return };
        if !self.lanes.values().any(|other| other.way == lane.way) {
            self.ways.remove(&lane.way);
        }
        if lane.twin.is_none_or(|twin| !self.lanes.contains_key(&twin)) {
            self.buckets.remove(&lane.bucket(stream));
        }
    }

    /// Whether a stream sends only what its twin leaves.
    pub fn yields(&mut self, stream: &StreamId, yields: bool) {
        if let Some(lane) = self.lanes.get_mut(stream) {
            lane.yields = yields;
        }
    }

    /// What a stream holds itself up with.
    fn own_wait(&mut self, stream: &StreamId, now: Instant, clock: Option<TimeOfDay>) -> Option<Turn> {
        let lane = self.lanes.get(stream)?;
        let closed = clock.and_then(|clock| hours::closed_for(&lane.policy.windows, clock));
        if let Some(closed) = closed {
            return Some(Turn::Closed(closed.min(CLOCK_AGAIN)));
        }
        let bucket = self.buckets.get_mut(&lane.bucket(stream))?;
        bucket.fill(now);
        bucket.wait(lane.least()).map(Turn::Rate)
    }

    /// Whether a stream's twin goes first, and wants to.
    fn is_behind_twin(&self, lane: &Lane) -> bool {
        let twin = lane.twin.filter(|_| lane.yields);
        let twin = twin.and_then(|twin| self.lanes.get(&twin));
        twin.is_some_and(|twin| twin.waits.is_some() && !twin.yields)
    }

    /// The connection is a new one, or gone: nothing is known of its line, and nothing is on the way.
    pub fn reconnected(&mut self) {
        self.window = Window::default();
        self.on_the_way = 0;
        self.ways.values_mut().for_each(|way| *way = Way::default());
        for lane in self.lanes.values_mut() {
            lane.sent.clear();
            lane.on_the_way = 0;
            lane.furthest = (0, 0);
            lane.waits = None;
        }
    }

    /// A stream would like to send so many bytes. `clock` is `None` while the time of day is not known.
    pub fn ask(&mut self, stream: &StreamId, bytes: usize, now: Instant, clock: Option<TimeOfDay>) -> Turn {
        let Some(lane) = self.lanes.get_mut(stream) else {
            // It has just been let go of.
            return Turn::Wait;
        };
        let ticket = match lane.waits {
            Some((ticket, _)) => ticket,
            None => {
                self.tickets += 1;
                self.tickets
            }
        };
        lane.waits = Some((ticket, bytes));
        lane.is_away = false;
        if let Some(wait) = self.own_wait(stream, now, clock) {
            return wait;
        }
        if self.next(now, clock) != Some(*stream) {
            return Turn::Wait;
        }
        let Some(lane) = self.lanes.get_mut(stream) else {
            return Turn::Wait;
        };
        lane.waits = None;
        let way = self.ways.entry(lane.way).or_default();
        let window = way.window.bytes().min(self.window.bytes());
        let room = (way.window.bytes() - way.on_the_way).min(self.window.bytes() - self.on_the_way);
        let bucket = self.buckets.get(&lane.bucket(stream));
        let allowed = bucket.map_or(usize::MAX, |bucket| bucket.bytes as usize);
        let piece = (window / PIECE_SHARE).max(PIECE_BYTES_MIN);
        Turn::Go(bytes.min(piece).min(room).min(allowed))
    }

    /// A stream has nothing to send any more, or cannot.
    pub fn give_up(&mut self, stream: &StreamId) {
        if let Some(lane) = self.lanes.get_mut(stream) {
            lane.waits = None;
        }
    }

    /// A stream that waits is busy with something else until it asks again: others need not wait for it.
    pub fn away(&mut self, stream: &StreamId) {
        if let Some(lane) = self.lanes.get_mut(stream) {
            lane.is_away = true;
        }
    }

    /// Whose turn it is among those that wait.
    pub fn next(&mut self, now: Instant, clock: Option<TimeOfDay>) -> Option<StreamId> {
        let mut waiting: Vec<(Class, u64, StreamId)> = self
            .lanes
            .iter()
            .filter(|(_, lane)| !lane.is_away && !self.is_behind_twin(lane))
            .filter_map(|(stream, lane)| lane.waits.map(|(ticket, _)| (lane.policy.class, ticket, *stream)))
            .collect();
        waiting.sort_unstable();
        let mut full = HashSet::new();
        for (_, _, stream) in waiting {
            let is_held_up = self.own_wait(&stream, now, clock).is_some();
            let lane = self.lanes.get(&stream)?;
            if is_held_up || full.contains(&lane.way) {
                continue;
            }
            let least = lane.least();
            // A little room is kept for whoever comes first: or small frames of those behind would use it up for ever.
            if self.on_the_way + least > self.window.bytes() {
                return None;
            }
            let way = self.ways.entry(lane.way).or_default();
            if way.on_the_way + least > way.window.bytes() {
                full.insert(lane.way);
                continue;
            }
            return Some(stream);
        }
        None
    }

    /// Bytes leave, up to so many of the frame of this seq, or [`WHOLE`].
    pub fn sent(&mut self, stream: &StreamId, seq: u64, end: u32, bytes: usize, now: Instant) {
        let Some(lane) = self.lanes.get_mut(stream) else { return };
        let way = self.ways.entry(lane.way).or_default();
        way.window.sent(now);
        self.window.sent(now);
        lane.on_the_way += bytes;
        way.on_the_way += bytes;
        self.on_the_way += bytes;
        if let Some(bucket) = self.buckets.get_mut(&lane.bucket(stream)) {
            bucket.fill(now);
            bucket.bytes -= bytes as f64;
        }
        let place = (seq, end);
        lane.sent.push_back(Sent {
            end: place,
            bytes,
            at: now,
            of: [way.on_the_way, self.on_the_way],
            again: place <= lane.furthest,
        });
        lane.furthest = lane.furthest.max(place);
    }

    /// The consumer has everything up to `received`, and so many bytes of the frame after it.
    pub fn acked(&mut self, stream: &StreamId, received: u64, partial: u32, now: Instant) {
        let Some(lane) = self.lanes.get_mut(stream) else { return };
        let mut bytes = 0;
        let mut last = None;
        let has = |(seq, end): Place| seq <= received || (seq == received + 1 && end <= partial);
        while let Some(sent) = lane.sent.pop_front_if(|sent| has(sent.end)) {
            bytes += sent.bytes;
            last = Some(sent);
        }
        let Some(last) = last else { return };
        lane.on_the_way -= bytes;
        let consumer = lane.way;
        let way = self.ways.entry(consumer).or_default();
        way.on_the_way -= bytes;
        self.on_the_way -= bytes;
        if way.on_the_way == 0 {
            way.window.idle(now);
        }
        if self.on_the_way == 0 {
            self.window.idle(now);
        }
        if last.again {
            return;
        }
        let [of_way, of_all] = last.of;
        way.heard_at = Some(now);
        way.delay
            .sample(now.saturating_duration_since(last.at), of_all <= WINDOW_BYTES_MIN);
        let acked = |of| Acked {
            bytes,
            sent_at: last.at,
            of,
        };
        way.window.acked(acked(of_way), &way.delay, now);
        // The daemon's own line is slow when it is slow to everybody.
        let heard = |way: &&Way| {
            way.heard_at
                .is_some_and(|at| now.saturating_duration_since(at) < WAY_HEARD_MAX)
        };
        let least = self.ways.values().filter(heard).min_by_key(|way| way.delay.queueing());
        if let Some(least) = least {
            self.window.acked(acked(of_all), &least.delay, now);
        }
    }

    /// The consumer asked to go back: something was lost, and nobody knows what of the rest still comes.
    pub fn lost(&mut self, stream: &StreamId, now: Instant) {
        if let Some(lane) = self.lanes.get(stream) {
            if let Some(way) = self.ways.get_mut(&lane.way) {
                way.window.lost(now);
            }
            self.window.lost(now);
        }
        self.forget(stream, now);
    }

    /// What a stream has on the way is not waited for any more.
    fn forget(&mut self, stream: &StreamId, now: Instant) {
        let Some(lane) = self.lanes.get_mut(stream) else { return };
        lane.sent.clear();
        let bytes = std::mem::take(&mut lane.on_the_way);
        self.on_the_way -= bytes;
        if let Some(way) = self.ways.get_mut(&lane.way) {
            way.on_the_way -= bytes;
            if way.on_the_way == 0 {
                way.window.idle(now);
            }
        }
        if self.on_the_way == 0 {
            self.window.idle(now);
        }
    }

    /// How long a stream's bytes take until they are acknowledged.
    pub fn delay(&self, stream: &StreamId) -> Duration {
        let way = self.lanes.get(stream).and_then(|lane| self.ways.get(&lane.way));
        way.map(|way| way.delay.last()).unwrap_or_default()
    }

    /// Bytes on the way, of all streams.
    pub fn on_the_way(&self) -> usize {
        self.on_the_way
    }

    /// Most bytes of all streams on the way now.
    pub fn window(&self) -> usize {
        self.window.bytes()
    }
}
