//! What a soak happens to: the processes, the roads between them, the rows. Does what the schedule says and mends it when
//! it is time; judges only by handing everything to the oracle.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::{Act, Options, Road, Skew, Usage, Victim, Weather};
use crate::everywhere::{self, STREAMS};
use crate::oracle::{Produced, Verdict};
use crate::shop::{self, Sizes};
use crate::{Dice, Fleet, IllDisk, Ledger, Link, Postgres, Proc, Signal, WallClock, wait_ok};

/// The producer waits while a destination is so many rows behind.
const BEHIND_ROWS_MAX: u64 = 20_000;
/// Between two groups of rows, in milliseconds.
const GROUPS_APART_MS: (u64, u64) = (20, 300);
/// One row in so many is large.
const LARGE_EVERY: u64 = 150;
/// How much larger.
const LARGE_TIMES: u64 = 8;
const STOP: Duration = Duration::from_secs(20);
const SOON: Duration = Duration::from_secs(60);
/// Lines of a log that are shown when something is wrong.
const LAST_LINES: usize = 25;

/// A daemon over all its lives.
struct Daemon {
    name: &'static str,
    bus: String,
    log: PathBuf,
    disk: IllDisk,
    clock: WallClock,
    process: Option<Proc>,
    usage: Usage,
    /// Written by the life that runs, when last looked.
    written_bytes: u64,
}

impl Daemon {
    fn start(&mut self, fleet: &Fleet) {
        if self.process.is_none() {
            let cmd = fleet.daemon_cmd(self.name, Some(&self.bus));
            let cmd = self.clock.on(self.disk.under(cmd));
            self.process = Some(cmd.log(&self.log).spawn());
            self.written_bytes = 0;
        }
    }

    /// Notes what it has taken so far: once it is gone nobody knows.
    fn measure(&mut self) {
        let Some(process) = &self.process else { return };
        let peak = process.rss_peak_kb().unwrap_or(0);
        self.usage.rss_peak_kb = self.usage.rss_peak_kb.max(peak);
        self.written_bytes = process.written_bytes().unwrap_or(self.written_bytes);
    }

    fn bury(&mut self) {
        self.process = None;
        self.usage.written_bytes += std::mem::take(&mut self.written_bytes);
    }

    fn kill9(&mut self) {
        self.measure();
        if let Some(process) = &mut self.process {
            process.kill9();
        }
        self.bury();
    }
}

/// What has to be done to end a fault.
#[derive(Debug, Clone, Copy)]
enum Mend {
    Start(Victim),
    Thaw(Victim),
    Restore(Road),
    Heal(Victim),
}

pub struct World {
    fleet: Fleet,
    postgres: Postgres,
    roads: [Link; 2],
    daemons: [Daemon; 2],
    plane_away: bool,
    broker_away: bool,
    producer: Producer,
    due: Vec<(Instant, Mend)>,
    /// Kills so far, by victim.
    pub killed: BTreeMap<&'static str, u64>,
    /// Other faults so far, by kind.
    pub faults: BTreeMap<&'static str, u64>,
    /// What no oracle sees: programs that ended by themselves.
    pub accusations: Vec<String>,
}

impl World {
    #[track_caller]
    pub fn start(options: &Options, dice: &mut Dice) -> Self {
        let postgres = Postgres::start();
        let fleet = Fleet::start(options.bus.start(), None);
        fleet.enrol("gateway");
        fleet.enrol("hub");
        let roads = [(); 2].map(|()| Link::to(fleet.broker.addr()));
        roads.iter().for_each(|road| road.seed(dice.split()));
        let daemons = [("gateway", 0), ("hub", 1)].map(|(name, road)| Daemon {
            name,
            bus: roads[road].url(&fleet.broker.url()),
            log: fleet.dir().join(format!("{name}.log")),
            // What the hub delivers into lies on its disk, the gateway's source on another one: it belongs to its producer.
            disk: match name {
                "hub" => IllDisk::holding(&[&fleet.dir().join(name), &everywhere::landing(&fleet)]),
                _ => IllDisk::holding(&[&fleet.dir().join(name)]),
            },
            clock: WallClock::right(),
            process: None,
            usage: Usage::default(),
            written_bytes: 0,
        });
        everywhere::prepare(&fleet, &postgres);
        let producer = Producer::new(everywhere::source(&fleet), options, dice.split());
        let mut world = Self {
            fleet,
            postgres,
            roads,
            daemons,
            plane_away: false,
            broker_away: false,
            producer,
            due: Vec::new(),
            killed: BTreeMap::new(),
            faults: BTreeMap::new(),
            accusations: Vec::new(),
        };
        for daemon in &mut world.daemons {
            daemon.start(&world.fleet);
        }
        let workflow = everywhere::workflow(&world.fleet, &world.postgres, "soak");
        world.fleet.apply("soak", &workflow);
        world.producer.start();
        world
    }

    /// Processes killed so far.
    pub fn kills(&self) -> u64 {
        self.killed.values().sum()
    }

    /// Makes something go wrong. Nothing happens to what has gone wrong already.
    pub fn perform(&mut self, act: Act) {
        let now = Instant::now();
        match act {
            Act::Kill(victim, away) => {
                if self.kill(victim) {
                    *self.killed.entry(victim.name()).or_default() += 1;
                    self.due.push((now + away, Mend::Start(victim)));
                }
            }
            Act::Wipe(away) => {
                if self.kill(Victim::Broker) {
                    self.fleet.broker.forget();
                    *self.killed.entry(Victim::Broker.name()).or_default() += 1;
                    self.note("wipe");
                    self.due.push((now + away, Mend::Start(Victim::Broker)));
                }
            }
            Act::Freeze(victim, pause) => {
                if self.freeze(victim) {
                    self.note("freeze");
                    self.due.push((now + pause, Mend::Thaw(victim)));
                }
            }
            Act::Cut(road, pause) => self.spoil(road, pause, "cut", Link::cut),
            Act::Stall(road, pause) => self.spoil(road, pause, "stall", Link::stall),
            Act::OneWay(road, way, pause) => self.spoil(road, pause, "one-way", |link| link.stall_one_way(way)),
            Act::Drop(road) => {
                self.roads[road as usize].drop_connections();
                self.note("drop");
            }
            Act::Weather(road, weather) => {
                set_weather(&self.roads[road as usize], weather);
                self.note("weather");
            }
            Act::Disk(victim, illness, pause) => {
                self.daemons[victim as usize].disk.suffers(illness);
                self.note("disk");
                self.due.push((now + pause, Mend::Heal(victim)));
            }
            Act::Clock(victim, skew) => {
                let clock = &self.daemons[victim as usize].clock;
                match skew {
                    Skew::Right => clock.off_by(0),
                    Skew::Since1970 => clock.begin_in_1970(),
                    Skew::By(seconds) => clock.off_by(seconds),
                }
                self.note("clock");
            }
        }
    }

    fn note(&mut self, fault: &'static str) {
        *self.faults.entry(fault).or_default() += 1;
    }

    fn spoil(&mut self, road: Road, pause: Duration, name: &'static str, how: impl FnOnce(&Link)) {
        how(&self.roads[road as usize]);
        self.note(name);
        self.due.push((Instant::now() + pause, Mend::Restore(road)));
    }

    fn kill(&mut self, victim: Victim) -> bool {
        match victim {
            Victim::Gateway | Victim::Hub => {
                let daemon = &mut self.daemons[victim as usize];
                let runs = daemon.process.is_some();
                daemon.kill9();
                runs
            }
            Victim::Plane => {
                let runs = !std::mem::replace(&mut self.plane_away, true);
                self.fleet.plane_away();
                runs
            }
            Victim::Broker => {
                let runs = !std::mem::replace(&mut self.broker_away, true);
                self.fleet.broker.away();
                runs
            }
            Victim::Database => {
                let runs = self.postgres.is_running();
                self.postgres.kill9();
                runs
            }
        }
    }

    fn freeze(&mut self, victim: Victim) -> bool {
        match victim {
            Victim::Gateway | Victim::Hub => {
                let process = self.daemons[victim as usize].process.as_mut();
                process.map(|process| process.signal(Signal::Stop)).is_some()
            }
            Victim::Plane => false,
            Victim::Broker if self.broker_away => false,
            Victim::Broker => {
                self.fleet.broker.freeze();
                true
            }
            Victim::Database => {
                let runs = self.postgres.is_running();
                if runs {
                    self.postgres.pause();
                }
                runs
            }
        }
    }

    /// Ends the faults that have lasted long enough.
    pub fn mend_what_is_due(&mut self, now: Instant) {
        let (due, later) = std::mem::take(&mut self.due)
            .into_iter()
            .partition(|(at, _)| *at <= now);
        self.due = later;
        let due: Vec<(Instant, Mend)> = due;
        due.into_iter().for_each(|(_, mend)| self.mend(mend));
    }

    fn mend(&mut self, mend: Mend) {
        match mend {
            Mend::Start(Victim::Plane) => {
                self.fleet.plane_back();
                self.plane_away = false;
            }
            Mend::Start(Victim::Broker) => {
                self.fleet.broker.back();
                self.broker_away = false;
            }
            Mend::Start(Victim::Database) => self.postgres.start(),
            Mend::Start(daemon) => self.daemons[daemon as usize].start(&self.fleet),
            // Whoever was killed while it stood still is not there to go on.
            Mend::Thaw(Victim::Broker) if !self.broker_away => self.fleet.broker.thaw(),
            Mend::Thaw(Victim::Database) if self.postgres.is_running() => self.postgres.resume(),
            Mend::Thaw(Victim::Gateway | Victim::Hub) => {
                for daemon in &mut self.daemons {
                    daemon
                        .process
                        .iter_mut()
                        .for_each(|process| process.signal(Signal::Cont));
                }
            }
            Mend::Thaw(_) => {}
            Mend::Restore(road) => self.roads[road as usize].restore(),
            Mend::Heal(daemon) => self.daemons[daemon as usize].disk.is_well(),
        }
    }

    /// Makes everything whole.
    pub fn mend_all(&mut self) {
        for (_, mend) in std::mem::take(&mut self.due) {
            self.mend(mend);
        }
        for road in &self.roads {
            set_weather(road, Weather::default());
            road.restore();
        }
        for daemon in &self.daemons {
            daemon.clock.off_by(0);
        }
    }

    /// A daemon that ended without being killed is a finding; it is started again.
    pub fn notice_deaths(&mut self) {
        for daemon in &mut self.daemons {
            daemon.measure();
            let ended = daemon.process.as_mut().and_then(Proc::exit_status);
            if let Some(status) = ended {
                self.accusations
                    .push(format!("the {} ended by itself: {status}", daemon.name));
                daemon.bury();
                daemon.start(&self.fleet);
            }
        }
    }

    /// Rows at each destination so far.
    pub fn delivered(&self) -> [u64; STREAMS] {
        everywhere::delivered(&self.fleet, &self.postgres)
    }

    /// One line about how it goes.
    pub fn progress(&self) -> String {
        let copied = everywhere::copied(&self.fleet);
        self.producer.shared.delivered.store(copied, Ordering::Relaxed);
        format!(
            "{} kills, {} other faults, {} rows produced, {copied} of them in SQLite",
            self.kills(),
            self.faults.values().sum::<u64>(),
            self.producer.shared.produced.load(Ordering::Relaxed),
        )
    }

    /// The plane's books.
    pub fn ledgers(&self) -> Vec<(String, Ledger)> {
        self.fleet.ledgers()
    }

    /// Ends the production. Returns the number of rows.
    #[track_caller]
    pub fn stop_producing(&mut self) -> u64 {
        self.producer.stop()
    }

    /// Asks the oracle about each destination. What cannot even be read is an accusation of its own.
    pub fn verdicts(&self, accusations: &mut Vec<String>) -> Vec<Verdict> {
        let verdicts = everywhere::verdicts(&self.fleet, &self.postgres);
        let mut keep =
            |verdict: anyhow::Result<Verdict>| verdict.map_err(|error| accusations.push(format!("{error:#}"))).ok();
        verdicts.into_iter().filter_map(&mut keep).collect()
    }

    /// Bytes of all values produced.
    pub fn payload_bytes(&self) -> u64 {
        Produced::all(&everywhere::source(&self.fleet)).map_or(0, |produced| produced.payload_bytes())
    }

    /// Stops the daemons, who must do so politely. Returns what gateway and hub took.
    #[track_caller]
    pub fn stop(&mut self) -> [Usage; 2] {
        for daemon in &mut self.daemons {
            daemon.measure();
            if let Some(process) = &mut daemon.process {
                let status = process.term_and_wait(STOP);
                if !status.success() {
                    self.accusations
                        .push(format!("the {} stopped with {status}", daemon.name));
                }
            }
            daemon.bury();
        }
        [self.daemons[0].usage, self.daemons[1].usage]
    }

    /// The last lines of each daemon's log: what else there is to go by when nothing moves any more.
    pub fn last_words(&self) -> String {
        let words = self.daemons.iter().map(|daemon| {
            let log = std::fs::read_to_string(&daemon.log).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let last = lines[lines.len().saturating_sub(LAST_LINES)..].join("\n    ");
            format!("  the {} said last:\n    {last}\n", daemon.name)
        });
        words.collect()
    }

    /// Panics, of which a program may have survived some.
    pub fn accuse_panics(&mut self) {
        for daemon in &self.daemons {
            let log = std::fs::read_to_string(&daemon.log).unwrap_or_default();
            // sled panics where it can only return an error while it is dropped; the spool catches that.
            let panics = log
                .lines()
                .filter(|line| line.contains("panicked at") && !line.contains("/sled-"));
            self.accusations
                .extend(panics.map(|line| format!("the {}: {line}", daemon.name)));
        }
    }

    /// Leaves the files where they are. Returns where.
    pub fn keep(&mut self) -> PathBuf {
        self.fleet.keep()
    }
}

fn set_weather(road: &Link, weather: Weather) {
    road.delay_with_jitter(weather.delay, weather.jitter);
    road.lose(weather.losses_per_million);
    road.cap(weather.bytes_per_s);
}

/// Writes rows all the while, in groups of random sizes at random moments.
struct Producer {
    source: PathBuf,
    rows_per_s: u64,
    row_bytes_max: u64,
    dice: Dice,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<u64>>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    produced: AtomicU64,
    delivered: AtomicU64,
}

impl Producer {
    fn new(source: PathBuf, options: &Options, dice: Dice) -> Self {
        Self {
            source,
            rows_per_s: options.rows_per_s,
            row_bytes_max: options.row_bytes_max,
            dice,
            shared: Arc::default(),
            thread: None,
        }
    }

    fn start(&mut self) {
        let (source, shared, mut dice) = (self.source.clone(), Arc::clone(&self.shared), self.dice.clone());
        let (rows_per_s, row_bytes_max) = (self.rows_per_s, self.row_bytes_max);
        self.thread = Some(std::thread::spawn(move || {
            let mut last = 0;
            while !shared.stop.load(Ordering::Relaxed) {
                let pause = dice.millis(GROUPS_APART_MS.0, GROUPS_APART_MS.1);
                if last < shared.delivered.load(Ordering::Relaxed) + BEHIND_ROWS_MAX {
                    let mean = (rows_per_s * pause.as_millis() as u64 / 1000).max(1);
                    let rows = dice.between(1, 2 * mean - 1);
                    let is_large = dice.roll(LARGE_EVERY) < rows;
                    let sizes = Sizes::UpTo(row_bytes_max);
                    last = wait_ok("a row to be produced", SOON, || shop::add_sized(&source, rows, sizes));
                    if is_large {
                        let sizes = Sizes::UpTo(row_bytes_max * LARGE_TIMES);
                        last = wait_ok("a row to be produced", SOON, || shop::add_sized(&source, 1, sizes));
                    }
                    shared.produced.store(last, Ordering::Relaxed);
                }
                std::thread::sleep(pause);
            }
            last
        }));
    }

    #[track_caller]
    fn stop(&mut self) -> u64 {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.thread
            .take()
            .expect("it produces")
            .join()
            .expect("the producer works")
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // Its panic has been printed, and the soak fails by another one.
            let _ = thread.join();
        }
    }
}
