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
    id::{NodeId, StreamId, WorkflowId},
    limits::HEARTBEAT_MS,
    message::{Ledger, Side, StreamReport},
    plan::{PlanWorkflow, Root, StreamSpec},
};

use super::{clip, lag::Lag, rates::Rate};

/// Most streams kept of one daemon's reports.
pub const STREAMS_PER_DAEMON_MAX: usize = 4_096;
/// A report is forgotten when its daemon has gone on without repeating it for this long, in milliseconds.
const STALE_MS: u64 = 60_000;
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
    producer: Option<Heard>,
    consumer: Option<Heard>,
    rate: Rate,
    lag: Lag,
}

impl Stream {
    fn new(workflow: WorkflowId, edge: &str) -> Self {
        Self {
            workflow,
            edge: edge.to_string(),
            planned: None,
            producer: None,
            consumer: None,
            rate: Rate::default(),
            lag: Lag::default(),
        }
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

    fn reports(&self) -> (Option<&StreamReport>, Option<&StreamReport>) {
        (
            self.producer.as_ref().map(|heard| &heard.report),
            self.consumer.as_ref().map(|heard| &heard.report),
        )
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
                let planned = Some((spec.producer, spec.consumer));
                let new = || Stream::new(part.id, &spec.edge);
                self.by_id.entry(spec.stream).or_insert_with(new).planned = planned;
            }
        }
        self.by_id
            .retain(|_, stream| stream.planned.is_some() || stream.producer.is_some() || stream.consumer.is_some());
    }

    /// A daemon reports.
    pub fn report(&mut self, node: NodeId, boot: u64, reports: Vec<StreamReport>, now_ms: u64) {
        let room = STREAMS_PER_DAEMON_MAX.saturating_sub(self.count_of(&node));
        let mut added = 0;
        for mut report in reports {
            let known = self.by_id.contains_key(&report.stream);
            if !known && added >= room {
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
        let Ledger { produced, buffered, .. } = account.ledger;
        stream.lag.sample(now_ms, produced, produced.saturating_sub(buffered));
    }

    /// A daemon was heard of: what it has not repeated for long is over.
    pub fn prune(&mut self, node: &NodeId, now_ms: u64) {
        let Some(spoken) = self.by_node.get_mut(node) else {
            return;
        };
        let over = |heard: &Heard| heard.node == *node && now_ms.saturating_sub(heard.at_ms) > STALE_MS;
        let speaks = |heard: &Option<Heard>| heard.as_ref().is_some_and(|heard| heard.node == *node);
        spoken.retain(|id| {
            let Some(stream) = self.by_id.get_mut(id) else {
                return false;
            };
            stream.producer.take_if(|heard| over(heard));
            stream.consumer.take_if(|heard| over(heard));
            let is_spoken_of = speaks(&stream.producer) || speaks(&stream.consumer);
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
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::testing::node;

    #[test]
    fn what_came_in_earlier_epochs_counts_and_balances() {
        // The old epoch: 30 settled, 4 dropped. The new one so far: 60 delivered, 1 dead, 2 dropped, 7 wait.
        let producer = report(Side::Producer, 2, 5, ledger([70, 7, 60, 2, 1]));
        let consumer = |delivered| StreamReport {
            settled_earlier: 30,
            dropped_earlier: 4,
            ..report(Side::Consumer, 2, 5, ledger([0, 0, delivered, 6, 3]))
        };
        let account = merge(Some(&producer), Some(&consumer(88)));
        assert!(account.balances);
        assert_eq!(account.ledger, ledger([104, 7, 88, 6, 3]));
        // At rest, in a new epoch too, what is missing is seen.
        assert!(!merge(Some(&producer), Some(&consumer(87))).balances);
        // One that confirmed more than the producer has heard of.
        let ahead = StreamReport {
            watermark: 6,
            ..consumer(90)
        };
        let account = merge(Some(&producer), Some(&ahead));
        assert!(account.balances);
        assert_eq!(account.ledger, ledger([104, 5, 90, 6, 3]));
    }

    fn stream() -> StreamId {
        StreamId::from_hash(&[1; 32])
    }

    fn report(side: Side, epoch: u64, watermark: u64, ledger: Ledger) -> StreamReport {
        StreamReport {
            stream: stream(),
            workflow: WorkflowId::of_name("w"),
            edge: "a->b".into(),
            side,
            epoch,
            watermark,
            ledger,
            dead_before: 0,
            settled_earlier: 0,
            dropped_earlier: 0,
            buffered_bytes: 0,
            gaps: 0,
            trouble: String::new(),
        }
    }

    /// produced, buffered, delivered, dropped, dead
    fn ledger([produced, buffered, delivered, dropped, dead]: [u64; 5]) -> Ledger {
        Ledger {
            produced,
            buffered,
            delivered,
            dropped,
            dead,
            ..Ledger::default()
        }
    }

    #[test]
    fn two_words_become_one_account() {
        // (what, (epoch, watermark, ledger) of the producer, of the consumer, account, balances)
        #[allow(clippy::type_complexity, reason = "a table")]
        let cases: &[(
            &str,
            Option<(u64, u64, [u64; 5])>,
            Option<(u64, u64, [u64; 5])>,
            [u64; 5],
            bool,
        )] = &[
            ("nobody has spoken", None, None, [0; 5], false),
            (
                "only the producer",
                Some((1, 2, [10, 6, 4, 0, 0])),
                None,
                [10, 6, 4, 0, 0],
                true,
            ),
            (
                "the producer does not add up",
                Some((1, 2, [10, 5, 4, 0, 0])),
                None,
                [10, 5, 4, 0, 0],
                false,
            ),
            (
                "only the consumer",
                None,
                Some((1, 2, [0, 0, 4, 1, 1])),
                [6, 0, 4, 1, 1],
                false,
            ),
            (
                "at rest",
                Some((1, 9, [10, 0, 9, 0, 1])),
                Some((1, 9, [10, 0, 9, 0, 1])),
                [10, 0, 9, 0, 1],
                true,
            ),
            (
                "at rest, the split is the consumer's",
                Some((1, 9, [10, 0, 10, 0, 0])),
                Some((1, 9, [0, 0, 9, 0, 1])),
                [10, 0, 9, 0, 1],
                true,
            ),
            (
                "at rest, one is missing",
                Some((1, 9, [10, 0, 10, 0, 0])),
                Some((1, 9, [0, 0, 9, 0, 0])),
                [10, 0, 9, 0, 0],
                false,
            ),
            (
                "at rest, one is twice",
                Some((1, 9, [10, 0, 10, 0, 0])),
                Some((1, 9, [0, 0, 11, 0, 0])),
                [10, 0, 11, 0, 0],
                false,
            ),
            (
                "consumer ahead",
                Some((1, 2, [10, 6, 4, 0, 0])),
                Some((1, 4, [0, 0, 7, 0, 1])),
                [10, 2, 7, 0, 1],
                true,
            ),
            (
                "consumer ahead of what was produced",
                Some((1, 2, [10, 6, 4, 0, 0])),
                Some((1, 8, [0, 0, 14, 0, 0])),
                [14, 0, 14, 0, 0],
                true,
            ),
            (
                "consumer ahead, with drops",
                Some((1, 2, [12, 6, 4, 2, 0])),
                Some((1, 4, [0, 0, 6, 0, 0])),
                [12, 4, 6, 2, 0],
                true,
            ),
            (
                "consumer ahead with less",
                Some((1, 2, [10, 6, 4, 0, 0])),
                Some((1, 4, [0, 0, 3, 0, 0])),
                [10, 6, 3, 0, 0],
                false,
            ),
            (
                "producer ahead",
                Some((1, 4, [10, 2, 8, 0, 0])),
                Some((1, 2, [0, 0, 4, 0, 0])),
                [10, 2, 8, 0, 0],
                true,
            ),
            (
                "producer ahead with less",
                Some((1, 4, [10, 2, 8, 0, 0])),
                Some((1, 2, [0, 0, 9, 0, 0])),
                [10, 2, 8, 0, 0],
                false,
            ),
            (
                "the producer lost its spool",
                Some((2, 0, [3, 3, 0, 0, 0])),
                Some((1, 9, [0, 0, 90, 0, 0])),
                [3, 3, 0, 0, 0],
                true,
            ),
            (
                "the producer's word is of before",
                Some((1, 9, [90, 0, 90, 0, 0])),
                Some((2, 1, [0, 0, 2, 0, 0])),
                [2, 0, 2, 0, 0],
                false,
            ),
        ];
        for (what, producer, consumer, expected, balances) in cases {
            let of = |side, word: &Option<(u64, u64, [u64; 5])>| {
                word.map(|(epoch, watermark, numbers)| report(side, epoch, watermark, ledger(numbers)))
            };
            let account = merge(
                of(Side::Producer, producer).as_ref(),
                of(Side::Consumer, consumer).as_ref(),
            );
            assert_eq!(
                (account.ledger, account.balances),
                (ledger(*expected), *balances),
                "{what}"
            );
        }
    }

    /// What died before the stream is in the account once, whoever speaks last; without it the ends disagree. A dead letter
    /// that was delivered after all, of which the producer has not heard yet, has moved and is not missing.
    #[test]
    fn what_never_left_the_producer_only_it_knows() {
        for (p_mark, p, before, c_mark, c, account, agree) in [
            (5, [5, 0, 2, 0, 3], 3, 5, [2, 0, 2, 0, 0], [5, 0, 2, 0, 3], true),
            (5, [6, 0, 2, 0, 4], 3, 5, [3, 0, 2, 0, 1], [6, 0, 2, 0, 4], true),
            (5, [6, 0, 2, 0, 4], 3, 5, [3, 0, 3, 0, 0], [6, 0, 3, 0, 3], true),
            (5, [9, 4, 2, 0, 3], 3, 8, [4, 0, 3, 0, 1], [9, 2, 3, 0, 4], true),
            (5, [5, 0, 2, 0, 3], 2, 5, [2, 0, 2, 0, 0], [5, 0, 2, 0, 2], false),
        ] {
            let (found, said) = merge_both(p_mark, ledger(p), before, c_mark, ledger(c));
            assert_eq!((found, said), (ledger(account), agree), "{p:?} {c:?}");
        }
    }

    /// What a transform at the consumer's side left out is among the delivered, as of the consumer's word, and the
    /// comparison stays exact: one record that is missing is still found.
    #[test]
    fn what_the_consumers_side_left_out_is_told() {
        let with = |numbers, filtered| Ledger {
            filtered,
            ..ledger(numbers)
        };
        for (what, p_mark, p, c_mark, c, account, balances) in [
            (
                "at rest",
                5,
                [10, 0, 10, 0, 0],
                5,
                with([0, 0, 9, 0, 1], 6),
                with([10, 0, 9, 0, 1], 6),
                true,
            ),
            (
                "everything",
                5,
                [10, 0, 10, 0, 0],
                5,
                with([0, 0, 10, 0, 0], 10),
                with([10, 0, 10, 0, 0], 10),
                true,
            ),
            (
                "consumer ahead",
                2,
                [10, 6, 4, 0, 0],
                4,
                with([0, 0, 8, 0, 0], 5),
                with([10, 2, 8, 0, 0], 5),
                true,
            ),
            (
                "producer ahead",
                4,
                [10, 2, 8, 0, 0],
                2,
                with([0, 0, 4, 0, 0], 3),
                with([10, 2, 8, 0, 0], 3),
                true,
            ),
            (
                "one is missing",
                5,
                [10, 0, 10, 0, 0],
                5,
                with([0, 0, 9, 0, 0], 6),
                with([10, 0, 9, 0, 0], 6),
                false,
            ),
        ] {
            let account_of = merge(
                Some(&report(Side::Producer, 1, p_mark, ledger(p))),
                Some(&report(Side::Consumer, 1, c_mark, c)),
            );
            assert_eq!((account_of.ledger, account_of.balances), (account, balances), "{what}");
        }
    }

    #[test]
    fn nobody_speaks_for_another() {
        let mut streams = Streams::default();
        let word = |n| vec![report(Side::Producer, 1, n, ledger([n, 0, n, 0, 0]))];
        streams.report(node(1), 1, word(5), 0);
        streams.report(node(2), 1, word(9), 0);
        assert_eq!(streams.by_id[&stream()].account().ledger.delivered, 5);
        // An older word, overtaken on the way; then a restart, which may go back.
        streams.report(node(1), 1, word(4), 1);
        assert_eq!(streams.by_id[&stream()].account().ledger.delivered, 5);
        streams.report(node(1), 2, word(3), 2);
        assert_eq!(streams.by_id[&stream()].account().ledger.delivered, 3);
        streams.report(node(1), 1, word(8), 3);
        assert_eq!(
            streams.by_id[&stream()].account().ledger.delivered,
            3,
            "from before the restart"
        );
    }

    #[test]
    fn what_is_not_repeated_is_forgotten() {
        let mut streams = Streams::default();
        streams.report(node(1), 1, vec![report(Side::Direct, 1, 5, ledger([5, 0, 5, 0, 0]))], 0);
        assert_eq!(streams.by_id[&stream()].ends(), (Some(node(1)), Some(node(1))));
        streams.prune(&node(2), 10 * STALE_MS);
        streams.prune(&node(1), STALE_MS);
        assert_eq!(streams.iter().count(), 1);
        streams.prune(&node(1), STALE_MS + 1);
        assert_eq!(streams.iter().count(), 0);
    }

    #[test]
    fn a_daemon_cannot_fill_the_memory() {
        let mut streams = Streams::default();
        for n in 0..(STREAMS_PER_DAEMON_MAX as u32 + 10) {
            let mut hash = [0; 32];
            hash[..4].copy_from_slice(&n.to_le_bytes());
            let stream = StreamId::from_hash(&hash);
            let one = StreamReport {
                stream,
                trouble: "x".repeat(100_000),
                ..report(Side::Producer, 1, 1, ledger([0; 5]))
            };
            if n.is_multiple_of(512) || n > STREAMS_PER_DAEMON_MAX as u32 {
                streams.report(node(1), 1, vec![one], 0);
            } else {
                streams.report(
                    node(1),
                    1,
                    vec![StreamReport {
                        trouble: String::new(),
                        ..one
                    }],
                    0,
                );
            }
        }
        assert_eq!(streams.iter().count(), STREAMS_PER_DAEMON_MAX);
        assert!(
            streams
                .iter()
                .all(|(_, stream)| stream.trouble().len() <= bus_schema::limits::TEXT_BYTES_MAX)
        );
    }

    proptest! {
        /// Two honest ends, whose reports are as old as they like, never give an account that does not balance.
        #[test]
        fn honest_ends_always_balance(
            steps in proptest::collection::vec(
                (0u64..50, 0u64..2, 0u64..4, 0u64..3, any::<bool>(), any::<bool>(), any::<bool>()),
                1..80,
            ),
        ) {
            let mut frames: Vec<u64> = Vec::new();
            let (mut durable, mut acked, mut dead, mut dead_at) = (0usize, 0usize, 0u64, vec![0u64]);
            let (mut producer, mut consumer) = (None, None);
            // What died at the producer, and as of which marks each end has spoken.
            let (mut before, mut told) = (0, (0, 0));
            for (records, stillborn, settle, rejected, ack, tell_p, tell_c) in steps {
                if records > 0 {
                    frames.push(records);
                }
                before += stillborn;
                for _ in 0..settle {
                    if durable < frames.len() {
                        dead += rejected.min(frames[durable]);
                        durable += 1;
                        dead_at.push(dead);
                    }
                }
                if ack {
                    acked = durable;
                }
                let sum = |upto: usize| frames[..upto].iter().sum::<u64>();
                if tell_p {
                    let (produced, done) = (sum(frames.len()), sum(acked));
                    let numbers = [
                        produced + before,
                        produced - done,
                        done - dead_at[acked],
                        0,
                        dead_at[acked] + before,
                    ];
                    told = (acked, before);
                    producer = Some(StreamReport {
                        dead_before: before,
                        ..report(Side::Producer, 1, acked as u64, ledger(numbers))
                    });
                }
                if tell_c {
                    let numbers = [0, 0, sum(durable) - dead, 0, dead];
                    consumer = Some(report(Side::Consumer, 1, durable as u64, ledger(numbers)));
                }
                let account = merge(producer.as_ref(), consumer.as_ref());
                prop_assert_eq!(account.balances, producer.is_some(), "{:?} {:?}", producer, consumer);
                if producer.is_some() {
                    prop_assert!(account.ledger.balances());
                }
                if let (Some(_), Some(consumer)) = (&producer, &consumer) && consumer.watermark == told.0 as u64 {
                    prop_assert_eq!(account.ledger.dead, dead_at[told.0] + told.1, "exact at rest");
                }
                prop_assert!(account.ledger.delivered <= sum(durable) - dead_at[durable], "never more than is durable");
            }
        }
    }
}
