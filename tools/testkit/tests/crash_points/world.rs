//! A fleet whose processes die where they are told, go on, and are judged.

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use testkit::oracle::{Produced, accuse_ledger};
use testkit::scenario;
use testkit::shop::{self, Sizes};
use testkit::soak::Victim;
use testkit::{Broker, Cmd, Fleet, Ledger, Mosquitto, Postgres, Proc, bin, everywhere, wait_ok};

use crash_point::Point;

use super::{Case, Job};

/// How long it may take until a moment is reached.
const REACH_MAX: Duration = Duration::from_secs(60);
/// Between two pushes.
const PUSH_EVERY: Duration = Duration::from_millis(300);
/// How long everything may take to arrive afterwards.
const ARRIVE_MAX: Duration = Duration::from_secs(90);
const STOP: Duration = Duration::from_secs(20);
/// Rows of a push, and their size: 2 MB a spool's segment takes, and 1 MB a file, are soon reached.
const PUSH_ROWS: u64 = 40;
const PUSH_SIZES: Sizes = Sizes::UpTo(30_000);
/// Rows of a push that shall fill a buffer of 16 MiB: about 3 MB.
const OVERFILL_ROWS: u64 = 200;
/// Rows of a workflow of which one in ten is refused at first.
const REPLAYED_ROWS: u64 = 600;
/// Rows of a workflow that is made to be deployed.
const SMALL_ROWS: u64 = 50;

pub struct World {
    fleet: Fleet,
    postgres: Postgres,
    /// Gateway and hub.
    daemons: [Option<Proc>; 2],
    /// Deployed or joined so far, for names.
    extras: u32,
}

impl World {
    #[track_caller]
    pub fn start() -> Self {
        let postgres = Postgres::start();
        let fleet = Fleet::start(Broker::Mosquitto(Mosquitto::start()), None);
        fleet.enrol("gateway");
        fleet.enrol("hub");
        everywhere::prepare(&fleet, &postgres);
        let mut world = Self {
            fleet,
            postgres,
            daemons: [None, None],
            extras: 0,
        };
        world.go_on(Victim::Gateway);
        world.go_on(Victim::Hub);
        let workflow = everywhere::workflow(&world.fleet, &world.postgres, "flow");
        world.fleet.apply("flow", &workflow);
        world
    }

    /// Kills who is meant at the moment that is meant, lets all go on, and judges.
    #[track_caller]
    pub fn die_and_go_on(&mut self, (point, times, victim, job): Case) {
        let start = Instant::now();
        let what = format!("{} dies at {}:{times}", victim.name(), point.name());
        match job {
            Job::Flow => {
                self.die(victim, point, times, |world| world.push());
                self.judge_flow(&what);
            }
            Job::Level => {
                self.die(victim, Point::RunnerBetweenLeaves, 1, |world| world.push());
                self.die(victim, point, times, |_| {});
                self.push();
                self.judge_flow(&what);
            }
            Job::Deploy => self.die_while_deploying(&what, victim, point, times),
            Job::Revoke => {
                self.extras += 1;
                let mut guest = Some(format!("guest-{}", self.extras));
                self.die(victim, point, times, |world| {
                    if let Some(guest) = guest.take() {
                        world.fleet.enrol(&guest);
                        world
                            .fleet
                            .cli(&["daemon", "revoke", &guest, "--yes"])
                            .expect("a revocation");
                    }
                });
                self.push();
                self.judge_flow(&what);
            }
            Job::Rotate => self.die_while_rotating(&what, victim, point, times),
            Job::Refuse => self.die_over_refused_rows(&what, victim, point, times),
            Job::Replay => self.die_over_replayed_rows(&what, victim, point, times),
            Job::Overfill => self.die_while_overfilling(&what, victim, point, times),
            Job::Print => self.die_while_printing(&what, victim, point, times),
        }
        eprintln!("{what}: {:.1} s", start.elapsed().as_secs_f64());
    }

    #[track_caller]
    pub fn stop(mut self) {
        for daemon in self.daemons.iter_mut().flatten() {
            assert!(daemon.term_and_wait(STOP).success(), "a daemon drains and stops");
        }
    }

    /// Starts somebody who dies there, pushes until that has happened, and starts them again.
    #[track_caller]
    fn die(&mut self, victim: Victim, point: Point, times: u64, mut push: impl FnMut(&mut Self)) {
        self.kill(victim);
        let order = format!("{}:{times}", point.name());
        let mut doomed = self.cmd(victim).env("MYCELIAL_CRASH_AT", &order).spawn();
        let start = Instant::now();
        let status = loop {
            push(self);
            if let Some(status) = doomed.wait_exit(PUSH_EVERY) {
                break status;
            }
            assert!(
                start.elapsed() < REACH_MAX,
                "{} never got to {order}: its job does not do what it is thought to do",
                victim.name()
            );
        };
        assert_eq!(
            status.signal(),
            Some(9),
            "{} ended at {order} with {status}",
            victim.name()
        );
        self.go_on(victim);
    }

    fn cmd(&self, victim: Victim) -> Cmd {
        match victim {
            Victim::Plane => self.fleet.plane_cmd().program(bin("mycelial-plane")),
            daemon => {
                let out = self.fleet.dir().join(format!("{}.out", daemon.name()));
                let cmd = self.fleet.daemon_cmd(daemon.name(), None).stdout_to(out);
                cmd.program(bin("myceliald"))
            }
        }
    }

    fn kill(&mut self, victim: Victim) {
        match victim {
            Victim::Plane => self.fleet.plane_away(),
            daemon => {
                if let Some(process) = &mut self.daemons[daemon as usize] {
                    process.kill9();
                }
            }
        }
    }

    #[track_caller]
    fn go_on(&mut self, victim: Victim) {
        match victim {
            Victim::Plane => self.fleet.plane_back(),
            daemon => self.daemons[daemon as usize] = Some(self.cmd(daemon).spawn()),
        }
    }

    fn push(&mut self) {
        let source = everywhere::source(&self.fleet);
        shop::add_sized(&source, PUSH_ROWS, PUSH_SIZES).expect("rows");
    }

    #[track_caller]
    fn judge_flow(&self, what: &str) {
        let rows = shop::add(&everywhere::source(&self.fleet), 0).expect("the source is ours");
        wait_ok(&format!("all rows after {what}"), ARRIVE_MAX, || {
            let delivered = everywhere::delivered(&self.fleet, &self.postgres);
            let all = delivered.iter().all(|delivered| *delivered >= rows);
            all.then_some(()).ok_or_else(|| format!("{delivered:?} of {rows} rows"))
        });
        for verdict in everywhere::verdicts(&self.fleet, &self.postgres) {
            let verdict = verdict.unwrap_or_else(|error| panic!("{what}: {error:#}"));
            assert!(verdict.is_clean(), "{what}: {verdict}");
        }
        self.books(what, "flow", everywhere::STREAMS, |edge, ledger| {
            accuse_ledger(edge, ledger, rows)
        });
    }

    #[track_caller]
    fn books(&self, what: &str, workflow: &str, streams: usize, accuse: impl Fn(&str, &Ledger) -> Option<String>) {
        wait_ok(&format!("the books to balance after {what}"), ARRIVE_MAX, || {
            let ledgers = self.fleet.ledgers_of(workflow);
            let mut wrong: Vec<String> = ledgers
                .iter()
                .filter_map(|(edge, ledger)| accuse(edge, ledger))
                .collect();
            if ledgers.len() != streams {
                wrong.push(format!("{} of {streams} streams", ledgers.len()));
            }
            if wrong.is_empty() {
                Ok(())
            } else {
                Err(wrong.join("; "))
            }
        });
    }

    /// A shop of its own and a workflow that copies it.
    fn extra(&mut self, prefix: &str, rows: u64) -> Extra {
        self.extras += 1;
        let name = format!("{prefix}-{}", self.extras);
        let source = self.fleet.dir().join(format!("{name}.db"));
        shop::create(&source).expect("a database");
        shop::add(&source, rows).expect("rows");
        Extra {
            copy: self.fleet.dir().join(format!("{name}-copy.db")),
            name,
            source,
        }
    }

    #[track_caller]
    fn die_while_deploying(&mut self, what: &str, victim: Victim, point: Point, times: u64) {
        let mut deployed = Vec::new();
        let is_plane = victim == Victim::Plane;
        self.die(victim, point, times, |world| {
            // A plane needs several to get there; a daemon must be left alone with its one.
            if deployed.is_empty() || is_plane {
                let extra = world.extra("deployed", SMALL_ROWS);
                let file = world.fleet.dir().join(format!("{}.toml", extra.name));
                std::fs::write(&file, extra.workflow()).expect("a file");
                let file = file.display().to_string();
                let applied = world.fleet.cli(&["workflow", "apply", &file]);
                assert!(is_plane || applied.is_ok(), "{applied:?}");
                deployed.push(extra);
            }
        });
        for extra in deployed {
            // Whoever asked a plane that died asks again; for one that has it already nothing changes.
            self.fleet.apply(&extra.name, &extra.workflow());
            let rows = wait_ok(&format!("{} after {what}", extra.name), ARRIVE_MAX, || {
                shop::compare(&extra.source, &extra.copy, "copied")
            });
            assert_eq!(rows, SMALL_ROWS);
            self.books(what, &extra.name, 1, |edge, ledger| accuse_ledger(edge, ledger, rows));
        }
    }

    /// A daemon has other keys in the end, whatever its death interrupted, and is believed by them alone.
    #[track_caller]
    fn die_while_rotating(&mut self, what: &str, victim: Victim, point: Point, times: u64) {
        let dir = self.fleet.dir().join(victim.name());
        let keys = || std::fs::read(dir.join("keys")).expect("keys");
        let before = keys();
        let mut asked = None;
        self.die(victim, point, times, |world| {
            world.push();
            asked.get_or_insert_with(|| world.rotate(victim).log(world.fleet.dir().join("rotate.log")).spawn());
        });
        // Who waits for it sees the end of it; whoever asks once more gets an answer, too.
        let ended = asked.and_then(|mut asked| asked.wait_exit(ARRIVE_MAX));
        assert!(ended.is_some_and(|status| status.success()), "{what}: {ended:?}");
        assert_ne!(keys(), before, "{what}: it has the keys that it had");
        wait_ok(&format!("the old keys to be gone after {what}"), ARRIVE_MAX, || {
            let left = ["keys-next", "keys-next.copy", "keys-former", "keys-former.copy"];
            match left.iter().find(|name| dir.join(name).exists()) {
                None => Ok(()),
                Some(name) => Err(*name),
            }
        });
        self.push();
        self.judge_flow(what);
    }

    fn rotate(&self, victim: Victim) -> Cmd {
        let home = self.fleet.path("operator");
        let wait = format!("{}s", ARRIVE_MAX.as_secs());
        Cmd::bin("mycelial").args(["--home", &home, "daemon", "rotate", victim.name(), "--wait-max", &wait])
    }

    /// One row in ten is refused, and only that; it is counted as dead, once.
    #[track_caller]
    fn die_over_refused_rows(&mut self, what: &str, victim: Victim, point: Point, times: u64) {
        let extra = self.extra("refused", 0);
        scenario::refuse_every_tenth(&extra.copy);
        self.fleet.apply(&extra.name, &extra.workflow());
        let source = extra.source.clone();
        self.die(victim, point, times, |_| {
            shop::add(&source, PUSH_ROWS).expect("rows");
        });
        let rows = shop::add(&extra.source, 0).expect("the source is ours");
        let refused = rows / 10;
        wait_ok(&format!("all rows after {what}"), ARRIVE_MAX, || {
            let found = shop::count(&extra.copy, "copied");
            if found >= rows - refused {
                Ok(())
            } else {
                Err(format!("{found} of {rows}"))
            }
        });
        let produced = Produced::all(&extra.source).expect("the source is ours");
        let verdict = produced.judge_sqlite(&extra.copy, "copied").expect("the copy is there");
        let counts = verdict.offences().map(|(_, offence)| offence.count);
        assert_eq!(counts, [refused, 0, 0, 0, 0], "{what}: {verdict}");
        let wanted = Ledger {
            produced: rows,
            delivered: rows - refused,
            dead_lettered: refused,
            ..Ledger::default()
        };
        self.books(what, &extra.name, 1, |edge, ledger| {
            (*ledger != wanted).then(|| format!("{edge}: {ledger:?} instead of {wanted:?}"))
        });
    }

    /// The hub is away and the buffer over its quota. What was given up is told, to the record, and nothing else is missing.
    #[track_caller]
    fn die_while_overfilling(&mut self, what: &str, victim: Victim, point: Point, times: u64) {
        let extra = self.extra("overfilled", SMALL_ROWS);
        let spool = "spool = { quota = \"16MiB\", when_full = \"drop_oldest\" }\n";
        self.fleet.apply(&extra.name, &(extra.workflow() + spool));
        wait_ok(&format!("the first rows before {what}"), ARRIVE_MAX, || {
            shop::compare(&extra.source, &extra.copy, "copied")
        });
        self.kill(Victim::Hub);
        let source = extra.source.clone();
        self.die(victim, point, times, |_| {
            shop::add_sized(&source, OVERFILL_ROWS, PUSH_SIZES).expect("rows");
        });
        self.go_on(Victim::Hub);
        let rows = shop::add(&extra.source, 0).expect("the source is ours");
        self.books(what, &extra.name, 1, |edge, ledger| {
            let told = ledger.produced == rows
                && ledger.dropped > 0
                && ledger.delivered + ledger.dropped == rows
                && ledger.buffered + ledger.dead_lettered == 0;
            (!told).then(|| format!("{edge}: {ledger:?} of {rows} rows"))
        });
        let ledgers = self.fleet.ledgers_of(&extra.name);
        let dropped: u64 = ledgers.iter().map(|(_, ledger)| ledger.dropped).sum();
        let produced = Produced::all(&extra.source).expect("the source is ours");
        let verdict = produced.judge_sqlite(&extra.copy, "copied").expect("the copy is there");
        let counts = verdict.offences().map(|(_, offence)| offence.count);
        assert_eq!(counts, [dropped, 0, 0, 0, 0], "{what}: {verdict}");
    }

    /// What was refused is tried again, over a death, once the destination takes it: everything is there once.
    #[track_caller]
    fn die_over_replayed_rows(&mut self, what: &str, victim: Victim, point: Point, times: u64) {
        let extra = self.extra("replayed", REPLAYED_ROWS);
        scenario::refuse_every_tenth(&extra.copy);
        self.fleet.apply(&extra.name, &extra.workflow());
        let wanted = |dead_lettered| Ledger {
            produced: REPLAYED_ROWS,
            delivered: REPLAYED_ROWS - dead_lettered,
            dead_lettered,
            ..Ledger::default()
        };
        let wrong = |edge: &str, ledger: &Ledger, wanted: Ledger| {
            (*ledger != wanted).then(|| format!("{edge}: {ledger:?} instead of {wanted:?}"))
        };
        self.books(&format!("the refusal for {what}"), &extra.name, 1, |edge, ledger| {
            wrong(edge, ledger, wanted(REPLAYED_ROWS / 10))
        });
        scenario::refuse_nothing(&extra.copy);
        let name = extra.name.clone();
        let replay = move |world: &mut Self| {
            // Answered or not: whoever dies of it does not answer.
            let _ = world.fleet.cli(&[
                "--timeout",
                "2",
                "dlq",
                "replay",
                "--all",
                "--workflow",
                &name,
                "--daemon",
                "hub",
                "--yes",
            ]);
        };
        self.die(victim, point, times, &replay);
        wait_ok(&format!("no letters after {what}"), ARRIVE_MAX, || {
            replay(self);
            let left = scenario::letters(&self.fleet, &extra.name);
            if left.is_empty() {
                Ok(())
            } else {
                Err(format!("{left:?}"))
            }
        });
        let produced = Produced::all(&extra.source).expect("the source is ours");
        let verdict = produced.judge_sqlite(&extra.copy, "copied").expect("the copy is there");
        let counts = verdict.offences().map(|(_, offence)| offence.count);
        assert_eq!(counts[..4], [0; 4], "{what}: {verdict}");
        self.books(what, &extra.name, 1, |edge, ledger| wrong(edge, ledger, wanted(0)));
    }

    /// Standard output can hold no watermark: nothing is lost, and what comes twice is what came last.
    #[track_caller]
    fn die_while_printing(&mut self, what: &str, victim: Victim, point: Point, times: u64) {
        let extra = self.extra("printed", 0);
        let workflow = format!(
            "name = \"{}\"\n\n[sources.orders]\ntype = \"sqlite\"\ndaemon = \"gateway\"\npath = \"{}\"\ntable = \
             \"{}\"\ncursor = \"id\"\n\n[transforms.ids]\ntype = \"select\"\nfrom = \"orders\"\ncolumns = [\"id\"]\n\n\
             [destinations.out]\ntype = \"stdout\"\ndaemon = \"gateway\"\nfrom = \"ids\"\n",
            extra.name,
            extra.source.display(),
            shop::TABLE
        );
        let out = self.fleet.dir().join("gateway.out");
        self.fleet.apply(&extra.name, &workflow);
        let (before, source) = (printed(&out).len(), extra.source.clone());
        self.die(victim, point, times, |_| {
            shop::add(&source, SMALL_ROWS).expect("rows");
        });
        let rows = shop::add(&extra.source, 0).expect("the source is ours");
        wait_ok(&format!("all rows after {what}"), ARRIVE_MAX, || {
            let ids: BTreeSet<u64> = printed(&out)[before..].iter().copied().collect();
            if ids == (1..=rows).collect() {
                Ok(())
            } else {
                Err(format!("{} of {rows}", ids.len()))
            }
        });
    }
}

/// The ids printed so far.
fn printed(out: &Path) -> Vec<u64> {
    let text = std::fs::read_to_string(out).unwrap_or_default();
    let id = |line: &str| serde_json::from_str::<serde_json::Value>(line).ok()?["id"].as_u64();
    text.lines().filter_map(id).collect()
}

/// A workflow of its own, from a shop of its own.
struct Extra {
    name: String,
    source: PathBuf,
    copy: PathBuf,
}

impl Extra {
    fn workflow(&self) -> String {
        format!(
            "name = \"{}\"\n\n[sources.orders]\ntype = \"sqlite\"\ndaemon = \"gateway\"\npath = \"{}\"\ntable = \
             \"{}\"\ncursor = \"id\"\n\n[destinations.copy]\ntype = \"sqlite\"\ndaemon = \"hub\"\nfrom = \
             \"orders\"\npath = \"{}\"\ntable = \"copied\"\nkey = []\n",
            self.name,
            self.source.display(),
            shop::TABLE,
            self.copy.display()
        )
    }
}
