//! Runs one case a number of times, for callgrind: `hot <case> <iterations>`. `hot list` prints the table of cases,
//! a line each, tab-separated. Measures nothing itself.

use std::{env, process::ExitCode};

use anyhow::{Context as _, Result, bail, ensure};

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments.as_slice() {
        ["list"] => {
            list();
            Ok(())
        }
        [name, iterations] => repeat(name, iterations),
        _ => Err(anyhow::anyhow!("usage: hot list | hot <case> <iterations>")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hot: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn list() {
    for case in micro::cases() {
        println!(
            "{}\t{}\t{}\t{}\t{}",
            case.name,
            case.iterations,
            case.spread_percent,
            if case.main_thread_only { "main" } else { "all" },
            case.iteration
        );
    }
}

fn repeat(name: &str, iterations: &str) -> Result<()> {
    let Some(case) = micro::cases().find(|case| case.name == name) else {
        bail!("there is no case '{name}'; `hot list` names them");
    };
    let iterations: u64 = iterations.parse().context("the iterations are not a number")?;
    let dir = tempfile::tempdir().context("cannot make a directory to work in")?;
    let mut body = (case.prepare)(dir.path())?;
    // One more, uncounted in the difference of two runs: it fills caches and tables.
    let amount = body()?;
    for _ in 0..iterations {
        ensure!(body()? == amount, "{name} does not do the same at every call");
    }
    Ok(())
}
