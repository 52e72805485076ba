//! Records a second, from counts that arrive every few seconds. Knows no clock and no stream.

use std::collections::VecDeque;

/// Samples kept, besides the newest.
const SAMPLES_MAX: usize = 6;
/// Oldest sample a rate is measured against, in milliseconds.
const WINDOW_MS: u64 = 16_000;
/// Without a sample for this long the rate is 0: nobody says that records flow.
const SILENT_MS: u64 = 16_000;
/// Samples closer together than this are one, in milliseconds: both ends of a stream report within a moment.
const APART_MS: u64 = 900;

/// How fast one counter grows.
#[derive(Debug, Clone, Default)]
pub struct Rate {
    /// (time, count), oldest first.
    samples: VecDeque<(u64, u64)>,
}

impl Rate {
    /// The counter stood at `count`. A counter that went back starts anew (a new epoch of its stream).
    pub fn sample(&mut self, now_ms: u64, count: u64) {
        if self.samples.back().is_some_and(|(_, last)| count < *last) {
            self.samples.clear();
        }
        let is_first = self.samples.len() < 2;
        match self.samples.back_mut() {
            Some((at, last)) if !is_first && now_ms.saturating_sub(*at) < APART_MS => *last = count,
            _ => self.samples.push_back((now_ms, count)),
        }
        while self.samples.len() > SAMPLES_MAX + 1
            || self.samples.len() > 2
                && self
                    .samples
                    .front()
                    .is_some_and(|(at, _)| now_ms.saturating_sub(*at) > WINDOW_MS)
        {
            self.samples.pop_front();
        }
    }

    /// Per second, rounded; 0 when unknown.
    pub fn per_second(&self, now_ms: u64) -> u32 {
        let (Some((first_at, first)), Some((last_at, last))) = (self.samples.front(), self.samples.back()) else {
            return 0;
        };
        let span = last_at.saturating_sub(*first_at);
        if span == 0 || now_ms.saturating_sub(*last_at) > SILENT_MS {
            return 0;
        }
        let grown = u128::from(last.saturating_sub(*first)) * 1_000 + u128::from(span / 2);
        u32::try_from(grown / u128::from(span)).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates() {
        // (samples, asked at, rate)
        for (samples, now, rate) in [
            (vec![], 0, 0),
            (vec![(0, 100)], 0, 0),
            (vec![(0, 0), (5_000, 500)], 5_000, 100),
            (vec![(0, 0), (5_000, 500), (10_000, 500)], 10_000, 50),
            // Old samples fall out: 20 s of standstill, then 100 a second.
            (vec![(0, 0), (5_000, 0), (20_000, 0), (25_000, 500)], 25_000, 100),
            // Silence is not a rate.
            (vec![(0, 0), (5_000, 500)], 21_001, 0),
            // A new epoch starts at zero.
            (vec![(0, 1_000), (5_000, 2_000), (10_000, 10), (15_000, 60)], 15_000, 10),
            (vec![(0, 0), (5_000, u64::MAX)], 5_000, u32::MAX),
        ] {
            let mut counter = Rate::default();
            for (at, count) in &samples {
                counter.sample(*at, *count);
            }
            assert_eq!(counter.per_second(now), rate, "{samples:?}");
        }
    }

    #[test]
    fn memory_is_bounded() {
        let mut rate = Rate::default();
        for n in 0..10_000 {
            rate.sample(n, n);
        }
        assert!(rate.samples.len() <= SAMPLES_MAX + 1);
    }
}
