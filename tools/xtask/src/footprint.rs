//! `cargo xtask footprint`: builds the programs and checks what they take of disk and memory under a fixed load. The load and
//! the limits are in `testkit`.

use std::path::Path;

use anyhow::Result;

use crate::metadata::Metadata;
use crate::{cmd, setup};

/// What `cargo xtask footprint` can be told.
#[derive(clap::Args)]
pub struct Args {}

/// What is built and measured.
const PACKAGES: &[&str] = &["edge-daemon", "plane", "cli", "broker"];

/// Runs the task.
pub fn run(_: &Args) -> Result<()> {
    setup::ensure_all()?;
    check()
}

/// The same for a task that has seen to the setup.
pub fn check() -> Result<()> {
    build(PACKAGES)?;
    measure(&Metadata::load()?.target_directory.join("release"), &[])
}

/// Builds programs.
pub fn build(packages: &[&str]) -> Result<()> {
    eprintln!("building the release programs (ten minutes on two cores the first time) …");
    let mut build = cmd::cargo();
    build.args(["build", "--release", "--bins"]);
    for package in packages {
        build.args(["-p", package]);
    }
    cmd::run(&mut build)
}

/// Lets everything happen with the programs in `bins`.
pub fn measure(bins: &Path, arguments: &[&str]) -> Result<()> {
    cmd::run(
        cmd::cargo()
            .args(["run", "--quiet", "-p", "testkit", "--bin", "footprint", "--"])
            .args(arguments)
            .env("MYCELIAL_BIN_DIR", bins),
    )
}
