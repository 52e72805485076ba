//! Running other programs from the root of the repository. Knows no particular task.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// What takes longer says afterwards how long it took.
const TOLD_FROM: Duration = Duration::from_secs(10);

/// The root of the repository this xtask belongs to.
pub fn root() -> PathBuf {
    // Set by `cargo run` at run time; the compiled-in value serves a binary started by hand.
    let manifest_dir = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_else(|_| env!("CARGO_MANIFEST_DIR").to_owned());
    Path::new(&manifest_dir)
        .ancestors()
        .nth(2)
        .unwrap_or(Path::new("."))
        .to_path_buf()
}

/// A program to run in the root of the repository.
pub fn program(name: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(name);
    command.current_dir(root());
    command
}

/// The cargo that runs us.
pub fn cargo() -> Command {
    program(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// Whether `cargo <name>` works here.
pub fn has_cargo(name: &str) -> bool {
    cargo()
        .args([name, "--version"])
        .output()
        .is_ok_and(|output| output.status.success())
}

/// Runs to the end, showing what it says. A failure names the command.
pub fn run(command: &mut Command) -> Result<()> {
    let start = Instant::now();
    let status = command
        .status()
        .with_context(|| format!("cannot run `{}`", show(command)))?;
    let took = start.elapsed();
    if took >= TOLD_FROM {
        eprintln!("`{}` took {} s", show(command), took.as_secs());
    }
    if !status.success() {
        bail!("`{}` failed with {status}", show(command));
    }
    Ok(())
}

/// Runs to the end and returns what it said, whether it failed or not.
pub fn output(command: &mut Command) -> Result<Output> {
    command
        .output()
        .with_context(|| format!("cannot run `{}`", show(command)))
}

/// The command as one would type it.
pub fn show(command: &Command) -> String {
    let program = Path::new(command.get_program())
        .file_name()
        .unwrap_or_else(|| command.get_program());
    std::iter::once(program)
        .chain(command.get_args())
        .map(OsStr::to_string_lossy)
        .collect::<Vec<_>>()
        .join(" ")
}
