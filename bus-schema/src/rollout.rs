//! Rollouts: a revision that goes to its daemons in waves, each of which has to do well before the next begins. What operators
//! ask for, and what they see of it.

use alloc::{string::String, vec::Vec};

use serde::{Deserialize, Serialize};

use crate::aside::Aside;

/// How much longer than before the oldest record of a daemon may wait, when nobody says anything else, in seconds. Destinations that
/// gather for some minutes stay below.
pub const LAG_S_MAX: u32 = 900;

/// So many daemons, or a part of all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Amount {
    /// So many.
    Count(u32),
    /// Of a hundred.
    Percent(u8),
}

impl Amount {
    /// How many that are of `all`; of a part that is not nothing, at least one.
    pub fn of(self, all: usize) -> usize {
        match self {
            Amount::Count(count) => all.min(count as usize),
            Amount::Percent(percent) => (all * usize::from(percent.min(100))).div_ceil(100),
        }
    }
}

/// What becomes of a rollout when too many daemons fail. Variants are only ever appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    /// All that have the new revision get back what they had before.
    RollBack,
    /// It waits for somebody to look.
    Pause,
}

/// How a rollout goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct RolloutPolicy {
    /// How many daemons have the revision after each wave. The last is all of them, whether it is said or not.
    pub waves: Vec<Amount>,
    /// How long a wave has to do well before the next begins, in seconds.
    pub soak_s: u32,
    /// How long a daemon may take to run the revision, in seconds. One that is silent for so long has failed.
    pub take_s: u32,
    /// How many daemons may fail.
    pub failures_max: Amount,
    /// Records of one daemon that may become dead letters or be dropped.
    pub dead_max: u64,
    /// Bytes that one daemon's buffers may grow by.
    pub lag_bytes_max: u64,
    /// What a wave has to move of what its daemons moved before, of a hundred; 0 does not look.
    pub throughput_percent_min: u8,
    /// What happens when more fail.
    pub on_failure: OnFailure,
    /// How much longer than before a daemon's oldest record may wait, in seconds; 0 does not look, 900 when it is left out.
    #[serde(skip_serializing_if = "Aside::is_untold")]
    pub lag_s_max: Aside<u32>,
}

impl RolloutPolicy {
    /// How much longer than before a daemon's oldest record may wait, in seconds; `None` does not look.
    pub fn lag_s_max(&self) -> Option<u32> {
        let told = self.lag_s_max.get().copied().unwrap_or(LAG_S_MAX);
        (told > 0).then_some(told)
    }
}

impl Default for RolloutPolicy {
    fn default() -> Self {
        Self {
            waves: [
                Amount::Count(1),
                Amount::Percent(10),
                Amount::Percent(50),
                Amount::Percent(100),
            ]
            .into(),
            soak_s: 30,
            take_s: 120,
            failures_max: Amount::Count(0),
            dead_max: 0,
            lag_bytes_max: 64 * 1024 * 1024,
            throughput_percent_min: 20,
            on_failure: OnFailure::RollBack,
            lag_s_max: Aside::default(),
        }
    }
}

/// Where a rollout stands. Variants are only ever appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum RolloutPhase {
    /// A wave is about to be deployed.
    Ready,
    /// The daemons of a wave are to run the revision.
    Taking,
    /// They run it, and have to do well for a while.
    Soaking,
    /// It waits for somebody.
    Paused,
    /// Daemons are to run again what they ran before.
    RollingBack,
    /// All daemons run the revision.
    Done,
    /// Everything is as it was before.
    RolledBack,
    /// Somebody ended it; what was deployed stays.
    Aborted,
}

impl RolloutPhase {
    /// Whether nothing more comes of it.
    pub fn is_over(self) -> bool {
        matches!(self, Self::Done | Self::RolledBack | Self::Aborted)
    }
}

/// What an operator tells a rollout. Variants are only ever appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum RolloutCommand {
    /// No new wave begins.
    Pause,
    /// It goes on, whatever has failed so far.
    Resume,
    /// It ends; what was deployed stays.
    Abort,
    /// All that have the new revision get back what they had before.
    RollBack,
}

/// A wave, for people to read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct WaveView {
    /// Its daemons.
    pub daemons: u32,
    /// Of them, those that run the revision.
    pub taken: u32,
    /// Of them, those that failed.
    pub failed: u32,
}

/// A daemon that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct RolloutFailure {
    /// Its name.
    pub daemon: String,
    /// Why.
    pub cause: String,
}

/// A rollout, for people to read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct RolloutView {
    /// From 1.
    pub id: u64,
    /// What is deployed.
    pub workflow: String,
    /// Which revision of it.
    pub revision: u32,
    /// The revision before; 0 when there was none.
    pub before: u32,
    /// Who began it.
    pub by: String,
    /// When, milliseconds since 1970.
    pub at_unix_ms: i64,
    /// Where it stands.
    pub phase: RolloutPhase,
    /// The wave it is at, from 1.
    pub wave: u32,
    /// All waves.
    pub waves: Vec<WaveView>,
    /// Why it is paused or over; empty otherwise.
    pub cause: String,
    /// Daemons that failed, the first of them.
    pub failures: Vec<RolloutFailure>,
    /// How it goes on.
    pub policy: RolloutPolicy,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts() {
        for (amount, all, expected) in [
            (Amount::Count(1), 10, 1),
            (Amount::Count(20), 10, 10),
            (Amount::Percent(10), 10, 1),
            (Amount::Percent(1), 10, 1),
            (Amount::Percent(50), 3, 2),
            (Amount::Percent(200), 3, 3),
            (Amount::Percent(0), 3, 0),
            (Amount::Percent(1), 0, 0),
        ] {
            assert_eq!(amount.of(all), expected, "{amount:?} of {all}");
        }
    }
}
