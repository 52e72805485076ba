//! How long to wait before trying again. Pure: randomness comes in.

use std::time::Duration;

/// Exponential back-off with full jitter (Amazon Builders' Library, "Timeouts, retries, and backoff with jitter"):
/// a random wait between nothing and a ceiling that doubles.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    ceiling: Duration,
    failures: u32,
}

impl Default for Backoff {
    /// From 100 ms to 10 s: what was away for an hour is noticed about five seconds after it has returned.
    fn default() -> Self {
        Self::new(Duration::from_millis(100), Duration::from_secs(10))
    }
}

impl Backoff {
    /// Waits up to `first` after the first failure, never more than `ceiling`.
    pub fn new(first: Duration, ceiling: Duration) -> Self {
        Self {
            first,
            ceiling,
            failures: 0,
        }
    }

    /// Another failure: how long to wait. `random` is uniform over all of `u64`.
    pub fn next(&mut self, random: u64) -> Duration {
        let doubled = self.first.saturating_mul(1 << self.failures.min(20));
        self.failures = self.failures.saturating_add(1);
        let ceiling = doubled.min(self.ceiling).as_micros() as u64;
        // At least a tenth, so that a failing loop never spins.
        let floor = ceiling / 10;
        Duration::from_micros(floor + random % (ceiling - floor).max(1))
    }

    /// It worked: start over next time.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// Failures since the last success.
    pub fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_to_the_ceiling_and_never_spins() {
        let mut backoff = Backoff::default();
        let mut before = Duration::ZERO;
        for _ in 0..40 {
            let wait = backoff.next(u64::MAX);
            assert!(
                wait >= Duration::from_millis(10) && wait <= Duration::from_secs(10),
                "{wait:?}"
            );
            before = before.max(wait);
        }
        assert!(Backoff::default().next(0) >= Duration::from_millis(10));
        assert!(before > Duration::from_secs(2));
        backoff.reset();
        assert!(backoff.next(u64::MAX) <= Duration::from_millis(100));
    }
}
