//! Code that comes with a workflow runs only on a daemon whose own settings allow it: the fleet's operator cannot.

#![cfg(target_os = "linux")]

use std::{fs, time::Duration};

use testkit::{Broker, Fleet, Signal, wait_ok, wait_until};

const SOON: Duration = Duration::from_secs(60);
const STOP: Duration = Duration::from_secs(20);

const REFUSED: &str = "runs code of the workflow's own, which this daemon does not allow";

/// A workflow of two components that are code.
fn workflow(fleet: &Fleet) -> String {
    format!(
        r#"
name = "own"

[sources.numbers]
type = "exec"
daemon = "gateway"
command = ["seq", "10"]
format = "lines"

[transforms.double]
type = "python"
daemon = "gateway"
from = "numbers"
code = '''
def transform(record):
    return {{"double": 2 * int(record["line"])}}
'''

[destinations.out]
type = "file"
daemon = "gateway"
from = "double"
path = "{}"
format = "json_lines"
"#,
        fleet.path("out.jsonl")
    )
}

#[test]
fn only_the_daemon_itself_can_allow_it() {
    let fleet = Fleet::start(Broker::embedded(false), None);
    fleet.enrol("gateway");
    let config = fleet.path("gateway.toml");
    fs::write(&config, "").expect("settings");
    let mut daemon = fleet.daemon_cmd("gateway", None).args(["--config", &config]).spawn();
    let file = fleet.path("own.toml");
    fs::write(&file, workflow(&fleet)).expect("a workflow");
    wait_ok("the workflow to be deployed", SOON, || {
        fleet.cli(&["workflow", "apply", &file])
    });
    let status = || {
        fleet
            .cli(&["workflow", "status", "own", "-o", "json"])
            .unwrap_or_default()
    };
    wait_until("the daemon to refuse it", SOON, || {
        let status = status();
        (status.contains(REFUSED) && status.contains("failed")).then_some(())
    });
    let out = fleet.dir().join("out.jsonl");
    assert!(!out.exists(), "nothing has run");
    fs::write(&config, "[custom_code]\nallow = true\n").expect("settings");
    daemon.signal(Signal::Hup);
    let lines = wait_until("the workflow to run", SOON, || {
        let text = fs::read_to_string(&out).ok()?;
        (text.lines().count() == 10).then_some(text)
    });
    assert!(lines.starts_with("{\"double\":2}\n{\"double\":4}\n"), "{lines}");
    assert!(daemon.term_and_wait(STOP).success());
}
