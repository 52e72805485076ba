//! When a stream may send: windows of the day. Pure: the time of day comes in.

use std::time::Duration;

use bus_schema::plan::Window;

const DAY_S: u32 = 24 * 60 * 60;

/// A time of day, local to whoever sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeOfDay {
    /// Seconds since midnight, below 86,400.
    pub second: u32,
}

/// How long until one of the windows opens; `None` when one is open. Without windows it is always open.
pub fn closed_for(windows: &[Window], now: TimeOfDay) -> Option<Duration> {
    let until = |window: &Window| {
        let (from, to) = (u32::from(window.from_minute) * 60, u32::from(window.to_minute) * 60);
        let since = (now.second + DAY_S - from % DAY_S) % DAY_S;
        let length = match (to + DAY_S - from % DAY_S) % DAY_S {
            // From a minute to the same minute is all day.
            0 => DAY_S,
            length => length,
        };
        if since < length { 0 } else { DAY_S - since }
    };
    let seconds = windows.iter().map(until).min().unwrap_or(0);
    (seconds > 0).then(|| Duration::from_secs(u64::from(seconds)))
}

/// When the next window opens, as people write it: `22:00`. `None` without windows.
pub fn opens_at(windows: &[Window], now: TimeOfDay) -> Option<String> {
    let next = windows.iter().min_by_key(|window| {
        let from = u32::from(window.from_minute) * 60;
        (from + DAY_S - now.second % DAY_S) % DAY_S
    })?;
    Some(format!("{:02}:{:02}", next.from_minute / 60, next.from_minute % 60))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(from: &str, to: &str) -> Window {
        let minute = |text: &str| {
            let (hour, minute) = text.split_once(':').unwrap();
            hour.parse::<u16>().unwrap() * 60 + minute.parse::<u16>().unwrap()
        };
        Window {
            from_minute: minute(from),
            to_minute: minute(to),
        }
    }

    #[test]
    fn windows_open_and_close_by_the_clock() {
        let at = |hour: u32, minute: u32, second: u32| TimeOfDay {
            second: (hour * 60 + minute) * 60 + second,
        };
        let night = vec![window("22:00", "06:00")];
        let two = vec![window("12:00", "13:00"), window("18:30", "18:31")];
        for (windows, now, expected, opens) in [
            (&vec![], at(3, 0, 0), None, None),
            (&night, at(22, 0, 0), None, Some("22:00")),
            (&night, at(23, 59, 59), None, Some("22:00")),
            (&night, at(5, 59, 59), None, Some("22:00")),
            (&night, at(6, 0, 0), Some(16 * 3600), Some("22:00")),
            (&night, at(21, 59, 58), Some(2), Some("22:00")),
            (&two, at(12, 30, 0), None, Some("18:30")),
            (&two, at(13, 0, 0), Some(5 * 3600 + 1800), Some("18:30")),
            (&two, at(18, 30, 59), None, Some("12:00")),
            (&two, at(18, 31, 0), Some(17 * 3600 + 29 * 60), Some("12:00")),
            (&vec![window("07:00", "07:00")], at(6, 59, 0), None, Some("07:00")),
            (
                &vec![window("00:00", "01:00")],
                at(1, 0, 0),
                Some(23 * 3600),
                Some("00:00"),
            ),
        ] {
            assert_eq!(
                closed_for(windows, now),
                expected.map(Duration::from_secs),
                "{windows:?} at {now:?}"
            );
            assert_eq!(opens_at(windows, now).as_deref(), opens, "{windows:?} at {now:?}");
        }
    }
}
