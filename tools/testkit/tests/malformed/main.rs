//! Malformed everything, against the real binaries: each mistake ends with its documented exit code and a message that
//! says what is wrong, where, and how to mend it. Tables; one file for each kind of thing that can be malformed.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test that cannot set up its world has failed")]

mod enrolment;
mod envelope;
mod files;
mod settings;
mod workflow;
mod world;

use std::{path::Path, time::Duration};

use testkit::Cmd;

const SOON: Duration = Duration::from_secs(60);

/// What no message may hold: Rust talking to itself.
const UGLY: [&str; 9] = [
    "Os {",
    "Some(",
    "None",
    "Err(",
    "Error {",
    "Error(",
    "panicked",
    "RUST_BACKTRACE",
    "called `",
];

/// One command that must fail.
struct Case {
    what: String,
    cmd: Cmd,
    code: i32,
    says: Vec<String>,
}

impl Case {
    fn new(what: &str, cmd: Cmd, code: i32, says: &[&str]) -> Self {
        Self {
            what: what.to_string(),
            cmd,
            code,
            says: says.iter().map(ToString::to_string).collect(),
        }
    }
}

/// Runs all cases and tells everything that is wrong with them at once.
#[track_caller]
fn check(cases: Vec<Case>) {
    assert!(!cases.is_empty());
    let mut wrong = String::new();
    for Case { what, cmd, code, says } in cases {
        let done = cmd.run(SOON);
        // To be read aloud: `cargo nextest run -p testkit --test malformed --no-capture`.
        println!(
            "--- {}: exit code {}\n{}",
            what.trim(),
            done.code().unwrap_or(-1),
            done.stderr
        );
        let mut complaints = Vec::new();
        if done.code() != Some(code) {
            complaints.push(format!("the exit code is not {code}"));
        }
        let missing = says.iter().filter(|part| !done.stderr.contains(*part));
        complaints.extend(missing.map(|part| format!("does not say: {part}")));
        let ugly = UGLY.iter().filter(|part| done.stderr.contains(*part));
        complaints.extend(ugly.map(|part| format!("says: {part}")));
        if !done.stdout.is_empty() {
            complaints.push("something is on stdout".to_string());
        }
        if !complaints.is_empty() {
            wrong.push_str(&format!("\n=== {what}: {}\n{done}\n", complaints.join("; ")));
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// One of our programs, without what the test's own surroundings say.
fn program(name: &str, arguments: &[&str]) -> Cmd {
    let variables = [
        "MYCELIAL_CONFIG",
        "MYCELIAL_DATA_DIR",
        "MYCELIAL_ENROL",
        "MYCELIAL_HOME",
        "MYCELIAL_LOG",
        "XDG_CONFIG_HOME",
    ];
    let cmd = Cmd::bin(name).args(arguments);
    variables.into_iter().fold(cmd, Cmd::env_remove)
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
