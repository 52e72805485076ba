//! `mycelial-plane run`: puts the plane together, in the order in which things can fail, and takes it apart again.

use std::{
    io::Write as _,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use bus_link::{
    home::{Home, HomeError},
    secure::Secure,
    session::Session,
};
use bus_schema::{
    audit::AuditEvent,
    id::FleetId,
    member::{Role, Signed},
    redact::Redact,
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
    task::JoinHandle,
};
use tracing::{error, info, warn};

use crate::{
    clock::{Clock, unix_ms},
    commands::Commands,
    config::{Config, Public, STORE},
    disk::{Disk, Files, save_revoked},
    domain::{Change, Now, State, change::Signer, labels::Labels},
    http::{self, AuthError},
    init::{InitError, Wishes, init, is_made, note_public, root},
    invite::Wish,
    live::Live,
    log,
    login::{FIRST_TTL_S, link, note_http, token},
    notify::{self, Channels},
    observe::Observer,
    otlp,
    service::{self, Parts},
    store::{Store, history::History},
    web_operator::{self, Enrolment, Standing},
    web_tls::{self, Source},
};

/// What a fleet may say between two turns of the plane's task, in messages: a restart of the broker makes ten thousand
/// daemons speak within seconds, on a machine that may be busy.
const BURST: usize = 2048;
/// Set once the first start has said how to log in.
const GREETED: &str = "greeted";
/// What the audit's entry about members is called that the store still had, and the roster beside the keys has not.
const CATCH_UP: &str = "take out whom the roster beside the keys has revoked";

/// What `run` was told.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The plane's directory.
    pub dir: PathBuf,
    /// How to make the plane, if it is not there yet.
    pub wishes: Wishes,
    /// Log level, instead of the settings'.
    pub log_level: Option<String>,
}

/// Why the plane ended, with the exit code.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// See `--help`.
    pub code: u8,
    /// For people.
    pub message: String,
}

/// It failed while starting or running.
pub const FAILED: u8 = 1;
/// The command line or the settings are wrong, or the port is taken.
pub const WRONG: u8 = 2;
/// Another plane uses the directory.
pub const IN_USE: u8 = 3;

/// A failure out of any error.
pub fn failure(code: u8) -> impl Fn(&dyn std::fmt::Display) -> Failure {
    move |error| Failure {
        code,
        message: error.to_string(),
    }
}

impl From<HomeError> for Failure {
    fn from(error: HomeError) -> Self {
        let code = if matches!(error, HomeError::InUse(_)) {
            IN_USE
        } else {
            FAILED
        };
        Self {
            code,
            message: error.to_string(),
        }
    }
}

impl From<InitError> for Failure {
    fn from(error: InitError) -> Self {
        match error {
            InitError::Home(error) => error.into(),
            InitError::Wish(_) | InitError::Exists { .. } => Self {
                code: WRONG,
                message: error.to_string(),
            },
            error => Self {
                code: FAILED,
                message: error.to_string(),
            },
        }
    }
}

/// Runs until SIGTERM or SIGINT.
pub async fn run(options: Options) -> Result<(), Failure> {
    let wrong = failure(WRONG);
    let dir = options.dir.as_path();
    if !is_made(dir) {
        init(dir, &options.wishes)?;
    }
    let config = Config::read(dir).map_err(|error| wrong(&error))?;
    options.wishes.compare(dir, &config.bus.addresses)?;
    log::start(&config.log, options.log_level.as_deref()).map_err(|error| wrong(&error))?;
    let mut running = Running::start(dir, &config, options.wishes.http).await?;
    say(&running.greeting);
    info!(fleet = %running.fleet, http = running.http, "the plane is running");
    let ended = tokio::select! {
        name = terminated() => {
            info!(signal = name, "stopping");
            Ok(())
        }
        _ = &mut running.service => {
            Err(Failure { code: FAILED, message: "the service ended by itself; see the log".to_string() })
        }
    };
    running.stop().await;
    info!("stopped");
    ended
}

/// A plane that runs.
pub struct Running {
    /// What people have to be told.
    pub greeting: String,
    /// Where the web page is.
    pub http: String,
    /// The fleet.
    pub fleet: FleetId,
    service: JoinHandle<()>,
    notifier: JoinHandle<()>,
    otlp: Option<JoinHandle<()>>,
    operator: Option<JoinHandle<()>>,
    server: JoinHandle<()>,
    session: Arc<Session>,
    disk: Disk,
    disk_thread: std::thread::JoinHandle<()>,
    stop: watch::Sender<bool>,
}

impl Running {
    /// Starts a plane that is made. `http` wins over the settings'.
    pub async fn start(dir: &Path, config: &Config, http: Option<SocketAddr>) -> Result<Self, Failure> {
        let (failed, wrong) = (failure(FAILED), failure(WRONG));
        let home = Home::open(dir)?;
        let mut membership = home.membership()?.ok_or_else(|| {
            let message = format!(
                "{} has settings but no membership; restore it from a backup",
                dir.display()
            );
            Failure { code: FAILED, message }
        })?;
        let signer = Signer {
            root: root(&home)?,
            plane: home.identity()?,
        };
        let mut store = Store::open(&dir.join(STORE)).map_err(|error| failed(&error))?;
        let mut state = remember(&mut store, &signer, &membership).map_err(|error| failed(&error))?;
        state.plain_topics = config.alerts.plain_topics().map(str::to_string).collect();
        let clock = Clock::start();
        let own_operator = match config.web.operator {
            true => web_operator::enrol(dir, &mut store, &mut state, &signer, clock.now())?,
            false => Enrolment::Off,
        };
        if membership
            .roster
            .open(&membership.root)
            .map_err(|error| failed(&error))?
            .version
            < state.members.version()
        {
            // It ended before the copy beside the keys was made.
            membership.roster = Signed::new(&state.members.roster(), &signer.root);
            home.save_membership(&membership)?;
        }
        // The store may be new while the keys are not: it was lost.
        let public = Public {
            root: signer.root.public().sign,
            plane: membership.plane,
            plane_seal: signer.plane.public().seal,
        };
        note_public(&store, &public).map_err(|error| failed(&error))?;
        let inviter = config.inviter(&public).map_err(|error| wrong(&error))?;
        let bus = config
            .bus_config(dir, &public.plane, &inviter)
            .map_err(|error| wrong(&error))?
            .with_burst(BURST);

        let configured = || {
            config
                .http
                .parse()
                .map_err(|_| wrong(&format_args!("http: '{}' is no address", config.http)))
        };
        let address = http.map_or_else(configured, Ok)?;
        let listener = http::bind(address).await.map_err(|error| wrong(&error))?;
        let address = listener.local_addr().map_err(|error| failed(&error))?;
        let http = reachable(address);
        note_http(&store, &http).map_err(|error| failed(&error))?;
        let tls = config.web.has_tls().then(|| {
            let names = http::names(address, &config.http_names);
            let source = match (&config.web.tls_cert, &config.web.tls_key) {
                (Some(cert), Some(key)) => Source::Files {
                    cert: cert.clone(),
                    key: key.clone(),
                },
                _ => Source::Own {
                    dir: dir.to_path_buf(),
                    names,
                },
            };
            web_tls::load(&source).map_err(|error| wrong(&error))
        });
        let tls = tls.transpose()?;
        let mut greeting = greet(&mut store, config, dir, &http).map_err(|error| failed(&error))?;
        if let Some(tls) = &tls {
            let fingerprint = &tls.fingerprint;
            greeting.push_str(&format!(
                "The page's certificate has the SHA-256 fingerprint\n  {fingerprint}\n"
            ));
        }

        let epoch = home.next_epoch()?;
        let secure =
            Secure::new(signer.plane.clone(), &membership, epoch, home.seen()).map_err(|error| failed(&error))?;
        let (group, fleet) = (membership.group.clone(), membership.fleet);
        let (rules, alerts) = store.alerts().map_err(|error| failed(&error))?;
        let channels = Channels::new(&config.alerts, dir).map_err(|error| wrong(&error))?;
        let history = History::open(dir, config.metrics.history_bytes).map_err(|error| failed(&error))?;
        // Before it goes to the disk's thread.
        let known = membership.clone();
        let files = Files {
            store,
            history,
            home,
            membership,
        };
        let (disk, disk_thread) = Disk::start(files).map_err(|error| failed(&error))?;
        let (stop, stopping) = watch::channel(false);
        let subscriptions = service::subscriptions(&fleet, &public.plane);
        let (session, events) = Session::start(Arc::new(secure), bus, subscriptions);
        let (operator, operator_task) = match own_operator {
            Enrolment::Off => (Standing::Off, None),
            Enrolment::Revoked => (Standing::Revoked, None),
            Enrolment::Enrolled(enrolled) => {
                let bus = config.bus_config(dir, enrolled.node(), &inviter);
                let bus = bus.map_err(|error| wrong(&error))?;
                let redact = Redact::new(&config.web.redact).map_err(|error| wrong(&error))?;
                let (operator, task) = enrolled.connect(&known, bus, redact, Arc::clone(&session), stopping.clone())?;
                (Standing::On(operator), Some(task))
            }
        };
        let live = Live::default();
        let door = http::Door {
            address,
            names: &config.http_names,
            has_tls: tls.is_some(),
            proxies: &config.web.proxies,
            dir,
            oidc: config.web.oidc.as_ref(),
        };
        let auth = http::Auth::new(disk.clone(), &fleet, door).await;
        let auth = auth.map_err(|error| match error {
            AuthError::Config(error) => wrong(&error),
            error => failed(&error),
        })?;
        let revoked_file = config
            .broker
            .as_ref()
            .map(|broker| broker.secret_file.with_file_name("revoked"));
        if let Some(path) = &revoked_file {
            save_revoked(path, state.members.revoked()).map_err(|error| failed(&error))?;
        }
        let wake = Arc::new(tokio::sync::Notify::new());
        let about = http::About {
            door: inviter.open_invitation(),
            embedded: config.broker.is_some(),
            dir: dir.display().to_string(),
        };
        let parts = Parts {
            state,
            signer,
            group,
            inviter,
            http: http.clone(),
            clock,
            disk: disk.clone(),
            live: live.clone(),
            revoked_file,
            observer: Observer::new(rules, alerts, channels.names(), Arc::clone(&wake)),
        };
        let notifier = notify::start(
            Arc::new(channels),
            Arc::clone(&session),
            disk.clone(),
            wake,
            stopping.clone(),
        );
        let (handle, service) = service::start(parts, Arc::clone(&session), events, stopping.clone());
        let otlp = config.metrics.otlp.as_ref().map(|section| {
            let (handle, stopping) = (handle.clone(), stopping.clone());
            otlp::start(section, dir, handle, fleet, stopping)
        });
        let otlp = otlp.transpose().map_err(|error| wrong(&error))?;
        let metrics_token = config.metrics_token().map_err(|error| wrong(&error))?;
        let commands = Commands::new(Arc::clone(&session), disk.clone(), stopping.clone());
        let parts = http::Parts {
            service: handle,
            live,
            auth,
            commands,
            operator,
            about,
            metrics_token,
            tls: tls.map(|tls| tls.acceptor),
        };
        let server = http::serve(listener, parts, stopping);
        Ok(Self {
            greeting,
            http,
            fleet,
            service,
            notifier,
            otlp,
            operator: operator_task,
            server,
            session,
            disk,
            disk_thread,
            stop,
        })
    }

    /// Stores what was heard, says what is waiting to be said, and ends. Takes a few seconds at most.
    pub async fn stop(self) {
        self.stop.send_replace(true);
        if !self.service.is_finished() && self.service.await.is_err() {
            error!("the service did not end well");
        }
        if self.notifier.await.is_err() {
            error!("what tells of alerts did not end well");
        }
        if let Some(otlp) = self.otlp
            && otlp.await.is_err()
        {
            error!("what pushes metrics did not end well");
        }
        if let Some(operator) = self.operator
            && operator.await.is_err()
        {
            error!("the web operator did not end well");
        }
        self.session.close().await;
        http::finish(self.server).await;
        drop(self.disk);
        // All senders have ended by now, so the thread ends after the last job.
        let joined = tokio::task::spawn_blocking(move || self.disk_thread.join()).await;
        if !matches!(joined, Ok(Ok(()))) {
            error!("the disk thread did not end well");
        }
    }
}

/// Reads everything back, and takes from the roster beside the keys what the store has lost.
pub(crate) fn remember(
    store: &mut Store,
    signer: &Signer,
    membership: &bus_link::home::Membership,
) -> Result<State, Box<dyn std::error::Error>> {
    let loaded = store.load(&membership.root, &signer.plane.public().sign)?;
    let mut state = State::new(membership.fleet, membership.plane);
    for (name, number) in loaded.last_revisions {
        state.workflows.remember(&name, number);
    }
    // Effects of the past are of no interest.
    state.apply(loaded.changes, false, Now::default());
    for words in loaded.words {
        state.remember(words.node, words.status, words.streams, words.heard_unix_ms);
    }
    let roster = membership.roster.open(&membership.root)?;
    if loaded.roster.is_none() || roster.version > state.members.version() {
        let known = state.members.revoked();
        let missed = roster.revoked.iter().filter(|node| !known.contains(node));
        let missed: Vec<String> = missed.map(ToString::to_string).collect();
        let mut changes = state.members.adopt(&roster, &signer.root);
        let signed = membership.roster.clone();
        changes.push(Change::Roster { roster, signed });
        // The store could not be written when they were taken out, nor that an operator had done so.
        if loaded.roster.is_some() && !missed.is_empty() {
            let event = AuditEvent::new(unix_ms(), "plane", "directory", CATCH_UP, &missed.join(", "));
            changes.push(Change::Audit(event));
        }
        store.commit(&changes)?;
    }
    state.members.tell_all();
    Ok(state)
}

/// The address a browser on this machine can use.
fn reachable(address: SocketAddr) -> String {
    match address {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => format!("127.0.0.1:{}", v4.port()),
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => format!("[::1]:{}", v6.port()),
        address => address.to_string(),
    }
}

/// What people need to know at the first start, and where the page is at every start.
fn greet(store: &mut Store, config: &Config, dir: &Path, http: &str) -> Result<String, Box<dyn std::error::Error>> {
    let (dir, scheme) = (dir.display(), config.web.scheme());
    if store.setting(GREETED)?.is_some() {
        return Ok(format!(
            "web page: {scheme}://{http}/   (log in with a link from: mycelial-plane login --dir {dir})\n"
        ));
    }
    let link = link(store, scheme, http)?;
    let operator = token(
        store,
        config,
        Wish {
            role: Role::Operator,
            name: None,
            uses: 1,
            ttl_s: FIRST_TTL_S,
            labels: Labels::new(),
        },
        None,
    )?;
    store.set(GREETED, b"yes")?;
    let broker = match config.broker {
        Some(_) => {
            format!("\nThe embedded broker is a program of its own:\n\n  mycelial-broker --config {dir}/broker.toml\n")
        }
        None => String::new(),
    };
    Ok(format!(
        "This plane is new. There is no password: log in with these, each of which works once.\n\n\
         Web page (within 15 minutes; again with: mycelial-plane login --dir {dir}):\n\n  {link}\n\n\
         Command line (within 24 hours; again with: mycelial-plane token --dir {dir} --role operator):\n\n  \
         mycelial init {operator}\n{broker}\n"
    ))
}

fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    // Nobody may be reading; that is no reason to stop.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

async fn terminated() -> &'static str {
    let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) else {
        warn!("cannot listen for signals");
        return std::future::pending().await;
    };
    tokio::select! {
        _ = term.recv() => "SIGTERM",
        _ = int.recv() => "SIGINT",
    }
}
