//! The command line: what can be asked of `myceliald`, and what comes back as an exit code.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use bus_link::{
    enrol::{EnrolError, client_name, enrol_showing},
    home::{Home, HomeError, Membership},
    place::Known,
};
use bus_schema::member::{Invitation, Role, is_name};
use clap::{Parser, Subcommand};
use flow::{Backoff, Registry};
use spool::Budget;
use tokio::sync::watch;
use zeroize::Zeroizing;

use crate::{
    agent::{Agent, AgentError, Setup},
    assemble::base_dir,
    buffers::{self, SpoolArguments},
    config::Config,
    letters::{
        Letters,
        offline::{self, Dlq, OfflineError},
    },
    logging::{self, LogControl},
    reference, resources,
    secrets::Secrets,
    standalone, trial,
};

/// Something went wrong while running.
pub const EXIT_FAILED: u8 = 1;
/// The command line, the configuration or a workflow is wrong.
pub const EXIT_USAGE: u8 = 2;
/// Enrolment did not work.
pub const EXIT_ENROL: u8 = 3;
/// A buffer is damaged.
const EXIT_DAMAGED: u8 = 4;

/// Where the settings are when nothing else is said.
const CONFIG_PATH: &str = "/etc/mycelial/config.toml";
/// How long enrolment waits for the plane unless told, in seconds.
const ENROL_WAIT_S: u64 = 60;
/// The same where a person has to approve it.
const APPROVAL_WAIT_S: u64 = 24 * 3_600;

const EXAMPLES: &str = "\
Examples:
  myceliald enrol myc1…                    become a member of a fleet, once
  myceliald start                          run what the plane says
  myceliald run workflow.toml              run one workflow here, without any plane or bus
  myceliald test workflow.toml             run the tests it keeps
  myceliald check workflow.toml            can its sources and destinations be reached from here?
  myceliald spool list                     what is buffered, while the daemon is stopped
";

const EXITS: &str = "\
Exit codes: 0 done or stopped, 1 failed while running, 2 wrong command line, settings, workflow or enrolment string,
3 not a member yet, or enrolment refused or unanswered, 4 a buffer is damaged.
Signals: SIGTERM and Ctrl-C drain and stop; SIGHUP reads the configuration again.";

/// Runs workflows next to the data.
#[derive(Debug, Parser)]
#[command(name = "myceliald", version, before_help = EXAMPLES, after_help = EXITS)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// Settings file.
    #[arg(long, global = true, env = "MYCELIAL_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Data directory, instead of the one in the settings.
    #[arg(long, global = true, env = "MYCELIAL_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run as a member of the fleet.
    Start {
        /// Enrol with this string first, if this daemon is not a member yet.
        #[arg(long, env = "MYCELIAL_ENROL", value_name = "STRING", hide_env_values = true)]
        enrol: Option<String>,
        /// How long to wait for the plane when enrolling, in seconds [default: 60; a day where it has to be approved].
        #[arg(long, value_name = "S")]
        wait: Option<u64>,
    },
    /// Become a member of a fleet with the string from `mycelial token create`, or wait for approval with the one from
    /// `mycelial enrol open`.
    Enrol {
        /// The enrolment string.
        #[arg(value_name = "STRING")]
        string: String,
        /// The daemon's name; the settings' or the host's by default.
        #[arg(long)]
        name: Option<String>,
        /// How long to wait for the plane, in seconds [default: 60; a day where it has to be approved].
        #[arg(long, value_name = "S")]
        wait: Option<u64>,
    },
    /// Run one workflow on this machine, without plane or bus, until its sources end or Ctrl-C.
    Run {
        /// The workflow.
        #[arg(value_name = "FILE")]
        workflow: PathBuf,
        /// Where positions and buffers are kept between runs; beside the workflow by default.
        #[arg(long, value_name = "DIR")]
        state: Option<PathBuf>,
    },
    /// Run the tests that workflow files keep (`[tests.NAME]`), here and at once; nothing is read or written.
    Test {
        /// The workflows.
        #[arg(required = true, value_name = "FILE")]
        workflows: Vec<PathBuf>,
    },
    /// Show the components this daemon has, or one of them with its settings and an example.
    Components {
        /// Its type name.
        name: Option<String>,
        /// Its settings as JSON Schema, for programs.
        #[arg(long, requires = "name")]
        schema: bool,
    },
    /// Look at the buffers of a stopped daemon, repair them, write out what they hold.
    Spool(SpoolArguments),
    /// Look after dead letters in the data directory, without a bus. Of `myceliald run` that is the state directory.
    #[command(subcommand)]
    Dlq(Dlq),
    /// Read the settings and say what is wrong with them; or, with a workflow's file, check its sources and destinations from
    /// here: what each connects to is reached, and no data is touched.
    Check {
        /// The workflow.
        #[arg(value_name = "FILE")]
        workflow: Option<PathBuf>,
    },
}

/// A failure with its exit code.
struct Failure {
    code: u8,
    message: String,
}

impl Failure {
    fn new(code: u8, message: impl ToString) -> Self {
        Self {
            code,
            message: message.to_string(),
        }
    }
}

/// Everything this daemon can run.
pub fn registry() -> Arc<Registry> {
    Arc::new(Registry::new(
        connectors::components().into_iter().chain(transforms::components()),
    ))
}

/// Uniform random numbers; only for jitter.
pub fn random() -> u64 {
    getrandom::u64().unwrap_or(0)
}

/// Does what the command line says.
pub async fn run(arguments: Arguments) -> ExitCode {
    match dispatch(arguments).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("myceliald: {}", failure.message);
            ExitCode::from(failure.code)
        }
    }
}

async fn dispatch(arguments: Arguments) -> Result<(), Failure> {
    let Arguments {
        command,
        config: path,
        data_dir,
    } = arguments;
    match command {
        Command::Components { name, schema } => return components(name.as_deref(), schema),
        Command::Spool(arguments) => {
            let config = settings(path.as_deref(), data_dir)?;
            return spool_command(arguments, &config).await;
        }
        Command::Test { workflows } => {
            let runtime = tokio::runtime::Handle::current();
            let tested =
                tokio::task::spawn_blocking(move || trial::local::test(&workflows, &registry(), &runtime)).await;
            let tested = tested.map_err(|error| Failure::new(EXIT_FAILED, error))?;
            return tested.map_err(|failed| Failure::new(EXIT_FAILED, failed));
        }
        Command::Check {
            workflow: Some(workflow),
        } => {
            return match trial::local::check(&workflow, &registry()).await {
                Ok(true) => Ok(()),
                Ok(false) => Err(Failure::new(EXIT_FAILED, "not everything can be reached: see above")),
                Err(wrong) => Err(Failure::new(EXIT_USAGE, wrong)),
            };
        }
        Command::Run { workflow, state } => {
            let config = settings(path.as_deref(), data_dir)?;
            logging::start(&config.log).map_err(|error| Failure::new(EXIT_USAGE, error))?;
            let stop = stop_signal()?;
            let room = config.spool.room();
            return standalone::run(&workflow, state, registry(), room, config.dead_letters.quota.0, stop)
                .await
                .map_err(|error| Failure::new(error.exit_code(), error));
        }
        _ => {}
    }
    let config = settings(path.as_deref(), data_dir.clone())?;
    match command {
        Command::Enrol { string, name, wait } => {
            logging::start(&config.log).map_err(|error| Failure::new(EXIT_USAGE, error))?;
            let home = open_home(&config)?;
            let membership = become_member(&home, &config, &string, name, wait).await?;
            welcome(&membership, &config)
        }
        Command::Dlq(what) => {
            if !config.data_dir.is_dir() {
                let message = format!(
                    "{} is no directory\n  hint: say where the letters are with --data-dir DIR",
                    config.data_dir.display()
                );
                return Err(Failure::new(EXIT_USAGE, message));
            }
            let letters = Letters::new(
                &config.data_dir,
                config.dead_letters.quota.0,
                0,
                std::time::Instant::now(),
            );
            offline::run(&letters, what).map_err(|error| {
                let code = if matches!(error, OfflineError::Usage(_)) {
                    EXIT_USAGE
                } else {
                    EXIT_FAILED
                };
                Failure::new(code, error)
            })
        }
        Command::Start { enrol, wait } => {
            let enrol = enrol.map(|string| (string, wait));
            let log = logging::start(&config.log).map_err(|error| Failure::new(EXIT_USAGE, error))?;
            serve(config, path, data_dir, enrol, &log).await
        }
        _ => {
            println!("the settings are good");
            Ok(())
        }
    }
}

async fn spool_command(arguments: SpoolArguments, config: &Config) -> Result<(), Failure> {
    let dir = config.data_dir.clone();
    let done = tokio::task::spawn_blocking(move || buffers::run(&arguments, &dir)).await;
    match done.map_err(|error| Failure::new(EXIT_FAILED, error))? {
        Ok(true) => Ok(()),
        Ok(false) => Err(Failure::new(
            EXIT_DAMAGED,
            "not everything is in order: see above\n  hint: myceliald spool repair",
        )),
        Err(error) if error.is_usage() => Err(Failure::new(EXIT_USAGE, error)),
        Err(error) => Err(Failure::new(EXIT_FAILED, error)),
    }
}

/// The settings: those named, else those at the usual place if there are any, else defaults.
fn settings(path: Option<&Path>, data_dir: Option<PathBuf>) -> Result<Config, Failure> {
    let usual = Path::new(CONFIG_PATH);
    let mut config = match path {
        Some(path) => Config::read(path).map_err(|error| Failure::new(EXIT_USAGE, error))?,
        None if usual.exists() => Config::read(usual).map_err(|error| Failure::new(EXIT_USAGE, error))?,
        None => Config::default(),
    };
    if let Some(dir) = data_dir {
        config.data_dir = dir;
    }
    Ok(config)
}

fn open_home(config: &Config) -> Result<Arc<Home>, Failure> {
    Home::open(&config.data_dir)
        .map(Arc::new)
        .map_err(|error| Failure::new(EXIT_FAILED, error))
}

async fn become_member(
    home: &Home,
    config: &Config,
    string: &str,
    name: Option<String>,
    wait: Option<u64>,
) -> Result<Membership, Failure> {
    let invitation = Invitation::decode(string).map_err(|error| Failure::new(EXIT_USAGE, error))?;
    if invitation.role != Role::Daemon {
        let message = format!(
            "this string enrols an {}, not a daemon\n  hint: make one for a daemon with: mycelial token create",
            invitation.role
        );
        return Err(Failure::new(EXIT_USAGE, message));
    }
    let failed = |error: &dyn std::fmt::Display| Failure::new(EXIT_FAILED, error);
    if let Some(member) = home.membership().map_err(|error| failed(&error))? {
        let message = format!(
            "this daemon is a member of fleet {} already\n  \
             hint: to enrol it anew, choose another --data-dir or remove {}",
            member.fleet,
            home.dir().display()
        );
        return Err(Failure::new(EXIT_ENROL, message));
    }
    let name = name
        .or_else(|| config.name.clone())
        .unwrap_or_else(resources::name_from_host);
    if !is_name(&name) {
        let hint = "use 1 to 32 of a-z, 0-9, '_' and '-', starting with a letter or digit";
        return Err(Failure::new(
            EXIT_USAGE,
            format!("'{name}' cannot be a daemon's name: {hint}"),
        ));
    }
    let identity = home.identity().map_err(|error| failed(&error))?;
    let client = client_name(&invitation, &identity);
    let place = config.bus.resolve(&Known::from(&invitation), &client);
    let place = place.map_err(|error| Failure::new(EXIT_USAGE, error))?;
    let host = resources::host_facts();
    let usual = if invitation.is_open() {
        APPROVAL_WAIT_S
    } else {
        ENROL_WAIT_S
    };
    let wait = Duration::from_secs(wait.unwrap_or(usual));
    let show = |code: &str| {
        tracing::info!(code, "waiting for approval");
        eprintln!("waiting for approval; this daemon's code is {code}");
        eprintln!("where mycelial enrol pending shows the same: mycelial enrol approve {code}");
    };
    let membership = enrol_showing(&invitation, place, &identity, &name, host, wait, show)
        .await
        .map_err(|error| {
            let code = if matches!(error, EnrolError::Ask(_)) {
                EXIT_FAILED
            } else {
                EXIT_ENROL
            };
            Failure::new(code, error)
        })?;
    home.save_membership(&membership).map_err(|error| failed(&error))?;
    Ok(membership)
}

fn welcome(membership: &Membership, config: &Config) -> Result<(), Failure> {
    let me = membership
        .certificate
        .open(&membership.root)
        .map_err(|error| Failure::new(EXIT_ENROL, error))?;
    eprintln!("enrolled as '{}' ({}) in fleet {}", me.name, me.node, me.fleet);
    eprintln!("next: myceliald start --data-dir {}", config.data_dir.display());
    Ok(())
}

/// A daemon that is a member needs no enrolment string any more, but one of another fleet is a mistake. So are the keys of
/// an operator or a plane.
fn is_the_same_fleet(membership: &Membership, string: Option<&str>, config: &Config) -> Result<(), Failure> {
    let dir = config.data_dir.display();
    let me = membership.certificate.open(&membership.root);
    let role = me.map_or(Role::Daemon, |me| me.role);
    if role != Role::Daemon {
        let message = format!("{dir} belongs to the fleet's {role}\n  hint: choose another --data-dir");
        return Err(Failure::new(EXIT_USAGE, message));
    }
    let other = string.and_then(|string| Invitation::decode(string).ok());
    match other.map(|invitation| invitation.fleet()) {
        Some(fleet) if fleet != membership.fleet => {
            let message = format!(
                "the enrolment string is of fleet {fleet}, but this daemon is a member of fleet {}\n  \
                 hint: leave the string out, or enrol anew in another --data-dir",
                membership.fleet
            );
            Err(Failure::new(EXIT_ENROL, message))
        }
        _ => Ok(()),
    }
}

/// Runs as a member; starts over with new settings on SIGHUP.
async fn serve(
    mut config: Config,
    path: Option<PathBuf>,
    data_dir: Option<PathBuf>,
    enrol: Option<(String, Option<u64>)>,
    log: &LogControl,
) -> Result<(), Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure::new(EXIT_FAILED, error);
    let mut stop = stop_signal()?;
    let opened = once_the_disk_allows(
        &mut stop,
        async || {
            let home = Home::open(&config.data_dir)?;
            home.finish_rotation()?;
            Ok(home)
        },
        HomeError::is_of_the_disk,
    )
    .await;
    let Some(home) = opened.map_err(|error| failed(&error))?.map(Arc::new) else {
        return Ok(());
    };
    let membership = match (home.membership().map_err(|error| failed(&error))?, enrol) {
        (Some(membership), enrol) => {
            is_the_same_fleet(&membership, enrol.as_ref().map(|(string, _)| string.as_str()), &config)?;
            membership
        }
        (None, Some((string, wait))) => become_member(&home, &config, &string, None, wait).await?,
        (None, None) => {
            let message = format!(
                "{} holds no member of a fleet yet\n  \
                 hint: myceliald enrol myc1…, with the string from: mycelial token create",
                config.data_dir.display()
            );
            return Err(Failure::new(EXIT_ENROL, message));
        }
    };
    let mut hangup = Hangup::new()?;
    let mut membership = Some(membership);
    let budget = Budget::new(config.spool.room());
    loop {
        let member = match membership.take() {
            Some(member) => member,
            None => home
                .membership()
                .map_err(|error| failed(&error))?
                .ok_or_else(|| failed(&"membership is gone"))?,
        };
        let known = Known::from(&member);
        let files = base_dir(home.dir());
        std::fs::create_dir_all(&files).map_err(|error| failed(&error))?;
        let secrets = Arc::new(Secrets::new(Arc::clone(&home)));
        let store = Arc::clone(&secrets);
        flow::secrets::look_up_in(Box::new(move |name| {
            let found = store.fetch(name).map_err(|error| error.to_string())?;
            Ok(found.map(|text| Zeroizing::new(text.expose().to_string())))
        }));
        let start = async || {
            Agent::start(Setup {
                home: Arc::clone(&home),
                membership: member.clone(),
                bus: config.bus.clone(),
                registry: registry(),
                secrets: Arc::clone(&secrets),
                budget: Arc::clone(&budget),
                base_dir: files.clone(),
                letters_bytes_max: config.dead_letters.quota.0,
                custom_code: Arc::new(config.custom_code.clone().into()),
                tap_redact: config.tap_redact(),
                log: log.clone(),
                log_level: config.log.level.clone(),
                random,
            })
            .await
        };
        let is_ill = |error: &AgentError| matches!(error, AgentError::Home(error) if error.is_of_the_disk());
        let started = once_the_disk_allows(&mut stop, start, is_ill).await;
        let Some((mut agent, ears)) = started.map_err(|error| failed(&error))? else {
            return Ok(());
        };
        tracing::info!(version = env!("CARGO_PKG_VERSION"), data_dir = %config.data_dir.display(), "myceliald runs");
        let (end, ended) = watch::channel(false);
        let again = {
            let mut stop = stop.clone();
            let watch_signals = async {
                loop {
                    tokio::select! {
                        _ = stop.wait_for(|stop| *stop) => return false,
                        () = hangup.recv() => {
                            if let Some(changed) = reload(&config, path.as_deref(), data_dir.clone(), &known, log, &budget) {
                                config = changed;
                                return true;
                            }
                        }
                    }
                }
            };
            tokio::select! {
                again = watch_signals => again,
                starts_over = agent.run(ears, ended) => starts_over,
            }
        };
        end.send_replace(true);
        tracing::info!("draining");
        agent.shut_down(again).await;
        if !again {
            tracing::info!("stopped");
            return Ok(());
        }
    }
}

/// Runs what has to write before anything can work, again and again while it is the disk that refuses: where the daemon
/// runs, nobody may be there to start it once the disk is well. `None` when told to stop.
async fn once_the_disk_allows<T, E: std::fmt::Display>(
    stop: &mut watch::Receiver<bool>,
    run: impl AsyncFn() -> Result<T, E>,
    is_ill: impl Fn(&E) -> bool,
) -> Result<Option<T>, E> {
    let mut backoff = Backoff::default();
    loop {
        match run().await {
            Err(error) if is_ill(&error) => {
                let wait = backoff.next(random());
                tracing::error!(%error, wait_ms = wait.as_millis() as u64, "the disk does not allow a start; will try again");
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    _ = stop.wait_for(|stop| *stop) => return Ok(None),
                }
            }
            other => return other.map(Some),
        }
    }
}

/// Reads the settings again. `Some` when the daemon has to start over with them; a mistake keeps the old ones.
fn reload(
    old: &Config,
    path: Option<&Path>,
    data_dir: Option<PathBuf>,
    known: &Known,
    log: &LogControl,
    budget: &Budget,
) -> Option<Config> {
    let read = settings(path, data_dir).and_then(|new| {
        let wrong = |error: &dyn std::fmt::Display| Failure::new(EXIT_USAGE, error);
        // The files [bus] names are read now: later it is too late to go on with the old ones.
        new.bus.resolve(known, "check").map_err(|error| wrong(&error))?;
        log.change(&new.log).map_err(|error| wrong(&error))?;
        budget.set(new.spool.room());
        Ok(new)
    });
    let new = match read {
        Ok(new) => new,
        Err(failure) => {
            tracing::error!(
                error = failure.message,
                "the settings are wrong; going on with the old ones"
            );
            return None;
        }
    };
    if new.data_dir != old.data_dir {
        tracing::warn!(
            old = %old.data_dir.display(),
            new = %new.data_dir.display(),
            "a new data_dir takes effect only after a restart; going on with the old one"
        );
    }
    if new.name != old.name {
        tracing::warn!("a new name takes effect only when the daemon enrols; going on with the old one");
    }
    if new.dead_letters != old.dead_letters {
        tracing::warn!("[dead_letters] takes effect only after a restart; going on with the old one");
    }
    if new.bus == old.bus && new.custom_code == old.custom_code && new.tap_redact == old.tap_redact {
        tracing::info!("settings read again; the bus is the same");
        return None;
    }
    tracing::info!("settings read again; reconnecting");
    Some(Config {
        data_dir: old.data_dir.clone(),
        name: old.name.clone(),
        dead_letters: old.dead_letters,
        ..new
    })
}

fn components(name: Option<&str>, schema: bool) -> Result<(), Failure> {
    let registry = registry();
    let mut found = false;
    for component in registry.descriptors() {
        match name {
            None => println!("{:<12} {:<14} {}", component.role, component.name, component.summary),
            Some(name) if name == component.name && schema => println!("{}", component.schema),
            Some(name) if name == component.name => println!("{}", reference::section(&component)),
            Some(_) => continue,
        }
        found = true;
    }
    if found {
        return Ok(());
    }
    let wrong = name.unwrap_or_default();
    let hint = bus_link::settings::nearest(wrong, registry.names());
    let hint = hint.map_or_else(
        || "see: myceliald components".to_string(),
        |near| format!("did you mean '{near}'?"),
    );
    Err(Failure::new(
        EXIT_USAGE,
        format!("there is no component '{wrong}'; {hint}"),
    ))
}

/// Becomes true on SIGTERM or Ctrl-C.
fn stop_signal() -> Result<watch::Receiver<bool>, Failure> {
    let (stop, stopped) = watch::channel(false);
    #[cfg(unix)]
    let mut term = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
        .map_err(|error| Failure::new(EXIT_FAILED, error))?;
    tokio::spawn(async move {
        #[cfg(unix)]
        tokio::select! {
            _ = term.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
        #[cfg(not(unix))]
        let _ = tokio::signal::ctrl_c().await;
        stop.send_replace(true);
        // Keeps the channel open, so that nobody mistakes its end for a signal.
        std::future::pending::<()>().await;
    });
    Ok(stopped)
}

/// SIGHUP, where there is such a thing.
struct Hangup {
    #[cfg(unix)]
    signal: tokio::signal::unix::Signal,
}

impl Hangup {
    #[cfg(unix)]
    fn new() -> Result<Self, Failure> {
        let signal = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup());
        Ok(Self {
            signal: signal.map_err(|error| Failure::new(EXIT_FAILED, error))?,
        })
    }

    #[cfg(not(unix))]
    fn new() -> Result<Self, Failure> {
        Ok(Self {})
    }

    async fn recv(&mut self) {
        #[cfg(unix)]
        self.signal.recv().await;
        #[cfg(not(unix))]
        std::future::pending::<()>().await
    }
}
