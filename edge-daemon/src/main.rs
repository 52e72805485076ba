//! `myceliald`: runs workflows next to the data. Parses the command line, then hands over.

mod agent;
mod aside;
mod assemble;
mod audit;
mod board;
mod buffers;
mod carried;
mod chores;
mod clocks;
mod command;
mod config;
mod control;
mod letters;
mod logging;
mod marks;
mod permission;
mod recent;
mod reference;
mod resources;
mod resting;
mod secrets;
mod standalone;
mod streams;
mod supervisor;
mod taps;
mod trial;

use std::process::ExitCode;

use clap::Parser;

/// Frames and the columns of a batch are larger, and would leave holes of many sizes in the heap.
const BLOCK_BYTES: u32 = 32 * 1024;

fn main() -> ExitCode {
    // First of all: the allocator's limits hold only for what is allocated after.
    resident::keep_small(BLOCK_BYTES);
    let arguments = command::Arguments::parse();
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .thread_keep_alive(std::time::Duration::from_secs(2))
        .thread_stack_size(512 * 1024)
        .max_blocking_threads(16)
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("myceliald: cannot start: {error}");
            return ExitCode::from(command::EXIT_FAILED);
        }
    };
    runtime.spawn(resident::keep_forgetting(tokio::time::sleep));
    let code = runtime.block_on(command::run(arguments));
    // A component that hangs in a blocking call must not keep the process.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    code
}
