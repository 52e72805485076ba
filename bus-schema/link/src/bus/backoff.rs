//! How long to wait before the next attempt. Pure: randomness comes in as an argument.

use std::time::Duration;

/// Upper end of the first wait of somebody who has not been connected yet, in milliseconds.
const FIRST_MS: u64 = 100;
/// Upper end of the first wait of somebody who had been connected, in milliseconds. Whoever loses a broker loses it together
/// with everybody else: over this time a fleet comes back, each with its log-in, its status and its streams.
const RETURN_MS: u64 = 2_000;
/// Upper end of every later wait, in milliseconds. Both ends of a stream have to come back, and nothing moves before the later
/// one has: with 30 s, data stood still for 27 s after a broker had returned. A thousand daemons at a dead address are 200
/// attempts a second.
const LAST_MS: u64 = 10_000;

/// The wait after `round` fruitless rounds through the address list: anything from nothing up to an end that doubles each
/// round, at most 10 s ("full jitter"), so that a fleet does not return to a restarted broker all at once.
/// `random` is uniform over all of `u32`.
pub(crate) fn backoff(round: u32, was_connected: bool, random: u32) -> Duration {
    let least_ms = if was_connected { RETURN_MS } else { FIRST_MS };
    let end_ms = FIRST_MS.saturating_mul(1 << round.min(20)).clamp(least_ms, LAST_MS);
    Duration::from_micros((end_ms * 1000 * u64::from(random)) >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_and_stops_growing() {
        for (round, was_connected, random, expected_ms) in [
            (0, false, 0, 0),
            (0, false, u32::MAX, 99),
            (0, false, 1 << 31, 50),
            (1, false, 1 << 31, 100),
            (3, false, 1 << 31, 400),
            (9, false, 1 << 31, 5_000),
            (0, true, 0, 0),
            (0, true, u32::MAX, 1_999),
            (4, true, 1 << 31, 1_000),
            (5, true, 1 << 31, 1_600),
            (40, true, 1 << 31, 5_000),
            (u32::MAX, true, u32::MAX, 9_999),
        ] {
            let wait = backoff(round, was_connected, random);
            assert_eq!(wait.as_millis(), expected_ms, "{round} {was_connected} {random}");
        }
    }
}
