//! Which record is to blame when the process of a destination dies of a batch, again and again. The records are given to it in
//! ever smaller parts, and one is rejected that it died of alone, `failures_max` times in a row, after another had gone through, and
//! as often again after the next: a destination that is broken, or whose server is away, rejects nothing.
//!
//! What went through is safe at the destination, and is not given to it again while the search goes on. Records keep their order,
//! but for those that died at first and went through later, and for one from behind where many in a row die.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use async_trait::async_trait;
use bus_schema::id::StreamId;
use flow::{Delivery, Fault, Rejected};

use super::suspect::{Failure, blamed};

/// Records that may die one after the other, each alone, before one from behind has to show that any goes through.
const IN_A_ROW_MAX: usize = 8;
/// Parts, of whatever size: more than halving the most that are given at once takes.
const PARTS_IN_A_ROW_MAX: usize = 32;
/// Times that the first of what is left has to show whether any goes through, before one from behind has to.
const FIRST_PROBES: usize = 4;

/// A process that takes records.
#[async_trait]
pub(crate) trait Takes: Send {
    /// Starts it if it does not run, and has it make these records safe. Returns those that it refuses. After a failure it is
    /// gone.
    async fn take(&mut self, deliveries: &[Delivery]) -> Result<Vec<Rejected>, Failure>;
}

/// A row: which delivery, and which of its rows.
type Place = (usize, usize);

/// What is known of batches that did not go through, for each lineage.
#[derive(Debug)]
pub(crate) struct Search {
    failures_max: u32,
    troubles: BTreeMap<StreamId, Trouble>,
}

/// A batch, or several that share a commit, at which the process died.
#[derive(Debug, Default)]
struct Trouble {
    /// The first of them.
    seq: u64,
    /// How often it died of all of them.
    failures: u32,
    /// What went through by itself since, with the reason if it is rejected.
    done: BTreeMap<Place, Option<String>>,
    /// What it has died of alone.
    suspects: BTreeSet<Place>,
    /// Those of them it died of as often as it takes, after another had gone through: the next that goes through tells.
    accused: Vec<(Place, Fault)>,
    /// How often one record was tried to see whether any goes through.
    probes: usize,
}

impl Search {
    /// `failures_max` of 0: no record is blamed, and what failed comes again as it was.
    pub(crate) fn new(failures_max: u32) -> Self {
        Self {
            failures_max,
            troubles: BTreeMap::new(),
        }
    }

    /// Has deliveries taken, or as much of them as is not done yet.
    pub(crate) async fn write<T: Takes>(
        &mut self,
        process: &mut T,
        deliveries: &[Delivery],
    ) -> Result<Vec<Rejected>, Fault> {
        let Some(Delivery { stream, seq, .. }) = deliveries.first() else {
            return Ok(Vec::new());
        };
        let failures_max = self.failures_max;
        let rejected = match self.troubles.get_mut(stream) {
            Some(trouble) if trouble.seq == *seq && trouble.is_searched(failures_max) => {
                trouble.search(process, deliveries, failures_max).await?
            }
            _ => process.take(deliveries).await.map_err(|failure| {
                if let Failure::Work(_) = &failure {
                    let trouble = self.troubles.entry(*stream).or_default();
                    if trouble.seq != *seq {
                        *trouble = Trouble {
                            seq: *seq,
                            ..Trouble::default()
                        };
                    }
                    trouble.failures = trouble.failures.saturating_add(1);
                    if trouble.is_searched(failures_max) {
                        tracing::warn!(
                            failures = trouble.failures,
                            "the records are given to it in parts from now on"
                        );
                    }
                }
                failure.fault()
            })?,
        };
        self.troubles.remove(stream);
        Ok(rejected)
    }

    /// Whether others would show what is to blame.
    pub(crate) fn wants_company(&self, stream: &StreamId) -> bool {
        let trouble = self.troubles.get(stream);
        trouble.is_some_and(|trouble| trouble.is_searched(self.failures_max))
    }

    /// A lineage begins anew: its numbers may stand for other records.
    pub(crate) fn forget(&mut self, stream: &StreamId) {
        self.troubles.remove(stream);
    }
}

impl Trouble {
    fn is_searched(&self, failures_max: u32) -> bool {
        failures_max > 0 && self.failures >= failures_max
    }

    /// Has all taken that is not done. Returns what is rejected of all of it.
    async fn search<T: Takes>(
        &mut self,
        process: &mut T,
        deliveries: &[Delivery],
        failures_max: u32,
    ) -> Result<Vec<Rejected>, Fault> {
        let rows = deliveries.iter().enumerate();
        let places = rows.flat_map(|(index, delivery)| (0..delivery.batch.rows()).map(move |row| (index, row)));
        let mut left: Vec<Place> = places.filter(|place| !self.done.contains_key(place)).collect();
        if let Some(probe) = self.probe(&left) {
            self.probes += 1;
            if let Err(fault) = self.give(process, deliveries, &[probe]).await? {
                self.suspects.insert(probe);
                return Err(put_off(fault, left.len()));
            }
            self.try_again(process, deliveries, failures_max).await?;
            left.retain(|place| !self.done.contains_key(place));
        }
        let mut queue = self.parts(&left);
        let mut siblings = BTreeMap::new();
        let mut in_a_row = 0;
        while let Some(part) = queue.pop_front() {
            let tries = if part.len() == 1 { failures_max } else { 1 };
            let Err(fault) = self.give_often(process, deliveries, &part, tries).await? else {
                in_a_row = 0;
                self.try_again(process, deliveries, failures_max).await?;
                continue;
            };
            in_a_row += 1;
            match part.as_slice() {
                [place] => {
                    self.suspects.insert(*place);
                    self.accused.retain(|(known, _)| known != place);
                    self.accused.push((*place, fault.clone()));
                }
                _ => {
                    if let [first, second] = part.as_slice() {
                        siblings.insert(*second, *first);
                    }
                    let (first, second) = part.split_at(part.len() / 2);
                    queue.push_front(second.to_vec());
                    queue.push_front(first.to_vec());
                }
            }
            if self.accused.len() >= IN_A_ROW_MAX || in_a_row >= PARTS_IN_A_ROW_MAX {
                let left = queue.iter().map(Vec::len).sum::<usize>() + self.accused.len();
                let Some(witness) = self.take_last(&mut queue) else {
                    return Err(put_off(fault, left));
                };
                if let Err(fault) = self.give(process, deliveries, &[witness]).await? {
                    return Err(put_off(fault, left));
                }
                in_a_row = 0;
                self.try_again(process, deliveries, failures_max).await?;
            }
        }
        // Nothing has come after these. But it died of two that were given together, after something had gone through, and
        // then took one of them: that tells as much of the other.
        let is_told = |(place, _): &(Place, Fault)| {
            let sibling = siblings.get(place);
            sibling.is_some_and(|sibling| !self.suspects.contains(sibling))
        };
        let (told, open): (Vec<_>, Vec<_>) = std::mem::take(&mut self.accused).into_iter().partition(is_told);
        told.iter().for_each(|(place, fault)| self.reject(*place, fault));
        self.accused = open;
        if let Some((_, fault)) = self.accused.last() {
            return Err(put_off(fault.clone(), self.accused.len()));
        }
        let rejected = std::mem::take(&mut self.done).into_iter();
        let rejected =
            rejected.filter_map(|((delivery, row), reason)| reason.map(|reason| Rejected { delivery, row, reason }));
        Ok(rejected.collect())
    }

    /// The record that shows whether any goes through: the first that has not died alone; after some, another from behind each
    /// time, so that it is not one to blame for ever.
    fn probe(&self, left: &[Place]) -> Option<Place> {
        let fresh: Vec<&Place> = left.iter().filter(|place| !self.suspects.contains(place)).collect();
        let turn = |count: usize| self.probes % count.max(1);
        match fresh.as_slice() {
            [] => left.iter().rev().nth(turn(left.len())).copied(),
            [first, ..] if self.probes < FIRST_PROBES => Some(**first),
            fresh => fresh.iter().rev().nth(turn(fresh.len())).map(|place| **place),
        }
    }

    /// What is left, in order: each that has died alone by itself.
    fn parts(&self, left: &[Place]) -> VecDeque<Vec<Place>> {
        let is_alike = |a: &Place, b: &Place| !self.suspects.contains(a) && !self.suspects.contains(b);
        left.chunk_by(is_alike).map(<[Place]>::to_vec).collect()
    }

    /// Takes the last that has not died alone.
    fn take_last(&self, queue: &mut VecDeque<Vec<Place>>) -> Option<Place> {
        let is_fresh = |part: &Vec<Place>| part.iter().all(|place| !self.suspects.contains(place));
        let at = queue.iter().rposition(is_fresh)?;
        let part = queue.get_mut(at)?;
        let place = part.pop();
        if part.is_empty() {
            queue.remove(at);
        }
        place
    }

    /// Once more as often, now that something goes through: the destination may have been away just then.
    async fn try_again<T: Takes>(
        &mut self,
        process: &mut T,
        deliveries: &[Delivery],
        failures_max: u32,
    ) -> Result<(), Fault> {
        for (place, _) in std::mem::take(&mut self.accused) {
            // It may be what has just gone through.
            if !self.done.contains_key(&place)
                && let Err(fault) = self.give_often(process, deliveries, &[place], failures_max).await?
            {
                self.reject(place, &fault);
            }
        }
        Ok(())
    }

    fn reject(&mut self, place: Place, fault: &Fault) {
        let (delivery, row) = place;
        tracing::warn!(%fault, delivery, row, "a record that does this to its process goes to the dead letters");
        self.done.insert(place, Some(blamed(fault)));
    }

    async fn give_often<T: Takes>(
        &mut self,
        process: &mut T,
        deliveries: &[Delivery],
        part: &[Place],
        tries: u32,
    ) -> Result<Result<(), Fault>, Fault> {
        let mut given = Ok(());
        for _ in 0..tries {
            given = self.give(process, deliveries, part).await?;
            if given.is_ok() {
                break;
            }
        }
        Ok(given)
    }

    /// Has some rows taken. The inner fault: it died of them.
    async fn give<T: Takes>(
        &mut self,
        process: &mut T,
        deliveries: &[Delivery],
        part: &[Place],
    ) -> Result<Result<(), Fault>, Fault> {
        let mut rows = BTreeMap::<usize, Vec<usize>>::new();
        for (delivery, row) in part {
            rows.entry(*delivery).or_default().push(*row);
        }
        let few = |(index, rows): (&usize, &Vec<usize>)| {
            let whole = deliveries.get(*index)?;
            let batch = whole.batch.take(rows);
            Some(Delivery { batch, ..whole.clone() })
        };
        let given: Vec<Delivery> = rows.iter().filter_map(few).collect();
        let refused = match process.take(&given).await {
            Ok(refused) => refused,
            Err(Failure::Work(fault)) => return Ok(Err(fault)),
            Err(Failure::Blameless(fault)) => return Err(fault),
        };
        self.done.extend(part.iter().map(|place| (*place, None)));
        let rows: Vec<_> = rows.into_iter().collect();
        for Rejected { delivery, row, reason } in refused {
            let place = rows
                .get(delivery)
                .and_then(|(index, rows)| Some((*index, *rows.get(row)?)));
            self.done.extend(place.map(|place| (place, Some(reason))));
        }
        Ok(Ok(()))
    }
}

/// That nobody is to blame yet.
fn put_off(fault: Fault, left: usize) -> Fault {
    let but = format!(
        "whether that is because of the records that are left of the batch ({left}) cannot be told before others go through"
    );
    match fault {
        Fault::Retry { cause, after } => Fault::Retry {
            cause: format!("{cause}; {but}"),
            after,
        },
        fault => fault,
    }
}

#[cfg(test)]
mod tests {
    use bus_schema::data::{Batch, Field, Op, Type, Value};

    use super::*;
    use crate::file::testing::{batch_of, delivery};

    /// Dies of some numbers, refuses those above 100, and of everything while its server is away. Takes down what it stored.
    #[derive(Default)]
    struct Fragile {
        deadly: Vec<i64>,
        /// Calls in which the server is away, by their number.
        away: Vec<std::ops::Range<usize>>,
        calls: usize,
        stored: Vec<i64>,
    }

    fn numbers(batch: &Batch) -> Vec<i64> {
        let number = |row| match batch.cell(row, 0).to_value() {
            Value::I64(number) => number,
            other => panic!("{other:?}"),
        };
        (0..batch.rows()).map(number).collect()
    }

    #[async_trait]
    impl Takes for Fragile {
        async fn take(&mut self, deliveries: &[Delivery]) -> Result<Vec<Rejected>, Failure> {
            self.calls += 1;
            let all: Vec<i64> = deliveries
                .iter()
                .flat_map(|delivery| numbers(&delivery.batch))
                .collect();
            if self.away.iter().any(|away| away.contains(&self.calls))
                || all.iter().any(|number| self.deadly.contains(number))
            {
                return Err(Failure::Work(Fault::retry("dead")));
            }
            let (mut refused, reason) = (Vec::new(), "too much".to_string());
            for (index, delivery) in deliveries.iter().enumerate() {
                for (row, number) in numbers(&delivery.batch).into_iter().enumerate() {
                    match number {
                        101.. => refused.push(Rejected {
                            delivery: index,
                            row,
                            reason: reason.clone(),
                        }),
                        _ => self.stored.push(number),
                    }
                }
            }
            Ok(refused)
        }
    }

    fn deliveries(batches: &[&[i64]]) -> Vec<Delivery> {
        let batch = |numbers: &[i64]| {
            let rows: Vec<[Value; 1]> = numbers.iter().map(|number| [Value::I64(*number)]).collect();
            let rows: Vec<(Op, &[Value])> = rows.iter().map(|row| (Op::Insert, row.as_slice())).collect();
            batch_of(vec![Field::new("n", Type::I64)], &rows)
        };
        let numbered = (1..).zip(batches);
        numbered
            .map(|(seq, numbers)| delivery("a", seq, batch(numbers)))
            .collect()
    }

    /// Writes again and again, as the runner does. Returns how often, and what was rejected.
    async fn written(
        search: &mut Search,
        process: &mut Fragile,
        deliveries: &[Delivery],
        writes_max: usize,
    ) -> Result<(usize, Vec<(usize, usize)>), String> {
        let mut last = String::new();
        for writes in 1..=writes_max {
            match search.write(process, deliveries).await {
                Ok(rejected) => return Ok((writes, rejected.iter().map(|one| (one.delivery, one.row)).collect())),
                Err(fault) => last = fault.to_string(),
            }
        }
        Err(last)
    }

    #[tokio::test]
    async fn who_kills_is_rejected_and_the_others_are_stored_once() {
        let many: Vec<i64> = (0..100).collect();
        for (batches, deadly) in [
            (vec![&many[..]], vec![0]),
            (vec![&many[..]], vec![98]),
            (vec![&many[..]], vec![99]),
            (vec![&many[..]], vec![0, 1, 2, 50, 99]),
            (
                vec![&many[..40], &many[40..41], &many[41..41], &many[41..]],
                vec![39, 40],
            ),
            (vec![&[0, 1, 200, 3]], vec![3]),
            (vec![&[0, 1, 2]], vec![0]),
            (vec![&[0, 1, 2]], vec![1]),
            (vec![&[0, 1, 2]], vec![2]),
            (vec![&[0], &[1], &[2]], vec![0]),
            (vec![&[0], &[1], &[2]], vec![2]),
        ] {
            let deliveries = deliveries(&batches);
            let (mut search, mut process) = (Search::new(3), Fragile::default());
            process.deadly.clone_from(&deadly);
            let place = format!("{deadly:?} of {batches:?}");
            let done = written(&mut search, &mut process, &deliveries, 20).await;
            let (_, rejected) = done.unwrap_or_else(|fault| panic!("{place}: {fault}"));
            let all: Vec<i64> = batches.iter().flat_map(|batch| batch.iter().copied()).collect();
            let at = |(delivery, row): &(usize, usize)| batches[*delivery][*row];
            let bad = |number: &i64| deadly.contains(number) || *number > 100;
            let wanted: Vec<i64> = all.iter().copied().filter(bad).collect();
            assert_eq!(rejected.iter().map(at).collect::<Vec<_>>(), wanted, "{place}");
            let wanted: Vec<i64> = all.into_iter().filter(|number| !bad(number)).collect();
            assert_eq!(process.stored, wanted, "{place}");
            assert!(!search.wants_company(&deliveries[0].stream), "{place}");
        }
    }

    #[tokio::test]
    async fn many_side_by_side_are_found_too() {
        let many: Vec<i64> = (0..1000).map(|number| -number).collect();
        for (first, count, wants_company) in [
            (0, 40, false),
            (480, 40, false),
            (100, 700, false),
            (950, 40, false),
            // Nothing is behind them.
            (960, 40, true),
        ] {
            let batches = deliveries(&[
                &many[..600],
                &many[600..],
                &[-1000, -1001, -1002, -1003, -1004, -1005, -1006],
            ]);
            let (mut search, mut process) = (Search::new(3), Fragile::default());
            process.deadly = many[first..first + count].to_vec();
            let mut done = written(&mut search, &mut process, &batches[..2], 20).await;
            assert_eq!(done.is_err(), wants_company, "{first} {count}: {done:?}");
            if wants_company {
                done = written(&mut search, &mut process, &batches, 20).await;
            }
            let (_, rejected) = done.unwrap_or_else(|fault| panic!("{first} {count}: {fault}"));
            assert_eq!(rejected.len(), count, "{first} {count}");
            process.stored.sort_unstable_by_key(|number| -number);
            let all = (0..if wants_company { 1007 } else { 1000 }).map(|number: i64| -number);
            let wanted: Vec<i64> = all.filter(|number| !process.deadly.contains(number)).collect();
            assert_eq!(process.stored, wanted, "{first} {count}");
        }
    }

    #[tokio::test]
    async fn nobody_is_blamed_without_others_that_go_through() {
        let dead = |left| {
            format!(
                "dead; whether that is because of the records that are left of the batch ({left}) cannot be told before others go \
                 through"
            )
        };
        for (batches, deadly, failures_max, wanted) in [
            // All of them: perhaps the destination is broken.
            (vec![&[0, 1, 2][..]], vec![0, 1, 2], 3, dead(3)),
            // Alone, and with one that goes through before or after, but not both.
            (vec![&[0]], vec![0], 3, dead(1)),
            (vec![&[0, 1]], vec![1], 3, dead(1)),
            (vec![&[0, 1]], vec![0], 3, dead(1)),
            // Never.
            (vec![&[0, 1, 2]], vec![1], 0, "dead".to_string()),
        ] {
            let deliveries = deliveries(&batches);
            let (mut search, mut process) = (Search::new(failures_max), Fragile::default());
            process.deadly.clone_from(&deadly);
            let done = written(&mut search, &mut process, &deliveries, 50).await;
            assert_eq!(done, Err(wanted), "{deadly:?} of {batches:?}");
            // While nothing goes through, it is asked as seldom as without a search.
            assert!(process.calls <= 50 + 10, "{}", process.calls);
            assert_eq!(search.wants_company(&deliveries[0].stream), failures_max > 0);
        }
    }

    #[tokio::test]
    async fn who_comes_later_tells_of_one_that_was_alone() {
        let (mut search, mut process) = (Search::new(2), Fragile::default());
        process.deadly = vec![0];
        for batches in [&[&[0][..]][..], &[&[0], &[1]]] {
            let done = written(&mut search, &mut process, &deliveries(batches), 9).await;
            assert!(done.is_err(), "{done:?}");
        }
        let all = deliveries(&[&[0], &[1], &[2], &[3]]);
        let done = written(&mut search, &mut process, &all, 9).await;
        assert_eq!(done.map(|(_, rejected)| rejected), Ok(vec![(0, 0)]));
        process.stored.sort_unstable();
        assert_eq!(process.stored, [1, 2, 3]);
        // The next is given as a whole again, and so is another of the same number after a new beginning.
        process.calls = 0;
        let rest = deliveries(&[&[4, 5]]);
        assert_eq!(written(&mut search, &mut process, &rest, 1).await, Ok((1, vec![])));
        process.deadly = vec![6];
        let died = written(&mut search, &mut process, &deliveries(&[&[6, 7]]), 5).await;
        assert!(died.is_err());
        search.forget(&rest[0].stream);
        assert_eq!(written(&mut search, &mut process, &rest, 1).await, Ok((1, vec![])));
        assert_eq!(process.stored, [1, 2, 3, 4, 5, 7, 4, 5]);
    }

    #[tokio::test]
    async fn who_comes_one_by_one_tells_too() {
        let (mut search, mut process) = (Search::new(2), Fragile::default());
        process.deadly = vec![0];
        let all = deliveries(&[&[0], &[1], &[2]]);
        for count in 1..3 {
            let done = written(&mut search, &mut process, &all[..count], 9).await;
            assert!(done.is_err(), "{done:?}");
        }
        let done = written(&mut search, &mut process, &all, 9).await;
        assert_eq!(done.map(|(_, rejected)| rejected), Ok(vec![(0, 0)]));
        assert_eq!(process.stored, [1, 2]);
    }

    #[tokio::test]
    async fn a_server_that_is_away_meanwhile_blames_nobody() {
        let many: Vec<i64> = (0..20).collect();
        for deadly in [vec![], vec![7], vec![18, 19]] {
            for (begin, long) in (1..40).flat_map(|begin| (0..40).map(move |long| (begin, long))) {
                let (mut search, mut process) = (Search::new(2), Fragile::default());
                process.away.push(begin..begin + long);
                process.deadly.clone_from(&deadly);
                let batches = deliveries(&[&many, &[20, 21, 22, 23], &[24, 25, 26]]);
                let mut done = written(&mut search, &mut process, &batches[..2], 100).await;
                // Those that are to blame may be all that is left, and then others tell.
                let (first, had) = (process.stored.len(), done.is_ok());
                if !had {
                    done = written(&mut search, &mut process, &batches, 100).await;
                }
                let rejected = done.map(|(_, rejected)| rejected.into_iter().map(|(_, row)| row as i64).collect());
                let place = format!("away from {begin} for {long}, {deadly:?}");
                assert_eq!(rejected.as_ref(), Ok(&deadly), "{place}");
                process.stored.sort_unstable();
                let all = if had { 24 } else { 27 };
                let wanted: Vec<i64> = (0..all).filter(|number| !deadly.contains(number)).collect();
                assert_eq!((process.stored, first), (wanted, 24 - deadly.len()), "{place}");
            }
        }
    }

    #[tokio::test]
    async fn one_that_fails_now_and_then_blames_nobody() {
        let many: Vec<i64> = (0..20).collect();
        let batches = deliveries(&[&many, &[20, 21, 22, 23]]);
        for long in [1, 3, 10] {
            for (begin, again) in (1..40).flat_map(|begin| (1..80).map(move |again| (begin, again))) {
                let (mut search, mut process) = (Search::new(2), Fragile::default());
                process.away = vec![begin..begin + long, begin + long + again..begin + long + again + 1];
                let done = written(&mut search, &mut process, &batches, 100).await;
                let rejected = done.map(|(_, rejected)| rejected);
                assert_eq!(rejected, Ok(vec![]), "{begin} {long} {again}");
            }
        }
    }
}
