//! The wall clock, for times that are told and never relied on.

use std::time::SystemTime;

/// Nanoseconds since 1970; 0 before that.
pub(crate) fn now_ns() -> i128 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_nanos() as i128)
}
