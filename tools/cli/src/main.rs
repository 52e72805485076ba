//! `mycelial`: the operator's command line. A client of the bus like any other; it reaches the plane and the daemons only
//! through signed and sealed messages. Data goes to stdout, everything else to stderr.

mod answer;
mod apply;
mod arguments;
mod ask;
mod audit;
mod backup;
mod bugreport;
mod checks;
mod client;
mod code_from;
mod compare;
mod contexts;
mod control;
mod covered;
mod daemons;
mod doctor;
mod examples;
mod files;
mod groups;
mod letters;
mod live;
mod logs;
mod many;
mod names;
mod narrow;
mod observe;
mod operators;
mod pending;
mod programs;
mod reference;
mod render;
mod requests;
mod revoke;
mod rollouts;
mod secrets;
mod seen;
mod top;
mod trial;
mod workflows;

use std::process::ExitCode;

use arguments::{Arguments, Command};
use clap::FromArgMatches;

fn main() -> ExitCode {
    // The shell asks for completions with the variable COMPLETE; then nothing else is done.
    clap_complete::CompleteEnv::with_factory(examples::command).complete();
    let mut matches = examples::command().get_matches();
    let arguments = Arguments::from_arg_matches_mut(&mut matches).unwrap_or_else(|error| error.exit());
    if arguments.verbose {
        tracing_subscriber::fmt()
            .with_writer(std::io::stderr)
            .with_max_level(tracing::Level::INFO)
            .init();
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("mycelial: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    // These end in good order when they are interrupted.
    let ends_itself = matches!(arguments.command, Command::Tap { .. } | Command::Sub { .. });
    let asked = async {
        tokio::select! {
            done = requests::run(arguments) => done,
            _ = tokio::signal::ctrl_c(), if !ends_itself => Err(client::CliError::Interrupted),
        }
    };
    match runtime.block_on(asked) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mycelial: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}
