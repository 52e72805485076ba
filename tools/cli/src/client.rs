//! The operator's connection: opens the keys, counts the start, connects, and calls the plane.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bus_link::{
    PublishError,
    home::{Home, HomeError, Membership},
    place::{BusSection, Known, PlaceError},
    secure::Secure,
    session::{RequestError, SendError, Session, SessionEvent},
};
use bus_schema::{
    api::{ApiCall, ApiResult, Failure, FailureKind},
    id::NodeId,
    member::{Certificate, Role},
    message::{Message, RosterPut},
    subject::Pattern,
};
use tokio::sync::{Mutex, mpsc};

/// How long a broker that has closed the connection may take to say that it does so for good.
const REFUSAL_WAIT: Duration = Duration::from_secs(3);

/// Something did not work.
#[derive(Debug)]
pub enum CliError {
    /// The command line, a file of this side, or the operator's own setup.
    Usage(String),
    /// Nobody answered, or not in time.
    Unreachable(String),
    /// Ctrl-C.
    Interrupted,
    /// The plane said no.
    Refused(Failure),
    /// The plane said no to the workflow in this file.
    Workflow(PathBuf, Failure),
    /// Anything else.
    Failed(String),
}

impl CliError {
    /// The documented exit code.
    pub fn exit_code(&self) -> u8 {
        match self {
            CliError::Failed(_) => 1,
            CliError::Usage(_) => 2,
            CliError::Unreachable(_) => 7,
            CliError::Interrupted => 130,
            CliError::Refused(failure) | CliError::Workflow(_, failure) => match failure.kind {
                FailureKind::Internal => 1,
                FailureKind::Invalid => 3,
                FailureKind::Forbidden => 4,
                FailureKind::NotFound => 5,
                FailureKind::Conflict => 6,
            },
        }
    }

    /// There is no such thing.
    pub fn not_found(message: String, hint: &str) -> Self {
        CliError::Refused(Failure {
            kind: FailureKind::NotFound,
            message,
            hint: hint.to_string(),
            problems: Vec::new(),
        })
    }

    /// The broker was reached, and does not let this operator in.
    fn kept_out(message: String) -> Self {
        CliError::Refused(Failure {
            kind: FailureKind::Forbidden,
            message,
            hint: "were you taken out of the fleet? Another operator sees it with: mycelial operator list".to_string(),
            problems: Vec::new(),
        })
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CliError::Usage(text) | CliError::Unreachable(text) | CliError::Failed(text) => f.write_str(text),
            CliError::Interrupted => f.write_str("interrupted"),
            CliError::Refused(failure) => refused(f, "", failure),
            CliError::Workflow(file, failure) => refused(f, &file.display().to_string(), failure),
        }
    }
}

fn refused(f: &mut fmt::Formatter<'_>, file: &str, failure: &Failure) -> fmt::Result {
    let colon = if failure.problems.is_empty() { "" } else { ":" };
    write!(f, "{}{colon}", failure.message)?;
    for problem in &failure.problems {
        write!(f, "\n  {}", crate::render::problem(file, problem))?;
    }
    if !failure.hint.is_empty() {
        write!(f, "\n  hint: {}", failure.hint)?;
    }
    Ok(())
}

impl From<HomeError> for CliError {
    fn from(error: HomeError) -> Self {
        CliError::Failed(error.to_string())
    }
}

impl From<SendError> for CliError {
    fn from(error: SendError) -> Self {
        CliError::Unreachable(error.to_string())
    }
}

/// Opens a home, waiting a moment for another command that is just counting its start.
pub async fn open_home(dir: &Path) -> Result<Home, CliError> {
    for _ in 0..40 {
        match Home::open(dir) {
            Err(HomeError::InUse(_)) => tokio::time::sleep(Duration::from_millis(50)).await,
            other => return Ok(other?),
        }
    }
    Ok(Home::open(dir)?)
}

/// What enrolment gave this operator. Fails, and makes nothing, when the directory holds no operator.
pub async fn open_operator(dir: &Path) -> Result<(Home, Membership), CliError> {
    // A mistyped --home is not made.
    let home = if dir.exists() {
        Some(open_home(dir).await?)
    } else {
        None
    };
    let membership = home.as_ref().map(Home::membership).transpose()?.flatten();
    let (Some(home), Some(membership)) = (home, membership) else {
        return Err(CliError::Usage(format!(
            "{} holds no operator yet\n  hint: become one with the string the plane printed: mycelial init myc1…\n  \
             hint: if you are one already, say where your keys are with --home DIR",
            dir.display()
        )));
    };
    let me = membership.certificate.open(&membership.root).map_err(|error| {
        CliError::Failed(format!(
            "the membership in {} is damaged: {error}; enrol again",
            dir.display()
        ))
    })?;
    if me.role != Role::Operator {
        return Err(CliError::Usage(format!(
            "{} belongs to the {} '{}', not to an operator\n  hint: choose another --home",
            dir.display(),
            me.role,
            me.name
        )));
    }
    Ok((home, membership))
}

/// A connected operator.
pub struct Client {
    /// The connection.
    pub session: Arc<Session>,
    /// What comes in besides replies.
    pub events: Mutex<mpsc::Receiver<SessionEvent>>,
    plane: NodeId,
    home: Home,
    timeout: Duration,
    /// The plane was asked in vain: what can be done without it is not held up again.
    plane_is_away: AtomicBool,
}

impl Client {
    /// Connects; returns once the bus is there.
    pub async fn connect(dir: &Path, timeout: Duration, subscriptions: Vec<Pattern>) -> Result<Self, CliError> {
        let (mut home, membership) = open_operator(dir).await?;
        let epoch = home.next_epoch()?;
        let secure = Secure::new(home.identity()?, &membership, epoch, home.seen())
            .map_err(|error| CliError::Failed(format!("the membership is damaged: {error}; enrol again")))?;
        home.share();
        let secure = Arc::new(secure);
        let client = format!("{}-{epoch}", secure.node());
        let place = BusSection::default().resolve(&Known::from(&membership), &client);
        let place = place.map_err(|error: PlaceError| CliError::Failed(error.to_string()))?;
        let addresses: Vec<String> = place.addresses().iter().map(ToString::to_string).collect();
        let mut patterns = vec![Session::own_control(&secure)];
        patterns.extend(subscriptions);
        let (session, mut events) = Session::start(secure, place, patterns);
        let (mut last, mut is_refused, mut refusals) = ("no answer".to_string(), false, 0);
        let connected = async {
            while let Some(event) = events.recv().await {
                match event {
                    SessionEvent::Up { .. } => return true,
                    SessionEvent::Down { cause } => {
                        (last, is_refused) = (cause, session.bus().is_refused());
                        refusals += usize::from(is_refused);
                    }
                    _ => {}
                }
                // Each was asked, and one twice: what they know does not change by waiting.
                if refusals > addresses.len() {
                    return false;
                }
            }
            false
        };
        if !matches!(tokio::time::timeout(timeout, connected).await, Ok(true)) {
            if is_refused {
                return Err(CliError::kept_out(last));
            }
            let text = format!("cannot reach the bus at {}: {last}", addresses.join(", "));
            return Err(CliError::Unreachable(format!("{text}\n  hint: mycelial doctor")));
        }
        Ok(Self {
            session,
            events: Mutex::new(events),
            plane: membership.plane,
            home,
            timeout,
            plane_is_away: AtomicBool::new(false),
        })
    }

    /// Asks the plane.
    pub async fn call(&self, call: &ApiCall) -> Result<ApiResult, CliError> {
        self.call_within(call, self.timeout).await
    }

    /// Asks the plane, and waits no longer than that for its answer.
    pub async fn call_within(&self, call: &ApiCall, most: Duration) -> Result<ApiResult, CliError> {
        let wait = self.timeout.min(most);
        let answer = self.session.request(&self.plane, call, wait).await;
        self.plane_is_away
            .store(matches!(answer, Err(RequestError::Timeout(_))), Ordering::Relaxed);
        match answer {
            Ok(ApiResult::Failed(failure)) => Err(CliError::Refused(failure)),
            Ok(result) => Ok(result),
            Err(RequestError::Timeout(waited)) => Err(CliError::Unreachable(format!(
                "the bus is there, but the plane did not answer within {} s; is mycelial-plane running?",
                waited.as_secs()
            ))),
            Err(error) => Err(self.not_sent(error).await),
        }
    }

    /// Why a request did not go out: the broker lets this operator in no more, or there is no connection.
    async fn not_sent(&self, error: RequestError) -> CliError {
        let text = error.to_string();
        if matches!(error, RequestError::Send(SendError::Publish(PublishError::Offline))) {
            let refused = async {
                while !self.session.bus().is_refused() {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            };
            if tokio::time::timeout(REFUSAL_WAIT.min(self.timeout), refused)
                .await
                .is_ok()
            {
                return CliError::kept_out("the broker has closed the connection, and lets you in no more".to_string());
            }
        }
        CliError::Unreachable(text)
    }

    /// The daemon that is called so, by name or id, as far as this operator knows without asking the plane: a large fleet's
    /// operator does not know all.
    pub fn known(&self, name: &str) -> Option<(String, NodeId)> {
        let secure = self.session.secure();
        let is_meant = |member: &Certificate| member.name == name || member.node.to_string() == name;
        let daemons = secure.others(&[Role::Daemon]);
        let found = daemons.iter().filter_map(|node| secure.member(node));
        found
            .filter(|member| is_meant(member))
            .map(|member| (member.name.clone(), member.node))
            .next()
    }

    /// Asks a daemon itself.
    pub async fn ask<Q: Message, A: Message>(&self, daemon: &str, node: &NodeId, call: &Q) -> Result<A, CliError> {
        self.ask_within(daemon, node, call, self.timeout).await
    }

    /// The same of what takes its time: waits at least so long.
    pub async fn ask_within<Q: Message, A: Message>(
        &self,
        daemon: &str,
        node: &NodeId,
        call: &Q,
        least: Duration,
    ) -> Result<A, CliError> {
        let ask = || self.session.request::<Q, A>(node, call, self.timeout.max(least));
        let asked = match ask().await {
            // It may have other keys by now than this operator knows.
            Err(RequestError::Timeout(_)) if self.renew(node).await => ask().await,
            asked => asked,
        };
        asked.map_err(|error| match error {
            RequestError::Timeout(waited) => CliError::Unreachable(format!(
                "{daemon} did not answer within {} s; is it running?",
                waited.as_secs()
            )),
            error => CliError::Unreachable(format!("{daemon}: {error}")),
        })
    }

    /// Takes a newer roster, so that commands can reach new daemons.
    pub fn take_roster(&self, put: &RosterPut) {
        let taken = self.session.secure().update(put.roster.clone(), put.group.clone());
        if let (Ok(true), Ok(Some(mut membership))) = (taken, self.home.membership()) {
            membership.roster = put.roster.clone();
            membership.group = put.group.clone();
            // The next command learns it again if this fails.
            let _ = self.home.save_membership(&membership);
        }
    }

    /// Makes sure that a daemon can be spoken to: in a large fleet an operator's roster does not name all.
    pub async fn know(&self, node: &NodeId) -> Result<(), CliError> {
        if self.session.secure().member(node).is_some() {
            return Ok(());
        }
        if let ApiResult::Certificate(signed) = self.call(&ApiCall::Certificate(node.to_string())).await? {
            let admitted = self.session.secure().admit(&signed);
            admitted.map_err(|error| CliError::Failed(error.to_string()))?;
        }
        Ok(())
    }

    /// Asks the plane who that daemon is by now; `true` when it has other keys than were known.
    async fn renew(&self, node: &NodeId) -> bool {
        if self.plane_is_away.load(Ordering::Relaxed) {
            return false;
        }
        let epoch = || self.session.secure().member(node).map(|member| member.key_epoch);
        let before = epoch();
        if let Ok(ApiResult::Certificate(signed)) = self.call(&ApiCall::Certificate(node.to_string())).await {
            // One that cannot be believed changes nothing.
            let _ = self.session.secure().admit(&signed);
        }
        if epoch() == before {
            return false;
        }
        // So that the next command knows it.
        if let Ok(ApiResult::Roster(put)) = self.call(&ApiCall::Roster).await {
            self.take_roster(&put);
        }
        true
    }

    /// Disconnects.
    pub async fn close(self) {
        if let Some(seen) = self.session.secure().seen_changes() {
            let _ = self.home.save_seen(&seen);
        }
        let _ = tokio::time::timeout(Duration::from_secs(2), self.session.close()).await;
    }
}
