//! `cargo xtask test`: builds the binaries, checks what the release programs take, then runs every test of the workspace
//! against real servers. Has no list of tests of its own.

use std::num::NonZero;

use anyhow::Result;

use crate::metadata::Metadata;
use crate::{cmd, footprint, setup, ui};

/// Most tests wait for servers and daemons longer than they compute; those that do not count for two
/// (`.config/nextest.toml`).
const TESTS_PER_CORE: usize = 3;

/// What `cargo xtask test` can be told.
#[derive(clap::Args)]
pub struct Args {
    /// Passed on to the test runner: `-p spool`, a part of a test's name, …
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

/// Runs the task. The last lines are the test runner's own summary.
pub fn run(args: &Args) -> Result<()> {
    setup::ensure_all()?;
    ui::build()?;
    let bin_dir = Metadata::load()?.target_directory.join("debug");
    let nextest = cmd::has_cargo("nextest");
    let scope = scope(&args.rest);
    // Tests start the binaries, and cargo would not build those for tests of other crates.
    cmd::run(cmd::cargo().args(["build", "--workspace", "--bins"]))?;

    // What follows comes first, so that the summary of the tests is the last thing said.
    if args.rest.is_empty() {
        ui::test()?;
        footprint::check()?;
    }
    if nextest && args.rest.is_empty() {
        // nextest runs no doc tests.
        cmd::run(cmd::cargo().args(["test", "--doc", "--workspace", "--no-fail-fast"]))?;
    }
    let runner: &[&str] = if nextest {
        &["nextest", "run"]
    } else {
        &["test", "--no-fail-fast"]
    };
    let at_once = std::thread::available_parallelism().map_or(1, NonZero::get) * TESTS_PER_CORE;
    cmd::run(
        cmd::cargo()
            .args(runner)
            .args(scope)
            .args(&args.rest)
            .env("MYCELIAL_BIN_DIR", bin_dir)
            .env("NEXTEST_TEST_THREADS", at_once.to_string()),
    )
}

/// The whole workspace, unless the arguments name packages.
fn scope(args: &[String]) -> Option<&'static str> {
    let names_packages = args
        .iter()
        .take_while(|arg| *arg != "--")
        .any(|arg| arg == "-p" || arg == "--package" || arg.starts_with("--package=") || arg.starts_with("-p="));
    (!names_packages).then_some("--workspace")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes() {
        let cases: &[(&[&str], Option<&str>)] = &[
            (&[], Some("--workspace")),
            (&["some_test"], Some("--workspace")),
            (&["-p", "spool"], None),
            (&["--package=spool", "a_test"], None),
            (&["--", "-p"], Some("--workspace")),
        ];
        for (args, want) in cases {
            let args: Vec<String> = args.iter().map(ToString::to_string).collect();
            assert_eq!(scope(&args), *want, "{args:?}");
        }
    }
}
