//! What people type in this repository: `cargo xtask <task>`. Each task is one file with its `Args` and a `run`; this
//! file only chooses between them.

mod bench;
mod budgets;
mod cmd;
mod compliance;
mod conformance;
mod cross;
mod footprint;
mod fuzz;
mod layout;
mod lint;
mod metadata;
mod new_connector;
mod programs;
mod setup;
mod sim;
mod soak;
mod test;
mod ui;
mod up;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Mycelial's development tasks.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Build everything, start it, move real data, and say where to look
    Up(up::Args),
    /// Install what development needs and this machine lacks
    Setup(setup::Args),
    /// Check everything that can be checked without running the product
    Lint(lint::Args),
    /// Run every test against real servers
    Test(test::Args),
    /// Live thousands of lives of streams and plans, without network or disk
    Sim(sim::Args),
    /// Feed made-up bytes to everything that reads bytes from outside
    Fuzz(fuzz::Args),
    /// Move data while everything fails, and ask the oracle what came of it
    Soak(soak::Args),
    /// Measure the release programs beside what else could do the job, and write the report
    Bench(bench::Args),
    /// Build the release programs for gateways: static ones for x86-64, arm64 and armv7
    Cross(cross::Args),
    /// Count the instructions of the hot path and compare them with their budgets
    Budgets(budgets::Args),
    /// Check what the programs take of disk and memory against their limits
    Footprint(footprint::Args),
    /// Find out which functions of the programs run, for the linker to put them together
    Layout(layout::Args),
    /// Begin a connector: a source and a destination that work, tested and registered
    NewConnector(new_connector::Args),
    /// Run the bus's suite over every kind of broker and write its table into the docs
    Conformance(conformance::Args),
    /// Run the suite that every connector passes, with a run for leaks as long as you like
    Compliance(compliance::Args),
}

fn main() -> ExitCode {
    let done = match Cli::parse().task {
        Task::Up(args) => up::run(&args),
        Task::Setup(args) => setup::run(&args),
        Task::Lint(args) => lint::run(&args),
        Task::Test(args) => test::run(&args),
        Task::Sim(args) => sim::run(&args),
        Task::Fuzz(args) => fuzz::run(&args),
        Task::Soak(args) => soak::run(&args),
        Task::Bench(args) => bench::run(&args),
        Task::Cross(args) => cross::run(&args),
        Task::Budgets(args) => budgets::run(&args),
        Task::Footprint(args) => footprint::run(&args),
        Task::Layout(args) => layout::run(&args),
        Task::NewConnector(args) => new_connector::run(&args),
        Task::Conformance(args) => conformance::run(&args),
        Task::Compliance(args) => compliance::run(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("error: {e:#}");
            ExitCode::FAILURE
        }
    }
}
