//! What is asked of every destination: one long life with mishaps, in which a source counts, and what has arrived is read by
//! something else.

use std::{
    env, fs,
    path::Path,
    thread::sleep,
    time::{Duration, Instant},
};

use testkit::Dice;

use crate::{
    bench::{Bench, Plan, rss_kib},
    numbers::Numbers,
    page::Ran,
    world::{Ask, Promise, Row, SinkWorld},
};

/// Rounds of a run for leaks, however slow they are.
pub const ROUNDS_MIN: u64 = 3;
/// Times that it is killed.
const KILLS: u64 = 5;
/// Records for an end that takes nothing, and how many of them may be under way: those of a third of a megabyte, of the
/// batches on the way into and out of it, and what the system's own buffers take.
const MANY: u64 = 20_000;
const UNDER_WAY_MAX: u64 = 12_000;
/// Records with another column.
const DRIFTED: u64 = 200;
/// How long the server takes nothing.
const FROZEN: Duration = Duration::from_secs(1);
/// The variable that says how long the run for leaks takes, in seconds, and what it takes unless it says so.
const LEAK_VARIABLE: &str = "COMPLIANCE_LEAK_S";
const LEAK_S: u64 = 3;
/// The variable that says into which directory it is written how such a run came out.
const RESULTS_VARIABLE: &str = "COMPLIANCE_LEAK_RESULTS";
/// How much more memory may be in use in the last third of that run than in the second, in KiB.
const GROWTH_MAX_KIB: u64 = 3 * 1024;

/// How long the run for leaks takes.
pub fn leak_time() -> Duration {
    let told = env::var(LEAK_VARIABLE).ok().and_then(|text| text.parse().ok());
    Duration::from_secs(told.unwrap_or(LEAK_S))
}

/// Between two rounds of it. A long one is there to last, not to be busy.
pub fn leak_pause(time: Duration) -> Duration {
    match time > Duration::from_secs(60) {
        true => Duration::from_millis(100),
        false => Duration::from_millis(10),
    }
}

/// Whether memory stays as it is. The least of each third of a run counts: more than that is what comes and goes.
pub struct Flatness {
    whole: Duration,
    least: [u64; 3],
}

impl Flatness {
    /// Of a run of this length.
    pub fn new(whole: Duration) -> Self {
        Self {
            whole,
            least: [u64::MAX; 3],
        }
    }

    /// Looks, so long after the beginning.
    pub fn look(&mut self, at: Duration) {
        let third = (at.as_millis() * 3 / self.whole.as_millis().max(1)).min(2) as usize;
        self.least[third] = self.least[third].min(rss_kib());
    }

    /// Fails when it grows. A long run is written down.
    pub fn check(&self, row: &Row) {
        let [first, second, last] = self.least;
        // A slow one may not have been looked at in each third of a short run.
        let before = if second == u64::MAX { first } else { second };
        assert!(before < u64::MAX && last < u64::MAX, "the run was too short to tell");
        eprintln!("memory in use: {before} KiB, then {last}");
        assert!(last <= before + GROWTH_MAX_KIB, "it took {before} KiB, and then {last}");
        if let Some(dir) = env::var_os(RESULTS_VARIABLE) {
            let ran = Ran {
                minutes: self.whole.as_secs() / 60,
                before_kib: before,
                after_kib: last,
            };
            fs::write(Path::new(&dir).join(row.key()), ran.line(&row.key())).unwrap();
        }
    }
}

struct Life<'a> {
    row: &'a Row,
    world: &'a mut dyn SinkWorld,
    bench: Bench,
    plan: Plan,
    /// Numbers that are dead letters.
    bad: Vec<u64>,
}

/// Asks it all.
pub fn prove(row: &Row, world: &mut dyn SinkWorld, asks: &[Ask]) {
    let mut life = Life {
        row,
        world,
        bench: Bench::new(),
        plan: Plan::default(),
        bad: Vec::new(),
    };
    for ask in asks {
        eprintln!("{ask:?}");
        match ask {
            Ask::Untouched => life.untouched(),
            Ask::Check => life.check(),
            Ask::Wrong => life.wrong(),
            Ask::Stop => life.stop(),
            Ask::Kill => life.kill(),
            Ask::Pressure => life.pressure(),
            Ask::BadRecord => life.bad_record(),
            Ask::Drift => life.drift(),
            Ask::Reconnect => life.reconnect(),
            Ask::Leak => life.leak(),
        }
    }
}

impl Life<'_> {
    fn sink(&self) -> Box<dyn flow::Sink> {
        self.row.sink(&self.world.config(), self.world.base_dir())
    }

    fn start(&mut self) {
        let (source, sink) = (self.world.source(&self.plan), self.sink());
        self.bench.start(source, true, sink);
    }

    /// All that was given has arrived, as it is promised.
    #[track_caller]
    fn arrived(&mut self) {
        let last = self.plan.last();
        let (bad, world) = (&self.bad, &mut *self.world);
        let mut numbers = Numbers::default();
        self.bench.until(&format!("{last} records"), |bench| {
            // Reading all that is there takes longer than to know how much it is.
            if !world.is_cheap() && bench.delivered() + (bad.len() as u64) < last {
                return false;
            }
            numbers = Numbers::of(world.arrived().into_iter().chain(bad.iter().copied()));
            numbers.missing(last).is_empty()
        });
        assert!(numbers.is_all(last), "more than was given");
        assert_eq!(self.bench.letters().len(), self.bad.len(), "{:?}", self.bench.letters());
        if self.world.promise() == Promise::Exactly {
            assert_eq!(numbers.doubles, 0, "came twice");
        }
    }

    #[track_caller]
    fn goes_on(&mut self, count: u64) {
        self.plan.more(count);
        self.arrived();
    }

    fn untouched(&mut self) {
        self.checks_touch_nothing();
        self.start();
        self.goes_on(20);
        self.bench.stop();
        // Now there is what it has made.
        self.checks_touch_nothing();
    }

    fn checks_touch_nothing(&mut self) {
        let before = self.world.touched();
        assert!(!before.is_empty(), "that tells nothing");
        for _ in 0..3 {
            self.good_check();
        }
        assert_eq!(self.world.touched(), before, "a check leaves everything as it is");
    }

    fn check(&mut self) {
        self.good_check();
        // Nor does it disturb what runs.
        if self.row.why_not(Ask::Stop).is_some() {
            return;
        }
        self.start();
        self.goes_on(20);
        self.good_check();
        self.goes_on(20);
        self.bench.stop();
    }

    fn wrong(&mut self) {
        let wrong = self.world.wrong();
        assert!(!wrong.is_empty(), "a config that is wrong");
        for (config, kind) in wrong {
            let mut sink = self.row.sink(&config, self.world.base_dir());
            match self.bench.wait_for(flow::check::check_sink(&mut *sink)) {
                Ok(found) => panic!("{config} passes its check: {found}"),
                Err(trouble) => {
                    assert_eq!(trouble.kind, kind, "{config}: {trouble:?}");
                    assert!(!trouble.cause.is_empty() && !trouble.remedy.is_empty(), "{trouble:?}");
                }
            }
        }
    }

    fn good_check(&mut self) {
        let mut sink = self.sink();
        let found = self.bench.wait_for(flow::check::check_sink(&mut *sink));
        let found = found.unwrap_or_else(|trouble| panic!("{trouble:?}"));
        assert!(found.len() > 10, "'{found}' says nothing");
    }

    fn stop(&mut self) {
        self.start();
        self.goes_on(50);
        self.plan.more(2_000);
        self.bench.stop();
        self.start();
        self.goes_on(10);
        self.bench.stop();
    }

    fn kill(&mut self) {
        let mut dice = Dice::new(7);
        for _ in 0..KILLS {
            self.start();
            self.plan.more(1_000);
            sleep(dice.millis(1, 150));
            self.bench.kill();
        }
        self.start();
        self.goes_on(10);
        self.bench.stop();
    }

    fn pressure(&mut self) {
        self.start();
        self.goes_on(10);
        let given = self.plan.given_to();
        self.world.freeze();
        self.plan.more(MANY);
        let begun = Instant::now();
        let (mut most, mut half) = (0, None);
        while begun.elapsed() < FROZEN {
            if begun.elapsed() > FROZEN / 2 {
                half.get_or_insert(self.bench.delivered());
            }
            most =
                most.max((self.plan.given_to() - given).saturating_sub(self.bench.delivered().saturating_sub(given)));
            sleep(Duration::from_millis(5));
        }
        assert!(
            most <= UNDER_WAY_MAX,
            "{most} records are under way to somebody who takes none"
        );
        assert_eq!(
            half,
            Some(self.bench.delivered()),
            "it delivers: the other end does take records"
        );
        self.world.thaw();
        self.arrived();
        self.bench.stop();
    }

    fn bad_record(&mut self) {
        self.start();
        self.goes_on(20);
        let bad = self.plan.last() + 11;
        self.plan.set_bad(bad, self.world.bad());
        self.bad.push(bad);
        self.goes_on(20);
        self.bench.stop();
    }

    fn drift(&mut self) {
        self.start();
        self.goes_on(20);
        self.plan.drift();
        self.goes_on(DRIFTED);
        let extras = self.world.extras();
        match self.world.promise() {
            Promise::Exactly => assert_eq!(extras, DRIFTED, "records have the new column"),
            _ => assert!(extras >= DRIFTED, "{extras} records have the new column"),
        }
        self.bench.stop();
    }

    fn reconnect(&mut self) {
        self.start();
        self.goes_on(20);
        for _ in 0..2 {
            self.world.down();
            self.plan.more(500);
            sleep(Duration::from_millis(300));
            self.world.up();
            self.goes_on(20);
        }
        self.bench.stop();
    }

    fn leak(&mut self) {
        let (begun, time) = (Instant::now(), leak_time());
        let mut flatness = Flatness::new(time);
        let mut rounds: u64 = 0;
        self.start();
        flatness.look(Duration::ZERO);
        while begun.elapsed() < time || rounds < ROUNDS_MIN {
            if self.world.is_cheap() {
                self.goes_on(50);
            } else {
                self.plan.more(50);
                let wanted = self.plan.last() - self.bad.len() as u64;
                self.bench
                    .until("records to be delivered", |bench| bench.delivered() >= wanted);
            }
            rounds += 1;
            if rounds.is_multiple_of(8) {
                self.bench.stop();
                self.start();
            }
            flatness.look(begun.elapsed());
            sleep(leak_pause(time));
        }
        self.arrived();
        self.bench.stop();
        flatness.check(self.row);
    }
}
