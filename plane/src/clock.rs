//! The only place where the plane reads a clock.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::domain::Now;

/// Counts from the plane's start.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// Starts counting.
    pub fn start() -> Self {
        Self { start: Instant::now() }
    }

    /// The time.
    pub fn now(&self) -> Now {
        let mono_ms = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        Now {
            mono_ms,
            unix_ms: unix_ms(),
        }
    }
}

/// The wall clock, milliseconds since 1970; 0 before that.
pub fn unix_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
