//! `mycelial`: the operator's command line. A client of the bus like any other; it reaches the plane and the daemons only
//! through signed and sealed messages. Data goes to stdout, everything else to stderr.

mod arguments;
mod client;
mod doctor;
mod letters;
mod live;
mod render;
mod requests;

use std::process::ExitCode;

use clap::Parser;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments = arguments::Arguments::parse();
    if arguments.verbose {
        tracing_subscriber::fmt()
            .with_writer(std::io::stderr)
            .with_max_level(tracing::Level::INFO)
            .init();
    }
    match requests::run(arguments).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprint!("mycelial: {error}");
            eprintln!();
            ExitCode::from(error.exit_code())
        }
    }
}
