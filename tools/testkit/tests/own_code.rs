//! Code that comes with a workflow runs only on a daemon whose own settings allow it: the fleet's operator cannot.

#![cfg(target_os = "linux")]

use std::{fs, time::Duration};

use testkit::{Broker, Cmd, Fleet, Signal, wait_ok, wait_until};

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

#[test]
fn code_that_is_listed_runs_and_no_other() {
    const CODE: &str = "import os\n\ndef transform(record):\n    record[\"seen\"] = os.environ.get(\"TOKEN\")\n    \
                        record[\"leaked\"] = os.environ.get(\"PGPASSWORD\")\n    return record\n";
    let fleet = Fleet::start(Broker::embedded(false), None);
    fleet.enrol("gateway");
    let (config, script) = (fleet.path("gateway.toml"), fleet.dir().join("mine.py"));
    fs::write(&script, CODE).expect("code");
    let sums = Cmd::new("sha256sum").arg(&script).run(SOON);
    let sha256 = sums.stdout.split_whitespace().next().expect("a hash").to_string();
    fs::write(
        &config,
        format!("[custom_code]\nsha256 = [\"{sha256}\"]\nenv = [\"TOKEN\"]\n"),
    )
    .expect("settings");
    let mut daemon = fleet
        .daemon_cmd("gateway", None)
        .env("PGPASSWORD", "hunter2")
        .args(["--config", &config])
        .spawn();
    let text = |name: &str, env: &str, code: &str| {
        format!(
            "name = \"{name}\"\n\n[sources.numbers]\ntype = \"generator\"\ndaemon = \"gateway\"\ncount = 3\n\
             fields = {{ n = {{ kind = \"counter\" }} }}\n\n[transforms.mine]\ntype = \"python\"\ndaemon = \"gateway\"\n\
             from = \"numbers\"\nenv = {{ {env} = {{ env = \"PGPASSWORD\" }} }}\n{code}\n\n[destinations.out]\ntype = \"file\"\n\
             daemon = \"gateway\"\nfrom = \"mine\"\npath = \"{}\"\nformat = \"json_lines\"\n",
            fleet.path(&format!("{name}.jsonl"))
        )
    };
    let apply = |name: &str, env: &str, code: &str| {
        let file = fleet.path(&format!("{name}.toml"));
        fs::write(&file, text(name, env, code)).expect("a workflow");
        wait_ok("the workflow to be deployed", SOON, || {
            fleet.cli(&["workflow", "apply", &file])
        });
    };
    // What the CLI takes from a file is called by its hash, and runs; it sees of the daemon's environment what it is given.
    apply("listed", "TOKEN", "code_from = \"mine.py\"");
    let out = fleet.dir().join("listed.jsonl");
    let lines = wait_until("the listed code to run", SOON, || {
        let text = fs::read_to_string(&out).ok()?;
        (text.lines().count() == 3).then_some(text)
    });
    assert_eq!(
        lines.lines().next(),
        Some("{\"n\":0,\"seen\":\"hunter2\",\"leaked\":null}")
    );
    daemon.wait_for_log(&sha256, SOON);
    let shown = fleet.cli(&["workflow", "show", "listed"]).expect("a workflow");
    assert!(shown.contains(&sha256) && shown.contains("def transform"), "{shown}");
    // Other code does not, whatever it says of itself.
    apply("other", "TOKEN", "code = \"def transform(record): return record\"");
    let lies = format!("code = \"def transform(record): return record\"\nsha256 = \"{sha256}\"");
    apply("lies", "TOKEN", &lies);
    apply("loads", "LD_PRELOAD", "code_from = \"mine.py\"");
    for (name, part) in [
        ("other", REFUSED),
        ("lies", "the code has the SHA-256"),
        ("loads", "env.LD_PRELOAD, which this daemon does not allow"),
    ] {
        wait_until("the daemon to refuse it", SOON, || {
            let status = fleet
                .cli(&["workflow", "status", name, "-o", "json"])
                .unwrap_or_default();
            (status.contains(part) && status.contains("failed")).then_some(())
        });
        assert!(!fleet.dir().join(format!("{name}.jsonl")).exists(), "{name} has run");
    }
    assert!(daemon.term_and_wait(STOP).success());
}
