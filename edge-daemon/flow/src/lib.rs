//! The flow of records through one daemon: what a source, a transform and a sink are, and the runner that drives them.
//!
//! A *pipe* goes from one source through a tree of transforms to its leaves, which are sinks. An incoming stream is a
//! source like any other, and a spooled outgoing stream is a sink like any other: this crate knows no bus, no disk and
//! no wall clock.
//!
//! Who owns what: a source *offers* a position with each batch; a sink makes batches durable in two steps, `write` and
//! `commit`; loops, retry, back-off, reopening, positions, dead letters and shutdown belong to the runner alone.

mod backoff;
mod component;
mod letter;
mod level;
pub mod levelling;
mod outlet;
mod pipe;
mod reader;
mod runner;
pub mod secrets;
mod sink;
mod source;
mod transform;
mod work;

pub use backoff::Backoff;
pub use component::{Build, BuildContext, Builder, Component, ConfigError, Registry, describe, parse_config};
pub use letter::{DeadLetter, DeadLetters, Due, LetterKey, LetterPoint, Replay, Stand};
pub use pipe::{Account, Checkpoints, Leaf, Meter, Observer, Pipe, Shared, Stage};
pub use runner::{GROUP_BATCHES_MAX, Outcome, Surroundings, run};
pub use sink::{Counts, Delivery, Rejected, Sink, Tally, Watermark};
pub use source::{Position, Read, Source, SourceBatch, Undecodable};
pub use transform::{Transform, Transformed};

use std::time::Duration;

/// How long a source may wait for records before it returns [`Read::Idle`].
pub const READ_WAIT_MAX: Duration = Duration::from_millis(500);

/// Why a component could not do its work, classified where it arose.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Worth trying again: the runner closes the component, waits (at least `after`, else with back-off) and reopens it.
    #[error("{cause}")]
    Retry {
        /// What failed, where; a full sentence for an operator.
        cause: String,
        /// The other side asked for this pause.
        after: Option<Duration>,
    },
    /// The destination does not stand where it stood before, ahead or behind: whatever was read since counts for nothing,
    /// and everything goes on from the watermark it has now.
    #[error("{cause}")]
    Moved {
        /// What happened.
        cause: String,
    },
    /// Trying again cannot help until somebody changes something: the workflow is reported as failed.
    #[error("{cause}")]
    Stop {
        /// What failed, where, and what to do about it.
        cause: String,
    },
}

impl Fault {
    /// A fault worth trying again.
    pub fn retry(cause: impl Into<String>) -> Self {
        Fault::Retry {
            cause: cause.into(),
            after: None,
        }
    }

    /// A fault that needs somebody to change something.
    pub fn stop(cause: impl Into<String>) -> Self {
        Fault::Stop { cause: cause.into() }
    }
}
