//! The time of day where this daemon is, for streams that send at certain hours only. Everything else goes without clocks.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use stream::hours::TimeOfDay;
use tz::TimeZone;

/// How often the zone is read again: an administrator may change it while the daemon runs.
const ZONE_AGAIN: Duration = Duration::from_secs(60);
/// 2024-01-01T00:00:00Z. A clock before it has not been set since the device started; nothing is said about the hour.
const SET_SINCE_UNIX_S: u64 = 1_704_067_200;

#[derive(Debug)]
struct Zone {
    /// `None`: there is none on this host, so UTC.
    zone: Option<TimeZone>,
    read_at: Instant,
}

/// The local clock.
#[derive(Debug, Default)]
pub struct Clock {
    zone: Mutex<Option<Zone>>,
}

impl Clock {
    /// The time of day; `None` while the clock has plainly not been set. Hours do not hold a stream up then: it would be
    /// for ever on a device without a battery and without a time server.
    pub fn time_of_day(&self) -> Option<TimeOfDay> {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
        let offset_s = self.offset_s(unix.as_secs(), Instant::now());
        time_of_day(unix.as_secs(), offset_s)
    }

    /// What the zone adds to UTC at a moment, in seconds.
    fn offset_s(&self, unix_s: u64, now: Instant) -> i64 {
        // One assignment is all that happens under this lock.
        let mut cached = self.zone.lock().unwrap_or_else(PoisonError::into_inner);
        let is_fresh = |zone: &Zone| now.saturating_duration_since(zone.read_at) < ZONE_AGAIN;
        let had_zone = match cached.take_if(|zone| !is_fresh(zone)) {
            Some(old) => Some(old.zone.is_some()),
            None => None,
        };
        let zone = cached.get_or_insert_with(|| {
            let read = TimeZone::local();
            if let (Err(error), None | Some(true)) = (&read, had_zone) {
                tracing::info!(%error, "no local time zone on this host: send windows are in UTC");
            }
            Zone {
                zone: read.ok(),
                read_at: now,
            }
        });
        let unix_s = i64::try_from(unix_s).unwrap_or(i64::MAX);
        let local = zone
            .zone
            .as_ref()
            .and_then(|zone| zone.find_local_time_type(unix_s).ok());
        local.map_or(0, |local| i64::from(local.ut_offset()))
    }
}

fn time_of_day(unix_s: u64, offset_s: i64) -> Option<TimeOfDay> {
    if unix_s < SET_SINCE_UNIX_S {
        return None;
    }
    let local = i64::try_from(unix_s).ok()?.checked_add(offset_s)?;
    let second = local.rem_euclid(24 * 60 * 60);
    Some(TimeOfDay { second: second as u32 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_day_begins_where_the_daemon_is() {
        for (unix_s, offset_s, expected) in [
            (1_767_225_600, 0, Some(0)),
            (1_767_225_600, 3_600, Some(3_600)),
            (1_767_225_600, -18_000, Some(19 * 3_600)),
            (1_767_225_600 + 86_399, 1, Some(0)),
            // 1970, and a moment before the clock can have been set.
            (5, 0, None),
            (SET_SINCE_UNIX_S - 1, 50_400, None),
        ] {
            let found = time_of_day(unix_s, offset_s).map(|time| time.second);
            assert_eq!(found, expected, "{unix_s} {offset_s}");
        }
    }

    #[test]
    fn a_host_with_or_without_zones_tells_the_time() {
        let clock = Clock::default();
        assert!(clock.time_of_day().is_some_and(|time| time.second < 86_400));
        assert_eq!(clock.offset_s(u64::MAX, Instant::now()).abs() / (15 * 3_600), 0);
    }
}
