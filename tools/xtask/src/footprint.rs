//! `cargo xtask footprint`: builds the programs and checks what they take of disk and memory under a fixed load, a browser in
//! front of a hundred daemons included, and what the page weighs. The load and the limits are in `testkit` and in `ui/scripts`.

use std::path::Path;

use anyhow::Result;

use crate::metadata::Metadata;
use crate::{cmd, programs, setup, ui};

/// What `cargo xtask footprint` can be told.
#[derive(clap::Args)]
pub struct Args {}

/// Runs the task.
pub fn run(_: &Args) -> Result<()> {
    setup::ensure_all()?;
    check()
}

/// The same for a task that has seen to the setup.
pub fn check() -> Result<()> {
    programs::build_all("release")?;
    ui::budgets()?;
    measure(&Metadata::load()?.target_directory.join("release"), &[])
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
