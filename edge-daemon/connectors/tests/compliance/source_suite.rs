//! What is asked of every source: one long life with mishaps, in which the numbers go up, and a destination that keeps them.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use testkit::Dice;

use crate::{
    bench::{Bench, Vault},
    sink_suite::{Flatness, ROUNDS_MIN, leak_pause, leak_time},
    world::{Ask, Promise, Row, SourceWorld},
};

/// Times that it is killed.
const KILLS: u64 = 5;
/// Bytes of text in each record while the other end is slow, and records.
const PAD: usize = 120;
const MANY: u64 = 12_000;
/// How long the other end takes nothing at least.
const SHUT: Duration = Duration::from_secs(1);
/// Who reads nothing for so long meanwhile is held back, and has to be so after a while.
const HELD: Duration = Duration::from_millis(700);
const HELD_WITHIN: Duration = Duration::from_secs(10);
/// Who loses what came too early is fed again after this.
const AGAIN: Duration = Duration::from_secs(2);

struct Life<'a> {
    row: &'a Row,
    world: &'a mut dyn SourceWorld,
    bench: Bench,
    vault: Vault,
    /// The last number that was fed.
    fed: u64,
    /// Bad records.
    bad: usize,
}

/// Asks it all.
pub fn prove(row: &Row, world: &mut dyn SourceWorld, asks: &[Ask]) {
    let vault = Vault::new(world.column(), world.counted());
    let mut life = Life {
        row,
        world,
        bench: Bench::new(),
        vault,
        fed: 0,
        bad: 0,
    };
    for ask in asks {
        eprintln!("{ask:?}");
        match ask {
            Ask::Check => life.check(),
            Ask::Wrong => life.wrong(),
            Ask::Untouched => life.untouched(),
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
    fn source(&self) -> Box<dyn flow::Source> {
        self.row.source(&self.world.config(), self.world.base_dir())
    }

    fn start(&mut self) {
        let source = self.source();
        self.bench.start(source, self.world.rereads(), self.vault.door());
    }

    fn feed(&mut self, count: u64, pad: usize) {
        self.world.feed(self.fed + 1..self.fed + count + 1, pad);
        self.fed += count;
    }

    /// All that was fed has arrived, as it is promised; or at least something has come since.
    #[track_caller]
    fn arrived(&mut self, rows_before: u64) {
        let (vault, fed, promise) = (self.vault.clone(), self.fed, self.world.promise());
        if promise == Promise::GoesOn {
            let mut fed_at = Instant::now();
            let (world, last) = (&mut *self.world, &mut self.fed);
            self.bench.until("records to come", |_| {
                if fed_at.elapsed() > AGAIN {
                    world.feed(*last + 1..*last + 11, 10);
                    *last += 10;
                    fed_at = Instant::now();
                }
                vault.rows() > rows_before
            });
            assert_eq!(self.vault.numbers().doubles, 0, "came twice");
            return;
        }
        let looked = vault.clone();
        self.bench
            .until(&format!("{fed} records"), |_| looked.numbers().is_all(fed));
        let numbers = vault.numbers();
        assert!(numbers.missing(fed).is_empty(), "missing: {:?}", numbers.missing(fed));
        if promise == Promise::Exactly {
            assert_eq!(numbers.doubles, 0, "came twice");
            assert_eq!(self.bench.letters().len(), self.bad, "{:?}", self.bench.letters());
        }
    }

    /// Feeds, and waits for it.
    #[track_caller]
    fn goes_on(&mut self, count: u64) {
        let before = self.vault.rows();
        self.feed(count, 10);
        self.arrived(before);
    }

    fn check(&mut self) {
        self.good_check();
        // Nor does it disturb what runs.
        if self.row.why_not(Ask::Stop).is_some() {
            return;
        }
        self.start();
        self.goes_on(20);
        match self.world.taken() {
            None => self.good_check(),
            Some(kind) => {
                let mut source = self.source();
                let checked = self.bench.wait_for(flow::check::check_source(&mut *source));
                assert_eq!(checked.map_err(|trouble| trouble.kind), Err(kind));
            }
        }
        self.goes_on(20);
        self.bench.stop();
    }

    fn wrong(&mut self) {
        let wrong = self.world.wrong();
        assert!(!wrong.is_empty(), "a config that is wrong");
        for (config, kind) in wrong {
            let mut source = self.row.source(&config, self.world.base_dir());
            match self.bench.wait_for(flow::check::check_source(&mut *source)) {
                Ok(found) => panic!("{config} passes its check: {found}"),
                Err(trouble) => {
                    assert_eq!(trouble.kind, kind, "{config}: {trouble:?}");
                    assert!(!trouble.cause.is_empty() && !trouble.remedy.is_empty(), "{trouble:?}");
                }
            }
        }
    }

    fn untouched(&mut self) {
        self.checks_touch_nothing();
        self.start();
        self.goes_on(20);
        self.bench.stop();
        // Now there is what it leaves behind, and more that it has not read.
        self.feed(20, 10);
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

    fn good_check(&mut self) {
        let mut source = self.source();
        let found = self.bench.wait_for(flow::check::check_source(&mut *source));
        let found = found.unwrap_or_else(|trouble| panic!("{trouble:?}"));
        assert!(found.len() > 10, "'{found}' says nothing");
    }

    fn stop(&mut self) {
        self.start();
        self.goes_on(50);
        self.feed(300, 10);
        self.bench.stop();
        let before = self.vault.rows();
        self.start();
        self.feed(10, 10);
        self.arrived(before);
        self.bench.stop();
    }

    fn kill(&mut self) {
        let mut dice = Dice::new(7);
        for _ in 0..KILLS {
            self.start();
            self.feed(200, 10);
            sleep(dice.millis(1, 150));
            self.bench.kill();
        }
        let before = self.vault.rows();
        self.start();
        self.feed(10, 10);
        self.arrived(before);
        self.bench.stop();
    }

    fn pressure(&mut self) {
        self.start();
        self.goes_on(10);
        let read = self.bench.read();
        self.vault.shut(true);
        self.feed(MANY, PAD);
        sleep(SHUT);
        let (begun, mut last) = (Instant::now(), (self.bench.read(), Instant::now()));
        while last.1.elapsed() < HELD {
            assert!(
                begun.elapsed() < HELD_WITHIN,
                "it goes on reading for somebody who takes nothing: {} records",
                last.0 - read
            );
            sleep(Duration::from_millis(20));
            if self.bench.read() != last.0 {
                last = (self.bench.read(), Instant::now());
            }
        }
        let (under_way, most) = (last.0 - read, self.world.under_way_max());
        assert!(
            under_way <= most,
            "{under_way} records are under way to somebody who takes none"
        );
        let before = self.vault.rows();
        self.vault.shut(false);
        self.arrived(before);
        self.bench.stop();
    }

    fn bad_record(&mut self) {
        self.start();
        self.goes_on(20);
        let letters = self.bench.letters().len();
        if self.world.feed_bad(self.fed + 1) {
            self.fed += 1;
            self.vault.count(self.fed);
        }
        self.feed(20, 10);
        self.bench
            .until("the dead letter", |bench| bench.letters().len() > letters);
        self.bad = self.bench.letters().len();
        assert_eq!(self.bad, letters + 1, "{:?}", self.bench.letters());
        let before = self.vault.rows().saturating_sub(1);
        self.arrived(before);
        self.bench.stop();
    }

    fn drift(&mut self) {
        self.start();
        self.goes_on(20);
        self.world.drift();
        self.goes_on(20);
        assert!(
            self.vault.extras() >= 20,
            "{} records have the new column",
            self.vault.extras()
        );
        self.bench.stop();
    }

    fn reconnect(&mut self) {
        self.start();
        self.goes_on(20);
        for _ in 0..2 {
            self.world.down();
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
            self.goes_on(50);
            rounds += 1;
            if rounds.is_multiple_of(8) {
                self.bench.stop();
                self.start();
            }
            flatness.look(begun.elapsed());
            sleep(leak_pause(time));
        }
        self.bench.stop();
        flatness.check(self.row);
    }
}
