//! `cargo xtask soak`: builds the programs and lets testkit's soak loose on them. Knows nothing of faults itself.

use std::process::Command;

use anyhow::Result;

use crate::metadata::Metadata;
use crate::{cmd, setup};

/// What `cargo xtask soak` can be told.
#[derive(clap::Args)]
#[command(disable_help_flag = true)]
pub struct Args {
    /// How the programs are built: dev, up (nearly as fast as a release) or release
    #[arg(long, default_value = "up")]
    profile: String,
    /// Passed on to the soak: `--minutes`, `--kills`, `--bus`, `--all`, `--seed`, `--json`, `--report`; `--help` says more
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

/// Runs the task. Fails when the soak found anything.
pub fn run(args: &Args) -> Result<()> {
    if !args.rest.iter().any(|arg| arg == "--help" || arg == "-h") {
        setup::ensure_all()?;
    }
    build(&args.profile)?;
    let bins = Metadata::load()?.target_directory.join(directory(&args.profile));
    cmd::run(
        Command::new(bins.join("soak"))
            .args(&args.rest)
            .args(["--profile", &args.profile])
            .env("MYCELIAL_BIN_DIR", bins),
    )
}

fn build(profile: &str) -> Result<()> {
    // With the whole workspace, as tests are built: dependencies get the same features, and need not be built once more.
    cmd::run(cmd::cargo().args(["build", "--workspace", "--profile", profile, "--bins"]))
}

/// Where cargo puts the programs of a profile.
fn directory(profile: &str) -> &str {
    match profile {
        "dev" => "debug",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn everything_else_is_passed_on() {
        let parse = |line: &[&str]| Line::parse_from([&["x"][..], line].concat()).args;
        let args = parse(&["--minutes", "2", "--bus", "nats"]);
        assert_eq!(
            (args.profile.as_str(), args.rest.join(" ")),
            ("up", "--minutes 2 --bus nats".to_string())
        );
        let args = parse(&["--profile", "dev", "--kills", "200", "--help"]);
        assert_eq!(
            (args.profile.as_str(), args.rest.join(" ")),
            ("dev", "--kills 200 --help".to_string())
        );
    }

    #[test]
    fn directories() {
        assert_eq!(
            [directory("dev"), directory("up"), directory("release")],
            ["debug", "up", "release"]
        );
    }
}
