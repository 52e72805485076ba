//! `cargo xtask measure`: builds what users run, and prints what it takes. The figures in README and docs come from here.

use anyhow::Result;

use crate::metadata::Metadata;
use crate::{cmd, setup};

/// What `cargo xtask measure` can be told.
#[derive(clap::Args)]
pub struct Args {}

/// Runs the task.
pub fn run(_: &Args) -> Result<()> {
    setup::ensure_all()?;
    eprintln!("building the release programs (ten minutes on two cores the first time) …");
    let programs = ["edge-daemon", "plane", "cli", "broker"];
    let mut build = cmd::cargo();
    build.args(["build", "--release", "--bins"]);
    for package in programs {
        build.args(["-p", package]);
    }
    cmd::run(&mut build)?;
    let bins = Metadata::load()?.target_directory.join("release");
    cmd::run(
        cmd::cargo()
            .args(["run", "--quiet", "-p", "testkit", "--bin", "measure"])
            .env("MYCELIAL_BIN_DIR", bins),
    )
}
