//! A soak: two daemons move rows that are produced all the while, into SQLite, PostgreSQL and files, over a real broker,
//! while everything fails at random all the while. At the end the oracle judges each destination, and the plane's books
//! are checked. `cargo xtask soak` runs it.
//!
//! What fails, and when, follows from the seed; how the processes answer does not, so a seed repeats the faults, not the
//! run.

mod report;
mod schedule;
mod world;

use std::path::PathBuf;
use std::time::{Duration, Instant};

pub use report::{Report, Usage, between_marks};
pub use schedule::{Act, Road, Schedule, Skew, Victim, Weather};

use crate::everywhere::STREAMS;
use crate::oracle::accuse_ledger;
use crate::{Broker, Dice, Mosquitto, Nats};
use world::World;

/// Between two looks at what is due.
const TICK: Duration = Duration::from_millis(10);
/// Between two lines of progress.
const PROGRESS_EVERY: Duration = Duration::from_secs(10);
/// A destination that gets nothing new for this long, with everything whole and running, never will.
const STUCK: Duration = Duration::from_secs(90);
/// How long the plane may take to know what everybody has.
const BOOKS_DEADLINE: Duration = Duration::from_secs(60);

/// A kind of broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bus {
    /// `mycelial-broker`.
    Embedded,
    /// mosquitto.
    Mosquitto,
    /// nats-server.
    Nats,
    /// nats-server whose JetStream keeps the data.
    NatsJetStream,
    /// The MQTT listener of nats-server.
    NatsMqtt,
}

impl Bus {
    /// All of them, in the order of reports.
    pub const ALL: [Bus; 5] = [
        Bus::Embedded,
        Bus::Mosquitto,
        Bus::Nats,
        Bus::NatsJetStream,
        Bus::NatsMqtt,
    ];

    /// What it is called on the command line and in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Bus::Embedded => "embedded",
            Bus::Mosquitto => "mosquitto",
            Bus::Nats => "nats",
            Bus::NatsJetStream => "nats-jetstream",
            Bus::NatsMqtt => "nats-mqtt",
        }
    }

    /// The one of this name.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|bus| bus.name() == name)
    }

    /// Starts one.
    #[must_use]
    #[track_caller]
    pub fn start(self) -> Broker {
        match self {
            Bus::Embedded => Broker::embedded(false),
            Bus::Mosquitto => Broker::Mosquitto(Mosquitto::builder().persist().start()),
            Bus::Nats => Broker::Nats(Nats::start()),
            Bus::NatsJetStream => Broker::nats_jetstream(),
            Bus::NatsMqtt => Broker::NatsMqtt(Nats::builder().mqtt().start()),
        }
    }
}

/// When a soak is over: when both have been reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Goal {
    /// So much time has passed.
    pub time: Duration,
    /// So many processes were killed.
    pub kills: u64,
}

/// What to do.
#[derive(Debug, Clone)]
pub struct Options {
    /// Over which broker.
    pub bus: Bus,
    /// What all that is random follows from.
    pub seed: u64,
    /// When it is over.
    pub goal: Goal,
    /// Rows a second.
    pub rows_per_s: u64,
    /// Bytes of most rows at most; a few are eight times as large.
    pub row_bytes_max: u64,
    /// Whether a soak that failed leaves its directory.
    pub keep: bool,
    /// How the programs were built.
    pub profile: String,
}

impl Options {
    /// A soak of ordinary weight.
    #[must_use]
    pub fn new(bus: Bus, seed: u64, goal: Goal) -> Self {
        Self {
            bus,
            seed,
            goal,
            rows_per_s: 150,
            row_bytes_max: 8_000,
            keep: false,
            profile: "dev".to_string(),
        }
    }

    /// The command that repeats it.
    #[must_use]
    pub fn command(&self) -> String {
        let Self {
            bus,
            seed,
            goal,
            profile,
            ..
        } = self;
        // Before what is passed on to the soak.
        let mut command = format!(
            "cargo xtask soak --profile {profile} --bus {} --seed {seed}",
            bus.name()
        );
        if goal.kills > 0 {
            command.push_str(&format!(" --kills {}", goal.kills));
        }
        if !goal.time.is_zero() {
            command.push_str(&format!(" --minutes {:.1}", goal.time.as_secs_f64() / 60.0));
        }
        command
    }
}

/// Runs a soak to its end. Panics only when something around the product fails: a server that does not start, say.
#[must_use]
#[track_caller]
pub fn run(options: &Options) -> Report {
    eprintln!("soak over {}: {}", options.bus.name(), options.command());
    let mut dice = Dice::new(options.seed);
    let mut world = World::start(options, &mut dice);
    let mut schedule = Schedule::new(&mut dice);
    let start = Instant::now();
    let mut told = start;
    let mut next = schedule.next();
    while start.elapsed() < options.goal.time || world.kills() < options.goal.kills {
        world.mend_what_is_due(Instant::now());
        world.notice_deaths();
        while let Some((at, act)) = next.filter(|(at, _)| *at <= start.elapsed()) {
            // What blocked (a broker that starts) moves what comes after, so that nothing comes in a heap.
            let late = start.elapsed().saturating_sub(at);
            world.perform(act);
            next = schedule.next().map(|(at, act)| (at + late, act));
        }
        if told.elapsed() >= PROGRESS_EVERY {
            told = Instant::now();
            eprintln!("  {:>4} s: {}", start.elapsed().as_secs(), world.progress());
        }
        std::thread::sleep(TICK);
    }
    let seconds = start.elapsed().as_secs();
    let mut report = judge(world, options);
    report.seconds = seconds;
    report
}

/// Lets everything settle, then asks the oracle.
fn judge(mut world: World, options: &Options) -> Report {
    world.mend_all();
    let rows = world.stop_producing();
    eprintln!("  whole again: {}", world.progress());
    let mut accusations = settle(&mut world, rows);
    accusations.extend(books(&mut world, rows));
    let verdicts = world.verdicts(&mut accusations);
    let usage = world.stop();
    world.accuse_panics();
    accusations.append(&mut world.accusations);
    let report = Report {
        bus: options.bus,
        seed: options.seed,
        kills: world.killed.clone(),
        faults: world.faults.clone(),
        rows,
        payload_bytes: world.payload_bytes(),
        seconds: 0,
        verdicts,
        accusations,
        gateway: usage[0],
        hub: usage[1],
    };
    if !report.is_clean() {
        eprint!("{}", world.last_words());
    }
    if !report.is_clean() && options.keep {
        let dir: PathBuf = world.keep();
        eprintln!("  everything is left in {}", dir.display());
    }
    report
}

/// Waits until every destination has as many rows as were produced.
fn settle(world: &mut World, rows: u64) -> Vec<String> {
    let mut last = (world.delivered(), Instant::now());
    let mut told = Instant::now();
    loop {
        world.notice_deaths();
        let delivered = world.delivered();
        if delivered.iter().all(|delivered| *delivered >= rows) {
            return Vec::new();
        }
        if delivered != last.0 {
            last = (delivered, Instant::now());
        } else if last.1.elapsed() > STUCK {
            let after = STUCK.as_secs();
            return vec![format!(
                "nothing came for {after} s, and the destinations have {delivered:?} of {rows} rows"
            )];
        }
        if told.elapsed() >= PROGRESS_EVERY {
            told = Instant::now();
            eprintln!("  settling: {}", world.progress());
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Waits until the plane's books say what must be true.
fn books(world: &mut World, rows: u64) -> Vec<String> {
    let start = Instant::now();
    loop {
        let ledgers = world.ledgers();
        let mut wrong: Vec<String> = ledgers
            .iter()
            .filter_map(|(edge, ledger)| accuse_ledger(edge, ledger, rows))
            .collect();
        if ledgers.len() != STREAMS {
            wrong.push(format!("the plane knows {} of {} streams", ledgers.len(), STREAMS));
        }
        if wrong.is_empty() || start.elapsed() > BOOKS_DEADLINE {
            return wrong;
        }
        std::thread::sleep(Duration::from_millis(500));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for bus in Bus::ALL {
            assert_eq!(Bus::of(bus.name()), Some(bus));
        }
        assert_eq!(Bus::of("carrier-pigeon"), None);
    }

    #[test]
    fn the_command_repeats_it() {
        let goal = |seconds, kills| Goal {
            time: Duration::from_secs(seconds),
            kills,
        };
        for (goal, want) in [
            (
                goal(120, 0),
                "cargo xtask soak --profile dev --bus nats --seed 7 --minutes 2.0",
            ),
            (
                goal(0, 200),
                "cargo xtask soak --profile dev --bus nats --seed 7 --kills 200",
            ),
        ] {
            assert_eq!(Options::new(Bus::Nats, 7, goal).command(), want);
        }
    }
}
