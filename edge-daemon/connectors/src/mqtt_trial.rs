//! Finds the one message that a broker will not take. MQTT 3.1.1 has no word for it: the broker closes the connection, and
//! would do so for ever. So after a break what was on its way is sent again one by one, and a message that is alone on the
//! way when the connection is closed, several times, is the cause. Performs no I/O.

use std::collections::{BTreeSet, HashMap, VecDeque};

use bus_schema::id::StreamId;
use flow::{Delivery, Position};

/// Breaks with the same message alone on the way, after which it is not sent any more.
pub(crate) const BREAKS_MAX: u32 = 3;
/// Smaller messages are never taken for too large because of their size alone: no broker's limit is below, bytes.
const LIMIT_BYTES_MIN: usize = 16 * 1024;

/// Deliveries that are tried until they are committed. Their rows are counted through, from 0.
pub(crate) struct Trial {
    stream: StreamId,
    of: Vec<(u64, usize, Position)>,
    /// Everything before this row was taken by the broker.
    next: u64,
    /// Rows before this one are sent alone.
    careful_until: u64,
    /// The row that was alone on the way when the connection was closed, and how often.
    suspect: Option<(u64, u32)>,
    refused: BTreeSet<u64>,
    /// Rows on their way, in order, with their bytes.
    on_the_way: VecDeque<(u64, usize)>,
}

/// What is known of a broker's limit by what it took and what it did not.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limit {
    /// The largest message it took, bytes.
    taken: usize,
    /// The smallest one it did not, and probably for its size.
    refused: Option<usize>,
    /// The smallest one it did not, while it had taken nothing smaller: it may be the topic.
    doubtful: Option<usize>,
}

impl Limit {
    /// Whether a message is too large by what is known.
    pub(crate) fn forbids(&self, bytes: usize) -> bool {
        self.refused.is_some_and(|refused| bytes >= refused)
    }

    fn took(&mut self, bytes: usize) {
        self.taken = self.taken.max(bytes);
        // It takes more than was thought.
        self.refused = self.refused.filter(|refused| *refused > bytes);
        if let Some(doubtful) = self.doubtful.take().filter(|doubtful| *doubtful > self.taken) {
            self.refuses(doubtful);
        }
    }

    fn refuses(&mut self, bytes: usize) {
        if bytes < LIMIT_BYTES_MIN || bytes <= self.taken {
            return;
        }
        let smallest = if self.taken > 0 {
            &mut self.refused
        } else {
            &mut self.doubtful
        };
        *smallest = Some(smallest.map_or(bytes, |refused| refused.min(bytes)));
    }
}

impl Trial {
    pub(crate) fn new(deliveries: &[Delivery]) -> Self {
        Self {
            stream: stream_of(deliveries),
            of: key(deliveries),
            next: 0,
            careful_until: 0,
            suspect: None,
            refused: BTreeSet::new(),
            on_the_way: VecDeque::new(),
        }
    }

    /// Whether these are the same deliveries, tried again.
    fn is_of(&self, deliveries: &[Delivery]) -> bool {
        self.stream == stream_of(deliveries) && self.of == key(deliveries)
    }

    /// Whether the broker has this row already.
    pub(crate) fn has(&self, row: u64) -> bool {
        row < self.next
    }

    /// Whether the broker does not take this row.
    pub(crate) fn refuses(&self, row: u64) -> bool {
        self.refused.contains(&row)
    }

    /// Whether this row is sent only when nothing else is on its way.
    pub(crate) fn is_careful(&self, row: u64) -> bool {
        row < self.careful_until
    }

    /// Whether the connection has been closed with a message alone on the way.
    pub(crate) fn has_suspect(&self) -> bool {
        self.suspect.is_some()
    }

    /// A row is on its way.
    pub(crate) fn sent(&mut self, row: u64, bytes: usize) {
        self.on_the_way.push_back((row, bytes));
    }

    /// The broker has taken the oldest that was on its way.
    pub(crate) fn taken(&mut self, limit: &mut Limit) {
        if let Some((row, bytes)) = self.on_the_way.pop_front() {
            self.next = row + 1;
            self.suspect = self.suspect.filter(|(suspect, _)| *suspect != row);
            limit.took(bytes);
        }
    }

    /// The connection is over. `is_closed`: by the other side, while it was well.
    pub(crate) fn broke(&mut self, is_closed: bool, limit: &mut Limit) {
        let on_the_way = std::mem::take(&mut self.on_the_way);
        let (Some(&(row, bytes)), Some(&(last, _))) = (on_the_way.front(), on_the_way.back()) else {
            return;
        };
        if !is_closed {
            return;
        }
        self.careful_until = self.careful_until.max(last + 1);
        if row < last {
            return;
        }
        let before = self
            .suspect
            .map_or(0, |(suspect, breaks)| if suspect == row { breaks } else { 0 });
        self.suspect = Some((row, before + 1));
        if before + 1 >= BREAKS_MAX {
            self.suspect = None;
            self.refused.insert(row);
            limit.refuses(bytes);
        }
    }

    /// The connection was closed with nothing on its way: that is not the message's fault.
    pub(crate) fn acquit(&mut self) {
        self.suspect = self.suspect.map(|(row, _)| (row, 0));
    }
}

/// The trials of all streams into one destination, which take turns: what one of them writes is no verdict on what another
/// one could not.
pub(crate) struct Trials {
    /// Of the stream written last.
    pub(crate) now: Trial,
    others: HashMap<StreamId, Trial>,
}

impl Trials {
    pub(crate) fn new() -> Self {
        Self {
            now: Trial::new(&[]),
            others: HashMap::new(),
        }
    }

    /// Takes up the trial of these deliveries, or begins one.
    pub(crate) fn turn_to(&mut self, deliveries: &[Delivery]) {
        let stream = stream_of(deliveries);
        if self.now.stream != stream {
            let next = self.others.remove(&stream).unwrap_or_else(|| Trial::new(deliveries));
            let before = std::mem::replace(&mut self.now, next);
            // One without deliveries has found nothing.
            if !before.of.is_empty() {
                self.others.insert(before.stream, before);
            }
        }
        if !self.now.is_of(deliveries) {
            self.now = Trial::new(deliveries);
        }
    }

    /// All of it was committed.
    pub(crate) fn done(&mut self) {
        self.now = Trial::new(&[]);
    }
}

fn stream_of(deliveries: &[Delivery]) -> StreamId {
    deliveries
        .first()
        .map_or_else(|| StreamId::from_hash(&[0; 32]), |delivery| delivery.stream)
}

fn key(deliveries: &[Delivery]) -> Vec<(u64, usize, Position)> {
    let of = |delivery: &Delivery| (delivery.seq, delivery.batch.rows(), delivery.position.clone());
    deliveries.iter().map(of).collect()
}

/// Why a message is not sent any more.
pub(crate) fn reason(bytes: usize) -> String {
    format!(
        "the broker closed the connection {BREAKS_MAX} times when it was sent this message of {bytes} bytes: it takes none \
         as large, or does not let this client publish there; mend that, or set packet_bytes_max to what the broker takes"
    )
}

/// Why a message is not sent at all.
pub(crate) fn too_large(bytes: usize) -> String {
    format!("the message would have {bytes} bytes, and the broker has refused smaller ones")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bus_schema::data::{Batch, Op, Ops, Origin, Schema};
    use flow::Tally;

    use super::*;

    const KIB: usize = 1024;

    fn trial() -> Trial {
        Trial::new(&[])
    }

    /// Sends rows as a connection would, to a broker that closes it at `poison`, until all are taken or given up. Returns
    /// how often it connected and what was refused.
    fn deliver(rows: u64, poison: &[u64], acks_lost: u64) -> (u32, Vec<u64>, Vec<u64>) {
        let (mut trial, mut limit) = (trial(), Limit::default());
        let (mut connections, mut seen) = (0, Vec::new());
        'connection: loop {
            connections += 1;
            assert!(connections < 100, "it never ends");
            for row in 0..rows {
                if trial.has(row) || trial.refuses(row) {
                    continue;
                }
                trial.sent(row, 10);
                if poison.contains(&row) {
                    trial.broke(true, &mut limit);
                    continue 'connection;
                }
                seen.push(row);
                // Alone when it must be; else acknowledgements come late, and what is on its way at the end is lost.
                let careful = trial.is_careful(row);
                while trial.on_the_way.len() as u64 > if careful { 0 } else { acks_lost } {
                    trial.taken(&mut limit);
                }
            }
            while !trial.on_the_way.is_empty() {
                trial.taken(&mut limit);
            }
            return (connections, trial.refused.into_iter().collect(), seen);
        }
    }

    #[test]
    fn only_the_messages_at_fault_are_given_up() {
        for (rows, poison, acks_lost) in [
            (1, &[0][..], 0),
            (200, &[], 50),
            (200, &[77], 0),
            (200, &[77], 50),
            (200, &[0, 1, 199], 99),
            (5, &[0, 1, 2, 3, 4], 3),
        ] {
            let (connections, refused, seen) = deliver(rows, poison, acks_lost);
            assert_eq!(refused, poison);
            // One break to become careful, and three each.
            assert!(connections <= 1 + 4 * poison.len() as u32, "{connections} connections");
            // Twice at most what was on its way when it broke.
            let twice = seen.len() as u64 - (rows - poison.len() as u64);
            assert!(twice <= acks_lost * poison.len() as u64, "{twice} rows twice");
        }
    }

    #[test]
    fn a_broker_that_goes_away_is_no_reason() {
        let (mut trial, mut limit) = (trial(), Limit::default());
        for attempt in 0..20 {
            // Timed out, or closed while nothing was on its way.
            trial.sent(0, 10);
            trial.broke(attempt % 2 == 0, &mut limit);
            trial.acquit();
        }
        assert!(!trial.refuses(0) && trial.has_suspect() && trial.is_careful(0));
        trial.sent(0, 10);
        trial.taken(&mut limit);
        assert!(trial.has(0) && !trial.has_suspect());
        // Another message begins from nothing.
        for row in [1, 2, 1, 2, 1, 2, 3] {
            trial.sent(row, 10);
            trial.broke(true, &mut limit);
            assert!(!trial.refuses(row));
        }
    }

    #[test]
    fn streams_that_take_turns_do_not_forget_what_they_found() {
        let delivery = |stream: u8, seq: u64| Delivery {
            stream: StreamId::from_hash(&[stream; 32]),
            seq,
            position: Position::new(vec![1]),
            batch: Batch::new(
                Arc::new(Schema {
                    collection: String::new(),
                    fields: Vec::new(),
                }),
                Vec::new(),
                Ops::All(Op::Insert),
                Origin::default(),
            )
            .unwrap(),
            tally: Tally::default(),
            bytes: 0,
        };
        let (poisoned, other) = ([delivery(1, 7)], [delivery(2, 3)]);
        let (mut trials, mut limit) = (Trials::new(), Limit::default());
        for _ in 0..BREAKS_MAX {
            trials.turn_to(&poisoned);
            assert!(!trials.now.refuses(0));
            trials.now.sent(0, 10);
            trials.now.broke(true, &mut limit);
            // The other one gets everything through meanwhile.
            trials.turn_to(&other);
            assert!(!trials.now.has_suspect() && !trials.now.is_careful(0));
            trials.now.sent(0, 10);
            trials.now.taken(&mut limit);
            trials.done();
        }
        trials.turn_to(&poisoned);
        assert!(trials.now.refuses(0), "it is known by now");
        trials.turn_to(&[delivery(1, 8)]);
        assert!(!trials.now.refuses(0), "what comes next begins from nothing");
    }

    #[test]
    fn a_limit_is_believed_only_where_size_explains_it() {
        let limit = |taken, refused| Limit {
            taken,
            refused,
            doubtful: None,
        };
        for (before, refuses, after) in [
            (limit(100, None), 64 * KIB, limit(100, Some(64 * KIB))),
            (limit(100, Some(64 * KIB)), 32 * KIB, limit(100, Some(32 * KIB))),
            (limit(100, Some(32 * KIB)), 64 * KIB, limit(100, Some(32 * KIB))),
            // Small, or smaller than what it took.
            (limit(100, None), 200, limit(100, None)),
            (limit(65 * KIB, None), 64 * KIB, limit(65 * KIB, None)),
        ] {
            let mut found = before;
            found.refuses(refuses);
            assert_eq!(found, after, "{before:?} refuses {refuses}");
        }
        // Nothing was ever taken: it may be the topic, until something smaller is.
        let mut first = Limit::default();
        first.refuses(64 * KIB);
        assert!(!first.forbids(64 * KIB));
        first.took(100);
        assert_eq!(first, limit(100, Some(64 * KIB)));
        let mut raised = limit(100, Some(64 * KIB));
        assert!(raised.forbids(64 * KIB) && !raised.forbids(64 * KIB - 1));
        raised.took(64 * KIB);
        assert_eq!(raised, limit(64 * KIB, None));
    }
}
