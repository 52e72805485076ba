//! Code that comes with a workflow runs only on a daemon whose own settings allow it: the fleet's operator cannot.

#![cfg(target_os = "linux")]

use std::{fs, time::Duration};

use testkit::{Broker, Cmd, Fleet, Nats, Signal, wait_ok, wait_until};

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

/// Text that does not become small when it is packed (SplitMix64, as hexadecimal digits).
fn noise(bytes: usize) -> String {
    let (mut state, mut out) = (7_u64, String::with_capacity(bytes + 16));
    while out.len() < bytes {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        out.push_str(&format!("{:016x}", z ^ (z >> 31)));
    }
    out
}

/// Code crosses the bus in parts: no message of a broker has room for it.
#[test]
fn code_that_is_larger_than_a_message_arrives() {
    const MESSAGE_BYTES_MAX: usize = 128 * 1024;
    let nats = Nats::builder()
        .line(&format!("max_payload: {MESSAGE_BYTES_MAX}"))
        .start();
    let fleet = Fleet::start(Broker::Nats(nats), None);
    fleet.enrol("gateway");
    let config = fleet.path("gateway.toml");
    fs::write(&config, "[custom_code]\nallow = true\n").expect("settings");
    let mut daemon = fleet.daemon_cmd("gateway", None).args(["--config", &config]).spawn();
    let (file, script, out) = (fleet.path("large.toml"), fleet.path("mine.py"), fleet.path("out.jsonl"));
    let text = format!(
        "name = \"large\"\n\n[sources.numbers]\ntype = \"generator\"\ndaemon = \"gateway\"\ncount = 3\n\
         fields = {{ n = {{ kind = \"counter\" }} }}\n\n[transforms.mine]\ntype = \"python\"\nfrom = \"numbers\"\n\
         code_from = \"mine.py\"\n\n[destinations.out]\ntype = \"file\"\ndaemon = \"gateway\"\nfrom = \"mine\"\n\
         path = \"{out}\"\nformat = \"json_lines\"\n"
    );
    fs::write(&file, text).expect("a workflow");
    let code = |bytes: usize| {
        format!(
            "KNOWN = \"{}\"\n\ndef transform(record):\n    record[\"known\"] = len(KNOWN)\n    return record\n",
            noise(bytes)
        )
    };
    fs::write(&script, code(200_000)).expect("code");
    wait_ok("the workflow to be deployed", SOON, || {
        fleet.cli(&["workflow", "apply", &file])
    });
    let lines = wait_until("the large code to run", SOON, || {
        let text = fs::read_to_string(&out).ok()?;
        (text.lines().count() == 3).then_some(text)
    });
    assert_eq!(lines.lines().next(), Some("{\"n\":0,\"known\":200000}"));
    // What is too large for a workflow is said before anything is sent, with what to do instead.
    fs::write(&script, code(300_000)).expect("code");
    let refused = fleet.cli(&["workflow", "apply", &file]).expect_err("it is too large");
    assert!(refused.contains("262144") && refused.contains("file ="), "{refused}");
    assert!(daemon.term_and_wait(STOP).success());
}
