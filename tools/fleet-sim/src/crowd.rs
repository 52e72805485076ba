//! Many daemons over one connection, where the broker has no rule that each has its own: they beat, each at its own time,
//! and hear what is addressed to them. A subject still names each sender, and every frame is sealed by its own keys.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, HashMap},
    sync::Arc,
    time::Duration,
};

use bus_link::{Bus, BusConfig, Event};
use bus_schema::{
    limits::HEARTBEAT_MS,
    message::RunState,
    subject::{Address, Lane, Pattern, Subject},
};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, interval, sleep_until},
};

use crate::{
    daemon::{Daemon, Frame},
    orders::Orders,
};

/// After a change, how long others may join it in one status.
const STATUS_SOON: Duration = Duration::from_millis(200);
/// Over this time daemons come back after the broker was away, each with a connection of its own.
const RETURN_MS: u64 = 2_000;
/// How often a crowd tells how it is.
const TELL: Duration = Duration::from_millis(250);

/// How a crowd is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Picture {
    /// Daemons.
    pub daemons: usize,
    /// Of them connected.
    pub connected: usize,
    /// Statuses sent.
    pub beats: u64,
    /// Daemons by what they run and how: `orders@2 running`.
    pub runs: BTreeMap<String, usize>,
    /// Daemons without a workflow.
    pub idle: usize,
}

impl Picture {
    /// Both together.
    pub fn add(&mut self, other: &Self) {
        self.daemons += other.daemons;
        self.connected += other.connected;
        self.beats += other.beats;
        self.idle += other.idle;
        for (what, count) in &other.runs {
            *self.runs.entry(what.clone()).or_default() += count;
        }
    }
}

/// Uniform below `most`, for jitter.
pub fn random(most: u64) -> u64 {
    getrandom::u64().unwrap_or(0) % most.max(1)
}

struct Crowd {
    daemons: Vec<Daemon>,
    by_node: HashMap<String, usize>,
    /// When each is due, the earliest first; one that was brought forward is found a second time, too late.
    due: BinaryHeap<Reverse<(Instant, usize)>>,
    next: Vec<Instant>,
    orders: watch::Receiver<Arc<Orders>>,
    beats: u64,
}

/// Runs daemons on one connection until the process ends.
pub async fn run(
    config: BusConfig,
    daemons: Vec<Daemon>,
    orders: watch::Receiver<Arc<Orders>>,
    told: mpsc::Sender<(usize, Picture)>,
    index: usize,
) {
    let patterns: Vec<Pattern> = daemons.iter().map(Daemon::hears_on).collect();
    let (bus, mut events) = Bus::start(config, patterns);
    let now = Instant::now();
    let mut crowd = Crowd {
        by_node: daemons
            .iter()
            .enumerate()
            .map(|(at, daemon)| (daemon.node().to_string(), at))
            .collect(),
        next: vec![now; daemons.len()],
        due: BinaryHeap::new(),
        daemons,
        orders,
        beats: 0,
    };
    crowd.spread(HEARTBEAT_MS);
    let mut tell = interval(TELL);
    loop {
        let next = crowd.due.peek().map_or(Instant::now() + TELL, |Reverse((at, _))| *at);
        tokio::select! {
            event = events.recv() => match event {
                Some(Event::Message { subject, payload }) => {
                    let out = crowd.hear(&subject, &payload);
                    publish(&bus, out).await;
                }
                Some(Event::Up { .. }) => crowd.spread(RETURN_MS),
                Some(Event::Down { cause }) => eprintln!("connection {index}: {cause}"),
                None => return,
            },
            () = sleep_until(next) => {
                let out = crowd.beat(bus.is_up());
                publish(&bus, out).await;
            }
            _ = tell.tick() => {
                let picture = crowd.picture(bus.is_up());
                if told.send((index, picture)).await.is_err() {
                    return;
                }
            }
        }
    }
}

async fn publish(bus: &Bus, frames: Vec<Frame>) {
    for (subject, frame) in frames {
        // Everything on the control lane is said again.
        let _ = bus.publish(&subject, frame).await;
    }
}

impl Crowd {
    /// All say something within this time.
    fn spread(&mut self, within_ms: u64) {
        let now = Instant::now();
        for at in 0..self.daemons.len() {
            self.at(at, now + Duration::from_millis(random(within_ms)));
        }
    }

    fn at(&mut self, daemon: usize, when: Instant) {
        self.next[daemon] = when;
        self.due.push(Reverse((when, daemon)));
    }

    /// What a daemon answers to a message.
    fn hear(&mut self, subject: &Subject, payload: &[u8]) -> Vec<Frame> {
        let Ok(Address {
            lane: Lane::Control,
            rest,
            ..
        }) = subject.address()
        else {
            return Vec::new();
        };
        let Some(at) = rest.first().and_then(|node| self.by_node.get(node)).copied() else {
            return Vec::new();
        };
        let orders = Arc::clone(&self.orders.borrow());
        let soon = Instant::now() + STATUS_SOON;
        if self.daemons[at].hear(subject, payload, &orders) && self.next[at] > soon {
            self.at(at, soon);
        }
        self.daemons[at].take_out()
    }

    /// What those say who are due.
    fn beat(&mut self, is_up: bool) -> Vec<Frame> {
        let (now, orders) = (Instant::now(), Arc::clone(&self.orders.borrow()));
        let mut out = Vec::new();
        while let Some(Reverse((when, at))) = self.due.peek().copied() {
            if when > now {
                break;
            }
            self.due.pop();
            if when != self.next[at] {
                continue;
            }
            let daemon = &mut self.daemons[at];
            if is_up && daemon.obey(&orders) {
                daemon.beat(&orders);
                self.beats += 1;
            }
            out.extend(daemon.take_out());
            // A tenth of jitter, as real ones have.
            let pause = Duration::from_millis(HEARTBEAT_MS - random(HEARTBEAT_MS / 10));
            let change = daemon.changes_in_ms().map(|ms| Duration::from_millis(ms) + STATUS_SOON);
            self.at(at, now + change.map_or(pause, |change| change.min(pause)));
        }
        out
    }

    fn picture(&self, is_up: bool) -> Picture {
        let orders = Arc::clone(&self.orders.borrow());
        let mut picture = Picture {
            daemons: self.daemons.len(),
            connected: if is_up { self.daemons.len() } else { 0 },
            beats: self.beats,
            ..Picture::default()
        };
        for daemon in &self.daemons {
            let mut is_idle = true;
            for (name, revision, state) in daemon.runs(&orders) {
                is_idle = false;
                *picture
                    .runs
                    .entry(format!("{name}@{revision} {}", word(state)))
                    .or_default() += 1;
            }
            picture.idle += usize::from(is_idle);
        }
        picture
    }
}

fn word(state: RunState) -> &'static str {
    match state {
        RunState::Starting => "starting",
        RunState::Failed => "failed",
        _ => "running",
    }
}
