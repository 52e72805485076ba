//! A plan that cuts its daemon off from the bus is taken back by the daemon itself, restarts in between included: no plane
//! could do it.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test that cannot set up its world has failed")]

use std::{
    fs,
    io::Write as _,
    time::{Duration, Instant},
};

use serde_json::Value;
use testkit::{Broker, Fleet, Link, Proc, Way, wait_until};

const SOON: Duration = Duration::from_secs(90);
/// A plan has ten seconds to prove itself, instead of two minutes.
const HASTE: &str = "12";

/// One daemon behind a link, and lines of a file that it copies, and marks with the revision that did.
struct World {
    fleet: Fleet,
    link: Link,
    written: u64,
}

impl World {
    fn new() -> Self {
        let fleet = Fleet::start(Broker::embedded(false), None);
        fleet.enrol("gateway");
        let link = Link::to(fleet.broker.addr());
        Self {
            fleet,
            link,
            written: 0,
        }
    }

    fn daemon(&self) -> Proc {
        let bus = self.link.url(&self.fleet.broker.url());
        self.fleet
            .daemon_cmd("gateway", Some(&bus))
            .env("MYCELIAL_HASTE", HASTE)
            .spawn()
    }

    fn workflow(&self, revision: u64) -> String {
        format!(
            "name = 'lines'\n[sources.in]\ntype = 'file'\ndaemon = 'gateway'\npath = '{}'\nformat = 'json_lines'\n\
             [transforms.mark]\ntype = 'derive'\nfrom = 'in'\ncolumns = {{ by = '{revision}' }}\n\
             [destinations.out]\ntype = 'file'\ndaemon = 'gateway'\npath = '{}'\nformat = 'json_lines'\nfrom = 'mark'\n",
            self.fleet.path("in.jsonl"),
            self.fleet.path("out.jsonl"),
        )
    }

    /// What has arrived: number, and the revision that it came by.
    fn arrived(&self) -> Vec<(u64, u64)> {
        let text = fs::read_to_string(self.fleet.path("out.jsonl")).unwrap_or_default();
        let read = |line: &str| {
            let line: Value = serde_json::from_str(line).ok()?;
            Some((line["n"].as_u64()?, line["by"].as_u64()?))
        };
        text.lines().filter_map(read).collect()
    }

    /// Writes lines until one comes by this revision; each comes once and in its turn, whatever happens.
    #[track_caller]
    fn lines_come_by(&mut self, revision: u64) {
        let deadline = Instant::now() + SOON;
        loop {
            self.written += 1;
            let path = self.fleet.path("in.jsonl");
            let mut file = fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
            writeln!(file, "{{\"n\":{}}}", self.written).unwrap();
            let arrived = wait_until("the line to arrive", SOON, || {
                let arrived = self.arrived();
                (arrived.len() as u64 >= self.written).then_some(arrived)
            });
            let numbers: Vec<u64> = arrived.iter().map(|(n, _)| *n).collect();
            assert_eq!(numbers, (1..=self.written).collect::<Vec<_>>());
            if arrived.last().is_some_and(|(_, by)| *by == revision) {
                return;
            }
            assert!(Instant::now() < deadline, "no line by revision {revision}: {arrived:?}");
        }
    }

    /// What the plane was told of the daemon's plan: which it runs, and what is wrong.
    fn told(&self) -> (u64, String) {
        let text = self.fleet.cli(&["daemon", "show", "gateway", "-o", "json"]).unwrap();
        let shown: Value = serde_json::from_str(&text).unwrap();
        let error = shown["plan_error"].as_str().unwrap_or_default();
        (shown["view"]["plan_version"].as_u64().unwrap(), error.to_string())
    }

    /// Deploys the second revision while nothing that the daemon sends leaves it: it hears of the plan, and nobody of it.
    fn cut_off_by_the_second(&mut self) {
        self.link.stall_one_way(Way::Up);
        let file = self.fleet.path("second.toml");
        fs::write(&file, self.workflow(2)).unwrap();
        self.fleet.cli(&["workflow", "apply", &file]).unwrap();
        self.lines_come_by(2);
    }

    /// Whether there is a plan to go back to.
    fn has_before(&self) -> bool {
        let file = self.fleet.dir().join("gateway").join("plan-before");
        // What frames an empty file is shorter than any plan.
        fs::metadata(file).is_ok_and(|file| file.len() > 100)
    }
}

#[test]
fn a_daemon_that_its_plan_cuts_off_goes_back_by_itself() {
    let mut world = World::new();
    let mut daemon = world.daemon();
    world.fleet.apply("lines", &world.workflow(1));
    world.lines_come_by(1);
    let (first, _) = world.told();
    world.cut_off_by_the_second();
    daemon.wait_for_log("cuts this daemon off from the bus: going back", SOON);
    world.lines_come_by(1);
    assert!(!world.has_before());

    // The plane hears why as soon as it hears anything; and its plan is not taken again at once.
    world.link.restore();
    let cause = wait_until("the plane to hear of it", SOON, || {
        let (version, cause) = world.told();
        (version == first && !cause.is_empty()).then_some(cause)
    });
    let said = format!("cut this daemon off from the bus; it went back to plan {first} by itself");
    assert!(cause.contains(&said), "{cause}");
    world.lines_come_by(1);
}

#[test]
fn a_restart_keeps_a_plan_on_probation_and_what_was_gone_back_from_gets_another_chance() {
    let mut world = World::new();
    let mut daemon = world.daemon();
    world.fleet.apply("lines", &world.workflow(1));
    world.lines_come_by(1);
    world.cut_off_by_the_second();
    daemon.kill9();
    world.link.cut();

    let mut daemon = world.daemon();
    // The plan that it had still runs, and still has to prove itself.
    world.lines_come_by(2);
    assert!(world.has_before());
    daemon.wait_for_log("cuts this daemon off from the bus: going back", SOON);
    world.lines_come_by(1);
    daemon.kill9();
    let mut daemon = world.daemon();
    world.lines_come_by(1);
    assert!(!world.has_before(), "what was gone back to is in force for good");

    // It was the network: the plan comes again, can prove itself, and stays.
    world.link.restore();
    daemon.wait_for_log("new plan", SOON);
    wait_until("its probation to be over", SOON, || (!world.has_before()).then_some(()));
    world.lines_come_by(2);
    assert!(daemon.is_running());
    assert!(!daemon.log().contains("going back"));
}
