//! Everything the plane knows, and what each event makes of it. Decisions return [`Change`]s for the rim to make durable;
//! only then they are applied.

use std::collections::BTreeMap;

use bus_schema::{
    api::Presence,
    carried::Carried,
    id::{FleetId, NodeId, WorkflowId},
    limits::{CLOCK_OFF_MS_MAX, MESSAGE_BYTES_MAX, PLAN_WORKFLOWS_MAX},
    member::{Certificate, Role, Signed},
    message::{EnrolAsk, Message, PlanPut, Status, StreamReport, TimeHint},
    plan::{Descriptor, Plan, PlanWorkflow},
};

use super::{
    Change, Effect, Now,
    carried::Nodes,
    catalogs::Catalogs,
    change::Signer,
    daemon::{self, Daemon},
    drift::Drifting,
    enrol::{self, Token, Verdict},
    groups::Groups,
    labels::Labels,
    ledger::Streams,
    letters::Kept,
    members::{Member, Members},
    pairing::Pairings,
    peers::Parted,
    plans::{Deployed, Plans, Step},
    recall::Recalls,
    rollout::Head,
    rollouts::Rollouts,
    workflows::Workflows,
};

/// How long a daemon may still go back to the plan before by itself, and somewhat longer, in milliseconds; see `converge`.
const PARTED_MS: u64 = 180_000;

/// What comes of a candidate's question.
#[derive(Debug, Clone)]
pub enum Enrolment {
    /// It becomes a member by these changes; the certificate is among them.
    New(Box<Member>, Vec<Change>),
    /// It is a member already.
    Known(Box<Member>),
    /// No, and why.
    Refused(String),
}

/// A plan that cannot be deployed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TooLarge {
    /// Whose plan.
    pub daemon: String,
    /// In what way.
    pub cause: String,
}

/// The whole picture.
#[derive(Debug, Clone)]
pub struct State {
    /// The fleet.
    pub fleet: FleetId,
    /// The plane itself.
    pub plane: NodeId,
    /// Who belongs to the fleet.
    pub members: Members,
    /// What they shall run, by text.
    pub workflows: Workflows,
    /// What each daemon shall run.
    pub plans: Plans,
    /// Accounts.
    pub streams: Streams,
    /// What nodes do.
    pub nodes: Nodes,
    /// Dead letters that daemons keep.
    pub kept: Kept,
    /// Columns that are not as agreed.
    pub drifting: Drifting,
    /// Revisions on their way, wave by wave.
    pub rollouts: Rollouts,
    pub(super) pairings: Pairings,
    /// Saved selectors.
    pub groups: Groups,
    /// Topics on which the plane says something that is not sealed: the settings'.
    pub plain_topics: Vec<String>,
    catalogs: Catalogs,
    daemons: BTreeMap<NodeId, Daemon>,
    labels: BTreeMap<NodeId, Labels>,
    pub(super) recalls: Recalls,
    /// Daemons whose plan has parted them from others. They are told once they cannot go back to the plan before, for which they
    /// need them.
    pub(super) parted: BTreeMap<NodeId, Parted>,
}

/// What to tell a daemon that does not know the fleet's time, or knows another.
fn time_hint(status: &Status, now: Now) -> Option<TimeHint> {
    let known = status
        .began_unix_ms
        .and_then(|began| began.checked_add_unsigned(status.uptime_ms));
    let is_right = known.is_some_and(|known| known.abs_diff(now.unix_ms) <= CLOCK_OFF_MS_MAX);
    // A goodbye has nobody to hear the answer.
    (!is_right && status.lease_ms > 0).then_some(TimeHint {
        boot: status.boot,
        uptime_ms: status.uptime_ms,
        unix_ms: now.unix_ms,
    })
}

impl State {
    /// A fleet of nobody.
    pub fn new(fleet: FleetId, plane: NodeId) -> Self {
        Self {
            fleet,
            plane,
            members: Members::new(fleet),
            workflows: Workflows::default(),
            plans: Plans::default(),
            streams: Streams::default(),
            nodes: Nodes::default(),
            kept: Kept::default(),
            drifting: Drifting::default(),
            rollouts: Rollouts::default(),
            pairings: Pairings::default(),
            groups: Groups::default(),
            plain_topics: Vec::new(),
            catalogs: Catalogs::default(),
            daemons: BTreeMap::new(),
            labels: BTreeMap::new(),
            recalls: Recalls::default(),
            parted: BTreeMap::new(),
        }
    }

    /// A daemon as far as it has spoken; `None` when it never has.
    pub fn daemon(&self, node: &NodeId) -> Option<&Daemon> {
        self.daemons.get(node)
    }

    /// A daemon's labels.
    pub fn labels(&self, node: &NodeId) -> &Labels {
        static NONE: Labels = Labels::new();
        self.labels.get(node).unwrap_or(&NONE)
    }

    /// A daemon's last words from before a restart.
    pub fn remember(&mut self, node: NodeId, status: Status, reports: Vec<StreamReport>, heard_unix_ms: i64) {
        self.plans.hear(status.plan_version);
        // What was not to be believed was not stored; of what is no workflow, and never was, nobody speaks in any case.
        let (plans, workflows) = (&self.plans, &self.workflows);
        let was_there = |id: &WorkflowId| plans.runs(&node, id) || workflows.name_of(id).is_some();
        self.streams.report(node, status.boot, reports, was_there, 0);
        self.daemons.entry(node).or_default().recall(status, heard_unix_ms);
    }

    /// A member's status came in.
    pub fn on_status(&mut self, node: NodeId, status: Status, now: Now) -> Vec<Effect> {
        let (version, troubled) = (status.plan_version, !status.plan_error.is_empty());
        let hint = time_hint(&status, now);
        let is_foreign = self.plans.is_foreign(&node, version);
        let knows_more = status.roster_version > self.members.version() || is_foreign;
        let daemon = self.daemons.entry(node).or_default();
        if !daemon.heard(status, now) {
            return Vec::new();
        }
        let mut effects: Vec<_> = hint.map(|hint| Effect::TellTime { node, hint }).into_iter().collect();
        if knows_more && self.recalls.ask(node, now.mono_ms) {
            effects.push(Effect::Recall(node));
        }
        let holds_back = is_foreign && self.recalls.holds_back(&node, now.mono_ms);
        let has_settled = self.plans.of(&node).is_none_or(|plan| plan.version == version);
        if has_settled
            && let Some(parted) = self.parted.get(&node)
            && now.mono_ms.saturating_sub(parted.since_ms) >= PARTED_MS
        {
            self.members.concerns(node, parted.roster);
            self.parted.remove(&node);
        }
        if !holds_back && daemon.wants_roster(self.members.version_for(&node), now.mono_ms) {
            effects.push(Effect::SendRoster(node));
        }
        if let Some(hash) = daemon.unknown_catalog()
            && let Some(catalog) = self.catalogs.take(&hash, node)
        {
            daemon.set_catalog(hash, catalog);
        }
        if let Some(hash) = daemon.catalog_to_ask(now.mono_ms) {
            effects.push(Effect::AskCatalog { node, hash });
        }
        match self.plans.reported(&node, version, troubled, now.mono_ms) {
            Step::Settled => {}
            Step::Send => effects.push(Effect::SendPlan(node)),
            Step::Reissue => effects.push(Effect::Reissue(node)),
        }
        self.streams.prune(&node, now.mono_ms);
        effects
    }

    /// A daemon's stream accounts came in.
    pub fn on_reports(&mut self, node: NodeId, boot: u64, reports: Vec<StreamReport>, now: Now) {
        let runs = |workflow: &WorkflowId| self.plans.runs(&node, workflow);
        self.streams.report(node, boot, reports, runs, now.mono_ms);
    }

    /// A daemon told what its nodes have done and its streams have carried.
    pub fn on_carried(&mut self, node: NodeId, said: Carried, now: Now) {
        self.streams.carried(node, said.boot, said.streams, now.mono_ms);
        // Nobody speaks of what it does not run.
        let nodes = said.nodes.into_iter();
        let nodes = nodes.filter(|one| self.plans.runs(&node, &one.workflow)).collect();
        self.nodes.hear(node, nodes, now.mono_ms);
    }

    /// Catalogs that were known without asking and are not stored yet.
    pub fn take_unsaved_catalogs(&mut self) -> Vec<Change> {
        let nodes = self.catalogs.take_unsaved().into_iter();
        let stored = nodes.filter_map(|node| {
            let (hash, catalog) = self.daemons.get(&node)?.catalog_with_hash()?.clone();
            Some(Change::Catalog { node, hash, catalog })
        });
        stored.collect()
    }

    /// A daemon told its components.
    pub fn on_catalog(&self, node: NodeId, hash: [u8; 32], components: Vec<Descriptor>) -> Vec<Change> {
        let announced = self
            .daemon(&node)
            .and_then(|daemon| daemon.last())
            .map(|last| last.catalog);
        if announced != Some(hash) {
            return Vec::new();
        }
        let known = self.daemons.values().filter_map(|daemon| daemon.catalog().cloned());
        [Change::Catalog {
            node,
            hash,
            catalog: daemon::share(components, known),
        }]
        .into()
    }

    /// A genuine status of a daemon was refused, because its count had been used before.
    pub fn on_refused(&mut self, node: &NodeId, status: &Status, now: Now) {
        if let Some(daemon) = self.daemons.get_mut(node) {
            daemon.refused(status, now);
        }
    }

    /// Time has passed. Returns whose presence is another one now.
    pub fn tick(&mut self, now: Now) -> Vec<(NodeId, Presence)> {
        let mut changed = Vec::new();
        for (node, daemon) in &mut self.daemons {
            let before = daemon.presence();
            daemon.tick(now.mono_ms);
            if daemon.presence() != before {
                changed.push((*node, daemon.presence()));
            }
        }
        changed
    }

    /// A candidate asks to join.
    pub fn on_candidate(&self, token: Option<&Token>, ask: &EnrolAsk, signer: &Signer, now: Now) -> Enrolment {
        let node = ask.keys.node_id();
        match (enrol::judge(token, ask, &self.members, now.unix_ms), token) {
            (Verdict::Refused(why), _) => Enrolment::Refused(why),
            (Verdict::Again, _) => match self.members.get(&node) {
                Some(member) => Enrolment::Known(Box::new(Member::clone(member))),
                None => Enrolment::Refused("try again".into()),
            },
            (Verdict::Welcome(_), None) => Enrolment::Refused("try again".into()),
            (Verdict::Welcome(name), Some(token)) => {
                let certificate = Certificate {
                    fleet: self.fleet,
                    node,
                    name,
                    role: token.role,
                    keys: ask.keys,
                    key_epoch: 0,
                };
                let member = Box::new(Member {
                    signed: Signed::new(&certificate, &signer.root),
                    certificate,
                    host: ask.host.clone(),
                    enrolled_unix_ms: now.unix_ms,
                });
                let mut changes = vec![
                    Change::TokenUsed { token: token.id, node },
                    Change::Member(member.clone()),
                    Change::RosterVersion(self.members.version() + 1),
                ];
                if !token.labels.is_empty() {
                    let labels = token.labels.clone();
                    changes.push(Change::Labels { node, labels });
                }
                Enrolment::New(member, changes)
            }
        }
    }

    /// The plans that change when a workflow is placed like this (on nobody: when it is deleted).
    pub fn place(
        &self,
        workflow: &WorkflowId,
        parts: BTreeMap<NodeId, PlanWorkflow>,
        signer: &Signer,
    ) -> Result<Vec<Change>, TooLarge> {
        let version = self.plans.next_version();
        let changed = self.plans.with_workflow(workflow, parts);
        let told = changed
            .iter()
            .any(|(node, workflows)| self.has_other_peers(node, workflows))
            .then(|| Ok(Change::RosterVersion(self.members.version() + 1)));
        let deployed = changed
            .into_iter()
            .map(|(node, workflows)| self.deploy(node, version, workflows, signer));
        told.into_iter().chain(deployed).collect()
    }

    /// The same plan under a higher version: the daemon has a higher one from elsewhere.
    pub fn reissue(&self, node: &NodeId, signer: &Signer) -> Option<Change> {
        let workflows = self.plans.of(node)?.workflows.clone();
        self.deploy(*node, self.plans.next_version(), workflows, signer).ok()
    }

    fn deploy(
        &self,
        node: NodeId,
        version: u64,
        workflows: Vec<PlanWorkflow>,
        signer: &Signer,
    ) -> Result<Change, TooLarge> {
        let too_large = |cause: String| TooLarge {
            daemon: self.members.name_of(&node),
            cause,
        };
        if workflows.len() > PLAN_WORKFLOWS_MAX {
            return Err(too_large(format!(
                "a daemon runs at most {PLAN_WORKFLOWS_MAX} workflows"
            )));
        }
        let plan = Plan {
            fleet: self.fleet,
            daemon: node,
            version,
            workflows,
        };
        let signed = Signed::new(&plan, &signer.plane);
        let bytes = PlanPut { plan: signed.clone() }.to_payload().len();
        if bytes > MESSAGE_BYTES_MAX {
            return Err(too_large(format!(
                "its plan would have {bytes} bytes, {MESSAGE_BYTES_MAX} are possible"
            )));
        }
        Ok(Change::Plan {
            confirmed: false,
            node,
            plan: Deployed {
                version,
                workflows: plan.workflows,
                signed,
            },
        })
    }

    /// Applies what is durable now. `fresh`: just decided, not read back after a restart.
    pub fn apply(&mut self, changes: impl IntoIterator<Item = Change>, fresh: bool, now: Now) -> Vec<Effect> {
        let mut effects = Vec::new();
        let mut replan = false;
        for change in changes {
            match change {
                // Tokens live in the store alone: they are asked for seldom, and other processes make them too.
                Change::Token(_)
                | Change::TokenUsed { .. }
                | Change::TokenRevoked(_)
                | Change::Reason { .. }
                | Change::Audit(_) => {}
                Change::Groups(groups) => self.groups = groups,
                Change::Labels { node, labels } => {
                    self.labels.insert(node, labels);
                }
                Change::Member(member) => {
                    effects.push(Effect::Admit(member.signed.clone()));
                    let node = member.certificate.node;
                    // Who joins is no news: no plan names it yet.
                    if self.members.get(&node).is_some() {
                        let peers = self.believers_of(&node);
                        self.members.news_of(node, peers);
                    }
                    self.members.insert(*member);
                }
                Change::Former { node, former } => {
                    if former.is_none()
                        && let Some(member) = self.members.get(&node)
                    {
                        let key_epoch = member.certificate.key_epoch;
                        effects.push(Effect::ForgetOlder { node, key_epoch });
                    }
                    let peers = self.believers_of(&node);
                    self.members.news_of(node, peers);
                    self.members.set_former(node, former);
                }
                Change::Roster { roster, signed } => {
                    self.members.set_roster(&roster);
                    for node in &roster.revoked {
                        self.daemons.remove(node);
                        self.labels.remove(node);
                        self.nodes.forget_daemon(node);
                        self.kept.forget_daemon(node);
                        self.drifting.forget_daemon(node);
                        self.parted.remove(node);
                        replan |= self.plans.forget(node);
                    }
                    effects.push(Effect::TakeRoster(signed));
                }
                Change::RosterVersion(version) => self.members.raise(version),
                Change::Revision(revision) | Change::Reverted(revision) => self.workflows.put(revision),
                Change::RolloutBegun(order) => self.rollouts.begin(order, Head::default()),
                Change::RolloutKept(order, head) => self.rollouts.begin(order, head),
                Change::RolloutHead { id, head } => self.rollouts.set_head(id, head, now.mono_ms),
                Change::RolloutEnded(view) => self.rollouts.end(*view),
                Change::Retired(name) => {
                    self.streams.forget(&WorkflowId::of_name(&name));
                    self.nodes.forget(&WorkflowId::of_name(&name));
                    self.kept.forget(&WorkflowId::of_name(&name));
                    self.drifting.forget(&WorkflowId::of_name(&name));
                    self.workflows.retire(&name);
                }
                Change::Plan { node, plan, confirmed } => {
                    let has_new_peers = fresh && self.has_new_peers(&node, &plan.workflows);
                    self.note_parted(node, &plan.workflows, now.mono_ms);
                    self.plans.install(node, plan, confirmed, now.mono_ms);
                    replan = true;
                    if has_new_peers {
                        // Before the plan, so that it believes them when it needs them.
                        self.members.concerns(node, self.members.version());
                        effects.push(Effect::SendRoster(node));
                    }
                    if fresh {
                        self.plans.sent(&node, now.mono_ms);
                        effects.push(Effect::SendPlan(node));
                    }
                }
                // It was the plans themselves that said so.
                Change::PlansConfirmed(_) => {}
                Change::PlanFloor(version) => self.plans.raise_floor(version),
                Change::Catalog { node, hash, catalog } => {
                    self.catalogs.keep(&hash, &catalog);
                    self.daemons.entry(node).or_default().set_catalog(hash, catalog);
                }
            }
        }
        if replan {
            self.streams
                .plan(self.plans.nodes().flat_map(|(_, plan)| &plan.workflows));
        }
        effects
    }

    /// Daemons that have spoken since they were last asked for here: their last words should be stored.
    pub fn take_unsaved(&mut self, share: Share) -> Vec<Words> {
        let mut unsaved = Vec::new();
        for (at, (node, daemon)) in self.daemons.iter_mut().enumerate() {
            let is_meant = match share {
                Share::All => true,
                Share::Part { part, of } => at % of == part,
            };
            if is_meant
                && daemon.take_unsaved()
                && let (Some(status), Some(heard_unix_ms)) = (daemon.last(), daemon.heard_unix_ms())
            {
                let streams = self.streams.reports_of(node);
                unsaved.push(Words {
                    node: *node,
                    status: status.clone(),
                    streams,
                    heard_unix_ms,
                });
            }
        }
        unsaved
    }

    /// Enrolled daemons with what they have said.
    pub fn daemons(&self) -> impl Iterator<Item = (&Member, Option<&Daemon>)> {
        self.members
            .of_role(Role::Daemon)
            .map(|member| (&**member, self.daemon(&member.certificate.node)))
    }
}

/// Which daemons are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Share {
    /// All.
    All,
    /// Every `of`th, beginning at `part`.
    Part {
        /// From 0.
        part: usize,
        /// How many parts there are.
        of: usize,
    },
}

/// A daemon's last words, as they are stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Words {
    /// Whose.
    pub node: NodeId,
    /// Its status.
    pub status: Status,
    /// Its stream accounts.
    pub streams: Vec<StreamReport>,
    /// When it spoke, milliseconds since 1970.
    pub heard_unix_ms: i64,
}

#[cfg(test)]
mod tests {
    use bus_schema::{id::TokenId, member::enrol_proof, message::HostFacts};

    use super::*;
    use crate::domain::testing::{self, fleet, identity, node, part, status};

    const SECRET: [u8; 16] = [7; 16];

    #[test]
    fn daemons_that_do_not_know_the_time_are_told() {
        const NOW: i64 = 1_790_000_000_000;
        let now = Now {
            mono_ms: 0,
            unix_ms: NOW,
        };
        for (began_unix_ms, uptime_ms, is_goodbye, is_told) in [
            (None, 5_000, false, true),
            (None, 5_000, true, false),
            (Some(NOW - 5_000), 5_000, false, false),
            (Some(NOW - 7_000), 5_000, false, false),
            (Some(NOW - 7_001), 5_000, false, true),
            (Some(NOW - 2_999), 5_000, false, true),
            (Some(i64::MAX), 5_000, false, true),
            (Some(0), u64::MAX, false, true),
        ] {
            let status = Status {
                began_unix_ms,
                lease_ms: if is_goodbye { 0 } else { 17_000 },
                // Right by chance: it says nothing about the time since the boot began.
                unix_ms: NOW,
                ..status(3, uptime_ms, 0)
            };
            let hint = TimeHint {
                boot: 3,
                uptime_ms,
                unix_ms: NOW,
            };
            assert_eq!(time_hint(&status, now), is_told.then_some(hint), "{began_unix_ms:?}");
        }
    }

    fn signer() -> Signer {
        Signer {
            root: identity(0),
            plane: identity(100),
        }
    }

    fn token() -> Token {
        Token {
            id: TokenId::from_hash(&[9; 32]),
            secret: SECRET,
            role: Role::Daemon,
            name: None,
            uses_left: 1,
            expires_unix_ms: i64::MAX,
            used_by: Vec::new(),
            labels: Labels::new(),
        }
    }

    fn ask(n: u8, name: &str) -> EnrolAsk {
        let keys = identity(n).public();
        EnrolAsk {
            keys,
            name: name.into(),
            proof: enrol_proof(&SECRET, &keys, name),
            host: HostFacts::default(),
        }
    }

    fn at(mono_ms: u64) -> Now {
        Now {
            mono_ms,
            unix_ms: mono_ms as i64,
        }
    }

    fn state_with(daemons: &[(u8, &str)]) -> State {
        let mut state = State::new(fleet(), node(100));
        for (n, name) in daemons {
            let Enrolment::New(_, changes) = state.on_candidate(Some(&token()), &ask(*n, name), &signer(), at(0))
            else {
                panic!("{name} is welcome");
            };
            state.apply(changes, true, at(0));
        }
        state
    }

    #[test]
    fn a_candidate_becomes_a_member_once() {
        let mut state = state_with(&[]);
        let Enrolment::New(member, changes) = state.on_candidate(Some(&token()), &ask(1, "gw"), &signer(), at(0))
        else {
            panic!("welcome");
        };
        assert_eq!(
            member.signed.open(&identity(0).public().sign),
            Ok(member.certificate.clone())
        );
        assert!(state.members.is_empty(), "nothing is applied before it is durable");
        let effects = state.apply(changes, true, at(0));
        assert!(matches!(&effects[..], [Effect::Admit(_)]));
        let again = state.on_candidate(Some(&token()), &ask(1, "gw"), &signer(), at(0));
        assert!(matches!(again, Enrolment::Known(known) if *known == *member));
        assert!(matches!(
            state.on_candidate(None, &ask(2, "x"), &signer(), at(0)),
            Enrolment::Refused(_)
        ));
        assert_eq!(state.members.version(), 1);
    }

    #[test]
    fn a_status_tells_what_is_missing() {
        let mut state = state_with(&[(1, "gw")]);
        let id = WorkflowId::of_name("a");
        let changes = state.place(&id, [(node(1), part("a", 1))].into(), &signer()).unwrap();
        let effects = state.apply(changes, true, at(0));
        assert_eq!(effects, [Effect::SendPlan(node(1))]);
        // As after a restart of the plane.
        state.members.tell_all();
        // It was sent just now: not again at once. The roster and the catalog are missing, too.
        let behind = Status {
            roster_version: 0,
            ..status(1, 0, 0)
        };
        assert_eq!(
            state.on_status(node(1), behind.clone(), at(100)),
            [
                Effect::SendRoster(node(1)),
                Effect::AskCatalog {
                    node: node(1),
                    hash: [0; 32]
                }
            ]
        );
        assert_eq!(
            state.on_status(
                node(1),
                Status {
                    uptime_ms: 1,
                    ..behind.clone()
                },
                at(200)
            ),
            []
        );
        let later = Status {
            uptime_ms: 2,
            began_unix_ms: Some(10_000),
            ..behind
        };
        let effects = state.on_status(node(1), later, at(10_000));
        assert_eq!(effects.len(), 3);
        assert_eq!(
            state.on_catalog(node(1), [1; 32], Vec::new()).len(),
            0,
            "not the one it announced"
        );
        let changes = state.on_catalog(node(1), [0; 32], Vec::new());
        state.apply(changes, true, at(0));
        assert_eq!(
            state.on_status(
                node(1),
                Status {
                    uptime_ms: 3,
                    began_unix_ms: Some(20_000),
                    ..status(1, 0, 1)
                },
                at(20_000)
            ),
            []
        );
    }

    #[test]
    fn catalogs_are_shared() {
        let mut state = state_with(&[(1, "a"), (2, "b")]);
        for n in [1, 2] {
            state.on_status(node(n), status(1, 0, 0), at(0));
            let descriptor = Descriptor {
                role: bus_schema::plan::ComponentRole::Source,
                name: "sqlite".into(),
                summary: String::new(),
                schema: "{}".into(),
                example: String::new(),
                inputs_max: 0,
                durable: true,
            };
            let changes = state.on_catalog(node(n), [0; 32], vec![descriptor]);
            state.apply(changes, true, at(0));
        }
        let [a, b] = [1, 2].map(|n| state.daemon(&node(n)).unwrap().catalog().unwrap().as_ptr());
        assert_eq!(a, b);
    }

    #[test]
    fn the_second_of_a_kind_is_not_asked() {
        let mut state = state_with(&[(1, "a"), (2, "b")]);
        let catalog = super::super::catalogs::hash_of(&[]);
        let says = |state: &mut State, n: u8| {
            let status = Status {
                catalog,
                ..status(1, 0, 0)
            };
            let effects = state.on_status(node(n), status, at(0));
            effects.iter().any(|effect| matches!(effect, Effect::AskCatalog { .. }))
        };
        assert!(says(&mut state, 1));
        let changes = state.on_catalog(node(1), catalog, Vec::new());
        state.apply(changes, true, at(0));
        assert!(!says(&mut state, 2));
        assert!(state.daemon(&node(2)).unwrap().catalog().is_some());
        let stored = state.take_unsaved_catalogs();
        assert!(matches!(stored[..], [Change::Catalog { node: of, .. }] if of == node(2)));
    }

    #[test]
    fn a_plan_that_is_too_large_is_refused() {
        let state = state_with(&[(1, "gw")]);
        let mut large = part("a", 1);
        large.nodes.push(bus_schema::plan::PlanNode {
            id: "x".into(),
            role: bus_schema::plan::ComponentRole::Source,
            component: "file".into(),
            config: "x".repeat(MESSAGE_BYTES_MAX),
        });
        let refused = state
            .place(&large.id.clone(), [(node(1), large)].into(), &signer())
            .unwrap_err();
        assert_eq!(refused.daemon, "gw");
    }

    #[test]
    fn a_reissued_plan_says_the_same_under_a_higher_version() {
        let mut state = state_with(&[(1, "gw")]);
        let id = WorkflowId::of_name("a");
        let changes = state.place(&id, [(node(1), part("a", 1))].into(), &signer()).unwrap();
        state.apply(changes, true, at(0));
        let effects = state.on_status(node(1), status(1, 0, 44), at(0));
        assert!(effects.contains(&Effect::Reissue(node(1))));
        let change = state.reissue(&node(1), &signer()).unwrap();
        state.apply([change], true, at(0));
        let plan = state.plans.of(&node(1)).unwrap();
        assert_eq!(
            (plan.version, plan.workflows.as_slice()),
            (45, &[testing::part("a", 1)][..])
        );
        assert_eq!(
            plan.signed.open(&identity(100).public().sign).map(|plan| plan.version),
            Ok(45)
        );
    }

    #[test]
    fn last_words_are_stored_once() {
        let mut state = state_with(&[(1, "gw")]);
        state.on_status(node(1), status(1, 0, 0), at(5));
        assert_eq!(state.take_unsaved(Share::All).len(), 1);
        assert_eq!(state.take_unsaved(Share::All).len(), 0);
        let changed = state.tick(at(1_000_000));
        assert_eq!(changed, [(node(1), Presence::Offline)]);
    }
}
