//! Taps of the web page: whose they are, what they have shown, and when they end. A tap ends when its time is over, when nobody
//! looks any more, and when it is told to; the daemon ends it too, because its lease is short. Sends nothing.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bus_schema::{
    id::{NodeId, WorkflowId},
    message::{TapOpen, TapSample},
    redact::Redact,
    shown::{Record, Records},
};
use serde::Serialize;

/// Taps that the page has open at the same time.
pub const TAPS_MAX: usize = 4;
/// Longest that one may last.
pub const TAP_S_MAX: u64 = 600;
/// Most records a second.
pub const RATE_MAX: u32 = 200;
/// A tap at which nobody has looked for so long ends.
const UNWATCHED_MAX: Duration = Duration::from_secs(20);
/// For how long a daemon shows records without being told again.
const LEASE: Duration = Duration::from_secs(30);
/// How often it is told again.
const RENEW: Duration = Duration::from_secs(20);
/// Records kept for a page that looks seldom.
const RECORDS_MAX: usize = 400;
/// Bytes of them; the newest batch stays, whatever its size.
const BYTES_MAX: usize = 256 * 1024;
/// How long one that has ended can still be looked at.
const KEPT: Duration = Duration::from_secs(60);

/// What to tap.
#[derive(Debug, Clone)]
pub struct TapWish {
    /// Who wants it.
    pub by: String,
    /// Where.
    pub daemon: String,
    /// The same.
    pub node: NodeId,
    /// Which workflow.
    pub workflow: String,
    /// Whose output; of a destination: what it gets.
    pub at: String,
    /// Most records a second.
    pub rate: u32,
    /// How long.
    pub lasts: Duration,
}

/// Why there is no such tap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{TAPS_MAX} taps are open already")]
pub struct Unopened;

/// A tap in the list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct TapShown {
    /// Its number.
    pub id: u64,
    /// Who opened it.
    pub by: String,
    /// On which daemon.
    pub daemon: String,
    /// Of which workflow.
    pub workflow: String,
    /// At which node.
    pub node: String,
    /// It shows nothing more.
    pub is_over: bool,
    /// How long it still lasts, in seconds.
    pub left_s: u64,
    /// Why it is over, or why it shows nothing; empty when there is nothing to tell.
    pub cause: String,
}

/// A record that passed.
#[derive(Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Taken<'a> {
    /// Counts what the tap has shown, from 1.
    pub number: u64,
    /// What it says.
    pub record: Record<'a>,
}

/// What a look at a tap shows.
#[derive(Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Look<'a> {
    /// The tap.
    pub tap: TapShown,
    /// Records after the one that was named, as far as they are still there.
    pub records: Vec<Taken<'a>>,
    /// Name this the next time.
    pub newest: u64,
    /// Records that passed and were not shown, in all.
    pub skipped: u64,
}

struct Tap {
    id: u64,
    wish: TapWish,
    until: Instant,
    watched: Instant,
    /// When the daemon was told last; `None`: not yet.
    told: Option<Instant>,
    /// Since when it is over, and whether the daemon has been told.
    over: Option<(Instant, bool)>,
    cause: String,
    /// With the number of each batch's first record, and its size.
    batches: VecDeque<(u64, usize, Records)>,
    newest: u64,
    skipped: u64,
}

impl Tap {
    fn shown(&self, now: Instant) -> TapShown {
        TapShown {
            id: self.id,
            by: self.wish.by.clone(),
            daemon: self.wish.daemon.clone(),
            workflow: self.wish.workflow.clone(),
            node: self.wish.at.clone(),
            is_over: self.over.is_some(),
            left_s: self
                .over
                .map_or(self.until.saturating_duration_since(now).as_secs(), |_| 0),
            cause: self.cause.clone(),
        }
    }

    fn end(&mut self, now: Instant, cause: &str) {
        if self.over.is_none() {
            self.over = Some((now, false));
            self.cause = cause.to_string();
        }
    }

    fn open(&self, lease: Duration) -> (NodeId, TapOpen) {
        let open = TapOpen {
            workflow: WorkflowId::of_name(&self.wish.workflow),
            node: self.wish.at.clone(),
            rate_max: self.wish.rate,
            lease_ms: lease.as_millis() as u32,
        };
        (self.wish.node, open)
    }

    fn is_for(&self, other: &TapWish) -> bool {
        let place = |wish: &TapWish| (wish.node, wish.workflow.clone(), wish.at.clone());
        place(&self.wish) == place(other)
    }

    fn take(&mut self, records: Records, bytes: usize, skipped: u64) {
        let rows = records.batch().rows();
        self.batches.push_back((self.newest + 1, bytes, records));
        self.newest += rows as u64;
        self.skipped += skipped;
        let size = |batches: &VecDeque<(u64, usize, Records)>| {
            let each = batches
                .iter()
                .map(|(_, bytes, records)| (*bytes, records.batch().rows()));
            each.fold((0, 0), |(bytes, rows), (more, count)| (bytes + more, rows + count))
        };
        while self.batches.len() > 1 && {
            let (bytes, rows) = size(&self.batches);
            bytes > BYTES_MAX || rows > RECORDS_MAX
        } {
            self.batches.pop_front();
        }
    }
}

/// All taps of the page.
pub struct Taps {
    redact: Redact,
    /// The last number given, and the taps.
    all: Mutex<(u64, Vec<Tap>)>,
}

impl Taps {
    /// None yet. The values of some columns are not even kept.
    pub fn new(redact: Redact) -> Self {
        Self {
            redact,
            all: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, (u64, Vec<Tap>)> {
        // Plain values: a panic leaves nothing half done.
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens one.
    pub fn open(&self, wish: TapWish, now: Instant) -> Result<TapShown, Unopened> {
        let mut all = self.lock();
        if all.1.iter().filter(|tap| tap.over.is_none()).count() >= TAPS_MAX {
            return Err(Unopened);
        }
        all.0 += 1;
        let tap = Tap {
            id: all.0,
            until: now + wish.lasts,
            wish,
            watched: now,
            told: None,
            over: None,
            cause: String::new(),
            batches: VecDeque::new(),
            newest: 0,
            skipped: 0,
        };
        let shown = tap.shown(now);
        all.1.push(tap);
        // Of those that are over a few are kept to be looked at.
        let surplus = all.1.len().saturating_sub(2 * TAPS_MAX);
        let mut surplus_ids: Vec<u64> = all
            .1
            .iter()
            .filter(|tap| tap.over.is_some())
            .map(|tap| tap.id)
            .collect();
        surplus_ids.truncate(surplus);
        all.1.retain(|tap| !surplus_ids.contains(&tap.id));
        Ok(shown)
    }

    /// A daemon has shown records.
    pub fn sample(&self, from: &NodeId, sample: TapSample) {
        let mut all = self.lock();
        let (workflow, bytes) = (sample.workflow, sample.batch.len());
        let mut wanted = all.1.iter_mut().filter(|tap| {
            let wish = &tap.wish;
            tap.over.is_none()
                && wish.node == *from
                && wish.at == sample.node
                && WorkflowId::of_name(&wish.workflow) == workflow
        });
        if !sample.refused.is_empty() {
            wanted.for_each(|tap| tap.end(Instant::now(), &sample.refused));
            return;
        }
        let Some(first) = wanted.next() else { return };
        match Records::decode(&sample.batch) {
            Ok(records) => {
                let records = records.hiding(|column| self.redact.hides(column));
                wanted.for_each(|tap| tap.take(records.clone(), bytes, sample.skipped));
                first.take(records, bytes, sample.skipped);
            }
            Err(cause) => first.cause = format!("a sample could not be read: {cause}"),
        }
    }

    /// What daemons have to be told now.
    pub fn due(&self, now: Instant) -> Vec<(NodeId, TapOpen)> {
        let mut all = self.lock();
        let mut due = Vec::new();
        for tap in all.1.iter_mut().filter(|tap| tap.over.is_none()) {
            if tap.until <= now {
                tap.end(now, "its time is over");
            } else if now.duration_since(tap.watched) > UNWATCHED_MAX {
                tap.end(now, "nobody looked at it any more");
            } else if tap.told.is_none_or(|told| now.duration_since(told) >= RENEW) {
                tap.told = Some(now);
                due.push(tap.open(LEASE));
            }
        }
        // At a daemon, taps at one place are one: it ends with the last.
        let open: Vec<TapWish> = all
            .1
            .iter()
            .filter(|tap| tap.over.is_none())
            .map(|tap| tap.wish.clone())
            .collect();
        for tap in &mut all.1 {
            if let Some((since, false)) = tap.over {
                tap.over = Some((since, true));
                if !open.iter().any(|wish| tap.is_for(wish)) {
                    due.push(tap.open(Duration::ZERO));
                }
            }
        }
        all.1
            .retain(|tap| tap.over.is_none_or(|(since, _)| now.duration_since(since) < KEPT));
        due
    }

    /// Those that somebody may see: its own, or all.
    pub fn list(&self, by: Option<&str>, now: Instant) -> Vec<TapShown> {
        let all = self.lock();
        let seen = all.1.iter().filter(|tap| by.is_none_or(|by| tap.wish.by == by));
        seen.map(|tap| tap.shown(now)).collect()
    }

    /// Shows what came after a record; `None` when there is no such tap of this caller.
    pub fn look<T>(&self, id: u64, by: &str, after: u64, now: Instant, show: impl FnOnce(Look<'_>) -> T) -> Option<T> {
        let mut all = self.lock();
        let tap = all.1.iter_mut().find(|tap| tap.id == id && tap.wish.by == by)?;
        tap.watched = now;
        let batches = tap.batches.iter();
        let numbered = batches.flat_map(|(first, _, records)| (*first..).zip(records.rows()));
        let records = numbered
            .filter(|(number, _)| *number > after)
            .map(|(number, record)| Taken { number, record })
            .collect();
        Some(show(Look {
            tap: tap.shown(now),
            records,
            newest: tap.newest,
            skipped: tap.skipped,
        }))
    }

    /// Ends one; `false` when there is none of this caller. `by`: `None` for whoever may end all.
    pub fn end(&self, id: u64, by: Option<&str>, now: Instant) -> bool {
        let mut all = self.lock();
        let found = all
            .1
            .iter_mut()
            .find(|tap| tap.id == id && by.is_none_or(|by| tap.wish.by == by));
        found.map(|tap| tap.end(now, "it was closed")).is_some()
    }

    /// Ends all: the plane stops.
    pub fn end_all(&self) {
        let now = Instant::now();
        self.lock().1.iter_mut().for_each(|tap| tap.end(now, "the plane stops"));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bus_schema::data::{BatchBuilder, Cell, Field, Op, Origin, Schema, Type};

    use super::*;

    fn node(n: u8) -> NodeId {
        NodeId::from_hash(&[n; 32])
    }

    fn wish(by: &str, n: u8) -> TapWish {
        TapWish {
            by: by.into(),
            daemon: format!("gw-{n}"),
            node: node(n),
            workflow: "orders".into(),
            at: "db".into(),
            rate: 10,
            lasts: Duration::from_secs(60),
        }
    }

    fn sample(rows: i64, refused: &str) -> TapSample {
        let schema = Schema {
            collection: "t".into(),
            fields: vec![Field::new("n", Type::I64), Field::new("password", Type::Text)],
        };
        let mut builder = BatchBuilder::new(Arc::new(schema));
        (0..rows).for_each(|n| {
            builder
                .push(Op::Insert, &[Cell::I64(n), Cell::Text("hunter2")])
                .unwrap()
        });
        TapSample {
            workflow: WorkflowId::of_name("orders"),
            node: "db".into(),
            batch: builder.finish(Origin::default()).encode(),
            skipped: 3,
            refused: refused.into(),
        }
    }

    fn taps() -> Taps {
        Taps::new(Redact::new(&["pass*".to_string()]).unwrap())
    }

    /// Numbers of the records after one, and all of it as JSON.
    fn seen(taps: &Taps, id: u64, by: &str, after: u64) -> Option<(Vec<u64>, String)> {
        taps.look(id, by, after, Instant::now(), |look| {
            let numbers = look.records.iter().map(|taken| taken.number).collect();
            (numbers, serde_json::to_string(&look).unwrap())
        })
    }

    #[test]
    fn records_are_numbered_redacted_and_bounded_and_shown_to_their_own() {
        let (taps, now) = (taps(), Instant::now());
        let id = taps.open(wish("anna", 1), now).unwrap().id;
        taps.sample(&node(1), sample(2, ""));
        taps.sample(&node(2), sample(2, ""));
        let (numbers, json) = seen(&taps, id, "anna", 0).unwrap();
        assert_eq!(numbers, [1, 2]);
        assert!(
            json.contains(r#"{"n":1,"password":"[redacted]"}"#) && !json.contains("hunter2"),
            "{json}"
        );
        assert!(json.contains(r#""newest":2,"skipped":3"#), "{json}");
        assert_eq!(seen(&taps, id, "anna", 1).unwrap().0, [2]);
        assert!(seen(&taps, id, "bea", 0).is_none() && !taps.end(id, Some("bea"), now));
        assert_eq!((taps.list(Some("bea"), now).len(), taps.list(None, now).len()), (0, 1));
        for _ in 0..30 {
            taps.sample(&node(1), sample(50, ""));
        }
        let (numbers, _) = seen(&taps, id, "anna", 0).unwrap();
        assert!(
            numbers.len() <= RECORDS_MAX && numbers.last() == Some(&1502),
            "{numbers:?}"
        );
    }

    #[test]
    fn they_end_by_themselves_and_daemons_are_told() {
        let (taps, now) = (taps(), Instant::now());
        let leases = |due: Vec<(NodeId, TapOpen)>| due.into_iter().map(|(_, open)| open.lease_ms).collect::<Vec<_>>();
        let later = |seconds| now + Duration::from_secs(seconds);
        let (first, second) = (
            taps.open(wish("anna", 1), now).unwrap().id,
            taps.open(wish("bea", 1), now).unwrap().id,
        );
        assert_eq!(leases(taps.due(now)), [30_000; 2]);
        assert_eq!(leases(taps.due(later(10))), [0; 0], "not again so soon");
        // One of two at the same place: the daemon goes on.
        assert!(taps.end(first, Some("anna"), later(11)));
        assert_eq!(leases(taps.due(later(11))), [0; 0]);
        // Nobody looks at the other.
        assert_eq!(leases(taps.due(later(21))), [0]);
        let cause = taps
            .list(None, later(21))
            .into_iter()
            .find(|tap| tap.id == second)
            .unwrap()
            .cause;
        assert_eq!(cause, "nobody looked at it any more");
        assert!(
            taps.due(later(90)).is_empty() && taps.list(None, later(90)).is_empty(),
            "forgotten"
        );
        // A daemon that refuses, and a time that is over.
        let refused = taps.open(wish("anna", 2), now).unwrap().id;
        taps.sample(&node(2), sample(0, "this daemon does not run that workflow"));
        assert!(
            seen(&taps, refused, "anna", 0)
                .unwrap()
                .1
                .contains("does not run that workflow")
        );
        let short = TapWish {
            lasts: Duration::ZERO,
            ..wish("anna", 3)
        };
        taps.open(short, now).unwrap();
        taps.due(now);
        assert!(taps.list(None, now).iter().all(|tap| tap.is_over));
        for n in 0..TAPS_MAX {
            assert!(taps.open(wish("anna", 10 + n as u8), now).is_ok());
        }
        assert_eq!(taps.open(wish("anna", 20), now), Err(Unopened));
    }
}
