//! Prints what the programs take of disk and memory under a fixed load, and fails where it is more than they may.
//! `cargo xtask footprint` builds the programs and runs it.

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use testkit::footprint::{self, Load};

#[derive(Parser)]
struct Args {
    /// Let everything happen once, and check no memory
    #[arg(long)]
    small: bool,
}

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    if args.small {
        footprint::memory(Load::SMALL)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut figures = footprint::disk()?;
    figures.extend(footprint::memory(Load::FULL)?);
    for figure in &figures {
        println!("{figure}");
    }
    if figures.iter().all(footprint::Figure::holds) {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!(
        "the programs take more than they may. Disk: look for a new dependency or feature (`cargo bloat --release`). Memory: \
         `heaptrack` for what is theirs; `cargo xtask layout` for what is the program's. Limits: tools/testkit/src/footprint.rs"
    );
    Ok(ExitCode::FAILURE)
}
