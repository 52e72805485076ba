//! Who has to do with whom, by the plans: whose keys a daemon has to know, and who has to hear of a daemon's new keys. Performs no
//! I/O.

use std::collections::BTreeSet;

use bus_schema::{id::NodeId, member::Roster, plan::PlanWorkflow};

use super::{State, ledger, plans::Deployed};

/// A daemon that its plan has parted from others.
#[derive(Debug, Clone)]
pub struct Parted {
    /// From whom.
    from: BTreeSet<NodeId>,
    /// By which version of the roster.
    pub(super) roster: u64,
    /// When, by the monotonic clock in milliseconds.
    pub(super) since_ms: u64,
}

/// The daemons at the other ends of the streams in these parts of workflows on a daemon.
fn peers_in(node: &NodeId, workflows: &[PlanWorkflow]) -> BTreeSet<NodeId> {
    let ends = workflows
        .iter()
        .flat_map(ledger::streams_of)
        .flat_map(|stream| [stream.producer, stream.consumer]);
    ends.filter(|end| end != node).collect()
}

impl State {
    /// Whether these workflows give a daemon streams from or to others than before: of these it has to be told.
    pub(super) fn has_new_peers(&self, node: &NodeId, workflows: &[PlanWorkflow]) -> bool {
        !peers_in(node, workflows).is_subset(&self.peers_of(node))
    }

    /// The same, or no streams any more with somebody: it is not told of that one's keys any more, so it must not go on believing
    /// those that it knows.
    pub(super) fn has_other_peers(&self, node: &NodeId, workflows: &[PlanWorkflow]) -> bool {
        peers_in(node, workflows) != self.peers_of(node)
    }

    /// The daemons at the other ends of a daemon's streams, by its plan.
    pub fn peers_of(&self, node: &NodeId) -> BTreeSet<NodeId> {
        peers_in(node, self.plans.of(node).map_or(&[][..], |plan| &plan.workflows))
    }

    /// Those who believe a daemon's keys: its peers, and those whose plan names it already while its own does not yet, in a rollout.
    pub(super) fn believers_of(&self, node: &NodeId) -> BTreeSet<NodeId> {
        let names = |plan: &Deployed| {
            plan.workflows
                .iter()
                .flat_map(ledger::streams_of)
                .any(|stream| stream.producer == *node || stream.consumer == *node)
        };
        let mut all = self.peers_of(node);
        all.extend(
            self.plans
                .nodes()
                .filter(|(_, plan)| names(plan))
                .map(|(other, _)| *other),
        );
        all.remove(node);
        all
    }

    /// What a daemon is told of the fleet: of those whom its plan names, and of those whom the plan before named, to which it may go back.
    pub fn roster_for(&self, node: &NodeId) -> Roster {
        let mut peers = self.peers_of(node);
        peers.extend(self.parted.get(node).into_iter().flat_map(|parted| &parted.from));
        self.members.roster_for(node, &peers)
    }

    /// Notes from whom a plan parts a daemon, before it is installed.
    pub(super) fn note_parted(&mut self, node: NodeId, workflows: &[PlanWorkflow], now_ms: u64) {
        let kept = peers_in(&node, workflows);
        let mut from = self.peers_of(&node);
        from.extend(
            self.parted
                .get(&node)
                .into_iter()
                .flat_map(|parted| parted.from.iter().copied()),
        );
        from.retain(|peer| !kept.contains(peer));
        if from.is_empty() {
            return;
        }
        let parted = Parted {
            from,
            roster: self.members.version(),
            since_ms: now_ms,
        };
        self.parted.insert(node, parted);
    }
}
