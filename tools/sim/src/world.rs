//! One run: a source, one or two streams from it, their consumers and destinations, the broker between them, the clock, and
//! everything that happens to them. Ends with a verdict.

use std::time::{Duration, Instant};

use bus_schema::{
    key::SecretKey,
    message::{Frame, StreamAck, StreamOpen},
};
use flow::Watermark;

use crate::{
    consumer::Consumer,
    dice::Dice,
    net::{Lane, Weather},
    oracle::{self, Oracle},
    producer::{Lineage, Producer},
    setting::Setting,
    spool::Spool,
};

/// Rounds in which everybody has a turn, within which all must have arrived once nothing fails any more.
const DRAIN_ROUNDS_MAX: u64 = 4_000;
/// Older states of a destination, or copies of a spool, that are kept.
const COPIES_MAX: usize = 3;

/// Why something did not run to its end.
#[derive(Debug)]
pub enum Stop {
    /// The daemon that did it is dead.
    Crash,
    /// A promise was broken.
    Broken(String),
}

impl From<String> for Stop {
    fn from(broken: String) -> Self {
        Stop::Broken(broken)
    }
}

/// A frame on its way.
#[derive(Debug, Clone)]
pub struct Sealed {
    /// The key it is sealed with.
    pub key: SecretKey,
    /// Its epoch.
    pub epoch: u64,
    /// Its seq.
    pub seq: u64,
    /// What it is known by.
    pub print: u64,
    /// What is in it.
    pub frame: Frame,
}

/// What a destination holds. One transaction changes all of it.
#[derive(Debug, Clone, Default)]
pub struct Destination {
    /// The watermark.
    pub mark: Option<Watermark>,
    /// The records, as they were written.
    pub content: Vec<u64>,
    /// The present epoch, and what was accounted for before it.
    pub base: (u64, u64),
}

/// One stream, with what is at both of its ends.
#[derive(Debug)]
pub struct Stream {
    /// The producer's files.
    pub spool: Spool,
    /// See [`Lineage`].
    pub lineage: Option<Lineage>,
    /// Parts of the spool were damaged once.
    pub is_damaged: bool,
    /// Frames on their way.
    pub frames: Lane<Sealed>,
    /// Acknowledgements on their way.
    pub acks: Lane<StreamAck>,
    /// Openings on their way.
    pub opens: Lane<StreamOpen>,
    /// Whether the consumer's daemon is connected.
    pub is_up: bool,
    /// The consumer's daemon, while it lives.
    pub consumer: Option<Consumer>,
    /// The destination.
    pub destination: Destination,
    /// Older states of it.
    pub older: Vec<Destination>,
    /// What is known of it all.
    pub oracle: Oracle,
}

/// A run.
pub struct World {
    /// What it is made of.
    pub setting: Setting,
    /// Chance.
    pub dice: Dice,
    /// The time.
    pub now: Instant,
    start: Instant,
    /// Records the source has had so far: 1 up to this one.
    pub produced: u64,
    /// The first record that was not read yet, of a source that cannot read again.
    pub unread: u64,
    /// Starts of the producer's daemon.
    pub boot: u64,
    /// The producer's daemon, while it lives.
    pub producer: Option<Producer>,
    /// Whether it is connected.
    pub is_up: bool,
    /// The streams.
    pub streams: Vec<Stream>,
    /// Copies of the producer's files, of all streams at one moment.
    pub copies: Vec<Vec<(Spool, Option<Lineage>)>>,
    /// Several streams were read again for from an earlier place, because one of them lost something.
    pub has_jumped: bool,
    /// Faults happen.
    pub is_stormy: bool,
    tells: bool,
}

impl World {
    /// A run that has not begun.
    pub fn new(setting: Setting, dice: Dice, tells: bool) -> Self {
        let start = Instant::now();
        let stream = |_| Stream {
            spool: Spool::new(setting.capacity_frames),
            lineage: None,
            is_damaged: false,
            frames: Lane::default(),
            acks: Lane::default(),
            opens: Lane::default(),
            is_up: true,
            consumer: None,
            destination: Destination::default(),
            older: Vec::new(),
            oracle: Oracle::default(),
        };
        Self {
            setting,
            dice,
            now: start,
            start,
            produced: 0,
            unread: 1,
            boot: 0,
            producer: None,
            is_up: true,
            streams: (0..setting.leaves * setting.tracks()).map(stream).collect(),
            copies: Vec::new(),
            has_jumped: false,
            is_stormy: true,
            tells,
        }
    }

    /// Tells the reader of a trace what happens.
    pub fn say(&self, what: impl FnOnce() -> String) {
        if self.tells {
            let at = self.now.duration_since(self.start);
            println!("{:>9.3}  {}", at.as_secs_f64(), what());
        }
    }

    /// A moment at which the daemon that is at work may die.
    pub fn point(&mut self, name: &'static str) -> Result<(), Stop> {
        if self.is_stormy && self.setting.faults.crashes && self.dice.once_in(60) {
            self.say(|| format!("dies: {name}"));
            return Err(Stop::Crash);
        }
        Ok(())
    }

    /// Runs it all.
    pub fn run(&mut self) -> Result<(), String> {
        for _ in 0..self.setting.events {
            let pause = match self.dice.below(20) {
                0 => self.dice.between(500, 7_000),
                1..5 => self.dice.between(20, 400),
                _ => self.dice.below(10),
            };
            self.now += Duration::from_millis(pause);
            self.event()?;
            self.check()?;
        }
        self.heal();
        for _ in 0..DRAIN_ROUNDS_MAX {
            self.now += Duration::from_millis(self.dice.between(20, 200));
            self.everybody()?;
            self.check()?;
            if self.is_drained() {
                return self.judge();
            }
        }
        Err(self.stuck())
    }

    fn event(&mut self) -> Result<(), String> {
        let stream = self.dice.below(self.streams.len() as u64) as usize;
        match self.dice.below(100) {
            0..12 => self.produce(),
            12..32 => self.producer_turn()?,
            32..45 => self.courier_turn(stream)?,
            45..60 => self.arrive(stream),
            60..70 => self.answer(stream),
            70..90 => self.consumer_turn(stream)?,
            _ => self.mishap(stream)?,
        }
        Ok(())
    }

    /// Everybody has a turn.
    fn everybody(&mut self) -> Result<(), String> {
        self.produced = self.produced.max(self.setting.records);
        self.producer_turn()?;
        for stream in 0..self.streams.len() {
            self.courier_turn(stream)?;
            for _ in 0..12 {
                self.arrive(stream);
            }
            for _ in 0..4 {
                self.consumer_turn(stream)?;
            }
            self.answer(stream);
        }
        self.producer_turn()
    }

    fn produce(&mut self) {
        let more = self.dice.between(1, 8);
        self.produced = (self.produced + more).min(self.setting.records);
    }

    fn weather(&self) -> Weather {
        if self.is_stormy && self.setting.faults.broker {
            Weather { loses: 12, doubles: 12 }
        } else {
            Weather::default()
        }
    }

    /// Something arrives at one end or the other.
    fn arrive(&mut self, stream: usize) {
        let weather = self.weather();
        let dice = &mut self.dice;
        let lanes = &mut self.streams[stream];
        let (frame, open) = (lanes.frames.pop(weather, dice), lanes.opens.pop(weather, dice));
        let ack = lanes.acks.pop(weather, dice);
        if let Some(open) = open {
            self.opened(stream, &open);
        }
        if let Some(frame) = frame {
            self.frame_arrived(stream, frame);
        }
        if let Some(ack) = ack {
            self.ack_arrived(stream, ack);
        }
    }

    /// Something goes wrong, if it may.
    fn mishap(&mut self, stream: usize) -> Result<(), String> {
        let faults = self.setting.faults;
        match self.dice.below(40) {
            0..6 if faults.links => self.producer_link(),
            6..12 if faults.links => self.consumer_link(stream),
            12..15 if faults.crashes => self.kill_producer("killed"),
            15..18 if faults.crashes => self.kill_consumer(stream, "killed"),
            18..20 => self.copy(stream),
            20 if faults.destination_restored => self.restore_destination(stream),
            21 if faults.destination_forgets => self.forget_destination(stream),
            22 if faults.spool_lost => self.lose_spool(stream),
            23 if faults.spool_restored => self.restore_spools(),
            24..26 if faults.damage => self.damage_spool(stream),
            26..30 if faults.destination_fails => self.fail_source(stream),
            _ => {}
        }
        Ok(())
    }

    fn producer_link(&mut self) {
        self.is_up = !self.is_up;
        let is_up = self.is_up;
        self.say(|| format!("the producer is {}", if is_up { "connected" } else { "cut off" }));
        let keeps = !self.setting.faults.broker || !self.dice.once_in(2);
        for stream in &mut self.streams {
            if is_up {
                stream.frames.reconnect(true);
                stream.opens.reconnect(true);
            } else {
                stream.acks.reconnect(keeps);
            }
        }
        self.told_link();
    }

    fn consumer_link(&mut self, stream: usize) {
        let keeps = !self.setting.faults.broker || !self.dice.once_in(2);
        let lanes = &mut self.streams[stream];
        lanes.is_up = !lanes.is_up;
        let is_up = lanes.is_up;
        if is_up {
            lanes.acks.reconnect(true);
            if let Some(consumer) = &mut lanes.consumer {
                consumer.greet();
            }
        } else {
            lanes.frames.reconnect(keeps);
            lanes.opens.reconnect(keeps);
        }
        self.say(|| format!("consumer {stream} is {}", if is_up { "connected" } else { "cut off" }));
    }

    /// The producer's daemon is gone, and what it had not made durable.
    pub fn kill_producer(&mut self, how: &'static str) {
        if self.producer.take().is_some() {
            self.say(|| format!("the producer's daemon is gone: {how}"));
            for stream in &mut self.streams {
                stream.spool.crash(&mut self.dice);
            }
        }
    }

    /// The consumer's daemon is gone.
    pub fn kill_consumer(&mut self, stream: usize, how: &'static str) {
        if self.streams[stream].consumer.take().is_some() {
            self.say(|| format!("the daemon of consumer {stream} is gone: {how}"));
        }
    }

    fn copy(&mut self, stream: usize) {
        self.say(|| format!("copies of destination {stream} and of all buffers are made"));
        let lanes = &mut self.streams[stream];
        lanes.older.push(lanes.destination.clone());
        if lanes.older.len() > COPIES_MAX {
            lanes.older.remove(0);
        }
        let files = self
            .streams
            .iter()
            .map(|lanes| (lanes.spool.clone(), lanes.lineage.clone()));
        self.copies.push(files.collect());
        if self.copies.len() > COPIES_MAX {
            self.copies.remove(0);
        }
    }

    fn heal(&mut self) {
        self.say(|| "everything heals".to_string());
        self.is_stormy = false;
        if !self.is_up {
            self.producer_link();
        }
        for stream in 0..self.streams.len() {
            if !self.streams[stream].is_up {
                self.consumer_link(stream);
            }
        }
    }

    fn check(&self) -> Result<(), String> {
        for (number, stream) in self.streams.iter().enumerate() {
            let account = stream.spool.account();
            if account.produced != account.delivered + account.held + account.dropped + account.lost {
                return Err(format!("the ledger of producer {number} does not balance: {account:?}"));
            }
            let mark = stream.destination.mark.clone().unwrap_or_default();
            let confirmed = mark.delivered - mark.counts.unconfirmed;
            if confirmed != stream.destination.content.len() as u64 {
                return Err(format!(
                    "destination {number} has {} records and its watermark says {confirmed}",
                    stream.destination.content.len()
                ));
            }
        }
        Ok(())
    }

    fn is_drained(&self) -> bool {
        let Some(producer) = &self.producer else { return false };
        producer.is_idle(self)
            && self.streams.iter().zip(&producer.outs).all(|(stream, out)| {
                let epoch = stream.lineage.as_ref().map_or(0, |lineage| lineage.epoch);
                out.life == out.pipe_life && out.answer.as_ref().is_some_and(|(answered, _)| *answered == epoch)
            })
            && self.streams.iter().all(|stream| {
                let is_empty = stream.spool.held().next().is_none() && stream.spool.book().owed == 0;
                let asks = stream.lineage.as_ref().is_none_or(|lineage| lineage.asks);
                // One whose destination was taken back is yet to be told what it had confirmed.
                let has_it =
                    |consumer: &Consumer| consumer.is_idle() && consumer.received() + 1 >= stream.spool.next_seq();
                is_empty && !asks && stream.consumer.as_ref().is_some_and(has_it) && stream.frames.is_empty()
            })
    }

    fn stuck(&self) -> String {
        let mut told = String::from("nothing moves any more:");
        if let Some(producer) = &self.producer {
            told += &format!(" {};", producer.describe());
        }
        for (number, stream) in self.streams.iter().enumerate() {
            let held = stream.spool.account().held;
            told += &format!(
                " stream {number} holds {held} records, seqs {} to {}, the consumer {};",
                stream.spool.first_seq(),
                stream.spool.next_seq() - 1,
                stream
                    .consumer
                    .as_ref()
                    .map_or("is dead".to_string(), Consumer::describe)
            );
        }
        told
    }

    fn judge(&self) -> Result<(), String> {
        for (leaf, tracks) in self.streams.chunks(self.setting.tracks()).enumerate() {
            let tracks: Vec<_> = tracks
                .iter()
                .map(|stream| (&stream.oracle, stream.destination.content.as_slice()))
                .collect();
            oracle::settled(&tracks).map_err(|broken| format!("destination {leaf}: {broken}"))?;
        }
        for (number, stream) in self.streams.iter().enumerate() {
            // A destination that was taken back while nothing came for it has not been noticed.
            let is_unsure = stream.consumer.as_ref().is_some_and(Consumer::is_unsure);
            if stream.oracle.inexact.is_some() || is_unsure {
                continue;
            }
            let account = stream.spool.account();
            let (epoch, before) = stream.destination.base;
            let mark = stream.destination.mark.clone().unwrap_or_default();
            let counted = mark.delivered + mark.counts.dead + mark.counts.dropped - before;
            let expected = account.produced + stream.spool.book().dropped;
            if epoch == stream.lineage.as_ref().map_or(0, |lineage| lineage.epoch) && counted != expected {
                return Err(format!(
                    "destination {number} accounts for {counted} records of epoch {epoch}, its producer for {expected}"
                ));
            }
        }
        Ok(())
    }
}
