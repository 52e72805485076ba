//! `mycelial-plane`: reads the command line and hands over. Prints data on stdout, everything else on stderr.

use std::{net::SocketAddr, path::PathBuf, process::ExitCode};

use bus_schema::member::Role;
use clap::{Args, Parser, Subcommand, ValueEnum};
use plane::{
    backup::{self, BackupError, Kind, Opener, Summary},
    init::{Wishes, init},
    invite::Wish,
    login::{FIRST_TTL_S, LoginError, login_command, token_command},
    people::{self, PeopleError, Secret},
    permission::Rank,
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
    /// Make a backup beside a running plane, look whether one is good, or make a plane out of it.
    #[command(subcommand)]
    Backup(Backup),
    /// Users of the web page, for whoever forgot a password. Works beside a running plane.
    #[command(subcommand)]
    User(User),
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
    /// Tokens of programs that use the web API; they are made on the page. Works beside a running plane.
    #[command(subcommand)]
    ApiToken(ApiToken),
}

#[derive(Subcommand)]
enum Backup {
    /// Write a backup of everything, sealed under the fleet's root key; or of the keys alone, sealed under a code that is printed
    /// once. Keep the key backup and its code: without them nothing opens the others.
    Create {
        #[command(flatten)]
        dir: Dir,
        /// Where to.
        file: PathBuf,
        /// Only what nobody could make anew: keys, members, settings. Daemons tell a plane the rest.
        #[arg(long)]
        keys: bool,
    },
    /// Open a backup and look whether all in it can be used; restore nothing. The code of a key backup is read from stdin.
    Verify {
        /// The backup.
        file: PathBuf,
        /// The plane whose root key opens a full backup.
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
    },
    /// Make a plane out of a backup: first of the key backup, then of a full one, if there is one. The code is read from stdin.
    Restore {
        #[command(flatten)]
        dir: Dir,
        /// The backup.
        file: PathBuf,
        /// Also in the place of a plane that is stopped; what is there is moved aside.
        #[arg(long)]
        over: bool,
    },
}

#[derive(Subcommand)]
enum User {
    /// Print all: name, role, scope.
    List {
        #[command(flatten)]
        dir: Dir,
    },
    /// Add one; prints a password that was made for it.
    Add {
        #[command(flatten)]
        dir: Dir,
        /// Its name.
        name: String,
        /// How much it may: viewer, operator or admin.
        #[arg(long)]
        role: Rank,
        /// Which daemons it sees, as labels and names: site=berlin; all by default.
        #[arg(long, value_name = "SELECTOR", allow_hyphen_values = true)]
        scope: Option<String>,
        /// Take the password from the first line of stdin instead.
        #[arg(long)]
        stdin: bool,
    },
    /// Give one another password, and end its sessions; prints a password that was made for it.
    Password {
        #[command(flatten)]
        dir: Dir,
        /// Its name.
        name: String,
        /// Take the password from the first line of stdin instead.
        #[arg(long)]
        stdin: bool,
    },
    /// Remove one, and end its sessions.
    Remove {
        #[command(flatten)]
        dir: Dir,
        /// Its name.
        name: String,
    },
    /// Give one another role or scope; it holds at once, and the password stays.
    Change {
        #[command(flatten)]
        dir: Dir,
        /// Its name.
        name: String,
        /// How much it may: viewer, operator or admin.
        #[arg(long)]
        role: Option<Rank>,
        /// Which daemons it sees, as labels and names: site=berlin; '' for all.
        #[arg(long, value_name = "SELECTOR", allow_hyphen_values = true)]
        scope: Option<String>,
    },
}

#[derive(Subcommand)]
enum ApiToken {
    /// Print all that can still be used: id, name, role, scope, who made it, how long it still works.
    List {
        #[command(flatten)]
        dir: Dir,
    },
    /// End one at once.
    Revoke {
        #[command(flatten)]
        dir: Dir,
        /// Its id or name, as in the list.
        token: String,
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
        Command::User(what) => user(what),
        Command::ApiToken(what) => api_token(what),
        Command::Backup(what) => backup_command(what),
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
                        ttl_s: ttl,
                        labels: Default::default(),
                    }
                )
                .map_err(told)?
            );
            Ok(())
        }
    }
}

/// The recovery code of a key backup; nothing for others.
fn code(file: &std::path::Path) -> Result<Option<String>, BackupError> {
    if backup::kind_of(file)? != Kind::Keys {
        return Ok(None);
    }
    eprintln!("the recovery code that was printed when it was made:");
    let mut line = String::new();
    let _read = std::io::stdin().read_line(&mut line);
    Ok(Some(line))
}

fn backup_command(what: Backup) -> Result<(), Failure> {
    let summed = |summary: Summary| {
        for (name, bytes) in &summary.files {
            println!("{name}\t{bytes}");
        }
        eprintln!(
            "a {} of fleet {} with {} files",
            summary.kind.word(),
            summary.fleet,
            summary.files.len()
        );
    };
    let done = match what {
        Backup::Create { dir, file, keys } => {
            let kind = if keys { Kind::Keys } else { Kind::Full };
            backup::create(&dir.dir, kind, &file).map(|made| {
                for what in made.left_out {
                    eprintln!("not in it: {what}");
                }
                if let Some(code) = made.code {
                    println!("{code}");
                    eprintln!(
                        "Write this recovery code down, and keep it away from {}: it is shown once.",
                        file.display()
                    );
                }
            })
        }
        Backup::Verify { file, dir } => code(&file).and_then(|code| {
            let here = PathBuf::new();
            let opener = match &code {
                Some(code) => Opener::Code(code),
                None => Opener::Dir(dir.as_deref().unwrap_or(&here)),
            };
            backup::verify(&file, opener).map(summed)
        }),
        Backup::Restore { dir, file, over } => code(&file).and_then(|code| {
            let opener = match &code {
                Some(code) => Opener::Code(code),
                None => Opener::Dir(&dir.dir),
            };
            backup::restore(&file, opener, &dir.dir, over).map(summed)
        }),
    };
    done.map_err(|error| match error {
        BackupError::Home(error) => error.into(),
        BackupError::Wish(message) => Failure { code: WRONG, message },
        error => failure(FAILED)(&error),
    })
}

fn user(what: User) -> Result<(), Failure> {
    let from = |stdin| if stdin { Secret::Stdin } else { Secret::Fresh };
    let show = |made: Option<String>| {
        if let Some(password) = made {
            println!("{password}");
            eprintln!("This password is shown once; it can be changed on the page.");
        }
    };
    let done = match what {
        User::List { dir } => people::list(&dir.dir).map(|users| {
            for user in &users {
                println!("{}", people::line(user));
            }
        }),
        User::Add {
            dir,
            name,
            role,
            scope,
            stdin,
        } => people::add(&dir.dir, &name, role, scope, from(stdin)).map(show),
        User::Password { dir, name, stdin } => people::change_password(&dir.dir, &name, from(stdin)).map(show),
        User::Remove { dir, name } => people::remove(&dir.dir, &name),
        User::Change { dir, name, role, scope } => people::change(&dir.dir, &name, role, scope.as_deref()),
    };
    done.map_err(of_people)
}

fn api_token(what: ApiToken) -> Result<(), Failure> {
    let done = match what {
        ApiToken::List { dir } => people::api_tokens(&dir.dir).map(|lines| {
            for line in &lines {
                println!("{line}");
            }
        }),
        ApiToken::Revoke { dir, token } => people::end_api_token(&dir.dir, &token),
    };
    done.map_err(of_people)
}

fn of_people(error: PeopleError) -> Failure {
    match error {
        PeopleError::Login(error) => told(error),
        PeopleError::Wish(message) => Failure { code: WRONG, message },
        error => failure(FAILED)(&error),
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
