//! `sim`: runs many lives, one after another, and stops at the first that breaks a promise.

use std::{io::Write, process::ExitCode, time::Instant};

use clap::{Parser, builder::PossibleValuesParser};
use sim::setting::Mistake;

/// Lives of streams and plans, without network or disk
#[derive(Parser)]
struct Arguments {
    /// How many
    #[arg(long, default_value_t = 10_000)]
    runs: u64,
    /// The first one's seed; each next one's is one more
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Print what happens
    #[arg(long)]
    trace: bool,
    /// Build in a mistake, to see that it is found
    #[arg(long, value_name = "MISTAKE", value_parser = PossibleValuesParser::new(Mistake::ALL.iter().map(|(name, _)| *name)))]
    mistake: Option<String>,
}

/// Runs between two signs of life.
const PROGRESS_EVERY: u64 = 5_000;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let named = |wanted: &String| {
        Mistake::ALL
            .iter()
            .find(|(name, _)| name == wanted)
            .map(|(_, mistake)| *mistake)
    };
    let mistake = arguments.mistake.as_ref().and_then(named);
    let start = Instant::now();
    for number in 0..arguments.runs {
        let seed = arguments.seed.wrapping_add(number);
        if let Err(broken) = sim::run(seed, mistake, arguments.trace) {
            eprintln!("seed {seed}: {broken}");
            if !arguments.trace {
                let built_in = arguments
                    .mistake
                    .map(|name| format!(" --mistake {name}"))
                    .unwrap_or_default();
                eprintln!("to see it: cargo xtask sim --runs 1 --seed {seed} --trace{built_in}");
            }
            return ExitCode::FAILURE;
        }
        if (number + 1) % PROGRESS_EVERY == 0 {
            eprint!("\r{} runs, {:.0} s ", number + 1, start.elapsed().as_secs_f64());
            let _ = std::io::stderr().flush();
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    eprintln!();
    println!(
        "{} runs from seed {} in {seconds:.1} s: nothing lost, nothing doubled",
        arguments.runs, arguments.seed
    );
    ExitCode::SUCCESS
}
