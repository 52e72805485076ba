//! Whether a new plan may stay. One that cuts its daemon off from the bus could never be taken back by the plane: so a plan
//! is kept for good only when a message has gone to the broker and come back while it was running; else the daemon goes back
//! to the plan before by itself. Pure: time comes in.

/// A message that came back earlier proves nothing: the plan was only just being started.
pub const SETTLE_MS: u64 = 10_000;
/// How long it may take until one comes back, in milliseconds. Longer than a broker's restart.
pub const PROOF_MS_MAX: u64 = 120_000;
/// How long a plan that was gone back from is not taken again, in milliseconds. It may have been the network's fault.
pub const REFUSED_MS: u64 = 600_000;

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Try to send a message there and back.
    Waits,
    /// The plan stays.
    Stays,
    /// Back to the plan before.
    GoesBack,
}

/// A plan that has to prove itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probation {
    since_ms: u64,
    is_proven: bool,
}

impl Probation {
    /// It was started now.
    pub fn begin(now_ms: u64) -> Self {
        Self {
            since_ms: now_ms,
            is_proven: false,
        }
    }

    /// A message came back.
    pub fn came_back(&mut self, now_ms: u64) {
        self.is_proven |= now_ms.saturating_sub(self.since_ms) >= SETTLE_MS;
    }

    /// How it stands.
    pub fn look(&self, now_ms: u64) -> Verdict {
        match now_ms.saturating_sub(self.since_ms) {
            _ if self.is_proven => Verdict::Stays,
            waited if waited >= PROOF_MS_MAX => Verdict::GoesBack,
            _ => Verdict::Waits,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_message_under_the_new_plan_proves_it() {
        // (messages that come back, looked at, verdict)
        for (back, now, verdict) in [
            (vec![], SETTLE_MS, Verdict::Waits),
            (vec![], PROOF_MS_MAX, Verdict::GoesBack),
            (vec![SETTLE_MS - 1], SETTLE_MS, Verdict::Waits),
            (vec![SETTLE_MS - 1], PROOF_MS_MAX, Verdict::GoesBack),
            (vec![SETTLE_MS], SETTLE_MS, Verdict::Stays),
            (vec![PROOF_MS_MAX - 1], 10 * PROOF_MS_MAX, Verdict::Stays),
        ] {
            let mut probation = Probation::begin(1_000);
            back.iter().for_each(|at| probation.came_back(1_000 + at));
            assert_eq!(probation.look(1_000 + now), verdict, "{back:?} {now}");
        }
    }
}
