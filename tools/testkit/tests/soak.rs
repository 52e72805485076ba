//! A short soak, so that no change gets past everything failing at once. `cargo xtask soak` runs longer ones.

use std::time::Duration;

use testkit::fresh_seed;
use testkit::soak::{Bus, Goal, Options, run};

/// With what comes before and after, about two minutes.
const TIME: Duration = Duration::from_secs(100);
/// Far fewer than there will be, so that a busy machine may be slow.
const KILLS_MIN: u64 = 20;

#[test]
fn nothing_is_lost_or_doubled_while_everything_fails() {
    let seed = fresh_seed();
    // A broker of each family in turn; the rest have their turn in longer soaks.
    let bus = [Bus::Mosquitto, Bus::Nats, Bus::Embedded][(seed % 3) as usize];
    let goal = Goal {
        time: TIME,
        kills: KILLS_MIN,
    };
    let options = Options::new(bus, seed, goal);
    let report = run(&options);
    assert!(report.rows > 1_000, "only {} rows were produced", report.rows);
    assert!(
        report.is_clean(),
        "{}repeat with: {}\n{}",
        report.accusation(),
        options.command(),
        report.row()
    );
}
