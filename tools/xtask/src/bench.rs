//! `cargo xtask bench`: builds the release programs and measures them beside others. Knows nothing of the jobs.

use std::process::Command;

use anyhow::Result;

use crate::metadata::Metadata;
use crate::{cmd, programs, setup};

/// What `cargo xtask bench` can be told.
#[derive(clap::Args)]
#[command(disable_help_flag = true)]
pub struct Args {
    /// How the programs are built: release, or up, which builds in a fraction of the time
    #[arg(long, default_value = "release")]
    profile: String,
    /// Passed on to the benchmarks: `--only`, `--quick`, `--rounds`, `--out`, `--list`; `--help` says more
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

/// Runs the task.
pub fn run(args: &Args) -> Result<()> {
    let asks = |flags: &[&str]| args.rest.iter().any(|arg| flags.contains(&arg.as_str()));
    let target = Metadata::load()?.target_directory;
    // The harness itself is not measured, except for its bare loop: its dev profile is an optimised one.
    cmd::run(cmd::cargo().args(["build", "--quiet", "-p", "bench"]))?;
    let mut bench = Command::new(target.join("debug").join("bench"));
    bench.current_dir(cmd::root()).args(&args.rest);
    if asks(&["-h", "--help", "--list"]) {
        return cmd::run(&mut bench);
    }
    setup::ensure_all()?;
    programs::build_all(&args.profile)?;
    // Simulates daemons; no user runs it.
    programs::build(&args.profile, &["fleet-sim"])?;
    // What a job puts into a temporary directory shall be on the disk that is measured.
    let temporary = target.join("bench").join("tmp");
    std::fs::create_dir_all(&temporary)?;
    cmd::run(
        bench
            .env("MYCELIAL_BIN_DIR", target.join(&args.profile))
            .env("TMPDIR", temporary),
    )
}
