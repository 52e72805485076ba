//! How far a stream is behind, from counts that arrive every few seconds: when was the oldest record that still waits taken?
//! Nobody tells the plane the time of a record. But a record that was among those produced at an earlier report had been taken
//! by then; so a few earlier counts, with their times, say how long it has waited at least. Knows no clock and no stream.

use std::collections::VecDeque;

/// Counts kept. When there are more, the one is forgotten whose neighbours are closest: what is told may then be too little, by
/// the time between two of them.
const MARKS_MAX: usize = 8;
/// Without a report for this long nobody says that what waited has gone, in milliseconds: it is taken to wait on.
const SILENT_MS: u64 = 16_000;

/// How far one stream is behind.
#[derive(Debug, Clone, Default)]
pub struct Lag {
    /// (time, records produced until then), oldest first; only of those that wait still.
    marks: VecDeque<(u64, u64)>,
    heard_ms: u64,
    /// Since when it is watched without a gap.
    begun_ms: u64,
}

impl Lag {
    /// So many records were produced until now, and so many of them need not be waited for any more. Counts that went back begin
    /// anew (a new epoch of the stream).
    pub fn sample(&mut self, now_ms: u64, produced: u64, settled: u64) {
        // What was told before a restart is remembered at 0.
        if self.heard_ms == 0 || now_ms.saturating_sub(self.heard_ms) > SILENT_MS {
            self.begun_ms = now_ms;
        }
        self.heard_ms = now_ms;
        if self.marks.back().is_some_and(|(_, last)| produced < *last) {
            self.marks.clear();
        }
        while self.marks.front().is_some_and(|(_, first)| *first <= settled) {
            self.marks.pop_front();
        }
        let is_known = self.marks.back().is_some_and(|(_, last)| *last == produced);
        if produced <= settled || is_known {
            return;
        }
        if self.marks.len() >= MARKS_MAX {
            // The first stays: it says how long the oldest has waited.
            let between = |at: &usize| self.marks[at + 1].0.saturating_sub(self.marks[at - 1].0);
            let closest = (1..self.marks.len() - 1).min_by_key(between);
            closest.and_then(|at| self.marks.remove(at));
        }
        self.marks.push_back((now_ms, produced));
    }

    /// How long ago the oldest record that waits was taken, when it was last spoken of, in milliseconds: at least so long.
    /// `None`: nothing waits.
    pub fn ms(&self, now_ms: u64) -> Option<u64> {
        let (since, _) = self.marks.front()?;
        let is_silent = now_ms.saturating_sub(self.heard_ms) > SILENT_MS;
        let until = if is_silent { now_ms } else { self.heard_ms };
        Some(until.saturating_sub(*since))
    }

    /// Whether the oldest that waits did so already when it began to be watched, for the first time or again after a silence: how
    /// long before that, nobody has seen.
    pub fn is_older(&self) -> bool {
        self.marks.front().is_some_and(|(since, _)| *since <= self.begun_ms)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn how_far_behind() {
        // (reports: time, produced, settled; asked at; lag)
        for (reports, now, expected) in [
            (vec![], 0, None),
            (vec![(0, 0, 0)], 0, None),
            (vec![(0, 100, 100)], 0, None),
            // Something is always on the way in a stream that flows: each report speaks of other records.
            (
                vec![(0, 100, 90), (5_000, 200, 190), (10_000, 300, 290)],
                12_000,
                Some(0),
            ),
            // Nothing is delivered any more.
            (
                vec![(0, 100, 90), (5_000, 200, 90), (10_000, 300, 90)],
                10_000,
                Some(10_000),
            ),
            // The oldest have gone; those that came after them wait.
            (
                vec![(0, 100, 90), (5_000, 200, 90), (10_000, 300, 100)],
                10_000,
                Some(5_000),
            ),
            (vec![(0, 100, 90), (5_000, 200, 90), (10_000, 300, 300)], 10_000, None),
            // Nothing new is produced, and what there is waits on.
            (
                vec![(0, 100, 90), (5_000, 100, 90), (60_000, 100, 90)],
                60_000,
                Some(60_000),
            ),
            // Silence: it waits on.
            (vec![(0, 100, 90)], 16_000, Some(0)),
            (vec![(0, 100, 90)], 16_001, Some(16_001)),
            // A new epoch: what waits now was taken in it.
            (vec![(0, 100, 90), (5_000, 10, 0)], 5_000, Some(0)),
        ] {
            let mut lag = Lag::default();
            for (at, produced, settled) in &reports {
                lag.sample(*at, *produced, *settled);
            }
            assert_eq!(lag.ms(now), expected, "{reports:?}");
        }
    }

    #[test]
    fn what_waited_from_the_first_report_on_is_older() {
        let mut lag = Lag::default();
        let told = [
            (1_000, 100, 90),
            (5_000, 200, 90),
            (10_000, 300, 100),
            (15_000, 300, 300),
            (20_000, 400, 300),
        ]
        .map(|(at, produced, settled)| {
            lag.sample(at, produced, settled);
            lag.is_older()
        });
        assert_eq!(told, [true, true, false, false, false]);
        // After a silence, and over a restart: what waits then may be from anywhere in between.
        let mut remembered = Lag::default();
        remembered.sample(0, 400, 300);
        for (mut lag, at) in [(lag, 20_001 + SILENT_MS), (remembered, 3_000)] {
            for (later, settled, is_older) in [(0, 900, true), (5_000, 999, true), (10_000, 1_000, false)] {
                lag.sample(at + later, 1_000 + later, settled);
                assert_eq!(lag.is_older(), is_older, "{at} {later}");
            }
        }
    }

    proptest! {
        /// A record a second is produced, and a consumer is so far behind for good: what is told is never too much, and not much
        /// too little.
        #[test]
        fn never_too_much(behind in 1_u64..5_000, step in 1_u64..20) {
            let mut lag = Lag::default();
            let end = behind * 3 + 200;
            for now in (0..end).step_by(step as usize) {
                lag.sample(now * 1_000, now, now.saturating_sub(behind));
                prop_assert!(lag.marks.len() <= MARKS_MAX);
                let told = lag.ms(now * 1_000).unwrap_or(0);
                let truly = now.min(behind) * 1_000;
                prop_assert!(told <= truly, "{told} of {truly}");
                let least = truly.saturating_sub(2_000 * step) * 3 / 5;
                prop_assert!(told >= least, "{told} of {truly} at {now}");
            }
        }
    }
}
