//! What there is to remember of this moment: counters as growth since the last time, everything else as it stands.
//! Pure; what becomes of readings is up to history and alerts.

use std::collections::BTreeMap;

use bus_schema::{
    api::{DaemonView, Presence, StreamView, WorkflowView},
    id::NodeId,
    message::RunState,
};

use super::history::{Amount, Gauge};

/// A daemon that was not heard since the plane's start is away after this long, in milliseconds.
const UNKNOWN_MS: u64 = 60_000;

/// A metric's name and the unit of its values; a counter's are a second.
pub type Metric = (&'static str, &'static str);

/// Processor time.
pub const CPU: Metric = ("cpu", "ms/s");
/// Resident memory.
pub const MEMORY: Metric = ("memory", "bytes");
/// What buffers take on disk.
pub const BUFFER: Metric = ("buffer", "bytes");
/// What is free on disk.
pub const DISK_FREE: Metric = ("disk_free", "bytes");
/// Whether its lease holds.
pub const ONLINE: Metric = ("online", "");
/// Workflows that do not run well.
pub const TROUBLED: Metric = ("troubled", "");
/// Records that arrived.
pub const RECORDS: Metric = ("records", "records/s");
/// Records that were taken from the source.
pub const PRODUCED: Metric = ("produced", "records/s");
/// Records that were dropped or became dead letters.
pub const ERRORS: Metric = ("errors", "records/s");
/// Dead letters.
pub const DEAD: Metric = ("dead_letters", "records");
/// Records on their way.
pub const WAITING: Metric = ("waiting", "records");
/// Age of the oldest record on its way, as the plane sees it.
pub const LAG: Metric = ("lag", "ms");

/// Whether its plan is not the one it shall run.
pub const PLAN_BEHIND: Metric = ("plan_behind", "");
/// Whether two daemons use its keys.
pub const CLONED: Metric = ("cloned", "");

/// All of them.
pub const ALL: [Metric; 14] = [
    CPU,
    MEMORY,
    BUFFER,
    DISK_FREE,
    ONLINE,
    TROUBLED,
    RECORDS,
    PRODUCED,
    ERRORS,
    DEAD,
    WAITING,
    LAG,
    PLAN_BEHIND,
    CLONED,
];

/// One reading.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    /// `daemon:NAME`, `workflow:NAME` or `stream:WORKFLOW/EDGE`.
    pub subject: String,
    /// Which metric.
    pub metric: Metric,
    /// How much.
    pub amount: Amount,
}

#[derive(Debug, Clone, Default)]
struct StreamBefore {
    epoch: u64,
    counts: [u64; 3],
    round: u64,
}

/// Knows what counters were at the last time.
#[derive(Debug, Clone, Default)]
pub struct Gatherer {
    processors: BTreeMap<NodeId, (u64, u64)>,
    streams: BTreeMap<(String, String, String), StreamBefore>,
    round: u64,
}

/// How much a counter grew; one that went back began anew.
fn grown(before: u64, now: u64) -> u64 {
    if now < before { now } else { now - before }
}

#[derive(Default)]
struct Sums {
    growth: [u64; 3],
    dead: u64,
    waiting: u64,
    bytes: u64,
    lag_ms: u64,
}

impl Sums {
    fn add(&mut self, other: &Self) {
        for (sum, more) in self.growth.iter_mut().zip(other.growth) {
            *sum += more;
        }
        self.dead += other.dead;
        self.waiting += other.waiting;
        self.bytes += other.bytes;
        self.lag_ms = self.lag_ms.max(other.lag_ms);
    }

    fn readings(&self, subject: &str, out: &mut Vec<Reading>) {
        let [records, produced, errors] = self.growth.map(Amount::Growth);
        let [dead, waiting, bytes, lag] =
            [self.dead, self.waiting, self.bytes, self.lag_ms].map(|value| Amount::Gauge(Gauge::of(value)));
        let all = [
            (RECORDS, records),
            (PRODUCED, produced),
            (ERRORS, errors),
            (DEAD, dead),
            (WAITING, waiting),
            (BUFFER, bytes),
            (LAG, lag),
        ];
        out.extend(all.map(|(metric, amount)| Reading {
            subject: subject.to_string(),
            metric,
            amount,
        }));
    }
}

impl Gatherer {
    /// Reads everything once. `facts` tells a daemon's boot, and whether it is cloned.
    pub fn gather(
        &mut self,
        daemons: &[DaemonView],
        facts: impl Fn(&NodeId) -> (u64, bool),
        workflows: &[WorkflowView],
        streams: &[StreamView],
    ) -> Vec<Reading> {
        self.round += 1;
        let mut out = Vec::new();
        for daemon in daemons {
            self.of_daemon(daemon, facts(&daemon.node), &mut out);
        }
        let known: std::collections::BTreeSet<NodeId> = daemons.iter().map(|daemon| daemon.node).collect();
        self.processors.retain(|node, _| known.contains(node));
        let (mut of_streams, mut of_workflows) = (BTreeMap::<String, Sums>::new(), BTreeMap::<&str, Sums>::new());
        for stream in streams {
            let sums = self.of_stream(stream);
            of_streams
                .entry(format!("{}/{}", stream.workflow, stream.edge))
                .or_default()
                .add(&sums);
            of_workflows.entry(&stream.workflow).or_default().add(&sums);
        }
        let round = self.round;
        self.streams.retain(|_, before| before.round == round);
        for (name, sums) in &of_streams {
            sums.readings(&format!("stream:{name}"), &mut out);
        }
        for workflow in workflows {
            let subject = format!("workflow:{}", workflow.name);
            if let Some(sums) = of_workflows.get(workflow.name.as_str()) {
                sums.readings(&subject, &mut out);
            }
            let troubled = matches!(workflow.state, Some(RunState::Failed | RunState::Retrying));
            out.push(Reading {
                subject,
                metric: TROUBLED,
                amount: Amount::Gauge(Gauge::of(u64::from(troubled))),
            });
        }
        out
    }

    fn of_daemon(&mut self, daemon: &DaemonView, (boot, is_cloned): (u64, bool), out: &mut Vec<Reading>) {
        let subject = format!("daemon:{}", daemon.name);
        let mut put = |metric, amount| {
            out.push(Reading {
                subject: subject.clone(),
                metric,
                amount,
            });
        };
        let gauge = |value| Amount::Gauge(Gauge::of(value));
        let is_there = matches!(daemon.presence, Presence::Online | Presence::Late);
        let is_new = daemon.presence == Presence::Unknown && daemon.last_seen_ms.is_none_or(|ms| ms < UNKNOWN_MS);
        if !is_new {
            put(ONLINE, gauge(u64::from(is_there)));
        }
        put(CLONED, gauge(u64::from(is_cloned)));
        if !is_there {
            // Stale words are not passed off as the state of things.
            return;
        }
        let used = &daemon.resources;
        let before = self.processors.insert(daemon.node, (boot, used.cpu_ms));
        if let Some((before_boot, before_ms)) = before {
            let begin = if before_boot == boot { before_ms } else { 0 };
            put(CPU, Amount::Growth(grown(begin, used.cpu_ms)));
        }
        put(MEMORY, gauge(used.rss_bytes));
        put(BUFFER, gauge(used.spool_bytes));
        put(DISK_FREE, gauge(used.disk_free_bytes));
        put(TROUBLED, gauge(u64::from(daemon.troubled)));
        put(PLAN_BEHIND, gauge(u64::from(daemon.plan_version != daemon.plan_wanted)));
    }

    fn of_stream(&mut self, stream: &StreamView) -> Sums {
        let key = (stream.workflow.clone(), stream.edge.clone(), stream.producer.clone());
        let ledger = &stream.ledger;
        let counts = [
            ledger.delivered,
            ledger.produced,
            ledger.dropped.saturating_add(ledger.dead),
        ];
        let is_new = !self.streams.contains_key(&key);
        let before = self.streams.entry(key).or_default();
        let mut growth = [0; 3];
        if !is_new {
            for (index, growth) in growth.iter_mut().enumerate() {
                let begin = if before.epoch == stream.epoch {
                    before.counts[index]
                } else {
                    0
                };
                // Dead letters that were delivered after all are no errors with a sign.
                *growth = if index == 2 {
                    counts[index].saturating_sub(begin)
                } else {
                    grown(begin, counts[index])
                };
            }
        }
        (before.epoch, before.counts, before.round) = (stream.epoch, counts, self.round);
        Sums {
            growth,
            dead: ledger.dead,
            waiting: ledger.buffered,
            bytes: stream.buffered_bytes,
            lag_ms: stream.lag_ms.get().copied().flatten().unwrap_or(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use bus_schema::message::{Ledger, Resources};

    use super::*;
    use crate::domain::testing::node;

    fn daemon(presence: Presence, cpu_ms: u64) -> DaemonView {
        DaemonView {
            name: "gw".into(),
            node: node(1),
            presence,
            last_seen_ms: Some(0),
            version: String::new(),
            plan_version: 1,
            plan_wanted: 1,
            troubled: 0,
            damaged: 0,
            resources: Resources {
                cpu_ms,
                rss_bytes: 9,
                ..Resources::default()
            },
        }
    }

    fn stream(producer: &str, epoch: u64, produced: u64, delivered: u64, dead: u64) -> StreamView {
        StreamView {
            workflow: "orders".into(),
            edge: "a->b".into(),
            producer: producer.into(),
            consumer: "hub".into(),
            epoch,
            ledger: Ledger {
                produced,
                delivered,
                dead,
                buffered: produced - delivered - dead,
                ..Ledger::default()
            },
            balances: true,
            buffered_bytes: 5,
            rate: 0,
            lag_ms: Default::default(),
            trouble: String::new(),
        }
    }

    fn find(readings: &[Reading], subject: &str, metric: Metric) -> Option<Amount> {
        let is_it = |reading: &&Reading| reading.subject == subject && reading.metric == metric;
        readings.iter().find(is_it).map(|reading| reading.amount)
    }

    #[test]
    fn counters_are_growth_since_the_last_time() {
        let mut gatherer = Gatherer::default();
        // (boot, processor time so far, growth)
        for (boot, cpu_ms, growth) in [(1, 500, None), (1, 520, Some(20)), (2, 7, Some(7)), (2, 7, Some(0))] {
            let found = gatherer.gather(&[daemon(Presence::Online, cpu_ms)], |_| (boot, false), &[], &[]);
            assert_eq!(
                find(&found, "daemon:gw", CPU),
                growth.map(Amount::Growth),
                "{boot} {cpu_ms}"
            );
        }
        let found = gatherer.gather(&[daemon(Presence::Offline, 9)], |_| (2, false), &[], &[]);
        assert_eq!(find(&found, "daemon:gw", ONLINE), Some(Amount::Gauge(Gauge::of(0))));
        assert_eq!(find(&found, "daemon:gw", MEMORY), None, "nobody knows");
    }

    #[test]
    fn streams_of_several_daemons_are_one() {
        let mut gatherer = Gatherer::default();
        let all = |streams: &[StreamView], gatherer: &mut Gatherer| gatherer.gather(&[], |_| (0, false), &[], streams);
        let found = all(&[stream("a", 1, 10, 10, 0), stream("b", 1, 90, 80, 0)], &mut gatherer);
        assert_eq!(find(&found, "stream:orders/a->b", RECORDS), Some(Amount::Growth(0)));
        let behind = |lag_ms, stream: StreamView| StreamView {
            lag_ms: Some(lag_ms).into(),
            ..stream
        };
        let found = all(
            &[
                behind(9_000, stream("a", 1, 15, 13, 1)),
                behind(5_000, stream("b", 2, 4, 4, 0)),
            ],
            &mut gatherer,
        );
        assert_eq!(
            find(&found, "stream:orders/a->b", LAG),
            Some(Amount::Gauge(Gauge::of(9_000))),
            "the one that is furthest behind counts"
        );
        assert_eq!(find(&found, "stream:orders/a->b", RECORDS), Some(Amount::Growth(3 + 4)));
        assert_eq!(find(&found, "stream:orders/a->b", ERRORS), Some(Amount::Growth(1)));
        assert_eq!(
            find(&found, "stream:orders/a->b", WAITING),
            Some(Amount::Gauge(Gauge::of(1)))
        );
        all(&[], &mut gatherer);
        assert!(gatherer.streams.is_empty(), "what is gone is forgotten");
    }
}
