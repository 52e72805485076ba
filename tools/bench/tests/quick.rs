//! Every suite, quickly: that each job is done and judged by everybody who takes part, and that a report comes of it. What
//! the figures are is not looked at.

use std::fs;
use std::time::Duration;

use testkit::{Cmd, temp_dir};

const LATE: Duration = Duration::from_secs(900);

#[test]
fn every_suite() {
    let dir = temp_dir("bench");
    let at = |name: &str| dir.path().join(name);
    Cmd::new(env!("CARGO_BIN_EXE_bench"))
        .args(["--quick", "--out"])
        .arg(at("out"))
        .arg("--scratch")
        .arg(at("scratch"))
        .run(LATE)
        .ok();

    let read = |name: &str| fs::read_to_string(at("out").join(name)).expect("a report");
    let (text, json) = (read("REPORT.md"), read("report.json"));
    let report: bench::report::Report = serde_json::from_str(&json).expect("a report");
    let names = report.suites.iter().map(|measured| measured.suite.name.as_str());
    let wanted = bench::suites::JOBS
        .iter()
        .filter(|job| job.can_be_quick)
        .map(|job| job.name);
    assert!(names.eq(wanted), "{text}");
    for measured in &report.suites {
        let suite = &measured.suite;
        for goal in &suite.goals {
            let median = suite.median(&goal.entry, &goal.metric);
            assert!(
                median > 0.0,
                "{}: {goal:?} is about nothing that was measured\n{text}",
                suite.name
            );
        }
        for entry in &suite.entries {
            let measured = entry.runs.iter().flatten().flatten().count();
            assert!(measured > 0, "{}: {} was not measured", suite.name, entry.name);
        }
    }
}
