//! `mycelial-plane`: reads the command line and hands over. Prints data on stdout, everything else on stderr.

use std::{net::SocketAddr, path::PathBuf, process::ExitCode};

use bus_schema::member::Role;
use clap::{Args, Parser, Subcommand, ValueEnum};
use plane::{
    init::{Wishes, init},
    invite::Wish,
    login::{FIRST_TTL_S, LoginError, login_command, token_command},
    run::{FAILED, Failure, Options, WRONG, failure, run},
};

/// The control plane of a Mycelial fleet: enrols daemons, deploys workflows, keeps the books, serves the web page.
#[derive(Parser)]
#[command(
    name = "mycelial-plane",
    version,
    before_help = "Example:\n  mycelial-plane run --dir /var/lib/mycelial/plane\n  \
                   (the first start makes the fleet and prints how to log in)",
    after_help = "Exit codes:\n  0  done, or stopped by SIGTERM or SIGINT\n  1  failed while starting or running\n  \
                  2  the command line or the settings are wrong, or the web page's port is taken\n  \
                  3  another plane uses the directory"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the plane; make it first if the directory holds none.
    Run {
        #[command(flatten)]
        dir: Dir,
        #[command(flatten)]
        make: Make,
        /// Log level or filter instead of the settings' (error, warn, info, debug, trace).
        #[arg(long, value_name = "LEVEL", env = plane::log::LEVEL_VAR)]
        log: Option<String>,
    },
    /// Make keys, fleet and settings, and run nothing.
    Init {
        #[command(flatten)]
        dir: Dir,
        #[command(flatten)]
        make: Make,
    },
    /// Print a one-time link to the web page. Works beside a running plane.
    Login {
        #[command(flatten)]
        dir: Dir,
    },
    /// Print an enrolment string. Works beside a running plane.
    Token {
        #[command(flatten)]
        dir: Dir,
        /// What its holder becomes.
        #[arg(long, value_enum)]
        role: Becomes,
        /// The name its holder gets; the candidate chooses unless told.
        #[arg(long)]
        name: Option<String>,
        /// How often it can be used.
        #[arg(long, default_value_t = 1)]
        uses: u32,
        /// How many seconds it can be used.
        #[arg(long, value_name = "SECONDS", default_value_t = FIRST_TTL_S)]
        ttl: u64,
    },
}

#[derive(Args)]
struct Dir {
    /// The plane's directory: keys, settings, store. Back it up.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
}

#[derive(Args)]
struct Make {
    /// A broker of your own: nats://…, nats+tls://…, mqtt://… or mqtts://…; repeat it for failover.
    #[arg(long, value_name = "ADDR")]
    bus: Vec<String>,
    /// PEM file of the authority that vouches for that broker, unless the system trusts it; kept, and told to members.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Where the embedded broker listens [default: mqtt://127.0.0.1:1883].
    #[arg(long, value_name = "ADDR")]
    embedded: Option<String>,
    /// TLS for the embedded broker, with a certificate authority of the fleet's own.
    #[arg(long)]
    tls: bool,
    /// Where the web page listens [default: 127.0.0.1:7777]; port 0 takes any free one.
    #[arg(long, value_name = "ADDR")]
    http: Option<SocketAddr>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Becomes {
    Daemon,
    Operator,
}

impl From<Make> for Wishes {
    fn from(make: Make) -> Self {
        let Make {
            bus,
            ca,
            embedded,
            tls,
            http,
        } = make;
        Self {
            bus,
            ca,
            embedded,
            tls,
            http,
        }
    }
}

/// One burst of reports must not stay in the heap.
const BLOCK_BYTES: u32 = 64 * 1024;

fn main() -> ExitCode {
    resident::keep_small(BLOCK_BYTES);
    match command(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure { code, message }) => {
            eprintln!("mycelial-plane: {message}");
            ExitCode::from(code)
        }
    }
}

fn command(command: Command) -> Result<(), Failure> {
    match command {
        Command::Run { dir, make, log } => {
            let options = Options {
                dir: dir.dir,
                wishes: make.into(),
                log_level: log,
            };
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.map_err(|error| failure(FAILED)(&error))?;
            runtime.spawn(resident::keep_forgetting(tokio::time::sleep));
            runtime.block_on(run(options))
        }
        Command::Init { dir: Dir { dir }, make } => {
            let made = init(&dir, &make.into())?;
            println!("{}", made.fleet);
            eprintln!("Made the plane of a new fleet in {}. Next:", dir.display());
            if let Some(broker) = made.broker {
                eprintln!("  mycelial-broker --config {}", broker.display());
            }
            eprintln!("  mycelial-plane run --dir {}", dir.display());
            Ok(())
        }
        Command::Login { dir: Dir { dir } } => {
            let (link, running) = login_command(&dir).map_err(told)?;
            println!("{link}");
            if !running {
                eprintln!(
                    "The plane is not running; the link works once it is: mycelial-plane run --dir {}",
                    dir.display()
                );
            }
            Ok(())
        }
        Command::Token {
            dir: Dir { dir },
            role,
            name,
            uses,
            ttl,
        } => {
            let role = match role {
                Becomes::Daemon => Role::Daemon,
                Becomes::Operator => Role::Operator,
            };
            println!(
                "{}",
                token_command(
                    &dir,
                    Wish {
                        role,
                        name,
                        uses,
                        ttl_s: ttl
                    }
                )
                .map_err(told)?
            );
            Ok(())
        }
    }
}

fn told(error: LoginError) -> Failure {
    let code = match error {
        LoginError::NoPlane(_) | LoginError::Config(_) | LoginError::Wish(_) => WRONG,
        LoginError::Store(_) | LoginError::Home(_) | LoginError::Random(_) => FAILED,
    };
    Failure {
        code,
        message: error.to_string(),
    }
}
