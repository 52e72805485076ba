//! `mycelial-broker`: reads its configuration, listens, and stops when told to.

mod log;

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context as _, Result};
use broker::{Config, EXAMPLE, Handle};
use clap::Parser;
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::{
    runtime::Builder,
    signal::unix::{SignalKind, signal},
};
use tracing::{info, warn};

/// It could not start: the configuration, a file it names, or a port.
const CANNOT_START: u8 = 2;
/// Open files besides one for each client: listeners, the data directory, the runtime.
const FILES_BESIDES: u64 = 64;

/// Mycelial's own broker: MQTT 3.1.1 and 5 for one fleet.
///
/// It listens until SIGTERM or SIGINT, and then ends with 0. When it cannot start (configuration, secret, certificate,
/// port) it says why and ends with 2. Logs go to stderr; a line with `listening on ADDRESS` for each port says that
/// it is ready.
#[derive(Parser)]
#[command(
    name = "mycelial-broker",
    version,
    before_help = "Example:\n  mycelial-broker --config /etc/mycelial/broker.toml",
    after_help = "`mycelial-plane init` writes broker.toml and all it names. `--help` shows what is in it.",
    after_long_help = format!("broker.toml:\n\n{EXAMPLE}"),
    help_template = "{before-help}\n{about-with-newline}\n{usage-heading} {usage}\n\n{all-args}\n{after-help}"
)]
struct Args {
    /// The configuration file
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// error, warn, info, debug, trace or a filter; wins over the configuration
    #[arg(long, value_name = "LEVEL", env = log::LEVEL_VAR)]
    log_level: Option<String>,
}

/// One burst of messages must not stay in the heap.
const BLOCK_BYTES: u32 = 64 * 1024;

fn main() -> ExitCode {
    resident::keep_small(BLOCK_BYTES);
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mycelial-broker: {error:#}");
            ExitCode::from(CANNOT_START)
        }
    }
}

fn run(args: &Args) -> Result<()> {
    let config = Config::read(&args.config)?;
    log::start(&config.log, args.log_level.as_deref())?;
    allow_open_files(config.max_clients as u64 + FILES_BESIDES);
    // One thread passes 350 MB/s of frames on; a second one takes more memory and gains little.
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.spawn(resident::keep_forgetting(tokio::time::sleep));
    runtime.block_on(async {
        // Before the ports are open: whoever waits for them may ask us to stop at once.
        let mut term = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
        let mut int = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
        let handle = broker::serve(config).await?;
        announce(&handle);
        let why = tokio::select! {
            _ = term.recv() => "SIGTERM",
            _ = int.recv() => "SIGINT",
        };
        info!(connections = handle.connections(), "stopping: {why}");
        handle.stop().await;
        info!("stopped");
        Ok(())
    })
}

fn announce(handle: &Handle) {
    for address in handle.plain() {
        info!("listening on {address}");
        if !address.ip().is_loopback() {
            warn!("no TLS on {address}: user names and passwords cross the network readable (messages are sealed)");
        }
    }
    for address in handle.tls() {
        info!("listening on {address} with TLS");
    }
}

/// Each connection is an open file, and the usual limit is 1024.
fn allow_open_files(needed: u64) {
    let mut limit = getrlimit(Resource::Nofile);
    // No number means no limit.
    if limit.current.is_none_or(|current| current >= needed) {
        return;
    }
    let allowed = limit.maximum.map_or(needed, |maximum| maximum.min(needed));
    limit.current = Some(allowed);
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        warn!(%error, "cannot raise the limit of open files");
    } else if allowed < needed {
        warn!(
            needed,
            allowed, "the limit of open files (ulimit -n) is too low for `max_clients`"
        );
    }
}
