//! What each daemon should run against what it says it runs. Level-triggered: only the newest report counts, and a daemon
//! that is behind is told again until it is not. Versions only go up, whatever disk was lost at either end.
//! Signs nothing and sends nothing.

use std::collections::{BTreeMap, BTreeSet};

use bus_schema::{
    id::{NodeId, WorkflowId},
    member::Signed,
    plan::{Plan, PlanWorkflow},
};

/// A daemon that is behind is sent its plan at most this often, in milliseconds.
pub const AGAIN_MS: u64 = 4_000;
/// The same for a daemon that has said why it cannot apply it, in milliseconds.
pub const AGAIN_REFUSED_MS: u64 = 60_000;

/// A daemon is believed that it has a plan of a version up to this one, whoever made that. No fleet gets there by deploying; and it
/// leaves room above for as many deployments again, whatever a stolen daemon says.
pub const HEARD_MAX: u64 = 1 << 48;
/// No version above this one was ever given by a plane: a number above it is damage.
pub const GIVEN_MAX: u64 = 2 * HEARD_MAX;

/// A plan as it was deployed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deployed {
    /// Its version.
    pub version: u64,
    /// What it says.
    pub workflows: Vec<PlanWorkflow>,
    /// The same, signed.
    pub signed: Signed<Plan>,
}

#[derive(Debug, Clone)]
struct Wanted {
    plan: Deployed,
    /// Its daemon has said that it runs this very plan, and not another one of the same number.
    confirmed: bool,
    sent_ms: Option<u64>,
    reported: u64,
    since_ms: u64,
}

/// What a report asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Nothing to do (now).
    Settled,
    /// Send the plan.
    Send,
    /// The daemon has this number, or a higher one, from elsewhere: deploy the same content under a higher version.
    Reissue,
}

/// The plans of all daemons.
#[derive(Debug, Clone, Default)]
pub struct Plans {
    wanted: BTreeMap<NodeId, Wanted>,
    /// Highest version ever given or heard of.
    floor: u64,
    /// Who has reported since the plane started.
    heard: BTreeSet<NodeId>,
    newly_confirmed: BTreeSet<NodeId>,
}

impl Plans {
    /// The version the next deployment gets.
    pub fn next_version(&self) -> u64 {
        self.floor.saturating_add(1)
    }

    /// Highest version ever given or heard of; has to survive a restart.
    pub fn floor(&self) -> u64 {
        self.floor
    }

    /// Versions up to this one are taken. What cannot have been given takes none.
    pub fn raise_floor(&mut self, version: u64) {
        if version <= GIVEN_MAX {
            self.floor = self.floor.max(version);
        }
    }

    /// A daemon has said that it has a plan of this version. Returns whether that can be: a lie takes no version, or one daemon
    /// could use up those of the whole fleet.
    pub fn hear(&mut self, version: u64) -> bool {
        if version <= HEARD_MAX {
            self.raise_floor(version);
        }
        version <= self.floor
    }

    /// The plan of a daemon; `None` when it never had one.
    pub fn of(&self, node: &NodeId) -> Option<&Deployed> {
        self.wanted.get(node).map(|wanted| &wanted.plan)
    }

    /// Whether a workflow is in a daemon's plan.
    pub fn runs(&self, node: &NodeId, workflow: &WorkflowId) -> bool {
        self.of(node)
            .is_some_and(|plan| plan.workflows.iter().any(|part| part.id == *workflow))
    }

    /// All daemons with a plan.
    pub fn nodes(&self) -> impl Iterator<Item = (&NodeId, &Deployed)> {
        self.wanted.iter().map(|(node, wanted)| (node, &wanted.plan))
    }

    /// The daemons a workflow is placed on, with their parts.
    pub fn parts_of(&self, workflow: &WorkflowId) -> impl Iterator<Item = (&NodeId, &PlanWorkflow)> {
        self.nodes()
            .filter_map(move |(node, plan)| Some((node, plan.workflows.iter().find(|w| w.id == *workflow)?)))
    }

    /// What every daemon's plan becomes when `workflow` is placed like this (on nobody: when it is deleted). Only
    /// daemons whose plan really changes are listed.
    pub fn with_workflow(
        &self,
        workflow: &WorkflowId,
        mut parts: BTreeMap<NodeId, PlanWorkflow>,
    ) -> BTreeMap<NodeId, Vec<PlanWorkflow>> {
        let mut nodes: Vec<NodeId> = self.wanted.keys().chain(parts.keys()).copied().collect();
        nodes.sort_unstable();
        nodes.dedup();
        let mut changed = BTreeMap::new();
        for node in nodes {
            let before = self.of(&node).map_or(&[][..], |plan| &plan.workflows);
            let mut after: Vec<_> = before.iter().filter(|other| other.id != *workflow).cloned().collect();
            after.extend(parts.remove(&node));
            after.sort_by(|a, b| a.name.cmp(&b.name));
            if after != before {
                changed.insert(node, after);
            }
        }
        changed
    }

    /// A plan is deployed and durable. `confirmed` when it is read back after a restart and its daemon was known to run it.
    pub fn install(&mut self, node: NodeId, plan: Deployed, confirmed: bool, now_ms: u64) {
        self.raise_floor(plan.version);
        self.newly_confirmed.remove(&node);
        let reported = self.wanted.get(&node).map_or(0, |wanted| wanted.reported);
        self.wanted.insert(
            node,
            Wanted {
                plan,
                confirmed,
                sent_ms: None,
                reported,
                since_ms: now_ms,
            },
        );
    }

    /// Whether a daemon is known to run its plan; `None` when it has none.
    pub fn is_confirmed(&self, node: &NodeId) -> Option<bool> {
        self.wanted.get(node).map(|wanted| wanted.confirmed)
    }

    /// Daemons whose plan was confirmed since the last call; has to survive a restart.
    pub fn take_confirmed(&mut self) -> Vec<NodeId> {
        std::mem::take(&mut self.newly_confirmed).into_iter().collect()
    }

    /// How long, in milliseconds, a daemon's plan has been waiting to be applied; `None` when it is.
    pub fn waiting_ms(&self, node: &NodeId, now_ms: u64) -> Option<u64> {
        let wanted = self.wanted.get(node)?;
        (wanted.reported < wanted.plan.version).then(|| now_ms.saturating_sub(wanted.since_ms))
    }

    /// A daemon says which plan it runs, and whether there is a newer one it cannot apply.
    pub fn reported(&mut self, node: &NodeId, version: u64, troubled: bool, now_ms: u64) -> Step {
        // Who says what cannot be has said nothing, and is told again what it shall run.
        let version = if self.hear(version) { version } else { 0 };
        let first = self.heard.insert(*node);
        let Some(wanted) = self.wanted.get_mut(node) else {
            return Step::Settled;
        };
        wanted.reported = version;
        if version > wanted.plan.version {
            // A plan that was in force is an old copy now (the store was restored), and nobody knows what the newer one
            // says: let the data flow, and let people decide. One that never was in force is what people want.
            return if wanted.confirmed { Step::Settled } else { Step::Reissue };
        }
        if version == wanted.plan.version {
            // A plane that has lost its store counts from the start again: the first thing it hears of a daemon can be
            // the same number with another content. Numbers given later are higher than whatever was heard.
            if first && !wanted.confirmed {
                return Step::Reissue;
            }
            if !wanted.confirmed {
                wanted.confirmed = true;
                self.newly_confirmed.insert(*node);
            }
            return Step::Settled;
        }
        let pause = if troubled { AGAIN_REFUSED_MS } else { AGAIN_MS };
        if wanted.sent_ms.is_some_and(|sent| now_ms.saturating_sub(sent) < pause) {
            return Step::Settled;
        }
        wanted.sent_ms = Some(now_ms);
        Step::Send
    }

    /// The plan was sent just now, without being asked for.
    pub fn sent(&mut self, node: &NodeId, now_ms: u64) {
        if let Some(wanted) = self.wanted.get_mut(node) {
            wanted.sent_ms = Some(now_ms);
        }
    }

    /// A daemon is no member any more. Returns whether it had a plan.
    pub fn forget(&mut self, node: &NodeId) -> bool {
        self.newly_confirmed.remove(node);
        self.heard.remove(node);
        self.wanted.remove(node).is_some()
    }

    /// Whether a daemon runs a plan that this plane did not make: its store was lost, or an old copy was restored.
    pub fn is_foreign(&self, node: &NodeId, reported: u64) -> bool {
        reported > self.of(node).map_or(0, |plan| plan.version)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::testing::{fleet, identity, node, part};

    fn deployed(n: u8, version: u64, workflows: Vec<PlanWorkflow>) -> Deployed {
        let plan = Plan {
            fleet: fleet(),
            daemon: node(n),
            version,
            workflows: workflows.clone(),
        };
        Deployed {
            version,
            workflows,
            signed: Signed::new(&plan, &identity(0)),
        }
    }

    #[test]
    fn a_daemon_that_is_behind_is_told_again_but_not_all_the_time() {
        let mut plans = Plans::default();
        assert_eq!(plans.reported(&node(1), 0, false, 0), Step::Settled);
        plans.install(node(1), deployed(1, 3, vec![part("a", 1)]), false, 0);
        // (time, reported version, says it cannot, step)
        for (now, version, troubled, step) in [
            (0, 0, false, Step::Send),
            (AGAIN_MS - 1, 0, false, Step::Settled),
            (AGAIN_MS, 2, false, Step::Send),
            (2 * AGAIN_MS, 2, true, Step::Settled),
            (AGAIN_MS + AGAIN_REFUSED_MS, 2, true, Step::Send),
            // It has one from a plane that lost its store.
            (200_000, 9, false, Step::Reissue),
            (200_000, 3, false, Step::Settled),
            // Its disk was lost.
            (200_000, 0, false, Step::Send),
            // It runs what was deployed, and now something newer that nobody here knows.
            (200_001, 9, false, Step::Settled),
        ] {
            assert_eq!(plans.reported(&node(1), version, troubled, now), step, "at {now}");
        }
        assert_eq!(plans.next_version(), 10);
        assert_eq!(
            (plans.take_confirmed(), plans.take_confirmed()),
            (vec![node(1)], vec![])
        );
    }

    #[test]
    fn the_same_number_with_another_content_is_not_taken_for_the_same() {
        // A plane without memory deploys its plan 3 before it hears that the daemon has a plan 3.
        let mut plans = Plans::default();
        plans.install(node(1), deployed(1, 3, vec![part("a", 1)]), false, 0);
        assert_eq!(plans.reported(&node(1), 3, false, 0), Step::Reissue);
        // After an ordinary restart a confirmed plan needs no other number.
        let mut plans = Plans::default();
        plans.install(node(1), deployed(1, 3, vec![part("a", 1)]), true, 0);
        assert_eq!(plans.reported(&node(1), 3, false, 0), Step::Settled);
    }

    #[test]
    fn a_restored_plane_leaves_newer_plans_alone_until_something_is_deployed() {
        let mut plans = Plans::default();
        plans.install(node(1), deployed(1, 3, vec![part("a", 1)]), true, 0);
        assert_eq!(plans.reported(&node(1), 7, false, 0), Step::Settled);
        assert!(plans.is_foreign(&node(1), 7));
        let changed = plans.with_workflow(&part("a", 2).id, [(node(1), part("a", 2))].into());
        assert_eq!(changed.len(), 1);
        assert_eq!(plans.next_version(), 8);
    }

    #[test]
    fn only_plans_that_change_are_deployed() {
        let mut plans = Plans::default();
        plans.install(node(1), deployed(1, 1, vec![part("a", 1), part("b", 1)]), true, 0);
        plans.install(node(2), deployed(2, 1, vec![part("b", 1)]), true, 0);
        let place = |name: &str, revision, on: &[u8]| {
            on.iter()
                .map(|n| (node(*n), part(name, revision)))
                .collect::<BTreeMap<_, _>>()
        };
        // (workflow, its new parts, daemons whose plan changes and the names in it)
        for (name, parts, changed) in [
            ("a", place("a", 1, &[1]), vec![]),
            ("a", place("a", 2, &[1]), vec![(1, vec!["a", "b"])]),
            ("a", place("a", 2, &[2]), vec![(1, vec!["b"]), (2, vec!["a", "b"])]),
            ("a", place("a", 2, &[3]), vec![(1, vec!["b"]), (3, vec!["a"])]),
            ("b", BTreeMap::new(), vec![(1, vec!["a"]), (2, vec![])]),
            ("c", BTreeMap::new(), vec![]),
        ] {
            let found = plans.with_workflow(&WorkflowId::of_name(name), parts);
            let names: BTreeMap<_, Vec<_>> = found
                .iter()
                .map(|(n, workflows)| (*n, workflows.iter().map(|w| w.name.as_str()).collect()))
                .collect();
            let expected: BTreeMap<_, _> = changed.into_iter().map(|(n, names)| (node(n), names)).collect();
            assert_eq!(names, expected, "{name}");
        }
    }

    #[test]
    fn no_daemon_uses_up_the_versions_of_all() {
        for lie in [
            HEARD_MAX + 1,
            i64::MAX as u64 - 1,
            i64::MAX as u64,
            u64::MAX - 1,
            u64::MAX,
        ] {
            let mut plans = Plans::default();
            plans.install(node(1), deployed(1, 3, vec![part("a", 1)]), false, 0);
            assert_eq!(
                plans.reported(&node(2), lie, false, 0),
                Step::Settled,
                "has no plan here"
            );
            assert_eq!(
                plans.reported(&node(1), lie, false, 0),
                Step::Send,
                "and not one plan after the other"
            );
            assert_eq!(
                plans.reported(&node(1), lie, false, 1),
                Step::Settled,
                "nor all the time"
            );
            assert_eq!(plans.waiting_ms(&node(1), 5), Some(5));
            plans.raise_floor(lie.max(GIVEN_MAX + 1));
            assert_eq!(plans.next_version(), 4, "{lie}");
        }
        // The most that is believed leaves room; and what was given above it is known again.
        let mut plans = Plans::default();
        assert!(plans.hear(HEARD_MAX));
        let version = plans.next_version();
        plans.install(node(1), deployed(1, version, vec![part("a", 1)]), false, 0);
        assert_eq!(plans.reported(&node(1), 0, false, 0), Step::Send);
        assert_eq!(plans.reported(&node(1), version, false, 1), Step::Settled);
        assert_eq!((version, plans.take_confirmed()), (HEARD_MAX + 1, vec![node(1)]));
        assert_eq!(plans.next_version(), HEARD_MAX + 2);
    }

    /// What may happen to one daemon and its plane.
    #[derive(Debug, Clone)]
    enum Happens {
        /// Somebody deploys something else.
        Deploy(u32),
        /// A status, and whether the plan sent for it (if any) arrives.
        Status { arrives: bool },
        /// The daemon's disk is lost.
        DaemonForgets,
        /// The plane restarts with what was durable.
        PlaneRestarts,
        /// The plane's disk is lost and its last deployment is made again from scratch.
        PlaneForgets(u32),
    }

    fn happens() -> impl Strategy<Value = Happens> {
        prop_oneof![
            3 => (1u32..5).prop_map(Happens::Deploy),
            10 => any::<bool>().prop_map(|arrives| Happens::Status { arrives }),
            1 => Just(Happens::DaemonForgets),
            1 => Just(Happens::PlaneRestarts),
            1 => (1u32..5).prop_map(Happens::PlaneForgets),
        ]
    }

    #[derive(Default)]
    struct World {
        plans: Plans,
        now: u64,
        running: (u64, Vec<PlanWorkflow>),
    }

    impl World {
        fn deploy(&mut self, workflows: Vec<PlanWorkflow>) {
            let version = self.plans.next_version();
            self.plans
                .install(node(1), deployed(1, version, workflows), false, self.now);
        }

        fn apply(&mut self, revision: u32) {
            let changed = self
                .plans
                .with_workflow(&part("a", 0).id, [(node(1), part("a", revision))].into());
            for workflows in changed.into_values() {
                self.deploy(workflows);
            }
        }

        fn status(&mut self, arrives: bool) {
            self.now += 5_000;
            let step = self.plans.reported(&node(1), self.running.0, false, self.now);
            if step == Step::Reissue {
                self.deploy(self.plans.of(&node(1)).unwrap().workflows.clone());
            }
            if step != Step::Settled && arrives {
                let plan = self.plans.of(&node(1)).unwrap();
                // The daemon's rule: only a higher version counts.
                if plan.version > self.running.0 {
                    self.running = (plan.version, plan.workflows.clone());
                }
            }
        }
    }

    proptest! {
        #[test]
        fn reconciling_converges_and_versions_only_go_up(story in proptest::collection::vec(happens(), 1..60)) {
            let mut world = World::default();
            for happens in story {
                match happens {
                    Happens::Deploy(revision) => world.apply(revision),
                    Happens::Status { arrives } => world.status(arrives),
                    Happens::DaemonForgets => world.running = (0, Vec::new()),
                    Happens::PlaneRestarts => {
                        let before = std::mem::take(&mut world.plans);
                        world.plans.raise_floor(before.floor());
                        if let Some(wanted) = before.wanted.get(&node(1)) {
                            world.plans.install(node(1), wanted.plan.clone(), wanted.confirmed, 0);
                        }
                    }
                    Happens::PlaneForgets(revision) => {
                        world.plans = Plans::default();
                        world.apply(revision);
                    }
                }
            }
            // When nothing more happens and messages arrive, two statuses are enough. A plan of unknown age is left
            // alone, so somebody deploys once more.
            world.apply(9);
            for _ in 0..3 {
                world.status(true);
            }
            let plan = world.plans.of(&node(1)).unwrap();
            prop_assert_eq!(&world.running, &(plan.version, plan.workflows.clone()));
            prop_assert_eq!(world.plans.reported(&node(1), plan.version, false, world.now), Step::Settled);
        }
    }
}
