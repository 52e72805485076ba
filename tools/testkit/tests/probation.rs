//! A plan that cuts its daemon off from the bus is taken back by the daemon itself, restarts in between included: no plane
//! could do it.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test that cannot set up its world has failed")]

use std::{fs, io::Write as _, time::Duration};

use serde_json::Value;
use testkit::{Broker, Fleet, Link, Proc, Way, wait_until};

const SOON: Duration = Duration::from_secs(90);
/// A plan has ten seconds to prove itself, instead of two minutes.
const HASTE: &str = "12";

/// One daemon behind a link, and lines of a file that it copies: by the first revision to `old.jsonl`, by the second to
/// `new.jsonl`.
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

    fn workflow(&self, to: &str) -> String {
        format!(
            "name = 'lines'\n[sources.in]\ntype = 'file'\ndaemon = 'gateway'\npath = '{}'\nformat = 'json_lines'\n\
             [destinations.out]\ntype = 'file'\ndaemon = 'gateway'\npath = '{}'\nformat = 'json_lines'\nfrom = 'in'\n",
            self.fleet.path("in.jsonl"),
            self.fleet.path(to),
        )
    }

    fn lines(&self, name: &str) -> Vec<u64> {
        let text = fs::read_to_string(self.fleet.path(name)).unwrap_or_default();
        let number = |line: &str| serde_json::from_str::<Value>(line).ok()?["n"].as_u64();
        text.lines().filter_map(number).collect()
    }

    /// One more line goes to `to`, and nothing is lost or doubled by then.
    #[track_caller]
    fn next_goes_to(&mut self, to: &str) {
        self.written += 1;
        let path = self.fleet.path("in.jsonl");
        let mut file = fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
        writeln!(file, "{{\"n\":{}}}", self.written).unwrap();
        let what = format!("line {} in {to}", self.written);
        wait_until(&what, SOON, || self.lines(to).contains(&self.written).then_some(()));
        let mut all = [self.lines("old.jsonl"), self.lines("new.jsonl")].concat();
        all.sort_unstable();
        assert_eq!(all, (1..=self.written).collect::<Vec<_>>());
    }

    /// What the plane was told of the daemon's plan: which it runs, and what is wrong.
    fn told(&self) -> (u64, String) {
        let text = self.fleet.cli(&["daemon", "show", "gateway", "-o", "json"]).unwrap();
        let shown: Value = serde_json::from_str(&text).unwrap();
        let view = &shown["view"];
        let error = view["plan_error"].as_str().unwrap_or_default();
        (view["plan_version"].as_u64().unwrap(), error.to_string())
    }

    /// Deploys the second revision while nothing that the daemon sends leaves it: it hears of the plan, and nobody of it.
    fn cut_off_by_the_second(&mut self) {
        self.link.stall_one_way(Way::Up);
        let file = self.fleet.path("second.toml");
        fs::write(&file, self.workflow("new.jsonl")).unwrap();
        self.fleet.cli(&["workflow", "apply", &file]).unwrap();
        self.next_goes_to("new.jsonl");
    }

    /// Whether there is a plan to go back to.
    fn has_before(&self) -> bool {
        let file = self.fleet.dir().join("gateway").join("plan-before");
        fs::metadata(file).is_ok_and(|file| file.len() > 0)
    }
}

#[test]
fn a_daemon_that_its_plan_cuts_off_goes_back_by_itself() {
    let mut world = World::new();
    let mut daemon = world.daemon();
    world.fleet.apply("lines", &world.workflow("old.jsonl"));
    world.next_goes_to("old.jsonl");
    let (first, _) = world.told();
    world.cut_off_by_the_second();
    daemon.wait_for_log("cuts this daemon off from the bus: going back", SOON);
    world.next_goes_to("old.jsonl");
    assert!(!world.has_before());

    // The plane hears why as soon as it hears anything; and its plan is not taken again at once.
    world.link.restore();
    let cause = wait_until("the plane to hear of it", SOON, || {
        let (version, cause) = world.told();
        (version == first && !cause.is_empty()).then_some(cause)
    });
    let said = format!("cut this daemon off from the bus; it went back to plan {first} by itself");
    assert!(cause.contains(&said), "{cause}");
    world.next_goes_to("old.jsonl");
}

#[test]
fn a_restart_keeps_a_plan_on_probation_and_what_was_gone_back_from_gets_another_chance() {
    let mut world = World::new();
    let mut daemon = world.daemon();
    world.fleet.apply("lines", &world.workflow("old.jsonl"));
    world.next_goes_to("old.jsonl");
    world.cut_off_by_the_second();
    daemon.kill9();
    world.link.cut();

    let mut daemon = world.daemon();
    // The plan that it had still runs, and still has to prove itself.
    world.next_goes_to("new.jsonl");
    assert!(world.has_before());
    daemon.wait_for_log("cuts this daemon off from the bus: going back", SOON);
    world.next_goes_to("old.jsonl");
    daemon.kill9();
    let mut daemon = world.daemon();
    world.next_goes_to("old.jsonl");
    assert!(!world.has_before(), "what was gone back to is in force for good");

    // It was the network: the plan comes again, can prove itself, and stays.
    world.link.restore();
    daemon.wait_for_log("new plan", SOON);
    wait_until("its probation to be over", SOON, || (!world.has_before()).then_some(()));
    world.next_goes_to("new.jsonl");
    assert!(daemon.is_running());
    assert!(!daemon.log().contains("going back"));
}
