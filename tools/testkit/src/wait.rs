//! Waiting for something to become true, with a failure that names it. Never sleeps for a fixed time.

use std::fmt::Display;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long to wait between two looks.
const POLL_MS: u64 = 10;

/// Calls `look` until it returns `Some`, and returns that. Panics with `what` when `deadline` passes first.
///
/// `look` is called at least once, even with a deadline of zero.
#[track_caller]
pub fn wait_until<T>(what: &str, deadline: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < deadline, "waited {deadline:?} in vain for {what}");
        sleep(Duration::from_millis(POLL_MS));
    }
}

/// Calls `attempt` until it returns `Ok`. Panics with `what` and the last error when `deadline` passes first.
#[track_caller]
pub fn wait_ok<T, E: Display>(what: &str, deadline: Duration, mut attempt: impl FnMut() -> Result<T, E>) -> T {
    let start = Instant::now();
    loop {
        match attempt() {
            Ok(found) => return found,
            Err(e) if start.elapsed() >= deadline => panic!("waited {deadline:?} in vain for {what}; last error: {e}"),
            Err(_) => sleep(Duration::from_millis(POLL_MS)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn returns_what_was_found() {
        let mut left = 3;
        let found = wait_until("a countdown", Duration::from_secs(5), || {
            left -= 1;
            (left == 0).then_some("done")
        });
        assert_eq!(found, "done");
    }

    #[test]
    #[should_panic(expected = "in vain for the moon")]
    fn names_what_did_not_come() {
        wait_until("the moon", Duration::ZERO, || None::<()>);
    }

    #[test]
    #[should_panic(expected = "in vain for a number; last error: invalid digit")]
    fn shows_the_last_error() {
        wait_ok("a number", Duration::ZERO, || "x".parse::<u8>());
    }
}
