//! A plan under which a daemon reaches the bus no more is taken back by the daemon itself: nobody else could.

#![cfg(target_os = "linux")]

use std::{fs, time::Duration};

use testkit::{Broker, Fleet, wait_ok};

const SOON: Duration = Duration::from_secs(60);
/// Longer than a plan has time to show that it does not cut its daemon off (`converge::probation`).
const GOES_BACK: Duration = Duration::from_secs(180);

fn text(fleet: &Fleet, out: &str) -> String {
    format!(
        "name = \"lines\"\n[sources.clock]\ntype = \"generator\"\ndaemon = \"gateway\"\nrate = 20\n\
         fields = {{ n = {{ kind = \"counter\" }} }}\n[destinations.out]\ntype = \"file\"\ndaemon = \"gateway\"\n\
         from = \"clock\"\nformat = \"json_lines\"\npath = \"{}\"\n",
        fleet.path(out)
    )
}

fn lines(fleet: &Fleet, out: &str) -> usize {
    fs::read_to_string(fleet.path(out)).unwrap_or_default().lines().count()
}

/// Waits until more lines are written there.
fn grows(fleet: &Fleet, out: &str, within: Duration) {
    let before = lines(fleet, out);
    wait_ok(&format!("{out} to grow"), within, || {
        let now = lines(fleet, out);
        (now > before).then_some(()).ok_or(format!("{now} lines"))
    });
}

#[test]
fn a_plan_that_cuts_its_daemon_off_is_taken_back_without_the_plane() {
    let mut fleet = Fleet::start(Broker::embedded(false), None);
    fleet.enrol("gateway");
    let mut gateway = fleet.daemon("gateway", None);
    fleet.apply("lines", &text(&fleet, "first.jsonl"));
    grows(&fleet, "first.jsonl", SOON);
    // Proven: a message has come back after it had run for ten seconds.
    std::thread::sleep(Duration::from_secs(20));

    // The bus is gone from the moment at which the next plan begins, as far as the daemon can tell because of it.
    fleet.apply("lines", &text(&fleet, "second.jsonl"));
    grows(&fleet, "second.jsonl", SOON);
    fleet.broker.away();
    fleet.plane_away();
    gateway.wait_for_log("cuts this daemon off from the bus: going back", GOES_BACK);
    grows(&fleet, "first.jsonl", SOON);
    let stood = lines(&fleet, "second.jsonl");
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(
        lines(&fleet, "second.jsonl"),
        stood,
        "the newer plan does not run beside it"
    );

    // It holds over a restart; and when the bus is there again, the plane gives it the newer plan once more, and it stays.
    gateway.kill9();
    let _gateway = fleet.daemon("gateway", None);
    grows(&fleet, "first.jsonl", SOON);
    fleet.broker.back();
    fleet.plane_back();
    grows(&fleet, "second.jsonl", SOON);
}
