//! The web API, fuzzed by schemathesis by the API's own description: whatever is sent, the plane answers, and never with a failure
//! of its own. The seed is fixed, so that a run can be repeated; `MYCELIAL_SEED` and `MYCELIAL_FUZZ_S` (at most 75 seconds) make it another one.
#![allow(clippy::unwrap_used, reason = "a test that cannot set up its world has failed")]

mod common;

use std::{
    env,
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use common::Plane;
use plane::http::openapi::document;
use serde_json::json;

/// How long it may take.
const LONGEST: Duration = Duration::from_secs(90);
/// How long inputs are made: first those at the edges of each schema, then such as nobody thought of.
const FUZZ_S: &str = "55";
/// Inputs for each endpoint in a round; there are rounds until the time is over.
const EXAMPLES: &str = "4";
const SEED: &str = "20261128";

fn told(name: &str, usual: &str) -> String {
    env::var(name).unwrap_or_else(|_| usual.to_string())
}

/// Runs it, and ends it when it takes too long.
fn run(mut command: Command) -> Output {
    let started = Instant::now();
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut late = false;
    while child.try_wait().unwrap().is_none() {
        if started.elapsed() > LONGEST {
            late = true;
            child.kill().unwrap();
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    let output = child.wait_with_output().unwrap();
    assert!(
        !late,
        "longer than {LONGEST:?}: {}",
        String::from_utf8_lossy(&output.stdout)
    );
    output
}

#[tokio::test]
async fn whatever_is_sent_is_answered() {
    let plane = Plane::start_with("web.operator = true\n").await;
    let owner = plane.browser().await;
    let wish = json!({ "name": "fuzz", "role": "admin", "ttl_s": 600 });
    let made = owner.post("/api/v1/api-tokens", wish).await;
    let token = made.json()["token"].as_str().unwrap().to_string();
    let (dir, http) = (tempfile::tempdir().unwrap(), plane.http.clone());
    let description = dir.path().join("openapi.json");
    std::fs::write(&description, document().to_string()).unwrap();
    let mut command = Command::new(testkit::python());
    command
        .current_dir(dir.path())
        .args(["-c", "from schemathesis.cli import schemathesis; schemathesis()", "run"])
        .arg(&description)
        .args(["--url", &format!("http://{http}/api/v1")])
        .args(["--header", &format!("Authorization: Bearer {token}")])
        // Or nothing would be changed.
        .args(["--header", "If-Match: *"])
        .args([
            "--checks",
            "not_a_server_error",
            "--phases",
            "coverage,fuzzing",
            "--warnings",
            "off",
        ])
        .args([
            "--max-examples",
            EXAMPLES,
            "--max-time",
            &told("MYCELIAL_FUZZ_S", FUZZ_S),
        ])
        .args([
            "--seed",
            &told("MYCELIAL_SEED", SEED),
            "--generation-database",
            "none",
            "--no-shrink",
        ])
        // It never ends.
        .args([
            "--exclude-path",
            "/live",
            "--workers",
            "2",
            "--request-timeout",
            "20",
            "--suppress-health-check",
            "all",
        ])
        .arg("--no-color");
    let output = tokio::task::spawn_blocking(move || run(command)).await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{said}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    // It did something, and the plane is still there.
    let generated = said
        .lines()
        .find_map(|line| line.trim().split_once(" generated")?.0.parse::<u32>().ok());
    assert!(generated > Some(500), "{said}");
    eprintln!("{} inputs", generated.unwrap_or_default());
    assert_eq!(owner.get("/api/v1/info").await.status, 200);
}
