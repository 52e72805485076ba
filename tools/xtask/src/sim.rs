//! `cargo xtask sim`: lives of streams and plans without network or disk, by the thousand. Everything is in the program it
//! starts.

use anyhow::Result;

use crate::{cmd, setup};

/// What `cargo xtask sim` can be told.
#[derive(clap::Args)]
pub struct Args {
    /// How many lives
    #[arg(long, default_value_t = 100_000)]
    runs: u64,
    /// The first one's seed; each next one's is one more
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Print what happens in them
    #[arg(long)]
    trace: bool,
    /// Build in a mistake, to see that it is found
    #[arg(long)]
    mistake: Option<String>,
}

/// Runs the task.
pub fn run(args: &Args) -> Result<()> {
    setup::ensure_build_tools()?;
    let mut sim = cmd::cargo();
    sim.args(["run", "--quiet", "--profile", "up", "-p", "sim", "--"]);
    sim.args(["--runs", &args.runs.to_string(), "--seed", &args.seed.to_string()]);
    if args.trace {
        sim.arg("--trace");
    }
    if let Some(mistake) = &args.mistake {
        sim.args(["--mistake", mistake]);
    }
    cmd::run(&mut sim)
}
