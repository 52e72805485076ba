//! What nodes do and streams carry, by the word of the daemons: counts become rates, and averages of what came since the word before.
//! Performs no I/O.

use std::collections::BTreeMap;

use bus_schema::{
    api::NodeView,
    carried::{NodeCarried, StreamCarried, Work},
    id::{NodeId, WorkflowId},
};

use super::{Now, State, clip, rates::Rate};

/// Most nodes kept of one daemon's words.
pub const NODES_PER_DAEMON_MAX: usize = 4_096;
/// A node is forgotten when its daemon has gone on without repeating it for this long, in milliseconds: twice as long as a daemon
/// keeps silent about what does not change.
const STALE_MS: u64 = 60_000;
/// Without a word for this long nothing is said to be moving, in milliseconds.
const SILENT_MS: u64 = 16_000;
/// Words closer together than this are no measure of a rate, in milliseconds.
const APART_MS: u64 = 900;

/// What one stream has carried.
#[derive(Debug, Clone)]
pub struct Way {
    boot: u64,
    last: StreamCarried,
    latency_ms: Option<u64>,
    timed_ms: u64,
    rate: Rate,
}

impl Way {
    /// A daemon says it for the first time.
    pub fn new(boot: u64, first: StreamCarried, now_ms: u64) -> Self {
        let mut way = Self {
            boot,
            last: StreamCarried {
                bytes: 0,
                timed: 0,
                took_ms: 0,
                ..first
            },
            latency_ms: None,
            timed_ms: now_ms,
            rate: Rate::default(),
        };
        way.hear(boot, first, now_ms);
        way
    }

    /// A daemon says it.
    pub fn hear(&mut self, boot: u64, said: StreamCarried, now_ms: u64) {
        let begins = boot != self.boot || said.timed < self.last.timed;
        let (timed, took_ms) = if begins {
            (0, 0)
        } else {
            (self.last.timed, self.last.took_ms)
        };
        if let Some(mean) = said.took_ms.saturating_sub(took_ms).checked_div(said.timed - timed) {
            (self.latency_ms, self.timed_ms) = (Some(mean), now_ms);
        }
        self.rate.sample(now_ms, said.bytes);
        (self.boot, self.last) = (boot, said);
    }

    /// Bytes since its producer opened it.
    pub fn bytes(&self) -> u64 {
        self.last.bytes
    }

    /// Bytes a second.
    pub fn bytes_per_s(&self, now_ms: u64) -> u64 {
        u64::from(self.rate.per_second(now_ms))
    }

    /// How long it took lately; `None` when nothing went.
    pub fn latency_ms(&self, now_ms: u64) -> Option<u64> {
        self.latency_ms
            .filter(|_| now_ms.saturating_sub(self.timed_ms) <= SILENT_MS)
    }
}

/// A node on one daemon.
#[derive(Debug, Clone)]
pub struct Node {
    /// Its workflow.
    pub workflow: WorkflowId,
    /// Its name.
    pub node: Box<str>,
    /// What it did.
    pub work: Work,
    /// Records and bytes a second between the last two words.
    per_s: (u32, u32),
    heard_ms: u64,
    /// What it had done when growth was looked at last.
    looked_at: Option<Work>,
}

impl Node {
    fn hear(&mut self, work: Work, now_ms: u64) {
        let span = now_ms.saturating_sub(self.heard_ms);
        if span >= APART_MS {
            let per_s = |before: u64, now: u64| {
                let grown = u128::from(now.saturating_sub(before)) * 1_000 / u128::from(span);
                u32::try_from(grown).unwrap_or(u32::MAX)
            };
            self.per_s = (
                per_s(self.work.records, work.records),
                per_s(self.work.bytes, work.bytes),
            );
            self.heard_ms = now_ms;
        }
        self.work = work;
    }

    /// Records and bytes a second.
    pub fn per_s(&self, now_ms: u64) -> (u32, u32) {
        if now_ms.saturating_sub(self.heard_ms) > SILENT_MS {
            return (0, 0);
        }
        self.per_s
    }
}

/// How much a node did between two looks, all daemons together.
pub type Growth = BTreeMap<(WorkflowId, Box<str>), Work>;

/// All nodes of the fleet.
#[derive(Debug, Clone, Default)]
pub struct Nodes {
    by_daemon: BTreeMap<NodeId, Vec<Node>>,
}

impl Nodes {
    /// A daemon says what its nodes have done: all of them, or some of many.
    pub fn hear(&mut self, daemon: NodeId, said: Vec<NodeCarried>, now_ms: u64) {
        let known = self.by_daemon.entry(daemon).or_default();
        for NodeCarried { workflow, node, work } in said {
            let found = known.binary_search_by(|one| (&one.workflow, &*one.node).cmp(&(&workflow, node.as_str())));
            match found {
                Ok(at) => known[at].hear(work, now_ms),
                Err(_) if known.len() >= NODES_PER_DAEMON_MAX => {}
                Err(at) => known.insert(
                    at,
                    Node {
                        workflow,
                        node: clip(&node).into(),
                        work,
                        per_s: (0, 0),
                        heard_ms: now_ms,
                        looked_at: None,
                    },
                ),
            }
        }
        known.retain(|node| now_ms.saturating_sub(node.heard_ms) <= STALE_MS);
        if known.is_empty() {
            self.by_daemon.remove(&daemon);
        }
    }

    /// A daemon is gone for good.
    pub fn forget_daemon(&mut self, daemon: &NodeId) {
        self.by_daemon.remove(daemon);
    }

    /// A workflow was deleted.
    pub fn forget(&mut self, workflow: &WorkflowId) {
        for nodes in self.by_daemon.values_mut() {
            nodes.retain(|node| node.workflow != *workflow);
        }
    }

    /// All, by daemon.
    pub fn iter(&self) -> impl Iterator<Item = (&NodeId, &Node)> {
        let all = self.by_daemon.iter();
        all.flat_map(|(daemon, nodes)| nodes.iter().map(move |node| (daemon, node)))
    }

    /// What was done since the last look, by those that are heard. What began anew counts from the next look on.
    pub fn take_growth(&mut self, now_ms: u64) -> Growth {
        let mut growth = Growth::new();
        for node in self.by_daemon.values_mut().flatten() {
            let before = node.looked_at.replace(node.work);
            if now_ms.saturating_sub(node.heard_ms) > STALE_MS {
                continue;
            }
            let before = before.unwrap_or(node.work);
            let sum = growth.entry((node.workflow, node.node.clone())).or_default();
            let add = |sum: &mut u64, before: u64, now: u64| *sum = sum.saturating_add(now.saturating_sub(before));
            add(&mut sum.records, before.records, node.work.records);
            add(&mut sum.bytes, before.bytes, node.work.bytes);
            add(&mut sum.errors, before.errors, node.work.errors);
            add(&mut sum.faults, before.faults, node.work.faults);
            add(&mut sum.batches, before.batches, node.work.batches);
            add(&mut sum.busy_us, before.busy_us, node.work.busy_us);
        }
        growth
    }
}

impl State {
    /// What nodes do, of one workflow or of all, by workflow, node and daemon.
    pub fn node_views(&self, workflow: Option<&str>, now: Now) -> Vec<NodeView> {
        let id = workflow.map(WorkflowId::of_name);
        let nodes = self
            .nodes
            .iter()
            .filter(|(_, node)| id.is_none_or(|id| node.workflow == id));
        let view = |(daemon, node): (&NodeId, &Node)| {
            let (rate, bytes_per_s) = node.per_s(now.mono_ms);
            NodeView {
                workflow: self.workflow_name(&node.workflow),
                node: node.node.to_string(),
                daemon: self.members.name_of(daemon),
                records: node.work.records,
                bytes: node.work.bytes,
                errors: node.work.errors,
                faults: node.work.faults,
                batches: node.work.batches,
                busy_us: node.work.busy_us,
                rate,
                bytes_per_s: u64::from(bytes_per_s),
            }
        };
        let mut views: Vec<_> = nodes.map(view).collect();
        views.sort_by(|a, b| (&a.workflow, &a.node, &a.daemon).cmp(&(&b.workflow, &b.node, &b.daemon)));
        views
    }
}

#[cfg(test)]
mod tests {
    use bus_schema::id::StreamId;

    use super::*;
    use crate::domain::testing::node;

    fn carried(bytes: u64, timed: u64, took_ms: u64) -> StreamCarried {
        StreamCarried {
            stream: StreamId::from_hash(&[1; 32]),
            bytes,
            timed,
            took_ms,
        }
    }

    fn said(node: &str, records: u64, errors: u64) -> NodeCarried {
        NodeCarried {
            workflow: WorkflowId::of_name("orders"),
            node: node.into(),
            work: Work {
                records,
                bytes: records * 10,
                errors,
                batches: records / 10,
                busy_us: records * 3,
                ..Work::default()
            },
        }
    }

    #[test]
    fn a_streams_bytes_and_latency() {
        // (at, boot, said; bytes a second, latency)
        let mut way = Way::new(1, carried(1_000, 2, 80), 0);
        assert_eq!(
            (way.bytes(), way.bytes_per_s(0), way.latency_ms(0)),
            (1_000, 0, Some(40))
        );
        for (at, boot, said, per_s, latency) in [
            (5_000, 1, carried(6_000, 4, 280), 1_000, Some(100)),
            // Nothing went: what was last known holds for a while.
            (10_000, 1, carried(6_000, 4, 280), 500, Some(100)),
            (30_000, 1, carried(6_000, 4, 280), 0, None),
            // Another start of the daemon, or of the workflow.
            (35_000, 2, carried(500, 1, 7), 0, Some(7)),
            (40_000, 2, carried(1_000, 2, 9), 100, Some(2)),
            (45_000, 2, carried(10, 1, 30), 0, Some(30)),
        ] {
            way.hear(boot, said, at);
            let found = (way.bytes(), way.bytes_per_s(at), way.latency_ms(at));
            assert_eq!(found, (said.bytes, per_s, latency), "at {at}");
        }
        assert_eq!(
            (way.bytes_per_s(62_000), way.latency_ms(62_000)),
            (0, None),
            "silence is no rate"
        );
    }

    #[test]
    fn growth_of_all_daemons_and_rates_of_each() {
        let mut nodes = Nodes::default();
        nodes.hear(node(1), vec![said("db", 100, 1), said("clean", 90, 0)], 0);
        nodes.hear(node(2), vec![said("db", 1_000, 0)], 0);
        let db = (WorkflowId::of_name("orders"), Box::from("db"));
        assert_eq!(
            nodes.take_growth(0)[&db],
            Work::default(),
            "what was before is not of this step"
        );
        nodes.hear(node(1), vec![said("db", 150, 3), said("clean", 130, 0)], 5_000);
        nodes.hear(node(2), vec![said("db", 1_100, 0)], 5_000);
        let growth = nodes.take_growth(5_000);
        let of_db = growth[&db];
        assert_eq!(
            (of_db.records, of_db.bytes, of_db.errors, of_db.busy_us),
            (150, 1_500, 2, 450)
        );
        let found: Vec<_> = nodes
            .iter()
            .map(|(daemon, one)| (*daemon, &*one.node, one.per_s(5_000)))
            .collect();
        for expected in [
            (node(1), "clean", (8, 80)),
            (node(1), "db", (10, 100)),
            (node(2), "db", (20, 200)),
        ] {
            assert!(found.contains(&expected), "{expected:?} in {found:?}");
        }
        assert!(
            nodes.iter().all(|(_, one)| one.per_s(22_000) == (0, 0)),
            "silence is no rate"
        );
        // Began anew: no growth with a sign, and none that is made up.
        nodes.hear(node(1), vec![said("db", 7, 0)], 10_000);
        assert_eq!(nodes.take_growth(10_000)[&db].records, 0);
        // One that is not told of any more goes; so does who is taken out, and what is deleted.
        nodes.hear(node(1), vec![said("db", 8, 0)], 70_000);
        assert!(
            nodes
                .iter()
                .all(|(daemon, one)| *daemon != node(1) || &*one.node != "clean")
        );
        nodes.forget_daemon(&node(1));
        assert!(nodes.iter().all(|(daemon, _)| *daemon == node(2)));
        assert!(nodes.take_growth(70_000).is_empty(), "not heard for long");
        nodes.forget(&WorkflowId::of_name("orders"));
        assert_eq!(nodes.iter().count(), 0);
    }

    #[test]
    fn a_daemon_cannot_fill_the_memory() {
        let mut nodes = Nodes::default();
        let many = (0..NODES_PER_DAEMON_MAX + 100).map(|n| said(&format!("n{n}"), 1, 0));
        nodes.hear(node(1), many.collect(), 0);
        assert_eq!(nodes.iter().count(), NODES_PER_DAEMON_MAX);
        nodes.hear(node(1), Vec::new(), STALE_MS + 1);
        assert!(nodes.by_daemon.is_empty());
    }
}
