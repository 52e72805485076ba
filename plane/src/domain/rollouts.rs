//! The rollouts there are: begins them, looks at daemons for them, and makes changes of what they decide. What a rollout
//! decides is in `rollout`.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use bus_schema::{
    id::{NodeId, WorkflowId},
    plan::{PlanWorkflow, Root},
    rollout::{RolloutCommand, RolloutFailure, RolloutPhase, RolloutPolicy, RolloutView, WaveView},
};

use super::{
    Change, Now, State,
    change::Signer,
    daemon::Daemon,
    rollout::{self, ACTIVE_MAX, Before, Deed, Exchange, Head, Health, Look, Order, WAVES_MAX, Watch},
    state::TooLarge,
    workflows::Revision,
};

/// Rollouts that are over and still shown.
pub const PAST_MAX: usize = 100;
/// Failures that are shown of one rollout.
const FAILURES_MAX: usize = 100;

#[derive(Debug, Clone)]
struct Active {
    order: Arc<Order>,
    head: Head,
    watch: Option<Watch>,
    /// Since when the head says what it says; `None` before it has moved since a restart.
    since_ms: Option<u64>,
}

/// All rollouts.
#[derive(Debug, Clone, Default)]
pub struct Rollouts {
    active: BTreeMap<u64, Active>,
    /// The oldest first.
    past: VecDeque<RolloutView>,
    last_id: u64,
}

impl Rollouts {
    /// The rollout of a workflow that is under way.
    pub fn of(&self, workflow: &str) -> Option<u64> {
        let mut active = self.active.iter();
        active.find_map(|(id, active)| (active.order.workflow == workflow).then_some(*id))
    }

    /// What was ordered of those that are under way.
    pub fn orders(&self) -> impl Iterator<Item = &Order> {
        self.active.values().map(|active| &*active.order)
    }

    /// One that is over, as long as it is shown.
    pub fn over(&self, id: u64) -> Option<&RolloutView> {
        self.past.iter().find(|view| view.id == id)
    }

    /// Whether none is under way.
    pub fn is_quiet(&self) -> bool {
        self.active.is_empty()
    }

    /// One has begun, or is read back after a restart and stands there.
    pub fn begin(&mut self, order: Arc<Order>, mut head: Head) {
        // After a restart daemons have to be heard first; nothing is lost by soaking again.
        if head.phase == RolloutPhase::Soaking {
            head.phase = RolloutPhase::Taking;
        }
        self.last_id = self.last_id.max(order.id);
        let watch = None;
        let since_ms = None;
        let active = Active {
            order,
            head,
            watch,
            since_ms,
        };
        self.active.insert(active.order.id, active);
    }

    /// One stands there now.
    pub fn set_head(&mut self, id: u64, head: Head, now_ms: u64) {
        if let Some(active) = self.active.get_mut(&id) {
            if let Some(watch) = active.watch.as_mut().filter(|_| active.head.phase != head.phase) {
                watch.begins(now_ms);
            }
            active.head = head;
            active.since_ms = Some(now_ms);
        }
    }

    /// How long each stands where it stands, in milliseconds, by workflow. While it soaks, it does not stand.
    pub fn standing(&mut self, now_ms: u64) -> Vec<(String, u64)> {
        let stands = |active: &mut Active| {
            let since = *active.since_ms.get_or_insert(now_ms);
            let stood = match active.head.phase {
                RolloutPhase::Soaking => 0,
                _ => now_ms.saturating_sub(since),
            };
            (active.order.workflow.clone(), stood)
        };
        self.active.values_mut().map(stands).collect()
    }

    /// One is over.
    pub fn end(&mut self, view: RolloutView) {
        self.active.remove(&view.id);
        self.last_id = self.last_id.max(view.id);
        self.past.push_back(view);
        if self.past.len() > PAST_MAX {
            self.past.pop_front();
        }
    }
}

/// Looks at daemons for one workflow.
struct Looker<'a> {
    state: &'a State,
    workflow: WorkflowId,
    now: Now,
}

impl Look for Looker<'_> {
    fn health(&self, node: &NodeId) -> Option<Health> {
        let is_member = self.state.members.get(node).is_some();
        is_member.then(|| self.state.health(node, &self.workflow, self.now))
    }
}

/// Why a rollout does not begin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unstartable {
    /// Too many at one time.
    #[error("{ACTIVE_MAX} rollouts are under way")]
    Busy,
    /// Every daemon has what it shall have.
    #[error("every daemon runs this already: there is nothing to roll out")]
    Nothing,
    /// The policy makes no sense.
    #[error("a rollout has at most {WAVES_MAX} waves")]
    Waves,
    /// A daemon cannot take its plan.
    #[error("daemon '{}' cannot take it: {}", .0.daemon, .0.cause)]
    TooLarge(TooLarge),
}

impl State {
    /// The daemons of a rollout that is under way: those that have the revision, and those that shall. Who was taken out of the
    /// fleet since it began is none of them.
    pub fn rollout_daemons(&self, id: u64) -> Option<impl Iterator<Item = &NodeId>> {
        let active = self.rollouts.active.get(&id)?;
        let members = |node: &&NodeId| self.members.get(node).is_some();
        Some(active.order.parts.keys().filter(members))
    }

    /// How a daemon is, of one workflow.
    pub fn health(&self, node: &NodeId, workflow: &WorkflowId, now: Now) -> Health {
        let daemon = self.daemon(node);
        let is_there = daemon.is_some_and(Daemon::is_believed);
        let last = daemon.and_then(Daemon::last);
        let said = daemon.and_then(|daemon| daemon.workflow(workflow));
        let mut health = Health {
            is_there,
            silent_ms: daemon.and_then(|daemon| daemon.silent_ms(now)),
            has_plan: is_there && self.plans.waiting_ms(node, now.mono_ms).is_none(),
            plan_error: last.map_or(String::new(), |last| last.plan_error.clone()),
            part: said.map(|said| (said.revision, said.state)),
            cause: said.map_or(String::new(), |said| said.cause.clone()),
            ..Health::default()
        };
        for stream in self
            .streams
            .of_node(node)
            .filter(|stream| stream.workflow() == workflow)
        {
            let ledger = &stream.account().ledger;
            health.dead = health.dead.saturating_add(ledger.dead);
            health.dropped = health.dropped.saturating_add(ledger.dropped);
            health.buffered_bytes = health.buffered_bytes.saturating_add(stream.buffered_bytes());
            let (lag_ms, is_older) = stream.lateness(now.mono_ms);
            health.lag_ms = health.lag_ms.max(lag_ms);
            health.lag_is_older |= is_older;
            health.rate += u64::from(stream.rate(now.mono_ms));
        }
        health
    }

    /// Gives single daemons another part of a workflow, or none.
    fn place_some(
        &self,
        workflow: &WorkflowId,
        parts: BTreeMap<NodeId, Option<PlanWorkflow>>,
        signer: &Signer,
    ) -> Result<Vec<Change>, TooLarge> {
        let mut all: BTreeMap<NodeId, PlanWorkflow> = self
            .plans
            .parts_of(workflow)
            .map(|(node, part)| (*node, part.clone()))
            .collect();
        for (node, part) in parts {
            match part {
                Some(part) => drop(all.insert(node, part)),
                None => drop(all.remove(&node)),
            }
        }
        self.place(workflow, all, signer)
    }

    /// What a rollout would do: `parts` is what each daemon shall run in the end.
    #[allow(clippy::too_many_arguments, reason = "all of it is what an order is made of")]
    pub fn order_rollout(
        &self,
        workflow: &str,
        number: u32,
        parts: BTreeMap<NodeId, PlanWorkflow>,
        policy: RolloutPolicy,
        caller: &str,
        signer: &Signer,
        now: Now,
    ) -> Result<Order, Unstartable> {
        if self.rollouts.active.len() >= ACTIVE_MAX {
            return Err(Unstartable::Busy);
        }
        if policy.waves.len() > WAVES_MAX {
            return Err(Unstartable::Waves);
        }
        let id = WorkflowId::of_name(workflow);
        // Whether every daemon can take it is told now, and not in the last wave.
        self.place(&id, parts.clone(), signer).map_err(Unstartable::TooLarge)?;
        let before: BTreeMap<NodeId, PlanWorkflow> =
            self.plans.parts_of(&id).map(|(n, part)| (*n, part.clone())).collect();
        let changed = self.plans.with_workflow(&id, parts.clone());
        let parts: BTreeMap<NodeId, Exchange> = changed
            .into_keys()
            .map(|node| {
                let (before, after) = (before.get(&node).cloned(), parts.get(&node).cloned());
                (node, Exchange { before, after })
            })
            .collect();
        if parts.is_empty() {
            return Err(Unstartable::Nothing);
        }
        let mut nodes: Vec<NodeId> = parts.keys().copied().collect();
        nodes.sort_by_key(|node| self.members.name_of(node));
        // Whoever others send to has to be there when they do.
        let (first, others) = nodes.into_iter().partition(|node| consumes(&parts[node], node));
        let before = self.workflows.get(workflow).map(|revision| Before {
            number: revision.number,
            text: revision.text.clone(),
            by: revision.by.clone(),
            at_unix_ms: revision.at_unix_ms,
        });
        Ok(Order {
            id: self.rollouts.last_id + 1,
            workflow: workflow.to_string(),
            revision: number,
            before,
            by: caller.to_string(),
            at_unix_ms: now.unix_ms,
            waves: rollout::waves(first, others, &policy),
            policy,
            parts,
        })
    }

    /// What an operator's word changes of a rollout; the error says why nothing.
    pub fn tell_rollout(
        &self,
        id: u64,
        command: RolloutCommand,
        reason: &str,
        signer: &Signer,
        now: Now,
    ) -> Result<Vec<Change>, String> {
        let Some(active) = self.rollouts.active.get(&id) else {
            return Err(match self.rollouts.over(id) {
                Some(view) => format!("rollout {id} is over: {}", view.cause),
                None => format!("there is no rollout {id}"),
            });
        };
        let (head, deed) = rollout::told(&active.order, &active.head, command, reason)?;
        Ok(self.carry_out(&active.order, head, deed, signer, now))
    }

    /// What time makes of the rollouts: the changes of the first that goes on; empty when none does.
    pub fn step_rollouts(&mut self, signer: &Signer, now: Now) -> Vec<Change> {
        let ids: Vec<u64> = self.rollouts.active.keys().copied().collect();
        for id in ids {
            let Some(Active { order, head, watch, .. }) = self.rollouts.active.get(&id).cloned() else {
                continue;
            };
            let look = Looker {
                state: self,
                workflow: WorkflowId::of_name(&order.workflow),
                now,
            };
            let mut watch = watch.unwrap_or_else(|| Watch::restore(&order, &head, now.mono_ms, &look));
            let stepped = rollout::step(&order, &head, &mut watch, now.mono_ms, &look);
            if let Some(active) = self.rollouts.active.get_mut(&id) {
                active.watch = Some(watch);
            }
            if let Some((head, deed)) = stepped {
                return self.carry_out(&order, head, deed, signer, now);
            }
        }
        Vec::new()
    }

    /// Everything that changes together.
    fn carry_out(&self, order: &Order, mut head: Head, deed: Option<Deed>, signer: &Signer, now: Now) -> Vec<Change> {
        let workflow = WorkflowId::of_name(&order.workflow);
        let mut changes = Vec::new();
        let parts = |waves: &[Vec<NodeId>], of: fn(&Exchange) -> &Option<PlanWorkflow>| {
            // A plan for who was taken out of the fleet meanwhile would stand in the workflow for ever.
            let nodes = waves.iter().flatten().filter(|node| self.members.get(node).is_some());
            nodes
                .filter_map(|node| Some((*node, of(order.parts.get(node)?).clone())))
                .collect()
        };
        match deed {
            Some(Deed::Place(wave)) => {
                let after = parts(&order.waves[wave..=wave], |part| &part.after);
                match self.place_some(&workflow, after, signer) {
                    Ok(placed) => changes.extend(placed),
                    // Another workflow has taken the room meanwhile.
                    Err(large) => {
                        head.phase = RolloutPhase::Paused;
                        head.is_placed = false;
                        head.cause = format!("wave {}: daemon '{}': {}", wave + 1, large.daemon, large.cause);
                    }
                }
            }
            Some(Deed::Restore(waves)) => {
                let before = parts(&order.waves[..waves.min(order.waves.len())], |part| &part.before);
                match self.place_some(&workflow, before, signer) {
                    Ok(placed) => changes.extend(placed),
                    Err(large) => {
                        head.phase = RolloutPhase::Paused;
                        head.cause = format!("cannot go back: daemon '{}': {}", large.daemon, large.cause);
                    }
                }
            }
            None => {}
        }
        if head.phase == RolloutPhase::RolledBack {
            changes.push(match &order.before {
                Some(before) => Change::Reverted(Revision {
                    workflow: order.workflow.clone(),
                    number: before.number,
                    text: before.text.clone(),
                    by: before.by.clone(),
                    at_unix_ms: before.at_unix_ms,
                }),
                None => Change::Retired(order.workflow.clone()),
            });
        }
        changes.push(match head.phase.is_over() {
            true => Change::RolloutEnded(Box::new(self.view_rollout(order, &head, now))),
            false => Change::RolloutHead { id: order.id, head },
        });
        changes
    }

    /// All rollouts, the newest first.
    pub fn rollout_views(&self, now: Now) -> Vec<RolloutView> {
        let active = self.rollouts.active.values();
        let mut views: Vec<_> = active
            .map(|active| self.view_rollout(&active.order, &active.head, now))
            .collect();
        views.extend(self.rollouts.past.iter().cloned());
        views.sort_by_key(|view| std::cmp::Reverse(view.id));
        views
    }

    /// One rollout, for people to read.
    pub fn view_rollout(&self, order: &Order, head: &Head, now: Now) -> RolloutView {
        let workflow = WorkflowId::of_name(&order.workflow);
        let failed: BTreeMap<&NodeId, &String> = head.failed.iter().map(|(node, cause)| (node, cause)).collect();
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let takes = |node: &NodeId| {
            let health = self.health(node, &workflow, now);
            let wants = order.parts.get(node).and_then(|part| part.after.as_ref());
            health.has_plan && wants.is_none_or(|_| health.part.is_some_and(|(revision, _)| revision == order.revision))
        };
        let wave = |(at, nodes): (usize, &Vec<NodeId>)| {
            let nodes: Vec<&NodeId> = nodes.iter().filter(|node| self.members.get(node).is_some()).collect();
            WaveView {
                daemons: count(nodes.len()),
                taken: match at < head.placed_waves() {
                    true => count(nodes.iter().filter(|node| takes(node)).count()),
                    false => 0,
                },
                failed: count(nodes.iter().filter(|node| failed.contains_key(*node)).count()),
            }
        };
        RolloutView {
            id: order.id,
            workflow: order.workflow.clone(),
            revision: order.revision,
            before: order.before.as_ref().map_or(0, |before| before.number),
            by: order.by.clone(),
            at_unix_ms: order.at_unix_ms,
            phase: head.phase,
            wave: count((head.wave + 1).min(order.waves.len())),
            waves: order.waves.iter().enumerate().map(wave).collect(),
            cause: head.cause.clone(),
            failures: head
                .failed
                .iter()
                .take(FAILURES_MAX)
                .map(|(node, cause)| RolloutFailure {
                    daemon: self.members.name_of(node),
                    cause: cause.clone(),
                })
                .collect(),
            policy: RolloutPolicy {
                lag_s_max: order.policy.lag_s_max().unwrap_or(0).into(),
                ..order.policy.clone()
            },
        }
    }
}

/// Whether others send records to a daemon, by what it has or shall have.
fn consumes(part: &Exchange, node: &NodeId) -> bool {
    let parts = [&part.before, &part.after].into_iter().flatten();
    parts
        .flat_map(|part| &part.pipes)
        .any(|pipe| matches!(&pipe.root, Root::Stream(stream) if stream.producer != *node))
}

#[cfg(test)]
mod tests {
    use bus_schema::{
        id::StreamId,
        member::{Role, Signed},
        message::{HostFacts, Ledger, RunState, Side, StreamReport, WorkflowStatus},
        rollout::Amount,
    };

    use super::*;
    use crate::domain::{
        members::Member,
        testing::{certificate, fleet, identity, node, part, status},
    };

    fn signer() -> Signer {
        Signer {
            root: identity(0),
            plane: identity(100),
        }
    }

    fn at(mono_ms: u64) -> Now {
        Now { mono_ms, unix_ms: 0 }
    }

    /// Three daemons that run revision 1, and the rollout of revision 2 to one of them and then to the others.
    fn begun() -> State {
        let mut state = State::new(fleet(), node(100));
        for n in 1..=3 {
            let certificate = certificate(n, &format!("gw-{n}"), Role::Daemon);
            state.members.insert(Member {
                signed: Signed::new(&certificate, &identity(0)),
                certificate,
                host: HostFacts::default(),
                enrolled_unix_ms: 0,
            });
        }
        let parts = |revision| (1..=3).map(|n| (node(n), part("a", revision))).collect();
        let changes = state.place(&WorkflowId::of_name("a"), parts(1), &signer()).unwrap();
        state.apply(changes, true, at(0));
        let policy = RolloutPolicy {
            waves: vec![Amount::Count(1)],
            soak_s: 10,
            take_s: 60,
            lag_s_max: 5.into(),
            ..RolloutPolicy::default()
        };
        let order = state.order_rollout("a", 2, parts(2), policy, "anna", &signer(), at(0));
        state.apply([Change::RolloutBegun(Arc::new(order.unwrap()))], true, at(0));
        state
    }

    /// All but the silent ones say that they run what they shall run, in this state; then the rollouts take their steps.
    fn tick(state: &mut State, mono_ms: u64, run: RunState, silent: &[u8]) {
        for n in (1..=3).filter(|n| !silent.contains(n)) {
            let Some(plan) = state.plans.of(&node(n)).cloned() else {
                continue;
            };
            let says = |part: &PlanWorkflow| WorkflowStatus {
                workflow: part.id,
                revision: part.revision,
                state: if part.revision == 2 { run } else { RunState::Running },
                cause: String::new(),
            };
            let mut said = status(1, mono_ms, plan.version);
            said.workflows = plan.workflows.iter().map(says).collect();
            state.on_status(node(n), said, at(mono_ms));
        }
        let changes = state.step_rollouts(&signer(), at(mono_ms));
        state.apply(changes, true, at(mono_ms));
    }

    fn revoke(state: &mut State, n: u8) {
        let roster = state.members.roster_without(&node(n));
        let signed = Signed::new(&roster, &identity(0));
        state.apply([Change::Roster { roster, signed }], true, at(0));
    }

    fn runs(state: &State) -> Vec<Option<u32>> {
        let revision = |n| state.plans.of(&node(n)).map(|plan| plan.workflows[0].revision);
        (1..=3).map(revision).collect()
    }

    #[test]
    fn who_leaves_the_fleet_leaves_its_rollouts() {
        let mut state = begun();
        tick(&mut state, 1_000, RunState::Running, &[]);
        assert_eq!(runs(&state), [Some(2), Some(1), Some(1)]);
        // The first is in the wave that is being deployed, the third in one that is still to come.
        revoke(&mut state, 1);
        revoke(&mut state, 3);
        assert_eq!(state.rollout_daemons(1).unwrap().collect::<Vec<_>>(), [&node(2)]);
        for second in 2..60 {
            tick(&mut state, second * 1_000, RunState::Running, &[]);
        }
        let views = state.rollout_views(at(60_000));
        assert_eq!(views[0].phase, RolloutPhase::Done, "{}", views[0].cause);
        assert_eq!((runs(&state), views[0].failures.len()), (vec![None, Some(2), None], 0));
        let waves: Vec<_> = views[0].waves.iter().map(|wave| (wave.daemons, wave.taken)).collect();
        assert_eq!(waves, [(0, 0), (1, 1)]);
    }

    #[test]
    fn a_revision_that_lets_records_wait_goes_back() {
        // (what waits from the beginning on, whether the revision moves on, how it ends)
        for (waits, moves, phase) in [
            (0, true, RolloutPhase::Done),
            (0, false, RolloutPhase::RolledBack),
            // Nobody has seen how long it has waited before.
            (50, false, RolloutPhase::Done),
        ] {
            let mut state = begun();
            for second in 0..60 {
                let produced = 100 + second * 10;
                let delivered = if moves { produced } else { 100 - waits };
                let report = StreamReport {
                    stream: StreamId::from_hash(&[1; 32]),
                    workflow: WorkflowId::of_name("a"),
                    edge: "x->y".into(),
                    side: Side::Direct,
                    epoch: 1,
                    watermark: delivered,
                    ledger: Ledger {
                        produced,
                        delivered,
                        buffered: produced - delivered,
                        ..Ledger::default()
                    },
                    dead_before: 0,
                    settled_earlier: 0,
                    dropped_earlier: 0,
                    buffered_bytes: 0,
                    gaps: 0,
                    trouble: String::new(),
                };
                state.on_reports(node(1), 1, vec![report], at(second * 1_000));
                tick(&mut state, second * 1_000, RunState::Running, &[]);
            }
            let view = &state.rollout_views(at(60_000))[0];
            assert_eq!(view.phase, phase, "{waits} {moves}: {}", view.cause);
            let is_told = view.cause.contains("its oldest record waits 6 s longer than before");
            assert_eq!(is_told, phase == RolloutPhase::RolledBack, "{}", view.cause);
        }
    }

    #[test]
    fn what_is_taken_back_is_not_given_to_who_has_left() {
        // (when it leaves: before it is taken back, or while that goes on)
        for leaves_first in [true, false] {
            let mut state = begun();
            tick(&mut state, 1_000, RunState::Running, &[]);
            if leaves_first {
                revoke(&mut state, 1);
            }
            let told = state.tell_rollout(1, RolloutCommand::RollBack, "no", &signer(), at(2_000));
            state.apply(told.unwrap(), true, at(2_000));
            if !leaves_first {
                assert_eq!(runs(&state)[0], Some(1));
                tick(&mut state, 3_000, RunState::Running, &[1]);
                assert_eq!(state.rollout_views(at(3_000))[0].phase, RolloutPhase::RollingBack);
                revoke(&mut state, 1);
            }
            tick(&mut state, 4_000, RunState::Running, &[1]);
            let view = &state.rollout_views(at(4_000))[0];
            assert_eq!((view.phase, view.cause.as_str()), (RolloutPhase::RolledBack, "no"));
            assert_eq!(runs(&state), [None, Some(1), Some(1)]);
        }
    }
}
