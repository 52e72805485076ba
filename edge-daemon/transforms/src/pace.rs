//! How far time has come, by the times of records alone and in their order. One record with a wrong clock must not move it so
//! far that all others are too late; and a gap in the records must not stop it.

use serde::{Deserialize, Serialize};

/// So many records in a row have to be far ahead for time to follow them.
pub(crate) const AGREEING: u32 = 5;
/// What `ahead_max_ms` is unless given: three days. What comes once a day comes a little later on one day than on another, and is
/// missing once in a while; none of that is a wrong clock.
const AHEAD_MS_USUAL: u64 = 3 * DAY_MS;
const DAY_MS: u64 = 86_400_000;

pub(crate) fn ahead_usual() -> u64 {
    AHEAD_MS_USUAL
}

/// Where time is, and who would have it elsewhere. A part of stored states.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Pace {
    /// The youngest record that time goes by; the least there is before any.
    youngest: i64,
    /// The last so many were further ahead than is believed of one.
    ahead: u32,
    /// The youngest of those that can be reached from the earliest of them step by step, none of which is further than that.
    agreed: i64,
}

impl Default for Pace {
    fn default() -> Self {
        Self::at(i64::MIN)
    }
}

impl Pace {
    /// Time has come to here.
    pub(crate) fn at(youngest: i64) -> Self {
        Self {
            youngest,
            ahead: 0,
            agreed: i64::MAX,
        }
    }

    pub(crate) fn youngest(self) -> i64 {
        self.youngest
    }

    /// Whether a moment is so far ahead that time does not go by one record of it. Before any record all are.
    pub(crate) fn is_ahead(self, at: i64, ahead_max: Option<i64>) -> bool {
        ahead_max.is_some_and(|max| self.youngest == i64::MIN || at > self.youngest.saturating_add(max))
    }

    /// Where time is after one more record. `ahead_max` of `None`: it follows whoever is ahead.
    #[must_use]
    pub(crate) fn after(self, at: i64, ahead_max: Option<i64>) -> Self {
        if !self.is_ahead(at, ahead_max) {
            return Self::at(self.youngest.max(at));
        }
        let (ahead, agreed) = (self.ahead + 1, self.agreed_with(at, ahead_max));
        if ahead >= AGREEING {
            // Those that come now show whether the others were right.
            Self::at(agreed)
        } else {
            Self { ahead, agreed, ..self }
        }
    }

    /// What those ahead agree on, with one more of them. One that is too far from the others is wrong, or the others are: the
    /// earlier one is believed. Without going on step by step, time would stay behind what comes seldom for ever.
    fn agreed_with(self, at: i64, ahead_max: Option<i64>) -> i64 {
        let step = ahead_max.unwrap_or(i64::MAX);
        if self.ahead == 0 || at < self.agreed.saturating_sub(step) {
            at
        } else if at > self.agreed.saturating_add(step) {
            self.agreed
        } else {
            self.agreed.max(at)
        }
    }

    /// Nothing comes any more. Had there been too few to agree, time is where they would have it.
    #[must_use]
    pub(crate) fn ended(self) -> Self {
        if self.youngest == i64::MIN && self.ahead > 0 {
            Self::at(self.agreed)
        } else {
            self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_once_a_day_moves_time_each_day() {
        let day = DAY_MS as i64;
        let ahead_max = Some(ahead_usual() as i64);
        let mut pace = Pace::default();
        for number in 0..30 {
            // Minutes later or earlier than the day before; the twelfth day is missing.
            let at = number * day + (number % 3) * 120_000;
            if number == 12 {
                continue;
            }
            pace = pace.after(at, ahead_max);
            let is_begun = number + 1 >= i64::from(AGREEING);
            assert_eq!(pace.youngest() != i64::MIN, is_begun, "day {number}");
            if number >= i64::from(AGREEING) + 2 {
                assert_eq!(pace.youngest(), at, "day {number}");
            }
        }
    }

    #[test]
    fn time_goes_by_those_who_agree() {
        const NEVER: i64 = i64::MIN;
        const WRONG: i64 = 1_000_000;
        for (records, ahead_max, wanted, at_end) in [
            (&[][..], Some(10), NEVER, NEVER),
            // It begins when there are enough to tell, with the youngest of them that others lead to.
            (&[3, 1, 2, 5], Some(10), NEVER, 5),
            (&[3, 1, 2, 5, 4], Some(10), 5, 5),
            // Out of order by more than may be, none is led to that is in doubt.
            (&[30, 20, 10, 0, 40], Some(10), 10, 10),
            (&[0, 10, 20, 30, 40], Some(10), 40, 40),
            (&[3, 1, 2, 5, 4, 6, 5], Some(10), 6, 6),
            // A wrong one, at any place, moves nothing; neither do several that are not in a row.
            (&[WRONG, 1, 2, 3, 4, 5], Some(10), 5, 5),
            (&[1, 2, 3, 4, 5, WRONG, 6], Some(10), 6, 6),
            (&[1, 2, 3, 4, WRONG, 5], Some(10), 5, 5),
            (
                &[
                    1, 1, 1, 1, 1, WRONG, WRONG, WRONG, WRONG, 2, WRONG, WRONG, WRONG, WRONG, 3,
                ],
                Some(10),
                3,
                3,
            ),
            // After a gap time goes on, with the right ones among those that come then.
            (&[1, 1, 1, 1, 1, 500, 501, 502, 503], Some(10), 1, 1),
            (&[1, 1, 1, 1, 1, 500, 501, 502, 503, 504], Some(10), 504, 504),
            (&[1, 1, 1, 1, 1, WRONG, 501, WRONG, 502, 503], Some(10), 503, 503),
            (&[1, 1, 1, 1, 1, 501, WRONG, 502, 503, 504], Some(10), 504, 504),
            // Each far ahead of the one before.
            (&[0, 100, 200, 300, 400, 500, 600, 700, 800, 900], Some(10), 500, 500),
            // As far as may be, and the ends of all there is.
            (&[1, 1, 1, 1, 1, 11, 21], Some(10), 21, 21),
            (&[i64::MAX, 1, 1, 1, 1, 2], Some(i64::MAX / 2), 2, 2),
            (&[i64::MAX; 5], Some(10), i64::MAX, i64::MAX),
            // Without a bound it follows whoever is ahead.
            (&[1, WRONG, 2], None, WRONG, WRONG),
        ] {
            let pace = records
                .iter()
                .fold(Pace::default(), |pace, at| pace.after(*at, ahead_max));
            assert_eq!(
                (pace.youngest(), pace.ended().youngest()),
                (wanted, at_end),
                "{records:?} {ahead_max:?}"
            );
        }
    }
}
