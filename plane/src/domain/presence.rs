//! Is a daemon there? Each status is a lease; this machine turns leases into one word, once, for everybody who asks.
//! Knows nothing of what a daemon runs.
//!
//! ```text
//! unknown ──status──▶ online ──lease over──▶ late ──grace over──▶ offline
//!                       ▲                      │  ▲                  │
//!                       └──heard steadily──────┘  └─────status───────┘
//! ```
//! Going down takes a whole lease and then the grace; coming back takes an unbroken run of statuses of some length.
//! So a daemon on a bad line is *late* all the time rather than online and offline in turns.

use bus_schema::api::Presence;

/// Shortest lease that is believed, in milliseconds.
pub const LEASE_MS_MIN: u64 = 1_000;
/// Longest lease that is believed, in milliseconds: no daemon can call itself online for a day.
pub const LEASE_MS_MAX: u64 = 10 * 60 * 1_000;
/// From the end of the lease to *offline*, in milliseconds.
pub const GRACE_MS: u64 = 30_000;
/// How long a daemon that was late has to be heard without a break to be *online* again, in milliseconds: a little less
/// than one heartbeat, so that the second status does it.
pub const STEADY_MS: u64 = 4_000;

/// One daemon's presence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    state: Presence,
    heard_ms: Option<u64>,
    /// End of the lease of the last status.
    until_ms: u64,
    /// Start of the run of statuses, each within the lease of the one before.
    steady_since_ms: u64,
}

impl Default for Lease {
    fn default() -> Self {
        Self {
            state: Presence::Unknown,
            heard_ms: None,
            until_ms: 0,
            steady_since_ms: 0,
        }
    }
}

impl Lease {
    /// A status came in. A lease of 0 is a goodbye: the daemon stops in good order.
    pub fn heard(&mut self, now_ms: u64, lease_ms: u64) {
        self.tick(now_ms);
        self.heard_ms = Some(now_ms);
        if lease_ms == 0 {
            self.state = Presence::Offline;
            self.until_ms = now_ms;
            return;
        }
        if now_ms >= self.until_ms {
            self.steady_since_ms = now_ms;
        }
        let until = now_ms.saturating_add(lease_ms.clamp(LEASE_MS_MIN, LEASE_MS_MAX));
        self.until_ms = self.until_ms.max(until);
        let steady = now_ms.saturating_sub(self.steady_since_ms) >= STEADY_MS;
        self.state = match self.state {
            Presence::Unknown | Presence::Online => Presence::Online,
            Presence::Late | Presence::Offline if steady => Presence::Online,
            Presence::Late | Presence::Offline => Presence::Late,
        };
    }

    /// Time has passed. How often this is called makes no difference to what comes out.
    pub fn tick(&mut self, now_ms: u64) {
        if self.state == Presence::Online && now_ms >= self.until_ms {
            self.state = Presence::Late;
        }
        if self.state == Presence::Late && now_ms >= self.until_ms.saturating_add(GRACE_MS) {
            self.state = Presence::Offline;
        }
    }

    /// As of the last [`Lease::tick`] or [`Lease::heard`].
    pub fn state(&self) -> Presence {
        self.state
    }

    /// Milliseconds since the last status.
    pub fn silent_ms(&self, now_ms: u64) -> Option<u64> {
        self.heard_ms.map(|heard| now_ms.saturating_sub(heard))
    }
}

#[cfg(test)]
mod tests {
    use bus_schema::limits::{HEARTBEAT_MS, LEASE_MS};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn goes_down_step_by_step_and_comes_back_when_steady() {
        use Presence::{Late, Offline, Online, Unknown};
        let mut lease = Lease::default();
        // (time in ms, lease of a status that arrives then, state)
        for (now, heard, state) in [
            (0, None, Unknown),
            (100_000, None, Unknown),
            (100_000, Some(LEASE_MS), Online),
            (116_999, None, Online),
            (117_000, None, Late),
            (146_999, None, Late),
            (147_000, None, Offline),
            (200_000, Some(LEASE_MS), Late),
            (205_000, Some(LEASE_MS), Online),
            (222_000, None, Late),
            // Comes back at once after a single late status? Not before it is steady.
            (222_001, Some(LEASE_MS), Late),
            (222_002, Some(LEASE_MS), Late),
            (226_001, Some(LEASE_MS), Online),
            (226_002, Some(0), Offline),
        ] {
            match heard {
                Some(lease_ms) => lease.heard(now, lease_ms),
                None => lease.tick(now),
            }
            assert_eq!(lease.state(), state, "at {now}");
        }
        assert_eq!(lease.silent_ms(226_010), Some(8));
    }

    #[test]
    fn nobody_is_online_for_ever() {
        let mut lease = Lease::default();
        lease.heard(0, u64::MAX);
        lease.tick(LEASE_MS_MAX + GRACE_MS);
        assert_eq!(lease.state(), Presence::Offline);
    }

    /// Gaps between events and the lease each status carries (0 in one of a hundred: a goodbye).
    fn story() -> impl Strategy<Value = Vec<(u64, u64)>> {
        let lease = prop_oneof![1 => Just(0), 99 => 500u64..40_000];
        proptest::collection::vec((0u64..90_000, lease), 1..200)
    }

    proptest! {
        #[test]
        fn never_flaps(story in story()) {
            let (mut lease, mut now, mut online_since) = (Lease::default(), 0u64, None::<u64>);
            for (gap, lease_ms) in story {
                for step in 1..=gap.div_ceil(500) {
                    let before = lease.state();
                    lease.tick((now + step * 500).min(now + gap));
                    // Downwards only one step at a time.
                    prop_assert!(!(before == Presence::Online && lease.state() == Presence::Offline));
                    prop_assert!(lease.state() != Presence::Online || before == Presence::Online);
                }
                now += gap;
                let before = lease.state();
                lease.heard(now, lease_ms);
                if before != Presence::Online && lease.state() == Presence::Online {
                    // Two returns are at least one shortest lease and the steady time apart.
                    if let Some(since) = online_since {
                        prop_assert!(now - since >= STEADY_MS, "{since} {now}");
                    }
                    online_since = Some(now);
                }
            }
        }

        #[test]
        fn a_steady_daemon_stays_online(gaps in proptest::collection::vec(1..LEASE_MS, 1..100)) {
            let (mut lease, mut now) = (Lease::default(), 7);
            lease.heard(now, LEASE_MS);
            for gap in gaps {
                now += gap;
                lease.tick(now);
                prop_assert_eq!(lease.state(), Presence::Online);
                lease.heard(now, LEASE_MS);
            }
        }

        #[test]
        fn how_often_it_is_looked_at_makes_no_difference(story in story(), step in 1u64..5_000) {
            let (mut coarse, mut fine, mut now) = (Lease::default(), Lease::default(), 0u64);
            for (gap, lease_ms) in story {
                for at in (now..now + gap).step_by(step as usize) {
                    fine.tick(at);
                }
                now += gap;
                coarse.heard(now, lease_ms);
                fine.heard(now, lease_ms);
                prop_assert_eq!(&coarse, &fine);
            }
        }

        #[test]
        fn a_returning_daemon_is_online_within_two_heartbeats(silence in LEASE_MS..1_000_000) {
            let mut lease = Lease::default();
            lease.heard(0, LEASE_MS);
            for beat in 0..=1 {
                lease.heard(silence + beat * HEARTBEAT_MS, LEASE_MS);
            }
            prop_assert_eq!(lease.state(), Presence::Online);
        }
    }
}
