//! The web operator: a member with the operator's role whose keys the plane holds, when its settings say so. With it the web page
//! shows records, dead letters and what a trial makes of them, and sets secrets. It has a connection to the bus of its own: at the
//! broker, too, it is a member like any other. Never decides who may ask: the table of the web API does.

mod taps;

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bus_link::{
    BusConfig,
    home::{Home, Membership},
    secure::Secure,
    session::{RequestError, Session, SessionEvent},
};
use bus_schema::{
    id::NodeId,
    member::{Certificate, Signed},
    message::{Message, TapSample},
    redact::Redact,
};
use tokio::{
    sync::{Semaphore, SemaphorePermit, mpsc, watch},
    task::JoinHandle,
    time::{MissedTickBehavior, interval, timeout},
};
use tracing::{error, info, warn};

use crate::{
    domain::{Now, State, change::Signer, own_operator::OwnOperator},
    run::{FAILED, Failure, failure},
    service::stopped,
    store::Store,
};

pub use taps::{Look, RATE_MAX, TAP_S_MAX, Taken, TapShown, TapWish, Taps, Unopened};

/// Its files, inside the plane's directory.
pub const DIR: &str = "operator";
/// Questions to daemons that are on their way at the same time.
const ASKING_MAX: usize = 8;
/// How long one waits for its turn: about as long as those on their way take.
const TURN_WAIT: Duration = Duration::from_secs(5);
/// How often taps are looked after.
const TICK: Duration = Duration::from_secs(1);

/// Whether there is a web operator.
#[derive(Debug, Clone)]
pub enum Standing {
    /// The settings do not want one.
    Off,
    /// It was taken out of the fleet; new keys would be those of another one.
    Revoked,
    /// It can be asked.
    On(Arc<WebOperator>),
}

/// Whether there is one, before anybody is connected.
pub enum Enrolment {
    /// The settings do not want one.
    Off,
    /// It was taken out of the fleet.
    Revoked,
    /// It is a member.
    Enrolled(Enrolled),
}

/// Its keys and what the root key says of them, before it is connected.
pub struct Enrolled {
    home: Home,
    certificate: Signed<Certificate>,
    node: NodeId,
}

impl Enrolled {
    /// Its id, by which it logs in at the broker.
    pub fn node(&self) -> &NodeId {
        &self.node
    }

    /// Connects it. `membership`: the plane's own, for the roster and the group key.
    pub fn connect(
        self,
        membership: &Membership,
        bus: BusConfig,
        redact: Redact,
        plane: Arc<Session>,
        stop: watch::Receiver<bool>,
    ) -> Result<(Arc<WebOperator>, JoinHandle<()>), Failure> {
        let failed = failure(FAILED);
        let Self { home, certificate, .. } = self;
        let own = Membership {
            certificate,
            ..membership.clone()
        };
        let secure = Secure::new(home.identity()?, &own, home.next_epoch()?, home.seen());
        let secure = Arc::new(secure.map_err(|error| failed(&error))?);
        let control = Session::own_control(&secure);
        let (session, events) = Session::start(secure, bus, vec![control]);
        let operator = Arc::new(WebOperator {
            session,
            plane,
            asking: Semaphore::new(ASKING_MAX),
            taps: Taps::new(redact.clone()),
            redact,
            home: Mutex::new(home),
        });
        let task = tokio::spawn(Arc::clone(&operator).run(events, stop));
        Ok((operator, task))
    }
}

/// Makes it a member unless it is one. Only while nobody else works with the store.
pub fn enrol(
    dir: &Path,
    store: &mut Store,
    state: &mut State,
    signer: &Signer,
    now: Now,
) -> Result<Enrolment, Failure> {
    let failed = failure(FAILED);
    let home = Home::open(&dir.join(DIR))?;
    let keys = home.identity()?.public();
    let member = match state.own_operator(keys, signer, now) {
        OwnOperator::Known(member) => member,
        OwnOperator::New(member, changes) => {
            store.commit(&changes).map_err(|error| failed(&error))?;
            state.apply(changes, true, now);
            info!(
                name = member.certificate.name,
                "the web operator is a member of the fleet now"
            );
            member
        }
        OwnOperator::Revoked => {
            let dir = home.dir().display().to_string();
            warn!(
                dir,
                "the web operator was taken out of the fleet; for a new one remove its directory"
            );
            return Ok(Enrolment::Revoked);
        }
        OwnOperator::Full => {
            let message = "web.operator: there is no room on the roster for another member";
            return Err(failed(&message));
        }
    };
    Ok(Enrolment::Enrolled(Enrolled {
        home,
        certificate: member.signed,
        node: member.certificate.node,
    }))
}

/// The web operator, connected.
pub struct WebOperator {
    session: Arc<Session>,
    /// The plane's own, which knows the newest roster.
    plane: Arc<Session>,
    asking: Semaphore,
    /// Taps that are open.
    pub taps: Taps,
    /// Columns that are not shown.
    pub redact: Redact,
    home: Mutex<Home>,
}

impl std::fmt::Debug for WebOperator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let node = self.session.secure().node();
        f.debug_struct("WebOperator")
            .field("node", node)
            .finish_non_exhaustive()
    }
}

impl WebOperator {
    async fn run(self: Arc<Self>, mut events: mpsc::Receiver<SessionEvent>, mut stop: watch::Receiver<bool>) {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                () = stopped(&mut stop) => break,
                _ = tick.tick() => self.look_after_taps().await,
                event = events.recv() => match event {
                    Some(SessionEvent::Message(message)) if message.is::<TapSample>() => {
                        if let Ok(sample) = message.read::<TapSample>() {
                            self.taps.sample(&message.sender.node, sample);
                        }
                    }
                    Some(SessionEvent::Down { cause }) => warn!(cause, "the web operator is not connected to the bus"),
                    Some(_) => {}
                    None => break,
                },
            }
        }
        self.taps.end_all();
        self.look_after_taps().await;
        if let Some(seen) = self.session.secure().seen_changes() {
            let saved = self
                .home
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .save_seen(&seen);
            if let Err(cause) = saved {
                error!(%cause, "cannot keep what the web operator has seen");
            }
        }
        self.session.close().await;
    }

    /// Opens, prolongs and closes taps as they need it.
    async fn look_after_taps(&self) {
        for (daemon, open) in self.taps.due(std::time::Instant::now()) {
            // What is not heard is said again, and what was not ended ends by itself.
            let _sent = self.session.send(&daemon, &open).await;
        }
    }

    /// Whether the fleet still believes it.
    pub fn is_believed(&self) -> bool {
        self.plane.secure().member(self.session.secure().node()).is_some()
    }

    /// Whether it can speak to a daemon: as the plane does, it is told of new ones one by one.
    pub fn knows(&self, daemon: &NodeId) -> bool {
        let (version, roster) = self.plane.secure().roster();
        let own = self.session.secure();
        if version > own.roster().0
            && let Some(group) = self.plane.secure().group()
            && let Err(cause) = own.update(roster, group)
        {
            warn!(%cause, "the web operator does not take the roster");
        }
        own.member(daemon).is_some()
    }

    /// Takes the certificate of a daemon.
    pub fn admit(&self, certificate: &Signed<Certificate>) {
        if let Err(cause) = self.session.secure().admit(certificate) {
            warn!(%cause, "the web operator does not take a certificate");
        }
    }

    /// A turn to ask a daemon; none when too many are asking for too long.
    pub async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        timeout(TURN_WAIT, self.asking.acquire()).await.ok()?.ok()
    }

    /// Asks a daemon.
    pub async fn ask<Q: Message, A: Message>(
        &self,
        daemon: &NodeId,
        call: &Q,
        patience: Duration,
    ) -> Result<A, RequestError> {
        self.session.request(daemon, call, patience).await
    }
}
