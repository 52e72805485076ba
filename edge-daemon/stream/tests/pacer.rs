//! The pacer on a simulated line: a queue that sends so many bytes a second, first come, first served, as a modem does.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use bus_schema::{
    id::{NodeId, StreamId},
    plan::{Class, SendPolicy, Window as Hours},
};
use stream::{
    hours::TimeOfDay,
    pacer::{Pacer, Turn, WHOLE},
    window::{QUEUEING_TARGET, WINDOW_BYTES_FIRST, WINDOW_BYTES_MAX, WINDOW_BYTES_MIN},
};

const FRAME: usize = 60_000;
/// What stands around each message on the line.
const AROUND: usize = 120;

fn stream(n: u8) -> StreamId {
    StreamId::from_hash(&[n; 32])
}

fn node(n: u8) -> NodeId {
    NodeId::from_hash(&[n; 32])
}

fn policy(class: Class) -> SendPolicy {
    SendPolicy {
        class,
        ..SendPolicy::default()
    }
}

struct Sender {
    consumer: u8,
    seq: u64,
    offset: usize,
    /// Delivered bytes.
    through: u64,
    /// Has something to send.
    is_busy: bool,
}

struct Passing {
    arrives: Duration,
    stream: u8,
    end: (u64, u32),
    bytes: usize,
}

/// Senders before one line to all consumers; consumers behind lines of their own.
struct World {
    pacer: Pacer,
    start: Instant,
    now: Duration,
    bytes_per_s: f64,
    /// One way.
    latency: Duration,
    free_at: Duration,
    own_lines: BTreeMap<u8, (f64, Duration)>,
    passing: VecDeque<Passing>,
    acks: Vec<Passing>,
    senders: BTreeMap<u8, Sender>,
    /// The longest the shared line's queue was, since last looked at.
    queue_max: Duration,
}

impl World {
    fn new(bytes_per_s: f64, latency: Duration) -> Self {
        Self {
            pacer: Pacer::default(),
            start: Instant::now(),
            now: Duration::ZERO,
            bytes_per_s,
            latency,
            free_at: Duration::ZERO,
            own_lines: BTreeMap::new(),
            passing: VecDeque::new(),
            acks: Vec::new(),
            senders: BTreeMap::new(),
            queue_max: Duration::ZERO,
        }
    }

    fn join(&mut self, name: u8, consumer: u8, policy: &SendPolicy) {
        self.pacer
            .join(stream(name), node(consumer), policy, self.start + self.now);
        let sender = Sender {
            consumer,
            seq: 1,
            offset: 0,
            through: 0,
            is_busy: true,
        };
        self.senders.insert(name, sender);
    }

    /// Sends whatever may be sent now.
    fn send_all(&mut self) {
        let now = self.start + self.now;
        let mut asks: VecDeque<u8> = self.senders.keys().copied().collect();
        while let Some(name) = asks.pop_front() {
            let sender = self.senders.get_mut(&name).unwrap();
            if !sender.is_busy {
                self.pacer.give_up(&stream(name));
                continue;
            }
            let wanted = FRAME - sender.offset;
            let Turn::Go(bytes) = self.pacer.ask(&stream(name), wanted, now, None) else {
                continue;
            };
            assert!(bytes > 0 && bytes <= wanted);
            let whole = bytes == wanted;
            let end = if whole { WHOLE } else { (sender.offset + bytes) as u32 };
            self.pacer.sent(&stream(name), sender.seq, end, bytes, now);
            assert!(self.pacer.on_the_way() <= WINDOW_BYTES_MAX);
            let on_wire = Duration::from_secs_f64((bytes + AROUND) as f64 / self.bytes_per_s);
            self.free_at = self.free_at.max(self.now) + on_wire;
            self.queue_max = self.queue_max.max(self.free_at - self.now);
            let mut arrives = self.free_at + self.latency;
            if let Some((rate, free_at)) = self.own_lines.get_mut(&sender.consumer) {
                *free_at = arrives.max(*free_at) + Duration::from_secs_f64((bytes + AROUND) as f64 / *rate);
                arrives = *free_at;
            }
            self.passing.push_back(Passing {
                arrives: arrives + self.latency,
                stream: name,
                end: (sender.seq, end),
                bytes,
            });
            (sender.seq, sender.offset) = if whole {
                (sender.seq + 1, 0)
            } else {
                (sender.seq, sender.offset + bytes)
            };
            // Whoever is next is woken, as the daemon does it.
            asks.push_back(name);
            let next = self.pacer.next(now, None);
            asks.extend((1..=9).filter(|other| next == Some(stream(*other))));
        }
    }

    /// Lets so much time pass. Acknowledgements come back as they are given.
    fn run(&mut self, seconds: f64) {
        let end = self.now + Duration::from_secs_f64(seconds);
        while self.now < end {
            self.send_all();
            let next = self.passing.iter().map(|passing| passing.arrives).min();
            self.now = next
                .unwrap_or(end)
                .clamp(self.now, self.now + Duration::from_millis(10))
                .min(end);
            let now = self.now;
            let (arrived, passing): (Vec<_>, Vec<_>) =
                self.passing.drain(..).partition(|passing| passing.arrives <= now);
            (self.acks, self.passing) = (arrived, passing.into());
            self.acks.sort_by_key(|ack| ack.arrives);
            for ack in self.acks.drain(..) {
                let (seq, end) = ack.end;
                let (received, partial) = if end == WHOLE { (seq, 0) } else { (seq - 1, end) };
                self.pacer
                    .acked(&stream(ack.stream), received, partial, self.start + self.now);
                self.senders.get_mut(&ack.stream).unwrap().through += ack.bytes as u64;
            }
        }
    }

    fn take_through(&mut self, name: u8) -> f64 {
        std::mem::take(&mut self.senders.get_mut(&name).unwrap().through) as f64
    }

    fn take_queue_max(&mut self) -> Duration {
        std::mem::take(&mut self.queue_max)
    }
}

const KBIT: f64 = 1_000.0 / 8.0;

#[test]
fn the_queue_is_about_a_second_and_the_line_is_full() {
    for (bytes_per_s, latency_ms) in [
        (50.0 * KBIT, 20),
        (50.0 * KBIT, 600),
        (128.0 * KBIT, 300),
        (1_000.0 * KBIT, 50),
        (9.6 * KBIT, 100),
        (50.0 * KBIT, 2_500),
    ] {
        let mut world = World::new(bytes_per_s, Duration::from_millis(latency_ms));
        world.join(1, 1, &policy(Class::Normal));
        let first = Duration::from_secs_f64(1.2 * WINDOW_BYTES_FIRST as f64 / bytes_per_s);
        world.run(60.0);
        let beginning = world.take_queue_max();
        let line = format!("{bytes_per_s} B/s, {latency_ms} ms");
        assert!(
            beginning < (QUEUEING_TARGET * 2).max(first),
            "{line}: {beginning:?} at the beginning"
        );
        world.take_through(1);
        world.run(60.0);
        // On the slowest of lines one piece is much of a second already.
        let least = Duration::from_secs_f64(1.5 * (WINDOW_BYTES_MIN + 2 * AROUND) as f64 / bytes_per_s);
        let queue = world.take_queue_max();
        assert!(
            queue < (QUEUEING_TARGET * 2).max(least),
            "{line}: the queue is {queue:?}, the window {}",
            world.pacer.window()
        );
        let used = world.take_through(1) / (bytes_per_s * 60.0);
        assert!(used > 0.6, "{line}: only {:.0} % of it are used", used * 100.0);
    }
}

#[test]
fn a_fast_line_is_not_held_back() {
    for latency_ms in [1, 20, 100] {
        let mut world = World::new(20e6, Duration::from_millis(latency_ms));
        world.join(1, 1, &policy(Class::Normal));
        world.run(1.5);
        assert_eq!(world.pacer.window(), WINDOW_BYTES_MAX, "{latency_ms} ms");
    }
}

#[test]
fn a_line_that_becomes_slow_or_fast_is_followed() {
    let mut world = World::new(1e6, Duration::from_millis(20));
    world.join(1, 1, &policy(Class::Normal));
    world.run(5.0);
    // What is on the way at that moment has to pass first.
    world.bytes_per_s = 50.0 * KBIT;
    world.run(300.0);
    world.take_queue_max();
    world.run(60.0);
    let queue = world.take_queue_max();
    assert!(queue < QUEUEING_TARGET * 2, "the queue is {queue:?}");
    world.bytes_per_s = 1e6;
    world.run(30.0);
    world.take_through(1);
    world.run(5.0);
    let used = world.take_through(1) / (1e6 * 5.0);
    assert!(used > 0.9, "only {:.0} % are used again", used * 100.0);
}

#[test]
fn classes_go_first_and_equals_share() {
    let mut world = World::new(100.0 * KBIT, Duration::from_millis(20));
    world.join(1, 1, &policy(Class::Bulk));
    world.join(2, 1, &policy(Class::Normal));
    world.join(3, 1, &policy(Class::Normal));
    world.join(4, 1, &policy(Class::Critical));
    world.senders.get_mut(&4).unwrap().is_busy = false;
    world.run(60.0);
    let through: Vec<f64> = (1..=4).map(|name| world.take_through(name)).collect();
    assert!(through[0] < FRAME as f64, "bulk only gets what is left: {through:?}");
    assert!(
        (0.8..1.25).contains(&(through[1] / through[2])),
        "equals share: {through:?}"
    );
    // Somebody more important comes.
    world.senders.get_mut(&4).unwrap().is_busy = true;
    world.run(3.0);
    world.take_through(4);
    for name in 1..=3 {
        world.take_through(name);
    }
    world.run(30.0);
    let through: Vec<f64> = (1..=4).map(|name| world.take_through(name)).collect();
    assert!(
        through[3] > 0.9 * through.iter().sum::<f64>(),
        "critical goes first: {through:?}"
    );
    // And everybody rests but the last.
    (2..=4).for_each(|name| world.senders.get_mut(&name).unwrap().is_busy = false);
    world.run(5.0);
    world.take_through(1);
    world.run(30.0);
    assert!(world.take_through(1) > 0.75 * 100.0 * KBIT * 30.0);
}

#[test]
fn a_consumer_on_a_slow_line_holds_up_no_other() {
    let mut world = World::new(1e6, Duration::from_millis(5));
    world.own_lines.insert(1, (50.0 * KBIT, Duration::ZERO));
    world.join(1, 1, &policy(Class::Critical));
    world.join(2, 2, &policy(Class::Bulk));
    world.run(30.0);
    world.take_through(1);
    world.take_through(2);
    world.run(30.0);
    let (slow, fast) = (world.take_through(1), world.take_through(2));
    assert!(slow > 0.75 * 50.0 * KBIT * 30.0, "the slow one got {slow}");
    assert!(fast > 0.8 * 1e6 * 30.0, "the fast one got {fast}");
}

#[test]
fn a_rate_holds_up_only_its_own_stream() {
    let mut world = World::new(1e6, Duration::from_millis(5));
    let capped = SendPolicy {
        class: Class::Critical,
        bytes_per_s_max: 20_000,
        ..SendPolicy::default()
    };
    world.join(1, 1, &capped);
    world.join(2, 1, &policy(Class::Normal));
    world.run(10.0);
    let (capped, other) = (world.take_through(1), world.take_through(2));
    assert!((180_000.0..240_000.0).contains(&capped), "{capped} in ten seconds");
    assert!(other > 0.8 * (1e6 * 10.0 - capped), "{other} in ten seconds");
}

#[test]
fn of_two_that_take_turns_one_goes_first_and_both_keep_one_rate() {
    let (mut pacer, mut now) = (Pacer::default(), Instant::now());
    let capped = SendPolicy {
        bytes_per_s_max: 10_000,
        ..SendPolicy::default()
    };
    let (backlog, live, other) = (stream(1), stream(2), stream(3));
    pacer.join_twin(backlog, Some(live), node(1), &capped, now);
    pacer.join_twin(live, Some(backlog), node(1), &capped, now);
    pacer.join(other, node(1), &policy(Class::Normal), now);
    pacer.yields(&backlog, true);
    now += Duration::from_secs(1);
    // Alone, it may; what it used is missing to its twin.
    assert_eq!(pacer.ask(&backlog, 4_000, now, None), Turn::Go(4_000));
    pacer.sent(&backlog, 1, WHOLE, 9_000, now);
    pacer.acked(&backlog, 1, 0, now);
    let Turn::Rate(wait) = pacer.ask(&live, 4_000, now, None) else {
        panic!("one rate for both");
    };
    // While its twin waits, also for the rate, it does not.
    assert_eq!(pacer.next(now, None), None);
    now += wait;
    assert_eq!(pacer.ask(&backlog, 1_000, now, None), Turn::Wait);
    assert_eq!(pacer.next(now, None), Some(live));
    // Others are not held up by it, and have their turn.
    assert_eq!(pacer.ask(&other, 4_000, now, None), Turn::Wait);
    assert!(matches!(pacer.ask(&live, 4_000, now, None), Turn::Go(_)));
    assert_eq!(pacer.next(now, None), Some(backlog), "it asked before the other");
    // The turns change.
    pacer.yields(&backlog, false);
    pacer.yields(&live, true);
    assert_eq!(pacer.ask(&live, 1_000, now, None), Turn::Wait);
    pacer.give_up(&backlog);
    pacer.give_up(&other);
    assert_eq!(pacer.next(now, None), Some(live));
    // What is left of two keeps the rate.
    pacer.leave(&backlog, now);
    pacer.sent(&live, 1, WHOLE, 9_000, now);
    assert!(matches!(pacer.ask(&live, 1_000, now, None), Turn::Rate(_)));
}

#[test]
fn hours_hold_up_only_their_own_stream() {
    let (mut pacer, now) = (Pacer::default(), Instant::now());
    let nightly = SendPolicy {
        class: Class::Critical,
        windows: vec![Hours {
            from_minute: 22 * 60,
            to_minute: 6 * 60,
        }],
        ..SendPolicy::default()
    };
    pacer.join(stream(1), node(1), &nightly, now);
    pacer.join(stream(2), node(1), &policy(Class::Bulk), now);
    let at = |hour: u32| Some(TimeOfDay { second: hour * 3_600 });
    // The clock is looked at again long before the window opens: it may be set meanwhile.
    let closed = Turn::Closed(Duration::from_secs(30));
    for (clock, expected) in [
        (at(12), closed),
        (at(23), Turn::Go(900)),
        (None, Turn::Go(900)),
        (at(6), closed),
    ] {
        assert_eq!(pacer.ask(&stream(1), 900, now, clock), expected, "{clock:?}");
    }
    assert_eq!(pacer.ask(&stream(2), 900, now, at(12)), Turn::Go(900));
    assert_eq!(pacer.next(now, at(12)), None);
    assert_eq!(pacer.next(now, at(22)), Some(stream(1)));
}

#[test]
fn who_leaves_or_rests_holds_up_nobody() {
    let (mut pacer, now) = (Pacer::default(), Instant::now());
    for name in [1, 2, 3] {
        pacer.join(stream(name), node(1), &policy(Class::Normal), now);
    }
    while let Turn::Go(bytes) = pacer.ask(&stream(1), FRAME, now, None) {
        pacer.sent(&stream(1), 1, 0, bytes, now);
    }
    assert_eq!(pacer.ask(&stream(2), 100, now, None), Turn::Wait);
    assert_eq!(pacer.next(now, None), None);
    // What it had on the way is not waited for.
    pacer.leave(&stream(1), now);
    assert_eq!((pacer.on_the_way(), pacer.next(now, None)), (0, Some(stream(2))));
    assert_eq!(pacer.ask(&stream(3), 100, now, None), Turn::Wait);
    pacer.away(&stream(2));
    assert_eq!(pacer.next(now, None), Some(stream(3)));
    assert_eq!(
        pacer.ask(&stream(2), 100, now, None),
        Turn::Go(100),
        "it has kept its place"
    );
    pacer.give_up(&stream(3));
    assert_eq!(pacer.next(now, None), None);
    assert_eq!(pacer.ask(&stream(1), 100, now, None), Turn::Wait, "it has left");
}

#[test]
fn losses_and_reconnects_leave_nothing_on_the_way() {
    let (mut pacer, now) = (Pacer::default(), Instant::now());
    pacer.join(stream(1), node(1), &policy(Class::Normal), now);
    let fill = |pacer: &mut Pacer| {
        let mut sent = 0;
        while let Turn::Go(bytes) = pacer.ask(&stream(1), FRAME - sent, now, None) {
            sent += bytes;
            pacer.sent(&stream(1), 1, sent as u32, bytes, now);
        }
        sent
    };
    assert_eq!(fill(&mut pacer), WINDOW_BYTES_FIRST);
    pacer.lost(&stream(1), now);
    assert_eq!(pacer.on_the_way(), 0);
    assert_eq!(fill(&mut pacer), WINDOW_BYTES_FIRST / 2);
    // An acknowledgement of what was sent twice says nothing about the delay.
    pacer.acked(
        &stream(1),
        0,
        (WINDOW_BYTES_FIRST / 2) as u32,
        now + Duration::from_secs(9),
    );
    assert_eq!((pacer.on_the_way(), pacer.delay(&stream(1))), (0, Duration::ZERO));
    fill(&mut pacer);
    pacer.reconnected();
    assert_eq!(pacer.on_the_way(), 0);
    assert_eq!(fill(&mut pacer), WINDOW_BYTES_FIRST);
}
