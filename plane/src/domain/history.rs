//! History at falling resolution: how rows of amounts are put together, when, and which have to go so that a budget of
//! bytes holds. Pure: rows themselves are on disk, see `store::history`.
//!
//! A row holds what every series did in one step. Rows of ten seconds are put together to minutes, minutes to ten minutes;
//! sums of what grew stay exact, of what rises and falls the least, the most and the sum do.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

/// One resolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resolution {
    /// Length of a step, in seconds.
    pub step_s: u64,
    /// How long it is kept, in seconds.
    pub keep_s: u64,
    /// Which part of the budget it may take, in percent.
    pub share: u64,
}

/// The resolutions, finest first. Each step is a whole number of steps of the one before.
pub const RESOLUTIONS: [Resolution; 3] = [
    Resolution {
        step_s: 10,
        keep_s: 3_600,
        share: 15,
    },
    Resolution {
        step_s: 60,
        keep_s: 24 * 3_600,
        share: 35,
    },
    Resolution {
        step_s: 600,
        keep_s: 31 * 24 * 3_600,
        share: 50,
    },
];

/// Which series; see `store::history`.
pub type SeriesId = u32;

/// What a series did in one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Amount {
    /// A counter grew by this.
    Growth(u64),
    /// Something that rises and falls, by samples.
    Gauge(Gauge),
}

/// Samples of something that rises and falls, kept so that what hardly moves takes few bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gauge {
    count: u32,
    min: u64,
    /// Above the least: the most.
    spread: u64,
    /// The sum, above `count` times the least.
    excess: u64,
}

impl Gauge {
    /// One sample.
    pub fn of(value: u64) -> Self {
        Self {
            count: 1,
            min: value,
            spread: 0,
            excess: 0,
        }
    }

    /// Least of the samples.
    pub fn min(&self) -> u64 {
        self.min
    }

    /// Most of the samples.
    pub fn max(&self) -> u64 {
        self.min.saturating_add(self.spread)
    }

    /// How many samples.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Sum of the samples.
    pub fn sum(&self) -> u128 {
        u128::from(self.min) * u128::from(self.count) + u128::from(self.excess)
    }

    /// Average of the samples.
    pub fn mean(&self) -> u64 {
        u64::try_from(self.sum() / u128::from(self.count.max(1))).unwrap_or(u64::MAX)
    }

    fn with(&self, other: &Self) -> Self {
        let (min, max) = (self.min.min(other.min), self.max().max(other.max()));
        let count = self.count.saturating_add(other.count);
        let excess = (self.sum() + other.sum()).saturating_sub(u128::from(min) * u128::from(count));
        Self {
            count,
            min,
            spread: max - min,
            excess: u64::try_from(excess).unwrap_or(u64::MAX),
        }
    }
}

impl Amount {
    /// Both together. A series never changes its kind; if one did, the newer word counts.
    #[must_use]
    pub fn with(&self, newer: &Self) -> Self {
        match (self, newer) {
            (Self::Growth(a), Self::Growth(b)) => Self::Growth(a.saturating_add(*b)),
            (Self::Gauge(a), Self::Gauge(b)) => Self::Gauge(a.with(b)),
            (_, newer) => *newer,
        }
    }
}

/// What all series did in one step.
pub type Row = BTreeMap<SeriesId, Amount>;

/// Adds a later row to one.
pub fn add(into: &mut Row, newer: &Row) {
    for (id, amount) in newer {
        into.entry(*id)
            .and_modify(|known| *known = known.with(amount))
            .or_insert(*amount);
    }
}

/// A row's bytes: ids as differences, so that one of a thousand idle series takes a few kilobytes.
pub fn pack(row: &Row) -> Vec<u8> {
    let mut last = 0;
    let packed: Vec<(u32, Amount)> = row
        .iter()
        .map(|(id, amount)| (id - std::mem::replace(&mut last, *id), *amount))
        .collect();
    bus_schema::encode(&packed)
}

/// Reads a row's bytes; `None` when they are damaged.
pub fn unpack(bytes: &[u8]) -> Option<Row> {
    let packed: Vec<(u32, Amount)> = bus_schema::decode(bytes)?;
    let mut last = 0u32;
    packed
        .into_iter()
        .map(|(difference, amount)| {
            last = last.checked_add(difference)?;
            Some((last, amount))
        })
        .collect()
}

/// Which row: its resolution, and which step since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RowId {
    /// Index into [`RESOLUTIONS`].
    pub resolution: usize,
    /// Seconds since 1970 by the step's length.
    pub step: u64,
}

/// Which rows there are and what each takes.
#[derive(Debug, Clone)]
pub struct Rings {
    budget_bytes: u64,
    rows: [VecDeque<(u64, u64)>; RESOLUTIONS.len()],
    used: [u64; RESOLUTIONS.len()],
}

impl Rings {
    /// None yet.
    pub fn new(budget_bytes: u64) -> Self {
        Self {
            budget_bytes,
            rows: Default::default(),
            used: [0; RESOLUTIONS.len()],
        }
    }

    /// Forgets all rows.
    pub fn clear(&mut self) {
        *self = Self::new(self.budget_bytes);
    }

    /// What all rows take.
    pub fn used_bytes(&self) -> u64 {
        self.used.iter().sum()
    }

    /// The newest step of a resolution.
    pub fn newest(&self, resolution: usize) -> Option<u64> {
        self.rows[resolution].back().map(|(step, _)| *step)
    }

    /// The oldest step of a resolution.
    pub fn oldest(&self, resolution: usize) -> Option<u64> {
        self.rows[resolution].front().map(|(step, _)| *step)
    }

    fn share(&self, resolution: usize) -> u64 {
        self.budget_bytes / 100 * RESOLUTIONS[resolution].share
    }

    /// A row is going to be written that takes `bytes`. Returns the rows that have to be deleted first; `None` when it must
    /// not be written: it does not fit at all, or is older than what there is.
    pub fn put(&mut self, row: RowId, bytes: u64) -> Option<Vec<RowId>> {
        let RowId { resolution, step } = row;
        let share = self.share(resolution);
        if bytes > share || self.newest(resolution).is_some_and(|newest| step <= newest) {
            return None;
        }
        let Resolution { step_s, keep_s, .. } = RESOLUTIONS[resolution];
        let (rows, used) = (&mut self.rows[resolution], &mut self.used[resolution]);
        let mut gone = Vec::new();
        while let Some((oldest, takes)) = rows.front().copied() {
            if oldest + keep_s / step_s > step && *used + bytes <= share {
                break;
            }
            rows.pop_front();
            *used -= takes;
            gone.push(RowId {
                resolution,
                step: oldest,
            });
        }
        rows.push_back((step, bytes));
        *used += bytes;
        Some(gone)
    }

    /// Rows of the future: the wall clock went back by more than the finest resolution keeps, so they were wrong.
    /// Returns which, and forgets them.
    pub fn from_the_future(&mut self, now_s: u64) -> Vec<RowId> {
        let mut gone = Vec::new();
        for (resolution, Resolution { step_s, .. }) in RESOLUTIONS.iter().enumerate() {
            while let Some((step, takes)) = self.rows[resolution].back().copied() {
                if step * step_s <= now_s + RESOLUTIONS[0].keep_s {
                    break;
                }
                self.rows[resolution].pop_back();
                self.used[resolution] -= takes;
                gone.push(RowId { resolution, step });
            }
        }
        gone
    }

    /// Rows that can be put together by now from those of the next finer resolution: their step is over.
    /// `resolution` is the coarser one.
    pub fn due(&self, resolution: usize, now_s: u64) -> Vec<RowId> {
        let (fine, coarse) = (RESOLUTIONS[resolution - 1].step_s, RESOLUTIONS[resolution].step_s);
        let (ratio, current) = (coarse / fine, now_s / coarse);
        let begin = self.newest(resolution).map_or(0, |newest| newest + 1);
        let mut steps: Vec<u64> = self.rows[resolution - 1]
            .iter()
            .map(|(step, _)| step / ratio)
            .filter(|step| (begin..current).contains(step))
            .collect();
        steps.dedup();
        steps.into_iter().map(|step| RowId { resolution, step }).collect()
    }
}

/// The finest resolution that shows a time span in at most `points_max` steps and reaches back to its begin.
pub fn resolution_for(from_s: u64, to_s: u64, now_s: u64, points_max: u64) -> usize {
    let fits = |resolution: &Resolution| {
        let in_reach = now_s.saturating_sub(from_s) <= resolution.keep_s + resolution.step_s;
        in_reach && to_s.saturating_sub(from_s) / resolution.step_s <= points_max
    };
    RESOLUTIONS.iter().position(fits).unwrap_or(RESOLUTIONS.len() - 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Rows in memory, as the store keeps them on disk.
    struct Kept {
        rings: Rings,
        rows: BTreeMap<RowId, Vec<u8>>,
        lost: [u64; RESOLUTIONS.len()],
    }

    impl Kept {
        fn put(&mut self, id: RowId, row: &Row) {
            let bytes = pack(row);
            let Some(gone) = self.rings.put(id, bytes.len() as u64) else {
                return;
            };
            for gone in gone {
                let row = self.rows.remove(&gone).unwrap();
                self.lost[gone.resolution] += growth(&unpack(&row).unwrap());
            }
            self.rows.insert(id, bytes);
        }

        fn write(&mut self, step: u64, row: &Row) {
            for resolution in 1..RESOLUTIONS.len() {
                for due in self.rings.due(resolution, step * 10) {
                    let ratio = RESOLUTIONS[resolution].step_s / RESOLUTIONS[resolution - 1].step_s;
                    let mut all = Row::new();
                    for step in due.step * ratio..(due.step + 1) * ratio {
                        let fine = RowId {
                            resolution: resolution - 1,
                            step,
                        };
                        if let Some(row) = self.rows.get(&fine) {
                            add(&mut all, &unpack(row).unwrap());
                        }
                    }
                    self.put(due, &all);
                }
            }
            self.put(RowId { resolution: 0, step }, row);
        }

        fn sum(&self, resolution: usize, until_s: u64) -> u64 {
            let rows = self.rows.iter().filter(|(id, _)| {
                id.resolution == resolution && (id.step + 1) * RESOLUTIONS[resolution].step_s <= until_s
            });
            rows.map(|(_, row)| growth(&unpack(row).unwrap())).sum::<u64>() + self.lost[resolution]
        }
    }

    fn growth(row: &Row) -> u64 {
        let grown = |amount: &Amount| if let Amount::Growth(count) = amount { *count } else { 0 };
        row.values().map(grown).sum()
    }

    proptest! {
        #[test]
        fn sums_are_the_same_at_every_resolution(
            steps in proptest::collection::vec((1u64..40, 0u64..1_000, 0u64..50), 1..400)
        ) {
            let mut kept = Kept { rings: Rings::new(1 << 30), rows: BTreeMap::new(), lost: [0; 3] };
            let mut step = 170_000_000;
            let mut all = Vec::new();
            for (gap, grown, value) in steps {
                step += gap;
                let row = Row::from([(1, Amount::Growth(grown)), (9, Amount::Gauge(Gauge::of(value)))]);
                kept.write(step, &row);
                all.push((step * 10, grown, value));
            }
            for (resolution, Resolution { step_s, .. }) in RESOLUTIONS.iter().enumerate().skip(1) {
                let until = kept.rings.newest(resolution).map_or(0, |newest| (newest + 1) * step_s);
                let told: u64 = all.iter().filter(|(at, ..)| *at < until).map(|(_, grown, _)| grown).sum();
                prop_assert_eq!(kept.sum(resolution, until), told);
            }
            // Least and most of a gauge survive, too.
            for (id, row) in &kept.rows {
                let Some(Amount::Gauge(gauge)) = unpack(row).unwrap().get(&9).copied() else { continue };
                let step_s = RESOLUTIONS[id.resolution].step_s;
                let said: Vec<u64> = all
                    .iter()
                    .filter(|(at, ..)| at / step_s == id.step)
                    .map(|(_, _, value)| *value)
                    .collect();
                prop_assert_eq!(Some(gauge.min()), said.iter().min().copied());
                prop_assert_eq!(Some(gauge.max()), said.iter().max().copied());
                prop_assert_eq!(gauge.sum(), said.iter().map(|value| u128::from(*value)).sum::<u128>());
            }
        }

        #[test]
        fn the_budget_is_never_passed(
            budget in 2_000u64..50_000,
            rows in proptest::collection::vec((0usize..3, 1u64..400, 1u64..5_000), 1..400)
        ) {
            let mut rings = Rings::new(budget);
            let mut there: BTreeMap<RowId, u64> = BTreeMap::new();
            for (resolution, gap, bytes) in rows {
                let id = RowId { resolution, step: rings.newest(resolution).unwrap_or(1_000_000) + gap };
                if let Some(gone) = rings.put(id, bytes) {
                    for gone in gone {
                        prop_assert!(there.remove(&gone).is_some());
                    }
                    there.insert(id, bytes);
                }
                prop_assert!(there.values().sum::<u64>() <= budget);
                prop_assert_eq!(there.values().sum::<u64>(), rings.used_bytes());
                for (resolution, Resolution { step_s, keep_s, .. }) in RESOLUTIONS.iter().enumerate() {
                    let steps = rings.newest(resolution).zip(rings.oldest(resolution));
                    prop_assert!(steps.is_none_or(|(newest, oldest)| newest - oldest < keep_s / step_s));
                }
            }
        }

        #[test]
        fn rows_read_back(row in proptest::collection::btree_map(any::<u32>(), (any::<bool>(), any::<u32>()), 0..50)) {
            let row: Row = row
                .into_iter()
                .map(|(id, (grows, value))| {
                    let value = u64::from(value);
                    (id, if grows { Amount::Growth(value) } else { Amount::Gauge(Gauge::of(value)) })
                })
                .collect();
            prop_assert_eq!(unpack(&pack(&row)), Some(row));
        }
    }

    #[test]
    fn what_is_older_or_from_the_future() {
        let mut rings = Rings::new(1 << 20);
        let at = |step| RowId { resolution: 0, step };
        assert_eq!(rings.put(at(1_000), 10), Some(Vec::new()));
        assert_eq!(rings.put(at(1_000), 10), None, "the clock stood still");
        assert_eq!(rings.put(at(999), 10), None, "the clock went back a little");
        assert_eq!(rings.from_the_future(9_990), []);
        assert_eq!(rings.from_the_future(10_000 - 3_601), [at(1_000)]);
        assert_eq!(rings.used_bytes(), 0);
        assert_eq!(unpack(b"\xff\xff\xff\xff\xff\xff"), None);
    }

    #[test]
    fn an_idle_series_takes_few_bytes() {
        let idle = |id: u32| match id % 2 {
            0 => Amount::Growth(0),
            _ => Amount::Gauge(Gauge::of(9_000_000)),
        };
        let row: Row = (0..1_000).map(|id| (id, idle(id))).collect();
        assert!(pack(&row).len() < 7_000, "{}", pack(&row).len());
    }

    #[test]
    fn the_span_decides_the_resolution() {
        const HOUR: u64 = 3_600;
        let now = 1_000 * 24 * HOUR;
        for (back, long, resolution) in [
            (HOUR, HOUR, 0),
            (2 * HOUR, 2 * HOUR, 1),
            (2 * HOUR, 60, 1),
            (24 * HOUR, 24 * HOUR, 1),
            (48 * HOUR, HOUR, 2),
            (31 * 24 * HOUR, 31 * 24 * HOUR, 2),
        ] {
            assert_eq!(
                resolution_for(now - back, now - back + long, now, 1_500),
                resolution,
                "{back} {long}"
            );
        }
    }
}
