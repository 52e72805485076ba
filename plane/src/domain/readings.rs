//! What there is to remember of this moment: counters as growth since the last time, everything else as it stands.
//! Pure; what becomes of readings is up to history and alerts.

use std::{collections::BTreeMap, sync::Arc};

use bus_schema::{
    api::{DaemonView, DriftView, Presence, StreamView, WorkflowView},
    id::{NodeId, WorkflowId},
    message::RunState,
};

use super::{
    carried::Growth,
    history::{Amount, Gauge},
};

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
/// Records of a stream that died; of a workflow: the dead letters that its daemons keep, once they tell.
pub const DEAD: Metric = ("dead_letters", "records");
/// Records on their way.
pub const WAITING: Metric = ("waiting", "records");
/// Age of the oldest record on its way, as the plane sees it.
pub const LAG: Metric = ("lag", "ms");
/// Bytes that went.
pub const BYTES: Metric = ("bytes", "bytes/s");
/// How long it took from where records went in until they were known to be durable at the destination.
pub const LATENCY: Metric = ("latency", "ms");
/// How often something failed and was tried again.
pub const FAULTS: Metric = ("faults", "faults/s");
/// How long a node was at work on a batch.
pub const BUSY: Metric = ("busy", "us");

/// Whether its plan is not the one it shall run.
pub const PLAN_BEHIND: Metric = ("plan_behind", "");
/// Whether two daemons use its keys.
pub const CLONED: Metric = ("cloned", "");

/// How long ago a workflow's columns were last not as agreed, if within a day.
pub const DRIFT: Metric = ("drift_age", "ms");

/// All of them.
pub const ALL: [Metric; 19] = [
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
    BYTES,
    LATENCY,
    FAULTS,
    BUSY,
    PLAN_BEHIND,
    CLONED,
    DRIFT,
];

/// One reading.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    /// `daemon:NAME`, `workflow:NAME`, `node:WORKFLOW/NODE` or `stream:WORKFLOW/EDGE`. All readings of one share it.
    pub subject: Arc<str>,
    /// Which metric.
    pub metric: Metric,
    /// How much.
    pub amount: Amount,
}

#[derive(Debug, Clone, Default)]
struct StreamBefore {
    epoch: u64,
    counts: [u64; 3],
    /// What its producer says that it carried, if it does.
    bytes: Option<u64>,
    round: u64,
}

/// Knows what counters were at the last time.
#[derive(Debug, Clone, Default)]
pub struct Gatherer {
    processors: BTreeMap<NodeId, (u64, u64)>,
    streams: BTreeMap<(String, String, String), StreamBefore>,
    round: u64,
}

/// Whether what it says is how it is.
pub fn is_there(daemon: &DaemonView) -> bool {
    matches!(daemon.presence, Presence::Online | Presence::Late)
}

/// What nodes did in a step, by the name of their workflow. How long they took only where they did something.
pub fn of_nodes(growth: &Growth, name: impl Fn(&WorkflowId) -> String) -> impl Iterator<Item = Reading> {
    growth.iter().flat_map(move |((workflow, node), work)| {
        let subject: Arc<str> = Arc::from(format!("node:{}/{node}", name(workflow)));
        let busy_us = work.busy_us.checked_div(work.batches);
        let all = [
            (RECORDS, Some(Amount::Growth(work.records))),
            (BYTES, Some(Amount::Growth(work.bytes))),
            (ERRORS, Some(Amount::Growth(work.errors))),
            (FAULTS, Some(Amount::Growth(work.faults))),
            (BUSY, busy_us.map(|mean| Amount::Gauge(Gauge::of(mean)))),
        ];
        all.into_iter().filter_map(move |(metric, amount)| {
            Some(Reading {
                subject: Arc::clone(&subject),
                metric,
                amount: amount?,
            })
        })
    })
}

/// How long ago columns drifted, by workflow.
pub fn of_drifts(drifts: &BTreeMap<String, DriftView>) -> impl Iterator<Item = Reading> {
    drifts.iter().map(|(workflow, drift)| Reading {
        subject: Arc::from(format!("workflow:{workflow}")),
        metric: DRIFT,
        amount: Amount::Gauge(Gauge::of(drift.ago_ms)),
    })
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
    buffered: u64,
    lag_ms: u64,
    /// Bytes, as far as somebody has told of any.
    carried: Option<u64>,
    latency_ms: Option<u64>,
}

impl Sums {
    fn add(&mut self, other: &Self) {
        for (sum, more) in self.growth.iter_mut().zip(other.growth) {
            *sum = sum.saturating_add(more);
        }
        self.dead = self.dead.saturating_add(other.dead);
        self.waiting = self.waiting.saturating_add(other.waiting);
        self.buffered = self.buffered.saturating_add(other.buffered);
        self.lag_ms = self.lag_ms.max(other.lag_ms);
        // Of two that are known, both; of one, that one.
        self.carried = self.carried.map_or(other.carried, |bytes| {
            Some(bytes.saturating_add(other.carried.unwrap_or(0)))
        });
        self.latency_ms = self.latency_ms.max(other.latency_ms);
    }

    /// What is said of a stream, a workflow and, but for what is read of itself, a daemon.
    fn readings(&self, subject: &Arc<str>, out: &mut Vec<Reading>) {
        let [records, produced, errors] = self.growth.map(Amount::Growth);
        let gauge = |value| Amount::Gauge(Gauge::of(value));
        let all = [
            (RECORDS, Some(records)),
            (PRODUCED, Some(produced)),
            (ERRORS, Some(errors)),
            (DEAD, Some(gauge(self.dead))),
            (WAITING, Some(gauge(self.waiting))),
            (BUFFER, Some(gauge(self.buffered))),
            (LAG, Some(gauge(self.lag_ms))),
            (BYTES, self.carried.map(Amount::Growth)),
            (LATENCY, self.latency_ms.map(gauge)),
        ];
        let is_daemon = subject.starts_with("daemon:");
        for (metric, amount) in all {
            if let Some(amount) = amount.filter(|_| !is_daemon || metric != BUFFER) {
                out.push(Reading {
                    subject: Arc::clone(subject),
                    metric,
                    amount,
                });
            }
        }
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
        let known: std::collections::BTreeSet<NodeId> = daemons.iter().map(|daemon| daemon.node).collect();
        self.processors.retain(|node, _| known.contains(node));
        let mut of_streams = BTreeMap::<String, Sums>::new();
        let (mut of_workflows, mut of_daemons) = (BTreeMap::<&str, Sums>::new(), BTreeMap::<&str, Sums>::new());
        for stream in streams {
            let sums = self.of_stream(stream);
            of_daemons.entry(&stream.producer).or_default().add(&sums);
            of_streams
                .entry(format!("{}/{}", stream.workflow, stream.edge))
                .or_default()
                .add(&sums);
            of_workflows.entry(&stream.workflow).or_default().add(&sums);
        }
        let round = self.round;
        self.streams.retain(|_, before| before.round == round);
        for daemon in daemons {
            let subject = Arc::from(format!("daemon:{}", daemon.name));
            self.of_daemon(&subject, daemon, facts(&daemon.node), &mut out);
            if let Some(sums) = of_daemons.get(daemon.name.as_str()).filter(|_| is_there(daemon)) {
                sums.readings(&subject, &mut out);
            }
        }
        for (name, sums) in &of_streams {
            sums.readings(&Arc::from(format!("stream:{name}")), &mut out);
        }
        for workflow in workflows {
            let subject = Arc::from(format!("workflow:{}", workflow.name));
            if let Some(sums) = of_workflows.get_mut(workflow.name.as_str()) {
                // Those that were discarded are nothing that somebody should look at.
                sums.dead = workflow.letters_kept.get().copied().unwrap_or(sums.dead);
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

    fn of_daemon(
        &mut self,
        subject: &Arc<str>,
        daemon: &DaemonView,
        (boot, is_cloned): (u64, bool),
        out: &mut Vec<Reading>,
    ) {
        let mut put = |metric, amount| {
            out.push(Reading {
                subject: Arc::clone(subject),
                metric,
                amount,
            });
        };
        let gauge = |value| Amount::Gauge(Gauge::of(value));
        let is_there = is_there(daemon);
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
        let bytes = stream.bytes.get().copied();
        let carried = bytes.map(|now| before.bytes.map_or(0, |before| grown(before, now)));
        (before.epoch, before.counts, before.round) = (stream.epoch, counts, self.round);
        before.bytes = bytes;
        Sums {
            growth,
            dead: ledger.dead,
            waiting: ledger.buffered,
            buffered: stream.buffered_bytes,
            lag_ms: stream.lag_ms.get().copied().flatten().unwrap_or(0),
            carried,
            latency_ms: stream.latency_ms.get().copied().flatten(),
        }
    }
}

#[cfg(test)]
mod tests {
    use bus_schema::{
        aside::Aside,
        message::{Ledger, Resources},
    };

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
            bytes: Default::default(),
            bytes_per_s: Default::default(),
            latency_ms: Default::default(),
            dropped_lately: Default::default(),
            has_letters: Default::default(),
            trouble: String::new(),
        }
    }

    fn find(readings: &[Reading], subject: &str, metric: Metric) -> Option<Amount> {
        let is_it = |reading: &&Reading| *reading.subject == *subject && reading.metric == metric;
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
    fn what_is_carried_is_told_as_far_as_somebody_says_so() {
        let mut gatherer = Gatherer::default();
        let carried = |bytes: u64, latency: Option<u64>, producer: &str| StreamView {
            bytes: bytes.into(),
            latency_ms: latency.into(),
            ..stream(producer, 1, 10, 10, 0)
        };
        let mut all =
            |streams: &[StreamView]| gatherer.gather(&[daemon(Presence::Online, 0)], |_| (1, false), &[], streams);
        let gauge = |value| Some(Amount::Gauge(Gauge::of(value)));
        let found = all(&[stream("gw", 1, 10, 10, 0)]);
        assert_eq!(find(&found, "stream:orders/a->b", BYTES), None, "nobody has said");
        assert_eq!(find(&found, "daemon:gw", RECORDS), Some(Amount::Growth(0)));
        assert_eq!(find(&found, "daemon:gw", BUFFER), gauge(0), "its own word, once");
        assert_eq!(
            found
                .iter()
                .filter(|one| (&*one.subject, one.metric) == ("daemon:gw", BUFFER))
                .count(),
            1
        );
        let found = all(&[carried(500, Some(20), "gw"), stream("other", 1, 0, 0, 0)]);
        assert_eq!(
            find(&found, "stream:orders/a->b", BYTES),
            Some(Amount::Growth(0)),
            "not what was before"
        );
        let found = all(&[carried(800, Some(20), "gw"), carried(100, Some(90), "other")]);
        assert_eq!(find(&found, "stream:orders/a->b", BYTES), Some(Amount::Growth(300)));
        assert_eq!(find(&found, "stream:orders/a->b", LATENCY), gauge(90), "the slowest");
        assert_eq!(find(&found, "daemon:gw", BYTES), Some(Amount::Growth(300)));
        assert_eq!(find(&found, "daemon:gw", LATENCY), gauge(20));
        let found = all(&[carried(50, None, "gw")]);
        assert_eq!(find(&found, "daemon:gw", BYTES), Some(Amount::Growth(50)), "began anew");
        assert_eq!(find(&found, "daemon:gw", LATENCY), None, "nothing went");
    }

    #[test]
    fn of_a_workflow_letters_are_those_that_are_kept() {
        let mut gatherer = Gatherer::default();
        let stream = stream("gw", 1, 10, 7, 3);
        // (kept: `None` by daemons that do not tell, dead of the workflow)
        for (kept, dead) in [(None, 3), (Some(3), 3), (Some(1), 1), (Some(0), 0)] {
            let workflow = WorkflowView {
                name: "orders".into(),
                revision: 1,
                by: String::new(),
                at_unix_ms: 0,
                daemons: Vec::new(),
                state: None,
                letters_kept: kept.map_or_else(Aside::default, Aside::from),
            };
            let found = gatherer.gather(&[], |_| (1, false), &[workflow], std::slice::from_ref(&stream));
            let gauge = |value| Some(Amount::Gauge(Gauge::of(value)));
            assert_eq!(find(&found, "workflow:orders", DEAD), gauge(dead), "{kept:?}");
            assert_eq!(find(&found, "stream:orders/a->b", DEAD), gauge(3), "its account stays");
        }
    }

    #[test]
    fn nodes_have_series_of_their_own() {
        let work = |batches| bus_schema::carried::Work {
            records: 40,
            bytes: 900,
            errors: 2,
            faults: 1,
            batches,
            busy_us: 1_200,
        };
        for (batches, busy) in [(4, Some(300)), (0, None)] {
            let growth: Growth = [((WorkflowId::of_name("orders"), "clean".into()), work(batches))].into();
            let found: Vec<Reading> = of_nodes(&growth, |_| "orders".into()).collect();
            let of = |metric| find(&found, "node:orders/clean", metric);
            assert_eq!(of(RECORDS), Some(Amount::Growth(40)));
            assert_eq!(of(BYTES), Some(Amount::Growth(900)));
            assert_eq!(of(ERRORS), Some(Amount::Growth(2)));
            assert_eq!(of(FAULTS), Some(Amount::Growth(1)));
            assert_eq!(of(BUSY), busy.map(|mean| Amount::Gauge(Gauge::of(mean))));
        }
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

    #[test]
    fn what_nobody_can_have_done_is_no_more_than_can_be_said() {
        let mut gatherer = Gatherer::default();
        let most = |producer: &str| StreamView {
            bytes: u64::MAX.into(),
            buffered_bytes: u64::MAX,
            ledger: Ledger {
                delivered: u64::MAX,
                buffered: u64::MAX,
                dead: u64::MAX,
                ..Ledger::default()
            },
            ..stream(producer, 1, 0, 0, 0)
        };
        let all = |gatherer: &mut Gatherer, streams: &[StreamView]| {
            gatherer.gather(&[daemon(Presence::Online, 0)], |_| (1, false), &[], streams)
        };
        all(&mut gatherer, &[stream("a", 1, 0, 0, 0), stream("b", 1, 0, 0, 0)]);
        let found = all(&mut gatherer, &[most("a"), most("b")]);
        assert_eq!(
            find(&found, "stream:orders/a->b", RECORDS),
            Some(Amount::Growth(u64::MAX))
        );
        assert_eq!(
            find(&found, "stream:orders/a->b", DEAD),
            Some(Amount::Gauge(Gauge::of(u64::MAX)))
        );
    }
}
