//! `cargo xtask footprint`: builds the programs and checks what they take of disk and memory under a fixed load. The load and
//! the limits are in `testkit`.

use std::path::Path;

use anyhow::Result;

use crate::metadata::Metadata;
use crate::{cmd, setup};

/// What `cargo xtask footprint` can be told.
#[derive(clap::Args)]
pub struct Args {
    /// Build without link-time optimisation, in a fraction of the time; there are limits for that too
    #[arg(long)]
    up: bool,
}

/// What is built and measured.
const PACKAGES: &[&str] = &["edge-daemon", "plane", "cli", "broker"];

/// Runs the task.
pub fn run(args: &Args) -> Result<()> {
    setup::ensure_all()?;
    check(args.up)
}

/// The same for who has seen to the setup.
pub fn check(up: bool) -> Result<()> {
    let profile = if up { "up" } else { "release" };
    build(profile, PACKAGES)?;
    let bins = Metadata::load()?.target_directory.join(profile);
    measure(&bins, if up { &["--up"] } else { &[] })
}

/// Builds programs.
pub fn build(profile: &str, packages: &[&str]) -> Result<()> {
    eprintln!("building the programs to be measured (profile {profile}) …");
    let mut build = cmd::cargo();
    build.args(["build", "--profile", profile, "--bins"]);
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
