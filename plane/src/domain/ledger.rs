//! Every stream's account, put together from what its two ends report at different moments.
//!
//! The producer's word is consistent in itself: `produced = delivered + buffered + dropped + dead`, where *delivered* and
//! *dead* follow from the consumer's signed watermark as far as it has heard it. The consumer's word about what is durable
//! is the truth, and usually a moment ahead or behind. Both carry the watermark they speak of, so:
//!
//! | watermarks | the account | can be wrong when |
//! |---|---|---|
//! | equal | *delivered* and *dead* by the consumer, the rest by the producer | the sums differ: lost or counted twice |
//! | consumer ahead | what it has settled beyond the producer's word moves from *buffered* to *delivered*; more than was buffered must have been produced since | the consumer has settled less than the producer knows of |
//! | producer ahead | the producer's: the consumer's report is the older one | the consumer has settled more than the producer knows of |
//!
//! A transform between the stream and its destination may leave records out. The consumer counts them among the
//! *delivered*, and says how many they are (*filtered*): they came in, and are done with.
//!
//! What died before it went into a frame (a source's record that is none, one that is too large) only the producer counts;
//! it stays among the *dead*.
//!
//! So an account in motion is derived and always adds up, and an account at rest is compared, number by number.
//! Ends that speak of different epochs are not mixed: the higher epoch counts, alone. What came in earlier epochs only the
//! consumer knows, and says apart; it is added to the producer's word. Performs no I/O.

use std::collections::{BTreeMap, BTreeSet};

use bus_schema::{
    carried::StreamCarried,
    id::{NodeId, StreamId, WorkflowId},
    limits::HEARTBEAT_MS,
    message::{Ledger, Side, StreamReport},
    plan::{PlanWorkflow, Root, StreamSpec},
};

use super::{carried::Way, clip, lag::Lag, rates::Rate};

/// Most streams kept of one daemon's reports.
pub const STREAMS_PER_DAEMON_MAX: usize = 4_096;
/// A report is forgotten when its daemon has gone on without repeating it for this long, in milliseconds.
const STALE_MS: u64 = 60_000;
/// Somebody should look at what was dropped for so long.
const LATELY_MS: u64 = 24 * 3_600 * 1_000;
/// A message that was overtaken is late by less than this, in milliseconds.
const OVERTAKEN_MS: u64 = 2 * HEARTBEAT_MS;

/// The account of a stream, both ends put together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// The stream's epoch.
    pub epoch: u64,
    /// The numbers.
    pub ledger: Ledger,
    /// Whether they add up and both ends agree. Never true without the producer's word.
    pub balances: bool,
}

fn settled(ledger: &Ledger) -> u64 {
    ledger.delivered.saturating_add(ledger.dead)
}

/// Puts two ends together; see the table above.
pub fn merge(producer: Option<&StreamReport>, consumer: Option<&StreamReport>) -> Account {
    let newest = producer.map_or(0, |p| p.epoch).max(consumer.map_or(0, |c| c.epoch));
    let of_newest =
        |report: Option<&StreamReport>| report.filter(|r| r.epoch == newest).map(|r| (r.watermark, r.ledger));
    let before = producer.map_or(0, |report| report.dead_before);
    match (of_newest(producer), of_newest(consumer)) {
        (None, None) => Account {
            epoch: newest,
            ledger: Ledger::default(),
            balances: false,
        },
        (Some((_, ledger)), None) => Account {
            epoch: newest,
            ledger,
            balances: ledger.balances(),
        },
        // What is at the destination was produced, and of the rest nobody has spoken.
        (None, Some((_, c))) => {
            let produced = settled(&c).saturating_add(c.dropped);
            let ledger = Ledger {
                produced,
                buffered: 0,
                ..c
            };
            Account {
                epoch: newest,
                ledger,
                balances: false,
            }
        }
        (Some((p_mark, p)), Some((c_mark, c))) => {
            let p = consumer.map_or(p, |consumer| with_earlier(p, consumer));
            let (ledger, agree) = merge_both(p_mark, p, before, c_mark, c);
            Account {
                epoch: newest,
                ledger,
                balances: agree && p.balances() && ledger.balances(),
            }
        }
    }
}

/// A producer's account begins with its epoch; what came before is known to the consumer alone.
fn with_earlier(p: Ledger, consumer: &StreamReport) -> Ledger {
    let (settled, dropped) = (consumer.settled_earlier, consumer.dropped_earlier);
    Ledger {
        produced: p.produced.saturating_add(settled).saturating_add(dropped),
        delivered: p.delivered.saturating_add(settled),
        dropped: p.dropped.saturating_add(dropped),
        ..p
    }
}

/// `before`: of the producer's dead, those that never left it, of which the consumer knows nothing.
fn merge_both(p_mark: u64, p: Ledger, before: u64, c_mark: u64, c: Ledger) -> (Ledger, bool) {
    // Only the consumer can know of these.
    let seen = |ledger: Ledger| Ledger {
        duplicates: p.duplicates.max(c.duplicates),
        unconfirmed: c.unconfirmed,
        filtered: c.filtered,
        ..ledger
    };
    let by_producer = settled(&p);
    if p_mark > c_mark {
        return (seen(p), settled(&c).saturating_add(before) <= by_producer);
    }
    let by_consumer = settled(&c).saturating_add(before);
    let told = seen(Ledger {
        delivered: c.delivered,
        dead: c.dead.saturating_add(before),
        ..p
    });
    if p_mark == c_mark || by_consumer < by_producer {
        return (told, by_consumer == by_producer);
    }
    let beyond = by_consumer - by_producer;
    let from_buffer = beyond.min(p.buffered);
    let since = beyond - from_buffer;
    let ledger = Ledger {
        produced: p.produced.saturating_add(since),
        buffered: p.buffered - from_buffer,
        ..told
    };
    (ledger, true)
}

#[derive(Debug, Clone)]
struct Heard {
    node: NodeId,
    boot: u64,
    at_ms: u64,
    report: StreamReport,
}

/// One stream: what the plan says of it, and what its ends have said.
#[derive(Debug, Clone)]
pub struct Stream {
    workflow: WorkflowId,
    edge: String,
    planned: Option<(NodeId, NodeId)>,
    /// Whether it waits for the times at which it may send.
    waits_for_its_time: bool,
    producer: Option<Heard>,
    consumer: Option<Heard>,
    rate: Rate,
    lag: Lag,
    way: Option<Box<Way>>,
    /// How many were dropped, and when that became more.
    dropped: (u64, u64),
}

impl Stream {
    fn new(workflow: WorkflowId, edge: &str) -> Self {
        Self {
            workflow,
            edge: edge.to_string(),
            planned: None,
            waits_for_its_time: false,
            producer: None,
            consumer: None,
            rate: Rate::default(),
            lag: Lag::default(),
            way: None,
            dropped: (0, 0),
        }
    }

    /// Whether more was dropped within the last day. What was dropped before the plane has started counts as dropped then.
    pub fn dropped_lately(&self, now_ms: u64) -> bool {
        let (dropped, at_ms) = self.dropped;
        dropped > 0 && now_ms.saturating_sub(at_ms) < LATELY_MS
    }

    /// Its workflow.
    pub fn workflow(&self) -> &WorkflowId {
        &self.workflow
    }

    /// `<from>-><to>`.
    pub fn edge(&self) -> &str {
        &self.edge
    }

    /// Its ends, as far as they are known: by plan, else by who has spoken.
    pub fn ends(&self) -> (Option<NodeId>, Option<NodeId>) {
        let direct = |heard: &Heard| (heard.report.side == Side::Direct).then_some(heard.node);
        let producer = self.producer.as_ref();
        (
            self.planned.map(|(from, _)| from).or(producer.map(|heard| heard.node)),
            self.planned
                .map(|(_, to)| to)
                .or(self.consumer.as_ref().map(|heard| heard.node))
                .or(producer.and_then(direct)),
        )
    }

    /// Who has or had the letters of what it counts as dead: its producer those that died before, its consumer the others.
    pub fn keepers(&self) -> impl Iterator<Item = NodeId> {
        let before = self.producer.as_ref().map_or(0, |heard| heard.report.dead_before);
        let (producer, consumer) = self.ends();
        let dead = self.account().ledger.dead;
        let ends = [producer.filter(|_| before > 0), consumer.filter(|_| dead > before)];
        ends.into_iter().flatten()
    }

    fn reports(&self) -> (Option<&StreamReport>, Option<&StreamReport>) {
        (
            self.producer.as_ref().map(|heard| &heard.report),
            self.consumer.as_ref().map(|heard| &heard.report),
        )
    }

    /// Whether a daemon has spoken as one of its ends. Of what was taken out of its plan it goes on to speak, until that is empty.
    fn is_spoken_of_by(&self, node: &NodeId) -> bool {
        let ends = [&self.producer, &self.consumer];
        ends.into_iter().flatten().any(|heard| heard.node == *node)
    }

    /// Its account.
    pub fn account(&self) -> Account {
        let (producer, consumer) = self.reports();
        merge(producer, consumer)
    }

    /// Whether the producer (or the one daemon that is both ends) has spoken.
    pub fn is_accounted(&self) -> bool {
        self.producer.is_some()
    }

    /// Bytes waiting at the producer.
    pub fn buffered_bytes(&self) -> u64 {
        self.producer.as_ref().map_or(0, |heard| heard.report.buffered_bytes)
    }

    /// Records settled a second.
    pub fn rate(&self, now_ms: u64) -> u32 {
        self.rate.per_second(now_ms)
    }

    /// How long ago the oldest record that waits was taken, in milliseconds: at least so long. `None`: nothing waits.
    pub fn lag_ms(&self, now_ms: u64) -> Option<u64> {
        self.lag.ms(now_ms)
    }

    /// The same, as far as it says how the workflow does: what waits for the time at which it may be sent waits rightly. And
    /// whether it has waited for longer than the plane has watched.
    pub fn lateness(&self, now_ms: u64) -> (u64, bool) {
        match self.lag.ms(now_ms) {
            Some(ms) if !self.waits_for_its_time => (ms, self.lag.is_older()),
            _ => (0, false),
        }
    }

    /// What it has carried, if its producer has said.
    pub fn way(&self) -> Option<&Way> {
        self.way.as_deref()
    }

    /// What keeps it from flowing, by either end; empty when nothing does.
    pub fn trouble(&self) -> String {
        let (producer, consumer) = self.reports();
        let mut texts: Vec<&str> = [producer, consumer]
            .into_iter()
            .flatten()
            .map(|r| r.trouble.as_str())
            .collect();
        texts.retain(|text| !text.is_empty());
        texts.dedup();
        texts.join("; ")
    }
}

/// All streams of the fleet.
#[derive(Debug, Clone, Default)]
pub struct Streams {
    by_id: BTreeMap<StreamId, Stream>,
    /// The streams of which a daemon has spoken, as either end. Some of them may be gone.
    by_node: BTreeMap<NodeId, BTreeSet<StreamId>>,
}

/// The streams a part of a workflow has on its daemon, incoming and outgoing.
pub fn streams_of(part: &PlanWorkflow) -> impl Iterator<Item = &StreamSpec> {
    part.pipes.iter().flat_map(|pipe| {
        let root = match &pipe.root {
            Root::Stream(spec) => Some(spec),
            Root::Source(_) => None,
        };
        let leaves = pipe.steps.iter().flat_map(|step| step.action.streams());
        root.into_iter().chain(leaves)
    })
}

impl Streams {
    /// All streams, by id.
    pub fn iter(&self) -> impl Iterator<Item = (&StreamId, &Stream)> {
        self.by_id.iter()
    }

    /// The plans of all daemons are now these.
    pub fn plan<'a>(&mut self, parts: impl Iterator<Item = &'a PlanWorkflow>) {
        self.by_id.values_mut().for_each(|stream| stream.planned = None);
        for part in parts {
            for spec in streams_of(part) {
                let new = || Stream::new(part.id, &spec.edge);
                let stream = self.by_id.entry(spec.stream).or_insert_with(new);
                // What was said of it before there was a plan may be anything.
                if stream.workflow != part.id {
                    *stream = new();
                }
                stream.planned = Some((spec.producer, spec.consumer));
                stream.waits_for_its_time = !spec.send.windows.is_empty();
            }
        }
        self.by_id
            .retain(|_, stream| stream.planned.is_some() || stream.producer.is_some() || stream.consumer.is_some());
    }

    /// A daemon reports. `runs`: whether a workflow is in its plan; of another one, and of no stream that is planned, it says
    /// nothing that counts.
    pub fn report(
        &mut self,
        node: NodeId,
        boot: u64,
        reports: Vec<StreamReport>,
        runs: impl Fn(&WorkflowId) -> bool,
        now_ms: u64,
    ) {
        let room = STREAMS_PER_DAEMON_MAX.saturating_sub(self.count_of(&node));
        let mut added = 0;
        for mut report in reports {
            let found = self.by_id.get(&report.stream);
            let known = found.is_some();
            let is_its_own = match found {
                Some(stream) => {
                    stream.workflow == report.workflow
                        && (stream.planned.is_some() || runs(&report.workflow) || stream.is_spoken_of_by(&node))
                }
                None => runs(&report.workflow),
            };
            if !is_its_own || !known && added >= room {
                continue;
            }
            report.trouble = clip(&report.trouble);
            report.edge = clip(&report.edge);
            added += usize::from(!known);
            self.report_one(
                Heard {
                    node,
                    boot,
                    at_ms: now_ms,
                    report,
                },
                now_ms,
            );
        }
    }

    /// A daemon says what the streams have carried that begin there.
    pub fn carried(&mut self, node: NodeId, boot: u64, said: Vec<StreamCarried>, now_ms: u64) {
        for one in said {
            let Some(stream) = self.by_id.get_mut(&one.stream) else {
                continue;
            };
            // Nobody speaks for another.
            let producer = stream.producer.as_ref().filter(|heard| heard.node == node);
            match (producer, &mut stream.way) {
                (None, _) => {}
                (Some(_), Some(way)) => way.hear(boot, one, now_ms),
                (Some(_), way) => *way = Some(Box::new(Way::new(boot, one, now_ms))),
            }
        }
    }

    fn count_of(&self, node: &NodeId) -> usize {
        self.by_node.get(node).map_or(0, BTreeSet::len)
    }

    /// The streams of which a daemon has spoken.
    pub fn of_node(&self, node: &NodeId) -> impl Iterator<Item = &Stream> {
        let ids = self.by_node.get(node).into_iter().flatten();
        ids.filter_map(|id| self.by_id.get(id))
    }

    fn report_one(&mut self, heard: Heard, now_ms: u64) {
        let new = || Stream::new(heard.report.workflow, &heard.report.edge);
        let stream = self.by_id.entry(heard.report.stream).or_insert_with(new);
        let (slot, planned) = match heard.report.side {
            Side::Producer | Side::Direct => (&mut stream.producer, stream.planned.map(|(from, _)| from)),
            Side::Consumer => (&mut stream.consumer, stream.planned.map(|(_, to)| to)),
        };
        // An end belongs to whom the plan names; without a plan, to who spoke first. Nobody speaks for another.
        let owner = planned.or(slot.as_ref().map(|before| before.node));
        if owner.is_some_and(|owner| owner != heard.node) {
            return;
        }
        // Messages can overtake each other: an older word never replaces a newer one of the same start and epoch. Except
        // after a while: a dead letter that was tried again and then filtered out was never produced, so the number falls.
        let is_recent = |before: &Heard| now_ms.saturating_sub(before.at_ms) < OVERTAKEN_MS;
        let outdated = slot.as_ref().is_some_and(|before| {
            before.node == heard.node
                && (heard.boot < before.boot
                    || heard.boot == before.boot
                        && heard.report.epoch == before.report.epoch
                        && (heard.report.watermark < before.report.watermark
                            || is_recent(before) && heard.report.ledger.produced < before.report.ledger.produced))
        });
        if outdated {
            return;
        }
        self.by_node.entry(heard.node).or_default().insert(heard.report.stream);
        *slot = Some(heard);
        let account = stream.account();
        stream.rate.sample(now_ms, settled(&account.ledger));
        let Ledger {
            produced,
            buffered,
            dropped,
            ..
        } = account.ledger;
        let at_ms = if dropped > stream.dropped.0 {
            now_ms
        } else {
            stream.dropped.1
        };
        stream.dropped = (dropped, at_ms);
        stream.lag.sample(now_ms, produced, produced.saturating_sub(buffered));
    }

    /// A daemon was heard of: what it has not repeated for long is over.
    pub fn prune(&mut self, node: &NodeId, now_ms: u64) {
        let Some(spoken) = self.by_node.get_mut(node) else {
            return;
        };
        let over = |heard: &Heard| heard.node == *node && now_ms.saturating_sub(heard.at_ms) > STALE_MS;
        spoken.retain(|id| {
            let Some(stream) = self.by_id.get_mut(id) else {
                return false;
            };
            stream.producer.take_if(|heard| over(heard));
            stream.consumer.take_if(|heard| over(heard));
            let is_spoken_of = stream.is_spoken_of_by(node);
            if stream.planned.is_none() && stream.producer.is_none() && stream.consumer.is_none() {
                self.by_id.remove(id);
            }
            is_spoken_of
        });
        if spoken.is_empty() {
            self.by_node.remove(node);
        }
    }

    /// A workflow was deleted: its accounts are closed.
    pub fn forget(&mut self, workflow: &WorkflowId) {
        self.by_id.retain(|_, stream| stream.workflow != *workflow);
    }

    /// What a daemon has reported last, for storing.
    pub fn reports_of(&self, node: &NodeId) -> Vec<StreamReport> {
        self.of_node(node)
            .flat_map(|stream| [&stream.producer, &stream.consumer])
            .flatten()
            .filter(|heard| heard.node == *node)
            .map(|heard| heard.report.clone())
            .collect()
    }
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
