//! Does one daemon speak, or two with the same keys? Whoever copies a data directory and starts both has a clone: both count
//! the same start, and each speaks of its own time since. Pure; knows statuses only.
//!
//! Messages that arrive twice or late are no clone: they say what was said before, or were said before what is known.

use std::collections::VecDeque;

use bus_schema::message::Status;

use super::Now;

/// Statuses remembered.
const REMEMBERED: usize = 32;
/// How long a clone is told of after it was last noticed, in milliseconds.
pub const CLONED_MS: u64 = 10 * 60_000;
/// Signs it takes: one alone may be a strange accident.
const SIGNS: u32 = 2;
/// Of a start before the newest one: how much later than that it must have spoken, in milliseconds, as clocks differ a little.
const LATER_MS: i64 = 15_000;

/// What is known of one daemon's starts.
#[derive(Debug, Clone, Default)]
pub struct Lineage {
    /// Accepted: (boot, uptime in ms), the newest last.
    known: VecDeque<(u64, u64)>,
    /// The newest boot, and when it was first heard, by the fleet's time in ms.
    newest: Option<(u64, i64)>,
    signs: u32,
    noticed_ms: Option<u64>,
}

impl Lineage {
    /// A genuine status came in, and was or was not accepted as the daemon's newest.
    pub fn heard(&mut self, status: &Status, accepted: bool, now: Now) {
        let said = (status.boot, status.uptime_ms);
        if !accepted && self.is_of_another(status) {
            self.signs = self.signs.saturating_add(1);
            if self.signs >= SIGNS {
                self.noticed_ms = Some(now.mono_ms);
            }
            // The same one again is no further sign.
            self.remember(said);
        }
        if accepted {
            if self.newest.is_none_or(|(boot, _)| boot != status.boot) {
                self.newest = Some((status.boot, now.unix_ms));
                self.known.clear();
            }
            self.remember(said);
        }
    }

    fn remember(&mut self, said: (u64, u64)) {
        self.known.push_back(said);
        if self.known.len() > REMEMBERED {
            self.known.pop_front();
        }
    }

    fn is_of_another(&self, status: &Status) -> bool {
        let Some((newest, since_unix_ms)) = self.newest else {
            return false;
        };
        if status.boot == newest {
            // Between the oldest and the newest that are known, and not one of them: nobody has two times since one start.
            let own = |(boot, _): &&(u64, u64)| *boot == newest;
            let oldest = self.known.iter().filter(own).map(|(_, uptime)| *uptime).min();
            let is_known = self.known.contains(&(status.boot, status.uptime_ms));
            return !is_known && oldest.is_some_and(|oldest| status.uptime_ms > oldest);
        }
        // A start before the newest one speaks later than that.
        let began = status
            .began_unix_ms
            .and_then(|began| began.checked_add_unsigned(status.uptime_ms));
        let is_known = self.known.contains(&(status.boot, status.uptime_ms));
        status.boot < newest && !is_known && began.unwrap_or(status.unix_ms) > since_unix_ms.saturating_add(LATER_MS)
    }

    /// Whether two were noticed a short while ago.
    pub fn is_cloned(&self, now_ms: u64) -> bool {
        self.noticed_ms
            .is_some_and(|noticed| now_ms.saturating_sub(noticed) < CLONED_MS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::testing::status;

    fn at(ms: u64) -> Now {
        Now {
            mono_ms: ms,
            unix_ms: ms as i64,
        }
    }

    /// (time, boot, uptime, accepted)
    fn told(story: &[(u64, u64, u64, bool)]) -> bool {
        let mut lineage = Lineage::default();
        for (now, boot, uptime, accepted) in story {
            let status = Status {
                began_unix_ms: Some((now - uptime) as i64),
                ..status(*boot, *uptime, 0)
            };
            lineage.heard(&status, *accepted, at(*now));
        }
        lineage.is_cloned(story.last().map_or(0, |(now, ..)| *now))
    }

    #[test]
    fn two_of_one_start_and_two_of_different_starts() {
        let both_at_once = [
            (100_000, 7, 5_000, true),
            (102_000, 7, 3_000, false),
            (105_000, 7, 10_000, true),
            (107_000, 7, 8_000, false),
            (110_000, 7, 15_000, true),
            (112_000, 7, 13_000, false),
        ];
        assert!(told(&both_at_once));
        let one_started_again = [
            (100_000, 7, 50_000, true),
            (105_000, 8, 0, true),
            (125_000, 7, 75_000, false),
            (126_000, 8, 21_000, true),
            (130_000, 7, 80_000, false),
        ];
        assert!(told(&one_started_again));
    }

    #[test]
    fn late_and_repeated_messages_are_no_clone() {
        let mut repeated = vec![(100_000, 7, 5_000, true), (105_000, 7, 10_000, true)];
        repeated.extend([(106_000, 7, 5_000, false), (106_000, 7, 10_000, false)].repeat(5));
        assert!(!told(&repeated));
        let mut lineage = Lineage::default();
        for (now, said, boot, uptime, accepted) in [
            (100_000, 100_000, 7, 50_000, true),
            (105_000, 105_000, 8, 0, true),
            // Said before the newer start, heard long after.
            (200_000, 101_000, 7, 51_000, false),
            (201_000, 102_000, 7, 52_000, false),
            (202_000, 103_000, 7, 53_000, false),
        ] {
            let status = Status {
                began_unix_ms: Some(said - uptime as i64),
                ..status(boot, uptime, 0)
            };
            lineage.heard(&status, accepted, at(now));
        }
        assert!(!lineage.is_cloned(202_000));
        assert!(
            !told(&[(1, 1, 1, true), (2, 2, 0, true), (3, 3, 0, true)]),
            "restarts are none"
        );
    }

    #[test]
    fn it_is_forgotten() {
        let mut lineage = Lineage {
            noticed_ms: Some(5),
            ..Lineage::default()
        };
        assert!(lineage.is_cloned(CLONED_MS) && !lineage.is_cloned(CLONED_MS + 5));
        for n in 0..1_000 {
            lineage.heard(&status(1, n, 0), true, at(n));
        }
        assert!(lineage.known.len() <= REMEMBERED);
    }
}
