//! The daemon as a member of its fleet: reports its status, takes plans and rosters, answers questions. Converges to the
//! highest plan it has seen, and to the cached one when nobody is there.

mod operators;
mod probation;
mod rotation;

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use bus_link::{
    essential,
    home::{Home, HomeError, Membership},
    place::{BusSection, Known, PlaceError},
    secure::Secure,
    session::{Incoming, Session, SessionEvent},
};
use bus_schema::{
    carried::{CARRIED_PER_MESSAGE, LettersKept},
    control::ControlCall,
    drift::Drifts,
    id::{NodeId, hash},
    letter::LetterCall,
    limits::{HEARTBEAT_MS, LEASE_MS},
    member::{DocumentError, Signed},
    message::{
        CatalogAsk, CatalogPage, Ping, PlanPut, Pong, RecallAsk, RecallPage, RosterPut, Status, StreamOpen,
        StreamReport, StreamReports, TapOpen, TapSample, TimeHint,
    },
    plan::{Descriptor, Plan},
    redact::Redact,
    rotation::{CertificateShow, RotateAnswer},
    secret::SecretCall,
    trial::TrialCall,
};
use connectors::CustomCode;
use converge::Refused;
use flow::Registry;
use probation::{GoneBack, OnProbation};
use rotation::{ROTATION_EVERY, Rotation};
use tokio::{
    sync::{Semaphore, mpsc, watch},
    task::JoinHandle,
};

use crate::{
    aside,
    assemble::{Workshop, unix_ms},
    board::Board,
    buffers::{BufferError, Finding},
    carried::Told,
    chores::{self, Chores},
    clocks::Clocks,
    control::Paused,
    letters::{Letters, ToldKept},
    logging::LogControl,
    marks::MarkFiles,
    permission, resources,
    secrets::Secrets,
    streams::{Road, Streams},
    supervisor::Supervisor,
    taps::Taps,
};

/// Stream accounts per message.
const REPORTS_PER_MESSAGE: usize = 200;
/// How often a plan on probation is looked at.
const PROBATION_EVERY: Duration = Duration::from_secs(5);
/// How often what has been seen is written down.
const SEEN_EVERY: Duration = Duration::from_secs(2);
/// After a change of state, how long others may join it in one status.
const STATUS_SOON: Duration = Duration::from_millis(200);
/// A lease that is over at once: this daemon stops in good order.
const GONE: u64 = 0;
/// Name of the cached plan in the member's directory.
const PLAN: &str = "plan";

/// The agent cannot start.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// See [`HomeError`].
    #[error(transparent)]
    Home(#[from] HomeError),
    /// The membership does not verify.
    #[error("the membership is damaged: {0}; enrol again")]
    Membership(#[from] DocumentError),
    /// See [`PlaceError`].
    #[error(transparent)]
    Place(#[from] PlaceError),
}

/// Why a plan was not taken.
#[derive(Debug, thiserror::Error)]
enum PlanError {
    #[error("the plane is not on the roster")]
    NoPlane,
    #[error(transparent)]
    Document(#[from] DocumentError),
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error("it could not be stored: {0}")]
    Store(#[from] HomeError),
}

/// What an agent is made from.
pub struct Setup {
    /// The member's files.
    pub home: Arc<Home>,
    /// From enrolment.
    pub membership: Membership,
    /// `[bus]`.
    pub bus: BusSection,
    /// What this daemon can run.
    pub registry: Arc<Registry>,
    /// The daemon's own secrets.
    pub secrets: Arc<Secrets>,
    /// Room for buffers.
    pub budget: Arc<spool::Budget>,
    /// Where relative paths in configs start.
    pub base_dir: PathBuf,
    /// Bytes of dead letters kept for one workflow.
    pub letters_bytes_max: u64,
    /// Which code of their own workflows may run.
    pub custom_code: Arc<CustomCode>,
    /// Columns whose values no tap shows.
    pub tap_redact: Redact,
    /// The log, and the level that the settings say.
    pub log: LogControl,
    /// See there.
    pub log_level: String,
    /// Uniform random numbers, for jitter.
    pub random: fn() -> u64,
}

/// The running daemon.
pub struct Agent {
    home: Arc<Home>,
    membership: Membership,
    secure: Arc<Secure>,
    session: Arc<Session>,
    data: Arc<Session>,
    streams: Arc<Streams>,
    supervisor: Supervisor,
    letters: Letters,
    secrets: Arc<Secrets>,
    board: Arc<Board>,
    taps: Arc<Taps>,
    /// One text is tried at a time.
    trying: Arc<Semaphore>,
    base_dir: PathBuf,
    custom_code: Arc<CustomCode>,
    clocks: Arc<Clocks>,
    registry: Arc<Registry>,
    /// Hash of the catalog.
    catalog: [u8; 32],
    plan: Option<Plan>,
    /// The same, signed.
    signed: Option<Signed<Plan>>,
    plan_error: String,
    on_probation: Option<OnProbation>,
    gone_back: Option<GoneBack>,
    chores: Chores,
    started: Instant,
    log: LogControl,
    log_level: String,
    /// When the level that the settings say holds again.
    log_back: Option<tokio::time::Instant>,
    /// A look at the buffers that somebody waits for.
    spool_look: Option<JoinHandle<Result<Vec<Finding>, BufferError>>>,
    rotation: Rotation,
    told: Told,
    told_letters: ToldKept,
    /// There was drift at the last report.
    told_drift: AtomicBool,
    /// Dead letters are being counted.
    is_counting: Arc<AtomicBool>,
    random: fn() -> u64,
}

/// What the agent hears besides its session.
pub struct Ears {
    events: mpsc::Receiver<SessionEvent>,
    samples: mpsc::Receiver<(NodeId, TapSample)>,
}

impl Agent {
    /// Counts this start, connects, and starts the cached plan.
    pub async fn start(setup: Setup) -> Result<(Self, Ears), AgentError> {
        let Setup {
            home,
            membership,
            bus,
            registry,
            secrets,
            budget,
            base_dir,
            letters_bytes_max,
            custom_code,
            tap_redact,
            log,
            log_level,
            random,
        } = setup;
        {
            let (dir, budget) = (home.dir().to_owned(), Arc::clone(&budget));
            // Before anything else takes the room. It is no reason not to start.
            let looked = move || {
                chores::keep_reserve(&dir);
                aside::count(&dir, &budget);
            };
            let _said = tokio::task::spawn_blocking(looked).await;
        }
        // What cannot do without the disk comes before anything is running.
        let checkpoints = Arc::new(MarkFiles::new(Arc::clone(&home))?);
        let epoch = home.next_epoch()?;
        let secure = Secure::new(home.identity()?, &membership, epoch, home.seen())?;
        let secure = Arc::new(secure.with_former(home.former_keys()?));
        let known = Known::from(&membership);
        let client = secure.node().to_string();
        let control = bus.resolve(&known, &format!("{client}-c"))?;
        let data = bus.resolve(&known, &format!("{client}-d"))?;
        let (session, events) = Session::start(Arc::clone(&secure), control, vec![Session::own_control(&secure)]);
        let (data, data_events) = Session::start(Arc::clone(&secure), data, Vec::new());
        let road = Road {
            control: Arc::clone(&session),
            data: Arc::clone(&data),
        };
        let clocks = Clocks::new(Some(Arc::clone(&home)), epoch);
        let streams = Streams::new(Arc::clone(&secure), Some(road), Arc::clone(&clocks));
        essential::spawn("streams", Arc::clone(&streams).listen(data_events));
        let (taps, samples) = Taps::new(tap_redact);
        let taps = Arc::new(taps);
        let board = Board::new(Arc::clone(&taps));
        let started = Instant::now();
        let components: Vec<Descriptor> = registry.descriptors().collect();
        let catalog = hash("mycelial catalog v1", &[&bus_schema::encode(&components)]);
        drop(components);
        // What made it is not needed again.
        resident::forget_code();
        let workshop = Workshop {
            registry: Arc::clone(&registry),
            home: Arc::clone(&home),
            secure: Arc::clone(&secure),
            streams: Arc::clone(&streams),
            budget: Arc::clone(&budget),
            base_dir: base_dir.clone(),
            started,
            custom_code: Arc::clone(&custom_code),
        };
        let files = base_dir;
        let letters = Letters::new(home.dir(), letters_bytes_max, epoch, started);
        let supervisor = Supervisor::new(workshop, Arc::clone(&board), checkpoints, letters.clone(), random);
        let mut agent = Self {
            chores: Chores::new(Arc::clone(&home), Arc::clone(&budget)),
            home,
            membership,
            secure,
            session,
            data,
            streams,
            supervisor,
            letters,
            secrets,
            board,
            taps,
            trying: Arc::new(Semaphore::new(1)),
            base_dir: files,
            custom_code,
            clocks,
            registry,
            catalog,
            plan: None,
            signed: None,
            plan_error: String::new(),
            on_probation: None,
            gone_back: None,
            started,
            log,
            log_level,
            log_back: None,
            spool_look: None,
            rotation: Rotation::default(),
            told: Told::default(),
            told_letters: ToldKept::default(),
            told_drift: AtomicBool::default(),
            is_counting: Arc::default(),
            random,
        };
        agent.resume_rotation()?;
        agent.resume().await;
        Ok((agent, Ears { events, samples }))
    }

    /// Runs the plan that was in force before the restart.
    async fn resume(&mut self) {
        self.supervisor.pause(Paused::load(&self.home)).await;
        let cached = match self.home.load_or_set_aside(PLAN) {
            Ok(cached) => cached.and_then(|bytes| bus_schema::decode::<Signed<Plan>>(&bytes)),
            Err(error) => {
                tracing::error!(%error, "the cached plan is lost; the plane will send it again");
                None
            }
        };
        match cached.as_ref().map(|signed| self.check(signed)) {
            Some(Ok(plan)) => {
                tracing::info!(
                    version = plan.version,
                    workflows = plan.workflows.len(),
                    "resuming the cached plan"
                );
                self.supervisor.converge(&plan.workflows).await;
                self.plan = Some(plan);
                self.signed = cached;
                self.resume_probation();
            }
            Some(Err(error)) => tracing::error!(%error, "the cached plan is not used; the plane will send it again"),
            None => tracing::info!("no plan yet: waiting for the plane"),
        }
    }

    fn plan_version(&self) -> u64 {
        self.plan.as_ref().map_or(0, |plan| plan.version)
    }

    fn check(&self, signed: &Signed<Plan>) -> Result<Plan, PlanError> {
        let plane = self.secure.plane().ok_or(PlanError::NoPlane)?;
        let plan = signed.open(&plane.keys.sign)?;
        converge::judge(&plan, self.secure.fleet(), self.secure.node(), self.plan_version())?;
        Ok(plan)
    }

    /// Serves until told to stop; `true` when it has to start over, with other keys.
    pub async fn run(&mut self, ears: Ears, mut stop: watch::Receiver<bool>) -> bool {
        let Ears {
            mut events,
            mut samples,
        } = ears;
        let mut seen = tokio::time::interval(SEEN_EVERY);
        let mut probation = tokio::time::interval(PROBATION_EVERY);
        let mut rotation = tokio::time::interval(ROTATION_EVERY);
        let mut next_status = tokio::time::Instant::now();
        let board = Arc::clone(&self.board);
        loop {
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return false,
                () = tokio::time::sleep_until(next_status) => {
                    self.report(LEASE_MS).await;
                    // A tenth of jitter keeps a thousand daemons apart.
                    let jitter = (self.random)() % (HEARTBEAT_MS / 10);
                    next_status = tokio::time::Instant::now() + Duration::from_millis(HEARTBEAT_MS - jitter);
                }
                () = board.changed() => {
                    next_status = next_status.min(tokio::time::Instant::now() + STATUS_SOON);
                }
                () = at(self.log_back) => self.log_level("", 0),
                _ = probation.tick(), if self.on_probation.is_some() => {
                    if self.look_at_probation().await {
                        next_status = tokio::time::Instant::now();
                    }
                }
                _ = rotation.tick(), if self.is_rotating() => self.step_rotation().await,
                _ = seen.tick() => self.chores.begin(|| self.secure.seen_changes()),
                Some((operator, sample)) = samples.recv() => {
                    let _ = self.session.send(&operator, &sample).await;
                }
                event = events.recv() => match event {
                    Some(event) => {
                        if self.happened(event).await {
                            next_status = tokio::time::Instant::now();
                        }
                        if self.rotation.starts_over {
                            return true;
                        }
                    }
                    None => return false,
                }
            }
        }
    }

    /// Stops workflows, says goodbye unless it comes back at once, disconnects.
    pub async fn shut_down(mut self, comes_back: bool) {
        self.supervisor.shut_down().await;
        self.chores.finish(|| self.secure.seen_changes()).await;
        self.report(if comes_back { LEASE_MS } else { GONE }).await;
        let closing = async { tokio::join!(self.session.close(), self.data.close()) };
        if tokio::time::timeout(Duration::from_secs(3), closing).await.is_err() {
            tracing::warn!("the broker did not let go in time");
        }
    }

    /// Handles an event; `true` when the plane should hear of it at once.
    async fn happened(&mut self, event: SessionEvent) -> bool {
        match event {
            SessionEvent::Up { address } => {
                tracing::info!(address, "connected");
                self.rotation.show_soon();
                true
            }
            SessionEvent::Down { cause } => {
                tracing::warn!(cause, "not connected; workflows go on and buffer");
                false
            }
            SessionEvent::Refused { subject, cause } => {
                tracing::warn!(%subject, cause, "a message was refused");
                false
            }
            SessionEvent::Message(message) => self.message(message).await,
            SessionEvent::Candidate { .. } | SessionEvent::Stream { .. } | SessionEvent::Stale(_) => false,
        }
    }

    async fn message(&mut self, message: Incoming) -> bool {
        if !permission::is_heard(message.kind, message.sender.role) {
            let (from, role) = (&message.sender.name, message.sender.role);
            tracing::warn!(from, %role, kind = message.kind, "ignored a message that is not its sender's to send");
            return false;
        }
        if message.is::<TrialCall>() {
            self.trial(message).await;
            return false;
        }
        let handled = if message.is::<StreamOpen>() {
            message.read::<StreamOpen>().map(|open| {
                self.streams.opened(&message.sender.node, &open);
                false
            })
        } else if message.is::<PlanPut>() {
            match message.read::<PlanPut>() {
                Ok(put) => Ok(self.given_plan(&message, put).await),
                Err(error) => Err(error),
            }
        } else if message.is::<RosterPut>() {
            match message.read::<RosterPut>() {
                Ok(put) => Ok(self.roster(put).await),
                Err(error) => Err(error),
            }
        } else if message.is::<TimeHint>() {
            message.read::<TimeHint>().map(|hint| {
                self.clocks.hear(&hint, unix_ms());
                false
            })
        } else if message.is::<CatalogAsk>() {
            let page = CatalogPage {
                catalog: self.catalog,
                components: self.registry.descriptors().collect(),
            };
            if let Err(error) = self.session.send(&message.sender.node, &page).await {
                tracing::debug!(%error, "the catalog could not be sent");
            }
            Ok(false)
        } else if message.is::<RecallAsk>() {
            let ask = message.read::<RecallAsk>();
            if ask.is_ok() {
                self.recall(&message).await;
            }
            ask.map(|_| false)
        } else if message.is::<TapOpen>() {
            let wish = message.read::<TapOpen>();
            if let Ok(wish) = &wish {
                self.tap(&message, wish).await;
            }
            wish.map(|_| false)
        } else if message.is::<LetterCall>() {
            let call = message.read::<LetterCall>();
            if let Ok(call) = &call {
                self.letters(&message, call).await;
            }
            call.map(|_| false)
        } else if message.is::<SecretCall>() {
            match message.read::<SecretCall>() {
                Ok(call) => Ok(self.secrets(&message, call).await),
                Err(error) => Err(error),
            }
        } else if message.is::<ControlCall>() {
            match message.read::<ControlCall>() {
                Ok(call) => Ok(self.control(&message, call).await),
                Err(error) => Err(error),
            }
        } else if message.is::<RotateAnswer>() {
            match message.read::<RotateAnswer>() {
                Ok(answer) => Ok(self.rotated(answer).await),
                Err(error) => Err(error),
            }
        } else if message.is::<CertificateShow>() {
            message.read::<CertificateShow>().map(|show| {
                match self.secure.admit_own(&message.sender.node, &show.certificate) {
                    Ok(true) => tracing::info!(from = message.sender.name, "it has new keys"),
                    Ok(false) => {}
                    Err(error) => tracing::warn!(from = message.sender.name, %error, "a certificate was refused"),
                }
                false
            })
        } else if message.is::<Ping>() {
            let ping = message.read::<Ping>();
            if message.sender.node == *self.secure.node() {
                self.came_back();
            } else if let Ok(ping) = &ping {
                self.pong(&message, ping.nonce).await;
            }
            ping.map(|_| false)
        } else {
            Err(bus_schema::message::BodyError::Unknown {
                kind: message.kind,
                ver: message.ver,
            })
        };
        let changed = handled.unwrap_or_else(|error| {
            tracing::warn!(from = message.sender.name, %error, "a message was not understood");
            false
        });
        if changed {
            self.converge().await;
        }
        changed
    }

    /// Takes a plan if it is one for this daemon and newer. Stored before it is acted on.
    async fn offered(&mut self, put: PlanPut) -> bool {
        let taken = match self.check(&put.plan) {
            Ok(plan)
                if self
                    .gone_back
                    .as_ref()
                    .is_some_and(|gone| gone.is_refused(plan.version)) =>
            {
                return false;
            }
            Ok(plan) => {
                self.keep_before().await;
                let bytes = bus_schema::encode(&put.plan);
                crash_point::at!(PlanBeforeStore);
                let stored = self.on_disk(move |home| home.store(PLAN, &bytes)).await;
                crash_point::at!(PlanAfterStore);
                stored.map(|()| plan).map_err(PlanError::from)
            }
            Err(error) => Err(error),
        };
        match taken {
            Ok(plan) => {
                tracing::info!(version = plan.version, workflows = plan.workflows.len(), "new plan");
                self.plan = Some(plan);
                self.signed = Some(put.plan);
                self.plan_error.clear();
                true
            }
            Err(PlanError::Refused(Refused::Old { offered, current })) => {
                tracing::debug!(offered, current, "an older plan was offered");
                false
            }
            Err(error) => {
                tracing::error!(%error, "a plan was not taken");
                self.plan_error = error.to_string();
                false
            }
        }
    }

    /// Runs something on the member's files, off this thread: a slow disk must not hold up streams and the bus.
    async fn on_disk(
        &self,
        work: impl FnOnce(&Home) -> Result<(), HomeError> + Send + 'static,
    ) -> Result<(), HomeError> {
        let home = Arc::clone(&self.home);
        let done = tokio::task::spawn_blocking(move || work(&home)).await;
        done.unwrap_or_else(|error| {
            Err(HomeError::Io {
                what: "write in",
                path: self.home.dir().display().to_string(),
                source: std::io::Error::other(error),
            })
        })
    }

    async fn converge(&mut self) {
        let workflows = self
            .plan
            .as_ref()
            .map(|plan| plan.workflows.clone())
            .unwrap_or_default();
        self.supervisor.converge(&workflows).await;
    }

    async fn roster(&mut self, put: RosterPut) -> bool {
        match self.secure.update(put.roster.clone(), put.group.clone()) {
            Ok(true) => {
                self.membership.roster = put.roster;
                self.membership.group = put.group;
                let membership = self.membership.clone();
                let stored = self.on_disk(move |home| home.save_membership(&membership)).await;
                if let Err(error) = stored {
                    tracing::warn!(%error, "the roster could not be stored");
                }
                tracing::info!(version = self.secure.roster().0, "new roster");
                self.maybe_forget_former().await;
                true
            }
            Ok(false) => false,
            Err(error) => {
                tracing::warn!(%error, "a roster was refused");
                false
            }
        }
    }

    /// Gives the plane back what it has lost: roster and plan, as they were signed.
    async fn recall(&self, message: &Incoming) {
        tracing::warn!("the plane knows less than this daemon and asks for what it was given");
        let roster = RecallPage {
            roster: Some(self.membership.roster.clone()),
            plan: None,
        };
        let plan = self.signed.clone().map(|plan| RecallPage {
            roster: None,
            plan: Some(plan),
        });
        for page in std::iter::once(roster).chain(plan) {
            if let Err(error) = self.session.send(&message.sender.node, &page).await {
                tracing::debug!(%error, "what the plane has lost could not be sent");
            }
        }
    }

    async fn pong(&self, message: &Incoming, nonce: u64) {
        let me = self.secure.me();
        let version = env!("CARGO_PKG_VERSION").to_string();
        let pong = Pong {
            nonce,
            node: me.node,
            fleet: me.fleet,
            role: me.role,
            version,
        };
        let _ = self.session.reply(message, &pong).await;
    }

    /// Sends the status and the streams' accounts, if somebody can hear them.
    async fn report(&self, lease_ms: u64) {
        if !self.session.bus().is_up() {
            return;
        }
        let Some(plane) = self.secure.plane() else { return };
        let (mut streams, mut carried) = (self.streams.reports(), self.streams.carried());
        let (direct, direct_carried) = self.supervisor.direct_reports().await;
        streams.extend(direct);
        carried.extend(direct_carried);
        let status = self.status(&streams, lease_ms);
        if let Err(error) = self.session.send(&plane.node, &status).await {
            tracing::debug!(%error, "the status could not be sent");
        }
        self.tell_letters(&plane.node, streams.iter().any(|stream| stream.ledger.dead > 0))
            .await;
        self.tell_drift(&plane.node).await;
        for streams in streams.chunks(REPORTS_PER_MESSAGE) {
            let reports = StreamReports {
                boot: self.secure.epoch(),
                streams: streams.to_vec(),
            };
            if let Err(error) = self.session.send(&plane.node, &reports).await {
                tracing::debug!(%error, "the accounts could not be sent");
            }
        }
        for message in self.told.messages(self.secure.epoch(), self.board.carried(), carried) {
            if let Err(error) = self.session.send(&plane.node, &message).await {
                tracing::debug!(%error, "what was carried could not be sent");
            }
        }
    }

    /// Says what drift was met lately, and once that there is none any more.
    async fn tell_drift(&self, plane: &NodeId) {
        let workflows = self.board.drifts(Instant::now());
        let has_drift = !workflows.is_empty();
        if !has_drift && !self.told_drift.load(Ordering::Relaxed) {
            return;
        }
        match self.session.send(plane, &Drifts { workflows }).await {
            Ok(()) => self.told_drift.store(has_drift, Ordering::Relaxed),
            Err(error) => tracing::debug!(%error, "drift could not be told"),
        }
    }

    /// Says how many dead letters are kept, as they were counted after the report before. Before the accounts: what these count as
    /// dead may have been discarded. `counts_any`: these count some.
    async fn tell_letters(&self, plane: &NodeId, counts_any: bool) {
        let kept = self.letters.kept();
        let is_worth = counts_any || self.letters.has_stores();
        let told = &self.told_letters;
        let news = told.news(&kept, is_worth);
        let mut is_sent = true;
        for workflows in news.workflows.chunks(CARRIED_PER_MESSAGE) {
            let message = LettersKept {
                workflows: workflows.to_vec(),
            };
            match self.session.send(plane, &message).await {
                Ok(()) => told.sent(workflows),
                // It is told with the next report.
                Err(error) => {
                    is_sent = false;
                    tracing::debug!(%error, "how many dead letters are kept could not be sent");
                }
            }
        }
        told.done(&news, is_sent);
        // One at a time, and nobody waits: a disk may take long.
        if !self.is_counting.swap(true, Ordering::Relaxed) {
            let (letters, is_counting) = (self.letters.clone(), Arc::clone(&self.is_counting));
            tokio::task::spawn_blocking(move || {
                letters.count();
                is_counting.store(false, Ordering::Relaxed);
            });
        }
    }

    fn status(&self, streams: &[StreamReport], lease_ms: u64) -> Status {
        let spool_bytes = streams.iter().map(|stream| stream.buffered_bytes).sum();
        Status {
            version: env!("CARGO_PKG_VERSION").to_string(),
            boot: self.secure.epoch(),
            uptime_ms: self.started.elapsed().as_millis() as u64,
            unix_ms: unix_ms(),
            lease_ms,
            plan_version: self.plan_version(),
            plan_error: self.plan_error.clone(),
            roster_version: self.secure.roster().0,
            catalog: self.catalog,
            workflows: self.board.statuses(),
            resources: resources::measure(self.home.dir(), spool_bytes),
            refused: self.secure.refused(),
            damaged: self.chores.damaged(),
            began_unix_ms: *self.clocks.began().borrow(),
        }
    }
}

/// Resolves then; never when there is no such moment.
async fn at(moment: Option<tokio::time::Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
