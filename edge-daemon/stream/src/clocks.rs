//! When a daemon's boots really began, and what that makes of the times of records. Pure. Decides nothing else by it: order,
//! acknowledgements and replay go by counters.
//!
//! The plane is the fleet's time reference. A record carries the boot it was read in, the time since that boot began (which
//! no change of the wall clock touches), and what the wall clock said. Once it is known when the boot began, the first two
//! give the time.

use bus_schema::{
    data::Origin,
    limits::CLOCK_OFF_MS_MAX,
    message::{BootClock, TimeHint},
};

/// Boots remembered: as many as may have records in buffers.
pub const BOOTS_MAX: usize = 64;
/// A hint was on the way for some time and makes a boot begin too late by it: an earlier beginning is the better one. Further
/// apart than this, the plane's clock was set, and the newest counts.
const SAME_CLOCK_MS: u64 = 60_000;

/// Boots and when they began, oldest boot first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Boots {
    clocks: Vec<BootClock>,
}

impl Boots {
    /// From what was written down.
    pub fn new(mut clocks: Vec<BootClock>) -> Self {
        clocks.sort_by_key(|clock| clock.boot);
        clocks.dedup_by_key(|clock| clock.boot);
        let mut boots = Self { clocks };
        boots.forget();
        boots
    }

    /// All of them.
    pub fn list(&self) -> &[BootClock] {
        &self.clocks
    }

    /// When a boot began, milliseconds since 1970.
    pub fn began(&self, boot: u64) -> Option<i64> {
        let clock = self.clocks.iter().find(|clock| clock.boot == boot);
        clock.map(|clock| clock.began_unix_ms)
    }

    /// The plane told its time. Returns whether anything is known better now.
    pub fn hear(&mut self, hint: &TimeHint) -> bool {
        let began = began(hint.unix_ms, hint.uptime_ms);
        let better = self
            .began(hint.boot)
            .is_none_or(|known| began < known || began.abs_diff(known) > SAME_CLOCK_MS);
        if better {
            self.set(BootClock {
                boot: hint.boot,
                began_unix_ms: began,
            });
        }
        better
    }

    /// Another daemon told its boots; its newest word counts.
    pub fn learn(&mut self, clocks: &[BootClock]) {
        // Only so many can be of use, whatever was sent.
        for clock in clocks.iter().rev().take(BOOTS_MAX).rev() {
            self.set(*clock);
        }
    }

    fn set(&mut self, clock: BootClock) {
        match self.clocks.binary_search_by_key(&clock.boot, |known| known.boot) {
            Ok(at) => self.clocks[at] = clock,
            Err(at) => self.clocks.insert(at, clock),
        }
        self.forget();
    }

    fn forget(&mut self) {
        let excess = self.clocks.len().saturating_sub(BOOTS_MAX);
        self.clocks.drain(..excess);
    }

    /// The origin of records with the time put right, if it is wrong and the right one known.
    pub fn corrected(&self, origin: &Origin) -> Option<Origin> {
        let unix_ms = self.began(origin.boot)?.checked_add_unsigned(origin.uptime_ms)?;
        (unix_ms.abs_diff(origin.unix_ms) > CLOCK_OFF_MS_MAX).then(|| Origin {
            unix_ms,
            ..origin.clone()
        })
    }
}

/// When a boot began that is so old now.
fn began(unix_ms: i64, uptime_ms: u64) -> i64 {
    unix_ms.saturating_sub_unsigned(uptime_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_790_000_000_000;

    fn hint(boot: u64, uptime_ms: u64, unix_ms: i64) -> TimeHint {
        TimeHint {
            boot,
            uptime_ms,
            unix_ms,
        }
    }

    #[test]
    fn the_best_hint_counts() {
        let mut boots = Boots::default();
        for (uptime_ms, unix_ms, is_better, began) in [
            // Ten seconds on the way, then one, then five.
            (1_000, NOW + 11_000, true, NOW + 10_000),
            (6_000, NOW + 7_000, true, NOW + 1_000),
            (11_000, NOW + 16_000, false, NOW + 1_000),
            // The plane's clock was set forward by a year, and back.
            (16_000, NOW + 31_536_016_000, true, NOW + 31_536_000_000),
            (21_000, NOW + 21_000, true, NOW),
            // Nonsense stays nonsense and breaks nothing.
            (u64::MAX, i64::MIN, true, i64::MIN),
            (0, NOW, true, NOW),
        ] {
            assert_eq!(boots.hear(&hint(7, uptime_ms, unix_ms)), is_better, "{uptime_ms}");
            assert_eq!(boots.began(7), Some(began), "{uptime_ms}");
        }
    }

    #[test]
    fn only_wrong_times_of_known_boots_are_corrected() {
        let mut boots = Boots::default();
        boots.learn(&[
            BootClock {
                boot: 3,
                began_unix_ms: NOW,
            },
            BootClock {
                boot: 4,
                began_unix_ms: i64::MAX,
            },
        ]);
        for (boot, uptime_ms, unix_ms, expected) in [
            (3, 5_000, 20_000, Some(NOW + 5_000)),
            (3, 5_000, NOW + 7_000, None),
            (3, 5_000, NOW + 7_001, Some(NOW + 5_000)),
            (3, 5_000, NOW + 157_680_000_000, Some(NOW + 5_000)),
            (2, 5_000, 20_000, None),
            (4, 5_000, 20_000, None),
        ] {
            let origin = Origin {
                source: "s".into(),
                boot,
                uptime_ms,
                unix_ms,
            };
            let corrected = boots.corrected(&origin);
            assert_eq!(corrected.as_ref().map(|origin| origin.unix_ms), expected, "{origin:?}");
            assert!(corrected.is_none_or(|corrected| Origin { unix_ms, ..corrected } == origin));
        }
    }

    #[test]
    fn the_newest_boots_are_remembered() {
        let clocks = |boots: std::ops::Range<u64>| -> Vec<_> {
            boots
                .map(|boot| BootClock {
                    boot,
                    began_unix_ms: NOW,
                })
                .collect()
        };
        let mut boots = Boots::new(clocks(0..50));
        boots.learn(&clocks(0..100));
        assert_eq!(boots.list(), clocks(36..100));
        assert_eq!(Boots::new(clocks(0..100)), boots);
        boots.hear(&hint(100, 0, NOW));
        assert_eq!(boots.list(), clocks(37..101));
    }
}
