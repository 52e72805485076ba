//! `mycelial`: the operator's command line. A client of the bus like any other; it reaches the plane and the daemons only
//! through signed and sealed messages. Data goes to stdout, everything else to stderr.

mod answer;
mod arguments;
mod ask;
mod client;
mod contexts;
mod control;
mod doctor;
mod letters;
mod live;
mod names;
mod reference;
mod render;
mod requests;
mod rollouts;
mod secrets;
mod trial;
mod workflows;

use std::process::ExitCode;

use arguments::{Arguments, Command};
use clap::{CommandFactory, Parser};

fn main() -> ExitCode {
    // The shell asks for completions with the variable COMPLETE; then nothing else is done.
    clap_complete::CompleteEnv::with_factory(Arguments::command).complete();
    let arguments = Arguments::parse();
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
