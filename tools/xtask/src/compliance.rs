//! `cargo xtask compliance`: runs the suite that every connector passes, with a run for leaks as long as one likes. What is
//! asked of connectors is in `edge-daemon/connectors/tests/compliance`.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context as _, Result};

use crate::{cmd, setup};

/// The variable that tells the suite how long the run for leaks takes, in seconds.
const LEAK_VARIABLE: &str = "COMPLIANCE_LEAK_S";
/// The variable that tells it where to write how such a run came out.
const RESULTS_VARIABLE: &str = "COMPLIANCE_LEAK_RESULTS";
/// Where that is kept; the page of the suite is made from it.
const RESULTS: &str = "edge-daemon/connectors/tests/compliance/leaks.txt";
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
    let results = cmd::root().join("target/leaks");
    if let Some(minutes) = args.leak {
        // They wait most of the time: all of them at once.
        command.args(["--profile", "leak", "--test-threads", "16"]);
        command.env(LEAK_VARIABLE, (minutes * 60).to_string());
        if results.exists() {
            fs::remove_dir_all(&results).with_context(|| results.display().to_string())?;
        }
        fs::create_dir_all(&results).with_context(|| results.display().to_string())?;
        command.env(RESULTS_VARIABLE, &results);
    }
    if !args.only.is_empty() {
        command.arg(&args.only);
    }
    let ran = cmd::run(&mut command);
    if args.leak.is_some() {
        keep(&results, &cmd::root().join(RESULTS))?;
        println!("next: UPDATE=1 cargo test -p connectors --test compliance page, which writes docs/COMPLIANCE.md");
    }
    ran
}

/// Puts what came out of a run among what is known, in the place of what was known of the same connectors.
fn keep(results: &Path, kept: &Path) -> Result<()> {
    let mut lines: BTreeMap<String, String> = BTreeMap::new();
    let mut add = |text: String| {
        for line in text.lines() {
            let key = line.split(' ').next().unwrap_or_default();
            lines.insert(key.to_string(), line.to_string());
        }
    };
    add(fs::read_to_string(kept).unwrap_or_default());
    for entry in fs::read_dir(results).with_context(|| results.display().to_string())? {
        let path = entry?.path();
        add(fs::read_to_string(&path).with_context(|| path.display().to_string())?);
    }
    let text: String = lines.into_values().map(|line| line + "\n").collect();
    fs::write(kept, text).with_context(|| kept.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_run_takes_the_place_of_an_earlier_one() {
        let dir = std::env::temp_dir().join(format!("leaks-{}", std::process::id()));
        fs::create_dir_all(dir.join("new")).unwrap();
        let kept = dir.join("kept");
        fs::write(&kept, "sink-b 10 1 1\nsource-a 10 5 5\n").unwrap();
        fs::write(dir.join("new/source-a"), "source-a 10 6 7\n").unwrap();
        fs::write(dir.join("new/sink-c"), "sink-c 10 2 2\n").unwrap();
        keep(&dir.join("new"), &kept).unwrap();
        let text = fs::read_to_string(&kept).unwrap();
        fs::remove_dir_all(&dir).unwrap();
        assert_eq!(text, "sink-b 10 1 1\nsink-c 10 2 2\nsource-a 10 6 7\n");
    }
}
