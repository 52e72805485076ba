//! How long to wait before the next attempt. Pure: randomness comes in as an argument.

use std::time::Duration;

/// Upper end of the first wait, in milliseconds.
const FIRST_MS: u64 = 100;
/// Upper end of every later wait, in milliseconds.
const LAST_MS: u64 = 30_000;

/// The wait after `round` fruitless rounds through the address list: anything from nothing up to 100 ms doubled each
/// round, at most 30 s ("full jitter"), so that a fleet does not return to a restarted broker all at once.
/// `random` is uniform over all of `u32`.
pub(crate) fn backoff(round: u32, random: u32) -> Duration {
    let cap_ms = FIRST_MS.saturating_mul(1 << round.min(20)).min(LAST_MS);
    Duration::from_micros((cap_ms * 1000 * u64::from(random)) >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_and_stops_growing() {
        for (round, random, expected_ms) in [
            (0, 0, 0),
            (0, u32::MAX, 99),
            (0, 1 << 31, 50),
            (1, 1 << 31, 100),
            (3, 1 << 31, 400),
            (9, 1 << 31, 15_000),
            (40, 1 << 31, 15_000),
            (u32::MAX, u32::MAX, 29_999),
        ] {
            assert_eq!(backoff(round, random).as_millis(), expected_ms, "{round} {random}");
        }
    }
}
