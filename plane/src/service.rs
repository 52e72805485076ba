//! The plane on the bus: takes what members say, asks the domain, makes its decisions durable, and does what follows.
//! One loop, one event at a time; nothing in it waits for the network. Decides nothing itself.

mod enrolling;
mod noting;
mod pairing;
mod recalling;
mod rotating;
mod saving;
mod stored;

use std::{
    collections::{BTreeMap, VecDeque},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use bus_link::{
    essential,
    session::{Incoming, Session, SessionEvent},
};
use bus_schema::{
    api::{ApiCall, ApiResult, FailureKind},
    carried::{Carried, LettersKept},
    drift::Drifts,
    id::{FleetId, NodeId},
    limits::ROSTER_MEMBERS_MAX,
    member::{Certificate, GroupKey, Role, Signed},
    message::{BodyError, CatalogPage, Ping, Pong, RecallPage, RosterPut, Status, StreamReports},
    subject::{self, Pattern},
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{MissedTickBehavior, interval},
};
use tracing::{debug, error, info, warn};

use crate::{
    api::{self, Env, failed, forbidden},
    audit::{self, Entry, Sparing},
    clock::Clock,
    disk::{Closed, Disk, save_revoked},
    domain::{Change, Effect, State, change::Signer, rollout::ACTIVE_MAX, sight::Sight, state::Share},
    invite::{Inviter, TOKEN_RANDOM_BYTES},
    live::Live,
    observe::Observer,
    outbox::{Outbox, Outgoing},
    permission::{self, Caller},
};

/// How often presence is looked at, the replay guard is saved and the live picture is renewed.
const TICK: Duration = Duration::from_secs(1);
/// Ticks between two times daemons' last words are stored.
const SAVE_TICKS: u32 = 15;
/// In every so many of these it is looked whether parts of shared destinations have to move.
const SHARE_TICKS: u32 = 5;
/// In a fleet larger than this they are stored a share each tick, so that nothing waits long for the disk.
const AT_ONCE_MAX: usize = 500;
/// Most daemons that the log names one by one when something is deployed.
const TOLD_MAX: usize = 20;
/// Plans and rosters waiting for room in the outbox; what finds none is asked for again.
const DUE_MAX: usize = 4 * ROSTER_MEMBERS_MAX;
/// Of them handed on in one go, between which others have their turn.
const DUE_AT_ONCE: usize = 32;
/// Calls from the web page waiting for the loop.
const CALLS_MAX: usize = 32;

/// What has to hold for a call to be made: nobody else decides anything in between.
pub struct Guard {
    /// What is asked first.
    pub read: ApiCall,
    /// Whether its answer is as was expected.
    pub holds: Box<dyn FnOnce(&ApiResult) -> bool + Send>,
}

impl std::fmt::Debug for Guard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Guard").field(&self.read).finish()
    }
}

/// A call from the web page.
#[derive(Debug)]
struct Call {
    caller: Caller,
    guard: Option<Guard>,
    call: ApiCall,
    answer: oneshot::Sender<ApiResult>,
}

/// How the web page reaches the service.
#[derive(Debug, Clone)]
pub struct Handle {
    calls: mpsc::Sender<Call>,
}

impl Handle {
    /// Makes a call in the name of `caller`.
    pub async fn call(&self, caller: &Caller, call: ApiCall) -> ApiResult {
        self.call_if(caller, None, call).await
    }

    /// The same, if the guard holds.
    pub async fn call_if(&self, caller: &Caller, guard: Option<Guard>, call: ApiCall) -> ApiResult {
        let (answer, answered) = oneshot::channel();
        let stopping = || {
            failed(
                FailureKind::Internal,
                "the plane is shutting down",
                "try again in a moment",
            )
        };
        if self
            .calls
            .send(Call {
                caller: caller.clone(),
                guard,
                call,
                answer,
            })
            .await
            .is_err()
        {
            return stopping();
        }
        answered.await.unwrap_or_else(|_| stopping())
    }
}

/// What the service is made of.
#[derive(Debug)]
pub struct Parts {
    /// Everything that was decided before.
    pub state: State,
    /// Who signs.
    pub signer: Signer,
    /// The fleet's group key.
    pub group: GroupKey,
    /// Who invites.
    pub inviter: Inviter,
    /// Where the web page listens.
    pub http: String,
    /// The clock.
    pub clock: Clock,
    /// The disk.
    pub disk: Disk,
    /// Who watches the live picture.
    pub live: Live,
    /// Who watches over time.
    pub observer: Observer,
    /// Where the embedded broker reads who was taken out of the fleet.
    pub revoked_file: Option<PathBuf>,
}

/// The service, before it runs.
pub struct Service {
    pub(crate) parts: Parts,
    session: Arc<Session>,
    outbox: Outbox,
    /// Plans and rosters that are to be sent, in this order. Only whose: what they say is looked up when there is room.
    due: VecDeque<Effect>,
    floor_saved: u64,
    /// The roster's version beside the keys.
    roster_saved: u64,
    refused_told: u64,
    /// Workflows whose parts cannot be moved, and why.
    unmoved: BTreeMap<String, String>,
    refusals: Sparing,
}

/// What the plane subscribes to on its control connection.
pub fn subscriptions(fleet: &FleetId, plane: &NodeId) -> Vec<Pattern> {
    vec![subject::control_to(fleet, plane), subject::enrol_asks(fleet)]
}

/// Waits until `stop` turns true (or its sender has gone).
pub async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Starts the service on a session. It ends when `stop` turns true, having stored what it knew.
pub fn start(
    parts: Parts,
    session: Arc<Session>,
    events: mpsc::Receiver<SessionEvent>,
    stop: watch::Receiver<bool>,
) -> (Handle, tokio::task::JoinHandle<()>) {
    let (calls, incoming) = mpsc::channel(CALLS_MAX);
    let (floor_saved, roster_saved) = (parts.state.plans.floor(), parts.state.members.version());
    let outbox = Outbox::start(Arc::clone(&session));
    let service = Service {
        parts,
        session,
        outbox,
        due: VecDeque::new(),
        floor_saved,
        roster_saved,
        refused_told: 0,
        unmoved: BTreeMap::new(),
        refusals: Sparing::default(),
    };
    (
        Handle { calls },
        essential::spawn("service", service.run(events, incoming, stop)),
    )
}

impl Service {
    async fn run(
        mut self,
        mut events: mpsc::Receiver<SessionEvent>,
        mut calls: mpsc::Receiver<Call>,
        mut stop: watch::Receiver<bool>,
    ) {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut ticks = 0u32;
        let outcome = loop {
            let done = tokio::select! {
                biased;
                () = stopped(&mut stop) => break Ok(()),
                _ = tick.tick() => {
                    ticks = ticks.wrapping_add(1);
                    self.tick(ticks).await
                }
                Some(call) = calls.recv() => {
                    let result = self.guarded(&call.caller, call.guard, call.call).await;
                    // Whoever asked may have gone away.
                    let _ = call.answer.send(result);
                    Ok(())
                }
                () = self.outbox.room(), if !self.due.is_empty() => {
                    self.send_due();
                    Ok(())
                }
                event = events.recv() => match event {
                    Some(event) => self.event(event).await,
                    None => break Ok(()),
                },
            };
            if done.is_err() {
                break done;
            }
        };
        if outcome.is_err() || self.save_all().await.is_err() {
            error!("the store was closed before the service");
        }
        self.outbox.finish().await;
    }

    /// Hands on plans and rosters, as they are by now, as long as there is room for them.
    fn send_due(&mut self) {
        let state = &self.parts.state;
        for _ in 0..self.outbox.free().min(DUE_AT_ONCE) {
            match self.due.pop_front() {
                Some(Effect::SendPlan(to)) => {
                    if let Some(plan) = state.plans.of(&to) {
                        let plan = plan.signed.clone();
                        self.outbox.put(Outgoing::Plan { to, plan });
                    }
                }
                Some(Effect::SendRoster(to)) => {
                    let roster = Signed::new(&state.roster_for(&to), &self.parts.signer.root);
                    let group = self.parts.group.clone();
                    let put = Box::new(RosterPut { roster, group });
                    self.outbox.put(Outgoing::Roster { to, put });
                }
                _ => return,
            }
        }
    }

    async fn tick(&mut self, ticks: u32) -> Result<(), Closed> {
        let now = self.parts.clock.now();
        for (node, presence) in self.parts.state.tick(now) {
            info!(
                daemon = self.parts.state.members.name_of(&node),
                ?presence,
                "presence changed"
            );
        }
        self.step_rollouts().await?;
        if ticks.is_multiple_of(SHARE_TICKS) {
            self.rebalance().await?;
        }
        self.save_seen().await?;
        self.save_roster().await?;
        let is_round = ticks.is_multiple_of(SAVE_TICKS);
        if self.parts.state.members.len() > AT_ONCE_MAX {
            let (part, of) = ((ticks % SAVE_TICKS) as usize, SAVE_TICKS as usize);
            self.save_words(Share::Part { part, of }).await?;
        } else if is_round {
            self.save_words(Share::All).await?;
        }
        if is_round {
            let refused = self.session.secure().refused();
            if refused > self.refused_told {
                warn!(
                    count = refused - self.refused_told,
                    "messages were refused (see debug logs for each)"
                );
                self.refused_told = refused;
            }
        }
        self.parts
            .observer
            .tick(&mut self.parts.state, &self.parts.disk, now)
            .await?;
        self.parts.live.publish(&self.parts.state, &self.parts.http, now);
        Ok(())
    }

    async fn step_rollouts(&mut self) -> Result<(), Closed> {
        // Each may take a step; whatever is more waits for the next tick.
        for _ in 0..ACTIVE_MAX {
            if self.parts.state.rollouts.is_quiet() {
                break;
            }
            let now = self.parts.clock.now();
            let changes = self.parts.state.step_rollouts(&self.parts.signer, now);
            if changes.is_empty() || self.decide(changes).await?.is_err() {
                break;
            }
        }
        Ok(())
    }

    /// Moves parts of shared destinations to where they go now.
    async fn rebalance(&mut self) -> Result<(), Closed> {
        let now = self.parts.clock.now();
        let moves = api::rebalance(&self.parts.state, &self.parts.signer, now);
        self.unmoved.retain(|name, _| moves.contains_key(name));
        for (workflow, changes) in moves {
            let outcome = match changes {
                Ok(changes) => self.decide(changes).await?,
                Err(cause) => Err(cause),
            };
            match outcome {
                Ok(()) => info!(workflow, "moved parts of a shared destination to other daemons"),
                // Said once, though it is tried again and again.
                Err(cause) if self.unmoved.get(&workflow) == Some(&cause) => {}
                Err(cause) => {
                    warn!(workflow, cause, "cannot move parts of a shared destination");
                    self.unmoved.insert(workflow, cause);
                }
            }
        }
        Ok(())
    }

    async fn event(&mut self, event: SessionEvent) -> Result<(), Closed> {
        match event {
            SessionEvent::Up { address } => info!(bus = address, "connected"),
            SessionEvent::Down { cause } => warn!(cause, "not connected to the bus; trying again"),
            SessionEvent::Message(message) => self.message(message).await?,
            SessionEvent::Candidate { subject, frame } => self.candidate(&subject, &frame).await?,
            SessionEvent::Stale(message) => {
                if let (Role::Daemon, Ok(status)) = (message.sender.role, message.read::<Status>()) {
                    let now = self.parts.clock.now();
                    self.parts.state.on_refused(&message.sender.node, &status, now);
                }
            }
            SessionEvent::Stream { .. } => {}
            SessionEvent::Refused { subject, cause } => debug!(%subject, cause, "refused a message"),
        }
        Ok(())
    }

    async fn message(&mut self, message: Incoming) -> Result<(), Closed> {
        if message.is::<ApiCall>() {
            return self.operator(message).await;
        }
        let handled = match message.sender.role {
            Role::Daemon => self.daemon(&message).await?,
            Role::Operator | Role::Plane => Err(BodyError::Unknown {
                kind: message.kind,
                ver: message.ver,
            }),
        };
        match handled {
            Ok(()) => {}
            Err(_) if message.is::<Ping>() => self.ping(message),
            Err(cause) => debug!(sender = message.sender.name, %cause, "ignored a message"),
        }
        Ok(())
    }

    /// What a daemon says. The outer error ends the service, the inner one concerns the message.
    async fn daemon(&mut self, message: &Incoming) -> Result<Result<(), BodyError>, Closed> {
        if let Some(handled) = self.keys(message).await? {
            return Ok(handled);
        }
        let (node, now) = (message.sender.node, self.parts.clock.now());
        let state = &mut self.parts.state;
        if message.is::<Status>() {
            let Ok(status) = message.read::<Status>() else {
                return Ok(message.read::<Status>().map(drop));
            };
            let before = state.daemon(&node).map(|daemon| daemon.presence());
            let effects = state.on_status(node, status, now);
            let presence = state.daemon(&node).map(|daemon| daemon.presence());
            if let Some(presence) = presence.filter(|_| presence != before) {
                info!(daemon = message.sender.name, ?presence, "presence changed");
            }
            self.follow(effects).await?;
            return Ok(Ok(()));
        }
        if message.is::<StreamReports>() {
            return Ok(message.read::<StreamReports>().map(|reports| {
                state.on_reports(node, reports.boot, reports.streams, now);
            }));
        }
        if message.is::<Carried>() {
            return Ok(message.read::<Carried>().map(|said| state.on_carried(node, said, now)));
        }
        if message.is::<LettersKept>() {
            return Ok(message
                .read::<LettersKept>()
                .map(|said| state.on_letters_kept(node, &said)));
        }
        if message.is::<Drifts>() {
            return Ok(message.read::<Drifts>().map(|said| state.on_drifts(node, said, now)));
        }
        if message.is::<RecallPage>() {
            return match message.read::<RecallPage>() {
                Ok(page) => self.recalled(node, &page).await.map(Ok),
                Err(cause) => Ok(Err(cause)),
            };
        }
        match message.read::<CatalogPage>() {
            Ok(CatalogPage { catalog, components }) => {
                let changes = state.on_catalog(node, catalog, components);
                if let Err(cause) = self.decide(changes).await? {
                    error!(
                        cause,
                        daemon = message.sender.name,
                        "cannot store the component catalog"
                    );
                }
                Ok(Ok(()))
            }
            Err(cause) => Ok(Err(cause)),
        }
    }

    fn ping(&self, message: Incoming) {
        let Ok(Ping { nonce }) = message.read::<Ping>() else {
            return;
        };
        let me = self.session.secure().me();
        let version = env!("CARGO_PKG_VERSION").to_string();
        let pong = Pong {
            nonce,
            node: me.node,
            fleet: me.fleet,
            role: me.role,
            version,
        };
        self.outbox.put(Outgoing::Pong {
            to: Box::new(message),
            pong,
        });
    }

    async fn operator(&mut self, message: Incoming) -> Result<(), Closed> {
        let sender = Arc::clone(&message.sender);
        let result = if sender.role != Role::Operator {
            warn!(sender = sender.name, role = %sender.role, "refused an operator's call by somebody else");
            let result = forbidden(sender.role);
            let call = message
                .read::<ApiCall>()
                .ok()
                .filter(|call| permission::of_call(call).1);
            let now_unix_ms = self.parts.clock.now().unix_ms;
            let event = call.map(|call| audit::event(&Caller::of_bus(&sender.name), &call, now_unix_ms));
            self.note_refusal(event.map(|event| audit::ended(event, &result))).await;
            result
        } else {
            match message.read::<ApiCall>() {
                Ok(call) => {
                    // A repeated call must be recognised even if the plane dies right after acting on it.
                    self.save_seen().await?;
                    self.call(&Caller::of_bus(&sender.name), call).await
                }
                Err(cause) => failed(
                    FailureKind::Invalid,
                    cause.to_string(),
                    "use the same version of both programs",
                ),
            }
        };
        self.outbox.put(Outgoing::Answer {
            to: Box::new(message),
            result: Box::new(result),
        });
        Ok(())
    }

    /// A call, unless what it relies on has changed meanwhile.
    async fn guarded(&mut self, caller: &Caller, guard: Option<Guard>, call: ApiCall) -> ApiResult {
        let unexpected = match guard {
            Some(Guard { read, holds }) => {
                let now = self.call(caller, read).await;
                (!holds(&now)).then_some(now)
            }
            None => None,
        };
        if let Some(now) = unexpected {
            let message = "it was changed meanwhile; nothing was done";
            let hint = "look at what is there now, then change it again";
            let result = match now {
                // Nothing is there, or it is not for who asks: that is why.
                ApiResult::Failed(failure) => ApiResult::Failed(failure),
                _ => failed(FailureKind::Conflict, message, hint),
            };
            let event = audit::event(caller, &call, self.parts.clock.now().unix_ms);
            self.note_refusal(Some(audit::ended(event, &result))).await;
            return result;
        }
        self.call(caller, call).await
    }

    /// An operator's call, from wherever: decided, made durable, done.
    async fn call(&mut self, caller: &Caller, call: ApiCall) -> ApiResult {
        // The web's table has asked already; what is decided here does not rely on it.
        let (need, changes) = permission::of_call(&call);
        let noted = changes.then(|| audit::event(caller, &call, self.parts.clock.now().unix_ms));
        if need.judge(Some(caller)).is_err() {
            let message = format!("this needs the role {}", need.word());
            let result = failed(FailureKind::Forbidden, message, "ask an admin of this plane");
            self.note_refusal(noted.map(|noted| audit::ended(noted, &result))).await;
            return result;
        }
        let (state, now) = (&self.parts.state, self.parts.clock.now());
        let sight = Sight::of(state, caller.scope.as_ref(), &caller.name, now);
        if let Err(hidden) = sight.admits(state, &call) {
            let result = api::hidden(hidden);
            self.note_refusal(noted.map(|noted| audit::ended(noted, &result))).await;
            return result;
        }
        let revision = api::revision_in(&call);
        let mut entry = Entry::new(noted);
        let call = match self.stored(call, &sight, &mut entry).await {
            Ok(result) => {
                let result = api::readable(&self.parts.state, &sight, revision, result, now);
                let noted = entry.left(&result);
                match &result {
                    ApiResult::Failed(_) => self.note_refusal(noted).await,
                    _ => self.note(noted).await,
                }
                return result;
            }
            Err(call) => call,
        };
        let mut random = [0; TOKEN_RANDOM_BYTES];
        if let Err(cause) = getrandom::fill(&mut random) {
            return failed(
                FailureKind::Internal,
                format!("the operating system gives no randomness: {cause}"),
                "",
            );
        }
        let parts = &self.parts;
        let env = Env {
            now: parts.clock.now(),
            signer: &parts.signer,
            group: &parts.group,
            inviter: &parts.inviter,
            http: &parts.http,
            random: &random,
            sight: &sight,
            rules: parts.observer.rules(),
        };
        let outcome = api::handle(&parts.state, caller, call, &env);
        let mut changes = outcome.changes;
        let noted = entry.left(&outcome.result);
        if changes.is_empty() && matches!(outcome.result, ApiResult::Failed(_)) {
            self.note_refusal(noted).await;
            return outcome.result;
        }
        // By what was before: whoever ends something sees how it ended.
        let result = sight.narrowed(&self.parts.state, outcome.result);
        // In the same transaction: there is no change without its entry.
        changes.extend(noted.map(Change::Audit));
        match self.decide(changes).await {
            Ok(Ok(())) => result,
            Ok(Err(cause)) => failed(FailureKind::Internal, cause, "look at the plane's log and its disk"),
            Err(Closed) => failed(FailureKind::Internal, Closed.to_string(), "the plane is shutting down"),
        }
    }

    /// Makes changes durable, applies them and does what follows. The inner error is the store's.
    pub(crate) async fn decide(&mut self, changes: Vec<Change>) -> Result<Result<(), String>, Closed> {
        if changes.is_empty() {
            return Ok(Ok(()));
        }
        let stored = self
            .parts
            .disk
            .run(move |files| files.store.commit(&changes).map(|()| changes))
            .await?;
        match stored {
            Ok(changes) => {
                // What concerns many daemons is told in one line.
                let each = |change: &&Change| matches!(change, Change::Plan { .. } | Change::Labels { .. });
                let daemons = changes.iter().filter(each).count();
                if daemons > TOLD_MAX {
                    info!(daemons, "deployed to or labelled many daemons");
                }
                for change in changes.iter().filter(|change| daemons <= TOLD_MAX || !each(change)) {
                    self.tell(change);
                }
                let effects = self.parts.state.apply(changes, true, self.parts.clock.now());
                self.follow(effects).await.map(Ok)
            }
            Err(cause) => {
                error!(%cause, "a decision could not be stored; nothing was changed");
                Ok(Err(cause.to_string()))
            }
        }
    }

    /// The log of decisions.
    fn tell(&self, change: &Change) {
        let members = &self.parts.state.members;
        match change {
            Change::Token(token) => info!(token = %token.id, role = %token.role, "made an enrolment string"),
            // It was one before.
            Change::Member(member) if member.certificate.key_epoch > 0 => {}
            Change::Member(member) => {
                let Certificate { name, role, node, .. } = &member.certificate;
                info!(name, %role, %node, "enrolled");
            }
            Change::Revision(revision) => {
                info!(
                    workflow = revision.workflow,
                    revision = revision.number,
                    by = revision.by,
                    "applied a workflow"
                );
            }
            Change::Retired(name) => info!(workflow = name, "deleted a workflow"),
            Change::Reverted(revision) => {
                info!(
                    workflow = revision.workflow,
                    revision = revision.number,
                    "an earlier revision is current again"
                );
            }
            Change::RolloutBegun(order) => {
                info!(
                    rollout = order.id,
                    workflow = order.workflow,
                    revision = order.revision,
                    waves = order.waves.len(),
                    daemons = order.parts.len(),
                    by = order.by,
                    "a rollout begins"
                );
            }
            Change::RolloutHead { id, head } => {
                info!(rollout = id, phase = ?head.phase, wave = head.wave + 1, cause = head.cause, "a rollout goes on");
            }
            Change::RolloutEnded(view) => {
                info!(rollout = view.id, phase = ?view.phase, cause = view.cause, "a rollout is over");
            }
            Change::RolloutKept(..) => {}
            Change::Plan { node, plan, .. } => {
                info!(
                    daemon = members.name_of(node),
                    plan = plan.version,
                    workflows = plan.workflows.len(),
                    "deployed"
                );
            }
            Change::Catalog { node, catalog, .. } => {
                info!(
                    daemon = members.name_of(node),
                    components = catalog.len(),
                    "learnt what a daemon can run"
                );
            }
            Change::TokenRevoked(token) => info!(%token, "made an enrolment string useless"),
            Change::Labels { node, labels } => {
                let all: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
                info!(
                    daemon = members.name_of(node),
                    labels = all.join(" "),
                    "labelled a daemon"
                );
            }
            Change::Groups(groups) => info!(groups = groups.names().count(), "changed the groups"),
            Change::TokenUsed { .. }
            | Change::Roster { .. }
            | Change::RosterVersion(_)
            | Change::Reason { .. }
            | Change::Former { .. }
            | Change::PlanFloor(_)
            | Change::PlansConfirmed(_)
            | Change::Audit(_) => {}
        }
    }

    pub(crate) async fn follow(&mut self, effects: Vec<Effect>) -> Result<(), Closed> {
        let mut effects = VecDeque::from(effects);
        while let Some(effect) = effects.pop_front() {
            match effect {
                Effect::SendPlan(_) | Effect::SendRoster(_) => {
                    if self.due.len() < DUE_MAX {
                        self.due.push_back(effect);
                    }
                }
                Effect::Admit(certificate) => {
                    if let Err(cause) = self.session.secure().admit(&certificate) {
                        error!(%cause, "cannot believe a member that was just enrolled");
                    }
                }
                Effect::ForgetOlder { node, key_epoch } => self.session.secure().forget_older(&node, key_epoch),
                Effect::AskCatalog { node, hash } => self.outbox.put(Outgoing::CatalogAsk { to: node, hash }),
                Effect::TellTime { node, hint } => self.outbox.put(Outgoing::Time { to: node, hint }),
                Effect::Recall(to) => {
                    let roster_version = self.parts.state.members.version();
                    self.outbox.put(Outgoing::Recall { to, roster_version });
                }
                Effect::Reissue(node) => {
                    let Some(change) = self.parts.state.reissue(&node, &self.parts.signer) else {
                        continue;
                    };
                    let daemon = self.parts.state.members.name_of(&node);
                    warn!(
                        daemon,
                        "runs a newer plan than was made here; deploying again under a higher version"
                    );
                    let stored = self
                        .parts
                        .disk
                        .run(move |f| f.store.commit(std::slice::from_ref(&change)).map(|()| change));
                    match stored.await? {
                        Ok(change) => effects.extend(self.parts.state.apply([change], true, self.parts.clock.now())),
                        Err(cause) => error!(%cause, "cannot store a plan"),
                    }
                }
                Effect::TakeRoster(signed) => {
                    if let Err(cause) = self.session.secure().update(signed.clone(), self.parts.group.clone()) {
                        error!(%cause, "cannot take the plane's own roster");
                    }
                    self.tell_broker().await?;
                    if let Err(cause) = self.parts.disk.run(move |files| files.save_roster(signed)).await? {
                        error!(%cause, "cannot save the roster beside the keys");
                    }
                }
            }
        }
        Ok(())
    }

    /// Tells the embedded broker who was taken out of the fleet.
    async fn tell_broker(&self) -> Result<(), Closed> {
        let Some(path) = self.parts.revoked_file.clone() else {
            return Ok(());
        };
        let revoked = self.parts.state.members.revoked().to_vec();
        let saved = self.parts.disk.run(move |_| save_revoked(&path, &revoked)).await?;
        if let Err(cause) = saved {
            error!(%cause, "cannot tell the broker who was taken out of the fleet; members refuse it all the same");
        }
        Ok(())
    }
}
