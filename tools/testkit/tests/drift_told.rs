//! Columns that change while records flow are told to people: from a real daemon to the command line, the alerts and Prometheus,
//! also after the plane has started anew; and the alert is over when it has not been met for a while.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test that cannot set up its world has failed")]

use std::{fs, io::Write, time::Duration};

use serde_json::Value;
use testkit::{Broker, Fleet, wait_ok};

const SOON: Duration = Duration::from_secs(60);
/// For how long drift counts, steps of ten seconds, and how long it must not be so any more.
const LATER: Duration = Duration::from_secs(120);

const RULE: &str = "[[rule]]\nname = \"column-drift\"\nwhen = \"drift\"\nover = 20\n";

fn json(fleet: &Fleet, arguments: &[&str]) -> Result<Value, String> {
    let said = fleet.cli(&[arguments, &["-o", "json"]].concat())?;
    serde_json::from_str(&said).map_err(|error| format!("{error}: {said}"))
}

fn alerts(fleet: &Fleet) -> Result<Vec<Value>, String> {
    let all = json(fleet, &["alert", "list"])?;
    let all = all.as_array().cloned().unwrap_or_default();
    Ok(all
        .into_iter()
        .filter(|alert| alert["rule"] == "column-drift")
        .collect())
}

#[test]
fn a_new_column_is_told_and_over_when_it_was_not_met_for_a_while() {
    let mut fleet = Fleet::start(Broker::embedded(false), None).with_metrics();
    fleet.enrol("gateway");
    let _daemon = fleet.daemon("gateway", None);
    let rules = fleet.path("rules.toml");
    fs::write(&rules, RULE).unwrap();
    fleet.cli(&["alert", "apply", "--yes", &rules]).unwrap();
    let (input, output) = (fleet.path("in.jsonl"), fleet.path("out.jsonl"));
    fs::write(&input, "{\"line\": \"a\"}\n").unwrap();
    let text = format!(
        "name = \"readings\"\n[sources.in]\ntype = \"file\"\ndaemon = \"gateway\"\npath = \"{input}\"\nformat = \"json_lines\"\n\
         [transforms.agreed]\ntype = \"contract\"\nfrom = \"in\"\ndrift = \"discard_value\"\ncolumns = {{ line = \"text\" }}\n\
         [destinations.out]\ntype = \"file\"\ndaemon = \"gateway\"\nfrom = \"agreed\"\nformat = \"json_lines\"\npath = \"{output}\"\n"
    );
    fleet.apply("readings", &text);
    wait_ok("the first record", SOON, || {
        let out = fs::read_to_string(&output).map_err(|error| error.to_string())?;
        out.contains('a').then_some(()).ok_or(out)
    });
    let status = json(&fleet, &["workflow", "status", "readings"]).unwrap();
    assert_eq!(status["drift"], Value::Array(Vec::new()), "{status}");
    assert_eq!(alerts(&fleet), Ok(Vec::new()));

    let mut more = fs::OpenOptions::new().append(true).open(&input).unwrap();
    more.write_all(b"{\"line\": \"b\", \"speed\": 7}\n").unwrap();
    let told = wait_ok("the drift in the status", SOON, || {
        let status = json(&fleet, &["workflow", "status", "readings"])?;
        let drift = status["drift"][0].clone();
        drift["what"].is_string().then_some(drift).ok_or(status.to_string())
    });
    assert_eq!(
        (&told["daemon"], &told["batches"]),
        (&"gateway".into(), &1.into()),
        "{told}"
    );
    let what = told["what"].as_str().unwrap_or_default();
    assert!(
        what.starts_with("agreed: column 'speed'") && what.contains("left out"),
        "{what}"
    );
    let table = fleet.cli(&["workflow", "status", "readings"]).unwrap();
    assert!(table.contains("DRIFT SEEN") && table.contains(what), "{table}");
    let page = fleet.metrics().unwrap();
    let sample = "mycelial_workflow_drift_batches_total{workflow=\"readings\",daemon=\"gateway\"} 1";
    assert!(page.contains(sample), "{page}");
    let alert = wait_ok("the alert", SOON, || {
        let all = alerts(&fleet)?;
        let firing = all.iter().find(|alert| alert["state"] == "firing").cloned();
        firing.ok_or(format!("{all:?}"))
    });
    assert_eq!(alert["subject"], "workflow:readings", "{alert}");
    assert!(
        alert["summary"].as_str().unwrap_or_default().contains("'speed'"),
        "{alert}"
    );

    // The daemon says it again to a plane that was away.
    fleet.plane_away();
    fleet.plane_back();
    wait_ok("the drift, told again", SOON, || {
        let status = json(&fleet, &["workflow", "status", "readings"])?;
        let is_told = status["drift"][0]["what"] == told["what"];
        is_told.then_some(()).ok_or(status.to_string())
    });

    wait_ok("the alert to be over", LATER, || {
        let all = alerts(&fleet)?;
        all.is_empty().then_some(()).ok_or(format!("{all:?}"))
    });
    let status = json(&fleet, &["workflow", "status", "readings"]).unwrap();
    assert_eq!(status["drift"][0]["what"], told["what"], "it is shown for a day");
}
