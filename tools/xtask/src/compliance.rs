//! `cargo xtask compliance`: runs the suite that every connector passes, with a run for leaks as long as one likes. What is
//! asked of connectors is in `edge-daemon/connectors/tests/compliance`.

use anyhow::Result;

use crate::{cmd, setup};

/// The variable that tells the suite how long the run for leaks takes, in seconds.
const LEAK_VARIABLE: &str = "COMPLIANCE_LEAK_S";
/// Longest run for leaks, in minutes: nextest ends a test that takes ten times its patience.
const LEAK_MINUTES: std::ops::RangeInclusive<u64> = 1..=60;

/// What `cargo xtask compliance` can be told.
#[derive(clap::Args)]
pub struct Args {
    /// How long each connector runs to see whether it leaks, in minutes; without it, three seconds
    #[arg(long, value_name = "MINUTES", value_parser = clap::value_parser!(u64).range(LEAK_MINUTES))]
    leak: Option<u64>,
    /// Only connectors with this in the names of their tests, such as mqtt or sink_s3
    #[arg(long, value_name = "TEXT", default_value = "")]
    only: String,
}

/// Runs the task.
pub fn run(args: &Args) -> Result<()> {
    setup::ensure_all()?;
    let mut command = cmd::cargo();
    command.args(["nextest", "run", "-p", "connectors", "--test", "compliance"]);
    if let Some(minutes) = args.leak {
        // They wait most of the time: all of them at once.
        command.args(["--profile", "leak", "--test-threads", "16"]);
        command.env(LEAK_VARIABLE, (minutes * 60).to_string());
    }
    if !args.only.is_empty() {
        command.arg(&args.only);
    }
    cmd::run(&mut command)
}
